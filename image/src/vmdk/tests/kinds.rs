//! What qemu-img does not write: read, and compared with qemu-img where it reads it.

use super::build::{self, SECTOR, descriptor, grain_content, guest, put, put32, put64};
use super::qemu::{as_raw, tools};
use super::{check_consistency, content, map, open};
use crate::Kind;
use crate::disk::ExtentKind;
use crate::formats::{Image, OpenOptions};
use crate::gate::Gate;
use std::path::Path;

fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(dir.join(name), bytes).unwrap();
}

/// Reads in many ways; the content must be `wanted`, and qemu-img must agree.
fn check(dir: &Path, name: &str, wanted: &[u8]) -> Image {
    let image = open(&dir.join(name)).unwrap_or_else(|error| panic!("{error}"));
    for step in [1 << 20, 4096, 512, 1536, 10_001] {
        assert!(content(&*image.disk, step) == wanted, "{name} in steps of {step}");
    }
    check_consistency(&*image.disk);
    if tools() {
        let theirs = as_raw(dir, name);
        let differs = theirs.iter().zip(wanted).position(|(a, b)| a != b);
        assert!(
            theirs == wanted,
            "{} bytes, differs at {differs:?}: qemu-img reads {name} differently",
            theirs.len()
        );
    }
    image
}

#[test]
fn sparse_with_zeroed_grains_and_a_short_last_grain() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "x.vmdk", build::sparse());
    let image = check(dir.path(), "x.vmdk", &guest());
    let kinds: Vec<_> = map(&*image.disk, 100).iter().map(|e| (e.range.end().0 / 4096, e.kind)).collect();
    use ExtentKind::{Data, Unallocated, Zero};
    assert_eq!(kinds[..4], [(3, Data), (4, Zero), (5, Unallocated), (6, Data)]);
    assert_eq!(kinds[kinds.len() - 4..], [(513, Data), (514, Zero), (599, Unallocated), (599, Data)]);
}

#[test]
fn streams_of_every_version() {
    for version in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "x.vmdk", build::stream(version));
        let image = check(dir.path(), "x.vmdk", &guest());
        assert_eq!(image.layers[0].variant, "streamOptimized");
    }
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "x.vmdk", build::stream(4));
    assert_eq!(open(&dir.path().join("x.vmdk")).err().unwrap().kind(), Kind::Unsupported);
}

#[test]
fn a_stream_whose_header_says_zero_for_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = build::stream(3);
    put64(&mut file, 56, 0);
    write(dir.path(), "x.vmdk", file);
    let image = open(&dir.path().join("x.vmdk")).unwrap();
    assert!(content(&*image.disk, 4096) == guest());
}

#[test]
fn a_stream_without_a_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = build::stream(3);
    put64(&mut file, 28, 0);
    put64(&mut file, 36, 0);
    write(dir.path(), "x.vmdk", file);
    let image = check(dir.path(), "x.vmdk", &guest());
    assert_eq!(image.layers[0].variant, "streamOptimized");
}

#[test]
fn a_lost_grain_directory_is_replaced_and_told() {
    let dir = tempfile::tempdir().unwrap();
    for damage in
        [|file: &mut Vec<u8>| put64(file, 56, 1 << 40), |file: &mut Vec<u8>| put32(file, 12 * SECTOR, 99_999)]
    {
        let mut file = build::sparse();
        damage(&mut file);
        write(dir.path(), "x.vmdk", &file);
        let image = open(&dir.path().join("x.vmdk")).unwrap();
        assert!(content(&*image.disk, 4096) == guest());
        let told =
            image.layers[0].details.iter().any(|(name, value)| name == "note" && value.contains("redundant"));
        assert!(told, "{:?}", image.layers[0].details);
        // Without a copy it is an error.
        put32(&mut file, 8, 5);
        write(dir.path(), "x.vmdk", &file);
        assert_eq!(open(&dir.path().join("x.vmdk")).err().unwrap().kind(), Kind::Corrupt);
    }
}

#[test]
fn esx_sparse_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let stored = [0, 1, 5, 4, 4095, 4096, 4999];
    let mut wanted = vec![0; 5000 * SECTOR];
    put(&mut wanted, 100 * SECTOR, &[0x77; 3000 * SECTOR]);
    write(dir.path(), "base-flat.vmdk", &wanted);
    for index in stored {
        put(&mut wanted, index * SECTOR, &grain_content(index, SECTOR));
    }
    write(dir.path(), "base.vmdk", descriptor("vmfs", "RW 5000 VMFS \"base-flat.vmdk\"", ""));
    let child = descriptor(
        "vmfsSparse",
        "RW 5000 VMFSSPARSE \"x-delta.vmdk\"",
        "parentFileNameHint=\"/vmfs/volumes/gone/vm/base.vmdk\"",
    )
    .replace("parentCID=ffffffff", "parentCID=0000ABCD")
    .replace("\nCID=0000abcd", "\nCID=12");
    write(dir.path(), "x-delta.vmdk", build::cowd(&stored));
    write(dir.path(), "x.vmdk", child.replace("/vmfs/volumes/gone/vm/", ""));
    let image = check(dir.path(), "x.vmdk", &wanted);
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.layers[0].variant, "vmfsSparse");
    assert_eq!(image.layers[0].details[0], ("CID".into(), "00000012".into()));
    // A hint with the folder of the host that it was made on: the base beside it is found.
    write(dir.path(), "x.vmdk", child);
    assert!(content(&*open(&dir.path().join("x.vmdk")).unwrap().disk, 4096) == wanted);
    let mut old = build::cowd(&stored);
    put32(&mut old, 4, 3);
    write(dir.path(), "x-delta.vmdk", old);
    assert_eq!(open(&dir.path().join("x.vmdk")).err().unwrap().kind(), Kind::Unsupported);
}

