//! What the check finds: nothing in sound images, and each damage by name.

use super::blocks::Numbers;
use super::forge::*;
use super::hostile::write_set;
use super::write::{create, with_blocks, write, write_family};
use crate::check::{Checked, Severity};
use crate::convert::{self, Options};
use crate::corpus;
use crate::create::{CreateOptions, Preallocation};
use crate::error::{Kind, Result};
use crate::formats::{self, Format, OpenOptions};
use crate::gate::Gate;
use crate::source::Source;
use crate::testing::{MemDisk, mixed};
use crate::units::Bytes;
use Severity::{Corrupt, Leak, Note};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use uuid::Uuid;

fn check(path: &Path) -> Result<Checked> {
    crate::vhdx::check(Source::open(path).unwrap(), &Gate::own_folder())
}

/// A file without holes between its structures, so that nothing is lost in it.
fn sound(size: u64, block_size: u64, sector_size: u64) -> Forge {
    let mut forge = Forge::new(size, block_size, sector_size);
    forge.more_regions.push((Uuid::from_u128(0xF111), 2 * MIB, (6 * MIB) as u32, 0));
    forge
}

fn parent() -> Option<Vec<(&'static str, String)>> {
    Some(vec![
        ("parent_linkage", format!("{{{}}}", Uuid::from_u128(7))),
        ("relative_path", ".\\base.vhdx".into()),
    ])
}

/// A dynamic disk of eight blocks, three of them stored.
fn dynamic() -> Forge {
    let mut forge = sound(8 * MIB, MIB, 512);
    for block in [0, 3, 7] {
        forge.put_block(block, FULLY, vec![block as u8; 512]);
    }
    forge
}

/// A differencing disk over eight blocks, with a bitmap.
fn differencing() -> Forge {
    let mut forge = sound(8 * MIB, MIB, 4096);
    forge.parent = parent();
    forge.put_block(1, PARTIALLY, vec![1; 512]);
    forge.put_block(2, FULLY, vec![2; 512]);
    forge.put_bitmap(0, vec![0x55; 64]);
    forge
}

/// The forged file with other bytes in it must have a problem of that severity and those words.
fn finds(forge: &Forge, severity: Severity, words: &str, poke: &[(u64, &[u8])]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhdx");
    forge.write(&path);
    crate::testing::poke(&path, poke);
    check(&path).unwrap().must_say(severity, words);
}

/// The structure of `len` bytes at `at`, changed and with its checksum made right.
fn resealed(forge: &Forge, at: u64, len: usize, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhdx");
    forge.write(&path);
    let mut bytes = vec![0; len];
    File::open(&path).unwrap().read_exact_at(&mut bytes, at).unwrap();
    change(&mut bytes);
    sealed(bytes)
}

#[test]
fn sound_images_have_no_problem() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhdx");
    let mut fixed = sound(2 * MIB + 4096, MIB, 4096);
    fixed.fixed = true;
    for block in 0..3 {
        fixed.put_block(block, FULLY, vec![1]);
    }
    let mut large = sound(9 << 30, 256 * MIB, 512);
    large.parent = parent();
    for (chunk, block) in [(0, 15), (2, 35)] {
        large.put_block(block, PARTIALLY, vec![1]);
        large.put_bitmap(chunk, vec![1]);
    }
    for (forge, allocated) in [
        (dynamic(), 3 * MIB),
        (differencing(), 2 * MIB),
        (sound(64 << 40, 256 * MIB, 4096), 0),
        (fixed, 2 * MIB + 4096),
        (large, 512 * MIB),
    ] {
        forge.write(&path);
        let checked = check(&path).unwrap();
        assert_eq!(checked.counts, [0; 3], "{checked:?}");
        assert_eq!(checked.allocated.0, allocated);
    }
}

