//! Guests as they mount their file systems. On btrfs in the layouts of the distributions, made by btrfs's own tools: the
//! subvolume that the machine starts from is found, patched and read back; its copies stay as they are; the kernel and
//! `btrfs check` look at the result. On partitions that systemd finds by their types, that units mount, that are named
//! in every way that fstab knows; and file systems that were not unmounted, or that the kernel refuses.

mod helper;

use helper::*;
use landfall_boot::session::{Inspection, Options, Patched, Reader, inspect};
use landfall_boot::target::Firmware;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const UUID: &str = "4b1f0000-0000-4000-8000-00000000000a";

/// A folder with a btrfs image in it.
struct Guest {
    dir: tempfile::TempDir,
    image: PathBuf,
}

impl Guest {
    /// Makes the file system and calls `fill` with its mounted top level. `None` where that cannot be done here.
    fn new(fill: impl FnOnce(&Path)) -> Option<Guest> {
        if !tools(&["mkfs.btrfs", "btrfs", "mount"]) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk");
        sparse(&image, 256);
        run(&format!("mkfs.btrfs -q -U {UUID} {}", image.display()));
        let top = Mounted::new(&image, &dir.path().join("mnt"), "rw")?;
        fill(&top.0);
        drop(top);
        Some(Guest { dir, image })
    }

    /// A file as the kernel sees it now, from the top level.
    fn read(&self, paths: &[&str]) -> Vec<Option<String>> {
        run(&format!("btrfs check {}", self.image.display()));
        let top = Mounted::new(&self.image, &self.dir.path().join("mnt"), "ro,subvolid=5").unwrap();
        paths.iter().map(|path| fs::read_to_string(top.0.join(path)).ok()).collect()
    }
}

fn subvolume(top: &Path, path: &str) -> PathBuf {
    let at = top.join(path);
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    run(&format!("btrfs subvolume create {}", at.display()));
    at
}

fn snapshot(top: &Path, from: &str, to: &str, options: &str) -> PathBuf {
    let (from, to) = (top.join(from), top.join(to));
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    run(&format!("btrfs subvolume snapshot {options} {} {}", from.display(), to.display()));
    to
}

fn id_of(path: &Path) -> String {
    run(&format!("btrfs inspect-internal rootid {}", path.display())).trim().to_owned()
}

/// Where everything is mounted: folder, volume, subvolume.
fn places(seen: &Patched) -> Vec<(&str, &str, &str)> {
    places_of(&seen.inspection)
}

fn places_of(inspection: &Inspection) -> Vec<(&str, &str, &str)> {
    let mounts = inspection.mounts.iter();
    mounts.map(|m| (&*m.at, &*m.volume.0, m.subvolume.as_deref().unwrap_or(""))).collect()
}

const NEW: Option<&str> = Some(TEXT);
const OLD: Option<&str> = Some("old\n");

