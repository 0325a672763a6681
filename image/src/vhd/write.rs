//! Writes VHD files.
//!
//! ```text
//! +--------+--------+----------+-------+-----+--------+-----------+-----+--------+-----------+--------+
//! | footer | header | parent   | block | gap | bitmap | block     | gap | bitmap | block     | footer |
//! | (copy) |        | locators | table |     |        |           |     |        |           |        |
//! +--------+--------+----------+-------+-----+--------+-----------+-----+--------+-----------+--------+
//!                                                     ^ 4 KiB                    ^ 4 KiB
//! ```
//!
//! The size is exact: the current size counts for Hyper-V, Azure, XenServer and, since the creator is `win `, for
//! QEMU. Virtual PC and Virtual Server go by the geometry instead, which cannot express most sizes: they show up to
//! one cylinder (4 MiB) less. To round the disk up to a geometry, as `qemu-img` does by itself, would move its end, where
//! a GPT has its second header.
//!
//! A gap before each bitmap puts the data on whole 4 KiB, which the format allows and which disks with large sectors
//! and sparse files gain from. Time stamps are 0, the first second of 2000, so that the same disk gives the same file.

use super::dynamic::{self, ENTRY_BYTES, HEADER_BYTES, SECTOR_BYTES, UNUSED};
use super::footer::{self, FOOTER_BYTES, Kind};
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
/// What Hyper-V writes, and the larger of the two sizes that it reads.
const BLOCK_DEFAULT: u64 = 2 * MIB;
const BLOCK_SIZES: (u64, u64) = (512 << 10, 2 * MIB);
/// Data begins at multiples of it.
const ALIGNMENT: u64 = 4096;
const FIXED_PREALLOCATION: &[Preallocation] = &[Preallocation::Falloc, Preallocation::Full];

/// Zeros are found in units of this in a dynamic disk.
const GRANULARITY: Bytes = Bytes::kib(64);
/// The same where every unit that is stored costs, or hides a base.
const GRANULARITY_FINE: Bytes = Bytes::kib(4);

/// Begins a dynamic VHD, or a differencing one over [`CreateOptions::base`], of a disk of `size` bytes, rounded up to
/// whole sectors. Takes a block size from 512 KiB to 2 MiB. Refused above 2040 GiB.
pub fn create(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    options.check(path, "vhd", &Takes { block_size: Some(BLOCK_SIZES), base: true, ..Takes::default() })?;
    let disk_size = check_size(path, size, SECTOR_BYTES, limits::VHD_WRITTEN)?;
    let block_size = options.block_size.map_or(BLOCK_DEFAULT, |size| size.0);
    let parent = options.base.as_ref().map(|base| -> Result<Parent> {
        let id = check_base(base, crate::Format::Vhd, Bytes(disk_size), path)?;
        Parent::new(id, &BackslashNames::of(base, path)?).map_err(|e| e.in_file(path))
    });
    let parent = parent.transpose()?;
    let shape = Shape::new(disk_size, block_size, parent.as_ref());
    let file = Target::new(PartialFile::create(path, options.files)?)?;
    file.clear(0, shape.first_block)?;
    let blocks = Allocated {
        next: shape.first_block,
        table: TableWriter::new(FileOffset(shape.table), 0xff),
        shape,
        has_base: parent.is_some(),
    };
    let walk = Mutex::new(Walk::new(blocks, size, Bytes(block_size), parent.is_some()));
    let granularity = if parent.is_some() { GRANULARITY_FINE } else { GRANULARITY };
    Ok(Box::new(Writer { file, shape, parent, granularity, identity: Identity::default(), walk }))
}

/// Begins a fixed VHD: the disk's bytes and a footer. The host's file stays sparse unless the options preallocate it.
/// Otherwise as [`create`].
pub fn create_fixed(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    fixed(path, size, options, "vhd-fixed", SECTOR_BYTES, limits::VHD_WRITTEN)
}

/// Begins a fixed VHD as Azure demands it: of whole MiB, rounded up with zeros. Refused above 32 TiB.
pub fn create_azure(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    fixed(path, size, options, "vhd-azure", MIB, limits::VHD_AZURE)
}

fn fixed(
    path: &Path,
    size: Bytes,
    options: &CreateOptions,
    kind: &str,
    unit: u64,
    limit: Bytes,
) -> Result<Box<dyn Sink>> {
    options.check(path, kind, &Takes { preallocation: FIXED_PREALLOCATION, ..Takes::default() })?;
    let disk_size = check_size(path, size, unit, limit)?;
    let file = Target::new(PartialFile::create(path, options.files)?)?;
    if options.preallocation != Preallocation::Off {
        file.file().reserve(Bytes(disk_size + FOOTER_BYTES as u64))?;
    }
    let zeros = options.preallocation == Preallocation::Full;
    Ok(Box::new(Fixed { file, told_size: size.0, disk_size, zeros, identity: Identity::default() }))
}

