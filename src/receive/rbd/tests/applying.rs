//! Streams in a machine: what it holds then, its points, and what they say.

use super::super::record::Version;
use super::super::{Outcome, Policy, Snapshot, take};
use super::{Said, diff, image, model};
use crate::moment::Moment;
use crate::receive::content::Effort;
use crate::receive::digest::{Sum, Verdict};
use crate::receive::position::{self, Position, points_to_keep};
use crate::receive::spool::Request;
use crate::receive::testing::medium::Medium;
use crate::receive::testing::{Bench, request};
use crate::vault::journal::Mark;
use crate::vault::retention::Retention;
use crate::vault::upkeep;
use landfall_image::{Bytes, DiskMut, Error, GuestOffset, Kind, Result};
use std::collections::BTreeSet;

const SIZE: u64 = 96 << 10;

pub fn send(bench: &Bench, request: Request, bytes: &[u8], now: u64) -> Result<Outcome> {
    let upload = bench.upload(request, bytes);
    take(
        &bench.batches,
        &bench.spool,
        &bench.machine,
        &[upload.id],
        Policy::default(),
        now,
        &Effort::default(),
    )
}

fn says(error: &Error) -> String {
    format!("{error}; {}", error.hint_text().unwrap_or_default())
}

fn position(bench: &Bench, disk: &str) -> Position<Snapshot> {
    position::of(&bench.machine, "rbd", disk).unwrap().unwrap()
}

fn first() -> Vec<Said> {
    vec![Said::Data(1000, vec![1; 9000]), Said::Data(60_000, vec![2; 512]), Said::Zero(80_000, 100)]
}

fn second() -> Vec<Said> {
    vec![Said::Zero(500, 3000), Said::Data(8192, vec![3; 4096]), Said::Data(98_000, vec![4; 300])]
}

