//! The headers of a tar archive, as far as an OVA and an XVA need them.
//!
//! Source: POSIX.1-2017, `pax` utility, "ustar Interchange Format" and "pax Interchange Format"; the GNU tar manual,
//! "GNU tar and POSIX tar" (long names, sizes in base 256).
//!
//! ```text
//! 0 name:100   100 mode:8   108 uid:8   116 gid:8   124 size:12   136 mtime:12   148 checksum:8   156 type:1
//! 157 link:100   257 "ustar\0" "00" (GNU: "ustar  \0")   265 user:32   297 group:32   345 prefix:155   500 -
//! ```
//! A header takes 512 bytes, its content follows and is filled up to 512. Two blocks of zeros end the archive.

use crate::error::Result;
use crate::limits;
use crate::source::Source;
use crate::units::{Bytes, FileOffset};

pub(crate) const BLOCK: u64 = 512;
pub(crate) type Header = [u8; 512];

const NAME: std::ops::Range<usize> = 0..100;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;
const MAGIC: std::ops::Range<usize> = 257..262;
const PREFIX: std::ops::Range<usize> = 345..500;

/// A regular file in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As the archive has it, without a leading `./`.
    pub name: String,
    /// Where its content lies in the archive.
    pub at: FileOffset,
    /// Length of its content.
    pub len: Bytes,
}

/// True where the block is a tar header: its magic and its checksum are right.
pub(crate) fn is_header(block: &Header) -> bool {
    &block[MAGIC] == b"ustar" && has_checksum(block)
}

/// True where the header is that of a member of this name.
pub(crate) fn begins_with(block: &Header, name: &str) -> bool {
    own_name(block).strip_prefix(b"./").unwrap_or(&own_name(block)) == name.as_bytes()
}

fn has_checksum(block: &Header) -> bool {
    let Some(recorded) = number(&block[CHECKSUM]) else { return false };
    let in_place = |(at, byte): (usize, &u8)| if CHECKSUM.contains(&at) { b' ' } else { *byte };
    let unsigned: u64 = block.iter().enumerate().map(in_place).map(u64::from).sum();
    // Some old writers add up signed characters.
    let signed: i64 = block.iter().enumerate().map(in_place).map(|byte| i64::from(byte.cast_signed())).sum();
    recorded == unsigned || i64::try_from(recorded) == Ok(signed)
}

/// A number in octal digits, or in base 256 where the first bit is set. `None` for anything else, negative ones
/// among it.
fn number(field: &[u8]) -> Option<u64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let start = u64::from(first & 0x7f);
        return rest.iter().try_fold(start, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte)));
    }
    let text = field.split(|byte| *byte == 0).next()?.trim_ascii();
    text.iter().try_fold(0u64, |sum, byte| match byte {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// What headers before a member's own say of it.
#[derive(Default)]
struct Ahead {
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

/// What is read with one call: the header after a member of some bytes, the member after it and its header, too.
const AT_ONCE: usize = 2048;

/// The way through an archive, header by header. Folders are passed over; links, sparse files and devices are refused.
pub(crate) struct Walk<'a> {
    archive: &'a Source,
    /// What the archive is called where something has no place in it: `an OVA`.
    title: &'static str,
    /// Where the next header is.
    at: u64,
    /// Headers that may still come; those that are no members count, too.
    left: usize,
    at_most: usize,
    /// Bytes around the last header, and where they begin.
    near: Vec<u8>,
    near_at: u64,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(archive: &'a Source, title: &'static str, at_most: usize) -> Walk<'a> {
        Walk { archive, title, at: 0, left: at_most, at_most, near: Vec::new(), near_at: 0 }
    }

    /// Fills the header from what was read last, or reads on.
    fn header(&mut self) -> Result<Header> {
        let mut block: Header = [0; 512];
        let inside = self.at.checked_sub(self.near_at).and_then(|skip| usize::try_from(skip).ok());
        let near = inside.and_then(|skip| self.near.get(skip..skip.checked_add(block.len())?));
        match near {
            Some(near) => block.copy_from_slice(near),
            None => {
                let rest = self.archive.len().0.saturating_sub(self.at);
                let len = usize::try_from(rest).unwrap_or(usize::MAX).min(AT_ONCE);
                // A piece of a header is an error of the read that names its place.
                let len = len.max(block.len());
                self.near.resize(len, 0);
                self.near_at = self.at;
                self.archive.read_exact_at(FileOffset(self.at), &mut self.near)?;
                block.copy_from_slice(&self.near[..512]);
            }
        }
        Ok(block)
    }

    /// The next regular file; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Member>> {
        let mut ahead = Ahead::default();
        while self.left > 0 {
            self.left -= 1;
            // Archives whose end marker was lost are read by everybody.
            if self.at >= self.archive.len().0 {
                return Ok(None);
            }
            let block = self.header()?;
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            if let Some(member) = self.member(&block, &mut ahead)? {
                return Ok(Some(member));
            }
        }
        Err(self.archive.corrupt(format!("the archive has more than {} headers", self.at_most)))
    }

    /// The member of this header, where it is one of a regular file; on to the next header in any case.
    fn member(&mut self, block: &Header, ahead: &mut Ahead) -> Result<Option<Member>> {
        let (archive, at, title) = (self.archive, self.at, self.title);
        let corrupt = |says: &str| archive.corrupt(format!("tar header: {says}")).at(FileOffset(at));
        if !has_checksum(block) {
            return Err(corrupt("the checksum is wrong").hint("copy the archive again from its origin"));
        }
        let recorded = number(&block[SIZE]).ok_or_else(|| corrupt("the size is no number"))?;
        let kind = block[TYPE];
        let is_extension = matches!(kind, b'L' | b'K' | b'x' | b'g');
        let size = if is_extension { recorded } else { ahead.size.unwrap_or(recorded) };
        // Links and folders have no content, whatever is recorded.
        let size = if matches!(kind, b'1'..=b'6') { 0 } else { size };
        let content = at.checked_add(BLOCK).ok_or_else(|| corrupt("lies past 2^64"))?;
        let end = content.checked_add(size).filter(|end| *end <= archive.len().0);
        let Some(end) = end else {
            let says = format!("the content has {size} bytes; the archive ends at {:#x}", archive.len().0);
            return Err(
                corrupt(&says).hint("the archive is cut off and incomplete: copy it again from its origin")
            );
        };
        self.at = end.checked_next_multiple_of(BLOCK).ok_or_else(|| corrupt("lies past 2^64"))?;
        if is_extension {
            let text = |at_most: u64| -> Result<Vec<u8>> {
                if size > at_most {
                    return Err(corrupt(&format!(
                        "an extended header of {size} bytes; at most {at_most} are read"
                    )));
                }
                let mut text = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
                archive.read_exact_at(FileOffset(content), &mut text)?;
                Ok(text)
            };
            match kind {
                b'L' => ahead.name = Some(until_nul(&text(limits::NAME.0)?).to_vec()),
                b'x' => {
                    extended(&text(limits::OVA_EXTENDED_HEADER.0)?, ahead, title)
                        .map_err(|says| corrupt(&says))?;
                }
                // The target of a link, and what counts for all members: neither is a name or a size of one.
                _ => {}
            }
            return Ok(None);
        }
        let Ahead { name, .. } = std::mem::take(ahead);
        let name = name.unwrap_or_else(|| own_name(block));
        let name = String::from_utf8(name).map_err(|_| corrupt("the name is not UTF-8"))?;
        let name = name.trim_start_matches("./").to_owned();
        let refuse = |what: &str| {
            Err(archive
                .unsupported(format!("the member {name:?} is {what}, which has no place in {title}"))
                .at(FileOffset(at)))
        };
        match kind {
            b'0' | 0 | b'7' if !name.ends_with('/') => {
                Ok(Some(Member { name, at: FileOffset(content), len: Bytes(size) }))
            }
            b'0' | 0 | b'7' | b'5' => Ok(None),
            b'1' | b'2' => refuse("a link"),
            b'S' => refuse("a sparse file"),
            b'3' | b'4' | b'6' => refuse("a device or pipe"),
            _ => refuse("of an unknown type"),
        }
    }
}

