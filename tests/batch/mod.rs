//! Fleets: one machine's failure stops no other, collisions are found before anything is written, and what is done is not
//! done again, not even after a kill.

use crate::boots::{guest, landfall, place, text};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

/// A folder with a fleet file and machines.
struct Site(tempfile::TempDir);

impl Site {
    fn new(fleet: &str) -> Site {
        let site = Site(tempfile::tempdir().unwrap());
        fs::write(site.at("fleet.toml"), format!("to = \"kvm\"\noutput = \"out\"\n{fleet}")).unwrap();
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A machine with an empty disk.
    fn machine(&self, name: &str, mac: &str) {
        fs::create_dir_all(self.at("in")).unwrap();
        fs::File::create(self.at(&format!("in/{name}.img"))).unwrap().set_len(16 << 20).unwrap();
        let vmx = format!(
            "config.version = \"8\"\ndisplayName = \"{name}\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\n\
             scsi0:0.fileName = \"{name}.img\"\nethernet0.present = \"TRUE\"\nethernet0.addressType = \"static\"\n\
             ethernet0.address = \"{mac}\"\n"
        );
        fs::write(self.at(&format!("in/{name}.vmx")), vmx).unwrap();
    }

    fn run(&self, options: &[&str]) -> Output {
        landfall().args(["batch", "--json"]).arg(self.at("fleet.toml")).args(options).output().unwrap()
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.at("out/batch-report.json")).unwrap()).unwrap()
    }
}

/// Name, outcome and the ids of what blocks, of every machine.
fn outcomes(report: &Value) -> Vec<(String, String, Vec<String>)> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let machines = report["machines"].as_array().unwrap();
    let blocks = |one: &Value| {
        let all = one["findings"].as_array().unwrap();
        all.iter().filter(|one| one["severity"] == "blocks").map(|one| word(&one["id"])).collect()
    };
    machines.iter().map(|one| (word(&one["name"]), word(&one["outcome"]), blocks(one))).collect()
}

