//! Pulls a machine's disks from NBD exports: a backup that libvirt has begun (`virsh backup-begin`, mode pull), or any server with the disk as
//! it was at one moment.
//!
//! ```text
//! qemu:dirty-bitmap:NAME there, and begins at the checkpoint that the vault's disk holds -> what is dirty is read and compared
//! anything else                                                                         -> all of the disk is
//! ```
//!
//! A bitmap is only as good as what it begins at. The checkpoint that the last pull has brought is kept with the machine (`pull:DISK`); where
//! the bitmap begins at another, is not served, or something else wrote to the disk since, the whole disk is read and compared with what the
//! vault holds, and the outcome says why. What is the same is not written, either way.
//!
//! A machine that is not there yet is made when all servers have answered.
//!
//! Absent: beginning and ending the backup at the source, and comparing by digests: content is compared with the vault's, which is here.

use super::batch::{self, Batch, Batches, Target, Work};
use super::content::{self, Changed, Counts, Effort};
use super::digest::Verdict;
use super::position::{self, Position};
use crate::moment::Moment;
use crate::name::Name;
use crate::vault::journal::{Consistency, Mark};
use crate::vault::machine::Machine;
use landfall_image::nbd::{Client, ClientOptions, Uri};
use landfall_image::{Bytes, Disk, Error, GuestOffset, GuestRange, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The way in, in the names of attachments.
pub const WAY: &str = "pull";
/// What contexts of dirty bitmaps begin with (QEMU, docs/interop/nbd.txt). Bit 0 of their flags is set where something was written.
const CONTEXT: &str = "qemu:dirty-bitmap:";
const DIRTY: u32 = 1;
/// Runs of one question.
const RUNS: usize = 4096;

/// What is pulled.
#[derive(Clone, Debug)]
pub struct Request {
    /// The disks, all of one moment.
    pub disks: Vec<Source>,
    /// What that moment is called at the source: the next pull can begin at it. libvirt's checkpoint.
    pub checkpoint: Option<String>,
    /// When it was.
    pub taken_at: Option<Moment>,
    /// How far it can be trusted.
    pub consistency: Consistency,
    /// The machine has other disks, which stay as they are: they are not of the same moment, and whoever pulls knows that.
    pub apart: bool,
}

/// Where a disk is pulled from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The disk in the vault.
    pub disk: Name,
    /// The export.
    pub uri: Uri,
    /// The bitmap of what has changed.
    pub bitmap: Option<Bitmap>,
}

/// A bitmap that an export has.
#[derive(Clone, Debug)]
pub struct Bitmap {
    /// Its name there. libvirt calls it `backup-vda`.
    pub name: String,
    /// The checkpoint that it begins at.
    pub since: String,
}

/// What a disk holds by its pulls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// The moment, by its name at the source.
    pub checkpoint: Option<String>,
}

/// What was pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "PullDone")]
pub struct Outcome {
    /// The machine.
    pub machine: Name,
    /// The point that was cut.
    pub point: u64,
    /// Its disks.
    pub disks: Vec<PulledDisk>,
}

/// A disk that was pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PulledDisk {
    /// The disk.
    pub disk: Name,
    /// Its size before, where it was there, and now.
    pub size: (Option<Bytes>, Bytes),
    /// What was read.
    pub read: Extent,
    /// What was done.
    pub counts: Counts,
}

/// How much of a disk was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "PullRead")]
#[serde(tag = "extent", rename_all = "kebab-case")]
pub enum Extent {
    /// What the bitmap says has changed, in bytes.
    Changed {
        /// Bytes.
        bytes: u64,
    },
    /// All of it.
    Whole {
        /// Why the bitmap did not do.
        why: String,
    },
}

/// Pulls the disks of a machine, and cuts one point of them. `now` is in milliseconds since 1970.
///
/// # Errors
/// Refused where a disk is left out or something else writes to one; as the servers' and the vault's: then all is as it was before.
pub fn pull<'t>(
    batches: &Batches,
    target: impl Into<Target<'t>>,
    request: &Request,
    nbd: &ClientOptions,
    now: u64,
    effort: &Effort,
) -> Result<Outcome> {
    let target = target.into();
    check_disks(&target, request)?;
    let connect = |source: &Source| {
        let contexts = source.bitmap.iter().map(|bitmap| format!("{CONTEXT}{}", bitmap.name)).collect();
        Client::connect(&source.uri, &ClientOptions { contexts, ..nbd.clone() })
    };
    let clients: Vec<Client> = request.disks.iter().map(connect).collect::<Result<_>>()?;
    let disks: Vec<Name> = request.disks.iter().map(|source| source.disk.clone()).collect();
    let says = format!("the pull from {}", request.disks.first().map_or("", |source| source.uri.export()));
    let batch = batches.begin(&target.made()?, &disks, &says, Work::Pull, now)?;
    batch::whole(batch, effort, |batch| apply(batch, request, &clients, now, effort))
}

