//! What a run has told its sink so far, written down beside the target, so that an interrupted run can be continued.
//!
//! A text file `.NAME.landfall-journal`: the first line says what is made of what, each further line is one record
//! of the walk. A line that is torn ends it. Nothing in it is believed: a record counts only where the bytes that it
//! says were stored are there and have the hash that it says, and the sink gives the same places again.

use crate::error::{Error, Result};
use crate::sink::{Piece, Placed, Sink};
use crate::units::{Bytes, FileOffset, GuestOffset, GuestRange};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A longer line is no record of ours: a chunk in pieces of 512 bytes makes half of it.
const LINE: u64 = 1 << 20;

/// The journal of a conversion. Removed by [`done`](Self::done).
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    first_line: String,
    /// Bytes of data that the records stand for.
    copied: Bytes,
}

impl Journal {
    /// Where the journal of a conversion to `target` lies.
    pub fn path_of(target: &Path) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(".landfall-journal");
        target.with_file_name(name)
    }

    /// True where an interrupted conversion to `target` can be continued: its journal is there and is about the same.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) where it is about something else: another source, a source that was
    /// changed meanwhile, other options.
    pub fn can_resume(target: &Path, about: &str) -> Result<bool> {
        let path = Journal::path_of(target);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::io("cannot open the journal", e).in_file(&path)),
        };
        let mut found = String::new();
        BufReader::new(std::io::Read::take(file, LINE))
            .read_line(&mut found)
            .map_err(|e| Error::io("cannot read the journal", e).in_file(&path))?;
        if !found.ends_with('\n') {
            return Ok(false);
        }
        if found.trim_end() != one_line(about) {
            return Err(Error::refused(format!(
                "cannot be continued: the interrupted run was about something else (then: {}; now: {})",
                found.trim_end(),
                one_line(about)
            ))
            .in_file(target)
            .hint("the source was changed, or the options differ; convert it anew, without --resume"));
        }
        Ok(true)
    }

    /// Begins the journal of a conversion to `target`; `about` says in one line from what and how.
    pub fn begin(target: &Path, about: &str) -> Result<Journal> {
        Journal::open(target, about, true)
    }

    /// Takes up the journal that [`can_resume`](Self::can_resume) found.
    pub fn resume(target: &Path, about: &str) -> Result<Journal> {
        Journal::open(target, about, false)
    }

    fn open(target: &Path, about: &str, anew: bool) -> Result<Journal> {
        let path = Journal::path_of(target);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(anew)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(|e| Error::io("cannot open the journal", e).in_file(&path))?;
        let mut journal = Journal { file, path, first_line: one_line(about) + "\n", copied: Bytes(0) };
        if anew {
            let line = journal.first_line.clone();
            journal.file.write_all(line.as_bytes()).map_err(|e| journal.failed("cannot write", e))?;
        }
        Ok(journal)
    }

    fn failed(&self, doing: &str, error: std::io::Error) -> Error {
        Error::io(format!("{doing} the journal"), error).in_file(&self.path)
    }

    /// The records of the interrupted run, up to the first that is torn.
    pub(super) fn previous(&self) -> Result<impl Iterator<Item = Record> + use<>> {
        let mut file = self.file.try_clone().map_err(|e| self.failed("cannot read", e))?;
        file.seek(SeekFrom::Start(self.first_line.len() as u64))
            .map_err(|e| self.failed("cannot read", e))?;
        let mut lines = BufReader::new(file);
        Ok(std::iter::from_fn(move || {
            let mut line = String::new();
            std::io::Read::take(&mut lines, LINE).read_line(&mut line).ok()?;
            if !line.ends_with('\n') {
                return None;
            }
            serde_json::from_str::<Line>(&line).ok()?.record()
        }))
    }

    /// Forgets all but the first `records` records, and makes ready to append.
    pub(super) fn go_on_after(&mut self, records: usize, copied: Bytes) -> Result<()> {
        self.copied = copied;
        let mut end = self.first_line.len() as u64;
        let mut file = self.file.try_clone().map_err(|e| self.failed("cannot read", e))?;
        file.seek(SeekFrom::Start(end)).map_err(|e| self.failed("cannot read", e))?;
        let mut lines = BufReader::new(file);
        let mut line = String::new();
        for _ in 0..records {
            line.clear();
            let len = lines.read_line(&mut line).map_err(|e| self.failed("cannot read", e))?;
            end += len as u64;
        }
        self.file.set_len(end).map_err(|e| self.failed("cannot cut", e))?;
        self.file.seek(SeekFrom::Start(end)).map_err(|e| self.failed("cannot write", e))?;
        Ok(())
    }

    /// Adds a record.
    pub(super) fn append(&mut self, record: &Record) -> Result<()> {
        self.copied.0 += record.copied.0;
        let mut line =
            serde_json::to_vec(&Line::of(record)).map_err(|e| self.failed("cannot write", e.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| self.failed("cannot write", e))
    }

    /// Bytes of data that the records stand for.
    pub(super) fn in_place(&self) -> Bytes {
        self.copied
    }

    /// The image is complete, or nothing of it is to be kept: removes the journal.
    pub fn done(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|e| self.failed("cannot remove", e))
    }
}

fn one_line(about: &str) -> String {
    about.trim().replace(['\n', '\r'], " ")
}

/// One step of the walk as the sink was told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Data { range: GuestRange, pieces: Vec<Piece>, placed: Vec<Placed> },
    Zero(GuestRange),
    Keep(GuestRange),
}

