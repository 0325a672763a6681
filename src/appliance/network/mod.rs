//! From settings to the units of systemd-networkd (systemd.network(5), systemd.netdev(5)), to timesyncd's servers, and to
//! `/etc/resolv.conf`. Text in, text out: who calls has looked which cards there are, and writes the files.
//!
//! Without settings every card gets DHCP and heeds routers' advertisements. Nothing listens or asks besides that: LLMNR,
//! multicast DNS and LLDP are off. Units match cards by hardware address wherever it is known, since names depend on the
//! slot. Deliberately absent: names and domains in units, where they would be read for specifiers; resolved, which is not
//! on the appliance.

mod resolv;

pub use resolv::{Learnt, STATE, resolv_conf};

use super::settings::{Card, Dhcp, Mac, Nic, Settings};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Where networkd finds units that hold until the next start.
pub const UNITS: &str = "/run/systemd/network";
/// Where timesyncd finds its servers.
pub const TIME: &str = "/run/systemd/timesyncd.conf.d/landfall.conf";

/// What every file says at its beginning.
const HEAD: &str = "# Written by landfall from the appliance's settings: a change here is lost.\n";
/// What all names of units begin with: others are not touched.
pub const PREFIX: &str = "10-landfall-";
/// For cards that nothing is set for, where one is reached that something is set for: they are not used.
pub const OTHERS_UNUSED: &str = "85-landfall-unused.network";
/// For all cards, where none is reached; behind all others: what is set for a card counts, should it appear later.
pub const OTHERS_DHCP: &str = "90-landfall-dhcp.network";

/// A card of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its name now.
    pub name: String,
    /// Its hardware address; of a bond's member, the one that it was made with.
    pub mac: Mac,
}

/// Files for networkd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Name and text.
    pub files: BTreeMap<String, String>,
    /// Devices that they make.
    pub devices: Vec<String>,
    /// What cannot be done as it is set, for people.
    pub problems: Vec<String>,
}

/// The units that make of the machine with these cards (in the kernel's order) what is set.
pub fn units(settings: &Settings, present: &[Present]) -> Units {
    let mut units = Units::default();
    let mut is_reached = false;
    let mut bases: Vec<Vec<&Nic>> = Vec::new();
    for nic in settings.nics() {
        match bases.iter_mut().find(|base| base.first().is_some_and(|first| first.card == nic.card)) {
            Some(base) => base.push(nic),
            None => bases.push(vec![nic]),
        }
    }
    for (number, nics) in bases.iter().enumerate() {
        is_reached |= base(&mut units, number, nics, settings, present);
    }
    if !is_reached {
        if !bases.is_empty() && !present.is_empty() {
            units.problems.push("no card is there that the settings are for: all cards have DHCP".to_owned());
        }
        let mut nic = Nic::new(Card::First);
        nic.dhcp = Dhcp::Yes;
        let text = format!("{HEAD}[Match]\nType=ether\nKind=!*\n{}", network(&nic, &[]));
        units.files.insert(OTHERS_DHCP.to_owned(), text);
    } else {
        // The image's own file gives DHCP to every card that none of these is for.
        let text = "[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=no\nIPv6AcceptRA=no\nLinkLocalAddressing=no\nLLDP=no\n";
        units.files.insert(OTHERS_UNUSED.to_owned(), format!("{HEAD}{text}"));
    }
    units
}

/// One card or bond, with what is on it. True where its cards are there.
fn base(units: &mut Units, number: usize, nics: &[&Nic], settings: &Settings, present: &[Present]) -> bool {
    let Some(first) = nics.first() else { return false };
    let mut is_reached = true;
    let mut matches = Vec::new();
    for card in first.cards() {
        match find(card, settings, present) {
            Ok(found) => matches.push(
                found.map_or_else(|| by_card(card, false), |found| by_mac(&found.mac, first.bond.is_some())),
            ),
            Err(problem) => {
                units.problems.push(problem);
                is_reached = false;
                matches.push(by_card(card, first.bond.is_some()));
            }
        }
    }
    // The first card of none cannot be written down.
    matches.retain(|text| !text.is_empty());
    let vlans: Vec<(u16, &Nic)> = nics.iter().filter_map(|nic| nic.vlan.map(|vlan| (vlan, *nic))).collect();
    let names: Vec<String> = vlans.iter().map(|(vlan, _)| format!("vlan{number}.{vlan}")).collect();
    let own = nics.iter().find(|nic| nic.vlan.is_none());
    let body = match own {
        Some(nic) => network(nic, &names),
        None => carrier(nics, &names),
    };
    let file = |kind: &str| format!("{PREFIX}{number:02}{kind}");
    match &first.bond {
        Some(bond) => {
            let name = format!("bond{number}");
            let mut text =
                format!("{HEAD}[NetDev]\nName={name}\nKind=bond\n\n[Bond]\nMode={}\n", bond.mode.word());
            text.push_str("MIIMonitorSec=100ms\n");
            units.files.insert(file("-bond.netdev"), text);
            for (member, text) in matches.iter().enumerate() {
                let quiet = "LinkLocalAddressing=no\nLLDP=no\n";
                units.files.insert(
                    file(&format!("-member{member}.network")),
                    format!("{HEAD}[Match]\n{text}\n[Network]\nBond={name}\n{quiet}"),
                );
            }
            units.files.insert(file("-bond.network"), format!("{HEAD}[Match]\nName={name}\n{body}"));
            units.devices.push(name);
        }
        None => {
            if let Some(text) = matches.first() {
                units.files.insert(file(".network"), format!("{HEAD}[Match]\n{text}{body}"));
            }
        }
    }
    for ((vlan, nic), name) in vlans.iter().zip(names) {
        let text = format!("{HEAD}[NetDev]\nName={name}\nKind=vlan\n\n[VLAN]\nId={vlan}\n");
        units.files.insert(file(&format!("-vlan{vlan}.netdev")), text);
        let text = format!("{HEAD}[Match]\nName={name}\n{}", network(nic, &[]));
        units.files.insert(file(&format!("-vlan{vlan}.network")), text);
        units.devices.push(name);
    }
    is_reached
}

