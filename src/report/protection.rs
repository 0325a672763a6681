//! What is protected, how well, and what is wrong: `landfall status`, and the points of a machine.

use super::api::Verified;
use crate::moment::Moment;
use crate::vault::journal::Consistency;
use landfall_image::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The state of a vault and of what is protected in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Of this document's form.
    pub version: u32,
    /// When it was so.
    pub at: Moment,
    /// The worst of the machines.
    pub protection: Protection,
    /// The vault.
    pub vault: VaultStatus,
    /// How many machines were seen to boot.
    pub coverage: Coverage,
    /// The machines, by name.
    pub machines: Vec<MachineStatus>,
    /// What is wrong now, the worst first.
    pub alarms: Vec<Alarm>,
}

/// Whether a machine can be brought back as it was a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// The newest point is no older than it may be.
    Protected,
    /// There are points, and the newest is older than it may be, or will be soon.
    AtRisk,
    /// There is no point.
    Unprotected,
}

/// Where everything is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VaultStatus {
    /// Its folder.
    pub folder: String,
    /// Bytes of its file system.
    pub size: Bytes,
    /// Bytes of it that can still be written.
    pub free: Bytes,
}

/// A protected machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MachineStatus {
    /// Its name.
    pub name: String,
    /// How well.
    pub protection: Protection,
    /// Why, in one line.
    pub because: String,
    /// Whether it was promoted; `None` where it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleStatus>,
    /// Its consistency group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// True where its definition is known: it can be recovered with its own processors, memory and cards.
    pub defined: bool,
    /// Its disks.
    pub disks: Vec<DiskStatus>,
    /// The delta that is being written into it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiving: Option<String>,
    /// How many points there are.
    pub points: usize,
    /// When the oldest was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Moment>,
    /// When the newest was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Moment>,
    /// How old the newest state that can be recovered is.
    pub rpo: Rpo,
    /// Whether its points boot; `None` where nobody has tried, and nobody is to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofStatus>,
    /// Points that are patched ahead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prepared: Vec<PreparedPoint>,
    /// The other landfalls that it is sent to by the clock.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sends: Vec<SendStatus>,
}

/// What a machine of the vault is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoleStatus {
    /// From 1; each change of the role begins another one.
    pub epoch: u64,
    /// When it was promoted; for a replica, which its source writes to, `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_at: Option<Moment>,
    /// From which point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    /// What it became: the folder of the recovered machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
}

/// A machine that is sent to another landfall by the clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SendStatus {
    /// The other landfall.
    pub to: String,
    /// The point that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    /// When that one had arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Moment>,
    /// Why the last send did not come to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// True where that is longer ago than it may be.
    pub late: bool,
}

/// The recovery point objective, and what is reached of it; in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rpo {
    /// The newest state may be this old.
    pub target: f64,
    /// It is this old; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<f64>,
    /// It was no older than this for 95 % of the last day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95: Option<f64>,
}

/// A disk that comes in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiskStatus {
    /// Its name; `MACHINE/DISK` is its export.
    pub name: String,
    /// Bytes.
    pub size: Bytes,
    /// Why it is no state of the machine: it is being copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copying: Option<String>,
    /// Connections that write to it.
    pub connections: usize,
    /// Who writes to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// When it was written to last, since the service started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Moment>,
    /// The last delta, where it is fed by deltas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<DeltaStatus>,
}

/// What a delta has brought to a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeltaStatus {
    /// The way in: `rbd`, `drop` or `pull`.
    pub way: String,
    /// What it is in the source's terms: a snapshot, a file, a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// It, or something before it, came without a digest that could be compared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unverified: bool,
    /// The point that was set of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    /// The moment of that point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Moment>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Gravity {
    /// Protection is lost, or will be.
    Critical,
    /// Somebody has to look.
    Warning,
}

/// Something is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alarm {
    /// What: `rpo-missed`.
    pub id: String,
    /// How bad.
    pub gravity: Gravity,
    /// With which machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// In one line.
    pub says: String,
    /// What to do about it.
    pub remedy: String,
    /// Since when.
    pub since: Moment,
}

