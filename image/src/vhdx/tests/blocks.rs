//! Block states, sector bitmaps, sector sizes and parents, against a model.

use super::forge::*;
use super::{open, raw};
use crate::corpus;
use crate::error::Kind;
use crate::formats::{self, OpenOptions};
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::path::Path;

/// A small generator of numbers: the same in every run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
    pub fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next(256) as u8).collect()
    }
}

fn parent_of(forge: &Forge, name: &str) -> Option<Vec<(&'static str, String)>> {
    let linkage = format!("{{{}}}", forge.data_write_guid.to_string().to_uppercase());
    Some(vec![
        ("parent_linkage", linkage),
        ("parent_linkage2", "{00000000-0000-0000-0000-000000000000}".into()),
        ("absolute_win32_path", format!("C:\\elsewhere\\{name}")),
        ("relative_path", format!(".\\{name}")),
    ])
}

/// A disk of a few blocks in random states, over `below` where there is a parent; and what it must read as.
fn random_layer(forge: &mut Forge, below: Option<&[u8]>, numbers: &mut Numbers) -> Vec<u8> {
    let (block_size, sector_size, size) = (forge.block_size, forge.sector_size, forge.size);
    let mut model = below.map_or(vec![0; size as usize], <[u8]>::to_vec);
    let mut bitmap = vec![0u8; 1 << 20];
    let mut partial = false;
    for block in 0..size.div_ceil(block_size) {
        let start = (block * block_size) as usize;
        let end = (start + block_size as usize).min(size as usize);
        match numbers.next(if below.is_some() { 9 } else { 7 }) {
            0 => {}
            state @ (1 | 2 | 3 | 5) => {
                // Unmapped blocks may keep an old place.
                let stale = if numbers.next(2) == 0 { 0 } else { 5 * MIB };
                forge.bat.insert(forge.payload_index(block), stale | state);
                model[start..end].fill(0);
            }
            4 | 6 => {
                let content = numbers.bytes(block_size);
                model[start..end].copy_from_slice(&content[..end - start]);
                forge.put_block(block, FULLY, content);
            }
            _ => {
                partial = true;
                let content = numbers.bytes(block_size);
                let mut at = 0;
                while at < block_size {
                    // Runs of any length, single sectors too.
                    let run = 1 << numbers.next(9);
                    let set = numbers.next(2) == 0;
                    for sector in at / sector_size..(at / sector_size + run).min(block_size / sector_size) {
                        let bit = (block * block_size / sector_size + sector) % (1 << 23);
                        if set {
                            bitmap[(bit / 8) as usize] |= 1 << (bit % 8);
                            let from = (sector * sector_size) as usize;
                            let to = (from + sector_size as usize).min(end - start);
                            if from < to {
                                model[start + from..start + to].copy_from_slice(&content[from..to]);
                            }
                        }
                    }
                    at += run * sector_size;
                }
                forge.put_block(block, PARTIALLY, content);
            }
        }
    }
    if partial {
        forge.put_bitmap(0, bitmap);
    }
    model
}

#[test]
fn chains_of_random_blocks_read_as_the_model() {
    let mut numbers = Numbers(1);
    for round in 0..12 {
        let sector_size = if round % 2 == 0 { 512 } else { 4096 };
        let size = 5 * MIB + sector_size * (1 + numbers.next(100));
        let dir = tempfile::tempdir().unwrap();
        let mut base = Forge::new(size, MIB << (round % 3), sector_size);
        let mut model = random_layer(&mut base, None, &mut numbers);
        base.write(&dir.path().join("0.vhdx"));
        let mut below = base;
        for layer in 1..3 {
            let mut child = Forge::new(size, MIB, sector_size);
            child.data_write_guid = uuid::Uuid::from_u128(round << 8 | layer);
            child.parent = parent_of(&below, &format!("{}.vhdx", layer - 1));
            model = random_layer(&mut child, Some(&model), &mut numbers);
            child.write(&dir.path().join(format!("{layer}.vhdx")));
            below = child;
        }
        std::fs::write(dir.path().join("model.raw"), &model).unwrap();
        let image = open(&dir.path().join("2.vhdx"));
        assert_eq!(image.layers.len(), 3);
        assert_eq!(image.layers[0].variant, "differencing");
        assert_eq!(image.disk.sector_size().0, sector_size);
        corpus::assert_same(&*image.disk, &*raw(&dir.path().join("model.raw")), &format!("round {round}"));
    }
}

