//! How everything is, for those who ask.

use super::stream::Seen;
use super::watched::Watched;
use super::{DEFINITION, Service};
use crate::moment::Moment;
use crate::name::Name;
use crate::receive::ExportName;
use crate::report::VERSION;
use crate::report::protection::{
    Coverage, DiskStatus, MachineStatus, ProofStatus, Protection, Rpo, Status, VaultStatus,
};
use landfall_image::{Bytes, Result};

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

    fn machine_status(&self, name: &Name, watched: &Watched, at: Moment) -> MachineStatus {
        let (infos, defined) = watched
            .machine()
            .journal()
            .with_state(|state| (state.disks.clone(), state.attachments.contains_key(DEFINITION)));
        let points = watched.points();
        let target = self.config.protect(name).rpo.as_secs_f64();
        let actual = watched.age(at.0);
        let seen = self.disks(watched);
        let sizes: Vec<u64> = infos.values().map(|info| info.size).collect();
        let disks: Vec<DiskStatus> = seen
            .into_iter()
            .zip(sizes)
            .map(|((name, seen, copying), size)| DiskStatus {
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
        let (protection, because) = verdict(&disks, actual, target, watched);
        MachineStatus {
            name: name.to_string(),
            protection,
            because,
            group: self.config.group(name).map(Name::to_string),
            defined,
            disks,
            points: points.len(),
            oldest: points.first().map(|point| Moment(point.time)),
            newest: points.last().map(|point| Moment(point.time)),
            rpo: Rpo { target, actual, p95: watched.p95(at.0) },
            proof: Some(proof).filter(|proof| *proof != ProofStatus::default()),
            prepared: watched.ahead().0,
        }
    }
}

fn unreadable(name: &Name, why: &str) -> MachineStatus {
    MachineStatus {
        name: name.to_string(),
        protection: Protection::Unprotected,
        because: format!("its files in the vault cannot be read: {why}"),
        group: None,
        defined: false,
        disks: Vec::new(),
        points: 0,
        oldest: None,
        newest: None,
        rpo: Rpo { target: 0.0, actual: None, p95: None },
        proof: None,
        prepared: Vec::new(),
    }
}

fn verdict(
    disks: &[DiskStatus],
    actual: Option<f64>,
    target: f64,
    watched: &Watched,
) -> (Protection, String) {
    let Some(age) = actual else {
        let why =
            disks.iter().find_map(|disk| disk.copying.as_ref().map(|why| format!("{}: {why}", disk.name)));
        return (Protection::Unprotected, why.unwrap_or_else(|| "it has no disk".to_owned()));
    };
    if let (Some(why), _) = watched.failures() {
        return (Protection::AtRisk, why);
    }
    if let Some((disk, why)) = disks.iter().find_map(|disk| Some((&disk.name, disk.copying.as_ref()?))) {
        return (Protection::AtRisk, format!("{disk} is being copied: {why}"));
    }
    if age > target {
        let gone = disks.iter().find(|disk| disk.connections == 0);
        let gone = gone.map(|disk| format!("; nobody sends {}", disk.name)).unwrap_or_default();
        return (
            Protection::AtRisk,
            format!("its newest state is {age:.0} s old, {target:.0} s are allowed{gone}"),
        );
    }
    (Protection::Protected, format!("its newest state is {age:.1} s old"))
}
