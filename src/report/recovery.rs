//! The documents of `landfall recover …`.

#[cfg(doc)]
use super::VERSION;
use super::WrittenDisk;
use super::registration::Afterwards;
use crate::machine::Machine;
use crate::moment::Moment;
use crate::recovery::Recovery;
use landfall_boot::check::Finding;
use landfall_image::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

/// A machine that was recovered; also `report.json` beside it, as it was when its folder was complete.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Recovered {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// The machine's folder.
    pub folder: String,
    /// What it is of, and how far it is; `recovery.json` in the folder has that as it is now.
    pub recovery: Recovery,
    /// Name of the target: `kvm`.
    pub target: String,
    /// The machine as it was written.
    pub written: Machine,
    /// Its disks: what was changed. Their `content_digest` is empty, since nobody read the rest.
    pub written_disks: Vec<WrittenDisk>,
    /// What was found, and what is good to know.
    pub findings: Vec<Finding>,
    /// The guest was patched before: ahead, or by an earlier run of the same command.
    pub was_prepared: bool,
    /// Seconds that each step took.
    pub seconds: Vec<(String, f64)>,
    /// Version of the program.
    pub landfall: String,
    /// What came of the registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration: Option<Afterwards>,
}

/// A point that was patched ahead.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Prepared {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// Where it lies.
    pub folder: String,
    /// The machine's name in the vault.
    pub machine: String,
    /// The point's number.
    pub point: u64,
    /// When the point was set.
    pub at: Moment,
    /// Name of the target.
    pub target: String,
    /// It had been prepared before.
    pub was_there: bool,
    /// What was found.
    pub findings: Vec<Finding>,
    /// What was changed on its disks.
    pub disks: Vec<WrittenDisk>,
    /// Seconds that each step took.
    pub seconds: Vec<(String, f64)>,
}

/// What became of a recovery: `landfall recover commit`, `rollback`, `remove` and `resume`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ended {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// What became of it.
    pub outcome: EndedOutcome,
    /// Its folder.
    pub folder: String,
    /// The recovery, as it was last; `None` where it was cut off before there was one.
    pub recovery: Option<Recovery>,
    /// Files in the folder that are none of the recovery's own, and stay.
    pub left: Vec<String>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndedOutcome {
    /// Its disks are whole.
    Committed,
    /// All that was made for it is gone.
    Removed,
    /// It runs.
    Running,
}

/// `landfall recover list`
#[derive(Debug, Serialize, JsonSchema)]
pub struct Recoveries {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// Where they are.
    pub folder: String,
    /// By the names of their folders.
    pub recoveries: Vec<Listed>,
    /// Points that were patched ahead.
    pub prepared: Vec<ListedPrepared>,
}

/// A recovery that is there.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Listed {
    /// Its folder.
    pub folder: String,
    /// The recovery, where its file can be read.
    pub recovery: Option<Recovery>,
    /// What its machine does.
    pub state: State,
    /// Why its file cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What a recovered machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "RecoveryState")]
pub enum State {
    /// It runs.
    Running,
    /// It is paused: by somebody, or because its point could not be read for a while.
    Paused,
    /// It is off.
    Off,
    /// No hypervisor has it.
    NotRegistered,
    /// Its hypervisor does not answer.
    Unknown,
}

/// A point that is patched already.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListedPrepared {
    /// Where it lies.
    pub folder: String,
    /// The machine's name in the vault.
    pub machine: String,
    /// Where it is to run.
    pub target: String,
    /// The point's number.
    pub point: u64,
    /// When the point was set.
    pub at: Moment,
    /// Bytes of what was changed.
    pub data: Bytes,
}
