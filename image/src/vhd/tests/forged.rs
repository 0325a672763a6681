//! Bitmaps, parents, footers and hostile bytes, against a model.

use super::forge::*;
use super::open;
use crate::corpus;
use crate::error::Kind;
use crate::formats::{self, Format, OpenOptions};
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

fn error(path: &Path) -> crate::Error {
    let options = OpenOptions { format: Some(Format::Vhd), ..OpenOptions::default() };
    let error = formats::open(path, &options).map(drop).unwrap_err();
    assert!(error.path().is_some(), "{error}");
    error
}

/// Small numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Random blocks with random bitmaps over `model`, which becomes what the disk must read as.
fn random_layer(forge: &mut Forge, model: &mut [u8], numbers: &mut Numbers) {
    let block_size = forge.block_size as usize;
    // Scattered over the file, as blocks come in when they are written.
    let mut blocks: Vec<usize> = (0..forge.bat.len()).collect();
    for n in 0..blocks.len() {
        let other = numbers.next(blocks.len() as u64) as usize;
        blocks.swap(n, other);
    }
    for block in blocks {
        let kind = numbers.next(4);
        if kind == 0 {
            continue;
        }
        let mut bitmap = vec![if kind == 1 { 0xFF } else { 0 }; block_size / 512 / 8];
        let content: Vec<u8> = (0..block_size).map(|_| numbers.next(256) as u8).collect();
        if kind > 1 {
            for byte in &mut bitmap {
                *byte =
                    if numbers.next(2) == 0 { numbers.next(256) as u8 } else { 0xFF * numbers.next(2) as u8 };
            }
        }
        for sector in 0..block_size / 512 {
            let at = block * block_size + sector * 512;
            if bitmap[sector / 8] & (0x80 >> (sector % 8)) != 0 && at < model.len() {
                model[at..at + 512].copy_from_slice(&content[sector * 512..(sector + 1) * 512]);
            }
        }
        forge.put_block(block, bitmap, content);
    }
}

#[test]
fn chains_of_random_blocks_read_as_the_model() {
    let mut numbers = Numbers(1);
    for (round, block_size) in [2 << 20, 512 << 10, 4096, 2 << 20].into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let size = 5 * MIB + 512 * (1 + numbers.next(100));
        let mut model = vec![0; size as usize];
        let mut below: Option<Forge> = None;
        for layer in 0..3u8 {
            let mut forge = Forge::new(size, block_size);
            forge.id = [layer + 1; 16];
            if let Some(below) = below {
                forge.parent = Some(below.id);
                let name = format!("{}.vhd", layer - 1);
                forge.locators = match round {
                    0 => vec![
                        (*b"W2ku", utf16_le(&format!("C:\\x\\{name}"))),
                        (*b"W2ru", utf16_le(&format!(".\\{name}"))),
                    ],
                    1 => vec![(*b"W2ku", utf16_le(&format!("C:\\x\\{name}")))],
                    2 => vec![(*b"MacX", format!("file://./{name}\0").into_bytes())],
                    _ => vec![],
                };
                forge.parent_name = if round == 3 { name } else { "elsewhere.vhd".into() };
            }
            random_layer(&mut forge, &mut model, &mut numbers);
            forge.write(&dir.path().join(format!("{layer}.vhd")));
            below = Some(forge);
        }
        std::fs::write(dir.path().join("model.raw"), &model).unwrap();
        let image = open(&dir.path().join("2.vhd"));
        assert_eq!(image.layers.len(), 3);
        let options = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
        let model = formats::open(&dir.path().join("model.raw"), &options).unwrap().disk;
        corpus::assert_same(&*image.disk, &*model, &format!("round {round}"));
    }
}

#[test]
fn a_wrong_or_absent_parent_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut base = Forge::new(4 * MIB, 2 << 20);
    let mut child = base.clone();
    (child.id, child.parent) = ([9; 16], Some(base.id));
    child.locators = vec![(*b"W2ru", utf16_le(".\\base.vhd"))];
    child.write(&path("child.vhd"));
    assert_eq!(error(&path("child.vhd")).kind(), Kind::Io, "absent");
    base.id = [1; 16];
    base.write(&path("base.vhd"));
    assert_eq!(error(&path("child.vhd")).kind(), Kind::Corrupt, "another");
    base.id = child.parent.unwrap();
    base.write(&path("base.vhd"));
    assert_eq!(open(&path("child.vhd")).layers.len(), 2);
    // A path out of the folder is not followed.
    child.locators = vec![(*b"W2ru", utf16_le("..\\..\\..\\etc\\hostname"))];
    child.write(&path("child.vhd"));
    assert_eq!(error(&path("child.vhd")).kind(), Kind::Refused);
    child.locators = vec![(*b"W2ru", vec![0x41; 2 * crate::limits::NAME.0 as usize + 2])];
    child.write(&path("child.vhd"));
    assert_eq!(error(&path("child.vhd")).kind(), Kind::Refused);
    child.locators.clear();
    child.write(&path("child.vhd"));
    assert!(error(&path("child.vhd")).to_string().contains("names none"));
}

