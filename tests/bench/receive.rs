//! The NBD receiver beside nbdkit's file plugin, driven by fio's nbd engine over a local socket: `make bench`.
//!
//! ```text
//! cargo bench --bench receive -- [--runs N] [--seconds N] [--folder FOLDER]
//! ```
//!
//! Behind the receiver is once a raw file that is written with `pwrite`, as nbdkit's plugin does it, so that what is compared
//! is the way of the bytes from the socket to the file. The third column is `landfall serve` as it is, with its journal, its
//! checksums and a checkpoint every five seconds. All are run by turns, and their medians are compared: on a busy machine the numbers mean little, the
//! ratios still something. Prints a table and writes `receive.json` to FOLDER (default: target/bench). Nothing here passes
//! or fails.

#[path = "../receive/file_disk.rs"]
mod file_disk;

use file_disk::FileDisk;
use landfall::receive::nbd::{Config, Listen, Receiver};
use landfall::receive::{ExportName, Exports, Opened, Peer};
use landfall_image::{Bytes, DiskMut, GuestOffset};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_landfall");
/// Of the disks.
const SIZE: u64 = 8 << 30;
/// What of them is written to at random.
const WARM: u64 = 1 << 30;

struct Case {
    name: &'static str,
    /// From one end to the other of a disk that nothing was written to yet; otherwise anywhere on one of a GiB that is in memory as a whole.
    is_copy: bool,
    fio: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "4 KiB random, depth 64, 4 connections",
        is_copy: false,
        fio: &["--rw=randwrite", "--bs=4k", "--iodepth=64", "--numjobs=4"],
    },
    Case {
        name: "4 KiB random, depth 64, 1 connection",
        is_copy: false,
        fio: &["--rw=randwrite", "--bs=4k", "--iodepth=64", "--numjobs=1"],
    },
    Case {
        name: "4 KiB random, depth 1, 1 connection",
        is_copy: false,
        fio: &["--rw=randwrite", "--bs=4k", "--iodepth=1", "--numjobs=1"],
    },
    Case {
        name: "64 KiB random, depth 16, 4 connections",
        is_copy: false,
        fio: &["--rw=randwrite", "--bs=64k", "--iodepth=16", "--numjobs=4"],
    },
    Case {
        name: "1 MiB sequential, depth 8, 1 connection",
        is_copy: true,
        fio: &["--rw=write", "--bs=1M", "--iodepth=8", "--numjobs=1", "--size=8G"],
    },
    Case {
        name: "1 MiB sequential, depth 8, 4 connections",
        is_copy: true,
        fio: &["--rw=write", "--bs=1M", "--iodepth=8", "--numjobs=4", "--offset_increment=2G", "--size=2G"],
    },
];

/// One disk, under every name.
struct Shelf(Opened);

impl Exports for Shelf {
    fn open(&self, _: &ExportName, _: &Peer) -> landfall_image::Result<Option<Opened>> {
        Ok(Some(self.0.clone()))
    }
    fn list(&self, _: &Peer) -> Vec<ExportName> {
        Vec::new()
    }
}

/// What fio says of one run.
#[derive(Clone, Copy)]
struct Outcome {
    bytes_per_second: f64,
    p99_us: f64,
}

fn fio(case: &Case, socket: &Path, export: &str, seconds: u64) -> Outcome {
    let out = Command::new("fio")
        .args(["--name=x", "--ioengine=nbd", "--output-format=json", "--group_reporting"])
        .args(if case.is_copy { &[][..] } else { &["--time_based", "--size=1G"] })
        .args(["--randrepeat=0", "--norandommap"])
        .arg(format!("--runtime={seconds}"))
        .arg(format!("--uri=nbd+unix:///{export}?socket={}", socket.display()))
        .args(case.fio)
        .output()
        .expect("fio runs");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    let json: serde_json::Value = serde_json::from_str(&text[text.find('{').unwrap_or(0)..]).expect("JSON");
    let write = &json["jobs"][0]["write"];
    Outcome {
        bytes_per_second: write["bw_bytes"].as_f64().expect("a number"),
        p99_us: write["clat_ns"]["percentile"]["99.000000"].as_f64().expect("a number") / 1000.0,
    }
}

/// The program's own service, as it is set up without a word, with a machine `machine` of one disk `disk`.
struct Service {
    folder: tempfile::TempDir,
    child: Child,
}

impl Service {
    fn start(folder: &Path) -> Service {
        let folder = tempfile::tempdir_in(folder).expect("a temporary folder");
        let file = folder.path().join("landfall.toml");
        // A client that flushes is in sync at once: ages are of points, not of fio's habits.
        std::fs::write(&file, "vault = \"vault\"\nsockets = \"s\"\n[protect]\nin_sync = \"flush\"\n")
            .expect("can be written");
        let log = std::fs::File::create(folder.path().join("log")).expect("can be written");
        let child = Command::new(PROGRAM)
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .stderr(log)
            .spawn()
            .expect("starts");
        let service = Service { folder, child };
        while !service.socket().exists() || !service.api().exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        service.protect();
        service
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s/receive.sock")
    }

    fn api(&self) -> PathBuf {
        self.folder.path().join("s/api.sock")
    }

