//! Logs, sound and faulty: made here as the specification has them, since real ones of the old format are rare; the new format is
//! also tested with real ones (corpus.rs).

use super::super::marvin::marvin32;
use super::super::{Hive, Key};
use crate::Kind;
use crate::tree::mem::MemTree;
use crate::windows::data::Data;

/// A hive before and after some edits, of equal length.
fn pair() -> (Vec<u8>, Vec<u8>) {
    let mut hive = Hive::new();
    hive.set_time(0x1d8_0000_0000_0000);
    let key = hive.create_key(r"ControlSet001\Services\storahci").unwrap();
    hive.set(key, "Start", &Data::dword(3)).unwrap();
    hive.set(key, "Padding", &Data::binary(vec![7; 6000])).unwrap();
    let before = hive.clone().finish().unwrap();
    hive.set(key, "Start", &Data::dword(0)).unwrap();
    hive.set(key, "Padding", &Data::binary(vec![8; 6000])).unwrap();
    (before, hive.finish().unwrap())
}

fn start(hive: &Hive) -> Option<u32> {
    let key: Key = hive.key(r"controlset001\services\STORAHCI").unwrap().unwrap();
    hive.value(key, "start").unwrap().unwrap().as_dword()
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

fn checksum(bytes: &mut [u8]) {
    let sum =
        bytes[..508].chunks_exact(4).fold(0, |sum, word| sum ^ u32::from_le_bytes(word.try_into().unwrap()));
    put(bytes, 508, sum);
}

/// Says that a write was begun: number `primary`.
fn dirty(mut hive: Vec<u8>, primary: u32) -> Vec<u8> {
    put(&mut hive, 4, primary);
    put(&mut hive, 8, primary - 1);
    checksum(&mut hive);
    hive
}

fn pages(before: &[u8], after: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let pages = (4096..after.len()).step_by(4096);
    let changed = pages.filter(|&at| before.get(at..at + 4096) != Some(&after[at..at + 4096]));
    changed.map(|at| (at - 4096, after[at..at + 4096].to_vec())).collect()
}

/// The start of a log.
fn copy(hive: &[u8], kind: u32, sequence: u32) -> Vec<u8> {
    let mut log = hive[..512].to_vec();
    for (at, number) in [(4, sequence), (8, sequence), (28, kind)] {
        put(&mut log, at, number);
    }
    checksum(&mut log);
    log
}

fn entry(sequence: u32, bins_len: usize, pages: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut entry = b"HvLE".to_vec();
    let body: Vec<u8> = pages
        .iter()
        .flat_map(|(at, page)| [u32::try_from(*at).unwrap(), u32::try_from(page.len()).unwrap()])
        .flat_map(u32::to_le_bytes)
        .chain(pages.iter().flat_map(|(_, page)| page.clone()))
        .collect();
    let len = (40 + body.len()).next_multiple_of(512);
    for number in [len, 0, sequence as usize, bins_len, pages.len()] {
        entry.extend(u32::try_from(number).unwrap().to_le_bytes());
    }
    entry.resize(40, 0);
    entry.extend(body);
    entry.resize(len, 0);
    let hash = marvin32(&entry[40..]);
    entry[24..32].copy_from_slice(&hash.to_le_bytes());
    let hash = marvin32(&entry[..32]);
    entry[32..40].copy_from_slice(&hash.to_le_bytes());
    entry
}

/// A log of the new format with one entry that leads from one hive to the other.
fn log(before: &[u8], after: &[u8], sequence: u32) -> Vec<u8> {
    let mut log = copy(before, 6, sequence);
    log.extend(entry(sequence, after.len() - 4096, &pages(before, after)));
    log
}

/// A log of the old format.
fn old_log(before: &[u8], after: &[u8], sequence: u32) -> Vec<u8> {
    let mut log = copy(after, 1, sequence);
    log[12..20].copy_from_slice(&before[12..20]);
    checksum(&mut log);
    log.extend(b"DIRT");
    let changed = pages(before, after);
    let dirty = |at: usize| changed.iter().any(|(page, _)| *page == at);
    log.extend((4096..after.len()).step_by(4096).map(|at| if dirty(at - 4096) { 0xff } else { 0 }));
    log.resize(log.len().next_multiple_of(512), 0);
    log.extend(changed.iter().flat_map(|(_, page)| page.clone()));
    log
}

#[track_caller]
fn refused(hive: &[u8], log1: Vec<u8>, log2: Option<Vec<u8>>, word: &str) {
    let error = Hive::open(hive.to_vec(), Some(log1), log2).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.says().contains(word), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("shut it down completely")));
}

