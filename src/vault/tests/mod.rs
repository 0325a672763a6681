//! The vault against a model in memory: whatever happens, a point that is offered holds what was acknowledged before it.

mod disk;

use super::handles::Handles;
use super::journal::{DiskInfo, Home, Limits, Mark};
use super::machine::Machine;
use super::retention::Retention;
use super::storage::Storage;
use super::upkeep;
use disk::{Dice, Leaves, Medium};
use landfall_image::{Bytes, Disk, DiskMut, ExtentKind, GuestOffset, GuestRange};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use uuid::Uuid;

const SMALL: Limits = Limits { records: 24, bytes: 96 << 10, closed: 2 };

fn try_open(medium: &Medium) -> landfall_image::Result<(Arc<Machine>, super::journal::start::Found)> {
    let storage: Arc<dyn Storage> = Arc::new(medium.clone());
    let home = Home {
        storage,
        handles: Arc::new(Handles::new(4)),
        dir: "web01/journal".into(),
        machine: Uuid::from_u128(7),
        in_memory: Arc::default(),
    };
    let (machine, found) = Machine::open("web01", &home, "web01/bases", SMALL)?;
    Ok((Arc::new(machine), found))
}

fn open(medium: &Medium) -> (Arc<Machine>, super::journal::start::Found) {
    try_open(medium).unwrap()
}

/// A machine's disks by their names.
type Model = BTreeMap<String, Vec<u8>>;

/// What happened, in the order of the medium's steps.
#[derive(Default)]
struct History {
    model: Model,
    /// Steps of the medium when it was published, its record, and the disks.
    points: Vec<(usize, u64, Model)>,
    /// Steps of the medium before a point could be given up, and its record.
    given_up: Vec<(usize, u64)>,
    time: u64,
}

fn info(name: &str, size: usize) -> DiskInfo {
    DiskInfo { name: name.into(), size: size as u64, sector: 512 }
}

fn content(disk: &impl Disk) -> Vec<u8> {
    let mut buf = vec![0; disk.size().to_usize().unwrap()];
    disk.read_at(GuestOffset(0), &mut buf).unwrap();
    buf
}

fn check(machine: &Arc<Machine>, sequence: u64, model: &Model) {
    let point = machine.at(sequence).unwrap();
    let names: Vec<&str> = point.state().disks.values().map(|info| info.name.as_str()).collect();
    let expected: Vec<&str> = {
        let mut all: Vec<&str> = model.keys().map(String::as_str).collect();
        all.sort_unstable();
        all
    };
    let mut names_sorted = names.clone();
    names_sorted.sort_unstable();
    assert_eq!(names_sorted, expected);
    for (number, info) in &point.state().disks {
        let disk = point.disk(*number).unwrap();
        let found = content(&disk);
        let wanted = &model[&info.name];
        if found != *wanted {
            let at = found.iter().zip(wanted).position(|(a, b)| a != b);
            panic!("point {sequence}, disk {}: differs at {at:?} of {}", info.name, wanted.len());
        }
        check_extents(&disk, &found);
    }
    assert_eq!(point.state().attachments.get("definition").map(Vec::len), Some(model.len()));
}

fn check_extents(disk: &impl Disk, found: &[u8]) {
    let mut at = 0;
    while at < found.len() {
        let rest = GuestRange::new(GuestOffset(at as u64), Bytes((found.len() - at) as u64));
        let extents = disk.extents(rest, 3).unwrap();
        assert!(!extents.is_empty() && extents.len() <= 3);
        for extent in extents {
            assert_eq!(extent.range.start().0, at as u64);
            let end = usize::try_from(extent.range.end().0).unwrap();
            if extent.kind != ExtentKind::Data {
                assert!(found[at..end].iter().all(|byte| *byte == 0), "{extent:?}");
            }
            at = end;
        }
    }
}

