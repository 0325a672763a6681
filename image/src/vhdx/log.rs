//! The log: [MS-VHDX] 2.3. Metadata updates that a crash, or a copy of a running machine's disk, left behind.
//!
//! ```text
//! the log is a ring of 4 KiB sectors; an entry is a run of them, which may wrap around:
//! +--------------------------+------------------+-------------+-------------+--
//! | header 64, descriptors   | more descriptors | data sector | data sector | …
//! | 32 each                  | (128 per sector) |             |             |
//! +--------------------------+------------------+-------------+-------------+--
//! data sector   "data", sequence high 4, 4084 bytes, sequence low 4
//!               the replaced 8 leading and 4 trailing bytes of the target stand in the descriptor
//! ```
//!
//! Entries with consecutive numbers make a sequence; the valid sequence with the highest number is the active one.
//! It is replayed into memory, from the entry that its last entry names as tail.

use super::header::{Header, checksum, field, guid, le32, le64};
use super::patched::{Patched, SECTOR, SECTOR_BYTES};
use crate::error::{Error, Result};
use crate::limits;
use std::borrow::Cow;
use std::ops::Range;
use uuid::Uuid;

const HEADER_BYTES: usize = 64;
const DESCRIPTOR_BYTES: usize = 32;
/// Checksummed bytes per byte of log. Entries that do not overlap need 1; hostile ones that overlap could need
/// the square.
const CHECKSUM_EFFORT: usize = 16;

/// The fields of an entry's header that matter, all checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it begins in the log.
    at: usize,
    /// A multiple of the sector, at most the log.
    length: usize,
    /// Where the oldest entry begins that was still needed when this one was written.
    tail: usize,
    /// One more than that of the entry before.
    sequence: u64,
    /// The file was at least this long on stable storage when the entry was written.
    flushed_file_offset: u64,
    /// All structures fit in a file of this length.
    last_file_offset: u64,
}

/// One change of the file.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Zero { at: u64, len: u64 },
    Sector { at: u64, content: Box<[u8; SECTOR]> },
}

/// Replays the log that `header` names into `file`; gives the number of entries. Nothing is done where it is empty.
/// `log` must lie inside the file.
pub fn replay(file: &mut Patched, header: &Header) -> Result<usize> {
    if header.log_guid.is_nil() {
        return Ok(0);
    }
    if header.log_version != 0 {
        return Err(Error::unsupported(format!(
            "the log must be replayed and is of version {}; version 0 is read",
            header.log_version
        ))
        .hint("attach the disk once where it was written, so that its log is emptied"));
    }
    if u64::from(header.log_length) > limits::VHDX_LOG.0 {
        return Err(Error::refused(format!(
            "the log must be replayed and is {} bytes long; the limit is {}",
            header.log_length,
            limits::VHDX_LOG
        ))
        .hint("attach the disk once where it was written, so that its log is emptied"));
    }
    let mut log = vec![0; usize::try_from(header.log_length).unwrap_or(0)];
    file.read_exact_at(header.log_offset, &mut log)?;
    let active = active_sequence(&log, header.log_guid)?;
    let Some(head) = active.last() else {
        return Err(Error::corrupt(format!(
            "the log must be replayed (its id is {}), but holds no valid sequence of entries",
            header.log_guid
        ))
        .hint("the copy was made while the disk was in use, or is damaged: copy it again"));
    };
    if head.flushed_file_offset > file.len() {
        return Err(Error::corrupt(format!(
            "truncated: the log says that the file had at least {} bytes; it has {}",
            head.flushed_file_offset,
            file.len()
        ))
        .hint("copy the image again from its origin and compare the sizes"));
    }
    let log_range = header.log_offset..header.log_offset.saturating_add(u64::from(header.log_length));
    for entry in &active {
        let bytes = ring(&log, entry.at, entry.length);
        for change in parse_changes(&bytes, entry.sequence)? {
            let (at, len) = match &change {
                Change::Zero { at, len } => (*at, *len),
                Change::Sector { at, .. } => (*at, SECTOR_BYTES),
            };
            check_target(at, len, &log_range)?;
            match change {
                Change::Zero { at, len } => file.patch_zero(at, len)?,
                Change::Sector { at, content } => file.patch_sector(at, *content)?,
            }
        }
    }
    file.extend_to(head.last_file_offset);
    Ok(active.len())
}

/// The log changes region tables and all behind them, never the headers or itself.
fn check_target(at: u64, len: u64, log: &Range<u64>) -> Result<()> {
    let end = at.saturating_add(len);
    if at < super::header::REGION_TABLE_OFFSETS[0] || (at < log.end && end > log.start) {
        return Err(Error::corrupt(format!(
            "the log writes {len:#x} bytes at {at:#x}, over the headers or over itself"
        )));
    }
    Ok(())
}

