//! The service is killed, the medium fails, the power goes: at each step. The disk is at one of the two snapshots afterwards, and no point
//! is of anything else.

use super::super::record::Version;
use super::super::{Outcome, Policy, Snapshot, resume, take};
use super::applying::send;
use super::{Said, diff, image, model};
use crate::receive::batch::Work;
use crate::receive::content::Effort;
use crate::receive::digest::Sum;
use crate::receive::position::{self, Position};
use crate::receive::spool::Request;
use crate::receive::testing::medium::{Leaves, Medium};
use crate::receive::testing::{Bench, request};
use landfall_image::Result;
use uuid::Uuid;

const SIZE: u64 = 64 << 10;

fn first() -> Vec<Said> {
    vec![Said::Data(0, vec![1; 20_000]), Said::Data(50_000, vec![2; 3000])]
}

/// Parts that touch different blocks, so that half of them shows.
fn second() -> Vec<Said> {
    (0..6)
        .map(|n| Said::Data(u64::from(n) * 8192, vec![10 + n; 4096]))
        .chain([Said::Zero(52_000, 600)])
        .collect()
}

fn effort() -> Effort {
    Effort { jobs: 1, ..Effort::default() }
}

/// A machine at `s1`, and a stream to `s2` in its spool.
fn ready() -> (Medium, Uuid, [Vec<u8>; 2]) {
    let medium = Medium::default();
    let bench = Bench::on(&medium);
    send(&bench, request("sda", "one"), &diff(Version::V1, None, Some("s1"), SIZE, &first()), 1000).unwrap();
    let mut before = Vec::new();
    model(&mut before, SIZE, &first());
    let mut after = before.clone();
    model(&mut after, SIZE + 8192, &second());
    let upload = bench
        .upload(request("sda", "two"), &diff(Version::V1, Some("s1"), Some("s2"), SIZE + 8192, &second()));
    (medium, upload.id, [before, after])
}

fn try_take(bench: &Bench, upload: Uuid) -> Result<Outcome> {
    take(&bench.batches, &bench.spool, &bench.machine, &[upload], Policy::default(), 2000, &effort())
}

/// What the service does when it starts.
fn finish(bench: &Bench) {
    for intent in bench.batches.unfinished().unwrap() {
        assert!(bench.leases.running(&intent.machine).unwrap().1);
        let Work::Rbd(job) = intent.work.clone() else { panic!("{intent:?}") };
        resume(&bench.batches, &bench.spool, &bench.machine, &intent, &job, &effort()).unwrap();
    }
    assert!(bench.batches.unfinished().unwrap().is_empty());
}

/// Whether the machine is at the second snapshot; it is at the first otherwise.
fn check(bench: &Bench, [before, after]: &[Vec<u8>; 2], what: &str) -> bool {
    let live = bench.live("sda").unwrap();
    let is_after = live == *after;
    assert!(is_after || live == *before, "{what}: half of it is there");
    let points = bench.points("sda");
    // The first snapshot, again where something was taken back; then the second, once.
    let first = points.iter().take_while(|(_, content)| content.as_ref() == Some(before)).count();
    let rest: Vec<bool> =
        points[first..].iter().map(|(_, content)| content.as_ref() == Some(after)).collect();
    assert!(
        (1..=2).contains(&first) && rest == vec![true; usize::from(is_after)],
        "{what}: {first}, {rest:?}"
    );
    let position: Position<Snapshot> = position::of(&bench.machine, "rbd", "sda").unwrap().unwrap();
    let wanted = if is_after { "s2" } else { "s1" };
    assert_eq!(position.source.snapshot.as_deref(), Some(wanted), "{what}");
    assert_eq!(position.point, points.last().map(|(sequence, _)| *sequence), "{what}");
    assert_eq!(position.is_lost(&bench.machine, "sda").unwrap(), None, "{what}");
    is_after
}

/// Afterwards the stream can be taken, where it was not, and the next fits.
fn go_on(bench: &Bench, upload: Uuid, states: &[Vec<u8>; 2], is_after: bool, what: &str) {
    if !is_after {
        try_take(bench, upload).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(check(bench, states, what), "{what}");
    }
    assert!(bench.spool.uploads().is_empty(), "{what}");
    let next = diff(Version::V1, Some("s2"), Some("s3"), SIZE + 8192, &[]);
    send(bench, request("sda", "three"), &next, 3000).unwrap();
}

#[test]
fn the_service_is_killed_at_each_step() {
    let (mut was_after, mut count) = (0, 0);
    for steps in 0.. {
        let (medium, upload, states) = ready();
        let bench = Bench::on(&medium);
        medium.fail_after(Some(steps));
        let taken = try_take(&bench, upload);
        medium.fail_after(None);
        drop(bench);
        let again = medium.again();
        // A start that is killed as well.
        for more in [3, 9, 20] {
            let bench = Bench::on(&again);
            again.fail_after(Some(more));
            for intent in bench.batches.unfinished().unwrap() {
                let Work::Rbd(job) = intent.work.clone() else { panic!("{intent:?}") };
                let _ = resume(&bench.batches, &bench.spool, &bench.machine, &intent, &job, &effort());
            }
            again.fail_after(None);
        }
        let bench = Bench::on(&again);
        finish(&bench);
        let what = format!("killed at step {steps}");
        let is_after = check(&bench, &states, &what);
        was_after += usize::from(is_after);
        count += 1;
        if taken.is_ok() {
            assert!(is_after && bench.spool.uploads().is_empty());
            break;
        }
        // An upload of which the end could not be noted down may be there still; sent twice, it is there already.
        if is_after && !bench.spool.uploads().is_empty() {
            assert!(try_take(&bench, upload).unwrap().disks[0].was_there, "{what}");
        }
        go_on(&bench, upload, &states, is_after, &what);
    }
    assert!(count > 20 && was_after > 5 && was_after < count, "{was_after} of {count}");
}

