//! The binary indexes of a modules folder (`modules.dep.bin` and its like), which is all that libkmod reads.
//!
//! A trie over 7-bit keys with compressed prefixes, children written before their parent. All numbers are 32-bit
//! big-endian. Source: the description at the head of kmod's `libkmod/libkmod-index.c`.
//!
//! ```text
//! 0 magic B007F457   4 version 00020001   8 root   12 nodes …
//! a reference: top bits 8 = prefix, 4 = values, 2 = children; the rest is the node's offset; 0 is no child
//! a node:  [prefix NUL]  [first u8, last u8, reference × (last - first + 1)]  [count, (priority, value NUL) × count]
//! ```

use crate::{Error, Result};
use landfall_image::FileOffset;
use std::collections::BTreeMap;

const MAGIC: u32 = 0xb007_f457;
const VERSION: u32 = 0x0002_0001;
const PREFIX: u32 = 0x8000_0000;
const VALUES: u32 = 0x4000_0000;
const CHILDREN: u32 = 0x2000_0000;
const OFFSET: u32 = 0x0fff_ffff;

/// One key's value. Modules of a lower priority number come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// 7-bit text without NUL.
    pub key: String,
    /// Position of the module in load order.
    pub priority: u32,
    /// Text without NUL.
    pub value: String,
}

/// Serialises an index. Rows of the same key and priority keep their order. Keys with bytes beyond 7 bits are left
/// out, as depmod does, and so are those beyond the longest sane one.
///
/// # Errors
/// `Refused` beyond the 256 MiB that the format can address.
pub fn write(rows: &[Row]) -> Result<Vec<u8>> {
    let mut keys: BTreeMap<&[u8], Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| is_plain(&row.key)) {
        keys.entry(row.key.as_bytes()).or_default().push(row);
    }
    let mut keys: Vec<(&[u8], Vec<&Row>)> = keys.into_iter().collect();
    for (_, rows) in &mut keys {
        rows.sort_by_key(|row| row.priority);
    }
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    let root = write_node(&keys, 0, true, &mut out)?;
    if let Some(place) = out.get_mut(8..12) {
        place.copy_from_slice(&root.to_be_bytes());
    }
    Ok(out)
}

fn is_plain(key: &str) -> bool {
    key.len() <= LONGEST_KEY && key.bytes().all(|b| b.is_ascii() && b != 0)
}

/// The node over `keys`, which all share their first `depth` bytes. Depth of recursion: at most the longest key.
/// The root never has a prefix, as depmod writes it.
fn write_node(keys: &[(&[u8], Vec<&Row>)], depth: usize, root: bool, out: &mut Vec<u8>) -> Result<u32> {
    let rest = |i: usize| keys.get(i).and_then(|(key, _)| key.get(depth..)).unwrap_or_default();
    // Sorted keys: what the first and the last share, all share.
    let (first, last) = (rest(0), rest(keys.len().saturating_sub(1)));
    let shared = if root { 0 } else { first.iter().zip(last).take_while(|(a, b)| a == b).count() };
    let prefix = first.get(..shared).unwrap_or_default();
    let depth = depth + shared;
    let ends_here = keys.first().filter(|(key, _)| key.len() == depth);
    let below = keys.get(usize::from(ends_here.is_some())..).unwrap_or_default();
    let byte = |entry: &(&[u8], Vec<&Row>)| entry.0.get(depth).copied().unwrap_or(0);
    let mut children: BTreeMap<u8, u32> = BTreeMap::new();
    let mut at = 0;
    while let Some(entry) = below.get(at) {
        let letter = byte(entry);
        let end = below.partition_point(|other| byte(other) <= letter);
        let group = below.get(at..end).unwrap_or_default();
        children.insert(letter, write_node(group, depth + 1, false, out)?);
        at = end;
    }
    let offset = u32::try_from(out.len()).ok().filter(|offset| *offset <= OFFSET);
    let mut reference = offset.ok_or_else(|| Error::refused("a module index would exceed 256 MiB"))?;
    if !prefix.is_empty() {
        out.extend_from_slice(prefix);
        out.push(0);
        reference |= PREFIX;
    }
    if let (Some((first, _)), Some((last, _))) = (children.first_key_value(), children.last_key_value()) {
        out.extend_from_slice(&[*first, *last]);
        for letter in *first..=*last {
            out.extend_from_slice(&children.get(&letter).copied().unwrap_or(0).to_be_bytes());
        }
        reference |= CHILDREN;
    }
    if let Some((_, rows)) = ends_here {
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for row in rows {
            out.extend_from_slice(&row.priority.to_be_bytes());
            out.extend_from_slice(row.value.as_bytes());
            out.push(0);
        }
        reference |= VALUES;
    }
    Ok(reference)
}

