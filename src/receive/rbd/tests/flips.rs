//! Every byte of a stream is changed: with a digest, each is found. Without one, what is not found is listed here.

use super::super::record::Version;
use super::super::{Policy, take};
use super::applying::send;
use super::{Said, diff, model};
use crate::receive::content::Effort;
use crate::receive::digest::Sum;
use crate::receive::spool::Request;
use crate::receive::testing::medium::Medium;
use crate::receive::testing::{Bench, request};
use std::collections::BTreeMap;

const SIZE: u64 = 64 << 10;

/// What a byte of a stream is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Banner,
    Tag,
    RecordLength,
    FromLength,
    From,
    ToLength,
    To,
    Size,
    Offset,
    DataLength,
    ZeroLength,
    Payload,
}

/// A small stream with all records, and what each of its bytes is.
fn stream(version: Version) -> (Vec<u8>, Vec<Place>) {
    let said =
        [Said::Data(8192, vec![0x5a; 40]), Said::Zero(20_480, 4096), Said::Data(36_864, vec![0x33; 24])];
    let bytes = diff(version, Some("s1"), Some("s2"), SIZE, &said);
    let mut places = vec![Place::Banner; 12];
    let mut add = |place, count| places.extend(vec![place; count]);
    let length = if version == Version::V2 { 8 } else { 0 };
    for (len, name) in [(Place::FromLength, Place::From), (Place::ToLength, Place::To)] {
        add(Place::Tag, 1);
        add(Place::RecordLength, length);
        add(len, 4);
        add(name, 2);
    }
    add(Place::Tag, 1);
    add(Place::RecordLength, length);
    add(Place::Size, 8);
    for said in &said {
        add(Place::Tag, 1);
        add(Place::RecordLength, length);
        add(Place::Offset, 8);
        match said {
            Said::Data(_, data) => {
                add(Place::DataLength, 8);
                add(Place::Payload, data.len());
            }
            Said::Zero(..) => add(Place::ZeroLength, 8),
        }
    }
    add(Place::Tag, 1);
    assert_eq!(places.len(), bytes.len());
    (bytes, places)
}

/// A machine at `s1`, full of what shows where it is overwritten.
fn ready() -> (Bench, Vec<u8>) {
    let bench = Bench::on(&Medium::default());
    let full = [Said::Data(0, vec![0xee; usize::try_from(SIZE).unwrap()])];
    send(&bench, request("sda", "one"), &diff(Version::V1, None, Some("s1"), SIZE, &full), 1).unwrap();
    let mut state = Vec::new();
    model(&mut state, SIZE, &full);
    (bench, state)
}

#[test]
fn with_a_digest_every_byte_counts() {
    for version in [Version::V1, Version::V2] {
        let (good, _) = stream(version);
        let sum = Some(Sum::of(&good));
        let (bench, before) = ready();
        for at in 0..good.len() {
            for bit in [0x01, 0x10, 0x80] {
                let mut bytes = good.clone();
                bytes[at] ^= bit;
                let sent = send(&bench, Request { sha256: sum, ..request("sda", "x") }, &bytes, 2);
                assert!(sent.is_err(), "{version:?}: byte {at}, bit {bit:#x}");
            }
        }
        assert!(bench.live("sda").unwrap() == before && bench.points("sda").len() == 1);
        // The clean control.
        send(&bench, Request { sha256: sum, ..request("sda", "x") }, &good, 2).unwrap();
    }
}

/// What gets through without a digest, and what becomes of it:
/// - `Payload`: another byte is on the disk; the point says that it is unverified.
/// - `Offset`: the run lies elsewhere, within the disk and behind the one before; the same.
/// - `ZeroLength` (v1 and v2): more or less becomes zeros, within the disk and before the next run; the same.
/// - `To`: the disk is at a snapshot of another name: the next difference does not fit, and says so.
/// - `Size`: the disk is larger than it was: told in the outcome, and the next difference, which knows the right size, is refused as one that
///   makes it smaller.
const UNSEEN: [Place; 5] = [Place::Payload, Place::Offset, Place::ZeroLength, Place::To, Place::Size];

#[test]
fn without_a_digest_structure_is_still_seen() {
    for version in [Version::V1, Version::V2] {
        let (good, places) = stream(version);
        let mut passed: BTreeMap<Place, usize> = BTreeMap::new();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let (bench, before) = ready();
                let place = places[at];
                match send(&bench, request("sda", "x"), &bytes, 2) {
                    Err(error) => {
                        assert!(error.hint_text().is_some(), "{error}");
                        assert!(bench.live("sda").unwrap() == before, "byte {at}");
                    }
                    Ok(outcome) => {
                        assert!(UNSEEN.contains(&place), "{version:?}: byte {at} ({place:?}), bit {bit}");
                        *passed.entry(place).or_default() += 1;
                        let disk = &outcome.disks[0];
                        let next = diff(version, Some("s2"), Some("s3"), SIZE, &[]);
                        let next = send(&bench, request("sda", "next"), &next, 3);
                        match place {
                            Place::To => {
                                assert_ne!(disk.snapshot.as_deref(), Some("s2"));
                                assert!(next.is_err());
                            }
                            Place::Size => {
                                assert!(disk.size.1.0 > SIZE);
                                assert!(next.unwrap_err().says().contains("smaller"));
                            }
                            _ => assert!(next.is_ok()),
                        }
                    }
                }
            }
        }
        // Each of them gets through, or the list is too long.
        assert_eq!(passed.keys().copied().collect::<Vec<_>>(), {
            let mut all = UNSEEN.to_vec();
            all.sort_unstable();
            all
        });
        let (bench, _) = ready();
        send(&bench, request("sda", "x"), &good, 2).unwrap();
    }
}

/// The three verdicts, and what each leaves.
#[test]
fn matched_differed_and_could_not_run() {
    use crate::receive::digest::Verdict;
    use crate::receive::position::{self, Position};
    let (good, places) = stream(Version::V1);
    let mut bad = good.clone();
    bad[places.iter().position(|place| *place == Place::Payload).unwrap()] ^= 1;
    for (bytes, sum, require_digest, verdict) in [
        (&good, Some(Sum::of(&good)), true, Some(Verdict::Matched)),
        (&bad, Some(Sum::of(&good)), false, None),
        (&good, None, false, Some(Verdict::CouldNotRun)),
        // Nobody can tell; the point says so.
        (&bad, None, false, Some(Verdict::CouldNotRun)),
        (&good, None, true, None),
    ] {
        let (bench, before) = ready();
        let upload = bench.upload(Request { sha256: sum, ..request("sda", "x") }, bytes);
        let policy = Policy { require_digest };
        let taken =
            take(&bench.batches, &bench.spool, &bench.machine, &[upload.id], policy, 2, &Effort::default());
        match (taken, verdict) {
            (Ok(outcome), Some(verdict)) => {
                assert_eq!(outcome.disks[0].verdict, verdict);
                let point = bench.machine.at(outcome.points[0]).unwrap();
                let raw = &point.state().attachments["rbd:sda"];
                let then: Position<serde_json::Value> = position::parse(raw, "rbd", "sda").unwrap();
                assert_eq!(then.verdict, verdict);
            }
            (Err(_), None) => assert!(bench.live("sda").unwrap() == before && bench.points("sda").len() == 1),
            (taken, verdict) => panic!("{taken:?}, {verdict:?}"),
        }
    }
}
