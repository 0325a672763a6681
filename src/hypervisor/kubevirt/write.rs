//! KubeVirt: `virtualmachine.yaml`, `datavolumes.yaml` and the script that uploads the disks and makes the machine.
//!
//! Source: the API reference of kubevirt.io/v1 and of CDI's cdi.kubevirt.io/v1beta1; the tests check what is written here against
//! types that are generated of both. Deliberately absent: instance types and preferences, which every cluster has of its own.

use crate::finding;
use crate::hypervisor::text::{shell, shell_script};
use crate::hypervisor::{Artifact, Placement, Rendered, fit, yaml};
use crate::machine::{BootDevice, Clock, DiskSlot, Machine, NicSlot};
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::{Error, Result};
use serde_json::{Map, Value, json};

const TITLE: &str = "KubeVirt";
/// Room for `-disk-NNN` in a label of 63 characters.
const NAME_AT_MOST: usize = 54;
/// The network of the machine's pod: there is one.
const POD: &str = "pod";
/// Characters of a serial number.
const SERIAL_AT_MOST: usize = 256;

/// What the machine is called there.
pub fn called(name: &str) -> String {
    named(name).0
}

fn named(name: &str) -> (String, Option<Finding>) {
    fit::dns_name(name, NAME_AT_MOST, false, true, TITLE)
}

/// The files.
///
/// # Errors
/// Unsupported for IDE disks, which KubeVirt has not; refused where several cards have no network, or one that is no name in Kubernetes.
pub fn render(machine: &Machine, placement: &Placement) -> Result<Rendered> {
    let mut findings = Vec::new();
    let (name, changed) = named(&machine.name);
    findings.extend(changed);
    if placement.disks.len() != machine.disks.len() {
        return Err(Error::corrupt(format!(
            "{} disks are placed, the machine has {}",
            placement.disks.len(),
            machine.disks.len()
        )));
    }
    let mut disks = Vec::new();
    for (index, disk) in machine.disks.iter().enumerate() {
        disks.push(self::disk(machine, index, disk)?);
    }
    let networks = networks(machine, placement, &mut findings)?;
    lost(machine, &mut findings);

    let volume = |index: usize| format!("{name}-disk-{index}");
    let mut volumes = Vec::new();
    for (index, placed) in placement.disks.iter().enumerate() {
        let mut storage =
            json!({ "resources": { "requests": { "storage": placed.virtual_size.0.max(1).to_string() } } });
        if let Some(class) = &placement.storage {
            storage["storageClassName"] = json!(class);
        }
        volumes.push(json!({
            "apiVersion": "cdi.kubevirt.io/v1beta1",
            "kind": "DataVolume",
            "metadata": {
                "name": volume(index),
                "labels": { "app.kubernetes.io/part-of": name },
                // Else the upload waits for a machine that is not there yet, where the class binds with the first consumer.
                "annotations": { "cdi.kubevirt.io/storage.bind.immediate.requested": "true" },
            },
            "spec": { "source": { "upload": {} }, "storage": storage },
        }));
    }
    let mut annotations = Map::new();
    annotations.insert("landfall/name".into(), json!(machine.name));
    if let Some(text) = &machine.annotation {
        annotations.insert("description".into(), json!(text));
    }
    if !machine.tags.is_empty() {
        annotations.insert("landfall/tags".into(), json!(machine.tags.join("\n")));
    }
    let vm = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": { "name": name, "annotations": annotations },
        "spec": {
            "runStrategy": "Halted",
            "template": {
                "metadata": { "labels": { "kubevirt.io/vm": name } },
                "spec": {
                    "architecture": "amd64",
                    "domain": domain(machine, disks, networks.interfaces),
                    "networks": networks.networks,
                    "volumes": (0..machine.disks.len())
                        .map(|index| json!({ "name": format!("disk-{index}"), "dataVolume": { "name": volume(index) } }))
                        .collect::<Vec<_>>(),
                },
            },
        },
    });
    let names: Vec<String> = (0..machine.disks.len()).map(|index| shell(&volume(index))).collect();
    let files: Vec<String> = placement.disks.iter().map(|placed| shell(&placed.file)).collect();
    let macs: Vec<&str> = machine.nics.iter().filter_map(|nic| nic.mac.as_deref()).collect();
    let pairs = names.iter().zip(&files).enumerate();
    let uploads: Vec<String> =
        pairs.map(|(index, (name, file))| format!("volume {} {name} {file}", index + 1)).collect();
    let script = shell_script(
        include_str!("register.sh"),
        &[
            ("@NAME@", shell(&name)),
            ("@UUID@", shell(&machine.smbios.uuid.map(|uuid| uuid.to_string()).unwrap_or_default())),
            ("@MACS@", shell(&macs.join(" "))),
            ("@NETWORKS@", shell(&networks.attachments.join(" "))),
            ("@VOLUMES@", names.join(" ")),
            ("@FILES@", files.join(" ")),
            ("@UPLOADS@", uploads.join("\n")),
        ],
    );
    let artifacts = vec![
        Artifact::file("virtualmachine.yaml", yaml::document(&vm)),
        Artifact::file("datavolumes.yaml", yaml::documents(&volumes)),
        Artifact::script("register.sh", script),
    ];
    Ok(Rendered { artifacts, findings })
}

