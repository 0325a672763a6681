//! The connection underneath, plain or encrypted: one thread may read while another writes.

use super::uri::Address;
use crate::error::{Error, Result};
use rustls::Connection as Tls;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that are encrypted at a time: a few records.
const ENCRYPTED_AT_ONCE: usize = 60 << 10;

pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects; each address that the name has is given `timeout`.
    pub(super) fn connect(address: &Address, timeout: Duration) -> io::Result<Socket> {
        let (host, port) = match address {
            // Whether the server has room is known at once.
            Address::Unix(path) => return Ok(Socket::Unix(UnixStream::connect(path)?)),
            Address::Tcp(host, port) => (host.as_str(), *port),
        };
        let mut failed = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    // Requests are short and waited for.
                    stream.set_nodelay(true)?;
                    return Ok(Socket::Tcp(stream));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// No single read or write waits longer.
    pub(super) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Socket::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
        }
    }

    /// The same socket once more.
    pub(super) fn try_clone(&self) -> io::Result<Socket> {
        Ok(match self {
            Socket::Tcp(stream) => Socket::Tcp(stream.try_clone()?),
            Socket::Unix(stream) => Socket::Unix(stream.try_clone()?),
        })
    }

    pub(super) fn shutdown(&self) {
        // Whether the other side is still there is of no interest.
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for &Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match self {
                Socket::Tcp(stream) => (&*stream).read(buf),
                Socket::Unix(stream) => (&*stream).read(buf),
            };
            match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(timed_out(error)),
                Ok(len) => return Ok(len),
            }
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = match self {
            Socket::Tcp(stream) => (&*stream).write(buf),
            Socket::Unix(stream) => (&*stream).write(buf),
        };
        written.map_err(timed_out)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket's time limit shows as "would block", which tells nobody anything.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "no answer in time"),
        _ => error,
    }
}

/// A socket with or without encryption.
pub(super) struct Stream {
    socket: Socket,
    session: Option<Session>,
    /// Reading fails once this has passed, however lively the other side is.
    deadline: Mutex<Option<Instant>>,
}

struct Session {
    tls: Mutex<Tls>,
    incoming: Mutex<Incoming>,
    outgoing: Mutex<Vec<u8>>,
}

/// Encrypted bytes that came in and were not looked at yet.
struct Incoming {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    pub(super) fn plain(socket: Socket) -> Stream {
        Stream { socket, session: None, deadline: Mutex::new(None) }
    }

    /// Everything from here on is encrypted; the server has to prove that it is `host`.
    pub(super) fn into_tls_client(self, config: Arc<ClientConfig>, host: &str) -> Result<Stream> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Error::refused(format!("{host:?} is no name that a certificate can carry"))
                .hint("say which name the server's certificate has: ?tls-hostname=NAME")
        })?;
        let tls = ClientConnection::new(config, name)
            .map_err(|e| Error::refused(format!("TLS cannot be set up: {e}")))?;
        self.shake_hands(tls.into())
    }

    /// Everything from here on is encrypted.
    pub(super) fn into_tls_server(self, config: Arc<ServerConfig>) -> Result<Stream> {
        let tls = ServerConnection::new(config)
            .map_err(|e| Error::refused(format!("TLS cannot be set up: {e}")))?;
        self.shake_hands(tls.into())
    }

    fn shake_hands(self, mut tls: Tls) -> Result<Stream> {
        while tls.is_handshaking() {
            match tls.complete_io(&mut &self) {
                Ok(_) => {}
                Err(e) if e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                    return Err(Error::refused(format!("the TLS handshake failed: {e}")).hint(
                        "check that the CA certificate is that of the other side, that the certificate names its host, \
                         and whether it wants a client certificate",
                    ));
                }
                Err(e) => return Err(Error::io("the TLS handshake failed", e)),
            }
        }
        let session = Session {
            tls: Mutex::new(tls),
            incoming: Mutex::new(Incoming { bytes: vec![0; 64 << 10], start: 0, end: 0 }),
            outgoing: Mutex::new(Vec::new()),
        };
        Ok(Stream { session: Some(session), ..self })
    }

    pub(super) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_timeout(timeout)
    }

    pub(super) fn set_deadline(&self, deadline: Option<Instant>) {
        *lock(&self.deadline) = deadline;
    }

    fn in_time(&self) -> io::Result<()> {
        match *lock(&self.deadline) {
            Some(deadline) if Instant::now() > deadline => {
                Err(io::Error::new(ErrorKind::TimedOut, "the answer takes too long"))
            }
            _ => Ok(()),
        }
    }

    /// Ends it for both sides; whoever waits for it is woken.
    pub(super) fn shutdown(&self) {
        if let Some(session) = &self.session {
            // The word that nothing was cut off, where there is still someone to hear it.
            if let (Ok(mut tls), Ok(mut outgoing)) = (session.tls.try_lock(), session.outgoing.try_lock()) {
                tls.send_close_notify();
                outgoing.clear();
                if tls.write_tls(&mut *outgoing).is_ok() {
                    let _ = (&self.socket).write(&outgoing);
                }
            }
        }
        self.socket.shutdown();
    }
}

