//! Damage: a hive or a log with flipped bytes is refused or read, and edited or not, within bounds and without a panic.

use super::super::Hive;
use super::corpus::real;
use super::model::Random;
use crate::Kind;
use crate::windows::data::Data;
use std::time::Instant;

/// The base block's checksum made right, so that what lies behind it is reached.
fn repair(hive: &mut [u8]) {
    let sum = hive[..508].chunks_exact(4).fold(0, |sum, w| sum ^ u32::from_le_bytes(w.try_into().unwrap()));
    hive[508..512].copy_from_slice(&sum.to_le_bytes());
}

/// Reads all, edits some, writes.
fn exercise(bytes: Vec<u8>) -> bool {
    let Ok(opened) = Hive::open(bytes, None, None) else { return false };
    let mut hive = opened.hive;
    hive.validate().expect("what was opened is valid");
    let names: Vec<String> = hive.subkeys(hive.root()).unwrap().into_iter().map(|(name, _)| name).collect();
    // What is valid takes every edit, or refuses it before anything is changed.
    let edits = (|| {
        let key = hive.create_key("Added\\Key")?;
        hive.set(key, "Value", &Data::binary(vec![1; 20_000]))?;
        hive.delete_value(key, "Value")?;
        if let Some(name) = names.first() {
            hive.delete_key(name)?;
        }
        hive.validate()
    })();
    if let Err(error) = edits {
        assert!(matches!(error.kind(), Kind::Refused | Kind::Unsupported), "{error}");
    }
    hive.finish().unwrap();
    true
}

/// Flips bytes in `rounds` copies; how many are read.
fn flip(path: &str, rounds: usize, seed: u64) -> Option<usize> {
    let sound = real(path)?;
    let mut random = Random::new(seed);
    let mut read = 0;
    let start = Instant::now();
    for _ in 0..rounds {
        let mut bytes = sound.clone();
        for _ in 0..=random.below(4) {
            // Often where records lie: at a multiple of four, a small number or an offset.
            let at = random.below(bytes.len() / 4) * 4;
            let within = at + random.below(4);
            match random.below(4) {
                0 => bytes[within] ^= 1 << random.below(8),
                1 => bytes[within] = u8::try_from(random.below(256)).unwrap(),
                2 => bytes[at..at + 4].fill(if random.below(2) == 0 { 0xff } else { 0 }),
                _ => {
                    let to = u32::try_from(random.below(bytes.len()) / 8 * 8).unwrap();
                    bytes[at..at + 4].copy_from_slice(&to.to_le_bytes());
                }
            }
        }
        if random.below(8) > 0 {
            bytes[..4].copy_from_slice(b"regf");
            repair(&mut bytes);
        }
        read += usize::from(exercise(bytes));
    }
    eprintln!("{path}: {read} of {rounds} read, {:?}", start.elapsed());
    Some(read)
}

#[test]
fn flipped_bytes_of_small_hives_do_no_harm() {
    for (path, seed) in [
        ("hives/hivex/special", 1),
        ("hives/hivex/rlenvalue_test_hive", 2),
        ("hives/regipy/BCD", 3),
        ("hives/nt-hive/testhive", 4),
        ("hives/guestfs-tools/windows-system", 5),
    ] {
        let Some(read) = flip(path, 4000, seed) else { return };
        assert!((1..4000).contains(&read), "{path}: some are read, some are refused");
    }
}

#[test]
fn flipped_bytes_of_a_system_hive_do_no_harm() {
    let Some(read) = flip("hives/regipy/SYSTEM", 40, 6) else { return };
    assert!(read < 40);
}

#[test]
fn flipped_bytes_of_logs_do_no_harm() {
    let folder = "hives/regipy/SYSTEM_B/SYSTEM_B";
    let (Some(hive), Some(log1), Some(log2)) =
        (real(folder), real(&format!("{folder}.LOG1")), real(&format!("{folder}.LOG2")))
    else {
        return;
    };
    let mut random = Random::new(7);
    for _ in 0..12 {
        let (mut one, mut two) = (log1.clone(), log2.clone());
        for log in [&mut one, &mut two] {
            for _ in 0..=random.below(3) {
                // Half of the time in the first two sectors, where the headers lie.
                let limit = if random.below(2) == 0 { 1024 } else { 0x290000.min(log.len()) };
                let at = random.below(limit);
                log[at] ^= 1 << random.below(8);
            }
            log.truncate(log.len() - random.below(2) * random.below(log.len()));
        }
        if let Ok(opened) = Hive::open(hive.clone(), Some(one), Some(two)) {
            let replayed = opened.replayed.unwrap();
            assert!(replayed.entries < 24 || replayed.left_out.is_empty());
            opened.hive.finish().unwrap();
        }
    }
}
