//! A bounded cache of tables and clusters that many threads share.
//!
//! The lock is held for a look-up only. Loading happens under a lock of the one entry, so that threads that want
//! the same cluster at once load it once, and no other thread waits.

use crate::error::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Slot<T> = Arc<Mutex<Option<Arc<[T]>>>>;

/// Arrays of `T` by a number: where in the file they lie.
pub(super) struct Cache<T> {
    generations: Mutex<Generations<T>>,
    /// Entries of one generation; two are kept.
    at_most: usize,
}

/// The young generation takes every entry that is used. When it is full it becomes the old one, and what was old
/// and not used since goes. That keeps what is in use, at a constant cost per look-up.
struct Generations<T> {
    young: HashMap<u64, Slot<T>>,
    old: HashMap<u64, Slot<T>>,
}

impl<T> Cache<T> {
    /// A cache of at most `bytes`, for entries of `entry_bytes` each (but never fewer than four entries).
    pub fn new(bytes: u64, entry_bytes: u64) -> Self {
        let at_most = usize::try_from(bytes / entry_bytes.max(1) / 2).unwrap_or(usize::MAX).max(2);
        Cache { generations: Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }), at_most }
    }

    /// The entry of that number, loaded where it is not there. A failed load is not kept.
    pub fn get(&self, number: u64, load: impl FnOnce() -> Result<Arc<[T]>>) -> Result<Arc<[T]>> {
        let slot = self.slot(number);
        let mut entry = lock(&slot);
        if let Some(entry) = &*entry {
            return Ok(entry.clone());
        }
        let loaded = load()?;
        *entry = Some(loaded.clone());
        Ok(loaded)
    }

    fn slot(&self, number: u64) -> Slot<T> {
        let mut generations = lock(&self.generations);
        if let Some(slot) = generations.young.get(&number) {
            return slot.clone();
        }
        if generations.young.len() >= self.at_most {
            generations.old = std::mem::take(&mut generations.young);
        }
        let slot = generations.old.remove(&number).unwrap_or_default();
        generations.young.insert(number, slot.clone());
        slot
    }
}

/// No entry is ever half-written, so a panic elsewhere does not spoil the cache.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let cache = Cache::<u8>::new(64, 8);
        let loads = AtomicUsize::new(0);
        let get = |number| {
            cache.get(number, || {
                loads.fetch_add(1, Ordering::Relaxed);
                Ok(vec![0; 8].into())
            })
        };
        for number in 0..1000 {
            get(number).unwrap();
            get(7).unwrap();
        }
        assert_eq!(loads.load(Ordering::Relaxed), 1000, "7 stays, every other is loaded once");
        let generations = cache.generations.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 8);
    }

    #[test]
    fn threads_load_an_entry_once_and_a_failure_is_tried_again() {
        let cache = Cache::<u8>::new(64, 8);
        assert!(cache.get(1, || Err(crate::Error::corrupt("x"))).is_err());
        let loads = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    cache.get(1, || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        std::thread::yield_now();
                        Ok(vec![1; 8].into())
                    })
                });
            }
        });
        assert_eq!(loads.load(Ordering::Relaxed), 1);
    }
}
