//! New squashfs 4.0 images with zstd: a tree of files, read-only and compressed (Linux, Documentation/filesystems/squashfs.rst).
//!
//! ```text
//! superblock, 96 bytes | the compressor's options | blocks of files and fragments | inodes | folders | fragments | ids
//!
//! block      a piece of one file, compressed on its own; all zeros: not there
//! fragment   a block that many small files share
//! inodes, folders, and the two tables behind them: metadata blocks (see tables.rs)
//! ```
//!
//! Made in one pass: [`Tree`] collects names, [`Tree::write`] numbers them folder by folder, compresses their contents on all
//! processors (blocks.rs) and writes the tables behind them. The same tree, options and contents are the same bytes, however
//! many processors there are. Files of the same content are stored once.
//!
//! Own code: the crate `backhand` compresses on one processor, does not recognise small files of the same content, and
//! takes two large ones for the same by 64 bits of a hash.
//!
//! Absent on purpose: reading, appending, other compressors, extended attributes, hard links, the table for export by NFS,
//! indexes of very large folders, times of single files, the tails of larger files in fragments.

mod blocks;
mod tables;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::units::Bytes;
use blocks::Stored;
use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tables::{Place, Tables};

/// Bytes of a name.
const NAME: usize = 255;

/// Bytes of a link's target: what Linux follows.
const TARGET: usize = 4095;

/// Length of the superblock.
const SUPERBLOCK: usize = 96;

/// Images end on a multiple of this, so that they can be put on any device.
const PADDING: u64 = 4096;

/// A tree that is to be written.
#[derive(Debug)]
pub struct Tree {
    /// The first is the root.
    nodes: Vec<Node>,
}

/// Whom something belongs to, and who may do what with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permissions, with the bits for set-user-id, set-group-id and sticky: at most `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a file holds.
#[derive(Clone, Debug)]
pub enum FileContent {
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// What is in a file on this machine, which is read twice at most and must not change meanwhile.
    Path(PathBuf),
}

/// A special file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// A block device by its major (12 bits) and minor (20 bits) number.
    Block(u32, u32),
    /// A character device, likewise.
    Character(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// How an image is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SquashOptions {
    /// Bytes of a block: a power of two from 4 KiB to 1 MiB. Larger ones are smaller all together and slower to read from.
    pub block_size: Bytes,
    /// Level of zstd, 1 to 22.
    pub level: i32,
    /// The time of everything in it: seconds since 1970.
    pub time: u32,
}

impl Default for SquashOptions {
    /// Blocks of 128 KiB, level 19, 1970.
    fn default() -> Self {
        SquashOptions { block_size: Bytes::kib(128), level: 19, time: 0 }
    }
}

impl From<Vec<u8>> for FileContent {
    fn from(bytes: Vec<u8>) -> Self {
        FileContent::Bytes(bytes.into())
    }
}

impl From<PathBuf> for FileContent {
    fn from(path: PathBuf) -> Self {
        FileContent::Path(path)
    }
}

#[derive(Debug)]
struct Node {
    meta: Meta,
    kind: NodeKind,
}

#[derive(Debug)]
enum NodeKind {
    Folder(BTreeMap<Vec<u8>, usize>),
    File(FileContent),
    Link(Vec<u8>),
    Device(Device),
}

impl Tree {
    /// A tree that is only its root.
    pub fn new(root: Meta) -> Tree {
        Tree { nodes: vec![Node { meta: root, kind: NodeKind::Folder(BTreeMap::new()) }] }
    }

    /// Adds a folder. One that is there already, the root too, gets this `meta`.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) where the path is none of plain names, the folder that it lies in was not added
    /// before, or something else has the path already.
    pub fn dir(&mut self, path: impl AsRef<Path>, meta: Meta) -> Result<()> {
        let path = path.as_ref();
        if let Some(Node { meta: before, kind: NodeKind::Folder(_) }) =
            self.find(path)?.and_then(|node| self.nodes.get_mut(node))
        {
            *before = meta;
            return Ok(());
        }
        self.add(path, meta, NodeKind::Folder(BTreeMap::new()))
    }