impl Session {
    fn read(&self, stream: &Stream, buf: &mut [u8]) -> io::Result<usize> {
        let mut incoming = lock(&self.incoming);
        let incoming = &mut *incoming;
        loop {
            {
                let mut tls = lock(&self.tls);
                match tls.reader().read(buf) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    done => return done,
                }
                if incoming.start < incoming.end {
                    let mut rest = &incoming.bytes[incoming.start..incoming.end];
                    tls.read_tls(&mut rest)?;
                    incoming.start = incoming.end - rest.len();
                    tls.process_new_packets().map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
                    continue;
                }
            }
            // Without the lock: a writer goes on meanwhile.
            stream.in_time()?;
            let len = (&stream.socket).read(&mut incoming.bytes)?;
            (incoming.start, incoming.end) = (0, len);
            if len == 0 {
                let mut tls = lock(&self.tls);
                tls.read_tls(&mut io::empty())?;
                return tls.reader().read(buf);
            }
        }
    }

    fn write_all(&self, socket: &Socket, data: &[u8]) -> io::Result<()> {
        let mut outgoing = lock(&self.outgoing);
        let mut rest = data;
        while !rest.is_empty() {
            outgoing.clear();
            {
                let mut tls = lock(&self.tls);
                let len = tls.writer().write(&rest[..rest.len().min(ENCRYPTED_AT_ONCE)])?;
                while tls.wants_write() {
                    tls.write_tls(&mut *outgoing)?;
                }
                rest = &rest[len..];
            }
            (&mut &*socket).write_all(&outgoing)?;
        }
        Ok(())
    }
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &self.session {
            Some(session) => session.read(self, buf),
            None => {
                self.in_time()?;
                (&self.socket).read(buf)
            }
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &self.session {
            Some(session) => session.write_all(&self.socket, buf).map(|()| buf.len()),
            None => (&self.socket).write(buf),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The certificates of one side, as files in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities whose word is taken for the other side. The system's own are not used: an
    /// NBD server's certificate comes from the site's authority.
    pub ca: Option<std::path::PathBuf>,
    /// This side's certificate and those that lead to its authority.
    pub certificate: Option<std::path::PathBuf>,
    /// The key of that certificate.
    pub key: Option<std::path::PathBuf>,
}

mod files {
    use super::{Error, Path, Result, TlsFiles};
    use rustls::RootCertStore;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    /// A file of certificates: a few KiB each.
    const AT_MOST: u64 = 4 << 20;

    fn read(path: &Path) -> Result<Vec<u8>> {
        let source = crate::Source::open(path)?;
        if source.len().0 > AT_MOST {
            let says = format!("has {} bytes; a PEM file has at most {AT_MOST}", source.len().0);
            return Err(Error::refused(says).in_file(path));
        }
        source.head(usize::try_from(AT_MOST).unwrap_or(usize::MAX))
    }

    fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
        let pem = read(path)?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match all {
            Ok(all) if !all.is_empty() => Ok(all),
            _ => Err(Error::refused("holds no certificate in PEM").in_file(path)),
        }
    }

    pub(super) fn authorities(path: &Path) -> Result<RootCertStore> {
        let mut store = RootCertStore::empty();
        for certificate in certificates(path)? {
            store.add(certificate).map_err(|e| {
                Error::refused(format!("holds a certificate that is no use: {e}")).in_file(path)
            })?;
        }
        Ok(store)
    }

    /// This side's certificates with their key, if there are any.
    pub(super) type Own = Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>;

    pub(super) fn own(files: &TlsFiles) -> Result<Own> {
        match (&files.certificate, &files.key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let certificates = certificates(certificate)?;
                let pem = read(key)?;
                let key = PrivateKeyDer::from_pem_slice(&pem)
                    .map_err(|_| Error::refused("holds no private key in PEM").in_file(key))?;
                Ok(Some((certificates, key)))
            }
            (Some(path), None) => Err(Error::refused("is a certificate without its key").in_file(path)),
            (None, Some(path)) => Err(Error::refused("is a key without its certificate").in_file(path)),
        }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(e: impl std::fmt::Display) -> Error {
    Error::refused(format!("TLS cannot be set up: {e}"))
}

/// A certificate with its key that cannot be used.
fn unfit(files: &TlsFiles, e: rustls::Error) -> Error {
    let [certificate, key] =
        [&files.certificate, &files.key].map(|file| file.as_deref().unwrap_or(Path::new("")));
    match e {
        rustls::Error::InconsistentKeys(_) => {
            Error::refused(format!("is not the key of the certificate {}", certificate.display()))
                .in_file(key)
                .hint(format!(
                    "where they belong together, these print the same: openssl x509 -noout -pubkey -in {} ; openssl pkey -pubout -in {}",
                    certificate.display(),
                    key.display()
                ))
        }
        e => unusable(e).in_file(certificate).hint("its own certificate comes first, then those that vouch for it"),
    }
}

impl TlsFiles {
    /// For the side that connects: `ca` is needed, a certificate only where the server asks for it.
    pub fn client(&self) -> Result<Arc<ClientConfig>> {
        let Some(ca) = &self.ca else {
            return Err(Error::refused(
                "TLS needs the certificate of the authority that vouches for the server",
            )
            .hint("give its file with --tls-ca"));
        };
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(files::authorities(ca)?);
        Ok(Arc::new(match files::own(self)? {
            Some((certificates, key)) => {
                config.with_client_auth_cert(certificates, key).map_err(|e| unfit(self, e))?
            }
            None => config.with_no_client_auth(),
        }))
    }

    /// For the side that listens: a certificate is needed; with `ca`, clients need one of that authority.
    pub fn server(&self) -> Result<Arc<ServerConfig>> {
        self.listening(true)
    }

    /// As [`server`](Self::server), but clients without a certificate are let in, too. One that is not of `ca` is refused.
    pub fn server_that_asks(&self) -> Result<Arc<ServerConfig>> {
        self.listening(false)
    }

    fn listening(&self, needs_certificate: bool) -> Result<Arc<ServerConfig>> {
        let Some((certificates, key)) = files::own(self)? else {
            return Err(Error::refused("a server with TLS needs a certificate and its key")
                .hint("give their files with --tls-cert and --tls-key"));
        };
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let config = match &self.ca {
            Some(ca) => {
                let authorities = Arc::new(files::authorities(ca)?);
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(authorities, provider());
                let verifier = if needs_certificate { verifier } else { verifier.allow_unauthenticated() };
                config.with_client_cert_verifier(verifier.build().map_err(unusable)?)
            }
            None => config.with_no_client_auth(),
        };
        Ok(Arc::new(config.with_single_cert(certificates, key).map_err(|e| unfit(self, e))?))
    }
}
