//! What a service has of the ways in besides NBD: one of each for its vault.
//!
//! ```text
//! open -> finish (what was cut off) -> let others in -> take streams, scan folders, pull …
//! ```

use super::batch::{Batches, Intent, Work};
use super::content::Effort;
use super::folder::{Hands, Watcher};
use super::lease::{Leases, StreamLease};
use super::position;
use super::rbd;
use super::send::Desk;
use super::spool::Spool;
use crate::name::Name;
use crate::vault::machine::Machine;
use crate::vault::storage::{Folder, Storage};
use landfall_image::{Error, Kind, Result};
use std::path::Path;
use std::sync::Arc;

/// The ways in, but for NBD.
#[derive(Debug)]
pub struct Incoming {
    /// Who writes where: asked by whoever cuts points, too. NBD connections ask by [`stream`](Incoming::stream).
    pub leases: Leases,
    /// Deltas that are being written.
    pub batches: Batches,
    /// Uploads.
    pub spool: Spool,
    /// What other landfalls send.
    pub desk: Desk,
}

/// What became of a delta that was cut off.
#[derive(Debug)]
pub struct Finished {
    /// What it was.
    pub intent: Intent,
    /// Nothing where it is in the vault now. Otherwise why not: [taken back](Finished::is_taken_back), or the machine is kept until the next
    /// start.
    pub error: Option<Error>,
    /// The machine is as it was before.
    pub is_taken_back: bool,
}

impl Incoming {
    /// Those of the vault in that folder, which is open in this process; and what is wrong with uploads that were left over.
    ///
    /// # Errors
    /// As [`Batches::open`] and [`Spool::open`].
    pub fn open(root: &Path) -> Result<(Incoming, Vec<Error>)> {
        let storage: Arc<dyn Storage> = Arc::new(Folder::new(root));
        let leases = Leases::default();
        let batches = Batches::open(&storage, &leases)?;
        let (spool, troubles) = Spool::open(&storage)?;
        Ok((Incoming { leases, batches, spool, desk: Desk::default() }, troubles))
    }

    /// The right to write to a disk over NBD, for as long as the answer lives. What deltas have brought it ends with that: the next has to be
    /// a whole disk.
    ///
    /// # Errors
    /// As [`Leases::stream`]; as the journal's.
    pub fn stream(&self, machine: &Machine, disk: &Name) -> Result<StreamLease> {
        let lease = self.leases.stream(&machine.name().parse()?, disk)?;
        position::end(machine, disk.as_str())?;
        Ok(lease)
    }

    /// Finishes what was cut off, or takes it back where that cannot be done. Called before anything else is let in; machines for which it
    /// fails stay closed.
    ///
    /// # Errors
    /// Where what was cut off cannot be read.
    pub fn finish(&self, hands: &Hands<'_>, watchers: &[Watcher]) -> Result<Vec<Finished>> {
        let mut all = Vec::new();
        for intent in self.batches.unfinished()? {
            // What has arrived stays, and waits for its sender.
            if let Work::Send(_) = intent.work
                && !self.batches.is_cut(&hands.vault.machine(&intent.machine)?, &intent)?
            {
                continue;
            }
            let error = self.finish_one(hands, watchers, &intent).err();
            let is_taken_back = error.is_some() && self.leases.running(&intent.machine).is_none();
            all.push(Finished { intent, error, is_taken_back });
        }
        for (name, machine) in hands.vault.machines() {
            let journal = machine.journal();
            let is_whole = !journal.state().disks.is_empty() && self.leases.running(&name).is_none();
            // The power was lost, and none of it with it: all its disks are fed by deltas.
            if journal.is_behind() && is_whole && position::all_hold(&machine, &[])? {
                journal.caught_up()?;
            }
        }
        Ok(all)
    }

    fn finish_one(&self, hands: &Hands<'_>, watchers: &[Watcher], intent: &Intent) -> Result<()> {
        let machine = hands.vault.machine(&intent.machine)?;
        let effort = Effort { cancel: hands.context.cancel.clone(), ..Effort::default() };
        let back = |why: &str| {
            self.batches.resume(&machine, intent.clone())?.take_back(&effort)?;
            Err(Error::new(Kind::Refused, format!("{} was cut off and taken back: {why}", intent.says)))
        };
        match &intent.work {
            Work::Rbd(job) => {
                rbd::resume(&self.batches, &self.spool, &machine, intent, job, &effort).map(drop)
            }
            Work::Drop(job) => match watchers.iter().find(|watcher| watcher.folder() == job.watched) {
                Some(watcher) => watcher.resume(hands, intent, job).map(drop),
                None => back("its folder is not watched any more"),
            },
            Work::Pull => back("it is pulled again"),
            // Its point is there: nothing is left to do.
            Work::Send(_) => self.batches.resume(&machine, intent.clone())?.finish(),
        }
    }
}
