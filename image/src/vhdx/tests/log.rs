//! Logs that must be replayed: ours against QEMU's replay, and logs that no writer makes.

use super::forge::*;
use super::{open, raw};
use crate::corpus;
use crate::error::{Error, Kind, Result};
use crate::formats::{self, OpenOptions};
use crate::limits;
use crate::units::GuestOffset;
use std::path::Path;
use uuid::Uuid;

const S: usize = 4096;

/// A disk of four blocks of 1 MiB in the file, of which the table knows none: only the log does.
fn dirty(log: Vec<u8>) -> (Forge, u64) {
    let mut forge = Forge::new(4 * MIB, MIB, 512);
    let first = forge.file_len;
    for n in 0..4 {
        let content = (0..MIB).map(|at| (at / 4096) as u8 ^ (0x30 * (n as u8 + 1))).collect();
        forge.bytes.push((first + n * MIB, content));
    }
    forge.file_len = first + 4 * MIB;
    forge.log_length = log.len() as u32;
    forge.log = Some(log);
    (forge, first)
}

/// A sector of the block table with these entries at its start.
fn table(entries: &[u64]) -> Change {
    let mut sector: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    sector.resize(S, 0);
    Change::Sector(BAT_AT, sector)
}

fn block_at(n: u64) -> u64 {
    Forge::new(4 * MIB, MIB, 512).file_len + n * MIB
}

/// The table entry of a block that is the n-th in the file.
fn stored(n: u64) -> u64 {
    block_at(n) | FULLY
}

/// Which block of the file each block of the disk is, by its first byte; 0 for zeros.
fn blocks(path: &Path) -> Result<[u8; 4]> {
    let image = formats::open(path, &OpenOptions::default())?;
    let mut found = [0; 4];
    for (n, found) in found.iter_mut().enumerate() {
        let mut byte = [0];
        image.disk.read_at(GuestOffset(n as u64 * MIB), &mut byte)?;
        *found = byte[0] / 0x30;
    }
    Ok(found)
}

/// Our reading of a file with this log, which must leave the file as it is; and QEMU's, where `qemu` takes the log.
fn replayed(log: Vec<u8>, qemu: bool) -> Result<[u8; 4]> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.vhdx");
    dirty(log).0.write(&path);
    let before = std::fs::read(&path).unwrap();
    let found = blocks(&path);
    assert!(std::fs::read(&path).unwrap() == before, "the source was changed");
    if qemu && corpus::run(dir.path(), "cp", &["x.vhdx", "q.vhdx"]).is_some() {
        let Some(_) = corpus::run(dir.path(), "qemu-img", &["check", "-q", "-r", "all", "q.vhdx"]) else {
            return found;
        };
        corpus::run(dir.path(), "qemu-img", &["convert", "-O", "raw", "q.vhdx", "q.raw"]);
        corpus::assert_same(&*open(&path).disk, &*raw(&dir.path().join("q.raw")), "QEMU's replay");
    }
    found
}

fn one(sequence: u64, tail: usize, entries: &[u64]) -> Vec<u8> {
    let mut entry = Entry::new(sequence, tail as u32, vec![table(entries)]);
    (entry.flushed, entry.last) = (block_at(4), block_at(4));
    entry.bytes()
}

