//! Entries of L1 and L2 tables: "Cluster mapping", "Extended L2 entries" in the specification.
//!
//! ```text
//! L1       63 used once | 62-56 0 | 55-9 offset of the L2 table | 8-0 0
//! L2       63 used once | 62 0    | 61-56 0 | 55-9 offset of the cluster | 8-1 0 | 0 reads as zeros (v3)
//!          63 0         | 62 1    | 61-x additional sectors | x-1..0 offset of the compressed bytes
//! extended the same, bit 0 is 0, followed by 64 bits: 63-32 subcluster reads as zeros | 31-0 subcluster is stored
//! ```

use super::header::Header;
use crate::units::SECTOR_SIZE_BYTES;

/// The bits of an entry that are an offset.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
pub(super) const USED_ONCE: u64 = 1 << 63;
pub(super) const COMPRESSED: u64 = 1 << 62;
pub(super) const ZERO: u64 = 1;
const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;

/// Subclusters of a cluster with an extended L2 entry, as a power of two.
const SUBCLUSTER_BITS: u32 = 5;

/// The numbers that lead from a guest offset to an entry, and what an entry may say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub version: u32,
    pub cluster_bits: u32,
    pub extended_l2: bool,
    pub external_data: bool,
    pub raw_external: bool,
}

/// Where the bytes of a cluster or subcluster are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Not here: the backing file shines through.
    Unallocated,
    /// Nowhere: zeros.
    Zero,
    /// Verbatim in the data file; the cluster starts there.
    Stored { cluster_at: u64 },
    /// Compressed in the image itself.
    Compressed(Packed),
}

/// The place of a compressed cluster's bytes: up to a sector more than they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub at: u64,
    pub len: u64,
}

impl Geometry {
    pub fn new(header: &Header) -> Self {
        Geometry {
            version: header.version,
            cluster_bits: header.cluster_bits,
            extended_l2: header.extended_l2,
            external_data: header.external_data.is_some(),
            raw_external: header.raw_external,
        }
    }

