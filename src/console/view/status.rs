//! The first screen: whether all is well, where this machine is reached, and what is wrong.

use super::Page;
use crate::console::state::State;
use crate::console::text::{count, cut};
use crate::ops::appliance::console::{API_PORT, CardStatus, Machine, NBD_PORT, Problem, Protection};
use crate::report::protection::{self, Gravity, MachineStatus};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Machines and alarms that are named; the rest is counted.
const NAMED: usize = 4;
/// A start takes less; after it, what does not answer is at fault.
const START_WITHIN: Duration = Duration::from_secs(120);
/// Addresses that are named.
const ADDRESSES: usize = 2;

pub fn page(state: &State, now: Instant, width: usize) -> Page {
    let mut page = Page::new(width, "the letters below, or F1 to F8: other screens");
    let (machine, protection) = (&state.machine, &state.protection);
    ready(&mut page, state);
    for (who, age) in [("the helper", machine.stale(now)), ("the service", protection.stale(now))] {
        if let Some(age) = age {
            page.text(&format!(
                "(what {who} says is {} s old: it does not answer at this moment)",
                age.as_secs()
            ));
        }
    }
    page.blank();
    addresses(&mut page, state);
    authority(&mut page, state);
    time(&mut page, state);
    match protection.get() {
        Some(Ok(status)) => vault_and_machines(&mut page, status),
        Some(Err(problem)) => page.unknown("Vault", "the service", Some(problem)),
        None => page.unknown("Vault", "the service", None),
    }
    problems(&mut page, state);
    page
}

fn ready(page: &mut Page, state: &State) {
    let is_starting = state.local.as_ref().is_none_or(|local| local.uptime < START_WITHIN);
    let words = match state.protection.get() {
        None => "Starting: the service is being asked.".to_owned(),
        Some(Err(_)) if is_starting => "Starting: the service is not up yet.".to_owned(),
        Some(Err(_)) => {
            "NOT READY: the service cannot be asked. Nothing may be protected at this moment.".to_owned()
        }
        Some(Ok(status)) if status.machines.is_empty() => {
            "Ready. No machine is protected yet: landfall protect NAME DEFINITION".to_owned()
        }
        Some(Ok(status)) => match (status.protection, critical(status)) {
            (protection::Protection::Protected, 0) => {
                "Ready. All machines are protected and can be recovered.".to_owned()
            }
            (protection::Protection::Protected, _) => {
                "Ready, BUT there are critical alarms: see below.".to_owned()
            }
            _ => "Ready, BUT not every machine is protected: see below.".to_owned(),
        },
    };
    page.strong(&words);
}

fn critical(status: &Protection) -> usize {
    status.alarms.iter().filter(|alarm| alarm.gravity == Gravity::Critical).count()
}

/// Addresses at which others reach this machine.
pub fn reachable(machine: &Machine) -> Vec<IpAddr> {
    let is_far = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_loopback(),
    };
    let of = |card: &CardStatus| card.addresses.iter().map(|net| net.addr()).collect::<Vec<_>>();
    let mut all: Vec<IpAddr> = machine.network.cards.iter().flat_map(of).filter(is_far).collect();
    // People type IPv4.
    all.sort_by_key(IpAddr::is_ipv6);
    all
}

/// `10.0.0.5`, `[2001:db8::5]`
pub fn in_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

fn addresses(page: &mut Page, state: &State) {
    let machine = match state.machine.get() {
        Some(Ok(machine)) => machine,
        Some(Err(problem)) => return page.unknown("Address", "the helper", Some(problem)),
        None => return page.unknown("Address", "the helper", None),
    };
    let all = reachable(machine);
    if all.is_empty() {
        return page.pair(
            "Address",
            "NONE: no card has an address. N (Network) sets one, or shows why DHCP gives none.",
        );
    }
    for (number, address) in all.iter().take(ADDRESSES).enumerate() {
        let address = in_address(*address);
        let label = if number == 0 { "Address" } else { "" };
        page.pair(label, &format!("https://{address}:{API_PORT}  for people and programs"));
        page.pair("", &format!("{address}:{NBD_PORT}  for NBD"));
    }
    if all.len() > ADDRESSES {
        page.pair("", &format!("and {} more: N (Network)", all.len() - ADDRESSES));
    }
}

