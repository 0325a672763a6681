//! Disks served: to one client over a socket that is there, or to all that connect.

use super::handshake::{Chosen, Denied, Encryption, Handshake, Offer, Offers, Step};
use super::stream::{Socket, Stream, TlsFiles};
use super::transmit::{self, Room, Target};
use super::uri::encode;
use super::{Export, Served};
use crate::convert::Cancel;
use crate::disk::{Disk, DiskMut};
use crate::error::{Error, Kind, Result};
use crate::units::Bytes;
use rustls::ServerConfig;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A client that connects has to be done with its greeting by then.
const GREETING: Duration = Duration::from_secs(20);
/// How long a stop may take to be noticed.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// Serves `disk` on `stream` until the client disconnects; a closed socket counts as that. Returns an error where
/// the client breaks the protocol or the socket fails. An error of the disk is the client's to handle (`EIO`); the
/// first one is kept and returned at the end, so that the caller can say what the client could not.
///
/// Blocks: run it on a thread of its own. Memory: four requests of 2 MiB, and two of
/// [`REQUEST_AT_MOST`](super::REQUEST_AT_MOST) bytes.
/// To stop it from outside, shut the socket down.
pub fn serve(disk: &dyn DiskMut, stream: &UnixStream, export: Export) -> Result<Served> {
    let stream = Stream::plain(Socket::Unix(stream.try_clone().map_err(lost)?));
    let offer = Offer {
        size: disk.size().0,
        preferred: disk.sector_size().0,
        read_only: export.read_only,
        name: String::new(),
        description: None,
        many: false,
    };
    let Some((stream, chosen)) = negotiate(stream, &offer, None)? else { return Ok(Served::default()) };
    let writer = if export.read_only { None } else { Some(disk) };
    let (served, outcome) = transmit::run(Target { disk, writer }, &stream, &Room::default(), chosen);
    outcome.map(|()| served)
}

/// An error of the socket.
pub(super) fn lost(error: io::Error) -> Error {
    Error::io("the NBD connection failed", error)
}

/// The one disk, under its name and the empty one.
impl Offers for Offer {
    fn find(&self, name: &str) -> Result<Offer, Denied> {
        if name.is_empty() || name == self.name { Ok(self.clone()) } else { Err(Denied::Unknown) }
    }
    fn list(&self) -> Vec<(String, String)> {
        vec![(self.name.clone(), self.description.clone().unwrap_or_default())]
    }
}

/// The stream and what was agreed on, where transmission begins; `None` where the client left.
fn negotiate(
    mut stream: Stream,
    offer: &Offer,
    tls: Option<&Arc<ServerConfig>>,
) -> Result<Option<(Stream, Chosen)>> {
    let encryption = if tls.is_some() { Encryption::Required } else { Encryption::None };
    let (mut handshake, hello) = Handshake::new(encryption);
    (&stream).write_all(&hello).map_err(lost)?;
    let (mut message, mut out) = (Vec::new(), Vec::new());
    loop {
        message.resize(handshake.wants(), 0);
        match (&stream).read_exact(&mut message) {
            Ok(()) => {}
            Err(e)
                if handshake.is_between_messages()
                    && matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(lost(e)),
        }
        let step = handshake.take(&message, offer, &mut out);
        let sent = (&stream).write_all(&out).map_err(lost);
        out.clear();
        match (step?, tls) {
            // The client may be gone already: it need not wait for the last word.
            (Step::Left, _) => return Ok(None),
            (Step::Transmission(_, chosen), _) => return sent.map(|()| Some((stream, chosen))),
            (Step::Encrypt, Some(tls)) => {
                sent?;
                stream = stream.into_tls_server(tls.clone())?;
                handshake.encrypted();
            }
            _ => sent?,
        }
    }
}

/// What is served to all that connect.
#[derive(Clone)]
pub enum Content {
    /// Clients may only read.
    ReadOnly(Arc<dyn Disk>),
    /// Clients may write, and see what others wrote.
    Writable(Arc<dyn DiskMut>),
}

