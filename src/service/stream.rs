//! A disk that comes in: who sends it, and whether what it holds is a state of its machine.
//!
//! ```text
//! client comes -> (first write) being copied -> (flushes, and stays) in sync -> … -> client goes -> (next client, first write) being copied
//! ```
//! Nothing in NBD tells a copy that begins anew from one that goes on. So the first write of each client that finds the disk alone puts
//! it into doubt, and no point is set until the doubt is gone. What was in sync before has its point by then. One that comes while another has
//! written already does so, too: the machine may have been started again elsewhere, and the old connection be one that nobody has missed yet.
//! Then only its own word counts.
//!
//! Where writes that were acknowledged may be missing (the host lost its power), no client's word is enough: all of the disk has to be sent
//! anew ([`Coverage`]); a backup of what has changed since would leave out what was lost.

use super::config::InSync;
use super::coverage::Coverage;
use crate::receive::Peer;
use crate::receive::lease::StreamLease;
use crate::receive::position;
use crate::vault::journal::{Journal, State};
use crate::vault::machine::{Live, Machine};
use landfall_image::{Bytes, Disk, DiskMut, Error, Extent, GuestOffset, GuestRange, Result};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A client that flushed is believed to stay after this.
pub const SETTLED: Duration = Duration::from_secs(2);

/// One disk that comes in. See the module.
#[derive(Debug)]
pub struct Stream {
    machine: Arc<Machine>,
    disk: String,
    /// Nothing was written since the client came: the next write is the first.
    is_fresh: AtomicBool,
    connections: AtomicUsize,
    /// Milliseconds since 1970 of the last write; 0 for none since the start.
    written: AtomicU64,
    session: Mutex<Session>,
    /// What was sent anew, where writes may be missing.
    coverage: Option<Mutex<Coverage>>,
}

#[derive(Debug, Default)]
struct Session {
    /// Who came first.
    peer: Option<String>,
    /// When the client flushed; not before its first write.
    flushed: Option<Instant>,
    /// Who came later and wrote, too: only its flushes count.
    doubter: Option<Peer>,
    /// How the last one ended, where that was not meant.
    lost: Option<String>,
    /// Who sent last, where it left as it meant to.
    left: Option<String>,
    /// Since when nobody is connected; at first since the start.
    alone: Option<Instant>,
}

/// How a stream is at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections.
    pub connections: usize,
    /// Who sends.
    pub peer: Option<String>,
    /// Milliseconds since 1970 of the last write; `None` for none since the start.
    pub written: Option<u64>,
    /// Why the last client went, where it did not mean to.
    pub lost: Option<String>,
    /// Who sent last since the start, where it left as it meant to.
    pub left: Option<String>,
    /// For how long nobody has been connected; `None` where somebody is.
    pub alone: Option<Duration>,
}

