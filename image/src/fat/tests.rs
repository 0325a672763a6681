//! Volumes as fsck.fat and mtools see them, and what cannot be.

use super::*;
use crate::error::Kind;
use crate::testing::{noise_bytes, read_all};
use crate::{Disk, ExtentKind};
use std::path::{Path, PathBuf};
use std::process::Command;

fn options(size: Bytes) -> FatOptions {
    FatOptions {
        size,
        serial: 0x1234_abcd,
        label: "Firmware".into(),
        hidden_sectors: 2048,
        // 2024-02-29 12:34:56
        time: 1_709_210_096,
    }
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    let mut zeros = noise_bytes(5, 300_000);
    zeros[10_000..290_000].fill(0);
    vec![
        ("EFI/BOOT/BOOTX64.EFI", noise_bytes(1, 1_000_001)),
        ("EFI/BOOT/grubx64.efi", noise_bytes(2, 512)),
        ("EFI/a vendor with a long name/Größe ist alles.cfg", b"set x=1\n".to_vec()),
        ("EFI/a vendor with a long name/Größe ist alles.cfg.old", noise_bytes(6, 4096)),
        ("empty", Vec::new()),
        ("vmlinuz-6.1.0", noise_bytes(3, 8 << 20)),
        ("zeros.img", zeros),
    ]
}

fn volume(size: Bytes) -> FatImage {
    let mut volume = FatVolume::new(options(size)).unwrap();
    for (path, content) in files() {
        volume.file(path, content).unwrap();
    }
    volume.finish().unwrap()
}

fn stored(disk: &dyn Disk) -> u64 {
    let all = GuestRange::new(GuestOffset(0), disk.size());
    let extents = disk.extents(all, usize::MAX).unwrap();
    extents.iter().filter(|e| e.kind == ExtentKind::Data).map(|e| e.range.len().0).sum()
}

fn file(folder: &Path, image: &FatImage) -> PathBuf {
    let path = folder.join("volume");
    std::fs::write(&path, read_all(&*image.disk).unwrap()).unwrap();
    path
}

/// What a tool prints; `None` (and a loud word) where it is missing.
fn told(tool: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    match Command::new(tool).args(arguments).env("LC_ALL", "C.UTF-8").env("TZ", "UTC").output() {
        Ok(output) => {
            let says = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{tool} {arguments:?}: {says}");
            Some(output.stdout)
        }
        Err(e) => {
            eprintln!("SKIPPED: {tool}: {e}");
            None
        }
    }
}

#[test]
fn others_find_a_clean_volume_and_every_file_in_it() {
    for (size, bits) in [
        (Bytes::mib(24), 16),
        (Bytes::mib(34), 32),
        (Bytes::mib(256), 32),
        (Bytes(300 * (1 << 20) + 512), 32),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), &volume(size));
        let path = path.to_str().unwrap();
        if let Some(verdict) = told("fsck.fat", &["-n", "-v", path]) {
            let verdict = String::from_utf8_lossy(&verdict);
            assert!(
                verdict.contains(&format!("{bits} bit entries")) && verdict.contains("2048 hidden sectors"),
                "{verdict}"
            );
            let odd = ["differ", "wrong", "Free", "corrected", "long file name", "Dirty", "label"];
            assert!(!odd.iter().any(|word| verdict.contains(word)), "{verdict}");
        }
        for (name, content) in files() {
            let Some(read) = told("mtype", &["-i", path, &format!("::/{name}")]) else { return };
            assert!(read == content, "{name}");
        }
        let list = String::from_utf8(told("mdir", &["-i", path, "::/EFI"]).unwrap()).unwrap();
        assert!(list.contains("FIRMWARE") && list.contains("1234-ABCD"), "{list}");
        assert!(list.contains("2024-02-29  12:34") && list.contains("a vendor with a long name"), "{list}");
    }
}

#[test]
fn each_file_lies_in_one_run_that_is_told() {
    let image = volume(Bytes::mib(64));
    assert_eq!(image.files.len(), files().len());
    for (name, content) in files() {
        let range = image.files[name];
        assert_eq!(range.len().0, content.len() as u64, "{name}");
        let mut bytes = vec![0; content.len()];
        image.disk.read_at(range.start(), &mut bytes).unwrap();
        assert!(bytes == content, "{name}");
    }
}

#[test]
fn same_input_same_bytes_and_another_time_other_bytes() {
    let one = read_all(&*volume(Bytes::mib(40)).disk).unwrap();
    assert!(one == read_all(&*volume(Bytes::mib(40)).disk).unwrap());
    for change in [
        |o: &mut FatOptions| o.time += 2,
        |o: &mut FatOptions| o.serial += 1,
        |o: &mut FatOptions| o.hidden_sectors += 1,
        |o: &mut FatOptions| o.label = "other".into(),
    ] {
        let mut options = options(Bytes::mib(40));
        change(&mut options);
        let mut volume = FatVolume::new(options).unwrap();
        for (path, content) in files() {
            volume.file(path, content).unwrap();
        }
        assert!(one != read_all(&*volume.finish().unwrap().disk).unwrap());
    }
}

