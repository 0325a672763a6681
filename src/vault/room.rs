//! How much of the medium the journals of a vault may fill. A part stays free for what gives room back: points are thinned, and the oldest
//! part of a journal goes into the base, by writing the new files before the old ones go.

use super::storage::Storage;
use landfall_image::{Bytes, Error, Result};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Of a large file system this much stays free, of a small one a twentieth: more than two segments and what is made of them.
const KEPT: u64 = 1 << 30;
const PART: u64 = 20;
/// After so many bytes, at the latest, it is asked again how many are free.
const LOOK: u64 = 64 << 20;

/// What stays free of a file system of `size` bytes.
pub fn kept(size: u64) -> u64 {
    KEPT.min(size / PART)
}

/// The room of a vault.
#[derive(Debug)]
pub struct Room {
    storage: Arc<dyn Storage>,
    /// Bytes that may be written before it is asked again.
    left: AtomicU64,
    /// Somebody was refused.
    has_refused: AtomicBool,
}

impl Room {
    /// That of the medium.
    pub fn new(storage: &Arc<dyn Storage>) -> Room {
        Room { storage: Arc::clone(storage), left: AtomicU64::new(0), has_refused: AtomicBool::new(false) }
    }

    /// Takes room for so many bytes.
    ///
    /// # Errors
    /// I/O ([`ErrorKind::StorageFull`]) where there is none; as the storage's.
    pub fn take(&self, bytes: u64) -> Result<()> {
        let taken = |left: u64| left.checked_sub(bytes);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok() {
            return Ok(());
        }
        let Some((free, size)) = self.storage.room()? else {
            self.left.store(u64::MAX, Ordering::Relaxed);
            return Ok(());
        };
        let left = free.saturating_sub(kept(size));
        if left < bytes {
            self.left.store(0, Ordering::Relaxed);
            self.has_refused.store(true, Ordering::Relaxed);
            return Err(Error::io(
                format!(
                    "the vault is full: {} of {} are free, and {} of it stay so",
                    Bytes(free),
                    Bytes(size),
                    Bytes(kept(size))
                ),
                ErrorKind::StorageFull.into(),
            )
            .in_file(&self.storage.place(""))
            .hint("points are thinned by themselves to get room; beside that, make its file system larger, or take machines out: landfall unprotect"));
        }
        self.left.store((left - bytes).min(LOOK), Ordering::Relaxed);
        Ok(())
    }

    /// True where somebody was refused, and there is no more room than that since.
    pub fn is_full(&self) -> bool {
        if !self.has_refused.load(Ordering::Relaxed) {
            return false;
        }
        let is_full = match self.storage.room() {
            // Twice what stays free: it does not come and go with each segment.
            Ok(Some((free, size))) => free < 2 * kept(size),
            _ => true,
        };
        self.has_refused.store(is_full, Ordering::Relaxed);
        is_full
    }
}
