//! The addresses of another site, put into the settings that the first start gives to the adapters: the same rules, with the
//! same findings, as for Linux guests. Values are replaced, never invented.
//!
//! The list of suffixes and `drivers\etc\hosts` are changed where they lie. Deliberately absent: addresses in the
//! configuration of services and applications, firewall rules, and what is on adapters of software.

use super::super::data::Data;
use super::super::draft::Draft;
use super::cards::Match;
use super::read::Network;
use super::settings::{Kind, Route, Settings};
use crate::Result;
use crate::linux::network::readdress::site::{On, Site};
use crate::linux::network::readdress::system::hosts;
use crate::network_map::{Host, NetworkMap};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const WHY: &str = "The addresses become those of the network map.";

/// Changes the settings of the matched adapters and the machine's routes.
pub fn plan(draft: &mut Draft<'_>, map: &NetworkMap, network: &mut Network, pairs: &[Match]) -> Result<()> {
    let mut cards: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for pair in pairs {
        if let Some(interface) = network.interfaces.get(pair.interface) {
            cards.entry(interface.shown().to_owned()).or_default().insert(pair.card);
        }
    }
    let mut site = Site::new(map, cards, BTreeMap::new());
    for pair in pairs {
        let Some(interface) = network.interfaces.get_mut(pair.interface) else { continue };
        let (name, place) = (interface.shown().to_owned(), interface.place());
        adapter(&mut site.on(&[name], &place), &mut interface.settings);
    }
    for interface in network.interfaces.iter().filter(|one| one.kind != Kind::Card) {
        let place = interface.place();
        for host in interface.hosts() {
            site.whole(&place).leftover(&host.ip.to_string());
        }
    }
    let place = "Services\\Tcpip\\Parameters\\PersistentRoutes";
    for route in &mut network.routes {
        *route = moved(&mut site.beside(&route.1.to_string(), place), *route);
    }
    let parameters = draft.system.key("Services\\Tcpip\\Parameters");
    let old: Vec<&str> = network.search.iter().map(String::as_str).collect();
    let new = match old.is_empty() {
        true => None,
        false => site.whole("Services\\Tcpip\\Parameters").search(&old),
    };
    if let Some(new) = new {
        draft.registry.set(&parameters, "SearchList", Data::text(&new.join(",")), WHY)?;
    }
    let path = draft.system.path("System32/drivers/etc/hosts");
    if let Some(old) = draft.read(&path)?
        && let Some(new) = hosts(&old, &path, &mut site)
    {
        draft.write(&path, new, WHY)?;
    }
    let (moved, findings) = site.finish();
    draft.moved.extend(moved);
    for (id, says, remedy) in findings {
        draft.find(windows(id), says, remedy);
    }
    Ok(())
}

fn adapter(on: &mut On<'_, '_>, set: &mut Settings) {
    if on.dhcp() {
        if set.addresses.is_empty() {
            on.switched("");
        }
        for address in std::mem::take(&mut set.addresses) {
            on.switched(&show(address.host));
        }
        set.gateways.clear();
        set.is_dhcp = true;
    }
    for address in &mut set.addresses {
        address.host = on.address(address.host);
    }
    for host in &mut set.addresses_v6 {
        *host = on.address(*host);
    }
    for (gateway, _) in &mut set.gateways {
        if let Some(new) = on.gateway(&gateway.to_string()).and_then(|new| new.parse().ok()) {
            *gateway = new;
        }
    }
    for route in &mut set.routes {
        *route = moved(on, *route);
    }
    servers(on, &mut set.servers, true);
    servers(on, &mut set.servers_v6, false);
    for server in &mut set.wins {
        if let Some(IpAddr::V4(new)) = on.neighbour_text(&server.to_string()).and_then(|new| new.parse().ok())
        {
            *server = new;
        }
    }
}

fn servers(on: &mut On<'_, '_>, servers: &mut Vec<IpAddr>, is_v4: bool) {
    if servers.is_empty() {
        return;
    }
    let old: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let old: Vec<&str> = old.iter().map(String::as_str).collect();
    if let Some(new) = on.servers(&old, Some(is_v4)) {
        *servers = new.iter().filter_map(|text| text.parse().ok()).collect();
    }
}

fn moved(on: &mut On<'_, '_>, (to, via, metric): Route) -> Route {
    let is_default = to.prefix_len() == 0;
    let (new_to, new_via) = on.route((!is_default).then_some(to), Some(&via.to_string()));
    (new_to.unwrap_or(to), new_via.and_then(|via| via.parse().ok()).unwrap_or(via), metric)
}

fn show(host: Host) -> String {
    let network = host.prefix.and_then(|prefix| IpNet::new(host.ip, prefix).ok());
    network.map_or_else(|| host.ip.to_string(), |network| network.to_string())
}

/// The findings of Linux guests have rows of their own here.
fn windows(id: &'static str) -> &'static str {
    match id {
        "linux-readdress-address-stays" => "windows-readdress-address-stays",
        "linux-readdress-chain" => "windows-readdress-chain",
        "linux-readdress-duplicate" => "windows-readdress-duplicate",
        "linux-readdress-gateway" => "windows-readdress-gateway",
        "linux-readdress-left" => "windows-readdress-left",
        "linux-readdress-no-room" => "windows-readdress-no-room",
        "linux-readdress-rule-unused" => "windows-readdress-rule-unused",
        "linux-readdress-scope" => "windows-readdress-scope",
        "linux-readdress-unclear" => "windows-readdress-unclear",
        "linux-readdress-unmapped" => "windows-readdress-unmapped",
        "linux-readdress-unplaced" => "windows-readdress-unplaced",
        other => other,
    }
}
