//! What of its source a disk holds: the snapshot that a diff brought it to, the image that a drop left. The next delta must begin there.
//!
//! Kept with the machine, in its journal, under `WAY:DISK` (`rbd:sda`), so that each point tells it of itself. It holds as long as nobody
//! else writes to the disk: the journal is asked for that, whoever wrote.

use super::content::is_written;
use super::digest::Verdict;
use crate::name::Name;
use crate::vault::journal::State;
use crate::vault::machine::Machine;
use landfall_image::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The ways in that keep one.
pub const WAYS: [&str; 4] = ["rbd", "drop", "pull", "send"];

/// What a disk holds, where `S` is what the way in says of its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position<S> {
    /// The batch that brought it there.
    pub batch: Uuid,
    /// Which of its parts, from 0: a stream may hold several snapshots.
    pub part: usize,
    /// What came of the digest of what was brought.
    pub verdict: Verdict,
    /// Something on the disk came without a digest that was compared.
    pub is_unverified: bool,
    /// The point that was cut of it. Not there in the point itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    /// Something else was let in to write to the disk since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_ended: bool,
    /// In the source's terms.
    #[serde(flatten)]
    pub source: S,
}

/// The name of its attachment.
pub fn attachment(way: &str, disk: &str) -> String {
    format!("{way}:{disk}")
}

/// What a disk holds, as that way in has left it; `None` where it brought nothing yet.
///
/// # Errors
/// Corrupt where the attachment is none.
pub fn of<S: DeserializeOwned>(machine: &Machine, way: &str, disk: &str) -> Result<Option<Position<S>>> {
    // Asked often: the state as a whole may be large.
    let raw = machine.journal().with_state(|state| state.attachments.get(&attachment(way, disk)).cloned());
    raw.map(|raw| parse(&raw, way, disk)).transpose()
}

/// Reads an attachment.
///
/// # Errors
/// Corrupt where it is none.
pub fn parse<S: DeserializeOwned>(raw: &[u8], way: &str, disk: &str) -> Result<Position<S>> {
    serde_json::from_slice(raw)
        .map_err(|error| Error::corrupt(format!("the attachment {way}:{disk} cannot be read: {error}")))
}

impl<S> Position<S> {
    /// Why it holds no longer; `None` where it does.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub fn is_lost(&self, machine: &Machine, disk: &str) -> Result<Option<&'static str>> {
        self.was_lost(machine, disk, u64::MAX)
    }

    /// Why it held no longer at record `then` of the journal; `None` where it did.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub fn was_lost(&self, machine: &Machine, disk: &str, then: u64) -> Result<Option<&'static str>> {
        const OTHER: &str = "something else was written to it since";
        if self.has_ended {
            return Ok(Some(OTHER));
        }
        let point = self.point.filter(|own| {
            // In memory, or a look at indexes: no content is read.
            machine.points().is_ok_and(|points| points.iter().any(|point| point.sequence == *own))
        });
        let Some(point) = point else { return Ok(Some("the point that was cut then was given up")) };
        let Some(number) = machine.disk_number(disk) else { return Ok(Some("the disk was removed since")) };
        // Another one of its name holds nothing of it.
        if machine.journal().view(point)?.state.number(disk) != Some(number) {
            return Ok(Some("the disk was removed since, and is another one"));
        }
        Ok(is_written(machine, Some(number), point, then)?.then_some(OTHER))
    }
}

/// Notes, on the medium, that something else is let in to write to a disk: whatever becomes of what it writes, the disk holds no longer what
/// its deltas have brought.
///
/// # Errors
/// As the journal's.
pub fn end(machine: &Machine, disk: &str) -> Result<()> {
    let mut is_changed = false;
    for way in WAYS {
        let Some(position) =
            of::<serde_json::Value>(machine, way, disk)?.filter(|position| !position.has_ended)
        else {
            continue;
        };
        let position = Position { has_ended: true, ..position };
        let raw = serde_json::to_vec(&position)
            .map_err(|error| Error::refused(format!("cannot be written down: {error}")))?;
        machine.journal().attach(&attachment(way, disk), &raw)?;
        is_changed = true;
    }
    match is_changed {
        true => machine.journal().sync().map(drop),
        false => Ok(()),
    }
}

/// What a delta has brought to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brought {
    /// The way in: one of [`WAYS`].
    pub way: &'static str,
    /// The point that was cut of it.
    pub point: Option<u64>,
    /// What it is in the source's terms: a snapshot, a checkpoint, a file.
    pub source: Option<String>,
    /// Something on the disk came without a digest that was compared.
    pub is_unverified: bool,
}

/// The disks of a machine that are fed by deltas, each with the last: nothing else was let in to write to them since.
pub fn brought(state: &State) -> BTreeMap<String, Brought> {
    let mut all: BTreeMap<String, Brought> = BTreeMap::new();
    for (name, raw) in &state.attachments {
        let Some((way, disk)) = name.split_once(':') else { continue };
        let Some(way) = WAYS.into_iter().find(|own| *own == way) else { continue };
        let is_there = state.disks.values().any(|info| info.name == disk);
        let Ok(position) = parse::<serde_json::Value>(raw, way, disk) else { continue };
        if !is_there || position.has_ended {
            continue;
        }
        let named =
            ["snapshot", "checkpoint", "file"].into_iter().find_map(|key| position.source.get(key)?.as_str());
        let source = named.map(str::to_owned);
        let own = Brought { way, point: position.point, source, is_unverified: position.is_unverified };
        let is_later = all.get(disk).is_none_or(|other| other.point < own.point);
        if is_later {
            all.insert(disk.to_owned(), own);
        }
    }
    all
}

/// True for an attachment that is what a disk holds.
pub fn is_one(attachment: &str) -> bool {
    attachment.split_once(':').is_some_and(|(way, _)| WAYS.contains(&way))
}

/// True where each disk but those of `besides` holds what its deltas have brought: then nothing is missing of it that was acknowledged, since
/// deltas are acknowledged when they are on the medium.
///
/// # Errors
/// Where the journal cannot be read.
pub fn all_hold(machine: &Machine, besides: &[Name]) -> Result<bool> {
    for info in machine.journal().with_state(|state| state.disks.clone()).values() {
        if besides.iter().any(|other| other.as_str() == info.name) {
            continue;
        }
        let mut holds = false;
        for way in WAYS {
            if let Some(position) = of::<serde_json::Value>(machine, way, &info.name)? {
                holds |= position.is_lost(machine, &info.name)?.is_none();
            }
        }
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Points that the rules of retention must leave, so that the next delta is known to fit: to be given to
/// [`upkeep::run`](crate::vault::upkeep::run). Once something else has written to a disk, none is kept for it.
///
/// # Errors
/// Where the journal cannot be read.
pub fn points_to_keep(machine: &Machine) -> Result<BTreeSet<u64>> {
    let mut keep = BTreeSet::new();
    for (name, raw) in &machine.journal().state().attachments {
        let Some((way, disk)) = name.split_once(':').filter(|(way, _)| WAYS.contains(way)) else { continue };
        let Ok(position) = parse::<serde_json::Value>(raw, way, disk) else { continue };
        if position.is_lost(machine, disk)?.is_none() {
            keep.extend(position.point);
        }
    }
    Ok(keep)
}
