//! What the check finds: nothing in sound images, and each damage by name.

use super::forge::*;
use super::forged::write_set;
use super::write::{create, write};
use crate::check::{Checked, Severity};
use crate::convert::{self, Options};
use crate::corpus;
use crate::create::{Base, CreateOptions, Preallocation};
use crate::error::{Kind, Result};
use crate::formats::{self, Format, OpenOptions};
use crate::gate::Gate;
use crate::source::Source;
use crate::testing::{MemDisk, mixed, noise_bytes};
use crate::units::Bytes;
use Severity::{Corrupt, Leak, Note};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const BLOCK: u64 = 2 * MIB;

fn check(path: &Path) -> Result<Checked> {
    crate::vhd::check(Source::open(path).unwrap(), &Gate::own_folder())
}

/// A dynamic disk of four blocks, two of them stored, of a size that a geometry can express.
fn dynamic() -> Forge {
    let mut forge = Forge::new(SIZE, BLOCK as u32);
    for block in [2, 0] {
        forge.put_block(block, vec![0xff; 512], vec![1; BLOCK as usize]);
    }
    forge
}

/// 204 cylinders, 4 heads, 17 sectors.
const SIZE: u64 = 204 * 4 * 17 * 512;

fn differencing() -> Forge {
    let mut forge = dynamic();
    forge.parent = Some([9; 16]);
    forge.parent_name = "base.vhd".into();
    forge.locators = vec![(*b"W2ru", utf16_le(".\\base.vhd")), (*b"W2ku", utf16_le("C:\\x\\base.vhd"))];
    forge
}

/// The forged file with other bytes in it must have a problem of that severity and those words.
fn finds(forge: &Forge, severity: Severity, words: &str, poke: &[(u64, &[u8])]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhd");
    forge.write(&path);
    crate::testing::poke(&path, poke);
    check(&path).unwrap().must_say(severity, words);
}

/// The footer with a change, and its checksum made right.
fn footer_with(forge: &Forge, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut footer = forge.footer();
    change(&mut footer);
    sealed(footer, 64)
}

#[test]
fn sound_images_have_no_problem() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhd");
    let small = Forge::new(SIZE, 512 << 10);
    for (forge, allocated) in [(dynamic(), 2 * BLOCK), (differencing(), 2 * BLOCK), (small, 0)] {
        forge.write(&path);
        let checked = check(&path).unwrap();
        assert_eq!(checked.counts, [0; 3], "{checked:?}");
        assert_eq!(checked.allocated.0, allocated);
    }
    // Of the last block, what belongs to the disk.
    let mut last = Forge::new(SIZE, BLOCK as u32);
    last.put_block(3, vec![0xff; 512], vec![1; BLOCK as usize]);
    last.write(&path);
    assert_eq!(check(&path).unwrap().allocated.0, SIZE - 3 * BLOCK);
    // A fixed disk.
    let fixed = footer(SIZE, *b"win ", 2, u64::MAX, [5; 16]);
    for length in [512, 511] {
        std::fs::write(&path, [&vec![1; SIZE as usize][..], &fixed[..length]].concat()).unwrap();
        let checked = check(&path).unwrap();
        assert_eq!((checked.counts, checked.allocated.0), ([0; 3], SIZE), "{checked:?}");
    }
}

