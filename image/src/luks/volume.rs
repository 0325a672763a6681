//! A guest's encrypted volume as a disk that is read and written: decrypted on the way up, encrypted on the way down.

use super::container::OnDisk;
use super::{Attempt, Effort, SECTOR, Secret, SectorCipher, Unlocked, attempt};
use crate::disk::{self, Disk, DiskMut, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// Bytes that are encrypted at once.
const PIECE: usize = 256 << 10;

/// Opens the encrypted volume that lies on `disk`; `None` where the key opens none of its key slots. The work for it comes
/// out of `effort`.
///
/// # Errors
/// [`Kind::Corrupt`](crate::Kind::Corrupt), [`Kind::Unsupported`](crate::Kind::Unsupported) and
/// [`Kind::Refused`](crate::Kind::Refused) as the header has it; [`Kind::Interrupted`](crate::Kind::Interrupted) when
/// the effort was cancelled.
pub fn open_volume(
    disk: Arc<dyn DiskMut>,
    key: &Secret,
    effort: &mut Effort,
) -> Result<Option<Arc<dyn DiskMut>>> {
    let attempt = attempt(&OnDisk(&disk), Some(key), effort)?;
    let Unlocked { cipher, payload_at, payload_len, iv_tweak, .. } = match attempt {
        Attempt::Opened(unlocked) => unlocked,
        Attempt::Wrong { .. } => return Ok(None),
    };
    if payload_at < super::luks1::HEADER as u64 {
        return Err(Error::unsupported("the header of the encrypted data lies elsewhere (detached)"));
    }
    let rest = disk.size().0.checked_sub(payload_at).ok_or_else(|| {
        Error::corrupt(format!(
            "the encrypted data begin at {payload_at:#x}; the volume ends at {:#x}",
            disk.size().0
        ))
    })?;
    let sector = cipher.sector_size() as u64;
    let len = payload_len.unwrap_or(rest / sector * sector);
    if len > rest || len % sector != 0 {
        return Err(Error::corrupt(format!("{len} bytes of encrypted data where {rest} are")));
    }
    Ok(Some(Arc::new(Volume { below: disk, payload_at, len, cipher, iv_tweak, parts: Mutex::new(()) })))
}

struct Volume {
    below: Arc<dyn DiskMut>,
    payload_at: u64,
    len: u64,
    cipher: SectorCipher,
    iv_tweak: u64,
    /// Held while a part of a sector is changed: the rest of it must not change meanwhile.
    parts: Mutex<()>,
}

impl Volume {
    fn sector(&self) -> u64 {
        self.cipher.sector_size() as u64
    }

    fn number(&self, at: u64) -> u64 {
        (at / SECTOR as u64).wrapping_add(self.iv_tweak)
    }

    /// Whole sectors.
    fn read_whole(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.below.read_at(GuestOffset(self.payload_at + at), buf)?;
        self.cipher.decrypt(self.number(at), buf);
        Ok(())
    }

    /// Whole sectors; `data` is encrypted in place.
    fn write_whole(&self, at: u64, data: &mut [u8]) -> Result<()> {
        self.cipher.encrypt(self.number(at), data);
        self.below.write_at(GuestOffset(self.payload_at + at), data)
    }

    /// The whole sectors around `len` bytes at `at`: where they begin and end.
    fn around(&self, at: u64, len: usize) -> (u64, u64) {
        let sector = self.sector();
        let end = at + len as u64;
        // The volume is a whole number of sectors, so their end is inside of it.
        (at / sector * sector, end.div_ceil(sector) * sector)
    }

    fn write_piece(&self, at: u64, data: &[u8]) -> Result<()> {
        let (start, end) = self.around(at, data.len());
        let mut whole = Zeroizing::new(vec![0; index(end - start)]);
        let inside = index(at - start);
        let _parts = if whole.len() == data.len() {
            None
        } else {
            let held = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            self.read_whole(start, &mut whole)?;
            Some(held)
        };
        whole[inside..inside + data.len()].copy_from_slice(data);
        self.write_whole(start, &mut whole)
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
        self.below.sector_size().max(Bytes(self.sector()))
    }

    /// All of it is data: zeros below are zeros that were never encrypted.
    fn extents(&self, range: GuestRange, _at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size());
        let all = Extent { range, kind: ExtentKind::Data };
        Ok(if range.is_empty() { Vec::new() } else { vec![all] })
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, buf.len())?;
        let (start, end) = self.around(at.0, buf.len());
        if end - start == buf.len() as u64 {
            return self.read_whole(start, buf);
        }
        let (mut at, mut rest) = (at.0, buf);
        while !rest.is_empty() {
            let len = rest.len().min(PIECE);
            let (now, later) = rest.split_at_mut(len);
            let (start, end) = self.around(at, len);
            let mut whole = Zeroizing::new(vec![0; index(end - start)]);
            self.read_whole(start, &mut whole)?;
            let inside = index(at - start);
            now.copy_from_slice(&whole[inside..inside + len]);
            at += len as u64;
            rest = later;
        }
        Ok(())
    }
}

impl DiskMut for Volume {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, data.len())?;
        let (mut at, mut rest) = (at.0, data);
        while !rest.is_empty() {
            // Up to where pieces meet on sectors.
            let len = (PIECE - index(at % PIECE as u64)).min(rest.len());
            let (now, later) = rest.split_at(len);
            self.write_piece(at, now)?;
            at += len as u64;
            rest = later;
        }
        Ok(())
    }

    fn zero_at(&self, range: GuestRange) -> Result<()> {
        let range = disk::clip(range, self.size());
        let zeros = vec![0; PIECE];
        let (mut at, end) = (range.start().0, range.end().0);
        while at < end {
            let len = (PIECE as u64 - at % PIECE as u64).min(end - at);
            self.write_piece(at, &zeros[..index(len)])?;
            at += len;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.below.flush()
    }
}
