//! The server's transmission phase: a few workers take requests off one connection and answer each when it is done,
//! so that one slow request does not hold up the rest.

use super::Served;
use super::handshake::{ALLOCATION, Chosen, lost};
use super::protocol::*;
use super::stream::Stream;
use crate::disk::{Disk, DiskMut, ExtentKind};
use crate::error::{Error, Kind, Result};
use crate::units::{Bytes, GuestOffset, GuestRange, SECTOR_SIZE_BYTES as SECTOR};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Requests of one connection that are answered at once.
const WORKERS: usize = 4;
/// What a worker keeps of its buffer from one request to the next. Clients send less at a time, as a rule.
const BUFFER_KEPT: usize = (2 << 20) + (64 << 10);
/// Longer requests that are answered at once, over all connections of a server: each takes up to 32 MiB of memory.
const LONG_REQUESTS: u32 = 2;
/// Extents in one answer, and pieces that a read is answered in.
const EXTENTS_AT_MOST: usize = 1024;
const PIECES_AT_MOST: usize = 64;
/// Head of a chunk that holds data: magic to length, and the offset.
const DATA_HEAD: usize = 28;
const SIMPLE_HEAD: usize = 16;

/// What is served. Writes go to `writer`, which is the same disk.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub disk: &'a dyn Disk,
    pub writer: Option<&'a dyn DiskMut>,
}

/// Memory for long requests, shared by all connections of a server.
pub(super) struct Room {
    free: Mutex<u32>,
    changed: Condvar,
}

/// A share of it.
struct Share<'a>(&'a Room);

impl Default for Room {
    fn default() -> Self {
        Room { free: Mutex::new(LONG_REQUESTS), changed: Condvar::new() }
    }
}

impl Room {
    /// Waits until there is room for a request of that length; short ones need none.
    fn share(&self, len: u32) -> Option<Share<'_>> {
        if usize::try_from(len).is_ok_and(|len| len <= BUFFER_KEPT) {
            return None;
        }
        let mut free = lock(&self.free);
        while *free == 0 {
            free = self.changed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Some(Share(self))
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.changed.notify_one();
    }
}

struct Transmission<'a> {
    target: Target<'a>,
    stream: &'a Stream,
    room: &'a Room,
    chosen: Chosen,
    requests: Mutex<Requests<'a>>,
    replies: Mutex<()>,
    state: Mutex<State>,
}

struct Requests<'a> {
    from: BufReader<&'a Stream>,
    /// The client is done, or the connection is.
    done: bool,
}

