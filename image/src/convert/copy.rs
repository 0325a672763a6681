//! The copy itself: what the workers do with a chunk, and what the sink is told of it.

use super::buffers::{Buffers, RateLimit, read_parts, width};
use super::journal::{Journal, Record, Told};
use super::pipeline::{self, Stop, Taken};
use super::plan::{Item, Plan};
use super::{CHUNK, Cancel, GRANULE, Options, index, is_zero};
use crate::digest::{BLOCK, ContentHasher};
use crate::disk::{self, Disk, ExtentKind};
use crate::error::{Error, Result};
use crate::sink::{Encoded, Placed, Sink};
use crate::units::{Bytes, GuestOffset, GuestRange};

/// Zeros that a sink is told of at a time.
const ZERO_PIECE: u64 = 1 << 30;

/// Bytes of this run alone; a [`Progress`](super::Progress) may be shared by several.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub read: Bytes,
    pub copied: Bytes,
    pub resumed: Bytes,
}

/// What a worker hands on.
struct Worked {
    range: GuestRange,
    /// The content of `range`, where a step needs it.
    content: Option<Vec<u8>>,
    /// What the sink has to be told, in order, covering `range`.
    steps: Vec<Step>,
    /// The blocks that are not all zeros.
    hashes: Vec<(GuestOffset, blake3::Hash)>,
    /// The bytes that go into the file, where they are not those of `hashes`.
    stored: Option<blake3::Hash>,
    read: Bytes,
    copied: Bytes,
}

enum Step {
    Write(GuestRange, Option<Encoded>),
    Zero(GuestRange),
    Keep(GuestRange),
}

/// Runs that have their places.
struct ToStore {
    start: GuestOffset,
    content: Option<Vec<u8>>,
    runs: Vec<(GuestRange, Option<Encoded>, Vec<Placed>)>,
}

/// Copies `disk` into `sink`, which is not finished; over `base`, where the sink was started over one.
pub(super) fn copy(
    disk: &dyn Disk,
    base: Option<&dyn Disk>,
    sink: &dyn Sink,
    journal: Option<&mut Journal>,
    options: &Options,
) -> Result<(blake3::Hash, Counts)> {
    let size = disk.size();
    let granule = sink.granularity().0;
    if !granule.is_power_of_two() || granule > GRANULE.0 {
        return Err(Error::unsupported(format!(
            "a target that is cut in units of {granule} bytes; a power of two up to {} is possible",
            GRANULE.0
        )));
    }
    let chunk = Bytes(granule.max(CHUNK.0));
    let buffers_each = if base.is_some() { 2 } else { 1 };
    let width = pipeline::Width { ending: sink.stores_at_once(), ..width(options.jobs, chunk, buffers_each) };
    let buffers = Buffers::new(width.in_flight);
    let journalled = journal.is_some();
    options.progress.begin(size);
    let mut copying = Copying {
        hasher: ContentHasher::new(size),
        counts: Counts::default(),
        teller: Teller { sink, cancel: &options.cancel, pending: None },
        journal,
    };
    let start = copying.resume(sink, width, options)?;
    let worker = Worker {
        disk,
        base,
        sink,
        granule,
        journalled,
        buffers: &buffers,
        limit: options.rate_limit.as_ref(),
        progress: &options.progress,
    };
    let plan =
        Plan::new(disk, chunk, &options.cancel, &options.progress).from(start).cut_zeros(base.is_some());
    pipeline::run(
        plan,
        width,
        &options.cancel,
        |item, stop| worker.work(item, stop),
        |worked| copying.take(worked, &buffers),
        |to_store| worker.store(to_store),
    )?;
    copying.teller.flush()?;
    Ok((copying.hasher.finish(), copying.counts))
}

/// What happens in order.
struct Copying<'a> {
    hasher: ContentHasher,
    counts: Counts,
    teller: Teller<'a>,
    journal: Option<&'a mut Journal>,
}

