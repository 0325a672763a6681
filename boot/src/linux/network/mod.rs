//! Network interfaces: which names the configuration counts on, which card each name belongs to, and files that keep
//! the name on that card by its hardware address, whatever slot the target puts it into.
//!
//! Where the machine's addresses change with the site, `readdress` edits them in the same files; where a card has another
//! hardware address at the target, `new_address` does.
//!
//! Only what is certain is done; where several cards could be meant, a finding says so. Bonds, bridges and VLANs have no
//! hardware address of their own to go by: their physical members are kept, and they follow.

mod assign;
mod ifcfg;
mod ifupdown;
mod keyfile;
mod leases;
mod netplan;
mod networkd;
mod new_address;
pub(crate) mod readdress;
mod renewed;
mod settings;
mod udev;
pub mod yaml;

use super::draft::Draft;
use super::mac::normal as mac;
use super::packages::Packages;
use crate::Result;
use crate::guest::Interface;
use crate::patch::{InitramfsFile, Text};
use crate::target::Request;
use crate::tree::{GuestTree, GuestTreeExt};
use new_address::Renewal;
pub(super) use new_address::built_in;
use std::collections::{BTreeMap, BTreeSet};

/// One interface of the guest's configuration, or one that a bond, bridge or VLAN of it stands on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Configured {
    /// Its name, or a shell-style pattern of names.
    pub name: String,
    /// The name that its slot has to have before it gets `name`, where that is another.
    pub slot: Option<String>,
    /// Made by software: a bond, bridge, VLAN, tunnel.
    pub is_virtual: bool,
    /// The configuration finds its card by this address.
    pub mac: Option<String>,
    /// The configuration does not depend on the name: it gives it by address itself, or does without.
    pub is_kept: bool,
    /// It finds its card by driver or slot: what it says.
    pub pinned: Option<String>,
    /// Addresses with prefix length, or `dhcp`.
    pub addresses: Vec<String>,
    /// The file that says so.
    pub proof: String,
}

/// All that was read.
#[derive(Debug, Default)]
pub(super) struct Network {
    pub configured: Vec<Configured>,
    /// udev rules and link files that give a name by address: name, address, file.
    pub given: Vec<Given>,
    /// What leases of earlier times tell: the card that had a name.
    pub seen: Vec<Given>,
    /// Interfaces that stand on others: upper, lower.
    pub stacks: Vec<(String, String)>,
    /// Names that netplan's ids stand for, where they are others.
    pub called: BTreeMap<String, String>,
    /// The files with addresses in them.
    pub files: Vec<ConfigFile>,
    /// Files that are not what they should be, and why.
    pub unreadable: Vec<(String, String)>,
}

/// A file that configures interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConfigFile {
    pub system: System,
    pub path: String,
    /// The interfaces that it is for, where the file as a whole is for some: names, patterns, or the word that stands
    /// for them in [`Configured::name`].
    pub names: Vec<String>,
}

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    Ifupdown,
    /// Assignments of a shell: ifcfg files and what lies beside them.
    Ifcfg,
    /// Lines of routes, or assignments that are routes.
    Routes,
    Wicked,
    Netplan,
    Networkd,
    Keyfile,
}

/// A name that a udev rule or a link file gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub name: String,
    pub mac: String,
    pub proof: String,
    /// It also asks for a driver or slot, so that it will not match on the target.
    pub is_pinned: bool,
}

/// What the parts have in common while they read.
struct Reader<'a> {
    tree: &'a dyn GuestTree,
    network: Network,
}

impl Reader<'_> {
    fn text(&mut self, path: &str) -> Result<Option<String>> {
        self.tree.read_text(path)
    }
    fn file(&mut self, system: System, path: &str, names: &[String]) {
        self.network.files.push(ConfigFile { system, path: path.to_owned(), names: names.to_vec() });
    }
    fn stack(&mut self, upper: &str, lower: &str) {
        self.network.stacks.push((upper.to_owned(), lower.to_owned()));
    }
    /// The files of a folder whose names end so, in their order.
    fn files(&self, folder: &str, end: &str) -> Result<Vec<String>> {
        let mut paths: Vec<_> = self.tree.names(folder)?;
        paths.retain(|name| name.ends_with(end) && !name.starts_with('.') && !name.ends_with('~'));
        paths.truncate(FILES_AT_MOST);
        Ok(paths.into_iter().map(|name| format!("{folder}/{name}")).collect())
    }
}

/// Of one folder of network configuration, at most so many files are read: none has hundreds.
const FILES_AT_MOST: usize = 1024;

/// Reads the configuration of every manager that is installed; of all where the package database tells nothing.
pub(super) fn read(tree: &dyn GuestTree, packages: &Packages) -> Result<Network> {
    let mut reader = Reader { tree, network: Network::default() };
    let uses = |names: &[&str]| !packages.has("dpkg") || names.iter().any(|name| packages.has(name));
    if uses(&["ifupdown", "ifupdown2", "ifupdown-ng"]) {
        ifupdown::read(&mut reader)?;
    }
    if uses(&["netplan.io", "nplan", "netplan-generator"]) {
        netplan::read(&mut reader)?;
    }
    networkd::read(&mut reader)?;
    if uses(&["network-manager"]) {
        keyfile::read(&mut reader)?;
    }
    ifcfg::read(&mut reader)?;
    udev::read(&mut reader)?;
    leases::read(&mut reader)?;
    let Network { configured, .. } = &mut reader.network;
    // What is made by software is so in every file that mentions it.
    let made: BTreeSet<String> =
        configured.iter().filter(|one| one.is_virtual).map(|one| one.name.clone()).collect();
    for one in configured.iter_mut() {
        one.is_virtual |= made.contains(&one.name) || is_software_name(&one.name);
    }
    configured.retain(|one| is_name(&one.name) || is_pattern(&one.name));
    Ok(reader.network)
}