#[test]
fn the_active_sequence_is_replayed_from_its_tail() {
    let at = |n: usize| n * 2 * S; // where the n-th entry of two sectors lies
    let ring = |entries: &[(usize, Vec<u8>)]| ring(MIB as usize, entries);
    let last = MIB as usize - S;

    assert_eq!(replayed(ring(&[(0, one(5, 0, &[stored(0), stored(1)]))]), true).unwrap(), [1, 2, 0, 0]);
    // Two entries: the later one counts where both write.
    let two = [(0, one(5, 0, &[stored(0)])), (at(1), one(6, 0, &[stored(2), stored(3)]))];
    assert_eq!(replayed(ring(&two), true).unwrap(), [3, 4, 0, 0]);
    // In the middle of the ring, and around its end.
    let middle = [(at(9), one(5, at(9), &[0, stored(1)])), (at(10), one(6, at(9), &[stored(2)]))];
    assert_eq!(replayed(ring(&middle), true).unwrap(), [3, 0, 0, 0]);
    let around = [(last, one(5, last, &[stored(0)])), (S, one(6, last, &[0, stored(1)]))];
    assert_eq!(replayed(ring(&around), true).unwrap(), [0, 2, 0, 0]);
    // An old sequence with a lower number, and remains of one.
    let old = [
        (at(0), one(50, at(0), &[stored(0)])),
        (at(1), one(51, at(0), &[stored(1)])),
        (at(2), one(9, at(2), &[stored(3)])),
        (at(3), one(10, at(2), &[stored(3)])),
    ];
    assert_eq!(replayed(ring(&old), false).unwrap(), [2, 0, 0, 0]);
    // The last entry no longer needs the first one.
    let mut first = Entry::new(5, 0, vec![table(&[stored(0)])]);
    first.changes.push(Change::Zero(block_at(2), MIB));
    let tail = [(0, first.bytes()), (3 * S, one(6, 3 * S, &[0, stored(2)]))];
    assert_eq!(first.bytes().len(), 2 * S);
    let tail_close = [(0, first.bytes()), (2 * S, one(6, 2 * S, &[0, stored(2)]))];
    assert_eq!(replayed(ring(&tail_close), false).unwrap(), [0, 3, 0, 0]);
    // With a gap of a sector between them they are two sequences; the higher one counts.
    assert_eq!(replayed(ring(&tail), false).unwrap(), [0, 3, 0, 0]);
    // A torn last entry, and one of another log, end the sequence.
    let mut torn = one(6, 0, &[stored(3)]);
    torn[S + 100] ^= 1;
    assert_eq!(replayed(ring(&[(0, one(5, 0, &[stored(0)])), (at(1), torn)]), false).unwrap(), [1, 0, 0, 0]);
    let mut foreign = Entry::new(6, 0, vec![table(&[stored(3)])]);
    foreign.guid = Uuid::from_u128(7);
    let foreign = [(0, one(5, 0, &[stored(0)])), (at(1), foreign.bytes())];
    assert_eq!(replayed(ring(&foreign), false).unwrap(), [1, 0, 0, 0]);
    // A whole entry whose predecessor is gone is no sequence.
    let lost = [(at(1), one(6, 0, &[stored(3)])), (at(5), one(3, at(5), &[stored(1)]))];
    assert_eq!(replayed(ring(&lost), false).unwrap(), [2, 0, 0, 0]);
}

/// One entry with these changes must read as a file into which the test itself wrote them, and as QEMU replays it.
fn check_changes(changes: Vec<Change>, qemu: bool) {
    let mut entry = Entry::new(0x1_0000_0009, 0, changes.clone()); // both halves of a data sector's number count
    (entry.flushed, entry.last) = (block_at(4), block_at(4));
    let log = ring(2 * MIB as usize, &[(0, entry.bytes())]);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (mut forge, _) = dirty(log.clone());
    forge.write(&path("dirty.vhdx"));
    for change in changes {
        forge.bytes.push(match change {
            Change::Zero(at, len) => (at, vec![0; len as usize]),
            Change::Sector(at, content) => (at, content),
        });
    }
    forge.log = None;
    forge.write(&path("clean.vhdx"));
    corpus::assert_same(&*open(&path("dirty.vhdx")).disk, &*open(&path("clean.vhdx")).disk, "plain writes");
    replayed(log, qemu).unwrap();
}

#[test]
fn every_sort_of_change_is_replayed() {
    let sector = S as u64;
    let at = |block: u64, n: u64| block_at(block) + n * sector;
    let all = table(&[stored(0), stored(1), stored(2), stored(3)]);
    // Zeros over half a block, then data into them, then zeros that cut both.
    check_changes(
        vec![
            all.clone(),
            Change::Zero(at(0, 0), 16 * sector),
            Change::Sector(at(0, 4), vec![0xAA; S]),
            Change::Sector(at(0, 5), vec![0xBB; S]),
            Change::Zero(at(0, 5), sector),
            Change::Sector(at(3, 255), (0..S).map(|n| n as u8 ^ (n >> 8) as u8).collect()),
            Change::Zero(at(1, 32), 0),
        ],
        true,
    );
    // As many descriptors as fit the first sector, and more. QEMU (seen in 7.2) keeps
    // only the last of several sectors of descriptors and gives up.
    for (count, qemu) in [(125, true), (126, false), (127, false), (320, false)] {
        let mut changes: Vec<Change> = (0..count)
            .map(|n| match n % 3 {
                0 => Change::Zero(at(1, n * 7 % 250), 5 * sector),
                _ => Change::Sector(at(n % 4, n * 11 % 256), vec![n as u8; S]),
            })
            .collect();
        changes.push(all.clone());
        check_changes(changes, qemu);
    }
    // An entry without changes is an entry.
    let empty = Entry::new(6, 0, Vec::new());
    assert_eq!(empty.bytes().len(), S);
    let log = ring(MIB as usize, &[(0, one(5, 0, &[stored(0)])), (2 * S, empty.bytes())]);
    assert_eq!(replayed(log, false).unwrap(), [1, 0, 0, 0]);
}

