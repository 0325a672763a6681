//! Sectors and their ciphers: AES in the modes xts and cbc, with the initialisation vectors plain, plain64 and
//! essiv and eboiv, as dm-crypt defines them.

use super::hash::Hash;
use crate::error::{Error, Result};
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockDecrypt, BlockEncrypt, BlockSizeUser, KeyInit, consts::U16};
use aes::{Aes128, Aes192, Aes256};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Bytes of an AES block.
const BLOCK: usize = 16;

/// The unit that initialisation vectors count, and that every key has been used with: a sector of 512 bytes.
pub(crate) const SECTOR: usize = 512;

pub(crate) type Block = GenericArray<u8, U16>;

/// Decrypts and encrypts sectors, from any thread. Shows nothing of its keys.
pub(crate) struct SectorCipher {
    mode: Mode,
    iv: Iv,
    /// Bytes that are encrypted as one: 512 to 4096.
    sector_size: usize,
}

impl std::fmt::Debug for SectorCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SectorCipher").field("sector_size", &self.sector_size).finish_non_exhaustive()
    }
}

enum Mode {
    /// The cipher of the data, then that of the tweak.
    Xts(Box<dyn Aes>, Box<dyn Aes>),
    Cbc(Box<dyn Aes>),
}

enum Iv {
    /// The sector's number, its low 32 bits only.
    Plain,
    Plain64,
    /// The sector's number, encrypted with the hashed key.
    Essiv(Box<dyn Aes>),
    /// The number of the sector by its own size (BitLocker, XTS).
    Large,
    /// The first byte's number, encrypted with the key (BitLocker in CBC uses it).
    Eboiv(Box<dyn Aes>),
}

/// AES with a key of any length.
pub(crate) trait Aes: Send + Sync {
    fn encrypt(&self, block: &mut Block);
    fn encrypt_all(&self, blocks: &mut [Block]);
    fn decrypt(&self, blocks: &mut [Block]);
}

// What keeps a key wipes it when it is dropped.
impl<C: BlockEncrypt + BlockDecrypt + BlockSizeUser<BlockSize = U16> + ZeroizeOnDrop + Send + Sync> Aes
    for C
{
    fn encrypt(&self, block: &mut Block) {
        self.encrypt_block(block);
    }
    fn encrypt_all(&self, blocks: &mut [Block]) {
        self.encrypt_blocks(blocks);
    }
    fn decrypt(&self, blocks: &mut [Block]) {
        self.decrypt_blocks(blocks);
    }
}

/// AES with this key, of 16, 24 or 32 bytes.
pub(crate) fn aes(key: &[u8]) -> Result<Box<dyn Aes>> {
    let bad = |_| Error::unsupported(format!("AES with a key of {} bytes", key.len()));
    Ok(match key.len() {
        16 => Box::new(Aes128::new_from_slice(key).map_err(bad)?),
        24 => Box::new(Aes192::new_from_slice(key).map_err(bad)?),
        32 => Box::new(Aes256::new_from_slice(key).map_err(bad)?),
        len => {
            return Err(Error::unsupported(format!(
                "AES with a key of {len} bytes; 16, 24 and 32 are possible"
            )));
        }
    })
}

