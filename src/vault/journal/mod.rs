//! The journal of a machine: every write to any of its disks, in the order in which it arrived.
//!
//! ```text
//! append -> active segment -> (full) closed, in memory -> (background) sealed, with an index
//! view at a record: active | closed | sealed …  newest first, each asked for what is still open; then the base
//! ```
//!
//! One order for all disks of a machine: each prefix of the journal is a state that the machine's disks were in together,
//! as far as their writes were acknowledged. A checkpoint is a record like others. It is durable when all before it is on the
//! medium: [`Journal::sync`] answers up to where that is.
//!
//! A write is acknowledged when it is in the journal's file, in the page cache: it survives the end of the process, and
//! not a loss of power. Each segment begins with the disks and attachments that are there, so that the state of a point is
//! known without what lies before its segment.
//!
//! Not here: which points are kept ([`retention`](super::retention)), rewriting ([`compact`](super::compact)), the base
//! ([`base`](super::base)).

mod copying;
pub mod index;
pub mod map;
pub mod record;
pub mod segment;
pub mod start;
mod view;

pub use view::View;

use crate::vault::handles::Handles;
use crate::vault::storage::{Storage, StoredFile};
use index::Entry;
use landfall_image::{Error, Result};
use map::{RunMap, Search};
use record::{Kind, PAYLOAD_AT_MOST, Record, SEGMENT_HEADER, SegmentHeader};
use segment::{Log, Name, Segment};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use uuid::Uuid;

/// What a disk of a machine is called, and how large it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Its name in the machine.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Bytes of a logical sector: 512 or 4096.
    pub sector: u32,
}

/// The machine's disks and attachments at a record of its journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// By their numbers, which are never used again.
    pub disks: BTreeMap<u32, DiskInfo>,
    /// By their names.
    pub attachments: BTreeMap<String, Vec<u8>>,
}

/// How far a recovery point can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// As after a loss of power: all writes up to a moment, on all disks.
    #[default]
    Crash,
    /// The applications had written down what they had in memory.
    Application,
}

/// What a checkpoint says besides its time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mark {
    /// See there.
    pub consistency: Consistency,
    /// The cut that it is a part of, across the machines of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Uuid>,
    /// A name that somebody gave to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// A checkpoint of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its record.
    pub sequence: u64,
    /// Milliseconds since 1970.
    pub time: u64,
    /// What it says.
    pub mark: Mark,
}

/// When a segment is closed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records in it.
    pub records: usize,
    /// Bytes of its file.
    pub bytes: u64,
    /// Segments that are closed and not sealed: the writer seals one itself where there are more.
    pub closed: usize,
}

impl Default for Limits {
    /// 65,536 records (3 MiB of memory) or 256 MiB.
    fn default() -> Limits {
        Limits { records: 1 << 16, bytes: 256 << 20, closed: 4 }
    }
}

/// Where a journal lies.
#[derive(Clone, Debug)]
pub struct Home {
    /// The vault's files.
    pub storage: Arc<dyn Storage>,
    /// Open files.
    pub handles: Arc<Handles>,
    /// The journal's folder in the vault.
    pub dir: Arc<str>,
    /// Whose it is.
    pub machine: Uuid,
    /// Records in memory, of all journals of a vault.
    pub in_memory: Arc<AtomicUsize>,
}

/// Complete segments, oldest first. Changed as a whole: who looks at it keeps what it was.
pub type Segments = Arc<Vec<Arc<Segment>>>;

/// The journal of a machine, to be read and written. See the module.
#[derive(Debug)]
pub struct Journal {
    home: Home,
    limits: Limits,
    active: Mutex<Active>,
    /// Complete segments, oldest first; none overlap, none is missing between.
    segments: RwLock<Segments>,
    /// One at a time.
    sealing: Mutex<()>,
    durable: AtomicU64,
    /// The medium failed: nobody knows what of the latest writes is on it.
    is_lost: AtomicBool,
}

#[derive(Debug)]
struct Active {
    /// Made with the first record.
    file: Option<Writing>,
    log: Log,
    /// Where content lies after the first `mapped` records of the log.
    maps: BTreeMap<u32, RunMap>,
    mapped: usize,
    /// Of the next record.
    next: u64,
    state: State,
}

#[derive(Debug)]
struct Writing {
    file: Arc<dyn StoredFile>,
    first: u64,
    salt: u32,
    end: u64,
}

