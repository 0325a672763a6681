//! Whole passes over disks of Windows: what is found, mounted, refused and written. The disks are stand-ins, made by
//! `tools/make-windows-disk.sh`; a family of the tests writes.

mod helper;

use helper::windows::{Fuse, disk, is_sound, part, poke, volume_flags};
use helper::{Anything, FileDisk, TEXT, ids, one, patched, request, run, sandbox, tools};
use landfall_boot::sandbox::Sandbox;
use landfall_boot::session::{BOOT_AT, ESP_AT, Inspection, Options, Patched, Reader, inspect, patch};
use landfall_boot::target::Firmware;
use landfall_boot::volume::{Content, VolumeId};
use std::path::{Path, PathBuf};

/// Writes to the hive and to both places of boot files.
const HIVE: &str = "/WINDOWS/system32/config/System";

fn mounts(inspection: &Inspection) -> Vec<(&str, &str, &str)> {
    let mounts = inspection.mounts.iter();
    mounts.map(|mount| (mount.at.as_str(), mount.volume.0.as_str(), mount.file_system.as_str())).collect()
}

fn looked_at(disks: &[&Path], sandbox: Option<&Sandbox>, root: Option<&str>) -> Inspection {
    let disks: Vec<_> = disks.iter().map(|disk| FileDisk::open(disk)).collect();
    let family = Anything(vec![HIVE.into()]);
    let options = Options {
        sandbox,
        families: &[&family],
        root: root.map(|root| VolumeId(root.into())),
        ..Options::default()
    };
    inspect(&disks, &request(Firmware::Bios), &options).unwrap()
}

fn discarded(disk: &Path, sandbox: &Sandbox) -> Patched {
    let family = Anything(vec![HIVE.into()]);
    let options = Options {
        sandbox: Some(sandbox),
        families: &[&family],
        discard_hibernation: true,
        ..Options::default()
    };
    patch(&[FileDisk::open(disk)], &request(Firmware::Bios), &options).unwrap()
}

#[test]
fn uefi_disks_are_found_and_written() {
    let Some(sandbox) = sandbox("uefi_disks_are_found_and_written") else { return };
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = disk(dir.path(), "uefi", &[]) else { return };
    let writes = [HIVE, "/:esp/efi/MICROSOFT/boot/bcd", "/:esp/EFI/New/bootx64.efi", "/windows/inf/oem0.inf"];
    let seen = patched(&[&disk], &sandbox, &writes, None);
    let inspection = &seen.inspection;
    assert_eq!(ids(inspection), Vec::<&str>::new());
    assert_eq!(mounts(inspection), [("/", "disk0p3", "ntfs"), (ESP_AT, "disk0p1", "vfat")]);
    let all: Vec<_> = inspection.volumes.iter().map(|volume| volume.id.0.as_str()).collect();
    assert_eq!(all, ["disk0p1", "disk0p2", "disk0p3", "disk0p4"], "listed, and not mounted");
    assert_eq!((inspection.reader, inspection.boot_disk), (Some(Reader::Sandbox), None));
    let applied = seen.applied.unwrap();
    assert_eq!((applied.changes.len(), applied.verified_by), (4, Reader::Sandbox));
    let (esp, _) = part(&disk, 1);
    let listing = run(&format!("mdir -b -/ -i {}@@{esp} ::", disk.display()));
    assert!(
        listing.contains("::/EFI/Microsoft/Boot/BCD") && listing.contains("::/EFI/New/bootx64.efi"),
        "{listing}"
    );
    assert!(
        run(&format!("mtype -i {}@@{esp} ::/EFI/Microsoft/Boot/BCD", disk.display())).contains(TEXT.trim())
    );
    let (c, _) = part(&disk, 3);
    is_sound(&disk, c);
    let fuse = Fuse::new(&disk, c, &dir.path().join("mnt"), "ro").unwrap();
    assert_eq!(std::fs::read_to_string(fuse.at.join("Windows/System32/config/SYSTEM")).unwrap(), TEXT);
    assert_eq!(std::fs::read_to_string(fuse.at.join("Windows/INF/oem0.inf")).unwrap(), TEXT);
}

