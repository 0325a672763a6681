//! The doors of the service's servers: sockets that clients connect to, who may be in front of them at once, and how much of those who may
//! not is said in the log.

use landfall_image::{Error, Result};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that the kernel keeps until they are taken.
const BACKLOG: i32 = 512;
/// Lines about those who are not let in that go to the log in a second. Anybody can cause them.
const LINES_PER_SECOND: u64 = 10;
/// A client whose machine died is noticed after a minute and a half of silence, and does not hold its place for ever.
const SILENT: Duration = Duration::from_secs(30);
const ASKED_EVERY: Duration = Duration::from_secs(15);
const ASKED_TIMES: u32 = 4;

/// The file of a socket, which goes away with it.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A socket at an address of the network.
pub(crate) fn tcp(address: SocketAddr) -> Result<TcpListener> {
    let failed = |e: io::Error| {
        let hint = match e.kind() {
            ErrorKind::AddrInUse => {
                "another program listens there (ss -ltnp): stop it, or name another port in the service's file"
            }
            ErrorKind::AddrNotAvailable => {
                "this machine has no such address (ip address): name one that it has, or [::] for all"
            }
            ErrorKind::PermissionDenied => "ports below 1024 are not for ordinary users: name a higher one",
            _ => "name another address or port in the service's file",
        };
        Error::io(format!("cannot listen on {address}"), e).hint(hint)
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Sets what every connection over TCP has.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    // Replies are short and waited for.
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENT)?;
    sockopt::set_tcp_keepintvl(stream, ASKED_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, ASKED_TIMES)?;
    Ok(())
}

/// A socket for this user only. One that was left behind by a process which is no longer there is replaced; anything else stays.
pub(crate) fn unix(path: &Path) -> Result<(UnixListener, SocketFile)> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let failed = |e: std::io::Error| Error::io("cannot listen on this socket", e).in_file(path);
    if let Ok(there) = std::fs::symlink_metadata(path) {
        let unused = there.file_type().is_socket()
            && UnixStream::connect(path).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
        if !unused {
            return Err(Error::refused("is there already, and is no socket that was left behind")
                .in_file(path)
                .hint("choose another name, or stop what listens there"));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|e| failed(e.into()))?;
    let address = SocketAddrUnix::new(path).map_err(|e| failed(e.into()))?;
    rustix::net::bind(&socket, &address).map_err(|e| failed(e.into()))?;
    let file = SocketFile(path.to_owned());
    // Before anybody can connect.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    rustix::net::listen(&socket, BACKLOG).map_err(|e| failed(e.into()))?;
    Ok((UnixListener::from(socket), file))
}

/// Counts connections: those that were not let in yet, or all of them.
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    per_address: usize,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place in front of the door, given back when it is dropped.
pub(crate) struct Ticket {
    _place: OwnedSemaphorePermit,
    address: Option<IpAddr>,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Gate {
    /// `all` places in front of the door, `per_address` of them for one address.
    pub(crate) fn new(all: usize, per_address: usize) -> Gate {
        Gate {
            places: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))),
            per_address,
            addresses: Arc::default(),
        }
    }

    /// A place, or which limit is reached.
    pub(crate) fn enter(&self, from: Option<IpAddr>) -> std::result::Result<Ticket, &'static str> {
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| "too many connections are in front of the door")?;
        let address = from.map(network);
        if let Some(address) = address {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let count = addresses.entry(address).or_default();
            if *count >= self.per_address {
                return Err("too many connections of this address are in front of the door");
            }
            *count += 1;
        }
        Ok(Ticket { _place: place, address, addresses: self.addresses.clone() })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&address);
            }
        }
    }
}

/// The address, or the network that one customer has: a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

/// Keeps strangers from filling the log.
#[derive(Debug)]
pub(crate) struct Complaints {
    began: Instant,
    /// The second that is counted, and the lines in it.
    second: AtomicU64,
    lines: AtomicU64,
    unsaid: AtomicU64,
}

impl Default for Complaints {
    fn default() -> Self {
        Complaints {
            began: Instant::now(),
            second: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            unsaid: AtomicU64::new(0),
        }
    }
}

impl Complaints {
    /// Has one line said, with how many were not since the last; or counts it.
    pub(crate) fn say(&self, line: impl FnOnce(u64)) {
        let now = self.began.elapsed().as_secs();
        if self.second.swap(now, Relaxed) != now {
            self.lines.store(0, Relaxed);
        }
        if self.lines.fetch_add(1, Relaxed) < LINES_PER_SECOND {
            line(self.unsaid.swap(0, Relaxed));
        } else {
            self.unsaid.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_and_out() {
        let gate = Gate::new(3, 2);
        let one = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let first = gate.enter(one("2001:db8::1")).ok().unwrap();
        let _second = gate.enter(one("2001:db8::2")).ok().unwrap();
        assert!(gate.enter(one("2001:db8::3")).is_err(), "one network");
        let _other = gate.enter(one("2001:db8:0:1::1")).ok().unwrap();
        assert!(gate.enter(None).is_err(), "three in all");
        drop(first);
        assert!(gate.enter(one("2001:db8::3")).is_ok());
    }

    #[test]
    fn an_address_that_cannot_be_had_is_told_with_what_to_do() {
        let taken = tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = taken.local_addr().unwrap();
        let error = tcp(address).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert!(error.hint_text().unwrap().contains("another program"), "{error:?}");
        let error = tcp("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert!(error.hint_text().unwrap().contains("no such address"), "{error:?}");
    }

    #[test]
    fn a_socket_is_this_users_alone_and_one_left_behind_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        // As after kill -9: the file stays, nobody listens.
        drop(UnixListener::bind(&path).unwrap());
        let door = unix(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(unix(&path).is_err(), "somebody listens");
        drop(door);
        assert!(!path.exists());
        std::fs::write(&path, b"precious").unwrap();
        assert!(unix(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