#[test]
fn each_damage_of_a_footer_is_named() {
    let forge = dynamic();
    let end = forge.file_len;
    finds(&forge, Note, "the copy of the footer at the start is damaged", &[(100, &[1])]);
    finds(&forge, Note, "the copy of the footer at the start is damaged", &[(0, &[1])]);
    finds(&forge, Corrupt, "there is no valid footer at the end", &[(end, &[1])]);
    finds(&forge, Corrupt, "there is no valid footer at the end", &[(end + 100, &[1])]);
    finds(&forge, Corrupt, "checksum of the footer", &[(100, &[1]), (end + 100, &[1])]);
    let other = footer_with(&forge, |footer| footer[70] ^= 1);
    finds(&forge, Corrupt, "differ in what they say of the disk", &[(0, &other)]);
    let later = footer_with(&forge, |footer| footer[25] ^= 1);
    finds(&forge, Note, "differ, but not in what they say", &[(0, &later)]);
    let both = |change: &dyn Fn(&mut [u8]), words| {
        let footer = footer_with(&forge, change);
        finds(&forge, Note, words, &[(0, &footer), (end, &footer)]);
    };
    both(&|footer| footer[11] = 0, "reserved fields of the footer");
    both(&|footer| footer[300] = 1, "reserved fields of the footer");
    both(&|footer| footer[84] = 1, "suspended");
    both(&|footer| footer[58] = 5, "the geometry is 204 cylinders, 5 heads");
    let most = footer_with(&forge, |footer| footer[56..60].copy_from_slice(&[0xff, 0xff, 16, 255]));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhd");
    forge.write(&path);
    let file = File::options().write(true).open(&path).unwrap();
    for at in [0, end] {
        file.write_all_at(&most, at).unwrap();
    }
    assert_eq!(check(&path).unwrap().counts, [0; 3], "the largest geometry stands for any size");

    let content = vec![1; SIZE as usize];
    let fixed = |data_offset| footer(SIZE, *b"win ", 2, data_offset, [5; 16]);
    for (bytes, severity, words) in [
        ([&content[512..], &fixed(u64::MAX)].concat(), Corrupt, "truncated: a fixed disk"),
        ([&content[..], &[0; 1024], &fixed(u64::MAX)].concat(), Leak, "1024 bytes between the disk and"),
        ([&content[..], &fixed(512)].concat(), Note, "names a dynamic header at 0x200"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let found = check(&path).unwrap();
        assert!(
            found.problems[0].severity == severity && found.problems[0].says.contains(words),
            "{found:?}"
        );
    }
    // Of a disk by Virtual PC the geometry shows less, and the rest is not lost.
    let by_geometry = footer(SIZE + 5120, *b"vpc ", 2, u64::MAX, [5; 16]);
    std::fs::write(&path, [&content[..], &[1; 5120], &by_geometry].concat()).unwrap();
    let found = check(&path).unwrap();
    assert_eq!((found.counts, found.allocated.0), ([0; 3], SIZE), "{found:?}");
}

#[test]
fn each_damage_of_header_and_locators_is_named() {
    let (disk, child) = (dynamic(), differencing());
    let header_with = |forge: &Forge, change: &dyn Fn(&mut [u8])| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.vhd");
        forge.write(&path);
        let mut bytes = vec![0; 1024];
        File::open(&path).unwrap().read_exact_at(&mut bytes, 512).unwrap();
        change(&mut bytes);
        sealed(bytes, 36)
    };
    let with = |forge: &Forge, severity, words, change: &dyn Fn(&mut [u8])| {
        finds(forge, severity, words, &[(512, &header_with(forge, change))]);
    };
    finds(&disk, Corrupt, "the checksum of the dynamic header", &[(512 + 900, &[1])]);
    finds(&disk, Corrupt, "cxsparse", &[(512, &[1])]);
    with(&disk, Note, "reserved fields of the dynamic header", &|header| header[15] = 0);
    with(&disk, Note, "reserved fields of the dynamic header", &|header| header[61] = 1);
    with(&disk, Note, "reserved fields of the dynamic header", &|header| header[1000] = 1);
    with(&disk, Corrupt, "has 3 entries; a disk of", &|header| header[31] = 3);
    with(&disk, Corrupt, "block table ends at", &|header| {
        header[16..24].copy_from_slice(&disk.file_len.to_be_bytes());
    });
    with(&disk, Corrupt, "the block table at 0x0 and the copy of the footer at 0x0", &|header| {
        header[16..24].fill(0)
    });
    with(&disk, Corrupt, "the dynamic header at 0x200 and the block table at 0x400", &|header| {
        header[22] = 4
    });
    with(&disk, Note, "has no parent, but places", &|header| header[576..580].copy_from_slice(b"W2ru"));
    with(&child, Corrupt, "parent locator 1 (W2ku) has", &|header| header[576 + 24 + 19] = 1);
    with(&child, Corrupt, "the block table at 0x600 and the path of the parent", &|header| {
        header[576 + 16 + 6..576 + 16 + 8].copy_from_slice(&[6, 0]);
    });
    with(&child, Corrupt, "names none", &|header| header[64..768].fill(0));
    // A longer table than the disk needs, whose last entries are in use.
    let mut longer = disk.clone();
    longer.bat.push(longer.bat[0]);
    longer.max_table_entries += 1;
    finds(&longer, Note, "1 entries of the block table stand for what is behind", &[]);
}

