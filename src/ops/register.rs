//! Registers a machine that `convert` wrote with its hypervisor: plan, and carry it out where nothing stands in the way.

use super::define::Defined;
use super::{Context, convert, folder};
use crate::event::Event;
use crate::registrar::package::Package;
use crate::registrar::{self, Coming, Identity, Surroundings};
use crate::report;
use crate::report::registration::{Outcome, Registration};
use landfall_boot::check::{Finding, Severity};
use landfall_image::formats::KindRow;
use landfall_image::{Error, Overlay};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Registers the machine in `folder`; with `dry_run`, only looks whether it could be done.
pub fn register(
    context: &Context<'_>,
    folder: &Path,
    wanted: &registrar::Wanted,
    dry_run: bool,
) -> Result<Registration, Error> {
    let began = Instant::now();
    let package = Package::read(folder)?;
    check_target(&wanted.at, &package.target).map_err(|e| e.in_file(folder))?;
    let around = surroundings(context);
    let mut registrar = registrar::connect(wanted, &around)?;
    context.observer.event(Event::Step(format!("Looking at {}", wanted.at)));
    let plan = registrar.plan(&package)?;
    let mut out = Registration {
        version: report::VERSION,
        outcome: Outcome::Planned,
        machine: package.identity.name.clone(),
        at: wanted.at.clone(),
        steps: plan.steps,
        findings: plan.findings,
        id: None,
        started: false,
        seconds: 0.0,
    };
    if out.findings.iter().any(|finding| finding.severity == Severity::Blocks) {
        out.outcome = Outcome::Blocked;
    } else if !dry_run {
        context.check_cancelled()?;
        let done = registrar.carry_out(&package)?;
        out.outcome = Outcome::Registered;
        out.id = Some(done.id);
        out.started = done.started;
        out.findings.extend(done.findings);
    }
    out.seconds = (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    if out.outcome == Outcome::Registered {
        keep(folder, &out);
    }
    Ok(out)
}

/// Notes the registration beside the machine: a batch that goes on does not try it again, and the folder is not replaced. A folder
/// that takes no files is none of the registration's matter: the hypervisor has the machine.
fn keep(folder: &Path, done: &Registration) {
    let written = serde_json::to_string_pretty(done)
        .map_err(|e| Error::corrupt(e.to_string()))
        .and_then(|text| folder::put(folder, folder::REGISTRATION, &(text + "\n")));
    if let Err(error) = written {
        tracing::warn!("the machine is registered, and its folder does not tell: {error}");
    }
}

/// What is known to stand in the way of a registration before the machine is converted: a connection that fails, an identity
/// that is taken, networks that are not there, storage that is too small. It is better known before the copying than after.
/// Nothing where no registration is wanted.
pub fn ready(
    context: &Context<'_>,
    wanted: &convert::Wanted<'_>,
    kind: &KindRow,
    defined: &Defined,
    overlays: &[Arc<Overlay>],
) -> Result<Vec<Finding>, Error> {
    let Some(at) = &wanted.register else { return Ok(Vec::new()) };
    check_target(&at.at, wanted.target.name)?;
    let around = surroundings(context);
    let mut registrar = registrar::connect(at, &around)?;
    registrar.look(&Coming {
        identity: Identity::of(&defined.machine),
        artifacts: &defined.artifacts,
        disks: &defined.placement.disks,
        kind: kind.name,
        variables: defined.placement.variables.as_deref(),
        data: &|| super::disk::stored_by(context, overlays),
    })
}

/// For each of the machines, before any of them is converted: which other one at the hypervisor has its name, its id or an address
/// already.
pub fn taken(
    context: &Context<'_>,
    wanted: &registrar::Wanted,
    identities: &[&Identity],
) -> Result<Vec<Vec<Finding>>, Error> {
    let around = surroundings(context);
    registrar::connect(wanted, &around)?.taken(identities)
}

/// What a registrar is given by a context.
pub fn surroundings<'a>(context: &'a Context<'_>) -> Surroundings<'a> {
    Surroundings {
        cancel: &context.cancel,
        scratch: &context.scratch,
        rate_limit: context.rate_limit.as_ref(),
        observer: context.observer,
    }
}

/// Refuses a hypervisor that does not run what was written.
pub fn check_target(at: &str, target: &str) -> Result<(), Error> {
    // What has no fitting address is refused where it is connected to.
    let fitting: &[&str] = match at.split([':', '+']).next().unwrap_or_default() {
        "qemu" | "test" => &["kvm"],
        "vsphere" | "esxi" | "https" => &["esxi", "ova", "ovf"],
        _ => return Ok(()),
    };
    match fitting.contains(&target) {
        true => Ok(()),
        false => Err(Error::refused(format!("a machine for {target} cannot be registered at {at}"))
            .hint(format!("convert it with --to {}", fitting[0]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_registered_where_it_runs() {
        for (at, target, fits) in [
            ("qemu:///system", "kvm", true),
            ("qemu+ssh://root@host/system", "esxi", false),
            ("vsphere://vcenter", "ova", true),
            ("esxi://host", "kvm", false),
        ] {
            assert_eq!(check_target(at, target).is_ok(), fits, "{at} {target}");
        }
    }
}
