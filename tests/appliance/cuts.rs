//! Power that is lost at any moment: at the first start, while machines are received, while an update is installed. Each time the appliance
//! comes up by itself, with every recovery point that was published.

use super::boot::issuer;
use super::site::{Powered, Site, ready};
use super::{folder, text};
use crate::boots::place;
use crate::receive::nbdsh::python;
use crate::receive::vault::{BLOCK, BLOCKS, model, numbers};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Cuts of each kind; fifty in all.
const FIRST_STARTS: u64 = 14;
const RECEIVING: u64 = 22;
const UPDATES: u64 = 14;

/// Moments that are drawn from a seed, between two bounds in milliseconds.
struct Moments(u64);

impl Moments {
    fn between(&mut self, least: u64, most: u64) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis(least + (self.0 >> 33) % (most - least))
    }
}

#[test]
#[ignore = "takes ten minutes: make matrix"]
fn power_is_lost_at_first_starts() {
    let Some(image) = ready() else { return };
    let _place = place();
    let mut moments = Moments(1);
    let mut cuts = 0;
    while cuts < FIRST_STARTS {
        let site = Site::new(&image);
        for _ in 0..3.min(FIRST_STARTS - cuts) {
            let running = site.start();
            std::thread::sleep(moments.between(2_000, 40_000));
            drop(running);
            cuts += 1;
        }
        let _running = site.start();
        let shown = site.up();
        assert!(shown.contains("landfall authority"), "{shown}");
        site.welcomed();
        // What was half done is not told for ever: nothing stands in the way.
        assert_eq!(site.problems(), "");
        println!("first start: {cuts} cuts");
    }
}

/// Numbered blocks go to two disks of a machine (as [`model`] says); after each loss of power the copy begins anew.
const WRITER: &str = r"
import nbd, os, struct, sys, time
folder, port, progress, block_size, blocks = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
done = os.open(progress, os.O_CREAT | os.O_RDWR)
before = os.pread(done, 8, 0)
n = struct.unpack('>Q', before)[0] if len(before) == 8 else 0
def place(n):
    return n % 2, (n * 2654435761 >> 7) % blocks
def data(n):
    return struct.pack('>Q', n) * (block_size // 8)
handles = []
for disk in ['sda', 'sdb']:
    h = nbd.NBD()
    h.set_tls(nbd.TLS_REQUIRE)
    h.set_tls_certificates(folder)
    h.set_export_name('web01/' + disk)
    h.connect_tcp('localhost', port)
    handles.append(h)
state = [[0] * blocks, [0] * blocks]
for i in range(1, n + 1):
    to, block = place(i)
    state[to][block] = i
# In large requests, as mirrors copy: where writes may be missing, smaller ones do not count.
for h, numbers in zip(handles, state):
    content = b''.join(data(number) for number in numbers)
    for at in range(0, len(content), 256 << 10):
        h.pwrite(content[at:at + (256 << 10)], at)
for h in handles:
    h.flush()
# QEMU's mirror stays, too: the copy counts.
time.sleep(3)
while True:
    n += 1
    to, block = place(n)
    handles[to].pwrite(data(n), block * block_size)
    os.pwrite(done, struct.pack('>Q', n), 0)
    time.sleep(0.002)
";

/// What two disks hold at a point, read over TLS.
const READER: &str = r"
import nbd, sys
folder, port, point, out = sys.argv[1:5]
with open(out, 'wb') as file:
    for disk in ['sda', 'sdb']:
        h = nbd.NBD()
        h.set_tls(nbd.TLS_REQUIRE)
        h.set_tls_certificates(folder)
        h.set_export_name('web01/' + disk + '@' + point)
        h.connect_tcp('localhost', port)
        at = 0
        while at < h.get_size():
            file.write(h.pread(1 << 20, at))
            at += 1 << 20
";

impl Site {
    /// The points of the machine, by their numbers.
    fn points(&self, token: &str) -> Vec<u64> {
        let out = self.landfall(token, &["--json", "points", "list", "web01", "--tls-ca", "ca-cert.pem"]);
        let document: Value =
            serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&out)));
        document["points"].as_array().unwrap().iter().map(|point| point["number"].as_u64().unwrap()).collect()
    }

    /// How many writes a point holds; they are a prefix of all.
    fn prefix(&self, point: u64) -> u64 {
        let (script, out) = (self.path("reader.py"), self.path("read"));
        std::fs::write(&script, READER).unwrap();
        let read = python()
            .unwrap()
            .arg(&script)
            .arg(self.path("dr"))
            .args([&self.nbd.to_string(), &point.to_string()])
            .arg(&out)
            .output();
        let read = read.unwrap();
        assert!(read.status.success(), "point {point}: {}", text(&read));
        let content = std::fs::read(&out).unwrap();
        let half = content.len() / 2;
        assert_eq!(half as u64, BLOCK * BLOCKS);
        let found = [numbers(&content[..half]), numbers(&content[half..])];
        let count = found.iter().flatten().copied().max().unwrap();
        assert!(found == model(count), "point {point} is no prefix of {count} writes");
        count
    }
}

