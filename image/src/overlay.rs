//! A disk plus writes into scratch. All patching goes here; the source is never open for writing.
//!
//! Scratch is an unlinked temporary file, filled in the order of the writes; a map leads from each block of
//! [`BLOCK`] to its place there. It dies with the process and needs no clean-up. Runs of zeros take a map entry
//! and no scratch, however long they are.
//!
//! Readers take the map's lock for the lookup alone. Writers also hold the lock of the region that they change, so
//! that two writers of different sectors of one block both survive. Absent on purpose: reuse of scratch blocks (a
//! reader may still be looking at them; their space goes back to the file system instead), and persistence.

use crate::disk::{self, Disk, DiskMut, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// The unit of copy-on-write.
pub const BLOCK: Bytes = Bytes::kib(4);

/// What one writer's lock covers.
const REGION: u64 = 1 << 20;
/// Number of those locks; regions share them in turn.
const STRIPES: usize = 64;
/// Enough for the part of a block that [`DiskMut::zero_at`] must store.
static ZEROS: [u8; 4096] = [0; 4096];
const _: () = assert!(BLOCK.0 == ZEROS.len() as u64);

/// A base disk that reads as if it had been written to. Shared by any number of readers and writers.
pub struct Overlay {
    base: Arc<dyn Disk>,
    scratch: File,
    folder: PathBuf,
    next_slot: AtomicU64,
    map: RwLock<Map>,
    regions: Vec<Mutex<()>>,
}

impl Overlay {
    /// An overlay on `base` that keeps what is written in `scratch_dir`, which needs room for all of it.
    pub fn new(base: Arc<dyn Disk>, scratch_dir: &Path) -> Result<Overlay> {
        let scratch = tempfile::tempfile_in(scratch_dir)
            .map_err(|e| Error::io("cannot create a scratch file", e).in_file(scratch_dir))?;
        Ok(Overlay {
            base,
            scratch,
            folder: scratch_dir.to_owned(),
            next_slot: AtomicU64::new(0),
            map: RwLock::new(Map::default()),
            regions: (0..STRIPES).map(|_| Mutex::new(())).collect(),
        })
    }

    /// The disk underneath.
    pub fn base(&self) -> &Arc<dyn Disk> {
        &self.base
    }

    /// Bytes that now come from scratch instead of the base, in whole blocks of [`BLOCK`]. Runs that were zeroed
    /// are not among them; see [`zeroed`](Self::zeroed).
    pub fn written(&self) -> Bytes {
        Bytes(self.read_map().stored_blocks * BLOCK.0)
    }

    /// Bytes that now read as zeros without taking scratch, in whole blocks of [`BLOCK`].
    pub fn zeroed(&self) -> Bytes {
        Bytes(self.read_map().zero_blocks * BLOCK.0)
    }

    /// What was written at the beginning of `range`, which is clipped to the disk and then not empty, and how far that goes.
    pub(crate) fn written_at(&self, range: GuestRange) -> WrittenRun {
        let range = disk::clip(range, self.size());
        let part = self.read_map().first_part(range.start().0, range.end().0);
        let what = part.place.map(|place| match place {
            Place::Slot(_) => Written::Data,
            Place::Zero => Written::Zero,
        });
        WrittenRun { range: GuestRange::between(GuestOffset(part.start), GuestOffset(part.end)), what }
    }

    fn read_map(&self) -> std::sync::RwLockReadGuard<'_, Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_map(&self) -> std::sync::RwLockWriteGuard<'_, Map> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_region(&self, at: u64) -> MutexGuard<'_, ()> {
        let stripe = usize::try_from(at / REGION % STRIPES as u64).unwrap_or(0);
        self.regions[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, doing: &str, error: std::io::Error) -> Error {
        let full = error.kind() == std::io::ErrorKind::StorageFull;
        let error = Error::io(doing, error).in_file(&self.folder);
        if full { error.hint("free space in the scratch folder, or choose another") } else { error }
    }

    fn write_scratch(&self, at: u64, data: &[u8]) -> Result<()> {
        self.scratch.write_all_at(data, at).map_err(|e| self.failed("cannot write scratch", e))
    }

    /// Writes `data` at `at`, all inside one region, whose lock is held.
    fn write_in_region(&self, at: u64, data: &[u8]) -> Result<()> {
        let end = at + data.len() as u64;
        let parts = self.read_map().parts(at, end);
        for part in parts {
            let part_data = &data[index(part.start - at)..index(part.end - at)];
            let before = match part.place {
                Some(Place::Slot(slot)) => {
                    self.write_scratch(slot * BLOCK.0 + part.start % BLOCK.0, part_data)?;
                    continue;
                }
                Some(Place::Zero) => None,
                None => Some(&self.base),
            };
            // New blocks: what lies around the data in its first and last block comes along.
            let first = part.start / BLOCK.0;
            let last = part.end.div_ceil(BLOCK.0);
            let slot = self.next_slot.fetch_add(last - first, Ordering::Relaxed);
            let scratch_of = |guest: u64| slot * BLOCK.0 + (guest - first * BLOCK.0);
            let block_end = (last * BLOCK.0).min(self.size().0);
            for (from, to) in [(first * BLOCK.0, part.start), (part.end, block_end)] {
                if from >= to {
                    continue;
                }
                let mut around = vec![0; index(to - from)];
                if let Some(base) = before {
                    base.read_at(GuestOffset(from), &mut around)?;
                }
                self.write_scratch(scratch_of(from), &around)?;
            }
            self.write_scratch(scratch_of(part.start), part_data)?;
            self.write_map().set(first, last, Place::Slot(slot));
        }
        Ok(())
    }

    /// Makes the blocks from `first` up to `last` zeros and gives their scratch back. Their regions are locked.
    fn zero_blocks(&self, first: u64, last: u64) {
        let freed = self.write_map().set(first, last, Place::Zero);
        for (slot, blocks) in freed {
            // Only saves space: a file system that cannot punch holes keeps the blocks.
            let _ = rustix::fs::fallocate(
                &self.scratch,
                rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE,
                slot * BLOCK.0,
                blocks * BLOCK.0,
            );
        }
    }
}

impl Disk for Overlay {
    fn size(&self) -> Bytes {
        self.base.size()
    }

    fn sector_size(&self) -> Bytes {
        self.base.sector_size()
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size());
        let mut out: Vec<Extent> = Vec::new();
        let mut here = range.start().0;
        let end = range.end().0;
        while here < end && out.len() < at_most.max(1) {
            let part = self.read_map().first_part(here, end);
            let range = GuestRange::between(GuestOffset(part.start), GuestOffset(part.end));
            let kind = match part.place {
                Some(Place::Slot(_)) => ExtentKind::Data,
                Some(Place::Zero) => ExtentKind::Zero,
                None => {
                    let below = self.base.extents(range, at_most.max(1) - out.len())?;
                    let covered = below.last().map_or(here, |last| last.range.end().0);
                    out.extend(below);
                    if covered < part.end {
                        break; // the answer must stay contiguous
                    }
                    here = part.end;
                    continue;
                }
            };
            match out.last_mut() {
                Some(last) if last.kind == kind => {
                    last.range = GuestRange::between(last.range.start(), range.end());
                }
                _ => out.push(Extent { range, kind }),
            }
            here = part.end;
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, buf.len())?;
        let end = at.0 + buf.len() as u64;
        let parts = self.read_map().parts(at.0, end);
        for part in parts {
            let buf = &mut buf[index(part.start - at.0)..index(part.end - at.0)];
            match part.place {
                None => self.base.read_at(GuestOffset(part.start), buf)?,
                Some(Place::Zero) => buf.fill(0),
                Some(Place::Slot(slot)) => self
                    .scratch
                    .read_exact_at(buf, slot * BLOCK.0 + part.start % BLOCK.0)
                    .map_err(|e| self.failed("cannot read scratch", e))?,
            }
        }
        Ok(())
    }
}

