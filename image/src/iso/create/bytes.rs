//! The bytes of a disc's structures: records, descriptors, tables, names and times (ECMA-119, 6 to 9).

use super::{IsoOptions, SECTOR};
use std::collections::BTreeSet;

/// True for what ISO 9660 names are made of.
pub(super) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'
}

/// A name for ISO 9660 that is not `taken`, and is from now on.
pub(super) fn ident(name: &str, is_folder: bool, taken: &mut BTreeSet<Vec<u8>>) -> Vec<u8> {
    let plain = |text: &str, at_most: usize| -> String {
        let chars = text.chars().map(|c| c.to_ascii_uppercase());
        let chars = chars.map(|c| if u8::try_from(c).is_ok_and(is_plain) { c } else { '_' });
        chars.take(at_most).collect()
    };
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !is_folder => (stem, extension),
        _ => (name, ""),
    };
    let (stem, extension) = (plain(stem, 20), plain(extension, 5));
    // The first that is free; a folder holds fewer names than there are numbers.
    for number in 0..=u32::MAX {
        let stem = if number == 0 { stem.clone() } else { format!("{}{number}", plain(&stem, 10)) };
        let ident = if is_folder { stem } else { format!("{stem}.{extension};1") };
        if taken.insert(ident.clone().into_bytes()) {
            return ident.into_bytes();
        }
    }
    Vec::new()
}

/// Adds a record to a list, in the next sector where this one has no room.
pub(super) fn record(
    list: &mut Vec<u8>,
    ident: &[u8],
    (sector, length): (u64, u64),
    flags: u8,
    time: u32,
    system_use: &[u8],
) {
    let mut bytes = vec![0; 33];
    put(&mut bytes, 2, &both(sector));
    put(&mut bytes, 10, &both(length));
    let Civil { year, month, day, hour, minute, second } = Civil::of(time);
    // Years since 1900: 32 bits of seconds do not lead beyond 2106.
    let year = u8::try_from(year.saturating_sub(1900)).unwrap_or(u8::MAX);
    put(&mut bytes, 18, &[year, month, day, hour, minute, second, 0]);
    bytes[25] = flags;
    put(&mut bytes, 28, &[1, 0, 0, 1]);
    bytes[32] = u8::try_from(ident.len()).unwrap_or(0);
    bytes.extend(ident);
    bytes.resize(index(even(bytes.len())), 0);
    bytes.extend(system_use);
    bytes.resize(index(even(bytes.len())), 0);
    bytes[0] = u8::try_from(bytes.len()).unwrap_or(0);
    let left = index(SECTOR) - list.len() % index(SECTOR);
    if bytes.len() > left {
        fill(list);
    }
    list.extend(bytes);
}

/// What Rock Ridge says of permissions.
pub(super) fn mode(mode: u64, links: u64) -> Vec<u8> {
    let mut entry = b"PX\x24\x01".to_vec();
    for field in [mode, links, 0, 0] {
        entry.extend(both(field));
    }
    entry
}

/// What Rock Ridge says of the name.
pub(super) fn alternate(name: &str) -> Vec<u8> {
    let mut entry = b"NM".to_vec();
    entry.extend([u8::try_from(5 + name.len()).unwrap_or(0), 1, 0]);
    entry.extend(name.as_bytes());
    entry
}

/// A folder in a path table.
pub(super) fn path_record(table: &mut Vec<u8>, ident: &[u8], sector: u64, parent: u16, little: bool) {
    table.extend([u8::try_from(ident.len()).unwrap_or(0), 0]);
    table.extend(if little { le(sector) } else { be(sector) });
    table.extend(if little { parent.to_le_bytes() } else { parent.to_be_bytes() });
    table.extend(ident);
    if !ident.len().is_multiple_of(2) {
        table.push(0);
    }
}

/// The table that mkisofs writes into an image: descriptor, image, length and the sum of what follows the table.
pub(super) fn boot_table(image: &mut [u8], sector: u64) {
    let (words, rest) = image[64..].as_chunks::<4>();
    let mut last = [0; 4];
    put(&mut last, 0, rest);
    let words = words.iter().chain(std::iter::once(&last));
    let sum = words.fold(0u32, |sum, word| sum.wrapping_add(u32::from_le_bytes(*word)));
    let mut table = [0; 56];
    put(&mut table, 0, &le(16));
    put(&mut table, 4, &le(sector));
    put(&mut table, 8, &le(image.len() as u64));
    put(&mut table, 12, &sum.to_le_bytes());
    put(image, 8, &table);
}

