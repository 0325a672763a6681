//! Two vaults in this process, and a line between them that breaks where it is told to.

mod broken;
mod seeds;
mod sending;

use super::*;
use crate::event::Silent;
use crate::ops::source::point;
use crate::ops::source::point::{HeldPoint, source};
use crate::receive::content::Changed;
use crate::receive::incoming::Incoming;
use crate::receive::testing::content;
use crate::report::protection::Evidence;
use crate::vault::Vault;
use crate::vault::journal::{Consistency, DiskInfo, Mark};
use crate::vault::machine::Machine;
use landfall_image::{DiskMut, GuestOffset};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// A value that several threads look at.
struct Cell<T>(Mutex<T>);

impl<T: Copy> Cell<T> {
    fn new(value: T) -> Self {
        Cell(Mutex::new(value))
    }
    fn get(&self) -> T {
        *self.0.lock().unwrap()
    }
    fn set(&self, value: T) {
        *self.0.lock().unwrap() = value;
    }
}

/// The sender's vault, with one machine.
struct Source {
    vault: Vault,
    machine: Arc<Machine>,
    _dir: tempfile::TempDir,
    clock: Cell<u64>,
}

impl Source {
    fn new(disks: &[(&str, u64)]) -> Source {
        let dir = tempfile::tempdir().unwrap();
        let (vault, _) = Vault::open(dir.path()).unwrap();
        let machine = vault.machine_or_new(&"web01".parse().unwrap()).unwrap();
        let source = Source { vault, machine, _dir: dir, clock: Cell::new(1_000_000) };
        disks.iter().for_each(|(name, size)| source.disk(name, *size));
        source
    }

    fn disk(&self, name: &str, size: u64) {
        self.machine.journal().set_disk(&DiskInfo { name: name.into(), size, sector: 512 }).unwrap();
    }

    fn write(&self, disk: &str, at: u64, bytes: &[u8]) {
        self.machine.live(disk).unwrap().write_at(GuestOffset(at), bytes).unwrap();
    }

    fn point(&self, mark: &Mark) -> u64 {
        self.clock.set(self.clock.get() + 5000);
        self.machine.checkpoint(self.clock.get(), mark).unwrap()
    }

    fn cut(&self) -> u64 {
        self.point(&Mark::default())
    }

    fn content(&self, point: u64, disk: &str) -> Vec<u8> {
        at(&self.machine, point, disk)
    }
}

fn at(machine: &Arc<Machine>, point: u64, disk: &str) -> Vec<u8> {
    let point = machine.at(point).unwrap();
    content(&point.disk(point.state().number(disk).unwrap()).unwrap())
}

impl Points for Source {
    fn open(&self, name: &Name, at: &At) -> Result<PointSource> {
        let machine = self.vault.machine(name)?;
        let points = machine.points()?;
        let wanted = match at {
            At::Number(number) => points.iter().find(|point| point.sequence == *number),
            _ => points.last(),
        };
        let chosen = wanted.ok_or_else(|| Error::refused("no such point"))?;
        source(name, &machine, chosen, None)
    }

    fn reach(&self) -> Result<()> {
        Ok(())
    }

    fn hold(&self, _: &Name, _: u64, _: &str) -> Result<()> {
        panic!("a send alters nothing")
    }

    fn release(&self, _: &Name, _: u64, _: &str) -> Result<()> {
        panic!("a send alters nothing")
    }

    fn holds(&self) -> Result<Vec<HeldPoint>> {
        Ok(Vec::new())
    }

    fn promote(&self, _: &Name, _: u64, _: &str) -> Result<()> {
        Ok(())
    }

    fn attach(&self, _: &Name, _: u64, _: &Evidence) -> Result<()> {
        panic!("a send alters nothing")
    }

    fn changed(&self, machine: &Name, disk: &str, since: u64, to: u64) -> Result<Changed> {
        point::changed(&self.vault.machine(machine)?, disk, since, to)
    }
}

/// The receiver's side, which can be killed.
struct Site {
    open: Mutex<Option<(Vault, Incoming)>>,
    dir: tempfile::TempDir,
    /// Calls that came, and bytes of bodies.
    calls: Cell<usize>,
    bytes: Cell<u64>,
    /// What happens at which call.
    trouble: Cell<Option<(usize, Trouble)>>,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It does not arrive.
    Lost,
    /// It arrives, and its answer does not.
    Unanswered,
    /// The receiver is killed, and starts again.
    Killed,
    /// It arrives, and then the receiver is killed.
    KilledBehind,
    /// Nothing arrives from here on.
    Gone,
}

impl Site {
    fn new() -> Site {
        let site = Site {
            open: Mutex::new(None),
            dir: tempfile::tempdir().unwrap(),
            calls: Cell::new(0),
            bytes: Cell::new(0),
            trouble: Cell::new(None),
        };
        site.start();
        site
    }

    fn start(&self) {
        let mut open = self.open.lock().unwrap();
        // As after kill -9: what is not in order stays so.
        drop(open.take());
        *open = Some(Site::opened(self.dir.path()));
    }

