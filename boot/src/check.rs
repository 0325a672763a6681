//! Findings: what stands between a guest and a boot on the target, as values.
//!
//! Every finding's id has a row in [`TABLE`], which is what `landfall explain ID` prints. "Could not check" is a
//! finding of its own, never the same as "checked, bad".

mod table;

use serde::Serialize;
use std::collections::BTreeMap;
pub use table::TABLE;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, schemars::JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Finding {
    /// What kind of finding it is, a row of [`TABLE`]: `landfall explain` tells more of it.
    pub id: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What was found, with names and values: one sentence.
    pub says: String,
    /// What fixes it, in the imperative mood: one sentence.
    pub remedy: String,
}

/// What `landfall explain` knows of an id.
#[derive(Clone, Copy)]
pub struct Explanation {
    /// Stable, kebab-case: `linux-no-kernel`.
    pub id: &'static str,
    /// Severity that it always has.
    pub severity: Severity,
    /// What it means and why it matters, and what to do: a few sentences.
    pub text: &'static str,
}

/// The row of an id.
pub fn explain(id: &str) -> Option<&'static Explanation> {
    TABLE.iter().find(|row| row.id == id)
}

impl Explanation {
    /// A finding of this row.
    pub fn finding(&self, says: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding {
            id: self.id,
            severity: self.severity,
            says: plain(says.into()),
            remedy: plain(remedy.into()),
        }
    }
}

impl Finding {
    /// A finding of the row `id`, which gives its severity. An id without a row blocks (and fails a test).
    pub fn new(id: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Self {
        const UNKNOWN: Explanation = Explanation { id: "", severity: Severity::Blocks, text: "" };
        Explanation { id, ..*explain(id).unwrap_or(&UNKNOWN) }.finding(says, remedy)
    }
}

/// More findings of one kind help nobody; a hostile guest could give a million.
const FINDINGS_PER_ID_AT_MOST: usize = 64;

/// The findings of a plan while it grows: no two of them alike, and not more of one kind than help.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    all: Vec<Finding>,
    /// How many an id has given.
    counts: BTreeMap<&'static str, usize>,
}

impl Findings {
    /// One finding.
    pub(crate) fn find(&mut self, id: &'static str, says: impl Into<String>, remedy: impl Into<String>) {
        let count = self.counts.entry(id).or_default();
        if *count > FINDINGS_PER_ID_AT_MOST {
            return;
        }
        let finding = match *count == FINDINGS_PER_ID_AT_MOST {
            true => Finding::new(id, "There are more findings of this kind than are listed.", remedy),
            false => Finding::new(id, says, remedy),
        };
        if !self.all.contains(&finding) {
            *count += 1;
            self.all.push(finding);
        }
    }

    /// All of them, the worst first.
    pub(crate) fn finish(mut self) -> Vec<Finding> {
        self.all.sort_by_key(|finding| finding.severity);
        self.all
    }
}

/// A guest's names may hold line ends and sequences that steer a terminal: shown, not obeyed.
fn plain(text: String) -> String {
    if !text.chars().any(char::is_control) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter.is_control() {
            true => out.extend(letter.escape_default()),
            false => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn the_table_is_sorted_and_speaks_in_sentences() {
        assert!(TABLE.windows(2).all(|pair| pair[0].id < pair[1].id));
        for row in TABLE.iter() {
            assert!(row.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", row.id);
            assert!(
                row.text.starts_with(|char: char| char.is_uppercase()
                    || row.text.starts_with("landfall")
                    || row.text.starts_with("systemd")
                    || row.text.starts_with("cloud-init")),
                "{}",
                row.id
            );
            assert!(
                row.text.ends_with('.') && !row.text.contains("  ") && !row.text.contains('\n'),
                "{}",
                row.id
            );
            assert!(row.text.matches(". ").count() >= 1, "{}: says what it means and what to do", row.id);
        }
    }

    /// What a row tells to do can be done.
    #[test]
    fn rows_name_what_there_is() {
        let sandbox = explain("sandbox-needed").unwrap().text;
        for part in ["qemu-system-x86_64", "bwrap", "tools/fetch-sandbox-kernel.sh"] {
            assert!(sandbox.contains(part), "{part}");
        }
        for row in TABLE.iter() {
            // It explains findings, no errors; and the firmware is the machine's own.
            assert!(!row.text.contains("landfall explain"), "{}", row.id);
            assert!(!row.text.contains("Convert with the firmware"), "{}", row.id);
        }
    }

    /// Every id that stands in this crate's code has a row, and every row is used.
    #[test]
    fn every_id_has_a_row_and_every_row_is_used() {
        let mut code = String::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
        let known: BTreeSet<&str> = TABLE.iter().map(|row| row.id).collect();
        for prefix in ["linux-", "guest-", "volume-", "windows-", "array-", "luks-", "boot-disk-"] {
            for (at, _) in code.match_indices(&format!("\"{prefix}")) {
                let Some(word) = code.get(at + 1..).and_then(|rest| rest.split('"').next()) else { continue };
                if word.len() > prefix.len()
                    && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
                {
                    assert!(known.contains(word) || NO_IDS.contains(&word), "{word} has no row");
                }
            }
        }
        for row in TABLE.iter() {
            assert!(code.contains(&format!("\"{}\"", row.id)), "{} is never given", row.id);
        }
    }

    /// Strings that look like ids.
    const NO_IDS: &[&str] = &[
        "linux-raid",
        "linux-cloud-tools-common",
        "linux-cloud-tools-virtual",
        "linux-lts",
        "windows-server",
    ];

    fn collect(folder: &Path, code: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, code);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("check.rs") {
                code.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
}
