//! Which name belongs to which card. Evidence, the strongest first: a rule or link file that gives the name by address; an
//! address in the configuration, or in the name itself; the slot's predictable name; a lease; the order of `ethN`; what is left over.

use super::{Configured, Network, is_pattern, is_software_name};
use crate::linux::text;
use crate::target::{Nic, Request};

/// The result.
#[derive(Debug, Default)]
pub(super) struct Assigned {
    pub names: Vec<Assignment>,
    /// Id, sentence, remedy.
    pub findings: Vec<(&'static str, String, String)>,
}

/// A name and its card.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub name: String,
    pub mac: String,
    /// Why this is certain.
    pub proof: String,
    /// The guest keeps it by itself; nothing has to be written.
    pub is_kept: bool,
}

/// Names that a platform's cards get without any rule, by the word that its name has: whoever asks for a pattern that fits
/// them all needs nothing. On KVM they follow the machine type and its slots (libvirt, plain QEMU, Proxmox VE).
const TARGET_NAMES: &[(&str, &[&str])] = &[
    ("KVM", &["enp1s0", "ens3", "ens18"]),
    ("AHV", &["ens3", "eth0"]),
    ("ESX", &["ens192", "ens160", "ens33"]),
    ("Hyper-V", &["eth0"]),
    ("Azure", &["eth0"]),
    ("Xen", &["enX0", "eth0"]),
    ("XCP", &["enX0", "eth0"]),
];

/// True where whatever name the platform gives a card fits the pattern; for a platform without a row, any platform's.
fn fits_target(pattern: &str, platform: &str) -> bool {
    let is_row = |row: &&(&str, &[&str])| platform.contains(row.0);
    let rows = match TARGET_NAMES.iter().find(is_row) {
        Some(row) => std::slice::from_ref(row),
        None => TARGET_NAMES,
    };
    rows.iter().all(|(_, names)| names.iter().all(|name| text::glob(pattern, name)))
}

pub(super) fn assign(network: &Network, request: &Request) -> Assigned {
    let mut result = Assigned::default();
    let mut open = wanted(network, request, &mut result);
    if open.is_empty() {
        return result;
    }
    if request.nics.is_empty() {
        let names: Vec<_> = open.iter().map(|one| one.name.as_str()).collect();
        result.find(
            "linux-nic-none",
            format!(
                "The guest configures {}, and the machine's definition has no network card.",
                names.join(", ")
            ),
            "Add a network card with the old hardware address to the definition.",
        );
        return result;
    }
    given(&mut open, network, request, &mut result);
    by_address(&mut open, request, &mut result);
    by_own_name(&mut open, request, &mut result);
    by_slot(&mut open, request, &mut result);
    by_lease(&mut open, network, request, &mut result);
    by_order(&mut open, request, &mut result);
    left_over(&mut open, request, &mut result);
    swapped(request, &mut result);
    result
}

impl Assigned {
    fn find(&mut self, id: &'static str, says: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push((id, says.into(), remedy.into()));
    }
    fn is_free(&self, nic: &Nic) -> bool {
        nic.mac.as_ref().is_some_and(|mac| !self.names.iter().any(|name| name.mac == *mac))
    }
    fn add(&mut self, name: &str, mac: &str, proof: impl Into<String>, is_kept: bool) {
        self.names.push(Assignment {
            name: name.to_owned(),
            mac: mac.to_owned(),
            proof: proof.into(),
            is_kept,
        });
    }
}

