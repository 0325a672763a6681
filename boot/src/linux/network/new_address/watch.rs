//! Places that hold an old address and are not edited: identifiers that DHCP clients keep, and files of which it is not
//! known who reads them, looked for in the folders of an administrator's configuration.
//!
//! Deliberately absent: /opt, /srv and home folders, where programs with licences bound to an address lie: they are too large to
//! search, and the explanation of the finding names them.

use super::{Renewal, places};
use crate::Result;
use crate::linux::draft::Draft;
use crate::linux::text;
use crate::tree::{CONFIG_AT_MOST, Entry, NodeKind};
use landfall_image::Bytes;
use std::collections::BTreeSet;

/// Where a stranger is looked for.
const ROOTS: &[&str] = &[
    "/etc",
    "/usr/local/etc",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
    // What cloud-init remembers of its data source.
    "/var/lib/cloud/instances",
    // ConnMan calls a folder by the address.
    "/var/lib/connman",
];

/// Folders that hold nothing of the kind, and much.
const LEFT_OUT: &[&str] = &[
    "/etc/.git",
    "/etc/alternatives",
    "/etc/apparmor.d",
    "/etc/ca-certificates",
    "/etc/fonts",
    "/etc/lvm/archive",
    "/etc/lvm/backup",
    "/etc/pki",
    "/etc/selinux",
    "/etc/ssl",
];

/// systemd's hardware database: 10 MiB of makers and models, and no address of a card.
const LEFT_OUT_FILES: &[&str] = &["/etc/udev/hwdb.bin"];

/// Server systems have 1500 files below /etc, large ones 6000.
const FILES_AT_MOST: usize = 16_384;

/// All that is searched, in bytes; a single file is configuration up to a bound of its own.
const BYTES_AT_MOST: Bytes = Bytes::mib(128);
const FILE_AT_MOST: Bytes = Bytes::mib(1);

/// Names of larger files that a finding lists.
const NAMES_AT_MOST: usize = 8;

/// `/etc/a/b/c/…`
const DEPTH_AT_MOST: usize = 8;

/// What DHCP clients keep of themselves: text, or octets.
const IDENTIFIERS: &[&str] = &[
    "/etc/dhcp/dhclient.conf",
    "/etc/dhclient.conf",
    "/etc/dhcpcd.conf",
    "/etc/dhcpcd.duid",
    "/var/lib/dhcpcd/duid",
    "/var/lib/dhcpcd5/duid",
    "/var/lib/wicked/duid.xml",
    "/var/lib/dhcpv6/dhcp6c_duid",
    "/var/lib/dhcp/dhclient6.leases",
    "/var/lib/dhclient/dhclient6.leases",
    "/etc/systemd/networkd.conf",
];

/// Says which client of DHCP identifies itself by something that has an old address in it.
pub(super) fn identifiers(draft: &mut Draft<'_>, renewal: &Renewal) -> Result<()> {
    for path in IDENTIFIERS {
        let Some(bytes) = draft.read(path)? else { continue };
        let lines = || text::lines(&bytes).map(|(body, _)| body).filter(|body| !text::is_comment(body));
        let found = lines()
            .find_map(|body| renewal.changes.find(body))
            .or_else(|| renewal.changes.find_octets(&bytes))
            .or_else(|| lines().find_map(|body| renewal.changes.find_octets(&unescaped(body))));
        if let Some(at) = found {
            identifier(draft, renewal.pair(at), path);
        }
    }
    Ok(())
}

/// As dhclient writes octets between quotes: `\000PV\252`.
fn unescaped(line: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((first, more)) = rest.split_first() {
        let number = more
            .get(..3)
            .filter(|digits| *first == b'\\' && digits.iter().all(|byte| (b'0'..b'8').contains(byte)));
        let number = number.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match (number, more.first()) {
            (Some(octet), _) => {
                octets.push(octet);
                rest = more.get(3..).unwrap_or_default();
            }
            (None, Some(escaped)) if *first == b'\\' => {
                octets.push(*escaped);
                rest = more.get(1..).unwrap_or_default();
            }
            _ => {
                octets.push(*first);
                rest = more;
            }
        }
    }
    octets
}

/// The finding about an identifier.
pub(super) fn identifier(draft: &mut Draft<'_>, (old, new): (&str, &str), path: &str) {
    draft.find(
        "linux-nic-identifier",
        format!("{path} has an identifier for DHCP that was made of the hardware address {old}; the card has {new} at the target."),
        "Leave it where the DHCP server knows the machine by it; give the machine another one where it runs beside the source.",
    );
}

