//! Keys and values of a hive, read.
//!
//! Records are those of msuhanov's "Windows registry file format specification", sections "Key node", "Key value" and "Big
//! data":
//!
//! ```text
//! nk  2 flags · 4 last written · 16 parent · 20 subkeys · 28 their list · 36 values · 40 their list · 44 sk · 48 class
//!     52, 56, 60, 64 the longest subkey's name, its class, value's name, data · 72 length of the name · 74 of the class · 76 name
//! vk  2 length of the name · 4 length of the data (top bit: they are in the next field) · 8 data · 12 type · 16 flags · 20 name
//! db  2 pieces · 4 list of pieces, each of 16344 bytes but the last
//! sk  4 next · 8 previous · 12 keys that name it · 16 length · 20 descriptor
//! ```
//!
//! Symbolic links are keys like others here: `CurrentControlSet` is not followed. A key whose values are a predefined handle has
//! none. Deliberately absent: keys that lie in memory only (volatile ones), of which a hive file holds nothing but counts.

use super::cells::{NIL, corrupt};
use super::names::{Name, folded};
use super::{Hive, Key};
use crate::Result;
use crate::windows::data::Data;

pub const FLAG_NO_DELETE: u16 = 8;
pub const FLAG_ROOT: u16 = 4;
pub const FLAG_LATIN: u16 = 0x20;
pub const FLAG_PREDEFINED: u16 = 0x40;
pub const FLAG_VOLATILE: u16 = 1;

/// Offsets in a key's record.
pub mod nk {
    pub const FLAGS: usize = 2;
    pub const WRITTEN: usize = 4;
    pub const PARENT: usize = 16;
    pub const SUBKEYS: usize = 20;
    pub const SUBKEY_LIST: usize = 28;
    pub const VOLATILE_LIST: usize = 32;
    pub const VALUES: usize = 36;
    pub const VALUE_LIST: usize = 40;
    pub const SECURITY: usize = 44;
    pub const CLASS: usize = 48;
    pub const LONGEST_SUBKEY: usize = 52;
    pub const LONGEST_VALUE: usize = 60;
    pub const LARGEST_DATA: usize = 64;
    pub const NAME_LEN: usize = 72;
    pub const CLASS_LEN: usize = 74;
    pub const NAME: usize = 76;
}

/// Offsets in a value's record.
pub mod vk {
    pub const NAME_LEN: usize = 2;
    pub const DATA_LEN: usize = 4;
    pub const DATA: usize = 8;
    pub const KIND: usize = 12;
    pub const FLAGS: usize = 16;
    pub const NAME: usize = 20;
}

/// Top bit of a value's length: the data lie in the record.
pub const INLINE: u32 = 1 << 31;
/// Data in one piece of those that are listed.
pub const PIECE: usize = 16344;

/// Where the data of a value lie.
pub enum Stored {
    /// In the record itself: so many bytes.
    Inline(usize),
    /// At the start of a cell.
    Cell(u32, usize),
    /// In pieces: the record of them, the cell of their list, (cell, bytes) of each.
    Pieces { record: u32, list: u32, pieces: Vec<(u32, usize)> },
}

