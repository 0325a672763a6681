//! One connection in transmission, shared by many threads: each sends its request and waits for its own answer.
//!
//! There is no thread that receives. Whoever waits and finds nobody reading reads the next reply's head; if the reply
//! is another's, that thread is woken and reads what follows straight into its own buffer. So there is one copy from
//! the socket to where the bytes are wanted, and requests of many threads are under way at once.
//!
//! A connection that breaks the protocol, closes or falls silent is dead from then on, for every thread.

use super::greet::{About, lost, printable};
use super::protocol::*;
use super::stream::Stream;
use super::uri::Uri;
use crate::error::{Error, Kind, Result};
use crate::units::{Bytes, FileOffset, GuestOffset, GuestRange};
use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Pieces that one read may be answered in without their being adjacent. Real servers send a handful.
const PIECES_AT_MOST: usize = 4096;
/// Bytes of a server's description of an error.
const WORDS_AT_MOST: u32 = 4096 + 14;
/// Extents in one answer; each takes 8 bytes, and most of them are skipped, not kept.
const EXTENTS_AT_MOST: u32 = 1 << 20;

pub(super) struct Connection {
    pub(super) stream: Stream,
    uri: Arc<Uri>,
    structured: bool,
    /// Numbers of all contexts that were agreed on: each answer about extents has a part for each.
    contexts: Vec<u32>,
    timeout: Duration,
    sending: Mutex<()>,
    turn: Mutex<Turn>,
    changed: Condvar,
    in_flight: AtomicUsize,
}

#[derive(Default)]
struct Turn {
    /// Somebody reads from the socket.
    reading: bool,
    /// A head that was read for another thread.
    head: Option<Head>,
    /// Requests that are not answered.
    waiting: HashSet<u64>,
    next_cookie: u64,
    dead: Option<(Kind, String)>,
}

/// The head of a reply.
#[derive(Clone, Copy)]
struct Head {
    cookie: u64,
    what: Reply,
}

#[derive(Clone, Copy)]
enum Reply {
    Simple { error: u32 },
    Chunk { flags: u16, kind: u16, len: u32 },
}

