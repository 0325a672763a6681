//! A point as a source of every verb that takes a machine.

use super::*;

/// What `inspect` finds in a point is what it finds in the machine that it is of; and `convert` takes it to other targets.
#[test]
fn a_point_is_inspected_and_converted_as_its_machine_is() {
    let _place = crate::boots::place();
    let Some(protected) = protected() else { return };
    let source = guest("bookworm", "bios-ext4").unwrap();
    let before = digest(&protected.vault(), protected.points[0]);
    let inspect = |source: &Path| {
        let output = protected.landfall().args(["--json", "inspect"]).arg(source).output().unwrap();
        json(&output)
    };
    let point = inspect(Path::new("point:web01@tag:good"));
    let machine = inspect(&source.join("web01.vmx"));
    for same in ["guest", "edits", "devices", "volumes"] {
        assert_eq!(point[same], machine[same], "{same}");
    }
    assert_eq!(point["source"], format!("point:web01@{}", protected.points[0]));
    let found = point["findings"].as_array().unwrap();
    assert!(
        found[0]["id"] == "recovery-point"
            && found[0]["says"].as_str().unwrap().contains("2026-11-29 14:03:05 UTC")
    );
    // The newest has lost its partition table.
    let newest = inspect(Path::new("point:web01@latest"));
    assert!(newest["guest"].is_null(), "{newest:#}");

    let out = tempfile::tempdir_in(root().join("target")).unwrap();
    let report = done(
        protected
            .landfall()
            .args(["--json", "convert", "--to", "esxi", "-o"])
            .arg(out.path())
            .arg(format!("point:web01@{}", protected.points[0])),
    );
    assert_eq!(report["written"]["disks"][0]["controller"], "pvscsi", "{report:#}");
    let written = out.path().join("web01/disk0.vmdk");
    let info = Command::new("qemu-img").args(["info", "--output=json"]).arg(&written).output().unwrap();
    assert_eq!(json(&info)["virtual-size"], report["disks"][0]["virtual_size"]);
    assert_eq!(digest(&protected.vault(), protected.points[0]), before, "the point was changed");
    crate::cli::schemas::check(&[("inspect", point), ("inspect", newest), ("convert", report)]);
}

#[test]
fn what_cannot_be_recovered_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (vault, _) = Vault::open(&dir.path().join("vault")).unwrap();
        let machine = vault.machine_or_new(&name()).unwrap();
        machine.journal().set_disk(&DiskInfo { name: "sda".into(), size: 1 << 20, sector: 512 }).unwrap();
        machine.checkpoint(1_795_960_985_000, &Mark::default()).unwrap();
        let empty = vault.machine_or_new(&"empty".parse().unwrap()).unwrap();
        empty.journal().set_disk(&DiskInfo { name: "sda".into(), size: 1 << 20, sector: 512 }).unwrap();
    }
    let out = dir.path().join("out");
    let recover = |vault: bool, args: &[&str]| {
        let mut command = landfall();
        if vault {
            command.arg("--vault").arg(dir.path().join("vault"));
        }
        command.args(["--json", "recover", "-o"]).arg(&out).args(args);
        let error = refused(&mut command)["error"].clone();
        format!("{} | {}", error["text"].as_str().unwrap(), error["hint"].as_str().unwrap_or_default())
    };
    for (vault, args, words) in [
        (true, &["web02", "--mode", "test"][..], &["no machine \"web02\""][..]),
        (true, &["empty", "--mode", "test"], &["no recovery point"]),
        (
            true,
            &["web01", "--mode", "test"],
            &["no definition", "landfall protect web01 DEFINITION", "--memory"],
        ),
        (
            true,
            &["web01", "--at", "7777", "--mode", "live"],
            &["no point 7777", "landfall points list web01"],
        ),
        (
            true,
            &["web01", "--at", "2020-01-01 00:00", "--mode", "live"],
            &["no point as old", "its oldest is"],
        ),
        (true, &["web01", "--at", "yesterday", "--mode", "live"], &["does not say which point", "latest"]),
        (true, &["web01@7", "--at", "8", "--mode", "live"], &["--at another"]),
        (true, &["../x", "--mode", "test"], &["cannot be the name"]),
        (
            true,
            &["web01", "--to", "esxi", "--mode", "test"],
            &["without a copy", "landfall convert point:web01@latest --to esxi"],
        ),
        (true, &["web01", "--mode", "test", "-O", "raw"], &["qcow2"]),
        (true, &["web01", "--memory", "1G", "--mode", "test"], &["nobody would serve", "--serve"]),
    ] {
        let said = recover(vault, args);
        assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
        assert!(!out.exists() || names(&out).is_empty(), "{args:?}: {:?}", names(&out));
    }
    let nowhere = landfall()
        .env("LANDFALL_SERVICE", dir.path().join("none.sock"))
        .args(["--json", "recover", "web01", "--mode", "test", "-o"])
        .arg(&out)
        .output()
        .unwrap();
    let error = json(&nowhere)["error"].clone();
    assert_eq!(nowhere.status.code(), Some(2), "{error:#}");
    assert!(error["text"].as_str().unwrap().contains("no service answers"), "{error:#}");
    assert!(error["hint"].as_str().unwrap().contains("--vault"), "{error:#}");
    for verb in ["commit", "rollback", "remove", "resume"] {
        let mut command = landfall();
        let document = refused(command.args(["--json", "recover", verb]).arg(dir.path().join("vault")));
        assert!(
            document["error"]["hint"].as_str().unwrap().contains("landfall recover list"),
            "{verb}: {document:#}"
        );
    }
    let list = done(landfall().args(["--json", "recover", "list", "-o"]).arg(&out));
    assert_eq!(list["recoveries"], serde_json::json!([]));
    crate::cli::schemas::check(&[("recover-list", list)]);
}

