//! What is written for ESXi, read back, and what hostile names do to it.

use super::*;
use crate::hypervisor::PlacedDisk;
use crate::hypervisor::vmware::vmx;
use crate::machine::{Cpus, NicSlot, OsId, Smbios};
use landfall_boot::target::{Devices, NicModel, Platform};
use landfall_image::Bytes;

/// A machine with something in every field that a .vmx has a place for.
fn full() -> Machine {
    let uuid = uuid::Uuid::parse_str("564d9bef-acd9-b4e0-c8f0-aea8b9103515").unwrap();
    let mut machine = Machine::new("web01 \"blue\" |22 ü", Bytes::gib(4));
    machine.annotation = Some("two\nlines, a tab\t, |0A and \"quotes\"".into());
    machine.firmware = Firmware::Uefi;
    machine.secure_boot = true;
    machine.cpus = Cpus::new(8, 4, 1);
    machine.smbios = Smbios { uuid: Some(uuid), serial: Some(serial(uuid)), ..Smbios::default() };
    machine.os = Some(OsId { distribution: "debian".into(), version: "12".into() });
    machine.disks =
        (0..17).map(|n| DiskSlot::new(format!("sd{n}"), Bus::Scsi, format!("disk{n}.vmdk"))).collect();
    machine.boot_disk = Some(2);
    machine.boot_order = vec![BootDevice::Nic(1), BootDevice::Disk, BootDevice::Cdrom];
    let nic = |n: u8, mac: &str, connected| NicSlot {
        mac: Some(mac.into()),
        network: Some(format!("net {n}")),
        connected,
        ..NicSlot::new(format!("eth{n}"))
    };
    machine.nics = vec![nic(0, "00:50:56:20:30:40", true), nic(1, "52:54:00:01:02:03", false)];
    machine
}

fn adapted(machine: &Machine, disk: DiskModel, card: NicModel) -> Machine {
    let mut machine = attach::on(machine, Platform::Esxi, disk, card);
    for (index, disk) in machine.disks.iter_mut().enumerate() {
        disk.file = format!("disk{index}.vmdk");
    }
    machine
}

fn placement(machine: &Machine) -> Placement {
    let map = machine.nics.iter().filter_map(|nic| nic.network.clone()).map(|name| (name.clone(), name));
    let disk = |disk: &DiskSlot| PlacedDisk {
        file: disk.file.clone(),
        format: "vmdk".into(),
        ..PlacedDisk::default()
    };
    Placement {
        folder: "/out".into(),
        disks: machine.disks.iter().map(disk).collect(),
        networks: Networks { map: map.collect(), rest: None },
        ..Placement::default()
    }
}

#[test]
fn every_field_comes_back() {
    for (disk, model, controller) in [
        (DiskModel::Pvscsi, NicModel::Vmxnet3, Some("pvscsi")),
        (DiskModel::Lsi, NicModel::E1000e, Some("lsisas1068")),
        (DiskModel::LsiParallel, NicModel::E1000, Some("lsilogic")),
        (DiskModel::Sata, NicModel::Vmxnet3, None),
        (DiskModel::Nvme, NicModel::Vmxnet3, None),
    ] {
        let machine = adapted(&full(), disk, model);
        let rendered = render(&machine, &placement(&machine)).unwrap();
        assert_eq!(rendered.findings, Vec::new());
        let parsed = vmx::parse(rendered.artifacts[0].text.as_bytes(), &Default::default()).unwrap();
        let mut expected = machine.clone();
        // What is named otherwise there.
        expected.os_label = Some("debian11-64".into());
        expected.os = None;
        expected.nvram = Some("web01__blue___22__.nvram".into());
        for (number, nic) in expected.nics.iter_mut().enumerate() {
            nic.slot = format!("ethernet{number}");
        }
        for disk in &mut expected.disks {
            disk.controller = controller.map(str::to_owned);
        }
        assert_eq!(parsed.machine, expected, "{}", disk.name());
        assert_eq!(parsed.unread, ["disk.EnableUUID"], "{}", disk.name());
    }
}

#[test]
fn a_machine_for_esxi() {
    let mut machine = full();
    machine.disks.truncate(3);
    let machine = adapted(&machine, DiskModel::Pvscsi, NicModel::Vmxnet3);
    let rendered = render(&machine, &placement(&machine)).unwrap();
    insta::assert_snapshot!("vmx", rendered.artifacts[0].text);
    insta::assert_snapshot!("register.sh", rendered.artifacts[1].text);
    insta::assert_snapshot!("register.ps1", rendered.artifacts[2].text);
}

