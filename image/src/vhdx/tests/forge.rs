//! Makes VHDX files as a writer would, and as none would. Written from the specification, apart from the reader.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use uuid::{Uuid, uuid};

pub const MIB: u64 = 1 << 20;
pub const LOG_AT: u64 = MIB;
pub const METADATA_AT: u64 = 8 * MIB;
pub const BAT_AT: u64 = 9 * MIB;
pub const LOG_GUID: Uuid = uuid!("11112222-3333-4444-5555-666677778888");

pub const FULLY: u64 = 6;
pub const PARTIALLY: u64 = 7;

#[derive(Clone)]
pub struct Forge {
    pub size: u64,
    pub block_size: u64,
    pub sector_size: u64,
    pub fixed: bool,
    /// Keys and values of a parent locator.
    pub parent: Option<Vec<(&'static str, String)>>,
    pub data_write_guid: Uuid,
    /// Of the two headers.
    pub sequence_numbers: [u64; 2],
    pub log_version: u16,
    pub log_length: u32,
    /// What lies in the log, if it is not empty.
    pub log: Option<Vec<u8>>,
    /// Table entries by index.
    pub bat: BTreeMap<u64, u64>,
    /// Bytes by place in the file.
    pub bytes: Vec<(u64, Vec<u8>)>,
    pub file_len: u64,
    /// Of the table's region, where it is not what the disk needs.
    pub write_bat_length: Option<u64>,
    pub more_regions: Vec<(Uuid, u64, u32, u32)>,
    pub more_items: Vec<(Uuid, u32, Vec<u8>)>,
}

impl Forge {
    pub fn new(size: u64, block_size: u64, sector_size: u64) -> Forge {
        let mut forge = Forge {
            size,
            block_size,
            sector_size,
            fixed: false,
            parent: None,
            data_write_guid: Uuid::from_u128(u128::from(size) << 64 | u128::from(block_size)),
            sequence_numbers: [7, 8],
            log_version: 0,
            log_length: MIB as u32,
            log: None,
            bat: BTreeMap::new(),
            bytes: Vec::new(),
            file_len: 0,
            write_bat_length: None,
            more_regions: Vec::new(),
            more_items: Vec::new(),
        };
        forge.file_len = BAT_AT + forge.bat_length();
        forge
    }

    pub fn chunk_ratio(&self) -> u64 {
        (1 << 23) * self.sector_size / self.block_size
    }

    fn bat_length(&self) -> u64 {
        if let Some(length) = self.write_bat_length {
            return length;
        }
        let blocks = self.size.div_ceil(self.block_size);
        let chunks = blocks.div_ceil(self.chunk_ratio());
        (8 * (blocks + chunks)).next_multiple_of(MIB).max(MIB)
    }

    pub fn payload_index(&self, block: u64) -> u64 {
        block + block / self.chunk_ratio()
    }

    /// Gives a block a place of its own, with `content` at its start.
    pub fn put_block(&mut self, block: u64, state: u64, content: Vec<u8>) -> u64 {
        let at = self.file_len;
        self.file_len += self.block_size;
        self.bat.insert(self.payload_index(block), at | state);
        self.bytes.push((at, content));
        at
    }

    /// Gives a chunk its sector bitmap.
    pub fn put_bitmap(&mut self, chunk: u64, bits: Vec<u8>) -> u64 {
        let at = self.file_len;
        self.file_len += MIB;
        let ratio = self.chunk_ratio();
        self.bat.insert(chunk * (ratio + 1) + ratio, at | 6);
        self.bytes.push((at, bits));
        at
    }

    pub fn write(&self, path: &Path) {
        let file = File::create(path).unwrap();
        let put = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).unwrap();
        file.set_len(self.file_len).unwrap();
        put(0, b"vhdxfile");
        put(8, &utf16("forge"));
        for (n, sequence) in self.sequence_numbers.into_iter().enumerate() {
            put(64 * 1024 * (n as u64 + 1), &self.header(sequence));
        }
        let regions = self.region_table();
        put(192 * 1024, &regions);
        put(256 * 1024, &regions);
        self.write_metadata(&put);
        for (index, entry) in &self.bat {
            put(BAT_AT + 8 * index, &entry.to_le_bytes());
        }
        if let Some(log) = &self.log {
            put(LOG_AT, log);
        }
        for (at, bytes) in &self.bytes {
            put(*at, bytes);
        }
    }

    fn header(&self, sequence: u64) -> Vec<u8> {
        let mut header = b"head\0\0\0\0".to_vec();
        header.extend(sequence.to_le_bytes());
        header.extend(Uuid::from_u128(1).to_bytes_le());
        header.extend(self.data_write_guid.to_bytes_le());
        header.extend(self.log.as_ref().map_or(Uuid::nil(), |_| LOG_GUID).to_bytes_le());
        header.extend(self.log_version.to_le_bytes());
        header.extend(1u16.to_le_bytes());
        header.extend(self.log_length.to_le_bytes());
        header.extend(LOG_AT.to_le_bytes());
        header.resize(4096, 0);
        sealed(header)
    }

