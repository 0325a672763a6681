//! Whole sessions with the sandbox: guests on partitions and logical volumes are found, planned for, written and read back,
//! and other tools look at the result.

mod helper;

use helper::{FileDisk, TEXT, any_guest, one, request, sandbox, sparse, tools, write};
use landfall_boot::Result;
use landfall_boot::family::{Family, Scene};
use landfall_boot::guest::Guest;
use landfall_boot::patch::{Action, Edit, PatchPlan};
use landfall_boot::sandbox::Sandbox;
use landfall_boot::session::{Options, Patched, Reader, inspect, patch};
use landfall_boot::target::{Firmware, Request};
use landfall_boot::volume::{VolumeId, scan};
use landfall_image::GuestOffset;
use landfall_image::disk::{Disk, DiskMut};
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// A family that knows every guest and makes one edit of each kind.
struct Anything {
    /// Files to write.
    writes: &'static [&'static str],
}

impl Family for Anything {
    fn name(&self) -> &'static str {
        "anything"
    }
    fn recognise(&self, scene: &Scene<'_>) -> Result<Option<Guest>> {
        any_guest(scene)
    }
    fn plan(&self, _: &Scene<'_>, _: &Guest, _: &Request) -> Result<PatchPlan> {
        let edit =
            |path: &str, action| Edit { path: path.into(), action, why: "a test".into(), labels: Vec::new() };
        let mut edits: Vec<Edit> = self
            .writes
            .iter()
            .map(|path| edit(path, Action::Write { contents: TEXT.to_owned().into(), mode: 0o640 }))
            .collect();
        edits.push(edit("/etc/copy", Action::Copy { from: "/etc/passwd".into() }));
        edits.push(edit("/etc/link", Action::Symlink { target: "passwd".into() }));
        edits.push(edit("/etc/old", Action::Remove));
        Ok(PatchPlan { edits, ..PatchPlan::default() })
    }
}

/// A family that finds nothing to do.
struct Nothing;

impl Family for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }
    fn recognise(&self, scene: &Scene<'_>) -> Result<Option<Guest>> {
        any_guest(scene)
    }
    fn plan(&self, _: &Scene<'_>, _: &Guest, _: &Request) -> Result<PatchPlan> {
        Ok(PatchPlan::default())
    }
}

/// Runs a command line of plain words, with input, that must succeed.
#[track_caller]
fn run(line: &str, input: &[u8]) -> String {
    use std::io::Write;
    let mut words = line.split_whitespace();
    let mut child = Command::new(words.next().unwrap())
        .args(words)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LVM_SUPPRESS_FD_WARNINGS", "1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    let out = child.wait_with_output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{line}: {text}");
    text
}

/// The helper's root file system, and a file that goes.
fn root_files(folder: &Path, fstab: &str) {
    helper::root_files(folder, fstab);
    write(folder, "etc/old", "goes\n");
}

fn patched(disks: &[&Path], sandbox: &Sandbox, writes: &'static [&'static str]) -> Patched {
    let disks: Vec<_> = disks.iter().map(|disk| FileDisk::open(disk)).collect();
    let family = Anything { writes };
    let options = Options { sandbox: Some(sandbox), families: &[&family], ..Options::default() };
    let seen = patch(&disks, &request(Firmware::Uefi), &options).unwrap();
    eprintln!(
        "scan {:.3} s, plan {:.3} s, {:?}",
        seen.inspection.scan_seconds, seen.inspection.plan_seconds, seen.applied
    );
    assert_eq!(seen.inspection.plan.findings, []);
    seen
}

/// Copies a volume out of the disks, for tools that take a file.
fn export(disks: &[&Path], id: &str, to: &Path) {
    let disks: Vec<_> = disks.iter().map(|disk| FileDisk::open(disk)).collect();
    let view = scan(&disks).unwrap().view(&VolumeId(id.into())).unwrap();
    let mut bytes = vec![0; usize::try_from(view.size().0).unwrap()];
    view.read_at(GuestOffset(0), &mut bytes).unwrap();
    std::fs::write(to, bytes).unwrap();
}

/// Writes an image into a volume.
fn import(disks: &[&Path], id: &str, from: &Path) {
    let disks: Vec<_> = disks.iter().map(|disk| FileDisk::open(disk)).collect();
    let view = scan(&disks).unwrap().view(&VolumeId(id.into())).unwrap();
    view.write_at(GuestOffset(0), &std::fs::read(from).unwrap()).unwrap();
}

/// The files that [`Anything`] leaves behind, as debugfs sees them.
fn check_ext4(image: &Path) {
    run(&format!("e2fsck -fn {}", image.display()), b"");
    let cat =
        |path: &str| run(&format!("debugfs -f - {}", image.display()), format!("cat {path}\n").as_bytes());
    assert!(cat("/etc/motd").contains(TEXT));
    assert!(cat("/etc/copy").contains("root:x:0:0"));
    assert!(cat("/etc/old").contains("File not found"));
    let stat = run(&format!("debugfs -f - {}", image.display()), b"stat /etc/link\nstat /etc/motd\n");
    assert!(stat.contains("Fast link dest: \"passwd\""), "{stat}");
    assert!(stat.contains("Mode:  0644"), "an existing file keeps its mode: {stat}");
}