/// Reads every row of an index, in the order of keys.
///
/// # Errors
/// `Unsupported` for another magic or version, `Corrupt` for damage.
pub fn read(bytes: &[u8]) -> Result<Vec<Row>> {
    let mut reader = Reader { bytes, rows: Vec::new(), visited: 0, produced: 0 };
    let (magic, version) = (reader.number(0)?, reader.number(4)?);
    if magic != MAGIC || version != VERSION {
        let says = format!(
            "module index has magic {magic:08x} version {version:08x}; known is {MAGIC:08x} {VERSION:08x}"
        );
        return Err(Error::unsupported(says));
    }
    let root = reader.number(8)?;
    reader.node(root, &mut Vec::new())?;
    Ok(reader.rows)
}

struct Reader<'a> {
    bytes: &'a [u8],
    rows: Vec<Row>,
    visited: usize,
    produced: usize,
}

/// Longest key: DMI aliases, the longest of all, have a few hundred bytes. Bounds the depth of recursion.
const LONGEST_KEY: usize = 1024;

/// Rows may be this many times longer than the index that holds them: shared prefixes make for a factor of two.
const LARGEST_GROWTH: usize = 64;

impl Reader<'_> {
    fn number(&self, at: usize) -> Result<u32> {
        at.checked_add(4)
            .and_then(|end| self.bytes.get(at..end))
            .and_then(|b| b.try_into().ok())
            .map(u32::from_be_bytes)
            .ok_or_else(|| Error::corrupt("module index is cut off").at(FileOffset(at as u64)))
    }

    fn text(&self, at: usize) -> Result<(&[u8], usize)> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let end = rest.iter().position(|b| *b == 0);
        end.and_then(|end| Some((rest.get(..end)?, at + end + 1)))
            .ok_or_else(|| Error::corrupt("text in a module index does not end").at(FileOffset(at as u64)))
    }

    fn node(&mut self, reference: u32, key: &mut Vec<u8>) -> Result<()> {
        self.visited += 1;
        // Every honest node has bytes of its own: more visits than bytes are a loop.
        if self.visited > self.bytes.len() || key.len() > LONGEST_KEY {
            return Err(Error::corrupt("module index refers to itself"));
        }
        let mut at = usize::try_from(reference & OFFSET).unwrap_or(usize::MAX);
        let depth = key.len();
        if reference & PREFIX != 0 {
            let (prefix, next) = self.text(at)?;
            key.extend_from_slice(prefix);
            at = next;
        }
        let mut children = None;
        if reference & CHILDREN != 0 {
            let letters = at.checked_add(2).and_then(|end| self.bytes.get(at..end));
            let Some(&[first, last]) = letters else { return Err(Error::corrupt("module index is cut off")) };
            children = Some((first, last, at + 2));
            at = at + 2 + 4 * (usize::from(last) + 1).saturating_sub(usize::from(first));
        }
        if reference & VALUES != 0 {
            let count = self.number(at)?;
            at += 4;
            for _ in 0..count {
                let priority = self.number(at)?;
                let (value, next) = self.text(at + 4)?;
                let value = String::from_utf8_lossy(value).into_owned();
                self.rows.push(Row { key: String::from_utf8_lossy(key).into_owned(), priority, value });
                self.produced += key.len() + next - at;
                at = next;
                if self.produced > self.bytes.len().saturating_mul(LARGEST_GROWTH) {
                    return Err(Error::corrupt("module index refers to itself"));
                }
            }
        }
        if let Some((first, last, table)) = children {
            for (i, letter) in (first..=last).enumerate() {
                let child = self.number(table + 4 * i)?;
                if child != 0 {
                    key.push(letter);
                    self.node(child, key)?;
                    key.pop();
                }
            }
        }
        key.truncate(depth);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, priority: u32, value: &str) -> Row {
        Row { key: key.into(), priority, value: value.into() }
    }

    #[test]
    fn rows_survive_a_round_trip_sorted_by_key_and_priority() {
        let rows = [
            row("virtio_blk", 5, "b"),
            row("virtio", 3, "a"),
            row("virtio", 2, "z"),
            row("virtio_net", 1, "c"),
            row("", 9, "empty key"),
            row("ahci", 0, "d"),
            row("umlaut ü", 0, "left out"),
        ];
        let read = read(&write(&rows).expect("small")).expect("sound");
        let expected = [
            row("", 9, "empty key"),
            row("ahci", 0, "d"),
            row("virtio", 2, "z"),
            row("virtio", 3, "a"),
            row("virtio_blk", 5, "b"),
            row("virtio_net", 1, "c"),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn an_empty_index_is_one_empty_node() {
        let bytes = write(&[]).expect("small");
        assert_eq!(read(&bytes).expect("sound"), []);
    }

    #[test]
    fn damage_never_panics_or_hangs() {
        let rows: Vec<Row> = (0..40).map(|i| row(&format!("alias:{}", i * 7919), i, "module")).collect();
        let bytes = write(&rows).expect("small");
        for at in 0..bytes.len() {
            let _ = read(&bytes[..at]);
            for flip in [0x01, 0x20, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let _ = read(&damaged);
            }
        }
    }
}