#[test]
fn opensuse_starts_from_its_default_subvolume() {
    let _one = one();
    let Some(sandbox) = sandbox("opensuse_starts_from_its_default_subvolume") else { return };
    let subvolumes =
        ["var", "usr/local", "home", "root", "opt", "srv", "boot/grub2/i386-pc", "boot/grub2/x86_64-efi"];
    let guest = Guest::new(|top| {
        subvolume(top, "@");
        let mut fstab = format!("UUID={UUID} / btrfs defaults 0 0\n");
        for path in subvolumes {
            subvolume(top, &format!("@/{path}"));
            fstab += &format!("UUID={UUID} /{path} btrfs subvol=/@/{path} 0 0\n");
        }
        subvolume(top, "@/.snapshots");
        fstab += &format!("UUID={UUID} /.snapshots btrfs subvol=/@/.snapshots 0 0\n");
        let root = subvolume(top, "@/.snapshots/1/snapshot");
        root_files(&root, &fstab);
        for path in subvolumes {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        write(
            &root,
            "boot/grub2/grub.cfg",
            &format!("menuentry x {{\n linux /boot/vmlinuz root=UUID={UUID} quiet\n}}\n"),
        );
        for number in 2..9 {
            snapshot(top, "@/.snapshots/1/snapshot", &format!("@/.snapshots/{number}/snapshot"), "-r");
        }
        write(top, "@/var/lib/x", "old\n");
        let id = id_of(&root);
        run(&format!("btrfs subvolume set-default {id} {}", top.display()));
    });
    let Some(guest) = guest else { return };
    let writes = ["/etc/motd", "/var/lib/x", "/boot/grub2/x86_64-efi/grub.cfg", "/boot/new"];
    let seen = patched(&[&guest.image], &sandbox, &writes, None);
    assert_eq!(ids(&seen.inspection), [""; 0]);
    assert_eq!(seen.applied.as_ref().unwrap().verified_by, Reader::Sandbox);
    let root = "/@/.snapshots/1/snapshot";
    assert_eq!(places(&seen)[0], ("/", "disk0", root));
    assert!(places(&seen).contains(&("/boot/grub2/x86_64-efi", "disk0", "/@/boot/grub2/x86_64-efi")));
    assert!(places(&seen).contains(&("/home", "disk0", "/@/home")));
    let found = guest.read(&[
        "@/.snapshots/1/snapshot/etc/motd",
        "@/.snapshots/1/snapshot/boot/new",
        "@/.snapshots/1/snapshot/var/lib/x",
        "@/var/lib/x",
        "@/boot/grub2/x86_64-efi/grub.cfg",
        "@/.snapshots/2/snapshot/etc/motd",
        "@/.snapshots/8/snapshot/etc/motd",
    ]);
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    assert_eq!(found, [NEW, NEW, None, NEW, NEW, OLD, OLD]);
}

/// /boot is a file system of its own, whose entries name the subvolume; beside the root lie its copies.
#[test]
fn fedora_is_named_by_its_boot_loader() {
    let _one = one();
    let Some(sandbox) = sandbox("fedora_is_named_by_its_boot_loader") else { return };
    if !tools(&["mke2fs"]) {
        return;
    }
    let boot_uuid = "4b1f0000-0000-4000-8000-00000000000b";
    let fstab = |subvolume: &str| {
        format!(
            "UUID={UUID} / btrfs subvol={subvolume},compress=zstd:1 0 0\nUUID={boot_uuid} /boot ext4 defaults 1 2\nUUID={UUID} /home btrfs subvol=home 0 0\n"
        )
    };
    let guest = Guest::new(|top| {
        let root = subvolume(top, "root");
        root_files(&root, &fstab("root"));
        subvolume(top, "home");
        subvolume(top, "var/lib/machines");
        snapshot(top, "root", "root_backup", "");
        // A copy that was made to be started, whose fstab says so.
        let other = snapshot(top, "root", "root00", "");
        write(&other, "etc/fstab", &fstab("root00"));
    });
    let Some(guest) = guest else { return };
    let (boot, folder) = (guest.dir.path().join("boot"), guest.dir.path().join("folder"));
    let options = "root=UUID=4b1f0000-0000-4000-8000-00000000000a ro rootflags=subvol=root rhgb quiet";
    write(
        &folder,
        "loader/entries/a-6.8.conf",
        &format!("title Fedora\nlinux /vmlinuz-6.8\noptions {options}\n"),
    );
    sparse(&boot, 64);
    run(&format!("mke2fs -q -F -t ext4 -U {boot_uuid} -d {} {}", folder.display(), boot.display()));
    let disks: [&Path; 2] = [&boot, &guest.image];
    let seen = patched(&disks, &sandbox, &["/etc/motd", "/boot/new"], None);
    assert_eq!(ids(&seen.inspection), ["root-stale", "root-stale"]);
    let says = |n: usize| &seen.inspection.plan.findings[n].says;
    assert!(says(0).contains("disk1:/root00 (") || says(0).contains("disk1:/root00 holds"), "{}", says(0));
    assert!(says(1).contains("disk1:/root_backup"), "{}", says(1));
    assert_eq!(places(&seen), [("/", "disk1", "/root"), ("/boot", "disk0", ""), ("/home", "disk1", "/home")]);
    let found = guest.read(&["root/etc/motd", "root00/etc/motd", "root_backup/etc/motd"]);
    assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), [NEW, OLD, OLD]);
    // The caller may choose another one.
    let seen = patched(&disks, &sandbox, &["/etc/motd"], Some("disk1:/root00"));
    assert_eq!((ids(&seen.inspection), places(&seen)[0]), (vec![], ("/", "disk1", "/root00")));
    // Without the loader's word there are two that name themselves.
    let seen = patched(&[&guest.image], &sandbox, &[], None);
    let findings = &seen.inspection.plan.findings;
    assert!(
        findings.iter().any(|f| f.id == "root-several" && f.says.contains("disk0:/root00")),
        "{findings:?}"
    );
}

