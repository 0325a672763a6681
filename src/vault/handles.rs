//! Files that are open, and what was read of them: a vault has more segments than a process may open.

use super::cache::Cache;
use super::storage::{Storage, StoredFile};
use landfall_image::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of indexes that are kept: 16,384 pages.
const PAGES: usize = 64 << 20;
/// Bytes of segments that are kept.
const BLOCKS: usize = 16 << 20;

/// The files used last.
#[derive(Debug)]
pub struct Handles {
    at_most: usize,
    state: Mutex<State>,
    /// Pages of indexes.
    pages: Cache,
    /// Blocks of segments.
    pub blocks: Cache,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<String, (Arc<dyn StoredFile>, u64)>,
    uses: u64,
}

impl Handles {
    /// Keeps so many open.
    pub fn new(at_most: usize) -> Handles {
        Handles {
            at_most: at_most.max(1),
            state: Mutex::default(),
            pages: Cache::new(PAGES),
            blocks: Cache::new(BLOCKS),
        }
    }

    /// The file, opened now or before.
    pub fn open(&self, storage: &dyn Storage, path: &str) -> Result<Arc<dyn StoredFile>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.uses += 1;
        let now = state.uses;
        if let Some((file, used)) = state.files.get_mut(path) {
            *used = now;
            return Ok(Arc::clone(file));
        }
        let file = storage.open(path)?;
        if state.files.len() >= self.at_most {
            // A quarter at once, so that looking for the oldest is rare.
            let mut uses: Vec<u64> = state.files.values().map(|(_, used)| *used).collect();
            uses.sort_unstable();
            let keep_from = uses[uses.len() / 4];
            state.files.retain(|_, (_, used)| *used > keep_from);
        }
        state.files.insert(path.to_owned(), (Arc::clone(&file), now));
        Ok(file)
    }

    /// Closes all in a folder and in those below it: they go.
    pub fn forget_all_in(&self, dir: &str) {
        let is_in = |path: &str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
        self.state.lock().unwrap_or_else(PoisonError::into_inner).files.retain(|path, _| !is_in(path));
    }

    /// Closes it: it goes, or gets another name.
    pub fn forget(&self, path: &str) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).files.remove(path);
    }
}

/// A file by its path, opened when it is needed.
#[derive(Clone, Debug)]
pub struct Stored {
    storage: Arc<dyn Storage>,
    handles: Arc<Handles>,
    path: Arc<str>,
    number: u64,
}

impl Stored {
    /// The file of that path.
    pub fn new(storage: &Arc<dyn Storage>, handles: &Arc<Handles>, path: &str) -> Stored {
        let number = handles.pages.file();
        Stored { storage: Arc::clone(storage), handles: Arc::clone(handles), path: path.into(), number }
    }

    /// # Errors
    /// As the storage's.
    pub fn open(&self) -> Result<Arc<dyn StoredFile>> {
        self.handles.open(&*self.storage, &self.path)
    }

    /// A page of it, from the cache or as `read` gives it.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn cached(&self, page: u64, read: impl FnOnce() -> Result<Vec<u8>>) -> Result<Arc<[u8]>> {
        self.handles.pages.get(self.number, page, read)
    }

    /// For people.
    pub fn place(&self) -> std::path::PathBuf {
        self.storage.place(&self.path)
    }
}
