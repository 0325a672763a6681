//! The GUID partition table: UEFI specification 2.10, section 5.3.
//!
//! ```text
//! sector 0   protective MBR
//! sector 1   primary header ----> array of entries, usually from sector 2
//! ...        partitions
//!            array of entries <---- backup header
//! last       backup header
//!
//! header: 0 "EFI PART" | 8 revision | 12 header size | 16 CRC-32 | 24 this sector | 32 the other one | 40 first and
//!         48 last usable sector | 56 disk GUID | 72 first sector, 80 number, 84 size and 88 CRC-32 of the entries
//! entry:  0 type GUID | 16 unique GUID | 32 first | 40 last sector | 48 attributes | 56 name, 36 of UTF-16
//! ```
//!
//! Read by our own code: the crate `gpt` wants a writable, seekable device, and takes memory as the header asks.

use super::mbr::Record;
use super::{Entry, Place, Scheme, Table, TypeId, note_overlaps, place};
use crate::disk::{self, Disk};
use crate::error::{Error, Result};
use crate::limits;
use crate::units::{Bytes, GuestOffset};
use uuid::Uuid;

pub(super) const SIGNATURE: &[u8; 8] = b"EFI PART";
pub(super) const HEADER_SIZE: usize = 92;
const LEGACY_BIOS_BOOTABLE: u64 = 1 << 2;

/// What a header says, checked against itself alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub this: u64,
    pub other: u64,
    pub first_usable: u64,
    pub last_usable: u64,
    pub disk_guid: Uuid,
    pub entries_at: u64,
    pub entries: u32,
    pub entry_size: u32,
    pub entries_crc: u32,
}

/// Parses a sector that should hold a header. The error says what is wrong with it.
pub(super) fn parse(sector: &[u8]) -> Result<Header, String> {
    let u32_at =
        |at: usize| sector.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let u64_at =
        |at: usize| sector.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    if sector.len() < HEADER_SIZE || &sector[..8] != SIGNATURE {
        return Err("the signature is missing".into());
    }
    let len = usize::try_from(u32_at(12)).unwrap_or(usize::MAX);
    let Some(checked) = sector.get(..len).filter(|checked| checked.len() >= HEADER_SIZE) else {
        return Err(format!("the header's size is {len}; {HEADER_SIZE} to {} are possible", sector.len()));
    };
    let mut crc = flate2::Crc::new();
    crc.update(&checked[..16]);
    crc.update(&[0; 4]);
    crc.update(&checked[20..]);
    if crc.sum() != u32_at(16) {
        return Err(format!("the header's checksum is {:#010x}, it says {:#010x}", crc.sum(), u32_at(16)));
    }
    let (entries, entry_size) = (u32_at(80), u32_at(84));
    let array = u64::from(entries) * u64::from(entry_size);
    if entry_size < 128 || !entry_size.is_multiple_of(8) || array > limits::PARTITION_ARRAY.0 {
        return Err(format!(
            "has {entries} entries of {entry_size} bytes; entries have 128 or more, all together at most {}",
            limits::PARTITION_ARRAY
        ));
    }
    let guid = |at: usize| {
        sector.get(at..at + 16).and_then(|b| b.try_into().ok()).map_or(Uuid::nil(), Uuid::from_bytes_le)
    };
    Ok(Header {
        this: u64_at(24),
        other: u64_at(32),
        first_usable: u64_at(40),
        last_usable: u64_at(48),
        disk_guid: guid(56),
        entries_at: u64_at(72),
        entries,
        entry_size,
        entries_crc: u32_at(88),
    })
}

/// An intact header with its array of entries.
pub(super) struct Half {
    pub header: Header,
    pub array: Vec<u8>,
    sector_size: Bytes,
}

/// The header at `sector` with its entries, or what is wrong with them.
pub(super) fn half(disk: &dyn Disk, sector: u64, sector_size: Bytes) -> Result<Result<Half, String>> {
    let read = |sector: u64, len: u64| -> Result<Option<Vec<u8>>> {
        let Some(at) = sector.checked_mul(sector_size.0) else { return Ok(None) };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if disk::check_bounds(disk.size(), GuestOffset(at), len).is_err() {
            return Ok(None);
        }
        let mut bytes = vec![0; len];
        disk.read_at(GuestOffset(at), &mut bytes)?;
        Ok(Some(bytes))
    };
    let Some(bytes) = read(sector, sector_size.0)? else {
        return Ok(Err("the disk is too small for it".into()));
    };
    let header = match parse(&bytes) {
        Ok(header) => header,
        Err(what) => return Ok(Err(what)),
    };
    if header.this != sector {
        return Ok(Err(format!("it says that it lies at sector {}", header.this)));
    }
    let sectors = disk.size().0 / sector_size.0;
    if header.first_usable > header.last_usable || header.last_usable >= sectors {
        return Ok(Err(format!(
            "sectors {} to {} are to be used; the disk has {sectors}",
            header.first_usable, header.last_usable
        )));
    }
    // Both are 32 bits long, and `parse` has bounded the product.
    let array_len = u64::from(header.entries) * u64::from(header.entry_size);
    let Some(array) = read(header.entries_at, array_len)? else {
        return Ok(Err(format!("its entries at sector {} pass the end of the disk", header.entries_at)));
    };
    let mut crc = flate2::Crc::new();
    crc.update(&array);
    if crc.sum() != header.entries_crc {
        return Ok(Err(format!(
            "the checksum of the entries is {:#010x}, the header says {:#010x}",
            crc.sum(),
            header.entries_crc
        )));
    }
    Ok(Ok(Half { header, array, sector_size }))
}

