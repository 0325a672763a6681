//! The vault against a model in memory: whatever happens, a point that is offered holds what was acknowledged before it.

mod damage;
pub(crate) mod disk;
mod folding;
mod history;
mod holds;
mod layers;
mod machine;
mod start;
mod vault;

use super::handles::Handles;
use super::journal::start::{Ended, Found};
use super::journal::{DiskInfo, Home, Limits, Mark};
use super::machine::Machine;
use super::retention::Retention;
use super::room::Room;
use super::storage::Storage;
use super::upkeep;
use disk::{Dice, Medium};
use landfall_image::{Bytes, Disk, DiskMut, ExtentKind, GuestOffset, GuestRange};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

const SMALL: Limits = Limits { records: 24, bytes: 96 << 10, closed: 2 };

fn home(medium: &Medium) -> Home {
    let storage: Arc<dyn Storage> = Arc::new(medium.clone());
    Home {
        room: Arc::new(Room::new(&storage)),
        storage,
        handles: Arc::new(Handles::new(4)),
        dir: "web01/journal".into(),
        machine: Uuid::from_u128(7),
        in_memory: Arc::default(),
    }
}

fn try_open(medium: &Medium, ended: Ended) -> landfall_image::Result<(Arc<Machine>, Found)> {
    let (machine, found) = Machine::open("web01", &home(medium), "web01/bases", SMALL, ended)?;
    Ok((Arc::new(machine), found))
}

fn open(medium: &Medium) -> (Arc<Machine>, Found) {
    try_open(medium, Ended::Killed).unwrap()
}

/// A machine's disks by their names.
type Model = BTreeMap<String, Vec<u8>>;

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

/// A machine with a disk of 256 KiB and some points in every part of the vault: the base, a rewritten segment, a sealed one, one in memory.
fn full(medium: &Medium) -> (Arc<Machine>, Vec<(u64, Model)>) {
    let (machine, _) = open(medium);
    machine.journal().set_disk(&info("sda", 256 << 10)).unwrap();
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
    let done = upkeep::run(&machine, &retention, &Default::default(), 300_000, &|_| Ok(())).unwrap();
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

fn check_point(machine: &Arc<Machine>, point: u64, wanted: &[u8]) {
    let point = machine.at(point).unwrap();
    let disk = point.disk(*point.state().disks.keys().next().unwrap()).unwrap();
    let found = content(&disk);
    assert!(found == wanted);
    check_extents(&disk, &found);
}

fn points(machine: &Machine) -> Vec<u64> {
    machine.points().unwrap().iter().map(|point| point.sequence).collect()
}
