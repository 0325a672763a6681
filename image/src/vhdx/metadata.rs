//! The metadata region: [MS-VHDX] 2.6. What the disk is, and who its parent is.
//!
//! ```text
//! region + 0         header: "metadata", entry count     32 bytes
//!        + 32        entries: GUID, offset, length, flags, 32 bytes each, at most 2047
//!        + 64 KiB    the items that the entries point to
//! ```

use super::header::{field, guid, le16, le32, le64, utf16};
use crate::blocks::write::BackslashNames;
use crate::chain::ParentRef;
use crate::error::{Error, Result};
use crate::formats::Format;
use crate::limits;
use uuid::{Uuid, uuid};

/// Length of the table in front of the items.
pub const TABLE_BYTES: usize = 64 << 10;

const ENTRIES_MAX: usize = 2047;
/// An item may be 1 MiB long; the ones that are read are far shorter, but for the parent locator.
const ITEM_BYTES_MAX: u32 = 1 << 20;

const FILE_PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
const VIRTUAL_DISK_SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
const VIRTUAL_DISK_ID: Uuid = uuid!("beca12ab-b2e6-4523-93ef-c309e000c746");
const LOGICAL_SECTOR_SIZE: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");
const PHYSICAL_SECTOR_SIZE: Uuid = uuid!("cda348c7-445d-4471-9cc9-e9885251c556");
const PARENT_LOCATOR: Uuid = uuid!("a8d35f2d-b30b-454d-abf7-d3d84834ab0c");
const VHDX_PARENT: Uuid = uuid!("b04aefb7-d19e-4a81-b789-25b8e9445913");

const FLAG_IS_USER: u32 = 1;
const FLAG_IS_VIRTUAL_DISK: u32 = 2;
const FLAG_IS_REQUIRED: u32 = 4;

/// What the known items say, checked against the specification's ranges.
#[derive(Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Size of the disk: a multiple of its logical sector size, at most 64 TiB.
    pub size_bytes: u64,
    /// A power of two from 1 to 256 MiB.
    pub block_size_bytes: u64,
    /// 512 or 4096.
    pub logical_sector_size_bytes: u64,
    /// 512 or 4096, for people.
    pub physical_sector_size_bytes: u32,
    /// Blocks are never freed: a fixed disk.
    pub leave_blocks_allocated: bool,
    /// The disk's own GUID, which survives copying.
    pub virtual_disk_id: Uuid,
    /// A differencing disk's parent.
    pub parent: Option<ParentRef>,
}

/// One entry of the table.
#[derive(Clone, Copy, Debug)]
struct Item {
    id: Uuid,
    is_user: bool,
    /// From the region's start.
    offset: u32,
    length: u32,
}

impl Metadata {
    /// Reads the table, and through `read(offset in the region, length)` the items. `region_length` bounds them.
    pub fn parse(
        table: &[u8],
        region_length: u64,
        read: impl Fn(u32, u32) -> Result<Vec<u8>>,
    ) -> Result<Metadata> {
        let items = parse_table(table, region_length)?;
        let item = |id: Uuid, name: &str, min: u32| -> Result<Vec<u8>> {
            let item = items.iter().find(|item| item.id == id && !item.is_user);
            let item = item.ok_or_else(|| Error::corrupt(format!("the metadata has no item \"{name}\"")))?;
            if item.length < min {
                return Err(Error::corrupt(format!(
                    "the metadata item \"{name}\" has {} bytes; it needs {min}",
                    item.length
                )));
            }
            read(item.offset, item.length)
        };
        let parameters = item(FILE_PARAMETERS, "file parameters", 8)?;
        let block_size = le32(&parameters, 0)?;
        let flags = le32(&parameters, 4)?;
        if !block_size.is_power_of_two() || !(1 << 20..=256 << 20).contains(&block_size) {
            return Err(Error::corrupt(format!(
                "the block size is {block_size} bytes; it must be a power of two from 1 to 256 MiB"
            )));
        }
        if flags & !3 != 0 {
            return Err(Error::unsupported(format!("the file parameters have unknown flags {flags:#x}")));
        }
        let sector_size = |id, name| -> Result<u32> {
            let size = le32(&item(id, name, 4)?, 0)?;
            if size == 512 || size == 4096 {
                return Ok(size);
            }
            Err(Error::corrupt(format!("the {name} is {size} bytes; it must be 512 or 4096")))
        };
        let logical = sector_size(LOGICAL_SECTOR_SIZE, "logical sector size")?;
        let physical = sector_size(PHYSICAL_SECTOR_SIZE, "physical sector size")?;
        let size = le64(&item(VIRTUAL_DISK_SIZE, "virtual disk size", 8)?, 0)?;
        if size == 0 || !size.is_multiple_of(u64::from(logical)) || size > limits::VHDX_SIZE.0 {
            return Err(Error::corrupt(format!(
                "the virtual disk size is {size} bytes; it must be a multiple of the logical sector size {logical}, \
                 above zero and at most {}",
                limits::VHDX_SIZE
            )));
        }
        let has_parent = flags & 2 != 0;
        Ok(Metadata {
            size_bytes: size,
            block_size_bytes: u64::from(block_size),
            logical_sector_size_bytes: u64::from(logical),
            physical_sector_size_bytes: physical,
            leave_blocks_allocated: flags & 1 != 0,
            virtual_disk_id: guid(&item(VIRTUAL_DISK_ID, "virtual disk id", 16)?, 0)?,
            parent: match has_parent {
                true => Some(parse_parent_locator(&item(PARENT_LOCATOR, "parent locator", 20)?)?),
                false => None,
            },
        })
    }
}

