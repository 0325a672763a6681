//! Makes the checksums of a mutated file right, so that the fuzzer gets past them.

use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;

fn read(file: &File, at: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
}

fn field32(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
    u32::from_le_bytes(field.unwrap_or_default())
}

fn field64(bytes: &[u8], at: usize) -> u64 {
    u64::from(field32(bytes, at)) | u64::from(field32(bytes, at + 4)) << 32
}

/// All formats that have checksums; others are left alone.
pub fn all(file: &File) {
    let len = file.metadata().map(|meta| meta.len()).unwrap_or(0);
    let head = read(file, 0, 8).unwrap_or_default();
    if head == b"vhdxfile" {
        vhdx(file);
    }
    if head.starts_with(b"LUKS\xba\xbe") {
        luks(file);
    }
    vhd(file, len);
    gpt(file, len);
}

fn crc32c(file: &File, at: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = read(file, at, len)?;
    bytes[4..8].fill(0);
    let sum = crc32c::crc32c(&bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    file.write_all_at(&sum.to_le_bytes(), at + 4).ok()?;
    Some(bytes)
}

/// Both headers, both region tables, and the entries of the log that begin where one may.
pub fn vhdx(file: &File) {
    for at in [64 << 10, 128 << 10] {
        let Some(header) = crc32c(file, at, 4096) else { continue };
        let log_len = u64::from(field32(&header, 68)).min(64 << 10);
        let log_at = field64(&header, 72);
        for at in (0..log_len).step_by(4096) {
            let Some(at) = log_at.checked_add(at) else { break };
            let Some(head) = read(file, at, 64) else { break };
            let entry = field32(&head, 8);
            if &head[..4] == b"loge" && entry >= 64 && u64::from(entry) <= log_len {
                crc32c(file, at, usize::try_from(entry).unwrap_or(0));
            }
        }
    }
    for at in [192 << 10, 256 << 10] {
        crc32c(file, at, 64 << 10);
    }
}

/// The complement of the sum of all bytes but those of the sum itself.
fn complement(file: &File, at: u64, len: usize, field: usize, magic: &[u8; 8]) -> Option<Vec<u8>> {
    let mut bytes = read(file, at, len)?;
    if &bytes[..8] != magic {
        return None;
    }
    bytes[field..field + 4].fill(0);
    let sum = bytes.iter().fold(0u32, |sum, &byte| sum.wrapping_add(u32::from(byte)));
    file.write_all_at(&(!sum).to_be_bytes(), at + field as u64).ok()?;
    Some(bytes)
}

/// The footer, its copy at the start, and the dynamic header that they point at.
pub fn vhd(file: &File, len: u64) {
    for at in [Some(0), len.checked_sub(512), len.checked_sub(511)].into_iter().flatten() {
        let Some(footer) = complement(file, at, 512, 64, b"conectix") else { continue };
        let field = footer[16..24].try_into().unwrap_or_default();
        complement(file, u64::from_be_bytes(field), 1024, 36, b"cxsparse");
    }
}

/// Headers in the second and in the last sector, of either size, with their entries.
pub fn gpt(file: &File, len: u64) {
    for sector in [512u64, 4096] {
        for at in [Some(sector), len.checked_sub(sector)].into_iter().flatten() {
            let Some(mut header) = read(file, at, 512) else { continue };
            if &header[..8] != b"EFI PART" {
                continue;
            }
            let number = u64::from(field32(&header, 80));
            let bytes = number.saturating_mul(u64::from(field32(&header, 84)));
            let entries = field64(&header, 72).saturating_mul(sector);
            if let Some(entries) =
                usize::try_from(bytes.min(1 << 20)).ok().and_then(|n| read(file, entries, n))
            {
                let sum = crc32fast::hash(&entries).to_le_bytes();
                header[88..92].copy_from_slice(&sum);
                let _ = file.write_all_at(&sum, at + 88);
            }
            let size = usize::try_from(field32(&header, 12)).unwrap_or(0).clamp(92, 512);
            header[16..20].fill(0);
            let sum = crc32fast::hash(&header[..size]).to_le_bytes();
            let _ = file.write_all_at(&sum, at + 16);
        }
    }
}

/// The checksums of LUKS 2, and in both versions what makes the derivation of a key slow: a header may ask for minutes of
/// it, as its limit says.
pub fn luks(file: &File) {
    let iterations = |at: u64| file.write_all_at(&3u32.to_be_bytes(), at);
    if read(file, 6, 2).as_deref() == Some(&[0, 1]) {
        for slot in 0..8 {
            let _ = iterations(208 + 48 * slot + 4);
        }
        let _ = iterations(164);
        return;
    }
    let Some(head) = read(file, 0, 16) else { return };
    let len = u32::from_be_bytes(head[12..16].try_into().unwrap_or_default());
    if !(4096..=1 << 20).contains(&len) {
        return;
    }
    for at in [0, u64::from(len)] {
        let Some(mut area) = read(file, at, len as usize) else { continue };
        for (name, value) in [("\"iterations\":", 3), ("\"time\":", 1), ("\"memory\":", 32), ("\"cpus\":", 1)]
        {
            cap(&mut area, name.as_bytes(), value);
        }
        area[448..512].fill(0);
        let sum = Sha256::digest(&area);
        area[448..480].copy_from_slice(&sum);
        let _ = file.write_all_at(&area, at);
    }
}

/// Makes the numbers that follow `name` at most `value`, in their place.
fn cap(text: &mut [u8], name: &[u8], value: u8) {
    let mut at = 0;
    while let Some(found) = text[at..].windows(name.len()).position(|window| window == name) {
        at += found + name.len();
        let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let shown = value.to_string();
        if digits > shown.len() {
            text[at..at + digits].fill(b' ');
            text[at..at + shown.len()].copy_from_slice(shown.as_bytes());
        }
    }
}
