//! The NBD receiver beside nbdkit's file plugin, driven by fio's nbd engine over a local socket: `make bench`.
//!
//! ```text
//! cargo bench --bench receive -- [--runs N] [--seconds N] [--folder FOLDER]
//! ```
//!
//! Behind the receiver is once a raw file that is written with `pwrite`, as nbdkit's plugin does it, so that what is compared
//! is the way of the bytes from the socket to the file; and once a vault, with its journal, its checksums and a checkpoint
//! every five seconds. All are run by turns, and their medians are compared: on a busy machine the numbers mean little, the
//! ratios still something. Prints a table and writes `receive.json` to FOLDER (default: target/bench). Nothing here passes
//! or fails.

#[path = "../receive/file_disk.rs"]
mod file_disk;

use file_disk::FileDisk;
use landfall::receive::nbd::{Config, Listen, Receiver};
use landfall::receive::{ExportName, Exports, Opened, Peer};
use landfall::vault::Vault;
use landfall::vault::journal::{DiskInfo, Mark};
use landfall::vault::upkeep;
use landfall_image::{Bytes, DiskMut, GuestOffset};
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

/// A disk for each of these names.
struct Shelf(Vec<(&'static str, Opened)>);

impl Exports for Shelf {
    fn open(&self, name: &ExportName, _: &Peer) -> landfall_image::Result<Option<Opened>> {
        let found = self.0.iter().find(|(disk, _)| *disk == name.disk().as_str());
        Ok(found.map(|(_, opened)| opened.clone()))
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
        let block = vec![0x5a; 1 << 20];
        (0..SIZE >> 20).for_each(|n| disk.write_at(GuestOffset(n << 20), &block).expect("can be written"));
        disk.flush().expect("can be flushed");
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let vault_dir = tempfile::tempdir_in(&folder).expect("a temporary folder");
    let (vault, _) = Vault::open(vault_dir.path()).expect("a vault");
    let machine = vault.machine_or_new(&"machine".parse().expect("a name")).expect("a machine");
    let info = DiskInfo { name: "vault".into(), size: SIZE, sector: 512 };
    machine.journal().set_disk(&info).expect("a disk");
    let live = Arc::new(machine.live("vault").expect("a disk"));
    let opened = |disk: Arc<dyn DiskMut>| Opened {
        disk,
        read_only: false,
        preferred: Bytes::kib(4),
        description: None,
    };
    let shelf = Shelf(vec![("file", opened(disk)), ("vault", opened(live))]);
    let config = Config { listen: vec![Listen::Unix(ours.clone())], ..Config::default() };
    let receiver = Receiver::bind(&config, Arc::new(shelf)).expect("a receiver");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.spawn(receiver.run(std::future::pending()));
    let keeper = Arc::clone(&machine);
    std::thread::spawn(move || {
        for time in 1.. {
            std::thread::sleep(Duration::from_secs(5));
            keeper.checkpoint(time * 5000, &Mark::default()).expect("a checkpoint");
            keeper.journal().seal().expect("sealed");
            // As short as it can be, or the bench fills the disk.
            let retention = "5s every 5s".parse().expect("a rule");
            upkeep::run(&keeper, &retention, &Default::default(), time * 5000, &|_| Ok(())).expect("kept up");
        }
    });

    println!("| writes | nbdkit MB/s | file | vault | nbdkit p99 µs | file | vault |");
    println!("|---|---|---|---|---|---|---|");
    let mut results = Vec::new();
    for case in CASES {
        let mut outcomes: [Vec<Outcome>; 3] = Default::default();
        for _ in 0..runs {
            let nbdkit = Nbdkit::start(&theirs, &file);
            outcomes[0].push(fio(case, &theirs, "", seconds));
            drop(nbdkit);
            outcomes[1].push(fio(case, &ours, "machine/file", seconds));
            outcomes[2].push(fio(case, &ours, "machine/vault", seconds));
        }
        let speed =
            [0, 1, 2].map(|n| median(outcomes[n].iter().map(|run| run.bytes_per_second / 1e6).collect()));
        let p99 = [0, 1, 2].map(|n| median(outcomes[n].iter().map(|run| run.p99_us).collect()));
        println!(
            "| {} | {:.0} | {:.2} | {:.2} | {:.0} | {:.2} | {:.2} |",
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
            "nbdkit": one(0), "file": one(1), "vault": one(2),
        }));
    }
    let json = serde_json::to_string_pretty(&results).expect("JSON");
    std::fs::write(folder.join("receive.json"), json).expect("can be written");
    let _ = std::fs::remove_file(&file);
}
