//! VMware's dictionary files (.vmx, .vmsd): lines of `key = "value"`.
//!
//! Keys are case-insensitive; the last of equal keys counts. Inside a value `|xx` stands for the byte with that hexadecimal
//! number. `.encoding` names the character set: that of the host that wrote the file, such as windows-1252 or GBK. There is no
//! published specification: this follows 137 files of other producers and libvirt's description of its VMX driver.
//!
//! Every key that was asked for is remembered, so that the others can be named. Deliberately absent: what a key means.

use crate::finding;
use encoding_rs::{Encoding, WINDOWS_1252};
use landfall_boot::check::Finding;
use landfall_image::{Bytes, Error, Result};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Such a file has a few KiB; one of this size is something else.
const AT_MOST: Bytes = Bytes::mib(1);

/// Names in one finding.
const NAMES_AT_MOST: usize = 16;

/// The lines of a file.
pub(super) struct Keys {
    /// By their names in lower case: the name as it is written, and the value.
    lines: BTreeMap<String, (String, String)>,
    /// Which of them were asked for.
    read: RefCell<BTreeSet<String>>,
    /// Lines that are no setting, by their numbers.
    strange: Vec<usize>,
    /// What `.encoding` says.
    encoding: String,
    /// Keys of values that are not in the character set of the file, or whose set is not known.
    guessed: BTreeSet<String>,
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
        // Some editors of old end lines with a carriage return alone. Within a value it is written as |0D.
        let end = if bytes.contains(&b'\n') { b'\n' } else { b'\r' };
        for (number, line) in bytes.split(|&b| b == end).enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let Some(equals) = line.iter().position(|&b| b == b'=') else {
                strange.push(number + 1);
                continue;
            };
            let name = String::from_utf8_lossy(line[..equals].trim_ascii()).into_owned();
            raw.insert(name.to_ascii_lowercase(), (name, unquote(line[equals + 1..].trim_ascii())));
        }
        let encoding = raw.get(".encoding").map_or("", |(_, name)| std::str::from_utf8(name).unwrap_or(""));
        let decoder = Decoder {
            said: Encoding::for_label(encoding.as_bytes()),
            is_utf8: raw.values().all(|(_, value)| std::str::from_utf8(value).is_ok()),
        };
        let mut guessed = BTreeSet::new();
        let mut lines = BTreeMap::new();
        for (key, (name, value)) in &raw {
            let (text, is_sure) = decoder.text(value);
            if !is_sure {
                guessed.insert(key.clone());
            }
            lines.insert(key.clone(), (name.clone(), text));
        }
        let encoding = encoding.to_owned();
        Ok(Keys { lines, read: RefCell::default(), strange, encoding, guessed })
    }

    /// That some values may be read wrongly, and which.
    pub(super) fn finding(&self) -> Option<Finding> {
        let names = self.guessed.iter().filter_map(|key| self.lines.get(key));
        let names: Vec<&str> = names.map(|(name, _)| name.as_str()).take(NAMES_AT_MOST).collect();
        (!names.is_empty()).then(|| {
            finding::ENCODING.finding(
                format!(
                    "The configuration {}; read as windows-1252, and perhaps wrongly: {}.",
                    self.character_set(),
                    names.join(", ")
                ),
                "",
            )
        })
    }

    /// A file's name must not be a guess.
    ///
    /// # Errors
    /// Unsupported where it is one.
    pub(super) fn is_sure(&self, key: &str) -> Result<()> {
        match self.guessed.contains(key) {
            false => Ok(()),
            true => Err(Error::unsupported(format!(
                "{}, and {key} is a file's name that cannot be read",
                self.character_set()
            ))
            .hint("save the file as UTF-8, with the line .encoding = \"UTF-8\"")),
        }
    }

    fn character_set(&self) -> String {
        match self.encoding.as_str() {
            "" => "does not say its character set and is not in UTF-8".to_owned(),
            name => format!("has text that is not in its character set, {name:?}, or that is not known"),
        }
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
            _ => Err(Error::corrupt(format!("{key} = {text:?}; a number up to {at_most} is possible"))
                .hint("correct that line in a copy of the definition and of what lies beside it")),
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

/// How the values of a file are read.
struct Decoder {
    /// The character set that the file names, if it is one that is known.
    said: Option<&'static Encoding>,
    /// All of the file is valid UTF-8.
    is_utf8: bool,
}

impl Decoder {
    /// The text of a value, and whether that is sure.
    ///
    /// ESXi rewrites files as UTF-8 and leaves the old `.encoding` behind; valid UTF-8 beyond ASCII is no accident where bytes
    /// are letters. Where two bytes are one it can be, so there the file counts as a whole.
    fn text(&self, value: &[u8]) -> (String, bool) {
        let may_be_utf8 = self.is_utf8 || self.said.is_none_or(Encoding::is_single_byte);
        let decode = |bytes: &[u8]| match self.said.unwrap_or(WINDOWS_1252).decode_without_bom_handling(bytes)
        {
            (text, false) if self.said.is_some() => (text.into_owned(), true),
            _ => (WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(), false),
        };
        let (text, is_sure) = match std::str::from_utf8(value) {
            Ok(text) if may_be_utf8 => (text.to_owned(), true),
            _ => decode(value),
        };
        // A letter of two bytes may have a `|` in it, so that this comes behind.
        match String::from_utf8(unescape(text.as_bytes())) {
            Ok(text) => (text, is_sure),
            Err(error) => {
                let (text, is_known) = decode(error.as_bytes());
                (text, is_sure && is_known)
            }
        }
    }
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

    /// Bytes of `name` in the character sets, made with iconv.
    #[test]
    fn every_character_set_that_is_named_is_read() {
        for (encoding, bytes, text) in [
            ("windows-1252", &b"M\xfcnchen \x80"[..], "München €"),
            ("GBK", b"\xb7\xfe\xce\xf1\xc6\xf7", "服务器"),
            ("Shift_JIS", b"\x83T\x81[\x83o", "サーバ"),
            ("Big5", b"\xa6\xf8\xaaA\xbe\xb9", "伺服器"),
            ("EUC-KR", b"\xbc\xad\xb9\xf6", "서버"),
            ("windows-1251", b"\xd1\xe5\xf0\xe2\xe5\xf0", "Сервер"),
            // The second byte of the letter is a `|`, and no escape.
            ("GBK", b"\x85|22|22", "厊22\""),
            // What ESXi rewrote.
            ("windows-1252", "München".as_bytes(), "München"),
            ("GBK", "服务器".as_bytes(), "服务器"),
            ("UTF-8", b"M|C3|BCnchen", "München"),
        ] {
            let line =
                [b".encoding = \"", encoding.as_bytes(), b"\"\nk.fileName = \"", bytes, b"\"\n"].concat();
            let keys = Keys::read(&line).unwrap();
            assert_eq!((keys.get("k.filename"), keys.finding()), (Some(text), None), "{encoding}");
            keys.is_sure("k.filename").unwrap();
        }
        // By itself this is UTF-8, too; another line shows that the file is not.
        let keys = Keys::read(b".encoding=GBK\na=\xc1\xaa\xcd\xa8\nb=\xc1\xaa\nc=\xb7\xfe").unwrap();
        assert_eq!((keys.get("a"), keys.get("c")), (Some("联通"), Some("服")));
    }

    #[test]
    fn a_guess_is_told_and_is_no_file_name() {
        for (encoding, bytes) in [
            ("", &b"M\xfcnchen"[..]),
            ("UTF-8", b"M\xfcnchen"),
            ("klingon", b"M\xfcnchen"),
            ("GBK", b"M\xfc"),
        ] {
            let line =
                [b".encoding = ", encoding.as_bytes(), b"\nA.fileName = ", bytes, b"\nB = x\n"].concat();
            let keys = Keys::read(&line).unwrap();
            assert!(keys.get("a.filename").unwrap().starts_with("Mü"), "{encoding}");
            assert!(keys.finding().unwrap().says.ends_with(": A.fileName."), "{encoding}");
            let error = keys.is_sure("a.filename").unwrap_err();
            assert!(error.hint_text().unwrap().contains("UTF-8"), "{encoding}: {error}");
            keys.is_sure("b").unwrap();
        }
    }

    #[test]
    fn too_much_is_refused() {
        assert!(Keys::read(&vec![b'a'; (1 << 20) + 1]).is_err());
    }
}
