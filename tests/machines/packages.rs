//! What lies around VMware's definitions, through the whole program: archives, manifests, lengths, snapshots.

use super::corpus;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

/// `inspect --json`: its exit code, the document, and what it complains of.
fn inspect(source: &Path, options: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    let output = command.args(["inspect", "--json"]).args(options).arg(source).output().unwrap();
    let says =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), says)
}

const DISK: u64 = 4 << 20;

/// A folder with a package of one disk, and its descriptor's text.
struct Made {
    folder: tempfile::TempDir,
    descriptor: String,
}

impl Made {
    /// `href` of the only disk, and the attributes of its file.
    fn new(href: &str, attributes: &str) -> Made {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("disk.img"), vec![0; usize::try_from(DISK).unwrap()]).unwrap();
        let descriptor = format!(
            "<Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1' xmlns:ovf='http://schemas.dmtf.org/ovf/envelope/1' xmlns:rasd='r'>\
             <References><File ovf:id='f' ovf:href='{href}' {attributes}/></References>\
             <DiskSection><Info/><Disk ovf:diskId='d' ovf:fileRef='f' ovf:capacity='4' ovf:capacityAllocationUnits='byte * 2^20'/></DiskSection>\
             <VirtualSystem ovf:id='vm'><Info/><VirtualHardwareSection><Info/><Item><rasd:InstanceID>1</rasd:InstanceID>\
             <rasd:ResourceType>17</rasd:ResourceType><rasd:HostResource>ovf:/disk/d</rasd:HostResource></Item></VirtualHardwareSection></VirtualSystem></Envelope>"
        );
        Made { folder, descriptor }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ovf(&self) -> PathBuf {
        std::fs::write(self.at("vm.ovf"), &self.descriptor).unwrap();
        self.at("vm.ovf")
    }

    fn manifest(&self, names: &[&str]) {
        let line = |name: &&str| {
            format!("SHA256({name})= {:x}\n", Sha256::digest(std::fs::read(self.at(name)).unwrap()))
        };
        std::fs::write(self.at("vm.mf"), names.iter().map(line).collect::<String>()).unwrap();
    }

    /// An archive of these files, by tar.
    fn ova(&self, names: &[&str]) -> PathBuf {
        self.ovf();
        let output = Command::new("tar")
            .args(["--format=ustar", "-cf"])
            .arg(self.at("vm.ova"))
            .arg("-C")
            .arg(self.folder.path())
            .args(names)
            .output();
        assert!(output.unwrap().status.success());
        self.at("vm.ova")
    }
}

/// Packages of other producers, their digests right.
#[test]
fn packages_of_other_producers() {
    let Some(corpus) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (packed, name, size) in [
        ("ova/cot-input.ova.zst", "test", Some(1_u64 << 30)),
        ("ova/cot-ubuntu-ovf2.ova.zst", "ubuntu", Some(8 << 30)),
        ("govmomi/ttylinux/ttylinux-pc_i486-16.1.ova.zst", "", None),
    ] {
        let path = folder.path().join("x.ova");
        let bytes = std::fs::read(corpus.join(packed)).unwrap();
        std::fs::write(&path, zstd::decode_all(bytes.as_slice()).unwrap()).unwrap();
        let (code, report, says) = inspect(&path, &[]);
        // There is no guest on them; the machine is read all the same.
        assert_eq!(code, Some(1), "{packed}: {says}");
        match size {
            Some(size) => {
                assert_eq!(report["machine"]["name"], name, "{says}");
                assert_eq!(report["disks"][0]["virtual_size"], size, "{says}");
            }
            None => assert!(
                says.contains("has 1048576 bytes") && says.contains("the descriptor says 10595840"),
                "{says}"
            ),
        }
    }
}

