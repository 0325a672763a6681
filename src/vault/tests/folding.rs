//! What goes into the base.

use super::disk::Leaves;
use super::*;
use crate::vault::base::{Base, Part};
use crate::vault::journal::map::{Run, Source};
use crate::vault::upkeep::Wishes;

const SIZE: usize = 4 << 20;

fn base(medium: &Medium) -> (Base, Option<u64>) {
    let storage: Arc<dyn Storage> = Arc::new(medium.clone());
    Base::open(&storage, "bases").unwrap()
}

/// Runs that change a part of every unit of a disk, some of them two parts, and some units whole; and what the disk holds then.
fn small_runs(seed: u64, before: &[u8]) -> (Vec<Run>, Vec<u8>) {
    let mut dice = Dice(seed);
    let mut after = before.to_vec();
    let (mut runs, mut at) = (Vec::new(), 0);
    while at + 9000 < SIZE {
        at += 100 + usize::try_from(dice.roll(2500)).unwrap();
        let len = if dice.roll(20) == 0 { 8500 } else { 50 + usize::try_from(dice.roll(1500)).unwrap() };
        let range = at as u64..(at + len).min(SIZE) as u64;
        let source = match dice.roll(4) {
            0 => Source::Zero,
            _ => Source::Stored { segment: seed, at: at as u64 },
        };
        for byte in range.clone() {
            after[usize::try_from(byte).unwrap()] = match source {
                Source::Zero => 0,
                Source::Stored { .. } => stored(seed, byte),
            };
        }
        runs.push(Run { range, source });
        at += len;
    }
    (runs, after)
}

fn stored(segment: u64, at: u64) -> u8 {
    u8::try_from((at * 7 + segment * 13 + at / 251) % 255 + 1).unwrap()
}

fn fold(base: &Base, through: u64, runs: Vec<Run>, again: bool) -> landfall_image::Result<()> {
    let runs = BTreeMap::from([(1, runs)]);
    let read = |segment: u64, at: u64, buf: &mut [u8]| {
        buf.iter_mut().zip(at..).for_each(|(byte, at)| *byte = stored(segment, at));
        Ok(())
    };
    let part = Part { through, runs: &runs, gone: &[], read: &read, pace: &|_| Ok(()) };
    if again { base.fold_again(&part) } else { base.fold(&part) }
}

fn whole(base: &Base) -> Vec<u8> {
    let mut found = vec![0; SIZE];
    base.read(1, 0, &mut found).unwrap();
    found
}

#[test]
fn units_that_change_in_part_pass_through_memory_one_by_one() {
    let medium = Medium::default();
    let (base, _) = base(&medium);
    let (runs, first) = small_runs(3, &vec![0; SIZE]);
    fold(&base, 1, runs, false).unwrap();
    assert!(whole(&base) == first);
    medium.traffic();
    let (runs, second) = small_runs(5, &first);
    fold(&base, 2, runs, false).unwrap();
    assert!(whole(&base) == second);
    // Between two writes to the file no more is read than one of them holds, and the same the other way round.
    let at_once = (1 << 20) + (64 << 10);
    let mut pending = 0;
    let (mut written, mut most) = (0, 0);
    for traffic in medium.traffic().iter().filter(|traffic| !traffic.path.ends_with(".sum")) {
        let is_fold = traffic.path.contains("fold");
        match (is_fold, traffic.is_write) {
            (true, true) => (written, pending) = (written + traffic.len, 0),
            (true, false) => (most, pending) = (most.max(traffic.len), 0),
            (false, _) => pending += traffic.len,
        }
        assert!(pending <= 3 * at_once && traffic.len <= at_once, "{traffic:?} after {pending}");
        if written > 2 << 20 {
            // The units are on their way back.
            pending = pending.min(at_once);
        }
    }
    assert!(written > 3 << 20 && most > 512 << 10, "{written} bytes, {most} at once");
}

