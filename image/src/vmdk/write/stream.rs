//! streamOptimized, version 3: compressed grains in the order of the disk, for one reader that never seeks.
//!
//! What the importers of ESXi and vSphere are known to insist on, and the files that VMware's own exporters write:
//! - version 3 ("sparse VMDK version too old" otherwise), grains of 64 KiB, 512 entries per table;
//! - grains in rising order, the first on sector 128, each with its marker, none twice;
//! - every table behind its grains and behind a marker of its own, the directory behind all of them, then the footer
//!   and the end-of-stream marker; the header has no directory (`gdOffset` is -1), the footer has;
//! - tables without grains are left out: their directory entry is 0.
//!
//! Grains of zeros are not stored. One that does not get smaller is a stream of stored blocks, 129 sectors with its
//! marker, which is the most that VMware's own reader has room for.

use super::content_id::ContentId;
use super::deflate::Packer;
use super::files::Files;
use super::text::{Line, Text, file_name};
use super::{GRAIN, sectors};
use crate::create::{Adapter, CreateOptions};
use crate::error::{Error, Result};
use crate::sink::{Encoded, Piece, Placed, Receipt, Sink};
use crate::units::{Bytes, FileOffset, GuestRange, SECTOR_SIZE_BYTES, Sectors};
use crate::vmdk::field::Sector;
use crate::vmdk::hosted::{self, DIRECTORY_AT_END, ENTRIES_PER_TABLE, TABLE_SECTORS};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the first grain lies, in sectors; header and descriptor come before.
const OVERHEAD: u64 = 128;

struct Stream {
    files: Files,
    name: String,
    sectors: u64,
    packer: Packer,
    id: ContentId,
    adapter: Adapter,
    walk: Mutex<Walk>,
}

/// How far the walk over the disk has come.
struct Walk {
    /// Where the next thing goes, in sectors.
    next: u64,
    /// The table that `entries` belong to.
    table: Option<usize>,
    entries: Vec<u32>,
    /// Where each table lies, 0 for none: 8 MiB for the largest disk that VMware knows.
    directory: Vec<u32>,
}

pub(super) fn create(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    let sectors = sectors(size);
    let tables = (sectors * SECTOR_SIZE_BYTES).div_ceil(GRAIN.0).div_ceil(ENTRIES_PER_TABLE.into());
    let walk = Walk {
        next: OVERHEAD,
        table: None,
        entries: vec![0; ENTRIES_PER_TABLE as usize],
        directory: vec![0; usize::try_from(tables).unwrap_or(usize::MAX)],
    };
    let name = file_name(path)?.to_owned();
    let packer = Packer::new(GRAIN, options.level).map_err(|e| e.in_file(path))?;
    let files = Files::single(path, options)?;
    Ok(Box::new(Stream {
        files,
        name,
        sectors,
        packer,
        id: ContentId::default(),
        adapter: options.adapter.unwrap_or_default(),
        walk: walk.into(),
    }))
}

impl Stream {
    fn walk(&self) -> MutexGuard<'_, Walk> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A table entry that names sector `at`.
    fn entry(&self, at: u64) -> Result<u32> {
        u32::try_from(at).map_err(|_| {
            Error::refused("would be longer than the 2 TiB that a stream's grain tables can address")
                .in_file(Path::new(&self.name))
                .hint("choose vmdk-split or vmdk-flat, or a higher compression level")
        })
    }

    /// Writes the table that the walk has left, behind its grains.
    fn leave_table(&self, walk: &mut Walk) -> Result<()> {
        let Some(table) = walk.table.take() else { return Ok(()) };
        let at = self.entry(walk.next + 1)?;
        let mut bytes = marker(TABLE_SECTORS, hosted::MARKER_TABLE).to_vec();
        bytes.extend(walk.entries.iter().flat_map(|entry| entry.to_le_bytes()));
        self.files.write(0, walk.next * SECTOR_SIZE_BYTES, &bytes)?;
        walk.next += 1 + TABLE_SECTORS;
        walk.entries.fill(0);
        if let Some(entry) = walk.directory.get_mut(table) {
            *entry = at;
        }
        Ok(())
    }

