//! The compressions that a kernel can unpack: recognised by their magic, unpacked within a bound, packed in parallel.
//!
//! Everything packed here is what the kernel's decoders take: one gzip member, one zstd frame with a window of at
//! most 8 MiB, xz with CRC32, LZ4 in the legacy frame (which has no end marker, so nothing may follow it), LZO in lzop's
//! blocks.

use super::{limits, lzop};
use crate::{Error, Result};
use landfall_image::Bytes;
use rayon::prelude::*;
use std::io::{self, Read, Write};

/// A compression of the kernel's table (lib/decompress.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compressor {
    /// Plain.
    None,
    /// RFC 1952.
    Gzip,
    /// `BZh`
    Bzip2,
    /// LZMA alone, the `.lzma` file.
    Lzma,
    /// `.xz`
    Xz,
    /// `.lzo` as lzop writes it.
    Lzo,
    /// LZ4 in the legacy frame.
    Lz4,
    /// RFC 8878.
    Zstd,
}

/// How hard to pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effort {
    /// In about a second at most: a usual image packed as the distributions do it, a fat one less tightly.
    Quick,
    /// Smaller, in a few seconds: where free space is short.
    Small,
    /// As small as can be, in up to minutes: where it is very short.
    Smallest,
}

impl Compressor {
    /// By the first bytes; `None` where they are no known compression.
    pub fn detect(bytes: &[u8]) -> Option<Compressor> {
        Some(match bytes {
            [0x1f, 0x8b | 0x9e, ..] => Compressor::Gzip,
            [b'B', b'Z', b'h', ..] => Compressor::Bzip2,
            [0x5d, 0, 0, ..] => Compressor::Lzma,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compressor::Xz,
            [0x89, b'L', b'Z', b'O', ..] => Compressor::Lzo,
            [0x02, 0x21, 0x4c, 0x18, ..] => Compressor::Lz4,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compressor::Zstd,
            _ => return None,
        })
    }

    /// For reports: `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Compressor::None => "none",
            Compressor::Gzip => "gzip",
            Compressor::Bzip2 => "bzip2",
            Compressor::Lzma => "lzma",
            Compressor::Xz => "xz",
            Compressor::Lzo => "lzo",
            Compressor::Lz4 => "lz4",
            Compressor::Zstd => "zstd",
        }
    }

    /// The kernel setting without which it cannot be unpacked.
    pub fn config(self) -> Option<&'static str> {
        Some(match self {
            Compressor::None => return None,
            Compressor::Gzip => "CONFIG_RD_GZIP",
            Compressor::Bzip2 => "CONFIG_RD_BZIP2",
            Compressor::Lzma => "CONFIG_RD_LZMA",
            Compressor::Xz => "CONFIG_RD_XZ",
            Compressor::Lzo => "CONFIG_RD_LZO",
            Compressor::Lz4 => "CONFIG_RD_LZ4",
            Compressor::Zstd => "CONFIG_RD_ZSTD",
        })
    }
}

