//! Looks through a whole stream before a byte of it is applied, and decides whether it fits the disk.
//!
//! A stream has no sum of its own: what was changed in its data, and an offset that was changed within the disk, can only be seen by a
//! digest that comes beside it. What makes a damaged stream dangerous is refused without one: records out of order, a disk that
//! becomes smaller.

use super::record::{Head, Part, Shape};
use super::stream::Stream;
use super::{Hashing, Policy, Snapshot};
use crate::receive::digest::{Sum, Verdict};
use crate::receive::position::Position;
use landfall_image::{Bytes, Error, FileOffset, Result};
use serde::Serialize;
use std::io::Read;

/// What a stream holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Summary {
    /// What it is.
    pub shape: Shape,
    /// Its length in bytes.
    pub length: Bytes,
    /// Its digest.
    pub sha256: Sum,
    /// Its diffs, in order.
    pub diffs: Vec<Diff>,
    /// Where the first record begins that lies before, or in, the one that came before it.
    pub disorder: Option<u64>,
}

/// One diff of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Diff {
    /// What stands before its data.
    pub head: Head,
    /// Bytes of data.
    pub data: Bytes,
    /// Bytes that become zeros.
    pub zeros: Bytes,
    /// Digest of the stream up to its end.
    #[serde(skip)]
    pub sum: Sum,
}

/// Reads a stream to its end.
///
/// # Errors
/// As [`Stream`]'s; corrupt where its diffs do not follow on each other.
pub fn survey(reader: impl Read) -> Result<Summary> {
    let mut stream = Stream::open(Hashing::new(reader))?;
    let shape = stream.shape();
    let mut diffs: Vec<Diff> = Vec::new();
    let (mut disorder, mut end) = (None, 0);
    loop {
        let at = stream.position();
        let Some(part) = stream.part()? else { break };
        let range = match part {
            Part::Diff(head) => {
                follows(shape, &head, diffs.last(), at)?;
                diffs.push(Diff { head, data: Bytes(0), zeros: Bytes(0), sum: Sum::of(&[]) });
                end = 0;
                continue;
            }
            Part::Data(range) | Part::Zero(range) => range,
            Part::End => {
                let sum = stream.inner().sum();
                diffs.iter_mut().rev().take(1).for_each(|diff| diff.sum = sum);
                continue;
            }
        };
        if range.start().0 < end {
            disorder.get_or_insert(at.0);
        }
        end = range.end().0;
        if let Some(diff) = diffs.last_mut() {
            let sum = if matches!(part, Part::Data(_)) { &mut diff.data } else { &mut diff.zeros };
            sum.0 = sum.0.saturating_add(range.len().0);
        }
    }
    Ok(Summary { shape, length: Bytes(stream.position().0), sha256: stream.inner().sum(), diffs, disorder })
}

/// The diffs of an image lead from nothing through its snapshots to itself.
fn follows(shape: Shape, head: &Head, last: Option<&Diff>, at: FileOffset) -> Result<()> {
    let before = last.map(|last| &last.head.to);
    let wrong = match (shape, before) {
        (Shape::Diff(_), _) => None,
        (Shape::Image { .. }, None) => {
            head.from.as_ref().map(|from| format!("its first diff begins at {from:?}"))
        }
        (Shape::Image { .. }, Some(None)) => Some("a diff follows that of the image itself".to_owned()),
        (Shape::Image { .. }, Some(Some(to))) => match &head.from {
            Some(from) if from == to => None,
            Some(from) => Some(format!("a diff begins at {from:?}, and the one before leads to {to:?}")),
            None => Some(format!("a diff begins at nothing, and the one before leads to {to:?}")),
        },
    };
    match wrong {
        None => Ok(()),
        Some(says) => Err(Error::corrupt(says).at(at).hint("send it again, or one that rbd export wrote")),
    }
}

/// A disk that a stream is for.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// Size and sector size; `None` where there is none yet.
    pub size: Option<(Bytes, u32)>,
    /// It reads as zeros.
    pub is_blank: bool,
    /// What it holds by earlier streams, and why it does so no longer.
    pub position: Option<(Position<Snapshot>, Option<&'static str>)>,
}

/// What is to be done with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is applied.
    Apply,
    /// The disk holds it already: it was the last that was applied.
    There,
}

