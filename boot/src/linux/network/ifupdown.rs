//! /etc/network/interfaces (interfaces(5)).

use super::{Configured, Reader, System, is_name};
use crate::Result;
use crate::linux::text;
use crate::tree::GuestTreeExt;
use std::collections::BTreeSet;

/// `source` may name files that name files; real ones go one deep.
const DEPTH_AT_MOST: usize = 8;
const FILES_AT_MOST: usize = 256;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let mut seen = BTreeSet::new();
    file(reader, "/etc/network/interfaces", DEPTH_AT_MOST, &mut seen)
}

fn file(reader: &mut Reader<'_>, path: &str, depth: usize, seen: &mut BTreeSet<String>) -> Result<()> {
    if depth == 0 || seen.len() >= FILES_AT_MOST || !seen.insert(path.to_owned()) {
        return Ok(());
    }
    let Some(content) = reader.text(path)? else { return Ok(()) };
    reader.file(System::Ifupdown, path, &[]);
    let mut stanza: Option<Stanza> = None;
    for line in joined(&content) {
        let mut words = line.split_whitespace();
        let Some(keyword) = words.next() else { continue };
        match keyword {
            "iface" => {
                finish(reader, stanza.take());
                let name = words.next().unwrap_or("").to_owned();
                let (_family, method) = (words.next(), words.next().unwrap_or(""));
                stanza = Some(Stanza::new(path, name, method));
            }
            "source" | "source-directory" => {
                finish(reader, stanza.take());
                for pattern in words {
                    for found in sourced(reader, keyword, path, pattern)? {
                        file(reader, &found, depth - 1, seen)?;
                    }
                }
            }
            "mapping" | "auto" | "rename" | "template" => finish(reader, stanza.take()),
            word if word.starts_with("allow-") || word.starts_with("no-") => finish(reader, stanza.take()),
            option => {
                if let Some(stanza) = &mut stanza {
                    stanza.option(option, words.collect());
                }
            }
        }
    }
    finish(reader, stanza);
    Ok(())
}

/// Lines with a backslash at the end go on in the next.
fn joined(content: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in content.lines() {
        let line = line.trim();
        if open.is_empty() && line.starts_with('#') {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(part) => {
                open.push_str(part);
                open.push(' ');
            }
            None => {
                open.push_str(line);
                lines.push(std::mem::take(&mut open));
            }
        }
    }
    lines.push(open);
    lines
}

fn sourced(reader: &Reader<'_>, keyword: &str, from: &str, pattern: &str) -> Result<Vec<String>> {
    let folder_of = |path: &str| path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let pattern = match pattern.starts_with('/') {
        true => pattern.to_owned(),
        false => format!("{}/{pattern}", folder_of(from)),
    };
    let (folder, names) = match keyword {
        "source" => (folder_of(&pattern), pattern.rsplit('/').next().unwrap_or("").to_owned()),
        _ => (pattern.trim_end_matches(['/', '*']).to_owned(), "*".to_owned()),
    };
    let mut found = reader.tree.names(&folder)?;
    // source-directory takes only names like those of run-parts; a shell pattern leaves hidden files out.
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    found.retain(|name| !name.starts_with('.') && text::glob(&names, name));
    found.retain(|name| keyword == "source" || plain(name));
    found.truncate(FILES_AT_MOST);
    Ok(found.into_iter().map(|name| format!("{folder}/{name}")).collect())
}

struct Stanza {
    configured: Configured,
    netmask: Option<String>,
    members: Vec<String>,
    /// What it is a member of.
    uppers: Vec<String>,
}

impl Stanza {
    fn new(path: &str, name: String, method: &str) -> Self {
        // `eth0:1` is a second address of eth0.
        let name = name.split(':').next().unwrap_or("").to_owned();
        let mut members = Vec::new();
        if let Some((parent, _)) = name.split_once('.') {
            members.push(parent.to_owned());
        }
        let addresses = if method == "dhcp" { vec!["dhcp".to_owned()] } else { Vec::new() };
        Stanza {
            configured: Configured {
                is_virtual: !members.is_empty()
                    || ["tunnel", "ppp", "wvdial", "v4tunnel", "6to4", "can", "loopback"].contains(&method),
                name,
                addresses,
                proof: path.to_owned(),
                ..Configured::default()
            },
            netmask: None,
            members,
            uppers: Vec::new(),
        }
    }

    fn option(&mut self, option: &str, words: Vec<&str>) {
        match option.replace('_', "-").as_str() {
            "address" => self.configured.addresses.extend(words.first().map(|word| (*word).to_owned())),
            "netmask" => self.netmask = words.first().map(|word| (*word).to_owned()),
            // This sets the address rather than looking for it, but a card that has it is meant.
            "hwaddress" => self.configured.mac = words.last().and_then(|word| super::mac(word)),
            "bond-slaves" | "slaves" | "bond-members" | "bridge-ports" | "requires" | "ovs-ports"
            | "ovs-bonds" => {
                self.configured.is_virtual = true;
                self.members
                    .extend(words.iter().filter(|word| is_member(word)).map(|word| (*word).to_owned()));
            }
            "bond-master" => self.uppers.extend(words.first().map(|word| (*word).to_owned())),
            "bond-mode" | "bridge-stp" | "bridge-fd" | "ovs-type" => self.configured.is_virtual = true,
            // ifupdown-ng says `use` where ifupdown guesses by the options.
            "use" => match words.first() {
                Some(&"dhcp") => self.configured.addresses.push("dhcp".to_owned()),
                Some(&("bond" | "bridge" | "vlan" | "vrf" | "tunnel" | "vxlan" | "ppp" | "wireguard")) => {
                    self.configured.is_virtual = true;
                }
                _ => {}
            },
            "vlan-raw-device" => {
                self.configured.is_virtual = true;
                self.members.extend(words.first().map(|word| (*word).to_owned()));
            }
            _ => {}
        }
    }
}

fn is_member(word: &str) -> bool {
    is_name(word) && !["none", "all", "regex"].contains(&word)
}

fn finish(reader: &mut Reader<'_>, stanza: Option<Stanza>) {
    let Some(Stanza { mut configured, netmask, members, uppers }) = stanza else { return };
    if let Some(prefix) = netmask.as_deref().and_then(prefix_length) {
        for address in
            configured.addresses.iter_mut().filter(|address| !address.contains('/') && *address != "dhcp")
        {
            address.push_str(&format!("/{prefix}"));
        }
    }
    for name in members {
        reader.stack(&configured.name, &name);
        reader.network.configured.push(Configured {
            is_virtual: name.contains('.'),
            name,
            proof: configured.proof.clone(),
            ..Configured::default()
        });
    }
    for upper in uppers.into_iter().filter(|upper| is_member(upper)) {
        reader.stack(&upper, &configured.name);
        reader.network.configured.push(Configured {
            name: upper,
            is_virtual: true,
            proof: configured.proof.clone(),
            ..Configured::default()
        });
    }
    reader.network.configured.push(configured);
}

/// `255.255.255.0` or `24` as a length.
pub(super) fn prefix_length(netmask: &str) -> Option<u32> {
    if let Ok(length) = netmask.parse::<u32>() {
        return (length <= 128).then_some(length);
    }
    let bits = u32::from(netmask.parse::<std::net::Ipv4Addr>().ok()?);
    (bits.leading_ones() + bits.trailing_zeros() == 32 || bits == u32::MAX).then(|| bits.leading_ones())
}
