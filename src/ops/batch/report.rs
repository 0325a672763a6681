//! What became of a fleet: one document for programs, one page for people.

use crate::ops::folder;
use crate::report::registration::Registration;
use crate::report::{self, Inspected};
use landfall_boot::check::{Finding, Severity};
use landfall_image::{Bytes, Error, Result};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// File names in the output folder.
const JSON: &str = "batch-report.json";
const HTML: &str = "batch-report.html";

/// What became of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Converted.
    Done,
    /// Converted by an earlier run, from the same source with the same options.
    AlreadyDone,
    /// It could be converted (a dry run).
    Planned,
    /// Something stands in the way; nothing was written.
    Refused,
    /// It failed: nothing was left, or, where it has a folder, it is converted and not registered.
    Failed,
    /// The run ended before its turn.
    NotStarted,
}

impl Outcome {
    /// In words.
    pub fn says(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::AlreadyDone => "done before",
            Outcome::Planned => "can be converted",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::NotStarted => "not started",
        }
    }
}

/// One machine of the fleet.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct MachineReport {
    /// Its name at the target; its source's path where that could not be read.
    pub name: String,
    /// Its definition.
    pub source: String,
    /// The target's name.
    pub target: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Where it lies.
    pub folder: Option<String>,
    /// What stands in the way, or is to be known.
    pub findings: Vec<Finding>,
    /// Why it failed or was refused, where that is no finding.
    pub error: Option<String>,
    /// What to do about that.
    pub hint: Option<String>,
    /// Size of its disks as the guest sees them.
    pub virtual_size: Bytes,
    /// What of that holds data.
    pub data: Bytes,
    /// What its disks take at the target.
    pub written: Bytes,
    /// Wall-clock time.
    pub seconds: f64,
    /// What came of its registration, where that was wanted and this run did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// The plan, of a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Inspected>,
}

impl MachineReport {
    /// One line for a person.
    pub fn line(&self) -> String {
        let why = match (&self.error, self.findings.iter().find(|one| one.severity == Severity::Blocks)) {
            (Some(error), _) => format!(": {error}"),
            (None, Some(finding)) => format!(": {} [{}]", finding.says, finding.id),
            (None, None) => String::new(),
        };
        let took =
            if self.outcome == Outcome::Done { format!(" in {:.1} s", self.seconds) } else { String::new() };
        format!("{}: {}{took}{}{why}", self.name, self.outcome.says(), self.registered())
    }

    /// As what it was registered; empty where it was not.
    pub fn registered(&self) -> String {
        let id = self.registration.as_ref().and_then(|one| Some((one.id.as_ref()?, one.started)));
        match id {
            None => String::new(),
            Some((id, false)) => format!(", registered as {id}"),
            Some((id, true)) => format!(", registered as {id} and started"),
        }
    }
}

/// Sums over a fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Totals {
    /// Converted, by this run or an earlier one; could be, in a dry run.
    pub done: usize,
    /// Refused.
    pub refused: usize,
    /// Failed.
    pub failed: usize,
    /// Not started.
    pub not_started: usize,
    /// Data on the disks of those that are to be written.
    pub data: Bytes,
    /// Written by this run.
    pub written: Bytes,
}

/// What became of a fleet.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct BatchReport {
    /// [`report::VERSION`]
    pub version: u32,
    /// When it began, in seconds since 1970.
    pub started_unix_seconds: u64,
    /// How long it took.
    pub seconds: f64,
    /// Where the machines lie.
    pub output: String,
    /// What was free there when it began.
    pub free: Bytes,
    /// Nothing was to be written.
    pub dry_run: bool,
    /// Sums.
    pub totals: Totals,
    /// The machines, in the fleet's order.
    pub machines: Vec<MachineReport>,
}

impl BatchReport {
    pub(super) fn new(
        started_unix_seconds: u64,
        took: Duration,
        output: &Path,
        free: Bytes,
        dry_run: bool,
        machines: Vec<MachineReport>,
    ) -> Self {
        let mut totals = Totals::default();
        for one in &machines {
            let count = match one.outcome {
                Outcome::Done | Outcome::AlreadyDone | Outcome::Planned => &mut totals.done,
                Outcome::Refused => &mut totals.refused,
                Outcome::Failed => &mut totals.failed,
                Outcome::NotStarted => &mut totals.not_started,
            };
            *count += 1;
            if one.outcome != Outcome::AlreadyDone {
                totals.data = Bytes(totals.data.0.saturating_add(one.data.0));
            }
            totals.written = Bytes(totals.written.0.saturating_add(one.written.0));
        }
        BatchReport {
            version: report::VERSION,
            started_unix_seconds,
            seconds: (took.as_secs_f64() * 1000.0).round() / 1000.0,
            output: output.display().to_string(),
            free,
            dry_run,
            totals,
            machines,
        }
    }