impl Copying<'_> {
    fn take(&mut self, worked: Worked, buffers: &Buffers) -> Result<Taken<ToStore>> {
        for (at, hash) in &worked.hashes {
            self.hasher.block(*at, hash);
        }
        self.counts.read.0 += worked.read.0;
        self.counts.copied.0 += worked.copied.0;
        let mut record = Record {
            range: worked.range,
            told: Vec::new(),
            hashes: worked.hashes,
            stored: worked.stored,
            copied: worked.copied,
        };
        let mut runs = Vec::new();
        for step in worked.steps {
            match step {
                Step::Zero(range) => {
                    self.teller.zero(range)?;
                    record.told.push(Told::Zero(range));
                }
                Step::Keep(range) => {
                    self.teller.keep(range)?;
                    record.told.push(Told::Keep(range));
                }
                Step::Write(range, encoded) => {
                    let pieces = encoded.as_ref().map_or(&[][..], |encoded| &encoded.pieces);
                    let placed = self.teller.place(range, pieces)?;
                    if self.journal.is_some() {
                        record.told.push(Told::Data {
                            range,
                            pieces: pieces.to_vec(),
                            placed: placed.clone(),
                        });
                    }
                    runs.push((range, encoded, placed));
                }
            }
        }
        if let Some(journal) = &mut self.journal {
            journal.append(&record)?;
        }
        if runs.is_empty() {
            if let Some(content) = worked.content {
                buffers.put(content);
            }
            return Ok(Taken::Done);
        }
        Ok(Taken::ToEnd(ToStore { start: worked.range.start(), content: worked.content, runs }))
    }

    /// Tells the sink again what an interrupted run told it, as far as what was stored then is there. Returns the
    /// offset to go on from.
    fn resume(&mut self, sink: &dyn Sink, width: pipeline::Width, options: &Options) -> Result<GuestOffset> {
        let mut at = GuestOffset(0);
        let Some(journal) = self.journal.take() else { return Ok(at) };
        let mut good = 0;
        let check = |record: Record, stop: &Stop<'_>| {
            stop.check()?;
            Ok(record.is_there(sink).then_some(record))
        };
        let take = |record: Option<Record>| {
            let Some(record) = record else { return Ok(Taken::Enough) };
            if record.range.start() != at {
                return Ok(Taken::Enough);
            }
            for told in &record.told {
                match told {
                    Told::Zero(range) => self.teller.zero(*range)?,
                    Told::Keep(range) => self.teller.keep(*range)?,
                    Told::Data { range, pieces, placed } => {
                        if self.teller.place(*range, pieces)? != *placed {
                            return Err(Error::refused(
                                "what is left of the interrupted run was made in another way",
                            )
                            .hint("convert it anew, without --resume"));
                        }
                    }
                }
            }
            for (at, hash) in &record.hashes {
                self.hasher.block(*at, hash);
            }
            at = record.range.end();
            good += 1;
            self.counts.copied.0 += record.copied.0;
            self.counts.resumed.0 += record.copied.0;
            options.progress.resumed(record.range.len(), record.copied);
            Ok(Taken::Done)
        };
        let run =
            pipeline::run(journal.previous()?.map(Ok), width, &options.cancel, check, take, |()| Ok(()));
        run?;
        journal.go_on_after(good, self.counts.copied)?;
        self.journal = Some(journal);
        Ok(at)
    }
}

/// Joins runs of one kind, however they were found, before the sink is told of them.
struct Teller<'a> {
    sink: &'a dyn Sink,
    cancel: &'a Cancel,
    pending: Option<(ExtentKind, GuestRange)>,
}

