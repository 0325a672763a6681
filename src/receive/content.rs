//! Making a disk the same as another, with as few writes as it takes; and which parts of a disk may have changed.
//!
//! Content is compared in blocks of 4 KiB. What is the same is not written: it would only make the journal longer, and the machine's
//! points would seem to differ where they do not.

use crate::vault::journal::record::Kind as Record;
use crate::vault::journal::records;
use crate::vault::machine::Machine;
use landfall_image::convert::{Cancel, is_zero};
use landfall_image::{Bytes, Disk, DiskMut, Error, Extent, ExtentKind, GuestOffset, GuestRange, Result};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The unit of comparison, in bytes.
pub const BLOCK: usize = 4096;
/// What is read at once.
pub const PIECE: usize = 1 << 20;
/// Extents of one piece: one for each block at most.
const EXTENTS: usize = PIECE / BLOCK;

/// What was done to a disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Counts {
    /// Looked at: stored content that was compared.
    pub compared: u64,
    /// Differed and was written.
    pub written: u64,
    /// Differed and is zeros now.
    pub zeroed: u64,
}

impl Counts {
    /// Adds what was done elsewhere.
    pub fn add(&mut self, other: Counts) {
        self.compared += other.compared;
        self.written += other.written;
        self.zeroed += other.zeroed;
    }
}

/// What a block becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Becomes {
    Same,
    Zero,
    Data,
}

/// Makes the run of `disk` from `at`, which holds `is`, hold `wanted`, of the same length. `at` is a multiple of [`BLOCK`], or the
/// blocks are counted from there.
///
/// # Errors
/// As the disk's writes.
pub fn put(disk: &dyn DiskMut, at: GuestOffset, is: &[u8], wanted: &[u8]) -> Result<Counts> {
    let mut counts = Counts { compared: wanted.len() as u64, ..Counts::default() };
    let mut run: Option<(Becomes, Range<usize>)> = None;
    let mut done = |becomes: Becomes, range: Range<usize>| -> Result<()> {
        let (start, len) = (GuestOffset(at.0 + range.start as u64), range.len() as u64);
        match becomes {
            Becomes::Same => {}
            Becomes::Zero => {
                disk.zero_at(GuestRange::new(start, Bytes(len)))?;
                counts.zeroed += len;
            }
            Becomes::Data => {
                disk.write_at(start, &wanted[range])?;
                counts.written += len;
            }
        }
        Ok(())
    };
    for (number, (is, new)) in is.chunks(BLOCK).zip(wanted.chunks(BLOCK)).enumerate() {
        let becomes = match is == new {
            true => Becomes::Same,
            false if is_zero(new) => Becomes::Zero,
            false => Becomes::Data,
        };
        let here = number * BLOCK..number * BLOCK + new.len();
        match &mut run {
            Some((same, range)) if *same == becomes => range.end = here.end,
            other => {
                if let Some((becomes, range)) = other.replace((becomes, here)) {
                    done(becomes, range)?;
                }
            }
        }
    }
    if let Some((becomes, range)) = run {
        done(becomes, range)?;
    }
    Ok(counts)
}

/// Makes a run of `disk` zeros, where it is not.
///
/// # Errors
/// As the disk's reads and writes.
pub fn clear(disk: &dyn DiskMut, range: GuestRange) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut buf = Vec::new();
    each_extent(disk, range, |extent| {
        if extent.kind != ExtentKind::Data {
            return Ok(());
        }
        in_pieces(extent.range, |piece| {
            let is = filled(disk, piece, &mut buf)?;
            counts.add(put(disk, piece.start(), is, &vec![0; is.len()])?);
            Ok(())
        })
    })?;
    Ok(counts)
}

/// How much may be done at once, and until when.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Threads, 1 and up.
    pub jobs: usize,
    /// Set to stop.
    pub cancel: Cancel,
}

impl Default for Effort {
    fn default() -> Effort {
        let jobs = std::thread::available_parallelism().map_or(2, usize::from).min(8);
        Effort { jobs, cancel: Cancel::default() }
    }
}

