//! A part of a journal is rewritten with fewer records, where points in it are given up: of what was written between two points that stay
//! only the last content of each byte is kept.
//!
//! The new segment holds, for each point that stays, the disks and attachments, what changed since the one before by disk and
//! offset, and the checkpoint; all with the sequence of that checkpoint. It covers the same range of records as those that it is made
//! of, one generation higher, and takes their place when it is on the medium and was read back.
//!
//! Memory: some 150 bytes for each record of the old segments, and two records.

use super::journal::index::Entry;
use super::journal::map::{Run, RunMap, Source};
use super::journal::record::{Kind, PAYLOAD_AT_MOST, RECORD_HEADER, Record, SegmentHeader};
use super::journal::segment::{Name, Segment, scan, write_index};
use super::journal::{Batch, Home};
use super::storage::StoredFile;
use landfall_image::{Error, FileOffset, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes that are gathered before they are written.
const PIECE: usize = 1 << 20;

/// Rewrites segments that follow one another, with only the checkpoints of `kept`. `pace` is called with the bytes that were written
/// since: to be slow on purpose; its error ends the work. The caller puts the result in their place.
///
/// # Errors
/// As the storage's; corrupt where a segment is not what was written. Nothing is lost then.
pub fn rewrite(
    home: &Home,
    old: &[Arc<Segment>],
    kept: &BTreeSet<u64>,
    pace: &dyn Fn(u64) -> Result<()>,
) -> Result<Segment> {
    let (Some(first), Some(last)) = (old.first(), old.last()) else {
        return Err(Error::refused("there is nothing to rewrite"));
    };
    let generation = old.iter().map(|segment| segment.name.generation).max().unwrap_or_default() + 1;
    let name = Name { first: first.name.first, last: Some(last.last), generation };
    let path = format!("{}/{}", home.dir, name.file());
    let new = format!("{path}.new");
    home.storage.remove(&new)?;
    let file = home.storage.create(&new)?;
    let header = SegmentHeader {
        salt: uuid::Uuid::new_v4().as_fields().0,
        machine: home.machine,
        first: name.first,
        time: first.header()?.time,
    };
    let mut writer = Writer { file: &*file, salt: header.salt, at: 0, pending: Vec::new(), pace, count: 0 };
    writer.pending.extend_from_slice(&header.encode());
    let mut stage = Stage::default();
    let batch = Batch::open(old)?;
    for (segment, entries) in batch.records() {
        for entry in entries {
            match entry.kind {
                Kind::Checkpoint if kept.contains(&entry.sequence) => {
                    stage.write(&mut writer, &batch, entry.sequence)?;
                    writer.note(entry, segment, entry.sequence)?;
                }
                Kind::Checkpoint => {}
                Kind::Data | Kind::Zero => entry.put(segment.name.first, &mut stage.maps),
                Kind::Disk | Kind::DiskGone | Kind::Attachment => stage.note(*entry, segment),
            }
        }
    }
    stage.write(&mut writer, &batch, last.last)?;
    // What it is known by to be whole.
    writer.put(Kind::Zero, 0, 0, 0, &[], last.last)?;
    writer.flush()?;
    let (end, count) = (writer.at, writer.count);
    file.sync()?;
    // No segment is replaced before the new one was read.
    let scan = scan(&*file, name, last.last).map_err(|error| error.in_file(&home.storage.place(&new)))?;
    if scan.is_torn || scan.log.entries.len() != count || !scan.is_whole(name, last.last) {
        return Err(Error::corrupt(format!(
            "of {count} records that were written {} are read back",
            scan.log.entries.len()
        ))
        .at(FileOffset(scan.end.min(end)))
        .in_file(&home.storage.place(&new)));
    }
    write_index(&*home.storage, &format!("{}/{}", home.dir, name.index()), name, last.last, &scan)?;
    home.storage.rename(&new, &path)?;
    home.storage.sync_dir(&home.dir)?;
    Ok(Segment::sealed(name, home))
}

/// What was said since the last point that stays.
#[derive(Default)]
struct Stage {
    maps: BTreeMap<u32, RunMap>,
    /// The last of each: of disks by their number, of attachments all in their order, as each has its name inside.
    disks: BTreeMap<u32, (Entry, Arc<Segment>)>,
    attachments: Vec<(Entry, Arc<Segment>)>,
}

impl Stage {
    fn note(&mut self, entry: Entry, segment: &Arc<Segment>) {
        match entry.kind {
            Kind::Attachment => self.attachments.push((entry, Arc::clone(segment))),
            _ => {
                self.disks.insert(entry.disk, (entry, Arc::clone(segment)));
            }
        }
    }

    /// Writes all of it, with one sequence, and begins anew.
    fn write(&mut self, writer: &mut Writer<'_>, batch: &Batch<'_>, sequence: u64) -> Result<()> {
        let Stage { maps, disks, attachments } = std::mem::take(self);
        for (entry, segment) in disks.values() {
            writer.note(entry, segment, sequence)?;
        }
        let mut known: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (entry, segment) in &attachments {
            let payload = read(segment, entry.at, entry.len)?;
            let name = payload.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
            known.insert(name, payload);
        }
        for payload in known.values() {
            writer.put(Kind::Attachment, 0, 0, 0, payload, sequence)?;
        }
        for (disk, map) in &maps {
            // Nobody will read from a disk that is gone at this point: its number is never used again.
            if disks.get(disk).is_some_and(|(entry, _)| entry.kind == Kind::DiskGone) {
                continue;
            }
            for run in map.runs() {
                writer.run(*disk, &run, batch, sequence)?;
            }
        }
        Ok(())
    }
}

struct Writer<'w> {
    file: &'w dyn StoredFile,
    salt: u32,
    /// Where what is pending goes.
    at: u64,
    pending: Vec<u8>,
    pace: &'w dyn Fn(u64) -> Result<()>,
    count: usize,
}

