//! The bytes of a new GPT, and of one whose disk has become larger: UEFI specification 2.10, sections 5.2.3 and 5.3.
//!
//! ```text
//! sector 0   protective MBR: boot code, one entry of type 0xee over all sectors
//! 1          primary header
//! 2…         128 entries of 128 bytes (32 sectors of 512 bytes, 4 of 4096)
//!            partitions
//! …          the same entries
//! last       backup header
//! ```
//!
//! Nothing is written here: whoever asks gets bytes with their offsets, in the order in which they are to be written to a
//! disk that is in use, so that at every moment one of the two tables is whole. The identities are the caller's, so the same
//! layout is the same bytes.
//!
//! Own code: the crate `gpt` wants a device that it can seek in, and numbers the partitions anew whenever it writes. It is the
//! second opinion of the tests.
//!
//! Absent on purpose: MBR tables, hybrid ones, more than 128 partitions in a new table, moving or shrinking partitions.

use super::mbr;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::partition::gpt::{HEADER_SIZE, Half, Header, SIGNATURE, half};
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Bytes, and where on the disk they belong.
pub type Area = (GuestOffset, Vec<u8>);

/// Entries of a new table, and the bytes of each: what the specification asks for at least, and what everybody makes.
const ENTRIES: u32 = 128;
const ENTRY_SIZE: u32 = 128;

/// Where a partition that grows may end.
const ALIGNMENT: Bytes = Bytes::mib(1);

/// Units of UTF-16 in a partition's name.
const NAME_UNITS: usize = 36;

/// Bytes of code in a boot record.
const BOOT_CODE: usize = 440;

/// A GPT that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GptLayout {
    /// The disk's identity.
    pub disk_guid: Uuid,
    /// Logical sectors of the disk: 512 or 4096 bytes.
    pub sector_size: Bytes,
    /// What a BIOS runs, at most 440 bytes; may be empty.
    pub boot_code: Vec<u8>,
    /// The partitions, numbered from 1 in this order.
    pub partitions: Vec<NewPartition>,
}

/// A partition that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartition {
    /// At most 36 units of UTF-16.
    pub name: String,
    /// What it is for.
    pub type_guid: Uuid,
    /// Its own identity.
    pub guid: Uuid,
    /// Its place: whole sectors between the two tables.
    pub range: GuestRange,
    /// Bit 0 required, bit 2 bootable by a BIOS, 48 to 63 the type's own.
    pub attributes: u64,
}

/// A table that reaches to the new end of its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grown {
    /// What is to be written, in this order.
    pub areas: Vec<Area>,
    /// Number of the partition that was the last on the disk.
    pub number: u32,
    /// Where that one lies now.
    pub range: GuestRange,
}

impl GptLayout {
    /// The bytes that partitions may have on a disk of `disk_size`: all but the tables.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) for other sectors than those of 512 and 4096 bytes, a disk that is not made of
    /// whole ones, and one with no room between the tables.
    pub fn usable(sector_size: Bytes, disk_size: Bytes) -> Result<GuestRange> {
        let geometry = Geometry::of(sector_size, disk_size)?;
        let array = geometry.array_sectors(ENTRIES, ENTRY_SIZE);
        let (first, end) = (2 + array, geometry.sectors.saturating_sub(array + 1));
        if first >= end {
            return Err(Error::refused(format!(
                "a disk of {} bytes has no room for a partition table and partitions",
                disk_size.0
            )));
        }
        Ok(GuestRange::between(
            GuestOffset(first * sector_size.0),
            GuestOffset(end.saturating_mul(sector_size.0)),
        ))
    }

