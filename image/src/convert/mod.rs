//! From a disk to a sink, in parallel: every byte read once, zeros left out, everything digested on the way.
//!
//! ```text
//! extents -> plan (lazily, in order) -> workers: read, find zeros, hash, encode
//!         -> in order: place, zero, keep, digest -> workers: store
//! ```
//!
//! Memory is bounded by [`limits::CONVERT_BUFFERS`](crate::limits::CONVERT_BUFFERS), whatever the number of workers.
//! Every byte of the disk reaches the sink exactly once, by `place`, `zero` or `keep`.
//!
//! What was tried for speed (two processors, ext4, page cache warm, 1.5 GiB of a guest's data; `make bench` measures it
//! again):
//! - Chunks of 1 MiB instead of 2: a fifth less time, see [`CHUNK`].
//! - Calls that write 128 KiB instead of 1 MiB: half the time and less in a virtual machine, see `partial.rs`.
//! - The space of each chunk asked for before it is written, on ext4: a fifth less of the kernel's time (0.46 s instead of
//!   0.58), an eighth less in all (0.36 s instead of 0.41; `qemu-img` 0.38 to 1.3).
//! - Chunks of 256 and 512 KiB, on a processor with a cache of 1 MiB a core: no difference.
//! - One thread at a time that stores into a file: the others do not turn in the kernel's queue for its lock. Where memory has
//!   to be found first, half the processor time (3.2 s instead of 5.4 to 6.8), the same time otherwise.
//! - Direct I/O: 1.1 GB/s whatever the depth, through the page cache 2.5 to 4: not used.
//! - Early write-out costs more than it gives, except before a sync: only done with one.
//! - Cloning (reflinks) and `copy_file_range`: not used. All bytes are read for the digest, so that only the write would be
//!   saved, and only on file systems that share blocks; on others the call copies, as the write does.
//!
//! Absent on purpose: retries (a failing disk is the business of the layer that reads it), and verification of
//! what was written (open the result and [`digest`] it).

mod buffers;
mod compare;
mod copy;
mod journal;
mod pipeline;
mod plan;

pub use buffers::RateLimit;
pub use compare::{Comparison, compare};
pub use journal::Journal;

use crate::disk::Disk;
use crate::error::Result;
use crate::sink::{Piece, Placed, Receipt, Sink};
use crate::units::{Bytes, GuestOffset, GuestRange};
use copy::{Counts, copy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a worker takes at a time, where the sink's granularity asks for no more. A multiple of
/// [`BLOCK`](crate::digest::BLOCK), and no larger: it stays in the processor's own cache between being read, looked
/// through, hashed and written, which is a fifth of the time of a plain copy.
const CHUNK: Bytes = Bytes::mib(1);

/// The largest granularity of a sink.
const GRANULE: Bytes = Bytes::mib(2);

/// Data of an interrupted run that is worth continuing with; less is written again as fast as it is checked.
const WORTH_KEEPING: Bytes = Bytes::mib(64);

/// How to convert, digest or compare. Clones share the cancellation, the rate limit and the progress.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads; by default as many as the machine runs at once. 0 counts as 1.
    pub jobs: usize,
    /// Bytes of data read per second, at most.
    pub rate_limit: Option<RateLimit>,
    /// With a journal: data in the target that is worth continuing with; with less a run that is stopped or fails leaves
    /// nothing.
    pub worth_keeping: Bytes,
    /// Stops the run.
    pub cancel: Cancel,
    /// Tells how far the run is.
    pub progress: Progress,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            rate_limit: None,
            worth_keeping: WORTH_KEEPING,
            cancel: Cancel::default(),
            progress: Progress::default(),
        }
    }
}

/// A request to stop, shared between whoever makes it (a signal handler) and the run that heeds it.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the run to stop. It ends with [`Kind::Interrupted`](crate::Kind::Interrupted) as soon as the reads and
    /// writes under way are done.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl From<Arc<AtomicBool>> for Cancel {
    /// A flag that something else sets.
    fn from(flag: Arc<AtomicBool>) -> Self {
        Cancel(flag)
    }
}

/// How far a run is; read it from another thread while the run lasts. Each run starts it
/// afresh.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    size: AtomicU64,
    scanned: AtomicU64,
    total: AtomicU64,
    read: AtomicU64,
    copied: AtomicU64,
    resumed: AtomicU64,
}

/// The state of a run at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Size of the disk (of both together, when two are compared: the longer one).
    pub size: Bytes,
    /// How much of the disk's map was walked; the walk is ahead of the reading.
    pub scanned: Bytes,
    /// Bytes to read: all that is not known to be zeros. Falls as the map is walked; final once `scanned` is `size`.
    pub total: Bytes,
    /// Bytes of data read.
    pub read: Bytes,
    /// Bytes given to the sink as data: what was read without the zeros in it.
    pub copied: Bytes,
    /// Bytes of `read` that an interrupted run had stored, so that they were not read again.
    pub resumed: Bytes,
}

impl Snapshot {
    /// The part done, 0.0 to 1.0. What the map has not told yet counts as data, so that it never falls. 0.0
    /// before the run begins.
    pub fn fraction(&self) -> f64 {
        if self.total.0 == 0 {
            return if self.size.0 == 0 { 0.0 } else { 1.0 };
        }
        #[allow(clippy::cast_precision_loss)] // a fraction for people
        let fraction = self.read.0 as f64 / self.total.0 as f64;
        fraction.min(1.0)
    }
}