    /// Adds a file.
    ///
    /// # Errors
    /// As [`dir`](Self::dir), and where the path is taken.
    pub fn file(
        &mut self,
        path: impl AsRef<Path>,
        meta: Meta,
        content: impl Into<FileContent>,
    ) -> Result<()> {
        self.add(path.as_ref(), meta, NodeKind::File(content.into()))
    }

    /// Adds a symbolic link. Linux shows its permissions as `0o777`, whatever `meta` says.
    ///
    /// # Errors
    /// As [`file`](Self::file), and for a target that is empty, longer than 4095 bytes or holds a NUL.
    pub fn symlink(&mut self, path: impl AsRef<Path>, meta: Meta, target: impl AsRef<Path>) -> Result<()> {
        let (path, target) = (path.as_ref(), target.as_ref().as_os_str().as_bytes());
        if target.is_empty() || target.len() > TARGET || target.contains(&0) {
            return Err(refused(path, &format!("a link's target has 1 to {TARGET} bytes without NUL")));
        }
        self.add(path, meta, NodeKind::Link(target.to_vec()))
    }

    /// Adds a special file.
    ///
    /// # Errors
    /// As [`file`](Self::file), and for numbers that do not fit.
    pub fn device(&mut self, path: impl AsRef<Path>, meta: Meta, device: Device) -> Result<()> {
        let path = path.as_ref();
        if let Device::Block(major, minor) | Device::Character(major, minor) = device
            && (major >= 1 << 12 || minor >= 1 << 20)
        {
            return Err(refused(path, &format!("a device {major}:{minor} cannot be; at most 4095:1048575")));
        }
        self.add(path, meta, NodeKind::Device(device))
    }

    /// Whether something has this path.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) where it is none of plain names.
    pub fn contains(&self, path: impl AsRef<Path>) -> Result<bool> {
        Ok(self.find(path.as_ref())?.is_some())
    }

    /// Takes away what has this path, with all that lies in it; whether there was something.
    ///
    /// # Errors
    /// As [`contains`](Self::contains), and for the root.
    pub fn remove(&mut self, path: impl AsRef<Path>) -> Result<bool> {
        let path = path.as_ref();
        let names = names(path)?;
        let Some((name, folders)) = names.split_last() else {
            return Err(refused(path, "the root must stay"));
        };
        let folder = self.walk(folders).and_then(|folder| self.nodes.get_mut(folder));
        let Some(Node { kind: NodeKind::Folder(entries), .. }) = folder else { return Ok(false) };
        Ok(entries.remove(*name).is_some())
    }

    fn walk(&self, names: &[&[u8]]) -> Option<usize> {
        names.iter().try_fold(0, |at, name| match self.nodes.get(at).map(|node| &node.kind) {
            Some(NodeKind::Folder(entries)) => entries.get(*name).copied(),
            _ => None,
        })
    }

    fn find(&self, path: &Path) -> Result<Option<usize>> {
        Ok(self.walk(&names(path)?))
    }

    fn add(&mut self, path: &Path, meta: Meta, kind: NodeKind) -> Result<()> {
        if meta.mode > 0o7777 {
            return Err(refused(path, &format!("permissions {:o}; at most 7777", meta.mode)));
        }
        let names = names(path)?;
        let Some((name, folders)) = names.split_last() else { return Err(refused(path, "this is the root")) };
        let new = self.nodes.len();
        let folder = self.walk(folders).and_then(|folder| self.nodes.get_mut(folder));
        let Some(Node { kind: NodeKind::Folder(entries), .. }) = folder else {
            return Err(
                refused(path, "the folder that it lies in is not there").hint("add its folders first")
            );
        };
        if entries.contains_key(*name) {
            return Err(refused(path, "the path is taken").hint("remove what has it first"));
        }
        entries.insert(name.to_vec(), new);
        self.nodes.push(Node { meta, kind });
        Ok(())
    }

