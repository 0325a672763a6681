//! Ways in besides NBD, into the service's vault: what was cut off before it started, RBD streams, pulls.
//!
//! ```text
//! start: machines with unfinished batches are closed -> (a thread) each is done again or taken back -> its machine is let in
//! POST /v1/uploads -> spool -> receipt: rbd::take -> points -> Watched
//! ```

use super::Service;
use super::alarms::Wrong;
use super::config::Config;
use super::folders::watchers;
use super::receipts::On;
use super::watched::Watched;
use crate::event::Silent;
use crate::name::Name;
use crate::ops::{Context, Settings};
use crate::receive::batch::{Intent, Target};
use crate::receive::content::Effort;
use crate::receive::folder::Hands;
use crate::receive::incoming::Incoming;
use crate::receive::pull::{self, pull};
use crate::receive::rbd::export::{Wanted, export};
use crate::receive::rbd::{self, Policy};
use crate::receive::spool::{Request, Upload};
use crate::report::protection::Gravity;
use crate::report::receiving::{Receipt, Received};
use crate::vault::Vault;
use crate::vault::machine::Machine;
use landfall_image::convert::Cancel;
use landfall_image::{Bytes, Error, Gate, Kind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// An upload that nobody has had taken after this is given up: whoever sent it is gone.
const UNTAKEN: Duration = Duration::from_secs(3600);
/// How often it is looked whether the service stops.
const WAIT: Duration = Duration::from_millis(200);
/// What is read of an upload at once.
const PIECE: usize = 1 << 20;
/// After so many bytes it is looked whether there is room.
const LOOK: u64 = 64 << 20;

/// The ways in, and what is to be told of them.
#[derive(Debug)]
pub(super) struct Deltas {
    pub incoming: Incoming,
    pub cancel: Cancel,
    /// Uploads that are complete and wait to be taken, since when.
    untaken: Mutex<BTreeMap<Uuid, Instant>>,
    /// Uploads of an earlier run that are damaged.
    damaged: Vec<String>,
    /// What was cut off before the start, until it is ended.
    unfinished: Mutex<Vec<Intent>>,
}

impl Deltas {
    /// Opens the ways into a vault. Machines into which something was cut off are closed until [`Service::finish_deltas`] has ended it: it may
    /// take long, and others are not to wait.
    pub(super) fn open(vault: &Vault, root: &Path, is_there: impl Fn(&Name) -> bool) -> Result<Deltas> {
        let (incoming, damaged) = Incoming::open(root)?;
        // What was cut off in machines that were taken out since.
        for machine in incoming.leases.cut_off() {
            if !is_there(&machine) {
                incoming.batches.forget(&machine)?;
                incoming.leases.take_over(&machine)?.end();
            }
        }
        incoming.catch_up(vault)?;
        let unfinished = incoming.batches.unfinished()?;
        let needed = needed(&incoming)?;
        for upload in incoming.spool.uploads().iter().filter(|upload| !needed.contains(&upload.id)) {
            // Whoever sent it has lost the connection with the service before this one.
            incoming.spool.discard(upload.id)?;
        }
        let damaged = damaged.iter().map(|error| match error.hint_text() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        });
        Ok(Deltas {
            damaged: damaged.collect(),
            incoming,
            cancel: Cancel::default(),
            untaken: Mutex::default(),
            unfinished: Mutex::new(unfinished),
        })
    }

    pub(super) fn wrong(&self, put: &mut dyn FnMut(Wrong)) {
        if let Some(first) = self.damaged.first() {
            put(Wrong {
                id: "upload-damaged",
                gravity: Gravity::Warning,
                machine: None,
                says: format!(
                    "{} left over by an earlier run cannot be used: {first}.",
                    match self.damaged.len() {
                        1 => "An upload".to_owned(),
                        more => format!("{more} uploads"),
                    }
                ),
                remedy: "Remove its files as it says, start the service again, and send it anew.".to_owned(),
            });
        }
    }
}

