//! A certificate authority of one's own: it vouches for a service of the recovery site, and for those who write to it and read of it.
//!
//! ```text
//! ca.pem, ca.key           made once; its SHA-256 is what the appliance's console shows
//! server.pem, server.key   for all names and addresses that the machine has; made anew when they change
//! ```
//! Certificates are good from 2020 to 2120: at a recovery site the clock may be wrong, and a receiver that refuses its sources for that is
//! no receiver. What must not be trusted any longer is taken back at the service, which knows what it has handed out.
//!
//! Deliberately absent: revocation lists, intermediate authorities, and the authority's key leaving the machine.

use crate::receive::rights::Rights;
use crate::small_file;
use landfall_image::{Error, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A certificate and its key, in PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its fingerprint.
    pub sha256: [u8; 32],
    /// That of its public key.
    pub key_sha256: [u8; 32],
    /// Its key.
    pub key: String,
    /// The authority's certificate.
    pub ca: String,
}

/// The authority in a folder.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    ca: String,
    /// Held by who may make files there.
    _lock: Option<File>,
}

fn odd(e: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("the certificate authority cannot be used: {e}"))
}

/// Letters, digits, `-`, `_`, `.`: what a certificate's name may have.
fn plain(name: &str) -> Result<()> {
    let good = (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    match good {
        true => Ok(()),
        false => Err(Error::refused(format!("{name:?} is no name for a certificate"))
            .hint("take letters, digits, - _ and ., 64 at most")),
    }
}

impl Authority {
    /// Opens the authority, made where there is none. Whoever else opens it waits until this one is dropped.
    ///
    /// # Errors
    /// `Io`; `Corrupt` where a file is there and cannot be used: it is not replaced, since sources trust it.
    pub fn open(folder: &Path) -> Result<Authority> {
        let (certificate, key) = (folder.join("ca.pem"), folder.join("ca.key"));
        let text = |path: &Path| -> Result<Option<String>> {
            let bytes = small_file::read(path)?;
            bytes.map(|bytes| String::from_utf8(bytes).map_err(|e| odd(e).in_file(path))).transpose()
        };
        // Two at once would make two, and keep the key of one with the certificate of the other.
        std::fs::create_dir_all(folder).map_err(|e| Error::io("cannot make", e).in_file(folder))?;
        let failed = |e: std::io::Error| Error::io("cannot be locked", e).in_file(folder);
        let lock = File::open(folder).map_err(failed)?;
        lock.lock().map_err(failed)?;
        // The certificate is written after its key: one without the other is half of a first start.
        if let Some(ca) = text(&certificate)? {
            let pem = text(&key)?.ok_or_else(|| odd("its key is gone").in_file(&key))?;
            let issuer = issuer(&ca, &pem, &key)?;
            return Ok(Authority { folder: folder.to_owned(), issuer, ca, _lock: Some(lock) });
        }
        let pair = KeyPair::generate().map_err(odd)?;
        let mut params = usual("landfall authority")?;
        // Two appliances' authorities have different names, so that a client's store can hold both.
        let mine = Sha256::digest(pair.public_key_raw());
        let mine: String = mine.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name.push(DnType::CommonName, format!("landfall authority {mine}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = params.self_signed(&pair).map_err(odd)?.pem();
        small_file::write(&key, pair.serialize_pem().as_bytes(), 0o600)?;
        small_file::write(&certificate, ca.as_bytes(), 0o644)?;
        Ok(Authority { folder: folder.to_owned(), issuer: Issuer::new(params, pair), ca, _lock: Some(lock) })
    }

    /// The SHA-256 of its certificate, in pairs of hexadecimal digits.
    ///
    /// # Errors
    /// `Corrupt`
    pub fn fingerprint(&self) -> Result<String> {
        fingerprint(&self.ca)
    }

    /// The authority of these files, which are there.
    ///
    /// # Errors
    /// `Io`; `Corrupt` where they cannot be used.
    pub fn load(certificate: &Path, key: &Path) -> Result<Authority> {
        let folder = certificate.parent().unwrap_or(Path::new("")).to_owned();
        let text = |path: &Path| -> Result<String> {
            let bytes = small_file::read(path)?.ok_or_else(|| {
                Error::refused("is not there")
                    .in_file(path)
                    .hint("[authority] of the service's file names it")
            })?;
            String::from_utf8(bytes).map_err(|e| odd(e).in_file(path))
        };
        let (ca, pem) = (text(certificate)?, text(key)?);
        let issuer = issuer(&ca, &pem, key)?;
        Ok(Authority { folder, issuer, ca, _lock: None })
    }

    /// A certificate for a client of that name, who may do that.
    ///
    /// # Errors
    /// `Refused` for a name that is none.
    pub fn client(&self, name: &str, rights: &Rights) -> Result<Issued> {
        plain(name)?;
        let mut params = usual(name)?;
        for uri in rights.uris() {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().map_err(odd)?));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    /// Sees to it that the server's certificate is for these names and addresses; true where it was made anew.
    ///
    /// # Errors
    /// `Io`, `Corrupt`
    pub fn server(&self, names: &BTreeSet<String>, addresses: &BTreeSet<IpAddr>) -> Result<bool> {
        let (certificate, key) = (self.folder.join("server.pem"), self.folder.join("server.key"));
        let about = self.folder.join("server.json");
        let wanted = serde_json::to_vec(&(names, addresses, self.fingerprint()?)).map_err(odd)?;
        if small_file::read(&about)?.as_deref() == Some(&wanted) && certificate.exists() && key.exists() {
            return Ok(false);
        }
        let mut params = usual("landfall")?;
        for name in names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(odd)?));
        }
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        // Other landfalls are sent to with it, too.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        // The same key as before: a source that knows it goes on.
        let old = small_file::read(&key)?
            .and_then(|bytes| KeyPair::from_pem(&String::from_utf8_lossy(&bytes)).ok());
        let pair = match old {
            Some(pair) => pair,
            None => KeyPair::generate().map_err(odd)?,
        };
        let issued = params.signed_by(&pair, &self.issuer).map_err(odd)?;
        small_file::write(&key, pair.serialize_pem().as_bytes(), 0o600)?;
        small_file::write(&certificate, format!("{}{}", issued.pem(), self.ca).as_bytes(), 0o644)?;
        small_file::write(&about, &wanted, 0o644)?;
        Ok(true)
    }

    fn issue(&self, params: CertificateParams) -> Result<Issued> {
        let pair = KeyPair::generate().map_err(odd)?;
        let issued = params.signed_by(&pair, &self.issuer).map_err(odd)?;
        Ok(Issued {
            sha256: Sha256::digest(issued.der()).into(),
            key_sha256: crate::receive::Certificate::of(issued.der()).key,
            certificate: issued.pem(),
            key: pair.serialize_pem(),
            ca: self.ca.clone(),
        })
    }
}