    /// Bytes of a cluster.
    pub fn cluster_size(self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of an L2 entry, as a power of two.
    pub fn l2_entry_bits(self) -> u32 {
        if self.extended_l2 { 4 } else { 3 }
    }

    /// Entries of an L2 table, as a power of two.
    pub fn l2_bits(self) -> u32 {
        self.cluster_bits - self.l2_entry_bits()
    }

    /// Guest bytes under one L1 entry, as a power of two (at most 39).
    pub fn l1_span_bits(self) -> u32 {
        self.cluster_bits + self.l2_bits()
    }

    /// The unit that an L2 entry distinguishes, as a power of two: the cluster or subcluster.
    pub fn unit_bits(self) -> u32 {
        if self.extended_l2 { self.cluster_bits - SUBCLUSTER_BITS } else { self.cluster_bits }
    }

    /// Where an L1 entry leads: the offset of an L2 table, or `None` where there is none. `Err` says what is wrong.
    pub fn l1(self, entry: u64) -> Result<Option<u64>, String> {
        if entry & L1_RESERVED != 0 {
            return Err(format!("L1 entry {entry:#018x} has reserved bits set"));
        }
        match entry & OFFSET {
            0 => Ok(None),
            table if table & (self.cluster_size() - 1) != 0 => Err(format!(
                "L1 entry {entry:#018x} points into a cluster; L2 tables lie on multiples of {:#x}",
                self.cluster_size()
            )),
            table => Ok(Some(table)),
        }
    }

    /// What an L2 entry (and its `bitmap`, 0 without extended entries) says of the bytes at the guest offset `guest`.
    pub fn l2(self, entry: u64, bitmap: u64, guest: u64) -> Result<Place, String> {
        if entry & COMPRESSED != 0 {
            return self.compressed(entry, bitmap);
        }
        let zero_bit = entry & ZERO != 0;
        if entry & L2_RESERVED != 0 || zero_bit && (self.version < 3 || self.extended_l2) {
            return Err(format!("L2 entry {entry:#018x} has reserved bits set"));
        }
        let offset = entry & OFFSET;
        if offset & (self.cluster_size() - 1) != 0 {
            return Err(format!(
                "L2 entry {entry:#018x} points into a cluster; data lies on multiples of {:#x}",
                self.cluster_size()
            ));
        }
        // Offset 0 is the header's, so it stands for "none", except in a data file of its own.
        let none = offset == 0 && !(self.external_data && entry & USED_ONCE != 0);
        let (stored, zero) = if self.extended_l2 {
            let subcluster = (guest >> self.unit_bits()) & ((1 << SUBCLUSTER_BITS) - 1);
            let (zeros, allocated) = (bitmap >> 32, bitmap & 0xffff_ffff);
            if zeros & allocated != 0 {
                return Err(format!(
                    "subcluster bitmap {bitmap:#018x} has subclusters that are both stored and zero"
                ));
            }
            if none && allocated != 0 {
                return Err(format!(
                    "subcluster bitmap {bitmap:#018x} has stored subclusters in a cluster that is not"
                ));
            }
            (allocated >> subcluster & 1 == 1, zeros >> subcluster & 1 == 1)
        } else {
            (!none, zero_bit)
        };
        if zero {
            return Ok(Place::Zero);
        }
        if !stored {
            return Ok(Place::Unallocated);
        }
        let cluster = guest & !(self.cluster_size() - 1);
        if self.raw_external && offset != cluster {
            return Err(format!(
                "L2 entry {entry:#018x} of a raw external data file must point at {cluster:#x}"
            ));
        }
        Ok(Place::Stored { cluster_at: offset })
    }

    /// The lowest bit of the sector count in a compressed entry.
    pub fn sectors_shift(self) -> u32 {
        62 - (self.cluster_bits - 8)
    }

    fn compressed(self, entry: u64, bitmap: u64) -> Result<Place, String> {
        if self.external_data {
            return Err(format!(
                "L2 entry {entry:#018x} is compressed, which an external data file cannot be"
            ));
        }
        if bitmap != 0 {
            return Err(format!("subcluster bitmap {bitmap:#018x} of a compressed cluster must be 0"));
        }
        let shift = self.sectors_shift();
        let at = entry & ((1 << shift) - 1);
        let sectors = ((entry & (COMPRESSED - 1)) >> shift) + 1;
        Ok(Place::Compressed(Packed { at, len: sectors * SECTOR_SIZE_BYTES - at % SECTOR_SIZE_BYTES }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v3(cluster_bits: u32) -> Geometry {
        Geometry { version: 3, cluster_bits, extended_l2: false, external_data: false, raw_external: false }
    }

    #[test]
    fn standard_entries_follow_the_specification() {
        let g = v3(16);
        assert_eq!(g.l2(0, 0, 0), Ok(Place::Unallocated));
        assert_eq!(g.l2(1, 0, 0), Ok(Place::Zero));
        assert_eq!(g.l2(USED_ONCE | 0x50001, 0, 0), Ok(Place::Zero), "preallocated and zero");
        assert_eq!(g.l2(USED_ONCE | 0x50000, 0, 0), Ok(Place::Stored { cluster_at: 0x50000 }));
        assert!(g.l2(0x50200, 0, 0).unwrap_err().contains("points into a cluster"));
        assert!(g.l2(0x50002, 0, 0).unwrap_err().contains("reserved"));
        assert!(g.l2(1 << 56 | 0x50000, 0, 0).unwrap_err().contains("reserved"));
        assert!(Geometry { version: 2, ..g }.l2(1, 0, 0).is_err(), "version 2 has no zero clusters");
        // With 64 KiB clusters the sector count takes bits 54 to 61.
        assert_eq!(
            g.l2(COMPRESSED | 3 << 54 | 0x12345, 0, 0),
            Ok(Place::Compressed(Packed { at: 0x12345, len: 4 * 512 - 0x145 }))
        );
    }

    #[test]
    fn external_data_may_lie_at_offset_0() {
        let g = Geometry { external_data: true, ..v3(16) };
        assert_eq!(g.l2(USED_ONCE, 0, 0), Ok(Place::Stored { cluster_at: 0 }));
        assert_eq!(g.l2(0, 0, 0), Ok(Place::Unallocated));
        assert!(g.l2(COMPRESSED, 0, 0).is_err());
        let raw = Geometry { raw_external: true, ..g };
        assert!(raw.l2(USED_ONCE | 0x10000, 0, 0x20000).is_err());
        assert!(raw.l2(USED_ONCE | 0x20000, 0, 0x2ffff).is_ok());
    }

    #[test]
    fn subclusters_have_their_own_state() {
        let g = Geometry { extended_l2: true, ..v3(16) };
        let bitmap = 1 << 33 | 1;
        assert_eq!(g.l2(0x50000, bitmap, 0), Ok(Place::Stored { cluster_at: 0x50000 }));
        assert_eq!(g.l2(0x50000, bitmap, 2048), Ok(Place::Zero));
        assert_eq!(g.l2(0x50000, bitmap, 4096), Ok(Place::Unallocated));
        assert_eq!(g.l2(0, 1 << 32, 0), Ok(Place::Zero));
        assert!(g.l2(0, 1, 0).is_err(), "stored without a cluster");
        assert!(g.l2(0x50000, 1 << 32 | 1, 0).is_err(), "stored and zero");
        assert!(g.l2(0x50001, 0, 0).is_err(), "the zero bit has moved");
        assert!(g.l2(COMPRESSED | 0x50000, 1, 0).is_err());
    }

    #[test]
    fn no_entry_overflows() {
        for bits in super::super::header::CLUSTER_BITS {
            for extended_l2 in [false, bits >= 14] {
                let g = Geometry { extended_l2, ..v3(bits) };
                assert!(g.l1_span_bits() <= 39);
                for entry in [u64::MAX, COMPRESSED | (COMPRESSED - 1), OFFSET, USED_ONCE | OFFSET, 1 << 61] {
                    let _ = (g.l1(entry), g.l2(entry, 0, u64::MAX), g.l2(entry, u64::MAX, 0));
                }
            }
        }
    }
}
