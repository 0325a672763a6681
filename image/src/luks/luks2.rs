//! LUKS version 2: "LUKS2 On-Disk Format Specification", version 1.1.
//!
//! ```text
//! binary header (big-endian), 4096 bytes:
//!   0  magic, "LUKS\xba\xbe" or "SKUL\xba\xbe" in the second copy | 6 version 2
//!   8  bytes of header and JSON area | 16 sequence number | 72 checksum algorithm, 32 bytes
//! 168  UUID, 40 bytes | 256 where this header lies | 448 checksum of header and JSON area, 64 bytes
//! then the JSON area: keyslots, segments, digests, config. A second copy of both follows.
//! ```

use super::cipher::{SECTOR, SectorCipher};
use super::container::Container;
use super::effort::Slots;
use super::hash::{Hash, merge_stripes};
use super::{Attempt, Effort, MAGIC, Secret, Unlocked, locked};
use crate::error::{Error, Result};
use crate::limits;
use crate::units::{Bytes, FileOffset};
use serde::Deserialize;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Bytes of the binary header.
const BINARY: usize = 4096;
const CHECKSUM_AT: usize = 448;
const CHECKSUM_LEN: usize = 64;
const SECOND_MAGIC: [u8; 6] = *b"SKUL\xba\xbe";

/// Bytes of header and JSON area: the specification's list, which is also that of the second copy's places.
const SIZES: std::ops::RangeInclusive<u32> = 14..=22;

#[derive(Debug, Deserialize)]
struct Metadata {
    keyslots: BTreeMap<String, Keyslot>,
    segments: BTreeMap<String, Segment>,
    digests: BTreeMap<String, Digest>,
    #[serde(default)]
    config: Config,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    requirements: Requirements,
}

