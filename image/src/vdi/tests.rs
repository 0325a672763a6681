//! Images by qemu-img, chains made of them, and hostile bytes.

use super::header::{HEADER_BYTES, Header};
use crate::check::Severity;
use crate::corpus;
use crate::disk::Disk;
use crate::error::Kind;
use crate::formats::{self, Format, OpenOptions};
use crate::source::Source;
use crate::testing::read_all;
use std::os::unix::fs::FileExt;
use std::path::Path;

fn open(path: &Path) -> crate::Result<formats::Image> {
    formats::open(path, &OpenOptions::default())
}

fn raw(path: &Path) -> std::sync::Arc<dyn Disk> {
    formats::open(path, &OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() }).unwrap().disk
}

/// A dynamic and a fixed VDI of 34 MiB and a bit in `folder`; false, after a loud word, without qemu-img.
fn make(folder: &Path) -> bool {
    corpus::write_pattern(&folder.join("x.raw"), (34 << 20) + 512);
    for (name, options) in [("x.vdi", "static=off"), ("fixed.vdi", "static=on")] {
        let arguments = ["convert", "-f", "raw", "-O", "vdi", "-o", options, "x.raw", name];
        if corpus::run(folder, "qemu-img", &arguments).is_none() {
            return false;
        }
    }
    true
}

fn put(path: &Path, at: u64, bytes: &[u8]) {
    std::fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn what_qemu_img_writes_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    if !make(dir.path()) {
        return;
    }
    for (name, variant) in [("x.vdi", "dynamic"), ("fixed.vdi", "fixed")] {
        let path = dir.path().join(name);
        let image = open(&path).unwrap();
        assert_eq!((image.layers[0].format, image.layers[0].variant.as_str()), (Format::Vdi, variant));
        corpus::assert_same(&*image.disk, &*raw(&dir.path().join("x.raw")), name);
        let checked = super::check(Source::open(&path).unwrap(), &Default::default()).unwrap();
        assert_eq!(checked.problems, [], "{name}");
        assert!(checked.allocated.0 > 0);
    }
}

/// As VirtualBox makes a snapshot: another id, the type, the parent's ids, and blocks of its own.
#[test]
fn a_child_is_read_over_the_parent_that_its_id_names() {
    let dir = tempfile::tempdir().unwrap();
    if !make(dir.path()) {
        return;
    }
    let base = dir.path().join("x.vdi");
    let child = dir.path().join("child.vdi");
    let bytes = std::fs::read(&base).unwrap();
    let mut made = bytes.clone();
    made[76] = 4;
    made[392..408].fill(0x77);
    made[408..424].fill(0x78);
    made[424..440].copy_from_slice(&bytes[392..408]);
    made[440..456].copy_from_slice(&bytes[408..424]);
    let map = u32::from_le_bytes(made[340..344].try_into().unwrap()) as usize;
    let data = u32::from_le_bytes(made[344..348].try_into().unwrap()) as usize;
    let blocks = 35;
    made[map..map + blocks * 4].fill(0xff);
    // Block 1 is stored, block 2 is zeros, the others are the parent's.
    made[map + 4..map + 8].copy_from_slice(&0u32.to_le_bytes());
    made[map + 8..map + 12].copy_from_slice(&0xffff_fffeu32.to_le_bytes());
    made.truncate(data + (1 << 20));
    made[data..].fill(0xc5);
    std::fs::write(&child, &made).unwrap();

    let mut expected = read_all(&*raw(&dir.path().join("x.raw"))).unwrap();
    expected[1 << 20..2 << 20].fill(0xc5);
    expected[2 << 20..3 << 20].fill(0);
    let image = open(&child).unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.layers[0].variant, "differencing");
    assert!(read_all(&*image.disk).unwrap() == expected);

    // In the folder above, as VirtualBox has it, once that is allowed.
    let snapshots = dir.path().join("Snapshots");
    std::fs::create_dir(&snapshots).unwrap();
    let moved = snapshots.join("child.vdi");
    std::fs::rename(&child, &moved).unwrap();
    let error = open(&moved).map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    let gate = crate::Gate::own_folder().allow(dir.path()).unwrap();
    let image = formats::open(&moved, &OpenOptions { gate, ..OpenOptions::default() }).unwrap();
    assert!(read_all(&*image.disk).unwrap() == expected);
    std::fs::rename(&moved, &child).unwrap();

    // In a folder that the user names, wherever the child is.
    let far = dir.path().join("a/b");
    std::fs::create_dir_all(&far).unwrap();
    let moved = far.join("child.vdi");
    std::fs::rename(&child, &moved).unwrap();
    assert_eq!(open(&moved).map(drop).unwrap_err().kind(), Kind::Refused);
    let gate = crate::Gate::own_folder().allow(dir.path()).unwrap();
    let image = formats::open(&moved, &OpenOptions { gate, ..OpenOptions::default() }).unwrap();
    assert!(read_all(&*image.disk).unwrap() == expected);
    std::fs::rename(&moved, &child).unwrap();

    // A parent that was changed since, then none.
    put(&base, 408, &[1; 16]);
    assert_eq!(open(&child).map(drop).unwrap_err().kind(), Kind::Corrupt);
    std::fs::remove_file(&base).unwrap();
    let error = open(&child).map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.says().contains("parent"), "{error}");
}

