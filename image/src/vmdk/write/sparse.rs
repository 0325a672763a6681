//! Hosted sparse extents: one with the descriptor inside, or many with it beside them.
//!
//! Directories and tables of the whole extent lie before the first grain, twice, as VMware and QEMU expect of
//! a file that is to be written to. Tables are written out as soon as the walk over the disk has left them; those
//! that nothing is stored of stay holes.

use super::content_id::ContentId;
use super::files::{Files, stem};
use super::flat::split_names;
use super::text::{Line, Text, file_name};
use super::{GRAIN, SPLIT, sectors};
use crate::create::{Adapter, CreateOptions};
use crate::error::{Error, Result};
use crate::sink::{Piece, Placed, Receipt, Sink};
use crate::units::{Bytes, FileOffset, GuestRange, SECTOR_SIZE_BYTES, Sectors};
use crate::vmdk::hosted::{self, ENTRIES_PER_TABLE, TABLE_SECTORS};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sectors of an embedded descriptor: room to edit it in place.
const DESCRIPTOR_SECTORS: u64 = 20;

/// Grains start on a multiple of this many sectors, whatever their size.
const ALIGNMENT_SECTORS: u64 = 128;

/// Entries of a directory that are written at once.
const DIRECTORY_PIECE: u64 = 1 << 16;

/// Into which files the disk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Monolithic,
    Split,
}

/// Where things lie in an extent, in sectors.
#[derive(Clone, Copy, Debug)]
struct Plan {
    capacity: u64,
    grain: u64,
    /// Where the descriptor lies, or 0, and its length.
    descriptor: (u64, u64),
    tables: u64,
    redundant_directory: u64,
    redundant_tables: u64,
    directory: u64,
    tables_at: u64,
    /// Where the first grain may lie.
    overhead: u64,
}

impl Plan {
    fn new(capacity: u64, grain: u64, embedded: bool) -> Plan {
        let descriptor = if embedded { (1, DESCRIPTOR_SECTORS) } else { (0, 0) };
        let tables = capacity.div_ceil(grain).div_ceil(u64::from(ENTRIES_PER_TABLE));
        let directory_sectors = (tables * 4).div_ceil(SECTOR_SIZE_BYTES);
        let redundant_directory = 1 + descriptor.1;
        let redundant_tables = redundant_directory + directory_sectors;
        let directory = redundant_tables + tables * TABLE_SECTORS;
        let tables_at = directory + directory_sectors;
        let overhead = (tables_at + tables * TABLE_SECTORS).next_multiple_of(grain.max(ALIGNMENT_SECTORS));
        Plan {
            capacity,
            grain,
            descriptor,
            tables,
            redundant_directory,
            redundant_tables,
            directory,
            tables_at,
            overhead,
        }
    }

    fn header(&self) -> hosted::Header {
        hosted::Header {
            version: 1,
            flags: hosted::FLAG_NEWLINE_TEST | hosted::FLAG_REDUNDANT_TABLES,
            capacity: Sectors(self.capacity),
            grain_size: Sectors(self.grain),
            descriptor_offset: Sectors(self.descriptor.0),
            descriptor_size: Sectors(self.descriptor.1),
            entries_per_table: ENTRIES_PER_TABLE,
            redundant_directory_offset: Sectors(self.redundant_directory),
            directory_offset: Sectors(self.directory),
            overhead: Sectors(self.overhead),
            unclean_shutdown: false,
            compression: 0,
        }
    }
}

struct Sparse {
    files: Files,
    shape: Shape,
    grain: u64,
    /// Bytes of the disk in each extent but the last.
    step: u64,
    sectors: u64,
    names: Vec<String>,
    id: ContentId,
    adapter: Adapter,
    walk: Mutex<Walk>,
}

/// How far the walk over the disk has come.
struct Walk {
    /// The extent, and the table of it, that `entries` belong to.
    table: Option<(usize, u64)>,
    entries: Vec<u8>,
    /// Where each extent's file ends, in sectors.
    ends: Vec<u64>,
}