/// The table behind the protective `record`. The disk may count in other sectors than it says (an image of a disk
/// with 4096-byte sectors in a format that cannot record that), so both sizes are tried.
pub(super) fn read(disk: &dyn Disk, record: &Record) -> Result<Table> {
    let mut sector_sizes = vec![disk.sector_size(), Bytes(512), Bytes(4096)];
    sector_sizes.dedup();
    let mut damage = Vec::new();
    let mut notes = Vec::new();
    let mut found = None;
    for &sector_size in &sector_sizes {
        match half(disk, 1, sector_size)? {
            Ok(primary) => {
                note_backup(disk, &primary, &mut notes)?;
                found = Some(primary);
                break;
            }
            Err(what) => damage.push(what),
        }
    }
    if found.is_none() {
        for (&sector_size, primary_damage) in sector_sizes.iter().zip(&damage) {
            let last = (disk.size().0 / sector_size.0).saturating_sub(1);
            if let Ok(backup) = half(disk, last, sector_size)? {
                notes.push(format!(
                    "the primary partition table is damaged ({primary_damage}); the backup at sector {last} was read"
                ));
                found = Some(backup);
                break;
            }
        }
    }
    let Some(half) = found else {
        let what = damage.into_iter().next().unwrap_or_default();
        return Err(Error::corrupt(format!(
            "the disk has a protective MBR, but neither the primary partition table ({what}) nor its backup can be read"
        ))
        .hint("repair the table on a copy of the disk, with gdisk (r, then b or d) or testdisk"));
    };
    if record.others() > 0 {
        notes.push(format!(
            "hybrid MBR: {} of its partitions are also reachable without the GPT; the GPT was read",
            record.others()
        ));
    }
    let entries = entries(disk, &half, &mut notes)?;
    note_overlaps(&entries, &mut notes);
    Ok(Table {
        scheme: Scheme::Gpt,
        disk_id: half.header.disk_guid.to_string(),
        sector_size: half.sector_size,
        entries,
        notes,
    })
}

/// Notes a backup that is absent, damaged, different or not at the end of the disk.
fn note_backup(disk: &dyn Disk, primary: &Half, notes: &mut Vec<String>) -> Result<()> {
    let last = (disk.size().0 / primary.sector_size.0).saturating_sub(1);
    let at = primary.header.other;
    match half(disk, at, primary.sector_size)? {
        Err(what) => notes.push(format!("the backup partition table at sector {at} is damaged: {what}")),
        Ok(backup) if backup.array != primary.array || backup.header.disk_guid != primary.header.disk_guid => {
            notes.push("the backup partition table says something else than the primary one".into());
        }
        Ok(_) if at != last => notes.push(format!(
            "the backup partition table lies at sector {at}, not at the end of the disk (sector {last}): the disk was enlarged"
        )),
        Ok(_) => {}
    }
    Ok(())
}

fn entries(disk: &dyn Disk, half: &Half, notes: &mut Vec<String>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let entry_size = usize::try_from(half.header.entry_size).unwrap_or(usize::MAX);
    for (number, bytes) in (1u32..).zip(half.array.chunks_exact(entry_size)) {
        let u64_at =
            |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        let guid = |at: usize| {
            bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).map_or(Uuid::nil(), Uuid::from_bytes_le)
        };
        let kind = guid(0);
        if kind.is_nil() {
            continue;
        }
        let (first, last) = (u64_at(32), u64_at(40));
        let Some(len) = last.checked_sub(first).and_then(|len| len.checked_add(1)) else {
            notes.push(format!("partition {number} ends at sector {last}, before it begins at {first}"));
            continue;
        };
        let Some(range) = place(disk, half.sector_size, Place { number, first, len }, notes) else {
            continue;
        };
        if entries.len() >= limits::PARTITIONS {
            return Err(Error::refused(format!(
                "the partition table has more than {} partitions",
                limits::PARTITIONS
            )));
        }
        let attributes = u64_at(48);
        entries.push(Entry {
            number,
            range,
            kind: TypeId::Gpt(kind),
            part_uuid: guid(16).to_string(),
            name: name(bytes.get(56..128).unwrap_or_default()),
            bootable: attributes & LEGACY_BIOS_BOOTABLE != 0,
            attributes,
        });
    }
    Ok(entries)
}

/// A name of UTF-16 up to its NUL; what is no text or would steer a terminal becomes U+FFFD.
fn name(bytes: &[u8]) -> String {
    let (units, _) = bytes.as_chunks::<2>();
    let units = units.iter().map(|&unit| u16::from_le_bytes(unit)).take_while(|&unit| unit != 0);
    char::decode_utf16(units)
        .map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER))
        .map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char })
        .collect()
}