impl DiskMut for Overlay {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, data.len())?;
        let (mut at, mut rest) = (at.0, data);
        while !rest.is_empty() {
            let in_region = index(REGION - at % REGION).min(rest.len());
            let (now, later) = rest.split_at(in_region);
            let _region = self.lock_region(at);
            self.write_in_region(at, now)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn zero_at(&self, range: GuestRange) -> Result<()> {
        let (start, end) = (range.start().0, range.end().0);
        disk::check_bounds(self.size(), range.start(), index(end - start))?;
        if start == end {
            return Ok(());
        }
        let first = start.div_ceil(BLOCK.0);
        // The disk's last block counts as whole where the disk ends inside of it.
        let last = if end == self.size().0 { end.div_ceil(BLOCK.0) } else { end / BLOCK.0 };
        if first >= last {
            // Inside one block, or two part-blocks that meet at `first`.
            let middle = end.min(first * BLOCK.0);
            self.write_at(range.start(), &ZEROS[..index(middle - start)])?;
            return self.write_at(GuestOffset(middle), &ZEROS[..index(end - middle)]);
        }
        self.write_at(range.start(), &ZEROS[..index(first * BLOCK.0 - start)])?;
        if last * BLOCK.0 < end {
            self.write_at(GuestOffset(last * BLOCK.0), &ZEROS[..index(end - last * BLOCK.0)])?;
        }
        let _regions: Vec<_> = if first * BLOCK.0 / REGION == (last * BLOCK.0 - 1) / REGION {
            vec![self.lock_region(first * BLOCK.0)]
        } else {
            (0..STRIPES as u64).map(|stripe| self.lock_region(stripe * REGION)).collect()
        };
        self.zero_blocks(first, last);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(()) // every write has reached the file when it returns
    }
}

