//! What VMware, VirtualBox and oVirt add to OVF: firmware, secure boot, TPM, hardware addresses.
//!
//! Source: exports of vSphere 6 to 8, VirtualBox 4 to 7 and oVirt 4; no part of it has a specification. Deliberately absent:
//! tuning of these hypervisors.

use super::envelope::Envelope;
use super::hardware::address;
use super::items::Item;
use crate::finding;
use crate::hypervisor::xml::Element;
use crate::hypervisor::{guests, vmware};
use crate::machine::{BootDevice, Clock, Machine};
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::{Error, Result};
use uuid::Uuid;

/// What is being put together.
pub(super) struct Rest {
    pub(super) machine: Machine,
    pub(super) findings: Vec<Finding>,
    pub(super) unread: Vec<String>,
}

/// Reads all of them.
pub(super) fn read(
    envelope: &Envelope<'_>,
    hardware: &Element,
    items: &[Item<'_>],
    rest: &mut Rest,
) -> Result<()> {
    let label = rest.machine.os_label.as_deref().unwrap_or_default();
    let is_windows = label.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("win"));
    if is_windows || guests::by_label(label).is_some_and(|guest| guest.is_windows()) {
        rest.machine.clock = Clock::LocalTime;
    }
    vmware(envelope, hardware, rest)?;
    if let Some(machine) = envelope.system.all("Machine").find(|child| child.child("Hardware").is_some()) {
        virtualbox(machine, rest)?;
    }
    ovirt(envelope.system, rest);
    if items.iter().any(|item| item.sub_type().contains("tpm")) {
        rest.machine.tpm = true;
    }
    rest.machine.secure_boot &= rest.machine.firmware == Firmware::Uefi;
    Ok(())
}

