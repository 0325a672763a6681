//! What time it is for whoever gives points up. A clock that jumps forward makes all points old at once: a host whose own clock is wrong, a
//! year that somebody has mistyped, a server of time that lies.
//!
//! ```text
//! as far as time has passed, and a day at most -> the clock is believed, however far it goes back; and forth again to where it was
//! there is no point                            -> it is believed
//! further                                      -> the time that was expected, for what was there before; an alarm; after seven days the clock
//!                                                 is believed
//! ```
//! What is expected is what the clock said last, and how long this machine has run since (`CLOCK_BOOTTIME`); it is kept in the catalog. A
//! service that was off for longer than three days cannot tell that from a jump: points are kept for seven days more then.
//!
//! Deliberately absent: the times of points, which are those of the clock, and setting the clock.

use super::Service;
use super::catalog::{Catalog, signed};
use crate::moment::Moment;
use crate::vault::retention::Now;
use landfall_image::Result;
use rusqlite::{OptionalExtension, params};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Forward by more than this, beyond what has passed, the clock is not believed.
const JUMP: Duration = Duration::from_secs(24 * 3600);
/// The same at a start: the service may have been off.
const OFF: Duration = Duration::from_secs(3 * 24 * 3600);
/// A server of time has been heard by then.
const SETTLES: Duration = Duration::from_secs(600);
/// With nobody doing anything about it for as long, the clock is right.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Between two times that are kept.
const KEPT_EVERY: Duration = Duration::from_secs(60);

/// The service's clock.
#[derive(Debug)]
pub(super) struct Clock(Mutex<State>);

/// All in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// What is believed, since 1970.
    believed: u64,
    /// The latest that was ever believed, and what has passed since: a clock that begins in the past and is set right goes as far.
    latest: u64,
    /// What this machine had run for then.
    ran: u64,
    /// How long the clock is ahead.
    ahead: u64,
    /// By how much it may jump.
    jump: u64,
    /// Of how long this machine has run: until then a server of time may set right what a stop has made of the clock.
    settles: u64,
    /// What was kept last.
    kept: u64,
}

/// What the catalog has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    believed: u64,
    latest: u64,
    ahead: u64,
}

/// The clock, and whether it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    /// For giving points up.
    pub believed: u64,
    /// By how much the machine's clock is ahead of that; 0 where it is believed.
    pub ahead: Duration,
    /// Until it is believed.
    pub left: Duration,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Time {
    pub(super) fn now(&self) -> Now {
        Now { believed: self.believed, clock: self.believed.saturating_add(millis(self.ahead)) }
    }
}

impl State {
    /// One that begins at `wall`, or goes on from what was kept of another start.
    fn new(kept: Option<Kept>, wall: u64, ran: u64) -> State {
        let Kept { believed, latest, ahead } =
            kept.unwrap_or(Kept { believed: wall, latest: wall, ahead: 0 });
        // One that was not believed before is not for a start.
        let (jump, settles) = match ahead {
            0 => (millis(OFF), ran.saturating_add(millis(SETTLES))),
            _ => (millis(JUMP), 0),
        };
        State { believed, latest, ran, ahead, jump, settles, kept: believed }
    }

    fn look(&mut self, wall: u64, ran: u64, has_points: bool) -> Time {
        let passed = ran.saturating_sub(self.ran);
        let expected = self.believed.saturating_add(passed);
        self.ran = ran;
        self.latest = self.latest.saturating_add(passed).max(expected);
        let is_ahead = has_points && wall > self.latest.saturating_add(self.jump);
        self.ahead = if is_ahead { self.ahead.saturating_add(passed) } else { 0 };
        if is_ahead && self.ahead < millis(PATIENCE) {
            self.believed = expected;
            let left = Duration::from_millis(millis(PATIENCE) - self.ahead);
            return Time { believed: expected, ahead: Duration::from_millis(wall - expected), left };
        }
        (self.believed, self.latest) = (wall, self.latest.max(wall));
        self.ahead = 0;
        if ran >= self.settles {
            self.jump = millis(JUMP);
        }
        Time { believed: wall, ahead: Duration::ZERO, left: Duration::ZERO }
    }
}

fn ran() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    millis(Duration::from_secs(now.tv_sec.unsigned_abs())) + now.tv_nsec.unsigned_abs() / 1_000_000
}

impl Clock {
    /// Goes on from what the catalog has.
    pub(super) fn open(catalog: &Catalog) -> Result<Clock> {
        let kept = catalog.clock()?;
        Ok(Clock(Mutex::new(State::new(kept, Moment::now().0, ran()))))
    }

    /// What time it is; kept from time to time. `has_points` where there is something that could be given up.
    pub(super) fn look(&self, catalog: &Catalog, has_points: bool) -> Time {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let time = state.look(Moment::now().0, ran(), has_points);
        if time.believed.abs_diff(state.kept) >= millis(KEPT_EVERY) {
            let now = Kept { believed: time.believed, latest: state.latest, ahead: state.ahead };
            match catalog.keep_clock(now) {
                Ok(()) => state.kept = time.believed,
                Err(error) => tracing::error!(%error, "what time it is cannot be kept"),
            }
        }
        time
    }
}

impl Service {
    /// What time it is for whoever gives points up.
    pub(super) fn time(&self) -> Time {
        let has_points = self.watched().iter().any(|(_, watched)| !watched.points().is_empty());
        self.clock.look(&self.catalog, has_points)
    }
}

