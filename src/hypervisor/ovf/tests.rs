//! Descriptors, element by element, and what hostile ones do.

use super::*;
use crate::hypervisor::vmware;
use crate::hypervisor::{Networks, PlacedDisk, Placement, attach};
use crate::machine::{Backing, BootDevice, Bus, Clock, Cpus, DiskSlot, Machine, NicSlot, OsId, Smbios};
use landfall_boot::target::{DiskModel, Firmware, NicModel, Platform};
use landfall_image::{Bytes, Kind};

/// An envelope with these sections and items.
fn ovf(files: &str, sections: &str, items: &str) -> String {
    format!(
        "<?xml version='1.0'?><Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1' xmlns:ovf='http://schemas.dmtf.org/ovf/envelope/1' \
         xmlns:rasd='r' xmlns:vmw='v'><References>{files}</References>{sections}<VirtualSystem ovf:id='vm1'><Info/><Name>web01</Name>\
         <VirtualHardwareSection><Info/>{items}</VirtualHardwareSection></VirtualSystem></Envelope>"
    )
}

fn item(resource: u32, id: u32, more: &str) -> String {
    format!(
        "<Item><rasd:ElementName>item {id}</rasd:ElementName><rasd:InstanceID>{id}</rasd:InstanceID>{more}\
         <rasd:ResourceType>{resource}</rasd:ResourceType></Item>"
    )
}

/// A disk item on the controller 3.
fn disk_item(id: u32, unit: u32, resource: &str) -> String {
    item(
        17,
        id,
        &format!(
            "<rasd:Parent>3</rasd:Parent><rasd:AddressOnParent>{unit}</rasd:AddressOnParent><rasd:HostResource>{resource}</rasd:HostResource>"
        ),
    )
}

fn read(text: &str) -> Result<Parsed> {
    parse(text.as_bytes(), &Choice::default())
}

fn ids(parsed: &Parsed) -> Vec<&'static str> {
    parsed.findings.iter().map(|finding| finding.id).collect()
}

const FILE: &str = "<File ovf:id='f' ovf:href='a.vmdk' ovf:size='10'/>";
const DISK: &str = "<DiskSection><Info/><Disk ovf:diskId='d' ovf:fileRef='f' ovf:capacity='2' ovf:capacityAllocationUnits='byte * 2^30' \
                    ovf:format='http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized'/></DiskSection>";

#[test]
fn a_usual_machine() {
    let items = [
        item(3, 1, "<rasd:VirtualQuantity>4</rasd:VirtualQuantity><vmw:CoresPerSocket>2</vmw:CoresPerSocket>"),
        item(4, 2, "<rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:VirtualQuantity>2048</rasd:VirtualQuantity>"),
        item(6, 3, "<rasd:Address>0</rasd:Address><rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>"),
        disk_item(4, 2, "ovf:/disk/d"),
        item(10, 5, "<rasd:Connection>LAN</rasd:Connection><rasd:ResourceSubType>VmxNet3 virtio</rasd:ResourceSubType><rasd:Address>00:50:56:01:02:03</rasd:Address><rasd:AutomaticAllocation>false</rasd:AutomaticAllocation><vmw:Config vmw:key='slotInfo.pciSlotNumber' vmw:value='192'/>"),
        "<vmw:Config vmw:key='firmware' vmw:value='efi'/><vmw:Config vmw:key='bootOptions.efiSecureBootEnabled' vmw:value='true'/><vmw:Config vmw:key='tools.syncTimeWithHost' vmw:value='true'/><vmw:Config vmw:key='memoryHotAddEnabled' vmw:value='true'/>".into(),
        "<vmw:ExtraConfig vmw:key='guestinfo.x' vmw:value='y'/><vmw:ExtraConfig vmw:key='sched.x' vmw:value='y'/>".into(),
    ]
    .concat();
    let parsed = read(&ovf(FILE, DISK, &items)).unwrap();
    let machine = parsed.machine;
    assert_eq!(
        (machine.name.as_str(), machine.memory, machine.cpus),
        ("web01", Bytes::gib(2), Cpus::new(4, 2, 1))
    );
    assert_eq!((machine.firmware, machine.secure_boot), (Firmware::Uefi, true));
    let disk = &machine.disks[0];
    assert_eq!(
        (disk.slot.as_str(), disk.controller.as_deref(), disk.size),
        ("scsi0:2", Some("pvscsi"), Some(Bytes::gib(2)))
    );
    assert_eq!(
        (disk.file.as_str(), disk.format.as_deref(), disk.backing),
        ("a.vmdk", Some("vmdk"), Backing::File)
    );
    let nic = &machine.nics[0];
    assert_eq!(
        (nic.model.as_deref(), nic.network.as_deref(), nic.connected),
        (Some("vmxnet3"), Some("LAN"), false)
    );
    assert_eq!(
        (nic.mac.as_deref(), nic.predictable_name.as_deref()),
        (Some("00:50:56:01:02:03"), Some("ens192"))
    );
    assert_eq!(parsed.findings, Vec::new());
    assert_eq!(parsed.unread, ["Config memoryHotAddEnabled", "ExtraConfig guestinfo.x"]);
}

