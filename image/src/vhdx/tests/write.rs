//! What is written, by the suite, by other readers and by its bytes.

use super::open;
use crate::blocks::libvhdi;
use crate::convert::{self, Options};
use crate::corpus;
use crate::create::{Base, CreateOptions, FileOptions, Preallocation};
use crate::disk::Disk;
use crate::formats::{Format, KINDS};
use crate::suite;
use crate::testing::{MemDisk, mixed, noise_bytes};
use crate::units::Bytes;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

pub fn create(
    kind: &str,
    path: &Path,
    size: Bytes,
    options: &CreateOptions,
) -> crate::Result<Box<dyn crate::Sink>> {
    (KINDS.iter().find(|row| row.name == kind).unwrap().create)(path, size, options)
}

pub fn with_blocks(mib: u64) -> CreateOptions {
    CreateOptions { block_size: Some(Bytes::mib(mib)), ..CreateOptions::default() }
}

pub fn write(kind: &str, path: &Path, disk: &dyn Disk, options: &CreateOptions) -> blake3::Hash {
    let sink = create(kind, path, disk.size(), options).unwrap_or_else(|e| panic!("{e}"));
    convert::convert(disk, sink, &Options::default()).unwrap_or_else(|e| panic!("{e}")).digest
}

#[test]
fn every_kind_passes_the_suite() {
    for (kind, options) in
        [("vhdx", CreateOptions::default()), ("vhdx", with_blocks(256)), ("vhdx-fixed", with_blocks(1))]
    {
        suite::check_sink(
            |path, size, files| create(kind, path, size, &CreateOptions { files, ..options.clone() }),
            |path| Ok(crate::formats::open(path, &Default::default())?.disk),
        );
    }
}

#[test]
fn other_readers_agree() {
    let dir = tempfile::tempdir().unwrap();
    for (name, disk) in [
        ("mixed", mixed(3, Bytes(67 * MIB + 512))),
        ("empty", MemDisk::new(Bytes(33 * MIB))),
        ("full", MemDisk::from_bytes(noise_bytes(1, 9 << 20))),
        (
            "5 GiB",
            MemDisk::new(Bytes(5 << 30))
                .data((4 << 30) - 4096, noise_bytes(2, 12288))
                .data((5 << 30) - 1, [1]),
        ),
    ] {
        for (kind, options) in [
            ("vhdx", CreateOptions::default()),
            ("vhdx", with_blocks(1)),
            ("vhdx", with_blocks(32)),
            ("vhdx-fixed", CreateOptions::default()),
            ("vhdx-fixed", CreateOptions { preallocation: Preallocation::Full, ..with_blocks(8) }),
        ] {
            if kind == "vhdx-fixed" && disk.size().0 > 1 << 30 {
                continue;
            }
            let what = format!("{name} as {kind} {options:?}");
            let path = dir.path().join("x.vhdx");
            write(kind, &path, &disk, &options);
            let image = open(&path);
            assert_eq!(image.layers[0].variant, if kind == "vhdx" { "dynamic" } else { "fixed" });
            let len = std::fs::metadata(&path).unwrap().len();
            assert!(len.is_multiple_of(MIB), "{what}: {len}");
            let checked = corpus::run(dir.path(), "qemu-img", &["check", "-f", "vhdx", "x.vhdx"]);
            let Some(checked) = checked else { return };
            assert!(checked.contains("No errors were found"), "{what}: {checked}");
            let raw = dir.path().join("x.raw");
            let sink = create("raw", &raw, disk.size(), &CreateOptions::default()).unwrap();
            convert::convert(&disk, sink, &Options::default()).unwrap();
            let compare = ["compare", "-f", "vhdx", "-F", "raw", "x.vhdx", "x.raw"];
            let compared = corpus::run(dir.path(), "qemu-img", &compare).unwrap();
            assert!(compared.contains("identical"), "{what}: {compared}");
            if let Some(theirs) = libvhdi::reads(&path, None) {
                assert_eq!(theirs, libvhdi::expected(&*image.disk), "{what}");
            }
            std::fs::remove_file(&path).unwrap();
            std::fs::remove_file(&raw).unwrap();
        }
    }
}