/// 9 GiB in blocks of 256 MiB are three chunks: each has a bitmap of its own.
#[test]
fn every_chunk_has_its_own_bitmap() {
    let dir = tempfile::tempdir().unwrap();
    let (base_path, child_path) = (dir.path().join("base.vhdx"), dir.path().join("child.vhdx"));
    let mut base = Forge::new(9 << 30, 256 * MIB, 512);
    let mut child = Forge::new(9 << 30, 256 * MIB, 512);
    child.data_write_guid = uuid::Uuid::from_u128(5);
    child.parent = parent_of(&base, "base.vhdx");
    assert_eq!(child.chunk_ratio(), 16);
    for (chunk, block) in [(0, 15), (1, 16), (2, 35)] {
        base.put_block(block, FULLY, vec![0x10 + block as u8; 4096]);
        child.put_block(block, PARTIALLY, vec![0x80 + block as u8; 4096]);
        // The sectors 1 and 3 of the block are the child's.
        let first_bit = block * 256 * MIB / 512 % (1 << 23);
        let mut bits = vec![0; 1 << 20];
        bits[(first_bit / 8) as usize] = 0b1010;
        child.put_bitmap(chunk, bits);
    }
    base.write(&base_path);
    child.write(&child_path);
    let disk = open(&child_path).disk;
    let mut buf = [0; 5 * 512];
    for block in [15, 16, 35] {
        disk.read_at(GuestOffset(block * 256 * MIB), &mut buf).unwrap();
        let sectors: Vec<u8> = buf.chunks(512).map(|sector| sector[0]).collect();
        let (b, c) = (0x10 + block as u8, 0x80 + block as u8);
        assert_eq!(sectors, [b, c, b, c, b], "block {block}");
    }
}

/// 64 TiB in blocks of 1 MiB: a table of 512 MiB that must never be held whole.
#[test]
fn the_largest_table_is_paged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.vhdx");
    let mut forge = Forge::new(64 << 40, MIB, 512);
    for block in [0, 4096, 60 << 20, (64 << 20) - 1] {
        forge.put_block(block, FULLY, vec![0x5A; MIB as usize]);
    }
    forge.write(&path);
    let disk = open(&path).disk;
    let mut stored = Vec::new();
    let mut at = 0;
    while at < disk.size().0 {
        let range = GuestRange::new(GuestOffset(at), Bytes(disk.size().0 - at));
        for extent in disk.extents(range, 64).unwrap() {
            at = extent.range.end().0;
            if extent.kind == crate::ExtentKind::Data {
                stored.push((extent.range.start().0 / MIB, extent.range.len().0 / MIB));
            }
        }
    }
    assert_eq!(stored, [(0, 1), (4096, 1), (60 << 20, 1), ((64 << 20) - 1, 1)]);
    let mut buf = vec![0; 3 * MIB as usize];
    disk.read_at(GuestOffset((60 << 40) - MIB), &mut buf).unwrap();
    assert!(buf.chunks(MIB as usize).map(|mib| mib[77]).eq([0, 0x5A, 0]));
}