    fn header(&self, text_sectors: u64, directory: u64) -> Sector {
        hosted::Header {
            version: 3,
            flags: hosted::FLAG_NEWLINE_TEST | hosted::FLAG_COMPRESSED | hosted::FLAG_MARKERS,
            capacity: Sectors(self.sectors),
            grain_size: Sectors(GRAIN.0 / SECTOR_SIZE_BYTES),
            descriptor_offset: Sectors(1),
            descriptor_size: Sectors(text_sectors),
            entries_per_table: ENTRIES_PER_TABLE,
            redundant_directory_offset: Sectors(0),
            directory_offset: Sectors(directory),
            overhead: Sectors(OVERHEAD),
            unclean_shutdown: false,
            compression: hosted::COMPRESSION_DEFLATE,
        }
        .render()
    }

    /// Everything behind the last table; returns where the file ends.
    fn write_tail(&self, walk: &mut Walk, text_sectors: u64) -> Result<u64> {
        self.leave_table(walk)?;
        let directory_sectors = (walk.directory.len() as u64 * 4).div_ceil(SECTOR_SIZE_BYTES);
        let at = walk.next + 1;
        self.entry(at)?;
        let mut tail = marker(directory_sectors, hosted::MARKER_DIRECTORY).to_vec();
        tail.extend(walk.directory.iter().flat_map(|entry| entry.to_le_bytes()));
        tail.resize(tail.len().next_multiple_of(512), 0);
        tail.extend(marker(1, hosted::MARKER_FOOTER));
        tail.extend(self.header(text_sectors, at));
        tail.extend(marker(0, hosted::MARKER_END));
        let start = walk.next * SECTOR_SIZE_BYTES;
        self.files.write(0, start, &tail)?;
        Ok(start + tail.len() as u64)
    }
}

/// A sector that says what follows it.
fn marker(sectors: u64, kind: u32) -> Sector {
    let mut sector = [0; 512];
    sector[..8].copy_from_slice(&sectors.to_le_bytes());
    sector[12..16].copy_from_slice(&kind.to_le_bytes());
    sector
}

impl Sink for Stream {
    fn granularity(&self) -> Bytes {
        GRAIN
    }

    fn encode(&self, range: GuestRange, content: &[u8]) -> Result<Option<Encoded>> {
        self.packer.pack(range, content).map(Some)
    }

    fn place(&self, range: GuestRange, pieces: &[Piece]) -> Result<Vec<Placed>> {
        if pieces.len() as u64 != range.len().0.div_ceil(GRAIN.0) {
            return Err(Error::refused(format!(
                "{} grains for {} bytes of the disk",
                pieces.len(),
                range.len().0
            )));
        }
        let mut walk = self.walk();
        let mut out: Vec<Placed> = Vec::with_capacity(2);
        for (index, piece) in (range.start().0 / GRAIN.0..).zip(pieces) {
            let table = usize::try_from(index / u64::from(ENTRIES_PER_TABLE)).unwrap_or(usize::MAX);
            if walk.table != Some(table) {
                self.leave_table(&mut walk)?;
                walk.table = Some(table);
            }
            let at = FileOffset(walk.next * SECTOR_SIZE_BYTES);
            let entry = self.entry(walk.next)?;
            let slot = usize::try_from(index % u64::from(ENTRIES_PER_TABLE)).unwrap_or(usize::MAX);
            if let Some(slot) = walk.entries.get_mut(slot) {
                *slot = entry;
            }
            walk.next += piece.len as u64 / SECTOR_SIZE_BYTES;
            match out.last_mut() {
                Some(last) if last.at.0 + last.len as u64 == at.0 => last.len += piece.len,
                _ => out.push(Placed { file: 0, at, len: piece.len }),
            }
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
        let text = Text {
            create_type: "streamOptimized",
            cid: self.id.get(self.sectors),
            sectors: self.sectors,
            extents: &[Line {
                access: "RDONLY",
                sectors: self.sectors,
                kind: "SPARSE",
                name: self.name.clone(),
                offset: None,
            }],
            thin: false,
            adapter: self.adapter,
        }
        .render();
        let text_sectors = (text.len() as u64).div_ceil(SECTOR_SIZE_BYTES);
        let end = self.write_tail(&mut self.walk(), text_sectors)?;
        let mut head = self.header(text_sectors, DIRECTORY_AT_END).to_vec();
        head.extend_from_slice(text.as_bytes());
        head.resize(usize::try_from(OVERHEAD * SECTOR_SIZE_BYTES).unwrap_or(0), 0);
        self.files.write(0, 0, &head)?;
        self.files.set_len(0, end)?;
        self.files.finish(&text)
    }

    fn leave(&self) {
        self.files.leave();
    }
}
