//! Finding, adding and removing a key of a tree.

use super::node::{Draft, Node, Value, value};
use super::space::{Metadata, Which};
use super::store::{Sort, Store, wrong};
use crate::{Error, Result, limits};

/// What the values of a tree's leaves are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refers {
    /// Nothing that is counted.
    Nothing,
    /// Roots of further trees.
    Trees,
    /// Blocks of data, above 24 bits of time.
    Data,
}

/// A kind of tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Bytes of a value.
    pub value_size: usize,
    /// What the values are.
    pub refers: Refers,
    /// Part of a space map: never shared.
    pub is_map: bool,
}

impl Tree {
    /// Of block numbers of bitmaps, in the space map of data.
    pub(super) const INDEX: Tree = Tree { value_size: 16, refers: Refers::Nothing, is_map: true };
    /// Of counts above 2.
    pub(super) const COUNTS: Tree = Tree { value_size: 4, refers: Refers::Nothing, is_map: true };
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its value, with zeros behind it.
    pub value: Option<Value>,
    /// The first key behind it that may be there: all between are not.
    pub next: u64,
}

/// Looks a key up.
///
/// # Errors
/// [`Kind::Corrupt`](crate::Kind::Corrupt) where a node contradicts its parent; those of the disk.
pub fn find(store: &mut Store, root: u64, key: u64, value_size: usize) -> Result<Found> {
    let (mut at, mut least, mut next) = (root, 0, u64::MAX);
    for depth in 0..limits::TREE_DEPTH {
        let block = store.read(at, Sort::Node)?;
        let node = Node::of(&block);
        // Every key of a node lies between that of its parent's entry and the following one.
        if node.len > 0 && depth > 0 && (node.key(0) < least || node.key(node.len - 1) >= next) {
            return Err(wrong(at, "keys of a tree node do not lie where its parent says"));
        }
        let index = node.last_up_to(key);
        let follows = index.map_or(0, |index| index + 1);
        if follows < node.len {
            next = node.key(follows);
        }
        let Some(index) = index else { return Ok(Found { value: None, next }) };
        if !node.is_inner {
            if node.value_size() != value_size {
                return Err(odd_size(at, node.value_size(), value_size));
            }
            let is_it = node.key(index) == key;
            return Ok(Found { value: node.value(index).filter(|_| is_it).map(value), next });
        }
        least = node.key(index);
        at = node.number(index).unwrap_or(u64::MAX);
    }
    Err(too_deep(at))
}

fn odd_size(at: u64, found: usize, wanted: usize) -> Error {
    wrong(at, format!("a tree of values of {found} bytes where {wanted} are expected"))
}

fn too_deep(at: u64) -> Error {
    wrong(at, format!("a tree is deeper than {}, or a circle", limits::TREE_DEPTH))
}

/// What adding a key did to a node.
struct Added {
    old: Option<Value>,
    /// First key and place of the node that took the larger half.
    split: Option<(u64, u64)>,
}

impl Metadata {
    /// Gives a key a value. Returns the new root and the old value. What the old value refers to keeps its count.
    ///
    /// # Errors
    /// Where the tree is damaged, where no block of metadata is free, those of the disk. Memory then holds half of it.
    pub fn insert(&mut self, tree: Tree, root: u64, key: u64, new: &[u8]) -> Result<(u64, Option<Value>)> {
        let root = self.own(tree, root)?;
        let added = self.insert_below(tree, root, key, value(new), 0)?;
        let Some((right_key, right)) = added.split else { return Ok((root, added.old)) };
        let left_key = Node::of(&self.store.read(root, Sort::Node)?).key(0);
        let mut top = Draft::new(true, 8);
        top.entries = vec![(left_key, value(&root.to_le_bytes())), (right_key, value(&right.to_le_bytes()))];
        let at = self.allocate_block()?;
        self.store.put(at, Sort::Node, top.block())?;
        Ok((at, added.old))
    }

    fn insert_below(&mut self, tree: Tree, at: u64, key: u64, new: Value, depth: usize) -> Result<Added> {
        if depth >= limits::TREE_DEPTH {
            return Err(too_deep(at));
        }
        let mut node = Draft::of(&self.store.read(at, Sort::Node)?);
        let mut is_changed = true;
        let old = if node.is_inner {
            let index = node.last_up_to(key).unwrap_or(0);
            let child = node.child(index).ok_or_else(|| wrong(at, "an inner node is empty"))?;
            let own = self.own(tree, child)?;
            let below = self.insert_below(tree, own, key, new, depth + 1)?;
            if let Some(entry) = node.entries.get_mut(index) {
                is_changed = own != child || key < entry.0 || below.split.is_some();
                *entry = (entry.0.min(key), value(&own.to_le_bytes()));
            }
            if let Some((key, place)) = below.split {
                node.entries.insert(index + 1, (key, value(&place.to_le_bytes())));
            }
            below.old
        } else {
            if node.value_size != tree.value_size {
                return Err(odd_size(at, node.value_size, tree.value_size));
            }
            match node.entries.binary_search_by_key(&key, |(key, _)| *key) {
                Ok(index) => node.entries.get_mut(index).map(|entry| std::mem::replace(&mut entry.1, new)),
                Err(index) => {
                    node.entries.insert(index, (key, new));
                    None
                }
            }
        };
        let mut split = None;
        if node.entries.len() > node.room {
            let entries = node.entries.split_off(node.entries.len() / 2);
            let right = Draft { entries, ..node };
            let place = self.allocate_block()?;
            self.store.put(place, Sort::Node, right.block())?;
            split = Some((right.first_key(), place));
        }
        if is_changed {
            self.store.put(at, Sort::Node, node.block())?;
        }
        Ok(Added { old, split })
    }

