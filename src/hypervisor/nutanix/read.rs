//! Reads a machine of Nutanix AHV from JSON: what `GET vms` of Prism Element (v2) and Prism Central (v3, v4) answers, and
//! `acli -o json vm.get`.
//!
//! Source: Nutanix's API references, and for v4 the names in its published client library. The names of acli's and of v2's answers
//! are those of public examples; no answer of a real cluster was at hand. Deliberately absent: protection policies, projects,
//! host affinity, which belong to the cluster.

use super::fields::Fields;
use crate::finding;
use crate::hypervisor::{Choice, Parsed};
use crate::machine::{Backing, BootDevice, Bus, Clock, Cpus, DiskSlot, Machine, NicSlot, parse_mac};
use landfall_boot::check::Finding;
use landfall_boot::target::Firmware;
use landfall_image::{Bytes, Error, Result};
use serde_json::Value;
use std::cell::RefCell;
use uuid::Uuid;

/// A list of all machines of a large cluster has a few MiB.
const AT_MOST: Bytes = Bytes::mib(16);
const CPUS_AT_MOST: u64 = 4096;
/// Names of machines in a hint.
const NAMES_AT_MOST: usize = 64;
const MEMORY_AT_MOST: Bytes = Bytes(128 << 40);

/// True for JSON that has a machine's fields.
pub fn recognise(bytes: &[u8]) -> bool {
    let starts = bytes.trim_ascii_start().first() == Some(&b'{');
    let value = if starts { serde_json::from_slice::<Value>(bytes).ok() } else { None };
    value.is_some_and(|value| machines(&value).iter().any(|(_, machine)| is_machine(machine)))
}

fn is_machine(value: &Value) -> bool {
    let has = |path: &str| path.split('/').try_fold(value, |value, name| value.get(name)).is_some();
    ["vm_disk_info", "num_cores_per_vcpu", "spec/resources/num_sockets", "numSockets", "config/num_vcpus"]
        .iter()
        .any(|path| has(path))
}

/// Every machine in a document, each with what it is called.
fn machines(document: &Value) -> Vec<(String, &Value)> {
    let entries: Vec<&Value> = match (document.get("entities"), document.get("data")) {
        (Some(Value::Array(list)), _) | (_, Some(Value::Array(list))) => list.iter().collect(),
        // acli: by UUID.
        (_, Some(Value::Object(map))) if !is_machine(&document["data"]) => map.values().collect(),
        (_, Some(one @ Value::Object(_))) => vec![one],
        _ => vec![document],
    };
    let name = |value: &Value| {
        let paths = ["name", "spec/name", "config/name", "status/name"];
        let find = |path: &&str| path.split('/').try_fold(value, |value, name| value.get(name))?.as_str();
        paths.iter().find_map(find).unwrap_or_default().to_owned()
    };
    entries.into_iter().map(|value| (name(value), value)).collect()
}

/// Reads a machine.
///
/// # Errors
/// Corrupt where it is no JSON or no machine, refused above 16 MiB and where several machines are in it and none is chosen.
pub fn parse(bytes: &[u8], choice: &Choice) -> Result<Parsed> {
    if bytes.len() as u64 > AT_MOST.0 {
        return Err(Error::refused(format!(
            "has {} bytes; an answer of Prism has at most {}",
            bytes.len(),
            AT_MOST.0
        )));
    }
    let document: Value =
        serde_json::from_slice(bytes).map_err(|e| Error::corrupt(format!("is not well-formed JSON: {e}")))?;
    let value = choose(&document, choice)?;
    let seen = RefCell::default();
    let vm = Fields::root(value, &seen);
    let mut findings = Vec::new();
    let mut machine = general(&vm, &mut findings)?;
    machine.disks = disks(&vm, &mut findings)?;
    machine.nics = nics(&vm, &mut findings)?;
    boot(&vm, &mut machine)?;
    state(&vm, &mut findings);
    for (what, paths) in [
        (
            "graphics cards",
            &["spec/resources/gpu_list", "gpus", "gpus_assigned", "vm_gpus", "config/gpu_list"][..],
        ),
        ("PCIe devices", &["pcieDevices"]),
    ] {
        if !vm.list(paths).is_empty() || vm.is(paths) {
            findings.push(finding::PASSTHROUGH.finding(
                format!("The machine has {what} of its host."),
                "Give it such devices at the target, or remove their drivers from the guest.",
            ));
        }
    }
    vm.know(&[
        "uuid",
        "extId",
        "metadata/uuid",
        "metadata/kind",
        "api_version",
        "logical_timestamp",
        "config/logical_timestamp",
        "vm_logical_timestamp",
    ]);
    let unread = vm.unseen().into_iter().filter(|path| !is_of_the_cluster(path)).collect();
    Ok(Parsed { machine, findings, unread })
}

