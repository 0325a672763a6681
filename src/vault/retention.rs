//! Which points are kept: rules such as `24h every 5s, 7d every 1h, 30d every 1d`.
//!
//! A rule keeps, of all points younger than its span, the first in each interval; intervals begin at 1970-01-01 00:00 UTC and its
//! multiples, so that the choice does not change while a point grows older. A point that the applications took part in is
//! preferred to one that is crash-consistent. The newest point is kept whatever the rules say, and so are tagged ones.

use super::journal::{Checkpoint, Consistency};
use landfall_image::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// For points younger than this.
    pub span: Duration,
    /// One is kept in each interval of this length.
    pub every: Duration,
}

/// The rules of a machine, the shortest span first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention(Vec<Rule>);

impl Default for Retention {
    /// `24h every 5s, 7d every 1h, 30d every 1d`
    fn default() -> Retention {
        const HOUR: u64 = 3600;
        let rule = |span, every| Rule { span: Duration::from_secs(span), every: Duration::from_secs(every) };
        Retention(vec![rule(24 * HOUR, 5), rule(7 * 24 * HOUR, HOUR), rule(30 * 24 * HOUR, 24 * HOUR)])
    }
}

/// The longest span: a century.
const SPAN_AT_MOST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
/// Rules of one machine.
const RULES_AT_MOST: usize = 16;

impl FromStr for Retention {
    type Err = Error;

    /// # Errors
    /// Refused where it is no list of rules, a longer span has the shorter interval, or an interval is longer than its span.
    fn from_str(text: &str) -> Result<Retention> {
        let refused = |says: String| {
            Error::refused(says).hint("write it like \"24h every 5s, 7d every 1h, 30d every 1d\"")
        };
        let mut rules = Vec::new();
        for part in text.split(',').map(str::trim) {
            let words: Vec<&str> = part.split_whitespace().collect();
            let [span, "every", every] = words[..] else {
                return Err(refused(format!("{part:?} is no rule of retention")));
            };
            let duration = |text: &str| {
                duration(text).ok_or_else(|| refused(format!("{text:?} is no duration (s, m, h, d, w or y)")))
            };
            let rule = Rule { span: duration(span)?, every: duration(every)? };
            if rule.every > rule.span || rule.span > SPAN_AT_MOST {
                return Err(refused(format!("{part:?} keeps nothing, or for longer than a century")));
            }
            rules.push(rule);
        }
        rules.sort_by_key(|rule| rule.span);
        for pair in rules.windows(2) {
            if pair[0].span == pair[1].span || pair[0].every >= pair[1].every {
                return Err(refused(format!(
                    "\"{}\" adds nothing to \"{}\"",
                    shown(&pair[0]),
                    shown(&pair[1])
                )));
            }
        }
        match rules.len() <= RULES_AT_MOST {
            true => Ok(Retention(rules)),
            false => Err(refused(format!("{} rules; {RULES_AT_MOST} are the most", rules.len()))),
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<String> = self.0.iter().map(shown).collect();
        f.write_str(&rules.join(", "))
    }
}

fn shown(rule: &Rule) -> String {
    format!("{} every {}", shown_duration(rule.span), shown_duration(rule.every))
}

const UNITS: [(&str, u64); 6] =
    [("y", 365 * 24 * 3600), ("w", 7 * 24 * 3600), ("d", 24 * 3600), ("h", 3600), ("m", 60), ("s", 1)];

/// `5s`, `24h`, `30d`; `None` for anything else, and for nothing.
pub fn duration(text: &str) -> Option<Duration> {
    let (unit, seconds) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
    let seconds = number.checked_mul(seconds).filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds))
}

/// As [`duration`] reads it, in days at most.
pub fn shown_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    // Weeks and years read worse than days.
    let shown = UNITS.into_iter().skip(2).find(|(_, unit)| seconds.is_multiple_of(*unit));
    shown.map_or_else(|| format!("{seconds}s"), |(name, unit)| format!("{}{name}", seconds / unit))
}

/// What time it is, in milliseconds since 1970: by itself a time that everything is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// What is believed: what is older than this grows old by it.
    pub believed: u64,
    /// What the clock says, which may be wrong: what was made since is as old as that says, or it would never grow old.
    pub clock: u64,
}

impl From<u64> for Now {
    fn from(now: u64) -> Now {
        Now { believed: now, clock: now }
    }
}

impl Now {
    /// How old something of that time is, in milliseconds.
    pub fn age(&self, time: u64) -> u64 {
        let now = if time > self.believed { self.clock } else { self.believed };
        now.saturating_sub(time)
    }
}

impl Retention {
    /// The rules, the shortest span first.
    pub fn rules(&self) -> &[Rule] {
        &self.0
    }

    /// How far back points reach.
    pub fn span(&self) -> Duration {
        self.0.last().map_or(Duration::ZERO, |rule| rule.span)
    }

