//! A delta is written into a machine as a whole or not at all: the disks go from one moment of the source to the next, and no point is cut
//! between.
//!
//! ```text
//! begin: lease, a point to go back to, NAME.ID.batch on the medium
//!   -> the disks are written -> point: positions attached, checkpoint, on the medium   (once for each moment that the delta has)
//! finish: NAME.ID.batch is removed
//! ```
//!
//! From the first write to the point the journal itself says that the disks are being copied, so that no point is cut whatever happens.
//! Where the service is killed between, that file is found when it starts: the work is done again, from what is on the medium, or taken
//! back to the last point. Until then the machine takes nothing and has no points cut ([`lease`](super::lease)). Doing it again is
//! no different from doing it once: what is the same already is not written, and a point that was cut is not cut again.

use super::content::{self, Effort, is_written};
use super::files;
use super::lease::{BatchLease, Leases};
use super::position::{self, Position};
use crate::name::Name;
use crate::vault::Vault;
use crate::vault::journal::{DiskInfo, Mark};
use crate::vault::machine::{Live, Machine, Point};
use crate::vault::storage::Storage;
use landfall_image::{Bytes, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// A send of another landfall: it waits for its sender to go on.
    Send(super::send::Job),
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
    /// Those of them that the machine did not have before.
    pub new: Vec<Name>,
    /// The newest point when it was begun; `None` where there was none.
    pub since: Option<u64>,
    /// The point to go back to: that, or the last that was cut of it.
    pub before: Option<u64>,
    /// What is to be done.
    pub work: Work,
}

/// The machine that a batch is for: one that is there, or one that is made when all is looked through and found to fit.
#[derive(Clone, Debug)]
pub enum Target<'t> {
    /// It is there.
    Known(Arc<Machine>),
    /// It is not there yet.
    New(&'t Vault, Name),
}

impl<'t> Target<'t> {
    /// The machine of that name, there or not.
    pub fn of(vault: &'t Vault, name: &Name) -> Target<'t> {
        match vault.machines().get(name) {
            Some(machine) => Target::Known(Arc::clone(machine)),
            None => Target::New(vault, name.clone()),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Target::Known(machine) => machine.name(),
            Target::New(_, name) => name.as_str(),
        }
    }

    /// It, where it is there.
    pub fn known(&self) -> Option<&Arc<Machine>> {
        match self {
            Target::Known(machine) => Some(machine),
            Target::New(..) => None,
        }
    }

    /// It; made where it is not there yet.
    ///
    /// # Errors
    /// As [`Vault::machine_or_new`].
    pub fn made(&self) -> Result<Arc<Machine>> {
        match self {
            Target::Known(machine) => Ok(Arc::clone(machine)),
            Target::New(vault, name) => vault.machine_or_new(name),
        }
    }
}

impl From<&Arc<Machine>> for Target<'_> {
    fn from(machine: &Arc<Machine>) -> Self {
        Target::Known(Arc::clone(machine))
    }
}

/// The batches of a vault.
#[derive(Clone, Debug)]
pub struct Batches {
    storage: Arc<dyn Storage>,
    leases: Leases,
}

impl Batches {
    /// Those of the vault whose files `storage` has. Machines into which a batch was cut off are kept from here on, also where nobody can
    /// read how to end it.
    ///
    /// # Errors
    /// As the storage's.
    pub fn open(storage: &Arc<dyn Storage>, leases: &Leases) -> Result<Batches> {
        storage.make_dir(files::DIR)?;
        let batches = Batches { storage: Arc::clone(storage), leases: leases.clone() };
        for (machine, intent) in batches.all()? {
            match intent {
                Ok(intent) => leases.set_cut_off(&intent.machine, intent.disks, intent.says),
                Err(_) => leases.set_cut_off(&machine, Vec::new(), "a delta that cannot be ended".to_owned()),
            }
        }
        Ok(batches)
    }

