//! Files that say which card they mean by its hardware address, or set one: every place that a reader of network
//! configuration is known to look at.

use super::super::{FILES_AT_MOST, Network, System};
use crate::Result;
use crate::linux::draft::Draft;
use crate::linux::mac::Language;
use crate::tree::{GuestTreeExt, NodeKind};
use std::collections::BTreeMap;

/// Files, and folders (with a slash at the end) with the ending of their files' names. Those that [`Network::files`] has
/// need no row, but whatever is not in use now may be again.
const PLACES: &[(&str, &str, Language)] = &[
    ("/etc/network/interfaces", "", Language::Plain),
    ("/etc/network/interfaces.d/", "", Language::Plain),
    // Red Hat's; up to RHEL 5 with copies by profile, and what kudzu remembers.
    ("/etc/sysconfig/network-scripts/", "", Language::Plain),
    ("/etc/sysconfig/networking/devices/", "", Language::Plain),
    ("/etc/sysconfig/networking/profiles/default/", "", Language::Plain),
    ("/etc/sysconfig/hwconf", "", Language::Plain),
    // SUSE's; in Red Hat's systems this is a file.
    ("/etc/sysconfig/network/", "", Language::Plain),
    ("/etc/sysconfig/network", "", Language::Plain),
    ("/etc/wicked/", ".xml", Language::Plain),
    ("/etc/wicked/ifconfig/", ".xml", Language::Plain),
    ("/etc/netplan/", ".yaml", Language::Yaml),
    ("/usr/lib/netplan/", ".yaml", Language::Yaml),
    ("/etc/NetworkManager/NetworkManager.conf", "", Language::Plain),
    ("/etc/NetworkManager/conf.d/", ".conf", Language::Plain),
    ("/usr/lib/NetworkManager/conf.d/", ".conf", Language::Plain),
    ("/etc/NetworkManager/system-connections/", "", Language::Plain),
    ("/usr/lib/NetworkManager/system-connections/", "", Language::Plain),
    // Cards that get no connection of NetworkManager's own making.
    ("/var/lib/NetworkManager/no-auto-default.state", "", Language::Plain),
    ("/var/lib/NetworkManager/NetworkManager-intern.conf", "", Language::Plain),
    ("/etc/udev/rules.d/", ".rules", Language::Plain),
    ("/etc/cloud/cloud.cfg", "", Language::Yaml),
    ("/etc/cloud/cloud.cfg.d/", ".cfg", Language::Yaml),
    ("/var/lib/cloud/seed/nocloud/", "", Language::Yaml),
    ("/var/lib/cloud/seed/nocloud-net/", "", Language::Yaml),
    // What an initramfs gets of its network.
    ("/etc/initramfs-tools/initramfs.conf", "", Language::Plain),
    ("/etc/initramfs-tools/conf.d/", "", Language::Plain),
    // ifrename, nameif, OpenRC's netifrc, netctl.
    ("/etc/iftab", "", Language::Plain),
    ("/etc/mactab", "", Language::Plain),
    ("/etc/conf.d/net", "", Language::Plain),
    ("/etc/netctl/", "", Language::Plain),
];

/// Folders of systemd's files, each with folders of more for a file (`10-lan.link.d`).
const SYSTEMD: &[&str] = &[
    "/etc/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
    "/lib/systemd/network",
];

/// SUSE's files that may have an address in their name.
const NAMED: &str = "/etc/sysconfig/network";

/// Every such file that is there, once.
pub(super) fn files(draft: &Draft<'_>, network: &Network) -> Result<Vec<(String, Language)>> {
    let mut found: BTreeMap<String, Language> = BTreeMap::new();
    for file in &network.files {
        let language = if file.system == System::Netplan { Language::Yaml } else { Language::Plain };
        found.insert(file.path.clone(), language);
    }
    for (place, ending, language) in PLACES {
        match place.strip_suffix('/') {
            Some(folder) => {
                found.extend(listed(draft, folder, ending)?.into_iter().map(|path| (path, *language)))
            }
            None => drop(found.insert((*place).to_owned(), *language)),
        }
    }
    for folder in SYSTEMD {
        for ending in [".link", ".network", ".netdev"] {
            for path in listed(draft, folder, ending)? {
                found.insert(path, Language::Plain);
            }
            for more in listed(draft, folder, &format!("{ending}.d"))? {
                found.extend(listed(draft, &more, ".conf")?.into_iter().map(|path| (path, Language::Plain)));
            }
        }
    }
    let mut files = Vec::new();
    for (path, language) in found {
        // What is masked leads to a device.
        if draft.scene.tree.metadata(&path)?.is_some_and(|meta| meta.kind == NodeKind::File) {
            files.push((path, language));
        }
    }
    Ok(files)
}

/// The files whose names may hold an address: `ifcfg-eth-id-00:50:56:aa:bb:cc`, `ifroute-eth-id-…`.
pub(super) fn named_by_address(draft: &Draft<'_>) -> Result<Vec<String>> {
    let mut paths = listed(draft, NAMED, "")?;
    paths.retain(|path| path.contains("-id-"));
    Ok(paths)
}

fn listed(draft: &Draft<'_>, folder: &str, ending: &str) -> Result<Vec<String>> {
    let mut names = draft.scene.tree.names(folder)?;
    names.retain(|name| name.ends_with(ending) && !is_backup(name));
    names.truncate(FILES_AT_MOST);
    Ok(names.into_iter().map(|name| format!("{folder}/{name}")).collect())
}

/// What editors and package managers leave behind, and nothing reads.
pub(super) fn is_backup(name: &str) -> bool {
    const ENDS: &[&str] =
        &["~", "-", ".bak", ".old", ".orig", ".save", ".swp", ".rej", ".rpmnew", ".rpmsave", ".rpmorig"];
    ENDS.iter().any(|end| name.ends_with(end)) || name.contains(".dpkg-") || name.contains(".ucf-")
}
