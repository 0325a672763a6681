//! The metadata of BitLocker.
//!
//! ```text
//! boot sector    3 "-FVE-FS-" (To Go: "MSWIN4.1") · 0x0B bytes per sector · 0xA0 GUID, 0xB0 three offsets (To Go: 0x1A8, 0x1B8)
//! block          0 "-FVE-FS-" · 10 version (2) · 12 state (4: encrypted) · 32 three offsets · 56 where the header lies
//! at 64          0 size · 8 size of this header (0x30) · 36 method · then entries
//! entry          0 size · 2 type · 4 kind of value · 8 value
//! ```

use super::damaged;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::units::{FileOffset, GuestOffset};
use zeroize::Zeroizing;

/// Bytes of one copy of the metadata, on the disk.
pub(super) const BLOCK: u64 = 64 << 10;

/// GUIDs at the beginning, as they are stored: encrypted as a whole, and as it is written.
const NORMAL: [u8; 16] =
    [0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01];
const ON_WRITE: [u8; 16] =
    [0x3b, 0x4d, 0xa8, 0x92, 0x80, 0xdd, 0x0e, 0x4d, 0x9e, 0x4e, 0xb1, 0xe3, 0x28, 0x4e, 0xae, 0xd8];

/// Encrypted, and nothing under way.
const ENCRYPTED: u16 = 4;

/// Protectors that are kept: each costs a second. People have a handful.
const MASTERS_AT_MOST: usize = 16;

/// Types of entries, and kinds of values.
const MASTER: u16 = 2;
const VOLUME_KEY: u16 = 3;
const HEADER: u16 = 15;
const KEY: u16 = 1;
const STRETCH: u16 = 3;
const SEALED: u16 = 5;

/// What protects a copy of the master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    /// The key lies beside it.
    Clear,
    /// 48 digits.
    Recovery,
    Password,
    Tpm,
    /// On a USB stick.
    KeyFile,
    Other(u16),
}

/// A key encrypted by another (AES-CCM).
#[derive(Clone, Debug, Default)]
pub(super) struct Sealed {
    pub nonce: [u8; 12],
    pub tag: [u8; 16],
    pub data: Vec<u8>,
}

/// A copy of the master key.
pub(super) struct Master {
    pub protection: Protection,
    pub salt: Option<[u8; 16]>,
    /// In the clear, where protection is suspended.
    pub clear: Option<Zeroizing<Vec<u8>>>,
    pub sealed: Option<Sealed>,
}

/// What is known of a volume.
pub(super) struct Metadata {
    /// Bytes that are encrypted as one.
    pub sector: u64,
    /// How its sectors are encrypted: 0x8000 to 0x8005.
    pub method: u16,
    /// Where the copies of the metadata lie.
    pub copies: [u64; 3],
    /// Where the first bytes of the volume lie, and how many these are.
    pub header_at: u64,
    pub header_len: u64,
    pub masters: Vec<Master>,
    pub volume_key: Sealed,
}

fn array<const N: usize>(raw: &[u8], at: usize) -> Option<[u8; N]> {
    raw.get(at..at.checked_add(N)?)?.try_into().ok()
}
fn le16(raw: &[u8], at: usize) -> Option<u16> {
    array(raw, at).map(u16::from_le_bytes)
}
fn le32(raw: &[u8], at: usize) -> Option<u32> {
    array(raw, at).map(u32::from_le_bytes)
}
fn le64(raw: &[u8], at: usize) -> Option<u64> {
    array(raw, at).map(u64::from_le_bytes)
}

impl Metadata {
    pub(super) fn read(disk: &dyn Disk) -> Result<Metadata> {
        let mut boot = [0; 512];
        if disk.size().0 < boot.len() as u64 {
            return Err(damaged("the volume is shorter than a sector"));
        }
        disk.read_at(GuestOffset(0), &mut boot)?;
        let at = if boot.get(3..11) == Some(b"MSWIN4.1") { 0x1a8 } else { 0xa0 };
        match array(&boot, at) {
            Some(NORMAL) => {}
            Some(ON_WRITE) => {
                return Err(unsupported("encrypts only what is written (encrypt-on-write)"));
            }
            _ => return Err(unsupported("has the layout of Windows Vista, or one that is not known")),
        }
        let copies = [0, 8, 16].map(|more| le64(&boot, at + 16 + more).unwrap_or(0));
        let sector = le16(&boot, 0x0b).map_or(0, u64::from);
        if ![512, 1024, 2048, 4096].contains(&sector) {
            return Err(damaged(&format!("sectors of {sector} bytes")));
        }
        let mut trouble = None;
        for at in copies {
            match Metadata::read_copy(disk, at, sector) {
                Ok(metadata) => return Ok(metadata),
                Err(error) if error.kind() == crate::Kind::Corrupt => drop(trouble.get_or_insert(error)),
                Err(error) => return Err(error),
            }
        }
        Err(trouble.unwrap_or_else(|| damaged("there are none")))
    }