/// The finding about a file that is not known.
pub(super) fn stranger(draft: &mut Draft<'_>, (old, new): (&str, &str), path: &str) {
    draft.find(
        "linux-nic-old-address",
        format!("{path} holds the hardware address {old} of a card that has {new} at the target, and was left as it is."),
        "Put the new address in its place, where it is meant for this machine.",
    );
}

/// Says which files hold an old address and are none of those that are `known`.
pub(super) fn strangers(draft: &mut Draft<'_>, renewal: &Renewal, known: &BTreeSet<String>) -> Result<()> {
    let mut open: Vec<(String, usize)> = ROOTS.iter().rev().map(|root| ((*root).to_owned(), 0)).collect();
    let (mut files, mut bytes) = (0, 0u64);
    let mut is_full = false;
    let mut large = Vec::new();
    // Where /usr has all, it is searched there.
    let is_merged = draft.scene.tree.read_link("/lib")?.is_some();
    open.retain(|(root, _)| !(is_merged && root.starts_with("/lib/")));
    while let Some((folder, depth)) = open.pop() {
        for Entry { name, kind } in draft.scene.tree.list(&folder)?.unwrap_or_default() {
            files += 1;
            if files > FILES_AT_MOST || bytes > BYTES_AT_MOST.0 {
                is_full = true;
                break;
            }
            let path = format!("{folder}/{name}");
            if let Some(at) =
                renewal.changes.find(name.as_bytes()).filter(|_| !known.contains(&path) && !is_gone(&name))
            {
                stranger(draft, renewal.pair(at), &path);
                continue;
            }
            match kind {
                NodeKind::Dir if !LEFT_OUT.contains(&path.as_str()) => {
                    is_full |= depth >= DEPTH_AT_MOST;
                    if depth < DEPTH_AT_MOST {
                        open.push((path, depth + 1));
                    }
                }
                NodeKind::File
                    if !known.contains(&path) && !is_gone(&name) && !IDENTIFIERS.contains(&path.as_str()) =>
                {
                    let size = draft.scene.tree.metadata(&path)?.map_or(Bytes(0), |meta| meta.size);
                    if size > FILE_AT_MOST {
                        if !LEFT_OUT_FILES.contains(&path.as_str()) {
                            large.push(path);
                        }
                        continue;
                    }
                    bytes = bytes.saturating_add(size.0);
                    let Some(file) = draft.scene.tree.read(&path, CONFIG_AT_MOST)? else { continue };
                    let lines = text::lines(&file).map(|(body, _)| body);
                    let mut lines = lines.filter(|body| !is_comment(body));
                    if let Some(at) = lines.find_map(|body| renewal.changes.find(body)) {
                        stranger(draft, renewal.pair(at), &path);
                    }
                }
                _ => {}
            }
        }
        if files > FILES_AT_MOST || bytes > BYTES_AT_MOST.0 {
            break;
        }
    }
    if !large.is_empty() {
        let names: Vec<&str> = large.iter().take(NAMES_AT_MOST).map(String::as_str).collect();
        let more = match large.len().saturating_sub(names.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        draft.find(
            "linux-file-unreadable",
            format!(
                "Old hardware addresses were not looked for in files above {FILE_AT_MOST}: {}{more}.",
                names.join(", ")
            ),
            "Search those that are configuration by hand.",
        );
    }
    if is_full {
        draft.find(
            "linux-file-unreadable",
            format!(
                "Old hardware addresses were looked for in {FILES_AT_MOST} files or {BYTES_AT_MOST} below {} only.",
                ROOTS.join(", ")
            ),
            "Search the rest of these folders by hand.",
        );
    }
    Ok(())
}

/// What nothing reads, and what landfall itself put beside a file.
fn is_gone(name: &str) -> bool {
    places::is_backup(name) || name.contains(".landfall")
}

fn is_comment(line: &[u8]) -> bool {
    text::is_comment(line)
        || [&b";"[..], b"//"].iter().any(|start| line.trim_ascii_start().starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_of_dhclient_are_read() {
        assert_eq!(
            unescaped(br#"default-duid "\000\001\000\001*\037\274\013\000PV\252\"\\";"#),
            b"default-duid \"\0\x01\0\x01*\x1f\xbc\x0b\0PV\xaa\"\\\";"
        );
        assert_eq!(unescaped(br"\9\777\00"), br"9777".iter().copied().chain(*b"00").collect::<Vec<u8>>());
    }
}
