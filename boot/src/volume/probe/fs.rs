//! File systems (but FAT) and swap.
//!
//! ```text
//! ext2/3/4  1 KiB      0x0C free blocks · 0x18 block shift · 0x38 magic 0xEF53 · 0x5C compat · 0x60 incompat
//!                      0x64 ro_compat · 0x68 UUID · 0x78 label · 0x158 free blocks, upper half
//! XFS       0          0 "XFSB" · 4 block size · 32 UUID · 48 log start · 108 label · 144 free blocks
//! btrfs     64 KiB     0 checksum · 0x20 UUID · 0x40 "_BHRfS_M" · 0x70 bytes · 0x78 bytes used · 0x88 devices · 0x12B label
//! swap      0          page end - 10: "SWAPSPACE2" or a suspend mark · 0x400 version · 0x40C UUID · 0x41C label
//! NTFS      0          see volume::ntfs
//! exFAT     0          3 "EXFAT   " · 0x58 cluster heap · 0x60 root cluster · 0x64 serial · 0x6C, 0x6D shifts
//! ISO 9660  32 KiB     1 "CD001" · 40 label · 813 created · 830 modified
//! ```

use super::super::field::{be16, be32, be64, bytes, le16, le32, le64, text, text_utf16, uuid};
use super::super::ntfs;
use super::{Probe, Reader};
use crate::Result;
use crate::volume::Content;

/// Feature bits of ext superblocks (kernel: `fs/ext4/ext4.h`).
mod ext_feature {
    pub const COMPAT_HAS_JOURNAL: u32 = 0x4;
    pub const INCOMPAT_FILETYPE: u32 = 0x2;
    pub const INCOMPAT_RECOVER: u32 = 0x4;
    pub const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
    pub const INCOMPAT_META_BG: u32 = 0x10;
    pub const INCOMPAT_64BIT: u32 = 0x80;
    pub const RO_SPARSE_SUPER: u32 = 0x1;
    pub const RO_LARGE_FILE: u32 = 0x2;
    pub const RO_BTREE_DIR: u32 = 0x4;
    pub const RO_METADATA_CSUM: u32 = 0x400;
}

/// ext2, ext3 and ext4, told apart by the features that each driver knows.
pub fn ext(reader: &Reader<'_>) -> Result<Option<Probe>> {
    let Some(raw) = reader.bytes(1024, 1024)? else { return Ok(None) };
    Ok(parse_ext(&raw))
}

fn parse_ext(raw: &[u8]) -> Option<Probe> {
    use ext_feature::*;
    if le16(raw, 0x38)? != 0xef53 {
        return None;
    }
    let (compat, incompat, ro_compat) = (le32(raw, 0x5c)?, le32(raw, 0x60)?, le32(raw, 0x64)?);
    if ro_compat & RO_METADATA_CSUM != 0 && le32(raw, 0x3fc)? != !crc32c::crc32c(bytes(raw, 0, 0x3fc)?) {
        return None;
    }
    let id = uuid(raw, 0x68);
    let label = bytes(raw, 0x78, 16).and_then(text);
    let plain = incompat & !(INCOMPAT_FILETYPE | INCOMPAT_RECOVER | INCOMPAT_META_BG) == 0
        && ro_compat & !(RO_SPARSE_SUPER | RO_LARGE_FILE | RO_BTREE_DIR) == 0;
    let journal = compat & COMPAT_HAS_JOURNAL != 0;
    let probe = if incompat & INCOMPAT_JOURNAL_DEV != 0 {
        Probe::member("ext-journal")
    } else if journal && le32(raw, 0xe0)? == 0 {
        // The journal is a device of its own: nothing can be replayed from here.
        Probe::member("ext4 with an external journal")
    } else if plain && journal {
        Probe::file_system("ext3")
    } else if plain && incompat & INCOMPAT_RECOVER == 0 {
        Probe::file_system("ext2")
    } else {
        Probe::file_system("ext4")
    };
    // The kernel counts in memory; what is written down while the journal is open is of the last mount.
    let free = if incompat & INCOMPAT_RECOVER == 0 { ext_free(raw) } else { None };
    Some(probe.uuid(id).label(label).free(free))
}

/// Bytes of an ext file system's free blocks.
fn ext_free(raw: &[u8]) -> Option<u64> {
    let upper = match le32(raw, 0x60)? & ext_feature::INCOMPAT_64BIT {
        0 => 0,
        _ => le32(raw, 0x158)?,
    };
    let blocks = u64::from(upper) << 32 | u64::from(le32(raw, 0x0c)?);
    let shift = le32(raw, 0x18).filter(|shift| *shift <= 6)?;
    blocks.checked_mul(1024 << shift)
}