impl Hive {
    /// The root key.
    pub fn root(&self) -> Key {
        Key(self.base.root())
    }
    /// The key at a path: names below the root with `\` between them, in any case. "" is the root.
    pub fn key(&self, path: &str) -> Result<Option<Key>> {
        let mut key = self.root();
        for name in path.split('\\').filter(|name| !name.is_empty()) {
            match self.subkey(key, name)? {
                Some(found) => key = found,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }
    /// A key directly below another one.
    pub fn subkey(&self, key: Key, name: &str) -> Result<Option<Key>> {
        Ok(self.find_subkey(key, &folded(name))?.existing.map(Key))
    }
    /// Names of the keys directly below this one, sorted as Windows sorts them, each with its key.
    pub fn subkeys(&self, key: Key) -> Result<Vec<(String, Key)>> {
        let mut all = Vec::new();
        for leaf in self.leaves(key)? {
            for index in 0..leaf.len {
                let found = self.leaf_key(&leaf, index)?;
                all.push((self.key_name(found)?.text(), Key(found)));
            }
        }
        Ok(all)
    }
    /// The key's own name; of the root whatever Windows called it.
    pub fn name(&self, key: Key) -> Result<String> {
        Ok(self.key_name(key.0)?.text())
    }
    /// Names and data of a key's values, in the order in which they are stored. The unnamed one is "".
    pub fn values(&self, key: Key) -> Result<Vec<(String, Data)>> {
        let cells = self.value_cells(key)?;
        cells.into_iter().map(|value| Ok((self.value_name(value)?.text(), self.data(value)?))).collect()
    }
    /// Data of the value with this name, in any case. "" is the unnamed one.
    pub fn value(&self, key: Key, name: &str) -> Result<Option<Data>> {
        self.find_value(key, name)?.map(|(_, value)| self.data(value)).transpose()
    }
    /// FILETIME of the key's last change: units of 100 ns since 1601.
    pub fn last_written(&self, key: Key) -> Result<u64> {
        let raw = self.cells.read(key.0, nk::WRITTEN, 8)?;
        Ok(u64::from_le_bytes(raw.try_into().unwrap_or_default()))
    }
    /// The class name, if it has one.
    pub fn class_name(&self, key: Key) -> Result<Option<String>> {
        Ok(self.class(key)?.map(|(_, bytes)| Name { bytes, wide: true }.text()))
    }
    /// The security descriptor, self-relative.
    pub fn security(&self, key: Key) -> Result<&[u8]> {
        let sk = self.cells.u32(key.0, nk::SECURITY)?;
        let len = self.cells.u32(sk, 16)? as usize;
        self.cells.read(sk, 20, len)
    }

    /// Checks that a cell is a key.
    pub(super) fn check_key(&self, cell: u32) -> Result<()> {
        if self.cells.read(cell, 0, 2)? != b"nk" {
            return Err(corrupt(cell, "this should be a key and is none"));
        }
        Ok(())
    }
    pub(super) fn flags(&self, key: Key) -> Result<u16> {
        self.cells.u16(key.0, nk::FLAGS)
    }
    pub(super) fn key_name(&self, cell: u32) -> Result<Name<'_>> {
        self.check_key(cell)?;
        let len = self.cells.u16(cell, nk::NAME_LEN)?;
        let wide = self.cells.u16(cell, nk::FLAGS)? & FLAG_LATIN == 0;
        Ok(Name { bytes: self.cells.read(cell, nk::NAME, usize::from(len))?, wide })
    }
    /// The class name's cell and bytes.
    pub(super) fn class(&self, key: Key) -> Result<Option<(u32, &[u8])>> {
        let len = usize::from(self.cells.u16(key.0, nk::CLASS_LEN)?);
        let cell = self.cells.u32(key.0, nk::CLASS)?;
        if len == 0 || cell == NIL {
            return Ok(None);
        }
        Ok(Some((cell, self.cells.read(cell, 0, len)?)))
    }

    /// Cells of a key's values.
    pub(super) fn value_cells(&self, key: Key) -> Result<Vec<u32>> {
        self.check_key(key.0)?;
        let count = self.cells.u32(key.0, nk::VALUES)? as usize;
        if count == 0 || self.flags(key)? & FLAG_PREDEFINED != 0 {
            return Ok(Vec::new());
        }
        let list = self.cells.u32(key.0, nk::VALUE_LIST)?;
        let raw = self.cells.read(list, 0, count.saturating_mul(4))?;
        Ok(raw.chunks_exact(4).map(|cell| u32::from_le_bytes([cell[0], cell[1], cell[2], cell[3]])).collect())
    }
    /// Place in the list and cell of a value.
    pub(super) fn find_value(&self, key: Key, name: &str) -> Result<Option<(usize, u32)>> {
        let name = folded(name);
        for (index, value) in self.value_cells(key)?.into_iter().enumerate() {
            if self.value_name(value)?.compare(&name).is_eq() {
                return Ok(Some((index, value)));
            }
        }
        Ok(None)
    }
    pub(super) fn value_name(&self, cell: u32) -> Result<Name<'_>> {
        if self.cells.read(cell, 0, 2)? != b"vk" {
            return Err(corrupt(cell, "this should be a value and is none"));
        }
        let len = self.cells.u16(cell, vk::NAME_LEN)?;
        let wide = self.cells.u16(cell, vk::FLAGS)? & 1 == 0;
        Ok(Name { bytes: self.cells.read(cell, vk::NAME, usize::from(len))?, wide })
    }
    pub(super) fn data(&self, value: u32) -> Result<Data> {
        let kind = self.cells.u32(value, vk::KIND)?;
        let bytes = match self.stored(value)? {
            Stored::Inline(len) => self.cells.read(value, vk::DATA, len)?.to_vec(),
            Stored::Cell(cell, len) => self.cells.read(cell, 0, len)?.to_vec(),
            Stored::Pieces { pieces, .. } => {
                let mut bytes = Vec::new();
                for (cell, len) in pieces {
                    bytes.extend_from_slice(self.cells.read(cell, 0, len)?);
                }
                bytes
            }
        };
        Ok(Data { kind, bytes })
    }
    /// Where the data of a value lie; all of the cells are there and long enough.
    pub(super) fn stored(&self, value: u32) -> Result<Stored> {
        let (len, at) = (self.cells.u32(value, vk::DATA_LEN)?, self.cells.u32(value, vk::DATA)?);
        if len & INLINE != 0 {
            let len = len & !INLINE;
            if len > 4 {
                return Err(corrupt(value, format!("a value says that {len} bytes lie in a field of 4")));
            }
            return Ok(Stored::Inline(len as usize));
        }
        let len = len as usize;
        if len == 0 {
            return Ok(Stored::Inline(0));
        }
        // The record of the pieces is shorter than any data that are in pieces.
        let content = self.cells.get(at)?;
        if len <= PIECE || content.len() >= len || self.base.minor() < 4 {
            if content.len() < len {
                let says = format!("a value's {len} bytes of data lie in a cell of {}", content.len());
                return Err(corrupt(value, says));
            }
            return Ok(Stored::Cell(at, len));
        }
        if !content.starts_with(b"db") {
            return Err(corrupt(at, format!("the pieces of {len} bytes of data should be listed here")));
        }
        let count = usize::from(self.cells.u16(at, 2)?);
        if count != len.div_ceil(PIECE) {
            return Err(corrupt(at, format!("{len} bytes of data are said to lie in {count} pieces")));
        }
        let list = self.cells.u32(at, 4)?;
        let mut pieces = Vec::with_capacity(count);
        for (n, cell) in self.cells.read(list, 0, count * 4)?.chunks_exact(4).enumerate() {
            let cell = u32::from_le_bytes([cell[0], cell[1], cell[2], cell[3]]);
            let piece = PIECE.min(len - n * PIECE);
            self.cells.read(cell, 0, piece)?;
            pieces.push((cell, piece));
        }
        Ok(Stored::Pieces { record: at, list, pieces })
    }
}
