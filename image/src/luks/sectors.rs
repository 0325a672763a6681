//! Reading and writing parts of sectors that are encrypted as a whole, for volumes of any scheme.

use super::SECTOR;
use crate::disk;
use crate::error::Result;
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// Bytes that are encrypted at once, a whole number of sectors of any size.
pub(crate) const PIECE: usize = 256 << 10;

/// Encrypted sectors, by their place.
pub(crate) trait Sectors {
    /// Bytes that are encrypted as one.
    fn sector(&self) -> u64;

    /// Held while a part of a sector is changed: the rest of it must not change meanwhile.
    fn parts(&self) -> &Mutex<()>;

    /// Reads whole sectors.
    fn read_whole(&self, at: u64, buf: &mut [u8]) -> Result<()>;

    /// Writes whole sectors; `data` is encrypted in place.
    fn write_whole(&self, at: u64, data: &mut [u8]) -> Result<()>;

    /// The whole sectors around `len` bytes at `at`: where they begin, and their length.
    fn around(&self, at: u64, len: usize) -> (u64, usize) {
        let sector = self.sector();
        let start = at / sector * sector;
        (start, index((at + len as u64).div_ceil(sector) * sector - start))
    }

    /// Reads any bytes; the sectors around them must be there.
    fn read_part(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let (start, len) = self.around(at, buf.len());
        if len == buf.len() {
            return self.read_whole(start, buf);
        }
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let (now, later) = rest.split_at_mut(rest.len().min(PIECE));
            let (start, len) = self.around(at, now.len());
            let mut whole = Zeroizing::new(vec![0; len]);
            self.read_whole(start, &mut whole)?;
            let inside = index(at - start);
            now.copy_from_slice(&whole[inside..inside + now.len()]);
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Writes any bytes; what else is in their first and last sector stays.
    fn write_part(&self, at: u64, data: &[u8]) -> Result<()> {
        let (mut at, mut rest) = (at, data);
        while !rest.is_empty() {
            // Up to where pieces meet on sectors.
            let (now, later) = rest.split_at((PIECE - index(at % PIECE as u64)).min(rest.len()));
            self.write_piece(at, now)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// One piece of [`write_part`](Self::write_part).
    fn write_piece(&self, at: u64, data: &[u8]) -> Result<()> {
        let (start, len) = self.around(at, data.len());
        let mut whole = Zeroizing::new(vec![0; len]);
        let inside = index(at - start);
        let _parts = if len == data.len() {
            None
        } else {
            let held = self.parts().lock().unwrap_or_else(PoisonError::into_inner);
            self.read_whole(start, &mut whole)?;
            Some(held)
        };
        whole[inside..inside + data.len()].copy_from_slice(data);
        self.write_whole(start, &mut whole)
    }
}

/// Writes zeros over a range of a volume of `size`, piece by piece.
pub(crate) fn zero(
    range: GuestRange,
    size: Bytes,
    mut write: impl FnMut(GuestOffset, &[u8]) -> Result<()>,
) -> Result<()> {
    let range = disk::clip(range, size);
    let zeros = vec![0; PIECE];
    let (mut at, end) = (range.start().0, range.end().0);
    while at < end {
        let len = (PIECE as u64 - at % PIECE as u64).min(end - at);
        write(GuestOffset(at), &zeros[..index(len)])?;
        at += len;
    }
    Ok(())
}

/// A distance inside one buffer.
pub(crate) fn index(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

const _: () = assert!(PIECE.is_multiple_of(4096) && PIECE.is_multiple_of(SECTOR));