/// `size` in whole units, if it is possible.
fn check_size(path: &Path, size: Bytes, unit: u64, limit: Bytes) -> Result<u64> {
    if size.0 == 0 || size > limit {
        return Err(Error::refused(format!("a VHD disk of {} bytes; 1 to {} are possible", size.0, limit.0))
            .in_file(path)
            .hint("choose vhdx for larger disks"));
    }
    Ok(size.0.next_multiple_of(unit))
}

/// Where everything lies in a dynamic disk's file.
#[derive(Clone, Copy, Debug)]
struct Shape {
    disk_size: u64,
    block_size: u64,
    blocks: u64,
    bitmap_bytes: u64,
    table: u64,
    /// From here on blocks lie, gaps first.
    first_block: u64,
}

impl Shape {
    fn new(disk_size: u64, block_size: u64, parent: Option<&Parent>) -> Shape {
        let locators = parent.map_or(0, |parent| parent.locators.iter().map(|locator| locator.room()).sum());
        let blocks = disk_size.div_ceil(block_size);
        let table = (FOOTER_BYTES + HEADER_BYTES) as u64 + locators;
        let first_block = table + (blocks * ENTRY_BYTES).next_multiple_of(SECTOR_BYTES);
        Shape {
            disk_size,
            block_size,
            blocks,
            bitmap_bytes: dynamic::bitmap_bytes(block_size),
            table,
            first_block,
        }
    }
}

/// What a differencing disk says of its base.
#[derive(Debug)]
struct Parent {
    id: Uuid,
    /// UTF-16, for people.
    name: Vec<u16>,
    locators: Vec<NewLocator>,
}

/// A path of the base, in UTF-16.
#[derive(Debug)]
struct NewLocator {
    platform: [u8; 4],
    path: Vec<u8>,
}

impl NewLocator {
    fn new(platform: &[u8; 4], path: &str) -> NewLocator {
        NewLocator { platform: *platform, path: path.encode_utf16().flat_map(u16::to_le_bytes).collect() }
    }

    /// What it takes in the file: whole sectors.
    fn room(&self) -> u64 {
        (self.path.len() as u64).next_multiple_of(SECTOR_BYTES)
    }
}

impl Parent {
    fn new(id: Uuid, names: &BackslashNames) -> Result<Parent> {
        let whole = names.absolute.as_deref().unwrap_or(names.relative.trim_start_matches(".\\"));
        let last = whole.rsplit('\\').next().unwrap_or(whole);
        let fitting = [whole, last].into_iter().map(|name| name.encode_utf16().collect::<Vec<_>>());
        let name = fitting.into_iter().find(|name| name.len() <= dynamic::PARENT_NAME_UNITS);
        let name = name.ok_or_else(|| {
            Error::refused(format!(
                "the name of its base is {} long in UTF-16; the limit is {}",
                last.encode_utf16().count(),
                dynamic::PARENT_NAME_UNITS
            ))
            .hint("rename the base")
        })?;
        let mut locators = vec![NewLocator::new(b"W2ru", &names.relative)];
        locators.extend(names.absolute.as_deref().map(|path| NewLocator::new(b"W2ku", path)));
        Ok(Parent { id, name, locators })
    }
}

/// The blocks of a dynamic or differencing disk.
#[derive(Debug)]
struct Allocated {
    shape: Shape,
    /// Where the file ends, without its footer.
    next: u64,
    table: TableWriter,
    has_base: bool,
}

impl Blocks for Allocated {
    fn allocate(&mut self, file: &Target, _: u64) -> Result<u64> {
        let data = (self.next + self.shape.bitmap_bytes).next_multiple_of(ALIGNMENT);
        file.clear(self.next, data - self.next)?;
        self.next = data + self.shape.block_size;
        Ok(data)
    }

