//! What an operation tells while it runs. The command line draws it; a service would log it.

use landfall_image::convert::Progress;

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A step began: one line for people.
    Step(String),
    /// Copying a disk began; how far it is can be read from `progress` at any time.
    CopyStarted {
        /// Its file name at the target.
        disk: String,
        /// Its counters.
        progress: Progress,
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
