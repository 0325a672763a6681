//! The header of a space-efficient sparse extent (`seSparse`): ESXi snapshots on VMFS-6, and of disks over 2 TiB.
//!
//! Source: VMware published no specification; this is what the public readers (QEMU, libvmdk) agree on. All
//! integers are 64 bits, little-endian; offsets and sizes count sectors.
//!
//! ```text
//! sector 0   constant header: magic 0 (0xcafebabe), version 8, capacity 16, grain size 24 (8), grain table
//!            size 32 (64), flags 40, reserved 48..80, then pairs of offset and size: volatile header 80,
//!            journal header 96, journal 112, grain directory 128, grain tables 144, free bitmap 160,
//!            back map 176, grains 192
//! volatile   magic 0 (0xcafecafe), free table number 8, next transaction 16, replay journal 24
//! directory  0: none stored; 0x10000000_tttttttt: grain table number t
//! tables     4096 entries, the highest 4 bits are the type: 0 not stored, 1 unmapped and 2 zero (zeros),
//!            3 stored: bits 0..48 are the grain number's bits 12.., bits 48..60 its lowest 12
//! ```
//! Absent: journal replay. A file that needs it (its host died) is refused.

use super::field::{Sector, bytes, le64};
use super::layout::{Compression, Entries, Layout, checked_size, directory_entries};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::units::{Bytes, FileOffset, SECTOR_SIZE_BYTES, Sectors};

/// First bytes of the file.
pub(super) const MAGIC: &[u8; 8] = b"\xbe\xba\xfe\xca\0\0\0\0";

const VOLATILE_MAGIC: u64 = 0xcafe_cafe;
const VERSION: u64 = 0x2_0000_0001;
const GRAIN_SECTORS: u64 = 8;
const TABLE_SECTORS: u64 = 64;
/// Bytes of a grain table.
pub(super) const TABLE_BYTES: u64 = TABLE_SECTORS * SECTOR_SIZE_BYTES;
const ENTRIES_PER_TABLE: u64 = TABLE_BYTES / 8;

/// An area of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) offset: Sectors,
    pub(super) size: Sectors,
}

impl Area {
    /// First byte and the byte behind the last.
    fn range(self, name: &str) -> Result<(u64, u64)> {
        let start = self.offset.to_bytes().map(|bytes| bytes.0);
        let end = self.offset.0.checked_add(self.size.0).and_then(|end| Sectors(end).to_bytes());
        match (start, end) {
            (Some(start), Some(end)) => Ok((start, end.0)),
            _ => Err(Error::corrupt(format!(
                "the {name} is at sector {:#x}, {:#x} sectors long: past any file",
                self.offset.0, self.size.0
            ))),
        }
    }
}

/// The constant header's fields that matter to a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) capacity: Sectors,
    pub(super) volatile: Area,
    pub(super) directory: Area,
    pub(super) tables: Area,
    pub(super) grains: Area,
}

/// Reads the constant header.
pub(super) fn parse(raw: &[u8]) -> Result<Header> {
    let Some(sector) = raw.first_chunk::<512>() else {
        return Err(Error::corrupt(format!("the seSparse header has {} bytes, not 512", raw.len())));
    };
    let sector: &Sector = sector;
    if &bytes::<0, 8>(sector) != MAGIC {
        return Err(Error::corrupt("the seSparse header does not start with 0xcafebabe"));
    }
    // The format is not published: anything that was never seen is not read.
    for (field, at, value, known) in [
        ("version", 8, le64::<8>(sector), VERSION),
        ("grain size", 24, le64::<24>(sector), GRAIN_SECTORS),
        ("grain table size", 32, le64::<32>(sector), TABLE_SECTORS),
        ("flags", 40, le64::<40>(sector), 0),
    ] {
        if value != known {
            return Err(Error::unsupported(format!("seSparse {field} {value:#x}; only {known:#x} is read"))
                .at(FileOffset(at)));
        }
    }
    Ok(Header {
        capacity: Sectors(le64::<16>(sector)),
        volatile: Area { offset: Sectors(le64::<80>(sector)), size: Sectors(le64::<88>(sector)) },
        directory: Area { offset: Sectors(le64::<128>(sector)), size: Sectors(le64::<136>(sector)) },
        tables: Area { offset: Sectors(le64::<144>(sector)), size: Sectors(le64::<152>(sector)) },
        grains: Area { offset: Sectors(le64::<192>(sector)), size: Sectors(le64::<200>(sector)) },
    })
}

impl Header {
    /// What the reader needs to know. Reads the volatile header, which tells whether the tables are up to date.
    pub(super) fn layout(&self, source: &Source) -> Result<Layout> {
        let (volatile, _) = self.volatile.range("volatile header")?;
        let mut sector: Sector = [0; 512];
        source.read_exact_at(FileOffset(volatile), &mut sector)?;
        if le64::<0>(&sector) != VOLATILE_MAGIC {
            return Err(
                Error::corrupt("the volatile header does not start with 0xcafecafe").at(FileOffset(volatile))
            );
        }
        if le64::<24>(&sector) != 0 {
            return Err(Error::unsupported("its journal must be replayed first: its host stopped in mid-write")
                .at(FileOffset(volatile))
                .hint("open the disk once on an ESXi host (power the machine on and off, or clone it with vmkfstools -i)"));
        }
        let size = checked_size(self.capacity)?;
        let grain = Bytes(GRAIN_SECTORS * SECTOR_SIZE_BYTES);
        let entries = directory_entries(size, grain, ENTRIES_PER_TABLE, 8)?;
        let (directory, directory_end) = self.directory.range("grain directory")?;
        if (directory_end - directory) / 8 < entries as u64 {
            return Err(Error::corrupt(format!(
                "the grain directory has {} entries; {} sectors need {entries}",
                (directory_end - directory) / 8,
                self.capacity.0
            ))
            .at(FileOffset(136)));
        }
        let (tables, tables_end) = self.tables.range("grain tables")?;
        let (grains, grains_end) = self.grains.range("grains")?;
        Ok(Layout {
            size,
            grain,
            entries_per_table: ENTRIES_PER_TABLE,
            directory: Ok(FileOffset(directory)),
            redundant_directory: None,
            directory_entries: entries,
            entries: Entries::SeSparse {
                tables: FileOffset(tables),
                tables_end,
                grains: FileOffset(grains),
                grains_end,
            },
            compression: Compression::None,
            reserved: vec![
                (0, SECTOR_SIZE_BYTES),
                (volatile, volatile + SECTOR_SIZE_BYTES),
                (directory, directory_end),
            ],
        })
    }
}