    fn read_copy(disk: &dyn Disk, at: u64, sector: u64) -> Result<Metadata> {
        if at == 0 || at.checked_add(BLOCK).is_none_or(|end| end > disk.size().0) {
            return Err(damaged(&format!("a copy at {at:#x}, outside of the volume")));
        }
        let mut raw = Zeroizing::new(vec![0; usize::try_from(BLOCK).unwrap_or(0)]);
        disk.read_at(GuestOffset(at), &mut raw)?;
        if raw.get(..8) != Some(b"-FVE-FS-") {
            return Err(damaged("a copy without its mark").at(FileOffset(at)));
        }
        let cut = || damaged("a copy is cut off").at(FileOffset(at));
        let version = le16(&raw, 10).ok_or_else(cut)?;
        if version != 2 {
            return Err(unsupported(&format!(
                "has metadata of version {version}; 2 (Windows 7 and newer) is read"
            )));
        }
        let state = le16(&raw, 12).ok_or_else(cut)?;
        if state != ENCRYPTED {
            return Err(unsupported(&format!(
                "is not encrypted as a whole: its encryption is under way, or was paused (state {state})"
            )));
        }
        let copies = [32, 40, 48].map(|at| le64(&raw, at).unwrap_or(0));
        let size = usize::try_from(le32(&raw, 64).ok_or_else(cut)?).unwrap_or(usize::MAX);
        let head = usize::try_from(le32(&raw, 72).ok_or_else(cut)?).unwrap_or(usize::MAX);
        let entries = size
            .checked_add(64)
            .zip(head.checked_add(64))
            .and_then(|(end, start)| raw.get(start..end))
            .ok_or_else(cut)?;
        let mut metadata = Metadata {
            sector,
            method: le16(&raw, 100).ok_or_else(cut)?,
            copies,
            header_at: le64(&raw, 56).ok_or_else(cut)?,
            header_len: 0,
            masters: Vec::new(),
            volume_key: Sealed::default(),
        };
        for (kind, value, data) in Entries(entries) {
            match (kind, value) {
                (MASTER, _) if metadata.masters.len() < MASTERS_AT_MOST => {
                    metadata.masters.extend(master(data));
                }
                (VOLUME_KEY, SEALED) => metadata.volume_key = sealed(data).ok_or_else(cut)?,
                (HEADER, HEADER) => {
                    metadata.header_at = le64(data, 0).ok_or_else(cut)?;
                    metadata.header_len = le64(data, 8).ok_or_else(cut)?;
                }
                _ => {}
            }
        }
        match metadata.volume_key.data.is_empty() {
            true => Err(damaged("a copy without the volume's key").at(FileOffset(at))),
            false => Ok(metadata),
        }
    }
}

fn unsupported(what: &str) -> Error {
    Error::unsupported(format!("the BitLocker volume {what}"))
        .hint("decrypt it in the source machine (manage-bde -off), then convert again")
}

/// Type, kind of value, and value of each entry. Ends where one does not fit.
struct Entries<'e>(&'e [u8]);

impl<'e> Iterator for Entries<'e> {
    type Item = (u16, u16, &'e [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(le16(self.0, 0)?);
        let entry = self.0.get(..len).filter(|entry| entry.len() >= 8)?;
        self.0 = self.0.get(len..)?;
        Some((le16(entry, 2)?, le16(entry, 4)?, entry.get(8..)?))
    }
}

/// 16 GUID · 8 time · 2 unknown · 2 protection · entries.
fn master(data: &[u8]) -> Option<Master> {
    let protection = match le16(data, 26)? {
        0 => Protection::Clear,
        0x0800 => Protection::Recovery,
        0x2000 => Protection::Password,
        0x0100 | 0x0500 => Protection::Tpm,
        0x0200 => Protection::KeyFile,
        other => Protection::Other(other),
    };
    let mut master = Master { protection, salt: None, clear: None, sealed: None };
    for (_, value, data) in Entries(data.get(28..)?) {
        match value {
            // 4 method · 16 salt · entries: a copy that is protected by nothing else is not of use here.
            STRETCH => master.salt = array(data, 4),
            SEALED => master.sealed = sealed(data),
            KEY => master.clear = data.get(4..).map(|key| Zeroizing::new(key.to_vec())),
            _ => {}
        }
    }
    Some(master)
}

/// 12 nonce · 16 tag · data.
fn sealed(data: &[u8]) -> Option<Sealed> {
    Some(Sealed { nonce: array(data, 0)?, tag: array(data, 12)?, data: data.get(28..)?.to_vec() })
}
