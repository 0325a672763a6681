//! The journal of a machine: every write to any of its disks, in the order in which it arrived.
//!
//! ```text
//! append -> active segment -> (full) closed, in memory -> (background) sealed, with an index
//! view at a record: active | closed | sealed …  newest first, each asked for what is still open; then the base
//!                                     (many of them through one merged index: layers)
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

mod active;
mod batch;
mod copying;
pub mod index;
mod layers;
pub mod map;
mod merge;
pub mod record;
pub mod segment;
pub mod start;
mod state;
mod view;

pub use batch::Batch;
pub use layers::Past;
pub use state::{Checkpoint, Consistency, DiskInfo, Mark, State, records};
pub use view::View;

use crate::vault::handles::Handles;
use crate::vault::room::Room;
use crate::vault::storage::{Storage, StoredFile};
use active::{Active, Note};
use index::Entry;
use landfall_image::{Error, Result, limits};
use map::Search;
use record::{Kind, PAYLOAD_AT_MOST};
use segment::Segment;
use state::{attachment, checkpoint, encoded, notes};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use uuid::Uuid;

/// When a segment is closed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records in it.
    pub records: usize,
    /// Bytes of its file.
    pub bytes: u64,
    /// Full segments that are closed and not sealed: the writer seals one itself where there are more, by their records.
    pub closed: usize,
}

/// Bytes that are brought to the medium ahead of a point.
const MUCH: u64 = 16 << 20;
/// Closed segments with few records may wait in such a multiple to be sealed.
const WAITING: usize = 16;

impl Limits {
    /// For a file system of `size` bytes: in a small vault segments are small, too, since what is made of them needs room beside them.
    pub fn of_room(size: u64) -> Limits {
        let usual = Limits::default();
        Limits { bytes: (size / 64).clamp(4 << 20, usual.bytes), ..usual }
    }
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
    /// What content may fill.
    pub room: Arc<Room>,
}

/// Complete segments, oldest first. Changed as a whole: who looks at it keeps what it was.
pub type Segments = Arc<Vec<Arc<Segment>>>;

