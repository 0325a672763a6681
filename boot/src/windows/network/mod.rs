//! The network of a Windows guest: which adapters it has and how they are set up, which card each is, what the network map
//! makes of their addresses, and what the first start has to give to the adapters that Windows finds on the new hardware.
//!
//! Windows keeps an adapter's settings by an id that it makes anew for a card of another kind or in another slot. So nothing is
//! edited offline: the old settings stay where they are (they are what a second pass reads), and a script sets up whatever
//! adapter has the card's hardware address ([`super::first_boot`]). Adapters of software keep their ids on any hardware.
//!
//! Deliberately absent: teams (LBFO) and ports of virtual switches, whose members or uplinks are such ids inside of binary
//! data: a finding says what to build anew.

mod cards;
pub mod macs;
pub mod nsi;
pub mod read;
mod readdress;
pub mod settings;

use super::draft::{Draft, System};
use super::first_boot::{Adapter, Ghost, Steps};
use super::registry::Registry;
use crate::Result;
use crate::guest::Interface;
use read::Network;
use settings::Kind;
pub use settings::WindowsInterface;

/// The adapters that have a connection, present or not.
pub fn interfaces(registry: &Registry, system: &System) -> Result<Vec<WindowsInterface>> {
    Ok(read::read(registry, system)?.interfaces)
}

/// Those that inspection lists: cards, teams and ports of switches, and software with addresses of its own.
pub fn facts(interfaces: &[WindowsInterface]) -> Vec<Interface> {
    let listed = interfaces.iter().filter(|one| one.kind != Kind::Software || one.settings.is_static());
    let fact = |one: &WindowsInterface| {
        let shown = one.hosts().map(|host| format!("{}/{}", host.ip, host.prefix.unwrap_or(0)));
        Interface {
            name: one.shown().to_owned(),
            mac: one.macs.first().map(|(mac, _)| mac.clone()),
            addresses: one.settings.is_dhcp.then(|| "dhcp".to_owned()).into_iter().chain(shown).collect(),
            proof: one.place(),
        }
    };
    listed.map(fact).collect()
}

/// Plans what the first start does about the network.
pub fn plan(draft: &mut Draft<'_>, steps: &mut Steps) -> Result<()> {
    let mut network = read::read(&draft.registry, &draft.system)?;
    for what in std::mem::take(&mut network.unread) {
        unread(draft, "The machine", &what);
    }
    tell_of_software(draft, &network);
    if draft.request.platform.linux_drivers().renews_cards {
        tell_of_renewal(draft, &network);
        return Ok(());
    }
    let found = cards::matched(&network.interfaces, &draft.request.nics);
    for (id, says, remedy) in found.findings {
        draft.find(id, says, remedy);
    }
    let old_routes = network.routes.clone();
    let was_automatic: Vec<bool> = network.interfaces.iter().map(|one| one.settings.is_automatic()).collect();
    if let Some(map) = &draft.request.network_map {
        readdress::plan(draft, map, &mut network, &found.pairs)?;
    }
    let nics = draft.request.nics.clone();
    let at_target =
        |card: usize| nics.get(card).and_then(|nic| nic.new_mac.clone().or_else(|| nic.mac.clone()));
    steps.cards.extend((0..nics.len()).map(&at_target));
    let mut gateways = Vec::new();
    let mut is_needed = false;
    for pair in &found.pairs {
        let Some(interface) = network.interfaces.get(pair.interface) else { continue };
        tell_of(draft, interface);
        gateways.extend(interface.settings.gateways.iter().map(|(gateway, _)| *gateway));
        let adapter = Adapter {
            mac: at_target(pair.card).unwrap_or_default(),
            name: Some(interface.name.clone()).filter(|name| is_plain_name(name)),
            settings: interface.settings.clone(),
        };
        // Where the hardware stays the same, the adapter and its old settings do, too.
        is_needed |= !interface.settings.is_automatic() || was_automatic.get(pair.interface) == Some(&false);
        if adapter.mac.is_empty() && interface.settings.is_automatic() {
            continue;
        }
        if adapter.mac.is_empty() {
            draft.find(
                "windows-nic-no-mac",
                format!("{} is on a card to which the definition gives no hardware address.", interface.shown()),
                "Put the address that the card has on the source into the definition, or set up the adapter on the target by hand.",
            );
            continue;
        }
        if adapter.name.is_none() && !interface.name.is_empty() {
            draft.find(
                "windows-nic-name",
                format!(
                    "The connection {:?} gets another name: its own is not put into a command.",
                    interface.name
                ),
                "Rename it on the target where programs go by the name.",
            );
        }
        steps.adapters.push(adapter);
    }
    for (old, new) in old_routes.iter().zip(&network.routes) {
        // The gateway of an adapter comes with its address.
        let is_set = new.0.prefix_len() == 0 && gateways.contains(&new.1);
        if old != new || !is_set {
            steps.routes.push(super::first_boot::Route { old: *old, new: (!is_set).then_some(*new) });
        }
    }
    if !is_needed && steps.routes.is_empty() {
        steps.adapters.clear();
    }
    ghosts(&network, &found.pairs, &found.ghosts, steps);
    Ok(())
}

