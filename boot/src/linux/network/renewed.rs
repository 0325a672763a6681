//! Targets that give every card a new hardware address and the machine its addresses by DHCP (Azure): no name can hang on an
//! address there. With one card its name hangs on the driver, which also leaves a virtual function of the same card alone:
//! that has the same hardware address. With several nothing tells them apart.

use super::assign::{Assigned, Assignment};
use super::{Configured, Network};
use crate::linux::draft::Draft;
use crate::network_map::What;
use crate::target::Request;
use ipnet::IpNet;
use std::collections::BTreeSet;

pub(super) const WHY: &str =
    "The name stays on the machine's only card, by its driver: the target gives it a new hardware address.";

/// True for a target of this kind.
pub(super) fn is_meant(request: &Request) -> bool {
    request.platform.linux_drivers().renews_cards
}

/// What the one card is known by, if it is.
pub(super) fn driver(request: &Request) -> Option<&'static str> {
    let mut cards = request.platform.linux_drivers().cards_for(request.firmware);
    match (cards.next(), request.nics.len()) {
        (Some(card), 1) if is_meant(request) => Some(card.driver),
        _ => None,
    }
}

/// The names that have to be written.
pub(super) fn names<'a>(assigned: &'a Assigned, request: &Request) -> Vec<&'a Assignment> {
    let is_written = |one: &&Assignment| match is_meant(request) {
        // What the guest keeps by itself it keeps by the address.
        true => driver(request).is_some(),
        false => !one.is_kept,
    };
    assigned.names.iter().filter(is_written).collect()
}

/// Says what goes by address, and which addresses the target will not give.
pub(super) fn tell(draft: &mut Draft<'_>, network: &Network, assigned: &Assigned, request: &Request) {
    if !is_meant(request) {
        return;
    }
    let names: Vec<&str> = assigned.names.iter().map(|one| one.name.as_str()).collect();
    if driver(request).is_none() && !names.is_empty() {
        draft.find(
            "linux-nic-new-address",
            format!(
                "The target gives every card a new hardware address, and the machine has {} of them: the names {} cannot be kept by it.",
                request.nics.len(),
                names.join(", ")
            ),
            "Look at `ip link` on the target, and write a systemd .link file with the new address for each name.",
        );
    }
    let by_address: BTreeSet<(&str, &str)> =
        network.configured.iter().filter_map(|one| Some((one.proof.as_str(), one.mac.as_deref()?))).collect();
    for (path, mac) in by_address {
        draft.find(
            "linux-nic-new-address",
            format!("{path} goes by the hardware address {mac}; the target gives every card a new one."),
            format!("Let {path} go by the interface's name."),
        );
    }
    let automatic: BTreeSet<String> = draft
        .moved
        .iter()
        .filter(|moved| moved.what == What::Method)
        .map(|moved| moved.interface.clone())
        .collect();
    for one in network.configured.iter().filter(|one| !automatic.contains(&one.name)) {
        let addresses = fixed(one);
        if !addresses.is_empty() {
            draft.find(
                "linux-network-static",
                format!(
                    "{} has the address {} in the guest ({}), and the target's network gives addresses by DHCP.",
                    one.name,
                    addresses.join(", "),
                    one.proof
                ),
                "Give a network map with dhcp = true, and the address to the card in the target's network.",
            );
        }
    }
}

/// IPv4 addresses that are written in the guest.
fn fixed(one: &Configured) -> Vec<&str> {
    let is_v4 = |text: &&str| {
        let net: Option<IpNet> = text.parse().ok().or_else(|| IpNet::new(text.parse().ok()?, 32).ok());
        net.is_some_and(|net| net.addr().is_ipv4() && !net.addr().is_loopback())
    };
    one.addresses.iter().map(String::as_str).filter(is_v4).collect()
}
