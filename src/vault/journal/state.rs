//! What a journal's notes say: the machine's disks and attachments, and its checkpoints.

use super::index::{Entry, Index};
use super::record::{Kind, PAYLOAD_AT_MOST};
use super::segment::Segment;
use landfall_image::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What a disk of a machine is called, and how large it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Its name in the machine.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Bytes of a logical sector: 512 or 4096.
    pub sector: u32,
}

/// The machine's disks and attachments at a record of its journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// By their numbers, which are never used again.
    pub disks: BTreeMap<u32, DiskInfo>,
    /// By their names.
    pub attachments: BTreeMap<String, Vec<u8>>,
    /// The highest number that a disk ever had; 0 where there was none.
    pub highest: u32,
}

/// How far a recovery point can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// As after a loss of power: all writes up to a moment, on all disks.
    #[default]
    Crash,
    /// The applications had written down what they had in memory.
    Application,
}

/// What a checkpoint says besides its time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mark {
    /// See there.
    pub consistency: Consistency,
    /// The cut that it is a part of, across the machines of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Uuid>,
    /// A name that somebody gave to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// A checkpoint of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its record.
    pub sequence: u64,
    /// Milliseconds since 1970; greater than that of each checkpoint before it.
    pub time: u64,
    /// What it says.
    pub mark: Mark,
}

impl State {
    /// The number of a disk by its name.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.disks.iter().find(|(_, info)| info.name == name).map(|(number, _)| *number)
    }

    /// Puts a disk into it, or changes the one of that number.
    pub(super) fn put_disk(&mut self, number: u32, info: DiskInfo) {
        self.disks.insert(number, info);
        self.highest = self.highest.max(number);
    }

    /// Follows a note.
    pub(super) fn apply(&mut self, entry: &Entry, read: impl Fn(u64, &mut [u8]) -> Result<()>) -> Result<()> {
        match entry.kind {
            Kind::Disk => self.put_disk(entry.disk, decoded(&payload_of(entry, read)?, entry)?),
            Kind::DiskGone => {
                self.disks.remove(&entry.disk);
                self.highest = self.highest.max(entry.disk);
            }
            Kind::Attachment => {
                let payload = payload_of(entry, read)?;
                let parts = payload.iter().position(|byte| *byte == 0).map(|end| payload.split_at(end));
                let name = parts.and_then(|(name, _)| std::str::from_utf8(name).ok());
                let (Some(name), Some((_, rest))) = (name, parts) else {
                    return Err(Error::corrupt(format!("record {} names no attachment", entry.sequence)));
                };
                match rest[1..].is_empty() {
                    true => self.attachments.remove(name),
                    false => self.attachments.insert(name.to_owned(), rest[1..].to_vec()),
                };
            }
            Kind::Data | Kind::Zero | Kind::Checkpoint => {}
        }
        Ok(())
    }
}

/// The payload of an attachment's note.
pub(super) fn attachment(name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    if name.is_empty() || name.contains('\0') {
        return Err(Error::refused(format!("{name:?} is no name of an attachment")));
    }
    Ok([name.as_bytes(), &[0], bytes].concat())
}

pub(super) fn encoded(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::refused(format!("cannot be written down: {error}")))
}

fn decoded<T: serde::de::DeserializeOwned>(payload: &[u8], entry: &Entry) -> Result<T> {
    serde_json::from_slice(payload)
        .map_err(|error| Error::corrupt(format!("record {} of the journal: {error}", entry.sequence)))
}

/// Bytes of a note's payload: more is not believed.
fn payload_of(entry: &Entry, read: impl Fn(u64, &mut [u8]) -> Result<()>) -> Result<Vec<u8>> {
    let len = usize::try_from(entry.len).ok().filter(|len| *len <= PAYLOAD_AT_MOST);
    let Some(len) = len else {
        return Err(Error::corrupt(format!("record {} claims {} bytes", entry.sequence, entry.len)));
    };
    let mut payload = vec![0; len];
    read(entry.at, &mut payload)?;
    Ok(payload)
}

/// What a checkpoint's record says.
pub(super) fn checkpoint(entry: &Entry, read: impl Fn(u64, &mut [u8]) -> Result<()>) -> Result<Checkpoint> {
    let mark = match entry.len {
        0 => Mark::default(),
        _ => decoded(&payload_of(entry, read)?, entry)?,
    };
    Ok(Checkpoint { sequence: entry.sequence, time: entry.offset, mark })
}

/// The notes of a segment, wherever they are.
pub(super) fn notes(segment: &Segment) -> Result<Vec<Entry>> {
    match segment.log() {
        Some(log) => Ok(log.entries.iter().filter(|entry| entry.is_note()).copied().collect()),
        None => segment.indexed(|index| index.notes().collect()),
    }
}

/// All records of a segment in their order, without their payloads.
///
/// # Errors
/// Where its index cannot be read or made.
pub fn records(segment: &Segment) -> Result<Vec<Entry>> {
    match segment.log() {
        Some(log) => Ok(log.entries.clone()),
        None => segment.indexed(|index| index.log().collect()),
    }
}

/// The checkpoints of a segment in their order.
///
/// # Errors
/// Where its index cannot be read or made.
pub(super) fn checkpoints(segment: &Segment) -> Result<Vec<Checkpoint>> {
    if segment.log().is_none() {
        return segment.indexed(indexed);
    }
    let notes = notes(segment)?;
    let marks = notes.iter().filter(|entry| entry.kind == Kind::Checkpoint);
    marks.map(|entry| checkpoint(entry, |at, buf| segment.read(at, buf))).collect()
}

/// The checkpoints of an index in their order.
pub(super) fn indexed(index: &Index) -> Result<Vec<Checkpoint>> {
    let is_mark = |entry: &Result<Entry>| entry.as_ref().map_or(true, |entry| entry.kind == Kind::Checkpoint);
    let marks = index.notes().filter(is_mark);
    marks.map(|entry| checkpoint(&entry?, |at, buf| index.text(at, buf))).collect()
}
