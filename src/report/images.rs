//! The documents of `landfall disk …`.

use super::VERSION;
use landfall_image::check::Checked;
use landfall_image::formats::LayerInfo;
use landfall_image::partition::{Scheme, Table};
use landfall_image::{Bytes, Error, ExtentKind, Format, GuestOffset, convert};
use schemars::JsonSchema;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A partition table as it stands on a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PartitionTable {
    /// Which kind.
    pub scheme: Scheme,
    /// The disk's identity: `0x1234abcd` for MBR, a GUID in lower case for GPT.
    pub disk_id: String,
    /// Logical sector size that the table counts in, in bytes.
    pub sector_size: Bytes,
    /// The partitions, by number.
    pub entries: Vec<Partition>,
    /// What is odd about the table.
    pub notes: Vec<String>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Partition {
    /// Its number as Linux counts.
    pub number: u32,
    /// Where it begins, in bytes.
    pub start: GuestOffset,
    /// Its length in bytes.
    pub length: Bytes,
    /// What it is for: `0x83`, or a GUID in lower case.
    #[serde(rename = "type")]
    pub kind: String,
    /// The identity that `/dev/disk/by-partuuid` has.
    pub part_uuid: String,
    /// Its name (GPT only).
    pub name: String,
    /// The active flag of an MBR partition, or the legacy-BIOS-bootable attribute of a GPT one.
    pub bootable: bool,
    /// It only holds logical partitions (MBR).
    pub extended: bool,
    /// The GPT attributes; 0 for MBR.
    pub attributes: u64,
}

impl From<&Table> for PartitionTable {
    fn from(table: &Table) -> Self {
        let entry = |entry: &landfall_image::partition::Entry| Partition {
            number: entry.number,
            start: entry.range.start(),
            length: entry.range.len(),
            kind: entry.kind.to_string(),
            part_uuid: entry.part_uuid.clone(),
            name: entry.name.clone(),
            bootable: entry.bootable,
            extended: entry.is_extended(),
            attributes: entry.attributes,
        };
        PartitionTable {
            scheme: table.scheme,
            disk_id: table.disk_id.clone(),
            sector_size: table.sector_size,
            entries: table.entries.iter().map(entry).collect(),
            notes: table.notes.clone(),
        }
    }
}

/// `landfall disk info`
#[derive(Debug, Serialize, JsonSchema)]
pub struct ImageInfo {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// Format of the named image.
    pub format: Option<Format>,
    /// Size as the guest sees it, in bytes.
    pub virtual_size: Bytes,
    /// Its logical sectors, in bytes.
    pub sector_size: Bytes,
    /// The named image first, its base last.
    pub layers: Vec<LayerInfo>,
    /// Its partition table, where it has one that can be read.
    pub partitions: Option<PartitionTable>,
    /// Why there is none, where the reason is damage.
    pub partition_error: Option<String>,
    /// BLAKE3 over what the guest reads, where it was asked for.
    pub content_digest: Option<String>,
}

/// `landfall disk map`. It is written as it is found: where reading fails on the way, it breaks off.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ImageMap {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// Size as the guest sees it, in bytes.
    pub virtual_size: Bytes,
    /// Runs of the disk in order, without gaps.
    pub extents: Vec<MapExtent>,
}

/// A run of a disk that is all of one kind.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MapExtent {
    /// Where it begins, in bytes.
    pub start: GuestOffset,
    /// Its length in bytes.
    pub length: Bytes,
    /// What is there.
    pub kind: ExtentKind,
}

/// `landfall disk convert`: of one image, or of several.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Conversions {
    /// Of one image.
    One(ImageConverted),
    /// Of several, of which some may have failed.
    Several(ImagesConverted),
}

/// An image that was converted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ImageConverted {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// The files that were written, the one to be named first.
    pub files: Vec<PathBuf>,
    /// Size as the guest sees it, in bytes.
    pub virtual_size: Bytes,
    /// Bytes stored as data.
    pub data: Bytes,
    /// Bytes of them that an interrupted run had left.
    pub resumed: Bytes,
    /// Bytes that the host's file system holds for it.
    pub allocated: Bytes,
    /// BLAKE3 over what the guest reads.
    pub content_digest: String,
}

impl From<&convert::Converted> for ImageConverted {
    fn from(done: &convert::Converted) -> Self {
        ImageConverted {
            version: VERSION,
            files: done.receipt.files.clone(),
            virtual_size: done.size,
            data: done.copied,
            resumed: done.resumed,
            allocated: done.receipt.allocated,
            content_digest: done.digest.to_hex().to_string(),
        }
    }
}

/// Several images that were to be converted.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ImagesConverted {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// Those that were.
    pub converted: Vec<ImageConverted>,
    /// Those that were not.
    pub failed: Vec<ImageFailed>,
}

/// An image that was not converted, or not checked.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ImageFailed {
    /// Its name.
    pub source: PathBuf,
    /// Why, in one line.
    pub error: String,
    /// What can be done about it, where that is known.
    pub hint: Option<String>,
}

impl ImageFailed {
    /// The image of that name, by its error.
    pub fn by(source: &Path, error: &Error) -> ImageFailed {
        ImageFailed {
            source: source.to_owned(),
            error: error.to_string(),
            hint: error.hint_text().map(str::to_owned),
        }
    }
}

/// `landfall disk check`
#[derive(Debug, Serialize, JsonSchema)]
pub struct ImagesChecked {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// The images that could be checked.
    pub images: Vec<ImageChecked>,
    /// Those that could not.
    pub failed: Vec<ImageFailed>,
}

/// An image that was checked.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ImageChecked {
    /// Its name.
    pub image: PathBuf,
    /// Its layers, its base last.
    pub layers: Vec<LayerChecked>,
    /// BLAKE3 over what the guest reads, where all of it was read.
    pub content_digest: Option<String>,
}

/// A layer that was checked.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LayerChecked {
    /// Its file.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// What was found; `null` where the format has no structures, or none that are checked.
    pub checked: Option<Checked>,
}

/// `landfall disk compare`
#[derive(Debug, Serialize, JsonSchema)]
pub struct ImagesCompared {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// They hold the same, by the measure that was asked for.
    pub same: bool,
    /// Sizes as guests see them, in bytes.
    pub sizes: [Bytes; 2],
    /// The first byte that differs.
    pub first_difference: Option<GuestOffset>,
}

/// `landfall disk serve`, when it has ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ImageServed {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// Requests that were answered.
    pub requests: u64,
    /// Bytes that clients read.
    pub read: Bytes,
}