/// The entries to replay, oldest first: the search that [MS-VHDX] 2.3.3 prescribes. Empty where there is none.
pub fn active_sequence(log: &[u8], log_guid: Uuid) -> Result<Vec<Entry>> {
    let mut effort = log.len().saturating_mul(CHECKSUM_EFFORT);
    let mut known: Vec<Option<Option<Entry>>> = vec![None; log.len() / SECTOR];
    let mut entry_at = |at: usize| -> Result<Option<Entry>> {
        let Some(slot) = known.get_mut(at / SECTOR) else { return Ok(None) };
        if slot.is_none() {
            *slot = Some(parse_entry(log, at, log_guid, &mut effort)?);
        }
        Ok(slot.flatten())
    };
    let mut candidate: Vec<Entry> = Vec::new();
    let mut tail = 0;
    while tail < log.len() {
        let mut run: Vec<Entry> = Vec::new();
        let mut used = 0;
        let mut head = tail;
        while let Some(entry) = entry_at(head)? {
            let follows = run.last().is_none_or(|last| last.sequence.checked_add(1) == Some(entry.sequence));
            // A run that goes once around has met its own beginning.
            if !follows || entry.length > log.len() - used {
                break;
            }
            used += entry.length;
            head = (head + entry.length) % log.len();
            run.push(entry);
        }
        // Valid only if the oldest entry that the newest one needs is still there.
        let oldest = run.last().and_then(|last| run.iter().position(|entry| entry.at == last.tail));
        let Some(oldest) = oldest else {
            tail += SECTOR;
            continue;
        };
        let newest = |run: &[Entry]| run.last().map_or(0, |entry| entry.sequence);
        if newest(&run) > newest(&candidate) {
            candidate = run.split_off(oldest);
        }
        if head <= tail {
            break; // wrapped around
        }
        tail = head;
    }
    Ok(candidate)
}

/// The valid entry at `at`, if there is one. `effort` is what may still be checksummed.
fn parse_entry(log: &[u8], at: usize, log_guid: Uuid, effort: &mut usize) -> Result<Option<Entry>> {
    let Some(first) = log.get(at..at.saturating_add(HEADER_BYTES)) else { return Ok(None) };
    if &field::<4>(first, 0)? != b"loge" || guid(first, 32)? != log_guid {
        return Ok(None);
    }
    let size = |at| le32(first, at).map(|value| usize::try_from(value).unwrap_or(usize::MAX));
    let entry = Entry {
        at,
        length: size(8)?,
        tail: size(12)?,
        sequence: le64(first, 16)?,
        flushed_file_offset: le64(first, 48)?,
        last_file_offset: le64(first, 56)?,
    };
    let aligned = entry.length.is_multiple_of(SECTOR) && entry.tail.is_multiple_of(SECTOR);
    if !aligned
        || entry.length == 0
        || entry.length > log.len()
        || entry.tail >= log.len()
        || entry.sequence == 0
    {
        return Ok(None);
    }
    *effort = effort.checked_sub(entry.length).ok_or_else(|| {
        Error::refused("the log is full of entries that overlap: no writer makes such a log")
    })?;
    let bytes = ring(log, at, entry.length);
    if checksum(&bytes, 4) != le32(&bytes, 4)? || parse_changes(&bytes, entry.sequence).is_err() {
        return Ok(None);
    }
    Ok(Some(entry))
}

/// `length` bytes of the ring from `at`, at most once around; copied only where they pass its end.
fn ring(log: &[u8], at: usize, length: usize) -> Cow<'_, [u8]> {
    match log.get(at..at.saturating_add(length)) {
        Some(straight) => Cow::Borrowed(straight),
        None => {
            let to_end = log.get(at..).unwrap_or_default();
            let from_start = log.get(..length.saturating_sub(to_end.len())).unwrap_or_default();
            Cow::Owned([to_end, from_start].concat())
        }
    }
}

/// What a whole entry does, in its order: [MS-VHDX] 2.3.1.2 to 2.3.1.4.
fn parse_changes(entry: &[u8], sequence: u64) -> Result<Vec<Change>> {
    let count = usize::try_from(le32(entry, 24)?).unwrap_or(usize::MAX);
    let described = count.checked_mul(DESCRIPTOR_BYTES).and_then(|len| len.checked_add(HEADER_BYTES));
    let described = described.filter(|&len| len <= entry.len());
    let described =
        described.ok_or_else(|| Error::corrupt("a log entry is too short for its descriptors"))?;
    let mut data = described.next_multiple_of(SECTOR);
    let mut changes = Vec::new();
    let descriptors = entry.get(HEADER_BYTES..described).unwrap_or_default();
    for descriptor in descriptors.chunks_exact(DESCRIPTOR_BYTES) {
        let target = le64(descriptor, 16)?;
        if le64(descriptor, 24)? != sequence || !target.is_multiple_of(SECTOR_BYTES) {
            return Err(Error::corrupt("a log descriptor does not belong to its entry"));
        }
        match &field::<4>(descriptor, 0)? {
            b"zero" => {
                let len = le64(descriptor, 8)?;
                if !len.is_multiple_of(SECTOR_BYTES) {
                    return Err(Error::corrupt("a log zero descriptor is not of whole sectors"));
                }
                changes.push(Change::Zero { at: target, len });
            }
            b"desc" => {
                let sector: [u8; SECTOR] = field(entry, data)?;
                data += SECTOR;
                let numbered = u64::from(le32(&sector, 4)?) << 32 | u64::from(le32(&sector, SECTOR - 4)?);
                if &field::<4>(&sector, 0)? != b"data" || numbered != sequence {
                    return Err(Error::corrupt("a log data sector does not belong to its entry"));
                }
                let mut content = Box::new(sector);
                content[..8].copy_from_slice(&field::<8>(descriptor, 8)?);
                content[SECTOR - 4..].copy_from_slice(&field::<4>(descriptor, 4)?);
                changes.push(Change::Sector { at: target, content });
            }
            _ => return Err(Error::corrupt("a log descriptor is neither \"desc\" nor \"zero\"")),
        }
    }
    Ok(changes)
}
