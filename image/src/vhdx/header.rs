//! The header section: [MS-VHDX] 2.2.
//!
//! ```text
//! 0        64 KiB    128 KiB   192 KiB         256 KiB         320 KiB   1 MiB
//! +--------+---------+---------+---------------+---------------+---------+----------
//! | file   | header  | header  | region table  | region table  | free    | log, BAT,
//! | type   | 1       | 2       | 1             | 2             |         | metadata, blocks
//! +--------+---------+---------+---------------+---------------+---------+----------
//! ```
//!
//! Both headers carry a checksum and a sequence number: a writer updates the older one, so that one is whole at any
//! time. The region tables are copies of each other. All integers are little-endian.

use crate::error::{Error, Result};
use uuid::Uuid;

/// Length of the whole section; nothing else may lie in it.
pub const SECTION_BYTES: u64 = 1 << 20;
/// What begins every VHDX file.
pub const FILE_SIGNATURE: &[u8; 8] = b"vhdxfile";
/// Bytes of the file type identifier that are read: signature and creator.
pub const FILE_TYPE_BYTES: usize = 8 + 512;
/// Where the headers lie.
pub const HEADER_OFFSETS: [u64; 2] = [64 << 10, 128 << 10];
/// Length of a header.
pub const HEADER_BYTES: usize = 4096;
/// Where the region tables lie.
pub const REGION_TABLE_OFFSETS: [u64; 2] = [192 << 10, 256 << 10];
/// Length of a region table.
pub const REGION_TABLE_BYTES: usize = 64 << 10;

const REGION_ENTRIES_MAX: usize = 2047;
const MIB: u64 = 1 << 20;

/// `N` bytes at `at`, or `Corrupt` where the structure is shorter.
pub fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    at.checked_add(N).and_then(|end| bytes.get(at..end)).and_then(|part| part.try_into().ok()).ok_or_else(
        || Error::corrupt(format!("a structure of {} bytes is cut off at byte {at}", bytes.len())),
    )
}

/// A 16-bit field.
pub fn le16(bytes: &[u8], at: usize) -> Result<u16> {
    field(bytes, at).map(u16::from_le_bytes)
}

/// A 32-bit field.
pub fn le32(bytes: &[u8], at: usize) -> Result<u32> {
    field(bytes, at).map(u32::from_le_bytes)
}

/// A 64-bit field.
pub fn le64(bytes: &[u8], at: usize) -> Result<u64> {
    field(bytes, at).map(u64::from_le_bytes)
}

/// A GUID field.
pub fn guid(bytes: &[u8], at: usize) -> Result<Uuid> {
    field(bytes, at).map(Uuid::from_bytes_le)
}

/// CRC-32C of `bytes`, with the four bytes of the checksum field at `at` taken as zero.
pub fn checksum(bytes: &[u8], at: usize) -> u32 {
    let (before, rest) = bytes.split_at(at.min(bytes.len()));
    let after = rest.get(4..).unwrap_or_default();
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]), after)
}

/// UTF-16 text up to its first NUL; what is not UTF-16 becomes U+FFFD.
pub fn utf16(bytes: &[u8]) -> String {
    let units = bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit));
    char::decode_utf16(units.take_while(|unit| *unit != 0)).map(|c| c.unwrap_or('\u{fffd}')).collect()
}

/// The creator's name in the file type identifier.
pub fn parse_file_type(bytes: &[u8]) -> Result<String> {
    if &field::<8>(bytes, 0)? != FILE_SIGNATURE {
        return Err(Error::corrupt("does not begin with the VHDX signature \"vhdxfile\""));
    }
    Ok(utf16(bytes.get(8..).unwrap_or_default()))
}

/// One header: [MS-VHDX] 2.2.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The higher one wins.
    pub sequence_number: u64,
    /// Changes with every change of what a guest can read: the identity that children record.
    pub data_write_guid: Uuid,
    /// Log entries must carry it; nil where the log is empty.
    pub log_guid: Uuid,
    /// Zero is the only known one.
    pub log_version: u16,
    /// One is the only known one.
    pub version: u16,
    /// Length of the log.
    pub log_length: u32,
    /// Where the log begins in the file.
    pub log_offset: u64,
}

impl Header {
    /// Reads a header whose signature and checksum are right.
    pub fn parse(bytes: &[u8]) -> Result<Header> {
        let bytes = &field::<HEADER_BYTES>(bytes, 0)?;
        if &field::<4>(bytes, 0)? != b"head" {
            return Err(Error::corrupt("the signature of the header is not \"head\""));
        }
        check_checksum("header", bytes)?;
        Ok(Header {
            sequence_number: le64(bytes, 8)?,
            data_write_guid: guid(bytes, 32)?,
            log_guid: guid(bytes, 48)?,
            log_version: le16(bytes, 64)?,
            version: le16(bytes, 66)?,
            log_length: le32(bytes, 68)?,
            log_offset: le64(bytes, 72)?,
        })
    }

    /// The current one of two headers as they lie in the file. One that is not valid is survivable.
    pub fn current(first: &[u8], second: &[u8]) -> Result<Header> {
        let header = match (Header::parse(first), Header::parse(second)) {
            (Ok(a), Ok(b)) if a.sequence_number > b.sequence_number => a,
            (Ok(a), Ok(b)) if a.sequence_number < b.sequence_number => b,
            // The specification wants distinct numbers, but disk2vhd writes two equal headers.
            (Ok(a), Ok(b)) if a == b => a,
            (Ok(a), Ok(_)) => {
                return Err(Error::corrupt(format!(
                    "both headers have sequence number {} but differ: neither is current",
                    a.sequence_number
                )));
            }
            (Ok(a), Err(_)) => a,
            (Err(_), Ok(b)) => b,
            (Err(a), Err(b)) => {
                return Err(Error::corrupt(format!(
                    "neither header is valid: {}; of the second, {}",
                    a.says(),
                    b.says()
                ))
                .hint("copy the image again from its origin"));
            }
        };
        if header.version != 1 {
            return Err(Error::unsupported(format!("VHDX version {}; version 1 is read", header.version)));
        }
        Ok(header)
    }
}