#[test]
fn each_damage_of_the_block_table_is_named() {
    let (disk, child) = (dynamic(), differencing());
    let on = |forge: &Forge, severity, words, entry: u32| {
        let mut forge = forge.clone();
        forge.bat[1] = entry;
        finds(&forge, severity, words, &[]);
    };
    let first = disk.bat[0];
    on(&disk, Corrupt, "block table entry 1 points at 0x0, over the copy of the footer", 0);
    on(&disk, Corrupt, "over the dynamic header", 1);
    on(&disk, Corrupt, "over the block table", 3);
    on(&child, Corrupt, "over the path of the parent", 4);
    on(&disk, Corrupt, "block table entry 1 points at", first);
    on(&disk, Corrupt, "into block 2 at", disk.bat[2] + 1);
    on(&disk, Corrupt, "into block 2 at", disk.bat[2] + 4096);
    on(&disk, Corrupt, "into block 1 at", disk.bat[2] - 1);
    on(&disk, Corrupt, "into block 1 at", first - 1);
    on(&disk, Corrupt, "the file's data ends at", (disk.file_len / 512) as u32);
    on(&disk, Corrupt, "the file's data ends at", UNUSED - 1);
    // The last block's end does not belong to the disk, and may be missing.
    let mut last = Forge::new(SIZE, BLOCK as u32);
    last.put_block(3, vec![0xff; 512], vec![1; (SIZE - 3 * BLOCK) as usize]);
    last.file_len -= 4 * BLOCK - SIZE;
    finds(&last, Note, "1 blocks have an unused end", &[]);
    last.file_len -= 512;
    last.bytes.pop();
    finds(&last, Corrupt, "the file's data ends at", &[]);
    // Room for blocks that none uses: in front of all, between two, and behind.
    for (unused, bytes) in [(0, BLOCK + 512), (2, BLOCK + 512 + disk.bat[2] as u64 * 512 - (TABLE_AT + 16))] {
        let mut lost = disk.clone();
        lost.bat[unused] = UNUSED;
        finds(&lost, Leak, &format!("{bytes} bytes of the file are used by nothing: room for 1 blocks"), &[]);
    }
    let mut between = disk.clone();
    between.put_block(1, vec![0xff; 512], vec![1; BLOCK as usize]);
    between.bat[0] = UNUSED;
    finds(&between, Leak, "room for 1 blocks", &[]);
}

#[test]
fn what_we_write_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhd");
    let blocks = |kib| CreateOptions { block_size: Some(Bytes::kib(kib)), ..CreateOptions::default() };
    let large = MemDisk::new(Bytes(5 << 30)).data(4 << 30, vec![1; 9000]).data((5 << 30) - 1, [1]);
    for disk in [mixed(3, Bytes(67 * MIB + 512)), MemDisk::new(Bytes(512)), large] {
        for (kind, options) in [
            ("vhd", CreateOptions::default()),
            ("vhd", blocks(512)),
            ("vhd", blocks(1024)),
            ("vhd-fixed", CreateOptions::default()),
            ("vhd-fixed", CreateOptions { preallocation: Preallocation::Falloc, ..CreateOptions::default() }),
            ("vhd-azure", CreateOptions::default()),
        ] {
            write(kind, &path, &disk, &options);
            let checked = check(&path).unwrap();
            assert_eq!(checked.counts, [0; 3], "{kind} {options:?}: {checked:?}");
            std::fs::remove_file(&path).unwrap();
        }
    }
    let size = Bytes(24 * MIB + 512);
    let base = dir.path().join("base.vhd");
    write("vhd", &base, &MemDisk::new(size).data(0, noise_bytes(1, 9 << 20)), &CreateOptions::default());
    let over = formats::open(&base, &OpenOptions::default()).unwrap();
    let identity = over.layers[0].identity.clone();
    for kib in [512, 2048] {
        let base = Base { path: base.clone(), format: Format::Vhd, size, identity: identity.clone() };
        let options = CreateOptions { base: Some(base), ..blocks(kib) };
        let sink = create("vhd", &path, size, &options).unwrap();
        let child = MemDisk::new(size).data(0, noise_bytes(2, 4096)).data(20 * MIB, noise_bytes(3, 4096));
        convert::convert_with(&child, Some(&*over.disk), sink, None, &Options::default()).unwrap();
        let all = formats::check(&path, &OpenOptions::default()).unwrap();
        assert_eq!(all.len(), 2);
        for (path, _, checked) in all {
            assert_eq!(checked.as_ref().unwrap().counts, [0; 3], "{}: {checked:?}", path.display());
        }
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn real_images_are_sound() {
    for row in corpus::rows("vhd-") {
        let unpacked = row.unpack();
        // afl5.img does not say by its name what it is.
        let options = OpenOptions { format: Some(Format::Vhd), ..OpenOptions::default() };
        let checked = formats::check(&unpacked.path, &options);
        if row.expected.starts_with("refuse") {
            match &checked {
                Ok(layers) => assert!(layers[0].2.as_ref().unwrap().count(Corrupt) > 0, "{}", row.path),
                Err(error) => assert_eq!(error.kind(), Kind::Corrupt, "{}: {error}", row.path),
            }
            eprintln!("{}: {checked:?}", row.path);
            continue;
        }
        if row.expected == "-" || row.expected.is_empty() {
            continue;
        }
        for (path, format, checked) in checked.unwrap() {
            let checked = checked.unwrap();
            assert_eq!(format, Format::Vhd);
            assert_eq!(checked.count(Corrupt), 0, "{}: {checked:?}", row.path);
            let says: Vec<_> = checked.problems.iter().map(|problem| &problem.says).collect();
            eprintln!("{}: {says:?}", path.file_name().unwrap().display());
        }
    }
}

#[test]
fn what_qemu_writes_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    for size in [64 << 20, 10_489_344] {
        corpus::write_pattern(&dir.path().join("a.raw"), size);
        for options in
            ["dynamic,force_size=on", "dynamic,force_size=off", "fixed,force_size=on", "fixed,force_size=off"]
        {
            let options = format!("subformat={options}");
            let arguments = ["convert", "-O", "vpc", "-o", &options, "a.raw", "x.vhd"];
            let Some(_) = corpus::run(dir.path(), "qemu-img", &arguments) else { return };
            let checked = check(&dir.path().join("x.vhd")).unwrap();
            eprintln!("{options}: {checked:?}");
            assert_eq!(checked.count(Corrupt), 0, "{options}: {checked:?}");
        }
    }
}