#[derive(Debug, Default, Deserialize)]
struct Requirements {
    #[serde(default)]
    mandatory: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Keyslot {
    Luks2 {
        key_size: usize,
        af: Splitter,
        area: Area,
        kdf: Kdf,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Splitter {
    stripes: usize,
    hash: String,
}

#[derive(Debug, Deserialize)]
struct Area {
    offset: String,
    encryption: String,
    key_size: usize,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Kdf {
    Pbkdf2 { hash: String, iterations: u32, salt: String },
    Argon2i { time: u32, memory: u32, cpus: u32, salt: String },
    Argon2id { time: u32, memory: u32, cpus: u32, salt: String },
}

#[derive(Debug, Deserialize)]
struct Segment {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
    size: String,
    #[serde(default)]
    iv_tweak: String,
    #[serde(default)]
    encryption: String,
    #[serde(default)]
    sector_size: usize,
    integrity: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Digest {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<String>,
    segments: Vec<String>,
    hash: String,
    iterations: u32,
    salt: String,
    digest: String,
}

/// Opens the volume whose header lies at the start of `source`.
pub(super) fn unlock(source: &dyn Container, key: Option<&Secret>, effort: &mut Effort) -> Result<Attempt> {
    let (uuid, json) = read_header(source)?;
    let metadata: Metadata = serde_json::from_slice(&json).map_err(|error| {
        Error::corrupt(format!("the LUKS metadata are not what the specification says: {error}"))
    })?;
    if let Some(requirement) = metadata.config.requirements.mandatory.first() {
        let shown: String = requirement.chars().take(80).collect();
        return Err(Error::unsupported(format!("needs {shown:?}, which is not handled"))
            .hint("finish the re-encryption with cryptsetup on the machine that it belongs to"));
    }
    let (segment_name, segment) = match metadata.segments.iter().next() {
        Some(only) if metadata.segments.len() == 1 && only.1.kind == "crypt" => only,
        _ => {
            return Err(Error::unsupported("has not just one encrypted segment")
                .hint("finish the re-encryption with cryptsetup on the machine that it belongs to"));
        }
    };
    if segment.integrity.is_some() {
        return Err(Error::unsupported("is encrypted with integrity tags (dm-integrity)"));
    }
    if !matches!(segment.sector_size, 512 | 1024 | 2048 | 4096) {
        let says = format!("sectors of {} bytes; 512, 1024, 2048 and 4096 are possible", segment.sector_size);
        return Err(Error::corrupt(says));
    }
    let Some(key) = key else { return Err(locked(&format!("LUKS version 2, {uuid}"))) };
    for (what, count) in [("key slots", metadata.keyslots.len()), ("digests", metadata.digests.len())] {
        if count > limits::LUKS_SLOTS {
            let says = format!("has {count} {what}; up to {} are possible", limits::LUKS_SLOTS);
            return Err(Error::refused(says));
        }
    }
    let mut slots = Slots::default();
    for (name, slot) in &metadata.keyslots {
        let Keyslot::Luks2 { key_size, af, area, kdf } = slot else { continue };
        let belongs =
            |digest: &&Digest| digest.keyslots.contains(name) && digest.segments.contains(segment_name);
        let Some(digest) = metadata.digests.values().find(belongs) else { continue };
        effort.spend(kdf.steps(area.key_size).saturating_add(u64::from(digest.iterations)))?;
        let opened = open_slot(source, *key_size, af, area, kdf, key)
            .and_then(|volume_key| Ok(digest.matches(&volume_key)?.then_some(volume_key)));
        let Some(volume_key) = slots.take(opened)? else { continue };
        let (cipher, mode) = split(&segment.encryption)?;
        return Ok(Attempt::Opened(Unlocked {
            cipher: SectorCipher::new(cipher, mode, &volume_key, segment.sector_size)?,
            payload_at: number(&segment.offset)?,
            payload_len: match &*segment.size {
                "dynamic" => None,
                size => Some(number(size)?),
            },
            iv_tweak: if segment.iv_tweak.is_empty() { 0 } else { number(&segment.iv_tweak)? },
            details: vec![
                ("encryption".to_owned(), format!("LUKS 2, {}", segment.encryption)),
                ("key".to_owned(), format!("{} bits, slot {name}", key_size * 8)),
                ("LUKS UUID".to_owned(), uuid),
            ],
        }));
    }
    Ok(Attempt::Wrong { slots: slots.none_fits()? })
}

/// The UUID and the JSON area: of the first copy, or of the second where the first is damaged.
fn read_header(source: &dyn Container) -> Result<(String, Vec<u8>)> {
    let first = read_copy(source, 0, MAGIC);
    if first.is_ok() {
        return first;
    }
    let places = SIZES.map(|bits| 1u64 << bits);
    places.filter_map(|at| read_copy(source, at, SECOND_MAGIC).ok()).next().map_or(first, Ok)
}

/// True where a second copy of the header is sound, whatever became of the first.
pub(super) fn has_second(source: &dyn Container) -> bool {
    SIZES.map(|bits| 1u64 << bits).any(|at| read_copy(source, at, SECOND_MAGIC).is_ok())
}

fn read_copy(source: &dyn Container, at: u64, magic: [u8; 6]) -> Result<(String, Vec<u8>)> {
    let corrupt = |says: String| Error::corrupt(says).at(FileOffset(at));
    let mut head = vec![0; BINARY];
    source.read_exact_at(FileOffset(at), &mut head)?;
    if !head.starts_with(&magic) {
        return Err(corrupt("has no LUKS header".to_owned()));
    }
    let u64_at = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let size = u64_at(8);
    if !size.is_power_of_two() || !SIZES.contains(&size.trailing_zeros()) || u64_at(256) != at {
        return Err(corrupt(format!("the LUKS header says that it is {size} bytes at {:#x}", u64_at(256))));
    }
    let mut whole = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    source.read_exact_at(FileOffset(at), &mut whole)?;
    let hash = Hash::named(&text(&head[72..104]))?;
    whole[CHECKSUM_AT..CHECKSUM_AT + CHECKSUM_LEN].fill(0);
    if hash.of(&[&whole]) != head[CHECKSUM_AT..CHECKSUM_AT + hash.len()] {
        return Err(corrupt("the checksum of the LUKS header is wrong".to_owned()));
    }
    let json = whole.split_off(BINARY);
    let end = json.iter().position(|&byte| byte == 0).unwrap_or(json.len());
    Ok((text(&head[168..208]), json[..end].to_vec()))
}

/// What the slot makes of the key: the volume key, if it is the right one.
fn open_slot(
    source: &dyn Container,
    key_size: usize,
    af: &Splitter,
    area: &Area,
    kdf: &Kdf,
    key: &Secret,
) -> Result<Zeroizing<Vec<u8>>> {
    let most = usize::try_from(limits::LUKS_KEY).unwrap_or(usize::MAX);
    let split_len =
        key_size.checked_mul(af.stripes).filter(|&len| len as u64 <= limits::LUKS_STRIPES.0 && len > 0);
    let (1.., Some(split_len)) = (key_size, split_len) else {
        let says = format!("a key slot has {} stripes of {key_size} bytes", af.stripes);
        return Err(Error::corrupt(says));
    };
    if key_size > most || area.key_size > most {
        return Err(Error::corrupt(format!("a key of {key_size} bytes; up to {most} are possible")));
    }
    let mut derived = Zeroizing::new(vec![0; area.key_size]);
    kdf.derive(key.bytes(), &mut derived)?;
    let mut stripes = Zeroizing::new(vec![0; split_len.next_multiple_of(SECTOR)]);
    source.read_exact_at(FileOffset(number(&area.offset)?), &mut stripes)?;
    let (cipher, mode) = split(&area.encryption)?;
    SectorCipher::new(cipher, mode, &derived, SECTOR)?.decrypt(0, &mut stripes);
    Ok(merge_stripes(Hash::named(&af.hash)?, &stripes[..split_len], af.stripes))
}

impl Kdf {
    /// What it costs to make so many bytes; 0 where it is refused without.
    fn steps(&self, bytes: usize) -> u64 {
        match self {
            Kdf::Pbkdf2 { hash, iterations, .. } if *iterations <= limits::LUKS_ITERATIONS => {
                let len = Hash::from_name(hash).map_or(1, Hash::len);
                u64::from(*iterations).saturating_mul(bytes.div_ceil(len) as u64)
            }
            Kdf::Argon2i { time, memory, .. } | Kdf::Argon2id { time, memory, .. }
                if *time <= limits::LUKS_ARGON2_TIME && u64::from(*memory) << 10 <= limits::LUKS_ARGON2.0 =>
            {
                u64::from(*time) * u64::from(*memory)
            }
            _ => 0,
        }
    }

    fn derive(&self, key: &[u8], out: &mut [u8]) -> Result<()> {
        let (algorithm, time, memory, cpus, salt) = match self {
            Kdf::Pbkdf2 { hash, iterations, salt } => {
                super::luks1::check_iterations(*iterations)?;
                return Hash::named(hash)?.pbkdf2(key, &base64(salt)?, *iterations, out);
            }
            Kdf::Argon2i { time, memory, cpus, salt } => {
                (argon2::Algorithm::Argon2i, time, memory, cpus, salt)
            }
            Kdf::Argon2id { time, memory, cpus, salt } => {
                (argon2::Algorithm::Argon2id, time, memory, cpus, salt)
            }
        };
        let bytes = Bytes(u64::from(*memory) << 10);
        if bytes > limits::LUKS_ARGON2
            || *time > limits::LUKS_ARGON2_TIME
            || *cpus > limits::LUKS_ARGON2_LANES
        {
            return Err(Error::refused(format!(
                "derives a key with {bytes} of memory in {time} passes over {cpus} lanes; the limits are {}, {} and {}",
                limits::LUKS_ARGON2,
                limits::LUKS_ARGON2_TIME,
                limits::LUKS_ARGON2_LANES
            ))
            .hint("add a key slot that asks for less: cryptsetup luksAddKey --pbkdf pbkdf2"));
        }
        let cannot =
            |error: argon2::Error| Error::corrupt(format!("a key slot's Argon2 parameters: {error}"));
        let parameters = argon2::Params::new(*memory, *time, *cpus, None).map_err(cannot)?;
        let mut blocks = Zeroizing::new(vec![argon2::Block::default(); parameters.block_count()]);
        argon2::Argon2::new(algorithm, argon2::Version::V0x13, parameters)
            .hash_password_into_with_memory(key, &base64(salt)?, out, blocks.as_mut_slice())
            .map_err(cannot)
    }
}

impl Digest {
    fn matches(&self, volume_key: &[u8]) -> Result<bool> {
        if self.kind != "pbkdf2" {
            return Err(Error::unsupported("has a digest of its key that is not made with pbkdf2"));
        }
        super::luks1::check_iterations(self.iterations)?;
        let wanted = base64(&self.digest)?;
        if wanted.is_empty() || wanted.len() > CHECKSUM_LEN {
            return Err(Error::corrupt(format!("the digest of the key is {} bytes long", wanted.len())));
        }
        let mut digest = vec![0; wanted.len()];
        Hash::named(&self.hash)?.pbkdf2(volume_key, &base64(&self.salt)?, self.iterations, &mut digest)?;
        Ok(digest == wanted)
    }
}

/// "aes-xts-plain64" into cipher and mode.
fn split(encryption: &str) -> Result<(&str, &str)> {
    encryption.split_once('-').ok_or_else(|| {
        let shown: String = encryption.chars().take(80).collect();
        Error::unsupported(format!("is encrypted with {shown:?}; aes-xts and aes-cbc are read"))
    })
}

/// A number, which the metadata have as text.
fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        Error::corrupt(format!("{shown:?} stands in the LUKS metadata where a number is expected"))
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}

/// Base64 with the usual alphabet and padding.
fn base64(text: &str) -> Result<Vec<u8>> {
    let wrong = || Error::corrupt("the LUKS metadata hold what should be base64 and is not");
    let digits = text.trim_end_matches('=').bytes();
    let mut out = Vec::with_capacity(text.len());
    let (mut bits, mut held) = (0u32, 0u32);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(wrong()),
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).unwrap_or(0));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        for (text, bytes) in
            [("", &b""[..]), ("Zg==", b"f"), ("Zm9v", b"foo"), ("Zm9vYg==", b"foob"), ("//4A", b"\xff\xfe\0")]
        {
            assert_eq!(base64(text).unwrap(), bytes);
        }
        assert!(base64("Zm 9v").is_err());
    }
}