/// Unpacks the compressed data at the start of `bytes`: the content, and how many bytes it took.
///
/// # Errors
/// `Corrupt` for damage, `Refused` beyond `at_most`, `Unsupported` for what no decoder is there for.
pub fn unpack(compressor: Compressor, bytes: &[u8], at_most: Bytes) -> Result<(Vec<u8>, usize)> {
    let name = compressor.name();
    let read = |reader: &mut dyn Read| -> Result<Vec<u8>> {
        let mut unpacked = Vec::new();
        reader
            .take(at_most.0.saturating_add(1))
            .read_to_end(&mut unpacked)
            .map_err(|e| Error::corrupt(format!("the {name} data is damaged: {e}")))?;
        check_bound(unpacked.len(), name, at_most)?;
        Ok(unpacked)
    };
    let left = |rest: &[u8]| bytes.len() - rest.len();
    let taken = |total_in: u64| usize::try_from(total_in).unwrap_or(usize::MAX).min(bytes.len());
    let no_decoder = |e: liblzma::stream::Error| Error::unsupported(format!("no {name} decoder: {e}"));
    match compressor {
        Compressor::None => Ok((bytes.to_vec(), bytes.len())),
        Compressor::Gzip => {
            let mut decoder = flate2::bufread::GzDecoder::new(bytes);
            let unpacked = read(&mut decoder)?;
            Ok((unpacked, left(decoder.get_ref())))
        }
        Compressor::Bzip2 => {
            let mut decoder = bzip2::bufread::BzDecoder::new(bytes);
            let unpacked = read(&mut decoder)?;
            Ok((unpacked, taken(decoder.total_in())))
        }
        Compressor::Xz | Compressor::Lzma => {
            let stream = match compressor {
                Compressor::Xz => liblzma::stream::Stream::new_stream_decoder(limits::XZ_MEMORY, 0),
                _ => liblzma::stream::Stream::new_lzma_decoder(limits::XZ_MEMORY),
            };
            let mut decoder = liblzma::bufread::XzDecoder::new_stream(bytes, stream.map_err(no_decoder)?);
            let unpacked = read(&mut decoder)?;
            Ok((unpacked, taken(decoder.total_in())))
        }
        Compressor::Zstd => {
            let damaged = |e: io::Error| Error::corrupt(format!("the zstd data is damaged: {e}"));
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(bytes).map_err(damaged)?.single_frame();
            decoder.window_log_max(limits::ZSTD_WINDOW_LOG).map_err(damaged)?;
            let unpacked = read(&mut decoder)?;
            Ok((unpacked, left(decoder.finish())))
        }
        Compressor::Lz4 => unpack_lz4(bytes, at_most),
        Compressor::Lzo => {
            let (unpacked, taken) = lzop::unpack(bytes, at_most.0)?;
            check_bound(unpacked.len(), name, at_most)?;
            Ok((unpacked, taken))
        }
    }
}

fn check_bound(size: usize, name: &str, at_most: Bytes) -> Result<()> {
    if size as u64 > at_most.0 {
        return Err(Error::refused(format!("the {name} data unpacks to more than {at_most}")));
    }
    Ok(())
}

/// The legacy frame: magic, then blocks of a 32-bit little-endian length and data, each of 8 MiB unpacked except for
/// the last. There is no end marker: it ends with the buffer, or with NUL padding.
fn unpack_lz4(bytes: &[u8], at_most: Bytes) -> Result<(Vec<u8>, usize)> {
    const MAGIC: u32 = 0x184c_2102;
    let largest = lz4_flex::block::get_maximum_output_size(limits::LZ4_BLOCK);
    let mut unpacked = Vec::new();
    let mut block = Vec::new();
    let mut at = 4usize;
    while let Some(size) =
        bytes.get(at..at.saturating_add(4)).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
    {
        if size == MAGIC {
            at += 4;
            continue;
        }
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let packed = at
            .checked_add(4)
            .filter(|_| size <= largest)
            .and_then(|start| bytes.get(start..start.checked_add(size)?))
            .ok_or_else(|| {
                let left = bytes.len() - at;
                Error::corrupt(format!("lz4 block at byte {at} has {size} bytes; {left} are left"))
                    .hint("LZ4 in the legacy frame has no end marker: nothing may follow it in an initramfs")
            })?;
        // A byte of LZ4 makes at most 255: small blocks need little memory.
        block.resize(packed.len().saturating_mul(255).min(limits::LZ4_BLOCK), 0);
        let n = lz4_flex::block::decompress_into(packed, &mut block)
            .map_err(|e| Error::corrupt(format!("the lz4 block at byte {at} is damaged: {e}")))?;
        unpacked.extend_from_slice(block.get(..n).unwrap_or_default());
        check_bound(unpacked.len(), "lz4", at_most)?;
        at = at.saturating_add(4).saturating_add(size);
    }
    Ok((unpacked, at.min(bytes.len())))
}

/// Unpacked size up to which packing as tightly as the distributions do takes no time worth mentioning.
const USUAL: Bytes = Bytes::mib(64);

/// Packs what is written to it, behind the bytes that `out` begins with.
pub struct Packer(Inner);

