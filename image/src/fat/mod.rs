//! New FAT volumes, such as firmware boots from: Microsoft FAT32 File System Specification 1.03. FAT32 where the volume is large enough
//! for it, FAT16 below.
//!
//! ```text
//! sector 0  boot sector, 1 where free space is counted, 6 and 7 their copies
//! 32        file allocation table, a u32 for each cluster, twice
//!           clusters from number 2: folders (entries of 32 bytes) and files
//! ```
//!
//! Written by `hadris-fat`, whose output is the same for the same input, checked by fsck.fat in the tests; this is the one
//! file that names it. It writes on a device in memory that keeps only what is not zeros. Each file must end up in one run of
//! clusters, so that it can be found, and replaced in place, without reading the file system: what the crate does on an empty
//! volume, and is looked at again here.
//!
//! Absent on purpose: FAT12 (below 4085 clusters), reading and changing volumes that exist, files as disks.

use crate::composed::Composed;
use crate::error::{Error, Result};
use crate::units::{Bytes, GuestOffset, GuestRange};
use hadris_fat::sync::FatFs;
use hadris_fat::{FatKind, VolumeLabel};
use hadris_fs::{Content, DateTime, MountOptions, Node, Resolve, Tree};
use hadris_io::{Error as DeviceError, ErrorType};
use hadris_storage::sync::BlockDevice;
use hadris_storage::{BlockIndex, BlockSize};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

/// Sectors of the volume.
const SECTOR: Bytes = Bytes(512);

/// The smallest volume that has the 65525 clusters of FAT32, with its tables.
const FAT32_FROM: Bytes = Bytes::mib(33);

/// The same as the crate has it.
const SECTOR_BLOCK: BlockSize = BlockSize::new(512).expect("more than none");

/// What the device in memory keeps or does not: a power of two.
const CHUNK: Bytes = Bytes::kib(16);

/// How a volume is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FatOptions {
    /// All of the volume: whole sectors of 512 bytes, from 4 MiB to 2 TiB. From 33 MiB on it is FAT32.
    pub size: Bytes,
    /// The serial number, which is its identity (`1234-ABCD`).
    pub serial: u32,
    /// At most 11 characters, kept in upper case; none where empty.
    pub label: String,
    /// Sectors of the disk before the volume.
    pub hidden_sectors: u32,
    /// Of every file and folder: seconds since 1970, UTC. Before 1980 counts as 1980-01-01, odd seconds as even.
    pub time: u32,
}

/// A volume that is to be written.
#[derive(Debug)]
pub struct FatVolume {
    options: FatOptions,
    label: Option<VolumeLabel>,
    tree: Tree,
    files: BTreeSet<String>,
}

/// A volume that was written.
#[derive(Clone, Debug)]
pub struct FatImage {
    /// Its bytes; where nothing lies there are zeros that take no memory.
    pub disk: Arc<Composed>,
    /// Where each file lies, from the volume's beginning, by its path as it was given. Empty for an empty file.
    pub files: BTreeMap<String, GuestRange>,
}

impl FatVolume {
    /// An empty volume.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) for a label or a size that cannot be.
    pub fn new(options: FatOptions) -> Result<FatVolume> {
        if !options.size.0.is_multiple_of(SECTOR.0) {
            return Err(refused(&options, "not whole sectors of 512"));
        }
        let label = (!options.label.is_empty()).then(|| VolumeLabel::new(&options.label)).transpose();
        let label = label.map_err(|_| {
            Error::refused(format!("{:?} cannot be the label of a FAT volume", options.label))
                .hint("use at most 11 letters, digits, spaces, '-' and '_'")
        })?;
        Ok(FatVolume { options, label, tree: Tree::new(), files: BTreeSet::new() })
    }

    /// Adds a file at a path of names between `/`, and the folders on the way.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) where something else has the path, in whatever case, where it is no path, and
    /// for 4 GiB or more.
    pub fn file(&mut self, path: &str, content: Vec<u8>) -> Result<()> {
        let cannot = |why: &str| Error::refused(format!("cannot put {path:?} on a FAT volume: {why}"));
        if u32::try_from(content.len()).is_err() {
            return Err(cannot("a file of 4 GiB or more"));
        }
        if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
            return Err(cannot("not a path of names between '/'"));
        }
        self.tree.insert(path, Node::file(Content::bytes(content))).map_err(|e| cannot(e.message()))?;
        self.files.insert(path.to_owned());
        Ok(())
    }

    /// Writes the volume.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) for a size that FAT does not reach, files that do not fit, names that FAT
    /// cannot store or that differ in their case only.
    pub fn finish(self) -> Result<FatImage> {
        let FatVolume { options, label, tree, files } = self;
        let time = DateTime::from_unix_seconds(i64::from(options.time))
            .map_err(|_| refused(&options, "a time that cannot be"))?;
        let kind = if options.size < FAT32_FROM { FatKind::Fat16 } else { FatKind::Fat32 };
        let mut layout = hadris_fat::FatOptions::new()
            .with_kind(kind)
            .with_size(options.size.0)
            .with_serial(options.serial)
            .with_time(time)
            .with_partition_offset(u64::from(options.hidden_sectors) * SECTOR.0);
        if let Some(label) = label {
            layout = layout.with_label(label);
        }
        let mut memory = Memory { size: options.size, chunks: BTreeMap::new() };
        hadris_fat::sync::write(&mut memory, &tree, &layout)
            .map_err(|e| refused(&options, &e.to_string()))?;
        drop(tree);
        let mut volume = FatFs::mount(&mut memory, MountOptions::new().read_only())
            .map_err(|e| refused(&options, &e.into_error().to_string()))?;
        let files = files
            .into_iter()
            .map(|path| place(&mut volume, &path).map(|range| (path, range)))
            .collect::<Result<_>>()?;
        drop(volume);
        Ok(FatImage { disk: Arc::new(memory.into_disk()?), files })
    }
}