fn domain(machine: &Machine, disks: Vec<Value>, interfaces: Vec<Value>) -> Value {
    let uefi = machine.firmware == Firmware::Uefi;
    let mut firmware = Map::new();
    firmware.insert(
        "bootloader".into(),
        if uefi { json!({ "efi": { "secureBoot": machine.secure_boot } }) } else { json!({ "bios": {} }) },
    );
    if let Some(uuid) = machine.smbios.uuid {
        firmware.insert("uuid".into(), json!(uuid.to_string()));
    }
    if let Some(serial) = machine.smbios.serial.as_ref().filter(|serial| takes_serial(serial)) {
        firmware.insert("serial".into(), json!(serial));
    }
    let mut features = json!({ "acpi": {} });
    if machine.secure_boot {
        features["smm"] = json!({ "enabled": true });
    }
    let mut devices = json!({ "disks": disks, "interfaces": interfaces, "rng": {} });
    if machine.nics.is_empty() {
        devices["autoattachPodInterface"] = json!(false);
    }
    // A guest without one at the source must not find a new one and seal its keys in it.
    if machine.tpm {
        devices["tpm"] = json!({ "persistent": true });
    }
    json!({
        "cpu": {
            "sockets": machine.cpus.sockets(),
            "cores": machine.cpus.cores_per_socket,
            "threads": machine.cpus.threads_per_core,
        },
        "memory": { "guest": format!("{}Mi", fit::mebibytes(machine.memory)) },
        "machine": { "type": "q35" },
        "firmware": firmware,
        "features": features,
        "clock": { "utc": {} },
        "devices": devices,
    })
}

fn disk(machine: &Machine, index: usize, disk: &DiskSlot) -> Result<Value> {
    let bus = fit::kvm_bus(disk)?;
    if bus == "ide" {
        return Err(Error::unsupported(
            "the guest's kernel drives IDE disks only, which KubeVirt does not have",
        )
        .hint("install the distribution's standard kernel in the guest before the move"));
    }
    let mut out = json!({ "name": format!("disk-{index}"), "disk": { "bus": bus } });
    if index == machine.boot_disk() {
        let before = machine.boot_order.iter().take_while(|device| **device != BootDevice::Disk);
        let cards = before.filter(|device| is_nic(machine, device)).count();
        let is_listed = machine.boot_order.contains(&BootDevice::Disk);
        out["bootOrder"] = json!(if is_listed { cards + 1 } else { nics_that_start(machine) + 1 });
    }
    if let Some(serial) = disk.serial.as_ref().filter(|serial| takes_serial(serial)) {
        out["serial"] = json!(serial);
    }
    if let Some(size) = disk.sector_size {
        out["blockSize"] = json!({ "custom": { "logical": size.0, "physical": size.0 } });
    }
    Ok(out)
}

/// True for a serial number that KubeVirt's admission takes: it refuses the whole machine for another.
fn takes_serial(serial: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '+' | '-');
    (1..=SERIAL_AT_MOST).contains(&serial.len()) && serial.chars().all(is_plain)
}

fn is_nic(machine: &Machine, device: &BootDevice) -> bool {
    matches!(device, BootDevice::Nic(index) if *index < machine.nics.len())
}

fn nics_that_start(machine: &Machine) -> usize {
    machine.boot_order.iter().filter(|device| is_nic(machine, device)).count()
}