impl Stream {
    /// The stream of a disk that the machine has.
    pub fn new(machine: &Arc<Machine>, disk: &str) -> Stream {
        let size = machine.live(disk).map_or(0, |live| live.size().0);
        Stream {
            coverage: machine.journal().is_behind().then(|| Mutex::new(Coverage::new(size))),
            machine: Arc::clone(machine),
            disk: disk.to_owned(),
            is_fresh: AtomicBool::new(true),
            connections: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            session: Mutex::new(Session { alone: Some(Instant::now()), ..Session::default() }),
        }
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> &Journal {
        self.machine.journal()
    }

    /// The disk, for a client to write to who has the right to.
    ///
    /// # Errors
    /// Where the machine has the disk no more.
    pub fn incoming(self: &Arc<Self>, peer: &Peer, lease: StreamLease) -> Result<Incoming> {
        let is_late = self.connections.load(Ordering::Relaxed) > 0 && !self.is_fresh.load(Ordering::Acquire);
        Ok(Incoming {
            live: self.machine.live(&self.disk)?,
            stream: Arc::clone(self),
            peer: peer.clone(),
            is_late: Arc::new(AtomicBool::new(is_late)),
            _lease: Arc::new(lease),
        })
    }

    /// How it is.
    pub fn seen(&self) -> Seen {
        let session = self.session();
        Seen {
            connections: self.connections.load(Ordering::Relaxed),
            peer: session.peer.clone(),
            written: Some(self.written.load(Ordering::Relaxed)).filter(|time| *time > 0),
            lost: session.lost.clone(),
            left: session.left.clone(),
            alone: session.alone.map(|since| since.elapsed()),
        }
    }

    /// A client came; `connections` are there now.
    pub fn came(&self, peer: &Peer, connections: usize) {
        let mut session = self.session();
        if connections == 1 {
            *session = Session { peer: Some(peer.to_string()), ..Session::default() };
            self.is_fresh.store(true, Ordering::Release);
        }
        self.connections.store(connections, Ordering::Relaxed);
    }

    /// A client went; `why` where it did not mean to.
    pub fn went(&self, connections: usize, why: Option<&str>) {
        let mut session = self.session();
        self.connections.store(connections, Ordering::Relaxed);
        session.lost = session.lost.take().or_else(|| why.map(str::to_owned));
        if connections == 0 {
            session.left = session.peer.take().filter(|_| session.lost.is_none());
            session.flushed = None;
            session.alone = Some(Instant::now());
        }
    }

    /// A client flushed.
    ///
    /// # Errors
    /// As the journal's.
    pub fn flushed(&self, peer: &Peer, rule: InSync) -> Result<()> {
        let mut session = self.session();
        if session.doubter.as_ref().is_some_and(|doubter| doubter != peer) {
            return Ok(());
        }
        match rule {
            InSync::Said => Ok(()),
            InSync::Flush => self.believe(),
            InSync::Stays => {
                session.flushed.get_or_insert_with(Instant::now);
                Ok(())
            }
        }
    }

    /// Believes a client that flushed and stayed.
    ///
    /// # Errors
    /// As the journal's.
    pub fn settle(&self) -> Result<()> {
        let mut session = self.session();
        let has_settled = session.flushed.is_some_and(|at| at.elapsed() >= SETTLED);
        if has_settled && self.connections.load(Ordering::Relaxed) > 0 {
            session.flushed = None;
            self.believe()?;
        }
        Ok(())
    }

    /// The disk is a state of its machine again, as somebody says.
    ///
    /// # Errors
    /// Refused where writes may be missing, and not all of the disk was sent anew; as the journal's.
    pub fn believe(&self) -> Result<()> {
        if self.journal().is_behind() && !self.is_whole()? {
            return Err(Error::refused(format!(
                "{}/{} may miss writes that were acknowledged before the power was lost, and was not sent as a whole since",
                self.machine.name(),
                self.disk
            ))
            .hint("copy the disk anew as a whole (sync=full); a copy of what has changed leaves out what was lost"));
        }
        self.journal().set_copying(&self.disk, None)?;
        match self.journal().is_behind() && self.journal().with_state(State::copying).is_empty() {
            true => self.journal().caught_up(),
            false => Ok(()),
        }
    }

    fn is_whole(&self) -> Result<bool> {
        let live = self.machine.live(&self.disk)?;
        match &self.coverage {
            Some(coverage) => coverage.lock().unwrap_or_else(PoisonError::into_inner).is_whole(&live),
            None => Ok(false),
        }
    }

    /// The first write of a client.
    fn begin(&self) -> Result<()> {
        let mut session = self.session();
        if self.is_fresh.load(Ordering::Acquire) {
            // What deltas have brought is what it holds no longer.
            position::end(&self.machine, &self.disk)?;
            if !self.journal().with_state(State::copying).contains_key(&self.disk) {
                let peer = session.peer.as_deref().unwrap_or("a client");
                self.journal().set_copying(
                    &self.disk,
                    Some(&format!("{peer} began to write, and did not say that its copy is complete")),
                )?;
            }
            // What was flushed before it was written is no copy.
            session.flushed = None;
            self.is_fresh.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// The first write of a client that came while another one had written.
    fn begin_beside(&self, peer: &Peer) -> Result<()> {
        let mut session = self.session();
        let first = session.peer.as_deref().unwrap_or("a client");
        let why = format!("{peer} began to write beside {first}, and did not say that its copy is complete");
        self.journal().set_copying(&self.disk, Some(&why))?;
        (session.flushed, session.doubter) = (None, Some(peer.clone()));
        Ok(())
    }

    fn write(&self, incoming: &Incoming, range: Range<u64>) -> Result<()> {
        self.machine.roles().check(self.machine.name())?;
        self.written.store(super::now(), Ordering::Relaxed);
        if let Some(coverage) = &self.coverage {
            coverage.lock().unwrap_or_else(PoisonError::into_inner).add(&range);
        }
        if self.is_fresh.load(Ordering::Acquire) {
            self.begin()?;
        }
        if incoming.is_late.load(Ordering::Acquire) {
            self.begin_beside(&incoming.peer)?;
            incoming.is_late.store(false, Ordering::Release);
        }
        Ok(())
    }
}

/// A machine's disk, as a client writes to it.
#[derive(Clone, Debug)]
pub struct Incoming {
    live: Live,
    stream: Arc<Stream>,
    peer: Peer,
    /// It has not written yet, and others had when it came.
    is_late: Arc<AtomicBool>,
    /// No delta is written meanwhile.
    _lease: Arc<StreamLease>,
}

impl Disk for Incoming {
    fn size(&self) -> Bytes {
        self.live.size()
    }

    fn sector_size(&self) -> Bytes {
        self.live.sector_size()
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        self.live.extents(range, at_most)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        self.live.read_at(at, buf)
    }
}

impl DiskMut for Incoming {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        self.stream.write(self, at.0..at.0.saturating_add(data.len() as u64))?;
        self.live.write_at(at, data)
    }

    fn zero_at(&self, range: GuestRange) -> Result<()> {
        self.stream.write(self, range.start().0..range.end().0)?;
        self.live.zero_at(range)
    }

    fn flush(&self) -> Result<()> {
        self.live.flush()
    }
}