    /// What was begun and has not ended, by its machine; or why it cannot be read.
    fn all(&self) -> Result<Vec<(Name, Result<Intent>)>> {
        let names = files::list(&*self.storage, ".batch")?;
        // Others are none of these.
        let of = |name: &String| name.rsplit_once('.').and_then(|(machine, _)| machine.parse::<Name>().ok());
        let read = |name: String| Some((of(&name)?, files::read(&*self.storage, &format!("{name}.batch"))));
        Ok(names.into_iter().filter_map(read).collect())
    }

    /// Machines into which something was cut off of which nobody can read how to end it, and why.
    ///
    /// # Errors
    /// As the storage's.
    pub fn unreadable(&self) -> Result<Vec<(Name, Error)>> {
        Ok(self.all()?.into_iter().filter_map(|(machine, read)| Some((machine, read.err()?))).collect())
    }

    /// Forgets what was cut off in a machine that is not there any longer.
    ///
    /// # Errors
    /// As the storage's.
    pub fn forget(&self, machine: &Name) -> Result<()> {
        let names = files::list(&*self.storage, ".batch")?;
        let is_of_it = |name: &&String| name.rsplit_once('.').is_some_and(|(own, _)| own == machine.as_str());
        names
            .iter()
            .filter(is_of_it)
            .try_for_each(|name| files::remove(&*self.storage, &format!("{name}.batch")))
    }

    /// Batches that were begun and have not ended, as far as they can be read.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn unfinished(&self) -> Result<Vec<Intent>> {
        Ok(self.all()?.into_iter().filter_map(|(_, read)| read.ok()).collect())
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
        machine.roles().check(name.as_str())?;
        let lease = self.leases.batch(&name, disks, says)?;
        let begun = safe_point(machine, disks, now).and_then(|before| {
            let pin = before.map(|point| machine.at(point)).transpose()?;
            let new =
                disks.iter().filter(|disk| machine.disk_number(disk.as_str()).is_none()).cloned().collect();
            let (disks, says) = (disks.to_vec(), says.to_owned());
            let intent =
                Intent { id: Uuid::new_v4(), machine: name, disks, new, says, since: before, before, work };
            Ok((intent, pin))
        });
        let begun = begun.map_err(|error| (error, true)).and_then(|(intent, pin)| {
            let name = file(&intent);
            files::write(&*self.storage, &name, &intent).map(|()| (intent, pin)).map_err(|error| {
                // It may have come to the medium all the same, and would be done later, over what others have written by then.
                (error, files::remove(&*self.storage, &name).is_ok())
            })
        });
        match begun {
            Ok((intent, pin)) => {
                let (storage, machine) = (Arc::clone(&self.storage), Arc::clone(machine));
                Ok(Batch { storage, machine, lease, intent, pin, cut: BTreeMap::new() })
            }
            // Nothing was written to the disks.
            Err((error, true)) => {
                lease.end();
                Err(error)
            }
            // Its machine is kept for it, as it is at the next start.
            Err((error, false)) => {
                drop(lease);
                Err(error)
            }
        }
    }

    /// True where the first part of a batch that was cut off has its point: of one that has no other, all is done.
    ///
    /// # Errors
    /// Where the points cannot be read.
    pub fn is_cut(&self, machine: &Arc<Machine>, intent: &Intent) -> Result<bool> {
        cut(machine, intent).map(|cut| cut.contains_key(&0))
    }

    /// Takes over a batch that was cut off, to do it again or to take it back.
    ///
    /// # Errors
    /// Refused where it is not cut off.
    pub fn resume(&self, machine: &Arc<Machine>, mut intent: Intent) -> Result<Batch> {
        let lease = self.leases.take_over(&intent.machine)?;
        let cut = cut(machine, &intent)?;
        if let Some(last) = cut.values().max().copied() {
            // It may not have been noted down any more.
            intent.before = Some(last);
            let point = machine.at(last)?;
            for (name, raw) in &point.state().attachments {
                let Some((way, disk)) = own_name(name) else { continue };
                let position: Position<serde_json::Value> = position::parse(raw, way, disk)?;
                if position.batch == intent.id {
                    machine.journal().attach(name, &encoded(&Position { point: Some(last), ..position })?)?;
                }
            }
        }
        let pin = intent.before.and_then(|point| machine.at(point).ok());
        Ok(Batch {
            storage: Arc::clone(&self.storage),
            machine: Arc::clone(machine),
            lease,
            intent,
            pin,
            cut,
        })
    }
}

