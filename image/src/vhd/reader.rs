//! Reads the disk of a VHD file.

use super::dynamic::{ENTRY_BYTES, HEADER_BYTES, Header, SECTOR_BYTES, UNUSED};
use super::footer::{FOOTER_BYTES, Footer};
use crate::blocks::bits;
use crate::blocks::read::{self, BlockMap, LastPage, Place, Run, Table};
use crate::blocks::taken::Taken;
use crate::chain::ParentRef;
use crate::disk::{self, Disk, Extent};
use crate::error::{Error, Result};
use crate::limits;
use crate::pages::{PAGE, PageCache};
use crate::raw;
use crate::source::Source;
use crate::units::{Bytes, FileOffset, GuestOffset, GuestRange};

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
    table: Table,
    /// Of sector bitmaps.
    pages: PageCache,
}

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
            table: Table::new(header.table_offset, table_bytes, |at, buf| {
                source.read_exact_at(FileOffset(at), buf)
            })?,
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

    /// Bytes of block `block` that belong to the disk: the last block may pass its end.
    fn used(&self, block: u64) -> u64 {
        self.header.block_size_bytes.min(self.size.saturating_sub(block * self.header.block_size_bytes))
    }

    /// Where block `block` begins in the file, its bitmap first; checked. `None` where it is not stored.
    fn block(&self, block: u64, page: &mut LastPage) -> Result<Option<u64>> {
        let read = |at, buf: &mut [u8]| self.source.read_exact_at(FileOffset(at), buf);
        let entry = u32::from_be_bytes(self.table.entry(block * ENTRY_BYTES, page, read)?);
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

    /// The run of sectors of one kind from `here` on, at most `len` bytes, in the block at `offset`.
    fn sector_run(&self, here: u64, len: u64, offset: u64) -> Result<Run> {
        let inside = here % self.header.block_size_bytes;
        let first = inside / SECTOR_BYTES;
        let page_sectors = PAGE.0 * 8;
        let read = |at, buf: &mut [u8]| self.source.read_exact_at(FileOffset(at), buf);
        let page_start = offset + first / page_sectors * PAGE.0;
        let page = read::page(&self.pages, page_start, offset + self.bitmap_bytes, read)?;
        let sectors = (inside + len - 1) / SECTOR_BYTES - first + 1;
        let first_bit = first % page_sectors;
        let (stored, sectors) = bits::run(&page, first_bit, first_bit + sectors, bits::MOST_FIRST);
        // The first sector may begin before `here`.
        let len = (sectors * SECTOR_BYTES - here % SECTOR_BYTES).min(len);
        let place = if stored { Place::File(offset + self.bitmap_bytes + inside) } else { Place::Parent };
        Ok(Run { at: here, len, place })
    }
}

impl BlockMap for Dynamic {
    fn size(&self) -> Bytes {
        Bytes(self.size)
    }

    fn run(&self, here: u64, len: u64, page: &mut LastPage) -> Result<Run> {
        let block_size = self.header.block_size_bytes;
        let len = (block_size - here % block_size).min(len);
        match self.block(here / block_size, page)? {
            None => Ok(Run { at: here, len, place: Place::Parent }),
            Some(offset) => self.sector_run(here, len, offset),
        }
    }

    fn source(&self) -> &Source {
        &self.source
    }
}
