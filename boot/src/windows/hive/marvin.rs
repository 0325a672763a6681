//! Marvin32, the hash by which entries of a log are known to be whole.
//!
//! The function is that of Microsoft's SymCrypt and .NET; the seed is the registry's (msuhanov, "Windows registry file format
//! specification", section "Log entries"). It finds what was torn, not what was forged: the seed is no secret.

const SEED: [u32; 2] = [0x7a4e_55c5, 0x82ef_4d88];

/// The hash of `data` with the registry's seed: the low half first.
pub fn marvin32(data: &[u8]) -> u64 {
    let mut state = SEED;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        mix(&mut state, word.iter().rev().fold(0, |all, &byte| all << 8 | u32::from(byte)));
    }
    // The end is marked by a byte of 0x80 behind the last one.
    mix(&mut state, words.remainder().iter().rev().fold(0x80, |all, &byte| all << 8 | u32::from(byte)));
    mix(&mut state, 0);
    u64::from(state[1]) << 32 | u64::from(state[0])
}

fn mix([low, high]: &mut [u32; 2], word: u32) {
    *low = low.wrapping_add(word);
    *high ^= *low;
    *low = low.rotate_left(20).wrapping_add(*high);
    *high = high.rotate_left(9) ^ *low;
    *low = low.rotate_left(27).wrapping_add(*high);
    *high = high.rotate_left(19);
}
