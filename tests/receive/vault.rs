//! Real clients write into a vault while points are cut: each point that is offered is a prefix of what was acknowledged, on all disks.

use super::nbdsh::script;
use super::*;
use landfall::vault::Vault;
use landfall::vault::journal::{DiskInfo, Mark};
use landfall::vault::machine::{Machine, Point};
use landfall::vault::upkeep;
use std::collections::BTreeSet;

pub const BLOCK: u64 = 4096;
pub const BLOCKS: u64 = 512;

fn machine(vault: &Vault, name: &str, disks: &[&str]) -> Arc<Machine> {
    let machine = vault.machine_or_new(&name.parse().unwrap()).unwrap();
    for disk in disks {
        let info = DiskInfo { name: (*disk).to_owned(), size: BLOCK * BLOCKS, sector: 512 };
        machine.journal().set_disk(&info).unwrap();
    }
    machine
}

pub fn of_point(point: &Point, name: &str) -> Vec<u8> {
    let disks = &point.state().disks;
    let (number, _) = disks.iter().find(|(_, info)| info.name == name).unwrap();
    read_all(&point.disk(*number).unwrap())
}

/// The number of each block's last write; 0 where there was none.
pub fn numbers(content: &[u8]) -> Vec<u64> {
    content.chunks(4096).map(|block| u64::from_be_bytes(block[..8].try_into().unwrap())).collect()
}

/// Write `n` (from 1) goes to disk `n % 2`, to a block that is drawn from `n`; the whole block says `n`. Its two disks' blocks after the
/// first `count` writes.
pub fn model(count: u64) -> [Vec<u64>; 2] {
    let mut disks = [vec![0; 512], vec![0; 512]];
    for n in 1..=count {
        let block = ((n * 2_654_435_761) >> 7) % BLOCKS;
        disks[usize::from(n % 2 == 1)][usize::try_from(block).unwrap()] = n;
    }
    disks
}

#[test]
fn every_point_under_load_is_a_prefix_of_what_was_acknowledged() {
    let running = Running::start();
    let dir = tempfile::tempdir().unwrap();
    let (vault, _) = Vault::open(&dir.path().join("vault")).unwrap();
    let machine = machine(&vault, "web01", &["sda", "sdb"]);
    for disk in ["sda", "sdb"] {
        running.add(&format!("web01/{disk}"), Arc::new(machine.live(disk).unwrap()), false);
    }
    let (first, second) = (running.uri("web01/sda"), running.uri("web01/sdb"));
    let progress = running.path("progress");
    // One writer, who waits for each answer before the next write, which mostly goes to the other disk; and writes down how far
    // it has come after each.
    let writer = format!(
        r"
import os, struct, time
other = nbd.NBD()
other.connect_uri({second:?})
done = os.open({progress:?}, os.O_CREAT | os.O_WRONLY)
n, end = 0, time.time() + 8
while time.time() < end:
    n += 1
    block = (n * 2654435761 >> 7) % {BLOCKS}
    (other if n % 2 else h).pwrite(struct.pack('>Q', n) * {}, block * {BLOCK})
    os.pwrite(done, struct.pack('>Q', n), 0)
",
        BLOCK / 8
    );
    let acknowledged =
        || std::fs::read(&progress).map_or(0, |raw| raw.try_into().map_or(0, u64::from_be_bytes));
    let is_done = AtomicBool::new(false);
    let mut cuts = Vec::new();
    let ran = std::thread::scope(|scope| {
        let ran = scope.spawn(|| {
            let ran = script(&running, Some(&first), &writer);
            is_done.store(true, SeqCst);
            ran
        });
        let mut time = 0;
        while !is_done.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
            time += 1000;
            let before = acknowledged();
            let point = machine.checkpoint(time, &Mark::default()).unwrap();
            // The answer to one more may be on its way.
            cuts.push((point, before, acknowledged() + 1));
            if cuts.len() % 20 == 0 {
                machine.journal().close_segment();
                let retention = "10s every 1s, 60s every 4s".parse().unwrap();
                upkeep::run(&machine, &retention, &Default::default(), time, &|_| Ok(())).unwrap();
            }
        }
        ran.join().unwrap()
    });
    if !ran {
        return;
    }
    let offered: BTreeSet<u64> = machine.points().unwrap().iter().map(|point| point.sequence).collect();
    let mut looked_at = 0;
    for (sequence, before, after) in cuts.iter().filter(|(sequence, ..)| offered.contains(sequence)) {
        let point = machine.at(*sequence).unwrap();
        let found = [numbers(&of_point(&point, "sda")), numbers(&of_point(&point, "sdb"))];
        let count = found.iter().flatten().copied().max().unwrap();
        assert!((*before..=*after).contains(&count), "point {sequence}: {count}, not in {before} to {after}");
        assert!(found == model(count), "point {sequence} is no prefix of {count} writes");
        looked_at += 1;
    }
    assert!(looked_at > 10 && acknowledged() > 1000, "{looked_at} points, {} writes", acknowledged());
    // Nothing is lost with the process.
    let last = acknowledged();
    drop(running);
    drop((machine, vault));
    let (vault, troubles) = Vault::open(&dir.path().join("vault")).unwrap();
    assert!(troubles.is_empty(), "{troubles:?}");
    let machine = vault.machine(&"web01".parse().unwrap()).unwrap();
    let found = ["sda", "sdb"].map(|disk| numbers(&read_all(&machine.live(disk).unwrap())));
    assert!(found == model(last));
}

#[test]
fn an_image_goes_into_the_vault_and_comes_out_of_every_point() {
    let Some(mut qemu_img) = program("qemu-img", "qemu-utils") else { return };
    let running = Running::start();
    let dir = tempfile::tempdir().unwrap();
    let (vault, _) = Vault::open(&dir.path().join("vault")).unwrap();
    let machine = machine(&vault, "web01", &["sda"]);
    running.add("web01/sda", Arc::new(machine.live("sda").unwrap()), false);
    let mut wanted = noise(5, 2 << 20);
    wanted[300_000..900_000].fill(0);
    std::fs::write(running.path("image"), &wanted).unwrap();
    output(qemu_img.args([
        "convert",
        "-n",
        "-f",
        "raw",
        "-O",
        "raw",
        &running.path("image"),
        &running.uri("web01/sda"),
    ]));
    let point = machine.checkpoint(1, &Mark::default()).unwrap();
    machine.live("sda").unwrap().write_at(GuestOffset(0), &[1; 5000]).unwrap();
    machine.journal().close_segment();
    machine.journal().seal().unwrap();
    assert!(of_point(&machine.at(point).unwrap(), "sda") == wanted);
    // And is read by another maker's client, as a disk that nobody can write to.
    let number = machine.disk_number("sda").unwrap();
    let disk = Arc::new(machine.at(point).unwrap().disk(number).unwrap());
    running.add("web01/point", Arc::new(landfall_image::Overlay::new(disk, dir.path()).unwrap()), true);
    let compare = ["compare", "-f", "raw", "-F", "raw", &running.path("image"), &running.uri("web01/point")];
    assert!(output(Command::new("qemu-img").args(compare)).contains("identical"));
}
