//! The descriptor: the text that says what a disk consists of.
//!
//! Source: VMware, Virtual Disk Format 5.0, "The Descriptor File".
//!
//! ```text
//! # Disk DescriptorFile
//! version=1
//! encoding="UTF-8"
//! CID=0172e8a4
//! parentCID=ffffffff                                ffffffff: no parent
//! createType="twoGbMaxExtentFlat"
//! parentFileNameHint="base.vmdk"
//! RW 4192256 FLAT "web-f001.vmdk" 0                 access, sectors, type, file, offset in it (sectors)
//! RW 4096 ZERO
//! ddb.adapterType = "lsilogic"
//! ```
//! Read as VMware reads it: keys in any case, blanks around them, CRLF, NULs behind the text, comments anywhere.
//! Not tolerated is what would change the disk's content without a word: a line that is neither a comment nor a
//! setting nor an extent, and two different values for one of the chain's keys.

use crate::error::{Error, Result};
use crate::limits;
use crate::units::{SECTOR_SIZE_BYTES, Sectors};

const SIGNATURE: &str = "# Disk DescriptorFile";
const NO_PARENT: u32 = 0xffff_ffff;

/// What a descriptor says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    /// Content id. Absent in some that were written by hand.
    pub(super) cid: Option<u32>,
    /// Content id of the parent; `None` where the disk has no parent.
    pub(super) parent_cid: Option<u32>,
    /// Names of the parent, best first: as VMware reads it, then as it stands there.
    pub(super) parent_hint: Vec<String>,
    pub(super) create_type: String,
    pub(super) adapter_type: Option<String>,
    pub(super) hardware_version: Option<String>,
    pub(super) tools_version: Option<String>,
    /// Set where the content is encrypted: the words that say so.
    pub(super) encrypted: Option<String>,
    pub(super) extents: Vec<ExtentLine>,
}

/// One extent: the next `sectors` of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExtentLine {
    pub(super) access: Access,
    pub(super) sectors: Sectors,
    pub(super) kind: ExtentType,
    /// File name; empty for `Zero`.
    pub(super) name: String,
    /// The name as it stands in the text, where it has escapes in it.
    pub(super) unescaped: Option<String>,
    /// Where the extent starts in its file.
    pub(super) offset: Sectors,
}

/// May the guest read and write it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    ReadWrite,
    ReadOnly,
    None,
}

/// How an extent's content is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExtentType {
    /// FLAT, VMFS: the bytes of the disk.
    Flat,
    /// SPARSE, VMFSSPARSE, SESPARSE: told apart by their magic.
    Sparse,
    /// ZERO: no file.
    Zero,
    /// VMFSRDM, VMFSRDMP, VMFSRAW: a device of the ESXi host.
    RawDevice,
}

/// True where a file that starts with `head` is a descriptor: the signature among its leading comments, or the
/// keys that every descriptor has.
pub(super) fn probe(head: &[u8]) -> bool {
    for (_, line) in lines(head).take(64) {
        if line.eq_ignore_ascii_case(SIGNATURE.as_bytes()) {
            return true;
        }
        if line.starts_with(b"#") {
            continue;
        }
        let Some((key, _)) = setting(line) else { return false };
        return key == "version"
            && lines(head)
                .filter_map(|(_, line)| setting(line))
                .any(|(key, _)| key == "cid" || key == "createtype");
    }
    false
}