/// One thing that happens to a machine.
fn happen(machine: &Arc<Machine>, history: &mut History, dice: &mut Dice, steps: impl Fn() -> usize) {
    let names: Vec<String> = history.model.keys().cloned().collect();
    let name = names.get(usize::try_from(dice.roll(names.len() as u64)).unwrap()).cloned();
    match (dice.roll(40), name) {
        (0, _) | (_, None) if history.model.len() < 4 => {
            let name = format!("disk{}", dice.roll(6));
            if history.model.contains_key(&name) {
                return;
            }
            let size = 512 * (1 + usize::try_from(dice.roll(60)).unwrap());
            machine.set_disk(&info(&name, size)).unwrap();
            history.model.insert(name, vec![0; size]);
            machine.journal().attach("definition", &vec![1; history.model.len()]).unwrap();
        }
        (1, Some(name)) => {
            let size = 512 * (1 + usize::try_from(dice.roll(60)).unwrap());
            machine.set_disk(&info(&name, size)).unwrap();
            history.model.get_mut(&name).unwrap().resize(size, 0);
        }
        (2, Some(name)) if dice.roll(3) == 0 && history.model.len() > 1 => {
            machine.journal().remove_disk(machine.disk_number(&name).unwrap()).unwrap();
            history.model.remove(&name);
            machine.journal().attach("definition", &vec![1; history.model.len()]).unwrap();
        }
        (3..=8, Some(_)) => {
            history.time += 5000;
            let sequence = machine.checkpoint(history.time, &Mark::default()).unwrap();
            history.points.push((steps(), sequence, history.model.clone()));
        }
        (9, _) => machine.journal().seal().unwrap(),
        (10, _) => {
            let retention: Retention = match dice.roll(3) {
                0 => "1m every 5s, 10m every 30s".parse().unwrap(),
                1 => "30s every 5s, 2m every 10s".parse().unwrap(),
                _ => "20s every 5s".parse().unwrap(),
            };
            let before = steps();
            upkeep::run(machine, &retention, &BTreeSet::new(), history.time, &|_| Ok(())).unwrap();
            let left: BTreeSet<u64> = machine.points().unwrap().iter().map(|point| point.sequence).collect();
            assert!(
                left.contains(&history.points.last().map_or(0, |point| point.1)) || history.points.is_empty()
            );
            let gone: Vec<u64> =
                history.points.iter().map(|point| point.1).filter(|point| !left.contains(point)).collect();
            for point in gone {
                if !history.given_up.iter().any(|(_, other)| *other == point) {
                    history.given_up.push((before, point));
                }
            }
        }
        (11, Some(_)) => machine.journal().close_segment(),
        (kind, Some(name)) => {
            let model = history.model.get_mut(&name).unwrap();
            let unit = if dice.roll(3) == 0 { 512 } else { 1 };
            let at = usize::try_from(dice.roll(model.len() as u64)).unwrap() / unit * unit;
            let most = (model.len() - at).min(9000);
            let len = (1 + usize::try_from(dice.roll(most as u64)).unwrap()).min(most);
            let disk = machine.live(&name).unwrap();
            if kind < 17 {
                disk.zero_at(GuestRange::new(GuestOffset(at as u64), Bytes(len as u64))).unwrap();
                model[at..at + len].fill(0);
            } else {
                let fill = u8::try_from(1 + dice.roll(255)).unwrap();
                let data: Vec<u8> =
                    (0..len).map(|byte| fill.wrapping_add(u8::try_from(byte % 251).unwrap())).collect();
                disk.write_at(GuestOffset(at as u64), &data).unwrap();
                model[at..at + len].copy_from_slice(&data);
            }
        }
        (_, None) => {}
    }
}