    fn region_table(&self) -> Vec<u8> {
        let mut regions = vec![
            (uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08"), BAT_AT, self.bat_length() as u32, 1),
            (uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e"), METADATA_AT, MIB as u32, 1),
        ];
        regions.extend(self.more_regions.iter().copied());
        let mut table = b"regi\0\0\0\0".to_vec();
        table.extend((regions.len() as u64).to_le_bytes());
        for (id, at, length, required) in regions {
            table.extend(id.to_bytes_le());
            table.extend(at.to_le_bytes());
            table.extend(length.to_le_bytes());
            table.extend(u32::to_le_bytes(required));
        }
        table.resize(64 * 1024, 0);
        sealed(table)
    }

    fn write_metadata(&self, put: &impl Fn(u64, &[u8])) {
        let flags = u32::from(self.fixed) | if self.parent.is_some() { 2 } else { 0 };
        let mut parameters = (self.block_size as u32).to_le_bytes().to_vec();
        parameters.extend(flags.to_le_bytes());
        let mut items = vec![
            (uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b"), 4, parameters),
            (uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8"), 6, self.size.to_le_bytes().to_vec()),
            (uuid!("beca12ab-b2e6-4523-93ef-c309e000c746"), 6, Uuid::from_u128(99).to_bytes_le().to_vec()),
            (
                uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f"),
                6,
                (self.sector_size as u32).to_le_bytes().to_vec(),
            ),
            (uuid!("cda348c7-445d-4471-9cc9-e9885251c556"), 6, 4096u32.to_le_bytes().to_vec()),
        ];
        if let Some(parent) = &self.parent {
            items.push((uuid!("a8d35f2d-b30b-454d-abf7-d3d84834ab0c"), 4, parent_locator(parent)));
        }
        items.extend(self.more_items.iter().cloned());
        let mut table = b"metadata\0\0".to_vec();
        table.extend((items.len() as u16).to_le_bytes());
        table.resize(32, 0);
        let mut at = 64 * 1024u32;
        for (id, flags, item) in items {
            table.extend(id.to_bytes_le());
            table.extend(at.to_le_bytes());
            table.extend((item.len() as u32).to_le_bytes());
            table.extend(u32::to_le_bytes(flags));
            table.extend([0; 4]);
            put(METADATA_AT + u64::from(at), &item);
            at += (item.len() as u32).next_multiple_of(8);
        }
        put(METADATA_AT, &table);
    }
}

fn parent_locator(entries: &[(&str, String)]) -> Vec<u8> {
    let mut head = uuid!("b04aefb7-d19e-4a81-b789-25b8e9445913").to_bytes_le().to_vec();
    head.extend([0; 2]);
    head.extend((entries.len() as u16).to_le_bytes());
    let mut text = Vec::new();
    let text_at = head.len() + 12 * entries.len();
    for (key, value) in entries {
        let (key, value) = (utf16(key), utf16(value));
        head.extend(((text_at + text.len()) as u32).to_le_bytes());
        head.extend(((text_at + text.len() + key.len()) as u32).to_le_bytes());
        head.extend((key.len() as u16).to_le_bytes());
        head.extend((value.len() as u16).to_le_bytes());
        text.extend(key);
        text.extend(value);
    }
    head.extend(text);
    head
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// With the checksum at byte 4.
pub fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[4..8].fill(0);
    let sum = crc32c::crc32c(&bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// One change that a log entry makes.
#[derive(Clone)]
pub enum Change {
    Zero(u64, u64),
    Sector(u64, Vec<u8>),
}

/// One log entry.
#[derive(Clone)]
pub struct Entry {
    pub sequence: u64,
    pub tail: u32,
    pub guid: Uuid,
    pub flushed: u64,
    pub last: u64,
    pub changes: Vec<Change>,
}

impl Entry {
    pub fn new(sequence: u64, tail: u32, changes: Vec<Change>) -> Entry {
        Entry { sequence, tail, guid: LOG_GUID, flushed: MIB, last: MIB, changes }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut entry = b"loge".to_vec();
        entry.resize(12, 0); // checksum and length are filled in below
        entry.extend(self.tail.to_le_bytes());
        entry.extend(self.sequence.to_le_bytes());
        entry.extend((self.changes.len() as u64).to_le_bytes());
        entry.extend(self.guid.to_bytes_le());
        entry.extend(self.flushed.to_le_bytes());
        entry.extend(self.last.to_le_bytes());
        let mut data = Vec::new();
        for change in &self.changes {
            match change {
                Change::Zero(at, len) => {
                    entry.extend(b"zero\0\0\0\0");
                    entry.extend(len.to_le_bytes());
                    entry.extend(at.to_le_bytes());
                }
                Change::Sector(at, content) => {
                    assert_eq!(content.len(), 4096);
                    entry.extend(b"desc");
                    entry.extend(&content[4092..]);
                    entry.extend(&content[..8]);
                    entry.extend(at.to_le_bytes());
                    data.extend(b"data");
                    data.extend(((self.sequence >> 32) as u32).to_le_bytes());
                    data.extend(&content[8..4092]);
                    data.extend((self.sequence as u32).to_le_bytes());
                }
            }
            entry.extend(self.sequence.to_le_bytes());
        }
        entry.resize(entry.len().next_multiple_of(4096), 0);
        entry.extend(data);
        let length = entry.len() as u32;
        entry[8..12].copy_from_slice(&length.to_le_bytes());
        sealed(entry)
    }
}

/// A log of `length` bytes with entries at the places given, wrapping around.
pub fn ring(length: usize, entries: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut log = vec![0; length];
    for (at, entry) in entries {
        for (n, byte) in entry.iter().enumerate() {
            log[(at + n) % length] = *byte;
        }
    }
    log
}
