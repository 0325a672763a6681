//! What stands behind the contents: inodes, folders, fragments and ids, all in metadata blocks.
//!
//! ```text
//! metadata block   length u16, bit 15: not compressed | at most 8192 bytes, when unpacked all but the last exactly that
//! place            block as it lies, from the start of its table << 16 | byte in the block when unpacked
//!
//! inode            type u16 | mode u16 | owner u16, group u16: indexes of ids | time u32 | number u32 | by type:
//!   1 folder       block of the list u32 | links u32 | length of the list + 3 u16 | byte in the block u16 | parent u32
//!   8 large folder links u32 | length + 3 u32 | block u32 | parent u32 | indexes u16 | byte u16 | attributes u32
//!   2 file         first block u32 | fragment u32 | byte in it u32 | length u32 | u32 for each block
//!   9 large file   first block u64 | length u64 | sparse u64 | links u32 | fragment u32 | byte u32 | attributes u32 | blocks
//!   3 link         links u32 | length u32 | target
//!   4, 5 devices   links u32 | numbers u32                    6, 7 pipe and socket   links u32
//!
//! list             runs: entries - 1 u32 | block of their inodes u32 | a number u32, then at most 256 entries
//!                  entry: byte of the inode u16 | its number less that of the run i16 | type u16 | length - 1 u16 | name
//! fragments, ids   metadata blocks, then where each of them begins u64; a table is found by the first of those
//! ```

use super::blocks::{Fragment, Stored};
use super::{Device, Meta, Output};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::io::{Seek, Write};

/// Bytes of a metadata block when unpacked.
const BLOCK: usize = 8192;

/// Entries that share one head in a list.
const RUN: usize = 256;

/// No fragment, no extended attributes.
const NONE: u32 = u32::MAX;

/// Where an inode or a list lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    block: u32,
    byte: u16,
    /// The type as it stands in a list.
    kind: u16,
}

/// An entry of a folder.
pub(super) struct Name<'a> {
    pub name: &'a [u8],
    pub number: u32,
    pub place: Place,
}

/// Bytes on their way into metadata blocks.
pub(super) struct Metadata {
    done: Vec<u8>,
    /// Starts of the blocks that are done.
    starts: Vec<u64>,
    open: Vec<u8>,
    zstd: zstd::bulk::Compressor<'static>,
}

impl Metadata {
    pub fn new(level: i32) -> Result<Metadata> {
        let zstd = zstd::bulk::Compressor::new(level)
            .map_err(|e| Error::io("cannot prepare a zstd compressor", e))?;
        Ok(Metadata { done: Vec::new(), starts: Vec::new(), open: Vec::new(), zstd })
    }

    /// Where the next byte will lie.
    fn place(&self, kind: u16) -> Result<Place> {
        let block = u32::try_from(self.done.len()).map_err(|_| Error::refused("a table of 4 GiB or more"))?;
        Ok(Place { block, byte: u16::try_from(self.open.len()).unwrap_or(u16::MAX), kind })
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.open.extend(bytes);
        while self.open.len() >= BLOCK {
            let rest = self.open.split_off(BLOCK);
            self.close()?;
            self.open = rest;
        }
        Ok(())
    }

    /// Ends the block.
    fn close(&mut self) -> Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        self.starts.push(self.done.len() as u64);
        let packed = self.zstd.compress(&self.open).map_err(|e| Error::io("cannot compress metadata", e))?;
        let (bytes, flag) = if packed.len() < self.open.len() { (&packed, 0) } else { (&self.open, 0x8000) };
        let length = u16::try_from(bytes.len()).unwrap_or(0) | flag;
        self.done.extend(length.to_le_bytes());
        self.done.extend(bytes);
        self.open.clear();
        Ok(())
    }
}

/// The tables of an image.
pub(super) struct Tables {
    inodes: Metadata,
    folders: Metadata,
    level: i32,
    time: u32,
    /// Id -> index.
    ids: BTreeMap<u32, u16>,
    root: Place,
}

