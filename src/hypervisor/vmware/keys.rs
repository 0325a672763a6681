//! VMware's dictionary files (.vmx, .vmsd): lines of `key = "value"`.
//!
//! Keys are case-insensitive; the last of equal keys counts. Inside a value `|xx` stands for the byte with that hexadecimal
//! number. `.encoding` names the character set; UTF-8 and windows-1252 occur. There is no published specification: this
//! follows 137 files of other producers and libvirt's description of its VMX driver.
//!
//! Every key that was asked for is remembered, so that the others can be named. Deliberately absent: what a key means.

use landfall_image::{Bytes, Error, Result};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Such a file has a few KiB; one of this size is something else.
const AT_MOST: Bytes = Bytes::mib(1);

/// The lines of a file.
pub(super) struct Keys {
    /// By their names in lower case: the name as it is written, and the value.
    lines: BTreeMap<String, (String, String)>,
    /// Which of them were asked for.
    read: RefCell<BTreeSet<String>>,
    /// Lines that are no setting, by their numbers.
    strange: Vec<usize>,
}

impl Keys {
    /// Reads a file.
    pub(super) fn read(bytes: &[u8]) -> Result<Keys> {
        if bytes.len() as u64 > AT_MOST.0 {
            let says = format!("has {} bytes; a VMware configuration has at most {}", bytes.len(), AT_MOST.0);
            return Err(Error::refused(says));
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut raw = BTreeMap::new();
        let mut strange = Vec::new();
        for (number, line) in bytes.split(|&b| b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let Some(equals) = line.iter().position(|&b| b == b'=') else {
                strange.push(number + 1);
                continue;
            };
            let name = String::from_utf8_lossy(line[..equals].trim_ascii()).into_owned();
            raw.insert(name.to_ascii_lowercase(), (name, unescape(unquote(line[equals + 1..].trim_ascii()))));
        }
        let utf8 = raw.get(".encoding").is_none_or(|(_, name)| {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            name == "utf-8" || name == "utf8"
        });
        let decode = |value: Vec<u8>| match String::from_utf8(value) {
            // ESXi rewrites files as UTF-8 and leaves the old `.encoding` behind; valid UTF-8 beyond ASCII is no accident.
            Ok(text) => text,
            // Not UTF-8 whatever it says: the 8-bit set that VMware uses otherwise.
            Err(error) => windows_1252(error.as_bytes()),
        };
        if !utf8 {
            tracing::debug!("the file says that it is not UTF-8");
        }
        let lines = raw.into_iter().map(|(key, (name, value))| (key, (name, decode(value)))).collect();
        Ok(Keys { lines, read: RefCell::default(), strange })
    }

    /// The value of a key, which is given in lower case.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let (_, value) = self.lines.get(key)?;
        self.read.borrow_mut().insert(key.to_owned());
        Some(value)
    }