/// What is taken from adapters that are gone: those of the matched cards, if Windows finds others on them, and earlier ones.
fn ghosts(network: &Network, pairs: &[cards::Match], gone: &[usize], steps: &mut Steps) {
    let places = pairs.iter().map(|pair| pair.interface).chain(gone.iter().copied());
    for interface in places.filter_map(|at| network.interfaces.get(at)) {
        let device = Some(interface.device.clone()).filter(|device| is_device(device));
        steps.ghosts.push(Ghost { guid: interface.guid.clone(), device });
    }
}

/// An instance of a device that can stand in a command between quotes.
fn is_device(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"\\&_.#{}-".contains(&byte);
    !text.is_empty() && text.len() <= 200 && text.bytes().all(is_plain)
}

/// A connection's name that can stand in a command between quotes of either kind.
fn is_plain_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" -_.#()".contains(&byte);
    !text.is_empty() && text.len() <= 64 && text.bytes().all(is_plain) && text.trim() == text
}

fn unread(draft: &mut Draft<'_>, whose: &str, what: &str) {
    draft.find(
        "windows-nic-unread",
        format!("{whose}: {what} is not understood."),
        "Look at the source's network settings, and set this on the target by hand.",
    );
}

/// What of a matched adapter is not carried.
fn tell_of(draft: &mut Draft<'_>, interface: &WindowsInterface) {
    for what in &interface.unread {
        unread(draft, interface.shown(), what);
    }
    if let Some(mac) = &interface.override_mac
        && interface.macs.iter().all(|(own, _)| own != mac)
    {
        draft.find(
            "windows-nic-own-address",
            format!("{} was given the hardware address {mac} in its driver's settings, which the new card does not have.", interface.shown()),
            format!("Give the card {mac} in the target's definition if something goes by it."),
        );
    }
    if interface.is_without_v6 {
        draft.find(
            "windows-nic-protocol-off",
            format!("IPv6 is switched off on {}, and will be on on the new adapter.", interface.shown()),
            "Switch it off on the target: Disable-NetAdapterBinding -ComponentID ms_tcpip6, or in the adapter's properties.",
        );
    }
}

/// Its addresses in a sentence.
fn shown(interface: &WindowsInterface) -> String {
    interface.hosts().map(|host| host.ip.to_string()).collect::<Vec<_>>().join(", ")
}

fn tell_of_software(draft: &mut Draft<'_>, network: &Network) {
    for interface in &network.interfaces {
        let (what, remedy) = match interface.kind {
            Kind::Team => (
                "a team of cards",
                "Build the team on the target with its new cards and give it the addresses; or let the hypervisor team, and give them to one card.",
            ),
            Kind::Switch => (
                "a port of a virtual switch of Hyper-V in the guest",
                "Connect the switch to the new card on the target: Set-VMSwitch -NetAdapterName.",
            ),
            Kind::Software if interface.device.is_empty() && interface.settings.is_static() => {
                draft.find(
                    "windows-nic-unmatched",
                    format!(
                        "{} has addresses of its own ({}), and Windows does not say which device it is on.",
                        interface.shown(),
                        shown(interface)
                    ),
                    "Ignore this if the adapter is gone; else set them on the target by hand.",
                );
                continue;
            }
            Kind::Card | Kind::Software => continue,
        };
        let addresses = shown(interface);
        let with = match addresses.is_empty() {
            true => String::new(),
            false => format!(" with {addresses}"),
        };
        draft.find(
            "windows-nic-virtual",
            format!("{}{with} is {what}, which loses its cards.", interface.shown()),
            remedy,
        );
    }
}

fn tell_of_renewal(draft: &mut Draft<'_>, network: &Network) {
    for interface in network.interfaces.iter().filter(|one| one.kind == Kind::Card) {
        if interface.settings.is_static() && !interface.is_cleared {
            draft.find(
                "windows-nic-renewed",
                format!(
                    "{} has {}, which are not carried: the target gives the machine its addresses.",
                    interface.shown(),
                    shown(interface)
                ),
                "Give the machine these addresses in the platform's network settings.",
            );
        }
    }
}

#[cfg(test)]
mod tests;
