//! The transmission phase: one request, one simple reply, in order.

use super::{Export, REQUEST_AT_MOST, Served, lost};
use crate::disk::DiskMut;
use crate::error::{Error, Kind, Result};
use crate::units::{Bytes, GuestOffset, GuestRange};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const REQUEST_LEN: usize = 28;
const REPLY_LEN: usize = 16;

const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;
const CMD_TRIM: u16 = 4;
const CMD_WRITE_ZEROES: u16 = 6;

/// `WRITE_ZEROES` may leave a hole or not: both read as zeros here, so this flag changes nothing.
const FLAG_NO_HOLE: u16 = 1 << 1;

const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const EOVERFLOW: u32 = 75;

/// One request without its data.
///
/// ```text
/// 0 magic:32   4 flags:16   6 type:16   8 cookie:64   16 offset:64   24 length:32
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    flags: u16,
    command: u16,
    cookie: u64,
    offset: u64,
    len: u32,
}

impl Request {
    fn parse(head: &[u8; REQUEST_LEN]) -> Result<Request> {
        let (magic, rest) = take::<4>(head);
        let (flags, rest) = take::<2>(rest);
        let (command, rest) = take::<2>(rest);
        let (cookie, rest) = take::<8>(rest);
        let (offset, rest) = take::<8>(rest);
        let (len, _) = take::<4>(rest);
        let magic = u32::from_be_bytes(magic);
        if magic != REQUEST_MAGIC {
            return Err(Error::corrupt(format!("NBD request magic is {magic:#x}, not {REQUEST_MAGIC:#x}")));
        }
        Ok(Request {
            flags: u16::from_be_bytes(flags),
            command: u16::from_be_bytes(command),
            cookie: u64::from_be_bytes(cookie),
            offset: u64::from_be_bytes(offset),
            len: u32::from_be_bytes(len),
        })
    }
}

/// The first `N` bytes of a slice that has them, zeros otherwise.
fn take<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    bytes.split_first_chunk::<N>().map_or(([0; N], bytes), |(first, rest)| (*first, rest))
}

pub(super) struct Transmission<'a> {
    disk: &'a dyn DiskMut,
    requests: BufReader<&'a UnixStream>,
    replies: &'a UnixStream,
    export: Export,
    served: Served,
    first_error: Option<Error>,
    /// Reused for every request's data. [`REPLY_LEN`] bytes are kept free before a read's data, so that a reply
    /// is one write.
    buffer: Vec<u8>,
}

impl<'a> Transmission<'a> {
    pub(super) fn new(disk: &'a dyn DiskMut, stream: &'a UnixStream, export: Export) -> Self {
        Transmission {
            disk,
            requests: BufReader::with_capacity(64 << 10, stream),
            replies: stream,
            export,
            served: Served::default(),
            first_error: None,
            buffer: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<Served> {
        while self.one_request()? {}
        match self.first_error {
            Some(error) => Err(error),
            None => Ok(self.served),
        }
    }

    /// False where the client is done.
    fn one_request(&mut self) -> Result<bool> {
        let mut head = [0; REQUEST_LEN];
        match self.requests.read_exact(&mut head) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return Ok(false);
            }
            Err(e) => return Err(lost(e)),
        }
        let request = Request::parse(&head)?;
        if request.command == CMD_DISC {
            return Ok(false);
        }
        self.served.requests = self.served.requests.saturating_add(1);
        let too_big = u64::from(request.len) > REQUEST_AT_MOST.0;
        if request.command == CMD_WRITE {
            if too_big {
                return Err(Error::refused(format!(
                    "the NBD client sends {} bytes in one write; at most {} are taken",
                    request.len, REQUEST_AT_MOST.0
                )));
            }
            // The data must be taken off the socket even where the request is refused.
            self.resize(request.len);
            let data = self.buffer.get_mut(REPLY_LEN..).unwrap_or_default();
            self.requests.read_exact(data).map_err(lost)?;
        }
        let outcome = self.outcome(&request, too_big);
        let sends_data = request.command == CMD_READ && outcome.is_ok();
        if !sends_data {
            self.buffer.resize(REPLY_LEN, 0);
        }
        let mut reply = [0; REPLY_LEN];
        reply[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
        reply[4..8].copy_from_slice(&outcome.err().unwrap_or(0).to_be_bytes());
        reply[8..].copy_from_slice(&request.cookie.to_be_bytes());
        if let Some(place) = self.buffer.get_mut(..REPLY_LEN) {
            place.copy_from_slice(&reply);
        }
        self.replies.write_all(&self.buffer).map_err(lost)?;
        // One huge request must not keep its memory for the life of the connection.
        self.buffer.clear();
        self.buffer.shrink_to(1 << 20);
        Ok(true)
    }

    /// Does it; `Err` is the protocol's error number.
    fn outcome(&mut self, request: &Request, too_big: bool) -> Result<(), u32> {
        let len = u64::from(request.len);
        let range = GuestRange::new(GuestOffset(request.offset), Bytes(len));
        let fits = request.offset.checked_add(len).is_some_and(|end| end <= self.disk.size().0);
        let writes = matches!(request.command, CMD_WRITE | CMD_TRIM | CMD_WRITE_ZEROES);
        let flags = if request.command == CMD_WRITE_ZEROES { FLAG_NO_HOLE } else { 0 };
        if request.flags & !flags != 0 {
            return Err(EINVAL);
        }
        if writes && self.export.read_only {
            return Err(EPERM);
        }
        let done = match request.command {
            CMD_READ if too_big => return Err(EOVERFLOW),
            CMD_READ if !fits => return Err(EINVAL),
            CMD_READ => {
                self.resize(request.len);
                let data = self.buffer.get_mut(REPLY_LEN..).unwrap_or_default();
                self.served.read.0 = self.served.read.0.saturating_add(len);
                self.disk.read_at(range.start(), data)
            }
            CMD_WRITE | CMD_TRIM | CMD_WRITE_ZEROES if !fits => return Err(ENOSPC),
            CMD_WRITE => {
                let data = self.buffer.get(REPLY_LEN..).unwrap_or_default();
                self.served.written.0 = self.served.written.0.saturating_add(len);
                self.disk.write_at(range.start(), data)
            }
            // A trimmed run may read as anything; zeros make the converted disk smaller.
            CMD_TRIM | CMD_WRITE_ZEROES => self.disk.zero_at(range),
            CMD_FLUSH if request.offset == 0 && request.len == 0 => self.disk.flush(),
            _ => return Err(EINVAL),
        };
        done.map_err(|error| {
            let number = match error.io_error().map(std::io::Error::kind) {
                Some(ErrorKind::StorageFull) if writes => ENOSPC,
                _ => EIO,
            };
            tracing::warn!(%error, request = ?request, "a disk under NBD failed");
            // Interrupted is the caller's own doing and says nothing about the disk.
            if self.first_error.is_none() && error.kind() != Kind::Interrupted {
                self.first_error = Some(error);
            }
            number
        })
    }

    fn resize(&mut self, len: u32) {
        self.buffer.resize(REPLY_LEN + usize::try_from(len).unwrap_or(0), 0);
    }
}
