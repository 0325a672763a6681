//! What a service has of the ways in besides NBD: one of each for its vault.
//!
//! ```text
//! open -> let others in, but for machines into which something was cut off -> finish that -> take streams, scan folders, pull …
//! ```

use super::batch::{Batches, Intent, Work};
use super::content::Effort;
use super::folder::{Hands, Watcher};
use super::lease::Leases;
use super::position;
use super::rbd;
use super::send::Desk;
use super::spool::Spool;
use crate::name::Name;
use crate::vault::Vault;
use crate::vault::storage::{Folder, Storage};
use landfall_image::{Error, Kind, Result};
use std::path::Path;
use std::sync::Arc;

/// The ways in, but for NBD.
#[derive(Debug)]
pub struct Incoming {
    /// Who writes where: asked by whoever cuts points, and by NBD connections, too.
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

    /// Finishes all that was cut off, or takes it back where that cannot be done.
    ///
    /// # Errors
    /// Where what was cut off cannot be read.
    pub fn finish(&self, hands: &Hands<'_>, watchers: &[Watcher]) -> Result<Vec<Finished>> {
        let mut all = Vec::new();
        for intent in self.batches.unfinished()? {
            if self.waits(hands.vault, &intent)? {
                continue;
            }
            all.push(self.finish_one(hands, watchers, intent));
        }
        self.catch_up(hands.vault)?;
        Ok(all)
    }

    /// True for a send that is not complete: what has arrived stays, and waits for its sender.
    ///
    /// # Errors
    /// Where the points cannot be read.
    pub fn waits(&self, vault: &Vault, intent: &Intent) -> Result<bool> {
        match (&intent.work, vault.machine(&intent.machine)) {
            (Work::Send(_), Ok(machine)) => Ok(!self.batches.is_cut(&machine, intent)?),
            _ => Ok(false),
        }
    }

    /// True where another landfall's send was cut off in that machine.
    pub fn is_sent(&self, machine: &Name) -> bool {
        let unfinished = self.batches.unfinished().unwrap_or_default();
        unfinished.iter().any(|intent| intent.machine == *machine && matches!(intent.work, Work::Send(_)))
    }

    /// Finishes one that was cut off, or takes it back. Its machine is closed before; where neither can be done, it stays so.
    pub fn finish_one(&self, hands: &Hands<'_>, watchers: &[Watcher], intent: Intent) -> Finished {
        let error = self.try_to_finish(hands, watchers, &intent).err();
        let is_taken_back = error.is_some() && self.leases.running(&intent.machine).is_none();
        Finished { intent, error, is_taken_back }
    }

    /// Machines that miss nothing though the power was lost: all their disks are fed by deltas, which are acknowledged when they are on the
    /// medium. Called before others are let in.
    ///
    /// # Errors
    /// Where the journal cannot be read or written.
    pub fn catch_up(&self, vault: &Vault) -> Result<()> {
        for (name, machine) in vault.machines() {
            let journal = machine.journal();
            let is_whole = !journal.state().disks.is_empty() && self.leases.running(&name).is_none();
            if journal.is_behind() && is_whole && position::all_hold(&machine, &[])? {
                journal.caught_up()?;
            }
        }
        Ok(())
    }

    fn try_to_finish(&self, hands: &Hands<'_>, watchers: &[Watcher], intent: &Intent) -> Result<()> {
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