/// The physical names that have to be kept, each once; patterns are replaced by the names that they mean.
fn wanted(network: &Network, request: &Request, result: &mut Assigned) -> Vec<Configured> {
    let mut names: Vec<Configured> = Vec::new();
    for one in network.configured.iter().filter(|one| !one.is_virtual) {
        if let Some(pinned) = &one.pinned {
            result.find(
                "linux-network-by-driver",
                format!("{} finds its card by {pinned}, which this move changes.", one.proof),
                format!("Let {} go by the card's name or hardware address.", one.proof),
            );
            continue;
        }
        if one.is_kept {
            if let Some(mac) = &one.mac
                && !request.nics.iter().any(|nic| nic.mac.as_ref() == Some(mac))
            {
                result.find(
                    "linux-nic-mac-unknown",
                    format!(
                        "{} looks for the hardware address {mac}, which no card of the definition has.",
                        one.proof
                    ),
                    "Give a card that address, or correct the configuration.",
                );
            }
            continue;
        }
        if is_pattern(&one.name) {
            if fits_target(&one.name, request.platform.name()) {
                continue;
            }
            let slots = request.nics.iter().filter_map(|nic| nic.source_name.as_ref());
            let fitting: Vec<_> = slots.filter(|name| text::glob(&one.name, name)).collect();
            if fitting.is_empty() {
                result.find(
                    "linux-network-pattern",
                    format!(
                        "{} is for interfaces named {}, which may not fit the target's names.",
                        one.proof, one.name
                    ),
                    "Check the interface names on the target.",
                );
            }
            names.extend(fitting.into_iter().map(|name| Configured { name: name.clone(), ..one.clone() }));
            continue;
        }
        names.push(one.clone());
    }
    let mut unique: Vec<Configured> = Vec::new();
    for one in names.into_iter().filter(|one| !is_software_name(&one.name)) {
        match unique.iter_mut().find(|known| known.name == one.name) {
            Some(known) => known.mac = known.mac.take().or(one.mac),
            None => unique.push(one),
        }
    }
    unique
}

fn given(open: &mut Vec<Configured>, network: &Network, request: &Request, result: &mut Assigned) {
    open.retain(|one| {
        let Some(given) = network.given.iter().find(|given| given.name == one.name) else { return true };
        if !request.nics.iter().any(|nic| nic.mac.as_deref() == Some(&given.mac)) {
            // Rules pile up with every card that a machine once had: this one is history.
            return true;
        }
        // Our own from an earlier run is written again, which changes nothing.
        let is_ours = given.proof.contains("landfall");
        let is_rule = given.proof.ends_with(".rules");
        // A pinned rule is unpinned in place; a pinned link file is not, so a new one goes before it.
        let is_kept = !is_ours && (is_rule || !given.is_pinned);
        result.add(
            &one.name,
            &given.mac,
            format!("{} gives {} to {}", given.proof, one.name, given.mac),
            is_kept,
        );
        false
    });
}

fn by_address(open: &mut Vec<Configured>, request: &Request, result: &mut Assigned) {
    open.retain(|one| {
        let Some(mac) = &one.mac else { return true };
        match request.nics.iter().any(|nic| nic.mac.as_ref() == Some(mac) && result.is_free(nic)) {
            true => {
                result.add(&one.name, mac, format!("{} names {mac} for {}", one.proof, one.name), false);
                false
            }
            false => {
                result.find(
                    "linux-nic-mac-unknown",
                    format!("{} names the hardware address {mac} for {}, which no free card of the definition has.", one.proof, one.name),
                    "Give a card that address, or correct the configuration.",
                );
                true
            }
        }
    });
}

/// A name that udev once made of the address: `enx005056aabbcc`.
fn by_own_name(open: &mut Vec<Configured>, request: &Request, result: &mut Assigned) {
    open.retain(|one| {
        let digits = one.name.strip_prefix("enx").unwrap_or("");
        let is_it = |nic: &&Nic| nic.mac.as_ref().is_some_and(|mac| mac.replace(':', "") == digits);
        let Some(nic) = request.nics.iter().find(is_it).filter(|nic| result.is_free(nic)) else {
            return true;
        };
        let mac = nic.mac.as_deref().unwrap_or_default();
        result.add(&one.name, mac, format!("the name {} was made of the address {mac}", one.name), false);
        false
    });
}

fn by_slot(open: &mut Vec<Configured>, request: &Request, result: &mut Assigned) {
    open.retain(|one| {
        let slot = one.slot.as_ref().unwrap_or(&one.name);
        let mut fitting = request
            .nics
            .iter()
            .filter(|nic| nic.source_name.as_ref().is_some_and(|name| text::glob(slot, name)));
        match (fitting.next(), fitting.next()) {
            (Some(nic), None) if result.is_free(nic) => {
                let mac = nic.mac.as_deref().unwrap_or_default();
                result.add(
                    &one.name,
                    mac,
                    format!("the slot of the card with {mac} is called {} on the source", one.name),
                    false,
                );
                false
            }
            _ => true,
        }
    });
}

