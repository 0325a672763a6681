//! The master boot record: UEFI specification 2.10, section 5.2; extended boot records as Linux and every
//! partitioning tool keep them.
//!
//! ```text
//! 0     440         444   446                510
//! | code | disk id u32 | 0 | 4 entries of 16  | 55 aa |
//!
//! entry:  0 active (0x80) | 1..4 CHS | 4 type | 5..8 CHS | 8 first sector u32 | 12 sectors u32
//!
//! extended partition:  EBR -> EBR -> ...   each an MBR whose first entry is a logical partition, relative to this
//!                                          EBR, and whose second is the next EBR, relative to the extended one
//! ```

use super::{Entry, Place, Scheme, Table, TypeId, note_overlaps, place};
use crate::disk::Disk;
use crate::error::Result;
use crate::limits;
use crate::units::{Bytes, GuestOffset, GuestRange};

/// Type byte of the entry that protects a GPT.
const PROTECTIVE: u8 = 0xee;

/// True for the types of extended partitions: CHS, LBA and the one that Linux made.
pub(super) fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0f | 0x85)
}

/// One of the four entries, if it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub active: bool,
    pub kind: u8,
    pub first: u32,
    pub sectors: u32,
}

/// The boot record, and the boot sector that it may be instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub disk_id: u32,
    pub slots: [Option<Slot>; 4],
    looks_like_file_system: bool,
}

/// Parses a sector; `None` without the signature, or where an entry's first byte says that this is code.
pub(super) fn parse(sector: &[u8; 512]) -> Option<Record> {
    if sector[510..] != [0x55, 0xaa] {
        return None;
    }
    let mut slots = [None; 4];
    let (entries, _) = sector[446..510].as_chunks::<16>();
    for (slot, entry) in slots.iter_mut().zip(entries) {
        if entry[0] & 0x7f != 0 {
            return None;
        }
        let used = Slot {
            active: entry[0] == 0x80,
            kind: entry[4],
            first: u32::from_le_bytes([entry[8], entry[9], entry[10], entry[11]]),
            sectors: u32::from_le_bytes([entry[12], entry[13], entry[14], entry[15]]),
        };
        *slot = (used.kind != 0 && used.sectors != 0).then_some(used);
    }
    Some(Record {
        disk_id: u32::from_le_bytes([sector[440], sector[441], sector[442], sector[443]]),
        slots,
        looks_like_file_system: is_boot_sector(sector),
    })
}

/// True for the boot sector of FAT, exFAT or NTFS, which end with the same signature as a boot record.
fn is_boot_sector(sector: &[u8; 512]) -> bool {
    let jump = matches!(sector[0], 0xeb | 0xe9);
    if jump
        && (&sector[3..11] == b"NTFS    " || &sector[3..11] == b"EXFAT   " || &sector[3..11] == b"-FVE-FS-")
    {
        return true;
    }
    let sector_size = u16::from_le_bytes([sector[11], sector[12]]);
    let reserved = u16::from_le_bytes([sector[14], sector[15]]);
    jump && matches!(sector_size, 512 | 1024 | 2048 | 4096)
        && sector[13].is_power_of_two()
        && reserved != 0
        && matches!(sector[16], 1..=4) // FATs
        && matches!(sector[21], 0xf0 | 0xf8..=0xff) // media
}

impl Record {
    /// True where the record stands before a GPT.
    pub fn is_protective(&self) -> bool {
        self.slots.iter().flatten().any(|slot| slot.kind == PROTECTIVE)
    }

    /// Used entries that do not protect a GPT.
    pub fn others(&self) -> usize {
        self.slots.iter().flatten().filter(|slot| slot.kind != PROTECTIVE).count()
    }

    /// True where this is the boot sector of a file system on the whole disk. Some tools put partitions into a sector
    /// that keeps a boot sector's parameters, so partitions that fit the disk count for more.
    pub fn is_file_system(&self, disk: &dyn Disk) -> bool {
        let fits = |slot: &Slot| {
            let end = (u64::from(slot.first) + u64::from(slot.sectors)).checked_mul(disk.sector_size().0);
            slot.first > 0 && end.is_some_and(|end| end <= disk.size().0)
        };
        let used: Vec<&Slot> = self.slots.iter().flatten().collect();
        self.looks_like_file_system && (used.is_empty() || !used.into_iter().all(fits))
    }
}

