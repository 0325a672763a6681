//! Stores that are made here, byte by byte: their sums, their log, and what is wrong with them.

use super::*;
use landfall_image::Kind;

/// A store under construction: one key table, an object table, one file object.
struct Forge {
    keys: Vec<u8>,
    log: Vec<(u64, Vec<u8>)>,
    object: Vec<u8>,
}

const TABLE: usize = 0x3000;
const OBJECT_AT: usize = 0x5000;
const LOG_AT: usize = 0x7000;
const END: usize = 0xa000;

fn summed(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let sum = crc32fast::hash(&bytes);
    bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

impl Forge {
    fn new() -> Forge {
        Forge { keys: vec![0; TABLE_LEN], log: Vec::new(), object: Vec::new() }
    }

    /// Adds a key below that at `parent` (0 for the top): its place.
    fn key(&mut self, parent: usize, name: &str, kind: u8, flags: u8, value: &[u8]) -> usize {
        let at = self.keys.len();
        let mut entry = vec![kind, flags];
        let size = ENTRY_LEN + name.len() + 1 + value.len();
        entry.extend_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
        entry.extend_from_slice(&u16::from(parent != 0).to_le_bytes());
        entry.extend_from_slice(&u32::try_from(parent).unwrap().to_le_bytes());
        entry.extend_from_slice(&[0; 4]);
        entry.extend_from_slice(&u32::try_from(at).unwrap().to_le_bytes());
        entry.push(u8::try_from(name.len() + 1).unwrap());
        entry.extend_from_slice(name.as_bytes());
        entry.push(0);
        entry.extend_from_slice(value);
        self.keys.extend_from_slice(&summed(entry, 12));
        at
    }

    fn node(&mut self, parent: usize, name: &str) -> usize {
        self.key(parent, name, 9, 0, &[0; 12])
    }

    fn table(&self) -> Vec<u8> {
        let mut head = vec![2, 0, 1, 0, 7, 0, 0, 0, 0, 0];
        head = summed(head, 6);
        head.extend_from_slice(&self.keys[TABLE_LEN..]);
        head
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0; END];
        for (at, sequence) in [(0, 5_u16), (SECOND, 4)] {
            let mut header = Vec::new();
            header.extend_from_slice(&SIGNATURE.to_le_bytes());
            header.extend_from_slice(&[0; 4]);
            header.extend_from_slice(&sequence.to_le_bytes());
            header.extend_from_slice(&VERSION.to_le_bytes());
            header.extend_from_slice(&[0; 8]);
            header.extend_from_slice(&0x1000_u32.to_le_bytes());
            header.extend_from_slice(&(LOG_AT as u64).to_le_bytes());
            header.extend_from_slice(&((END - LOG_AT) as u64).to_le_bytes());
            header.extend_from_slice(&0x1000_u32.to_le_bytes());
            out[at..at + HEADER_LEN].copy_from_slice(&summed(header, 4));
        }
        let mut objects = OBJECTS.to_le_bytes().to_vec();
        objects.extend_from_slice(&3_u32.to_le_bytes());
        for (kind, at, allocated) in [(2_u8, TABLE, 1), (3, OBJECT_AT, 1), (9, 0xffff_ffff, 0)] {
            let mut entry = vec![kind, 0, 0, 0, 0];
            entry.extend_from_slice(&(at as u64).to_le_bytes());
            entry.extend_from_slice(&0x1000_u32.to_le_bytes());
            entry.push(allocated);
            objects.extend_from_slice(&summed(entry, 1));
        }
        out[0x2000..0x2000 + objects.len()].copy_from_slice(&objects);
        let table = self.table();
        out[TABLE..TABLE + table.len()].copy_from_slice(&table);
        out[OBJECT_AT..OBJECT_AT + self.object.len()].copy_from_slice(&self.object);
        let mut log = LOG.to_le_bytes().to_vec();
        log.extend_from_slice(&[0; 4]);
        log.extend_from_slice(&u32::try_from(self.log.len()).unwrap().to_le_bytes());
        log.resize(LOG_LEN, 0);
        log = summed(log, 4);
        let mut data_at = 0x1000;
        for (at, data) in &self.log {
            let mut entry = at.to_le_bytes().to_vec();
            entry.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
            entry.extend_from_slice(&u32::try_from(data_at).unwrap().to_le_bytes());
            entry.extend_from_slice(&[0; 8]);
            entry.extend_from_slice(&crc32fast::hash(data).to_le_bytes());
            log.extend_from_slice(&summed(entry, 20));
            out[LOG_AT + data_at..LOG_AT + data_at + data.len()].copy_from_slice(data);
            data_at += data.len();
        }
        out[LOG_AT..LOG_AT + log.len()].copy_from_slice(&log);
        out
    }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn counted(data: &[u8]) -> Vec<u8> {
    [&u32::try_from(data.len()).unwrap().to_le_bytes()[..], data].concat()
}

fn usual() -> Forge {
    let mut forge = Forge::new();
    let top = forge.node(0, "configuration");
    forge.key(top, "number", 3, 0, &(-7_i64).to_le_bytes());
    forge.key(top, "text", 6, 0, &counted(&utf16("C:\\Größe.vhdx\0")));
    forge.key(top, "yes", 8, 0, &[1, 0, 0, 0]);
    forge.object = utf16(&"long ".repeat(400));
    let pointer = [&4000_u32.to_le_bytes()[..], &(OBJECT_AT as u64).to_le_bytes()].concat();
    forge.key(top, "long", 6, 1, &pointer);
    forge
}

/// A machine of generation 2 with a TPM.
pub(in crate::hypervisor) fn second_generation() -> Vec<u8> {
    let mut forge = Forge::new();
    let top = forge.node(0, "configuration");
    let properties = forge.node(top, "properties");
    forge.key(properties, "name", 6, 0, &counted(&utf16("web01\0")));
    forge.key(properties, "subtype", 3, 0, &1_i64.to_le_bytes());
    let security = forge.node(top, "security");
    let settings = forge.node(security, "settings");
    forge.key(settings, "tpm_enabled", 8, 0, &[1, 0, 0, 0]);
    let settings = forge.node(top, "settings");
    let memory = forge.node(settings, "memory");
    let bank = forge.node(memory, "bank");
    forge.key(bank, "size", 3, 0, &512_i64.to_le_bytes());
    forge.bytes()
}

#[test]
fn every_kind_of_value_is_read() {
    let tree = parse(&usual().bytes()).unwrap();
    let top = tree.child("configuration").unwrap();
    assert_eq!(top.at("number").unwrap().value, Value::Int(-7));
    assert_eq!(top.text("text"), Some("C:\\Größe.vhdx"));
    assert!(top.flag("yes"));
    assert_eq!(top.text("long"), Some("long ".repeat(400).as_str()));
}

#[test]
fn what_stands_in_the_log_counts() {
    let mut forge = usual();
    let mut newer = Forge::new();
    let top = newer.node(0, "configuration");
    newer.key(top, "text", 6, 0, &counted(&utf16("newer")));
    let mut table = newer.table();
    table.resize(0x1000, 0);
    forge.log.push((TABLE as u64, table));
    let bytes = forge.bytes();
    assert_eq!(parse(&bytes).unwrap().text("configuration/text"), Some("newer"));
    // One whose data was not written in full is no log to go by.
    let mut torn = bytes.clone();
    torn[LOG_AT + 0x1000 + 30] ^= 1;
    assert_eq!(parse(&torn).unwrap_err().kind(), Kind::Corrupt);
    // It may write beyond the end of the file, but not without end.
    let mut long = usual();
    long.log.push((END as u64, vec![1; 100]));
    assert!(parse(&long.bytes()).is_ok());
    long.log[0].0 = u64::MAX - 10;
    assert_eq!(parse(&long.bytes()).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn a_torn_header_leaves_the_other() {
    let mut bytes = usual().bytes();
    bytes[20] ^= 1;
    assert!(parse(&bytes).is_ok());
    bytes[SECOND + 20] ^= 1;
    assert_eq!(parse(&bytes).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn hostile_stores_are_refused() {
    type Break = fn(&mut Forge);
    let wrong: [(&str, Break, Kind); 8] = [
        (
            "circle",
            |forge| {
                // Each is the other's parent: neither is below the top.
                let first = forge.keys.len();
                let second = first + ENTRY_LEN + 2 + 12;
                forge.node(second, "a");
                forge.node(first, "b");
            },
            Kind::Corrupt,
        ),
        (
            "no parent",
            |forge| {
                forge.node(99, "a");
            },
            Kind::Corrupt,
        ),
        (
            "kind",
            |forge| {
                forge.key(0, "a", 12, 0, &[0; 12]);
            },
            Kind::Unsupported,
        ),
        (
            "name",
            |forge| {
                forge.key(0, "", 9, 0, &[0; 12]);
            },
            Kind::Corrupt,
        ),
        (
            "length",
            |forge| {
                forge.key(0, "a", 6, 0, &[255; 8]);
            },
            Kind::Corrupt,
        ),
        (
            "object",
            |forge| {
                let pointer = [&5000_u32.to_le_bytes()[..], &(OBJECT_AT as u64).to_le_bytes()].concat();
                forge.key(0, "a", 6, 1, &pointer);
            },
            Kind::Corrupt,
        ),
        (
            "text",
            |forge| {
                forge.key(0, "a", 6, 0, &counted(&[0, 0xd8]));
            },
            Kind::Corrupt,
        ),
        (
            "deep",
            |forge| {
                let mut at = 0;
                for _ in 0..70 {
                    at = forge.node(at, "a");
                }
            },
            Kind::Refused,
        ),
    ];
    for (what, change, kind) in wrong {
        let mut forge = usual();
        change(&mut forge);
        assert_eq!(parse(&forge.bytes()).map(|_| ()).unwrap_err().kind(), kind, "{what}");
    }
    assert_eq!(parse(&vec![0; AT_MOST + 1]).unwrap_err().kind(), Kind::Refused);
    assert_eq!(parse(b"").unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn every_cut_and_every_flipped_bit_ends() {
    let bytes = usual().bytes();
    for end in 0..bytes.len() {
        drop(parse(&bytes[..end]));
    }
    for at in (0..0x3400).chain(OBJECT_AT..OBJECT_AT + 16).chain(LOG_AT..LOG_AT + 100) {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            drop(parse(&flipped));
        }
    }
}
