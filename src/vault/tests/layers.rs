//! Journals of many segments: merged indexes.

use super::disk::Leaves;
use super::*;

/// Segments of a few records each.
const TINY: Limits = Limits { records: 5, bytes: 96 << 10, closed: 2 };
const SIZE: usize = 64 << 10;

fn tiny(medium: &Medium) -> Arc<Machine> {
    Arc::new(Machine::open("web01", &home(medium), "web01/bases", TINY, Ended::Killed).unwrap().0)
}

/// What is written, and the points that are set.
struct Writer {
    model: Model,
    points: Vec<(u64, Model)>,
    dice: Dice,
    time: u64,
}

impl Writer {
    fn new(machine: &Arc<Machine>) -> Writer {
        machine.journal().set_disk(&info("sda", SIZE)).unwrap();
        machine.journal().attach("definition", &[1]).unwrap();
        let model = Model::from([("sda".to_owned(), vec![0; SIZE])]);
        Writer { model, points: Vec::new(), dice: Dice(17), time: 0 }
    }

    /// So many points, each behind a write or two.
    fn write(&mut self, machine: &Arc<Machine>, points: usize) {
        let disk = machine.live("sda").unwrap();
        for _ in 0..points {
            for _ in 0..=self.dice.roll(2) {
                let at = usize::try_from(self.dice.roll(SIZE as u64 - 3000)).unwrap();
                let len = 1 + usize::try_from(self.dice.roll(2999)).unwrap();
                let model = &mut self.model.get_mut("sda").unwrap()[at..at + len];
                match self.dice.roll(5) {
                    0 => {
                        disk.zero_at(GuestRange::new(GuestOffset(at as u64), Bytes(len as u64))).unwrap();
                        model.fill(0);
                    }
                    byte => {
                        let data: Vec<u8> =
                            (0..len).map(|n| u8::try_from((n * 3 + len) % 250 + 1).unwrap()).collect();
                        disk.write_at(GuestOffset(at as u64), &data).unwrap();
                        model.copy_from_slice(&data);
                        let _ = byte;
                    }
                }
            }
            self.time += 1000;
            let point = machine.checkpoint(self.time, &Mark::default()).unwrap();
            self.points.push((point, self.model.clone()));
        }
    }

    /// A few of the points that are left, and the disk as it is now.
    fn check(&mut self, machine: &Arc<Machine>) {
        let left = points(machine);
        self.points.retain(|(sequence, _)| left.binary_search(sequence).is_ok());
        assert_eq!(self.points.len(), left.len());
        let last = self.points.len() - 1;
        for _ in 0..6 {
            let (sequence, model) = &self.points[usize::try_from(self.dice.roll(last as u64 + 1)).unwrap()];
            check(machine, *sequence, model);
        }
        check(machine, self.points[last].0, &self.points[last].1);
        assert!(content(&machine.live("sda").unwrap()) == self.model["sda"]);
    }
}

fn keep_all(machine: &Arc<Machine>) -> upkeep::Done {
    upkeep::run(machine, &"1000h every 1s".parse().unwrap(), &Default::default(), 1, &|_| Ok(())).unwrap()
}

fn maps(medium: &Medium) -> Vec<(String, usize)> {
    medium.paths().into_iter().filter(|(path, _)| path.ends_with(".map")).collect()
}

/// A journal of some hundred segments, merged.
fn merged(medium: &Medium) -> (Arc<Machine>, Writer) {
    let machine = tiny(medium);
    let mut writer = Writer::new(&machine);
    writer.write(&machine, 300);
    machine.journal().close_segment();
    assert!(keep_all(&machine).merged > 10);
    (machine, writer)
}

