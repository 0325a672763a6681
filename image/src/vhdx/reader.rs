//! Opens a VHDX file and reads its disk.

use super::bat::{self, Block, Layout};
use super::header::{self, Header, Region};
use super::log;
use super::metadata::{self, Metadata};
use super::patched::Patched;
use crate::blocks::bits;
use crate::blocks::read::{self, BlockDisk, BlockMap, LastPage, Place, Run, Table};
use crate::blocks::taken::Taken;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::limits;
use crate::pages::{PAGE, PageCache};
use crate::source::Source;
use crate::units::{Bytes, FileOffset};
use uuid::{Uuid, uuid};

pub const BAT_REGION: Uuid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08");
pub const METADATA_REGION: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");

const MIB: u64 = 1 << 20;

/// A VHDX file whose structures were read.
pub struct Opened {
    pub creator: String,
    pub header: Header,
    pub metadata: Metadata,
    /// Log entries that were replayed.
    pub replayed: usize,
    disk: Vhdx,
}

/// A region as a part of the file that no block may lie in.
pub fn taken_by(region: &Region) -> Taken {
    let what = match region.id {
        BAT_REGION => "block allocation table",
        METADATA_REGION => "metadata region",
        _ => "region that landfall does not know",
    };
    Taken { start: region.offset, end: region.offset.saturating_add(region.length), what }
}

/// The disk of one layer.
struct Vhdx {
    file: Patched,
    size: u64,
    block_size: u64,
    sector_size: u64,
    has_parent: bool,
    layout: Layout,
    bat_offset: u64,
    bat: Table,
    /// Sorted, without overlap.
    taken: Vec<Taken>,
    /// Of sector bitmaps.
    pages: PageCache,
}

impl Opened {
    pub fn new(source: Source) -> Result<Opened> {
        let read = |at: u64, len: usize| -> Result<Vec<u8>> {
            let mut bytes = vec![0; len];
            source.read_exact_at(FileOffset(at), &mut bytes)?;
            Ok(bytes)
        };
        let creator = header::parse_file_type(&read(0, header::FILE_TYPE_BYTES)?)?;
        let [first, second] = header::HEADER_OFFSETS;
        let header = Header::current(
            &read(first, header::HEADER_BYTES)?,
            &read(second, header::HEADER_BYTES).unwrap_or_default(),
        )
        .map_err(|e| e.at(FileOffset(first)))?;

        let mut taken = vec![Taken { start: 0, end: header::SECTION_BYTES, what: "header section" }];
        if header.log_length > 0 || !header.log_guid.is_nil() {
            let (start, length) = (header.log_offset, u64::from(header.log_length));
            header::check_placement("log", start, length)?;
            taken.push(Taken { start, end: start + length, what: "log" });
        }
        let mut file = Patched::new(source);
        let replayed = log::replay(&mut file, &header).map_err(|e| e.at(FileOffset(header.log_offset)))?;

        let regions = regions(&file)?;
        let find = |id: Uuid, name: &str| {
            let region = regions.iter().find(|region| region.id == id);
            region.ok_or_else(|| Error::corrupt(format!("the region table has no {name} region")))
        };
        let (bat, meta) = (find(BAT_REGION, "BAT")?, find(METADATA_REGION, "metadata")?);
        taken.extend(regions.iter().map(taken_by));
        taken.sort_by_key(|taken| (taken.start, taken.end));
        if let Some((a, b)) = taken.iter().zip(taken.iter().skip(1)).find(|(a, b)| a.end > b.start) {
            return Err(Error::corrupt(format!(
                "the {} at {:#x} and the {} at {:#x} overlap",
                a.what, a.start, b.what, b.start
            )));
        }

        let metadata = Metadata::parse(
            &read_patched(&file, meta.offset, metadata::TABLE_BYTES)?,
            meta.length,
            |offset, length| {
                read_patched(&file, meta.offset + u64::from(offset), usize::try_from(length).unwrap_or(0))
            },
        )
        .map_err(|e| e.at(FileOffset(meta.offset)))?;

        let has_parent = metadata.parent.is_some();
        let layout = Layout::new(
            metadata.size_bytes,
            metadata.block_size_bytes,
            metadata.logical_sector_size_bytes,
            has_parent,
        );
        let bat_bytes = layout.entries * bat::ENTRY_BYTES;
        if bat_bytes > bat.length || bat.offset.checked_add(bat_bytes).is_none_or(|end| end > file.len()) {
            return Err(Error::corrupt(format!(
                "the block allocation table needs {} entries, {bat_bytes} bytes; its region has {}, the file ends at {:#x}",
                layout.entries,
                bat.length,
                file.len()
            ))
            .at(FileOffset(bat.offset)));
        }
        let disk = Vhdx {
            size: metadata.size_bytes,
            block_size: metadata.block_size_bytes,
            sector_size: metadata.logical_sector_size_bytes,
            has_parent,
            layout,
            bat_offset: bat.offset,
            bat: Table::new(bat.offset, bat_bytes, |at, buf| file.read_exact_at(at, buf))?,
            taken,
            pages: PageCache::new(limits::TABLE_CACHE),
            file,
        };
        if bat_bytes <= limits::RESIDENT_TABLE.0 {
            disk.check_blocks()?;
        }
        Ok(Opened { creator, header, metadata, replayed, disk })
    }

