//! The records of RBD's streams, and what lies between them.
//!
//! Source: Ceph, `doc/dev/rbd-diff.rst` ("RBD Incremental Backup") and `doc/dev/rbd-export.rst` ("RBD Export & Import"); what these leave
//! out (the banner before the diffs of an image, the record `p`) as `rbd` of Ceph 16 writes it. Integers are little-endian.
//!
//! ```text
//! diff v1    "rbd diff v1\n"  tag:8 fields …                 e
//! diff v2    "rbd diff v2\n"  tag:8 length:64 fields …       e          length: of the fields and the data behind them
//! image v2   "rbd image v2\n" tag:8 length:64 fields …       E
//!            "rbd image diffs v2\n" count:64                 count diffs of v2
//!
//! f  from-snapshot    length:32 name            w  data      offset:64 length:64 bytes
//! t  to-snapshot      length:32 name            z  zeros     offset:64 length:64
//! p  is protected     flag:8                    s  size of the disk afterwards:64
//! O F T U C  order, format, features, striping: 64 each      M  a setting of the image: two names with their length
//! ```

use landfall_image::{Bytes, GuestRange};

/// The beginning of a diff.
pub const DIFF_V1: &[u8] = b"rbd diff v1\n";
/// The same, with the length of each record.
pub const DIFF_V2: &[u8] = b"rbd diff v2\n";
/// The beginning of a whole image.
pub const IMAGE_V2: &[u8] = b"rbd image v2\n";
/// What comes between an image's settings and its diffs.
pub const IMAGE_DIFFS: &[u8] = b"rbd image diffs v2\n";

/// Tags of records.
pub mod tag {
    /// The snapshot that a diff begins at.
    pub const FROM: u8 = b'f';
    /// The snapshot that it leads to.
    pub const TO: u8 = b't';
    /// Whether that snapshot is protected; v2 only.
    pub const PROTECTED: u8 = b'p';
    /// The disk's size afterwards.
    pub const SIZE: u8 = b's';
    /// Data.
    pub const DATA: u8 = b'w';
    /// Zeros.
    pub const ZERO: u8 = b'z';
    /// The end of a diff.
    pub const END: u8 = b'e';
    /// The end of an image's settings.
    pub const IMAGE_END: u8 = b'E';
    /// Settings of 64 bits: order, format, features, stripe unit and count.
    pub const NUMBERS: &[u8] = b"OFTUC";
    /// A setting by name.
    pub const META: u8 = b'M';
}

/// The longest name of a snapshot in bytes: what `rbd import-diff` takes.
pub const NAME_AT_MOST: u32 = 4096;
/// Snapshots of one image: a hostile stream could have a billion of them in some GiB, and each becomes a point. Ceph's own kernel client
/// takes 510.
pub const DIFFS_AT_MOST: u64 = 4096;
/// Settings of an image, in bytes: they are passed over, and none known is longer than some KiB.
pub const SETTINGS_AT_MOST: Bytes = Bytes::mib(16);
/// The longest run of data that is written as one record: an object of RBD. `rbd merge-diff` holds one in memory.
pub const DATA_AT_MOST: usize = 4 << 20;

/// Which notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Version {
    /// As `rbd export-diff` writes and `rbd import-diff` and `merge-diff` read it.
    V1,
    /// With the length of each record; inside of images.
    V2,
}

/// What a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// One diff.
    Diff(Version),
    /// An image: `rbd export --export-format 2`. It has the diffs of all its snapshots, and of itself, one behind the other.
    Image {
        /// How many.
        diffs: u64,
    },
}

/// What stands before the data of a diff.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Head {
    /// The snapshot that it begins at; `None` for an image that has no byte yet.
    pub from: Option<String>,
    /// The snapshot that it leads to; `None` for the image itself, as it was while it was read.
    pub to: Option<String>,
    /// The disk's size afterwards.
    pub size: Bytes,
}

/// A part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A diff begins.
    Diff(Head),
    /// These bytes come next, and are to be [read](super::stream::Stream::read).
    Data(GuestRange),
    /// These bytes are zeros.
    Zero(GuestRange),
    /// The diff is complete.
    End,
}
