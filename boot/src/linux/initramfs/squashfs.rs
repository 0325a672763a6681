//! SquashFS 4.0, read whole: every file of an image with its data. All numbers are little-endian.
//!
//! Specification: `fs/squashfs/squashfs_fs.h` of Linux.
//!
//! ```text
//!  0 magic "hsqs"        20 compressor u16    32 root inode u64      64 inode table u64
//! 12 block size u32      26 ids u16           48 id table u64        72 folder table u64
//! 16 fragments u32       28 version u16 × 2                          80 fragment table u64
//! metadata: blocks of a u16 (0x8000: stored; the rest is the size) and at most 8 KiB unpacked, one behind the other
//! a reference: position of a block in its table << 16 | position in what is unpacked
//! ```
//!
//! Everything that is unpacked, and unpacked again, counts against one bound, so that a small image cannot make much work.
//!
//! Deliberately absent: extended attributes (dracut packs none), other versions, LZMA.

use super::compress::{self, Compressor};
use super::cpio::{DIRECTORY, REGULAR, SYMLINK};
use super::limits;
use crate::{Error, Result};
use landfall_image::{Bytes, FileOffset};
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::rc::Rc;

/// `hsqs`
pub const MAGIC: &[u8] = b"hsqs";

const METADATA_BLOCK: usize = 8192;
/// Metadata blocks kept unpacked: an image of 500 000 files has 4000.
const METADATA_BLOCKS: usize = 8192;
const LARGEST_BLOCK: usize = 1 << 20;
const NO_FRAGMENT: u32 = u32::MAX;
/// In the size of a data block: it is stored as it is.
const STORED: u32 = 1 << 24;

/// Equal files of this size become hard links, as dracut makes them. A smaller one may be written to while the guest
/// starts, and its twin with it.
const WORTH_A_LINK: u64 = 4096;

/// A file, folder, link or device.
#[derive(Debug)]
pub struct Node {
    /// Without leading `/`; the root's is empty.
    pub path: Vec<u8>,
    /// Type and permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Seconds since 1970.
    pub mtime: u32,
    /// Major and minor of a device.
    pub rdev: (u32, u32),
    /// Place of the content in [`Image::data`]; 0 is empty.
    pub data: usize,
}

/// Everything in an image.
#[derive(Debug)]
pub struct Image {
    /// Folders before what is in them.
    pub nodes: Vec<Node>,
    /// Contents of files and targets of links. Names with the same place are hard links.
    pub data: Vec<Vec<u8>>,
}

/// Reads an image.
///
/// # Errors
/// `Corrupt` for damage, `Unsupported` for another version or compressor, `Refused` beyond [`limits`].
pub fn read(bytes: &[u8]) -> Result<Image> {
    let mut reader = Reader::open(bytes)?;
    let mut image = Image { nodes: Vec::new(), data: vec![Vec::new()] };
    let mut known = HashMap::new();
    let mut folders = HashSet::new();
    let mut queue = vec![(Vec::new(), reader.root)];
    while let Some((path, reference)) = queue.pop() {
        if image.nodes.len() >= limits::ENTRIES {
            let bound = limits::ENTRIES;
            return Err(Error::refused(format!("the squashfs image has more than {bound} entries")));
        }
        let inode = reader.inode(reference)?;
        let mut node = Node { data: 0, path, ..inode.node };
        match inode.content {
            Content::Folder { block, offset, size } => {
                if !folders.insert(reference) {
                    return Err(Error::corrupt("a folder of the squashfs image lies in two places"));
                }
                for (name, child) in reader.folder(block, offset, size)? {
                    let path =
                        if node.path.is_empty() { name } else { [&node.path, &b"/"[..], &name].concat() };
                    if path.len() >= limits::PATH {
                        return Err(Error::corrupt("a path in the squashfs image is too long"));
                    }
                    queue.push((path, child));
                }
            }
            Content::File(file) => {
                let key = match file.size >= WORTH_A_LINK {
                    true => (file.start, file.fragment, file.offset, node.mode, node.owner),
                    false => (u64::MAX, inode.number, 0, node.mode, node.owner),
                };
                if let Some((place, _)) = known.get(&key).filter(|(_, size)| *size == file.size) {
                    node.data = *place;
                } else if file.size > 0 {
                    node.data = image.data.len();
                    image.data.push(reader.file(&file)?);
                    known.insert(key, (node.data, file.size));
                }
            }
            Content::Link(target) => {
                node.data = image.data.len();
                image.data.push(target);
            }
            Content::Other => {}
        }
        image.nodes.push(node);
    }
    image.nodes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(image)
}

