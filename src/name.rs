//! Names of protected machines and of their disks: they become names of folders and of exports, and come from strangers.

use landfall_image::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest name in bytes: exports are called `MACHINE/DISK`, and clients show both in one line.
const LEN_AT_MOST: usize = 100;

/// Besides letters, digits and single spaces: what inventories are full of, and neither a path nor a shell reads more into.
const PUNCTUATION: &str = "-_.+@()#,&=[]{}~!'";

/// A name that is safe as the name of a folder: letters and digits of any script, `-_.+@()#,&=[]{}~!'`, and single spaces inside. It
/// neither begins with a dot nor ends with one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(with = "String")]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    /// # Errors
    /// Refused where it is not such a name.
    fn from_str(text: &str) -> Result<Name> {
        let is_allowed =
            |letter: char| letter.is_alphanumeric() || letter == ' ' || PUNCTUATION.contains(letter);
        let edge = |letter: Option<char>| letter.is_some_and(|letter| !". ".contains(letter));
        let is_name = text.len() <= LEN_AT_MOST
            && text.chars().all(is_allowed)
            && edge(text.chars().next())
            && edge(text.chars().next_back())
            && !text.contains("  ");
        match is_name {
            true => Ok(Name(text.to_owned())),
            false => Err(Error::refused(format!("{text:?} cannot be the name of a machine or disk")).hint(
                format!(
                    "use letters, digits, single spaces and {PUNCTUATION}, {LEN_AT_MOST} bytes at most, and no dot at the beginning or end"
                ),
            )),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Name> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_of_their_folder() {
        for good in ["web01", "Datenbank Süd", "a", "vm-1.disk_0", "c++@x", "日本", "web01 (old), #2"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        let long = "a".repeat(101);
        for bad in [
            "", ".", "..", "../x", "a/b", "a\\b", "a\0", "a\n", ".hidden", "a.", " a", "a ", "a  b", "a:b",
            "*", &long,
        ] {
            let error = bad.parse::<Name>().unwrap_err();
            assert!(error.hint_text().is_some(), "{bad:?}");
        }
    }
}