#[test]
fn a_damaged_copy_is_noted_and_two_are_an_error() {
    let forge = dynamic();
    let (first, second) = (64 << 10, 128 << 10);
    finds(&forge, Note, "one of the two headers is damaged", &[(first + 100, &[1])]);
    finds(&forge, Note, "one of the two headers is damaged", &[(second, &[1])]);
    finds(&forge, Corrupt, "neither header is valid", &[(first, &[1]), (second, &[1])]);
    let (first, second) = (192 << 10, 256 << 10);
    finds(&forge, Note, "one of the two region tables is damaged", &[(first + 900, &[1])]);
    finds(&forge, Note, "one of the two region tables is damaged", &[(second, &[1])]);
    finds(&forge, Corrupt, "the checksum of the region table", &[(first + 900, &[1]), (second + 900, &[1])]);
    // The region that is not required changes its place, in one table.
    let other = resealed(&forge, second, 64 << 10, |table| table[16 + 64 + 24 + 2] = 0x10);
    finds(&forge, Corrupt, "the two region tables differ", &[(second, &other)]);

    let mut equal = forge.clone();
    equal.sequence_numbers = [5, 5];
    finds(&equal, Note, "both headers have the sequence number 5", &[]);
    let reserved = resealed(&forge, 64 << 10, 4096, |header| header[200] = 1);
    finds(&forge, Note, "reserved bytes of the header", &[(64 << 10, &reserved)]);
    let reserved = resealed(&forge, first, 64 << 10, |table| table[16 + 28 + 1] = 1);
    finds(&forge, Note, "reserved fields of the region table", &[(first, &reserved), (second, &reserved)]);
}

#[test]
fn regions_and_metadata_out_of_place_are_named() {
    let unknown = |at, length: u64| {
        let mut forge = dynamic();
        forge.more_regions.push((Uuid::from_u128(0xF222), at, length as u32, 0));
        forge
    };
    finds(&unknown(METADATA_AT, MIB), Corrupt, "the metadata region at 0x800000 and the region that", &[]);
    finds(&unknown(LOG_AT, MIB), Corrupt, "the log at 0x100000 and the", &[]);
    finds(&unknown(BAT_AT, MIB), Corrupt, "block allocation table at 0x900000", &[]);
    finds(&unknown(dynamic().file_len, MIB), Corrupt, "the file's data ends at", &[]);
    finds(&unknown(dynamic().file_len - MIB, MIB), Corrupt, "into the region that landfall", &[]);
    let mut small = dynamic();
    small.size = 64 << 40;
    small.bat.clear();
    small.write_bat_length = Some(MIB);
    finds(&small, Corrupt, "its region has 1048576", &[]);

    let item = |n: u64| METADATA_AT + 32 + 32 * n;
    // The size's place is that of the parameters.
    finds(&dynamic(), Corrupt, "overlap at 0x10000", &[(item(1) + 16, &[0, 0, 1, 0])]);
    finds(&dynamic(), Corrupt, "not behind the table", &[(item(1) + 16, &[0, 0, 0, 0])]);
    let mut more = dynamic();
    more.more_items.push((Uuid::from_u128(0xABC), 1, vec![1; 100]));
    finds(&more, Corrupt, "not behind the table", &[(item(5) + 16, &[0, 0, 0xff, 0xff])]);
    more.more_items.push((Uuid::from_u128(0xABC), 1, vec![1; 100]));
    finds(&more, Corrupt, "twice", &[]);
    finds(&dynamic(), Note, "reserved fields of the metadata", &[(item(0) + 28, &[1])]);
    finds(&dynamic(), Note, "reserved fields of the metadata", &[(METADATA_AT + 20, &[1])]);
    finds(&dynamic(), Corrupt, "block size", &[(METADATA_AT + (64 << 10), &[1])]);
    let mut nameless = differencing();
    nameless.parent.as_mut().unwrap().pop();
    finds(&nameless, Corrupt, "names no path of the parent", &[]);
}

