//! The Network Block Device protocol, both sides of it.
//!
//! Source: the NBD project's `doc/proto.md`, sections "Newstyle negotiation", "Metadata querying" and "Transmission",
//! and `doc/uri.md`. All integers are big-endian.
//!
//! ```text
//! server: "NBDMAGIC" "IHAVEOPT" flags:16          client: flags:32
//! client: "IHAVEOPT" option:32 length:32 data     server: reply magic:64 option:32 type:32 length:32 data   (repeated)
//! client: 0x25609513 flags:16 type:16 cookie:64 offset:64 length:32 [data]
//! server: 0x67446698 error:32 cookie:64 [data]                                                              (repeated)
//!    or   0x668e33ef flags:16 type:16 cookie:64 length:32 data              (structured: one or more for a request)
//! ```
//!
//! [`Client`] reads an export as a [`Disk`](crate::Disk), [`create`] writes a disk to one. [`serve`] answers one client over a
//! socket that the caller made: whoever holds the other end of the pair is allowed. [`Server`] listens, to many
//! clients, with TLS where it is set up. A server of another build (the receiver of replicated disks, which has
//! thousands of clients) shares what has no socket in it: [`protocol`], [`handshake`] and [`answer`].
//!
//! Absent: the oldstyle handshake, extended headers and `RESIZE`, pre-shared keys, opportunistic TLS (a
//! connection is encrypted, or was never asked to be), and reconnection.

pub mod answer;
mod client;
mod connection;
mod greet;
pub mod handshake;
pub mod protocol;
mod server;
mod sink;
mod stream;
mod transmit;
mod uri;

pub use client::{Client, ClientOptions};
pub use protocol::REQUEST_AT_MOST;
pub use server::{Content, Listener, ServeOptions, Server, serve};
pub use sink::create;
pub use stream::TlsFiles;
pub use uri::{Address, PORT, Uri};

use crate::units::Bytes;

/// How an export behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// Writes are refused with `EPERM`, and the client is told beforehand.
    pub read_only: bool,
}

/// What clients did, for reports and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests answered, failed ones included.
    pub requests: u64,
    /// Bytes sent to the client.
    pub read: Bytes,
    /// Bytes stored for the client.
    pub written: Bytes,
}

#[cfg(test)]
mod tests;