impl Teller<'_> {
    fn zero(&mut self, range: GuestRange) -> Result<()> {
        self.add(ExtentKind::Zero, range)
    }

    fn keep(&mut self, range: GuestRange) -> Result<()> {
        self.add(ExtentKind::Unallocated, range)
    }

    fn place(&mut self, range: GuestRange, pieces: &[crate::sink::Piece]) -> Result<Vec<Placed>> {
        self.flush()?;
        self.sink.place(range, pieces)
    }

    fn add(&mut self, kind: ExtentKind, range: GuestRange) -> Result<()> {
        match &mut self.pending {
            Some((pending_kind, pending)) if *pending_kind == kind && pending.end() == range.start() => {
                *pending = GuestRange::between(pending.start(), range.end());
            }
            _ => {
                self.flush()?;
                self.pending = Some((kind, range));
            }
        }
        Ok(())
    }

    /// Tells the sink, in pieces: a device that has to write its zeros takes its time, and a request to stop must
    /// not wait for a terabyte of them.
    fn flush(&mut self) -> Result<()> {
        let Some((kind, range)) = self.pending.take() else { return Ok(()) };
        let mut start = range.start().0;
        while start < range.end().0 {
            if self.cancel.is_cancelled() {
                return Err(Error::interrupted());
            }
            let end = (start / ZERO_PIECE + 1).saturating_mul(ZERO_PIECE).min(range.end().0);
            let piece = GuestRange::between(GuestOffset(start), GuestOffset(end));
            match kind {
                ExtentKind::Unallocated => self.sink.keep(piece)?,
                _ => self.sink.zero(piece)?,
            }
            start = end;
        }
        Ok(())
    }
}

/// What the workers share.
struct Worker<'a> {
    disk: &'a dyn Disk,
    base: Option<&'a dyn Disk>,
    sink: &'a dyn Sink,
    granule: u64,
    /// The bytes that are stored must be known by a hash.
    journalled: bool,
    buffers: &'a Buffers,
    limit: Option<&'a RateLimit>,
    progress: &'a super::Progress,
}

/// What a granule is for the sink.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Data,
    Zero,
    InBase,
}

impl Worker<'_> {
    fn work(&self, item: Item, stop: &Stop<'_>) -> Result<Worked> {
        let (range, parts) = match item {
            Item::Zero(range) => {
                let steps = match self.base {
                    Some(base) => zeros_over(base, range, self.granule)?,
                    None => vec![Step::Zero(range)],
                };
                return Ok(Worked {
                    range,
                    content: None,
                    steps,
                    hashes: Vec::new(),
                    stored: None,
                    read: Bytes(0),
                    copied: Bytes(0),
                });
            }
            Item::Data { range, parts } => (range, parts),
        };
        let content = read_parts(self.disk, range, &parts, self.buffers, self.limit, stop)?;
        let read = Bytes(parts.iter().map(|part| part.len().0).sum());
        self.progress.read(read);

        // Zeros are looked for once, in the smaller of the two units that are asked about.
        let unit = index(self.granule.min(BLOCK.0));
        let is_data: Vec<bool> = content.chunks(unit).map(|unit| !is_zero(unit)).collect();
        let mut hashes = Vec::new();
        let mut at = range.start().0;
        for (block, units) in content.chunks(index(BLOCK.0)).zip(is_data.chunks(index(BLOCK.0) / unit)) {
            if units.contains(&true) {
                hashes.push((GuestOffset(at), blake3::hash(block)));
            }
            at += block.len() as u64;
        }
        let mut granules: Vec<Is> = is_data
            .chunks((index(self.granule) / unit).max(1))
            .map(|units| if units.contains(&true) { Is::Data } else { Is::Zero })
            .collect();
        if let Some(base) = self.base {
            self.compare_with_base(base, range, &content, &mut granules)?;
        }

        let mut steps = Vec::new();
        let mut copied = Bytes(0);
        let mut needed = false;
        let mut stored = self.base.map(|_| blake3::Hasher::new());
        for (run, is) in runs(&granules, range, self.granule) {
            match is {
                Is::Zero => steps.push(Step::Zero(run)),
                Is::InBase => steps.push(Step::Keep(run)),
                Is::Data => {
                    copied.0 += run.len().0;
                    let bytes = slice(&content, range.start(), run);
                    let encoded = self.sink.encode(run, bytes)?;
                    needed |= encoded.is_none();
                    if self.journalled && (stored.is_some() || encoded.is_some()) {
                        let hasher = stored.get_or_insert_with(|| {
                            // What was verbatim before this one.
                            let mut hasher = blake3::Hasher::new();
                            for step in &steps {
                                if let Step::Write(run, _) = step {
                                    hasher.update(slice(&content, range.start(), *run));
                                }
                            }
                            hasher
                        });
                        hasher.update(encoded.as_ref().map_or(bytes, |encoded| &encoded.bytes));
                    }
                    steps.push(Step::Write(run, encoded));
                }
            }
        }
        self.progress.copied(copied);
        let stored = stored.filter(|_| self.journalled).map(|hasher| hasher.finalize());
        let content = if needed {
            Some(content)
        } else {
            self.buffers.put(content);
            None
        };
        Ok(Worked { range, content, steps, hashes, stored, read, copied })
    }

    /// Marks what the base holds in the same place. Behind its end a base reads as zeros.
    fn compare_with_base(
        &self,
        base: &dyn Disk,
        range: GuestRange,
        content: &[u8],
        granules: &mut [Is],
    ) -> Result<()> {
        let mut below = self.buffers.get(content.len());
        let inside = disk::clip(range, base.size());
        let len = index(inside.len().0);
        if len > 0 {
            base.read_at(inside.start(), &mut below[..len])?;
        }
        below[len..].fill(0);
        let granule = index(self.granule);
        for ((is, own), below) in granules.iter_mut().zip(content.chunks(granule)).zip(below.chunks(granule))
        {
            if own == below {
                *is = Is::InBase;
            }
        }
        self.buffers.put(below);
        Ok(())
    }

    fn store(&self, to_store: ToStore) -> Result<()> {
        let content = to_store.content.as_deref().unwrap_or_default();
        for (run, encoded, placed) in &to_store.runs {
            let mut bytes = match encoded {
                Some(encoded) => &encoded.bytes,
                None => slice(content, to_store.start, *run),
            };
            for &to in placed {
                let Some((now, later)) = bytes.split_at_checked(to.len) else {
                    return Err(Error::refused("a place is longer than what it is for"));
                };
                self.sink.store(to, now)?;
                bytes = later;
            }
            if !bytes.is_empty() {
                return Err(Error::refused(format!("{} bytes were given no place", bytes.len())));
            }
        }
        if let Some(content) = to_store.content {
            self.buffers.put(content);
        }
        Ok(())
    }
}