/// A machine at the service has the name under which it is protected, whatever its definition calls it: two of one definition do not collide.
#[test]
fn a_recovery_is_named_after_the_machine_at_the_service() {
    use landfall::recovery::{FILE, Mode, Recovery, Step};
    let dir = tempfile::tempdir().unwrap();
    {
        let (vault, _) = Vault::open(&dir.path().join("vault")).unwrap();
        let machine = vault.machine_or_new(&"app01".parse().unwrap()).unwrap();
        machine.journal().set_disk(&DiskInfo { name: "sda".into(), size: 1 << 20, sector: 512 }).unwrap();
        let mut definition = Machine::new("web01", Bytes::gib(1));
        definition.disks.push(landfall::machine::DiskSlot::new("sda", landfall::machine::Bus::Scsi, "sda"));
        store(&machine, &definition);
        machine.checkpoint(1_795_960_985_000, &Mark::default()).unwrap();
    }
    // Somebody else's recovery has that folder.
    let out = dir.path().join("out");
    let recovery = Recovery {
        version: landfall::report::VERSION,
        machine: "web02".to_owned(),
        point: 9,
        at: landfall::moment::Moment(1_795_960_985_000),
        consistency: landfall::vault::journal::Consistency::Crash,
        tag: None,
        mode: Mode::Test,
        name: "app01-test".to_owned(),
        target: "kvm".to_owned(),
        made_of: String::new(),
        disks: Vec::new(),
        files: std::collections::BTreeSet::new(),
        step: Step::Written,
        own_network: None,
        host: None,
    };
    fs::create_dir_all(out.join("app01-test")).unwrap();
    fs::write(out.join("app01-test").join(FILE), recovery.text().unwrap()).unwrap();
    let mut command = landfall();
    command.args(["--json", "recover", "app01", "--mode", "test", "--serve", "-o"]).arg(&out);
    let refused = refused(command.arg("--vault").arg(dir.path().join("vault")));
    let (says, hint) = (&refused["error"]["text"], refused["error"]["hint"].as_str().unwrap());
    assert!(says.as_str().unwrap().contains("holds web02"), "{refused}");
    assert!(hint.contains("landfall recover remove") && !hint.contains("--at 9"), "{refused}");
    // Where a name is not known, it is said where it was looked for.
    let mut command = landfall();
    command.args(["--json", "recover", "remove", "nothing"]).env("XDG_STATE_HOME", dir.path());
    let absent = super::refused(command.arg("--vault").arg(dir.path().join("vault")));
    assert!(absent["error"]["hint"].as_str().unwrap().contains("FOLDER/NAME"), "{absent}");
}
