//! The network cards of a configuration.
//!
//! A card's switch stands there by an id (`SwitchName`) and by the name that people gave it (`AltSwitchName`). What its port
//! does lies in features, each with an id and settings in binary: the fields of Hyper-V's WMI class in their order, without
//! a header. That of virtual networks (VLAN) is `mode:u32 access:u16 native:u16 …` (NDIS_SWITCH_PORT_PROPERTY_VLAN).

use super::devices::{Class, Device};
use super::tree::Node;
use crate::finding;
use crate::machine::{NicSlot, parse_mac};
use landfall_boot::check::Finding;
use landfall_image::{Error, Result};

/// Virtual networks.
const VLAN: &str = "Feature_952C5004-4465-451C-8CB8-FA9AB382B773";
/// Weights of offloads, which every card has.
const OFFLOAD: &str = "Feature_C885BFD1-ABB7-418F-8163-9F379C9F7166";
/// Other features whose ids are known.
const FEATURES: &[(&str, &str)] = &[
    ("Feature_24AD3CE1-69BD-4978-B2AC-DAAD389D699C", "limits of bandwidth"),
    (
        "Feature_776E0BA7-94A1-41C8-8F28-951F524251B5",
        "rules of security (MAC spoofing, DHCP guard, router guard)",
    ),
];

/// The cards, in the order of the manifest.
///
/// # Errors
/// Corrupt where an address is none.
pub fn read(devices: &[Device<'_>], findings: &mut Vec<Finding>) -> Result<Vec<NicSlot>> {
    let mut nics: Vec<NicSlot> = Vec::new();
    for device in devices {
        let Some(keys) = device.keys.filter(|_| matches!(device.class, Class::Nic | Class::LegacyNic)) else {
            continue;
        };
        let name = keys.text("FriendlyName").unwrap_or("Network Adapter");
        let same = nics.iter().filter(|nic| nic.slot.split(" #").next() == Some(name)).count();
        let slot = if same == 0 { name.to_owned() } else { format!("{name} #{}", same + 1) };
        let mac = match keys.text("MacAddress").filter(|mac| !mac.bytes().all(|b| b == b'0' || b == b'-')) {
            None => None,
            Some(text) => Some(
                parse_mac(text)
                    .ok_or_else(|| Error::corrupt(format!("{slot} has the hardware address {text:?}")))?,
            ),
        };
        if mac.is_none() {
            findings.push(finding::MAC_MISSING.finding(
                format!("{slot} has no hardware address yet (the machine was never started): the target chooses one."),
                "",
            ));
        }
        let connection = keys.child("Connection");
        let switch = connection.and_then(|connection| connection.text("AltSwitchName"));
        let model = if device.class == Class::Nic { "netvsc" } else { "tulip" };
        nics.push(NicSlot {
            mac,
            model: Some(model.to_owned()),
            network: switch.or(keys.text("SwitchName")).map(str::to_owned),
            connected: keys.flag("IsConnected"),
            vlan: connection.and_then(|connection| vlan(connection, &slot, findings)),
            ..NicSlot::new(slot)
        });
    }
    Ok(nics)
}

fn vlan(connection: &Node, slot: &str, findings: &mut Vec<Finding>) -> Option<u16> {
    let mut found = None;
    for feature in connection.children.iter().filter(|node| node.name.starts_with("Feature_")) {
        if feature.name.eq_ignore_ascii_case(OFFLOAD) {
            continue;
        }
        let settings = feature.children.iter().filter(|node| node.name.starts_with("Setting_"));
        if !feature.name.eq_ignore_ascii_case(VLAN) {
            let known = FEATURES.iter().find(|(id, _)| feature.name.eq_ignore_ascii_case(id));
            let what = known.map_or(feature.name.as_str(), |(_, what)| what);
            findings.push(finding::NOT_HELD.finding(
                format!("{slot} has settings of its switch port that are not carried over: {what}."),
                "Look at the card at the source (Get-VMNetworkAdapter | Format-List *), and set at the target what the guest needs.",
            ));
            continue;
        }
        for data in settings.filter_map(|setting| setting.bytes("Data")) {
            match access(data) {
                Some(0) => {}
                Some(id) => found = Some(id),
                None => findings.push(finding::NOT_HELD.finding(
                    format!("{slot} is in several virtual networks, or in one that is not known here (trunk or private VLAN)."),
                    "Look it up with Get-VMNetworkAdapterVlan at the source, and set it at the target.",
                )),
            }
        }
    }
    found
}

/// The one virtual network of a port; 0 for none, `None` for a trunk, a private network, or what is not understood.
fn access(data: &[u8]) -> Option<u16> {
    let mode = u32::from_le_bytes(*data.first_chunk()?);
    let id = u16::from_le_bytes(*data.get(4..)?.first_chunk()?);
    match (mode, id) {
        (0, 0) | (1, 0) => Some(0),
        (1, 1..=4094) => Some(id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_virtual_network_is_read() {
        assert_eq!(access(&[1, 0, 0, 0, 0x2a, 0, 0, 0]), Some(42));
        assert_eq!(access(&[0; 12]), Some(0));
        for other in [&[2, 0, 0, 0, 0, 0, 1, 0][..], &[1, 0, 0, 0, 0xff, 0xff], &[1, 0], &[]] {
            assert_eq!(access(other), None, "{other:?}");
        }
    }
}
