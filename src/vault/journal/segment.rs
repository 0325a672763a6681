//! A segment: one file of a journal, with its index once it is sealed.
//!
//! `0000000000000a01.open` is written to, or was when the service ended. `0000000000000a01-0000000000000fff.0.seg` is complete and never
//! changes; its index has the same name with `.idx`. The third number counts how often its range of the journal was
//! rewritten with fewer records (see [`compact`](super::super::compact)): where two files hold the same records, the higher
//! number is the whole truth, and the others are what a loss of power left over. One that was rewritten ends with a run of zeros of no
//! length that has the last sequence: so it is known to be whole.

use super::Home;
use super::index::{self, BLOCK, Entry, Index, Of};
use super::map::RunMap;
use super::record::{Kind, RECORD_HEADER, Record, SEGMENT_HEADER, SegmentHeader};
use crate::vault::handles::Stored;
use crate::vault::storage::{Storage, StoredFile};
use landfall_image::{Error, FileOffset, Result};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// Bytes that are read at once where a segment is read whole.
const PIECE: u64 = 1 << 20;

/// Which records a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Sequence of the first.
    pub first: u64,
    /// Sequence of the last; `None` where it is written to.
    pub last: Option<u64>,
    /// How often it was rewritten.
    pub generation: u32,
}

impl Name {
    /// Of a file's name; `None` where it is no segment.
    pub fn parse(name: &str) -> Option<Name> {
        let number = |text: &str| match text.len() == 16 {
            true => u64::from_str_radix(text, 16).ok(),
            false => None,
        };
        if let Some(first) = name.strip_suffix(".open") {
            return Some(Name { first: number(first)?, last: None, generation: 0 });
        }
        let (range, generation) = name.strip_suffix(".seg")?.split_once('.')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        let generation = generation.parse().ok()?;
        (first <= last).then_some(Name { first, last: Some(last), generation })
    }

    /// The file's name.
    pub fn file(&self) -> String {
        match self.last {
            Some(last) => format!("{:016x}-{last:016x}.{}.seg", self.first, self.generation),
            None => format!("{:016x}.open", self.first),
        }
    }

    /// What its index is of; `last` is its last record.
    fn of(&self, last: u64) -> Of {
        Of { sequences: (self.first, last), segments: 1, generations: u64::from(self.generation) }
    }

    /// The name of its index.
    pub fn index(&self) -> String {
        format!("{:016x}-{:016x}.{}.idx", self.first, self.last.unwrap_or_default(), self.generation)
    }
}

/// The records of a segment that is not sealed.
#[derive(Debug, Default)]
pub struct Log {
    /// In their order.
    pub entries: Vec<Entry>,
    /// Where content lies after all of them: made when somebody reads.
    all: OnceLock<BTreeMap<u32, RunMap>>,
}

impl Log {
    /// Where content lies after all records, which are no more to come.
    pub fn all(&self, segment: u64) -> &BTreeMap<u32, RunMap> {
        self.all.get_or_init(|| self.maps(segment, u64::MAX))
    }

    /// Where content lies after the records up to `until`.
    pub fn maps(&self, segment: u64, until: u64) -> BTreeMap<u32, RunMap> {
        let mut maps = BTreeMap::new();
        self.entries
            .iter()
            .take_while(|entry| entry.sequence <= until)
            .for_each(|entry| entry.put(segment, &mut maps));
        maps
    }
}

/// A file of a journal that is complete.
#[derive(Debug)]
pub struct Segment {
    /// Which records.
    pub name: Name,
    /// Sequence of the last record, of an open one, too.
    pub last: u64,
    home: Home,
    /// Of one that is not sealed: its records and its file.
    memory: Option<(Log, Arc<dyn StoredFile>)>,
    /// Opened when it is needed.
    index: Mutex<Option<Arc<Index>>>,
    /// In the cache of blocks.
    number: u64,
    is_obsolete: AtomicBool,
}

impl Segment {
    /// One that is sealed.
    pub fn sealed(name: Name, home: &Home) -> Segment {
        Segment::new(name, name.last.unwrap_or(name.first), home, None)
    }

    /// One that was written to, and is no more. `log` is not empty.
    pub fn open(first: u64, log: Log, file: Arc<dyn StoredFile>, home: &Home) -> Segment {
        let last = log.entries.last().map_or(first, |entry| entry.sequence);
        Segment::new(Name { first, last: None, generation: 0 }, last, home, Some((log, file)))
    }

    fn new(name: Name, last: u64, home: &Home, memory: Option<(Log, Arc<dyn StoredFile>)>) -> Segment {
        Segment {
            name,
            last,
            home: home.clone(),
            memory,
            index: Mutex::default(),
            number: home.handles.blocks.file(),
            is_obsolete: AtomicBool::new(false),
        }
    }

