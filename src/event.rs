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

/// What becomes of one machine of many.
#[derive(Clone, Debug)]
pub enum MachineEvent {
    /// Work on it began.
    Began,
    /// Something happened to it.
    Event(Event),
    /// It is done, well or not: one line.
    Ended(String),
}

/// Whoever watches many machines at once. Called from several threads.
pub trait FleetObserver: Sync {
    /// Something happened to the machine with that number; must be quick.
    fn machine(&self, index: usize, event: MachineEvent);
}

/// One machine of many, for an operation that knows of one.
pub struct OneOf<'a> {
    /// Its number.
    pub index: usize,
    /// Who watches all of them.
    pub fleet: &'a dyn FleetObserver,
}

impl Observer for OneOf<'_> {
    fn event(&self, event: Event) {
        self.fleet.machine(self.index, MachineEvent::Event(event));
    }
}

/// Nobody.
pub struct Silent;

impl FleetObserver for Silent {
    fn machine(&self, _index: usize, _event: MachineEvent) {}
}

impl Observer for Silent {
    fn event(&self, _event: Event) {}
}
