//! Keys and values of a hive, made, changed and removed.
//!
//! Every edit leaves a hive that [`Hive::validate`] accepts: counts, lists, the descriptors' count of keys, the longest name and the
//! largest data, the time of the key that Windows would have touched. What is asked for is checked before anything is
//! changed; where an edit fails in its midst nevertheless, the hive gives out no bytes any more ([`Hive::finish`]). An edit that
//! changes nothing is none: the hive stays as it is, to the byte.
//!
//! A new key gets its parent's security descriptor, shared as Windows shares them. Deliberately absent: renaming, class names and
//! descriptors of one's own, volatile keys.

use super::cells::{NIL, corrupt, offset};
use super::names::{encoded, folded};
use super::read::{FLAG_LATIN, FLAG_NO_DELETE, FLAG_PREDEFINED, INLINE, PIECE, Stored, nk, vk};
use super::{Hive, Key, limits};
use crate::windows::data::Data;
use crate::{Error, Result};

impl Hive {
    /// The key at a path below the root, made with all its parents where it is not there. The path has `\` between names of at
    /// most 255 letters.
    pub fn create_key(&mut self, path: &str) -> Result<Key> {
        self.edit(|hive| hive.do_create(path))
    }
    /// Gives the key a value, in place of the one of that name. "" is the unnamed one.
    pub fn set(&mut self, key: Key, name: &str, data: &Data) -> Result<()> {
        self.edit(|hive| hive.do_set(key, name, data))
    }
    /// Removes a value; false where there is none of that name.
    pub fn delete_value(&mut self, key: Key, name: &str) -> Result<bool> {
        self.edit(|hive| hive.do_delete_value(key, name))
    }
    /// Removes a key with all below it; false where there is none. Every [`Key`] of these means nothing from then on.
    pub fn delete_key(&mut self, path: &str) -> Result<bool> {
        self.edit(|hive| hive.do_delete_key(path))
    }

    /// An error after the first change leaves a hive that must not be written.
    fn edit<T>(&mut self, edit: impl FnOnce(&mut Hive) -> Result<T>) -> Result<T> {
        if let Some(why) = &self.sealed {
            return Err(Error::refused(why.clone()));
        }
        let changes = self.changes;
        let done = edit(self);
        if let Err(error) = &done
            && self.changes != changes
        {
            self.sealed = Some(format!("an edit of the hive failed before: {error}"));
        }
        done
    }
    /// Says that from here on something is changed, and when: in this key.
    fn touch(&mut self, key: Key) -> Result<()> {
        self.changes += 1;
        for (security, keys) in std::mem::take(&mut self.miscounted) {
            self.cells.write(security, 12, &keys.to_le_bytes())?;
        }
        self.cells.write(key.0, nk::WRITTEN, &self.now.to_le_bytes())
    }

    fn do_create(&mut self, path: &str) -> Result<Key> {
        let names: Vec<&str> = path.split('\\').filter(|name| !name.is_empty()).collect();
        if names.len() >= limits::DEPTH {
            return Err(Error::refused(format!("{} levels of keys are more than Windows has", names.len())));
        }
        if let Some(name) = names.iter().find(|name| name.encode_utf16().count() > limits::KEY_NAME) {
            let says = format!("the name \"{name}\" of a key is longer than {} letters", limits::KEY_NAME);
            return Err(Error::refused(says));
        }
        let mut key = self.root();
        for name in names {
            let place = self.find_subkey(key, &folded(name))?;
            key = match place.existing {
                Some(existing) => Key(existing),
                None => {
                    let child = self.add_key(key, name)?;
                    self.enter_subkey(key, &place, child.0)?;
                    child
                }
            };
        }
        Ok(key)
    }