enum Inner {
    Plain(Vec<u8>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Lzma(liblzma::write::XzEncoder<Vec<u8>>),
    Bzip2(bzip2::write::BzEncoder<Vec<u8>>),
    Blocks(Blocks),
}

impl Packer {
    /// Starts to pack about `expected` bytes behind `out`. With `threads` of 1 all happens on the caller's thread.
    ///
    /// # Errors
    /// `Unsupported` where an encoder does not start.
    pub fn new(
        compressor: Compressor,
        effort: Effort,
        expected: Bytes,
        threads: u32,
        out: Vec<u8>,
    ) -> Result<Packer> {
        // (usual, fat) levels: a minimal image unpacks to 30 MiB, one with all drivers and firmware to 400 MiB. xz takes
        // four times as long at preset 2 as at 0, for a twentieth less.
        let level = |quick: (u32, u32), small: u32, smallest: u32| match effort {
            Effort::Quick if expected <= USUAL => quick.0,
            Effort::Quick => quick.1,
            Effort::Small => small,
            Effort::Smallest => smallest,
        };
        let no_encoder = |e: String| Error::unsupported(format!("no {} encoder: {e}", compressor.name()));
        Ok(Packer(match compressor {
            Compressor::None => Inner::Plain(out),
            Compressor::Zstd => {
                let level = i32::try_from(level((9, 3), 12, 19)).unwrap_or(3);
                let configure = |out| -> io::Result<_> {
                    let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
                    encoder.include_checksum(true)?;
                    if threads > 1 {
                        encoder.multithread(threads)?;
                    }
                    Ok(encoder)
                };
                Inner::Zstd(configure(out).map_err(|e| no_encoder(e.to_string()))?)
            }
            Compressor::Xz => {
                let mut builder = liblzma::stream::MtStreamBuilder::new();
                builder.threads(threads.max(1)).preset(level((0, 0), 4, 6));
                builder.check(liblzma::stream::Check::Crc32);
                let stream = builder.encoder().map_err(|e| no_encoder(e.to_string()))?;
                Inner::Lzma(liblzma::write::XzEncoder::new_stream(out, stream))
            }
            Compressor::Lzma => {
                let stream = liblzma::stream::LzmaOptions::new_preset(level((0, 0), 4, 6))
                    .and_then(|options| liblzma::stream::Stream::new_lzma_encoder(&options))
                    .map_err(|e| no_encoder(e.to_string()))?;
                Inner::Lzma(liblzma::write::XzEncoder::new_stream(out, stream))
            }
            Compressor::Bzip2 => Inner::Bzip2(bzip2::write::BzEncoder::new(out, bzip2::Compression::new(9))),
            Compressor::Gzip => Inner::Blocks(Blocks::gzip(out, level((6, 3), 9, 9), threads)),
            Compressor::Lz4 => Inner::Blocks(Blocks::lz4(out, threads)),
            Compressor::Lzo => Inner::Blocks(Blocks::lzo(out, threads)),
        }))
    }

