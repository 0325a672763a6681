//! Registry hives: opened with their logs, read, edited, given out again only when they are whole.
//!
//! ```text
//! bytes + .LOG1 + .LOG2 -> Hive::open (logs replayed, everything validated) -> edits -> Hive::finish -> bytes
//! ```
//!
//! The format is that of msuhanov's "Windows registry file format specification" (versions 1.3 to 1.5); each file names its
//! sections. This is our own code because of what hives are here: files of hostile guests, which a statically linked program
//! without unsafe code must change without a wrong byte. libhivex is C, replays no logs, writes no large values and leaves a
//! hive half changed when it fails.
//!
//! A hive is one buffer in memory, edited in place: what is not touched stays as Windows wrote it. The caller's file is not
//! touched at all: it gets the bytes of [`Hive::finish`], or an error and keeps what it has. A dirty hive without a log that
//! makes it whole is refused. Deliberately absent: hives of Windows 9x, and following symbolic links.

mod base;
mod cells;
mod edit;
pub mod limits;
mod lists;
mod log;
mod marvin;
mod names;
mod read;
#[cfg(test)]
mod tests;
mod validate;

pub use log::Replayed;
pub use validate::Contents;

use crate::{Error, Result};
use base::Base;
use cells::{BASE_BLOCK, Cells, NIL, PAGE, offset};
use read::{FLAG_LATIN, FLAG_NO_DELETE, FLAG_ROOT, nk};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A key of a hive. It stays valid as long as the key is not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u32);

/// A registry hive in memory.
#[derive(Clone)]
pub struct Hive {
    base: Base,
    cells: Cells,
    /// What lies in the file behind the bins: Windows makes files longer ahead of need.
    tail: Vec<u8>,
    /// How long the bins were in the file.
    bins_len: usize,
    /// Edits, and a replay.
    changes: usize,
    /// Why nothing may be changed or given out.
    sealed: Option<String>,
    /// The greatest sequence number in the hive and its logs.
    sequence: u32,
    /// FILETIME that edits get.
    now: u64,
    /// Security descriptors that say a wrong number of keys: cell, number. Made right before anything is changed.
    miscounted: Vec<(u32, u32)>,
}

/// A hive that was opened, and what that took.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Whole and validated.
    pub hive: Hive,
    /// What was replayed into it, where Windows had not finished writing it.
    pub replayed: Option<Replayed>,
}

/// Now, in units of 100 ns since 1601.
fn filetime() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() / 100;
    u64::try_from(since_1970).unwrap_or(0).saturating_add(116_444_736_000_000_000)
}

/// A self-relative security descriptor: administrators own the key, they and the system may do everything, users may read;
/// keys below inherit that (`winnt.h`, `SECURITY_DESCRIPTOR`, `ACL`, `ACCESS_ALLOWED_ACE`).
fn descriptor() -> Vec<u8> {
    const ALL: u32 = 0xf003f;
    const READ: u32 = 0x20019;
    const HEADER: usize = 20;
    let sid = |numbers: &[u32]| -> Vec<u8> {
        let count = u8::try_from(numbers.len()).unwrap_or(0);
        let authority = [1, count, 0, 0, 0, 0, 0, 5];
        authority.into_iter().chain(numbers.iter().flat_map(|number| number.to_le_bytes())).collect()
    };
    let half = |len: usize| u16::try_from(len).unwrap_or(0).to_le_bytes();
    let (administrators, system, users) = (sid(&[32, 544]), sid(&[18]), sid(&[32, 545]));
    let mut entries = Vec::new();
    for (who, rights) in [(&administrators, ALL), (&system, ALL), (&users, READ)] {
        entries.extend([0, 2]);
        entries.extend(half(8 + who.len()));
        entries.extend(rights.to_le_bytes());
        entries.extend(who);
    }
    let owner = HEADER + 8 + entries.len();
    let mut all = vec![1, 0, 4, 0x80];
    for at in [owner, owner + administrators.len(), 0, HEADER] {
        all.extend(offset(at).to_le_bytes());
    }
    all.extend([2, 0]);
    all.extend(half(8 + entries.len()));
    all.extend([3, 0, 0, 0]);
    all.extend(entries);
    all.extend(administrators);
    all.extend(system);
    all
}

fn check_len(what: &str, len: usize) -> Result<()> {
    if len as u64 > limits::HIVE.0 {
        let says = format!("the {what} has {len} bytes; {} are read at most", limits::HIVE.0);
        return Err(Error::refused(says));
    }
    Ok(())
}

impl Hive {
    /// Opens a hive with the logs that lie beside it (`.LOG1`, `.LOG2`; a single `.LOG` counts as the first). The logs of a
    /// clean hive are not replayed, as Windows does not; they should be given nevertheless, so that what is written gets a
    /// sequence number above theirs.
    ///
    /// Errors: not a hive or a version that is not handled (unsupported); dirty without a log that makes it whole (refused);
    /// damaged (corrupt).
    pub fn open(bytes: Vec<u8>, log1: Option<Vec<u8>>, log2: Option<Vec<u8>>) -> Result<Opened> {
        let logs: Vec<(u8, &[u8])> =
            [(1, &log1), (2, &log2)].into_iter().filter_map(|(n, log)| Some((n, log.as_deref()?))).collect();
        for (_, log) in &logs {
            check_len("log", log.len())?;
        }
        Self::load(bytes, Some(&logs))
    }

    /// Opens a hive as it lies, to look at only: what a log would add is missing, and nothing can be changed.
    pub fn open_stale(bytes: Vec<u8>) -> Result<Hive> {
        let mut hive = Self::load(bytes, None)?.hive;
        hive.sealed = Some("the hive was opened without its logs, to be looked at only".into());
        Ok(hive)
    }

