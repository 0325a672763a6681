//! Room in a new file, and the reference counts of what is taken.
//!
//! Clusters are handed out in rising order and each is referenced once, but for those that compressed clusters share
//! and the few that stay free between them. So the counts need no memory: a block of counts is written as soon as
//! nothing behind it can change, and only the blocks with compressed clusters that are still open are kept.

use super::layout::Layout;
use crate::error::Result;
use crate::partial::PartialFile;
use crate::units::FileOffset;
use std::collections::BTreeMap;

/// Room for packed clusters is taken in pieces of this size, so that verbatim clusters in between do not leave gaps.
const REGION: u64 = 1 << 20;

/// What is taken of the file, and by what.
#[derive(Debug)]
pub(super) struct Space {
    layout: Layout,
    /// The first cluster that is not taken.
    next: u64,
    /// The free rest of the newest region for packed clusters, in bytes.
    region_at: u64,
    region_end: u64,
    /// The clusters that hold the blocks of counts, in their order: the refcount table.
    blocks: Vec<u64>,
    /// Blocks that are written.
    written: u64,
    /// Counts in blocks that are not written, where they are not all 1.
    open: BTreeMap<u64, Vec<u16>>,
}

impl Space {
    /// A file in which nothing is taken.
    pub fn new(layout: Layout) -> Space {
        Space {
            layout,
            next: 0,
            region_at: 0,
            region_end: 0,
            blocks: Vec::new(),
            written: 0,
            open: BTreeMap::new(),
        }
    }

    /// Takes `count` clusters in a row. Returns the first one.
    pub fn take(&mut self, count: u64) -> u64 {
        let first = self.next;
        self.next += count;
        while (self.blocks.len() as u64) << self.layout.refcounts_bits() < self.next {
            self.blocks.push(self.next);
            self.next += 1;
        }
        first
    }

    /// Takes room for one guest cluster that is packed to `len` bytes, at least 1 and less than a cluster. Returns
    /// where in the file it starts.
    pub fn take_packed(&mut self, len: u64) -> u64 {
        let bits = self.layout.cluster_bits;
        // A cluster of the file can be shared by no more than a count can count.
        if self.region_at < self.region_end && self.count(self.region_at >> bits) == u16::MAX {
            self.region_at = ((self.region_at >> bits) + 1) << bits;
        }
        if self.region_at + len > self.region_end {
            let count = self.layout.clusters(REGION.max(len));
            let adjacent = self.region_end == self.next << bits;
            let first = self.take(count);
            if !adjacent {
                self.region_at = first << bits;
            }
            self.region_end = (first + count) << bits;
            for cluster in first..first + count {
                *self.count_mut(cluster) = 0;
            }
        }
        let at = self.region_at;
        self.region_at += len;
        for cluster in at >> bits..=(at + len - 1) >> bits {
            let count = self.count_mut(cluster);
            *count = count.saturating_add(1);
        }
        at
    }

    fn place_of(&self, cluster: u64) -> (u64, usize) {
        let bits = self.layout.refcounts_bits();
        (cluster >> bits, usize::try_from(cluster & ((1 << bits) - 1)).unwrap_or(usize::MAX))
    }

    fn count(&self, cluster: u64) -> u16 {
        let (block, index) = self.place_of(cluster);
        self.open.get(&block).and_then(|counts| counts.get(index)).copied().unwrap_or(1)
    }

    fn count_mut(&mut self, cluster: u64) -> &mut u16 {
        let (block, index) = self.place_of(cluster);
        let len = 1usize << self.layout.refcounts_bits();
        &mut self.open.entry(block).or_insert_with(|| vec![1; len])[index]
    }

    /// Writes the blocks of counts that cannot change any more.
    pub fn write_blocks(&mut self, file: &PartialFile) -> Result<()> {
        let mut end = self.place_of(self.next).0;
        if self.region_at < self.region_end {
            end = end.min(self.place_of(self.region_at >> self.layout.cluster_bits).0);
        }
        self.write_blocks_to(file, end)
    }