/// Settings of the machine that VMware turns off, or on for every machine: they say nothing.
fn is_usual(key: &str, value: &str) -> bool {
    const PREFIXES: &[&str] = &["tools.", "powerOpInfo.", "cpuAllocation.", "memoryAllocation.", "slotInfo."];
    const KEYS: &[&str] =
        &["virtualICH7MPresent", "virtualSMCPresent", "simultaneousThreads", "connectable.allowGuestControl"];
    value == "false" || KEYS.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

fn vmware(envelope: &Envelope<'_>, hardware: &Element, rest: &mut Rest) -> Result<()> {
    for config in hardware.all("Config").filter(|config| envelope.is_chosen(config)) {
        let (Some(key), Some(value)) = (config.attribute("key"), config.attribute("value")) else { continue };
        match key {
            "firmware" => {
                rest.machine.firmware = match value {
                    "efi" => Firmware::Uefi,
                    "bios" => Firmware::Bios,
                    other => {
                        return Err(Error::unsupported(format!(
                            "asks for the firmware {other:?}; bios and efi are known"
                        )));
                    }
                }
            }
            "bootOptions.efiSecureBootEnabled" => rest.machine.secure_boot = value == "true",
            _ if is_usual(key, value) => {}
            _ => rest.unread.push(format!("Config {key}")),
        }
    }
    for extra in hardware.all("ExtraConfig").filter(|extra| envelope.is_chosen(extra)) {
        let (Some(key), Some(value)) = (extra.attribute("key"), extra.attribute("value")) else { continue };
        match key.to_ascii_lowercase().as_str() {
            "firmware" if value.eq_ignore_ascii_case("efi") => rest.machine.firmware = Firmware::Uefi,
            "uefi.secureboot.enabled" => rest.machine.secure_boot = value.eq_ignore_ascii_case("true"),
            "uuid.bios" => {
                let hex: String = value.chars().filter(char::is_ascii_hexdigit).collect();
                let uuid = Uuid::parse_str(&hex)
                    .map_err(|_| Error::corrupt(format!("says uuid.bios = {value:?}")))?;
                rest.machine.smbios.uuid = Some(uuid);
                rest.machine.smbios.serial = Some(vmware::vmx::serial(uuid));
            }
            "nvram" => {
                let id = value.strip_prefix("ovf:/file/").unwrap_or(value);
                let file = envelope.files.get(id).map_or(value, |file| file.href.as_str());
                rest.machine.nvram = Some(file.to_owned());
            }
            lower if vmware::has_no_meaning_elsewhere(lower, value) => {}
            _ => rest.unread.push(format!("ExtraConfig {key}")),
        }
    }
    if rest.machine.firmware == Firmware::Bios {
        rest.machine.nvram = None;
    }
    Ok(())
}

/// VirtualBox' own description of the same machine, which knows more.
fn virtualbox(own: &Element, rest: &mut Rest) -> Result<()> {
    let machine = &mut rest.machine;
    let id = own.at("Hardware").and_then(|hardware| hardware.attribute("uuid")).or(own.attribute("uuid"));
    machine.smbios.uuid =
        id.and_then(|id| Uuid::parse_str(id.trim_matches(['{', '}'])).ok()).or(machine.smbios.uuid);
    let Some(hardware) = own.child("Hardware") else { return Ok(()) };
    let says = |path: &str, name: &str| hardware.at(path).and_then(|element| element.attribute(name));
    if says("Firmware", "type").is_some_and(|kind| kind.starts_with("EFI")) {
        machine.firmware = Firmware::Uefi;
        let variables = says("BIOS/NVRAM", "path").or(says("NVRAM", "path"));
        machine.nvram = variables.filter(|path| !path.is_empty()).map(str::to_owned);
        let secure = says("BIOS/NVRAM", "SecureBoot").or(says("NVRAM", "SecureBoot"));
        machine.secure_boot = secure == Some("true");
    }
    machine.tpm |= says("TrustedPlatformModule", "type").is_some_and(|kind| kind != "None");
    match says("RTC", "localOrUTC").or(says("BIOS/RTC", "localOrUTC")) {
        Some(word) if word.eq_ignore_ascii_case("utc") => machine.clock = Clock::Utc,
        Some(_) => machine.clock = Clock::LocalTime,
        None => {}
    }
    if let Some(boot) = hardware.child("Boot") {
        let devices = boot.all("Order").filter_map(|order| match order.attribute("device")? {
            "HardDisk" => Some(BootDevice::Disk),
            "DVD" => Some(BootDevice::Cdrom),
            "Network" => Some(BootDevice::Nic(0)),
            "Floppy" => Some(BootDevice::Floppy),
            _ => None,
        });
        for device in devices.take(16) {
            if !machine.boot_order.contains(&device) {
                machine.boot_order.push(device);
            }
        }
    }
    // Its items are the adapters that are switched on, in their order.
    let adapters = hardware.at("Network").into_iter().flat_map(|network| network.all("Adapter"));
    let on = adapters.filter(|adapter| adapter.attribute("enabled") == Some("true"));
    for (nic, adapter) in machine.nics.iter_mut().zip(on) {
        if let (None, Some(text)) =
            (&nic.mac, adapter.attribute("MACAddress").filter(|text| !text.is_empty()))
        {
            nic.mac = Some(address(&nic.slot, text)?);
        }
        nic.connected = adapter.attribute("cable") != Some("false");
    }
    if machine.annotation.is_none() {
        machine.annotation = own.text_at("Description").map(str::to_owned);
    }
    virtualbox_rest(own, hardware, rest);
    if own.child("Snapshot").is_some() {
        rest.findings.push(
            finding::SNAPSHOTS
                .finding("The machine had snapshots at its export, which the package does not hold.", ""),
        );
    }
    Ok(())
}

/// What VirtualBox' own description has of devices that no item stands for, and what of it nothing reads.
fn virtualbox_rest(own: &Element, hardware: &Element, rest: &mut Rest) {
    // What is read, what the items say, and what is a matter of the host's screen and of VirtualBox alone.
    const MACHINE: &[&str] =
        &["Info", "Description", "Hardware", "StorageControllers", "Snapshot", "ExtraData", "MediaRegistry"];
    const HARDWARE: &[&str] = &[
        "AudioAdapter",
        "BIOS",
        "Boot",
        "CPU",
        "Chipset",
        "Clipboard",
        "Display",
        "DragAndDrop",
        "EmulatedUSB",
        "Firmware",
        "Guest",
        "GuestProperties",
        "HID",
        "HPET",
        "HostPci",
        "IO",
        "Keyboard",
        "LPT",
        "Memory",
        "NVRAM",
        "Network",
        "Paravirt",
        "Pointing",
        "RTC",
        "Recording",
        "RemoteDisplay",
        "SharedFolders",
        "StorageControllers",
        "TrustedPlatformModule",
        "UART",
        "USB",
        "USBController",
        "VideoCapture",
    ];
    let on = |element: &Element| element.attribute("enabled") == Some("true");
    let any = |path: &str, child: &str| {
        hardware.at(path).is_some_and(|list| list.all(child).any(|one| child != "Port" || on(one)))
    };
    for (there, what) in [
        (any("UART", "Port"), "serial ports"),
        (any("LPT", "Port"), "parallel ports"),
        (any("SharedFolders", "SharedFolder"), "shared folders"),
    ] {
        if there {
            rest.findings
                .push(finding::DEVICE_LEFT_OUT.finding(format!("Left out at the target: {what}."), ""));
        }
    }
    if any("HostPci/Devices", "Device") {
        rest.findings.push(finding::PASSTHROUGH.finding(
            "PCI devices of the host cannot be carried over.",
            "Give the machine such devices at the target, or remove their drivers from the guest.",
        ));
    }
    // How its window lay on the screen is no setting of the machine.
    let is_setting = |item: &&Element| !item.attribute("name").is_some_and(|name| name.starts_with("GUI/"));
    let extra = own.child("ExtraData").map_or(0, |data| data.all("ExtraDataItem").filter(is_setting).count());
    if extra > 0 {
        rest.unread.push(format!("vbox:Machine/ExtraData ({extra} settings)"));
    }
    let strange = |within: &Element, known: &[&str], path: &str| -> Vec<String> {
        let names = within.children.iter().map(|child| child.name.as_str());
        names.filter(|name| !known.contains(name)).map(|name| format!("{path}/{name}")).collect()
    };
    rest.unread.extend(strange(own, MACHINE, "vbox:Machine"));
    rest.unread.extend(strange(hardware, HARDWARE, "vbox:Machine/Hardware"));
}

/// oVirt's elements beside the sections.
fn ovirt(system: &Element, rest: &mut Rest) {
    // 0 leaves it to the cluster, 1 and 2 are BIOS, 3 and 4 UEFI, 4 with secure boot.
    match system.text_at("BiosType") {
        Some("3") => rest.machine.firmware = Firmware::Uefi,
        Some("4") => {
            rest.machine.firmware = Firmware::Uefi;
            rest.machine.secure_boot = true;
        }
        _ => {}
    }
    if let Some(id) =
        system.attribute("id").filter(|_| system.name == "Content" && system.child("BiosType").is_some())
    {
        rest.machine.smbios.uuid = Uuid::parse_str(id).ok().or(rest.machine.smbios.uuid);
    }
}