impl Catalog {
    fn clock(&self) -> Result<Option<Kept>> {
        let row = |row: &rusqlite::Row<'_>| {
            let number = |at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
            Ok(Kept { believed: number(0)?, latest: number(1)?, ahead: number(2)? })
        };
        self.with(|c| c.query_row("SELECT believed, latest, ahead FROM clock", [], row).optional())
    }

    fn keep_clock(&self, now: Kept) -> Result<()> {
        let put = "INSERT OR REPLACE INTO clock (id, believed, latest, ahead) VALUES (1, ?1, ?2, ?3)";
        let Kept { believed, latest, ahead } = now;
        self.with(|c| c.execute(put, params![signed(believed), signed(latest), signed(ahead)])).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;
    const YEAR: u64 = 365 * DAY;
    const START: u64 = 56 * YEAR;

    fn kept(believed: u64, ahead: u64) -> Option<Kept> {
        Some(Kept { believed, latest: believed, ahead })
    }

    #[test]
    fn a_clock_is_believed_as_far_as_time_has_passed() {
        let mut state = State::new(None, START, 5);
        for hour in 0..100 {
            let time = state.look(START + hour * HOUR, 5 + hour * HOUR, true);
            assert_eq!((time.believed, time.ahead), (START + hour * HOUR, Duration::ZERO));
        }
        // Somebody sets it right, back and forth by hours; and back by years.
        for wall in [START + 120 * HOUR, START + 90 * HOUR, START - 10 * YEAR] {
            assert_eq!(state.look(wall, 5 + 100 * HOUR, true).believed, wall);
        }
    }

    #[test]
    fn a_jump_is_believed_when_nobody_minds_it_for_a_week() {
        let mut state = State::new(None, START, 0);
        state.look(START, 0, true);
        let wrong = |ran: u64| START + 10 * YEAR + ran;
        for hour in 1..=7 * 24 - 1 {
            let time = state.look(wrong(hour * HOUR), hour * HOUR, true);
            assert_eq!(time.believed, START + hour * HOUR);
            assert_eq!(time.ahead, Duration::from_millis(10 * YEAR));
        }
        assert_eq!(state.look(wrong(169 * HOUR), 169 * HOUR, true).believed, wrong(169 * HOUR));
        // Put right before: it counts anew.
        let mut state = State::new(None, START, 0);
        state.look(START, 0, true);
        state.look(wrong(100 * HOUR), 100 * HOUR, true);
        assert_eq!(state.look(START + 101 * HOUR, 101 * HOUR, true).believed, START + 101 * HOUR);
        assert_eq!(state.look(wrong(200 * HOUR), 200 * HOUR, true).believed, START + 200 * HOUR);
    }

    #[test]
    fn a_start_goes_on_from_what_was_kept() {
        // Off for a weekend, and off for a month.
        assert_eq!(
            State::new(kept(START, 0), START + 2 * DAY, 7).look(START + 2 * DAY, 7, true).believed,
            START + 2 * DAY
        );
        let mut state = State::new(kept(START, 0), START + 30 * DAY, 7);
        assert_eq!(state.look(START + 30 * DAY, 7, true).believed, START);
        // A restart is no reason to believe what was not, and a server of time has some minutes after a start.
        let mut state = State::new(kept(START, HOUR), START + 2 * DAY + 12 * HOUR, 0);
        assert_eq!(state.look(START + 2 * DAY + 12 * HOUR, 0, true).believed, START);
        let mut state = State::new(kept(START, 0), START, 0);
        state.look(START, 0, true);
        assert_eq!(state.look(START + 2 * DAY, 300_000, true).believed, START + 2 * DAY);
        state.look(START + 2 * DAY + HOUR, HOUR, true);
        assert!(!state.look(START + 4 * DAY + HOUR, HOUR, true).ahead.is_zero());
        // Starts in between do not begin the week anew, nor does a second start believe what the first did not.
        let mut state = State::new(kept(START, 6 * DAY), START + 36 * DAY, 0);
        assert_eq!(state.look(START + 36 * DAY, 0, true).believed, START);
        assert_eq!(state.look(START + 37 * DAY, DAY, true).believed, START + 37 * DAY);
    }

    #[test]
    fn a_clock_that_begins_in_the_past_is_set_right() {
        // Its battery is empty: at each start it is ten years ago, until a server of time is heard.
        let mut state = State::new(kept(START, 0), START - 10 * YEAR, 0);
        assert_eq!(state.look(START - 10 * YEAR, 0, true).believed, START - 10 * YEAR);
        let time = state.look(START + 3 * HOUR, 60_000, true);
        assert_eq!((time.believed, time.ahead), (START + 3 * HOUR, Duration::ZERO));
        // The first start of all, where there is nothing to lose.
        let mut state = State::new(None, START, 0);
        assert_eq!(state.look(START, 0, false).believed, START);
        assert_eq!(state.look(START + YEAR, 60_000, false).believed, START + YEAR);
        assert_eq!(state.look(START + 2 * YEAR, 120_000, true).believed, START + YEAR + 60_000);
    }

    #[test]
    fn it_is_kept_in_the_catalog() {
        let dir = tempfile::tempdir().unwrap();
        let (catalog, _) = Catalog::open(&dir.path().join("catalog.db")).unwrap();
        assert_eq!(catalog.clock().unwrap(), None);
        for (believed, ahead) in [(START, 0), (START + 1, DAY)] {
            let kept = Kept { believed, latest: START + 7, ahead };
            catalog.keep_clock(kept).unwrap();
            assert_eq!(catalog.clock().unwrap(), Some(kept));
        }
    }
}
