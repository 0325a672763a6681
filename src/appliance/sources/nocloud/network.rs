//! `network-config` of cloud-init, versions 1 and 2 (its documentation, "Networking config Version 1" and "Version 2").
//!
//! Both are read into the same [`Device`]s: cards, bonds (`active-backup` and `802.3ad`) and VLANs on either. Cards are found by
//! hardware address, else by name. Not heeded, and named: bridges, Wi-Fi, tunnels, routes other than the default ones,
//! other modes of bonds, and new names for cards (`set-name` is passed over: nothing here goes by the name). What has another
//! shape than it should is an error, as with netplan: passed over it would leave a card to DHCP that was given an address.

use super::super::draft::{Draft, ip, is_default, network as address};
use crate::appliance::settings::{Bond, BondMode, Card, Dhcp, Nic};
use landfall_boot::linux::yaml::Value;
use landfall_image::{Error, Result};
use std::collections::BTreeMap;

/// What a device stands on.
enum Base {
    Card(Card),
    Bond(BondMode, Vec<String>),
    Vlan(u16, String),
}

/// Of either version.
struct Device {
    base: Base,
    /// What is set on it; its card comes later.
    nic: Nic,
}

type Devices = BTreeMap<String, Device>;

/// Reads the document into `draft`.
pub(super) fn read(draft: &mut Draft, root: &Value) {
    let root = root.get("network").unwrap_or(root);
    // A way to say that there is none.
    if root.get("config").and_then(Value::text) == Some("disabled") {
        return;
    }
    let mut devices = Devices::new();
    let read = match root.get("version").and_then(Value::text) {
        Some("1") => first(draft, root, &mut devices),
        Some("2") => second(draft, root, &mut devices),
        other => {
            let shown: String = other.unwrap_or("none").chars().take(40).collect();
            Err(Error::refused(format!("network-config of version {shown:?}"))
                .hint("versions 1 and 2 are read"))
        }
    };
    if let Err(error) = read {
        return draft.network_is_wrong("the network is not set as given", &error);
    }
    for (id, device) in &devices {
        match place(&devices, id, device) {
            Ok(Some(nic)) => draft.nic(nic),
            Ok(None) => {}
            Err(error) => draft.network_is_wrong(&format!("network-config: {id}"), &error),
        }
    }
}

/// The device with the card that it stands on; `None` where nothing is set on it.
fn place(devices: &Devices, id: &str, device: &Device) -> Result<Option<Nic>> {
    let mut nic = device.nic.clone();
    let below = match &device.base {
        Base::Vlan(vlan, link) => {
            nic.vlan = Some(*vlan);
            match devices.get(link).map(|device| &device.base) {
                Some(Base::Vlan(..)) => {
                    return Err(Error::unsupported("a VLAN on a VLAN").hint("set it on a card"));
                }
                _ => link.as_str(),
            }
        }
        _ => id,
    };
    let is_set = nic.dhcp != Dhcp::No || !nic.addresses.is_empty() || nic.advertisements == Some(true);
    if !is_set {
        return Ok(None);
    }
    let card = |id: &str| match devices.get(id) {
        Some(Device { base: Base::Card(card), .. }) => Ok(card.clone()),
        Some(_) => Err(Error::unsupported(format!("{id} is no card"))),
        None => id.parse(),
    };
    match devices.get(below).map(|device| &device.base) {
        Some(Base::Bond(mode, members)) => {
            let mut cards = members.iter().map(|member| card(member)).collect::<Result<Vec<_>>>()?;
            if cards.is_empty() {
                return Err(Error::refused("a bond without cards").hint("name its cards"));
            }
            nic.card = cards.remove(0);
            // A bond of one card is that card.
            nic.bond = (!cards.is_empty()).then_some(Bond { mode: *mode, with: cards });
        }
        _ => nic.card = card(below)?,
    }
    Ok(Some(nic))
}

fn mode(name: Option<&str>) -> Result<BondMode> {
    match name.unwrap_or("active-backup") {
        "active-backup" | "1" => Ok(BondMode::ActiveBackup),
        "802.3ad" | "4" => Ok(BondMode::Lacp),
        other => {
            let shown: String = other.chars().take(40).collect();
            Err(Error::unsupported(format!("bonds of the mode {shown:?}"))
                .hint("use active-backup, or 802.3ad"))
        }
    }
}

fn is_yes(value: Option<&Value>) -> bool {
    value
        .and_then(Value::text)
        .is_some_and(|text| ["true", "yes", "on", "y", "1"].contains(&text.to_ascii_lowercase().as_str()))
}

fn number<T: std::str::FromStr>(value: Option<&Value>, what: &str) -> Result<Option<T>> {
    let Some(text) = value.and_then(Value::text) else { return Ok(None) };
    let shown: String = text.chars().take(40).collect();
    text.trim().parse().map(Some).map_err(|_| Error::refused(format!("{what} {shown:?} is none")))
}