/// What the cluster says of itself and of the moment: no setting of the machine.
fn is_of_the_cluster(path: &str) -> bool {
    let first = path.split('/').next().unwrap_or_default();
    path.contains('$')
        || matches!(
            first,
            "status" | "metadata" | "links" | "host_uuid" | "host" | "tenantId" | "createTime" | "updateTime"
        )
}

fn choose<'a>(document: &'a Value, choice: &Choice) -> Result<&'a Value> {
    if choice.snapshot.is_some() {
        return Err(Error::unsupported("is an answer of Prism, which has no snapshots in it")
            .hint("restore the recovery point to a machine of its own, and convert that"));
    }
    let found: Vec<_> = machines(document).into_iter().filter(|(_, value)| is_machine(value)).collect();
    let names = || {
        let names: Vec<_> = found.iter().take(NAMES_AT_MOST).map(|(name, _)| name.as_str()).collect();
        format!("choose one with --system: {}", names.join(", "))
    };
    match (&choice.system, found.as_slice()) {
        (_, []) => Err(Error::corrupt("has no machine of Nutanix AHV in it")),
        (None, [(_, only)]) => Ok(only),
        (None, _) => Err(Error::refused(format!("has {} machines in it", found.len())).hint(names())),
        (Some(wanted), _) => {
            let is_it = |(name, value): &&(String, &Value)| {
                let ids = ["uuid", "extId"].map(|field| value.get(field).and_then(Value::as_str));
                name == wanted || ids.contains(&Some(wanted))
            };
            let mut matching = found.iter().filter(is_it);
            match (matching.next(), matching.next()) {
                (Some((_, value)), None) => Ok(value),
                (None, _) => Err(Error::refused(format!("has no machine {wanted:?}")).hint(names())),
                (Some(_), Some(_)) => Err(Error::refused(format!("has several machines {wanted:?}"))
                    .hint("choose it by its UUID: --system UUID")),
            }
        }
    }
}

fn general(vm: &Fields<'_>, findings: &mut Vec<Finding>) -> Result<Machine> {
    let memory = match (
        vm.number(&["memorySizeBytes"])?,
        vm.number(&["spec/resources/memory_size_mib", "memory_mb", "config/memory_mb"])?,
    ) {
        (Some(bytes), _) => Bytes(bytes),
        (None, Some(mib)) => Bytes(mib.saturating_mul(1 << 20)),
        (None, None) => return Err(Error::corrupt("does not say the machine's memory")),
    };
    if memory.0 == 0 || memory.0 > MEMORY_AT_MOST.0 {
        return Err(Error::corrupt(format!("has {memory} of memory; up to {MEMORY_AT_MOST} is possible")));
    }
    let name = vm.text(&["name", "spec/name", "config/name"]).unwrap_or_default();
    let mut machine = Machine::new(name, memory);
    machine.annotation = vm.text(&["description", "spec/description", "config/annotation"]);
    let number = |paths: &[&str]| -> Result<u32> {
        let number = vm.number(paths)?.unwrap_or(1);
        let fine = u32::try_from(number).ok().filter(|_| (1..=CPUS_AT_MOST).contains(&number));
        fine.ok_or_else(|| {
            Error::corrupt(format!("{} = {number}; 1 to {CPUS_AT_MOST} are possible", paths[0]))
        })
    };
    // What v2 and acli call a vCPU is a socket.
    let sockets = number(&["spec/resources/num_sockets", "numSockets", "num_vcpus", "config/num_vcpus"])?;
    let cores = number(&[
        "spec/resources/num_vcpus_per_socket",
        "numCoresPerSocket",
        "num_cores_per_vcpu",
        "config/num_cores_per_vcpu",
    ])?;
    let threads = number(&[
        "spec/resources/num_threads_per_core",
        "numThreadsPerCore",
        "num_threads_per_core",
        "config/num_threads_per_core",
    ])?;
    let all = u64::from(sockets) * u64::from(cores) * u64::from(threads);
    let count = u32::try_from(all).ok().filter(|_| all <= CPUS_AT_MOST);
    let count =
        count.ok_or_else(|| Error::corrupt(format!("has {all} processors; {CPUS_AT_MOST} are possible")))?;
    machine.cpus = Cpus::new(count, cores, threads);
    // The system's UUID is the machine's own, unless v4 says another.
    if let Some(uuid) = vm.text(&["biosUuid", "extId", "metadata/uuid", "uuid", "config/uuid"]) {
        let parsed = Uuid::parse_str(&uuid)
            .map_err(|_| Error::corrupt(format!("has the id {uuid:?}, which is no UUID")))?;
        machine.smbios.uuid = Some(parsed);
    }
    let zone = vm.text(&[
        "spec/resources/hardware_clock_timezone",
        "hardwareClockTimezone",
        "timezone",
        "config/hwclock_timezone",
    ]);
    machine.clock = match zone.as_deref() {
        None | Some("UTC" | "Etc/UTC" | "GMT") => Clock::Utc,
        Some(zone) => {
            findings.push(finding::NOT_HELD.finding(
                format!(
                    "The clock counts the time of {zone}; at the target it counts local time of its host."
                ),
                "Set the time zone of the target's host or machine to it.",
            ));
            Clock::LocalTime
        }
    };
    machine.os_label = vm
        .text(&["spec/resources/machine_type", "machineType", "machine_type", "config/machine_type"])
        .map(|board| format!("ahv {board}"));
    machine.tags = tags(vm);
    firmware(vm, &mut machine)?;
    Ok(machine)
}