    /// The table's bytes for a disk of `disk_size`: those at its end, then those at its beginning; none lie on each other.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) for whatever breaks a bound that is written beside a field, partitions that
    /// overlap, and identities that are nil or there twice.
    pub fn areas(&self, disk_size: Bytes) -> Result<Vec<Area>> {
        let usable = Self::usable(self.sector_size, disk_size)?;
        let geometry = Geometry::of(self.sector_size, disk_size)?;
        self.check(usable)?;
        let mut array = vec![0; index(u64::from(ENTRIES) * u64::from(ENTRY_SIZE))];
        for (entry, partition) in array.chunks_exact_mut(index(u64::from(ENTRY_SIZE))).zip(&self.partitions) {
            partition.write(entry, self.sector_size);
        }
        let mut record = vec![0; index(self.sector_size.0)];
        put(&mut record, 0, &self.boot_code);
        protect(&mut record, geometry.sectors);
        let header = Header {
            this: 1,
            other: geometry.sectors - 1,
            first_usable: usable.start().0 / self.sector_size.0,
            last_usable: usable.end().0 / self.sector_size.0 - 1,
            disk_guid: self.disk_guid,
            entries_at: 2,
            entries: ENTRIES,
            entry_size: ENTRY_SIZE,
            entries_crc: 0,
        };
        let [backup, header, entries] = geometry.table(header, array);
        Ok(vec![backup, (GuestOffset(0), record), header, entries])
    }

    fn check(&self, usable: GuestRange) -> Result<()> {
        if self.boot_code.len() > BOOT_CODE {
            return Err(Error::refused(format!(
                "boot code of {} bytes; a boot record has room for {BOOT_CODE}",
                self.boot_code.len()
            )));
        }
        if self.partitions.len() > index(u64::from(ENTRIES)) {
            return Err(Error::refused(format!(
                "{} partitions; the table has {ENTRIES} entries",
                self.partitions.len()
            )));
        }
        let mut guids = BTreeSet::new();
        for guid in std::iter::once(self.disk_guid).chain(self.partitions.iter().map(|p| p.guid)) {
            if guid.is_nil() || !guids.insert(guid) {
                return Err(Error::refused(format!("the identity {guid} is nil, or there twice")));
            }
        }
        for partition in &self.partitions {
            partition.check(self.sector_size, usable)?;
        }
        let mut order: Vec<&NewPartition> = self.partitions.iter().collect();
        order.sort_by_key(|partition| partition.range.start());
        for pair in order.windows(2) {
            if let [one, next] = pair
                && next.range.start() < one.range.end()
            {
                return Err(Error::refused(format!("partitions {:?} and {:?} overlap", one.name, next.name)));
            }
        }
        Ok(())
    }
}

impl NewPartition {
    fn check(&self, sector_size: Bytes, usable: GuestRange) -> Result<()> {
        let refused = |says: String| Err(Error::refused(format!("partition {:?} {says}", self.name)));
        let units = self.name.encode_utf16().count();
        if units > NAME_UNITS || self.name.contains('\0') {
            return refused(format!(
                "has a name of {units} units of UTF-16; {NAME_UNITS} without NUL are possible"
            ));
        }
        if self.type_guid.is_nil() {
            return refused("has no type".into());
        }
        let (start, end) = (self.range.start(), self.range.end());
        let whole = start.0.is_multiple_of(sector_size.0) && end.0.is_multiple_of(sector_size.0);
        if self.range.is_empty() || !whole {
            return refused(format!(
                "has bytes {} to {}, not whole sectors of {}",
                start.0, end.0, sector_size.0
            ));
        }
        if start < usable.start() || end > usable.end() {
            let (first, behind) = (usable.start().0, usable.end().0);
            return refused(format!("has bytes {} to {}; {first} to {behind} are free", start.0, end.0));
        }
        Ok(())
    }

    fn write(&self, entry: &mut [u8], sector_size: Bytes) {
        put(entry, 0, &self.type_guid.to_bytes_le());
        put(entry, 16, &self.guid.to_bytes_le());
        put_range(entry, self.range, sector_size);
        put(entry, 48, &self.attributes.to_le_bytes());
        let name: Vec<u8> = self.name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        put(entry, 56, &name);
    }
}

