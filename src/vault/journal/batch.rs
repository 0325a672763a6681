//! Segments that are read whole, in another order than they were written in: for what is rewritten or goes into the base.
//!
//! Each record is checked by its own sum when it is read, so that nothing is read but what is needed; only a part of a long one is read by the
//! blocks that it lies in.

use super::index::Entry;
use super::record::{Kind, RECORD_HEADER, Record};
use super::segment::Segment;
use super::state::records;
use landfall_image::{Error, Result};
use std::cell::RefCell;
use std::sync::Arc;

/// Bytes of a record that is read whole for a part of it.
const WHOLE: u64 = 64 << 10;

/// Sealed segments that follow one another. Memory: 48 bytes for each of their records, and one record.
pub struct Batch<'b> {
    parts: Vec<Part<'b>>,
    record: RefCell<Vec<u8>>,
}

struct Part<'b> {
    segment: &'b Arc<Segment>,
    salt: u32,
    entries: Vec<Entry>,
}

impl<'b> Batch<'b> {
    /// # Errors
    /// Where an index or a header cannot be read.
    pub fn open(segments: &'b [Arc<Segment>]) -> Result<Batch<'b>> {
        let part = |segment: &'b Arc<Segment>| {
            Ok(Part { segment, salt: segment.header()?.salt, entries: records(segment)? })
        };
        Ok(Batch { parts: segments.iter().map(part).collect::<Result<_>>()?, record: RefCell::default() })
    }

    /// The segments with their records, in their order.
    pub fn records(&self) -> impl Iterator<Item = (&'b Arc<Segment>, &[Entry])> {
        self.parts.iter().map(|part| (part.segment, &part.entries[..]))
    }

    /// Fills `buf` from byte `at` of the segment that begins with the record `first`.
    ///
    /// # Errors
    /// Corrupt where it is not what was written; as the storage's.
    pub fn read(&self, first: u64, at: u64, buf: &mut [u8]) -> Result<()> {
        let place = self.parts.binary_search_by_key(&first, |part| part.segment.name.first);
        let Some(part) = place.ok().and_then(|place| self.parts.get(place)) else {
            return Err(Error::corrupt("a run lies in no part of the journal"));
        };
        let behind = part.entries.partition_point(|entry| entry.at <= at);
        let holds = |entry: &&Entry| {
            entry.kind == Kind::Data && at + buf.len() as u64 <= entry.at + entry.len && entry.len <= WHOLE
        };
        let entry = behind.checked_sub(1).and_then(|before| part.entries.get(before)).filter(holds);
        let Some(entry) = entry else { return part.segment.read(at, buf) };
        let mut record = self.record.borrow_mut();
        let len = usize::try_from(entry.len).unwrap_or(0);
        record.resize(RECORD_HEADER + len, 0);
        part.segment.read_unchecked(entry.at - RECORD_HEADER as u64, &mut record)?;
        let (head, payload) = record.split_at(RECORD_HEADER);
        let is_it = |record: &Record| {
            (record.kind, record.disk, record.offset, record.sequence)
                == (entry.kind, entry.disk, entry.offset, entry.sequence)
                && u64::from(record.payload) == entry.len
                && record.sum == crc32c::crc32c(payload)
        };
        let head = head.try_into().ok().and_then(|head| Record::parse(head, part.salt));
        if !head.as_ref().is_some_and(is_it) {
            return Err(part.segment.damaged(entry.at, "a record of the journal is not as it was written"));
        }
        let from = usize::try_from(at - entry.at).unwrap_or(usize::MAX);
        buf.copy_from_slice(&payload[from..from + buf.len()]);
        Ok(())
    }
}
