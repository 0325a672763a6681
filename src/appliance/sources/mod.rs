//! Settings that a hypervisor gives: documents on a medium that it attaches, read as text and never run.

use super::settings::Settings;
use serde::{Deserialize, Serialize};

/// What a source gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Which source it is, and which edition.
    pub identity: Identity,
    /// What it says.
    pub settings: Settings,
    /// What is wrong with it and so left out, for people.
    pub notes: Vec<String>,
    /// Names of what it says beyond settings, and is not heeded.
    pub unread: Vec<String>,
}

/// A source's edition: it is taken once, and again when one of these is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// `OVF environment`, `NoCloud`, `ConfigDrive`.
    pub source: String,
    /// The instance's id, where it has one.
    pub instance: Option<String>,
    /// BLAKE3 of its documents.
    pub digest: String,
}
