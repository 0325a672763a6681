//! What of libvirt's definitions matters when one is registered: names, ids, addresses, files and networks; and the commands
//! that people are told to type.
//!
//! Source: libvirt, "Domain XML format"; virsh(1). Deliberately absent: everything else of a definition, which
//! `hypervisor::libvirt` reads and writes.

use super::super::Identity;
use super::Planned;
use crate::finding;
use crate::hypervisor::text::shell;
use crate::hypervisor::xml::Element;
use crate::machine::parse_mac;
use landfall_boot::check::Finding;
use landfall_image::{Error, Result};
use std::path::Path;

/// A machine that is defined there.
pub(super) struct Domain {
    pub uuid: String,
    pub identity: Identity,
    pub files: Vec<String>,
}

/// A disk's name in a folder with the disks of many machines: whose it is stands first, whatever it was called.
pub(super) fn stored_name(machine: &str, file: &str) -> String {
    format!("{machine}-{file}")
}

/// A command of virsh for people to type: at that connection, with names as a shell takes them.
pub(super) fn typed(uri: &str, verb: &str, names: &[&str]) -> String {
    let names: String = names.iter().map(|name| format!(" {}", shell(name))).collect();
    format!("virsh -c {} {verb}{names}", shell(uri))
}

fn devices<'e>(root: &'e Element, kind: &'e str) -> impl Iterator<Item = &'e Element> {
    root.child("devices").into_iter().flat_map(move |devices| devices.all(kind))
}