/// The regular files of an OVA's archive, in its order. Two files of one name are refused.
pub(crate) fn members(archive: &Source) -> Result<Vec<Member>> {
    let mut walk = Walk::new(archive, "an OVA", limits::OVA_HEADERS);
    let mut out: Vec<Member> = Vec::new();
    let mut names = std::collections::HashSet::new();
    while let Some(member) = walk.next()? {
        if member.name.is_empty() || !names.insert(member.name.clone()) {
            let says = format!("tar header: two members have the name {:?}", member.name);
            return Err(archive.corrupt(says).at(FileOffset(member.at.0.saturating_sub(BLOCK))));
        }
        out.push(member);
    }
    Ok(out)
}

/// The name in the header itself. GNU's magic means other fields where ustar has the prefix.
fn own_name(block: &Header) -> Vec<u8> {
    let name = until_nul(&block[NAME]);
    let prefix = until_nul(&block[PREFIX]);
    if block[262] != 0 || &block[MAGIC] != b"ustar" || prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

/// The records of a pax header: `length key=value\n`, the length counting all of it.
fn extended(mut text: &[u8], ahead: &mut Ahead, title: &str) -> Result<(), String> {
    let bad = || "a record of the pax header is damaged".to_owned();
    while !text.is_empty() && text[0] != 0 {
        let space = text.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let len: usize =
            std::str::from_utf8(&text[..space]).ok().and_then(|n| n.parse().ok()).ok_or_else(bad)?;
        let record = text.get(space + 1..len).ok_or_else(bad)?;
        let (record, end) = record.split_at_checked(record.len().wrapping_sub(1)).ok_or_else(bad)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if end != b"\n" {
            return Err(bad());
        }
        match key {
            b"path" => ahead.name = Some(value.to_vec()),
            b"size" => {
                let size = std::str::from_utf8(value).ok().and_then(|n| n.parse().ok());
                ahead.size = Some(size.ok_or_else(bad)?);
            }
            key if key.starts_with(b"GNU.sparse.") => {
                return Err(format!("the member is a sparse file, which has no place in {title}"));
            }
            _ => {}
        }
        text = text.get(len..).ok_or_else(bad)?;
    }
    Ok(())
}

/// The header of a regular file, the same whoever writes it and whenever. Sizes from 8 GiB on are in base 256,
/// which every reader of archives takes. `None` for a name that is longer than 100 letters, or holds others than those of ASCII
/// that are seen.
pub(crate) fn header(name: &str, size: Bytes) -> Option<Header> {
    let plain = !name.is_empty() && name.len() <= 100 && name.bytes().all(|b| b.is_ascii_graphic());
    if !plain {
        return None;
    }
    let mut block: Header = [0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    let octal = format!("{:011o}", size.0);
    if octal.len() == 11 {
        block[124..135].copy_from_slice(octal.as_bytes());
    } else {
        block[128..136].copy_from_slice(&size.0.to_be_bytes());
        block[124] = 0x80;
    }
    block[136..147].copy_from_slice(b"00000000000");
    block[TYPE] = b'0';
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[CHECKSUM].fill(b' ');
    let sum: u64 = block.iter().copied().map(u64::from).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    Some(block)
}