fn refused(options: &FatOptions, why: &str) -> Error {
    Error::refused(format!("cannot make a FAT volume of {} bytes: {why}", options.size.0))
}

/// Where a file lies.
fn place(volume: &mut FatFs<&mut Memory>, path: &str) -> Result<GuestRange> {
    let cannot =
        |why: &str| Error::io(format!("cannot find {path:?} again: {why}"), std::io::ErrorKind::Other.into());
    let node = volume.resolve(path.as_bytes(), Resolve::default()).map_err(|e| cannot(&e.to_string()))?;
    let mut runs = [hadris_fs::Extent::new(0, 0); 2];
    let count = volume.extents(node, 0, &mut runs).map_err(|e| cannot(&e.to_string()))?;
    volume.forget(node, 1);
    match (count, runs) {
        (0, _) => Ok(GuestRange::default()),
        (1, [run, _]) => Ok(GuestRange::new(GuestOffset(run.offset()), Bytes(run.len()))),
        _ => Err(cannot("it is in pieces")),
    }
}

/// A device that keeps the chunks that were ever other than zeros.
#[derive(Debug)]
struct Memory {
    size: Bytes,
    chunks: BTreeMap<u64, Vec<u8>>,
}

impl Memory {
    /// Calls `each` for the part of every chunk that `len` bytes from `first` on touch: its number, where in the chunk, and
    /// where in the bytes.
    fn parts(
        first: BlockIndex,
        len: usize,
        mut each: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>),
    ) {
        let (mut at, mut done) = (first.get().saturating_mul(SECTOR.0), 0);
        while done < len {
            let inside = index(at % CHUNK.0);
            let now = (index(CHUNK.0) - inside).min(len - done);
            each(at / CHUNK.0, inside..inside + now, done..done + now);
            at += now as u64;
            done += now;
        }
    }

    /// What was written, with chunks that are neighbours as one piece.
    fn into_disk(self) -> Result<Composed> {
        let mut disk = Composed::new(self.size);
        let mut run: Option<(u64, Vec<u8>)> = None;
        for (number, chunk) in self.chunks {
            let at = number * CHUNK.0;
            match &mut run {
                Some((start, bytes)) if *start + bytes.len() as u64 == at => bytes.extend(chunk),
                _ => {
                    if let Some((start, bytes)) = run.replace((at, chunk)) {
                        disk.put(GuestOffset(start), bytes)?;
                    }
                }
            }
        }
        if let Some((start, mut bytes)) = run {
            // The last chunk may be longer than the volume.
            bytes.truncate(index(self.size.0.saturating_sub(start)));
            disk.put(GuestOffset(start), bytes)?;
        }
        Ok(disk)
    }
}

impl ErrorType for Memory {
    type Error = Infallible;
}

impl BlockDevice for Memory {
    fn block_size(&self) -> BlockSize {
        SECTOR_BLOCK
    }

    fn block_count(&self) -> u64 {
        self.size.0 / SECTOR.0
    }

    fn writable(&self) -> bool {
        true
    }

    fn read_blocks(&mut self, first: BlockIndex, buf: &mut [u8]) -> Result<(), DeviceError<Infallible>> {
        Memory::parts(first, buf.len(), |number, inside, part| match self.chunks.get(&number) {
            Some(chunk) => buf[part].copy_from_slice(&chunk[inside]),
            None => buf[part].fill(0),
        });
        Ok(())
    }

    fn write_blocks(&mut self, first: BlockIndex, buf: &[u8]) -> Result<(), DeviceError<Infallible>> {
        Memory::parts(first, buf.len(), |number, inside, part| {
            let bytes = &buf[part];
            if let Some(chunk) = self.chunks.get_mut(&number) {
                chunk[inside].copy_from_slice(bytes);
            } else if bytes.iter().any(|byte| *byte != 0) {
                let chunk = self.chunks.entry(number).or_insert_with(|| vec![0; index(CHUNK.0)]);
                chunk[inside].copy_from_slice(bytes);
            }
        });
        Ok(())
    }
}

/// A position in a chunk or in bytes that are there.
fn index(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