#[derive(Default)]
struct State {
    served: Served,
    first_error: Option<Error>,
    broken: Option<Error>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers until the client leaves. The first error of the disk is kept for the caller; the client has had it as an
/// error number.
pub(super) fn run(target: Target<'_>, stream: &Stream, room: &Room, chosen: Chosen) -> (Served, Result<()>) {
    let requests = Requests { from: BufReader::with_capacity(64 << 10, stream), done: false };
    let transmission = Transmission {
        target,
        stream,
        room,
        chosen,
        requests: Mutex::new(requests),
        replies: Mutex::new(()),
        state: Mutex::new(State::default()),
    };
    std::thread::scope(|scope| {
        for _ in 1..WORKERS {
            // With fewer threads it goes slower, no more.
            let _ =
                std::thread::Builder::new().name("nbd".into()).spawn_scoped(scope, || transmission.work());
        }
        transmission.work();
    });
    let state = transmission.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    (state.served, state.broken.or(state.first_error).map_or(Ok(()), Err))
}

impl Transmission<'_> {
    fn work(&self) {
        let mut buffer = Vec::new();
        loop {
            match self.one_request(&mut buffer) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    lock(&self.state).broken.get_or_insert(error);
                    // Whoever waits for the next request is woken.
                    self.stream.shutdown();
                    return;
                }
            }
        }
    }

    /// False where the client is done.
    fn one_request(&self, buffer: &mut Vec<u8>) -> Result<bool> {
        let taken = {
            let mut requests = lock(&self.requests);
            if requests.done {
                return Ok(false);
            }
            let taken = take(&mut requests.from, self.room, buffer);
            requests.done = !matches!(taken, Ok(Some(_)));
            taken?
        };
        let Some((request, share)) = taken else { return Ok(false) };
        {
            let served = &mut lock(&self.state).served;
            served.requests = served.requests.saturating_add(1);
        }
        let done = self.answer(&request, buffer);
        let reply = match &done {
            Ok(len) => &buffer[..*len],
            Err(refusal) => {
                self.refuse(&request, refusal, buffer);
                &buffer[..]
            }
        };
        let sent = {
            let _alone = lock(&self.replies);
            (&mut &*self.stream).write_all(reply)
        };
        if share.is_some() {
            *buffer = Vec::new();
        }
        // Before the next lock is taken, whose holder may be waiting for it.
        drop(share);
        match sent {
            Ok(()) => Ok(true),
            // It left without waiting for the answer.
            Err(_) if lock(&self.requests).done => Ok(false),
            Err(error) => Err(lost(error)),
        }
    }

    /// Does it and puts the reply into `buffer`; its length.
    fn answer(&self, request: &Request, buffer: &mut Vec<u8>) -> Result<usize, Refusal> {
        let len = u64::from(request.len);
        let range = GuestRange::new(GuestOffset(request.offset), Bytes(len));
        let fits = request.offset.checked_add(len).is_some_and(|end| end <= self.target.disk.size().0);
        let flags = match request.command {
            CMD_READ if self.chosen.structured => CMD_FLAG_DF,
            CMD_WRITE_ZEROES => CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO,
            CMD_BLOCK_STATUS => CMD_FLAG_REQ_ONE,
            _ => 0,
        };
        if request.flags & !flags != 0 {
            return Err(Refusal::of(EINVAL));
        }
        let writes = matches!(request.command, CMD_WRITE | CMD_TRIM | CMD_WRITE_ZEROES);
        let done = match (request.command, self.target.writer) {
            (CMD_READ, _) if len > REQUEST_AT_MOST.0 => return Err(Refusal::of(EOVERFLOW)),
            (CMD_READ | CMD_CACHE, _) if !fits => return Err(Refusal::of(EINVAL)),
            (CMD_READ, _) => {
                let read = &mut lock(&self.state).served.read;
                read.0 = read.0.saturating_add(len);
                self.read(request, range, buffer)
            }
            // Only a hint.
            (CMD_CACHE, _) => Ok(None),
            (CMD_BLOCK_STATUS, _) if !self.chosen.allocation || len == 0 || !fits => {
                return Err(Refusal::of(EINVAL));
            }
            (CMD_BLOCK_STATUS, _) => self.status(request, range, buffer),
            (CMD_FLUSH, _) if request.offset != 0 || len != 0 => return Err(Refusal::of(EINVAL)),
            (CMD_FLUSH, None) => Ok(None),
            (CMD_FLUSH, Some(writer)) => writer.flush().map(|()| None),
            (CMD_WRITE | CMD_TRIM | CMD_WRITE_ZEROES, None) => return Err(Refusal::of(EPERM)),
            (CMD_WRITE | CMD_TRIM | CMD_WRITE_ZEROES, _) if !fits => return Err(Refusal::of(ENOSPC)),
            (CMD_WRITE, Some(writer)) => {
                let written = &mut lock(&self.state).served.written;
                written.0 = written.0.saturating_add(len);
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                writer.write_at(range.start(), buffer.get(..len).unwrap_or_default()).map(|()| None)
            }
            // A trimmed run may read as anything; zeros make the converted disk smaller.
            (CMD_TRIM | CMD_WRITE_ZEROES, Some(writer)) => writer.zero_at(range).map(|()| None),
            _ => return Err(Refusal::of(EINVAL)),
        };
        match done {
            Ok(Some(len)) => Ok(len),
            Ok(None) => {
                simple(request.cookie, 0, buffer);
                Ok(SIMPLE_HEAD)
            }
            Err(error) => Err(self.failed(request, error, writes)),
        }
    }

    fn failed(&self, request: &Request, error: Error, writes: bool) -> Refusal {
        let errno = match error.io_error().map(std::io::Error::kind) {
            Some(ErrorKind::StorageFull) if writes => ENOSPC,
            _ => EIO,
        };
        tracing::warn!(%error, request = ?request, "a disk under NBD failed");
        let says = error.says().chars().take(200).collect();
        // Interrupted is the caller's own doing and says nothing about the disk.
        if error.kind() != Kind::Interrupted {
            lock(&self.state).first_error.get_or_insert(error);
        }
        Refusal { errno, says }
    }

    fn read(&self, request: &Request, range: GuestRange, buffer: &mut Vec<u8>) -> Result<Option<usize>> {
        let len = usize::try_from(request.len).unwrap_or(usize::MAX);
        if !self.chosen.structured {
            grow(buffer, SIMPLE_HEAD + len);
            self.target.disk.read_at(range.start(), &mut buffer[SIMPLE_HEAD..SIMPLE_HEAD + len])?;
            simple(request.cookie, 0, buffer);
            return Ok(Some(SIMPLE_HEAD + len));
        }
        let mut filled = 0;
        let mut here = range.start();
        let mut extents = match request.flags & CMD_FLAG_DF == 0 {
            true => self.target.disk.extents(range, PIECES_AT_MOST)?.into_iter(),
            false => Vec::new().into_iter(),
        };
        while here < range.end() {
            let (run, zero) = match extents.next() {
                Some(extent) => (extent.range.intersect(range), extent.kind != ExtentKind::Data),
                None => (GuestRange::between(here, range.end()), false),
            };
            here = run.end();
            let done = if here >= range.end() { CHUNK_DONE } else { 0 };
            let run_len = u32::try_from(run.len().0).unwrap_or(u32::MAX);
            if zero {
                grow(buffer, filled + DATA_HEAD + 4);
                let chunk = &mut buffer[filled..filled + DATA_HEAD + 4];
                head(chunk, done, CHUNK_OFFSET_HOLE, request.cookie, 12);
                chunk[20..28].copy_from_slice(&run.start().0.to_be_bytes());
                chunk[28..].copy_from_slice(&run_len.to_be_bytes());
                filled += DATA_HEAD + 4;
                continue;
            }
            let data = usize::try_from(run_len).unwrap_or(usize::MAX);
            grow(buffer, filled + DATA_HEAD + data);
            let chunk = &mut buffer[filled..filled + DATA_HEAD + data];
            head(chunk, done, CHUNK_OFFSET_DATA, request.cookie, run_len.saturating_add(8));
            chunk[20..28].copy_from_slice(&run.start().0.to_be_bytes());
            self.target.disk.read_at(run.start(), &mut chunk[DATA_HEAD..])?;
            filled += DATA_HEAD + data;
        }
        if filled == 0 {
            // A read of nothing.
            grow(buffer, 20);
            head(&mut buffer[..20], CHUNK_DONE, CHUNK_NONE, request.cookie, 0);
            filled = 20;
        }
        Ok(Some(filled))
    }

    fn status(&self, request: &Request, range: GuestRange, buffer: &mut Vec<u8>) -> Result<Option<usize>> {
        let at_most = if request.flags & CMD_FLAG_REQ_ONE == 0 { EXTENTS_AT_MOST } else { 1 };
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let mut add = |from: u64, to: u64, flags| match runs.last_mut() {
            _ if from >= to => {}
            Some(last) if last.1 == flags => {
                last.0 = last.0.saturating_add(u32::try_from(to - from).unwrap_or(u32::MAX))
            }
            _ => runs.push((u32::try_from(to - from).unwrap_or(u32::MAX), flags)),
        };
        for extent in self.target.disk.extents(range, at_most)? {
            let run = extent.range.intersect(range);
            let (start, end) = (run.start().0, run.end().0);
            if extent.kind == ExtentKind::Data {
                add(start, end, 0);
                continue;
            }
            // Clients that think in sectors take a sector that is partly zero for zero: only whole ones are named.
            let last = if end == self.target.disk.size().0 { end } else { end / SECTOR * SECTOR };
            let (from, to) = match start.next_multiple_of(SECTOR) {
                first if first < last => (first, last),
                _ => (end, end),
            };
            add(start, from, 0);
            // Whether zeros take room is not known; they need not.
            add(from, to, STATE_HOLE | STATE_ZERO);
            add(to, end, 0);
        }
        if request.flags & CMD_FLAG_REQ_ONE != 0 {
            runs.truncate(1);
        }
        buffer.clear();
        buffer.resize(20, 0);
        buffer.extend(ALLOCATION.to_be_bytes());
        for (len, flags) in &runs {
            buffer.extend(len.to_be_bytes());
            buffer.extend(flags.to_be_bytes());
        }
        let len = u32::try_from(buffer.len() - 20).unwrap_or(u32::MAX);
        head(buffer, CHUNK_DONE, CHUNK_BLOCK_STATUS, request.cookie, len);
        Ok(Some(buffer.len()))
    }

    fn refuse(&self, request: &Request, refusal: &Refusal, buffer: &mut Vec<u8>) {
        buffer.clear();
        if !self.chosen.structured || !matches!(request.command, CMD_READ | CMD_BLOCK_STATUS) {
            simple(request.cookie, refusal.errno, buffer);
            buffer.truncate(SIMPLE_HEAD);
            return;
        }
        buffer.resize(20, 0);
        buffer.extend(refusal.errno.to_be_bytes());
        buffer.extend(u16::try_from(refusal.says.len()).unwrap_or_default().to_be_bytes());
        buffer.extend(refusal.says.bytes());
        let len = u32::try_from(buffer.len() - 20).unwrap_or(u32::MAX);
        head(buffer, CHUNK_DONE, CHUNK_ERROR, request.cookie, len);
    }
}

