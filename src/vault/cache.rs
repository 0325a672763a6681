//! Parts of files that were read and checked: those used last, up to so many bytes.

use landfall_image::Result;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// See the module.
#[derive(Debug)]
pub struct Cache {
    bytes_at_most: usize,
    state: Mutex<State>,
    files: AtomicU64,
}

/// A file and a part of it.
type Key = (u64, u64);

#[derive(Debug, Default)]
struct State {
    parts: HashMap<Key, (Arc<[u8]>, u64)>,
    bytes: usize,
    uses: u64,
}

impl Cache {
    /// Keeps so many bytes.
    pub fn new(bytes_at_most: usize) -> Cache {
        Cache { bytes_at_most, state: Mutex::default(), files: AtomicU64::new(0) }
    }

    /// A number for a file that no other one has, nor had: what is kept of an old one is never taken for the new one's.
    pub fn file(&self) -> u64 {
        self.files.fetch_add(1, Ordering::Relaxed)
    }

    /// A part of a file by its number, read where it is not kept.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn get(&self, file: u64, part: u64, read: impl FnOnce() -> Result<Vec<u8>>) -> Result<Arc<[u8]>> {
        let state = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut state = state();
            state.uses += 1;
            let now = state.uses;
            if let Some((part, used)) = state.parts.get_mut(&(file, part)) {
                *used = now;
                return Ok(Arc::clone(part));
            }
        }
        // Nobody waits for the medium but who asked.
        let content: Arc<[u8]> = read()?.into();
        let mut state = state();
        let now = state.uses;
        state.bytes += content.len();
        if let Some((old, _)) = state.parts.insert((file, part), (Arc::clone(&content), now)) {
            state.bytes -= old.len();
        }
        if state.bytes > self.bytes_at_most {
            state.drop_oldest();
        }
        Ok(content)
    }
}

impl State {
    /// A quarter at once, so that looking for them is rare.
    fn drop_oldest(&mut self) {
        let mut uses: Vec<u64> = self.parts.values().map(|(_, used)| *used).collect();
        uses.sort_unstable();
        let keep_from = uses[uses.len() / 4];
        self.parts.retain(|_, (_, used)| *used > keep_from);
        self.bytes = self.parts.values().map(|(part, _)| part.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_kept_and_no_more_than_fits() {
        let cache = Cache::new(100 * 10);
        let (file, other) = (cache.file(), cache.file());
        let reads = std::cell::Cell::new(0);
        let get = |file, part: u64| {
            let read = || {
                reads.set(reads.get() + 1);
                Ok(vec![u8::try_from(part % 251).unwrap(); 10])
            };
            cache.get(file, part, read).unwrap()
        };
        for part in 0..1000 {
            assert_eq!(get(file, part)[0], u8::try_from(part % 251).unwrap());
            // Asked for again and again.
            get(file, 7);
            assert!(cache.state.lock().unwrap().bytes <= 1000);
        }
        assert_eq!(reads.get(), 1000);
        get(other, 7);
        assert_eq!(reads.get(), 1001, "another file's");
    }
}