#[test]
fn what_has_no_place_is_told() {
    let mut machine = full();
    machine.tpm = true;
    machine.clock = Clock::LocalTime;
    machine.smbios.serial = Some("CZ1234".into());
    machine.smbios.manufacturer = Some("HP".into());
    machine.cpus = Cpus::new(8, 2, 2);
    machine.tags = vec!["backup=daily".into()];
    machine.disks[0].serial = Some("S1".into());
    machine.nics[0].vlan = Some(12);
    let machine = adapted(&machine, DiskModel::Pvscsi, NicModel::Vmxnet3);
    let rendered = render(&machine, &placement(&machine)).unwrap();
    let all: String = rendered.findings.iter().map(|finding| format!("{}\n", finding.says)).collect();
    for word in
        ["virtual TPM", "local time", "CZ1234", "HP", "2 threads", "scsi0:0", "backup=daily", "VLAN 12"]
    {
        assert!(all.contains(word), "{word}: {all}");
    }
    assert_eq!(rendered.findings.len(), 8, "{all}");
    assert!(rendered.findings.iter().all(|finding| finding.id == "definition-not-held"));
    let text = &rendered.artifacts[0].text;
    assert!(
        text.contains("cpuid.coresPerSocket = \"4\"") && text.contains("serialNumber = \"CZ1234\""),
        "{text}"
    );
    assert!(!text.contains("vtpm"), "{text}");
}

#[test]
fn windows_clocks_and_foreign_addresses() {
    let mut machine = full();
    machine.os = None;
    machine.os_label = Some("windows2019srv_64Guest".into());
    let machine = adapted(&machine, DiskModel::Lsi, NicModel::E1000e);
    let text = render(&machine, &placement(&machine)).unwrap().artifacts.remove(0).text;
    assert!(
        text.contains("guestOS = \"windows2019srv-64\"\n") && text.contains("rtc.diffFromUTC = \"0\""),
        "{text}"
    );
    assert!(!text.contains("ethernet0.checkMACAddress"), "{text}");
    assert!(text.contains("ethernet1.checkMACAddress = \"FALSE\""), "{text}");
    assert!(text.contains("bios.hddOrder = \"scsi0:2,scsi0:0,scsi0:1,scsi0:3,"), "{text}");
}

/// A name is a value, whatever is in it.
#[test]
fn hostile_names_stay_in_their_quotes() {
    for name in
        ["$(reboot)`id`'\"; rm -rf /", "@FILES@|0a", "..", "-rf", ".hidden", "a%2fb\\c", "’; Remove-Item C:"]
    {
        let mut machine = full();
        machine.name = name.into();
        machine.nics[0].network = Some(name.into());
        machine.annotation = Some("x\"\nfirmware = \"bios\"\r\nuuid.bios = \"1".into());
        let machine = adapted(&machine, DiskModel::Pvscsi, NicModel::Vmxnet3);
        let rendered = render(&machine, &placement(&machine)).unwrap();
        let [definition, sh, ps] = rendered.artifacts.as_slice() else { panic!("three files") };
        assert!(
            !definition.name.starts_with(['.', '-']) && !definition.name.contains(['/', '\\', '%']),
            "{}",
            definition.name
        );
        let parsed = vmx::parse(definition.text.as_bytes(), &Default::default()).unwrap().machine;
        assert_eq!((parsed.name.as_str(), parsed.annotation), (name, machine.annotation.clone()));
        assert_eq!((parsed.firmware, parsed.nics[0].network.as_deref()), (Firmware::Uefi, Some(name)));
        assert!(sh.text.contains(&format!("\nname={}\n", shell(name))), "{}", sh.text);
        assert!(ps.text.contains(&format!("\n$name = {}\n", powershell(name))), "{}", ps.text);
    }
    for name in ["", "a\nb", &"x".repeat(81)] {
        let machine = Machine { name: name.into(), ..adapted(&full(), DiskModel::Sata, NicModel::E1000) };
        assert!(render(&machine, &placement(&machine)).is_err(), "{name:?}");
    }
}

#[test]
fn a_machine_that_was_not_adapted_is_refused() {
    let machine = full();
    assert!(render(&machine, &placement(&machine)).is_err(), "sd0 is no place");
    let kvm = attach::adapt(
        &Machine { disks: machine.disks[..2].to_vec(), ..machine },
        Platform::Kvm,
        &Devices::default(),
    );
    let kvm = kvm.unwrap();
    assert!(render(&kvm, &placement(&kvm)).is_err(), "virtio is none of ESXi's");
    assert!(render(&kvm, &Placement::default()).is_err(), "its disks are nowhere");
}
