//! What is found when a journal is opened: files that are left over, torn, missing.

use super::*;
use crate::vault::journal::Journal;
use landfall_image::Kind;

const JOURNAL: &str = "web01/journal";

/// A machine with `count` segments, none of them sealed, each with one write and one point. Limits on what is closed do not count here.
fn opened(medium: &Medium, count: u64) -> Vec<(u64, Model)> {
    let limits = Limits { closed: 1000, ..SMALL };
    let (machine, _) = Machine::open("web01", &home(medium), "web01/bases", limits, Ended::Killed).unwrap();
    let machine = Arc::new(machine);
    machine.journal().set_disk(&info("sda", 8192)).unwrap();
    machine.journal().attach("definition", &[1]).unwrap();
    let mut model = Model::from([("sda".to_owned(), vec![0; 8192])]);
    let mut points = Vec::new();
    for number in 1..=count {
        let byte = u8::try_from(number).unwrap();
        machine.live("sda").unwrap().write_at(GuestOffset(512 * number), &[byte; 512]).unwrap();
        let at = usize::try_from(512 * number).unwrap();
        model.get_mut("sda").unwrap()[at..at + 512].fill(byte);
        points.push((machine.checkpoint(number * 5000, &Mark::default()).unwrap(), model.clone()));
        machine.journal().close_segment();
    }
    points
}

fn files(medium: &Medium, ending: &str) -> Vec<String> {
    let paths = medium.paths().into_iter().map(|(path, _)| path);
    paths.filter(|path| path.starts_with(JOURNAL) && path.ends_with(ending)).collect()
}

/// What is offered is what was set up to there.
fn check_offered(machine: &Arc<Machine>, expected: &[(u64, Model)]) {
    assert_eq!(points(machine), expected.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>());
    expected.iter().for_each(|(sequence, model)| check(machine, *sequence, model));
}

#[test]
fn what_lies_behind_a_torn_file_is_set_aside() {
    for (damaged, content) in [
        // Empty, or shorter than its header: it goes. Longer: it is set aside, too.
        (2, Vec::new()),
        (2, vec![0; 40]),
        (2, vec![0; 5000]),
        (0, Vec::new()),
        (0, vec![0; 40]),
        (0, vec![0; 5000]),
    ] {
        let medium = Medium::default();
        let set = opened(&medium, 5);
        let all = files(&medium, ".open");
        assert_eq!(all.len(), 5);
        let contents: Vec<_> = all.iter().map(|path| medium.content(path).unwrap()).collect();
        medium.put(&all[damaged], Some(content.clone()));
        let (machine, found) = open(&medium);
        check_offered(&machine, &set[..damaged]);
        assert!(found.was_open);
        assert_eq!(found.torn, content.len() as u64);
        let mut lost: Vec<String> = all[damaged + 1..].iter().map(|path| format!("{path}.lost")).collect();
        if content.len() > 64 {
            lost.insert(0, format!("{}.lost", all[damaged]));
        }
        assert_eq!(found.lost, lost);
        for (path, content) in all.iter().zip(&contents).skip(damaged + 1) {
            assert_eq!(medium.content(&format!("{path}.lost")).as_ref(), Some(content));
        }
        assert!(machine.journal().is_behind());
        // It goes on, with the numbers that the lost ones had; they stay whatever happens, also where the same is lost again.
        machine.journal().caught_up().unwrap();
        machine.journal().set_disk(&info("sda", 8192)).unwrap();
        machine.journal().attach("definition", &[1]).unwrap();
        for time in 0..6 {
            machine.live("sda").unwrap().write_at(GuestOffset(0), &[9; 512]).unwrap();
            machine.checkpoint(1 << 40 | time, &Mark::default()).unwrap();
            machine.journal().close_segment();
        }
        for path in files(&medium, ".open").iter().skip(damaged) {
            medium.put(path, Some(vec![0; 5000]));
        }
        let (machine, found) = open(&medium.again());
        check_offered(&machine, &set[..damaged]);
        assert!(!found.lost.is_empty() && found.lost.iter().all(|path| !lost.contains(path)), "{found:?}");
        for (path, content) in all.iter().zip(&contents).skip(damaged + 1) {
            assert_eq!(medium.content(&format!("{path}.lost")).as_ref(), Some(content));
        }
    }
}

