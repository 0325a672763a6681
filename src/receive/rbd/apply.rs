//! Puts streams that lie in the spool into a machine.

use super::check::{self, Answer, Summary, survey};
use super::record::{Head, Part};
use super::stream::Stream;
use super::{Hashing, Policy, Snapshot, WAY};
use crate::moment::Moment;
use crate::name::Name;
use crate::receive::batch::{self, Batch, Batches, Intent, Target, Work};
use crate::receive::content::{self, Counts, Effort, PIECE};
use crate::receive::digest::{Sum, Verdict};
use crate::receive::position::{self, Position};
use crate::receive::spool::{Spool, Upload};
use crate::vault::journal::Mark;
use crate::vault::machine::{Live, Machine};
use landfall_image::{Bytes, Disk, Error, ExtentKind, GuestOffset, GuestRange, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use uuid::Uuid;

/// What is on the medium of streams that are being applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The streams: one for each disk.
    pub items: Vec<Item>,
    /// The moment that they are of.
    pub taken_at: Option<Moment>,
    /// When it was begun, in milliseconds since 1970.
    pub now: u64,
}

/// A stream that is being applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Where it lies in the spool.
    pub upload: Uuid,
    /// The disk that it is for.
    pub disk: Name,
    /// The bytes of the disk's sectors.
    pub sector: u32,
    /// Its own digest, by which it is known to be the same still.
    pub sha256: Sum,
    /// What came of the digest that came with it.
    pub verdict: Verdict,
    /// What the disk held before came without a digest.
    pub was_unverified: bool,
}

/// What became of streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "StreamsTaken")]
pub struct Outcome {
    /// The machine.
    pub machine: Name,
    /// Its disks, as the streams were given.
    pub disks: Vec<DiskOutcome>,
    /// The points that were cut, oldest first; none where all was there already.
    pub points: Vec<u64>,
    /// The machine was not there: it was made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_new: bool,
}

/// What became of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "StreamTaken")]
pub struct DiskOutcome {
    /// The disk.
    pub disk: Name,
    /// What came of the digest.
    pub verdict: Verdict,
    /// The snapshot that it is at now; the one before, where `is_head` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The stream was read from the image itself, without a snapshot at its end: unless its machine was off, it is not one moment.
    pub is_head: bool,
    /// The disk held this stream already: nothing was done.
    pub was_there: bool,
    /// Its size before, where it was there, and now.
    pub size: (Option<Bytes>, Bytes),
    /// What was written to it.
    pub counts: Counts,
}