/// The fingerprint, in two lines that are easily compared.
pub fn authority(page: &mut Page, state: &State) {
    match state.local.as_ref().map(|local| local.fingerprint.as_ref()) {
        Some(Ok(print)) => {
            let pairs: Vec<&str> = print.split(':').collect();
            for (number, line) in pairs.chunks(16).enumerate() {
                page.pair(if number == 0 { "CA SHA-256" } else { "" }, &line.join(":"));
            }
        }
        Some(Err(problem)) => page.unknown("CA SHA-256", "this machine", Some(problem)),
        None => page.unknown("CA SHA-256", "this machine", None),
    }
}

fn time(page: &mut Page, state: &State) {
    match (state.machine.get(), &state.local) {
        (Some(Ok(machine)), _) => {
            let time = &machine.time;
            let synchronised = match (time.is_synchronised, time.servers.is_empty()) {
                (true, _) => "synchronised",
                (false, true) => "NOT synchronised: no server of time is set (T)",
                (false, false) => "NOT synchronised: no server of time was heard (T)",
            };
            page.pair("Time", &format!("{}, {synchronised}", time.now));
        }
        (_, Some(local)) => page.pair("Time", &format!("{}; not known whether it is synchronised", local.at)),
        (_, None) => page.unknown("Time", "the helper", None),
    }
}

fn vault_and_machines(page: &mut Page, status: &Protection) {
    let vault = &status.vault;
    let used = landfall_image::Bytes(vault.size.0.saturating_sub(vault.free.0));
    let percent = u128::from(vault.free.0) * 100 / u128::from(vault.size.0.max(1));
    page.pair("Vault", &format!("{}, {used} used, {} free ({percent} %)", vault.size, vault.free));
    let of = |wanted| status.machines.iter().filter(move |machine| machine.protection == wanted);
    let (good, risk, bare) = (
        of(protection::Protection::Protected).count(),
        of(protection::Protection::AtRisk).count(),
        of(protection::Protection::Unprotected).count(),
    );
    page.pair("Machines", &format!("{good} protected, {risk} at risk, {bare} unprotected"));
    let worse: Vec<&MachineStatus> =
        of(protection::Protection::Unprotected).chain(of(protection::Protection::AtRisk)).collect();
    let room = page.width.saturating_sub(super::LABEL + 2);
    for machine in worse.iter().take(NAMED) {
        let word =
            if machine.protection == protection::Protection::Unprotected { "UNPROTECTED" } else { "AT RISK" };
        page.pair("", &cut(&format!("{} {word}: {}", cut(&machine.name, 30), machine.because), room));
    }
    if worse.len() > NAMED {
        page.pair("", &format!("and {} more: landfall status", worse.len() - NAMED));
    }
    if status.alarms.is_empty() {
        return page.pair("Alarms", "none");
    }
    page.pair("Alarms", &format!("{}, {} critical", status.alarms.len(), critical(status)));
    for alarm in status.alarms.iter().take(NAMED) {
        let machine = alarm.machine.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let gravity = if alarm.gravity == Gravity::Critical { "CRITICAL " } else { "" };
        page.problem(&Problem::new(format!("{gravity}{machine}{}", alarm.says), alarm.remedy.as_str()));
    }
    if status.alarms.len() > NAMED {
        page.below(&format!("and {} more: landfall status", status.alarms.len() - NAMED));
    }
}

fn problems(page: &mut Page, state: &State) {
    let mut all: Vec<Problem> = state.local.iter().flat_map(|local| local.problems.clone()).collect();
    if let Some(machine) = state.machine.here() {
        for says in &machine.problems {
            if !all.iter().any(|problem| says.contains(&problem.says)) {
                all.push(Problem::new(says.as_str(), ""));
            }
        }
    }
    if all.is_empty() {
        return page.pair("Problems", "none");
    }
    page.blank();
    page.head(&count(all.len(), "problem"));
    all.iter().for_each(|problem| page.problem(problem));
}
