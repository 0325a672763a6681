//! Where a receiver listens, and how much its clients may take.

use landfall_image::nbd::TlsFiles;
use landfall_image::nbd::protocol::REQUEST_AT_MOST;
use landfall_image::{Bytes, Error, Result};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// One place that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A socket that is made at this path, for this user only (mode 0600). Needs no credentials: who can open it is
    /// this user, or root.
    Unix(PathBuf),
    /// An address and port; port 0 takes a free one.
    Tcp {
        /// The address and port.
        address: SocketAddr,
        /// The server's certificate, its key, and the authority (`ca`) that clients' certificates must be of.
        tls: Option<TlsFiles>,
        /// Without `tls`: whoever is on this machine may read and write every export. Only for loopback addresses.
        anybody_on_this_machine: bool,
    },
}

/// What clients may take. The defaults keep 1,500 exports with clients that send as fast as they can under 1 GiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, those that greet included. More are hung up on.
    pub connections: usize,
    /// Connections that have not been let in yet.
    pub greeting: usize,
    /// Of these, from one address (one /64 of IPv6).
    pub greeting_per_address: usize,
    /// From the connection to the first request.
    pub handshake: Duration,
    /// Between two messages of the handshake.
    pub handshake_idle: Duration,
    /// Without a byte in the middle of a request, or without a byte of a reply being taken.
    pub stall: Duration,
    /// Replies wait no longer than this for those of requests that came with theirs.
    pub gather: Duration,
    /// After this much of a stop, those that are still busy are cut off.
    pub shutdown: Duration,
    /// Memory for all connections that send many short requests.
    pub batch_memory: Bytes,
    /// Memory for the data of long writes, of all connections. At least one of the largest fits.
    pub write_memory: Bytes,
    /// Memory for the replies to reads, of all connections. At least one of the largest fits.
    pub read_memory: Bytes,
    /// Memory for replies to reads of one connection. One reply of any size fits.
    pub read_memory_each: Bytes,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 4096,
            greeting: 256,
            greeting_per_address: 16,
            handshake: Duration::from_secs(20),
            handshake_idle: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            gather: Duration::from_micros(250),
            shutdown: Duration::from_secs(10),
            batch_memory: Bytes::mib(96),
            write_memory: Bytes::mib(192),
            read_memory: Bytes::mib(128),
            read_memory_each: Bytes::mib(8),
        }
    }
}

/// How a receiver is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect.
    pub listen: Vec<Listen>,
    /// What they may take.
    pub limits: Limits,
}

impl Config {
    /// Looks for what must not be; opens nothing.
    ///
    /// # Errors
    /// [`Kind::Refused`](landfall_image::Kind::Refused) where strangers could write to an export, or nothing could.
    pub fn check(&self) -> Result<()> {
        if self.listen.is_empty() {
            return Err(Error::refused("the receiver listens nowhere")
                .hint("name a socket, or an address with certificates, that clients can connect to"));
        }
        for listen in &self.listen {
            let Listen::Tcp { address, tls, anybody_on_this_machine } = listen else { continue };
            match tls {
                None if !address.ip().is_loopback() => {
                    return Err(Error::refused(format!(
                        "{address} can be reached by others, who could write to every disk"
                    ))
                    .hint(
                        "give the server's certificate, its key and the authority of the clients' certificates, \
                         or listen on a local socket",
                    ));
                }
                None if !anybody_on_this_machine => {
                    return Err(Error::refused(format!(
                        "without TLS everybody on this machine could write to every disk through {address}"
                    ))
                    .hint(
                        "give certificates, listen on a local socket, which is this user's alone, or say that \
                         anybody on this machine may",
                    ));
                }
                None => {}
                Some(files) if files.ca.is_none() => {
                    return Err(Error::refused(format!(
                        "no authority is named for the certificates of those who connect to {address}"
                    ))
                    .hint("give the certificate of the authority that signs the clients' certificates"));
                }
                Some(_) => {}
            }
        }
        let limits = &self.limits;
        for (what, has) in [
            ("connections", limits.connections),
            ("connections that greet", limits.greeting),
            ("connections that greet from one address", limits.greeting_per_address),
        ] {
            if has == 0 {
                return Err(Error::refused(format!("a limit of 0 {what} lets nobody in")));
            }
        }
        for (what, has) in [("writes", limits.write_memory), ("reads", limits.read_memory)] {
            let least = Bytes(REQUEST_AT_MOST.0 + (1 << 20));
            if has < least || has > Bytes::gib(1024) {
                return Err(Error::refused(format!(
                    "memory for {what} is {has}; between {least}, for the largest request, and 1 TiB is possible"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(listen: Listen) -> Result<()> {
        Config { listen: vec![listen], ..Config::default() }.check()
    }

    #[test]
    fn strangers_are_kept_out_by_the_configuration() {
        let files = || TlsFiles { ca: Some("ca.pem".into()), ..TlsFiles::default() };
        for (address, tls, anybody, good) in [
            ("192.0.2.1:10809", None, true, false),
            ("0.0.0.0:10809", None, true, false),
            ("[::]:10809", None, true, false),
            ("127.0.0.1:10809", None, false, false),
            ("127.0.0.1:10809", None, true, true),
            ("[::1]:10809", None, true, true),
            ("192.0.2.1:10809", Some(files()), false, true),
            ("127.0.0.1:10809", Some(TlsFiles::default()), false, false),
            ("192.0.2.1:10809", Some(TlsFiles::default()), true, false),
        ] {
            let listen =
                Listen::Tcp { address: address.parse().unwrap(), tls, anybody_on_this_machine: anybody };
            let outcome = with(listen.clone());
            assert_eq!(outcome.is_ok(), good, "{listen:?}: {outcome:?}");
            if let Err(error) = outcome {
                assert!(error.hint_text().is_some(), "{error}");
            }
        }
        assert!(with(Listen::Unix("s".into())).is_ok());
        assert!(Config::default().check().is_err(), "nowhere to connect to");
    }

    #[test]
    fn memory_holds_the_largest_request() {
        let listen = vec![Listen::Unix("s".into())];
        let limits = Limits { write_memory: REQUEST_AT_MOST, ..Limits::default() };
        assert!(Config { listen, limits }.check().is_err());
    }
}
