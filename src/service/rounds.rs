//! What the service does by the clock: points are set, the past is kept in order, and it is looked for what is wrong ([`super::wrong`]).

use super::alarms::Changed;
use super::watched::{Fed, Watched};
use super::{Service, now};
use crate::moment::Moment;
use crate::name::Name;
use crate::report::api::{Change, Event};
use crate::report::protection::Gravity;
use crate::vault::journal::Mark;
use crate::vault::retention::Retention;
use crate::vault::room::kept;
use crate::vault::upkeep;
use landfall_image::convert::Cancel;
use landfall_image::{Bytes, Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often it is looked at whose point is due.
const TICK: Duration = Duration::from_millis(100);
/// Points that are set at the same time: what takes long is the medium.
const AT_ONCE: usize = 8;
/// How soon the past is kept in order again while room is scarce.
const SOON: Duration = Duration::from_secs(5);
/// How often it is looked for what is wrong.
const WATCH: Duration = Duration::from_secs(1);

/// What is done at the same time, each in a thread of its own, by name.
pub(super) const WORK: [(&str, Work); 16] = [
    ("points", Service::set_points),
    ("seal", Service::seal_segments),
    ("write-back", Service::write_back),
    ("upkeep", Service::keep_order),
    ("watch", Service::watch_out),
    ("verify", Service::verify_points),
    ("prove", Service::prove_points),
    ("prepare", Service::prepare_points),
    ("webhook", Service::send_alarms),
    ("send", Service::send_machines),
    ("finish", Service::finish_deltas),
    ("folders", Service::watch_folders),
    ("receive-1", Service::receive_deltas),
    ("receive-2", Service::receive_deltas),
    ("receive-3", Service::receive_deltas),
    ("receive-4", Service::receive_deltas),
];
/// Goes on until the service stops.
pub(super) type Work = fn(&Service);

/// Does `work` until the service stops. It does not end by itself; should it, by a defect, the log says so and it begins again.
pub(super) fn again_and_again(service: &Service, name: &str, work: Work) {
    while !service.is_stopping() {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(service)));
        if ended.is_err() {
            tracing::error!(name, "a defect of landfall ended a thread of the service; it begins again");
            std::thread::sleep(WATCH);
        }
    }
}

impl Service {
    /// Sets points until the service stops. Takes a thread.
    pub fn set_points(&self) {
        let mut due: BTreeMap<Vec<Name>, Instant> = BTreeMap::new();
        // What setting points takes, until they are on the medium: the most of the last rounds.
        let mut takes = Duration::ZERO;
        while !self.is_stopping() {
            std::thread::sleep(TICK);
            self.settle();
            let began = Instant::now();
            let mut ready = Vec::new();
            for unit in self.units() {
                let Some(every) = unit.first().map(|name| self.config.protect(name).checkpoint) else {
                    continue;
                };
                let at = due.entry(unit.clone()).or_insert(began);
                if *at <= began {
                    // So early that the next point is there when this one is as old as a point may become. On a medium that is too slow
                    // for that each point has less to wait for when they come sooner.
                    let early = takes + 2 * TICK;
                    *at = began + every.saturating_sub(early).max(every / 4);
                    ready.push(unit);
                }
            }
            if !ready.is_empty() {
                self.cut_all(&ready);
                takes = began.elapsed().max(takes * 7 / 8);
            }
        }
    }

    /// Clients that flushed and stayed are believed.
    fn settle(&self) {
        for name in self.streams() {
            let Some(stream) = self.stream(&name) else { continue };
            if let Err(error) = stream.settle() {
                tracing::error!(export = %name, %error, "that a copy is complete cannot be kept");
            }
        }
    }

    /// Machines that get their points at one moment: groups, and those that are in none.
    fn units(&self) -> Vec<Vec<Name>> {
        let mut machines = self.watched();
        let mut units: Vec<Vec<Name>> = Vec::new();
        for members in self.config.groups.values() {
            let unit: Vec<Name> =
                members.iter().filter(|name| machines.remove(*name).is_some()).cloned().collect();
            units.push(unit);
        }
        units.extend(machines.into_keys().map(|name| vec![name]));
        units.retain(|unit| !unit.is_empty());
        units
    }

