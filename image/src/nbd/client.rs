//! An export of an NBD server as a disk, read and written from any thread.
//!
//! Absent on purpose: reconnection. A server that went away in the middle may come back with another content; the
//! run ends with an error that names the server, and is resumed by the caller.

use super::connection::{Ask, Connection, Failed, Want};
use super::greet::{self, About};
use super::protocol::*;
use super::stream::TlsFiles;
use super::uri::Uri;
use crate::disk::{self, Disk, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::units::{Bytes, GuestOffset, GuestRange};
use rustls::ClientConfig;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// How a server is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// How long the server may be silent when it should answer; half a minute by default.
    pub timeout: Duration,
    /// Connections that are opened at most, where the server says that more than one are allowed; 4 by default.
    pub connections: usize,
    /// What is needed for `nbds://`.
    pub tls: TlsFiles,
    /// Contexts of block status that are asked for besides `base:allocation`: `qemu:dirty-bitmap:NAME`. A server that does not have one goes
    /// on without.
    pub contexts: Vec<String>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            timeout: Duration::from_secs(30),
            connections: 4,
            tls: TlsFiles::default(),
            contexts: Vec::new(),
        }
    }
}

/// How long a server may take to greet a further connection. One that takes only so many at a time (qemu-nbd -e)
/// lets the next wait until another leaves.
const FURTHER_CONNECTION: Duration = Duration::from_secs(2);

/// Zeros that one request makes; every server takes this many.
const ZEROES_AT_ONCE: u64 = 1 << 30;
/// Zeros that are sent where the server has no request for them.
const ZEROES_SENT: usize = 1 << 20;
/// What a read that does not fit the server's blocks is rounded up in.
const BOUNCE: u64 = 1 << 20;

/// A connected export.
pub struct Client {
    uri: Arc<Uri>,
    options: ClientOptions,
    tls: Option<Arc<ClientConfig>>,
    about: About,
    connections: RwLock<Vec<Arc<Connection>>>,
    opening: Mutex<()>,
    /// No further connection is tried.
    enough: AtomicBool,
    /// The server turned out not to know block status, or `WRITE_ZEROES`, whatever it announced.
    no_status: AtomicBool,
    no_zeroes: AtomicBool,
}

impl Client {
    /// Connects to the export's server.
    pub fn connect(uri: &Uri, options: &ClientOptions) -> Result<Client> {
        let tls = match uri.tls() {
            true => Some(options.tls.client().map_err(|e| e.in_file(uri.as_path()))?),
            false => None,
        };
        let uri = Arc::new(uri.clone());
        let (stream, about) = greet::greet(&uri, tls.as_ref(), options.timeout, &options.contexts)?;
        let first = Connection::new(stream, &about, uri.clone(), options.timeout);
        let alone = options.connections <= 1 || !about.has(CAN_MULTI_CONN);
        Ok(Client {
            uri,
            options: options.clone(),
            tls,
            no_status: AtomicBool::new(about.allocation.is_none()),
            no_zeroes: AtomicBool::new(!about.has(SEND_WRITE_ZEROES)),
            about,
            connections: RwLock::new(vec![Arc::new(first)]),
            opening: Mutex::new(()),
            enough: AtomicBool::new(alone),
        })
    }

    /// The export that it is.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// True where the server takes no writes.
    pub fn is_read_only(&self) -> bool {
        self.about.has(READ_ONLY)
    }

    /// Requests start and end on multiples of this many bytes. Reading hides that; writing does not.
    pub fn block_size(&self) -> Bytes {
        Bytes(u64::from(self.about.least))
    }

