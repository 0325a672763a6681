//! Blocks of metadata: read once, checked, changed in memory, written together.

use super::node;
use crate::volume::field::{array, le32, le64};
use crate::{Error, Result, limits};
use landfall_image::{DiskMut, GuestOffset};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Bytes of a block.
pub const BLOCK: usize = 4096;

/// What a block is, which its checksum tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Of a thin pool.
    ThinSuperblock,
    /// Of a cache.
    CacheSuperblock,
    /// Of a tree.
    Node,
    /// Of a space map.
    Bitmap,
    /// Of the space map of metadata.
    Index,
    /// Of an array.
    Array,
}

impl Sort {
    /// The number in its checksum.
    fn salt(self) -> u32 {
        match self {
            Sort::ThinSuperblock => 160_774,
            Sort::CacheSuperblock => 9_031_977,
            Sort::Node => 121_107,
            Sort::Bitmap => 240_779,
            Sort::Index => 160_478,
            Sort::Array => 595_846_735,
        }
    }

    /// Where it keeps its own number.
    fn own_number(self) -> usize {
        if self == Sort::Array { 16 } else { 8 }
    }

    fn name(self) -> &'static str {
        match self {
            Sort::ThinSuperblock | Sort::CacheSuperblock => "superblock",
            Sort::Node => "tree node",
            Sort::Bitmap => "bitmap",
            Sort::Index => "index",
            Sort::Array => "array block",
        }
    }

    /// The checksum that `block` should have.
    fn checksum(self, block: &[u8]) -> u32 {
        !crc32c::crc32c(block.get(4..).unwrap_or_default()) ^ self.salt()
    }
}

/// The error of a block whose content is wrong.
pub fn wrong(at: u64, says: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("metadata block {at}: {says}"))
        .hint("repair it in the source machine with lvconvert --repair, then convert again")
}

/// A block in memory.
struct Held {
    sort: Sort,
    bytes: Arc<Vec<u8>>,
}

/// The blocks of one metadata volume.
pub struct Store {
    disk: Arc<dyn DiskMut>,
    held: HashMap<u64, Held>,
    /// Changed since they were written last.
    changed: BTreeSet<u64>,
}

impl Store {
    /// The blocks of `disk`.
    pub fn new(disk: Arc<dyn DiskMut>) -> Store {
        Store { disk, held: HashMap::new(), changed: BTreeSet::new() }
    }

    /// Whole blocks of the volume.
    pub fn blocks(&self) -> u64 {
        self.disk.size().0 / BLOCK as u64
    }

    /// A block that must be of this sort: its checksum, its number and, of a tree node, its order are right.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::Kind::Corrupt) where they are not; those of the disk.
    pub fn read(&mut self, at: u64, sort: Sort) -> Result<Arc<Vec<u8>>> {
        if let Some(held) = self.held.get(&at) {
            // Two owners of one block.
            return match held.sort == sort {
                true => Ok(held.bytes.clone()),
                false => Err(wrong(at, format!("used as {} and as {}", held.sort.name(), sort.name()))),
            };
        }
        if at >= self.blocks() {
            return Err(wrong(
                at,
                format!("named as a {}, but the volume ends at block {}", sort.name(), self.blocks()),
            ));
        }
        let mut bytes = vec![0; BLOCK];
        self.disk.read_at(GuestOffset(at.saturating_mul(BLOCK as u64)), &mut bytes)?;
        let (stored, counted) = (le32(&bytes, 0).unwrap_or(0), sort.checksum(&bytes));
        if stored != counted {
            return Err(wrong(
                at,
                format!(
                    "the checksum of this {} is {stored:#010x}, its content gives {counted:#010x}",
                    sort.name()
                ),
            ));
        }
        let own = le64(&bytes, sort.own_number()).unwrap_or(0);
        if own != at {
            return Err(wrong(at, format!("this {} says that it is block {own}", sort.name())));
        }
        if sort == Sort::Node {
            node::check(&bytes).map_err(|says| wrong(at, says))?;
        }
        self.make_room();
        let bytes = Arc::new(bytes);
        self.held.insert(at, Held { sort, bytes: bytes.clone() });
        Ok(bytes)
    }

    /// Changes a block in memory; its number and checksum are made right when it is written.
    pub fn put(&mut self, at: u64, sort: Sort, mut bytes: Vec<u8>) -> Result<()> {
        if at >= self.blocks() {
            return Err(wrong(at, format!("the volume ends at block {}", self.blocks())));
        }
        bytes.resize(BLOCK, 0);
        set(&mut bytes, sort.own_number(), &at.to_le_bytes());
        self.changed.insert(at);
        self.held.insert(at, Held { sort, bytes: Arc::new(bytes) });
        Ok(())
    }

    /// True for a block that was read, and so is part of something.
    pub fn is_held(&self, at: u64) -> bool {
        self.held.contains_key(&at)
    }

    /// Takes a block that is free now out of memory: it may become another sort of block.
    pub fn forget(&mut self, at: u64) {
        self.held.remove(&at);
        self.changed.remove(&at);
    }

    /// Writes what was changed.
    ///
    /// # Errors
    /// Those of the disk. The volume may then hold half of it.
    pub fn commit(&mut self) -> Result<()> {
        // The superblock, block 0, comes last.
        while let Some(at) = self.changed.pop_last() {
            let Some(held) = self.held.get_mut(&at) else { continue };
            let mut bytes = held.bytes.to_vec();
            let sum = held.sort.checksum(&bytes);
            set(&mut bytes, 0, &sum.to_le_bytes());
            self.disk.write_at(GuestOffset(at.saturating_mul(BLOCK as u64)), &bytes)?;
            held.bytes = Arc::new(bytes);
        }
        Ok(())
    }

    /// Everything written so far is seen by others.
    pub fn flush(&self) -> Result<()> {
        self.disk.flush()
    }

    fn make_room(&mut self) {
        if self.held.len() >= limits::PERSISTENT_BLOCKS {
            let changed = &self.changed;
            self.held.retain(|at, _| changed.contains(at));
        }
    }
}

/// Overwrites a field; nothing where it passes the end.
pub fn set(block: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = at.checked_add(field.len()).and_then(|end| block.get_mut(at..end)) {
        place.copy_from_slice(field);
    }
}

/// A number of 64 bits; 0 past the end, which a whole block does not have.
pub fn long(block: &[u8], at: usize) -> u64 {
    array(block, at).map(u64::from_le_bytes).unwrap_or(0)
}
