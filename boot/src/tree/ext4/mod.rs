//! ext2, ext3 and ext4 read straight from a disk, without a mount.
//!
//! A reader of our own: the ext4-view crate returns the old content of the disk, with success, for space that was
//! allocated but never written (a test pins that), and cannot read sparse files of ext2 and ext3. It serves as the
//! second reader in the tests.
//!
//! Everything that the kernel checks is checked: metadata checksums, bounds, depth. Whatever is not understood for
//! certain is [`Unsupported`](crate::Kind::Unsupported), so that the caller lets the kernel in the sandbox read it: inline data,
//! encryption, folded case, meta groups, fast commits. Deliberately absent: extended attributes and writing.

mod journal;
mod layout;

use super::walk::{self, Step};
use super::{Entry, GuestTree, Meta, NodeKind};
use crate::volume::field::{bytes, le16, le32};
use crate::{Error, Kind, Result, limits};
use journal::Replayed;
use landfall_image::{Bytes, Disk, GuestOffset};
use layout::{Descriptor, Inode, Superblock, crc, extent_header, feature, flag};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file system of the ext family, read-only. Shared by any number of readers.
pub struct Ext4Tree {
    disk: Arc<dyn Disk>,
    sb: Superblock,
    /// Blocks that the journal has newer, and where those lie on the disk.
    replayed: BTreeMap<u64, Newer>,
    cache: Mutex<Cache>,
}

/// A block's newer content in the journal.
struct Newer {
    place: u64,
    escaped: bool,
}

/// What was read before; thrown away whole when it grows too large.
#[derive(Default)]
struct Cache {
    blocks: HashMap<u64, Arc<Vec<u8>>>,
    inodes: HashMap<u32, Arc<Inode>>,
    folders: HashMap<u32, Arc<Folder>>,
    folder_entries: usize,
}

/// Names of a folder: inode and kind, where the entry tells it.
type Folder = BTreeMap<String, (u32, Option<NodeKind>)>;

const ROOT: u32 = 2;

