//! Writes VHDX files.
//!
//! ```text
//! 0          1 MiB   2 MiB      3 MiB            whole MiB
//! +----------+-------+----------+----------------+---------+---------+--
//! | header   | log,  | metadata | block          | block,  | bitmap, | …
//! | section  | empty |          | allocation     | whole   | 1 MiB   |
//! |          |       |          | table          |         |         |
//! +----------+-------+----------+----------------+---------+---------+--
//! ```
//!
//! Everything begins on a whole MiB, and the file ends behind a whole block, as Hyper-V demands. Blocks lie in the
//! order of the disk; the table and the sector bitmaps are written as the walk passes what they describe, so that
//! memory does not grow with the disk. The headers, without which the file is none, are written last.

use super::bat::{self, Layout};
use super::header::{self, HEADER_BYTES, REGION_TABLE_BYTES};
use super::metadata::{self, NewMetadata};
use crate::blocks::bits;
use crate::blocks::write::{
    BackslashNames, Blocks, Identity, Passed, TableWriter, Target, Walk, What, check_base,
};
use crate::create::{CreateOptions, Preallocation, Takes};
use crate::error::{Error, Result};
use crate::limits;
use crate::partial::PartialFile;
use crate::sink::{Piece, Placed, Receipt, Sink};
use crate::units::{Bytes, FileOffset, GuestRange};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

const MIB: u64 = 1 << 20;
/// The log: the least that is legal, and what every known writer makes.
const LOG: (u64, u64) = (MIB, MIB);
const METADATA: (u64, u64) = (2 * MIB, MIB);
const BAT: u64 = 3 * MIB;
/// Room for block tables that a default block size is chosen for: 2^20 entries, 8 MiB.
const ENTRIES_WANTED: u64 = 1 << 20;
/// The smallest default block. With 32 MiB, Hyper-V's own default, a guest's scattered writes make files many times
/// larger than their data, which shows once they are copied to a system without sparse files; for ext4,
/// Microsoft advises 1 MiB.
const BLOCK_DEFAULT: u64 = 2 * MIB;
const BLOCK_SIZES: (u64, u64) = (MIB, 256 * MIB);
const FIXED_PREALLOCATION: &[Preallocation] = &[Preallocation::Falloc, Preallocation::Full];

/// Zeros are found in units of this in a dynamic disk.
const GRANULARITY: Bytes = Bytes::kib(64);
/// The same where every unit that is stored costs, or hides a base.
const GRANULARITY_FINE: Bytes = Bytes::kib(4);

/// Begins a dynamic VHDX, or a differencing one over [`CreateOptions::base`], of a disk of `size` bytes, rounded up to
/// whole sectors. Takes a block size from 1 to 256 MiB. Refused above 64 TiB.
pub fn create(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    options.check(path, "vhdx", &Takes { block_size: Some(BLOCK_SIZES), base: true, ..Takes::default() })?;
    let shape = Shape::new(path, size, options, false)?;
    let parent = options.base.as_ref().map(|base| -> Result<Parent> {
        let linkage = check_base(base, crate::Format::Vhdx, Bytes(shape.disk_size), path)?;
        let locator = metadata::parent_locator(linkage, &BackslashNames::of(base, path)?);
        Ok(Parent { linkage, locator: locator.map_err(|e| e.in_file(path))? })
    });
    let parent = parent.transpose()?;
    let file = shape.start(path, options)?;
    let blocks =
        Allocated { next: shape.first_block, bat: TableWriter::new(FileOffset(BAT), 0), shape, chunk: None };
    let walk = Walk::new(blocks, size, Bytes(shape.block_size), options.base.is_some());
    let granularity = if parent.is_some() { GRANULARITY_FINE } else { GRANULARITY };
    Ok(Box::new(Writer {
        file,
        shape,
        parent,
        granularity,
        identity: Identity::default(),
        walk: Mutex::new(walk),
    }))
}