    fn pass(&mut self, file: &Target, passed: &Passed) -> Result<()> {
        let Some(data) = passed.at else {
            return Err(Error::refused(format!("block {} has no room", passed.block)));
        };
        let at = data - self.shape.bitmap_bytes;
        let mut bitmap = vec![0; usize::try_from(self.shape.bitmap_bytes).unwrap_or(0)];
        match self.has_base {
            true => {
                for &(start, end) in &passed.stored {
                    bits::set(
                        &mut bitmap,
                        start / SECTOR_BYTES,
                        end.div_ceil(SECTOR_BYTES),
                        bits::MOST_FIRST,
                    );
                }
            }
            // As Hyper-V does: the whole block is there, its zeros too.
            false => bits::set(&mut bitmap, 0, self.shape.block_size / SECTOR_BYTES, bits::MOST_FIRST),
        }
        file.file().write_all_at(FileOffset(at), &bitmap)?;
        // 2040 GiB and the bitmaps of their blocks stay below 2^32 sectors.
        let sector =
            u32::try_from(at / SECTOR_BYTES).ok().filter(|&sector| sector != UNUSED).ok_or_else(|| {
                Error::refused(format!("block {} lies at {at:#x}: past what a VHD can hold", passed.block))
            })?;
        self.table.put(file, passed.block * ENTRY_BYTES, &sector.to_be_bytes())
    }

    fn zero_needs_room(&self) -> bool {
        true
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

    /// The header, with where the locators lie, and the locators.
    fn put_header(file: &Target, shape: &Shape, parent: Option<&Parent>) -> Result<()> {
        let mut at = (FOOTER_BYTES + HEADER_BYTES) as u64;
        let mut locators = Vec::new();
        for locator in parent.map_or(&[][..], |parent| &parent.locators) {
            file.file().write_all_at(FileOffset(at), &locator.path)?;
            locators.push((locator.platform, locator.room(), locator.path.len() as u64, at));
            at += locator.room();
        }
        let parent = parent.map(|parent| (parent.id, parent.name.as_slice()));
        let header = dynamic::new_header(shape.table, shape.blocks, shape.block_size, parent, &locators)?;
        file.file().write_all_at(FileOffset(FOOTER_BYTES as u64), &header)
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
        let blocks = walk.into_inner().unwrap_or_else(PoisonError::into_inner).finish()?;
        let end = blocks.next;
        blocks.table.finish(&file, Bytes(shape.first_block - shape.table))?;
        Writer::put_header(&file, &shape, parent.as_ref())?;
        let kind = if parent.is_some() { Kind::Differencing } else { Kind::Dynamic };
        let base = parent.map_or(Uuid::nil(), |parent| parent.id);
        finish(file, end, kind, shape.disk_size, &identity, base)
    }

    fn leave(&self) {
        self.file.file().leave();
    }
}

/// Puts the footer at `end`, and its copy where there is one, and gives the file its name.
fn finish(
    file: Target,
    end: u64,
    kind: Kind,
    disk_size: u64,
    identity: &Identity,
    base: Uuid,
) -> Result<Receipt> {
    let name = file.file().target().file_name().unwrap_or_default().as_encoded_bytes();
    let id = identity.guid("vhd", &[name, &disk_size.to_le_bytes(), base.as_bytes()]);
    let footer = footer::new_footer(kind, disk_size, id);
    file.file().set_len(Bytes(end + footer.len() as u64))?;
    file.file().write_all_at(FileOffset(end), &footer)?;
    if kind != Kind::Fixed {
        file.file().write_all_at(FileOffset(0), &footer)?;
    }
    let (path, allocated) = file.into_file().commit()?;
    Ok(Receipt { files: vec![path], allocated })
}

/// A fixed disk.
struct Fixed {
    file: Target,
    /// What the walk covers; zeros follow up to `disk_size`.
    told_size: u64,
    disk_size: u64,
    /// Zeros are written, not left out.
    zeros: bool,
    identity: Identity,
}

impl Fixed {
    fn zero(&self, at: u64, len: u64) -> Result<()> {
        if self.zeros { self.file.write_zeros(at, len) } else { self.file.clear(at, len) }
    }
}

impl Sink for Fixed {
    fn granularity(&self) -> Bytes {
        GRANULARITY_FINE
    }

    fn place(&self, range: GuestRange, _: &[Piece]) -> Result<Vec<Placed>> {
        let len = usize::try_from(range.len().0)
            .map_err(|_| Error::refused(format!("a run of {} bytes", range.len().0)))?;
        Ok(vec![Placed { file: 0, at: FileOffset(range.start().0), len }])
    }

    fn zero(&self, range: GuestRange) -> Result<()> {
        Fixed::zero(self, range.start().0, range.len().0)
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
        Fixed::zero(&self, self.told_size, self.disk_size - self.told_size)?;
        let Fixed { file, disk_size, identity, .. } = *self;
        finish(file, disk_size, Kind::Fixed, disk_size, &identity, Uuid::nil())
    }

    fn leave(&self) {
        self.file.file().leave();
    }
}