#[test]
#[ignore = "takes half an hour: make matrix"]
fn power_is_lost_while_machines_are_received() {
    let Some(image) = ready() else { return };
    let _place = place();
    let site = Site::new(&image);
    let mut running = site.start();
    let token = site.welcomed();
    let trusted = ["--tls-ca", "ca-cert.pem"];
    for words in [
        &["certificate", "add", "hv1", "--send"][..],
        &["certificate", "add", "dr", "--recover"],
        &["protect", "web01", "--disk", "sda=2M", "--disk", "sdb=2M"],
    ] {
        let out = site.landfall(&token, &[words, &trusted].concat());
        assert!(out.status.success(), "{}", text(&out));
    }
    let script = site.path("writer.py");
    std::fs::write(&script, WRITER).unwrap();
    let mut moments = Moments(2);
    let mut known: BTreeMap<u64, u64> = BTreeMap::new();
    let mut published: Vec<u64> = Vec::new();
    for cut in 1..=RECEIVING {
        let mut writer = python().unwrap();
        writer.arg(&script).arg(site.path("hv1")).arg(site.nbd.to_string()).arg(site.path("progress"));
        let writer =
            writer.args([BLOCK.to_string(), BLOCKS.to_string()]).stderr(Stdio::null()).spawn().unwrap();
        let writer = Powered(vec![writer]);
        let end = Instant::now() + moments.between(12_000, 30_000);
        while Instant::now() < end {
            published = site.points(&token);
            std::thread::sleep(Duration::from_millis(700));
        }
        drop(running);
        drop(writer);
        running = site.start();
        site.up();
        let there = site.points(&token);
        let lost: Vec<&u64> = published.iter().filter(|point| !there.contains(point)).collect();
        assert!(lost.is_empty(), "cut {cut}: points {lost:?} are gone; there are {there:?}");
        for point in &there {
            if !known.contains_key(point) || *point % 7 == cut % 7 {
                let count = site.prefix(*point);
                assert_eq!(*known.entry(*point).or_insert(count), count, "point {point} has changed");
            }
        }
        println!(
            "receiving: cut {cut}, {} points, {} writes",
            there.len(),
            known.values().max().unwrap_or(&0)
        );
    }
    assert!(known.len() as u64 > RECEIVING, "{known:?}");
    assert!(known.values().zip(known.values().skip(1)).all(|(one, next)| one <= next), "{known:?}");
    drop(running);
}

/// An update to the system of this run.
fn update() -> PathBuf {
    folder().join("landfall.update")
}

/// The slot that runs, and what the loader will do next.
fn slots(site: &Site) -> (String, String) {
    let line = site.there("cat /proc/cmdline");
    let value = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap();
    let slot = value("landfall.slot=");
    // The kernel is that slot's own.
    let kernel = if slot == "a" { ",gpt3)/vmlinuz" } else { ",gpt4)/vmlinuz" };
    assert!(value("BOOT_IMAGE=").ends_with(kernel), "{line}");
    (slot.to_owned(), line.clone())
}