#[test]
fn a_large_volume_costs_what_it_holds() {
    let content: u64 = files().iter().map(|(_, content)| content.len() as u64).sum();
    for size in [Bytes::mib(256), Bytes::gib(64)] {
        let image = volume(size);
        assert_eq!(image.disk.size(), size);
        // Zeros inside of a file are not kept either.
        assert!(stored(&*image.disk) < content, "{}", stored(&*image.disk));
    }
}

#[test]
fn times_before_fat_and_no_label() {
    let options = FatOptions { time: 0, label: String::new(), ..options(Bytes::mib(40)) };
    let mut volume = FatVolume::new(options).unwrap();
    volume.file("x", vec![1]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), &volume.finish().unwrap());
    let path = path.to_str().unwrap();
    let Some(list) = told("mdir", &["-i", path, "::/"]) else { return };
    let list = String::from_utf8(list).unwrap();
    assert!(list.contains("has no label") && list.contains("1980-01-01   0:00"), "{list}");
    told("fsck.fat", &["-n", path]);
}

#[test]
fn what_cannot_be_is_refused() {
    let kind = |options: FatOptions| {
        FatVolume::new(options).and_then(FatVolume::finish).map(drop).map_err(|e| e.kind())
    };
    // Below 4085 clusters of 512 bytes, with the tables.
    assert_eq!(kind(options(Bytes::mib(1))), Err(Kind::Refused));
    assert_eq!(kind(options(Bytes::mib(4))), Ok(()));
    assert_eq!(kind(options(Bytes(Bytes::mib(33).0 - 512))), Ok(()));
    assert_eq!(kind(options(Bytes::mib(33))), Ok(()));
    assert_eq!(kind(options(Bytes(2 << 40))), Err(Kind::Refused));
    assert_eq!(kind(options(Bytes((2 << 40) - 512))), Ok(()));
    assert_eq!(kind(options(Bytes(Bytes::mib(40).0 + 1))), Err(Kind::Refused));
    assert_eq!(kind(options(Bytes(0))), Err(Kind::Refused));
    for label in ["twelve chars", "a/b", "Größe", " x"] {
        assert_eq!(
            kind(FatOptions { label: label.into(), ..options(Bytes::mib(40)) }),
            Err(Kind::Refused),
            "{label}"
        );
    }
    let with = |paths: &[&str]| {
        let mut volume = FatVolume::new(options(Bytes::mib(40))).unwrap();
        paths.iter().try_for_each(|path| volume.file(path, vec![1]))?;
        volume.finish()
    };
    for paths in [
        &["a", "a"][..],
        &["a", "A"],
        &["EFI/x", "efi/y"],
        &["a", "a/b"],
        &["a/b", "a"],
        &["a//b"],
        &["/a"],
        &["a/"],
        &[""],
        &["a/../b"],
        &["."],
        &["a:b"],
        &["a\0b"],
        &["a "],
    ] {
        assert_eq!(with(paths).map(drop).map_err(|e| e.kind()), Err(Kind::Refused), "{paths:?}");
    }
    let name = "n".repeat(255);
    assert_eq!(with(&[&name]).unwrap().files.len(), 1);
    assert_eq!(with(&[&(name + "n")]).unwrap_err().kind(), Kind::Refused);
}

#[test]
fn a_volume_can_be_filled_to_its_last_cluster_and_no_further() {
    let size = Bytes(Bytes::mib(40).0 + 7 * 512);
    let empty = FatVolume::new(options(size)).unwrap().finish().unwrap();
    let mut boot = [0; 512];
    empty.disk.read_at(GuestOffset(0), &mut boot).unwrap();
    let table = u32::from_le_bytes(boot[36..40].try_into().unwrap());
    let reserved = u32::from(u16::from_le_bytes([boot[14], boot[15]]));
    let all = u32::try_from(size.0 / 512).unwrap();
    // The clusters are sectors here; one is the root folder's.
    assert_eq!(boot[13], 1);
    let free = usize::try_from((all - reserved - 2 * table - 1) * 512).unwrap();
    let with = |length: usize| {
        let mut volume = FatVolume::new(options(size)).unwrap();
        volume.file("x", noise_bytes(1, length)).unwrap();
        volume.finish()
    };
    let full = with(free).unwrap();
    assert_eq!(full.files["x"].end().0, size.0);
    assert!(read_all(&*full.disk).unwrap().ends_with(&noise_bytes(1, free)));
    let folder = tempfile::tempdir().unwrap();
    told("fsck.fat", &["-n", file(folder.path(), &full).to_str().unwrap()]);
    assert_eq!(with(free + 1).unwrap_err().kind(), Kind::Refused);
}
