//! A disk, whatever its format, for NBD clients to read.

use super::{Input, open};
use crate::event::Event;
use crate::ops::Context;
use landfall_image::nbd::{Content, Listener, ServeOptions, Served, Server, TlsFiles};
use landfall_image::{Error, Result};
use std::net::SocketAddr;
use std::path::Path;

/// How a disk is served.
pub struct Serve<'a> {
    /// The socket that clients connect to.
    pub socket: Option<&'a Path>,
    /// The address and port that they connect to, where there is no socket.
    pub address: SocketAddr,
    /// The export's name.
    pub export: String,
    /// Encrypt, with these certificates.
    pub tls: Option<TlsFiles>,
    /// Stop when the last client has left.
    pub once: bool,
}

/// Serves an image, which nobody can write to, until the user asks to stop.
///
/// # Errors
/// [`Kind::Refused`](landfall_image::Kind::Refused) for an address that others can reach without encryption.
pub fn serve(context: &Context<'_>, input: Input<'_>, how: &Serve<'_>) -> Result<Served> {
    if how.socket.is_none() && how.tls.is_none() && !how.address.ip().is_loopback() {
        return Err(Error::refused(format!(
            "{} can be reached by others, who could read the whole disk",
            how.address
        ))
        .hint("give a certificate with --tls-cert and --tls-key, or serve on 127.0.0.1 or a --socket"));
    }
    let image = open(context, input)?;
    let options = ServeOptions {
        export: how.export.clone(),
        tls: how.tls.clone(),
        once: how.once,
        ..ServeOptions::default()
    };
    let listener = match how.socket {
        Some(path) => Listener::unix(path)?,
        None => Listener::tcp(how.address)?,
    };
    let uri = listener.uri(&options);
    let server = Server::new(Content::ReadOnly(image.disk), options)?;
    context.observer.event(Event::Step(format!("serving {} as {uri}", input.place.display())));
    server.run(&listener, &context.cancel)
}
