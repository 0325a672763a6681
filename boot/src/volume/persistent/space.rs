//! Which blocks are in use, and by how many.

use super::node::Value;
use super::store::{BLOCK, Sort, Store, long, set, wrong};
use super::tree::{Tree, find};
use crate::volume::field::{le32, le64};
use crate::{Error, Result};

const HEADER: usize = 16;
/// Blocks that one bitmap counts.
const PER_BITMAP: u64 = (BLOCK as u64 - HEADER as u64) * 4;
/// Entries of the one block that is the index of metadata.
const INDEX_ENTRIES: u64 = 255;

/// Of what blocks are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The metadata volume's own.
    Metadata,
    /// The data volume's.
    Data,
}

/// Where a space map begins, as a superblock has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Blocks that are counted.
    pub blocks: u64,
    /// Of these, in use.
    pub used: u64,
    index: u64,
    counts: u64,
}

impl Roots {
    /// Bytes in a superblock.
    const LEN: usize = 32;

    /// From the field of a superblock at `at`.
    pub fn parse(block: &[u8], at: usize) -> Roots {
        let number = |index: usize| long(block, at + index * 8);
        Roots { blocks: number(0), used: number(1), index: number(2), counts: number(3) }
    }

    /// Into the field of a superblock at `at`.
    pub fn store(&self, block: &mut [u8], at: usize) {
        let mut field = Vec::with_capacity(Roots::LEN);
        for number in [self.blocks, self.used, self.index, self.counts] {
            field.extend(number.to_le_bytes());
        }
        set(block, at, &field);
    }
}

/// One space map.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// As they are now.
    pub roots: Roots,
    /// The bitmap where a free block was found last.
    last: u64,
}

impl Space {
    fn new(roots: Roots) -> Space {
        Space { roots, last: 0 }
    }
}

/// One entry of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    bitmap: u64,
    free: u32,
    none_free_before: u32,
}

impl Entry {
    fn parse(raw: &[u8]) -> Option<Entry> {
        Some(Entry { bitmap: le64(raw, 0)?, free: le32(raw, 8)?, none_free_before: le32(raw, 12)? })
    }

    fn bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        set(&mut out, 0, &self.bitmap.to_le_bytes());
        set(&mut out, 8, &self.free.to_le_bytes());
        set(&mut out, 12, &self.none_free_before.to_le_bytes());
        out
    }
}

/// The metadata of a pool: its blocks, and the counts of its own blocks and of those of data.
pub struct Metadata {
    /// The blocks.
    pub store: Store,
    metadata: Space,
    data: Space,
}

impl Metadata {
    /// Takes the space maps that a superblock names.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::Kind::Corrupt) where they count more than there is.
    pub fn new(store: Store, metadata: Roots, data: Roots, data_blocks: u64) -> Result<Metadata> {
        for (what, roots, most) in [("metadata", metadata, store.blocks()), ("data", data, data_blocks)] {
            if roots.blocks > most {
                return Err(wrong(
                    0,
                    format!("{} blocks of {what} are counted; the volume has {most}", roots.blocks),
                ));
            }
        }
        if metadata.blocks.div_ceil(PER_BITMAP) > INDEX_ENTRIES {
            return Err(wrong(
                0,
                format!("{} blocks of metadata, more than can be counted", metadata.blocks),
            ));
        }
        Ok(Metadata { store, metadata: Space::new(metadata), data: Space::new(data) })
    }

    /// The roots as they are now.
    pub fn roots(&self, which: Which) -> Roots {
        match which {
            Which::Metadata => self.metadata.roots,
            Which::Data => self.data.roots,
        }
    }

    fn space(&mut self, which: Which) -> &mut Space {
        match which {
            Which::Metadata => &mut self.metadata,
            Which::Data => &mut self.data,
        }
    }

    fn entry(&mut self, which: Which, bitmap: u64) -> Result<Entry> {
        let root = self.roots(which).index;
        let absent = || wrong(root, format!("the index of a space map lacks bitmap {bitmap}"));
        let found = match which {
            Which::Metadata => {
                let block = self.store.read(root, Sort::Index)?;
                let at = index_place(bitmap).ok_or_else(absent)?;
                block.get(at..).and_then(Entry::parse)
            }
            Which::Data => {
                let found = find(&mut self.store, root, bitmap, Tree::INDEX.value_size)?;
                found.value.as_ref().and_then(|value| Entry::parse(value))
            }
        };
        found.ok_or_else(absent)
    }

    fn set_entry(&mut self, which: Which, bitmap: u64, entry: Entry) -> Result<()> {
        let root = self.roots(which).index;
        match which {
            Which::Metadata => {
                let mut block = self.store.read(root, Sort::Index)?.to_vec();
                if let Some(at) = index_place(bitmap) {
                    set(&mut block, at, &entry.bytes());
                }
                self.store.put(root, Sort::Index, block)
            }
            Which::Data => {
                let (root, _) = self.insert(Tree::INDEX, root, bitmap, &entry.bytes())?;
                self.data.roots.index = root;
                Ok(())
            }
        }
    }