/// Makes `to` hold in `ranges` what `from` holds: all of it, or, where `only_stored` is set, what `from` itself stores, so that the rest
/// stays as `to` has it (a delta over it). Bytes behind the end of `from` are zeros. `ranges` lie in `to`, and start on blocks.
///
/// # Errors
/// As the disks'; [`Kind::Interrupted`](landfall_image::Kind::Interrupted) where it was stopped.
pub fn copy(
    from: &dyn Disk,
    to: &dyn DiskMut,
    ranges: impl Iterator<Item = Range<u64>> + Send,
    only_stored: bool,
    effort: &Effort,
) -> Result<Counts> {
    let pieces = Mutex::new(ranges.flat_map(|range| {
        let next = move |at: u64| (at / PIECE as u64 + 1) * PIECE as u64;
        std::iter::successors(Some(range.start), move |at| Some(next(*at)))
            .take_while(move |at| *at < range.end)
            .map(move |at| GuestRange::between(GuestOffset(at), GuestOffset(next(at).min(range.end))))
    }));
    let sums = [const { AtomicU64::new(0) }; 3];
    let work = || -> Result<()> {
        let (mut new, mut is) = (Vec::new(), Vec::new());
        loop {
            let piece = pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(piece) = piece else { return Ok(()) };
            if effort.cancel.is_cancelled() {
                return Err(Error::interrupted());
            }
            let done = copy_piece(from, to, piece, only_stored, (&mut new, &mut is))?;
            for (sum, part) in sums.iter().zip([done.compared, done.written, done.zeroed]) {
                sum.fetch_add(part, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..effort.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let mut outcome = work();
        for other in others {
            let other =
                other.join().unwrap_or_else(|_| Err(Error::corrupt("a thread that copied has ended")));
            outcome = outcome.and(other);
        }
        outcome
    })?;
    let [compared, written, zeroed] = sums.map(AtomicU64::into_inner);
    Ok(Counts { compared, written, zeroed })
}

fn copy_piece(
    from: &dyn Disk,
    to: &dyn DiskMut,
    piece: GuestRange,
    only_stored: bool,
    (new, is): (&mut Vec<u8>, &mut Vec<u8>),
) -> Result<Counts> {
    let mut counts = Counts::default();
    let inside = landfall_image::disk::clip(piece, from.size());
    each_extent(from, inside, |extent| {
        match extent.kind {
            ExtentKind::Unallocated if only_stored => {}
            ExtentKind::Zero | ExtentKind::Unallocated => counts.add(clear(to, extent.range)?),
            // Extents of a guest's sectors may begin inside of a block.
            ExtentKind::Data => in_pieces(extent.range, |part| {
                let new = filled(from, part, new)?;
                let is = filled(to, part, is)?;
                counts.add(put(to, part.start(), is, new)?);
                Ok(())
            })?,
        }
        Ok(())
    })?;
    // What an image does not reach is no part of it, even of a delta.
    let behind = GuestRange::between(inside.end().max(piece.start()), piece.end());
    if !behind.is_empty() {
        counts.add(clear(to, behind)?);
    }
    Ok(counts)
}

/// Hands on all extents of a range, in order.
///
/// # Errors
/// As the disk's, and those of `each`.
pub fn each_extent(
    disk: &(impl Disk + ?Sized),
    range: GuestRange,
    mut each: impl FnMut(Extent) -> Result<()>,
) -> Result<()> {
    let mut at = range.start();
    while at < range.end() {
        let found = disk.extents(GuestRange::between(at, range.end()), EXTENTS)?;
        let Some(last) = found.last() else {
            return Err(Error::corrupt(format!("the map of the disk ends at {:#x}", at.0)));
        };
        at = last.range.end();
        found.into_iter().try_for_each(&mut each)?;
    }
    Ok(())
}

/// Cuts a run into pieces that are read at once.
fn in_pieces(range: GuestRange, mut each: impl FnMut(GuestRange) -> Result<()>) -> Result<()> {
    let mut at = range.start().0;
    while at < range.end().0 {
        let end = ((at / PIECE as u64 + 1) * PIECE as u64).min(range.end().0);
        each(GuestRange::between(GuestOffset(at), GuestOffset(end)))?;
        at = end;
    }
    Ok(())
}

fn filled<'b>(disk: &(impl Disk + ?Sized), range: GuestRange, buf: &'b mut Vec<u8>) -> Result<&'b [u8]> {
    buf.resize(range.len().to_usize().unwrap_or(usize::MAX), 0);
    disk.read_at(range.start(), buf)?;
    Ok(buf)
}

/// The finest unit of [`Changed`], in bytes.
const UNIT: u64 = 64 << 10;
/// The most units of it: 16 MiB of memory, 64 KiB each up to a disk of 8 TiB.
const UNITS_AT_MOST: u64 = 1 << 27;

/// The parts of a disk that may have changed.
#[derive(Clone, Debug)]
pub struct Changed {
    bits: Vec<u64>,
    unit: u64,
    size: u64,
}

impl Changed {
    /// None of a disk of `size` bytes.
    pub fn nothing(size: u64) -> Changed {
        let unit = UNIT.max(size.div_ceil(UNITS_AT_MOST).next_power_of_two());
        let words = usize::try_from(size.div_ceil(unit).div_ceil(64)).unwrap_or(usize::MAX);
        Changed { bits: vec![0; words], unit, size }
    }

