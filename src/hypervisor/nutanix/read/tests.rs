//! Answers of Prism and acli, made after the API references and public examples.

use super::*;
use landfall_image::Kind;
use serde_json::json;

fn v2() -> Value {
    json!({
        "uuid": "7b10d7af-b932-4c66-b2c3-3996152ec465", "name": "web01", "description": "the shop", "memory_mb": 4096,
        "num_vcpus": 2, "num_cores_per_vcpu": 2, "num_threads_per_core": 1, "timezone": "Europe/Vienna", "machine_type": "q35",
        "power_state": "off", "host_uuid": "x", "allow_live_migrate": true, "gpus_assigned": false,
        "boot": {
            "uefi_boot": true, "secure_boot": true, "boot_device_type": "disk",
            "disk_address": { "device_bus": "scsi", "device_index": 1, "vmdisk_uuid": "b" },
        },
        "vm_disk_info": [
            { "is_cdrom": true, "disk_address": { "device_bus": "ide", "device_index": 0 } },
            { "is_cdrom": false, "size": 2048, "disk_address": { "device_bus": "scsi", "device_index": 1, "disk_label": "scsi.1", "vmdisk_uuid": "b" } },
            { "is_cdrom": false, "size": 1024, "disk_address": { "device_bus": "scsi", "device_index": 0, "vmdisk_uuid": "a" }, "flash_mode_enabled": true },
            { "is_cdrom": false, "size": 4096, "disk_address": { "device_bus": "sata", "device_index": 0, "vmdisk_uuid": "c" } },
        ],
        "vm_nics": [
            { "mac_address": "50:6b:8d:00:00:01", "network_uuid": "n", "model": "", "is_connected": true, "vlan_mode": "Access" },
            { "mac_address": "50:6B:8D:00:00:02", "network_uuid": "m", "is_connected": false },
        ],
    })
}

fn read(value: &Value) -> Parsed {
    parse(value.to_string().as_bytes(), &Choice::default()).unwrap()
}

fn slots(machine: &Machine) -> Vec<(&str, &str, Option<u64>)> {
    let of = |disk: &'_ DiskSlot| disk.size.map(|size| size.0);
    machine.disks.iter().map(|disk| (disk.slot.as_str(), disk.file.as_str(), of(disk))).collect()
}

#[test]
fn prism_element() {
    let parsed = read(&json!({ "metadata": { "count": 1 }, "entities": [v2()] }));
    let machine = &parsed.machine;
    assert_eq!((machine.name.as_str(), machine.annotation.as_deref()), ("web01", Some("the shop")));
    assert_eq!((machine.memory, machine.cpus), (Bytes::gib(4), Cpus::new(4, 2, 1)));
    assert_eq!(
        (machine.firmware, machine.secure_boot, machine.clock),
        (Firmware::Uefi, true, Clock::LocalTime)
    );
    assert_eq!(
        slots(machine),
        [("scsi.0", "a", Some(1024)), ("scsi.1", "b", Some(2048)), ("sata.0", "c", Some(4096))],
        "by bus and index"
    );
    assert_eq!(machine.boot_disk, Some(1));
    assert_eq!(machine.nics[1].mac.as_deref(), Some("50:6b:8d:00:00:02"));
    assert_eq!((machine.nics[0].network.as_deref(), machine.nics[1].connected), (Some("n"), false));
    assert_eq!(machine.smbios.uuid.unwrap().to_string(), "7b10d7af-b932-4c66-b2c3-3996152ec465");
    let ids: Vec<_> = parsed.findings.iter().map(|finding| finding.id).collect();
    assert_eq!(ids, ["definition-not-held", "definition-device-left-out"]);
    assert_eq!(
        parsed.unread,
        [
            "allow_live_migrate",
            "boot/boot_device_type",
            "boot/disk_address/vmdisk_uuid",
            "vm_disk_info/flash_mode_enabled"
        ]
    );
}

