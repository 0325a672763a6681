//! LZO in the file format of lzop, as the kernel unpacks it (lib/decompress_unlzo.c). All numbers are big-endian.
//!
//! ```text
//!  0 magic (9 bytes)   9 version u16   11 library u16   13 version needed u16 *   15 method u8   16 level u8 *
//! 17 flags u32 [filter u32] mode u32, time u32, time u32 *, length of name u8, name, check sum u32
//!    [extra: length u32, data, check sum u32]          * only from version 0x0940 on
//! then blocks: unpacked size u32 (0 is the end), packed size u32, check sums u32 as the flags say, data
//! ```
//!
//! The kernel knows blocks of at most 256 KiB with one check sum, the Adler-32 of what is unpacked: such are written.

use crate::{Error, Result};
use landfall_image::FileOffset;

/// Begins every file.
pub const MAGIC: &[u8] = &[0x89, b'L', b'Z', b'O', 0, b'\r', b'\n', 0x1a, b'\n'];

/// Unpacked size of a block: the most that the kernel takes (LZO_BLOCK_SIZE).
pub const BLOCK: usize = 256 << 10;

const ADLER32_UNPACKED: u32 = 0x1;
const ADLER32_PACKED: u32 = 0x2;
const EXTRA: u32 = 0x40;
const CRC32_UNPACKED: u32 = 0x100;
const CRC32_PACKED: u32 = 0x200;
const FILTER: u32 = 0x800;
/// The version that brought the fields marked above.
const LONG_HEADER: u16 = 0x0940;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| {
            let left = self.bytes.len().saturating_sub(self.at);
            Error::corrupt(format!("the lzo data is cut off: {count} bytes wanted, {left} left"))
                .at(FileOffset(self.at as u64))
        })?;
        self.at = self.at.saturating_add(count);
        Ok(taken)
    }
    fn number(&mut self, size_bytes: usize) -> Result<u32> {
        Ok(self.take(size_bytes)?.iter().fold(0, |sum, byte| (sum << 8) | u32::from(*byte)))
    }
}

/// Unpacks the file at the start of `bytes`; at most `at_most` bytes and one block more. Gives the content and the
/// position behind the file.
///
/// # Errors
/// `Corrupt` for damage, `Unsupported` for a filter (no kernel undoes it).
pub fn unpack(bytes: &[u8], at_most: u64) -> Result<(Vec<u8>, usize)> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(Error::corrupt("the lzo data does not begin with lzop's magic"));
    }
    let is_long = reader.number(2)? >= u32::from(LONG_HEADER);
    reader.take(if is_long { 4 } else { 2 })?;
    reader.take(if is_long { 2 } else { 1 })?;
    let flags = reader.number(4)?;
    if flags & FILTER != 0 {
        return Err(Error::unsupported("the lzo data went through a filter, which no kernel undoes"));
    }
    reader.take(if is_long { 12 } else { 8 })?;
    let name = usize::try_from(reader.number(1)?).unwrap_or(usize::MAX);
    reader.take(name)?;
    reader.take(4)?;
    if flags & EXTRA != 0 {
        let size = usize::try_from(reader.number(4)?).unwrap_or(usize::MAX);
        reader.take(size)?;
        reader.take(4)?;
    }
    let mut unpacked = Vec::new();
    let mut block = Vec::new();
    loop {
        let start = reader.at;
        let size = usize::try_from(reader.number(4)?).unwrap_or(usize::MAX);
        if size == 0 {
            return Ok((unpacked, reader.at));
        }
        let damaged = |says: String| Error::corrupt(says).at(FileOffset(start as u64));
        let packed_size = usize::try_from(reader.number(4)?).unwrap_or(usize::MAX);
        if size > BLOCK || packed_size > size {
            return Err(damaged(format!(
                "an lzo block of {packed_size} bytes unpacks to {size}; at most {BLOCK}, and no growth, is allowed"
            )));
        }
        let sum = |flag: u32, reader: &mut Reader<'_>| -> Result<Option<u32>> {
            if flags & flag != 0 { reader.number(4).map(Some) } else { Ok(None) }
        };
        let adler = sum(ADLER32_UNPACKED, &mut reader)?;
        let crc = sum(CRC32_UNPACKED, &mut reader)?;
        if packed_size < size {
            sum(ADLER32_PACKED, &mut reader)?;
            sum(CRC32_PACKED, &mut reader)?;
        }
        let packed = reader.take(packed_size)?;
        block.resize(size, 0);
        if packed_size == size {
            block.copy_from_slice(packed);
        } else {
            let count = lzokay::decompress::decompress(packed, &mut block)
                .map_err(|e| damaged(format!("the lzo block is damaged: {e}")))?;
            if count != size {
                return Err(damaged(format!("an lzo block unpacks to {count} bytes, not to {size}")));
            }
        }
        let is_sound = adler.is_none_or(|sum| sum == adler32(&block))
            && crc.is_none_or(|sum| {
                let mut own = flate2::Crc::new();
                own.update(&block);
                own.sum() == sum
            });
        if !is_sound {
            return Err(damaged("the check sum of an lzo block is wrong".into()));
        }
        unpacked.extend_from_slice(&block);
        if unpacked.len() as u64 > at_most {
            return Ok((unpacked, reader.at));
        }
    }
}