/// The points that were cut of a batch, by its parts: they tell it of themselves.
fn cut(machine: &Arc<Machine>, intent: &Intent) -> Result<BTreeMap<usize, u64>> {
    let mut cut = BTreeMap::new();
    let points = machine.points()?;
    for sequence in
        points.iter().rev().map(|point| point.sequence).take_while(|point| Some(*point) > intent.since)
    {
        let point = machine.at(sequence)?;
        for (name, raw) in &point.state().attachments {
            let Some((way, disk)) = own_name(name) else { continue };
            let position: Position<serde_json::Value> = position::parse(raw, way, disk)?;
            if position.batch == intent.id {
                cut.insert(position.part, sequence);
            }
        }
    }
    Ok(cut)
}

/// Way and disk of the attachment that is a position.
fn own_name(name: &str) -> Option<(&str, &str)> {
    name.split_once(':').filter(|(way, _)| position::WAYS.contains(way))
}

fn encoded(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::refused(format!("cannot be written down: {error}")))
}

/// Whose it is can be told without reading it.
fn file(intent: &Intent) -> String {
    format!("{}.{}.batch", intent.machine, intent.id)
}

/// The point that has what the machine's disks hold now: the newest, or one that is cut. Where a disk of the batch is between two moments
/// already (a copy over NBD that was given up), or may miss writes since a loss of power, the newest.
fn safe_point(machine: &Arc<Machine>, disks: &[Name], now: u64) -> Result<Option<u64>> {
    let state = machine.journal().state();
    let copied = state.copying();
    if let Some((disk, why)) = copied.iter().find(|(disk, _)| !disks.iter().any(|own| own.as_str() == **disk))
    {
        return Err(Error::refused(format!(
            "{}/{disk} is being copied ({why}): there would be no point of all disks",
            machine.name()
        ))
        .hint("wait until that copy has ended"));
    }
    let newest = machine.points()?.last().map(|point| point.sequence);
    if state.disks.is_empty() || !copied.is_empty() || machine.journal().is_behind() {
        return Ok(newest.filter(|_| !state.disks.is_empty()));
    }
    if let Some(newest) = newest {
        let is_same =
            machine.at(newest)?.state().disks == state.disks && !is_written(machine, None, newest, u64::MAX)?;
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
    pin: Option<Point>,
    /// Points that were cut of it before, by its parts.
    cut: BTreeMap<usize, u64>,
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
        let is_own = |(number, info): (&u32, &DiskInfo)| {
            info.name != name.as_str() || self.machine.disk_number(name.as_str()) == Some(*number)
        };
        if !self.pin.iter().flat_map(|point| &point.state().disks).all(is_own) {
            return Err(Error::corrupt(format!(
                "the disk {name} is not the one any more that it was when {} was begun",
                self.intent.says
            ))
            .hint("it is brought back from the last point; then try again"));
        }
        self.machine.journal().set_copying(name.as_str(), Some(&self.intent.says))?;
        let info = DiskInfo { name: name.as_str().to_owned(), size: size.0, sector };
        self.machine.journal().set_disk(&info)?;
        self.machine.live(name.as_str())
    }

    /// Writes to these disks, too, and is called so from now on; `work` is what is to be done.
    ///
    /// # Errors
    /// As the storage's.
    pub fn widen(&mut self, disks: &[Name], says: &str, work: Work) -> Result<()> {
        let mut intent = self.intent.clone();
        for disk in disks.iter().filter(|disk| !self.intent.disks.contains(disk)) {
            intent.disks.push(disk.clone());
            if self.machine.disk_number(disk.as_str()).is_none() {
                intent.new.push(disk.clone());
            }
        }
        (intent.says, intent.work) = (says.to_owned(), work);
        if intent != self.intent {
            files::write(&*self.storage, &file(&intent), &intent)?;
            self.lease.widen(&intent.disks, says);
            self.intent = intent;
        }
        Ok(())
    }

    /// Takes one of its disks out of the machine; earlier points keep it.
    ///
    /// # Errors
    /// As the journal's.
    pub fn remove(&self, name: &Name) -> Result<()> {
        if let Some(number) = self.machine.disk_number(name.as_str()) {
            self.machine.journal().remove_disk(number)?;
        }
        self.machine.journal().set_copying(name.as_str(), None)
    }

    /// The point of one of its parts, where it was cut before the service was killed.
    pub fn was_cut(&self, part: usize) -> Option<u64> {
        self.cut.get(&part).copied()
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
        let mut wanted: Vec<(String, Vec<u8>)> =
            attachments.iter().map(|(name, raw)| ((*name).to_owned(), raw.to_vec())).collect();
        for (way, disk, position) in positions {
            let position = Position { point: None, ..position.clone() };
            wanted.push((position::attachment(way, disk.as_str()), encoded(&position)?));
        }
        let was_cut = positions.first().and_then(|(_, _, position)| self.was_cut(position.part));
        let point = match was_cut {
            Some(point) => point,
            None => {
                let journal = self.machine.journal();
                self.intent.disks.iter().try_for_each(|disk| journal.set_copying(disk.as_str(), None))?;
                wanted.iter().try_for_each(|(name, raw)| journal.attach(name, raw))?;
                // After a loss of power: what is on the batch's disks was read anew, and no other can miss anything.
                if journal.is_behind() && position::all_hold(&self.machine, &self.intent.disks)? {
                    journal.caught_up()?;
                }
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
        files::write(&*self.storage, &file(&self.intent), &self.intent)?;
        Ok(point)
    }

    /// Ends it: all of it is on the medium.
    ///
    /// # Errors
    /// As the storage's.
    pub fn finish(self) -> Result<()> {
        files::remove(&*self.storage, &file(&self.intent))?;
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
                if let Some(number) = number.filter(|_| self.intent.new.contains(name)) {
                    journal.remove_disk(number)?;
                    journal.set_copying(name.as_str(), None)?;
                }
                // One that was in no point yet stays between two moments.
                continue;
            };
            journal.set_disk(info)?;
            let (from, live) = (point.disk(*old)?, self.machine.live(name.as_str())?);
            // One that was removed is there again, with another number and nothing in it.
            match number == Some(*old) {
                true => {
                    let since = self.intent.before.unwrap_or_default();
                    let changed = content::changed(&self.machine, *old, since, u64::MAX, Bytes(info.size))?;
                    content::copy(&from, &live, changed.ranges(), false, effort)?;
                }
                false => {
                    content::copy(&from, &live, std::iter::once(0..info.size), false, effort)?;
                }
            }
            journal.set_copying(name.as_str(), None)?;
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
                let position: Option<Position<serde_json::Value>> =
                    position::of(&self.machine, way, disk.as_str())?;
                let Some(position) = position else { continue };
                if position.was_lost(&self.machine, disk.as_str(), before)?.is_none() {
                    held.push((position::attachment(way, disk.as_str()), position));
                }
            }
        }
        let journal = self.machine.journal();
        if held.len() == self.intent.disks.len()
            && journal.is_behind()
            && position::all_hold(&self.machine, &self.intent.disks)?
        {
            journal.caught_up()?;
        }
        // While another disk is being copied, there is no point to be had; whole disks have to be sent then.
        if held.is_empty() || journal.is_behind() || !journal.state().copying().is_empty() {
            return Ok(());
        }
        let newest = self.machine.points()?.last().map_or(0, |point| point.time);
        let point = self.machine.checkpoint(newest, &Mark::default())?;
        for (name, position) in held {
            let position = Position { point: Some(point), ..position };
            self.machine.journal().attach(&name, &encoded(&position)?)?;
        }
        self.machine.journal().sync().map(drop)
    }
}

/// Runs `work` on a batch, and takes it back where that fails for another reason than that somebody asked to stop: then it is finished
/// when the service starts again.
///
/// # Errors
/// Those of `work`, with what became of the batch in the hint.
pub(super) fn whole<T>(
    mut batch: Batch,
    effort: &Effort,
    work: impl FnOnce(&mut Batch) -> Result<T>,
) -> Result<T> {
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