/// A part of a write.
enum Part<'p> {
    Data(&'p [u8]),
    Zero(u64),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// The last record whose loss is excluded.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// The last record.
    pub fn last(&self) -> u64 {
        locked(&self.active).next - 1
    }

    /// Disks and attachments as they are now.
    pub fn state(&self) -> State {
        locked(&self.active).state.clone()
    }

    /// A disk as it is now; `None` where the machine has none of that number.
    pub fn disk_info(&self, disk: u32) -> Option<DiskInfo> {
        locked(&self.active).state.disks.get(&disk).cloned()
    }

    /// Writes to a disk. When it returns, the write is in the journal, behind all that returned before.
    ///
    /// # Errors
    /// Where there is no such disk, the range passes its end, or the file cannot be written; then nothing was.
    pub fn write(&self, disk: u32, offset: u64, data: &[u8]) -> Result<()> {
        let mut active = locked(&self.active);
        active.check(disk, offset, data.len() as u64)?;
        let mut at = offset;
        for piece in data.chunks(PAYLOAD_AT_MOST) {
            self.append(&mut active, disk, at, Part::Data(piece))?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Makes a run of a disk zeros.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn zero(&self, disk: u32, offset: u64, len: u64) -> Result<()> {
        let mut active = locked(&self.active);
        active.check(disk, offset, len)?;
        match len {
            0 => Ok(()),
            _ => self.append(&mut active, disk, offset, Part::Zero(len)),
        }
    }

    /// Adds a disk, or gives one another size or name. What a smaller one loses does not come back when it grows.
    ///
    /// # Errors
    /// Where the file cannot be written, or the size is no multiple of the sector.
    pub fn set_disk(&self, disk: u32, info: &DiskInfo) -> Result<()> {
        if !info.size.is_multiple_of(u64::from(info.sector.max(1))) || ![512, 4096].contains(&info.sector) {
            return Err(Error::refused(format!(
                "a disk of {} bytes in sectors of {} cannot be protected",
                info.size, info.sector
            ))
            .hint("give a size that is a multiple of the sector size, which is 512 or 4096"));
        }
        let mut active = locked(&self.active);
        if let Some(was) = active.state.disks.get(&disk).map(|was| was.size).filter(|was| *was > info.size) {
            self.append(&mut active, disk, info.size, Part::Zero(was - info.size))?;
        }
        let payload = encoded(info)?;
        let note = Note { kind: Kind::Disk, disk, offset: 0, len: 0, payload: &payload };
        self.note(&mut active, &note)?;
        active.state.disks.insert(disk, info.clone());
        Ok(())
    }

    /// Takes a disk from the machine. Earlier points keep it.
    ///
    /// # Errors
    /// Where there is no such disk, or the file cannot be written.
    pub fn remove_disk(&self, disk: u32) -> Result<()> {
        let mut active = locked(&self.active);
        active.check(disk, 0, 0)?;
        self.note(&mut active, &Note { kind: Kind::DiskGone, disk, offset: 0, len: 0, payload: &[] })?;
        active.state.disks.remove(&disk);
        Ok(())
    }

    /// Keeps something that belongs to the machine: its definition, its UEFI variables. An empty one removes it.
    ///
    /// # Errors
    /// Where it is larger than a record can hold, or the file cannot be written.
    pub fn attach(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut active = locked(&self.active);
        if active.state.attachments.get(name).map_or(&[][..], Vec::as_slice) == bytes {
            return Ok(());
        }
        self.note(&mut active, &Note::attachment(&attachment(name, bytes)?))?;
        match bytes.is_empty() {
            true => active.state.attachments.remove(name),
            false => active.state.attachments.insert(name.to_owned(), bytes.to_owned()),
        };
        Ok(())
    }

    /// Holds up all writes: for a cut across several machines. Checkpoints are set through it.
    pub fn hold(&self) -> Held<'_> {
        Held { journal: self, active: locked(&self.active) }
    }

    /// Returns when all records up to now are on the medium, and which is the last of them.
    ///
    /// # Errors
    /// As the file system's. From then on the journal takes nothing: a file system forgets what it failed to write, and the next
    /// sync would succeed (`fsync` of Linux).
    pub fn sync(&self) -> Result<u64> {
        let last = self.sync_quietly()?;
        self.publish(last);
        Ok(last)
    }

    /// As [`sync`](Self::sync), and tells nobody: [`durable`](Self::durable) stays where it is.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn sync_quietly(&self) -> Result<u64> {
        let synced = self.sync_all();
        if synced.is_err() {
            self.is_lost.store(true, Ordering::Release);
        }
        synced
    }

    /// Says that all up to a record is durable, which it is.
    pub fn publish(&self, sequence: u64) {
        self.durable.fetch_max(sequence, Ordering::AcqRel);
    }

    /// Records that are held in memory for the segment that is written to.
    pub fn records_in_active(&self) -> usize {
        locked(&self.active).log.entries.len()
    }

    fn check_lost(&self) -> Result<()> {
        match self.is_lost.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(Error::io(
                "the medium of the vault lost what was written to it before",
                std::io::ErrorKind::Other.into(),
            )
            .hint("check the medium, start the service again, and let the machine be copied anew")),
        }
    }

    fn sync_all(&self) -> Result<u64> {
        self.check_lost()?;
        let (last, file) = {
            let active = locked(&self.active);
            (active.next - 1, active.file.as_ref().map(|writing| Arc::clone(&writing.file)))
        };
        let closed: Vec<Arc<Segment>> = self.closed();
        for segment in closed {
            segment.sync()?;
        }
        if let Some(file) = file {
            file.sync()?;
        }
        // The names of new files.
        self.home.storage.sync_dir(&self.home.dir)?;
        Ok(last)
    }

    /// Closes the segment that is written to, so that all of it can be sealed and rewritten.
    pub fn close_segment(&self) {
        self.close(&mut locked(&self.active));
    }

    /// Seals what is closed. For the background.
    ///
    /// # Errors
    /// As [`Segment::seal`].
    pub fn seal(&self) -> Result<()> {
        while self.seal_one()? {}
        Ok(())
    }

    fn seal_one(&self) -> Result<bool> {
        let _one = locked(&self.sealing);
        let Some(segment) = self.closed().into_iter().next() else { return Ok(false) };
        let sealed = Arc::new(segment.seal()?);
        let records = segment.log().map_or(0, |log| log.entries.len());
        self.change(|segments| {
            if let Some(place) = segments.iter_mut().find(|other| other.name == segment.name) {
                *place = sealed;
            }
        });
        self.home.in_memory.fetch_sub(records, Ordering::Relaxed);
        Ok(true)
    }

    /// All complete segments, oldest first.
    pub fn segments(&self) -> Segments {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, work: impl FnOnce(&mut Vec<Arc<Segment>>)) {
        work(Arc::make_mut(&mut self.segments.write().unwrap_or_else(PoisonError::into_inner)));
    }

    fn closed(&self) -> Vec<Arc<Segment>> {
        self.segments().iter().filter(|segment| segment.log().is_some()).cloned().collect()
    }

    /// Puts segments into the place of those that they were made of; `new` may be empty where the base has taken them.
    /// The files of the old go when the last view on them does.
    pub fn replace(&self, old: &[Arc<Segment>], new: Vec<Segment>) {
        self.change(|segments| {
            let is_old = |segment: &Arc<Segment>| old.iter().any(|old| Arc::ptr_eq(old, segment));
            let Some(place) = segments.iter().position(is_old) else { return };
            segments.retain(|segment| !is_old(segment));
            segments.splice(place..place, new.into_iter().map(Arc::new));
            old.iter().for_each(|segment| segment.make_obsolete());
        });
    }

    /// The checkpoints of the journal in their order.
    ///
    /// # Errors
    /// Where an index cannot be read or made.
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let active: Vec<(Entry, Arc<dyn StoredFile>)> = {
            let active = locked(&self.active);
            let file = active.file.as_ref().map(|writing| Arc::clone(&writing.file));
            let marks = active.log.entries.iter().filter(|entry| entry.kind == Kind::Checkpoint);
            marks.filter_map(|entry| Some((*entry, Arc::clone(file.as_ref()?)))).collect()
        };
        let mut all = Vec::new();
        for segment in self.segments().iter() {
            all.extend(checkpoints(segment)?);
        }
        for (entry, file) in active {
            // A segment that was closed meanwhile has them already.
            if all.last().is_none_or(|last: &Checkpoint| last.sequence < entry.sequence) {
                all.push(checkpoint(&entry, |at, buf| file.read_at(at, buf))?);
            }
        }
        Ok(all)
    }

    /// Where a range of a disk lies now; what is in no segment is in the base.
    ///
    /// # Errors
    /// Where an index cannot be read.
    pub fn locate(&self, disk: u32, range: Range<u64>) -> Result<(Search, Segments)> {
        let mut search = Search::new(range);
        let segments = {
            let mut active = locked(&self.active);
            let map = active.map(disk);
            search.ask(|open| Ok::<_, Error>(map.within(open).collect()))?;
            // Under the lock: what is in the active segment does not move behind our back.
            self.segments()
        };
        view::ask(&mut search, disk, segments.iter().rev())?;
        Ok((search, segments))
    }

    /// Reads a stored run of a located range: `active` runs of the segment that is written to, too.
    ///
    /// # Errors
    /// As [`Segment::read`].
    pub fn read(&self, segments: &[Arc<Segment>], segment: u64, at: u64, buf: &mut [u8]) -> Result<()> {
        if let Some(found) = view::segment_of(segments, segment) {
            return found.read(at, buf);
        }
        let file = {
            let active = locked(&self.active);
            let writing = active.file.as_ref().filter(|writing| writing.first == segment);
            writing.map(|writing| Arc::clone(&writing.file))
        };
        match file {
            Some(file) => file.read_at(at, buf),
            // It was closed since.
            None => match view::segment_of(&self.segments(), segment) {
                Some(found) => found.read(at, buf),
                None => Err(Error::corrupt(format!("no part of the journal begins with record {segment}"))),
            },
        }
    }

    fn append(&self, active: &mut Active, disk: u32, offset: u64, part: Part<'_>) -> Result<()> {
        self.ready(active)?;
        let (kind, len, payload) = match part {
            Part::Data(data) => (Kind::Data, data.len() as u64, data),
            Part::Zero(len) => (Kind::Zero, len, &[][..]),
        };
        self.put(active, &Note { kind, disk, offset, len, payload })
    }

    fn note(&self, active: &mut Active, note: &Note<'_>) -> Result<()> {
        self.ready(active)?;
        self.put(active, note)
    }

    /// Makes sure that there is a segment with room.
    fn ready(&self, active: &mut Active) -> Result<()> {
        self.check_lost()?;
        let is_full = active.log.entries.len() >= self.limits.records
            || active.file.as_ref().is_some_and(|writing| writing.end >= self.limits.bytes);
        if is_full {
            self.close(active);
            if self.closed().len() > self.limits.closed {
                self.seal_one()?;
            }
        }
        if active.file.is_some() {
            return Ok(());
        }
        let first = active.next;
        let salt = Uuid::new_v4().as_fields().0;
        let path = format!("{}/{}", self.home.dir, Name { first, last: None, generation: 0 }.file());
        // Of a start that failed half-way.
        self.home.storage.remove(&path)?;
        let file = self.home.storage.create(&path)?;
        let header = SegmentHeader { salt, machine: self.home.machine, first };
        file.write_at(0, &[&header.encode()])?;
        active.file = Some(Writing { file, first, salt, end: SEGMENT_HEADER as u64 });
        let state = active.state.clone();
        for (disk, info) in &state.disks {
            let payload = encoded(info)?;
            let note = Note { kind: Kind::Disk, disk: *disk, offset: 0, len: 0, payload: &payload };
            self.put(active, &note)?;
        }
        for (name, bytes) in &state.attachments {
            self.put(active, &Note::attachment(&attachment(name, bytes)?))?;
        }
        Ok(())
    }

    fn put(&self, active: &mut Active, note: &Note<'_>) -> Result<()> {
        let Some(writing) = &mut active.file else {
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
            sequence: active.next,
            offset: note.offset,
            len: note.len,
            payload,
            sum: crc32c::crc32c(note.payload),
        };
        let size = record.size();
        let padding = size - record::RECORD_HEADER as u64 - u64::from(payload);
        let padding = &[0; 8][..usize::try_from(padding).unwrap_or(0)];
        writing.file.write_at(writing.end, &[&record.encode(writing.salt), note.payload, padding])?;
        let at = writing.end + record::RECORD_HEADER as u64;
        writing.end += size;
        let len = if note.kind.is_content() { note.len } else { u64::from(payload) };
        active.log.entries.push(Entry {
            kind: note.kind,
            disk: note.disk,
            offset: note.offset,
            len,
            sequence: active.next,
            at,
        });
        active.next += 1;
        self.home.in_memory.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn close(&self, active: &mut Active) {
        let Some(writing) = active.file.take() else { return };
        let log = std::mem::take(&mut active.log);
        active.maps.clear();
        active.mapped = 0;
        let segment = Segment::open(writing.first, log, writing.file, &self.home);
        self.change(|segments| segments.push(Arc::new(segment)));
    }
}

