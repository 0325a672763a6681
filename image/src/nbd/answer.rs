//! What a server does for one request, and the bytes of its reply, without a socket.
//!
//! Absent: `RESIZE` and extended headers.

use super::handshake::{ALLOCATION, Chosen};
use super::protocol::*;
use crate::disk::{Disk, DiskMut, ExtentKind};
use crate::error::{Error, Result};
use crate::units::{Bytes, GuestOffset, GuestRange, SECTOR_SIZE_BYTES as SECTOR};
use std::io::ErrorKind;

/// Extents in one answer, and pieces that a read is answered in.
const EXTENTS_AT_MOST: usize = 1024;
const PIECES_AT_MOST: usize = 64;
/// Head of a chunk that holds data: magic to length, and the offset.
const DATA_HEAD: usize = 28;
const CHUNK_HEAD: usize = 20;
/// Length of a reply that says no more than yes or no.
pub const SIMPLE_HEAD: usize = 16;
/// A reply to a `READ` or `BLOCK_STATUS` is longer than what was asked for by this at most, in bytes: the heads of its
/// pieces, or its extents.
pub const REPLY_OVERHEAD: u32 = 9 << 10;

/// What is served, and how one client wants it.
#[derive(Clone, Copy)]
pub struct Answers<'a> {
    /// What is read.
    pub disk: &'a dyn Disk,
    /// The same disk, where the client may write.
    pub writer: Option<&'a dyn DiskMut>,
    /// What was agreed on.
    pub chosen: Chosen,
}

/// Why a request is not done, in the protocol's number and, for people, in words.
#[derive(Debug)]
pub struct Refusal {
    /// One of the protocol's error values.
    pub errno: u32,
    /// Empty where the number says it all.
    pub says: String,
    /// What the disk said, where it is not the client's mistake.
    pub error: Option<Error>,
}

impl Refusal {
    /// The client's mistake.
    pub fn of(errno: u32) -> Refusal {
        Refusal { errno, says: String::new(), error: None }
    }

    fn failed(error: Error, writes: bool) -> Refusal {
        let errno = match error.io_error().map(std::io::Error::kind) {
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) if writes => ENOSPC,
            _ => EIO,
        };
        Refusal { errno, says: error.says().chars().take(200).collect(), error: Some(error) }
    }
}

/// True for requests whose answer holds more than yes or no: [`Answers::fetch`] is for them, [`Answers::apply`] for
/// all others.
pub fn fetches(request: &Request) -> bool {
    matches!(request.command, CMD_READ | CMD_BLOCK_STATUS)
}

