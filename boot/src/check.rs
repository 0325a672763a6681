//! Findings: what stands between a guest and a boot on the target, as values.
//!
//! Every finding's id has a row in [`TABLE`], which is what `landfall explain ID` prints. "Could not check" is a
//! finding of its own, never the same as "checked, bad".

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It will not start, or landfall cannot make it start.
    Blocks,
    /// It will start, but something is lost or needs a person.
    Warns,
    /// Good to know.
    Notes,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Row of [`TABLE`].
    pub id: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What was found, with names and values: one sentence.
    pub says: String,
    /// What fixes it, in the imperative mood: one sentence.
    pub remedy: String,
}

/// What `landfall explain` knows of an id.
pub struct Explanation {
    /// Stable, kebab-case: `linux-no-kernel`.
    pub id: &'static str,
    /// Severity that it always has.
    pub severity: Severity,
    /// What it means and why it matters, and what to do: a few sentences.
    pub text: &'static str,
}

/// Every finding that this crate can give, sorted by id.
pub const TABLE: &[Explanation] = &[];

/// The row of an id.
pub fn explain(id: &str) -> Option<&'static Explanation> {
    TABLE.iter().find(|row| row.id == id)
}

impl Finding {
    /// A finding of the row `id`, which gives its severity. An id without a row blocks (and fails a test).
    pub fn new(id: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        let severity = explain(id).map_or(Severity::Blocks, |row| row.severity);
        Finding { id, severity, says: says.into(), remedy: remedy.into() }
    }
}
