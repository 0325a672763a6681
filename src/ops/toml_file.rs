//! Files that a person writes for landfall (maps, fleets): TOML in which every key is known, and complaints that name the
//! line and what was probably meant.

use landfall_image::{Error, Result};
use serde::de::DeserializeOwned;
use std::path::Path;

/// Thousands of machines with a rule each fit.
const AT_MOST: u64 = 4 << 20;

/// A complaint about a place in the file.
pub struct Wrong {
    says: String,
    hint: Option<String>,
    /// Offset in the text, in bytes.
    at: usize,
}

/// Complains about the place `at`, in bytes from the start of the text.
pub fn wrong(at: usize, says: impl Into<String>) -> Wrong {
    Wrong { says: says.into(), hint: None, at }
}

impl Wrong {
    /// What to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// As an error, with the line in `text`.
    pub fn in_text(self, text: &str) -> Error {
        let error = Error::refused(format!("line {}: {}", line(text, self.at), self.says));
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// The line, from 1, of an offset in bytes.
pub fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The text of the file at `path`, and its name for messages.
pub fn read(path: &Path) -> Result<(String, String)> {
    let source = landfall_image::Source::open(path)?;
    if source.len().0 > AT_MOST {
        return Err(Error::refused(format!("has {}; such a file has at most {AT_MOST} bytes", source.len()))
            .in_file(path));
    }
    let bytes = source.head(usize::try_from(source.len().0).unwrap_or(usize::MAX))?;
    let text = String::from_utf8(bytes).map_err(|_| Error::refused("is not UTF-8").in_file(path))?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok((text, name))
}

/// The values in `text`.
///
/// # Errors
/// Refused, with the line, where it is no TOML, or has keys or types that are not known.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let complaint = wrong(error.span().map_or(0, |span| span.start), error.message().trim());
        let hint = nearest(error.message()).map(|key| format!("did you mean {key}?"));
        match hint.or_else(|| as_list(error.message())) {
            Some(hint) => complaint.hint(hint),
            None => complaint,
        }
        .in_text(text)
    })
}

/// serde lists the keys that it knows; the nearest one is probably meant.
fn nearest(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.contains("unknown field").then(|| quoted.next())??;
    let known: Vec<&str> = quoted.collect();
    similar::get_close_matches(unknown, &known, 1, 0.6).first().map(|key| (*key).to_owned())
}

/// What a list has to look like, where one was expected.
fn as_list(message: &str) -> Option<String> {
    let given = message.strip_suffix(", expected a sequence")?;
    match given.strip_prefix("invalid type: ")?.split_once(' ') {
        None if given.ends_with("map") => {
            Some("write it in double brackets: [[rule]], [[machine]]".to_owned())
        }
        Some(("string", text)) => Some(format!("write [{text}]")),
        _ => None,
    }
}