#[test]
#[ignore = "takes twenty minutes: make matrix"]
fn power_is_lost_while_updates_are_installed() {
    let Some(image) = ready() else { return };
    let update = update();
    let _place = place();
    let site = Site::new(&image);
    let mut running = site.start();
    let first = issuer(&site.up());
    let mut moments = Moments(3);
    let install = || {
        let file = File::open(&update).unwrap();
        site.ssh()
            .arg("landfall appliance update -")
            .stdin(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    site.there("true");
    let began = Instant::now();
    let mut whole = install();
    assert!(whole.wait().unwrap().success(), "an update is refused");
    let takes = u64::try_from(began.elapsed().as_millis()).unwrap();
    let mut seen = BTreeMap::new();
    for cut in 1..=UPDATES {
        // Some are cut while they come, some while they are written, some behind that.
        let installing = Powered(vec![install()]);
        std::thread::sleep(moments.between(takes / 10, takes * 3 / 2));
        drop(running);
        drop(installing);
        running = site.start();
        assert_eq!(issuer(&site.up()), first, "another authority");
        let (slot, line) = slots(&site);
        // A trial is confirmed, or taken back at the next start.
        site.wait_for("the update is settled", || {
            site.there("systemctl is-active landfall-confirm.service || true") == "active"
        });
        *seen.entry(slot.clone()).or_insert(0) += 1;
        println!("update: cut {cut}, slot {slot}: {line}");
    }
    assert!(seen.len() == 2, "only one slot ever ran: {seen:?}");
    drop(running);
}

/// Has an update installed, to its end.
fn install(site: &Site, update: &Path) {
    let file = File::open(update).unwrap();
    let done = site.ssh().arg("landfall appliance update -").stdin(file).output().unwrap();
    assert!(done.status.success(), "{}", text(&done));
}

/// One whose system does not come up is left for the old one.
#[test]
#[ignore = "takes ten minutes: make matrix"]
fn an_update_that_does_not_come_up_is_taken_back() {
    let Some(image) = ready() else { return };
    let update = update();
    let _place = place();
    let site = Site::new(&image);
    let running = site.start();
    site.up();
    // Signed, and whole; what breaks is the medium afterwards: the other slot's superblock.
    install(&site, &update);
    assert_eq!(slots(&site).0, "a");
    site.there("dd if=/dev/zero of=/dev/vda6 bs=4096 count=1 conv=notrunc oflag=direct 2>&1; sync");
    drop(running);
    let running = site.start();
    // GRUB starts b; it finds no root, restarts by itself, and a comes back.
    site.up();
    assert_eq!(slots(&site).0, "a");
    site.wait_for("it is told", || site.problems().contains("did not come up"));
    drop(running);
    // A further start does not try again.
    let running = site.start();
    site.up();
    assert_eq!(slots(&site).0, "a");
    // One that came up once and cannot be read any longer gives way, too, and that is told.
    install(&site, &update);
    drop(running);
    let running = site.start();
    site.up();
    let settled = || {
        site.wait_for("the update is settled", || {
            site.there("systemctl is-active landfall-confirm.service || true") == "active"
        });
    };
    settled();
    assert_eq!(slots(&site).0, "b");
    site.there("sync");
    drop(running);
    // It mounts; what it starts with is not what it was.
    let system = File::options().write(true).open(site.path("system")).unwrap();
    system.write_all_at(&vec![0; 100 << 20], site.start_of("landfall-root-b") + (1 << 20)).unwrap();
    drop(system);
    let running = site.start();
    site.up();
    assert_eq!(slots(&site).0, "a");
    site.wait_for("it is told", || site.problems().contains("cannot be read; the other one runs"));
    settled();
    drop(running);
    let running = site.start();
    site.up();
    assert_eq!(slots(&site).0, "a");
    // One that did not come whole is refused, and what the other slot has stays.
    let slot_b = || site.there("cat /dev/vda4 /dev/vda6 | sha256sum");
    let (before, bad) = (slot_b(), site.path("bad.update"));
    std::fs::copy(&update, &bad).unwrap();
    let file = File::options().write(true).open(&bad).unwrap();
    file.set_len(file.metadata().unwrap().len() - 4096).unwrap();
    let out =
        site.ssh().arg("landfall appliance update -").stdin(File::open(&bad).unwrap()).output().unwrap();
    assert!(!out.status.success() && text(&out).contains("is cut off"), "{}", text(&out));
    assert_eq!(slot_b(), before, "the other slot was written to");
    // Nor can the loader read the kernel of one that came up: it takes the other one's.
    install(&site, &update);
    drop(running);
    let running = site.start();
    site.up();
    settled();
    assert_eq!(slots(&site).0, "b");
    site.there("sync");
    drop(running);
    let system = File::options().write(true).open(site.path("system")).unwrap();
    system.write_all_at(&vec![0; 64 << 10], site.start_of("landfall-boot-b")).unwrap();
    drop(system);
    let _running = site.start();
    site.up();
    assert_eq!(slots(&site).0, "a");
    site.wait_for("it is told", || site.problems().contains("cannot be read; the other one runs"));
}
