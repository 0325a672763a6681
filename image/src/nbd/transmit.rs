//! The server's transmission phase: a few workers take requests off one connection and answer each when it is done,
//! so that one slow request does not hold up the rest.

use super::Served;
use super::answer::{self, Answers, Refusal, SIMPLE_HEAD, grow};
use super::handshake::Chosen;
use super::protocol::*;
use super::server::lost;
use super::stream::Stream;
use crate::disk::{Disk, DiskMut};
use crate::error::{Error, Kind, Result};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Requests of one connection that are answered at once.
const WORKERS: usize = 4;
/// What a worker keeps of its buffer from one request to the next. Clients send less at a time, as a rule.
const BUFFER_KEPT: usize = (2 << 20) + (64 << 10);
/// Longer requests that are answered at once, over all connections of a server: each takes up to 32 MiB of memory.
const LONG_REQUESTS: u32 = 2;

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
    answers: Answers<'a>,
    stream: &'a Stream,
    room: &'a Room,
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
        answers: Answers { disk: target.disk, writer: target.writer, chosen },
        stream,
        room,
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
        let refused;
        let reply = match done {
            Ok(len) => &buffer[..len],
            Err(refusal) => {
                refused = self.answers.refuse(&request, &refusal);
                self.note(&request, refusal);
                &refused[..]
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
        if answer::fetches(request) {
            let filled = self.answers.fetch(request, buffer)?;
            if request.command == CMD_READ {
                let read = &mut lock(&self.state).served.read;
                read.0 = read.0.saturating_add(u64::from(request.len));
            }
            return Ok(filled);
        }
        let len = if request.command == CMD_WRITE { request.len } else { 0 };
        let data = buffer.get(..usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or_default();
        self.answers.apply(request, data)?;
        let written = &mut lock(&self.state).served.written;
        written.0 = written.0.saturating_add(u64::from(len));
        grow(buffer, SIMPLE_HEAD);
        buffer[..SIMPLE_HEAD].copy_from_slice(&answer::simple(request.cookie, 0));
        Ok(SIMPLE_HEAD)
    }

    /// Keeps what the disk said.
    fn note(&self, request: &Request, refusal: Refusal) {
        let Some(error) = refusal.error else { return };
        tracing::warn!(%error, request = ?request, "a disk under NBD failed");
        // Interrupted is the caller's own doing and says nothing about the disk.
        if error.kind() != Kind::Interrupted {
            lock(&self.state).first_error.get_or_insert(error);
        }
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