/// The structures at their places, read here without the reader's help.
#[test]
fn the_file_is_laid_out_as_hyper_v_demands() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhdx");
    let disk = MemDisk::new(Bytes(70 * MIB)).data(69 * MIB, [1; 512]).data(3 * MIB, noise_bytes(1, 2 << 20));
    write("vhdx", &path, &disk, &CreateOptions::default());
    let bytes = std::fs::read(&path).unwrap();
    let le64 = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let le32 = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(&bytes[..8], b"vhdxfile");
    let crc = |at: usize, len: usize| {
        let mut copy = bytes[at..at + len].to_vec();
        copy[4..8].fill(0);
        crc32c::crc32c(&copy)
    };
    for (at, sequence) in [(64 << 10, 1), (128 << 10, 2)] {
        assert_eq!(&bytes[at..at + 4], b"head");
        assert_eq!(le32(at + 4), crc(at, 4096));
        assert_eq!(le64(at + 8), sequence);
        assert_ne!(bytes[at + 16..at + 32], [0; 16]);
        assert_ne!(bytes[at + 32..at + 48], [0; 16]);
        assert_eq!(bytes[at + 48..at + 66], [0; 18], "no log, of version 0");
        assert_eq!(bytes[at + 66..at + 68], [1, 0]);
        assert_eq!((u64::from(le32(at + 68)), le64(at + 72)), (MIB, MIB));
    }
    for at in [192 << 10, 256 << 10] {
        assert_eq!(&bytes[at..at + 4], b"regi");
        assert_eq!(le32(at + 4), crc(at, 65536));
        assert_eq!(le32(at + 8), 2);
        assert_eq!((le64(at + 32), le32(at + 40)), (3 * MIB, 1 << 20), "the block table");
        assert_eq!((le64(at + 64), le32(at + 72)), (2 * MIB, 1 << 20), "the metadata");
    }
    // Blocks 1, 2 and 34 of 2 MiB, in this order behind the table, and nothing else.
    let table: Vec<(u64, u64)> = (0..MIB / 8)
        .map(|n| (n, le64((3 * MIB + n * 8) as usize)))
        .filter(|(_, entry)| *entry != 0)
        .collect();
    assert_eq!(table, [(1, (4 * MIB) | 6), (2, (6 * MIB) | 6), (34, (8 * MIB) | 6)]);
    assert_eq!(bytes.len() as u64, 10 * MIB, "the last block is whole");
}

#[test]
fn sizes_and_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhdx");
    for (size, block) in [(1, 2), (2 << 40, 2), ((2 << 40) + 1, 4), (64 << 40, 64)] {
        let disk = MemDisk::new(Bytes(size)).data(size - 1, [7]);
        write("vhdx", &path, &disk, &CreateOptions::default());
        let image = open(&path);
        assert!(image.layers[0].details.contains(&("block size".into(), format!("{block}.0 MiB"))), "{size}");
        assert_eq!(image.disk.size().0, size.next_multiple_of(512));
        let mut byte = [0];
        image.disk.read_at(crate::GuestOffset(size - 1), &mut byte).unwrap();
        assert_eq!(byte, [7]);
        std::fs::remove_file(&path).unwrap();
    }
    for size in [0, (64 << 40) + 1] {
        let error = create("vhdx", &path, Bytes(size), &CreateOptions::default()).map(drop).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Refused);
    }
    for (kind, mib) in [("vhdx", 3), ("vhdx", 512), ("vhdx-fixed", 512)] {
        assert!(create(kind, &path, Bytes(MIB), &with_blocks(mib)).is_err(), "{kind} {mib}");
    }
}

/// The same disk gives the same file; another content or another name another identity.
#[test]
fn identities() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, byte: u8| -> (Vec<u8>, String, String) {
        let path = dir.path().join(name);
        let options = CreateOptions {
            files: FileOptions { replace: true, ..FileOptions::default() },
            ..CreateOptions::default()
        };
        write("vhdx", &path, &MemDisk::new(Bytes(MIB)).data(0, [byte; 512]), &options);
        let source = crate::Source::open(&path).unwrap();
        let layer = crate::vhdx::open(source, &Default::default()).unwrap();
        let id = layer.details.iter().find(|(name, _)| name == "virtual disk id").unwrap().1.clone();
        (std::fs::read(&path).unwrap(), layer.identity.unwrap(), id)
    };
    let (first, again) = (make("a.vhdx", 1), make("a.vhdx", 1));
    assert!(first == again);
    let changed = make("a.vhdx", 2);
    assert_ne!(first.1, changed.1, "a child of the old one must not take the new one");
    let copy = make("b.vhdx", 1);
    assert_ne!(first.2, copy.2, "a guest can tell two equal disks apart");
}