    /// Facts for `disk info`.
    pub fn details(&self) -> Vec<(String, String)> {
        let about = &self.about;
        let yes = |value: bool| if value { "yes" } else { "no" }.to_owned();
        let sizes = format!("{} / {} / {}", about.least, about.preferred, about.most);
        let mut details = vec![
            ("export".to_owned(), format!("{:?}", self.uri.export())),
            ("encrypted".to_owned(), yes(self.uri.tls())),
            ("read-only".to_owned(), yes(self.is_read_only())),
            ("block sizes (least / preferred / most)".to_owned(), sizes),
            ("structured replies".to_owned(), yes(about.structured)),
            ("block status".to_owned(), yes(about.allocation.is_some())),
            ("several connections".to_owned(), yes(about.has(CAN_MULTI_CONN))),
        ];
        if let Some(description) = &about.description {
            details.push(("description".to_owned(), description.clone()));
        }
        details
    }

    /// Stores `data` at `at`. Both are multiples of [`block_size`](Self::block_size), or it is refused.
    pub fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        disk::check_bounds(self.about.size, at, data.len())?;
        self.check_aligned(at, data.len() as u64)?;
        let mut here = at.0;
        for part in data.chunks(self.at_once()) {
            let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
            self.do_it(Ask { command: CMD_WRITE, flags: 0, offset: here, len }, part, Want::Done)?;
            here += u64::from(len);
        }
        Ok(())
    }

    /// Makes `range`, which is made of whole blocks, read as zeros: by `WRITE_ZEROES`, where the server may leave
    /// holes; otherwise by writing zeros where it does not say that they are there. Never by `TRIM`: what a
    /// trimmed run reads as is nowhere promised.
    pub fn zero_at(&self, range: GuestRange) -> Result<()> {
        disk::check_bounds(self.about.size, range.start(), 0)?;
        disk::check_bounds(self.about.size, range.end(), 0)?;
        self.check_aligned(range.start(), range.len().0)?;
        let mut here = range.start();
        while here < range.end() {
            let mut piece = GuestRange::new(here, Bytes((range.end().0 - here.0).min(ZEROES_AT_ONCE)));
            if !self.no_zeroes.load(Ordering::Relaxed) {
                let len = u32::try_from(piece.len().0).unwrap_or(u32::MAX);
                let ask = Ask { command: CMD_WRITE_ZEROES, flags: 0, offset: here.0, len };
                let (connection, outcome) = self.ask(ask, &[], Want::Done)?;
                match outcome {
                    Ok(()) => {
                        here = piece.end();
                        continue;
                    }
                    Err(failed) if matches!(failed.errno, ENOTSUP | EINVAL | EOVERFLOW) => {
                        self.no_zeroes.store(true, Ordering::Relaxed);
                    }
                    Err(failed) => return Err(connection.failure(ask, &failed)),
                }
            }
            if let Some(extent) = self.extents(piece, 1)?.first() {
                piece = extent.range;
                if extent.kind == ExtentKind::Zero {
                    here = piece.end();
                    continue;
                }
            }
            let len =
                usize::try_from(piece.len().0).unwrap_or(usize::MAX).min(ZEROES_SENT.min(self.at_once()));
            self.write_at(here, &vec![0; len])?;
            here = GuestOffset(here.0 + len as u64);
        }
        Ok(())
    }

    /// Returns when everything that was written is on stable storage, as far as the server knows of such.
    pub fn flush(&self) -> Result<()> {
        if !self.about.has(SEND_FLUSH) {
            return Ok(());
        }
        self.do_it(Ask { command: CMD_FLUSH, flags: 0, offset: 0, len: 0 }, &[], Want::Done)
    }

    fn check_aligned(&self, at: GuestOffset, len: u64) -> Result<()> {
        let least = u64::from(self.about.least);
        if at.0.is_multiple_of(least) && len.is_multiple_of(least) {
            return Ok(());
        }
        let says = format!("{len} bytes at {:#x} are not made of the server's blocks of {least}", at.0);
        Err(Error::refused(says).in_file(self.uri.as_path()))
    }

    /// Bytes in one request.
    fn at_once(&self) -> usize {
        usize::try_from(self.about.most).unwrap_or(usize::MAX)
    }

    /// The connection with the least to do; opens a further one where all are busy and that is allowed.
    fn connection(&self) -> Result<Arc<Connection>> {
        let (idlest, count) = {
            let all = self.connections.read().unwrap_or_else(PoisonError::into_inner);
            (all.iter().min_by_key(|connection| connection.in_flight()).cloned(), all.len())
        };
        let Some(idlest) = idlest else {
            return Err(Error::corrupt("has no connection").in_file(self.uri.as_path()));
        };
        if idlest.in_flight() == 0 || self.enough.load(Ordering::Relaxed) {
            return Ok(idlest);
        }
        // Others go on with what is there meanwhile.
        let Ok(_opening) = self.opening.try_lock() else { return Ok(idlest) };
        if count >= self.options.connections {
            self.enough.store(true, Ordering::Relaxed);
            return Ok(idlest);
        }
        let timeout = FURTHER_CONNECTION.min(self.options.timeout);
        match greet::greet(&self.uri, self.tls.as_ref(), timeout, &self.options.contexts) {
            Ok((stream, about)) if about == self.about => {
                if let Err(error) = stream.set_timeout(Some(self.options.timeout)) {
                    return Err(greet::lost(&self.uri, "cannot set a time limit", error));
                }
                let connection =
                    Arc::new(Connection::new(stream, &about, self.uri.clone(), self.options.timeout));
                self.connections.write().unwrap_or_else(PoisonError::into_inner).push(connection.clone());
                Ok(connection)
            }
            Ok((_, about)) => Err(Error::corrupt(format!(
                "the NBD server tells each connection another thing: {} bytes and flags {:#x}, then {} bytes and flags {:#x}",
                self.about.size.0, self.about.flags, about.size.0, about.flags
            ))
            .in_file(self.uri.as_path())),
            Err(error) => {
                tracing::debug!(%error, "no further NBD connection");
                self.enough.store(true, Ordering::Relaxed);
                Ok(idlest)
            }
        }
    }

    fn ask(&self, ask: Ask, data: &[u8], want: Want<'_>) -> Result<(Arc<Connection>, Result<(), Failed>)> {
        let connection = self.connection()?;
        let outcome = connection.request(ask, data, want)?;
        Ok((connection, outcome))
    }

    fn do_it(&self, ask: Ask, data: &[u8], want: Want<'_>) -> Result<()> {
        let (connection, outcome) = self.ask(ask, data, want)?;
        outcome.map_err(|failed| connection.failure(ask, &failed))
    }

    /// What the server says of a range in a context that was [asked for](ClientOptions::contexts): runs from its start with the context's flags,
    /// at most `at_most` of them. `None` where the server does not have the context. The answer may end before the range does, but covers
    /// at least one byte unless the range, clipped to the disk, is empty.
    ///
    /// # Errors
    /// As the server's.
    pub fn status(
        &self,
        context: &str,
        range: GuestRange,
        at_most: usize,
    ) -> Result<Option<Vec<(GuestRange, u32)>>> {
        let Some((_, number)) = self.about.contexts.iter().find(|(name, _)| name == context) else {
            return Ok(None);
        };
        let range = disk::clip(range, self.about.size);
        match range.is_empty() {
            true => Ok(Some(Vec::new())),
            false => self.runs(*number, range, at_most),
        }
    }

    /// Runs of a range, which is not empty, in the context of that number; `None` where the server does not do that after all.
    fn runs(
        &self,
        context: u32,
        range: GuestRange,
        at_most: usize,
    ) -> Result<Option<Vec<(GuestRange, u32)>>> {
        let least = u64::from(self.about.least);
        let start = range.start().0 / least * least;
        let longest = u64::from(u32::MAX) / least * least;
        let len = range.end().0.next_multiple_of(least).saturating_sub(start).min(longest);
        let at_most = at_most.max(1);
        let ask = Ask {
            command: CMD_BLOCK_STATUS,
            flags: if at_most == 1 { CMD_FLAG_REQ_ONE } else { 0 },
            offset: start,
            len: u32::try_from(len).unwrap_or(u32::MAX),
        };
        let mut runs = Vec::new();
        let (connection, outcome) = self.ask(ask, &[], Want::Extents(&mut runs, at_most, context))?;
        match outcome {
            Ok(()) => {}
            Err(failed) if failed.errno == ENOTSUP => return Ok(None),
            Err(failed) => return Err(connection.failure(ask, &failed)),
        }
        let mut out = Vec::with_capacity(runs.len());
        let mut here = start;
        for (len, flags) in runs {
            let end = here.saturating_add(u64::from(len));
            // The last one may be longer than was asked for.
            let run = GuestRange::between(GuestOffset(here), GuestOffset(end)).intersect(range);
            here = end;
            if !run.is_empty() {
                out.push((run, flags));
            }
        }
        if out.is_empty() {
            let says = format!("the NBD server's map from {start:#x} on ends before {:#x}", range.start().0);
            return Err(Error::corrupt(says).in_file(self.uri.as_path()));
        }
        Ok(Some(out))
    }

    /// Reads what is made of whole blocks.
    fn read_blocks(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let mut here = at;
        for part in buf.chunks_mut(self.at_once()) {
            let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
            self.do_it(Ask { command: CMD_READ, flags: 0, offset: here, len }, &[], Want::Data(part))?;
            here += u64::from(len);
        }
        Ok(())
    }
}

