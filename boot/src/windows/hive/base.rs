//! The base block, a hive's header of 4 KiB: recognised, checked, brought up to date.
//!
//! From msuhanov's "Windows registry file format specification", section "Base block". Numbers are little-endian:
//!
//! ```text
//! 0 "regf" · 4 primary sequence number · 8 secondary · 12 last written · 20 version · 28 type (0 hive, 1, 2 and 6 logs)
//! 32 format (1) · 36 root key · 40 size of the bins · 44 sectors of 512 bytes in one of the disk · 144 flags
//! 508 exclusive or of the 127 words before
//! ```
//!
//! Read: versions 1.3 (NT 4 and 2000, and every BCD), 1.4 and 1.5 (XP and later). Deliberately absent: the versions of NT 3,
//! whose cells look different, and 1.6, whose keys cover those of another hive.

use super::cells::BASE_BLOCK;
use crate::volume::field::{array, le32, le64};
use crate::{Error, Result};
use landfall_image::FileOffset;

/// What the checksum covers: the first sector without its last word.
const SUMMED: usize = 508;
/// A transaction of the Kernel Transaction Manager was open.
const FLAG_TRANSACTION: u32 = 1;

/// The base block of a hive, or its copy at the start of a log.
#[derive(Clone, Debug)]
pub struct Base {
    raw: Vec<u8>,
}

/// What else a file may be that lies where a hive should.
fn named(bytes: &[u8]) -> String {
    match bytes.get(..4) {
        None => format!("a file of {} bytes", bytes.len()),
        Some(b"CREG") => "a registry of Windows 95, 98 or Me (CREG)".into(),
        Some(b"SDSD") => "a registry of Windows 3.1".into(),
        Some([0xff, 0xfe, ..]) | Some(b"REGE" | b"Wind") => "a text of registry edits (.reg)".into(),
        Some([0, 0, 0, 0]) if bytes.iter().all(|&byte| byte == 0) => "a file of zeros".into(),
        Some(start) => format!("a file that starts with \"{}\"", start.escape_ascii()),
    }
}

impl Base {
    /// The base block of a file that must be a hive. Its checksum may be wrong: see [`Base::is_sound`].
    pub fn of_hive(bytes: &[u8]) -> Result<Base> {
        if bytes.get(..4) != Some(b"regf") {
            let says = format!("this is no registry hive but {}", named(bytes));
            return Err(Error::unsupported(says).at(FileOffset(0)));
        }
        let Some(raw) = bytes.get(..BASE_BLOCK) else {
            let says = format!("the hive is cut off: it has {} bytes", bytes.len());
            return Err(Error::corrupt(says).at(FileOffset(0)));
        };
        Ok(Base { raw: raw.to_vec() })
    }
    /// The copy at the start of a log; why it is none that counts.
    pub fn of_log(log: &[u8]) -> Result<Base, String> {
        let Some(raw) = log.get(..512) else { return Err("is empty".into()) };
        if !raw.starts_with(b"regf") {
            return Err("is not a log of a hive".into());
        }
        let mut raw = raw.to_vec();
        raw.resize(BASE_BLOCK, 0);
        let base = Base { raw };
        if !base.is_sum_right() {
            return Err("has a base block with a wrong checksum".into());
        }
        if base.primary() != base.secondary() {
            return Err("was not written to its end: its sequence numbers differ".into());
        }
        Ok(base)
    }
    /// Of an empty hive of version 1.5 whose root is the first cell.
    pub fn new(bins_len: usize) -> Base {
        let mut base = Base { raw: vec![0; BASE_BLOCK] };
        base.raw[..4].copy_from_slice(b"regf");
        for (at, value) in
            [(20, 1), (24, 5), (32, 1), (36, 32), (40, super::cells::offset(bins_len)), (44, 1)]
        {
            base.put(at, value);
        }
        base
    }