#[test]
fn whatever_is_merged_and_rewritten_each_point_is_what_it_was() {
    let mut medium = Medium::default();
    let mut machine = tiny(&medium);
    let mut writer = Writer::new(&machine);
    let (mut merged, mut rewritten, mut folded) = (0, 0, 0);
    for round in 1..=30u64 {
        writer.write(&machine, 40);
        let retention: Retention = match round % 5 {
            0 => "30s every 1s, 100s every 10s, 1000s every 100s".parse().unwrap(),
            3 => "100s every 1s, 1000s every 50s".parse().unwrap(),
            _ => "1000h every 1s".parse().unwrap(),
        };
        // Tagged by somebody: in the middle of what is given up.
        let kept: BTreeSet<u64> =
            writer.points.iter().rev().take(200).step_by(17).map(|(sequence, _)| *sequence).collect();
        // Somebody reads while all is changed below.
        let (held, model) = writer.points[writer.points.len() / 2].clone();
        let point = machine.at(held).unwrap();
        let wishes = upkeep::Wishes { kept, ..Default::default() };
        let done = upkeep::run(&machine, &retention, &wishes, writer.time, &|_| Ok(())).unwrap();
        assert!(content(&point.disk(1).unwrap()) == model["sda"]);
        drop(point);
        (merged, rewritten, folded) =
            (merged + done.merged, rewritten + done.rewritten, folded + done.folded);
        writer.check(&machine);
        let past = machine.journal().past();
        let (asked, segments) = (past.asked_at_most(), past.segments.len());
        assert!(asked < 60, "{asked} of {segments} segments");
        drop(past);
        if round % 4 == 0 {
            drop(machine);
            medium = medium.again();
            machine = tiny(&medium);
            writer.check(&machine);
        }
    }
    assert!(merged > 100 && rewritten > 50 && folded > 10, "{merged} {rewritten} {folded}");
}

#[test]
fn a_look_up_asks_few_indexes_of_many() {
    let medium = Medium::default();
    let machine = tiny(&medium);
    let mut writer = Writer::new(&machine);
    writer.write(&machine, 700);
    machine.journal().close_segment();
    machine.journal().seal().unwrap();
    let segments = machine.journal().segments().len();
    assert!(segments > 400, "{segments}");
    let files = |medium: &Medium, sequence| {
        // A new one: nothing is in the cache.
        let machine = tiny(medium);
        let point = machine.at(sequence).unwrap();
        let disk = point.disk(1).unwrap();
        medium.traffic();
        // Nobody wrote there: all have to be asked.
        let mut nothing = [1; 8];
        disk.read_at(GuestOffset(SIZE as u64 - 8), &mut nothing).unwrap();
        assert_eq!(nothing, [0; 8]);
        let read: BTreeSet<String> = medium.traffic().into_iter().map(|traffic| traffic.path).collect();
        read.len()
    };
    let of_points: Vec<u64> = writer.points.iter().rev().step_by(37).map(|(sequence, _)| *sequence).collect();
    assert!(files(&medium, of_points[0]) > 400);
    keep_all(&machine);
    let medium = medium.again();
    // Up to seven of a level, on three levels.
    for sequence in of_points {
        let count = files(&medium, sequence);
        assert!(count <= 7 * 3 + 3, "{count} files at point {sequence} of {segments} segments");
    }
    let machine = tiny(&medium);
    medium.traffic();
    assert_eq!(machine.points().unwrap().len(), 700);
    let read: BTreeSet<String> = medium.traffic().into_iter().map(|traffic| traffic.path).collect();
    assert!(read.len() < 24, "{} files for the points", read.len());
    writer.check(&machine);
}

#[test]
fn nobody_is_told_of_a_damaged_merged_index() {
    let medium = Medium::default();
    let (machine, mut writer) = merged(&medium);
    drop(machine);
    let mut roots = 0;
    for (path, len) in maps(&medium) {
        let whole = medium.content(&path).unwrap();
        let mut broken: Vec<Option<Vec<u8>>> = vec![None, Some(Vec::new()), Some(whole[..len / 2].to_vec())];
        for page in 0..len / 4096 {
            let mut content = whole.clone();
            content[page * 4096 + 50] ^= 1;
            broken.push(Some(content));
        }
        let other = maps(&medium).into_iter().find(|(other, _)| *other != path).unwrap();
        broken.push(medium.content(&other.0));
        for content in broken {
            let medium = medium.again();
            medium.put(&path, content.clone());
            let machine = tiny(&medium);
            writer.check(&machine);
            keep_all(&machine);
            // One that lies in another is not missed.
            let is_root = maps(&medium).iter().all(|(other, _)| *other == path || !lies_in(&path, other));
            if is_root && content.is_none_or(|content| content.len() <= len / 2) {
                assert!(medium.content(&path).unwrap() == whole, "{path} was not made anew");
                roots += 1;
            }
            writer.check(&machine);
        }
    }
    assert!(roots > 5, "{roots}");
}

