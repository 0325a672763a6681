//! Runs of several indexes become those of one: where they overlap, the newest counts.
//!
//! Memory: one page of each.

use super::map::Run;
use landfall_image::Result;

/// Runs by disk and offset, none of which overlap.
type Runs<'m> = Box<dyn Iterator<Item = Result<(u32, Run)>> + 'm>;

/// See the module.
pub(super) struct Merge<'m> {
    /// The newest first.
    sources: Vec<Source<'m>>,
    /// What comes next may go on where it ends.
    pending: Option<(u32, Run)>,
}

struct Source<'m> {
    runs: Runs<'m>,
    now: Option<(u32, Run)>,
}

impl<'m> Merge<'m> {
    /// The newest first.
    ///
    /// # Errors
    /// As the runs'.
    pub fn new(sources: Vec<Runs<'m>>) -> Result<Merge<'m>> {
        let begun = |mut runs: Runs<'m>| Ok(Source { now: runs.next().transpose()?, runs });
        Ok(Merge { sources: sources.into_iter().map(begun).collect::<Result<_>>()?, pending: None })
    }

    /// The next piece of which one source has the say.
    fn piece(&mut self) -> Result<Option<(u32, Run)>> {
        let start = |source: &Source<'_>| source.now.as_ref().map(|(disk, run)| (*disk, run.range.start));
        let Some((disk, at)) = self.sources.iter().filter_map(start).min() else { return Ok(None) };
        let Some(chosen) = self.sources.iter().position(|source| start(source) == Some((disk, at))) else {
            return Ok(None);
        };
        let Some((_, mut run)) = self.sources[chosen].now.clone() else { return Ok(None) };
        // Up to where a newer one has something to say.
        let newer = self.sources[..chosen].iter().filter_map(start).filter(|(other, _)| *other == disk);
        run.range.end = newer.map(|(_, start)| start).fold(run.range.end, u64::min);
        self.sources.iter_mut().try_for_each(|source| source.skip(disk, run.range.end))?;
        Ok(Some((disk, run)))
    }
}

impl Source<'_> {
    /// Goes on behind a place of a disk.
    fn skip(&mut self, disk: u32, to: u64) -> Result<()> {
        while let Some((_, run)) = self.now.as_mut().filter(|(of, run)| *of == disk && run.range.start < to) {
            match run.clip(&(to..u64::MAX)) {
                Some(rest) => *run = rest,
                None => self.now = self.runs.next().transpose()?,
            }
        }
        Ok(())
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<(u32, Run)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let next = match self.piece() {
                Ok(next) => next,
                Err(error) => return Some(Err(error)),
            };
            let goes_on = match (&mut self.pending, &next) {
                (Some((disk, run)), Some((next_disk, next))) if disk == next_disk => run.join(next),
                _ => false,
            };
            if goes_on {
                continue;
            }
            let ended = self.pending.take();
            self.pending = next;
            if ended.is_some() || self.pending.is_none() {
                return ended.map(Ok);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::map::{RunMap, Source};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against one map that everything was put into.
        #[test]
        fn the_newest_counts(
            layers in proptest::collection::vec(
                proptest::collection::vec((0u32..3, 0u64..60, 1u64..20, any::<bool>()), 0..20), 1..7)
        ) {
            let mut all: BTreeMap<u32, RunMap> = BTreeMap::new();
            let mut maps = Vec::new();
            for (segment, writes) in layers.iter().enumerate() {
                let mut own: BTreeMap<u32, RunMap> = BTreeMap::new();
                for (number, (disk, start, len, zero)) in writes.iter().enumerate() {
                    let source = match zero {
                        true => Source::Zero,
                        false => Source::Stored { segment: segment as u64, at: 100 * number as u64 },
                    };
                    for maps in [&mut all, &mut own] {
                        maps.entry(*disk).or_default().insert(*start..start + len, source);
                    }
                }
                maps.push(own);
            }
            let runs = |maps: &BTreeMap<u32, RunMap>| -> Vec<(u32, Run)> {
                maps.iter().flat_map(|(disk, map)| map.runs().map(|run| (*disk, run)).collect::<Vec<_>>()).collect()
            };
            let sources = maps.iter().rev().map(|map| Box::new(runs(map).into_iter().map(Ok)) as Runs<'_>);
            let merged: Vec<_> = Merge::new(sources.collect()).unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(merged, runs(&all));
        }
    }
}
