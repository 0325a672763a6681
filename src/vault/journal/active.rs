//! The segment of a journal that is written to.
//!
//! ```text
//! begin: create, header, name on the medium, the disks and attachments that there are -> put, put, … -> close
//! ```
//!
//! The name is on the medium before the first write is acknowledged: after a loss of power it tells that writes may be missing.
//! A begin that fails leaves nothing. A write that fails is cut off, so that nothing follows the last acknowledged record.

use super::Home;
use super::index::Entry;
use super::map::RunMap;
use super::record::{Kind, PAYLOAD_AT_MOST, RECORD_HEADER, Record, SEGMENT_HEADER, SegmentHeader};
use super::segment::{Log, Name, Segment};
use super::state::{State, attachment, encoded};
use crate::vault::storage::StoredFile;
use landfall_image::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// What is written to, and the state after it.
#[derive(Debug)]
pub(super) struct Active {
    /// Made with the first record.
    file: Option<Writing>,
    log: Log,
    /// Where content lies after the first `mapped` records of the log.
    maps: BTreeMap<u32, RunMap>,
    mapped: usize,
    /// Of the next record.
    pub next: u64,
    pub state: State,
    /// Of the last checkpoint, in milliseconds since 1970; 0 where there was none.
    pub time: u64,
}

#[derive(Debug)]
struct Writing {
    file: Arc<dyn StoredFile>,
    first: u64,
    salt: u32,
    end: u64,
    /// Something lies behind `end` that cannot be cut off.
    is_spoiled: bool,
}

/// A record that is to be written.
pub(super) struct Note<'n> {
    pub kind: Kind,
    pub disk: u32,
    pub offset: u64,
    pub len: u64,
    pub payload: &'n [u8],
}

impl Note<'_> {
    pub fn data(disk: u32, offset: u64, payload: &[u8]) -> Note<'_> {
        Note { kind: Kind::Data, disk, offset, len: payload.len() as u64, payload }
    }

    pub fn zero(disk: u32, offset: u64, len: u64) -> Note<'static> {
        Note { kind: Kind::Zero, disk, offset, len, payload: &[] }
    }

    pub fn disk(disk: u32, payload: &[u8]) -> Note<'_> {
        Note { kind: Kind::Disk, disk, offset: 0, len: 0, payload }
    }

    pub fn disk_gone(disk: u32) -> Note<'static> {
        Note { kind: Kind::DiskGone, disk, offset: 0, len: 0, payload: &[] }
    }

    pub fn attachment(payload: &[u8]) -> Note<'_> {
        Note { kind: Kind::Attachment, disk: 0, offset: 0, len: 0, payload }
    }

    pub fn checkpoint(time: u64, payload: &[u8]) -> Note<'_> {
        Note { kind: Kind::Checkpoint, disk: 0, offset: time, len: 0, payload }
    }
}

impl Active {
    /// The time of the segment's first checkpoint.
    pub fn since(&self) -> Option<u64> {
        let first = self.log.entries.iter().find(|entry| entry.kind == Kind::Checkpoint);
        first.map(|entry| entry.offset)
    }

    /// Nothing is written to yet.
    pub fn new(next: u64, state: State, time: u64) -> Active {
        Active { file: None, log: Log::default(), maps: BTreeMap::new(), mapped: 0, next, state, time }
    }

    /// Refuses what passes the end of a disk, or is on none.
    pub fn check(&self, disk: u32, offset: u64, len: u64) -> Result<()> {
        let Some(info) = self.state.disks.get(&disk) else {
            return Err(Error::refused(format!("the machine has no disk number {disk}")));
        };
        match offset.checked_add(len).is_some_and(|end| end <= info.size) {
            true => Ok(()),
            false => Err(Error::io(
                format!(
                    "{len} bytes at {offset:#x} pass the end of {}, which has {} bytes",
                    info.name, info.size
                ),
                std::io::ErrorKind::UnexpectedEof.into(),
            )),
        }
    }

    /// Where content of a disk lies in it.
    pub fn map(&mut self, disk: u32) -> &RunMap {
        if let Some(writing) = &self.file {
            let new = &self.log.entries[self.mapped..];
            new.iter().for_each(|entry| entry.put(writing.first, &mut self.maps));
            self.mapped = self.log.entries.len();
        }
        self.maps.entry(disk).or_default()
    }

    /// Its records.
    pub fn entries(&self) -> &[Entry] {
        &self.log.entries
    }

    /// Its file.
    pub fn file(&self) -> Option<Arc<dyn StoredFile>> {
        self.file.as_ref().map(|writing| Arc::clone(&writing.file))
    }

