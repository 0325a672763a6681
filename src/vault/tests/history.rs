//! Everything that can happen to a machine, in any order, and a cut of the power between any two steps of it.

use super::disk::Leaves;
use super::*;

/// What happened, in the order of the medium's steps.
#[derive(Default)]
struct History {
    model: Model,
    /// Steps of the medium when it was published, its record, and the disks.
    points: Vec<(usize, u64, Model)>,
    /// Steps of the medium before a point could be given up, and its record.
    given_up: Vec<(usize, u64)>,
    time: u64,
    /// Indexes that were merged.
    merged: usize,
    /// What was acknowledged up to a step of the medium.
    acknowledged: Vec<(usize, Model)>,
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
            machine.journal().set_disk(&info(&name, size)).unwrap();
            history.model.insert(name, vec![0; size]);
            machine.journal().attach("definition", &vec![1; history.model.len()]).unwrap();
        }
        (1, Some(name)) => {
            let size = 512 * (1 + usize::try_from(dice.roll(60)).unwrap());
            machine.journal().set_disk(&info(&name, size)).unwrap();
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
            let retention: Retention = match dice.roll(8) {
                0 => "1m every 5s, 10m every 30s".parse().unwrap(),
                1 => "30s every 5s, 2m every 10s".parse().unwrap(),
                2 => "20s every 5s".parse().unwrap(),
                // Nothing is given up, and the journal grows.
                _ => "100h every 1s".parse().unwrap(),
            };
            let before = steps();
            let done =
                upkeep::run(machine, &retention, &Default::default(), history.time, &|_| Ok(())).unwrap();
            history.merged += done.merged;
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
    let mut merged = 0;
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
        assert!(files < 400, "{files} files");
        merged += history.merged;
    }
    assert!(merged > 20, "{merged} merged");
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
            history.acknowledged.push((medium.steps(), history.model.clone()));
        }
        assert!(history.points.len() > 20 && !history.given_up.is_empty() && history.merged > 0);
        for steps in 0..medium.steps() {
            let number = steps as u64;
            for leaves in
                [Leaves::Nothing, Leaves::All, Leaves::Some(number), Leaves::Some(number + 1_000_000)]
            {
                let after = medium.cut(steps, leaves);
                let (machine, _) = try_open(&after, Ended::WithThePower).unwrap();
                check_acknowledged(&machine, &history, steps);
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
                    machine.journal().caught_up().unwrap();
                    machine.journal().set_disk(&info("after", 4096)).unwrap();
                    machine.live("after").unwrap().write_at(GuestOffset(0), &[9; 100]).unwrap();
                    machine.checkpoint(u64::MAX / 4, &Mark::default()).unwrap();
                    machine.journal().seal().unwrap();
                }
            }
        }
    }
}

/// Where the machine does not say that writes may be missing, none is.
fn check_acknowledged(machine: &Arc<Machine>, history: &History, steps: usize) {
    if machine.journal().is_behind() {
        return;
    }
    let behind = history.acknowledged.partition_point(|(at, _)| *at <= steps);
    let (Some((_, before)), Some((_, after))) =
        (history.acknowledged.get(behind.wrapping_sub(1)), history.acknowledged.get(behind))
    else {
        return;
    };
    let shape = |model: &Model| -> Vec<(String, usize)> {
        model.iter().map(|(name, content)| (name.clone(), content.len())).collect()
    };
    if shape(before) != shape(after) {
        return;
    }
    for name in before.keys() {
        let found = content(&machine.live(name).unwrap());
        assert!(found == before[name] || found == after[name], "{name} lost a write at step {steps}");
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
        let offered = points(&machine);
        after = after.cut(after.steps(), Leaves::Nothing);
        let (machine, found) = open(&after);
        assert!(!found.is_damaged());
        let still: Vec<u64> = machine.points().unwrap().iter().map(|point| point.sequence).collect();
        assert_eq!(still, offered, "at step {steps}");
    }
}
