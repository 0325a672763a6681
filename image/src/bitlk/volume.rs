//! The volume that Windows sees: decrypted on the way up, encrypted on the way down.

use super::damaged;
use super::diffuser::Diffuser;
use super::metadata::{BLOCK, Metadata};
use crate::disk::{self, Disk, DiskMut, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::luks::sectors::{self, Sectors, index};
use crate::luks::{SECTOR, SectorCipher};
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::sync::{Arc, Mutex};

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

    /// Where byte `at` lies on the disk, `None` where no byte of it is; and where that ends to be so.
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
            let until = until.min(end);
            work(place, index(here - at.0)..index(until - at.0))?;
            here = until;
        }
        Ok(())
    }
}

/// By their places on the disk, by which they are encrypted.
impl Sectors for Volume {
    fn sector(&self) -> u64 {
        self.sector
    }

    fn parts(&self) -> &Mutex<()> {
        &self.parts
    }

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
        self.pieces(at, buf.len(), |place, range| match place {
            // Places begin and end on sectors, so those around any part of one are inside of it.
            Some(place) => self.read_part(place, &mut buf[range]),
            None => {
                buf[range].fill(0);
                Ok(())
            }
        })
    }
}

impl DiskMut for Volume {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        self.pieces(at, data.len(), |place, range| match place {
            Some(place) => self.write_part(place, &data[range]),
            None => Err(Error::refused("where BitLocker keeps its metadata nothing is written")),
        })
    }

    fn zero_at(&self, range: GuestRange) -> Result<()> {
        sectors::zero(range, self.size(), |at, zeros| self.write_at(at, zeros))
    }

    fn flush(&self) -> Result<()> {
        self.below.flush()
    }
}
