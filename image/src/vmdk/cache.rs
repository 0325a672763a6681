//! Bounded memory for blocks that are likely to be wanted again: grain tables, inflated grains.
//!
//! Not [`crate::pages`]: that is for large pages of one file; a split disk has thousands of files with tables of
//! 2 KiB, which share one bound here.

use crate::limits;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Which block: the extent's number in the image, and the block's number in the extent.
pub(super) type Key = (usize, u64);

/// What the extents of one image share.
pub(super) struct Caches {
    pub(super) tables: Cache,
    pub(super) grains: Cache,
}

impl Caches {
    /// Empty caches, bounded as [`limits`] says.
    pub(super) fn new() -> Self {
        let bytes = |limit: crate::Bytes| limit.to_usize().unwrap_or(usize::MAX);
        Caches {
            tables: Cache::new(bytes(limits::TABLE_CACHE)),
            grains: Cache::new(bytes(limits::CLUSTER_CACHE)),
        }
    }
}

/// Blocks by key, up to a sum of bytes. The lock is held to find or place an `Arc`, never over a read.
pub(super) struct Cache {
    limit_bytes: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    slots: HashMap<Key, Slot>,
    /// Keys in the order of insertion; a block that was used since goes round once more (second chance).
    order: VecDeque<Key>,
    held_bytes: usize,
}

struct Slot {
    block: Arc<[u8]>,
    used: bool,
}

impl Cache {
    fn new(limit_bytes: usize) -> Self {
        Cache { limit_bytes, inner: Mutex::default() }
    }

    /// The block, if it is held.
    pub(super) fn get(&self, key: Key) -> Option<Arc<[u8]>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = inner.slots.get_mut(&key)?;
        slot.used = true;
        Some(Arc::clone(&slot.block))
    }

    /// Holds `block`, and lets go of as many others as needed. One that is larger than the cache is not held.
    pub(super) fn insert(&self, key: Key, block: Arc<[u8]>) {
        if block.len() > self.limit_bytes {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.slots.contains_key(&key) {
            return; // another thread was faster; a block never changes
        }
        while inner.held_bytes + block.len() > self.limit_bytes {
            let Some(oldest) = inner.order.pop_front() else { break };
            match inner.slots.get_mut(&oldest) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    inner.order.push_back(oldest);
                }
                _ => {
                    if let Some(slot) = inner.slots.remove(&oldest) {
                        inner.held_bytes -= slot.block.len();
                    }
                }
            }
        }
        inner.held_bytes += block.len();
        inner.order.push_back(key);
        inner.slots.insert(key, Slot { block, used: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_stays_within_its_limit_and_keeps_what_is_used() {
        let cache = Cache::new(1000);
        for n in 0..1000 {
            cache.insert((0, n), vec![0; 100].into());
            assert!(cache.get((0, 0)).is_some(), "the block that is used after every insertion stays");
            let inner = cache.inner.lock().unwrap();
            assert!(
                inner.held_bytes <= 1000 && inner.slots.len() <= 10 && inner.order.len() == inner.slots.len()
            );
        }
        cache.insert((1, 0), vec![0; 1001].into());
        assert!(cache.get((1, 0)).is_none());
    }
}
