//! Takes a sealed drop into the vault.

use super::contents::{self, Contents};
use super::inventory::Inventory;
use super::manifest::{self, Manifest, Seal};
use super::plan::{Plan, plan, plan_again};
use super::{Hands, Job, Top, WAY, Watcher, place};
use crate::name::Name;
use crate::receive::batch::{self, Batch, Intent, Work};
use crate::receive::content::{self, Counts, Effort};
use crate::receive::digest::Verdict;
use crate::receive::position::{self, Position};
use crate::vault::journal::Mark;
use crate::vault::machine::Machine;
use landfall_image::{Bytes, Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// The attachment with the machine's definition, whose disks' `file` is the name of the vault's disk.
const DEFINITION: &str = "machine.json";
/// The attachment with its UEFI variables.
const VARIABLES: &str = "nvram";

/// A drop that is complete.
pub struct Sealed {
    pub inventory: Inventory,
    pub manifest: Manifest,
    pub verdict: Verdict,
}

/// What was taken of a drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "DropDone")]
pub struct Taken {
    /// The point that was cut.
    pub point: u64,
    /// What came of the digests.
    pub verdict: Verdict,
    /// Where it lies now.
    pub place: PathBuf,
    /// It was in the vault already, and only had to be put away.
    pub was_there: bool,
    /// Its disks.
    pub disks: Vec<TakenDisk>,
    /// What is to be said besides.
    pub notes: Vec<String>,
}

/// A disk of a drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TakenDisk {
    /// The disk in the vault.
    pub disk: Name,
    /// The image, by its path in the drop.
    pub file: String,
    /// It is a delta: only what it stores was read.
    pub is_delta: bool,
    /// Its size before, where it was there, and now.
    pub size: (Option<Bytes>, Bytes),
    /// What was done.
    pub counts: Counts,
}

/// Takes a drop.
///
/// # Errors
/// Refused where it cannot be understood or does not fit the vault: nothing was changed. As the vault's: then all is as it was before, or
/// the machine is kept until the service has started again.
pub fn take(watcher: &Watcher, hands: &Hands<'_>, name: &Name, drop: &Sealed) -> Result<Taken> {
    let Sealed { inventory, manifest, verdict } = drop;
    if let Some(other) = manifest.machine.as_deref().filter(|other| *other != name.as_str()) {
        return Err(Error::refused(format!(
            "landfall.json says that it is of {other:?}, and it lies in the folder of {name}"
        ))
        .in_file(&inventory.root)
        .hint("move it to the folder of its machine, or correct \"machine\""));
    }
    place::check(&watcher.folder, &inventory.root, watcher.options.keep)?;
    let known = hands.vault.machines().get(name).cloned();
    if let Some(machine) = &known
        && let Some(point) = was_taken(machine, inventory)?
    {
        let place = place::put_away(&watcher.folder, name, inventory, point, watcher.options.keep)?;
        let notes = Vec::new();
        return Ok(Taken { point, verdict: *verdict, place, was_there: true, disks: Vec::new(), notes });
    }
    let contents = contents::open(hands.context, inventory, manifest, *verdict == Verdict::Matched)?;
    // Before a machine is made for it.
    let first = plan(known.as_deref(), &contents, manifest)?;
    let machine = match known {
        Some(machine) => machine,
        None => hands.vault.machine_or_new(name)?,
    };
    let disks: Vec<Name> =
        first.targets.iter().map(|target| target.disk.clone()).chain(first.removed.clone()).collect();
    let shown = inventory.root.strip_prefix(&watcher.folder).unwrap_or(&inventory.root).display().to_string();
    let job = Job {
        watched: watcher.folder.clone(),
        drop: inventory.root.clone(),
        fingerprint: inventory.fingerprint(),
        now: hands.now,
    };
    let work = Work::Drop(job.clone());
    let batch = hands.batches.begin(&machine, &disks, &format!("the drop {shown}"), work, hands.now)?;
    let mut taken = batch::whole(batch, &effort(hands), |batch| {
        // Another batch can have come between.
        let plan = plan(Some(&machine), &contents, manifest)?;
        apply(batch, hands, drop, &contents, &plan, &job)
    })?;
    taken.place = place::put_away(&watcher.folder, name, inventory, taken.point, watcher.options.keep)?;
    Ok(taken)
}

/// Finishes a drop that was cut off, where its files are the same; else takes it back.
pub fn resume(watcher: &Watcher, hands: &Hands<'_>, intent: &Intent, job: &Job) -> Result<Taken> {
    let machine = hands.vault.machine(&intent.machine)?;
    let batch = hands.batches.resume(&machine, intent.clone())?;
    let mut again = None;
    let taken = batch::whole(batch, &effort(hands), |batch| {
        let drop = sealed_as_before(job)?;
        let is_compared = drop.verdict == Verdict::Matched;
        let contents = contents::open(hands.context, &drop.inventory, &drop.manifest, is_compared)?;
        let before = intent.since.map(|point| machine.at(point)).transpose()?;
        let plan = plan_again(before.as_ref(), &contents, &drop.manifest)?;
        let taken = apply(batch, hands, &drop, &contents, &plan, job)?;
        again = Some(drop);
        Ok(taken)
    });
    let mut taken = taken?;
    if let Some(drop) = again {
        taken.place = place::put_away(
            &watcher.folder,
            &intent.machine,
            &drop.inventory,
            taken.point,
            watcher.options.keep,
        )?;
    }
    Ok(taken)
}