#[test]
fn the_footer_is_found_where_it_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhd");
    let fixed = footer(MIB, *b"win ", 2, u64::MAX, [5; 16]);
    // A guest that writes a dynamic disk's footer into its first sector changes nothing.
    let mut content = vec![0x42; MIB as usize];
    content[..512].copy_from_slice(&footer(64 * MIB, *b"win ", 4, 512, [6; 16]));
    for length in [512, 511] {
        std::fs::write(&path, [&content[..], &fixed[..length]].concat()).unwrap();
        let image = open(&path);
        assert_eq!((image.layers[0].variant.as_str(), image.disk.size().0), ("fixed", MIB));
        let mut found = vec![0; MIB as usize];
        image.disk.read_at(GuestOffset(0), &mut found).unwrap();
        assert!(found == content);
    }
    // Too short for its size; more than its size is no harm.
    std::fs::write(&path, [&content[512..], &fixed[..]].concat()).unwrap();
    assert!(error(&path).to_string().contains("truncated"));
    std::fs::write(&path, [&content[..], &[0; 512], &fixed[..]].concat()).unwrap();
    assert_eq!(open(&path).disk.size().0, MIB);

    // A dynamic disk survives one damaged footer, not two.
    let mut forge = Forge::new(4 * MIB, 2 << 20);
    forge.put_block(1, vec![0xFF; 512], vec![7; 2 << 20]);
    let check = |damaged: &[u64], survives: bool| {
        forge.write(&path);
        let file = File::options().write(true).open(&path).unwrap();
        for at in damaged {
            file.write_all_at(&[0xEE], *at).unwrap();
        }
        if !survives {
            assert_eq!(error(&path).kind(), Kind::Corrupt);
            return;
        }
        let mut byte = [0];
        open(&path).disk.read_at(GuestOffset(2 * MIB), &mut byte).unwrap();
        assert_eq!(byte, [7]);
    };
    let (copy, last) = (50, forge.file_len + 50);
    check(&[copy], true);
    check(&[last], true);
    check(&[copy, last], false);
    check(&[512 + 50], false); // the dynamic header has no copy
    // The cookie of the last one gone, too.
    check(&[last - 50], true);
}

#[test]
fn tables_and_entries_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhd");
    let says = |change: &dyn Fn(&mut Forge)| {
        let mut forge = Forge::new(8 * MIB, 2 << 20);
        forge.put_block(0, vec![0xFF; 512], vec![1; 2 << 20]);
        forge.put_block(1, vec![0xFF; 512], vec![2; 2 << 20]);
        change(&mut forge);
        forge.write(&path);
        let error = error(&path);
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        error.to_string()
    };
    assert!(says(&|f| f.max_table_entries = 0x4000_0001).contains("at most 1048576"));
    assert!(says(&|f| f.max_table_entries = (1 << 20) + 1).contains("at most"));
    assert!(says(&|f| (f.block_size, f.max_table_entries) = (512, 0x4000_0001)).contains("at most"));
    assert!(says(&|f| f.max_table_entries = 3).contains("needs 4"));
    assert!(says(&|f| f.block_size = 3 << 20).contains("power of two"));
    assert!(says(&|f| f.block_size = 256).contains("power of two"));
    assert!(says(&|f| f.size += 1).contains("current size"));
    assert!(says(&|f| (f.size, f.max_table_entries) = (1 << 40, 1 << 20)).contains("block table"));
    assert!(says(&|f| f.bat[2] = 0).contains("copy of the footer"));
    assert!(says(&|f| f.bat[2] = 1).contains("dynamic header"));
    assert!(says(&|f| f.bat[2] = 3).contains("block table"));
    assert!(says(&|f| f.bat[2] = f.bat[0]).contains("into block"));
    assert!(says(&|f| f.bat[2] = f.bat[0] + 1).contains("into block"));
    assert!(says(&|f| f.bat[2] = f.bat[1] + 4097).contains("the file's data ends"));
    assert!(says(&|f| f.bat[2] = UNUSED - 1).contains("the file's data ends"));
}

