//! What is written for hostile machines, and what is told of what is not.

use super::*;
use crate::machine::BootDevice;
use landfall_image::Bytes;

fn machine(name: &str) -> Machine {
    let text = "config.version = \"8\"\nannotation = \"two|0Alines|01|1b[2J\"";
    Machine {
        name: name.into(),
        ..crate::hypervisor::vmware::vmx::parse(text.as_bytes(), &Default::default()).unwrap().machine
    }
}

fn placement(folder: &str) -> Placement {
    Placement { folder: folder.to_owned(), ..Placement::default() }
}

#[test]
fn a_name_that_looks_like_a_mark_stays_in_its_quotes() {
    let name = "@FOLDER@$(reboot)@UUID@";
    let files = render(&machine(name), &placement(&format!("/out/{name}"))).unwrap().artifacts;
    let script = &files[1].text;
    assert!(script.contains("\nname='@FOLDER@$(reboot)@UUID@'\nuuid=''\n"), "{script}");
    assert!(script.contains("\nwritten_for='/out/@FOLDER@$(reboot)@UUID@'\n"), "{script}");
    assert!(
        !crate::hypervisor::text::fill("@A@ @B@", &[("@A@", "@B@".into()), ("@B@", "x".into())])
            .contains("x x")
    );
}

#[test]
fn what_xml_cannot_hold_is_left_out_or_refused() {
    let files = render(&machine("a"), &placement("/out/a")).unwrap().artifacts;
    assert!(files[0].text.contains("<description>two\nlines[2J</description>"), "{}", files[0].text);
    for (name, folder) in [("a\u{1}", "/out/a"), ("a\n", "/out/a"), ("a", "/o\tut/a"), ("a/b", "/out")] {
        assert!(render(&machine(name), &placement(folder)).is_err(), "{name:?} {folder:?}");
    }
}

#[test]
fn disks_keep_their_sectors() {
    let text = "config.version = \"8\"\nscsi0.present=TRUE\nscsi0:0.present=TRUE\nscsi0:0.fileName=a\n\
                scsi0:1.present=TRUE\nscsi0:1.fileName=b\n";
    let mut machine =
        crate::hypervisor::vmware::vmx::parse(text.as_bytes(), &Default::default()).unwrap().machine;
    machine.name = "a".into();
    machine.disks[1].sector_size = Some(Bytes(4096));
    let platform = landfall_boot::target::Platform::Kvm;
    let machine = crate::hypervisor::attach::adapt(&machine, platform, &Default::default()).unwrap();
    let disk = |n| crate::hypervisor::PlacedDisk {
        file: format!("disk{n}"),
        format: "raw".into(),
        ..Default::default()
    };
    let placement = Placement { disks: vec![disk(0), disk(1)], ..placement("/out/a") };
    let xml = render(&machine, &placement).unwrap().artifacts.remove(0).text;
    let blockio = "<blockio logical_block_size=\"4096\" physical_block_size=\"4096\"/>";
    assert_eq!(xml.matches("<blockio").count(), 1, "{xml}");
    assert!(xml.split("dev=\"vda\"").nth(1).unwrap().contains(blockio), "{xml}");
}

#[test]
fn shell_words_survive_quotes() {
    assert_eq!(shell("it's"), r"'it'\''s'");
}

fn full() -> Machine {
    let mut machine = Machine::new("a", Bytes::gib(1));
    machine.disks = (0..40).map(|n| crate::machine::DiskSlot::new(n.to_string(), Bus::Scsi, "a")).collect();
    machine.nics = (0..2).map(|n| crate::machine::NicSlot::new(format!("ethernet{n}"))).collect();
    let (disk, card) =
        (landfall_boot::target::DiskModel::VirtioScsi, landfall_boot::target::NicModel::VirtioNet);
    crate::hypervisor::attach::on(&machine, landfall_boot::target::Platform::Kvm, disk, card)
}

