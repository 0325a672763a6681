//! netplan's YAML: the few keys that tell which card is meant. Files of the same name in /etc hide those in /usr/lib; the
//! files are merged in the order of their names.
//!
//! Read event by event with bounds on depth and size, aliases left out: a file cannot make the reader grow.

use super::{Configured, Reader};
use crate::Result;
use saphyr_parser::{Event, Parser};
use std::collections::BTreeMap;

const DEPTH_AT_MOST: usize = 32;
const EVENTS_AT_MOST: usize = 200_000;

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
            Ok(root) => merge(&root, &path, &mut devices),
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
    addresses: Vec<String>,
    members: Vec<String>,
    proof: String,
}

fn merge(root: &Value, path: &str, devices: &mut BTreeMap<(String, String), Device>) {
    let Some(Value::Map(network)) = root.get("network") else { return };
    for (kind, list) in network {
        let Value::Map(list) = list else { continue };
        if !KINDS.contains(&kind.as_str()) {
            continue;
        }
        for (id, value) in list {
            let device = devices.entry((kind.clone(), id.clone())).or_default();
            device.proof = path.to_owned();
            if let Some(found) = value.get("match") {
                device.has_match = true;
                let mac = found.get("macaddress").and_then(Value::text).and_then(super::mac);
                device.mac = mac.or(device.mac.take());
                let text = |key: &str| found.get(key).and_then(Value::text).map(str::to_owned);
                device.match_name = text("name").or(device.match_name.take());
                let driver = match found.get("driver") {
                    Some(Value::List(list)) => list.first().and_then(Value::text).map(str::to_owned),
                    _ => text("driver"),
                };
                device.match_driver = driver.or(device.match_driver.take());
            }
            let set_name = value.get("set-name").and_then(Value::text).map(str::to_owned);
            device.set_name = set_name.or(device.set_name.take());
            if let Some(Value::List(addresses)) = value.get("addresses") {
                for address in addresses {
                    let address = match address {
                        Value::Map(entries) => entries.first().map(|(address, _)| address.clone()),
                        other => other.text().map(str::to_owned),
                    };
                    device.addresses.extend(address);
                }
            }
            let yes = |key: &str| {
                value.get(key).and_then(Value::text).is_some_and(|text| {
                    ["true", "yes", "on", "y"].contains(&text.to_ascii_lowercase().as_str())
                })
            };
            if (yes("dhcp4") || yes("dhcp6")) && !device.addresses.iter().any(|address| address == "dhcp") {
                device.addresses.push("dhcp".to_owned());
            }
            if let Some(Value::List(members)) = value.get("interfaces") {
                device.members.extend(members.iter().filter_map(Value::text).map(str::to_owned));
            }
            device.members.extend(value.get("link").and_then(Value::text).map(str::to_owned));
        }
    }
}

const KINDS: &[&str] = &[
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
];

impl Device {
    fn report(self, reader: &mut Reader<'_>, kind: &str, id: &str) {
        if kind != "ethernets" {
            // Members are ids of devices that have their own entry, or plain names.
            reader.network.configured.push(Configured {
                name: id.to_owned(),
                is_virtual: true,
                addresses: self.addresses,
                proof: self.proof,
                ..Configured::default()
            });
            return;
        }
        // Without `match` the id is the name. With it the id is only a word.
        let name = match (&self.set_name, &self.match_name) {
            (Some(name), _) => name.clone(),
            (None, Some(name)) if self.has_match => name.clone(),
            _ => id.to_owned(),
        };
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

#[derive(Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => entries.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }
    fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// The first document.
fn parse(text: &str) -> std::result::Result<Value, String> {
    /// An open list or map; of a map, the key that waits for its value.
    enum Open {
        List(Vec<Value>),
        Map(Vec<(String, Value)>, Option<String>),
    }
    let mut parser = Parser::new_from_str(text);
    let mut open: Vec<Open> = Vec::new();
    for _ in 0..EVENTS_AT_MOST {
        let event = match parser.next_event() {
            None => return Ok(Value::Map(Vec::new())),
            Some(Err(error)) => return Err(format!("it is no YAML: {error}")),
            Some(Ok((event, _))) => event,
        };
        let done = match event {
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                None
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(Vec::new(), None));
                None
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list)) => Some(Value::List(list)),
                Some(Open::Map(map, _)) => Some(Value::Map(map)),
                None => None,
            },
            Event::Scalar(text, ..) => Some(Value::Text(text.into_owned())),
            Event::Alias(_) => Some(Value::Text(String::new())),
            Event::StreamEnd | Event::DocumentEnd => return Ok(Value::Map(Vec::new())),
            _ => None,
        };
        if open.len() > DEPTH_AT_MOST {
            return Err(format!("it is nested deeper than {DEPTH_AT_MOST}"));
        }
        let Some(value) = done else { continue };
        match open.last_mut() {
            None => return Ok(value),
            Some(Open::List(list)) => list.push(value),
            Some(Open::Map(map, key)) => match key.take() {
                None => {
                    *key = Some(match value {
                        Value::Text(text) => text,
                        _ => String::new(),
                    })
                }
                Some(key) => map.push((key, value)),
            },
        }
    }
    Err(format!("it has more than {EVENTS_AT_MOST} parts"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_yaml_is_refused_or_read_but_never_grows() {
        let bomb = format!("a: &a [x,x]\n{}", "b: &b [*a,*a,*a]\n".repeat(1000));
        assert!(parse(&bomb).is_ok());
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse("a: [b").is_err());
        assert!(parse("").is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z:\\[\\]{}&*!|>'\"#,\n -]{0,60}") {
            let _ = parse(&text);
        }
    }
}
