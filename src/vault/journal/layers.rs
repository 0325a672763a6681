//! Which indexes are asked for a place, and in which order.
//!
//! ```text
//! level 2                  [ merged: 64 segments       ]
//! level 1     [ merged: 8  ][ merged: 8  ] …           [ merged: 8  ][ merged: 8  ]
//! level 0     [ ][ ][ ] …                                                          [ ][ ][ ] sealed, [ ] closed
//! roots                    [ level 2                   ][ level 1   ][ level 1    ][ ][ ][ ]       [ ]
//! ```
//! Eight neighbours of a level are merged into one of the next in the background, as in a log-structured merge tree, so that among thousands
//! of segments a look-up asks the indexes of some ten roots. What a merged index was made of stays, for points that lie inside of it, and for
//! when its segments change: then it goes, and its parts are roots again.
//!
//! A merged index is a file `FIRST-LAST.LEVEL.SEGMENTS.GENERATIONS.map` in hexadecimal and decimal numbers. It holds nothing that its segments do
//! not hold, and says by its name whether it is still of those that there are ([`Of`]): one that is not, or cannot be read, is
//! as none.

use super::Home;
use super::index::{self, Contents, Entry, Index, Of};
use super::map::{Run, Search};
use super::merge::Merge;
use super::record::Kind;
use super::segment::{Segment, is_unusable};
use super::state::{Checkpoint, checkpoints, indexed};
use crate::vault::handles::Stored;
use landfall_image::{Error, Result};
use std::iter::Peekable;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Levels: more than there can be with [`TOGETHER`] neighbours each.
const LEVELS: u32 = 24;
/// Neighbours that are merged.
const TOGETHER: usize = 8;
/// Roots above which neighbours are merged whatever their level.
const ROOTS_AT_MOST: usize = 96;
/// Runs in a merged index: 2.7 GB. With more its making would take too long at once.
const RUNS_AT_MOST: u64 = 1 << 26;

/// A segment, or neighbours whose indexes were merged.
#[derive(Clone, Debug)]
pub enum Layer {
    /// A segment.
    Segment(Arc<Segment>),
    /// Several.
    Merged(Arc<Merged>),
}

/// A merged index.
#[derive(Debug)]
pub struct Merged {
    name: Name,
    home: Home,
    /// What it is made of, oldest first.
    parts: Vec<Layer>,
    /// Opened when it is needed.
    index: Mutex<Option<Arc<Index>>>,
    /// It could not be read: its parts are asked until it was made anew.
    is_damaged: AtomicBool,
    is_obsolete: AtomicBool,
}

/// What a merged index is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    level: u32,
    of: Of,
}

impl Name {
    /// Of a file's name; `None` where it is no merged index.
    pub fn parse(name: &str) -> Option<Name> {
        let mut parts = name.strip_suffix(".map")?.split('.');
        let (first, last) = parts.next()?.split_once('-')?;
        let sequence = |text: &str| u64::from_str_radix(text, 16).ok();
        let sequences = (sequence(first)?, sequence(last)?);
        let level = parts.next()?.parse().ok()?;
        let of =
            Of { sequences, segments: parts.next()?.parse().ok()?, generations: parts.next()?.parse().ok()? };
        // No other way to write it: two files would have one name.
        Some(Name { level, of }).filter(|parsed| parsed.file() == name)
    }

    /// The file's name.
    pub fn file(&self) -> String {
        let Of { sequences: (first, last), segments, generations } = self.of;
        format!("{first:016x}-{last:016x}.{}.{segments}.{generations}.map", self.level)
    }
}

impl Layer {
    fn first(&self) -> u64 {
        match self {
            Layer::Segment(segment) => segment.name.first,
            Layer::Merged(merged) => merged.name.of.sequences.0,
        }
    }

    fn last(&self) -> u64 {
        match self {
            Layer::Segment(segment) => segment.last,
            Layer::Merged(merged) => merged.name.of.sequences.1,
        }
    }

