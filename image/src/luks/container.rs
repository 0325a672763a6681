//! What a header and its key slots are read from: a file, or a volume of a guest.

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::source::Source;
use crate::units::{FileOffset, GuestOffset};

/// Bytes at positions.
pub(super) trait Container {
    /// Their number.
    fn end(&self) -> u64;
    /// Fills `buf` from `at`. Past the end it is cut off: [`Kind::Corrupt`](crate::Kind::Corrupt).
    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> Result<()>;
}

impl Container for Source {
    fn end(&self) -> u64 {
        self.len().0
    }
    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> Result<()> {
        Source::read_exact_at(self, at, buf)
    }
}

/// A volume.
pub(super) struct OnDisk<'d>(pub &'d dyn Disk);

impl Container for OnDisk<'_> {
    fn end(&self) -> u64 {
        self.0.size().0
    }
    fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> Result<()> {
        let end = at.0.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.end()) {
            return Err(Error::corrupt(format!(
                "truncated: {} bytes are wanted at {:#x}, the volume ends at {:#x}",
                buf.len(),
                at.0,
                self.end()
            )));
        }
        self.0.read_at(GuestOffset(at.0), buf)
    }
}
