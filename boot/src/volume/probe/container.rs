//! Arrays, pools, physical volumes and encryption: what holds other volumes.
//!
//! ```text
//! md 0.90   last 64 KiB-aligned 64 KiB of the device     (kernel: include/uapi/linux/raid/md_p.h)
//! md 1.0    8 KiB before the end, aligned to 4 KiB        1.1: at 0       1.2: at 4 KiB
//! LVM2      label in one of the first four sectors        (see super::super::lvm)
//! LUKS      at 0; a second LUKS2 header at one of its legal offsets   (cryptsetup: on-disk format 1 and 2)
//! bcache, bcachefs   at 4 KiB         drbd   last 4 KiB            BitLocker   boot sector
//! ZFS       four labels: 0, 256 KiB, and the last two times 256 KiB; uberblocks in their second half
//! ```

use super::super::field::{array, be16, be32, be64, bytes, le32, le64, text, uuid};
use super::{Probe, Reader, fits};
use crate::Result;
use crate::volume::md::superblock;
use crate::volume::{Content, lvm};
use landfall_image::{Bytes, GuestOffset};

/// Linux software RAID.
pub fn md(reader: &Reader<'_>) -> Result<Option<Probe>> {
    if let Some((_, found)) = md_0_90(reader)? {
        return Ok(Some(found));
    }
    md_1(reader)
}

fn md_1(reader: &Reader<'_>) -> Result<Option<Probe>> {
    for (at, _) in superblock::new_places(Bytes(reader.size())) {
        let Some(raw) = reader.bytes(at.0, 256)? else { continue };
        if superblock::is_new(&raw, at) {
            let label = bytes(&raw, 32, 32).and_then(text);
            return Ok(Some(Probe::member("linux-raid").uuid(uuid(&raw, 16)).label(label)));
        }
    }
    Ok(None)
}

/// An array whose member is a whole disk, partition table and all. `is_covered` tells whether a partition lies over a
/// place: an old superblock there is the partition's, which has it at the same place if it is the last one.
pub fn whole_disk_array(reader: &Reader<'_>, is_covered: &dyn Fn(u64) -> bool) -> Result<Option<Probe>> {
    if let Some((at, found)) = md_0_90(reader)?
        && !is_covered(at)
    {
        return Ok(Some(found));
    }
    match md_1(reader)? {
        Some(found) => Ok(Some(found)),
        None => firmware_raid(reader),
    }
}

/// Where the old kind of superblock lies, and what it says.
fn md_0_90(reader: &Reader<'_>) -> Result<Option<(u64, Probe)>> {
    let Some(GuestOffset(at)) = superblock::old_place(Bytes(reader.size())) else { return Ok(None) };
    let Some(raw) = reader.bytes(at, 64)? else { return Ok(None) };
    if !superblock::is_old(&raw) {
        return Ok(None);
    }
    let little = le32(&raw, 0) == Some(0xa92b_4efc);
    // The four words of the UUID are numbers in the machine's order and printed as big-endian ones.
    let mut id = [0; 16];
    for (index, word_at) in [20, 52, 56, 60].into_iter().enumerate() {
        let Some(mut word) = array::<4>(&raw, word_at) else { return Ok(None) };
        if little {
            word.reverse();
        }
        for (to, from) in id.iter_mut().skip(index * 4).zip(word) {
            *to = from;
        }
    }
    Ok(Some((at, Probe::member("linux-raid").uuid(uuid(&id, 0)))))
}

/// RAID of firmware and host adapters: Intel and SNIA DDF, by their marks near the end.
pub fn firmware_raid(reader: &Reader<'_>) -> Result<Option<Probe>> {
    let sectors = reader.size() / 512;
    // Intel keeps its record in the sector before the last; SNIA's anchor is the last, or 256 before.
    if let Some(at) = sectors.checked_sub(2)
        && reader.has(at * 512, b"Intel Raid ISM Cfg Sig. ")?
    {
        return Ok(Some(Probe::member("isw-raid")));
    }
    for back in [1, 257] {
        if let Some(at) = sectors.checked_sub(back)
            && (reader.has(at * 512, &[0xde, 0x11, 0xde, 0x11])?
                || reader.has(at * 512, &[0x11, 0xde, 0x11, 0xde])?)
        {
            return Ok(Some(Probe::member("ddf-raid")));
        }
    }
    Ok(None)
}

/// bcache, backing or cache device.
pub fn bcache(reader: &Reader<'_>) -> Result<Option<Probe>> {
    const MAGIC: [u8; 16] =
        [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81];
    let Some(raw) = reader.bytes(4096, 128)? else { return Ok(None) };
    if bytes(&raw, 24, 16) != Some(&MAGIC) || le64(&raw, 8) != Some(8) {
        return Ok(None);
    }
    let label = bytes(&raw, 72, 32).and_then(text);
    Ok(Some(Probe::member("bcache").uuid(uuid(&raw, 40)).label(label)))
}