/// The journal of a machine, to be read and written. See the module.
#[derive(Debug)]
pub struct Journal {
    home: Home,
    limits: Limits,
    active: Mutex<Active>,
    past: RwLock<Arc<Past>>,
    /// One at a time.
    sealing: Mutex<()>,
    durable: AtomicU64,
    /// How much of the segment with that first record was brought to the medium ahead of the next point.
    written_back: Mutex<(u64, u64)>,
    /// The medium failed: nobody knows what of the latest writes is on it.
    is_lost: AtomicBool,
    /// The vault was closed.
    is_shut: AtomicBool,
    /// Acknowledged writes may be missing.
    is_behind: AtomicBool,
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
        self.with_state(State::clone)
    }

    /// Looks at disks and attachments as they are now, without a copy of them; writes wait meanwhile.
    pub fn with_state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&locked(&self.active).state)
    }

    /// The number of a disk by its name.
    pub fn disk_number(&self, name: &str) -> Option<u32> {
        locked(&self.active).state.number(name)
    }

    /// A disk as it is now; `None` where the machine has none of that number.
    pub fn disk_info(&self, disk: u32) -> Option<DiskInfo> {
        locked(&self.active).state.disks.get(&disk).cloned()
    }

    /// Writes to a disk. When it returns, the write is in the journal, behind all that returned before.
    ///
    /// # Errors
    /// Where there is no such disk, the range passes its end, or the file cannot be written; then nothing was, or of more than
    /// 32 MiB a part from the front.
    pub fn write(&self, disk: u32, offset: u64, data: &[u8]) -> Result<()> {
        let mut active = locked(&self.active);
        active.check(disk, offset, data.len() as u64)?;
        let mut at = offset;
        for piece in data.chunks(PAYLOAD_AT_MOST) {
            self.put(&mut active, &Note::data(disk, at, piece))?;
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
            _ => self.put(&mut active, &Note::zero(disk, offset, len)),
        }
    }

    /// Adds a disk, or changes the one of that name, and gives its number. What a smaller one loses does not come back when it grows.
    ///
    /// # Errors
    /// Where the file cannot be written, or the size is no multiple of the sector.
    pub fn set_disk(&self, info: &DiskInfo) -> Result<u32> {
        if !info.size.is_multiple_of(u64::from(info.sector.max(1))) || ![512, 4096].contains(&info.sector) {
            return Err(Error::refused(format!(
                "a disk of {} bytes in sectors of {} cannot be protected",
                info.size, info.sector
            ))
            .hint("give a size that is a multiple of the sector size, which is 512 or 4096"));
        }
        if info.size > limits::DISK_SIZE.0 {
            return Err(Error::unsupported(format!(
                "a disk of {} bytes is larger than any that is protected ({})",
                info.size,
                limits::DISK_SIZE
            )));
        }
        let is_as_long = |was: &DiskInfo| was.name == info.name && was.size >= info.size;
        if !self.with_state(|state| state.disks.values().any(is_as_long)) {
            self.home.storage.can_be_long(&self.home.dir, info.size)?;
        }
        let mut active = locked(&self.active);
        let number = match active.state.number(&info.name) {
            Some(number) => number,
            // Never one that was used before: the journal or the base may hold content under it.
            None => active.state.highest.checked_add(1).ok_or_else(|| {
                Error::refused("the machine has had too many disks to take another one")
                    .hint("protect it under another name")
            })?,
        };
        match active.state.disks.get(&number).cloned() {
            Some(was) if was == *info => return Ok(number),
            // Behind its old end lies what it lost when it was made smaller, in the journal or in the base.
            Some(was) if was.size < info.size => {
                self.put(&mut active, &Note::zero(number, was.size, info.size - was.size))?;
            }
            _ => {}
        }
        self.put(&mut active, &Note::disk(number, &encoded(info)?))?;
        active.state.put_disk(number, info.clone());
        Ok(number)
    }

    /// Takes a disk from the machine. Earlier points keep it.
    ///
    /// # Errors
    /// Where there is no such disk, or the file cannot be written.
    pub fn remove_disk(&self, disk: u32) -> Result<()> {
        let mut active = locked(&self.active);
        active.check(disk, 0, 0)?;
        self.put(&mut active, &Note::disk_gone(disk))?;
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
        self.put(&mut active, &Note::attachment(&attachment(name, bytes)?))?;
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
        self.believed(self.sync_all())
    }

    /// A medium that failed to keep something is not believed again, whoever asked it.
    fn believed<T>(&self, synced: Result<T>) -> Result<T> {
        if synced.is_err() && !self.is_lost.swap(true, Ordering::AcqRel) {
            // For the next service. Where the medium does not even take that, what it lost is found as damage.
            drop(start::set_behind(&self.home, &start::Found::default()));
        }
        synced
    }

    /// Says that all up to a record is durable, which it is.
    pub fn publish(&self, sequence: u64) {
        self.durable.fetch_max(sequence, Ordering::AcqRel);
    }

    /// When a segment is closed.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The time of the first checkpoint in the segment that is written to; `None` where there is none.
    pub fn active_since(&self) -> Option<u64> {
        locked(&self.active).since()
    }

    /// Records that are held in memory for the segment that is written to.
    pub fn records_in_active(&self) -> usize {
        locked(&self.active).entries().len()
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
            (active.next - 1, active.file())
        };
        let closed: Vec<Arc<Segment>> = self.closed();
        for segment in closed {
            segment.sync()?;
        }
        if let Some(file) = file {
            file.sync()?;
        }
        Ok(last)
    }

    /// True where acknowledged writes may be missing: no checkpoint can be set then, as it would be no state that the machine was in.
    pub fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Acquire)
    }

    /// Says that all of the machine's disks were compared with their source, and what differs was written: checkpoints can be set again.
    ///
    /// # Errors
    /// As the storage's; then it stays behind.
    pub fn caught_up(&self) -> Result<()> {
        start::clear_behind(&self.home)?;
        self.is_behind.store(false, Ordering::Release);
        Ok(())
    }

    /// Takes nothing more, and returns when all is on the medium.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn shut(&self) -> Result<()> {
        {
            // Nothing that was let in before is left behind.
            let _active = locked(&self.active);
            self.is_shut.store(true, Ordering::Release);
        }
        self.sync().map(|_| ())
    }

    /// Takes its records out of the count of those in memory: it is shut, and nobody reads them again. Called once.
    pub fn forget(&self) {
        let closed = self.closed();
        let in_closed = closed.iter().filter_map(|segment| segment.log()).map(|log| log.entries.len());
        let records = self.records_in_active() + in_closed.sum::<usize>();
        self.home.in_memory.fetch_sub(records, Ordering::Relaxed);
    }

    /// True when nothing more is taken.
    pub fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::Acquire)
    }

    /// Closes the segment that is written to, so that all of it can be sealed and rewritten.
    pub fn close_segment(&self) {
        self.close(&mut locked(&self.active));
    }

    /// Brings what was written to the medium where it is much, ahead of the next point, which has to wait for less then. For the background.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn write_back(&self) -> Result<()> {
        let (file, extent) = {
            let active = locked(&self.active);
            (active.file(), active.extent())
        };
        let Some((file, (first, end))) = file.zip(extent) else { return Ok(()) };
        let mut done = locked(&self.written_back);
        let from = if done.0 == first { done.1 } else { 0 };
        if end.saturating_sub(from) >= MUCH {
            self.believed(file.sync())?;
            *done = (first, end);
        }
        Ok(())
    }

    /// True where something is closed and waits to be sealed.
    pub fn has_closed(&self) -> bool {
        !self.closed().is_empty()
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
        // Its files may be gone.
        if self.is_shut() {
            return Ok(false);
        }
        let Some(segment) = self.closed().into_iter().next() else { return Ok(false) };
        self.believed(segment.sync())?;
        let sealed = Arc::new(segment.seal()?);
        let records = segment.log().map_or(0, |log| log.entries.len());
        self.change(|past| past.seal(&segment, &sealed));
        self.home.in_memory.fetch_sub(records, Ordering::Relaxed);
        Ok(true)
    }

    /// Complete segments, and the layers of their indexes.
    pub fn past(&self) -> Arc<Past> {
        Arc::clone(&self.past.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All complete segments, oldest first.
    pub fn segments(&self) -> Segments {
        Arc::clone(&self.past().segments)
    }

    fn change(&self, work: impl FnOnce(&mut Past)) {
        work(Arc::make_mut(&mut self.past.write().unwrap_or_else(PoisonError::into_inner)));
    }

    fn closed(&self) -> Vec<Arc<Segment>> {
        self.segments().iter().filter(|segment| segment.log().is_some()).cloned().collect()
    }

    /// Puts segments into the place of those that they were made of; `new` may be empty where the base has taken them.
    /// The files of the old go when the last view on them does.
    pub fn replace(&self, old: &[Arc<Segment>], new: Vec<Segment>) {
        let new = new.into_iter().map(Arc::new).collect();
        self.change(|past| past.replace(old, new));
    }

    /// The checkpoints of the journal in their order.
    ///
    /// # Errors
    /// Where an index cannot be read or made.
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let active: Vec<(Entry, Arc<dyn StoredFile>)> = {
            let active = locked(&self.active);
            let file = active.file();
            let marks = active.entries().iter().filter(|entry| entry.kind == Kind::Checkpoint);
            marks.filter_map(|entry| Some((*entry, Arc::clone(file.as_ref()?)))).collect()
        };
        let mut all = Vec::new();
        self.past().roots.iter().try_for_each(|root| root.checkpoints(&mut all))?;
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
        let past = {
            let mut active = locked(&self.active);
            let map = active.map(disk);
            search.ask(|open| Ok::<_, Error>(map.within(open).collect()))?;
            // Under the lock: what is in the active segment does not move behind our back.
            self.past()
        };
        layers::ask(&mut search, disk, past.roots.iter().rev())?;
        Ok((search, Arc::clone(&past.segments)))
    }

    /// Reads a stored run of a located range: `active` runs of the segment that is written to, too.
    ///
    /// # Errors
    /// As [`Segment::read`].
    pub fn read(&self, segments: &[Arc<Segment>], segment: u64, at: u64, buf: &mut [u8]) -> Result<()> {
        if let Some(found) = view::segment_of(segments, segment) {
            return found.read(at, buf);
        }
        let file = locked(&self.active).file_of(segment);
        match file {
            Some(file) => file.read_at(at, buf),
            // It was closed since.
            None => match view::segment_of(&self.segments(), segment) {
                Some(found) => found.read(at, buf),
                None => Err(Error::corrupt(format!("no part of the journal begins with record {segment}"))),
            },
        }
    }

    /// Writes a record, in a segment that has room.
    fn put(&self, active: &mut Active, note: &Note<'_>) -> Result<()> {
        self.check_lost()?;
        if self.is_shut() {
            return Err(Error::refused("the vault was closed").hint("start the service: landfall serve"));
        }
        // What is said of the machine, and its points, come through on a medium that is full for content.
        if note.kind == Kind::Data {
            self.home.room.take(note.payload.len() as u64)?;
        }
        if active.is_full(self.limits.records, self.limits.bytes) {
            self.close(active);
            // Reading a segment back takes a quarter of a second, for which a writer does not wait unless nobody else does it.
            let closed = self.closed();
            let records: usize = closed.iter().filter_map(|one| one.log()).map(|log| log.entries.len()).sum();
            let is_much = records > self.limits.closed * self.limits.records;
            if is_much || closed.len() > WAITING * self.limits.closed {
                self.seal_one()?;
            }
        }
        active.begin(&self.home)?;
        active.put(&self.home, note)
    }

    fn close(&self, active: &mut Active) {
        if let Some(segment) = active.close(&self.home) {
            self.change(|past| past.push(Arc::new(segment)));
        }
    }
}

