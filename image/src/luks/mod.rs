//! LUKS: encrypted disks with their keys in a header, versions 1 and 2. As a disk of its own (QEMU's `luks`, a
//! partition or whole disk of dm-crypt), and inside of qcow2 images.
//!
//! ```text
//! | header, key slots (stripes of the encrypted volume key) | payload: sectors, each encrypted on its own |
//! passphrase -> key derivation -> slot -> stripes joined -> volume key (checked by its digest) -> sectors
//! ```
//!
//! Read: AES in the modes xts and cbc, keys of PBKDF2 and Argon2. A volume of a guest is also written ([`open_volume`]):
//! its sectors, never its header. Absent on purpose: making volumes and key slots, detached headers, integrity
//! (dm-integrity) and re-encryption that has begun: these are refused.

mod cipher;
mod container;
mod disk;
mod effort;
mod hash;
mod luks1;
mod luks2;
pub(crate) mod sectors;
#[cfg(test)]
mod tests;
mod volume;

pub(crate) use cipher::{Aes, Block, SECTOR, SectorCipher, aes};
pub(crate) use disk::read_decrypted;
pub use disk::{open, probe};
pub use effort::Effort;
pub use volume::open_volume;

use crate::error::{Error, Result};
use crate::source::Source;
use crate::units::FileOffset;
use container::Container;
use effort::Slots;
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

    pub(crate) fn bytes(&self) -> &[u8] {
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

/// What came of trying a key.
enum Attempt {
    Opened(Unlocked),
    /// It fits none of that many key slots.
    Wrong {
        slots: usize,
    },
}

/// Opens the volume whose header lies at the start of `source`.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) without a key, or with one that opens no slot;
/// [`Kind::Corrupt`](crate::Kind::Corrupt) and [`Kind::Unsupported`](crate::Kind::Unsupported) as the header has it.
pub(crate) fn unlock(source: &Source, key: Option<&Secret>) -> Result<Unlocked> {
    match attempt(source, key, &mut Effort::default()) {
        Ok(Attempt::Opened(unlocked)) => Ok(unlocked),
        Ok(Attempt::Wrong { slots }) => Err(wrong_key(slots)),
        Err(error) if error.kind() == crate::Kind::Refused => Err(error),
        Err(error) => Err(error.in_file(source.path())),
    }
}

fn attempt(source: &dyn Container, key: Option<&Secret>, effort: &mut Effort) -> Result<Attempt> {
    let len = usize::try_from(source.end()).unwrap_or(usize::MAX).min(luks1::HEADER);
    let mut head = vec![0; len];
    source.read_exact_at(FileOffset(0), &mut head)?;
    let version = match head.first_chunk::<8>() {
        Some(start) if start[..6] == MAGIC => u16::from_be_bytes([start[6], start[7]]),
        // The second copy of a damaged header of version 2 has another mark.
        _ if luks2::has_second(source) => 2,
        _ => return Err(Error::corrupt("has no LUKS header where one is expected").at(FileOffset(0))),
    };
    match version {
        1 => {
            let header = luks1::parse(&head)?;
            let Some(key) = key else { return Err(locked(&format!("LUKS version 1, {}", header.uuid))) };
            unlock1(source, &header, key, effort)
        }
        2 => luks2::unlock(source, key, effort),
        other => {
            Err(Error::unsupported(format!("is LUKS version {other}; 1 and 2 are read")).at(FileOffset(6)))
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

fn unlock1(
    source: &dyn Container,
    header: &luks1::Header,
    key: &Secret,
    effort: &mut Effort,
) -> Result<Attempt> {
    let hash = header.hash()?;
    let mut slots = Slots::default();
    for slot in &header.slots {
        // A derived key as long as several digests takes the steps for each of them.
        let blocks = header.key_bytes.div_ceil(hash.len()) as u64;
        // One that takes too many is refused without.
        let steps =
            luks1::check_iterations(slot.iterations).map_or(0, |()| u64::from(slot.iterations) * blocks);
        effort.spend(steps + u64::from(header.digest_iterations))?;
        let Some(volume_key) = slots.take(open_slot1(source, header, hash, slot, key))? else { continue };
        return Ok(Attempt::Opened(Unlocked {
            cipher: SectorCipher::new(&header.cipher, &header.mode, &volume_key, SECTOR)?,
            payload_at: header.payload_at,
            payload_len: None,
            iv_tweak: 0,
            details: vec![
                ("encryption".to_owned(), format!("LUKS 1, {}-{}", header.cipher, header.mode)),
                ("key".to_owned(), format!("{} bits, slot {}", header.key_bytes * 8, slot.number)),
                ("LUKS UUID".to_owned(), header.uuid.clone()),
            ],
        }));
    }
    Ok(Attempt::Wrong { slots: slots.none_fits()? })
}

/// The volume key, where the key fits the slot.
fn open_slot1(
    source: &dyn Container,
    header: &luks1::Header,
    hash: hash::Hash,
    slot: &luks1::Slot,
    key: &Secret,
) -> Result<Option<Zeroizing<Vec<u8>>>> {
    luks1::check_iterations(slot.iterations)?;
    let mut derived = Zeroizing::new(vec![0; header.key_bytes]);
    hash.pbkdf2(key.bytes(), &slot.salt, slot.iterations, &mut derived)?;
    let mut stripes = Zeroizing::new(vec![0; (header.key_bytes * slot.stripes).next_multiple_of(SECTOR)]);
    source.read_exact_at(FileOffset(slot.stripes_at), &mut stripes)?;
    SectorCipher::new(&header.cipher, &header.mode, &derived, SECTOR)?.decrypt(0, &mut stripes);
    let volume_key = hash::merge_stripes(hash, &stripes[..header.key_bytes * slot.stripes], slot.stripes);
    let mut digest = [0; 20];
    hash.pbkdf2(&volume_key, &header.digest_salt, header.digest_iterations, &mut digest)?;
    Ok((digest == header.digest).then_some(volume_key))
}