    /// The value of a key that is there and not empty.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).map(str::trim).filter(|text| !text.is_empty())
    }

    /// True where the key is there; it is not taken as read.
    pub(super) fn has(&self, key: &str) -> bool {
        self.lines.contains_key(key)
    }

    /// Yes or no.
    pub(super) fn flag(&self, key: &str, otherwise: bool) -> bool {
        self.text(key).map_or(otherwise, |value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    /// A number that is not above `at_most`.
    pub(super) fn number(&self, key: &str, at_most: u64) -> Result<Option<u64>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(number) if number <= at_most => Ok(Some(number)),
            _ => Err(Error::corrupt(format!("{key} = {text:?}; a number up to {at_most} is possible"))),
        }
    }

    /// Keys that begin with `prefix`, in lower case and in order.
    pub(super) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let from =
            self.lines.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        from.map(|(key, _)| key.as_str()).take_while(move |key| key.starts_with(prefix))
    }

    /// Takes all keys that begin with `prefix` as read: they belong to a device that is told of, or that is not there.
    pub(super) fn done_with(&self, prefix: &str) {
        let keys: Vec<String> = self.under(prefix).map(str::to_owned).collect();
        self.read.borrow_mut().extend(keys);
    }

    /// The slots (`scsi0:1`, `ethernet2`) of a kind that have at least one key, in numerical order.
    pub(super) fn slots(&self, kind: &str) -> Vec<String> {
        let slots: BTreeSet<(Vec<u32>, &str)> = self
            .under(kind)
            .filter_map(|key| {
                let (slot, _) = key.split_once('.')?;
                let numbers: Vec<u32> =
                    slot.strip_prefix(kind)?.split(':').map(|n| n.parse().ok()).collect::<Option<_>>()?;
                // `scsi00:1` is no name that VMware gives.
                let texts: Vec<String> = numbers.iter().map(u32::to_string).collect();
                (format!("{kind}{}", texts.join(":")) == slot).then_some((numbers, slot))
            })
            .collect();
        slots.into_iter().map(|(_, slot)| slot.to_owned()).collect()
    }

    /// Names of the settings that nobody asked for and that `known` does not know, as the file writes them.
    pub(super) fn unread(&self, known: impl Fn(&str, &str) -> bool) -> Vec<String> {
        let read = self.read.borrow();
        let rest = self.lines.iter().filter(|(key, (_, value))| !read.contains(*key) && !known(key, value));
        let lines = self.strange.iter().map(|number| format!("line {number}"));
        rest.map(|(_, (name, _))| name.clone()).chain(lines).collect()
    }
}

fn unquote(value: &[u8]) -> &[u8] {
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    value.strip_suffix(b"\"").unwrap_or(value)
}

/// Resolves `|xx`.
fn unescape(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        let hex = value.get(at + 1..at + 3).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let number = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (byte, number) {
            (b'|', Some(escaped)) => {
                out.push(escaped);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// A value as such a file holds it, with its quotes: what would end it or the line is written as `|xx`.
pub(super) fn quoted(value: &str) -> String {
    let mut out = String::from("\"");
    for letter in value.chars() {
        match letter {
            '"' | '|' | '\0'..='\u{1f}' | '\u{7f}' => out.push_str(&format!("|{:02X}", u32::from(letter))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// The 27 characters in which windows-1252 differs from Latin-1.
fn windows_1252(bytes: &[u8]) -> String {
    const HIGH: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
        '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    bytes
        .iter()
        .map(|&b| if (0x80..0xa0).contains(&b) { HIGH[usize::from(b - 0x80)] } else { char::from(b) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_read_back() {
        for text in ["", "plain", "a\"b|22c\n\r\t|", "ünï €", "\u{1}\u{7f}", "  # not a comment", "|"] {
            let line = format!("k = {}\n", quoted(text));
            assert_eq!(line.lines().count(), 1, "{line:?}");
            assert_eq!(Keys::read(line.as_bytes()).unwrap().get("k"), Some(text));
        }
    }

    #[test]
    fn what_nobody_asked_for_is_named_as_it_is_written() {
        let keys = Keys::read(b"Aa = 1\nBb.c = 2\nBb.d = 3\nnonsense\nCc = 4\n").unwrap();
        assert_eq!(keys.get("aa"), Some("1"));
        keys.done_with("bb.");
        assert_eq!(keys.unread(|_, _| false), ["Cc", "line 4"]);
        assert_eq!(keys.unread(|key, _| key == "cc"), ["line 4"]);
    }

    #[test]
    fn slots_are_in_numerical_order_and_as_vmware_writes_them() {
        let keys =
            Keys::read(b"scsi0:10.x=1\nscsi0:2.x=1\nscsi00:3.x=1\nscsi0:+4.x=1\nscsi.x=1\nscsi1.x=1\n")
                .unwrap();
        assert_eq!(keys.slots("scsi"), ["scsi0:2", "scsi0:10", "scsi1"]);
    }

    #[test]
    fn too_much_is_refused() {
        assert!(Keys::read(&vec![b'a'; (1 << 20) + 1]).is_err());
    }
}
