//! Points, disks and times of a machine.

use super::*;

#[test]
fn a_point_that_somebody_reads_stays() {
    let medium = Medium::default();
    let (machine, points) = full(&medium);
    let (first, model) = &points[0];
    let held = machine.at(*first).unwrap();
    let retention: Retention = "5s every 5s".parse().unwrap();
    upkeep::run(&machine, &retention, &Default::default(), 10_000_000, &|_| Ok(())).unwrap();
    let left: Vec<u64> = machine.points().unwrap().iter().map(|point| point.sequence).collect();
    assert_eq!(left, [*first, points.last().unwrap().0]);
    let number = *held.state().disks.keys().next().unwrap();
    assert_eq!(content(&held.disk(number).unwrap()), model["sda"]);
    drop(held);
    upkeep::run(&machine, &retention, &Default::default(), 10_000_000, &|_| Ok(())).unwrap();
    assert_eq!(machine.points().unwrap().len(), 1);
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

/// The content of one disk, all of it.
fn live(machine: &Arc<Machine>, name: &str) -> Vec<u8> {
    content(&machine.live(name).unwrap())
}

#[test]
fn a_disk_is_known_by_its_name_and_a_number_is_never_used_again() {
    let mut medium = Medium::default();
    let (mut machine, _) = open(&medium);
    let mut number = machine.journal().set_disk(&info("sda", 4096)).unwrap();
    let last = machine.journal().last();
    assert_eq!(machine.journal().set_disk(&info("sda", 4096)).unwrap(), number);
    assert_eq!(machine.journal().last(), last, "nothing was written");
    assert_eq!(machine.journal().set_disk(&info("sda", 8192)).unwrap(), number);
    // The one with the highest number goes, again and again; in between everything that can happen to a journal.
    for round in 1..=11u64 {
        let added = machine.journal().set_disk(&info("data", 4096)).unwrap();
        assert!(added > number, "{added} in round {round}");
        number = added;
        machine.live("data").unwrap().write_at(GuestOffset(0), &[7; 4096]).unwrap();
        machine.checkpoint(2 * round * 5000, &Mark::default()).unwrap();
        machine.journal().remove_disk(number).unwrap();
        for time in 0..3 {
            machine.live("sda").unwrap().write_at(GuestOffset(0), &[1; 512]).unwrap();
            machine.checkpoint((2 * round + 1) * 5000 + time, &Mark::default()).unwrap();
            machine.journal().close_segment();
        }
        let retention: Retention = "10s every 5s, 20s every 10s".parse().unwrap();
        upkeep::run(&machine, &retention, &Default::default(), 10 * round * 5000, &|_| Ok(())).unwrap();
        if [2, 4].contains(&round) {
            medium = medium.again();
            (machine, _) = open(&medium);
        }
        assert_eq!(machine.journal().state().highest, number);
    }
    // What the base had of those that are gone is gone with them.
    let bases: Vec<String> =
        medium.paths().into_iter().map(|(path, _)| path).filter(|path| path.contains("/bases/")).collect();
    assert!(bases.contains(&"web01/bases/00000001.raw".to_owned()), "{bases:?}");
    assert!(bases.iter().filter(|path| path.ends_with(".raw")).count() <= 2, "{bases:?}");
}

#[test]
fn what_a_smaller_disk_lost_does_not_come_back() {
    for folds in [false, true] {
        for restarts in [false, true] {
            let mut medium = Medium::default();
            let (mut machine, _) = open(&medium);
            machine.journal().set_disk(&info("sda", 16384)).unwrap();
            machine.live("sda").unwrap().write_at(GuestOffset(0), &[7; 16384]).unwrap();
            machine.checkpoint(1, &Mark::default()).unwrap();
            let fold = |machine: &Arc<Machine>, time| {
                machine.journal().close_segment();
                machine.checkpoint(time, &Mark::default()).unwrap();
                machine.journal().close_segment();
                let retention = "1s every 1s".parse().unwrap();
                upkeep::run(machine, &retention, &Default::default(), 1 << 40, &|_| Ok(())).unwrap()
            };
            if folds {
                assert!(fold(&machine, 2).folded > 0);
            }
            machine.journal().set_disk(&info("sda", 512)).unwrap();
            assert_eq!(machine.live("sda").unwrap().size(), Bytes(512));
            machine.checkpoint(3, &Mark::default()).unwrap();
            if restarts {
                medium = medium.again();
                (machine, _) = open(&medium);
            }
            machine.journal().set_disk(&info("sda", 16384)).unwrap();
            let mut wanted = vec![0; 16384];
            wanted[..512].fill(7);
            assert!(live(&machine, "sda") == wanted);
            let point = machine.checkpoint(4, &Mark::default()).unwrap();
            if folds {
                fold(&machine, 5);
                assert!(live(&machine, "sda") == wanted);
            } else {
                assert!(content(&machine.at(point).unwrap().disk(1).unwrap()) == wanted);
            }
        }
    }
}

#[test]
fn a_disk_that_grows_writes_zeros_only_where_it_grows() {
    let medium = Medium::default();
    let (machine, _) = open(&medium);
    machine.journal().set_disk(&info("sda", 4096)).unwrap();
    let last = machine.journal().last();
    machine.journal().set_disk(&info("sda", 512)).unwrap();
    assert_eq!(machine.journal().last(), last + 1, "smaller: its description alone");
    machine.journal().set_disk(&info("sda", 1024)).unwrap();
    assert_eq!(machine.journal().last(), last + 3, "larger: zeros, then its description");
    machine.journal().set_disk(&info("sdb", 1 << 40)).unwrap();
    assert_eq!(machine.journal().last(), last + 4, "new: nobody wrote to it");
}

#[test]
fn times_of_points_rise_whatever_the_clock_does() {
    let mut medium = Medium::default();
    let (mut machine, _) = open(&medium);
    machine.journal().set_disk(&info("sda", 4096)).unwrap();
    let set = |machine: &Arc<Machine>, time| {
        machine.live("sda").unwrap().write_at(GuestOffset(0), &[1; 512]).unwrap();
        machine.checkpoint(time, &Mark::default()).unwrap();
        machine.points().unwrap().last().unwrap().time
    };
    assert_eq!(set(&machine, 1000), 1000);
    assert_eq!(set(&machine, 1000), 1001);
    assert_eq!(set(&machine, 500), 1002);
    // Whether the last one is in the segment that is open, in one that is closed, or far behind.
    medium = medium.again();
    (machine, _) = open(&medium);
    assert_eq!(set(&machine, 3), 1003);
    machine.journal().close_segment();
    assert_eq!(set(&machine, 3), 1004);
    for _ in 0..100 {
        machine.live("sda").unwrap().write_at(GuestOffset(0), &[1; 512]).unwrap();
    }
    machine.journal().seal().unwrap();
    medium = medium.again();
    (machine, _) = open(&medium);
    machine.journal().seal().unwrap();
    medium = medium.again();
    (machine, _) = open(&medium);
    assert_eq!(set(&machine, 3), 1005);
    // And where it was rewritten.
    for time in 2000..2010 {
        set(&machine, time);
        machine.journal().close_segment();
    }
    let retention: Retention = "1s every 1s, 100s every 50s".parse().unwrap();
    let done = upkeep::run(&machine, &retention, &Default::default(), 50_000, &|_| Ok(())).unwrap();
    assert!(done.rewritten > 0, "{done:?}");
    medium = medium.again();
    (machine, _) = open(&medium);
    assert_eq!(set(&machine, 3), 2010);
    let times: Vec<u64> = machine.points().unwrap().iter().map(|point| point.time).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
}
