//! systemd.network(5), systemd.netdev(5) and systemd.link(5) files of the administrator.

use super::{Configured, Given, Reader, System, ini, is_name, mac, word_of};
use crate::Result;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let folder = "/etc/systemd/network";
    for path in reader.files(folder, ".netdev")? {
        let text = reader.text(&path)?.unwrap_or_default();
        let mut names = Vec::new();
        for (section, key, value) in ini(&text) {
            if section == "netdev" && key == "name" {
                names.push(value.clone());
                let made = Configured {
                    name: value,
                    is_virtual: true,
                    proof: path.clone(),
                    ..Configured::default()
                };
                reader.network.configured.push(made);
            }
        }
        reader.file(System::Networkd, &path, &names);
    }
    for path in reader.files(folder, ".network")? {
        let text = reader.text(&path)?.unwrap_or_default();
        let mut text = text;
        let mut parts = vec![path.clone()];
        // Drop-ins count as if they stood at the end of the file.
        for part in reader.files(&format!("{path}.d"), ".conf")? {
            text.push('\n');
            text.push_str(&reader.text(&part)?.unwrap_or_default());
            parts.push(part);
        }
        let names = network(reader, &path, &text);
        for part in parts {
            reader.file(System::Networkd, &part, &names);
        }
    }
    for path in reader.files(folder, ".link")? {
        let text = reader.text(&path)?.unwrap_or_default();
        link(reader, &path, &text);
    }
    Ok(())
}

/// The names that the file is for.
fn network(reader: &mut Reader<'_>, path: &str, text: &str) -> Vec<String> {
    let (mut names, mut uppers, mut links) = (Vec::new(), Vec::new(), Vec::new());
    let mut common = Configured { proof: path.to_owned(), ..Configured::default() };
    for (section, key, value) in ini(text) {
        match (section.as_str(), key.as_str()) {
            ("match", "name") => {
                names.extend(
                    value.split_whitespace().filter(|name| !name.starts_with('!')).map(str::to_owned),
                );
            }
            ("match", "macaddress" | "permanentmacaddress") => {
                common.mac = value.split_whitespace().find_map(mac)
            }
            ("match", "driver" | "path") if !value.starts_with('!') => {
                common.pinned = Some(format!("{} {value}", key.to_ascii_lowercase()));
            }
            ("match", "type" | "kind") if value.split_whitespace().any(|kind| VIRTUAL.contains(&kind)) => {
                common.is_virtual = true;
            }
            ("network", "bond" | "bridge" | "vrf") => uppers.push(value),
            ("network", "vlan" | "macvlan" | "ipvlan") => links.push(value),
            ("network" | "address", "address") => common.addresses.push(value),
            ("network", "dhcp") if !["no", "false", "none", "0"].contains(&value.as_str()) => {
                common.addresses.push("dhcp".to_owned());
            }
            _ => {}
        }
    }
    if names.is_empty() {
        // By address, type or driver only: no name is asked for.
        let name = path.rsplit('/').next().unwrap_or("").trim_end_matches(".network");
        let name = word_of(name);
        common.is_kept = common.pinned.is_none();
        if common.mac.is_some() || common.pinned.is_some() {
            reader.network.configured.push(Configured { name: name.clone(), ..common });
        }
        return vec![name];
    }
    for name in &names {
        uppers.iter().chain(&links).for_each(|upper| reader.stack(upper, name));
        reader.network.configured.push(Configured { name: name.clone(), ..common.clone() });
    }
    names
}

const VIRTUAL: &[&str] =
    &["bond", "bridge", "vlan", "vxlan", "wireguard", "tun", "veth", "dummy", "loopback", "wlan"];

fn link(reader: &mut Reader<'_>, path: &str, text: &str) {
    let (mut address, mut name, mut is_pinned) = (None, None, false);
    for (section, key, value) in ini(text) {
        match (section.as_str(), key.as_str()) {
            ("match", "macaddress" | "permanentmacaddress") => {
                address = value.split_whitespace().find_map(mac)
            }
            ("match", "driver" | "path" | "property") => is_pinned = true,
            ("match", "originalname") => is_pinned |= value != "*",
            ("link", "name") => name = Some(value).filter(|name| is_name(name)),
            _ => {}
        }
    }
    if let (Some(mac), Some(name)) = (address, name) {
        reader.network.given.push(Given { name, mac, proof: path.to_owned(), is_pinned });
    }
}