/// vSphere says beside the hardware what a machine starts from: the second disk here, after a card.
#[test]
fn the_boot_order_beside_the_hardware_is_read() {
    let disks = DISK.replace("</DiskSection>", "<Disk ovf:diskId='e' ovf:capacity='1'/></DiskSection>");
    let items = [
        item(6, 3, "<rasd:Address>0</rasd:Address>"),
        disk_item(4, 0, "ovf:/disk/d"),
        disk_item(5, 1, "ovf:/disk/e"),
        item(10, 6, ""),
        item(10, 7, ""),
        item(1, 8, "<rasd:ResourceSubType>vmware.pcipassthrough.dynamic</rasd:ResourceSubType>"),
    ]
    .concat();
    let with = |sections: &str| {
        let text = ovf(FILE, &disks, &items);
        read(&text.replace("</VirtualSystem>", &format!("{sections}</VirtualSystem>"))).unwrap()
    };
    let section = |kind: &str, id: u32| {
        format!(
            "<vmw:BootOrderSection vmw:instanceId='{id}' vmw:type='{kind}'><Info/></vmw:BootOrderSection>"
        )
    };
    let parsed = with(&[section("net", 7), section("disk", 5), section("disk", 4)].concat());
    assert_eq!((parsed.machine.boot_disk, parsed.machine.boot_disk()), (Some(1), 1));
    assert_eq!(parsed.machine.boot_order, [BootDevice::Nic(1), BootDevice::Disk]);
    assert_eq!(parsed.unread, Vec::<String>::new());
    // What it is given of its host is no note among others.
    assert!(ids(&parsed).contains(&"device-passthrough"), "{:?}", parsed.findings);
    let parsed = with(&[section("disk", 4), section("hologram", 9)].concat());
    assert_eq!((parsed.machine.boot_disk, parsed.machine.boot_order), (None, Vec::new()));
    assert_eq!(parsed.unread, ["BootOrderSection hologram"]);
}

#[test]
fn configurations_and_properties() {
    let sections = format!(
        "{DISK}<DeploymentOptionSection><Configuration ovf:id='small'/><Configuration ovf:id='large' ovf:default='true'/></DeploymentOptionSection>\
         <ProductSection ovf:class='c'><Property ovf:key='ram' ovf:value='512'><Value ovf:value='4096' ovf:configuration='large'/></Property></ProductSection>"
    );
    let items = [
        item(3, 1, "<rasd:VirtualQuantity>1</rasd:VirtualQuantity>"),
        item(3, 1, "<rasd:VirtualQuantity>8</rasd:VirtualQuantity>")
            .replace("<Item>", "<Item ovf:configuration='medium large'>"),
        item(4, 2, "<rasd:VirtualQuantity>${ram}</rasd:VirtualQuantity>"),
        item(4, 9, "<rasd:VirtualQuantity>999</rasd:VirtualQuantity>")
            .replace("<Item>", "<Item ovf:bound='max'>"),
    ]
    .concat();
    let text = ovf(FILE, &sections, &items);
    for (configuration, cpus, mib) in [(None, 8, 4096), (Some("large"), 8, 4096), (Some("small"), 1, 512)] {
        let choice = Choice { configuration: configuration.map(str::to_owned), ..Choice::default() };
        let machine = parse(text.as_bytes(), &choice).unwrap().machine;
        assert_eq!((machine.cpus.count, machine.memory), (cpus, Bytes::mib(mib)), "{configuration:?}");
    }
    let choice = Choice { configuration: Some("huge".into()), ..Choice::default() };
    let error = parse(text.as_bytes(), &choice).unwrap_err();
    assert_eq!((error.kind(), error.hint_text()), (Kind::Refused, Some("its configurations: small, large")));
    let unset = text.replace("ovf:value='512'", "").replace("ovf:value='4096'", "");
    assert!(read(&unset).unwrap_err().to_string().contains("${ram}"));
}

