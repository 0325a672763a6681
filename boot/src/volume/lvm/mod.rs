//! LVM2: physical volumes, the metadata that they carry, and where each logical volume lies.
//!
//! The on-disk format is that of lvm2's `lib/format_text/layout.h` and `lib/label/label.c`; numbers are little-endian.
//!
//! ```text
//! physical volume
//! 0       label in one of the first 4 sectors:
//!           0 "LABELONE" · 8 sector · 16 CRC of 20.. · 20 offset of the header (32) · 24 "LVM2 001"
//!           32 PV UUID (32 letters) · 64 device size · 72 data areas (offset, size)…, 0,0 · metadata areas…, 0,0
//! 4 KiB   metadata area
//!           0 CRC of 4..512 · 4 " LVM2 x[5A%r0N*>" · 20 version 1 · 24 start · 32 size
//!           40 committed text: offset · size · CRC · flags (bit 0: ignored)
//!           512.. text of the whole volume group, in a ring: it wraps to 512
//! 1 MiB   extents
//! ```
//!
//! Opened: linear and striped segments, over any number of disks; mirrors of these (segment types raid1 and mirror) and arrays
//! with parity (raid4, raid5, raid6); thin volumes and cached ones, whose parts may be any of those.
//! Everything else (old-style snapshots, writecache, raid10, VDO) is recognised and not opened.
//! Deliberately absent: the LVM1 format, shared (clustered) groups' locks, and writing metadata.

mod assembly;
mod behind;
mod cache;
mod group;
mod mirror;
mod raid;
mod segments;
mod snapshots;
pub mod text;
mod texts;
mod thin;

pub use group::{Group, Logical, Mapping, Physical, assemble};
pub use texts::Texts;

use super::field::{array, bytes, le32, le64};
use crate::{Error, Kind, Result, limits};
use landfall_image::{Bytes, Disk, GuestOffset};

/// The label lies in one of the first four sectors.
pub const LABEL_SCAN_BYTES: usize = 4 * 512;

const SECTOR: usize = 512;
/// A metadata area's header; the ring begins behind it.
const AREA_HEADER: u64 = 512;

/// What a physical volume's label says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// 32 letters, without dashes.
    pub pv_uuid: String,
    /// Size of the device when it was made a physical volume; 0 where that is not known.
    pub device_size: Bytes,
    /// Metadata areas as (offset in the physical volume, length).
    pub metadata_areas: Vec<(GuestOffset, Bytes)>,
}

