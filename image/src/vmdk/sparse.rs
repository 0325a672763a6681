//! Reads any sparse extent: directory, tables, grains. What differs between the kinds is in [`Layout`].
//!
//! The directory is kept; tables and inflated grains come and go in bounded caches. The map is followed
//! lazily: a directory entry of 0 covers all grains of its table at once.
//!
//! Where a hosted extent's grain directory cannot be right (outside of the file, over the header), the redundant
//! one is used instead and the caller is told; a grain table is never replaced by its copy in silence.

use super::cache::Caches;
use super::layout::{Compression, Entries, Layout};
use super::{hosted, sesparse};
use crate::disk::{self, Disk, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::units::{Bytes, FileOffset, GuestOffset, GuestRange, SECTOR_SIZE_BYTES};
use std::sync::Arc;

/// Grain tables that one call of [`Disk::extents`] reads before it answers with what it has.
const TABLES_PER_CALL: usize = 256;

/// A sparse extent, as a disk of its own.
pub(super) struct Sparse {
    pub(super) source: Source,
    pub(super) layout: Layout,
    /// Per table 0 (absent), or what `table_offset` needs.
    pub(super) directory: Vec<u32>,
    /// Where the directory lies that is used.
    pub(super) directory_at: u64,
    /// Each table has a marker in the sector before it, as streams have.
    pub(super) marked_tables: bool,
    /// This extent's number in the image.
    number: usize,
    pub(super) caches: Arc<Caches>,
}

/// What a table says of a grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    Unallocated,
    Zero,
    /// Position in the file, not yet checked against its end.
    Stored(u64),
}

impl Sparse {
    /// Loads the directory, which takes its memory from `budget`. The second value is what must be said of it.
    pub(super) fn open(
        source: Source,
        mut layout: Layout,
        number: usize,
        caches: Arc<Caches>,
        budget: &mut Bytes,
    ) -> Result<(Sparse, Option<String>)> {
        let bytes = (layout.directory_entries as u64).saturating_mul(layout.entries.size() as u64);
        budget.0 = budget.0.checked_sub(bytes).ok_or_else(|| {
            Error::refused("the grain directories of all extents together are larger than any disk needs")
        })?;
        let primary = std::mem::replace(&mut layout.directory, Ok(FileOffset(0)));
        let first = primary.and_then(|at| Ok((load_directory(&source, &layout, at)?, at)));
        let (directory, at, note) = match (first, layout.redundant_directory) {
            (Ok((directory, at)), _) => (directory, at, None),
            (Err(error), Some(at)) if error.kind() == crate::Kind::Corrupt => {
                match load_directory(&source, &layout, at) {
                    Ok(directory) => (directory, at, Some(error.in_file(source.path()).to_string())),
                    Err(_) => return Err(error),
                }
            }
            (Err(error), _) => return Err(error),
        };
        layout.reserved.push((at.0, at.0.saturating_add(bytes)));
        let marked_tables = match layout.compression {
            Compression::Zlib { markers: true } => {
                let before = at.0.checked_sub(SECTOR_SIZE_BYTES).unwrap_or(at.0);
                let mut sector = [0; 512];
                source.read_exact_at(FileOffset(before), &mut sector)?;
                hosted::is_marker(&sector, hosted::MARKER_DIRECTORY)
            }
            _ => false,
        };
        Ok((Sparse { source, layout, directory, directory_at: at.0, marked_tables, number, caches }, note))
    }

    /// Where table `index` lies, if it is stored. Checked against the file by [`load_directory`].
    pub(super) fn table_offset(&self, index: u64) -> Option<u64> {
        let entry = usize::try_from(index).ok().and_then(|index| self.directory.get(index)).copied()?;
        table_offset(&self.layout, entry)
    }

    fn table(&self, index: u64, at: u64) -> Result<Arc<[u8]>> {
        let key = (self.number, index);
        if let Some(table) = self.caches.tables.get(key) {
            return Ok(table);
        }
        let table: Arc<[u8]> = self.load_table(index, at)?.into();
        self.caches.tables.insert(key, Arc::clone(&table));
        Ok(table)
    }

    /// Reads table `index`, which lies at `at`.
    pub(super) fn load_table(&self, index: u64, at: u64) -> Result<Vec<u8>> {
        if self.marked_tables {
            let mut sector = [0; 512];
            let before = at.saturating_sub(SECTOR_SIZE_BYTES);
            self.source.read_exact_at(FileOffset(before), &mut sector)?;
            if !hosted::is_marker(&sector, hosted::MARKER_TABLE) {
                return Err(self
                    .source
                    .corrupt(format!(
                        "grain directory entry {index} points at {at:#x}, where no grain table is"
                    ))
                    .at(FileOffset(before)));
            }
        }
        let mut table = vec![0; table_bytes(&self.layout)];
        self.source.read_exact_at(FileOffset(at), &mut table)?;
        Ok(table)
    }

