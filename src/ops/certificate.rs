//! Certificates of a service's own authority, on the side of those who need them: its authority's, compared with what a person reads off a
//! console, and one's own, as files.
//!
//! Deliberately absent: renewing. They are good for a hundred years, and are taken back instead.

use crate::ops::service::Service;
use crate::receive::rights::Rights;
use crate::report::VERSION;
use crate::report::api::{CertificateMade, CertificateTrusted, CertificateWritten};
use crate::small_file;
use crate::trust::{Thumbprint, Trust};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_image::{Error, Result};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What QEMU calls them: docs/system/tls.rst.
const CA: &str = "ca-cert.pem";
const CERTIFICATE: &str = "client-cert.pem";
const KEY: &str = "client-key.pem";

const WITHIN: Duration = Duration::from_secs(15);
/// Of an authority's certificate in base64.
const LINE: usize = 64;

/// Fetches the certificate of the authority that vouches for a service (`https://HOST:PORT`). With its fingerprint it is written to `output`;
/// without, it is only told.
///
/// # Errors
/// I/O where the service does not answer; refused where it shows no authority, or another one.
pub fn trust(service: &str, fingerprint: Option<Thumbprint>, output: &Path) -> Result<CertificateTrusted> {
    let (host, port) = crate::ops::service::host_and_port(service)?;
    let shown = shown(&host, port)?;
    let authority = match fingerprint {
        Some(wanted) => shown.iter().find(|one| wanted.is_of(one)).ok_or_else(|| {
            let all: Vec<String> = shown.iter().map(|one| Thumbprint::of(one).to_string()).collect();
            Error::refused(format!("{service} has other certificates: {}", all.join(", "))).hint(
                "compare with the console of the appliance once more; if they differ, somebody else answers there",
            )
        })?,
        // The last is the one that vouches for the others.
        None => shown.last().ok_or_else(|| Error::refused(format!("{service} shows no certificate")))?,
    };
    let print = Thumbprint::of(authority).to_string();
    if fingerprint.is_none() {
        return Ok(CertificateTrusted { version: VERSION, fingerprint: print, file: None });
    }
    let text = pem(authority);
    if small_file::read(output)?.is_some_and(|there| there != text.as_bytes()) {
        return Err(Error::refused("is there, and is another one")
            .in_file(output)
            .hint("name another file with -o, or remove this one"));
    }
    small_file::write(output, text.as_bytes(), 0o644)?;
    // A server's own certificate would be found by its fingerprint, too, and vouches for nothing.
    let vouched = crate::transport::trusting(Some(output)).and_then(|tls| greet(&host, port, tls));
    if let Err(error) = vouched {
        let _ = std::fs::remove_file(output);
        return Err(Error::refused(format!(
            "{service}: the certificate with that fingerprint does not vouch for it: {error}"
        ))
        .hint("take the fingerprint of the authority; and name the service by a name or address that its certificate has"));
    }
    Ok(CertificateTrusted { version: VERSION, fingerprint: print, file: Some(output.display().to_string()) })
}

/// The certificates that a server shows; none of them is believed.
fn shown(host: &str, port: u16) -> Result<Vec<Vec<u8>>> {
    let (tls, refused) = Trust::Pinned(Thumbprint::Sha256([0; 32])).config()?;
    match greet(host, port, tls) {
        Ok(()) => Err(Error::corrupt("a certificate was believed that nobody has vouched for")),
        Err(error) => refused.chain().map(|(chain, _)| chain).ok_or(error),
    }
}

/// Shakes hands with a server.
fn greet(host: &str, port: u16, tls: Arc<rustls::ClientConfig>) -> Result<()> {
    let failed = |error| {
        Error::io(format!("{host}:{port} cannot be reached"), error)
            .hint("write https://HOST:8470, as the appliance's console shows it; it is there once a vault is")
    };
    let mut last = None;
    for address in (host, port).to_socket_addrs().map_err(failed)? {
        match TcpStream::connect_timeout(&address, WITHIN) {
            Ok(mut stream) => {
                stream
                    .set_read_timeout(Some(WITHIN))
                    .and_then(|()| stream.set_write_timeout(Some(WITHIN)))
                    .map_err(failed)?;
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|_| Error::refused(format!("{host:?} is no DNS name and no address")))?;
                let mut connection = ClientConnection::new(tls, name)
                    .map_err(|e| Error::refused(format!("TLS cannot be spoken: {e}")))?;
                while connection.is_handshaking() {
                    connection.complete_io(&mut stream).map_err(failed)?;
                }
                return Ok(());
            }
            Err(error) => last = Some(error),
        }
    }
    Err(failed(last.unwrap_or_else(|| std::io::Error::other("no address of that name"))))
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(LINE).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Has a certificate handed out, and writes it with its key into a folder. One that cannot be written is taken back.
///
/// # Errors
/// Refused where the folder has such files, or the service hands out none; I/O.
pub fn add(service: &Service, name: &str, rights: Rights, folder: &Path) -> Result<CertificateWritten> {
    let failed = |error| Error::io("cannot be made", error).in_file(folder);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    for file in [CERTIFICATE, KEY] {
        let path = folder.join(file);
        if path.symlink_metadata().is_ok() {
            return Err(Error::refused("is there already")
                .in_file(&path)
                .hint("name another folder with -o: a key is never written over"));
        }
    }
    let CertificateMade { certificate, pem, key, ca, .. } = service.make_certificate(name, rights)?;
    let written = small_file::write(&folder.join(KEY), key.as_bytes(), 0o600)
        .and_then(|()| small_file::write(&folder.join(CERTIFICATE), pem.as_bytes(), 0o644))
        .and_then(|()| small_file::write(&folder.join(CA), ca.as_bytes(), 0o644));
    if let Err(error) = written {
        service.remove_certificate(name)?;
        return Err(error);
    }
    Ok(CertificateWritten { version: VERSION, certificate, folder: folder.display().to_string() })
}
