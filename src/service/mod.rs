//! The service of the recovery site: machines come in, points are set and kept, who asks is told.
//!
//! ```text
//! NBD clients -> exports -> stream (is it a state of the machine?) -> vault
//! RBD streams, pulls -> receipts -> deltas (whole or not at all) ------^
//! watched folders ---> folders ----^
//!                              rounds: checkpoints | upkeep | alarms -> catalog, webhook
//!                              drills: trial boots, points patched ahead
//! API, command line -> Service -> status, points, tags …
//! ```
//!
//! Threads: one sets points, one keeps the past in order, one watches, and so on (`rounds::WORK`); NBD and the API run on tokio. Everything that a recovery needs is in the
//! vault; a service that is killed goes on where it was.
//!
//! Absent: what is done with points (`recovery`), and the formats of what is received (`receive`).

pub mod alarms;
pub mod api;
pub mod catalog;
mod certificates;
mod clock;
pub mod config;
mod coverage;
mod deltas;
pub mod drills;
pub mod evidence;
pub mod exports;
mod folders;
mod places;
pub mod receipts;
mod replica;
mod roles;
mod rounds;
pub mod rpo;
pub mod run;
mod sending;
mod status;
pub mod stream;
pub mod verify;
pub mod watched;
pub mod webhook;
pub mod which;
mod wrong;

use crate::doors::Complaints;
use crate::moment::Moment;
use crate::name::Name;
use crate::receive::ExportName;
use crate::receive::nbd::Monitor;
use crate::receive::position;
use crate::report::api::Verdict;
pub use crate::report::api::WantedDisk as Wanted;
use crate::report::protection::Point;
use crate::vault::journal::{DiskInfo, Mark, State};
use crate::vault::machine::Machine;
use crate::vault::upkeep::Wishes;
use crate::vault::{Trouble, Vault};
use alarms::Alarms;
use catalog::Catalog;
use clock::Clock;
use config::Config;
use deltas::Deltas;
use folders::Watching;
use landfall_image::{Error, Kind, Result};
use receipts::Receipts;
use sending::Outgoing;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::DirBuilderExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use stream::Stream;
use tokio::sync::watch;
use verify::Verifications;
use watched::Watched;
use webhook::Webhook;
use which::Which;

/// Milliseconds since 1970.
fn now() -> u64 {
    Moment::now().0
}

/// The definition of a machine among its attachments: JSON of [`crate::machine::Machine`].
pub const DEFINITION: &str = "machine.json";
/// Its UEFI variables.
pub const VARIABLES: &str = "nvram";

/// The service. See the module.
#[derive(Debug)]
pub struct Service {
    config: Config,
    vault: Vault,
    catalog: Catalog,
    machines: RwLock<BTreeMap<Name, Arc<Watched>>>,
    streams: RwLock<BTreeMap<ExportName, Arc<Stream>>>,
    /// Machines of the vault that cannot be read, and why.
    unreadable: BTreeMap<Name, String>,
    /// Where a damaged catalog was set aside.
    catalog_lost: Option<String>,
    alarms: Alarms,
    outgoing: Outgoing,
    /// The ways in besides NBD.
    deltas: Deltas,
    folders: Vec<Watching>,
    receipts: Receipts,
    /// One at a time changes which machines and disks there are.
    changing: Mutex<()>,
    verifications: Verifications,
    webhook: Webhook,
    /// About clients that are not named for what they ask for.
    refusals: Complaints,
    clock: Clock,
    /// Told whenever a certificate was taken back.
    taken_back: watch::Sender<()>,
    /// Milliseconds since 1970 of the last look for what is wrong; 0 for none.
    beat: AtomicU64,
    /// What the receiver counts, once there is one.
    monitor: OnceLock<Monitor>,
    stopping: AtomicBool,
}

