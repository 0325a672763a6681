//! What a receiver has done, for metrics and reports.

use crate::receive::ExportName;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),*) => {
        /// Sums since the start, of one export or of all.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Tally {
            $($(#[$doc])* pub $name: u64),*
        }

        #[derive(Default)]
        pub(super) struct Counters {
            $($name: AtomicU64),*
        }

        impl Counters {
            pub(super) fn add(&self, more: &Tally) {
                $(if more.$name > 0 { self.$name.fetch_add(more.$name, Relaxed); })*
            }
            fn read(&self) -> Tally {
                Tally { $($name: self.$name.load(Relaxed)),* }
            }
        }
    };
}

counters! {
    /// Requests answered, failed ones included.
    requests,
    /// Requests answered with an error, whosever fault it was.
    failed,
    /// Writes applied.
    writes,
    /// Bytes of these.
    written_bytes,
    /// Trims and writes of zeros applied.
    zeroings,
    /// Bytes of these.
    zeroed_bytes,
    /// Flushes done, those of FUA included.
    flushes,
    /// Bytes read and sent.
    read_bytes
}

/// One export that somebody has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportStats {
    /// Which.
    pub name: ExportName,
    /// Connections that use it now.
    pub connections: usize,
    /// What they and earlier ones did.
    pub tally: Tally,
}

/// A receiver at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections now, those that greet included.
    pub connections: usize,
    /// Connections taken since the start.
    pub accepted: u64,
    /// Hung up on at once: a limit was reached.
    pub turned_away: u64,
    /// Not let in: no certificate, a wrong one, no export, too slow, or nonsense.
    pub not_let_in: u64,
    /// Ended other than by the client's goodbye or a stop, having been let in.
    pub broken_off: u64,
    /// What all exports did together.
    pub total: Tally,
    /// Every export that has been used, by name.
    pub exports: Vec<ExportStats>,
}

/// One export, while the receiver runs.
#[derive(Default)]
pub(super) struct Export {
    connections: AtomicUsize,
    /// Held while somebody is told of a new count, so that nobody hears of an older one later.
    telling: Mutex<()>,
    pub counters: Counters,
}

impl Export {
    /// Counts a connection in (1) or out (-1), and tells `then` how many there are.
    pub(super) fn count(&self, by: isize, then: impl FnOnce(usize)) {
        let _alone = lock(&self.telling);
        let connections = self.connections.load(Relaxed).saturating_add_signed(by);
        self.connections.store(connections, Relaxed);
        then(connections);
    }
}

/// What a receiver counts.
#[derive(Default)]
pub(super) struct Ledger {
    pub connections: AtomicU64,
    pub accepted: AtomicU64,
    pub turned_away: AtomicU64,
    pub not_let_in: AtomicU64,
    pub broken_off: AtomicU64,
    pub total: Counters,
    exports: Mutex<BTreeMap<ExportName, Arc<Export>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// The entry of an export that exists. Entries stay: there are as many as there are disks.
    pub(super) fn export(&self, name: &ExportName) -> Arc<Export> {
        lock(&self.exports).entry(name.clone()).or_default().clone()
    }

    pub(super) fn read(&self) -> Stats {
        let exports = lock(&self.exports);
        let exports = exports.iter().map(|(name, export)| ExportStats {
            name: name.clone(),
            connections: export.connections.load(Relaxed),
            tally: export.counters.read(),
        });
        Stats {
            connections: usize::try_from(self.connections.load(Relaxed)).unwrap_or(usize::MAX),
            accepted: self.accepted.load(Relaxed),
            turned_away: self.turned_away.load(Relaxed),
            not_let_in: self.not_let_in.load(Relaxed),
            broken_off: self.broken_off.load(Relaxed),
            total: self.total.read(),
            exports: exports.collect(),
        }
    }
}
