//! Moments: milliseconds since 1970 in files, RFC 3339 in JSON, UTC for people.

use jiff::Timestamp;
use landfall_image::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Now, by the machine's clock.
    pub fn now() -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// From an earlier moment to this one; nothing where it is none.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// `2026-11-29T14:03:05.123Z`
    pub fn rfc3339(self) -> String {
        format!("{:.3}", self.timestamp())
    }

    fn timestamp(self) -> Timestamp {
        i64::try_from(self.0)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
            .unwrap_or(Timestamp::MAX)
    }
}

impl fmt::Display for Moment {
    /// `2026-11-29 14:03:05 UTC`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.timestamp().strftime("%Y-%m-%d %H:%M:%S UTC"))
    }
}

impl FromStr for Moment {
    type Err = Error;

    /// `2026-11-29T14:03:05Z`, and as it is shown.
    ///
    /// # Errors
    /// Refused where it is no moment since 1970, or its time zone is not said.
    fn from_str(text: &str) -> Result<Moment> {
        let zoned = text.strip_suffix(" UTC").map(|text| format!("{text}Z"));
        let timestamp: Option<Timestamp> = zoned.as_deref().unwrap_or(text).parse().ok();
        let moment = timestamp.and_then(|at| u64::try_from(at.as_millisecond()).ok()).map(Moment);
        moment.ok_or_else(|| {
            Error::refused(format!("{text:?} is no moment")).hint(
                "write it like 2026-11-29T14:03:05Z, or with another time zone: 2026-11-29T15:03:05+01:00",
            )
        })
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.3}", self.timestamp()))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Moment, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_and_read() {
        let moment = Moment(1_795_960_985_123);
        assert_eq!(moment.to_string(), "2026-11-29 14:03:05 UTC");
        let json = serde_json::to_string(&moment).unwrap();
        assert_eq!(json, "\"2026-11-29T14:03:05.123Z\"");
        assert_eq!(serde_json::from_str::<Moment>(&json).unwrap(), moment);
        assert!(serde_json::from_str::<Moment>("\"1969-01-01T00:00:00Z\"").is_err());
        assert!(!Moment(u64::MAX).to_string().is_empty());
    }
}