/// The table of `disk`, moved to the disk's end after it has become larger, with the last partition enlarged to whole MiB
/// below it; `None` where there is nothing to do. The primary table must be whole, and everything that is not about places
/// stays: numbers, identities, names, boot code. The backup that lies in the middle now is overwritten with zeros, last.
///
/// # Errors
/// [`Kind::Corrupt`](crate::Kind::Corrupt) where the primary table is damaged, [`Kind::Refused`](crate::Kind::Refused) where
/// the disk has no GPT, a hybrid one, no partition in it, or some that overlap.
pub fn grown(disk: &dyn Disk) -> Result<Option<Grown>> {
    let table = super::read(disk)?.filter(|table| table.scheme == super::Scheme::Gpt);
    let Some(table) = table else { return Err(Error::refused("the disk has no GPT")) };
    let sector_size = table.sector_size;
    let primary = match half(disk, 1, sector_size)? {
        Ok(primary) => primary,
        Err(what) => {
            return Err(Error::corrupt(format!("the primary partition table is damaged: {what}"))
                .hint("repair it from its backup first, with sgdisk --load-backup or gdisk, on a machine that has them"));
        }
    };
    let geometry = Geometry::of(sector_size, Bytes(disk.size().0 / sector_size.0 * sector_size.0))?;
    let mut record = vec![0; index(sector_size.0)];
    disk.read_at(GuestOffset(0), &mut record)?;
    let parsed = record.first_chunk().and_then(mbr::parse);
    if parsed.is_none_or(|parsed| parsed.others() > 0) {
        return Err(Error::refused("the disk has a hybrid MBR, which would have to grow as well"));
    }
    let mut order: Vec<_> = table.entries.iter().collect();
    order.sort_by_key(|entry| entry.range.start());
    let overlap = order.windows(2).any(|pair| pair[1].range.start() < pair[0].range.end());
    let Some(last) = order.last().filter(|_| !overlap) else {
        return Err(Error::refused("the disk has no partition, or some that overlap"));
    };
    let Half { mut header, mut array, .. } = primary;
    let array_sectors = geometry.array_sectors(header.entries, header.entry_size);
    let end_usable = geometry.sectors.saturating_sub(array_sectors + 1);
    if end_usable.saturating_mul(sector_size.0) < last.range.end().0 || header.first_usable >= end_usable {
        return Err(Error::refused(format!(
            "partition {} leaves no room for the backup table at the end of the disk",
            last.number
        )));
    }
    let end = end_usable.saturating_mul(sector_size.0) / ALIGNMENT.0 * ALIGNMENT.0;
    let range = GuestRange::between(last.range.start(), last.range.end().max(GuestOffset(end)));
    if range == last.range && header.other == geometry.sectors - 1 {
        return Ok(None);
    }
    let stale = stale_backup(disk, &header, &geometry, last.range)?;
    let entry_size = index(u64::from(header.entry_size));
    let number = usize::try_from(last.number).unwrap_or(0).saturating_sub(1);
    if let Some(entry) = array.chunks_exact_mut(entry_size).nth(number) {
        put_range(entry, range, sector_size);
    }
    header.other = geometry.sectors - 1;
    header.last_usable = end_usable - 1;
    protect(&mut record, geometry.sectors);
    let [backup, header, entries] = geometry.table(header, array);
    let mut areas = vec![backup, (GuestOffset(0), record), header, entries];
    areas.extend(stale);
    Ok(Some(Grown { areas, number: last.number, range }))
}

/// Zeros over the backup that `header` names, where it is one and lies between the last partition and the new backup.
fn stale_backup(disk: &dyn Disk, header: &Header, to: &Geometry, last: GuestRange) -> Result<Option<Area>> {
    let Ok(old) = half(disk, header.other, to.sector_size)? else { return Ok(None) };
    let array = to.array_sectors(old.header.entries, old.header.entry_size);
    let new_start = to.sectors - 1 - to.array_sectors(header.entries, header.entry_size);
    let (start, end) = (old.header.entries_at, header.other + 1);
    let is_usual = old.header.entries_at + array == header.other && old.header.disk_guid == header.disk_guid;
    if !is_usual || end > new_start || start * to.sector_size.0 < last.end().0 {
        return Ok(None);
    }
    Ok(Some((GuestOffset(start * to.sector_size.0), vec![0; index((end - start) * to.sector_size.0)])))
}