    /// Says what is not handled: types and versions. Asked once the base block is one that counts.
    pub fn check(&self) -> Result<()> {
        let refuse = |at, says: String| Err(Error::unsupported(says).at(FileOffset(at)));
        let (major, minor) = (self.get(20), self.minor());
        match (major, minor) {
            (1, 3..=5) => {}
            (1, 6) => {
                return refuse(
                    24,
                    "version 1.6: a hive with layered keys, as containers have them, is not handled".into(),
                );
            }
            _ => {
                return refuse(
                    20,
                    format!("version {major}.{minor} of hives is not handled; 1.3 to 1.5 are"),
                );
            }
        }
        if self.get(28) != 0 {
            return refuse(28, format!("file type {}: this is a log, not a hive", self.get(28)));
        }
        if self.get(32) != 1 {
            return refuse(32, format!("format {} of hives is not handled; 1 is", self.get(32)));
        }
        Ok(())
    }

    #[cfg(test)]
    pub fn set_minor(&mut self, minor: u32) {
        self.put(24, minor);
    }
    fn get(&self, at: usize) -> u32 {
        le32(&self.raw, at).unwrap_or(0)
    }
    fn put(&mut self, at: usize, value: u32) {
        self.raw[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    fn sum(&self) -> u32 {
        let words = self.raw[..SUMMED].chunks_exact(4);
        let sum = words.fold(0, |sum, word| sum ^ u32::from_le_bytes(array(word, 0).unwrap_or_default()));
        // Two results would look like none.
        match sum {
            0 => 1,
            u32::MAX => u32::MAX - 1,
            sum => sum,
        }
    }
    fn is_sum_right(&self) -> bool {
        self.get(SUMMED) == self.sum()
    }
    /// The checksum is right: what it says of sequence numbers counts.
    pub fn is_sound(&self) -> bool {
        self.is_sum_right()
    }
    /// Windows was not done with writing the hive.
    pub fn is_dirty(&self) -> bool {
        !self.is_sum_right() || self.primary() != self.secondary()
    }
    /// Counted up when a write begins.
    pub fn primary(&self) -> u32 {
        self.get(4)
    }
    /// Counted up when it is done.
    pub fn secondary(&self) -> u32 {
        self.get(8)
    }
    /// FILETIME of the last write; logs of the old format name their hive by it.
    pub fn written(&self) -> u64 {
        le64(&self.raw, 12).unwrap_or(0)
    }
    /// Minor version: from 4 on large values are in pieces, from 5 on lists of subkeys have hashes.
    pub fn minor(&self) -> u32 {
        self.get(24)
    }
    /// What a log is: 6 for the format of Windows 8.1 and later.
    pub fn file_type(&self) -> u32 {
        self.get(28)
    }
    /// The root key's cell.
    pub fn root(&self) -> u32 {
        self.get(36)
    }
    /// Bytes of the bins.
    pub fn bins_len(&self) -> usize {
        self.get(40) as usize
    }
    /// Bytes of a sector, by which logs of the old format are laid out.
    pub fn sector(&self) -> usize {
        self.get(44).clamp(1, 8) as usize * 512
    }
    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.raw
    }

    /// Takes over the copy in a log: its first sector, as a hive's.
    pub fn recover(&mut self, log: &Base) {
        self.raw[..512].copy_from_slice(&log.raw[..512]);
        self.put(28, 0);
    }
    /// Takes over how long the bins are, and (from logs of the new format) whether a transaction was open.
    pub fn replayed(&mut self, bins_len: usize, transaction: Option<bool>) {
        self.put(40, super::cells::offset(bins_len));
        if let Some(open) = transaction {
            self.put(144, self.get(144) & !FLAG_TRANSACTION | u32::from(open));
        }
    }
    /// Makes it that of a hive that was completely written.
    pub fn complete(&mut self, sequence: u32, filetime: u64, bins_len: usize) {
        self.put(4, sequence);
        self.put(8, sequence);
        self.raw[12..20].copy_from_slice(&filetime.to_le_bytes());
        self.put(40, super::cells::offset(bins_len));
        self.put(SUMMED, self.sum());
    }
}
