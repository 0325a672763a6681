//! NetworkManager's keyfiles (nm-settings-keyfile(5)).

use super::{Configured, Reader, ini, mac};
use crate::Result;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    for folder in ["/usr/lib/NetworkManager/system-connections", "/etc/NetworkManager/system-connections"] {
        for path in reader.files(folder, "")? {
            let text = reader.text(&path)?.unwrap_or_default();
            connection(reader, &path, &text);
        }
    }
    Ok(())
}

fn connection(reader: &mut Reader<'_>, path: &str, text: &str) {
    let mut one = Configured { proof: path.to_owned(), ..Configured::default() };
    let (mut kind, mut parent, mut is_slave) = (String::new(), None, false);
    for (section, key, value) in ini(text) {
        match (section.as_str(), key.as_str()) {
            ("connection", "type") => kind = value,
            ("connection", "interface-name") => one.name = value,
            ("connection", "master" | "controller") => is_slave = true,
            ("ethernet" | "802-3-ethernet", "mac-address") => one.mac = mac(&value),
            ("match", "interface-name") if one.name.is_empty() => {
                one.name = value.trim_end_matches(';').to_owned();
            }
            ("match", "driver" | "path") => one.pinned = Some(format!("{key} {value}")),
            ("vlan" | "macvlan", "parent") => parent = Some(value),
            ("ipv4" | "ipv6", "method") if value == "auto" && section == "ipv4" => {
                one.addresses.push("dhcp".to_owned());
            }
            ("ipv4" | "ipv6", key) if key.starts_with("address") && key != "addresses" => {
                one.addresses.extend(value.split([',', ';']).next().map(str::to_owned));
            }
            ("ipv4" | "ipv6", "addresses") => {
                let first = value.split(';').next().unwrap_or("");
                one.addresses.push(first.trim().to_owned());
            }
            _ => {}
        }
    }
    if let Some(name) = parent {
        reader.network.configured.push(Configured { name, proof: path.to_owned(), ..Configured::default() });
    }
    let is_ethernet = ["ethernet", "802-3-ethernet"].contains(&kind.as_str());
    one.is_virtual = !is_ethernet;
    // A profile without a name goes by address or takes any card.
    if one.name.is_empty() {
        one.name = path
            .rsplit('/')
            .next()
            .unwrap_or("")
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(15)
            .collect();
        one.is_kept = one.pinned.is_none();
        if one.mac.is_none() && !is_slave && one.pinned.is_none() {
            return;
        }
    }
    if !kind.is_empty() {
        reader.network.configured.push(one);
    }
}
