//! The base of a machine: its disks as they were at the oldest point, one file each, with a sum for every 4 KiB.
//!
//! ```text
//! bases/00000001.raw   the content, with holes
//! bases/00000001.sum   CRC-32C of each 4 KiB, 4 bytes each, little-endian; 0: all zeros (a sum that is 0 is kept as 1)
//! bases/through        the record of the journal that the base holds all up to
//! bases/fold           a move that began: up to where, and the content of all units that it changes in parts only
//! ```
//!
//! A fold writes what a part of the journal says into the base. It can be cut off anywhere and is done again when the vault is opened:
//! units that change as a whole are in the journal, and those that change in parts were written to `fold` first, so that
//! nothing is read that may be half-written. Points behind the part do not see it: what it writes is over the base in their view.

use super::journal::map::{Run, Source};
use super::storage::{Storage, StoredFile};
use landfall_image::{Error, FileOffset, Result};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Bytes that one sum is of.
pub const UNIT: u64 = UNIT_BYTES as u64;
const UNIT_BYTES: usize = 4096;
/// Bytes that are written at once, while readers wait.
const PIECE: u64 = 1 << 20;
/// Of a fold's file.
const MAGIC: &[u8; 8] = b"LFFOLD01";
/// Disk, unit, content, CRC-32C.
const PATCH: usize = 4 + 8 + UNIT_BYTES + 4;

/// The disks of a machine at its oldest point.
#[derive(Debug)]
pub struct Base {
    storage: Arc<dyn Storage>,
    dir: Arc<str>,
    /// Record up to which it holds everything.
    through: RwLock<u64>,
    disks: Mutex<HashMap<u32, Option<Arc<Disk>>>>,
}

#[derive(Debug)]
struct Disk {
    content: Arc<dyn StoredFile>,
    sums: Arc<dyn StoredFile>,
    /// Content and sums change together.
    gate: RwLock<()>,
    place: std::path::PathBuf,
}

/// Reads a stored run: segment, place in it, buffer.
pub type ReadRun<'r> = dyn Fn(u64, u64, &mut [u8]) -> Result<()> + 'r;

/// A part of the journal that goes into the base: runs by disk, and how they are read.
pub struct Part<'p> {
    /// The last record of it.
    pub through: u64,
    /// What the disks hold after it, as far as it says.
    pub runs: &'p BTreeMap<u32, Vec<Run>>,
    /// How its runs are read.
    pub read: &'p ReadRun<'p>,
    /// Called with the bytes that were written since: to be slow on purpose. An error ends the work.
    pub pace: &'p dyn Fn(u64) -> Result<()>,
}

impl Base {
    /// Opens or begins it. `redo` gives the part of the journal up to a record, where a fold was cut off.
    ///
    /// # Errors
    /// As the storage's; corrupt where the files are not what was written.
    pub fn open(storage: &Arc<dyn Storage>, dir: &str) -> Result<(Base, Option<u64>)> {
        storage.make_dir(dir)?;
        let through = match has(&**storage, dir, "through")? {
            true => read_through(&**storage, &format!("{dir}/through"))?,
            false => 0,
        };
        let begun = match has(&**storage, dir, "fold")? {
            true => Some(read_fold(&**storage, &format!("{dir}/fold"))?.0).filter(|fold| *fold > through),
            false => None,
        };
        let base = Base {
            storage: Arc::clone(storage),
            dir: dir.into(),
            through: RwLock::new(through),
            disks: Mutex::default(),
        };
        Ok((base, begun))
    }

