//! Compressed grains, as many threads at once as there are.
//!
//! ```text
//! lba 0 (u64, first guest sector) | size 8 (u32, bytes of data) | data 12: one zlib stream | zeros to the sector's end
//! ```

use crate::deflate::Fastest;
use crate::error::{Error, Result};
use crate::sink::{Encoded, Piece};
use crate::units::{Bytes, GuestRange, SECTOR_SIZE_BYTES};
use libdeflater::{CompressionLvl, Compressor};
use std::sync::{Mutex, PoisonError};

/// The least work, and the one level that is our own compressor's; the others are libdeflate's. On a guest's system disk a
/// tenth larger than what zlib makes at its usual level 6, in a thirtieth of the time.
const DEFAULT_LEVEL: i32 = 1;

/// Levels up to this one do not try to compress what looks random. Such grains (archives, images, encrypted
/// data) are where the compressor is slowest: a seventh of a usual disk took a fifth of the time.
const SKIP_UP_TO_LEVEL: i32 = 4;

const MARKER_BYTES: usize = 12;

/// Compresses runs into grains.
pub(super) struct Packer {
    /// Of libdeflate; none is the first level.
    level: Option<CompressionLvl>,
    skip_random: bool,
    grain: usize,
    /// One for each thread that ever worked at the same time.
    idle: Mutex<Vec<Tool>>,
}

/// What one thread needs.
struct Tool {
    /// At all levels but the first.
    compressor: Option<Compressor>,
    fastest: Fastest,
    /// Room for one grain that does not get smaller.
    out: Vec<u8>,
    /// The last grain of a disk, filled up with zeros.
    padded: Vec<u8>,
}

impl Packer {
    /// For grains of `grain`, at a level from 1 to 12.
    pub(super) fn new(grain: Bytes, level: Option<i32>) -> Result<Packer> {
        let level = level.unwrap_or(DEFAULT_LEVEL);
        let refused = || Error::refused(format!("zlib has no level {level}; 1 to 12 are possible"));
        let known = CompressionLvl::new(level).map_err(|_| refused())?;
        if !(1..=12).contains(&level) {
            return Err(refused()); // libdeflate's 0 stores
        }
        Ok(Packer {
            level: (level > 1).then_some(known),
            skip_random: level <= SKIP_UP_TO_LEVEL,
            grain: grain.to_usize().unwrap_or(usize::MAX),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// The run as compressed grains, each with its marker and filled up to a sector.
    pub(super) fn pack(&self, range: GuestRange, content: &[u8]) -> Result<Encoded> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut tool = idle.unwrap_or_else(|| {
            let mut compressor = self.level.map(Compressor::new);
            let others =
                compressor.as_mut().map_or(0, |compressor| compressor.zlib_compress_bound(self.grain));
            let room = Fastest::bound(self.grain).max(others);
            Tool { compressor, fastest: Fastest::new(), out: vec![0; room], padded: Vec::new() }
        });
        let packed = self.pack_with(&mut tool, range, content);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(tool);
        packed
    }

    fn pack_with(&self, tool: &mut Tool, range: GuestRange, content: &[u8]) -> Result<Encoded> {
        let Tool { compressor, fastest, out, padded } = tool;
        let grains = content.len().div_ceil(self.grain);
        // Untouched memory costs nothing; growing would copy.
        let mut bytes = Vec::with_capacity(content.len().saturating_add(grains.saturating_mul(1024)));
        let mut pieces = Vec::with_capacity(grains);
        let mut lba = range.start().0 / SECTOR_SIZE_BYTES;
        for part in content.chunks(self.grain) {
            // Every grain inflates to a whole one, also the last: readers want to fill their buffer.
            let whole = if part.len() == self.grain {
                part
            } else {
                padded.clear();
                padded.extend_from_slice(part);
                padded.resize(self.grain, 0);
                padded.as_slice()
            };
            let len = match compressor {
                _ if self.skip_random && looks_random(whole) => fastest.zlib_stored(whole, out),
                None => fastest.zlib(whole, out),
                Some(compressor) => compressor.zlib_compress(whole, out).map_err(|e| {
                    Error::refused(format!("the compressor wants more room than its bound: {e}"))
                })?,
            };
            let size = u32::try_from(len)
                .map_err(|_| Error::refused(format!("a compressed grain of {len} bytes has no marker")))?;
            let start = bytes.len();
            bytes.extend_from_slice(&lba.to_le_bytes());
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.extend_from_slice(out.get(..len).unwrap_or_default());
            let filled = (MARKER_BYTES + len).next_multiple_of(512);
            bytes.resize(start + filled, 0);
            pieces.push(Piece { len: filled, verbatim: false });
            lba += self.grain as u64 / SECTOR_SIZE_BYTES;
        }
        Ok(Encoded { bytes, pieces })
    }
}

/// True where every value of a byte is about as frequent as any other, in a sample of an eighth of the bytes.
fn looks_random(grain: &[u8]) -> bool {
    let (mut even, mut odd) = ([0u32; 256], [0u32; 256]);
    for bytes in grain.chunks_exact(16) {
        // Two counters, so that the same byte twice in a row need not wait.
        even[usize::from(bytes[3])] += 1;
        odd[usize::from(bytes[12])] += 1;
    }
    let samples = (grain.len() / 16 * 2) as u64;
    let squares: u64 = even.iter().zip(&odd).map(|(a, b)| u64::from(a + b).pow(2)).sum();
    // Of random bytes the sum is 1.03 times the least that is possible; of machine code it is 8 times that.
    samples > 4096 && squares * 256 * 10 < samples * samples * 11
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{noise_bytes, text_bytes};

    #[test]
    fn what_looks_random_is_stored_at_low_levels_only_and_always_legal() {
        use std::io::Read;
        // Random, but the same again and again: a thorough compressor finds that.
        let twice: Vec<u8> = noise_bytes(1, 20_003).into_iter().cycle().take(65_536).collect();
        let noise = noise_bytes(2, 65_536);
        assert!(looks_random(&noise) && looks_random(&twice));
        assert!(!looks_random(&text_bytes(1, 65_536)) && !looks_random(&[0; 65_536]));
        for (level, smaller) in [(1, false), (4, false), (5, true), (12, true)] {
            let packer = Packer::new(Bytes::kib(64), Some(level)).unwrap();
            for (content, smaller) in [(&noise, false), (&twice, smaller)] {
                let range = GuestRange::new(crate::GuestOffset(1 << 20), Bytes(65_536));
                let packed = packer.pack(range, content).unwrap();
                assert_eq!(packed.bytes.len(), packed.pieces[0].len);
                assert_eq!(packed.bytes.len() < 128 * 512, smaller, "level {level}");
                assert!(packed.bytes.len() <= 129 * 512);
                let size = u32::from_le_bytes(packed.bytes[8..12].try_into().unwrap()) as usize;
                let mut read = Vec::new();
                flate2::read::ZlibDecoder::new(&packed.bytes[12..12 + size]).read_to_end(&mut read).unwrap();
                assert!(read == *content);
            }
        }
    }
}