/// Writes that are held up.
pub struct Held<'j> {
    journal: &'j Journal,
    active: MutexGuard<'j, Active>,
}

impl Held<'_> {
    /// Sets a checkpoint. `time` is in milliseconds since 1970.
    ///
    /// # Errors
    /// Refused where a disk is being copied ([`State::copying`]); where the file cannot be written.
    pub fn checkpoint(&mut self, time: u64, mark: &Mark) -> Result<u64> {
        self.active.state.check_copied()?;
        let payload = match *mark == Mark::default() {
            true => Vec::new(),
            false => encoded(mark)?,
        };
        let note = Note { kind: Kind::Checkpoint, disk: 0, offset: time, len: 0, payload: &payload };
        self.journal.note(&mut self.active, &note)?;
        Ok(self.active.next - 1)
    }
}

impl State {
    /// Follows a note.
    fn apply(&mut self, entry: &Entry, read: impl Fn(u64, &mut [u8]) -> Result<()>) -> Result<()> {
        match entry.kind {
            Kind::Disk => {
                self.disks.insert(entry.disk, decoded(&payload_of(entry, read)?, entry)?);
            }
            Kind::DiskGone => {
                self.disks.remove(&entry.disk);
            }
            Kind::Attachment => {
                let payload = payload_of(entry, read)?;
                let parts = payload.iter().position(|byte| *byte == 0).map(|end| payload.split_at(end));
                let name = parts.and_then(|(name, _)| std::str::from_utf8(name).ok());
                let (Some(name), Some((_, rest))) = (name, parts) else {
                    return Err(Error::corrupt(format!("record {} names no attachment", entry.sequence)));
                };
                match rest[1..].is_empty() {
                    true => self.attachments.remove(name),
                    false => self.attachments.insert(name.to_owned(), rest[1..].to_vec()),
                };
            }
            Kind::Data | Kind::Zero | Kind::Checkpoint => {}
        }
        Ok(())
    }
}