/// What became of a run of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It was written over.
    Data,
    /// It was made zeros.
    Zero,
}

/// A run of an overlay of which all was written in one way, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrittenRun {
    pub range: GuestRange,
    pub what: Option<Written>,
}

/// A distance inside one buffer, which was an index to begin with.
fn index(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

/// Where a block's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In scratch, counted in blocks.
    Slot(u64),
    /// Nowhere: it is zeros.
    Zero,
}

impl Place {
    /// The place of the block that lies `blocks` behind one at this place, in the same run.
    fn skip(self, blocks: u64) -> Place {
        match self {
            Place::Slot(slot) => Place::Slot(slot + blocks),
            Place::Zero => Place::Zero,
        }
    }
}

/// A run of bytes at one place; `None` is the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    start: u64,
    end: u64,
    place: Option<Place>,
}

/// Runs of blocks that do not come from the base: first block -> (block behind the last, place of the first).
#[derive(Default)]
struct Map {
    runs: BTreeMap<u64, (u64, Place)>,
    stored_blocks: u64,
    zero_blocks: u64,
}

impl Map {
    /// The run of one place that begins at byte `start`, cut at `end`, which lies behind it.
    fn first_part(&self, start: u64, end: u64) -> Part {
        let block = start / BLOCK.0;
        if let Some((&first, &(last, place))) = self.runs.range(..=block).next_back()
            && last > block
        {
            return Part { start, end: end.min(last * BLOCK.0), place: Some(place.skip(block - first)) };
        }
        let next = self.runs.range(block + 1..).next().map_or(end, |(&first, _)| first * BLOCK.0);
        Part { start, end: end.min(next), place: None }
    }

