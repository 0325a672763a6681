//! The suite that every kind of image has to pass that is written to files.
//!
//! Not part of the product; it panics where a kind fails.

use crate::convert::{self, Journal, Options};
use crate::create::FileOptions;
use crate::disk::Disk;
use crate::error::{Kind, Result};
use crate::sink::{Receipt, Sink};
use crate::testing::{Faults, FaultyDisk, FaultySink, MemDisk, mixed, noise_bytes, text_bytes};
use crate::units::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// A kind of image under test.
pub struct Suite<C, O> {
    /// Makes a sink that writes the file it is given, for a disk of the size it is given.
    pub create: C,
    /// Reads that file.
    pub open: O,
}

/// Runs the suite: what is written reads back the same, in sizes around every boundary, and in the same bytes whatever
/// the number of workers; whichever operation fails, the error comes out and nothing lies under the final name or
/// beside it; an interrupted run can be continued, wherever it was interrupted.
///
/// `create` makes a sink that writes the file it is given, for a disk of the size it is given; `open` reads that file.
pub fn check_sink(
    create: impl Fn(&Path, Bytes, FileOptions) -> Result<Box<dyn Sink>>,
    open: impl Fn(&Path) -> Result<Arc<dyn Disk>>,
) {
    let suite = Suite { create, open };
    suite.round_trips();
    suite.every_fault();
    suite.continued_wherever_it_stops();
    suite.a_leftover_is_no_result();
}

const NEW: FileOptions = FileOptions { replace: false, resume: false, sync: false };
const SYNCED: FileOptions = FileOptions { sync: true, ..NEW };
const RESUME: FileOptions = FileOptions { resume: true, ..NEW };

fn jobs(jobs: usize) -> Options {
    Options { jobs, ..Options::default() }
}

/// A run that is stopped leaves what it has, however little.
fn kept(workers: usize) -> Options {
    Options { worth_keeping: Bytes(0), ..jobs(workers) }
}

