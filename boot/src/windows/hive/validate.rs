//! Everything that a hive's root leads to, checked: what a reader or Windows itself would stumble over is an error.
//!
//! - Every cell is in use, long enough, and belongs to one thing only: no cycles, nothing shared but descriptors.
//! - Keys name their parent; counts are those of the lists; names are sorted and occur once; hashes are right.
//! - Descriptors are in one ring, and each says of how many keys it is. A count that is wrong is no error, since Windows counts again
//!   when it loads a hive: it is told, and made right by the first edit.
//!
//! Linear in the length of the hive, without recursion. Deliberately unchecked: what is inside of descriptors and data, cells that
//! nothing leads to (Windows leaves some, too), and counts of keys that are in memory only.

use super::cells::{Bits, corrupt};
use super::read::{FLAG_VOLATILE, Stored, nk};
use super::{Hive, Key, limits};
use crate::Result;
use std::collections::BTreeMap;

/// What a valid hive holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Keys, with the root.
    pub keys: usize,
    /// Values.
    pub values: usize,
    /// Cells that are in use and belong to none of these.
    pub lost_cells: usize,
    /// Security descriptors that say a wrong number of keys.
    pub miscounted: usize,
}

struct Walk<'a> {
    hive: &'a Hive,
    /// Cells that belong to something.
    owned: Bits,
    /// Keys of each descriptor.
    security: BTreeMap<u32, u32>,
    /// Descriptors with another count than they say.
    miscounted: Vec<(u32, u32)>,
    contents: Contents,
}

impl Hive {
    /// Checks all that the root leads to.
    pub fn validate(&self) -> Result<Contents> {
        Ok(self.walk()?.0)
    }

    /// Checks all; what there is, and which descriptors are those of how many keys where they say another number.
    pub(super) fn walk(&self) -> Result<(Contents, Vec<(u32, u32)>)> {
        let mut walk = Walk {
            hive: self,
            owned: Bits::new(self.cells.bins().len()),
            security: BTreeMap::new(),
            miscounted: Vec::new(),
            contents: Contents { keys: 0, values: 0, lost_cells: 0, miscounted: 0 },
        };
        let root = self.root();
        self.check_key(root.0)?;
        walk.own(root.0)?;
        let mut waiting = vec![(root, 1)];
        while let Some((key, level)) = waiting.pop() {
            if level > limits::DEPTH {
                return Err(corrupt(key.0, format!("keys lie more than {} levels deep", limits::DEPTH)));
            }
            walk.key(key)?;
            walk.subkeys(key, |child| waiting.push((child, level + 1)))?;
        }
        walk.security()?;
        walk.contents.lost_cells = self.cells.in_use().saturating_sub(walk.owned.count());
        walk.contents.miscounted = walk.miscounted.len();
        Ok((walk.contents, walk.miscounted))
    }
}

impl Walk<'_> {
    /// Notes that a cell belongs to something.
    fn own(&mut self, cell: u32) -> Result<()> {
        self.hive.cells.get(cell)?;
        if self.owned.set(cell, true) {
            return Err(corrupt(cell, "a cell belongs to two things, or to itself"));
        }
        Ok(())
    }

    /// A key without its subkeys.
    fn key(&mut self, key: Key) -> Result<()> {
        let hive = self.hive;
        self.contents.keys += 1;
        if hive.flags(key)? & FLAG_VOLATILE != 0 {
            return Err(corrupt(key.0, "a key in the file says that it is in memory only"));
        }
        hive.key_name(key.0)?;
        if let Some((class, _)) = hive.class(key)? {
            self.own(class)?;
        }
        *self.security.entry(hive.cells.u32(key.0, nk::SECURITY)?).or_default() += 1;
        let values = hive.value_cells(key)?;
        if !values.is_empty() {
            self.own(hive.cells.u32(key.0, nk::VALUE_LIST)?)?;
        }
        self.contents.values += values.len();
        for value in values {
            self.own(value)?;
            hive.value_name(value)?;
            match hive.stored(value)? {
                Stored::Inline(_) => {}
                Stored::Cell(cell, _) => self.own(cell)?,
                Stored::Pieces { record, list, pieces } => {
                    self.own(record)?;
                    self.own(list)?;
                    pieces.into_iter().try_for_each(|(cell, _)| self.own(cell))?;
                }
            }
        }
        Ok(())
    }

    /// The lists of a key's subkeys.
    fn subkeys(&mut self, key: Key, mut found: impl FnMut(Key)) -> Result<()> {
        let hive = self.hive;
        if let Some(list) = hive.list_of_lists(key)? {
            self.own(list)?;
        }
        let mut count = 0;
        let mut before: Option<u32> = None;
        for leaf in hive.leaves(key)? {
            self.own(leaf.cell)?;
            if leaf.len == 0 {
                return Err(corrupt(leaf.cell, "a list of keys is empty"));
            }
            for index in 0..leaf.len {
                let child = hive.leaf_key(&leaf, index)?;
                self.own(child)?;
                let name = hive.key_name(child)?;
                if hive.cells.u32(child, nk::PARENT)? != key.0 {
                    return Err(corrupt(
                        child,
                        "a key names another parent than the one whose list it is in",
                    ));
                }
                if !hive.entry_is_right(&leaf, index, name)? {
                    let says = format!(
                        "the list has another hash for the key \"{}\" than its name has",
                        name.text()
                    );
                    return Err(corrupt(leaf.cell, says));
                }
                if let Some(before) = before
                    && hive.key_name(before)?.compare_name(name).is_ge()
                {
                    return Err(corrupt(
                        leaf.cell,
                        format!("the key \"{}\" is not where it sorts", name.text()),
                    ));
                }
                before = Some(child);
                found(Key(child));
                count += 1;
            }
        }
        let said = hive.cells.u32(key.0, nk::SUBKEYS)?;
        if said != count {
            return Err(corrupt(key.0, format!("a key has {count} subkeys and says {said}")));
        }
        Ok(())
    }

    /// The ring of descriptors.
    fn security(&mut self) -> Result<()> {
        let cells = &self.hive.cells;
        let Some(first) = self.security.keys().next().copied() else { return Ok(()) };
        let mut cell = first;
        loop {
            self.own(cell)?;
            if cells.read(cell, 0, 2)? != b"sk" {
                return Err(corrupt(cell, "this should be a security descriptor and is none"));
            }
            let len = cells.u32(cell, 16)? as usize;
            cells.read(cell, 20, len)?;
            let (said, keys) = (cells.u32(cell, 12)?, self.security.remove(&cell).unwrap_or(0));
            if said != keys {
                self.miscounted.push((cell, keys));
            }
            let next = cells.u32(cell, 4)?;
            if cells.u32(next, 8)? != cell {
                return Err(corrupt(next, "the ring of security descriptors is broken"));
            }
            if next == first {
                break;
            }
            cell = next;
        }
        match self.security.keys().next() {
            Some(cell) => Err(corrupt(*cell, "a security descriptor is not in the ring of all")),
            None => Ok(()),
        }
    }
}
