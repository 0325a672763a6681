//! ConfigDrive (OpenStack Nova's documentation, "Metadata", and its `network_data.json` schema): a file system called `config-2`.
//!
//! | document in `openstack/latest` | taken |
//! |---|---|
//! | `meta_data.json` | `uuid`, `hostname`, `public_keys` |
//! | `network_data.json` | `links` (cards, `vlan`, `bond`), `networks` (IPv4, IPv6, DHCP), `services` of the type `dns` |
//! | `user_data` | see [`user_data`](super::user_data) |
//!
//! Deliberately absent: `vendor_data.json`, `admin_pass` (there are no passwords), files to be written, and devices' tags.

use super::Given;
use super::draft::{Draft, ip, is_default, network as address, text};
use crate::appliance::settings::{Bond, BondMode, Card, Dhcp, Nic};
use landfall_image::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// The documents, as far as they are there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Documents<'a> {
    /// `meta_data.json`
    pub meta: &'a [u8],
    /// `network_data.json`
    pub network: &'a [u8],
    /// `user_data`
    pub user: &'a [u8],
}

/// What the documents say.
///
/// # Errors
/// Refused or corrupt where `meta_data.json` is no JSON, or too large: it says whose documents they are.
pub fn parse(documents: Documents<'_>) -> Result<Given> {
    let mut draft = Draft::default();
    let meta = json("meta_data.json", documents.meta)?;
    let of = |key: &str| meta.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(name) = of("hostname") {
        // Nova puts its own domain behind names.
        draft.settings.hostname =
            draft.value("meta_data.json: hostname", name.trim_end_matches(".novalocal"));
    }
    for key in meta.get("public_keys").and_then(Value::as_object).into_iter().flatten() {
        key.1
            .as_str()
            .into_iter()
            .flat_map(str::lines)
            .for_each(|line| draft.ssh_key("meta_data.json: public_keys", line));
    }
    const KNOWN: [&str; 11] = [
        "uuid",
        "hostname",
        "name",
        "public_keys",
        "keys",
        "availability_zone",
        "launch_index",
        "project_id",
        "random_seed",
        "dedicated_cpus",
        "network_config",
    ];
    for (key, value) in meta.as_object().into_iter().flatten() {
        let is_empty = value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(|all| all.is_empty());
        if !KNOWN.contains(&key.as_str()) && !is_empty {
            draft.unread(key);
        }
    }
    super::user_data::read(&mut draft, documents.user);
    if !documents.network.is_empty() {
        let read = json("network_data.json", documents.network).and_then(|root| network(&mut draft, &root));
        if let Err(error) = read {
            draft.network_is_wrong("the network is not set as given", &error);
        }
    }
    Ok(draft.finish("ConfigDrive", of("uuid"), &[documents.meta, documents.network, documents.user]))
}

/// Depth is bounded by the reader: 128.
fn json(name: &str, bytes: &[u8]) -> Result<Value> {
    let value: Value = serde_json::from_str(text(name, bytes)?)
        .map_err(|error| Error::corrupt(format!("{name} is no JSON: {error}")))?;
    value.is_object().then_some(value).ok_or_else(|| Error::corrupt(format!("{name} is no object")))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn word<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A number, or digits: producers do not agree.
fn number(value: &Value, key: &str) -> Result<Option<u16>> {
    let found = match value.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.parse().ok(),
        Some(other) => other.as_u64().and_then(|number| u16::try_from(number).ok()),
    };
    found.map(Some).ok_or_else(|| Error::refused(format!("{key} is no number that fits")))
}

fn network(draft: &mut Draft, root: &Value) -> Result<()> {
    let links: BTreeMap<&str, &Value> =
        list(root, "links").iter().filter_map(|link| Some((word(link, "id")?, link))).collect();
    // In the order in which they are written.
    let mut nics: Vec<(&str, Nic)> = Vec::new();
    for one in list(root, "networks") {
        let id = word(one, "link").unwrap_or_default();
        if !nics.iter().any(|(known, _)| *known == id) {
            let link = links.get(id).ok_or_else(|| {
                let shown: String = id.chars().take(40).collect();
                Error::corrupt(format!("network_data.json: there is no link {shown:?}"))
            })?;
            nics.push((id, on(&links, link)?));
        }
        if let Some((_, nic)) = nics.iter_mut().find(|(known, _)| *known == id) {
            subnet(draft, one, nic)?;
        }
    }
    for service in list(root, "services").iter().filter(|service| word(service, "type") == Some("dns")) {
        word(service, "address")
            .into_iter()
            .for_each(|server| draft.dns("network_data.json: services", server));
    }
    nics.into_iter().for_each(|(_, nic)| draft.nic(nic));
    Ok(())
}