fn placed(machine: &Machine, network: Option<&str>) -> Placement {
    let disk = |n| crate::hypervisor::PlacedDisk {
        file: format!("disk{n}"),
        format: "raw".into(),
        ..Default::default()
    };
    Placement {
        disks: (0..machine.disks.len()).map(disk).collect(),
        networks: crate::hypervisor::Networks { map: Vec::new(), rest: network.map(str::to_owned) },
        ..placement("/out/a")
    }
}

fn domain(machine: &Machine, network: Option<&str>) -> (String, String) {
    let mut rendered = render(machine, &placed(machine, network)).unwrap();
    let findings: Vec<String> =
        rendered.findings.iter().map(|finding| format!("{} {}", finding.id, finding.says)).collect();
    (rendered.artifacts.remove(0).text, findings.join("\n"))
}

/// A disk over a recovery point: where that is read, and that the machine waits for it.
#[test]
fn a_delta_names_what_it_lies_over() {
    use crate::hypervisor::{Below, Server};
    let machine = full();
    let mut placement = placed(&machine, Some(NO_NETWORK));
    let below = |server| Some(Below { server, export: "web 01/sda&b@7".into() });
    placement.disks[0].below = below(Server::Socket("/run/land \"fall\"/points.sock".into()));
    placement.disks[1].below = below(Server::Host("vault".into(), 10_809));
    placement.emulated = true;
    let files = render(&machine, &placement).unwrap().artifacts;
    let root = xml::Element::parse(files[0].text.as_bytes()).unwrap();
    assert_eq!(root.attribute("type"), Some("qemu"));
    let disks: Vec<_> = root.at("devices").unwrap().all("disk").collect();
    let waits = |disk: &xml::Element| {
        let driver = disk.child("driver").unwrap();
        (driver.attribute("rerror_policy") == Some("stop"), driver.attribute("error_policy") == Some("stop"))
    };
    for (disk, host) in
        [(disks[0], ("socket", "/run/land \"fall\"/points.sock")), (disks[1], ("port", "10809"))]
    {
        let backing = disk.child("backingStore").unwrap();
        let source = backing.child("source").unwrap();
        assert_eq!(source.attribute("name"), Some("web 01/sda&b@7"));
        assert_eq!(source.child("host").unwrap().attribute(host.0), Some(host.1));
        assert_eq!(source.child("reconnect").unwrap().attribute("delay"), Some("25"));
        // The chain ends there: libvirt looks no further.
        assert!(backing.child("backingStore").unwrap().children.is_empty());
        assert_eq!(waits(disk), (true, true));
    }
    assert!(disks[2].child("backingStore").is_none() && waits(disks[2]) == (false, false));
    let card = root.at("devices/interface").unwrap();
    assert_eq!((card.attribute("type"), card.child("source")), (Some("user"), None));
    assert_eq!(card.child("link").unwrap().attribute("state"), Some("down"));
    let script = &files[2].text;
    assert_eq!(script.matches(",rerror=stop,werror=stop").count(), 2, "{script}");
    assert!(script.contains("net0=$(card 0 none)"), "{script}");
}

#[test]
fn what_libvirt_does_not_hold_is_told() {
    let mut machine = full();
    assert_eq!(domain(&machine, Some("lan")).1, "");
    machine.firmware = Firmware::Uefi;
    machine.nvram = Some("a.nvram".into());
    machine.tpm = true;
    machine.annotation = Some("a\u{1}\r\n".into());
    machine.tags = vec![" a".into()];
    machine.os_label = Some("otherGuest".into());
    machine.smbios.serial = Some("s\u{7}".into());
    machine.disks[3].serial = Some("no/serial".into());
    machine.nics[0].vlan = Some(12);
    machine.nics[1].network = Some("VM Network".into());
    machine.boot_order = vec![BootDevice::Cdrom, BootDevice::Disk];
    insta::assert_snapshot!(domain(&machine, None).1);
    machine.firmware = Firmware::Bios;
    machine.secure_boot = true;
    let told = domain(&machine, None).1;
    assert!(told.contains("secure boot with BIOS") && !told.contains("a.nvram"), "{told}");
}

