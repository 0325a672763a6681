//! The script that makes a machine in Hyper-V: `register.ps1`.
//!
//! Source: Microsoft's reference of the Hyper-V module of PowerShell; `Msvm_VirtualSystemSettingData` for what has no cmdlet.
//! The script's body is fixed; what the machine says stands in it as literals at its top. It begins with a byte-order mark,
//! without which Windows PowerShell reads it in the host's 8-bit character set.
//!
//! Deliberately absent: NUMA (Hyper-V follows the host), dynamic memory (no source says how much the guest needs at the least).

use crate::finding;
use crate::hypervisor::text::{fill, one_line, powershell};
use crate::hypervisor::xml::holdable;
use crate::hypervisor::{Artifact, Placement, Rendered, fit, guests};
use crate::machine::{BootDevice, Clock, Machine, NicSlot};
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::{Error, Result};

const TITLE: &str = "Hyper-V";
/// Of a machine's name.
const NAME_AT_MOST: usize = 100;

/// `register.ps1`
pub fn render(machine: &Machine, placement: &Placement) -> Result<Rendered> {
    if placement.disks.len() != machine.disks.len() {
        return Err(Error::corrupt(format!(
            "{} disks are placed, the machine has {}",
            placement.disks.len(),
            machine.disks.len()
        )));
    }
    let mut findings = findings(machine);
    let name = called(&machine.name);
    if name.is_empty() {
        return Err(Error::unsupported(format!("Hyper-V takes no machine with the name {:?}", machine.name))
            .hint("give it another name with --name"));
    }
    if name != machine.name {
        findings.push(finding::NAME_CHANGED.finding(
            format!(
                "{} becomes {name}: a name in Hyper-V is that of a folder, too.",
                one_line(&machine.name)
            ),
            "Choose another one with --name.",
        ));
    }
    let text = script(machine, placement, &name)?;
    Ok(Rendered { artifacts: vec![Artifact::file("register.ps1", format!("\u{feff}{text}"))], findings })
}

/// The nearest name that a folder of Windows can have.
pub fn called(wanted: &str) -> String {
    let plain = |letter: char| match letter {
        '\\' | '/' | ':' | '*' | '?' | '"' | '<' | '>' | '|' => '_',
        letter if letter.is_control() => '_',
        letter => letter,
    };
    let name: String = wanted.trim().chars().map(plain).take(NAME_AT_MOST).collect();
    name.trim_end_matches(['.', ' ']).to_owned()
}

fn script(machine: &Machine, placement: &Placement, name: &str) -> Result<String> {
    let second = machine.firmware == Firmware::Uefi;
    let generation = if second {
        "The machine starts by UEFI, so it is of generation 2: all disks are on SCSI."
    } else {
        "The machine starts by BIOS, so it is of generation 1, which starts from the disk at IDE 0:0 only."
    };
    let guid = machine.smbios.uuid.map(|id| format!("{{{}}}", id.to_string().to_uppercase()));
    let mut disks = String::new();
    for (disk, placed) in machine.disks.iter().zip(&placement.disks) {
        let (kind, controller, location) = place(&disk.slot)?;
        disks += &format!(
            "    @{{ File = {}; Type = '{kind}'; Controller = {controller}; Location = {location} }}\n",
            powershell(&placed.file)
        );
    }
    let cards: String = machine.nics.iter().map(|nic| card(nic, placement)).collect();
    let flag = |yes: bool| if yes { "$true" } else { "$false" }.to_owned();
    let rest = placement.networks.rest.as_deref().unwrap_or_default();
    Ok(fill(
        include_str!("register.ps1"),
        &[
            ("@GENERATION@", generation.to_owned()),
            ("@NAME@", powershell(name)),
            ("@SWITCH@", powershell(&one_line(rest))),
            ("@STORAGE@", powershell(&one_line(placement.storage.as_deref().unwrap_or_default()))),
            ("@NUMBER@", if second { "2" } else { "1" }.to_owned()),
            // Hyper-V takes whole MiB, an even number of them.
            ("@MEMORY@", ((machine.memory.0 >> 20).max(32).next_multiple_of(2) << 20).to_string()),
            ("@PROCESSORS@", machine.cpus.count.to_string()),
            ("@THREADS@", machine.cpus.threads_per_core.to_string()),
            ("@SECURE_BOOT@", flag(second && machine.secure_boot)),
            ("@TEMPLATE@", powershell(guests::of(machine).hyperv_template())),
            ("@TPM@", flag(second && machine.tpm)),
            ("@GUID@", powershell(&guid.unwrap_or_default())),
            ("@SERIAL@", powershell(&one_line(machine.smbios.serial.as_deref().unwrap_or_default()))),
            ("@BOOT_DISK@", machine.boot_disk().to_string()),
            ("@NOTES@", powershell(&holdable(machine.annotation.as_deref().unwrap_or_default()))),
            ("@STARTUP@", startup(machine)),
            ("@DISKS@", disks),
            ("@CARDS@", cards),
        ],
    ))
}