fn check_disks(target: &Target<'_>, request: &Request) -> Result<()> {
    let is_pulled = |name: &str| request.disks.iter().filter(|source| source.disk.as_str() == name).count();
    if request.disks.is_empty() || request.disks.iter().any(|source| is_pulled(source.disk.as_str()) > 1) {
        return Err(Error::refused("each disk is to be pulled once").hint("name the export of each disk"));
    }
    let Some(machine) = target.known() else { return Ok(()) };
    let state = machine.journal().state();
    match state.disks.values().find(|info| is_pulled(&info.name) == 0 && !request.apart) {
        None => Ok(()),
        Some(other) => Err(Error::refused(format!(
            "{} is not pulled, which {} has, too",
            other.name,
            machine.name()
        ))
        .hint(
            "pull all disks of one backup together; or say that the others are of another moment (--apart)",
        )),
    }
}

fn apply(
    batch: &mut Batch,
    request: &Request,
    clients: &[Client],
    now: u64,
    effort: &Effort,
) -> Result<Outcome> {
    let machine = Arc::clone(batch.machine());
    let (mut disks, mut positions) = (Vec::new(), Vec::new());
    for (source, client) in request.disks.iter().zip(clients) {
        let name = source.disk.as_str();
        let before =
            machine.disk_number(name).map(|_| machine.live(name)).transpose()?.map(|live| live.size());
        let size = client.size();
        let changed = match why_whole(&machine, source, before, size)? {
            Some(why) => Err(why),
            None => changed(client, source)?,
        };
        let sector = u32::try_from(client.sector_size().0).unwrap_or(512);
        if !size.0.is_multiple_of(u64::from(sector)) {
            return Err(Error::unsupported(format!(
                "has {} bytes, which is no multiple of its sectors of {sector}",
                size.0
            ))
            .in_file(source.uri.as_path())
            .hint("export a disk of whole sectors"));
        }
        let live = batch.disk(&source.disk, size, sector)?;
        let (read, counts) = match changed {
            Ok(changed) => {
                let bytes = changed.ranges().map(|range| range.end - range.start).sum();
                let ranges: Vec<_> = changed.ranges().collect();
                (Extent::Changed { bytes }, content::copy(client, &live, ranges.into_iter(), false, effort)?)
            }
            Err(why) => {
                let all = std::iter::once(0..size.0);
                (Extent::Whole { why }, content::copy(client, &live, all, false, effort)?)
            }
        };
        let pulled = Pulled { checkpoint: request.checkpoint.clone() };
        positions.push((
            WAY,
            &source.disk,
            Position {
                batch: batch.intent().id,
                part: 0,
                verdict: Verdict::CouldNotRun,
                is_unverified: false,
                point: None,
                has_ended: false,
                source: pulled,
            },
        ));
        disks.push(PulledDisk { disk: source.disk.clone(), size: (before, size), read, counts });
    }
    let time = request.taken_at.map_or(now, |moment| moment.0.min(now));
    let mark = Mark { consistency: request.consistency, ..Mark::default() };
    let point = batch.point(time, &mark, &positions, &[])?;
    Ok(Outcome { machine: batch.intent().machine.clone(), point, disks })
}

/// Why a bitmap cannot be trusted to tell what has changed since what the vault holds; `None` where it can.
fn why_whole(
    machine: &Machine,
    source: &Source,
    before: Option<Bytes>,
    size: Bytes,
) -> Result<Option<String>> {
    let Some(bitmap) = &source.bitmap else { return Ok(Some("no bitmap was named".into())) };
    let position: Option<Position<Pulled>> = position::of(machine, WAY, source.disk.as_str())?;
    let (Some(position), Some(before)) = (position, before) else {
        return Ok(Some("the disk was not pulled before".into()));
    };
    // What a checkpoint is of is known before the batch begins; the lease keeps it so.
    if let Some(lost) = position.is_lost(machine, source.disk.as_str())? {
        return Ok(Some(format!("the bitmap does not tell of it: {lost}")));
    }
    if position.source.checkpoint.as_ref() != Some(&bitmap.since) {
        let has = position.source.checkpoint.as_deref().unwrap_or("none");
        return Ok(Some(format!(
            "the bitmap begins at the checkpoint {:?}, and the vault has {has:?}",
            bitmap.since
        )));
    }
    match before == size {
        true => Ok(None),
        false => Ok(Some(format!("the disk had {before} and has {size}: a bitmap may not have followed"))),
    }
}

/// What the bitmap of an export says; or why it does not.
fn changed(client: &Client, source: &Source) -> Result<std::result::Result<Changed, String>> {
    let Some(bitmap) = &source.bitmap else { return Ok(Err("no bitmap was named".into())) };
    let context = format!("{CONTEXT}{}", bitmap.name);
    let mut changed = Changed::nothing(client.size().0);
    let end = GuestOffset(client.size().0);
    let mut at = GuestOffset(0);
    while at < end {
        let Some(runs) = client.status(&context, GuestRange::between(at, end), RUNS)? else {
            return Ok(Err(format!("the server has no bitmap {:?} for this export", bitmap.name)));
        };
        for (run, flags) in runs {
            if flags & DIRTY != 0 {
                changed.add(run.start().0..run.end().0);
            }
            at = run.end();
        }
    }
    Ok(Ok(changed))
}