/// The top level is the default subvolume and holds no system; GRUB's configuration lies in the subvolume.
#[test]
fn debian_and_ubuntu_say_so_in_fstab() {
    let _one = one();
    let Some(sandbox) = sandbox("debian_and_ubuntu_say_so_in_fstab") else { return };
    for name in ["@rootfs", "@"] {
        let guest = Guest::new(|top| {
            let root = subvolume(top, name);
            root_files(
                &root,
                &format!(
                    "UUID={UUID} / btrfs defaults,subvol={name} 0 0\nUUID={UUID} /home btrfs subvol=@home 0 0\n"
                ),
            );
            let grub = |root: &str| {
                format!("linux /{name}/boot/vmlinuz root=UUID={UUID} ro rootflags=subvol={root}\n")
            };
            write(&root, "boot/grub/grub.cfg", &grub(name));
            subvolume(top, "@home");
            snapshot(top, name, &format!("timeshift-btrfs/snapshots/2026-11-01_10-00-00/{name}"), "");
            let backup = snapshot(top, name, "@_backup", "");
            // Nothing reads the configuration of a copy.
            write(&backup, "boot/grub/grub.cfg", &grub("@_backup"));
        });
        let Some(guest) = guest else { return };
        let seen = patched(&[&guest.image], &sandbox, &["/etc/motd"], None);
        assert_eq!(ids(&seen.inspection), ["root-stale"]);
        assert_eq!(places(&seen)[0], ("/", "disk0", &*format!("/{name}")));
        let backup = format!("timeshift-btrfs/snapshots/2026-11-01_10-00-00/{name}/etc/motd");
        let found = guest.read(&[&format!("{name}/etc/motd"), "@_backup/etc/motd", &backup]);
        assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), [NEW, OLD, OLD]);
    }
}