#[test]
fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    if !make(dir.path()) {
        return;
    }
    let path = dir.path().join("x.vdi");
    let clean = std::fs::read(&path).unwrap();
    let map = u64::from(u32::from_le_bytes(clean[340..344].try_into().unwrap()));
    let try_with = |at: u64, bytes: &[u8]| {
        std::fs::write(&path, &clean).unwrap();
        put(&path, at, bytes);
        let checked = super::check(Source::open(&path).unwrap(), &Default::default());
        (open(&path).map(drop), checked)
    };
    // Entry 2 where entry 1 is, an entry past the image, one past the file.
    let first = &clean[map as usize + 4..map as usize + 8];
    for entry in [first, &34u32.to_le_bytes(), &35u32.to_le_bytes(), &0xffff_fff0u32.to_le_bytes()] {
        let (opened, checked) = try_with(map + 8, entry);
        assert_eq!(opened.unwrap_err().kind(), Kind::Corrupt, "{entry:?}");
        assert_eq!(checked.unwrap().count(Severity::Corrupt), 1, "{entry:?}");
    }
    for (what, at, bytes, kind) in [
        ("version", 68, 0x1_0000u32.to_le_bytes(), Kind::Unsupported),
        ("type", 76, 3u32.to_le_bytes(), Kind::Unsupported),
        ("map in the header", 340, 16u32.to_le_bytes(), Kind::Corrupt),
        ("data in the map", 344, 520u32.to_le_bytes(), Kind::Corrupt),
        ("sector size", 360, 4096u32.to_le_bytes(), Kind::Corrupt),
        ("size", 372, u32::MAX.to_le_bytes(), Kind::Corrupt),
        ("block size", 376, 3u32.to_le_bytes(), Kind::Corrupt),
        ("extra", 380, 512u32.to_le_bytes(), Kind::Unsupported),
        ("too few blocks", 384, 34u32.to_le_bytes(), Kind::Corrupt),
        ("too many blocks", 384, u32::MAX.to_le_bytes(), Kind::Corrupt),
    ] {
        let (opened, checked) = try_with(at, &bytes);
        assert_eq!(opened.unwrap_err().kind(), kind, "{what}");
        match kind {
            Kind::Corrupt => assert_eq!(checked.unwrap().count(Severity::Corrupt), 1, "{what}"),
            _ => assert_eq!(checked.unwrap_err().kind(), kind, "{what}"),
        }
    }
    // A block less in the map than in the file.
    let (opened, checked) = try_with(map + 4, &u32::MAX.to_le_bytes());
    opened.unwrap();
    let checked = checked.unwrap();
    assert_eq!((checked.count(Severity::Leak), checked.count(Severity::Corrupt)), (1, 0));
    // Cut off anywhere.
    for len in [0, 10, HEADER_BYTES - 1, HEADER_BYTES, map as usize + 7, clean.len() - (3 << 20)] {
        std::fs::write(&path, &clean[..len]).unwrap();
        assert_eq!(open(&path).map(drop).unwrap_err().kind(), Kind::Corrupt, "{len}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..500)) {
        for (at, part) in [(64, &b"\x7f\x10\xda\xbe\x01\x00\x01\x00"[..]), (360, &[0, 2, 0, 0]), (376, &[0, 0, 16, 0, 0, 0, 0, 0])] {
            if bytes.len() >= at + part.len() {
                bytes[at..at + part.len()].copy_from_slice(part);
            }
        }
        let _ = Header::parse(&bytes);
    }
}
