//! The template and the script, and what cannot break out of them.

use super::*;
use crate::hypervisor::{Networks, PlacedDisk, attach};
use crate::machine::{Bus, Cpus, DiskSlot, NicSlot, OsId};
use landfall_boot::target::{Devices, Platform};

fn machine(firmware: Firmware) -> Machine {
    let mut machine = Machine::new("web01", Bytes::gib(4));
    machine.firmware = firmware;
    machine.secure_boot = firmware == Firmware::Uefi;
    machine.tpm = true;
    machine.cpus = Cpus::new(3, 1, 1);
    machine.annotation = Some("it's\n${name} \\ two".into());
    machine.tags = vec!["backup=daily".into(), "web".into(), "a/b=c".into()];
    machine.smbios.serial = Some("4426-7762".into());
    machine.os = Some(OsId { distribution: "debian".into(), version: "12".into() });
    machine.disks = (0..3).map(|n| DiskSlot::new(n.to_string(), Bus::Scsi, "a")).collect();
    machine.boot_disk = Some(1);
    let mut nics = vec![NicSlot::new("eth0"), NicSlot::new("eth1"), NicSlot::new("eth2")];
    nics[0].mac = Some("00:50:56:ab:cd:01".into());
    nics[0].network = Some("LAN".into());
    nics[0].vlan = Some(42);
    nics[1].connected = false;
    machine.nics = nics;
    attach::adapt(&machine, Platform::Azure, &Devices::default()).unwrap()
}

fn placement(machine: &Machine) -> Placement {
    let disk = |n| PlacedDisk {
        file: format!("disk{n}.vhd"),
        virtual_size: Bytes::gib(20),
        ..PlacedDisk::default()
    };
    Placement {
        disks: (0..machine.disks.len()).map(disk).collect(),
        networks: Networks { map: vec![("LAN".into(), "net/front".into())], rest: None },
        ..Placement::default()
    }
}

#[test]
fn both_generations() {
    for (firmware, word) in [(Firmware::Bios, "bios"), (Firmware::Uefi, "uefi")] {
        let machine = machine(firmware);
        let rendered = render(&machine, &placement(&machine)).unwrap();
        let findings: Vec<_> = rendered.findings.iter().map(|f| format!("{}: {}", f.id, f.says)).collect();
        insta::assert_snapshot!(format!("{word}_bicep"), rendered.artifacts[0].text);
        insta::assert_snapshot!(format!("{word}_findings"), findings.join("\n"));
        if firmware == Firmware::Uefi {
            insta::assert_snapshot!("script", rendered.artifacts[1].text);
        }
    }
}

#[test]
fn names_are_as_azure_takes_them() {
    for (wanted, made) in [
        ("web01", "web01"),
        ("web 01 (prod).", "web-01--prod"),
        ("_ä-x", "x"),
        ("$(reboot)'@FILES@", "reboot---FILES"),
        ("--", ""),
    ] {
        assert_eq!(called(wanted), made, "{wanted}");
    }
    assert_eq!(called(&"x".repeat(200)).len(), 56, "room for what is called after it");
}

#[test]
fn words_stay_words() {
    assert_eq!(word("it's ${x} \\ \n"), r"'it\'s \${x} \\  '");
    let mut machine = machine(Firmware::Uefi);
    machine.nics[0].slot = "'${resourceGroup().id}' $(reboot)".into();
    let files = render(&machine, &placement(&machine)).unwrap().artifacts;
    assert!(files[0].text.contains(r"'\'\${resourceGroup().id}\' \$(reboot)'"), "{}", files[0].text);
    assert!(
        files[1].text.contains(r"add_card ''\''${resourceGroup().id}'\'' $(reboot)' 'net/front'"),
        "{}",
        files[1].text
    );
}

#[test]
fn disks_that_azure_does_not_take_are_refused() {
    let machine = machine(Firmware::Uefi);
    let mut placement = placement(&machine);
    placement.disks[0].virtual_size = Bytes::gib(5000);
    assert!(render(&machine, &placement).is_ok(), "a data disk");
    placement.disks[1].virtual_size = Bytes::gib(5000);
    assert!(render(&machine, &placement).is_err(), "the one to start from");
    placement.disks.pop();
    assert!(render(&machine, &placement).is_err());
}

/// A TPM is made where the source has one, whatever its secure boot is; sockets are told, too.
#[test]
fn the_tpm_is_the_sources_and_sockets_are_told() {
    for (secure_boot, tpm) in [(true, false), (false, true), (true, true), (false, false)] {
        let mut machine = machine(Firmware::Uefi);
        (machine.secure_boot, machine.tpm) = (secure_boot, tpm);
        let bicep = render(&machine, &placement(&machine)).unwrap().artifacts.remove(0).text;
        assert_eq!(bicep.contains("vTpmEnabled: true"), tpm, "{bicep}");
        assert_eq!(bicep.contains("secureBootEnabled: true"), secure_boot, "{bicep}");
        assert_eq!(bicep.contains("TrustedLaunch"), secure_boot || tpm, "{bicep}");
    }
    for (cpus, is_told) in
        [(Cpus::new(4, 1, 1), true), (Cpus::new(1, 1, 1), false), (Cpus::new(2, 2, 1), true)]
    {
        let machine = Machine { cpus, ..machine(Firmware::Uefi) };
        let findings = render(&machine, &placement(&machine)).unwrap().findings;
        assert_eq!(findings.iter().any(|finding| finding.says.contains("sockets of")), is_told, "{cpus:?}");
    }
}
