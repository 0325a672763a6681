//! A buffer is a sequence of archives, each plain or compressed, with NUL bytes between them.
//!
//! ```text
//! [ newc: microcode ] 0… [ newc: modules ] 0… [ zstd( newc newc … ) ]
//!   at a multiple of 4     at a multiple of 4    anywhere
//! ```
//!
//! The rules are those of the kernel's `unpack_to_rootfs` (init/initramfs.c).

use super::compress::{self, Compressor};
use super::cpio::{self, Entry};
use super::limits;
use crate::{Error, Result};
use landfall_image::{Bytes, FileOffset};
use std::ops::Range;

/// One archive of a buffer; a compressed one may hold several.
#[derive(Debug)]
pub struct Segment {
    /// Where it lies in the buffer, padding behind it not counted.
    pub range: Range<usize>,
    /// How it is packed.
    pub compressor: Compressor,
    /// What was unpacked; `None` for a plain archive, which is read where it lies.
    unpacked: Option<Vec<u8>>,
}

impl Segment {
    /// The archives in it, one list of entries each. `buffer` is the one that it was split from.
    pub fn archives<'a>(&'a self, buffer: &'a [u8]) -> Result<Vec<Vec<Entry<'a>>>> {
        match &self.unpacked {
            None => Ok(vec![cpio::parse(buffer, self.range.start)?.0]),
            Some(unpacked) => {
                let mut archives = Vec::new();
                let mut at = 0;
                while let Some(start) = skip_nuls(unpacked, at) {
                    check_start(unpacked, start)?;
                    let (entries, end) = cpio::parse(unpacked, start)?;
                    archives.push(entries);
                    if archives.len() > limits::SEGMENTS {
                        return Err(too_many());
                    }
                    at = end;
                }
                Ok(archives)
            }
        }
    }

    /// Bytes of its archives, unpacked.
    pub fn unpacked_size(&self) -> Bytes {
        Bytes(self.unpacked.as_ref().map_or(self.range.len(), Vec::len) as u64)
    }
}

/// Splits a buffer and unpacks what is compressed.
///
/// # Errors
/// `Unsupported` for what is recognised but not handled, `Corrupt` for damage or junk between the archives, `Refused`
/// beyond [`limits`].
pub fn split(buffer: &[u8]) -> Result<Vec<Segment>> {
    if buffer.len() as u64 > limits::ARCHIVE.0 {
        let (size, bound) = (Bytes(buffer.len() as u64), limits::ARCHIVE);
        return Err(Error::refused(format!("the initramfs has {size}; at most {bound} are read")));
    }
    let mut segments = Vec::new();
    let mut left = limits::UNPACKED.0;
    let mut at = 0;
    while let Some(start) = skip_nuls(buffer, at) {
        if segments.len() >= limits::SEGMENTS {
            return Err(too_many());
        }
        let bytes = buffer.get(start..).unwrap_or_default();
        let segment = match Compressor::detect(bytes) {
            None => {
                check_start(buffer, start)?;
                Segment {
                    range: start..cpio::parse(buffer, start)?.1,
                    compressor: Compressor::None,
                    unpacked: None,
                }
            }
            Some(compressor) => {
                let (unpacked, taken) = compress::unpack(compressor, bytes, Bytes(left))
                    .map_err(|e| e.at(FileOffset(start as u64)))?;
                let end = start.saturating_add(taken.max(1));
                Segment { range: start..end, compressor, unpacked: Some(unpacked) }
            }
        };
        at = segment.range.end;
        left = left.saturating_sub(segment.unpacked_size().0);
        segments.push(segment);
    }
    if segments.is_empty() {
        return Err(Error::corrupt("the initramfs is empty"));
    }
    Ok(segments)
}

/// The next byte that is not NUL.
fn skip_nuls(buffer: &[u8], at: usize) -> Option<usize> {
    buffer.get(at..)?.iter().position(|byte| *byte != 0).map(|gap| at + gap)
}

/// An archive starts with its magic, at a multiple of 4.
fn check_start(buffer: &[u8], start: usize) -> Result<()> {
    let head = buffer.get(start..).unwrap_or_default();
    let at = FileOffset(start as u64);
    if matches!(head, [0xc7, 0x71, ..] | [0x71, 0xc7, ..]) {
        let says = "the archive is cpio of the bin flavour; the kernel takes newc and crc";
        return Err(Error::unsupported(says).at(at));
    }
    if head.first() != Some(&b'0') {
        let head = head.iter().take(6).map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
        return Err(Error::corrupt(format!(
            "neither a cpio archive nor a known compression starts with {head}"
        ))
        .at(at)
        .hint("an initial RAM disk that holds a file system instead of an archive is not handled"));
    }
    if !start.is_multiple_of(4) {
        return Err(Error::corrupt("a plain cpio archive must start at a multiple of 4 bytes").at(at));
    }
    Ok(())
}

fn too_many() -> Error {
    Error::refused(format!("the initramfs has more than {} archives one behind the other", limits::SEGMENTS))
}
