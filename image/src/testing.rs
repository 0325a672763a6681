//! What tests of this and the other crates are made of: disks in memory, a sink that writes down what it is told,
//! and failures on demand. The suite for sinks that write files is in [`crate::suite`].
//!
//! Nothing here is part of the product. It panics where a test is wrong.

use crate::disk::{self, Disk, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::sink::{Encoded, Piece, Placed, Receipt, Sink};
use crate::units::{Bytes, FileOffset, GuestOffset, GuestRange};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Writes bytes over those of a file that is there, each at its offset.
pub fn poke(path: &std::path::Path, bytes: &[(u64, &[u8])]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    for (at, bytes) in bytes {
        file.write_all_at(bytes, *at).unwrap();
    }
}

/// A disk in memory with the extents that the test gives it. What is not set is `Unallocated`, so that it may be
/// of any size.
#[derive(Clone, Debug, Default)]
pub struct MemDisk {
    size: u64,
    /// Start -> content; `None` is a `Zero` extent of that length.
    runs: BTreeMap<u64, (u64, Option<Vec<u8>>)>,
}

impl MemDisk {
    /// An empty disk.
    pub fn new(size: Bytes) -> Self {
        MemDisk { size: size.0, runs: BTreeMap::new() }
    }

    /// A disk that is one `Data` extent.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        MemDisk::new(Bytes(bytes.len() as u64)).data(0, bytes)
    }

    /// Adds a `Data` extent.
    #[must_use]
    pub fn data(self, at: u64, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        self.run(at, bytes.len() as u64, Some(bytes))
    }

    /// Adds a `Zero` extent.
    #[must_use]
    pub fn zero(self, at: u64, len: u64) -> Self {
        self.run(at, len, None)
    }

    fn run(mut self, at: u64, len: u64, bytes: Option<Vec<u8>>) -> Self {
        assert!(at + len <= self.size, "an extent passes the end of the disk");
        assert!(
            self.runs.range(..at).next_back().is_none_or(|(start, (len, _))| start + len <= at),
            "overlap"
        );
        assert!(self.runs.range(at..at + len).next().is_none(), "overlap");
        if len > 0 {
            self.runs.insert(at, (len, bytes));
        }
        self
    }
}

impl Disk for MemDisk {
    fn size(&self) -> Bytes {
        Bytes(self.size)
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size());
        let (mut here, end) = (range.start().0, range.end().0);
        let mut out = Vec::new();
        while here < end && out.len() < at_most.max(1) {
            let before = self.runs.range(..=here).next_back().filter(|(start, (len, _))| *start + len > here);
            let (to, kind) = match before {
                Some((start, (len, Some(_)))) => (start + len, ExtentKind::Data),
                Some((start, (len, None))) => (start + len, ExtentKind::Zero),
                None => {
                    (self.runs.range(here..).next().map_or(end, |(&start, _)| start), ExtentKind::Unallocated)
                }
            };
            let to = to.min(end);
            out.push(Extent { range: GuestRange::between(GuestOffset(here), GuestOffset(to)), kind });
            here = to;
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, buf.len())?;
        buf.fill(0);
        let (from, to) = (at.0, at.0 + buf.len() as u64);
        let first = self.runs.range(..=from).next_back().map_or(from, |(&start, _)| start);
        for (&start, (len, bytes)) in self.runs.range(first..to) {
            let (cut_from, cut_to) = (start.max(from), (start + len).min(to));
            if let Some(bytes) = bytes
                && cut_from < cut_to
            {
                buf[index(cut_from - from)..index(cut_to - from)]
                    .copy_from_slice(&bytes[index(cut_from - start)..index(cut_to - start)]);
            }
        }
        Ok(())
    }
}

fn index(n: u64) -> usize {
    usize::try_from(n).expect("fits memory")
}

/// The whole content of a small disk.
pub fn read_all(disk: &dyn Disk) -> Result<Vec<u8>> {
    let mut all = vec![0; index(disk.size().0)];
    disk.read_at(GuestOffset(0), &mut all)?;
    Ok(all)
}

/// Fills `buf` with the bytes that stand at `at` in an endless stream of noise, another one for each `seed`. They do
/// not compress, none of their 8-byte words is zero, and no block occurs twice.
pub fn noise(seed: u64, at: GuestOffset, buf: &mut [u8]) {
    for (n, byte) in (at.0..).zip(buf) {
        let mut word =
            (seed ^ (n / 8)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb).wrapping_add(seed);
        word ^= word >> 32;
        *byte = word.to_le_bytes()[index(n % 8)] | u8::from(n % 8 == 7);
    }
}

/// `len` bytes of [`noise`].
pub fn noise_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    noise(seed, GuestOffset(0), &mut bytes);
    bytes
}

/// `len` bytes that compress well, like text.
pub fn text_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut text = String::new();
    let mut line = seed;
    while text.len() < len {
        let _ = writeln!(text, "line {line} of a log file that says the same thing again and again");
        line += 1;
    }
    text.truncate(len);
    text.into_bytes()
}