    /// A part more, in bytes.
    pub fn add(&mut self, range: Range<u64>) {
        let end = range.end.min(self.size);
        if range.start >= end {
            return;
        }
        for unit in range.start / self.unit..end.div_ceil(self.unit) {
            if let Some(word) = usize::try_from(unit / 64).ok().and_then(|word| self.bits.get_mut(word)) {
                *word |= 1 << (unit % 64);
            }
        }
    }

    /// The bytes of a unit, and of the disk.
    pub fn unit(&self) -> (u64, u64) {
        (self.unit, self.size)
    }

    /// It as bytes: the length of a unit and the disk's size, 8 bytes each, then a bit for each unit, in words of 8 bytes; little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.unit, self.size].iter().chain(&self.bits).flat_map(|word| word.to_le_bytes()).collect()
    }

    /// What [`to_bytes`](Self::to_bytes) has made.
    ///
    /// # Errors
    /// Corrupt where it has not.
    pub fn from_bytes(bytes: &[u8]) -> Result<Changed> {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let wrong = || Error::corrupt("this does not say which parts of a disk have changed");
        let (unit, size) = words.next().zip(words.next()).ok_or_else(wrong)?;
        let bits: Vec<u64> = words.collect();
        let wanted = Changed::nothing(size);
        match rest.is_empty() && unit == wanted.unit && bits.len() == wanted.bits.len() {
            true => Ok(Changed { bits, unit, size }),
            false => Err(wrong()),
        }
    }

    fn holds(&self, unit: u64) -> bool {
        let word = usize::try_from(unit / 64).ok().and_then(|word| self.bits.get(word));
        word.is_some_and(|word| word >> (unit % 64) & 1 == 1)
    }

    /// The parts, in order; none touch.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let units = self.size.div_ceil(self.unit);
        let next = move |from: u64, wanted: bool| {
            let mut at = from;
            while at < units && self.holds(at) != wanted {
                let word = usize::try_from(at / 64).ok().and_then(|word| self.bits.get(word));
                // Whole words of the other kind are passed at once.
                let whole = if wanted { 0 } else { u64::MAX };
                at = if word == Some(&whole) { (at / 64 + 1) * 64 } else { at + 1 };
            }
            at.min(units)
        };
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = next(at, true);
            at = next(start, false);
            (start < at).then(|| start * self.unit..(at * self.unit).min(self.size))
        })
    }
}