fn by_lease(open: &mut Vec<Configured>, network: &Network, request: &Request, result: &mut Assigned) {
    open.retain(|one| {
        let mut leases = network.seen.iter().filter(|seen| seen.name == one.name);
        let fits =
            |mac: &str| request.nics.iter().any(|nic| nic.mac.as_deref() == Some(mac) && result.is_free(nic));
        let Some(first) = leases.find(|seen| fits(&seen.mac)) else { return true };
        // Two leases that name two cards of the machine prove nothing.
        if leases.any(|seen| seen.mac != first.mac && fits(&seen.mac)) {
            return true;
        }
        let proof = format!("{} was given to {} as {}", first.proof, first.mac, one.name);
        result.add(&one.name, &first.mac, proof, false);
        false
    });
}

/// A name that the kernel gives to another card first is not free at the moment at which udev wants to give it. Since
/// systemd 197 udev does not go round that.
fn swapped(request: &Request, result: &mut Assigned) {
    let mut names = Vec::new();
    for one in result.names.iter().filter(|one| !one.is_kept) {
        let number = one.name.strip_prefix("eth").and_then(|number| number.parse::<usize>().ok());
        let Some(other) = number.and_then(|number| request.nics.get(number)) else { continue };
        if other.mac.as_ref() != Some(&one.mac) {
            names.push(format!("{} ({})", one.name, one.mac));
        }
    }
    if !names.is_empty() {
        result.find(
            "linux-nic-swapped",
            format!("The kernel will give {} to another card first, by the order of the slots.", names.join(", ")),
            "Put the cards into the order of their names in the target's definition, and look at `ip link` there.",
        );
    }
}

fn by_order(open: &mut Vec<Configured>, request: &Request, result: &mut Assigned) {
    let before = result.names.len();
    open.retain(|one| {
        let number = one.name.strip_prefix("eth").and_then(|number| number.parse::<usize>().ok());
        match number.and_then(|number| request.nics.get(number)) {
            Some(nic) if result.is_free(nic) => {
                let mac = nic.mac.as_deref().unwrap_or_default();
                result.add(
                    &one.name,
                    mac,
                    format!("{} is card {mac} by the order of the slots", one.name),
                    false,
                );
                false
            }
            _ => true,
        }
    });
    if request.nics.len() > 1 && result.names.len() > before {
        let names: Vec<_> =
            result.names.iter().skip(before).map(|name| format!("{} = {}", name.name, name.mac)).collect();
        result.find(
            "linux-nic-by-order",
            format!("The cards were told apart by the order of their slots: {}.", names.join(", ")),
            "Compare with `ip link` on the source.",
        );
    }
}

fn left_over(open: &mut Vec<Configured>, request: &Request, result: &mut Assigned) {
    let free: Vec<&Nic> = request.nics.iter().filter(|nic| result.is_free(nic)).collect();
    let nameless = request.nics.iter().filter(|nic| nic.mac.is_none()).count();
    if let ([one], [nic], 0) = (open.as_slice(), free.as_slice(), nameless) {
        let mac = nic.mac.clone().unwrap_or_default();
        let proof = match request.nics.len() {
            1 => format!("{} is the only configured name and {mac} the only card", one.name),
            _ => format!("{} and {mac} are the only ones left", one.name),
        };
        let name = one.name.clone();
        result.add(&name, &mac, proof, false);
        open.clear();
        return;
    }
    if open.is_empty() {
        return;
    }
    let names: Vec<_> = open.iter().map(|one| format!("{} ({})", one.name, one.proof)).collect();
    let names = names.join(", ");
    if free.is_empty() && nameless == 0 {
        result.find(
            "linux-nic-extra-config",
            format!("The guest configures {names}, and every card already has another name."),
            "Ignore this if those interfaces did not exist on the source either.",
        );
    } else if nameless > 0 {
        result.find(
            "linux-nic-no-mac",
            format!("The name of {names} cannot be kept: the definition gives {nameless} of its cards no hardware address."),
            "Give every card the hardware address that it has on the source.",
        );
    } else {
        let macs: Vec<_> = free.iter().filter_map(|nic| nic.mac.as_deref()).collect();
        result.find(
            "linux-nic-ambiguous",
            format!("Which of the cards {} is called {names} on the source is not certain.", macs.join(", ")),
            "Write a systemd .link file with the card's hardware address for each name in the guest, or name the card's slot in the definition.",
        );
    }
}
