//! From a disk to a sink, in parallel: every byte read once, zeros left out, everything digested on the way.
//!
//! ```text
//! extents -> plan (lazily, in order) -> workers: read, find zeros, hash, encode -> in order: write, zero, digest
//! ```
//!
//! Memory is bounded by [`limits::CONVERT_BUFFERS`], whatever the number of workers. A sink of
//! [`Order::Any`] is written to by the workers themselves, one of [`Order::Ascending`] in order. Either way every
//! byte of the disk reaches the sink exactly once, by `write` or `zero`.
//!
//! Absent on purpose: retries (a failing disk is the business of the layer that reads it), and verification of
//! what was written (open the result and [`digest`] it).

mod compare;
mod pipeline;
mod plan;

pub use compare::{Comparison, compare};

use crate::digest::{BLOCK, ContentHasher};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::limits;
use crate::sink::{Chunk, Order, Receipt, Sink};
use crate::units::{Bytes, GuestOffset, GuestRange};
use pipeline::{Stop, Width};
use plan::{Item, Plan};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a worker takes at a time, where the sink's granularity asks for no more. A multiple of [`BLOCK`].
const CHUNK: Bytes = Bytes::mib(2);

/// Zeros that a sink is told of at a time.
const ZERO_PIECE: u64 = 1 << 30;

/// How to convert, digest or compare. Clones share the cancellation and the progress.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads; by default as many as the machine runs at once. 0 counts as 1.
    pub jobs: usize,
    /// Bytes of data read per second, at most.
    pub rate_limit: Option<Bytes>,
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
        }
    }

    fn begin(&self, size: Bytes) {
        let counters = &self.0;
        for (counter, value) in [
            (&counters.scanned, 0),
            (&counters.read, 0),
            (&counters.copied, 0),
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
    /// Bytes given to the sink as data.
    pub copied: Bytes,
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
    let (digest, counts) = copy(disk, &*sink, options)?;
    let receipt = sink.finish()?;
    Ok(Converted { receipt, digest, size: disk.size(), read: counts.read, copied: counts.copied })
}

/// The content digest of `disk` (see [`crate::digest`]).
pub fn digest(disk: &dyn Disk, options: &Options) -> Result<blake3::Hash> {
    Ok(copy(disk, &Nowhere, options)?.0)
}

/// Takes everything, keeps nothing.
struct Nowhere;

impl Sink for Nowhere {
    fn order(&self) -> Order {
        Order::Any
    }
    fn granularity(&self) -> Bytes {
        CHUNK
    }
    fn write(&self, _: &Chunk) -> Result<()> {
        Ok(())
    }
    fn zero(&self, _: GuestRange) -> Result<()> {
        Ok(())
    }
    fn finish(self: Box<Self>) -> Result<Receipt> {
        Ok(Receipt { files: Vec::new(), allocated: Bytes(0) })
    }
}

/// Bytes of this run alone; a [`Progress`] may be shared by several.
#[derive(Default)]
struct Counts {
    read: Bytes,
    copied: Bytes,
}

/// What a worker hands on.
struct Worked {
    /// What the sink still has to be told, in order.
    steps: Vec<Step>,
    /// The blocks that are not all zeros.
    hashes: Vec<(GuestOffset, blake3::Hash)>,
    read: Bytes,
    copied: Bytes,
}

enum Step {
    Write(Chunk),
    Zero(GuestRange),
}

fn copy(disk: &dyn Disk, sink: &dyn Sink, options: &Options) -> Result<(blake3::Hash, Counts)> {
    let size = disk.size();
    let granule = sink.granularity().0;
    if !granule.is_power_of_two() || granule > limits::CONVERT_BUFFERS.0 / 2 {
        return Err(Error::unsupported(format!(
            "a target that allocates in units of {granule} bytes; a power of two up to {} is possible",
            limits::CONVERT_BUFFERS.0 / 2
        )));
    }
    let chunk = Bytes(granule.max(CHUNK.0));
    let width = width(options.jobs, chunk, 1);
    let buffers = Buffers::new(width.in_flight);
    let limiter = Limiter::new(options.rate_limit);
    options.progress.begin(size);
    let work = |item, stop: &Stop<'_>| {
        Worker { disk, sink, granule, buffers: &buffers, limiter: &limiter, progress: &options.progress }
            .work(item, stop)
    };
    let mut hasher = ContentHasher::new(size);
    let mut counts = Counts::default();
    let mut zeros = Zeros { sink, cancel: &options.cancel, pending: None };
    let take = |worked: Worked| {
        for (at, hash) in &worked.hashes {
            hasher.block(*at, hash);
        }
        counts.read.0 += worked.read.0;
        counts.copied.0 += worked.copied.0;
        for step in worked.steps {
            match step {
                Step::Zero(range) => zeros.add(range)?,
                Step::Write(chunk) => {
                    zeros.flush()?;
                    sink.write(&chunk)?;
                    buffers.put(chunk.bytes);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    };
    let plan = Plan::new(disk, chunk, &options.cancel, &options.progress);
    pipeline::run(plan, width, &options.cancel, work, take)?;
    zeros.flush()?;
    Ok((hasher.finish(), counts))
}

/// Joins runs of zeros, however they were found, before the sink is told of them.
struct Zeros<'a> {
    sink: &'a dyn Sink,
    cancel: &'a Cancel,
    pending: Option<GuestRange>,
}

impl Zeros<'_> {
    fn add(&mut self, range: GuestRange) -> Result<()> {
        match &mut self.pending {
            Some(pending) if pending.end() == range.start() => {
                *pending = GuestRange::between(pending.start(), range.end());
            }
            _ => {
                self.flush()?;
                self.pending = Some(range);
            }
        }
        Ok(())
    }

    /// Tells the sink, in pieces: a device that has to write its zeros takes its time, and a request to stop must
    /// not wait for a terabyte of them.
    fn flush(&mut self) -> Result<()> {
        let Some(range) = self.pending.take() else { return Ok(()) };
        let mut start = range.start().0;
        while start < range.end().0 {
            if self.cancel.is_cancelled() {
                return Err(Error::interrupted());
            }
            let end = (start / ZERO_PIECE + 1).saturating_mul(ZERO_PIECE).min(range.end().0);
            self.sink.zero(GuestRange::between(GuestOffset(start), GuestOffset(end)))?;
            start = end;
        }
        Ok(())
    }
}

/// As many chunks in flight as keep `jobs` workers busy and the memory bounded, with `buffers` for each chunk.
fn width(jobs: usize, chunk: Bytes, buffers: u64) -> Width {
    let room = limits::CONVERT_BUFFERS.0 / chunk.0.saturating_mul(buffers).max(1);
    let room = usize::try_from(room).unwrap_or(usize::MAX).max(1);
    let jobs = jobs.clamp(1, room);
    Width { jobs, in_flight: jobs.saturating_mul(4).min(room) }
}

/// What the workers share.
struct Worker<'a> {
    disk: &'a dyn Disk,
    sink: &'a dyn Sink,
    granule: u64,
    buffers: &'a Buffers,
    limiter: &'a Limiter,
    progress: &'a Progress,
}

