//! Indexes: where the newest content lies that a range of the journal has for each disk, in a file that is searched in place.
//!
//! An index belongs to one segment or to several that follow one another. It can always be made anew from them, and is where it is missing or
//! damaged. Ours, little-endian; pages of 4 KiB:
//!
//! ```text
//! page 0    "LFINDEX1" version:64, first and last sequence: 2 × 64, entries of each section: 5 × 64, 0, and in its last 4 bytes
//!           the CRC-32C of the rest of the page
//! others    102 entries of 40 bytes (the last page of a section has fewer), 0, CRC-32C
//! entry     disk:32 kind:32 offset:64 length:64 where:64 at:64
//! ```
//!
//! Sections, one behind the other: the *log* has all records in their order (of one segment only; `where` is the sequence), the *notes* those
//! that are not about content (disks, attachments, checkpoints), the *map* the runs by disk and offset (`where` is the
//! segment), the *fences* the first entry of each page of the map, the *sums* the CRC-32C of each 64 KiB of the segment (ten
//! in an entry; of one segment only). `at` is the place of the payload in the segment's file.

use super::map::{Run, RunMap, Source};
use super::record::{Kind, le32, le64};
use crate::vault::handles::Stored;
use crate::vault::storage::{Storage, StoredFile};
use landfall_image::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

const MAGIC: [u8; 8] = *b"LFINDEX1";
const VERSION: u32 = 1;
const PAGE: usize = 4096;
const ENTRY: usize = 40;
const PER_PAGE: u64 = 102;
const SUMS_PER_ENTRY: usize = ENTRY / 4;

/// Bytes of a segment that one sum is of.
pub const BLOCK: u64 = 64 << 10;

/// A record in the log or the notes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub kind: Kind,
    /// Which disk.
    pub disk: u32,
    /// Byte on the disk; of a checkpoint its time.
    pub offset: u64,
    /// Bytes on the disk; where it is not about content, those of the payload.
    pub len: u64,
    /// Its place in the order of the journal.
    pub sequence: u64,
    /// Where its payload begins in the segment.
    pub at: u64,
}

impl Entry {
    /// Puts what it says of content into a map.
    pub fn put(&self, segment: u64, maps: &mut BTreeMap<u32, RunMap>) {
        let source = match self.kind {
            Kind::Data => Source::Stored { segment, at: self.at },
            Kind::Zero => Source::Zero,
            _ => return,
        };
        if self.len > 0 {
            maps.entry(self.disk).or_default().insert(self.offset..self.offset + self.len, source);
        }
    }

    /// True where it is not about content.
    pub fn is_note(&self) -> bool {
        !self.kind.is_content()
    }
}

type Raw = [u64; 5];

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

/// A sequence of pages.
struct Pages<'f> {
    file: &'f dyn StoredFile,
    page: Vec<u8>,
    at: u64,
    in_page: u64,
}

impl Pages<'_> {
    fn push(&mut self, raw: Raw) -> Result<()> {
        for number in raw {
            self.page.extend_from_slice(&number.to_le_bytes());
        }
        self.in_page += 1;
        if self.in_page == PER_PAGE { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> Result<()> {
        if self.in_page == 0 {
            return Ok(());
        }
        self.page.resize(PAGE - 4, 0);
        let sum = crc32c::crc32c(&self.page);
        self.file.write_at(self.at, &[&self.page, &sum.to_le_bytes()])?;
        self.at += PAGE as u64;
        self.page.clear();
        self.in_page = 0;
        Ok(())
    }
}

/// What an index holds besides the map.
pub struct Contents<'c> {
    /// First and last sequence of what it is of.
    pub sequences: (u64, u64),
    /// All records; of one segment.
    pub log: &'c [Entry],
    /// The records that are not about content.
    pub notes: &'c [Entry],
    /// The CRC-32C of each [`BLOCK`] of the segment's file; the last may be shorter.
    pub sums: &'c [u32],
}