/// Begins a fixed VHDX, every block of which has its place, in order. The host's file stays sparse unless the options
/// preallocate it. Otherwise as [`create`].
pub fn create_fixed(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    let takes =
        Takes { block_size: Some(BLOCK_SIZES), preallocation: FIXED_PREALLOCATION, ..Takes::default() };
    options.check(path, "vhdx-fixed", &takes)?;
    let shape = Shape::new(path, size, options, true)?;
    let file = shape.start(path, options)?;
    if options.preallocation != Preallocation::Off {
        file.file().reserve(Bytes(shape.file_end()))?;
    }
    let zeros = options.preallocation == Preallocation::Full;
    Ok(Box::new(Fixed { file, shape, zeros, identity: Identity::default() }))
}

/// The numbers that everything follows from.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// As the metadata says it: whole sectors.
    disk_size: u64,
    block_size: u64,
    sector_size: u64,
    layout: Layout,
    first_block: u64,
    fixed: bool,
}

/// What a differencing disk says of its base.
#[derive(Debug)]
struct Parent {
    linkage: Uuid,
    locator: Vec<u8>,
}

impl Shape {
    fn new(path: &Path, size: Bytes, options: &CreateOptions, fixed: bool) -> Result<Shape> {
        let sector_size = crate::units::SECTOR_SIZE_BYTES;
        let disk_size = size.0.next_multiple_of(sector_size);
        if size.0 == 0 || size > limits::VHDX_SIZE {
            return Err(Error::refused(format!(
                "a VHDX disk of {} bytes; 1 to {} are possible",
                size.0,
                limits::VHDX_SIZE.0
            ))
            .in_file(path)
            .hint("choose raw or qcow2 for larger disks"));
        }
        let least = disk_size.div_ceil(ENTRIES_WANTED).next_power_of_two().max(BLOCK_DEFAULT);
        let block_size = options.block_size.map_or(least, |size| size.0);
        let layout = Layout::new(disk_size, block_size, sector_size, options.base.is_some());
        let first_block = BAT + (layout.entries * bat::ENTRY_BYTES).next_multiple_of(MIB);
        Ok(Shape { disk_size, block_size, sector_size, layout, first_block, fixed })
    }

    /// Where the file ends that has every block.
    fn file_end(&self) -> u64 {
        self.first_block + self.layout.blocks * self.block_size
    }

    /// The file, all zeros up to the first block.
    fn start(&self, path: &Path, options: &CreateOptions) -> Result<Target> {
        let file = Target::new(PartialFile::create(path, options.files)?)?;
        file.clear(0, self.first_block)?;
        Ok(file)
    }

    /// Writes everything in front of the blocks but the table, makes the file `end` long and gives it its name.
    fn finish(
        &self,
        file: Target,
        end: u64,
        identity: &Identity,
        parent: Option<&Parent>,
    ) -> Result<Receipt> {
        let name = file.file().target().file_name().unwrap_or_default().as_encoded_bytes();
        let size = self.disk_size.to_le_bytes();
        let linkage = parent.map_or(Uuid::nil(), |parent| parent.linkage).into_bytes();
        let guid = |purpose| identity.guid(purpose, &[name, &size, &linkage]);
        let metadata = NewMetadata {
            size_bytes: self.disk_size,
            block_size_bytes: self.block_size,
            sector_size_bytes: self.sector_size,
            leave_blocks_allocated: self.fixed,
            virtual_disk_id: guid("vhdx virtual disk"),
            parent: parent.map(|parent| parent.locator.clone()),
        };
        let put = |at: u64, bytes: &[u8]| file.file().write_all_at(FileOffset(at), bytes);
        put(METADATA.0, &metadata.to_bytes())?;
        let bat_length = self.first_block - BAT;
        let mut regions = [0; REGION_TABLE_BYTES];
        header::put_region_table(
            &mut regions,
            &[
                (super::reader::BAT_REGION, BAT, bat_length),
                (super::reader::METADATA_REGION, METADATA.0, METADATA.1),
            ],
        );
        for at in header::REGION_TABLE_OFFSETS {
            put(at, &regions)?;
        }
        let (file_write, data_write) = (guid("vhdx file write"), guid("vhdx data write"));
        for (sequence, at) in (1u64..).zip(header::HEADER_OFFSETS) {
            let mut bytes = [0; HEADER_BYTES];
            header::put_header(&mut bytes, sequence, file_write, data_write, LOG);
            put(at, &bytes)?;
        }
        file.file().set_len(Bytes(end))?;
        // Last: without it there is no VHDX.
        put(0, &header::file_type())?;
        let (path, allocated) = file.into_file().commit()?;
        Ok(Receipt { files: vec![path], allocated })
    }
}