#[test]
fn one_of_several_machines() {
    let one = |id: &str| {
        format!("<VirtualSystem ovf:id='{id}'><Name>n {id}</Name><VirtualHardwareSection/></VirtualSystem>")
    };
    let text = format!(
        "<o:Envelope xmlns:o='http://schemas.dmtf.org/ovf/envelope/2'><VirtualSystemCollection o:id='c'><VirtualSystemCollection>{}</VirtualSystemCollection>{}</VirtualSystemCollection></o:Envelope>",
        one("a").replace("ovf:", "o:"),
        one("b").replace("ovf:", "o:")
    );
    let error = read(&text).unwrap_err();
    assert_eq!((error.kind(), error.hint_text()), (Kind::Refused, Some("choose one with --system: a, b")));
    for (system, name) in [("a", "n a"), ("n b", "n b")] {
        let choice = Choice { system: Some(system.into()), ..Choice::default() };
        assert_eq!(parse(text.as_bytes(), &choice).unwrap().machine.name, name);
    }
    let choice = Choice { system: Some("c".into()), ..Choice::default() };
    assert!(parse(text.as_bytes(), &choice).is_err());
    assert!(parse(text.as_bytes(), &Choice { snapshot: Some("x".into()), ..Choice::default() }).is_err());
}

#[test]
fn what_is_no_disk_in_a_file_is_said() {
    let items = item(6, 3, "") + &disk_item(4, 0, "ovf:/disk/d");
    for (file, disk, check) in [
        (
            "<File ovf:id='f' ovf:href='a.vmdk.gz' ovf:compression='gzip'/>",
            DISK.to_owned(),
            (Backing::File, Some("gzip")),
        ),
        (
            "<File ovf:id='f' ovf:href='a.vmdk' ovf:chunkSize='100'/>",
            DISK.to_owned(),
            (Backing::File, Some("chunks")),
        ),
        ("<File ovf:id='f' ovf:href='http://x/a.vmdk'/>", DISK.to_owned(), (Backing::Network, Some("vmdk"))),
        (FILE, DISK.replace("ovf:fileRef='f'", ""), (Backing::Blank, None)),
    ] {
        let machine = read(&ovf(file, &disk, &items)).unwrap().machine;
        assert_eq!((machine.disks[0].backing, machine.disks[0].format.as_deref()), check, "{file}");
    }
}

