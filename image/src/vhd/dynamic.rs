//! The header of dynamic and differencing disks: Virtual Hard Disk Image Format Specification 1.0, "Dynamic Disk
//! Header Format".
//!
//! ```text
//! 0  "cxsparse"      40   parent's unique id     576  8 parent locators,
//! 16 table offset    56   parent's time          768  24 bytes each
//! 28 table entries   64   parent's name,
//! 32 block size           512 bytes UTF-16
//!
//! a block:  +--------------------------------------+--------------------------+
//!           | sector bitmap, one bit per sector,   | block size bytes of data |
//!           | most significant first, whole sectors|                          |
//!           +--------------------------------------+--------------------------+
//! ```

use super::footer::{be32, be64, check_checksum, checksum, field};
use crate::chain::ParentRef;
use crate::error::{Error, Result};
use crate::formats::Format;
use crate::limits;
use uuid::Uuid;

/// Length of the header.
pub const HEADER_BYTES: usize = 1024;
/// A table entry of a block that is not stored.
pub const UNUSED: u32 = u32::MAX;
/// Length of a table entry.
pub const ENTRY_BYTES: u64 = 4;
/// Room for the parent's name: UTF-16 units without the NUL.
pub const PARENT_NAME_UNITS: usize = 255;
/// The unit of table entries and bitmaps.
pub const SECTOR_BYTES: u64 = 512;

/// A header whose checksum is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the block allocation table begins in the file.
    pub table_offset: u64,
    /// Entries of the table; with the block size at most 2 TiB.
    pub max_table_entries: u32,
    /// A power of two, at least a sector.
    pub block_size_bytes: u64,
    /// [`Footer::unique_id`](super::footer::Footer::unique_id) of the parent.
    pub parent_id: Uuid,
    /// The parent's name, for people; some writers put its path there.
    pub parent_name: String,
    /// Where paths of the parent lie.
    pub locators: Vec<Locator>,
}

/// One place with a path of the parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator {
    /// What sort of path it is.
    pub platform: [u8; 4],
    /// Length of the path.
    pub length_bytes: u32,
    /// Where it lies in the file.
    pub offset: u64,
}

impl Header {
    /// Reads a header.
    pub fn parse(bytes: &[u8]) -> Result<Header> {
        let bytes = &field::<HEADER_BYTES>(bytes, 0)?;
        if &field::<8>(bytes, 0)? != b"cxsparse" {
            return Err(Error::corrupt("the dynamic header does not begin with the cookie \"cxsparse\""));
        }
        let max_table_entries = be32(bytes, 28)?;
        let block_size = be32(bytes, 32)?;
        if !block_size.is_power_of_two() || u64::from(block_size) < SECTOR_BYTES {
            return Err(Error::corrupt(format!(
                "the block size is {block_size} bytes; it must be a power of two, 512 at least"
            )));
        }
        let block_size_bytes = u64::from(block_size);
        let addressed = u64::from(max_table_entries) * block_size_bytes;
        // 2^32 sectors is the end of what entries of 32 bits address, but for absurdly small blocks, where the
        // bitmaps alone pass it.
        let max_entries = limits::VHD_DYNAMIC_SIZE.0 / block_size_bytes.max(limits::VHD_BLOCK_MIN.0);
        if addressed > limits::VHD_DYNAMIC_SIZE.0 || u64::from(max_table_entries) > max_entries {
            return Err(Error::corrupt(format!(
                "the block table has {max_table_entries} entries of {block_size} bytes each; at most {max_entries} are possible"
            )));
        }
        check_checksum("dynamic header", bytes, 36)?;
        let version = be32(bytes, 24)?;
        if version >> 16 != 1 {
            return Err(Error::unsupported(format!(
                "the dynamic header is of version {}.{}; version 1 is read",
                version >> 16,
                version & 0xffff
            )));
        }
        let locators = bytes.get(576..768).unwrap_or_default().chunks_exact(24).map(|locator| {
            Ok(Locator {
                platform: field(locator, 0)?,
                length_bytes: be32(locator, 8)?,
                offset: be64(locator, 16)?,
            })
        });
        let name = bytes.get(64..576).unwrap_or_default();
        Ok(Header {
            table_offset: be64(bytes, 16)?,
            max_table_entries,
            block_size_bytes,
            parent_id: Uuid::from_bytes(field(bytes, 40)?),
            parent_name: utf16(name.as_chunks().0.iter().map(|unit| u16::from_be_bytes(*unit))),
            locators: locators
                .filter(|l| l.as_ref().map_or(true, |l| l.platform != [0; 4]))
                .collect::<Result<_>>()?,
        })
    }