#[test]
fn a_guest_on_partitions_with_an_esp_is_patched() {
    let _one = one();
    let tools = ["sgdisk", "mke2fs", "mkfs.vfat", "mtype", "fsck.vfat", "debugfs"];
    if !helper::tools(&tools) {
        return;
    }
    let Some(sandbox) = sandbox("a_guest_on_partitions") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (disk, part, folder) = (dir.path().join("disk"), dir.path().join("part"), dir.path().join("root"));
    sparse(&disk, 132);
    run(&format!("sgdisk -n 1:2048:+34M -t 1:ef00 -n 2:0:+64M -t 2:8300 {}", disk.display()), b"");
    root_files(&folder, "/dev/sda2 / ext4 d 0 1\nUUID=CAFE-BABE /boot/efi vfat umask=0077 0 1\n");
    sparse(&part, 64);
    run(&format!("mke2fs -q -F -t ext4 -d {} {}", folder.display(), part.display()), b"");
    import(&[&disk], "disk0p2", &part);
    sparse(&part, 34);
    run(&format!("mkfs.vfat -F 32 -s 1 -i cafebabe {}", part.display()), b"");
    import(&[&disk], "disk0p1", &part);

    let writes: &[&str] = &["/etc/motd", "/boot/efi/EFI/BOOT/grub.cfg"];
    let seen = patched(&[&disk], &sandbox, writes);
    assert_eq!(seen.inspection.reader, Some(Reader::Direct));
    let applied = seen.applied.unwrap();
    assert_eq!((applied.changes.len(), applied.verified_by), (5, Reader::Direct));
    export(&[&disk], "disk0p2", &part);
    check_ext4(&part);
    export(&[&disk], "disk0p1", &part);
    run(&format!("fsck.vfat -n {}", part.display()), b"");
    assert_eq!(run(&format!("mtype -i {} ::EFI/BOOT/grub.cfg", part.display()), b""), TEXT);
}

#[test]
fn a_guest_that_was_switched_off_hard_is_patched() {
    let _one = one();
    if !tools(&["mke2fs", "debugfs", "mount"]) {
        return;
    }
    let Some(sandbox) = sandbox("a_guest_that_was_switched_off_hard") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (live, disk, at) = (dir.path().join("live"), dir.path().join("disk"), dir.path().join("mnt"));
    std::fs::create_dir(&at).unwrap();
    sparse(&live, 64);
    run(&format!("mke2fs -q -F -t ext4 {}", live.display()), b"");
    let mounted = Command::new("mount").args(["-o", "loop,commit=600"]).args([&live, &at]).output().unwrap();
    if !mounted.status.success() {
        eprintln!("SKIPPED: a_guest_that_was_switched_off_hard: mounting needs root");
        return;
    }
    root_files(&at, "/dev/sda / ext4 d 0 1\n");
    for file in ["etc/fstab", "etc/passwd", "etc/os-release", "etc/old", "etc/motd"] {
        File::open(at.join(file)).unwrap().sync_all().unwrap();
    }
    std::fs::copy(&live, &disk).unwrap();
    run(&format!("umount {}", at.display()), b"");

    let seen = patched(&[&disk], &sandbox, &["/etc/motd"]);
    assert_eq!(seen.inspection.reader, Some(Reader::Direct), "the journal is replayed in memory");
    assert_eq!(seen.applied.unwrap().verified_by, Reader::Direct);
    check_ext4(&disk);
}