fn parse_table(table: &[u8], region_length: u64) -> Result<Vec<Item>> {
    if &field::<8>(table, 0)? != b"metadata" {
        return Err(Error::corrupt("the signature of the metadata table is not \"metadata\""));
    }
    let count = usize::from(le16(table, 10)?);
    if count > ENTRIES_MAX {
        return Err(Error::corrupt(format!("the metadata has {count} items; at most {ENTRIES_MAX} fit")));
    }
    let known = [
        FILE_PARAMETERS,
        VIRTUAL_DISK_SIZE,
        VIRTUAL_DISK_ID,
        LOGICAL_SECTOR_SIZE,
        PHYSICAL_SECTOR_SIZE,
        PARENT_LOCATOR,
    ];
    let mut items: Vec<Item> = Vec::new();
    for index in 0..count {
        let at = 32 + 32 * index;
        let flags = le32(table, at + 24)?;
        let item = Item {
            id: guid(table, at)?,
            is_user: flags & FLAG_IS_USER != 0,
            offset: le32(table, at + 16)?,
            length: le32(table, at + 20)?,
        };
        if item.is_user || !known.contains(&item.id) {
            if flags & FLAG_IS_REQUIRED != 0 {
                return Err(Error::unsupported(format!(
                    "the metadata item {} is required to read this disk, and landfall does not know it",
                    item.id
                )));
            }
            continue;
        }
        let end = u64::from(item.offset) + u64::from(item.length);
        if (item.offset as usize) < TABLE_BYTES || item.length > ITEM_BYTES_MAX || end > region_length {
            return Err(Error::corrupt(format!(
                "the metadata item {} lies at {:#x} with length {:#x}, not behind the table and inside the region of {region_length:#x}",
                item.id, item.offset, item.length
            )));
        }
        if items.iter().any(|other| other.id == item.id) {
            return Err(Error::corrupt(format!("the metadata names item {} twice", item.id)));
        }
        items.push(item);
    }
    Ok(items)
}

/// What the metadata of a new file says.
#[derive(Debug)]
pub struct NewMetadata {
    /// A multiple of the sector size.
    pub size_bytes: u64,
    pub block_size_bytes: u64,
    /// Logical: 512 or 4096. The physical one is 4096, so that guests align what they write.
    pub sector_size_bytes: u64,
    pub leave_blocks_allocated: bool,
    pub virtual_disk_id: Uuid,
    /// The [`parent_locator`] of a differencing disk.
    pub parent: Option<Vec<u8>>,
}

impl NewMetadata {
    /// The table and the items, packed behind it as Hyper-V does.
    pub fn to_bytes(&self) -> Vec<u8> {
        const PHYSICAL_SECTOR_SIZE_BYTES: u32 = 4096;
        const REQUIRED: u32 = FLAG_IS_REQUIRED;
        const OF_THE_DISK: u32 = FLAG_IS_REQUIRED | FLAG_IS_VIRTUAL_DISK;
        let le32 = |value: u64| u32::try_from(value).unwrap_or(0).to_le_bytes();
        let flags = u32::from(self.leave_blocks_allocated) | u32::from(self.parent.is_some()) << 1;
        let parameters = [le32(self.block_size_bytes), flags.to_le_bytes()].concat();
        let mut items: Vec<(Uuid, u32, Vec<u8>)> = vec![
            (FILE_PARAMETERS, REQUIRED, parameters),
            (VIRTUAL_DISK_SIZE, OF_THE_DISK, self.size_bytes.to_le_bytes().to_vec()),
            (LOGICAL_SECTOR_SIZE, OF_THE_DISK, le32(self.sector_size_bytes).to_vec()),
            (PHYSICAL_SECTOR_SIZE, OF_THE_DISK, PHYSICAL_SECTOR_SIZE_BYTES.to_le_bytes().to_vec()),
            (VIRTUAL_DISK_ID, OF_THE_DISK, self.virtual_disk_id.to_bytes_le().to_vec()),
        ];
        items.extend(self.parent.iter().map(|locator| (PARENT_LOCATOR, REQUIRED, locator.clone())));
        let mut table = b"metadata\0\0".to_vec();
        table.extend(u16::try_from(items.len()).unwrap_or(0).to_le_bytes());
        table.resize(32, 0);
        let mut content = Vec::new();
        for (id, flags, item) in items {
            table.extend(id.to_bytes_le());
            table.extend(le32((TABLE_BYTES + content.len()) as u64));
            table.extend(le32(item.len() as u64));
            table.extend(flags.to_le_bytes());
            table.extend([0; 4]);
            content.extend(item);
        }
        table.resize(TABLE_BYTES, 0);
        table.extend(content);
        table
    }
}

