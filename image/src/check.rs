//! What a check of an image's own structures finds, in terms that all formats share.
//!
//! A check reads tables and metadata, never the data that they point at, and repairs nothing: the source is not
//! altered. Every format has its own in its own folder.

use crate::units::{Bytes, FileOffset};

/// How bad a problem is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ProblemSeverity")]
pub enum Severity {
    /// Unusual, and of no consequence for the data: a log to be replayed, a mark that the image was not closed.
    Note,
    /// Space that nothing refers to. No data is lost.
    Leak,
    /// The image contradicts itself: data is lost or may be wrong.
    Corrupt,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The field, its value and the bound, in the format's own terms.
    pub says: String,
    /// Where in the file.
    pub at: Option<FileOffset>,
}

/// Problems kept with their text; more are only counted. A damaged image can have millions.
pub const PROBLEMS_KEPT: usize = 100;

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Checked {
    /// The first [`PROBLEMS_KEPT`] problems, as they were found.
    pub problems: Vec<Problem>,
    /// Problems by severity, those without a text included: notes, leaks, corruptions.
    pub counts: [u64; 3],
    /// Bytes of the disk that the image has room for data for, as far as its tables say.
    pub allocated: Bytes,
}

impl Checked {
    /// Adds a problem.
    pub fn add(&mut self, severity: Severity, says: impl Into<String>, at: Option<FileOffset>) {
        self.add_with(severity, at, || says.into());
    }

    /// Adds a problem of a table that can have millions of them: its text is only made where it is kept.
    pub fn add_with(&mut self, severity: Severity, at: Option<FileOffset>, says: impl FnOnce() -> String) {
        self.counts[severity as usize] += 1;
        if self.problems.len() < PROBLEMS_KEPT {
            self.problems.push(Problem { severity, says: says(), at });
        }
    }

    /// Problems of that severity, those without a text included.
    pub fn count(&self, severity: Severity) -> u64 {
        self.counts[severity as usize]
    }
}

#[cfg(test)]
impl Checked {
    /// A test's demand: a problem of that severity with those words, and nothing worse than it.
    pub fn must_say(&self, severity: Severity, words: &str) {
        let mut problems = self.problems.iter();
        let named = problems.any(|problem| problem.severity == severity && problem.says.contains(words));
        assert!(named, "{words}: {self:?}");
        assert!(severity == Severity::Corrupt || self.count(Severity::Corrupt) == 0, "{words}: {self:?}");
    }
}
