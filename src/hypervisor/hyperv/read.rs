//! A Hyper-V configuration becomes a machine.
//!
//! The identity that the guest reads is `bios_guid`: its first three fields lie in SMBIOS with their lowest byte first, as the
//! specification has it and as Windows and SMBIOS 2.6 read them. (Linux in generation 1, whose SMBIOS is 2.3, shows them
//! the other way round.)
//!
//! Deliberately absent: checkpoints (each has a configuration of its own, which can be read like this one), the UEFI variables,
//! and what the guest's clock counts in, which Hyper-V does not record.

use super::devices::{self, Class, Device};
use super::tree::{Node, Value};
use super::{keys, network, storage, vmcx};
use crate::finding;
use crate::hypervisor::xml::Element;
use crate::hypervisor::{Choice, Parsed};
use crate::machine::{BootDevice, Cpus, Machine};
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::{Bytes, Error, Result};
use uuid::Uuid;

/// Hyper-V 2025 allows 2048 processors and 240 TiB; far beyond them the number is damage.
const CPUS_AT_MOST: u64 = 4096;
const MEMORY_AT_MOST_MIB: u64 = 1 << 30;

/// Templates of secure boot, by which the target's script chooses again.
const TEMPLATES: &[&str] = &[
    // MicrosoftWindows, MicrosoftUEFICertificateAuthority
    "1734c6e8-3154-4dda-ba5f-a874cc483422",
    "272e7447-90a4-4563-a4b9-8e4ab00526ce",
    "00000000-0000-0000-0000-000000000000",
];

/// True for a binary configuration.
pub fn recognise_vmcx(bytes: &[u8]) -> bool {
    vmcx::recognise(bytes)
}

/// True for an XML configuration: UTF-16 or UTF-8, with Hyper-V's root.
pub fn recognise_xml(bytes: &[u8]) -> bool {
    let head: Vec<u8> = bytes.iter().take(4096).copied().filter(|byte| *byte != 0).collect();
    let has = |word: &[u8]| head.windows(word.len()).any(|part| part == word);
    has(b"<configuration>") && (has(b"VDEVVersion") || has(b"type=\"integer\"") || has(b"<properties>"))
}

/// Reads a .vmcx.
pub fn parse_vmcx(bytes: &[u8], choice: &Choice) -> Result<Parsed> {
    let tree = vmcx::parse(bytes)?;
    if let Some(machines) = tree.at("Configurations/VirtualMachines") {
        let paths: Vec<String> = machines.children.iter().filter_map(Node::shown).collect();
        return Err(Error::unsupported("is a host's list of its machines, not a machine")
            .hint(format!("name a machine's own file: {}", paths.join(", "))));
    }
    match tree.child("configuration") {
        Some(configuration) => machine(configuration, choice),
        None => Err(Error::unsupported(
            "is a store of Hyper-V without a configuration: a machine's runtime state",
        )
        .hint("name the machine's .vmcx file instead")),
    }
}

/// Reads an XML configuration.
pub fn parse_xml(bytes: &[u8], choice: &Choice) -> Result<Parsed> {
    let root = Element::parse(bytes)?;
    if root.name != "configuration" {
        return Err(Error::unsupported(format!(
            "is XML with the root <{}>, not Hyper-V's <configuration>",
            root.name
        )));
    }
    machine(&Node::from_xml(&root)?, choice)
}

fn machine(tree: &Node, choice: &Choice) -> Result<Parsed> {
    let Some(properties) = tree.child("properties") else {
        return Err(Error::corrupt("is no machine: it has no properties"));
    };
    if choice.snapshot.is_some() {
        return Err(Error::refused("has its checkpoints in files of their own")
            .hint("name the checkpoint's file below Snapshots instead, without --snapshot"));
    }
    let mut findings = Vec::new();
    match properties.text("type_id") {
        None | Some("Virtual Machines" | "Planned Virtual Machines") => {}
        Some("Snapshots") => findings.push(
            finding::SNAPSHOTS
                .finding("This is a checkpoint: what is converted is the machine as it was then.", ""),
        ),
        Some(other) => {
            return Err(Error::unsupported(format!("describes {other}, not a machine")));
        }
    }
    let firmware = match properties.number("subtype") {
        None | Some(0) => Firmware::Bios,
        Some(1) => Firmware::Uefi,
        Some(other) => {
            return Err(Error::unsupported(format!(
                "has the subtype {other}; generation 1 (0) and 2 (1) are known"
            )));
        }
    };
    let devices = devices::of(tree);
    let mut unread = keys::unread(tree);
    let mut machine = Machine::new(properties.text("name").unwrap_or_default(), memory(tree, &mut findings)?);
    machine.annotation = properties.text("notes").map(str::to_owned);
    machine.firmware = firmware;
    machine.cpus = cpus(tree)?;
    firmware_and_identity(&mut machine, &devices, &mut findings, &mut unread)?;
    security(&mut machine, tree, &mut findings);
    let storage = storage::read(&devices);
    machine.disks = storage.disks;
    findings.extend(storage.findings);
    unread.extend(storage.unread);
    machine.nics = network::read(&devices, &mut findings)?;
    left_out(&devices, &mut findings, &mut unread);
    state(tree, storage.has_children, &mut findings);
    Ok(Parsed { machine, findings, unread })
}