/// A disk with something of everything, `size` at least 6 MiB: noise, text, zeros that are stored, zero and
/// unallocated extents, single sectors, runs that start and end off every boundary, and data in its last byte.
pub fn mixed(seed: u64, size: Bytes) -> MemDisk {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    let mut disk = MemDisk::new(size)
        .data(0, noise_bytes(seed, 512))
        .data(64 * KIB, text_bytes(seed, 300 << 10))
        .data(512 * KIB, vec![0; 256 << 10])
        .zero(800 * KIB, 300 * KIB)
        .data(1100 * KIB + 512, noise_bytes(seed + 1, (1 << 20) + 1536))
        .data(3 * MIB - 1, vec![1, 0, 0, 2])
        .data(3 * MIB + 4 * KIB, {
            let mut holed = noise_bytes(seed + 2, 1 << 20);
            holed[64 << 10..200 << 10].fill(0);
            holed[512 << 10..516 << 10].fill(0);
            holed
        })
        .zero(5 * MIB, 64 * KIB);
    let mut at = 5 * MIB + 128 * KIB;
    while at + 512 < size.0.min(6 * MIB - KIB) {
        disk = disk.data(at, noise_bytes(seed ^ at, 512));
        at += 36 * KIB;
    }
    disk.data(size.0 - 1, vec![0x5a])
}

/// What a [`RecordingSink`] was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// `place`
    Data(GuestRange),
    /// `zero`
    Zero(GuestRange),
    /// `keep`
    Keep(GuestRange),
    /// `finish`
    Finish,
}

/// The memory of a [`RecordingSink`], to be looked at when the sink is gone.
#[derive(Clone, Debug, Default)]
pub struct Recording(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    ops: Vec<Op>,
    content: BTreeMap<u64, Vec<u8>>,
    placed: BTreeMap<u64, usize>,
}

impl Recording {
    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls in the order in which they came.
    pub fn ops(&self) -> Vec<Op> {
        self.lock().ops.clone()
    }

    /// The calls as text, a line each, sorted by offset: for golden files.
    pub fn log(&self) -> String {
        let ops = self.ops();
        let mut log = String::new();
        for op in ops {
            let _ = match op {
                Op::Data(range) => writeln!(log, "data {:#x} + {:#x}", range.start().0, range.len().0),
                Op::Keep(range) => writeln!(log, "keep {:#x} + {:#x}", range.start().0, range.len().0),
                Op::Zero(range) => writeln!(log, "zero {:#x} + {:#x}", range.start().0, range.len().0),
                Op::Finish => writeln!(log, "finish"),
            };
        }
        log
    }

    /// True once the sink was finished.
    pub fn is_finished(&self) -> bool {
        self.lock().ops.last() == Some(&Op::Finish)
    }

    /// What was written, as a disk of `size`.
    pub fn disk(&self, size: Bytes) -> MemDisk {
        self.lock().content.iter().fold(MemDisk::new(size), |disk, (&at, bytes)| disk.data(at, bytes.clone()))
    }

    /// Panics unless every byte of a disk of `size` was covered exactly once, what was placed was stored, and the
    /// sink was finished.
    pub fn assert_complete(&self, size: Bytes) {
        assert!(self.is_finished(), "the sink was not finished");
        let recorded = self.lock();
        let mut here = GuestOffset(0);
        for op in &recorded.ops {
            let (Op::Data(range) | Op::Zero(range) | Op::Keep(range)) = op else { break };
            assert_eq!(range.start(), here, "a gap, or something told twice");
            here = range.end();
        }
        assert_eq!(here.0, size.0, "the end is missing");
        let stored: BTreeMap<u64, usize> =
            recorded.content.iter().map(|(&at, bytes)| (at, bytes.len())).collect();
        assert_eq!(stored, recorded.placed, "what is stored is what was placed");
    }
}

/// A sink that keeps what it is told, and panics where the converter breaks its word about order, alignment or
/// one call at a time.
pub struct RecordingSink {
    granularity: Bytes,
    size: Bytes,
    recording: Recording,
    busy: AtomicBool,
}

impl RecordingSink {
    /// A sink for a disk of `size`, and its memory.
    pub fn new(granularity: Bytes, size: Bytes) -> (Self, Recording) {
        let recording = Recording::default();
        let sink =
            RecordingSink { granularity, size, recording: recording.clone(), busy: AtomicBool::new(false) };
        (sink, recording)
    }

    fn record(&self, range: GuestRange, op: Op) {
        assert!(!self.busy.swap(true, Ordering::SeqCst), "two calls at once");
        assert!(!range.is_empty(), "an empty run");
        assert!(range.start().0.is_multiple_of(self.granularity.0), "{range:?} starts off the granularity");
        assert!(
            range.end().0.is_multiple_of(self.granularity.0) || range.end().0 == self.size.0,
            "{range:?} ends off the granularity"
        );
        let mut recorded = self.recording.lock();
        let end = recorded.ops.last().map_or(0, |op| match op {
            Op::Data(range) | Op::Zero(range) | Op::Keep(range) => range.end().0,
            Op::Finish => u64::MAX,
        });
        assert_eq!(range.start().0, end, "out of order");
        recorded.ops.push(op);
        drop(recorded);
        self.busy.store(false, Ordering::SeqCst);
    }
}