impl Worker<'_> {
    fn work(&self, item: Item, stop: &Stop<'_>) -> Result<Worked> {
        let (range, parts) = match item {
            Item::Zero(range) => {
                let steps = vec![Step::Zero(range)];
                return Ok(Worked { steps, hashes: Vec::new(), read: Bytes(0), copied: Bytes(0) });
            }
            Item::Data { range, parts } => (range, parts),
        };
        let bytes = read_parts(self.disk, range, &parts, self.buffers, self.limiter, stop)?;
        let read = Bytes(parts.iter().map(|part| part.len().0).sum());
        self.progress.read(read);

        // Zeros are looked for once, in the smaller of the two units that are asked about.
        let unit = index(self.granule.min(BLOCK.0));
        let is_data: Vec<bool> = bytes.chunks(unit).map(|unit| !is_zero(unit)).collect();
        let mut hashes = Vec::new();
        let mut at = range.start().0;
        for (block, units) in bytes.chunks(index(BLOCK.0)).zip(is_data.chunks(index(BLOCK.0) / unit)) {
            if units.contains(&true) {
                hashes.push((GuestOffset(at), blake3::hash(block)));
            }
            at += block.len() as u64;
        }

        let mut steps = Vec::new();
        let mut copied = Bytes(0);
        let mut bytes = Some(bytes);
        for (run, holds_data) in runs(&is_data, index(self.granule) / unit, range, self.granule) {
            if !holds_data {
                steps.push(Step::Zero(run));
                continue;
            }
            let run_bytes = if run == range {
                bytes.take().unwrap_or_default()
            } else {
                let from = index(run.start().0 - range.start().0);
                let all = bytes.as_deref().unwrap_or_default();
                let run = all.get(from..from + index(run.len().0)).unwrap_or_default();
                match self.sink.order() {
                    // One at a time, and back in the pool soon.
                    Order::Any => self.buffers.copy(run),
                    // Many may wait for their turn, so they take the memory that they need.
                    Order::Ascending => run.to_vec(),
                }
            };
            copied.0 += run.len().0;
            let chunk = self.sink.encode(Chunk { range: run, bytes: run_bytes, pieces: Vec::new() })?;
            match self.sink.order() {
                Order::Ascending => steps.push(Step::Write(chunk)),
                Order::Any => {
                    stop.check()?;
                    self.sink.write(&chunk)?;
                    self.buffers.put(chunk.bytes);
                }
            }
        }
        if let Some(bytes) = bytes {
            self.buffers.put(bytes);
        }
        self.progress.copied(copied);
        Ok(Worked { steps, hashes, read, copied })
    }
}

