//! Reads the disk of a VHD file.

use super::dynamic::{ENTRY_BYTES, HEADER_BYTES, Header, SECTOR_BYTES, UNUSED};
use super::footer::{FOOTER_BYTES, Footer, be32};
use crate::chain::ParentRef;
use crate::disk::{self, Disk, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::limits;
use crate::pages::{PAGE, PageCache};
use crate::raw;
use crate::source::Source;
use crate::units::{Bytes, FileOffset, GuestOffset, GuestRange};
use std::sync::Arc;

/// Table entries that one call looks at before it answers with what it has.
const ENTRIES_PER_CALL: usize = 1 << 16;
/// Runs that a read plans at once.
const RUNS_PER_READ: usize = 64;

/// A fixed disk: the file without its footer.
pub struct Fixed {
    source: Source,
    size: u64,
}

impl Fixed {
    /// `data_end` is where the footer begins.
    pub fn new(source: Source, size: u64, data_end: u64) -> Result<Fixed> {
        if size > data_end {
            return Err(Error::corrupt(format!(
                "truncated: a fixed disk of {size} bytes is wanted, the file holds {data_end} before its footer"
            ))
            .hint("copy the image again from its origin and compare the sizes"));
        }
        Ok(Fixed { source, size })
    }
}

impl Disk for Fixed {
    fn size(&self) -> Bytes {
        Bytes(self.size)
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size());
        raw::file_extents(&self.source, FileOffset(range.start().0), range, at_most)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, buf.len())?;
        self.source.read_exact_at(FileOffset(at.0), buf)
    }
}

/// A part of the file that no block may lie in.
#[derive(Clone, Copy, Debug)]
struct Taken {
    start: u64,
    end: u64,
    what: &'static str,
}

/// A dynamic or differencing disk.
pub struct Dynamic {
    source: Source,
    header: Header,
    size: u64,
    blocks: u64,
    bitmap_bytes: u64,
    /// Blocks end before it.
    data_end: u64,
    taken: [Taken; 3],
    pages: PageCache,
}

/// A run of the disk: where it lies in the file, or `None` where this layer does not store it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    at: u64,
    len: u64,
    file: Option<u64>,
}

impl Run {
    /// Takes in the run behind this one, if both are one.
    fn join(&mut self, next: &Run) -> bool {
        let same = match (self.file, next.file) {
            (Some(a), Some(b)) => a.checked_add(self.len) == Some(b),
            (None, None) => true,
            _ => false,
        };
        if same {
            self.len += next.len;
        }
        same
    }
}

/// The page of a table that was used last.
type LastPage = Option<(u64, Arc<[u8]>)>;

