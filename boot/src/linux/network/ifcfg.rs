//! ifcfg files, of the Red Hat kind (/etc/sysconfig/network-scripts) and of the SUSE kind (/etc/sysconfig/network), which
//! wicked reads too, and wicked's own XML.
//!
//! Who reads them (the old scripts, NetworkManager's ifcfg-rh plugin, wicked) makes no difference for names: a file with
//! DEVICE, or SUSE's file name, counts on the name; one with HWADDR alone goes by the address.

use super::settings::{shell, str_at};
use super::{Configured, Reader, System, is_name, mac};
use crate::Result;
use std::collections::BTreeMap;

pub(super) const RED_HAT: &str = "/etc/sysconfig/network-scripts";
pub(super) const SUSE: &str = "/etc/sysconfig/network";
const WICKED: &str = "/etc/wicked/ifconfig";

pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    for folder in [RED_HAT, SUSE] {
        for path in reader.files(folder, "")? {
            let name = path.rsplit('/').next().unwrap_or("");
            if is_backup(name) {
                continue;
            }
            if let Some(name) = name.strip_prefix("ifcfg-") {
                let Some(text) = reader.text(&path)? else { continue };
                interface(reader, folder, &path, name, &text);
            } else if let Some(name) = ROUTES.iter().find_map(|start| name.strip_prefix(start)) {
                reader.file(System::Routes, &path, &[name.to_owned()]);
            }
        }
    }
    for path in reader.files(WICKED, ".xml")? {
        let Some(text) = reader.text(&path)? else { continue };
        wicked(reader, &path, &text);
    }
    Ok(())
}

/// Files with routes and rules of one interface.
const ROUTES: &[&str] = &["route-", "route6-", "rule-", "rule6-", "ifroute-", "ifrule-"];

/// What editors and package managers leave behind, and no reader of ifcfg files takes.
fn is_backup(name: &str) -> bool {
    const ENDS: &[&str] = &[
        "~", ".bak", ".old", ".orig", ".rej", ".swp", ".rpmnew", ".rpmorig", ".rpmsave", ".augnew", ".augtmp",
    ];
    ENDS.iter().any(|end| name.ends_with(end)) || name.contains(".landfall")
}