/// Where a card comes in the boot order.
fn nic_order(machine: &Machine, index: usize) -> Option<usize> {
    let listed =
        machine.boot_order.iter().filter(|device| is_nic(machine, device) || **device == BootDevice::Disk);
    listed.into_iter().position(|device| *device == BootDevice::Nic(index)).map(|at| at + 1)
}

#[derive(Default)]
struct Networks {
    interfaces: Vec<Value>,
    networks: Vec<Value>,
    /// Names of network attachment definitions: `name` or `namespace/name`.
    attachments: Vec<String>,
}

fn networks(machine: &Machine, placement: &Placement, findings: &mut Vec<Finding>) -> Result<Networks> {
    let mut out = Networks::default();
    let mut pod_taken = false;
    for (index, nic) in machine.nics.iter().enumerate() {
        let name = format!("nic-{index}");
        let chosen = placement.networks.chosen(nic).filter(|name| *name != POD);
        let mut interface = interface(nic, &name)?;
        if let Some(order) = nic_order(machine, index) {
            interface["bootOrder"] = json!(order);
        }
        match chosen {
            Some(network) => {
                let is_label =
                    |part: &str| !part.is_empty() && fit::dns_name(part, 253, true, true, TITLE).0 == part;
                if network.split('/').count() > 2 || !network.split('/').all(is_label) {
                    return Err(Error::refused(format!(
                        "Kubernetes has no network with the name {network:?}"
                    ))
                    .hint("name a network attachment definition (NAME or NAMESPACE/NAME), or pod"));
                }
                interface["bridge"] = json!({});
                out.networks.push(json!({ "name": name, "multus": { "networkName": network } }));
                if !out.attachments.iter().any(|own| own == network) {
                    out.attachments.push(network.to_owned());
                }
            }
            None if pod_taken => {
                return Err(Error::refused(format!(
                    "{} has no network at the target, and the pod's own is taken by a card before it",
                    nic.slot
                ))
                .hint("name a network attachment definition for it with --map-network or --network"));
            }
            None => {
                pod_taken = true;
                interface["masquerade"] = json!({});
                out.networks.push(json!({ "name": name, "pod": {} }));
                findings.push(finding::NOT_HELD.finding(
                    format!("{} is in the pod's network, where the guest gets its address by DHCP; one that it has set itself does not work there.", nic.slot),
                    "Name a network attachment definition with --map-network or --network, or set the guest to DHCP.",
                ));
            }
        }
        if let Some(tag) = nic.vlan {
            findings.push(finding::NOT_HELD.finding(
                format!(
                    "{} is in the VLAN {tag}, which a network attachment definition says, not the machine.",
                    nic.slot
                ),
                "Choose one for that VLAN with --map-network.",
            ));
        }
        out.interfaces.push(interface);
    }
    Ok(out)
}

fn interface(nic: &NicSlot, name: &str) -> Result<Value> {
    let mut out = json!({ "name": name, "model": fit::kvm_card(nic)? });
    if let Some(mac) = &nic.mac {
        out["macAddress"] = json!(mac);
    }
    if !nic.connected {
        out["state"] = json!("down");
    }
    Ok(out)
}

fn lost(machine: &Machine, findings: &mut Vec<Finding>) {
    let is_lost = |serial: &String| !serial.is_empty() && !takes_serial(serial);
    let mut what = fit::smbios_strings(machine, machine.smbios.serial.as_ref().is_some_and(is_lost));
    let serials = machine.disks.iter().filter_map(|disk| Some((disk, disk.serial.as_ref()?)));
    what.extend(
        serials
            .filter(|(_, serial)| is_lost(serial))
            .map(|(disk, serial)| format!("the serial number {serial:?} of {}", disk.file)),
    );
    findings.extend(fit::not_held(
        &what,
        TITLE,
        "Look whether licences, agents or /etc/fstab go by it. A serial number has letters, digits and ._+- there.",
    ));
    if machine.clock == Clock::LocalTime {
        findings.extend(fit::not_held(
            &["a clock that counts local time without naming the time zone".to_owned()],
            TITLE,
            "Set spec.template.spec.domain.clock.timezone (Europe/Vienna) in virtualmachine.yaml in place of utc.",
        ));
    }
}