#[test]
fn a_wrong_or_absent_parent_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let base = Forge::new(4 * MIB, MIB, 512);
    let mut child = base.clone();
    child.parent = parent_of(&base, "base.vhdx");
    child.write(&path("child.vhdx"));
    let kind = || formats::open(&path("child.vhdx"), &OpenOptions::default()).map(drop).unwrap_err().kind();
    assert_eq!(kind(), Kind::Io, "absent");
    let mut other = base.clone();
    other.data_write_guid = uuid::Uuid::from_u128(1234);
    other.write(&path("base.vhdx"));
    assert_eq!(kind(), Kind::Corrupt, "changed since");
    base.write(&path("base.vhdx"));
    assert_eq!(open(&path("child.vhdx")).layers.len(), 2);

    let refuses = |parent: Vec<(&'static str, String)>| {
        let mut child = child.clone();
        child.parent = Some(parent);
        child.write(&path("child.vhdx"));
        formats::open(&path("child.vhdx"), &OpenOptions::default()).map(drop).unwrap_err().to_string()
    };
    assert!(refuses(vec![("relative_path", ".\\base.vhdx".into())]).contains("parent_linkage"));
    assert!(refuses(vec![("parent_linkage", "{x}".into())]).contains("not a GUID"));
    let linkage = format!("{{{}}}", base.data_write_guid);
    assert!(refuses(vec![("parent_linkage", linkage.clone())]).contains("names none"));
    // A path that leads out of the folder is not followed, but the file of that name in the folder is found.
    let mut moved = child.clone();
    moved.parent = Some(vec![
        ("parent_linkage", linkage.clone()),
        ("relative_path", "..\\..\\golden\\base.vhdx".into()),
    ]);
    moved.write(&path("child.vhdx"));
    assert_eq!(open(&path("child.vhdx")).layers.len(), 2);
    assert!(
        refuses(vec![("parent_linkage", linkage), ("absolute_win32_path", "\\\\?\\C:\\etc\\passwd".into())])
            .contains("passwd")
    );
}

fn refused(forge: &Forge) -> crate::Error {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhdx");
    forge.write(&path);
    let check = |path: &Path| -> crate::Result<()> {
        let image = formats::open(path, &OpenOptions::default())?;
        image.disk.read_at(GuestOffset(0), &mut vec![0; image.disk.size().0.min(8 * MIB) as usize])
    };
    let error = check(&path).unwrap_err();
    assert_eq!(error.path(), Some(path.as_path()), "{error}");
    error
}

#[test]
fn entries_that_cannot_be_are_refused() {
    let base = Forge::new(4 * MIB, MIB, 512);
    let first = base.file_len;
    let entry = |value: u64| {
        let mut forge = base.clone();
        forge.put_block(0, FULLY, vec![1]);
        forge.bat.insert(1, value);
        let error = refused(&forge);
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert_eq!(error.offset(), Some(crate::FileOffset(BAT_AT + 8)), "{error}");
        error.to_string()
    };
    assert!(entry(FULLY).contains("header section"));
    assert!(entry(LOG_AT | FULLY).contains("into the log"));
    assert!(entry(METADATA_AT | FULLY).contains("metadata"));
    assert!(entry(BAT_AT | FULLY).contains("block allocation table"));
    assert!(entry((first + MIB) | FULLY).contains("the file ends at"));
    assert!(entry(!0xf_ffff | FULLY).contains("the file ends at"));
    assert!(entry(first | FULLY).contains("another block"));
    assert!(entry(4).contains("reserved"));
    assert!(entry(first | PARTIALLY).contains("no parent"));

    // A partially present block without its bitmap.
    let mut child = base.clone();
    child.parent = parent_of(&base, "base.vhdx");
    child.put_block(0, PARTIALLY, vec![1]);
    let dir = tempfile::tempdir().unwrap();
    base.write(&dir.path().join("base.vhdx"));
    child.write(&dir.path().join("child.vhdx"));
    let error = open(&dir.path().join("child.vhdx")).disk.read_at(GuestOffset(0), &mut [0; 8]).unwrap_err();
    assert!(error.to_string().contains("sector bitmap"), "{error}");
}