#[test]
fn each_damage_of_the_block_table_is_named() {
    let entry = |forge: &Forge, index: u64, value: u64| {
        let mut forge = forge.clone();
        forge.bat.insert(index, value);
        forge
    };
    let (disk, child) = (dynamic(), differencing());
    let first = disk.bat[&0] & !7;
    let on = |value| entry(&disk, 1, value);
    finds(&on(FULLY), Corrupt, "block table entry 1: points at 0x0, into the header section", &[]);
    finds(&on(LOG_AT | FULLY), Corrupt, "into the log", &[]);
    finds(&on(METADATA_AT | FULLY), Corrupt, "into the metadata region", &[]);
    finds(&on(BAT_AT | FULLY), Corrupt, "into the block allocation table", &[]);
    finds(&on(first | FULLY), Corrupt, "where another block lies", &[]);
    finds(&on(disk.file_len | FULLY), Corrupt, "the file ends at", &[]);
    finds(&on(!0xf_ffff | FULLY), Corrupt, "the file ends at", &[]);
    finds(&on(4), Corrupt, "its state 4 is reserved", &[]);
    finds(&on(first | PARTIALLY), Corrupt, "partially present, but the disk has no parent", &[]);
    finds(&on(5), Note, "unmapped in the way of the first specification", &[]);
    finds(&on(0x100), Note, "have reserved bits", &[]);
    finds(&on(first | 2), Note, "name a place for what has no content", &[]);
    finds(&on(first), Note, "name a place for what has no content", &[]);
    let mut fixed = disk.clone();
    fixed.fixed = true;
    finds(&fixed, Note, "5242880 bytes of it have no place", &[]);

    // Blocks of two MiB that overlap by half, and one that reaches out of the file with its used part or only behind it.
    let mut wide = sound(7 * MIB, 2 * MIB, 512);
    let at = wide.put_block(0, FULLY, vec![1]);
    wide.put_block(3, FULLY, vec![1]);
    finds(&entry(&wide, 1, (at + MIB) | FULLY), Corrupt, "where another block lies", &[]);
    wide.file_len -= MIB;
    finds(&wide, Note, "whose unused end is not in the file", &[]);
    wide.file_len -= 1;
    finds(&wide, Corrupt, "the file ends at", &[]);

    // Bitmaps.
    let ratio = child.chunk_ratio();
    finds(&entry(&child, ratio, 0), Corrupt, "sector bitmap of the partially present block 1 is not", &[]);
    finds(&entry(&child, ratio, 7), Corrupt, "its state is 7; 0 and 6", &[]);
    finds(&entry(&child, ratio, child.bat[&1] & !7 | 6), Corrupt, "where another block lies", &[]);
    finds(&entry(&child, ratio, child.file_len | 6), Corrupt, "the file ends at", &[]);
    finds(&entry(&child, 20, 6), Note, "stand for what is behind the end of the disk", &[]);
    let mut long = sound(5 << 30, MIB, 512);
    long.put_block(0, FULLY, vec![1]);
    finds(&entry(&long, 4096, long.file_len | 6), Corrupt, "a sector bitmap is present, but", &[]);

    // Space that is lost, and space that a block without content keeps.
    let mut lost = disk.clone();
    lost.bat.remove(&3);
    finds(&lost, Leak, "1048576 bytes of the file are used by nothing", &[]);
    let mut longer = disk.clone();
    longer.file_len += 5000;
    finds(&longer, Leak, "5000 bytes of the file are used by nothing", &[]);
    lost.bat.insert(3, disk.bat[&3] & !7 | 3);
    let dir = tempfile::tempdir().unwrap();
    lost.write(&dir.path().join("x.vhdx"));
    assert_eq!(check(&dir.path().join("x.vhdx")).unwrap().counts, [0; 3]);
}

#[test]
fn a_log_is_applied_before_the_check() {
    let mut forge = dynamic();
    let mut table = vec![0; 4096];
    for (n, at) in [(0, forge.bat[&0]), (3, forge.bat[&3]), (7, forge.bat[&7])] {
        table[8 * n..8 * n + 8].copy_from_slice(&at.to_le_bytes());
    }
    // On the disk, the table has nonsense; the log has what it must be.
    forge.bat.insert(1, FULLY);
    let mut entry = Entry::new(4, 0, vec![Change::Sector(BAT_AT, table)]);
    (entry.flushed, entry.last) = (forge.file_len, forge.file_len);
    forge.log = Some(ring(MIB as usize, &[(0, entry.bytes())]));
    finds(&forge, Note, "the log has 1 entries to be replayed", &[]);
    let mut torn = forge.clone();
    torn.log.as_mut().unwrap()[100] ^= 1;
    finds(&torn, Corrupt, "no valid sequence", &[]);
    let mut cut = forge.clone();
    cut.log_length += 1;
    finds(&cut, Corrupt, "must be whole MiB", &[]);
    entry.flushed += MIB;
    forge.log = Some(ring(MIB as usize, &[(0, entry.bytes())]));
    finds(&forge, Corrupt, "truncated: the log says", &[]);
}

