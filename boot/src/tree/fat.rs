//! FAT12, FAT16 and FAT32 read straight from a disk, for EFI system partitions (Microsoft: FAT32 File System Specification
//! 1.03; long names: section "FAT Long Directory Entries"). Little-endian.
//!
//! ```text
//! [reserved: boot sector …][FATs][root folder (12/16)][clusters from number 2 on]
//! entry     0 8+3 name · 11 attributes · 12 case · 20 cluster, high · 22 time · 24 date · 26 cluster · 28 size
//! long part 0 number (0x40: last) · 1, 14, 28 13 UTF-16 units · 11 0x0F · 13 sum of the short name; parts come before the
//!           entry, the last one first
//! ```
//! Modes are what the kernel gives by default (0755), owners root. Names are found without regard to ASCII case, as the
//! kernel does. What contradicts itself is [`Corrupt`](crate::Kind::Corrupt), and the kernel in the sandbox gets to judge it. Deliberately
//! absent: code pages (a short name that is not ASCII is left to the kernel) and writing.

use super::walk::{self, Step};
use super::{Entry, GuestTree, Meta, NodeKind};
use crate::volume::field::{array, bytes, le16, le32};
use crate::{Error, Result};
use landfall_image::{Bytes, Disk, GuestOffset};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A FAT file system, read-only.
pub struct FatTree {
    disk: Arc<dyn Disk>,
    shape: Shape,
    folders: Mutex<HashMap<u32, Arc<Vec<Node>>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// Where everything lies, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    width: Width,
    fat: u64,
    /// FAT12/16: where the root folder lies; FAT32: its first cluster, in `root_cluster`.
    root: u64,
    root_len: u64,
    root_cluster: u32,
    data: u64,
    cluster: u64,
    clusters: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    name: String,
    is_folder: bool,
    is_read_only: bool,
    cluster: u32,
    size: u32,
    mtime_seconds: i64,
}

fn corrupt(says: impl Into<String>) -> Error {
    Error::corrupt(format!("FAT: {}", says.into()))
}

impl Shape {
    fn parse(raw: &[u8], disk_size: u64) -> Result<Shape> {
        Self::fields(raw, disk_size).ok_or_else(|| corrupt("the boot sector makes no sense"))
    }

    fn fields(raw: &[u8], disk_size: u64) -> Option<Shape> {
        let sector = u64::from(le16(raw, 11)?);
        let per_cluster = u64::from(*raw.get(13)?);
        let reserved = u64::from(le16(raw, 14)?);
        let fats = u64::from(*raw.get(16)?);
        let root_entries = u64::from(le16(raw, 17)?);
        let (short, long) = (u64::from(le16(raw, 19)?), u64::from(le32(raw, 32)?));
        let sectors = if short == 0 { long } else { short };
        let short_fat = u64::from(le16(raw, 22)?);
        let is_32 = short_fat == 0;
        let fat_sectors = if is_32 { u64::from(le32(raw, 36)?) } else { short_fat };
        let sane = matches!(sector, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && fats > 0
            && fat_sectors > 0
            && sectors.checked_mul(sector)? <= disk_size;
        if !sane {
            return None;
        }
        let root_sectors = (root_entries * 32).div_ceil(sector);
        let data_sector = reserved + fats * fat_sectors + root_sectors;
        let clusters = u32::try_from(sectors.checked_sub(data_sector)? / per_cluster).ok()?;
        // The kernel's rule: FAT32 is told by the length of its FAT, the others by their number of clusters.
        let (width, bits) = match (is_32, clusters) {
            (true, ..0x0fff_fff6) => (Width::Fat32, 32),
            (false, ..4085) => (Width::Fat12, 12),
            (false, ..65525) => (Width::Fat16, 16),
            _ => return None,
        };
        if (u64::from(clusters) + 2) * bits > fat_sectors * sector * 8 {
            return None;
        }
        // The first FAT is the one in use, unless mirroring is off.
        let active = match is_32 {
            true if le16(raw, 40)? & 0x80 != 0 => u64::from(le16(raw, 40)? & 0x0f),
            _ => 0,
        };
        if active >= fats {
            return None;
        }
        Some(Shape {
            width,
            fat: (reserved + active * fat_sectors) * sector,
            root: (reserved + fats * fat_sectors) * sector,
            root_len: if is_32 { 0 } else { root_entries * 32 },
            root_cluster: if is_32 { le32(raw, 44)? } else { 0 },
            data: data_sector * sector,
            cluster: per_cluster * sector,
            clusters,
        })
    }
}

impl FatTree {
    /// Opens the file system on `disk`.
    pub fn open(disk: Arc<dyn Disk>) -> Result<FatTree> {
        if disk.size().0 < 512 {
            return Err(corrupt("the volume is shorter than a sector"));
        }
        let mut raw = [0; 512];
        disk.read_at(GuestOffset(0), &mut raw)?;
        let shape = Shape::parse(&raw, disk.size().0)?;
        Ok(FatTree { disk, shape, folders: Mutex::default() })
    }