/// XFS.
pub fn xfs(reader: &Reader<'_>) -> Result<Option<Probe>> {
    let Some(raw) = reader.bytes(0, 264)? else { return Ok(None) };
    Ok(parse_xfs(&raw))
}

fn parse_xfs(raw: &[u8]) -> Option<Probe> {
    let block = be32(raw, 4)?;
    let sector = be16(raw, 102)?;
    let sane = raw.starts_with(b"XFSB")
        && (512..=65536).contains(&block)
        && block.is_power_of_two()
        && (512..=32768).contains(&sector)
        && sector.is_power_of_two()
        && be32(raw, 88)? != 0
        && be64(raw, 8)? != 0;
    if !sane {
        return None;
    }
    // No log inside: it is a device of its own, without which the file system cannot be mounted.
    let probe = if be64(raw, 48)? == 0 {
        Probe::member("xfs with an external log")
    } else {
        Probe::file_system("xfs")
    };
    let free = be64(raw, 144)?.checked_mul(u64::from(block));
    Some(probe.uuid(uuid(raw, 32)).label(bytes(raw, 108, 12).and_then(text)).free(free))
}

/// btrfs. One of several devices is a member: alone it cannot be mounted.
pub fn btrfs(reader: &Reader<'_>) -> Result<Option<Probe>> {
    let Some(raw) = reader.bytes(64 << 10, 4096)? else { return Ok(None) };
    if bytes(&raw, 0x40, 8) != Some(b"_BHRfS_M") {
        return Ok(None);
    }
    let alone = le64(&raw, 0x88) == Some(1);
    let probe = if alone { Probe::file_system("btrfs") } else { Probe::member("btrfs of several devices") };
    let free = le64(&raw, 0x70).zip(le64(&raw, 0x78)).and_then(|(all, used)| all.checked_sub(used));
    Ok(Some(probe.uuid(uuid(&raw, 0x20)).label(bytes(&raw, 0x12b, 256).and_then(text)).free(free)))
}

/// Page sizes that swap may have been made with.
const PAGES: [u64; 5] = [4096, 8192, 16384, 32768, 65536];

/// Swap, and swap with a suspended system in it.
pub fn swap(reader: &Reader<'_>) -> Result<Option<Probe>> {
    // TuxOnIce leaves the mark of the page's end alone.
    let tux_on_ice = reader.has(0, &[0xed, 0xc3, 0x02, 0xe9, 0x98, 0x56, 0xe5, 0x0c])?;
    for page in PAGES {
        let Some(mark) = reader.bytes(page - 10, 10)? else { continue };
        let hibernated = match &*mark {
            b"SWAPSPACE2" | b"SWAP-SPACE" => tux_on_ice,
            b"LINHIB0001" => true,
            mark if mark.starts_with(b"S1SUSPEND")
                || mark.starts_with(b"S2SUSPEND")
                || mark.starts_with(b"ULSUSPEND") =>
            {
                true
            }
            _ => continue,
        };
        let Some(raw) = reader.bytes(1024, 1024)? else { continue };
        // Version 1, either byte order, and some pages. The old kind has neither UUID nor label.
        let old = &*mark == b"SWAP-SPACE";
        let sane = matches!(le32(&raw, 0), Some(1 | 0x0100_0000)) && le32(&raw, 4) != Some(0);
        if !old && !hibernated && !sane {
            continue;
        }
        let probe = Probe::new(Content::Swap { hibernated });
        if !sane {
            return Ok(Some(probe));
        }
        return Ok(Some(probe.uuid(uuid(&raw, 12)).label(bytes(&raw, 28, 16).and_then(text))));
    }
    Ok(None)
}

/// NTFS.
pub fn ntfs(reader: &Reader<'_>) -> Result<Option<Probe>> {
    let Some(raw) = reader.bytes(0, 512)? else { return Ok(None) };
    let Some(boot) = ntfs::Boot::parse(&raw) else { return Ok(None) };
    let id = (boot.serial != 0).then(|| format!("{:016X}", boot.serial));
    let record = match (boot.record_at(3), usize::try_from(boot.record)) {
        (Some(at), Ok(len)) => reader.bytes(at, len)?,
        _ => None,
    };
    Ok(Some(Probe::file_system("ntfs").uuid(id).label(record.as_deref().and_then(ntfs::label))))
}

/// exFAT.
pub fn exfat(reader: &Reader<'_>) -> Result<Option<Probe>> {
    let Some(raw) = reader.bytes(0, 512)? else { return Ok(None) };
    if bytes(&raw, 3, 8) != Some(b"EXFAT   ") || bytes(&raw, 510, 2) != Some(&[0x55, 0xaa]) {
        return Ok(None);
    }
    let serial = le32(&raw, 0x64).filter(|&serial| serial != 0);
    let id = serial.map(|serial| format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff));
    let label = match exfat_root(&raw) {
        // mkfs puts the label first; one cluster of entries is looked at.
        Some((at, len)) => reader.bytes(at, len)?.and_then(|root| {
            let entry = root.chunks_exact(32).take_while(|entry| entry.first() != Some(&0));
            let entry = entry.into_iter().find(|entry| entry.first() == Some(&0x83))?;
            text_utf16(bytes(entry, 2, usize::from(*entry.get(1)?).min(11) * 2)?)
        }),
        None => None,
    };
    Ok(Some(Probe::file_system("exfat").uuid(id).label(label)))
}

