//! Cached volumes of device-mapper: blocks of a slow volume that are also, or only, on a fast one.
//!
//! Source: the kernel's `Documentation/admin-guide/device-mapper/cache.rst` and `drivers/md/dm-cache-metadata.c`.
//!
//! ```text
//! superblock (block 0 of the metadata volume; see persistent for what all blocks have)
//!   4 flags (bit 1: to be checked) · 32 magic · 40 version 1 or 2 · 192 array of mappings · 208 bits of discarded blocks
//! 216 sectors of such a block · 224 their number · 232 sectors of a block · 236 of a metadata block (8) · 240 blocks
//! 248 features for writing · 252 others
//! mappings   block of the fast volume -> block of the slow one << 16 | flags (bit 0: valid)
//! ```
//! Whatever is mapped is read from the fast volume, which is never behind the slow one, and written to both, so that nothing
//! depends on what is marked as changed. A block that is written is not discarded any more. Deliberately absent: taking
//! blocks into the cache, and out.

use super::field::{le32, le64};
use super::persistent::{BLOCK, Sort, Store, array, wrong};
use crate::{Error, Result, limits};
use landfall_image::disk::{check_bounds, clip};
use landfall_image::{Bytes, Disk, DiskMut, Extent, ExtentKind, GuestOffset, GuestRange, Sectors};
use std::sync::{Arc, Mutex, PoisonError};

/// The kernel has it with a leading zero, which makes it octal.
const MAGIC: u64 = 0o6_142_003;
const NEEDS_CHECK: u32 = 2;
const VALID: u64 = 1;
/// The kernel's bounds for a block.
const LEAST: Bytes = Bytes::kib(32);
const MOST: Bytes = Bytes::gib(1);

/// What the superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Superblock {
    mappings: u64,
    blocks: u64,
    block_size: Bytes,
    discards: u64,
    discard_size: Bytes,
    discard_blocks: u64,
}

fn parse(block: &[u8]) -> Result<Superblock> {
    let says = |says: String| Error::corrupt(format!("cache superblock: {says}"));
    let cut = || says("cut off".into());
    let word = |at: usize| le32(block, at).ok_or_else(cut);
    let long = |at: usize| le64(block, at).ok_or_else(cut);
    if long(32)? != MAGIC {
        return Err(says(format!("its magic is {:#x}, not {MAGIC:#x}", long(32)?)));
    }
    let unsupported = |says: String, hint: &str| Error::unsupported(says).hint(hint);
    let version = word(40)?;
    if !(1..=2).contains(&version) || word(248)? != 0 || word(252)? != 0 {
        return Err(unsupported(
            format!("cache metadata of version {version} with features that are not known"),
            "take the cache off in the source machine (lvconvert --uncache), then convert again",
        ));
    }
    if word(4)? & NEEDS_CHECK != 0 {
        return Err(unsupported(
            "its cache's metadata are marked to be checked: an error was met in the guest".into(),
            "repair the cache in the source machine with lvconvert --repair, then convert again",
        ));
    }
    if word(236)? != 8 {
        return Err(says(format!("blocks of metadata of {} sectors; all have 8", word(236)?)));
    }
    let block_size = Sectors(u64::from(word(232)?)).to_bytes();
    let block_size =
        block_size.filter(|size| (LEAST..=MOST).contains(size) && size.0.is_multiple_of(LEAST.0));
    let block_size = block_size.ok_or_else(|| {
        says(format!(
            "blocks of {} sectors; multiples of 64 up to 2097152 are possible",
            word(232).unwrap_or(0)
        ))
    })?;
    let blocks = u64::from(word(240)?);
    if blocks > limits::CACHE_BLOCKS {
        return Err(Error::refused(format!(
            "a cache of {blocks} blocks; up to {} are read",
            limits::CACHE_BLOCKS
        ))
        .hint("take the cache off in the source machine (lvconvert --uncache), then convert again"));
    }
    let discard_size = Sectors(long(216)?).to_bytes();
    Ok(Superblock {
        mappings: long(192)?,
        blocks,
        block_size,
        discards: long(208)?,
        discard_size: discard_size.ok_or_else(|| says("discarded blocks of more than 2^64 bytes".into()))?,
        discard_blocks: long(224)?,
    })
}

/// A cached volume as a disk.
pub(super) struct Cached {
    origin: Arc<dyn DiskMut>,
    fast: Arc<dyn DiskMut>,
    block_size: Bytes,
    /// Block of the origin and of the fast volume, in order.
    mapped: Vec<(u64, u64)>,
    discards: Mutex<Discards>,
}

/// The bits of what the guest has discarded: a block that is written must lose its own.
struct Discards {
    store: Store,
    root: u64,
    size: Bytes,
    blocks: u64,
}

/// A run inside one block.
#[derive(Clone, Copy)]
struct Run {
    at: GuestOffset,
    len: u64,
    /// Where on the fast volume.
    fast: Option<GuestOffset>,
}