/// The blocks of a dynamic or differencing disk.
#[derive(Debug)]
struct Allocated {
    shape: Shape,
    /// Where the file ends.
    next: u64,
    bat: TableWriter,
    /// The chunk that the walk is in.
    chunk: Option<Chunk>,
}

/// What one sector bitmap block covers.
#[derive(Debug)]
struct Chunk {
    number: u64,
    bitmap: Vec<u8>,
    /// Where it goes, if a block needs it.
    at: Option<u64>,
}

impl Allocated {
    fn take(&mut self, len: u64) -> u64 {
        let at = self.next;
        self.next += len;
        at
    }

    fn put_entry(&mut self, file: &Target, index: u64, entry: u64) -> Result<()> {
        self.bat.put(file, index * bat::ENTRY_BYTES, &entry.to_le_bytes())
    }

    /// Writes the bitmap of the chunk that the walk has left.
    fn leave_chunk(&mut self, file: &Target) -> Result<()> {
        let Some(chunk) = self.chunk.take() else { return Ok(()) };
        let Some(at) = chunk.at else { return Ok(()) };
        file.file().write_all_at(FileOffset(at), &chunk.bitmap)?;
        let index = self.shape.layout.bitmap(chunk.number * self.shape.layout.chunk_ratio);
        self.put_entry(file, index, at | bat::BITMAP_PRESENT)
    }

    /// Notes the sectors of a block that are stored, and where it is not all of them, takes room for the bitmap.
    fn mark(&mut self, file: &Target, passed: &Passed) -> Result<()> {
        let ratio = self.shape.layout.chunk_ratio;
        let number = passed.block / ratio;
        if self.chunk.as_ref().is_none_or(|chunk| chunk.number != number) {
            self.leave_chunk(file)?;
        }
        let needs_room = !passed.whole && self.chunk.as_ref().is_none_or(|chunk| chunk.at.is_none());
        let at = needs_room.then(|| self.take(bat::BITMAP_BYTES));
        let chunk = self.chunk.get_or_insert_with(|| Chunk {
            number,
            bitmap: vec![0; usize::try_from(bat::BITMAP_BYTES).unwrap_or(0)],
            at: None,
        });
        chunk.at = at.or(chunk.at);
        let first = passed.block % ratio * (self.shape.block_size / self.shape.sector_size);
        for &(start, end) in &passed.stored {
            let (start, end) = (start / self.shape.sector_size, end.div_ceil(self.shape.sector_size));
            bits::set(&mut chunk.bitmap, first + start, first + end, bits::LEAST_FIRST);
        }
        Ok(())
    }
}

impl Blocks for Allocated {
    fn allocate(&mut self, _: &Target, _: u64) -> Result<u64> {
        Ok(self.take(self.shape.block_size))
    }

    fn pass(&mut self, file: &Target, passed: &Passed) -> Result<()> {
        if self.shape.layout.has_parent {
            self.mark(file, passed)?;
        }
        let entry = match passed.at {
            None => bat::ZERO,
            // Without a base, what is not stored is zeros, and those are in the file.
            Some(at) if passed.whole || !self.shape.layout.has_parent => at | bat::FULLY_PRESENT,
            Some(at) => at | bat::PARTIALLY_PRESENT,
        };
        self.put_entry(file, self.shape.layout.payload(passed.block), entry)
    }

    fn zero_needs_room(&self) -> bool {
        false
    }
}

