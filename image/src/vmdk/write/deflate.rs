//! Compressed grains, as many threads at once as there are.
//!
//! ```text
//! lba 0 (u64, first guest sector) | size 8 (u32, bytes of data) | data 12: one zlib stream | zeros to the sector's end
//! ```

use crate::error::{Error, Result};
use crate::sink::{Encoded, Piece};
use crate::units::{Bytes, GuestRange, SECTOR_SIZE_BYTES};
use libdeflater::{CompressionLvl, Compressor};
use std::sync::{Mutex, PoisonError};

/// The least work: twenty times as fast as zlib at its usual level 6, and some percent larger.
const DEFAULT_LEVEL: i32 = 1;

const MARKER_BYTES: usize = 12;

/// Compresses runs into grains.
pub(super) struct Packer {
    level: CompressionLvl,
    grain: usize,
    /// One for each thread that ever worked at the same time.
    idle: Mutex<Vec<Tool>>,
}

/// What one thread needs.
struct Tool {
    compressor: Compressor,
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
            level: known,
            grain: grain.to_usize().unwrap_or(usize::MAX),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// The run as compressed grains, each with its marker and filled up to a sector.
    pub(super) fn pack(&self, range: GuestRange, content: &[u8]) -> Result<Encoded> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut tool = idle.unwrap_or_else(|| {
            let mut compressor = Compressor::new(self.level);
            let room = compressor.zlib_compress_bound(self.grain);
            Tool { compressor, out: vec![0; room], padded: Vec::new() }
        });
        let packed = self.pack_with(&mut tool, range, content);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(tool);
        packed
    }

    fn pack_with(&self, tool: &mut Tool, range: GuestRange, content: &[u8]) -> Result<Encoded> {
        let Tool { compressor, out, padded } = tool;
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
            let len = compressor
                .zlib_compress(whole, out)
                .map_err(|e| Error::refused(format!("the compressor wants more room than its bound: {e}")))?;
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
