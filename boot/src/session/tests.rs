//! Guests made by mke2fs on partitioned disks, read without a sandbox; the sandbox's part is in `boot/tests/session.rs`.

use super::*;
use crate::guest::Fact;
use crate::patch::{Action, Edit};
use crate::target::{Firmware, Platform};
use crate::testing::{self, Tool};
use std::path::{Path, PathBuf};

/// A family that knows every guest and writes one file.
struct Anything;

impl Family for Anything {
    fn name(&self) -> &'static str {
        "anything"
    }
    fn recognise(&self, scene: &Scene<'_>) -> Result<Option<Guest>> {
        let fact = |value: &str| Fact::new(value.to_owned(), "/etc/os-release");
        let name = scene.tree.read_text("/etc/os-release")?.unwrap_or_default();
        Ok(Some(Guest {
            family: "anything".into(),
            distribution: fact("test"),
            version: fact("1"),
            name: fact(name.trim()),
            architecture: fact("x86_64"),
            host_name: None,
            kernels: Vec::new(),
            mounts: scene.mounts.to_vec(),
            init: None,
            boot_modes: Vec::new(),
            interfaces: Vec::new(),
            agents: scene.tree.names("/boot")?.into_iter().map(|name| Fact::new(name, "/boot")).collect(),
            windows: None,
        }))
    }
    fn plan(&self, _: &Scene<'_>, _: &Guest, _: &Request) -> Result<PatchPlan> {
        let edit = Edit {
            path: "/etc/motd".into(),
            action: Action::Write { contents: String::from("hello").into(), mode: 0o644 },
            why: "a test".into(),
            labels: Vec::new(),
        };
        Ok(PatchPlan { edits: vec![edit], ..PatchPlan::default() })
    }
}

fn request() -> Request {
    Request { platform: Platform::Kvm, firmware: Firmware::Bios, ..Request::default() }
}

fn look(disks: &[&Path], root: Option<&str>) -> Inspection {
    let disks: Vec<Arc<dyn DiskMut>> =
        disks.iter().map(|disk| testing::overlay(disk) as Arc<dyn DiskMut>).collect();
    let options = Options {
        root: root.map(|root| VolumeId(root.into())),
        families: &[&Anything],
        ..Options::default()
    };
    inspect(&disks, &request(), &options).unwrap()
}

fn ids(inspection: &Inspection) -> Vec<&str> {
    inspection.plan.findings.iter().map(|finding| finding.id).collect()
}

/// Makes disks with ext4 partitions of 16 MiB from lists of files.
struct Maker(tempfile::TempDir);

type Part<'p> = (&'p str, &'p [(&'p str, &'p str)]);

impl Maker {
    fn new() -> Option<Maker> {
        let tools = ["mke2fs", "sfdisk", "mkswap"];
        tools.iter().all(|name| testing::tool(name).is_some()).then(|| Maker(tempfile::tempdir().unwrap()))
    }