/// The points of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Points {
    /// Of this document's form.
    pub version: u32,
    /// Whose.
    pub machine: String,
    /// Oldest first.
    pub points: Vec<Point>,
}

/// A recovery point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// Its number: the record of the machine's journal that it is. Larger ones are younger.
    pub number: u64,
    /// When it was set.
    pub at: Moment,
    /// How far it can be trusted.
    pub consistency: Consistency,
    /// The cut across several machines that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Uuid>,
    /// A name that somebody gave to it: it is kept until that is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The last proof that it boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Evidence>,
    /// The last verification that it is what was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
}

/// What a trial boot of a point showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// When it ended.
    pub at: Moment,
    /// Where it was tried: `kvm`.
    pub target: String,
    /// What came of it.
    pub outcome: Proven,
    /// What shows it, in a line.
    pub says: String,
    /// From power-on to the login prompt, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_to_login: Option<f64>,
    /// `kvm`, or `tcg` (emulated, some ten times slower); `None` where nothing was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<String>,
    /// The folder with everything.
    pub folder: String,
}

/// What was seen of a machine's points, each signed and behind the one before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// Of this document's form.
    pub version: u32,
    /// The machine.
    pub machine: String,
    /// In their order; none is ever taken away.
    pub statements: Vec<Signed>,
}

/// A statement and who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Signed {
    /// The public half of the key, Ed25519, in base64.
    pub key: String,
    /// The statement as it was signed: JSON.
    pub statement: String,
    /// Of its bytes, in base64.
    pub signature: String,
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Statement {
    /// From 1, without gaps.
    pub number: u64,
    /// The machine's name.
    pub machine: String,
    /// The machine's number in the vault.
    pub id: Uuid,
    /// The point's number.
    pub point: u64,
    /// What was seen.
    pub evidence: Evidence,
    /// When it was signed.
    pub signed: Moment,
    /// SHA-256 of the statement before it, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

/// Whether a point boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Proven {
    /// It reached its login prompt or the multi-user target.
    Booted,
    /// It stopped on the way.
    Stopped,
    /// Neither in the time given.
    TimedOut,
    /// Something stands in the way of its recovery: it cannot be patched for the target.
    Blocked,
    /// Nobody could try: this says nothing about the point.
    CouldNotRun,
}

impl Proven {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Proven::Booted => "BOOTED",
            Proven::Stopped => "DID NOT BOOT",
            Proven::TimedOut => "DID NOT BOOT IN TIME",
            Proven::Blocked => "CANNOT BE RECOVERED",
            Proven::CouldNotRun => "COULD NOT BE TRIED",
        }
    }
}

/// A point, and what its trial boot showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProvenPoint {
    /// The point's number.
    pub point: u64,
    /// What was seen.
    #[serde(flatten)]
    pub evidence: Evidence,
}

/// Whether the points of a machine boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProofStatus {
    /// A point is to be booted this often, in seconds; `None` where that is done by hand only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<f64>,
    /// The last trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<ProvenPoint>,
    /// The last that booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booted: Option<ProvenPoint>,
}

impl ProofStatus {
    /// True where a point booted, no longer ago than that is wanted, and no later one failed to.
    pub fn is_current(&self, at: Moment) -> bool {
        let Some(booted) = &self.booted else { return false };
        let failed_since = self.last.as_ref().is_some_and(|last| {
            last.evidence.at > booted.evidence.at && last.evidence.outcome != Proven::CouldNotRun
        });
        #[expect(clippy::cast_precision_loss, reason = "seconds between proofs")]
        let age = at.0.saturating_sub(booted.evidence.at.0) as f64 / 1000.0;
        // A trial takes its time, and others before it do.
        !failed_since && self.every.is_none_or(|every| age <= 2.0 * every)
    }
}

/// How many machines were seen to boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    /// Machines that are to be proven again and again.
    pub scheduled: usize,
    /// Machines of which a point booted, no longer ago than is wanted, and no later one failed to.
    pub proven: usize,
}

/// A point that was patched ahead: a recovery of it starts at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PreparedPoint {
    /// Where it is to run.
    pub target: String,
    /// The point's number.
    pub point: u64,
    /// When the point was set.
    pub at: Moment,
}