#[test]
fn prism_central_v3() {
    let vm = json!({
        "status": { "name": "web01", "state": "COMPLETE" },
        "spec": {
            "name": "web01",
            "resources": {
                "num_sockets": 1, "num_vcpus_per_socket": 4, "num_threads_per_core": 2, "memory_size_mib": 2048,
                "hardware_clock_timezone": "UTC", "machine_type": "PC", "power_state": "OFF",
                "boot_config": { "boot_type": "LEGACY", "boot_device_order_list": ["CDROM", "DISK", "NETWORK"] },
                "vtpm_config": { "vtpm_enabled": true },
                "disk_list": [
                    { "uuid": "a", "disk_size_mib": 1, "device_properties": { "device_type": "DISK", "disk_address": { "adapter_type": "SCSI", "device_index": 0 } } },
                    { "uuid": "b", "device_properties": { "device_type": "CDROM", "disk_address": { "adapter_type": "IDE", "device_index": 0 } } },
                    { "volume_group_reference": { "uuid": "vg" }, "device_properties": { "device_type": "VOLUME_GROUP", "disk_address": { "adapter_type": "SCSI", "device_index": 3 } } },
                ],
                "nic_list": [{ "nic_type": "NETWORK_FUNCTION_NIC", "subnet_reference": { "kind": "subnet", "name": "lan", "uuid": "s" } }],
                "gpu_list": [{ "mode": "PASSTHROUGH" }],
            },
        },
        "metadata": { "kind": "vm", "uuid": "7b10d7af-b932-4c66-b2c3-3996152ec465", "categories": { "Environment": "Production" } },
    });
    let parsed = read(&vm);
    let machine = &parsed.machine;
    assert_eq!(machine.cpus, Cpus::new(8, 4, 2));
    assert_eq!(slots(machine), [("scsi.0", "a", Some(1 << 20)), ("scsi.3", "vg", None)]);
    assert_eq!(machine.boot_order, [BootDevice::Cdrom, BootDevice::Disk, BootDevice::Nic(0)]);
    assert_eq!((machine.tpm, machine.tags.as_slice()), (true, &["Environment=Production".to_owned()][..]));
    assert_eq!(machine.nics[0].network.as_deref(), Some("lan"));
    let ids: Vec<_> = parsed.findings.iter().map(|finding| finding.id).collect();
    assert_eq!(
        ids,
        [
            "disk-shared",
            "definition-device-left-out",
            "nic-without-address",
            "definition-not-held",
            "device-passthrough"
        ]
    );
}

#[test]
fn acli() {
    let answer = json!({
        "status": 0, "error": null,
        "data": { "7b10d7af-b932-4c66-b2c3-3996152ec465": {
            "uuid": "7b10d7af-b932-4c66-b2c3-3996152ec465", "state": "kOff", "logical_timestamp": 3,
            "config": {
                "name": "web01", "annotation": "x", "memory_mb": 1024, "num_vcpus": 1, "num_cores_per_vcpu": 1, "num_threads_per_core": 1,
                "hwclock_timezone": "UTC", "boot": { "uefi_boot": true },
                "disk_list": [
                    { "addr": { "bus": "scsi", "index": 0 }, "cdrom": false, "vmdisk_uuid": "a", "vmdisk_size": 512 },
                    { "addr": { "bus": "ide", "index": 0 }, "cdrom": true, "empty": true },
                ],
                "nic_list": [{ "mac_addr": "50:6b:8d:00:00:01", "network_name": "lan", "type": "kNormalNic", "connected": true }],
            },
        } },
    });
    let parsed = read(&answer);
    assert_eq!(slots(&parsed.machine), [("scsi.0", "a", Some(512))]);
    assert_eq!((parsed.machine.firmware, parsed.machine.memory), (Firmware::Uefi, Bytes::gib(1)));
    assert_eq!(parsed.machine.nics[0].network.as_deref(), Some("lan"));
    assert_eq!(parsed.unread, Vec::<String>::new());
}

