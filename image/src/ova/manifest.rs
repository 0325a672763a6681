//! The manifest of a package: digests of its files.
//!
//! Source: DMTF DSP0243 2.1.1, section 6 "Distribution": lines of the form `SHA256(name)= digits`.

use crate::error::{Error, Result};
use crate::units::Bytes;
use sha1::{Digest, Sha1};
use sha2::{Sha256, Sha512};
use std::fmt::Write;

/// How a digest was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// 160 bits: OVF 1.
    Sha1,
    /// 256 bits: OVF 2, and what VMware writes today.
    Sha256,
    /// 512 bits.
    Sha512,
}

impl Algorithm {
    fn of(name: &str) -> Option<Algorithm> {
        match name.to_ascii_uppercase().replace('-', "").as_str() {
            "SHA1" => Some(Algorithm::Sha1),
            "SHA256" => Some(Algorithm::Sha256),
            "SHA512" => Some(Algorithm::Sha512),
            _ => None,
        }
    }

    fn digits(self) -> usize {
        match self {
            Algorithm::Sha1 => 40,
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// One line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file.
    pub name: String,
    /// How its digest was made.
    pub algorithm: Algorithm,
    /// The digest in lower-case hexadecimal.
    pub digest: String,
}

/// Takes a manifest apart. A line that is not understood is an error, not one less.
pub fn parse(text: &str) -> Result<Vec<Line>> {
    let mut out = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let parsed = (|| {
            let (algorithm, rest) = line.split_once('(')?;
            // A file's name may hold parentheses itself.
            let (name, digest) = rest.rsplit_once(')')?;
            let algorithm = Algorithm::of(algorithm.trim())?;
            let digest = digest.trim_start().strip_prefix('=')?.trim().to_ascii_lowercase();
            let good = digest.len() == algorithm.digits() && digest.bytes().all(|b| b.is_ascii_hexdigit());
            good.then(|| Line { name: name.to_owned(), algorithm, digest })
        })();
        out.push(parsed.ok_or_else(|| {
            Error::corrupt(format!("line {} of the manifest is not understood", number + 1))
                .hint("lines are SHA1(name)= digits, SHA256(name)= digits or SHA512(name)= digits")
        })?);
    }
    Ok(out)
}

/// The manifest of files with their SHA-256.
pub(super) fn render<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, digest) in files {
        let _ = writeln!(out, "SHA256({name})= {digest}");
    }
    out
}

/// A digest in the making.
pub(super) enum Hasher {
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(super) fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha1 => Hasher::Sha1(Sha1::new()),
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha1(hasher) => hasher.update(bytes),
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn digest(self) -> String {
        let hex = |bytes: &[u8]| {
            bytes.iter().fold(String::new(), |mut out, byte| {
                let _ = write!(out, "{byte:02x}");
                out
            })
        };
        match self {
            Hasher::Sha1(hasher) => hex(&hasher.finalize()),
            Hasher::Sha256(hasher) => hex(&hasher.finalize()),
            Hasher::Sha512(hasher) => hex(&hasher.finalize()),
        }
    }

    /// The digest of `len` bytes that `read` gives from an offset on, asked for piece by piece.
    pub(super) fn run(mut self, len: Bytes, read: impl Fn(u64, &mut [u8]) -> Result<()>) -> Result<String> {
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < len.0 {
            let part = usize::try_from(len.0 - at).unwrap_or(usize::MAX).min(buffer.len());
            read(at, &mut buffer[..part])?;
            self.update(&buffer[..part]);
            at += part as u64;
        }
        Ok(self.digest())
    }
}
