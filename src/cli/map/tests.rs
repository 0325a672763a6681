//! A machine with everything, and one whose names are hostile.

use super::line::{WIDTH, width};
use super::*;
use crate::machine::{BootDevice, Bus, Cpus, DiskSlot, Machine, NicSlot};
use crate::report::images::{Partition, PartitionTable};
use crate::report::{SourceDisk, Unreadable, VERSION};
use landfall_boot::guest::{Fact, Guest, Mount};
use landfall_boot::target::Firmware;
use landfall_boot::volume::{Array, Content, Volume, VolumeGroup, VolumeId};
use landfall_image::formats::LayerInfo;
use landfall_image::partition::Scheme;
use landfall_image::{Bytes, Format, GuestOffset};

const MIB: u64 = 1 << 20;

fn id(name: &str) -> VolumeId {
    VolumeId(name.into())
}

fn volume(name: &str, mib: u64, content: Content, on: &[&str]) -> Volume {
    Volume {
        id: id(name),
        size: Bytes::mib(mib),
        content,
        uuid: None,
        label: None,
        part_uuid: None,
        part_label: None,
        part_type: None,
        disk: 0,
        partition: name.contains('p').then_some(1),
        offset: None,
        device_names: Vec::new(),
        free: None,
        on: on.iter().map(|name| id(name)).collect(),
    }
}

fn ext4() -> Content {
    Content::FileSystem { name: "ext4".into() }
}

fn raid() -> Content {
    Content::Member { of: "linux-raid".into() }
}

fn partition(number: u32, start_mib: u64, mib: u64, kind: &str) -> Partition {
    Partition {
        number,
        start: GuestOffset(start_mib * MIB),
        length: Bytes::mib(mib),
        kind: kind.into(),
        part_uuid: format!("1234abcd-{number:02x}"),
        name: String::new(),
        bootable: number == 1,
        extended: kind == "0x05",
        attributes: 0,
    }
}

fn disk(mib: u64, table: Option<(Scheme, Vec<Partition>)>, layers: &[(&str, Format, &str)]) -> SourceDisk {
    let layer = |&(path, format, variant): &(&str, Format, &str)| LayerInfo {
        path: path.into(),
        format,
        variant: variant.into(),
        identity: None,
        details: vec![("internal snapshots".into(), "before-update, monthly".into())],
        files: Vec::new(),
        allocated: Bytes::mib(mib / 3),
        by_name: false,
    };
    SourceDisk {
        virtual_size: Bytes::mib(mib),
        layers: layers.iter().map(layer).collect(),
        partitions: table.map(|(scheme, entries)| PartitionTable {
            scheme,
            disk_id: "0x1234abcd".into(),
            sector_size: Bytes(512),
            entries,
            notes: Vec::new(),
        }),
        partition_error: None,
        unreadable: None,
    }
}

fn guest(mounts: &[(&str, &str, Option<&str>)]) -> Guest {
    let fact = |value: &str| Fact { value: value.to_owned(), proof: "/etc/os-release".into() };
    let mount = |&(at, volume, subvolume): &(&str, &str, Option<&str>)| Mount {
        at: at.into(),
        volume: id(volume),
        file_system: "ext4".into(),
        subvolume: subvolume.map(str::to_owned),
        spec: None,
    };
    Guest {
        family: "debian".into(),
        distribution: fact("debian"),
        version: fact("12"),
        name: fact("Debian GNU/Linux 12 (bookworm)"),
        architecture: fact("x86_64"),
        host_name: None,
        kernels: Vec::new(),
        mounts: mounts.iter().map(mount).collect(),
        init: None,
        boot_modes: Vec::new(),
        interfaces: Vec::new(),
        agents: Vec::new(),
        windows: None,
    }
}

fn report(machine: Machine, disks: Vec<SourceDisk>, volumes: Vec<Volume>) -> Inspected {
    Inspected {
        version: VERSION,
        source: "web01.vmx".into(),
        machine,
        disks,
        volumes,
        groups: Vec::new(),
        arrays: Vec::new(),
        guest: None,
        findings: Vec::new(),
        devices: Default::default(),
        edits: Vec::new(),
        readdressed: Vec::new(),
        read_through: String::new(),
    }
}

