//! From what a person knows to the key of the volume.
//!
//! ```text
//! password           SHA-256 of SHA-256 of UTF-16LE            recovery password  eight groups of six digits, each 11 times
//! stretched          1,048,576 times SHA-256 of (last, first, salt, number)          a number of 16 bits: SHA-256 of those
//! sealed keys        AES-CCM (RFC 3610), nonce of 12 bytes, tag of 16, key of 256 bits
//! ```

use super::damaged;
use super::diffuser::Diffuser;
use super::metadata::{Metadata, Protection, Sealed};
use crate::error::{Error, Kind, Result};
use crate::luks::{Aes, Block, Effort, SECTOR, Secret, SectorCipher, aes};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Rounds of stretching a password.
const ROUNDS: u64 = 1 << 20;

/// Head of a key that was sealed: size, type, kind of value, version, method.
const KEY_HEAD: usize = 12;

type Key = Zeroizing<Vec<u8>>;

/// What decrypts the sectors.
pub(super) struct Opened {
    pub cipher: SectorCipher,
    pub diffuser: Option<Diffuser>,
}

/// The master key of a volume whose protection is suspended.
pub(super) fn clear(metadata: &Metadata) -> Result<Option<Key>> {
    for master in &metadata.masters {
        if let (Protection::Clear, Some(key), Some(sealed)) =
            (master.protection, &master.clear, &master.sealed)
        {
            match unseal(key, sealed) {
                Ok(Some(opened)) => return Ok(Some(opened)),
                // Another copy may be sound.
                Ok(None) => {}
                Err(error) if error.kind() == Kind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
}

/// The master key, where the secret opens one of its copies.
pub(super) fn unlock(metadata: &Metadata, secret: &Secret, effort: &mut Effort) -> Result<Option<Key>> {
    let recovery = recovery(secret.bytes());
    let password = password(secret.bytes());
    for master in &metadata.masters {
        let start = match master.protection {
            Protection::Recovery => &recovery,
            Protection::Password => &password,
            _ => continue,
        };
        let (Some(start), Some(salt), Some(sealed)) = (start, &master.salt, &master.sealed) else { continue };
        effort.spend(ROUNDS).map_err(|error| match error.kind() {
            Kind::Refused => {
                error.hint("give fewer keys, or decrypt it in the source machine (manage-bde -off)")
            }
            _ => error,
        })?;
        let key = stretched(start, salt);
        if let Some(master) = unseal(&*key, sealed)? {
            return Ok(Some(master));
        }
    }
    Ok(None)
}

/// `123456-…`, eight groups. `None` where it is none.
fn recovery(secret: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let text = std::str::from_utf8(secret).ok()?.trim();
    let mut numbers = Zeroizing::new([0u8; 16]);
    let mut groups = 0;
    for (group, number) in text.split('-').zip(numbers.chunks_exact_mut(2)) {
        let value: u32 = group.parse().ok().filter(|_| group.len() == 6)?;
        let value = u16::try_from(value / 11).ok().filter(|_| value.is_multiple_of(11))?;
        number.copy_from_slice(&value.to_le_bytes());
        groups += 1;
    }
    (groups == 8 && text.len() == 55).then(|| Zeroizing::new(Sha256::digest(numbers.as_slice()).into()))
}

fn password(secret: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let text = std::str::from_utf8(secret).ok()?;
    let units: Zeroizing<Vec<u8>> = Zeroizing::new(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
    Some(Zeroizing::new(Sha256::digest(Sha256::digest(units.as_slice())).into()))
}

fn stretched(start: &[u8; 32], salt: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    let mut input = Zeroizing::new([0u8; 88]);
    input[32..64].copy_from_slice(start);
    input[64..80].copy_from_slice(salt);
    for round in 0..ROUNDS {
        input[80..].copy_from_slice(&round.to_le_bytes());
        let digest: [u8; 32] = Sha256::digest(input.as_slice()).into();
        input[..32].copy_from_slice(&digest);
    }
    let mut out = Zeroizing::new([0u8; 32]);
    out.copy_from_slice(&input[..32]);
    out
}

/// The key that was sealed, without its head; `None` where `key` is not the one.
fn unseal(key: &[u8], sealed: &Sealed) -> Result<Option<Key>> {
    if key.len() != 32 {
        return Err(damaged(&format!("a key of {} bytes", key.len())));
    }
    let plain = ccm(&*aes(key)?, sealed)?;
    let Some(mut plain) = plain else { return Ok(None) };
    if plain.len() < KEY_HEAD {
        return Err(damaged("a sealed key without a head"));
    }
    plain.drain(..KEY_HEAD);
    Ok(Some(plain))
}

/// RFC 3610, with a length field of three bytes.
fn ccm(cipher: &dyn Aes, sealed: &Sealed) -> Result<Option<Key>> {
    let len = u32::try_from(sealed.data.len()).ok().filter(|len| *len < 1 << 16);
    let len = len.ok_or_else(|| damaged("a sealed key that is too long"))?;
    let block = |flags: u8, number: u32| {
        let mut block = Block::default();
        block[0] = flags;
        block[1..13].copy_from_slice(&sealed.nonce);
        block[13..].copy_from_slice(&number.to_be_bytes()[1..]);
        block
    };
    let mut plain = Zeroizing::new(sealed.data.clone());
    for (number, bytes) in (1u32..).zip(plain.chunks_mut(16)) {
        let mut stream = block(2, number);
        cipher.encrypt(&mut stream);
        bytes.iter_mut().zip(stream).for_each(|(byte, mask)| *byte ^= mask);
    }
    let mut tag = block(0x3a, len);
    cipher.encrypt(&mut tag);
    for bytes in plain.chunks(16) {
        tag.iter_mut().zip(bytes).for_each(|(tag, byte)| *tag ^= byte);
        cipher.encrypt(&mut tag);
    }
    let mut mask = block(2, 0);
    cipher.encrypt(&mut mask);
    let same =
        tag.iter().zip(mask).zip(sealed.tag).fold(0, |all, ((tag, mask), seen)| all | (tag ^ mask ^ seen));
    Ok((same == 0).then_some(plain))
}

/// The cipher of the sectors.
pub(super) fn volume_key(metadata: &Metadata, master: &[u8]) -> Result<Opened> {
    let key = unseal(master, &metadata.volume_key)?
        .ok_or_else(|| damaged("the master key does not open the volume's key"))?;
    let sector = usize::try_from(metadata.sector).unwrap_or(SECTOR);
    let part = |from: usize, len: usize| {
        key.get(from..from + len).ok_or_else(|| damaged(&format!("a volume key of {} bytes", key.len())))
    };
    let (mode, data, tweak) = match metadata.method {
        0x8000 => ("cbc-eboiv", part(0, 16)?, Some(part(32, 16)?)),
        0x8001 => ("cbc-eboiv", part(0, 32)?, Some(part(32, 32)?)),
        0x8002 => ("cbc-eboiv", part(0, 16)?, None),
        0x8003 => ("cbc-eboiv", part(0, 32)?, None),
        0x8004 => ("xts-plain64", part(0, 32)?, None),
        0x8005 => ("xts-plain64", part(0, 64)?, None),
        other => {
            return Err(Error::unsupported(format!(
                "the BitLocker volume is encrypted by method {other:#x}; AES-CBC and AES-XTS by software are read"
            ))
            .hint("decrypt it in the source machine (manage-bde -off), then convert again"));
        }
    };
    let cipher = SectorCipher::new("aes", mode, data, sector)?;
    let is_xts = mode.starts_with("xts");
    Ok(Opened {
        cipher: if is_xts { cipher.counting_own_sectors() } else { cipher },
        diffuser: tweak.map(|tweak| Diffuser::new(tweak, sector)).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_passwords_have_a_form() {
        assert!(recovery(b"042647-302313-590458-071500-554323-116567-412181-516978\n").is_some());
        for wrong in [
            "042648-302313-590458-071500-554323-116567-412181-516978",
            "042647-302313-590458-071500-554323-116567-412181",
            "042647-302313-590458-071500-554323-116567-412181-516978-000000",
            "anaconda",
            "",
        ] {
            assert!(recovery(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
