//! Which point of a machine is meant: `web01`, `web01@latest`, `web01@1234`, `web01@2026-11-29T14:03:05Z`, `web01@-15m`,
//! `web01@tag:before-update`.

use crate::moment::Moment;
use crate::name::Name;
use crate::vault::retention::duration;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use landfall_image::{Error, Result};
use std::fmt;

/// Which of a machine's points.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum At {
    /// The newest.
    #[default]
    Latest,
    /// The one with that number.
    Number(u64),
    /// The newest that is not younger.
    Time {
        /// Than this.
        moment: Moment,
        /// No zone was named: UTC was taken.
        is_zone_assumed: bool,
    },
    /// The newest that somebody gave this name to.
    Tag(String),
}

const HOW: &str = "write latest, a point's number, a time (2026-11-29T14:03:05Z; without a zone it is UTC), how long ago (-15m, \
                   -1h30m), or tag:NAME";
const HOW_TIME: &str = "write a time (2026-11-29T14:03:05Z, 2026-11-29 14:03; without a zone it is UTC), or how long ago: -15m, -1h30m";

/// The first moment of a time: `2026-11-29T14:03:05Z`, `2026-11-29 14:03`, `-15m`.
///
/// # Errors
/// Refused where it is none.
pub fn since(text: &str, now: Moment) -> Result<Moment> {
    match moment(text.trim(), now, HOW_TIME)? {
        Some((moment, _)) => Ok(moment),
        None => Err(Error::refused(format!("{text:?} is no time")).hint(HOW_TIME)),
    }
}

/// The last moment of a time: one in whole seconds lasts to the end of its second.
///
/// # Errors
/// As [`since`].
pub fn until(text: &str, now: Moment) -> Result<Moment> {
    since(text, now).map(to_the_end)
}

/// A time in whole seconds lasts to the end of its second, as times are shown.
fn to_the_end(moment: Moment) -> Moment {
    match moment.0.is_multiple_of(1000) {
        true => Moment(moment.0.saturating_add(999)),
        false => moment,
    }
}

/// A time, or how long before `now`; and whether its zone was taken for UTC. `None` where it is neither.
fn moment(text: &str, now: Moment, how: &str) -> Result<Option<(Moment, bool)>> {
    let refused = |says: String| Error::refused(says).hint(how);
    let before = || refused(format!("{text:?} is before 1970"));
    if let Some(ago) = text.strip_prefix('-').or_else(|| text.strip_suffix(" ago")) {
        let ago = ago_ms(ago.trim()).ok_or_else(|| refused(format!("{text:?} does not say how long ago")))?;
        return now.0.checked_sub(ago).map(|at| Some((Moment(at), false))).ok_or_else(before);
    }
    let Some((timestamp, is_zone_assumed)) = time(text) else { return Ok(None) };
    let at = u64::try_from(timestamp.as_millisecond()).map_err(|_| before())?;
    Ok(Some((Moment(at), is_zone_assumed)))
}

impl At {
    /// What is meant, where it is `now`. A time in whole seconds lasts to the end of its second, as times are shown.
    ///
    /// # Errors
    /// Refused where it is none of these.
    pub fn parse(text: &str, now: Moment) -> Result<At> {
        let text = text.trim();
        let refused = |says: String| Error::refused(says).hint(HOW);
        if text == "latest" {
            return Ok(At::Latest);
        }
        if let Some(tag) = text.strip_prefix("tag:") {
            return match tag.is_empty() {
                true => Err(refused("tag: is followed by no name".to_owned())),
                false => Ok(At::Tag(tag.to_owned())),
            };
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            let number = text.parse().map_err(|_| refused(format!("{text} is no number of a point")))?;
            return Ok(At::Number(number));
        }
        match moment(text, now, HOW)? {
            // That many minutes ago is no second that lasts.
            Some((moment, _)) if text.starts_with('-') || text.ends_with(" ago") => {
                Ok(At::Time { moment, is_zone_assumed: false })
            }
            Some((moment, is_zone_assumed)) => Ok(At::Time { moment: to_the_end(moment), is_zone_assumed }),
            None => Err(refused(format!("{text:?} does not say which point"))),
        }
    }
}