#[test]
fn of_several_machines_one_is_chosen() {
    let mut other = v2();
    other["name"] = json!("db01");
    other["uuid"] = json!("00000000-0000-4000-8000-000000000001");
    let both = json!({ "entities": [v2(), other] }).to_string();
    let choose = |system: Option<&str>| {
        let choice = Choice { system: system.map(str::to_owned), ..Choice::default() };
        parse(both.as_bytes(), &choice).map(|parsed| parsed.machine.name)
    };
    assert_eq!(choose(Some("db01")).unwrap(), "db01");
    assert_eq!(choose(Some("00000000-0000-4000-8000-000000000001")).unwrap(), "db01");
    for system in [None, Some("x")] {
        let error = choose(system).unwrap_err();
        assert_eq!(
            (error.kind(), error.hint_text()),
            (Kind::Refused, Some("choose one with --system: web01, db01")),
            "{system:?}"
        );
    }
    // A cluster has thousands.
    let many: Vec<_> = (0..100)
        .map(|n| {
            let mut one = v2();
            one["name"] = json!(format!("vm{n}"));
            one
        })
        .collect();
    let error = parse(json!({ "entities": many }).to_string().as_bytes(), &Choice::default()).unwrap_err();
    assert!(error.hint_text().unwrap().ends_with(", vm63"), "{error}");
    assert!(recognise(both.as_bytes()));
    for no in ["{}", "[]", "name: x", "{\"entities\": [1]}", "{\"data\": {}}"] {
        assert!(!recognise(no.as_bytes()), "{no}");
    }
}

#[test]
fn what_has_no_sense_is_refused() {
    let change = |path: &str, value: Value| {
        let mut vm = v2();
        *vm.pointer_mut(path).unwrap() = value;
        parse(vm.to_string().as_bytes(), &Choice::default()).map(|_| ())
    };
    for (path, value, kind) in [
        ("/memory_mb", json!(0), Kind::Corrupt),
        ("/memory_mb", json!(u64::MAX), Kind::Corrupt),
        ("/num_vcpus", json!(0), Kind::Corrupt),
        ("/num_vcpus", json!(4096), Kind::Corrupt),
        ("/num_vcpus", json!(2.5), Kind::Corrupt),
        ("/num_cores_per_vcpu", json!([2]), Kind::Corrupt),
        ("/vm_disk_info/1/size", json!("2 GB"), Kind::Corrupt),
        ("/uuid", json!("x"), Kind::Corrupt),
        ("/vm_disk_info/1/disk_address/device_bus", json!("floppy"), Kind::Unsupported),
        ("/vm_nics/0/mac_address", json!("50:6b"), Kind::Corrupt),
    ] {
        assert_eq!(change(path, value.clone()).unwrap_err().kind(), kind, "{path} {value}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for text in ["", "{", "null", "{\"config\":{\"num_vcpus\":1}}", deep.as_str()] {
        assert_eq!(parse(text.as_bytes(), &Choice::default()).unwrap_err().kind(), Kind::Corrupt);
    }
}

/// What stands between the copy and the machine is told, in the words of every version.
#[test]
fn what_matters_is_not_only_named() {
    let mut vm = v2();
    vm["power_state"] = json!("on");
    vm["num_vcpus"] = json!("2");
    vm["boot"]["boot_device_order"] = json!(["NIC", "DISK", "HOLOGRAM"]);
    vm["vm_disk_info"][1]["shared"] = json!(true);
    vm["vm_nics"][0]["vlan_mode"] = json!("Trunked");
    vm["vm_nics"][0]["trunked_networks"] = json!([7, 8]);
    let parsed = read(&vm);
    assert_eq!(parsed.machine.cpus, Cpus::new(4, 2, 1));
    assert_eq!(parsed.machine.boot_order, [BootDevice::Nic(0), BootDevice::Disk]);
    let told = |id: &str, word: &str| {
        parsed.findings.iter().any(|finding| finding.id == id && finding.says.contains(word))
    };
    assert!(told("machine-running", "was on") && told("disk-shared", "scsi.1"), "{:?}", parsed.findings);
    assert!(told("definition-not-held", "nic0 is a trunk"), "{:?}", parsed.findings);
    // A word that is not known, and a list that is none.
    assert!(parsed.unread.contains(&"boot/boot_device_order".to_owned()), "{:?}", parsed.unread);
    vm["boot"]["boot_device_order"] = json!("kDisk,kCdrom");
    assert!(read(&vm).unread.contains(&"boot/boot_device_order".to_owned()));
    // One card alone.
    vm["boot"] = json!({ "mac_addr": "50:6B:8D:00:00:02" });
    vm["power_state"] = json!("suspended");
    let parsed = read(&vm);
    assert_eq!(parsed.machine.boot_order, [BootDevice::Nic(1), BootDevice::Disk]);
    assert!(parsed.findings.iter().any(|finding| finding.id == "machine-suspended"));
}
