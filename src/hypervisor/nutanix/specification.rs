//! The machine and its images as specifications for Prism Central: API v3 and v4.
//!
//! Source: Nutanix's API references; the tests check the names of v4 against its published client library. What only the cluster
//! knows (UUIDs of images, networks, of the cluster itself) stands there as `<uuid of …>`.

use super::write::{Card, Disk};
use crate::hypervisor::fit;
use crate::machine::Machine;
use landfall_boot::target::Firmware;
use serde_json::{Value, json};

fn wanted(kind: &str, name: &str) -> String {
    format!("<uuid of {kind} {name}>")
}

/// AHV has no word for local time, and the zone is not known here.
const ZONE: &str = "UTC";

/// Bodies for `POST /api/nutanix/v3/images`, then `POST /api/nutanix/v3/vms`.
pub(super) fn v3(machine: &Machine, name: &str, disks: &[Disk], cards: &[Card]) -> Value {
    let images: Vec<Value> = disks
        .iter()
        .map(|disk| {
            json!({
                "api_version": "3.1",
                "metadata": { "kind": "image" },
                "spec": { "name": disk.image, "resources": { "image_type": "DISK_IMAGE" } },
            })
        })
        .collect();
    let boot_type = match (machine.firmware, machine.secure_boot) {
        (Firmware::Bios, _) => "LEGACY",
        (Firmware::Uefi, false) => "UEFI",
        (Firmware::Uefi, true) => "SECURE_BOOT",
    };
    let address =
        |disk: &Disk| json!({ "adapter_type": disk.bus.to_uppercase(), "device_index": disk.index });
    let mut boot = json!({ "boot_type": boot_type });
    if let Some(disk) = disks.get(machine.boot_disk()) {
        boot["boot_device"] = json!({ "disk_address": address(disk) });
    }
    let disk_list: Vec<Value> = disks
        .iter()
        .map(|disk| {
            json!({
                "device_properties": { "device_type": "DISK", "disk_address": address(disk) },
                "data_source_reference": { "kind": "image", "name": disk.image, "uuid": wanted("image", &disk.image) },
            })
        })
        .collect();
    let nic_list: Vec<Value> = cards
        .iter()
        .map(|card| {
            let mut out = json!({
                "nic_type": "NORMAL_NIC",
                "model": card.model,
                "is_connected": card.connected,
                "subnet_reference": { "kind": "subnet", "name": card.network, "uuid": wanted("subnet", &card.network) },
            });
            if let Some(mac) = &card.mac {
                out["mac_address"] = json!(mac);
            }
            out
        })
        .collect();
    let mut resources = json!({
        "power_state": "OFF",
        "num_sockets": machine.cpus.sockets(),
        "num_vcpus_per_socket": machine.cpus.cores_per_socket,
        "num_threads_per_core": machine.cpus.threads_per_core,
        "memory_size_mib": fit::mebibytes(machine.memory),
        "hardware_clock_timezone": ZONE,
        "machine_type": if machine.secure_boot { "Q35" } else { "PC" },
        "boot_config": boot,
        "disk_list": disk_list,
        "nic_list": nic_list,
    });
    if machine.tpm {
        resources["vtpm_config"] = json!({ "vtpm_enabled": true });
    }
    let mut spec = json!({
        "name": name,
        "cluster_reference": { "kind": "cluster", "uuid": "<uuid of the cluster>" },
        "resources": resources,
    });
    if let Some(text) = &machine.annotation {
        spec["description"] = json!(text);
    }
    let categories: serde_json::Map<String, Value> = machine
        .tags
        .iter()
        .filter_map(|tag| tag.split_once('='))
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    let vm =
        json!({ "api_version": "3.1", "metadata": { "kind": "vm", "categories": categories }, "spec": spec });
    json!({ "images": images, "vm": vm })
}

/// Bodies for `POST /api/vmm/v4.0/content/images`, then `POST /api/vmm/v4.0/ahv/config/vms`.
pub(super) fn v4(machine: &Machine, name: &str, disks: &[Disk], cards: &[Card]) -> Value {
    let typed = |kind: &str, mut value: Value| {
        value["$objectType"] = json!(format!("vmm.v4.{kind}"));
        value
    };
    let images: Vec<Value> = disks
        .iter()
        .map(|disk| {
            let source = typed("content.UrlSource", json!({ "url": format!("<address of {}>", disk.file) }));
            typed("content.Image", json!({ "name": disk.image, "type": "DISK_IMAGE", "source": source }))
        })
        .collect();
    let address = |disk: &Disk| {
        typed("ahv.config.DiskAddress", json!({ "busType": disk.bus.to_uppercase(), "index": disk.index }))
    };
    let disk_list: Vec<Value> = disks
        .iter()
        .map(|disk| {
            let image =
                typed("ahv.config.ImageReference", json!({ "imageExtId": wanted("image", &disk.image) }));
            let source = typed("ahv.config.DataSource", json!({ "reference": image }));
            let backing = typed("ahv.config.VmDisk", json!({ "dataSource": source }));
            typed("ahv.config.Disk", json!({ "diskAddress": address(disk), "backingInfo": backing }))
        })
        .collect();
    let nic_list: Vec<Value> = cards
        .iter()
        .map(|card| {
            let mut backing = json!({ "model": card.model.to_uppercase(), "isConnected": card.connected });
            if let Some(mac) = &card.mac {
                backing["macAddress"] = json!(mac);
            }
            let subnet =
                typed("ahv.config.SubnetReference", json!({ "extId": wanted("subnet", &card.network) }));
            let network = json!({ "nicType": "NORMAL_NIC", "vlanMode": "ACCESS", "subnet": subnet });
            typed(
                "ahv.config.Nic",
                json!({
                    "backingInfo": typed("ahv.config.EmulatedNic", backing),
                    "networkInfo": typed("ahv.config.NicNetworkInfo", network),
                }),
            )
        })
        .collect();
    let mut boot = match machine.firmware {
        Firmware::Bios => typed("ahv.config.LegacyBoot", json!({})),
        Firmware::Uefi => typed("ahv.config.UefiBoot", json!({ "isSecureBootEnabled": machine.secure_boot })),
    };
    if let Some(disk) = disks.get(machine.boot_disk()) {
        boot["bootDevice"] = typed("ahv.config.BootDeviceDisk", json!({ "diskAddress": address(disk) }));
    }
    let cluster = typed("ahv.config.ClusterReference", json!({ "extId": "<uuid of the cluster>" }));
    let mut vm = typed(
        "ahv.config.Vm",
        json!({
            "name": name,
            "numSockets": machine.cpus.sockets(),
            "numCoresPerSocket": machine.cpus.cores_per_socket,
            "numThreadsPerCore": machine.cpus.threads_per_core,
            "memorySizeBytes": fit::mebibytes(machine.memory) << 20,
            "hardwareClockTimezone": ZONE,
            "machineType": if machine.secure_boot { "Q35" } else { "PC" },
            "bootConfig": boot,
            "cluster": cluster,
            "disks": disk_list,
            "nics": nic_list,
        }),
    );
    if let Some(text) = &machine.annotation {
        vm["description"] = json!(text);
    }
    if let Some(uuid) = machine.smbios.uuid {
        vm["biosUuid"] = json!(uuid.to_string());
    }
    if machine.tpm {
        vm["vtpmConfig"] = typed("ahv.config.VtpmConfig", json!({ "isVtpmEnabled": true }));
    }
    json!({ "images": images, "vm": vm })
}
