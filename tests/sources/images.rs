//! A disk image without a definition is a machine, too: what nobody says is found out or chosen, and told.

use super::{Site, have_qemu_img, inspect, qemu_img, run, told};
use crate::boots::{guest, landfall, place, text};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A disk with a partition of MBR's and boot code.
fn disk(path: &Path) {
    let mut bytes = vec![0; 4 << 20];
    bytes[0] = 0xfa;
    bytes[446..462].copy_from_slice(&[0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0]);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_image_of_every_format_is_a_machine() {
    if !have_qemu_img() {
        return;
    }
    let site = Site::new();
    disk(&site.at("web01.raw"));
    for (format, name) in [
        ("qcow2", "web01.qcow2"),
        ("vmdk", "web01.vmdk"),
        ("vhdx", "web01.vhdx"),
        ("vpc", "web01.vhd"),
        ("vdi", "web01.vdi"),
        ("raw", "web01.img"),
        // A volume has no ending; its partition table tells.
        ("raw", "web01"),
        ("qcow2", "web01.bak"),
    ] {
        qemu_img(&site.at(""), &["convert", "-q", "-f", "raw", "-O", format, "web01.raw", name]);
        let seen = inspect(&site.at(name), &[]);
        let machine = &seen["machine"];
        assert_eq!((&machine["name"], &machine["firmware"]), (&"web01".into(), &"bios".into()), "{name}");
        assert_eq!(machine["memory"], 4_u64 << 30, "{name}");
        let told = told(&seen, "definition-absent");
        for word in ["--memory", "boot code", "--nic"] {
            assert!(told.iter().any(|one| one.contains(word)), "{name}: {word}: {told:?}");
        }
        assert_eq!(told.len(), 3, "{name}: {told:?}");
    }
}

#[test]
fn what_is_given_is_not_chosen() {
    let site = Site::new();
    disk(&site.at("web01.raw"));
    disk(&site.at("more/data.img"));
    let data = format!("disk1={}", site.at("more/data.img").display());
    let nic = "52-54-00-AB-CD-EF";
    let given = [
        "--memory",
        "2G",
        "--cpus",
        "3",
        "--firmware",
        "uefi",
        "--nic",
        nic,
        "--nic",
        "new",
        "--disk",
        &data,
    ];
    let seen = inspect(&site.at("web01.raw"), &given);
    let machine = &seen["machine"];
    assert_eq!((&machine["memory"], &machine["cpus"]["count"]), (&(2_u64 << 30).into(), &3.into()));
    assert_eq!(machine["firmware"], "uefi");
    assert_eq!(
        (&machine["nics"][0]["mac"], &machine["nics"][1]["mac"]),
        (&"52:54:00:ab:cd:ef".into(), &Value::Null)
    );
    assert_eq!(
        (&machine["disks"][0]["slot"], &machine["disks"][1]["slot"]),
        (&"disk0".into(), &"disk1".into())
    );
    assert_eq!(seen["disks"][1]["virtual_size"], 4 << 20);
    let told = told(&seen, "definition-absent");
    assert!(told.len() == 1 && told[0].contains("a new UUID"), "{told:?}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let site = Site::new();
    let image = site.at("web01.raw");
    disk(&image);
    let vmx = site.at("vm.vmx");
    fs::write(
        &vmx,
        "config.version = \"8\"\nscsi0.present=TRUE\nscsi0:0.present=TRUE\nscsi0:0.fileName=web01.raw\n",
    )
    .unwrap();
    fs::write(site.at("notes.txt"), "buy milk\n").unwrap();
    fs::write(site.at("web01.gz"), b"\x1f\x8b\x08 and more").unwrap();
    let same = format!("disk0={}", image.display());
    let twice = format!("disk1={}", site.at("more/../web01.raw").display());
    for (source, more, says) in [
        ("web01.raw", &["--disk", &same][..], "itself"),
        ("web01.raw", &["--disk", &twice], "another disk of the machine already"),
        ("web01.raw", &["--system", "a"], "--system"),
        ("web01.raw", &["--memory", "4"], "64.0 MiB to"),
        ("web01.raw", &["--cpus", "0"], "1 to 4096"),
        ("web01.raw", &["--snapshot", "a"], "snapshot"),
        ("web01.raw", &["--skip-disk", "disk1"], "its disks are disk0"),
        ("vm.vmx", &["--memory", "1G"], "a definition"),
        ("notes.txt", &[], "or a disk image (.qcow2"),
        ("web01.gz", &[], "gzip"),
    ] {
        let output = run(&[&["inspect"], more].concat(), &[&site.at(source)]);
        assert_eq!(output.status.code(), Some(1), "{source} {more:?}: {}", text(&output));
        assert!(
            text(&output).contains(says) && text(&output).contains("hint: "),
            "{source}: {}",
            text(&output)
        );
    }
}

/// An internal snapshot of a qcow2 is a state of the machine.
#[test]
fn a_snapshot_of_an_image_is_read() {
    if !have_qemu_img() {
        return;
    }
    let site = Site::new();
    fs::write(site.at("empty.raw"), vec![0; 4 << 20]).unwrap();
    disk(&site.at("later.raw"));
    let folder = site.at("");
    qemu_img(&folder, &["convert", "-q", "-f", "raw", "-O", "qcow2", "later.raw", "web01.qcow2"]);
    qemu_img(&folder, &["snapshot", "-c", "with", "web01.qcow2"]);
    // The table is gone in the current state.
    let wiped = std::process::Command::new("qemu-io")
        .args(["-c", "write -P 0 0 1M"])
        .arg(site.at("web01.qcow2"))
        .output()
        .unwrap();
    assert!(wiped.status.success());
    let partitions =
        |more: &[&str]| inspect(&site.at("web01.qcow2"), more)["disks"][0]["partitions"].is_null();
    assert!(partitions(&[]) && !partitions(&["--snapshot", "with"]));
}

/// An export is a disk, whatever its name looks like.
#[test]
fn an_export_is_a_machine() {
    let site = Site::new();
    disk(&site.at("web01.raw"));
    // The URI ends as an image does, too.
    let socket = site.at("s.qcow2");
    let mut server = landfall()
        .args(["disk", "serve", "--quiet", "--export", "web01.qcow2", "--socket"])
        .args([&socket, &site.at("web01.raw")])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..200 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let uri = format!("nbd+unix:///web01.qcow2?socket={}", socket.display());
    let output = landfall().args(["--json", "inspect", &uri, "--firmware", "bios"]).output().unwrap();
    // SIGKILL.
    server.kill().unwrap();
    server.wait().unwrap();
    let seen: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)));
    assert_eq!(seen["disks"][0]["virtual_size"], 4 << 20, "{seen}");
    assert!(!seen["disks"][0]["partitions"].is_null(), "{seen}");
}

/// All that is left of a real machine is its image: it comes ashore with what is known of it.
#[test]
fn a_real_image_is_converted() {
    let _place = place();
    let Some(folder) = guest("bookworm", "bios-ext4") else { return };
    let site = Site::new();
    let output = landfall()
        .args([
            "--json",
            "convert",
            "--to",
            "kvm",
            "--memory",
            "1G",
            "--cpus",
            "2",
            "--nic",
            "00:50:56:20:30:40",
        ])
        .args(["--name", "saved", "-o"])
        .args([site.at("out"), folder.join("web01.vmdk")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let domain = fs::read_to_string(site.at("out/saved/domain.xml")).unwrap();
    for part in ["<name>saved</name>", "00:50:56:20:30:40", ">2</vcpu>", "<memory unit=\"MiB\">1024</memory>"]
    {
        assert!(domain.contains(part), "{part}: {domain}");
    }
}
