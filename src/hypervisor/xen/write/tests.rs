use super::super::read;
use super::*;
use crate::hypervisor::{Choice, Networks, PlacedDisk};
use crate::machine::{Bus, Cpus, DiskSlot};
use landfall_boot::target::{Devices, Platform};

/// A machine of Xen's with all that it can have, as its reader gives it.
fn rich() -> Machine {
    let mut machine = Machine::new("web <01> & \"co\"", Bytes::gib(4));
    machine.annotation = Some("owner: ops\nsecond line".into());
    machine.tags = vec!["backup=daily".into(), "wéb".into()];
    machine.firmware = Firmware::Uefi;
    machine.secure_boot = true;
    machine.cpus = Cpus::new(8, 4, 1);
    machine.smbios.uuid = Some("7b10d7af-b932-4c66-b2c3-3996152ec465".parse().unwrap());
    machine.smbios.serial = Some("SERIAL 1".into());
    machine.smbios.manufacturer = Some("Maker".into());
    machine.smbios.product = Some("Product".into());
    machine.smbios.version = Some("V9".into());
    machine.os_label = Some("Debian Bookworm 12".into());
    machine.boot_order = vec![BootDevice::Nic(0), BootDevice::Disk, BootDevice::Cdrom];
    for index in 0..3 {
        let slot = format!("xvd{}", attach::letters(index));
        let size = Some(Bytes::gib(10 + index as u64));
        machine.disks.push(DiskSlot { size, ..DiskSlot::new(slot, Bus::Xen, disk_name(index)) });
    }
    for index in 0..2 {
        machine.nics.push(NicSlot {
            mac: Some(format!("00:50:56:00:12:a{index}")),
            model: Some("xen".into()),
            network: Some(format!("net {index}")),
            connected: index == 0,
            ..NicSlot::new(format!("vif{index}"))
        });
    }
    machine
}

fn placement(machine: &Machine) -> Placement {
    let disks = machine.disks.iter().enumerate().map(|(index, disk)| PlacedDisk {
        file: disk_name(index),
        format: "xva".into(),
        virtual_size: disk.size.unwrap(),
        stored: None,
        below: None,
    });
    Placement { disks: disks.collect(), storage: Some("fast".into()), ..Placement::default() }
}

fn written(machine: &Machine) -> Rendered {
    let adapted = attach::adapt(machine, Platform::Xen, &Devices::default()).unwrap();
    render(&adapted, &placement(machine)).unwrap()
}

/// What Xen holds comes back as it was.
#[test]
fn a_machine_of_xens_comes_back_as_it_was() {
    let machine = rich();
    let rendered = written(&machine);
    assert!(read::recognise(rendered.artifacts[0].text.as_bytes()));
    let parsed = read::parse(rendered.artifacts[0].text.as_bytes(), &Choice::default()).unwrap();
    assert_eq!(parsed.machine, machine);
    assert_eq!((parsed.unread, parsed.findings), (vec![], vec![]), "all of it is read");
    // The boot disk is made the first, which the firmware starts.
    let machine = Machine { boot_disk: Some(2), ..rich() };
    let parsed = read::parse(written(&machine).artifacts[0].text.as_bytes(), &Choice::default()).unwrap();
    let files: Vec<_> = parsed.machine.disks.iter().map(|disk| disk.file.as_str()).collect();
    assert_eq!(files, ["Ref:1002", "Ref:1000", "Ref:1001"]);
    assert_eq!(parsed.machine.boot_disk, None);
}

#[test]
fn the_definition_has_every_field() {
    let mut machine = rich();
    machine.disks.truncate(1);
    machine.nics.truncate(1);
    let text = written(&machine).artifacts.swap_remove(0).text;
    insta::assert_snapshot!(text.replace("<member>", "\n<member>"));
}

#[test]
fn what_is_lost_is_told() {
    let mut machine = rich();
    machine.tpm = true;
    machine.nvram = Some("a".into());
    machine.clock = Clock::LocalTime;
    machine.cpus = Cpus::new(8, 2, 2);
    machine.smbios.serial = Some("sé".into());
    machine.smbios.sku = Some("S".into());
    machine.boot_order = vec![BootDevice::Floppy, BootDevice::Nic(1)];
    machine.nics[0].vlan = Some(12);
    machine.disks[1].size = Some(Bytes((3 << 40) + 512));
    machine.disks[1].serial = Some("D".into());
    let says: Vec<String> =
        written(&machine).findings.iter().map(|f| format!("{} {} {}", f.id, f.says, f.remedy)).collect();
    insta::assert_snapshot!(says.join("\n"));
}

#[test]
fn names_of_archives_stay_in_their_folder() {
    for (name, file) in
        [("web01", "web01.xva"), ("../../x y", "_.._x_y.xva"), ("-rf", "rf.xva"), ("ä/$(x)", "____x_.xva")]
    {
        assert_eq!(file_name(name), file);
    }
    let machine = Machine { name: "a\u{1}".into(), ..Machine::new("", Bytes::gib(1)) };
    assert!(render(&machine, &Placement::default()).is_err());
    let networks = Networks { map: Vec::new(), rest: Some("\n".into()) };
    let placement = Placement { networks, ..Placement::default() };
    assert_eq!(network(&NicSlot::new("a"), &placement), USUAL_NETWORK);
}