/// Uploads that batches need which have not ended.
fn needed(incoming: &Incoming) -> Result<BTreeSet<Uuid>> {
    use crate::receive::batch::Work;
    let mut needed = BTreeSet::new();
    for intent in incoming.batches.unfinished()? {
        if let Work::Rbd(job) = &intent.work {
            needed.extend(job.items.iter().map(|item| item.upload));
        }
    }
    Ok(needed)
}

/// What operations are given here.
pub(super) fn context(config: &Config, cancel: &Cancel) -> Context<'static> {
    Context {
        gate: Gate::own_folder(),
        jobs: None,
        rate_limit: None,
        cancel: cancel.clone(),
        scratch: config.vault.clone(),
        // No guest is opened here.
        sandbox: Settings::new(PathBuf::new(), PathBuf::new()),
        nbd: config.pull.clone(),
        key: None,
        points: None,
        observer: &Silent,
    }
}

impl Service {
    /// Who writes where, and what is half done.
    pub fn incoming(&self) -> &Incoming {
        &self.deltas.incoming
    }

    /// Ends what was cut off before the start: it is done again from what is on the medium, or taken back. Takes a thread.
    pub fn finish_deltas(&self) {
        let unfinished =
            std::mem::take(&mut *self.deltas.unfinished.lock().unwrap_or_else(PoisonError::into_inner));
        let watchers = if unfinished.is_empty() { Vec::new() } else { watchers(&self.config.folders) };
        let context = context(&self.config, &self.deltas.cancel);
        let hands = Hands {
            vault: &self.vault,
            batches: &self.incoming().batches,
            context: &context,
            now: super::now(),
        };
        for intent in unfinished {
            // What another landfall sends goes on when it sends again.
            if self.incoming().waits(&self.vault, &intent).unwrap_or(false) {
                tracing::info!(machine = %intent.machine, "{} was cut off, and waits for its sender", intent.says);
                continue;
            }
            let finished = self.incoming().finish_one(&hands, &watchers, intent);
            let (says, machine) = (&finished.intent.says, &finished.intent.machine);
            match (&finished.error, finished.is_taken_back) {
                (None, _) => tracing::info!(%machine, "{says} was cut off, and is in the vault now"),
                (Some(error), true) => {
                    tracing::warn!(%machine, %error, "{says} was cut off, and is taken back")
                }
                // The next start goes on with it.
                (Some(_), false) if self.is_stopping() => {}
                (Some(error), false) => {
                    tracing::error!(%machine, %error, "{says} was cut off, and can be neither finished nor taken back");
                }
            }
            if self.vault.machine(machine).is_ok_and(|own| own.journal().is_behind())
                && let Err(error) = self.doubt(machine)
            {
                tracing::error!(%machine, %error, "that writes may be missing cannot be written down");
            }
            self.meet_again(machine);
        }
        while !self.is_stopping() {
            std::thread::sleep(WAIT);
        }
    }

    /// Machines that are being made by a delta are shown while it is written, too.
    pub(super) fn meet_new(&self) {
        let known = self.watched();
        for (name, _) in self.vault.machines() {
            if !known.contains_key(&name) {
                self.meet_again(&name);
            }
        }
    }

    fn effort(&self) -> Effort {
        Effort { cancel: self.deltas.cancel.clone(), ..Effort::default() }
    }

    /// Takes an upload in; it lies in the spool until it is taken, discarded, or an hour old.
    ///
    /// # Errors
    /// Refused where a hypervisor sends the disk at this moment, or room is scarce: it is needed for points. As the reader's: then nothing is left
    /// of it.
    pub fn upload(&self, request: Request, from: &mut dyn Read) -> Result<Upload> {
        if let Some(why) = self.unreadable.get(&request.machine) {
            return Err(Error::corrupt(format!("{} cannot be read: {why}", request.machine)));
        }
        let Incoming { leases, spool, .. } = self.incoming();
        if leases.is_streamed(&request.machine, &request.disk) {
            return Err(Error::refused(format!(
                "{}/{} is being written to over NBD",
                request.machine, request.disk
            ))
            .hint("end the mirror at the source first, or give the disk to only one of the two"));
        }
        self.has_room()?;
        let upload = spool.begin(request)?;
        let taken = self.fill(upload.id, from).and_then(|length| spool.complete(upload.id, length));
        match taken {
            Ok(upload) => {
                self.untaken().insert(upload.id, Instant::now());
                Ok(upload)
            }
            Err(error) => {
                spool.discard(upload.id)?;
                Err(error)
            }
        }
    }