/// The card that is meant; why there is none. `None` where it is meant by its name and has it.
fn find<'a>(card: &Card, settings: &Settings, present: &'a [Present]) -> Result<Option<&'a Present>, String> {
    let found = match card {
        Card::First => present.first(),
        Card::Mac(mac) => present.iter().find(|one| one.mac == *mac),
        Card::Name(name) => {
            if present.iter().any(|one| one.name == *name) {
                return Ok(None);
            }
            // Clouds say eth0 of whatever card there is.
            let only = settings.nics().iter().all(|nic| nic.card == *card && nic.bond.is_none());
            match present {
                [one] if only => Some(one),
                _ => None,
            }
        }
    };
    let there: Vec<String> = present.iter().map(|one| format!("{} {}", one.name, one.mac)).collect();
    let there = if there.is_empty() { "there is none".to_owned() } else { there.join(", ") };
    let what = match card {
        Card::First => "no network card is there".to_owned(),
        _ => format!("the network is set for the card {card}, which is not there; cards: {there}"),
    };
    found.map(Some).ok_or(what)
}

fn by_mac(mac: &Mac, is_member: bool) -> String {
    // A bond gives its members its own address.
    let key = if is_member { "PermanentMACAddress" } else { "MACAddress" };
    // VLANs have the address of what they stand on.
    format!("{key}={mac}\nType=ether\nKind=!*\n")
}

fn by_card(card: &Card, is_member: bool) -> String {
    match card {
        Card::First => String::new(),
        Card::Mac(mac) => by_mac(mac, is_member),
        Card::Name(name) => format!("Name={name}\nType=ether\nKind=!*\n"),
    }
}

/// What only carries VLANs has no addresses.
fn carrier(nics: &[&Nic], vlans: &[String]) -> String {
    let mut text = String::from("\n[Link]\nRequiredForOnline=no\n");
    if let Some(mtu) = nics.iter().filter_map(|nic| nic.mtu).max() {
        let _ = writeln!(text, "MTUBytes={mtu}");
    }
    text.push_str(
        "\n[Network]\nDHCP=no\nIPv6AcceptRA=no\nLinkLocalAddressing=no\nLLMNR=no\nMulticastDNS=no\nLLDP=no\n",
    );
    for vlan in vlans {
        let _ = writeln!(text, "VLAN={vlan}");
    }
    text
}

/// The sections behind the match.
fn network(nic: &Nic, vlans: &[String]) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    if let Some(mtu) = nic.mtu {
        line(format!("\n[Link]\nMTUBytes={mtu}"));
    }
    let heeds = nic.heeds_advertisements();
    let has_v6 = heeds
        || matches!(nic.dhcp, Dhcp::Ipv6 | Dhcp::Yes)
        || nic.addresses.iter().any(|one| one.addr().is_ipv6());
    let yes = |is: bool| if is { "yes" } else { "no" };
    line(format!("\n[Network]\nDHCP={}\nIPv6AcceptRA={}", nic.dhcp.word(), yes(heeds)));
    // Without IPv6 in the settings there is none.
    line(format!("LinkLocalAddressing={}", if has_v6 { "ipv6" } else { "no" }));
    line("LLMNR=no\nMulticastDNS=no\nLLDP=no".to_owned());
    for vlan in vlans {
        line(format!("VLAN={vlan}"));
    }
    for address in &nic.addresses {
        line(format!("\n[Address]\nAddress={address}"));
    }
    for gateway in &nic.gateways {
        line(format!("\n[Route]\nGateway={gateway}"));
        if nic.on_link {
            line("GatewayOnLink=yes".to_owned());
        }
    }
    if matches!(nic.dhcp, Dhcp::Ipv4 | Dhcp::Yes) {
        // What is reserved for a machine is reserved for its card's address.
        line(format!("\n[DHCPv4]\nClientIdentifier=mac\nUseDomains=yes\nUseMTU={}", yes(nic.mtu.is_none())));
    }
    if matches!(nic.dhcp, Dhcp::Ipv6 | Dhcp::Yes) {
        line("\n[DHCPv6]\nUseDomains=yes".to_owned());
    }
    if heeds {
        line("\n[IPv6AcceptRA]\nUseDomains=yes".to_owned());
    }
    text
}

/// timesyncd's servers (timesyncd.conf(5)), where some are set; else it has those of DHCP.
pub fn time_servers(settings: &Settings) -> Option<String> {
    let servers: Vec<&str> = settings.ntp.as_ref()?.iter().map(|server| server.as_str()).collect();
    // An empty list takes away those that are built in, too.
    let fallback = if servers.is_empty() { "FallbackNTP=\n" } else { "" };
    Some(format!("{HEAD}[Time]\nNTP={}\n{fallback}", servers.join(" ")))
}

#[cfg(test)]
mod tests;