    fn verb(&self, words: &[&str]) -> Vec<u8> {
        let output =
            Command::new(PROGRAM).args(words).env("LANDFALL_SERVICE", self.api()).output().expect("runs");
        output.stdout
    }

    fn protect(&self) {
        self.verb(&["protect", "machine", "--disk", &format!("disk={SIZE}")]);
    }

    /// What was written would fill the disk that the bench runs on.
    fn begin_anew(&self) {
        self.verb(&["unprotect", "machine", "--delete-points"]);
        self.protect();
    }

    /// Runs something, and looks meanwhile how old the newest state is, in seconds.
    fn watched<T>(&self, run: impl FnOnce() -> T) -> (T, f64) {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let mut oldest: f64 = 0.0;
                // fio never says that a copy is complete.
                std::thread::sleep(Duration::from_millis(500));
                self.verb(&["ready", "machine"]);
                while !is_over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(500));
                    let status = self.verb(&["--json", "status"]);
                    let status: serde_json::Value = serde_json::from_slice(&status).unwrap_or_default();
                    oldest =
                        status["machines"][0]["rpo"]["actual"].as_f64().map_or(oldest, |age| age.max(oldest));
                }
                oldest
            });
            let done = run();
            is_over.store(true, Ordering::Relaxed);
            (done, looking.join().expect("looks"))
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Nbdkit(Child);

impl Nbdkit {
    fn start(socket: &Path, file: &Path) -> Nbdkit {
        let _ = std::fs::remove_file(socket);
        let child = Command::new("nbdkit")
            .args(["-f", "-U"])
            .arg(socket)
            .arg("file")
            .arg(file)
            .stderr(Stdio::null())
            .spawn()
            .expect("nbdkit starts");
        for _ in 0..500 {
            if std::os::unix::net::UnixStream::connect(socket).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Nbdkit(child)
    }
}

impl Drop for Nbdkit {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() {
    let (mut runs, mut seconds, mut folder) = (5, 4, PathBuf::from("target/bench"));
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--runs" => runs = args.next().and_then(|n| n.parse().ok()).expect("a number"),
            "--seconds" => seconds = args.next().and_then(|n| n.parse().ok()).expect("a number"),
            "--folder" => folder = args.next().expect("a folder").into(),
            _ => {}
        }
    }
    for tool in ["fio", "nbdkit"] {
        if Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("SKIPPED: no {tool} here (Debian: {tool})");
            return;
        }
    }
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("receive.raw");
    let disk = Arc::new(FileDisk::create(&file, SIZE));
    {
        let block = vec![0x5a; 1 << 20];
        (0..WARM >> 20).for_each(|n| disk.write_at(GuestOffset(n << 20), &block).expect("can be written"));
        disk.flush().expect("can be flushed");
    }
    let anew = |case: &Case| {
        if case.is_copy {
            let file = std::fs::File::options().write(true).open(&file).expect("is there");
            file.set_len(0).and_then(|()| file.set_len(SIZE)).expect("can be cut");
        }
        let _ = Command::new("sync").status();
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let shelf = Shelf(Opened { disk, read_only: false, preferred: Bytes::kib(4), description: None });
    let config = Config { listen: vec![Listen::Unix(ours.clone())], ..Config::default() };
    let receiver = Receiver::bind(&config, Arc::new(shelf)).expect("a receiver");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.spawn(receiver.run(std::future::pending()));
    let service = Service::start(&folder);

    println!(
        "| writes | nbdkit MB/s | file | vault | nbdkit p99 µs | file | vault | oldest newest state s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut results = Vec::new();
    for case in CASES {
        let mut outcomes: [Vec<Outcome>; 3] = Default::default();
        let mut age: f64 = 0.0;
        for _ in 0..runs {
            anew(case);
            let nbdkit = Nbdkit::start(&theirs, &file);
            outcomes[0].push(fio(case, &theirs, "", seconds));
            drop(nbdkit);
            anew(case);
            outcomes[1].push(fio(case, &ours, "machine/file", seconds));
            anew(case);
            let (vault, oldest) = service.watched(|| fio(case, &service.socket(), "machine/disk", seconds));
            outcomes[2].push(vault);
            age = age.max(oldest);
            service.begin_anew();
        }
        let speed =
            [0, 1, 2].map(|n| median(outcomes[n].iter().map(|run| run.bytes_per_second / 1e6).collect()));
        let p99 = [0, 1, 2].map(|n| median(outcomes[n].iter().map(|run| run.p99_us).collect()));
        println!(
            "| {} | {:.0} | {:.2} | {:.2} | {:.0} | {:.2} | {:.2} | {age:.1} |",
            case.name,
            speed[0],
            speed[1] / speed[0],
            speed[2] / speed[0],
            p99[0],
            p99[1] / p99[0],
            p99[2] / p99[0]
        );
        let one = |n: usize| serde_json::json!({ "mb_per_second": speed[n], "p99_us": p99[n] });
        results.push(serde_json::json!({
            "case": case.name, "runs": runs, "seconds": seconds,
            "nbdkit": one(0), "file": one(1), "vault": one(2), "oldest_newest_state_seconds": age,
        }));
    }
    let json = serde_json::to_string_pretty(&results).expect("JSON");
    std::fs::write(folder.join("receive.json"), json).expect("can be written");
    let _ = std::fs::remove_file(&file);
}
