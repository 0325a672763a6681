//! Which point of a machine is meant: `1234`, `latest`, `tag:before the upgrade`, `2026-11-29T14:03:05Z`, `2026-11-29 14:03`, `-10m`.

use super::Service;
use crate::moment::Moment;
use crate::name::Name;
use crate::ops::source::point::At;
use crate::report::protection::Point;
use landfall_image::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Which point of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one with this number.
    Number(u64),
    /// The newest.
    Latest,
    /// The newest with this name.
    Tag(String),
    /// The newest that is not younger than this. A moment in whole seconds lasts to the end of its second, as times are shown.
    At(Moment),
}

impl FromStr for Which {
    type Err = Error;

    /// As [`At::parse`], at this moment.
    ///
    /// # Errors
    /// Refused where it is none of the forms.
    fn from_str(text: &str) -> Result<Which> {
        Ok(match At::parse(text, Moment::now())? {
            At::Latest => Which::Latest,
            At::Number(number) => Which::Number(number),
            At::Tag(tag) => Which::Tag(tag),
            At::Time { moment, .. } => Which::At(moment),
        })
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Number(number) => write!(f, "{number}"),
            Which::Latest => f.write_str("latest"),
            Which::Tag(tag) => write!(f, "tag:{tag}"),
            Which::At(moment) => write!(f, "{moment}"),
        }
    }
}

impl Service {
    /// The point that is meant.
    ///
    /// # Errors
    /// Refused where there is no such machine or point.
    pub fn point(&self, name: &Name, which: &Which) -> Result<Point> {
        let points = self.points(name)?;
        let (oldest, count) = (points.first().map(|point| point.at), points.len());
        let mut newest_first = points.into_iter().rev();
        let found = match which {
            Which::Number(number) => newest_first.find(|point| point.number == *number),
            Which::Latest => newest_first.next(),
            Which::Tag(tag) => newest_first.find(|point| point.tag.as_ref() == Some(tag)),
            Which::At(moment) => newest_first.find(|point| point.at <= *moment),
        };
        found.ok_or_else(|| {
            let hint = match (which, oldest) {
                (_, None) => format!("landfall status says why {name} has none"),
                (Which::At(_), Some(oldest)) => format!("its oldest point was set at {oldest}"),
                _ => format!("landfall points list {name} shows the {count} that there are"),
            };
            let says = match which {
                Which::Latest => format!("{name} has no point"),
                Which::Number(number) => format!("{name} has no point {number}"),
                Which::Tag(tag) => format!("{name} has no point with the name {tag:?}"),
                Which::At(moment) => format!("{name} has no point of {moment} or before"),
            };
            Error::refused(says).hint(hint)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_meant_by_number_name_and_time() {
        let parse = |text: &str| text.parse::<Which>();
        assert_eq!(parse("1234").unwrap(), Which::Number(1234));
        assert_eq!(parse(" latest ").unwrap(), Which::Latest);
        assert_eq!(parse("tag:a b: c").unwrap(), Which::Tag("a b: c".into()));
        let at = Which::At(Moment(1_795_960_985_999));
        for text in [
            "2026-11-29T14:03:05Z",
            "2026-11-29 14:03:05 UTC",
            "2026-11-29T15:03:05+01:00",
            "2026-11-29 14:03:05Z",
            "2026-11-29 14:03:05",
        ] {
            assert_eq!(parse(text).unwrap(), at, "{text}");
        }
        assert_eq!(parse("2026-11-29T14:03:05.123Z").unwrap(), Which::At(Moment(1_795_960_985_123)));
        // As it is shown, it is read.
        assert_eq!(parse(&at.to_string()).unwrap(), at);
        assert_eq!(parse("2026-11-29 14:03").unwrap(), Which::At(Moment(1_795_960_980_999)));
        for text in ["10m ago", "-10m"] {
            let Which::At(ago) = parse(text).unwrap() else { panic!() };
            assert!((599_000..=610_000).contains(&(Moment::now().0 - ago.0)), "{text}");
        }
        for bad in ["", "yesterday", "14:03", "-1", "m ago", "1969-01-01T00:00:00Z"] {
            let error = parse(bad).unwrap_err();
            assert!(error.hint_text().is_some(), "{bad}");
        }
    }
}
