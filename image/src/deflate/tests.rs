use super::*;
use crate::testing::{noise_bytes, text_bytes};
use std::io::Read;

/// Compresses, lets two independent decoders expand it, and returns the length.
fn there_and_back(tool: &mut Fastest, input: &[u8]) -> usize {
    // What lies behind the bound stays.
    let bound = Fastest::bound(input.len());
    let mut out = vec![0xa5; bound + 1];
    let len = tool.zlib(input, &mut out[..bound]);
    assert_eq!(out[bound], 0xa5);
    for len in [tool.zlib_stored(input, &mut vec![0; bound]), len] {
        assert!(len <= bound, "{len} of {bound}");
    }
    let mut read = Vec::new();
    let mut decoder = flate2::read::ZlibDecoder::new(&out[..len]);
    decoder.read_to_end(&mut read).unwrap();
    assert!(read == input, "flate2, {} bytes", input.len());
    assert_eq!(decoder.total_in(), len as u64);
    read.fill(0);
    let expanded = libdeflater::Decompressor::new().zlib_decompress(&out[..len], &mut read).unwrap();
    assert!(expanded == input.len() && read == input, "libdeflate, {} bytes", input.len());
    len
}

#[test]
fn everything_comes_back_whatever_its_length() {
    let mut tool = Fastest::new();
    let text = text_bytes(1, 200_000);
    let noise = noise_bytes(2, 200_000);
    let lengths = (0..300).chain([4095, 65_534, 65_535, 65_536, 65_537, 131_071, 131_072, 131_073, 200_000]);
    for len in lengths {
        for input in [&text[..len], &noise[..len], &vec![0; len], &vec![b'x'; len]] {
            there_and_back(&mut tool, input);
        }
    }
}

#[test]
fn every_length_and_distance_of_a_match_comes_back() {
    let mut tool = Fastest::new();
    let noise = noise_bytes(3, 65_536);
    for distance in [1, 2, 3, 4, 5, 7, 8, 9, 255, 256, 257, 4095, 4096, 4097, 32_767, 32_768, 32_769] {
        for len in [3, 4, 5, 8, 9, 10, 11, 34, 35, 130, 131, 257, 258, 259, 260, 516, 600] {
            let mut input = noise[..distance].to_vec();
            for n in 0..len {
                input.push(input[n]);
            }
            input.extend_from_slice(&noise[40_000..40_020]);
            there_and_back(&mut tool, &input);
        }
    }
}

/// Counts that call for longer codes than there are.
#[test]
fn lopsided_counts_come_back() {
    let mut tool = Fastest::new();
    let mut input = Vec::new();
    let (mut a, mut b) = (1usize, 1);
    for symbol in 0..23u8 {
        input.extend(std::iter::repeat_n(symbol.wrapping_mul(37), a));
        (a, b) = (b, a + b);
    }
    input.truncate(65_536);
    // Shuffled, so that there are few matches and many literals.
    let mut state = 1u64;
    for n in (1..input.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        input.swap(n, (state >> 33) as usize % (n + 1));
    }
    let len = there_and_back(&mut tool, &input);
    assert!(len < input.len() / 2);
}

proptest::proptest! {
    /// Pieces of few kinds, again and again: matches of all lengths that overlap and touch.
    #[test]
    fn pieces_come_back(pieces in proptest::collection::vec((0usize..4, 0usize..3000, 1usize..400), 0..200)) {
        let sources = [text_bytes(7, 4000), noise_bytes(8, 4000), vec![0; 4000], b"ab".repeat(2000)];
        let mut input = Vec::new();
        for (source, from, len) in pieces {
            input.extend_from_slice(&sources[source][from..from + len]);
        }
        there_and_back(&mut Fastest::new(), &input);
    }
}

#[test]
fn it_is_worth_it_and_never_makes_it_much_longer() {
    let mut tool = Fastest::new();
    let text = text_bytes(5, 65_536);
    let mut room = vec![0; 2 << 16];
    let level = libdeflater::CompressionLvl::new(1).unwrap_or_default();
    let libdeflate = libdeflater::Compressor::new(level).zlib_compress(&text, &mut room).unwrap();
    let ours = there_and_back(&mut tool, &text);
    assert!(ours < libdeflate + libdeflate / 6, "{ours}, libdeflate {libdeflate}");
    assert!(there_and_back(&mut tool, &[0; 65_536]) < 400);
    assert!(there_and_back(&mut tool, &noise_bytes(6, 65_536)) <= 65_536 + 16);
}
