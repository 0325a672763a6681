//! A recovered machine at its hypervisor: with a network of its own where it is a test, registered, started.

use super::{Serving, Wanted, ended, serve};
use crate::event::Event;
use crate::finding;
use crate::hypervisor::libvirt::write::NO_NETWORK;
use crate::ops::define::Defined;
use crate::ops::{Context, Failure, folder, register};
use crate::recovery::{FILE, Host, Mode, Network, Recovery, Step, network_name};
use crate::registrar::libvirt::host::{Host as Libvirt, User};
use crate::registrar::package::Package;
use crate::registrar::{self, Coming, Identity};
use crate::report;
use crate::report::recovery::Recovered;
use crate::report::registration::{Afterwards, Outcome, Registration};
use landfall_boot::check::{Finding, Severity};
use landfall_image::{Bytes, Error, Result};
use std::path::Path;
use std::time::Instant;
use uuid::Uuid;

/// What the host of the machine has.
pub struct Surroundings {
    /// Processors are emulated.
    pub emulated: bool,
    /// The hypervisor there makes no networks.
    is_session: bool,
}

impl Surroundings {
    /// Asks the hypervisor, where one is named.
    pub fn of(context: &Context<'_>, wanted: &Wanted) -> Result<Surroundings> {
        let Some(at) = &wanted.register else {
            return Ok(Surroundings { emulated: wanted.emulated, is_session: false });
        };
        register::check_target(&at.at, wanted.target.name)?;
        let around = register::surroundings(context);
        let host = Libvirt::connect(at, &around)?;
        Ok(Surroundings { emulated: wanted.emulated || !host.has_kvm()?, is_session: host.is_session() })
    }

    /// The network that is made for the machine alone; `None` where it is plugged into what is there.
    pub fn own_network(&self, wanted: &Wanted, name: &str) -> Option<String> {
        let is_chosen = wanted.networks.rest.is_some() || !wanted.networks.map.is_empty();
        match (wanted.mode, is_chosen) {
            (Mode::Live, _) | (_, true) => None,
            (Mode::Test, false) if self.is_session => Some(NO_NETWORK.to_owned()),
            (Mode::Test, false) => Some(network_name(name)),
        }
    }
}

/// What stands in the way at the hypervisor, before the machine's folder is complete.
pub fn look(
    context: &Context<'_>,
    wanted: &Wanted,
    defined: &Defined,
    is_alone: bool,
) -> Result<Vec<Finding>> {
    let Some(at) = &wanted.register else { return Ok(Vec::new()) };
    let around = register::surroundings(context);
    let found = registrar::connect(at, &around)?.look(&Coming {
        identity: Identity::of(&defined.machine),
        artifacts: &defined.artifacts,
        disks: &defined.placement.disks,
        kind: "qcow2",
        variables: defined.placement.variables.as_deref(),
        data: &|| Ok(Bytes(0)),
    })?;
    Ok(told(found, wanted.mode, is_alone))
}

/// What of a registrar's findings stands in the way of a recovery.
fn told(findings: Vec<Finding>, mode: Mode, is_alone: bool) -> Vec<Finding> {
    let of_own = |finding: &Finding| {
        // Its network is made for it, and nobody else is in there.
        is_alone && [finding::TARGET_NETWORK_DOWN.id, finding::TARGET_ADDRESS_TAKEN.id].contains(&finding.id)
    };
    let findings = findings.into_iter().filter(|finding| !of_own(finding));
    let with_remedy = |finding: Finding| {
        match mode {
        // What it is a test of may well be there, and in use.
        Mode::Test if finding.id == finding::TARGET_ID_TAKEN.id => finding::TARGET_ID_TAKEN.finding(
            finding.says,
            "Give the test another with --new-uuid, which licences in the guest may notice; or recover it on another host.",
        ),
        Mode::Test if finding.id == finding::TARGET_NAME_TAKEN.id => finding::TARGET_NAME_TAKEN
            .finding(finding.says, "Choose another with --name; or remove an earlier test with landfall recover remove."),
        _ => finding,
    }
    };
    findings.map(with_remedy).collect()
}

