//! The header of VirtualBox's VDI, version 1.1.
//!
//! ```text
//! 0     text, for people          +------------+-----------+---------+---------+--
//! 64    signature, version        | header     | block map | block 0 | block 1 | …
//! 72    length of the header      | from 0     | 4 bytes   | in the order of
//! 76    type, flags               |            | a block   | the map's values
//! 84    comment, 256 bytes        +------------+-----------+---------+---------+--
//! 340   offset of the map         a value: number of the block in the file, or
//! 344   offset of the blocks      ffffffff not stored, fffffffe zeros
//! 348   geometry, sector size     392   id of this image, 408 of its last modification,
//! 368   size of the disk          424   id of the parent, 440 of the parent's modification
//! 376   size of a block, extra
//! 384   blocks, blocks stored
//! ```
//!
//! All integers are little-endian.

use crate::error::{Error, Result};
use crate::limits;
use uuid::Uuid;

/// Bytes of the header that are read.
pub const HEADER_BYTES: usize = 456;
/// What every VDI has at [`SIGNATURE_AT`].
pub const SIGNATURE: &[u8] = b"\x7f\x10\xda\xbe";
/// Where it lies.
pub const SIGNATURE_AT: usize = 64;
/// A map entry of a block that is not stored.
pub const UNUSED: u32 = u32::MAX;
/// A map entry of a block that is zeros.
pub const ZERO: u32 = u32::MAX - 1;
/// Length of a map entry.
pub const ENTRY_BYTES: u64 = 4;

/// Blocks that are read: every writer makes 1 MiB.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 4096..=256 << 20;

/// The kind of image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Dynamic,
    Fixed,
    Differencing,
}

impl Kind {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Dynamic => "dynamic",
            Kind::Fixed => "fixed",
            Kind::Differencing => "differencing",
        }
    }
}

/// A header whose values fit one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The kind.
    pub kind: Kind,
    /// Where the block map begins, behind the header.
    pub map_offset: u64,
    /// Where the blocks begin, behind the map.
    pub data_offset: u64,
    /// Size of the disk, at most [`limits::DISK_SIZE`].
    pub size_bytes: u64,
    /// A power of two.
    pub block_size_bytes: u64,
    /// Entries of the map, enough for the disk.
    pub blocks: u32,
    /// How many of them are stored, as the header has it.
    pub blocks_stored: u32,
    /// The image's own id, which children name.
    pub id: Uuid,
    /// Changes when the image is changed.
    pub modification_id: Uuid,
    /// [`Header::id`] of the parent.
    pub parent_id: Uuid,
    /// [`Header::modification_id`] of the parent when the child was made.
    pub parent_modification_id: Uuid,
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    at.checked_add(N).and_then(|end| bytes.get(at..end)).and_then(|part| part.try_into().ok()).ok_or_else(
        || Error::corrupt(format!("a structure of {} bytes is cut off at byte {at}", bytes.len())),
    )
}

fn le32(bytes: &[u8], at: usize) -> Result<u32> {
    field(bytes, at).map(u32::from_le_bytes)
}

impl Header {
    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Header> {
        if field::<4>(bytes, SIGNATURE_AT)? != SIGNATURE {
            return Err(Error::corrupt("the header has no VDI signature"));
        }
        let version = le32(bytes, 68)?;
        if version != 0x1_0001 {
            return Err(Error::unsupported(format!(
                "VDI version {}.{}; version 1.1 is read",
                version >> 16,
                version & 0xffff
            ))
            .hint("open it once with a current VirtualBox, which converts it"));
        }
        let header_length = u64::from(le32(bytes, 72)?);
        let kind = match le32(bytes, 76)? {
            1 => Kind::Dynamic,
            2 => Kind::Fixed,
            4 => Kind::Differencing,
            kind => {
                return Err(Error::unsupported(format!(
                    "the image type is {kind}; 1 (dynamic), 2 (fixed) and 4 (differencing) are read"
                )));
            }
        };
        let (sector_size, block_size, extra) = (le32(bytes, 360)?, le32(bytes, 376)?, le32(bytes, 380)?);
        if sector_size != 512 {
            return Err(Error::corrupt(format!("the sector size is {sector_size} bytes; it must be 512")));
        }
        if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
            return Err(Error::corrupt(format!(
                "the block size is {block_size} bytes; it must be a power of two from {} to {}",
                BLOCK_SIZES.start(),
                BLOCK_SIZES.end()
            )));
        }
        if extra != 0 {
            return Err(Error::unsupported(format!("blocks with {extra} bytes of extra data")));
        }
        let header = Header {
            kind,
            map_offset: u64::from(le32(bytes, 340)?),
            data_offset: u64::from(le32(bytes, 344)?),
            size_bytes: u64::from_le_bytes(field(bytes, 368)?),
            block_size_bytes: u64::from(block_size),
            blocks: le32(bytes, 384)?,
            blocks_stored: le32(bytes, 388)?,
            id: Uuid::from_bytes_le(field(bytes, 392)?),
            modification_id: Uuid::from_bytes_le(field(bytes, 408)?),
            parent_id: Uuid::from_bytes_le(field(bytes, 424)?),
            parent_modification_id: Uuid::from_bytes_le(field(bytes, 440)?),
        };
        if header.size_bytes == 0 || header.size_bytes > limits::DISK_SIZE.0 {
            return Err(Error::corrupt(format!(
                "the disk has {} bytes; 1 to {} are possible",
                header.size_bytes,
                limits::DISK_SIZE.0
            )));
        }
        let needed = header.size_bytes.div_ceil(header.block_size_bytes);
        if needed > u64::from(header.blocks) || header.blocks >= ZERO {
            return Err(Error::corrupt(format!(
                "the block map has {} entries; a disk of {} bytes needs {needed}",
                header.blocks, header.size_bytes
            )));
        }
        let header_end = (SIGNATURE_AT as u64 + 8).saturating_add(header_length);
        if header.map_offset < header_end || header.map_end() > header.data_offset {
            return Err(Error::corrupt(format!(
                "the block map lies from {:#x} to {:#x}; it must lie behind the header, which ends at {header_end:#x}, and before the blocks at {:#x}",
                header.map_offset,
                header.map_end(),
                header.data_offset
            )));
        }
        Ok(header)
    }

    /// Where the block map ends.
    pub fn map_end(&self) -> u64 {
        self.map_offset + u64::from(self.blocks) * ENTRY_BYTES
    }
}