fn interface(reader: &mut Reader<'_>, folder: &str, path: &str, file_name: &str, text: &str) {
    let bytes = text.as_bytes();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for setting in shell(bytes) {
        let value = str_at(bytes, &setting.value).unwrap_or("").trim().to_owned();
        values.insert(setting.key.to_ascii_uppercase(), value);
    }
    let get = |key: &str| values.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let is = |key: &str| get(key).is_some_and(|value| value.eq_ignore_ascii_case("yes"));
    let kind = get("TYPE").or(get("DEVICETYPE")).unwrap_or("").to_ascii_lowercase();
    let hwaddr = get("HWADDR").and_then(mac);
    // SUSE before 10 named the file by address: ifcfg-eth-id-00:50:56:…
    let by_id = file_name.split_once("-id-").and_then(|(_, address)| mac(address));
    // `eth0:1` and `eth0-range0` are more addresses of eth0.
    let device = get("DEVICE").or_else(|| (folder == SUSE).then_some(file_name));
    let name = device.map(|name| name.split(':').next().unwrap_or(name).to_owned());
    let mut lower: Vec<String> = Vec::new();
    let mut uppers: Vec<String> = Vec::new();
    for (key, value) in &values {
        let members = key.starts_with("BONDING_SLAVE")
            || key.starts_with("TEAM_PORT_DEVICE")
            || ["BRIDGE_PORTS", "ETHERDEVICE", "PHYSDEV", "OVS_BRIDGE_PORT_DEVICE"].contains(&key.as_str());
        if members {
            lower.extend(value.split_whitespace().map(str::to_owned));
        }
        if ["MASTER", "BRIDGE", "TEAM_MASTER"].contains(&key.as_str()) && !value.eq_ignore_ascii_case("yes") {
            uppers.push(value.clone());
        }
    }
    if let Some((parent, _)) = name.as_deref().and_then(|name| name.split_once('.')) {
        lower.push(parent.to_owned());
    }
    let is_virtual = VIRTUAL.contains(&kind.as_str())
        || ["VLAN", "BONDING_MASTER", "BRIDGE"].iter().any(|key| is(key))
        || get("BONDING_OPTS").is_some() && get("MASTER").is_none()
        || get("TEAM_CONFIG").is_some()
        || !lower.is_empty();
    let mut addresses: Vec<String> = Vec::new();
    if get("BOOTPROTO")
        .is_some_and(|method| method.to_ascii_lowercase().contains("dhcp") || method == "bootp")
    {
        addresses.push("dhcp".to_owned());
    }
    for (key, value) in &values {
        let Some(suffix) = key.strip_prefix("IPADDR").or_else(|| key.strip_prefix("IPV6ADDR")) else {
            continue;
        };
        let length = get(&format!("PREFIX{suffix}"))
            .or(get(&format!("PREFIXLEN{suffix}")))
            .or(get(&format!("NETMASK{suffix}")))
            .and_then(super::ifupdown::prefix_length);
        for address in value.split_whitespace() {
            addresses.push(match length {
                Some(length) if !address.contains('/') => format!("{address}/{length}"),
                _ => address.to_owned(),
            });
        }
    }
    let named = name.clone().filter(|name| is_name(name) && by_id.is_none());
    let mac = hwaddr.or(by_id).filter(|_| !is_virtual);
    let name = named.clone().unwrap_or_else(|| super::word_of(file_name));
    reader.file(System::Ifcfg, path, std::slice::from_ref(&name));
    for upper in uppers {
        reader.stack(&upper, &name);
        reader.network.configured.push(made(&upper, path));
    }
    for member in lower.into_iter().filter(|member| is_name(member)) {
        reader.stack(&name, &member);
        // Of a VLAN on a bond the bond is known from its own file; the members come from everywhere.
        reader.network.configured.push(Configured {
            name: member,
            proof: path.to_owned(),
            ..Configured::default()
        });
    }
    reader.network.configured.push(Configured {
        is_virtual,
        is_kept: named.is_none(),
        name,
        mac,
        addresses,
        proof: path.to_owned(),
        ..Configured::default()
    });
}

fn made(name: &str, path: &str) -> Configured {
    Configured { name: name.to_owned(), is_virtual: true, proof: path.to_owned(), ..Configured::default() }
}

const VIRTUAL: &[&str] = &[
    "bond",
    "bridge",
    "vlan",
    "team",
    "ovsbridge",
    "ovsbond",
    "ovsintport",
    "tunnel",
    "gre",
    "ipip",
    "sit",
    "dummy",
    "infiniband",
    "wireless",
    "macvlan",
];

/// wicked's own files: as `wicked show-config` prints them.
fn wicked(reader: &mut Reader<'_>, path: &str, text: &str) {
    let mut names = Vec::new();
    for part in text.split("<interface").skip(1) {
        let part = part.split("</interface>").next().unwrap_or("");
        let value = |tag: &str| {
            let rest = part.split_once(&format!("<{tag}>"))?.1;
            Some(rest.split("</").next()?.trim().to_owned())
        };
        let Some(name) = value("name").filter(|name| is_name(name)) else { continue };
        let has = |tag: &str| part.contains(&format!("<{tag}>")) || part.contains(&format!("<{tag}:"));
        let is_virtual =
            ["bond", "bridge", "vlan", "macvlan", "team", "tun", "dummy"].iter().any(|tag| has(tag));
        for member in part.split("<device>").skip(1).filter_map(|rest| rest.split("</").next()) {
            reader.stack(&name, member.trim());
            reader.network.configured.push(Configured {
                name: member.trim().to_owned(),
                proof: path.to_owned(),
                ..Configured::default()
            });
        }
        let mut addresses: Vec<String> = Vec::new();
        if has("ipv4:dhcp") {
            addresses.push("dhcp".to_owned());
        }
        let local = part.split("<local>").skip(1).filter_map(|rest| rest.split("</").next());
        addresses.extend(local.map(|address| address.trim().to_owned()));
        reader.network.configured.push(Configured {
            name: name.clone(),
            is_virtual,
            addresses,
            proof: path.to_owned(),
            ..Configured::default()
        });
        names.push(name);
    }
    if !names.is_empty() {
        reader.file(System::Wicked, path, &names);
    }
}