/// What signs for the certificate `ca` with the key in `pem`, which came from the file `path`.
fn issuer(ca: &str, pem: &str, path: &Path) -> Result<Issuer<'static, KeyPair>> {
    let pair = KeyPair::from_pem(pem).map_err(|e| odd(e).in_file(path))?;
    let (_, block) = x509_parser::pem::parse_x509_pem(ca.as_bytes()).map_err(odd)?;
    let of_certificate = block.parse_x509().map_err(odd)?.public_key().subject_public_key.data.to_vec();
    if of_certificate != pair.public_key_raw() {
        return Err(odd("its key is that of another certificate").in_file(path));
    }
    Issuer::from_ca_cert_pem(ca, pair).map_err(odd)
}

/// The SHA-256 of the certificate in a PEM text: `AB:CD:…`, as openssl prints it.
///
/// # Errors
/// `Corrupt`
pub fn fingerprint(pem: &str) -> Result<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(odd)?;
    let digits: Vec<String> =
        Sha256::digest(&pem.contents).iter().map(|byte| format!("{byte:02X}")).collect();
    Ok(digits.join(":"))
}

fn usual(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).map_err(odd)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn openssl_trusts_what_it_vouches_for() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("authority");
        let authority = Authority::open(&folder).unwrap();
        let names = BTreeSet::from(["dr1.example.org".to_owned()]);
        let addresses = BTreeSet::from(["10.0.0.5".parse().unwrap()]);
        assert!(authority.server(&names, &addresses).unwrap());
        assert!(!authority.server(&names, &addresses).unwrap());
        let print = authority.fingerprint().unwrap();
        // The same one after a restart; another address makes another certificate, with the same key.
        let key = std::fs::read(folder.join("server.key")).unwrap();
        drop(authority);
        let again = Authority::open(&folder).unwrap();
        assert_eq!(again.fingerprint().unwrap(), print);
        assert!(again.server(&names, &BTreeSet::from(["10.0.0.6".parse().unwrap()])).unwrap());
        assert_eq!(std::fs::read(folder.join("server.key")).unwrap(), key);
        let rights = Rights { send: vec!["web*".into(), "Büro 1".into()], recover: vec!["*".into()] };
        let client = again.client("hv1", &rights).unwrap();
        std::fs::write(folder.join("client.pem"), &client.certificate).unwrap();
        let der = x509_parser::pem::parse_x509_pem(client.certificate.as_bytes()).unwrap().1.contents;
        let read = crate::receive::Certificate::of(&der);
        assert_eq!((read.sha256, read.rights), (client.sha256, rights.clone()));
        assert!(again.client("hv 1", &rights).is_err() && again.client("", &rights).is_err());
        let run = |args: &[&str]| Command::new("openssl").args(args).current_dir(&folder).output();
        let Ok(out) = run(&["x509", "-in", "ca.pem", "-noout", "-fingerprint", "-sha256"]) else {
            eprintln!("SKIPPED: openssl_trusts_what_it_vouches_for: no openssl here");
            return;
        };
        assert!(String::from_utf8_lossy(&out.stdout).trim().ends_with(&print), "{out:?}");
        for (purpose, file, more) in [
            (
                "sslserver",
                "server.pem",
                &["-verify_ip", "10.0.0.6", "-verify_hostname", "dr1.example.org"][..],
            ),
            ("sslclient", "client.pem", &[]),
            ("sslclient", "server.pem", &[]),
        ] {
            // Whatever the clock says.
            for time in ["1600000000", "4000000000"] {
                let args =
                    [&["verify", "-CAfile", "ca.pem", "-attime", time, "-purpose", purpose], more, &[file]]
                        .concat();
                let out = run(&args).unwrap();
                assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
            }
        }
        let out = run(&["verify", "-CAfile", "ca.pem", "-purpose", "sslserver", "client.pem"]).unwrap();
        assert!(!out.status.success(), "a client's certificate is none of a server");
    }

    /// The same certificate with the other signature that verifies: of (r, s) and (r, n - s) both do (SEC 1, 4.1.4).
    fn with_the_other_signature(der: &[u8]) -> Vec<u8> {
        const ORDER: [u8; 32] = [
            0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
            0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
        ];
        let (_, read) = x509_parser::parse_x509_certificate(der).unwrap();
        let signature = &read.signature_value.data;
        let r_len = usize::from(signature[3]);
        let (r, s) = (&signature[2..4 + r_len], &signature[6 + r_len..]);
        let mut wide = [0; 32];
        let digits = s.strip_prefix(&[0]).unwrap_or(s);
        wide[32 - digits.len()..].copy_from_slice(digits);
        let (mut other, mut borrow) = ([0; 32], 0);
        for at in (0..32).rev() {
            let digit = i32::from(ORDER[at]) - i32::from(wide[at]) - borrow;
            borrow = i32::from(digit < 0);
            other[at] = u8::try_from(digit.rem_euclid(256)).unwrap();
        }
        let first = other.iter().position(|byte| *byte != 0).unwrap();
        let mut integer = other[first..].to_vec();
        if integer[0] >= 128 {
            integer.insert(0, 0);
        }
        let tagged = |tag: u8, content: &[u8]| {
            let len = u16::try_from(content.len()).unwrap().to_be_bytes();
            let mut out = vec![tag];
            match len {
                [0, short] if short < 128 => out.push(short),
                [0, one] => out.extend([0x81, one]),
                two => out.extend([0x82, two[0], two[1]]),
            }
            out.extend(content);
            out
        };
        let signature = tagged(0x30, &[r, &tagged(2, &integer)].concat());
        let tbs = read.tbs_certificate.as_ref();
        let begin = der.windows(tbs.len()).position(|window| window == tbs).unwrap();
        let before = &der[begin..der.len() - read.signature_value.data.len() - 3];
        tagged(0x30, &[before, &tagged(3, &[&[0][..], &signature].concat())].concat())
    }

    #[test]
    fn a_certificate_is_the_same_with_its_other_signature() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let rights = Rights { send: vec!["*".into()], recover: Vec::new() };
        let issued = authority.client("hv1", &rights).unwrap();
        let der = x509_parser::pem::parse_x509_pem(issued.certificate.as_bytes()).unwrap().1.contents;
        let other = with_the_other_signature(&der);
        let read = crate::receive::Certificate::of(&other);
        assert!(read.sha256 != issued.sha256);
        assert_eq!((read.key, read.rights), (issued.key_sha256, rights));
        std::fs::write(dir.path().join("other.der"), other).unwrap();
        let out = Command::new("openssl")
            .args(["verify", "-CAfile", "ca.pem", "-purpose", "sslclient", "other.der"])
            .current_dir(dir.path())
            .output();
        match out {
            Ok(out) => assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr)),
            Err(_) => {
                eprintln!("SKIPPED: a_certificate_is_the_same_with_its_other_signature: no openssl here")
            }
        }
    }

    #[test]
    fn a_key_of_another_authority_is_refused() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&one, &two] {
            Authority::open(dir.path()).unwrap();
        }
        std::fs::copy(two.path().join("ca.key"), one.path().join("ca.key")).unwrap();
        let Err(error) = Authority::open(one.path()) else { panic!("another key is taken") };
        assert!(error.to_string().contains("another certificate"), "{error}");
    }

    #[test]
    fn half_of_a_first_start_is_done_again_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.key"), "torn").unwrap();
        Authority::open(dir.path()).unwrap();
        std::fs::write(
            dir.path().join("ca.pem"),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        let Err(error) = Authority::open(dir.path()) else { panic!("it was made anew") };
        assert_eq!(error.kind(), landfall_image::Kind::Corrupt);
    }
}