    /// Takes a key, which must be there, out of a tree whose values refer to nothing. Returns the new root.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn remove(&mut self, tree: Tree, root: u64, key: u64) -> Result<u64> {
        let mut root = self.own(tree, root)?;
        self.remove_below(tree, root, key, 0)?;
        for _ in 0..limits::TREE_DEPTH {
            let block = self.store.read(root, Sort::Node)?;
            let node = Node::of(&block);
            let (true, 1, Some(only)) = (node.is_inner, node.len, node.number(0)) else { break };
            self.release(root)?;
            root = only;
        }
        Ok(root)
    }

    fn remove_below(&mut self, tree: Tree, at: u64, key: u64, depth: usize) -> Result<()> {
        if depth >= limits::TREE_DEPTH {
            return Err(too_deep(at));
        }
        let absent = || wrong(at, format!("a tree lacks the key {key}, which a space map refers to"));
        let mut node = Draft::of(&self.store.read(at, Sort::Node)?);
        if node.is_inner {
            let index = node.last_up_to(key).ok_or_else(absent)?;
            let child = node.child(index).ok_or_else(absent)?;
            let own = self.own(tree, child)?;
            if let Some(entry) = node.entries.get_mut(index) {
                entry.1 = value(&own.to_le_bytes());
            }
            self.remove_below(tree, own, key, depth + 1)?;
            self.balance(tree, &mut node, index)?;
        } else {
            let index = node.entries.binary_search_by_key(&key, |(key, _)| *key).map_err(|_| absent())?;
            node.entries.remove(index);
        }
        self.store.put(at, Sort::Node, node.block())
    }

    /// Joins the child at `index` with a neighbour, or gives it some of that one's entries, where it has few.
    fn balance(&mut self, tree: Tree, parent: &mut Draft, index: usize) -> Result<()> {
        let child = parent.child(index).unwrap_or(u64::MAX);
        let block = self.store.read(child, Sort::Node)?;
        let is_few = Node::of(&block).len < Draft::of(&block).room / 3;
        if !is_few || parent.entries.len() < 2 {
            return Ok(());
        }
        let left_index = index.saturating_sub(1);
        let right_index = left_index + 1;
        let mut place = |of: &mut Metadata, index: usize| -> Result<u64> {
            let own = of.own(tree, parent.child(index).unwrap_or(u64::MAX))?;
            if let Some(entry) = parent.entries.get_mut(index) {
                entry.1 = value(&own.to_le_bytes());
            }
            Ok(own)
        };
        let (left_at, right_at) = (place(self, left_index)?, place(self, right_index)?);
        let mut left = Draft::of(&self.store.read(left_at, Sort::Node)?);
        let mut right = Draft::of(&self.store.read(right_at, Sort::Node)?);
        if left_at == right_at
            || (left.is_inner, left.value_size) != (right.is_inner, right.value_size)
            || left.entries.last().is_some_and(|(key, _)| *key >= right.first_key())
        {
            return Err(wrong(left_at, format!("it and its neighbour {right_at} do not go together")));
        }
        let all = left.entries.len() + right.entries.len();
        left.entries.append(&mut right.entries);
        if all <= left.room {
            parent.entries.remove(right_index);
            self.release(right_at)?;
        } else {
            right.entries = left.entries.split_off(all / 2);
            if let Some(entry) = parent.entries.get_mut(right_index) {
                entry.0 = right.first_key();
            }
            self.store.put(right_at, Sort::Node, right.block())?;
        }
        self.store.put(left_at, Sort::Node, left.block())
    }

    /// The node at `at` for one tree alone: itself, or a copy where others have it, too.
    fn own(&mut self, tree: Tree, at: u64) -> Result<u64> {
        match self.count(Which::Metadata, at)? {
            0 => Err(wrong(at, "part of a tree, but counted as free")),
            1 => Ok(at),
            count if tree.is_map => Err(wrong(at, format!("part of a space map, but counted {count} times"))),
            _ => {
                let block = self.store.read(at, Sort::Node)?;
                let copy = self.allocate_block()?;
                self.store.put(copy, Sort::Node, block.to_vec())?;
                self.change(Which::Metadata, at, -1)?;
                let node = Node::of(&block);
                for number in (0..node.len).filter_map(|index| node.number(index)) {
                    match tree.refers {
                        _ if node.is_inner => self.change(Which::Metadata, number, 1)?,
                        Refers::Trees => self.change(Which::Metadata, number, 1)?,
                        Refers::Data => self.change(Which::Data, number >> 24, 1)?,
                        Refers::Nothing => {}
                    }
                }
                Ok(copy)
            }
        }
    }

    fn release(&mut self, at: u64) -> Result<()> {
        self.change(Which::Metadata, at, -1)?;
        self.store.forget(at);
        Ok(())
    }
}
