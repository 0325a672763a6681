//! Nothing is dropped in silence: for every target, a machine that differs in one field has another definition, or a finding that
//! tells of it.

use landfall::hypervisor::{self, Networks, PlacedDisk, Placement, Target, attach};
use landfall::machine::{BootDevice, Bus, Clock, Cpus, DiskSlot, Machine, NicSlot};
use landfall_boot::target::{Devices, Firmware};
use landfall_image::Bytes;
use uuid::Uuid;

fn usual() -> Machine {
    let mut machine = Machine::new("web01", Bytes::gib(4));
    machine.firmware = Firmware::Uefi;
    machine.cpus = Cpus::new(8, 1, 1);
    machine.smbios.uuid = Some(Uuid::from_u128(0x564d_6c61_6e64_6661_6c6c_6465_6d6f_3031));
    for number in 0..2 {
        machine.disks.push(DiskSlot {
            size: Some(Bytes::gib(10)),
            ..DiskSlot::new(format!("scsi0:{number}"), Bus::Scsi, format!("disk{number}.vmdk"))
        });
        machine.nics.push(NicSlot {
            mac: Some(format!("00:50:56:00:00:0{number}")),
            network: Some(format!("LAN{number}")),
            ..NicSlot::new(format!("ethernet{number}"))
        });
    }
    machine
}

type Change = (&'static str, fn(&mut Machine));

/// Every field that a target is given. What only means something at the source (slots, files, models, names of systems) is
/// the adaptation's, and not here.
const CHANGES: &[Change] = &[
    ("annotation", |machine| machine.annotation = Some("owner: ops".into())),
    ("tags", |machine| machine.tags = vec!["backup=daily".into()]),
    ("firmware", |machine| machine.firmware = Firmware::Bios),
    ("secure_boot", |machine| machine.secure_boot = true),
    ("tpm", |machine| machine.tpm = true),
    ("cpus.count", |machine| machine.cpus = Cpus::new(4, 1, 1)),
    ("cpus.cores_per_socket", |machine| machine.cpus = Cpus::new(8, 4, 1)),
    ("cpus.threads_per_core", |machine| machine.cpus = Cpus::new(8, 1, 2)),
    ("memory", |machine| machine.memory = Bytes::gib(8)),
    ("smbios.uuid", |machine| machine.smbios.uuid = Some(Uuid::from_u128(7 << 64 | 9))),
    ("smbios.serial", |machine| machine.smbios.serial = Some("SERIAL-1".into())),
    ("smbios.manufacturer", |machine| machine.smbios.manufacturer = Some("Maker".into())),
    ("smbios.product", |machine| machine.smbios.product = Some("Product".into())),
    ("smbios.version", |machine| machine.smbios.version = Some("V9".into())),
    ("smbios.sku", |machine| machine.smbios.sku = Some("SKU-7".into())),
    ("smbios.family", |machine| machine.smbios.family = Some("Family".into())),
    ("clock", |machine| machine.clock = Clock::LocalTime),
    ("disks", |machine| machine.disks.truncate(1)),
    ("boot_disk", |machine| machine.boot_disk = Some(1)),
    ("boot_order", |machine| machine.boot_order = vec![BootDevice::Nic(1), BootDevice::Disk]),
    ("disk.serial", |machine| machine.disks[1].serial = Some("DISK-SERIAL".into())),
    ("nics", |machine| machine.nics.truncate(1)),
    ("nic.mac", |machine| machine.nics[1].mac = Some("00:50:56:00:00:0f".into())),
    ("nic.mac absent", |machine| machine.nics[1].mac = None),
    ("nic.connected", |machine| machine.nics[1].connected = false),
    ("nic.vlan", |machine| machine.nics[1].vlan = Some(42)),
];

/// Everything that a target says of a machine.
fn said(target: &Target, machine: &Machine) -> Result<String, String> {
    let mut machine =
        attach::adapt(machine, target.platform, &Devices::default()).map_err(|e| e.to_string())?;
    let kind = landfall_image::formats::kind(target.kinds[0]).unwrap();
    for (number, disk) in machine.disks.iter_mut().enumerate() {
        disk.file = format!("disk{number}.{}", kind.ending);
    }
    let disks = machine.disks.iter().map(|disk| PlacedDisk {
        file: disk.file.clone(),
        format: kind.format.name().to_owned(),
        virtual_size: Bytes::gib(10),
        stored: None,
        below: None,
    });
    let networks =
        Networks { map: vec![("LAN0".into(), "net0".into()), ("LAN1".into(), "net1".into())], rest: None };
    let placement = Placement {
        folder: "/out/web01".into(),
        disks: disks.collect(),
        networks,
        storage: Some("store".into()),
        id: None,
        variables: None,
        emulated: false,
        asks: Vec::new(),
        ..Placement::default()
    };
    let rendered = (target.render)(&machine, &placement).map_err(|e| e.to_string())?;
    let mut out = String::new();
    for artifact in &rendered.artifacts {
        out += &format!("== {}\n{}\n", artifact.name, artifact.text);
    }
    for finding in &rendered.findings {
        out += &format!("{} {} {}\n", finding.id, finding.says, finding.remedy);
    }
    Ok(out)
}

#[test]
fn no_target_drops_a_field() {
    let mut dropped = Vec::new();
    for target in hypervisor::TARGETS {
        let before = said(target, &usual()).unwrap_or_else(|error| panic!("{}: {error}", target.name));
        for (field, change) in CHANGES {
            let mut machine = usual();
            change(&mut machine);
            // A refusal with a reason is no silence.
            if said(target, &machine).is_ok_and(|after| after == before) {
                dropped.push(format!("{}: {field}", target.name));
            }
        }
    }
    assert!(dropped.is_empty(), "dropped in silence:\n{}", dropped.join("\n"));
}
