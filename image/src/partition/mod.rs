//! Partition tables: MBR with logical partitions, and GPT; the bytes of a new GPT.
//!
//! The rules for what counts as a table are those of the Linux kernel, because the guest's firmware and kernel will
//! decide the same way: a GPT counts only behind a protective MBR, and a boot sector of a file system is no table.
//! Damage that can be read around (a broken primary GPT) is read around and noted.
//!
//! Absent on purpose: writing MBR tables, changing the partitions of a disk other than enlarging its last one
//! ([`create::grown`]), BSD disklabels and other tables inside a partition, LDM.

pub mod create;
mod gpt;
mod mbr;

use crate::disk::{self, Disk};
use crate::error::Result;
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::fmt;

/// The kind of a partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Master boot record, with logical partitions in an extended one.
    Mbr,
    /// GUID partition table.
    Gpt,
}

/// A partition table as it stands on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which kind.
    pub scheme: Scheme,
    /// The disk's identity: `0x1234abcd` for MBR, a GUID in lower case for GPT.
    pub disk_id: String,
    /// Logical sector size that the table counts in. For a GPT found by looking; for MBR the disk's own.
    pub sector_size: Bytes,
    /// The partitions, by number.
    pub entries: Vec<Entry>,
    /// What is odd about the table, for people: damage that was read around, partitions cut at the disk's end.
    pub notes: Vec<String>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number as Linux counts: 1 to 4 for primary MBR partitions, 5 and up for logical ones; in a GPT the
    /// place in the table.
    pub number: u32,
    /// The bytes it has, inside the disk.
    pub range: GuestRange,
    /// What it is for.
    pub kind: TypeId,
    /// The identity that `/dev/disk/by-partuuid` has: `1234abcd-01` for MBR, a GUID in lower case for GPT.
    pub part_uuid: String,
    /// Its name (GPT only); control characters are replaced.
    pub name: String,
    /// The active flag of an MBR partition, or the legacy-BIOS-bootable attribute of a GPT one.
    pub bootable: bool,
    /// The GPT attributes; 0 for MBR.
    pub attributes: u64,
}

impl Entry {
    /// True for an extended partition, which only holds logical ones.
    pub fn is_extended(&self) -> bool {
        matches!(self.kind, TypeId::Mbr(kind) if mbr::is_extended(kind))
    }
}

/// A partition's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TypeId {
    /// The type byte of an MBR partition.
    Mbr(u8),
    /// The type GUID of a GPT partition.
    Gpt(uuid::Uuid),
}

impl fmt::Display for TypeId {
    /// `0x83`, or a GUID in lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TypeId::Mbr(kind) => write!(f, "0x{kind:02x}"),
            TypeId::Gpt(kind) => write!(f, "{kind}"),
        }
    }
}

/// Reads the partition table of `disk`; `None` where it has none: an empty disk, or one that holds a file system or
/// a physical volume directly. [`Kind::Corrupt`](crate::Kind::Corrupt) where a protective MBR stands before a GPT
/// of which neither copy is intact.
pub fn read(disk: &dyn Disk) -> Result<Option<Table>> {
    let mut sector = [0; 512];
    if disk.size().0 < sector.len() as u64 {
        return Ok(None);
    }
    disk.read_at(GuestOffset(0), &mut sector)?;
    let Some(record) = mbr::parse(&sector) else { return Ok(None) };
    if record.is_protective() {
        return gpt::read(disk, &record).map(Some);
    }
    if record.is_file_system(disk) {
        return Ok(None);
    }
    mbr::read(disk, &record).map(Some)
}

/// A partition as a table gives it, in sectors.
#[derive(Clone, Copy)]
struct Place {
    number: u32,
    first: u64,
    /// Sectors; more than 0.
    len: u64,
}

/// The bytes of a partition, cut at the end of the disk. `None` where it begins behind that. Both are noted.
fn place(disk: &dyn Disk, sector_size: Bytes, place: Place, notes: &mut Vec<String>) -> Option<GuestRange> {
    let Place { number, first, len } = place;
    let start = first.checked_mul(sector_size.0);
    let end = first.checked_add(len).and_then(|end| end.checked_mul(sector_size.0)).unwrap_or(u64::MAX);
    let size = disk.size().0;
    let Some(start) = start.filter(|&start| start < size) else {
        notes.push(format!(
            "partition {number} begins at sector {first}, behind the end of the disk ({} sectors)",
            size / sector_size.0
        ));
        return None;
    };
    if end > size {
        notes.push(format!(
            "partition {number} has {len} sectors from sector {first} and passes the end of the disk ({} sectors)",
            size / sector_size.0
        ));
    }
    Some(disk::clip(GuestRange::between(GuestOffset(start), GuestOffset(end)), disk.size()))
}

/// Notes partitions that lie on each other.
fn note_overlaps(entries: &[Entry], notes: &mut Vec<String>) {
    let mut order: Vec<&Entry> = entries.iter().filter(|entry| !entry.is_extended()).collect();
    order.sort_by_key(|entry| (entry.range.start(), entry.number));
    for pair in order.windows(2) {
        if let [one, next] = pair
            && next.range.start() < one.range.end()
        {
            notes.push(format!("partitions {} and {} overlap", one.number, next.number));
        }
    }
}

#[cfg(test)]
mod tests;