#[test]
fn every_point_is_what_was_acknowledged_before_it() {
    for seed in 1..=12 {
        let mut medium = Medium::default();
        let (mut machine, _) = open(&medium);
        let mut history = History::default();
        let mut dice = Dice(seed * 7919);
        for round in 0..900 {
            happen(&machine, &mut history, &mut dice, || 0);
            if round % 61 == 0 {
                for (name, wanted) in &history.model {
                    let disk = machine.live(name).unwrap();
                    assert_eq!(content(&disk), *wanted, "{name} now");
                    check_extents(&disk, wanted);
                }
                let left: Vec<u64> = machine.points().unwrap().iter().map(|point| point.sequence).collect();
                for (_, sequence, model) in &history.points {
                    match left.contains(sequence) {
                        true => check(&machine, *sequence, model),
                        false => assert!(machine.at(*sequence).is_err(), "{sequence} was given up"),
                    }
                }
            }
            // The service is killed: all that was acknowledged is there.
            if round % 89 == 0 {
                drop(machine);
                medium = medium.again();
                let found;
                (machine, found) = open(&medium);
                assert!(!found.is_damaged(), "{found:?}");
            }
        }
        let files = medium.paths().len();
        assert!(files < 60, "{files} files");
    }
}

#[test]
fn no_cut_of_the_power_costs_a_published_point() {
    for seed in 1..=3 {
        let medium = Medium::recording();
        let (machine, _) = open(&medium);
        let mut history = History::default();
        let mut dice = Dice(seed * 104_729);
        while medium.steps() < 1200 {
            happen(&machine, &mut history, &mut dice, || medium.steps());
        }
        assert!(history.points.len() > 20 && !history.given_up.is_empty());
        for steps in 0..medium.steps() {
            let number = steps as u64;
            for leaves in
                [Leaves::Nothing, Leaves::All, Leaves::Some(number), Leaves::Some(number + 1_000_000)]
            {
                let after = medium.cut(steps, leaves);
                let (machine, _) = open(&after);
                let offered: BTreeSet<u64> =
                    machine.points().unwrap().iter().map(|point| point.sequence).collect();
                for (published, sequence, model) in &history.points {
                    let is_gone = history.given_up.iter().any(|(at, point)| point == sequence && *at < steps);
                    if *published <= steps && !is_gone {
                        assert!(
                            offered.contains(sequence),
                            "point {sequence} was lost at step {steps} ({leaves:?})"
                        );
                    }
                    if offered.contains(sequence) && (steps % 7 == 0 || *published + 3 > steps) {
                        check(&machine, *sequence, model);
                    }
                }
                // It goes on from there.
                if steps % 50 == 0 {
                    machine.set_disk(&info("after", 4096)).unwrap();
                    machine.live("after").unwrap().write_at(GuestOffset(0), &[9; 100]).unwrap();
                    machine.checkpoint(u64::MAX / 4, &Mark::default()).unwrap();
                    machine.journal().seal().unwrap();
                }
            }
        }
    }
}

#[test]
fn what_was_found_after_a_cut_survives_the_next() {
    let medium = Medium::recording();
    let (machine, _) = open(&medium);
    let mut history = History::default();
    let mut dice = Dice(31_337);
    while medium.steps() < 400 {
        happen(&machine, &mut history, &mut dice, || medium.steps());
    }
    for steps in (0..medium.steps()).step_by(3) {
        let mut after = medium.cut(steps, Leaves::All);
        after.record();
        let (machine, _) = open(&after);
        let offered: Vec<u64> = machine.points().unwrap().iter().map(|point| point.sequence).collect();
        after = after.cut(after.steps(), Leaves::Nothing);
        let (machine, found) = open(&after);
        assert!(!found.is_damaged());
        let still: Vec<u64> = machine.points().unwrap().iter().map(|point| point.sequence).collect();
        assert_eq!(still, offered, "at step {steps}");
    }
}