/// The link as a card, a bond or a VLAN with nothing set on it.
fn on(links: &BTreeMap<&str, &Value>, link: &Value) -> Result<Nic> {
    let mtu = number(link, "mtu")?;
    let mut nic = match word(link, "type") {
        Some("vlan") => {
            let below = word(link, "vlan_link")
                .and_then(|id| links.get(id))
                .filter(|below| word(below, "type") != Some("vlan"));
            let below = below
                .ok_or_else(|| Error::corrupt("network_data.json: a VLAN on a link that is not there"))?;
            let mut nic = on(links, below)?;
            nic.vlan = number(link, "vlan_id")?;
            nic
        }
        Some("bond") => {
            let mode = match word(link, "bond_mode").unwrap_or("active-backup") {
                "active-backup" | "1" => BondMode::ActiveBackup,
                "802.3ad" | "4" => BondMode::Lacp,
                other => {
                    let shown: String = other.chars().take(40).collect();
                    return Err(Error::unsupported(format!("bonds of the mode {shown:?}"))
                        .hint("use active-backup, or 802.3ad"));
                }
            };
            let members = list(link, "bond_links").iter().filter_map(|id| links.get(id.as_str()?));
            let mut cards = members.map(|member| card(member)).collect::<Result<Vec<Card>>>()?;
            if cards.is_empty() {
                return Err(Error::corrupt("network_data.json: a bond without cards"));
            }
            let mut nic = Nic::new(cards.remove(0));
            nic.bond = (!cards.is_empty()).then_some(Bond { mode, with: cards });
            nic
        }
        // phy, ovs, bridge, tap, vif, hw_veb: what is behind the card at the host.
        _ => Nic::new(card(link)?),
    };
    nic.mtu = mtu;
    Ok(nic)
}

fn card(link: &Value) -> Result<Card> {
    match word(link, "ethernet_mac_address") {
        Some(mac) => mac.parse().map(Card::Mac),
        None => Err(Error::corrupt("network_data.json: a card without ethernet_mac_address")),
    }
}