/// How a disk is served.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The export's name; the default export, whose name is empty, is always it, too.
    pub export: String,
    /// A text about the export.
    pub description: Option<String>,
    /// Encrypt, and serve nobody who does not. With an authority in it, clients need a certificate.
    pub tls: Option<TlsFiles>,
    /// Clients at once; more have to wait. 16 by default, 0 counts as 1. Each takes up to 8 MiB of memory,
    /// longer requests than usual 64 MiB for all of them.
    pub connections: usize,
    /// Stop when the last client has left.
    pub once: bool,
}

impl Default for ServeOptions {
    fn default() -> Self {
        ServeOptions { export: String::new(), description: None, tls: None, connections: 16, once: false }
    }
}

/// A disk and how it is served.
pub struct Server {
    content: Content,
    options: ServeOptions,
    tls: Option<Arc<ServerConfig>>,
    room: Room,
}

/// Where clients connect. A socket file goes away with it.
pub struct Listener {
    kind: Kinds,
}

enum Kinds {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Listens on an address and port; port 0 takes a free one.
    pub fn tcp(address: SocketAddr) -> Result<Listener> {
        let listener =
            TcpListener::bind(address).map_err(|e| Error::io(format!("cannot listen on {address}"), e))?;
        listener.set_nonblocking(true).map_err(lost)?;
        Ok(Listener { kind: Kinds::Tcp(listener) })
    }

    /// Listens on a new socket at `path`, which only this user can reach. Whatever is there already is refused.
    pub fn unix(path: &Path) -> Result<Listener> {
        let listener = UnixListener::bind(path).map_err(|e| {
            let error = Error::io("cannot listen on this socket", e).in_file(path);
            error.hint("choose another name; remove it if it was left by a server that is gone")
        })?;
        let kind = Kinds::Unix(listener, path.to_owned());
        let listener = Listener { kind };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(|e| Error::io("cannot set the mode of this socket", e).in_file(path))?;
        if let Kinds::Unix(socket, _) = &listener.kind {
            socket.set_nonblocking(true).map_err(lost)?;
        }
        Ok(listener)
    }

    /// The address, for a TCP listener.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.kind {
            Kinds::Tcp(listener) => listener.local_addr().ok(),
            Kinds::Unix(..) => None,
        }
    }

    /// The URI that clients say.
    pub fn uri(&self, options: &ServeOptions) -> String {
        let s = if options.tls.is_some() { "s" } else { "" };
        let export = encode(&options.export);
        match &self.kind {
            Kinds::Unix(_, path) => {
                format!("nbd{s}+unix:///{export}?socket={}", encode(&path.to_string_lossy()))
            }
            Kinds::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("nbd{s}://{address}/{export}"),
                Err(_) => format!("nbd{s}:///{export}"),
            },
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kinds::Tcp(listener) => listener.as_fd(),
            Kinds::Unix(listener, _) => listener.as_fd(),
        }
    }

    /// The next client, if one is there before long.
    fn accept(&self) -> io::Result<Option<Socket>> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let nanos = i64::try_from(LOOK_AROUND.as_nanos()).unwrap_or_default();
        let wait = Timespec { tv_sec: 0, tv_nsec: nanos };
        match poll(&mut [PollFd::from_borrowed_fd(self.fd(), PollFlags::IN)], Some(&wait)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let accepted = match &self.kind {
            Kinds::Tcp(listener) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                // A client whose machine died must not hold its place for ever.
                rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
                Ok(Socket::Tcp(stream))
            }),
            Kinds::Unix(listener, _) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(false)?;
                Ok(Socket::Unix(stream))
            }),
        };
        accepted.map(Some)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Kinds::Unix(_, path) = &self.kind {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Clients that are connected, so that a stop can reach them.
#[derive(Default)]
struct Guests {
    sockets: Mutex<(u64, HashMap<u64, Socket>)>,
}

impl Guests {
    fn count(&self) -> usize {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).1.len()
    }
    fn enter(&self, socket: Socket) -> u64 {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.0 += 1;
        let number = sockets.0;
        sockets.1.insert(number, socket);
        number
    }
    fn leave(&self, number: u64) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&number);
    }
    fn turn_out(&self) {
        for socket in self.sockets.lock().unwrap_or_else(PoisonError::into_inner).1.values() {
            socket.shutdown();
        }
    }
}