    /// The record up to which it holds everything.
    pub fn through(&self) -> u64 {
        *self.through.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    /// `None` where nothing of the disk is in the base.
    fn disk(&self, number: u32, make: bool) -> Result<Option<Arc<Disk>>> {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = disks.get(&number)
            && (known.is_some() || !make)
        {
            return Ok(known.clone());
        }
        let (content, sums) = (format!("{number:08x}.raw"), format!("{number:08x}.sum"));
        let file = |name: &str| -> Result<Option<Arc<dyn StoredFile>>> {
            match (has(&*self.storage, &self.dir, name)?, make) {
                (true, _) => Ok(Some(self.storage.open(&self.path(name))?)),
                (false, true) => Ok(Some(self.storage.create(&self.path(name))?)),
                (false, false) => Ok(None),
            }
        };
        let disk = match (file(&content)?, file(&sums)?) {
            (Some(content_file), Some(sums)) => Some(Arc::new(Disk {
                content: content_file,
                sums,
                gate: RwLock::new(()),
                place: self.storage.place(&self.path(&content)),
            })),
            _ => None,
        };
        disks.insert(number, disk.clone());
        Ok(disk)
    }

    /// Fills `buf` with what the base holds at `at` of a disk: zeros where it holds nothing.
    ///
    /// # Errors
    /// Corrupt where the content is not what was written.
    pub fn read(&self, disk: u32, at: u64, buf: &mut [u8]) -> Result<()> {
        buf.fill(0);
        let Some(disk) = self.disk(disk, false)? else { return Ok(()) };
        let _gate = disk.gate.read().unwrap_or_else(PoisonError::into_inner);
        let (mut here, end) = (at, at + buf.len() as u64);
        while here < end {
            // Whole units around a piece of it.
            let start = here / UNIT * UNIT;
            let stop = end.div_ceil(UNIT).saturating_mul(UNIT).min(start + PIECE);
            let units = disk.read_units(start, stop)?;
            let until = stop.min(end);
            buf[index(here - at)..index(until - at)]
                .copy_from_slice(&units[index(here - start)..index(until - start)]);
            here = until;
        }
        Ok(())
    }

    /// The first run at or behind `at` that may hold something else than zeros: by the content or by its sums, whichever says so. Where
    /// one of the two has lost a part, the part is read, and found out.
    ///
    /// # Errors
    /// As the storage's.
    pub fn next_data(&self, disk: u32, at: u64) -> Result<Option<Range<u64>>> {
        let Some(disk) = self.disk(disk, false)? else { return Ok(None) };
        let content = disk.content.next_data(at)?.map(|(start, end)| start..end);
        Ok([content, disk.next_sum(at)?].into_iter().flatten().min_by_key(|range| range.start))
    }

    /// Takes a part of the journal in. Points up to it are gone from the moment that this begins.
    ///
    /// # Errors
    /// As the storage's, and where a unit that changes in part is not what was written.
    pub fn fold(&self, part: &Part<'_>) -> Result<()> {
        let patches = self.patches(part)?;
        write_fold(&*self.storage, &self.dir, part.through, &patches)?;
        self.apply(part, &patches)
    }

    /// Does a fold again that was cut off.
    ///
    /// # Errors
    /// As [`fold`](Self::fold).
    pub fn fold_again(&self, part: &Part<'_>) -> Result<()> {
        let (_, patches) = read_fold(&*self.storage, &self.path("fold"))?;
        self.apply(part, &patches)
    }

    fn apply(&self, part: &Part<'_>, patches: &Patches) -> Result<()> {
        let mut touched = Vec::new();
        let mut buf = Vec::new();
        for (number, runs) in part.runs {
            let Some(disk) = self.disk(*number, true)? else { continue };
            for run in runs {
                let (start, end) = (run.range.start.next_multiple_of(UNIT), run.range.end / UNIT * UNIT);
                let mut at = start;
                while at < end {
                    let until = end.min(at + PIECE);
                    match run.source.skip(at - run.range.start) {
                        Source::Zero => {
                            disk.zero(at, end)?;
                            at = end;
                            continue;
                        }
                        Source::Stored { segment, at: place } => {
                            buf.resize(index(until - at), 0);
                            (part.read)(segment, place, &mut buf)?;
                            disk.write(at, &buf)?;
                        }
                    }
                    (part.pace)(until - at)?;
                    at = until;
                }
            }
            touched.push(disk);
        }
        for ((number, unit), content) in patches {
            if let Some(disk) = self.disk(*number, true)? {
                disk.write(unit * UNIT, content)?;
            }
        }
        for disk in touched {
            disk.content.sync()?;
            disk.sums.sync()?;
        }
        self.storage.sync_dir(&self.dir)?;
        let new = self.path("through.new");
        self.storage.remove(&new)?;
        let file = self.storage.create(&new)?;
        let number = part.through.to_le_bytes();
        file.write_at(0, &[&number, &crc32c::crc32c(&number).to_le_bytes()])?;
        file.sync()?;
        self.storage.rename(&new, &self.path("through"))?;
        self.storage.sync_dir(&self.dir)?;
        *self.through.write().unwrap_or_else(PoisonError::into_inner) = part.through;
        self.storage.remove(&self.path("fold"))
    }

    /// The units that change in part, as they will be.
    fn patches(&self, part: &Part<'_>) -> Result<Patches> {
        let mut patches = Patches::new();
        for (number, runs) in part.runs {
            for run in runs {
                for range in edges(&run.range) {
                    let unit = range.start / UNIT;
                    let content = match patches.entry((*number, unit)) {
                        std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                        std::collections::btree_map::Entry::Vacant(new) => {
                            let mut content = vec![0; index(UNIT)];
                            self.read(*number, unit * UNIT, &mut content)?;
                            new.insert(content)
                        }
                    };
                    let inside =
                        index(range.start % UNIT)..index(range.start % UNIT + range.end - range.start);
                    match run.source.skip(range.start - run.range.start) {
                        Source::Zero => content[inside].fill(0),
                        Source::Stored { segment, at } => (part.read)(segment, at, &mut content[inside])?,
                    }
                }
            }
        }
        Ok(patches)
    }

    /// Removes what the base has of a disk.
    ///
    /// # Errors
    /// As the storage's.
    pub fn forget(&self, disk: u32) -> Result<()> {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        disks.remove(&disk);
        self.storage.remove(&self.path(&format!("{disk:08x}.raw")))?;
        self.storage.remove(&self.path(&format!("{disk:08x}.sum")))
    }
}

/// By disk and unit.
type Patches = BTreeMap<(u32, u64), Vec<u8>>;

/// The parts of a run that do not fill their unit: none, one or two.
fn edges(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let (first, last) = (range.start / UNIT * UNIT, range.end / UNIT * UNIT);
    let head = (range.start > first).then(|| range.start..range.end.min(first + UNIT));
    let tail_from = last.max(range.start);
    let has_tail = range.end > last && !(head.is_some() && first == last);
    head.into_iter().chain(has_tail.then_some(tail_from..range.end))
}

fn sum_of(unit: &[u8]) -> u32 {
    match unit.iter().all(|byte| *byte == 0) {
        true => 0,
        false => crc32c::crc32c(unit).max(1),
    }
}

impl Disk {
    fn read_units(&self, start: u64, stop: u64) -> Result<Vec<u8>> {
        let mut units = vec![0; index(stop - start)];
        read_some(&*self.content, start, &mut units)?;
        let mut sums = vec![0; index((stop - start) / UNIT * 4)];
        read_some(&*self.sums, start / UNIT * 4, &mut sums)?;
        for (number, (unit, sum)) in units.chunks(index(UNIT)).zip(sums.chunks(4)).enumerate() {
            if sum_of(unit).to_le_bytes() != *sum {
                return Err(Error::corrupt("4 KiB of the base are not as they were written")
                    .at(FileOffset(start + number as u64 * UNIT))
                    .in_file(&self.place)
                    .hint("copy the machine anew: all its points stand on this; and check the medium of the vault"));
            }
        }
        Ok(units)
    }

