//! Disk conversion beside `qemu-img convert -m 16 -W`, on the same input in the same run: `make bench`.
//!
//! ```text
//! cargo bench --bench convert -- [--runs N] [--only SOURCE:TARGET] [--folder FOLDER] [--skip-scale]
//! ```
//!
//! FOLDER (default: target/bench, made by tools/bench-disk.sh) holds `guest.raw` and `qemu-img`. Prints a table and
//! writes `results.json` there. Both programs run by turns, page cache warm, each with the memory that a plain copy has
//! just given back, and their medians are compared: on a busy machine the times mean little, the ratios still
//! something. Nothing here passes or fails.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LANDFALL: &str = env!("CARGO_BIN_EXE_landfall");

/// A kind of image: its name in the table, then what makes it with landfall and with qemu-img.
struct Kind {
    name: &'static str,
    ours: &'static [&'static str],
    theirs: &'static [&'static str],
    compressed: bool,
}

const KINDS: &[Kind] = &[
    Kind { name: "raw", ours: &["-O", "raw"], theirs: &["-O", "raw"], compressed: false },
    Kind { name: "qcow2", ours: &["-O", "qcow2"], theirs: &["-O", "qcow2"], compressed: false },
    Kind { name: "vmdk", ours: &["-O", "vmdk"], theirs: &["-O", "vmdk"], compressed: false },
    Kind { name: "vhdx", ours: &["-O", "vhdx"], theirs: &["-O", "vhdx"], compressed: false },
    Kind {
        name: "stream",
        ours: &["-O", "vmdk-stream"],
        theirs: &["-O", "vmdk", "-o", "subformat=streamOptimized"],
        compressed: true,
    },
    Kind {
        name: "zstd",
        ours: &["-O", "qcow2", "--compress", "zstd"],
        theirs: &["-O", "qcow2", "-c", "-o", "compression_type=zstd"],
        compressed: true,
    },
];

/// A program is not run again in a cell where its runs have taken this long together.
const ENOUGH_SECONDS: f64 = 60.0;

struct Settings {
    runs: usize,
    only: Option<(String, String)>,
    folder: PathBuf,
    scale: bool,
}

/// One program's runs of one conversion.
#[derive(Default)]
struct Runs {
    seconds: Vec<f64>,
    peak_kib: u64,
    target_bytes: u64,
}

impl Runs {
    fn median(&self) -> f64 {
        median(&self.seconds)
    }
    fn least(&self) -> f64 {
        self.seconds.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs a command, with the time that it takes and its greatest resident size, which is looked at while it runs.
fn run(command: &mut Command) -> (f64, u64) {
    let begin = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let status_file = format!("/proc/{}/status", child.id());
    let watcher = std::thread::spawn(move || {
        let mut peak = 0;
        while let Ok(status) = std::fs::read_to_string(&status_file) {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            match line.and_then(|line| line.split_whitespace().next()?.parse().ok()) {
                Some(now) => peak = peak.max(now),
                None if status.contains("zombie") || peak > 0 => break,
                None => {}
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        peak
    });
    let mut stderr = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        let _ = std::io::Read::read_to_string(&mut pipe, &mut stderr);
    }
    let status = child.wait().expect("ends");
    let seconds = begin.elapsed().as_secs_f64();
    assert!(status.success(), "{command:?}: {status}\n{stderr}");
    (seconds, watcher.join().unwrap_or(0))
}

/// Brings a file into the page cache; not its holes, of which the cache would keep every page.
fn warm(path: &Path) {
    use rustix::fs::SeekFrom;
    let file = std::fs::File::open(path).expect("opens");
    let size = file.metadata().expect("is there").len();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        let end = rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap_or(size);
        at = start;
        while at < end {
            let part = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut buffer[..part], at).expect("can be read");
            at += part as u64;
        }
    }
}

/// Makes every run start alike: the data of a plain copy lies in the cache, and is dropped with its file, so that the
/// run finds memory that is there. A virtual machine whose host takes free memory back (free page reporting of the
/// balloon: whole 2 MiB, after two seconds) pays more for the first use of it than for any copy, and whoever came first
/// after a pause would pay for both.
fn make_room(guest: &Path, target: &Path) {
    let _ = std::fs::remove_file(target);
    run(Command::new("cp").arg("--sparse=always").arg(guest).arg(target));
    let _ = std::fs::remove_file(target);
}

fn convert(kind: &Kind, qemu_img: &Path, [guest, source, target]: [&Path; 3], ours: bool, runs: &mut Runs) {
    let mut command;
    if ours {
        command = Command::new(LANDFALL);
        command.args(["--quiet", "disk", "convert"]).args(kind.ours).arg(source).arg(target);
    } else {
        command = Command::new(qemu_img);
        command.args(["convert", "-m", "16", "-W"]).args(kind.theirs).arg(source).arg(target);
    }
    warm(source);
    make_room(guest, target);
    let (seconds, peak_kib) = run(&mut command);
    runs.seconds.push(seconds);
    runs.peak_kib = runs.peak_kib.max(peak_kib);
    runs.target_bytes = {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(target).map_or(0, |meta| meta.blocks() * 512)
    };
}

struct Cell {
    source: &'static str,
    target: &'static str,
    ours: Runs,
    theirs: Runs,
    /// `cp --sparse=always` of the raw data, where neither side is compressed.
    copy: Option<Runs>,
}

impl Cell {
    fn ratio(&self) -> f64 {
        self.theirs.median() / self.ours.median()
    }
    fn copy_ratio(&self) -> Option<f64> {
        self.copy.as_ref().map(|copy| copy.median() / self.ours.median())
    }
}

fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let logs: Vec<f64> = values.map(f64::ln).collect();
    #[allow(clippy::cast_precision_loss)] // a handful
    let count = logs.len() as f64;
    (logs.iter().sum::<f64>() / count).exp()
}