#[test]
fn disks_are_in_the_order_of_their_places() {
    let disks: String =
        ["d", "e", "f", "g", "h"].map(|id| format!("<Disk ovf:diskId='{id}' ovf:fileRef='f'/>")).concat();
    let section = format!("<DiskSection>{disks}</DiskSection>");
    let on = |id: u32, controller: u32, unit: u32, disk: &str| {
        disk_item(id, unit, disk).replace("<rasd:Parent>3<", &format!("<rasd:Parent>{controller}<"))
    };
    let items = [
        item(6, 3, "<rasd:Address>1</rasd:Address>"),
        item(6, 2, "<rasd:Address>0</rasd:Address>"),
        item(5, 1, "<rasd:Address>0</rasd:Address>"),
        on(10, 3, 0, "ovf:/disk/d"),
        on(11, 2, 10, "ovf:/disk/e"),
        item(17, 12, "<rasd:HostResource>ovf:/disk/h</rasd:HostResource>"),
        on(13, 1, 0, "ovf:/disk/g"),
        on(14, 2, 2, "ovf:/disk/f"),
    ]
    .concat();
    let slots = |text: &str| {
        let machine = read(text).unwrap().machine;
        let slots: Vec<_> = machine.disks.iter().map(|disk| disk.slot.clone()).collect();
        (slots.join(" "), machine.boot_disk)
    };
    let text = ovf(FILE, &section, &items);
    // The one without a place stays the third.
    assert_eq!(slots(&text), ("scsi0:2 scsi0:10 disk2 scsi1:0 ide0:0".into(), None));
    let boots = text.replace("diskId='d'", "diskId='d' ovf:boot='true'");
    assert_eq!(slots(&boots).1, Some(3));
    let boots = text.replace("diskId='f'", "diskId='f' ovf:boot='true'");
    assert_eq!(slots(&boots).1, None);
}

#[test]
fn an_address_that_is_none_is_damage() {
    let with = |address: &str| {
        read(&ovf(FILE, DISK, &item(10, 5, &format!("<rasd:Address>{address}</rasd:Address>"))))
    };
    for fine in ["00:50:56:01:02:03", "005056010203", "00-50-56-01-02-03"] {
        let parsed = with(fine).unwrap();
        assert_eq!(parsed.machine.nics[0].mac.as_deref(), Some("00:50:56:01:02:03"), "{fine}");
        assert_eq!(parsed.findings, []);
    }
    for bad in ["00:50:56:01:02", "00505601020g", "7"] {
        let error = with(bad).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{bad}");
        assert!(error.to_string().contains(bad) && error.hint_text().is_some(), "{error}");
    }
    assert_eq!(ids(&with("").unwrap()), ["nic-without-address"]);
}

/// VirtualBox tells addresses and firmware only in its own words.
#[test]
fn virtualbox_knows_more() {
    let own = "<vbox:Machine uuid='{39a69c87-0433-4945-8e25-b89431544a28}'><Hardware><Firmware type='EFI64'/><TrustedPlatformModule type='v2_0'/>\
               <RTC localOrUTC='local'/><Boot><Order position='1' device='DVD'/><Order position='2' device='HardDisk'/><Order device='None'/></Boot>\
               <BIOS><NVRAM path='x.nvram' SecureBoot='true'/></BIOS>\
               <Network><Adapter slot='0' enabled='false' MACAddress='080027000001'/><Adapter slot='1' enabled='true' MACAddress='080027000002' cable='false'/></Network></Hardware></vbox:Machine>";
    let text = ovf(FILE, DISK, &item(10, 5, "<rasd:ResourceSubType>E1000</rasd:ResourceSubType>"));
    let text = text.replace("</VirtualSystem>", &format!("{own}</VirtualSystem>"));
    let parsed = read(&text).unwrap();
    let machine = &parsed.machine;
    assert_eq!((machine.firmware, machine.secure_boot, machine.tpm), (Firmware::Uefi, true, true));
    assert_eq!(
        (machine.clock, &machine.boot_order[..]),
        (Clock::LocalTime, &[BootDevice::Cdrom, BootDevice::Disk][..])
    );
    assert_eq!(
        (machine.nics[0].mac.as_deref(), machine.nics[0].connected),
        (Some("08:00:27:00:00:02"), false)
    );
    assert_eq!(machine.smbios.uuid.unwrap().to_string(), "39a69c87-0433-4945-8e25-b89431544a28");
    assert_eq!((ids(&parsed), machine.nvram.as_deref()), (Vec::new(), Some("x.nvram")));
    // Devices for which it writes no items, and what is not known of it.
    let more = "<Description>the shop</Description><ExtraData><ExtraDataItem name='a' value='b'/><ExtraDataItem name='GUI/X' value='b'/></ExtraData><Warp/><Hardware>\
                <UART><Port slot='0' enabled='true'/></UART><LPT><Port slot='0' enabled='false'/></LPT><Flux/>\
                <SharedFolders><SharedFolder name='x' hostPath='/etc'/></SharedFolders>\
                <HostPci><Devices><Device/></Devices></HostPci>";
    let parsed = read(&text.replace("<Hardware>", more)).unwrap();
    assert_eq!(parsed.machine.annotation.as_deref(), Some("the shop"));
    assert_eq!(
        ids(&parsed),
        ["definition-device-left-out", "definition-device-left-out", "device-passthrough"],
        "{:?}",
        parsed.findings
    );
    assert_eq!(
        parsed.unread,
        ["vbox:Machine/ExtraData (1 settings)", "vbox:Machine/Warp", "vbox:Machine/Hardware/Flux"]
    );
}