/// `15m`, `1h30m`, in milliseconds.
fn ago_ms(text: &str) -> Option<u64> {
    let mut sum: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let end = digits + rest[digits..].chars().next()?.len_utf8();
        let part = u64::try_from(duration(&rest[..end])?.as_millis()).ok()?;
        sum = sum.checked_add(part)?;
        rest = &rest[end..];
    }
    (sum > 0).then_some(sum)
}

/// A time, and whether its zone was taken for UTC. A date alone is none: midnight is rarely meant.
fn time(text: &str) -> Option<(Timestamp, bool)> {
    if !text.contains(':') {
        return None;
    }
    // As it is shown, too.
    let zoned = text.strip_suffix(" UTC").map(|text| format!("{text}Z"));
    if let Ok(timestamp) = zoned.as_deref().unwrap_or(text).parse::<Timestamp>() {
        return Some((timestamp, false));
    }
    let time: DateTime = text.parse().ok()?;
    Some((Offset::UTC.to_timestamp(time).ok()?, true))
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Latest => f.write_str("latest"),
            At::Number(number) => write!(f, "{number}"),
            At::Time { moment, .. } => write!(f, "{moment}"),
            At::Tag(tag) => write!(f, "tag:{tag}"),
        }
    }
}

/// A point by its machine's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointName {
    /// Whose.
    pub machine: Name,
    /// Which.
    pub at: At,
}

/// What a source begins with that is a point.
const SCHEME: &str = "point:";

impl PointName {
    /// The point that a source names; `None` where it is no point but a path.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn of_source(source: &str, now: Moment) -> Result<Option<PointName>> {
        source.strip_prefix(SCHEME).map(|rest| PointName::parse(rest, now)).transpose()
    }

    /// `MACHINE` or `MACHINE@AT`, with `point:` before it or not.
    ///
    /// # Errors
    /// Refused where the machine can have no such name, or [`At::parse`] refuses.
    pub fn parse(text: &str, now: Moment) -> Result<PointName> {
        let text = text.strip_prefix(SCHEME).unwrap_or(text);
        // Names of machines and tags may have an @, and names have no colon.
        let cut = text.find("@tag:").or_else(|| text.rfind('@'));
        let (machine, at) = match cut {
            Some(cut) => (&text[..cut], At::parse(&text[cut + 1..], now)?),
            None => (text, At::Latest),
        };
        Ok(PointName { machine: machine.parse()?, at })
    }

    /// The point that is named in two words, `MACHINE` and `AT`, or in one.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn of_words(machine: &str, at: Option<&str>, now: Moment) -> Result<PointName> {
        match at {
            Some(at) => Ok(PointName { machine: machine.parse()?, at: At::parse(at, now)? }),
            None => PointName::parse(machine, now),
        }
    }
}

/// What is chosen by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Larger ones are younger.
    pub number: u64,
    /// When it was set.
    pub at: Moment,
    /// The name that somebody gave to it.
    pub tag: Option<String>,
}

