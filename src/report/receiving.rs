//! What came of deltas: `landfall receive`, and what the service's API says of it; and of points that are exported.

use super::failure::Told;
use crate::moment::Moment;
use crate::name::Name;
use crate::receive::digest::Sum;
use crate::receive::folder::Outcome as Drop;
use crate::receive::pull::Outcome as PullDone;
use crate::receive::rbd::Outcome as StreamsTaken;
use crate::receive::rbd::export::Exported;
use crate::receive::rbd::record::Version;
use crate::vault::journal::Consistency;
use landfall_image::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// RBD streams that were taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReceivedStreams {
    /// Version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// What became of them.
    #[serde(flatten)]
    pub outcome: StreamsTaken,
}

/// Disks that were pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pulled {
    /// Version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// What became of them.
    #[serde(flatten)]
    pub outcome: PullDone,
}

/// A watched folder that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scanned {
    /// Version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// The folder.
    pub folder: String,
    /// What became of each of its drops. One that was taken before and stays in its place is not among them.
    pub drops: Vec<Drop>,
}

/// A point of a disk that was exported as a diff of RBD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PointExported {
    /// Version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// Whose.
    pub machine: Name,
    /// The disk.
    pub disk: Name,
    /// The point that the diff leads to.
    pub point: u64,
    /// The point that it begins at; from nothing, without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The snapshot that it begins at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_snapshot: Option<String>,
    /// The snapshot that it leads to.
    pub to_snapshot: String,
    /// Its notation.
    pub format: Version,
    /// Its length in bytes.
    pub length: Bytes,
    /// Its digest.
    pub sha256: Sum,
    /// What it holds, where that is known: not of one that a service has sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exported: Option<Exported>,
}

/// An RBD stream that lies at the service until it is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Uploaded {
    /// Version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// Its number.
    pub id: Uuid,
    /// The machine that it is for.
    pub machine: Name,
    /// The disk of it.
    pub disk: Name,
    /// Bytes.
    pub length: Bytes,
}

/// Streams that are to be taken, all of one moment: one for each disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TakeStreams {
    /// Their numbers.
    pub uploads: Vec<Uuid>,
}

/// A pull that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WantedPull {
    /// The disks, all of one moment.
    pub disks: Vec<PullFrom>,
    /// What that moment is called at the source, such as libvirt's checkpoint: the next pull can begin at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// When it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<Moment>,
    /// How far it can be trusted.
    #[serde(default)]
    pub consistency: Consistency,
    /// The machine has other disks, which stay as they are: they are not of the same moment, and whoever pulls knows that.
    #[serde(default)]
    pub apart: bool,
}

/// Where a disk is pulled from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PullFrom {
    /// The disk's name here.
    pub disk: Name,
    /// The export as a URI of NBD, as the service reaches it.
    pub uri: String,
    /// The bitmap that says what has changed; without, all of the disk is read and compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitmap: Option<PullBitmap>,
}

/// A bitmap that an export has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PullBitmap {
    /// Its name there. libvirt calls it `backup-vda`.
    pub name: String,
    /// The checkpoint that it begins at.
    pub since: String,
}

/// A watched folder that is to be looked at now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scan {
    /// The folder, as the service's file names it.
    pub folder: String,
}

/// Something that the service receives in the background, or what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    /// Version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// Its number.
    pub id: Uuid,
    /// What it is, for people.
    pub says: String,
    /// How far it is.
    pub state: ReceiptState,
    /// When it began.
    pub began: Moment,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Moment>,
    /// What came of it, where it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Received>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Told>,
}

/// How far something is that is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReceiptState {
    /// Others come first.
    Waiting,
    /// It is under way.
    Running,
    /// It is done.
    Done,
    /// It was not done.
    Failed,
}

/// What was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "way", content = "outcome", rename_all = "kebab-case")]
pub enum Received {
    /// RBD streams.
    Rbd(StreamsTaken),
    /// Disks that were pulled.
    Pull(PullDone),
    /// Drops of a watched folder.
    Folder {
        /// What became of each.
        drops: Vec<Drop>,
    },
}