    pub fn into_disk(self) -> impl Disk {
        BlockDisk(self.disk)
    }
}

/// Bytes of the file as it is after the replay.
pub fn read_patched(file: &Patched, at: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.read_exact_at(at, &mut bytes)?;
    Ok(bytes)
}

/// The regions, from the first copy of the table that is valid.
pub fn regions(file: &Patched) -> Result<Vec<Region>> {
    let [first, second] = header::REGION_TABLE_OFFSETS;
    let parse = |at| {
        let bytes = read_patched(file, at, header::REGION_TABLE_BYTES)?;
        header::parse_region_table(&bytes).map_err(|e| e.at(FileOffset(at)))
    };
    let regions = parse(first).or_else(|error| parse(second).map_err(|_| error))?;
    for region in &regions {
        if region.required && region.id != BAT_REGION && region.id != METADATA_REGION {
            return Err(Error::unsupported(format!(
                "the region {} is required to read this disk, and landfall does not know it",
                region.id
            )));
        }
    }
    Ok(regions)
}

impl Vhdx {
    fn corrupt_entry(&self, index: u64, error: &Error) -> Error {
        self.file
            .source()
            .corrupt(format!("block table entry {index}: {}", error.says()))
            .at(FileOffset(self.bat_offset + index * bat::ENTRY_BYTES))
    }

    /// A table entry.
    fn entry(&self, index: u64, page: &mut LastPage) -> Result<u64> {
        let read = |at, buf: &mut [u8]| self.file.read_exact_at(at, buf);
        self.bat.entry(index * bat::ENTRY_BYTES, page, read).map(u64::from_le_bytes)
    }

    /// Bytes of block `block` that belong to the disk: the last block may pass its end.
    fn used(&self, block: u64) -> u64 {
        self.block_size.min(self.size.saturating_sub(block * self.block_size))
    }

    /// Checks where `len` bytes of a block or bitmap lie.
    fn check_place(&self, offset: u64, len: u64) -> Result<()> {
        let end = offset.checked_add(len);
        if end.is_none_or(|end| end > self.file.len()) {
            return Err(Error::corrupt(format!(
                "points at {} ({offset:#x}, {len:#x} bytes); the file ends at {} ({:#x})",
                Bytes(offset),
                Bytes(self.file.len()),
                self.file.len()
            )));
        }
        // The last one that begins before the end is the only one that can reach in.
        let end = end.unwrap_or(u64::MAX);
        let behind = self.taken.partition_point(|taken| taken.start < end);
        match behind.checked_sub(1).and_then(|last| self.taken.get(last)) {
            Some(taken) if taken.end > offset => Err(Error::corrupt(format!(
                "points at {offset:#x}, into the {} ({:#x} to {:#x})",
                taken.what, taken.start, taken.end
            ))),
            _ => Ok(()),
        }
    }

    /// Where a payload block is, checked.
    fn block(&self, block: u64, page: &mut LastPage) -> Result<Block> {
        let index = self.layout.payload(block);
        let entry = self.entry(index, page)?;
        // A fresh disk is all of these.
        if entry == 0 {
            return Ok(Block::NotPresent);
        }
        let checked = bat::parse_payload(entry).and_then(|found| {
            match found {
                Block::PartiallyPresent(_) if !self.has_parent => {
                    return Err(Error::corrupt("the block is partially present, but the disk has no parent"));
                }
                Block::Present(offset) | Block::PartiallyPresent(offset) => {
                    self.check_place(offset, self.used(block))?;
                }
                Block::NotPresent | Block::Zero => {}
            }
            Ok(found)
        });
        checked.map_err(|error| self.corrupt_entry(index, &error))
    }

