//! Hardware addresses of network cards in text, in every spelling that configuration has for them, and their replacement
//! where they stand.
//!
//! ```text
//! 00:50:56:aa:BB:0c  00-50-56-aa-bb-0c  0:50:56:aa:bb:c     ether_aton(3), NetworkManager, ifcfg, udev
//! 0050.56aa.bb0c                                            systemd.link(5), systemd.network(5)
//! 005056aabb0c                                              file names, and ID_NET_NAME_MAC of systemd.net-naming-scheme(7)
//! BOOTIF=01-00-50-56-aa-bb-0c                               PXELINUX: the type of the hardware comes first
//! ifname=lan0:00:50:56:aa:bb:0c                             dracut.cmdline(7): behind a name
//! ```
//! An address that is part of a longer row of octets is an identifier that was once made of it (RFC 2132, section 9.14; RFC
//! 8415, section 11): it is found, and never replaced. Deliberately absent: addresses of other lengths (InfiniBand).

use super::text;
use std::ops::Range;

type Octets = [u8; 6];

/// `00-50-56-AA-BB-CC` -> `00:50:56:aa:bb:cc`; `None` for what is no Ethernet address.
pub fn normal(text: &str) -> Option<String> {
    let text = text.trim().trim_matches('"');
    let (row, []) = rows(text.as_bytes()).split_first().map(|(row, rest)| (row.clone(), rest))? else {
        return None;
    };
    let is_all = row.range == (0..text.len()) && row.form != Form::Bare;
    is_all.then(|| row.whole().map(|octets| Form::Colons.write(&octets, false)))?
}

/// Addresses and what they become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pairs: Vec<(Octets, Octets)>,
}

/// What a line is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Words are words.
    Plain,
    /// A bare word of digits and colons is a number to some readers (YAML 1.1, section 10.2.1.2: base 60).
    Yaml,
}

impl Changes {
    /// Old and new, as [`normal`] writes them; others are left out.
    pub fn new(pairs: &[(String, String)]) -> Self {
        let octets = |text: &String| rows(text.as_bytes()).first().and_then(Row::whole);
        Changes { pairs: pairs.iter().filter_map(|(old, new)| octets(old).zip(octets(new))).collect() }
    }

    /// The line with every old address replaced, in its own spelling.
    pub fn line(&self, line: &[u8], language: Language) -> Option<Vec<u8>> {
        self.line_unless(line, language, |_| false)
    }

    /// The same, but for addresses that `stays` is true of: it is given what stands before them in the line.
    pub fn line_unless(
        &self,
        line: &[u8],
        language: Language,
        stays: impl Fn(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let mut new = Vec::new();
        let mut copied = 0;
        for row in rows(line) {
            let Some(octets) = row.whole() else { continue };
            let Some((_, to)) = self.pairs.iter().find(|(from, _)| *from == octets) else { continue };
            if stays(line.get(..row.range.start).unwrap_or_default()) {
                continue;
            }
            let written = row.form.write(to, row.is_upper);
            let is_number =
                language == Language::Yaml && written.bytes().all(|byte| !byte.is_ascii_alphabetic());
            let quotes = if is_number && is_bare_scalar(line, &row.range) { "\"" } else { "" };
            new.extend_from_slice(line.get(copied..row.range.start).unwrap_or_default());
            new.extend_from_slice(format!("{quotes}{written}{quotes}").as_bytes());
            copied = row.range.end;
        }
        if copied == 0 {
            return None;
        }
        new.extend_from_slice(line.get(copied..).unwrap_or_default());
        Some(new)
    }

    /// A file, its comments left as they are.
    pub fn file(&self, file: &[u8], language: Language) -> Option<Vec<u8>> {
        text::map_lines(file, |body| if text::is_comment(body) { None } else { self.line(body, language) })
    }

    /// The first old address in a line, alone or as part of something longer; its place in the list.
    pub fn find(&self, line: &[u8]) -> Option<usize> {
        rows(line).iter().find_map(|row| {
            let holds = |old: &Octets| row.octets.windows(old.len()).any(|part| part == old);
            self.pairs.iter().position(|(old, _)| holds(old))
        })
    }

    /// The same for octets that are no text.
    pub fn find_octets(&self, octets: &[u8]) -> Option<usize> {
        self.pairs.iter().position(|(old, _)| octets.windows(old.len()).any(|part| part == old))
    }
}

/// True for a value of YAML that stands there without quotes and is all of its scalar.
fn is_bare_scalar(line: &[u8], range: &Range<usize>) -> bool {
    let before = line.get(..range.start).unwrap_or_default();
    let after = line.get(range.end..).unwrap_or_default();
    let is_blank = |byte: Option<&u8>| byte.is_none_or(|byte| [b' ', b'\t', b'\r'].contains(byte));
    let starts = match before.trim_ascii_end().last() {
        None => true,
        Some(b':' | b'-') => is_blank(before.last()),
        Some(byte) => b"[,{".contains(byte),
    };
    let rest = after.trim_ascii_start();
    let is_comment = rest.starts_with(b"#") && is_blank(after.first());
    starts && (rest.is_empty() || is_comment || b",]}".contains(rest.first().unwrap_or(&b'x')))
}

/// How an address is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Colons,
    Dashes,
    Dots,
    Bare,
}