fn bounded(tree: &Node, path: &str, at_most: u64) -> Result<Option<u64>> {
    match tree.number(path) {
        Some(number) if number > at_most => {
            Err(Error::corrupt(format!("{path} = {number}; at most {at_most} is possible")))
        }
        other => Ok(other),
    }
}

fn memory(tree: &Node, findings: &mut Vec<Finding>) -> Result<Bytes> {
    let size = bounded(tree, "settings/memory/bank/size", MEMORY_AT_MOST_MIB)?
        .ok_or_else(|| Error::corrupt("does not say how much memory the machine has"))?
        .max(1);
    let limit = bounded(tree, "settings/memory/bank/limit", MEMORY_AT_MOST_MIB)?.unwrap_or(size);
    if tree.flag("settings/memory/bank/dynamic_memory_enabled") {
        let least = tree.number("settings/memory/bank/reservation").unwrap_or(size);
        findings.push(finding::NOT_HELD.finding(
            format!(
                "The machine has dynamic memory: it starts with {size} MiB and gets {least} to {limit} MiB as it needs. At the target it has {size} MiB."
            ),
            "Give it at the target as much as it used at the source under load (Get-VM shows MemoryDemand).",
        ));
    }
    Ok(Bytes::mib(size))
}

fn cpus(tree: &Node) -> Result<Cpus> {
    let number = |path: &str| -> Result<Option<u32>> {
        let number = bounded(tree, &format!("settings/processors/{path}"), CPUS_AT_MOST)?;
        Ok(number.map(|number| u32::try_from(number).unwrap_or(u32::MAX)))
    };
    let count = number("count")?.unwrap_or(1).max(1);
    // 0 is as many threads as the host's own cores have, which a definition does not tell.
    let threads = number("hwthreads")?.unwrap_or(1).max(1);
    let socket = match (number("vnuma/count_per_node/max")?, number("vnuma/node_per_socket/max")?) {
        (Some(node), Some(nodes)) => node.max(1).saturating_mul(nodes.max(1)).min(count),
        // Before 2012 all processors were one socket's.
        _ => count,
    };
    Ok(Cpus::new(count, (socket / threads).max(1), threads))
}