    fn cut_all(&self, units: &[Vec<Name>]) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..units.len().min(AT_ONCE) {
                scope.spawn(|| {
                    while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.cut_in_time(unit);
                    }
                });
            }
        });
    }

    /// A point on the machines of a unit, as far as what they hold is a state of theirs. Where that is not so of one of a group, the others get
    /// their points without it.
    fn cut_in_time(&self, unit: &[Name]) {
        let machines: Vec<Arc<Watched>> = unit.iter().filter_map(|name| self.machine(name).ok()).collect();
        let time = now();
        let (states, others): (Vec<_>, Vec<_>) = machines.into_iter().partition(|watched| {
            let journal = watched.machine().journal();
            !self.is_half(watched)
                && journal.with_state(|state| state.copying().is_empty() && !state.disks.is_empty())
        });
        for watched in others.iter().chain(&states) {
            watched.sample(time);
        }
        if !states.iter().any(|watched| watched.has_more()) {
            // What is there is in a point; while all its disks are connected, it is the state of now.
            for watched in states.iter().filter(|watched| self.is_connected(watched)) {
                watched.verify(time);
            }
            return;
        }
        if let Err(error) = self.cut_watched(&states, &Mark::default()) {
            // A copy may have begun since.
            if error.kind() != landfall_image::Kind::Refused {
                tracing::error!(machines = ?unit, %error, "no point can be set");
                states.iter().for_each(|watched| watched.cut_failed(error.to_string()));
            }
        }
    }

    /// True where a delta is being written into it, or was cut off: it is between two moments.
    pub(super) fn is_half(&self, watched: &Watched) -> bool {
        let name = watched.machine().name().parse::<Name>();
        name.is_ok_and(|name| self.incoming().leases.running(&name).is_some())
    }

    /// True where somebody sends each of its disks.
    pub(super) fn is_connected(&self, watched: &Watched) -> bool {
        let name = watched.machine().name();
        let disks = watched.machine().journal().with_state(|state| state.disks.clone());
        disks.values().all(|info| {
            let export = crate::receive::ExportName::parse(&format!("{name}/{}", info.name));
            export.and_then(|export| self.stream(&export)).is_some_and(|stream| stream.seen().connections > 0)
        })
    }

    /// Sets a point on a machine where it has something that is in none, and where what it holds is a state. Says in the log what goes wrong.
    pub(super) fn cut_now(&self, name: &Name) {
        if let Ok(watched) = self.machine(name)
            && watched.has_more()
        {
            self.cut_in_time(std::slice::from_ref(name));
        }
    }

    /// What was acknowledged last is in a point, as far as it is a state.
    pub(super) fn last_points(&self) {
        for name in self.watched().keys() {
            self.cut_now(name);
        }
    }

    /// A point on all of these machines, at one moment.
    pub(super) fn cut(&self, names: &[Name], mark: &Mark) -> Result<()> {
        let machines: Result<Vec<Arc<Watched>>> = names.iter().map(|name| self.machine(name)).collect();
        self.cut_watched(&machines?, mark)
    }

    fn cut_watched(&self, watched: &[Arc<Watched>], mark: &Mark) -> Result<()> {
        // In the order of their names, as all do.
        let mut order: Vec<&Arc<Watched>> = watched.iter().collect();
        order.sort_by_key(|one| one.machine().name());
        let _held: Vec<_> = order.iter().map(|one| one.cutting()).collect();
        let machines: Vec<_> = watched.iter().map(|one| Arc::clone(one.machine())).collect();
        let names: Vec<Name> =
            machines.iter().map(|machine| machine.name().parse()).collect::<Result<_>>()?;
        let cut = self.incoming().leases.while_whole(&names, || self.vault.cut(&machines, now(), mark));
        let Some(cut) = cut else {
            let half = names.iter().find(|name| self.incoming().leases.running(name).is_some());
            return self.half(half.or(names.first()).ok_or_else(Error::interrupted)?);
        };
        let (time, sequences) = cut?;
        for (one, sequence) in watched.iter().zip(sequences) {
            one.set(sequence, time, mark);
        }
        Ok(())
    }

    /// Seals segments as they fill, so that no writer has to. Takes a thread.
    pub fn seal_segments(&self) {
        while !self.is_stopping() {
            std::thread::sleep(TICK);
            for (name, watched) in self.watched() {
                let journal = watched.machine().journal();
                if self.is_stopping() || !journal.has_closed() {
                    continue;
                }
                if let Err(error) = journal.seal() {
                    tracing::error!(machine = %name, %error, "a part of its journal cannot be sealed");
                    std::thread::sleep(WATCH);
                }
            }
        }
    }

    /// Brings what arrives to the medium as it comes, so that a point does not wait for all of it. Takes a thread.
    pub fn write_back(&self) {
        while !self.is_stopping() {
            std::thread::sleep(TICK);
            for (name, watched) in self.watched() {
                if self.is_stopping() {
                    return;
                }
                if let Err(error) = watched.machine().journal().write_back() {
                    tracing::error!(machine = %name, %error, "what was written cannot be brought to the medium");
                    std::thread::sleep(WATCH);
                }
            }
        }
    }

    /// Keeps the past in order until the service stops. Takes a thread.
    pub fn keep_order(&self) {
        let cancel = Cancel::default();
        let mut next = Instant::now() + self.config.upkeep.every;
        let mut soon = Instant::now();
        while !self.is_stopping() {
            std::thread::sleep(TICK);
            let now = Instant::now();
            if now < next && !(self.is_scarce() && now >= soon) {
                continue;
            }
            self.tidy_uploads();
            for (name, watched) in self.watched() {
                let failed = match self.keep_in_order(&name, &watched, &cancel) {
                    Ok(()) => None,
                    Err(_) if self.is_stopping() => return,
                    // It was taken out of the vault meanwhile.
                    Err(_) if watched.machine().journal().is_shut() => None,
                    Err(error) => {
                        tracing::error!(machine = %name, %error, "its older points cannot be kept in order");
                        Some(error.to_string())
                    }
                };
                watched.upkept(failed);
            }
            let now = Instant::now();
            (next, soon) = (now + self.config.upkeep.every, now + SOON);
        }
    }

    fn keep_in_order(&self, name: &Name, watched: &Watched, cancel: &Cancel) -> Result<()> {
        let wishes = self.wishes(watched)?;
        let retention: &Retention = match self.is_scarce() {
            true => &self.config.upkeep.thin,
            false => &self.config.protect(name).retention,
        };
        let pace = |bytes: u64| {
            if self.is_stopping() {
                return Err(Error::interrupted());
            }
            match &self.config.upkeep.rate_limit {
                Some(limit) => limit.pause(Bytes(bytes), cancel),
                None => Ok(()),
            }
        };
        // A clock that jumps must not make all points old.
        let time = self.time().now();
        let done = upkeep::run(watched.machine(), retention, &wishes, time, &pace)?;
        if done.points > 0 {
            tracing::debug!(machine = %name, ?done, "points were given up");
        }
        watched.refresh()?;
        if let Some(oldest) = watched.points().first() {
            self.catalog
                .forget_through(&watched.machine().home().machine, oldest.sequence.saturating_sub(1))?;
        }
        Ok(())
    }

    /// Looks for what is wrong until the service stops. Takes a thread.
    pub fn watch_out(&self) {
        let mut next = Instant::now();
        while !self.is_stopping() {
            std::thread::sleep(TICK);
            if Instant::now() < next {
                continue;
            }
            next = Instant::now() + WATCH;
            let at = Moment::now();
            self.beat.store(at.0, Ordering::Relaxed);
            self.meet_new();
            let Changed { began, ended } = self.alarms.update(self.wrong(at), at);
            for (alarm, has_begun) in began.iter().map(|a| (a, true)).chain(ended.iter().map(|a| (a, false)))
            {
                let (id, machine) = (&alarm.id, alarm.machine.as_deref().unwrap_or("-"));
                match (has_begun, alarm.gravity) {
                    (true, Gravity::Critical) => {
                        tracing::error!(id, machine, "{} {}", alarm.says, alarm.remedy)
                    }
                    (true, Gravity::Warning) => {
                        tracing::warn!(id, machine, "{} {}", alarm.says, alarm.remedy)
                    }
                    (false, _) => tracing::info!(id, machine, "over: {}", alarm.says),
                }
                let change = if has_begun { Change::Began } else { Change::Ended };
                let event = Event { at, change, alarm: alarm.clone() };
                let has_webhook = self.config.alarm.webhook.is_some();
                let number = self.catalog.add_event(&event, has_webhook).inspect_err(|error| {
                    tracing::error!(%error, "an alarm cannot be written down");
                });
                if has_webhook {
                    self.webhook.tell(number.ok(), event);
                }
            }
        }
    }

    /// How old the newest state of a machine may be, in seconds.
    pub(super) fn target(&self, name: &Name, watched: &Watched) -> f64 {
        let rules = self.config.protect(name);
        match watched.fed() {
            Fed::Mirrored => rules.rpo.as_secs_f64(),
            Fed::Deltas { .. } => rules.delta_rpo.as_secs_f64(),
        }
    }

    /// Bytes that are free and bytes in all, of the vault's file system.
    pub(super) fn room(&self) -> Option<(u64, u64)> {
        let stat = rustix::fs::statvfs(&self.config.vault).ok()?;
        Some((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
    }

    pub(super) fn is_scarce(&self) -> bool {
        let scarce = self.config.upkeep.scarce;
        // Before nothing more is taken, in any case.
        self.room().is_some_and(|(free, size)| percent(free, size) < scarce || free < 2 * kept(size))
    }
}

/// What part of `size` is free, in whole per cent.
pub(super) fn percent(free: u64, size: u64) -> u8 {
    u8::try_from(u128::from(free) * 100 / u128::from(size.max(1))).unwrap_or(100)
}
