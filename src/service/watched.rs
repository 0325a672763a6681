//! A machine as the service sees it: its points, how old the newest state is, what went wrong.

use super::rpo::Ages;
use crate::receive::position::{self, Brought};
use crate::report::api::Verdict;
use crate::report::protection::{PreparedPoint, Proven, ProvenPoint};
use crate::vault::journal::{Checkpoint, Mark};
use crate::vault::machine::Machine;
use landfall_image::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A machine that is watched.
#[derive(Debug)]
pub struct Watched {
    machine: Arc<Machine>,
    state: Mutex<State>,
    /// Milliseconds since 1970 up to which all that was acknowledged is in the newest point; 0 for never.
    verified: AtomicU64,
    /// One cut at a time; a second one waits.
    cutting: Mutex<()>,
    /// The record of the journal up to which there is nothing that its newest point does not have, for a machine that is fed by deltas.
    same_until: AtomicU64,
}

/// How a machine comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// It is mirrored, or a part of it is.
    Mirrored,
    /// Each of its disks by deltas: what it holds is of the moment, in milliseconds since 1970, when the oldest of their last ones was taken.
    Deltas {
        /// That moment; `None` where nobody knows.
        at: Option<u64>,
    },
}

#[derive(Debug, Default)]
struct State {
    /// As [`Machine::points`] has them: that reads much.
    points: Arc<Vec<Checkpoint>>,
    ages: Ages,
    /// Why no point could be set, or its past not be kept in order.
    cut_failed: Option<String>,
    /// How often, since the start.
    cut_failures: u64,
    upkeep_failed: Option<String>,
    /// The last trial boot, and the last that went well.
    proofs: [Option<ProvenPoint>; 2],
    /// Points that are patched ahead.
    prepared: Vec<PreparedPoint>,
    /// Why the newest could not be.
    prepare_failed: Option<String>,
    /// Who tried to write though it was promoted, and when.
    is_back: Option<(String, u64)>,
    /// Points that are not what was written, by their last verification.
    differed: BTreeSet<u64>,
}

