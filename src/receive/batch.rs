//! A delta is written into a machine as a whole or not at all: the disks go from one moment of the source to the next, and no point is cut
//! between.
//!
//! ```text
//! begin: lease, a point to go back to, ID.batch on the medium
//!   -> the disks are written -> point: positions attached, checkpoint, on the medium   (once for each moment that the delta has)
//! finish: ID.batch is removed
//! ```
//!
//! Where the service is killed between, `ID.batch` is found when it starts: the work is done again, from what is on the medium, or taken
//! back to the last point. Until then the machine takes nothing and has no points cut ([`lease`](super::lease)). Doing it again is
//! no different from doing it once: what is the same already is not written, and a point that was cut is not cut again.

use super::content::{self, Effort, is_written};
use super::files;
use super::lease::{BatchLease, Leases};
use super::position::{self, Position};
use crate::name::Name;
use crate::vault::journal::{DiskInfo, Mark};
use crate::vault::machine::{Live, Machine, Point};
use crate::vault::storage::Storage;
use landfall_image::{Bytes, Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// What is written, in the words of the way in that does it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "way", rename_all = "kebab-case")]
pub enum Work {
    /// RBD streams in the spool.
    Rbd(super::rbd::Job),
    /// A drop in a watched folder.
    Drop(super::folder::Job),
    /// A pull: its source may have gone on meanwhile, so that it is taken back.
    Pull,
}

/// What is on the medium while a batch is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Its number.
    pub id: Uuid,
    /// Where it is written to.
    pub machine: Name,
    /// The disks that it writes to.
    pub disks: Vec<Name>,
    /// What it is, for people.
    pub says: String,
    /// The point to go back to; `None` where the machine had no disk.
    pub before: Option<u64>,
    /// What is to be done.
    pub work: Work,
}

/// The batches of a vault.
#[derive(Clone, Debug)]
pub struct Batches {
    storage: Arc<dyn Storage>,
    leases: Leases,
}

impl Batches {
    /// Those of the vault whose files `storage` has. Machines into which a batch was cut off are kept from here on.
    ///
    /// # Errors
    /// As the storage's; corrupt where an intent cannot be read.
    pub fn open(storage: &Arc<dyn Storage>, leases: &Leases) -> Result<Batches> {
        storage.make_dir(files::DIR)?;
        let batches = Batches { storage: Arc::clone(storage), leases: leases.clone() };
        for intent in batches.unfinished()? {
            leases.set_cut_off(&intent.machine, intent.disks, intent.says);
        }
        Ok(batches)
    }

    /// Batches that were begun and have not ended.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn unfinished(&self) -> Result<Vec<Intent>> {
        let names = files::list(&*self.storage, ".batch")?;
        let read = |name: &String| {
            files::read(&*self.storage, &format!("{name}.batch")).map_err(|error: Error| {
                error.hint("it says which machine is half-way to a new moment: bring it back from a copy of the vault; without it, send that machine whole again")
            })
        };
        names.iter().map(read).collect()
    }

    /// Who writes where.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Begins one. `now` is in milliseconds since 1970.
    ///
    /// # Errors
    /// Refused as [`Leases::batch`]; as the storage's.
    pub fn begin(
        &self,
        machine: &Arc<Machine>,
        disks: &[Name],
        says: &str,
        work: Work,
        now: u64,
    ) -> Result<Batch> {
        let name: Name = machine.name().parse()?;
        let lease = self.leases.batch(&name, disks, says)?;
        let begun = safe_point(machine, now).and_then(|before| {
            let pin = before.map(|point| machine.at(point)).transpose()?;
            let intent =
                Intent { id: Uuid::new_v4(), machine: name, disks: disks.to_vec(), says: says.into(), before, work };
            files::write(&*self.storage, &file(intent.id), &intent)?;
            Ok((intent, pin))
        });
        match begun {
            Ok((intent, pin)) => {
                Ok(Batch { storage: Arc::clone(&self.storage), machine: Arc::clone(machine), lease, intent, _pin: pin })
            }
            Err(error) => {
                // Nothing was written to the disks. An intent that may have come to the medium all the same would be done later, which is
                // no harm: it was to be done.
                lease.end();
                Err(error)
            }
        }
    }

    /// Takes over a batch that was cut off, to do it again or to take it back.
    ///
    /// # Errors
    /// Refused where it is not cut off.
    pub fn resume(&self, machine: &Arc<Machine>, intent: Intent) -> Result<Batch> {
        let lease = self.leases.take_over(&intent.machine)?;
        let pin = intent.before.and_then(|point| machine.at(point).ok());
        Ok(Batch { storage: Arc::clone(&self.storage), machine: Arc::clone(machine), lease, intent, _pin: pin })
    }
}