/// A base and its child, in which something of the base is kept, changed and zeroed; a whole block of zeros if asked.
fn family(zero_block: bool) -> (MemDisk, MemDisk) {
    let size = Bytes(5 << 30);
    let far = (4 << 30) + 3 * MIB;
    let base = MemDisk::new(size)
        .data(0, noise_bytes(1, 9 << 20))
        .data(20 * MIB, noise_bytes(2, 4 << 20))
        .data(far, noise_bytes(3, 4096));
    let mut kept = noise_bytes(1, 9 << 20);
    kept[..4096].fill(9); // changed in a block that is otherwise kept
    kept[3 << 20..(3 << 20) + 8192].fill(0); // zeroed likewise, no data in the block
    if zero_block {
        kept[4 << 20..6 << 20].fill(0);
    }
    kept[6 << 20..8 << 20].copy_from_slice(&noise_bytes(7, 2 << 20)); // a whole block changed
    let child = MemDisk::new(size)
        .data(0, kept)
        .data(20 * MIB, noise_bytes(2, 4 << 20))
        .data(far, noise_bytes(3, 4096))
        .data(far + 8192, noise_bytes(4, 4096));
    (base, child)
}

pub fn write_family(dir: &Path, block: Option<Bytes>, zero_block: bool) -> (PathBuf, PathBuf) {
    let (base, child) = family(zero_block);
    let base_path = dir.join("base.vhdx");
    write("vhdx", &base_path, &base, &CreateOptions::default());
    let identity = crate::formats::open_layer(crate::Source::open(&base_path).unwrap(), &Default::default());
    let options = CreateOptions {
        block_size: block,
        base: Some(Base {
            path: base_path.clone(),
            format: Format::Vhdx,
            size: base.size(),
            identity: identity.unwrap().1.identity,
        }),
        ..CreateOptions::default()
    };
    let path = dir.join("child.vhdx");
    let sink = create("vhdx", &path, child.size(), &options).unwrap_or_else(|e| panic!("{e}"));
    let over = open(&base_path);
    convert::convert_with(&child, Some(&*over.disk), sink, None, &Options::default()).unwrap();
    let image = open(&path);
    assert_eq!(image.layers.len(), 2);
    let compared = convert::compare(&child, &*image.disk, &Options::default()).unwrap();
    assert!(compared.is_same_content(), "{compared:?}");
    // Where a block over a base is zeros by its state, libvhdi 20210425 reads the start of the file.
    if !zero_block && let Some(theirs) = libvhdi::reads(&path, Some(&base_path)) {
        assert_eq!(theirs, libvhdi::expected(&*image.disk), "{block:?}");
    }
    (base_path, path)
}