/// The facts, one interface per name.
pub(super) fn interfaces(network: &Network) -> Vec<Interface> {
    let mut found: Vec<Interface> = Vec::new();
    for one in network.configured.iter().filter(|one| one.name != "lo") {
        let given = network.given.iter().find(|given| given.name == one.name);
        let mac = one.mac.clone().or_else(|| given.map(|given| given.mac.clone()));
        match found.iter_mut().find(|interface| interface.name == one.name) {
            Some(known) => {
                known.mac = known.mac.take().or(mac);
                for address in &one.addresses {
                    if !known.addresses.contains(address) {
                        known.addresses.push(address.clone());
                    }
                }
            }
            None => found.push(Interface {
                name: one.name.clone(),
                mac,
                addresses: one.addresses.clone(),
                proof: one.proof.clone(),
            }),
        }
    }
    found
}

const RULES: &str = "70-landfall-net.rules";
const WHY: &str =
    "The name stays on the card with this hardware address, in whatever slot the target has it.";

/// Plans the names. `inside` collects what udev needs to see in every initramfs.
pub(super) fn plan(
    draft: &mut Draft<'_>,
    packages: &Packages,
    request: &Request,
    inside: &mut Vec<InitramfsFile>,
) -> Result<()> {
    let renewal = Renewal::of(request);
    let request = &renewal.complete(request);
    let mut network = read(draft.scene.tree, packages)?;
    renewal.at_source(&mut network);
    for (path, error) in &network.unreadable {
        draft.find(
            "linux-file-unreadable",
            format!("{path} could not be checked: {error}."),
            format!("Check {path} by hand."),
        );
    }
    let mut assigned = assign::assign(&network, request);
    for (id, says, remedy) in std::mem::take(&mut assigned.findings) {
        draft.find(id, says, remedy);
    }
    udev::unpin(draft, &assigned, inside)?;
    let mut rules =
        String::from("# Written by landfall: the names that the network configuration counts on.\n");
    let why_each = match renewed::driver(request) {
        Some(_) => renewed::WHY,
        None => WHY,
    };
    let mut why = String::from(why_each);
    let mut names = renewed::names(&assigned, request);
    // A second pass may learn the same of them from other files, in another order.
    names.sort_by(|a, b| a.name.cmp(&b.name));
    for name in &names {
        let (interface, mac) = (&name.name, renewal.at_target(&name.mac));
        let (of_link, of_rule) = match renewed::driver(request) {
            Some(driver) => (format!("Driver={driver}"), format!("DRIVERS==\"{driver}\"")),
            None => (format!("MACAddress={mac}"), format!("DRIVERS==\"?*\", ATTR{{address}}==\"{mac}\"")),
        };
        // `Type=ether` leaves out VLANs and bridges, which have their parent's address: tried with the udev of Debian 11
        // to 13. An old one that does not understand it ignores the file, and the rule below does it all.
        let link = format!(
            "# Written by landfall: the network configuration counts on this name.\n[Match]\n{of_link}\nType=ether\n\n[Link]\nName={interface}\n"
        );
        let file = format!("10-landfall-{interface}.link");
        draft.write(
            &format!("/etc/systemd/network/{file}"),
            link.clone(),
            &format!("{why_each} {interface}: {}.", name.proof),
        )?;
        inside.push(InitramfsFile {
            path: format!("lib/systemd/network/{file}"),
            contents: Text::from(link),
            mode: 0o644,
        });
        rules.push_str(&format!(
            "SUBSYSTEM==\"net\", ACTION==\"add\", {of_rule}, ATTR{{type}}==\"1\", NAME=\"{interface}\"\n"
        ));
        why.push_str(&format!(" {interface}: {}.", name.proof));
    }
    if let Some(map) = &request.network_map {
        readdress::plan(draft, map, &network, &assigned, request)?;
    }
    renewed::tell(draft, &network, &assigned, request);
    if !names.is_empty() {
        draft.write(&format!("/etc/udev/rules.d/{RULES}"), rules.clone(), &why)?;
        inside.push(InitramfsFile {
            path: format!("lib/udev/rules.d/{RULES}"),
            contents: Text::from(rules),
            mode: 0o644,
        });
    }
    new_address::plan(draft, &renewal, &network, &assigned, request, inside)
}

/// A word in place of the name that a file does not give.
fn word_of(file_name: &str) -> String {
    file_name.chars().filter(char::is_ascii_alphanumeric).take(15).collect()
}

/// A name that the kernel takes, with no character that means something in a rule or link file.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.@".contains(&byte);
    !name.is_empty() && name.len() <= 15 && name != "." && name != ".." && name.bytes().all(plain)
}

fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '[']) && name.len() <= 64 && !name.contains(['"', '\n', '/'])
}

/// Names that software makes by custom, where nothing says so.
fn is_software_name(name: &str) -> bool {
    let starts = [
        "lo", "tun", "tap", "ppp", "wg", "docker", "virbr", "veth", "dummy", "gre", "sit", "vxlan", "lxc",
        "lxd", "wl", "ww", "cni", "flannel", "ib", "usb", "can",
    ];
    name == "lo"
        || name.contains('.')
        || starts.iter().skip(1).any(|start| {
            name.strip_prefix(start).is_some_and(|rest| {
                rest.chars().all(|char| !char.is_ascii_alphabetic()) || *start == "wl" || *start == "veth"
            })
        })
}

/// An ini-style file as systemd and NetworkManager write it: section, key, value, in order.
fn ini(text: &str) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('#') || line.starts_with(';') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.trim().to_ascii_lowercase();
        } else if let Some((key, value)) = line.split_once('=') {
            found.push((section.clone(), key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests;
