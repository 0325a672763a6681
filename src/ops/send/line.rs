//! The way to the receiver: what was lost on it is said again, for a while.

use super::{Fault, Replica};
use landfall_image::convert::Cancel;
use landfall_image::{Error, Result};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two tries, at first and at most.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_AT_MOST: Duration = Duration::from_secs(15);
/// How often it is looked whether somebody wants it to end.
const TICK: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct Line<'l> {
    pub to: &'l dyn Replica,
    cancel: &'l Cancel,
    patience: Duration,
    /// Since when nothing has come through, and how long to wait before the next try.
    trouble: Mutex<Option<(Instant, Duration)>>,
    tries: AtomicU32,
}

impl<'l> Line<'l> {
    /// To that receiver; gives up after `patience` in which nothing has come through.
    pub fn new(to: &'l dyn Replica, cancel: &'l Cancel, patience: Duration) -> Line<'l> {
        Line { to, cancel, patience, trouble: Mutex::new(None), tries: AtomicU32::new(0) }
    }

    /// How often something was said again.
    pub fn tries(&self) -> u32 {
        self.tries.load(Ordering::Relaxed)
    }

    /// Says something until it comes through. To be of use, it must do no harm to be said twice.
    pub fn say<T>(&self, say: impl Fn(&dyn Replica) -> Result<T, Fault>) -> Result<T, Fault> {
        loop {
            if self.cancel.is_cancelled() {
                return Err(Fault::Told(Error::interrupted()));
            }
            match say(self.to) {
                Err(Fault::Lost(error)) => self.pause(error)?,
                Ok(done) => {
                    *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    return Ok(done);
                }
                other => return other,
            }
        }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// `error` itself, where it has lasted too long.
    pub fn pause(&self, error: Error) -> Result<(), Fault> {
        let pause = {
            let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            let (since, pause) = trouble.get_or_insert((Instant::now(), PAUSE));
            if since.elapsed() >= self.patience {
                let hint = error.hint_text().map(|hint| format!("{hint}; ")).unwrap_or_default();
                return Err(Fault::Told(error.hint(format!(
                    "{hint}what has arrived stays at the receiver: the same command goes on from there"
                ))));
            }
            let now = *pause;
            *pause = (*pause * 2).min(PAUSE_AT_MOST);
            now.min(self.patience)
        };
        tracing::info!(%error, ?pause, "the receiver is asked again");
        self.tries.fetch_add(1, Ordering::Relaxed);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if self.cancel.is_cancelled() {
                return Err(Fault::Told(Error::interrupted()));
            }
            std::thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }
}