/// Takes streams from the spool into a machine, each for a disk of its own, and cuts one point of all; for a single stream one of each of
/// its snapshots. They leave the spool then; where they are refused, they stay in it. A machine that is not there yet is made only when all
/// fits. `now` is in milliseconds since 1970.
///
/// # Errors
/// As [`survey`] and [`judge`](check::judge): then nothing was written. Refused where something else writes to one of the disks; as the
/// vault's: then all is as it was before, or the machine is kept until the service has started again.
pub fn take<'t>(
    batches: &Batches,
    spool: &Spool,
    target: impl Into<Target<'t>>,
    uploads: &[Uuid],
    policy: Policy,
    now: u64,
    effort: &Effort,
) -> Result<Outcome> {
    let target = target.into();
    let uploads: Vec<Upload> = uploads.iter().map(|id| spool.upload(*id)).collect::<Result<_>>()?;
    same_machine(&target, &uploads)?;
    let (mut items, mut there) = (Vec::new(), Vec::new());
    for upload in &uploads {
        let disk = &upload.request.disk;
        let judged = judged(spool, target.known(), upload, policy).map_err(|error| named(error, upload))?;
        let (summary, found, verdict, answer) = judged;
        match answer {
            Answer::There => there.push((disk.clone(), verdict)),
            Answer::Apply => items.push((
                Item {
                    upload: upload.id,
                    disk: disk.clone(),
                    sector: found.size.map_or(512, |(_, sector)| sector),
                    sha256: summary.sha256,
                    verdict,
                    was_unverified: found.position.is_some_and(|(position, _)| position.is_unverified)
                        && summary.diffs.first().is_some_and(|diff| diff.head.from.is_some()),
                },
                summary,
            )),
        }
    }
    let mut outcome = Outcome {
        machine: target.name().parse()?,
        disks: Vec::new(),
        points: Vec::new(),
        is_new: target.known().is_none(),
    };
    if let Some(machine) = target.known() {
        for (disk, verdict) in there {
            outcome.disks.push(was_there(machine, disk, verdict)?);
        }
    }
    if !items.is_empty() {
        let machine = &target.made()?;
        let names: Vec<&str> = uploads.iter().map(|upload| upload.request.name.as_str()).collect();
        let says = format!("the RBD stream {}", names.join(", "));
        let disks: Vec<Name> = items.iter().map(|(item, _)| item.disk.clone()).collect();
        let (items, summaries): (Vec<Item>, Vec<Summary>) = items.into_iter().unzip();
        let taken_at = uploads.iter().filter_map(|upload| upload.request.taken_at).max();
        let job = Job { items, taken_at, now };
        let batch = batches.begin(machine, &disks, &says, Work::Rbd(job.clone()), now)?;
        // What was true before the lease may have changed: another batch or a stream can have come between.
        let still = || -> Result<()> {
            for item in &job.items {
                let upload = spool.upload(item.upload)?;
                let summary = summaries.iter().find(|summary| summary.sha256 == item.sha256);
                let Some(summary) = summary else { continue };
                let disk = disk_of(Some(machine), &item.disk)?;
                let replace = upload.request.replace;
                check::judge(summary, item.disk.as_str(), &disk, item.verdict, replace, policy)
                    .map_err(|error| named(error, &upload))?;
            }
            Ok(())
        };
        let (disks, points) = batch::whole(batch, effort, |batch| {
            still().and_then(|()| apply(batch, spool, &job, &summaries, effort))
        })?;
        outcome.disks.extend(disks);
        outcome.points = points;
    }
    uploads.iter().try_for_each(|upload| spool.discard(upload.id))?;
    Ok(outcome)
}

/// Does streams again that were cut off. Where one of them is gone or damaged by now, all is taken back.
///
/// # Errors
/// As [`take`]; where it was taken back, why.
pub fn resume(
    batches: &Batches,
    spool: &Spool,
    machine: &Arc<Machine>,
    intent: &Intent,
    job: &Job,
    effort: &Effort,
) -> Result<Outcome> {
    let batch = batches.resume(machine, intent.clone())?;
    let (disks, points) = batch::whole(batch, effort, |batch| {
        let mut summaries = Vec::new();
        for item in &job.items {
            let upload = spool.upload(item.upload)?;
            let summary = survey(spool.content(item.upload)?).map_err(|error| named(error, &upload))?;
            if summary.sha256 != item.sha256 {
                return Err(named(changed(&summary.sha256, &item.sha256), &upload));
            }
            summaries.push(summary);
        }
        apply(batch, spool, job, &summaries, effort)
    })?;
    job.items.iter().try_for_each(|item| spool.discard(item.upload))?;
    Ok(Outcome { machine: intent.machine.clone(), disks, points, is_new: false })
}

fn named(error: Error, upload: &Upload) -> Error {
    error.in_file(std::path::Path::new(&upload.request.name))
}

fn changed(found: &Sum, expected: &Sum) -> Error {
    Error::corrupt(format!("was changed in the spool: its SHA-256 is {found}, and was {expected} before"))
        .hint("check the vault's medium, and send the stream again")
}

/// That all are for this machine, each for a disk of its own, and no disk is left out.
fn same_machine(target: &Target<'_>, uploads: &[Upload]) -> Result<()> {
    if let Some(other) = uploads.iter().find(|upload| upload.request.machine.as_str() != target.name()) {
        let says = format!("is for {}, not for {}", other.request.machine, target.name());
        return Err(named(Error::refused(says), other));
    }
    let disks: BTreeSet<&str> = uploads.iter().map(|upload| upload.request.disk.as_str()).collect();
    if disks.len() < uploads.len() {
        return Err(Error::refused("two streams are for one disk")
            .hint("take them one after the other, the older one first: each has a point of its own"));
    }
    // A point is one moment of the machine, on all its disks.
    let Some(machine) = target.known() else { return Ok(()) };
    let state = machine.journal().state();
    let other = state.disks.values().find(|info| !disks.contains(info.name.as_str()));
    match (other, uploads.iter().find(|upload| !upload.request.apart)) {
        (Some(other), Some(upload)) => Err(named(
            Error::refused(format!("is not for {}, which {} has, too", other.name, machine.name())).hint(
                "send the streams of all disks that were taken at one moment (rbd group snap create), and take them together; or say that the others are of another moment (--apart)",
            ),
            upload,
        )),
        _ => Ok(()),
    }
}