#[test]
fn a_fold_that_was_cut_off_is_done_again() {
    let before = Medium::default();
    let (_, first) = {
        let (base, _) = base(&before);
        let (runs, first) = small_runs(3, &vec![0; SIZE]);
        fold(&base, 1, runs, false).unwrap();
        (base, first)
    };
    let medium = before.again();
    medium.record();
    let (runs, second) = small_runs(5, &first);
    fold(&base(&medium).0, 2, runs.clone(), false).unwrap();
    let count = medium.steps();
    let (mut kept, mut done) = (0, 0);
    for steps in (0..12).chain((12..count).step_by(count / 60)).chain(count - 12..=count) {
        for leaves in [Leaves::Nothing, Leaves::All, Leaves::Some(steps as u64)] {
            let after = medium.cut(steps, leaves);
            let (base, begun) = base(&after);
            match (begun, base.through()) {
                (Some(through), _) => {
                    assert_eq!(through, 2);
                    fold(&base, 2, runs.clone(), true).unwrap();
                    assert!(whole(&base) == second);
                    done += 1;
                }
                (None, 1) => {
                    assert!(whole(&base) == first);
                    kept += 1;
                }
                (None, through) => {
                    assert_eq!(through, 2);
                    assert!(whole(&base) == second);
                }
            }
        }
    }
    assert!(kept > 3 && done > 3, "{kept} before it began, {done} again");
}

#[test]
fn a_fold_whose_file_is_damaged_changes_nothing() {
    let medium = Medium::default();
    let (base_, _) = base(&medium);
    let (runs, first) = small_runs(3, &vec![0; SIZE]);
    fold(&base_, 1, runs, false).unwrap();
    medium.record();
    let (runs, _) = small_runs(5, &first);
    fold(&base_, 2, runs.clone(), false).unwrap();
    // Behind the rename of the file.
    let is_begun = |steps: usize| medium.cut(steps, Leaves::Nothing).content("bases/fold").is_some();
    let steps = (0..medium.steps()).find(|steps| is_begun(*steps)).unwrap();
    let len = medium.cut(steps, Leaves::Nothing).content("bases/fold").unwrap().len();
    for at in (0..len).step_by(len / 40).chain([len - 1]) {
        let after = medium.cut(steps, Leaves::Nothing);
        after.flip("bases/fold", at);
        let storage: Arc<dyn Storage> = Arc::new(after.clone());
        let opened = Base::open(&storage, "bases");
        let error = match opened {
            Err(error) => error,
            Ok((base, _)) => {
                let error = fold(&base, 2, runs.clone(), true).unwrap_err();
                assert!(whole(&base) == first);
                error
            }
        };
        assert_eq!(error.kind(), landfall_image::Kind::Corrupt, "{error}");
    }
}

#[test]
fn a_disk_that_the_base_has_lost_is_not_read_as_zeros() {
    let medium = Medium::default();
    full(&medium);
    for (path, len) in medium.paths() {
        if !path.contains("/bases/0") {
            continue;
        }
        for content in [None, Some(medium.content(&path).unwrap()[..len / 2].to_vec())] {
            let broken = medium.again();
            let is_whole_sums = content.is_some() && path.ends_with(".sum");
            broken.put(&path, content);
            match try_open(&broken, Ended::Killed) {
                Err(error) => assert_eq!(error.kind(), landfall_image::Kind::Corrupt),
                // Where sums are missing, all that they were of is refused.
                Ok((machine, _)) => {
                    assert!(is_whole_sums);
                    let mut buf = vec![0; 256 << 10];
                    assert!(machine.base().read(1, 0, &mut buf).is_err());
                }
            }
        }
    }
}

