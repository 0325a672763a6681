//! What the check finds: nothing in sound images, and each damage by name.

use super::build::{self, GRAIN, SECTOR, descriptor, put, put32, put64};
use super::qemu::tools;
use crate::check::{Checked, Severity};
use crate::error::Result;
use crate::gate::Gate;
use crate::source::Source;
use crate::{corpus, vmdk};
use std::path::Path;

fn check(path: &Path) -> Result<Checked> {
    vmdk::check(Source::open(path).unwrap(), &Gate::own_folder())
}

fn problems(path: &Path) -> Vec<(Severity, String)> {
    check(path).unwrap().problems.into_iter().map(|problem| (problem.severity, problem.says)).collect()
}

/// The image with one damage, and the words that the check has for it.
fn damaged(bytes: &[u8], severity: Severity, words: &str, damage: impl Fn(&mut Vec<u8>)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vmdk");
    let mut bytes = bytes.to_vec();
    damage(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let found = problems(&path);
    let named = found.iter().any(|(how, says)| *how == severity && says.contains(words));
    assert!(named, "{words}: {found:?}");
}

#[test]
fn sound_images_have_no_problem() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vmdk");
    for bytes in [build::sparse(), build::stream(1), build::stream(3)] {
        std::fs::write(&path, bytes).unwrap();
        let checked = check(&path).unwrap();
        assert_eq!(checked.counts, [0; 3], "{checked:?}");
        assert_eq!(checked.allocated.0, (8 * GRAIN + 3) as u64 * SECTOR as u64);
    }
    for (kind, bytes, sectors, allocated) in [
        ("VMFSSPARSE", build::cowd(&[0, 1, 4, 4095, 4096]), 5000, 5 * 512),
        ("SESPARSE", build::sesparse(&[0, 1, 4, 4095, 4096], &[(7, 2)]), 40_000, 5 * 4096),
    ] {
        std::fs::write(dir.path().join("data"), bytes).unwrap();
        std::fs::write(&path, descriptor("x", &format!("RW {sectors} {kind} \"data\""), "")).unwrap();
        let checked = check(&path).unwrap();
        assert_eq!(checked.counts, [0; 3], "{kind}: {checked:?}");
        assert_eq!(checked.allocated.0, allocated);
    }
}

#[test]
fn each_damage_of_a_sparse_extent_is_named() {
    use Severity::{Corrupt, Leak, Note};
    let sound = build::sparse();
    let (copy, table) = (4 * SECTOR, 13 * SECTOR);
    damaged(&sound, Corrupt, "differs from its redundant copy in 1 entries; entry 5", |x| {
        put32(x, copy + 5 * 4, 0);
    });
    damaged(&sound, Corrupt, "where another grain lies", |x| {
        for at in [copy, table] {
            put32(x, at + 7 * 4, 24);
        }
    });
    damaged(&sound, Corrupt, "the file ends at", |x| put32(x, table + 9 * 4, 0x0fff_ffff));
    damaged(&sound, Corrupt, "over the redundant grain table", |x| put32(x, table + 9 * 4, 4));
    damaged(&sound, Corrupt, "over the grain table", |x| put32(x, table + 9 * 4, 14));
    damaged(&sound, Corrupt, "only in the redundant grain directory", |x| put32(x, 12 * SECTOR + 4, 0));
    damaged(&sound, Corrupt, "two grain tables share bytes", |x| put32(x, 12 * SECTOR + 4, 13));
    damaged(&sound, Corrupt, "primary grain directory cannot be used", |x| {
        put32(x, 12 * SECTOR, 0x0fff_ffff)
    });
    damaged(&sound, Corrupt, "the redundant grain directory:", |x| put32(x, 3 * SECTOR, 0x0fff_ffff));
    damaged(&sound, Note, "not closed cleanly", |x| put(x, 72, &[1]));
    damaged(&sound, Leak, "4096 bytes are used by nothing", |x| {
        for at in [copy, table] {
            put32(x, at + 9 * 4, 0);
        }
    });
    damaged(&sound, Leak, "4096 bytes are used by nothing", |x| x.resize(x.len() + 4096, 0));
    damaged(&sound, Corrupt, "the file ends at", |x| x.truncate(x.len() - 6 * SECTOR));
}

