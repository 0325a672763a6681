//! Which run of a disk lies where: the newest of all that was written.

use std::collections::BTreeMap;
use std::ops::Range;

/// Where the content of a run lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It reads as zeros.
    Zero,
    /// From byte `at` of the segment whose first record is `segment`.
    Stored {
        /// The segment, by the sequence of its first record.
        segment: u64,
        /// Byte in its file.
        at: u64,
    },
}

impl Source {
    /// The source of what lies `by` bytes further on in the run.
    pub fn skip(self, by: u64) -> Source {
        match self {
            Source::Zero => Source::Zero,
            Source::Stored { segment, at } => Source::Stored { segment, at: at + by },
        }
    }
}

/// A part of a disk, with where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Bytes of the disk.
    pub range: Range<u64>,
    /// Where its content is.
    pub source: Source,
}

impl Run {
    /// The part of it inside of `range`; `None` where they do not meet.
    pub fn clip(&self, range: &Range<u64>) -> Option<Run> {
        let start = self.range.start.max(range.start);
        let end = self.range.end.min(range.end);
        (start < end).then(|| Run { range: start..end, source: self.source.skip(start - self.range.start) })
    }

    /// Takes in the run behind it; false where that lies elsewhere.
    pub fn join(&mut self, next: &Run) -> bool {
        let len = self.range.end - self.range.start;
        let goes_on = next.range.start == self.range.end && self.source.skip(len) == next.source;
        if goes_on {
            self.range.end = next.range.end;
        }
        goes_on
    }
}

/// The runs of one disk; none overlap.
#[derive(Clone, Debug, Default)]
pub struct RunMap(BTreeMap<u64, (u64, Source)>);

impl RunMap {
    /// Puts a run over all that was there.
    pub fn insert(&mut self, range: Range<u64>, source: Source) {
        if range.is_empty() {
            return;
        }
        // What begins before it.
        if let Some((&start, &(end, old))) = self.0.range(..range.start).next_back()
            && end > range.start
        {
            self.0.insert(start, (range.start, old));
            if end > range.end {
                self.0.insert(range.end, (end, old.skip(range.end - start)));
            }
        }
        // What begins in it.
        while let Some((&start, &(end, old))) = self.0.range(range.start..range.end).next() {
            self.0.remove(&start);
            if end > range.end {
                self.0.insert(range.end, (end, old.skip(range.end - start)));
            }
        }
        self.0.insert(range.start, (range.end, source));
    }

    /// The runs that meet `range`, in order, clipped to it.
    pub fn within(&self, range: &Range<u64>) -> impl Iterator<Item = Run> + '_ {
        let before = self.0.range(..range.start).next_back();
        let range = range.clone();
        let all = before.into_iter().chain(self.0.range(range.clone()));
        all.filter_map(move |(&start, &(end, source))| Run { range: start..end, source }.clip(&range))
    }

    /// All runs, in order; neighbours that lie behind one another in one segment are one.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let mut all =
            self.0.iter().map(|(&start, &(end, source))| Run { range: start..end, source }).peekable();
        std::iter::from_fn(move || {
            let mut run = all.next()?;
            while all.next_if(|next| run.join(next)).is_some() {}
            Some(run)
        })
    }

    /// True where nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Parts of a disk whose place is still looked for, while one layer after the other is asked.
pub struct Search {
    open: Vec<Range<u64>>,
    found: Vec<Run>,
}

impl Search {
    /// For a range of a disk.
    pub fn new(range: Range<u64>) -> Search {
        Search { open: vec![range], found: Vec::new() }
    }

    /// True where every byte has its place.
    pub fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// Asks a layer for each part that is still open: `ask` gives the runs that meet it, in order. Where it fails, all is as before.
    pub fn ask<E>(&mut self, mut ask: impl FnMut(&Range<u64>) -> Result<Vec<Run>, E>) -> Result<(), E> {
        let (mut still, mut found) = (Vec::new(), Vec::new());
        for range in &self.open {
            let mut at = range.start;
            for run in ask(range)? {
                let Some(run) = run.clip(&(at..range.end)) else { continue };
                if run.range.start > at {
                    still.push(at..run.range.start);
                }
                at = run.range.end;
                found.push(run);
            }
            if at < range.end {
                still.push(at..range.end);
            }
        }
        self.open = still;
        self.found.append(&mut found);
        Ok(())
    }

    /// What was found, and what was not; each in the order of the disk.
    pub fn finish(mut self) -> (Vec<Run>, Vec<Range<u64>>) {
        self.found.sort_by_key(|run| run.range.start);
        (self.found, self.open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(at: u64) -> Source {
        Source::Stored { segment: 1, at }
    }

    proptest! {
        /// Against an array of bytes.
        #[test]
        fn the_newest_counts(writes in proptest::collection::vec((0u64..60, 1u64..20, any::<bool>()), 1..40)) {
            let mut map = RunMap::default();
            let mut model = [None; 80];
            for (number, (start, len, zero)) in writes.iter().enumerate() {
                let at = 1000 * number as u64;
                let source = if *zero { Source::Zero } else { stored(at) };
                map.insert(*start..start + len, source);
                for byte in *start..start + len {
                    model[usize::try_from(byte).unwrap()] = Some(source.skip(byte - start));
                }
            }
            let check = |runs: Vec<Run>, range: Range<u64>| {
                let mut last = range.start;
                let mut seen = [None; 80];
                for run in runs {
                    assert!(run.range.start >= last && run.range.end <= range.end && !run.range.is_empty());
                    last = run.range.end;
                    for byte in run.range.clone() {
                        seen[usize::try_from(byte).unwrap()] = Some(run.source.skip(byte - run.range.start));
                    }
                }
                for byte in range {
                    let byte = usize::try_from(byte).unwrap();
                    assert_eq!(seen[byte], model[byte], "byte {byte}");
                }
            };
            check(map.runs().collect(), 0..80);
            check(map.within(&(0..80)).collect(), 0..80);
            check(map.within(&(7..33)).collect(), 7..33);
            let mut search = Search::new(7..33);
            search.ask(|range| Ok::<_, ()>(map.within(range).collect())).unwrap();
            let (found, open) = search.finish();
            for range in open {
                for byte in range {
                    assert_eq!(model[usize::try_from(byte).unwrap()], None);
                }
            }
            check(found, 7..33);
        }
    }
}
