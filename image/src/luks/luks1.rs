//! LUKS version 1: "On-Disk Format Specification", version 1.2.3. All numbers are big-endian.
//!
//! ```text
//!   0  magic "LUKS\xba\xbe" | 6 version 1
//!   8  cipher, 32 bytes | 40 mode, 32 | 72 hash, 32
//! 104  payload at (sectors) | 108 bytes of the volume key
//! 112  digest of the volume key, 20 bytes | 132 its salt, 32 | 164 its iterations
//! 168  UUID, 40 bytes
//! 208  eight key slots of 48: state | 4 iterations | 8 salt, 32 bytes | 40 stripes at (sectors) | 44 their number
//! ```

use super::cipher::SECTOR;
use super::hash::Hash;
use crate::error::{Error, Result};
use crate::limits;
use crate::units::FileOffset;

/// Bytes of the header without the key slots' stripes.
pub(super) const HEADER: usize = 592;

const SLOT_AT: usize = 208;
const SLOT_LEN: usize = 48;
const SLOTS: usize = 8;
const SLOT_ENABLED: u32 = 0x00ac_71f3;

const _: () = assert!(SLOT_AT + SLOTS * SLOT_LEN == HEADER);

/// What the header says, checked against itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub cipher: String,
    pub mode: String,
    pub hash: String,
    pub uuid: String,
    /// Where the encrypted data begins, in bytes from the header.
    pub payload_at: u64,
    pub key_bytes: usize,
    pub digest: [u8; 20],
    pub digest_salt: [u8; 32],
    pub digest_iterations: u32,
    /// Those that are in use.
    pub slots: Vec<Slot>,
}

/// A key slot: the volume key, encrypted with what a passphrase gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub number: usize,
    /// Not checked yet: one slot that takes too many does not hide the others.
    pub iterations: u32,
    pub salt: [u8; 32],
    /// In bytes from the header.
    pub stripes_at: u64,
    pub stripes: usize,
}

/// Parses the first [`HEADER`] bytes.
pub(super) fn parse(head: &[u8]) -> Result<Header> {
    let Some(head) = head.get(..HEADER) else {
        return Err(Error::corrupt(format!(
            "the LUKS header is cut off: it is {HEADER} bytes long, there are {}",
            head.len()
        )));
    };
    let u32_at = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let key_bytes = u32_at(108);
    if key_bytes == 0 || key_bytes > limits::LUKS_KEY {
        return Err(wrong(
            108,
            format!("a volume key of {key_bytes} bytes; 1 to {} are possible", limits::LUKS_KEY),
        ));
    }
    let digest_iterations = u32_at(164);
    check_iterations(digest_iterations).map_err(|error| error.at(FileOffset(164)))?;
    let mut slots = Vec::new();
    for number in 0..SLOTS {
        let at = SLOT_AT + number * SLOT_LEN;
        if u32_at(at) != SLOT_ENABLED {
            continue;
        }
        let stripes = u32_at(at + 44);
        if stripes == 0 || u64::from(stripes) * u64::from(key_bytes) > limits::LUKS_STRIPES.0 {
            return Err(wrong(
                at + 44,
                format!(
                    "key slot {number} has {stripes} stripes of {key_bytes} bytes; 1 byte to {} are possible",
                    limits::LUKS_STRIPES
                ),
            ));
        }
        slots.push(Slot {
            number,
            iterations: u32_at(at + 4),
            salt: array(head, at + 8),
            stripes_at: u64::from(u32_at(at + 40)) * SECTOR as u64,
            stripes: usize::try_from(stripes).unwrap_or(usize::MAX),
        });
    }
    Ok(Header {
        cipher: text(head, 8, 32),
        mode: text(head, 40, 32),
        hash: text(head, 72, 32),
        uuid: text(head, 168, 40),
        payload_at: u64::from(u32_at(104)) * SECTOR as u64,
        key_bytes: usize::try_from(key_bytes).unwrap_or(usize::MAX),
        digest: array(head, 112),
        digest_salt: array(head, 132),
        digest_iterations,
        slots,
    })
}

impl Header {
    /// The hash function of its keys.
    pub fn hash(&self) -> Result<Hash> {
        Hash::named(&self.hash)
    }
}

/// Refuses what would take minutes.
pub(super) fn check_iterations(iterations: u32) -> Result<()> {
    if iterations == 0 || iterations > limits::LUKS_ITERATIONS {
        let says =
            format!("derives a key in {iterations} steps; 1 to {} are possible", limits::LUKS_ITERATIONS);
        return Err(Error::refused(says));
    }
    Ok(())
}

fn wrong(at: usize, says: String) -> Error {
    Error::corrupt(says).at(FileOffset(at as u64))
}

fn array<const N: usize>(head: &[u8], at: usize) -> [u8; N] {
    head.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn text(head: &[u8], at: usize, len: usize) -> String {
    let bytes = head[at..at + len].split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}
