//! The binary store of Hyper-V 2016 and later: the tree of keys in a .vmcx (and in a .vmrs or .vmgs of that kind).
//!
//! Microsoft publishes no description. What is here follows the public readers of the format (dissect.hypervisor, the
//! names in its own symbols) and real files: the sums, the replay log's data and the order of keys were worked out on them.
//! All numbers are little-endian, all structures packed.
//!
//! ```text
//! 0, 4096      header: signature sum:u32 sequence:u16 version:u32 -:u64 alignment:u32 log at:u64 log size:u64 header size:u32
//! 2 x header   object table: signature count:u32, then entries: kind:u8 sum:u32 at:u64 size:u32 allocated:u8
//! key table    2:u16 number:u16 sequence:u16 sum:u32, then entries:
//!              kind:u8 flags:u8 size:u32 parent's table:u16 parent at:u32 sum:u32 order:u32 length of name:u8 name, value
//! replay log   signature sum:u32 count:u32 …, from 34 on entries: at:u64 size:u32 data at:u32 -:u32 sum:u32 sum of data:u32
//! ```
//! A sum is the CRC-32 of its structure with the sum itself as zero. Of the two headers the one with the later sequence
//! counts; of two key tables with one number, too. A store that was not closed has entries in its replay log, which are
//! applied before anything else is read. A long value lies in a file object (flag 1): its size:u32 and place:u64 stand in the entry.
//!
//! Deliberately absent: stores of other versions than 4.0, and what is in the objects of a runtime state (memory).

