//! The names that Linux derives from the PCI addresses of cards, where they are certain.
//!
//! Source: systemd.net-naming-scheme(7) and the PCI topology of QEMU's two machines. On `pc` every slot of bus 0 is a hotplug slot of ACPI
//! with its number, so that the card in slot 3 is `ens3`. On `q35` the ports' slots have the number 0, which does not count, and a card goes by its
//! bus: `enp1s0`. The guest numbers buses as it finds them, depth first in order of address; libvirt's index is another
//! number, so the walk is done here. Deliberately absent: bridges of conventional PCI, expander buses and cards with several functions, whose
//! names differ between versions of systemd and QEMU.

use super::Hypervisor;
use crate::hypervisor::xml::Element;
use std::collections::BTreeMap;

/// A PCI address as the definition has it: its bus is libvirt's index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Address {
    bus: u64,
    slot: u64,
    function: u64,
}

impl Address {
    fn of(device: &Element) -> Option<Address> {
        let address = device.child("address").filter(|a| a.attribute("type") == Some("pci"))?;
        let part = |name: &str| super::number(name, address.attribute(name).unwrap_or("0"), 0xffff).ok();
        (part("domain")? == 0).then_some(())?;
        Some(Address { bus: part("bus")?, slot: part("slot")?, function: part("function")? })
    }
}

/// How the machine's cards are named.
pub enum Names {
    /// `pc`: slots of bus 0.
    Slots,
    /// `q35`: the guest's number of each bus by libvirt's.
    Buses(BTreeMap<u64, u64>),
    /// Not certain.
    Unknown,
}

impl Names {
    /// Of that machine.
    pub fn new(domain: &Element, devices: &Element, hypervisor: Hypervisor) -> Names {
        let board = domain.at("os/type").and_then(|os| os.attribute("machine")).unwrap_or_default();
        if hypervisor != Hypervisor::Qemu || domain.at("features/acpi").is_none() {
            return Names::Unknown;
        }
        if board == "pc" || board.starts_with("pc-i440fx-") {
            return Names::Slots;
        }
        let is_q35 = board == "q35" || board.starts_with("pc-q35-");
        is_q35.then(|| buses(devices)).flatten().map_or(Names::Unknown, Names::Buses)
    }

    /// The name of a card.
    pub fn of(&self, card: &Element) -> Option<String> {
        if matches!(self, Names::Unknown) {
            return None;
        }
        let onboard = card.child("acpi").and_then(|acpi| acpi.attribute("index"));
        if let Some(index) = onboard {
            let index = super::number("acpi", index, 16383).ok().filter(|index| *index > 0)?;
            return Some(format!("eno{index}"));
        }
        let address = Address::of(card)?;
        let is_one_of_several = card.child("address")?.attribute("multifunction") == Some("on");
        if address.function != 0 || is_one_of_several {
            return None;
        }
        match self {
            Names::Slots => (address.bus == 0 && address.slot > 0).then(|| format!("ens{}", address.slot)),
            Names::Buses(buses) => Some(format!("enp{}s{}", buses.get(&address.bus)?, address.slot)),
            Names::Unknown => None,
        }
    }
}

/// The guest's number of bus 0 and of the bus behind each root port.
fn buses(devices: &Element) -> Option<BTreeMap<u64, u64>> {
    let mut children: BTreeMap<u64, Vec<(Address, u64, bool)>> = BTreeMap::new();
    for bridge in devices.all("controller").filter(|c| c.attribute("type") == Some("pci")) {
        let model = bridge.attribute("model").unwrap_or_default();
        match model {
            "pcie-root" | "pci-root" => continue,
            "pcie-expander-bus" | "pci-expander-bus" | "" => return None,
            _ => {}
        }
        let index = super::number("index", bridge.attribute("index")?, 255).ok()?;
        let address = Address::of(bridge)?;
        children.entry(address.bus).or_default().push((address, index, model == "pcie-root-port"));
    }
    let mut numbers = BTreeMap::from([(0, 0)]);
    let mut next = 1;
    let mut open: Vec<(u64, bool)> = vec![(0, true)];
    while let Some((bus, is_port)) = open.pop() {
        if bus != 0 {
            if is_port {
                numbers.insert(bus, next);
            }
            next += 1;
        }
        // Each bus is taken once: a circle ends.
        let mut below = children.remove(&bus).unwrap_or_default();
        below.sort();
        open.extend(below.iter().rev().map(|(_, index, is_port)| (*index, *is_port)));
    }
    Some(numbers)
}