/// Decides about a stream that is for `disk`, called `name`. `replace` says that it takes the place of all that the disk holds.
///
/// # Errors
/// Refused, with what the disk holds and how the right stream is made.
pub fn judge(
    summary: &Summary,
    name: &str,
    disk: &Disk,
    verdict: Verdict,
    replace: bool,
    policy: Policy,
) -> Result<Answer> {
    match verdict {
        Verdict::Matched => {}
        Verdict::Differed => {
            return Err(Error::corrupt(format!(
                "its SHA-256 is {}, which is not the one that came with it: it was damaged on its way",
                summary.sha256
            ))
            .hint("send it again; nothing of it was applied"));
        }
        Verdict::CouldNotRun => without_digest(summary, disk, policy)?,
    }
    if let Some((position, None)) = &disk.position
        && position.source.stream == summary.sha256
    {
        return Ok(Answer::There);
    }
    let Some(first) = summary.diffs.first() else { return Err(Error::corrupt("has no diff")) };
    fits(&first.head, name, disk, replace)?;
    for diff in &summary.diffs {
        let sector = disk.size.map_or(512, |(_, sector)| sector);
        if !diff.head.size.0.is_multiple_of(u64::from(sector)) {
            return Err(Error::unsupported(format!(
                "makes {name} {} bytes large, which is no multiple of {sector}",
                diff.head.size.0
            ))
            .hint("resize the image to whole MiB (rbd resize --size), take a snapshot, and send the diff to that"));
        }
    }
    Ok(Answer::Apply)
}

fn without_digest(summary: &Summary, disk: &Disk, policy: Policy) -> Result<()> {
    let refused = |says: String| {
        Error::refused(says).hint(
            "send its digest with it: sha256sum FILE > FILE.sha256, where the stream is made; landfall takes the file or its 64 digits",
        )
    };
    if policy.require_digest {
        return Err(refused("comes without a digest, and this vault asks for one (require_digest)".into()));
    }
    if let Some(at) = summary.disorder {
        return Err(refused(
            "its records are not in the order of the disk: it is of a striped image, or damaged, and without a digest nobody can tell".into(),
        )
        .at(FileOffset(at)));
    }
    let (mut size, mut smaller) = (disk.size.map_or(0, |(size, _)| size.0), None);
    for diff in &summary.diffs {
        if diff.head.size.0 < size {
            smaller.get_or_insert((size, diff.head.size.0));
        }
        size = diff.head.size.0;
    }
    match smaller {
        None => Ok(()),
        Some((from, to)) => Err(refused(format!(
            "makes the disk smaller, from {from} to {to} bytes; without a digest it may as well be damaged"
        ))),
    }
}

/// That a diff begins where the disk is.
fn fits(head: &Head, name: &str, disk: &Disk, replace: bool) -> Result<()> {
    let next = |snapshot: &str| {
        format!("rbd export-diff --from-snap '{snapshot}' POOL/IMAGE@SNAPSHOT FILE makes the one that fits")
    };
    let whole = "send all of it: rbd export-diff POOL/IMAGE@SNAPSHOT FILE, taken with --replace; points that were cut before stay";
    let has = disk.position.as_ref().map(|(position, lost)| (position.source.snapshot.as_deref(), *lost));
    let (says, hint) = match (&head.from, has) {
        (None, _) if replace || disk.size.is_none() || disk.is_blank => return Ok(()),
        (None, Some((Some(snapshot), None))) => (
            format!("is a whole disk, and {name} is at the snapshot {snapshot:?}"),
            format!("{}; to put this one in the place of what {name} holds, take it with --replace: points that were cut before stay", next(snapshot)),
        ),
        (None, _) => (
            format!("is a whole disk, and {name} holds another"),
            format!("to put this one in the place of what {name} holds, take it with --replace: points that were cut before stay"),
        ),
        (Some(_), _) if replace => (
            "is a difference to a snapshot, and cannot take the place of all that the disk holds".to_owned(),
            "leave --replace out, or send the whole disk: rbd export-diff POOL/IMAGE@SNAPSHOT FILE".to_owned(),
        ),
        (Some(from), Some((Some(snapshot), None))) if from == snapshot => return Ok(()),
        (Some(from), Some((Some(snapshot), None))) => {
            let says = format!("begins at the snapshot {from:?}, and {name} is at {snapshot:?}");
            match head.to.as_deref() == Some(snapshot) {
                true => (format!("{says}: that step was made already"), next(snapshot)),
                false => (says, next(snapshot)),
            }
        }
        (Some(from), Some((Some(snapshot), Some(lost)))) => (
            format!("begins at the snapshot {from:?}; {name} was at {snapshot:?} once, but {lost}"),
            whole.to_owned(),
        ),
        (Some(from), Some((None, _))) => (
            format!("begins at the snapshot {from:?}; what {name} holds was read from the image itself, without a snapshot"),
            whole.to_owned(),
        ),
        (Some(from), None) => (
            format!("begins at the snapshot {from:?}, and {name} has no snapshot yet"),
            "send the whole disk first: rbd export-diff POOL/IMAGE@SNAPSHOT FILE, then differences from that snapshot"
                .to_owned(),
        ),
    };
    Err(Error::refused(says).hint(hint))
}
