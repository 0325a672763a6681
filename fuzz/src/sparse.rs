//! How a file of many MiB that is mostly holes becomes an input of some KiB that a fuzzer can work on.
//!
//! ```text
//! 0 flags | 1 windows n | 2..8 length of the file in bytes, little-endian | n times: sector 4, sectors 2 | contents
//! ```
//!
//! The contents of the windows follow in their order; the last one takes what is left. Any bytes are an input.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const SECTOR: u64 = 512;
const HEAD: usize = 8;
const WINDOW: usize = 6;
/// Longest file that is made. What takes time in proportion to a file's length, as checks do, is no finding.
pub const LENGTH_MAX: u64 = 1 << 28;

/// The checksums of the formats are made right before the file is used.
pub const REPAIR: u8 = 1;
/// The format is not told.
pub const PROBE: u8 = 2;

/// A file: its length, and what lies in it where.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    pub repair: bool,
    pub len: u64,
    pub windows: Vec<(u64, Vec<u8>)>,
}

impl Sparse {
    /// Any bytes are a file.
    pub fn decode(input: &[u8]) -> Sparse {
        let mut head = [0; HEAD];
        let n = input.len().min(HEAD);
        head[..n].copy_from_slice(&input[..n]);
        let mut len = [0; 8];
        len[..6].copy_from_slice(&head[2..8]);
        let len = u64::from_le_bytes(len) % LENGTH_MAX;
        let table = input.get(HEAD..).unwrap_or_default();
        let count = usize::from(head[1]).min(table.len() / WINDOW);
        let (table, mut rest) = table.split_at(count * WINDOW);
        let mut windows = Vec::new();
        for (n, window) in table.as_chunks::<WINDOW>().0.iter().enumerate() {
            let [a, b, c, d, e, f] = *window;
            let at = u64::from(u32::from_le_bytes([a, b, c, d])) * SECTOR;
            let wanted = usize::from(u16::from_le_bytes([e, f])) * 512;
            let take = if n + 1 == count { rest.len() } else { wanted.min(rest.len()) };
            let (bytes, after) = rest.split_at(take);
            rest = after;
            let fits = usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
            if fits > 0 {
                windows.push((at, bytes[..fits].to_vec()));
            }
        }
        Sparse { repair: head[0] & REPAIR != 0, len, windows }
    }

    /// The sectors of a file that are not zeros. `None` where they do not fit `limit` bytes of input.
    pub fn from_file(file: &File, limit: usize) -> io::Result<Option<Sparse>> {
        let len = file.metadata()?.len();
        let mut windows: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut total = 0;
        let mut block = vec![0; 1 << 20];
        let mut at = 0;
        while at < len {
            let n = usize::try_from(len - at).unwrap_or(usize::MAX).min(block.len());
            file.read_exact_at(&mut block[..n], at)?;
            for (number, sector) in block[..n].chunks(512).enumerate() {
                if sector.iter().all(|&byte| byte == 0) {
                    continue;
                }
                let here = at + number as u64 * SECTOR;
                total += sector.len();
                match windows.last_mut() {
                    // A gap of a few sectors costs less than a window.
                    Some((start, bytes))
                        if here - (*start + bytes.len() as u64) <= 4 * SECTOR && bytes.len() < 16 << 20 =>
                    {
                        bytes.resize(usize::try_from(here - *start).unwrap_or(0), 0);
                        bytes.extend_from_slice(sector);
                    }
                    _ => windows.push((here, sector.to_vec())),
                }
            }
            if total > limit {
                return Ok(None);
            }
            at += n as u64;
        }
        Ok((windows.len() <= 255 && len < LENGTH_MAX).then_some(Sparse { repair: true, len, windows }))
    }

    /// The input that [`decode`](Self::decode)s to this.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.repair), u8::try_from(self.windows.len()).unwrap_or(255)];
        out.extend_from_slice(&self.len.to_le_bytes()[..6]);
        for (at, bytes) in &self.windows {
            out.extend_from_slice(&u32::try_from(at / SECTOR).unwrap_or(u32::MAX).to_le_bytes());
            let sectors = bytes.len().div_ceil(512);
            out.extend_from_slice(&u16::try_from(sectors).unwrap_or(u16::MAX).to_le_bytes());
        }
        for (_, bytes) in &self.windows {
            out.extend_from_slice(bytes);
            // Whole sectors, but for the last window, which takes what is there.
            out.resize(out.len() + bytes.len().next_multiple_of(512) - bytes.len(), 0);
        }
        out
    }

    /// Makes `file` this file.
    pub fn write(&self, file: &File) -> io::Result<()> {
        file.set_len(0)?;
        file.set_len(self.len)?;
        for (at, bytes) in &self.windows {
            file.write_all_at(bytes, *at)?;
        }
        Ok(())
    }
}
