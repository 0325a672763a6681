//! Machines that another landfall sends: what their disks hold, what arrives, and the point that comes of it.

use super::alarms::Wrong;
use super::{Service, now};
use crate::name::Name;
use crate::receive::batch::Target;
use crate::receive::content::Effort;
use crate::receive::send::{Begin, Begun, Commit, Committed, Held, Question, Taken};
use crate::report::protection::Gravity;
use landfall_image::Result;
use std::time::Duration;
use uuid::Uuid;

/// A sender that says nothing for so long has gone: it tries again for less.
const SILENT: Duration = Duration::from_secs(15 * 60);

impl Service {
    /// What a machine holds of another landfall; nothing where there is no such machine.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn replica(&self, name: &Name) -> Result<Held> {
        if !self.watched().contains_key(name) && !self.unreadable.contains_key(name) {
            return Ok(Held::none(name));
        }
        self.incoming().desk.holds(&self.incoming().batches, self.machine(name)?.machine())
    }

    /// Begins a send of a machine, or goes on with one; a machine that is not there is made.
    ///
    /// # Errors
    /// As [`Desk::begin`](crate::receive::send::Desk::begin).
    pub fn begin_replica(&self, name: &Name, begin: &Begin, by: &str) -> Result<Begun> {
        if self.unreadable.contains_key(name) {
            self.machine(name)?;
        }
        let target = Target::of(&self.vault, name);
        let begun = self.incoming().desk.begin(&self.incoming().batches, &target, begin, by, now())?;
        self.meet_again(name);
        tracing::info!(machine = %name, target = %begin.target, by, resumed = begun.resumed.is_some(), "a send begins");
        Ok(begun)
    }

    /// As [`Desk::digests`](crate::receive::send::Desk::digests).
    ///
    /// # Errors
    /// See there.
    pub fn replica_digests(&self, name: &Name, disk: &Name, question: &Question) -> Result<Vec<u8>> {
        self.incoming().desk.digests(name, disk, question, &Effort { jobs: 2, ..Effort::default() })
    }

    /// As [`Desk::take`](crate::receive::send::Desk::take).
    ///
    /// # Errors
    /// See there.
    pub fn take_replica(&self, name: &Name, disk: &Name, session: Uuid, body: &[u8]) -> Result<Taken> {
        let taken = self.incoming().desk.take(name, session, disk, body)?;
        self.vault.relieve();
        Ok(taken)
    }

    /// As [`Desk::commit`](crate::receive::send::Desk::commit).
    ///
    /// # Errors
    /// See there.
    pub fn commit_replica(
        &self,
        name: &Name,
        commit: &Commit,
        variables: Option<&[u8]>,
    ) -> Result<Committed> {
        let committed = self.incoming().desk.commit(name, commit, variables)?;
        self.meet_again(name);
        tracing::info!(machine = %name, point = committed.point, "a send is complete");
        Ok(committed)
    }

    /// Gives up a send that has not come to its end. False where there was none.
    ///
    /// # Errors
    /// As the vault's.
    pub fn give_up_replica(&self, name: &Name) -> Result<bool> {
        let watched = self.machine(name)?;
        let was_there =
            self.incoming().desk.give_up(&self.incoming().batches, watched.machine(), &Effort::default())?;
        self.meet_again(name);
        Ok(was_there)
    }

    /// What is wrong with a send that has not come to its end, and whose sender says nothing.
    pub(super) fn waits_for_sender(&self, name: &Name) -> Option<Wrong> {
        let (says, is_cut_off) = self.incoming().leases.running(name)?;
        let since = self.incoming().desk.silent(name);
        let is_waiting = match since {
            Some(silent) => silent > SILENT,
            // Only what was cut off is looked for on the medium: that is rare.
            None => is_cut_off && self.incoming().is_sent(name),
        };
        let for_long =
            since.map(|silent| format!(" for {} minutes", silent.as_secs() / 60)).unwrap_or_default();
        is_waiting.then(|| Wrong {
            id: "send-waiting",
            gravity: Gravity::Warning,
            machine: Some(name.to_string()),
            says: format!("{says} has not come to its end, and its sender has said nothing{for_long}. The points of {name} are whole."),
            remedy: format!("Send it again at the other side: it goes on. Or give it up: landfall receive give-up {name}"),
        })
    }
}