use super::tree::{Node, Value};
use landfall_image::{Error, FileOffset, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A .vmcx has some ten KiB; beyond this it holds something else.
const AT_MOST: usize = 16 << 20;
/// Keys of one store. Real ones have some hundred.
const KEYS_AT_MOST: usize = 100_000;
/// Entries of all object tables, free ones too. One table of 4 KiB has 227.
const OBJECTS_AT_MOST: usize = 100_000;
/// Deeper than any real tree, which has nine levels.
const DEPTH: usize = 64;
/// All values together: a hostile store names one object by many keys.
const VALUES_AT_MOST: usize = 64 << 20;

const SIGNATURE: u32 = 0x0128_2014;
const LOG: u32 = 0x0111_0003;
const OBJECTS: u32 = 0x0111_0001;
const KEYS: u16 = 2;
const HEADER_LEN: usize = 46;
const SECOND: usize = 0x1000;
const VERSION: u32 = 0x400;
const LOG_LEN: usize = 34;
const LOG_ENTRY: usize = 28;
const OBJECT: usize = 18;
const TABLE_LEN: usize = 10;
const ENTRY_LEN: usize = 21;

/// True for bytes that begin as such a store.
pub fn recognise(bytes: &[u8]) -> bool {
    let signed = |at| u32_at(bytes, at).is_ok_and(|found| found == SIGNATURE);
    signed(0) || signed(SECOND)
}

/// Reads a store: a key without a name that holds the keys at its top.
///
/// # Errors
/// Corrupt where a structure or a sum is wrong, unsupported for another version of the store, refused beyond 16 MiB, 100,000
/// keys, 64 levels or 64 MiB of values.
pub fn parse(bytes: &[u8]) -> Result<Node> {
    if bytes.len() > AT_MOST {
        return Err(Error::refused(format!(
            "has {} bytes; at most {AT_MOST} are read of a store of keys",
            bytes.len()
        )));
    }
    let header = header(bytes)?;
    let bytes = replay(bytes, &header)?;
    let objects = objects(&bytes, header.objects)?;
    let entries = entries(&bytes, &objects)?;
    tree(&bytes, &objects, &entries)
}

struct Header {
    sequence: u16,
    log: (u64, u64),
    objects: usize,
}

/// The header that counts.
fn header(bytes: &[u8]) -> Result<Header> {
    let found = [0, SECOND].map(|at| header_at(bytes, at));
    match found {
        [Ok(first), Ok(second)] => {
            let later = first.sequence.wrapping_sub(second.sequence).cast_signed() > 0;
            Ok(if later { first } else { second })
        }
        // The other one was being written when the power went.
        [Ok(only), Err(_)] | [Err(_), Ok(only)] => Ok(only),
        [Err(error), Err(_)] => Err(error),
    }
}

fn header_at(bytes: &[u8], at: usize) -> Result<Header> {
    let part = part(bytes, at, HEADER_LEN, "a header")?;
    if u32_at(part, 0)? != SIGNATURE {
        return Err(Error::corrupt(format!("has no header of Hyper-V's store at {at:#x}")));
    }
    check(part, 4, u32_at(part, 4)?, "the header", at)?;
    let version = u32_at(part, 10)?;
    if version != VERSION {
        return Err(Error::unsupported(format!(
            "is a store of version {:#x}; {VERSION:#x} is the one that is read",
            version
        ))
        .at(place(at))
        .hint("export the machine from a host with Windows Server 2016 or later (Export-VM)"));
    }
    let (alignment, size) = (u32_at(part, 22)?, u32_at(part, 42)?);
    if !alignment.is_power_of_two() || alignment > 0x10000 || !(0x1000..=0x10000).contains(&size) {
        return Err(Error::corrupt(format!(
            "has an alignment of {alignment} and headers of {size} bytes; powers of two up to 65536 and 4096 to 65536 are possible"
        ))
        .at(place(at)));
    }
    Ok(Header {
        sequence: u16_at(part, 8)?,
        log: (u64_at(part, 26)?, u64_at(part, 34)?),
        objects: 2 * to_usize(u64::from(size)),
    })
}

/// The store as it is once its replay log is applied.
fn replay(bytes: &[u8], header: &Header) -> Result<Vec<u8>> {
    let (start, size) = (to_usize(header.log.0), to_usize(header.log.1));
    let log = part(bytes, start, LOG_LEN, "the replay log")?;
    if u32_at(log, 0)? != LOG {
        return Err(Error::corrupt("has no replay log where the header says").at(place(start)));
    }
    check(log, 4, u32_at(log, 4)?, "the replay log", start)?;
    let mut out = bytes.to_vec();
    let count = to_usize(u64::from(u32_at(log, 8)?));
    let fits = size.saturating_sub(LOG_LEN) / LOG_ENTRY;
    if count > fits {
        return Err(Error::corrupt(format!(
            "has {count} entries in its replay log, in which {fits} have room"
        ))
        .at(place(start)));
    }
    let mut written = 0_usize;
    for number in 0..count {
        let at = start + LOG_LEN + number * LOG_ENTRY;
        let entry = part(bytes, at, LOG_ENTRY, "an entry of the replay log")?;
        check(entry, 20, u32_at(entry, 20)?, "an entry of the replay log", at)?;
        let (to, len, from) =
            (to_usize(u64_at(entry, 0)?), to_usize(u64::from(u32_at(entry, 8)?)), u32_at(entry, 12)?);
        let data = start
            .checked_add(to_usize(u64::from(from)))
            .ok_or_else(|| Error::corrupt("has a replay log that leads beyond every file").at(place(at)))?;
        let data = part(bytes, data, len, "the data of an entry of the replay log")?;
        written = written.saturating_add(len);
        if written > bytes.len() {
            return Err(Error::corrupt("has a replay log whose entries share their data").at(place(at)));
        }
        if crc32fast::hash(data) != u32_at(entry, 24)? {
            return Err(wrong_sum("the data of an entry of the replay log", at));
        }
        let end = to.checked_add(len).filter(|end| *end <= AT_MOST).ok_or_else(|| {
            Error::corrupt(format!(
                "has a replay log that writes {len} bytes at {to:#x}, beyond {AT_MOST} bytes"
            ))
            .at(place(at))
        })?;
        if out.len() < end {
            out.resize(end, 0);
        }
        out[to..end].copy_from_slice(data);
    }
    Ok(out)
}

#[derive(Default)]
struct Objects {
    /// Places and sizes of key tables.
    tables: Vec<(usize, usize)>,
    /// Sizes of file objects by their places.
    files: BTreeMap<usize, usize>,
}

fn objects(bytes: &[u8], first: usize) -> Result<Objects> {
    let mut found = Objects::default();
    let (mut waiting, mut seen, mut walked) = (vec![first], BTreeSet::new(), 0_usize);
    while let Some(start) = waiting.pop() {
        if !seen.insert(start) {
            return Err(Error::corrupt("has object tables that lead in a circle").at(place(start)));
        }
        let head = part(bytes, start, 8, "an object table")?;
        if u32_at(head, 0)? != OBJECTS {
            return Err(Error::corrupt("has no object table where one should be").at(place(start)));
        }
        let count = to_usize(u64::from(u32_at(head, 4)?));
        walked = walked.saturating_add(count);
        if walked > OBJECTS_AT_MOST {
            return Err(Error::refused(format!("has more than {OBJECTS_AT_MOST} objects")));
        }
        let all = part(bytes, start + 8, count.saturating_mul(OBJECT), "the entries of an object table")?;
        for (number, entry) in all.chunks_exact(OBJECT).enumerate() {
            let here = start + 8 + number * OBJECT;
            if entry[17] == 0 {
                continue;
            }
            check(entry, 1, u32_at(entry, 1)?, "an entry of an object table", here)?;
            let (at, size) = (to_usize(u64_at(entry, 5)?), to_usize(u64::from(u32_at(entry, 13)?)));
            match entry[0] {
                1 => waiting.push(at),
                2 => found.tables.push((at, size)),
                3 => {
                    found.files.insert(at, size);
                }
                // Nothing, free space, headers, logs and change tracking: none of them holds keys.
                0 | 4..=7 => {}
                other => {
                    return Err(Error::unsupported(format!("has an object of the unknown kind {other}"))
                        .at(place(here)));
                }
            }
        }
    }
    Ok(found)
}

/// Where an entry is: the number of its table, and its place in it.
type Key = (u16, u32);

struct Entry<'a> {
    kind: u8,
    is_pointer: bool,
    parent: Key,
    order: u32,
    name: &'a str,
    value: &'a [u8],
    /// Its place in the file.
    at: usize,
}