impl Progress {
    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| Bytes(counter.load(Ordering::Relaxed));
        Snapshot {
            size: get(&self.0.size),
            scanned: get(&self.0.scanned),
            total: get(&self.0.total),
            read: get(&self.0.read),
            copied: get(&self.0.copied),
            resumed: get(&self.0.resumed),
        }
    }

    /// Begins a copy that is not the converter's: `size` bytes are to go.
    pub fn start(&self, size: Bytes) {
        self.begin(size);
        self.scanned(GuestOffset(size.0));
    }

    /// So many more of them are through.
    pub fn advance(&self, more: Bytes) {
        self.read(more);
        self.copied(more);
    }

    fn begin(&self, size: Bytes) {
        let counters = &self.0;
        for (counter, value) in [
            (&counters.scanned, 0),
            (&counters.read, 0),
            (&counters.copied, 0),
            (&counters.resumed, 0),
            (&counters.total, size.0),
            (&counters.size, size.0),
        ] {
            counter.store(value, Ordering::Relaxed);
        }
    }

    fn scanned(&self, to: GuestOffset) {
        self.0.scanned.store(to.0, Ordering::Relaxed);
    }

    fn known_zeros(&self, more: Bytes) {
        self.0.total.fetch_sub(more.0, Ordering::Relaxed);
    }

    fn read(&self, more: Bytes) {
        self.0.read.fetch_add(more.0, Ordering::Relaxed);
    }

    /// A run of the disk of which that much data is in the target already.
    fn resumed(&self, len: Bytes, data: Bytes) {
        self.known_zeros(Bytes(len.0.saturating_sub(data.0)));
        self.read(data);
        self.0.resumed.fetch_add(data.0, Ordering::Relaxed);
    }

    fn copied(&self, more: Bytes) {
        self.0.copied.fetch_add(more.0, Ordering::Relaxed);
    }
}

/// What a conversion did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// What the sink left.
    pub receipt: Receipt,
    /// The content digest (see [`crate::digest`]) of what was read.
    pub digest: blake3::Hash,
    /// Size of the disk.
    pub size: Bytes,
    /// Bytes read as data.
    pub read: Bytes,
    /// Bytes given to the sink as data, those of an interrupted run included.
    pub copied: Bytes,
    /// Bytes of `copied` that an interrupted run had stored.
    pub resumed: Bytes,
}

impl Converted {
    /// Bytes of the disk that are zeros, known from its map or found by looking.
    pub fn zeros(&self) -> Bytes {
        Bytes(self.size.0.saturating_sub(self.copied.0))
    }
}

/// Copies `disk` into `sink` and completes it. On any error, the first of which is returned, the sink is dropped
/// unfinished: nothing lies under its final name.
pub fn convert(disk: &dyn Disk, sink: Box<dyn Sink>, options: &Options) -> Result<Converted> {
    convert_with(disk, None, sink, None, options)
}

/// [`convert`], with more.
///
/// Over a `base`, which the sink was started over, only what differs from it is stored. With a `journal`, a run that
/// is stopped or fails leaves what it has done, if that is worth it, and a run that takes up such a journal (with a
/// sink that was started to [resume](crate::create::FileOptions::resume)) goes on behind what it finds in place.
pub fn convert_with(
    disk: &dyn Disk,
    base: Option<&dyn Disk>,
    sink: Box<dyn Sink>,
    mut journal: Option<Journal>,
    options: &Options,
) -> Result<Converted> {
    let copied = copy(disk, base, &*sink, journal.as_mut(), options);
    let worth = journal.as_ref().is_some_and(|journal| journal.in_place() >= options.worth_keeping);
    if worth {
        // Until it is complete, which may fail, too.
        sink.leave();
    }
    let finished = copied.and_then(|(digest, counts)| {
        sink.identify(digest);
        let receipt = sink.finish()?;
        let Counts { read, copied, resumed } = counts;
        Ok(Converted { receipt, digest, size: disk.size(), read, copied, resumed })
    });
    match (journal, finished) {
        (Some(journal), Err(error)) if !worth => {
            // The error is what counts; a journal without its files is found stale by the next run.
            let _ = journal.done();
            Err(error)
        }
        (Some(journal), Ok(converted)) => {
            journal.done()?;
            Ok(converted)
        }
        (_, finished) => finished,
    }
}

/// The content digest of `disk` (see [`crate::digest`]).
pub fn digest(disk: &dyn Disk, options: &Options) -> Result<blake3::Hash> {
    Ok(copy(disk, None, &Nowhere, None, options)?.0)
}

/// Takes everything, keeps nothing.
struct Nowhere;

impl Sink for Nowhere {
    fn granularity(&self) -> Bytes {
        CHUNK
    }
    fn place(&self, range: GuestRange, _: &[Piece]) -> Result<Vec<Placed>> {
        Ok(vec![Placed { file: 0, at: crate::FileOffset(range.start().0), len: index(range.len().0) }])
    }
    fn zero(&self, _: GuestRange) -> Result<()> {
        Ok(())
    }
    fn stores_at_once(&self) -> usize {
        usize::MAX
    }
    fn store(&self, _: Placed, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn load(&self, _: Placed, _: &mut [u8]) -> Result<()> {
        Err(crate::Error::refused("keeps nothing"))
    }
    fn finish(self: Box<Self>) -> Result<Receipt> {
        Ok(Receipt { files: Vec::new(), allocated: Bytes(0) })
    }
}

/// True where all bytes are zeros.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Most data shows itself in its first bytes; the rest is looked at in lines that the compiler vectorises.
    let (lines, tail) = bytes.as_chunks::<128>();
    lines.iter().all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
        && tail.iter().all(|&byte| byte == 0)
}

/// A length inside one chunk, which fits memory.
fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
