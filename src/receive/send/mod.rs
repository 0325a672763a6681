//! From one landfall to another: a machine's disks are brought from one point of the sender to a later one, and a point is cut of them here
//! that says what it is of.
//!
//! ```text
//! sender                                   receiver (Desk)
//! what do you hold?                     -> the point that its disks were brought to, if nobody else wrote since   (position)
//! begin (point, disks)                  -> a batch: the lease, the intent on the medium, disks made or resized
//! digests of nodes, of chunks           -> of the live disks                                                      (tree)
//! bodies of frames                      -> checked, written where they differ, read back where they say so        (frame)
//! commit (definition, what was checked) -> disks that are gone are taken out, a point is cut
//! ```
//! Each step may be done again. Until the commit the machine has the points that it had. A send that was cut off, by a broken line or by
//! the end of either side, keeps the machine for itself: what has arrived stays, and the next send of the same machine goes on from there, to
//! the same point or to a later one; or somebody gives it up, and the disks go back to what they were.
//!
//! Absent: how the two speak (the service's API, or the files of a seed), and who may send to which machine, which is said before this is
//! asked.

mod desk;
pub mod frame;
pub mod tree;

pub use desk::Desk;

use super::digest::Verdict;
use super::position::{self, Position};
use crate::machine::Machine as Definition;
use crate::moment::Moment;
use crate::name::Name;
use crate::vault::journal::{Consistency, State};
use crate::vault::machine::Machine;
use landfall_image::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// The way in, in the names of attachments.
pub const WAY: &str = "send";
/// Bytes of a chunk: what is compared by one digest, and the most that a frame brings.
pub const CHUNK: usize = 1 << 20;
/// Bytes of a node: what is compared by one digest first.
pub const NODE: u64 = 1 << 30;
/// Attachments of a point that are sent with it.
const DEFINITION: &str = "machine.json";
const VARIABLES: &str = "nvram";
/// Disks of a machine at most: as many as hypervisors let one have, and more.
const DISKS_AT_MOST: usize = 256;
/// Digests of one question.
pub const ASKED_AT_MOST: usize = 4096;

/// A point of a machine at another landfall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sent {
    /// The machine's own number there, which no other vault gives to one.
    pub id: Uuid,
    /// The machine's name there.
    pub machine: Name,
    /// The point's number there.
    pub number: u64,
    /// When it was cut.
    pub at: Moment,
    /// How far it can be trusted.
    pub consistency: Consistency,
    /// The name that somebody gave to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl Sent {
    /// True where both are points of the same machine.
    pub fn is_of(&self, other: &Sent) -> bool {
        self.id == other.id
    }

    /// True where both are the same point. A vault that was brought back from a copy of itself gives numbers out again, and not the times.
    pub fn is(&self, other: &Sent) -> bool {
        self.is_of(other) && (self.number, self.at) == (other.number, other.at)
    }
}

impl fmt::Display for Sent {
    /// `web01@1234 (2026-11-29 14:03:05 UTC)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({})", self.machine, self.number, self.at)
    }
}

/// What is on the medium of a send that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What the disks held of the sender when it was begun; `None` where nobody knows.
    pub base: Option<Sent>,
    /// Where they are being brought to.
    pub target: Sent,
}

/// What a machine holds of its sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// The machine, by its name at the receiver.
    pub machine: Name,
    /// The point that all of its disks were brought to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<Sent>,
    /// Why it holds none, or no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// A send that has not come to its end: where it was going.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Sent>,
    /// The newest point of the machine at the receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
}

impl Held {
    /// That there is no such machine.
    pub fn none(machine: &Name) -> Held {
        let why = Some("there is no such machine yet".to_owned());
        Held { machine: machine.clone(), holds: None, why, unfinished: None, point: None }
    }
}

/// A disk as the sender has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SentDisk {
    /// Its name in the machine.
    pub name: Name,
    /// Bytes.
    pub size: u64,
    /// Bytes of a logical sector: 512 or 4096.
    pub sector: u32,
}

/// Begins a send, or goes on with one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// The point that is sent.
    pub target: Sent,
    /// The machine's disks at that point, all of them.
    pub disks: Vec<SentDisk>,
    /// The machine may be another one, or one that comes in another way: its disks become those that are sent. Its points stay.
    #[serde(default)]
    pub replace: bool,
}