/// Writes an index file and syncs it, not its name. `runs` come by disk and offset.
///
/// # Errors
/// As the storage's, and those of `runs`.
pub fn write(
    storage: &dyn Storage,
    path: &str,
    contents: &Contents<'_>,
    runs: impl Iterator<Item = Result<(u32, Run)>>,
) -> Result<()> {
    let Contents { sequences, log, notes, sums } = contents;
    storage.remove(path)?;
    let file = storage.create(path)?;
    let mut pages = Pages { file: &*file, page: Vec::with_capacity(PAGE), at: PAGE as u64, in_page: 0 };
    log.iter().try_for_each(|entry| pages.push(raw_of(entry)))?;
    pages.end_page()?;
    notes.iter().try_for_each(|entry| pages.push(raw_of(entry)))?;
    pages.end_page()?;
    let mut count: u64 = 0;
    let mut fences = Vec::new();
    for run in runs {
        let (disk, run) = run?;
        if count.is_multiple_of(PER_PAGE) {
            fences.push((disk, run.range.start));
        }
        pages.push(raw_run(disk, &run))?;
        count += 1;
    }
    pages.end_page()?;
    fences.iter().try_for_each(|(disk, offset)| pages.push([u64::from(*disk), *offset, 0, 0, 0]))?;
    pages.end_page()?;
    for some in sums.chunks(SUMS_PER_ENTRY) {
        let sum = |at: usize| u64::from(some.get(at).copied().unwrap_or_default());
        pages.push(std::array::from_fn(|number| sum(2 * number) | sum(2 * number + 1) << 32))?;
    }
    pages.end_page()?;
    let mut head = Vec::with_capacity(PAGE);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&u64::from(VERSION).to_le_bytes());
    let (log, notes, sums) = (log.len() as u64, notes.len() as u64, sums.len() as u64);
    for number in [sequences.0, sequences.1, log, notes, count, fences.len() as u64, sums] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head.resize(PAGE - 4, 0);
    let sum = crc32c::crc32c(&head);
    file.write_at(0, &[&head, &sum.to_le_bytes()])?;
    file.sync()
}

/// An index that is read.
#[derive(Debug)]
pub struct Index {
    file: Stored,
    /// First and last sequence of what it is of.
    pub sequences: (u64, u64),
    log: u64,
    notes: u64,
    map: u64,
    sums: u64,
    fences: u64,
    /// Disk and offset of the first entry of each page of the map: read when they are needed.
    read_fences: OnceLock<Vec<(u32, u64)>>,
}

impl Index {
    /// # Errors
    /// Corrupt where it is no index, or is damaged where it was read.
    pub fn open(file: Stored) -> Result<Index> {
        let head = page(&*file.open()?, 0)?;
        if head[..8] != MAGIC || le64(&head, 8) != u64::from(VERSION) {
            return Err(Error::corrupt("this is no index of a journal"));
        }
        let sequences = (le64(&head, 16), le64(&head, 24));
        let [log, notes, map, fences, sums] = std::array::from_fn(|number| le64(&head, 32 + 8 * number));
        let index = Index { file, sequences, log, notes, map, sums, fences, read_fences: OnceLock::new() };
        let len = index.file.open()?.len()?;
        let is_sound = [log, notes, map, fences, sums].iter().all(|count| *count <= len)
            && fences == map.div_ceil(PER_PAGE)
            && len >= (index.page_of_sums() + sums.div_ceil(SUMS_PER_ENTRY as u64 * PER_PAGE)) * PAGE as u64;
        if !is_sound {
            return Err(Error::corrupt("the index of a journal was cut off"));
        }
        Ok(index)
    }

    fn fences(&self) -> Result<&[(u32, u64)]> {
        if let Some(fences) = self.read_fences.get() {
            return Ok(fences);
        }
        let all = self.section(self.page_of_map() + self.fences, self.fences);
        let fences = all.map(|raw| raw.map(|raw| (disk(&raw), raw[1]))).collect::<Result<_>>()?;
        Ok(self.read_fences.get_or_init(|| fences))
    }

    fn page(&self, number: u64) -> Result<Vec<u8>> {
        page(&*self.file.open()?, number).map_err(|error| error.in_file(&self.file.place()))
    }

    fn page_of_notes(&self) -> u64 {
        1 + self.log.div_ceil(PER_PAGE)
    }

    fn page_of_map(&self) -> u64 {
        self.page_of_notes() + self.notes.div_ceil(PER_PAGE)
    }

    fn page_of_sums(&self) -> u64 {
        self.page_of_map() + self.fences + self.fences.div_ceil(PER_PAGE)
    }