/// lvm2's CRC-32: the usual polynomial, started from a number of its own and not inverted at the end.
fn crc(data: &[u8]) -> u32 {
    data.iter().fold(0xf597_a6cf, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

/// The label in the first [`LABEL_SCAN_BYTES`] of a device, with a right checksum.
pub fn find_label(head: &[u8]) -> Option<Label> {
    head.chunks_exact(SECTOR).take(4).zip(0_u64..).find_map(|(sector, number)| {
        let sound = bytes(sector, 0, 8)? == b"LABELONE"
            && bytes(sector, 24, 8)? == b"LVM2 001"
            && le64(sector, 8)? == number
            && le32(sector, 16)? == crc(sector.get(20..)?);
        if sound { parse_label(sector) } else { None }
    })
}

fn parse_label(sector: &[u8]) -> Option<Label> {
    let header = sector.get(usize::try_from(le32(sector, 20)?).ok()?..)?;
    let pv_uuid: [u8; 32] = array(header, 0)?;
    if !pv_uuid.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let mut at = 40;
    let mut list = || {
        let mut areas = Vec::new();
        loop {
            let (offset, size) = (le64(header, at)?, le64(header, at + 8)?);
            at += 16;
            if offset == 0 {
                return Some(areas);
            }
            if areas.len() < limits::LVM_AREAS {
                areas.push((GuestOffset(offset), Bytes(size)));
            }
        }
    };
    list()?;
    Some(Label {
        pv_uuid: String::from_utf8_lossy(&pv_uuid).into_owned(),
        device_size: Bytes(le64(header, 32)?),
        metadata_areas: list()?,
    })
}

/// An LVM UUID as its tools print it: `6-4-4-4-4-4-6`.
pub fn dashed(uuid: &str) -> String {
    let mut out = String::new();
    for (index, letter) in uuid.chars().enumerate() {
        if [6, 10, 14, 18, 22, 26].contains(&index) {
            out.push('-');
        }
        out.push(letter);
    }
    out
}

/// Where the committed text lies in a metadata area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Text {
    /// From the beginning of the area.
    offset: u64,
    size: u64,
    crc: u32,
}

/// The header of a metadata area of `area` bytes: its committed text, if it has one that is in use.
fn parse_area(header: &[u8], start: GuestOffset, area: Bytes) -> Result<Option<Text>> {
    let wrong = |says: String| Error::corrupt(format!("LVM metadata area at {:#x}: {says}", start.0));
    let short = || wrong("cut off".into());
    if bytes(header, 4, 16) != Some(b" LVM2 x[5A%r0N*>") {
        return Err(wrong("its magic is absent".into()));
    }
    let (stored, counted) =
        (le32(header, 0).ok_or_else(short)?, crc(header.get(4..SECTOR).ok_or_else(short)?));
    if stored != counted {
        return Err(wrong(format!("its checksum is {stored:#010x}, its content gives {counted:#010x}")));
    }
    let version = le32(header, 20).ok_or_else(short)?;
    if version != 1 {
        return Err(Error::unsupported(format!("LVM metadata area: version {version}; only 1 is known")));
    }
    let (own_start, own_size) = (le64(header, 24), le64(header, 32));
    if own_start != Some(start.0) {
        return Err(wrong(format!("says that it starts at {:#x}", own_start.unwrap_or(0))));
    }
    let (offset, size) = (le64(header, 40).ok_or_else(short)?, le64(header, 48).ok_or_else(short)?);
    let (text_crc, flags) = (le32(header, 56).ok_or_else(short)?, le32(header, 60).ok_or_else(short)?);
    if offset == 0 || flags & 1 != 0 {
        return Ok(None);
    }
    let room = own_size.unwrap_or(0).min(area.0).saturating_sub(AREA_HEADER);
    let inside = offset.checked_sub(AREA_HEADER).is_some_and(|offset| offset < room);
    if !inside || size == 0 || size > room {
        return Err(wrong(format!(
            "its text of {size} bytes at {offset:#x} does not fit the ring of {room} bytes"
        )));
    }
    if size > limits::LVM_METADATA.0 {
        return Err(Error::refused(format!(
            "LVM metadata of {}; at most {} are read",
            Bytes(size),
            limits::LVM_METADATA
        )));
    }
    Ok(Some(Text { offset, size, crc: text_crc }))
}

/// The text of the volume group that the physical volume `disk` belongs to: from the first sound metadata area.
/// `None` where it carries none, or belongs to no group yet. `left` bytes of text may be read, and are counted down.
pub fn read_metadata(disk: &dyn Disk, label: &Label, left: &mut u64) -> Result<Option<String>> {
    let mut failed = None;
    for &(start, area) in &label.metadata_areas {
        match read_area(disk, start, area, left) {
            Ok(Some(text)) => return Ok(Some(text)),
            Ok(None) => {}
            Err(error) if error.kind() == Kind::Io && error.io_error().is_none() => return Err(error),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(None), Err)
}

fn read_area(disk: &dyn Disk, start: GuestOffset, area: Bytes, left: &mut u64) -> Result<Option<String>> {
    // A device that grew has a size of 0 for "to its end".
    let rest = disk.size().0.saturating_sub(start.0);
    let area = Bytes(if area.0 == 0 { rest } else { area.0 });
    if area.0 > rest || area.0 < AREA_HEADER {
        return Err(Error::corrupt(format!(
            "LVM metadata area of {} bytes at {:#x}; the physical volume ends at {:#x}",
            area.0,
            start.0,
            disk.size().0
        )));
    }
    let mut header = [0; SECTOR];
    disk.read_at(start, &mut header)?;
    let Some(text) = parse_area(&header, start, area)? else { return Ok(None) };
    *left = left.checked_sub(text.size).ok_or_else(|| {
        Error::refused(format!(
            "LVM metadata of {}, with more than {} on this machine's disks in all",
            Bytes(text.size),
            limits::LVM_METADATA_IN_ALL
        ))
    })?;
    let own_size = le64(&header, 32).unwrap_or(0).min(area.0);
    let at = start.0 + text.offset;
    let first = text.size.min(own_size - text.offset);
    let mut raw = vec![0; Bytes(text.size).to_usize().unwrap_or(0)];
    let (head, tail) = raw.split_at_mut(Bytes(first).to_usize().unwrap_or(0));
    disk.read_at(GuestOffset(at), head)?;
    disk.read_at(GuestOffset(start.0 + AREA_HEADER), tail)?;
    let counted = crc(&raw);
    if counted != text.crc {
        return Err(Error::corrupt(format!(
            "LVM metadata at {at:#x}: its checksum is {:#010x}, its content gives {counted:#010x}",
            text.crc
        )));
    }
    String::from_utf8(raw)
        .map(Some)
        .map_err(|_| Error::corrupt(format!("LVM metadata at {at:#x} is not text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sector with a label, header and checksums as lvm2 writes them.
    pub fn label_sector(areas: &[(u64, u64)]) -> Vec<u8> {
        let mut sector = vec![0; SECTOR];
        sector[..8].copy_from_slice(b"LABELONE");
        sector[8..16].copy_from_slice(&1_u64.to_le_bytes());
        sector[20..24].copy_from_slice(&32_u32.to_le_bytes());
        sector[24..32].copy_from_slice(b"LVM2 001");
        sector[32..64].fill(b'a');
        sector[72..80].copy_from_slice(&0x10_0000_u64.to_le_bytes());
        for (index, (offset, size)) in areas.iter().enumerate() {
            sector[104 + index * 16..][..8].copy_from_slice(&offset.to_le_bytes());
            sector[112 + index * 16..][..8].copy_from_slice(&size.to_le_bytes());
        }
        let sum = crc(&sector[20..]);
        sector[16..20].copy_from_slice(&sum.to_le_bytes());
        sector
    }

    #[test]
    fn a_label_needs_its_checksum_and_its_place() {
        let mut head = vec![0; LABEL_SCAN_BYTES];
        head[512..1024].copy_from_slice(&label_sector(&[(4096, 1 << 20)]));
        let label = find_label(&head).unwrap();
        assert_eq!(label.metadata_areas, [(GuestOffset(4096), Bytes(1 << 20))]);
        assert_eq!(dashed(&label.pv_uuid), "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa");
        head.rotate_left(512);
        assert_eq!(find_label(&head), None, "the label of sector 1 in sector 0");
        head.rotate_right(512);
        head[700] ^= 1;
        assert_eq!(find_label(&head), None);
        // No end of the lists.
        let endless: Vec<_> = (0..25).map(|_| (1, 1)).collect();
        head[512..1024].copy_from_slice(&label_sector(&endless));
        assert_eq!(find_label(&head), None);
    }

    #[test]
    fn an_area_header_is_checked() {
        let header = |offset: u64, size: u64, flags: u32| {
            let mut header = vec![0; SECTOR];
            header[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
            header[20] = 1;
            header[24..32].copy_from_slice(&4096_u64.to_le_bytes());
            header[32..40].copy_from_slice(&(1_u64 << 20).to_le_bytes());
            header[40..48].copy_from_slice(&offset.to_le_bytes());
            header[48..56].copy_from_slice(&size.to_le_bytes());
            header[60..64].copy_from_slice(&flags.to_le_bytes());
            let sum = crc(&header[4..]);
            header[..4].copy_from_slice(&sum.to_le_bytes());
            header
        };
        let parse = |raw: &[u8]| parse_area(raw, GuestOffset(4096), Bytes(1 << 20));
        let ring = (1 << 20) - 512;
        assert!(parse(&header(512, ring, 0)).unwrap().is_some());
        assert!(parse(&header(512 + ring - 1, 100, 0)).unwrap().is_some(), "wraps");
        assert!(parse(&header(512, 10, 1)).unwrap().is_none(), "ignored");
        assert!(parse(&header(0, 0, 0)).unwrap().is_none(), "no group");
        for (offset, size) in [(511, 1), (512 + ring, 1), (512, ring + 1), (512, 0), (u64::MAX, 1)] {
            assert_eq!(parse(&header(offset, size, 0)).unwrap_err().kind(), Kind::Corrupt, "{offset} {size}");
        }
        let mut flipped = header(512, 10, 0);
        flipped[100] ^= 1;
        assert!(parse(&flipped).is_err());
        assert!(parse_area(&header(512, 10, 0), GuestOffset(8192), Bytes(1 << 20)).is_err());
        assert!(parse(&[]).is_err());
    }
}