/// oVirt's is of the oldest shape, with ids of its own.
#[test]
fn ovirt_is_read() {
    let text = "<ovf:Envelope xmlns:ovf='http://schemas.dmtf.org/ovf/envelope/1/' xmlns:rasd='r' xmlns:xsi='x'>\
        <References><File ovf:href='g/i1' ovf:id='g/i1' ovf:size='1'/><File ovf:href='g/i2' ovf:id='g/i2' ovf:size='1'/></References>\
        <Section xsi:type='ovf:NetworkSection_Type'/><Section xsi:type='ovf:DiskSection_Type'>\
        <Disk ovf:diskId='i1' ovf:size='10' ovf:fileRef='g/i1' ovf:disk-interface='VirtIO' ovf:volume-format='COW'/>\
        <Disk ovf:diskId='i2' ovf:size='20' ovf:fileRef='g/i2' ovf:disk-interface='VirtIO_SCSI' ovf:volume-format='RAW' ovf:boot='true'/></Section>\
        <Content ovf:id='out' xsi:type='ovf:VirtualSystem_Type'><Name>vm</Name><Description>about</Description><BiosType>4</BiosType>\
        <Section ovf:id='ce6d0f28-c8ae-4b7d-8b7b-2a8f8f0f0f0f' xsi:type='ovf:OperatingSystemSection_Type'><Description>rhel_8x64</Description></Section>\
        <Section xsi:type='ovf:VirtualHardwareSection_Type'>\
        <Item><rasd:InstanceId>1</rasd:InstanceId><rasd:ResourceType>3</rasd:ResourceType><rasd:num_of_sockets>2</rasd:num_of_sockets><rasd:cpu_per_socket>2</rasd:cpu_per_socket><rasd:threads_per_cpu>2</rasd:threads_per_cpu></Item>\
        <Item><rasd:InstanceId>2</rasd:InstanceId><rasd:ResourceType>4</rasd:ResourceType><rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits><rasd:VirtualQuantity>1024</rasd:VirtualQuantity></Item>\
        <Item><rasd:InstanceId>i1</rasd:InstanceId><rasd:ResourceType>17</rasd:ResourceType><rasd:HostResource>g/i1</rasd:HostResource></Item>\
        <Item><rasd:InstanceId>i2</rasd:InstanceId><rasd:ResourceType>17</rasd:ResourceType><rasd:HostResource>g/i2</rasd:HostResource></Item>\
        </Section></Content></ovf:Envelope>";
    let machine = read(text).unwrap().machine;
    assert_eq!((machine.name.as_str(), machine.annotation.as_deref()), ("vm", Some("about")));
    assert_eq!(
        (machine.cpus, machine.firmware, machine.secure_boot),
        (Cpus::new(8, 2, 2), Firmware::Uefi, true)
    );
    let disks: Vec<_> = machine.disks.iter().map(|d| (d.bus, d.format.as_deref(), d.size)).collect();
    assert_eq!(
        disks,
        [
            (Bus::VirtioBlk, Some("qcow2"), Some(Bytes::gib(10))),
            (Bus::VirtioScsi, Some("raw"), Some(Bytes::gib(20)))
        ]
    );
    assert_eq!((machine.boot_disk, machine.os_label.as_deref()), (Some(1), Some("rhel_8x64")));
}

