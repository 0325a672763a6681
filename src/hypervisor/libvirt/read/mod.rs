//! libvirt's domain XML: the machine that it defines.
//!
//! Source: libvirt's "Domain XML format" and its schema (domaincommon.rng). What the schema leaves open (units, defaults, which
//! controller a disk without an address is on) is as libvirt's parser has it. Read are `<domain>`, as `virsh dumpxml` and
//! /etc/libvirt/qemu have it, the `<domain>` in a `<domainsnapshot>` and the one in libvirtd's own `<domstatus>`.
//!
//! Deliberately absent: processors other than x86, containers and paravirtual machines (refused), and what belongs to the host:
//! its tuning, labels and sockets, which are named as not read.

mod disks;
mod nics;
mod pci;
mod platform;
mod unread;

use super::super::xml::Element;
use crate::finding;
use crate::hypervisor::{Choice, Parsed};
use crate::machine::{BootDevice, Machine};
use landfall_boot::check::{Explanation, Finding};
use landfall_image::{Error, Result};
use std::collections::BTreeSet;

/// True for XML whose root is one of those that are read.
pub fn recognise(bytes: &[u8]) -> bool {
    root_name(bytes).is_some_and(|name| [&b"domain"[..], b"domainsnapshot", b"domstatus"].contains(&name))
}

/// The name of the first element: what stands before it is skipped.
fn root_name(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    loop {
        rest = rest.trim_ascii_start();
        let end: &[u8] = match rest {
            [b'<', b'!', b'-', b'-', ..] => b"-->",
            [b'<', b'?', ..] => b"?>",
            _ => break,
        };
        let at = rest.windows(end.len()).position(|part| part == end)?;
        rest = &rest[at + end.len()..];
    }
    let name = rest.strip_prefix(b"<")?;
    let end = name.iter().position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/'))?;
    Some(&name[..end])
}

/// What is said of the definition while it is read.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
    unread: BTreeSet<String>,
}

impl Report {
    fn say(&mut self, row: &Explanation, says: impl Into<String>, remedy: &str) {
        self.findings.push(row.finding(says, remedy));
    }

    fn unread(&mut self, name: impl Into<String>) {
        // A definition with more is no definition; the rest is counted by its first names.
        if self.unread.len() < NAMES_AT_MOST {
            let name: String = name.into().chars().take(NAME_AT_MOST).collect();
            self.unread.insert(crate::hypervisor::text::one_line(&name));
        }
    }
}

/// Names of settings in one report; the schema has fewer.
const NAMES_AT_MOST: usize = 512;
const NAME_AT_MOST: usize = 128;

/// What a device's place in the order of starting is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Boot {
    Disk(usize),
    Cdrom,
    Floppy,
    Nic(usize),
}

/// Places in the order of starting, and what is there.
type Order = Vec<(u64, Boot)>;

/// Reads a definition.
///
/// # Errors
/// Corrupt where it is no XML or a value makes no sense, unsupported where it is no x86 machine with virtual hardware, refused where it
/// is not what was chosen.
pub fn parse(bytes: &[u8], choice: &Choice) -> Result<Parsed> {
    let root = Element::parse(bytes)?;
    let mut report = Report::default();
    let domain = find_domain(&root, choice, &mut report)?;
    let hypervisor = check_kind(domain)?;
    let name = domain.text_at("name").unwrap_or_default();
    if choice.system.as_deref().is_some_and(|wanted| wanted != name && Some(wanted) != domain.text_at("uuid"))
    {
        return Err(Error::refused(format!("defines {name:?} and no other machine"))
            .hint("leave the choice of a machine out"));
    }
    let mut machine = Machine::new(name, platform::memory(domain, &mut report)?);
    if domain.attribute("id").is_some() {
        report.say(
            &finding::RUNNING,
            "The definition is one of a running machine: it has an id.",
            "Shut the machine down at the source before its disks are read, or convert a snapshot of them.",
        );
    }
    machine.annotation = annotation(domain);
    metadata(domain, &mut machine);
    platform::read(domain, &mut machine, &mut report)?;
    let empty = Element::default();
    let devices = domain.child("devices").unwrap_or(&empty);
    let mut order = Order::new();
    machine.disks = disks::read(devices, hypervisor, &mut order, &mut report)?;
    let names = pci::Names::new(domain, devices, hypervisor);
    machine.nics = nics::read(devices, &names, &mut order, &mut report)?;
    machine.tpm = platform::tpm(devices, &mut report);
    boot_order(domain, &mut machine, order, &mut report);
    unread::devices(devices, &mut report);
    unread::domain(domain, &mut report);
    Ok(Parsed { machine, findings: report.findings, unread: report.unread.into_iter().collect() })
}