#[test]
fn space_efficient_sparse_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let stored = [0, 1, 7, 3, 4095, 4096, 4999];
    let mut wanted = vec![0; 5000 * 4096];
    put(&mut wanted, 2 * 4096, &vec![0x77; 4000 * 4096]);
    write(dir.path(), "base-flat.vmdk", &wanted);
    for index in stored {
        put(&mut wanted, index * 4096, &grain_content(index, 4096));
    }
    for index in [10, 11] {
        put(&mut wanted, index * 4096, &[0; 4096]);
    }
    write(dir.path(), "base.vmdk", descriptor("vmfs", "RW 40000 VMFS \"base-flat.vmdk\"", ""));
    let child =
        descriptor("seSparse", "RW 40000 SESPARSE \"x-sesparse.vmdk\"", "parentFileNameHint=\"base.vmdk\"")
            .replace("parentCID=ffffffff", "parentCID=0000abcd");
    write(dir.path(), "x.vmdk", child);
    let file = build::sesparse(&stored, &[(10, 1), (11, 2)]);
    write(dir.path(), "x-sesparse.vmdk", &file);
    let image = check(dir.path(), "x.vmdk", &wanted);
    assert_eq!(image.layers[0].variant, "seSparse");
    for (at, value, kind) in [
        (512 + 24, 1, Kind::Unsupported), // its journal must be replayed
        (8, 1, Kind::Unsupported),
        (512, 1, Kind::Corrupt),
        (2 * 512, 0x2000_0000_0000_0000, Kind::Corrupt),
        (2 * 512, 0x1000_0000_0000_0002, Kind::Corrupt),
        (2 * 512, 0x1000_0000_ffff_ffff, Kind::Corrupt),
        (136, 0, Kind::Corrupt),
        (16, u64::MAX, Kind::Refused),
        (192, u64::MAX, Kind::Corrupt),
    ] {
        let mut broken = file.clone();
        put64(&mut broken, at, value);
        write(dir.path(), "x-sesparse.vmdk", broken);
        let error = open(&dir.path().join("x.vmdk")).err().unwrap_or_else(|| panic!("{at} = {value:#x}"));
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.path().is_some_and(|path| path.ends_with("x-sesparse.vmdk")), "{error}");
    }
}

#[test]
fn mixed_extents_in_order() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "f", [0x11; 10 * SECTOR]);
    write(dir.path(), "s", build::sparse());
    let extents = format!(
        "RW 2 FLAT \"f\" 8\nRW 5 ZERO\nRW {} SPARSE \"s\"\nRDONLY 3 FLAT \"f\" 1 partitionUUID\nNOACCESS 1 ZERO",
        build::SECTORS
    );
    write(dir.path(), "x.vmdk", descriptor("custom", &extents, ""));
    let image = open(&dir.path().join("x.vmdk")).unwrap();
    let wanted =
        [&[0x11; 2 * SECTOR][..], &[0; 5 * SECTOR], &guest(), &[0x11; 3 * SECTOR], &[0; SECTOR]].concat();
    for step in [1 << 20, 700, 512] {
        assert!(content(&*image.disk, step) == wanted, "in steps of {step}");
    }
    check_consistency(&*image.disk);
    assert_eq!(image.layers[0].files.len(), 2);
}

#[test]
fn a_descriptor_in_a_header_without_capacity() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = build::sparse();
    put64(&mut file, 12, 0);
    let text = descriptor("twoGbMaxExtentSparse", &format!("RW {} SPARSE \"s.vmdk\"", build::SECTORS), "");
    put(&mut file, SECTOR, text.as_bytes());
    write(dir.path(), "x.vmdk", file);
    write(dir.path(), "s.vmdk", build::sparse());
    // Not compared with qemu-img: 7.2 makes a disk of twice the size of it.
    assert!(content(&*open(&dir.path().join("x.vmdk")).unwrap().disk, 4096) == guest());
}