impl SectorCipher {
    /// The cipher of that name and mode ("aes", "xts-plain64") with that key.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for another cipher, mode or length of key.
    pub fn new(cipher: &str, mode: &str, key: &[u8], sector_size: usize) -> Result<SectorCipher> {
        let unsupported = || {
            let shown: String = format!("{cipher}-{mode}").chars().take(80).collect();
            Error::unsupported(format!(
                "is encrypted with {shown:?}; aes-xts and aes-cbc with plain, plain64, essiv and eboiv are read"
            ))
            .hint("decrypt it with cryptsetup into a raw image first")
        };
        if cipher != "aes" {
            return Err(unsupported());
        }
        let (chain, iv) = mode.split_once('-').ok_or_else(unsupported)?;
        let iv = match iv.split_once(':') {
            None if iv == "plain" => Iv::Plain,
            None if iv == "plain64" => Iv::Plain64,
            None if iv == "eboiv" => Iv::Eboiv(aes(key)?),
            Some(("essiv", hash)) => {
                let hash = Hash::from_name(hash).ok_or_else(unsupported)?;
                let salt = Zeroizing::new(hash.of(&[key]));
                Iv::Essiv(aes(&salt)?)
            }
            _ => return Err(unsupported()),
        };
        let mode = match chain {
            "xts" if key.len().is_multiple_of(2) => {
                let (data, tweak) = key.split_at(key.len() / 2);
                Mode::Xts(aes(data)?, aes(tweak)?)
            }
            "cbc" => Mode::Cbc(aes(key)?),
            _ => return Err(unsupported()),
        };
        Ok(SectorCipher { mode, iv, sector_size })
    }

    /// With sectors that are numbered by their own size, not in units of 512 bytes.
    pub fn counting_own_sectors(self) -> SectorCipher {
        SectorCipher { iv: Iv::Large, ..self }
    }

    /// Bytes that are encrypted as one: reads start and end on multiples of it.
    pub fn sector_size(&self) -> usize {
        self.sector_size
    }

    /// Decrypts `data` in place. It begins with the sector of that number, counted in units of 512 bytes, and is
    /// a whole number of sectors long.
    pub fn decrypt(&self, first_sector: u64, data: &mut [u8]) {
        for (mut iv, sector) in self.sectors(first_sector, data) {
            match &self.mode {
                Mode::Xts(cipher, tweak) => {
                    tweak.encrypt(&mut iv);
                    in_groups(|blocks| cipher.decrypt(blocks), sector, tweaks(&iv));
                }
                Mode::Cbc(cipher) => {
                    let mut before = number(&iv);
                    let masks = |block| (0, std::mem::replace(&mut before, block));
                    in_groups(|blocks| cipher.decrypt(blocks), sector, masks);
                }
            }
        }
    }

    /// Encrypts `data` in place, which is as for [`decrypt`](Self::decrypt).
    pub fn encrypt(&self, first_sector: u64, data: &mut [u8]) {
        for (mut iv, sector) in self.sectors(first_sector, data) {
            match &self.mode {
                Mode::Xts(cipher, tweak) => {
                    tweak.encrypt(&mut iv);
                    in_groups(|blocks| cipher.encrypt_all(blocks), sector, tweaks(&iv));
                }
                // Each block depends on the one before.
                Mode::Cbc(cipher) => {
                    for bytes in sector.chunks_exact_mut(BLOCK) {
                        iv = xor(bytes, number(&iv));
                        cipher.encrypt(&mut iv);
                        bytes.copy_from_slice(&iv);
                    }
                }
            }
        }
    }

    /// Each sector of `data` with its initialisation vector.
    fn sectors<'d>(
        &self,
        first_sector: u64,
        data: &'d mut [u8],
    ) -> impl Iterator<Item = (Block, &'d mut [u8])> + use<'_, 'd> {
        let step = (self.sector_size / SECTOR) as u64;
        let numbers = (0u64..).map(move |n| first_sector.wrapping_add(n.wrapping_mul(step)));
        numbers.map(|number| self.iv(number)).zip(data.chunks_exact_mut(self.sector_size))
    }

    fn iv(&self, sector: u64) -> Block {
        let mut iv = Block::default();
        match &self.iv {
            Iv::Plain => iv[..4].copy_from_slice(&sector.to_le_bytes()[..4]),
            Iv::Plain64 => iv[..8].copy_from_slice(&sector.to_le_bytes()),
            Iv::Essiv(cipher) => {
                iv[..8].copy_from_slice(&sector.to_le_bytes());
                cipher.encrypt(&mut iv);
            }
            Iv::Large => {
                let number = sector / (self.sector_size / SECTOR) as u64;
                iv[..8].copy_from_slice(&number.to_le_bytes());
            }
            Iv::Eboiv(cipher) => {
                let byte = sector.wrapping_mul(SECTOR as u64);
                iv[..8].copy_from_slice(&byte.to_le_bytes());
                cipher.encrypt(&mut iv);
            }
        }
        iv
    }
}

