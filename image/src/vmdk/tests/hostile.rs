//! Damaged and forged images: no panic, no hang, no memory beyond the limits, and no wrong byte in silence where
//! the format allows to notice.

use super::build::{self, SECTOR, descriptor, guest, put, put32, put64};
use super::open;
use crate::Kind;
use crate::disk::{Disk, ExtentKind};
use crate::formats::{Format, OpenOptions};
use crate::units::{GuestOffset, GuestRange};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Reads what a careless caller would: the map, and some of what it says is there.
fn exercise(disk: &dyn Disk) -> crate::Result<()> {
    let mut buf = vec![0; 64 << 10];
    let size = disk.size().0;
    let mut here = 0;
    for _ in 0..200 {
        for extent in disk.extents(GuestRange::between(GuestOffset(here), GuestOffset(size)), 50)? {
            assert_eq!(extent.range.start().0, here);
            assert!(!extent.range.is_empty() && extent.range.end().0 <= size);
            here = extent.range.end().0;
            let len = usize::try_from(extent.range.len().0).unwrap_or(usize::MAX).min(buf.len());
            disk.read_at(extent.range.start(), &mut buf[..len])?;
            if extent.kind != ExtentKind::Data {
                assert!(buf[..len].iter().all(|&byte| byte == 0));
            }
        }
    }
    Ok(())
}

fn whole(path: &Path) -> crate::Result<Vec<u8>> {
    // The format was recorded when the image arrived: a damaged magic does not make it raw.
    let options = OpenOptions { format: Some(Format::Vmdk), ..OpenOptions::default() };
    let image = crate::formats::open(path, &options)?;
    let mut out = vec![0; usize::try_from(image.disk.size().0).unwrap_or(usize::MAX).min(8 << 20)];
    image.disk.read_at(GuestOffset(0), &mut out)?;
    Ok(out)
}

/// True for most bytes inside long runs of zeros, where each is like its neighbours.
fn dull(bytes: &[u8], at: usize) -> bool {
    !at.is_multiple_of(509)
        && bytes[at.saturating_sub(16)..(at + 16).min(bytes.len())].iter().all(|&byte| byte == 0)
}

/// Each of the small images: the file to open, the file to damage, its bytes.
fn images(dir: &Path) -> Vec<(PathBuf, PathBuf, Vec<u8>)> {
    let mut out = Vec::new();
    for (name, bytes) in [("sparse.vmdk", build::sparse()), ("stream.vmdk", build::stream(3))] {
        out.push((dir.join(name), dir.join(name), bytes));
    }
    for (name, kind, bytes, extent) in [
        ("cowd.vmdk", "VMFSSPARSE", build::cowd(&[0, 1, 4, 4095, 4096]), 5000),
        ("sesparse.vmdk", "SESPARSE", build::sesparse(&[0, 1, 4, 4095, 4096], &[(7, 2)]), 40_000),
    ] {
        let data = format!("{name}-data");
        let text = descriptor("x", &format!("RW {extent} {kind} \"{data}\""), "");
        std::fs::write(dir.join(name), text).unwrap();
        out.push((dir.join(name), dir.join(data), bytes));
    }
    for (_, file, bytes) in &out {
        std::fs::write(file, bytes).unwrap();
    }
    out
}

#[test]
fn any_changed_byte_of_the_metadata_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    for (path, damaged, bytes) in images(dir.path()) {
        let file = std::fs::OpenOptions::new().write(true).open(&damaged).unwrap();
        let metadata = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some("sparse") => 24 * SECTOR,
            Some("cowd") => 69 * SECTOR,
            Some("sesparse") => 136 * SECTOR,
            _ => bytes.len(),
        };
        let mut failed = 0;
        for at in 0..metadata {
            if dull(&bytes, at) {
                continue;
            }
            for flip in [0x01, 0xc0] {
                file.write_all_at(&[bytes[at] ^ flip], at as u64).unwrap();
                let result = open(&path).and_then(|image| exercise(&*image.disk));
                failed += usize::from(result.is_err());
            }
            file.write_all_at(&bytes[at..=at], at as u64).unwrap();
        }
        assert!(failed > 200, "{}: only {failed} changes were noticed", path.display());
    }
}

#[test]
fn any_changed_byte_is_survived_by_the_check() {
    let dir = tempfile::tempdir().unwrap();
    for (path, damaged, bytes) in images(dir.path()) {
        let file = std::fs::OpenOptions::new().write(true).open(&damaged).unwrap();
        for at in (0..bytes.len()).filter(|&at| !dull(&bytes, at)).step_by(3) {
            for flip in [0x01, 0xc0, 0xff] {
                file.write_all_at(&[bytes[at] ^ flip], at as u64).unwrap();
                let source = crate::Source::open(&path).unwrap();
                let _ = crate::vmdk::check(source, &crate::Gate::own_folder());
            }
            file.write_all_at(&bytes[at..=at], at as u64).unwrap();
        }
    }
}