/// The file type identifier of a new file.
pub fn file_type() -> [u8; FILE_TYPE_BYTES] {
    let mut bytes = [0; FILE_TYPE_BYTES];
    bytes[..8].copy_from_slice(FILE_SIGNATURE);
    let creator = concat!("landfall ", env!("CARGO_PKG_VERSION"));
    for (place, unit) in bytes[8..].chunks_exact_mut(2).zip(creator.encode_utf16()) {
        place.copy_from_slice(&unit.to_le_bytes());
    }
    bytes
}

/// Fills in a header of a file whose log, at `(offset, length)`, is empty. `bytes` are zeros.
pub fn put_header(
    bytes: &mut [u8; HEADER_BYTES],
    sequence_number: u64,
    file_write_guid: Uuid,
    data_write_guid: Uuid,
    log: (u64, u64),
) {
    bytes[..4].copy_from_slice(b"head");
    bytes[8..16].copy_from_slice(&sequence_number.to_le_bytes());
    bytes[16..32].copy_from_slice(&file_write_guid.to_bytes_le());
    bytes[32..48].copy_from_slice(&data_write_guid.to_bytes_le());
    // The log's GUID stays nil: nothing is to be replayed. Its version is 0, that of the file 1.
    bytes[66..68].copy_from_slice(&1u16.to_le_bytes());
    bytes[68..72].copy_from_slice(&u32::try_from(log.1).unwrap_or(0).to_le_bytes());
    bytes[72..80].copy_from_slice(&log.0.to_le_bytes());
    put_checksum(bytes);
}

/// Fills in a region table: `(id, offset, length)` of regions that are all required. `bytes` are zeros.
pub fn put_region_table(bytes: &mut [u8; REGION_TABLE_BYTES], regions: &[(Uuid, u64, u64)]) {
    bytes[..4].copy_from_slice(b"regi");
    bytes[8..12].copy_from_slice(&u32::try_from(regions.len()).unwrap_or(0).to_le_bytes());
    for (entry, (id, offset, length)) in bytes[16..].chunks_exact_mut(32).zip(regions) {
        entry[..16].copy_from_slice(&id.to_bytes_le());
        entry[16..24].copy_from_slice(&offset.to_le_bytes());
        entry[24..28].copy_from_slice(&u32::try_from(*length).unwrap_or(0).to_le_bytes());
        entry[28] = 1;
    }
    put_checksum(bytes);
}

fn put_checksum(bytes: &mut [u8]) {
    let sum = checksum(bytes, 4);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// A part of the file that is not payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// What it is.
    pub id: Uuid,
    /// Where it begins.
    pub offset: u64,
    /// Its length; `offset + length` does not overflow.
    pub length: u64,
    /// The file must not be read by who does not know this region.
    pub required: bool,
}

/// Reads a region table: [MS-VHDX] 2.2.3. Alignment is checked, the file's length is not.
pub fn parse_region_table(bytes: &[u8]) -> Result<Vec<Region>> {
    let bytes =
        bytes.get(..REGION_TABLE_BYTES).ok_or_else(|| Error::corrupt("the region table is cut off"))?;
    if &field::<4>(bytes, 0)? != b"regi" {
        return Err(Error::corrupt("the signature of the region table is not \"regi\""));
    }
    check_checksum("region table", bytes)?;
    let count = le32(bytes, 8)?;
    let count =
        usize::try_from(count).ok().filter(|&count| count <= REGION_ENTRIES_MAX).ok_or_else(|| {
            Error::corrupt(format!("the region table has {count} entries; at most {REGION_ENTRIES_MAX} fit"))
        })?;
    let mut regions: Vec<Region> = Vec::new();
    for entry in bytes.get(16..).unwrap_or_default().chunks_exact(32).take(count) {
        let region = Region {
            id: guid(entry, 0)?,
            offset: le64(entry, 16)?,
            length: u64::from(le32(entry, 24)?),
            required: le32(entry, 28)? & 1 != 0,
        };
        check_placement(&format!("region {}", region.id), region.offset, region.length)?;
        if regions.iter().any(|other| other.id == region.id) {
            return Err(Error::corrupt(format!("the region table names region {} twice", region.id)));
        }
        regions.push(region);
    }
    Ok(regions)
}

/// A region or the log must lie behind the header section, at whole MiB.
pub fn check_placement(what: &str, offset: u64, length: u64) -> Result<()> {
    if !offset.is_multiple_of(MIB) || !length.is_multiple_of(MIB) || offset < SECTION_BYTES || length == 0 {
        return Err(Error::corrupt(format!(
            "the {what} lies at {offset:#x} with length {length:#x}; both must be whole MiB, behind the header section"
        )));
    }
    if offset.checked_add(length).is_none() {
        return Err(Error::corrupt(format!("the {what} at {offset:#x} with length {length:#x} passes 2^64")));
    }
    Ok(())
}

fn check_checksum(what: &str, bytes: &[u8]) -> Result<()> {
    let (stored, computed) = (le32(bytes, 4)?, checksum(bytes, 4));
    if stored == computed {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "the checksum of the {what} is {stored:#010x}, its bytes give {computed:#010x}"
    )))
}
