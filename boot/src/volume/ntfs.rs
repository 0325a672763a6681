//! NTFS as far as it tells of itself without being mounted: geometry, label, version, and the state in which it was left.
//!
//! ```text
//! boot sector   3 "NTFS    " · 0x0B bytes per sector · 0x0D sectors per cluster · 0x30 MFT (cluster) · 0x40 record size · 0x48 serial
//! MFT record    0 "FILE" · 4 update sequence (offset, count) · 0x14 first attribute        record 2 $LogFile, 3 $Volume
//! attribute     0 type · 4 length · 8 non-resident · 9 name length · 0x10 length, 0x14 offset of the value · 0x20 offset of the runs
//! $VOLUME_INFORMATION (0x70)   8 major · 9 minor · 10 flags
//! $LogFile      two restart pages: 0 "RSTR" (or "CHKD") · 0x10 page size · 0x18 restart area · 0x1A minor · 0x1C major
//! restart area  0 last LSN · 0x0C first client in use, 0xFFFF for none · 0x0E flags, 2: the volume is clean
//! ```
//! Sources: the Linux-NTFS documentation; the kernel's `fs/ntfs3/ntfs.h`, `fslog.c`.
//!
//! Deliberately absent: files. The sandbox's kernel reads them.

use super::field::{bytes, le16, le32, le64, text_utf16};
use crate::Result;
use landfall_image::{Disk, GuestOffset};

/// What the boot sector says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Bytes of a sector: 512 nearly always.
    pub sector: u64,
    /// Bytes of a cluster.
    pub cluster: u64,
    /// 0 where there is none.
    pub serial: u64,
    /// Where the MFT begins, in bytes.
    pub mft: u64,
    /// Bytes of an MFT record, 512 to 65536.
    pub record: u64,
}

/// What the journal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// Nothing has to be done: it was closed, or it is empty.
    Clean,
    /// It has to be replayed: the volume was in use, as in every snapshot of a running machine.
    Pending {
        /// 1.1, or 2.0 where Windows 8 or newer had the volume in use.
        version: (u16, u16),
    },
    /// Its beginning is none of a journal.
    Unknown,
}

/// In which state a volume was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// 3.1 since Windows XP, 3.0 of Windows 2000, 1.2 of NT 4.
    pub version: (u8, u8),
    /// Windows checks the volume before it uses it again.
    pub is_dirty: bool,
    /// The journal.
    pub log: Log,
}

const VOLUME_INFORMATION: u32 = 0x70;
const VOLUME_NAME: u32 = 0x60;
const DATA: u32 = 0x80;

/// The volume is to be checked; a check is under way.
const DIRTY: u16 = 0x0001 | 0x4000;

/// Bytes of the journal that hold both restart pages, for pages of any size.
const RESTART_PAGES: usize = 128 << 10;

impl Boot {
    /// Of a boot sector; `None` where it is none of NTFS.
    pub fn parse(raw: &[u8]) -> Option<Boot> {
        if bytes(raw, 3, 8)? != b"NTFS    " {
            return None;
        }
        let sector = u64::from(le16(raw, 0x0b)?);
        if !(256..=4096).contains(&sector) || !sector.is_power_of_two() {
            return None;
        }
        // Above 128 the byte is a negative power of two, as with the record size.
        let per_cluster = match *raw.get(0x0d)? {
            0 => return None,
            count @ 1..=128 if count.is_power_of_two() => u64::from(count),
            shift @ 240..=249 => 1_u64.checked_shl(u32::from(256 - u16::from(shift)))?,
            _ => return None,
        };
        let cluster = sector.checked_mul(per_cluster)?;
        let record = match *raw.get(0x40)? {
            shift @ 128.. => 1_u64.checked_shl(u32::from(256 - u16::from(shift)))?,
            count => u64::from(count).checked_mul(cluster)?,
        };
        if !(512..=65536).contains(&record) {
            return None;
        }
        let mft = le64(raw, 0x30)?.checked_mul(cluster)?;
        Some(Boot { sector, cluster, serial: le64(raw, 0x48)?, mft, record })
    }

    /// Where one of the first records lies, which are in one piece.
    pub fn record_at(&self, number: u64) -> Option<u64> {
        self.mft.checked_add(number.checked_mul(self.record)?)
    }
}

/// The label in a $Volume record.
pub fn label(record: &[u8]) -> Option<String> {
    text_utf16(value(attribute(record, VOLUME_NAME)?)?)
}