/// A point that somebody holds is there whatever the rules say, however long nobody reads it; and goes when it is released.
#[test]
fn a_held_point_outlives_the_rules_and_the_process() {
    let medium = Medium::recording();
    let (machine, _) = open(&medium);
    machine.set_disk(&info("sda", 64 << 10)).unwrap();
    machine.journal().attach("definition", &[1]).unwrap();
    let mut points = Vec::new();
    let go_on = |machine: &Arc<Machine>, points: &mut Vec<(u64, Model)>| {
        let disk = machine.live("sda").unwrap();
        for _ in 0..30 {
            let number = points.len() as u64 + 1;
            let fill = u8::try_from(number).unwrap();
            disk.write_at(GuestOffset(number * 512), &[fill; 2000]).unwrap();
            let model = Model::from([("sda".to_owned(), content(&disk))]);
            points.push((machine.checkpoint(number * 5000, &Mark::default()).unwrap(), model));
        }
        machine.journal().close_segment();
        let retention: Retention = "20s every 5s".parse().unwrap();
        upkeep::run(machine, &retention, &BTreeSet::new(), points.len() as u64 * 5000, &|_| Ok(())).unwrap();
    };
    go_on(&machine, &mut points);
    let is_there = |machine: &Machine, point: u64| {
        machine.points().unwrap().iter().any(|other| other.sequence == point)
    };
    let (gone, kept) = (points[3].0, points[28].clone());
    assert!(!is_there(&machine, gone) && machine.hold(gone, "x").is_err() && machine.hold(7777, "x").is_err());
    machine.hold(kept.0, "one").unwrap();
    machine.hold(kept.0, "one").unwrap();
    machine.hold(kept.0, "other").unwrap();
    let held = medium.steps();
    go_on(&machine, &mut points);
    check(&machine, kept.0, &kept.1);
    assert!(!is_there(&machine, points[29].0), "its neighbours go");
    // A loss of power at any step after it was held does not let it go.
    for steps in (held..medium.steps()).step_by(5) {
        let (machine, _) = open(&medium.cut(steps, Leaves::Nothing));
        assert_eq!(machine.holds().points(), BTreeSet::from([kept.0]), "at step {steps}");
        check(&machine, kept.0, &kept.1);
    }
    drop(machine);
    let medium = medium.again();
    let (machine, _) = open(&medium);
    machine.release(kept.0, "one").unwrap();
    machine.release(kept.0, "nobody").unwrap();
    go_on(&machine, &mut points);
    check(&machine, kept.0, &kept.1);
    machine.release(kept.0, "other").unwrap();
    go_on(&machine, &mut points);
    assert!(!is_there(&machine, kept.0) && machine.at(kept.0).is_err());
}

/// A machine with a disk of 256 KiB and some points in every part of the vault: the base, a rewritten segment, a sealed one, one in memory.
fn full(medium: &Medium) -> (Arc<Machine>, Vec<(u64, Model)>) {
    let (machine, _) = open(medium);
    machine.set_disk(&info("sda", 256 << 10)).unwrap();
    machine.journal().attach("definition", &[1]).unwrap();
    let disk = machine.live("sda").unwrap();
    let mut model = Model::from([("sda".to_owned(), vec![0; 256 << 10])]);
    let mut points = Vec::new();
    let mut dice = Dice(99);
    for time in 1..=60u64 {
        for _ in 0..6 {
            let at = usize::try_from(dice.roll(500)).unwrap() * 512;
            let data = vec![u8::try_from(1 + dice.roll(255)).unwrap(); 3000];
            disk.write_at(GuestOffset(at as u64), &data).unwrap();
            model.get_mut("sda").unwrap()[at..at + 3000].copy_from_slice(&data);
        }
        points.push((machine.checkpoint(time * 5000, &Mark::default()).unwrap(), model.clone()));
    }
    let retention: Retention = "30s every 5s, 4m every 20s".parse().unwrap();
    let done = upkeep::run(&machine, &retention, &BTreeSet::new(), 300_000, &|_| Ok(())).unwrap();
    assert!(done.points > 20 && done.rewritten > 2 && done.folded > 0, "{done:?}");
    let data = vec![77; 3000];
    disk.write_at(GuestOffset(0), &data).unwrap();
    model.get_mut("sda").unwrap()[..3000].copy_from_slice(&data);
    points.push((machine.checkpoint(305_000, &Mark::default()).unwrap(), model));
    let left: Vec<u64> = machine.points().unwrap().iter().map(|point| point.sequence).collect();
    points.retain(|(sequence, _)| left.contains(sequence));
    assert_eq!(points.len(), left.len());
    (machine, points)
}