/// A boot record (UEFI specification 2.10, section 5.2) with one partition, an active EFI system partition. Counted in sectors of
/// 512 bytes.
pub(super) fn boot_record(code: &[u8], id: u32, first: u32, sectors: u32) -> Vec<u8> {
    let mut record = vec![0; 512];
    put(&mut record, 0, code);
    put(&mut record, 440, &id.to_le_bytes());
    // Cylinders, heads and sectors cannot say where it is: 0xffffff.
    put(&mut record, 446, &[0x80, 0xff, 0xff, 0xff, 0xef, 0xff, 0xff, 0xff]);
    put(&mut record, 454, &first.to_le_bytes());
    put(&mut record, 458, &sectors.to_le_bytes());
    put(&mut record, 510, &[0x55, 0xaa]);
    record
}

/// A descriptor's sector with its head.
pub(super) fn descriptor(kind: u8) -> Vec<u8> {
    let mut sector = vec![0; index(SECTOR)];
    sector[0] = kind;
    put(&mut sector, 1, b"CD001\x01");
    sector
}

/// Fills in the primary descriptor of a disc of `sectors`, whose path table has `path_table` bytes and ends where the
/// catalog, or the first folder, begins.
pub(super) fn primary(
    sector: &mut [u8],
    options: &IsoOptions,
    sectors: u64,
    path_table: u64,
    behind_tables: u64,
    root: (u64, u64),
) {
    let one = path_table.div_ceil(SECTOR);
    sector[8..72].fill(b' ');
    put(sector, 40, options.volume.as_bytes());
    put(sector, 80, &both(sectors));
    for at in [120, 124] {
        put(sector, at, &[1, 0, 0, 1]);
    }
    put(sector, 128, &[0, 8, 8, 0]);
    put(sector, 132, &both(path_table));
    put(sector, 140, &le(behind_tables - 2 * one));
    put(sector, 148, &be(behind_tables - one));
    let mut record_of_root = Vec::new();
    record(&mut record_of_root, &[0], root, 2, options.time, &[]);
    put(sector, 156, &record_of_root);
    sector[190..813].fill(b' ');
    let Civil { year, month, day, hour, minute, second } = Civil::of(options.time);
    let time = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}00\0");
    // Made, changed, never expires, valid from.
    for (at, time) in [(813, &*time), (830, &*time), (847, "0000000000000000\0"), (864, &*time)] {
        put(sector, at, time.as_bytes());
    }
    sector[881] = 1;
}

/// A time as people write it.
pub(super) struct Civil {
    pub year: u32,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

impl Civil {
    /// Of seconds since 1970, UTC.
    pub fn of(time: u32) -> Civil {
        let (mut days, second) = (time / 86_400, time % 86_400);
        let mut year = 1970;
        let is_leap =
            |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        while days >= 365 + u32::from(is_leap(year)) {
            days -= 365 + u32::from(is_leap(year));
            year += 1;
        }
        let mut month = 1;
        for length in [31, 28 + u32::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        let small = |value: u32| u8::try_from(value).unwrap_or(0);
        let (hour, minute, second) = (small(second / 3600), small(second / 60 % 60), small(second % 60));
        Civil { year, month, day: small(days + 1), hour, minute, second }
    }
}

/// A number of at most 32 bits, which everything on a disc was checked to be.
pub(super) fn le(value: u64) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

pub(super) fn be(value: u64) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes()
}

/// In both orders of bytes.
pub(super) fn both(value: u64) -> Vec<u8> {
    [le(value), be(value)].concat()
}

/// `length` and the byte that makes it even.
pub(super) fn even(length: usize) -> u64 {
    length.next_multiple_of(2) as u64
}

/// Fills up the last sector.
pub(super) fn fill(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(index(SECTOR)), 0);
}

/// Copies `bytes` to `at` in `to`, which has room for them.
pub(super) fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = to.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// A length in memory.
pub(super) fn index(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