#[test]
fn what_lies_is_refused() {
    let fine = format!("ovf:size='{DISK}'");
    // A package and an .ovf that are right.
    let made = Made::new("disk.img", &fine);
    made.ovf();
    made.manifest(&["vm.ovf", "disk.img"]);
    for path in [made.ova(&["vm.ovf", "vm.mf", "disk.img"]), made.ovf()] {
        let (_, report, says) = inspect(&path, &[]);
        assert_eq!(report["disks"][0]["virtual_size"], DISK, "{says}");
        assert_eq!(report["machine"]["name"], "vm");
    }
    // The same with one byte of the disk altered.
    let mut bytes = vec![0; usize::try_from(DISK).unwrap()];
    bytes[12_345] = 1;
    std::fs::write(made.at("disk.img"), bytes).unwrap();
    for path in [made.ova(&["vm.ovf", "vm.mf", "disk.img"]), made.ovf()] {
        let (code, _, says) = inspect(&path, &[]);
        assert!(
            code == Some(1) && says.contains("has the digest") && says.contains("altered or damaged"),
            "{says}"
        );
    }
    // A length that is another.
    let made = Made::new("disk.img", "ovf:size='1'");
    for path in [made.ova(&["vm.ovf", "disk.img"]), made.ovf()] {
        let (code, _, says) = inspect(&path, &[]);
        assert!(code == Some(1) && says.contains("the descriptor says 1"), "{says}");
    }
    // A capacity that is another is told of, and the image's counts.
    let mut made = Made::new("disk.img", &fine);
    made.descriptor = made.descriptor.replace("capacity='4'", "capacity='4000'");
    let (_, report, says) = inspect(&made.ovf(), &[]);
    assert!(says.contains("disk-size-differs"), "{says}");
    assert_eq!(report["machine"]["disks"][0]["size"], DISK);
}

/// Names that lead out of the package open nothing.
#[test]
fn names_that_lead_out_are_refused() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret.img");
    std::fs::write(&secret, vec![7; 1 << 20]).unwrap();
    let up = format!("../{}/secret.img", outside.path().file_name().unwrap().to_str().unwrap());
    for href in [secret.to_str().unwrap(), &up, "/etc/passwd", "../../../../etc/passwd", "nothing.img", "."] {
        let made = Made::new(href, "");
        for path in [made.ova(&["vm.ovf", "disk.img"]), made.ovf()] {
            let (code, report, says) = inspect(&path, &[]);
            assert!(
                matches!(code, Some(1 | 2))
                    && (report["disks"].is_null() || report["disks"][0]["unreadable"].is_object()),
                "{href} of {}: {says}",
                path.display()
            );
        }
        let disk = format!("disk0={}", made.at("disk.img").display());
        let (_, report, says) = inspect(&made.ova(&["vm.ovf", "disk.img"]), &["--disk", &disk]);
        assert_eq!(report["disks"][0]["virtual_size"], DISK, "the way out: {says}");
    }
}

#[test]
fn disks_that_are_wrapped_are_refused_with_a_way_out() {
    for (attributes, word) in
        [("ovf:compression='gzip'", "gunzip"), ("ovf:chunkSize='1000'", "cat 'disk.img'.0")]
    {
        let made = Made::new("disk.img", attributes);
        for path in [made.ova(&["vm.ovf", "disk.img"]), made.ovf()] {
            let (code, _, says) = inspect(&path, &[]);
            assert!(code == Some(1) && says.contains(word) && says.contains("--disk disk0=FILE"), "{says}");
        }
    }
}

/// The chosen snapshot's disk is what is read.
#[test]
fn snapshots_beside_a_vmx() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, size) in [("now.img", 2 << 20), ("before.img", 1 << 20)] {
        std::fs::write(at(name), vec![0; size]).unwrap();
    }
    let text = "config.version=8\nscsi0.present=TRUE\nscsi0:0.present=TRUE\nscsi0:0.fileName=now.img\n";
    std::fs::write(at("web01.vmx"), text).unwrap();
    let size = |options: &[&str]| {
        let (_, report, says) = inspect(&at("web01.vmx"), options);
        (report["disks"][0]["virtual_size"].as_u64(), says)
    };
    let (_, says) = size(&["--snapshot", "x"]);
    assert!(says.contains("has no snapshot \\\"x\\\"") && says.contains("leave out --snapshot"), "{says}");
    let snapshots = "snapshot0.uid=5\nsnapshot0.displayName=first\nsnapshot0.numDisks=1\nsnapshot0.disk0.fileName=before.img\nsnapshot0.disk0.node=scsi0:0\n";
    std::fs::write(at("web01.vmsd"), snapshots).unwrap();
    let (now, says) = size(&[]);
    assert!(now == Some(2 << 20) && says.contains("definition-snapshots"), "{says}");
    for wanted in ["first", "5"] {
        let (before, says) = size(&["--snapshot", wanted]);
        assert!(before == Some(1 << 20) && !says.contains("definition-snapshots"), "{says}");
    }
    let (_, says) = size(&["--snapshot", "second"]);
    assert!(says.contains("first") && says.contains("--snapshot 5"), "{says}");
    std::fs::write(at("web01.vmsd"), "snapshot0.displayName=first").unwrap();
    let (_, says) = size(&[]);
    assert!(says.contains("web01.vmsd") && says.contains("has no uid"), "{says}");
}
