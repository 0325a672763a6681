//! The base of a machine: its disks as they were at the oldest point, one file each, with a sum for every 4 KiB.
//!
//! ```text
//! bases/00000001.raw   the content, with holes
//! bases/00000001.sum   CRC-32C of each 4 KiB, 4 bytes each, little-endian; 0: all zeros (a sum that is 0 is kept as 1)
//! bases/through        the record of the journal that the base holds all up to, and which disks it has
//! bases/fold           a move that began: up to where, and the content of all units that it changes in parts only
//! ```
//!
//! The file `through`, little-endian: record:64, for each disk its number:32 and the bytes of its content's file:64, CRC-32C of all that.
//!
//! A fold writes what a part of the journal says into the base. It can be cut off anywhere and is done again when the vault is opened:
//! units that change as a whole are in the journal, and those that change in parts were written to `fold` first, so that
//! nothing is read that may be half-written. Points behind the part do not see it: what it writes is over the base in their view.

mod fold;

pub use fold::{Part, ReadRun};

use super::storage::{Storage, StoredFile};
use landfall_image::{Error, FileOffset, Kind, Result};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Bytes that one sum is of.
pub const UNIT: u64 = UNIT_BYTES as u64;
const UNIT_BYTES: usize = 4096;
/// Bytes that are written at once, while readers wait.
const PIECE: u64 = 1 << 20;
/// Of the file `through`: more disks than a machine can have.
const THROUGH_AT_MOST: usize = 1 << 20;

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

impl Base {
    /// Opens or begins it, and tells up to which record a fold was to go that was cut off.
    ///
    /// # Errors
    /// As the storage's; corrupt where the files are not what was written.
    pub fn open(storage: &Arc<dyn Storage>, dir: &str) -> Result<(Base, Option<u64>)> {
        storage.make_dir(dir)?;
        let base = Base {
            storage: Arc::clone(storage),
            dir: dir.into(),
            through: RwLock::default(),
            disks: Mutex::default(),
        };
        let mut kept = Vec::new();
        if has(&**storage, dir, "through")? {
            let through;
            (through, kept) = base.read_through()?;
            *base.through.write().unwrap_or_else(PoisonError::into_inner) = through;
        }
        let begun = base.begun()?;
        if begun.is_none() {
            // Of disks that are gone, and of a fold that came to its end, or not to its beginning.
            for name in storage.list(dir)? {
                let is_kept = number_of(&name).map(|number| kept.contains(&number));
                if is_kept == Some(false) || name == "fold" || name.ends_with(".new") {
                    storage.remove(&base.path(&name))?;
                }
            }
        }
        Ok((base, begun))
    }

    /// The record up to which a fold goes that was cut off; `None` where none was.
    ///
    /// # Errors
    /// As the storage's; corrupt where what it wrote down first is damaged.
    pub fn begun(&self) -> Result<Option<u64>> {
        Ok(fold::begun(&*self.storage, &self.dir)?.filter(|fold| *fold > self.through()))
    }

