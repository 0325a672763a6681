//! Small images made byte by byte from the specification, for what qemu-img does not write.

#![allow(clippy::cast_possible_truncation, reason = "small numbers chosen here, and bytes of a pattern")]

use libdeflater::{CompressionLvl, Compressor};

pub(super) const SECTOR: usize = 512;

/// Puts `bytes` at `at`, growing the file with zeros.
pub(super) fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(super) fn put32(file: &mut Vec<u8>, at: usize, value: usize) {
    put(file, at, &u32::try_from(value).unwrap().to_le_bytes());
}

pub(super) fn put64(file: &mut Vec<u8>, at: usize, value: u64) {
    put(file, at, &value.to_le_bytes());
}

/// The content of grain `index` in these images: never all zeros, no two grains alike.
pub(super) fn grain_content(index: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 + index * 31 + 1) as u8).collect()
}

pub(super) fn zlib(data: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::default());
    let mut out = vec![0; compressor.zlib_compress_bound(data.len())];
    let len = compressor.zlib_compress(data, &mut out).unwrap();
    out.truncate(len);
    out
}

pub(super) fn descriptor(create_type: &str, extents: &str, more: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=0000abcd\nparentCID=ffffffff\ncreateType=\"{create_type}\"\n{more}\n{extents}\n"
    )
}

/// The header of a hosted extent.
fn hosted_header(
    version: usize,
    flags: usize,
    capacity: usize,
    grain: usize,
    places: [u64; 3],
    zlib: bool,
) -> Vec<u8> {
    let mut out = vec![0; SECTOR];
    put(&mut out, 0, b"KDMV");
    put32(&mut out, 4, version);
    put32(&mut out, 8, flags);
    put64(&mut out, 12, capacity as u64);
    put64(&mut out, 20, grain as u64);
    put64(&mut out, 28, 1); // descriptor at sector 1
    put64(&mut out, 36, 2); // two sectors
    put32(&mut out, 44, 512);
    let [redundant, directory, overhead] = places;
    put64(&mut out, 48, redundant);
    put64(&mut out, 56, directory);
    put64(&mut out, 64, overhead);
    put(&mut out, 73, b"\n \r\n");
    put(&mut out, 77, &[u8::from(zlib), 0]);
    out
}

/// Guest sectors of the images below: 600 grains of 8 sectors (two tables), the last cut to 3 sectors.
pub(super) const SECTORS: usize = 599 * 8 + 3;
pub(super) const GRAIN: usize = 8;
/// Stored grains: runs, single ones, out of order, at the ends of tables and disk.
pub(super) const STORED: [usize; 9] = [0, 1, 2, 9, 5, 510, 511, 512, 599];
/// Stored as zeros where the kind can.
pub(super) const ZEROED: [usize; 2] = [3, 513];

/// What the guest of those images reads.
pub(super) fn guest() -> Vec<u8> {
    let mut out = vec![0; 600 * GRAIN * SECTOR];
    for index in STORED {
        put(&mut out, index * GRAIN * SECTOR, &grain_content(index, GRAIN * SECTOR));
    }
    out.truncate(SECTORS * SECTOR);
    out
}

/// A monolithicSparse image, with redundant tables and zeroed grains.
pub(super) fn sparse() -> Vec<u8> {
    let (redundant, redundant_tables, directory, tables, data) = (3, 4, 12, 13, 24);
    let mut out = hosted_header(2, 7, SECTORS, GRAIN, [redundant, directory, data], false);
    let text = descriptor("monolithicSparse", &format!("RW {SECTORS} SPARSE \"x.vmdk\""), "");
    put(&mut out, SECTOR, text.as_bytes());
    for (directory, tables) in [(redundant as usize, redundant_tables), (directory as usize, tables)] {
        for table in 0..2 {
            put32(&mut out, directory * SECTOR + table * 4, tables + table * 4);
        }
        for (place, index) in STORED.iter().enumerate() {
            put32(&mut out, tables * SECTOR + index * 4, data as usize + place * GRAIN);
        }
        for index in ZEROED {
            put32(&mut out, tables * SECTOR + index * 4, 1);
        }
    }
    for (place, index) in STORED.iter().enumerate() {
        put(&mut out, (data as usize + place * GRAIN) * SECTOR, &grain_content(*index, GRAIN * SECTOR));
    }
    out
}

