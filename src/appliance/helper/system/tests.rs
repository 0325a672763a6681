use super::*;
use crate::appliance::helper::status::DiskRole;
use std::os::unix::fs::symlink;

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{text}\n")).unwrap();
}

#[test]
fn a_service_that_is_started_again_and_again_is_told() {
    assert!(no_start("ActiveState=activating\nNRestarts=7\n").unwrap().contains("7 times"));
    for fine in [
        "ActiveState=active\nNRestarts=7\n",
        "ActiveState=activating\nNRestarts=0\n",
        "ActiveState=inactive\nNRestarts=1\n",
        "",
        "x",
    ] {
        assert_eq!(no_start(fine), None, "{fine}");
    }
}

#[test]
fn cards_are_found_in_the_kernels_order() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (name, index, kind, mac) in [
        ("ens224", "3", "1", "00:50:56:00:00:0c"),
        ("ens192", "2", "1", "00:50:56:00:00:0b"),
        ("lo", "1", "772", "00:00:00:00:00:00"),
        ("bond0", "4", "1", "00:50:56:00:00:0b"),
    ] {
        for (key, value) in
            [("ifindex", index), ("type", kind), ("address", mac), ("mtu", "1500"), ("speed", "-1")]
        {
            put(root, &format!("sys/class/net/{name}/{key}"), value);
        }
        if name.starts_with("ens") {
            fs::create_dir_all(root.join(format!("sys/devices/{name}"))).unwrap();
            symlink(
                root.join(format!("sys/devices/{name}")),
                root.join(format!("sys/class/net/{name}/device")),
            )
            .unwrap();
        }
    }
    put(root, "sys/class/net/ens192/carrier", "1");
    put(root, "sys/class/net/ens192/speed", "10000");
    put(root, "sys/class/net/ens224/address", "00:50:56:00:00:0b");
    put(root, "sys/class/net/ens224/bonding_slave/perm_hwaddr", "00:50:56:00:00:0c");
    fs::create_dir_all(root.join("sys/class/net/bonding_masters")).unwrap();
    let found: Vec<_> = present(root).into_iter().map(|one| format!("{} {}", one.name, one.mac)).collect();
    assert_eq!(found, ["ens192 00:50:56:00:00:0b", "ens224 00:50:56:00:00:0c"]);
    let addresses = [(2, "10.0.0.5/24".parse().unwrap()), (9, "10.0.0.6/24".parse().unwrap())];
    let network = cards::network(
        root,
        &addresses,
        Vec::new(),
        "search a b\nnameserver 10.0.0.1\nnameserver ::1\n# x\n",
    );
    assert_eq!(
        (network.dns, network.search),
        (vec!["10.0.0.1".to_owned(), "::1".into()], vec!["a".to_owned(), "b".into()])
    );
    let first = &network.cards[0];
    assert_eq!(
        (first.name.as_str(), first.has_link, first.speed, first.addresses.len()),
        ("ens192", true, Some(10_000), 1)
    );
    let bond = &network.cards[2];
    assert_eq!((bond.name.as_str(), bond.is_card, bond.has_link, bond.speed), ("bond0", false, false, None));
    assert!(present(Path::new("/nowhere")).is_empty());
}

