//! The service as a whole: the real program, with writers that do not wait for it to be well.

mod api;
mod carried;
mod certificates;
mod check;
mod days;
mod full;
mod kills;
mod mirrors;
mod power;
mod roles;
mod scale;
mod sends;
mod simulated;
mod strangers;
mod unit;
mod ways;

use crate::receive::vault::{BLOCK, BLOCKS, model, numbers, of_point};
use landfall::service::config::Config;
use landfall::service::{Service, Wanted};
use landfall::vault::Vault;
use landfall::vault::machine::Machine;
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A recovery site: a folder with the service's file, its vault and its sockets; and the service, while it runs.
pub struct Site {
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Site {
    /// With `text` in the service's file; nothing runs.
    fn new(text: &str) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let file = format!("vault = \"vault\"\nsockets = \"sockets\"\n{text}");
        std::fs::write(dir.path().join("landfall.toml"), file).unwrap();
        Site { dir, child: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> Config {
        Config::read(&self.path("landfall.toml")).unwrap()
    }

    fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.path("sockets/receive.sock").display())
    }

    /// Protects a machine with disks of that size, while the service does not run.
    fn protect(&self, machine: &str, disks: &[&str], size: u64) {
        assert!(self.child.is_none());
        let service = Service::open(self.config()).unwrap();
        let disks: Vec<Wanted> =
            disks.iter().map(|name| Wanted { name: name.parse().unwrap(), size, sector: 512 }).collect();
        service.protect(&machine.parse().unwrap(), &disks, None, None).unwrap();
    }

    /// Starts the program, and waits for its sockets.
    fn start(&mut self) {
        let spawn = || {
            let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
            let mut command = Command::new(assert_cmd::cargo::cargo_bin("landfall"));
            command.args(["serve", "--config"]).arg(self.path("landfall.toml"));
            command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
        };
        let begin = Instant::now();
        let mut child = spawn();
        while UnixStream::connect(self.path("sockets/points.sock")).is_err() {
            if let Some(status) = child.try_wait().unwrap() {
                // What another test is starting has the files of this process, the lock of the vault among them, until it is a program of its
                // own.
                let log = self.log();
                let is_locked = log
                    .lines()
                    .rev()
                    .take(3)
                    .any(|line| line.contains("another process works on this vault"));
                assert!(
                    is_locked && begin.elapsed() < Duration::from_secs(10),
                    "the service ended ({status}):\n{log}"
                );
                std::thread::sleep(Duration::from_millis(50));
                child = spawn();
                continue;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "no socket:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child = Some(child);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// kill -9
    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and the end in good order.
    fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success(), "{}", self.log());
    }

    /// The vault, while the service does not run. Nothing is wrong with it.
    fn vault(&self) -> Vault {
        assert!(self.child.is_none());
        let (vault, troubles) = Vault::open(&self.path("vault")).unwrap();
        assert!(troubles.is_empty(), "{troubles:?}");
        vault
    }
}

/// A writer's process, which does not outlive its test.
struct Writer(Child);

impl Writer {
    fn start(mut python: Command, script: &std::path::Path) -> Writer {
        Writer(python.arg(script).spawn().unwrap())
    }

    /// Waits for its end, which is a good one.
    fn ends(&mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// How many writes of the numbered writer (see [`model`]) a machine's disks `sda` and `sdb` hold; it is a prefix of them.
fn prefix(found: [Vec<u8>; 2], what: &str) -> u64 {
    let found = found.map(|content| numbers(&content));
    let count = found.iter().flatten().copied().max().unwrap();
    assert!(found == model(count), "{what} is no prefix of {count} writes");
    count
}

/// Looks at each point of a machine but those that are `known`: how many writes each holds, by its record.
fn prefixes(machine: &Arc<Machine>, known: &BTreeMap<u64, u64>) -> Vec<(u64, u64)> {
    let mut counts: Vec<(u64, u64)> = Vec::new();
    for point in machine.points().unwrap() {
        let look = || {
            let state = machine.at(point.sequence).unwrap();
            let found = ["sda", "sdb"].map(|disk| of_point(&state, disk));
            prefix(found, &format!("point {}", point.sequence))
        };
        let count = known.get(&point.sequence).copied().unwrap_or_else(look);
        assert!(counts.last().is_none_or(|(_, last)| *last <= count), "points go on in time");
        counts.push((point.sequence, count));
    }
    counts
}

/// A writer of numbered blocks to two disks, which waits for each answer before the next write, and begins anew where it lost the
/// connection, or where one before it was killed. It writes down how far it has come, and ends when there is a file `enough`.
fn writer(disks: [&str; 2], progress: &std::path::Path, enough: &std::path::Path, flush: bool) -> String {
    let [first, second] = disks;
    format!(
        r"
import os, struct, time
uris = [{first:?}, {second:?}]
done = os.open({:?}, os.O_CREAT | os.O_RDWR)
handles, flushed, n = None, None, 0
# One that was killed may have written one more, which is written again.
before = os.pread(done, 8, 0)
if len(before) == 8:
    n = struct.unpack('>Q', before)[0]
def connect():
    global handles, flushed
    handles = []
    for uri in uris:
        handle = nbd.NBD()
        handle.connect_uri(uri)
        handles.append(handle)
    flushed = [not {}] * 2
while not os.path.exists({:?}):
    n += 1
    block = (n * 2654435761 >> 7) % {BLOCKS}
    while True:
        try:
            if handles is None:
                connect()
            to = n % 2
            handles[to].pwrite(struct.pack('>Q', n) * {}, block * {BLOCK})
            if not flushed[to]:
                handles[to].flush()
                flushed[to] = True
            break
        except nbd.Error as error:
            handles = None
            if os.path.exists({:?}):
                n -= 1
                break
            time.sleep(0.005)
    os.pwrite(done, struct.pack('>Q', n), 0)
",
        progress.display(),
        if flush { "True" } else { "False" },
        enough.display(),
        BLOCK / 8,
        enough.display(),
    )
}

fn acknowledged(progress: &std::path::Path) -> u64 {
    std::fs::read(progress).map_or(0, |raw| raw.try_into().map_or(0, u64::from_be_bytes))
}