fn entries<'a>(bytes: &'a [u8], objects: &Objects) -> Result<BTreeMap<Key, Entry<'a>>> {
    let mut tables: BTreeMap<u16, (u16, usize, &[u8])> = BTreeMap::new();
    for &(at, size) in &objects.tables {
        let table = part(bytes, at, size, "a key table")?;
        let head = part(table, 0, TABLE_LEN, "a key table's header")?;
        if u16_at(head, 0)? != KEYS {
            return Err(Error::corrupt("has no key table where the object table says").at(place(at)));
        }
        check(head, 6, u32_at(head, 6)?, "a key table's header", at)?;
        let (number, sequence) = (u16_at(head, 2)?, u16_at(head, 4)?);
        let is_older =
            tables.get(&number).is_some_and(|(other, ..)| sequence.wrapping_sub(*other).cast_signed() <= 0);
        if !is_older {
            tables.insert(number, (sequence, at, table));
        }
    }
    let all: usize = tables.values().map(|(.., table)| table.len()).sum();
    if all > bytes.len() {
        return Err(Error::corrupt(format!("has key tables of {all} bytes in {} bytes", bytes.len())));
    }
    let mut found = BTreeMap::new();
    for (number, (_, start, table)) in tables {
        let mut at = TABLE_LEN;
        while table.len() - at >= ENTRY_LEN {
            let size = to_usize(u64::from(u32_at(table, at + 2)?));
            if size == 0 {
                break;
            }
            let whole = part(table, at, size.max(ENTRY_LEN), "a key")?;
            if let Some(entry) = entry(whole, start + at)? {
                let key = (number, u32::try_from(at).unwrap_or(u32::MAX));
                found.insert(key, entry);
            }
            if found.len() > KEYS_AT_MOST {
                return Err(Error::refused(format!("has more than {KEYS_AT_MOST} keys")));
            }
            at += whole.len();
        }
    }
    Ok(found)
}