/// The locator of a parent whose data write GUID is `linkage`.
pub fn parent_locator(linkage: Uuid, names: &BackslashNames) -> Result<Vec<u8>> {
    let linkage = linkage.braced().to_string();
    let mut pairs = vec![("parent_linkage", linkage.as_str()), ("relative_path", names.relative.as_str())];
    pairs.extend(names.absolute.as_deref().map(|path| ("absolute_win32_path", path)));
    let mut entries = Vec::new();
    let mut texts: Vec<u8> = Vec::new();
    let texts_start = 20 + 12 * pairs.len();
    for (key, value) in &pairs {
        let mut places = Vec::new();
        for text in [key, value] {
            let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            places.push((u32::try_from(texts_start + texts.len()), u16::try_from(units.len())));
            texts.extend(units);
        }
        let [(Ok(key_at), Ok(key_len)), (Ok(value_at), Ok(value_len))] = places[..] else {
            return Err(Error::refused(format!("the path of the base has {} bytes: too long", value.len())));
        };
        entries.extend(key_at.to_le_bytes());
        entries.extend(value_at.to_le_bytes());
        entries.extend(key_len.to_le_bytes());
        entries.extend(value_len.to_le_bytes());
    }
    let mut bytes = VHDX_PARENT.to_bytes_le().to_vec();
    bytes.extend([0; 2]);
    bytes.extend(u16::try_from(pairs.len()).unwrap_or(0).to_le_bytes());
    bytes.extend(entries);
    bytes.extend(texts);
    Ok(bytes)
}

/// Entries of a parent locator that are read. Many that share one long text would take far more memory than the file has.
const PARENT_ENTRIES: usize = 64;

/// The parent locator, a list of UTF-16 keys and values: [MS-VHDX] 2.6.2.6.
pub fn parse_parent_locator(bytes: &[u8]) -> Result<ParentRef> {
    let kind = guid(bytes, 0)?;
    if kind != VHDX_PARENT {
        return Err(Error::unsupported(format!(
            "the parent locator is of type {kind}; only VHDX parents ({VHDX_PARENT}) are read"
        )));
    }
    let count = usize::from(le16(bytes, 18)?);
    if count > PARENT_ENTRIES {
        return Err(Error::corrupt(format!(
            "the parent locator has {count} entries; the specification knows 6, and {PARENT_ENTRIES} are read"
        )));
    }
    let mut relative = Vec::new();
    let mut absolute = Vec::new();
    let mut linkage = None;
    let mut linkage2 = None;
    for index in 0..count {
        let at = 20 + 12 * index;
        let text = |offset: u32, length: u16| -> Result<String> {
            let length = usize::from(length);
            if length as u64 > 2 * limits::NAME.0 {
                return Err(Error::corrupt(format!(
                    "entry {index} of the parent locator has a text of {length} bytes; at most {} are read",
                    2 * limits::NAME.0
                )));
            }
            let part = usize::try_from(offset)
                .ok()
                .and_then(|start| Some(start..start.checked_add(length)?))
                .and_then(|range| bytes.get(range));
            let part = part.ok_or_else(|| {
                Error::corrupt(format!(
                    "entry {index} of the parent locator lies at {offset:#x} with {length} bytes; the locator has {}",
                    bytes.len()
                ))
            })?;
            Ok(utf16(part))
        };
        let key = text(le32(bytes, at)?, le16(bytes, at + 8)?)?;
        let value = text(le32(bytes, at + 4)?, le16(bytes, at + 10)?)?;
        match key.as_str() {
            "parent_linkage" => linkage = Some(value),
            "parent_linkage2" => linkage2 = Some(value),
            "relative_path" => relative.push(value),
            // The path as the user knows it stands before the one by volume.
            "absolute_win32_path" => absolute.insert(0, value),
            "volume_path" => absolute.push(value),
            _ => {}
        }
    }
    let linkage = linkage.ok_or_else(|| Error::corrupt("the parent locator has no \"parent_linkage\""))?;
    let linkage: Uuid = linkage.trim().parse().map_err(|_| {
        Error::corrupt(format!("\"parent_linkage\" in the parent locator is {linkage:?}, not a GUID"))
    })?;
    // While its child is merged into it a parent changes: it then has one id before and another behind the merge, and
    // either is right ([MS-VHDX] 2.6.2.6.3). Writers leave the second out, or make it nil.
    let second = linkage2.and_then(|value| value.trim().parse::<Uuid>().ok());
    let second = second.filter(|second| !second.is_nil() && *second != linkage);
    Ok(ParentRef {
        names: ParentRef::names_from_backslash_paths(&relative, &absolute),
        format: Some(Format::Vhdx),
        identities: [linkage].into_iter().chain(second).map(|id| id.to_string()).collect(),
        same_sectors: true,
    })
}