#[test]
fn what_lies_behind_a_missing_segment_is_set_aside_and_can_be_brought_back() {
    let medium = Medium::default();
    let set = opened(&medium, 6);
    let (machine, _) = open(&medium);
    machine.journal().seal().unwrap();
    drop(machine);
    let all = files(&medium, ".seg");
    assert_eq!(all.len(), 6);
    let broken = medium.again();
    let missing = broken.content(&all[3]).unwrap();
    broken.put(&all[3], None);
    let (machine, found) = open(&broken);
    check_offered(&machine, &set[..3]);
    assert_eq!(found.lost, all[4..].iter().map(|path| format!("{path}.lost")).collect::<Vec<_>>());
    assert!(machine.journal().is_behind());
    drop(machine);
    // The administrator finds it.
    broken.put(&all[3], Some(missing));
    for path in &all[4..] {
        broken.put(path, broken.content(&format!("{path}.lost")));
    }
    let (machine, _) = open(&broken);
    check_offered(&machine, &set);
    // At the beginning nothing would be left: nothing is touched.
    let broken = medium.again();
    broken.put(&all[0], None);
    let before = files(&broken, "");
    let error = try_open(&broken, Ended::InOrder).unwrap_err();
    assert_eq!((error.kind(), error.hint_text().is_some()), (Kind::Corrupt, true));
    assert_eq!(files(&broken, ""), before);
}

#[test]
fn a_base_without_its_journal_is_not_taken_for_a_new_machine() {
    let medium = Medium::default();
    let (machine, _) = full(&medium);
    assert!(machine.base().through() > 0);
    for path in files(&medium, "") {
        medium.put(&path, None);
    }
    let error = try_open(&medium, Ended::InOrder).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
}

#[test]
fn acknowledged_writes_may_be_missing_only_where_they_may() {
    let torn = |medium: &Medium, bytes: usize| {
        let path = files(medium, ".open").pop().unwrap();
        let mut content = medium.content(&path).unwrap();
        content.resize(content.len() + bytes, 0xa5);
        medium.put(&path, Some(content));
    };
    for (ended, bytes, is_behind) in [
        (Ended::InOrder, 0, false),
        (Ended::InOrder, 100, true),
        (Ended::Killed, 0, false),
        (Ended::Killed, 100, false),
        (Ended::Killed, 40 << 20, true),
        (Ended::WithThePower, 0, true),
        (Ended::WithThePower, 100, true),
    ] {
        let medium = Medium::default();
        let set = opened(&medium, 3);
        torn(&medium, bytes);
        let (machine, found) = try_open(&medium, ended).unwrap();
        let wanted = Found { was_open: true, torn: bytes as u64, lost: Vec::new() };
        assert_eq!(found, wanted);
        assert_eq!(machine.journal().is_behind(), is_behind, "{ended:?} with {bytes}");
        check_offered(&machine, &set);
        // All of it sealed: there is nothing that the power could have taken.
        machine.journal().seal().unwrap();
        if !is_behind {
            let (machine, found) = try_open(&medium, Ended::WithThePower).unwrap();
            assert_eq!(found, Found::default());
            assert!(!machine.journal().is_behind());
        }
    }
}

