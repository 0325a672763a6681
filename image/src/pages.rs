//! A bounded cache of allocation-table pages, for tables that are too large to keep whole.
//!
//! Direct-mapped: each page has one slot, chosen by its place in the file, so there is no list to maintain and no
//! lock that all threads share. The lock of a slot is held to look or to swap, never while the file is read, and
//! guest data does not pass through here. Deliberately absent: write-back; images are only read.

use crate::error::Result;
use crate::units::{Bytes, FileOffset};
use std::sync::{Arc, PoisonError, RwLock};

/// Largest page. Callers cut their tables into pages of at most this length.
pub const PAGE: Bytes = Bytes::kib(64);

type Slot = RwLock<Option<(FileOffset, Arc<[u8]>)>>;

/// Pages of tables, by where they begin in the file. Memory is taken as pages come in.
pub struct PageCache {
    slots: Box<[Slot]>,
}

impl PageCache {
    /// A cache of at most `budget`, at least one page.
    pub fn new(budget: Bytes) -> Self {
        let slots = (budget.0 / PAGE.0).max(1);
        PageCache { slots: (0..slots).map(|_| RwLock::new(None)).collect() }
    }

    /// The page that begins at `at`, from the cache or else from `load`. Two threads may load one page at the
    /// same time; both get the same bytes, since the file does not change.
    pub fn page(&self, at: FileOffset, load: impl FnOnce() -> Result<Vec<u8>>) -> Result<Arc<[u8]>> {
        // Fibonacci hashing spreads pages at any stride over the slots.
        let hash = (at.0 >> 9).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let Some(slot) = self.slots.get(usize::try_from(hash).unwrap_or(0) % self.slots.len()) else {
            return load().map(Arc::from);
        };
        if let Some((here, page)) = &*slot.read().unwrap_or_else(PoisonError::into_inner)
            && *here == at
        {
            return Ok(Arc::clone(page));
        }
        let page: Arc<[u8]> = load()?.into();
        *slot.write().unwrap_or_else(PoisonError::into_inner) = Some((at, Arc::clone(&page)));
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn pages_are_loaded_once_and_memory_is_bounded() {
        let cache = PageCache::new(Bytes(PAGE.0 * 4));
        let load = |at: u64| cache.page(FileOffset(at), || Ok(at.to_le_bytes().to_vec()));
        for at in (0..100).map(|n| n * PAGE.0) {
            assert_eq!(&*load(at).unwrap(), &at.to_le_bytes());
            let again = cache.page(FileOffset(at), || Err(Error::corrupt("loaded twice"))).unwrap();
            assert_eq!(&*again, &at.to_le_bytes());
        }
        assert_eq!(cache.slots.len(), 4);
        // A failed load is not remembered.
        assert!(cache.page(FileOffset(7 << 40), || Err(Error::corrupt("x"))).is_err());
        assert!(load(7 << 40).is_ok());
    }
}