#[test]
fn disks_say_what_they_hold_and_what_they_are_for() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (name, dev, sectors) in [
        ("sdaa", "65:160", "2048"),
        ("sda", "8:0", "20971520"),
        ("sdb", "8:16", "2097152"),
        ("sdc", "8:32", "4096"),
        ("sr0", "11:0", "100"),
        ("loop0", "7:0", "100"),
        ("sdd", "8:48", "0"),
    ] {
        put(root, &format!("sys/block/{name}/dev"), dev);
        put(root, &format!("sys/block/{name}/size"), sectors);
    }
    put(root, "sys/block/sda/device/model", "Virtual disk   ");
    put(root, "sys/block/sda/sda1/partition", "1");
    put(root, "sys/block/sda/sda1/dev", "8:1");
    put(root, "sys/block/sdb/sdb1/partition", "1");
    put(root, "sys/block/sdb/sdb1/dev", "8:17");
    put(root, "sys/block/sdaa/sdaa1/partition", "1");
    put(root, "sys/block/sdaa/sdaa1/dev", "65:161");
    put(root, "sys/block/sdb/sdb1/holders/dm-0", "");
    put(root, "sys/block/dm-0/dev", "253:0");
    put(root, "sys/block/dm-0/size", "8");
    put(root, "sys/block/sdc/serial", "S 1");
    put(root, "run/udev/data/b8:0", "S:disk/by-id/x\nE:ID_PART_TABLE_TYPE=gpt\nE:ID_SERIAL_SHORT=abc");
    put(root, "run/udev/data/b8:1", "E:ID_FS_TYPE=ext4");
    let vault = landfall_boot::appliance::layout::VAULT;
    let whole = format!("E:ID_PART_ENTRY_FLAGS=0x1000000000000\nE:ID_PART_ENTRY_TYPE={vault}");
    put(root, "run/udev/data/b8:17", &whole);
    put(root, "run/udev/data/b65:161", &format!("E:ID_PART_ENTRY_TYPE={vault}"));
    put(root, "run/udev/data/b8:32", "E:ID_FS_TYPE=ntfs\u{7}\nE:ID_SERIAL_SHORT=other");
    put(
        root,
        "proc/self/mountinfo",
        "22 1 8:1 / /var rw - ext4 /dev/sda1 rw\n23 22 253:0 / /var/lib/landfall rw - ext4 /dev/dm-0 rw\n24 1 0:5 / /proc rw - proc proc rw",
    );
    let with_vault = || -> Vec<(String, bool)> {
        let disks = disks::disks(root, None).into_iter().filter(|disk| disk.has_vault);
        disks.map(|disk| (disk.name, disk.is_whole)).collect()
    };
    // One whose making was cut off has not the bit; others say nothing.
    assert_eq!(with_vault(), [("sdb".to_owned(), true), ("sdaa".to_owned(), false)]);
    for flags in ["0x8000000000000001", "0xffffffffffffffffff", "1000000000000", ""] {
        let text = format!("E:ID_PART_ENTRY_TYPE={vault}\nE:ID_PART_ENTRY_FLAGS={flags}");
        put(root, "run/udev/data/b65:161", &text);
        assert_eq!(with_vault()[1], ("sdaa".to_owned(), false), "{flags}");
    }
    // The bit of another partition is not the vault's.
    put(root, "run/udev/data/b8:1", "E:ID_FS_TYPE=ext4\nE:ID_PART_ENTRY_FLAGS=0x1000000000000");
    let disks = disks::disks(root, None);
    assert!(!disks[0].has_vault && !disks[0].is_whole);
    let shown: Vec<_> =
        disks.iter().map(|disk| (disk.name.as_str(), disk.role, disk.holds.join(" "))).collect();
    assert_eq!(
        shown,
        [
            ("sda", DiskRole::System, "ext4 gpt".to_owned()),
            ("sdb", DiskRole::Data, String::new()),
            ("sdc", DiskRole::Other, "ntfs".to_owned()),
            ("sdaa", DiskRole::Other, String::new()),
        ]
    );
    assert_eq!(
        (disks[0].size, disks[0].model.as_deref(), disks[0].serial.as_deref()),
        (Bytes(10 << 30), Some("Virtual disk"), Some("abc"))
    );
    assert_eq!(disks[2].serial.as_deref(), Some("S 1"));
}

#[test]
fn this_machine_has_a_status() {
    let status = System::default().status(&Loaded::default()).unwrap();
    assert!(status.memory.total >= status.memory.available && status.memory.available.0 > 0);
    assert!(!status.hostname.is_empty());
    assert_eq!(status.hostname, rustix::system::uname().nodename().to_str().unwrap());
    let again: Status = serde_json::from_slice(&serde_json::to_vec(&status).unwrap()).unwrap();
    assert_eq!(again.disks, status.disks);
}

#[test]
fn what_is_not_there_is_told_and_not_pretended() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::below(dir.path());
    // What a unit found is the answer.
    assert!(super::told(dir.path(), "3-data").is_ok());
    put(
        dir.path(),
        &format!("{}/3-data.json", &places::PROBLEMS[1..]),
        r#"[{"says":"it is not empty","fix":"another"}]"#,
    );
    assert_eq!(super::told(dir.path(), "3-data").unwrap_err().hint_text(), Some("another"));
    assert!(system.set_clock(Moment(0)).unwrap_err().to_string().contains("before landfall was written"));
}

#[test]
fn a_unit_that_has_failed_is_told_with_where_its_log_is() {
    let said = "landfall-console@ttyS1.service loaded failed failed landfall: console on ttyS1\n\n";
    assert_eq!(
        failed_units(said),
        ["landfall-console@ttyS1.service has failed: its log is in the support bundle (B)"]
    );
    assert!(failed_units("").is_empty());
}

#[test]
fn the_first_token_is_forgotten_and_none_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::below(dir.path());
    put(dir.path(), &places::FIRST_TOKEN[1..], "lf_1");
    // It may be gone: another console was quicker.
    for _ in 0..2 {
        system.forget_token().unwrap();
        assert!(!dir.path().join(&places::FIRST_TOKEN[1..]).exists());
        assert!(dir.path().join(&places::WELCOMED[1..]).exists());
    }
    // Where that cannot be kept it is not forgotten.
    put(dir.path(), &places::FIRST_TOKEN[1..], "lf_1");
    std::fs::remove_file(dir.path().join(&places::WELCOMED[1..])).unwrap();
    std::fs::create_dir(dir.path().join(&places::WELCOMED[1..])).unwrap();
    assert!(system.forget_token().is_err());
    assert!(dir.path().join(&places::FIRST_TOKEN[1..]).exists());
}

#[test]
fn the_bundle_names_no_file_of_secrets() {
    let system = System::default();
    let mut names = Vec::new();
    system
        .support(&mut |name, _| {
            names.push(name.to_owned());
            Ok(())
        })
        .unwrap();
    assert!(names.contains(&"journal/this-boot.txt".to_owned()) && names.len() == run::SUPPORT.len() + 6);
    for name in names {
        assert!(!["pem", "key", "token"].iter().any(|word| name.contains(word)), "{name}");
    }
}