/// Subvolumes by number and path, /boot in one of its own, the loader on the EFI system partition.
#[test]
fn arch_names_subvolumes_by_number() {
    let _one = one();
    let Some(sandbox) = sandbox("arch_names_subvolumes_by_number") else { return };
    if !tools(&["mkfs.vfat", "mmd", "mcopy"]) {
        return;
    }
    let mut root_id = String::new();
    let guest = Guest::new(|top| {
        let root = subvolume(top, "__active/rootvol");
        let boot = subvolume(top, "@boot");
        subvolume(top, "@log");
        root_id = id_of(&root);
        let boot_id = id_of(&boot);
        root_files(
            &root,
            &format!(
                "UUID={UUID} / btrfs rw,relatime,subvolid={root_id},subvol=/__active/rootvol 0 0\n\
                UUID={UUID} /boot btrfs rw,subvolid={boot_id} 0 0\nUUID={UUID} /var/log btrfs subvol=/@log 0 0\n"
            ),
        );
        write(&boot, "vmlinuz-linux", "kernel");
        // A copy in a place where roots are looked for, made before the move to rootvol.
        snapshot(top, "__active/rootvol", "__snapshot/old", "-r");
    });
    let Some(guest) = guest else { return };
    let (esp, entry) = (guest.dir.path().join("esp"), guest.dir.path().join("arch.conf"));
    fs::write(
        &entry,
        format!("linux /vmlinuz-linux\noptions root=UUID={UUID} rootflags=subvolid={root_id} rw\n"),
    )
    .unwrap();
    sparse(&esp, 40);
    let esp_name = esp.display();
    run(&format!("mkfs.vfat -F 32 -s 1 -i cafebabe {esp_name}"));
    run(&format!("mmd -i {esp_name} ::loader ::loader/entries"));
    run(&format!("mcopy -i {esp_name} {} ::loader/entries/arch.conf", entry.display()));
    let seen = patched(&[&esp, &guest.image], &sandbox, &["/etc/motd", "/boot/new"], None);
    assert_eq!(ids(&seen.inspection), ["root-stale"]);
    let expected =
        [("/", "disk1", "/__active/rootvol"), ("/boot", "disk1", "/@boot"), ("/var/log", "disk1", "/@log")];
    assert_eq!(places(&seen), expected);
    let found = guest.read(&["__active/rootvol/etc/motd", "@boot/new", "__active/rootvol/boot/new"]);
    assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), [NEW, NEW, None]);
}

#[test]
fn a_root_that_cannot_be_written_is_a_finding() {
    let _one = one();
    let Some(sandbox) = sandbox("a_root_that_cannot_be_written_is_a_finding") else { return };
    let fill = |top: &Path| {
        let root = subvolume(top, "@");
        root_files(&root, &format!("UUID={UUID} / btrfs subvol=@ 0 0\n"));
        run(&format!("btrfs property set -ts {} ro true", root.display()));
    };
    let Some(guest) = Guest::new(fill) else { return };
    let seen = patched(&[&guest.image], &sandbox, &["/etc/motd"], None);
    assert_eq!(ids(&seen.inspection), ["subvolume-read-only"]);
    let finding = &seen.inspection.plan.findings[0];
    assert!(
        finding.says.contains("/@") && finding.remedy.contains("btrfs property set -ts / ro false"),
        "{finding:?}"
    );
    assert!(seen.applied.is_none());
    assert_eq!(guest.read(&["@/etc/motd"])[0].as_deref(), OLD);
}

#[test]
fn what_fstab_names_and_is_not_there_is_a_finding() {
    let _one = one();
    let Some(sandbox) = sandbox("what_fstab_names_and_is_not_there_is_a_finding") else { return };
    for (option, expected) in [
        ("subvol=@gone", "mount-not-readable"),
        ("subvolid=999", "mount-not-found"),
        ("subvol=a\\054b", "mount-not-readable"),
    ] {
        let guest = Guest::new(|top| {
            let root = subvolume(top, "@");
            root_files(
                &root,
                &format!("UUID={UUID} / btrfs subvol=@ 0 0\nUUID={UUID} /boot btrfs {option} 0 0\n"),
            );
        });
        let Some(guest) = guest else { return };
        let seen = patched(&[&guest.image], &sandbox, &["/etc/motd"], None);
        assert_eq!(ids(&seen.inspection), [expected], "{option}");
        assert!(seen.applied.is_none());
    }
}

