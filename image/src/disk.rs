//! The disk as its guest sees it: a size, bytes at positions, and a map of what is stored.

use crate::error::Result;
use crate::units::{Bytes, GuestOffset, GuestRange};

/// What is known about a run of a disk without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExtentKind {
    /// Stored: may hold anything, zeros too.
    Data,
    /// Reads as zeros, whatever a parent holds there.
    Zero,
    /// Not stored in this layer: reads as the parent, or as zeros where there is none.
    Unallocated,
}

/// A run of a disk that is all of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it lies.
    pub range: GuestRange,
    /// What is there.
    pub kind: ExtentKind,
}

/// A disk that can be read at any position from any thread. No shared seek position, no lock on the data path.
pub trait Disk: Send + Sync {
    /// Size as the guest sees it. Need not be a multiple of the sector size (images of odd length exist).
    fn size(&self) -> Bytes;

    /// Logical sector size: 512 or 4096.
    fn sector_size(&self) -> Bytes {
        Bytes(crate::units::SECTOR_SIZE_BYTES)
    }

    /// What lies in `range`, which is clipped to the disk: contiguous extents from its start, none empty, at most
    /// `at_most` (a value below 1 counts as 1). The answer may end before the range does, but covers at least one
    /// byte unless the clipped range is empty. Adjacent extents of one kind may stay separate. Costs time for what
    /// it returns, not for the size of the disk.
    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>>;

    /// Fills `buf` from `at`. Bytes that this layer does not store read as zeros. A range that passes the end of
    /// the disk is an error ([`Kind::Io`](crate::Kind::Io)); on any error `buf` is unspecified.
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()>;
}

/// A disk that can also be written: an [`Overlay`](crate::Overlay), or a view of one. Never the source.
pub trait DiskMut: Disk {
    /// Stores `data` at `at`.
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()>;
    /// Makes `range` read as zeros.
    fn zero_at(&self, range: GuestRange) -> Result<()>;
    /// Returns when everything written so far will be seen by later reads (scratch need not survive power loss).
    fn flush(&self) -> Result<()>;
}

impl<T: Disk + ?Sized> Disk for std::sync::Arc<T> {
    fn size(&self) -> Bytes {
        (**self).size()
    }
    fn sector_size(&self) -> Bytes {
        (**self).sector_size()
    }
    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        (**self).extents(range, at_most)
    }
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        (**self).read_at(at, buf)
    }
}

impl<T: Disk + ?Sized> Disk for &T {
    fn size(&self) -> Bytes {
        (**self).size()
    }
    fn sector_size(&self) -> Bytes {
        (**self).sector_size()
    }
    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        (**self).extents(range, at_most)
    }
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        (**self).read_at(at, buf)
    }
}

/// `range` clipped to a disk of `size`.
pub fn clip(range: GuestRange, size: Bytes) -> GuestRange {
    range.intersect(GuestRange::new(GuestOffset(0), size))
}

/// The error of a read or write that passes the end of a disk of `size`, or `Ok`.
pub fn check_bounds(size: Bytes, at: GuestOffset, len: usize) -> Result<()> {
    let end = at.0.checked_add(len as u64);
    if end.is_some_and(|end| end <= size.0) {
        return Ok(());
    }
    Err(crate::Error::io(
        format!("cannot access {len} bytes at guest offset {:#x} of a disk of {} bytes", at.0, size.0),
        std::io::ErrorKind::UnexpectedEof.into(),
    ))
}