    /// Where the sector bitmap is that covers a payload block, checked.
    fn bitmap(&self, block: u64) -> Result<u64> {
        let index = self.layout.bitmap(block);
        let entry = self.entry(index, &mut None)?;
        let checked = bat::parse_bitmap(entry).and_then(|found| {
            let offset = found.ok_or_else(|| {
                Error::corrupt(format!(
                    "the sector bitmap of the partially present block {block} is not present"
                ))
            })?;
            self.check_place(offset, bat::BITMAP_BYTES)?;
            Ok(offset)
        });
        checked.map_err(|error| self.corrupt_entry(index, &error))
    }

    /// Reads every entry, so that a truncated or cross-linked file is refused before a conversion begins. Done for
    /// tables of a bounded length; the entries of longer ones are checked as they are used, but for overlap.
    fn check_blocks(&self) -> Result<()> {
        let check_overlap = self.file.len() <= limits::OVERLAP_CHECK.0;
        let mut used_mib = match check_overlap {
            true => vec![0u8; usize::try_from(self.file.len() / MIB / 8 + 1).unwrap_or(0)],
            false => Vec::new(),
        };
        let mut page = None;
        for block in 0..self.layout.blocks {
            let (Block::Present(offset) | Block::PartiallyPresent(offset)) = self.block(block, &mut page)?
            else {
                continue;
            };
            let last = offset + self.used(block) - 1;
            for mib in offset / MIB..=last / MIB {
                let byte = usize::try_from(mib / 8).ok().and_then(|at| used_mib.get_mut(at));
                let Some(byte) = byte else { continue };
                let bit = 1 << (mib % 8);
                if *byte & bit != 0 {
                    let says = format!("points at {offset:#x}, where another block lies");
                    return Err(self.corrupt_entry(self.layout.payload(block), &Error::corrupt(says)));
                }
                *byte |= bit;
            }
        }
        Ok(())
    }

    /// The run of sectors of one kind from `here` on, at most `len` bytes, in the partially present block that
    /// lies at `offset`.
    fn sector_run(&self, here: u64, len: u64, offset: u64) -> Result<Run> {
        let block = here / self.block_size;
        let bitmap = self.bitmap(block)?;
        let first = here / self.sector_size % bat::SECTORS_PER_BITMAP;
        let page_sectors = PAGE.0 * 8;
        let page_start = bitmap + first / page_sectors * PAGE.0;
        let read = |at, buf: &mut [u8]| self.file.read_exact_at(at, buf);
        let page = read::page(&self.pages, page_start, bitmap + bat::BITMAP_BYTES, read)?;
        let first_bit = first % page_sectors;
        let last = (here + len - 1) / self.sector_size - here / self.sector_size;
        let (present, sectors) = bits::run(&page, first_bit, first_bit + last + 1, bits::LEAST_FIRST);
        // The first sector may begin before `here`.
        let len = (sectors * self.sector_size - here % self.sector_size).min(len);
        let place = if present { Place::File(offset + here % self.block_size) } else { Place::Parent };
        Ok(Run { at: here, len, place })
    }
}

impl BlockMap for Vhdx {
    fn size(&self) -> Bytes {
        Bytes(self.size)
    }

    fn sector_size(&self) -> Bytes {
        Bytes(self.sector_size)
    }

    fn run(&self, here: u64, len: u64, page: &mut LastPage) -> Result<Run> {
        let inside = here % self.block_size;
        let len = (self.block_size - inside).min(len);
        let place = match self.block(here / self.block_size, page)? {
            Block::NotPresent => Place::Parent,
            Block::Zero => Place::Zero,
            Block::Present(offset) => Place::File(offset + inside),
            Block::PartiallyPresent(offset) => return self.sector_run(here, len, offset),
        };
        Ok(Run { at: here, len, place })
    }

    fn source(&self) -> &Source {
        self.file.source()
    }

    fn is_plain(&self, at: u64, len: u64) -> bool {
        self.file.is_plain(at, len)
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(at, buf)
    }
}