fn file(id: Uuid) -> String {
    format!("{id}.batch")
}

/// The point that has what the machine's disks hold now: the newest, or one that is cut. `None` where the machine has no disk.
fn safe_point(machine: &Arc<Machine>, now: u64) -> Result<Option<u64>> {
    let disks = machine.journal().state().disks;
    if disks.is_empty() {
        return Ok(None);
    }
    if let Some(newest) = machine.points()?.last().map(|point| point.sequence) {
        let is_same = machine.at(newest)?.state().disks == disks && !is_written(machine, None, newest, u64::MAX)?;
        if is_same {
            return Ok(Some(newest));
        }
    }
    machine.checkpoint(now, &Mark::default()).map(Some)
}

/// A batch that is being written. Dropped before it is [finished](Self::finish) or [taken back](Self::take_back), it is cut off: its machine is
/// kept for it.
#[derive(Debug)]
pub struct Batch {
    storage: Arc<dyn Storage>,
    machine: Arc<Machine>,
    lease: BatchLease,
    intent: Intent,
    /// Keeps the point to go back to.
    _pin: Option<Point>,
}

impl Batch {
    /// What is on the medium of it.
    pub fn intent(&self) -> &Intent {
        &self.intent
    }

    /// Its machine.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// One of its disks with that size: made, or made larger or smaller where it has another.
    ///
    /// # Errors
    /// Refused where it is none of the batch's disks, or of no whole sectors; as the journal's.
    pub fn disk(&self, name: &Name, size: Bytes, sector: u32) -> Result<Live> {
        if !self.intent.disks.contains(name) {
            return Err(Error::refused(format!("{} does not write to {name}", self.intent.says)));
        }
        set_disk(&self.machine, &DiskInfo { name: name.as_str().to_owned(), size: size.0, sector })?;
        self.machine.live(name.as_str())
    }

    /// Cuts a point of what the disks hold now, with these positions (way, disk) and attachments. `time` is in milliseconds since 1970; it
    /// is moved behind the newest point's. Returns the point; the one that was cut before, where this is done again.
    ///
    /// # Errors
    /// As the journal's.
    pub fn point<S: Serialize + Clone>(
        &mut self,
        time: u64,
        mark: &Mark,
        positions: &[(&str, &Name, Position<S>)],
        attachments: &[(&str, &[u8])],
    ) -> Result<u64> {
        let encoded = |position: &Position<S>| {
            serde_json::to_vec(position).map_err(|error| Error::refused(format!("cannot be written down: {error}")))
        };
        let mut wanted: Vec<(String, Vec<u8>)> =
            attachments.iter().map(|(name, raw)| ((*name).to_owned(), raw.to_vec())).collect();
        for (way, disk, position) in positions {
            let position = Position { point: None, ..position.clone() };
            wanted.push((position::attachment(way, disk.as_str()), encoded(&position)?));
        }
        let point = match self.cut_before(&wanted)? {
            Some(point) => point,
            None => {
                let journal = self.machine.journal();
                wanted.iter().try_for_each(|(name, raw)| journal.attach(name, raw))?;
                let newest = self.machine.points()?.last().map_or(0, |point| point.time);
                self.machine.checkpoint(time.max(newest), mark)?
            }
        };
        for (way, disk, position) in positions {
            let position = Position { point: Some(point), ..position.clone() };
            self.machine.journal().attach(&position::attachment(way, disk.as_str()), &encoded(&position)?)?;
        }
        self.machine.journal().sync()?;
        self.intent.before = Some(point);
        files::write(&*self.storage, &file(self.intent.id), &self.intent)?;
        Ok(point)
    }

    /// The newest point, where it has all of these already.
    fn cut_before(&self, wanted: &[(String, Vec<u8>)]) -> Result<Option<u64>> {
        if wanted.is_empty() {
            return Ok(None);
        }
        let Some(newest) = self.machine.points()?.last().map(|point| point.sequence) else { return Ok(None) };
        let point = self.machine.at(newest)?;
        let has = |(name, raw): &(String, Vec<u8>)| point.state().attachments.get(name).map_or(&[][..], Vec::as_slice) == raw;
        Ok(wanted.iter().all(has).then_some(newest))
    }

