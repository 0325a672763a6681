//! Reference counts as they are stored: "Host cluster management" in the specification.
//!
//! ```text
//! refcount table: offset of a block, or 0 where all its counts are 0 | block: counts of 1 to 64 bits, one per cluster
//! counts of less than a byte: the first in the lowest bits
//! ```

use super::header::Header;
use crate::check::{Checked, Severity};
use crate::error::{Error, Result};
use crate::limits;
use crate::source::Source;
use crate::units::{Bytes, FileOffset};

/// Bits of a table entry that are not the block's offset.
const RESERVED: u64 = 0x1ff;

/// The refcount table.
pub(super) struct Refcounts<'a> {
    source: &'a Source,
    cluster_bits: u32,
    order: u32,
    /// Offsets of blocks that lie in the file; 0 where there is none.
    table: Vec<u64>,
}

impl<'a> Refcounts<'a> {
    /// Reads the table; what is wrong with it is added to `checked`.
    pub fn read(source: &'a Source, header: &Header, checked: &mut Checked) -> Result<Refcounts<'a>> {
        let cluster_size = header.cluster_size();
        let len = u64::from(header.refcount_table_clusters) << header.cluster_bits;
        if len > limits::RESIDENT_TABLE.0 {
            return Err(Error::refused(format!(
                "has a refcount table of {}; the limit is {}",
                Bytes(len),
                limits::RESIDENT_TABLE
            ))
            .in_file(source.path()));
        }
        let mut counts = Refcounts {
            source,
            cluster_bits: header.cluster_bits,
            order: header.refcount_order,
            table: Vec::new(),
        };
        let at = header.refcount_table;
        let end = source.len().0;
        if !at.0.is_multiple_of(cluster_size) || at.0.checked_add(len).is_none_or(|table_end| table_end > end)
        {
            let says = format!(
                "the refcount table lies at {:#x} and is {len} bytes long; the file ends at {end:#x}",
                at.0
            );
            checked.add(Severity::Corrupt, says, Some(at));
            return Ok(counts);
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        source.read_exact_at(at, &mut bytes)?;
        for (index, entry) in (0u64..).zip(bytes.as_chunks::<8>().0) {
            let entry = u64::from_be_bytes(*entry);
            let wrong = if entry & RESERVED != 0 || entry % cluster_size != 0 {
                Some("which is not on a multiple of the cluster size".to_owned())
            } else if entry >= end {
                Some(format!("the file ends at {end:#x}"))
            } else {
                None
            };
            if let Some(wrong) = &wrong {
                let says = format!("entry {index} of the refcount table points at {entry:#x}; {wrong}");
                checked.add(Severity::Corrupt, says, Some(FileOffset(at.0 + index * 8)));
            }
            counts.table.push(if wrong.is_none() { entry } else { 0 });
        }
        while counts.table.last() == Some(&0) {
            counts.table.pop();
        }
        Ok(counts)
    }

    /// Where the blocks lie.
    pub fn places(&self) -> impl Iterator<Item = u64> + '_ {
        self.table.iter().copied().filter(|&block| block != 0)
    }

    /// A way to look counts up that keeps the block it looked at last.
    pub fn blocks(&self) -> Blocks<'_> {
        Blocks { counts: self, index: None, bytes: Vec::new() }
    }
}

/// See [`Refcounts::blocks`].
pub(super) struct Blocks<'a> {
    counts: &'a Refcounts<'a>,
    index: Option<u64>,
    bytes: Vec<u8>,
}

impl Blocks<'_> {
    /// The stored count of a cluster of the file.
    pub fn count(&mut self, cluster: u64) -> Result<u64> {
        let counts = self.counts;
        let per_block_bits = counts.cluster_bits + 3 - counts.order;
        let index = cluster >> per_block_bits;
        if self.index != Some(index) {
            self.bytes.clear();
            let block =
                usize::try_from(index).ok().and_then(|index| counts.table.get(index)).copied().unwrap_or(0);
            if block != 0 {
                // A file may be cut inside of its last cluster; what is missing counts nothing.
                let there = (1u64 << counts.cluster_bits).min(counts.source.len().0.saturating_sub(block));
                self.bytes.resize(1 << counts.cluster_bits, 0);
                let there = usize::try_from(there).unwrap_or(usize::MAX);
                counts.source.read_exact_at(FileOffset(block), &mut self.bytes[..there])?;
            }
            self.index = Some(index);
        }
        let within = usize::try_from(cluster & ((1 << per_block_bits) - 1)).unwrap_or(usize::MAX);
        Ok(count_at(&self.bytes, within, counts.order))
    }
}

/// The count number `index` in a block, with 2^`order` bits each; 0 behind its end.
fn count_at(block: &[u8], index: usize, order: u32) -> u64 {
    if order < 3 {
        let bit = index << order;
        let byte = block.get(bit / 8).copied().unwrap_or(0);
        return u64::from(byte >> (bit % 8)) & ((1 << (1 << order)) - 1);
    }
    let len = 1usize << (order - 3);
    let bytes = block.get(index * len..(index + 1) * len).unwrap_or_default();
    bytes.iter().fold(0, |count, &byte| count << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_every_width_are_read() {
        let block = [0b1110_0100, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde];
        assert_eq!((0..8).map(|n| count_at(&block, n, 0)).collect::<Vec<_>>(), [0, 0, 1, 0, 0, 1, 1, 1]);
        assert_eq!((0..4).map(|n| count_at(&block, n, 1)).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!((0..3).map(|n| count_at(&block, n, 2)).collect::<Vec<_>>(), [4, 14, 2]);
        assert_eq!(count_at(&block, 1, 3), 0x12);
        assert_eq!(count_at(&block, 1, 4), 0x3456);
        assert_eq!(count_at(&block, 1, 5), 0x789a_bcde);
        assert_eq!(count_at(&block, 0, 6), 0xe412_3456_789a_bcde);
        assert_eq!(count_at(&block, 1, 6), 0);
    }
}