    fn write_blocks_to(&mut self, file: &PartialFile, end: u64) -> Result<()> {
        let bits = self.layout.refcounts_bits();
        while self.written < end {
            let first = self.written << bits;
            let taken = usize::try_from((self.next - first).min(1 << bits)).unwrap_or(usize::MAX);
            let mut counts = self.open.remove(&self.written).unwrap_or_else(|| vec![1; 1 << bits]);
            counts[taken..].fill(0);
            let bytes: Vec<u8> = counts.iter().flat_map(|count| count.to_be_bytes()).collect();
            let index = usize::try_from(self.written).unwrap_or(usize::MAX);
            file.write_all_at(FileOffset(self.blocks[index] << self.layout.cluster_bits), &bytes)?;
            self.written += 1;
        }
        Ok(())
    }

    /// Ends it: gives back what is not used at the end, writes the counts that are left and their table. Returns the
    /// first cluster of the table, its clusters, and those of the whole file.
    pub fn finish(mut self, file: &PartialFile) -> Result<(u64, u64, u64)> {
        let bits = self.layout.cluster_bits;
        if self.region_end == self.next << bits {
            let end = std::mem::replace(&mut self.next, self.layout.clusters(self.region_at));
            // They may be taken again, for the table.
            for cluster in self.next..end {
                *self.count_mut(cluster) = 1;
            }
        }
        let mut table_clusters = 1;
        while self.blocks_after(table_clusters) * 8 > table_clusters << bits {
            table_clusters += 1;
        }
        let table = self.take(table_clusters);
        self.write_blocks_to(file, self.blocks.len() as u64)?;
        let mut bytes: Vec<u8> = self.blocks.iter().flat_map(|block| (block << bits).to_be_bytes()).collect();
        bytes.resize(usize::try_from(table_clusters << bits).unwrap_or(usize::MAX), 0);
        file.write_all_at(FileOffset(table << bits), &bytes)?;
        Ok((table, table_clusters, self.next))
    }

    /// How many blocks there will be when `count` more clusters are taken.
    fn blocks_after(&self, count: u64) -> u64 {
        let (mut blocks, mut next) = (self.blocks.len() as u64, self.next + count);
        while blocks << self.layout.refcounts_bits() < next {
            (blocks, next) = (blocks + 1, next + 1);
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::FileOptions;
    use crate::units::Bytes;

    /// However much is taken, the counts in memory are those of a block or two.
    #[test]
    fn counts_do_not_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let file = PartialFile::create(&dir.path().join("a"), FileOptions::default()).unwrap();
        for cluster_size in [512, 65536] {
            let layout = Layout::new(Bytes(100 << 30), Bytes(cluster_size), false).unwrap();
            let mut space = Space::new(layout);
            for n in 0..300_000u64 {
                // Packed clusters, and verbatim ones in between that move the end away from their region.
                let at = space.take_packed(1 + n * 7919 % (cluster_size - 1));
                assert!(at < space.region_at && space.region_at <= space.region_end);
                if n % 5 == 0 {
                    space.take(1 + n % 40);
                }
                if n % 16 == 0 {
                    space.write_blocks(&file).unwrap();
                    let region = REGION / (cluster_size << layout.refcounts_bits()) + 2;
                    assert!(space.open.len() as u64 <= region + 2, "{} are open", space.open.len());
                }
            }
            assert!(space.written > 10, "{}", space.written);
        }
    }

    /// A cluster of the file is never shared by more than its count can say.
    #[test]
    fn no_count_overflows() {
        let dir = tempfile::tempdir().unwrap();
        let file = PartialFile::create(&dir.path().join("a"), FileOptions::default()).unwrap();
        let layout = Layout::new(Bytes(1 << 40), Bytes(2 << 20), false).unwrap();
        let mut space = Space::new(layout);
        let first = space.take_packed(1) >> layout.cluster_bits;
        for _ in 1..u16::MAX {
            assert_eq!(space.take_packed(1) >> layout.cluster_bits, first);
        }
        assert_eq!(space.count(first), u16::MAX);
        assert_ne!(space.take_packed(1) >> layout.cluster_bits, first);
        assert_eq!(space.count(first), u16::MAX);
        space.finish(&file).unwrap();
    }
}