#[test]
fn diffs_lead_from_snapshot_to_snapshot() {
    let medium = Medium::default();
    let bench = Bench::on(&medium);
    let one = diff(Version::V1, None, Some("s1"), SIZE, &first());
    let with_digest = Request { sha256: Some(Sum::of(&one)), ..request("sda", "one") };
    let outcome = send(&bench, with_digest, &one, 5000).unwrap();
    let mut wanted = Vec::new();
    model(&mut wanted, SIZE, &first());
    let snapshot = wanted.clone();
    assert!(bench.live("sda").unwrap() == wanted);
    let of = &outcome.disks[0];
    assert_eq!(
        (of.verdict, of.snapshot.as_deref(), of.size),
        (Verdict::Matched, Some("s1"), (None, Bytes(SIZE)))
    );
    assert_eq!(outcome.points.len(), 1);
    assert!(!position(&bench, "sda").is_unverified);
    // Larger, without a digest.
    let two = diff(Version::V2, Some("s1"), Some("s2"), SIZE + 4096, &second());
    let outcome = send(&bench, request("sda", "two"), &two, 6000).unwrap();
    model(&mut wanted, SIZE + 4096, &second());
    assert!(bench.live("sda").unwrap() == wanted);
    let of = &outcome.disks[0];
    assert_eq!((of.verdict, of.size), (Verdict::CouldNotRun, (Some(Bytes(SIZE)), Bytes(SIZE + 4096))));
    // The points are the snapshots, and nothing else; each says what it is.
    let points = bench.points("sda");
    assert_eq!(points.len(), 2);
    assert!(points[0].1.as_ref() == Some(&snapshot) && points[1].1.as_ref() == Some(&wanted));
    let attachments = bench.machine.at(points[0].0).unwrap().state().attachments.clone();
    let then: Position<Snapshot> = position::parse(&attachments["rbd:sda"], "rbd", "sda").unwrap();
    assert_eq!((then.source.snapshot.as_deref(), then.verdict), (Some("s1"), Verdict::Matched));
    let now = position(&bench, "sda");
    assert_eq!((now.source.snapshot.as_deref(), now.point), (Some("s2"), Some(points[1].0)));
    // What came without a digest stays in what follows.
    assert!(now.is_unverified);
    let three = diff(Version::V1, Some("s2"), Some("s3"), SIZE + 4096, &[]);
    let outcome =
        send(&bench, Request { sha256: Some(Sum::of(&three)), ..request("sda", "three") }, &three, 7000);
    assert_eq!(outcome.unwrap().disks[0].verdict, Verdict::Matched);
    assert!(position(&bench, "sda").is_unverified);
    // Nothing is left of it but the machine; nothing was cut off.
    assert!(bench.spool.uploads().is_empty() && bench.batches.unfinished().unwrap().is_empty());
    drop(bench);
    let bench = Bench::on(&medium.again());
    assert!(bench.live("sda").unwrap() == wanted);
    assert_eq!(position(&bench, "sda").source.snapshot.as_deref(), Some("s3"));
    let times: Vec<u64> = bench.machine.points().unwrap().iter().map(|point| point.time).collect();
    assert_eq!(times, [5000, 6000, 7000]);
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let bench = Bench::on(&Medium::default());
    send(&bench, request("sda", "one"), &diff(Version::V1, None, Some("s1"), SIZE, &first()), 1).unwrap();
    let before = (bench.live("sda"), bench.points("sda"), bench.machine.journal().last());
    let good = diff(Version::V1, Some("s1"), Some("s2"), SIZE, &second());
    let other = Some(Sum::of(b"other"));
    let mut cut = good.clone();
    cut.pop();
    for (what, request, bytes, kind) in [
        (
            "another snapshot",
            request("sda", "x"),
            diff(Version::V1, Some("s7"), Some("s8"), SIZE, &second()),
            Kind::Refused,
        ),
        ("whole", request("sda", "x"), diff(Version::V1, None, Some("s8"), SIZE, &second()), Kind::Refused),
        ("smaller", request("sda", "x"), diff(Version::V1, Some("s1"), Some("s2"), 4096, &[]), Kind::Refused),
        ("another digest", Request { sha256: other, ..request("sda", "x") }, good.clone(), Kind::Corrupt),
        ("cut off", request("sda", "x"), cut, Kind::Corrupt),
        ("an unknown disk", Request { apart: true, ..request("sdb", "x") }, good.clone(), Kind::Refused),
        (
            "another disk only",
            request("sdb", "x"),
            diff(Version::V1, None, Some("s1"), SIZE, &[]),
            Kind::Refused,
        ),
    ] {
        let error = send(&bench, request, &bytes, 2).unwrap_err();
        assert!(error.kind() == kind && error.hint_text().is_some(), "{what}: {error}");
        assert!(error.to_string().starts_with("x: "), "{error}");
        assert!((bench.live("sda"), bench.points("sda"), bench.machine.journal().last()) == before, "{what}");
    }
    // They stay in the spool until somebody decides.
    assert_eq!(bench.spool.uploads().len(), 7);
    // The clean control.
    send(&bench, Request { sha256: Some(Sum::of(&good)), ..request("sda", "x") }, &good, 2).unwrap();
    let strict = Policy { require_digest: true };
    let next = bench.upload(request("sda", "x"), &diff(Version::V1, Some("s2"), Some("s3"), SIZE, &[]));
    let error = take(&bench.batches, &bench.spool, &bench.machine, &[next.id], strict, 3, &Effort::default())
        .unwrap_err();
    assert!(says(&error).contains("sha256sum"), "{error}");
}