    /// Its path in the vault.
    pub fn path(&self) -> String {
        format!("{}/{}", self.home.dir, self.name.file())
    }

    /// What it begins with.
    pub fn header(&self) -> Result<SegmentHeader> {
        let mut raw = [0; SEGMENT_HEADER];
        self.read(0, &mut raw)?;
        SegmentHeader::parse(&raw).map_err(|error| error.in_file(&self.home.storage.place(&self.path())))
    }

    /// Its records, where they are held in memory because it is not sealed.
    pub fn log(&self) -> Option<&Log> {
        self.memory.as_ref().map(|(log, _)| log)
    }

    /// Bytes of its file.
    ///
    /// # Errors
    /// As the storage's.
    pub fn size(&self) -> Result<u64> {
        self.file()?.len()
    }

    fn file(&self) -> Result<Arc<dyn StoredFile>> {
        match &self.memory {
            Some((_, file)) => Ok(Arc::clone(file)),
            None => self.home.handles.open(&*self.home.storage, &self.path()),
        }
    }

    /// Returns when it is on the medium.
    pub fn sync(&self) -> Result<()> {
        self.file()?.sync()
    }

    /// Asks its index, which is made anew from the records where it is missing or damaged; `ask` is called again then. Nobody is told of
    /// that: nothing was lost.
    ///
    /// # Errors
    /// Those of `ask` that are not about damage; corrupt where a record is damaged, too; as the storage's.
    pub fn indexed<T>(&self, ask: impl Fn(&Index) -> Result<T>) -> Result<T> {
        let used = match self.index() {
            Ok(index) => match ask(&index) {
                Err(error) if is_unusable(&error) => Some(index),
                other => return other,
            },
            Err(error) if is_unusable(&error) => None,
            Err(error) => return Err(error),
        };
        ask(&*self.index_anew(used.as_ref())?)
    }

    /// Its index, as it is found.
    pub(super) fn index(&self) -> Result<Arc<Index>> {
        let mut index = super::locked(&self.index);
        match &*index {
            Some(index) => Ok(Arc::clone(index)),
            None => Ok(Arc::clone(index.insert(Arc::new(self.open_index()?)))),
        }
    }

    fn index_path(&self) -> String {
        format!("{}/{}", self.home.dir, self.name.index())
    }

    /// What its index is of.
    pub(super) fn of(&self) -> Of {
        self.name.of(self.last)
    }

    fn open_index(&self) -> Result<Index> {
        let index = Index::open(Stored::new(&self.home.storage, &self.home.handles, &self.index_path()))?;
        match index.of == self.of() {
            true => Ok(index),
            false => Err(Error::corrupt("this is the index of another part of the journal")),
        }
    }

    /// `used` is the index that cannot be used: where there is another one by now, it was made anew meanwhile.
    fn index_anew(&self, used: Option<&Arc<Index>>) -> Result<Arc<Index>> {
        let mut index = super::locked(&self.index);
        if let Some(index) = index.as_ref().filter(|index| used.is_none_or(|used| !Arc::ptr_eq(used, index)))
        {
            return Ok(Arc::clone(index));
        }
        let scan = scan(&*self.file()?, self.name, self.last)
            .map_err(|error| error.in_file(&self.home.storage.place(&self.path())))?;
        if scan.is_torn || !scan.is_whole(self.name, self.last) {
            return Err(self.damaged(scan.end, "a record of a complete part of the journal is damaged"));
        }
        let path = self.index_path();
        write_index(&*self.home.storage, &path, self.name, self.last, &scan)?;
        self.home.handles.forget(&path);
        Ok(Arc::clone(index.insert(Arc::new(self.open_index()?))))
    }