#[test]
fn no_changed_byte_of_a_stream_passes_as_data() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = build::stream(3);
    let path = dir.path().join("x.vmdk");
    std::fs::write(&path, &bytes).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let wanted = guest();
    for at in 0..bytes.len() {
        if dull(&bytes, at) {
            continue;
        }
        for flip in [0x01, 0x10] {
            file.write_all_at(&[bytes[at] ^ flip], at as u64).unwrap();
            if let Ok(read) = whole(&path) {
                let clears_an_entry = read.len() == wanted.len()
                    && read
                        .chunks(4096)
                        .zip(wanted.chunks(4096))
                        .all(|(a, b)| a == b || a.iter().all(|&x| x == 0));
                // An entry that becomes 0 says "not stored": the format has no second word on that.
                assert!(read == wanted || (clears_an_entry && bytes[at] == flip), "byte {at:#x} ^ {flip:#x}");
            }
        }
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
}

#[test]
fn a_file_cut_anywhere_is_never_read_as_something_else() {
    let dir = tempfile::tempdir().unwrap();
    for (path, damaged, bytes) in images(dir.path()) {
        let wanted = whole(&path).unwrap();
        for len in (0..bytes.len()).rev().filter(|len| len % 256 == 0 || len % 509 == 0) {
            std::fs::OpenOptions::new().write(true).open(&damaged).unwrap().set_len(len as u64).unwrap();
            match whole(&path) {
                // What is missing was padding, or lies behind the end of the disk.
                Ok(read) => assert!(read == wanted, "{} cut at {len}", path.display()),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Corrupt, "{} cut at {len}: {error}", path.display())
                }
            }
        }
    }
}

#[test]
fn limits_hold_one_step_beyond() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vmdk");
    let max_capacity = crate::limits::DISK_SIZE.0 / 512;
    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);
    let cases: &[(&str, Kind, Damage<'_>)] = &[
        ("capacity", Kind::Refused, &|file| put64(file, 12, max_capacity + 1)),
        ("capacity past 2^64 bytes", Kind::Refused, &|file| put64(file, 12, u64::MAX)),
        // 8 sectors a grain, 512 grains a table: 16 TiB need 32 MiB of directory
        ("directory", Kind::Refused, &|file| put64(file, 12, (16 << 40) / 512 + 1)),
        ("grain size 0", Kind::Corrupt, &|file| put64(file, 20, 0)),
        ("grain size 4", Kind::Corrupt, &|file| put64(file, 20, 4)),
        ("grain size 24", Kind::Corrupt, &|file| put64(file, 20, 24)),
        ("grain size 256 MiB", Kind::Corrupt, &|file| put64(file, 20, (256 << 20) / 512)),
        ("grain size 2^63", Kind::Corrupt, &|file| put64(file, 20, 1 << 63)),
        ("entries 0", Kind::Corrupt, &|file| put32(file, 44, 0)),
        ("entries 1024", Kind::Corrupt, &|file| put32(file, 44, 1024)),
        ("entries 2^31", Kind::Corrupt, &|file| put32(file, 44, 1 << 31)),
        ("version 0", Kind::Unsupported, &|file| put32(file, 4, 0)),
        ("unknown feature", Kind::Unsupported, &|file| put32(file, 8, 0x8_0007)),
        ("compression 2", Kind::Unsupported, &|file| put(file, 77, &[2])),
        ("compression without flag", Kind::Corrupt, &|file| put(file, 77, &[1])),
        ("text mode", Kind::Corrupt, &|file| put(file, 73, b"\n \n\n")),
        ("descriptor size", Kind::Refused, &|file| put64(file, 36, (4 << 20) / 512 + 1)),
        ("descriptor place", Kind::Corrupt, &|file| put64(file, 28, u64::MAX)),
        ("descriptor size past 2^64", Kind::Refused, &|file| put64(file, 36, u64::MAX)),
    ];
    for (what, kind, damage) in cases {
        let mut file = build::sparse();
        damage(&mut file);
        std::fs::write(&path, file).unwrap();
        let error = open(&path).err().unwrap_or_else(|| panic!("{what}"));
        assert_eq!(error.kind(), *kind, "{what}: {error}");
    }
    let mut file = build::stream(3);
    put64(&mut file, 20, (4 << 20) / 512);
    let footer = file.len() - 2 * SECTOR;
    put64(&mut file, footer + 20, (4 << 20) / 512);
    std::fs::write(&path, file).unwrap();
    assert_eq!(open(&path).err().unwrap().kind(), Kind::Refused, "compressed grains of 4 MiB");
}