#[test]
fn the_power_goes_at_each_step() {
    let (medium, upload, states) = ready();
    medium.record();
    try_take(&Bench::on(&medium), upload).unwrap();
    let mut was_after = 0;
    for steps in 0..=medium.steps() {
        for leaves in
            [Leaves::Nothing, Leaves::All, Leaves::Some(steps as u64), Leaves::Some(77 + steps as u64)]
        {
            let what = format!("power lost behind step {steps}, {leaves:?}");
            let cut = medium.cut(steps, leaves);
            let bench = Bench::without_power(&cut);
            finish(&bench);
            // As the service does at its start.
            if bench.machine.journal().is_behind() && position::all_hold(&bench.machine, &[]).unwrap() {
                bench.machine.journal().caught_up().unwrap();
            }
            assert!(!bench.machine.journal().is_behind(), "{what}");
            let is_after = check(&bench, &states, &what);
            was_after += usize::from(is_after);
            if is_after && !bench.spool.uploads().is_empty() {
                assert!(try_take(&bench, upload).unwrap().disks[0].was_there, "{what}");
            }
            go_on(&bench, upload, &states, is_after, &what);
        }
    }
    assert!(was_after > 10);
}

/// What is in the spool has rotted when the service starts again: the disk goes back.
#[test]
fn what_cannot_be_done_again_is_taken_back() {
    let mut taken_back = 0;
    for steps in (0..60).step_by(3) {
        let (medium, upload, states) = ready();
        let bench = Bench::on(&medium);
        medium.fail_after(Some(steps));
        let taken = try_take(&bench, upload);
        medium.fail_after(None);
        if taken.is_ok() {
            break;
        }
        let again = medium.again();
        let bench = Bench::on(&again);
        let Some(intent) = bench.batches.unfinished().unwrap().pop() else { continue };
        let Work::Rbd(job) = intent.work.clone() else { panic!("{intent:?}") };
        again.flip(&format!("incoming/{upload}.data"), 200);
        // While it lies there, nothing else is let in, and no point is cut.
        let web = intent.machine.clone();
        assert!(bench.leases.stream(&web, &"sdb".parse().unwrap()).is_err());
        assert_eq!(bench.leases.while_whole(std::slice::from_ref(&web), || ()), None);
        let error =
            resume(&bench.batches, &bench.spool, &bench.machine, &intent, &job, &effort()).unwrap_err();
        assert!(error.hint_text().is_some(), "{error}");
        taken_back += usize::from(!check(&bench, &states, &format!("step {steps}")));
        assert_eq!(bench.leases.while_whole(&[web], || ()), Some(()));
        assert!(bench.batches.unfinished().unwrap().is_empty());
    }
    assert!(taken_back > 3, "{taken_back}");
}

/// An image of three snapshots, killed at each step: each has one point in the end.
#[test]
fn an_image_is_finished_from_where_it_was() {
    let diffs = [
        diff(Version::V2, None, Some("s1"), SIZE, &first()),
        diff(Version::V2, Some("s1"), Some("s2"), SIZE + 8192, &second()),
        diff(Version::V2, Some("s2"), Some("s3"), SIZE, &[Said::Zero(0, 4096)]),
    ];
    let bytes = image(&diffs);
    let mut states = vec![Vec::new()];
    for (size, said) in [(SIZE, first()), (SIZE + 8192, second()), (SIZE, vec![Said::Zero(0, 4096)])] {
        let mut next = states.last().unwrap().clone();
        model(&mut next, size, &said);
        states.push(next);
    }
    let wanted: Vec<Option<Vec<u8>>> = states[1..].iter().cloned().map(Some).collect();
    for steps in 0.. {
        let medium = Medium::default();
        let bench = Bench::on(&medium);
        let whole = Request { sha256: Some(Sum::of(&bytes)), ..request("sda", "image") };
        let upload = bench.upload(whole, &bytes).id;
        medium.fail_after(Some(steps));
        let taken = try_take(&bench, upload);
        medium.fail_after(None);
        drop(bench);
        let bench = Bench::on(&medium.again());
        finish(&bench);
        // Where nothing was begun, or all of it was taken back at once, it is taken now.
        if bench.live("sda").is_none() {
            try_take(&bench, upload).unwrap();
        }
        let found: Vec<Option<Vec<u8>>> =
            bench.points("sda").into_iter().map(|(_, content)| content).collect();
        let said = |(sequence, _): &(u64, Option<Vec<u8>>)| {
            let raw = bench.machine.at(*sequence).unwrap().state().attachments.get("rbd:sda").cloned();
            format!("{sequence} {}", String::from_utf8(raw.unwrap_or_default()).unwrap())
        };
        assert!(
            found == wanted,
            "killed at step {steps}: {:#?}",
            bench.points("sda").iter().map(said).collect::<Vec<_>>()
        );
        if taken.is_ok() {
            return;
        }
    }
}