fn texts(value: Option<&Value>) -> Vec<&str> {
    let Some(value) = value else { return Vec::new() };
    let words = value.text().into_iter().flat_map(|text| text.split([' ', ',']));
    value.items().iter().filter_map(Value::text).chain(words).filter(|text| !text.is_empty()).collect()
}

/// `routes:` with nothing behind it.
fn is_null(value: &Value) -> bool {
    value.text().is_some_and(|text| ["", "~", "null"].contains(&text))
}

/// The items of a list; `within` is what has it.
fn list<'a>(within: &str, value: &'a Value, key: &str) -> Result<&'a [Value]> {
    match value.get(key) {
        Some(Value::List(items, _)) => Ok(items),
        Some(other) if !is_null(other) => {
            let hint = format!("write it as a list: {key}: [...]");
            Err(Error::refused(format!("{within}{key} is no list")).hint(hint))
        }
        _ => Ok(&[]),
    }
}

fn map(name: &str, value: &Value) -> Result<()> {
    if matches!(value, Value::Map(..)) || is_null(value) {
        return Ok(());
    }
    Err(Error::refused(format!("{name} is no map")).hint("write it as keys with their values"))
}

/// Version 2: netplan's.
fn second(draft: &mut Draft, root: &Value, devices: &mut Devices) -> Result<()> {
    for kind in root.entries() {
        for entry in kind.value.entries() {
            let (id, value) = (&entry.key, &entry.value);
            let base = match kind.key.as_str() {
                "ethernets" => Base::Card(matched(draft, id, value)?),
                "bonds" => {
                    let parameters = value.get("parameters");
                    let name = parameters.and_then(|all| all.get("mode")).and_then(Value::text);
                    let members =
                        texts(value.get("interfaces")).iter().map(|&text| text.to_owned()).collect();
                    Base::Bond(mode(name)?, members)
                }
                "vlans" => {
                    let link = value.get("link").and_then(Value::text).unwrap_or_default().to_owned();
                    let vlan = number(value.get("id"), "the VLAN")?.ok_or_else(|| {
                        Error::refused(format!("{id} has no id")).hint("give the VLAN's number")
                    })?;
                    Base::Vlan(vlan, link)
                }
                other => {
                    draft.unread(&format!("network-config: {other}.{id}"));
                    continue;
                }
            };
            map(id, value)?;
            let nic = settings(draft, id, value)?;
            devices.insert(id.clone(), Device { base, nic });
        }
        if kind.value.entries().is_empty() && !["version", "renderer"].contains(&kind.key.as_str()) {
            draft.unread(&format!("network-config: {}", kind.key));
        }
    }
    Ok(())
}

/// Without `match` the id is the name.
fn matched(draft: &mut Draft, id: &str, value: &Value) -> Result<Card> {
    let Some(found) = value.get("match") else { return id.parse() };
    if let Some(mac) = found.get("macaddress").and_then(Value::text) {
        return mac.parse().map(Card::Mac);
    }
    match found.get("name").and_then(Value::text) {
        // `en*`: whatever card there is.
        Some(name) if name.contains(['*', '?', '[']) => {
            draft.note(format!("network-config: {id} is for cards called {name:?}: the first card is taken"));
            Ok(Card::First)
        }
        Some(name) => name.parse(),
        None => {
            draft.note(format!(
                "network-config: {id} has neither an address nor a name: the first card is taken"
            ));
            Ok(Card::First)
        }
    }
}

fn settings(draft: &mut Draft, id: &str, value: &Value) -> Result<Nic> {
    let mut nic = Nic::new(Card::First);
    nic.dhcp = Dhcp::of(is_yes(value.get("dhcp4")), is_yes(value.get("dhcp6")));
    nic.advertisements = value.get("accept-ra").map(|value| is_yes(Some(value)));
    nic.mtu = number(value.get("mtu"), "the MTU")?;
    let within = format!("{id}.");
    for one in list(&within, value, "addresses")? {
        // An address may have settings of its own behind it.
        let text = one.text().or_else(|| one.entries().first().map(|entry| entry.key.as_str())).unwrap_or("");
        nic.addresses.push(address(text, None)?);
    }
    for gateway in ["gateway4", "gateway6"].iter().filter_map(|key| value.get(key)?.text()) {
        nic.gateways.push(ip(gateway)?);
    }
    for route in list(&within, value, "routes")? {
        let to = route.get("to").and_then(Value::text).unwrap_or("");
        match route.get("via").and_then(Value::text).filter(|_| is_default(to, None)) {
            Some(via) => {
                nic.gateways.push(ip(via)?);
                nic.on_link |= is_yes(route.get("on-link"));
            }
            None => draft.unread(&format!("network-config: {id}.routes ({to})")),
        }
    }
    nic.gateways.dedup();
    if let Some(names) = value.get("nameservers") {
        map(&format!("{id}.nameservers"), names)?;
        for server in list(&format!("{id}.nameservers."), names, "addresses")? {
            draft.dns("network-config: nameservers", server.text().unwrap_or_default());
        }
        texts(names.get("search")).iter().for_each(|domain| draft.search("network-config: search", domain));
    }
    const READ: [&str; 20] = [
        "match",
        "set-name",
        "dhcp4",
        "dhcp6",
        "accept-ra",
        "mtu",
        "addresses",
        "gateway4",
        "gateway6",
        "routes",
        "nameservers",
        "id",
        "link",
        "interfaces",
        "parameters",
        "optional",
        "wakeonlan",
        "renderer",
        "dhcp-identifier",
        "critical",
    ];
    for entry in value.entries().iter().filter(|entry| !READ.contains(&entry.key.as_str())) {
        draft.unread(&format!("network-config: {id}.{}", entry.key));
    }
    Ok(nic)
}

