//! What can be told of a driver's files without the keys of those who sign: the machine and version of a program, and what a
//! catalogue says of itself (Microsoft: "PE Format", "Windows Authenticode Portable Executable Signature Format",
//! `VS_FIXEDFILEINFO`; RFC 2315).
//!
//! ```text
//! catalogue: SEQUENCE { OID signedData, [0] SEQUENCE { INTEGER, SET, SEQUENCE { OID list of hashes, … }, [0] certificates,
//!            [1] …, SET { SEQUENCE { INTEGER, SEQUENCE { issuer, serial }, SEQUENCE { OID digest }, … } } } }
//! ```
//! Deliberately absent: any check of a signature or of who signed. Windows does that when it loads the driver.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// 1.2.840.113549.1.7.2
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
/// 1.3.6.1.4.1.311.10.1, a list of what is trusted.
const TRUST_LIST: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 1];
/// 1.3.14.3.2.26
const SHA1: &[u8] = &[0x2b, 0x0e, 3, 2, 0x1a];
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// Certificates that are looked through for the signer's.
const CERTIFICATES_AT_MOST: usize = 64;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// What a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// `x86_64`, `i686`, `aarch64`, or the number of another machine.
    pub machine: String,
    /// The bytes that a signature is of.
    hashed: [std::ops::Range<usize>; 3],
}

impl Program {
    /// Reads the headers; `None` where it is no program.
    pub fn parse(bytes: &[u8]) -> Option<Program> {
        if !bytes.starts_with(b"MZ") {
            return None;
        }
        let header = usize::try_from(u32_at(bytes, 0x3c)?).ok()?;
        if bytes.get(header..header.checked_add(4)?)? != b"PE\0\0" {
            return None;
        }
        let machine = match u16_at(bytes, header + 4)? {
            0x8664 => "x86_64".to_owned(),
            0x014c => "i686".to_owned(),
            0xaa64 => "aarch64".to_owned(),
            other => format!("machine {other:#06x}"),
        };
        let optional = header + 24;
        let checksum = optional + 64;
        let directories = match u16_at(bytes, optional)? {
            0x20b => optional + 112,
            0x10b => optional + 96,
            _ => return None,
        };
        let entry = directories + 4 * 8;
        let (start, length) = (u32_at(bytes, entry)?, u32_at(bytes, entry + 4)?);
        let end = match (usize::try_from(start).ok()?, length) {
            (_, 0) => bytes.len(),
            (start, _) if start >= entry + 8 && start <= bytes.len() => start,
            _ => return None,
        };
        Some(Program { machine, hashed: [0..checksum, checksum + 4..entry, entry + 8..end] })
    }

    fn digest<D: Digest>(&self, bytes: &[u8]) -> Vec<u8> {
        let mut digest = D::new();
        for range in &self.hashed {
            digest.update(bytes.get(range.clone()).unwrap_or_default());
        }
        digest.finalize().to_vec()
    }
}

/// The version in a program's resources, which its first `VS_FIXEDFILEINFO` says.
pub fn file_version(program: &[u8]) -> Option<[u16; 4]> {
    const SIGNATURE: [u8; 8] = [0xbd, 0x04, 0xef, 0xfe, 0, 0, 1, 0];
    let at = program.windows(SIGNATURE.len()).position(|window| window == SIGNATURE)?;
    let (high, low) = (at + 8, at + 12);
    Some([
        u16_at(program, high + 2)?,
        u16_at(program, high)?,
        u16_at(program, low + 2)?,
        u16_at(program, low)?,
    ])
}

/// A catalogue of signed files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    /// Whom its signature names.
    pub signer: Option<String>,
    /// Its signature needs SHA-2, which Windows 7 has learnt later.
    pub needs_sha2: bool,
}

/// One value: its tag, its content, and what follows.
fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if *first >= 0x80 {
        let digits = rest.get(..usize::from(first & 0x7f))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = rest.get(digits.len()..)?;
    }
    Some((*tag, rest.get(..length)?, rest.get(length..)?))
}