fn judged(
    spool: &Spool,
    machine: Option<&Arc<Machine>>,
    upload: &Upload,
    policy: Policy,
) -> Result<(Summary, check::Disk, Verdict, Answer)> {
    let summary = survey(spool.content(upload.id)?)?;
    let disk = disk_of(machine, &upload.request.disk)?;
    let verdict = Verdict::of(summary.sha256, upload.request.sha256);
    let replace = upload.request.replace;
    let answer = check::judge(&summary, upload.request.disk.as_str(), &disk, verdict, replace, policy)?;
    Ok((summary, disk, verdict, answer))
}

/// What a machine's disk is to a stream.
fn disk_of(machine: Option<&Arc<Machine>>, name: &Name) -> Result<check::Disk> {
    let Some(machine) = machine else { return Ok(check::Disk { is_blank: true, ..check::Disk::default() }) };
    let position: Option<Position<Snapshot>> = position::of(machine, WAY, name.as_str())?;
    let position = match position {
        Some(position) => {
            let lost = position.is_lost(machine, name.as_str())?;
            Some((position, lost))
        }
        None => None,
    };
    if machine.disk_number(name.as_str()).is_none() {
        return Ok(check::Disk { size: None, is_blank: true, position });
    }
    let live = machine.live(name.as_str())?;
    let sector = u32::try_from(live.sector_size().0).unwrap_or(512);
    Ok(check::Disk { size: Some((live.size(), sector)), is_blank: is_blank(&live)?, position })
}

fn is_blank(disk: &dyn Disk) -> Result<bool> {
    let mut at = GuestOffset(0);
    while at.0 < disk.size().0 {
        let rest = GuestRange::between(at, GuestOffset(disk.size().0));
        let Some(extent) = disk.extents(rest, 1)?.first().copied() else { return Ok(false) };
        if extent.kind == ExtentKind::Data {
            return Ok(false);
        }
        at = extent.range.end();
    }
    Ok(true)
}

fn was_there(machine: &Arc<Machine>, disk: Name, verdict: Verdict) -> Result<DiskOutcome> {
    let size = machine.live(disk.as_str())?.size();
    let position: Option<Position<Snapshot>> = position::of(machine, WAY, disk.as_str())?;
    let source = position.map(|position| position.source);
    Ok(DiskOutcome {
        verdict,
        snapshot: source.as_ref().and_then(|source| source.snapshot.clone()),
        is_head: source.is_some_and(|source| source.is_head),
        was_there: true,
        size: (Some(size), size),
        counts: Counts::default(),
        disk,
    })
}

/// Where a stream leaves its disk behind one of its diffs.
fn position_behind(batch: &Batch, item: &Item, part: usize, head: &Head) -> Position<Snapshot> {
    let is_unverified = item.verdict != Verdict::Matched || item.was_unverified;
    let is_head = head.to.is_none();
    let snapshot = if is_head { head.from.clone() } else { head.to.clone() };
    let source = Snapshot { snapshot, is_head, stream: item.sha256 };
    Position {
        batch: batch.intent().id,
        part,
        verdict: item.verdict,
        is_unverified,
        point: None,
        has_ended: false,
        source,
    }
}