    fn level(&self) -> u32 {
        match self {
            Layer::Segment(_) => 0,
            Layer::Merged(merged) => merged.name.level,
        }
    }

    fn of(&self) -> Of {
        match self {
            Layer::Segment(segment) => segment.of(),
            Layer::Merged(merged) => merged.name.of,
        }
    }

    fn is_sealed(&self) -> bool {
        match self {
            Layer::Segment(segment) => segment.log().is_none(),
            Layer::Merged(_) => true,
        }
    }

    /// Asks it where content of a disk lies.
    pub(super) fn ask(&self, search: &mut Search, disk: u32) -> Result<()> {
        match self {
            Layer::Segment(segment) => match segment.log() {
                // Few are in memory, and not for long.
                Some(log) => match log.all(segment.name.first).get(&disk) {
                    Some(map) => search.ask(|open| Ok(map.within(open).collect())),
                    None => Ok(()),
                },
                None => search.ask(|open| segment.indexed(|index| index.within(disk, open))),
            },
            Layer::Merged(merged) => {
                match merged.asked(|index| search.ask(|open| index.within(disk, open)))? {
                    Some(()) => Ok(()),
                    None => ask(search, disk, merged.parts.iter().rev()),
                }
            }
        }
    }

    /// Adds its checkpoints.
    pub(super) fn checkpoints(&self, all: &mut Vec<Checkpoint>) -> Result<()> {
        match self {
            Layer::Segment(segment) => all.extend(checkpoints(segment)?),
            Layer::Merged(merged) => match merged.asked(indexed)? {
                Some(own) => all.extend(own),
                None => merged.parts.iter().try_for_each(|part| part.checkpoints(all))?,
            },
        }
        Ok(())
    }

    /// How many runs it has.
    fn runs(&self) -> Result<u64> {
        match self {
            Layer::Segment(segment) => segment.indexed(|index| Ok(index.len())),
            Layer::Merged(merged) => merged.open().map(|index| index.len()),
        }
    }

    fn index(&self) -> Result<Arc<Index>> {
        match self {
            Layer::Segment(segment) => segment.index(),
            Layer::Merged(merged) => merged.open(),
        }
    }

    /// Reads its index whole, and makes it anew where it cannot be.
    fn mend(&self, pace: &dyn Fn(u64) -> Result<()>) -> Result<()> {
        let read = |index: &Index| {
            index.runs().try_for_each(|run| run.map(drop))?;
            indexed(index).map(drop)
        };
        match self {
            Layer::Segment(segment) => segment.indexed(read),
            Layer::Merged(merged) => match merged.asked(read)? {
                Some(()) => Ok(()),
                None => merged.write(pace),
            },
        }
    }

    /// All merged ones in it.
    fn merged(&self, all: &mut Vec<Arc<Merged>>) {
        if let Layer::Merged(merged) = self {
            merged.parts.iter().for_each(|part| part.merged(all));
            all.push(Arc::clone(merged));
        }
    }

    /// Those parts of it that end at or before a record, where it does not itself.
    fn until(&self, last: u64, layers: &mut Vec<Layer>) {
        match self {
            _ if self.last() <= last => layers.push(self.clone()),
            Layer::Merged(merged) if self.first() <= last => {
                merged.parts.iter().for_each(|part| part.until(last, layers));
            }
            _ => {}
        }
    }

    /// Those parts of it that do not meet records that were replaced.
    fn without(&self, replaced: (u64, u64), layers: &mut Vec<Layer>) {
        match self {
            _ if self.last() < replaced.0 || replaced.1 < self.first() => layers.push(self.clone()),
            Layer::Merged(merged) => {
                merged.is_obsolete.store(true, Ordering::Relaxed);
                merged.parts.iter().for_each(|part| part.without(replaced, layers));
            }
            Layer::Segment(_) => {}
        }
    }
}

/// Asks layers, the newest first.
pub(super) fn ask<'l>(search: &mut Search, disk: u32, layers: impl Iterator<Item = &'l Layer>) -> Result<()> {
    for layer in layers {
        if search.is_done() {
            break;
        }
        layer.ask(search, disk)?;
    }
    Ok(())
}