struct Inode {
    node: Node,
    number: u32,
    content: Content,
}

enum Content {
    Folder { block: u64, offset: usize, size: usize },
    File(File),
    Link(Vec<u8>),
    Other,
}

struct File {
    start: u64,
    size: u64,
    fragment: u32,
    offset: usize,
    blocks: Vec<u32>,
}

struct Reader<'a> {
    bytes: &'a [u8],
    compressor: u16,
    block_size: usize,
    root: u64,
    inodes: u64,
    folders: u64,
    ids: Vec<u32>,
    /// Position and size of each fragment block.
    fragments: Vec<(u64, u32)>,
    /// Unpacked metadata by position, and the position of the next block.
    metadata: HashMap<u64, (Rc<Vec<u8>>, u64)>,
    /// The fragment block used last.
    fragment: Option<(u32, Vec<u8>)>,
    /// What may still be unpacked.
    left: u64,
}

/// A place in metadata.
struct Cursor {
    block: Rc<Vec<u8>>,
    at: usize,
    next: u64,
}

impl<'a> Reader<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader {
            bytes,
            compressor: 0,
            block_size: 0,
            root: 0,
            inodes: 0,
            folders: 0,
            ids: Vec::new(),
            fragments: Vec::new(),
            metadata: HashMap::new(),
            fragment: None,
            left: limits::UNPACKED.0,
        };
        if bytes.get(..4) != Some(MAGIC) {
            return Err(Error::corrupt("the squashfs image does not begin with hsqs"));
        }
        let number = |at, size| number(bytes, at, size);
        let (major, minor) = (number(28, 2)?, number(30, 2)?);
        if (major, minor) != (4, 0) {
            let says = format!("the squashfs image has version {major}.{minor}; 4.0 is read");
            return Err(Error::unsupported(says));
        }
        reader.block_size = usize::try_from(number(12, 4)?).unwrap_or(usize::MAX);
        if !reader.block_size.is_power_of_two() || !(4096..=LARGEST_BLOCK).contains(&reader.block_size) {
            let says = format!("the squashfs image has blocks of {} bytes", reader.block_size);
            return Err(Error::corrupt(says).at(FileOffset(12)));
        }
        reader.compressor = u16::try_from(number(20, 2)?).unwrap_or(0);
        (reader.root, reader.inodes, reader.folders) = (number(32, 8)?, number(64, 8)?, number(72, 8)?);
        let ids = reader.table(number(48, 8)?, number(26, 2)?, 4)?;
        reader.ids =
            ids.chunks_exact(4).filter_map(|b| Some(u32::from_le_bytes(b.try_into().ok()?))).collect();
        let fragments = match number(16, 4)? {
            0 => Vec::new(),
            count => reader.table(number(80, 8)?, count, 16)?,
        };
        for entry in fragments.chunks_exact(16) {
            let size = u32::try_from(self::number(entry, 8, 4)?).unwrap_or(0);
            reader.fragments.push((self::number(entry, 0, 8)?, size));
        }
        Ok(reader)
    }

    /// A table that is found by a list of the positions of its metadata blocks.
    fn table(&mut self, list: u64, count: u64, entry_size: u64) -> Result<Vec<u8>> {
        let size = count.saturating_mul(entry_size);
        if size > self.bytes.len() as u64 * 64 {
            return Err(Error::corrupt("a table of the squashfs image is larger than the image can hold"));
        }
        let mut table = Vec::new();
        for i in 0..size.div_ceil(METADATA_BLOCK as u64) {
            let at = usize::try_from(list.saturating_add(i * 8)).unwrap_or(usize::MAX);
            let (block, _) = self.metadata_block(number(self.bytes, at, 8)?)?;
            table.extend_from_slice(&block);
        }
        if (table.len() as u64) < size {
            return Err(Error::corrupt("a table of the squashfs image is cut off"));
        }
        table.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(table)
    }

    fn metadata_block(&mut self, position: u64) -> Result<(Rc<Vec<u8>>, u64)> {
        if let Some(known) = self.metadata.get(&position) {
            return Ok(known.clone());
        }
        if self.metadata.len() >= METADATA_BLOCKS {
            return Err(Error::refused("the squashfs image has more metadata than any initramfs needs"));
        }
        let at = usize::try_from(position).unwrap_or(usize::MAX);
        let header = number(self.bytes, at, 2)?;
        let size = usize::try_from(header & 0x7fff).unwrap_or(0);
        let packed = slice(self.bytes, at.saturating_add(2), size)?;
        let block = match header & 0x8000 {
            0 => self.unpack(packed, METADATA_BLOCK, at)?,
            _ if size > METADATA_BLOCK => {
                return Err(Error::corrupt("a metadata block of the squashfs image is too large"));
            }
            _ => packed.to_vec(),
        };
        let next = position.saturating_add(2).saturating_add(size as u64);
        let known = (Rc::new(block), next);
        self.metadata.insert(position, known.clone());
        Ok(known)
    }

    fn cursor(&mut self, position: u64, at: usize) -> Result<Cursor> {
        let (block, next) = self.metadata_block(position)?;
        Ok(Cursor { block, at, next })
    }

    /// The next bytes, across blocks.
    fn take(&mut self, cursor: &mut Cursor, count: usize) -> Result<Vec<u8>> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let rest = cursor.block.get(cursor.at..).unwrap_or_default();
            if rest.is_empty() {
                let (block, next) = self.metadata_block(cursor.next)?;
                if block.is_empty() {
                    return Err(Error::corrupt("a metadata block of the squashfs image is empty"));
                }
                *cursor = Cursor { block, at: 0, next };
                continue;
            }
            let some = rest.get(..count - taken.len()).unwrap_or(rest);
            taken.extend_from_slice(some);
            cursor.at += some.len();
        }
        Ok(taken)
    }

    fn inode(&mut self, reference: u64) -> Result<Inode> {
        let at = usize::try_from(reference & 0xffff).unwrap_or(0);
        let cursor = &mut self.cursor(self.inodes.saturating_add(reference >> 16), at)?;
        let head = self.take(cursor, 16)?;
        let field = |at, size| number(&head, at, size).map(narrow);
        let id = |index: u32| {
            let id = self.ids.get(usize::try_from(index).unwrap_or(usize::MAX)).copied();
            id.ok_or_else(|| Error::corrupt("an inode of the squashfs image has an owner that is not listed"))
        };
        let owner = (id(field(4, 2)?)?, id(field(6, 2)?)?);
        let (kind, mode, mtime, number_of) = (field(0, 2)?, field(2, 2)?, field(8, 4)?, field(12, 4)?);
        // Nodes of the extended types have seven more than those of the basic ones.
        let (is_long, basic) = if kind > 7 { (true, kind - 7) } else { (false, kind) };
        let mut rdev = (0, 0);
        let (bits, content) = match basic {
            1 if is_long => {
                let tail = self.take(cursor, 24)?;
                let size = narrow_size(number(&tail, 4, 4)?);
                (
                    DIRECTORY,
                    Content::Folder {
                        block: number(&tail, 8, 4)?,
                        offset: narrow_size(number(&tail, 18, 2)?),
                        size,
                    },
                )
            }
            1 => {
                let tail = self.take(cursor, 16)?;
                let size = narrow_size(number(&tail, 8, 2)?);
                (
                    DIRECTORY,
                    Content::Folder {
                        block: number(&tail, 0, 4)?,
                        offset: narrow_size(number(&tail, 10, 2)?),
                        size,
                    },
                )
            }
            2 => (REGULAR, Content::File(self.file_inode(cursor, is_long)?)),
            3 => {
                let tail = self.take(cursor, 8)?;
                let size = narrow_size(number(&tail, 4, 4)?);
                if size >= limits::PATH {
                    return Err(Error::corrupt("the target of a link in the squashfs image is too long"));
                }
                (SYMLINK, Content::Link(self.take(cursor, size)?))
            }
            4 | 5 => {
                let device = narrow(number(&self.take(cursor, 8)?, 4, 4)?);
                // new_encode_dev() of the kernel.
                rdev = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
                (if basic == 4 { 0o060_000 } else { 0o020_000 }, Content::Other)
            }
            6 => (0o010_000, Content::Other),
            7 => (0o140_000, Content::Other),
            _ => return Err(Error::corrupt(format!("an inode of the squashfs image has the type {kind}"))),
        };
        let node = Node { path: Vec::new(), mode: bits | (mode & 0o7777), owner, mtime, rdev, data: 0 };
        Ok(Inode { node, number: number_of, content })
    }

    fn file_inode(&mut self, cursor: &mut Cursor, is_long: bool) -> Result<File> {
        let tail = self.take(cursor, if is_long { 40 } else { 16 })?;
        let (start, fragment, offset, size) = match is_long {
            true => {
                (number(&tail, 0, 8)?, number(&tail, 28, 4)?, number(&tail, 32, 4)?, number(&tail, 8, 8)?)
            }
            false => {
                (number(&tail, 0, 4)?, number(&tail, 4, 4)?, number(&tail, 8, 4)?, number(&tail, 12, 4)?)
            }
        };
        if size > self.left {
            return Err(too_large());
        }
        let fragment = narrow(fragment);
        let block_size = self.block_size as u64;
        let count = if fragment == NO_FRAGMENT { size.div_ceil(block_size) } else { size / block_size };
        let list = self.take(cursor, narrow_size(count.saturating_mul(4)))?;
        let blocks =
            list.chunks_exact(4).filter_map(|b| Some(u32::from_le_bytes(b.try_into().ok()?))).collect();
        Ok(File { start, size, fragment, offset: narrow_size(offset), blocks })
    }

    /// Name and reference of everything in a folder.
    fn folder(&mut self, block: u64, offset: usize, size: usize) -> Result<Vec<(Vec<u8>, u64)>> {
        // The size counts `.` and `..`, which are not there.
        let mut left = size.saturating_sub(3);
        let mut entries = Vec::new();
        if left == 0 {
            return Ok(entries);
        }
        let cursor = &mut self.cursor(self.folders.saturating_add(block), offset)?;
        let mut take = |count: usize, left: &mut usize| -> Result<Vec<u8>> {
            let cut_off = || Error::corrupt("a folder of the squashfs image is cut off");
            *left = left.checked_sub(count).ok_or_else(cut_off)?;
            self.take(cursor, count)
        };
        while left > 0 {
            let head = take(12, &mut left)?;
            let count = number(&head, 0, 4)?.saturating_add(1);
            for _ in 0..count {
                let entry = take(8, &mut left)?;
                let name = take(narrow_size(number(&entry, 6, 2)?).saturating_add(1), &mut left)?;
                if name == b"." || name == b".." || name.iter().any(|b| matches!(b, 0 | b'/')) {
                    return Err(Error::corrupt("a name in the squashfs image is none"));
                }
                entries.push((name, (number(&head, 4, 4)? << 16) | number(&entry, 0, 2)?));
                if entries.len() > limits::ENTRIES {
                    return Err(Error::refused("a folder of the squashfs image has too many names"));
                }
            }
        }
        Ok(entries)
    }

    fn file(&mut self, file: &File) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        let mut at = usize::try_from(file.start).unwrap_or(usize::MAX);
        let size = narrow_size(file.size);
        for block in &file.blocks {
            let expected = self.block_size.min(size.saturating_sub(data.len()));
            let packed_size = narrow_size(u64::from(block & (STORED - 1)));
            match packed_size {
                // A hole.
                0 => {
                    self.spend(expected)?;
                    data.resize(data.len().saturating_add(expected), 0);
                }
                _ => data.extend_from_slice(&self.block(at, *block, expected)?),
            }
            at = at.saturating_add(packed_size);
        }
        let tail = size.saturating_sub(data.len());
        if tail > 0 {
            let outside = || Error::corrupt("a file of the squashfs image lies outside its fragment");
            let index = file.fragment;
            if self.fragment.as_ref().is_none_or(|(known, _)| *known != index) {
                let place = self.fragments.get(usize::try_from(index).unwrap_or(usize::MAX)).copied();
                let (start, packed) = place.ok_or_else(outside)?;
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                let packed_size = narrow_size(u64::from(packed & (STORED - 1)));
                let source = slice(self.bytes, start, packed_size)?;
                let block = match packed & STORED {
                    0 => self.unpack(source, self.block_size, start)?,
                    _ => source.to_vec(),
                };
                self.fragment = Some((index, block));
            }
            self.spend(tail)?;
            let block = self.fragment.as_ref().map(|(_, block)| block.as_slice()).unwrap_or_default();
            data.extend_from_slice(slice(block, file.offset, tail).map_err(|_| outside())?);
        }
        Ok(data)
    }

    /// A data block that unpacks to `expected` bytes.
    fn block(&mut self, at: usize, size: u32, expected: usize) -> Result<Vec<u8>> {
        let packed = slice(self.bytes, at, narrow_size(u64::from(size & (STORED - 1))))?;
        let block = match size & STORED {
            0 => self.unpack(packed, self.block_size, at)?,
            _ => packed.to_vec(),
        };
        if block.len() != expected {
            let says = format!("a block of the squashfs image has {} bytes, not {expected}", block.len());
            return Err(Error::corrupt(says).at(FileOffset(at as u64)));
        }
        Ok(block)
    }

    fn spend(&mut self, count: usize) -> Result<()> {
        self.left = self.left.checked_sub(count as u64).ok_or_else(too_large)?;
        Ok(())
    }

    /// Unpacks at most `at_most` bytes; `at` is for messages.
    fn unpack(&mut self, packed: &[u8], at_most: usize, at: usize) -> Result<Vec<u8>> {
        let damaged = |e: String| {
            Error::corrupt(format!("a block of the squashfs image is damaged: {e}")).at(FileOffset(at as u64))
        };
        let stream = |compressor| Ok(compress::unpack(compressor, packed, Bytes(at_most as u64))?.0);
        let unpacked = match self.compressor {
            1 => {
                let mut unpacked = Vec::new();
                let decoder = flate2::bufread::ZlibDecoder::new(packed);
                let read = decoder.take(at_most as u64 + 1).read_to_end(&mut unpacked);
                read.map_err(|e| damaged(e.to_string()))?;
                unpacked
            }
            3 => {
                let mut block = vec![0; at_most];
                let size =
                    lzokay::decompress::decompress(packed, &mut block).map_err(|e| damaged(e.to_string()))?;
                block.truncate(size);
                block
            }
            4 => stream(Compressor::Xz).map_err(|e: Error| damaged(e.to_string()))?,
            5 => {
                let mut block = vec![0; at_most];
                let size = lz4_flex::block::decompress_into(packed, &mut block)
                    .map_err(|e| damaged(e.to_string()))?;
                block.truncate(size);
                block
            }
            6 => stream(Compressor::Zstd).map_err(|e: Error| damaged(e.to_string()))?,
            other => {
                let says =
                    format!("the squashfs image is compressed by method {other}, which is not handled");
                return Err(Error::unsupported(says));
            }
        };
        if unpacked.len() > at_most {
            return Err(damaged(format!("it unpacks to more than {at_most} bytes")));
        }
        self.spend(unpacked.len())?;
        Ok(unpacked)
    }
}