/// The longest table there can be, 256 MiB for blocks of 32 KiB, which is read in windows.
#[test]
fn the_longest_table_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhd");
    let mut forge = Forge::new(2 << 40, 32 << 10);
    forge.creator = *b"win\0";
    let blocks = forge.bat.len() as u32;
    let length = (forge.bitmap_bytes() + (32 << 10)) / 512;
    let first = (forge.file_len / 512) as u32;
    // Some blocks, in an order of their own; more of them than a window takes. Three lie on others, near and far.
    let count = u64::from(blocks / 12);
    for n in 0..count {
        let place = n * 1_000_003 % count * length;
        forge.bat[3 * n as usize] = first + place as u32;
    }
    assert!(count > crate::limits::RESIDENT_TABLE.0 / 8);
    forge.file_len += count * length * 512;
    for (block, on) in [(1, 0), (blocks - 1, 3000), (4, 3 * (count as u32 - 1))] {
        forge.bat[block as usize] = forge.bat[on as usize] + 1;
    }
    // Each lies in one block and reaches into the next.
    let doubled = 2 * 3;
    forge.write(&path);
    let began = std::time::Instant::now();
    let checked = check(&path).unwrap();
    eprintln!("{count} blocks: {:?}", began.elapsed());
    assert_eq!(checked.count(Corrupt), doubled, "{checked:?}");
    // All of them at one place.
    let file = File::options().write(true).open(&path).unwrap();
    let entries: Vec<u8> = std::iter::repeat_n(first.to_be_bytes(), 8 << 20).flatten().collect();
    file.write_all_at(&entries, TABLE_AT).unwrap();
    let began = std::time::Instant::now();
    let checked = check(&path).unwrap();
    eprintln!("8 million entries for one place: {:?}", began.elapsed());
    assert!(checked.problems.iter().any(|problem| problem.says.contains("they overlap")), "{checked:?}");
}

#[test]
fn no_changed_byte_stops_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let forge = write_set(dir.path());
    let path = dir.path().join("child.vhd");
    let before = check(&path).unwrap();
    assert_eq!(before.count(Corrupt), 0, "{before:?}");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    type Structure = (u64, usize, Option<(usize, usize)>);
    let structures: &[Structure] = &[
        (0, 90, Some((512, 64))),
        (forge.file_len, 90, Some((512, 64))),
        (512, 640, Some((1024, 36))),
        (TABLE_AT, 8, None),
        (TABLE_AT + 512, 24, None),
    ];
    for &(start, len, sum) in structures {
        let mut whole = vec![0; sum.map_or(len, |(covered, _)| covered)];
        file.read_exact_at(&mut whole, start).unwrap();
        for at in 0..len {
            for change in [1, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                let bytes = sum.map_or(bytes.clone(), |(_, at)| sealed(bytes, at));
                file.write_all_at(&bytes, start).unwrap();
                let _ = check(&path);
            }
        }
        file.write_all_at(&whole, start).unwrap();
    }
    assert_eq!(check(&path).unwrap(), before);
    for len in (0..forge.file_len + 512).rev().step_by(50_021).skip(1) {
        file.set_len(len).unwrap();
        assert!(check(&path).unwrap().count(Corrupt) > 0, "cut at {len}");
    }
}