impl Active {
    fn check(&self, disk: u32, offset: u64, len: u64) -> Result<()> {
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

    fn map(&mut self, disk: u32) -> &RunMap {
        if let Some(writing) = &self.file {
            let new = &self.log.entries[self.mapped..];
            new.iter().for_each(|entry| entry.put(writing.first, &mut self.maps));
            self.mapped = self.log.entries.len();
        }
        self.maps.entry(disk).or_default()
    }
}

struct Note<'n> {
    kind: Kind,
    disk: u32,
    offset: u64,
    len: u64,
    payload: &'n [u8],
}

impl Note<'_> {
    fn attachment(payload: &[u8]) -> Note<'_> {
        Note { kind: Kind::Attachment, disk: 0, offset: 0, len: 0, payload }
    }
}

fn attachment(name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    if name.is_empty() || name.contains('\0') {
        return Err(Error::refused(format!("{name:?} is no name of an attachment")));
    }
    Ok([name.as_bytes(), &[0], bytes].concat())
}

fn encoded(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::refused(format!("cannot be written down: {error}")))
}

/// Bytes of a note's payload: more is not believed.
fn payload_of(entry: &Entry, read: impl Fn(u64, &mut [u8]) -> Result<()>) -> Result<Vec<u8>> {
    let len = usize::try_from(entry.len).ok().filter(|len| *len <= PAYLOAD_AT_MOST);
    let Some(len) = len else {
        return Err(Error::corrupt(format!("record {} claims {} bytes", entry.sequence, entry.len)));
    };
    let mut payload = vec![0; len];
    read(entry.at, &mut payload)?;
    Ok(payload)
}