impl Dynamic {
    pub fn new(source: Source, footer: &Footer, size: u64, data_end: u64) -> Result<Dynamic> {
        let mut bytes = [0; HEADER_BYTES];
        let header_offset = FileOffset(footer.data_offset);
        source.read_exact_at(header_offset, &mut bytes)?;
        let header = Header::parse(&bytes).map_err(|e| e.at(header_offset))?;
        let blocks = size.div_ceil(header.block_size_bytes);
        if blocks > u64::from(header.max_table_entries) {
            return Err(Error::corrupt(format!(
                "the block table has {} entries; a disk of {size} bytes needs {blocks}",
                header.max_table_entries
            ))
            .at(header_offset));
        }
        let table_bytes = blocks * ENTRY_BYTES;
        let table_end = header.table_offset.checked_add(table_bytes).filter(|&end| end <= source.len().0);
        let table_end = table_end.ok_or_else(|| {
            source
                .corrupt(format!(
                    "truncated: the block table has {table_bytes} bytes at {:#x}; the file ends at {:#x}",
                    header.table_offset,
                    source.len().0
                ))
                .at(header_offset)
        })?;
        let taken = [
            Taken { start: 0, end: FOOTER_BYTES as u64, what: "copy of the footer" },
            Taken {
                start: footer.data_offset,
                end: footer.data_offset.saturating_add(HEADER_BYTES as u64),
                what: "dynamic header",
            },
            Taken { start: header.table_offset, end: table_end, what: "block table" },
        ];
        let disk = Dynamic {
            size,
            blocks,
            bitmap_bytes: header.bitmap_bytes(),
            data_end,
            taken,
            pages: PageCache::new(limits::TABLE_CACHE),
            header,
            source,
        };
        if table_bytes <= limits::RESIDENT_TABLE.0 {
            disk.check_blocks()?;
        }
        Ok(disk)
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How the parent is named.
    pub fn parent(&self) -> Result<ParentRef> {
        self.header.parent(|offset, length| {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            self.source.read_exact_at(FileOffset(offset), &mut bytes)?;
            Ok(bytes)
        })
    }

    /// A page of a table, of which `table_end` is the end: from the cache or the file.
    fn page(&self, at: u64, table_end: u64) -> Result<Arc<[u8]>> {
        let len = usize::try_from(PAGE.0.min(table_end.saturating_sub(at))).unwrap_or(0);
        self.pages.page(FileOffset(at), || {
            let mut bytes = vec![0; len];
            self.source.read_exact_at(FileOffset(at), &mut bytes)?;
            Ok(bytes)
        })
    }

    /// Bytes of block `block` that belong to the disk: the last block may pass its end.
    fn used(&self, block: u64) -> u64 {
        self.header.block_size_bytes.min(self.size.saturating_sub(block * self.header.block_size_bytes))
    }

    /// Where block `block` begins in the file, its bitmap first; checked. `None` where it is not stored.
    fn block(&self, block: u64, page: &mut LastPage) -> Result<Option<u64>> {
        let at = block * ENTRY_BYTES;
        let start = self.header.table_offset + at / PAGE.0 * PAGE.0;
        let bytes = match page {
            Some((here, bytes)) if *here == start => bytes,
            _ => {
                let table_end = self.header.table_offset + self.blocks * ENTRY_BYTES;
                &page.insert((start, self.page(start, table_end)?)).1
            }
        };
        let entry = be32(bytes, usize::try_from(at % PAGE.0).unwrap_or(usize::MAX))?;
        if entry == UNUSED {
            return Ok(None);
        }
        let offset = u64::from(entry) * SECTOR_BYTES;
        let end = offset + self.bitmap_bytes + self.used(block);
        if end > self.data_end {
            return Err(self.corrupt_entry(
                block,
                format!(
                    "points at {} ({offset:#x}), a block up to {end:#x}; the file's data ends at {:#x}",
                    Bytes(offset),
                    self.data_end
                ),
            ));
        }
        if let Some(taken) = self.taken.iter().find(|taken| offset < taken.end && end > taken.start) {
            return Err(self.corrupt_entry(
                block,
                format!("points at {offset:#x}, over the {} at {:#x}", taken.what, taken.start),
            ));
        }
        Ok(Some(offset))
    }

    fn corrupt_entry(&self, block: u64, says: String) -> Error {
        let at = self.header.table_offset.saturating_add(block * ENTRY_BYTES);
        self.source.corrupt(format!("block table entry {block} {says}")).at(FileOffset(at))
    }

    /// Reads every entry, so that a truncated or cross-linked file is refused before a conversion begins. Done for
    /// tables of a bounded length; the entries of longer ones are checked as they are used, but for overlap.
    fn check_blocks(&self) -> Result<()> {
        let mut page = None;
        let mut offsets: Vec<(u64, u64)> = Vec::new();
        for block in 0..self.blocks {
            if let Some(offset) = self.block(block, &mut page)? {
                offsets.push((offset, block));
            }
        }
        offsets.sort_unstable();
        for ((offset, block), (next, other)) in offsets.iter().zip(offsets.iter().skip(1)) {
            if offset + self.bitmap_bytes + self.used(*block) > *next {
                return Err(self.corrupt_entry(
                    *other,
                    format!("points at {next:#x}, into block {block} at {offset:#x}"),
                ));
            }
        }
        Ok(())
    }

    /// The runs of `range`, which lies on the disk: contiguous, at most `at_most`, maybe not to its end.
    fn runs(&self, range: GuestRange, at_most: usize) -> Result<Vec<Run>> {
        let block_size = self.header.block_size_bytes;
        let mut runs: Vec<Run> = Vec::new();
        let mut page = None;
        let (mut here, end) = (range.start().0, range.end().0);
        let mut looked = 0;
        while here < end && looked < ENTRIES_PER_CALL {
            looked += 1;
            let len = (block_size - here % block_size).min(end - here);
            let run = match self.block(here / block_size, &mut page)? {
                None => Run { at: here, len, file: None },
                Some(offset) => self.sector_run(here, len, offset)?,
            };
            here += run.len;
            if runs.last_mut().is_some_and(|last| last.join(&run)) {
                continue;
            }
            if runs.len() >= at_most {
                break;
            }
            runs.push(run);
        }
        Ok(runs)
    }

    /// The run of sectors of one kind from `here` on, at most `len` bytes, in the block at `offset`.
    fn sector_run(&self, here: u64, len: u64, offset: u64) -> Result<Run> {
        let inside = here % self.header.block_size_bytes;
        let first = inside / SECTOR_BYTES;
        let page_sectors = PAGE.0 * 8;
        let page = self.page(offset + first / page_sectors * PAGE.0, offset + self.bitmap_bytes)?;
        let sectors = (inside + len - 1) / SECTOR_BYTES - first + 1;
        let first_bit = first % page_sectors;
        let (stored, sectors) = bit_run(&page, first_bit, first_bit + sectors);
        // The first sector may begin before `here`.
        let len = (sectors * SECTOR_BYTES - here % SECTOR_BYTES).min(len);
        Ok(Run { at: here, len, file: stored.then_some(offset + self.bitmap_bytes + inside) })
    }
}

/// The value of bit `from`, most significant first, and how many bits from there up to `to` or the end of `bits`
/// have it. At least one.
fn bit_run(bits: &[u8], from: u64, to: u64) -> (bool, u64) {
    let byte = |at: u64| usize::try_from(at / 8).ok().and_then(|at| bits.get(at)).copied();
    let bit = |at: u64| byte(at).map(|byte| byte << (at % 8) & 0x80 != 0);
    let value = bit(from).unwrap_or(false);
    let whole = if value { 0xff } else { 0 };
    let mut at = from + 1;
    while at < to {
        if at.is_multiple_of(8) && at + 8 <= to && byte(at) == Some(whole) {
            at += 8;
        } else if bit(at) == Some(value) {
            at += 1;
        } else {
            break;
        }
    }
    (value, at - from)
}

impl Disk for Dynamic {
    fn size(&self) -> Bytes {
        Bytes(self.size)
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size());
        let at_most = at_most.max(1);
        let mut out: Vec<Extent> = Vec::new();
        for run in self.runs(range, at_most)? {
            let range = GuestRange::new(GuestOffset(run.at), Bytes(run.len));
            let room = at_most.saturating_sub(out.len());
            if room == 0 {
                break;
            }
            let found = match run.file {
                None => vec![Extent { range, kind: ExtentKind::Unallocated }],
                // A hole in the file is known to be zeros without reading it.
                Some(at) => raw::file_extents(&self.source, FileOffset(at), range, room)?,
            };
            let whole = found.last().is_some_and(|last| last.range.end() == range.end());
            for extent in found {
                match out.last_mut() {
                    Some(last) if last.kind == extent.kind => {
                        last.range = GuestRange::between(last.range.start(), extent.range.end());
                    }
                    _ => out.push(extent),
                }
            }
            if !whole {
                break; // the answer must stay contiguous
            }
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, buf.len())?;
        let mut here = at;
        let mut rest = buf;
        while !rest.is_empty() {
            let range = GuestRange::new(here, Bytes(rest.len() as u64));
            for run in self.runs(range, RUNS_PER_READ)? {
                let len = usize::try_from(run.len).unwrap_or(usize::MAX).min(rest.len());
                let (part, behind) = rest.split_at_mut(len);
                match run.file {
                    Some(at) => self.source.read_exact_at(FileOffset(at), part)?,
                    None => part.fill(0),
                }
                rest = behind;
                here = GuestOffset(here.0 + len as u64);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bit_runs_are_what_counting_gives(bits in proptest::collection::vec(
            prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 1..12), from in 0u64..96, len in 1u64..100) {
            let total = bits.len() as u64 * 8;
            let from = from % total;
            let to = (from + len).min(total);
            let bit = |at: u64| bits[(at / 8) as usize] & (0x80 >> (at % 8)) != 0;
            let counted = (from..to).take_while(|&at| bit(at) == bit(from)).count() as u64;
            prop_assert_eq!(bit_run(&bits, from, to), (bit(from), counted));
            prop_assert!(bit_run(&bits, from, to + 1000).1 <= total - from);
        }
    }
}
