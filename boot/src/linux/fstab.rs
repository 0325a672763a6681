//! fstab (`man 5 fstab`; libmount: `tab_parse.c`), read so that it can be written back byte for byte.
//!
//! ```text
//! spec        mount point   type   options   dump   pass
//! UUID=4b…    /home\040x    ext4   defaults  0      2
//! ```
//! Fields are separated by blanks; `\040` and the like are octal escapes. Lines that are no entry (comments, blank ones,
//! too few fields) are kept as they are.

use crate::limits;
use std::ops::Range;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Index of its line.
    pub line: usize,
    /// What is mounted, unescaped: `/dev/sda1`, `UUID=…` (quotes removed), `tmpfs`.
    pub spec: String,
    /// Where, unescaped, without a trailing slash: `/`, `/boot`. `none` or `swap` for swap space.
    pub at: String,
    /// File-system type; `auto` where the kind is to be found out.
    pub kind: String,
    /// Options in order: `noauto`, `subvol=@`.
    pub options: Vec<String>,
    /// The sixth field: 0 is never checked.
    pub pass: u32,
    /// Where `spec` stands in its line, as it is written.
    spec_at: Range<usize>,
}

impl Entry {
    /// One that stands in no table: what a mount unit or a partition's type says.
    pub(crate) fn elsewhere(spec: &str, at: &str, kind: &str, options: &str) -> Entry {
        Entry {
            line: usize::MAX,
            spec: unquote(spec),
            at: without_slash(at),
            kind: kind.to_owned(),
            options: split_options(options),
            pass: 0,
            spec_at: 0..0,
        }
    }
    /// True for swap space.
    pub fn is_swap(&self) -> bool {
        self.kind == "swap"
    }
    /// The value of an option: `Some("@")` of `subvol=@`, `Some("")` of one without a value.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find_map(|option| match option.split_once('=') {
            Some((key, value)) if key == name => Some(value),
            None if option == name => Some(""),
            _ => None,
        })
    }
    /// True where the guest starts without it: `noauto`, `nofail`.
    pub fn is_optional(&self) -> bool {
        self.option("noauto").is_some() || self.option("nofail").is_some()
    }
}

/// A whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fstab {
    lines: Vec<Vec<u8>>,
    entries: Vec<Entry>,
}

impl Fstab {
    /// Parses a table. Never fails: what is no entry is a comment. Lines past
    /// [`FSTAB_LINES`](limits::FSTAB_LINES) are kept but not looked at.
    pub fn parse(raw: &[u8]) -> Fstab {
        let lines: Vec<Vec<u8>> = raw.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        let entries = lines
            .iter()
            .take(limits::FSTAB_LINES)
            .enumerate()
            .filter_map(|(index, line)| parse_line(index, line))
            .collect();
        Fstab { lines, entries }
    }

    /// Its entries in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry that counts for a mount point: the last one, as for `mount`.
    pub fn at(&self, path: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.at == path && !entry.is_swap())
    }

    /// Replaces the spec of entry `index` of [`entries`](Self::entries); nothing else of its line changes.
    pub fn set_spec(&mut self, index: usize, spec: &str) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        let Some(line) = self.lines.get_mut(entry.line) else { return };
        let escaped = escape(spec);
        let end = entry.spec_at.start + escaped.len();
        line.splice(entry.spec_at.clone(), escaped.into_bytes());
        entry.spec_at.end = end;
        entry.spec = spec.to_owned();
    }

    /// The table as bytes: what was parsed, with the specs that were set.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lines.concat()
    }
}

fn parse_line(index: usize, line: &[u8]) -> Option<Entry> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let mut fields: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while fields.len() < 6 {
        let rest = line.get(at..)?;
        let Some(start) = rest.iter().position(|byte| !blank(byte)) else { break };
        let len = rest.iter().skip(start).position(blank).unwrap_or(rest.len() - start);
        fields.push(at + start..at + start + len);
        at += start + len;
    }
    let field = |number: usize| fields.get(number).and_then(|range| line.get(range.clone())).map(unescape);
    let spec = field(0).filter(|spec| !spec.starts_with('#'))?;
    let (at, kind) = (field(1)?, field(2)?);
    let options = field(3).unwrap_or_default();
    Some(Entry {
        line: index,
        spec: unquote(&spec),
        at: without_slash(&at),
        kind,
        options: split_options(&options),
        pass: field(5).and_then(|pass| pass.parse().ok()).unwrap_or(0),
        spec_at: fields.first()?.clone(),
    })
}

