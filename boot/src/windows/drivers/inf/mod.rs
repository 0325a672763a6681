//! INF files as text: sections of lines, each a key and fields (Microsoft, "General Syntax Rules for INF Files", "INF Strings
//! Section"). What the sections mean is read by [`super::package`] and [`install`].
//!
//! ```text
//! [Section]                      names in any case; a section that comes again goes on
//! key = field, "quoted ""so""", \   ; a comment, and the line goes on
//!     %token%                    a text of [Strings]; %% is a percent sign, %12% a folder
//! ```
//! UTF-16 with or without a mark, UTF-8, or else one byte a letter (as in ISO 8859-1: names of files and keys are ASCII).
//! Deliberately absent: `Include` and `Needs` of files that come with Windows, and languages: texts are those of [Strings],
//! and of [Strings.0409] and others where there they are missing.

pub mod decoration;
pub mod install;
pub mod registry;
#[cfg(test)]
mod tests;

use crate::{Error, Result};
use std::cell::Cell;
use std::collections::HashMap;

/// Letters of a field, before and after its tokens are replaced: what Windows takes (`MAX_INF_STRING_LENGTH`).
const FIELD_AT_MOST: usize = 4096;

/// Sections of one file; the largest of network cards have some thousand.
const SECTIONS_AT_MOST: usize = 16_384;

/// Lines, and fields, of one file.
const LINES_AT_MOST: usize = 1 << 17;
const FIELDS_AT_MOST: usize = 1 << 19;

/// Lines that are looked through, and letters that are put in, for one file in all. Real files take some ten thousand; a
/// file may name the same sections a thousand times.
const STEPS_AT_MOST: usize = 1 << 26;

/// One file.
#[derive(Debug, Default)]
pub struct Inf {
    sections: Vec<Section>,
    /// Places in `sections` by their names in lower case.
    places: HashMap<String, usize>,
    /// Texts by their tokens in lower case.
    strings: HashMap<String, String>,
    /// Steps so far: see [`STEPS_AT_MOST`].
    steps: Cell<usize>,
}

#[derive(Debug)]
struct Section {
    name: String,
    lines: Vec<Line>,
}

/// One line, with tokens as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// What stands before `=`.
    pub key: Option<String>,
    /// What stands between commas; none in an empty line.
    pub fields: Vec<String>,
}

impl Line {
    /// A field; empty where there is none.
    pub fn field(&self, index: usize) -> &str {
        self.fields.get(index).map_or("", String::as_str)
    }

    /// True where it has this key, in any case.
    pub fn is(&self, key: &str) -> bool {
        self.key.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(key))
    }
}

/// A number as INF files write it: `0x10`, `16`.
pub fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The text of a file, whatever it is encoded in.
fn decode(bytes: &[u8]) -> String {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        // Files begin with ASCII.
        [first, 0, ..] if *first != 0 => utf16(bytes, u16::from_le_bytes),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
        },
    }
}