impl Ext4Tree {
    /// Opens the file system on `disk`. A journal that needs replay is replayed in memory.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Ext4Tree> {
        let mut raw = vec![0; 1024];
        disk.read_at(GuestOffset(1024), &mut raw)?;
        let sb = Superblock::parse(&raw)?;
        let mut tree = Ext4Tree { disk, sb, replayed: BTreeMap::new(), cache: Mutex::default() };
        tree.check_size()?;
        if tree.sb.has(feature::INCOMPAT_RECOVER) {
            tree.replay()?;
        }
        if !tree.is_folder(&*tree.inode(ROOT)?) {
            return Err(Error::corrupt("ext: inode 2 is not a folder"));
        }
        Ok(tree)
    }

    fn check_size(&self) -> Result<()> {
        let size = self.sb.blocks.checked_mul(u64::from(self.sb.block_size));
        if size.is_none_or(|size| size > self.disk.size().0) {
            return Err(Error::corrupt(format!(
                "ext superblock: {} blocks of {} bytes do not fit the volume of {} bytes",
                self.sb.blocks,
                self.sb.block_size,
                self.disk.size().0
            )));
        }
        Ok(())
    }

    fn replay(&mut self) -> Result<()> {
        if self.sb.journal_inode == 0 {
            return Err(Error::unsupported("ext: the journal that it needs is on another device"));
        }
        let inode = self.inode(self.sb.journal_inode)?;
        let place = |block: u32| -> Result<u64> {
            let (place, _) = self.map(&inode, u64::from(block))?;
            place
                .filter(|&place| place < self.sb.blocks)
                .ok_or_else(|| Error::corrupt(format!("ext: block {block} of the journal lies nowhere")))
        };
        let found = journal::replay(self.sb.block_size, |block| {
            let mut data = vec![0; self.block_len()];
            self.read_blocks(place(block)?, &mut data)?;
            Ok(data)
        })?;
        // Where they lie is settled before the first block is replaced: the journal is never read through itself.
        let mut replayed = BTreeMap::new();
        for (block, Replayed { journal_block, escaped }) in found {
            replayed.insert(block, Newer { place: place(journal_block)?, escaped });
        }
        self.replayed = replayed;
        *self.cache() = Cache::default();
        // The superblock itself may have changed: a resize, an unmount that was cut short.
        let block_size = u64::from(self.sb.block_size);
        let block = self.block(1024 / block_size)?;
        let offset = usize::try_from(1024 % block_size).unwrap_or(0);
        let sb = Superblock::parse(block.get(offset..).unwrap_or_default())?;
        if sb.block_size != self.sb.block_size {
            return Err(Error::unsupported("ext: the journal changes the block size"));
        }
        self.sb = sb;
        self.check_size()
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn block_len(&self) -> usize {
        Bytes(u64::from(self.sb.block_size)).to_usize().unwrap_or(0)
    }

    /// Reads `count` blocks of the file system, as the journal has them, into `out`.
    fn read_blocks(&self, first: u64, out: &mut [u8]) -> Result<()> {
        let block_size = u64::from(self.sb.block_size);
        let end = first.checked_add((out.len() as u64).div_ceil(block_size));
        if end.is_none_or(|end| end > self.sb.blocks) {
            return Err(Error::corrupt(format!(
                "ext: block {first} is wanted; the file system ends at {}",
                self.sb.blocks
            )));
        }
        self.disk.read_at(GuestOffset(first * block_size), out)?;
        for (&block, newer) in self.replayed.range(first..end.unwrap_or(first)) {
            let mut data = vec![0; self.block_len()];
            self.disk.read_at(GuestOffset(newer.place * block_size), &mut data)?;
            if newer.escaped {
                for (byte, magic) in data.iter_mut().zip(journal::MAGIC.to_be_bytes()) {
                    *byte = magic;
                }
            }
            let at = Bytes((block - first) * block_size).to_usize().unwrap_or(usize::MAX);
            for (to, from) in out.iter_mut().skip(at).zip(data) {
                *to = from;
            }
        }
        Ok(())
    }

    /// One block of metadata.
    fn block(&self, number: u64) -> Result<Arc<Vec<u8>>> {
        if let Some(found) = self.cache().blocks.get(&number) {
            return Ok(found.clone());
        }
        let mut data = vec![0; self.block_len()];
        self.read_blocks(number, &mut data)?;
        let data = Arc::new(data);
        let mut cache = self.cache();
        if cache.blocks.len() as u64 * u64::from(self.sb.block_size) > limits::FS_CACHE.0 {
            cache.blocks.clear();
        }
        cache.blocks.insert(number, data.clone());
        Ok(data)
    }

    fn descriptor(&self, group: u64) -> Result<Descriptor> {
        let (block, offset) = self
            .sb
            .descriptor_at(group)
            .ok_or_else(|| Error::unsupported("ext: the group descriptors lie in meta groups"))?;
        let block = self.block(block)?;
        let raw = bytes(&block, offset, usize::from(self.sb.descriptor_size)).unwrap_or_default();
        Descriptor::parse(raw, &self.sb, group)
    }

    fn inode(&self, number: u32) -> Result<Arc<Inode>> {
        if let Some(found) = self.cache().inodes.get(&number) {
            return Ok(found.clone());
        }
        let wrong = || Error::corrupt(format!("ext: inode {number} of {}", self.sb.inodes));
        let index = number.checked_sub(1).filter(|_| number <= self.sb.inodes).ok_or_else(wrong)?;
        let group = u64::from(index / self.sb.inodes_per_group);
        if group >= self.sb.groups() {
            return Err(wrong());
        }
        let table = self.descriptor(group)?.inode_table;
        let at = u64::from(index % self.sb.inodes_per_group) * u64::from(self.sb.inode_size);
        let block_size = u64::from(self.sb.block_size);
        let block = self.block(table.checked_add(at / block_size).ok_or_else(wrong)?)?;
        let offset = usize::try_from(at % block_size).unwrap_or(0);
        let raw = bytes(&block, offset, usize::from(self.sb.inode_size)).ok_or_else(wrong)?;
        let inode = Arc::new(Inode::parse(raw, &self.sb, number)?);
        let mut cache = self.cache();
        if cache.inodes.len() > 65536 {
            cache.inodes.clear();
        }
        cache.inodes.insert(number, inode.clone());
        Ok(inode)
    }

    fn is_folder(&self, inode: &Inode) -> bool {
        kind(inode.mode) == NodeKind::Dir
    }

    /// Where block `block` of a file lies: (`None` for zeros, how many blocks from there are alike).
    fn map(&self, inode: &Inode, block: u64) -> Result<(Option<u64>, u64)> {
        if inode.flags & (flag::ENCRYPT | flag::INLINE_DATA) != 0 {
            return Err(Error::unsupported(format!(
                "ext: inode {} is encrypted or holds its data itself",
                inode.number
            )));
        }
        if inode.flags & flag::EXTENTS == 0 {
            return self.map_indirect(inode, block);
        }
        self.map_extents(inode, block)
    }

    fn map_extents(&self, inode: &Inode, block: u64) -> Result<(Option<u64>, u64)> {
        let mut node: Arc<Vec<u8>> = Arc::new(inode.map.to_vec());
        let (mut entries, _, mut depth) = extent_header(&node, inode.number)?;
        // First block of the file behind what this node covers.
        let mut upper = u64::from(u32::MAX) + 1;
        let cut = || Error::corrupt(format!("inode {}: extent node: cut off", inode.number));
        loop {
            // The last entry that starts at or before the block; they ascend.
            let (mut before, mut next) = (None, None);
            for index in 0..entries {
                let at = 12 + index * 12;
                let start = u64::from(le32(&node, at).ok_or_else(cut)?);
                if start > block {
                    next = Some(start);
                    break;
                }
                before = Some((at, start));
            }
            upper = next.map_or(upper, |next| next.min(upper));
            let Some((at, start)) = before else { return Ok((None, upper.saturating_sub(block).max(1))) };
            let low = |at: usize| le32(&node, at).map(u64::from).ok_or_else(cut);
            let high = |at: usize| le16(&node, at).map(u64::from).ok_or_else(cut);
            if depth == 0 {
                let len = high(at + 4)?;
                // 32768 itself is a written extent of the greatest length.
                let (len, written) = if len > 32768 { (len - 32768, false) } else { (len, true) };
                let place = low(at + 8)? | high(at + 6)? << 32;
                let inside = block - start;
                if inside >= len {
                    return Ok((None, upper.saturating_sub(block).max(1)));
                }
                let run = (len - inside).min(upper.saturating_sub(block).max(1));
                return Ok((written.then_some(place + inside), run));
            }
            let child = low(at + 4)? | high(at + 8)? << 32;
            node = self.block(child)?;
            let (child_entries, room, child_depth) = extent_header(&node, inode.number)?;
            if child_depth + 1 != depth {
                return Err(Error::corrupt(format!(
                    "inode {}: extent node at block {child} has depth {child_depth}; {} is expected",
                    inode.number,
                    depth - 1
                )));
            }
            if let Some(seed) = inode.seed {
                let tail = 12 + room * 12;
                let counted = crc(seed, bytes(&node, 0, tail).ok_or_else(cut)?);
                if le32(&node, tail) != Some(counted) {
                    return Err(Error::corrupt(format!(
                        "inode {}: extent node at block {child} has a wrong checksum",
                        inode.number
                    )));
                }
            }
            (entries, depth) = (child_entries, child_depth);
        }
    }

    /// The map of ext2 and ext3: 12 blocks, then one, two and three levels of blocks of numbers.
    fn map_indirect(&self, inode: &Inode, block: u64) -> Result<(Option<u64>, u64)> {
        let per_block = u64::from(self.sb.block_size / 4);
        let entry = |raw: &[u8], index: u64| {
            let at = usize::try_from(index).ok().and_then(|index| index.checked_mul(4));
            at.and_then(|at| le32(raw, at)).map(u64::from)
        };
        let too_far = || Error::corrupt(format!("inode {}: block {block} is past every map", inode.number));
        let Some(mut rest) = block.checked_sub(12) else {
            let place = entry(&inode.map, block).ok_or_else(too_far)?;
            return Ok(((place != 0).then_some(place), 1));
        };
        for level in 1..=3_u32 {
            let span = per_block.checked_pow(level).ok_or_else(too_far)?;
            if rest >= span {
                rest -= span;
                continue;
            }
            let mut place = entry(&inode.map, u64::from(11 + level)).ok_or_else(too_far)?;
            for below in (0..level).rev() {
                if place == 0 {
                    let hole = per_block.checked_pow(below + 1).unwrap_or(1);
                    return Ok((None, hole - rest % hole));
                }
                let span = per_block.checked_pow(below).ok_or_else(too_far)?;
                let node = self.block(place)?;
                place = entry(&node, rest / span % per_block).ok_or_else(too_far)?;
            }
            return Ok(((place != 0).then_some(place), 1));
        }
        Err(too_far())
    }

    /// A whole file, which is known to be no larger than it may be.
    fn read_all(&self, inode: &Inode) -> Result<Vec<u8>> {
        let block_size = u64::from(self.sb.block_size);
        let mut data = vec![0; Bytes(inode.size).to_usize().unwrap_or(usize::MAX)];
        let mut at = 0_usize;
        while at < data.len() {
            let (place, run) = self.map(inode, at as u64 / block_size)?;
            let len = Bytes(run.saturating_mul(block_size)).to_usize().unwrap_or(usize::MAX);
            let end = at.saturating_add(len).min(data.len());
            if let Some(place) = place {
                self.read_blocks(place, data.get_mut(at..end).unwrap_or_default())?;
            }
            at = end;
        }
        Ok(data)
    }

    fn folder(&self, inode: &Inode) -> Result<Arc<Folder>> {
        if let Some(found) = self.cache().folders.get(&inode.number) {
            return Ok(found.clone());
        }
        if inode.flags & flag::CASEFOLD != 0 {
            return Err(Error::unsupported(format!("ext: folder {} folds case", inode.number)));
        }
        let mut names = Folder::new();
        let blocks = inode.size.div_ceil(u64::from(self.sb.block_size));
        let mut block = 0;
        while block < blocks {
            let (place, run) = self.map(inode, block)?;
            let Some(place) = place else {
                block = block.saturating_add(run);
                continue;
            };
            self.folder_block(inode, block, &self.block(place)?, &mut names)?;
            if names.len() > limits::FOLDER_ENTRIES {
                return Err(Error::refused(format!(
                    "ext: folder {} has more than {} names",
                    inode.number,
                    limits::FOLDER_ENTRIES
                )));
            }
            block += 1;
        }
        let names = Arc::new(names);
        let mut cache = self.cache();
        cache.folder_entries += names.len();
        if cache.folder_entries > limits::FOLDER_ENTRIES {
            cache.folders.clear();
            cache.folder_entries = names.len();
        }
        cache.folders.insert(inode.number, names.clone());
        Ok(names)
    }

    /// The names in one block of a folder. Index blocks of hashed folders look like a single unused entry (but for the
    /// first, which holds `.` and `..`) and have a checksum of another kind, for what is not used here.
    fn folder_block(&self, inode: &Inode, block: u64, raw: &[u8], names: &mut Folder) -> Result<()> {
        let wrong = |at: usize, says: &str| {
            Error::corrupt(format!("ext: folder {}: entry at {at} of a block {says}", inode.number))
        };
        let tail = raw.len().saturating_sub(12);
        let unused = le32(raw, 0) == Some(0) && le16(raw, 4).map(usize::from) == Some(raw.len());
        let is_index = inode.flags & flag::INDEX != 0 && (block == 0 || unused);
        let has_tail = !is_index
            && inode.seed.is_some()
            && le32(raw, tail) == Some(0)
            && le16(raw, tail + 4) == Some(12)
            && bytes(raw, tail + 6, 2) == Some(&[0, 0xde]);
        if let (true, Some(seed)) = (has_tail, inode.seed)
            && le32(raw, tail + 8) != Some(crc(seed, bytes(raw, 0, tail).unwrap_or_default()))
        {
            return Err(wrong(tail, "has a wrong checksum"));
        }
        let mut at = 0;
        while at < raw.len() {
            let cut = || wrong(at, "is cut off");
            let number = le32(raw, at).ok_or_else(cut)?;
            let len = usize::from(le16(raw, at + 4).ok_or_else(cut)?);
            // Blocks of 64 KiB do not fit 16 bits.
            let len = match len {
                0 | 65535 => raw.len(),
                len => (len & 0xfffc) | (len & 3) << 16,
            };
            if len < 12 || len % 4 != 0 || len > raw.len() - at {
                return Err(wrong(at, "has an impossible length"));
            }
            let (name_len, kind_byte) = match self.sb.has(feature::INCOMPAT_FILETYPE) {
                true => (raw.get(at + 6).map(|&len| usize::from(len)), raw.get(at + 7).copied()),
                false => (le16(raw, at + 6).map(usize::from), None),
            };
            let name_len = name_len.ok_or_else(cut)?;
            if number != 0 && name_len > 0 {
                let name = bytes(raw, at + 8, name_len).filter(|_| name_len + 8 <= len);
                let name = name.ok_or_else(|| wrong(at, "has a name that is longer than itself"))?;
                let kind = kind_byte.and_then(|byte| match byte {
                    1 => Some(NodeKind::File),
                    2 => Some(NodeKind::Dir),
                    7 => Some(NodeKind::Symlink),
                    3..=6 => Some(NodeKind::Other),
                    _ => None,
                });
                if let Ok(name) = std::str::from_utf8(name)
                    && !matches!(name, "." | "..")
                    && !name.contains(['/', '\0'])
                {
                    names.insert(name.to_owned(), (number, kind));
                }
            }
            at += len;
        }
        Ok(())
    }

    fn link_target(&self, inode: &Inode) -> Result<String> {
        if inode.size > limits::LINK_TARGET.0 || inode.flags & flag::ENCRYPT != 0 {
            return Err(Error::unsupported(format!(
                "ext: inode {} is an encrypted link, or one of {} bytes",
                inode.number, inode.size
            )));
        }
        let is_short = inode.size < 60 && inode.flags & (flag::EXTENTS | flag::INLINE_DATA) == 0;
        let raw = if is_short { inode.map.to_vec() } else { self.read_all(inode)? };
        let len = Bytes(inode.size).to_usize().unwrap_or(0);
        let raw = raw.get(..len).unwrap_or(&raw);
        String::from_utf8(raw.to_vec())
            .map_err(|_| Error::unsupported(format!("ext: the target of link {} is not UTF-8", inode.number)))
    }

    /// The inode at `path`.
    fn find(&self, path: &str, follow_last: bool) -> Result<Option<Arc<Inode>>> {
        let child = |folder: &Inode, name: &str| -> Result<Option<Arc<Inode>>> {
            match self.folder(folder)?.get(name) {
                Some(&(number, _)) => self.inode(number).map(Some),
                None => Ok(None),
            }
        };
        // The real path of every folder on the way, so that each is looked up once.
        let mut way: Vec<(usize, Arc<Inode>)> = vec![(0, self.inode(ROOT)?)];
        let mut found = None;
        let real = walk::resolve(path, follow_last, |real| {
            let (parent_len, name) = real.rfind('/').map_or((0, real), |at| (at, &real[at + 1..]));
            while way.len() > 1 && way.last().is_some_and(|(len, _)| *len > parent_len) {
                way.pop();
            }
            let Some((_, folder)) = way.last().filter(|(len, _)| *len == parent_len) else {
                return Err(Error::corrupt(format!("{real}: its folder is not known")));
            };
            let Some(inode) = child(folder, name)? else { return Ok(None) };
            let step = match kind(inode.mode) {
                NodeKind::Symlink => Step::Link(self.link_target(&inode)?),
                NodeKind::Dir => {
                    way.push((real.len(), inode.clone()));
                    Step::Node(NodeKind::Dir)
                }
                kind => Step::Node(kind),
            };
            found = Some((real.to_owned(), inode));
            Ok(Some(step))
        })?;
        Ok(match real {
            None => None,
            Some(real) if real == "/" => Some(self.inode(ROOT)?),
            Some(real) => match found {
                Some((path, inode)) if path == real => Some(inode),
                // The path ended in `..`: the folder is on the way.
                _ => way.into_iter().rev().find(|(len, _)| *len == real.len()).map(|(_, inode)| inode),
            },
        })
    }

    fn meta(&self, path: &str, follow_last: bool) -> Result<Option<Meta>> {
        Ok(self.find(path, follow_last)?.map(|inode| Meta {
            kind: kind(inode.mode),
            size: Bytes(inode.size),
            mode: u32::from(inode.mode & 0o7777),
            uid: inode.uid,
            gid: inode.gid,
            mtime_seconds: inode.mtime_seconds,
        }))
    }
}