/// Where the root folder's first cluster lies, at most 64 KiB of it.
fn exfat_root(raw: &[u8]) -> Option<(u64, usize)> {
    let sector_shift = u32::from(*raw.get(0x6c)?);
    let cluster_shift = sector_shift.checked_add(u32::from(*raw.get(0x6d)?))?;
    if !(9..=12).contains(&sector_shift) || cluster_shift > 25 {
        return None;
    }
    let heap = u64::from(le32(raw, 0x58)?) << sector_shift;
    let cluster = u64::from(le32(raw, 0x60)?.checked_sub(2)?);
    Some((heap.checked_add(cluster << cluster_shift)?, 1 << cluster_shift.min(16)))
}

/// A file system that is only named, by its magic.
struct Named {
    name: &'static str,
    at: u64,
    magic: &'static [u8],
    uuid_at: Option<u64>,
    /// Offset and length.
    label_at: Option<(u64, usize)>,
}

const fn named_by(
    name: &'static str,
    at: u64,
    magic: &'static [u8],
    uuid_at: Option<u64>,
    label_at: Option<(u64, usize)>,
) -> Named {
    Named { name, at, magic, uuid_at, label_at }
}

const NAMED: &[Named] = &[
    named_by("f2fs", 1024, &[0x10, 0x20, 0xf5, 0xf2], Some(1024 + 108), None),
    named_by("jfs", 0x8000, b"JFS1", Some(0x8000 + 136), Some((0x8000 + 152, 16))),
    named_by("reiserfs", 0x10034, b"ReIsErFs", None, None),
    named_by("reiserfs", 0x10034, b"ReIsEr2Fs", Some(0x10000 + 84), Some((0x10000 + 100, 16))),
    named_by("reiserfs", 0x10034, b"ReIsEr3Fs", Some(0x10000 + 84), Some((0x10000 + 100, 16))),
    named_by("squashfs", 0, b"hsqs", None, None),
    named_by("erofs", 1024, &[0xe2, 0xe1, 0xf5, 0xe0], Some(1024 + 48), Some((1024 + 64, 16))),
    named_by("nilfs2", 1024 + 6, &[0x34, 0x34], Some(1024 + 152), Some((1024 + 168, 80))),
    named_by("refs", 3, b"ReFS\0", None, None),
    named_by("hfsplus", 1024, b"H+\0\x04", None, None),
    named_by("hfsplus", 1024, b"HX\0\x05", None, None),
    named_by("apfs", 32, b"NXSB", Some(72), None),
    named_by("ufs", 8192 + 1372, &[0x54, 0x19, 0x01, 0x00], None, None),
    named_by("ufs", 65536 + 1372, &[0x19, 0x01, 0x54, 0x19], None, None),
];

/// File systems that are only named.
pub fn named(reader: &Reader<'_>) -> Result<Option<Probe>> {
    for &Named { name, at, magic, uuid_at, label_at } in NAMED {
        if !reader.has(at, magic)? {
            continue;
        }
        let id = match uuid_at {
            Some(at) => reader.bytes(at, 16)?.and_then(|raw| uuid(&raw, 0)),
            None => None,
        };
        let label = match label_at {
            Some((at, len)) => reader.bytes(at, len)?.and_then(|raw| text(&raw)),
            None => None,
        };
        return Ok(Some(Probe::file_system(name).uuid(id).label(label)));
    }
    Ok(None)
}

/// ISO 9660, alone.
pub fn iso9660(reader: &Reader<'_>) -> Result<Option<Probe>> {
    let Some(raw) = reader.bytes(32 << 10, 2048)? else { return Ok(None) };
    if bytes(&raw, 1, 5) != Some(b"CD001") {
        return Ok(None);
    }
    // `blkid` takes the time of modification, or else of creation, as the UUID.
    let stamp = [830, 813].into_iter().find_map(|at| {
        let digits = std::str::from_utf8(bytes(&raw, at, 16)?).ok()?;
        let real =
            digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.bytes().any(|byte| byte != b'0');
        let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
        real.then(|| {
            let parts = [(0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14), (14, 16)];
            parts.map(|(from, to)| part(from, to)).join("-")
        })
    });
    Ok(Some(Probe::file_system("iso9660").uuid(stamp).label(bytes(&raw, 40, 32).and_then(text))))
}