impl Disk for Client {
    fn size(&self) -> Bytes {
        self.about.size
    }

    fn sector_size(&self) -> Bytes {
        if self.about.least == 4096 { Bytes(4096) } else { Bytes(512) }
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.about.size);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let all_data = || vec![Extent { range, kind: ExtentKind::Data }];
        if self.no_status.load(Ordering::Relaxed) {
            return Ok(all_data());
        }
        let Some(number) = self.about.allocation else { return Ok(all_data()) };
        let Some(runs) = self.runs(number, range, at_most)? else {
            self.no_status.store(true, Ordering::Relaxed);
            return Ok(all_data());
        };
        let mut out: Vec<Extent> = Vec::with_capacity(runs.len());
        for (run, flags) in runs {
            // A hole that does not read as zeros for sure is read.
            let kind = if flags & STATE_ZERO != 0 { ExtentKind::Zero } else { ExtentKind::Data };
            match out.last_mut() {
                Some(last) if last.kind == kind => {
                    last.range = GuestRange::between(last.range.start(), run.end());
                }
                _ => out.push(Extent { range: run, kind }),
            }
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.about.size, at, buf.len()).map_err(|e| e.in_file(self.uri.as_path()))?;
        let least = u64::from(self.about.least);
        if at.0.is_multiple_of(least) && (buf.len() as u64).is_multiple_of(least) {
            return self.read_blocks(at.0, buf);
        }
        let mut bounce = Vec::new();
        let mut here = at.0;
        let mut rest = buf;
        while !rest.is_empty() {
            let start = here / least * least;
            let end = here.saturating_add(rest.len() as u64).next_multiple_of(least).min(start + BOUNCE);
            bounce.resize(usize::try_from(end - start).unwrap_or(usize::MAX), 0);
            self.read_blocks(start, &mut bounce)?;
            let skip = usize::try_from(here - start).unwrap_or(usize::MAX);
            let wanted = bounce.get(skip..).unwrap_or_default();
            let (now, later) = rest.split_at_mut(wanted.len().min(rest.len()));
            now.copy_from_slice(&wanted[..now.len()]);
            here += now.len() as u64;
            rest = later;
        }
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for connection in self.connections.get_mut().unwrap_or_else(PoisonError::into_inner) {
            connection.leave();
        }
    }
}
