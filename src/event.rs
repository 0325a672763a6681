//! What an operation tells while it runs. The command line draws it; a service would log it.

use landfall_image::Bytes;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step began: one line for people.
    Step(String),
    /// Copying a disk began.
    CopyStarted {
        /// Its file name at the target.
        disk: String,
        /// How much is expected to be read, as far as it is known.
        expected: Bytes,
    },
    /// So much of the disk was dealt with since it began.
    CopyProgress {
        /// Bytes read and written, or skipped as zeros.
        done: Bytes,
        /// As above; grows when more data turns up.
        expected: Bytes,
    },
    /// The disk is complete.
    CopyFinished,
}

/// Whoever wants to know. Called from several threads.
pub trait Observer: Sync {
    /// Takes one event; must be quick.
    fn event(&self, event: Event);
}

/// Nobody.
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _event: Event) {}
}
