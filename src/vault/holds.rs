//! Points that are kept whatever the rules say, because a recovered machine lives on them.
//!
//! ```text
//! MACHINE/holds.json   [{ "point": 1234, "holder": "/var/lib/landfall/recovered/web01" }]
//! ```
//! They outlive the process: a machine that is off reads nothing, and needs its point all the same when it is started again.

use super::storage::Storage;
use super::{read_json, write_json};
use landfall_image::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const FILE: &str = "holds.json";

/// Somebody who needs a point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hold {
    /// The point's record.
    pub point: u64,
    /// Who: the folder of a recovered machine.
    pub holder: String,
}

/// The holds on a machine's points.
#[derive(Debug)]
pub struct Holds {
    storage: Arc<dyn Storage>,
    dir: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    holds: BTreeSet<Hold>,
    /// Records that are being rewritten at this moment, and the points among them that stay.
    rewritten: Option<(RangeInclusive<u64>, BTreeSet<u64>)>,
}

impl Holds {
    /// Reads the holds in a machine's folder.
    ///
    /// # Errors
    /// Corrupt where they cannot be read: to go on without would be to give up what a machine lives on.
    pub fn open(storage: &Arc<dyn Storage>, dir: &str) -> Result<Holds> {
        let holds = match storage.list(dir)?.iter().any(|name| name == FILE) {
            true => read_json::<BTreeSet<Hold>>(&**storage, &place(dir))?,
            false => BTreeSet::new(),
        };
        let state = Mutex::new(State { holds, rewritten: None });
        Ok(Holds { storage: Arc::clone(storage), dir: dir.to_owned(), state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub fn all(&self) -> BTreeSet<Hold> {
        self.state().holds.clone()
    }

    /// The points that are held.
    pub fn points(&self) -> BTreeSet<u64> {
        self.state().holds.iter().map(|hold| hold.point).collect()
    }

    /// Adds one, durably; false where the point is being given up at this moment.
    pub(super) fn add(&self, hold: Hold) -> Result<bool> {
        let mut state = self.state();
        let is_doomed = |(records, kept): &(RangeInclusive<u64>, BTreeSet<u64>)| {
            records.contains(&hold.point) && !kept.contains(&hold.point)
        };
        if state.rewritten.as_ref().is_some_and(is_doomed) {
            return Ok(false);
        }
        let mut holds = state.holds.clone();
        if holds.insert(hold) {
            self.keep(&holds)?;
            state.holds = holds;
        }
        Ok(true)
    }

    /// Takes one back, durably.
    pub(super) fn remove(&self, hold: &Hold) -> Result<()> {
        let mut state = self.state();
        let mut holds = state.holds.clone();
        if holds.remove(hold) {
            self.keep(&holds)?;
            state.holds = holds;
        }
        Ok(())
    }

    fn keep(&self, holds: &BTreeSet<Hold>) -> Result<()> {
        write_json(&*self.storage, &self.dir, FILE, holds)
    }

    /// These records are rewritten until [`rewritten`](Self::rewritten): of the points among them, those in `kept` stay, to which
    /// those that are held are added.
    pub(super) fn rewriting(&self, records: RangeInclusive<u64>, kept: &mut BTreeSet<u64>) {
        let mut state = self.state();
        kept.extend(state.holds.iter().map(|hold| hold.point));
        state.rewritten = Some((records, kept.clone()));
    }

    /// They are.
    pub(super) fn rewritten(&self) {
        self.state().rewritten = None;
    }
}

fn place(dir: &str) -> String {
    match dir.is_empty() {
        true => FILE.to_owned(),
        false => format!("{dir}/{FILE}"),
    }
}

/// That there is no such point.
pub(super) fn gone(machine: &str, point: u64) -> Error {
    Error::refused(format!("{machine} has no point {point} (any more)"))
        .hint("landfall points list shows the points that there are")
}
