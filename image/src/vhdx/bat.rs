//! The block allocation table: [MS-VHDX] 2.5. One 64-bit entry per payload block, with one entry for a sector
//! bitmap block behind every chunk of them.
//!
//! ```text
//! index     0 .. ratio-1   ratio    ratio+1 .. 2*ratio   2*ratio+1
//!         +--------------+--------+--------------------+-----------+--
//!         | payload 0 …  | bitmap | payload ratio …    | bitmap 1  | …
//!         |    ratio-1   | 0      |                    |           |
//!         +--------------+--------+--------------------+-----------+--
//! entry   bits 0-2 state, 3-19 reserved, 20-63 offset in the file in MiB
//! ratio   2^23 sectors * logical sector size / block size: what the bits of one 1 MiB bitmap cover
//! ```

use crate::error::{Error, Result};

/// Sectors that one sector bitmap block covers, one bit each.
pub const SECTORS_PER_BITMAP: u64 = 1 << 23;
/// Length of a sector bitmap block.
pub const BITMAP_BYTES: u64 = 1 << 20;
/// Length of an entry.
pub const ENTRY_BYTES: u64 = 8;

/// State of a payload block that is zeros.
pub const ZERO: u64 = 2;
/// State of a payload block that is in the file.
pub const FULLY_PRESENT: u64 = 6;
/// State of a payload block that is in the file where its sector bitmap says so.
pub const PARTIALLY_PRESENT: u64 = 7;
/// State of a sector bitmap block that is in the file.
pub const BITMAP_PRESENT: u64 = 6;

/// Where entries lie in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Payload blocks of the disk.
    pub blocks: u64,
    /// Payload blocks per sector bitmap.
    pub chunk_ratio: u64,
    /// Entries that the table must have.
    pub entries: u64,
    /// A differencing disk: every chunk has its bitmap entry.
    pub has_parent: bool,
}

impl Layout {
    /// The layout for a disk whose sizes were checked by [`Metadata`](super::metadata::Metadata).
    pub fn new(size_bytes: u64, block_size_bytes: u64, sector_size_bytes: u64, has_parent: bool) -> Layout {
        // At most 2^23 * 4096 / 2^20 = 2^15, at least 2^23 * 512 / 2^28 = 16; blocks are at most 2^26.
        let chunk_ratio = SECTORS_PER_BITMAP * sector_size_bytes / block_size_bytes;
        let blocks = size_bytes.div_ceil(block_size_bytes);
        let entries = match has_parent {
            true => blocks.div_ceil(chunk_ratio) * (chunk_ratio + 1),
            false => blocks + blocks.saturating_sub(1) / chunk_ratio,
        };
        Layout { blocks, chunk_ratio, entries, has_parent }
    }

    /// Index of a payload block's entry.
    pub fn payload(&self, block: u64) -> u64 {
        block + block / self.chunk_ratio
    }

    /// Index of the entry of the sector bitmap that covers a payload block.
    pub fn bitmap(&self, block: u64) -> u64 {
        block / self.chunk_ratio * (self.chunk_ratio + 1) + self.chunk_ratio
    }
}

/// Where a payload block's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Never stored here: the parent's, or zeros.
    NotPresent,
    /// Zeros. Also blocks whose content is undefined or was unmapped: the parent does not show through, and
    /// zeros are what the specification offers for them.
    Zero,
    /// Whole in the file at this offset.
    Present(u64),
    /// In the file at this offset, where the sector bitmap says so; else the parent's.
    PartiallyPresent(u64),
}

/// Reads a payload entry. The offset is not checked against the file.
pub fn parse_payload(entry: u64) -> Result<Block> {
    let offset = offset(entry);
    match entry & 7 {
        0 => Ok(Block::NotPresent),
        // Undefined, zero, unmapped as today and as in files of the first specification.
        1 | ZERO | 3 | 5 => Ok(Block::Zero),
        FULLY_PRESENT => Ok(Block::Present(offset)),
        PARTIALLY_PRESENT => Ok(Block::PartiallyPresent(offset)),
        state => Err(Error::corrupt(format!("the entry is {entry:#018x}: its state {state} is reserved"))),
    }
}

/// Reads a sector bitmap entry: the offset of the bitmap, or `None` where it is not present.
pub fn parse_bitmap(entry: u64) -> Result<Option<u64>> {
    match entry & 7 {
        0 => Ok(None),
        BITMAP_PRESENT => Ok(Some(offset(entry))),
        state => Err(Error::corrupt(format!(
            "the sector bitmap entry is {entry:#018x}: its state is {state}; 0 and 6 are defined"
        ))),
    }
}

/// Bits 20 to 63 count MiB, so that the bits as they stand are bytes.
fn offset(entry: u64) -> u64 {
    entry & !0xf_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked by hand from the formulas of the specification.
    #[test]
    fn entries_interleave() {
        let layout = Layout::new(10 << 30, 1 << 20, 512, true);
        assert_eq!(layout, Layout { blocks: 10240, chunk_ratio: 4096, entries: 3 * 4097, has_parent: true });
        assert_eq!((layout.payload(4095), layout.bitmap(4095)), (4095, 4096));
        assert_eq!((layout.payload(4096), layout.bitmap(4096)), (4097, 8193));
        let layout = Layout::new(10 << 30, 1 << 20, 512, false);
        assert_eq!(layout.entries, 10242);
        assert_eq!(Layout::new(4 << 30, 1 << 20, 512, false).entries, 4096);
        assert_eq!(
            Layout::new(1, 256 << 20, 4096, false),
            Layout { blocks: 1, chunk_ratio: 128, entries: 1, has_parent: false }
        );
        assert_eq!(Layout::new(64 << 40, 1 << 20, 512, false).entries, (64 << 20) + (64 << 20) / 4096 - 1);
    }

    #[test]
    fn states() {
        let entry = |state: u64| 5 << 20 | state;
        assert_eq!(parse_payload(entry(0)).unwrap(), Block::NotPresent);
        for zero in [1, 2, 3, 5] {
            assert_eq!(parse_payload(entry(zero)).unwrap(), Block::Zero);
        }
        assert!(parse_payload(entry(4)).is_err());
        assert_eq!(parse_payload(entry(6)).unwrap(), Block::Present(5 << 20));
        assert_eq!(parse_payload(entry(7)).unwrap(), Block::PartiallyPresent(5 << 20));
        assert_eq!(parse_bitmap(entry(6)).unwrap(), Some(5 << 20));
        assert_eq!(parse_bitmap(0).unwrap(), None);
        assert!(parse_bitmap(entry(7)).is_err());
    }
}
