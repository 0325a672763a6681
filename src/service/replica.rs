//! Machines that another landfall sends: what their disks hold, what arrives, and the point that comes of it.

use super::{Service, now};
use crate::name::Name;
use crate::receive::ExportName;
use crate::receive::content::Effort;
use crate::receive::position;
use crate::receive::send::{Begin, Begun, Commit, Committed, Held, Question, Taken};
use landfall_image::Result;
use std::sync::PoisonError;
use uuid::Uuid;

impl Service {
    /// What a machine holds of another landfall; nothing where there is no such machine.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn replica(&self, name: &Name) -> Result<Held> {
        if !self.watched().contains_key(name) && !self.unreadable.contains_key(name) {
            return Ok(Held::none(name));
        }
        self.incoming.desk.holds(&self.incoming.batches, self.machine(name)?.machine())
    }

    /// Begins a send of a machine, or goes on with one; a machine that is not there is made.
    ///
    /// # Errors
    /// As [`Desk::begin`](crate::receive::send::Desk::begin).
    pub fn begin_replica(&self, name: &Name, begin: &Begin, by: &str) -> Result<Begun> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.unreadable.contains_key(name) {
            self.machine(name)?;
        }
        let machine = self.vault.machine_or_new(name)?;
        let begun = self.incoming.desk.begin(&self.incoming.batches, &machine, begin, by, now())?;
        self.know(name, &machine)?;
        tracing::info!(machine = %name, target = %begin.target, by, resumed = begun.resumed.is_some(), "a send begins");
        Ok(begun)
    }

    /// As [`Desk::digests`](crate::receive::send::Desk::digests).
    ///
    /// # Errors
    /// See there.
    pub fn replica_digests(&self, name: &Name, disk: &Name, question: &Question) -> Result<Vec<u8>> {
        self.incoming.desk.digests(name, disk, question, &Effort { jobs: 2, ..Effort::default() })
    }

    /// As [`Desk::take`](crate::receive::send::Desk::take).
    ///
    /// # Errors
    /// See there.
    pub fn take_replica(&self, name: &Name, disk: &Name, session: Uuid, body: &[u8]) -> Result<Taken> {
        let taken = self.incoming.desk.take(name, session, disk, body)?;
        self.vault.relieve();
        Ok(taken)
    }

    /// As [`Desk::commit`](crate::receive::send::Desk::commit).
    ///
    /// # Errors
    /// See there.
    pub fn commit_replica(&self, name: &Name, commit: &Commit, variables: Option<&[u8]>) -> Result<Committed> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = self.machine(name)?;
        let committed = self.incoming.desk.commit(name, commit, variables)?;
        // Disks that the sender has no more.
        let kept = watched.machine().journal().with_state(|state| state.disks.clone());
        let is_gone = |export: &ExportName| {
            export.machine() == name && !kept.values().any(|info| info.name == export.disk().as_str())
        };
        self.streams.write().unwrap_or_else(PoisonError::into_inner).retain(|export, _| !is_gone(export));
        watched.refresh()?;
        if let Some(point) = watched.points().last() {
            watched.verify(point.time);
        }
        tracing::info!(machine = %name, point = committed.point, "a send is complete");
        Ok(committed)
    }

    /// Gives up a send that has not come to its end. False where there was none.
    ///
    /// # Errors
    /// As the vault's.
    pub fn give_up_replica(&self, name: &Name) -> Result<bool> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = self.machine(name)?;
        let was_there = self.incoming.desk.give_up(&self.incoming.batches, watched.machine(), &Effort::default())?;
        watched.refresh()?;
        Ok(was_there)
    }

    /// True where all that a machine's disks hold was brought by deltas, and is in a point: it is the state of a moment at its source, and a
    /// point of now would say something else.
    pub(super) fn is_of_deltas(&self, watched: &super::watched::Watched) -> bool {
        let machine = watched.machine();
        let last = machine.journal().last();
        if watched.is_settled(last) {
            return true;
        }
        let has_disks = machine.journal().with_state(|state| !state.disks.is_empty());
        let is_of_deltas = has_disks && position::all_hold(machine, &[]).unwrap_or(false);
        if is_of_deltas {
            watched.settle(last);
        }
        is_of_deltas
    }
}
