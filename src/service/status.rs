//! How everything is, for those who ask.

use super::config::InSync;
use super::stream::Seen;
use super::watched::{Fed, Watched};
use super::{DEFINITION, Service, rpo};
use crate::moment::Moment;
use crate::name::Name;
use crate::receive::ExportName;
use crate::report::VERSION;
use crate::report::protection::{
    Coverage, DeltaStatus, DiskStatus, MachineStatus, ProofStatus, Protection, Rpo, Status, VaultStatus,
};
use landfall_image::{Bytes, Result};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a disk may have no client until its machine is at risk, at most: jobs connect again after a restart of the service.
pub(super) const GRACE: Duration = Duration::from_secs(10);

impl Service {
    /// How everything is at this moment.
    pub fn status(&self) -> Status {
        let at = Moment::now();
        let mut machines: Vec<MachineStatus> =
            self.watched().iter().map(|(name, watched)| self.machine_status(name, watched, at)).collect();
        machines.extend(self.unreadable.iter().map(|(name, why)| unreadable(name, why)));
        machines.sort_by(|a, b| a.name.cmp(&b.name));
        let (free, size) = self.room().unwrap_or_default();
        Status {
            version: VERSION,
            at,
            protection: machines.iter().map(|one| one.protection).max().unwrap_or(Protection::Protected),
            vault: VaultStatus {
                folder: self.config.vault.display().to_string(),
                size: Bytes(size),
                free: Bytes(free),
            },
            coverage: Coverage {
                scheduled: machines
                    .iter()
                    .filter(|one| one.proof.as_ref().is_some_and(|it| it.every.is_some()))
                    .count(),
                proven: machines
                    .iter()
                    .filter(|one| one.proof.as_ref().is_some_and(|it| it.is_current(at)))
                    .count(),
            },
            machines,
            alarms: self.alarms.now(),
        }
    }

    /// How a machine is at this moment.
    ///
    /// # Errors
    /// Refused where there is no such machine; corrupt where it cannot be read.
    pub fn status_of(&self, name: &Name) -> Result<MachineStatus> {
        Ok(self.machine_status(name, &*self.machine(name)?, Moment::now()))
    }

    /// The disks of a machine, each with its stream, and why it is no state of the machine, where it is none.
    pub(super) fn disks(&self, watched: &Watched) -> Vec<(String, Seen, Option<String>)> {
        let name = watched.machine().name();
        let (infos, mut copying) =
            watched.machine().journal().with_state(|state| (state.disks.clone(), state.copying()));
        let one = |info: &crate::vault::journal::DiskInfo| {
            let export = ExportName::parse(&format!("{name}/{}", info.name));
            let seen = export.and_then(|export| self.stream(&export)).map(|stream| stream.seen());
            (info.name.clone(), seen.unwrap_or_default(), copying.remove(&info.name))
        };
        infos.values().map(one).collect()
    }

    /// Disks of a mirrored machine that has points and that nobody sends any longer, each with why. A short while is nothing: a client that
    /// is there again goes on.
    pub(super) fn unsent(
        &self,
        name: &Name,
        watched: &Watched,
        disks: &[(String, Seen, Option<String>)],
    ) -> Vec<(String, String)> {
        if watched.points().is_empty() || watched.fed() != Fed::Mirrored || self.is_half(watched) {
            return Vec::new();
        }
        let (rules, brought) = (self.config.protect(name), watched.brought());
        let grace = GRACE.min(rules.rpo);
        let why = |seen: &Seen| {
            if seen.lost.is_some() {
                return seen.lost.clone();
            }
            // Who copies now and then, and is watched by somebody else, comes again: only the age of what it has sent counts.
            seen.alone.filter(|alone| *alone >= grace && rules.in_sync != InSync::Flush)?;
            let left = seen.left.as_ref().map(|peer| format!("{peer} has ended its connection"));
            left.or_else(|| Some("nobody has come since the service started".to_owned()))
        };
        let is_alone = |(disk, seen, copying): &&(String, Seen, Option<String>)| {
            seen.connections == 0 && copying.is_none() && !brought.contains_key(disk)
        };
        let alone = disks.iter().filter(is_alone);
        alone.filter_map(|(disk, seen, _)| Some((disk.clone(), why(seen)?))).collect()
    }

