//! What is done in the background: segments are sealed, points are given up by the rules, the oldest part goes into the base, indexes are
//! merged.
//!
//! ```text
//! base | [ point  point  point ] [ ……… ] [ … ] [ 5 s, 5 s, 5 s … ] [ being written ]
//!        ^ rewritten: one a day          one an hour      as they came
//! ```
//!
//! Each step leaves a journal that is whole: a cut at any moment costs the step, not a point.
//!
//! Memory: the records of one batch are looked at together, 262,144 (or one segment's, where it has more), which takes less than
//! 64 MiB with their maps; beside that two records of up to 32 MiB each. It does not grow with the disks, nor with the journal.

use super::base::Part;
use super::compact;
use super::journal::map::{Run, RunMap};
use super::journal::record::Kind;
use super::journal::segment::Segment;
use super::journal::start::has_begun;
use super::journal::{Batch, Checkpoint};
use super::machine::Machine;
use super::retention::{Now, Retention};
use landfall_image::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

/// Records that are looked at together: of what is held in memory.
const RECORDS_AT_MOST: u64 = 1 << 18;

/// A segment is closed when it goes back for this part of the first rule's span.
const PARTS: u64 = 8;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Points that were given up.
    pub points: usize,
    /// Segments that were rewritten.
    pub rewritten: usize,
    /// Segments that went into the base.
    pub folded: usize,
    /// Indexes that were made of those of neighbours.
    pub merged: usize,
}

/// What people want of points, by their records, beside the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Kept whatever the rules say.
    pub kept: BTreeSet<u64>,
    /// Not kept for the name that they were set with: it was taken back.
    pub unnamed: BTreeSet<u64>,
    /// Not kept at all.
    pub given_up: BTreeSet<u64>,
}

/// Does what there is to do. `pace` is called with the bytes that were written since: to be slow on purpose; its error ends the work.
///
/// # Errors
/// As the storage's; corrupt where the journal or the base is not what was written. No point is lost then.
pub fn run(
    machine: &Machine,
    retention: &Retention,
    wishes: &Wishes,
    now: impl Into<Now>,
    pace: &dyn Fn(u64) -> Result<()>,
) -> Result<Done> {
    let now: Now = now.into();
    let _one = machine.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
    // It was taken out of the vault: there may be another one of its name by now.
    if machine.journal().is_shut() {
        return Ok(Done::default());
    }
    let pace = |bytes| match machine.journal().is_shut() {
        true => Err(Error::interrupted()),
        false => pace(bytes),
    };
    let pace: &dyn Fn(u64) -> Result<()> = &pace;
    // One that was cut off, by a medium without room or by the end of the service, is done before anything else is read or written there.
    if let Some(through) = machine.base().begun()? {
        fold_again(machine, through, pace)?;
    }
    let span =
        retention.rules().first().map_or(0, |rule| u64::try_from(rule.span.as_millis()).unwrap_or(u64::MAX));
    // A machine that writes little would fill one segment for days, and nothing in it could be given up.
    if machine.journal().active_since().is_some_and(|since| now.age(since) > span / PARTS) {
        machine.journal().close_segment();
    }
    machine.journal().seal()?;
    let mut done = Done::default();
    let mut points = machine.points()?;
    for point in points.iter_mut().filter(|point| wishes.unnamed.contains(&point.sequence)) {
        point.mark.tag = None;
    }
    let mut keep = retention.kept(&points, now);
    keep.extend(&wishes.kept);
    keep.retain(|point| !wishes.given_up.contains(point));
    keep.extend(machine.pinned());
    keep.extend(machine.holds().points());
    // What is not durable yet is no point yet, and will be one.
    let durable = machine.journal().durable();
    let oldest = keep.iter().find(|point| points.iter().any(|other| other.sequence == **point)).copied();
    let behind = match oldest {
        Some(oldest) => oldest,
        // Before its first point a machine needs no past: a copy that is begun again and again does not fill the vault.
        None if machine.journal().checkpoints()?.is_empty() => last_begun(machine)?,
        None => return Ok(done),
    };
    loop {
        let behind: Vec<Arc<Segment>> =
            sealed(machine).into_iter().take_while(|segment| segment.last < behind).collect();
        let batch = batch(machine, &behind)?;
        let Some(last) = batch.last() else { break };
        if !machine.give_up(last.last) {
            break;
        }
        let through = last.last;
        fold(machine, &batch, through, pace, false)?;
        let lost = points.iter().take_while(|point| point.sequence <= through).count();
        points.drain(..lost);
        done.points += lost;
        done.folded += batch.len();
    }
    for mut group in groups(machine, &points, &keep, durable, span, now)? {
        while !group.is_empty() {
            let batch = batch(machine, &group)?;
            group.drain(..batch.len());
            done.points += batch.iter().map(|segment| surplus(of(&points, segment), &keep)).sum::<usize>();
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
    done.merged = machine.journal().merge(pace)?;
    Ok(done)
}

/// Runs of segments that are rewritten together, the oldest first.
///
/// A segment is when the youngest of its points has left the first rule, and half of its points are to go at least: so each record is
/// written again once for every halving of its points, and not whenever a point leaves a rule. Segments before it that are no larger become
/// one with it, up to the size of a segment that is full: their number stays small, and each record takes part in a merge as often as their
/// size doubles.
fn groups(
    machine: &Machine,
    points: &[Checkpoint],
    keep: &BTreeSet<u64>,
    durable: u64,
    span: u64,
    now: Now,
) -> Result<Vec<Vec<Arc<Segment>>>> {
    let all = sealed(machine);
    let limits = machine.journal().limits();
    let mut wanted = Vec::new();
    for segment in &all {
        let points = of(points, segment);
        let surplus = surplus(points, keep);
        let is_old = points.last().is_some_and(|last| now.age(last.time) > span);
        wanted.push(segment.last <= durable && is_old && surplus > 0 && 2 * surplus >= points.len());
    }
    // Records and bytes: asked for where they count, of some among thousands.
    let size = |segment: &Arc<Segment>| -> Result<(u64, u64)> {
        Ok((segment.indexed(|index| Ok(index.records()))?, segment.size()?))
    };
    let mut groups = Vec::new();
    let mut at = 0;
    while let Some(first) = (at..all.len()).find(|number| wanted[*number]) {
        let end = (first..all.len()).find(|number| !wanted[*number]).unwrap_or(all.len());
        let (mut begin, mut records, mut bytes) = (first, 0, 0);
        for segment in &all[first..end] {
            let (more_records, more_bytes) = size(segment)?;
            (records, bytes) = (records + more_records, bytes + more_bytes);
        }
        while begin > at && records < limits.records as u64 && bytes < limits.bytes {
            let (more_records, more_bytes) = size(&all[begin - 1])?;
            let is_small = more_records <= records && more_bytes <= bytes;
            (records, bytes) = (records + more_records, bytes + more_bytes);
            if !is_small || records > limits.records as u64 || bytes > limits.bytes {
                break;
            }
            begin -= 1;
        }
        groups.push(all[begin..end].to_vec());
        at = end;
    }
    Ok(groups)
}

/// Those of the points that are in a segment.
fn of<'p>(points: &'p [Checkpoint], segment: &Segment) -> &'p [Checkpoint] {
    let from = points.partition_point(|point| point.sequence < segment.name.first);
    let to = points.partition_point(|point| point.sequence <= segment.last);
    &points[from..to]
}

