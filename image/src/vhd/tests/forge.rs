//! Makes VHD files as writers do, and as none does. Written from the specification, apart from the reader.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub const MIB: u64 = 1 << 20;
pub const UNUSED: u32 = u32::MAX;
pub const TABLE_AT: u64 = 1536;

/// A dynamic disk, or a differencing one where it has a parent.
#[derive(Clone)]
pub struct Forge {
    pub size: u64,
    pub creator: [u8; 4],
    pub block_size: u32,
    pub max_table_entries: u32,
    pub id: [u8; 16],
    pub parent: Option<[u8; 16]>,
    pub parent_name: String,
    /// Platform code and path.
    pub locators: Vec<([u8; 4], Vec<u8>)>,
    /// Table entries, sectors.
    pub bat: Vec<u32>,
    /// Bytes by place in the file.
    pub bytes: Vec<(u64, Vec<u8>)>,
    pub file_len: u64,
}

impl Forge {
    pub fn new(size: u64, block_size: u32) -> Forge {
        let blocks = size.div_ceil(u64::from(block_size));
        Forge {
            size,
            creator: *b"win ",
            block_size,
            max_table_entries: blocks as u32,
            id: [block_size as u8 ^ 0x77; 16],
            parent: None,
            parent_name: String::new(),
            locators: Vec::new(),
            bat: vec![UNUSED; blocks as usize],
            bytes: Vec::new(),
            file_len: (TABLE_AT + 4 * blocks).next_multiple_of(512) + 8 * 512,
        }
    }

    pub fn bitmap_bytes(&self) -> u64 {
        u64::from(self.block_size).div_ceil(512 * 8).next_multiple_of(512)
    }

    /// Gives a block a place of its own; the bitmap has one bit per sector, most significant first.
    pub fn put_block(&mut self, block: usize, bitmap: Vec<u8>, content: Vec<u8>) {
        let at = self.file_len;
        self.bat[block] = (at / 512) as u32;
        self.bytes.push((at, bitmap));
        self.bytes.push((at + self.bitmap_bytes(), content));
        self.file_len += self.bitmap_bytes() + u64::from(self.block_size);
    }

    pub fn footer(&self) -> Vec<u8> {
        footer(self.size, self.creator, if self.parent.is_some() { 4 } else { 3 }, 512, self.id)
    }

    pub fn write(&self, path: &Path) {
        let file = File::create(path).unwrap();
        let put = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).unwrap();
        file.set_len(self.file_len).unwrap();
        put(0, &self.footer());
        put(self.file_len, &self.footer());
        let mut header = b"cxsparse".to_vec();
        header.extend([0xFF; 8]);
        header.extend(TABLE_AT.to_be_bytes());
        header.extend(0x10000u32.to_be_bytes());
        header.extend(self.max_table_entries.to_be_bytes());
        header.extend(self.block_size.to_be_bytes());
        header.extend([0; 4]);
        header.extend(self.parent.unwrap_or_default());
        header.extend([0; 8]);
        header.extend(self.parent_name.encode_utf16().flat_map(u16::to_be_bytes));
        header.resize(576, 0);
        // The paths lie in the gap behind the table.
        let paths_at = (TABLE_AT + 4 * self.bat.len() as u64).next_multiple_of(512);
        for (n, (platform, text)) in self.locators.iter().enumerate() {
            header.extend(platform);
            header.extend(512u32.to_be_bytes());
            header.extend((text.len() as u32).to_be_bytes());
            header.extend([0; 4]);
            header.extend((paths_at + 512 * n as u64).to_be_bytes());
            put(paths_at + 512 * n as u64, text);
        }
        header.resize(1024, 0);
        put(512, &sealed(header, 36));
        let table: Vec<u8> = self.bat.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        put(TABLE_AT, &table);
        for (at, bytes) in &self.bytes {
            put(*at, bytes);
        }
    }
}

pub fn footer(size: u64, creator: [u8; 4], kind: u32, data_offset: u64, id: [u8; 16]) -> Vec<u8> {
    let mut footer = b"conectix".to_vec();
    footer.extend(2u32.to_be_bytes());
    footer.extend(0x10000u32.to_be_bytes());
    footer.extend(data_offset.to_be_bytes());
    footer.extend([0; 4]);
    footer.extend(creator);
    footer.extend(0x10000u32.to_be_bytes());
    footer.extend(b"Wi2k");
    footer.extend(size.to_be_bytes());
    footer.extend(size.to_be_bytes());
    // What the sizes of these tests give that are made of whole cylinders.
    let cylinders = size / 512 / 17 / 4;
    footer.extend((cylinders.min(1023) as u16).to_be_bytes());
    footer.extend([4, 17]);
    footer.extend(kind.to_be_bytes());
    footer.extend([0; 4]);
    footer.extend(id);
    footer.resize(512, 0);
    sealed(footer, 64)
}

/// With the checksum at byte `at`.
pub fn sealed(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at..at + 4].fill(0);
    let sum = !bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

pub fn utf16_le(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
