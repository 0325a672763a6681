//! The addresses of another site, put into whatever configures the guest's network: ifupdown, ifcfg files (Red Hat's and
//! SUSE's) with their routes, wicked, NetworkManager's keyfiles, netplan, systemd-networkd; then resolv.conf and the
//! machine's own lines in /etc/hosts. Other files that may hold addresses of the network are only looked at.
//!
//! Only values change: comments, order and spacing stay. A value that no rule covers stays and is named in a finding, and so
//! is one that stands where it is not understood (a variable, a command). Nothing is added where nothing is configured,
//! with one exception: an interface that is switched to DHCP. Deliberately absent: addresses in the configuration of
//! services and applications, firewalls among them.

mod ifcfg;
mod ifupdown;
mod keyfile;
mod netplan;
mod networkd;
mod outcome;
mod routes;
pub(crate) mod site;
pub(crate) mod system;
mod values;
mod wicked;

use super::assign::Assigned;
use super::{Network, System};
use crate::Result;
use crate::linux::draft::Draft;
use crate::network_map::NetworkMap;
use crate::target::Request;
use crate::tree::{GuestTreeExt, NodeKind};
use site::Site;
use std::collections::{BTreeMap, BTreeSet};

const WHY: &str = "The addresses become those of the network map.";

/// Files that are for the whole machine. What is a file in one distribution is a folder in another.
const COMMON: &[(&str, System)] = &[
    ("/etc/sysconfig/network", System::Ifcfg),
    ("/etc/sysconfig/network/config", System::Ifcfg),
    ("/etc/sysconfig/network/routes", System::Routes),
    ("/etc/sysconfig/static-routes", System::Routes),
    ("/etc/systemd/resolved.conf", System::Networkd),
];

/// Plans the edits.
pub(super) fn plan(
    draft: &mut Draft<'_>,
    map: &NetworkMap,
    network: &Network,
    assigned: &Assigned,
    request: &Request,
) -> Result<()> {
    let mut site = Site::new(map, cards(network, assigned, request), network.called.clone());
    let mut files: Vec<(System, &str, &[String])> = Vec::new();
    let resolved = system::files(draft, "/etc/systemd/resolved.conf.d/", ".conf")?;
    for file in &network.files {
        files.push((file.system, &file.path, &file.names));
    }
    // Those for the whole machine come last: whose network a gateway is in is known by then.
    files.sort_by_key(|(system, ..)| *system == System::Routes);
    for (path, system) in COMMON {
        if is_file(draft, path)? {
            files.push((*system, path, &[]));
        }
    }
    for path in &resolved {
        files.push((System::Networkd, path, &[]));
    }
    for (system, path, names) in files {
        let change = match system {
            System::Ifupdown => ifupdown::change,
            System::Ifcfg => ifcfg::change,
            System::Routes => routes::change,
            System::Wicked => wicked::change,
            System::Netplan => netplan::change,
            System::Networkd => networkd::change,
            System::Keyfile => keyfile::change,
        };
        draft.edit(path, WHY, |old| change(old, path, names, &mut site))?;
    }
    for path in &site.removed {
        draft.remove(path, "The address comes by DHCP, which knows no aliases.")?;
    }
    for (path, change) in system::FILES {
        // A link leads to what a daemon writes.
        if draft.scene.tree.link_metadata(path)?.is_some_and(|meta| meta.kind == NodeKind::File) {
            draft.edit(path, WHY, |old| change(old, path, &mut site))?;
        }
    }
    system::watch(draft, &mut site)?;
    let (moved, findings) = site.finish();
    draft.moved = moved;
    for (id, says, remedy) in findings {
        draft.find(id, says, remedy);
    }
    Ok(())
}

fn is_file(draft: &Draft<'_>, path: &str) -> Result<bool> {
    let tree = draft.scene.tree;
    Ok(tree.exists(path)? && tree.metadata(path)?.is_some_and(|meta| meta.kind == NodeKind::File))
}

/// Stacks of more interfaces than this are an attack: a VLAN on a bridge on a bond on cards is four high.
const STACK_AT_MOST: usize = 8;

/// On which cards every interface stands, as far as is known.
pub(super) fn cards(
    network: &Network,
    assigned: &Assigned,
    request: &Request,
) -> BTreeMap<String, BTreeSet<usize>> {
    let index = |mac: &str| request.nics.iter().position(|nic| nic.mac.as_deref() == Some(mac));
    let mut cards: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let named = assigned.names.iter().map(|one| (one.name.as_str(), one.mac.as_str()));
    let by_file = network.configured.iter().filter_map(|one| Some((one.name.as_str(), one.mac.as_deref()?)));
    for (name, mac) in named.chain(by_file) {
        if let Some(index) = index(mac) {
            cards.entry(name.to_owned()).or_default().insert(index);
        }
    }
    // With one card there is no choice.
    if request.nics.len() == 1 {
        for one in &network.configured {
            cards.entry(one.name.clone()).or_default().insert(0);
        }
    }
    for _ in 0..STACK_AT_MOST {
        for (upper, lower) in &network.stacks {
            if upper != lower
                && let Some(below) = cards.get(lower).cloned()
            {
                cards.entry(upper.clone()).or_default().extend(below);
            }
        }
    }
    cards
}

#[cfg(test)]
pub(super) mod tests;