    /// The nodes in the order of their numbers: folder by folder, so that what lies in one folder is numbered in one run.
    fn order(&self) -> Vec<Numbered> {
        let mut order = vec![Numbered { node: 0, parent: 0, entries: 0..0 }];
        let mut at = 0;
        while let Some(node) = order.get(at).map(|numbered| numbered.node) {
            if let Some(Node { kind: NodeKind::Folder(entries), .. }) = self.nodes.get(node) {
                let first = order.len();
                order.extend(entries.values().map(|&node| Numbered { node, parent: at, entries: 0..0 }));
                let end = order.len();
                if let Some(numbered) = order.get_mut(at) {
                    numbered.entries = first..end;
                }
            }
            at += 1;
        }
        order
    }

    /// Writes the image from where `out` stands; its length, with the zeros that fill up its last 4 KiB.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) for options out of bounds and what the format cannot number,
    /// [`Kind::Io`](crate::Kind::Io) where a file cannot be read, has changed while it was, or `out` cannot be written.
    pub fn write(self, out: &mut (impl Write + Seek), options: SquashOptions) -> Result<Bytes> {
        let SquashOptions { block_size, level, time } = options;
        if !block_size.0.is_power_of_two() || !(Bytes::kib(4)..=Bytes::mib(1)).contains(&block_size) {
            return Err(Error::refused(format!(
                "blocks of {} bytes; a power of two from 4 KiB to 1 MiB is possible",
                block_size.0
            )));
        }
        if !(1..=22).contains(&level) {
            return Err(Error::refused(format!("level {level} of zstd; 1 to 22 are possible")));
        }
        let order = self.order();
        let count = u32::try_from(order.len()).map_err(|_| Error::refused("more than 2^32 names"))?;
        let mut out = Output::new(out)?;
        // The superblock comes last: what is cut off has none.
        out.write(&[0; SUPERBLOCK])?;
        let mut options = 0x8004u16.to_le_bytes().to_vec();
        options.extend(level.to_le_bytes());
        out.write(&options)?;
        let files: Vec<&FileContent> =
            order.iter().filter_map(|numbered| self.content(numbered.node)).collect();
        let stored = blocks::write(&mut out, &files, block_size, level)?;
        let mut tables = Tables::new(level, time)?;
        self.inodes(&order, &stored.files, &mut tables)?;
        let written = tables.write(&mut out, &stored.fragments)?;
        let mut superblock = Vec::with_capacity(SUPERBLOCK);
        let u32_of = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
        superblock.extend(b"hsqs");
        superblock.extend(count.to_le_bytes());
        superblock.extend(time.to_le_bytes());
        superblock.extend(u32_of(block_size.0));
        superblock.extend(written.fragments.to_le_bytes());
        superblock.extend(6u16.to_le_bytes()); // zstd
        superblock.extend(u16::try_from(block_size.0.ilog2()).unwrap_or(0).to_le_bytes());
        // Same contents once; no extended attributes; options of the compressor are there.
        superblock.extend(0x0640u16.to_le_bytes());
        superblock.extend(written.ids.to_le_bytes());
        superblock.extend(4u16.to_le_bytes());
        superblock.extend(0u16.to_le_bytes());
        superblock.extend(tables.root().to_le_bytes());
        superblock.extend(out.at.to_le_bytes());
        superblock.extend(written.id_table.to_le_bytes());
        superblock.extend(u64::MAX.to_le_bytes()); // extended attributes
        superblock.extend(written.inode_table.to_le_bytes());
        superblock.extend(written.folder_table.to_le_bytes());
        superblock.extend(written.fragment_table.to_le_bytes());
        superblock.extend(u64::MAX.to_le_bytes()); // export
        out.finish(&superblock)
    }

    fn content(&self, node: usize) -> Option<&FileContent> {
        match self.nodes.get(node).map(|node| &node.kind) {
            Some(NodeKind::File(content)) => Some(content),
            _ => None,
        }
    }

