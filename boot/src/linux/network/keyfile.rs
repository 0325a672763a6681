//! NetworkManager's keyfiles (nm-settings-keyfile(5)).

use super::{Configured, Reader, System, ini, is_name, mac, word_of};
use crate::Result;
use std::collections::BTreeMap;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let mut files: Vec<(String, String)> = Vec::new();
    for folder in ["/usr/lib/NetworkManager/system-connections", "/etc/NetworkManager/system-connections"] {
        for path in reader.files(folder, "")? {
            let text = reader.text(&path)?.unwrap_or_default();
            files.push((path, text));
        }
    }
    // Profiles name one another by UUID.
    let mut names = BTreeMap::new();
    for (_, text) in &files {
        let settings = ini(text);
        let find = |wanted: &str| {
            let is_it =
                |(section, key, _): &&(String, String, String)| section == "connection" && key == wanted;
            settings.iter().find(is_it).map(|(.., value)| value.clone())
        };
        names.extend(find("uuid").zip(find("interface-name")));
    }
    for (path, text) in &files {
        connection(reader, path, text, &names);
    }
    Ok(())
}

fn connection(reader: &mut Reader<'_>, path: &str, text: &str, names: &BTreeMap<String, String>) {
    let name_of = |named: String| names.get(&named).cloned().unwrap_or(named);
    let mut one = Configured { proof: path.to_owned(), ..Configured::default() };
    let (mut kind, mut parent, mut controller) = (String::new(), None, None);
    for (section, key, value) in ini(text) {
        match (section.as_str(), key.as_str()) {
            ("connection", "type") => kind = value,
            ("connection", "interface-name") => one.name = value,
            ("connection", "master" | "controller") => controller = Some(name_of(value)),
            ("ethernet" | "802-3-ethernet", "mac-address") => one.mac = mac(&value),
            ("match", "interface-name") if one.name.is_empty() => {
                // One pattern can be kept; of several any may be meant, and the profile takes what comes.
                let mut patterns = value.split([';', ',', ' ']).filter(|word| !word.is_empty());
                if let (Some(pattern), None) = (patterns.next(), patterns.next()) {
                    one.name = pattern.trim_start_matches('|').to_owned();
                }
            }
            ("match", "driver" | "path") => one.pinned = Some(format!("{key} {value}")),
            ("vlan" | "macvlan", "parent") => parent = Some(name_of(value)),
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
    if let Some(name) = parent.filter(|name| is_name(name)) {
        reader.stack(&one.name, &name);
        reader.network.configured.push(Configured { name, proof: path.to_owned(), ..Configured::default() });
    }
    let is_ethernet = ["ethernet", "802-3-ethernet"].contains(&kind.as_str());
    one.is_virtual = !is_ethernet;
    // A profile without a name goes by address or takes any card.
    if one.name.is_empty() {
        one.name = word_of(path.rsplit('/').next().unwrap_or(""));
        one.is_kept = one.pinned.is_none();
        reader.file(System::Keyfile, path, std::slice::from_ref(&one.name));
        if one.mac.is_none() && controller.is_none() && one.pinned.is_none() {
            return;
        }
    } else {
        reader.file(System::Keyfile, path, std::slice::from_ref(&one.name));
    }
    // Of a UUID that no profile has nothing is known.
    if let Some(upper) = controller.filter(|upper| is_name(upper)) {
        reader.stack(&upper, &one.name);
    }
    if !kind.is_empty() {
        reader.network.configured.push(one);
    }
}