/// The bytes of `run` in the content that begins at `start`.
fn slice(content: &[u8], start: GuestOffset, run: GuestRange) -> &[u8] {
    let from = index(run.start().0 - start.0);
    content.get(from..from + index(run.len().0)).unwrap_or_default()
}

/// A run of zeros over a base: kept where the base has no data.
fn zeros_over(base: &dyn Disk, range: GuestRange, granule: u64) -> Result<Vec<Step>> {
    const AT_A_TIME: usize = 256;
    let mut steps = Vec::new();
    let mut told = range.start();
    let mut here = range.start();
    let inside = disk::clip(range, base.size());
    while here < inside.end() {
        let extents = base.extents(GuestRange::between(here, inside.end()), AT_A_TIME)?;
        let Some(last) = extents.last() else {
            return Err(Error::corrupt(format!(
                "the map of the base does not say what lies at {:#x}",
                here.0
            )));
        };
        here = last.range.end();
        for extent in extents.iter().filter(|extent| extent.kind == ExtentKind::Data) {
            let start = GuestOffset(extent.range.start().0 / granule * granule).max(told);
            let end = extent.range.end().0.checked_next_multiple_of(granule).unwrap_or(u64::MAX);
            let end = GuestOffset(end.min(range.end().0));
            if start > told {
                steps.push(Step::Keep(GuestRange::between(told, start)));
            }
            if end > start {
                steps.push(Step::Zero(GuestRange::between(start, end)));
                told = end;
            }
        }
    }
    if told < range.end() {
        steps.push(Step::Keep(GuestRange::between(told, range.end())));
    }
    Ok(steps)
}

/// Runs of granules of one kind in `range`.
fn runs(granules: &[Is], range: GuestRange, granule: u64) -> Vec<(GuestRange, Is)> {
    let mut runs: Vec<(GuestRange, Is)> = Vec::new();
    let mut start = range.start();
    for &is in granules {
        let end = GuestOffset(start.0.saturating_add(granule).min(range.end().0));
        match runs.last_mut() {
            Some((run, kind)) if *kind == is => *run = GuestRange::between(run.start(), end),
            _ => runs.push((GuestRange::between(start, end), is)),
        }
        start = end;
    }
    runs
}