pub(super) fn create(
    path: &Path,
    size: Bytes,
    shape: Shape,
    options: &CreateOptions,
) -> Result<Box<dyn Sink>> {
    let name = file_name(path)?;
    let grain = options.block_size.unwrap_or(GRAIN).0;
    let sectors = sectors(size);
    let len = sectors * SECTOR_SIZE_BYTES;
    let (step, names, files) = match shape {
        Shape::Monolithic => {
            let step = len.next_multiple_of(grain);
            (step, vec![name.to_owned()], Files::single(path, options)?)
        }
        Shape::Split => {
            let step = SPLIT.0 / grain * grain;
            let names = split_names(path, stem(name), 's', len.div_ceil(step))?;
            let files = Files::described(path, names.iter().map(String::as_str), options.files)?;
            (step, names, files)
        }
    };
    let walk = Walk {
        table: None,
        entries: vec![0; usize::try_from(TABLE_SECTORS * SECTOR_SIZE_BYTES).unwrap_or(0)],
        ends: Vec::new(),
    };
    let mut sparse = Sparse {
        files,
        shape,
        grain,
        step,
        sectors,
        names,
        id: ContentId::default(),
        adapter: options.adapter.unwrap_or_default(),
        walk: walk.into(),
    };
    let mut ends = Vec::with_capacity(sparse.names.len());
    for number in 0..sparse.names.len() {
        let plan = sparse.plan(number);
        if plan.overhead > u64::from(u32::MAX) {
            return Err(too_long(path));
        }
        // Tables of a resumed file may be of a run that was cut elsewhere.
        sparse.files.clear(number, 0, plan.overhead * SECTOR_SIZE_BYTES, false)?;
        sparse.write_head(number, &plan)?;
        ends.push(plan.overhead);
    }
    sparse.walk.get_mut().unwrap_or_else(PoisonError::into_inner).ends = ends;
    Ok(Box::new(sparse))
}

fn too_long(path: &Path) -> Error {
    Error::refused("would be longer than the 2 TiB that a sparse extent's grain tables can address")
        .in_file(path)
        .hint("choose vmdk-split, whose files stay small, or vmdk-flat")
}

impl Sparse {
    fn plan(&self, number: usize) -> Plan {
        let start = self.step.saturating_mul(number as u64) / SECTOR_SIZE_BYTES;
        let capacity = self.sectors.saturating_sub(start).min(self.step / SECTOR_SIZE_BYTES);
        Plan::new(capacity, self.grain / SECTOR_SIZE_BYTES, self.shape == Shape::Monolithic)
    }

    fn walk(&self) -> MutexGuard<'_, Walk> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The header and both directories, which name all tables from the start.
    fn write_head(&self, number: usize, plan: &Plan) -> Result<()> {
        self.files.write(number, 0, &plan.header().render())?;
        for (directory, tables) in
            [(plan.redundant_directory, plan.redundant_tables), (plan.directory, plan.tables_at)]
        {
            let mut first = 0;
            while first < plan.tables {
                let end = plan.tables.min(first + DIRECTORY_PIECE);
                let mut piece = Vec::with_capacity(usize::try_from((end - first) * 4).unwrap_or(0));
                for table in first..end {
                    piece.extend_from_slice(&sector32(tables + table * TABLE_SECTORS)?);
                }
                self.files.write(number, directory * SECTOR_SIZE_BYTES + first * 4, &piece)?;
                first = end;
            }
        }
        Ok(())
    }

    /// Writes the table that the walk has left, and its copy.
    fn leave_table(&self, walk: &mut Walk) -> Result<()> {
        let Some((number, table)) = walk.table.take() else { return Ok(()) };
        let plan = self.plan(number);
        for tables in [plan.redundant_tables, plan.tables_at] {
            self.files.write(number, (tables + table * TABLE_SECTORS) * SECTOR_SIZE_BYTES, &walk.entries)?;
        }
        walk.entries.fill(0);
        Ok(())
    }