/// `IDE 0:1` in its parts.
fn place(slot: &str) -> Result<(&str, u32, u32)> {
    let parts = slot.split_once(' ').and_then(|(kind, place)| {
        let (controller, location) = place.split_once(':')?;
        Some((kind, controller.parse().ok()?, location.parse().ok()?))
    });
    parts
        .filter(|(kind, ..)| matches!(*kind, "IDE" | "SCSI"))
        .ok_or_else(|| Error::corrupt(format!("{slot} is no place for a disk in Hyper-V")))
}

fn card(nic: &NicSlot, placement: &Placement) -> String {
    let mac = nic.mac.as_deref().unwrap_or_default().replace(':', "").to_uppercase();
    let named = nic.network.as_ref();
    let chosen = named.and_then(|source| placement.networks.map.iter().find(|(from, _)| from == source));
    let chosen = chosen.map(|(_, to)| one_line(to)).unwrap_or_default();
    let flag = |yes: bool| if yes { "$true" } else { "$false" };
    format!(
        "    @{{ Name = {}; Mac = {}; Switch = {}; Network = {}; Vlan = {}; Connected = {}; Legacy = {}; Plug = '' }}\n",
        powershell(&one_line(&nic.slot)),
        powershell(&mac),
        powershell(&chosen),
        powershell(&one_line(nic.network.as_deref().unwrap_or_default())),
        nic.vlan.unwrap_or(0),
        flag(nic.connected),
        flag(nic.model.as_deref() == Some("tulip")),
    )
}

/// What the firmware tries: words of `Set-VMBios` for generation 1, which takes all four; for generation 2 the boot disk and
/// cards by their numbers.
fn startup(machine: &Machine) -> String {
    let wanted = if machine.boot_order.is_empty() { &[BootDevice::Disk][..] } else { &machine.boot_order };
    let mut words: Vec<String> = Vec::new();
    let second = machine.firmware == Firmware::Uefi;
    for device in wanted {
        let word = match (device, second) {
            (BootDevice::Disk, true) => "'Disk'".to_owned(),
            (BootDevice::Nic(number), true) if *number < machine.nics.len() => number.to_string(),
            (_, true) => continue,
            (BootDevice::Disk, false) => "'IDE'".to_owned(),
            (BootDevice::Cdrom, false) => "'CD'".to_owned(),
            (BootDevice::Nic(_), false) => "'LegacyNetworkAdapter'".to_owned(),
            (BootDevice::Floppy, false) => "'Floppy'".to_owned(),
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    let rest: &[&str] =
        if second { &["'Disk'"] } else { &["'IDE'", "'CD'", "'LegacyNetworkAdapter'", "'Floppy'"] };
    for word in rest {
        if !words.iter().any(|has| has == word) {
            words.push((*word).to_owned());
        }
    }
    words.join(", ")
}

/// What Hyper-V has no place for.
fn findings(machine: &Machine) -> Vec<Finding> {
    let mut out = Vec::new();
    let mut lost = |says: String, remedy: &str| out.push(finding::NOT_HELD.finding(says, remedy));
    let cpus = machine.cpus;
    if cpus.sockets() > 1 {
        lost(
            format!(
                "The machine has {} sockets of {} cores; Hyper-V arranges processors as the host has them.",
                cpus.sockets(),
                cpus.cores_per_socket
            ),
            "Set-VMProcessor -MaximumCountPerNumaNode arranges them by hand where a licence counts sockets.",
        );
    }
    if machine.clock == Clock::LocalTime {
        lost(
            "The machine's clock counts local time at the source; Hyper-V's clock counts what its host's does.".to_owned(),
            "Let the time synchronisation of the integration services set the guest's time.",
        );
    }
    if machine.firmware == Firmware::Bios && machine.tpm {
        lost(
            "The machine starts by BIOS and has a TPM; in generation 1 there is none.".to_owned(),
            "Change the guest to UEFI before the move if it needs a TPM.",
        );
    }
    if !machine.tags.is_empty() {
        lost(
            format!("Hyper-V has no tags: {}.", one_line(&machine.tags.join(", "))),
            "Keep them in the machine's notes, or in groups (New-VMGroup).",
        );
    }
    for disk in machine.disks.iter().filter(|disk| disk.serial.is_some()) {
        lost(
            format!(
                "{} has the serial number {}; Hyper-V gives its disks ids of its own.",
                disk.slot,
                one_line(disk.serial.as_deref().unwrap_or_default())
            ),
            "Look whether the guest names disks by /dev/disk/by-id.",
        );
    }
    out.extend(fit::not_held(
        &fit::smbios_strings(machine, false),
        TITLE,
        "Look whether a licence in the guest goes by it.",
    ));
    out
}

#[cfg(test)]
mod tests;
