//! The Elephant diffuser of Windows 7: mixes a sector, so that a change to one of its bytes changes all.
//!
//! Encrypting: the sector's key is combined with it, diffuser A, diffuser B, AES-CBC. Decrypting runs backwards. The diffusers
//! work on little-endian words of 32 bits, in a ring: A looks back, B looks ahead.

use crate::error::Result;
use crate::luks::{Aes, Block, aes};
use zeroize::Zeroizing;

/// One of both: rounds, and by how many bits words are turned.
struct Ring {
    rounds: usize,
    turns: [u32; 4],
    ahead: bool,
}

const A: Ring = Ring { rounds: 5, turns: [9, 0, 13, 0], ahead: false };
const B: Ring = Ring { rounds: 3, turns: [0, 10, 0, 25], ahead: true };

impl Ring {
    /// What is added to a word on the way to the plain text, from the words two and five places away.
    fn term(&self, words: &[u32], at: usize) -> u32 {
        let len = words.len();
        let other = |far: usize| {
            let place = if self.ahead { at + far } else { at + len - far };
            words.get(place % len).copied().unwrap_or(0)
        };
        other(2) ^ other(5).rotate_left(self.turns[at % 4])
    }

    fn undo(&self, words: &mut [u32]) {
        for _ in 0..self.rounds {
            for at in 0..words.len() {
                words[at] = words[at].wrapping_add(self.term(words, at));
            }
        }
    }

    fn mix(&self, words: &mut [u32]) {
        for _ in 0..self.rounds {
            for at in (0..words.len()).rev() {
                words[at] = words[at].wrapping_sub(self.term(words, at));
            }
        }
    }
}

/// Mixes the sectors of one volume.
pub(super) struct Diffuser {
    key: Box<dyn Aes>,
    sector: usize,
}

impl Diffuser {
    pub(super) fn new(key: &[u8], sector: usize) -> Result<Diffuser> {
        Ok(Diffuser { key: aes(key)?, sector })
    }

    /// After the cipher. `data` are whole sectors, the first of which begins at byte `at` of the volume.
    pub(super) fn undo(&self, at: u64, data: &mut [u8]) {
        self.each(at, data, |words, key| {
            B.undo(words);
            A.undo(words);
            combine(words, key);
        });
    }

    /// Before the cipher.
    pub(super) fn mix(&self, at: u64, data: &mut [u8]) {
        self.each(at, data, |words, key| {
            combine(words, key);
            A.mix(words);
            B.mix(words);
        });
    }

    fn each(&self, at: u64, data: &mut [u8], work: impl Fn(&mut [u32], &[u32; 8])) {
        let mut words = Zeroizing::new(Vec::with_capacity(self.sector / 4));
        for (number, sector) in (0u64..).zip(data.chunks_exact_mut(self.sector)) {
            words.clear();
            words.extend(sector.chunks_exact(4).map(word));
            work(&mut words, &self.sector_key(at + number * self.sector as u64));
            for (bytes, word) in sector.chunks_exact_mut(4).zip(words.iter()) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
    }

    fn sector_key(&self, at: u64) -> [u32; 8] {
        let mut key = [0; 8];
        for (half, mark) in key.chunks_exact_mut(4).zip([0, 0x80]) {
            let mut block = Block::default();
            block[..8].copy_from_slice(&at.to_le_bytes());
            block[15] = mark;
            self.key.encrypt(&mut block);
            half.iter_mut().zip(block.chunks_exact(4)).for_each(|(half, bytes)| *half = word(bytes));
        }
        key
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn combine(words: &mut [u32], key: &[u32; 8]) {
    words.iter_mut().zip(key.iter().cycle()).for_each(|(word, key)| *word ^= key);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::luks::SECTOR;

    #[test]
    fn what_is_mixed_is_undone() {
        let diffuser = Diffuser::new(&[7; 16], SECTOR).unwrap();
        let plain: Vec<u8> = (0..1024u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut data = plain.clone();
        diffuser.mix(4096, &mut data);
        assert_ne!(data, plain);
        let mut other = plain.clone();
        other[100] ^= 1;
        diffuser.mix(4096, &mut other);
        let changed = data[..512].iter().zip(&other[..512]).filter(|(a, b)| a != b).count();
        assert!(changed > 450, "one bit reaches the whole sector: {changed} bytes");
        assert_eq!(data[512..], other[512..], "and no other");
        diffuser.undo(4096, &mut data);
        assert_eq!(data, plain);
    }
}
