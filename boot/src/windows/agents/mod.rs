//! Agents of the platforms that a Windows guest leaves and comes to, and their drivers.
//!
//! Nothing is uninstalled: that needs the running guest, and off their platform some uninstallers fail. The order is
//! filters ([`filters`]), then services and drivers, then what starts when a user logs on. Switched off is what starts by
//! itself (at boot, by the system, automatically); what starts when its device is there, or when it is asked for, is inert
//! and stays as it is. A storage or network driver is never touched ([`table::DEVICES`]): the machine may start from it,
//! here or when it comes back. What was there is kept ([`before`](super::before)), and a pass back to the agent's platform
//! gives it back.
//!
//! Hyper-V's integration services belong to Windows and are inert elsewhere: they are no agents here.

mod filters;
mod installer;
mod table;

#[cfg(test)]
pub(super) use installer::tests::package as made_package;
pub use installer::{AgentInstaller, Form, Product};

use super::before::Place;
use super::data::Data;
use super::draft::Draft;
use super::first_boot::Steps;
use crate::Result;
use crate::guest::Fact;
use filters::List;
use table::{Agent, DEVICES, TABLE};

/// Start of a service that is disabled.
const DISABLED: u32 = 4;
/// The first start type that needs an occasion: 0 is boot, 1 system, 2 automatic.
const ON_DEMAND: u32 = 3;

const RUN: &[&str] =
    &["Microsoft\\Windows\\CurrentVersion\\Run", "WOW6432Node\\Microsoft\\Windows\\CurrentVersion\\Run"];

/// Protocols, clients and filters of networks, each with its driver in `Ndi`.
const NETWORK_FILTERS: &str = "Control\\Network\\{4D36E974-E325-11CE-BFC1-08002BE10318}";

/// What a user can keep or drop by name.
pub fn names() -> Vec<&'static str> {
    TABLE.iter().map(|agent| agent.name).collect()
}

fn start(draft: &Draft<'_>, service: &str) -> Result<Option<u32>> {
    draft.registry.dword(&draft.system.key(&format!("Services\\{service}")), "Start")
}

/// The services of an agent that the guest has.
fn installed(draft: &Draft<'_>, agent: &Agent) -> Result<Vec<&'static str>> {
    let mut found = Vec::new();
    for service in agent.services {
        if start(draft, service)?.is_some() {
            found.push(*service);
        }
    }
    Ok(found)
}

/// The facts.
pub fn agents(draft: &Draft<'_>) -> Result<Vec<Fact<String>>> {
    let mut found = Vec::new();
    for agent in TABLE {
        if let Some(first) = installed(draft, agent)?.first() {
            found.push(Fact::new(agent.name, format!("its service {first}")));
        }
    }
    Ok(found)
}

/// Switches off what starts by itself and has nothing to talk to at the target, gives back what an earlier pass switched off
/// and is at home there, stages the installers that were given, tells of the rest.
pub fn plan(draft: &mut Draft<'_>, steps: &mut Steps) -> Result<()> {
    let request = draft.request;
    let named = |list: &[String], agent: &Agent| list.iter().any(|name| name == agent.name);
    let wanted = table::wanted(request.platform);
    let mut has_wanted = false;
    let (mut leaving, mut staying) = (Vec::new(), Vec::new());
    for agent in TABLE {
        let services = installed(draft, agent)?;
        if services.is_empty() {
            continue;
        }
        has_wanted |= wanted.is_some_and(|(name, _)| name == agent.name);
        let is_home = agent.platforms.contains(&request.platform);
        let is_kept = named(&request.services.keep, agent);
        match is_kept || is_home && !named(&request.services.drop, agent) {
            true => staying.push((agent, services, is_home)),
            false => leaving.push((agent, services)),
        }
    }
    if !leaving.is_empty() || !staying.is_empty() {
        let mut lists = filters::lists(draft)?;
        for (agent, services) in &leaving {
            leave(draft, agent, services, &mut lists)?;
        }
        for (agent, services, is_home) in &staying {
            stay(draft, agent, services, &mut lists, *is_home)?;
        }
    }
    let staged = installer::plan(draft, steps)?;
    has_wanted |= wanted.is_some_and(|(name, _)| staged.contains(&name));
    if let Some((name, remedy)) = wanted.filter(|_| !has_wanted) {
        let title = TABLE.iter().find(|agent| agent.name == name).map_or(name, |agent| agent.title);
        draft.find(
            "windows-agent-missing",
            format!("The target's guest agent ({title}) is not installed; the machine runs without it."),
            format!(
                "{remedy}, for clean shutdowns and consistent snapshots; or give its installer with --agent-installer."
            ),
        );
    }
    Ok(())
}

/// An agent that has nothing to talk to from now on.
fn leave(draft: &mut Draft<'_>, agent: &Agent, services: &[&'static str], lists: &mut [List]) -> Result<()> {
    let title = agent.title;
    let mandatory = mandatory(draft, services)?;
    let stay = with_needed(draft, services, &mandatory)?;
    let may_go: Vec<&str> = services
        .iter()
        .copied()
        .filter(|service| !DEVICES.contains(service) && !stay.contains(service))
        .collect();
    let mut done = Vec::new();
    for list in lists.iter_mut() {
        // Also what is named and not installed: such a filter keeps its devices from starting wherever they are.
        let gone = list.take_out(
            draft,
            agent.services,
            &format!("A filter of {title} would keep devices from starting here."),
        )?;
        if gone && !done.iter().any(|one| one == "filters") {
            done.push("filters".to_owned());
        }
    }
    let off = Data::dword(DISABLED);
    for service in &may_go {
        if start(draft, service)?.is_none_or(|start| start >= ON_DEMAND) {
            continue;
        }
        let key = format!("Services\\{service}");
        let why = format!("Nothing at the target talks to {title}.");
        if Place::Control(&key, "Start").change(draft, Some(off.clone()), &why)? {
            done.push((*service).to_owned());
        }
    }
    for key in RUN {
        for entry in agent.run {
            let why = format!("Nothing at the target talks to {title}.");
            if Place::Software(key, entry).change(draft, None, &why)? {
                done.push((*entry).to_owned());
            }
        }
    }
    for service in mandatory {
        draft.find(
            "windows-agent-network-filter",
            format!("{service} of {title} filters every network connection, and without it Windows would have none: it was left on."),
            format!("Uninstall {title} on the target, or unbind the filter there with `netcfg -u`."),
        );
    }
    dependents(draft, agent, &may_go)?;
    let what = match done.is_empty() {
        true => "nothing of that starts by itself here".to_owned(),
        false => format!("switched off: {}", done.join(", ")),
    };
    draft.find(
        "windows-agent-off",
        format!("The guest has {title}; {what}."),
        format!(
            "Uninstall it on the target when the machine will not move back, or convert with --keep {}.",
            agent.name
        ),
    );
    Ok(())
}

