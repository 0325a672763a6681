//! A journal is found as the last service left it: ended in order, killed, or without power.
//!
//! ```text
//! list -> which files count, which are left over, which lie behind a missing part -> `behind`, where writes may be missing -> tidy up
//! ```
//!
//! What is found is written down (the file `behind`) before a file is changed: who opens the journal after a cut of the power in
//! between is told the same. It stays until [`Journal::caught_up`].

use super::active::Active;
use super::layers::{self, Past};
use super::segment::{Name, Scan, Segment, scan};
use super::{Home, Journal, Limits, State, notes};
use crate::vault::storage::StoredFile;
use crate::vault::{read_json, write_json};
use landfall_image::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

/// Where it is written down that acknowledged writes may be missing.
const BEHIND: &str = "behind";

/// How the service ended that had the vault before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All was on the medium.
    InOrder,
    /// The host went on: what was acknowledged was in its page cache, and got to the medium from there.
    Killed,
    /// The host went down: what was not on the medium is gone.
    WithThePower,
}

/// What was found besides the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// A segment was written to.
    pub was_open: bool,
    /// Bytes behind the last sound record: of a write that was interrupted, or that was lost with the power.
    pub torn: u64,
    /// Files that lay behind a missing part: what is in them cannot be used without it. They were renamed to these names, and are
    /// never used and never deleted.
    pub lost: Vec<String>,
}

impl Found {
    /// True where something is not as it was written.
    pub fn is_damaged(&self) -> bool {
        self.torn > 0 || !self.lost.is_empty()
    }

    /// True where acknowledged writes may be missing.
    fn is_behind(&self, ended: Ended) -> bool {
        let is_lost = match ended {
            Ended::InOrder => self.torn > 0,
            // The write that was interrupted was not acknowledged, and there is only one at a time.
            Ended::Killed => self.torn > RECORD_AT_MOST,
            Ended::WithThePower => self.was_open,
        };
        is_lost || !self.lost.is_empty()
    }

    fn add(&mut self, other: Found) {
        self.was_open |= other.was_open;
        self.torn += other.torn;
        self.lost.extend(other.lost);
    }
}

/// Bytes of the longest record.
const RECORD_AT_MOST: u64 = (super::record::RECORD_HEADER + super::record::PAYLOAD_AT_MOST) as u64 + 8;

/// Writes down that acknowledged writes may be missing, with what was known of that before.
pub(super) fn set_behind(home: &Home, found: &Found) -> Result<Found> {
    let mut all = behind(home)?.unwrap_or_default();
    all.add(found.clone());
    write_json(&*home.storage, &home.dir, BEHIND, &all)?;
    Ok(all)
}

/// Takes that back.
pub(super) fn clear_behind(home: &Home) -> Result<()> {
    home.storage.remove(&format!("{}/{BEHIND}", home.dir))?;
    home.storage.sync_dir(&home.dir)
}

fn behind(home: &Home) -> Result<Option<Found>> {
    match home.storage.list(&home.dir)?.iter().any(|name| name == BEHIND) {
        // What it says is for people; that it is there is what counts.
        true => Ok(Some(read_json(&*home.storage, &format!("{}/{BEHIND}", home.dir)).or_else(|error| {
            match error.kind() {
                Kind::Corrupt => Ok(Found::default()),
                _ => Err(error),
            }
        })?)),
        false => Ok(None),
    }
}

impl Journal {
    /// Opens the journal of a machine, or begins one. `first` is the record that follows what the base holds. All that is
    /// found is on the medium when this returns. Where acknowledged writes may be missing, it [is behind](Journal::is_behind), and
    /// what was found is what was found since it is.
    ///
    /// # Errors
    /// Corrupt where its beginning is missing; as the storage's.
    pub fn open(home: Home, limits: Limits, first: u64, ended: Ended) -> Result<(Journal, Found)> {
        home.storage.make_dir(&home.dir)?;
        let mut survey = Survey::of(&home, first)?;
        let was_behind = behind(&home)?.is_some();
        let is_behind = was_behind || survey.found.is_behind(ended);
        if is_behind {
            survey.found = match was_behind && !survey.found.is_behind(ended) {
                true => behind(&home)?.unwrap_or_default(),
                false => set_behind(&home, &survey.found)?,
            };
        }
        survey.tidy(&home)?;
        let Survey { past, found, next, .. } = survey;
        let (state, time) = last_state(&past.segments)?;
        let journal = Journal {
            home,
            limits,
            active: Mutex::new(Active::new(next, state, time)),
            past: RwLock::new(Arc::new(past)),
            sealing: Mutex::new(()),
            durable: AtomicU64::new(next - 1),
            is_lost: AtomicBool::new(false),
            written_back: Mutex::default(),
            is_shut: AtomicBool::new(false),
            is_behind: AtomicBool::new(is_behind),
        };
        Ok((journal, found))
    }
}