impl Server {
    /// Prepares to serve; certificates are read now.
    pub fn new(content: Content, options: ServeOptions) -> Result<Server> {
        if options.export.len() > super::protocol::NAME_AT_MOST || options.export.contains('\0') {
            let says =
                format!("an export's name has at most {} bytes and no NUL", super::protocol::NAME_AT_MOST);
            return Err(Error::refused(says));
        }
        let tls = options.tls.as_ref().map(TlsFiles::server).transpose()?;
        Ok(Server { content, options, tls, room: Room::default() })
    }

    /// Serves whoever connects until `cancel` is called (or, if so chosen, the last one has left), then hangs up on
    /// those that are still there. What one client does wrong ends its own connection and is logged. Returns what was
    /// done for all of them; an error is one of the listening socket.
    pub fn run(&self, listener: &Listener, cancel: &Cancel) -> Result<Served> {
        let guests = Guests::default();
        let total = Mutex::new(Served::default());
        let mut came = false;
        std::thread::scope(|scope| {
            let outcome = loop {
                let count = guests.count();
                if cancel.is_cancelled() || (self.options.once && came && count == 0) {
                    break Ok(());
                }
                if count >= self.options.connections.max(1) {
                    std::thread::sleep(LOOK_AROUND / 4);
                    continue;
                }
                let socket = match listener.accept() {
                    Ok(Some(socket)) => socket,
                    Ok(None) => continue,
                    // One that left in the queue, or too many open files for a while.
                    Err(error) if recovers(&error) => {
                        tracing::warn!(%error, "an NBD client could not be let in");
                        std::thread::sleep(LOOK_AROUND);
                        continue;
                    }
                    Err(error) => break Err(Error::io("cannot take NBD clients", error)),
                };
                let Ok(handle) = socket.try_clone() else { continue };
                let number = guests.enter(handle);
                came = true;
                let (guests, total) = (&guests, &total);
                let spawned = std::thread::Builder::new().name("nbd".into()).spawn_scoped(scope, move || {
                    let (served, outcome) = self.client(socket);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    total.requests = total.requests.saturating_add(served.requests);
                    total.read = Bytes(total.read.0.saturating_add(served.read.0));
                    total.written = Bytes(total.written.0.saturating_add(served.written.0));
                    drop(total);
                    match outcome {
                        Err(error) if error.kind() != Kind::Interrupted => {
                            tracing::warn!(%error, "an NBD client was cut off, or its disk failed");
                        }
                        _ => {}
                    }
                    guests.leave(number);
                });
                if spawned.is_err() {
                    guests.leave(number);
                }
            };
            guests.turn_out();
            outcome
        })?;
        Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn client(&self, socket: Socket) -> (Served, Result<()>) {
        let target = match &self.content {
            Content::ReadOnly(disk) => Target { disk: &**disk, writer: None },
            Content::Writable(disk) => Target { disk: &**disk, writer: Some(&**disk) },
        };
        let offer = Offer {
            size: target.disk.size().0,
            preferred: target.disk.sector_size().0,
            read_only: target.writer.is_none(),
            name: self.options.export.clone(),
            description: self.options.description.clone(),
            many: self.options.connections > 1,
        };
        let stream = Stream::plain(socket);
        stream.set_deadline(Some(Instant::now() + GREETING));
        let greeted = stream
            .set_timeout(Some(GREETING))
            .map_err(lost)
            .and_then(|()| negotiate(stream, &offer, self.tls.as_ref()))
            .and_then(|agreed| match agreed {
                None => Ok(None),
                Some((stream, chosen)) => {
                    // A client may be idle as long as it likes.
                    stream.set_deadline(None);
                    stream.set_timeout(None).map_err(lost)?;
                    Ok(Some((stream, chosen)))
                }
            });
        match greeted {
            Ok(Some((stream, chosen))) => {
                let outcome = transmit::run(target, &stream, &self.room, chosen);
                stream.shutdown();
                outcome
            }
            Ok(None) => (Served::default(), Ok(())),
            Err(error) => (Served::default(), Err(error)),
        }
    }
}

fn recovers(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::AGAIN
                | Errno::INTR
                | Errno::MFILE
                | Errno::NFILE
                | Errno::NOBUFS
                | Errno::NOMEM
                | Errno::PROTO
                | Errno::PERM
                | Errno::NETDOWN
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::NOTCONN
        )
    )
}