    fn fill(&self, id: Uuid, from: &mut dyn Read) -> Result<u64> {
        let mut buf = vec![0; PIECE];
        let (mut at, mut looked) = (0, 0);
        loop {
            // Few, large pieces, however small those are that come.
            let mut len = 0;
            while len < buf.len() {
                match from.read(&mut buf[len..]) {
                    Ok(0) => break,
                    Ok(count) => len += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Error::io("the upload was cut off", error)),
                }
            }
            if len > 0 {
                at = self.incoming().spool.append(id, at, &buf[..len])?;
            }
            if len < buf.len() {
                return Ok(at);
            }
            if self.is_stopping() {
                return Err(Error::new(Kind::Interrupted, "the service is stopping"));
            }
            if at - looked >= LOOK {
                looked = at;
                self.has_room()?;
            }
        }
    }

    fn has_room(&self) -> Result<()> {
        match self.room().filter(|_| self.is_scarce()) {
            Some((free, _)) => Err(Error::refused(format!(
                "the vault has {} free: what there is is needed for the points of machines that are mirrored",
                Bytes(free)
            ))
            .hint("give its file system more room, or let machines keep fewer points ([machine.NAME] retention)")),
            None => Ok(()),
        }
    }

    fn untaken(&self) -> std::sync::MutexGuard<'_, BTreeMap<Uuid, Instant>> {
        self.deltas.untaken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an upload back. One that is not there, or is being taken, is no error.
    ///
    /// # Errors
    /// As the storage's.
    pub fn discard(&self, id: Uuid) -> Result<()> {
        match self.untaken().remove(&id) {
            Some(_) => self.incoming().spool.discard(id),
            None => Ok(()),
        }
    }

    /// Uploads that nobody has had taken are given up.
    pub(super) fn tidy_uploads(&self) {
        let old: Vec<Uuid> = {
            let untaken = self.untaken();
            untaken.iter().filter(|(_, since)| since.elapsed() > UNTAKEN).map(|(id, _)| *id).collect()
        };
        for id in old {
            tracing::warn!(upload = %id, "an upload that nobody has had taken is given up");
            if let Err(error) = self.discard(id) {
                tracing::error!(upload = %id, %error, "an upload cannot be given up");
            }
        }
    }

    /// Has uploads taken into a machine, all of one moment. They are gone afterwards, whatever comes of it.
    ///
    /// # Errors
    /// Refused where one is not there; what comes of it is in the [receipt](super::receipts).
    pub fn take_streams(&self, name: &Name, uploads: &[Uuid]) -> Result<Receipt> {
        if uploads.is_empty() {
            return Err(Error::refused("there is no stream to take").hint("name at least one upload"));
        }
        let mut names = Vec::new();
        {
            let mut untaken = self.untaken();
            for id in uploads {
                names.push(self.incoming().spool.upload(*id)?.request.name);
                if !untaken.contains_key(id) {
                    return Err(Error::refused(format!("the upload {id} is being taken already"))
                        .hint("ask for its receipt"));
                }
            }
            untaken.retain(|id, _| !uploads.contains(id));
        }
        let (of, ids) = (name.clone(), uploads.to_vec());
        let says = format!("the RBD stream {}", names.join(", "));
        let added = self.receipts.add(says, On::Machine(name.clone()), move |service| {
            service.take_streams_now(&of, &ids).map(Received::Rbd)
        });
        if added.is_err() {
            uploads.iter().try_for_each(|id| self.incoming().spool.discard(*id))?;
        }
        added
    }

    fn take_streams_now(&self, name: &Name, uploads: &[Uuid]) -> Result<rbd::Outcome> {
        let Incoming { batches, spool, .. } = self.incoming();
        let policy = Policy { require_digest: self.config.require_digest };
        let target = Target::of(&self.vault, name);
        let taken = rbd::take(batches, spool, target, uploads, policy, super::now(), &self.effort());
        self.meet_again(name);
        if taken.is_err() {
            // One that was cut off is finished from them when the service starts again.
            let needed = needed(self.incoming())?;
            for id in uploads.iter().filter(|id| !needed.contains(id)) {
                spool.discard(*id)?;
            }
        }
        let taken = taken?;
        tracing::info!(machine = %name, points = ?taken.points, "RBD streams are taken");
        Ok(taken)
    }

    /// Has the disks of a machine pulled.
    ///
    /// # Errors
    /// Where too much waits; what comes of it is in the [receipt](super::receipts).
    pub fn pull(&self, name: &Name, request: pull::Request) -> Result<Receipt> {
        if let Some(why) = self.unreadable.get(name) {
            return Err(Error::corrupt(format!("{name} cannot be read: {why}")));
        }
        let of = name.clone();
        self.receipts.add(format!("the pull of {name}"), On::Machine(name.clone()), move |service| {
            let batches = &service.incoming().batches;
            let target = Target::of(&service.vault, &of);
            let nbd = &service.config.pull;
            let pulled = pull(batches, target, &request, nbd, super::now(), &service.effort());
            service.meet_again(&of);
            let pulled = pulled?;
            tracing::info!(machine = %of, point = pulled.point, "disks are pulled");
            Ok(Received::Pull(pulled))
        })
    }

    /// A batch may have made a machine, disks, points.
    pub(super) fn meet_again(&self, name: &Name) {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(machine) = self.vault.machine(name) else { return };
        let met = match self.machine(name) {
            Ok(watched) => watched.refresh().map(|()| self.meet(name, &machine)),
            // Nothing of it has come to be.
            Err(_) if is_nothing(&machine) => Ok(()),
            Err(_) => Watched::new(machine).map(|watched| self.watch(name, watched)),
        };
        if let Err(error) = met {
            tracing::error!(machine = %name, %error, "the points of a machine cannot be read");
        }
    }

    /// Writes a disk as it was at a point as an RBD diff.
    ///
    /// # Errors
    /// As [`export`].
    pub fn export(&self, name: &Name, wanted: &Wanted<'_>, out: &mut dyn Write) -> Result<()> {
        let machine = Arc::clone(self.machine(name)?.machine());
        export(&machine, wanted, out, &self.deltas.cancel).map(drop)
    }

    /// What deltas that were cut off make wrong.
    pub(super) fn cut_off(&self, name: &Name) -> Option<Wrong> {
        let (says, _) = self.incoming().leases.running(name).filter(|(_, is_cut_off)| *is_cut_off)?;
        if self.incoming().is_sent(name) {
            return None;
        }
        let unreadable = self.incoming().batches.unreadable().unwrap_or_default();
        if let Some((_, why)) = unreadable.iter().find(|(machine, _)| machine == name) {
            return Some(Wrong {
                id: "delta-cut-off",
                gravity: Gravity::Critical,
                machine: Some(name.to_string()),
                says: format!(
                    "A delta was cut off while it was written into {name}, and how to end it cannot be read: {why}. Its points are whole."
                ),
                remedy: format!(
                    "Bring that file back from a copy of the vault. Without one: move it away, start the service again, and copy {name} anew; it gets no points before."
                ),
            });
        }
        Some(Wrong {
            id: "delta-cut-off",
            gravity: Gravity::Critical,
            machine: Some(name.to_string()),
            says: format!("{says} was cut off while it was written into {name}, which takes nothing until that is ended. Its points are whole."),
            remedy: "Start the service again: it is finished or taken back then. Where it was not, the service's log says what stands in the way.".to_owned(),
        })
    }
}

/// A machine that was made for something that did not come to be.
pub(super) fn is_nothing(machine: &Arc<Machine>) -> bool {
    let has_disks =
        machine.journal().with_state(|state| !state.disks.is_empty() || !state.attachments.is_empty());
    !has_disks && machine.points().is_ok_and(|points| points.is_empty())
}
