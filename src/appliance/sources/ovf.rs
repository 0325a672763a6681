//! The OVF environment (DSP0243 version 2.1.1, section 11 "OVF environment"): `ovf-env.xml`.
//!
//! ```text
//! Environment @id
//!   PlatformSection            not heeded
//!   PropertySection
//!     Property @key @value     landfall.ip = 10.0.0.5/24
//!   ve:EthernetAdapterSection  vSphere's own: the cards' hardware addresses
//! ```
//! | property | value |
//! |---|---|
//! | `landfall.hostname` | `dr1.example.org` |
//! | `landfall.ip` | addresses with their prefix, DHCP where it is empty |
//! | `landfall.gateway` | one for IPv4, one for IPv6 |
//! | `landfall.dns`, `landfall.search`, `landfall.ntp` | lists |
//! | `landfall.mtu`, `landfall.vlan` | a number |
//! | `landfall.ssh_key` | public keys, one a line |
//! | `landfall.timezone` | `Europe/Berlin` |
//! | `landfall.keyboard` | not heeded: nothing in the image loads a layout |
//!
//! Lists are separated by commas or blanks. An empty value is as if it were not there, since forms send every field. They are
//! for the first card: the one that vSphere names first, or else the kernel. Behind the name may be an instance of the
//! product (`landfall.ip.1`): of several the first counts. Deliberately absent: environments of other machines
//! (`Entity`), and passwords.

use super::Given;
use super::draft::{Draft, ip, network, noted, text};
use crate::appliance::settings::{Card, Dhcp, Mac, Nic};
use crate::hypervisor::xml::Element;
use landfall_image::{Error, Result};
use std::collections::BTreeMap;

const CLASS: &str = "landfall.";

/// What an environment says.
///
/// # Errors
/// Corrupt or refused where it is none, or too large.
pub fn parse(document: &[u8]) -> Result<Given> {
    // The bound; the reader of XML knows UTF-16, too.
    if document.len() > super::DOCUMENT_AT_MOST {
        text("ovf-env.xml", document)?;
    }
    let root = Element::parse(document)?;
    if root.name != "Environment" {
        let shown: String = root.name.chars().take(40).collect();
        return Err(Error::refused(format!("is no OVF environment: its root is {shown}")));
    }
    let mut draft = Draft::default();
    let mut values: BTreeMap<&str, &str> = BTreeMap::new();
    for property in root.all("PropertySection").flat_map(|section| section.all("Property")) {
        let (Some(key), Some(value)) = (property.attribute("key"), property.attribute("value")) else {
            continue;
        };
        let name = key.strip_prefix(CLASS).map(|name| name.split_once('.').map_or(name, |(name, _)| name));
        match name.filter(|name| KNOWN.contains(name)) {
            Some(name) if !value.trim().is_empty() => {
                values.entry(name).or_insert_with(|| value.trim());
            }
            Some(_) => {}
            None => draft.unread(key),
        }
    }
    let list = |name: &str| -> Vec<&str> {
        let value = values.get(name).copied().unwrap_or("");
        value.split([',', ' ', '\t', '\r', '\n', ';']).filter(|word| !word.is_empty()).collect()
    };
    if let Some(name) = values.get("hostname") {
        draft.settings.hostname = draft.value("landfall.hostname", name);
    }
    if let Some(zone) = values.get("timezone") {
        draft.settings.time_zone = draft.value("landfall.timezone", zone);
    }
    if values.contains_key("keyboard") {
        draft.unread("landfall.keyboard");
    }
    list("dns").iter().for_each(|server| draft.dns("landfall.dns", server));
    list("search").iter().for_each(|domain| draft.search("landfall.search", domain));
    let ntp = draft.values("landfall.ntp", &list("ntp"));
    draft.settings.ntp = Some(ntp).filter(|ntp| !ntp.is_empty());
    for key in values.get("ssh_key").into_iter().flat_map(|keys| keys.lines()) {
        draft.ssh_key("landfall.ssh_key", key);
    }
    card(&mut draft, &root, &values, &list);
    Ok(draft.finish("OVF environment", root.attribute("id"), &[document]))
}

const KNOWN: [&str; 11] =
    ["hostname", "ip", "gateway", "dns", "search", "ntp", "mtu", "vlan", "ssh_key", "timezone", "keyboard"];