#[test]
fn metadata_and_regions_that_cannot_be_are_refused() {
    let says = |change: &dyn Fn(&mut Forge)| {
        let mut forge = Forge::new(4 * MIB, MIB, 512);
        change(&mut forge);
        let error = refused(&forge);
        (error.kind(), error.to_string())
    };
    let unknown = uuid::Uuid::from_u128(0xBAD);
    type Case<'a> = (&'a dyn Fn(&mut Forge), Kind, &'a str);
    let cases: &[Case] = &[
        (&|f| f.size = 4 * MIB + 1, Kind::Corrupt, "virtual disk size"),
        (&|f| f.size = 0, Kind::Corrupt, "virtual disk size"),
        (&|f| f.size = crate::limits::VHDX_SIZE.0 + 512, Kind::Corrupt, "virtual disk size"),
        (&|f| f.block_size = MIB / 2, Kind::Corrupt, "block size"),
        (&|f| f.block_size = 3 * MIB, Kind::Corrupt, "block size"),
        (&|f| f.block_size = 512 * MIB, Kind::Corrupt, "block size"),
        (&|f| f.sector_size = 1024, Kind::Corrupt, "sector size"),
        (&|f| f.more_items.push((unknown, 4, vec![1])), Kind::Unsupported, "metadata item"),
        (&|f| f.more_regions.push((unknown, 7 * MIB, MIB as u32, 1)), Kind::Unsupported, "region"),
        (&|f| f.more_regions.push((unknown, BAT_AT, MIB as u32, 0)), Kind::Corrupt, "overlap"),
        (&|f| f.more_regions.push((unknown, LOG_AT, MIB as u32, 0)), Kind::Corrupt, "overlap"),
        (&|f| f.more_regions.push((unknown, 7 * MIB + 4096, MIB as u32, 0)), Kind::Corrupt, "whole MiB"),
        (&|f| f.more_regions.push((unknown, 0, MIB as u32, 0)), Kind::Corrupt, "whole MiB"),
    ];
    for (n, (change, kind, word)) in cases.iter().enumerate() {
        let (is, says) = says(change);
        assert!(is == *kind && says.contains(word), "{n}: {is:?} {says}");
    }
    // What need not be understood is passed over.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhdx");
    let mut forge = Forge::new(4 * MIB, MIB, 512);
    forge.more_items.push((unknown, 0, vec![1]));
    forge.more_regions.push((unknown, 7 * MIB, MIB as u32, 0));
    forge.write(&path);
    open(&path);
}

#[test]
fn one_damaged_copy_is_survived_and_two_are_not() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhdx");
    let mut forge = Forge::new(4 * MIB, MIB, 512);
    forge.put_block(0, FULLY, vec![7; 512]);
    let mut check = |sequence_numbers, damaged: &[u64], survives: bool| {
        forge.sequence_numbers = sequence_numbers;
        forge.write(&path);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        for at in damaged {
            file.write_all_at(&[0xEE], *at).unwrap();
        }
        let opened = formats::open(&path, &OpenOptions::default());
        assert_eq!(opened.is_ok(), survives, "{damaged:x?}");
        match opened {
            Ok(image) => {
                let mut byte = [0];
                image.disk.read_at(GuestOffset(0), &mut byte).unwrap();
                assert_eq!(byte, [7]);
            }
            Err(error) => assert_eq!(error.kind(), Kind::Corrupt, "{error}"),
        }
    };
    let (h1, h2, r1, r2) = (0x10100, 0x20100, 0x30100, 0x40100);
    check([1, 2], &[h1, r1], true);
    check([2, 1], &[h2, r2], true);
    check([1, 2], &[h2, r1], true);
    check([1, 2], &[h1, h2], false);
    check([1, 2], &[r1, r2], false);
    check([3, 3], &[], true); // two equal headers, as disk2vhd writes them
}