    /// As the service does it.
    fn opened(dir: &Path) -> (Vault, Incoming) {
        let (vault, _) = Vault::open(dir).unwrap();
        let (incoming, _) = Incoming::open(dir).unwrap();
        for intent in incoming.batches.unfinished().unwrap() {
            let machine = vault.machine(&intent.machine).unwrap();
            if incoming.batches.is_cut(&machine, &intent).unwrap() {
                incoming.batches.resume(&machine, intent).unwrap().finish().unwrap();
            }
        }
        (vault, incoming)
    }

    fn with<T>(&self, work: impl FnOnce(&Here<'_>) -> T) -> T {
        let open = self.open.lock().unwrap();
        let (vault, incoming) = open.as_ref().unwrap();
        work(&Here { vault, incoming })
    }

    fn machine(&self, name: &str) -> Arc<Machine> {
        self.with(|here| here.vault.machine(&name.parse().unwrap()).unwrap())
    }

    /// Numbers of the points that are offered.
    fn points(&self, name: &str) -> Vec<u64> {
        self.with(|here| {
            here.vault.machines().get(&name.parse::<Name>().unwrap()).map(|machine| machine.points().unwrap())
        })
        .unwrap_or_default()
        .iter()
        .map(|point| point.sequence)
        .collect()
    }

    fn call<T>(&self, call: impl FnOnce(&Here<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let number = self.calls.get();
        self.calls.set(number + 1);
        let lost = || Err(Fault::Lost(Error::io("the line is cut", std::io::ErrorKind::BrokenPipe.into())));
        match self.trouble.get() {
            Some((at, trouble)) if at == number => match trouble {
                Trouble::Lost => lost(),
                Trouble::Unanswered => {
                    let _ = self.with(call);
                    lost()
                }
                Trouble::Killed => {
                    self.start();
                    lost()
                }
                Trouble::KilledBehind => {
                    let _ = self.with(call);
                    self.start();
                    lost()
                }
                Trouble::Gone => lost(),
            },
            Some((at, Trouble::Gone)) if number > at => lost(),
            _ => self.with(call),
        }
    }
}

/// The line as the sender sees it: several threads speak, one at a time.
struct Wire<'s>(Mutex<&'s Site>);

impl Wire<'_> {
    fn call<T>(&self, call: impl FnOnce(&Here<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        self.0.lock().unwrap().call(call)
    }
}

// One thread at a time, by the mutex.
impl Replica for Wire<'_> {
    fn place(&self) -> &str {
        "the other side"
    }

    fn held(&self, machine: &Name) -> Result<Held, Fault> {
        self.call(|here| here.held(machine))
    }

    fn begin(&self, machine: &Name, begin: &Begin) -> Result<Begun, Fault> {
        self.call(|here| here.begin(machine, begin))
    }

    fn digests(&self, machine: &Name, disk: &Name, question: &Question) -> Result<Vec<u8>, Fault> {
        self.call(|here| here.digests(machine, disk, question))
    }

    fn take(&self, machine: &Name, disk: &Name, session: Uuid, body: &[u8]) -> Result<Taken, Fault> {
        let site = self.0.lock().unwrap();
        site.bytes.set(site.bytes.get() + body.len() as u64);
        site.call(|here| here.take(machine, disk, session, body))
    }

    fn commit(&self, machine: &Name, commit: &Commit) -> Result<Committed, Fault> {
        self.call(|here| here.commit(machine, commit))
    }

    fn give_up(&self, machine: &Name) -> Result<(), Fault> {
        self.call(|here| here.give_up(machine))
    }
}

fn effort() -> Effort {
    Effort { jobs: 2, ..Effort::default() }
}

fn request(at: At) -> Request {
    Request {
        point: PointName { machine: "web01".parse().unwrap(), at },
        name: "web01".parse().unwrap(),
        replace: false,
        limit: None,
        patience: Duration::from_secs(20),
    }
}

fn send_to(source: &Source, site: &Site, request: &Request) -> Result<Sending> {
    send(&effort(), &Silent, source, request, &Wire(Mutex::new(site)))
}

/// What was sent is there, byte for byte, in a point that says what it is of.
#[track_caller]
fn assert_there(source: &Source, site: &Site, done: &Sending, disks: &[&str]) {
    assert_eq!(done.verdict, Verdict::Matched, "{done:?}");
    let (there, machine) = (done.point.unwrap(), site.machine(done.machine.as_str()));
    let point = machine.at(there).unwrap();
    let names: Vec<&str> = point.state().disks.values().map(|info| info.name.as_str()).collect();
    assert_eq!(names.len(), disks.len(), "{names:?}");
    for disk in disks {
        assert!(at(&machine, there, disk) == source.content(done.source.number, disk), "{disk} differs");
    }
    assert_eq!(site.points(done.machine.as_str()).last(), Some(&there));
    let set = machine.points().unwrap().into_iter().find(|point| point.sequence == there).unwrap();
    assert_eq!(crate::receive::send::of_point(point.state()).unwrap(), done.source);
    assert!(set.time >= done.source.at.0);
    assert!(site.with(|here| here.incoming.batches.unfinished().unwrap().is_empty()));
    assert_eq!(site.with(|here| here.incoming.leases.running(&done.machine)), None);
}