    /// How many use a block.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::Kind::Corrupt) where the space map is damaged, or has no such block.
    pub fn count(&mut self, which: Which, block: u64) -> Result<u32> {
        let roots = self.roots(which);
        if block >= roots.blocks {
            let what = if which == Which::Data { "data" } else { "metadata" };
            return Err(wrong(0, format!("block {block} of {what} is in use; there are {}", roots.blocks)));
        }
        let entry = self.entry(which, block / PER_BITMAP)?;
        let bits = bits(&self.store.read(entry.bitmap, Sort::Bitmap)?, block % PER_BITMAP);
        if bits < 3 {
            return Ok(bits);
        }
        let found: Option<Value> = find(&mut self.store, roots.counts, block, Tree::COUNTS.value_size)?.value;
        let count = found.and_then(|value| le32(&value, 0)).filter(|&count| count >= 3);
        count.ok_or_else(|| wrong(roots.counts, format!("the tree of counts lacks block {block}")))
    }

    /// Counts one more (1) or one less (-1) user of a block.
    ///
    /// # Errors
    /// As [`count`](Self::count), and where the count cannot change so.
    pub fn change(&mut self, which: Which, block: u64, by: i32) -> Result<()> {
        let old = self.count(which, block)?;
        let new = old
            .checked_add_signed(by)
            .ok_or_else(|| wrong(0, format!("block {block} is counted {old} times, and lost a user")))?;
        let bitmap = block / PER_BITMAP;
        let mut entry = self.entry(which, bitmap)?;
        if old.min(3) != new.min(3) {
            let mut raw = self.store.read(entry.bitmap, Sort::Bitmap)?.to_vec();
            set_bits(&mut raw, block % PER_BITMAP, new.min(3));
            self.store.put(entry.bitmap, Sort::Bitmap, raw)?;
        }
        let counts = self.roots(which).counts;
        if new >= 3 {
            let (root, _) = self.insert(Tree::COUNTS, counts, block, &new.to_le_bytes())?;
            self.space(which).roots.counts = root;
        } else if old >= 3 {
            self.space(which).roots.counts = self.remove(Tree::COUNTS, counts, block)?;
        }
        let place = u32::try_from(block % PER_BITMAP).unwrap_or(u32::MAX);
        let roots = &mut self.space(which).roots;
        if old == 0 && new > 0 {
            entry.free = entry.free.saturating_sub(1);
            if entry.none_free_before == place {
                entry.none_free_before = place.saturating_add(1);
            }
            roots.used = roots.used.saturating_add(1);
        } else if old > 0 && new == 0 {
            entry.free = entry.free.saturating_add(1);
            entry.none_free_before = entry.none_free_before.min(place);
            roots.used = roots.used.saturating_sub(1);
        } else {
            return Ok(());
        }
        self.set_entry(which, bitmap, entry)
    }

    /// Takes a free block of data, which then has one user; `None` where none is free.
    ///
    /// # Errors
    /// As [`count`](Self::count).
    pub fn allocate(&mut self, which: Which) -> Result<Option<u64>> {
        let Space { roots, last } = *self.space(which);
        let bitmaps = roots.blocks.div_ceil(PER_BITMAP);
        for step in 0..bitmaps {
            let bitmap = (last % bitmaps).saturating_add(step) % bitmaps;
            let entry = self.entry(which, bitmap)?;
            if entry.free == 0 {
                continue;
            }
            let first = bitmap.saturating_mul(PER_BITMAP);
            let end = PER_BITMAP.min(roots.blocks - first);
            let raw = self.store.read(entry.bitmap, Sort::Bitmap)?;
            if let Some(place) =
                (u64::from(entry.none_free_before)..end).find(|&place| bits(&raw, place) == 0)
            {
                let block = first + place;
                self.space(which).last = bitmap;
                self.change(which, block, 1)?;
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// Takes a free block of metadata.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) where none is free; as [`count`](Self::count).
    pub fn allocate_block(&mut self) -> Result<u64> {
        let blocks = self.metadata.roots.blocks;
        let block = self.allocate(Which::Metadata)?.ok_or_else(|| {
            Error::refused(format!(
                "the pool's metadata volume is full: {blocks} blocks of {BLOCK} bytes are in use"
            ))
            .hint("make it larger in the running guest (lvextend --poolmetadatasize), then convert again")
        })?;
        // The superblock, and whatever was found by following pointers.
        if block == 0 || self.store.is_held(block) {
            return Err(wrong(block, "in use, but counted as free"));
        }
        Ok(block)
    }
}

fn index_place(bitmap: u64) -> Option<usize> {
    let number = usize::try_from(bitmap).ok().filter(|_| bitmap < INDEX_ENTRIES)?;
    Some(HEADER + number * 16)
}

/// The two bits of a block, the higher one first.
fn bits(bitmap: &[u8], place: u64) -> u32 {
    let byte = usize::try_from(place / 4).ok().and_then(|at| bitmap.get(HEADER + at)).copied().unwrap_or(0);
    let pair = byte >> (place % 4 * 2) & 3;
    u32::from((pair & 1) << 1 | pair >> 1)
}

fn set_bits(bitmap: &mut [u8], place: u64, bits: u32) {
    let pair = match bits {
        0 => 0,
        1 => 2,
        2 => 1,
        _ => 3,
    };
    let shift = place % 4 * 2;
    if let Some(byte) = usize::try_from(place / 4).ok().and_then(|at| bitmap.get_mut(HEADER + at)) {
        *byte = *byte & !(3 << shift) | pair << shift;
    }
}
