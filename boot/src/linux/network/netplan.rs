//! netplan's YAML: the few keys that tell which card is meant. Files of the same name in /etc hide those in /usr/lib; the
//! files are merged in the order of their names.

use super::yaml::{Value, parse};
use super::{Configured, Reader, System};
use crate::Result;
use std::collections::BTreeMap;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for folder in ["/usr/lib/netplan", "/lib/netplan", "/etc/netplan"] {
        for path in reader.files(folder, ".yaml")? {
            let name = path.rsplit('/').next().unwrap_or("").to_owned();
            files.insert(name, path);
        }
    }
    let mut devices: BTreeMap<(String, String), Device> = BTreeMap::new();
    for path in files.into_values() {
        let Some(text) = reader.text(&path)? else { continue };
        match parse(&text) {
            Ok(root) => {
                merge(&root, &path, &mut devices);
                reader.file(System::Netplan, &path, &[]);
            }
            Err(why) => reader.network.unreadable.push((path, why)),
        }
    }
    for ((kind, id), device) in devices {
        device.report(reader, &kind, &id);
    }
    Ok(())
}

#[derive(Default)]
struct Device {
    has_match: bool,
    mac: Option<String>,
    match_name: Option<String>,
    match_driver: Option<String>,
    set_name: Option<String>,
    /// The name that NetworkManager is told to give or to look for.
    passed_name: Option<String>,
    addresses: Vec<String>,
    members: Vec<String>,
    proof: String,
}

fn merge(root: &Value, path: &str, devices: &mut BTreeMap<(String, String), Device>) {
    let Some(network) = root.get("network") else { return };
    for kind in network.entries().iter().filter(|kind| KINDS.contains(&kind.key.as_str())) {
        for one in kind.value.entries() {
            let (kind, id, value) = (&kind.key, &one.key, &one.value);
            let device = devices.entry((kind.clone(), id.clone())).or_default();
            device.proof = path.to_owned();
            if let Some(found) = value.get("match") {
                device.has_match = true;
                let mac = found.get("macaddress").and_then(Value::text).and_then(super::mac);
                device.mac = mac.or(device.mac.take());
                let text = |key: &str| found.get(key).and_then(Value::text).map(str::to_owned);
                device.match_name = text("name").or(device.match_name.take());
                let driver = match found.get("driver") {
                    Some(Value::List(list, _)) => list.first().and_then(Value::text).map(str::to_owned),
                    _ => text("driver"),
                };
                device.match_driver = driver.or(device.match_driver.take());
            }
            let set_name = value.get("set-name").and_then(Value::text).map(str::to_owned);
            device.set_name = set_name.or(device.set_name.take());
            let passed = value.get("networkmanager").and_then(|value| value.get("passthrough"));
            let passed = passed.and_then(|keys| keys.get("connection.interface-name")).and_then(Value::text);
            device.passed_name = passed.map(str::to_owned).or(device.passed_name.take());
            for address in value.get("addresses").map_or(&[][..], Value::items) {
                let address = match address.entries().first() {
                    Some(entry) => Some(entry.key.clone()),
                    None => address.text().map(str::to_owned),
                };
                device.addresses.extend(address);
            }
            let yes = |key: &str| {
                value.get(key).and_then(Value::text).is_some_and(|text| {
                    ["true", "yes", "on", "y"].contains(&text.to_ascii_lowercase().as_str())
                })
            };
            if (yes("dhcp4") || yes("dhcp6")) && !device.addresses.iter().any(|address| address == "dhcp") {
                device.addresses.push("dhcp".to_owned());
            }
            if let Some(Value::List(members, _)) = value.get("interfaces") {
                device.members.extend(members.iter().filter_map(Value::text).map(str::to_owned));
            }
            device.members.extend(value.get("link").and_then(Value::text).map(str::to_owned));
        }
    }
}

/// Lists of devices.
pub(super) const KINDS: &[&str] = &[
    "ethernets",
    "bonds",
    "bridges",
    "vlans",
    "wifis",
    "modems",
    "tunnels",
    "vrfs",
    "dummy-devices",
    "virtual-ethernets",
    "nm-devices",
];

impl Device {
    fn report(self, reader: &mut Reader<'_>, kind: &str, id: &str) {
        self.members.iter().for_each(|member| reader.stack(id, member));
        // Without `match` the id is the name. With it the id is only a word.
        let name = match (&self.set_name, &self.match_name, &self.passed_name) {
            (Some(name), ..) | (None, None, Some(name)) => name.clone(),
            (None, Some(name), _) if self.has_match => name.clone(),
            _ => id.to_owned(),
        };
        if name != id {
            reader.network.called.insert(id.to_owned(), name.clone());
        }
        if kind != "ethernets" {
            // Members are ids of devices that have their own entry, or plain names.
            if name != id {
                reader.stack(&name, id);
            }
            reader.network.configured.push(Configured {
                name,
                is_virtual: true,
                addresses: self.addresses,
                proof: self.proof,
                ..Configured::default()
            });
            return;
        }
        if name != id {
            reader.stack(id, &name);
        }
        let by_mac = self.mac.is_some() && self.match_driver.is_none() && self.match_name.is_none();
        reader.network.configured.push(Configured {
            name,
            slot: self.match_name.filter(|_| self.set_name.is_some()),
            // By address: either netplan gives the name itself, or no name is asked for.
            is_kept: self.has_match && by_mac,
            mac: self.mac,
            pinned: self.match_driver.map(|driver| format!("driver {driver}")),
            addresses: self.addresses,
            proof: self.proof,
            is_virtual: false,
        });
    }
}