    /// The first run at or behind `at` whose sums say that it holds something else than zeros.
    fn next_sum(&self, at: u64) -> Result<Option<Range<u64>>> {
        /// Sums that are looked at together.
        const PAGE: u64 = 4096;
        let mut from = at / UNIT * 4;
        while let Some((start, end)) = self.sums.next_data(from)? {
            let start = (start / 4 * 4).max(from);
            let mut page = vec![0; index(PAGE.min(end.saturating_sub(start)).next_multiple_of(4))];
            if page.is_empty() {
                return Ok(None);
            }
            read_some(&*self.sums, start, &mut page)?;
            let is_set: Vec<bool> = page.chunks(4).map(|sum| sum.iter().any(|byte| *byte != 0)).collect();
            if let Some(first) = is_set.iter().position(|set| *set) {
                let count = is_set[first..].iter().take_while(|set| **set).count();
                let begin = (start / 4 + first as u64) * UNIT;
                return Ok(Some(begin.max(at)..begin + count as u64 * UNIT));
            }
            from = start + page.len() as u64;
        }
        Ok(None)
    }

    fn write(&self, at: u64, data: &[u8]) -> Result<()> {
        let sums: Vec<u8> = data.chunks(index(UNIT)).flat_map(|unit| sum_of(unit).to_le_bytes()).collect();
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.content.write_at(at, &[data])?;
        self.sums.write_at(at / UNIT * 4, &[&sums])
    }