/// Reads a descriptor.
pub(super) fn parse(text: &[u8]) -> Result<Descriptor> {
    let encoding = Encoding::of(text);
    let mut out = Descriptor::default();
    let mut seen: [Option<Vec<u8>>; 4] = [None, None, None, None];
    for (number, line) in lines(text) {
        if line.starts_with(b"#") {
            continue;
        }
        if let Some(extent) = extent(line, &encoding).map_err(|what| at_line(number, line, &what))? {
            if out.extents.len() >= limits::VMDK_EXTENTS {
                return Err(Error::refused(format!(
                    "the descriptor names more than {} extents",
                    limits::VMDK_EXTENTS
                )));
            }
            out.extents.push(extent);
            continue;
        }
        let Some((key, value)) = setting(line) else {
            return Err(at_line(number, line, "is neither a setting nor an extent"));
        };
        let text = || -> String { String::from_utf8_lossy(value).into_owned() };
        let mut once = |slot: usize| match seen.get_mut(slot) {
            Some(Some(before)) if before != value => {
                Err(at_line(number, line, "contradicts an earlier line with the same key"))
            }
            Some(before) => {
                *before = Some(value.to_vec());
                Ok(())
            }
            None => Ok(()),
        };
        match key.as_str() {
            "cid" => {
                once(0)?;
                out.cid = Some(content_id(value).ok_or_else(|| at_line(number, line, "is no content id"))?);
            }
            "parentcid" => {
                once(1)?;
                let id = content_id(value).ok_or_else(|| at_line(number, line, "is no content id"))?;
                out.parent_cid = (id != NO_PARENT).then_some(id);
            }
            "createtype" => {
                once(2)?;
                out.create_type = text();
            }
            "parentfilenamehint" => {
                once(3)?;
                let (name, as_it_stands) =
                    encoding.name(value).map_err(|what| at_line(number, line, &what))?;
                out.parent_hint = std::iter::once(name).chain(as_it_stands).collect();
            }
            "ddb.adaptertype" => out.adapter_type = Some(text()),
            "ddb.virtualhwversion" => out.hardware_version = Some(text()),
            "ddb.toolsversion" => out.tools_version = Some(text()),
            "ddb.iofilters" if text().to_ascii_lowercase().contains("vmcrypt") => {
                out.encrypted = Some(format!("ddb.iofilters={}", text()));
            }
            "encryptionkeys" | "encryption.keysafe" | "encryption.data" => out.encrypted = Some(key),
            _ => {}
        }
    }
    if out.create_type.is_empty() {
        return Err(Error::corrupt("the descriptor has no createType"));
    }
    Ok(out)
}

/// The lines of the text up to the first NUL, numbered from 1, without blanks at their ends; empty ones left out.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    text[..end]
        .split(|&byte| byte == b'\n')
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_ascii()))
        .filter(|(_, line)| !line.is_empty())
}

/// `key = value`: the key in lower case, the value without blanks and quotes around it.
fn setting(line: &[u8]) -> Option<(String, &[u8])> {
    let at = line.iter().position(|&byte| byte == b'=')?;
    let key = line[..at].trim_ascii();
    if key.is_empty() || !key.iter().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let value = line[at + 1..].trim_ascii();
    let value = match value.strip_prefix(b"\"") {
        Some(quoted) => quoted.split(|&byte| byte == b'"').next().unwrap_or_default(),
        None => value,
    };
    Some((String::from_utf8_lossy(key).to_ascii_lowercase(), value))
}