impl Writer<'_> {
    fn note(&mut self, entry: &Entry, segment: &Segment, sequence: u64) -> Result<()> {
        let payload = read(segment, entry.at, entry.len)?;
        self.put(entry.kind, entry.disk, entry.offset, 0, &payload, sequence)
    }

    fn run(&mut self, disk: u32, run: &Run, batch: &Batch<'_>, sequence: u64) -> Result<()> {
        let len = run.range.end - run.range.start;
        match run.source {
            Source::Zero => self.put(Kind::Zero, disk, run.range.start, len, &[], sequence),
            Source::Stored { segment, at } => {
                let mut payload = Vec::new();
                let mut done = 0;
                while done < len {
                    let now = (len - done).min(PAYLOAD_AT_MOST as u64);
                    payload.resize(usize::try_from(now).unwrap_or(PAYLOAD_AT_MOST), 0);
                    batch.read(segment, at + done, &mut payload)?;
                    self.put(Kind::Data, disk, run.range.start + done, now, &payload, sequence)?;
                    done += now;
                }
                Ok(())
            }
        }
    }

    fn put(
        &mut self,
        kind: Kind,
        disk: u32,
        offset: u64,
        len: u64,
        payload: &[u8],
        sequence: u64,
    ) -> Result<()> {
        let size = u32::try_from(payload.len()).map_err(|_| Error::corrupt("a record is too long"))?;
        let record =
            Record { kind, disk, sequence, offset, len, payload: size, sum: crc32c::crc32c(payload) };
        self.pending.extend_from_slice(&record.encode(self.salt));
        self.pending.extend_from_slice(payload);
        let padding = record.size() - RECORD_HEADER as u64 - payload.len() as u64;
        self.pending.extend_from_slice(&[0; 8][..usize::try_from(padding).unwrap_or(0)]);
        self.count += 1;
        if self.pending.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_at(self.at, &[&self.pending])?;
        let written = self.pending.len() as u64;
        self.at += written;
        self.pending.clear();
        (self.pace)(written)
    }
}

fn read(segment: &Segment, at: u64, len: u64) -> Result<Vec<u8>> {
    let len = usize::try_from(len).ok().filter(|len| *len <= PAYLOAD_AT_MOST);
    let mut payload = vec![0; len.ok_or_else(|| Error::corrupt("a record is longer than records are"))?];
    if !payload.is_empty() {
        segment.read(at, &mut payload)?;
    }
    Ok(payload)
}
