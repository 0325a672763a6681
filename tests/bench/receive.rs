//! The NBD receiver beside nbdkit's file plugin, driven by fio's nbd engine over a local socket: `make bench`.
//!
//! ```text
//! cargo bench --bench receive -- [--runs N] [--seconds N] [--folder FOLDER]
//! ```
//!
//! Behind the receiver is a raw file that is written with `pwrite`, as nbdkit's plugin does it, so that what is compared
//! is the way of the bytes from the socket to the file. Both are run by turns on the same file, and their medians are
//! compared: on a busy machine the numbers mean little, the ratios still something. Prints a table and writes
//! `receive.json` to FOLDER (default: target/bench). Nothing here passes or fails.

#[path = "../receive/file_disk.rs"]
mod file_disk;

use file_disk::FileDisk;
use landfall::receive::nbd::{Config, Listen, Receiver};
use landfall::receive::{ExportName, Exports, Opened, Peer};
use landfall_image::Bytes;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const SIZE: u64 = 1 << 30;

struct Case {
    name: &'static str,
    fio: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "4 KiB random, depth 64, 4 connections",
        fio: &["--rw=randwrite", "--bs=4k", "--iodepth=64", "--numjobs=4"],
    },
    Case {
        name: "4 KiB random, depth 64, 1 connection",
        fio: &["--rw=randwrite", "--bs=4k", "--iodepth=64", "--numjobs=1"],
    },
    Case {
        name: "4 KiB random, depth 1, 1 connection",
        fio: &["--rw=randwrite", "--bs=4k", "--iodepth=1", "--numjobs=1"],
    },
    Case {
        name: "64 KiB random, depth 16, 4 connections",
        fio: &["--rw=randwrite", "--bs=64k", "--iodepth=16", "--numjobs=4"],
    },
    Case {
        name: "1 MiB sequential, depth 8, 1 connection",
        fio: &["--rw=write", "--bs=1M", "--iodepth=8", "--numjobs=1"],
    },
    Case {
        name: "1 MiB sequential, depth 8, 4 connections",
        fio: &[
            "--rw=write",
            "--bs=1M",
            "--iodepth=8",
            "--numjobs=4",
            "--offset_increment=256M",
            "--size=256M",
        ],
    },
];

/// One disk under one name.
struct One(Opened);

impl Exports for One {
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
        .args(["--name=x", "--ioengine=nbd", "--output-format=json", "--group_reporting", "--time_based"])
        .args(["--randrepeat=0", "--norandommap", "--size=1G"])
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
        use landfall_image::{DiskMut, GuestOffset};
        let block = vec![0x5a; 1 << 20];
        (0..SIZE >> 20).for_each(|n| disk.write_at(GuestOffset(n << 20), &block).expect("can be written"));
        disk.flush().expect("can be flushed");
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let opened = Opened { disk, read_only: false, preferred: Bytes::kib(4), description: None };
    let config = Config { listen: vec![Listen::Unix(ours.clone())], ..Config::default() };
    let receiver = Receiver::bind(&config, Arc::new(One(opened))).expect("a receiver");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.spawn(receiver.run(std::future::pending()));

    println!("| writes | landfall MB/s | nbdkit MB/s | ratio | p99 µs | nbdkit p99 µs | ratio |");
    println!("|---|---|---|---|---|---|---|");
    let mut results = Vec::new();
    for case in CASES {
        let mut outcomes: [Vec<Outcome>; 2] = Default::default();
        for _ in 0..runs {
            outcomes[0].push(fio(case, &ours, "machine/disk", seconds));
            let nbdkit = Nbdkit::start(&theirs, &file);
            outcomes[1].push(fio(case, &theirs, "", seconds));
            drop(nbdkit);
        }
        let [speed, theirs_speed] =
            [0, 1].map(|n| median(outcomes[n].iter().map(|run| run.bytes_per_second / 1e6).collect()));
        let [p99, theirs_p99] = [0, 1].map(|n| median(outcomes[n].iter().map(|run| run.p99_us).collect()));
        println!(
            "| {} | {speed:.0} | {theirs_speed:.0} | {:.2} | {p99:.0} | {theirs_p99:.0} | {:.2} |",
            case.name,
            speed / theirs_speed,
            p99 / theirs_p99
        );
        results.push(serde_json::json!({
            "case": case.name, "runs": runs, "seconds": seconds,
            "landfall": { "mb_per_second": speed, "p99_us": p99 },
            "nbdkit": { "mb_per_second": theirs_speed, "p99_us": theirs_p99 },
        }));
    }
    let json = serde_json::to_string_pretty(&results).expect("JSON");
    std::fs::write(folder.join("receive.json"), json).expect("can be written");
    let _ = std::fs::remove_file(&file);
}