impl Service {
    /// Opens vault and catalog; nobody is let in before [`exports::Receiving`] is served.
    ///
    /// # Errors
    /// As [`Vault::open`], [`Catalog::open`] and [`Incoming::open`](crate::receive::incoming::Incoming::open). A machine that cannot be read is
    /// an alarm.
    pub fn open(config: Config) -> Result<Arc<Service>> {
        // Everything of every machine is in there.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.vault);
        made.map_err(|error| {
            let error = Error::io("cannot make the vault's folder", error).in_file(&config.vault);
            error.hint(crate::vault::WRITABLE)
        })?;
        let (vault, troubles) = Vault::open(&config.vault)?;
        let (catalog, aside) = Catalog::open(&config.vault.join(catalog::CATALOG))?;
        // Before anything is let in: machines into which something was cut off are closed.
        let is_there = |name: &Name| vault.machine(name).is_ok() || troubles.contains_key(name);
        let deltas = Deltas::open(&vault, &config.vault, is_there)?;
        let folders = folders::all(&config.folders);
        let alarms = Alarms::of(catalog.alarms_on()?);
        let untold = match config.alarm.webhook {
            Some(_) => catalog.to_tell(webhook::WAITING_AT_MOST)?,
            None => Vec::new(),
        };
        let clock = Clock::open(&catalog)?;
        let mut service = Service {
            config,
            vault,
            catalog,
            machines: RwLock::default(),
            streams: RwLock::default(),
            unreadable: BTreeMap::new(),
            catalog_lost: aside.map(|path| path.display().to_string()),
            alarms,
            outgoing: Outgoing::default(),
            folders,
            deltas,
            receipts: Receipts::default(),
            changing: Mutex::default(),
            verifications: Verifications::default(),
            webhook: Webhook::with(untold),
            refusals: Complaints::default(),
            clock,
            taken_back: watch::Sender::new(()),
            beat: AtomicU64::new(0),
            monitor: OnceLock::new(),
            stopping: AtomicBool::new(false),
        };
        for (name, trouble) in troubles {
            match trouble {
                Trouble::Unreadable(error) => {
                    tracing::error!(machine = %name, %error, "a machine of the vault cannot be read");
                    service.unreadable.insert(name, error.to_string());
                }
                // All that is on it came by deltas, which are acknowledged when they are on the medium: nothing is missing.
                Trouble::Behind(_) if !service.vault.machine(&name)?.journal().is_behind() => {}
                // It is judged when what was cut off has been ended.
                Trouble::Behind(_) if service.incoming().leases.running(&name).is_some() => {}
                Trouble::Behind(found) => {
                    tracing::error!(machine = %name, torn = found.torn, lost = ?found.lost, "writes that were acknowledged may be missing");
                    service.doubt(&name)?;
                }
            }
        }
        for (name, machine) in service.vault.machines() {
            if deltas::is_nothing(&machine) {
                continue;
            }
            match Watched::new(machine) {
                Ok(watched) => service.watch(&name, watched),
                Err(error) => {
                    tracing::error!(machine = %name, %error, "a machine of the vault cannot be read");
                    service.unreadable.insert(name, error.to_string());
                }
            }
        }
        // What was acknowledged before the end of the last service is in a point before anybody sends more.
        service.last_points();
        Ok(Arc::new(service))
    }

    /// Acknowledged writes may be missing: what the disks hold is no state of the machine before they were compared.
    fn doubt(&self, name: &Name) -> Result<()> {
        let machine = self.vault.machine(name)?;
        for info in machine.journal().with_state(|state| state.disks.clone()).values() {
            let why = "the power was lost, and writes that were acknowledged may be missing";
            machine.journal().set_copying(&info.name, Some(why))?;
        }
        Ok(())
    }

