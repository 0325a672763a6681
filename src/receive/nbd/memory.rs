//! Memory that all connections share, in shares that are waited for.
//!
//! Nobody waits for a share of one kind while it holds another share of that kind, and a share is given back within
//! the time limits of the connection that has it: so everybody gets one in the end.

use super::config::Limits;
use landfall_image::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A share, given back when it is dropped.
pub(super) type Share = OwnedSemaphorePermit;

/// Memory of one kind.
#[derive(Clone)]
pub(super) struct Memory {
    free: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

/// Somebody who waits.
struct Waiter(Arc<AtomicUsize>);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The kinds.
pub(super) struct Memories {
    /// For inboxes of those that send much. Never waited for.
    pub batches: Memory,
    /// For the data of long writes.
    pub writes: Memory,
    /// For replies to reads.
    pub reads: Memory,
}

fn kib(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(1024)).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

impl Memory {
    fn new(size: Bytes) -> Memory {
        Memory { free: Arc::new(Semaphore::new(kib(size.0))), waiting: Arc::default() }
    }
    /// A share, where there is one at once.
    pub(super) fn try_share(&self, bytes: u64) -> Option<Share> {
        let permits = u32::try_from(kib(bytes)).ok()?;
        self.free.clone().try_acquire_many_owned(permits).ok()
    }
    /// True while somebody waits: what is not needed at once should be given back.
    pub(super) fn is_scarce(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }
    /// A share, as soon as there is one; those who came first get theirs first.
    pub(super) async fn share(self, bytes: u64) -> Option<Share> {
        let permits = u32::try_from(kib(bytes)).ok()?;
        self.waiting.fetch_add(1, Relaxed);
        let _waiter = Waiter(self.waiting.clone());
        self.free.acquire_many_owned(permits).await.ok()
    }
}

impl Memories {
    pub(super) fn new(limits: &Limits) -> Memories {
        Memories {
            batches: Memory::new(limits.batch_memory),
            writes: Memory::new(limits.write_memory),
            reads: Memory::new(limits.read_memory),
        }
    }
}
