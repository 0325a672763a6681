//! One record of a folder, and the name that it gives (ECMA-119, 9.1; IEEE P1281 and P1282; the Joliet specification).
//!
//! ```text
//! +0 length u8, +1 blocks of attributes u8, +2 first block u32 LE, +10 bytes u32 LE, +25 flags u8 (2 folder, 4 associated, 0x80 goes on)
//! +26 unit u8, +27 gap u8 (interleaved), +32 length of the name u8, +33 name, a zero where that makes it even, then entries
//! entries: [signature; 2] [length u8] [version u8] …   NM name, CE goes on elsewhere, SL link, PN device, ZF compressed
//! ```
//! Big-endian copies of numbers are not read: writers differ in them, readers do not look.

use crate::error::Result;

/// Areas that one record's entries go on in; one is usual.
const AREAS: usize = 8;

/// Bytes of a name: what Linux takes.
const NAME: usize = 255;

pub(super) fn u16_le(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(super) fn u32_le(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// A record.
pub(super) struct Record<'b> {
    /// Bytes of it in all.
    pub length: usize,
    attributes: u8,
    block: u32,
    bytes: u32,
    flags: u8,
    unit: u8,
    gap: u8,
    /// As it lies there.
    pub name: &'b [u8],
    /// What follows the name.
    pub system_use: &'b [u8],
}

impl<'b> Record<'b> {
    /// The record at the start of `bytes`; `None` where it is cut off.
    pub fn parse(bytes: &'b [u8]) -> Option<Record<'b>> {
        let length = usize::from(*bytes.first()?);
        let bytes = bytes.get(..length)?;
        let name_length = usize::from(*bytes.get(32)?);
        let name = bytes.get(33..33 + name_length)?;
        // A pad byte keeps what follows at even offsets.
        let after = 33 + name_length + (1 - name_length % 2);
        Some(Record {
            length,
            attributes: bytes[1],
            block: u32_le(bytes, 2)?,
            bytes: u32_le(bytes, 10)?,
            flags: bytes[25],
            unit: bytes[26],
            gap: bytes[27],
            name,
            system_use: bytes.get(after..).unwrap_or_default(),
        })
    }

    pub fn is_folder(&self) -> bool {
        self.flags & 2 != 0
    }
    /// The next record is the next piece of the same file.
    pub fn continues(&self) -> bool {
        self.flags & 0x80 != 0
    }
    pub fn is_interleaved(&self) -> bool {
        self.unit != 0 || self.gap != 0
    }
    /// It holds what another system keeps beside the file of the same name, and comes before it.
    pub fn is_associated(&self) -> bool {
        self.flags & 4 != 0
    }
    pub fn is_itself_or_parent(&self) -> bool {
        matches!(self.name, [0 | 1])
    }
    /// Where the content lies: byte in the image, length.
    pub fn extent(&self, block: u64) -> (u64, u64) {
        ((u64::from(self.block) + u64::from(self.attributes)) * block, u64::from(self.bytes))
    }
}

/// How an image spells names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// `VIOSTOR.INF;1`
    Plain,
    /// UTF-16 in big-endian order.
    Joliet,
    /// In entries behind the record.
    RockRidge {
        /// Bytes before the entries.
        skip: usize,
    },
}

/// What the entries of Rock Ridge say.
#[derive(Default)]
pub(super) struct Extras {
    pub name: Option<String>,
    pub is_special: bool,
    pub is_compressed: bool,
}

impl Scheme {
    /// A name without its version number.
    pub fn name(self, raw: &[u8]) -> String {
        let name = match self {
            Scheme::Joliet => {
                let units: Vec<u16> =
                    raw.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
                String::from_utf16_lossy(&units)
            }
            _ => String::from_utf8_lossy(raw).into_owned(),
        };
        let name = match name.rsplit_once(';') {
            Some((name, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
            _ => name,
        };
        match self {
            // A name without an extension has a dot all the same.
            Scheme::Plain => name.strip_suffix('.').map_or(name.clone(), str::to_owned),
            _ => name,
        }
    }

    /// What a record's entries say; `area` reads bytes at a block and an offset in it.
    pub fn extras(
        self,
        record: &Record<'_>,
        area: impl Fn(u32, u32, u32) -> Result<Vec<u8>>,
    ) -> Result<Extras> {
        let Scheme::RockRidge { skip } = self else { return Ok(Extras::default()) };
        let mut extras = Extras::default();
        let mut name: Vec<u8> = Vec::new();
        let mut bytes = record.system_use.get(skip..).unwrap_or_default().to_vec();
        for _ in 0..AREAS {
            let mut next = None;
            let mut rest = bytes.as_slice();
            while let [first, second, length, _, ..] = rest {
                let Some(entry) = rest.get(..usize::from(*length)).filter(|entry| entry.len() >= 4) else {
                    break;
                };
                match [*first, *second] {
                    [b'N', b'M'] => name.extend(entry.get(5..).unwrap_or_default()),
                    [b'C', b'E'] => {
                        next = u32_le(entry, 4).zip(u32_le(entry, 12)).zip(u32_le(entry, 20));
                    }
                    [b'S', b'L'] | [b'P', b'N'] | [b'C', b'L'] | [b'R', b'E'] => extras.is_special = true,
                    [b'Z', b'F'] => extras.is_compressed = true,
                    [b'S', b'T'] => break,
                    _ => {}
                }
                rest = rest.get(entry.len()..).unwrap_or_default();
            }
            let Some(((block, offset), length)) = next else { break };
            bytes = area(block, offset, length)?;
        }
        name.truncate(NAME);
        extras.name = (!name.is_empty()).then(|| String::from_utf8_lossy(&name).into_owned());
        Ok(extras)
    }
}
