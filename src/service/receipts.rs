//! What is received in the background: one at a time for each machine, a few at once, and what came of it for those who ask.
//!
//! ```text
//! API -> waiting -> running (a thread of the service) -> done | failed     kept for the last thousand
//! ```
//! It is in memory only: what was running when the service ended is in the vault, and goes on from there ([`batch`](crate::receive::batch)).

use super::Service;
use crate::moment::Moment;
use crate::name::Name;
use crate::report::VERSION;
use crate::report::receiving::{Receipt, ReceiptState, Received};
use landfall_image::{Error, Kind, Result};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// Those that wait: more are sent at a full hour than can be taken at once.
const WAITING_AT_MOST: usize = 4096;
/// Those that have ended and are told of.
const KEPT: usize = 1000;
/// How often it is looked whether the service stops.
const TICK: Duration = Duration::from_millis(200);

type Work = Box<dyn FnOnce(&Service) -> Result<Received> + Send>;

/// What no two work on at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum On {
    /// A machine, into which nothing else writes either.
    Machine(Name),
    /// A watched folder, by its place in the service's file.
    Folder(usize),
}

struct Job {
    id: Uuid,
    on: On,
    work: Work,
}

/// What is received.
#[derive(Default)]
pub struct Receipts {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Job>,
    busy: BTreeSet<On>,
    all: HashMap<Uuid, Receipt>,
    /// Those that have ended, the oldest first.
    ended: VecDeque<Uuid>,
}

impl fmt::Debug for Receipts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipts").finish_non_exhaustive()
    }
}

impl Receipts {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts something behind all that waits. `on` is what it works on.
    ///
    /// # Errors
    /// [`Kind::Interrupted`] where too much waits.
    pub(super) fn add(
        &self,
        says: String,
        on: On,
        work: impl FnOnce(&Service) -> Result<Received> + Send + 'static,
    ) -> Result<Receipt> {
        let mut inner = self.inner();
        if inner.waiting.len() >= WAITING_AT_MOST {
            return Err(Error::new(Kind::Interrupted, "too much waits to be received already")
                .hint("send it again in a while"));
        }
        let receipt = Receipt {
            version: VERSION,
            id: Uuid::new_v4(),
            says,
            state: ReceiptState::Waiting,
            began: Moment::now(),
            ended: None,
            received: None,
            error: None,
        };
        inner.all.insert(receipt.id, receipt.clone());
        inner.waiting.push_back(Job { id: receipt.id, on, work: Box::new(work) });
        self.changed.notify_all();
        Ok(receipt)
    }

    /// One of them.
    ///
    /// # Errors
    /// Refused where there is none of that number, or it ended too long ago.
    pub fn receipt(&self, id: Uuid) -> Result<Receipt> {
        self.inner().all.get(&id).cloned().ok_or_else(|| {
            Error::refused(format!("nothing is known of the receipt {id}"))
                .hint("it ended long ago, or before the service was started; landfall points list shows what came of it")
        })
    }

    /// Wakes those who wait, so that they see that the service stops.
    pub(super) fn stop(&self) {
        self.changed.notify_all();
    }

    /// The next that can be worked on; `None` where the service stops.
    fn next(&self, service: &Service) -> Option<Job> {
        let mut inner = self.inner();
        loop {
            if service.is_stopping() {
                return None;
            }
            let leases = &service.incoming().leases;
            let is_free = |on: &On| match on {
                // What was cut off stays so: it is refused, with the reason.
                On::Machine(name) => leases.running(name).is_none_or(|(_, is_cut_off)| is_cut_off),
                On::Folder(_) => true,
            };
            let free = |job: &Job| !inner.busy.contains(&job.on) && is_free(&job.on);
            let free = inner.waiting.iter().position(free);
            if let Some(job) = free.and_then(|at| inner.waiting.remove(at)) {
                inner.busy.insert(job.on.clone());
                if let Some(receipt) = inner.all.get_mut(&job.id) {
                    receipt.state = ReceiptState::Running;
                    receipt.began = Moment::now();
                }
                return Some(job);
            }
            inner = self.changed.wait_timeout(inner, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn end(&self, id: Uuid, on: &On, came: Result<Received>) {
        let mut inner = self.inner();
        inner.busy.remove(on);
        if let Some(receipt) = inner.all.get_mut(&id) {
            receipt.ended = Some(Moment::now());
            match came {
                Ok(received) => {
                    receipt.state = ReceiptState::Done;
                    receipt.received = Some(received);
                }
                Err(error) => {
                    receipt.state = ReceiptState::Failed;
                    receipt.error = Some((&error).into());
                }
            }
        }
        inner.ended.push_back(id);
        while inner.ended.len() > KEPT {
            if let Some(oldest) = inner.ended.pop_front() {
                inner.all.remove(&oldest);
            }
        }
        self.changed.notify_all();
    }
}

/// Ends a job also where a defect ends its thread.
struct Ending<'r> {
    receipts: &'r Receipts,
    job: Option<(Uuid, On)>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if let Some((id, on)) = self.job.take() {
            let error =
                Error::new(Kind::Io, "a defect of landfall ended it").hint("the service's log has more");
            self.receipts.end(id, &on, Err(error));
        }
    }
}

impl Service {
    /// Receives what waits until the service stops. Takes a thread.
    pub fn receive_deltas(&self) {
        while let Some(Job { id, on, work }) = self.receipts.next(self) {
            let mut ending = Ending { receipts: &self.receipts, job: Some((id, on)) };
            let came = work(self);
            if let Err(error) = &came {
                tracing::warn!(%error, receipt = %id, "something that was sent is not received");
            }
            if let Some((id, on)) = ending.job.take() {
                self.receipts.end(id, &on, came);
            }
        }
    }
}