fn firmware_and_identity(
    machine: &mut Machine,
    devices: &[Device<'_>],
    findings: &mut Vec<Finding>,
    unread: &mut Vec<String>,
) -> Result<()> {
    let Some(bios) = devices.iter().find(|device| device.class == Class::Bios).and_then(|device| device.keys)
    else {
        return Ok(());
    };
    if let Some(text) = bios.text("bios_guid") {
        let id = Uuid::parse_str(text.trim_matches(['{', '}']));
        let id = id.map_err(|_| Error::corrupt(format!("bios_guid = {text:?}, which is no GUID")))?;
        machine.smbios.uuid = Some(id).filter(|id| !id.is_nil());
    }
    let serial = bios.text("bios_serial_number");
    machine.smbios.serial = serial.map(str::to_owned);
    for other in ["base_board/serial_number", "chassis/serial_number", "chassis/asset_tag"] {
        if bios.text(other).is_some_and(|text| Some(text) != serial) {
            unread.push(format!("bios/{other}"));
        }
    }
    if machine.firmware == Firmware::Bios {
        machine.boot_order = boot_order(bios, unread);
        return Ok(());
    }
    machine.secure_boot = bios.flag("secure_boot_enabled");
    let template = bios.text("secure_boot_template_id").unwrap_or_default().to_ascii_lowercase();
    if machine.secure_boot && !template.is_empty() && !TEMPLATES.contains(&template.as_str()) {
        findings.push(finding::NOT_HELD.finding(
            format!("Secure boot goes by the template {template}, which is neither Microsoft's for Windows nor the one of its UEFI CA."),
            "Enrol the same keys at the target, or switch secure boot off there.",
        ));
    }
    let state = devices.iter().filter_map(|device| device.keys).find_map(|keys| keys.text("StateFilePath"));
    machine.nvram = state.map(str::to_owned);
    Ok(())
}

/// What BIOS tries, in order; UEFI keeps that in its variables.
fn boot_order(bios: &Node, unread: &mut Vec<String>) -> Vec<BootDevice> {
    let Some(boot) = bios.child("boot") else { return Vec::new() };
    let mut order = Vec::new();
    for (number, device) in boot.numbered("device") {
        let device = match &device.value {
            Value::Text(text) => text.as_str(),
            _ => "",
        };
        order.push(match device {
            "Optical" => BootDevice::Cdrom,
            "HardDrive" => BootDevice::Disk,
            "Network" => BootDevice::Nic(0),
            "Floppy" => BootDevice::Floppy,
            "" => continue,
            _ => {
                unread.push(format!("bios/boot/device{number}"));
                continue;
            }
        });
    }
    order
}

fn security(machine: &mut Machine, tree: &Node, findings: &mut Vec<Finding>) {
    machine.tpm = tree.flag("security/settings/tpm_enabled");
    if tree.flag("security/settings/shielding_requested") {
        findings.push(finding::NOT_HELD.finding(
            "The machine is shielded: its disks are encrypted with keys of a guarded fabric.",
            "Take the shielding off at the source (decrypt the volumes in the guest), then copy it again.",
        ));
    }
    if let Some(kind) = tree.number("settings/isolation/type").filter(|kind| !matches!(kind, 0 | 16)) {
        findings.push(finding::NOT_HELD.finding(
            format!("The machine is isolated from its host (confidential computing, kind {kind}); at the target it is an ordinary one."),
            "",
        ));
    }
}

/// Devices that no target gets.
fn left_out(devices: &[Device<'_>], findings: &mut Vec<Finding>, unread: &mut Vec<String>) {
    let mut serial = false;
    for device in devices {
        match (device.class, device.keys) {
            (Class::Serial, Some(keys)) => {
                serial |= keys.numbered("port").iter().any(|(_, port)| port.text("connection").is_some());
            }
            (Class::Passthrough, keys) => {
                let resource = keys.and_then(|keys| {
                    keys.text("HostResources/HostResource/Instance").or(keys.text("HostResource"))
                });
                let of = resource.map(|resource| format!(" ({resource})")).unwrap_or_default();
                let name = if device.name.is_empty() { "a physical device" } else { device.name };
                findings.push(finding::PASSTHROUGH.finding(
                    format!("The machine has {name}{of}, which cannot be carried over."),
                    "Give it such a device at the target, or remove its driver from the guest.",
                ));
            }
            // The guest service for files is off unless somebody wants it; the others are on.
            (Class::Integration, Some(keys))
                if keys.at("Enabled").is_some_and(|on| on.value == Value::Bool(false))
                    && !device.name.contains("Guest Interface") =>
            {
                unread.push(format!("{:?} is off", device.name));
            }
            (Class::Unknown, _) if !device.name.is_empty() => {
                unread.push(format!("device {:?}", device.name))
            }
            _ => {}
        }
    }
    if serial {
        findings
            .push(finding::DEVICE_LEFT_OUT.finding("The machine has a serial port, which is left out.", ""));
    }
}

fn state(tree: &Node, has_children: bool, findings: &mut Vec<Finding>) {
    let is_saved = tree.text("savedstate/type").is_some() || tree.text("savedstate/vsvlocation").is_some();
    if is_saved || tree.flag("savedstate/in_progress") {
        findings.push(finding::SUSPENDED.finding(
            "The machine is saved: what was in its memory is lost, and its file systems are as after a power cut.",
            "Start it and shut it down at the source for a clean copy.",
        ));
    }
    let count = tree.number("global_settings/snapshots/list/size").unwrap_or(0);
    if count > 0 || has_children {
        let number = if count > 0 { format!("{count} checkpoints") } else { "checkpoints".to_owned() };
        findings.push(finding::SNAPSHOTS.finding(
            format!("The machine has {number}; its current state is what is converted."),
            "Name a file below Snapshots as the source to convert that state instead.",
        ));
    }
    if tree.flag("global_settings/disk_merge_pending") {
        findings.push(finding::SNAPSHOTS.finding(
            "A checkpoint was deleted, and its disks are not merged yet.",
            "Let the source finish (it merges while the machine is off) for a shorter chain.",
        ));
    }
}

#[cfg(test)]
mod tests;