    /// Where the hole of the file that holds all of the table at `at` ends, if one does: such tables say that nothing
    /// is stored, and a large empty disk consists of them.
    pub(super) fn hole_behind(&self, at: u64) -> Option<u64> {
        if self.marked_tables {
            return None;
        }
        let table_end = at.checked_add(table_bytes(&self.layout) as u64)?;
        let start = self.source.start().0;
        let found = rustix::fs::seek(self.source.file(), rustix::fs::SeekFrom::Data(start.checked_add(at)?));
        let end = match found {
            Ok(data) => data.saturating_sub(start),
            Err(rustix::io::Errno::NXIO) => u64::MAX,
            Err(_) => return None,
        };
        (end >= table_end).then_some(end)
    }

    /// What the table that lies at `at` says in entry `index`.
    pub(super) fn entry(&self, table: &[u8], at: u64, index: u64) -> Result<Grain> {
        let corrupt = |says: String| {
            self.source.corrupt(says).at(FileOffset(at + index * self.layout.entries.size() as u64))
        };
        let raw = get_entry(table, index, self.layout.entries);
        match self.layout.entries {
            Entries::Sectors { zeroed_grains } => Ok(match raw {
                0 => Grain::Unallocated,
                1 if zeroed_grains => Grain::Zero,
                sector => Grain::Stored(sector * SECTOR_SIZE_BYTES), // 32 bits: no overflow
            }),
            Entries::SeSparse { grains, grains_end, .. } => match raw >> 60 {
                0 if raw == 0 => Ok(Grain::Unallocated),
                1 | 2 => Ok(Grain::Zero),
                3 => {
                    let grain = ((raw >> 48) & 0xfff) | ((raw & 0xffff_ffff_ffff) << 12);
                    let len = self.layout.grain.0;
                    let start = grain.checked_mul(len).and_then(|at| at.checked_add(grains.0));
                    match start {
                        Some(start) if start.checked_add(len).is_some_and(|end| end <= grains_end) => {
                            Ok(Grain::Stored(start))
                        }
                        _ => Err(corrupt(format!(
                            "grain table entry {raw:#x} points outside of the grains, which end at {grains_end:#x}"
                        ))),
                    }
                }
                _ => Err(corrupt(format!("grain table entry {raw:#x} is of an unknown type"))),
            },
        }
    }

