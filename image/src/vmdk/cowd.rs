//! The header of an ESX sparse extent (`vmfsSparse`, magic `COWD`): the snapshots of ESX up to VMFS-5.
//!
//! Source: VMware, Virtual Disk Format 5.0, "ESXi Host Sparse Extents". All integers are 32 bits, little-endian.
//!
//! ```text
//! sector 0..3   header: magic 0, version 4, flags 8, numSectors 12, grainSize 16, gdOffset 20, numGDEntries 24,
//!               freeSector 28, parent name 32, …, uncleanShutdown 1640
//!        4..    grain directory: the grain table's sector; 0: none of its grains is stored
//!               grain tables: 4096 entries, the grain's sector; 0: not stored
//! ```
//! Absent: version 3, which Workstation 3 wrote (other table sizes, hardly documented); names in the header, the
//! descriptor's count.

use super::field::{Sector, bytes, le32};
use super::layout::{Compression, Entries, Layout, checked_size, directory_entries};
use crate::error::{Error, Result};
use crate::limits;
use crate::units::{Bytes, FileOffset, SECTOR_SIZE_BYTES, Sectors};

/// First bytes of the file.
pub(super) const MAGIC: &[u8; 4] = b"COWD";

/// Where the byte lies that says that the extent is, or was, open for writing.
pub(super) const UNCLEAN_SHUTDOWN: u64 = 1640;

const VERSION: u32 = 1;
const ENTRIES_PER_TABLE: u64 = 4096;
const HEADER_SECTORS: u64 = 4;

/// The fields that matter to a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) capacity: Sectors,
    pub(super) grain_size: Sectors,
    pub(super) directory_offset: Sectors,
    pub(super) directory_entries: u32,
    /// Where the next grain goes.
    pub(super) free_sector: Sectors,
}

/// Reads a header from its first sector.
pub(super) fn parse(raw: &[u8]) -> Result<Header> {
    let Some(sector) = raw.first_chunk::<512>() else {
        return Err(Error::corrupt(format!("the COWD header has {} bytes, not 512", raw.len())));
    };
    let sector: &Sector = sector;
    if &bytes::<0, 4>(sector) != MAGIC {
        return Err(Error::corrupt("the header does not start with COWD"));
    }
    let version = le32::<4>(sector);
    if version != VERSION {
        return Err(Error::unsupported(format!("COWD version {version}; version {VERSION} is read"))
            .at(FileOffset(4)));
    }
    Ok(Header {
        capacity: Sectors(le32::<12>(sector).into()),
        grain_size: Sectors(le32::<16>(sector).into()),
        directory_offset: Sectors(le32::<20>(sector).into()),
        directory_entries: le32::<24>(sector),
        free_sector: Sectors(le32::<28>(sector).into()),
    })
}

impl Header {
    /// What the reader needs to know.
    pub(super) fn layout(&self) -> Result<Layout> {
        let size = checked_size(self.capacity)?;
        let largest = limits::VMDK_GRAIN.0 / SECTOR_SIZE_BYTES;
        if !self.grain_size.0.is_power_of_two() || self.grain_size.0 > largest {
            return Err(Error::corrupt(format!(
                "grain size {} sectors; it is a power of two up to {largest}",
                self.grain_size.0
            ))
            .at(FileOffset(16)));
        }
        let grain = Bytes(self.grain_size.0 * SECTOR_SIZE_BYTES);
        let needed = directory_entries(size, grain, ENTRIES_PER_TABLE, 4)?;
        if u64::from(self.directory_entries) < needed as u64 {
            return Err(Error::corrupt(format!(
                "the grain directory has {} entries; {} sectors need {needed}",
                self.directory_entries, self.capacity.0
            ))
            .at(FileOffset(24)));
        }
        Ok(Layout {
            size,
            grain,
            entries_per_table: ENTRIES_PER_TABLE,
            // At most 2^32 sectors: no overflow.
            directory: Ok(FileOffset(self.directory_offset.0 * SECTOR_SIZE_BYTES)),
            redundant_directory: None,
            directory_entries: needed,
            entries: Entries::Sectors { zeroed_grains: false },
            compression: Compression::None,
            reserved: vec![(0, HEADER_SECTORS * SECTOR_SIZE_BYTES)],
        })
    }
}