#[test]
fn devices_are_left_out_or_told_of() {
    let all = [15, 15, 14, 21, 22, 23, 35, 18, 7, 8].iter().enumerate();
    let items: String = all.map(|(n, resource)| item(*resource, u32::try_from(n).unwrap(), "")).collect();
    let strange = item(77, 50, "") + &item(77, 51, "").replace("<Item>", "<Item ovf:required='false'>");
    let parsed = read(&ovf("", "", &(items + &strange))).unwrap();
    let mut found = ids(&parsed);
    assert_eq!(
        found.iter().filter(|id| **id == "definition-device-left-out").count(),
        7,
        "{:#?}",
        parsed.findings
    );
    found.dedup();
    assert_eq!(found, ["definition-device-left-out", "device-passthrough", "definition-not-held"]);
    assert_eq!(parsed.unread, ["item 51 (ResourceType 77 )"]);
}

#[test]
fn hostile_descriptors_are_refused() {
    let machine = |items: &str| ovf(FILE, DISK, items);
    let many = machine(&"<Item/>".repeat(1_000_000));
    let two = item(4, 2, "") + &item(4, 2, "");
    for (text, kind) in [
        ("<a/>".to_owned(), Kind::Corrupt),
        ("<Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/3'/>".into(), Kind::Unsupported),
        ("<Envelope/>".into(), Kind::Unsupported),
        ("<Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1'/>".into(), Kind::Unsupported),
        ("<!DOCTYPE a [<!ENTITY b 'bbbb'>]><Envelope/>".into(), Kind::Refused),
        (many, Kind::Refused),
        (machine(&disk_item(4, 0, "ovf:/disk/nothing")), Kind::Corrupt),
        (machine(&disk_item(4, 0, "/etc/passwd")), Kind::Corrupt),
        (ovf("", DISK, &disk_item(4, 0, "ovf:/disk/d")), Kind::Corrupt),
        (machine(&two), Kind::Corrupt),
        (machine(&item(3, 1, "<rasd:VirtualQuantity>99999999</rasd:VirtualQuantity>")), Kind::Corrupt),
        (
            machine(&item(
                4,
                1,
                "<rasd:AllocationUnits>byte * 2^60</rasd:AllocationUnits><rasd:VirtualQuantity>9</rasd:VirtualQuantity>",
            )),
            Kind::Corrupt,
        ),
        (
            machine(&item(
                4,
                1,
                "<rasd:AllocationUnits>byte * 2^50</rasd:AllocationUnits><rasd:VirtualQuantity>9</rasd:VirtualQuantity>",
            )),
            Kind::Corrupt,
        ),
        (ovf(FILE, &DISK.replace("='2'", "='-2'"), ""), Kind::Corrupt),
        (ovf(FILE, &format!("{DISK}{DISK}"), ""), Kind::Corrupt),
        (ovf("<File ovf:id='f'/>", "", ""), Kind::Corrupt),
        (ovf("<File ovf:id='f' ovf:href='a' ovf:size='x'/>", "", ""), Kind::Corrupt),
        (
            ovf(
                FILE,
                &DISK.replace("ovf:fileRef", "ovf:parentRef='p' ovf:fileRef"),
                &disk_item(4, 0, "ovf:/disk/d"),
            ),
            Kind::Unsupported,
        ),
        (machine("<vmw:Config vmw:key='firmware' vmw:value='coreboot'/>"), Kind::Unsupported),
    ] {
        let shown = text.chars().take(300).collect::<String>();
        assert_eq!(read(&text).map(|_| ()).unwrap_err().kind(), kind, "{shown}");
    }
}

/// A machine with something in every field that a package has a place for.
fn full() -> Machine {
    let uuid = uuid::Uuid::parse_str("564d9bef-acd9-b4e0-c8f0-aea8b9103515").unwrap();
    let mut machine = Machine::new("web01 <&\"'> ü", Bytes::gib(4));
    machine.annotation = Some("two\nlines & <more>".into());
    machine.firmware = Firmware::Uefi;
    machine.secure_boot = true;
    machine.cpus = Cpus::new(8, 4, 1);
    machine.smbios =
        Smbios { uuid: Some(uuid), serial: Some(vmware::vmx::serial(uuid)), ..Smbios::default() };
    machine.os = Some(OsId { distribution: "debian".into(), version: "12".into() });
    machine.disks = (0..17).map(|n| DiskSlot::new(format!("sd{n}"), Bus::Scsi, "")).collect();
    machine.nics = vec![
        NicSlot {
            mac: Some("00:50:56:20:30:40".into()),
            network: Some("LAN & more".into()),
            ..NicSlot::new("a")
        },
        NicSlot { mac: Some("52:54:00:20:30:40".into()), connected: false, ..NicSlot::new("b") },
    ];
    machine
}