/// The content of `range`, of which only `parts` are read.
fn read_parts(
    disk: &dyn Disk,
    range: GuestRange,
    parts: &[GuestRange],
    buffers: &Buffers,
    limiter: &Limiter,
    stop: &Stop<'_>,
) -> Result<Vec<u8>> {
    let mut bytes = buffers.get(index(range.len().0));
    let mut here = range.start();
    let mut rest = &mut bytes[..];
    for part in parts {
        limiter.wait(part.len(), stop)?;
        let (gap, behind) = rest.split_at_mut(index(part.start().0 - here.0));
        gap.fill(0);
        let (now, behind) = behind.split_at_mut(index(part.len().0));
        disk.read_at(part.start(), now)?;
        here = part.end();
        rest = behind;
    }
    rest.fill(0);
    Ok(bytes)
}

/// Runs of granules of `range` that hold data or do not. `is_data` has an entry for each unit, `units` of which make
/// a granule.
fn runs(is_data: &[bool], units: usize, range: GuestRange, granule: u64) -> Vec<(GuestRange, bool)> {
    let mut runs: Vec<(GuestRange, bool)> = Vec::new();
    let mut start = range.start();
    for granule_units in is_data.chunks(units.max(1)) {
        let end = GuestOffset(start.0.saturating_add(granule).min(range.end().0));
        let holds_data = granule_units.contains(&true);
        match runs.last_mut() {
            Some((run, data)) if *data == holds_data => *run = GuestRange::between(run.start(), end),
            _ => runs.push((GuestRange::between(start, end), holds_data)),
        }
        start = end;
    }
    runs
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

/// Buffers that were used and will be again.
struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
    keep: usize,
}

impl Buffers {
    fn new(keep: usize) -> Self {
        Buffers { free: Mutex::new(Vec::new()), keep }
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of `len` bytes with any content.
    fn get(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.free().pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    fn copy(&self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.free().pop().unwrap_or_else(|| Vec::with_capacity(index(CHUNK.0)));
        buffer.clear();
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Takes back a buffer that is worth keeping.
    fn put(&self, buffer: Vec<u8>) {
        let mut free = self.free();
        if buffer.capacity() as u64 >= CHUNK.0 && free.len() < self.keep {
            free.push(buffer);
        }
    }
}

/// Spaces reads so that no more than a given number of bytes are read per second.
struct Limiter {
    bytes_per_second: Option<u64>,
    next: Mutex<Instant>,
}

impl Limiter {
    fn new(limit: Option<Bytes>) -> Self {
        Limiter { bytes_per_second: limit.map(|limit| limit.0.max(1)), next: Mutex::new(Instant::now()) }
    }

    /// Returns when `bytes` may be read.
    fn wait(&self, bytes: Bytes, stop: &Stop<'_>) -> Result<()> {
        let Some(rate) = self.bytes_per_second else { return Ok(()) };
        let nanoseconds = u128::from(bytes.0) * 1_000_000_000 / u128::from(rate);
        let takes = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let begin = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = (*next).max(Instant::now());
            *next = begin.checked_add(takes).unwrap_or(begin);
            begin
        };
        loop {
            stop.check()?;
            let left = begin.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

#[cfg(test)]
mod tests;