#[test]
fn whoever_collides_is_refused_and_the_others_go_on() {
    let site = Site::new("[[machine]]\nsource = \"in/*.vmx\"\n[[machine]]\nsource = \"missing.vmx\"\n");
    site.machine("web01", "00:50:56:00:00:01");
    site.machine("web02", "00:50:56:00:00:02");
    site.machine("web03", "00:50:56:00:00:01");
    let output = site.run(&[]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let report = site.report();
    assert_eq!(report, serde_json::from_slice::<Value>(&output.stdout).unwrap());
    let found = outcomes(&report);
    assert_eq!(found[0].2, ["collision-mac"], "{found:?}");
    // Nothing is on its disk: it is refused for itself.
    assert!(found[1].1 == "refused" && !found[1].2.contains(&"collision-mac".into()), "{found:?}");
    assert_eq!(found[2].2, ["collision-mac"], "{found:?}");
    assert!(found[3].0.ends_with("missing.vmx") && found[3].1 == "failed", "{found:?}");
    let page = fs::read_to_string(site.at("out/batch-report.html")).unwrap();
    assert!(page.contains("0 of 4 machines are done") && page.contains("collision-mac"), "{page}");
    // New addresses for one of them end it.
    fs::write(site.at("site.toml"), "[[rule]]\nmachine = \"web03\"\nmac = \"new\"\n").unwrap();
    let fleet = fs::read_to_string(site.at("fleet.toml")).unwrap();
    fs::write(site.at("fleet.toml"), format!("map = \"site.toml\"\n{fleet}")).unwrap();
    let output = site.run(&["--dry-run"]);
    let found = outcomes(&serde_json::from_slice(&output.stdout).unwrap());
    assert!(found.iter().all(|one| !one.2.contains(&"collision-mac".into())), "{found:?}");
}

/// Names that are one name at the target collide, though they are two in the fleet.
#[test]
fn names_that_become_one_are_refused_before_anything_is_written() {
    let site = Site::new("[[machine]]\nsource = \"in/*.vmx\"\nto = \"esxi\"\n");
    site.machine("web 01", "00:50:56:00:00:01");
    site.machine("web_01", "00:50:56:00:00:02");
    let output = site.run(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let found = outcomes(&site.report());
    assert!(found.iter().all(|one| one.1 == "refused" && one.2 == ["collision-name"]), "{found:?}");
    let names: Vec<_> =
        fs::read_dir(site.at("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name.to_string_lossy().starts_with("batch-report")), "{names:?}");
}

/// What the image cannot be compressed with is said with its line, before anything is read.
#[test]
fn a_compression_that_the_image_does_not_take_is_refused() {
    let site = Site::new("[[machine]]\nsource = \"in/web01.vmx\"\nto = \"hyperv\"\ncompress = \"zstd\"\n");
    site.machine("web01", "00:50:56:00:00:01");
    for options in [&[][..], &["--dry-run"]] {
        let output = site.run(options);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains("line 6: vhdx cannot be compressed with zstd"), "{}", text(&output));
    }
    assert!(!site.at("out").exists());
}

/// A plan names what would stop the conversion, and an entry of its own is not lost.
#[test]
fn a_dry_run_leaves_nothing_out() {
    let site = Site::new(
        "[[machine]]\nsource = \"in/*.vmx\"\n[[machine]]\nsource = \"in/web01.vmx\"\nname = \"a/b\"\n\
         [[machine]]\nsource = \"in/web01.vmx\"\nname = \"again\"\nto = \"proxmox\"\n",
    );
    site.machine("web01", "00:50:56:00:00:01");
    site.machine("web02", "00:50:56:00:00:02");
    fs::create_dir_all(site.at("out/web02")).unwrap();
    fs::write(site.at("out/web02/precious"), "x").unwrap();
    let output = site.run(&["--dry-run"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = outcomes(&report);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].0 == "web02" && found[0].2.contains(&"target-refuses".into()), "{found:?}");
    let error = report["machines"][1]["error"].as_str().unwrap();
    assert!(error.contains("a/b"), "{error}");
    assert!(found[2].0 == "again" && !found[2].2.contains(&"target-refuses".into()), "{found:?}");
    let twice = Site::new("[[machine]]\nsource = \"a\"\n[[machine]]\nsource = \"a\"\n").run(&[]);
    assert!(text(&twice).contains("is named twice"), "{}", text(&twice));
}

/// Copies of one template get identities of their own.
#[test]
fn copies_of_one_machine_can_all_be_made_new() {
    let site = Site::new("map = \"site.toml\"\n[[machine]]\nsource = \"in/*.vmx\"\n");
    for name in ["web01", "web02", "web03"] {
        site.machine(name, "00:50:56:00:00:01");
        let path = site.at(&format!("in/{name}.vmx"));
        let vmx = fs::read_to_string(&path).unwrap();
        fs::write(path, vmx + "uuid.bios = \"56 4d 6c 61 6e 64 66 61-6c 6c 64 65 6d 6f 30 31\"\n").unwrap();
    }
    fs::write(site.at("site.toml"), "[[rule]]\nmac = \"new\"\nuuid = \"new\"\n").unwrap();
    let output = site.run(&["--dry-run"]);
    let found = outcomes(&serde_json::from_slice(&output.stdout).unwrap());
    assert!(found.iter().all(|one| !one.2.iter().any(|id| id.starts_with("collision"))), "{found:?}");
}

fn changed(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// Two machines of one real guest; the run is killed as soon as the first is there.
#[test]
fn a_killed_run_is_picked_up() {
    // Another test may be making the guest at this moment.
    let _place = place();
    let Some(folder) = guest("bookworm", "bios-ext4") else { return };
    let source = folder.join("web01.vmx");
    let site = Site::new(&format!(
        "machines_at_once = 1\nmap = \"site.toml\"\n[[machine]]\nsource = {source:?}\nname = \"first\"\n\
         [[machine]]\nsource = \"copy/web01.vmx\"\nname = \"second\"\n"
    ));
    fs::write(site.at("site.toml"), "[[rule]]\nmac = \"new\"\nuuid = \"new\"\n").unwrap();
    // The same machine under another name, with its own identity.
    fs::create_dir(site.at("copy")).unwrap();
    let vmx = fs::read_to_string(&source).unwrap();
    let vmx = vmx.replace("56 4d 6c 61", "56 4d 6c 62").replace("00:50:56:20:30:40", "00:50:56:20:30:41");
    fs::write(site.at("copy/web01.vmx"), vmx).unwrap();
    let disk = source.with_file_name("web01.vmdk");
    fs::hard_link(&disk, site.at("copy/web01.vmdk"))
        .or_else(|_| fs::copy(&disk, site.at("copy/web01.vmdk")).map(|_| ()))
        .unwrap();
    let mut run = landfall()
        .arg("batch")
        .arg(site.at("fleet.toml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !site.at("out/first/report.json").exists() && began.elapsed() < Duration::from_secs(300) {
        std::thread::sleep(Duration::from_millis(20));
    }
    // SIGKILL.
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(!site.at("out/second").exists(), "it was killed in time");
    let before = changed(&site.at("out/first/disk0.qcow2"));
    let output = site.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let found = outcomes(&site.report());
    assert_eq!((found[0].1.as_str(), found[1].1.as_str()), ("already-done", "done"), "{found:?}");
    assert_eq!(changed(&site.at("out/first/disk0.qcow2")), before, "it was not written again");
    assert!(site.at("out/second/domain.xml").exists());
    // A comment in the map, and a rule for another machine, change nothing.
    let map = "# by the night shift\n[[rule]]\nmac = \"new\"\nuuid = \"new\"\n[[rule]]\nmachine = \"db*\"\nstorage = \"x\"\n";
    fs::write(site.at("site.toml"), map).unwrap();
    assert_eq!(site.run(&[]).status.code(), Some(0));
    assert_eq!(outcomes(&site.report()).iter().filter(|one| one.1 == "already-done").count(), 2);
    // A machine without its disk is none.
    fs::rename(site.at("out/first/disk0.qcow2"), site.at("gone")).unwrap();
    assert_eq!(site.run(&[]).status.code(), Some(1));
    fs::rename(site.at("gone"), site.at("out/first/disk0.qcow2")).unwrap();
    // Another option makes another machine of it: not in silence.
    fs::write(site.at("site.toml"), "[[rule]]\nmac = \"new\"\nuuid = \"new\"\nmemory_at_most = \"512M\"\n")
        .unwrap();
    let output = site.run(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("--replace"), "{}", text(&output));
}