#[test]
fn serial_numbers_fit_their_bus() {
    let mut machine = full();
    for (bus, serial, fits) in [
        (Bus::VirtioScsi, "a".repeat(36), true),
        (Bus::VirtioScsi, "a".repeat(37), false),
        (Bus::VirtioBlk, "a".repeat(20), true),
        (Bus::VirtioBlk, "a".repeat(21), false),
        (Bus::Sata, "a".repeat(21), false),
        (Bus::Sata, "ab c".to_owned(), true),
        (Bus::Sata, " a".to_owned(), false),
        (Bus::Sata, "a,b".to_owned(), false),
    ] {
        machine.disks.truncate(1);
        machine.disks[0].bus = bus;
        machine.disks[0].serial = Some(serial.clone());
        let (text, told) = domain(&machine, Some("lan"));
        assert_eq!(text.contains(&format!("<serial>{serial}</serial>")), fits, "{text}");
        assert_eq!(told.contains(&serial), !fits, "{told}");
    }
}

/// OVMF finds a disk to start on the first 32 targets of a controller only.
#[test]
fn disks_are_spread_over_controllers() {
    let (text, _) = domain(&full(), None);
    assert_eq!(text.matches("model=\"virtio-scsi\"").count(), 2);
    let place = |controller, target| {
        format!("controller=\"{controller}\" bus=\"0\" target=\"{target}\" unit=\"0\"/>")
    };
    assert!(text.contains(&place(0, 30)) && text.contains(&place(1, 0)) && text.contains(&place(1, 8)));
    assert!(!text.contains(&place(0, 31)) && !text.contains(&place(1, 9)));
}

#[test]
fn the_boot_disk_is_started_and_no_other() {
    let mut machine = full();
    machine.boot_disk = Some(2);
    let (nic, cd, disk) = (BootDevice::Nic, BootDevice::Cdrom, BootDevice::Disk);
    for (order, expected) in [
        (vec![], "sdc=1"),
        (vec![cd, disk], "sdc=1"),
        (vec![nic(1), cd], "sdc=2 net1=1"),
        (vec![nic(1), disk, nic(0), nic(1)], "sdc=2 net0=3 net1=1"),
        (vec![disk, nic(7)], "sdc=1"),
    ] {
        machine.boot_order = order;
        let (text, _) = domain(&machine, None);
        let read = xml::Element::parse(text.as_bytes()).unwrap();
        let devices = read.child("devices").unwrap();
        let order = |element: &xml::Element, name: &str| {
            let order = element.child("boot").and_then(|boot| boot.attribute("order"));
            order.map(|order| format!("{name}={order}"))
        };
        let disks = devices
            .all("disk")
            .filter_map(|disk| order(disk, disk.child("target").unwrap().attribute("dev").unwrap()));
        let nics = devices.all("interface").enumerate();
        let all: Vec<String> =
            disks.chain(nics.filter_map(|(n, nic)| order(nic, &format!("net{n}")))).collect();
        assert_eq!(all.join(" "), expected);
    }
}

#[test]
fn cards_are_plugged_into_what_there_is() {
    let mut machine = full();
    machine.nics[0].vlan = Some(7);
    let (text, told) = domain(&machine, Some("ovs:ovsbr0"));
    assert!(
        text.contains("<tag id=\"7\"/>") && text.contains("<virtualport type=\"openvswitch\"/>"),
        "{text}"
    );
    assert_eq!(told, "");
    for network in ["bridge:br0", "lan"] {
        let (text, told) = domain(&machine, Some(network));
        assert!(!text.contains("<vlan>") && told.contains("VLAN 7"), "{text}");
    }
    for network in ["", "bridge:", "ovs:", "ovs:a b", "bridge:$(x)", "a\u{1}"] {
        assert!(render(&machine, &placed(&machine, Some(network))).is_err(), "{network:?}");
    }
    machine.nics[0].model = Some("netvsc".into());
    assert!(render(&machine, &placed(&machine, None)).is_err());
}