    /// Writes inodes and lists of all folders, those that lie in others first; `stored` are the files in their order.
    fn inodes(&self, order: &[Numbered], stored: &[Arc<Stored>], tables: &mut Tables) -> Result<()> {
        let number = |at: usize| u32::try_from(at + 1).unwrap_or(u32::MAX);
        let mut files = stored.iter();
        let stored: Vec<Option<&Stored>> = order
            .iter()
            .map(|numbered| self.content(numbered.node).and_then(|_| files.next()).map(|stored| &**stored))
            .collect();
        let mut places: Vec<Place> = vec![Place::default(); order.len()];
        for (at, numbered) in order.iter().enumerate().rev() {
            let Some(Node { meta, kind: NodeKind::Folder(entries) }) = self.nodes.get(numbered.node) else {
                continue;
            };
            let mut folders = 0;
            for child in numbered.entries.clone() {
                let (Some(node), Some(place)) =
                    (order.get(child).and_then(|n| self.nodes.get(n.node)), places.get_mut(child))
                else {
                    continue;
                };
                let (meta, number) = (node.meta, number(child));
                *place = match &node.kind {
                    NodeKind::Folder(_) => {
                        folders += 1;
                        continue;
                    }
                    NodeKind::File(_) => match stored.get(child).copied().flatten() {
                        Some(stored) => tables.file(meta, number, stored)?,
                        None => continue,
                    },
                    NodeKind::Link(target) => tables.link(meta, number, target)?,
                    NodeKind::Device(device) => tables.device(meta, number, *device)?,
                };
            }
            let list: Vec<tables::Name<'_>> = entries
                .keys()
                .zip(numbered.entries.clone())
                .filter_map(|(name, child)| {
                    Some(tables::Name { name, number: number(child), place: *places.get(child)? })
                })
                .collect();
            // The root lies in nothing.
            let parent = if at == 0 { number(order.len()) } else { number(numbered.parent) };
            let place = tables.folder(*meta, number(at), parent, folders, &list)?;
            if let Some(own) = places.get_mut(at) {
                *own = place;
            }
        }
        Ok(())
    }
}

/// A node and its place among all, where its number is one more than the place.
struct Numbered {
    node: usize,
    parent: usize,
    entries: std::ops::Range<usize>,
}

/// The names of a path; one `/` before them does not matter.
fn names(path: &Path) -> Result<Vec<&[u8]>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir => {}
            Component::Normal(name) if name.len() <= NAME && !name.as_bytes().contains(&0) => {
                names.push(name.as_bytes())
            }
            _ => {
                return Err(refused(
                    path,
                    &format!("a path has names of at most {NAME} bytes, and no . or .."),
                ));
            }
        }
    }
    Ok(names)
}

fn refused(path: &Path, why: &str) -> Error {
    Error::refused(format!("cannot put {path:?} into a squashfs image: {why}"))
}

/// Where the image goes, and how long it is by now.
struct Output<'a, W> {
    out: &'a mut W,
    start: u64,
    at: u64,
}

impl<'a, W: Write + Seek> Output<'a, W> {
    fn new(out: &'a mut W) -> Result<Self> {
        let start = out.stream_position().map_err(|e| Error::io("cannot find a position to write at", e))?;
        Ok(Output { out, start, at: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| Error::io("cannot write a squashfs image", e))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Fills up the end and writes the beginning.
    fn finish(mut self, superblock: &[u8]) -> Result<Bytes> {
        let rest = self.at.next_multiple_of(PADDING) - self.at;
        self.write(&vec![0; usize::try_from(rest).unwrap_or(0)])?;
        let end = self.at;
        let seek = |out: &mut W, to: u64| {
            out.seek(SeekFrom::Start(to)).map_err(|e| Error::io("cannot seek in a squashfs image", e))
        };
        seek(self.out, self.start)?;
        self.write(superblock)?;
        seek(self.out, self.start + end)?;
        self.out.flush().map_err(|e| Error::io("cannot write a squashfs image", e))?;
        Ok(Bytes(end))
    }
}