impl Form {
    fn write(self, octets: &Octets, is_upper: bool) -> String {
        let (separator, width) = match self {
            Form::Colons => (":", 1),
            Form::Dashes => ("-", 1),
            Form::Dots => (".", 2),
            Form::Bare => ("", 1),
        };
        let group = |part: &[u8]| part.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        let text = octets.chunks(width).map(group).collect::<Vec<_>>().join(separator);
        if is_upper { text.to_ascii_uppercase() } else { text }
    }
}

/// A row of six octets or more.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    range: Range<usize>,
    octets: Vec<u8>,
    form: Form,
    is_upper: bool,
}

impl Row {
    /// The address that it is, if it is one and nothing more.
    fn whole(&self) -> Option<Octets> {
        self.octets.as_slice().try_into().ok()
    }
}

/// Letters and digits between separators, and the separator before them.
struct Group<'a> {
    range: Range<usize>,
    text: &'a [u8],
    before: Option<u8>,
}

/// Every row of octets in a line.
fn rows(line: &[u8]) -> Vec<Row> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b":-.".contains(&byte);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = line.get(at..).filter(|rest| !rest.is_empty()) {
        let length = rest.iter().take_while(|byte| is_part(**byte)).count();
        if length == 0 {
            at += rest.iter().take_while(|byte| !is_part(**byte)).count();
            continue;
        }
        run(line, at..at + length, &mut found);
        at += length;
    }
    found
}

/// The rows of a run without blanks or other characters in it.
fn run(line: &[u8], run: Range<usize>, found: &mut Vec<Row>) {
    let before = line.get(..run.start).unwrap_or_default();
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut start = run.start;
    let mut separator = None;
    for at in run.start..=run.end {
        let byte = line.get(at).copied().filter(|_| at < run.end);
        if byte.is_some_and(|byte| byte.is_ascii_alphanumeric()) {
            continue;
        }
        let text = line.get(start..at).unwrap_or_default();
        groups.push(Group { range: start..at, text, before: separator });
        (start, separator) = (at + 1, byte);
    }
    // A name may look like an octet.
    if before.ends_with(b"ifname=") && groups.len() > 1 {
        groups.remove(0);
    }
    let mut rest = groups.as_slice();
    while let [first, ..] = rest {
        let row = [(b':', Form::Colons), (b'-', Form::Dashes), (b'.', Form::Dots)].into_iter().find_map(
            |(separator, form)| {
                let widths = if form == Form::Dots { 4..=4 } else { 1..=2 };
                let is_octets = |group: &Group<'_>| {
                    widths.contains(&group.text.len()) && group.text.iter().all(u8::is_ascii_hexdigit)
                };
                let count = rest
                    .iter()
                    .enumerate()
                    .take_while(|(at, group)| {
                        is_octets(group) && (*at == 0 || group.before == Some(separator))
                    })
                    .count();
                let least = if form == Form::Dots { 3 } else { 6 };
                (count >= least).then_some((form, count))
            },
        );
        match row {
            Some((form, count)) => {
                let (row, others) = rest.split_at(count);
                found.extend(joined(row, form, before));
                rest = others;
            }
            None => {
                let is_alone = groups.iter().filter(|group| !group.text.is_empty()).count() == 1;
                found.extend(bare(first, before).filter(|_| is_alone));
                rest = rest.get(1..).unwrap_or_default();
            }
        }
    }
}