#[test]
fn a_damaged_file_is_never_read_as_if_it_were_sound() {
    let medium = Medium::default();
    let (machine, points) = full(&medium);
    machine.journal().close_segment();
    machine.journal().seal().unwrap();
    drop(machine);
    let mut told = 0;
    for (path, len) in medium.paths() {
        for at in (0..len).step_by(997) {
            let broken = medium.again();
            broken.flip(&path, at);
            let Ok((machine, _)) = try_open(&broken) else {
                told += 1;
                continue;
            };
            for (sequence, model) in &points {
                let read = machine.at(*sequence).and_then(|point| {
                    let number = *point.state().disks.keys().next().unwrap();
                    let disk = point.disk(number)?;
                    let mut buf = vec![0; 256 << 10];
                    disk.read_at(GuestOffset(0), &mut buf)?;
                    Ok(buf)
                });
                match read {
                    Ok(buf) => assert!(buf == model["sda"], "{path} at {at}, point {sequence}"),
                    Err(_) => told += 1,
                }
            }
        }
    }
    assert!(told > 50, "{told}");
}

#[test]
fn a_point_that_somebody_reads_stays() {
    let medium = Medium::default();
    let (machine, points) = full(&medium);
    let (first, model) = &points[0];
    let held = machine.at(*first).unwrap();
    let retention: Retention = "5s every 5s".parse().unwrap();
    upkeep::run(&machine, &retention, &BTreeSet::new(), 10_000_000, &|_| Ok(())).unwrap();
    let left: Vec<u64> = machine.points().unwrap().iter().map(|point| point.sequence).collect();
    // The last two are in the segment that is written to, which stays as it is.
    assert_eq!(left, [*first, points[points.len() - 2].0, points.last().unwrap().0]);
    let number = *held.state().disks.keys().next().unwrap();
    assert_eq!(content(&held.disk(number).unwrap()), model["sda"]);
    drop(held);
    upkeep::run(&machine, &retention, &BTreeSet::new(), 10_000_000, &|_| Ok(())).unwrap();
    assert_eq!(machine.points().unwrap().len(), 2);
    assert!(machine.at(*first).is_err());
    check(&machine, points.last().unwrap().0, &points.last().unwrap().1);
}

#[test]
fn a_point_is_offered_when_it_is_durable() {
    let medium = Medium::default();
    let (machine, points) = full(&medium);
    machine.journal().hold().checkpoint(1_000_000, &Mark::default()).unwrap();
    assert_eq!(machine.points().unwrap().len(), points.len());
    machine.journal().sync().unwrap();
    assert_eq!(machine.points().unwrap().len(), points.len() + 1);
}

#[test]
fn a_medium_that_fails_is_not_believed_again() {
    for count in 0..40 {
        let medium = Medium::default();
        let (machine, points) = full(&medium);
        let disk = machine.live("sda").unwrap();
        medium.fail_after(Some(count));
        let mut acknowledged = Vec::new();
        let mut is_lost = false;
        for time in 0..12u64 {
            let data = [u8::try_from(time + 1).unwrap(); 512];
            if disk.write_at(GuestOffset(512 * time), &data).is_ok() {
                acknowledged.push(time);
            }
            let is_set = machine.checkpoint(2_000_000 + time, &Mark::default()).is_ok();
            assert!(!(is_lost && is_set), "a checkpoint after a sync that failed");
            is_lost |= !is_set && medium.has_failed();
        }
        medium.fail_after(None);
        // What was acknowledged reads back, and what was safe before is safe.
        for time in acknowledged {
            let mut buf = [0; 512];
            disk.read_at(GuestOffset(512 * time), &mut buf).unwrap();
            assert_eq!(buf, [u8::try_from(time + 1).unwrap(); 512]);
        }
        let (sequence, model) = points.last().unwrap();
        check(&machine, *sequence, model);
    }
}

