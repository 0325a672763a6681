//! What is wrong at this moment, since when, and who is told.
//!
//! Alarms are not kept: each round finds out anew what is wrong. What was not wrong in the round before has begun, and what is not any longer
//! has ended. Which were on is known from the catalog when the service starts again, so that neither is told twice.

use crate::moment::Moment;
use crate::report::protection::{Alarm, Gravity};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Something that is wrong, before it is known since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What: `rpo-missed`.
    pub id: &'static str,
    /// How bad.
    pub gravity: Gravity,
    /// With which machine.
    pub machine: Option<String>,
    /// In one line.
    pub says: String,
    /// What to do about it.
    pub remedy: String,
}

/// What an alarm is known by: there is one of a kind for each machine.
type Key = (String, Option<String>);

/// After the start, not all that is wrong is found at once: whether a client comes back, for one. What was on is held to be on for so long.
const FOUND_AGAIN: Duration = super::status::GRACE.saturating_add(Duration::from_secs(5));

/// The alarms of now.
#[derive(Debug, Default)]
pub struct Alarms(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    now: BTreeMap<Key, Alarm>,
    /// Those of before the start that were not found again yet, and until when that may be.
    before: BTreeMap<Key, Alarm>,
    until: Option<Instant>,
}

/// What changed with a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changed {
    /// What began.
    pub began: Vec<Alarm>,
    /// What ended.
    pub ended: Vec<Alarm>,
}

impl Alarms {
    /// Those that were on when the service before this one ended.
    pub(super) fn of(on: Vec<Alarm>) -> Alarms {
        let before = on.into_iter().map(|alarm| ((alarm.id.clone(), alarm.machine.clone()), alarm)).collect();
        let until = Some(Instant::now() + FOUND_AGAIN);
        Alarms(Mutex::new(State { now: BTreeMap::new(), before, until }))
    }

    /// All of them, the worst first.
    pub fn now(&self) -> Vec<Alarm> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Alarm> = state.now.values().chain(state.before.values()).cloned().collect();
        drop(state);
        all.sort_by(|a, b| (a.gravity, a.since, &a.machine).cmp(&(b.gravity, b.since, &b.machine)));
        all
    }

    /// Takes what a round found.
    pub(super) fn update(&self, found: Vec<Wrong>, at: Moment) -> Changed {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { now, before: earlier, until } = &mut *state;
        let mut before = std::mem::take(now);
        let mut changed = Changed::default();
        for wrong in found {
            let key = (wrong.id.to_owned(), wrong.machine.clone());
            if now.contains_key(&key) {
                // It is told of already.
                continue;
            }
            let since = before.remove(&key).or_else(|| earlier.remove(&key)).map(|alarm| alarm.since);
            let alarm = Alarm {
                id: wrong.id.to_owned(),
                gravity: wrong.gravity,
                machine: wrong.machine,
                says: wrong.says,
                remedy: wrong.remedy,
                since: since.unwrap_or(at),
            };
            if since.is_none() {
                changed.began.push(alarm.clone());
            }
            now.insert(key, alarm);
        }
        changed.ended.extend(before.into_values());
        if until.is_none_or(|until| Instant::now() >= until) {
            changed.ended.extend(std::mem::take(earlier).into_values());
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(id: &'static str, machine: &str, says: &str) -> Wrong {
        Wrong {
            id,
            gravity: if id == "a" { Gravity::Warning } else { Gravity::Critical },
            machine: Some(machine.into()),
            says: says.into(),
            remedy: "r".into(),
        }
    }

    #[test]
    fn an_alarm_begins_once_and_ends_once() {
        let alarms = Alarms::default();
        let first = alarms.update(vec![wrong("a", "x", "1"), wrong("b", "x", "1")], Moment(1));
        assert_eq!((first.began.len(), first.ended.len()), (2, 0));
        // What it says may change meanwhile.
        let second = alarms.update(vec![wrong("a", "x", "2"), wrong("a", "y", "1")], Moment(2));
        assert_eq!(second.began.iter().map(|a| a.machine.as_deref()).collect::<Vec<_>>(), [Some("y")]);
        assert_eq!(second.ended.iter().map(|a| a.id.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(alarms.now()[0].says, "2");
        assert_eq!(alarms.now()[0].since, Moment(1));
        // One of a kind for each machine, however often a round finds it: it neither begins anew nor ends.
        let twice = vec![wrong("a", "x", "2"), wrong("a", "x", "other"), wrong("a", "y", "1")];
        assert_eq!(alarms.update(twice, Moment(2)), Changed::default());
        alarms.update(vec![wrong("a", "x", "2"), wrong("b", "z", "3")], Moment(3));
        assert_eq!(alarms.now()[0].id, "b", "the worst first");
    }

    #[test]
    fn what_was_on_before_a_restart_does_not_begin_again_and_ends_when_it_is_over() {
        let before = Alarms::default();
        before.update(vec![wrong("a", "x", "1"), wrong("b", "x", "1")], Moment(1));
        let alarms = Alarms::of(before.now());
        assert_eq!(alarms.now(), before.now());
        // One is found at once, the other may be later.
        assert_eq!(alarms.update(vec![wrong("a", "x", "1")], Moment(2)), Changed::default());
        assert_eq!(alarms.now(), before.now());
        assert_eq!(
            alarms.update(vec![wrong("a", "x", "1"), wrong("b", "x", "1")], Moment(3)),
            Changed::default()
        );
        assert_eq!(alarms.now()[0].since, Moment(1));
        assert_eq!(alarms.update(vec![wrong("a", "x", "1")], Moment(4)).ended[0].id, "b");
        // What is not found in time is over.
        let late = Alarms::of(before.now());
        late.0.lock().unwrap().until = Some(Instant::now());
        let changed = late.update(vec![wrong("a", "x", "1")], Moment(5));
        assert_eq!((changed.began.len(), changed.ended[0].id.as_str()), (0, "b"));
        assert_eq!(late.now().len(), 1);
    }
}