/// A disk in sectors.
struct Geometry {
    sector_size: Bytes,
    sectors: u64,
}

impl Geometry {
    fn of(sector_size: Bytes, disk_size: Bytes) -> Result<Geometry> {
        if !matches!(sector_size.0, 512 | 4096) {
            return Err(Error::refused(format!(
                "sectors of {} bytes; 512 and 4096 are possible",
                sector_size.0
            )));
        }
        if !disk_size.0.is_multiple_of(sector_size.0) {
            return Err(Error::refused(format!(
                "a disk of {} bytes, not whole sectors of {}",
                disk_size.0, sector_size.0
            )));
        }
        Ok(Geometry { sector_size, sectors: disk_size.0 / sector_size.0 })
    }

    fn array_sectors(&self, entries: u32, entry_size: u32) -> u64 {
        (u64::from(entries) * u64::from(entry_size)).div_ceil(self.sector_size.0)
    }

    /// Backup, then the primary `header` and its entries.
    fn table(&self, mut header: Header, mut array: Vec<u8>) -> [Area; 3] {
        let mut crc = flate2::Crc::new();
        crc.update(&array);
        header.entries_crc = crc.sum();
        let array_sectors = self.array_sectors(header.entries, header.entry_size);
        array.resize(index(array_sectors * self.sector_size.0), 0);
        let backup = Header {
            this: header.other,
            other: header.this,
            entries_at: header.other.saturating_sub(array_sectors),
            ..header.clone()
        };
        let mut back = array.clone();
        back.extend(self.header(&backup));
        let at = |sector: u64| GuestOffset(sector.saturating_mul(self.sector_size.0));
        [
            (at(backup.entries_at), back),
            (at(header.this), self.header(&header)),
            (at(header.entries_at), array),
        ]
    }

    fn header(&self, header: &Header) -> Vec<u8> {
        let mut sector = vec![0; index(self.sector_size.0)];
        put(&mut sector, 0, SIGNATURE);
        put(&mut sector, 8, &0x0001_0000u32.to_le_bytes());
        put(&mut sector, 12, &u32::try_from(HEADER_SIZE).unwrap_or(0).to_le_bytes());
        put(&mut sector, 24, &header.this.to_le_bytes());
        put(&mut sector, 32, &header.other.to_le_bytes());
        put(&mut sector, 40, &header.first_usable.to_le_bytes());
        put(&mut sector, 48, &header.last_usable.to_le_bytes());
        put(&mut sector, 56, &header.disk_guid.to_bytes_le());
        put(&mut sector, 72, &header.entries_at.to_le_bytes());
        put(&mut sector, 80, &header.entries.to_le_bytes());
        put(&mut sector, 84, &header.entry_size.to_le_bytes());
        put(&mut sector, 88, &header.entries_crc.to_le_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&sector[..HEADER_SIZE]);
        put(&mut sector, 16, &crc.sum().to_le_bytes());
        sector
    }
}

/// Makes a boot record protective: one entry over `sectors`, as far as 32 bits reach. Boot code and disk signature stay.
fn protect(record: &mut [u8], sectors: u64) {
    let len = u32::try_from(sectors.saturating_sub(1)).unwrap_or(u32::MAX);
    put(record, 446, &[0; 64]);
    // From CHS 0/0/2 to the last that CHS can say.
    put(record, 446, &[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    put(record, 458, &len.to_le_bytes());
    put(record, 510, &[0x55, 0xaa]);
}

/// First and last sector of an entry.
fn put_range(entry: &mut [u8], range: GuestRange, sector_size: Bytes) {
    put(entry, 32, &(range.start().0 / sector_size.0).to_le_bytes());
    put(entry, 40, &(range.end().0 / sector_size.0).saturating_sub(1).to_le_bytes());
}

/// Copies `bytes` to `at` in `to`, which has room for them.
fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = to.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// A length that was checked to be one of a table.
fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