    /// The parent, from the locators, whose bytes `read(offset, length)` gives, and the header's name for it.
    /// Paths on a classic Mac (`Mac `) and in an 8-bit character set (`Wi2r`, `Wi2k`) are passed over.
    pub fn parent(&self, read: impl Fn(u64, u32) -> Result<Vec<u8>>) -> Result<ParentRef> {
        let mut relative = Vec::new();
        let mut absolute = Vec::new();
        for locator in &self.locators {
            if !matches!(&locator.platform, b"W2ru" | b"W2ku" | b"MacX") {
                continue;
            }
            if u64::from(locator.length_bytes) > 2 * limits::NAME.0 {
                return Err(Error::refused(format!(
                    "the path of the parent has {} bytes; the limit is {}",
                    locator.length_bytes,
                    2 * limits::NAME.0
                )));
            }
            let bytes = read(locator.offset, locator.length_bytes)?;
            let wide = || utf16(bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)));
            match &locator.platform {
                b"W2ru" => relative.push(wide()),
                b"W2ku" => absolute.push(wide()),
                // A URL, which XenServer writes for its chains: file://./parent.vhd
                _ => {
                    let text = String::from_utf8_lossy(&bytes);
                    let text = text.split('\0').next().unwrap_or_default();
                    let path = text.strip_prefix("file://").unwrap_or(text).to_owned();
                    if path.starts_with('/') { absolute.push(path) } else { relative.push(path) }
                }
            }
        }
        absolute.push(self.parent_name.clone());
        Ok(ParentRef {
            names: ParentRef::names_from_backslash_paths(&relative, &absolute),
            format: Some(Format::Vhd),
            identities: vec![self.parent_id.to_string()],
            same_sectors: false,
        })
    }

    /// Length of the sector bitmap in front of each block: whole sectors.
    pub fn bitmap_bytes(&self) -> u64 {
        bitmap_bytes(self.block_size_bytes)
    }
}

/// Length of the sector bitmap in front of each block: whole sectors.
pub fn bitmap_bytes(block_size_bytes: u64) -> u64 {
    (block_size_bytes / SECTOR_BYTES).div_ceil(8).next_multiple_of(SECTOR_BYTES)
}

/// The header of a new disk. `parent` is the parent's id and name, at most [`PARENT_NAME_UNITS`] long; locators are
/// `(platform, room, length, offset)`, at most eight.
pub fn new_header(
    table_offset: u64,
    entries: u64,
    block_size_bytes: u64,
    parent: Option<(Uuid, &[u16])>,
    locators: &[([u8; 4], u64, u64, u64)],
) -> Result<[u8; HEADER_BYTES]> {
    let be32 = |what: &str, value: u64| {
        let value = u32::try_from(value);
        value.map(u32::to_be_bytes).map_err(|_| Error::refused(format!("the {what} does not fit 32 bits")))
    };
    let mut bytes = [0; HEADER_BYTES];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, b"cxsparse");
    put(8, &u64::MAX.to_be_bytes());
    put(16, &table_offset.to_be_bytes());
    put(24, &0x1_0000u32.to_be_bytes());
    put(28, &be32("number of blocks", entries)?);
    put(32, &be32("block size", block_size_bytes)?);
    if let Some((id, name)) = parent {
        put(40, id.as_bytes());
        for (n, unit) in name.iter().take(PARENT_NAME_UNITS).enumerate() {
            put(64 + 2 * n, &unit.to_be_bytes());
        }
    }
    for (n, (platform, room, length, offset)) in locators.iter().take(8).enumerate() {
        let at = 576 + 24 * n;
        put(at, platform);
        // In bytes, as Windows writes it; the specification's text says sectors.
        put(at + 4, &be32("room of a locator", *room)?);
        put(at + 8, &be32("length of a locator", *length)?);
        put(at + 16, &offset.to_be_bytes());
    }
    let sum = checksum(&bytes, 36);
    bytes[36..40].copy_from_slice(&sum.to_be_bytes());
    Ok(bytes)
}

/// Text up to its first NUL; what is not UTF-16 becomes U+FFFD.
fn utf16(units: impl Iterator<Item = u16>) -> String {
    char::decode_utf16(units.take_while(|unit| *unit != 0)).map(|c| c.unwrap_or('\u{fffd}')).collect()
}
