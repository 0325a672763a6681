//! From a .reg file's lines to changes.

use super::lines::Text;
use super::roots::{self, Place};
use super::{CHANGES_AT_MOST, Change, What, refused};
use crate::windows::data::{Data, REG_BINARY, REG_EXPAND_SZ, REG_MULTI_SZ, REG_SZ};
use crate::{Error, Result};

/// What the registry takes, in characters of UTF-16.
const VALUE_NAME_AT_MOST: usize = 16_383;
/// The same, in bytes.
const DATA_AT_MOST: usize = 1 << 20;

pub(super) fn parse(text: &Text) -> Result<Vec<Change>> {
    let mut parser = Parser { text, next: 0, changes: Vec::new() };
    let mut place: Option<(Place, bool)> = None;
    while let Some(line) = parser.line() {
        let number = parser.next;
        match line.as_bytes().first() {
            None | Some(b';') => {}
            Some(b'[') => {
                let (key, is_deleted) = key(line, number)?;
                let at = roots::place(key).map_err(|(says, hint)| refused(number, says).hint(hint))?;
                // A root of the registry alone may lie below a hive's own root: HKEY_CLASSES_ROOT.
                if is_deleted && (at.key.is_empty() || !key.contains('\\')) {
                    return Err(
                        refused(number, format!("would remove all of {key}")).hint("name a key below it")
                    );
                }
                let what = if is_deleted { What::Delete } else { What::Create };
                if !at.key.is_empty() {
                    parser.push(number, &at, what)?;
                }
                place = Some((at, is_deleted));
            }
            Some(b'"' | b'@') => {
                let Some((at, is_deleted)) = &place else {
                    return Err(refused(number, "a value stands before the first key")
                        .hint("write a line such as [HKEY_LOCAL_MACHINE\\SOFTWARE\\Example] above it"));
                };
                if *is_deleted {
                    return Err(refused(number, "a value of a key that is removed")
                        .hint("write the key once more, without -, above the value"));
                }
                let what = parser.value(line, number)?;
                parser.push(number, at, what)?;
            }
            Some(_) => {
                return Err(refused(number, format!("is no key, value or comment: {}", shown(line)))
                    .hint("begin a comment with ;, and write a value as \"name\"=…"));
            }
        }
    }
    Ok(parser.changes)
}

struct Parser<'t> {
    text: &'t Text,
    /// Index of the next line, and so the number of the one that was read last.
    next: usize,
    changes: Vec<Change>,
}

impl<'t> Parser<'t> {
    fn line(&mut self) -> Option<&'t str> {
        let line = self.text.lines.get(self.next)?;
        self.next += 1;
        Some(line.trim())
    }

    fn push(&mut self, line: usize, at: &Place, what: What) -> Result<()> {
        if self.changes.len() >= CHANGES_AT_MOST {
            return Err(refused(line, format!("more than {CHANGES_AT_MOST} changes in one file"))
                .hint("export the keys that are to be changed, not the whole registry"));
        }
        self.changes.push(Change { line, hive: at.hive, key: at.key.clone(), what });
        Ok(())
    }

    /// `"name"=data`, `@=data`
    fn value(&mut self, line: &'t str, number: usize) -> Result<What> {
        let (name, rest) = match line.strip_prefix('@') {
            Some(rest) => (String::new(), rest),
            None => quoted(line, number)?,
        };
        if name.encode_utf16().count() > VALUE_NAME_AT_MOST {
            return Err(refused(
                number,
                format!("a value's name is longer than {VALUE_NAME_AT_MOST} characters"),
            ));
        }
        let Some(data) = rest.trim_start().strip_prefix('=').map(str::trim_start) else {
            return Err(refused(number, format!("lacks a = behind the value's name: {}", shown(line))));
        };
        if let Some(rest) = data.strip_prefix('-') {
            end(rest, number)?;
            return Ok(What::DeleteValue { name });
        }
        if data.starts_with('"') {
            let (text, rest) = quoted(data, number)?;
            end(rest, number)?;
            return bounded(number, name, Data::text(&text));
        }
        let lower: String = data.chars().take(16).collect::<String>().to_ascii_lowercase();
        if lower.starts_with("dword:") {
            let digits = without_comment(data.get(6..).unwrap_or_default());
            let number_of =
                (1..=8).contains(&digits.len()).then(|| u32::from_str_radix(digits, 16).ok()).flatten();
            let value = number_of
                .filter(|_| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .ok_or_else(|| {
                    refused(number, format!("{:?} is no number of up to eight hexadecimal digits", digits))
                })?;
            return Ok(What::set(name, Data::dword(value)));
        }
        if lower.starts_with("hex") {
            let (kind, first) = hex_type(data.get(3..).unwrap_or_default(), number)?;
            let bytes = self.bytes(first, number)?;
            let bytes = if self.text.is_ansi { widened(kind, bytes, number)? } else { bytes };
            return bounded(number, name, Data { kind, bytes });
        }
        Err(refused(number, format!("data of no known kind: {}", shown(data)))
            .hint("write \"text\", dword:0000000a, hex:01,02, hex(2):… or -"))
    }

    /// `01,02,\` and the lines that go on with it.
    fn bytes(&mut self, first: &'t str, number: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut part = first;
        loop {
            let text = without_comment(part);
            let (list, goes_on) = match text.strip_suffix('\\') {
                Some(list) => (list.trim_end(), true),
                None => (text, false),
            };
            let (list, ends_in_comma) = match list.strip_suffix(',') {
                Some(list) => (list, true),
                None => (list, false),
            };
            if !list.is_empty() {
                for digits in list.split(',') {
                    bytes.push(byte(digits.trim()).ok_or_else(|| {
                        refused(self.next, format!("{} is no byte of two hexadecimal digits", shown(digits)))
                    })?);
                }
            }
            if bytes.len() > DATA_AT_MOST {
                return Err(refused(number, format!("data of more than {DATA_AT_MOST} bytes")));
            }
            // A comment or nothing where the list was to go on is no end of it; hex(0): alone has no bytes.
            let is_nothing = list.is_empty() && self.next > number;
            match (goes_on, ends_in_comma) {
                (false, false) if !is_nothing => return Ok(bytes),
                (false, _) => return Err(broken_off(self.next)),
                (true, false) if !list.is_empty() => {
                    return Err(refused(self.next, "a line that goes on lacks the comma before its \\"));
                }
                (true, _) => {
                    part = self.line().filter(|line| !line.is_empty()).ok_or_else(|| broken_off(number))?
                }
            }
        }
    }
}