/// What the folder holds, and what is to be done about it.
#[derive(Default)]
struct Survey {
    /// All that count, oldest first.
    segments: Vec<Arc<Segment>>,
    /// The same, at the end.
    past: Past,
    /// The record behind them.
    next: u64,
    found: Found,
    /// Left over.
    remove: Vec<String>,
    /// New names of what lies behind a missing part.
    lose: Vec<(String, String)>,
    /// Open files, and where their last sound record ends.
    cut: Vec<(Arc<dyn StoredFile>, u64)>,
    /// There was a file that should hold the first record.
    has_begun: bool,
    /// A part is missing before what comes now.
    is_broken: bool,
}

impl Survey {
    fn of(home: &Home, first: u64) -> Result<Survey> {
        let files: HashSet<String> = home.storage.list(&home.dir)?.into_iter().collect();
        let mut names: Vec<Name> = files.iter().filter_map(|name| Name::parse(name)).collect();
        names.sort_unstable();
        let (sealed, open): (Vec<Name>, Vec<Name>) = names.iter().partition(|name| name.last.is_some());
        let mut survey = Survey { next: first, ..Survey::default() };
        let stale = stale(&sealed);
        let mut indexes = HashSet::new();
        for name in sealed {
            match stale.contains(&name) || name.last < Some(first) {
                true => survey.remove.push(name.file()),
                false => {
                    indexes.insert(name.index());
                    survey.sealed(home, name, &files)?;
                }
            }
        }
        // Indexes of segments that did not get their name or have another one, and what was being written.
        let is_left_over = |name: &&String| {
            name.ends_with(".new") || name.ends_with(".idx") && !indexes.contains(name.as_str())
        };
        survey.remove.extend(files.iter().filter(is_left_over).cloned());
        for (place, name) in open.iter().enumerate() {
            // What a write that failed left behind the last record is none, where the next segment begins with its number.
            let until = open.get(place + 1).map_or(u64::MAX, |next| next.first.saturating_sub(1));
            survey.opened(home, *name, until, &files)?;
        }
        if survey.segments.is_empty() && first > 1 {
            return Err(missing(home, first, None));
        }
        let merged = files.iter().filter_map(|name| layers::Name::parse(name)).collect();
        let stale;
        (survey.past, stale) = Past::found(std::mem::take(&mut survey.segments), merged, home);
        survey.remove.extend(stale);
        Ok(survey)
    }

    fn sealed(&mut self, home: &Home, name: Name, files: &HashSet<String>) -> Result<()> {
        match self.segments.is_empty() {
            // The base may hold a part of the first.
            true if name.first > self.next => return Err(missing(home, self.next, Some(name.first - 1))),
            true => {}
            false => self.is_broken |= name.first != self.next,
        }
        match self.is_broken {
            true => self.lose(home, name, files),
            false => {
                self.segments.push(Arc::new(Segment::sealed(name, home)));
                self.next = name.last.unwrap_or_default().saturating_add(1);
            }
        }
        Ok(())
    }

    fn opened(&mut self, home: &Home, name: Name, until: u64, files: &HashSet<String>) -> Result<()> {
        if name.first < self.next && !self.is_broken {
            // It was sealed, and the power went before it lost this name; or the base has it.
            self.remove.push(name.file());
            return Ok(());
        }
        self.found.was_open = true;
        self.has_begun |= name.first == self.next;
        if name.first > self.next && self.segments.is_empty() && !self.has_begun {
            return Err(missing(home, self.next, Some(name.first - 1)));
        }
        self.is_broken |= name.first != self.next;
        if self.is_broken {
            self.lose(home, name, files);
            return Ok(());
        }
        let path = format!("{}/{}", home.dir, name.file());
        let file = home.storage.open(&path)?;
        let len = file.len()?;
        let scan = match scan(&*file, name, until) {
            Ok(scan) => Some(scan),
            Err(error) if error.kind() == Kind::Corrupt => None,
            Err(error) => return Err(error.in_file(&home.storage.place(&path))),
        };
        if scan.as_ref().is_some_and(|scan| scan.header.machine != home.machine) {
            return Err(Error::corrupt("this is a part of another machine's journal")
                .in_file(&home.storage.place(&path)));
        }
        match scan {
            Some(scan) if !scan.log.entries.is_empty() => self.keep(home, name, until, scan, file)?,
            // Longer than a header, and nothing can be read: somebody may want to look at it.
            None if len > super::record::SEGMENT_HEADER as u64 => {
                self.found.torn += len;
                self.is_broken = true;
                self.lose(home, name, files);
            }
            scan => {
                let end = scan.map_or(0, |scan| scan.end);
                self.found.torn += len - end;
                self.remove.push(name.file());
            }
        }
        Ok(())
    }