    /// Partitions as (mke2fs options, or `mkswap` or `noise`; files).
    fn disk(&self, name: &str, parts: &[Part<'_>]) -> PathBuf {
        let disk = self.0.path().join(name);
        testing::sparse(&disk, (parts.len() as u64 * 16 + 2) << 20);
        let table =
            format!("label-id: 0xabcd{:04x}\n{}", name.len() + parts.len(), ",16M\n".repeat(parts.len()));
        Tool::line(&format!("sfdisk -q {}", disk.display())).input(table.as_bytes()).run();
        for (index, (options, files)) in parts.iter().enumerate() {
            let (part, folder) = (self.0.path().join("part"), self.0.path().join("folder"));
            testing::sparse(&part, 16 << 20);
            std::fs::create_dir_all(&folder).unwrap();
            for (path, content) in *files {
                let at = folder.join(path.trim_start_matches('/'));
                std::fs::create_dir_all(at.parent().unwrap()).unwrap();
                match content.strip_prefix("-> ") {
                    Some(target) => std::os::unix::fs::symlink(target, at).unwrap(),
                    None => std::fs::write(at, content).unwrap(),
                }
            }
            match *options {
                "noise" => std::fs::write(&part, [0x5a; 4096]).unwrap(),
                "mkswap" => drop(Tool::line(&format!("mkswap -q {}", part.display())).run()),
                options => {
                    let line = format!("mke2fs -q -F {options} -d {} {}", folder.display(), part.display());
                    Tool::line(&line).run();
                }
            }
            testing::patch(&disk, (1 << 20) + ((index as u64 * 16) << 20), &std::fs::read(&part).unwrap());
            std::fs::remove_dir_all(&folder).unwrap();
        }
        disk
    }
}

const A: &str = "-t ext4 -U aaaaaaaa-0000-4000-8000-00000000000a";
const B: &str = "-t ext4 -U bbbbbbbb-0000-4000-8000-00000000000b";
const RELEASE: (&str, &str) = ("/etc/os-release", "-> ../usr/lib/os-release");
const PASSWD: (&str, &str) = ("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
const NAME: (&str, &str) = ("/usr/lib/os-release", "PRETTY_NAME=\"Test 1\"\n");

#[test]
fn one_guest_on_two_partitions() {
    let Some(maker) = Maker::new() else { return };
    let fstab = "UUID=aaaaaaaa-0000-4000-8000-00000000000a / ext4 defaults 0 1\n/dev/sda1 /boot ext2 defaults 0 2\n\
                 /dev/sda3 none swap sw 0 0\n/dev/sr0 /media/cdrom udf user,noauto 0 0\n/dev/sdb1 /srv ext4 nofail 0 0\n";
    let disk = maker.disk(
        "disk",
        &[
            ("-t ext2", &[("/vmlinuz-1", "kernel"), ("/grub/grub.cfg", "linux /vmlinuz-1 root=/dev/sda2\n")]),
            (A, &[RELEASE, PASSWD, NAME, ("/etc/fstab", fstab), ("/boot/hidden", "")]),
            ("mkswap", &[]),
        ],
    );
    let found = look(&[&disk], None);
    assert_eq!(ids(&found), [""; 0]);
    assert_eq!(found.reader, Some(Reader::Direct));
    let mounts: Vec<_> =
        found.mounts.iter().map(|mount| (mount.at.as_str(), mount.volume.0.as_str())).collect();
    assert_eq!(mounts, [("/", "disk0p2"), ("/boot", "disk0p1")]);
    let guest = found.guest.unwrap();
    assert_eq!(guest.name.value, "PRETTY_NAME=\"Test 1\"");
    // What is listed under /boot is what is mounted there.
    let boot: Vec<_> = guest.agents.iter().map(|fact| fact.value.as_str()).collect();
    assert_eq!(boot, ["grub", "lost+found", "vmlinuz-1"]);
    assert_eq!(found.plan.edits.len(), 1);
}

#[test]
fn of_two_roots_the_guest_itself_tells() {
    let Some(maker) = Maker::new() else { return };
    let with = |fstab: &'static str| [RELEASE, PASSWD, NAME, ("/etc/fstab", fstab)];
    let (own_a, own_b) = (
        "UUID=aaaaaaaa-0000-4000-8000-00000000000a / ext4 d 0 1\n",
        "UUID=bbbbbbbb-0000-4000-8000-00000000000b / ext4 d 0 1\n",
    );
    let a = |fstab| maker.disk("a", &[(A, &with(fstab))]);
    let b = |fstab| maker.disk("b", &[(B, &with(fstab))]);
    let chosen = |found: &Inspection| found.mounts.first().map(|mount| mount.volume.0.clone());

    // Each knows itself: both are named, neither is taken.
    let found = look(&[&a(own_a), &b(own_b)], None);
    assert_eq!((ids(&found), chosen(&found)), (vec!["root-several"], None));
    let says = &found.plan.findings[0].says;
    assert!(says.contains("disk0p1 (Test 1)") && says.contains("disk1p1 (Test 1)"), "{says}");
    assert!(found.plan.edits.is_empty());
    // The caller chooses.
    let found = look(&[&a(own_a), &b(own_b)], Some("disk1p1"));
    assert_eq!((ids(&found), chosen(&found)), (vec![], Some("disk1p1".into())));
    let found = look(&[&a(own_a), &b(own_b)], Some("disk7"));
    assert_eq!(ids(&found), ["no-operating-system"]);
    // One was copied and moved: its fstab names the other.
    let found = look(&[&a(own_a), &b(own_a)], None);
    assert_eq!((ids(&found), chosen(&found)), (vec!["root-stale"], Some("disk0p1".into())));
    // One knows itself, the other says nothing.
    let found = look(&[&a(""), &b(own_b)], None);
    assert_eq!((ids(&found), chosen(&found)), (vec!["root-stale"], Some("disk1p1".into())));
    // A boot loader names one of two that know themselves.
    let loader = maker.disk(
        "loader",
        &[("-t ext4", &[("/grub/grub.cfg", "linux /v root=UUID=bbbbbbbb-0000-4000-8000-00000000000b\n")])],
    );
    let found = look(&[&a(own_a), &b(own_b), &loader], None);
    assert_eq!((ids(&found), chosen(&found)), (vec!["root-stale"], Some("disk1p1".into())));
    // A disk and its copy have the same UUID: nothing tells.
    let (one, copy) = (a(own_a), maker.0.path().join("copy"));
    std::fs::copy(&one, &copy).unwrap();
    let found = look(&[&one, &copy], None);
    assert_eq!((ids(&found), chosen(&found)), (vec!["root-several"], None));
}

#[test]
fn what_is_missing_is_said() {
    let Some(maker) = Maker::new() else { return };
    let root = |fstab: &str| {
        let files = [
            RELEASE,
            PASSWD,
            NAME,
            ("/etc/fstab", fstab),
            ("/boot/x", ""),
            ("/srv/x", ""),
            ("/sbin/init", ""),
        ];
        maker.disk("disk", &[(A, &files), ("mkswap", &[]), ("noise", &[]), ("-t ext4", &[("/data", "")])])
    };
    let own = "UUID=aaaaaaaa-0000-4000-8000-00000000000a / ext4 d 0 1\n";
    for (rest, expected) in [
        ("UUID=cafe /boot ext4 d 0 2", vec!["mount-not-found"]),
        ("UUID=cafe /boot ext4 nofail 0 2", vec!["mount-optional-missing"]),
        ("UUID=cafe /srv ext4 d 0 2", vec![]),
        ("/dev/sdb1 /boot ext4 d 0 2", vec!["mount-not-found"]),
        ("/dev/sda3 /boot ext4 d 0 2", vec!["mount-not-found"]),
        ("/dev/sda4 /boot ext4 d 0 2", vec!["mount-doubtful"]),
        ("/dev/sda4 /absent ext4 d 0 2", vec![]),
        ("/dev/sda4 /boot/absent ext4 d 0 2", vec!["mount-not-readable"]),
    ] {
        // Without a sandbox only a missing folder cannot be told from one that the kernel would find.
        let found = look(&[&root(&format!("{own}{rest}\n"))], None);
        let found_ids: Vec<_> = ids(&found)
            .into_iter()
            .map(|id| if id == "sandbox-needed" { "mount-not-readable" } else { id })
            .collect();
        assert_eq!(found_ids, expected, "{rest}: {:?}", found.plan.findings);
        let is_blocked = found.plan.is_blocked();
        assert_eq!(found.plan.edits.is_empty(), is_blocked, "{rest}");
    }
    // A suspended guest.
    let disk = root(own);
    testing::patch(&disk, (17 << 20) + 4086, b"S1SUSPEND\0");
    assert_eq!(ids(&look(&[&disk], None)), ["guest-hibernated"]);
    // Nothing at all, and encrypted disks.
    let (empty, luks) = (maker.0.path().join("empty"), maker.0.path().join("luks"));
    testing::sparse(&empty, 1 << 20);
    assert_eq!(ids(&look(&[&empty], None)), ["no-operating-system"]);
    assert_eq!(ids(&look(&[], None)), ["no-operating-system"]);
    let mut header = vec![0; 1 << 20];
    header[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    std::fs::write(&luks, header).unwrap();
    assert_eq!(ids(&look(&[&luks], None)), ["root-encrypted", "luks-locked"]);
    // A root that only the sandbox reads.
    let Some(_) = testing::tool("mkfs.xfs") else { return };
    testing::sparse(&empty, 320 << 20);
    Tool::line(&format!("mkfs.xfs -q -f -m uuid=cccccccc-0000-4000-8000-00000000000c {}", empty.display()))
        .run();
    assert_eq!(ids(&look(&[&empty], None)), ["sandbox-needed"]);
    // Beside a guest that does not know it, an unread volume is worth a warning; one that it mounts is not.
    assert_eq!(ids(&look(&[&disk, &empty], None)), ["guest-hibernated", "volume-not-looked-at"]);
    let loader = |spec: &str| {
        maker.disk("loader", &[("-t ext4", &[("/grub/grub.cfg", &format!("linux /v root={spec}\n"))])])
    };
    let started = loader("UUID=aaaaaaaa-0000-4000-8000-00000000000a");
    let with = |at: &str| root(&format!("{own}/dev/sdb {at} xfs d 0 0\n"));
    assert_eq!(ids(&look(&[&with("/srv"), &empty, &started], None)), [""; 0]);
    // Unless no loader is seen to start that guest, or it is mounted where another system may be.
    assert_eq!(ids(&look(&[&with("/srv"), &empty], None)), ["volume-not-looked-at"]);
    assert_eq!(ids(&look(&[&with("/mnt/new"), &empty, &started], None)), ["volume-not-looked-at"]);
    // The loader starts what was not looked at.

    let started = loader("UUID=cccccccc-0000-4000-8000-00000000000c");
    for at in ["/srv", "/mnt/new"] {
        let found = look(&[&with(at), &empty, &started], None);
        assert_eq!(ids(&found), ["root-not-seen", "volume-not-looked-at"]);
        assert!(found.plan.edits.is_empty() && found.plan.is_blocked());
        assert!(found.plan.findings[0].says.contains("disk1 (xfs)"), "{:?}", found.plan.findings);
    }
    assert_eq!(ids(&look(&[&with("/srv"), &empty, &started], Some("disk0p1"))), ["volume-not-looked-at"]);
}

/// A guest that no family knows: facts stay away, and so does the plan.
#[test]
fn an_unknown_guest_is_not_patched() {
    let Some(maker) = Maker::new() else { return };
    let disk = maker.disk("disk", &[(A, &[PASSWD, ("/etc/os-release", "ID=plan9\nPRETTY_NAME=Plan\n")])]);
    let disks: Vec<Arc<dyn DiskMut>> = vec![testing::overlay(&disk)];
    let found = inspect(&disks, &request(), &Options::default()).unwrap();
    assert_eq!(ids(&found), ["guest-not-recognised"]);
    assert!(found.guest.is_none() && found.plan.is_blocked());
}

/// A root in an encrypted volume, which fstab and the boot loader name as crypttab does.
#[test]
fn an_encrypted_root_goes_by_the_name_of_crypttab() {
    use landfall_image::luks::Effort;
    use landfall_image::{Disk, GuestOffset};
    let (Some(maker), Some(_)) = (Maker::new(), testing::tool("cryptsetup")) else { return };
    let fstab = "/dev/mapper/sda2_crypt / ext4 defaults 0 1\n/dev/sda1 /boot ext2 defaults 0 2\n";
    let crypttab = "sda2_crypt UUID=cccccccc-0000-4000-8000-00000000000c none luks\n";
    let grub = "linux /vmlinuz-1 root=/dev/mapper/sda2_crypt\n";
    let inner = maker.disk(
        "inner",
        &[(
            A,
            &[
                RELEASE,
                PASSWD,
                NAME,
                ("/etc/fstab", fstab),
                ("/etc/crypttab", crypttab),
                ("/boot/hidden", ""),
            ],
        )],
    );
    let disk = maker
        .disk("disk", &[("-t ext2", &[("/vmlinuz-1", "kernel"), ("/grub/grub.cfg", grub)]), ("noise", &[])]);
    // The file system goes into a container, and that into the second partition, which grows to the disk's end.
    let container = maker.0.path().join("container");
    testing::sparse(&container, 20 << 20);
    let key = Secret::new(b"landfall".to_vec());
    let format = "cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 1000 --uuid cccccccc-0000-4000-8000-00000000000c";
    Tool::line(&format!("{format} {}", container.display())).input(b"landfall").run();
    let overlay = testing::overlay(&container);
    let volume =
        landfall_image::luks::open_volume(overlay.clone(), &key, &mut Effort::default()).unwrap().unwrap();
    let file_system = &std::fs::read(&inner).unwrap()[1 << 20..17 << 20];
    volume.write_at(GuestOffset(0), file_system).unwrap();
    let mut raw = vec![0; 20 << 20];
    overlay.read_at(GuestOffset(0), &mut raw).unwrap();
    testing::sparse(&container, 0);
    let grown = std::fs::File::options().write(true).open(&disk).unwrap();
    grown.set_len(40 << 20).unwrap();
    Tool::line(&format!("sfdisk -q -N 2 {}", disk.display())).input(b",20M\n").run();
    testing::patch(&disk, 17 << 20, &raw);

    let with = |keys: &[Secret]| {
        let disks: Vec<Arc<dyn DiskMut>> = vec![testing::overlay(&disk)];
        let options = Options { families: &[&Anything], keys, ..Options::default() };
        inspect(&disks, &request(), &options).unwrap()
    };
    let found = with(&[key]);
    assert_eq!(ids(&found), [""; 0], "{:?}", found.plan.findings);
    let mounts: Vec<_> =
        found.mounts.iter().map(|mount| (mount.at.as_str(), mount.volume.0.as_str())).collect();
    assert_eq!(mounts, [("/", "disk0p2:luks"), ("/boot", "disk0p1")]);
    assert_eq!(found.plan.edits.len(), 1);
    let root = found.volumes.iter().find(|volume| volume.id.0 == "disk0p2:luks").unwrap();
    assert_eq!(root.uuid.as_deref(), Some("aaaaaaaa-0000-4000-8000-00000000000a"));
    assert!(root.device_names.contains(&"/dev/mapper/sda2_crypt".to_owned()), "{:?}", root.device_names);
    let found = with(&[]);
    assert_eq!(ids(&found), ["root-encrypted", "luks-locked"]);
    assert!(found.plan.findings[0].remedy.contains("--key-file"));
    assert_eq!(ids(&with(&[Secret::new(b"wrong".to_vec())])), ["root-encrypted", "luks-key-wrong"]);
    // An old root beside it, which knows itself, is not taken instead.
    let old = "UUID=bbbbbbbb-0000-4000-8000-00000000000b / ext4 d 0 1\n";
    let old_files = [RELEASE, PASSWD, NAME, ("/etc/fstab", old)];
    let old = maker.disk("old", &[(B, &old_files)]);
    let with = |keys: &[Secret], root: Option<&str>| {
        let disks: Vec<Arc<dyn DiskMut>> = vec![testing::overlay(&disk), testing::overlay(&old)];
        let root = root.map(|root| VolumeId(root.into()));
        inspect(&disks, &request(), &Options { families: &[&Anything], keys, root, ..Options::default() })
            .unwrap()
    };
    let found = with(&[], None);
    assert_eq!(ids(&found), ["root-not-seen", "luks-locked"], "{:?}", found.plan.findings);
    assert!(found.plan.edits.is_empty());
    let says = &found.plan.findings[0].says;
    assert!(says.contains("root=/dev/mapper/sda2_crypt") && says.contains("disk0p2"), "{says}");
    let found = with(&[], Some("disk1p1"));
    assert_eq!((ids(&found), found.plan.edits.len()), (vec!["luks-locked"], 1));
    let found = with(&[Secret::new(b"landfall".to_vec())], None);
    assert_eq!((ids(&found), found.mounts[0].volume.0.as_str()), (vec!["root-stale"], "disk0p2:luks"));
}

/// The disk of the root is vda, and so first; `/dev/sda1` is first of its own kind and yet another one.
#[test]
fn a_name_by_order_never_means_what_a_uuid_means() {
    let Some(maker) = Maker::new() else { return };
    let fstab =
        "UUID=aaaaaaaa-0000-4000-8000-00000000000a / ext4 defaults 0 1\n/dev/sda1 /opt ext4 defaults 0 2\n";
    let system = maker.disk("system", &[(A, &[RELEASE, PASSWD, NAME, ("/etc/fstab", fstab)])]);
    let alone = look(&[&system], None);
    assert_eq!(ids(&alone), ["mount-not-found"]);
    let data = maker.disk("data", &[(B, &[("/x", "")])]);
    let both = look(&[&system, &data], None);
    let mounts: Vec<_> = both.mounts.iter().map(|mount| (&*mount.at, &*mount.volume.0)).collect();
    assert_eq!(mounts, [("/", "disk0p1"), ("/opt", "disk1p1")]);
    assert_eq!(ids(&both), ["sandbox-needed"]);
}