/// The number of the point that is meant, of those that `machine` has.
///
/// # Errors
/// Refused where there is none, with what there is.
pub fn choose(machine: &Name, points: &[Candidate], at: &At) -> Result<u64> {
    let newest =
        |is_it: &dyn Fn(&&Candidate) -> bool| points.iter().filter(is_it).max_by_key(|point| point.number);
    let Some(last) = newest(&|_| true) else {
        return Err(Error::refused(format!("{machine} has no recovery point"))
            .hint("landfall status tells what is missing"));
    };
    let found = match at {
        At::Latest => Some(last),
        At::Number(number) => newest(&|point| point.number == *number),
        At::Time { moment, .. } => newest(&|point| point.at <= *moment),
        At::Tag(tag) => newest(&|point| point.tag.as_ref() == Some(tag)),
    };
    if let Some(found) = found {
        return Ok(found.number);
    }
    let oldest = points.iter().min_by_key(|point| point.number).unwrap_or(last);
    let (says, hint) = match at {
        At::Time { moment, .. } => {
            let says = format!("{machine} has no point as old as {moment}");
            (says, format!("its oldest is {} of {}; ", oldest.number, oldest.at))
        }
        At::Tag(tag) => {
            let mut tags: Vec<&str> = points.iter().filter_map(|point| point.tag.as_deref()).collect();
            tags.dedup();
            let there = if tags.is_empty() {
                "none of its points has a name".to_owned()
            } else {
                format!("there are {}", tags.join(", "))
            };
            (format!("{machine} has no point with the name {tag:?}"), format!("{there}; "))
        }
        At::Latest | At::Number(_) => (
            format!("{machine} has no point {at} (any more)"),
            format!("it has {} points, from {} to {}; ", points.len(), oldest.number, last.number),
        ),
    };
    Err(Error::refused(says).hint(format!("{hint}landfall points list {machine} shows them all")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-29 14:03:05 UTC
    const NOW: Moment = Moment(1_795_960_985_000);

    fn at(text: &str) -> Result<At> {
        At::parse(text, NOW)
    }

    fn time(ms: u64, is_zone_assumed: bool) -> At {
        At::Time { moment: Moment(ms), is_zone_assumed }
    }

    #[test]
    fn every_way_to_name_a_point_is_understood() {
        for (text, wanted) in [
            ("latest", At::Latest),
            ("1234", At::Number(1234)),
            ("0", At::Number(0)),
            ("2026-11-29T14:03:05Z", time(NOW.0 + 999, false)),
            ("2026-11-29T15:03:05+01:00", time(NOW.0 + 999, false)),
            ("2026-11-29T14:03:05.123Z", time(NOW.0 + 123, false)),
            ("2026-11-29 14:03:05 UTC", time(NOW.0 + 999, false)),
            ("2026-11-29 14:03:05", time(NOW.0 + 999, true)),
            ("2026-11-29T14:03:05", time(NOW.0 + 999, true)),
            (" 2026-11-29 14:03 ", time(NOW.0 - 5000 + 999, true)),
            ("-15m", time(NOW.0 - 900_000, false)),
            ("15m ago", time(NOW.0 - 900_000, false)),
            ("-1h30m", time(NOW.0 - 5_400_000, false)),
            ("-1w2d", time(NOW.0 - 9 * 86_400_000, false)),
            ("tag:before the update @ night", At::Tag("before the update @ night".into())),
        ] {
            assert_eq!(at(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_says_nothing_is_refused() {
        for text in [
            "",
            "newest",
            "tag:",
            "-",
            "-15",
            "-0m",
            "-m",
            "-1h30",
            "-1ü",
            "--1m",
            "-99999999999999999999y",
            "-9999999999y",
            "99999999999999999999",
            "2026-11-29",
            "14:03",
            "2026-13-29T14:03:05Z",
            "1969-12-31T23:59:59Z",
            "2026-11-29T14:03:05 CET",
        ] {
            let error = at(text).unwrap_err();
            assert!(
                error.kind() == landfall_image::Kind::Refused && error.hint_text().is_some(),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn spans_begin_and_end_with_times_of_all_forms() {
        for (text, first, last) in [
            ("2026-11-29T14:03:05Z", NOW.0, NOW.0 + 999),
            ("2026-11-29 14:03:05 UTC", NOW.0, NOW.0 + 999),
            ("2026-11-29 14:03", NOW.0 - 5000, NOW.0 - 5000 + 999),
            ("2026-11-29T14:03:05.123", NOW.0 + 123, NOW.0 + 123),
            ("-15m", NOW.0 - 900_000, NOW.0 - 900_000 + 999),
        ] {
            assert_eq!((since(text, NOW).unwrap().0, until(text, NOW).unwrap().0), (first, last), "{text}");
        }
        for text in ["", "latest", "7", "tag:a", "yesterday", "-15", "1969-12-31T23:59:59Z"] {
            let error = since(text, NOW).unwrap_err();
            assert!(error.hint_text().unwrap().contains("2026-11-29 14:03;"), "{text}: {error}");
        }
    }

    #[test]
    fn a_point_is_named_in_one_word_or_two() {
        let of = |machine: &str, at: Option<&str>| PointName::of_words(machine, at, NOW);
        let seventh = PointName { machine: "web01".parse().unwrap(), at: At::Number(7) };
        assert_eq!(of("web01@7", None).unwrap(), seventh);
        assert_eq!(of("web01", Some("7")).unwrap(), seventh);
        assert_eq!(of("web01", None).unwrap().at, At::Latest);
        let own = of("a@b", Some("2026-11-29 14:03")).unwrap();
        assert_eq!((own.machine.as_str(), own.at), ("a@b", time(NOW.0 - 5000 + 999, true)));
        assert!(of("web01@yesterday", None).is_err());
    }

    #[test]
    fn names_and_tags_may_have_the_sign_that_parts_them() {
        for (text, machine, wanted) in [
            ("web01", "web01", At::Latest),
            ("web01@7", "web01", At::Number(7)),
            ("point:web01@latest", "web01", At::Latest),
            ("a@b@7", "a@b", At::Number(7)),
            ("a@b@tag:c@d", "a@b", At::Tag("c@d".into())),
            ("web 01 (old)@-5s", "web 01 (old)", time(NOW.0 - 5000, false)),
        ] {
            let name = PointName::parse(text, NOW).unwrap();
            assert_eq!((name.machine.as_str(), name.at), (machine, wanted), "{text}");
        }
        for text in ["", "@latest", "../x@latest", "web01@", "a:b"] {
            assert!(PointName::parse(text, NOW).is_err(), "{text}");
        }
        assert_eq!(PointName::of_source("web01.vmx", NOW).unwrap(), None);
        assert_eq!(PointName::of_source("./point:web01", NOW).unwrap(), None);
        assert!(PointName::of_source("point:web01", NOW).unwrap().is_some());
        assert!(PointName::of_source("point:", NOW).is_err());
    }

    #[test]
    fn the_newest_that_fits_is_chosen() {
        let machine: Name = "web01".parse().unwrap();
        let point = |number, at, tag: &str| Candidate {
            number,
            at: Moment(at),
            tag: Some(tag.to_owned()).filter(|tag| !tag.is_empty()),
        };
        // The clock was set back between the second and the third.
        let points = [point(5, 1000, "a"), point(9, 3000, ""), point(12, 2000, "a"), point(20, 4000, "b")];
        let chosen = |at: At| choose(&machine, &points, &at);
        for (at, wanted) in [
            (At::Latest, 20),
            (At::Number(9), 9),
            (time(2500, false), 12),
            (time(2000, true), 12),
            (time(1999, false), 5),
            (time(u64::MAX, false), 20),
            (At::Tag("a".into()), 12),
        ] {
            assert_eq!(chosen(at.clone()).unwrap(), wanted, "{at:?}");
        }
        for (at, hint) in [
            (At::Number(6), "4 points, from 5 to 20"),
            (time(999, false), "its oldest is 5 of 1970-01-01 00:00:01 UTC"),
            (At::Tag("c".into()), "there are a, "),
        ] {
            let error = chosen(at.clone()).unwrap_err();
            assert!(error.hint_text().unwrap().contains(hint), "{at:?}: {}", error.hint_text().unwrap());
        }
        assert!(choose(&machine, &[], &At::Latest).unwrap_err().says().contains("no recovery point"));
    }
}
