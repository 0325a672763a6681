//! Indexes: where the newest content lies that a range of the journal has for each disk, in a file that is searched in place.
//!
//! An index belongs to one segment or to several that follow one another. It can always be made anew from them, and is where it is missing or
//! damaged. Ours, little-endian; pages of 4 KiB:
//!
//! ```text
//! page 0    "LFINDEX1" version:64, what it is of: 4 × 64 (first and last sequence, segments, the sum of their generations), then for
//!           each section its entries (of the texts: its bytes): 6 × 64, 0, and in its last 4 bytes the CRC-32C of the rest of the page
//! others    102 entries of 40 bytes (the last page of a section or level has fewer), 0, CRC-32C
//! entry     disk:32 kind:32 offset:64 length:64 where:64 at:64
//! ```
//!
//! Sections, one behind the other:
//!
//! ```text
//! log       all records in their order; `where` is the sequence, `at` the place of the payload in the segment's file. Of one segment only
//! notes     those that are not about content: all of one segment, of several the checkpoints. Of a checkpoint `at` is its place in the texts
//! texts     payloads of checkpoints, 4092 bytes in a page
//! map       the runs by disk and offset; `where` is the segment, `at` the place in it
//! fences    disk and offset of the first entry of each page of the map; then of each page of these; and so on, until there is one page
//! sums      the CRC-32C of each 16 KiB of the segment, ten in an entry. Of one segment only
//! ```

mod write;

pub use write::{Contents, write};

use super::map::{Run, RunMap, Source};
use super::record::{Kind, le32, le64};
use crate::vault::handles::Stored;
use landfall_image::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"LFINDEX1";
const VERSION: u32 = 2;
const PAGE: usize = 4096;
const ENTRY: usize = 40;
const PER_PAGE: u64 = 102;
const SUMS_PER_ENTRY: u64 = ENTRY as u64 / 4;
/// Bytes of a page that are not its sum.
const IN_PAGE: usize = PAGE - 4;

/// Bytes of a segment that one sum is of.
pub const BLOCK: u64 = 16 << 10;

/// What an index is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Of {
    /// First and last sequence.
    pub sequences: (u64, u64),
    /// How many segments.
    pub segments: u64,
    /// Their generations, added up. With their number it tells whether they are still the same: a part that is rewritten has either
    /// fewer segments, or as many and a higher sum.
    pub generations: u64,
}

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

/// Numbers of a page's entry.
type Raw = [u64; 5];

/// Entries of each section, bytes of the texts.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    log: u64,
    notes: u64,
    texts: u64,
    map: u64,
    /// Of all levels.
    fences: u64,
    sums: u64,
}

impl Sizes {
    fn page_of_notes(&self) -> u64 {
        1 + self.log.div_ceil(PER_PAGE)
    }

    fn page_of_texts(&self) -> u64 {
        self.page_of_notes() + self.notes.div_ceil(PER_PAGE)
    }

    fn page_of_map(&self) -> u64 {
        self.page_of_texts() + self.texts.div_ceil(IN_PAGE as u64)
    }

    /// The first page of each level of fences with its entries, from the map up to the single page.
    fn levels(&self) -> Vec<(u64, u64)> {
        let mut levels = Vec::new();
        let mut at = self.page_of_map();
        let mut count = self.map;
        while count > PER_PAGE {
            let pages = count.div_ceil(PER_PAGE);
            at += pages;
            count = pages;
            levels.push((at, count));
        }
        levels
    }

    fn page_of_sums(&self) -> u64 {
        let last = |(at, count): &(u64, u64)| at + count.div_ceil(PER_PAGE);
        self.levels().last().map_or(self.page_of_map() + self.map.div_ceil(PER_PAGE), last)
    }

    fn pages(&self) -> u64 {
        self.page_of_sums() + self.sums.div_ceil(SUMS_PER_ENTRY * PER_PAGE)
    }

    /// True where a file of that length can hold so much.
    fn is_sound(&self, len: u64) -> bool {
        let all = [self.log, self.notes, self.texts, self.map, self.fences, self.sums];
        all.iter().all(|count| *count <= len)
            && self.fences == self.levels().iter().map(|(_, count)| count).sum::<u64>()
            && len >= self.pages() * PAGE as u64
    }
}

/// An index that is read: a page at a time, through the vault's cache.
#[derive(Debug)]
pub struct Index {
    file: Stored,
    /// What it is of.
    pub of: Of,
    sizes: Sizes,
}

impl Index {
    /// # Errors
    /// Corrupt where it is no index, or is damaged where it was read.
    pub fn open(file: Stored) -> Result<Index> {
        let head = page(&file, 0)?;
        if head[..8] != MAGIC || le64(&head, 8) != u64::from(VERSION) {
            return Err(Error::corrupt("this is no index of a journal"));
        }
        let of = Of {
            sequences: (le64(&head, 16), le64(&head, 24)),
            segments: le64(&head, 32),
            generations: le64(&head, 40),
        };
        let [log, notes, texts, map, fences, sums] =
            std::array::from_fn(|number| le64(&head, 48 + 8 * number));
        let sizes = Sizes { log, notes, texts, map, fences, sums };
        match sizes.is_sound(file.open()?.len()?) {
            true => Ok(Index { file, of, sizes }),
            false => Err(Error::corrupt("the index of a journal was cut off")),
        }
    }

    fn page(&self, number: u64) -> Result<Arc<[u8]>> {
        page(&self.file, number).map_err(|error| error.in_file(&self.file.place()))
    }

