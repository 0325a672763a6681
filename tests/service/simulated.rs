//! Days of protection in minutes: a machine that writes a little, gets a point every five seconds, and whose past is kept in order.

use landfall::vault::Vault;
use landfall::vault::journal::{DiskInfo, Mark};
use landfall::vault::machine::Machine;
use landfall::vault::retention::Retention;
use landfall::vault::upkeep;
use landfall_image::{DiskMut, GuestOffset};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Seconds between two points.
pub const EVERY: u64 = 5;
/// Seconds between two rounds of upkeep.
const UPKEEP: u64 = 600;
/// Bytes of the disk, and of each of the writes between two points.
const SIZE: u64 = 1 << 30;
const WRITE: usize = 4096;
const WRITES: u64 = 4;
/// When it begins, in milliseconds since 1970.
const BEGIN: u64 = 1_700_006_400_000;

/// How it is after some days.
#[allow(dead_code, reason = "the benchmark shows all of it")]
#[derive(Clone, Copy, Debug)]
pub struct After {
    pub day: u64,
    pub points: usize,
    /// Files of the vault, and the bytes that they take.
    pub files: usize,
    pub bytes: u64,
    /// The longest round of upkeep of the last day.
    pub upkeep: Duration,
    /// To open the vault anew, and to read 4 KiB at a point in the middle.
    pub opened: Duration,
    pub read: Duration,
}

/// Simulates `days` of `hours` each; `tell` is called after each day.
pub fn simulate(root: &Path, days: u64, hours: u64, retention: &Retention, mut tell: impl FnMut(After)) {
    let name = "web01".parse().unwrap();
    let mut vault = Vault::open(root).unwrap().0;
    let mut machine = vault.machine_or_new(&name).unwrap();
    machine.journal().set_disk(&DiskInfo { name: "sda".into(), size: SIZE, sector: 512 }).unwrap();
    let mut state = 1u64;
    let mut number = 0u64;
    for day in 0..days {
        let mut longest = Duration::ZERO;
        let live = machine.live("sda").unwrap();
        for step in 0..hours * 3600 / EVERY {
            let second = day * hours * 3600 + step * EVERY;
            for _ in 0..WRITES {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                number += 1;
                // Four fifths go to a fifth of the disk.
                let reach = if state >> 60 < 13 { SIZE / 5 } else { SIZE };
                let at = (state >> 20) % (reach / WRITE as u64) * WRITE as u64;
                let mut block = vec![0; WRITE];
                block[..8].copy_from_slice(&number.to_le_bytes());
                live.write_at(GuestOffset(at), &block).unwrap();
            }
            let now = BEGIN + second * 1000;
            machine.checkpoint(now, &Mark::default()).unwrap();
            if second.is_multiple_of(UPKEEP) {
                let began = Instant::now();
                upkeep::run(&machine, retention, &Default::default(), now, &|_| Ok(())).unwrap();
                longest = longest.max(began.elapsed());
            }
        }
        drop((live, machine, vault));
        let began = Instant::now();
        vault = Vault::open(root).unwrap().0;
        let opened = began.elapsed();
        machine = vault.machine(&name).unwrap();
        let points = machine.points().unwrap();
        let began = Instant::now();
        read_at(&machine, points[points.len() / 2].sequence);
        let read = began.elapsed();
        let (files, bytes) = taken(root);
        tell(After { day: day + 1, points: points.len(), files, bytes, upkeep: longest, opened, read });
    }
}

fn read_at(machine: &Arc<Machine>, point: u64) {
    use landfall_image::Disk;
    let state = machine.at(point).unwrap();
    let number = machine.disk_number("sda").unwrap();
    state.disk(number).unwrap().read_at(GuestOffset(SIZE / 10), &mut [0; WRITE]).unwrap();
}

fn taken(root: &Path) -> (usize, u64) {
    use std::os::unix::fs::MetadataExt;
    let mut all = (0, 0);
    for entry in std::fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let (files, bytes) = match meta.is_dir() {
            true => taken(&entry.path()),
            false => (1, meta.blocks() * 512),
        };
        all = (all.0 + files, all.1 + bytes);
    }
    all
}

/// Where a medium need not be waited for, if there is such a place.
pub fn quick_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
