//! Whether a stream fits a disk: the table.

use super::super::check::{Answer, Disk, Summary, judge, survey};
use super::super::record::Version;
use super::super::{Policy, Snapshot};
use super::{Said, diff};
use crate::receive::digest::{Sum, Verdict};
use crate::receive::position::Position;
use landfall_image::{Bytes, Kind};
use uuid::Uuid;

const LAX: Policy = Policy { require_digest: false };

fn at(snapshot: Option<&str>, stream: Sum, lost: Option<&'static str>) -> Disk {
    let source = Snapshot { snapshot: snapshot.map(str::to_owned), is_head: snapshot.is_none(), stream };
    let position = Position {
        batch: Uuid::nil(),
        part: 0,
        verdict: Verdict::Matched,
        is_unverified: false,
        point: Some(7),
        has_ended: false,
        source,
    };
    Disk { size: Some((Bytes(8192), 512)), is_blank: false, position: Some((position, lost)) }
}

fn summary(from: Option<&str>, to: Option<&str>, size: u64) -> Summary {
    survey(&diff(Version::V1, from, to, size, &[Said::Data(0, vec![1; 10])])[..]).unwrap()
}

#[test]
fn a_stream_begins_where_the_disk_is() {
    let other = Sum::of(b"other");
    let none = Disk { is_blank: true, ..Disk::default() };
    let blank = Disk { size: Some((Bytes(4096), 512)), is_blank: true, position: None };
    let foreign = Disk { is_blank: false, ..blank.clone() };
    let s1 = at(Some("s1"), other, None);
    let lost = at(Some("s1"), other, Some("something else was written to it since"));
    let head = at(None, other, None);
    let whole = summary(None, Some("s1"), 8192);
    let next = summary(Some("s1"), Some("s2"), 8192);
    let after = summary(Some("s2"), Some("s3"), 8192);
    let again = summary(Some("s0"), Some("s1"), 8192);
    for (what, stream, disk, replace, refused) in [
        ("whole, no disk", &whole, &none, false, None),
        ("whole, blank disk", &whole, &blank, false, None),
        ("whole, over something", &whole, &foreign, false, Some("--replace")),
        ("whole, over a snapshot", &whole, &s1, false, Some("--from-snap 's1'")),
        ("whole, in its place", &whole, &s1, true, None),
        ("whole, over what was lost", &whole, &lost, false, Some("--replace")),
        ("the next", &next, &s1, false, None),
        ("one too many", &after, &s1, false, Some("--from-snap 's1'")),
        ("the one before", &again, &s1, false, Some("--from-snap 's1'")),
        ("the next, but it was written to", &next, &lost, false, Some("send all of it")),
        ("the next, but no snapshot", &next, &head, false, Some("send all of it")),
        ("the next, nothing there", &next, &none, false, Some("whole disk first")),
        ("the next, foreign", &next, &foreign, false, Some("whole disk first")),
        ("a difference in its place", &next, &s1, true, Some("leave --replace out")),
    ] {
        let judged = judge(stream, "sda", disk, Verdict::Matched, replace, LAX);
        match (judged, refused) {
            (Ok(Answer::Apply), None) => {}
            (Err(error), Some(words)) => {
                assert_eq!(error.kind(), Kind::Refused, "{what}");
                assert!(
                    error.hint_text().unwrap().contains(words),
                    "{what}: {error}; {:?}",
                    error.hint_text()
                );
            }
            (judged, _) => panic!("{what}: {judged:?}"),
        }
    }
    assert!(judge(&again, "sda", &s1, Verdict::Matched, false, LAX).unwrap_err().says().contains("already"));
    assert!(
        judge(&next, "sda", &lost, Verdict::Matched, false, LAX)
            .unwrap_err()
            .says()
            .contains("written to it since")
    );
}

/// A client that did not hear the answer sends it once more.
#[test]
fn the_last_stream_may_come_twice() {
    let next = summary(Some("s1"), Some("s2"), 8192);
    let there = at(Some("s2"), next.sha256, None);
    assert_eq!(judge(&next, "sda", &there, Verdict::Matched, false, LAX).unwrap(), Answer::There);
    let lost = at(Some("s2"), next.sha256, Some("something else was written to it since"));
    assert!(judge(&next, "sda", &lost, Verdict::Matched, false, LAX).is_err());
    let other = at(Some("s2"), Sum::of(b"x"), None);
    assert!(judge(&next, "sda", &other, Verdict::Matched, false, LAX).is_err());
}

#[test]
fn three_verdicts_and_what_they_allow() {
    let s1 = at(Some("s1"), Sum::of(b"x"), None);
    let strict = Policy { require_digest: true };
    let judge = |stream: &Summary, verdict, policy| judge(stream, "sda", &s1, verdict, false, policy);
    let next = summary(Some("s1"), Some("s2"), 8192);
    let larger = summary(Some("s1"), Some("s2"), 16384);
    let smaller = summary(Some("s1"), Some("s2"), 4096);
    let mut disordered = next.clone();
    disordered.disorder = Some(77);
    for stream in [&next, &larger, &smaller, &disordered] {
        for policy in [LAX, strict] {
            assert_eq!(judge(stream, Verdict::Matched, policy).unwrap(), Answer::Apply);
            let error = judge(stream, Verdict::Differed, policy).unwrap_err();
            assert!(
                error.kind() == Kind::Corrupt && error.hint_text().unwrap().contains("send it again"),
                "{error}"
            );
        }
        let error = judge(stream, Verdict::CouldNotRun, strict).unwrap_err();
        assert!(error.says().contains("require_digest"), "{error}");
    }
    for stream in [&next, &larger] {
        assert_eq!(judge(stream, Verdict::CouldNotRun, LAX).unwrap(), Answer::Apply);
    }
    let error = judge(&smaller, Verdict::CouldNotRun, LAX).unwrap_err();
    assert!(
        error.says().contains("from 8192 to 4096") && error.hint_text().unwrap().contains("sha256sum"),
        "{error}"
    );
    let error = judge(&disordered, Verdict::CouldNotRun, LAX).unwrap_err();
    assert!(error.says().contains("striped") && error.offset().unwrap().0 == 77, "{error}");
}

#[test]
fn a_size_that_no_disk_has_is_told() {
    let s1 = at(Some("s1"), Sum::of(b"x"), None);
    let odd = summary(Some("s1"), Some("s2"), 8193);
    let error = judge(&odd, "sda", &s1, Verdict::Matched, false, LAX).unwrap_err();
    assert!(
        error.kind() == Kind::Unsupported && error.hint_text().unwrap().contains("rbd resize"),
        "{error}"
    );
    let large = Disk { size: Some((Bytes(8192), 4096)), ..s1 };
    let error = judge(&summary(Some("s1"), Some("s2"), 8704), "sda", &large, Verdict::Matched, false, LAX)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
}
