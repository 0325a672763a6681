//! What the three sparse kinds (hosted, COWD, seSparse) have in common: a directory of tables of grains.

use crate::error::{Error, Result};
use crate::limits;
use crate::units::{Bytes, FileOffset, Sectors};

/// Where things lie in a sparse extent. All sizes are checked against [`limits`]; offsets are not yet
/// checked against the file.
#[derive(Debug)]
pub(super) struct Layout {
    /// Guest bytes; at most [`limits::DISK_SIZE`], so sums of a few sizes never overflow.
    pub(super) size: Bytes,
    /// Guest bytes of a grain, a power of two.
    pub(super) grain: Bytes,
    pub(super) entries_per_table: u64,
    /// The grain directory; an error where the header gives no place that could be right.
    pub(super) directory: Result<FileOffset>,
    /// Its copy.
    pub(super) redundant_directory: Option<FileOffset>,
    /// Entries that the size needs.
    pub(super) directory_entries: usize,
    pub(super) entries: Entries,
    pub(super) compression: Compression,
    /// File ranges (start, end) of headers and the like, where neither tables nor grains can lie.
    pub(super) reserved: Vec<(u64, u64)>,
}

/// The form of directory and table entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entries {
    /// 32 bits, a sector number in the file.
    Sectors {
        /// 1 in a grain table means zeros.
        zeroed_grains: bool,
    },
    /// 64 bits with a type in the highest four; counted from the start of an area. See [`super::sesparse`].
    SeSparse { tables: FileOffset, tables_end: u64, grains: FileOffset, grains_end: u64 },
}

impl Entries {
    /// Bytes of one entry.
    pub(super) fn size(self) -> usize {
        match self {
            Entries::Sectors { .. } => 4,
            Entries::SeSparse { .. } => 8,
        }
    }
}

/// How grains are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// Verbatim.
    None,
    /// Each grain is a zlib stream, behind a grain marker or bare.
    Zlib { markers: bool },
}

/// `capacity` in bytes, if a disk can be that large.
pub(super) fn checked_size(capacity: Sectors) -> Result<Bytes> {
    match capacity.to_bytes() {
        Some(size) if size <= limits::DISK_SIZE => Ok(size),
        _ => Err(Error::refused(format!(
            "says it holds {} sectors; the limit is {}",
            capacity.0,
            limits::DISK_SIZE
        ))),
    }
}

/// Directory entries for `size`, if the directory may be kept in memory. `grain` is not 0.
pub(super) fn directory_entries(size: Bytes, grain: Bytes, per_table: u64, entry: u64) -> Result<usize> {
    let covered = grain.0.saturating_mul(per_table).max(1);
    let entries = size.0.div_ceil(covered);
    if entries.saturating_mul(entry) > limits::RESIDENT_TABLE.0 {
        return Err(Error::refused(format!(
            "its grain directory would have {entries} entries; the limit is {}",
            limits::RESIDENT_TABLE
        )));
    }
    usize::try_from(entries).map_err(|_| Error::refused("its grain directory does not fit into memory"))
}
