//! What of a definition is not carried over: the devices that are left out, and the names of all settings that nothing reads.
//!
//! [`READ`] lists what is read, or is of no account elsewhere; what is not in it is named. A new element of libvirt's is so named by itself.

use super::{Report, disks};
use crate::finding;
use crate::hypervisor::xml::Element;
use std::collections::BTreeSet;

/// Paths of elements that are read, with the attributes that are; `*` for the whole element with all in it.
const READ: &[(&str, &str)] = &[
    ("", "type id"),
    ("clock", "offset basis adjustment timezone start"),
    ("cpu", ""),
    ("cpu/topology", "sockets dies clusters cores threads"),
    // Told of where it differs.
    ("currentMemory", "unit"),
    ("description", ""),
    ("devices", ""),
    // The chain is in the images.
    ("devices/disk/backingStore", "*"),
    ("devices/disk/blockio", "logical_block_size physical_block_size"),
    ("devices/disk/boot", "order"),
    ("devices/disk/driver", "name type"),
    ("devices/disk/encryption", "*"),
    ("devices/disk/mirror", "*"),
    ("devices/disk/readonly", ""),
    ("devices/disk/serial", ""),
    ("devices/disk/shareable", ""),
    (
        "devices/disk/source",
        "file dev path protocol name pool volume namespace type index query tls tlsHostname managed",
    ),
    ("devices/disk/source/address", "*"),
    ("devices/disk/source/encryption", "*"),
    ("devices/disk/source/host", "name port transport socket"),
    ("devices/disk/source/slices", "*"),
    ("devices/disk/source/snapshot", "name"),
    ("devices/disk/target", "dev bus"),
    ("devices/disk/transient", ""),
    ("devices/disk/wwn", ""),
    ("devices/interface/acpi", "index"),
    ("devices/interface/boot", "order"),
    ("devices/interface/link", "state"),
    ("devices/interface/mac", "address type check"),
    ("devices/interface/model", "type"),
    ("devices/interface/source", "network bridge dev mode path type"),
    ("devices/interface/source/address", "*"),
    ("devices/interface/target", "dev managed"),
    ("devices/interface/vlan", "*"),
    ("devices/disk", "type device"),
    ("devices/interface", "type managed"),
    // Where it is plugged in and what it is called are matters of each host.
    ("devices/controller", "type index model"),
    ("devices/controller/master", "*"),
    ("devices/controller/model", "*"),
    ("devices/controller/target", "*"),
    ("devices/emulator", ""),
    ("devices/hostdev", "*"),
    ("devices/tpm", "model"),
    ("devices/tpm/backend", "type version"),
    ("features", ""),
    ("features/acpi", ""),
    ("features/apic", ""),
    ("features/pae", ""),
    ("features/smm", "state"),
    ("hwuuid", ""),
    ("launchSecurity", "*"),
    ("memory", "unit"),
    ("metadata", ""),
    ("metadata/libosinfo", "xmlns:libosinfo"),
    ("metadata/libosinfo/os", "id"),
    ("metadata/tags", "xmlns:landfall"),
    ("metadata/tags/tag", ""),
    ("name", ""),
    ("os", "firmware"),
    ("os/boot", "dev"),
    ("os/cmdline", ""),
    ("os/firmware", ""),
    ("os/firmware/feature", "enabled name"),
    ("os/initrd", ""),
    ("os/kernel", ""),
    ("os/loader", "readonly secure type format"),
    ("os/nvram", "template templateFormat type format"),
    ("os/nvram/source", "*"),
    ("os/smbios", "mode"),
    ("os/type", "arch machine"),
    ("sysinfo", "type"),
    ("sysinfo/system", ""),
    ("sysinfo/system/entry", "name"),
    ("title", ""),
    ("uuid", ""),
    ("vcpu", "placement current"),
];

/// Kinds of device that no target gets, and what they are in words.
const LEFT_OUT: &[(&str, &str)] = &[
    ("filesystem", "a folder that the host shares"),
    ("lease", "a lease of a lock manager"),
    ("memory", "a memory module with content or rules of its own"),
    ("nvram", "a store for the firmware's variables"),
    ("parallel", "a parallel port"),
    ("pstore", "a store for crash logs"),
    ("redirdev", "a USB device of who looks at its screen"),
    ("serial", "a serial port that leads to the host or the network"),
    ("shmem", "memory that it shares with other machines"),
    ("smartcard", "a smart card reader"),
    ("sound", "a sound card"),
    ("vsock", "a socket to its host"),
    ("watchdog", "a watchdog"),
];

