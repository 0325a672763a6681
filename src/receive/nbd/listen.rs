//! Sockets that clients connect to, and who may be in front of the door at once.

use super::config::{Limits, Listen};
use landfall_image::{Error, Result};
use rustls::ServerConfig;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that the kernel keeps until they are taken.
const BACKLOG: i32 = 512;

/// A socket that is open for clients.
pub(super) enum Door {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener, Option<Arc<ServerConfig>>),
}

/// The file of a socket, which goes away with it.
pub(super) struct SocketFile(pub PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(super) fn open(listen: &Listen) -> Result<Door> {
    match listen {
        Listen::Unix(path) => unix(path),
        Listen::Tcp { address, tls, .. } => {
            // Certificates first: a port is not taken in vain.
            let tls = tls.as_ref().map(landfall_image::nbd::TlsFiles::server).transpose()?;
            let failed = |e| Error::io(format!("cannot listen on {address}"), e);
            let listener = TcpListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            Ok(Door::Tcp(listener, tls))
        }
    }
}

/// A socket for this user only. One that a receiver left which is no longer there is replaced; anything else stays.
fn unix(path: &Path) -> Result<Door> {
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
    Ok(Door::Unix(UnixListener::from(socket), file))
}

impl Door {
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Door::Unix(..) => None,
            Door::Tcp(listener, _) => listener.local_addr().ok(),
        }
    }
}

/// Counts connections that were not let in yet.
pub(super) struct Gate {
    greeting: Arc<Semaphore>,
    per_address: usize,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place in front of the door, given back when it is dropped.
pub(super) struct Ticket {
    _greeting: OwnedSemaphorePermit,
    address: Option<IpAddr>,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Gate {
    pub(super) fn new(limits: &Limits) -> Gate {
        Gate {
            greeting: Arc::new(Semaphore::new(limits.greeting.min(Semaphore::MAX_PERMITS))),
            per_address: limits.greeting_per_address,
            addresses: Arc::default(),
        }
    }

    /// A place, or which limit is reached.
    pub(super) fn enter(&self, from: Option<IpAddr>) -> std::result::Result<Ticket, &'static str> {
        let greeting = self.greeting.clone().try_acquire_owned();
        let greeting = greeting.map_err(|_| "too many connections have not been let in yet")?;
        let address = from.map(network);
        if let Some(address) = address {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let count = addresses.entry(address).or_default();
            if *count >= self.per_address {
                return Err("too many connections of this address have not been let in yet");
            }
            *count += 1;
        }
        Ok(Ticket { _greeting: greeting, address, addresses: self.addresses.clone() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_and_out() {
        let limits = Limits { greeting: 3, greeting_per_address: 2, ..Limits::default() };
        let gate = Gate::new(&limits);
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
    fn a_socket_is_this_users_alone_and_one_left_behind_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        // As after kill -9: the file stays, nobody listens.
        drop(UnixListener::bind(&path).unwrap());
        let door = open(&Listen::Unix(path.clone())).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(open(&Listen::Unix(path.clone())).is_err(), "somebody listens");
        drop(door);
        assert!(!path.exists());
        std::fs::write(&path, b"precious").unwrap();
        assert!(open(&Listen::Unix(path.clone())).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