impl Merged {
    fn new(name: Name, parts: Vec<Layer>, home: &Home) -> Merged {
        Merged {
            name,
            home: home.clone(),
            parts,
            index: Mutex::default(),
            is_damaged: AtomicBool::new(false),
            is_obsolete: AtomicBool::new(false),
        }
    }

    fn path(&self) -> String {
        format!("{}/{}", self.home.dir, self.name.file())
    }

    fn open(&self) -> Result<Arc<Index>> {
        let mut index = super::locked(&self.index);
        if let Some(index) = &*index {
            return Ok(Arc::clone(index));
        }
        let opened = Index::open(Stored::new(&self.home.storage, &self.home.handles, &self.path()))?;
        match opened.of == self.name.of {
            true => Ok(Arc::clone(index.insert(Arc::new(opened)))),
            false => Err(Error::corrupt("this is the index of another part of the journal")),
        }
    }

    /// `None` where it cannot be read: its parts know the same.
    fn asked<T>(&self, ask: impl FnOnce(&Index) -> Result<T>) -> Result<Option<T>> {
        if self.is_damaged.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match self.open().and_then(|index| ask(&index)) {
            Err(error) if is_unusable(&error) => {
                self.is_damaged.store(true, Ordering::Relaxed);
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Makes it of its parts.
    fn write(&self, pace: &dyn Fn(u64) -> Result<()>) -> Result<()> {
        match self.try_write(pace) {
            Err(error) if is_unusable(&error) => {
                self.parts.iter().try_for_each(|part| part.mend(pace))?;
                self.try_write(pace)
            }
            other => other,
        }?;
        self.home.handles.forget(&self.path());
        *super::locked(&self.index) = None;
        self.is_damaged.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn try_write(&self, pace: &dyn Fn(u64) -> Result<()>) -> Result<()> {
        let indexes: Vec<Arc<Index>> = self.parts.iter().map(Layer::index).collect::<Result<_>>()?;
        let (mut notes, mut texts) = (Vec::new(), Vec::new());
        for index in &indexes {
            for entry in index.notes() {
                let entry = entry?;
                if entry.kind == Kind::Checkpoint {
                    notes.push(Entry { at: texts.len() as u64, ..entry });
                    let len = usize::try_from(entry.len).unwrap_or(usize::MAX);
                    let mut text = vec![0; len.min(super::record::PAYLOAD_AT_MOST)];
                    index.text(entry.at, &mut text)?;
                    texts.extend_from_slice(&text);
                }
            }
        }
        let contents = Contents { of: self.name.of, log: &[], notes: &notes, texts: &texts, sums: &[] };
        let sources = indexes
            .iter()
            .rev()
            .map(|index| Box::new(index.runs()) as Box<dyn Iterator<Item = Result<(u32, Run)>>>);
        let path = self.path();
        let new = format!("{path}.new");
        index::write(&*self.home.storage, &new, &contents, Merge::new(sources.collect())?, pace)?;
        self.home.storage.rename(&new, &path)?;
        self.home.storage.sync_dir(&self.home.dir)
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        if self.is_obsolete.load(Ordering::Relaxed) {
            // What stays is removed when the vault is opened the next time.
            self.home.handles.forget(&self.path());
            drop(self.home.storage.remove(&self.path()));
        }
    }
}

/// Complete segments and their layers. Changed as a whole: who looks at it keeps what it was.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Oldest first; none overlap, none is missing between.
    pub segments: super::Segments,
    /// The same, as few layers as there are for it.
    pub(super) roots: Vec<Layer>,
}

impl Past {
    /// Segments as they were found, with those merged indexes that are of them; the files of the others are left over.
    pub(super) fn found(segments: Vec<Arc<Segment>>, names: Vec<Name>, home: &Home) -> (Past, Vec<String>) {
        let is_sealed = |segment: &&Arc<Segment>| segment.log().is_none();
        let sealed: Vec<&Arc<Segment>> = segments.iter().take_while(is_sealed).collect();
        let mut sums = vec![0u64];
        for segment in &sealed {
            sums.push(sums[sums.len() - 1] + u64::from(segment.name.generation));
        }
        let is_of = |name: &Name| {
            let (first, last) = name.of.sequences;
            let from = sealed.binary_search_by_key(&first, |segment| segment.name.first);
            let to = sealed.binary_search_by_key(&last, |segment| segment.last);
            let (Ok(from), Ok(to)) = (from, to) else { return false };
            from < to
                && name.of.segments == (to - from + 1) as u64
                && name.of.generations == sums[to + 1] - sums[from]
        };
        let (mut good, stale): (Vec<Name>, Vec<Name>) =
            names.into_iter().partition(|name| name.level <= LEVELS && is_of(name));
        // Each before those that lie in it.
        good.sort_unstable_by_key(|name| {
            (name.of.sequences.0, std::cmp::Reverse((name.of.sequences.1, name.level)))
        });
        let mut stale: Vec<String> = stale.iter().map(Name::file).collect();
        let mut builder =
            Builder { segments: &segments, names: good.into_iter().peekable(), stale: &mut stale, home };
        let roots = builder.layers(None);
        (Past { segments: Arc::new(segments), roots }, stale)
    }

    /// How many indexes a look-up asks at most, for the disks as they are now.
    pub fn asked_at_most(&self) -> usize {
        self.roots.len()
    }

    pub(super) fn push(&mut self, segment: Arc<Segment>) {
        Arc::make_mut(&mut self.segments).push(Arc::clone(&segment));
        self.roots.push(Layer::Segment(segment));
    }

    /// Puts a sealed segment into the place of what it was before.
    pub(super) fn seal(&mut self, was: &Arc<Segment>, sealed: &Arc<Segment>) {
        for segment in Arc::make_mut(&mut self.segments).iter_mut().rev() {
            if Arc::ptr_eq(segment, was) {
                *segment = Arc::clone(sealed);
            }
        }
        for root in self.roots.iter_mut().rev() {
            if matches!(root, Layer::Segment(segment) if Arc::ptr_eq(segment, was)) {
                *root = Layer::Segment(Arc::clone(sealed));
            }
        }
    }

    /// Puts segments into the place of neighbours that they were made of; `new` may be empty.
    pub(super) fn replace(&mut self, old: &[Arc<Segment>], new: Vec<Arc<Segment>>) {
        let (Some(first), Some(last)) = (old.first(), old.last()) else { return };
        let (from, to) = (first.name.first, last.last);
        let segments = Arc::make_mut(&mut self.segments);
        let place = segments.partition_point(|segment| segment.name.first < from);
        segments.retain(|segment| segment.last < from || to < segment.name.first);
        segments.splice(place..place, new.iter().cloned());
        let mut roots = Vec::with_capacity(self.roots.len());
        self.roots.iter().for_each(|root| root.without((from, to), &mut roots));
        let place = roots.partition_point(|root| root.first() < from);
        roots.splice(place..place, new.into_iter().map(Layer::Segment));
        self.roots = roots;
        old.iter().for_each(|segment| segment.make_obsolete());
    }

    fn merge(&mut self, merged: &Arc<Merged>) {
        let (first, last) = merged.name.of.sequences;
        let from = self.roots.partition_point(|root| root.first() < first);
        let to = self.roots.partition_point(|root| root.last() <= last);
        self.roots.splice(from..to, [Layer::Merged(Arc::clone(merged))]);
    }

    /// The layers of the segments up to the one that ends with a record.
    pub(super) fn until(&self, last: u64) -> Vec<Layer> {
        let mut layers = Vec::new();
        self.roots.iter().for_each(|root| root.until(last, &mut layers));
        layers
    }

    /// Which neighbours to merge next.
    fn next(&self) -> Result<Option<std::ops::Range<usize>>> {
        let sealed = self.roots.iter().take_while(|root| root.is_sealed()).count();
        let runs = |window: &[Layer]| -> Result<u64> {
            window.iter().map(Layer::runs).try_fold(0, |sum, runs| Ok(runs?.saturating_add(sum)))
        };
        let windows = || self.roots[..sealed].windows(TOGETHER).enumerate();
        for (at, window) in windows() {
            let is_one_level = window.iter().all(|layer| layer.level() == window[0].level());
            if is_one_level && window[0].level() < LEVELS && runs(window)? <= RUNS_AT_MOST {
                return Ok(Some(at..at + TOGETHER));
            }
        }
        if sealed <= ROOTS_AT_MOST {
            return Ok(None);
        }
        // Much was rewritten in between: those that cost the least.
        let mut least: Option<(u64, usize)> = None;
        for (at, window) in windows() {
            if window.iter().all(|layer| layer.level() < LEVELS) {
                let cost = (runs(window)?, at);
                least = Some(least.map_or(cost, |least| least.min(cost)));
            }
        }
        Ok(least.filter(|(runs, _)| *runs <= RUNS_AT_MOST).map(|(_, at)| at..at + TOGETHER))
    }
}

/// Puts layers together when a journal is opened.
struct Builder<'b, N: Iterator<Item = Name>> {
    /// Those that are still to come.
    segments: &'b [Arc<Segment>],
    names: Peekable<N>,
    stale: &'b mut Vec<String>,
    home: &'b Home,
}

impl<N: Iterator<Item = Name>> Builder<'_, N> {
    /// Those that lie in a merged one, or all. Calls inside of one another have falling levels.
    fn layers(&mut self, outer: Option<Name>) -> Vec<Layer> {
        let fits = |name: &Name| {
            outer.is_none_or(|outer| {
                name.level < outer.level
                    && name.of.sequences.1 <= outer.of.sequences.1
                    && name.of.sequences != outer.of.sequences
            })
        };
        let mut layers = Vec::new();
        while let Some((segment, rest)) = self.segments.split_first() {
            if outer.is_some_and(|outer| segment.last > outer.of.sequences.1) {
                break;
            }
            match self.names.next_if(|name| name.of.sequences.0 <= segment.name.first) {
                Some(name) if name.of.sequences.0 == segment.name.first && fits(&name) => {
                    let parts = self.layers(Some(name));
                    layers.push(Layer::Merged(Arc::new(Merged::new(name, parts, self.home))));
                }
                // It meets another one without lying in it.
                Some(name) => self.stale.push(name.file()),
                None => {
                    layers.push(Layer::Segment(Arc::clone(segment)));
                    self.segments = rest;
                }
            }
        }
        layers
    }
}

impl super::Journal {
    /// Merges indexes of neighbours, as far as there is something to merge, and makes those anew that could not be read; gives how
    /// many were written. For the background: nobody else may change the journal's past meanwhile. `pace` is called with the bytes that
    /// were written since: to be slow on purpose; its error ends the work.
    ///
    /// # Errors
    /// As the storage's, and where a record of a segment is damaged whose index is, too.
    pub fn merge(&self, pace: &dyn Fn(u64) -> Result<()>) -> Result<usize> {
        let mut count = 0;
        let mut all = Vec::new();
        self.past().roots.iter().for_each(|root| root.merged(&mut all));
        for merged in all.iter().filter(|merged| merged.is_damaged.load(Ordering::Relaxed)) {
            merged.write(pace)?;
            count += 1;
        }
        loop {
            let past = self.past();
            let Some(window) = past.next()? else { return Ok(count) };
            let parts = past.roots[window].to_vec();
            let all = parts.iter().map(Layer::of);
            let Some(of) = all.reduce(|of, next| Of {
                sequences: (of.sequences.0, next.sequences.1),
                segments: of.segments + next.segments,
                generations: of.generations + next.generations,
            }) else {
                return Ok(count);
            };
            let level = parts.iter().map(Layer::level).max().unwrap_or_default() + 1;
            let merged = Arc::new(Merged::new(Name { level, of }, parts, &self.home));
            merged.write(pace)?;
            self.change(|past| past.merge(&merged));
            count += 1;
        }
    }
}