fn subnet(draft: &mut Draft, one: &Value, nic: &mut Nic) -> Result<()> {
    let (had4, had6) =
        (matches!(nic.dhcp, Dhcp::Ipv4 | Dhcp::Yes), matches!(nic.dhcp, Dhcp::Ipv6 | Dhcp::Yes));
    match word(one, "type").unwrap_or_default() {
        "ipv4_dhcp" => nic.dhcp = Dhcp::of(true, had6),
        "ipv6_dhcp" | "ipv6_dhcpv6-stateful" => nic.dhcp = Dhcp::of(had4, true),
        "ipv6_slaac" | "ipv6_dhcpv6-stateless" => nic.advertisements = Some(true),
        "ipv4" | "ipv6" => {
            let mask = word(one, "netmask");
            nic.addresses.push(address(word(one, "ip_address").unwrap_or_default(), mask)?);
        }
        other => {
            draft.unread(&format!("network_data.json: networks of the type {other}"));
            return Ok(());
        }
    }
    let mut gateway = |text: &str| -> Result<()> {
        let gateway = ip(text)?;
        if !nic.gateways.contains(&gateway) {
            nic.gateways.push(gateway);
        }
        Ok(())
    };
    word(one, "gateway").map_or(Ok(()), &mut gateway)?;
    for route in list(one, "routes") {
        let to = word(route, "network").unwrap_or_default();
        match word(route, "gateway").filter(|_| is_default(to, word(route, "netmask"))) {
            Some(via) => gateway(via)?,
            None => draft.unread(&format!("network_data.json: routes ({to})")),
        }
    }
    for service in list(one, "services").iter().filter(|service| word(service, "type") == Some("dns")) {
        word(service, "address")
            .into_iter()
            .for_each(|server| draft.dns("network_data.json: services", server));
    }
    for server in list(one, "dns_nameservers").iter().filter_map(Value::as_str) {
        draft.dns("network_data.json: dns_nameservers", server);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appliance::settings::Settings;
    use proptest::prelude::*;

    fn parsed(meta: &str, network: &str) -> Given {
        parse(Documents { meta: meta.as_bytes(), network: network.as_bytes(), user: b"" }).unwrap()
    }

    const META: &str = r#"{"uuid":"83679162-1378-4288-a2d4-70e13ec132aa","hostname":"dr1.novalocal","name":"dr1","launch_index":0,
        "public_keys":{"me":"not a key\n"},"admin_pass":"hunter2","meta":{"role":"x"},"devices":[],"random_seed":"AA=="}"#;

    /// After the examples of Nova's documentation.
    const NETWORK: &str = r#"{
      "links": [
        {"id":"interface0","type":"phy","ethernet_mac_address":"a0:36:9f:2c:e8:80","mtu":9000},
        {"id":"interface1","type":"phy","ethernet_mac_address":"a0:36:9f:2c:e8:81"},
        {"id":"tap0","type":"ovs","ethernet_mac_address":"fa:16:3e:00:00:01","vif_id":"x","mtu":null},
        {"id":"vlan0","type":"vlan","vlan_link":"bond0","vlan_id":"101","vlan_mac_address":"a0:36:9f:2c:e8:80"},
        {"id":"bond0","type":"bond","bond_links":["interface0","interface1"],"bond_mode":"802.3ad"}],
      "networks": [
        {"id":"net0","link":"tap0","type":"ipv4_dhcp","network_id":"n"},
        {"id":"net1","link":"vlan0","type":"ipv4","ip_address":"10.184.0.244","netmask":"255.255.240.0",
         "routes":[{"network":"10.0.0.0","netmask":"255.0.0.0","gateway":"11.0.0.1"},{"network":"0.0.0.0","netmask":"0.0.0.0","gateway":"10.184.0.1"}]},
        {"id":"net2","link":"vlan0","type":"ipv6","ip_address":"2001:cdba::3257:9652/24","gateway":"fd00::1",
         "routes":[{"network":"::","netmask":"::","gateway":"fd00::1"}]}],
      "services": [{"type":"dns","address":"8.8.8.8"},{"type":"dns","address":"8.8.8.8"},{"type":"x","address":"y"}]}"#;

    #[test]
    fn documents_become_settings() {
        let given = parsed(META, NETWORK);
        // fd00::1 is not in 2001:cd00::/24: as it is written, it cannot be.
        assert!(
            given.notes.iter().any(|note| note.contains("the gateway fd00::1 is not in 2001:cd00::/24")),
            "{:?}",
            given.notes
        );
        let given = parsed(META, &NETWORK.replace("fd00::1", "fe80::1"));
        let wanted = "hostname = \"dr1\"\ndns = [\"8.8.8.8\"]\n[[nic]]\ncard = \"fa:16:3e:00:00:01\"\ndhcp = \"ipv4\"\n\
            [[nic]]\ncard = \"a0:36:9f:2c:e8:80\"\nvlan = 101\naddresses = [\"10.184.0.244/20\", \"2001:cdba::3257:9652/24\"]\n\
            gateways = [\"10.184.0.1\", \"fe80::1\"]\nbond = { mode = \"802.3ad\", with = [\"a0:36:9f:2c:e8:81\"] }\n";
        assert_eq!(given.settings, Settings::parse(wanted).unwrap());
        assert_eq!(given.unread, ["admin_pass", "meta", "network_data.json: routes (10.0.0.0)"]);
        assert!(given.notes.len() == 1 && given.notes[0].contains("public_keys"), "{:?}", given.notes);
        assert_eq!(given.identity.instance.as_deref(), Some("83679162-1378-4288-a2d4-70e13ec132aa"));
        assert!(!format!("{given:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_broken_is_told_and_leaves_dhcp() {
        for (network, says) in [
            ("{", "is no JSON"),
            ("[]", "is no object"),
            (r#"{"networks":[{"link":"x","type":"ipv4_dhcp"}]}"#, "there is no link \"x\""),
            (
                r#"{"links":[{"id":"x","type":"phy"}],"networks":[{"link":"x","type":"ipv4_dhcp"}]}"#,
                "without ethernet_mac_address",
            ),
            (
                r#"{"links":[{"id":"x","type":"vlan","vlan_link":"x"}],"networks":[{"link":"x","type":"ipv4"}]}"#,
                "not there",
            ),
            (
                r#"{"links":[{"id":"x","type":"bond"}],"networks":[{"link":"x","type":"ipv4"}]}"#,
                "without cards",
            ),
            (
                r#"{"links":[{"id":"x","type":"bond","bond_mode":"balance-rr"}],"networks":[{"link":"x"}]}"#,
                "balance-rr",
            ),
            (
                r#"{"links":[{"id":"x","ethernet_mac_address":"00:50:56:00:00:0b","mtu":70000}],"networks":[{"link":"x"}]}"#,
                "mtu",
            ),
            (
                r#"{"links":[{"id":"x","ethernet_mac_address":"00:50:56:00:00:0b"}],"networks":[{"link":"x","type":"ipv4","ip_address":"10.0.0.5"}]}"#,
                "has no prefix",
            ),
        ] {
            let given = parsed("{}", network);
            assert!(given.notes.iter().any(|note| note.contains(says)), "{network}: {:?}", given.notes);
            assert_eq!(given.settings, Settings::default(), "{network}");
        }
        assert!(parse(Documents { meta: b"no", ..Documents::default() }).is_err());
        let deep = "[".repeat(100_000);
        assert!(parse(Documents { meta: deep.as_bytes(), ..Documents::default() }).is_err());
        assert!(parse(Documents { meta: &vec![b' '; (1 << 20) + 1], ..Documents::default() }).is_err());
    }

    proptest! {
        #[test]
        fn no_document_panics(network in "\\{\"(links|networks)\":\\[\\{(\"(id|link|type|mtu)\":(\"x\"|1|null|\\[\\]),?){0,4}\\}?\\]?\\}?") {
            let _ = parse(Documents { meta: b"{}", network: network.as_bytes(), user: network.as_bytes() });
        }
    }
}