impl Watched {
    /// # Errors
    /// Where its points cannot be read.
    pub fn new(machine: Arc<Machine>) -> Result<Watched> {
        let points = machine.points()?;
        let verified = AtomicU64::new(points.last().map_or(0, |point| point.time));
        let state = Mutex::new(State { points: Arc::new(points), ..State::default() });
        Ok(Watched { machine, state, verified, cutting: Mutex::default(), same_until: AtomicU64::new(0) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// Its points, oldest first.
    pub fn points(&self) -> Arc<Vec<Checkpoint>> {
        Arc::clone(&self.state().points)
    }

    /// Keeps others from setting a point meanwhile.
    pub(super) fn cutting(&self) -> MutexGuard<'_, ()> {
        self.cutting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A point was set.
    pub(super) fn set(&self, sequence: u64, time: u64, mark: &Mark) {
        let mut state = self.state();
        Arc::make_mut(&mut state.points).push(Checkpoint { sequence, time, mark: mark.clone() });
        state.cut_failed = None;
        drop(state);
        self.verify(time);
    }

    /// The newest point holds all that was acknowledged until then.
    pub(super) fn verify(&self, time: u64) {
        self.verified.fetch_max(time, Ordering::Relaxed);
    }

    /// Reads its points again: some were given up.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub(super) fn refresh(&self) -> Result<()> {
        let _one = self.cutting();
        let points = self.machine.points()?;
        self.state().points = Arc::new(points);
        Ok(())
    }

    /// Why no point could be set.
    pub(super) fn cut_failed(&self, why: String) {
        let mut state = self.state();
        state.cut_failed = Some(why);
        state.cut_failures += 1;
    }

    /// What came of the work in the background.
    pub(super) fn upkept(&self, failed: Option<String>) {
        self.state().upkeep_failed = failed;
    }

    /// Why no point could be set, and why its past could not be kept in order.
    pub fn failures(&self) -> (Option<String>, Option<String>) {
        let state = self.state();
        (state.cut_failed.clone(), state.upkeep_failed.clone())
    }

    /// How often no point could be set, since the start.
    pub fn cut_failures(&self) -> u64 {
        self.state().cut_failures
    }

    /// A point was tried; told in the order in which that was.
    pub(super) fn proven(&self, proof: &ProvenPoint) {
        let mut state = self.state();
        if proof.evidence.outcome == Proven::Booted {
            state.proofs[1] = Some(proof.clone());
        }
        state.proofs[0] = Some(proof.clone());
    }

    /// The last trial boot, and the last that went well.
    pub fn proofs(&self) -> [Option<ProvenPoint>; 2] {
        self.state().proofs.clone()
    }

    /// These points are patched ahead, or why the newest could not be.
    pub(super) fn prepared(&self, points: Result<Vec<PreparedPoint>>) {
        let mut state = self.state();
        state.prepare_failed = match points {
            Ok(points) => {
                state.prepared = points;
                None
            }
            Err(error) => Some(error.to_string()),
        };
    }

    /// The points that are patched ahead, and why the newest could not be.
    pub fn ahead(&self) -> (Vec<PreparedPoint>, Option<String>) {
        let state = self.state();
        (state.prepared.clone(), state.prepare_failed.clone())
    }

    /// Its source wants to write though the machine was promoted.
    pub(super) fn came_back(&self, peer: &str, at: u64) {
        self.state().is_back = Some((peer.to_owned(), at));
    }

    /// Who tried that last, and when.
    pub(super) fn is_back(&self) -> Option<(String, u64)> {
        self.state().is_back.clone()
    }

    /// A point was verified.
    pub(super) fn judged(&self, point: u64, verdict: Verdict) {
        let mut state = self.state();
        match verdict {
            Verdict::Differed => drop(state.differed.insert(point)),
            Verdict::Matched => drop(state.differed.remove(&point)),
            Verdict::CouldNotRun => {}
        }
    }

    /// The points that are there and not what was written, by their last verification.
    pub fn differed(&self) -> Vec<u64> {
        let state = self.state();
        let is_there = |point: &&u64| state.points.binary_search_by_key(*point, |it| it.sequence).is_ok();
        state.differed.iter().filter(is_there).copied().collect()
    }

    /// How old the newest state is at `now`, in seconds; `None` where there is no point.
    pub fn age(&self, now: u64) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of ages")]
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let verified = self.verified.load(Ordering::Relaxed);
        let of = match self.fed() {
            Fed::Deltas { at: Some(at) } => at,
            Fed::Deltas { at: None } | Fed::Mirrored => verified,
        };
        (!self.state().points.is_empty()).then(|| seconds(now.saturating_sub(of)))
    }

    /// What deltas have brought to its disks, each with the moment of its point.
    pub fn brought(&self) -> BTreeMap<String, (Brought, Option<u64>)> {
        let brought = self.machine.journal().with_state(position::brought);
        if brought.is_empty() {
            return BTreeMap::new();
        }
        let points = self.points();
        let time = |number: u64| {
            let at = points.binary_search_by_key(&number, |point| point.sequence).ok()?;
            points.get(at).map(|point| point.time)
        };
        let with_time = |(disk, own): (String, Brought)| {
            let at = own.point.and_then(time);
            (disk, (own, at))
        };
        brought.into_iter().map(with_time).collect()
    }

    /// How it comes in.
    pub fn fed(&self) -> Fed {
        let brought = self.brought();
        let disks = self.machine.journal().with_state(|state| state.disks.len());
        match disks > 0 && brought.len() == disks {
            true => Fed::Deltas { at: brought.values().filter_map(|(_, at)| *at).min() },
            false => Fed::Mirrored,
        }
    }

    /// The age that was not exceeded in 95 % of the last day.
    pub fn p95(&self, now: u64) -> Option<f64> {
        self.state().ages.p95(now)
    }

    /// Takes down how old the newest state is.
    pub(super) fn sample(&self, now: u64) {
        if let Some(age) = self.age(now) {
            self.state().ages.add(now, age);
        }
    }

    /// True where there is something in the journal that is in no point.
    pub(super) fn has_more(&self) -> bool {
        let newest = self.state().points.last().map_or(0, |point| point.sequence);
        let last = self.machine.journal().last();
        last > newest && !(self.fed() != Fed::Mirrored && self.is_same(newest, last))
    }

    /// True where a machine that is fed by deltas is as it was at its newest point, but for what was noted down of the deltas since.
    fn is_same(&self, newest: u64, last: u64) -> bool {
        if self.same_until.load(Ordering::Relaxed) == last {
            return true;
        }
        let Ok(point) = self.machine.at(newest) else { return false };
        let (was, is) = (point.state(), self.machine.journal().state());
        let others = |state: &crate::vault::journal::State| -> BTreeMap<String, Vec<u8>> {
            let own = state.attachments.iter().filter(|(name, _)| !position::is_one(name));
            own.map(|(name, raw)| (name.clone(), raw.to_vec())).collect()
        };
        let is_same = was.disks == is.disks && others(was) == others(&is);
        if is_same {
            self.same_until.store(last, Ordering::Relaxed);
        }
        is_same
    }
}
