//! What was written to an overlay, as an image of its own over the overlay's base.
//!
//! ```text
//! Overlay -> Delta (what was written, in whole units; the rest is not stored) -> write -> Sink that was started over the base
//! ```
//!
//! The map of what was written is walked, never the disk: a delta of a disk of terabytes is written as quickly as one of a
//! small disk. What of a unit was not written is filled in from the base. Deliberately absent: leaving out what was written
//! and is the same as before; whoever wants that compares with the base ([`convert_with`](crate::convert::convert_with)).

use crate::convert::{Cancel, is_zero};
use crate::disk::{self, Disk, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::overlay::{Overlay, Written};
use crate::sink::{Receipt, Sink};
use crate::units::{Bytes, GuestOffset, GuestRange};

/// Data that is read at a time, unless the sink's unit is larger.
const CHUNK: u64 = 1 << 20;
/// Runs without data that a sink is told of at a time, so that a request to stop is heard.
const PIECE: u64 = 1 << 30;
/// Extents asked for at a time.
const AT_A_TIME: usize = 256;

/// A view of an overlay: [`Unallocated`](ExtentKind::Unallocated) where its base shines through. It reads as the overlay does.
///
/// Runs that read as zeros above and in the base are not stored, either.
pub struct Delta<'a> {
    overlay: &'a Overlay,
    unit: u64,
}

impl Delta<'_> {
    /// What was written to `overlay`, rounded to whole units of `unit` bytes, a power of two.
    pub fn new(overlay: &Overlay, unit: Bytes) -> Delta<'_> {
        Delta { overlay, unit: unit.0.max(1).next_power_of_two() }
    }

    fn down(&self, at: u64) -> u64 {
        at / self.unit * self.unit
    }

    /// The next multiple of the unit, or the end of the disk.
    fn up(&self, at: u64) -> u64 {
        let size = self.size().0;
        at.checked_next_multiple_of(self.unit).map_or(size, |up| up.min(size))
    }

    /// The run of whole units that begins at `at`, a multiple of the unit before `end`, which is one, too, or the disk's end.
    fn run(&self, at: u64, end: u64) -> Result<Extent> {
        let found = |end: u64, kind| Extent { range: range(at, end), kind };
        let first = self.overlay.written_at(range(at, end));
        // A run that ends inside of the unit in which it begins shares that with others. The disk's end ends a unit.
        let whole = if first.range.end().0 == end { end } else { self.down(first.range.end().0) };
        if whole > at {
            return match first.what {
                None => Ok(found(whole, ExtentKind::Unallocated)),
                Some(Written::Data) => Ok(found(whole, ExtentKind::Data)),
                Some(Written::Zero) => self.zeros(at, whole),
            };
        }
        let end = self.up(at + 1);
        let mut here = at;
        while here < end {
            let part = self.overlay.written_at(range(here, end));
            if part.what != Some(Written::Zero) {
                return Ok(found(end, ExtentKind::Data));
            }
            here = part.range.end().0;
        }
        self.zeros(at, end)
    }

    /// The beginning of a run of zeros: not stored where the base has zeros, too.
    fn zeros(&self, at: u64, end: u64) -> Result<Extent> {
        let below = self.overlay.base().extents(range(at, end), AT_A_TIME)?;
        let is_data = |extent: &Extent| extent.kind == ExtentKind::Data;
        let first = below.first().ok_or_else(|| {
            Error::corrupt(format!("the map of the base does not say what lies at {at:#x}"))
        })?;
        let same = below.iter().take_while(|extent| is_data(extent) == is_data(first)).last();
        let until = same.map_or(at, |last| last.range.end().0).clamp(at, end);
        let whole = if until == end { end } else { self.down(until) };
        match is_data(first) || whole <= at {
            true => {
                Ok(Extent { range: range(at, self.up(until.max(at + 1)).min(end)), kind: ExtentKind::Zero })
            }
            false => Ok(Extent { range: range(at, whole), kind: ExtentKind::Unallocated }),
        }
    }
}

fn range(start: u64, end: u64) -> GuestRange {
    GuestRange::between(GuestOffset(start), GuestOffset(end))
}

