//! From the extents of a disk to the runs that are worked on: lazily, in order, without gap or overlap.

use super::{Cancel, Progress};
use crate::disk::{Disk, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::collections::VecDeque;

/// Extents asked for at a time.
const BATCH: usize = 256;

/// Gaps between data up to this long are read over: one long read costs less than two short ones. Also bounds the
/// parts of an item, whatever the image says.
const GAP: u64 = 64 << 10;

/// The longest run of zeros, where they are cut: a multiple of every chunk size.
const CUT_ZEROS: u64 = 1 << 30;

/// One step of the walk over a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Reads as zeros, by its map. Any number of chunks long.
    Zero(GuestRange),
    /// One chunk.
    Data {
        /// Starts on a multiple of the chunk size and ends on one, or at the disk's end.
        range: GuestRange,
        /// What of it to read, in order, at least one part; the rest is zeros.
        parts: Vec<GuestRange>,
    },
}

/// The walk. Ends behind the first error.
pub(super) struct Plan<'a> {
    disk: &'a dyn Disk,
    chunk: u64,
    cancel: &'a Cancel,
    progress: &'a Progress,
    /// Everything before this is in an item.
    planned: u64,
    /// Everything before this is in an item or known to be zeros.
    walked: u64,
    batch: VecDeque<Extent>,
    failed: bool,
    zeros_at_most: u64,
}

impl<'a> Plan<'a> {
    /// The walk over `disk` in chunks of `chunk`, a power of two.
    pub fn new(disk: &'a dyn Disk, chunk: Bytes, cancel: &'a Cancel, progress: &'a Progress) -> Self {
        Plan {
            disk,
            chunk: chunk.0,
            cancel,
            progress,
            planned: 0,
            walked: 0,
            batch: VecDeque::new(),
            failed: false,
            zeros_at_most: u64::MAX,
        }
    }

    /// Begins at `at`, a multiple of the chunk size, instead of at the start of the disk.
    pub fn from(mut self, at: GuestOffset) -> Self {
        (self.planned, self.walked) = (at.0, at.0);
        self
    }

    /// Cuts runs of zeros where somebody has to look at what lies below them.
    pub fn cut_zeros(mut self, cut: bool) -> Self {
        if cut {
            self.zeros_at_most = CUT_ZEROS;
        }
        self
    }

    /// The extent at `walked`, which lies before the end of the disk.
    fn extent(&mut self) -> Result<Extent> {
        let at = GuestOffset(self.walked);
        while self.batch.front().is_some_and(|extent| extent.range.end() <= at) {
            self.batch.pop_front();
        }
        if self.batch.is_empty() {
            if self.cancel.is_cancelled() {
                return Err(Error::interrupted());
            }
            let rest = GuestRange::between(at, GuestOffset(self.disk.size().0));
            self.batch = self.disk.extents(rest, BATCH)?.into();
        }
        match self.batch.front() {
            Some(extent) if extent.range.start() <= at && extent.range.end() > at => Ok(*extent),
            // A defect of a reader; to go on would be to lose data without a word.
            _ => Err(Error::corrupt(format!("the map of the disk does not say what lies at {:#x}", at.0))),
        }
    }

    fn planned(&mut self, to: u64, zeros: u64) {
        self.planned = to;
        self.progress.known_zeros(Bytes(zeros));
        self.progress.scanned(GuestOffset(to));
    }

    fn step(&mut self) -> Result<Option<Item>> {
        let size = self.disk.size().0;
        let start = self.planned;
        if start >= size {
            return Ok(None);
        }
        while self.walked < size {
            let extent = self.extent()?;
            if extent.kind == ExtentKind::Data {
                break;
            }
            self.walked = extent.range.end().0.min(size);
        }
        let zero_end = if self.walked >= size { size } else { self.walked / self.chunk * self.chunk };
        let zero_end = zero_end.min(start.saturating_add(self.zeros_at_most));
        if zero_end > start {
            self.planned(zero_end, zero_end - start);
            return Ok(Some(Item::Zero(GuestRange::between(GuestOffset(start), GuestOffset(zero_end)))));
        }
        let end = start.saturating_add(self.chunk).min(size);
        let mut parts: Vec<GuestRange> = Vec::new();
        while self.walked < end {
            let extent = self.extent()?;
            let extent_end = extent.range.end().0.min(end);
            if extent.kind == ExtentKind::Data {
                let (from, to) = (GuestOffset(self.walked), GuestOffset(extent_end));
                match parts.last_mut() {
                    Some(last) if from.0 - last.end().0 <= GAP => {
                        *last = GuestRange::between(last.start(), to);
                    }
                    _ => parts.push(GuestRange::between(from, to)),
                }
            }
            self.walked = extent_end;
        }
        let data: u64 = parts.iter().map(|part| part.len().0).sum();
        self.planned(end, end - start - data);
        Ok(Some(Item::Data { range: GuestRange::between(GuestOffset(start), GuestOffset(end)), parts }))
    }
}

impl Iterator for Plan<'_> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step();
        self.failed = step.is_err();
        step.transpose()
    }
}
