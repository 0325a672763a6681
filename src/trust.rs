//! Whom a connection trusts: authorities (the system's or a file's), or one certificate by its fingerprint. There is no third
//! way: nothing here accepts a certificate that nobody vouched for.
//!
//! A server whose certificate is refused is named with its fingerprint, so that it can be compared with what the server's own
//! console shows and then be pinned.

use landfall_image::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The digest of a certificate: SHA-256, or SHA-1 as older versions of vSphere show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thumbprint {
    /// SHA-256
    Sha256([u8; 32]),
    /// SHA-1: still hard to meet with another certificate for one that exists.
    Sha1([u8; 20]),
}

impl Thumbprint {
    /// Reads 64 or 40 hexadecimal digits, with or without colons.
    ///
    /// # Errors
    /// A sentence, for a command line.
    pub fn parse(text: &str) -> Result<Thumbprint, String> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b':' | b' ')).collect();
        let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
        let octets: Option<Vec<u8>> = digits.chunks(2).map(octet).collect();
        let octets = octets.filter(|_| is_hex && digits.len().is_multiple_of(2)).unwrap_or_default();
        if let Ok(sha256) = <[u8; 32]>::try_from(octets.as_slice()) {
            return Ok(Thumbprint::Sha256(sha256));
        }
        match <[u8; 20]>::try_from(octets.as_slice()) {
            Ok(sha1) => Ok(Thumbprint::Sha1(sha1)),
            Err(_) => Err("a thumbprint has 64 hexadecimal digits (SHA-256) or 40 (SHA-1)".into()),
        }
    }

    pub(crate) fn is_of(self, certificate: &[u8]) -> bool {
        match self {
            Thumbprint::Sha256(digest) => Sha256::digest(certificate).as_slice() == digest,
            Thumbprint::Sha1(digest) => Sha1::digest(certificate).as_slice() == digest,
        }
    }

    pub(crate) fn of(certificate: &[u8]) -> Thumbprint {
        Thumbprint::Sha256(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets: &[u8] = match self {
            Thumbprint::Sha256(digest) => digest,
            Thumbprint::Sha1(digest) => digest,
        };
        let octets: Vec<String> = octets.iter().map(|octet| format!("{octet:02X}")).collect();
        f.write_str(&octets.join(":"))
    }
}

/// Whom to trust.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Whoever these authorities vouch for, under the name that is connected to.
    Authorities(Arc<RootCertStore>),
    /// The one certificate.
    Pinned(Thumbprint),
}

impl Trust {
    /// A thumbprint where there is one; else the authorities of the file; else the system's.
    pub fn of(ca: Option<&Path>, thumbprint: Option<Thumbprint>) -> Result<Trust> {
        if let Some(thumbprint) = thumbprint {
            return Ok(Trust::Pinned(thumbprint));
        }
        let mut store = RootCertStore::empty();
        match ca {
            Some(path) => {
                let pem = crate::registrar::package::text(path)?;
                let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
                let all = all.unwrap_or_default();
                for certificate in &all {
                    store.add(certificate.clone()).map_err(|e| {
                        Error::refused(format!("holds a certificate that is no use: {e}")).in_file(path)
                    })?;
                }
                if all.is_empty() {
                    return Err(Error::refused("holds no certificate in PEM").in_file(path));
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                // A store of a hundred may have one that is too old to be read.
                store.add_parsable_certificates(found.certs);
                if store.is_empty() {
                    return Err(Error::refused("this system has no certificates of authorities").hint(
                        "install ca-certificates, give a file with --register-ca, or the server's own --thumbprint",
                    ));
                }
            }
        }
        Ok(Trust::Authorities(Arc::new(store)))
    }

    /// How TLS is to be spoken, and where the certificate that was refused last can be looked up.
    pub(crate) fn config(&self) -> Result<(Arc<ClientConfig>, Refused)> {
        let unusable = |e: &dyn fmt::Display| Error::refused(format!("TLS cannot be set up: {e}"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let refused = Refused::default();
        let chain = match self {
            Trust::Pinned(_) => None,
            Trust::Authorities(store) => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::clone(store), Arc::clone(&provider))
                    .build()
                    .map_err(|e| unusable(&e))?,
            ),
        };
        let verifier = Verifier {
            trust: self.clone(),
            chain,
            provider: Arc::clone(&provider),
            refused: refused.clone(),
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable(&e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok((Arc::new(config), refused))
    }
}

/// The certificates that were refused last, and why.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refused(Arc<Mutex<Option<(Chain, String)>>>);

/// What a server has shown, in DER: its own certificate first, then those that vouch for it.
pub(crate) type Chain = Vec<Vec<u8>>;

impl Refused {
    fn set(&self, certificate: &[u8], others: &[CertificateDer<'_>], why: String) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others = others.iter().map(|one| one.to_vec());
        *last = Some((std::iter::once(certificate.to_vec()).chain(others).collect(), why));
    }

    /// The fingerprint of the server's own one.
    pub(crate) fn take(&self) -> Option<(Thumbprint, String)> {
        let (chain, why) = self.chain()?;
        Some((Thumbprint::of(chain.first()?), why))
    }

    /// All of them.
    pub(crate) fn chain(&self) -> Option<(Chain, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    refused: Refused,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = match (&self.trust, &self.chain) {
            (Trust::Pinned(thumbprint), _) if thumbprint.is_of(certificate) => {
                Ok(ServerCertVerified::assertion())
            }
            (Trust::Authorities(_), Some(chain)) => {
                chain.verify_server_cert(certificate, intermediates, name, ocsp, now)
            }
            _ => Err(rustls::Error::General("it is not the one whose thumbprint was given".into())),
        };
        verified.inspect_err(|e| self.refused.set(certificate, intermediates, e.to_string()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbprints_are_read_as_they_are_shown() {
        let digest = Thumbprint::of(b"certificate");
        let text = digest.to_string();
        assert_eq!(Thumbprint::parse(&text), Ok(digest));
        assert_eq!(Thumbprint::parse(&text.replace(':', "").to_lowercase()), Ok(digest));
        assert!(digest.is_of(b"certificate") && !digest.is_of(b"another"));
        let sha1 = Thumbprint::Sha1(Sha1::digest(b"certificate").into());
        assert_eq!(Thumbprint::parse(&sha1.to_string()), Ok(sha1));
        assert!(sha1.is_of(b"certificate") && !sha1.is_of(b"another"));
        for bad in ["", "AA", &text[..text.len() - 1], &"+f".repeat(20), &"zz".repeat(32), &"é".repeat(32)] {
            assert!(Thumbprint::parse(bad).is_err(), "{bad}");
        }
    }
}