#[test]
fn grain_directories_of_all_extents_share_one_limit() {
    let dir = tempfile::tempdir().unwrap();
    // A sparse file with a legal, empty directory of nearly 32 MiB costs its writer nothing.
    let sectors: u64 = (15 << 40) / 512;
    let mut header = build::sparse();
    header.truncate(SECTOR);
    put64(&mut header, 12, sectors);
    put32(&mut header, 8, 1);
    put64(&mut header, 56, 8);
    let mut extents = String::new();
    for name in ["a", "b"] {
        std::fs::write(dir.path().join(name), &header).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(dir.path().join(name)).unwrap();
        file.set_len(40 << 20).unwrap();
        extents.push_str(&format!("RW {sectors} SPARSE \"{name}\"\n"));
        std::fs::write(dir.path().join("x.vmdk"), descriptor("x", &extents, "")).unwrap();
        let result = open(&dir.path().join("x.vmdk"));
        match name {
            "a" => {
                let image = result.unwrap();
                // 15 TiB of nothing is one extent.
                let all = GuestRange::new(GuestOffset(0), image.disk.size());
                assert_eq!(image.disk.extents(all, 1).unwrap()[0].range, all);
            }
            _ => assert_eq!(result.err().unwrap().kind(), Kind::Refused),
        }
    }
}

#[test]
fn wrong_entries_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vmdk");
    let read = |file: &[u8]| {
        std::fs::write(&path, file).unwrap();
        whole(&path).expect_err("damage is found")
    };
    // A grain behind the end of the file, over the header, over the directory.
    for sector in [100_000, 12, 2] {
        let mut file = build::sparse();
        put32(&mut file, 13 * SECTOR, sector);
        let error = read(&file);
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert!(error.says().contains("grain 0"), "{error}");
    }
    // 1 is zeros only if the header says so.
    let mut file = build::sparse();
    put32(&mut file, 8, 3);
    assert!(read(&file).says().contains("grain 3"));
    // Two grains of a stream exchanged: each inflates well, and is not the one that was asked for.
    let stream = build::stream(3);
    let footer = stream.len() - 2 * SECTOR;
    let directory =
        u32::from_le_bytes(stream[footer + 56..footer + 60].try_into().unwrap()) as usize * SECTOR;
    let table = u32::from_le_bytes(stream[directory..directory + 4].try_into().unwrap()) as usize * SECTOR;
    let mut file = stream.clone();
    put(&mut file, table, &stream[table + 4..table + 8]);
    put(&mut file, table + 4, &stream[table..table + 4]);
    assert!(read(&file).says().contains("marker"), "{}", read(&file));
    // A directory entry that leads to zeros: no grain of that table would be stored.
    let mut file = stream.clone();
    put32(&mut file, directory, table / SECTOR + 1);
    assert!(read(&file).says().contains("no grain table"), "{}", read(&file));
}

#[test]
fn a_grain_that_does_not_inflate_to_its_size_is_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vmdk");
    let stream = build::stream(3);
    let record = |index: usize| {
        let lba = ((index * build::GRAIN) as u64).to_le_bytes();
        let at = (4 * SECTOR..stream.len())
            .step_by(SECTOR)
            .find(|&at| stream[at..at + 8] == lba && stream[at + 8..at + 12] != [0; 4]);
        at.unwrap()
    };
    // The last grain may end where the disk ends, after 3 sectors.
    for (index, len, fits) in [
        (0, 4096, true),
        (0, 4095, false),
        (0, 4097, false),
        (0, 1, false),
        (0, 0, false),
        (599, 4096, true),
        (599, 3 * SECTOR, true),
        (599, 3 * SECTOR - 1, false),
        (599, 4097, false),
    ] {
        let data = build::zlib(&build::grain_content(index, len));
        let mut file = stream.clone();
        let at = record(index);
        put32(&mut file, at + 8, data.len());
        put(&mut file, at + 12, &data);
        std::fs::write(&path, file).unwrap();
        match whole(&path) {
            Ok(read) => assert!(fits && read == guest(), "grain {index} of {len} bytes"),
            Err(error) => {
                assert!(!fits && error.kind() == Kind::Corrupt, "grain {index} of {len} bytes: {error}");
                assert!(error.says().contains(&format!("grain {index}")), "{error}");
            }
        }
    }
}

#[test]
fn compressed_grains_without_markers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vmdk");
    // The plain image, made compressed: each grain is a bare zlib stream in the place of the grain.
    let mut file = build::sparse();
    put32(&mut file, 8, 0x1_0007);
    put(&mut file, 77, &[1]);
    for (place, index) in build::STORED.iter().enumerate() {
        let at = (24 + place * build::GRAIN) * SECTOR;
        file[at..at + 4096].fill(0xee);
        put(&mut file, at, &build::zlib(&build::grain_content(*index, 4096)));
    }
    std::fs::write(&path, &file).unwrap();
    assert!(whole(&path).unwrap() == guest());
    put(&mut file, 24 * SECTOR + 20, &[0x55; 8]);
    std::fs::write(&path, &file).unwrap();
    assert_eq!(whole(&path).unwrap_err().kind(), Kind::Corrupt);
}