    /// The sum of a [`BLOCK`] of the segment, by its number; `None` behind the last.
    pub fn sum(&self, block: u64) -> Result<Option<u32>> {
        if block >= self.sums {
            return Ok(None);
        }
        let (entry, inside) = (block / SUMS_PER_ENTRY as u64, block % SUMS_PER_ENTRY as u64);
        let page = self.page(self.page_of_sums() + entry / PER_PAGE)?;
        let pair = raw_at(&page, entry % PER_PAGE)[usize::try_from(inside / 2).unwrap_or(0)];
        let sum = if inside.is_multiple_of(2) { pair & u64::from(u32::MAX) } else { pair >> 32 };
        Ok(u32::try_from(sum).ok())
    }

    /// How many records it is of.
    pub fn records(&self) -> u64 {
        self.log
    }

    /// All records in their order; empty where it is of several segments.
    pub fn log(&self) -> impl Iterator<Item = Result<Entry>> + '_ {
        self.section(1, self.log).map(|raw| entry(&raw?))
    }

    /// The records that are not about content, in their order.
    pub fn notes(&self) -> impl Iterator<Item = Result<Entry>> + '_ {
        self.section(self.page_of_notes(), self.notes).map(|raw| entry(&raw?))
    }

    /// The runs by disk and offset.
    pub fn runs(&self) -> impl Iterator<Item = Result<(u32, Run)>> + '_ {
        self.section(self.page_of_map(), self.map).map(|raw| run(&raw?))
    }

    fn section(&self, first_page: u64, count: u64) -> impl Iterator<Item = Result<Raw>> + '_ {
        let pages = (0..count.div_ceil(PER_PAGE)).map(move |number| {
            let in_page = (count - number * PER_PAGE).min(PER_PAGE);
            (first_page + number, in_page)
        });
        pages.flat_map(|(number, in_page)| match self.page(number) {
            Ok(page) => (0..in_page).map(|entry| Ok(raw_at(&page, entry))).collect(),
            Err(error) => vec![Err(error)],
        })
    }

    /// The runs of a disk that meet `range`, in order, clipped to it.
    pub fn within(&self, disk: u32, range: &Range<u64>) -> Result<Vec<Run>> {
        let mut found = Vec::new();
        let behind = self.fences()?.partition_point(|fence| *fence <= (disk, range.start));
        let mut number = behind.saturating_sub(1) as u64;
        while number < self.map.div_ceil(PER_PAGE) {
            let in_page = (self.map - number * PER_PAGE).min(PER_PAGE);
            let page = self.page(self.page_of_map() + number)?;
            for entry in 0..in_page {
                let (of, run) = run(&raw_at(&page, entry))?;
                if (of, run.range.start) >= (disk, range.end) {
                    return Ok(found);
                }
                if of == disk {
                    found.extend(run.clip(range));
                }
            }
            number += 1;
        }
        Ok(found)
    }
}

fn raw_at(page: &[u8], entry: u64) -> Raw {
    let at = usize::try_from(entry).unwrap_or(usize::MAX).saturating_mul(ENTRY);
    std::array::from_fn(|number| le64(page, at + 8 * number))
}

fn kind(raw: &Raw) -> Result<Kind> {
    let byte = u8::try_from(raw[0] >> 32).ok().and_then(Kind::of);
    byte.filter(|_| raw[1].checked_add(raw[2]).is_some())
        .ok_or_else(|| Error::corrupt("an index of a journal holds an entry of no known kind"))
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
fn disk(raw: &Raw) -> u32 {
    raw[0] as u32
}

fn entry(raw: &Raw) -> Result<Entry> {
    Ok(Entry { kind: kind(raw)?, disk: disk(raw), offset: raw[1], len: raw[2], sequence: raw[3], at: raw[4] })
}

fn run(raw: &Raw) -> Result<(u32, Run)> {
    let source = match kind(raw)? {
        Kind::Data => Source::Stored { segment: raw[3], at: raw[4] },
        _ => Source::Zero,
    };
    Ok((disk(raw), Run { range: raw[1]..raw[1] + raw[2], source }))
}

fn page(file: &dyn StoredFile, number: u64) -> Result<Vec<u8>> {
    let mut page = vec![0; PAGE];
    file.read_at(number * PAGE as u64, &mut page)?;
    if crc32c::crc32c(&page[..PAGE - 4]) != le32(&page, PAGE - 4) {
        return Err(Error::corrupt(format!("page {number} of the index of a journal is damaged")));
    }
    Ok(page)
}