    fn load(mut file: Vec<u8>, logs: Option<&[(u8, &[u8])]>) -> Result<Opened> {
        check_len("hive", file.len())?;
        let mut base = Base::of_hive(&file)?;
        if base.is_sound() {
            base.check()?;
        }
        let mut bins = log::bins_of(&base, &file)?;
        let bins_len = bins.len();
        let logs_sequence = logs.into_iter().flatten().map(|(_, log)| log::greatest_sequence(log)).max();
        let replayed = match logs {
            Some(logs) if base.is_dirty() => Some(log::replay(&mut base, &mut bins, logs)?),
            _ => None,
        };
        base.check()?;
        let sequence = logs_sequence.unwrap_or(0).max(base.primary()).max(base.secondary());
        let tail = file.split_off(BASE_BLOCK + bins_len);
        drop(file);
        let wrong = |error: Error| {
            match &replayed {
            Some(_) => error.hint(
                "the hive is damaged after its logs were replayed: they may be those of another one. Give the right ones, or \
                 start the guest once where it ran and shut it down completely",
            ),
            None => error.hint(
                "the hive is damaged. Start the guest where it ran, so that Windows repairs it, and shut it down completely; or \
                 take it from a backup",
            ),
        }
        };
        let cells = Cells::scan(bins).map_err(wrong)?;
        let changes = usize::from(replayed.is_some());
        let now = filetime();
        let miscounted = Vec::new();
        let mut hive = Hive { base, cells, tail, bins_len, changes, sealed: None, sequence, now, miscounted };
        hive.miscounted = hive.walk().map_err(wrong)?.1;
        Ok(Opened { hive, replayed })
    }

    /// An empty hive of version 1.5: a root key that administrators and the system may change and users may read.
    pub fn new() -> Hive {
        let mut bins = vec![0; PAGE];
        bins[..4].copy_from_slice(b"hbin");
        bins[8..12].copy_from_slice(&offset(PAGE).to_le_bytes());
        bins[32..36].copy_from_slice(&offset(PAGE - 32).to_le_bytes());
        let base = Base::new(PAGE);
        let now = filetime();
        let empty = || Cells::scan(bins.clone()).and_then(|cells| Self::plant(cells, now));
        let cells = empty().unwrap_or_else(|error| unreachable!("a page has room for a key: {error}"));
        Hive {
            base,
            cells,
            tail: Vec::new(),
            bins_len: PAGE,
            changes: 1,
            sealed: None,
            sequence: 0,
            now,
            miscounted: Vec::new(),
        }
    }

    /// A root key and its descriptor in an empty bin.
    fn plant(mut cells: Cells, now: u64) -> Result<Cells> {
        let mut root = [0; nk::NAME];
        let mut put = |at: usize, bytes: &[u8]| root[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"nk");
        put(nk::FLAGS, &(FLAG_ROOT | FLAG_NO_DELETE | FLAG_LATIN).to_le_bytes());
        put(nk::WRITTEN, &now.to_le_bytes());
        for at in [nk::PARENT, nk::SUBKEY_LIST, nk::VOLATILE_LIST, nk::VALUE_LIST, nk::CLASS] {
            put(at, &NIL.to_le_bytes());
        }
        put(nk::NAME_LEN, &[4, 0]);
        let root = cells.add(&[&root[..], b"ROOT"].concat())?;
        let descriptor = descriptor();
        let mut security = b"sk\0\0".to_vec();
        for number in [0, 0, 1, offset(descriptor.len())] {
            security.extend(number.to_le_bytes());
        }
        security.extend(descriptor);
        let security = cells.add(&security)?;
        // Alone in its ring.
        cells.write(security, 4, &[security.to_le_bytes(), security.to_le_bytes()].concat())?;
        cells.write(root, nk::SECURITY, &security.to_le_bytes())?;
        Ok(cells)
    }

    /// FILETIME that edits and the hive itself get, instead of the time at which it was opened.
    pub fn set_time(&mut self, filetime: u64) {
        self.now = filetime;
    }

    /// Something was replayed or edited: [`Hive::finish`] gives other bytes than came.
    pub fn is_changed(&self) -> bool {
        self.changes > 0
    }

    /// The hive as a file that Windows takes as completely written: sequence numbers are equal and above those of every log that
    /// was given, so that no entry of these can ever apply. What comes out was opened and validated again. A hive that was not
    /// changed comes out to the byte as it went in.
    pub fn finish(self) -> Result<Vec<u8>> {
        if let Some(why) = self.sealed {
            return Err(Error::refused(format!("the hive is not written: {why}")));
        }
        let Hive { mut base, mut cells, tail, bins_len, .. } = self;
        if self.changes > 0 {
            cells.stamp(self.now);
            base.complete(self.sequence.checked_add(1).unwrap_or(1), self.now, cells.bins().len());
        }
        let grown = cells.bins().len().saturating_sub(bins_len);
        let tail = tail.get(grown..).unwrap_or_default();
        let bytes = [base.bytes(), cells.bins(), tail].concat();
        drop(cells);
        let again = Self::load(bytes.clone(), Some(&[]));
        let again = again.map_err(|error| {
            Error::refused(format!("the edited hive is not valid and was not written: {error}"))
        })?;
        drop(again);
        Ok(bytes)
    }
}

impl fmt::Debug for Hive {
    /// Without the megabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hive of {} bytes, {} changes", self.cells.bins().len(), self.changes)
    }
}

impl Default for Hive {
    fn default() -> Hive {
        Hive::new()
    }
}