/// How many of these points are not kept.
fn surplus(points: &[Checkpoint], keep: &BTreeSet<u64>) -> usize {
    points.iter().filter(|point| !keep.contains(&point.sequence)).count()
}

fn sealed(machine: &Machine) -> Vec<Arc<Segment>> {
    machine.journal().segments().iter().take_while(|segment| segment.log().is_none()).cloned().collect()
}

/// The first record of the last segment that has all of the state that it begins with: who opens the journal finds the disks there.
fn last_begun(machine: &Machine) -> Result<u64> {
    for segment in sealed(machine).iter().rev() {
        if has_begun(segment)? {
            return Ok(segment.name.first);
        }
    }
    Ok(0)
}

/// As many from the front as are looked at together; at least one, where there is one. What is made of them needs no more room than stays
/// free of the medium ([`super::room`]).
fn batch(machine: &Machine, segments: &[Arc<Segment>]) -> Result<Vec<Arc<Segment>>> {
    let bytes_at_most = machine.journal().limits().bytes.saturating_mul(2);
    let (mut count, mut bytes) = (0, 0);
    let mut batch = Vec::new();
    for segment in segments {
        count += segment.indexed(|index| Ok(index.records()))?;
        bytes += segment.size()?;
        if (count > RECORDS_AT_MOST || bytes > bytes_at_most) && !batch.is_empty() {
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
pub(super) fn fold_again(machine: &Machine, through: u64, pace: &dyn Fn(u64) -> Result<()>) -> Result<()> {
    // What was sealed when the fold began is so still.
    let batch: Vec<Arc<Segment>> =
        sealed(machine).into_iter().take_while(|segment| segment.last <= through).collect();
    if batch.last().is_none_or(|last| last.last != through) {
        return Err(Error::corrupt(format!("the part of the journal up to record {through} is missing"))
            .hint("bring the missing files back from a copy of the vault"));
    }
    fold(machine, &batch, through, pace, true)
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
    let records = Batch::open(batch)?;
    for (segment, entries) in records.records() {
        for entry in entries {
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
    let read = |first: u64, at: u64, buf: &mut [u8]| records.read(first, at, buf);
    let part = Part { through, runs: &runs, gone: &gone, read: &read, pace };
    match again {
        true => machine.base().fold_again(&part)?,
        false => machine.base().fold(&part)?,
    }
    machine.journal().replace(batch, Vec::new());
    Ok(())
}
