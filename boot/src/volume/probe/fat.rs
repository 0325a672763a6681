//! FAT12, FAT16 and FAT32 (Microsoft: FAT32 File System Specification 1.03; kernel: `fs/fat/inode.c`).
//!
//! ```text
//! 0   jump, OEM name   11 bytes per sector   13 sectors per cluster   14 reserved sectors   16 FATs
//! 17  root entries     19 sectors (16 bits)  21 media                 22 sectors per FAT    32 sectors (32 bits)
//! FAT12/16: 39 serial, 43 label, 54 "FAT16   "
//! FAT32:    36 sectors per FAT, 44 root cluster, 48 FSInfo, 67 serial, 71 label, 82 "FAT32   "     510 55 AA
//! FSInfo:   0 "RRaA"   484 "rrAa"   488 free clusters, FFFFFFFF where they are not counted
//! ```
//! The mark 55 AA is also that of boot sectors and partition tables, and the file-system names are decoration: the
//! numbers decide.

use super::super::field::{bytes, le16, le32};
use super::{Probe, Reader};
use crate::Result;

/// What the boot sector says.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    /// 0 where there is none.
    serial: u32,
    /// Where the root folder begins, in bytes.
    root: u64,
    /// Bytes of it that may be looked at: all of it, or one cluster.
    root_len: usize,
    /// FAT32: the chain of the root folder, as (FAT's place, data's place, cluster size, first cluster).
    chain: Option<(u64, u64, u64, u32)>,
    /// FAT32: where FSInfo lies.
    info: Option<u64>,
}

fn parse(raw: &[u8]) -> Option<Layout> {
    let sector = u64::from(le16(raw, 11)?);
    let per_cluster = u64::from(*raw.get(13)?);
    let reserved = u64::from(le16(raw, 14)?);
    let fats = u64::from(*raw.get(16)?);
    let root_entries = u64::from(le16(raw, 17)?);
    let media = *raw.get(21)?;
    let named = matches!(bytes(raw, 82, 8)?, b"FAT32   " | b"MSWIN4.0" | b"MSWIN4.1")
        || matches!(bytes(raw, 54, 5)?, b"FAT16" | b"FAT12" | b"FAT  " | b"MSDOS");
    let jumps = matches!(raw.first(), Some(0xeb | 0xe9));
    let marked = bytes(raw, 510, 2)? == [0x55, 0xaa];
    let sane = matches!(sector, 512 | 1024 | 2048 | 4096)
        && per_cluster.is_power_of_two()
        && reserved > 0
        && (1..=4).contains(&fats)
        && (media == 0xf0 || media >= 0xf8);
    // Other file systems keep a FAT-like parameter block for old boot loaders.
    let other = matches!(bytes(raw, 3, 8)?, b"NTFS    " | b"EXFAT   " | b"-FVE-FS-")
        || matches!(bytes(raw, 54, 8)?, b"JFS     " | b"HPFS    ");
    if !sane || other || !(named || jumps && marked) {
        return None;
    }
    let sectors = match u64::from(le16(raw, 19)?) {
        0 => u64::from(le32(raw, 32)?),
        short => short,
    };
    let short_fat = u64::from(le16(raw, 22)?);
    let is_32 = short_fat == 0;
    let fat = if is_32 { u64::from(le32(raw, 36)?) } else { short_fat };
    let root_sectors = (root_entries * 32).div_ceil(sector);
    let data_at = reserved + fats * fat + root_sectors;
    let clusters = sectors.checked_sub(data_at)? / per_cluster;
    let most = if is_32 { 0x0fff_fff6 } else { 65524 };
    if fat == 0 || clusters == 0 || clusters > most {
        return None;
    }
    let serial = le32(raw, if is_32 { 67 } else { 39 })?;
    if is_32 {
        let first = le32(raw, 44)?;
        let cluster = sector * per_cluster;
        let chain = Some((reserved * sector, data_at * sector, cluster, first));
        let info = le16(raw, 48).filter(|at| (1..0xffff).contains(at)).map(|at| u64::from(at) * sector);
        return Some(Layout { serial, root: 0, root_len: 0, chain, info });
    }
    let root = (reserved + fats * fat) * sector;
    Some(Layout { serial, root, root_len: usize::try_from(root_entries * 32).ok()?, chain: None, info: None })
}