/// How a volume was left; `None` where it is no NTFS, or one that is too damaged to tell.
///
/// # Errors
/// Where the disk cannot be read.
pub fn state(disk: &dyn Disk) -> Result<Option<State>> {
    let Some(raw) = read(disk, 0, 512)? else { return Ok(None) };
    let Some(boot) = Boot::parse(&raw) else { return Ok(None) };
    let mut records = Vec::new();
    for number in [3, 2] {
        let at = boot.record_at(number);
        let raw = at.map_or(Ok(None), |at| read(disk, at, usize::try_from(boot.record).unwrap_or(0)))?;
        let Some(record) = raw.and_then(fixed) else { return Ok(None) };
        records.push(record);
    }
    let [volume, journal] = records.as_slice() else { return Ok(None) };
    let Some((version, flags)) = information(volume) else { return Ok(None) };
    let mut log = Log::Unknown;
    if let Some((cluster, clusters)) = attribute(journal, DATA).and_then(first_run) {
        let len = usize::try_from(clusters.saturating_mul(boot.cluster)).unwrap_or(usize::MAX);
        if let Some(at) = cluster.checked_mul(boot.cluster)
            && let Some(raw) = read(disk, at, len.min(RESTART_PAGES))?
        {
            log = log_state(&raw);
        }
    }
    Ok(Some(State { version, is_dirty: flags & DIRTY != 0, log }))
}

fn read(disk: &dyn Disk, at: u64, len: usize) -> Result<Option<Vec<u8>>> {
    if at.checked_add(len as u64).is_none_or(|end| end > disk.size().0) {
        return Ok(None);
    }
    let mut raw = vec![0; len];
    disk.read_at(GuestOffset(at), &mut raw)?;
    Ok(Some(raw))
}

/// A record with the last two bytes of each 512 put back from its update sequence. `None` where they are torn.
fn fixed(mut record: Vec<u8>) -> Option<Vec<u8>> {
    if !record.starts_with(b"FILE") {
        return None;
    }
    let (at, count) = (usize::from(le16(&record, 4)?), usize::from(le16(&record, 6)?));
    let mark: [u8; 2] = bytes(&record, at, 2)?.try_into().ok()?;
    for number in 1..count {
        let real: [u8; 2] = bytes(&record, at + 2 * number, 2)?.try_into().ok()?;
        let end = record.get_mut(number * 512 - 2..number * 512)?;
        if *end != mark {
            return None;
        }
        end.copy_from_slice(&real);
    }
    Some(record)
}

/// The first attribute of that type, from its beginning.
fn attribute(record: &[u8], wanted: u32) -> Option<&[u8]> {
    if !record.starts_with(b"FILE") {
        return None;
    }
    let mut at = usize::from(le16(record, 0x14)?);
    loop {
        let kind = le32(record, at)?;
        let len = usize::try_from(le32(record, at.checked_add(4)?)?).ok()?;
        if kind == u32::MAX || len < 24 {
            return None;
        }
        if kind == wanted {
            return bytes(record, at, len);
        }
        at = at.checked_add(len).filter(|&at| at < record.len())?;
    }
}

/// The value of a resident attribute.
fn value(attribute: &[u8]) -> Option<&[u8]> {
    let len = usize::try_from(le32(attribute, 0x10)?).ok()?;
    bytes(attribute, usize::from(le16(attribute, 0x14)?), len).filter(|_| attribute.get(8) == Some(&0))
}

/// Version and flags in a $Volume record.
fn information(record: &[u8]) -> Option<((u8, u8), u16)> {
    let value = value(attribute(record, VOLUME_INFORMATION)?)?;
    Some(((*value.get(8)?, *value.get(9)?), le16(value, 10)?))
}

/// First cluster and length of a non-resident attribute's first run.
fn first_run(attribute: &[u8]) -> Option<(u64, u64)> {
    if attribute.get(8) != Some(&1) {
        return None;
    }
    let runs = attribute.get(usize::from(le16(attribute, 0x20)?)..)?;
    let head = *runs.first()?;
    let (len_bytes, at_bytes) = (usize::from(head & 15), usize::from(head >> 4));
    // The first run counts from zero: a negative one, or a hole, is none.
    let number = |at: usize, len: usize| -> Option<u64> {
        if !(1..=8).contains(&len) {
            return None;
        }
        let raw = bytes(runs, at, len)?;
        let value = raw.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
        raw.last().is_some_and(|last| *last < 0x80).then_some(value)
    };
    Some((number(1 + len_bytes, at_bytes)?, number(1, len_bytes)?))
}

/// What the restart page at the beginning of `page` says: its last sequence number, its version, whether it is clean.
fn restart(page: &[u8]) -> Option<(u64, (u16, u16), bool)> {
    let checked = match bytes(page, 0, 4)? {
        b"RSTR" => false,
        // chkdsk was here, and has emptied it.
        b"CHKD" => true,
        _ => return None,
    };
    let version = (le16(page, 0x1c)?, le16(page, 0x1a)?);
    let area = page.get(usize::from(le16(page, 0x18)?)..)?;
    let unused = le16(area, 0x0c)? == u16::MAX || le16(area, 0x0e)? & 2 != 0;
    Some((le64(area, 0)?, version, checked || unused))
}