/// The definition in the document.
fn find_domain<'a>(root: &'a Element, choice: &Choice, report: &mut Report) -> Result<&'a Element> {
    let inner = || {
        root.child("domain").filter(|domain| domain.attribute("type").is_some()).ok_or_else(|| {
            Error::unsupported("holds no definition of the machine")
                .hint("name the output of virsh dumpxml --inactive MACHINE")
        })
    };
    let chosen = choice.snapshot.as_deref();
    match (root.name.as_str(), chosen) {
        ("domain", None) => Ok(root),
        ("domain", Some(_)) => Err(Error::refused("does not say what the machine's snapshots are")
            .hint("name the output of virsh snapshot-dumpxml MACHINE SNAPSHOT, or leave --snapshot out")),
        ("domainsnapshot", _) => {
            let name = root.text_at("name").unwrap_or_default();
            if chosen.is_some_and(|wanted| wanted != name) {
                return Err(Error::refused(format!("is the snapshot {name:?} and no other")).hint(
                    "leave --snapshot out, or name the output of virsh snapshot-dumpxml for that one",
                ));
            }
            report.say(
                &finding::SNAPSHOTS,
                format!(
                    "The definition is the one of the snapshot {name:?}; the images that it names are read as they are now, so what \
                     changed in them since is in the copy."
                ),
                "Revert to the snapshot at the source first where its content is what you want.",
            );
            inner()
        }
        ("domstatus", _) => inner(),
        (other, _) => {
            Err(Error::corrupt(format!("is no definition of libvirt: its first element is {other:?}")))
        }
    }
}

/// Which hypervisor the definition is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hypervisor {
    /// QEMU, with or without KVM.
    Qemu,
    /// VMware's.
    Vmware,
    /// Another that libvirt speaks to.
    Other,
}

fn check_kind(domain: &Element) -> Result<Hypervisor> {
    let kind = domain.attribute("type").unwrap_or_default();
    let hypervisor = match kind {
        "kvm" | "qemu" | "hvf" => Hypervisor::Qemu,
        "vmware" => Hypervisor::Vmware,
        "xen" | "test" => Hypervisor::Other,
        "" => return Err(Error::corrupt("is a domain without a type")),
        "lxc" | "openvz" => {
            return Err(Error::unsupported(format!(
                "is a container (type {kind:?}): it has no kernel and no disks of its own"
            ))
            .hint("make a machine at the target and copy the container's files into it"));
        }
        _ => {
            return Err(Error::unsupported(format!(
                "is a machine of type {kind:?}; kvm, qemu, hvf, xen, vmware and test are read"
            ))
            .hint("export the machine with that hypervisor's own tools, as OVA for instance"));
        }
    };
    let os = domain.at("os/type");
    match os.map(|os| os.text.as_str()) {
        Some("hvm") => {}
        Some(other) => {
            return Err(Error::unsupported(format!(
                "is a machine of type {kind:?} and {other:?}: it is paravirtual and has no firmware that starts it"
            ))
            .hint("change it into a fully virtual (hvm) machine at the source first"));
        }
        None => return Err(Error::corrupt("does not say what kind of machine it is (os/type)")),
    }
    match os.and_then(|os| os.attribute("arch")) {
        None | Some("x86_64" | "i686") => Ok(hypervisor),
        Some(arch) => Err(Error::unsupported(format!(
            "is a machine with {arch} processors; x86_64 and i686 are carried over"
        ))
        .hint("there is no way to run its guest on x86 hosts other than emulation")),
    }
}

/// What its owner wrote: the title and the description.
fn annotation(domain: &Element) -> Option<String> {
    let parts = [domain.text_at("title"), domain.text_at("description")];
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

fn metadata(domain: &Element, machine: &mut Machine) {
    machine.os_label =
        domain.at("metadata/libosinfo/os").and_then(|os| os.attribute("id")).map(str::to_owned);
    if let Some(tags) = domain.at("metadata/tags") {
        machine.tags = tags.all("tag").map(|tag| tag.text.clone()).filter(|text| !text.is_empty()).collect();
    }
}

/// The order in which the firmware tries devices: each device has a number, or, without any number, kinds have an order.
fn boot_order(domain: &Element, machine: &mut Machine, mut order: Order, report: &mut Report) {
    order.sort_by_key(|(number, _)| *number);
    if order.is_empty() {
        let kinds = domain.child("os").into_iter().flat_map(|os| os.all("boot"));
        for kind in kinds.filter_map(|boot| boot.attribute("dev")) {
            order.push(match kind {
                "hd" => (0, Boot::Disk(0)),
                "cdrom" => (0, Boot::Cdrom),
                "fd" => (0, Boot::Floppy),
                "network" if !machine.nics.is_empty() => (0, Boot::Nic(0)),
                _ => continue,
            });
        }
    }
    for (_, device) in order {
        let device = match device {
            Boot::Cdrom => BootDevice::Cdrom,
            Boot::Floppy => BootDevice::Floppy,
            Boot::Nic(index) => BootDevice::Nic(index),
            Boot::Disk(index) => {
                if machine.boot_order.contains(&BootDevice::Disk) {
                    // The firmware would try it after the boot disk.
                    report.unread("devices/disk/boot");
                    continue;
                }
                machine.boot_disk = Some(index).filter(|index| *index != 0);
                BootDevice::Disk
            }
        };
        if !machine.boot_order.contains(&device) {
            machine.boot_order.push(device);
        }
    }
}

/// A number of an attribute or element: decimal, or hexadecimal with `0x`.
fn number(what: &str, text: &str, at_most: u64) -> Result<u64> {
    let text = text.trim();
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    parsed.filter(|number| *number <= at_most).ok_or_else(|| {
        Error::corrupt(format!("{what} is {text:?}; a number from 0 to {at_most} is possible"))
    })
}

/// `boot order='1'` of a device.
fn order_of(device: &Element) -> Result<Option<u64>> {
    let Some(text) = device.child("boot").and_then(|boot| boot.attribute("order")) else { return Ok(None) };
    number("a device's place in the boot order", text, u32::MAX.into()).map(Some)
}

#[cfg(test)]
mod tests;