/// One entry of a key table; `None` for one that is free.
fn entry(whole: &[u8], at: usize) -> Result<Option<Entry<'_>>> {
    let (kind, flags) = (whole[0], whole[1]);
    if kind == 1 {
        return Ok(None);
    }
    let length = usize::from(whole[20]);
    let name = part(whole, ENTRY_LEN, length, "a key's name")?;
    let name = name
        .strip_suffix(&[0])
        .and_then(|name| std::str::from_utf8(name).ok())
        .filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Error::corrupt("has a key without a name in UTF-8").at(place(at)))?;
    let rest = &whole[ENTRY_LEN + length..];
    let is_pointer = flags & 1 != 0;
    let size = match kind {
        _ if is_pointer => 12,
        3..=5 => 8,
        6 | 7 => 4_usize.saturating_add(to_usize(u64::from(u32_at(rest, 0).map_err(|_| short(name, at))?))),
        8 => 4,
        9 => 12,
        other => {
            return Err(
                Error::unsupported(format!("has the key {name:?} of the unknown kind {other}")).at(place(at))
            );
        }
    };
    let value = rest.get(..size).ok_or_else(|| short(name, at))?;
    check(&whole[..ENTRY_LEN + length + size], 12, u32_at(whole, 12)?, &format!("the key {name:?}"), at)?;
    Ok(Some(Entry {
        kind,
        is_pointer,
        parent: (u16_at(whole, 6)?, u32_at(whole, 8)?),
        order: u32_at(whole, 16)?,
        name,
        value,
        at,
    }))
}

fn short(name: &str, at: usize) -> Error {
    Error::corrupt(format!("has the key {name:?}, whose value is longer than its entry")).at(place(at))
}

/// The entries as a tree.
fn tree(bytes: &[u8], objects: &Objects, entries: &BTreeMap<Key, Entry<'_>>) -> Result<Node> {
    let mut below: HashMap<Key, Vec<&Entry<'_>>> = HashMap::new();
    let mut places: HashMap<usize, Key> = HashMap::new();
    for (key, entry) in entries {
        // Table 0 does not exist: such a key is at the top.
        let parent = if entry.parent.0 == 0 { (0, 0) } else { entry.parent };
        if parent != (0, 0) && entries.get(&parent).is_none_or(|parent| parent.kind != 9) {
            return Err(Error::corrupt(format!("has the key {:?}, which is in no other key", entry.name))
                .at(place(entry.at)));
        }
        below.entry(parent).or_default().push(entry);
        places.insert(entry.at, *key);
    }
    for children in below.values_mut() {
        children.sort_by_key(|entry| entry.order);
    }
    let mut builder = Builder { bytes, objects, below, places, held: 0, count: 0 };
    let root = Node { children: builder.children((0, 0), 0)?, ..Node::default() };
    if builder.count != entries.len() {
        return Err(Error::corrupt(format!(
            "has {} keys that are in each other, not below its top",
            entries.len() - builder.count
        )));
    }
    Ok(root)
}

struct Builder<'a> {
    bytes: &'a [u8],
    objects: &'a Objects,
    below: HashMap<Key, Vec<&'a Entry<'a>>>,
    places: HashMap<usize, Key>,
    /// Bytes of values so far.
    held: usize,
    /// Keys so far.
    count: usize,
}

impl<'a> Builder<'a> {
    fn children(&mut self, of: Key, depth: usize) -> Result<Vec<Node>> {
        if depth > DEPTH {
            return Err(Error::refused(format!("has keys in more than {DEPTH} levels")));
        }
        let mut out = Vec::new();
        for entry in self.below.remove(&of).unwrap_or_default() {
            self.count += 1;
            let value = self.value(entry)?;
            let key = self.places.get(&entry.at).copied().unwrap_or_default();
            let children = if entry.kind == 9 { self.children(key, depth + 1)? } else { Vec::new() };
            out.push(Node { name: entry.name.to_owned(), value, children });
        }
        Ok(out)
    }

