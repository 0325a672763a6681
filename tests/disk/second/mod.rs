//! Readers of other people's: crates that read disk formats, against what is written here and against the corpus.
//!
//! Each crate has one file, which says what it does not read (`except_written`, `except_corpus`) and pins, in one test,
//! what it does wrong. The lists are exact: an image that is read right all of a sudden is an error here, too.
//!
//! Nothing is read in the process of the tests: some of these crates panic, hang, die of a signal or write. Each image
//! is read by another process of the same program, which has a deadline, and those that may write get a copy.
//!
//! Not here: what is refused as hostile. These crates are asked for a second opinion on sound images only.

mod corpus;
mod imago;
mod qcow2_rs;
mod vhd_core;
mod vhdx;
mod vmdk_core;
mod written;

use landfall_image::create::{Base, CreateOptions};
use landfall_image::{Bytes, Disk, Format, GuestOffset, GuestRange, formats};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// An image as one of the crates has opened it.
trait Opened {
    fn size(&mut self) -> Result<u64, String>;
    /// Fills `buf`.
    fn read_at(&mut self, at: u64, buf: &mut [u8]) -> Result<(), String>;
}

/// One of the crates.
struct Second {
    name: &'static str,
    format: Format,
    open: fn(&Path) -> Result<Box<dyn Opened>, String>,
    /// Opens images for writing, or is not trusted not to.
    may_write: bool,
    /// Takes the whole file into memory.
    loads_all: bool,
    /// What does not come out right of what we write: by the kind, its variant and the content.
    except_written: &'static [Exception],
    /// The same for the corpus, by path.
    except_corpus: &'static [Exception],
}

/// Images that a crate does not read right.
struct Exception {
    /// All that have this in their name.
    names: &'static str,
    comes_to: Outcome,
    because: &'static str,
}

/// What comes of reading an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Right,
    OtherContent,
    Refused,
    Panicked,
    Signal,
    Hung,
}

const SECONDS: &[Second] =
    &[qcow2_rs::SECOND, imago::SECOND, vhdx::SECOND, vhd_core::SECOND, vmdk_core::SECOND];

/// Set for the process that reads: the folder of its request.
const REQUEST: &str = "LANDFALL_TEST_SECOND_READER";
const DEADLINE: Duration = Duration::from_secs(60);
/// Read at once: over the borders of all units there are, and a multiple of a sector, which qcow2-rs wants.
const PIECE: usize = (1 << 20) - 1536;
/// What a buffer holds before it is read into. What is still there was not read.
const STALE: u8 = 0xa5;

/// What came of reading, and more about it.
struct Reading {
    outcome: Outcome,
    says: String,
    /// What was read, as a raw disk with holes, where reading came to an end.
    copy: PathBuf,
}

/// Lets one of the crates read the ranges of an image, or all of it, in a process of its own. The copy is put into
/// `folder`, which is emptied.
fn read(second: &Second, image: &Path, ranges: Option<&[(u64, u64)]>, folder: &Path) -> Reading {
    read_within(DEADLINE, second, image, ranges, folder)
}

fn read_within(
    deadline: Duration,
    second: &Second,
    image: &Path,
    ranges: Option<&[(u64, u64)]>,
    folder: &Path,
) -> Reading {
    if folder.exists() {
        std::fs::remove_dir_all(folder).unwrap();
    }
    std::fs::create_dir(folder).unwrap();
    let read = if second.may_write {
        let copy = folder.join(image.file_name().unwrap());
        // Not the standard library's, which fills holes.
        let done = Command::new("cp").arg("--sparse=auto").args([image, &copy]).status().unwrap();
        assert!(done.success());
        copy
    } else {
        image.to_owned()
    };
    let mut request = format!("{}\n{}\n", second.name, read.display());
    for (at, len) in ranges.unwrap_or(&[(0, u64::MAX)]) {
        request += &format!("{at} {len}\n");
    }
    std::fs::write(folder.join("request"), request).unwrap();
    let says = File::create(folder.join("says")).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "disk::second::a_process_that_reads", "--nocapture"])
        .env(REQUEST, folder)
        .env("RUST_BACKTRACE", "0")
        // Where a name in an image is relative to the working folder.
        .current_dir(image.parent().unwrap())
        .stdin(Stdio::null())
        .stdout(says.try_clone().unwrap())
        .stderr(says)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if begun.elapsed() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let result = std::fs::read_to_string(folder.join("result")).ok();
    let (outcome, says) = match (status, result) {
        (None, _) => (Outcome::Hung, format!("nothing within {deadline:?}")),
        (Some(status), _) if status.signal().is_some() => (Outcome::Signal, status.to_string()),
        (Some(_), Some(refusal)) if !refusal.is_empty() => (Outcome::Refused, refusal),
        (Some(status), Some(_)) if status.success() => (Outcome::Right, String::new()),
        _ => (Outcome::Panicked, panic(&std::fs::read(folder.join("says")).unwrap())),
    };
    Reading { outcome, says, copy: folder.join("copy") }
}

/// The words of a panic and where it was, out of all that a process said.
fn panic(says: &[u8]) -> String {
    let says = String::from_utf8_lossy(says);
    let lines = says.lines().skip_while(|line| !line.contains("panicked at")).take(2);
    lines.collect::<Vec<_>>().join(" ")
}