/// The drop of a job, where nothing of it was changed.
fn sealed_as_before(job: &Job) -> Result<Sealed> {
    let gone = |says: &str| {
        Error::refused(says.to_owned())
            .in_file(&job.drop)
            .hint("what it had written was taken back; drop it again, and leave it alone until it was taken")
    };
    let inventory = Inventory::of(&job.drop).map_err(|_| gone("is not there any more"))?;
    if inventory.fingerprint() != job.fingerprint {
        return Err(gone("was changed while it was taken"));
    }
    let (manifest, verdict) = match manifest::read(&inventory)? {
        // The files are those whose digests were compared then.
        Seal::Manifest(manifest) => (*manifest, Verdict::Matched),
        Seal::Name => (Manifest::default(), Verdict::CouldNotRun),
        Seal::Open(why) => return Err(gone(&why)),
    };
    Ok(Sealed { inventory, manifest, verdict })
}

/// The point of a drop that is in the vault already: the service was killed before it could be put away.
fn was_taken(machine: &Machine, inventory: &Inventory) -> Result<Option<u64>> {
    let fingerprint = inventory.fingerprint();
    for info in machine.journal().state().disks.values() {
        let position: Option<Position<Top>> = position::of(machine, WAY, &info.name)?;
        let of_it = position.filter(|position| position.source.drop == fingerprint);
        if let Some(point) = of_it.and_then(|position| position.point) {
            return Ok(Some(point));
        }
    }
    Ok(None)
}

fn effort(hands: &Hands<'_>) -> Effort {
    let mut effort = Effort { cancel: hands.context.cancel.clone(), ..Effort::default() };
    if let Some(jobs) = hands.context.jobs {
        effort.jobs = jobs;
    }
    effort
}

fn apply(
    batch: &mut Batch,
    hands: &Hands<'_>,
    drop: &Sealed,
    contents: &Contents,
    plan: &Plan,
    job: &Job,
) -> Result<Taken> {
    let Sealed { inventory, manifest, verdict } = drop;
    let machine = Arc::clone(batch.machine());
    let (mut disks, mut positions, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for (found, target) in contents.disks.iter().zip(&plan.targets) {
        let before = machine.disk_number(target.disk.as_str()).map(|_| machine.live(target.disk.as_str()));
        let before = before.transpose()?.map(|live| landfall_image::Disk::size(&live));
        let is_delta = found.parent.is_some();
        let counts = match batch.was_cut(0) {
            Some(_) => Counts::default(),
            None => {
                // What lies behind the end of one layer is zeros to those above it.
                for size in &found.sizes {
                    batch.disk(&target.disk, *size, target.sector)?;
                }
                let live = batch.disk(&target.disk, found.size(), target.sector)?;
                let all = std::iter::once(0..found.size().0);
                content::copy(&*found.content, &live, all, is_delta, &effort(hands))
                    .map_err(|error| error.in_file(&inventory.place(&found.file)))?
            }
        };
        let source = Top {
            file: found.file.clone(),
            format: found.format,
            identity: found.identity.clone(),
            sha256: contents::digest(inventory, manifest, found)?,
            drop: job.fingerprint,
        };
        let is_unverified =
            *verdict != Verdict::Matched || target.by_name || is_delta && target.was_unverified;
        positions.push((
            WAY,
            &target.disk,
            Position {
                batch: batch.intent().id,
                part: 0,
                verdict: *verdict,
                is_unverified,
                point: None,
                has_ended: false,
                source,
            },
        ));
        if target.by_name {
            notes.push(format!(
                "{} is over an image that is known by its name alone: its format records nothing else. Say its digest in landfall.json (\"parents\") to have it compared.",
                found.file
            ));
        }
        disks.push(TakenDisk {
            disk: target.disk.clone(),
            file: found.file.clone(),
            is_delta,
            size: (before, found.size()),
            counts,
        });
    }
    if !contents.unused.is_empty() {
        let some: Vec<&str> = contents.unused.iter().take(8).map(String::as_str).collect();
        notes.push(format!(
            "nothing was made of {}{}",
            some.join(", "),
            if contents.unused.len() > 8 { " and more" } else { "" }
        ));
    }
    // All that was read is what the digests are of.
    inventory.is_unchanged()?;
    for name in &plan.removed {
        if let Some(number) = machine.disk_number(name.as_str()) {
            machine.journal().remove_disk(number)?;
        }
    }
    let definition = definition(contents, plan)?;
    let mut attachments: Vec<(&str, &[u8])> = Vec::new();
    if let Some((json, variables)) = &definition {
        attachments.push((DEFINITION, json));
        attachments.push((VARIABLES, variables));
    }
    let time = manifest.taken_at.map_or(job.now, |moment| moment.0.min(job.now));
    let mark = Mark { consistency: manifest.consistency, group: None, tag: manifest.tag.clone() };
    let point = batch.point(time, &mark, &positions, &attachments)?;
    Ok(Taken { point, verdict: *verdict, place: PathBuf::new(), was_there: false, disks, notes })
}

/// The definition as the vault keeps it, and the UEFI variables; nothing for none.
fn definition(contents: &Contents, plan: &Plan) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
    let Some(definition) = &contents.definition else { return Ok(None) };
    let mut machine = definition.machine.clone();
    for (found, target) in contents.disks.iter().zip(&plan.targets) {
        if let Some(slot) = machine.disks.iter_mut().find(|slot| slot.slot == found.slot) {
            target.disk.as_str().clone_into(&mut slot.file);
            slot.backing = crate::machine::Backing::File;
            slot.format = None;
            slot.size = Some(found.size());
        }
    }
    let json = serde_json::to_vec(&machine)
        .map_err(|error| Error::new(Kind::Refused, format!("the definition cannot be kept: {error}")))?;
    Ok(Some((json, definition.variables.clone().unwrap_or_default())))
}