    /// Ends the stream: everything.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self.0 {
            Inner::Plain(out) => Ok(out),
            Inner::Zstd(encoder) => encoder.finish(),
            Inner::Lzma(encoder) => encoder.finish(),
            Inner::Bzip2(encoder) => encoder.finish(),
            Inner::Blocks(blocks) => blocks.finish(),
        }
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(out) => out.write(bytes),
            Inner::Zstd(encoder) => encoder.write(bytes),
            Inner::Lzma(encoder) => encoder.write(bytes),
            Inner::Bzip2(encoder) => encoder.write(bytes),
            Inner::Blocks(blocks) => blocks.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats whose blocks can be packed on their own: one gzip member out of sync-flushed deflate blocks (as pigz
/// does), or LZ4 or LZO blocks. A batch of blocks is packed in parallel whenever one is full.
struct Blocks {
    out: Vec<u8>,
    pending: Vec<u8>,
    block_size_bytes: usize,
    threads: u32,
    kind: BlockKind,
}

enum BlockKind {
    Gzip { level: u32, crc: flate2::Crc },
    Lz4,
    Lzo,
}

impl Blocks {
    fn gzip(mut out: Vec<u8>, level: u32, threads: u32) -> Self {
        // Magic, deflate, no flags, no time, no extra flags, Unix.
        out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
        let kind = BlockKind::Gzip { level, crc: flate2::Crc::new() };
        Blocks { out, pending: Vec::new(), block_size_bytes: 1 << 20, threads, kind }
    }

    fn lz4(mut out: Vec<u8>, threads: u32) -> Self {
        out.extend_from_slice(&[0x02, 0x21, 0x4c, 0x18]);
        Blocks {
            out,
            pending: Vec::new(),
            block_size_bytes: limits::LZ4_BLOCK,
            threads,
            kind: BlockKind::Lz4,
        }
    }

    fn lzo(mut out: Vec<u8>, threads: u32) -> Self {
        out.extend_from_slice(&lzop::header());
        Blocks { out, pending: Vec::new(), block_size_bytes: lzop::BLOCK, threads, kind: BlockKind::Lzo }
    }

    fn batch_size_bytes(&self) -> usize {
        // Four blocks per thread: one slow block does not leave the others idle for long.
        self.block_size_bytes
            .saturating_mul(usize::try_from(self.threads.max(1)).unwrap_or(1))
            .saturating_mul(4)
    }

    /// Packs everything that is pending. Only the last block may be short.
    fn pack(&mut self) -> io::Result<()> {
        // The kind itself holds the sum that is added to below.
        let level = match self.kind {
            BlockKind::Gzip { level, .. } => Some(level),
            _ => None,
        };
        let is_lzo = matches!(self.kind, BlockKind::Lzo);
        let pack = |block: &[u8]| match level {
            Some(level) => deflate(block, level),
            None if is_lzo => Ok((lzop::block(block)?, flate2::Crc::new())),
            None => Ok((lz4_flex::block::compress(block), flate2::Crc::new())),
        };
        let packed: Vec<io::Result<(Vec<u8>, flate2::Crc)>> = if self.threads > 1 {
            self.pending.par_chunks(self.block_size_bytes).map(pack).collect()
        } else {
            self.pending.chunks(self.block_size_bytes).map(pack).collect()
        };
        for block in packed {
            let (packed, block_crc) = block?;
            match &mut self.kind {
                BlockKind::Gzip { crc, .. } => crc.combine(&block_crc),
                BlockKind::Lz4 => {
                    let size = u32::try_from(packed.len()).map_err(io::Error::other)?;
                    self.out.extend_from_slice(&size.to_le_bytes());
                }
                BlockKind::Lzo => {}
            }
            self.out.extend_from_slice(&packed);
        }
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        self.pack()?;
        match &self.kind {
            BlockKind::Gzip { crc, .. } => {
                // An empty final block of fixed codes, then CRC and length.
                self.out.extend_from_slice(&[0x03, 0x00]);
                self.out.extend_from_slice(&crc.sum().to_le_bytes());
                self.out.extend_from_slice(&crc.amount().to_le_bytes());
            }
            BlockKind::Lz4 => {}
            BlockKind::Lzo => self.out.extend_from_slice(&[0; 4]),
        }
        Ok(self.out)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.batch_size_bytes().saturating_sub(self.pending.len()).max(1);
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.pending.extend_from_slice(taken);
        if self.pending.len() >= self.batch_size_bytes() {
            self.pack()?;
        }
        Ok(taken.len())
    }
}

/// One run of deflate blocks that ends on a byte and is not final.
fn deflate(block: &[u8], level: u32) -> io::Result<(Vec<u8>, flate2::Crc)> {
    use flate2::{Compress, Compression, FlushCompress};
    let mut crc = flate2::Crc::new();
    crc.update(block);
    let mut state = Compress::new(Compression::new(level), false);
    let mut out = Vec::with_capacity(block.len() / 2 + 1024);
    loop {
        let done = usize::try_from(state.total_in()).unwrap_or(usize::MAX).min(block.len());
        state
            .compress_vec(block.get(done..).unwrap_or_default(), &mut out, FlushCompress::Sync)
            .map_err(io::Error::other)?;
        // Output space left over means that the flush is complete.
        if out.len() < out.capacity() && state.total_in() == block.len() as u64 {
            return Ok((out, crc));
        }
        out.reserve(block.len() / 4 + 1024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    const ALL: [Compressor; 7] = [
        Compressor::Gzip,
        Compressor::Bzip2,
        Compressor::Lzma,
        Compressor::Xz,
        Compressor::Lzo,
        Compressor::Lz4,
        Compressor::Zstd,
    ];

    fn sample(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        (0..len)
            .map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if i % 3 == 0 { state.to_be_bytes()[0] } else { (i / 100).to_le_bytes()[0] }
            })
            .collect()
    }

    fn packed(compressor: Compressor, effort: Effort, threads: u32, content: &[u8]) -> Vec<u8> {
        let mut packer =
            Packer::new(compressor, effort, Bytes(content.len() as u64), threads, b"head".to_vec())
                .expect("encoder");
        packer.write_all(content).expect("memory");
        packer.finish().expect("memory")
    }

    #[test]
    fn round_trip_across_block_borders_with_trailing_bytes() {
        for compressor in ALL {
            for len in [0, 1, (1 << 20) - 1, 1 << 20, (8 << 20) + 5] {
                let content = sample(len);
                let mut bytes = packed(compressor, Effort::Quick, 2, &content);
                assert_eq!(&bytes[..4], b"head");
                let size = bytes.len() - 4;
                bytes.extend_from_slice(&[0; 9]);
                assert_eq!(Compressor::detect(&bytes[4..]), Some(compressor));
                let (unpacked, taken) = unpack(compressor, &bytes[4..], Bytes(len as u64)).expect("sound");
                assert!(unpacked == content, "{compressor:?} {len}");
                assert_eq!(taken, size, "{compressor:?} {len}");
                if len > 0 {
                    let error = unpack(compressor, &bytes[4..], Bytes(len as u64 - 1)).expect_err("bound");
                    assert_eq!(error.kind(), Kind::Refused, "{compressor:?} {len}");
                }
            }
        }
    }

    #[test]
    fn small_is_not_larger_and_one_thread_packs_too() {
        let line = |i: u64| format!("alias pci:v{:08x}d{:08x} driver_{}\n", i * 7919, i * 104_729, i % 50);
        let content = (0..40_000).map(line).collect::<String>().into_bytes();
        for compressor in ALL {
            let quick = packed(compressor, Effort::Quick, 1, &content);
            let small = packed(compressor, Effort::Smallest, 1, &content);
            assert!(small.len() <= quick.len(), "{compressor:?}: {} > {}", small.len(), quick.len());
            assert!(unpack(compressor, &small[4..], Bytes::mib(4)).expect("sound").0 == content);
        }
    }

    #[test]
    fn the_real_tools_read_what_is_packed() {
        let content = sample((8 << 20) + 3);
        for (compressor, tool) in [
            (Compressor::Gzip, "gzip"),
            (Compressor::Bzip2, "bzip2"),
            (Compressor::Xz, "xz"),
            (Compressor::Lzma, "lzma"),
            (Compressor::Lz4, "lz4"),
            (Compressor::Lzo, "lzop"),
            (Compressor::Zstd, "zstd"),
        ] {
            let dir = tempfile::tempdir().expect("temporary folder");
            let path = dir.path().join("packed");
            std::fs::write(&path, &packed(compressor, Effort::Quick, 2, &content)[4..]).expect("write");
            let input = std::fs::File::open(&path).expect("open");
            match std::process::Command::new(tool).arg("-dc").stdin(input).output() {
                Err(error) => {
                    eprintln!("SKIPPED: {tool} cannot be run ({error}): its format is not compared")
                }
                Ok(output) => {
                    let says = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert!(output.status.success() && output.stdout == content, "{tool}: {says}");
                }
            }
        }
    }

    #[test]
    fn damage_never_panics() {
        let content = sample(50_000);
        for compressor in ALL {
            let bytes = packed(compressor, Effort::Quick, 1, &content);
            for at in (4..bytes.len()).step_by(97) {
                let mut damaged = bytes[4..].to_vec();
                damaged[at - 4] ^= 0x5a;
                if let Ok((unpacked, taken)) = unpack(compressor, &damaged, Bytes::mib(1)) {
                    assert!(unpacked.len() <= 1 << 20 && taken <= damaged.len());
                }
                let _ = unpack(compressor, &bytes[4..at], Bytes::mib(1));
            }
        }
    }
}