    /// Whole units.
    fn zero(&self, start: u64, end: u64) -> Result<()> {
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        // Behind the end of the file all is zero already.
        self.content.punch(start, end - start)?;
        let (from, to) = (start / UNIT * 4, (end / UNIT * 4).min(self.sums.len()?));
        let zeros = vec![0; index(PIECE)];
        let mut at = from;
        // A sum is not on a boundary that a hole could begin at: the edges are written.
        while at < to {
            let len = (to - at).min(PIECE - at % PIECE);
            match len == PIECE {
                true => self.sums.punch(at, len)?,
                false => self.sums.write_at(at, &[&zeros[..index(len)]])?,
            }
            at += len;
        }
        Ok(())
    }
}

/// What a file has; zeros behind its end.
fn read_some(file: &dyn StoredFile, at: u64, buf: &mut [u8]) -> Result<()> {
    let there = file.len()?.saturating_sub(at).min(buf.len() as u64);
    let (have, behind) = buf.split_at_mut(index(there));
    behind.fill(0);
    if have.is_empty() { Ok(()) } else { file.read_at(at, have) }
}

fn has(storage: &dyn Storage, dir: &str, name: &str) -> Result<bool> {
    Ok(storage.list(dir)?.iter().any(|other| other == name))
}

fn read_through(storage: &dyn Storage, path: &str) -> Result<u64> {
    let mut raw = [0; 12];
    storage.open(path)?.read_at(0, &mut raw)?;
    let (number, sum) = raw.split_at(8);
    match crc32c::crc32c(number).to_le_bytes() == *sum {
        true => Ok(u64::from_le_bytes(number.try_into().unwrap_or_default())),
        false => {
            Err(Error::corrupt("up to where the base goes cannot be read").in_file(&storage.place(path)))
        }
    }
}

fn write_fold(storage: &dyn Storage, dir: &str, through: u64, patches: &Patches) -> Result<()> {
    let new = format!("{dir}/fold.new");
    storage.remove(&new)?;
    let file = storage.create(&new)?;
    let mut head = Vec::from(MAGIC.as_slice());
    head.extend_from_slice(&through.to_le_bytes());
    head.extend_from_slice(&(patches.len() as u64).to_le_bytes());
    head.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
    file.write_at(0, &[&head])?;
    let mut at = head.len() as u64;
    for ((disk, unit), content) in patches {
        let mut patch = Vec::with_capacity(PATCH);
        patch.extend_from_slice(&disk.to_le_bytes());
        patch.extend_from_slice(&unit.to_le_bytes());
        patch.extend_from_slice(content);
        patch.extend_from_slice(&crc32c::crc32c(&patch).to_le_bytes());
        file.write_at(at, &[&patch])?;
        at += PATCH as u64;
    }
    file.sync()?;
    storage.rename(&new, &format!("{dir}/fold"))?;
    storage.sync_dir(dir)
}

fn read_fold(storage: &dyn Storage, path: &str) -> Result<(u64, Patches)> {
    let damaged = || Error::corrupt("a fold that began cannot be read").in_file(&storage.place(path));
    let file = storage.open(path)?;
    let mut head = [0; 28];
    file.read_at(0, &mut head)?;
    let number = |raw: &[u8]| raw.try_into().map_or(0, u64::from_le_bytes);
    if head[..8] != *MAGIC || crc32c::crc32c(&head[..24]).to_le_bytes() != head[24..] {
        return Err(damaged());
    }
    let count = number(&head[16..24]);
    let mut patches = Patches::new();
    let mut patch = vec![0; PATCH];
    for place in 0..count {
        file.read_at(28 + place * PATCH as u64, &mut patch)?;
        let (body, sum) = patch.split_at(PATCH - 4);
        if crc32c::crc32c(body).to_le_bytes() != *sum {
            return Err(damaged());
        }
        let disk = u32::from_le_bytes(body[..4].try_into().unwrap_or_default());
        patches.insert((disk, number(&body[4..12])), body[12..].to_vec());
    }
    Ok((number(&head[8..16]), patches))
}

/// A length inside of one buffer.
fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