/// FAT of any width.
pub fn vfat(reader: &Reader<'_>) -> Result<Option<Probe>> {
    let Some(raw) = reader.bytes(0, 512)? else { return Ok(None) };
    let Some(layout) = parse(&raw) else { return Ok(None) };
    let id = layout.serial;
    let id = (id != 0).then(|| format!("{:04X}-{:04X}", id >> 16, id & 0xffff));
    let label = match layout.chain {
        None => reader.bytes(layout.root, layout.root_len)?.and_then(|root| label_in(&root).1),
        Some(chain) => label_in_chain(reader, chain)?,
    };
    let info = match layout.info {
        Some(at) => reader.bytes(at, 512)?,
        None => None,
    };
    let free = info.zip(layout.chain).and_then(|(info, (_, _, cluster, _))| free(&info, cluster));
    Ok(Some(Probe::file_system("vfat").uuid(id).label(label).free(free)))
}

/// Bytes of the free clusters that FSInfo counts.
fn free(info: &[u8], cluster: u64) -> Option<u64> {
    let marked = bytes(info, 0, 4)? == b"RRaA" && bytes(info, 484, 4)? == b"rrAa";
    let clusters = le32(info, 488).filter(|count| marked && *count != u32::MAX)?;
    u64::from(clusters).checked_mul(cluster)
}

/// Clusters of a FAT32 root folder that are searched for the label, which nearly always comes first.
const CLUSTERS_SEARCHED: usize = 16;

fn label_in_chain(
    reader: &Reader<'_>,
    (fat, data, cluster_len, first): (u64, u64, u64, u32),
) -> Result<Option<String>> {
    let len = usize::try_from(cluster_len).unwrap_or(0);
    let mut cluster = first;
    for _ in 0..CLUSTERS_SEARCHED {
        let Some(index) = cluster.checked_sub(2).filter(|_| cluster < 0x0fff_fff7) else { break };
        let Some(raw) = reader.bytes(data + u64::from(index) * cluster_len, len)? else { break };
        match label_in(&raw) {
            (_, Some(label)) => return Ok(Some(label)),
            (true, None) => break,
            (false, None) => {}
        }
        let Some(next) = reader.bytes(fat + u64::from(cluster) * 4, 4)? else { break };
        cluster = le32(&next, 0).unwrap_or(0) & 0x0fff_ffff;
    }
    Ok(None)
}

/// (whether the folder's end was seen, the volume label) of directory entries.
fn label_in(entries: &[u8]) -> (bool, Option<String>) {
    for entry in entries.chunks_exact(32) {
        let (name, attributes) = match (entry.first_chunk::<11>(), entry.get(11)) {
            (Some(name), Some(attributes)) => (*name, *attributes),
            _ => continue,
        };
        match name.first() {
            Some(0) => return (true, None),
            Some(0xe5) => continue,
            _ => {}
        }
        // A volume label, not a part of a long name, and with no cluster.
        let cluster = (le16(entry, 20), le16(entry, 26));
        if attributes & 0x18 == 0x08 && attributes & 0x3f != 0x0f && cluster == (Some(0), Some(0)) {
            let mut name = name;
            if name.first() == Some(&0x05) {
                name[0] = 0xe5;
            }
            return (true, super::field::text(&name));
        }
    }
    (false, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_sectors_of_others_are_no_fat() {
        let mut mbr = vec![0; 512];
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        mbr[0] = 0xeb;
        assert_eq!(parse(&mbr), None);
        let mut sane = mbr.clone();
        sane[11..13].copy_from_slice(&512_u16.to_le_bytes());
        sane[13] = 4;
        sane[14] = 1;
        sane[16] = 2;
        sane[17..19].copy_from_slice(&512_u16.to_le_bytes());
        sane[19..21].copy_from_slice(&20480_u16.to_le_bytes());
        sane[21] = 0xf8;
        sane[22..24].copy_from_slice(&20_u16.to_le_bytes());
        assert!(parse(&sane).is_some());
        for (at, bytes) in
            [(3, &b"NTFS    "[..]), (54, b"HPFS    "), (13, &[3]), (16, &[0]), (21, &[1]), (22, &[0, 0])]
        {
            let mut other = sane.clone();
            other[at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(parse(&other), None, "{at}");
        }
    }
}
