//! Network cards of a domain.
//!
//! Source: libvirt's "Domain XML format", section "Network interfaces". What the host does with the traffic (filters, bandwidth, queues) is not
//! read.

use super::{Boot, Order, Report, number, order_of, pci};
use crate::finding;
use crate::hypervisor::xml::Element;
use crate::machine::{NicSlot, parse_mac};
use landfall_image::{Error, Result};

/// The cards, in order: `net0` and on, as QEMU calls them.
pub fn read(
    devices: &Element,
    names: &pci::Names,
    order: &mut Order,
    report: &mut Report,
) -> Result<Vec<NicSlot>> {
    let mut nics = Vec::new();
    for (index, element) in devices.all("interface").enumerate() {
        if let Some(number) = order_of(element)? {
            order.push((number, Boot::Nic(index)));
        }
        nics.push(nic(element, format!("net{index}"), names, report)?);
    }
    Ok(nics)
}

fn nic(element: &Element, slot: String, names: &pci::Names, report: &mut Report) -> Result<NicSlot> {
    let attribute = |child: &str, name: &str| {
        element.child(child).and_then(|child| child.attribute(name)).filter(|value| !value.is_empty())
    };
    let mac = match attribute("mac", "address") {
        None => {
            report.say(
                &finding::MAC_MISSING,
                format!("{slot} has no hardware address in the definition: the target chooses one."),
                "",
            );
            None
        }
        Some(text) => Some(
            parse_mac(text)
                .ok_or_else(|| Error::corrupt(format!("{slot} has the hardware address {text:?}")))?,
        ),
    };
    let network = match element.attribute("type").unwrap_or_default() {
        "network" => attribute("source", "network"),
        "bridge" => attribute("source", "bridge"),
        // A distributed switch of VMware: the port group is its network.
        "vds" => attribute("source", "portgroupid"),
        "direct" | "vdpa" => attribute("source", "dev"),
        "vhostuser" => attribute("source", "path"),
        "ethernet" => attribute("target", "dev"),
        "hostdev" => {
            report.say(
                &finding::PASSTHROUGH,
                format!(
                    "{slot} is a card of the host; at the target it is a virtual one with the same address."
                ),
                "",
            );
            None
        }
        "user" | "null" => None,
        kind @ ("server" | "client" | "mcast" | "udp") => {
            report.say(
                &finding::NOT_HELD,
                format!("{slot} is a cable between processes of QEMU ({kind}); at the target it is plugged into a network."),
                "Make a network for these machines at the target and map the card into it.",
            );
            None
        }
        other => {
            return Err(Error::unsupported(format!(
                "{slot} is a card of the type {other:?}, which is not known"
            )));
        }
    };
    Ok(NicSlot {
        mac,
        model: attribute("model", "type").map(str::to_owned),
        network: network.map(str::to_owned),
        predictable_name: names.of(element),
        connected: attribute("link", "state") != Some("down"),
        vlan: vlan(element, &slot, report)?,
        ..NicSlot::new(slot)
    })
}

/// The tag, where it is one that every target understands.
fn vlan(element: &Element, slot: &str, report: &mut Report) -> Result<Option<u16>> {
    let Some(vlan) = element.child("vlan") else { return Ok(None) };
    let tags: Vec<&str> = vlan.all("tag").filter_map(|tag| tag.attribute("id")).take(64).collect();
    let [only] = tags[..] else {
        report.say(
            &finding::NOT_HELD,
            format!("{slot} carries several VLANs ({}) to the guest.", tags.join(", ")),
            "Plug it into a trunk at the target.",
        );
        return Ok(None);
    };
    let id = number("a VLAN tag", only, 4095)?;
    let usual = vlan.attribute("trunk").is_none() && (1..=4094).contains(&id);
    if !usual {
        report.say(
            &finding::NOT_HELD,
            format!("{slot} has the VLAN tag {id} in a way that is not carried over."),
            "Choose the VLAN, or a trunk, at the target.",
        );
    }
    Ok(u16::try_from(id).ok().filter(|_| usual))
}