#[test]
fn a_differencing_disk_holds_what_differs() {
    for (block, zero_block) in
        [(Some(Bytes::mib(1)), false), (Some(Bytes::mib(64)), false), (None, false), (None, true)]
    {
        let dir = tempfile::tempdir().unwrap();
        let (base, child) = write_family(dir.path(), block, zero_block);
        if !zero_block {
            continue;
        }
        // Of 2 MiB: 0 and 1 partly (a change, a zeroed part), 2 zeroed, 3 changed, one in the second chunk.
        let bytes = std::fs::read(&child).unwrap();
        let le64 = |at: u64| u64::from_le_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap());
        let states: Vec<(u64, u64)> =
            (0..MIB / 8).map(|n| (n, le64(3 * MIB + n * 8) & 7)).filter(|(_, state)| *state != 0).collect();
        assert_eq!(states, [(0, 7), (1, 7), (2, 2), (3, 6), (2048, 6), (2050, 7), (4097, 6)]);
        let bitmap = (le64(3 * MIB + 2048 * 8) & !7) as usize;
        let set =
            |from: usize, to: usize| (from..to).all(|bit| bytes[bitmap + bit / 8] >> (bit % 8) & 1 == 1);
        let clear =
            |from: usize, to: usize| (from..to).all(|bit| bytes[bitmap + bit / 8] >> (bit % 8) & 1 == 0);
        assert!(set(0, 8) && clear(8, 6144) && set(6144, 6160) && clear(6160, 8192) && set(8192, 16384));
        // The locator names the base in the folder, and its data write GUID in braces.
        let text: Vec<u16> =
            bytes[2 << 20..3 << 20].chunks(2).map(|u| u16::from_le_bytes([u[0], u[1]])).collect();
        let text = String::from_utf16_lossy(&text);
        let identity =
            crate::vhdx::open(crate::Source::open(&base).unwrap(), &Default::default()).unwrap().identity;
        assert!(text.contains(&format!("parent_linkage{{{}}}relative_path.\\base.vhdx", identity.unwrap())));
        // Another base under the same name is refused.
        std::fs::remove_file(&base).unwrap();
        write("vhdx", &base, &MemDisk::new(Bytes(5 << 30)).data(0, [1]), &CreateOptions::default());
        let error = crate::formats::open(&child, &Default::default()).map(drop).unwrap_err();
        assert!(error.says().contains("not the parent"), "{error}");
    }
}

#[test]
fn a_base_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = Base {
        path: "base.vhdx".into(),
        format: Format::Vhdx,
        size: Bytes(MIB),
        identity: Some(uuid::Uuid::from_u128(7).to_string()),
    };
    let try_with = |base: Base| {
        let options = CreateOptions { base: Some(base), ..CreateOptions::default() };
        create("vhdx", &dir.path().join("x.vhdx"), Bytes(MIB), &options).map(drop)
    };
    try_with(good.clone()).unwrap();
    for bad in [
        Base { format: Format::Vhd, ..good.clone() },
        Base { size: Bytes(2 * MIB), ..good.clone() },
        Base { identity: None, ..good.clone() },
        Base { identity: Some("7".into()), ..good.clone() },
        Base { path: "a\\b.vhdx".into(), ..good.clone() },
        Base { path: "x".repeat(40_000).into(), ..good },
    ] {
        assert_eq!(try_with(bad).unwrap_err().kind(), crate::Kind::Refused);
    }
}

/// Continued over a file full of old bytes, the image has none of them.
#[test]
fn nothing_of_a_leftover_shines_through() {
    let dir = tempfile::tempdir().unwrap();
    let disk = mixed(1, Bytes(9 * MIB + 512));
    for kind in ["vhdx", "vhdx-fixed"] {
        let path = dir.path().join("x.vhdx");
        write(kind, &path, &disk, &CreateOptions::default());
        let clean = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(dir.path().join(".x.vhdx.landfall-partial"), vec![0xee; 40 << 20]).unwrap();
        let files = FileOptions { resume: true, ..FileOptions::default() };
        write(kind, &path, &disk, &CreateOptions { files, ..CreateOptions::default() });
        assert!(std::fs::read(&path).unwrap() == clean, "{kind}");
        std::fs::remove_file(&path).unwrap();
    }
}

/// A table of 2^20 entries and more is written as the walk passes.
#[test]
fn large_disks_take_little() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhdx");
    let disk = MemDisk::new(Bytes(64 << 40)).data(1 << 45, noise_bytes(1, 8192));
    write("vhdx", &path, &disk, &with_blocks(1));
    let file = std::fs::File::open(&path).unwrap();
    let index = (1u64 << 25) + (1 << 25) / 4096;
    let mut entry = [0; 8];
    file.read_exact_at(&mut entry, 3 * MIB + index * 8).unwrap();
    // 64 MiB blocks and a bitmap entry per 4096 of them need 513 MiB of table.
    assert_eq!(u64::from_le_bytes(entry), ((3 + 513) * MIB) | 6);
    use std::os::unix::fs::MetadataExt;
    assert!(file.metadata().unwrap().blocks() * 512 < 4 << 20);
}
