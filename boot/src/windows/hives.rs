//! Hives in a guest's files: opened with their logs, and rewritten with a plan's edits.

use super::registry::Keys;
use crate::patch::RegistryEdit;
use crate::tree::GuestTree;
use crate::{Error, Result};

/// The hive in a file; `None` where there is no such file.
pub fn open(_tree: &dyn GuestTree, path: &str) -> Result<Option<Box<dyn Keys>>> {
    Err(Error::unsupported(format!("{path}: hives")))
}

/// The whole file with the edits in it.
pub fn edited(_tree: &dyn GuestTree, path: &str, _edits: &[RegistryEdit]) -> Result<Vec<u8>> {
    Err(Error::unsupported(format!("{path}: hives")))
}
