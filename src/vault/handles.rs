//! Files that are open: a vault has more segments than a process may open.

use super::storage::{Storage, StoredFile};
use landfall_image::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The files used last.
#[derive(Debug)]
pub struct Handles {
    at_most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<String, (Arc<dyn StoredFile>, u64)>,
    uses: u64,
}

impl Handles {
    /// Keeps so many open.
    pub fn new(at_most: usize) -> Handles {
        Handles { at_most: at_most.max(1), state: Mutex::default() }
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
}

impl Stored {
    /// The file of that path.
    pub fn new(storage: &Arc<dyn Storage>, handles: &Arc<Handles>, path: &str) -> Stored {
        Stored { storage: Arc::clone(storage), handles: Arc::clone(handles), path: path.into() }
    }

    /// # Errors
    /// As the storage's.
    pub fn open(&self) -> Result<Arc<dyn StoredFile>> {
        self.handles.open(&*self.storage, &self.path)
    }

    /// For people.
    pub fn place(&self) -> std::path::PathBuf {
        self.storage.place(&self.path)
    }
}
