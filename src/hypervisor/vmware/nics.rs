//! Network cards of a .vmx, and the rules of VMware's hardware addresses.

use super::keys::Keys;
use crate::finding;
use crate::machine::{NicSlot, parse_mac};
use landfall_boot::check::Finding;
use landfall_image::{Error, Result};

/// Its cards, in the order of their numbers; virtual functions of the host's cards come after them.
pub(super) fn nics(keys: &Keys, findings: &mut Vec<Finding>) -> Result<Vec<NicSlot>> {
    let mut nics = Vec::new();
    for slot in keys.slots("ethernet") {
        if !keys.flag(&format!("{slot}.present"), false) {
            keys.done_with(&format!("{slot}."));
            continue;
        }
        let key = |name: &str| keys.text(&format!("{slot}.{name}"));
        let (address, generated) = (key("address"), key("generatedaddress"));
        let wanted = match key("addresstype") {
            Some(kind) if kind.eq_ignore_ascii_case("static") => address,
            _ => generated.or(address),
        };
        let pci = keys.number(&format!("{slot}.pcislotnumber"), u64::from(u32::MAX)).ok().flatten();
        // Each is asked for: what is not the network's name says how it is reached.
        let networks =
            ["networkname", "dvs.portgroupid", "opaquenetwork.id", "vnet", "connectiontype"].map(key);
        nics.push(NicSlot {
            mac: mac(&slot, wanted, findings)?,
            model: key("virtualdev").map(str::to_owned),
            network: networks.into_iter().flatten().next().map(str::to_owned),
            predictable_name: pci.and_then(linux_name),
            connected: keys.flag(&format!("{slot}.startconnected"), true),
            ..NicSlot::new(slot)
        });
    }
    passed_through(keys, &mut nics, findings)?;
    Ok(nics)
}

fn mac(slot: &str, wanted: Option<&str>, findings: &mut Vec<Finding>) -> Result<Option<String>> {
    let Some(text) = wanted else {
        findings.push(finding::MAC_MISSING.finding(
            format!(
                "{slot} has no hardware address yet (the machine was never started): the target chooses one."
            ),
            "",
        ));
        return Ok(None);
    };
    let broken = || Error::corrupt(format!("{slot} has the hardware address {text:?}"));
    parse_mac(text).map(Some).ok_or_else(broken)
}

/// Devices of the host. A virtual function of one of its network cards has a network and an address, and so becomes an
/// ordinary card.
fn passed_through(keys: &Keys, nics: &mut Vec<NicSlot>, findings: &mut Vec<Finding>) -> Result<()> {
    let mut others = Vec::new();
    for slot in keys.slots("pcipassthru") {
        if !keys.flag(&format!("{slot}.present"), false) {
            keys.done_with(&format!("{slot}."));
            continue;
        }
        let key = |name: &str| keys.text(&format!("{slot}.{name}"));
        let named = |what: &str, name: Option<&str>| match name {
            Some(name) => format!("{slot} ({what} {name})"),
            None => format!("{slot} ({what})"),
        };
        match (key("pfid"), key("vgpu").or(key("virtualdev").filter(|dev| dev.contains("vgpu")))) {
            (Some(_), _) => {
                let nic = NicSlot {
                    mac: mac(&slot, key("macaddress").or(key("generatedmacaddress")), findings)?,
                    network: key("networkname").or(key("dvs.portgroupid")).map(str::to_owned),
                    ..NicSlot::new(slot.clone())
                };
                findings.push(finding::PASSTHROUGH.finding(
                    format!("{slot} is a virtual function of a network card of the host (SR-IOV); at the target it is an ordinary network card."),
                    "Give the machine a virtual function there if the guest needs its speed.",
                ));
                nics.push(nic);
            }
            (None, Some(gpu)) => others.push(named("virtual graphics card", Some(gpu))),
            (None, None) => others.push(named("PCI device", key("id"))),
        }
        keys.done_with(&format!("{slot}."));
    }
    // libvirt's own tests have the star in the place of a number.
    if keys.flag("pcipassthru*.present", false) {
        others.push("PCI devices".into());
    }
    if !others.is_empty() {
        findings.push(finding::PASSTHROUGH.finding(
            format!("Devices of the host cannot be carried over: {}.", others.join(", ")),
            "Give the machine such devices at the target, or remove their drivers from the guest.",
        ));
    }
    Ok(())
}

/// The name that Linux gives a card with that slot number: `ens192`. Ten bits of VMware's number are that of a bridge (or a
/// device on the first bus), the bits above them its function; each function of a bridge has a slot of its own: 1184 is
/// function 1 of 160, slot 161.
pub(in crate::hypervisor) fn linux_name(number: u64) -> Option<String> {
    (number > 0).then(|| format!("ens{}", (number & 0x3ff).saturating_add(number >> 10)))
}

/// True for a hardware address that VMware takes as a static one without being told to: 00:50:56:00 to 00:50:56:3f.
pub(in crate::hypervisor) fn is_static(mac: &str) -> bool {
    let fourth = mac.strip_prefix("00:50:56:").and_then(|rest| u8::from_str_radix(rest.get(..2)?, 16).ok());
    fourth.is_some_and(|octet| octet <= 0x3f)
}
