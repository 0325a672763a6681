//! A guest's encrypted volume as a disk that is read and written: decrypted on the way up, encrypted on the way down.

use super::container::OnDisk;
use super::sectors::{self, Sectors};
use super::{Attempt, Effort, SECTOR, Secret, SectorCipher, Unlocked, attempt};
use crate::disk::{self, Disk, DiskMut, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::sync::{Arc, Mutex};

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
    parts: Mutex<()>,
}

impl Volume {
    fn number(&self, at: u64) -> u64 {
        (at / SECTOR as u64).wrapping_add(self.iv_tweak)
    }
}

impl Sectors for Volume {
    fn sector(&self) -> u64 {
        self.cipher.sector_size() as u64
    }

    fn parts(&self) -> &Mutex<()> {
        &self.parts
    }

    fn read_whole(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.below.read_at(GuestOffset(self.payload_at + at), buf)?;
        self.cipher.decrypt(self.number(at), buf);
        Ok(())
    }

    fn write_whole(&self, at: u64, data: &mut [u8]) -> Result<()> {
        self.cipher.encrypt(self.number(at), data);
        self.below.write_at(GuestOffset(self.payload_at + at), data)
    }
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

    // The volume is a whole number of sectors, so those around any part of it are inside.
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, buf.len())?;
        self.read_part(at.0, buf)
    }
}

impl DiskMut for Volume {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, data.len())?;
        self.write_part(at.0, data)
    }

    fn zero_at(&self, range: GuestRange) -> Result<()> {
        sectors::zero(range, self.size(), |at, zeros| self.write_at(at, zeros))
    }

    fn flush(&self) -> Result<()> {
        self.below.flush()
    }
}