fn checkpoint(entry: &Entry, read: impl Fn(u64, &mut [u8]) -> Result<()>) -> Result<Checkpoint> {
    let mark = match entry.len {
        0 => Mark::default(),
        _ => decoded(&payload_of(entry, read)?, entry)?,
    };
    Ok(Checkpoint { sequence: entry.sequence, time: entry.offset, mark })
}

fn decoded<T: serde::de::DeserializeOwned>(payload: &[u8], entry: &Entry) -> Result<T> {
    serde_json::from_slice(payload)
        .map_err(|error| Error::corrupt(format!("record {} of the journal: {error}", entry.sequence)))
}

/// The notes of a segment, wherever they are.
fn notes(segment: &Segment) -> Result<Vec<Entry>> {
    match segment.log() {
        Some(log) => Ok(log.entries.iter().filter(|entry| entry.is_note()).copied().collect()),
        None => segment.index()?.notes().collect(),
    }
}

/// All records of a segment in their order, without their payloads.
///
/// # Errors
/// Where its index cannot be read or made.
pub fn records(segment: &Segment) -> Result<Vec<Entry>> {
    match segment.log() {
        Some(log) => Ok(log.entries.clone()),
        None => segment.index()?.log().collect(),
    }
}

/// The checkpoints of a segment in their order.
///
/// # Errors
/// Where its index cannot be read or made.
pub fn checkpoints(segment: &Segment) -> Result<Vec<Checkpoint>> {
    let notes = notes(segment)?;
    let marks = notes.iter().filter(|entry| entry.kind == Kind::Checkpoint);
    marks.map(|entry| checkpoint(entry, |at, buf| segment.read(at, buf))).collect()
}