/// The file was to grow when the writer died: what the log says of its length counts.
#[test]
fn a_file_that_was_growing_is_extended_with_zeros() {
    let grown = block_at(8);
    let mut entry = Entry::new(5, 0, vec![table(&[stored(0), block_at(7) | FULLY])]);
    (entry.flushed, entry.last) = (block_at(4), grown);
    assert_eq!(replayed(ring(MIB as usize, &[(0, entry.bytes())]), false).unwrap(), [1, 0, 0, 0]);
    entry.last = grown - MIB;
    let error = replayed(ring(MIB as usize, &[(0, entry.bytes())]), false).unwrap_err();
    assert!(error.to_string().contains("the file ends at"), "{error}");
    entry.flushed = block_at(4) + 1;
    let error = replayed(ring(MIB as usize, &[(0, entry.bytes())]), false).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains("truncated"), "{error}");
}

#[test]
fn logs_that_cannot_be_are_refused() {
    let refused = |log: Vec<u8>| -> Error { replayed(log, false).unwrap_err() };
    let entry = |change: Change| ring(MIB as usize, &[(0, Entry::new(5, 0, vec![change]).bytes())]);
    let error = refused(vec![0; MIB as usize]);
    assert!(error.kind() == Kind::Corrupt && error.says().contains("no valid sequence"), "{error}");
    for target in [0, 64 << 10, 128 << 10, LOG_AT, LOG_AT + MIB - S as u64] {
        let error = refused(entry(Change::Sector(target, vec![1; S])));
        assert!(error.kind() == Kind::Corrupt && error.says().contains("over"), "{error}");
    }
    refused(entry(Change::Zero(BAT_AT, !0xfff)));
    refused(entry(Change::Zero(LOG_AT - 4096, 8192)));
    refused(entry(Change::Sector(!0xfff, vec![1; S])));
    refused(entry(Change::Sector(BAT_AT + 512, vec![1; S])));
    // One entry that claims to be its own successor, all around the ring.
    let endless: Vec<(usize, Vec<u8>)> =
        (0..256).map(|n| (n * S, Entry::new(5, 0, vec![]).bytes())).collect();
    assert_eq!(replayed(ring(MIB as usize, &endless), false).unwrap(), [0; 4]);

    let kind = |forge: Forge| {
        let dir = tempfile::tempdir().unwrap();
        forge.write(&dir.path().join("x.vhdx"));
        blocks(&dir.path().join("x.vhdx")).unwrap_err().kind()
    };
    let (mut forge, _) = dirty(ring(MIB as usize, &[(0, one(5, 0, &[]))]));
    forge.log_version = 1;
    assert_eq!(kind(forge.clone()), Kind::Unsupported);
    forge.log_version = 0;
    forge.log_length = limits::VHDX_LOG.0 as u32 + MIB as u32;
    assert_eq!(kind(forge.clone()), Kind::Refused);
    forge.log_length = 4096;
    assert_eq!(kind(forge.clone()), Kind::Corrupt);
    forge.log_length = 0;
    assert_eq!(kind(forge), Kind::Corrupt);
}

/// Entries that overlap in every sector of the largest log: refused before the square of its length is read.
#[test]
fn effort_is_bounded() {
    let length = limits::VHDX_LOG.0 as usize;
    let mut log = vec![0; length];
    for at in (0..length).step_by(S) {
        let mut head = Entry::new(5, 0, Vec::new()).bytes();
        head[8..12].copy_from_slice(&(length as u32).to_le_bytes());
        log[at..at + S].copy_from_slice(&head);
    }
    let error = super::super::log::active_sequence(&log, LOG_GUID).map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
}