#[test]
fn an_image_leaves_a_point_for_each_snapshot() {
    let bench = Bench::on(&Medium::default());
    let parts = [
        (None, Some("s1"), SIZE, first()),
        (Some("s1"), Some("s2"), SIZE / 2, vec![Said::Data(0, vec![9; 5])]),
        (Some("s2"), None, SIZE, second()[..2].to_vec()),
    ];
    let diffs: Vec<Vec<u8>> =
        parts.iter().map(|(from, to, size, said)| diff(Version::V2, *from, *to, *size, said)).collect();
    let bytes = image(&diffs);
    // It becomes smaller in between: not without a digest.
    assert!(send(&bench, request("sda", "image"), &bytes, 1).is_err());
    let with_digest = Request { sha256: Some(Sum::of(&bytes)), ..request("sda", "image") };
    let outcome = send(&bench, with_digest, &bytes, 1).unwrap();
    assert_eq!(outcome.points.len(), 3);
    let mut wanted = Vec::new();
    for ((sequence, found), (number, (.., size, said))) in
        bench.points("sda").into_iter().zip(parts.iter().enumerate())
    {
        model(&mut wanted, *size, said);
        assert!(sequence == outcome.points[number] && found.as_ref() == Some(&wanted), "part {number}");
    }
    assert!(outcome.disks[0].is_head && outcome.disks[0].snapshot.as_deref() == Some("s2"));
    // What changed since its last snapshot is in the next difference again.
    let next = diff(Version::V1, Some("s2"), Some("s3"), SIZE, &second()[..2]);
    send(&bench, request("sda", "next"), &next, 2).unwrap();
    assert_eq!(position(&bench, "sda").source.snapshot.as_deref(), Some("s3"));
    assert!(!position(&bench, "sda").source.is_head);
}

#[test]
fn a_whole_disk_takes_the_place_of_another() {
    let bench = Bench::on(&Medium::default());
    send(&bench, request("sda", "one"), &diff(Version::V1, None, Some("s1"), SIZE, &first()), 1).unwrap();
    for disorder in [false, true] {
        let said = [Said::Data(4096, vec![7; 4096]), Said::Data(40_960, vec![8; 100])];
        let bytes = match disorder {
            false => diff(Version::V1, None, Some("t1"), SIZE + 512, &said),
            // As of a striped image.
            true => {
                let head = diff(Version::V1, None, Some("t2"), SIZE + 512, &[]);
                let head = &head[..head.len() - 1];
                let record = |said: &Said| {
                    let bytes = diff(Version::V1, None, Some("t2"), SIZE + 512, std::slice::from_ref(said));
                    bytes[head.len()..bytes.len() - 1].to_vec()
                };
                [head, &record(&said[1]), &record(&said[0]), b"e"].concat()
            }
        };
        let sum = Some(Sum::of(&bytes));
        let plain = Request { sha256: sum, ..request("sda", "two") };
        if !disorder {
            assert!(says(&send(&bench, plain.clone(), &bytes, 2).unwrap_err()).contains("--replace"));
        }
        let replace = Request { replace: true, ..plain };
        if disorder {
            let blind = Request { sha256: None, ..replace.clone() };
            assert!(says(&send(&bench, blind, &bytes, 2).unwrap_err()).contains("striped"));
        }
        let outcome = send(&bench, replace, &bytes, 2).unwrap();
        let mut wanted = Vec::new();
        model(&mut wanted, SIZE + 512, &said);
        assert!(bench.live("sda").unwrap() == wanted, "{disorder}");
        let written = outcome.disks[0].counts.written;
        assert!(written > 0 && written <= SIZE, "{written}");
        // Between the two it held something else.
        let live = bench.machine.live("sda").unwrap();
        if !disorder {
            live.write_at(GuestOffset(20_000), &[1; 700]).unwrap();
            bench.machine.checkpoint(3, &Mark::default()).unwrap();
        }
    }
}