impl Sink for RecordingSink {
    fn granularity(&self) -> Bytes {
        self.granularity
    }
    fn place(&self, range: GuestRange, pieces: &[Piece]) -> Result<Vec<Placed>> {
        assert!(pieces.is_empty(), "nothing was encoded");
        self.record(range, Op::Data(range));
        let placed = Placed { file: 0, at: FileOffset(range.start().0), len: index(range.len().0) };
        self.recording.lock().placed.insert(placed.at.0, placed.len);
        Ok(vec![placed])
    }
    fn zero(&self, range: GuestRange) -> Result<()> {
        self.record(range, Op::Zero(range));
        Ok(())
    }
    fn keep(&self, range: GuestRange) -> Result<()> {
        self.record(range, Op::Keep(range));
        Ok(())
    }
    fn store(&self, to: Placed, bytes: &[u8]) -> Result<()> {
        assert_eq!(to.len, bytes.len());
        let twice = self.recording.lock().content.insert(to.at.0, bytes.to_vec());
        assert!(twice.is_none(), "stored twice");
        Ok(())
    }
    fn load(&self, from: Placed, bytes: &mut [u8]) -> Result<()> {
        let recorded = self.recording.lock();
        match recorded.content.get(&from.at.0) {
            Some(content) if content.len() == bytes.len() => bytes.copy_from_slice(content),
            _ => return Err(Error::io("nothing there", std::io::ErrorKind::UnexpectedEof.into())),
        }
        Ok(())
    }
    fn finish(self: Box<Self>) -> Result<Receipt> {
        self.recording.lock().ops.push(Op::Finish);
        Ok(Receipt { files: Vec::new(), allocated: Bytes(0) })
    }
}

/// Lets the n-th operation fail, counted over all that share it. Clones share the count.
#[derive(Clone, Debug)]
pub struct Faults {
    fail_at: u64,
    count: Arc<AtomicU64>,
}

impl Faults {
    /// Operation number `n` fails, and no other; the first is 0.
    pub fn at(n: u64) -> Self {
        Faults { fail_at: n, count: Arc::new(AtomicU64::new(0)) }
    }

    /// Nothing fails; for counting.
    pub fn never() -> Self {
        Faults::at(u64::MAX)
    }

    /// Operations so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// True once the failure was delivered.
    pub fn happened(&self) -> bool {
        self.count() > self.fail_at
    }

    fn next(&self, what: &str) -> Result<()> {
        if self.count.fetch_add(1, Ordering::SeqCst) == self.fail_at {
            return Err(Error::io(format!("injected: {what}"), std::io::ErrorKind::Other.into()));
        }
        Ok(())
    }
}

/// A disk that fails on demand: each `extents` and `read_at` is an operation.
pub struct FaultyDisk<D> {
    /// The disk that answers otherwise.
    pub disk: D,
    /// When to fail.
    pub faults: Faults,
}

impl<D: Disk> Disk for FaultyDisk<D> {
    fn size(&self) -> Bytes {
        self.disk.size()
    }
    fn sector_size(&self) -> Bytes {
        self.disk.sector_size()
    }
    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        self.faults.next("extents")?;
        self.disk.extents(range, at_most)
    }
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        self.faults.next("read")?;
        self.disk.read_at(at, buf)
    }
}

/// A sink that fails on demand: each `encode`, `place`, `zero`, `keep`, `store` and `finish` is an operation.
pub struct FaultySink {
    /// The sink that takes it otherwise.
    pub sink: Box<dyn Sink>,
    /// When to fail.
    pub faults: Faults,
}

impl Sink for FaultySink {
    fn further_files(&self) -> Vec<std::path::PathBuf> {
        self.sink.further_files()
    }
    fn granularity(&self) -> Bytes {
        self.sink.granularity()
    }
    fn encode(&self, range: GuestRange, content: &[u8]) -> Result<Option<Encoded>> {
        self.faults.next("encode")?;
        self.sink.encode(range, content)
    }
    fn place(&self, range: GuestRange, pieces: &[Piece]) -> Result<Vec<Placed>> {
        self.faults.next("place")?;
        self.sink.place(range, pieces)
    }
    fn zero(&self, range: GuestRange) -> Result<()> {
        self.faults.next("zero")?;
        self.sink.zero(range)
    }
    fn keep(&self, range: GuestRange) -> Result<()> {
        self.faults.next("keep")?;
        self.sink.keep(range)
    }
    fn store(&self, to: Placed, bytes: &[u8]) -> Result<()> {
        self.faults.next("store")?;
        self.sink.store(to, bytes)
    }
    fn load(&self, from: Placed, bytes: &mut [u8]) -> Result<()> {
        self.sink.load(from, bytes)
    }
    fn identify(&self, content: blake3::Hash) {
        self.sink.identify(content);
    }
    fn finish(self: Box<Self>) -> Result<Receipt> {
        self.faults.next("finish")?;
        self.sink.finish()
    }
    fn leave(&self) {
        self.sink.leave();
    }
}