    /// The record up to which it holds everything.
    pub fn through(&self) -> u64 {
        *self.through.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    /// `None` where nothing of the disk is in the base.
    fn disk(&self, number: u32) -> Result<Option<Arc<Disk>>> {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = disks.get(&number) {
            return Ok(known.clone());
        }
        let disk = match self.names(number).map(|name| has(&*self.storage, &self.dir, &name)) {
            [Ok(true), Ok(true)] => {
                let [content, sums] = self.names(number).map(|name| self.storage.open(&self.path(&name)));
                Some(Arc::new(self.disk_of(number, content?, sums?)))
            }
            [content, sums] => {
                content?;
                sums?;
                None
            }
        };
        disks.insert(number, disk.clone());
        Ok(disk)
    }

    fn disk_or_new(&self, number: u32) -> Result<Arc<Disk>> {
        if let Some(disk) = self.disk(number)? {
            return Ok(disk);
        }
        let file = |name: String| match has(&*self.storage, &self.dir, &name)? {
            true => self.storage.open(&self.path(&name)),
            false => self.storage.create(&self.path(&name)),
        };
        let [content, sums] = self.names(number).map(file);
        let disk = Arc::new(self.disk_of(number, content?, sums?));
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        disks.insert(number, Some(Arc::clone(&disk)));
        Ok(disk)
    }

    fn names(&self, number: u32) -> [String; 2] {
        ["raw", "sum"].map(|ending| format!("{number:08x}.{ending}"))
    }

    fn disk_of(&self, number: u32, content: Arc<dyn StoredFile>, sums: Arc<dyn StoredFile>) -> Disk {
        let place = self.storage.place(&self.path(&self.names(number)[0]));
        Disk { content, sums, gate: RwLock::new(()), place }
    }

    /// Fills `buf` with what the base holds at `at` of a disk: zeros where it holds nothing.
    ///
    /// # Errors
    /// Corrupt where the content is not what was written.
    pub fn read(&self, number: u32, at: u64, buf: &mut [u8]) -> Result<()> {
        buf.fill(0);
        let Some(disk) = self.disk(number)? else { return Ok(()) };
        let _gate = disk.gate.read().unwrap_or_else(PoisonError::into_inner);
        let (mut here, end) = (at, at + buf.len() as u64);
        while here < end {
            // Whole units around a piece of it.
            let start = here / UNIT * UNIT;
            let stop = end.div_ceil(UNIT).saturating_mul(UNIT).min(start + PIECE);
            let units = match disk.read_units(start, stop) {
                Err(error) if error.kind() == Kind::Corrupt => {
                    self.patched(number, &disk, start..stop, error)?
                }
                read => read?,
            };
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
        let Some(disk) = self.disk(disk)? else { return Ok(None) };
        let content = disk.content.next_data(at)?.map(|(start, end)| start..end);
        Ok([content, disk.next_sum(at)?].into_iter().flatten().min_by_key(|range| range.start))
    }

    /// Removes what the base has of a disk.
    fn forget(&self, disk: u32) -> Result<()> {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        disks.remove(&disk);
        self.names(disk).iter().try_for_each(|name| self.storage.remove(&self.path(name)))
    }

    /// Writes down that all up to a record is in the base, which is on the medium.
    fn set_through(&self, through: u64, gone: &[u32]) -> Result<()> {
        let mut raw = Vec::from(through.to_le_bytes());
        let names = self.storage.list(&self.dir)?;
        let numbers: BTreeSet<u32> = names.iter().filter_map(|name| number_of(name)).collect();
        for number in numbers {
            if let Some(disk) = self.disk(number)?.filter(|_| !gone.contains(&number)) {
                raw.extend_from_slice(&number.to_le_bytes());
                raw.extend_from_slice(&disk.content.len()?.to_le_bytes());
            }
        }
        raw.extend_from_slice(&crc32c::crc32c(&raw).to_le_bytes());
        // The names of new disks.
        self.storage.sync_dir(&self.dir)?;
        let new = self.path("through.new");
        self.storage.remove(&new)?;
        let file = self.storage.create(&new)?;
        file.write_at(0, &[&raw])?;
        file.sync()?;
        self.storage.rename(&new, &self.path("through"))?;
        self.storage.sync_dir(&self.dir)?;
        *self.through.write().unwrap_or_else(PoisonError::into_inner) = through;
        Ok(())
    }

    /// The record, and the disks.
    fn read_through(&self) -> Result<(u64, Vec<u32>)> {
        let damaged = |says: &str, name: &str| {
            Error::corrupt(says)
                .in_file(&self.storage.place(&self.path(name)))
                .hint("bring the file back from a copy of the vault, or copy the machine anew")
        };
        let unreadable = || damaged("up to where the base goes cannot be read", "through");
        let file = self.storage.open(&self.path("through"))?;
        let mut raw = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX).min(THROUGH_AT_MOST)];
        file.read_at(0, &mut raw)?;
        let Some((raw, sum)) = raw.split_last_chunk::<4>() else { return Err(unreadable()) };
        let Some((through, disks)) = raw.split_first_chunk::<8>() else { return Err(unreadable()) };
        if crc32c::crc32c(raw).to_le_bytes() != *sum {
            return Err(unreadable());
        }
        let mut numbers = Vec::new();
        for disk in disks.chunks_exact(12) {
            let (number, len) = disk.split_at(4);
            let number = u32::from_le_bytes(number.try_into().unwrap_or_default());
            let len = u64::from_le_bytes(len.try_into().unwrap_or_default());
            let is_whole = match self.disk(number)? {
                Some(disk) => disk.content.len()? >= len,
                None => false,
            };
            if !is_whole {
                return Err(damaged(
                    "a disk of the base is missing, or a part of it",
                    &self.names(number)[0],
                ));
            }
            numbers.push(number);
        }
        Ok((u64::from_le_bytes(*through), numbers))
    }
}

/// The disk that a file is of.
fn number_of(name: &str) -> Option<u32> {
    let (number, ending) = name.split_once('.')?;
    let is_ours = number.len() == 8 && ["raw", "sum"].contains(&ending);
    u32::from_str_radix(number, 16).ok().filter(|_| is_ours)
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

    /// Writes whole units that are read a piece at a time, by their place behind the first.
    fn write_from(
        &self,
        range: Range<u64>,
        read: &dyn Fn(u64, &mut [u8]) -> Result<()>,
        pace: &dyn Fn(u64) -> Result<()>,
    ) -> Result<()> {
        let mut buf = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(PIECE);
            buf.resize(index(len), 0);
            read(at - range.start, &mut buf)?;
            self.write(at, &buf)?;
            pace(len)?;
            at += len;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.content.sync()?;
        self.sums.sync()
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

/// A length inside of one buffer.
fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