/// The content of a value with this tag, and what follows.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = value(bytes)?;
    (found == tag).then_some((content, rest))
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 2;
const OID: u8 = 6;

impl Catalogue {
    /// Reads one; `None` where it is no signed list of hashes.
    pub fn parse(bytes: &[u8]) -> Option<Catalogue> {
        let (content, _) = expect(bytes, SEQUENCE)?;
        let (oid, rest) = expect(content, OID)?;
        if oid != SIGNED_DATA {
            return None;
        }
        let (signed, _) = expect(expect(rest, 0xa0)?.0, SEQUENCE)?;
        let (_, rest) = expect(signed, INTEGER)?;
        let (_, rest) = expect(rest, SET)?;
        let (list, mut rest) = expect(rest, SEQUENCE)?;
        if expect(list, OID)?.0 != TRUST_LIST {
            return None;
        }
        let mut certificates: &[u8] = &[];
        let signers = loop {
            let (tag, content, after) = value(rest)?;
            match tag {
                0xa0 => certificates = content,
                SET => break content,
                _ => {}
            }
            rest = after;
        };
        let (signer, _) = expect(signers, SEQUENCE)?;
        let (_, rest) = expect(signer, INTEGER)?;
        let (by, rest) = expect(rest, SEQUENCE)?;
        let (_, serial) = expect(by, SEQUENCE)?;
        let (serial, _) = expect(serial, INTEGER)?;
        let digest = expect(expect(rest, SEQUENCE)?.0, OID)?.0;
        Some(Catalogue { signer: signer_name(certificates, serial), needs_sha2: digest != SHA1 })
    }
}

/// The name in the certificate with that serial number.
fn signer_name(mut certificates: &[u8], serial: &[u8]) -> Option<String> {
    for _ in 0..CERTIFICATES_AT_MOST {
        let (_, certificate, rest) = value(certificates)?;
        certificates = rest;
        let Some((body, _)) = expect(certificate, SEQUENCE) else { continue };
        // The version is optional.
        let body = expect(body, 0xa0).map_or(body, |(_, rest)| rest);
        let Some((own, rest)) = expect(body, INTEGER) else { continue };
        if own != serial {
            continue;
        }
        let (_, rest) = expect(rest, SEQUENCE)?;
        let (_, rest) = expect(rest, SEQUENCE)?;
        let (_, rest) = expect(rest, SEQUENCE)?;
        return common_name(expect(rest, SEQUENCE)?.0);
    }
    None
}

fn common_name(mut names: &[u8]) -> Option<String> {
    while let Some((set, rest)) = expect(names, SET) {
        names = rest;
        let Some((pair, _)) = expect(set, SEQUENCE) else { continue };
        let Some((oid, text)) = expect(pair, OID) else { continue };
        if oid == COMMON_NAME {
            let (tag, text, _) = value(text)?;
            return Some(match tag {
                0x1e => {
                    let units: Vec<u16> =
                        text.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
                    String::from_utf16_lossy(&units)
                }
                _ => String::from_utf8_lossy(text).into_owned(),
            });
        }
    }
    None
}

/// True where the catalogue lists the file: by the hash of a program without its signature, or of the whole file.
pub fn lists(catalogue: &[u8], file: &[u8]) -> bool {
    let mut hashes = vec![Sha1::digest(file).to_vec(), Sha256::digest(file).to_vec()];
    if let Some(program) = Program::parse(file) {
        hashes.extend([program.digest::<Sha1>(file), program.digest::<Sha256>(file)]);
    }
    hashes.iter().any(|hash| {
        let first = hash.first().copied().unwrap_or_default();
        let starts = catalogue.iter().enumerate().filter(|(_, byte)| **byte == first);
        starts.map(|(at, _)| at).any(|at| catalogue.get(at..at + hash.len()) == Some(hash.as_slice()))
    })
}
