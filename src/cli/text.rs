//! Failures, findings and explanations as text or JSON.

use crate::ops::Failure;
use crate::report::VERSION;
use crate::report::failure::{Explained, Failed};
use crate::schema;
use landfall_boot::check::{Finding, Severity};
use landfall_image::Error;
use serde_json::Map;
use std::io::{ErrorKind, Write};

/// Text on standard output, its last line complete.
pub fn print(text: &str) -> Result<(), Error> {
    write_out(plain(text).as_bytes())
}

/// One JSON document on standard output.
pub fn print_json(document: &impl serde::Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(document).map_err(|e| Error::corrupt(e.to_string()))?;
    text.push('\n');
    write_out(text.as_bytes())
}

fn write_out(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    unless_hung_up(written.map_err(|e| Error::io("cannot write to standard output", e)))
}

/// Empties the terminal's screen, for what is shown again and again.
pub fn clear_screen() -> Result<(), Error> {
    write_out(b"\x1b[H\x1b[2J")
}

/// A reader that has seen enough (`| head`) is no failure.
pub fn unless_hung_up(written: Result<(), Error>) -> Result<(), Error> {
    match written {
        Err(error) if error.io_error().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => Ok(()),
        written => written,
    }
}

/// A line on standard error. Nobody may be there to read it any more: that must not stop the work.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", plain(line));
}

/// An error and its hint, for a person.
pub fn say_error(error: &landfall_image::Error) {
    say(&format!("landfall: {error}"));
    if let Some(hint) = error.hint_text() {
        say(&format!("hint: {hint}"));
    }
}

/// `text` without what could steer a terminal: names in it come from images, definitions and guests.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '.' } else { c }).collect()
}

/// Prints a failure where a person (standard error) or a program (standard output) looks for it.
pub fn failure(failure: &Failure, as_json: bool) {
    match failure {
        _ if as_json => {
            if let Err(error) = print_json(&Failed::from(failure)) {
                say(&format!("landfall: {error}"));
            }
        }
        Failure::Findings(findings) => {
            say("Refused; nothing was written.");
            self::findings(findings, &mut |line| say(&line));
            say("landfall explain ID tells more about a finding.");
        }
        Failure::Error(error) => say_error(error),
    }
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
    let mut findings: Vec<&Finding> = findings.iter().collect();
    findings.sort_by_key(|finding| finding.severity);
    for finding in findings {
        line(format!("  {}: {} [{}]", severity(finding.severity), finding.says, finding.id));
        if !finding.remedy.is_empty() {
            line(format!("      fix: {}", finding.remedy));
        }
    }
}

/// `landfall explain`
pub fn explain(id: Option<&str>, as_json: bool) -> Result<u8, Error> {
    let rows: Vec<_> = match id {
        None => crate::finding::all(),
        Some(id) => crate::finding::explain(id).into_iter().collect(),
    };
    if rows.is_empty() {
        return Err(Error::refused(format!("there is no finding with the id {:?}", id.unwrap_or_default()))
            .hint("landfall explain lists all of them"));
    }
    if as_json {
        let findings = rows.into_iter().map(Into::into).collect();
        print_json(&Explained { version: VERSION, findings })?;
        return Ok(0);
    }
    let mut out = String::new();
    for row in rows {
        out.push_str(&match id {
            None => {
                let first = row.text.split_inclusive(". ").next().unwrap_or(row.text).trim();
                format!("{:<34} {first}\n", row.id)
            }
            Some(_) => format!("{} ({})\n\n{}\n", row.id, severity(row.severity), wrapped(row.text)),
        });
    }
    print(&out)?;
    Ok(0)
}

/// `landfall schema`
pub fn schema(name: Option<&str>, as_json: bool) -> Result<u8, Error> {
    match name.and_then(schema::find) {
        Some(row) => print_json(&row.schema())?,
        None if as_json => {
            let all: Map<_, _> = schema::TABLE.iter().map(|row| (row.name.into(), row.schema())).collect();
            print_json(&all)?;
        }
        None => {
            let lines = schema::TABLE.iter().map(|row| format!("{:<14} {}\n", row.name, row.says));
            print(&lines.collect::<String>())?;
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2J\r\nb\tc\u{9b}m"), "a.[2J.\nb\tc.m");
    }
}