fn placed(machine: &Machine) -> Placement {
    let disk = |(n, _): (usize, &DiskSlot)| PlacedDisk {
        file: format!("disk{n}.vmdk"),
        format: "vmdk".into(),
        virtual_size: Bytes::gib(n as u64 + 1),
        stored: (n > 0).then_some(Bytes(1000 + n as u64)),
        below: None,
    };
    Placement {
        disks: machine.disks.iter().enumerate().map(disk).collect(),
        networks: Networks { map: vec![("LAN & more".into(), "VLAN <12>".into())], rest: None },
        ..Placement::default()
    }
}

#[test]
fn what_is_written_is_read_back() {
    for (model, card, controller, name) in [
        (DiskModel::Pvscsi, NicModel::Vmxnet3, Some("pvscsi"), "vmxnet3"),
        (DiskModel::Lsi, NicModel::E1000e, Some("lsisas1068"), "e1000e"),
        (DiskModel::LsiParallel, NicModel::E1000, Some("lsilogic"), "e1000"),
        (DiskModel::Sata, NicModel::Vmxnet3, None, "vmxnet3"),
        (DiskModel::Nvme, NicModel::Vmxnet3, None, "vmxnet3"),
    ] {
        let machine = attach::on(&full(), Platform::Esxi, model, card);
        let placement = placed(&machine);
        let rendered = write::render(&machine, &placement).unwrap();
        let text = &rendered.artifacts[0].text;
        let parsed = read(text).unwrap();
        let mut expected = machine.clone();
        expected.os = None;
        expected.os_label = Some("debian11_64Guest".into());
        for (n, disk) in expected.disks.iter_mut().enumerate() {
            disk.file = format!("disk{n}.vmdk");
            disk.format = Some("vmdk".into());
            disk.size = Some(Bytes::gib(n as u64 + 1));
            disk.controller = controller.map(str::to_owned);
        }
        for (n, nic) in expected.nics.iter_mut().enumerate() {
            nic.slot = format!("ethernet{n}");
            nic.model = Some(name.into());
            nic.network = Some(["VLAN <12>", "VM Network"][n].into());
        }
        assert_eq!(parsed.machine, expected, "{}", model.name());
        assert_eq!(
            (parsed.findings, parsed.unread),
            (Vec::new(), vec!["ExtraConfig disk.EnableUUID".to_owned()])
        );
        let sizes: Vec<_> = files(text.as_bytes()).unwrap().into_iter().map(|file| file.size).collect();
        assert_eq!(sizes[..2], [None, Some(Bytes(1001))]);
        let says: Vec<_> = rendered.findings.iter().map(|finding| finding.id).collect();
        assert_eq!(says, ["definition-not-held"; 2], "{:#?}", rendered.findings);
    }
}

#[test]
fn a_package_for_vsphere() {
    let mut machine = full();
    machine.disks.truncate(2);
    let machine = attach::on(&machine, Platform::Esxi, DiskModel::Pvscsi, NicModel::Vmxnet3);
    insta::assert_snapshot!("ovf", write::render(&machine, &placed(&machine)).unwrap().artifacts[0].text);
    for name in ["", "a\u{1}b", &"x".repeat(81)] {
        let machine = Machine { name: name.into(), ..machine.clone() };
        assert!(write::render(&machine, &placed(&machine)).is_err(), "{name:?}");
    }
    assert!(write::render(&machine, &Placement::default()).is_err());
    assert!(write::render(&full(), &placed(&full())).is_err(), "a machine that was not adapted");
}
