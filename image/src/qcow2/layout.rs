//! The numbers of a new image: what follows from the size of the disk and of its clusters.

use super::entry::COMPRESSED;
use super::header::CLUSTER_BITS;
use crate::error::{Error, Result};
use crate::limits;
use crate::units::{Bytes, SECTOR_SIZE_BYTES};

/// QEMU refuses larger ones.
const L1_TABLE: u64 = 32 << 20;
const REFCOUNT_TABLE: u64 = 8 << 20;

/// Subclusters of a cluster with an extended L2 entry, as a power of two.
const SUBCLUSTER_BITS: u32 = 5;

/// Smallest cluster that may have subclusters: theirs are 512 bytes then.
const EXTENDED_FROM: u64 = 16 << 10;

/// The numbers of an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub cluster_bits: u32,
    pub extended_l2: bool,
    /// What the sink is given.
    pub given: u64,
    /// What the header says.
    pub size: u64,
    pub l1_entries: u64,
}

impl Layout {
    /// The numbers for a disk of `size`; `cluster_size` is a power of two from 512 bytes to 2 MiB.
    pub fn new(size: Bytes, cluster_size: Bytes, extended_l2: bool) -> Result<Layout> {
        let cluster_bits = cluster_size.0.trailing_zeros();
        if !cluster_size.0.is_power_of_two() || !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(Error::refused(format!(
                "clusters of {} bytes; powers of two from 512 to 2097152 are possible",
                cluster_size.0
            )));
        }
        if extended_l2 && cluster_size.0 < EXTENDED_FROM {
            return Err(Error::refused(format!(
                "extended L2 entries with clusters of {} bytes; at least {EXTENDED_FROM} are needed",
                cluster_size.0
            ))
            .hint("choose clusters of 128 KiB, whose thirty-seconds are a file system's blocks"));
        }
        if size > limits::DISK_SIZE {
            return Err(Error::refused(format!("a disk of {size}; the limit is {}", limits::DISK_SIZE)));
        }
        let rounded = size.0.next_multiple_of(SECTOR_SIZE_BYTES);
        let mut layout = Layout { cluster_bits, extended_l2, given: size.0, size: rounded, l1_entries: 0 };
        // QEMU always has at least one.
        layout.l1_entries = rounded.div_ceil(1 << (cluster_bits + layout.l2_bits())).max(1);
        // Tables take up to a thirty-second of what they describe; gaps between packed clusters take less.
        let at_most = rounded + rounded / 16 + (16 << 20);
        let counted = (REFCOUNT_TABLE / 8) << (layout.refcounts_bits() + cluster_bits);
        if layout.l1_entries * 8 > L1_TABLE || at_most > counted {
            return Err(Error::refused(format!(
                "a disk of {size} is too large for clusters of {cluster_size}"
            ))
            .hint("choose a larger cluster size; 64 KiB is usual"));
        }
        Ok(layout)
    }

    pub fn cluster_size(self) -> u64 {
        1 << self.cluster_bits
    }
    /// Bytes of an L2 entry.
    pub fn l2_entry_size(self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }
    /// Entries of an L2 table, as a power of two.
    pub fn l2_bits(self) -> u32 {
        self.cluster_bits - self.l2_entry_size().trailing_zeros()
    }
    /// Bytes of what an entry can tell apart, as a power of two: the cluster or subcluster.
    pub fn unit_bits(self) -> u32 {
        if self.extended_l2 { self.cluster_bits - SUBCLUSTER_BITS } else { self.cluster_bits }
    }
    /// 16-bit reference counts in a cluster, as a power of two.
    pub fn refcounts_bits(self) -> u32 {
        self.cluster_bits - 1
    }
    /// Clusters that `bytes` need.
    pub fn clusters(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_size())
    }
    /// Clusters of the L1 table.
    pub fn l1_clusters(self) -> u64 {
        self.clusters(self.l1_entries * 8)
    }
    /// The L2 entry of a compressed cluster: its offset, and the 512-byte sectors that it touches behind the first.
    pub fn packed_entry(self, at: u64, len: u64) -> u64 {
        let last = at + len - 1;
        let more_sectors = last / SECTOR_SIZE_BYTES - at / SECTOR_SIZE_BYTES;
        COMPRESSED | more_sectors << (62 - (self.cluster_bits - 8)) | at
    }
}