    /// A view of the tables that keeps the one it used last.
    pub(super) fn tables(&self) -> Tables<'_> {
        Tables { sparse: self, last: None }
    }

    /// The longest run from `first` on, up to `end`, that is all like its first grain; stored grains also lie in
    /// one piece if `adjacent`. Ends early where `tables` more tables were read.
    fn run(&self, first: u64, end: u64, adjacent: bool, tables: &mut usize) -> Result<(Grain, u64)> {
        let per_table = self.layout.entries_per_table;
        let mut found = None;
        let mut here = first;
        while here < end {
            let index = here / per_table;
            let table_end = end.min((index + 1) * per_table);
            let Some(at) = self.table_offset(index) else {
                match found {
                    None => found = Some(Grain::Unallocated),
                    Some(Grain::Unallocated) => {}
                    Some(grain) => return Ok((grain, here)),
                }
                here = table_end;
                continue;
            };
            if let (Some(grain), 0) = (found, *tables) {
                return Ok((grain, here));
            }
            *tables = tables.saturating_sub(1);
            let table = match self.caches.tables.get((self.number, index)) {
                Some(table) => table,
                None => match self.hole_behind(at) {
                    Some(hole_end) => {
                        if let Some(grain) = found.replace(Grain::Unallocated)
                            && grain != Grain::Unallocated
                        {
                            return Ok((grain, here));
                        }
                        let tables_end = end.div_ceil(per_table);
                        here = (self.in_hole(index, at, hole_end, tables_end) * per_table).min(end);
                        continue;
                    }
                    None => self.table(index, at)?,
                },
            };
            while here < table_end {
                let next = self.entry(&table, at, here % per_table)?;
                let same = match (*found.get_or_insert(next), next) {
                    (Grain::Stored(start), Grain::Stored(next)) => {
                        !adjacent || start.checked_add((here - first) * self.layout.grain.0) == Some(next)
                    }
                    (first, next) => first == next,
                };
                if !same {
                    return Ok((found.unwrap_or(next), here));
                }
                here += 1;
            }
        }
        Ok((found.unwrap_or(Grain::Unallocated), here))
    }

    /// The first table from `index` (which lies at `at`) up to `end` that is not in the same hole of the file.
    fn in_hole(&self, index: u64, at: u64, hole_end: u64, end: u64) -> u64 {
        let len = table_bytes(&self.layout) as u64;
        let inside = |index: &u64| {
            self.table_offset(*index).is_none_or(|here| here >= at && here.saturating_add(len) <= hole_end)
        };
        (index + 1..end).find(|index| !inside(index)).unwrap_or(end)
    }

    /// Fails unless `len` bytes of grain data can lie at `at` in the file.
    pub(super) fn check_data(&self, grain: u64, at: u64, len: u64) -> Result<()> {
        let end = at.checked_add(len).filter(|&end| end <= self.source.len().0);
        let Some(end) = end else {
            return Err(self
                .source
                .corrupt(format!(
                    "grain {grain} lies at {at:#x}, {len} bytes long; the file ends at {:#x}",
                    self.source.len().0
                ))
                .hint("the file is cut off: copy it again from its origin and compare the sizes"));
        };
        match overlapped(&self.layout, at, end) {
            Some((start, _)) => Err(self
                .source
                .corrupt(format!("grain {grain} lies at {at:#x}, over the structure at {start:#x}"))),
            None => Ok(()),
        }
    }

    fn read_verbatim(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        let grain = self.layout.grain.0;
        let end = at.0 + buf.len() as u64;
        let mut rest = buf;
        let mut here = at.0;
        while !rest.is_empty() {
            let first = here / grain;
            let (what, run_end) = self.run(first, end.div_ceil(grain), true, &mut usize::MAX.clone())?;
            let len = (run_end * grain).min(end) - here;
            let (part, behind) =
                std::mem::take(&mut rest).split_at_mut(usize::try_from(len).unwrap_or(usize::MAX));
            match what {
                Grain::Stored(start) => {
                    // Below 2^42 (32-bit sectors) or inside the checked area of a seSparse file.
                    let from = start + (here - first * grain);
                    self.check_data(first, from, len)?;
                    self.source.read_exact_at(FileOffset(from), part)?;
                }
                Grain::Zero | Grain::Unallocated => part.fill(0),
            }
            rest = behind;
            here += len;
        }
        Ok(())
    }
}

/// The tables of an extent, for one reader.
pub(super) struct Tables<'a> {
    sparse: &'a Sparse,
    /// Number, place and content of the table that was used last.
    last: Option<(u64, u64, Arc<[u8]>)>,
}

impl Tables<'_> {
    /// What is known of grain `index`.
    pub(super) fn grain(&mut self, index: u64) -> Result<Grain> {
        let per_table = self.sparse.layout.entries_per_table;
        let number = index / per_table;
        if let Some((last, at, table)) = &self.last
            && *last == number
        {
            return self.sparse.entry(table, *at, index % per_table);
        }
        let Some(at) = self.sparse.table_offset(number) else { return Ok(Grain::Unallocated) };
        let table = self.sparse.table(number, at)?;
        let grain = self.sparse.entry(&table, at, index % per_table);
        self.last = Some((number, at, table));
        grain
    }
}

impl Disk for Sparse {
    fn size(&self) -> Bytes {
        self.layout.size
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size());
        let grain = self.layout.grain.0;
        let last = range.end().0.div_ceil(grain);
        let mut out: Vec<Extent> = Vec::new();
        let mut here = range.start();
        let mut tables = TABLES_PER_CALL;
        while here < range.end() && out.len() < at_most.max(1) && (tables > 0 || out.is_empty()) {
            let (what, end) = self.run(here.0 / grain, last, false, &mut tables)?;
            let end = GuestOffset(end * grain).min(range.end());
            let kind = match what {
                Grain::Unallocated => ExtentKind::Unallocated,
                Grain::Zero => ExtentKind::Zero,
                Grain::Stored(_) => ExtentKind::Data,
            };
            out.push(Extent { range: GuestRange::between(here, end), kind });
            here = end;
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, buf.len())?;
        match self.layout.compression {
            Compression::None => self.read_verbatim(at, buf),
            Compression::Zlib { markers } => self.read_compressed(at, buf, markers),
        }
    }
}

impl Sparse {
    /// Number of this extent in the image, for cache keys.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Number of grains; the last may be cut by the end of the disk.
    pub(super) fn grains(&self) -> u64 {
        self.layout.size.0.div_ceil(self.layout.grain.0)
    }
}