/// The log tree holds what was synced since the last commit; the kernel replays it in the overlay.
#[test]
fn a_guest_that_was_switched_off_hard_is_patched() {
    let _one = one();
    let Some(sandbox) = sandbox("a_guest_that_was_switched_off_hard_is_patched") else { return };
    let fill = |top: &Path| {
        let root = subvolume(top, "@");
        root_files(&root, &format!("UUID={UUID} / btrfs subvol=@ 0 0\n"));
        let id = id_of(&root);
        run(&format!("btrfs subvolume set-default {id} {}", top.display()));
    };
    let Some(guest) = Guest::new(fill) else { return };
    let live = guest.dir.path().join("live");
    fs::rename(&guest.image, &live).unwrap();
    let Some(mounted) = Mounted::new(&live, &guest.dir.path().join("mnt"), "commit=600") else { return };
    fs::write(mounted.0.join("etc/late"), "synced, not committed\n").unwrap();
    fs::File::open(mounted.0.join("etc/late")).unwrap().sync_all().unwrap();
    fs::copy(&live, &guest.image).unwrap();
    drop(mounted);
    let dump = run(&format!("btrfs inspect-internal dump-super {}", guest.image.display()));
    let log = dump.lines().find(|line| line.starts_with("log_root\t")).unwrap();
    assert!(!log.ends_with("\t0"), "there is nothing to replay: {log}");
    let seen = patched(&[&guest.image], &sandbox, &["/etc/motd"], None);
    assert_eq!(ids(&seen.inspection), [""; 0]);
    let found = guest.read(&["@/etc/motd", "@/etc/late"]);
    assert_eq!(
        found.iter().map(Option::as_deref).collect::<Vec<_>>(),
        [NEW, Some("synced, not committed\n")]
    );
}

/// On each of these a flag keeps even root from changing the file; it is there again afterwards, and the report says so.
#[test]
fn immutable_files_are_changed_and_marked_again() {
    let _one = one();
    let Some(sandbox) = sandbox("immutable_files_are_changed_and_marked_again") else { return };
    for (kind, mib) in [("ext4", 64), ("xfs", 320), ("btrfs", 256)] {
        if !tools(&[&*format!("mkfs.{kind}"), "chattr", "lsattr"]) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (dir.path().join("disk"), dir.path().join("mnt"));
        sparse(&image, mib);
        run(&format!("mkfs.{kind} -q {}", image.display()));
        let Some(mounted) = Mounted::new(&image, &at, "rw") else { return };
        root_files(&at, &format!("/dev/sda / {kind} defaults 0 1\n"));
        write(&at, "etc/append", "old\n");
        write(&at, "etc/locked/file", "old\n");
        fs::set_permissions(at.join("etc/motd"), PermissionsExt::from_mode(0o604)).unwrap();
        let name = at.display();
        run(&format!("chattr +i {name}/etc/motd {name}/etc/locked/file {name}/etc/locked"));
        run(&format!("chattr +a {name}/etc/append"));
        drop(mounted);
        let writes = ["/etc/motd", "/etc/append", "/etc/locked/file", "/etc/locked/new", "/etc/plain"];
        let seen = patched(&[&image], &sandbox, &writes, None);
        assert_eq!(ids(&seen.inspection), ["file-immutable"; 4], "{kind}");
        let Some(_mounted) = Mounted::new(&image, &at, "rw") else { return };
        for path in writes {
            assert_eq!(fs::read_to_string(at.join(&path[1..])).unwrap(), TEXT, "{kind} {path}");
        }
        let listed = run(&format!(
            "lsattr -d {name}/etc/motd {name}/etc/append {name}/etc/locked/file {name}/etc/locked {name}/etc/plain {name}/etc/locked/new"
        ));
        let flags: Vec<char> = listed
            .lines()
            .map(|line| {
                line.split(' ').next().unwrap().chars().find(|flag| "ia".contains(*flag)).unwrap_or('-')
            })
            .collect();
        assert_eq!(flags, ['i', 'a', 'i', 'i', '-', '-'], "{kind}: {listed}");
        let mode = fs::metadata(at.join("etc/motd")).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o604);
        run(&format!(
            "chattr -ia {name}/etc/motd {name}/etc/append {name}/etc/locked/file {name}/etc/locked"
        ));
    }
}