fn apply(
    batch: &mut Batch,
    spool: &Spool,
    job: &Job,
    summaries: &[Summary],
    effort: &Effort,
) -> Result<(Vec<DiskOutcome>, Vec<u64>)> {
    let (mut outcomes, mut points) = (Vec::new(), Vec::new());
    let time = job.taken_at.map_or(job.now, |moment| moment.0.min(job.now));
    let is_single = job.items.len() == 1;
    let mut positions = Vec::new();
    for (item, summary) in job.items.iter().zip(summaries) {
        let machine = Arc::clone(batch.machine());
        let before = machine.disk_number(item.disk.as_str()).map(|_| machine.live(item.disk.as_str()));
        let before = before.transpose()?.map(|live| live.size());
        let mut counts = Counts::default();
        let mut stream = Stream::open(Hashing::new(spool.content(item.upload)?))?;
        let mut last = None;
        for (part, diff) in summary.diffs.iter().enumerate() {
            let position = position_behind(batch, item, part, &diff.head);
            // The point of all is that of the last part.
            let of_point = if is_single { part } else { summary.diffs.len() - 1 };
            let live = match batch.was_cut(of_point) {
                Some(_) => None,
                None => Some(batch.disk(&item.disk, diff.head.size, item.sector)?),
            };
            counts.add(apply_diff(&mut stream, live.as_ref(), summary.disorder.is_some(), effort)?);
            // Before anybody can see it.
            if stream.inner().sum() != diff.sum {
                return Err(changed(&stream.inner().sum(), &diff.sum));
            }
            if is_single {
                points.push(batch.point(
                    time,
                    &Mark::default(),
                    &[(WAY, &item.disk, position.clone())],
                    &[],
                )?);
            }
            last = Some((diff, position));
        }
        let Some((diff, position)) = last else { return Err(Error::corrupt("has no diff")) };
        outcomes.push(DiskOutcome {
            disk: item.disk.clone(),
            verdict: item.verdict,
            snapshot: position.source.snapshot.clone(),
            is_head: position.source.is_head,
            was_there: false,
            size: (before, diff.head.size),
            counts,
        });
        positions.push((WAY, &item.disk, position));
    }
    if !is_single {
        points.push(batch.point(time, &Mark::default(), &positions, &[])?);
    }
    Ok((outcomes, points))
}

/// Applies the next diff of a stream to a disk that has its size; with `None`, passes over it.
fn apply_diff<R: Read>(
    stream: &mut Stream<R>,
    disk: Option<&Live>,
    is_disordered: bool,
    effort: &Effort,
) -> Result<Counts> {
    let mut counts = Counts::default();
    let Some(Part::Diff(head)) = stream.part()? else { return Err(Error::corrupt("has no diff here")) };
    let end = GuestOffset(head.size.0);
    // A disk that begins at nothing holds zeros wherever it is not told otherwise.
    let is_whole = head.from.is_none();
    if let Some(disk) = disk.filter(|_| is_whole && is_disordered) {
        counts.add(content::clear(disk, GuestRange::between(GuestOffset(0), end))?);
    }
    let mut at = GuestOffset(0);
    let (mut new, mut is) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        if effort.cancel.is_cancelled() {
            return Err(Error::interrupted());
        }
        let part = stream.part()?;
        let (Some(Part::Data(range) | Part::Zero(range)), Some(disk)) = (&part, disk) else {
            match part {
                Some(Part::End) => break,
                Some(Part::Data(_) | Part::Zero(_)) => continue,
                _ => return Err(Error::corrupt("ends in the middle of a diff")),
            }
        };
        if is_whole && !is_disordered {
            counts.add(content::clear(disk, GuestRange::between(at, range.start()))?);
            at = range.end();
        }
        if matches!(part, Some(Part::Zero(_))) {
            counts.add(content::clear(disk, *range)?);
            continue;
        }
        let mut here = range.start().0;
        while here < range.end().0 {
            let piece = PIECE as u64 - here % PIECE as u64;
            let len = usize::try_from(piece.min(range.end().0 - here)).unwrap_or(PIECE);
            let mut read = 0;
            while read < len {
                match stream.read(&mut new[read..len])? {
                    0 => return Err(Error::corrupt("ends in the middle of data")),
                    count => read += count,
                }
            }
            disk.read_at(GuestOffset(here), &mut is[..len])?;
            counts.add(content::put(disk, GuestOffset(here), &is[..len], &new[..len])?);
            here += len as u64;
        }
    }
    if let Some(disk) = disk.filter(|_| is_whole && !is_disordered) {
        counts.add(content::clear(disk, GuestRange::between(at, end))?);
    }
    Ok(counts)
}