    /// The sum of a [`BLOCK`] of the segment, by its number; `None` behind the last.
    pub fn sum(&self, block: u64) -> Result<Option<u32>> {
        if block >= self.sizes.sums {
            return Ok(None);
        }
        let (entry, inside) = (block / SUMS_PER_ENTRY, block % SUMS_PER_ENTRY);
        let page = self.page(self.sizes.page_of_sums() + entry / PER_PAGE)?;
        let pair = raw_at(&page, entry % PER_PAGE)[usize::try_from(inside / 2).unwrap_or(0)];
        let sum = if inside.is_multiple_of(2) { pair & u64::from(u32::MAX) } else { pair >> 32 };
        Ok(u32::try_from(sum).ok())
    }

    /// How many records it is of.
    pub fn records(&self) -> u64 {
        self.sizes.log
    }

    /// How many runs it has.
    pub fn len(&self) -> u64 {
        self.sizes.map
    }

    /// True where it has no run.
    pub fn is_empty(&self) -> bool {
        self.sizes.map == 0
    }

    /// All records in their order; empty where it is of several segments.
    pub fn log(&self) -> impl Iterator<Item = Result<Entry>> + '_ {
        self.section(1, self.sizes.log).map(|raw| entry(&raw?))
    }

    /// The records that are not about content, in their order.
    pub fn notes(&self) -> impl Iterator<Item = Result<Entry>> + '_ {
        self.section(self.sizes.page_of_notes(), self.sizes.notes).map(|raw| entry(&raw?))
    }

    /// Fills `buf` from byte `at` of the texts.
    ///
    /// # Errors
    /// Corrupt where they do not reach so far.
    pub fn text(&self, mut at: u64, mut buf: &mut [u8]) -> Result<()> {
        if at.checked_add(buf.len() as u64).is_none_or(|end| end > self.sizes.texts) {
            return Err(Error::corrupt("a text passes the end of an index").in_file(&self.file.place()));
        }
        while !buf.is_empty() {
            let page = self.page(self.sizes.page_of_texts() + at / IN_PAGE as u64)?;
            let inside = usize::try_from(at % IN_PAGE as u64).unwrap_or(0);
            let (now, rest) = buf.split_at_mut((IN_PAGE - inside).min(buf.len()));
            now.copy_from_slice(&page[inside..inside + now.len()]);
            at += now.len() as u64;
            buf = rest;
        }
        Ok(())
    }

    /// The runs by disk and offset.
    pub fn runs(&self) -> impl Iterator<Item = Result<(u32, Run)>> + '_ {
        self.section(self.sizes.page_of_map(), self.sizes.map).map(|raw| run(&raw?))
    }

    /// Read past the cache: what is read whole would only drive out what is needed again.
    fn section(&self, first_page: u64, count: u64) -> impl Iterator<Item = Result<Raw>> + '_ {
        let pages = (0..count.div_ceil(PER_PAGE)).map(move |number| {
            let in_page = (count - number * PER_PAGE).min(PER_PAGE);
            (first_page + number, in_page)
        });
        let read = |number| read_page(&self.file, number).map_err(|error| error.in_file(&self.file.place()));
        pages.flat_map(move |(number, in_page)| match read(number) {
            Ok(page) => (0..in_page).map(|entry| Ok(raw_at(&page, entry))).collect(),
            Err(error) => vec![Err(error)],
        })
    }

    /// The runs of a disk that meet `range`, in order, clipped to it.
    pub fn within(&self, disk: u32, range: &Range<u64>) -> Result<Vec<Run>> {
        let mut found = Vec::new();
        let pages = self.sizes.map.div_ceil(PER_PAGE);
        let mut number = self.page_before((disk, range.start))?;
        while number < pages {
            let in_page = (self.sizes.map - number * PER_PAGE).min(PER_PAGE);
            let page = self.page(self.sizes.page_of_map() + number)?;
            let first = match found.is_empty() {
                true => behind(&page, in_page, (disk, range.start)).saturating_sub(1),
                false => 0,
            };
            for entry in first..in_page {
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

    /// The page of the map, counted from its first, that has the last entry at or before a key.
    fn page_before(&self, key: (u32, u64)) -> Result<u64> {
        let mut number = 0;
        for (first_page, count) in self.sizes.levels().iter().rev() {
            let in_page = (count - number * PER_PAGE).min(PER_PAGE);
            let page = self.page(first_page + number)?;
            number = number * PER_PAGE + behind(&page, in_page, key).saturating_sub(1);
            if number >= *count {
                return Err(Error::corrupt("the fences of an index lead nowhere").in_file(&self.file.place()));
            }
        }
        Ok(number)
    }
}

/// How many of a page's entries are at or before a key.
fn behind(page: &[u8], in_page: u64, key: (u32, u64)) -> u64 {
    let (mut low, mut high) = (0, in_page);
    while low < high {
        let middle = (low + high) / 2;
        let raw = raw_at(page, middle);
        match (disk(&raw), raw[1]) <= key {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

fn raw_at(page: &[u8], entry: u64) -> Raw {
    let at = usize::try_from(entry).unwrap_or(usize::MAX).saturating_mul(ENTRY);
    std::array::from_fn(|number| le64(page, at.saturating_add(8 * number)))
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

fn page(file: &Stored, number: u64) -> Result<Arc<[u8]>> {
    file.cached(number, || read_page(file, number))
}

fn read_page(file: &Stored, number: u64) -> Result<Vec<u8>> {
    let mut page = vec![0; PAGE];
    file.open()?.read_at(number.saturating_mul(PAGE as u64), &mut page)?;
    match crc32c::crc32c(&page[..IN_PAGE]) == le32(&page, IN_PAGE) {
        true => Ok(page),
        false => Err(Error::corrupt(format!("page {number} of the index of a journal is damaged"))),
    }
}