impl Answers<'_> {
    /// The range of a request that has no flags but `flags`, whether it lies on the disk.
    fn check(&self, request: &Request, flags: u16) -> Result<(GuestRange, bool), Refusal> {
        if request.flags & !flags != 0 {
            return Err(Refusal::of(EINVAL));
        }
        let len = u64::from(request.len);
        let fits = request.offset.checked_add(len).is_some_and(|end| end <= self.disk.size().0);
        Ok((GuestRange::new(GuestOffset(request.offset), Bytes(len)), fits))
    }

    /// Does what is answered with yes or no. `data` is what came with a `WRITE`. When this returns, the disk has taken
    /// it; with `FUA` it has also been told to flush.
    pub fn apply(&self, request: &Request, data: &[u8]) -> Result<(), Refusal> {
        let flags = match request.command {
            CMD_WRITE | CMD_TRIM => CMD_FLAG_FUA,
            CMD_WRITE_ZEROES => CMD_FLAG_FUA | CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO,
            _ => 0,
        };
        let (range, fits) = self.check(request, flags)?;
        let done = match (request.command, self.writer) {
            (CMD_CACHE, _) if !fits => return Err(Refusal::of(EINVAL)),
            // Only a hint.
            (CMD_CACHE, _) => return Ok(()),
            (CMD_FLUSH, _) if request.offset != 0 || request.len != 0 => return Err(Refusal::of(EINVAL)),
            (CMD_FLUSH, None) => return Ok(()),
            (CMD_FLUSH, Some(writer)) => writer.flush(),
            (CMD_WRITE | CMD_TRIM | CMD_WRITE_ZEROES, None) => return Err(Refusal::of(EPERM)),
            (CMD_WRITE | CMD_TRIM | CMD_WRITE_ZEROES, _) if !fits => return Err(Refusal::of(ENOSPC)),
            (CMD_WRITE, Some(writer)) => writer.write_at(range.start(), data),
            // A trimmed run may read as anything; zeros make the disk smaller, and what is read is certain.
            (CMD_TRIM | CMD_WRITE_ZEROES, Some(writer)) => writer.zero_at(range),
            _ => return Err(Refusal::of(EINVAL)),
        };
        let done = match self.writer {
            Some(writer) if request.flags & CMD_FLAG_FUA != 0 => done.and_then(|()| writer.flush()),
            _ => done,
        };
        done.map_err(|error| Refusal::failed(error, true))
    }

    /// Puts the whole reply at the start of `buffer` and returns its length; what lies behind it means nothing. The
    /// buffer grows to what is asked for and [`REPLY_OVERHEAD`] at most.
    pub fn fetch(&self, request: &Request, buffer: &mut Vec<u8>) -> Result<usize, Refusal> {
        let flags = match request.command {
            CMD_READ if self.chosen.structured => CMD_FLAG_DF,
            CMD_BLOCK_STATUS => CMD_FLAG_REQ_ONE,
            _ => 0,
        };
        let (range, fits) = self.check(request, flags)?;
        let filled = match request.command {
            CMD_READ if u64::from(request.len) > REQUEST_AT_MOST.0 => return Err(Refusal::of(EOVERFLOW)),
            CMD_READ if !fits => return Err(Refusal::of(EINVAL)),
            CMD_READ => self.read(request, range, buffer),
            CMD_BLOCK_STATUS if !self.chosen.allocation || request.len == 0 || !fits => {
                return Err(Refusal::of(EINVAL));
            }
            CMD_BLOCK_STATUS => self.status(request, range, buffer),
            _ => return Err(Refusal::of(EINVAL)),
        };
        filled.map_err(|error| Refusal::failed(error, false))
    }

    fn read(&self, request: &Request, range: GuestRange, buffer: &mut Vec<u8>) -> Result<usize> {
        let len = usize::try_from(request.len).unwrap_or(usize::MAX);
        if !self.chosen.structured {
            grow(buffer, SIMPLE_HEAD + len);
            self.disk.read_at(range.start(), &mut buffer[SIMPLE_HEAD..SIMPLE_HEAD + len])?;
            buffer[..SIMPLE_HEAD].copy_from_slice(&simple(request.cookie, 0));
            return Ok(SIMPLE_HEAD + len);
        }
        let mut filled = 0;
        let mut here = range.start();
        let mut extents = match request.flags & CMD_FLAG_DF == 0 {
            true => self.disk.extents(range, PIECES_AT_MOST)?.into_iter().take(PIECES_AT_MOST),
            false => Vec::new().into_iter().take(0),
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
            self.disk.read_at(run.start(), &mut chunk[DATA_HEAD..])?;
            filled += DATA_HEAD + data;
        }
        if filled == 0 {
            // A read of nothing.
            grow(buffer, CHUNK_HEAD);
            head(&mut buffer[..CHUNK_HEAD], CHUNK_DONE, CHUNK_NONE, request.cookie, 0);
            filled = CHUNK_HEAD;
        }
        Ok(filled)
    }

    fn status(&self, request: &Request, range: GuestRange, buffer: &mut Vec<u8>) -> Result<usize> {
        let at_most = if request.flags & CMD_FLAG_REQ_ONE == 0 { EXTENTS_AT_MOST } else { 1 };
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let mut add = |from: u64, to: u64, flags| match runs.last_mut() {
            _ if from >= to => {}
            Some(last) if last.1 == flags => {
                last.0 = last.0.saturating_add(u32::try_from(to - from).unwrap_or(u32::MAX))
            }
            _ => runs.push((u32::try_from(to - from).unwrap_or(u32::MAX), flags)),
        };
        for extent in self.disk.extents(range, at_most)? {
            let run = extent.range.intersect(range);
            let (start, end) = (run.start().0, run.end().0);
            if extent.kind == ExtentKind::Data {
                add(start, end, 0);
                continue;
            }
            // Clients that think in sectors take a sector that is partly zero for zero: only whole ones are named.
            let last = if end == self.disk.size().0 { end } else { end / SECTOR * SECTOR };
            let (from, to) = match start.next_multiple_of(SECTOR) {
                first if first < last => (first, last),
                _ => (end, end),
            };
            add(start, from, 0);
            // Whether zeros take room is not known; they need not.
            add(from, to, STATE_HOLE | STATE_ZERO);
            add(to, end, 0);
        }
        runs.truncate(at_most);
        buffer.clear();
        buffer.resize(CHUNK_HEAD, 0);
        buffer.extend(ALLOCATION.to_be_bytes());
        for (len, flags) in &runs {
            buffer.extend(len.to_be_bytes());
            buffer.extend(flags.to_be_bytes());
        }
        let len = u32::try_from(buffer.len() - CHUNK_HEAD).unwrap_or(u32::MAX);
        head(buffer, CHUNK_DONE, CHUNK_BLOCK_STATUS, request.cookie, len);
        Ok(buffer.len())
    }

    /// The reply to a request that is not done.
    pub fn refuse(&self, request: &Request, refusal: &Refusal) -> Vec<u8> {
        if !self.chosen.structured || !fetches(request) {
            return simple(request.cookie, refusal.errno).to_vec();
        }
        let mut out = vec![0; CHUNK_HEAD];
        out.extend(refusal.errno.to_be_bytes());
        out.extend(u16::try_from(refusal.says.len()).unwrap_or_default().to_be_bytes());
        out.extend(refusal.says.bytes());
        let len = u32::try_from(out.len() - CHUNK_HEAD).unwrap_or(u32::MAX);
        head(&mut out, CHUNK_DONE, CHUNK_ERROR, request.cookie, len);
        out
    }
}

/// Room for `len` bytes; what is there already is not cleared.
pub(super) fn grow(buffer: &mut Vec<u8>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
}

/// A reply without data: 0, or an error value.
pub fn simple(cookie: u64, errno: u32) -> [u8; SIMPLE_HEAD] {
    let mut out = [0; SIMPLE_HEAD];
    out[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    out[4..8].copy_from_slice(&errno.to_be_bytes());
    out[8..].copy_from_slice(&cookie.to_be_bytes());
    out
}

/// The head of a chunk, at the start of `chunk`.
fn head(chunk: &mut [u8], flags: u16, kind: u16, cookie: u64, len: u32) {
    chunk[..4].copy_from_slice(&CHUNK_MAGIC.to_be_bytes());
    chunk[4..6].copy_from_slice(&flags.to_be_bytes());
    chunk[6..8].copy_from_slice(&kind.to_be_bytes());
    chunk[8..16].copy_from_slice(&cookie.to_be_bytes());
    chunk[16..20].copy_from_slice(&len.to_be_bytes());
}