/// Writes that are held up.
pub struct Held<'j> {
    journal: &'j Journal,
    active: MutexGuard<'j, Active>,
}

impl Held<'_> {
    /// The earliest time that the next checkpoint can have: one millisecond behind the last one.
    pub fn earliest(&self) -> u64 {
        self.active.time.saturating_add(1)
    }

    /// Sets a checkpoint. `time` is in milliseconds since 1970; where it is not behind that of the last one, because the clock was set back,
    /// the checkpoint is one millisecond younger than that: times rise through a journal.
    ///
    /// # Errors
    /// Where the file cannot be written; refused where acknowledged writes may be missing, or a disk is being copied
    /// ([`State::copying`]).
    pub fn checkpoint(&mut self, time: u64, mark: &Mark) -> Result<u64> {
        self.check()?;
        let payload = match *mark == Mark::default() {
            true => Vec::new(),
            false => encoded(mark)?,
        };
        let time = time.max(self.earliest());
        self.journal.put(&mut self.active, &Note::checkpoint(time, &payload))?;
        self.active.time = time;
        Ok(self.active.next - 1)
    }

    /// Refuses where a checkpoint cannot be set.
    ///
    /// # Errors
    /// See there.
    pub fn check(&self) -> Result<()> {
        match self.journal.is_behind() {
            false => self.active.state.check_copied(),
            true => Err(Error::refused("writes that were acknowledged may be missing: a new point would be no state that the machine was in")
                .hint("let the machine's disks be compared with their source (a resync); points from before the loss stay")),
        }
    }
}