fn broken_off(line: usize) -> Error {
    refused(line, "the list of bytes breaks off").hint("copy the file again: its end may be missing")
}

/// The path in `[…]`, and whether the key is removed.
fn key(line: &str, number: usize) -> Result<(&str, bool)> {
    let end = line.rfind(']').ok_or_else(|| refused(number, format!("lacks a ] : {}", shown(line))))?;
    let (path, rest) = (line.get(1..end).unwrap_or_default(), line.get(end + 1..).unwrap_or_default());
    // regedit takes the last ], also one of a comment; nobody means that.
    if path.contains(']') && path.contains(';') || !without_comment(rest).is_empty() {
        return Err(refused(number, "where the key ends cannot be told: there is text behind a ]")
            .hint("put the comment on a line of its own"));
    }
    Ok(match path.strip_prefix('-') {
        Some(path) => (path.trim(), true),
        None => (path.trim(), false),
    })
}

/// The text between quotes, and what follows.
fn quoted(line: &str, number: usize) -> Result<(String, &str)> {
    let mut text = String::new();
    let body = line.get(1..).unwrap_or_default();
    let mut letters = body.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((text, body.get(at + 1..).unwrap_or_default())),
            '\\' => match letters.next() {
                Some((_, escaped @ ('\\' | '"'))) => text.push(escaped),
                _ => {
                    return Err(refused(number, format!("a single \\ in a text: {}", shown(line)))
                        .hint("write \\\\ for one backslash and \\\" for a quote"));
                }
            },
            other => text.push(other),
        }
    }
    Err(refused(number, format!("a text lacks its closing quote: {}", shown(line)))
        .hint("write a text of several lines as hex(1): with its bytes"))
}

/// Nothing but a comment may follow.
fn end(rest: &str, number: usize) -> Result<()> {
    match without_comment(rest) {
        "" => Ok(()),
        more => Err(refused(number, format!("more text behind the data: {}", shown(more)))),
    }
}

/// `:` or `(7):`, and the rest.
fn hex_type(text: &str, number: usize) -> Result<(u32, &str)> {
    if let Some(rest) = text.strip_prefix(':') {
        return Ok((REG_BINARY, rest));
    }
    let found = text.strip_prefix('(').and_then(|text| text.split_once("):"));
    let known = found.filter(|(digits, _)| {
        (1..=8).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    });
    let (digits, rest) = known.ok_or_else(|| {
        refused(number, format!("hex{} has no type as in hex(7):", text.chars().take(12).collect::<String>()))
    })?;
    let kind =
        u32::from_str_radix(digits, 16).map_err(|_| refused(number, format!("{digits} is no type")))?;
    Ok((kind, rest))
}

/// One or two digits.
fn byte(digits: &str) -> Option<u8> {
    let fits = (1..=2).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    fits.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// Texts of a `REGEDIT4` file have one byte per character; hives have two.
fn widened(kind: u32, bytes: Vec<u8>, number: usize) -> Result<Vec<u8>> {
    if !matches!(kind, REG_SZ | REG_EXPAND_SZ | REG_MULTI_SZ) {
        return Ok(bytes);
    }
    match bytes.iter().find(|byte| !byte.is_ascii()) {
        Some(byte) => Err(refused(
            number,
            format!("the byte {byte:02x} of a text means another character in each code page"),
        )
        .hint("save the file in regedit as \"Registration Files (*.reg)\", which is Unicode")),
        None => Ok(bytes.into_iter().flat_map(|byte| [byte, 0]).collect()),
    }
}

fn bounded(number: usize, name: String, data: Data) -> Result<What> {
    match data.bytes.len() > DATA_AT_MOST {
        true => Err(refused(number, format!("data of more than {DATA_AT_MOST} bytes"))),
        false => Ok(What::set(name, data)),
    }
}

fn without_comment(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

/// As much of a line as a message holds.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