/// Those that are network filters which Windows must have to bind anything to a card (`FilterRunType` 1, or a driver of before
/// NDIS 6, which has none).
fn mandatory(draft: &Draft<'_>, services: &[&'static str]) -> Result<Vec<&'static str>> {
    let mut found = Vec::new();
    let root = draft.system.key(NETWORK_FILTERS);
    for instance in draft.registry.subkeys(&root)? {
        let key = format!("{root}\\{instance}\\Ndi");
        let Some(driver) = draft.registry.text(&key, "Service")? else { continue };
        let Some(service) = services.iter().find(|service| service.eq_ignore_ascii_case(&driver)) else {
            continue;
        };
        if draft.registry.dword(&key, "FilterRunType")? != Some(OPTIONAL) && !found.contains(service) {
            found.push(*service);
        }
    }
    Ok(found)
}

/// `FilterRunType` of a filter without which cards work all the same.
const OPTIONAL: u32 = 2;

/// These, and what they wait for of an agent's services: they do not start without it.
fn with_needed(
    draft: &Draft<'_>,
    services: &[&'static str],
    these: &[&'static str],
) -> Result<Vec<&'static str>> {
    let mut all = these.to_vec();
    let mut next = 0;
    while let Some(service) = all.get(next) {
        let needs = needs(draft, service)?;
        let more = services.iter().copied().filter(|other| has(&needs, other) && !all.contains(other));
        all.extend(more.collect::<Vec<_>>());
        next += 1;
    }
    Ok(all)
}

/// What a service waits for.
fn needs(draft: &Draft<'_>, service: &str) -> Result<Vec<String>> {
    draft.registry.texts(&draft.system.key(&format!("Services\\{service}")), "DependOnService")
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// Others' services that wait for one that was switched off.
fn dependents(draft: &mut Draft<'_>, agent: &Agent, off: &[&str]) -> Result<()> {
    for name in draft.registry.subkeys(&draft.system.key("Services"))? {
        let needs = needs(draft, &name)?;
        let Some(needed) = off.iter().find(|other| has(&needs, other)) else { continue };
        let starts = start(draft, &name)?.is_some_and(|start| start < ON_DEMAND);
        if !starts || start(draft, needed)? != Some(DISABLED) {
            continue;
        }
        draft.find(
            "windows-agent-depended-on",
            format!(
                "The service {name} waits for {needed} of {}, which is off here: it will not start.",
                agent.title
            ),
            format!("Uninstall what {name} belongs to, or convert with --keep {}.", agent.name),
        );
    }
    Ok(())
}

/// An agent that is at home at the target, or that is to be kept: what an earlier pass switched off comes back.
fn stay(
    draft: &mut Draft<'_>,
    agent: &Agent,
    services: &[&'static str],
    lists: &mut [List],
    is_home: bool,
) -> Result<()> {
    let title = agent.title;
    let why = format!("An earlier pass switched off {title}, which is at home here or to be kept.");
    let off = Data::dword(DISABLED);
    let mut done = Vec::new();
    for service in services {
        if Place::Control(&format!("Services\\{service}"), "Start").give_back(draft, Some(&off), &why)? {
            done.push((*service).to_owned());
        }
    }
    for key in RUN {
        for entry in agent.run {
            if Place::Software(key, entry).give_back(draft, None, &why)? {
                done.push((*entry).to_owned());
            }
        }
    }
    // Only those whose drivers are on again.
    let mut on = Vec::new();
    for service in services {
        if start(draft, service)? != Some(DISABLED) {
            on.push(*service);
        }
    }
    for list in lists {
        if list.put_back(draft, &on, &why)? && !done.iter().any(|one| one == "filters") {
            done.push("filters".to_owned());
        }
    }
    if !done.is_empty() {
        draft.find(
            "windows-agent-enabled",
            format!("The guest has {title}; switched on again: {}.", done.join(", ")),
            format!("Convert with --drop {} to leave it off.", agent.name),
        );
    }
    // The first of them is the agent itself.
    if let Some(service) = agent.services.first().filter(|_| is_home)
        && start(draft, service)? == Some(DISABLED)
    {
        draft.find(
            "windows-agent-by-owner",
            format!("The guest has {title}, but somebody disabled the service {service}."),
            format!("Run `sc config \"{service}\" start= auto` on the target if it is wanted there."),
        );
    }
    Ok(())
}

#[cfg(test)]
mod real;
#[cfg(test)]
pub(super) mod tests;