impl Inf {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) beyond the bounds. Everything else is read as something.
    pub fn parse(bytes: &[u8]) -> Result<Inf> {
        let text = decode(bytes);
        let mut inf = Inf::default();
        let mut lines = Lines { rest: text.as_str() };
        let mut at = None;
        let (mut line_count, mut field_count) = (0usize, 0usize);
        while let Some(read) = lines.next()? {
            match read {
                Read::Header(name) => at = Some(inf.open(name)?),
                Read::Line(line) => {
                    line_count += 1;
                    field_count += line.fields.len();
                    if line_count > LINES_AT_MOST || field_count > FIELDS_AT_MOST {
                        return Err(Error::refused(format!(
                            "the INF file has more than {LINES_AT_MOST} lines or {FIELDS_AT_MOST} fields"
                        )));
                    }
                    if let Some(section) = at.and_then(|at: usize| inf.sections.get_mut(at)) {
                        section.lines.push(line);
                    }
                }
            }
        }
        inf.collect_strings();
        Ok(inf)
    }

    fn open(&mut self, name: String) -> Result<usize> {
        let folded = name.to_lowercase();
        if let Some(at) = self.places.get(&folded) {
            return Ok(*at);
        }
        let at = self.sections.len();
        if at >= SECTIONS_AT_MOST {
            return Err(Error::refused(format!("the INF file has more than {SECTIONS_AT_MOST} sections")));
        }
        self.places.insert(folded, at);
        self.sections.push(Section { name, lines: Vec::new() });
        Ok(at)
    }

    fn collect_strings(&mut self) {
        let mut strings = HashMap::new();
        let others = self.names().filter(|name| name.to_lowercase().starts_with("strings."));
        for section in ["Strings", "Strings.0409"].into_iter().chain(others) {
            for line in self.lines(section) {
                if let Some(key) = &line.key {
                    strings.entry(key.to_lowercase()).or_insert_with(|| line.field(0).to_owned());
                }
            }
        }
        self.strings = strings;
    }

    /// Counts work that the file asks for.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) where it is more than any sound file asks for.
    pub fn charge(&self, steps: usize) -> Result<()> {
        self.steps.set(self.steps.get().saturating_add(steps));
        match self.steps.get() > STEPS_AT_MOST {
            true => {
                Err(Error::refused(format!("the INF file takes more than {STEPS_AT_MOST} steps to read")))
            }
            false => Ok(()),
        }
    }

    /// The first line of a section with this key.
    pub fn line(&self, section: &str, key: &str) -> Result<Option<&Line>> {
        let lines = self.lines(section);
        self.charge(lines.len())?;
        Ok(lines.iter().find(|line| line.is(key)))
    }

    /// Names of sections, as they are spelled first, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sections.iter().map(|section| section.name.as_str())
    }

    /// The name of a section as it is spelled; `None` where there is none.
    pub fn spelled(&self, section: &str) -> Option<&str> {
        let at = self.places.get(&section.to_lowercase())?;
        self.sections.get(*at).map(|section| section.name.as_str())
    }

    /// Lines of a section; none where it is absent.
    pub fn lines(&self, section: &str) -> &[Line] {
        let at = self.places.get(&section.to_lowercase());
        at.and_then(|at| self.sections.get(*at)).map_or(&[], |section| section.lines.as_slice())
    }

    /// The first field of a key, its tokens replaced; `None` where it is absent or empty.
    pub fn value(&self, section: &str, key: &str) -> Result<Option<String>> {
        let value = self.line(section, key)?.map(|line| self.expand(line.field(0))).transpose()?;
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// The first field of a key as a number.
    pub fn number(&self, section: &str, key: &str) -> Result<Option<u32>> {
        Ok(self.value(section, key)?.and_then(|value| number(&value)))
    }

    /// All fields of all lines of a key, tokens replaced, without empty ones.
    pub fn values(&self, section: &str, key: &str) -> Result<Vec<String>> {
        self.charge(self.lines(section).len())?;
        let lines = self.lines(section).iter().filter(|line| line.is(key));
        let values = lines.flat_map(|line| &line.fields).map(|field| self.expand(field));
        values.filter(|value| !value.as_ref().is_ok_and(String::is_empty)).collect()
    }

    /// The text that a token stands for.
    pub fn string(&self, token: &str) -> Option<&str> {
        self.strings.get(&token.to_lowercase()).map(String::as_str)
    }

    /// A text with its tokens replaced, once: what they stand for is not looked at again. Those that are not defined stay
    /// (`%12%` is a folder).
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) where it becomes too long.
    pub fn expand(&self, text: &str) -> Result<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let after = from.get(1..).unwrap_or_default();
            let Some(end) = after.find('%') else {
                rest = from;
                break;
            };
            let token = after.get(..end).unwrap_or_default();
            match self.string(token) {
                _ if token.is_empty() => out.push('%'),
                Some(text) => out.push_str(text),
                None => {
                    out.push('%');
                    out.push_str(token);
                    out.push('%');
                }
            }
            if out.len() > FIELD_AT_MOST * 4 {
                return Err(too_long());
            }
            rest = after.get(end + 1..).unwrap_or_default();
        }
        out.push_str(rest);
        // So that empty ones count, too.
        self.charge(out.len() + 16)?;
        Ok(out)
    }
}