#[test]
fn what_we_write_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhdx");
    let large = MemDisk::new(Bytes(5 << 30)).data(4 << 30, vec![1; 9000]).data((5 << 30) - 1, [1]);
    for disk in [mixed(3, Bytes(67 * MIB + 512)), MemDisk::new(Bytes(512)), large] {
        for (kind, options) in [
            ("vhdx", CreateOptions::default()),
            ("vhdx", with_blocks(1)),
            ("vhdx", with_blocks(32)),
            ("vhdx", with_blocks(256)),
            ("vhdx-fixed", with_blocks(1)),
            ("vhdx-fixed", with_blocks(256)),
            ("vhdx-fixed", CreateOptions { preallocation: Preallocation::Falloc, ..with_blocks(8) }),
        ] {
            write(kind, &path, &disk, &options);
            let checked = check(&path).unwrap();
            assert_eq!(checked.counts, [0; 3], "{kind} {options:?}: {checked:?}");
            std::fs::remove_file(&path).unwrap();
        }
    }
    for block in [1, 2, 64] {
        let dir = tempfile::tempdir().unwrap();
        let (_, child) = write_family(dir.path(), Some(Bytes::mib(block)), true);
        let all = formats::check(&child, &OpenOptions::default()).unwrap();
        assert_eq!(all.len(), 2);
        for (path, _, checked) in all {
            assert_eq!(checked.as_ref().unwrap().counts, [0; 3], "{}: {checked:?}", path.display());
        }
    }
    // Nothing at all, and nothing finished.
    let sink = create("vhdx", &path, Bytes(MIB), &CreateOptions::default()).unwrap();
    convert::convert(&MemDisk::new(Bytes(MIB)), sink, &Options::default()).unwrap();
    assert_eq!(check(&path).unwrap().counts, [0; 3]);
}

#[test]
fn real_images_are_sound() {
    for row in corpus::rows("vhdx") {
        let unpacked = row.unpack();
        for (path, format, checked) in formats::check(&unpacked.path, &OpenOptions::default()).unwrap() {
            let checked = checked.unwrap();
            assert_eq!(format, Format::Vhdx);
            assert_eq!(checked.count(Corrupt), 0, "{}: {checked:?}", row.path);
            let dirty = checked.problems.iter().any(|problem| problem.says.contains("to be replayed"));
            assert_eq!(dirty, row.kind.contains("dirty"), "{}: {checked:?}", row.path);
            let says: Vec<_> = checked.problems.iter().map(|problem| &problem.says).collect();
            eprintln!("{}: {says:?}", path.file_name().unwrap().display());
        }
    }
}

/// What QEMU says of an image: that it is sound, or not. `None` where it is not installed.
fn qemu(folder: &Path, name: &str) -> Option<bool> {
    match Command::new("qemu-img").args(["check", "-f", "vhdx", name]).current_dir(folder).output() {
        Ok(output) => Some(output.status.success()),
        Err(error) => {
            eprintln!("SKIPPED: cannot run qemu-img: {error}");
            None
        }
    }
}

#[test]
fn what_qemu_writes_is_sound_and_what_it_refuses_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhdx");
    for size in [64 << 20, 10_489_344] {
        corpus::write_pattern(&dir.path().join("a.raw"), size);
        for options in [
            "subformat=dynamic,block_size=1M",
            "subformat=dynamic,block_size=256M",
            "subformat=dynamic,block_state_zero=off",
            "subformat=dynamic,log_size=4M",
            "subformat=fixed",
        ] {
            let arguments = ["convert", "-O", "vhdx", "-o", options, "a.raw", "x.vhdx"];
            let Some(_) = corpus::run(dir.path(), "qemu-img", &arguments) else { return };
            let checked = check(&path).unwrap();
            assert_eq!(checked.count(Corrupt), 0, "{options}: {checked:?}");
            eprintln!("{options}: {checked:?}");
        }
    }
    // Entries of the table at random: what QEMU calls unsound, we do.
    let mut numbers = Numbers(5);
    let (mut unsound, mut compared) = (0, 0);
    for _ in 0..150 {
        let mut forge = dynamic();
        let (block, state) = (numbers.next(8), numbers.next(8));
        let place = numbers.next(forge.file_len / MIB + 2) * MIB;
        forge.bat.insert(block, place | state);
        forge.write(&path);
        let Some(is_sound) = qemu(dir.path(), "x.vhdx") else { return };
        let checked = check(&path).unwrap();
        if !is_sound {
            assert!(checked.count(Corrupt) > 0, "entry {block} is {place:#x}, state {state}: {checked:?}");
            unsound += 1;
        }
        compared += 1;
    }
    eprintln!("{unsound} of {compared} are unsound to QEMU");
    assert!(unsound > 10, "{unsound} of {compared}");
}

