//! A disk served over the Network Block Device protocol, so that another process on this machine (QEMU) can use
//! an overlay as if it were a device.
//!
//! Source: the NBD protocol document of the NBD project (`doc/proto.md`), sections "Newstyle negotiation" and
//! "Transmission". All integers are big-endian.
//!
//! ```text
//! server: "NBDMAGIC" "IHAVEOPT" flags:16          client: flags:32
//! client: "IHAVEOPT" option:32 length:32 data     server: reply magic:64 option:32 type:32 length:32 data   (repeated)
//! client: 0x25609513 flags:16 type:16 cookie:64 offset:64 length:32 [data]
//! server: 0x67446698 error:32 cookie:64 [data]                                                              (repeated)
//! ```
//!
//! One client per disk, over a socket that the caller made: whoever holds the other end of the pair is allowed, so
//! there is no authentication and no TLS. Absent as well: structured replies and block status (a client falls back
//! to simple replies), `FUA` (every write is in the overlay when it is answered), several connections to one disk.

mod handshake;
mod transmit;

use crate::disk::DiskMut;
use crate::error::{Error, Result};
use crate::units::Bytes;
use std::io;
use std::os::unix::net::UnixStream;

/// Largest request that is answered: what the protocol document tells a client to rely on without asking.
pub const REQUEST_AT_MOST: Bytes = Bytes::mib(32);

/// Bytes of option data that are read. Names are at most 4096 bytes; the rest of an option is a few more.
const OPTION_AT_MOST: u32 = 16 << 10;

/// Options that one client may send before it starts: a real one sends about five.
const OPTIONS_AT_MOST: usize = 64;

/// How an export behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// Writes are refused with `EPERM`, and the client is told beforehand.
    pub read_only: bool,
}

/// What a client did, for reports and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests answered, failed ones included.
    pub requests: u64,
    /// Bytes sent to the client.
    pub read: Bytes,
    /// Bytes stored for the client.
    pub written: Bytes,
}

/// Serves `disk` on `stream` until the client disconnects; a closed socket counts as that. Returns an error where
/// the client breaks the protocol or the socket fails. An error of the disk is the client's to handle (`EIO`); the
/// first one is kept and returned at the end, so that the caller can say what the client could not.
///
/// Blocks: run it on a thread of its own. Memory: one request, at most [`REQUEST_AT_MOST`]. To stop it from outside,
/// shut the socket down.
pub fn serve(disk: &dyn DiskMut, stream: &UnixStream, export: Export) -> Result<Served> {
    let size = disk.size().0;
    if !handshake::negotiate(stream, size, disk.sector_size().0, export)? {
        return Ok(Served::default());
    }
    transmit::Transmission::new(disk, stream, export).run()
}

/// An error of the socket.
fn lost(error: io::Error) -> Error {
    Error::io("the NBD connection failed", error)
}

#[cfg(test)]
mod tests;
