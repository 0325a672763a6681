//! What is done in the background: segments are sealed, points are given up by the rules, the oldest part goes into the base.
//!
//! ```text
//! base | [ point  point  point ] [ ……… ] [ … ] [ 5 s, 5 s, 5 s … ] [ being written ]
//!        ^ rewritten: one a day          one an hour      as they came
//! ```
//!
//! Each step leaves a journal that is whole: a cut at any moment costs the step, not a point.
//!
//! Memory: the records of one batch are looked at together, 262,144 (or one segment's, where it has more), which takes less than
//! 64 MiB with their maps; beside that some MiB of buffers. It does not grow with the disks, nor with the journal.

use super::base::Part;
use super::compact;
use super::journal::map::{Run, RunMap};
use super::journal::record::Kind;
use super::journal::segment::Segment;
use super::journal::{checkpoints, records};
use super::machine::Machine;
use super::retention::Retention;
use landfall_image::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

/// Records that are looked at together: of what is held in memory.
const RECORDS_AT_MOST: u64 = 1 << 18;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Points that were given up.
    pub points: usize,
    /// Segments that were rewritten.
    pub rewritten: usize,
    /// Segments that went into the base.
    pub folded: usize,
}

/// Does what there is to do. `now` is in milliseconds since 1970; `kept` are points to keep beside those of the rules; `pace` is
/// called with the bytes that were written since: to be slow on purpose; its error ends the work.
///
/// # Errors
/// As the storage's; corrupt where the journal or the base is not what was written. No point is lost then.
pub fn run(
    machine: &Machine,
    retention: &Retention,
    kept: &BTreeSet<u64>,
    now: u64,
    pace: &dyn Fn(u64) -> Result<()>,
) -> Result<Done> {
    let _one = machine.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
    machine.journal().seal()?;
    let mut done = Done::default();
    let points = machine.points()?;
    let mut keep = retention.kept(&points, now);
    keep.extend(kept);
    keep.extend(machine.pinned());
    keep.extend(machine.holds().points());
    // What is not durable yet is no point yet, and will be one.
    let durable = machine.journal().durable();
    let Some(oldest) =
        keep.iter().find(|point| points.iter().any(|other| other.sequence == **point)).copied()
    else {
        return Ok(done);
    };
    loop {
        let behind: Vec<Arc<Segment>> =
            sealed(machine).into_iter().take_while(|segment| segment.last < oldest).collect();
        let batch = batch(&behind)?;
        let Some(last) = batch.last() else { break };
        if !machine.give_up(last.last) {
            break;
        }
        let lost: usize =
            batch.iter().map(|segment| Ok(checkpoints(segment)?.len())).sum::<Result<usize>>()?;
        fold(machine, &batch, last.last, pace, false)?;
        done.points += lost;
        done.folded += batch.len();
    }
    // A segment is rewritten when the youngest of its points has left the first rule: no more than once for each rule.
    let span =
        retention.rules().first().map_or(0, |rule| u64::try_from(rule.span.as_millis()).unwrap_or(u64::MAX));
    let is_old = |time: u64| time.saturating_add(span) < now;
    let mut candidates: Vec<Arc<Segment>> = Vec::new();
    let mut groups: Vec<Vec<Arc<Segment>>> = Vec::new();
    for segment in sealed(machine) {
        let points = checkpoints(&segment)?;
        let surplus = points.iter().filter(|point| !keep.contains(&point.sequence)).count();
        let is_settled = segment.last <= durable && points.last().is_some_and(|last| is_old(last.time));
        if is_settled && surplus > 0 {
            done.points += surplus;
            candidates.push(segment);
        } else if !candidates.is_empty() {
            groups.push(std::mem::take(&mut candidates));
        }
    }
    groups.push(candidates);
    for mut group in groups {
        while !group.is_empty() {
            let batch = batch(&group)?;
            group.drain(..batch.len());
            let first = batch.first().map_or(0, |segment| segment.name.first);
            let last = batch.last().map_or(0, |segment| segment.last);
            machine.holds().rewriting(first..=last, &mut keep);
            let rewritten = compact::rewrite(machine.home(), &batch, &keep, pace);
            let rewritten = rewritten.map(|new| machine.journal().replace(&batch, vec![new]));
            machine.holds().rewritten();
            rewritten?;
            done.rewritten += batch.len();
        }
    }
    Ok(done)
}

fn sealed(machine: &Machine) -> Vec<Arc<Segment>> {
    machine.journal().segments().iter().take_while(|segment| segment.log().is_none()).cloned().collect()
}

/// As many from the front as are looked at together; at least one, where there is one.
fn batch(segments: &[Arc<Segment>]) -> Result<Vec<Arc<Segment>>> {
    let mut count = 0;
    let mut batch = Vec::new();
    for segment in segments {
        count += segment.indexed(|index| Ok(index.records()))?;
        if count > RECORDS_AT_MOST && !batch.is_empty() {
            break;
        }
        batch.push(Arc::clone(segment));
    }
    Ok(batch)
}

/// Does a fold again that was cut off.
///
/// # Errors
/// As the base's.
pub(super) fn fold_again(machine: &Machine, through: u64) -> Result<()> {
    // What was sealed when the fold began is so still.
    let batch: Vec<Arc<Segment>> =
        sealed(machine).into_iter().take_while(|segment| segment.last <= through).collect();
    if batch.last().is_none_or(|last| last.last != through) {
        return Err(Error::corrupt(format!("the part of the journal up to record {through} is missing"))
            .hint("bring the missing files back from a copy of the vault"));
    }
    fold(machine, &batch, through, &|_| Ok(()), true)
}

fn fold(
    machine: &Machine,
    batch: &[Arc<Segment>],
    through: u64,
    pace: &dyn Fn(u64) -> Result<()>,
    again: bool,
) -> Result<()> {
    let mut maps: BTreeMap<u32, RunMap> = BTreeMap::new();
    let mut gone = BTreeSet::new();
    for segment in batch {
        for entry in records(segment)? {
            match entry.kind {
                Kind::Disk => drop(gone.remove(&entry.disk)),
                Kind::DiskGone => drop(gone.insert(entry.disk)),
                _ => entry.put(segment.name.first, &mut maps),
            }
        }
    }
    let gone: Vec<u32> = gone.into_iter().collect();
    gone.iter().for_each(|disk| drop(maps.remove(disk)));
    let runs: BTreeMap<u32, Vec<Run>> =
        maps.into_iter().map(|(disk, map)| (disk, map.runs().collect())).collect();
    let read = |first: u64, at: u64, buf: &mut [u8]| {
        let found = batch.iter().find(|segment| segment.name.first == first);
        found.ok_or_else(|| Error::corrupt("a run lies in no part of the journal"))?.read(at, buf)
    };
    let part = Part { through, runs: &runs, gone: &gone, read: &read, pace };
    match again {
        true => machine.base().fold_again(&part)?,
        false => machine.base().fold(&part)?,
    }
    machine.journal().replace(batch, Vec::new());
    Ok(())
}