/// A dynamic or differencing disk.
struct Writer {
    file: Target,
    shape: Shape,
    parent: Option<Parent>,
    granularity: Bytes,
    identity: Identity,
    walk: Mutex<Walk<Allocated>>,
}

impl Writer {
    fn walk(&self) -> MutexGuard<'_, Walk<Allocated>> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Writer {
    fn granularity(&self) -> Bytes {
        self.granularity
    }

    fn place(&self, range: GuestRange, _: &[Piece]) -> Result<Vec<Placed>> {
        self.walk().go(&self.file, range, What::Data)
    }

    fn zero(&self, range: GuestRange) -> Result<()> {
        self.walk().go(&self.file, range, What::Zero).map(drop)
    }

    fn keep(&self, range: GuestRange) -> Result<()> {
        self.walk().go(&self.file, range, What::Keep).map(drop)
    }

    fn store(&self, to: Placed, bytes: &[u8]) -> Result<()> {
        self.file.file().write_all_at(to.at, bytes)
    }

    fn load(&self, from: Placed, bytes: &mut [u8]) -> Result<()> {
        self.file.file().read_exact_at(from.at, bytes)
    }

    fn identify(&self, content: blake3::Hash) {
        self.identity.content(*content.as_bytes());
    }

    fn finish(self: Box<Self>) -> Result<Receipt> {
        let Writer { file, shape, parent, identity, walk, .. } = *self;
        let walk = walk.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut blocks = walk.finish()?;
        blocks.leave_chunk(&file)?;
        blocks.bat.finish(&file, Bytes(shape.layout.entries * bat::ENTRY_BYTES))?;
        shape.finish(file, blocks.next, &identity, parent.as_ref())
    }

    fn leave(&self) {
        self.file.file().leave();
    }
}

/// A fixed disk.
struct Fixed {
    file: Target,
    shape: Shape,
    /// Zeros are written, not left out.
    zeros: bool,
    identity: Identity,
}

impl Sink for Fixed {
    fn granularity(&self) -> Bytes {
        GRANULARITY_FINE
    }

    fn place(&self, range: GuestRange, _: &[Piece]) -> Result<Vec<Placed>> {
        let len = usize::try_from(range.len().0)
            .map_err(|_| Error::refused(format!("a run of {} bytes", range.len().0)))?;
        Ok(vec![Placed { file: 0, at: FileOffset(self.shape.first_block + range.start().0), len }])
    }

    fn zero(&self, range: GuestRange) -> Result<()> {
        let at = self.shape.first_block + range.start().0;
        if self.zeros { self.file.write_zeros(at, range.len().0) } else { self.file.clear(at, range.len().0) }
    }

    fn store(&self, to: Placed, bytes: &[u8]) -> Result<()> {
        self.file.file().write_all_at(to.at, bytes)
    }

    fn load(&self, from: Placed, bytes: &mut [u8]) -> Result<()> {
        self.file.file().read_exact_at(from.at, bytes)
    }

    fn identify(&self, content: blake3::Hash) {
        self.identity.content(*content.as_bytes());
    }

    fn finish(self: Box<Self>) -> Result<Receipt> {
        let Fixed { file, shape, identity, zeros } = *self;
        let end = shape.first_block + shape.disk_size;
        match zeros {
            true => file.write_zeros(end, shape.file_end() - end)?,
            false => file.clear(end, shape.file_end() - end)?,
        }
        let mut bat = TableWriter::new(FileOffset(BAT), 0);
        for block in 0..shape.layout.blocks {
            let entry = (shape.first_block + block * shape.block_size) | bat::FULLY_PRESENT;
            bat.put(&file, shape.layout.payload(block) * bat::ENTRY_BYTES, &entry.to_le_bytes())?;
        }
        bat.finish(&file, Bytes(shape.layout.entries * bat::ENTRY_BYTES))?;
        shape.finish(file, shape.file_end(), &identity, None)
    }

    fn leave(&self) {
        self.file.file().leave();
    }
}
