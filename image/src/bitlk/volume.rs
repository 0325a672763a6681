//! The volume that Windows sees: decrypted on the way up, encrypted on the way down.

use super::damaged;
use super::diffuser::Diffuser;
use super::metadata::{BLOCK, Metadata};
use crate::disk::{self, Disk, DiskMut, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::luks::{SECTOR, SectorCipher};
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// Bytes that are decrypted at once.
const PIECE: u64 = 256 << 10;

/// The beginning that lies elsewhere: 8 KiB, and of BitLocker To Go some MiB, in whose place a small FAT has its reader.
const HEADER_AT_MOST: u64 = 64 << 20;

pub(super) struct Volume {
    below: Arc<dyn DiskMut>,
    len: u64,
    sector: u64,
    /// What begins at 0 lies here on the disk.
    header_at: u64,
    header_len: u64,
    /// Beginning and end of what is zeros for Windows, in order.
    hidden: Vec<(u64, u64)>,
    cipher: SectorCipher,
    diffuser: Option<Diffuser>,
    /// Held while a part of a sector is changed: the rest of it must not change meanwhile.
    parts: Mutex<()>,
}

impl Volume {
    pub(super) fn new(
        below: Arc<dyn DiskMut>,
        metadata: &Metadata,
        cipher: SectorCipher,
        diffuser: Option<Diffuser>,
    ) -> Result<Volume> {
        let Metadata { sector, header_at, header_len, copies, .. } = *metadata;
        let len = below.size().0 / sector * sector;
        if header_len == 0 || header_len > HEADER_AT_MOST {
            return Err(damaged(&format!("a header of {header_len} bytes")));
        }
        let mut hidden: Vec<(u64, u64)> = copies.iter().map(|&at| (at, at.saturating_add(BLOCK))).collect();
        hidden.push((header_at, header_at.saturating_add(header_len)));
        hidden.sort_unstable();
        let mut before = header_len;
        for &(start, end) in &hidden {
            if start < before || end > len || start % sector != 0 || end % sector != 0 {
                return Err(damaged(&format!("places that overlap or lie outside, at {start:#x}")));
            }
            before = end;
        }
        let parts = Mutex::new(());
        Ok(Volume { below, len, sector, header_at, header_len, hidden, cipher, diffuser, parts })
    }

    /// Where byte `at` lies on the disk, `None` for nowhere; and where that ends to be so.
    fn place(&self, at: u64) -> (Option<u64>, u64) {
        if at < self.header_len {
            return (Some(self.header_at + at), self.header_len);
        }
        match self.hidden.iter().find(|(_, end)| at < *end) {
            Some(&(start, end)) if at >= start => (None, end),
            Some(&(start, _)) => (Some(at), start),
            None => (Some(at), self.len),
        }
    }

    /// Whole sectors that lie at `at` of the disk, by which place they are encrypted.
    fn read_whole(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.below.read_at(GuestOffset(at), buf)?;
        self.cipher.decrypt(at / SECTOR as u64, buf);
        if let Some(diffuser) = &self.diffuser {
            diffuser.undo(at, buf);
        }
        Ok(())
    }

    fn write_whole(&self, at: u64, data: &mut [u8]) -> Result<()> {
        if let Some(diffuser) = &self.diffuser {
            diffuser.mix(at, data);
        }
        self.cipher.encrypt(at / SECTOR as u64, data);
        self.below.write_at(GuestOffset(at), data)
    }

    /// The whole sectors around `len` bytes at `at`. Places begin and end on sectors.
    fn around(&self, at: u64, len: u64) -> (u64, usize) {
        let start = at / self.sector * self.sector;
        let end = (at + len).div_ceil(self.sector) * self.sector;
        (start, index(end - start))
    }

    /// Hands each piece of a range to `work`: where it lies on the disk, and its place in the range.
    fn pieces(
        &self,
        at: GuestOffset,
        len: usize,
        mut work: impl FnMut(Option<u64>, std::ops::Range<usize>) -> Result<()>,
    ) -> Result<()> {
        disk::check_bounds(self.size(), at, len)?;
        let (mut here, end) = (at.0, at.0 + len as u64);
        while here < end {
            let (place, until) = self.place(here);
            let until = until.min(end).min(here / PIECE * PIECE + PIECE);
            work(place, index(here - at.0)..index(until - at.0))?;
            here = until;
        }
        Ok(())
    }
}

/// A distance inside one buffer.
fn index(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

impl Disk for Volume {
    fn size(&self) -> Bytes {
        Bytes(self.len)
    }

    fn sector_size(&self) -> Bytes {
        self.below.sector_size().max(Bytes(self.sector))
    }

    /// All of it is data: zeros below are zeros that were never encrypted.
    fn extents(&self, range: GuestRange, _at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size());
        let all = Extent { range, kind: ExtentKind::Data };
        Ok(if range.is_empty() { Vec::new() } else { vec![all] })
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        self.pieces(at, buf.len(), |place, range| {
            let buf = &mut buf[range];
            let Some(place) = place else {
                buf.fill(0);
                return Ok(());
            };
            let (start, len) = self.around(place, buf.len() as u64);
            if len == buf.len() {
                return self.read_whole(start, buf);
            }
            let mut whole = Zeroizing::new(vec![0; len]);
            self.read_whole(start, &mut whole)?;
            let inside = index(place - start);
            buf.copy_from_slice(&whole[inside..inside + buf.len()]);
            Ok(())
        })
    }
}

impl DiskMut for Volume {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        self.pieces(at, data.len(), |place, range| {
            let data = &data[range];
            let Some(place) = place else {
                return Err(Error::refused("where BitLocker keeps its metadata nothing is written"));
            };
            let (start, len) = self.around(place, data.len() as u64);
            let mut whole = Zeroizing::new(vec![0; len]);
            let inside = index(place - start);
            let _parts = if len == data.len() {
                None
            } else {
                let held = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
                self.read_whole(start, &mut whole)?;
                Some(held)
            };
            whole[inside..inside + data.len()].copy_from_slice(data);
            self.write_whole(start, &mut whole)
        })
    }

    fn zero_at(&self, range: GuestRange) -> Result<()> {
        let range = disk::clip(range, self.size());
        let zeros = vec![0; index(PIECE)];
        let (mut at, end) = (range.start().0, range.end().0);
        while at < end {
            let len = PIECE.min(end - at);
            self.write_at(GuestOffset(at), &zeros[..index(len)])?;
            at += len;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.below.flush()
    }
}
