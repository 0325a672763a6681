//! Settings in text files and where they stand, so that a value can change and nothing else does.

use crate::linux::text;
use std::ops::Range;

/// `KEY=VALUE` on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Its section's name in lower case; empty where there are none.
    pub section: String,
    /// Number of its section in the file: names of sections repeat.
    pub number: usize,
    /// The key, as it is written.
    pub key: String,
    /// Bytes of the value, without quotes.
    pub value: Range<usize>,
    /// Bytes of the line, with its ending.
    pub line: Range<usize>,
}

/// Lines with the range of their body and of the whole.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let mut at = 0;
    text::lines(bytes).map(move |(body, ending)| {
        let start = at;
        at += body.len() + ending.len();
        (start..start + body.len(), start..at)
    })
}

/// Assignments of a shell file (sysconfig): `KEY=value`, `KEY="value"`, `KEY='value'`. What is not UTF-8 is left out.
pub(super) fn shell(bytes: &[u8]) -> Vec<Setting> {
    let mut found = Vec::new();
    for (body, line) in lines(bytes) {
        let Some(text) = str_at(bytes, &body) else { continue };
        let trimmed = text.trim_start();
        let trimmed = trimmed.strip_prefix("export ").map_or(trimmed, str::trim_start);
        let Some((key, rest)) = trimmed.split_once('=') else { continue };
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:.".contains(&byte)) {
            continue;
        }
        let mut start = body.end - rest.len();
        let quote = rest.chars().next().filter(|first| ['"', '\''].contains(first));
        let inner = rest.get(quote.map_or(0, |_| 1)..).unwrap_or("");
        start += usize::from(quote.is_some());
        let length = match quote {
            Some(quote) => inner.find(quote),
            None => inner.find([' ', '\t', ';']),
        };
        let value = start..start + length.unwrap_or(inner.len());
        found.push(Setting { section: String::new(), number: 0, key: key.to_owned(), value, line });
    }
    found
}

/// Settings of an ini-style file as systemd and NetworkManager write it. What is not UTF-8 is left out.
pub(super) fn ini(bytes: &[u8]) -> Vec<Setting> {
    let (mut section, mut number) = (String::new(), 0);
    let mut found = Vec::new();
    for (body, line) in lines(bytes) {
        let Some(text) = str_at(bytes, &body) else { continue };
        let trimmed = text.trim();
        if trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim().to_ascii_lowercase();
            number += 1;
        } else if let Some((key, value)) = text.split_once('=') {
            let start = body.end - value.trim_start().len();
            let value = start..start + value.trim().len();
            let key = key.trim().to_owned();
            found.push(Setting { section: section.clone(), number, key, value, line });
        }
    }
    found
}

/// Part of a file as text.
pub(super) fn str_at<'a>(bytes: &'a [u8], range: &Range<usize>) -> Option<&'a str> {
    std::str::from_utf8(bytes.get(range.clone())?).ok()
}

/// Changes of a file, made all at once. Of two that overlap the first one in the file counts.
pub(super) struct Edits<'a> {
    old: &'a [u8],
    cuts: Vec<(Range<usize>, String)>,
}

impl<'a> Edits<'a> {
    pub fn new(old: &'a [u8]) -> Self {
        Edits { old, cuts: Vec::new() }
    }
    /// The whole file as it was.
    pub fn bytes(&self) -> &'a [u8] {
        self.old
    }
    /// What stands there; empty where it is no text.
    pub fn text(&self, range: &Range<usize>) -> &'a str {
        str_at(self.old, range).unwrap_or("")
    }
    /// The range holds `new` from now on.
    pub fn set(&mut self, range: &Range<usize>, new: &str) {
        if self.text(range) != new {
            self.cuts.push((range.clone(), new.to_owned()));
        }
    }
    /// The range goes.
    pub fn remove(&mut self, range: &Range<usize>) {
        self.cuts.push((range.clone(), String::new()));
    }
    /// Text comes before this byte.
    pub fn insert(&mut self, at: usize, text: &str) {
        self.cuts.push((at..at, text.to_owned()));
    }
    /// A line comes after this one, in its style.
    pub fn insert_after(&mut self, line: &Range<usize>, new: &str) {
        let ending = match self.text(line) {
            text if text.ends_with("\r\n") => "\r\n",
            _ => "\n",
        };
        let is_open = !self.text(line).ends_with('\n');
        let text = if is_open { format!("{ending}{new}") } else { format!("{new}{ending}") };
        self.cuts.push((line.end..line.end, text));
    }
    /// The new file; `None` where nothing changes.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        self.cuts.sort_by_key(|(range, _)| (range.start, range.end));
        let mut new = Vec::with_capacity(self.old.len().saturating_add(64));
        let mut copied = 0;
        for (range, text) in self.cuts {
            if range.start < copied {
                continue;
            }
            new.extend_from_slice(self.old.get(copied..range.start).unwrap_or_default());
            new.extend_from_slice(text.as_bytes());
            copied = range.end;
        }
        new.extend_from_slice(self.old.get(copied..).unwrap_or_default());
        (new != self.old).then_some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(settings: &[Setting], text: &str) -> Vec<(String, String)> {
        settings.iter().map(|one| (one.key.clone(), text[one.value.clone()].to_owned())).collect()
    }

    #[test]
    fn shell_values_are_found_without_their_quotes() {
        let text =
            "# A=0\nA=1\r\nB=\"two words\" # x\n export C='3'\nD=4 # four\nE=\n=x\necho F=6\nG=\"open\n";
        let pairs = values(&shell(text.as_bytes()), text);
        let expected = [("A", "1"), ("B", "two words"), ("C", "3"), ("D", "4"), ("E", ""), ("G", "open")];
        assert_eq!(pairs, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn ini_values_know_their_section() {
        let text = "[Address]\nAddress = 1 \n#Address=2\n[ADDRESS]\nAddress=3";
        let found = ini(text.as_bytes());
        assert_eq!(values(&found, text).iter().map(|pair| pair.1.as_str()).collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!((found[0].number, found[1].number, found[1].section.as_str()), (1, 2, "address"));
    }

    #[test]
    fn edits_touch_nothing_else() {
        let old = b"a=1\r\nb=2\r\nc=3";
        let found = shell(old);
        let mut edits = Edits::new(old);
        edits.set(&found[0].value, "10");
        edits.insert_after(&found[0].line, "x=y");
        edits.remove(&found[1].line);
        edits.insert_after(&found[2].line, "z=1");
        assert_eq!(edits.finish().unwrap(), b"a=10\r\nx=y\r\nc=3\nz=1");
        let mut same = Edits::new(old);
        same.set(&found[0].value, "1");
        assert_eq!(same.finish(), None);
    }

    proptest! {
        #[test]
        fn no_file_panics(file in "[a=\"' \\[\\]#\r\né]{0,60}") {
            for setting in shell(file.as_bytes()).iter().chain(&ini(file.as_bytes())) {
                prop_assert!(file.get(setting.value.clone()).is_some() && file.get(setting.line.clone()).is_some());
            }
        }
    }
}