    /// Ends it: all of it is on the medium.
    ///
    /// # Errors
    /// As the storage's.
    pub fn finish(self) -> Result<()> {
        files::remove(&*self.storage, &file(self.intent.id))?;
        self.lease.end();
        Ok(())
    }

    /// Brings the disks back to what they held before, or to the last point that was cut of it.
    ///
    /// # Errors
    /// As the storage's; then it stays cut off.
    pub fn take_back(self, effort: &Effort) -> Result<()> {
        let journal = self.machine.journal();
        let before = self.intent.before.map(|point| self.machine.at(point)).transpose()?;
        for name in &self.intent.disks {
            let disks = before.as_ref().map(|point| &point.state().disks);
            let was = disks.and_then(|disks| disks.iter().find(|(_, info)| info.name == name.as_str()));
            let number = self.machine.disk_number(name.as_str());
            let (Some((old, info)), Some(point)) = (was, &before) else {
                number.map_or(Ok(()), |number| journal.remove_disk(number))?;
                continue;
            };
            set_disk(&self.machine, info)?;
            let (from, live) = (point.disk(*old)?, self.machine.live(name.as_str())?);
            // One that was removed is there again, with another number and nothing in it.
            if number != Some(*old) {
                content::copy(&from, &live, std::iter::once(0..info.size), false, effort)?;
                continue;
            }
            let since = self.intent.before.unwrap_or_default();
            let changed = content::changed(&self.machine, *old, since, u64::MAX, Bytes(info.size))?;
            content::copy(&from, &live, changed.ranges(), false, effort)?;
        }
        journal.sync()?;
        self.anchor()?;
        self.finish()
    }

    /// What the disks held by earlier batches, they hold again, though they were written to: said by another point, which is the same as
    /// the one before.
    fn anchor(&self) -> Result<()> {
        let Some(before) = self.intent.before else { return Ok(()) };
        if !is_written(&self.machine, None, before, u64::MAX)? {
            return Ok(());
        }
        let mut held = Vec::new();
        for disk in &self.intent.disks {
            for way in position::WAYS {
                let position: Option<Position<serde_json::Value>> = position::of(&self.machine, way, disk.as_str())?;
                let Some(position) = position else { continue };
                if position.was_lost(&self.machine, disk.as_str(), before)?.is_none() {
                    held.push((position::attachment(way, disk.as_str()), position));
                }
            }
        }
        if held.is_empty() {
            return Ok(());
        }
        let newest = self.machine.points()?.last().map_or(0, |point| point.time);
        let point = self.machine.checkpoint(newest, &Mark::default())?;
        for (name, position) in held {
            let position = Position { point: Some(point), ..position };
            let raw = serde_json::to_vec(&position)
                .map_err(|error| Error::refused(format!("cannot be written down: {error}")))?;
            self.machine.journal().attach(&name, &raw)?;
        }
        self.machine.journal().sync().map(drop)
    }
}

/// Gives a disk of that name its size; makes it where there is none.
pub(super) fn set_disk(machine: &Machine, info: &DiskInfo) -> Result<()> {
    machine.set_disk(info).map(drop)
}

/// Runs `work` on a batch, and takes it back where that fails for another reason than that somebody asked to stop: then it is finished
/// when the service starts again.
///
/// # Errors
/// Those of `work`, with what became of the batch in the hint.
pub(super) fn whole<T>(mut batch: Batch, effort: &Effort, work: impl FnOnce(&mut Batch) -> Result<T>) -> Result<T> {
    match work(&mut batch) {
        Ok(done) => {
            batch.finish()?;
            Ok(done)
        }
        Err(error) if error.kind() == landfall_image::Kind::Interrupted => Err(error),
        Err(error) => match batch.take_back(effort) {
            Ok(()) => Err(error),
            Err(second) => {
                let hint = error.hint_text().map(|hint| format!("{hint}; ")).unwrap_or_default();
                Err(error.hint(format!(
                    "{hint}the machine is half-way and takes nothing until the service has started again: going back failed, too ({second})"
                )))
            }
        },
    }
}