/// Tells of devices that are left out, once for each kind, and of those of the host.
pub fn devices(devices: &Element, report: &mut Report) {
    let mut told = BTreeSet::new();
    for device in &devices.children {
        let words = match device.name.as_str() {
            "disk" if device.attribute("device") == Some("cdrom") => "a CD drive",
            "disk" if device.attribute("device") == Some("floppy") => "a floppy drive",
            "disk" if is_drive(device) => "a folder of the host as a disk with FAT",
            "hostdev" => {
                passed_through(device, report);
                continue;
            }
            _ => match LEFT_OUT.iter().find(|(kind, _)| *kind == device.name) {
                Some((_, words)) if is_left_out(device) => words,
                _ => continue,
            },
        };
        if told.insert(words) {
            report.say(&finding::DEVICE_LEFT_OUT, format!("The machine has {words}, which is left out."), "");
        }
    }
}

/// A disk that is none.
fn is_drive(disk: &Element) -> bool {
    matches!(disk.attribute("device"), Some("cdrom" | "floppy")) || disks::is_folder(disk)
}

/// A serial line that only shows the console is made at the target, too. Plain memory modules are counted in the memory. Of a watchdog that
/// libvirt adds by itself (q35's) nothing is missed.
fn is_left_out(device: &Element) -> bool {
    let model = device.attribute("model");
    match device.name.as_str() {
        "serial" => device.attribute("type") != Some("pty"),
        "memory" => !matches!(model, Some("dimm")),
        "watchdog" => model != Some("itco"),
        _ => LEFT_OUT.iter().any(|(kind, _)| *kind == device.name),
    }
}

fn passed_through(device: &Element, report: &mut Report) {
    let kind = device.attribute("type").or(device.attribute("mode")).unwrap_or("unknown");
    let source = device.child("source");
    let address = source.and_then(|source| source.child("address")).map(|address| {
        let parts: Vec<&str> = address.attributes.iter().take(6).map(|(_, value)| value.as_str()).collect();
        parts.join(":")
    });
    let name = source.and_then(|source| {
        let vendor = source.child("vendor").zip(source.child("product"));
        let ids =
            vendor.and_then(|(vendor, product)| Some((vendor.attribute("id")?, product.attribute("id")?)));
        ids.map(|(vendor, product)| format!("{vendor}:{product}"))
            .or(source.attribute("name").or(source.attribute("wwpn")).map(str::to_owned))
    });
    let which = name.or(address).unwrap_or_default();
    report.say(
        &finding::PASSTHROUGH,
        format!("The machine has a device of its host ({kind} {which}), which cannot be carried over."),
        "Give it such a device at the target, or remove what uses it from the guest.",
    );
}

/// Names what is not read.
pub fn domain(domain: &Element, report: &mut Report) {
    walk(domain, "", report);
}

fn walk(element: &Element, path: &str, report: &mut Report) {
    let row = READ.iter().find(|(known, _)| *known == path);
    let Some((_, attributes)) = row else {
        report.unread(path);
        return;
    };
    if *attributes == "*" {
        return;
    }
    for (name, _) in &element.attributes {
        if !attributes.split(' ').any(|known| known == name) && !name.starts_with("xmlns") {
            report.unread(format!("{path}/@{name}"));
        }
    }
    for child in &element.children {
        if !is_told(child, path) {
            let name = match child.prefix.as_str() {
                "" | "libosinfo" | "landfall" => child.name.clone(),
                prefix => format!("{prefix}:{}", child.name),
            };
            let below = if path.is_empty() { name } else { format!("{path}/{name}") };
            walk(child, &below, report);
        }
    }
}

/// True for what a finding tells of, what every machine has, and what means something at its host only.
fn is_told(child: &Element, path: &str) -> bool {
    let inside = path.strip_prefix("devices");
    match (child.name.as_str(), inside) {
        ("alias" | "address", Some(device)) => !device.is_empty() && !device.contains("/disk/source"),
        ("disk", Some("")) => is_drive(child),
        (_, Some("")) => is_left_out(child),
        ("on_poweroff", None) => child.text == "destroy",
        ("on_reboot", None) => child.text == "restart",
        ("on_crash", None) => matches!(child.text.as_str(), "destroy" | "restart" | "preserve"),
        ("commandline", None) => child.prefix == "qemu",
        ("cpu", None) => child.attributes.is_empty() && child.children.is_empty(),
        // What is not shown to the guest, and what is none of SMBIOS.
        ("sysinfo", None) => false,
        _ => false,
    }
}
