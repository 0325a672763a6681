//! The script, and what cannot break out of it.

use super::*;
use crate::hypervisor::{Networks, PlacedDisk, attach};
use crate::machine::{Bus, Clock, Cpus, DiskSlot, OsId};
use landfall_boot::target::{Devices, DiskModel, NicModel, Platform};
use landfall_image::Bytes;

fn machine(firmware: Firmware) -> Machine {
    let mut machine = Machine::new("web01", Bytes::gib(4));
    machine.firmware = firmware;
    machine.secure_boot = firmware == Firmware::Uefi;
    machine.tpm = true;
    machine.cpus = Cpus::new(4, 2, 1);
    machine.clock = Clock::Utc;
    machine.annotation = Some("it's\ntwo lines".into());
    machine.tags = vec!["backup=daily".into()];
    machine.smbios.uuid = uuid::Uuid::parse_str("5ab19138-bae3-417b-92cf-17eab4346c65").ok();
    machine.smbios.serial = Some("4426-7762".into());
    machine.os = Some(OsId { distribution: "debian".into(), version: "12".into() });
    machine.disks = vec![DiskSlot::new("a", Bus::Scsi, "a"), DiskSlot::new("b", Bus::Scsi, "b")];
    machine.disks[1].serial = Some("s1".into());
    machine.boot_disk = Some(1);
    let mut nics = vec![NicSlot::new("eth0"), NicSlot::new("eth1")];
    nics[0].mac = Some("00:50:56:ab:cd:01".into());
    nics[0].network = Some("LAN".into());
    nics[0].vlan = Some(42);
    nics[1].connected = false;
    machine.nics = nics;
    attach::adapt(&machine, Platform::Hyperv, &Devices::default()).unwrap()
}

fn placement(machine: &Machine) -> Placement {
    let disk =
        |n| PlacedDisk { file: format!("disk{n}.vhdx"), format: "vhdx".into(), ..PlacedDisk::default() };
    Placement {
        folder: "/out/web01".into(),
        disks: (0..machine.disks.len()).map(disk).collect(),
        networks: Networks { map: vec![("LAN".into(), "Prod".into())], rest: Some("External".into()) },
        ..Placement::default()
    }
}

fn rendered(machine: &Machine) -> (String, Vec<String>) {
    let rendered = render(machine, &placement(machine)).unwrap();
    let findings = rendered.findings.iter().map(|f| format!("{}: {}", f.id, f.says)).collect();
    (rendered.artifacts[0].text.clone(), findings)
}

#[test]
fn both_generations() {
    let mut all = String::new();
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let (script, findings) = rendered(&machine(firmware));
        assert!(script.starts_with("\u{feff}#Requires"));
        // What differs stands before the functions.
        all += script.trim_start_matches('\u{feff}').split("function Stop-Here").next().unwrap();
        all += &findings.join("\n");
        all += "\n====\n";
    }
    insta::assert_snapshot!(all);
}

#[test]
fn the_whole_script() {
    insta::assert_snapshot!(rendered(&machine(Firmware::Uefi)).0.trim_start_matches('\u{feff}'));
}

#[test]
fn nothing_breaks_out() {
    let mut machine = machine(Firmware::Uefi);
    let bad = "x' ; Remove-VM * \u{2019}; $(calc) `n @NOTES@ \"@{}";
    machine.name = bad.into();
    machine.annotation = Some(bad.into());
    machine.smbios.serial = Some(bad.into());
    machine.nics[0].slot = bad.into();
    machine.nics[0].network = Some(bad.into());
    let (script, findings) = rendered(&machine);
    let literal = "'x'' ; Remove-VM * \u{2019}\u{2019}; $(calc) `n @NOTES@ \"@{}'";
    assert!(script.contains(&format!("Notes           = {literal}\n")), "{script}");
    assert!(script.contains(&format!("Serial          = {literal}\n")));
    assert!(script.contains(&format!("@{{ Name = {literal}; Mac = ")));
    assert!(script.contains("[string]$Name = 'x'' ; Remove-VM _ "), "{script}");
    assert!(findings.iter().any(|says| says.starts_with("name-changed")), "{findings:?}");
    for name in ["", " ", "...", "\u{1b}"] {
        machine.name = name.into();
        let made = render(&machine, &placement(&machine)).map(|_| ());
        assert_eq!(made.is_err(), name.trim_matches(['.', ' ']).is_empty(), "{name:?}");
    }
}

#[test]
fn old_guests_get_what_they_drive() {
    let machine = machine(Firmware::Bios);
    let machine = attach::on(&machine, Platform::Hyperv, DiskModel::Ide, NicModel::Tulip);
    let (script, _) = rendered(&machine);
    assert!(script.contains("Type = 'IDE'; Controller = 0; Location = 1"), "{script}");
    assert!(script.contains("Legacy = $true"));
    let mut odd = machine.clone();
    odd.disks[0].slot = "vda".into();
    assert!(render(&odd, &placement(&odd)).is_err());
}

#[test]
fn windows_goes_by_its_own_keys() {
    let mut machine = machine(Firmware::Uefi);
    assert_eq!(guests::of(&machine).hyperv_template(), "MicrosoftUEFICertificateAuthority");
    machine.os = None;
    machine.os_label = Some("windows2019srv_64Guest".into());
    assert_eq!(guests::of(&machine).hyperv_template(), "MicrosoftWindows");
}
