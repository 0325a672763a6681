//! LUKS: encrypted disks with their keys in a header, versions 1 and 2. As a disk of its own (QEMU's `luks`, a
//! partition or whole disk of dm-crypt), and inside of qcow2 images.
//!
//! ```text
//! | header, key slots (stripes of the encrypted volume key) | payload: sectors, each encrypted on its own |
//! passphrase -> key derivation -> slot -> stripes joined -> volume key (checked by its digest) -> sectors
//! ```
//!
//! Read: AES in the modes xts and cbc, keys of PBKDF2 and Argon2. Absent on purpose: writing, detached headers,
//! integrity (dm-integrity) and re-encryption that has begun: both are refused.

mod cipher;
mod disk;
mod hash;
mod luks1;
mod luks2;
#[cfg(test)]
mod tests;

pub(crate) use cipher::SectorCipher;
pub(crate) use disk::read_decrypted;
pub use disk::{open, probe};

use crate::error::{Error, Result};
use crate::source::Source;
use crate::units::FileOffset;
use cipher::SECTOR;
use zeroize::Zeroizing;

/// The first bytes of every header.
const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";

/// A passphrase, or the content of a key file. Wiped when it is dropped, and never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A secret of these bytes, all of them: a line feed at the end counts.
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(Zeroizing::new(bytes))
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// An opened volume.
pub(crate) struct Unlocked {
    pub cipher: SectorCipher,
    /// Where the encrypted sectors begin, in bytes from the header.
    pub payload_at: u64,
    /// Bytes of them, where the header says so.
    pub payload_len: Option<u64>,
    /// Added to the numbers of the sectors.
    pub iv_tweak: u64,
    /// Facts for people.
    pub details: Vec<(String, String)>,
}

/// Opens the volume whose header lies at the start of `source`.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) without a key, or with one that opens no slot;
/// [`Kind::Corrupt`](crate::Kind::Corrupt) and [`Kind::Unsupported`](crate::Kind::Unsupported) as the header has it.
pub(crate) fn unlock(source: &Source, key: Option<&Secret>) -> Result<Unlocked> {
    let head = source.head(luks1::HEADER)?;
    let version = match head.first_chunk::<8>() {
        Some(start) if start[..6] == MAGIC => u16::from_be_bytes([start[6], start[7]]),
        _ => return Err(source.corrupt("has no LUKS header where one is expected").at(FileOffset(0))),
    };
    match version {
        1 => {
            let header = luks1::parse(&head)?;
            let Some(key) = key else { return Err(locked(&format!("LUKS version 1, {}", header.uuid))) };
            unlock1(source, &header, key)
        }
        2 => luks2::unlock(source, key),
        other => {
            Err(source.unsupported(format!("is LUKS version {other}; 1 and 2 are read")).at(FileOffset(6)))
        }
    }
}

/// Encrypted, and no key was given.
fn locked(what: &str) -> Error {
    Error::refused(format!("is encrypted ({what}) and no key was given")).hint(
        "give the passphrase in a file: --key-file FILE (without a line feed at its end: printf %s PASSPHRASE > FILE)",
    )
}

/// The key opens nothing.
fn wrong_key(slots: usize) -> Error {
    Error::refused(format!("the key opens none of the {slots} key slots")).hint(
        "the whole key file counts, a line feed at its end too: write it with printf %s PASSPHRASE > FILE",
    )
}

fn unlock1(source: &Source, header: &luks1::Header, key: &Secret) -> Result<Unlocked> {
    let hash = header.hash()?;
    for slot in &header.slots {
        let mut derived = Zeroizing::new(vec![0; header.key_bytes]);
        hash.pbkdf2(key.bytes(), &slot.salt, slot.iterations, &mut derived)?;
        let mut stripes = Zeroizing::new(vec![0; (header.key_bytes * slot.stripes).next_multiple_of(SECTOR)]);
        source.read_exact_at(FileOffset(slot.stripes_at), &mut stripes)?;
        SectorCipher::new(&header.cipher, &header.mode, &derived, SECTOR)?.decrypt(0, &mut stripes);
        let volume_key = hash::merge_stripes(hash, &stripes[..header.key_bytes * slot.stripes], slot.stripes);
        let mut digest = [0; 20];
        hash.pbkdf2(&volume_key, &header.digest_salt, header.digest_iterations, &mut digest)?;
        if digest == header.digest {
            return Ok(Unlocked {
                cipher: SectorCipher::new(&header.cipher, &header.mode, &volume_key, SECTOR)?,
                payload_at: header.payload_at,
                payload_len: None,
                iv_tweak: 0,
                details: vec![
                    ("encryption".to_owned(), format!("LUKS 1, {}-{}", header.cipher, header.mode)),
                    ("key".to_owned(), format!("{} bits, slot {}", header.key_bytes * 8, slot.number)),
                    ("LUKS UUID".to_owned(), header.uuid.clone()),
                ],
            });
        }
    }
    Err(wrong_key(header.slots.len()))
}