impl<C, O> Suite<C, O>
where
    C: Fn(&Path, Bytes, FileOptions) -> Result<Box<dyn Sink>>,
    O: Fn(&Path) -> Result<Arc<dyn Disk>>,
{
    /// What was written is what was there: by the map, by content and by digest.
    fn compare(&self, what: &str, disk: &MemDisk, target: &Path, digest: blake3::Hash) {
        let written = (self.open)(target).unwrap_or_else(|e| panic!("{what}: open: {e}"));
        let compared = convert::compare(disk, &*written, &jobs(3)).expect("both can be read");
        assert!(compared.is_same_content(), "{what}: {compared:?}");
        if written.size() == disk.size() {
            let read = convert::digest(&*written, &jobs(3)).expect("can be read");
            assert_eq!(read, digest, "{what}: the digest is that of the content");
        }
    }

    /// The files of an image, in the order of the receipt.
    fn contents(receipt: &Receipt) -> Vec<blake3::Hash> {
        let file = |path: &PathBuf| {
            let len = std::fs::metadata(path).expect("the receipt names files").len();
            let mut hasher = blake3::Hasher::new();
            if len <= 1 << 30 {
                hasher.update(&std::fs::read(path).expect("the receipt names files"));
            }
            hasher.update(&len.to_le_bytes());
            hasher.finalize()
        };
        receipt.files.iter().map(file).collect()
    }

    fn round_trips(&self) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let disks = [
            MemDisk::new(Bytes(512)),
            MemDisk::new(Bytes(MIB)),
            MemDisk::new(Bytes(1 << 40))
                .data(1 << 39, noise_bytes(9, 70_000))
                .data((1 << 40) - 512, [7; 512]),
            MemDisk::from_bytes(noise_bytes(1, 512)),
            MemDisk::from_bytes(noise_bytes(2, (1 << 16) + 512)),
            MemDisk::from_bytes(text_bytes(3, (3 << 20) + 1024)),
            MemDisk::from_bytes(vec![0; 4 << 20]),
            mixed(4, Bytes(6 * MIB)),
            mixed(5, Bytes(7 * MIB + 512)),
        ];
        for (n, disk) in disks.iter().enumerate() {
            let mut before = None;
            for (workers, files) in [(1, NEW), (4, SYNCED)] {
                let what = format!("disk {n} with {workers} workers");
                // One name, since it may be in the image.
                let target = dir.path().join("image");
                let sink = (self.create)(&target, disk.size(), files)
                    .unwrap_or_else(|e| panic!("{what}: create: {e}"));
                let converted = convert::convert(disk, sink, &jobs(workers))
                    .unwrap_or_else(|e| panic!("{what}: convert: {e}"));
                let receipt = &converted.receipt;
                assert_eq!(receipt.files.first(), Some(&target), "{what}: the receipt names the image");
                self.compare(&what, disk, &target, converted.digest);
                let contents = Self::contents(receipt);
                assert!(
                    *before.get_or_insert_with(|| contents.clone()) == contents,
                    "{what}: the same disk makes the same files"
                );
                for file in &receipt.files {
                    std::fs::remove_file(file).expect("the receipt names files");
                }
                assert_nothing_left(&what, dir.path());
            }
        }
    }

    fn every_fault(&self) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let disk = mixed(6, Bytes(6 * MIB));
        let target = dir.path().join("faulty");
        let run = |faults: &Faults| {
            let sink = (self.create)(&target, disk.size(), NEW).expect("create");
            let sink = FaultySink { sink, faults: faults.clone() };
            let faulty = FaultyDisk { disk: &disk, faults: faults.clone() };
            convert::convert(&faulty, Box::new(sink), &jobs(2))
        };
        for n in 0.. {
            let faults = Faults::at(n);
            let result = run(&faults);
            if !faults.happened() {
                result.expect("nothing failed");
                assert!(target.exists());
                break;
            }
            let error = result.expect_err("the failure came out");
            assert_eq!(error.kind(), Kind::Io, "operation {n}: {error}");
            assert!(error.says().starts_with("injected"), "operation {n}: {error}");
            assert_nothing_left(&format!("operation {n} failed"), dir.path());
        }
    }

    /// Stops at every n-th operation, as a kill does: what is there stays. Some of what was written is lost, too.
    fn continued_wherever_it_stops(&self) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let target = dir.path().join("image");
        let disk = mixed(7, Bytes(9 * MIB + 512));
        let about = "a test";
        let whole =
            convert::convert(&disk, (self.create)(&target, disk.size(), NEW).expect("create"), &jobs(1))
                .expect("nothing fails");
        let expected = Self::contents(&whole.receipt);
        for n in (0..).step_by(3) {
            for file in &whole.receipt.files {
                std::fs::remove_file(file).expect("there");
            }
            let what = format!("stopped at operation {n}");
            let faults = Faults::at(n);
            let sink = (self.create)(&target, disk.size(), NEW).expect("create");
            let journal = Journal::begin(&target, about).expect("begins");
            let sink = FaultySink { sink, faults: faults.clone() };
            let result = convert::convert_with(&disk, None, Box::new(sink), Some(journal), &kept(2));
            if !faults.happened() {
                result.expect("nothing failed");
                break;
            }
            result.expect_err("stopped");
            assert!(!target.exists(), "{what}");
            let resume = Journal::can_resume(&target, about).expect("about the same");
            let options = if resume { RESUME } else { NEW };
            let sink = (self.create)(&target, disk.size(), options).expect("create");
            let journal =
                if resume { Journal::resume(&target, about) } else { Journal::begin(&target, about) };
            let converted = convert::convert_with(&disk, None, sink, Some(journal.expect("opens")), &jobs(2))
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(converted.digest, whole.digest, "{what}");
            self.compare(&what, &disk, &target, whole.digest);
            assert!(Self::contents(&converted.receipt) == expected, "{what}: the same files");
        }
    }

    /// Without being told to, nobody takes what is left for a result or a part of one.
    fn a_leftover_is_no_result(&self) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let target = dir.path().join("image");
        let (old, new) = (MemDisk::from_bytes(noise_bytes(1, 4 << 20)), mixed(8, Bytes(6 * MIB)));
        let sink = (self.create)(&target, old.size(), NEW).expect("create");
        let faults = Faults::at(6);
        let sink = FaultySink { sink, faults };
        let journal = Journal::begin(&target, "old").expect("begins");
        convert::convert_with(&old, None, Box::new(sink), Some(journal), &kept(1)).expect_err("stopped");
        assert!(!target.exists());
        assert!(
            std::fs::read_dir(dir.path()).expect("the folder").count() >= 2,
            "nothing is left to be mistaken"
        );
        let sink = (self.create)(&target, new.size(), NEW).expect("create");
        let converted = convert::convert(&new, sink, &jobs(2)).expect("nothing fails");
        self.compare("over a leftover", &new, &target, converted.digest);
    }
}

fn assert_nothing_left(what: &str, folder: &Path) {
    let left: Vec<_> = std::fs::read_dir(folder).expect("the folder").flatten().collect();
    assert!(left.is_empty(), "{what} and left {left:?}");
}
