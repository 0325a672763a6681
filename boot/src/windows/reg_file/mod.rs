//! Registry editor files (.reg): what a user wants changed in a Windows guest's registry, as plain data.
//!
//! ```text
//! file -> text (lines) -> changes by hive and key (parse, roots) -> edits of the plan, the last of all (plan)
//! ```
//! Source: Microsoft, "How to add, modify, or delete registry subkeys and values by using a .reg file", and what
//! `regedit` writes: "Windows Registry Editor Version 5.00" in UTF-16 or UTF-8, and `REGEDIT4`.
//!
//! Deliberately absent: whatever would be a guess. Characters beyond ASCII in a `REGEDIT4` file depend on the code page of
//! the Windows that wrote it, hives that only a running Windows has cannot be edited, and a value that breaks off is not
//! taken as far as it goes. Each is refused with its line: a file is applied as a whole, or not at all.

mod lines;
mod parse;
mod plan;
mod roots;

pub use plan::plan;

use super::data::Data;
use crate::{Error, Result};
use landfall_image::Bytes;
use serde::{Deserialize, Serialize};

/// Longer files are refused: the whole of HKEY_LOCAL_MACHINE is no set of edits.
pub const FILE_AT_MOST: Bytes = Bytes::mib(16);

/// More changes than this are refused, too: each is a line of the report.
pub const CHANGES_AT_MOST: usize = 100_000;

/// The file's name and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryFile {
    /// As findings and edits call it: `site-b.reg`.
    pub name: String,
    /// In the file's order.
    pub changes: Vec<Change>,
}

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Counted from 1.
    pub line: usize,
    /// The hive that holds the key.
    pub hive: Hive,
    /// Below the hive's root. In [`Hive::System`] it may begin with `CurrentControlSet`, which stands for the one that the
    /// guest starts from.
    pub key: String,
    /// What is done.
    pub what: What,
}

/// What a line does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The key is there.
    Create,
    /// The key is gone with all below it.
    Delete,
    /// A value of it is this.
    Set {
        /// Name, empty for the default value.
        name: String,
        /// Type number.
        kind: u32,
        /// As they lie in a hive.
        bytes: Vec<u8>,
    },
    /// A value of it is gone.
    DeleteValue {
        /// Name, empty for the default value.
        name: String,
    },
}

impl What {
    fn set(name: String, data: Data) -> What {
        What::Set { name, kind: data.kind, bytes: data.bytes }
    }
}

/// Hives that lie in files of a guest that does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hive {
    /// `HKEY_LOCAL_MACHINE\SYSTEM`
    System,
    /// `HKEY_LOCAL_MACHINE\SOFTWARE`, with `HKEY_CLASSES_ROOT` in its `Classes`.
    Software,
    /// `HKEY_LOCAL_MACHINE\SAM`
    Sam,
    /// `HKEY_LOCAL_MACHINE\SECURITY`
    Security,
    /// `HKEY_LOCAL_MACHINE\BCD00000000`: the boot configuration.
    Boot,
    /// `HKEY_USERS\.DEFAULT`, which is also `S-1-5-18`: the local system's.
    Default,
    /// `HKEY_USERS\S-1-5-19`
    LocalService,
    /// `HKEY_USERS\S-1-5-20`
    NetworkService,
}

impl RegistryFile {
    /// Reads a file's content; `name` is what findings call it.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) with the line, for whatever is not understood to the letter.
    pub fn parse(bytes: &[u8], name: &str) -> Result<RegistryFile> {
        if bytes.len() as u64 > FILE_AT_MOST.0 {
            return Err(Error::refused(format!(
                "holds {} bytes; at most {FILE_AT_MOST} are read",
                bytes.len()
            ))
            .hint("export the keys that are to be changed, not the whole registry"));
        }
        let text = lines::decode(bytes)?;
        Ok(RegistryFile { name: name.to_owned(), changes: parse::parse(&text)? })
    }
}

/// A refusal of a line.
fn refused(line: usize, says: impl std::fmt::Display) -> Error {
    Error::refused(format!("line {line}: {says}"))
}

#[cfg(test)]
mod merged;
#[cfg(test)]
mod tests;
