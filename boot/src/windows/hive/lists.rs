//! Lists of subkeys: found in, entered into, taken out of.
//!
//! Four kinds (msuhanov, "Windows registry file format specification", sections "Index leaf" to "Index root"): `li` holds offsets,
//! `lf` each with the first four letters of the name, `lh` with a hash of it; `ri` holds offsets of such lists. All are sorted by
//! name across the whole, so that names are found by halving. A list keeps its kind; new ones are `lh` in hives of version 1.5 and
//! `lf` before. A list that gets longer than Windows makes them is split in two. Deliberately absent: joining lists that became
//! short, which Windows does not do either.

use super::cells::{NIL, corrupt};
use super::names::Name;
use super::read::nk;
use super::{Hive, Key};
use crate::{Error, Result};

/// Entries of a list before it is split: with a cell's and a bin's header it fits into a page.
const ENTRIES: usize = 506;

/// One list that is not of lists.
#[derive(Clone, Copy)]
pub struct Leaf {
    pub cell: u32,
    /// Entries.
    pub len: usize,
    /// Bytes of an entry: 4 or 8.
    width: usize,
}

/// Where a name is, or would be.
pub struct Place {
    /// Place among the leaves.
    leaf: usize,
    /// Place in that leaf.
    index: usize,
    /// The key with that name.
    pub existing: Option<u32>,
}

impl Hive {
    pub(super) fn leaf(&self, cell: u32) -> Result<Leaf> {
        let width = match self.cells.read(cell, 0, 2)? {
            b"li" => 4,
            b"lf" | b"lh" => 8,
            _ => return Err(corrupt(cell, "this should be a list of keys and is none")),
        };
        let len = usize::from(self.cells.u16(cell, 2)?);
        self.cells.read(cell, 4, len * width)?;
        Ok(Leaf { cell, len, width })
    }
    /// The list of lists of a key, where it has one.
    pub(super) fn list_of_lists(&self, key: Key) -> Result<Option<u32>> {
        let list = self.cells.u32(key.0, nk::SUBKEY_LIST)?;
        let count = self.cells.u32(key.0, nk::SUBKEYS)?;
        Ok((count > 0 && self.cells.read(list, 0, 2)? == b"ri").then_some(list))
    }
    /// All lists of a key's subkeys.
    pub(super) fn leaves(&self, key: Key) -> Result<Vec<Leaf>> {
        self.check_key(key.0)?;
        if self.cells.u32(key.0, nk::SUBKEYS)? == 0 {
            return Ok(Vec::new());
        }
        let Some(list) = self.list_of_lists(key)? else {
            return Ok(vec![self.leaf(self.cells.u32(key.0, nk::SUBKEY_LIST)?)?]);
        };
        let count = usize::from(self.cells.u16(list, 2)?);
        let raw = self.cells.read(list, 4, count * 4)?;
        let cells = raw.chunks_exact(4).map(|cell| u32::from_le_bytes([cell[0], cell[1], cell[2], cell[3]]));
        cells.map(|cell| self.leaf(cell)).collect()
    }
    /// The key that an entry names.
    pub(super) fn leaf_key(&self, leaf: &Leaf, index: usize) -> Result<u32> {
        self.cells.u32(leaf.cell, 4 + index * leaf.width)
    }
    /// Whether an entry's hash or hint is what the name makes it.
    pub(super) fn entry_is_right(&self, leaf: &Leaf, index: usize, name: Name<'_>) -> Result<bool> {
        if leaf.width == 4 {
            return Ok(true);
        }
        let said = self.cells.read(leaf.cell, 8 + index * leaf.width, 4)?;
        if self.cells.read(leaf.cell, 0, 2)? == b"lh" {
            return Ok(said == name.hash().to_le_bytes());
        }
        // Windows looks names up through a hint only where it says something, whatever its case.
        Ok(said[0] == 0 || said.eq_ignore_ascii_case(&name.hint()))
    }