/// bcachefs, one device of several or alone.
pub fn bcachefs(reader: &Reader<'_>) -> Result<Option<Probe>> {
    const MAGIC: [u8; 16] =
        [0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef];
    let Some(raw) = reader.bytes(4096, 128)? else { return Ok(None) };
    if bytes(&raw, 24, 16) != Some(&MAGIC) {
        return Ok(None);
    }
    let label = bytes(&raw, 72, 32).and_then(text);
    Ok(Some(Probe::member("bcachefs").uuid(uuid(&raw, 56)).label(label)))
}

/// DRBD with internal metadata, 8.x and 9.
pub fn drbd(reader: &Reader<'_>) -> Result<Option<Probe>> {
    let Some(at) = reader.size().checked_sub(4096) else { return Ok(None) };
    let Some(raw) = reader.bytes(at, 64)? else { return Ok(None) };
    let device_at = match be32(&raw, 60) {
        Some(0x8374_026b | 0x8374_026c) => 40,
        Some(0x8374_026d) => 48,
        _ => return Ok(None),
    };
    let id = be64(&raw, device_at).filter(|&id| id != 0).map(|id| format!("{id:x}"));
    Ok(Some(Probe::member("drbd").uuid(id)))
}

/// An LVM2 physical volume. Its group's name is found by [`lvm`], from the metadata.
pub fn lvm(reader: &Reader<'_>) -> Result<Option<Probe>> {
    let Some(raw) = reader.bytes(0, lvm::LABEL_SCAN_BYTES)? else { return Ok(None) };
    Ok(lvm::find_label(&raw).map(|label| {
        Probe::new(Content::LvmPhysical { group: String::new() }).uuid(Some(lvm::dashed(&label.pv_uuid)))
    }))
}

/// Offsets at which LUKS2 may have its second header.
const LUKS2_SECOND: [u64; 9] =
    [0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x10_0000, 0x20_0000, 0x40_0000];

/// LUKS 1 and 2.
pub fn luks(reader: &Reader<'_>) -> Result<Option<Probe>> {
    let parse = |raw: &[u8]| {
        let version = be16(raw, 6)?;
        let id = bytes(raw, 168, 40).and_then(text);
        let label = if version == 2 { bytes(raw, 24, 48).and_then(text) } else { None };
        matches!(version, 1 | 2).then(|| Probe::encrypted(&format!("LUKS{version}")).uuid(id).label(label))
    };
    if let Some(raw) = reader.bytes(0, 208)?
        && raw.starts_with(b"LUKS\xba\xbe")
    {
        return Ok(parse(&raw));
    }
    for at in LUKS2_SECOND {
        if let Some(raw) = reader.bytes(at, 512)?
            && raw.starts_with(b"SKUL\xba\xbe")
            && be64(&raw, 256) == Some(at)
        {
            return Ok(parse(&raw));
        }
    }
    Ok(None)
}

/// BitLocker.
pub fn bitlocker(reader: &Reader<'_>) -> Result<Option<Probe>> {
    const TO_GO: [u8; 16] =
        [0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01];
    let fixed = reader.has(3, b"-FVE-FS-")?;
    let to_go = reader.has(3, b"MSWIN4.1")? && reader.has(0x1a8, &TO_GO)?;
    Ok((fixed || to_go).then(|| Probe::encrypted("BitLocker")))
}

/// A member of a ZFS pool. As `blkid` does it: one uberblock may be a remnant, four are not.
pub fn zfs(reader: &Reader<'_>) -> Result<Option<Probe>> {
    const LABEL: u64 = 256 << 10;
    const HALF: usize = 128 << 10;
    let size = reader.size();
    if !fits(size, Bytes(4 * LABEL)) {
        return Ok(None);
    }
    let end = size & !(LABEL - 1);
    let mut found = 0;
    for at in [0, LABEL, end - 2 * LABEL, end - LABEL] {
        let Some(raw) = reader.bytes(at + HALF as u64, HALF)? else { continue };
        found += raw
            .chunks_exact(1024)
            .filter(|block| {
                matches!(
                    array::<8>(block, 0),
                    Some([0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0] | [0, 0, 0, 0, 0, 0xba, 0xb1, 0x0c])
                )
            })
            .count();
        if found >= 4 {
            return Ok(Some(Probe::member("zfs")));
        }
    }
    Ok(None)
}

/// A VMFS datastore.
pub fn vmfs(reader: &Reader<'_>) -> Result<Option<Probe>> {
    Ok(reader.has(0x10_0000, &[0x0d, 0xd0, 0x01, 0xc0])?.then(|| Probe::member("vmfs")))
}