    /// What `start..end` consists of.
    fn parts(&self, start: u64, end: u64) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut here = start;
        while here < end {
            let part = self.first_part(here, end);
            here = part.end;
            parts.push(part);
        }
        parts
    }

    /// Puts the blocks from `first` up to `last` at `place`. Returns the runs of scratch that nothing names any
    /// more: first slot, blocks.
    fn set(&mut self, first: u64, last: u64, place: Place) -> Vec<(u64, u64)> {
        let mut freed = Vec::new();
        // The run that reaches into the range from before it, and those that begin inside.
        let before = self.runs.range(..first).next_back().map(|(&at, _)| at);
        let inside: Vec<u64> = self.runs.range(first..last).map(|(&at, _)| at).collect();
        for at in before.into_iter().chain(inside) {
            let Some(&(end, was)) = self.runs.get(&at) else { continue };
            if end <= first {
                continue;
            }
            self.runs.remove(&at);
            let (cut_first, cut_last) = (at.max(first), end.min(last));
            if at < first {
                self.runs.insert(at, (first, was));
            }
            if end > last {
                self.runs.insert(last, (end, was.skip(last - at)));
            }
            self.count(was, cut_last - cut_first, false);
            if let Place::Slot(slot) = was.skip(cut_first - at) {
                freed.push((slot, cut_last - cut_first));
            }
        }
        self.count(place, last - first, true);
        // One run with its neighbours where the places go on.
        let (mut first, mut last, mut place) = (first, last, place);
        if let Some((&at, &(end, was))) = self.runs.range(..first).next_back()
            && end == first
            && was.skip(first - at) == place
        {
            self.runs.remove(&at);
            (first, place) = (at, was);
        }
        if let Some(&(end, was)) = self.runs.get(&last)
            && place.skip(last - first) == was
        {
            self.runs.remove(&last);
            last = end;
        }
        self.runs.insert(first, (last, place));
        freed
    }

    fn count(&mut self, place: Place, blocks: u64, more: bool) {
        let counter = match place {
            Place::Slot(_) => &mut self.stored_blocks,
            Place::Zero => &mut self.zero_blocks,
        };
        *counter = if more { counter.saturating_add(blocks) } else { counter.saturating_sub(blocks) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A base whose byte at `n` follows from `n`.
    struct Base(u64);

    fn base_byte(at: u64) -> u8 {
        u8::try_from((at ^ (at >> 9) ^ (at >> 17)) % 251).unwrap()
    }

    impl Disk for Base {
        fn size(&self) -> Bytes {
            Bytes(self.0)
        }
        fn extents(&self, range: GuestRange, _: usize) -> Result<Vec<Extent>> {
            let range = disk::clip(range, self.size());
            Ok(if range.is_empty() { Vec::new() } else { vec![Extent { range, kind: ExtentKind::Data }] })
        }
        fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
            disk::check_bounds(self.size(), at, buf.len())?;
            // Slow enough that another writer of the block comes in between, if it may.
            std::thread::yield_now();
            for (n, byte) in (at.0..).zip(buf) {
                *byte = base_byte(n);
            }
            Ok(())
        }
    }

    fn overlay(size: u64) -> Overlay {
        Overlay::new(Arc::new(Base(size)), &std::env::temp_dir()).unwrap()
    }

    fn all(disk: &dyn Disk) -> Vec<u8> {
        let mut all = vec![0; disk.size().to_usize().unwrap()];
        disk.read_at(GuestOffset(0), &mut all).unwrap();
        all
    }

    #[derive(Clone, Debug)]
    enum Op {
        Write(u64, usize, u8),
        Zero(u64, u64),
    }

    const SIZE: u64 = 3 * REGION / 2 + 777; // two regions, ends inside a block

    fn op() -> impl Strategy<Value = Op> {
        let len = prop_oneof![1..64usize, 1..20_000usize, 1..400_000usize];
        prop_oneof![
            (0..SIZE, len.clone(), any::<u8>()).prop_map(|(at, len, fill)| Op::Write(
                at,
                len.min(index(SIZE - at)),
                fill
            )),
            (0..SIZE, len).prop_map(|(at, len)| Op::Zero(at, (len as u64).min(SIZE - at))),
            (0..SIZE).prop_map(|at| Op::Zero(at, SIZE - at)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Any sequence of writes and zeros leaves what it leaves in a plain buffer, and extents that are true.
        #[test]
        fn reads_as_a_buffer_does(ops in prop::collection::vec(op(), 1..40)) {
            let overlay = overlay(SIZE);
            let mut model: Vec<u8> = (0..SIZE).map(base_byte).collect();
            for op in &ops {
                match *op {
                    Op::Write(at, len, fill) => {
                        let data: Vec<u8> = (0..=255).cycle().take(len).map(|n| fill.wrapping_add(n)).collect();
                        overlay.write_at(GuestOffset(at), &data).unwrap();
                        model[index(at)..index(at) + len].copy_from_slice(&data);
                    }
                    Op::Zero(at, len) => {
                        overlay.zero_at(GuestRange::new(GuestOffset(at), Bytes(len))).unwrap();
                        model[index(at)..index(at + len)].fill(0);
                    }
                }
            }
            prop_assert!(all(&overlay) == model);
            let mut here = 0;
            while here < SIZE {
                let rest = GuestRange::between(GuestOffset(here), GuestOffset(SIZE));
                let extents = overlay.extents(rest, 3).unwrap();
                prop_assert!(!extents.is_empty() && extents.len() <= 3);
                for extent in extents {
                    prop_assert_eq!(extent.range.start().0, here);
                    prop_assert!(!extent.range.is_empty());
                    here = extent.range.end().0;
                    let bytes = &model[index(extent.range.start().0)..index(here)];
                    prop_assert!(extent.kind == ExtentKind::Data || bytes.iter().all(|&b| b == 0));
                }
            }
            // The counters agree with a count of the map.
            let map = overlay.read_map();
            let count = |zero| map.runs.iter()
                .filter(|(_, (_, place))| (*place == Place::Zero) == zero)
                .map(|(first, (last, _))| last - first).sum::<u64>();
            prop_assert_eq!(map.stored_blocks, count(false));
            prop_assert_eq!(map.zero_blocks, count(true));
        }
    }

    #[test]
    fn zeroing_a_huge_disk_takes_no_scratch_and_one_run() {
        let overlay = overlay(16 << 40);
        overlay.write_at(GuestOffset(5 << 40), &[1; 10_000]).unwrap();
        overlay.zero_at(GuestRange::new(GuestOffset(0), Bytes(16 << 40))).unwrap();
        assert_eq!(overlay.written(), Bytes(0));
        assert_eq!(overlay.zeroed(), Bytes(16 << 40));
        assert_eq!(overlay.read_map().runs.len(), 1);
        use std::os::unix::fs::MetadataExt;
        assert_eq!(overlay.scratch.metadata().unwrap().blocks(), 0, "the scratch was given back");
        let mut buf = [9; 4];
        overlay.read_at(GuestOffset(5 << 40), &mut buf).unwrap();
        assert_eq!(buf, [0; 4]);
    }

    /// Writers of neighbouring bytes in the same blocks, and a zeroer beside them: nothing is lost.
    #[test]
    fn concurrent_writers_of_one_block_both_survive() {
        let overlay = overlay(1 << 20);
        let threads = 8;
        let barrier = std::sync::Barrier::new(threads);
        std::thread::scope(|scope| {
            for t in 0..threads as u64 {
                let (overlay, barrier) = (&overlay, &barrier);
                scope.spawn(move || {
                    for block in 0..256u64 {
                        barrier.wait();
                        let at = GuestOffset(block * BLOCK.0 + t * 512);
                        if t == 3 {
                            overlay.zero_at(GuestRange::new(at, Bytes(512))).unwrap();
                        } else {
                            overlay.write_at(at, &[u8::try_from(t).unwrap() + 1; 512]).unwrap();
                        }
                    }
                });
            }
        });
        let got = all(&overlay);
        for (at, &byte) in got.iter().enumerate() {
            let t = u8::try_from(at % 4096 / 512).unwrap();
            assert_eq!(byte, if t == 3 { 0 } else { t + 1 }, "at {at}");
        }
        assert_eq!(overlay.written(), Bytes(1 << 20));
    }

    #[test]
    fn nothing_is_written_past_the_end() {
        let overlay = overlay(5000);
        assert!(overlay.write_at(GuestOffset(4999), &[1, 2]).is_err());
        assert!(overlay.zero_at(GuestRange::new(GuestOffset(4000), Bytes(1001))).is_err());
        assert!(overlay.read_at(GuestOffset(u64::MAX), &mut [0]).is_err());
        assert_eq!(overlay.written(), Bytes(0));
    }
}
