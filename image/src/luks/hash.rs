//! The hash functions that headers name.

use crate::error::{Error, Result};
use hmac::Hmac;
use sha1::{Digest, Sha1};
use sha2::{Sha224, Sha256, Sha384, Sha512};

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub fn from_name(name: &str) -> Option<Hash> {
        Some(match name {
            "sha1" => Hash::Sha1,
            "sha224" => Hash::Sha224,
            "sha256" => Hash::Sha256,
            "sha384" => Hash::Sha384,
            "sha512" => Hash::Sha512,
            _ => return None,
        })
    }

    /// As [`from_name`](Self::from_name), with an error that names it.
    pub fn named(name: &str) -> Result<Hash> {
        Hash::from_name(name).ok_or_else(|| {
            let shown: String = name.chars().take(40).collect();
            Error::unsupported(format!(
                "derives keys with {shown:?}; sha1, sha224, sha256, sha384 and sha512 are handled"
            ))
            .hint("decrypt it with cryptsetup into a raw image first")
        })
    }

    /// Bytes of a digest.
    pub fn len(self) -> usize {
        match self {
            Hash::Sha1 => 20,
            Hash::Sha224 => 28,
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
            Hash::Sha512 => 64,
        }
    }

    /// The digest of some pieces, one behind the other.
    pub fn of(self, pieces: &[&[u8]]) -> Vec<u8> {
        fn digest<D: Digest>(pieces: &[&[u8]]) -> Vec<u8> {
            let mut hash = D::new();
            for piece in pieces {
                hash.update(piece);
            }
            hash.finalize().to_vec()
        }
        match self {
            Hash::Sha1 => digest::<Sha1>(pieces),
            Hash::Sha224 => digest::<Sha224>(pieces),
            Hash::Sha256 => digest::<Sha256>(pieces),
            Hash::Sha384 => digest::<Sha384>(pieces),
            Hash::Sha512 => digest::<Sha512>(pieces),
        }
    }

    /// PBKDF2 with HMAC of this hash, into `out`.
    pub fn pbkdf2(self, secret: &[u8], salt: &[u8], iterations: u32, out: &mut [u8]) -> Result<()> {
        let done = match self {
            Hash::Sha1 => pbkdf2::pbkdf2::<Hmac<Sha1>>(secret, salt, iterations, out),
            Hash::Sha224 => pbkdf2::pbkdf2::<Hmac<Sha224>>(secret, salt, iterations, out),
            Hash::Sha256 => pbkdf2::pbkdf2::<Hmac<Sha256>>(secret, salt, iterations, out),
            Hash::Sha384 => pbkdf2::pbkdf2::<Hmac<Sha384>>(secret, salt, iterations, out),
            Hash::Sha512 => pbkdf2::pbkdf2::<Hmac<Sha512>>(secret, salt, iterations, out),
        };
        done.map_err(|e| Error::unsupported(format!("cannot derive a key: {e}")))
    }
}

/// Joins what was split into `stripes` against recovery from remapped sectors ("anti-forensic splitting"). `split`
/// holds the stripes one behind the other.
pub(super) fn merge_stripes(hash: Hash, split: &[u8], stripes: usize) -> zeroize::Zeroizing<Vec<u8>> {
    let len = split.len() / stripes.max(1);
    let mut key = zeroize::Zeroizing::new(vec![0; len]);
    for (n, stripe) in split.chunks_exact(len.max(1)).take(stripes).enumerate() {
        for (byte, more) in key.iter_mut().zip(stripe) {
            *byte ^= more;
        }
        if n + 1 < stripes {
            // Each piece as long as a digest is replaced by the digest of its number and itself.
            for (index, piece) in (0u32..).zip(key.chunks_mut(hash.len())) {
                let digest = zeroize::Zeroizing::new(hash.of(&[&index.to_be_bytes(), piece]));
                piece.copy_from_slice(&digest[..piece.len()]);
            }
        }
    }
    key
}
