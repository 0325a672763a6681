//! What bounds a run: how much is in flight, the buffers for it, and the rate of reading.

use super::pipeline::{Stop, Width};
use super::{CHUNK, Cancel, index};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::limits;
use crate::units::{Bytes, GuestRange};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// As many chunks in flight as keep `jobs` workers busy and the memory bounded, with `buffers` for each chunk.
pub(super) fn width(jobs: usize, chunk: Bytes, buffers: u64) -> Width {
    let room = limits::CONVERT_BUFFERS.0 / chunk.0.saturating_mul(buffers).max(1);
    let room = usize::try_from(room).unwrap_or(usize::MAX).max(1);
    let jobs = jobs.clamp(1, room);
    Width { jobs, in_flight: jobs.saturating_mul(4).min(room), ending: jobs }
}

/// The content of `range`, of which only `parts` are read.
pub(super) fn read_parts(
    disk: &dyn Disk,
    range: GuestRange,
    parts: &[GuestRange],
    buffers: &Buffers,
    limit: Option<&RateLimit>,
    stop: &Stop<'_>,
) -> Result<Vec<u8>> {
    let mut bytes = buffers.get(index(range.len().0));
    let mut here = range.start();
    let mut rest = &mut bytes[..];
    for part in parts {
        if let Some(limit) = limit {
            limit.wait(part.len(), stop)?;
        }
        let (gap, behind) = rest.split_at_mut(index(part.start().0 - here.0));
        gap.fill(0);
        let (now, behind) = behind.split_at_mut(index(part.len().0));
        disk.read_at(part.start(), now)?;
        here = part.end();
        rest = behind;
    }
    rest.fill(0);
    Ok(bytes)
}

/// Buffers that were used and will be again.
pub(super) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
    keep: usize,
}

impl Buffers {
    pub fn new(keep: usize) -> Self {
        Buffers { free: Mutex::new(Vec::new()), keep }
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of `len` bytes with any content.
    pub fn get(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.free().pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    /// Takes back a buffer that is worth keeping.
    pub fn put(&self, buffer: Vec<u8>) {
        let mut free = self.free();
        if buffer.capacity() as u64 >= CHUNK.0 && free.len() < self.keep {
            free.push(buffer);
        }
    }
}

/// Spaces reads so that no more than a given number of bytes are read per second.
/// Clones share one allowance: runs at the same time stay within it together.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// 1 and up.
    bytes_per_second: u64,
    next: Arc<Mutex<Instant>>,
}

impl RateLimit {
    /// At most so many bytes per second; 0 counts as 1.
    pub fn new(bytes_per_second: Bytes) -> Self {
        RateLimit { bytes_per_second: bytes_per_second.0.max(1), next: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Bytes per second, 1 and up: for copies that another program makes.
    pub fn per_second(&self) -> Bytes {
        Bytes(self.bytes_per_second)
    }

    /// Returns when `bytes` may be read.
    pub(super) fn wait(&self, bytes: Bytes, stop: &Stop<'_>) -> Result<()> {
        self.spaced(bytes, || stop.check())
    }

    /// Returns when `bytes` may be read: for reads that are no conversion's.
    ///
    /// # Errors
    /// [`Kind::Interrupted`](crate::Kind::Interrupted) once `cancel` is set.
    pub fn pause(&self, bytes: Bytes, cancel: &Cancel) -> Result<()> {
        self.spaced(bytes, || if cancel.is_cancelled() { Err(Error::interrupted()) } else { Ok(()) })
    }

    fn spaced(&self, bytes: Bytes, check: impl Fn() -> Result<()>) -> Result<()> {
        let nanoseconds = u128::from(bytes.0) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let takes = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let begin = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = (*next).max(Instant::now());
            *next = begin.checked_add(takes).unwrap_or(begin);
            begin
        };
        loop {
            check()?;
            let left = begin.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}