#[test]
fn bios_disks_are_found_and_written() {
    let Some(sandbox) = sandbox("bios_disks_are_found_and_written") else { return };
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let Some(two) = disk(dir.path(), "bios", &[]) else { return };
    let seen = patched(&[&two], &sandbox, &[HIVE, "/:boot/boot/bcd"], None);
    assert_eq!(ids(&seen.inspection), Vec::<&str>::new());
    assert_eq!(mounts(&seen.inspection), [("/", "disk0p2", "ntfs"), (BOOT_AT, "disk0p1", "ntfs")]);
    assert!(seen.applied.is_some());
    for number in [1, 2] {
        is_sound(&two, part(&two, number).0);
    }
    let fuse = Fuse::new(&two, part(&two, 1).0, &dir.path().join("mnt"), "ro").unwrap();
    assert_eq!(std::fs::read_to_string(fuse.at.join("Boot/BCD")).unwrap(), TEXT);
    drop(fuse);
    // One volume for all; on the second disk, behind one of data: the firmware has to be told.
    let Some(alone) = disk(dir.path(), "bios-one", &[]) else { return };
    let data = dir.path().join("data");
    helper::sparse(&data, 16);
    run(&format!("mkntfs -q -F -f -L Data {}", data.display()));
    let seen = looked_at(&[&data, &alone], Some(&sandbox), None);
    assert_eq!((mounts(&seen), seen.boot_disk), (vec![("/", "disk1p1", "ntfs")], Some(1)));
    assert_eq!(ids(&seen), ["boot-disk-not-first"]);
    // Two systems: which one starts is nobody's guess.
    let seen = looked_at(&[&two, &alone], Some(&sandbox), None);
    assert_eq!(ids(&seen), ["root-several"]);
    let says = &seen.plan.findings[0].says;
    assert!(says.contains("disk0p2") && says.contains("disk1p1"), "{says}");
    let seen = looked_at(&[&two, &alone], Some(&sandbox), Some("disk0p2"));
    assert_eq!(mounts(&seen), [("/", "disk0p2", "ntfs"), (BOOT_AT, "disk0p1", "ntfs")]);
    let seen = looked_at(&[&two, &alone], Some(&sandbox), Some("disk0p1"));
    assert_eq!(ids(&seen), ["no-operating-system"]);
    assert!(seen.plan.findings[0].remedy.contains("disk0p2, disk1p1"), "{:?}", seen.plan.findings[0]);
    // Without a sandbox nothing of it is seen.
    let seen = looked_at(&[&two], None, None);
    assert_eq!(ids(&seen), ["sandbox-needed"]);
}

/// A Linux beside Windows is named, too.
#[test]
fn linux_and_windows_are_asked_for() {
    let Some(sandbox) = sandbox("linux_and_windows_are_asked_for") else { return };
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    if !tools(&["mke2fs"]) {
        return;
    }
    let Some(windows) = disk(dir.path(), "bios-one", &[]) else { return };
    let (files, linux) = (dir.path().join("files"), dir.path().join("linux"));
    helper::root_files(&files, "/dev/sdb / ext4 defaults 0 1\n");
    helper::sparse(&linux, 16);
    run(&format!("mke2fs -q -t ext4 -d {} {}", files.display(), linux.display()));
    let seen = looked_at(&[&windows, &linux], Some(&sandbox), None);
    assert_eq!(ids(&seen), ["root-several"]);
    assert!(seen.plan.findings[0].says.contains("disk1 (Test)"), "{}", seen.plan.findings[0].says);
    let seen = looked_at(&[&windows, &linux], Some(&sandbox), Some("disk0p1"));
    assert_eq!(mounts(&seen), [("/", "disk0p1", "ntfs")]);
    let seen = looked_at(&[&windows, &linux], Some(&sandbox), Some("disk1"));
    assert_eq!(mounts(&seen), [("/", "disk1", "ext4")]);
}