/// The networks of libvirt's own that a definition's cards are plugged into.
pub(super) fn networks(root: &Element) -> Vec<&str> {
    let cards = devices(root, "interface");
    let mut names: Vec<&str> = cards.filter_map(|card| card.child("source")?.attribute("network")).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What of a definition must not be there twice.
pub(super) fn domain(uuid: String, root: &Element) -> Domain {
    let mut files = Vec::new();
    for disk in devices(root, "disk") {
        // A running machine's shows what lies below its image, and what it is mirrored to.
        let mut open = vec![disk];
        while let Some(element) = open.pop() {
            if let Some(source) = element.child("source") {
                files.extend(
                    ["file", "dev"].iter().filter_map(|key| source.attribute(key)).map(str::to_owned),
                );
            }
            open.extend(["backingStore", "mirror"].iter().flat_map(|name| element.all(name)));
        }
    }
    let mac = |card: &Element| parse_mac(card.child("mac")?.attribute("address")?);
    let identity = Identity {
        name: root.text_at("name").unwrap_or_default().to_owned(),
        uuid: root.text_at("uuid").and_then(|text| text.parse().ok()),
        macs: devices(root, "interface").map(mac).collect(),
    };
    Domain { uuid, identity, files }
}

/// What of `identity` the machines at `uri` have already.
pub(super) fn collide(domains: &[Domain], identity: &Identity, uri: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for other in domains {
        let name = &other.identity.name;
        let by = typed(uri, "undefine --nvram --domain", &[&other.uuid]);
        if *name == identity.name {
            findings.push(finding::TARGET_NAME_TAKEN.finding(
                format!("A machine with the name {name:?} is there already."),
                format!("{by}, if it is an earlier try; or convert again with --name."),
            ));
        }
        if identity.uuid.is_some() && other.identity.uuid == identity.uuid {
            findings.push(finding::TARGET_ID_TAKEN.finding(
                format!("{name:?} has the UUID {} already.", other.uuid),
                format!("It is another copy of this machine: {by}, if it is an earlier try."),
            ));
        }
        for mac in other.identity.macs.iter().flatten().filter(|mac| identity.has(mac)) {
            findings.push(finding::TARGET_ADDRESS_TAKEN.finding(
                format!("{name:?} has a network card with the address {mac}."),
                format!(
                    "It is another copy of this machine: {by}, if it is an earlier try; or give this one another \
                     address with --map."
                ),
            ));
        }
    }
    findings
}

/// Every disk where it was placed, every card with the address that it was written with: nothing else is a machine of ours.
pub(super) fn verify(planned: &Planned, found: &Domain) -> Result<()> {
    let files = planned.disks.iter().all(|(_, goes)| found.files.iter().any(|file| Path::new(file) == goes));
    let (ours, theirs) = (&planned.identity.macs, &found.identity.macs);
    // A card without an address was given one.
    let is_it = |(ours, theirs): (&Option<String>, &Option<String>)| ours.is_none() || ours == theirs;
    let cards = ours.len() == theirs.len() && ours.iter().zip(theirs).all(is_it);
    let name = planned.identity.name == found.identity.name;
    match files && cards && name {
        true => Ok(()),
        false => Err(Error::corrupt(format!(
            "libvirt defined {:?} with another name, other disks or other addresses than it was told",
            planned.identity.name
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_machine_that_must_not_be_there_twice_is_seen() {
        let text = "<domain><name>a</name><uuid>564d9bef-acd9-b4e0-c8f0-aea8b9103515</uuid><devices>\
            <disk><source file='/i/top.qcow2'/><backingStore><source file='/i/base.qcow2'/><backingStore>\
            <source dev='/dev/vg/x'/></backingStore></backingStore></disk><disk device='cdrom'/>\
            <interface><mac address='52:54:00:AB:cd:01'/></interface></devices></domain>";
        let found = domain("u".into(), &Element::parse(text.as_bytes()).unwrap());
        assert_eq!(found.files, ["/i/top.qcow2", "/i/base.qcow2", "/dev/vg/x"]);
        let same = found.identity.clone();
        let all =
            |identity: &Identity| collide(std::slice::from_ref(&found), identity, "qemu+ssh://it's/system");
        let ids = |identity: &Identity| -> Vec<&str> { all(identity).iter().map(|found| found.id).collect() };
        assert_eq!(ids(&same), ["target-name-taken", "target-id-taken", "target-address-taken"]);
        // What is printed can be typed: at the right connection, and for a machine with UEFI, too.
        for finding in all(&same) {
            let wanted = r"virsh -c 'qemu+ssh://it'\''s/system' undefine --nvram --domain 'u'";
            assert!(finding.remedy.contains(wanted), "{}", finding.remedy);
        }
        let other = Identity { name: "b".into(), ..Identity::default() };
        assert!(ids(&other).is_empty());
        assert_eq!(ids(&Identity { macs: same.macs.clone(), ..other.clone() }), ["target-address-taken"]);
        // Two cards without an address have no address in common.
        let blank = Domain { identity: Identity { macs: vec![None], ..Identity::default() }, ..found };
        assert!(collide(&[blank], &Identity { macs: vec![None], ..other }, "").is_empty());
    }

    #[test]
    fn a_card_with_another_cards_address_is_none_of_ours() {
        let parsed = |addresses: &[&str]| {
            let card = |address: &&str| match *address {
                "" => "<interface/>".to_owned(),
                some => format!("<interface><mac address='{some}'/></interface>"),
            };
            let cards: String = addresses.iter().map(card).collect();
            let text = format!("<domain><name>a</name><devices>{cards}</devices></domain>");
            domain(String::new(), &Element::parse(text.as_bytes()).unwrap())
        };
        let (one, other) = ("52:54:00:00:00:01", "52:54:00:00:00:02");
        let planned = |addresses: &[&str]| Planned {
            variables: None,
            definition: String::new(),
            uuid: uuid::Uuid::nil(),
            identity: parsed(addresses).identity,
            disks: Vec::new(),
        };
        for (ours, theirs, fits) in [
            (&["", one][..], &[other, one][..], true),
            (&["", one], &[one, other], false),
            (&[one, other], &[other, one], false),
            (&[one], &[one, other], false),
        ] {
            assert_eq!(verify(&planned(ours), &parsed(theirs)).is_ok(), fits, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn names_in_a_common_folder_tell_whose_they_are() {
        assert_eq!(stored_name("web01", "disk0.qcow2"), "web01-disk0.qcow2");
        // The machine `web` has such a file, too, in its own folder.
        assert_eq!(stored_name("web", "web01-disk0.qcow2"), "web-web01-disk0.qcow2");
    }
}