fn kind(mode: u16) -> NodeKind {
    match mode & 0o170_000 {
        0o100_000 => NodeKind::File,
        0o040_000 => NodeKind::Dir,
        0o120_000 => NodeKind::Symlink,
        _ => NodeKind::Other,
    }
}

impl GuestTree for Ext4Tree {
    fn metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.meta(path, true)
    }

    fn link_metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.meta(path, false)
    }

    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        let Some(inode) = self.find(path, true)? else { return Ok(None) };
        if kind(inode.mode) != NodeKind::File {
            return Err(super::no_file(path));
        }
        super::check_size(path, Bytes(inode.size), at_most)?;
        self.read_all(&inode).map(Some)
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>> {
        let Some(inode) = self.find(path, true)? else { return Ok(None) };
        if !self.is_folder(&inode) {
            return Ok(None);
        }
        let folder = self.folder(&inode)?;
        let mut entries = Vec::with_capacity(folder.len());
        for (name, &(number, known)) in folder.iter() {
            let kind = match known {
                Some(kind) => kind,
                None => kind(self.inode(number)?.mode),
            };
            entries.push(Entry { name: name.clone(), kind });
        }
        Ok(Some(entries))
    }

    fn read_link(&self, path: &str) -> Result<Option<String>> {
        match self.find(path, false)? {
            Some(inode) if kind(inode.mode) == NodeKind::Symlink => self.link_target(&inode).map(Some),
            _ => Ok(None),
        }
    }

    fn free_space(&self, _path: &str) -> Result<Option<Bytes>> {
        let mut clusters = 0_u64;
        for group in 0..self.sb.groups() {
            clusters = clusters.saturating_add(self.descriptor(group)?.free);
        }
        // What the kernel keeps for its own needs: 2 %, at most 4096 clusters.
        let all = self.sb.blocks / self.sb.cluster_blocks;
        let free = clusters.saturating_sub((all / 50).min(4096));
        let blocks = free.saturating_mul(self.sb.cluster_blocks);
        Ok(Some(Bytes(blocks.saturating_mul(u64::from(self.sb.block_size)))))
    }
}

/// True where the error says that another reader may do better: the caller falls back to the sandbox.
pub fn may_be_readable_elsewhere(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unsupported | Kind::Corrupt)
}

#[cfg(test)]
mod tests;