/// Categories: `Environment=Production`. v4 names them by ids only, which stay among the unread settings.
fn tags(vm: &Fields<'_>) -> Vec<String> {
    let Some(categories) = vm.at(&["metadata/categories"]) else { return Vec::new() };
    categories.pairs().into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn firmware(vm: &Fields<'_>, machine: &mut Machine) -> Result<()> {
    let kind = vm.text(&["spec/resources/boot_config/boot_type"]);
    let object = vm.text(&["bootConfig/$objectType"]).unwrap_or_default();
    let uefi = vm.is(&["boot/uefi_boot", "config/boot/uefi_boot"]) || object.ends_with("UefiBoot");
    let secure = vm.is(&["boot/secure_boot", "config/boot/secure_boot", "bootConfig/isSecureBootEnabled"]);
    (machine.firmware, machine.secure_boot) = match kind.as_deref() {
        Some("SECURE_BOOT") => (Firmware::Uefi, true),
        Some("UEFI") => (Firmware::Uefi, false),
        Some("LEGACY") => (Firmware::Bios, false),
        Some(other) => {
            return Err(Error::unsupported(format!(
                "boot_type = {other:?}; LEGACY, UEFI and SECURE_BOOT are known"
            )));
        }
        None if uefi => (Firmware::Uefi, secure),
        None => (Firmware::Bios, false),
    };
    machine.tpm = vm.is(&[
        "spec/resources/vtpm_config/vtpm_enabled",
        "vtpmConfig/isVtpmEnabled",
        "config/vtpm_config/is_enabled",
    ]);
    Ok(())
}

/// `SCSI` and 3 as a place: `scsi.3`.
fn place(disk: &Fields<'_>) -> Result<(Bus, String)> {
    let bus = disk.text(&[
        "device_properties/disk_address/adapter_type",
        "diskAddress/busType",
        "disk_address/device_bus",
        "addr/bus",
    ]);
    let bus = bus.unwrap_or_default().to_ascii_lowercase();
    let index = disk.number(&[
        "device_properties/disk_address/device_index",
        "diskAddress/index",
        "disk_address/device_index",
        "addr/index",
    ])?;
    let model = match bus.as_str() {
        "scsi" => Bus::VirtioScsi,
        "ide" => Bus::Ide,
        "sata" => Bus::Sata,
        "pci" => Bus::VirtioBlk,
        other => {
            return Err(Error::unsupported(format!(
                "a disk is on the bus {other:?}; scsi, sata, ide and pci are known"
            )));
        }
    };
    Ok((model, format!("{bus}.{}", index.unwrap_or(0))))
}

fn disks(vm: &Fields<'_>, findings: &mut Vec<Finding>) -> Result<Vec<DiskSlot>> {
    let mut disks = Vec::new();
    let drives = vm.list(&["cdRoms"]);
    drives.iter().for_each(Fields::know_all);
    let mut cdroms = drives.len();
    for disk in vm.list(&["spec/resources/disk_list", "disks", "vm_disk_info", "config/disk_list"]) {
        let kind = disk.text(&["device_properties/device_type"]);
        if kind.as_deref() == Some("CDROM") || disk.is(&["is_cdrom", "cdrom"]) {
            cdroms += 1;
            disk.know_all();
            continue;
        }
        let (bus, slot) = place(&disk)?;
        let group =
            disk.text(&["volume_group_reference/uuid", "backingInfo/volumeGroupExtId", "volume_group_uuid"]);
        let id =
            disk.text(&["uuid", "backingInfo/diskExtId", "disk_address/vmdisk_uuid", "vmdisk_uuid", "extId"]);
        if let Some(group) = &group {
            findings.push(finding::DISK_SHARED.finding(
                format!("{slot} is the volume group {group}, which other machines can have, too."),
                "Convert its disks by themselves, and name them with --disk.",
            ));
        }
        if disk.is(&["shared"]) && group.is_none() {
            findings.push(finding::DISK_SHARED.finding(
                format!("{slot} is shared with other machines at the source."),
                "Convert all machines of the cluster while they are off.",
            ));
        }
        let file = group.or(id).ok_or_else(|| Error::corrupt(format!("{slot} is a disk without an id")))?;
        let size = disk.number(&["disk_size_bytes", "backingInfo/diskSizeBytes", "size", "vmdisk_size"])?;
        let mib = disk.number(&["disk_size_mib"])?;
        let size = size.or(mib.and_then(|mib| mib.checked_mul(1 << 20)));
        disk.know(&[
            "disk_address/device_uuid",
            "disk_address/disk_label",
            "device_uuid",
            "extId",
            "naa_id",
            "container_id",
            "data_source_reference/uuid",
            "data_source_reference/kind",
            "data_source_reference/name",
            "backingInfo/dataSource/reference/imageExtId",
            "storage_config/storage_container_reference/uuid",
            "storage_container_uuid",
            "backingInfo/storageContainer/extId",
            "device_properties/device_type",
        ]);
        disks.push(DiskSlot {
            size: size.map(Bytes),
            backing: Backing::Volume,
            ..DiskSlot::new(slot, bus, file)
        });
    }
    if cdroms > 0 {
        findings.push(finding::DEVICE_LEFT_OUT.finding("The machine has a CD drive: left out.", ""));
    }
    // By bus and index, as its firmware goes through them, whatever order the answer has.
    disks.sort_by_key(|disk: &DiskSlot| {
        let (bus, index) = disk.slot.split_once('.').unwrap_or((&disk.slot, "0"));
        let rank = ["scsi", "pci", "sata", "ide"].iter().position(|own| *own == bus);
        (rank, index.parse::<u64>().unwrap_or(u64::MAX))
    });
    Ok(disks)
}

fn nics(vm: &Fields<'_>, findings: &mut Vec<Finding>) -> Result<Vec<NicSlot>> {
    let mut nics = Vec::new();
    for (index, card) in
        vm.list(&["spec/resources/nic_list", "nics", "vm_nics", "config/nic_list"]).iter().enumerate()
    {
        let mut nic = NicSlot::new(format!("nic{index}"));
        let mac =
            card.text(&["mac_address", "nicBackingInfo/macAddress", "backingInfo/macAddress", "mac_addr"]);
        nic.mac =
            match mac {
                None => {
                    findings.push(finding::MAC_MISSING.finding(
                        format!("nic{index} has no hardware address yet: the target chooses one."),
                        "",
                    ));
                    None
                }
                Some(text) => Some(parse_mac(&text).ok_or_else(|| {
                    Error::corrupt(format!("nic{index} has the hardware address {text:?}"))
                })?),
            };
        nic.network = card.text(&[
            "subnet_reference/name",
            "network_name",
            "subnet_reference/uuid",
            "nicNetworkInfo/subnet/extId",
            "networkInfo/subnet/extId",
            "network_uuid",
        ]);
        let connected =
            card.at(&["is_connected", "nicBackingInfo/isConnected", "backingInfo/isConnected", "connected"]);
        nic.connected = connected.is_none_or(|flag| flag.truth());
        let model = card.text(&["model", "nicBackingInfo/model", "backingInfo/model", "adapter_type"]);
        nic.model = Some(model.unwrap_or_else(|| "virtio".into()).to_ascii_lowercase());
        let kind = card.text(&["nic_type", "nicNetworkInfo/nicType", "networkInfo/nicType", "type"]);
        if let Some(kind) = kind.filter(|kind| !matches!(kind.as_str(), "NORMAL_NIC" | "kNormalNic")) {
            findings.push(finding::NOT_HELD.finding(
                format!("nic{index} is a card of the kind {kind}; at the target it is an ordinary one."),
                "Look what the service chain or the mirror is for.",
            ));
        }
        let mode = card.text(&["vlan_mode", "nicNetworkInfo/vlanMode", "networkInfo/vlanMode"]);
        let is_trunk = mode.is_some_and(|mode| mode.to_ascii_uppercase().contains("TRUNK"));
        let lists = [
            "trunked_vlan_list",
            "trunked_networks",
            "nicNetworkInfo/trunkedVlans",
            "networkInfo/trunkedVlans",
        ];
        if is_trunk || !card.list(&lists).is_empty() {
            card.at(&lists).iter().for_each(Fields::know_all);
            findings.push(finding::NOT_HELD.finding(
                format!("nic{index} is a trunk of several VLANs, which is not carried over."),
                "Let the target's port pass these VLANs on.",
            ));
        }
        card.know(&[
            "uuid",
            "nic_uuid",
            "extId",
            "subnet_reference/kind",
            "subnet_reference/uuid",
            "network_uuid",
            "$objectType",
        ]);
        nics.push(nic);
    }
    Ok(nics)
}

fn boot(vm: &Fields<'_>, machine: &mut Machine) -> Result<()> {
    let device = [
        "spec/resources/boot_config/boot_device/disk_address",
        "boot/disk_address",
        "config/boot/disk_address",
        "bootConfig/bootDevice/diskAddress",
    ];
    if let Some(address) = vm.at(&device) {
        let bus = address.text(&["adapter_type", "device_bus", "busType", "bus"]).unwrap_or_default();
        let index = address.number(&["device_index", "index"])?.unwrap_or(0);
        let slot = format!("{}.{index}", bus.to_ascii_lowercase());
        machine.boot_disk = machine.disks.iter().position(|disk| disk.slot == slot);
    }
    let order = vm.list(&[
        "spec/resources/boot_config/boot_device_order_list",
        "bootConfig/bootOrder",
        "boot/boot_device_order",
        "config/boot/boot_device_order",
    ]);
    for (entry, word) in order.iter().filter_map(|entry| Some((entry, entry.word()?))) {
        let device = match word.trim_start_matches('k').to_ascii_uppercase().as_str() {
            "DISK" => Some(BootDevice::Disk),
            "CDROM" => Some(BootDevice::Cdrom),
            // v2 has another word for it.
            "NETWORK" | "NIC" => Some(BootDevice::Nic(0)).filter(|_| !machine.nics.is_empty()),
            _ => continue,
        };
        entry.known();
        machine.boot_order.extend(device.filter(|device| !machine.boot_order.contains(device)));
    }
    // A card as the only device that is named.
    let card = [
        "spec/resources/boot_config/boot_device/mac_address",
        "boot/mac_addr",
        "bootConfig/bootDevice/macAddress",
    ];
    let card = vm.text(&card).and_then(|mac| parse_mac(&mac));
    let card = card.and_then(|mac| machine.nics.iter().position(|nic| nic.mac.as_ref() == Some(&mac)));
    if let Some(card) = card.filter(|_| machine.boot_order.is_empty()) {
        machine.boot_order = vec![BootDevice::Nic(card), BootDevice::Disk];
    }
    Ok(())
}

/// Whether it ran when the answer was given: then its disks may have been copied in the middle of their work.
fn state(vm: &Fields<'_>, findings: &mut Vec<Finding>) {
    let state = vm.text(&["spec/resources/power_state", "power_state", "powerState", "state"]);
    match state.unwrap_or_default().trim_start_matches('k').to_ascii_uppercase().as_str() {
        "ON" => findings.push(finding::RUNNING.finding(
            "The machine was on when Prism was asked.",
            "Shut it down at the source before its disks are copied, or take them from a recovery point.",
        )),
        "SUSPENDED" | "PAUSED" => findings.push(finding::SUSPENDED.finding(
            "The machine is suspended or paused at the source: what is in its memory is lost.",
            "Resume it and shut it down there for a clean copy.",
        )),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