fn too_long() -> Error {
    Error::refused(format!("a field of the INF file has more than {FIELD_AT_MOST} letters"))
}

enum Read {
    Header(String),
    Line(Line),
}

/// Takes lines off a text.
struct Lines<'t> {
    rest: &'t str,
}

impl Lines<'_> {
    fn bump(&mut self) -> Option<char> {
        let mut letters = self.rest.chars();
        let letter = letters.next();
        self.rest = letters.as_str();
        letter
    }

    /// Up to the end of the line, which is taken, too.
    fn skip_line(&mut self) {
        let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
        self.rest = self.rest.get(end..).unwrap_or_default();
    }

    /// True, and at the next line, where nothing but a comment follows a `\`.
    fn goes_on(&mut self) -> bool {
        let after = self.rest.trim_start_matches(|letter: char| letter.is_whitespace() && letter != '\n');
        let ends = after.starts_with(['\n', ';']);
        if ends {
            self.skip_line();
        }
        ends
    }

    fn next(&mut self) -> Result<Option<Read>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut line = Line::default();
        let mut field = Field::default();
        let mut is_empty = true;
        loop {
            match self.bump() {
                None | Some('\n') => break,
                Some(';') => {
                    self.skip_line();
                    break;
                }
                Some('[') if is_empty && line.key.is_none() => {
                    let end = self.rest.find([']', '\n']).unwrap_or(self.rest.len());
                    let name = self.rest.get(..end).unwrap_or_default().trim().to_owned();
                    self.skip_line();
                    if name.len() > FIELD_AT_MOST {
                        return Err(too_long());
                    }
                    return Ok(Some(Read::Header(name)));
                }
                Some('"') => {
                    is_empty = false;
                    self.quoted(&mut field)?;
                }
                Some('\\') if self.goes_on() => {}
                Some(',') => {
                    is_empty = false;
                    line.fields.push(field.take());
                    if line.fields.len() > FIELDS_AT_MOST {
                        return Err(Error::refused(format!("a line has more than {FIELDS_AT_MOST} fields")));
                    }
                }
                Some('=') if line.key.is_none() && line.fields.is_empty() => {
                    is_empty = false;
                    line.key = Some(field.take());
                }
                Some(letter) if letter.is_whitespace() => field.space(letter)?,
                Some(letter) => {
                    is_empty = false;
                    field.push(letter)?;
                }
            }
        }
        if !is_empty {
            line.fields.push(field.take());
        }
        Ok(Some(Read::Line(line)))
    }

    fn quoted(&mut self, field: &mut Field) -> Result<()> {
        loop {
            if self.rest.starts_with('\n') {
                return Ok(());
            }
            match self.bump() {
                None => return Ok(()),
                Some('"') if !self.rest.starts_with('"') => {
                    field.kept = field.text.len();
                    return Ok(());
                }
                Some('"') => {
                    self.bump();
                    field.push('"')?;
                }
                Some(letter) => field.push(letter)?,
            }
        }
    }
}

/// A field while it grows.
#[derive(Default)]
struct Field {
    text: String,
    /// Bytes that are not blanks at the end.
    kept: usize,
}

impl Field {
    fn push(&mut self, letter: char) -> Result<()> {
        self.text.push(letter);
        self.kept = self.text.len();
        match self.kept > FIELD_AT_MOST * 4 {
            true => Err(too_long()),
            false => Ok(()),
        }
    }
    fn space(&mut self, letter: char) -> Result<()> {
        match self.text.is_empty() || self.text.len() > FIELD_AT_MOST * 4 {
            true => Ok(()),
            false => {
                self.text.push(letter);
                Ok(())
            }
        }
    }
    fn take(&mut self) -> String {
        self.text.truncate(self.kept);
        self.kept = 0;
        std::mem::take(&mut self.text)
    }
}