/// Why a request is not done, in the protocol's number and, for people, in words.
struct Refusal {
    errno: u32,
    says: String,
}

impl Refusal {
    fn of(errno: u32) -> Refusal {
        Refusal { errno, says: String::new() }
    }
}

/// The next request, with what is to be written in `buffer`; `None` where the client is done.
fn take<'a>(
    from: &mut BufReader<&Stream>,
    room: &'a Room,
    buffer: &mut Vec<u8>,
) -> Result<Option<(Request, Option<Share<'a>>)>> {
    let mut head = [0; Request::LEN];
    match from.read_exact(&mut head) {
        Ok(()) => {}
        Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            return Ok(None);
        }
        Err(e) => return Err(lost(e)),
    }
    let request = Request::parse(&head)?;
    if request.command == CMD_DISC {
        return Ok(None);
    }
    let mut share = None;
    if request.command == CMD_READ && u64::from(request.len) <= REQUEST_AT_MOST.0 {
        share = room.share(request.len);
    }
    if request.command == CMD_WRITE {
        if u64::from(request.len) > REQUEST_AT_MOST.0 {
            return Err(Error::refused(format!(
                "the NBD client sends {} bytes in one write; at most {} are taken",
                request.len, REQUEST_AT_MOST.0
            )));
        }
        share = room.share(request.len);
        // The data must be taken off the socket even where the request is refused.
        let len = usize::try_from(request.len).unwrap_or(usize::MAX);
        grow(buffer, len);
        from.read_exact(&mut buffer[..len]).map_err(lost)?;
    }
    Ok(Some((request, share)))
}

/// Room for `len` bytes; what is there already is not cleared.
fn grow(buffer: &mut Vec<u8>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
}

/// A simple reply without data.
fn simple(cookie: u64, errno: u32, buffer: &mut Vec<u8>) {
    grow(buffer, SIMPLE_HEAD);
    buffer[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    buffer[4..8].copy_from_slice(&errno.to_be_bytes());
    buffer[8..SIMPLE_HEAD].copy_from_slice(&cookie.to_be_bytes());
}

/// The head of a chunk, at the start of `chunk`.
fn head(chunk: &mut [u8], flags: u16, kind: u16, cookie: u64, len: u32) {
    chunk[..4].copy_from_slice(&CHUNK_MAGIC.to_be_bytes());
    chunk[4..6].copy_from_slice(&flags.to_be_bytes());
    chunk[6..8].copy_from_slice(&kind.to_be_bytes());
    chunk[8..16].copy_from_slice(&cookie.to_be_bytes());
    chunk[16..20].copy_from_slice(&len.to_be_bytes());
}