/// What xts combines with the blocks of a sector, before and after: the encrypted vector, doubled for each block in the
/// field of 2^128 elements.
fn tweaks(iv: &Block) -> impl FnMut(u128) -> (u128, u128) {
    let mut next = number(iv);
    move |_| {
        let tweak = next;
        next = (next << 1) ^ (if next >> 127 == 1 { 0x87 } else { 0 });
        (tweak, tweak)
    }
}

/// Passes the blocks of a sector through a cipher, many at once since processors do that faster. `masks` gives, for
/// each block in turn, what is combined with it before and after.
fn in_groups(cipher: impl Fn(&mut [Block]), sector: &mut [u8], mut masks: impl FnMut(u128) -> (u128, u128)) {
    let mut blocks = [Block::default(); SECTOR / BLOCK];
    let mut after = [0u128; SECTOR / BLOCK];
    for group in sector.chunks_mut(SECTOR) {
        let blocks = &mut blocks[..group.len() / BLOCK];
        for ((block, after), bytes) in blocks.iter_mut().zip(&mut after).zip(group.chunks_exact(BLOCK)) {
            let masked;
            (masked, *after) = masks(number(bytes));
            *block = xor(bytes, masked);
        }
        cipher(blocks);
        for ((block, after), bytes) in blocks.iter().zip(&after).zip(group.chunks_exact_mut(BLOCK)) {
            bytes.copy_from_slice(&xor(block, *after));
        }
    }
}

fn number(bytes: &[u8]) -> u128 {
    bytes.first_chunk().map_or(0, |bytes| u128::from_le_bytes(*bytes))
}

fn xor(bytes: &[u8], with: u128) -> Block {
    (number(bytes) ^ with).to_le_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IEEE 1619-2007, annex B, vectors 1, 2 and 4 (its first block), with sector numbers as tweaks.
    #[test]
    fn xts_follows_the_standard() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
        };
        let tweaked = |key: &str, sector: u64, encrypted: &str| {
            let cipher = SectorCipher::new("aes", "xts-plain64", &hex(key), SECTOR).unwrap();
            let mut data = hex(encrypted);
            let len = data.len();
            data.resize(SECTOR, 0);
            cipher.decrypt(sector, &mut data);
            let mut again = data.clone();
            cipher.encrypt(sector, &mut again);
            assert_eq!(again[..len], hex(encrypted), "encrypted again");
            data.truncate(len);
            data
        };
        let zeros = "0".repeat(64);
        assert_eq!(
            tweaked(&zeros, 0, "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e"),
            [0; 32]
        );
        let key = "11".repeat(16) + &"22".repeat(16);
        assert_eq!(
            tweaked(&key, 0x33_3333_3333, "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0"),
            [0x44; 32]
        );
        let key = "27182818284590452353602874713526".to_owned() + "31415926535897932384626433832795";
        assert_eq!(tweaked(&key, 0, "27a7479befa1d476489f308cd4cfa6e2"), (0..16).collect::<Vec<u8>>());
    }

    #[test]
    fn what_is_not_handled_is_named() {
        for (cipher, mode, key) in [
            ("serpent", "xts-plain64", 64),
            ("aes", "ecb", 32),
            ("aes", "xts-benbi", 64),
            ("aes", "cbc-essiv:whirlpool", 32),
            ("aes", "xts-plain64", 33),
            ("aes", "cbc-plain", 64),
            ("aes", "ctr-plain64", 32),
        ] {
            let error = SectorCipher::new(cipher, mode, &vec![1; key], SECTOR).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Unsupported, "{cipher}-{mode}: {error}");
        }
    }
}
