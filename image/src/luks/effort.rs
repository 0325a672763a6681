//! How much work may go into keys: headers of a hostile machine name slots that each take minutes.

use crate::error::{Error, Result};
use crate::limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Work that is left for opening the volumes of one machine, or one image.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Steps of PBKDF2, or KiB that Argon2 passes over: about as long as each other.
    left: u64,
    cancel: Arc<AtomicBool>,
}

impl Default for Effort {
    fn default() -> Self {
        Effort::until(Arc::default())
    }
}

impl Effort {
    /// As much as is sane, until `cancel` is set.
    pub fn until(cancel: Arc<AtomicBool>) -> Effort {
        Effort { left: limits::LUKS_WORK, cancel }
    }

    /// So many steps.
    #[cfg(test)]
    pub(super) fn of(left: u64) -> Effort {
        Effort { left, ..Effort::default() }
    }

    /// Before `steps` are made.
    ///
    /// # Errors
    /// [`Kind::Interrupted`](crate::Kind::Interrupted) when it was cancelled, [`Kind::Refused`](crate::Kind::Refused) where
    /// less is left.
    pub(crate) fn spend(&mut self, steps: u64) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::interrupted());
        }
        self.left = self.left.checked_sub(steps).ok_or_else(|| {
            Error::refused(format!(
                "its key slots, with those tried before, take more than {} steps of key derivation",
                limits::LUKS_WORK
            ))
            .hint("remove key slots that nobody uses (cryptsetup luksKillSlot), or open it in the source machine")
        })?;
        Ok(())
    }
}

/// What came of the key slots that were tried and did not fit.
#[derive(Default)]
pub(super) struct Slots {
    pub tried: usize,
    /// Why the first of those that cannot be tried cannot.
    unusable: Option<Error>,
}

impl Slots {
    /// Takes note of a slot: what it gives where it fits. One that cannot be used does not hide the others.
    ///
    /// # Errors
    /// Those of the disk, and a cancellation.
    pub fn take<T>(&mut self, tried: Result<Option<T>>) -> Result<Option<T>> {
        self.tried += 1;
        match tried {
            Ok(found) => Ok(found),
            Err(error) if matches!(error.kind(), crate::Kind::Io | crate::Kind::Interrupted) => Err(error),
            Err(error) => {
                self.unusable.get_or_insert(error);
                Ok(None)
            }
        }
    }

    /// Where none fits: how many were tried.
    ///
    /// # Errors
    /// Where one of them could not be used: it may be the one that the key is for.
    pub fn none_fits(self) -> Result<usize> {
        self.unusable.map_or(Ok(self.tried), Err)
    }
}