    fn read_disk(&self, at: u64, len: u64) -> Result<Vec<u8>> {
        let mut out = vec![0; Bytes(len).to_usize().unwrap_or(usize::MAX)];
        self.disk.read_at(GuestOffset(at), &mut out)?;
        Ok(out)
    }

    /// What follows `cluster` in its chain; `None` at the end.
    fn next(&self, cluster: u32) -> Result<Option<u32>> {
        let number = u64::from(cluster);
        let fat = self.shape.fat;
        let (value, end) = match self.shape.width {
            Width::Fat12 => {
                let raw = self.read_disk(fat + number + number / 2, 2)?;
                let pair = u32::from(le16(&raw, 0).unwrap_or(0));
                (if cluster.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }, 0xff8)
            }
            Width::Fat16 => (u32::from(le16(&self.read_disk(fat + number * 2, 2)?, 0).unwrap_or(0)), 0xfff8),
            Width::Fat32 => {
                (le32(&self.read_disk(fat + number * 4, 4)?, 0).unwrap_or(0) & 0x0fff_ffff, 0x0fff_fff8)
            }
        };
        Ok((value < end).then_some(value))
    }

    fn place(&self, cluster: u32) -> Result<u64> {
        match cluster.checked_sub(2).filter(|&index| index < self.shape.clusters) {
            Some(index) => Ok(self.shape.data + u64::from(index) * self.shape.cluster),
            None => Err(corrupt(format!("a chain leads to cluster {cluster} of {}", self.shape.clusters))),
        }
    }

    /// `len` bytes of the chain from `first` on, or all of it where `len` is `None`, at most `at_most`.
    fn chain(&self, first: u32, len: Option<u64>, at_most: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut cluster = Some(first);
        while let Some(here) = cluster {
            if len.is_some_and(|len| out.len() as u64 >= len) {
                break;
            }
            // A chain that comes back to itself ends here, too.
            if out.len() as u64 > at_most {
                return Err(corrupt(format!(
                    "the chain from cluster {first} is longer than {}",
                    Bytes(at_most)
                )));
            }
            out.extend(self.read_disk(self.place(here)?, self.shape.cluster)?);
            cluster = self.next(here)?;
        }
        if let Some(len) = len {
            if (out.len() as u64) < len {
                return Err(corrupt(format!("the chain from cluster {first} ends before its {len} bytes")));
            }
            out.truncate(Bytes(len).to_usize().unwrap_or(usize::MAX));
        }
        Ok(out)
    }

    /// The names in the folder at `cluster` (0: the root).
    fn folder(&self, cluster: u32) -> Result<Arc<Vec<Node>>> {
        let known = self.folders.lock().unwrap_or_else(PoisonError::into_inner).get(&cluster).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        // The specification's limit: 65536 entries.
        let most = 65536 * 32;
        let raw = match (cluster, self.shape.width) {
            (0, Width::Fat32) => self.chain(self.shape.root_cluster, None, most)?,
            (0, _) => self.read_disk(self.shape.root, self.shape.root_len)?,
            (cluster, _) => self.chain(cluster, None, most)?,
        };
        let nodes = Arc::new(parse_folder(&raw)?);
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if folders.len() > 1024 {
            folders.clear();
        }
        folders.insert(cluster, nodes.clone());
        Ok(nodes)
    }

    /// What stands at `path`: `None` inside for the root.
    fn find(&self, path: &str) -> Result<Option<Option<Node>>> {
        let mut way: Vec<Node> = Vec::new();
        let mut broken = false;
        let real = walk::resolve(path, true, |real| {
            let depth = real.matches('/').count();
            way.truncate(depth - 1);
            let cluster = way.last().map_or(0, |node| node.cluster);
            let name = real.rsplit('/').next().unwrap_or_default();
            let folder = self.folder(cluster)?;
            let Some(node) = folder.iter().find(|node| node.name.eq_ignore_ascii_case(name)) else {
                return Ok(None);
            };
            // Cluster 0 is the root: a folder there would contain itself.
            broken |= node.is_folder && node.cluster == 0;
            way.push(node.clone());
            Ok(Some(Step::Node(if node.is_folder { NodeKind::Dir } else { NodeKind::File })))
        })?;
        if broken {
            return Err(corrupt(format!("{path} leads through a folder without a cluster")));
        }
        Ok(real.map(|real| {
            let depth = if real == "/" { 0 } else { real.matches('/').count() };
            depth.checked_sub(1).and_then(|last| way.get(last).cloned())
        }))
    }
}

