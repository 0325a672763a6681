//! Points that somebody holds.

use super::disk::Leaves;
use super::*;

/// A point that somebody holds is there whatever the rules say, however long nobody reads it; and goes when it is released.
#[test]
fn a_held_point_outlives_the_rules_and_the_process() {
    let medium = Medium::recording();
    let (machine, _) = open(&medium);
    machine.journal().set_disk(&info("sda", 64 << 10)).unwrap();
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
        upkeep::run(machine, &retention, &Default::default(), points.len() as u64 * 5000, &|_| Ok(()))
            .unwrap();
    };
    go_on(&machine, &mut points);
    let is_there =
        |machine: &Machine, point: u64| machine.points().unwrap().iter().any(|other| other.sequence == point);
    let (gone, kept) = (points[3].0, points[28].clone());
    assert!(
        !is_there(&machine, gone) && machine.hold(gone, "x").is_err() && machine.hold(7777, "x").is_err()
    );
    machine.hold(kept.0, "one").unwrap();
    machine.hold(kept.0, "one").unwrap();
    machine.hold(kept.0, "other").unwrap();
    let held = medium.steps();
    go_on(&machine, &mut points);
    check(&machine, kept.0, &kept.1);
    assert!(!is_there(&machine, points[29].0), "its neighbours go");
    // A loss of power at any step after it was held does not let it go.
    for steps in (held..medium.steps()).step_by(5) {
        let (machine, _) = try_open(&medium.cut(steps, Leaves::Nothing), Ended::WithThePower).unwrap();
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