/// Everything in front of the first block.
pub fn header() -> Vec<u8> {
    let mut fields = Vec::new();
    // Version 1.04 of lzop, library 2.08, needs 0.94; method 1 (LZO1X-1), level 5.
    fields.extend_from_slice(&[0x10, 0x40, 0x20, 0x80, 0x09, 0x40, 1, 5]);
    fields.extend_from_slice(&ADLER32_UNPACKED.to_be_bytes());
    // Mode, both halves of the time, no name.
    fields.extend_from_slice(&[0; 13]);
    let sum = adler32(&fields).to_be_bytes();
    [MAGIC, &fields, &sum].concat()
}

/// One block of at most [`BLOCK`] bytes, with its sizes and check sum.
///
/// # Errors
/// Where the encoder fails: it does not, with memory enough.
pub fn block(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let number = |n: usize| u32::try_from(n).map(u32::to_be_bytes).map_err(std::io::Error::other);
    let packed = lzokay::compress::compress(content).map_err(std::io::Error::other)?;
    // What does not shrink is stored, and told apart by its size.
    let data = if packed.len() < content.len() { packed.as_slice() } else { content };
    Ok([&number(content.len())?[..], &number(data.len())?, &adler32(content).to_be_bytes(), data].concat())
}

/// RFC 1950.
fn adler32(bytes: &[u8]) -> u32 {
    let (mut low, mut high) = (1u32, 0u32);
    // 5552 bytes are the most whose sums fit 32 bits.
    for some in bytes.chunks(5552) {
        for byte in some {
            low = low.wrapping_add(u32::from(*byte));
            high = high.wrapping_add(low);
        }
        low %= 65521;
        high %= 65521;
    }
    (high << 16) | low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_lies_about_its_size_or_sum_is_corrupt() {
        let content = b"abcabcabcabcabcabcabcabcabcabcabc".repeat(9);
        let sound = [header(), block(&content).expect("memory"), vec![0; 4]].concat();
        let at = header().len();
        assert_eq!(unpack(&sound, 1 << 20).expect("sound"), (content.clone(), sound.len()));
        for (place, value) in [(at, 1), (at + 1, 9), (at + 3, 0), (at + 7, 0xff), (at + 11, 0)] {
            let mut damaged = sound.clone();
            damaged[place] = value;
            unpack(&damaged, 1 << 20).expect_err("damaged");
        }
        for cut in 0..sound.len() {
            unpack(&sound[..cut], 1 << 20).expect_err("cut off");
        }
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }
}