/// An extent line, or `None` where the line does not start as one.
fn extent(line: &[u8], encoding: &Encoding) -> Result<Option<ExtentLine>, String> {
    let (word, rest) = word(line);
    let access = match word.to_ascii_uppercase().as_slice() {
        b"RW" => Access::ReadWrite,
        b"RDONLY" => Access::ReadOnly,
        b"NOACCESS" => Access::None,
        _ => return Ok(None),
    };
    let (sectors, rest) = self::word(rest);
    let sectors = number(sectors).filter(|&n| n > 0).ok_or("has no number of sectors, at least 1")?;
    let (kind_word, rest) = self::word(rest);
    let kind = match kind_word.to_ascii_uppercase().as_slice() {
        b"FLAT" | b"VMFS" => ExtentType::Flat,
        b"SPARSE" | b"VMFSSPARSE" | b"SESPARSE" => ExtentType::Sparse,
        b"ZERO" => ExtentType::Zero,
        b"VMFSRDM" | b"VMFSRDMP" | b"VMFSRAW" => ExtentType::RawDevice,
        _ => {
            return Err(format!("is an extent of the unknown type {:?}", String::from_utf8_lossy(kind_word)));
        }
    };
    let (name, rest) = match rest.strip_prefix(b"\"") {
        Some(quoted) => {
            let end = quoted.iter().position(|&byte| byte == b'"').ok_or("has no closing quote")?;
            (&quoted[..end], quoted[end + 1..].trim_ascii())
        }
        None => (&[][..], rest),
    };
    if name.is_empty() && kind != ExtentType::Zero {
        return Err("names no file in quotes".into());
    }
    let (offset, _) = self::word(rest);
    let offset = match offset {
        b"" => 0,
        digits => number(digits).ok_or("has an offset that is no number")?,
    };
    let (name, unescaped) = encoding.name(name)?;
    Ok(Some(ExtentLine { access, sectors: Sectors(sectors), kind, name, unescaped, offset: Sectors(offset) }))
}

/// The first word and what follows it, without blanks between.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_ascii_start())
}

/// A decimal number of sectors whose bytes fit 64 bits.
fn number(digits: &[u8]) -> Option<u64> {
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    number.checked_mul(SECTOR_SIZE_BYTES).map(|_| number)
}

/// Up to eight hexadecimal digits.
fn content_id(value: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(value).ok()?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(text, 16).ok()
}

fn at_line(number: usize, line: &[u8], what: &str) -> Error {
    let shown = String::from_utf8_lossy(line.get(..line.len().min(120)).unwrap_or_default());
    Error::corrupt(format!("line {number} of the descriptor, {shown:?}, {what}"))
}

/// The character set of the file names.
enum Encoding {
    Utf8,
    /// Also stands for ISO 8859-1, which VMware writes for the same bytes.
    Windows1252,
    /// Named, but not decoded: good for ASCII names.
    Other(String),
}

impl Encoding {
    fn of(text: &[u8]) -> Encoding {
        let named = lines(text)
            .filter(|(_, line)| !line.starts_with(b"#"))
            .filter_map(|(_, line)| setting(line))
            .find(|(key, _)| key == "encoding" || key == "ddb.encoding");
        let Some((_, name)) = named else { return Encoding::Utf8 };
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        match name.as_str() {
            "" | "utf-8" | "utf8" | "us-ascii" | "ascii" => Encoding::Utf8,
            "windows-1252" | "cp1252" | "iso-8859-1" | "latin1" => Encoding::Windows1252,
            _ => Encoding::Other(name),
        }
    }

    /// A file's name with its escapes resolved, and the name as it stands there if that is another one.
    fn name(&self, written: &[u8]) -> Result<(String, Option<String>), String> {
        let resolved = unescape(written);
        if resolved == written {
            return Ok((self.decode(written)?, None));
        }
        Ok((self.decode(&resolved)?, Some(self.decode(written)?)))
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, String> {
        if bytes.is_ascii() {
            return Ok(String::from_utf8_lossy(bytes).into_owned());
        }
        match self {
            Encoding::Utf8 => std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| {
                "names a file in bytes that are not UTF-8, and no encoding says what they are".into()
            }),
            Encoding::Windows1252 => bytes
                .iter()
                .map(|&byte| windows_1252(byte))
                .collect::<Option<String>>()
                .ok_or_else(|| "names a file with a byte that windows-1252 does not define".into()),
            Encoding::Other(name) => Err(format!(
                "names a file in the encoding {name}; only ASCII names, UTF-8 and windows-1252 are read"
            )),
        }
    }
}

/// `|` and two hexadecimal digits are a byte: what would end the name or the line, and `|` itself.
fn unescape(written: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(written.len());
    let mut rest = written;
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = match (byte, behind) {
            (b'|', [high, low, ..]) => digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        out.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { behind.get(2..).unwrap_or_default() } else { behind };
    }
    out
}