    /// Finds a name, in upper case already, among the keys below this one.
    pub(super) fn find_subkey(&self, key: Key, name: &[u16]) -> Result<Place> {
        let leaves = self.leaves(key)?;
        // The first leaf whose last name does not come before this one.
        let (mut low, mut high) = (0, leaves.len().saturating_sub(1));
        while low < high {
            let middle = (low + high) / 2;
            let leaf = &leaves[middle];
            let is_before = match leaf.len.checked_sub(1) {
                Some(last) => self.key_name(self.leaf_key(leaf, last)?)?.compare(name).is_lt(),
                None => true,
            };
            if is_before { low = middle + 1 } else { high = middle }
        }
        let Some(leaf) = leaves.get(low) else { return Ok(Place { leaf: 0, index: 0, existing: None }) };
        let (mut from, mut to) = (0, leaf.len);
        while from < to {
            let middle = (from + to) / 2;
            let cell = self.leaf_key(leaf, middle)?;
            match self.key_name(cell)?.compare(name) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
                std::cmp::Ordering::Equal => {
                    return Ok(Place { leaf: low, index: middle, existing: Some(cell) });
                }
            }
        }
        Ok(Place { leaf: low, index: from, existing: None })
    }

    /// Enters a key where its name belongs, and counts it.
    pub(super) fn enter_subkey(&mut self, parent: Key, place: &Place, child: u32) -> Result<()> {
        let leaves = self.leaves(parent)?;
        let name = self.key_name(child)?;
        let (hash, hint) = (name.hash().to_le_bytes(), name.hint());
        match leaves.get(place.leaf) {
            None => {
                let mut raw =
                    if self.base.minor() >= 5 { b"lh\x01\0".to_vec() } else { b"lf\x01\0".to_vec() };
                raw.extend(child.to_le_bytes());
                raw.extend(if self.base.minor() >= 5 { hash } else { hint });
                let list = self.cells.add(&raw)?;
                self.cells.write(parent.0, nk::SUBKEY_LIST, &list.to_le_bytes())?;
            }
            Some(leaf) => {
                let mut raw = self.cells.read(leaf.cell, 0, 4 + leaf.len * leaf.width)?.to_vec();
                let mut entry = child.to_le_bytes().to_vec();
                match &raw[..2] {
                    b"lh" => entry.extend(hash),
                    b"lf" => entry.extend(hint),
                    _ => {}
                }
                let at = 4 + place.index * leaf.width;
                raw.splice(at..at, entry);
                self.put_leaf(parent, place.leaf, leaf, &raw)?;
            }
        }
        let count = self.cells.u32(parent.0, nk::SUBKEYS)?;
        self.cells.write(parent.0, nk::SUBKEYS, &(count + 1).to_le_bytes())
    }

    /// Stores a list with one entry more.
    fn put_leaf(&mut self, parent: Key, index: usize, leaf: &Leaf, raw: &[u8]) -> Result<()> {
        let lists = self.list_of_lists(parent)?;
        let entries = (raw.len() - 4) / leaf.width;
        if entries <= ENTRIES {
            let cell = self.put_list(leaf.cell, raw, entries)?;
            return match lists {
                Some(list) => self.cells.write(list, 4 + index * 4, &cell.to_le_bytes()),
                None => self.cells.write(parent.0, nk::SUBKEY_LIST, &cell.to_le_bytes()),
            };
        }
        // The first half stays where the whole was.
        let half = 4 + entries / 2 * leaf.width;
        let mut second = [&raw[..4], &raw[half..]].concat();
        second[2..4].copy_from_slice(&count(entries - entries / 2)?.to_le_bytes());
        let second = self.cells.add(&second)?.to_le_bytes();
        self.put_list(leaf.cell, &raw[..half], entries / 2)?;
        let cell = match lists {
            Some(list) => {
                let lists = usize::from(self.cells.u16(list, 2)?);
                let mut raw = self.cells.read(list, 0, 4 + lists * 4)?.to_vec();
                let at = 4 + (index + 1) * 4;
                raw.splice(at..at, second);
                self.put_list(list, &raw, lists + 1)?
            }
            None => self.cells.add(&[&b"ri\x02\0"[..], &leaf.cell.to_le_bytes(), &second].concat())?,
        };
        self.cells.write(parent.0, nk::SUBKEY_LIST, &cell.to_le_bytes())
    }

    /// Stores a list where it is or, where it has outgrown its cell, in a new one with room to grow.
    fn put_list(&mut self, cell: u32, raw: &[u8], entries: usize) -> Result<u32> {
        let count = count(entries)?.to_le_bytes();
        let mut target = cell;
        if self.cells.get(cell)?.len() < raw.len() {
            self.cells.release(cell)?;
            target = self.cells.allocate(raw.len() + raw.len() / 4)?;
        }
        self.cells.write(target, 0, raw)?;
        self.cells.write(target, 2, &count)?;
        Ok(target)
    }

    /// Takes a key out of its parent's lists, and counts it no longer.
    pub(super) fn remove_subkey(&mut self, parent: Key, place: &Place) -> Result<()> {
        let leaves = self.leaves(parent)?;
        let Some(leaf) = leaves.get(place.leaf).filter(|leaf| place.index < leaf.len) else {
            return Err(corrupt(parent.0, "a key is in no list of its parent"));
        };
        if leaf.len > 1 {
            let mut raw = self.cells.read(leaf.cell, 0, 4 + leaf.len * leaf.width)?.to_vec();
            let at = 4 + place.index * leaf.width;
            raw.drain(at..at + leaf.width);
            self.put_list(leaf.cell, &raw, leaf.len - 1)?;
        } else {
            self.forget_leaf(parent, place.leaf)?;
            self.cells.release(leaf.cell)?;
        }
        let count = self.cells.u32(parent.0, nk::SUBKEYS)?;
        self.cells.write(parent.0, nk::SUBKEYS, &count.saturating_sub(1).to_le_bytes())
    }

    /// Takes a list that becomes empty out of the list of lists.
    fn forget_leaf(&mut self, parent: Key, index: usize) -> Result<()> {
        if let Some(list) = self.list_of_lists(parent)? {
            let lists = usize::from(self.cells.u16(list, 2)?);
            if lists > 1 {
                let mut raw = self.cells.read(list, 0, 4 + lists * 4)?.to_vec();
                raw.drain(4 + index * 4..8 + index * 4);
                return self.put_list(list, &raw, lists - 1).map(drop);
            }
            self.cells.release(list)?;
        }
        self.cells.write(parent.0, nk::SUBKEY_LIST, &NIL.to_le_bytes())
    }
}

fn count(entries: usize) -> Result<u16> {
    u16::try_from(entries)
        .map_err(|_| Error::refused(format!("{entries} lists of subkeys in one key are too many")))
}