    /// A key that is in no list yet.
    fn add_key(&mut self, parent: Key, name: &str) -> Result<Key> {
        let security = self.cells.u32(parent.0, nk::SECURITY)?;
        let longest = self.cells.u16(parent.0, nk::LONGEST_SUBKEY)?;
        let (name, wide) = encoded(name);
        let len = u16::try_from(name.len()).unwrap_or(u16::MAX);
        let utf16 = if wide { len } else { len.saturating_mul(2) };
        self.touch(parent)?;
        let mut raw = [0; nk::NAME];
        let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"nk");
        put(nk::FLAGS, &(if wide { 0 } else { FLAG_LATIN }).to_le_bytes());
        put(nk::WRITTEN, &self.now.to_le_bytes());
        put(nk::PARENT, &parent.0.to_le_bytes());
        for at in [nk::SUBKEY_LIST, nk::VOLATILE_LIST, nk::VALUE_LIST, nk::CLASS] {
            put(at, &NIL.to_le_bytes());
        }
        put(nk::SECURITY, &security.to_le_bytes());
        put(nk::NAME_LEN, &len.to_le_bytes());
        let cell = self.cells.add(&[&raw[..], &name].concat())?;
        let keys = self.cells.u32(security, 12)?;
        self.cells.write(security, 12, &keys.saturating_add(1).to_le_bytes())?;
        // Only the lower half: the upper one holds flags since Vista.
        self.cells.write(parent.0, nk::LONGEST_SUBKEY, &longest.max(utf16).to_le_bytes())?;
        Ok(Key(cell))
    }

    fn check_values_of(&self, key: Key) -> Result<()> {
        self.check_key(key.0)?;
        if self.flags(key)? & FLAG_PREDEFINED != 0 {
            let says = "the key stands for another one (a predefined handle) and has no values of its own";
            return Err(Error::unsupported(says));
        }
        Ok(())
    }

    fn do_set(&mut self, key: Key, name: &str, data: &Data) -> Result<()> {
        self.check_values_of(key)?;
        if name.encode_utf16().count() > limits::VALUE_NAME {
            let says = format!("a value's name is longer than {} letters", limits::VALUE_NAME);
            return Err(Error::refused(says));
        }
        let most = if self.base.minor() < 4 { limits::CELL } else { limits::DATA };
        if data.bytes.len() > most {
            let says = format!("a value of {} bytes; this hive takes at most {most}", data.bytes.len());
            return Err(Error::refused(says));
        }
        let found = self.find_value(key, name)?;
        if let Some((_, value)) = found
            && self.data(value)? == *data
        {
            return Ok(());
        }
        self.touch(key)?;
        let value = match found {
            Some((_, value)) => {
                self.release_data(value)?;
                value
            }
            None => self.add_value(key, name)?,
        };
        self.store_data(value, data)?;
        let name_len = self.value_name(value)?.len_utf16();
        for (at, len) in [(nk::LONGEST_VALUE, name_len), (nk::LARGEST_DATA, offset(data.bytes.len()))] {
            if self.cells.u32(key.0, at)? < len {
                self.cells.write(key.0, at, &len.to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// A value without data at the end of the key's list.
    fn add_value(&mut self, key: Key, name: &str) -> Result<u32> {
        let (name, wide) = encoded(name);
        let mut raw = [0; vk::NAME];
        raw[..2].copy_from_slice(b"vk");
        raw[vk::NAME_LEN..vk::DATA_LEN]
            .copy_from_slice(&u16::try_from(name.len()).unwrap_or(0).to_le_bytes());
        // Windows sets no flag where there is no name.
        raw[vk::FLAGS] = u8::from(!wide && !name.is_empty());
        let value = self.cells.add(&[&raw[..], &name].concat())?;
        let count = self.cells.u32(key.0, nk::VALUES)? as usize;
        let mut list = self.cells.u32(key.0, nk::VALUE_LIST)?;
        if count == 0 {
            list = self.cells.allocate(4)?;
        } else if self.cells.get(list)?.len() < count * 4 + 4 {
            let before = self.cells.read(list, 0, count * 4)?.to_vec();
            self.cells.release(list)?;
            list = self.cells.allocate(count * 4 + 4 + count)?;
            self.cells.write(list, 0, &before)?;
        }
        self.cells.write(list, count * 4, &value.to_le_bytes())?;
        self.cells.write(key.0, nk::VALUE_LIST, &list.to_le_bytes())?;
        self.cells.write(key.0, nk::VALUES, &offset(count + 1).to_le_bytes())?;
        Ok(value)
    }

    /// Puts data where a value of that length has them.
    fn store_data(&mut self, value: u32, data: &Data) -> Result<()> {
        let bytes = &data.bytes;
        let mut len = offset(bytes.len());
        let at = match bytes.len() {
            0..=4 => {
                len |= INLINE;
                let mut field = [0; 4];
                field[..bytes.len()].copy_from_slice(bytes);
                u32::from_le_bytes(field)
            }
            len if len > PIECE && self.base.minor() >= 4 => self.add_pieces(bytes)?,
            _ => self.cells.add(bytes)?,
        };
        for (field, number) in [(vk::DATA_LEN, len), (vk::DATA, at), (vk::KIND, data.kind)] {
            self.cells.write(value, field, &number.to_le_bytes())?;
        }
        Ok(())
    }

    fn add_pieces(&mut self, bytes: &[u8]) -> Result<u32> {
        let mut list = Vec::new();
        for piece in bytes.chunks(PIECE) {
            let cell = self.cells.allocate(PIECE)?;
            self.cells.write(cell, 0, piece)?;
            list.extend(cell.to_le_bytes());
        }
        let count = u16::try_from(list.len() / 4).unwrap_or(u16::MAX).to_le_bytes();
        let list = self.cells.add(&list)?;
        self.cells.add(&[&b"db"[..], &count, &list.to_le_bytes()].concat())
    }

    /// Gives back where a value's data lie. The value says so still: it is written or released next.
    fn release_data(&mut self, value: u32) -> Result<()> {
        match self.stored(value)? {
            Stored::Inline(_) => Ok(()),
            Stored::Cell(cell, _) => self.cells.release(cell),
            Stored::Pieces { record, list, pieces } => {
                pieces.into_iter().try_for_each(|(cell, _)| self.cells.release(cell))?;
                self.cells.release(list)?;
                self.cells.release(record)
            }
        }
    }

    fn do_delete_value(&mut self, key: Key, name: &str) -> Result<bool> {
        self.check_values_of(key)?;
        let Some((index, value)) = self.find_value(key, name)? else { return Ok(false) };
        let mut cells = self.value_cells(key)?;
        let list = self.cells.u32(key.0, nk::VALUE_LIST)?;
        self.touch(key)?;
        self.release_data(value)?;
        self.cells.release(value)?;
        cells.remove(index);
        if cells.is_empty() {
            self.cells.release(list)?;
            self.cells.write(key.0, nk::VALUE_LIST, &NIL.to_le_bytes())?;
            self.cells.write(key.0, nk::LONGEST_VALUE, &[0; 8])?;
        } else {
            let raw: Vec<u8> = cells.iter().flat_map(|cell| cell.to_le_bytes()).collect();
            self.cells.write(list, 0, &raw)?;
        }
        self.cells.write(key.0, nk::VALUES, &offset(cells.len()).to_le_bytes())?;
        Ok(true)
    }

    fn do_delete_key(&mut self, path: &str) -> Result<bool> {
        let Some(top) = self.key(path)? else { return Ok(false) };
        if top == self.root() {
            return Err(Error::refused("the root key of a hive cannot be deleted"));
        }
        let mut all = vec![top];
        let mut next = 0;
        while let Some(key) = all.get(next).copied() {
            if self.flags(key)? & FLAG_NO_DELETE != 0 {
                let says = format!("the key \"{}\" is marked as one that cannot be deleted", self.name(key)?);
                return Err(Error::refused(says));
            }
            all.extend(self.subkeys(key)?.into_iter().map(|(_, key)| key));
            next += 1;
        }
        let parent = Key(self.cells.u32(top.0, nk::PARENT)?);
        let name: Vec<u16> = self.key_name(top.0)?.units().map(super::names::upper).collect();
        let place = self.find_subkey(parent, &name)?;
        if place.existing != Some(top.0) {
            return Err(corrupt(top.0, "a key is in no list of its parent"));
        }
        self.touch(parent)?;
        self.remove_subkey(parent, &place)?;
        if self.cells.u32(parent.0, nk::SUBKEYS)? == 0 {
            self.cells.write(parent.0, nk::LONGEST_SUBKEY, &[0; 2])?;
            self.cells.write(parent.0, nk::LONGEST_SUBKEY + 4, &[0; 4])?;
        }
        for key in all {
            self.release_key(key)?;
        }
        Ok(true)
    }

    /// Gives back a key's own cells: values, lists, class, itself.
    fn release_key(&mut self, key: Key) -> Result<()> {
        let values = self.value_cells(key)?;
        if !values.is_empty() {
            for value in values {
                self.release_data(value)?;
                self.cells.release(value)?;
            }
            self.cells.release(self.cells.u32(key.0, nk::VALUE_LIST)?)?;
        }
        if let Some(list) = self.list_of_lists(key)? {
            for leaf in self.leaves(key)? {
                self.cells.release(leaf.cell)?;
            }
            self.cells.release(list)?;
        } else {
            for leaf in self.leaves(key)? {
                self.cells.release(leaf.cell)?;
            }
        }
        if let Some((cell, _)) = self.class(key)? {
            self.cells.release(cell)?;
        }
        self.release_security(self.cells.u32(key.0, nk::SECURITY)?)?;
        self.cells.release(key.0)
    }

    /// One key less has this descriptor; the last one takes it out of the ring of all.
    fn release_security(&mut self, cell: u32) -> Result<()> {
        let keys = self.cells.u32(cell, 12)?;
        if keys > 1 {
            return self.cells.write(cell, 12, &(keys - 1).to_le_bytes());
        }
        let (next, previous) = (self.cells.u32(cell, 4)?, self.cells.u32(cell, 8)?);
        self.cells.write(previous, 4, &next.to_le_bytes())?;
        self.cells.write(next, 8, &previous.to_le_bytes())?;
        self.cells.release(cell)
    }
}
