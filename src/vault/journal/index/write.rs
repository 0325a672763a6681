//! Indexes are written from front to back, with the runs as they come: of those nothing is held but the fences, 12 bytes for each 102.

use super::super::map::{Run, Source};
use super::super::record::Kind;
use super::{ENTRY, Entry, IN_PAGE, MAGIC, Of, PAGE, PER_PAGE, Raw, SUMS_PER_ENTRY, Sizes, VERSION};
use crate::vault::storage::{Storage, StoredFile};
use landfall_image::Result;

/// Bytes that are gathered before they are written: 256 pages.
const AT_ONCE: usize = 256 * PAGE;

/// What an index holds besides the map.
pub struct Contents<'c> {
    /// What it is of.
    pub of: Of,
    /// All records; of one segment.
    pub log: &'c [Entry],
    /// The records that are not about content. `at` of a checkpoint is its place in the texts.
    pub notes: &'c [Entry],
    /// Payloads of checkpoints.
    pub texts: &'c [u8],
    /// The CRC-32C of each [`BLOCK`](super::BLOCK) of the segment's file; the last may be shorter.
    pub sums: &'c [u32],
}

/// A sequence of pages.
struct Pages<'f> {
    file: &'f dyn StoredFile,
    /// Whole pages, and one that is not full.
    pending: Vec<u8>,
    /// Where they go.
    at: u64,
    in_page: u64,
}

impl Pages<'_> {
    fn push(&mut self, raw: Raw) -> Result<()> {
        for number in raw {
            self.pending.extend_from_slice(&number.to_le_bytes());
        }
        self.in_page += 1;
        if self.in_page == PER_PAGE { self.end_page() } else { Ok(()) }
    }

    fn text(&mut self, text: &[u8]) -> Result<()> {
        text.chunks(IN_PAGE).try_for_each(|part| {
            self.pending.extend_from_slice(part);
            self.in_page = 1;
            self.end_page()
        })
    }

    fn end_page(&mut self) -> Result<()> {
        if self.in_page == 0 {
            return Ok(());
        }
        let from = self.pending.len() / PAGE * PAGE;
        self.pending.resize(from + IN_PAGE, 0);
        let sum = crc32c::crc32c(&self.pending[from..]);
        self.pending.extend_from_slice(&sum.to_le_bytes());
        self.in_page = 0;
        if self.pending.len() >= AT_ONCE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_at(self.at, &[&self.pending])?;
        self.at += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

fn raw_of(entry: &Entry) -> Raw {
    let head = u64::from(entry.disk) | (entry.kind as u64) << 32;
    [head, entry.offset, entry.len, entry.sequence, entry.at]
}

fn raw_run(disk: u32, run: &Run) -> Raw {
    let (kind, segment, at) = match run.source {
        Source::Zero => (Kind::Zero, 0, 0),
        Source::Stored { segment, at } => (Kind::Data, segment, at),
    };
    let head = u64::from(disk) | (kind as u64) << 32;
    [head, run.range.start, run.range.end - run.range.start, segment, at]
}

/// Writes an index file and syncs it, not its name. `runs` come by disk and offset; `pace` is called with the bytes that were written
/// since, and its error ends the work.
///
/// # Errors
/// As the storage's, and those of `runs` and `pace`.
pub fn write(
    storage: &dyn Storage,
    path: &str,
    contents: &Contents<'_>,
    runs: impl Iterator<Item = Result<(u32, Run)>>,
    pace: &dyn Fn(u64) -> Result<()>,
) -> Result<()> {
    let Contents { of, log, notes, texts, sums } = contents;
    storage.remove(path)?;
    let file = storage.create(path)?;
    let mut pages = Pages { file: &*file, pending: Vec::new(), at: PAGE as u64, in_page: 0 };
    log.iter().try_for_each(|entry| pages.push(raw_of(entry)))?;
    pages.end_page()?;
    notes.iter().try_for_each(|entry| pages.push(raw_of(entry)))?;
    pages.end_page()?;
    pages.text(texts)?;
    let mut sizes = Sizes {
        log: log.len() as u64,
        notes: notes.len() as u64,
        texts: texts.len() as u64,
        sums: sums.len() as u64,
        ..Sizes::default()
    };
    let mut fences = Vec::new();
    let mut paced = pages.at;
    for run in runs {
        let (disk, run) = run?;
        if sizes.map.is_multiple_of(PER_PAGE) {
            fences.push((disk, run.range.start));
        }
        pages.push(raw_run(disk, &run))?;
        sizes.map += 1;
        if pages.at > paced {
            pace(pages.at - paced)?;
            paced = pages.at;
        }
    }
    pages.end_page()?;
    // One page of the level below for each; a single page needs none.
    while fences.len() > 1 {
        fences.iter().try_for_each(|(disk, offset)| pages.push([u64::from(*disk), *offset, 0, 0, 0]))?;
        pages.end_page()?;
        sizes.fences += fences.len() as u64;
        fences = fences.into_iter().step_by(usize::try_from(PER_PAGE).unwrap_or(1)).collect();
    }
    for some in sums.chunks(usize::try_from(SUMS_PER_ENTRY).unwrap_or(1)) {
        let sum = |at: usize| u64::from(some.get(at).copied().unwrap_or_default());
        pages.push(std::array::from_fn(|number| sum(2 * number) | sum(2 * number + 1) << 32))?;
    }
    pages.end_page()?;
    pages.flush()?;
    pace(pages.at - paced)?;
    let mut head = Vec::with_capacity(PAGE);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&u64::from(VERSION).to_le_bytes());
    let Sizes { log, notes, texts, map, fences, sums } = sizes;
    for number in
        [of.sequences.0, of.sequences.1, of.segments, of.generations, log, notes, texts, map, fences, sums]
    {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head.resize(IN_PAGE, 0);
    let sum = crc32c::crc32c(&head);
    file.write_at(0, &[&head, &sum.to_le_bytes()])?;
    file.sync()
}

const _: () = assert!(ENTRY as u64 * PER_PAGE <= IN_PAGE as u64);