    fn watch(&self, name: &Name, watched: Watched) {
        let machine = Arc::clone(watched.machine());
        match self.catalog.proofs(&machine.home().machine) {
            Ok(proofs) => proofs.iter().for_each(|proof| watched.proven(proof)),
            Err(error) => tracing::error!(machine = %name, %error, "its evidence cannot be read"),
        }
        match self.catalog.differed(&machine.home().machine) {
            Ok(points) => points.into_iter().for_each(|point| watched.judged(point, Verdict::Differed)),
            Err(error) => tracing::error!(machine = %name, %error, "its verifications cannot be read"),
        }
        self.machines.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), Arc::new(watched));
        self.meet(name, &machine);
    }

    /// Streams for disks that have none yet, and none for those that are there no longer.
    fn meet(&self, name: &Name, machine: &Arc<Machine>) {
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        let disks = machine.journal().with_state(|state| state.disks.clone());
        let is_there = |export: &ExportName| disks.values().any(|info| info.name == export.disk().as_str());
        streams.retain(|export, _| export.machine() != name || is_there(export));
        for info in disks.values() {
            let Some(export) = ExportName::parse(&format!("{name}/{}", info.name)) else { continue };
            streams.entry(export).or_insert_with(|| Arc::new(Stream::new(machine, &info.name)));
        }
    }

    /// How it is set up.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The vault.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The catalog.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What is wrong now.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// The stream of a disk; `None` where there is no such disk.
    pub fn stream(&self, name: &ExportName) -> Option<Arc<Stream>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The names of all disks.
    pub fn streams(&self) -> Vec<ExportName> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The machines by name.
    pub fn watched(&self) -> BTreeMap<Name, Arc<Watched>> {
        self.machines.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A machine.
    ///
    /// # Errors
    /// Refused where there is none of that name.
    pub fn machine(&self, name: &Name) -> Result<Arc<Watched>> {
        let machines = self.machines.read().unwrap_or_else(PoisonError::into_inner);
        machines.get(name).cloned().ok_or_else(|| match self.unreadable.get(name) {
            Some(why) => Error::corrupt(format!("{name} cannot be read: {why}")),
            None => Error::refused(format!("no machine {:?} is protected", name.as_str()))
                .hint("landfall status shows those that are; landfall protect takes another one in"),
        })
    }

    /// Protects a machine, or changes what is protected of it: disks that are not there yet are added, others get their new size.
    /// No disk is taken away: see [`drop_disk`](Self::drop_disk). `definition` and `variables` are kept where they are given.
    ///
    /// # Errors
    /// Refused for a disk of an impossible size, and for one that would become smaller while it is written to.
    pub fn protect(
        &self,
        name: &Name,
        disks: &[Wanted],
        definition: Option<&[u8]>,
        variables: Option<&[u8]>,
    ) -> Result<()> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.unreadable.contains_key(name) {
            self.machine(name)?;
        }
        let names: BTreeSet<&Name> = disks.iter().map(|disk| &disk.name).collect();
        if names.len() < disks.len() {
            return Err(
                Error::refused(format!("two disks of {name} have one name")).hint("give each its own name")
            );
        }
        let machine = self.vault.machine_or_new(name)?;
        let changed = || self.change(name, &machine, disks, definition, variables);
        self.incoming()
            .leases
            .while_whole(std::slice::from_ref(name), changed)
            .unwrap_or_else(|| self.half(name))?;
        if !self.watched().contains_key(name) {
            self.watch(name, Watched::new(machine)?);
        } else {
            self.meet(name, &machine);
        }
        Ok(())
    }

    /// Refuses what cannot be done while a delta is written into a machine.
    fn half<T>(&self, name: &Name) -> Result<T> {
        let (says, _) = self.incoming().leases.running(name).unwrap_or_else(|| ("a delta".to_owned(), false));
        Err(Error::refused(format!("{says} is being written into {name}")).hint("try again when it is done"))
    }

    fn change(
        &self,
        name: &Name,
        machine: &Arc<Machine>,
        disks: &[Wanted],
        definition: Option<&[u8]>,
        variables: Option<&[u8]>,
    ) -> Result<()> {
        let journal = machine.journal();
        let known = journal.with_state(|state| state.disks.clone());
        for disk in disks {
            let info = DiskInfo { name: disk.name.to_string(), size: disk.size, sector: disk.sector };
            let was = known.values().find(|known| known.name == info.name);
            if let Some(was) = was.filter(|was| was.size > info.size) {
                return Err(Error::refused(format!("{name}/{} has {} bytes, and would get {}", info.name, was.size, info.size))
                    .hint("what is behind the new end would be lost to later points: take the disk out first, and in again with its new size"));
            }
            if was == Some(&info) {
                continue;
            }
            if was.is_none() {
                // Before the disk is there: nobody sees it without.
                journal.set_copying(&info.name, Some("it was never copied"))?;
            }
            journal.set_disk(&info)?;
        }
        if let Some(bytes) = definition {
            journal.attach(DEFINITION, bytes)?;
        }
        if let Some(bytes) = variables {
            journal.attach(VARIABLES, bytes)?;
        }
        journal.sync().map(drop)
    }

    /// Takes a disk out of a machine. Earlier points keep it.
    ///
    /// # Errors
    /// Refused where somebody writes to it, or there is none.
    pub fn drop_disk(&self, name: &Name, disk: &Name) -> Result<()> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = self.machine(name)?;
        let export = ExportName::parse(&format!("{name}/{disk}"))
            .ok_or_else(|| Error::refused(format!("{name} has no disk {disk}")))?;
        if self.stream(&export).is_some_and(|stream| stream.seen().connections > 0) {
            return Err(Error::refused(format!("{export} is written to at this moment"))
                .hint("end the job that mirrors it first"));
        }
        let number = watched.machine().disk_number(disk.as_str()).ok_or_else(|| {
            Error::refused(format!("{name} has no disk {disk}")).hint("landfall status shows its disks")
        })?;
        let remove = || {
            // What deltas have brought to it is not on another one of its name.
            position::end(watched.machine(), disk.as_str())?;
            self.streams.write().unwrap_or_else(PoisonError::into_inner).remove(&export);
            watched.machine().journal().remove_disk(number)?;
            watched.machine().journal().set_copying(disk.as_str(), None)?;
            watched.machine().journal().sync().map(drop)
        };
        self.incoming()
            .leases
            .while_whole(std::slice::from_ref(name), remove)
            .unwrap_or_else(|| self.half(name))
    }

    /// Takes a machine out of the vault, with all of its points and all that was patched ahead of them. Evidence and alarms stay in the
    /// catalog.
    ///
    /// # Errors
    /// Refused where somebody writes to it, reads one of its points, or a recovered machine lives on one; as [`Vault::remove`].
    pub fn unprotect(&self, name: &Name) -> Result<()> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = self.machine(name)?;
        let disks = watched.machine().journal().with_state(|state| state.disks.clone());
        let disks: Vec<Name> = disks.values().map(|info| info.name.parse()).collect::<Result<_>>()?;
        // Nobody writes to it, and nobody begins to.
        let (lease, was_cut_off) = self.incoming().leases.alone(name, &disks, "its removal")?;
        let removed = self.take_out(name, watched.machine());
        let forgotten = match self.vault.machine(name) {
            Err(_) => self.incoming().batches.forget(name),
            // It is there as it was.
            Ok(_) if was_cut_off => return removed,
            Ok(_) => Ok(()),
        };
        lease.end();
        removed.and(forgotten)
    }

    fn take_out(&self, name: &Name, machine: &Arc<Machine>) -> Result<()> {
        self.drop_prepared(name)?;
        if let Some(hold) = machine.holds().all().first() {
            return Err(Error::refused(format!(
                "a recovered machine lives on point {} of {name}: {}",
                hold.point, hold.holder
            ))
            .hint("commit, roll back or remove that first: landfall recover list"));
        }
        let id = machine.home().machine;
        let removed = self.vault.remove(name);
        if self.vault.machine(name).is_ok() {
            return removed;
        }
        self.machines.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.streams
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|export, _| export.machine() != name);
        removed?;
        self.catalog.forget_through(&id, u64::MAX >> 1)
    }

    /// Somebody says that all disks of a machine are copied: what they hold now is a state of it. A point is set.
    ///
    /// # Errors
    /// As [`Stream::believe`] and [`checkpoint`](Self::checkpoint).
    pub fn ready(&self, name: &Name) -> Result<Point> {
        let watched = self.machine(name)?;
        for disk in watched.machine().journal().with_state(State::copying).keys() {
            let export = ExportName::parse(&format!("{name}/{disk}"));
            if let Some(stream) = export.and_then(|export| self.stream(&export)) {
                stream.believe()?;
            }
        }
        self.checkpoint(name, &Mark::default())
    }

    /// Sets a point on a machine, and on all of its group.
    ///
    /// # Errors
    /// Refused where a disk is being copied, or another point has the name; where it cannot be written.
    pub fn checkpoint(&self, name: &Name, mark: &Mark) -> Result<Point> {
        self.machine(name)?;
        let members: Vec<Name> = match self.config.group(name).and_then(|group| self.config.groups.get(group))
        {
            Some(members) => members.iter().filter(|member| self.machine(member).is_ok()).cloned().collect(),
            None => vec![name.clone()],
        };
        let _one = match &mark.tag {
            Some(tag) => {
                check_tag(tag)?;
                let one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
                members.iter().try_for_each(|member| self.check_free(member, tag, None))?;
                Some(one)
            }
            None => None,
        };
        self.cut(&members, mark)?;
        let points = self.points(name)?;
        points.last().cloned().ok_or_else(|| Error::refused(format!("{name} has no point")))
    }

    /// The points of a machine, oldest first: those of the vault that nobody gave up.
    ///
    /// # Errors
    /// Refused where there is no such machine.
    pub fn points(&self, name: &Name) -> Result<Vec<Point>> {
        let watched = self.machine(name)?;
        let id = &watched.machine().home().machine;
        let (tags, given_up) = (self.catalog.tags(id)?, self.catalog.given_up(id)?);
        let (evidence, verified) = (self.catalog.evidence(id)?, self.catalog.verified(id)?);
        let points = watched.points();
        let kept = points.iter().filter(|point| !given_up.contains(&point.sequence));
        let shown = kept.map(|point| Point {
            number: point.sequence,
            at: Moment(point.time),
            consistency: point.mark.consistency,
            group: point.mark.group,
            tag: tags.get(&point.sequence).or(point.mark.tag.as_ref()).filter(|tag| !tag.is_empty()).cloned(),
            proof: evidence.get(&point.sequence).cloned(),
            verified: verified.get(&point.sequence).copied(),
        });
        Ok(shown.collect())
    }

    /// Gives a point a name, by which it is kept; with `None`, takes the name back.
    ///
    /// # Errors
    /// Refused where there is no such point, this can be no name, or another point of the machine has it.
    pub fn tag(&self, name: &Name, number: u64, tag: Option<&str>) -> Result<Point> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.point(name, &Which::Number(number))?;
        if let Some(tag) = tag {
            check_tag(tag)?;
            self.check_free(name, tag, Some(number))?;
        }
        let watched = self.machine(name)?;
        let points = watched.points();
        let was_set_with = points.iter().any(|point| point.sequence == number && point.mark.tag.is_some());
        // The journal keeps the name that the point was set with: an empty one over it says that it does not count.
        let tag = tag.or(was_set_with.then_some(""));
        self.catalog.tag(&watched.machine().home().machine, number, tag)?;
        self.point(name, &Which::Number(number))
    }

    /// Refuses a name that another point of the machine has than `own`: nobody would know which is meant.
    fn check_free(&self, name: &Name, tag: &str, own: Option<u64>) -> Result<()> {
        let points = self.points(name)?;
        let has_it = |point: &&Point| point.tag.as_deref() == Some(tag) && Some(point.number) != own;
        match points.iter().rev().find(has_it) {
            None => Ok(()),
            Some(point) => Err(Error::refused(format!(
                "point {} of {name} has the name {tag:?} already, {}",
                point.number, point.at
            ))
            .hint(format!(
                "choose another name, or take that one back: landfall points tag {name} {} --remove",
                point.number
            ))),
        }
    }

    /// Gives up a point before its time. Its room is given back by and by.
    ///
    /// # Errors
    /// Refused for one that does not exist, has a name, is the newest, or is where the next delta begins.
    pub fn give_up(&self, name: &Name, number: u64) -> Result<()> {
        let point = self.point(name, &Which::Number(number))?;
        if let Some(tag) = point.tag {
            return Err(Error::refused(format!("point {number} has the name {tag:?}, which keeps it"))
                .hint(format!("take the name back first: landfall points tag {name} {number} --remove")));
        }
        let held = self.machine(name)?.machine().holds().all().into_iter().find(|hold| hold.point == number);
        if let Some(hold) = held {
            return Err(Error::refused(format!(
                "a recovered machine lives on point {number}: {}",
                hold.holder
            ))
            .hint("commit, roll back or remove that first: landfall recover list"));
        }
        if self.points(name)?.last().is_some_and(|last| last.number == number) {
            return Err(Error::refused(format!("point {number} is the newest of {name}"))
                .hint("a machine keeps its newest point"));
        }
        let watched = self.machine(name)?;
        let brought = watched.brought();
        if let Some((disk, _)) = brought.iter().find(|(_, (own, _))| own.point == Some(number)) {
            return Err(Error::refused(format!("the next delta of {name}/{disk} begins at point {number}"))
                .hint("it is given up by itself once a later delta was taken"));
        }
        self.catalog.give_up(&watched.machine().home().machine, number)
    }

    /// Holds a point for a recovered machine.
    ///
    /// # Errors
    /// Refused where there is no such point.
    pub fn hold(&self, name: &Name, number: u64, holder: &str) -> Result<()> {
        self.point(name, &Which::Number(number))?;
        self.machine(name)?.machine().hold(number, holder)
    }

    /// Lets a point go. One that is not held is no error.
    ///
    /// # Errors
    /// Refused where there is no such machine.
    pub fn release(&self, name: &Name, number: u64, holder: &str) -> Result<()> {
        self.machine(name)?.machine().release(number, holder)
    }

    /// All that is held.
    pub fn holds(&self) -> Vec<crate::report::api::Hold> {
        let all = self.watched().into_iter().flat_map(|(name, watched)| {
            let holds = watched.machine().holds().all().into_iter();
            holds.map(move |hold| crate::report::api::Hold {
                machine: name.to_string(),
                point: hold.point,
                holder: hold.holder,
            })
        });
        all.collect()
    }

    /// What was said of points by hand.
    fn wishes(&self, watched: &Watched) -> Result<Wishes> {
        let id = &watched.machine().home().machine;
        let (named, unnamed): (Vec<_>, Vec<_>) =
            self.catalog.tags(id)?.into_iter().partition(|(_, tag)| !tag.is_empty());
        let numbers = |tags: Vec<(u64, String)>| tags.into_iter().map(|(point, _)| point).collect();
        let mut kept: BTreeSet<u64> = numbers(named);
        // The next delta begins there, from another landfall or to one.
        kept.extend(position::points_to_keep(watched.machine())?);
        kept.extend(self.points_of_sends(watched)?);
        Ok(Wishes { kept, unnamed: numbers(unnamed), given_up: self.catalog.given_up(id)? })
    }

    /// Whether it works.
    ///
    /// # Errors
    /// Where it stops, or has not looked after itself for a while: the vault's medium may hang.
    pub fn health(&self) -> Result<()> {
        /// It looks each second.
        const SILENT: u64 = 60_000;
        if self.is_stopping() {
            return Err(Error::new(Kind::Interrupted, "the service is stopping"));
        }
        match self.beat.load(Ordering::Relaxed) {
            0 => Ok(()),
            beat if now().saturating_sub(beat) < SILENT => Ok(()),
            beat => Err(Error::new(
                Kind::Io,
                format!("the service has not looked for what is wrong since {}", Moment(beat)),
            )
            .hint("look whether the vault's medium answers, and at the service's log")),
        }
    }

    /// What is received in the background.
    pub fn receipts(&self) -> &Receipts {
        &self.receipts
    }

    /// Tells it who counts what clients do.
    pub fn count_with(&self, monitor: Monitor) {
        // There is one receiver.
        let _ = self.monitor.set(monitor);
    }

    /// Tells all threads to end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.outgoing.cancel.cancel();
        self.deltas.cancel.cancel();
        self.receipts.stop();
        self.verifications.stop();
        self.webhook.stop();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// Refuses what can be no name of a point.
fn check_tag(tag: &str) -> Result<()> {
    match tag.trim().is_empty() || tag.len() > 200 || tag.chars().any(char::is_control) {
        true => Err(Error::refused("this cannot be a point's name")
            .hint("use 1 to 200 bytes without control characters")),
        false => Ok(()),
    }
}
