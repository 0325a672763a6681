//! A journal is found as the last service left it: ended in order, killed, or without power.

use super::segment::{Log, Name, Segment, scan};
use super::{Active, Home, Journal, Limits, State, notes};
use landfall_image::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

/// What was found besides the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Bytes behind the last sound record: a write that was interrupted, or lost with the power.
    pub torn: u64,
    /// Files that lay behind a torn one: what was in them cannot be used without what is missing. They were renamed to `….lost`.
    pub lost: Vec<String>,
}

impl Found {
    /// True where acknowledged writes may be missing.
    pub fn is_damaged(&self) -> bool {
        self.torn > 0 || !self.lost.is_empty()
    }
}

impl Journal {
    /// Opens the journal of a machine, or begins one. `first` is the record that follows what the base holds. All that is
    /// found is on the medium when this returns.
    ///
    /// # Errors
    /// Corrupt where a part is missing in the middle; as the storage's.
    pub fn open(home: Home, limits: Limits, first: u64) -> Result<(Journal, Found)> {
        home.storage.make_dir(&home.dir)?;
        let mut found = Found::default();
        let mut segments = sealed(&home, first)?;
        let mut next = segments.last().map_or(first, |segment| segment.last + 1);
        for name in opened(&home)? {
            let path = format!("{}/{}", home.dir, name.file());
            if name.first < next {
                // It was sealed, and the power went before it lost this name; or the base has it.
                home.storage.remove(&path)?;
                continue;
            }
            let scan = match name.first == next && found.torn == 0 {
                true => {
                    let file = home.storage.open(&path)?;
                    match scan(&*file, name) {
                        Ok(scan) => Some((scan, file)),
                        // Without a header it holds nothing.
                        Err(error) if error.kind() == landfall_image::Kind::Corrupt => None,
                        Err(error) => return Err(error.in_file(&home.storage.place(&path))),
                    }
                }
                false => {
                    home.storage.rename(&path, &format!("{path}.lost"))?;
                    found.lost.push(format!("{path}.lost"));
                    continue;
                }
            };
            let Some((scan, file)) = scan.filter(|(scan, _)| !scan.log.entries.is_empty()) else {
                home.storage.remove(&path)?;
                continue;
            };
            if scan.header.machine != home.machine {
                return Err(Error::corrupt("this is a part of another machine's journal")
                    .in_file(&home.storage.place(&path)));
            }
            if scan.is_torn {
                found.torn += file.len()? - scan.end;
                file.set_len(scan.end)?;
            }
            file.sync()?;
            home.in_memory.fetch_add(scan.log.entries.len(), Ordering::Relaxed);
            let segment = Segment::open(name.first, scan.log, file, &home);
            next = segment.last + 1;
            segments.push(Arc::new(segment));
        }
        home.storage.sync_dir(&home.dir)?;
        let state = last_state(&segments)?;
        let active =
            Active { file: None, log: Log::default(), maps: Default::default(), mapped: 0, next, state };
        let journal = Journal {
            home,
            limits,
            active: Mutex::new(active),
            segments: RwLock::new(Arc::new(segments)),
            sealing: Mutex::new(()),
            durable: AtomicU64::new(next - 1),
            is_lost: AtomicBool::new(false),
        };
        Ok((journal, found))
    }
}

/// The sealed segments from `first` on; what is left of others is removed.
fn sealed(home: &Home, first: u64) -> Result<Vec<Arc<Segment>>> {
    let names = home.storage.list(&home.dir)?;
    let mut all: Vec<Name> = names.iter().filter_map(|name| Name::parse(name)).collect();
    all.retain(|name| name.last.is_some());
    let is_stale = |name: &Name| {
        name.last < Some(first)
            || all.iter().any(|other| other.generation > name.generation && other.covers(name))
    };
    let (stale, mut kept): (Vec<Name>, Vec<Name>) = all.iter().partition(|name| is_stale(name));
    kept.sort_unstable();
    for name in stale {
        home.storage.remove(&format!("{}/{}", home.dir, name.file()))?;
        home.storage.remove(&format!("{}/{}", home.dir, name.index()))?;
    }
    // Indexes of segments that did not get their name, and what was being written.
    for file in names {
        let is_used = kept.iter().any(|name| name.index() == file);
        let is_left_over = file.ends_with(".idx") && !is_used || file.ends_with(".new");
        if is_left_over {
            home.storage.remove(&format!("{}/{file}", home.dir))?;
        }
    }
    let mut next = None;
    let mut segments = Vec::new();
    for name in kept {
        let last = name.last.unwrap_or_default();
        let expected = next.unwrap_or(first);
        let is_next = match next {
            Some(next) => name.first == next,
            // The base may hold a part of the first.
            None => name.first <= first,
        };
        if !is_next {
            return Err(Error::corrupt(format!(
                "records {expected} to {} of the journal are missing",
                name.first.saturating_sub(1)
            ))
            .in_file(&home.storage.place(&home.dir))
            .hint("bring the missing files back from a copy of the vault"));
        }
        next = Some(last + 1);
        segments.push(Arc::new(Segment::sealed(name, home)));
    }
    Ok(segments)
}

fn opened(home: &Home) -> Result<Vec<Name>> {
    let names = home.storage.list(&home.dir)?;
    let mut open: Vec<Name> =
        names.iter().filter_map(|name| Name::parse(name)).filter(|name| name.last.is_none()).collect();
    open.sort_unstable();
    Ok(open)
}

fn last_state(segments: &[Arc<Segment>]) -> Result<State> {
    let mut state = State::default();
    if let Some(segment) = segments.last() {
        for entry in notes(segment)? {
            state.apply(&entry, |at, buf| segment.read(at, buf))?;
        }
    }
    Ok(state)
}