/// Every line is short enough and has nothing in it that steers a terminal.
#[track_caller]
fn lines_are_sound(text: &str) {
    for line in text.lines() {
        assert!(width(line) <= WIDTH, "{} columns: {line}", width(line));
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn a_machine_with_everything() {
    let mut machine = Machine::new("web01", Bytes::gib(8));
    machine.firmware = Firmware::Uefi;
    machine.secure_boot = true;
    machine.tpm = true;
    machine.cpus = Cpus::new(8, 2, 2);
    machine.tags = vec!["web".into(), "backup=daily".into()];
    machine.annotation = Some("Shop front end.\nCall Ines before a restart.".into());
    machine.os_label = Some("debian12-64".into());
    machine.smbios.uuid = Some("564d1c3e-aaaa-bbbb-cccc-0123456789ab".parse().unwrap());
    machine.smbios.serial = Some("VMware-56 4d 1c 3e aa aa bb bb-cc cc 01 23 45 67 89 ab".into());
    machine.boot_order = vec![BootDevice::Disk, BootDevice::Nic(0)];
    machine.disks = ["scsi0:0", "scsi0:1", "scsi0:2", "sata0:0", "sata0:1"]
        .into_iter()
        .map(|slot| DiskSlot {
            controller: Some("pvscsi".into()),
            ..DiskSlot::new(slot, Bus::Scsi, "x.vmdk")
        })
        .collect();
    machine.disks[3].size = Some(Bytes::gib(500));
    machine.nics = vec![
        NicSlot {
            mac: Some("00:50:56:20:30:40".into()),
            model: Some("vmxnet3".into()),
            network: Some("VM Network".into()),
            predictable_name: Some("ens192".into()),
            ..NicSlot::new("ethernet0")
        },
        NicSlot {
            vlan: Some(112),
            connected: false,
            network: Some("Backup".into()),
            ..NicSlot::new("ethernet1")
        },
    ];
    let gpt = vec![
        partition(1, 1, 512, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
        partition(2, 513, 1024, "a19d880f-05fc-4d3b-a006-743f0f84911e"),
        partition(3, 1537, 18943, "e6d6d379-f507-44c2-a23c-238f2a3df928"),
    ];
    let mbr = vec![
        partition(1, 1, 1024, "0xfd"),
        partition(2, 1026, 9000, "0x05"),
        partition(5, 1027, 4000, "0x8e"),
        partition(6, 7000, 1000, "0x82"),
    ];
    let mut lost = disk(0, None, &[]);
    lost.unreadable = Some(Unreadable {
        says: "archive.vmdk: at 0x200: grain directory entry 3 points at 9.2 GiB; the file ends at 8.0 GiB"
            .into(),
        hint: Some("copy it from the source again".into()),
    });
    let disks = vec![
        disk(
            20_480,
            Some((Scheme::Gpt, gpt)),
            &[("/v/web01-000002.vmdk", Format::Vmdk, "vmfsSparse"), ("/v/web01.vmdk", Format::Vmdk, "vmfs")],
        ),
        disk(10_240, Some((Scheme::Mbr, mbr)), &[("/v/web01_1.vmdk", Format::Vmdk, "vmfs")]),
        disk(4096, None, &[("/v/web01_2.qcow2", Format::Qcow2, "qcow2")]),
        lost,
        disk(102_400, None, &[("/v/web01_4.vmdk", Format::Vmdk, "vmfs")]),
    ];
    let mut esp = volume("disk0p1", 512, Content::FileSystem { name: "vfat".into() }, &[]);
    esp.uuid = Some("CAFE-BABE".into());
    esp.free = Some(Bytes::mib(490));
    let mut root = volume("vg0/root", 12_288, ext4(), &["disk0p3:luks", "disk1p5"]);
    root.uuid = Some("de79abb8-670a-416c-8780-0ec3424567b6".into());
    root.label = Some("root".into());
    root.free = Some(Bytes::mib(7000));
    let members = ["disk0p2", "disk1p1"];
    let luks = |scheme: &str| Content::Encrypted { scheme: scheme.into() };
    let physical = || Content::LvmPhysical { group: "vg0".into() };
    let mut machine_report = report(
        machine,
        disks,
        vec![
            esp,
            volume("disk0p2", 1024, raid(), &[]),
            volume("disk0p3", 18_943, luks("LUKS2"), &[]),
            volume("disk1p1", 1024, raid(), &[]),
            volume("disk1p5", 4000, physical(), &[]),
            volume("disk1p6", 1000, Content::Swap { hibernated: false }, &[]),
            volume("disk2", 4096, luks("LUKS1"), &[]),
            volume("disk4", 102_400, Content::FileSystem { name: "btrfs".into() }, &[]),
            volume("md0", 1023, ext4(), &members),
            volume("disk0p3:luks", 18_927, physical(), &["disk0p3"]),
            root,
            volume("vg0/a-logical-volume-with-quite-a-long-name", 2048, ext4(), &["disk0p3:luks", "disk1p5"]),
            volume(
                "vg0/thin",
                1024,
                Content::Member { of: "lvm-snapshot".into() },
                &["disk0p3:luks", "disk1p5"],
            ),
        ],
    );
    machine_report.groups = vec![VolumeGroup {
        name: "vg0".into(),
        uuid: "Zb5x".into(),
        size: Some(Bytes::mib(22_920)),
        free: Some(Bytes::mib(7560)),
        on: vec![id("disk0p3:luks"), id("disk1p5")],
        missing: vec!["gHs2Pp-0000-1111-2222-3333-4444-555566".into()],
    }];
    machine_report.arrays = vec![Array {
        name: "md0".into(),
        uuid: "11111111:22222222:33333333:44444444".into(),
        level: "RAID1".into(),
        disks: 2,
        on: members.iter().map(|name| id(name)).collect(),
        opened: true,
    }];
    machine_report.guest = Some(guest(&[
        ("/", "vg0/root", None),
        ("/boot", "md0", None),
        ("/boot/efi", "disk0p1", None),
        ("/srv/shop", "disk4", Some("/@shop")),
        (
            "/srv/backups/of/this/machine/and/of/all/others",
            "vg0/a-logical-volume-with-quite-a-long-name",
            None,
        ),
    ]));
    let text = text(&machine_report);
    lines_are_sound(&text);
    insta::assert_snapshot!("everything", text);
}

/// Control characters, letters that turn the direction, wide ones and endless ones; ids that contradict each other.
#[test]
fn hostile_names_stay_inside_of_their_lines() {
    let evil = "a\nDisks\u{1b}[2J\u{202e}\u{7}".to_owned() + &"x中".repeat(300);
    let mut machine = Machine::new(evil.clone(), Bytes(u64::MAX));
    machine.annotation = Some(format!("{evil}\r\n").repeat(50));
    machine.tags = vec![evil.clone(); 20];
    machine.os_label = Some(evil.clone());
    machine.smbios.serial = Some(evil.clone());
    machine.disks = vec![DiskSlot {
        controller: Some(evil.clone()),
        serial: Some(evil.clone()),
        ..DiskSlot::new(evil.clone(), Bus::Scsi, evil.clone())
    }];
    machine.nics = vec![NicSlot {
        mac: Some(evil.clone()),
        model: Some(evil.clone()),
        network: Some(evil.clone()),
        predictable_name: Some(evil.clone()),
        ..NicSlot::new(evil.clone())
    }];
    let mut table = vec![partition(1, 0, u64::MAX / MIB, &evil), partition(2, 5, 1, "0x05")];
    table[0].name = evil.clone();
    table[1].length = Bytes(u64::MAX);
    let disks = vec![disk(u64::MAX / MIB, Some((Scheme::Mbr, table)), &[(&evil, Format::Raw, &evil)])];
    let mut first = volume("disk0p1", 1, Content::LvmPhysical { group: evil.clone() }, &["disk0p1"]);
    (first.label, first.uuid, first.part_label) =
        (Some(evil.clone()), Some(evil.clone()), Some(evil.clone()));
    // Each stands on the other.
    let (one, two) = (volume("one", 1, raid(), &["two"]), volume("two", 1, raid(), &["one"]));
    let mut hostile =
        report(machine, disks, vec![first, one, two, volume(&evil, 1, Content::Unknown, &["nowhere"])]);
    hostile.groups = vec![VolumeGroup {
        name: evil.clone(),
        uuid: evil.clone(),
        size: None,
        free: Some(Bytes(u64::MAX)),
        on: vec![id("disk0p1")],
        missing: vec![evil.clone(); 10],
    }];
    let array = |on: &str| Array {
        name: evil.clone(),
        uuid: evil.clone(),
        level: evil.clone(),
        disks: u32::MAX,
        on: vec![id(on)],
        opened: false,
    };
    hostile.arrays = vec![array("one"), array("two")];
    hostile.guest = Some(guest(&[(&evil, "disk0p1", Some(&evil)), (&evil, "disk0p1", None)]));
    let text = text(&hostile);
    lines_are_sound(&text);
    assert_eq!(text.lines().filter(|line| *line == "Disks").count(), 1);
    assert!(!text.contains('\u{202e}'));
}
