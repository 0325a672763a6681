//! The disks of a machine as they were after a record of its journal.

use super::index::Index;
use super::layers::{self, Layer};
use super::map::{Run, RunMap, Search};
use super::record::Kind;
use super::segment::Segment;
use super::{Journal, State, locked, notes};
use landfall_image::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What the journal says of its disks up to a record; what it says nothing about is in the base. It stays readable whatever happens to
/// the journal meanwhile, as long as the base is not moved past it, which [`Machine::at`](super::super::machine::Machine::at) sees to.
#[derive(Debug)]
pub struct View {
    /// The disks and attachments.
    pub state: State,
    /// Of the part of a segment that counts, where not all of it does.
    part: BTreeMap<u32, RunMap>,
    /// Segments of which all counts, oldest first.
    whole: Vec<Arc<Segment>>,
    /// And the layers of their indexes.
    layers: Vec<Layer>,
    /// The segment of the part.
    last: Option<Arc<Segment>>,
}

impl Journal {
    /// The machine at the checkpoint whose record is `sequence`.
    ///
    /// # Errors
    /// Where the journal has no such checkpoint (any more), or cannot be read.
    pub fn view(&self, sequence: u64) -> Result<View> {
        let gone = || {
            Error::refused(format!("the journal has no checkpoint {sequence}"))
                .hint("landfall points list shows the points that there are")
        };
        if sequence >= locked(&self.active).next {
            return Err(gone());
        }
        let holds = |segment: &Arc<Segment>| segment.name.first <= sequence && sequence <= segment.last;
        if !self.segments().iter().any(holds) {
            // It is in the one that is written to, which is closed: there is one kind of segment to look into.
            self.close_segment();
        }
        let past = self.past();
        let all = &past.segments;
        let last = all.iter().position(holds).ok_or_else(gone)?;
        let mut whole = all[..=last].to_vec();
        let segment = Arc::clone(&whole[last]);
        let notes = notes(&segment)?;
        // Where it was given up, the records before it may have been rewritten: they no longer tell of it.
        if !notes.iter().any(|entry| entry.kind == Kind::Checkpoint && entry.sequence == sequence) {
            return Err(gone());
        }
        let mut state = State::default();
        for entry in notes.iter().take_while(|entry| entry.sequence <= sequence) {
            state.apply(entry, |at, buf| segment.read(at, buf))?;
        }
        if segment.last == sequence {
            let layers = past.until(sequence);
            return Ok(View { state, part: BTreeMap::new(), whole, layers, last: None });
        }
        whole.pop();
        let layers = whole.last().map_or(Vec::new(), |last| past.until(last.last));
        let part = match segment.log() {
            Some(log) => log.maps(segment.name.first, sequence),
            None => segment.indexed(|index| maps(index, segment.name.first, sequence))?,
        };
        Ok(View { state, part, whole, layers, last: Some(segment) })
    }
}

fn maps(index: &Index, segment: u64, until: u64) -> Result<BTreeMap<u32, RunMap>> {
    let mut maps = BTreeMap::new();
    for entry in index.log() {
        let entry = entry?;
        if entry.sequence > until {
            break;
        }
        entry.put(segment, &mut maps);
    }
    Ok(maps)
}

impl View {
    /// Where a range of a disk lies, and which parts of it are in the base.
    ///
    /// # Errors
    /// Where an index cannot be read.
    pub fn locate(&self, disk: u32, range: Range<u64>) -> Result<(Vec<Run>, Vec<Range<u64>>)> {
        let mut search = Search::new(range);
        if let Some(map) = self.part.get(&disk) {
            search.ask(|open| Ok::<_, Error>(map.within(open).collect()))?;
        }
        layers::ask(&mut search, disk, self.layers.iter().rev())?;
        Ok(search.finish())
    }

    /// True where all of it is in segments that are sealed: what is read of them is checked.
    pub fn is_sealed(&self) -> bool {
        self.whole.iter().chain(&self.last).all(|segment| segment.log().is_none())
    }

    /// Reads from a stored run.
    ///
    /// # Errors
    /// As [`Segment::read`].
    pub fn read(&self, segment: u64, at: u64, buf: &mut [u8]) -> Result<()> {
        let part = self.last.as_ref().filter(|last| last.name.first == segment);
        match part.or_else(|| segment_of(&self.whole, segment)) {
            Some(found) => found.read(at, buf),
            None => Err(Error::corrupt(format!("no part of the journal begins with record {segment}"))),
        }
    }
}

/// The segment that begins with a record.
pub(super) fn segment_of(segments: &[Arc<Segment>], first: u64) -> Option<&Arc<Segment>> {
    let place = segments.binary_search_by_key(&first, |segment| segment.name.first).ok()?;
    segments.get(place)
}