fn too_large() -> Error {
    Error::refused(format!("the squashfs image unpacks to more than {}", limits::UNPACKED))
}

fn slice(bytes: &[u8], at: usize, size: usize) -> Result<&[u8]> {
    at.checked_add(size).and_then(|end| bytes.get(at..end)).ok_or_else(|| {
        let says = format!("the squashfs image is cut off: {size} bytes wanted at byte {at}");
        Error::corrupt(says)
    })
}

fn number(bytes: &[u8], at: usize, size_bytes: usize) -> Result<u64> {
    Ok(slice(bytes, at, size_bytes)?.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
}

/// A field of at most four bytes.
fn narrow(field: u64) -> u32 {
    u32::try_from(field).unwrap_or(u32::MAX)
}

fn narrow_size(field: u64) -> usize {
    usize::try_from(field).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn sample(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        (0..len)
            .map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if i % 3 == 0 { state.to_be_bytes()[0] } else { (i / 100).to_le_bytes()[0] }
            })
            .collect()
    }

    /// An image that mksquashfs made of a folder with everything that makes a difference.
    fn image(compressor: &str) -> Option<(tempfile::TempDir, Vec<u8>)> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("empty")).expect("folder");
        std::fs::create_dir_all(root.join("many")).expect("folder");
        for i in 0..700 {
            std::fs::write(root.join(format!("many/a-name-that-takes-space-{i}")), i.to_string())
                .expect("write");
        }
        for (name, len) in
            [("none", 0), ("small", 100), ("block", 131_072), ("tail", 131_073), ("large", 700_001)]
        {
            std::fs::write(root.join(name), sample(len as u64, len)).expect("write");
        }
        std::fs::copy(root.join("large"), root.join("same")).expect("copy");
        std::fs::hard_link(root.join("small"), root.join("small2")).expect("link");
        std::os::unix::fs::symlink("many/../small", root.join("link")).expect("link");
        let hole = std::fs::File::create(root.join("hole")).expect("file");
        hole.set_len(400_000).expect("hole");
        let path = dir.path().join("image");
        let output = Command::new("mksquashfs")
            .arg(&root)
            .arg(&path)
            .args(["-quiet", "-no-progress", "-no-xattrs", "-noappend", "-comp", compressor])
            .args(["-p", "null c 666 0 0 1 3", "-p", "fifo i 600 7 8 f"])
            .output();
        let Ok(output) = output else {
            eprintln!("SKIPPED: mksquashfs cannot be run: its images are not read");
            return None;
        };
        assert!(output.status.success(), "{compressor}: {}", String::from_utf8_lossy(&output.stderr));
        let bytes = std::fs::read(path).expect("an image");
        Some((dir, bytes))
    }

    #[test]
    fn what_mksquashfs_packs_is_read_in_every_compression() {
        for compressor in ["gzip", "xz", "zstd", "lz4", "lzo"] {
            let Some((dir, bytes)) = image(compressor) else { return };
            let image = read(&bytes).unwrap_or_else(|e| panic!("{compressor}: {e}"));
            let find = |path: &str| image.nodes.iter().find(|n| n.path == path.as_bytes()).expect(path);
            let mut seen = 0;
            let root = dir.path().join("root");
            for entry in std::fs::read_dir(&root)
                .expect("a folder")
                .chain(std::fs::read_dir(root.join("many")).expect("a folder"))
                .flatten()
            {
                let path = entry.path().strip_prefix(&root).expect("below").to_string_lossy().into_owned();
                let meta = std::fs::symlink_metadata(entry.path()).expect("there");
                let node = find(&path);
                assert_eq!(node.mode, std::os::unix::fs::MetadataExt::mode(&meta), "{compressor} {path}");
                if meta.is_file() {
                    let expected = std::fs::read(entry.path()).expect("a file");
                    assert!(image.data[node.data] == expected, "{compressor} {path}");
                }
                seen += 1;
            }
            assert!(seen > 700 && image.nodes[0].path.is_empty());
            assert_eq!(image.data[find("link").data], b"many/../small");
            assert_eq!((find("null").mode, find("null").rdev), (0o020_666, (1, 3)));
            assert_eq!((find("fifo").mode, find("fifo").owner), (0o010_600, (7, 8)));
            assert_eq!(find("small").data, find("small2").data, "a hard link");
            assert_eq!(find("large").data, find("same").data, "equal and large");
        }
    }

    #[test]
    fn damage_never_panics_or_hangs() {
        let Some((_dir, bytes)) = image("gzip") else { return };
        let tables = usize::try_from(number(&bytes, 64, 8).expect("a table")).expect("small");
        let places = (0..96).chain((tables..bytes.len()).step_by(61)).chain((96..tables).step_by(60_013));
        for at in places {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = read(&damaged);
            }
        }
        for cut in (0..bytes.len() - 4096).step_by(bytes.len() / 50) {
            read(&bytes[..cut]).expect_err("cut off");
        }
    }
}