    fn machine_status(&self, name: &Name, watched: &Watched, at: Moment) -> MachineStatus {
        let (infos, defined) = watched
            .machine()
            .journal()
            .with_state(|state| (state.disks.clone(), state.attachments.contains_key(DEFINITION)));
        let id = &watched.machine().home().machine;
        // Those that were given up are gone for everybody, though upkeep has not come to them.
        let given_up = self.catalog.given_up(id).unwrap_or_else(|error| {
            tracing::error!(machine = %name, %error, "which points were given up cannot be read");
            BTreeSet::new()
        });
        let all = watched.points();
        let points: Vec<_> = all.iter().filter(|point| !given_up.contains(&point.sequence)).collect();
        let target = self.target(name, watched);
        let actual = watched.age(at.0);
        let seen = self.disks(watched);
        let unsent = self.unsent(name, watched, &seen);
        let sizes: Vec<u64> = infos.values().map(|info| info.size).collect();
        let mut brought = watched.brought();
        let receiving = self.incoming().leases.running(name);
        let disks: Vec<DiskStatus> = seen
            .into_iter()
            .zip(sizes)
            .map(|((name, seen, copying), size)| DiskStatus {
                delta: brought.remove(&name).map(|(own, at)| DeltaStatus {
                    way: own.way.to_owned(),
                    source: own.source,
                    point: own.point,
                    unverified: own.is_unverified,
                    at: at.map(Moment),
                }),
                name,
                size: Bytes(size),
                copying,
                connections: seen.connections,
                from: seen.peer,
                written: seen.written.map(Moment),
            })
            .collect();
        let every = self.config.protect(name).prove.map(|every| every.as_secs_f64());
        let [last, booted] = watched.proofs();
        let proof = ProofStatus { every, last, booted };
        let (protection, because) =
            verdict(&disks, actual, target, watched, receiving.as_ref(), unsent.first());
        MachineStatus {
            name: name.to_string(),
            protection,
            because,
            role: Some(self.role_of(watched)),
            group: self.config.group(name).map(Name::to_string),
            defined,
            disks,
            receiving: receiving.map(|(says, _)| says),
            points: points.len(),
            oldest: points.first().map(|point| Moment(point.time)),
            newest: points.last().map(|point| Moment(point.time)),
            rpo: Rpo { target, actual, p95: watched.p95(at.0) },
            proof: Some(proof).filter(|proof| *proof != ProofStatus::default()),
            prepared: watched.ahead().0,
            sends: self.sends_of(name, watched, at),
        }
    }
}

fn unreadable(name: &Name, why: &str) -> MachineStatus {
    MachineStatus {
        name: name.to_string(),
        protection: Protection::Unprotected,
        because: format!("its files in the vault cannot be read: {why}"),
        role: None,
        group: None,
        defined: false,
        disks: Vec::new(),
        receiving: None,
        points: 0,
        oldest: None,
        newest: None,
        rpo: Rpo { target: 0.0, actual: None, p95: None },
        proof: None,
        prepared: Vec::new(),
        sends: Vec::new(),
    }
}

fn verdict(
    disks: &[DiskStatus],
    actual: Option<f64>,
    target: f64,
    watched: &Watched,
    receiving: Option<&(String, bool)>,
    unsent: Option<&(String, String)>,
) -> (Protection, String) {
    if let Some((says, true)) = receiving {
        let protection = if actual.is_some() { Protection::AtRisk } else { Protection::Unprotected };
        return (protection, format!("{says} was cut off while it was written into it"));
    }
    if let Some(promoted) = watched.machine().roles().now().promoted {
        let says = format!(
            "it runs since {} in {}, from point {}: nothing is taken of its source, and nothing protects it where it runs",
            Moment(promoted.at),
            promoted.holder,
            promoted.point
        );
        return (Protection::AtRisk, says);
    }
    let Some(age) = actual else {
        if let Some((says, false)) = receiving {
            return (Protection::Unprotected, format!("{says} is being written into it, its first"));
        }
        let why =
            disks.iter().find_map(|disk| disk.copying.as_ref().map(|why| format!("{}: {why}", disk.name)));
        return (Protection::Unprotected, why.unwrap_or_else(|| "it has no disk".to_owned()));
    };
    if let (Some(why), _) = watched.failures() {
        return (Protection::AtRisk, why);
    }
    // A delta that is being written has no point yet; the one before counts, as long as it is not too old.
    if receiving.is_none()
        && let Some((disk, why)) = disks.iter().find_map(|disk| Some((&disk.name, disk.copying.as_ref()?)))
    {
        return (Protection::AtRisk, format!("{disk} is being copied: {why}"));
    }
    if age > target {
        let gone = disks.iter().find(|disk| disk.connections == 0);
        let gone = match (watched.fed(), gone) {
            (Fed::Deltas { .. }, _) => "; the next delta is due".to_owned(),
            (Fed::Mirrored, Some(disk)) => format!("; nobody sends {}", disk.name),
            (Fed::Mirrored, None) => String::new(),
        };
        return (
            Protection::AtRisk,
            format!("its newest state is {} old, {} are allowed{gone}", rpo::age(age), rpo::age(target)),
        );
    }
    let age = rpo::age(age);
    if let Some((disk, why)) = unsent {
        return (Protection::AtRisk, format!("nobody sends {disk}: {why}; its newest state is {age} old"));
    }
    let says = match watched.fed() {
        Fed::Mirrored => format!("its newest state is {age} old"),
        Fed::Deltas { .. } => format!("its last delta is {age} old"),
    };
    (Protection::Protected, says)
}