#[test]
fn a_cut_across_machines_is_one_moment() {
    let storage: Arc<dyn Storage> = Arc::new(Medium::default());
    let (vault, troubles) = super::Vault::on(storage, SMALL, None).unwrap();
    assert!(troubles.is_empty());
    let machines: Vec<Arc<Machine>> =
        ["web", "db"].iter().map(|name| vault.machine_or_new(&name.parse().unwrap()).unwrap()).collect();
    for machine in &machines {
        machine.set_disk(&info("sda", 4096)).unwrap();
    }
    // One writer goes from machine to machine: what one has is never older than what the next has.
    let disks: Vec<_> = machines.iter().map(|machine| machine.live("sda").unwrap()).collect();
    let is_enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number: u64 = 0;
            while !is_enough.load(Ordering::Relaxed) {
                number += 1;
                for disk in &disks {
                    disk.write_at(GuestOffset(0), &number.to_le_bytes()).unwrap();
                }
            }
        });
        for time in 1..=50 {
            // Named in another order than the writer's.
            let order = [Arc::clone(&machines[1]), Arc::clone(&machines[0])];
            let points = vault.cut(&order, time, &Mark::default()).unwrap();
            let number = |machine: &Arc<Machine>, point: u64| {
                let point = machine.at(point).unwrap();
                let disk = point.disk(*point.state().disks.keys().next().unwrap()).unwrap();
                let mut buf = [0; 8];
                disk.read_at(GuestOffset(0), &mut buf).unwrap();
                u64::from_le_bytes(buf)
            };
            let (db, web) = (number(&order[0], points[0]), number(&order[1], points[1]));
            assert!(web == db || web == db + 1, "web has {web}, db {db}");
        }
        is_enough.store(true, Ordering::Relaxed);
    });
    let groups: Vec<_> =
        machines.iter().map(|machine| machine.points().unwrap().pop().unwrap().mark.group).collect();
    assert!(groups[0].is_some() && groups[0] == groups[1]);
}

#[test]
fn a_vault_is_one_process_s_and_in_a_folder_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("vault");
    let (vault, _) = super::Vault::open(&root).unwrap();
    let error = super::Vault::open(&root).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    let machine = vault.machine_or_new(&"web01".parse().unwrap()).unwrap();
    machine.set_disk(&info("sda", 1 << 20)).unwrap();
    let disk = machine.live("sda").unwrap();
    disk.write_at(GuestOffset(4096), &[5; 100_000]).unwrap();
    disk.zero_at(GuestRange::new(GuestOffset(8192), Bytes(4096))).unwrap();
    let point = machine.checkpoint(1, &Mark::default()).unwrap();
    machine.journal().seal().unwrap();
    let wanted = content(&disk);
    drop((machine, disk, vault));
    let (vault, troubles) = super::Vault::open(&root).unwrap();
    assert!(troubles.is_empty());
    let machine = vault.machine(&"web01".parse().unwrap()).unwrap();
    check_point(&machine, point, &wanted);
    // Folded, on a real file system.
    for time in 2..5 {
        machine.journal().close_segment();
        machine.live("sda").unwrap().write_at(GuestOffset(time), &[1]).unwrap();
        machine.checkpoint(time, &Mark::default()).unwrap();
    }
    machine.journal().close_segment();
    let wanted = content(&machine.live("sda").unwrap());
    let done = upkeep::run(&machine, &"1s every 1s".parse().unwrap(), &BTreeSet::new(), 1 << 40, &|_| Ok(()))
        .unwrap();
    assert!(done.folded > 0);
    let last = machine.points().unwrap().pop().unwrap().sequence;
    check_point(&machine, last, &wanted);
    std::fs::write(dir.path().join("x"), "").unwrap();
    assert!(super::Vault::open(dir.path()).unwrap_err().to_string().contains("not empty"));
}

fn check_point(machine: &Arc<Machine>, point: u64, wanted: &[u8]) {
    let point = machine.at(point).unwrap();
    let disk = point.disk(*point.state().disks.keys().next().unwrap()).unwrap();
    let found = content(&disk);
    assert!(found == wanted);
    check_extents(&disk, &found);
}
