//! What came of a send.

use crate::name::Name;
use crate::receive::digest::Verdict;
use crate::receive::send::{Held, Sent};
use landfall_image::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A point that was sent to another landfall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sending {
    /// Version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// The machine's name at the receiver.
    pub machine: Name,
    /// Where the receiver is.
    pub to: String,
    /// The point that was sent.
    pub source: Sent,
    /// The point that the receiver held before; without, nobody knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Sent>,
    /// What the receiver has read back: it is what was sent (`matched`), it is not (`differed`), or it could not be read
    /// (`could-not-run`). A point is offered there for the first of the three only.
    pub verdict: Verdict,
    /// In words.
    pub says: String,
    /// The point that it has become there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    /// Its disks; none where there was nothing to send.
    pub disks: Vec<SentDisk>,
    /// Bytes that went over the line as content, packed.
    pub line: Bytes,
    /// How often something was said again, because it had not come through.
    pub tries: u32,
}

/// A disk that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "DiskOfSending")]
pub struct SentDisk {
    /// Its name.
    pub name: Name,
    /// Bytes of it.
    pub size: Bytes,
    /// How it was found out what is to be sent.
    pub way: Way,
    /// Why not by the differences of two points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Bytes that were read here and compared.
    pub looked_at: Bytes,
    /// Bytes that differed and were sent, unpacked.
    pub content: Bytes,
    /// Bytes that were read back at the receiver, and are right.
    pub checked: Bytes,
}

/// How it is found out what is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// By the journal: both sides have a point in common, and only what was written since was looked at.
    #[default]
    Differences,
    /// By digests of what the receiver holds.
    Digests,
    /// It is sent as a whole: the receiver held nothing of it.
    Whole,
}

/// A seed that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seeded {
    /// Version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// Its folder.
    pub folder: String,
    /// The point that it is of.
    pub source: Sent,
    /// The disks in it.
    pub disks: Vec<Name>,
    /// Parts of it.
    pub files: u64,
    /// Bytes of them, packed.
    pub bytes: Bytes,
    /// Of the parts, those that an earlier run had written.
    pub kept: u64,
}

/// What a machine holds of another landfall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeldShown {
    /// Version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// What it holds.
    #[serde(flatten)]
    pub held: Held,
}
