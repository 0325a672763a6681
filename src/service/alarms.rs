//! What is wrong at this moment, since when, and who is told.
//!
//! Alarms are not kept: each round finds out anew what is wrong. What was not wrong in the round before has begun, and what is not any longer
//! has ended.

use crate::moment::Moment;
use crate::report::protection::{Alarm, Gravity};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

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
type Key = (&'static str, Option<String>);

/// The alarms of now.
#[derive(Debug, Default)]
pub struct Alarms(Mutex<BTreeMap<Key, Alarm>>);

/// What changed with a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changed {
    /// What began.
    pub began: Vec<Alarm>,
    /// What ended.
    pub ended: Vec<Alarm>,
}

impl Alarms {
    /// All of them, the worst first.
    pub fn now(&self) -> Vec<Alarm> {
        let mut all: Vec<Alarm> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by(|a, b| (a.gravity, a.since, &a.machine).cmp(&(b.gravity, b.since, &b.machine)));
        all
    }

    /// Takes what a round found.
    pub(super) fn update(&self, found: Vec<Wrong>, at: Moment) -> Changed {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *now);
        let mut changed = Changed::default();
        for wrong in found {
            let key = (wrong.id, wrong.machine.clone());
            if now.contains_key(&key) {
                // It is told of already.
                continue;
            }
            let since = before.remove(&key).map(|alarm| alarm.since);
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
}