fn windows_1252(byte: u8) -> Option<char> {
    const UPPER: [char; 32] = [
        '€', '\0', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\0', 'Ž', '\0', '\0', '‘', '’',
        '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\0', 'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9f => UPPER.get(usize::from(byte - 0x80)).copied().filter(|&c| c != '\0'),
        _ => Some(char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ESXI: &str = "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=8f67ca74\nparentCID=0172e8a4\n\
        createType=\"vmfsSparse\"\nparentFileNameHint=\"vmfs_thick.vmdk\"\n# Extent description\n\
        RW 4096 VMFSSPARSE \"vmfs_thick-000001-delta.vmdk\"\n\n# The Disk Data Base \n#DDB\n\nddb.adapterType = \"lsilogic\"\n";

    #[test]
    fn an_esxi_snapshot() {
        let read = parse(ESXI.as_bytes()).unwrap();
        assert_eq!(read.cid, Some(0x8f67_ca74));
        assert_eq!(read.parent_cid, Some(0x0172_e8a4));
        assert_eq!(read.parent_hint, ["vmfs_thick.vmdk"]);
        assert_eq!(read.create_type, "vmfsSparse");
        assert_eq!(read.adapter_type.as_deref(), Some("lsilogic"));
        assert_eq!(
            read.extents,
            [ExtentLine {
                access: Access::ReadWrite,
                sectors: Sectors(4096),
                kind: ExtentType::Sparse,
                name: "vmfs_thick-000001-delta.vmdk".into(),
                unescaped: None,
                offset: Sectors(0)
            }]
        );
    }

    #[test]
    fn spelling_does_not_matter() {
        let wanted = parse(ESXI.as_bytes()).unwrap();
        let crlf = ESXI.replace('\n', " \t\r\n");
        let upper = ESXI.replace("\nCID=", "\n Cid  =  ").replace("createType", "CREATETYPE");
        let padded = format!("\u{feff}{ESXI}\0\0garbage\0");
        let words = ESXI.replace("RW 4096 VMFSSPARSE ", "  rw\t4096   vmfsSparse  ");
        let unquoted = ESXI.replace("\"vmfsSparse\"", "vmfsSparse");
        for text in [crlf, upper, padded, words, unquoted] {
            assert!(probe(text.as_bytes()), "{text}");
            assert_eq!(parse(text.as_bytes()).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_a_descriptor() {
        for (text, wanted) in [
            ("# Disk DescriptorFile\nversion=1\n", true),
            ("# disk descriptorfile\r\n", true),
            ("\n\n# written by hand\n  # Disk DescriptorFile  \n", true),
            ("# comment\nversion=1\nCID=00000000\n", true),
            ("version = 1\ncreateType=\"vmfs\"\n", true),
            ("version=1\nname=\"x\"\n", false),
            ("", false),
            ("#!/bin/sh\necho\n# Disk DescriptorFile\n", false),
            ("\0# Disk DescriptorFile\n", false),
        ] {
            assert_eq!(probe(text.as_bytes()), wanted, "{text:?}");
        }
    }

    #[test]
    fn names_are_decoded() {
        let text = |encoding: &str, name: &[u8]| {
            let mut text = format!("createType=x\n{encoding}\nRW 1 FLAT \"").into_bytes();
            text.extend_from_slice(name);
            text.extend_from_slice(b"\" 0\n");
            parse(&text).map(|read| read.extents[0].name.clone())
        };
        assert_eq!(text("", "größe ✓.vmdk".as_bytes()).unwrap(), "größe ✓.vmdk");
        assert_eq!(text("encoding=\"windows-1252\"", b"gr\xf6\xdfe \x80.vmdk").unwrap(), "größe €.vmdk");
        assert_eq!(text("encoding=\"Shift_JIS\"", b"disk.vmdk").unwrap(), "disk.vmdk");
        assert!(text("ddb.encoding=\"Shift_JIS\"", b"\x83f.vmdk").unwrap_err().says().contains("shift_jis"));
        assert!(text("encoding=\"windows-1252\"", b"\x81.vmdk").is_err());
        assert!(text("", b"gr\xf6\xdfe.vmdk").is_err());
    }

    #[test]
    fn escapes_in_names_are_resolved() {
        for (written, name, unescaped) in [
            ("a |22b|22|7C.vmdk", "a \"b\"|.vmdk", Some("a |22b|22|7C.vmdk")),
            ("gr|c3|b6|C3|9f.vmdk", "größ.vmdk", Some("gr|c3|b6|C3|9f.vmdk")),
            ("a|b.vmdk", "a|b.vmdk", None),
            ("a|", "a|", None),
            ("a|2", "a|2", None),
            ("|||22", "||\"", Some("|||22")),
        ] {
            let text = format!("createType=x\nRW 1 FLAT \"{written}\" 0\nparentFileNameHint=\"{written}\"\n");
            let read = parse(text.as_bytes()).unwrap();
            assert_eq!(read.extents[0].name, name);
            assert_eq!(read.extents[0].unescaped.as_deref(), unescaped);
            let hints: Vec<&str> = std::iter::once(name).chain(unescaped).collect();
            assert_eq!(read.parent_hint, hints);
        }
        assert!(parse(b"createType=x\nRW 1 FLAT \"a|ff\" 0\n").is_err(), "not UTF-8");
    }

    #[test]
    fn what_changes_content_is_not_tolerated() {
        for line in [
            "RW",
            "RW x FLAT \"a\"",
            "RW 0 FLAT \"a\"",
            "RW -5 FLAT \"a\"",
            "RW 36028797018963968 FLAT \"a\"",
            "RW 99999999999999999999 FLAT \"a\"",
            "RW 1 FLATT \"a\"",
            "RW 1 FLAT",
            "RW 1 FLAT \"\"",
            "RW 1 FLAT \"a",
            "RW 1 FLAT \"a\" b",
            "RX 1 FLAT \"a\"",
            "CID=0000000g",
            "CID=",
            "parentCID=1ffffffff",
            "CID=1\nCID=2",
            "createType=y",
            "a line of text",
        ] {
            let text = format!("createType=x\n{line}\n");
            let error = parse(text.as_bytes()).expect_err(line);
            assert_eq!(error.kind(), crate::Kind::Corrupt, "{line}");
            assert!(error.says().contains("line"), "{error}");
        }
        assert!(parse(b"CID=1\n").unwrap_err().says().contains("createType"));
    }

    #[test]
    fn too_many_extents_are_refused() {
        let text = |n: usize| format!("createType=x\n{}", "RW 1 ZERO\n".repeat(n));
        assert_eq!(parse(text(limits::VMDK_EXTENTS).as_bytes()).unwrap().extents.len(), limits::VMDK_EXTENTS);
        assert_eq!(
            parse(text(limits::VMDK_EXTENTS + 1).as_bytes()).unwrap_err().kind(),
            crate::Kind::Refused
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = (probe(&text), parse(&text));
        }

        #[test]
        fn any_change_is_safe(at in 0usize..500, with in proptest::collection::vec(any::<u8>(), 0..8), cut in 0usize..8) {
            let mut text = ESXI.as_bytes().to_vec();
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, with);
            let _ = (probe(&text), parse(&text));
        }

        #[test]
        fn extents_round_trip(sectors in 1u64..(1 << 54), offset in 0u64..(1 << 54), name in "[^\"|\\x00\r\n]{1,40}") {
            let text = format!("createType=x\nRW {sectors} FLAT \"{name}\" {offset}\n");
            let read = parse(text.as_bytes()).unwrap();
            prop_assert_eq!(&read.extents[0].name, &name);
            prop_assert_eq!(read.extents[0].sectors, Sectors(sectors));
            prop_assert_eq!(read.extents[0].offset, Sectors(offset));
        }
    }
}
