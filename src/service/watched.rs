//! A machine as the service sees it: its points, how old the newest state is, what went wrong.

use super::rpo::Ages;
use crate::vault::journal::{Checkpoint, Mark};
use crate::vault::machine::Machine;
use landfall_image::Result;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A machine that is watched.
#[derive(Debug)]
pub struct Watched {
    machine: Arc<Machine>,
    state: Mutex<State>,
    /// Milliseconds since 1970 up to which all that was acknowledged is in the newest point; 0 for never.
    verified: AtomicU64,
    /// The record up to which all is known to be brought by deltas, and in their points; 0 for none.
    settled: AtomicU64,
    /// One cut at a time; a second one waits.
    cutting: Mutex<()>,
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
}

impl Watched {
    /// # Errors
    /// Where its points cannot be read.
    pub fn new(machine: Arc<Machine>) -> Result<Watched> {
        let points = machine.points()?;
        let verified = AtomicU64::new(points.last().map_or(0, |point| point.time));
        let state = Mutex::new(State { points: Arc::new(points), ..State::default() });
        Ok(Watched { machine, state, verified, settled: AtomicU64::new(0), cutting: Mutex::default() })
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

    /// Up to this record all was brought by deltas.
    pub(super) fn settle(&self, last: u64) {
        self.settled.store(last, Ordering::Relaxed);
    }

    /// True where that is known of this record.
    pub(super) fn is_settled(&self, last: u64) -> bool {
        self.settled.load(Ordering::Relaxed) == last
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

    /// How old the newest state is at `now`, in seconds; `None` where there is no point.
    pub fn age(&self, now: u64) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of ages")]
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let verified = self.verified.load(Ordering::Relaxed);
        (!self.state().points.is_empty()).then(|| seconds(now.saturating_sub(verified)))
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
        let last = self.state().points.last().map_or(0, |point| point.sequence);
        self.machine.journal().last() > last
    }
}