/// What became of one item of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub range: GuestRange,
    /// Covers `range`.
    pub told: Vec<Told>,
    /// The content, by the blocks that are not all zeros.
    pub hashes: Vec<(GuestOffset, blake3::Hash)>,
    /// The stored bytes one after the other, where they are not the content and zeros.
    pub stored: Option<blake3::Hash>,
    pub copied: Bytes,
}

impl Record {
    /// True where the sink's files hold what this record says was stored.
    pub fn is_there(&self, sink: &dyn Sink) -> bool {
        self.covers() && self.loaded(sink).is_some_and(|loaded| loaded)
    }

    /// True where what was told covers the range, in order, and every piece has its place.
    fn covers(&self) -> bool {
        let mut here = self.range.start();
        for told in &self.told {
            let (Told::Data { range, .. } | Told::Zero(range) | Told::Keep(range)) = told;
            if range.start() != here || range.is_empty() {
                return false;
            }
            here = range.end();
        }
        here == self.range.end()
    }

    fn loaded(&self, sink: &dyn Sink) -> Option<bool> {
        let verbatim = self.stored.is_none();
        let whole = usize::try_from(self.range.len().0).ok()?;
        let mut content = Vec::new();
        let mut all = blake3::Hasher::new();
        for told in &self.told {
            let Told::Data { range, placed, .. } = told else { continue };
            if verbatim && content.is_empty() {
                // Data comes in chunks; longer is no record of ours.
                content = vec![0; (whole as u64 <= super::GRANULE.0).then_some(whole)?];
            }
            let mut at = usize::try_from(range.start().0 - self.range.start().0).ok()?;
            for &from in placed {
                let mut own = Vec::new();
                let bytes = if verbatim {
                    let end = at.checked_add(from.len)?;
                    let bytes = content.get_mut(at..end)?;
                    at = end;
                    bytes
                } else {
                    // Compression of a chunk can make it a little longer, never twice as long.
                    own.resize((from.len as u64 <= 2 * super::GRANULE.0).then_some(from.len)?, 0);
                    &mut own[..]
                };
                sink.load(from, bytes).ok()?;
                if !verbatim {
                    all.update(bytes);
                }
            }
        }
        if let Some(stored) = self.stored {
            return Some(all.finalize() == stored);
        }
        let mut expected = self.hashes.iter();
        for (n, block) in content.chunks(super::index(crate::digest::BLOCK.0)).enumerate() {
            if super::is_zero(block) {
                continue;
            }
            let at = GuestOffset(self.range.start().0 + n as u64 * crate::digest::BLOCK.0);
            if expected.next() != Some(&(at, blake3::hash(block))) {
                return Some(false);
            }
        }
        Some(expected.next().is_none())
    }
}

/// A record as a line.
#[derive(Serialize, Deserialize)]
struct Line {
    range: (u64, u64),
    told: Vec<ToldLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    blocks: Vec<(u64, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stored: Option<String>,
    copied: u64,
}

#[derive(Serialize, Deserialize)]
enum ToldLine {
    #[serde(rename = "data")]
    Data(u64, u64, Vec<(usize, bool)>, Vec<(usize, u64, usize)>),
    #[serde(rename = "zero")]
    Zero(u64, u64),
    #[serde(rename = "keep")]
    Keep(u64, u64),
}

impl Line {
    fn of(record: &Record) -> Line {
        let pair = |range: &GuestRange| (range.start().0, range.end().0);
        let told = record.told.iter().map(|told| match told {
            Told::Data { range, pieces, placed } => ToldLine::Data(
                range.start().0,
                range.end().0,
                pieces.iter().map(|piece| (piece.len, piece.verbatim)).collect(),
                placed.iter().map(|to| (to.file, to.at.0, to.len)).collect(),
            ),
            Told::Zero(range) => ToldLine::Zero(range.start().0, range.end().0),
            Told::Keep(range) => ToldLine::Keep(range.start().0, range.end().0),
        });
        Line {
            range: pair(&record.range),
            told: told.collect(),
            blocks: record.hashes.iter().map(|(at, hash)| (at.0, hash.to_hex().to_string())).collect(),
            stored: record.stored.map(|hash| hash.to_hex().to_string()),
            copied: record.copied.0,
        }
    }

    fn record(self) -> Option<Record> {
        let range = |start: u64, end: u64| {
            (start <= end).then(|| GuestRange::between(GuestOffset(start), GuestOffset(end)))
        };
        let told = self.told.into_iter().map(|told| {
            Some(match told {
                ToldLine::Zero(start, end) => Told::Zero(range(start, end)?),
                ToldLine::Keep(start, end) => Told::Keep(range(start, end)?),
                ToldLine::Data(start, end, pieces, placed) => Told::Data {
                    range: range(start, end)?,
                    pieces: pieces.into_iter().map(|(len, verbatim)| Piece { len, verbatim }).collect(),
                    placed: placed
                        .into_iter()
                        .map(|(file, at, len)| Placed { file, at: FileOffset(at), len })
                        .collect(),
                },
            })
        });
        let hash = |hex: &str| blake3::Hash::from_hex(hex).ok();
        let hashes = self.blocks.iter().map(|(at, hex)| Some((GuestOffset(*at), hash(hex)?)));
        Some(Record {
            range: range(self.range.0, self.range.1)?,
            told: told.collect::<Option<_>>()?,
            hashes: hashes.collect::<Option<_>>()?,
            stored: match &self.stored {
                Some(hex) => Some(hash(hex)?),
                None => None,
            },
            copied: Bytes(self.copied),
        })
    }
}