#[test]
fn xfs_on_logical_volumes_over_two_disks_is_patched() {
    let _one = one();
    if !tools(&["mkfs.xfs", "xfs_repair", "lvcreate", "losetup", "mke2fs", "sfdisk"]) {
        return;
    }
    let Some(sandbox) = sandbox("xfs_on_logical_volumes") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (a, b, part) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("part"));
    sparse(&a, 300);
    sparse(&b, 300);
    // Disk 0: /boot and a physical volume in an MBR; disk 1: a physical volume.
    run(&format!("sfdisk -q {}", a.display()), b"label-id: 0xcafe0001\n,64M,83,*\n,,8e\n");
    let device = |path: &Path, options: &str| {
        let out = Command::new("losetup").args(options.split_whitespace()).arg(path).output().unwrap();
        match out.status.success() {
            true => Some(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
            false => None,
        }
    };
    let pv_a = device(&a, "-f --show -o 68157440");
    let (Some(pv_a), Some(pv_b)) = (pv_a, device(&b, "-f --show")) else {
        eprintln!("SKIPPED: xfs_on_logical_volumes: loop devices need root");
        return;
    };
    let lvm = |command: &str| {
        let (name, rest) = command.split_once(' ').unwrap();
        let config = format!(
            "devices{{use_devicesfile=0 filter=[\"a|^{pv_a}$|\",\"a|^{pv_b}$|\",\"r|.*|\"]}} backup{{backup=0 archive=0}}"
        );
        let out = Command::new(name)
            .args(["-q", "--driverloaded", "n", "--config", &config])
            .args(rest.split_whitespace())
            .env("LVM_SUPPRESS_FD_WARNINGS", "1")
            .output()
            .unwrap();
        assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    };
    lvm(&format!("pvcreate {pv_a} {pv_b}"));
    lvm(&format!("vgcreate vg0 {pv_a} {pv_b}"));
    lvm("lvcreate -an -Zn -Wn -y -i 2 -L 320M -n root vg0");
    lvm("lvcreate -an -Zn -Wn -y -L 16M -n swap vg0");
    run(&format!("losetup -d {pv_a}"), b"");
    run(&format!("losetup -d {pv_b}"), b"");

    // Files by a prototype: no mount needed.
    let folder = dir.path().join("root");
    root_files(
        &folder,
        "/dev/mapper/vg0-root / xfs d 0 0\n/dev/sda1 /boot ext4 d 0 2\n/dev/vg0/swap none swap sw 0 0\n",
    );
    let mut proto = String::from("/dev/null\n0 0\nd--755 0 0\netc d--755 0 0\n");
    for file in ["fstab", "passwd", "os-release", "old", "motd"] {
        proto.push_str(&format!("{file} ---644 0 0 {}/etc/{file}\n", folder.display()));
    }
    proto.push_str("$\nboot d--755 0 0\n$\nusr d--755 0 0\n$\n$\n");
    let proto_file = dir.path().join("proto");
    std::fs::write(&proto_file, proto).unwrap();
    sparse(&part, 320);
    run(&format!("mkfs.xfs -q -f -p {} {}", proto_file.display(), part.display()), b"");
    import(&[&a, &b], "vg0/root", &part);
    sparse(&part, 64);
    let boot = dir.path().join("boot");
    std::fs::create_dir_all(&boot).unwrap();
    std::fs::write(boot.join("vmlinuz-1"), "kernel").unwrap();
    run(&format!("mke2fs -q -F -t ext4 -d {} {}", boot.display(), part.display()), b"");
    import(&[&a, &b], "disk0p1", &part);

    // Inspecting first changes nothing that a later look sees.
    let disks: Vec<_> = [&a, &b].iter().map(|disk| FileDisk::open(disk)).collect();
    let family = Anything { writes: &[] };
    let options = Options { sandbox: Some(&sandbox), families: &[&family], ..Options::default() };
    let found = inspect(&disks, &request(Firmware::Uefi), &options).unwrap();
    assert_eq!(found.plan.findings, []);
    assert_eq!(found.reader, Some(Reader::Sandbox));
    assert_eq!(found.guest.unwrap().name.value, "PRETTY_NAME=Test");

    let writes: &[&str] = &["/etc/motd", "/boot/grub/grub.cfg"];
    let seen = patched(&[&a, &b], &sandbox, writes);
    let mounts: Vec<_> = seen.inspection.mounts.iter().map(|mount| (&*mount.at, &*mount.volume.0)).collect();
    assert_eq!(mounts, [("/", "vg0/root"), ("/boot", "disk0p1")]);
    assert_eq!(seen.applied.unwrap().verified_by, Reader::Sandbox);
    export(&[&a, &b], "vg0/root", &part);
    run(&format!("xfs_repair -n {}", part.display()), b"");
    let at = dir.path().join("mnt");
    std::fs::create_dir(&at).unwrap();
    run(&format!("mount -o loop,ro {} {}", part.display(), at.display()), b"");
    let read = |path: &str| std::fs::read_to_string(at.join(path)).ok();
    let (motd, copy, old) = (read("etc/motd"), read("etc/copy"), read("etc/old"));
    let link = std::fs::read_link(at.join("etc/link")).ok();
    run(&format!("umount {}", at.display()), b"");
    assert_eq!((motd.as_deref(), old), (Some(TEXT), None));
    assert_eq!(copy.as_deref(), Some("root:x:0:0::/root:/bin/sh\n"));
    assert_eq!(link, Some("passwd".into()));
    export(&[&a, &b], "disk0p1", &part);
    run(&format!("e2fsck -fn {}", part.display()), b"");
    let text = run(&format!("debugfs -f - {}", part.display()), b"cat /grub/grub.cfg\n");
    assert!(text.contains(TEXT), "{text}");

    // Where there is nothing to do, what was mounted to be written to is unmounted all the same.
    let disks: Vec<_> = [&a, &b].iter().map(|disk| FileDisk::open(disk)).collect();
    let options = Options { sandbox: Some(&sandbox), families: &[&Nothing], ..Options::default() };
    let seen = patch(&disks, &request(Firmware::Uefi), &options).unwrap();
    assert!(seen.applied.is_none() && seen.inspection.guest.is_some());
    export(&[&a, &b], "disk0p1", &part);
    let text = run(&format!("dumpe2fs -h {}", part.display()), b"");
    assert!(text.contains("has_journal") && !text.contains("needs_recovery"), "{text}");
}