fn without_slash(at: &str) -> String {
    match at.trim_end_matches('/') {
        "" if at.starts_with('/') => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

fn split_options(options: &str) -> Vec<String> {
    options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect()
}

/// `UUID="x"` as `UUID=x`.
fn unquote(spec: &str) -> String {
    match spec.split_once('=') {
        Some((tag, value)) if !tag.contains('/') => {
            let inner = ['"', '\''].iter().find_map(|&quote| value.strip_prefix(quote)?.strip_suffix(quote));
            format!("{tag}={}", inner.unwrap_or(value))
        }
        _ => spec.to_owned(),
    }
}

/// Octal escapes resolved.
pub fn unescape(field: &[u8]) -> String {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        let value = digits
            .map(|digits| digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0')));
        match value.and_then(|value| u8::try_from(value).ok()) {
            Some(value) if first == b'\\' => {
                out.push(value);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What would separate or end a field, as octal escapes.
pub fn escape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    for letter in field.chars() {
        match letter {
            ' ' | '\t' | '\n' | '\r' | '\\' => out.push_str(&format!("\\{:03o}", u32::from(letter))),
            '#' if out.is_empty() => out.push_str("\\043"),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &[u8] = b"# /etc/fstab: \xff\n\
        UUID=\"0a-1\" /\text4  errors=remount-ro,subvol=@ 0 1\n\
        /dev/sda5\tnone swap sw 0 0\r\n\
        \n  /dev/sdb1 /home\\040x/ xfs nofail 0 2\n\
        #/dev/sdc1 /x ext4\n\
        /dev/sdd1\n\
        LABEL=a\\040b /data auto\n\
        /dev/sde1 /short\n\
        tmpfs /tmp tmpfs";

    #[test]
    fn entries_are_read_and_the_rest_is_kept() {
        let mut table = Fstab::parse(TABLE);
        let seen: Vec<_> = table
            .entries()
            .iter()
            .map(|e| (e.spec.as_str(), e.at.as_str(), e.kind.as_str(), e.pass))
            .collect();
        assert_eq!(
            seen,
            [
                ("UUID=0a-1", "/", "ext4", 1),
                ("/dev/sda5", "none", "swap", 0),
                ("/dev/sdb1", "/home x", "xfs", 2),
                ("LABEL=a b", "/data", "auto", 0),
                ("tmpfs", "/tmp", "tmpfs", 0),
            ]
        );
        assert_eq!(table.at("/").unwrap().option("subvol"), Some("@"));
        assert_eq!(table.at("/").unwrap().option("nofail"), None);
        assert!(table.at("/home x").unwrap().is_optional());
        assert_eq!(table.to_bytes(), TABLE);
        table.set_spec(1, "UUID=5");
        table.set_spec(1, "UUID=55");
        table.set_spec(2, "a b");
        let text = String::from_utf8_lossy(&table.to_bytes()).into_owned();
        assert!(
            text.contains("\nUUID=55\tnone swap sw 0 0\r\n") && text.contains("  a\\040b /home\\040x/ xfs")
        );
        assert_eq!(Fstab::parse(&table.to_bytes()).entries()[2].spec, "a b");
    }

    /// findmnt reads the same, where it is installed.
    #[test]
    fn libmount_reads_the_same() {
        let Some(_) = crate::testing::tool("findmnt") else { return };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fstab");
        std::fs::write(&path, &TABLE[b"# /etc/fstab: \xff\n".len()..]).unwrap();
        let out = std::process::Command::new("findmnt")
            .args(["-P", "-o", "SOURCE,TARGET,FSTYPE", "--tab-file"])
            .arg(&path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        for entry in Fstab::parse(TABLE).entries().iter().filter(|entry| !entry.is_swap()) {
            let value = entry.spec.strip_prefix("UUID=").unwrap_or(&entry.spec);
            let line = text.lines().find(|line| line.contains(&format!("TARGET=\"{}", entry.at)));
            let line = line.unwrap_or_else(|| panic!("{}: {text}", entry.at));
            assert!(line.contains(value), "{line} {value}");
        }
        assert_eq!(text.lines().count(), Fstab::parse(TABLE).entries().len());
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Fstab::parse(&raw).to_bytes(), raw);
        }

        #[test]
        fn escapes_come_back(text in "\\PC{0,20}") {
            prop_assert_eq!(unescape(escape(&text).as_bytes()), text);
        }
    }
}