#[test]
fn what_is_refused_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vmdk");
    write(dir.path(), "f", [0x11; 10 * SECTOR]);
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    for (extents, more, kind, word) in [
        ("RW 10 VMFSRDM \"x-rdm.vmdk\"", "", Kind::Unsupported, "raw device mapping"),
        ("RW 10 VMFSRDMP \"x-rdmp.vmdk\"", "", Kind::Unsupported, "raw device mapping"),
        ("RW 10 VMFS \"vsan://52aa\"", "", Kind::Unsupported, "vsan://52aa"),
        ("NOACCESS 10 FLAT \"f\" 0", "", Kind::Unsupported, "NOACCESS"),
        ("RW 10 FLAT \"f\" 0", "encryptionKeys=\"vmware:key/list\"", Kind::Refused, "encrypted"),
        ("RW 10 FLAT \"f\" 0", "ddb.iofilters = \"vmwarevmcrypt\"", Kind::Refused, "encrypted"),
        ("RW 10 FLAT \"/etc/hostname\" 0", "", Kind::Refused, "/etc/hostname"),
        ("RW 10 FLAT \"../../etc/hostname\" 0", "", Kind::Refused, "hostname"),
        ("RW 10 FLAT \"sub\" 0", "", Kind::Refused, "regular file"),
        ("RW 10 FLAT \"gone\" 0", "", Kind::Io, "gone"),
        ("RW 11 FLAT \"f\" 0", "", Kind::Corrupt, "truncated"),
        ("RW 10 FLAT \"f\" 1", "", Kind::Corrupt, "truncated"),
        ("RW 10 FLAT \"f\" 36028797018963967", "", Kind::Corrupt, "truncated"),
        ("RW 5 FLAT \"f\" 0\nRW 5 FLAT \"f\" 4", "", Kind::Corrupt, "two extents"),
        ("RW 1 FLAT \"x.vmdk\" 0", "", Kind::Corrupt, ""),
        ("RW 10 SPARSE \"f\"", "", Kind::Corrupt, "no such header"),
        ("RW 10 SPARSE \"x.vmdk\"", "", Kind::Corrupt, "no such header"),
        ("", "", Kind::Corrupt, "no extent"),
        ("RW 36028797018963967 ZERO\nRW 36028797018963967 ZERO", "", Kind::Refused, "together"),
        ("RW 10 FLAT \"f\" 0", "parentCID=1", Kind::Corrupt, "parentFileNameHint"),
        ("RW 10 FLAT \"f\" 0", "parentCID=1\nparentFileNameHint=\"x.vmdk\"", Kind::Corrupt, "own parent"),
        (
            "RW 10 FLAT \"f\" 0",
            "parentCID=1\nparentFileNameHint=\"/etc/hostname\"",
            Kind::Refused,
            "hostname",
        ),
    ] {
        let mut text = descriptor("vmfs", extents, more);
        if more.contains("parentCID") {
            text = text.replace("parentCID=ffffffff\n", "");
        }
        write(dir.path(), "x.vmdk", format!("{text}{}", " ".repeat(600)));
        let error = open(&path).err().unwrap_or_else(|| panic!("{extents} {more}"));
        assert_eq!(error.kind(), kind, "{extents} {more}: {error}");
        assert!(error.to_string().contains(word), "{extents} {more}: {error}");
        assert!(error.path().is_some(), "{error}");
    }
    // Pieces of a disk, opened alone.
    let mut piece = build::sparse();
    put64(&mut piece, 28, 0);
    for file in [piece, build::cowd(&[0]), build::sesparse(&[0], &[])] {
        write(dir.path(), "x.vmdk", file);
        let error = open(&path).err().unwrap();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("descriptor")));
    }
    // Two images that are each other's parent.
    for (name, other) in [("x.vmdk", "y.vmdk"), ("y.vmdk", "x.vmdk")] {
        let text = descriptor("vmfs", "RW 10 FLAT \"f\" 0", &format!("parentFileNameHint=\"{other}\""))
            .replace("parentCID=ffffffff", "parentCID=0000abcd");
        write(dir.path(), name, text);
    }
    assert_eq!(open(&path).err().unwrap().kind(), Kind::Corrupt);
    // More text than any descriptor has.
    let text = descriptor("vmfs", "RW 10 FLAT \"f\" 0", "");
    write(dir.path(), "x.vmdk", format!("{text}{}", " ".repeat(4 << 20)));
    assert_eq!(open(&path).err().unwrap().kind(), Kind::Refused);
}

#[test]
fn extents_elsewhere_need_leave() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("vm")).unwrap();
    write(dir.path(), "f", [0x11; 10 * SECTOR]);
    write(&dir.path().join("vm"), "x.vmdk", descriptor("vmfs", "RW 10 FLAT \"../f\" 0", ""));
    let path = dir.path().join("vm/x.vmdk");
    assert_eq!(open(&path).err().unwrap().kind(), Kind::Refused);
    let options =
        OpenOptions { gate: Gate::own_folder().allow(dir.path()).unwrap(), ..OpenOptions::default() };
    assert!(crate::formats::open(&path, &options).is_ok());
}