    /// Its first record, and the bytes of its file.
    pub fn extent(&self) -> Option<(u64, u64)> {
        self.file.as_ref().map(|writing| (writing.first, writing.end))
    }

    /// Its file, where it begins with that record.
    pub fn file_of(&self, segment: u64) -> Option<Arc<dyn StoredFile>> {
        let writing = self.file.as_ref().filter(|writing| writing.first == segment);
        writing.map(|writing| Arc::clone(&writing.file))
    }

    /// True where no more is to be put into it.
    pub fn is_full(&self, records: usize, bytes: u64) -> bool {
        let is_full = |writing: &Writing| writing.end >= bytes || writing.is_spoiled;
        self.log.entries.len() >= records || self.file.as_ref().is_some_and(is_full)
    }

    /// Makes sure that there is a segment.
    pub fn begin(&mut self, home: &Home) -> Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let first = self.next;
        let path = format!("{}/{}", home.dir, Name { first, last: None, generation: 0 }.file());
        let begun = self.try_begin(home, &path);
        if begun.is_err() {
            // Of what was put so far nobody was told anything.
            home.in_memory.fetch_sub(self.log.entries.len(), Ordering::Relaxed);
            *self = Active::new(first, std::mem::take(&mut self.state), self.time);
            // Where that fails, too: it says nothing that was not so before, and the next one removes it first.
            drop(home.storage.remove(&path));
        }
        begun
    }

    fn try_begin(&mut self, home: &Home, path: &str) -> Result<()> {
        let first = self.next;
        home.storage.remove(path)?;
        let salt = Uuid::new_v4().as_fields().0;
        let file = home.storage.create(path)?;
        let header = SegmentHeader { salt, machine: home.machine, first, time: self.time };
        file.write_at(0, &[&header.encode()])?;
        home.storage.sync_dir(&home.dir)?;
        self.file = Some(Writing { file, first, salt, end: SEGMENT_HEADER as u64, is_spoiled: false });
        let state = std::mem::take(&mut self.state);
        let put = self.put_state(home, &state);
        self.state = state;
        put
    }

    fn put_state(&mut self, home: &Home, state: &State) -> Result<()> {
        // Where the disk of the highest number is gone, nothing else tells of it.
        if state.highest > 0 && !state.disks.contains_key(&state.highest) {
            self.put(home, &Note::disk_gone(state.highest))?;
        }
        for (disk, info) in &state.disks {
            self.put(home, &Note::disk(*disk, &encoded(info)?))?;
        }
        for (name, bytes) in &state.attachments {
            self.put(home, &Note::attachment(&attachment(name, bytes)?))?;
        }
        Ok(())
    }

    /// Writes a record.
    pub fn put(&mut self, home: &Home, note: &Note<'_>) -> Result<()> {
        let Some(writing) = &mut self.file else {
            return Err(Error::corrupt("the journal has no file to write to"));
        };
        let payload = u32::try_from(note.payload.len()).ok().filter(|len| *len as usize <= PAYLOAD_AT_MOST);
        let Some(payload) = payload else {
            return Err(Error::refused(format!(
                "{} bytes are more than a record of the journal holds ({PAYLOAD_AT_MOST})",
                note.payload.len()
            )));
        };
        let record = Record {
            kind: note.kind,
            disk: note.disk,
            sequence: self.next,
            offset: note.offset,
            len: note.len,
            payload,
            sum: crc32c::crc32c(note.payload),
        };
        let size = record.size();
        let padding = size - RECORD_HEADER as u64 - u64::from(payload);
        let padding = &[0; 8][..usize::try_from(padding).unwrap_or(0)];
        if let Err(error) =
            writing.file.write_at(writing.end, &[&record.encode(writing.salt), note.payload, padding])
        {
            // It may be there as a whole, and would pass for a write that was acknowledged.
            writing.is_spoiled |= writing.file.set_len(writing.end).is_err();
            return Err(error);
        }
        let at = writing.end + RECORD_HEADER as u64;
        writing.end += size;
        let len = if note.kind.is_content() { note.len } else { u64::from(payload) };
        self.log.entries.push(Entry {
            kind: note.kind,
            disk: note.disk,
            offset: note.offset,
            len,
            sequence: self.next,
            at,
        });
        self.next += 1;
        home.in_memory.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Ends it: the segment that it was, where it has a record.
    pub fn close(&mut self, home: &Home) -> Option<Segment> {
        let writing = self.file.take()?;
        let log = std::mem::take(&mut self.log);
        self.maps.clear();
        self.mapped = 0;
        // One without a record is begun anew under the same name.
        (!log.entries.is_empty()).then(|| Segment::open(writing.first, log, writing.file, home))
    }
}
