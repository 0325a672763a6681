//! The records of a journal and how they lie in its files.
//!
//! Ours, little-endian. A segment begins with a header; records follow one behind the other, each on a multiple of 8:
//!
//! ```text
//! segment                          record
//!  0  "LFJRNAL1"                    0  kind:8, 0:8, 0:16
//!  8  version:32 (1)                4  disk:32              which disk of the machine
//! 12  salt:32                       8  sequence:64          counts on by one through the whole journal
//! 16  machine:128                  16  offset:64            on the disk; of a checkpoint its time
//! 32  first sequence:64            24  length:64            of the run on the disk
//! 40  time:64, 0:96                32  payload length:32
//! 60  CRC-32C of the 60 before     36  CRC-32C of the payload
//!                                  40  CRC-32C of the 40 before, begun with the salt
//!                                  44  0:32
//!                                  48  payload, zeros up to a multiple of 8
//! ```
//!
//! The salt is drawn for each segment, and no guest knows it: what a guest writes cannot pass for a record where a torn write
//! leaves its bytes behind the journal's end. The sequence has no gap, so a record that is missing is noticed. The header's time is
//! that of the last checkpoint before the segment, 0 where there is none.

use landfall_image::{Error, Result};

/// Bytes before a segment's first record.
pub const SEGMENT_HEADER: usize = 64;
/// Bytes before a record's payload.
pub const RECORD_HEADER: usize = 48;
const MAGIC: [u8; 8] = *b"LFJRNAL1";
const VERSION: u32 = 1;

/// The greatest payload: larger writes are several records.
pub const PAYLOAD_AT_MOST: usize = 32 << 20;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A run of a disk holds the payload.
    Data = 1,
    /// A run of a disk reads as zeros.
    Zero = 2,
    /// There is a disk, or it has another size, or another name: the payload is its description.
    Disk = 3,
    /// The machine has a disk no more.
    DiskGone = 4,
    /// Something that belongs to the machine: its definition, its UEFI variables. The payload is its name, a zero, its bytes.
    Attachment = 5,
    /// All before it is a state that can be recovered. The payload describes it.
    Checkpoint = 6,
}

impl Kind {
    /// True where it says what a disk holds.
    pub fn is_content(self) -> bool {
        matches!(self, Kind::Data | Kind::Zero)
    }

    pub(super) fn of(byte: u8) -> Option<Kind> {
        use Kind::{Attachment, Checkpoint, Data, Disk, DiskGone, Zero};
        [Data, Zero, Disk, DiskGone, Attachment, Checkpoint].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A record without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it says.
    pub kind: Kind,
    /// Which disk, by its number in the machine; 0 where it is about none.
    pub disk: u32,
    /// Counts on by one through the whole journal, from 1.
    pub sequence: u64,
    /// Byte on the disk; of a checkpoint its time in milliseconds since 1970.
    pub offset: u64,
    /// Bytes of the disk; 0 where it is not about content.
    pub len: u64,
    /// Bytes of the payload.
    pub payload: u32,
    /// CRC-32C of the payload.
    pub sum: u32,
}

impl Record {
    /// As it is written.
    pub fn encode(&self, salt: u32) -> [u8; RECORD_HEADER] {
        let mut raw = [0; RECORD_HEADER];
        raw[0] = self.kind as u8;
        raw[4..8].copy_from_slice(&self.disk.to_le_bytes());
        raw[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        raw[16..24].copy_from_slice(&self.offset.to_le_bytes());
        raw[24..32].copy_from_slice(&self.len.to_le_bytes());
        raw[32..36].copy_from_slice(&self.payload.to_le_bytes());
        raw[36..40].copy_from_slice(&self.sum.to_le_bytes());
        let sum = crc32c::crc32c_append(salt, &raw[..40]);
        raw[40..44].copy_from_slice(&sum.to_le_bytes());
        raw
    }

    /// `None` where these bytes are no record of this segment: the journal ends there, or they are damaged.
    pub fn parse(raw: &[u8; RECORD_HEADER], salt: u32) -> Option<Record> {
        let (u32_at, u64_at) = (|at| le32(raw, at), |at| le64(raw, at));
        if crc32c::crc32c_append(salt, &raw[..40]) != u32_at(40) || raw[44..] != [0; 4] {
            return None;
        }
        let record = Record {
            kind: Kind::of(raw[0])?,
            disk: u32_at(4),
            sequence: u64_at(8),
            offset: u64_at(16),
            len: u64_at(24),
            payload: u32_at(32),
            sum: u32_at(36),
        };
        let is_sound = record.payload as usize <= PAYLOAD_AT_MOST
            && record.offset.checked_add(record.len).is_some()
            && (record.kind != Kind::Data || record.len == u64::from(record.payload));
        is_sound.then_some(record)
    }

    /// Bytes that it takes in a segment.
    pub fn size(&self) -> u64 {
        (RECORD_HEADER as u64 + u64::from(self.payload)).next_multiple_of(8)
    }
}

/// What a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// See the module.
    pub salt: u32,
    /// Whose journal it is.
    pub machine: uuid::Uuid,
    /// Of its first record.
    pub first: u64,
    /// Of the last checkpoint before it, in milliseconds since 1970; 0 where there is none.
    pub time: u64,
}

impl SegmentHeader {
    /// As it is written.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut raw = [0; SEGMENT_HEADER];
        raw[..8].copy_from_slice(&MAGIC);
        raw[8..12].copy_from_slice(&VERSION.to_le_bytes());
        raw[12..16].copy_from_slice(&self.salt.to_le_bytes());
        raw[16..32].copy_from_slice(self.machine.as_bytes());
        raw[32..40].copy_from_slice(&self.first.to_le_bytes());
        raw[40..48].copy_from_slice(&self.time.to_le_bytes());
        let sum = crc32c::crc32c(&raw[..60]);
        raw[60..].copy_from_slice(&sum.to_le_bytes());
        raw
    }

    /// # Errors
    /// Corrupt where the bytes are no header, unsupported where a later version wrote them.
    pub fn parse(raw: &[u8; SEGMENT_HEADER]) -> Result<SegmentHeader> {
        if raw[..8] != MAGIC || le32(raw, 60) != crc32c::crc32c(&raw[..60]) {
            return Err(Error::corrupt("this is no header of a journal segment"));
        }
        let version = le32(raw, 8);
        if version != VERSION {
            return Err(Error::unsupported(format!(
                "journal version {version}; this program knows {VERSION}"
            ))
            .hint("use the version of landfall that wrote it, or a later one"));
        }
        let mut machine = [0; 16];
        machine.copy_from_slice(&raw[16..32]);
        Ok(SegmentHeader {
            salt: le32(raw, 12),
            machine: uuid::Uuid::from_bytes(machine),
            first: le64(raw, 32),
            time: le64(raw, 40),
        })
    }
}

pub(super) fn le32(raw: &[u8], at: usize) -> u32 {
    raw.get(at..at + 4).and_then(|raw| raw.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(super) fn le64(raw: &[u8], at: usize) -> u64 {
    raw.get(at..at + 8).and_then(|raw| raw.try_into().ok()).map_or(0, u64::from_le_bytes)
}