    /// Takes the next grain of the file for grain `index` of the extent; returns where it lies.
    fn take(&self, walk: &mut Walk, number: usize, index: u64) -> Result<u64> {
        let per_table = u64::from(ENTRIES_PER_TABLE);
        let table = (number, index / per_table);
        if walk.table != Some(table) {
            self.leave_table(walk)?;
            walk.table = Some(table);
        }
        let end =
            walk.ends.get_mut(number).ok_or_else(|| Error::refused("a run behind the end of the disk"))?;
        let at = *end;
        let name = self.names.get(number).map_or("", String::as_str);
        let entry = sector32(at).map_err(|_| too_long(Path::new(name)))?;
        *end = at + self.grain / SECTOR_SIZE_BYTES;
        let slot = usize::try_from(index % per_table).unwrap_or(0) * 4;
        if let Some(slot) = walk.entries.get_mut(slot..slot + 4) {
            slot.copy_from_slice(&entry);
        }
        Ok(at * SECTOR_SIZE_BYTES)
    }
}

/// A sector number as tables hold it.
fn sector32(sector: u64) -> Result<[u8; 4]> {
    u32::try_from(sector).map(u32::to_le_bytes).map_err(|_| Error::refused("a sector number past 2 TiB"))
}

impl Sink for Sparse {
    fn further_files(&self) -> Vec<PathBuf> {
        self.files.further()
    }

    fn granularity(&self) -> Bytes {
        Bytes(self.grain)
    }

    fn place(&self, range: GuestRange, _pieces: &[Piece]) -> Result<Vec<Placed>> {
        let mut walk = self.walk();
        let mut out: Vec<Placed> = Vec::with_capacity(1);
        let mut here = range.start().0;
        while here < range.end().0 {
            let number = usize::try_from(here / self.step).unwrap_or(usize::MAX);
            let at = self.take(&mut walk, number, here % self.step / self.grain)?;
            let part = self.grain.min(range.end().0 - here);
            let len = usize::try_from(part).unwrap_or(usize::MAX);
            match out.last_mut() {
                Some(last) if last.file == number && last.at.0 + last.len as u64 == at => last.len += len,
                _ => out.push(Placed { file: number, at: FileOffset(at), len }),
            }
            if part < self.grain {
                // The disk ends in this grain; an interrupted run may have left something behind its end.
                self.files.write_zeros(number, at + part, self.grain - part)?;
            }
            here += part;
        }
        Ok(out)
    }

    fn zero(&self, _range: GuestRange) -> Result<()> {
        Ok(())
    }

    fn store(&self, to: Placed, bytes: &[u8]) -> Result<()> {
        self.files.store(to, bytes)
    }

    fn load(&self, from: Placed, bytes: &mut [u8]) -> Result<()> {
        self.files.load(from, bytes)
    }

    fn identify(&self, digest: blake3::Hash) {
        self.id.set(digest);
    }

    fn finish(self: Box<Self>) -> Result<Receipt> {
        let mut walk = self.walk();
        self.leave_table(&mut walk)?;
        for (number, end) in walk.ends.iter().enumerate() {
            self.files.set_len(number, end * SECTOR_SIZE_BYTES)?;
        }
        drop(walk);
        let line = |(number, name): (usize, &String)| Line {
            access: "RW",
            sectors: self.plan(number).capacity,
            kind: "SPARSE",
            name: name.clone(),
            offset: None,
        };
        let extents: Vec<Line> = self.names.iter().enumerate().map(line).collect();
        let text = Text {
            create_type: match self.shape {
                Shape::Monolithic => "monolithicSparse",
                Shape::Split => "twoGbMaxExtentSparse",
            },
            cid: self.id.get(self.sectors),
            sectors: self.sectors,
            extents: &extents,
            thin: false,
            adapter: self.adapter,
        }
        .render();
        if self.shape == Shape::Monolithic {
            // `clear` left zeros behind it.
            self.files.write(0, SECTOR_SIZE_BYTES, text.as_bytes())?;
        }
        self.files.finish(&text)
    }

    fn leave(&self) {
        self.files.leave();
    }
}