/// Registers and starts the machine in `place`, or goes on with that.
///
/// # Errors
/// What fails; its folder stays, and what is at the hypervisor is in its file.
pub fn register(
    context: &Context<'_>,
    place: &Path,
    wanted: &registrar::Wanted,
    serving: Option<&Serving>,
    report: &mut Recovered,
) -> Result<(), Failure> {
    let began = Instant::now();
    let _lock = ended::lock(place)?;
    // It may have changed while nobody had the lock.
    let mut recovery = Recovery::read(place)?;
    let around = register::surroundings(context);
    let host = Libvirt::connect(wanted, &around)?;
    if let Some(other) = recovery.host.as_ref().filter(|other| other.address != wanted.at) {
        return Err(Error::refused(format!("is registered at {}", other.address))
            .in_file(place)
            .hint(format!("name that one, or remove it first: {}", ended::removal(&recovery, place)))
            .into());
    }
    if let (Some(serving), Some(owner)) = (serving, host.qemu_owner()?) {
        serve::give(serving, owner);
    }
    if let Some(name) = recovery.own_network.clone().filter(|_| host.is_session()) {
        return Err(Error::refused(format!(
            "{} makes no networks, and the test was written for one of its own, {name:?}",
            wanted.at
        ))
        .hint(format!(
            "register it at qemu:///system; or remove it ({}) and recover it for this one",
            ended::removal(&recovery, place)
        ))
        .into());
    }
    // Written down before it is done.
    let network = recovery.host.as_ref().and_then(|host| host.network.clone());
    let network =
        network.or_else(|| recovery.own_network.clone().map(|name| Network { name, uuid: Uuid::new_v4() }));
    let id = recovery.host.as_ref().and_then(|host| host.id);
    recovery.host = Some(Host { address: wanted.at.clone(), id, network: network.clone() });
    recovery.step = recovery.step.max(Step::Registering);
    keep(place, &recovery)?;
    let outcome = carry_out(context, place, wanted, &host, network.as_ref(), &recovery);
    report.recovery = recovery.clone();
    let (mut registration, id) = outcome.map_err(|error| after(error, &recovery, place))?;
    if registration.outcome == Outcome::Blocked {
        // Nothing of it is there but the network.
        if let Some(network) = &network {
            host.remove_network(network.uuid)?;
        }
        recovery.host = None;
        recovery.step = Step::Written;
    } else {
        recovery.host = Some(Host { address: wanted.at.clone(), id, network });
        recovery.step = Step::Registered;
    }
    keep(place, &recovery)?;
    registration.seconds = (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    report.recovery = recovery;
    report.registration = Some(Afterwards::Told(registration));
    Ok(())
}

/// The ways on from a registration that failed.
fn after(error: Error, recovery: &Recovery, place: &Path) -> Error {
    let ways = format!(
        "run the same command again to go on, or take all of it back: {}",
        ended::removal(recovery, place)
    );
    match error.hint_text().map(str::to_owned) {
        Some(hint) => error.hint(format!("{hint}; {ways}")),
        None => error.hint(ways),
    }
}

/// Writes down how far it is.
pub fn keep(place: &Path, recovery: &Recovery) -> Result<()> {
    folder::put(place, FILE, &recovery.text()?)
}

fn carry_out(
    context: &Context<'_>,
    place: &Path,
    wanted: &registrar::Wanted,
    host: &Libvirt<'_>,
    network: Option<&Network>,
    recovery: &Recovery,
) -> Result<(Registration, Option<Uuid>)> {
    let mut steps = Vec::new();
    if let Some(network) = network {
        context.observer.event(Event::Step(format!("Making the network {}", network.name)));
        host.make_network(&network.name, network.uuid)?;
        steps.push(format!("make the network {:?}, which leads nowhere", network.name));
    }
    let mut out = Registration {
        version: report::VERSION,
        outcome: Outcome::Registered,
        machine: recovery.name.clone(),
        at: wanted.at.clone(),
        steps,
        findings: Vec::new(),
        id: None,
        started: true,
        seconds: 0.0,
    };
    if let Some(user) = own(host, place, recovery)? {
        context.observer.event(Event::Step(format!("Starting {}", user.name)));
        host.start(&user)?;
        out.steps.push(if user.is_paused { "let it go on" } else { "start it" }.to_owned());
        out.id = Some(user.uuid.to_string());
        return Ok((out, Some(user.uuid)));
    }
    let package = Package::read(place)?;
    let around = register::surroundings(context);
    let wanted = registrar::Wanted { start: true, ..wanted.clone() };
    let mut registrar = registrar::connect(&wanted, &around)?;
    let plan = registrar.plan(&package)?;
    out.steps.extend(plan.steps);
    out.findings = told(plan.findings, recovery.mode, network.is_some() || recovery.own_network.is_some());
    if out.findings.iter().any(|finding| finding.severity == Severity::Blocks) {
        (out.outcome, out.started) = (Outcome::Blocked, false);
        return Ok((out, None));
    }
    context.check_cancelled()?;
    let done = registrar.carry_out(&package)?;
    let id = done.id.parse().ok();
    (out.id, out.started) = (Some(done.id), done.started);
    out.findings.extend(done.findings);
    Ok((out, id))
}

/// The recovery's machine at the hypervisor, where it is there.
///
/// # Errors
/// Refused where a machine uses the recovery's files that is not the recovery's own.
pub fn own(host: &Libvirt<'_>, place: &Path, recovery: &Recovery) -> Result<Option<User>> {
    let users = host.users_of(place)?;
    let is_own = |user: &&User| {
        let known = recovery.host.as_ref().and_then(|host| host.id);
        known == Some(user.uuid) || user.name == recovery.name
    };
    if let Some(stranger) = users.iter().find(|user| !is_own(user)) {
        return Err(Error::refused(format!(
            "{:?} ({}) has a disk of this recovery attached, and is not its machine",
            stranger.name, stranger.uuid
        ))
        .in_file(place)
        .hint(format!(
            "detach it there, or undefine that machine: {}",
            host.typed("undefine --domain", &[&stranger.uuid.to_string()])
        )));
    }
    Ok(users.into_iter().next())
}