/// A GPT with partitions of 40 MiB: the type, the name, and a command that makes the file system.
fn gpt(disk: &Path, parts: &[(&str, &str, String)]) {
    sparse(disk, parts.len() as u64 * 40 + 4);
    let mut line = "sgdisk".to_owned();
    for (n, (kind, name, _)) in parts.iter().enumerate() {
        let number = n + 1;
        line += &format!(
            " -n {number}:{}:+40M -t {number}:{kind} -c {number}:{name} -u {number}:4b1f0000-0000-4000-8000-00000000010{number}",
            2048 + n * 40 * 2048
        );
    }
    run(&format!("{line} {}", disk.display()));
    for (n, (_, _, make)) in parts.iter().enumerate() {
        let part = disk.with_extension("part");
        sparse(&part, 40);
        run(&format!("{make} {}", part.display()));
        use std::os::unix::fs::FileExt;
        let disk = fs::File::options().write(true).open(disk).unwrap();
        disk.write_all_at(&fs::read(&part).unwrap(), (1 + n as u64 * 40) << 20).unwrap();
    }
}

fn look(disks: &[&Path]) -> Inspection {
    let disks: Vec<_> = disks.iter().map(|disk| FileDisk::open(disk)).collect();
    let options = Options { families: &[&Anything(Vec::new())], ..Options::default() };
    inspect(&disks, &request(Firmware::Uefi), &options).unwrap()
}

const ESP: &str = "ef00";
const XBOOTLDR: &str = "ea00";
const GENERATOR: &str = "usr/lib/systemd/system-generators/systemd-gpt-auto-generator";