fn joined(groups: &[Group<'_>], form: Form, before: &[u8]) -> Option<Row> {
    // The type of the hardware is no part of the address.
    let is_boot =
        groups.len() == 7 && before.ends_with(b"BOOTIF=") && matches!(groups.first()?.text, b"01" | b"1");
    let groups = if is_boot { groups.get(1..)? } else { groups };
    let mut octets = Vec::with_capacity(groups.len());
    for group in groups {
        let text = std::str::from_utf8(group.text).ok()?;
        let value = u16::from_str_radix(text, 16).ok()?;
        match form {
            Form::Dots => octets.extend(value.to_be_bytes()),
            _ => octets.push(u8::try_from(value).ok()?),
        }
    }
    let range = groups.first()?.range.start..groups.last()?.range.end;
    Some(Row { range, octets, form, is_upper: groups.iter().any(|group| has_upper(group.text)) })
}

/// Digits without separators.
fn bare(group: &Group<'_>, before: &[u8]) -> Option<Row> {
    // The name that udev makes of the address says so.
    let key = before.strip_suffix(b"\"").unwrap_or(before);
    let is_name = key.trim_ascii_end().trim_end_with(b"=}").ends_with(b"ID_NET_NAME_MAC");
    let digits = if is_name { group.text.strip_prefix(b"enx")? } else { group.text };
    let is_row = digits.len() >= 12 && digits.len() % 2 == 0 && digits.iter().all(u8::is_ascii_hexdigit);
    let octets = is_row.then(|| {
        digits
            .chunks(2)
            .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect()
    })?;
    let range = group.range.end - digits.len()..group.range.end;
    Some(Row { range, octets, form: Form::Bare, is_upper: has_upper(digits) })
}

fn has_upper(text: &[u8]) -> bool {
    text.iter().any(u8::is_ascii_uppercase)
}

/// What `str::trim_end_matches` is for text.
trait TrimEnd {
    fn trim_end_with(&self, bytes: &[u8]) -> &[u8];
}

impl TrimEnd for [u8] {
    fn trim_end_with(&self, bytes: &[u8]) -> &[u8] {
        let end = self.iter().rposition(|byte| !bytes.contains(byte)).map_or(0, |last| last + 1);
        self.get(..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn changes() -> Changes {
        let pair = |old: &str, new: &str| (old.to_owned(), new.to_owned());
        Changes::new(&[
            pair("00:50:56:aa:bb:0c", "52:54:00:12:34:56"),
            pair("00:50:56:00:00:0b", "52:54:00:ab:cd:ef"),
        ])
    }

    fn line(text: &str, language: Language) -> String {
        let new = changes().line(text.as_bytes(), language).unwrap_or_else(|| text.into());
        String::from_utf8(new).unwrap()
    }

    #[test]
    fn every_spelling_is_known() {
        for (old, new) in [
            ("HWADDR=00:50:56:AA:BB:0C", "HWADDR=52:54:00:12:34:56"),
            ("HWADDR=\"00:50:56:00:00:0B\" # lan", "HWADDR=\"52:54:00:AB:CD:EF\" # lan"),
            ("a=0:50:56:0:0:b;", "a=52:54:00:ab:cd:ef;"),
            ("MACAddress=0050.5600.000b 0050.56AA.bb0c", "MACAddress=5254.00ab.cdef 5254.0012.3456"),
            ("MACAddress=00-50-56-00-00-0b\t", "MACAddress=52-54-00-ab-cd-ef\t"),
            ("x 00505600000B y", "x 525400ABCDEF y"),
            ("linux /v BOOTIF=01-00-50-56-00-00-0b ro", "linux /v BOOTIF=01-52-54-00-ab-cd-ef ro"),
            ("ifname=eth0:00:50:56:00:00:0b", "ifname=eth0:52:54:00:ab:cd:ef"),
            // A name that looks like an octet.
            ("\"ifname=e0:00:50:56:00:00:0b\"", "\"ifname=e0:52:54:00:ab:cd:ef\""),
            (
                "ip=10.0.0.5::10.0.0.1:255.0.0.0:web:ens192:none:1500:00:50:56:00:00:0b",
                "ip=10.0.0.5::10.0.0.1:255.0.0.0:web:ens192:none:1500:52:54:00:ab:cd:ef",
            ),
            ("ip=00-50-56-00-00-0b:dhcp", "ip=52-54-00-ab-cd-ef:dhcp"),
            ("match-device=mac:00:50:56:00:00:0b,except:x", "match-device=mac:52:54:00:ab:cd:ef,except:x"),
            ("ENV{ID_NET_NAME_MAC}==\"enx00505600000b\"", "ENV{ID_NET_NAME_MAC}==\"enx525400abcdef\""),
            ("Property=ID_NET_NAME_MAC=enx00505600000b", "Property=ID_NET_NAME_MAC=enx525400abcdef"),
        ] {
            assert_eq!(line(old, Language::Plain), new);
            assert_eq!(line(new, Language::Plain), new, "once is enough");
            assert!(
                changes().find(old.as_bytes()).is_some() && changes().find(new.as_bytes()).is_none(),
                "{old}"
            );
        }
    }

    #[test]
    fn what_is_no_address_stays() {
        for (text, is_found) in [
            ("client-id=01:00:50:56:00:00:0b", true),
            ("DUIDRawData=00:01:00:01:2a:1f:bc:0b:00:50:56:00:00:0b", true),
            ("BOOTIF=02-00-50-56-00-00-0b", true),
            ("id=0100505600000b", true),
            ("guid=00:50:56:00:00:0b:00:01", true),
            ("uuid=2d1a6ee1-27ba-11ee-8b2a-00505600000b", false),
            ("iface enx00505600000b inet dhcp", false),
            ("x00505600000b 00505600000bx 005056 00:50:56:00:00:0c 00:50:56:00:00 00:50:56-00:00:0b", false),
            ("fe80::50:56:0:b ::: --- ...", false),
            ("é00:50:56:00:00:", false),
        ] {
            assert_eq!(line(text, Language::Plain), text);
            assert_eq!(changes().find(text.as_bytes()).is_some(), is_found, "{text}");
        }
        assert_eq!(changes().find_octets(b"\x00\x03\x00\x01\x00\x50\x56\xaa\xbb\x0c"), Some(0));
        assert_eq!(changes().find_octets(b"\x00\x50\x56\xaa\xbb"), None);
    }

    /// Python's YAML makes a number of `52:54:00:12:34:56`.
    #[test]
    fn numbers_of_base_60_get_quotes() {
        for (old, new) in [
            ("  macaddress: 00:50:56:aa:bb:0c", "  macaddress: \"52:54:00:12:34:56\""),
            ("  macaddress: 00:50:56:00:00:0b", "  macaddress: 52:54:00:ab:cd:ef"),
            ("- 00:50:56:aa:bb:0c # one", "- \"52:54:00:12:34:56\" # one"),
            (
                "{match: {macaddress: 00:50:56:aa:bb:0c}, a: [00:50:56:aa:bb:0c,b]}",
                "{match: {macaddress: \"52:54:00:12:34:56\"}, a: [\"52:54:00:12:34:56\",b]}",
            ),
            ("macaddress: '00:50:56:aa:bb:0c'", "macaddress: '52:54:00:12:34:56'"),
            ("  ip link set x address 00:50:56:aa:bb:0c", "  ip link set x address 52:54:00:12:34:56"),
            ("a: mac:00:50:56:aa:bb:0c", "a: mac:52:54:00:12:34:56"),
        ] {
            assert_eq!(line(old, Language::Yaml), new);
        }
    }

    #[test]
    fn one_form_for_all() {
        for (text, expected) in [
            ("00-50-56-AA-BB-CC", Some("00:50:56:aa:bb:cc")),
            (" \"0:50:56:a:b:c\"", Some("00:50:56:0a:0b:0c")),
            ("0050.56aa.bbcc", Some("00:50:56:aa:bb:cc")),
            ("005056aabbcc", None),
            ("00:50:56:aa:bb", None),
            ("01:00:50:56:aa:bb:cc", None),
            ("x 00:50:56:aa:bb:cc", None),
            ("preserve", None),
            ("", None),
        ] {
            assert_eq!(normal(text).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_twice_is_once(text in "(00:50:56:aa:bb:0c|00-50-56-00-00-0b|00505600000b|0050.5600.000b|ifname=|BOOTIF=|01-|ID_NET_NAME_MAC=|enx|[:.\\-0-9a-f \"'=\\[é])*") {
            for language in [Language::Plain, Language::Yaml] {
                if let Some(new) = changes().line(text.as_bytes(), language) {
                    prop_assert_eq!(changes().line(&new, language), None);
                    prop_assert!(std::str::from_utf8(&new).is_ok());
                }
            }
            let _ = normal(&text);
        }
    }
}