    /// The records of the points that are kept, of `points` in their order.
    pub fn kept(&self, points: &[Checkpoint], now: impl Into<Now>) -> BTreeSet<u64> {
        let now = now.into();
        let mut kept: BTreeSet<u64> = points.last().map(|point| point.sequence).into_iter().collect();
        kept.extend(points.iter().filter(|point| point.mark.tag.is_some()).map(|point| point.sequence));
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        for rule in &self.0 {
            let span = millis(rule.span);
            let mut chosen: BTreeMap<u64, &Checkpoint> = BTreeMap::new();
            for point in points {
                let of_applications = |point: &Checkpoint| point.mark.consistency == Consistency::Application;
                let place = chosen.entry(point.time / millis(rule.every).max(1)).or_insert(point);
                if of_applications(point) && !of_applications(place) {
                    *place = point;
                }
            }
            // Chosen of all, then looked at by age: the first of an interval does not change when it grows too old.
            let young = chosen.values().filter(|point| now.age(point.time) <= span);
            kept.extend(young.map(|point| point.sequence));
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::journal::Mark;

    fn point(sequence: u64, seconds: u64) -> Checkpoint {
        Checkpoint { sequence, time: seconds * 1000, mark: Mark::default() }
    }

    #[test]
    fn rules_are_read_and_shown() {
        for text in ["24h every 5s, 7d every 1h, 30d every 1d", "10m every 1s", "1d every 1m, 365d every 7d"]
        {
            let shown = text.replace("24h", "1d");
            assert_eq!(text.parse::<Retention>().unwrap().to_string(), shown);
        }
        assert_eq!(
            "30d every 1d, 24h every 5s, 7d every 1h".parse::<Retention>().unwrap(),
            Retention::default()
        );
        for text in [
            "",
            "24h",
            "24h every",
            "24 every 5s",
            "5s every 24h",
            "1d every 0s",
            "1d every 5s, 7d every 5s",
            "7d every 1h, 7d every 2h",
            "200y every 1d",
            "-1d every 5s",
            "1d every 5s,",
        ] {
            let error = text.parse::<Retention>().unwrap_err();
            assert!(error.hint_text().is_some(), "{text}: {error}");
        }
    }

    #[test]
    fn points_grow_fewer_with_age_and_the_choice_is_stable() {
        let retention = Retention::default();
        let day = 24 * 3600;
        let mut points: Vec<Checkpoint> = Vec::new();
        let mut sequence = 0;
        // 40 days with a point every minute, thinned every six hours.
        for minute in 0..40 * 24 * 60u64 {
            sequence += 1;
            points.push(point(sequence, minute * 60));
            if minute % 360 == 0 {
                let kept = retention.kept(&points, minute * 60 * 1000);
                points.retain(|point| kept.contains(&point.sequence));
            }
        }
        let now = 40 * day;
        let kept = retention.kept(&points, now * 1000);
        points.retain(|point| kept.contains(&point.sequence));
        let within = |from: u64, to: u64| {
            points.iter().filter(|point| (from..to).contains(&(point.time / 1000))).count()
        };
        assert_eq!(within(now - day, now), 24 * 60);
        assert_eq!(within(now - 7 * day, now - day), 6 * 24);
        assert_eq!(within(now - 30 * day, now - 7 * day), 23);
        assert_eq!(within(0, now - 30 * day), 0);
        assert!(
            points
                .iter()
                .filter(|point| point.time / 1000 < now - day)
                .all(|point| point.time % 3_600_000 == 0)
        );
    }

    #[test]
    fn a_clock_that_is_not_believed_gives_up_nothing_of_before_and_thins_what_is_new() {
        let retention = Retention::default();
        let day = 24 * 3600;
        // A day of points a minute apart; then the clock jumps by ten years, and there are three days more.
        let (before, after) = (20_000 * day, 23_650 * day);
        let minutes = |from: u64, days: u64| (0..days * 24 * 60).map(move |minute| from + minute * 60);
        let times: Vec<u64> = minutes(before, 1).chain(minutes(after, 3)).collect();
        let points: Vec<Checkpoint> = (1..).zip(times).map(|(n, time)| point(n, time)).collect();
        let now = Now { believed: (before + day) * 1000, clock: (after + 3 * day) * 1000 };
        let kept = retention.kept(&points, now);
        let of = |from: u64, to: u64| {
            points
                .iter()
                .filter(|p| (from..to).contains(&(p.time / 1000)) && kept.contains(&p.sequence))
                .count()
        };
        assert_eq!(of(before, before + day), 24 * 60);
        assert_eq!(of(after, after + 2 * day), 48);
        assert_eq!(of(after + 2 * day, after + 3 * day), 24 * 60);
        assert!(retention.kept(&points, now.clock).len() < 24 * 60 + 60);
    }

    #[test]
    fn what_was_tagged_the_newest_and_what_applications_took_part_in_stay() {
        let retention: Retention = "1h every 1m".parse().unwrap();
        let mut points = vec![point(1, 0), point(2, 10_000), point(3, 10_001), point(4, 10_002)];
        points[0].mark.tag = Some("before the upgrade".into());
        assert_eq!(retention.kept(&points, 10_003_000).into_iter().collect::<Vec<_>>(), [1, 2, 4]);
        points[2].mark.consistency = Consistency::Application;
        assert_eq!(retention.kept(&points, 10_003_000).into_iter().collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(retention.kept(&points, 10_003_000_000).into_iter().collect::<Vec<_>>(), [1, 4]);
        assert!(retention.kept(&[], 0).is_empty());
    }
}