    /// Fills `buf` from byte `at` of the file, and checks it where the segment is sealed.
    pub fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let file = self.file()?;
        if self.memory.is_some() {
            return file.read_at(at, buf);
        }
        let len = file.len()?;
        let (mut here, end) = (at, at + buf.len() as u64);
        if end > len {
            return Err(self.damaged(len, "the file is shorter than its records"));
        }
        while here < end {
            let start = here / BLOCK * BLOCK;
            // Whole blocks go where they are wanted; of others what was read is kept for those who want the rest.
            let whole = if end == len { end } else { end / BLOCK * BLOCK };
            let now = match here == start && here < whole {
                true => {
                    let part = &mut buf[distance(here - at)..distance(whole - at)];
                    file.read_at(here, part)?;
                    self.check(here / BLOCK, part)?;
                    whole
                }
                false => {
                    let until = (start + BLOCK).min(len);
                    let block = self.home.handles.blocks.get(self.number, start / BLOCK, || {
                        let mut block = vec![0; distance(until - start)];
                        file.read_at(start, &mut block)?;
                        self.check(start / BLOCK, &block)?;
                        Ok(block)
                    })?;
                    let stop = until.min(end);
                    buf[distance(here - at)..distance(stop - at)]
                        .copy_from_slice(&block[distance(here - start)..distance(stop - start)]);
                    stop
                }
            };
            here = now;
        }
        Ok(())
    }

    /// Compares blocks with their sums; `number` is that of the first.
    fn check(&self, number: u64, blocks: &[u8]) -> Result<()> {
        for (number, block) in (number..).zip(blocks.chunks(distance(BLOCK))) {
            if self.indexed(|index| index.sum(number))? != Some(crc32c::crc32c(block)) {
                return Err(
                    self.damaged(number * BLOCK, "16 KiB of the journal are not as they were written")
                );
            }
        }
        Ok(())
    }

    /// Fills `buf` from byte `at` of the file, for who has another way to check it.
    pub(super) fn read_unchecked(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.file()?.read_at(at, buf)
    }

    pub(super) fn damaged(&self, at: u64, says: &str) -> Error {
        Error::corrupt(says)
            .at(FileOffset(at))
            .in_file(&self.home.storage.place(&self.path()))
            .hint("points before this one and the running replication are not touched by it: recover an earlier point, and check the medium of the vault")
    }

    /// Makes the file complete, which is on the medium: its records are read back and checked, the index is written, and it gets its lasting name.
    ///
    /// # Errors
    /// Corrupt where what is read is not what was written.
    pub fn seal(&self) -> Result<Segment> {
        let file = self.file()?;
        let name = Name { last: Some(self.last), ..self.name };
        let place = |error: Error| error.in_file(&self.home.storage.place(&self.path()));
        let scan = scan(&*file, self.name, self.last).map_err(place)?;
        if !scan.is_whole(self.name, self.last) {
            return Err(place(
                Error::corrupt("what was written to the journal is not read back").at(FileOffset(scan.end)),
            ));
        }
        if file.len()? > scan.end {
            file.set_len(scan.end)?;
            file.sync()?;
        }
        write_index(
            &*self.home.storage,
            &format!("{}/{}", self.home.dir, name.index()),
            name,
            self.last,
            &scan,
        )?;
        self.home.storage.rename(&self.path(), &format!("{}/{}", self.home.dir, name.file()))?;
        self.home.storage.sync_dir(&self.home.dir)?;
        Ok(Segment::sealed(name, &self.home))
    }

    /// Its files go when nobody reads them any more: all that is in them is elsewhere.
    pub fn make_obsolete(&self) {
        self.is_obsolete.store(true, Ordering::Relaxed);
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.is_obsolete.load(Ordering::Relaxed) {
            // What stays is removed when the vault is opened the next time.
            for path in [self.path(), format!("{}/{}", self.home.dir, self.name.index())] {
                self.home.handles.forget(&path);
                drop(self.home.storage.remove(&path));
            }
        }
    }
}

/// True where an index is missing, cut off or damaged.
pub(super) fn is_unusable(error: &Error) -> bool {
    use std::io::ErrorKind::{NotFound, UnexpectedEof};
    let is_absent = |error: &std::io::Error| [NotFound, UnexpectedEof].contains(&error.kind());
    error.kind() == landfall_image::Kind::Corrupt || error.io_error().is_some_and(is_absent)
}

/// Writes the index of a segment that was read whole; one that is there is replaced.
pub(in crate::vault) fn write_index(
    storage: &dyn Storage,
    path: &str,
    name: Name,
    last: u64,
    scan: &Scan,
) -> Result<()> {
    let maps = scan.log.maps(name.first, u64::MAX);
    let runs = maps.iter().flat_map(|(disk, map)| map.runs().map(|run| Ok((*disk, run))));
    let contents = index::Contents {
        of: name.of(last),
        log: &scan.log.entries,
        notes: &scan.notes,
        texts: &scan.texts,
        sums: &scan.sums,
    };
    let new = format!("{path}.new");
    index::write(storage, &new, &contents, runs, &|_| Ok(()))?;
    storage.rename(&new, path)
}

/// What was found in a segment's file.
pub struct Scan {
    /// Whose journal it is.
    pub header: SegmentHeader,
    /// The records.
    pub log: Log,
    /// Where the last of them ends.
    pub end: u64,
    /// Something follows that is no record.
    pub is_torn: bool,
    /// The CRC-32C of each [`BLOCK`] up to the end.
    pub sums: Vec<u32>,
    /// The records that are not about content; of checkpoints with their places in the texts.
    notes: Vec<Entry>,
    /// Payloads of checkpoints.
    texts: Vec<u8>,
}