/// A send that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Begun {
    /// Its number, to be said with all that follows.
    pub session: Uuid,
    /// What the disks held when it was first begun; without, nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Sent>,
    /// It goes on with one that was on its way there: parts of that are on the disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Sent>,
    /// Disks that the receiver did not have: they hold nothing.
    pub new: Vec<Name>,
}

/// What digests are asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Nodes, of 1 GiB.
    Nodes,
    /// Chunks, of 1 MiB.
    Chunks,
}

/// Asks for digests of what a disk holds at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The send.
    pub session: Uuid,
    /// Of what.
    pub of: Unit,
    /// Of which, by their numbers from 0; 4096 at most. The answer has 32 bytes for each, in their order; it may end earlier, where
    /// reading takes long: then ask for the rest.
    pub numbers: Vec<u64>,
}

/// What became of a body of frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taken {
    /// Bytes that differed and were written.
    pub written: u64,
    /// Bytes that differed and are zeros now.
    pub zeroed: u64,
    /// Bytes that were read back and are what the sender has.
    pub checked: u64,
    /// Where what was read back is not what the sender has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differs: Option<u64>,
    /// Why it could not be read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

/// Ends a send: the disks are at the sender's point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The send.
    pub session: Uuid,
    /// Bytes of each disk that were to be read back.
    pub checked: BTreeMap<Name, u64>,
    /// The machine's definition at that point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
    /// Its UEFI variables, in Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<String>,
}

/// A send that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Committed {
    /// The point that was cut here.
    pub point: u64,
    /// What came of reading back what was sent.
    pub verdict: Verdict,
}

/// What all disks of a machine hold of a sender after record `then` of its journal; otherwise why nobody can say.
///
/// # Errors
/// Where the journal cannot be read.
pub fn held(machine: &Machine, then: u64) -> Result<std::result::Result<Sent, String>> {
    let disks = machine.journal().with_state(|state| state.disks.clone());
    let mut found: Option<Sent> = None;
    for info in disks.values() {
        let name = &info.name;
        let Some(position) = position::of::<Sent>(machine, WAY, name)? else {
            return Ok(Err(format!("{name} was not sent before")));
        };
        if let Some(lost) = position.was_lost(machine, name, then)? {
            return Ok(Err(format!("{name}: {lost}")));
        }
        match &found {
            Some(other) if !other.is(&position.source) => {
                return Ok(Err(format!("{name} is at {}, and another disk at {other}", position.source)));
            }
            _ => found = Some(position.source),
        }
    }
    Ok(found.ok_or_else(|| "nothing was sent before".to_owned()))
}

/// The point of another landfall that a point is: what all disks of it were brought to.
pub fn of_point(state: &State) -> Option<Sent> {
    let mut found: Option<Sent> = None;
    for info in state.disks.values() {
        let raw = state.attachments.get(&position::attachment(WAY, &info.name))?;
        let position: Position<Sent> = position::parse(raw, WAY, &info.name).ok()?;
        // In the point itself it is not said yet which it is: later ones tell of another.
        if position.point.is_some() || found.as_ref().is_some_and(|other| !other.is(&position.source)) {
            return None;
        }
        found = Some(position.source);
    }
    found
}

/// Refuses where a disk of the machine is another's than that sender's: what it holds came another way.
fn check_own(machine: &Machine, target: &Sent) -> Result<()> {
    let disks = machine.journal().with_state(|state| state.disks.clone());
    for info in disks.values() {
        let from = position::of::<Sent>(machine, WAY, &info.name)?.map(|position| position.source);
        let says = match from {
            Some(from) if from.is_of(target) => continue,
            Some(from) => {
                format!("{} of {} was sent from another vault or machine ({from})", info.name, machine.name())
            }
            None => format!("{} has {} here, which was never sent by a landfall", machine.name(), info.name),
        };
        return Err(Error::refused(says).hint(
            "send it under another name (--as NAME); where this machine is to become the other one, say so (--replace): its points stay",
        ));
    }
    Ok(())
}