/// A streamOptimized image as ESXi exports it: directory behind the grains, footer.
pub(super) fn stream(version: usize) -> Vec<u8> {
    let flags = 0x3_0001;
    let mut out = hosted_header(version, flags, SECTORS, GRAIN, [0, u64::MAX, 4], true);
    let text =
        descriptor("streamOptimized", &format!("RDONLY {SECTORS} SPARSE \"generated-stream.vmdk\""), "");
    put(&mut out, SECTOR, text.as_bytes());
    out.resize(4 * SECTOR, 0);
    let pad = |out: &mut Vec<u8>| out.resize(out.len().next_multiple_of(SECTOR), 0);
    let marker = |out: &mut Vec<u8>, sectors: u64, kind: usize| {
        let at = out.len();
        put64(out, at, sectors);
        put32(out, at + 8, 0);
        put32(out, at + 12, kind);
        out.resize(at + SECTOR, 0);
    };
    let mut sorted = STORED;
    sorted.sort_unstable();
    let mut tables = vec![vec![0; 2048]; 2];
    for index in sorted {
        let data = zlib(&grain_content(index, GRAIN * SECTOR));
        let at = out.len();
        put32(&mut tables[index / 512], index % 512 * 4, at / SECTOR);
        put64(&mut out, at, (index * GRAIN) as u64);
        put32(&mut out, at + 8, data.len());
        put(&mut out, at + 12, &data);
        pad(&mut out);
    }
    let mut directory = vec![0; 8];
    for (index, table) in tables.iter().enumerate() {
        marker(&mut out, 4, 1);
        put32(&mut directory, index * 4, out.len() / SECTOR);
        out.extend_from_slice(table);
    }
    marker(&mut out, 1, 2);
    let directory_at = out.len() / SECTOR;
    out.extend_from_slice(&directory);
    pad(&mut out);
    marker(&mut out, 1, 3);
    out.extend(hosted_header(version, flags, SECTORS, GRAIN, [0, directory_at as u64, 4], true));
    marker(&mut out, 0, 0);
    out
}

/// A COWD extent of 5000 sectors (two tables) in grains of one sector; `stored` are its grains.
pub(super) fn cowd(stored: &[usize]) -> Vec<u8> {
    let mut out = vec![0; 4 * SECTOR];
    put(&mut out, 0, b"COWD");
    for (at, value) in [(4, 1), (8, 3), (12, 5000), (16, 1), (20, 4), (24, 2), (28, 100)] {
        put32(&mut out, at, value);
    }
    put32(&mut out, 4 * SECTOR, 5);
    put32(&mut out, 4 * SECTOR + 4, 5 + 32);
    out.resize((5 + 64) * SECTOR, 0);
    for (place, index) in stored.iter().enumerate() {
        put32(&mut out, 5 * SECTOR + index * 4, 69 + place);
        put(&mut out, (69 + place) * SECTOR, &grain_content(*index, SECTOR));
    }
    out
}

/// A seSparse extent of 5000 grains of 4 KiB (two tables, the second one first in the file).
pub(super) fn sesparse(stored: &[usize], zeroed: &[(usize, u64)]) -> Vec<u8> {
    let (volatile, directory, tables, grains) = (1u64, 2u64, 8u64, 136u64);
    let mut out = vec![0; grains as usize * SECTOR];
    for (at, value) in [
        (0, 0xcafe_babe),
        (8, 0x2_0000_0001),
        (16, 5000 * 8),
        (24, 8),
        (32, 64),
        (80, volatile),
        (88, 1),
        (96, 3),
        (104, 1),
        (112, 4),
        (120, 1),
        (128, directory),
        (136, 1),
        (144, tables),
        (152, 128),
        (160, 5),
        (168, 1),
        (176, 6),
        (184, 1),
        (192, grains),
        (200, 5000 * 8),
    ] {
        put64(&mut out, at, value);
    }
    put64(&mut out, volatile as usize * SECTOR, 0xcafe_cafe);
    for (table, number) in [(0, 1u64), (1, 0)] {
        put64(&mut out, directory as usize * SECTOR + table * 8, 0x1000_0000_0000_0000 | number);
    }
    let entry = |out: &mut Vec<u8>, index: usize, value: u64| {
        let table = if index < 4096 { 1 } else { 0 };
        put64(out, (tables as usize + table * 64) * SECTOR + index % 4096 * 8, value);
    };
    for (place, index) in stored.iter().enumerate() {
        // The lowest twelve bits of the grain's number are in bits 48 to 60.
        entry(&mut out, *index, 3 << 60 | (place as u64 & 0xfff) << 48 | place as u64 >> 12);
        put(&mut out, (grains as usize + place * 8) * SECTOR, &grain_content(*index, 4096));
    }
    for (index, kind) in zeroed {
        entry(&mut out, *index, kind << 60);
    }
    out
}