impl Scan {
    /// True where nothing is missing up to the record `last`.
    pub fn is_whole(&self, name: Name, last: u64) -> bool {
        let ends = |entry: &Entry| entry.sequence == last && (name.generation == 0 || is_end(entry));
        self.log.entries.last().is_some_and(ends)
    }
}

/// True for what a rewritten segment ends with.
fn is_end(entry: &Entry) -> bool {
    entry.kind == Kind::Zero && entry.len == 0
}

/// Reads a segment and checks each record, up to the end, the first that is none, or the last record `until`.
///
/// # Errors
/// Corrupt where it does not begin as a segment; what follows the last sound record is no error here.
pub fn scan(file: &dyn StoredFile, name: Name, until: u64) -> Result<Scan> {
    let len = file.len()?;
    let mut head = [0; SEGMENT_HEADER];
    if len < SEGMENT_HEADER as u64 {
        return Err(Error::corrupt(format!("{len} bytes are no journal segment")));
    }
    file.read_at(0, &mut head)?;
    let header = SegmentHeader::parse(&head)?;
    if header.first != name.first {
        return Err(Error::corrupt(format!(
            "the segment begins with record {}, and its name says {}",
            header.first, name.first
        )));
    }
    let mut reader = Reader { file, len, at: 0, piece: Vec::new(), piece_at: 0 };
    reader.at = SEGMENT_HEADER as u64;
    let mut log = Log::default();
    let (mut notes, mut texts) = (Vec::new(), Vec::new());
    let mut next = header.first;
    let mut end = reader.at;
    while let Some((record, at)) = reader.record(header.salt)? {
        let is_next = match name.generation {
            0 => record.sequence == next,
            // Rewritten: what was overwritten later is missing.
            _ => record.sequence >= next,
        };
        if !is_next || record.sequence > until {
            break;
        }
        next = if name.generation == 0 { next + 1 } else { record.sequence };
        let len = if record.kind.is_content() { record.len } else { u64::from(record.payload) };
        let (kind, disk, offset, sequence) = (record.kind, record.disk, record.offset, record.sequence);
        let entry = Entry { kind, disk, offset, len, sequence, at };
        log.entries.push(entry);
        if kind == Kind::Checkpoint {
            notes.push(Entry { at: texts.len() as u64, ..entry });
            texts.extend_from_slice(reader.bytes(at, len)?.unwrap_or_default());
        } else if entry.is_note() {
            notes.push(entry);
        }
        end = reader.at;
    }
    let sums = sums(file, end)?;
    Ok(Scan { header, log, end, is_torn: end < len, sums, notes, texts })
}

fn sums(file: &dyn StoredFile, end: u64) -> Result<Vec<u32>> {
    let mut sums = Vec::new();
    let mut piece = Vec::new();
    let mut at = 0;
    while at < end {
        piece.resize(distance(PIECE.min(end - at)), 0);
        file.read_at(at, &mut piece)?;
        sums.extend(piece.chunks(distance(BLOCK)).map(crc32c::crc32c));
        at += PIECE;
    }
    Ok(sums)
}

/// Reads records through a window on the file.
struct Reader<'f> {
    file: &'f dyn StoredFile,
    len: u64,
    at: u64,
    piece: Vec<u8>,
    piece_at: u64,
}

impl Reader<'_> {
    /// `None` behind the end of the file.
    fn bytes(&mut self, at: u64, len: u64) -> Result<Option<&[u8]>> {
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        let end = at + len;
        if at < self.piece_at || end > self.piece_at + self.piece.len() as u64 {
            self.piece.resize(distance(len.max(PIECE).min(self.len - at)), 0);
            self.file.read_at(at, &mut self.piece)?;
            self.piece_at = at;
        }
        Ok(Some(&self.piece[distance(at - self.piece_at)..distance(end - self.piece_at)]))
    }

    /// The next record, and where its payload begins; `None` where there is none that is sound.
    fn record(&mut self, salt: u32) -> Result<Option<(Record, u64)>> {
        let at = self.at;
        let Some(raw) = self.bytes(at, RECORD_HEADER as u64)? else { return Ok(None) };
        let Some(record) = raw.try_into().ok().and_then(|raw| Record::parse(raw, salt)) else {
            return Ok(None);
        };
        let payload_at = at + RECORD_HEADER as u64;
        let Some(payload) = self.bytes(payload_at, u64::from(record.payload))? else { return Ok(None) };
        if crc32c::crc32c(payload) != record.sum {
            return Ok(None);
        }
        // The padding of the last one may be missing.
        self.at = (at + record.size()).min(self.len);
        Ok(Some((record, payload_at)))
    }
}

/// A length inside of one buffer.
fn distance(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