    fn keep(
        &mut self,
        home: &Home,
        name: Name,
        until: u64,
        scan: Scan,
        file: Arc<dyn StoredFile>,
    ) -> Result<()> {
        let Scan { log, end, is_torn, .. } = scan;
        if is_torn && log.entries.last().is_none_or(|last| last.sequence < until) {
            self.found.torn += file.len()? - end;
        }
        self.cut.push((Arc::clone(&file), end));
        home.in_memory.fetch_add(log.entries.len(), Ordering::Relaxed);
        let segment = Segment::open(name.first, log, file, home);
        self.next = segment.last + 1;
        self.segments.push(Arc::new(segment));
        Ok(())
    }

    fn lose(&mut self, home: &Home, name: Name, files: &HashSet<String>) {
        let from = name.file();
        let taken = |to: &String| files.contains(to);
        let mut to = format!("{from}.lost");
        for number in 2.. {
            if !taken(&to) {
                break;
            }
            to = format!("{from}.lost{number}");
        }
        self.found.lost.push(format!("{}/{to}", home.dir));
        self.lose.push((from, to));
    }

    fn tidy(&self, home: &Home) -> Result<()> {
        let path = |name: &str| format!("{}/{name}", home.dir);
        for name in &self.remove {
            home.storage.remove(&path(name))?;
        }
        for (from, to) in &self.lose {
            home.storage.rename(&path(from), &path(to))?;
        }
        for (file, end) in &self.cut {
            if file.len()? > *end {
                file.set_len(*end)?;
            }
            file.sync()?;
        }
        home.storage.sync_dir(&home.dir)
    }
}

fn missing(home: &Home, from: u64, to: Option<u64>) -> Error {
    let which = to.map_or(format!("from {from} on"), |to| format!("{from} to {to}"));
    Error::corrupt(format!("records {which} of the journal are missing"))
        .in_file(&home.storage.place(&home.dir))
        .hint("bring the missing files back from a copy of the vault")
}

/// Those of which all is in another one that was rewritten more often.
fn stale(all: &[Name]) -> HashSet<Name> {
    let mut order: Vec<&Name> = all.iter().collect();
    order.sort_unstable_by_key(|name| std::cmp::Reverse(name.generation));
    let mut stale = HashSet::new();
    // Of those with a higher generation: last by first; none lies in another, so both rise together.
    let mut higher: BTreeMap<u64, Option<u64>> = BTreeMap::new();
    for same in order.chunk_by(|a, b| a.generation == b.generation) {
        for name in same {
            if higher.range(..=name.first).next_back().is_some_and(|(_, last)| *last >= name.last) {
                stale.insert(**name);
            }
        }
        for name in same {
            if higher.range(..=name.first).next_back().is_none_or(|(_, last)| *last < name.last) {
                let inside = |(_, last): &(&u64, &Option<u64>)| **last <= name.last;
                while let Some((first, _)) = higher.range(name.first..).next().filter(inside) {
                    let first = *first;
                    higher.remove(&first);
                }
                higher.insert(name.first, name.last);
            }
        }
    }
    stale
}

/// The state after the last record, and the time of the last checkpoint. A segment begins with the state before it, in several records:
/// where the service was killed between them, the rest of it is in the segment before.
fn last_state(segments: &[Arc<Segment>]) -> Result<(State, u64)> {
    let mut state = State::default();
    let mut time = 0;
    let mut first = segments.len();
    while let Some(before) = first.checked_sub(1) {
        first = before;
        if has_begun(&segments[before])? {
            break;
        }
    }
    for segment in &segments[first..] {
        time = time.max(segment.header()?.time);
        for entry in notes(segment)? {
            state.apply(&entry, |at, buf| segment.read(at, buf))?;
            if entry.kind == super::record::Kind::Checkpoint {
                time = time.max(entry.offset);
            }
        }
    }
    Ok((state, time))
}

/// True where a segment has more than the state that it begins with, so that all of that is there.
pub(in crate::vault) fn has_begun(segment: &Segment) -> Result<bool> {
    let is_more = |entry: &super::index::Entry| {
        !matches!(
            entry.kind,
            super::record::Kind::Disk | super::record::Kind::DiskGone | super::record::Kind::Attachment
        )
    };
    match segment.log() {
        Some(log) => Ok(log.entries.iter().any(is_more)),
        None => segment.indexed(|index| {
            for entry in index.log() {
                if is_more(&entry?) {
                    return Ok(true);
                }
            }
            Ok(false)
        }),
    }
}