/// The entries of a folder up to its end.
fn parse_folder(raw: &[u8]) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    // Parts of a long name, the last one first, and the sum that they carry.
    let mut long: Vec<u16> = Vec::new();
    let mut long_sum = None;
    for entry in raw.chunks_exact(32) {
        let Some(short) = array::<11>(entry, 0) else { break };
        let attributes = entry.get(11).copied().unwrap_or(0);
        match short[0] {
            0 => break,
            0xe5 => {
                long_sum = None;
                continue;
            }
            _ => {}
        }
        if attributes & 0x3f == 0x0f {
            let sum = entry.get(13).copied();
            if short[0] & 0x40 != 0 {
                long.clear();
                long_sum = sum;
            } else if long_sum != sum {
                long_sum = None;
            }
            let part = [(1, 10), (14, 12), (28, 4)].into_iter().filter_map(|(at, len)| bytes(entry, at, len));
            let units = part.flat_map(|part| part.chunks_exact(2)).filter_map(|unit| le16(unit, 0));
            long.splice(0..0, units);
            continue;
        }
        let sum = short.iter().fold(0_u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
        let is_long = long_sum.take() == Some(sum);
        if attributes & 0x08 != 0 {
            continue;
        }
        let name = match is_long {
            true => {
                let end = long.iter().position(|&unit| unit == 0).unwrap_or(long.len());
                String::from_utf16(long.get(..end).unwrap_or_default())
                    .map_err(|_| Error::unsupported("FAT: a long name is not UTF-16"))?
            }
            false => short_name(&short, entry.get(12).copied().unwrap_or(0))?,
        };
        if matches!(name.as_str(), "." | "..") || name.contains(['/', '\0']) || name.is_empty() {
            continue;
        }
        let high = le16(entry, 20).unwrap_or(0);
        let low = le16(entry, 26).unwrap_or(0);
        nodes.push(Node {
            name,
            is_folder: attributes & 0x10 != 0,
            is_read_only: attributes & 0x01 != 0,
            cluster: u32::from(high) << 16 | u32::from(low),
            size: le32(entry, 28).unwrap_or(0),
            mtime_seconds: unix_seconds(le16(entry, 24).unwrap_or(0), le16(entry, 22).unwrap_or(0)),
        });
    }
    Ok(nodes)
}

/// `KERNEL  IMG` as `KERNEL.IMG`; bits 3 and 4 of `case` write base and extension small.
fn short_name(raw: &[u8; 11], case: u8) -> Result<String> {
    // 0x05 stands for 0xE5, which would mark an unused entry.
    if !raw.is_ascii() || raw[0] == 0x05 {
        return Err(Error::unsupported("FAT: a short name is not ASCII"));
    }
    let part = |raw: &[u8], small: bool| {
        let text = String::from_utf8_lossy(raw).trim_end_matches(' ').to_owned();
        if small { text.to_ascii_lowercase() } else { text }
    };
    let (base, extension) = raw.split_at(8);
    let (base, extension) = (part(base, case & 0x08 != 0), part(extension, case & 0x10 != 0));
    Ok(if extension.is_empty() { base } else { format!("{base}.{extension}") })
}

/// The date and time of an entry, which has no time zone, as if it were UTC.
fn unix_seconds(date: u16, time: u16) -> i64 {
    let (year, month, day) =
        (i64::from(date >> 9) + 1980, i64::from(date >> 5 & 15).max(1), i64::from(date & 31).max(1));
    // Days from 1970 by the civil calendar, with years that begin in March.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era_year = shifted_year - 1600;
    let days =
        era_year * 365 + era_year / 4 - era_year / 100 + era_year / 400 + (153 * shifted_month + 2) / 5 + day
            - 1
            - 135_080;
    let seconds = i64::from(time >> 11) * 3600 + i64::from(time >> 5 & 63) * 60 + i64::from(time & 31) * 2;
    days * 86400 + seconds
}

