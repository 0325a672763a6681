//! The documents of what was not done, and of what can be found.

use super::VERSION;
use crate::ops::Failure;
use landfall_boot::check::{Explanation, Finding, Severity};
use landfall_image::{Error, FileOffset, Kind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Any verb, where it did not do what was asked: with the findings that stand in the way, or with an error.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Failed {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// Which of the two exit codes.
    pub outcome: Outcome,
    /// What stands in the way; nothing was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings: Option<Vec<Finding>>,
    /// What failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Told>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "FailedOutcome")]
pub enum Outcome {
    /// The input was refused (exit code 1).
    Refused,
    /// Something failed (exit code 2).
    Failed,
}

/// An error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Error")]
pub struct Told {
    /// What sort of failure it is.
    pub kind: Kind,
    /// The failure in one sentence, without the file.
    pub says: String,
    /// The file it is about.
    pub path: Option<String>,
    /// Position in that file.
    pub offset: Option<FileOffset>,
    /// What can be done about it.
    pub hint: Option<String>,
    /// All of it in one line, for people.
    pub text: String,
}

impl From<&Error> for Told {
    fn from(error: &Error) -> Self {
        Told {
            kind: error.kind(),
            says: error.says().to_owned(),
            path: error.path().map(|path| path.to_string_lossy().into_owned()),
            offset: error.offset(),
            hint: error.hint_text().map(str::to_owned),
            text: error.to_string(),
        }
    }
}

impl From<Told> for Error {
    fn from(told: Told) -> Self {
        let error = Error::new(told.kind, told.text);
        match told.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl From<&Failure> for Failed {
    fn from(failure: &Failure) -> Self {
        let outcome = if failure.exit_code() == 1 { Outcome::Refused } else { Outcome::Failed };
        let mut failed = Failed { version: VERSION, outcome, findings: None, error: None };
        match failure {
            Failure::Findings(findings) => failed.findings = Some(findings.clone()),
            Failure::Error(error) => failed.error = Some(error.into()),
        }
        failed
    }
}

/// `landfall explain`
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explained {
    /// Version of the document: [`VERSION`].
    pub version: u32,
    /// One row, or all of them by id.
    pub findings: Vec<Row>,
}

/// What can be found.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Explanation")]
pub struct Row {
    /// Stable, kebab-case.
    pub id: &'static str,
    /// Severity that it always has.
    pub severity: Severity,
    /// What it means, why it matters and what to do.
    pub text: &'static str,
}

impl From<&Explanation> for Row {
    fn from(row: &Explanation) -> Self {
        Row { id: row.id, severity: row.severity, text: row.text }
    }
}