fn matrix(settings: &Settings) -> Vec<Cell> {
    let guest = settings.folder.join("guest.raw");
    let qemu_img = settings.folder.join("qemu-img");
    let wanted = |source: &str, target: &str| {
        settings.only.as_ref().is_none_or(|(s, t)| (s == "*" || s == source) && (t == "*" || t == target))
    };
    for _ in 0..3 {
        make_room(&guest, &settings.folder.join("target.img"));
    }
    let mut cells = Vec::new();
    for from in KINDS {
        if !KINDS.iter().any(|to| wanted(from.name, to.name)) {
            continue;
        }
        let source = if from.name == "raw" {
            guest.clone()
        } else {
            settings.folder.join(format!("source.{}", from.name))
        };
        if !source.exists() {
            let mut command = Command::new(&qemu_img);
            run(command.args(["convert", "-m", "16", "-W"]).args(from.theirs).arg(&guest).arg(&source));
        }
        for to in KINDS.iter().filter(|to| wanted(from.name, to.name)) {
            warm(&guest);
            let target = settings.folder.join("target.img");
            let files = [guest.as_path(), &source, &target];
            let (mut ours, mut theirs, mut copy) = (Runs::default(), Runs::default(), Runs::default());
            let copied = !from.compressed && !to.compressed;
            for n in 0..settings.runs {
                // By turns the first of the two.
                for is_ours in [n % 2 == 0, n % 2 != 0] {
                    let runs = if is_ours { &mut ours } else { &mut theirs };
                    // What takes a minute does not vary.
                    if runs.seconds.iter().sum::<f64>() < ENOUGH_SECONDS {
                        convert(to, &qemu_img, files, is_ours, runs);
                    }
                }
                if copied {
                    make_room(&guest, &target);
                    let (seconds, _) =
                        run(Command::new("cp").arg("--sparse=always").arg(&guest).arg(&target));
                    copy.seconds.push(seconds);
                }
            }
            let cell =
                Cell { source: from.name, target: to.name, ours, theirs, copy: copied.then_some(copy) };
            eprintln!(
                "{:>7} to {:<7} {:6.2} s, qemu-img {:6.2} s: {:5.2}   (least {:.2}, {:.2})",
                cell.source,
                cell.target,
                cell.ours.median(),
                cell.theirs.median(),
                cell.ratio(),
                cell.ours.least(),
                cell.theirs.least(),
            );
            cells.push(cell);
            let _ = std::fs::remove_file(&target);
        }
    }
    cells
}

fn table(cells: &[Cell]) -> String {
    let mut out = String::from("qemu-img's time over ours (sources down, targets across)\n\n        ");
    for kind in KINDS {
        let _ = write!(out, "{:>9}", kind.name);
    }
    for from in KINDS {
        let _ = write!(out, "\n{:>8}", from.name);
        for to in KINDS {
            match cells.iter().find(|cell| cell.source == from.name && cell.target == to.name) {
                Some(cell) => drop(write!(out, "{:9.2}", cell.ratio())),
                None => out.push_str("        -"),
            }
        }
    }
    let _ = write!(
        out,
        "\n\ngeometric mean {:.2}, least {:.2}\n",
        geometric_mean(cells.iter().map(Cell::ratio)),
        cells.iter().map(Cell::ratio).fold(f64::INFINITY, f64::min)
    );
    for (what, of) in [
        ("streamOptimized writing", cells.iter().filter(|cell| cell.target == "stream").collect::<Vec<_>>()),
        ("streamOptimized reading", cells.iter().filter(|cell| cell.source == "stream").collect()),
    ] {
        let ratios: Vec<f64> = of.iter().map(|cell| cell.ratio()).collect();
        let _ = writeln!(
            out,
            "{what}: geometric mean {:.2}, least {:.2}",
            geometric_mean(ratios.iter().copied()),
            ratios.iter().copied().fold(f64::INFINITY, f64::min)
        );
    }
    let copies: Vec<f64> = cells.iter().filter_map(Cell::copy_ratio).collect();
    let _ = writeln!(
        out,
        "uncompressed pairs, time of cp --sparse=always over ours: geometric mean {:.2}, least {:.2}",
        geometric_mean(copies.iter().copied()),
        copies.iter().copied().fold(f64::INFINITY, f64::min)
    );
    let peak = cells.iter().map(|cell| cell.ours.peak_kib).max().unwrap_or(0);
    let _ = writeln!(out, "peak memory {} MiB", peak / 1024);
    out
}