impl GuestTree for FatTree {
    fn metadata(&self, path: &str) -> Result<Option<Meta>> {
        Ok(self.find(path)?.map(|node| {
            let is_folder = node.as_ref().is_none_or(|node| node.is_folder);
            let is_read_only = node.as_ref().is_some_and(|node| node.is_read_only && !node.is_folder);
            Meta {
                kind: if is_folder { NodeKind::Dir } else { NodeKind::File },
                size: Bytes(node.as_ref().map_or(0, |node| u64::from(node.size))),
                mode: if is_read_only { 0o555 } else { 0o755 },
                uid: 0,
                gid: 0,
                mtime_seconds: node.as_ref().map_or(0, |node| node.mtime_seconds),
            }
        }))
    }

    fn link_metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.metadata(path)
    }

    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        let Some(node) = self.find(path)? else { return Ok(None) };
        let Some(node) = node.filter(|node| !node.is_folder) else { return Err(super::no_file(path)) };
        super::check_size(path, Bytes(u64::from(node.size)), at_most)?;
        match node.size {
            0 => Ok(Some(Vec::new())),
            size => self.chain(node.cluster, Some(u64::from(size)), u64::from(size)).map(Some),
        }
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>> {
        let cluster = match self.find(path)? {
            Some(None) => 0,
            Some(Some(node)) if node.is_folder => node.cluster,
            _ => return Ok(None),
        };
        let folder = self.folder(cluster)?;
        let kind = |node: &Node| if node.is_folder { NodeKind::Dir } else { NodeKind::File };
        let mut entries: Vec<Entry> =
            folder.iter().map(|node| Entry { name: node.name.clone(), kind: kind(node) }).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.dedup_by(|a, b| a.name == b.name);
        Ok(Some(entries))
    }

    fn read_link(&self, _path: &str) -> Result<Option<String>> {
        Ok(None)
    }

    fn free_space(&self, _path: &str) -> Result<Option<Bytes>> {
        let bits = match self.shape.width {
            Width::Fat12 => 12,
            Width::Fat16 => 16,
            Width::Fat32 => 32,
        };
        let all = u64::from(self.shape.clusters) + 2;
        // A quarter of a GiB of FAT32 entries at most; read in pieces.
        let len = (all * bits).div_ceil(8);
        let mut free = 0_u64;
        let piece = 3 << 16;
        let mut at = 0;
        while at < len {
            let raw = self.read_disk(self.shape.fat + at, piece.min(len - at))?;
            let first = at * 8 / bits;
            let used: Vec<u32> = match self.shape.width {
                Width::Fat12 => raw
                    .chunks(3)
                    .flat_map(|three| {
                        let low = le16(three, 0).map(|pair| u32::from(pair & 0xfff));
                        let high = le16(three, 1).map(|pair| u32::from(pair >> 4));
                        [low, high]
                    })
                    .flatten()
                    .collect(),
                Width::Fat16 => raw.chunks_exact(2).filter_map(|raw| le16(raw, 0)).map(u32::from).collect(),
                Width::Fat32 => {
                    raw.chunks_exact(4).filter_map(|raw| le32(raw, 0)).map(|raw| raw & 0x0fff_ffff).collect()
                }
            };
            let numbered = (first..all).zip(used).filter(|(number, value)| *number >= 2 && *value == 0);
            free += numbered.count() as u64;
            at += piece;
        }
        Ok(Some(Bytes(free.saturating_mul(self.shape.cluster))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Tool};
    use crate::tree::GuestTreeExt;

    /// Against mtools, which wrote it: every width, long names, deep folders, deleted entries, many clusters.
    #[test]
    fn files_come_back_from_every_width() {
        if ["mkfs.vfat", "mcopy", "minfo"].iter().any(|name| testing::tool(name).is_none()) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (image, folder) = (dir.path().join("esp"), dir.path().join("EFI"));
        let mut files = vec![
            ("BOOT/BOOTX64.EFI".to_owned(), vec![7_u8; 1_000_000]),
            ("BOOT/empty".to_owned(), Vec::new()),
            ("debian/grub.cfg".to_owned(), b"set root\n".to_vec()),
            ("debian/A rather long name, with blanks.cfg".to_owned(), b"long".to_vec()),
            ("debian/Gr\u{fc}\u{df}e.txt".to_owned(), b"unicode".to_vec()),
        ];
        for i in 0..200_usize {
            files.push((format!("many/file-number-{i:04}.conf"), i.to_string().into_bytes()));
        }
        for (path, data) in &files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, data).unwrap();
        }
        for (options, mib) in [("-F 12 -s 8", 8), ("-F 16", 32), ("-F 32 -s 1", 64), ("-F 32 -S 4096", 512)] {
            testing::sparse(&image, mib << 20);
            Tool::line(&format!("mkfs.vfat {options} {}", image.display())).run();
            let at = image.display();
            let before = FatTree::open(testing::open(&image)).unwrap().free_space("/").unwrap().unwrap();
            let copied = std::process::Command::new("mcopy")
                .env("LC_ALL", "C.UTF-8")
                .args(["-s", "-i", &at.to_string(), folder.to_str().unwrap(), "::"])
                .status()
                .unwrap();
            assert!(copied.success());
            Tool::line(&format!("mdel -i {at} ::EFI/many/file-number-0007.conf")).run();
            let tree = FatTree::open(testing::open(&image)).unwrap();
            assert_eq!(tree.names("/").unwrap(), ["EFI"], "{options}");
            assert_eq!(tree.names("/EFI/many").unwrap().len(), 199, "{options}");
            for (path, data) in files.iter().filter(|(path, _)| !path.contains("0007")) {
                let found = tree.read(&format!("/EFI/{path}"), Bytes::mib(1)).unwrap();
                assert!(found.as_ref() == Some(data), "{options}: {path}");
            }
            assert!(tree.exists("/efi/boot/bootx64.efi").unwrap(), "{options}: case counts for nothing");
            assert!(!tree.exists("/EFI/many/file-number-0007.conf").unwrap());
            assert!(
                tree.read("/EFI", Bytes(1)).is_err() && tree.list("/EFI/debian/grub.cfg").unwrap().is_none()
            );
            let mtime = tree.metadata("/EFI/debian/grub.cfg").unwrap().unwrap().mtime_seconds;
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            assert!((mtime - i64::try_from(now).unwrap()).abs() < 15 * 3600, "{options}: {mtime} {now}");
            // Free space, as mtools and this crate count it, and what the files took.
            let free = tree.free_space("/").unwrap().unwrap();
            let info = Tool::line(&format!("mdir -i {at} ::")).run();
            let theirs: u64 = info
                .lines()
                .find_map(|line| line.trim().strip_suffix(" bytes free"))
                .map(|digits| {
                    digits.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
                })
                .unwrap();
            assert_eq!(free.0, theirs, "{options}");
            assert!(before.0 - free.0 > 1_000_000);
        }
    }

    #[test]
    fn damage_is_an_error_or_an_answer() {
        if ["mkfs.vfat", "mcopy"].iter().any(|name| testing::tool(name).is_none()) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (image, file) = (dir.path().join("fat"), dir.path().join("file"));
        std::fs::write(&file, vec![1; 50_000]).unwrap();
        for options in ["-F 12", "-F 16 -s 1", "-F 32 -s 1"] {
            testing::sparse(&image, if options.contains("32") { 40 << 20 } else { 4 << 20 });
            Tool::line(&format!("mkfs.vfat {options} {}", image.display())).run();
            Tool::line(&format!("mmd -i {} ::a ::a/b", image.display())).run();
            Tool::line(&format!("mcopy -i {} {} ::a/b/file", image.display(), file.display())).run();
            let raw = std::fs::read(&image).unwrap();
            let used: Vec<usize> = (0..raw.len()).filter(|&at| raw[at] > 1).collect();
            let mut state = 0x0dd_ba11_u64;
            for _ in 0..150 {
                let mut bad = raw.clone();
                for _ in 0..3 {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let at = used[usize::try_from(state >> 33).unwrap() % used.len()];
                    bad[at] = [0, 0xff, 2, bad[at] ^ 0x10][usize::try_from(state >> 62).unwrap()];
                }
                let Ok(tree) = FatTree::open(Arc::new(testing::Memory::new(bad))) else { continue };
                for path in ["/a/b/file", "/a/b", "/a/../a"] {
                    let _ = (tree.metadata(path), tree.read(path, Bytes::mib(1)), tree.list(path));
                }
                let _ = tree.free_space("/");
            }
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // 2024-02-29 12:34:56 UTC
        let date = (44 << 9) | (2 << 5) | 29;
        let time = (12 << 11) | (34 << 5) | 28;
        assert_eq!(unix_seconds(date, time), 1_709_210_096);
        assert_eq!(unix_seconds((1 << 5) | 1, 0), 315_532_800, "1980-01-01");
        unix_seconds(u16::MAX, u16::MAX);
        unix_seconds(0, 0);
    }
}