#[test]
fn a_machine_stays_behind_until_it_has_caught_up() {
    let medium = Medium::recording();
    opened(&medium, 3);
    let steps = medium.steps();
    try_open(&medium, Ended::WithThePower).unwrap();
    // A cut of the power at any moment of the first start does not make it forget.
    for steps in steps..=medium.steps() {
        for leaves in [disk::Leaves::Nothing, disk::Leaves::All] {
            let after = medium.cut(steps, leaves);
            let (machine, _) = try_open(&after, Ended::WithThePower).unwrap();
            assert!(machine.journal().is_behind(), "at step {steps}");
        }
    }
    let (machine, found) = open(&medium);
    assert!(machine.journal().is_behind() && found.was_open);
    let error = machine.checkpoint(1 << 40, &Mark::default()).unwrap_err();
    assert_eq!((error.kind(), error.hint_text().is_some()), (Kind::Refused, true));
    machine.journal().caught_up().unwrap();
    machine.checkpoint(1 << 40, &Mark::default()).unwrap();
    let (machine, _) = open(&medium.again());
    assert!(!machine.journal().is_behind());
}

/// All against all: slow, and plainly right.
fn is_stale(all: &[(u64, u64, u32)], one: &(u64, u64, u32)) -> bool {
    all.iter().any(|other| other.2 > one.2 && other.0 <= one.0 && other.1 >= one.1)
}

#[test]
fn of_segments_that_hold_the_same_the_one_rewritten_last_counts() {
    let mut dice = Dice(4711);
    for _ in 0..500 {
        // A journal of 40 parts, of which neighbours were merged at random, again and again; the old files are still there.
        let mut now: Vec<(u64, u64, u32)> = (0..40).map(|part| (part * 10 + 1, part * 10 + 10, 0)).collect();
        let mut all = now.clone();
        for _ in 0..dice.roll(12) {
            let from = usize::try_from(dice.roll(now.len() as u64)).unwrap();
            let to = (from + usize::try_from(dice.roll(6)).unwrap()).min(now.len() - 1);
            let generation = now[from..=to].iter().map(|one| one.2).max().unwrap() + 1;
            let merged = (now[from].0, now[to].1, generation);
            now.splice(from..=to, [merged]);
            all.push(merged);
        }
        let name = |one: &(u64, u64, u32)| format!("{JOURNAL}/{:016x}-{:016x}.{}.seg", one.0, one.1, one.2);
        let medium = Medium::default();
        all.iter().for_each(|one| medium.put(&name(one), Some(vec![1])));
        let wanted: BTreeSet<String> = all.iter().filter(|one| !is_stale(&all, one)).map(name).collect();
        // None of these files can be read, which is noticed when all is tidy.
        Journal::open(home(&medium), SMALL, 1, Ended::InOrder).unwrap_err();
        assert_eq!(files(&medium, ".seg").into_iter().collect::<BTreeSet<_>>(), wanted);
        assert_eq!(wanted.len(), now.len());
    }
}

#[test]
fn many_segments_are_opened_without_reading_them() {
    let medium = Medium::default();
    opened(&medium, 15);
    let (machine, _) = open(&medium);
    machine.journal().seal().unwrap();
    medium.traffic();
    open(&medium);
    let read = medium.traffic().into_iter().filter(|traffic| !traffic.is_write);
    let of: BTreeSet<String> = read.map(|traffic| traffic.path).collect();
    assert_eq!(of.len(), 2, "the last segment and its index: {of:?}");
}

#[test]
fn names_that_nobody_gave_do_no_harm() {
    let medium = Medium::default();
    let set = opened(&medium, 3);
    let (machine, _) = open(&medium);
    machine.journal().seal().unwrap();
    for name in [
        "0000000000000005-0000000000000001.0.seg",
        "ffffffffffffffff-ffffffffffffffff.4294967295.seg",
        "0000000000000000.open",
        "x.open",
        "0000000000000001-.seg",
        "0000000000000001-0000000000000002.99999999999.seg",
        "readme.txt",
    ] {
        let medium = medium.again();
        medium.put(&format!("{JOURNAL}/{name}"), Some(vec![1; 100]));
        let (machine, _) = open(&medium);
        check_offered(&machine, &set);
    }
}