/// By their names.
fn lies_in(inner: &str, outer: &str) -> bool {
    let range = |path: &str| {
        let name = path.rsplit('/').next().unwrap();
        (name[..16].to_owned(), name[17..33].to_owned())
    };
    let (inner, outer) = (range(inner), range(outer));
    outer.0 <= inner.0 && inner.1 <= outer.1
}

#[test]
fn an_index_below_a_merged_one_that_is_damaged_is_made_anew() {
    let medium = Medium::default();
    let machine = tiny(&medium);
    let mut writer = Writer::new(&machine);
    writer.write(&machine, 60);
    machine.journal().close_segment();
    machine.journal().seal().unwrap();
    for (path, len) in medium.paths().into_iter().filter(|(path, _)| path.ends_with(".idx")).step_by(3) {
        (1..len / 4096).for_each(|page| medium.flip(&path, 4096 * page + 9));
    }
    assert!(keep_all(&machine).merged > 0);
    writer.check(&machine);
}

#[test]
fn a_merged_index_of_segments_that_were_rewritten_is_as_none() {
    let medium = Medium::default();
    let (machine, mut writer) = merged(&medium);
    let before: Vec<(String, Option<Vec<u8>>)> =
        maps(&medium).into_iter().map(|(path, _)| (path.clone(), medium.content(&path))).collect();
    let retention: Retention = "20s every 1s, 300s every 7s".parse().unwrap();
    let done = upkeep::run(&machine, &retention, &Default::default(), writer.time, &|_| Ok(())).unwrap();
    assert!(done.rewritten > 20, "{done:?}");
    let now: BTreeSet<String> = maps(&medium).into_iter().map(|(path, _)| path).collect();
    // A crash left the old ones; and files that nobody could have written.
    let mut stale = 0;
    for (path, content) in before {
        if !now.contains(&path) {
            medium.put(&path, content);
            stale += 1;
        }
    }
    assert!(stale > 3);
    let some = medium.content(now.iter().next().unwrap());
    let last = machine.journal().segments().last().unwrap().last;
    for name in [
        format!("{:016x}-{last:016x}.3.9999.0.map", 1),
        format!("{last:016x}-{:016x}.3.2.0.map", 1),
        "0000000000000001-0000000000000002.4294967295.18446744073709551615.18446744073709551615.map".into(),
    ] {
        medium.put(&format!("web01/journal/{name}"), some.clone());
    }
    medium.put("web01/journal/x.map", Some(vec![1]));
    drop(machine);
    let machine = tiny(&medium);
    let mut left: BTreeSet<String> = maps(&medium).into_iter().map(|(path, _)| path).collect();
    // Not of the vault.
    assert!(left.remove("web01/journal/x.map"));
    assert_eq!(left, now);
    writer.check(&machine);
}

#[test]
fn a_cut_while_indexes_are_merged_leaves_nothing_that_counts() {
    let medium = Medium::default();
    let machine = tiny(&medium);
    let mut writer = Writer::new(&machine);
    writer.write(&machine, 80);
    machine.journal().close_segment();
    machine.journal().seal().unwrap();
    medium.record();
    assert!(keep_all(&machine).merged > 3);
    for steps in (0..=medium.steps()).step_by(2) {
        for leaves in [Leaves::Nothing, Leaves::All, Leaves::Some(steps as u64)] {
            let after = medium.cut(steps, leaves);
            let machine = tiny(&after);
            writer.check(&machine);
            assert!(after.paths().iter().all(|(path, _)| !path.ends_with(".new")));
            keep_all(&machine);
            writer.check(&machine);
        }
    }
}

#[test]
fn merging_goes_on_where_it_was_told_to_stop() {
    let medium = Medium::default();
    let machine = tiny(&medium);
    let mut writer = Writer::new(&machine);
    writer.write(&machine, 100);
    machine.journal().close_segment();
    machine.journal().seal().unwrap();
    let left = std::cell::Cell::new(2);
    let pace = |_| {
        left.set(left.get() - 1);
        if left.get() < 0 { Err(landfall_image::Error::interrupted()) } else { Ok(()) }
    };
    assert!(machine.journal().merge(&pace).is_err());
    writer.check(&machine);
    assert!(machine.journal().merge(&|_| Ok(())).unwrap() > 0);
    writer.check(&machine);
}