/// Where the tables are, and how much is in them.
pub(super) struct Written {
    pub inode_table: u64,
    pub folder_table: u64,
    pub fragment_table: u64,
    pub id_table: u64,
    pub fragments: u32,
    pub ids: u16,
}

impl Tables {
    pub fn new(level: i32, time: u32) -> Result<Tables> {
        Ok(Tables {
            inodes: Metadata::new(level)?,
            folders: Metadata::new(level)?,
            level,
            time,
            ids: BTreeMap::new(),
            root: Place::default(),
        })
    }

    fn id(&mut self, id: u32) -> Result<u16> {
        let next = u16::try_from(self.ids.len());
        if let Some(index) = self.ids.get(&id) {
            return Ok(*index);
        }
        // The number of ids must fit 16 bits as well.
        let next = next.ok().filter(|next| *next < u16::MAX);
        let next = next.ok_or_else(|| Error::refused("more than 65535 different owners and groups"))?;
        self.ids.insert(id, next);
        Ok(next)
    }

    /// Writes an inode of `kind`, which lists show as `shown`.
    fn inode(&mut self, (kind, shown): (u16, u16), meta: Meta, number: u32, rest: &[u8]) -> Result<Place> {
        let place = self.inodes.place(shown)?;
        let (uid, gid) = (self.id(meta.uid)?, self.id(meta.gid)?);
        let mut bytes = Vec::with_capacity(16 + rest.len());
        for field in [kind, meta.mode, uid, gid] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(self.time.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes.extend(rest);
        self.inodes.push(&bytes)?;
        Ok(place)
    }

    pub fn link(&mut self, meta: Meta, number: u32, target: &[u8]) -> Result<Place> {
        let mut rest = 1u32.to_le_bytes().to_vec();
        rest.extend(u32::try_from(target.len()).unwrap_or(u32::MAX).to_le_bytes());
        rest.extend(target);
        self.inode((3, 3), meta, number, &rest)
    }

    pub fn device(&mut self, meta: Meta, number: u32, device: Device) -> Result<Place> {
        let mut rest = 1u32.to_le_bytes().to_vec();
        let kind = match device {
            Device::Block(..) => 4,
            Device::Character(..) => 5,
            Device::Fifo => 6,
            Device::Socket => 7,
        };
        if let Device::Block(major, minor) | Device::Character(major, minor) = device {
            let numbers = minor & 0xff | major << 8 | (minor & !0xff) << 12;
            rest.extend(numbers.to_le_bytes());
        }
        self.inode((kind, kind), meta, number, &rest)
    }

    pub fn file(&mut self, meta: Meta, number: u32, stored: &Stored) -> Result<Place> {
        let (fragment, byte) = stored.fragment.unwrap_or((NONE, 0));
        let mut rest = Vec::with_capacity(40 + stored.blocks.len() * 4);
        let small = u32::try_from(stored.start).ok().zip(u32::try_from(stored.length).ok());
        let kind = match small.filter(|_| stored.sparse == 0) {
            Some((start, length)) => {
                for field in [start, fragment, byte, length] {
                    rest.extend(field.to_le_bytes());
                }
                2
            }
            None => {
                for field in [stored.start, stored.length, stored.sparse] {
                    rest.extend(field.to_le_bytes());
                }
                for field in [1, fragment, byte, NONE] {
                    rest.extend(field.to_le_bytes());
                }
                9
            }
        };
        rest.extend(stored.blocks.iter().flat_map(|size| size.to_le_bytes()));
        self.inode((kind, 2), meta, number, &rest)
    }

    /// Writes a folder's list and its inode. `names` are sorted by their bytes, `folders` of them are folders.
    pub fn folder(
        &mut self,
        meta: Meta,
        number: u32,
        parent: u32,
        folders: u32,
        names: &[Name<'_>],
    ) -> Result<Place> {
        let list = self.folders.place(0)?;
        let mut length = 0u64;
        let mut rest = names;
        while let Some(first) = rest.first() {
            let delta =
                |name: &Name<'_>| i16::try_from(i64::from(name.number) - i64::from(first.number)).ok();
            let fits = |name: &&Name<'_>| name.place.block == first.place.block && delta(name).is_some();
            let count = rest.iter().take(RUN).take_while(fits).count().max(1);
            let (run, later) = rest.split_at(count);
            let mut bytes = Vec::new();
            bytes.extend(u32::try_from(count - 1).unwrap_or(0).to_le_bytes());
            bytes.extend(first.place.block.to_le_bytes());
            bytes.extend(first.number.to_le_bytes());
            for name in run {
                bytes.extend(name.place.byte.to_le_bytes());
                bytes.extend(delta(name).unwrap_or(0).to_le_bytes());
                bytes.extend(name.place.kind.to_le_bytes());
                bytes.extend(u16::try_from(name.name.len() - 1).unwrap_or(0).to_le_bytes());
                bytes.extend(name.name);
            }
            length += bytes.len() as u64;
            self.folders.push(&bytes)?;
            rest = later;
        }
        // `.` and `..`, which no list holds, count for three.
        let length =
            u32::try_from(length + 3).map_err(|_| Error::refused("a folder's list of 4 GiB or more"))?;
        let links = folders + 2;
        let mut rest = Vec::with_capacity(24);
        let kind = match u16::try_from(length) {
            Ok(length) => {
                rest.extend(list.block.to_le_bytes());
                rest.extend(links.to_le_bytes());
                rest.extend(length.to_le_bytes());
                rest.extend(list.byte.to_le_bytes());
                rest.extend(parent.to_le_bytes());
                1
            }
            Err(_) => {
                for field in [links, length, list.block, parent] {
                    rest.extend(field.to_le_bytes());
                }
                rest.extend(0u16.to_le_bytes());
                rest.extend(list.byte.to_le_bytes());
                rest.extend(NONE.to_le_bytes());
                8
            }
        };
        self.root = self.inode((kind, 1), meta, number, &rest)?;
        Ok(self.root)
    }

    /// The place of the folder that was written last, as the superblock has it.
    pub fn root(&self) -> u64 {
        u64::from(self.root.block) << 16 | u64::from(self.root.byte)
    }

    /// Writes all tables.
    pub fn write<W: Write + Seek>(
        &mut self,
        out: &mut Output<'_, W>,
        fragments: &[Fragment],
    ) -> Result<Written> {
        let inode_table = out.at;
        self.inodes.close()?;
        out.write(&self.inodes.done)?;
        let folder_table = out.at;
        self.folders.close()?;
        out.write(&self.folders.done)?;
        let count = u32::try_from(fragments.len()).map_err(|_| Error::refused("more than 2^32 fragments"))?;
        let entries = fragments.iter().flat_map(|fragment| {
            let size = u64::from(fragment.size);
            [fragment.start.to_le_bytes(), size.to_le_bytes()].concat()
        });
        let fragment_table = self.indexed(out, entries.collect())?;
        let ids = u16::try_from(self.ids.len()).unwrap_or(u16::MAX);
        let mut by_index: Vec<(u16, u32)> = self.ids.iter().map(|(id, index)| (*index, *id)).collect();
        by_index.sort_unstable();
        let id_table = self.indexed(out, by_index.iter().flat_map(|(_, id)| id.to_le_bytes()).collect())?;
        Ok(Written { inode_table, folder_table, fragment_table, id_table, fragments: count, ids })
    }

    /// Writes a table that has an index; where that is.
    fn indexed<W: Write + Seek>(&self, out: &mut Output<'_, W>, bytes: Vec<u8>) -> Result<u64> {
        let mut table = Metadata::new(self.level)?;
        table.push(&bytes)?;
        table.close()?;
        let start = out.at;
        out.write(&table.done)?;
        let index = out.at;
        for block in table.starts {
            out.write(&(start + block).to_le_bytes())?;
        }
        Ok(index)
    }
}
