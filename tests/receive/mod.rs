//! The NBD receiver, with the clients of other makers, with strangers, and with QEMU's block jobs.

mod clients;
pub mod daemon;
mod file_disk;
mod flood;
pub mod folder;
mod hostile;
pub mod nbdsh;
mod order;
pub mod pull;
mod qemu;
pub mod rbd;
pub mod tls;
pub mod vault;

use file_disk::FileDisk;
use landfall::receive::nbd::{Config, Limits, Listen, Monitor, Receiver, Stats};
use landfall::receive::{Ended, ExportName, Exports, Opened, Peer};
use landfall_image::{Bytes, Disk, DiskMut, Error, Extent, GuestOffset, GuestRange, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a disk was told, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Offset, length, first byte.
    Write(u64, u64, u8),
    Zero(u64, u64),
    Flush,
}

/// A file that writes down what it is told, and fails or waits on demand.
pub struct Recorder {
    inner: FileDisk,
    ops: Mutex<Vec<Op>>,
    broken: AtomicBool,
    full: AtomicBool,
    /// How long each write takes.
    slow: Mutex<Duration>,
}

impl Recorder {
    fn works(&self) -> Result<()> {
        match self.broken.load(SeqCst) {
            true => Err(Error::io("cannot reach the disk", std::io::Error::from_raw_os_error(5))),
            false => Ok(()),
        }
    }
    fn note(&self, op: Op) -> Result<()> {
        let slow = *self.slow.lock().unwrap();
        if !slow.is_zero() {
            std::thread::sleep(slow);
        }
        self.works()?;
        if self.full.load(SeqCst) && !matches!(op, Op::Flush) {
            return Err(Error::io("cannot write", std::io::Error::from_raw_os_error(28)));
        }
        self.ops.lock().unwrap().push(op);
        Ok(())
    }
    fn ops(&self) -> Vec<Op> {
        self.ops.lock().unwrap().clone()
    }
}

impl Disk for Recorder {
    fn size(&self) -> Bytes {
        self.inner.size()
    }
    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        self.works()?;
        self.inner.extents(range, at_most)
    }
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        self.works()?;
        self.inner.read_at(at, buf)
    }
}

impl DiskMut for Recorder {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        self.note(Op::Write(at.0, data.len() as u64, data.first().copied().unwrap_or_default()))?;
        self.inner.write_at(at, data)
    }
    fn zero_at(&self, range: GuestRange) -> Result<()> {
        self.note(Op::Zero(range.start().0, range.len().0))?;
        self.inner.zero_at(range)
    }
    fn flush(&self) -> Result<()> {
        self.note(Op::Flush)
    }
}

/// Disks by name, and who came and went.
#[derive(Default)]
pub struct Shelf {
    disks: Mutex<BTreeMap<String, Opened>>,
    /// Names that are refused, with what is said.
    refused: Mutex<BTreeMap<String, String>>,
    asked: Mutex<Vec<(String, Peer)>>,
    events: Mutex<Vec<String>>,
}

impl Exports for Shelf {
    fn open(&self, name: &ExportName, peer: &Peer) -> Result<Option<Opened>> {
        self.asked.lock().unwrap().push((name.to_string(), peer.clone()));
        if let Some(says) = self.refused.lock().unwrap().get(name.as_str()) {
            return Err(Error::refused(says.clone()));
        }
        Ok(self.disks.lock().unwrap().get(name.as_str()).cloned())
    }
    fn list(&self, _: &Peer) -> Vec<ExportName> {
        self.disks.lock().unwrap().keys().filter_map(|name| ExportName::parse(name)).collect()
    }
    fn connected(&self, name: &ExportName, _: &Peer, connections: usize) {
        self.events.lock().unwrap().push(format!("{name}: {connections} there"));
    }
    fn closed(&self, name: &ExportName, _: &Peer, connections: usize, why: &Ended) {
        self.events.lock().unwrap().push(format!("{name}: {connections} left: {why}"));
    }
}

/// A receiver that runs until it is dropped.
pub struct Running {
    dir: tempfile::TempDir,
    shelf: Arc<Shelf>,
    monitor: Monitor,
    addresses: Vec<std::net::SocketAddr>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    outcome: Option<std::thread::JoinHandle<Stats>>,
}

impl Running {
    pub fn start() -> Running {
        Running::with(Limits::default(), |dir| vec![Listen::Unix(dir.join("socket"))])
    }

    fn with(limits: Limits, listen: impl FnOnce(&Path) -> Vec<Listen>) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Arc::new(Shelf::default());
        let config = Config { listen: listen(dir.path()), limits };
        let receiver = Receiver::bind(&config, shelf.clone()).unwrap();
        let (monitor, addresses) = (receiver.monitor(), receiver.addresses());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let outcome = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let stopped = async { drop(stopped.await) };
            runtime.block_on(receiver.run(stopped)).unwrap()
        });
        Running { dir, shelf, monitor, addresses, stop: Some(stop), outcome: Some(outcome) }
    }

    /// Adds a disk of zeros.
    fn disk(&self, name: &str, size: u64) -> Arc<Recorder> {
        let recorder = Arc::new(self.recorder(name, size));
        self.add(name, recorder.clone(), false);
        recorder
    }

    fn recorder(&self, name: &str, size: u64) -> Recorder {
        Recorder {
            inner: FileDisk::create(&self.dir.path().join(name.replace('/', ".")), size),
            ops: Mutex::default(),
            broken: AtomicBool::default(),
            full: AtomicBool::default(),
            slow: Mutex::default(),
        }
    }

    pub fn add(&self, name: &str, disk: Arc<dyn DiskMut>, read_only: bool) {
        let description = Some(format!("the disk {name}"));
        let opened = Opened { disk, read_only, preferred: Bytes::kib(4), description };
        self.shelf.disks.lock().unwrap().insert(name.to_owned(), opened);
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub fn uri(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.socket().display())
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// The next event that holds `text`, or the end of the test.
    fn wait_for(&self, text: &str) -> String {
        let begin = Instant::now();
        loop {
            let events = self.shelf.events.lock().unwrap().clone();
            if let Some(event) = events.iter().find(|event| event.contains(text)) {
                return event.clone();
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "no {text:?} in {events:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until its sums are like that: a client hears the end before it is counted.
    fn until(&self, are: impl Fn(&Stats) -> bool) -> Stats {
        let begin = Instant::now();
        loop {
            let stats = self.monitor.read();
            if are(&stats) {
                return stats;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "{stats:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it in good order.
    fn stop(mut self) -> Stats {
        drop(self.stop.take());
        self.outcome.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(outcome) = self.outcome.take() {
            let _ = outcome.join();
        }
    }
}

/// A program of another maker, or a loud word that it is not here.
pub fn program(name: &str, package: &str) -> Option<Command> {
    match Command::new(name).arg("--version").output() {
        Ok(_) => Some(Command::new(name)),
        Err(_) => {
            eprintln!("SKIPPED: no {name} here (Debian: {package})");
            None
        }
    }
}

/// Runs it, and returns what it printed.
pub fn output(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{command:?}: {text} {}", String::from_utf8_lossy(&out.stderr));
    text
}

/// Bytes that are not alike anywhere, from a seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(len);
    out
}

pub fn read_all(disk: &dyn Disk) -> Vec<u8> {
    let mut out = vec![0; usize::try_from(disk.size().0).unwrap()];
    disk.read_at(GuestOffset(0), &mut out).unwrap();
    out
}