/// What states lead to: exactly these findings, and nothing written.
#[test]
fn states_are_refused_or_discarded() {
    let Some(sandbox) = sandbox("states_are_refused_or_discarded") else { return };
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let hibernation = dir.path().join("hiberfil");
    std::fs::write(&hibernation, [&b"HIBR"[..], &[7; 100_000]].concat()).unwrap();
    let Some(disk) = disk(dir.path(), "bios-one", &[("hiberfil.sys", &hibernation)]) else { return };
    let (start, _) = part(&disk, 1);
    let hive = |disk: &Path| {
        let fuse = Fuse::new(disk, start, &dir.path().join("mnt"), "ro").unwrap();
        let text = std::fs::read_to_string(fuse.at.join("Windows/System32/config/SYSTEM")).unwrap();
        (text == TEXT, fuse.at.join("hiberfil.sys").exists())
    };
    let seen = patched(&[&disk], &sandbox, &[HIVE], None);
    assert_eq!(ids(&seen.inspection), ["windows-hibernated"]);
    let finding = &seen.inspection.plan.findings[0];
    assert!(finding.says.contains("disk0p1") && finding.says.contains("HIBR"), "{finding:?}");
    for part in ["powercfg /h off", "shutdown /s /t 0", "--discard-hibernation"] {
        assert!(finding.remedy.contains(part), "{finding:?}");
    }
    assert!(seen.applied.is_none());
    assert_eq!(hive(&disk), (false, true));
    // Dirty: read, refused, and never marked clean.
    let flags = volume_flags(&disk, start);
    poke(&disk, flags, &[1, 0]);
    let seen = patched(&[&disk], &sandbox, &[HIVE], None);
    assert_eq!(ids(&seen.inspection), ["windows-hibernated", "windows-ntfs-dirty"]);
    assert!(seen.inspection.guest.is_some(), "it is read all the same");
    assert!(seen.applied.is_none());
    let volume = std::fs::read(&disk).unwrap();
    assert_eq!(volume[usize::try_from(flags).unwrap()], 1);
    poke(&disk, flags, &[0, 0]);
    // Given up.
    let seen = discarded(&disk, &sandbox);
    assert_eq!(ids(&seen.inspection), ["windows-hibernation-discarded"]);
    let done: Vec<_> =
        seen.applied.unwrap().changes.iter().map(|change| (change.path.clone(), change.done)).collect();
    assert_eq!(done, [("/hiberfil.sys".to_owned(), "removed"), (HIVE.to_owned(), "written")]);
    assert_eq!(hive(&disk), (true, false));
    is_sound(&disk, start);
    // Again: there is nothing to give up.
    assert_eq!(ids(&discarded(&disk, &sandbox).inspection), Vec::<&str>::new());
}

/// What hides a system is named, by its own name; beside a system that was found it is a note.
#[test]
fn what_is_not_opened_is_named() {
    let Some(sandbox) = sandbox("what_is_not_opened_is_named") else { return };
    let _one = one();
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = disk(dir.path(), "bios", &[]) else { return };
    let (boot, c) = (part(&disk, 1).0, part(&disk, 2).0);
    let copy = |name: &str| -> PathBuf {
        let copy = dir.path().join(name);
        run(&format!("cp --sparse=always {} {}", disk.display(), copy.display()));
        copy
    };
    let of = |content: &Content| format!("{content:?}");
    let bitlocker = copy("bitlocker");
    poke(&bitlocker, c + 3, b"-FVE-FS-");
    let seen = looked_at(&[&bitlocker], Some(&sandbox), None);
    // A boot sector without its metadata.
    assert_eq!(ids(&seen), ["windows-bitlocker", "windows-bitlocker-not-opened"]);
    assert!(
        seen.plan.findings[0].says.contains("disk0p2")
            && seen.plan.findings[0].remedy.contains("--passphrase-file")
    );
    // Both partitions of a disk that was made dynamic.
    let dynamic = copy("dynamic");
    for entry in [446 + 4, 446 + 16 + 4] {
        poke(&dynamic, entry, &[0x42]);
    }
    let seen = looked_at(&[&dynamic], Some(&sandbox), None);
    assert_eq!(mounts(&seen).len(), 2, "0x42 alone is no Dynamic Disk");
    poke(&dynamic, 6 * 512, b"PRIVHEAD");
    let seen = looked_at(&[&dynamic], Some(&sandbox), None);
    assert_eq!(ids(&seen), ["windows-system-not-opened"; 2]);
    assert!(of(&seen.volumes[0].content).contains("Dynamic Disk"));
    let refs = copy("refs");
    // Its boot sector is none of a BIOS: no jump, no parameters.
    poke(&refs, c, &[0; 512]);
    poke(&refs, c + 3, b"ReFS\0\0\0\0");
    poke(&refs, c + 16, b"FSRS");
    assert_eq!(ids(&looked_at(&[&refs], Some(&sandbox), None)), ["windows-system-not-opened"]);
    // As data beside a system.
    let old = copy("old");
    poke(&old, volume_flags(&old, c) - 2, &[1, 2]);
    poke(&old, boot + 3, b"-FVE-FS-");
    let seen = looked_at(&[&old, &dynamic], Some(&sandbox), None);
    let mut found = ids(&seen);
    found.sort_unstable();
    found.dedup();
    assert_eq!(
        found,
        [
            "windows-bitlocker-data",
            "windows-bitlocker-not-opened",
            "windows-data-not-opened",
            "windows-ntfs-old"
        ]
    );
}