/// The table of an empty disk of 64 TiB in blocks of 1 MiB is 512 MiB long, beyond what is looked through on opening.
#[test]
fn the_largest_table_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhdx");
    let mut forge = sound(64 << 40, MIB, 512);
    let began = std::time::Instant::now();
    forge.write(&path);
    assert_eq!(check(&path).unwrap().counts, [0; 3]);
    eprintln!("empty: {:?}", began.elapsed());
    // Two far apart that share a place.
    let at = forge.put_block(77, FULLY, vec![1]);
    forge.bat.insert(forge.payload_index((64 << 20) - 1), at | FULLY);
    forge.write(&path);
    let checked = check(&path).unwrap();
    assert_eq!(checked.counts, [0, 0, 1], "{checked:?}");
    assert!(checked.problems[0].says.contains("another block"), "{checked:?}");
    // Millions of errors cost no more than none.
    let file = File::options().write(true).open(&path).unwrap();
    let entries: Vec<u8> = std::iter::repeat_n((at | FULLY).to_le_bytes(), 1 << 20).flatten().collect();
    for n in 0..8 {
        file.write_all_at(&entries, BAT_AT + n * entries.len() as u64).unwrap();
    }
    let began = std::time::Instant::now();
    let checked = check(&path).unwrap();
    eprintln!("8 million entries for one place: {:?}", began.elapsed());
    assert!(checked.count(Corrupt) > 8_000_000);
    assert_eq!(checked.problems.len(), crate::check::PROBLEMS_KEPT);
}

/// A file is as long as its log says: here of many TiB, which few file systems hold.
#[test]
fn the_length_of_the_file_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhdx");
    let check_with = |last: u64| {
        let mut forge = dynamic();
        let mut entry = Entry::new(4, 0, vec![Change::Zero(METADATA_AT + 0x8_0000, 4096)]);
        (entry.flushed, entry.last) = (forge.file_len, last);
        forge.log = Some(ring(MIB as usize, &[(0, entry.bytes())]));
        forge.write(&path);
        check(&path)
    };
    assert_eq!(check_with(crate::limits::OVERLAP_CHECK.0).unwrap().counts, [1, 0, 0]);
    let error = check_with(crate::limits::OVERLAP_CHECK.0 + MIB).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.says().contains("those up to 128.0 TiB are checked"), "{error}");
}

#[test]
fn no_changed_byte_stops_the_check() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path());
    let path = dir.path().join("child.vhdx");
    let before = check(&path).unwrap();
    assert_eq!(before.count(Corrupt), 0, "{before:?}");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let structures: &[(u64, usize, Option<usize>)] = &[
        (64 << 10, 88, Some(4096)),
        (128 << 10, 88, Some(4096)),
        (192 << 10, 112, Some(64 << 10)),
        (256 << 10, 112, Some(64 << 10)),
        (LOG_AT, 136, Some(8192)),
        (METADATA_AT, 32 + 6 * 32, None),
        (METADATA_AT + (64 << 10), 300, None),
        (BAT_AT, 40, None),
        (BAT_AT + 4096 * 8, 8, None),
    ];
    for &(start, len, seal) in structures {
        let mut whole = vec![0; seal.unwrap_or(len)];
        file.read_exact_at(&mut whole, start).unwrap();
        for at in 0..len {
            for change in [1, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                let bytes = if seal.is_some() { sealed(bytes) } else { bytes };
                file.write_all_at(&bytes, start).unwrap();
                let _ = check(&path);
            }
        }
        file.write_all_at(&whole, start).unwrap();
    }
    assert_eq!(check(&path).unwrap(), before);
    for len in (0..std::fs::metadata(&path).unwrap().len()).rev().step_by(100_003) {
        file.set_len(len).unwrap();
        match check(&path) {
            Ok(checked) => assert!(checked.count(Corrupt) > 0, "cut at {len}"),
            Err(error) => panic!("cut at {len}: {error}"),
        }
    }
}