/// Several disks of a machine, of one moment: one point.
#[test]
fn streams_of_one_moment_make_one_point() {
    let bench = Bench::on(&Medium::default());
    let take = |ids: &[uuid::Uuid]| {
        take(&bench.batches, &bench.spool, &bench.machine, ids, Policy::default(), 9, &Effort::default())
    };
    let a = bench.upload(request("sda", "a"), &diff(Version::V1, None, Some("s1"), SIZE, &first()));
    let b = bench.upload(request("sdb", "b"), &diff(Version::V1, None, Some("s1"), SIZE, &second()[..2]));
    let again = bench.upload(request("sda", "again"), &diff(Version::V1, None, Some("s2"), SIZE, &first()));
    assert!(says(&take(&[a.id, again.id]).unwrap_err()).contains("one after the other"));
    let outcome = take(&[a.id, b.id]).unwrap();
    assert_eq!((outcome.points.len(), outcome.disks.len(), bench.points("sda").len()), (1, 2, 1));
    // One of the two again, with a new one: it is passed over.
    let b = bench.upload(request("sdb", "b"), &diff(Version::V1, None, Some("s1"), SIZE, &second()[..2]));
    let a =
        bench.upload(request("sda", "a"), &diff(Version::V1, Some("s1"), Some("s2"), SIZE, &second()[..2]));
    let outcome = take(&[a.id, b.id]).unwrap();
    let was_there: Vec<bool> = outcome.disks.iter().map(|disk| disk.was_there).collect();
    assert_eq!((was_there, outcome.points.len()), (vec![true, false], 1));
    let other = bench.upload(
        Request { machine: "db".parse().unwrap(), ..request("sda", "x") },
        &diff(Version::V1, Some("s2"), Some("s3"), SIZE, &[]),
    );
    assert!(take(&[other.id]).unwrap_err().says().contains("is for db"));
}

/// Whatever else writes to a disk, the next difference does not fit any more; and what is kept by the rules does not change that.
#[test]
fn a_disk_that_something_else_wrote_to_is_at_no_snapshot() {
    let bench = Bench::on(&Medium::default());
    let machine = &bench.machine;
    let rules: Retention = "10s every 1s, 60s every 10s".parse().unwrap();
    let tidy = |now: u64, keep: &BTreeSet<u64>| {
        machine.journal().close_segment();
        let wishes = upkeep::Wishes { kept: keep.clone(), ..Default::default() };
        upkeep::run(machine, &rules, &wishes, now, &|_| Ok(())).unwrap();
    };
    send(&bench, request("sda", "one"), &diff(Version::V1, None, Some("s1"), SIZE, &first()), 1000).unwrap();
    // Other disks do not matter, nor do later points and what is given up, where the position's own point is kept.
    let apart = |disk| Request { apart: true, ..request(disk, "x") };
    send(&bench, apart("sdb"), &diff(Version::V1, None, Some("s1"), SIZE, &first()), 1500).unwrap();
    machine.live("sdb").unwrap().write_at(GuestOffset(0), &[7; 512]).unwrap();
    for time in 2..40 {
        machine.checkpoint(time * 1000, &Mark::default()).unwrap();
    }
    let keep = points_to_keep(machine).unwrap();
    assert_eq!(keep, [position(&bench, "sda").point.unwrap()].into());
    for now in [40_000, 45_000, 200_000] {
        tidy(now, &keep);
    }
    send(&bench, apart("sda"), &diff(Version::V1, Some("s1"), Some("s2"), SIZE, &second()[..2]), 300_000)
        .unwrap();
    let error = send(&bench, apart("sdb"), &diff(Version::V1, Some("s1"), Some("s2"), SIZE, &[]), 300_000);
    assert!(says(&error.unwrap_err()).contains("send all of it"));
    // The same of the other, by a single sector; in whatever segment it lies.
    machine.live("sda").unwrap().write_at(GuestOffset(512), &[0; 512]).unwrap();
    machine.journal().close_segment();
    machine.journal().seal().unwrap();
    let three = diff(Version::V1, Some("s2"), Some("s3"), SIZE, &[]);
    let error = send(&bench, apart("sda"), &three, 300_001).unwrap_err();
    assert!(error.says().contains("something else was written to it since"), "{error}");
    assert!(says(&error).contains("send all of it"), "{error}");
    assert!(points_to_keep(machine).unwrap().is_empty());
    // Its own point was given up: nobody can tell any more.
    for time in 301..500 {
        machine.checkpoint(time * 1000, &Mark::default()).unwrap();
    }
    tidy(600_000, &BTreeSet::new());
    assert!(send(&bench, apart("sda"), &three, 600_000).unwrap_err().says().contains("given up"));
}