impl Disk for Delta<'_> {
    fn size(&self) -> Bytes {
        self.overlay.size()
    }

    fn sector_size(&self) -> Bytes {
        self.overlay.sector_size()
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size());
        let mut out: Vec<Extent> = Vec::new();
        let mut here = self.down(range.start().0);
        let end = self.up(range.end().0);
        while here < end && !range.is_empty() {
            let run = self.run(here, end)?;
            here = run.range.end().0;
            let run = Extent { range: run.range.intersect(range), ..run };
            let is_full = out.len() >= at_most.max(1);
            match out.last_mut() {
                Some(last) if last.kind == run.kind => {
                    last.range = GuestRange::between(last.range.start(), run.range.end());
                }
                _ if is_full => break,
                _ => out.push(run),
            }
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        self.overlay.read_at(at, buf)
    }
}

/// What [`write`] left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// What the sink left.
    pub receipt: Receipt,
    /// Bytes that are stored as data.
    pub data: Bytes,
}

/// Writes what was written to `overlay` into `sink`, which was started over the overlay's base
/// ([`CreateOptions::base`](crate::CreateOptions::base)), and completes it.
///
/// # Errors
/// Of the overlay and of the sink; [`Kind::Interrupted`](crate::Kind::Interrupted). Then nothing lies under the sink's name.
pub fn write(overlay: &Overlay, sink: Box<dyn Sink>, cancel: &Cancel) -> Result<Finished> {
    let unit = sink.granularity().0;
    let delta = Delta::new(overlay, Bytes(unit));
    let (mut here, size) = (0, delta.size().0);
    let mut data = 0;
    while here < size {
        let extents = delta.extents(range(here, size), AT_A_TIME)?;
        for extent in &extents {
            let at_a_time = if extent.kind == ExtentKind::Data { CHUNK.max(unit) } else { PIECE };
            while here < extent.range.end().0 {
                if cancel.is_cancelled() {
                    return Err(Error::interrupted());
                }
                let piece =
                    range(here, (here / at_a_time + 1).saturating_mul(at_a_time).min(extent.range.end().0));
                match extent.kind {
                    ExtentKind::Unallocated => sink.keep(piece)?,
                    ExtentKind::Zero => sink.zero(piece)?,
                    ExtentKind::Data => data += store(&delta, &*sink, piece)?,
                }
                here = piece.end().0;
            }
        }
        if extents.is_empty() {
            return Err(Error::corrupt(format!(
                "the map of the overlay does not say what lies at {here:#x}"
            )));
        }
    }
    Ok(Finished { receipt: sink.finish()?, data: Bytes(data) })
}

/// Stores a chunk, and the zeros in it as such. Returns the bytes of data.
fn store(delta: &Delta<'_>, sink: &dyn Sink, chunk: GuestRange) -> Result<u64> {
    let unit = usize::try_from(delta.unit).unwrap_or(usize::MAX);
    let mut content = vec![0; usize::try_from(chunk.len().0).unwrap_or(usize::MAX)];
    delta.read_at(chunk.start(), &mut content)?;
    let mut stored = 0;
    let mut here = 0;
    while here < content.len() {
        let zeros = |at: usize| is_zero(&content[at..content.len().min(at + unit)]);
        let is_hole = zeros(here);
        let end =
            (here..content.len()).step_by(unit).find(|at| zeros(*at) != is_hole).unwrap_or(content.len());
        let (bytes, run) =
            (&content[here..end], range(chunk.start().0 + here as u64, chunk.start().0 + end as u64));
        here = end;
        if is_hole {
            sink.zero(run)?;
            continue;
        }
        let encoded = sink.encode(run, bytes)?;
        let (mut bytes, pieces) =
            encoded.as_ref().map_or((bytes, &[][..]), |encoded| (&encoded.bytes, &encoded.pieces));
        for place in sink.place(run, pieces)? {
            let (now, later) = bytes
                .split_at_checked(place.len)
                .ok_or_else(|| Error::refused("a place is longer than what it is for"))?;
            sink.store(place, now)?;
            bytes = later;
        }
        if !bytes.is_empty() {
            return Err(Error::refused(format!("{} bytes were given no place", bytes.len())));
        }
        stored += run.len().0;
    }
    Ok(stored)
}

#[cfg(test)]
mod tests;