pub(super) fn table_bytes(layout: &Layout) -> usize {
    // 512 or 4096 entries of 4 or 8 bytes.
    usize::try_from(layout.entries_per_table).unwrap_or(0) * layout.entries.size()
}

pub(super) fn table_offset(layout: &Layout, entry: u32) -> Option<u64> {
    match (layout.entries, entry) {
        (_, 0) => None,
        (Entries::Sectors { .. }, sector) => Some(u64::from(sector) * SECTOR_SIZE_BYTES),
        (Entries::SeSparse { tables, .. }, number) => {
            tables.0.checked_add(u64::from(number - 1) * sesparse::TABLE_BYTES)
        }
    }
}

/// Entry `index` of a table or directory, 0 behind its end.
pub(super) fn get_entry(table: &[u8], index: u64, entries: Entries) -> u64 {
    let size = entries.size();
    let at = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(size);
    let Some(raw) = table.get(at..).and_then(|rest| rest.get(..size)) else { return 0 };
    raw.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// The reserved part of the file that `start..end` meets.
pub(super) fn overlapped(layout: &Layout, start: u64, end: u64) -> Option<(u64, u64)> {
    layout.reserved.iter().copied().find(|&(from, to)| start < to && from < end)
}

/// Reads the directory at `at`. Each table that it names lies inside the file and not over a header.
pub(super) fn load_directory(source: &Source, layout: &Layout, at: FileOffset) -> Result<Vec<u32>> {
    let size = layout.entries.size();
    let table_len = table_bytes(layout) as u64;
    let total = (layout.directory_entries * size) as u64;
    let directory_end = at.0.checked_add(total).filter(|&end| end <= source.len().0);
    let Some(directory_end) = directory_end else {
        return Err(source
            .corrupt(format!(
                "the grain directory lies at {:#x}, {total} bytes long; the file ends at {:#x}",
                at.0,
                source.len().0
            ))
            .hint("the file is cut off: copy it again from its origin and compare the sizes"));
    };
    // The directory's own place is reserved once it is known; here only what the header occupies.
    let kept = match layout.entries {
        Entries::Sectors { .. } => overlapped(layout, at.0, directory_end),
        Entries::SeSparse { .. } => None,
    };
    if let Some((start, _)) = kept {
        return Err(source
            .corrupt(format!("the grain directory lies at {:#x}, over the structure at {start:#x}", at.0)));
    }
    let mut directory = Vec::with_capacity(layout.directory_entries);
    let mut chunk = vec![0; (256 << 10).min(layout.directory_entries * size)];
    while directory.len() < layout.directory_entries {
        let count = (chunk.len() / size).min(layout.directory_entries - directory.len());
        let here = at.0 + (directory.len() * size) as u64;
        let chunk = &mut chunk[..count * size];
        source.read_exact_at(FileOffset(here), chunk)?;
        for index in 0..count as u64 {
            let raw = get_entry(chunk, index, layout.entries);
            let corrupt = |says: String| source.corrupt(says).at(FileOffset(here + index * size as u64));
            let entry = directory_entry(layout, raw)
                .ok_or_else(|| corrupt(format!("grain directory entry {raw:#x} is of an unknown type")))?;
            if entry != 0 {
                let limit = match layout.entries {
                    Entries::SeSparse { tables_end, .. } => tables_end.min(source.len().0),
                    Entries::Sectors { .. } => source.len().0,
                };
                let range = table_offset(layout, entry)
                    .and_then(|start| Some((start, start.checked_add(table_len)?)))
                    .filter(|&(_, end)| end <= limit);
                let Some((start, end)) = range else {
                    return Err(corrupt(format!(
                        "grain directory entry {raw:#x} points past the end of the grain tables at {limit:#x}"
                    )));
                };
                if overlapped(layout, start, end).is_some() || (start < directory_end && at.0 < end) {
                    return Err(corrupt(format!(
                        "grain directory entry {raw:#x} points at {start:#x}, over another structure"
                    )));
                }
            }
            directory.push(entry);
        }
    }
    Ok(directory)
}

/// The kept form of a directory entry: 0 for an absent table. `None` where the entry is of no known type.
fn directory_entry(layout: &Layout, raw: u64) -> Option<u32> {
    match layout.entries {
        Entries::Sectors { .. } => u32::try_from(raw).ok(),
        Entries::SeSparse { .. } if raw == 0 => Some(0),
        Entries::SeSparse { .. } if raw >> 32 == 0x1000_0000 => {
            u32::try_from(raw & 0xffff_ffff).ok()?.checked_add(1)
        }
        Entries::SeSparse { .. } => None,
    }
}