/// What must not grow with the size of the disk.
fn scale(settings: &Settings) -> Vec<(String, f64)> {
    let mut rows = Vec::new();
    let source = settings.folder.join("scale.raw");
    let target = settings.folder.join("scale.out");
    let sparse = |size: u64, data: bool| {
        let _ = std::fs::remove_file(&source);
        let file = std::fs::File::create(&source).expect("can be written");
        file.set_len(size).expect("sparse");
        if data {
            // 1 GiB in 1024 pieces over the whole disk.
            let piece: Vec<u8> =
                (0..1u32 << 18).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
            for n in 0..1024 {
                std::os::unix::fs::FileExt::write_all_at(&file, &piece, n * (size / 1024) / 4096 * 4096)
                    .expect("written");
            }
        }
    };
    let time = |kind: &str| {
        let mut seconds = Vec::new();
        for _ in 0..settings.runs {
            let _ = std::fs::remove_file(&target);
            let mut command = Command::new(LANDFALL);
            command.args(["--quiet", "disk", "convert", "-O", kind]).arg(&source).arg(&target);
            seconds.push(run(&mut command).0);
        }
        let _ = std::fs::remove_file(&target);
        median(&seconds)
    };
    sparse(15 << 40, false);
    for kind in ["raw", "qcow2", "vhdx"] {
        rows.push((format!("an empty 15 TiB disk to {kind}, seconds"), time(kind)));
    }
    sparse(10 << 30, true);
    let small = time("qcow2");
    sparse(10 << 40, true);
    rows.push(("1 GiB of data in 10 TiB over the same in 10 GiB (qcow2)".into(), time("qcow2") / small));
    let _ = std::fs::remove_file(&source);
    rows
}

fn main() {
    let mut settings = Settings { runs: 5, only: None, folder: PathBuf::from("target/bench"), scale: true };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        match arg.as_str() {
            "--runs" => settings.runs = value().parse().expect("a number"),
            "--only" => {
                let value = value();
                let (source, target) = value.split_once(':').expect("SOURCE:TARGET");
                settings.only = Some((source.to_owned(), target.to_owned()));
            }
            "--folder" => settings.folder = value().into(),
            "--skip-scale" => settings.scale = false,
            "--bench" => {} // cargo's own
            other => panic!("{other} is not known; see the head of tests/bench/convert.rs"),
        }
    }
    assert!(
        settings.folder.join("guest.raw").exists(),
        "{} holds no guest.raw; tools/bench-disk.sh {0} makes it",
        settings.folder.display()
    );
    let cells = matrix(&settings);
    print!("{}", table(&cells));
    let rows = if settings.scale { scale(&settings) } else { Vec::new() };
    for (what, value) in &rows {
        println!("{what}: {value:.2}");
    }
    let json = serde_json::json!({
        "cells": cells.iter().map(|cell| serde_json::json!({
            "source": cell.source,
            "target": cell.target,
            "ratio": cell.ratio(),
            "landfall_seconds": cell.ours.seconds,
            "qemu_img_seconds": cell.theirs.seconds,
            "cp_seconds": cell.copy.as_ref().map(|copy| copy.seconds.clone()),
            "landfall_peak_kib": cell.ours.peak_kib,
            "qemu_img_peak_kib": cell.theirs.peak_kib,
            "landfall_target_bytes": cell.ours.target_bytes,
            "qemu_img_target_bytes": cell.theirs.target_bytes,
        })).collect::<Vec<_>>(),
        "scale": rows.iter().map(|(what, value)| serde_json::json!({"what": what, "value": value})).collect::<Vec<_>>(),
    });
    let path = settings.folder.join("results.json");
    std::fs::write(&path, format!("{json:#}\n")).expect("can be written");
    println!("all numbers: {}", path.display());
}
