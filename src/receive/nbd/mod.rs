//! The NBD receiver: a server for the disks of many machines, written to by their hypervisors.
//!
//! Source: the NBD project's `doc/proto.md`. Numbers, handshake and answers are those of [`landfall_image::nbd`], whose
//! own server has a thread per client; this one has a task per client and counts its memory.
//!
//! ```text
//! listen -> gate (how many may greet, from where) -> greet (TLS, options) -> connection: read | apply in order | reply
//!                                                                                  \ inbox   \ DiskMut
//! ```
//!
//! - Requests that change a disk are applied in the order in which they came on a connection, one at a time, and each is
//!   answered when it has been applied: on the spot, or, where the disk has been slow or has to flush, while another
//!   thread takes over the other connections. Reads go on beside them.
//! - Memory: every connection has [`INBOX_IDLE`] bytes, more only out of shares of what [`Limits`] allows for all.
//!   Where they are used up, clients wait: their sockets are not read meanwhile.
//! - What one client does wrong ends its own connection, with a line in the log that says who, what and why.
//!
//! Absent: TLS on local sockets, pre-shared keys, and the default export (a client has to say a name).

mod config;
mod connection;
mod greet;
pub mod inbox;
mod listen;
mod memory;
mod receiver;
mod stats;
mod stream;

pub use config::{Config, Limits, Listen};
pub use inbox::{INBOX_BUSY, INBOX_IDLE};
pub use receiver::{Monitor, Receiver};
pub use stats::{ExportStats, Stats, Tally};
