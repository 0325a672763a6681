//! One node of a tree, as it lies on the disk and as it is changed.

use super::store::BLOCK;
use crate::volume::field::{bytes, le32, le64};
use std::cmp::Ordering;

const HEADER: usize = 32;
const INNER: u32 = 1;
const LEAF: u32 = 2;

/// As many entries of `value_size` bytes as the kernel puts into a node: a third of them, and two, are a number.
pub fn room(value_size: usize) -> usize {
    let all = (BLOCK - HEADER) / value_size.saturating_add(8);
    all - all % 3
}

/// Looks at a node without copying it.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    raw: &'a [u8],
    /// Keys in it.
    pub len: usize,
    room: usize,
    value_size: usize,
    /// Its values are further nodes.
    pub is_inner: bool,
}

fn header(raw: &[u8]) -> Option<(u32, usize, usize, usize)> {
    let number = |at: usize| usize::try_from(le32(raw, at)?).ok();
    Some((le32(raw, 4)?, number(16)?, number(20)?, number(24)?))
}

/// Whether a block can be a node: sizes that fit it, and keys in order. `Err` with the end of a sentence.
pub fn check(raw: &[u8]) -> Result<(), String> {
    let (flags, len, room, value_size) = header(raw).ok_or("it is cut off")?;
    if flags != INNER && flags != LEAF {
        return Err(format!("a tree node with the flags {flags:#x}; 1 and 2 are known"));
    }
    let need = value_size.checked_add(8).and_then(|entry| entry.checked_mul(room)?.checked_add(HEADER));
    if need.is_none_or(|need| need > BLOCK) || value_size == 0 || (flags == INNER && value_size != 8) {
        return Err(format!("a tree node for {room} values of {value_size} bytes, which do not fit"));
    }
    // The kernel's are multiples of 3, and a smaller one could not be split.
    if room < 3 || (flags == INNER && len == 0) {
        return Err(format!("a tree node with {len} entries in a room for {room}"));
    }
    if len > room {
        return Err(format!("a tree node with {len} entries in a room for {room}"));
    }
    let node = Node { raw, len, room, value_size, is_inner: flags == INNER };
    if (1..len).any(|index| node.key(index - 1) >= node.key(index)) {
        return Err("the keys of a tree node are not in order".into());
    }
    Ok(())
}

impl<'a> Node<'a> {
    /// The node in a block that was [checked](check).
    pub fn of(raw: &'a [u8]) -> Node<'a> {
        let (flags, len, room, value_size) = header(raw).unwrap_or((LEAF, 0, 0, 1));
        Node { raw, len, room, value_size, is_inner: flags == INNER }
    }

    /// Bytes of its values.
    pub fn value_size(&self) -> usize {
        self.value_size
    }

    /// A key; of none, the largest.
    pub fn key(&self, index: usize) -> u64 {
        le64(self.raw, HEADER + index.min(BLOCK) * 8).filter(|_| index < self.len).unwrap_or(u64::MAX)
    }

    /// A value.
    pub fn value(&self, index: usize) -> Option<&'a [u8]> {
        let at = HEADER + self.room * 8 + index.min(BLOCK) * self.value_size;
        bytes(self.raw, at, self.value_size).filter(|_| index < self.len)
    }

    /// A value that is a number.
    pub fn number(&self, index: usize) -> Option<u64> {
        le64(self.value(index)?, 0)
    }

    /// The last entry whose key is `key` or less.
    pub fn last_up_to(&self, key: u64) -> Option<usize> {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle).cmp(&key) {
                Ordering::Greater => high = middle,
                _ => low = middle + 1,
            }
        }
        low.checked_sub(1)
    }
}

/// Room for the longest value that a tree here has.
pub type Value = [u8; 24];

/// A value, with zeros behind it.
pub fn value(bytes: &[u8]) -> Value {
    let mut value = [0; 24];
    for (to, from) in value.iter_mut().zip(bytes) {
        *to = *from;
    }
    value
}

/// A node that is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Its values are further nodes.
    pub is_inner: bool,
    /// Bytes of a value.
    pub value_size: usize,
    /// Entries that fit.
    pub room: usize,
    /// In order.
    pub entries: Vec<(u64, Value)>,
}

impl Draft {
    /// A node without entries.
    pub fn new(is_inner: bool, value_size: usize) -> Draft {
        Draft { is_inner, value_size, room: room(value_size), entries: Vec::new() }
    }

    /// The node in a block that was [checked](check).
    pub fn of(raw: &[u8]) -> Draft {
        let node = Node::of(raw);
        let entries =
            (0..node.len).map(|index| (node.key(index), value(node.value(index).unwrap_or_default())));
        Draft {
            is_inner: node.is_inner,
            value_size: node.value_size,
            room: node.room,
            entries: entries.collect(),
        }
    }

    /// The block, but for its number and checksum.
    pub fn block(&self) -> Vec<u8> {
        let word = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        let mut out = vec![0; 4];
        out.extend(if self.is_inner { INNER } else { LEAF }.to_le_bytes());
        out.extend([0; 8]);
        for number in [self.entries.len(), self.room, self.value_size, 0] {
            out.extend(word(number));
        }
        out.extend(self.entries.iter().flat_map(|(key, _)| key.to_le_bytes()));
        out.resize(HEADER + self.room * 8, 0);
        out.extend(self.entries.iter().flat_map(|(_, value)| value.iter().take(self.value_size)).copied());
        out.resize(BLOCK, 0);
        out
    }

    /// The block that an inner node's entry names.
    pub fn child(&self, index: usize) -> Option<u64> {
        le64(&self.entries.get(index)?.1, 0)
    }

    /// The first key; of an empty node the largest.
    pub fn first_key(&self) -> u64 {
        self.entries.first().map_or(u64::MAX, |(key, _)| *key)
    }

    /// The last entry whose key is `key` or less.
    pub fn last_up_to(&self, key: u64) -> Option<usize> {
        self.entries.partition_point(|(known, _)| *known <= key).checked_sub(1)
    }
}