#[test]
fn before_its_first_point_a_machine_needs_no_past() {
    let mut medium = Medium::default();
    let (mut machine, _) = open(&medium);
    machine.journal().set_disk(&info("sda", 256 << 10)).unwrap();
    machine.journal().attach("definition", &[1]).unwrap();
    let rules: Retention = "1h every 5s".parse().unwrap();
    let keep =
        |machine: &Arc<Machine>| upkeep::run(machine, &rules, &Wishes::default(), 1, &|_| Ok(())).unwrap();
    let mut model = Model::from([("sda".to_owned(), vec![0; 256 << 10])]);
    // A copy that is begun again and again.
    let mut folded = 0;
    for copy in 1..=10u8 {
        for at in (0..256 << 10).step_by(5000) {
            let len = (256 << 10_usize).min(at + 5000) - at;
            machine.live("sda").unwrap().write_at(GuestOffset(at as u64), &vec![copy; len]).unwrap();
            if at % 50_000 == 0 {
                folded += keep(&machine).folded;
            }
        }
        model.get_mut("sda").unwrap().fill(copy);
        assert!(content(&machine.live("sda").unwrap()) == model["sda"]);
        if copy % 3 == 0 {
            medium = medium.again();
            (machine, _) = open(&medium);
        }
        // Closed, with nothing behind it: the journal still tells of the disk.
        if copy % 4 == 0 {
            machine.journal().close_segment();
            keep(&machine);
            medium = medium.again();
            (machine, _) = open(&medium);
            assert_eq!(machine.disk_number("sda"), Some(1));
        }
    }
    assert!(folded > 15, "{folded}");
    let journal: usize =
        medium.paths().iter().filter(|(path, _)| path.contains("/journal/")).map(|(_, len)| len).sum();
    assert!(journal < 600 << 10, "{journal} bytes are left of ten copies");
    // What is no point yet, because it is not durable, is not given up.
    machine.live("sda").unwrap().write_at(GuestOffset(0), &[77; 3000]).unwrap();
    let point = machine.journal().hold().checkpoint(5000, &Mark::default()).unwrap();
    model.get_mut("sda").unwrap()[..3000].fill(77);
    for _ in 0..3 {
        machine.live("sda").unwrap().write_at(GuestOffset(9000), &[99; 3000]).unwrap();
        machine.journal().close_segment();
    }
    keep(&machine);
    machine.journal().sync().unwrap();
    assert_eq!(points(&machine), [point]);
    check(&machine, point, &model);
    keep(&machine);
    check(&machine, point, &model);
}

/// The medium fails at each write and sync of a fold in turn, as one does that is full: the points behind it are what they were, at once and after a
/// start that has no room either, and when there is room it is done.
#[test]
fn a_fold_that_finds_no_room_harms_no_point_and_is_done_later() {
    let rule: Retention = "1s every 1s".parse().unwrap();
    let run = |machine: &Machine| upkeep::run(machine, &rule, &Wishes::default(), 1 << 40, &|_| Ok(()));
    let check_all = |machine: &Arc<Machine>, points: &[(u64, Model)], when: &str| {
        let left = super::points(machine);
        assert!(!left.is_empty(), "{when}");
        for (point, model) in points.iter().filter(|(point, _)| left.contains(point)) {
            let state = machine.at(*point).unwrap();
            let found = content(&state.disk(*state.state().disks.keys().next().unwrap()).unwrap());
            assert!(found == model["sda"], "{when}: point {point}");
        }
        left.len()
    };
    let (mut failures, mut is_done) = (0, false);
    for writes in 0.. {
        let medium = Medium::default();
        let (machine, points) = full(&medium);
        machine.journal().close_segment();
        machine.journal().seal().unwrap();
        medium.fail_after(Some(writes));
        let ran = run(&machine);
        if ran.is_ok() {
            is_done = true;
            break;
        }
        failures += 1;
        let when = format!("after {writes} writes");
        check_all(&machine, &points, &when);
        // Whoever starts meanwhile has its points, too, as long as the medium can be read.
        let copy = medium.again();
        copy.fail_after(Some(0));
        if let Ok((again, _)) = try_open(&copy, Ended::Killed) {
            check_all(&again, &points, &format!("{when}, started again without room"));
        }
        medium.fail_after(None);
        run(&machine).unwrap();
        assert_eq!(check_all(&machine, &points, &format!("{when}, with room again")), 1);
        let (again, _) = open(&medium.again());
        check_all(&again, &points, &format!("{when}, started again"));
    }
    assert!(is_done && failures > 20, "{failures}");
}