#[test]
fn nothing_else_is_let_in_meanwhile() {
    let bench = Bench::on(&Medium::default());
    let one = diff(Version::V1, None, Some("s1"), SIZE, &first());
    let (web, sda) = ("web01".parse().unwrap(), "sda".parse().unwrap());
    let stream = bench.leases.stream(&web, &sda).unwrap();
    let error = send(&bench, request("sda", "one"), &one, 1).unwrap_err();
    assert!(error.kind() == Kind::Refused && says(&error).contains("over NBD"), "{error}");
    assert!(bench.live("sda").is_none() && bench.batches.unfinished().unwrap().is_empty());
    drop(stream);
    send(&bench, request("sda", "one"), &one, 1).unwrap();
    drop(bench.leases.stream(&web, &sda).unwrap());
}

/// A disk that is written to over NBD keeps what was acknowledged, in a point, before a batch begins on another.
#[test]
fn what_was_acknowledged_before_has_its_point() {
    let bench = Bench::on(&Medium::default());
    send(&bench, request("sda", "one"), &diff(Version::V1, None, Some("s1"), SIZE, &first()), 1000).unwrap();
    bench.machine.live("sda").unwrap().write_at(GuestOffset(0), &[5; 512]).unwrap();
    let acknowledged = bench.live("sda").unwrap();
    let whole = Request { replace: true, ..request("sda", "two") };
    send(&bench, whole, &diff(Version::V1, None, Some("t1"), SIZE, &[]), 2000).unwrap();
    let points = bench.points("sda");
    assert_eq!(points.len(), 3);
    assert!(points[1].1.as_ref() == Some(&acknowledged));
    assert!(points[2].1.as_ref().unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn the_time_of_a_point_is_that_of_its_moment() {
    let bench = Bench::on(&Medium::default());
    let at = |taken_at: Option<u64>| Request { taken_at: taken_at.map(Moment), ..request("sda", "x") };
    send(&bench, at(Some(5000)), &diff(Version::V1, None, Some("s1"), SIZE, &[]), 9000).unwrap();
    send(&bench, at(Some(4000)), &diff(Version::V1, Some("s1"), Some("s2"), SIZE, &[]), 9000).unwrap();
    send(&bench, at(Some(99_000)), &diff(Version::V1, Some("s2"), Some("s3"), SIZE, &[]), 9500).unwrap();
    let times: Vec<u64> = bench.machine.points().unwrap().iter().map(|point| point.time).collect();
    assert_eq!(times, [5000, 5001, 9500]);
}

/// A disk that was taken out and came back under its name is another one: the next diff does not fit it.
#[test]
fn a_diff_does_not_fit_a_disk_that_only_has_the_name() {
    let medium = Medium::default();
    let bench = Bench::on(&medium);
    let one = diff(Version::V1, None, Some("s1"), SIZE, &first());
    send(&bench, request("sda", "one"), &one, 5000).unwrap();
    let journal = bench.machine.journal();
    journal.remove_disk(bench.machine.disk_number("sda").unwrap()).unwrap();
    bench.machine.checkpoint(7000, &Mark::default()).unwrap();
    journal
        .set_disk(&crate::vault::journal::DiskInfo { name: "sda".into(), size: SIZE, sector: 512 })
        .unwrap();
    let next = diff(Version::V1, Some("s1"), Some("s2"), SIZE, &second());
    let error = send(&bench, request("sda", "two"), &next, 8000).unwrap_err();
    assert!(error.kind() == Kind::Refused && says(&error).contains("another one"), "{}", says(&error));
    assert!(bench.live("sda").unwrap().iter().all(|byte| *byte == 0), "nothing was written");
    // A whole one brings it back.
    let whole = Request { replace: true, ..request("sda", "one") };
    send(&bench, whole, &one, 9000).unwrap();
    send(&bench, request("sda", "two"), &next, 10_000).unwrap();
}