impl Cached {
    /// The volume `origin` with this cache.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::Kind::Corrupt), [`Kind::Unsupported`](crate::Kind::Unsupported) and
    /// [`Kind::Refused`](crate::Kind::Refused) with a hint; those of the disks.
    pub(super) fn open(
        metadata: Arc<dyn DiskMut>,
        fast: Arc<dyn DiskMut>,
        origin: Arc<dyn DiskMut>,
    ) -> Result<Cached> {
        let mut store = Store::new(metadata);
        let superblock = parse(&store.read(0, Sort::CacheSuperblock)?)?;
        let Superblock { block_size, blocks, .. } = superblock;
        if blocks.saturating_mul(block_size.0) > fast.size().0 {
            return Err(wrong(
                0,
                format!("{blocks} blocks of {block_size} are more than the fast volume of {}", fast.size()),
            ));
        }
        let ends = origin.size().0.div_ceil(block_size.0);
        let mut mapped = Vec::new();
        array::each(&mut store, superblock.mappings, blocks, |block, value| {
            if value & VALID == 0 {
                return Ok(());
            }
            let of = value >> 16;
            if of >= ends {
                return Err(wrong(
                    superblock.mappings,
                    format!("block {block} of the cache is of block {of}; there are {ends}"),
                ));
            }
            mapped.push((of, block));
            Ok(())
        })?;
        mapped.sort_unstable();
        let twice = mapped.windows(2).find(|pair| matches!(pair, [a, b] if a.0 == b.0));
        if let Some([(of, _), _]) = twice {
            return Err(wrong(superblock.mappings, format!("block {of} is in the cache twice")));
        }
        let discards = Discards {
            store,
            root: superblock.discards,
            size: superblock.discard_size,
            blocks: superblock.discard_blocks,
        };
        Ok(Cached { origin, fast, block_size, mapped, discards: Mutex::new(discards) })
    }

    /// Bytes of a block.
    pub(super) fn block_size(&self) -> Bytes {
        self.block_size
    }

    fn runs(&self, range: GuestRange) -> impl Iterator<Item = Run> + '_ {
        let size = self.block_size.0;
        let (mut here, end) = (range.start().0, range.end().0);
        std::iter::from_fn(move || {
            if here >= end {
                return None;
            }
            let (block, inside) = (here / size, here % size);
            let next = self.mapped.partition_point(|(of, _)| *of < block);
            let (len, fast) = match self.mapped.get(next) {
                Some(&(of, at)) if of == block => {
                    let at = at.saturating_mul(size).saturating_add(inside);
                    (size - inside, Some(GuestOffset(at)))
                }
                // All up to the next one that is mapped.
                Some(&(of, _)) => (of.saturating_mul(size) - here, None),
                None => (end - here, None),
            };
            let run = Run { at: GuestOffset(here), len: len.min(end - here), fast };
            here += run.len;
            Some(run)
        })
    }

    /// Hands the parts of a buffer-sized run to `each`.
    fn each_part(
        &self,
        at: GuestOffset,
        len: usize,
        mut each: impl FnMut(Run, std::ops::Range<usize>) -> Result<()>,
    ) -> Result<()> {
        check_bounds(self.size(), at, len)?;
        let mut done = 0;
        for run in self.runs(GuestRange::new(at, Bytes(len as u64))) {
            let part = Bytes(run.len).to_usize().unwrap_or(len - done).min(len - done);
            each(run, done..done + part)?;
            done += part;
        }
        Ok(())
    }

    fn undiscard(&self, range: GuestRange) -> Result<()> {
        self.discards.lock().unwrap_or_else(PoisonError::into_inner).clear(range)
    }
}

impl Discards {
    fn clear(&mut self, range: GuestRange) -> Result<()> {
        if self.size.0 == 0 || range.is_empty() {
            return Ok(());
        }
        let end = range.end().0.div_ceil(self.size.0).min(self.blocks);
        array::clear_bits(&mut self.store, self.root, range.start().0 / self.size.0..end)?;
        self.store.commit()
    }
}

impl Disk for Cached {
    fn size(&self) -> Bytes {
        self.origin.size()
    }

    fn sector_size(&self) -> Bytes {
        self.origin.sector_size().max(self.fast.sector_size())
    }

    fn extents(&self, range: GuestRange, _: usize) -> Result<Vec<Extent>> {
        let range = clip(range, self.size());
        Ok(if range.is_empty() { Vec::new() } else { vec![Extent { range, kind: ExtentKind::Data }] })
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        self.each_part(at, buf.len(), |run, part| match run.fast {
            Some(fast) => self.fast.read_at(fast, &mut buf[part]),
            None => self.origin.read_at(run.at, &mut buf[part]),
        })
    }
}

impl DiskMut for Cached {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        self.each_part(at, data.len(), |run, part| {
            let part = data.get(part).unwrap_or_default();
            self.origin.write_at(run.at, part)?;
            run.fast.map_or(Ok(()), |fast| self.fast.write_at(fast, part))
        })?;
        self.undiscard(GuestRange::new(at, Bytes(data.len() as u64)))
    }

    fn zero_at(&self, range: GuestRange) -> Result<()> {
        let range = clip(range, self.size());
        for run in self.runs(range) {
            self.origin.zero_at(GuestRange::new(run.at, Bytes(run.len)))?;
            if let Some(fast) = run.fast {
                self.fast.zero_at(GuestRange::new(fast, Bytes(run.len)))?;
            }
        }
        self.undiscard(range)
    }

    fn flush(&self) -> Result<()> {
        self.origin.flush()?;
        self.fast.flush()?;
        self.discards.lock().unwrap_or_else(PoisonError::into_inner).store.flush()
    }
}

const _: () = assert!(BLOCK == 8 * 512, "metadata blocks have 8 sectors");

#[cfg(test)]
mod tests;
