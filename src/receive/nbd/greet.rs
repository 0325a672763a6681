//! From an open socket to a client that is known and has chosen an export.

use super::config::Limits;
use super::stream::Stream;
use crate::receive::{Certificate, ExportName, Exports, Opened, Peer, Place};
use crate::server_certificate::ServerCertificate;
use landfall_image::nbd::handshake::{Chosen, Denied, Encryption, Handshake, Offer, Offers, Step};
use landfall_image::{Error, Kind, Result};
use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::io::AsyncReadExt;
use tokio::task::block_in_place;
use tokio::time::{timeout, timeout_at};

/// A client that may send requests.
pub(super) struct Guest {
    pub stream: Stream,
    pub peer: Peer,
    pub name: ExportName,
    pub opened: Opened,
    pub chosen: Chosen,
}

/// How clients are greeted.
pub(super) struct Host<'a> {
    pub exports: &'a dyn Exports,
    pub limits: &'a Limits,
    pub tls: Option<&'a ServerCertificate>,
    pub stopping: &'a AtomicBool,
}

fn lost(error: io::Error) -> Error {
    Error::io("the connection failed", error)
}

impl Host<'_> {
    /// Greets whoever is there; `None` where it left. With a failure comes who it was, as far as is known by then.
    pub(super) async fn greet(
        &self,
        stream: Stream,
        place: Place,
    ) -> std::result::Result<Option<Guest>, (Peer, Error)> {
        let mut peer = Peer { place, certificate: None };
        let until = tokio::time::Instant::now() + self.limits.handshake;
        let greeted = timeout_at(until, self.talk(stream, &mut peer)).await;
        match greeted.unwrap_or_else(|_| {
            Err(Error::refused(format!("the handshake takes longer than {:?}", self.limits.handshake)))
        }) {
            Ok(None) => Ok(None),
            Ok(Some((stream, name, opened, chosen))) => {
                Ok(Some(Guest { stream, peer, name, opened, chosen }))
            }
            Err(error) => Err((peer, error)),
        }
    }

    async fn talk(
        &self,
        mut stream: Stream,
        peer: &mut Peer,
    ) -> Result<Option<(Stream, ExportName, Opened, Chosen)>> {
        let encryption = if self.tls.is_some() { Encryption::Required } else { Encryption::None };
        let (mut handshake, hello) = Handshake::new(encryption);
        stream.send(&hello, self.limits.handshake_idle).await.map_err(lost)?;
        let (mut message, mut out) = (Vec::new(), Vec::new());
        loop {
            message.resize(handshake.wants(), 0);
            match timeout(self.limits.handshake_idle, stream.read_exact(&mut message)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    let gone =
                        matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
                    let left = gone && handshake.is_between_messages();
                    return if left { Ok(None) } else { Err(lost(error)) };
                }
                Err(_) => {
                    let says = format!("is silent in the handshake for {:?}", self.limits.handshake_idle);
                    return Err(Error::refused(says));
                }
            }
            let (step, found) = block_in_place(|| {
                let door =
                    Door { exports: self.exports, peer, stopping: self.stopping, found: RefCell::new(None) };
                let step = handshake.take(&message, &door, &mut out);
                (step, door.found.into_inner())
            });
            let sent = stream.send(&out, self.limits.handshake_idle).await.map_err(lost);
            out = Vec::new();
            match step? {
                // The client may be gone already: it need not wait for the last word.
                Step::Left => return Ok(None),
                Step::More => sent?,
                Step::Encrypt => {
                    sent?;
                    (stream, peer.certificate) = self.encrypt(stream).await?;
                    handshake.encrypted();
                }
                Step::Transmission(_, chosen) => {
                    sent?;
                    return Ok(found.map(|(name, opened)| (stream, name, opened, chosen)));
                }
            }
        }
    }

    async fn encrypt(&self, stream: Stream) -> Result<(Stream, Option<Certificate>)> {
        let (Stream::Tcp(stream), Some(tls)) = (stream, self.tls) else {
            return Err(Error::unsupported("there is no TLS on this connection"));
        };
        let stream = tls.acceptor().accept(stream).await.map_err(|e| {
            Error::refused(format!("the TLS handshake failed: {e}"))
                .hint("check that the client has a certificate of the authority that the receiver was given")
        })?;
        let proved = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        // The verifier has asked for one already; without, nobody is let in whatever it says.
        let proved = proved.ok_or_else(|| Error::refused("the client has no certificate"))?;
        let certificate = Certificate::of(proved);
        Ok((Stream::Tls(Box::new(stream)), Some(certificate)))
    }
}

/// What one client is offered.
struct Door<'a> {
    exports: &'a dyn Exports,
    peer: &'a Peer,
    stopping: &'a AtomicBool,
    /// The export that was asked for last, and that will be used where this was the last question.
    found: RefCell<Option<(ExportName, Opened)>>,
}

impl Offers for Door<'_> {
    fn find(&self, name: &str) -> std::result::Result<Offer, Denied> {
        if self.stopping.load(Relaxed) {
            return Err(Denied::Shutdown);
        }
        let name = ExportName::parse(name).ok_or(Denied::Unknown)?;
        let opened = self.exports.open(&name, self.peer).map_err(|error| {
            let says = match error.hint_text() {
                Some(hint) => format!("{}; {hint}", error.says()),
                None => error.says().to_owned(),
            };
            tracing::warn!(peer = %self.peer, export = %name, %error, "an export is not given");
            if error.kind() == Kind::Refused { Denied::Policy(says) } else { Denied::Failed(says) }
        })?;
        let opened = opened.ok_or(Denied::Unknown)?;
        let offer = Offer {
            size: opened.disk.size().0,
            preferred: opened.preferred.0,
            read_only: opened.read_only,
            name: name.to_string(),
            description: opened.description.clone(),
            many: true,
        };
        *self.found.borrow_mut() = Some((name, opened));
        Ok(offer)
    }

    fn list(&self) -> Vec<(String, String)> {
        self.exports.list(self.peer).into_iter().map(|name| (name.to_string(), String::new())).collect()
    }
}