#[test]
fn each_damage_of_a_stream_is_named() {
    use Severity::{Corrupt, Leak, Note};
    let sound = build::stream(3);
    let end = sound.len();
    let sectors = |at: usize| end / SECTOR - at;
    // Behind the last grain: marker, table, marker, table, marker, directory, marker, footer, marker.
    let first_table = sectors(4 + 1 + 5 + 4) * SECTOR;
    damaged(&sound, Corrupt, "the grain marker is of sector", |x| put64(x, 4 * SECTOR, 8));
    damaged(&sound, Corrupt, "another marker where that of grain 0", |x| put32(x, 4 * SECTOR + 8, 0));
    damaged(&sound, Corrupt, "bytes compressed; a grain is", |x| put32(x, 4 * SECTOR + 8, 0x00ff_ffff));
    damaged(&sound, Corrupt, "version is 0x1 in the header but 0x3 in the footer", |x| put32(x, 4, 1));
    damaged(&sound, Corrupt, "cut off", |x| x.truncate(end - SECTOR));
    damaged(&sound, Corrupt, "where no grain table is", |x| put32(x, first_table - SECTOR + 12, 7));
    damaged(&sound, Leak, "bytes are used by nothing", |x| put32(x, first_table, 0));
    damaged(&sound, Corrupt, "where another grain lies", |x| {
        // Grain 0 claims the sectors of grain 1, too.
        put32(x, 4 * SECTOR + 8, 700);
    });
    // Two grains change places: each marker goes with its grain.
    damaged(&sound, Note, "1 compressed grains lie before", |x| {
        let (a, b) = (x[4 * SECTOR..5 * SECTOR].to_vec(), x[5 * SECTOR..6 * SECTOR].to_vec());
        put(x, 4 * SECTOR, &b);
        put(x, 5 * SECTOR, &a);
        put32(x, first_table, 5);
        put32(x, first_table + 4, 4);
    });
}

#[test]
fn extents_are_checked_against_the_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vmdk");
    std::fs::write(dir.path().join("flat"), vec![0; 20 * SECTOR]).unwrap();
    std::fs::write(dir.path().join("sparse"), build::sparse()).unwrap();
    for (extents, severity, words) in [
        ("RW 20 FLAT \"flat\" 0", None, ""),
        ("RW 20 VMFS \"flat\"", None, ""),
        (
            "RW 12 FLAT \"flat\" 0",
            Some(Severity::Leak),
            "flat: has 10240 bytes, the descriptor uses those up to 6144",
        ),
        ("RW 20 FLAT \"flat\" 1", Some(Severity::Corrupt), "flat: truncated"),
        ("RW 20 FLAT \"gone\" 0", Some(Severity::Corrupt), "\"gone\", which cannot be opened"),
        ("RW 10 FLAT \"flat\" 0\nRW 11 FLAT \"flat\" 9", Some(Severity::Corrupt), "for two extents"),
        (
            "RW 4000 SPARSE \"sparse\"",
            Some(Severity::Corrupt),
            "the header says 4795 sectors, the descriptor 4000",
        ),
        ("RW 20 SPARSE \"flat\"", Some(Severity::Corrupt), "has no such header"),
        ("RW 20 FLUT \"flat\"", Some(Severity::Corrupt), "unknown type"),
        ("", Some(Severity::Corrupt), "names no extent"),
    ] {
        std::fs::write(&path, descriptor("x", extents, "")).unwrap();
        let found = problems(&path);
        match severity {
            None => assert!(found.is_empty(), "{extents}: {found:?}"),
            Some(severity) => assert!(
                found.iter().any(|(how, says)| *how == severity && says.contains(words)),
                "{extents}: {found:?}"
            ),
        }
    }
    std::fs::write(&path, descriptor("x", "RW 20 FLAT \"/etc/hostname\" 0", "")).unwrap();
    assert_eq!(check(&path).unwrap_err().kind(), crate::Kind::Refused);
}

#[test]
fn what_qemu_writes_is_sound() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    corpus::write_pattern(&dir.path().join("a.raw"), 70 << 20);
    for subformat in [
        "monolithicSparse",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "streamOptimized",
    ] {
        let option = format!("subformat={subformat}");
        corpus::run(dir.path(), "qemu-img", &["convert", "-O", "vmdk", "-o", &option, "a.raw", "a.vmdk"]);
        let checked = check(&dir.path().join("a.vmdk")).unwrap();
        assert_eq!(checked.counts, [0; 3], "{subformat}: {checked:?}");
    }
}

#[test]
fn real_images_are_sound() {
    for row in corpus::rows("vmdk-") {
        let unpacked = row.unpack();
        let checked = check(&unpacked.path);
        let sound = row.expected.starts_with("raw:") || row.expected.starts_with("nz4k:");
        match checked {
            Ok(checked) if sound => {
                assert_eq!(checked.count(Severity::Corrupt), 0, "{}: {checked:?}", row.path);
            }
            Ok(checked) if row.expected.starts_with("refuse") => {
                assert!(checked.count(Severity::Corrupt) > 0, "{}: {checked:?}", row.path);
            }
            Err(error) => assert!(!sound, "{}: {error}", row.path),
            Ok(_) => {}
        }
    }
}