/// Records about the content of a disk that lie in the journal behind record `after`, up to `through`, are handed to `each`; of any disk
/// with `None`. Where points between were given up, a record may stand for an earlier one, never for one behind the next point
/// that was kept: between two points that are there, all is told.
fn each_record(
    machine: &Machine,
    disk: Option<u32>,
    after: u64,
    through: u64,
    mut each: impl FnMut(Range<u64>) -> bool,
) -> Result<()> {
    // What is written to now is only told of when it is closed.
    machine.journal().close_segment();
    for segment in machine.journal().segments().iter().rev() {
        if segment.last <= after {
            break;
        }
        if segment.name.first > through {
            continue;
        }
        for entry in records(segment)? {
            let counts = matches!(entry.kind, Record::Data | Record::Zero)
                && disk.is_none_or(|disk| entry.disk == disk)
                && after < entry.sequence
                && entry.sequence <= through;
            if counts && !each(entry.offset..entry.offset.saturating_add(entry.len)) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The parts of a disk of `size` that may differ between record `after` of the journal, which is a point that is there, and record `through`.
///
/// # Errors
/// Where the journal cannot be read.
pub fn changed(machine: &Machine, disk: u32, after: u64, through: u64, size: Bytes) -> Result<Changed> {
    let mut changed = Changed::nothing(size.0);
    each_record(machine, Some(disk), after, through, |range| {
        changed.add(range);
        true
    })?;
    Ok(changed)
}

/// True where anything was written behind record `after`, up to `through`: to one disk, or to any.
///
/// # Errors
/// Where the journal cannot be read.
pub fn is_written(machine: &Machine, disk: Option<u32>, after: u64, through: u64) -> Result<bool> {
    if after >= through.min(machine.journal().last()) {
        return Ok(false);
    }
    let mut found = false;
    each_record(machine, disk, after, through, |_| {
        found = true;
        false
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::Overlay;
    use landfall_image::testing::{MemDisk, read_all};
    use proptest::prelude::*;
    use std::sync::Arc;

    const SIZE: usize = 3 * PIECE + 5 * 512;

    fn overlay(disk: MemDisk) -> Overlay {
        Overlay::new(Arc::new(disk), &std::env::temp_dir()).unwrap()
    }

    fn ranges(changed: &Changed) -> Vec<Range<u64>> {
        changed.ranges().collect()
    }

    #[test]
    fn parts_that_changed_are_told_in_units() {
        let unit = UNIT;
        let mut changed = Changed::nothing(1000 * unit + 5);
        assert_eq!(ranges(&changed), []);
        changed.add(0..1);
        changed.add(unit - 1..unit + 1);
        changed.add(100 * unit..400 * unit);
        changed.add(1000 * unit..u64::MAX);
        changed.add(u64::MAX - 1..u64::MAX);
        changed.add(7..7);
        let wanted = [0..2 * unit, 100 * unit..400 * unit, 1000 * unit..1000 * unit + 5];
        assert_eq!(ranges(&changed), wanted);
        let bytes = changed.to_bytes();
        assert_eq!(ranges(&Changed::from_bytes(&bytes).unwrap()), wanted);
        for bad in [
            &bytes[..bytes.len() - 1],
            &bytes[..bytes.len() - 8],
            &bytes[..12],
            &[&bytes[..], &[0; 8]].concat(),
        ] {
            assert!(Changed::from_bytes(bad).is_err());
        }
        assert!(Changed::from_bytes(&[0xff; 64]).is_err());
        // The largest disk takes no more memory than any.
        let large = Changed::nothing(landfall_image::limits::DISK_SIZE.0);
        assert!(large.bits.len() <= 1 << 21 && ranges(&large).is_empty());
        assert_eq!(ranges(&Changed::nothing(0)), []);
    }

    #[test]
    fn what_is_the_same_is_not_written() {
        let content: Vec<u8> = (0..SIZE).map(|n| u8::try_from(n / BLOCK % 251).unwrap() + 1).collect();
        let from = MemDisk::from_bytes(content.clone());
        let mut other = content.clone();
        other[BLOCK * 7] ^= 1;
        other[BLOCK * 300..BLOCK * 302].fill(0);
        let to = overlay(MemDisk::from_bytes(other));
        let all = || std::iter::once(0..SIZE as u64);
        let counts = copy(&from, &to, all(), false, &Effort::default()).unwrap();
        assert_eq!(counts, Counts { compared: SIZE as u64, written: 3 * BLOCK as u64, zeroed: 0 });
        assert!(read_all(&to).unwrap() == content);
        let again = copy(&from, &to, all(), false, &Effort::default()).unwrap();
        assert_eq!((again.written, again.zeroed), (0, 0));
        let cancel = Cancel::default();
        cancel.cancel();
        let error = copy(&from, &to, all(), false, &Effort { jobs: 2, cancel }).unwrap_err();
        assert_eq!(error.kind(), landfall_image::Kind::Interrupted);
    }

    fn disk() -> impl Strategy<Value = (usize, Vec<(usize, usize, Option<u8>)>)> {
        let runs = prop::collection::vec((0..SIZE / 512, 1..600_usize, prop::option::of(0..4_u8)), 0..8);
        (1..=SIZE / 512, runs)
    }

    fn made((sectors, runs): (usize, Vec<(usize, usize, Option<u8>)>)) -> MemDisk {
        let mut disk = MemDisk::new(Bytes(512 * sectors as u64));
        let mut end = 0;
        let mut runs = runs;
        runs.sort_unstable();
        for (start, len, byte) in runs {
            let (start, stop) = (start.max(end), (start.max(end) + len).min(sectors));
            if start < stop {
                let (at, len) = (512 * start as u64, 512 * (stop - start));
                disk = match byte {
                    Some(byte) => disk.data(at, vec![byte; len]),
                    None => disk.zero(at, len as u64),
                };
                end = stop;
            }
        }
        disk
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever two disks hold, the one becomes the other; or the other over itself, where that is a delta.
        #[test]
        fn a_copy_is_exact(from in disk(), to in disk(), only_stored: bool) {
            let (from, base) = (made(from), made(to));
            let size = usize::try_from(base.size().0).unwrap();
            let mut wanted = read_all(&base).unwrap();
            let source = read_all(&from).unwrap();
            let mut at = 0;
            while at < size {
                let rest = GuestRange::between(GuestOffset(at as u64), GuestOffset(size as u64));
                let found = from.extents(rest, 1).unwrap();
                let end = found.first().map_or(size, |extent| usize::try_from(extent.range.end().0).unwrap().min(size));
                if !only_stored || found.first().is_none_or(|extent| extent.kind != ExtentKind::Unallocated) {
                    for (place, byte) in wanted.iter_mut().enumerate().take(end).skip(at) {
                        *byte = source.get(place).copied().unwrap_or_default();
                    }
                }
                at = end;
            }
            let to = overlay(base);
            let effort = Effort { jobs: 3, ..Effort::default() };
            copy(&from, &to, std::iter::once(0..size as u64), only_stored, &effort).unwrap();
            prop_assert!(read_all(&to).unwrap() == wanted);
        }
    }
}