/// Version 1: a list of devices with their subnets.
fn first(draft: &mut Draft, root: &Value, devices: &mut Devices) -> Result<()> {
    for one in list("", root, "config")? {
        let of = |key: &str| one.get(key).and_then(Value::text).filter(|text| !text.is_empty());
        let name = of("name").unwrap_or_default();
        let base = match of("type").unwrap_or_default() {
            "physical" => Base::Card(match of("mac_address") {
                Some(mac) => Card::Mac(mac.parse()?),
                None => name.parse()?,
            }),
            "bond" => {
                let parameters = one.get("params");
                let word = ["bond-mode", "mode"].iter().find_map(|key| parameters?.get(key)?.text());
                let members = texts(one.get("bond_interfaces")).iter().map(|&text| text.to_owned()).collect();
                Base::Bond(mode(word)?, members)
            }
            "vlan" => {
                let vlan = number(one.get("vlan_id"), "the VLAN")?.ok_or_else(|| {
                    Error::refused(format!("{name} has no vlan_id")).hint("give the VLAN's number")
                })?;
                Base::Vlan(vlan, of("vlan_link").unwrap_or_default().to_owned())
            }
            "nameserver" => {
                texts(one.get("address"))
                    .iter()
                    .for_each(|server| draft.dns("network-config: nameserver", server));
                texts(one.get("search"))
                    .iter()
                    .for_each(|domain| draft.search("network-config: search", domain));
                continue;
            }
            other => {
                draft.unread(&format!("network-config: {other} {name}"));
                continue;
            }
        };
        let mut nic = Nic::new(Card::First);
        nic.mtu = number(one.get("mtu"), "the MTU")?;
        nic.advertisements = one.get("accept-ra").map(|value| is_yes(Some(value)));
        for subnet in list(&format!("{name}."), one, "subnets")? {
            self::subnet(draft, name, subnet, &mut nic)?;
        }
        devices.insert(name.to_owned(), Device { base, nic });
    }
    Ok(())
}

fn subnet(draft: &mut Draft, name: &str, subnet: &Value, nic: &mut Nic) -> Result<()> {
    let of = |key: &str| subnet.get(key).and_then(Value::text).filter(|text| !text.is_empty());
    let (had4, had6) =
        (matches!(nic.dhcp, Dhcp::Ipv4 | Dhcp::Yes), matches!(nic.dhcp, Dhcp::Ipv6 | Dhcp::Yes));
    match of("type").unwrap_or_default() {
        "dhcp" | "dhcp4" => nic.dhcp = Dhcp::of(true, had6),
        "dhcp6" | "ipv6_dhcpv6-stateful" => nic.dhcp = Dhcp::of(had4, true),
        "ipv6_dhcpv6-stateless" | "ipv6_slaac" => nic.advertisements = Some(true),
        "static" | "static6" => {
            nic.addresses.push(address(of("address").unwrap_or_default(), of("netmask"))?)
        }
        "manual" => {}
        other => draft.unread(&format!("network-config: {name}.subnets ({other})")),
    }
    if let Some(gateway) = of("gateway") {
        nic.gateways.push(ip(gateway)?);
    }
    for route in list(&format!("{name}.subnets."), subnet, "routes")? {
        let part = |key: &str| route.get(key).and_then(Value::text);
        let to = part("network").or_else(|| part("destination")).unwrap_or("");
        match part("gateway").filter(|_| is_default(to, part("netmask").or_else(|| part("prefix")))) {
            Some(gateway) => nic.gateways.push(ip(gateway)?),
            None => draft.unread(&format!("network-config: {name}.routes ({to})")),
        }
    }
    nic.gateways.dedup();
    texts(subnet.get("dns_nameservers"))
        .iter()
        .for_each(|server| draft.dns("network-config: dns_nameservers", server));
    texts(subnet.get("dns_search"))
        .iter()
        .for_each(|domain| draft.search("network-config: dns_search", domain));
    Ok(())
}