fn card<'a>(
    draft: &mut Draft,
    root: &Element,
    values: &BTreeMap<&str, &str>,
    list: &dyn Fn(&str) -> Vec<&'a str>,
) {
    if !["ip", "gateway", "mtu", "vlan"].iter().any(|name| values.contains_key(name)) {
        return;
    }
    let mut nic = Nic::new(first(root));
    for address in list("ip") {
        match network(address, None) {
            Ok(address) => nic.addresses.push(address),
            Err(error) => draft.network_is_wrong("landfall.ip", &error),
        }
    }
    for gateway in list("gateway") {
        match ip(gateway) {
            Ok(gateway) => nic.gateways.push(gateway),
            Err(error) => draft.network_is_wrong("landfall.gateway", &error),
        }
    }
    for (name, place) in [("mtu", &mut nic.mtu), ("vlan", &mut nic.vlan)] {
        let Some(value) = values.get(name) else { continue };
        match value.parse() {
            Ok(number) => *place = Some(number),
            Err(_) => {
                let shown: String = value.chars().take(40).collect();
                let error =
                    Error::refused(format!("{shown:?} is no number")).hint("write digits, or nothing");
                draft.network_is_wrong(&format!("{CLASS}{name}"), &error);
            }
        }
    }
    if nic.addresses.is_empty() {
        nic.dhcp = Dhcp::Yes;
        if !nic.gateways.is_empty() {
            let error = Error::refused("there is no landfall.ip").hint("leave both empty for DHCP");
            draft.note(noted("landfall.gateway is not heeded", &error));
            nic.gateways.clear();
        }
    }
    draft.nic(nic);
}