/// What a request brings back.
pub(super) enum Want<'a> {
    /// Only that it is done.
    Done,
    /// These bytes.
    Data(&'a mut [u8]),
    /// Lengths and flags of extents, at most that many, of the context with that number.
    Extents(&'a mut Vec<(u32, u32)>, usize, u32),
}

/// One request, without its data.
#[derive(Clone, Copy)]
pub(super) struct Ask {
    pub command: u16,
    pub flags: u16,
    pub offset: u64,
    pub len: u32,
}

/// The server's word that a request failed.
pub(super) struct Failed {
    pub errno: u32,
    words: String,
}

impl Connection {
    pub(super) fn new(stream: Stream, about: &About, uri: Arc<Uri>, timeout: Duration) -> Connection {
        Connection {
            stream,
            uri,
            structured: about.structured,
            contexts: about
                .allocation
                .into_iter()
                .chain(about.contexts.iter().map(|(_, number)| *number))
                .collect(),
            timeout,
            sending: Mutex::new(()),
            turn: Mutex::new(Turn::default()),
            changed: Condvar::new(),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Requests that were sent and not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request with its data and waits for what it brings. The inner error is the server's, the outer one
    /// the end of the connection.
    pub(super) fn request(&self, ask: Ask, data: &[u8], want: Want<'_>) -> Result<Result<(), Failed>> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let outcome = self.send(ask, data).and_then(|cookie| self.receive(cookie, ask, want));
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        outcome
    }

    /// The word that nothing more comes; it has no answer.
    pub(super) fn leave(&self) {
        if self.turn().dead.is_none() {
            let bye = Request { flags: 0, command: CMD_DISC, cookie: 0, offset: 0, len: 0 };
            let _ = (&self.stream).write_all(&bye.to_bytes());
        }
        self.stream.shutdown();
    }

    fn send(&self, ask: Ask, data: &[u8]) -> Result<u64> {
        let cookie = {
            let mut turn = self.turn();
            self.alive(&turn)?;
            turn.next_cookie += 1;
            let cookie = turn.next_cookie;
            turn.waiting.insert(cookie);
            cookie
        };
        let Ask { command, flags, offset, len } = ask;
        let head = Request { flags, command, cookie, offset, len }.to_bytes();
        let sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = (&self.stream).write_all(&head).and_then(|()| (&self.stream).write_all(data));
        drop(sending);
        sent.map_err(|e| {
            self.die(lost(&self.uri, "cannot send a request to the NBD server", e).at(FileOffset(offset)))
        })?;
        Ok(cookie)
    }

    /// An error, if the connection is dead.
    fn alive(&self, turn: &Turn) -> Result<()> {
        match &turn.dead {
            None => Ok(()),
            Some((kind, says)) => {
                Err(Error::new(*kind, format!("the connection is gone: {says}")).in_file(self.uri.as_path()))
            }
        }
    }

    /// Marks the connection as dead and wakes everybody.
    fn die(&self, error: Error) -> Error {
        let mut turn = self.turn();
        turn.dead.get_or_insert_with(|| {
            let cause = error.io_error().map_or_else(String::new, |e| format!(": {e}"));
            (error.kind(), format!("{}{cause}", error.says()))
        });
        turn.reading = false;
        drop(turn);
        self.stream.shutdown();
        self.changed.notify_all();
        error
    }

    fn corrupt(&self, says: impl Into<String>) -> Error {
        Error::corrupt(says).in_file(self.uri.as_path())
    }

    /// Fills `buf`. A reply has to come at a MiB per time limit at least, so that a trickle is not a hang.
    fn read(&self, buf: &mut [u8]) -> Result<()> {
        let pieces = u32::try_from(buf.len() >> 20).unwrap_or(u32::MAX).saturating_add(1);
        self.stream.set_deadline(Instant::now().checked_add(self.timeout.saturating_mul(pieces)));
        (&self.stream).read_exact(buf).map_err(|e| {
            let silent = e.kind() == std::io::ErrorKind::TimedOut;
            let error = lost(&self.uri, "the NBD server does not answer", e);
            match silent {
                true => error.hint(format!(
                    "it was given {} seconds; look whether the server is alive and its storage works",
                    self.timeout.as_secs()
                )),
                false => error,
            }
        })
    }

    fn read_array<const N: usize>(&self) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.read(&mut out)?;
        Ok(out)
    }

    fn read_head(&self) -> Result<Head> {
        let head = self.read_array::<16>()?;
        let mut fields = Fields(&head);
        match fields.u32().unwrap_or_default() {
            SIMPLE_REPLY_MAGIC => {
                let error = fields.u32().unwrap_or_default();
                Ok(Head { cookie: fields.u64().unwrap_or_default(), what: Reply::Simple { error } })
            }
            CHUNK_MAGIC if self.structured => {
                let flags = fields.u16().unwrap_or_default();
                let kind = fields.u16().unwrap_or_default();
                let cookie = fields.u64().unwrap_or_default();
                let len = u32::from_be_bytes(self.read_array()?);
                Ok(Head { cookie, what: Reply::Chunk { flags, kind, len } })
            }
            magic => Err(self.corrupt(format!("the NBD server answers with magic {magic:#x}"))),
        }
    }

    /// Waits until a head for `cookie` has come; its caller then is the one who reads.
    fn next_head(&self, cookie: u64) -> Result<Reply> {
        let mut turn = self.turn();
        loop {
            self.alive(&turn)?;
            match turn.head {
                Some(head) if head.cookie == cookie => {
                    turn.head = None;
                    turn.reading = true;
                    return Ok(head.what);
                }
                None if !turn.reading => {
                    turn.reading = true;
                    drop(turn);
                    let head = self.read_head().map_err(|e| self.die(e))?;
                    if head.cookie == cookie {
                        return Ok(head.what);
                    }
                    turn = self.turn();
                    if !turn.waiting.contains(&head.cookie) {
                        drop(turn);
                        let says =
                            format!("the NBD server answers a request {:#x} that nobody made", head.cookie);
                        return Err(self.die(self.corrupt(says)));
                    }
                    turn.head = Some(head);
                    turn.reading = false;
                    self.changed.notify_all();
                }
                _ => turn = self.changed.wait(turn).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn receive(&self, cookie: u64, ask: Ask, want: Want<'_>) -> Result<Result<(), Failed>> {
        let mut answer =
            Answer { connection: self, ask, want, got: BTreeMap::new(), seen: Vec::new(), failed: None };
        loop {
            let head = self.next_head(cookie)?;
            let done = answer.take(head).map_err(|e| self.die(e.at(FileOffset(ask.offset))))?;
            let mut turn = self.turn();
            turn.reading = false;
            if done {
                turn.waiting.remove(&cookie);
            }
            drop(turn);
            self.changed.notify_all();
            if done {
                return Ok(answer.failed.map_or(Ok(()), Err));
            }
        }
    }

    /// The server's refusal of a request as an error of ours.
    pub(super) fn failure(&self, ask: Ask, failed: &Failed) -> Error {
        let doing = match ask.command {
            CMD_READ => "cannot read",
            CMD_WRITE => "cannot write",
            CMD_FLUSH => "cannot flush",
            CMD_WRITE_ZEROES => "cannot write zeros",
            CMD_BLOCK_STATUS => "cannot tell what is allocated",
            _ => "cannot do it",
        };
        let words = if failed.words.is_empty() { String::new() } else { format!(" ({})", failed.words) };
        let says = format!("the NBD server {doing} {} bytes{words}", ask.len);
        let error = match failed.errno {
            EPERM => Error::refused(format!("{says}: not permitted")),
            ENOTSUP => Error::unsupported(format!("{says}: not supported")),
            ESHUTDOWN => Error::io(
                format!("{says}: it is shutting down"),
                std::io::ErrorKind::ConnectionAborted.into(),
            ),
            errno => {
                let errno = i32::try_from(errno).ok().filter(|errno| *errno < 4096).unwrap_or(5);
                Error::io(says, std::io::Error::from_raw_os_error(errno))
            }
        };
        error.in_file(self.uri.as_path()).at(FileOffset(ask.offset))
    }
}

/// A reply as it comes in, chunk by chunk.
struct Answer<'a, 'b> {
    connection: &'a Connection,
    ask: Ask,
    want: Want<'b>,
    /// Runs of the buffer that are filled: start -> end. No byte may come twice or not at all.
    got: BTreeMap<u64, u64>,
    /// Contexts of which extents came.
    seen: Vec<u32>,
    failed: Option<Failed>,
}

impl Answer<'_, '_> {
    /// Takes what follows a head. True where that was the last.
    fn take(&mut self, head: Reply) -> Result<bool> {
        let is_read = matches!(self.want, Want::Data(_));
        let wants_extents = matches!(self.want, Want::Extents(..));
        match head {
            Reply::Simple { error: 0 } if wants_extents || (is_read && self.connection.structured) => {
                Err(self.corrupt("a simple reply where a structured one was agreed on"))
            }
            Reply::Simple { error: 0 } => {
                if let Want::Data(buf) = &mut self.want {
                    self.connection.read(buf)?;
                }
                Ok(true)
            }
            Reply::Simple { error } => {
                self.failed = Some(Failed { errno: error, words: String::new() });
                Ok(true)
            }
            Reply::Chunk { flags, kind, len } => {
                self.chunk(kind, len, flags & CHUNK_DONE != 0)?;
                if flags & CHUNK_DONE == 0 {
                    return Ok(false);
                }
                self.is_complete()?;
                Ok(true)
            }
        }
    }

    fn corrupt(&self, says: &str) -> Error {
        self.connection
            .corrupt(format!("the NBD server's reply to request type {} is {says}", self.ask.command))
    }

    fn chunk(&mut self, kind: u16, len: u32, last: bool) -> Result<()> {
        match kind {
            CHUNK_NONE if len == 0 && last => Ok(()),
            CHUNK_OFFSET_DATA if len > 8 => {
                let start = u64::from_be_bytes(self.connection.read_array()?);
                let place = self.place(start, u64::from(len) - 8)?;
                if let Want::Data(buf) = &mut self.want {
                    self.connection.read(&mut buf[place])?;
                }
                Ok(())
            }
            CHUNK_OFFSET_HOLE if len == 12 => {
                let start = u64::from_be_bytes(self.connection.read_array()?);
                let hole = u32::from_be_bytes(self.connection.read_array()?);
                let place = self.place(start, u64::from(hole))?;
                if let Want::Data(buf) = &mut self.want {
                    buf[place].fill(0);
                }
                Ok(())
            }
            CHUNK_BLOCK_STATUS if len >= 12 && len % 8 == 4 => self.extents((len - 4) / 8),
            kind if kind & CHUNK_IS_ERROR != 0 => {
                if !(6..=WORDS_AT_MOST).contains(&len) {
                    return Err(self.corrupt(&format!("an error of {len} bytes")));
                }
                let mut body = vec![0; usize::try_from(len).unwrap_or_default()];
                self.connection.read(&mut body)?;
                let mut fields = Fields(&body);
                let errno = fields.u32().unwrap_or(EIO);
                let words = usize::from(fields.u16().unwrap_or_default());
                let words = fields.0.get(..words).map(printable).unwrap_or_default();
                // Zero is no error; it must not become a success.
                let errno = if errno == 0 { EIO } else { errno };
                self.failed.get_or_insert(Failed { errno, words });
                Ok(())
            }
            kind => Err(self.corrupt(&format!("a chunk of type {kind} with {len} bytes"))),
        }
    }

    /// Where in the buffer a piece belongs that the server says lies there on the disk.
    fn place(&mut self, start: u64, len: u64) -> Result<std::ops::Range<usize>> {
        let Want::Data(buf) = &self.want else {
            return Err(self.corrupt("data that was not asked for"));
        };
        let asked = GuestRange::new(GuestOffset(self.ask.offset), Bytes(buf.len() as u64));
        let inside = start
            .checked_add(len)
            .is_some_and(|end| len > 0 && start >= asked.start().0 && end <= asked.end().0);
        if !inside {
            return Err(self.corrupt(&format!("{len} bytes from {start:#x} on, which were not asked for")));
        }
        let end = start + len;
        let before = self.got.range(..end).next_back().map(|(&start, &end)| (start, end));
        match before {
            Some((_, filled)) if filled > start => {
                return Err(self.corrupt(&format!("two answers for the byte at {start:#x}")));
            }
            Some((first, filled)) if filled == start => {
                self.got.insert(first, end);
            }
            _ => {
                self.got.insert(start, end);
            }
        }
        if self.got.len() > PIECES_AT_MOST {
            return Err(self.corrupt(&format!("more than {PIECES_AT_MOST} scattered pieces")));
        }
        let from = usize::try_from(start - asked.start().0).unwrap_or(usize::MAX);
        Ok(from..from + usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn extents(&mut self, count: u32) -> Result<()> {
        let context = u32::from_be_bytes(self.connection.read_array()?);
        let Want::Extents(out, at_most, wanted) = &mut self.want else {
            return Err(self.corrupt("a map that was not asked for"));
        };
        // Those of the other contexts come along.
        let at_most = if context == *wanted { *at_most } else { 0 };
        let is_known = self.connection.contexts.contains(&context) && !self.seen.contains(&context);
        self.seen.push(context);
        if count > EXTENTS_AT_MOST || !is_known {
            let says = format!("{count} extents of the context {context}");
            return Err(self.corrupt(&says));
        }
        let mut block = [0; 8 * 512];
        let mut left = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(8);
        while left > 0 {
            let some = left.min(block.len());
            self.connection.read(&mut block[..some])?;
            left -= some;
            let mut fields = Fields(&block[..some]);
            while let (Some(len), Some(flags)) = (fields.u32(), fields.u32()) {
                if len == 0 {
                    return Err(self.corrupt("an extent without length"));
                }
                if out.len() < at_most {
                    out.push((len, flags));
                }
            }
        }
        Ok(())
    }

    /// The last chunk has come: is everything there?
    fn is_complete(&self) -> Result<()> {
        if self.failed.is_some() {
            return Ok(());
        }
        match &self.want {
            Want::Done => Ok(()),
            Want::Data(buf) => {
                let filled: u64 = self.got.iter().map(|(start, end)| end - start).sum();
                if filled == buf.len() as u64 {
                    return Ok(());
                }
                Err(self.corrupt(&format!("{filled} bytes of {}", buf.len())))
            }
            Want::Extents(out, ..) if out.is_empty() => Err(self.corrupt("without any extent")),
            Want::Extents(..) => Ok(()),
        }
    }
}
