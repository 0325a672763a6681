//! `landfall map check`: what a map says, in words.

use super::args::{MapCheck, MapVerb};
use super::text;
use crate::ops::map::{self, Identity, MachineRule, MapChecked, RuleChecked};
use landfall_boot::network_map::Rule;
use landfall_image::Result;
use std::fmt::Write;

/// `landfall map …`
pub fn run(verb: &MapVerb, as_json: bool) -> Result<u8> {
    let MapVerb::Check(MapCheck { map }) = verb;
    let file = map::load(map)?;
    if as_json {
        let rule = |rule: &map::Conditioned| RuleChecked {
            place: rule.place.clone(),
            machine: rule.machine.clone(),
            network: rule.network.clone(),
            says: in_words(rule),
        };
        let rules = file.rules.iter().map(rule).collect();
        text::print_json(&MapChecked { version: crate::report::VERSION, rules })?;
        return Ok(0);
    }
    let mut out = String::new();
    for rule in &file.rules {
        let machines = rule
            .machine
            .as_ref()
            .map_or("every machine".to_owned(), |name| format!("machines called {name}"));
        let cards = rule.network.as_ref().map_or(String::new(), |name| format!(", cards in {name}"));
        let _ = writeln!(out, "{}: {machines}{cards}", rule.place);
        for line in in_words(rule) {
            let _ = writeln!(out, "  {line}");
        }
    }
    let count = file.rules.len();
    let _ = writeln!(
        out,
        "{count} rule{}, nothing wrong with {}.",
        if count == 1 { "" } else { "s" },
        if count == 1 { "it" } else { "them" }
    );
    text::print(&out)?;
    Ok(0)
}

fn in_words(rule: &map::Conditioned) -> Vec<String> {
    let mut out = of_machine(&rule.of_machine);
    if let Some(addresses) = &rule.addresses {
        out.extend(of_addresses(addresses));
    }
    out
}

fn of_machine(rule: &MachineRule) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(name) = &rule.name {
        out.push(format!("name: {name}"));
    }
    out.extend(rule.networks.iter().map(|(from, to)| format!("network {from} becomes {to}")));
    if let Some(storage) = &rule.storage {
        out.push(format!("disks go to the storage {storage}"));
    }
    if let Some(id) = rule.id {
        out.push(format!("id {id}"));
    }
    if let Some(cpus) = rule.cpus_at_most {
        out.push(format!("at most {cpus} processors"));
    }
    if let Some(memory) = rule.memory_at_most {
        out.push(format!("at most {memory} of memory"));
    }
    let identity = |what: &str, policy| match policy {
        Identity::Keep => format!("{what} stay"),
        Identity::New => format!("new {what}"),
    };
    out.extend(rule.mac.map(|policy| identity("hardware addresses", policy)));
    out.extend(rule.uuid.map(|policy| identity("UUIDs", policy)));
    out.extend(rule.macs.iter().map(|(from, to)| format!("the card {from} becomes {to}")));
    out
}

fn of_addresses(rule: &Rule) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(interface) = &rule.interface {
        out.push(format!("only interfaces called {interface}"));
    }
    out.extend(rule.subnets.iter().map(|(from, to)| format!("subnet {from} becomes {to}")));
    out.extend(rule.addresses.iter().map(|(from, to)| match to.prefix {
        Some(prefix) => format!("address {from} becomes {}/{prefix}", to.ip),
        None => format!("address {from} becomes {}", to.ip),
    }));
    out.extend(rule.gateways.iter().map(|ip| format!("gateway {ip}")));
    let list = |all: Vec<String>| all.join(", ");
    out.extend(
        rule.dns
            .as_ref()
            .map(|all| format!("name servers {}", list(all.iter().map(ToString::to_string).collect()))),
    );
    out.extend(rule.search.as_ref().map(|all| format!("search domains {}", list(all.clone()))));
    for route in &rule.routes {
        let to = route.to.map_or(String::new(), |to| format!(" becomes {to}"));
        let via = route.via.map_or(String::new(), |via| format!(" by {via}"));
        out.push(format!("route to {}{to}{via}", route.from));
    }
    match rule.dhcp {
        Some(true) => out.push("addresses by DHCP".into()),
        Some(false) => out.push("no DHCP".into()),
        None => {}
    }
    out
}