#[test]
fn both_formats_are_replayed() {
    let (before, after) = pair();
    let hive = dirty(before.clone(), 9);
    for log in [log(&before, &after, 9), old_log(&before, &after, 9)] {
        for logs in
            [[Some(log.clone()), None], [None, Some(log.clone())], [Some(vec![0; 512]), Some(log.clone())]]
        {
            let [log1, log2] = logs;
            let opened = Hive::open(hive.clone(), log1, log2).unwrap();
            assert_eq!(start(&opened.hive), Some(0));
            let replayed = opened.replayed.unwrap();
            assert_eq!((replayed.entries, replayed.first, replayed.last), (1, 9, 9));
            let written = opened.hive.finish().unwrap();
            assert_eq!(written[4..12], [10, 0, 0, 0, 10, 0, 0, 0]);
        }
        // Of a clean hive a log says nothing, but what is written comes after it.
        let mut clean = Hive::open(before.clone(), Some(log), None).unwrap();
        assert_eq!((start(&clean.hive), clean.replayed), (Some(3), None));
        clean.hive.create_key("New").unwrap();
        assert_eq!(clean.hive.finish().unwrap()[4..12], [10, 0, 0, 0, 10, 0, 0, 0]);
    }
}

/// The two logs, the one of Windows XP, and the one of a boot configuration.
#[test]
fn logs_are_found_beside_their_hive() {
    let (before, after) = pair();
    let (whole, none) = (log(&before, &after, 9), Vec::new());
    for files in [
        &[(".LOG1", &whole)][..],
        &[(".LOG1", &whole), (".LOG2", &none), (".LOG", &none)],
        &[(".LOG1", &none), (".LOG2", &whole)],
        &[(".LOG", &whole)],
        &[(".LOG", &whole), (".LOG1", &none), (".LOG2", &none)],
    ] {
        let tree = MemTree::new().file("/Boot/BCD", dirty(before.clone(), 9));
        let tree =
            files.iter().fold(tree, |tree, (ending, log)| tree.file(&format!("/Boot/BCD{ending}"), log));
        let (hive, replayed) = crate::windows::hives::open(&tree, "/Boot/BCD").unwrap().unwrap();
        assert_eq!((start(&hive), replayed.is_some()), (Some(0), true), "{files:?}");
    }
}

#[test]
fn a_base_block_that_was_torn_comes_from_the_log() {
    let (before, after) = pair();
    let mut torn = before.clone();
    torn[60] ^= 1;
    for log in [log(&before, &after, 9), old_log(&before, &after, 9)] {
        let opened = Hive::open(torn.clone(), Some(log), None).unwrap();
        assert_eq!(start(&opened.hive), Some(0));
        assert!(opened.replayed.unwrap().base_block);
        let written = opened.hive.finish().unwrap();
        assert_eq!(written[48..112], before[48..112]);
    }
    refused(&torn, Vec::new(), None, "the checksum of its base block is wrong, and .LOG1 is empty");
}

#[test]
fn entries_go_on_in_the_other_log() {
    let (before, after) = pair();
    let hive = dirty(before.clone(), 9);
    let (first, second) = (log(&before, &before, 9), log(&before, &after, 10));
    for (log1, log2, order) in [(&first, &second, [1, 2]), (&second, &first, [2, 1])] {
        let opened = Hive::open(hive.clone(), Some(log1.clone()), Some(log2.clone())).unwrap();
        assert_eq!((start(&opened.hive), &opened.replayed.unwrap().logs[..]), (Some(0), &order[..]));
    }
    // One that was done before the hive was written is not gone back to.
    let older = log(&before, &after, 7);
    let opened = Hive::open(hive.clone(), Some(older.clone()), Some(first.clone())).unwrap();
    let replayed = opened.replayed.unwrap();
    assert_eq!((start(&opened.hive), &replayed.logs[..]), (Some(3), &[2][..]));
    assert!(replayed.left_out[0].contains(".LOG1 is older than the hive"), "{replayed:?}");
    refused(&hive, older, None, ".LOG1 is older than the hive");
    // A gap ends it, and that is said.
    let later = log(&before, &after, 11);
    let opened = Hive::open(hive.clone(), Some(first), Some(later)).unwrap();
    let replayed = opened.replayed.unwrap();
    assert_eq!((start(&opened.hive), replayed.last), (Some(3), 9));
    assert!(replayed.left_out[0].contains("goes on with 11, and 10 is missing"), "{replayed:?}");
}