    /// 0 where every machine is done, 2 where one failed or was not started, 1 where one was refused.
    pub fn exit_code(&self) -> u8 {
        match self.totals {
            Totals { failed: 0, not_started: 0, refused: 0, .. } => 0,
            Totals { failed: 0, not_started: 0, .. } => 1,
            _ => 2,
        }
    }

    /// Writes both documents into the output folder, each at once.
    pub(super) fn write(&self, output: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self)
            .map_err(|e| Error::corrupt(format!("the report cannot be written as JSON: {e}")))?;
        folder::put(output, JSON, &(json + "\n"))?;
        folder::put(output, HTML, &self.html())
    }

    /// One page that needs nothing else: it is read at a site without a network.
    fn html(&self) -> String {
        let totals = &self.totals;
        let mut rows = String::new();
        for one in &self.machines {
            let (class, mut says) = match one.outcome {
                Outcome::Done | Outcome::AlreadyDone | Outcome::Planned => ("done", String::new()),
                Outcome::Refused => ("refused", String::new()),
                Outcome::Failed | Outcome::NotStarted => ("failed", String::new()),
            };
            if let Some(error) = &one.error {
                let _ = write!(says, "<p>{}</p>", escape(error));
            }
            if let Some(hint) = &one.hint {
                let _ = write!(says, "<p class=fix>{}</p>", escape(hint));
            }
            for finding in &one.findings {
                let severity = match finding.severity {
                    Severity::Blocks => "blocks",
                    Severity::Warns => "warns",
                    Severity::Notes => "note",
                };
                let _ = write!(
                    says,
                    "<p><b class={severity}>{severity}</b> {} <code>{}</code></p>",
                    escape(&finding.says),
                    escape(finding.id)
                );
                if !finding.remedy.is_empty() {
                    let _ = write!(says, "<p class=fix>{}</p>", escape(&finding.remedy));
                }
            }
            let _ = writeln!(
                rows,
                "<tr class={class}><td>{}<br><small>{}</small></td><td>{}</td><td>{}</td><td>{}</td><td>{:.1} s</td><td>{says}</td></tr>",
                escape(&one.name),
                escape(&one.source),
                escape(&one.target),
                escape(&format!("{}{}", one.outcome.says(), one.registered())),
                one.data,
                one.seconds
            );
        }
        crate::hypervisor::text::fill(
            include_str!("report.html"),
            &[
                ("@DONE@", totals.done.to_string()),
                ("@ALL@", self.machines.len().to_string()),
                ("@REFUSED@", totals.refused.to_string()),
                ("@FAILED@", (totals.failed + totals.not_started).to_string()),
                ("@OUTPUT@", escape(&self.output)),
                ("@WRITTEN@", totals.written.to_string()),
                ("@SECONDS@", format!("{:.0}", self.seconds)),
                ("@ROWS@", rows),
            ],
        )
    }
}

/// Names come from definitions and guests: none of them is a part of the page.
fn escape(text: &str) -> String {
    crate::hypervisor::xml::escape(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_part_of_the_page() {
        let one = MachineReport {
            name: "<script>alert(1)</script>@ROWS@".into(),
            source: "a\"b".into(),
            target: "kvm".into(),
            outcome: Outcome::Refused,
            folder: None,
            findings: vec![crate::finding::MAPPED.finding("<b>", "&")],
            error: Some("'x'".into()),
            hint: None,
            virtual_size: Bytes(0),
            data: Bytes(0),
            written: Bytes(0),
            seconds: 1.0,
            registration: None,
            plan: None,
        };
        let report = BatchReport::new(0, Duration::from_secs(1), Path::new("/o"), Bytes(0), false, vec![one]);
        let page = report.html();
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"), "{page}");
        assert_eq!(page.matches("<tr class=refused>").count(), 1);
        assert_eq!(report.exit_code(), 1);
    }
}