/// Opens the image and reads around in it, bounded.
fn try_all(path: &Path) -> crate::Result<Vec<u8>> {
    let options = OpenOptions { format: Some(Format::Vhd), ..OpenOptions::default() };
    let disk = formats::open(path, &options)?.disk;
    let size = disk.size().0;
    let mut at = 0;
    for _ in 0..100 {
        if at >= size {
            break;
        }
        for extent in disk.extents(GuestRange::new(GuestOffset(at), Bytes(size - at)), 50)? {
            assert_eq!(extent.range.start().0, at);
            assert!(!extent.range.is_empty());
            at = extent.range.end().0;
        }
    }
    let mut buf = vec![0; 64 << 10];
    for (n, part) in buf.chunks_mut(32 << 10).enumerate() {
        let len = (part.len() as u64).min(size) as usize;
        disk.read_at(GuestOffset((n as u64 * 2 * MIB).min(size - len as u64)), &mut part[..len])?;
    }
    Ok(buf)
}

pub fn write_set(folder: &Path) -> Forge {
    let mut base = Forge::new(4 * MIB, 2 << 20);
    base.put_block(0, vec![0xFF; 512], vec![0x11; 2 << 20]);
    base.write(&folder.join("base.vhd"));
    let mut child = Forge::new(4 * MIB, 2 << 20);
    (child.id, child.parent) = ([9; 16], Some(base.id));
    child.locators = vec![(*b"W2ru", utf16_le(".\\base.vhd"))];
    child.put_block(1, vec![0xFF; 512], vec![0x22; 2 << 20]);
    child.put_block(0, vec![0x5A; 512], vec![0x33; 2 << 20]);
    child.write(&folder.join("child.vhd"));
    child
}

#[test]
fn no_changed_byte_brings_it_down() {
    let dir = tempfile::tempdir().unwrap();
    let forge = write_set(dir.path());
    let path = dir.path().join("child.vhd");
    let right = try_all(&path).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    // Place, bytes that are changed, length and place of the checksum.
    type Structure = (u64, usize, Option<(usize, usize)>);
    let structures: &[Structure] = &[
        (0, 90, Some((512, 64))),
        (forge.file_len, 90, Some((512, 64))),
        (512, 66, Some((1024, 36))),
        (512 + 576, 48, None),
        (TABLE_AT, 8, None),
        (TABLE_AT + 512, 24, None),
        (u64::from(forge.bat[0]) * 512, 16, None),
    ];
    for &(start, len, sum) in structures {
        let mut whole = vec![0; sum.map_or(len, |(covered, _)| covered)];
        file.read_exact_at(&mut whole, start).unwrap();
        for at in 0..len {
            for change in [|b: u8| b ^ 1, |b: u8| b ^ 0x80, |b: u8| !b, |_| 0xFF] {
                for seal in [false, true] {
                    let mut bytes = whole.clone();
                    bytes[at] = change(bytes[at]);
                    match sum {
                        Some((_, at)) if seal => bytes = sealed(bytes, at),
                        None if seal => continue,
                        _ => {}
                    }
                    file.write_all_at(&bytes, start).unwrap();
                    match try_all(&path) {
                        Ok(found) if sum.is_some() && !seal => {
                            assert!(found == right, "byte {at} of {start:#x}")
                        }
                        Ok(_) => {}
                        Err(error) => assert_ne!(error.kind(), Kind::Interrupted, "{error}"),
                    }
                }
            }
        }
        file.write_all_at(&whole, start).unwrap();
    }
    assert!(try_all(&path).unwrap() == right);
}

#[test]
fn a_cut_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let forge = write_set(dir.path());
    let path = dir.path().join("child.vhd");
    let right = try_all(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let mut cuts: Vec<u64> = (0..=forge.file_len + 511).step_by(100_003).collect();
    for edge in [0, 8, 511, 512, 1536, 1544, 2048, forge.file_len, forge.file_len + 511] {
        cuts.extend([edge, edge + 1, edge.saturating_sub(1)]);
    }
    cuts.retain(|cut| *cut < forge.file_len + 512);
    cuts.sort_unstable();
    for cut in cuts.into_iter().rev() {
        file.set_len(cut).unwrap();
        match try_all(&path) {
            Ok(found) => assert!(found == right && cut >= forge.file_len, "cut at {cut}"),
            Err(error) => assert_eq!(error.kind(), Kind::Corrupt, "cut at {cut}: {error}"),
        }
    }
}
