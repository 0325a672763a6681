//! A watched folder.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A drop that is being taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Where it lies.
    pub drop: PathBuf,
}