/// The table that begins with `record`.
pub(super) fn read(disk: &dyn Disk, record: &Record) -> Result<Table> {
    let mut reader = Reader {
        disk,
        disk_id: record.disk_id,
        sector_size: disk.sector_size(),
        entries: Vec::new(),
        notes: Vec::new(),
        next_number: 5,
    };
    let mut extended = Vec::new();
    for (number, slot) in (1..).zip(record.slots) {
        let Some(slot) = slot else { continue };
        reader.add(number, slot, u64::from(slot.first));
        if is_extended(slot.kind) {
            extended.push(slot);
        }
    }
    for slot in extended {
        reader.logical(u64::from(slot.first), u64::from(slot.sectors))?;
    }
    let Reader { entries, mut notes, sector_size, .. } = reader;
    note_overlaps(&entries, &mut notes);
    Ok(Table {
        scheme: Scheme::Mbr,
        disk_id: format!("0x{:08x}", record.disk_id),
        sector_size,
        entries,
        notes,
    })
}

struct Reader<'a> {
    disk: &'a dyn Disk,
    disk_id: u32,
    sector_size: Bytes,
    entries: Vec<Entry>,
    notes: Vec<String>,
    next_number: u32,
}

impl Reader<'_> {
    fn add(&mut self, number: u32, slot: Slot, first: u64) {
        let at = Place { number, first, len: u64::from(slot.sectors) };
        let Some(range) = place(self.disk, self.sector_size, at, &mut self.notes) else { return };
        self.entries.push(Entry {
            number,
            range,
            kind: TypeId::Mbr(slot.kind),
            part_uuid: format!("{:08x}-{number:02x}", self.disk_id),
            name: String::new(),
            bootable: slot.active,
            attributes: 0,
        });
    }

    /// Follows the chain of boot records of an extended partition. A chain that leaves it, runs in a circle or does
    /// not end is noted and followed no further.
    fn logical(&mut self, first: u64, sectors: u64) -> Result<()> {
        let mut here = first;
        let mut seen = Vec::new();
        loop {
            if seen.contains(&here) {
                self.notes.push(format!("the chain of logical partitions runs in a circle at sector {here}"));
                return Ok(());
            }
            if self.entries.len() >= limits::PARTITIONS || seen.len() >= limits::PARTITIONS {
                self.notes.push(format!(
                    "the chain of logical partitions is longer than {} and was not followed further",
                    limits::PARTITIONS
                ));
                return Ok(());
            }
            seen.push(here);
            let Some(record) = self.record_at(here)? else {
                self.notes.push(format!("the chain of logical partitions is broken at sector {here}"));
                return Ok(());
            };
            for (n, slot) in record.slots.iter().enumerate() {
                let Some(slot) = slot.filter(|slot| !is_extended(slot.kind)) else { continue };
                let at = here + u64::from(slot.first);
                let inside = at >= first && at + u64::from(slot.sectors) <= first + sectors;
                // Some tools leave rubbish in the last two entries.
                if n >= 2 && !inside {
                    continue;
                }
                let number = self.next_number;
                self.next_number += 1;
                self.add(number, slot, at);
            }
            let Some(next) = record.slots.iter().flatten().find(|slot| is_extended(slot.kind)) else {
                return Ok(());
            };
            here = first + u64::from(next.first);
        }
    }

    fn record_at(&self, sector: u64) -> Result<Option<Record>> {
        let mut bytes = [0; 512];
        let at = sector.checked_mul(self.sector_size.0).map(GuestOffset);
        let Some(at) = at.filter(|&at| {
            let range = GuestRange::new(at, Bytes(512));
            range.len() == Bytes(512) && range.end().0 <= self.disk.size().0
        }) else {
            return Ok(None);
        };
        self.disk.read_at(at, &mut bytes)?;
        Ok(parse(&bytes))
    }
}
