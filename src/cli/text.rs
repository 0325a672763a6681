//! Failures, findings and explanations as text or JSON.

use crate::ops::Failure;
use crate::report;
use landfall_boot::check::{self, Finding, Severity};
use landfall_image::Error;
use serde_json::json;

/// Prints a failure where a person (standard error) or a program (standard output) looks for it.
pub fn failure(failure: &Failure, as_json: bool) {
    match failure {
        Failure::Findings(findings) => {
            if as_json {
                print_json(
                    &json!({ "version": report::VERSION, "outcome": "refused", "findings": findings }),
                );
            } else {
                eprintln!("Refused; nothing was written.");
                self::findings(findings, &mut |line| eprintln!("{line}"));
            }
        }
        Failure::Error(failed) => error(failed, as_json),
    }
}

/// Prints an error with its hint.
pub fn error(error: &Error, as_json: bool) {
    if as_json {
        print_json(&json!({
            "version": report::VERSION,
            "outcome": "failed",
            "error": {
                "kind": error.kind(),
                "says": error.says(),
                "path": error.path().map(|path| path.to_string_lossy()),
                "offset": error.offset(),
                "hint": error.hint_text(),
                "text": error.to_string(),
            },
        }));
        return;
    }
    eprintln!("landfall: {error}");
    if let Some(hint) = error.hint_text() {
        eprintln!("hint: {hint}");
    }
}

/// One JSON document on standard output.
pub fn print_json(value: &serde_json::Value) {
    println!("{value:#}");
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Blocks => "BLOCKS",
        Severity::Warns => "warns",
        Severity::Notes => "note",
    }
}

/// `text` in lines of at most 100 characters, broken at blanks.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 {
            let fits = width + 1 + length <= 100;
            out.push(if fits { ' ' } else { '\n' });
            width = if fits { width + 1 } else { 0 };
        }
        out.push_str(word);
        width += length;
    }
    out
}

/// Findings as lines, the worst first.
pub fn findings(findings: &[Finding], line: &mut dyn FnMut(String)) {
    for finding in findings {
        line(format!("  {}: {} [{}]", severity(finding.severity), finding.says, finding.id));
        if !finding.remedy.is_empty() {
            line(format!("      fix: {}", finding.remedy));
        }
    }
}

/// `landfall explain`
pub fn explain(id: Option<&str>, as_json: bool) -> u8 {
    let rows: Vec<_> = match id {
        None => check::TABLE.iter().collect(),
        Some(id) => check::explain(id).into_iter().collect(),
    };
    if rows.is_empty() {
        eprintln!("landfall: there is no finding with the id {:?}", id.unwrap_or_default());
        eprintln!("hint: landfall explain lists all of them");
        return 1;
    }
    if as_json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| json!({ "id": row.id, "severity": row.severity, "text": row.text }))
            .collect();
        print_json(&json!({ "version": report::VERSION, "findings": rows }));
    } else if id.is_none() {
        for row in rows {
            let first = row.text.split_inclusive(". ").next().unwrap_or(row.text).trim();
            println!("{:<34} {first}", row.id);
        }
    } else {
        for row in rows {
            println!("{} ({})\n\n{}", row.id, severity(row.severity), wrapped(row.text));
        }
    }
    0
}
