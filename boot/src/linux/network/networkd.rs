//! systemd.network(5), systemd.netdev(5) and systemd.link(5) files of the administrator.

use super::{Configured, Given, Reader, ini, is_name, mac};
use crate::Result;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let folder = "/etc/systemd/network";
    for path in reader.files(folder, ".netdev")? {
        let text = reader.text(&path)?.unwrap_or_default();
        for (section, key, value) in ini(&text) {
            if section == "netdev" && key == "name" {
                let made = Configured {
                    name: value,
                    is_virtual: true,
                    proof: path.clone(),
                    ..Configured::default()
                };
                reader.network.configured.push(made);
            }
        }
    }
    for path in reader.files(folder, ".network")? {
        let text = reader.text(&path)?.unwrap_or_default();
        network(reader, &path, &text);
    }
    for path in reader.files(folder, ".link")? {
        let text = reader.text(&path)?.unwrap_or_default();
        link(reader, &path, &text);
    }
    Ok(())
}

fn network(reader: &mut Reader<'_>, path: &str, text: &str) {
    let mut names = Vec::new();
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
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).take(15).collect();
        common.is_kept = common.pinned.is_none();
        if common.mac.is_some() || common.pinned.is_some() {
            reader.network.configured.push(Configured { name, ..common });
        }
        return;
    }
    for name in names {
        reader.network.configured.push(Configured { name, ..common.clone() });
    }
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
