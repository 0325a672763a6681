//! Registry hives and their logs: what is done with an input, and what fuzzing starts from.
//!
//! An input of `hive` is a hive file; what is left of it behind whole pages says what is edited. One of `hive_log` is the length of
//! a hive (32 bits, little-endian), that of its first log, the hive, that log, and for the rest the second one. Checksums are made right;
//! the hashes of entries are not asked for in the fuzzer's build.

use crate::limit_memory;
use landfall_boot::windows::data::Data;
use landfall_boot::windows::hive::{Hive, Key};
use landfall_boot::{Error, Kind};
use std::sync::Once;

const PAGE: usize = 4096;

fn put(bytes: &mut [u8], at: usize, number: u32) {
    if let Some(field) = bytes.get_mut(at..at + 4) {
        field.copy_from_slice(&number.to_le_bytes());
    }
}

/// Makes the checksum of a base block right.
fn repair(bytes: &mut [u8]) {
    if bytes.len() < 512 || !bytes.starts_with(b"regf") {
        return;
    }
    let words = bytes[..508].chunks_exact(4);
    let sum = words.fold(0, |sum, word| sum ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    put(bytes, 508, sum);
}

fn limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(limit_memory);
}

/// The input as a hive: opened, read, edited, written, opened again.
pub fn hive(input: &[u8]) {
    limit();
    let (file, edits) = input.split_at(input.len() / PAGE * PAGE);
    let mut file = file.to_vec();
    if file.starts_with(b"regf") {
        file.copy_within(4..8, 8);
        repair(&mut file);
    }
    if let Ok(opened) = Hive::open(file, None, None) {
        exercise(opened.hive, edits);
    }
}

/// The input as a hive with two logs.
pub fn logs(input: &[u8]) {
    limit();
    let Some((lengths, rest)) = input.split_at_checked(8) else { return };
    let length =
        |at: usize| u32::from_le_bytes([lengths[at], lengths[at + 1], lengths[at + 2], lengths[at + 3]]);
    let (mut hive, rest) = cut(rest, length(0));
    let (mut log1, mut log2) = cut(&rest, length(4));
    for file in [&mut hive, &mut log1, &mut log2] {
        repair(file);
    }
    if let Ok(opened) = Hive::open(hive, Some(log1), Some(log2)) {
        exercise(opened.hive, &[0, 0, 0, 0, 1, 1, 1, 9]);
    }
}

fn cut(all: &[u8], at: u32) -> (Vec<u8>, Vec<u8>) {
    let (first, second) = all.split_at(all.len().min(at as usize));
    (first.to_vec(), second.to_vec())
}

/// A valid hive takes every edit or refuses it before anything is changed.
fn expect<T>(done: Result<T, Error>) {
    if let Err(error) = done {
        assert!(matches!(error.kind(), Kind::Refused | Kind::Unsupported), "{error}");
    }
}

fn exercise(mut hive: Hive, edits: &[u8]) {
    for edit in edits.chunks_exact(4).take(64) {
        let mut key: Key = hive.root();
        let mut path = String::new();
        for step in &edit[1..3] {
            let below = hive.subkeys(key).expect("a valid key");
            if !below.is_empty() {
                let (name, next) = &below[usize::from(*step) % below.len()];
                path = format!("{path}\\{name}");
                key = *next;
            }
        }
        let number = edit[3];
        let size = [0, 3, 4, 5, 60, 4000, 16344, 16345, 40000][usize::from(number) % 9];
        let data = Data { kind: u32::from(number), bytes: vec![number; size] };
        let values = hive.values(key).expect("valid values");
        match edit[0] % 5 {
            0 => expect(hive.create_key(&format!("{path}\\New {number}\\Below"))),
            1 => expect(hive.set(key, &format!("New {number}"), &data)),
            2 => values.first().into_iter().for_each(|(name, _)| expect(hive.set(key, name, &data))),
            3 => values.last().into_iter().for_each(|(name, _)| expect(hive.delete_value(key, name))),
            _ => expect(hive.delete_key(&path)),
        }
    }
    let contents = hive.validate().expect("still valid");
    let written = hive.finish().expect("can be written");
    let again = Hive::open(written, None, None).expect("can be opened");
    assert_eq!(again.hive.validate().expect("is valid"), contents);
}

/// Inputs to start from: target, name, bytes.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut hive = Hive::new();
    for n in 0..600u32 {
        let key = hive.create_key(&format!("Many\\Key {n}")).expect("a key");
        if n % 50 == 0 {
            hive.set(key, "Value", &Data::binary(vec![7; n as usize * 30])).expect("a value");
        }
    }
    let long = hive.finish().expect("a hive");
    let mut hive = Hive::new();
    let key = hive.create_key("ControlSet001\\Services\\storahci").expect("a key");
    hive.set(key, "Start", &Data::dword(3)).expect("a value");
    let before = hive.clone().finish().expect("a hive");
    hive.set(key, "Start", &Data::dword(0)).expect("a value");
    hive.set(key, "Padding", &Data::binary(vec![8; 5000])).expect("a value");
    let after = hive.finish().expect("a hive");
    let mut dirty = before.clone();
    put(&mut dirty, 4, 2);
    let bins_len = u32::try_from(after.len() - PAGE).expect("a small hive");

    let start = |kind: u32| {
        let mut log = before[..512].to_vec();
        for (at, number) in [(4, 2), (8, 2), (28, kind), (40, bins_len)] {
            put(&mut log, at, number);
        }
        repair(&mut log);
        log
    };
    let mut entries = start(6);
    entries.extend(b"HvLE");
    let len = (40 + 8 + after.len() - PAGE).next_multiple_of(512);
    for number in [u32::try_from(len).expect("a small hive"), 0, 2, bins_len, 1, 0, 0, 0, 0, 0, bins_len] {
        entries.extend(number.to_le_bytes());
    }
    entries.extend(&after[PAGE..]);
    entries.resize(512 + len, 0);
    let mut vector = start(1);
    vector.extend(b"DIRT");
    vector.resize(516 + (after.len() - PAGE) / PAGE, 0xff);
    vector.resize(1024, 0);
    vector.extend(&after[PAGE..]);
    let input = |log1: &[u8], log2: &[u8]| {
        let lengths = [dirty.len(), log1.len()].map(|len| u32::try_from(len).expect("small").to_le_bytes());
        [&lengths.concat(), &dirty[..], log1, log2].concat()
    };
    vec![
        ("hive", "long", [&long[..], &[0, 0, 0, 6, 4, 0, 3, 0]].concat()),
        ("hive", "short", [&before[..], &[0, 0, 0, 1, 2, 0, 0, 8]].concat()),
        ("hive_log", "entries", input(&entries, &[])),
        ("hive_log", "second", input(&[], &entries)),
        ("hive_log", "vector", input(&vector, &[])),
    ]
}