#[test]
fn a_faulty_log_is_never_half_applied() {
    let (before, after) = pair();
    let hive = dirty(before.clone(), 9);
    let whole = log(&before, &after, 9);
    let with = |change: fn(&mut Vec<u8>)| {
        let mut log = whole.clone();
        change(&mut log);
        log
    };
    refused(&hive, with(|log| log.truncate(log.len() - 512)), None, "entry 9 is cut off");
    refused(&hive, with(|log| log[700] ^= 1), None, "entry 9 has a wrong hash");
    refused(&hive, with(|log| log[512 + 16] ^= 1), None, "entry 9 has a wrong hash");
    refused(&hive, with(|log| log[512 + 12] = 8), None, "does not have the sequence number of the log");
    refused(&hive, with(|log| log[100] ^= 1), None, "has a base block with a wrong checksum");
    refused(&hive, with(|log| log.truncate(512)), None, "sequence numbers 9 and 8");
    refused(&hive, with(|log| log.truncate(100)), None, ".LOG1 is empty");
    refused(&hive, vec![b'x'; 1024], None, ".LOG1 is not a log of a hive");
    refused(&hive, copy(&before, 5, 9), None, "unknown type 5");
    let begun = with(|log| {
        put(log, 8, 8);
        checksum(log);
    });
    refused(&hive, begun, None, "its sequence numbers differ");

    // What is whole before the fault counts, as with Windows; the rest is told.
    let mut second = log(&before, &before, 9);
    let mut torn = entry(10, after.len() - 4096, &pages(&before, &after));
    torn[600] ^= 1;
    second.extend(torn);
    let opened = Hive::open(hive.clone(), Some(second), None).unwrap();
    let replayed = opened.replayed.unwrap();
    assert_eq!((start(&opened.hive), replayed.last), (Some(3), 9));
    assert!(replayed.left_out[0].contains("entry 10 has a wrong hash"), "{replayed:?}");

    // An entry may say that the bins are long; it gets room for what it brings.
    let mut huge = copy(&before, 6, 9);
    huge.extend(entry(9, 256 << 20, &pages(&before, &after)));
    refused(&hive, huge, None, "does not bring them");
    let mut outside = copy(&before, 6, 9);
    outside.extend(entry(9, 4096, &[(4096, vec![0; 4096])]));
    refused(&hive, outside, None, "beyond the bins");
}

#[test]
fn a_faulty_log_of_the_old_format_is_refused() {
    let (before, after) = pair();
    let hive = dirty(before.clone(), 9);
    let whole = old_log(&before, &after, 9);
    let mut other = whole.clone();
    other[12] ^= 1;
    checksum(&mut other);
    refused(&hive, other, None, "its time is not the hive's");
    for (fault, word) in [
        (whole[..whole.len() - 1].to_vec(), "cut off among its pages"),
        (whole[..514].to_vec(), "no list of the pages"),
        (whole[..517].to_vec(), "cut off in the list"),
        ([&whole[..512], b"dirt", &whole[516..]].concat(), "no list of the pages"),
    ] {
        let error = Hive::open(hive.clone(), Some(fault), None).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert!(error.says().contains(word), "{error}");
    }
}

#[test]
fn entries_of_another_hive_do_not_pass() {
    let folder = "hives/regipy/SYSTEM_B/SYSTEM_B";
    let (Some(hive), Some(log1), Some(log2)) = (
        super::corpus::real("hives/regipy/SYSTEM_WIN_10_1709"),
        super::corpus::real(&format!("{folder}.LOG1")),
        super::corpus::real(&format!("{folder}.LOG2")),
    ) else {
        return;
    };
    let error = Hive::open(dirty(hive, 1622), Some(log1), Some(log2)).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert!(error.hint_text().unwrap().contains("Give the right ones"), "{error:?}");
}