#[test]
fn partitions_are_found_by_type_and_by_every_name() {
    if !tools(&["sgdisk", "mke2fs", "mkfs.vfat"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (disk, other, root) = (dir.path().join("disk"), dir.path().join("other"), dir.path().join("root"));
    let make = |prepare: &dyn Fn(&Path)| {
        let _ = fs::remove_dir_all(&root);
        root_files(&root, "");
        fs::remove_dir_all(root.join("boot")).unwrap();
        for folder in ["boot", "efi", "srv", "var", "usr/local"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        write(&root, GENERATOR, "");
        prepare(&root);
        let ext4 = |label: &str| format!("mke2fs -q -F -t ext4 -L {label}");
        let vfat = "mkfs.vfat -F 32 -s 1 -i cafebabe".to_owned();
        // An EFI system partition of another disk is none of this system's, unless fstab names it.
        gpt(&other, &[(ESP, "stick", "mkfs.vfat -F 32 -s 1 -i cafed00d".to_owned())]);
        gpt(
            &disk,
            &[
                (ESP, "esp", vfat),
                (XBOOTLDR, "kernels", ext4("boot")),
                ("8304", "root-x86-64", format!("{} -d {}", ext4("root"), root.display())),
                ("8300", "data", ext4("var")),
            ],
        );
        let found = look(&[&other, &disk]);
        // Which disk starts is told where the loader was found, and is no trouble.
        let mut trouble = ids(&found);
        trouble.retain(|id| *id != "boot-disk-not-first");
        assert_eq!(trouble, [""; 0], "{:?}", found.plan.findings);
        let places = places_of(&found).into_iter();
        places.map(|(at, volume, _)| format!("{at} {volume}")).collect::<Vec<_>>()
    };
    // No fstab at all.
    assert_eq!(make(&|_| {}), ["/ disk1p3", "/boot disk1p2", "/efi disk1p1"]);
    // fstab's word goes before the types, and a unit's before fstab's.
    let fstab = "PARTUUID=4B1F0000-0000-4000-8000-000000000103 / ext4 defaults 0 1\n\
                 PARTLABEL=\"stick\" /boot vfat umask=0077,x-systemd.automount 0 2\n\
                 LABEL='var' /srv ext4 nofail,x-systemd.device-timeout=5 0 2\n";
    assert_eq!(
        make(&|root| write(root, "etc/fstab", fstab)),
        ["/ disk1p3", "/boot disk0p1", "/srv disk1p4", "/efi disk1p1"]
    );
    let unit = |root: &Path| {
        write(root, "etc/fstab", fstab);
        write(
            root,
            "etc/systemd/system/boot.mount",
            "[Mount]\nWhat=/dev/disk/by-label/boot\nWhere=/boot\nType=ext4\n",
        );
        write(
            root,
            "etc/systemd/system/var.mount",
            "[Mount]\nWhat=/dev/disk/by-partlabel/data\nWhere=/var\n",
        );
        let wants = root.join("etc/systemd/system/local-fs.target.wants");
        fs::create_dir_all(&wants).unwrap();
        std::os::unix::fs::symlink("../boot.mount", wants.join("boot.mount")).unwrap();
    };
    assert_eq!(make(&unit), ["/ disk1p3", "/boot disk1p2", "/srv disk1p4", "/efi disk1p1"]);
    // Kernels in the root, no /efi, another init system: nothing is mounted by type.
    let full = |root: &Path| {
        write(root, "boot/vmlinuz", "");
        fs::remove_dir(root.join("efi")).unwrap();
    };
    assert_eq!(make(&full), ["/ disk1p3"]);
    assert_eq!(make(&|root| fs::remove_file(root.join(GENERATOR)).unwrap()), ["/ disk1p3"]);
}

/// Of two systems without a word about themselves the one counts whose partition is typed as a root.
#[test]
fn a_root_is_found_by_its_type() {
    if !tools(&["sgdisk", "mke2fs"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (disk, root) = (dir.path().join("disk"), dir.path().join("root"));
    root_files(&root, "");
    let ext4 = format!("mke2fs -q -F -t ext4 -d {}", root.display());
    gpt(&disk, &[("8300", "old", ext4.clone()), ("8304", "new", ext4.clone())]);
    let found = look(&[&disk]);
    assert_eq!((ids(&found), places_of(&found)), (vec!["root-stale"], vec![("/", "disk0p2", "")]));
    gpt(&disk, &[("8300", "old", ext4.clone()), ("8300", "new", ext4)]);
    assert_eq!(ids(&look(&[&disk])), ["root-several"]);
}

#[test]
fn what_the_kernel_refuses_is_a_finding_with_what_fixes_it() {
    let _one = one();
    let Some(sandbox) = sandbox("what_the_kernel_refuses_is_a_finding_with_what_fixes_it") else { return };
    if !tools(&["mke2fs", "mkfs.xfs", "xfs_db"]) {
        return;
    }
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let (image, root) = (dir.path().join("disk"), dir.path().join("root"));
    root_files(&root, "/dev/sda / ext4 defaults 0 1\n");
    let patched = |what: &str, remedy: &str| {
        let seen = patched(&[&image], &sandbox, &["/etc/motd"], None);
        let finding = &seen.inspection.plan.findings;
        assert!(seen.applied.is_none() && seen.inspection.plan.is_blocked(), "{what}");
        let told =
            finding.iter().any(|finding| finding.says.contains("disk0") && finding.remedy.contains(remedy));
        assert!(told, "{what}: {finding:?}");
    };
    // A feature of the future.
    sparse(&image, 64);
    run(&format!("mke2fs -q -F -t ext4 -O ^metadata_csum -d {} {}", root.display(), image.display()));
    let file = fs::File::options().read(true).write(true).open(&image).unwrap();
    let mut features = [0; 4];
    file.read_exact_at(&mut features, 1024 + 0x60).unwrap();
    features[3] |= 0x80;
    file.write_all_at(&features, 1024 + 0x60).unwrap();
    patched("ext4 of the future", "a kernel as new as the guest's");
    // A damaged superblock, and a log that cannot be replayed.
    sparse(&image, 320);
    run(&format!("mkfs.xfs -q -f {}", image.display()));
    file.write_all_at(&[0xff; 16], 0x80).unwrap();
    patched("a damaged xfs", "fsck");
}