    fn value(&mut self, entry: &Entry<'_>) -> Result<Value> {
        let raw = entry.value;
        let number = |at| u64_at(raw, at);
        Ok(match entry.kind {
            6 | 7 => {
                let data = if entry.is_pointer { self.object(entry)? } else { &raw[4..] };
                self.held += data.len();
                if self.held > VALUES_AT_MOST {
                    return Err(Error::refused(format!("has more than {VALUES_AT_MOST} bytes of values")));
                }
                if entry.kind == 6 { Value::Text(text(data, entry)?) } else { Value::Bytes(data.to_vec()) }
            }
            9 => Value::Keys,
            _ if entry.is_pointer => {
                return Err(Error::corrupt(format!(
                    "has the key {:?}, a number in a file object",
                    entry.name
                ))
                .at(place(entry.at)));
            }
            3 => Value::Int(number(0)?.cast_signed()),
            4 => Value::UInt(number(0)?),
            5 => Value::Double(f64::from_bits(number(0)?)),
            _ => Value::Bool(u32_at(raw, 0)? != 0),
        })
    }

    /// The content of the file object that an entry names.
    fn object(&self, entry: &Entry<'_>) -> Result<&'a [u8]> {
        let (len, at) = (to_usize(u64::from(u32_at(entry.value, 0)?)), to_usize(u64_at(entry.value, 4)?));
        match self.objects.files.get(&at) {
            Some(size) if len <= *size => part(self.bytes, at, len, "a file object"),
            _ => Err(Error::corrupt(format!("has the key {:?}, whose file object is not there", entry.name))
                .at(place(entry.at))),
        }
    }
}

fn text(data: &[u8], entry: &Entry<'_>) -> Result<String> {
    let (pairs, odd) = data.as_chunks::<2>();
    let units = pairs.iter().map(|pair| u16::from_le_bytes(*pair));
    let text: std::result::Result<String, _> = char::decode_utf16(units).collect();
    match text {
        Ok(text) if odd.is_empty() => Ok(text.trim_end_matches('\0').to_owned()),
        _ => Err(Error::corrupt(format!("has the key {:?}, whose text is not UTF-16", entry.name))
            .at(place(entry.at))),
    }
}

/// Compares a sum that is recorded at `at` of a structure with that of its bytes.
fn check(structure: &[u8], at: usize, recorded: u32, what: &str, here: usize) -> Result<()> {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&structure[..at]);
    sum.update(&[0; 4]);
    sum.update(&structure[at + 4..]);
    // What the fuzzer makes up has no right sums, and is to get beyond them.
    if sum.finalize() == recorded || cfg!(fuzzing) { Ok(()) } else { Err(wrong_sum(what, here)) }
}

fn wrong_sum(what: &str, at: usize) -> Error {
    Error::corrupt(format!("{what} has another sum than is recorded"))
        .at(place(at))
        .hint("copy the file again while the machine is off, or export the machine anew (Export-VM)")
}

fn part<'a>(bytes: &'a [u8], at: usize, len: usize, what: &str) -> Result<&'a [u8]> {
    at.checked_add(len).and_then(|end| bytes.get(at..end)).ok_or_else(|| {
        Error::corrupt(format!(
            "ends inside of {what}: {len} bytes at {at:#x} are wanted, {} are there",
            bytes.len()
        ))
        .at(place(at))
    })
}

fn place(at: usize) -> FileOffset {
    FileOffset(at as u64)
}

/// A number of bytes; one that no memory holds stays too large for every file.
fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    found.copied().ok_or_else(|| Error::corrupt("ends inside of a number").at(place(at)))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(array(bytes, at)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(array(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(array(bytes, at)?))
}

#[cfg(test)]
pub(in crate::hypervisor) mod tests;