/// Not a test of its own: what [`read`] starts.
#[test]
fn a_process_that_reads() {
    let Some(folder) = std::env::var_os(REQUEST).map(PathBuf::from) else { return };
    let request = std::fs::read_to_string(folder.join("request")).unwrap();
    let mut lines = request.lines();
    let (name, image) = (lines.next().unwrap(), lines.next().unwrap());
    let second = SECONDS.iter().find(|second| second.name == name).unwrap();
    let ranges = lines.map(|line| {
        let (at, len) = line.split_once(' ').unwrap();
        (at.parse().unwrap(), len.parse().unwrap())
    });
    let result = copy(second, Path::new(image), ranges, &folder.join("copy"));
    std::fs::write(folder.join("result"), result.err().unwrap_or_default()).unwrap();
}

fn copy(
    second: &Second,
    image: &Path,
    ranges: impl Iterator<Item = (u64, u64)>,
    target: &Path,
) -> Result<(), String> {
    let mut opened = (second.open)(image)?;
    let size = opened.size()?;
    let mut file = File::create(target).unwrap();
    file.set_len(size).unwrap();
    let mut buf = vec![0; PIECE];
    for (at, len) in ranges {
        let (mut at, end) = (at, at.saturating_add(len).min(size));
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            buf[..len].fill(STALE);
            opened.read_at(at, &mut buf[..len]).map_err(|error| format!("at {at:#x}: {error}"))?;
            for block in buf[..len].chunks(4096) {
                if block.iter().any(|&byte| byte != 0) {
                    file.seek(SeekFrom::Start(at)).unwrap();
                    file.write_all(block).unwrap();
                }
                at += block.len() as u64;
            }
        }
    }
    Ok(())
}

/// Where a copy is other than the disk, in the ranges that were read.
fn difference(copy: &Path, disk: &dyn Disk, ranges: Option<&[(u64, u64)]>) -> Result<(), String> {
    use std::os::unix::fs::FileExt;
    let file = File::open(copy).unwrap();
    let (size, wanted) = (file.metadata().unwrap().len(), disk.size().0);
    if size != wanted {
        return Err(format!("has {size} bytes, not {wanted}"));
    }
    for &(at, len) in ranges.unwrap_or(&[(0, size)]) {
        let (mut at, end) = (at, at.saturating_add(len).min(size));
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let (mut theirs, mut ours) = (vec![0; len], vec![0; len]);
            file.read_exact_at(&mut theirs, at).unwrap();
            disk.read_at(GuestOffset(at), &mut ours).unwrap();
            if let Some(first) = theirs.iter().zip(&ours).position(|(theirs, ours)| theirs != ours) {
                let (theirs, ours) = (theirs[first], ours[first]);
                return Err(format!("at {:#x} {theirs:#04x}, not {ours:#04x}", at + first as u64));
            }
            at += len as u64;
        }
    }
    Ok(())
}

/// What is wrong with a result, going by the list of exceptions; the exceptions that held are noted in `held`.
fn judge(
    second: &Second,
    exceptions: &'static [Exception],
    name: &str,
    (outcome, says): (Outcome, &str),
    held: &mut Vec<&'static str>,
) -> Result<(), String> {
    let Some(exception) = exceptions.iter().find(|exception| name.contains(exception.names)) else {
        return if outcome == Outcome::Right {
            Ok(())
        } else {
            Err(format!("{}: {name}: {outcome:?}: {says}", second.name))
        };
    };
    held.push(exception.names);
    let Exception { names, comes_to, because } = exception;
    if outcome == *comes_to {
        Ok(())
    } else if outcome == Outcome::Right {
        Err(format!("{}: {name} is now read right: remove {names:?} from the list ({because})", second.name))
    } else {
        Err(format!("{}: {name}: {outcome:?} instead of {comes_to:?} ({because}): {says}", second.name))
    }
}

/// An exception that no image bears out is none.
fn unused(second: &Second, exceptions: &[Exception], held: &[&str]) -> Vec<String> {
    exceptions
        .iter()
        .filter(|exception| !held.contains(&exception.names))
        .map(|exception| {
            format!("{}: no image is {:?}: remove it from the list", second.name, exception.names)
        })
        .collect()
}

/// Fails where a defect that is pinned is gone.
fn still(is_there: bool, second: &Second, defect: &str) {
    assert!(
        is_there,
        "{}: this release has fixed it: {defect}. Use it for more, and change README",
        second.name
    );
}

/// Writes a disk as an image of that kind.
fn write_plain(disk: &dyn Disk, kind: &str, path: &Path) {
    super::pairs::write(disk, formats::kind(kind).unwrap(), &CreateOptions::default(), path);
}

/// Writes an image with nothing of its own over another one.
fn write_nothing_over(base: Base, kind: &str, size: Bytes, path: &Path) {
    let options = CreateOptions { base: Some(base), ..CreateOptions::default() };
    let sink = (formats::kind(kind).unwrap().create)(path, size, &options).unwrap();
    sink.keep(GuestRange::new(GuestOffset(0), size)).unwrap();
    sink.finish().unwrap();
}

/// The lists of exceptions can fail.
#[test]
fn the_lists_bite() {
    const LIST: &[Exception] =
        &[Exception { names: "odd", comes_to: Outcome::Refused, because: "it is odd" }];
    let judged = |name: &str, outcome| judge(&SECONDS[0], LIST, name, (outcome, ""), &mut Vec::new());
    assert!(judged("even", Outcome::Right).is_ok());
    assert!(judged("odd", Outcome::Refused).is_ok());
    assert!(judged("even", Outcome::OtherContent).is_err());
    assert!(judged("odd", Outcome::OtherContent).is_err());
    assert!(judged("odd", Outcome::Right).unwrap_err().contains("remove \"odd\" from the list"));
    assert_eq!(unused(&SECONDS[0], LIST, &[]).len(), 1);
}