/// vSphere numbers the cards in its own order.
fn first(root: &Element) -> Card {
    let cards = root.all("EthernetAdapterSection").flat_map(|section| section.all("Adapter"));
    let numbered = cards.filter_map(|card| {
        let number: u32 =
            card.attribute("unitNumber").and_then(|number| number.parse().ok()).unwrap_or(u32::MAX);
        Some((number, card.attribute("mac")?.parse::<Mac>().ok()?))
    });
    numbered.min_by_key(|(number, _)| *number).map_or(Card::First, |(_, mac)| Card::Mac(mac))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appliance::settings::Settings;
    use landfall_image::Kind;
    use proptest::prelude::*;

    /// As vSphere 8 writes it.
    fn vsphere(properties: &[(&str, &str)], cards: &str) -> String {
        let properties: String = properties
            .iter()
            .map(|(key, value)| format!("         <Property oe:key=\"{key}\" oe:value=\"{value}\"/>\n"))
            .collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Environment\n     xmlns=\"http://schemas.dmtf.org/ovf/environment/1\"\n     \
             xmlns:oe=\"http://schemas.dmtf.org/ovf/environment/1\"\n     xmlns:ve=\"http://www.vmware.com/schema/ovfenv\"\n     \
             oe:id=\"\"\n     ve:vCenterId=\"vm-42\">\n   <PlatformSection>\n      <Kind>VMware ESXi</Kind>\n      <Version>8.0.2</Version>\n      \
             <Vendor>VMware, Inc.</Vendor>\n      <Locale>en</Locale>\n   </PlatformSection>\n   <PropertySection>\n{properties}   </PropertySection>\n   \
             <ve:EthernetAdapterSection>\n{cards}   </ve:EthernetAdapterSection>\n</Environment>\n"
        )
    }

    const CARDS: &str = "      <ve:Adapter ve:mac=\"00:50:56:00:00:0c\" ve:network=\"B\" ve:unitNumber=\"8\"/>\n\
                         <ve:Adapter ve:mac=\"00:50:56:00:00:0b\" ve:network=\"A\" ve:unitNumber=\"7\"/>\n";

    #[test]
    fn properties_become_settings() {
        let text = vsphere(
            &[
                ("landfall.hostname", "dr1.example.org"),
                ("landfall.ip", "10.0.0.5/24, 2001:db8::5/64"),
                ("landfall.gateway", "10.0.0.1 2001:db8::1"),
                ("landfall.dns", "10.0.0.53,10.0.0.54"),
                ("landfall.search", "example.org"),
                ("landfall.ntp", "ntp.example.org"),
                ("landfall.mtu", "9000"),
                ("landfall.vlan", ""),
                ("landfall.timezone", "Europe/Berlin"),
                ("landfall.keyboard", "de-latin1"),
                ("landfall.password", "hunter2"),
                ("vami.ip0.other", "x"),
            ],
            CARDS,
        );
        let given = parse(text.as_bytes()).unwrap();
        let wanted = "hostname = \"dr1.example.org\"\ntime_zone = \"Europe/Berlin\"\ndns = [\"10.0.0.53\", \"10.0.0.54\"]\n\
            search = [\"example.org\"]\nntp = [\"ntp.example.org\"]\n[[nic]]\ncard = \"00:50:56:00:00:0b\"\n\
            addresses = [\"10.0.0.5/24\", \"2001:db8::5/64\"]\ngateways = [\"10.0.0.1\", \"2001:db8::1\"]\nmtu = 9000\n";
        assert_eq!(given.settings, Settings::parse(wanted).unwrap());
        assert_eq!(given.notes, Vec::<String>::new());
        assert_eq!(given.unread, ["landfall.keyboard", "landfall.password", "vami.ip0.other"]);
        assert_eq!(given.identity.source, "OVF environment");
        // A secret that somebody gives all the same is not repeated.
        assert!(!format!("{given:?}").contains("hunter2"));
        let other = parse(text.replace("9000", "1500").as_bytes()).unwrap();
        assert_ne!(other.identity, given.identity);
    }

    #[test]
    fn empty_is_dhcp_and_what_is_wrong_is_noted() {
        let empty: Vec<(String, &str)> = KNOWN.iter().map(|name| (format!("{CLASS}{name}"), " ")).collect();
        let empty: Vec<(&str, &str)> = empty.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let given = parse(vsphere(&empty, "").as_bytes()).unwrap();
        assert_eq!((given.settings, given.notes.len(), given.unread.len()), (Settings::default(), 0, 0));
        for (key, value, says) in [
            ("landfall.ip", "10.0.0.5", "landfall.ip: \"10.0.0.5\" has no prefix"),
            ("landfall.ip", "10.0.0.5/24 x", "landfall.ip: \"x\" is no address"),
            ("landfall.ip", "10.0.0.0/24", "10.0.0.0/24 is the network itself"),
            ("landfall.mtu", "big", "landfall.mtu: \"big\" is no number"),
            ("landfall.vlan", "5000", "VLAN 5000 is none"),
            ("landfall.hostname", "a b", "landfall.hostname: \"a b\" is no host name"),
            ("landfall.dns", "x", "landfall.dns: \"x\" is no address"),
            ("landfall.ssh_key", "x", "landfall.ssh_key: \"x\""),
        ] {
            let given = parse(vsphere(&[(key, value)], "").as_bytes()).unwrap();
            assert!(given.notes.iter().any(|note| note.contains(says)), "{key}: {:?}", given.notes);
            assert_eq!(given.settings, Settings::default(), "{key}");
        }
        // A gateway alone does not keep DHCP away; the second instance of a property does not count.
        let given = parse(vsphere(&[("landfall.gateway", "10.0.0.1")], "").as_bytes()).unwrap();
        assert_eq!((given.settings.nics()[0].dhcp, given.notes.len()), (Dhcp::Yes, 1));
        let two = [("landfall.hostname.1", "one"), ("landfall.hostname.2", "two")];
        let given = parse(vsphere(&two, "").as_bytes()).unwrap();
        assert_eq!(given.settings.hostname.unwrap().as_str(), "one");
    }

    #[test]
    fn what_is_no_environment_is_refused() {
        for (text, kind) in [
            ("", Kind::Corrupt),
            ("<Envelope/>", Kind::Refused),
            ("<!DOCTYPE a [<!ENTITY b 'b'>]><Environment/>", Kind::Refused),
            (&"<a>".repeat(1000), Kind::Refused),
            (&format!("<Environment>{}</Environment>", " ".repeat(1 << 20)), Kind::Refused),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().kind(), kind, "{}", &text[..text.len().min(40)]);
        }
        assert_eq!(parse(b"<Environment/>").unwrap().settings, Settings::default());
    }

    proptest! {
        #[test]
        fn no_property_panics(key in "(landfall\\.)?(ip|mtu|dns|gateway|x)(\\.1)?", value in "[0-9a-z:./ ,é-]{0,40}") {
            let _ = parse(vsphere(&[(&key, &value)], CARDS).as_bytes());
        }
    }
}