fn log_state(raw: &[u8]) -> Log {
    let first = restart(raw);
    if first.is_none() && raw.starts_with(&[0xff; 512]) {
        return Log::Clean;
    }
    let size = usize::try_from(le32(raw, 0x10).unwrap_or(4096)).unwrap_or(4096);
    let second = if (512..=RESTART_PAGES / 2).contains(&size) { raw.get(size..) } else { raw.get(4096..) };
    // Of two equal ones the first counts, as for the kernel: the last of the greatest is taken.
    let newest = [second.and_then(restart), first].into_iter().flatten().max_by_key(|(last, ..)| *last);
    match newest {
        Some((_, _, true)) => Log::Clean,
        Some((_, version, false)) => Log::Pending { version },
        None => Log::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Memory, Tool};

    #[test]
    fn a_record_with_a_broken_attribute_has_no_label() {
        let mut record = vec![0; 1024];
        record[..4].copy_from_slice(b"FILE");
        record[0x14] = 0x38;
        assert_eq!(label(&record), None, "length 0 would loop");
        record[0x38 + 4..0x38 + 8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(label(&record), None);
        assert_eq!(label(&record[..0x39]), None);
    }

    /// A small volume of mkntfs.
    fn made() -> Option<Vec<u8>> {
        testing::tool("mkntfs")?;
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("ntfs");
        testing::sparse(&image, 8 << 20);
        Tool::line(&format!("mkntfs -q -F -f -L Daten {}", image.display())).run();
        Some(std::fs::read(&image).unwrap())
    }

    fn of(raw: &[u8]) -> Option<State> {
        state(&Memory::new(raw.to_vec())).unwrap()
    }

    /// Where the value of $VOLUME_INFORMATION lies, and the journal.
    fn places(raw: &[u8]) -> (usize, usize) {
        let boot = Boot::parse(raw).unwrap();
        let record_of = |number| usize::try_from(boot.record_at(number).unwrap()).unwrap();
        let record = &raw[record_of(3)..][..1024];
        let found = attribute(record, VOLUME_INFORMATION).unwrap();
        let offset = found.as_ptr() as usize - record.as_ptr() as usize;
        let (cluster, _) = first_run(attribute(&raw[record_of(2)..][..1024], DATA).unwrap()).unwrap();
        (record_of(3) + offset + 0x18, usize::try_from(cluster * boot.cluster).unwrap())
    }

    #[test]
    fn states_are_told() {
        let Some(raw) = made() else { return };
        let clean = State { version: (3, 1), is_dirty: false, log: Log::Clean };
        assert_eq!(of(&raw), Some(clean.clone()));
        let (volume, log) = places(&raw);
        let mut dirty = raw.clone();
        dirty[volume + 10] |= 1;
        assert_eq!(of(&dirty), Some(State { is_dirty: true, ..clean.clone() }));
        let mut old = raw.clone();
        old[volume + 8..volume + 10].copy_from_slice(&[1, 2]);
        assert_eq!(of(&old), Some(State { version: (1, 2), ..clean.clone() }));
        // A restart page with a client that did not leave; then a second, newer one with none.
        let page = |last: u64, client: u16, flags: u16| {
            let mut page = vec![0; 4096];
            page[..4].copy_from_slice(b"RSTR");
            page[0x10..0x18].copy_from_slice(&[0, 0x10, 0, 0, 0, 0x10, 0, 0]);
            page[0x18] = 0x30;
            page[0x1c] = 2;
            page[0x30..0x38].copy_from_slice(&last.to_le_bytes());
            page[0x3c..0x3e].copy_from_slice(&client.to_le_bytes());
            page[0x3e..0x40].copy_from_slice(&flags.to_le_bytes());
            page
        };
        let pending = Log::Pending { version: (2, 0) };
        for (first, second, expected) in [
            (page(9, 0, 0), page(8, u16::MAX, 0), pending),
            (page(9, 0, 0), page(10, u16::MAX, 0), Log::Clean),
            (page(9, 0, 2), page(8, 0, 0), Log::Clean),
            (page(9, 0, 0), page(9, 0, 2), pending),
            (page(9, 0, 2), page(9, 0, 0), Log::Clean),
            (vec![0xff; 4096], page(8, 0, 0), Log::Clean),
            (vec![0; 4096], page(8, 0, 0), pending),
            (vec![0; 4096], vec![0; 4096], Log::Unknown),
        ] {
            let mut other = raw.clone();
            other[log..log + 8192].copy_from_slice(&[first, second].concat());
            assert_eq!(of(&other), Some(State { log: expected, ..clean.clone() }));
        }
    }

    /// Any damage to the boot sector and the first records: an answer, no panic.
    #[test]
    fn no_damage_panics() {
        let Some(raw) = made() else { return };
        let boot = Boot::parse(&raw).unwrap();
        let mft = usize::try_from(boot.mft).unwrap();
        let mut number = 1_u64;
        for _ in 0..4000 {
            let mut bad = raw.clone();
            for _ in 0..4 {
                number =
                    number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = usize::try_from(number >> 40).unwrap() % 4608;
                let at = if at < 512 { at } else { mft + at - 512 };
                bad[at] = number.to_le_bytes()[4];
            }
            let _ = of(&bad);
        }
        for len in [0, 1, 511, 512, 4096, 20_000] {
            let _ = of(&raw[..len]);
        }
    }
}
