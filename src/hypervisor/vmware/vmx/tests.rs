//! What is made of a .vmx, line by line.

use super::*;
use landfall_image::Kind;

#[test]
fn cards_behind_a_bridge_are_named_by_their_slot() {
    for (number, name) in [
        (33, Some("ens33")),
        (160, Some("ens160")),
        (192, Some("ens192")),
        (1184, Some("ens161")),
        (1216, Some("ens193")),
        (2208, Some("ens162")),
        (u64::MAX, None),
        (0, None),
    ] {
        let text = format!(
            "config.version = \"8\"\nvirtualHW.version = \"19\"\nmemSize = \"1024\"\nscsi0.present = \"TRUE\"\n\
             scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\nethernet0.present = \"TRUE\"\n\
             ethernet0.pciSlotNumber = \"{number}\"\n"
        );
        let machine = parse(text.as_bytes(), &Choice::default()).unwrap().machine;
        assert_eq!(machine.nics[0].predictable_name.as_deref(), name, "{number}");
    }
}

const WEB01: &str = r#"#!/usr/bin/vmware
.encoding = "windows-1252"
config.version = "8"
virtualHW.version = "12"
DISPLAYNAME = "web01 |22blue|22"
guestOS = "debian12-64"
memSize = "2048"
numvcpus = "4"
cpuid.coresPerSocket = "2"
uuid.bios = "56 4d 9b ef ac d9 b4 e0-c8 f0 ae a8 b9 10 35 15"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "web01.vmdk"
scsi0:10.present = "TRUE"
scsi0:10.fileName = "web01_2.vmdk"
scsi0:2.present = "TRUE"
scsi0:2.fileName = "web01_1.vmdk"
scsi0:3.present = "FALSE"
scsi0:3.fileName = "old.vmdk"
ide1:0.present = "TRUE"
ide1:0.deviceType = "cdrom-image"
ide1:0.fileName = "x.iso"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.addressType = "static"
ethernet0.address = "00:50:56:00:12:AB"
ethernet0.pciSlotNumber = "192"
ethernet0.networkName = "VM Network"
"#;

#[test]
fn a_usual_machine() {
    let Parsed { machine, findings, .. } = parse(WEB01.as_bytes(), &Choice::default()).unwrap();
    assert_eq!(machine.name, "web01 \"blue\"");
    assert_eq!(machine.memory, Bytes::gib(2));
    assert_eq!(machine.cpus, Cpus::new(4, 2, 1));
    let files: Vec<_> = machine.disks.iter().map(|disk| disk.file.as_str()).collect();
    assert_eq!(files, ["web01.vmdk", "web01_1.vmdk", "web01_2.vmdk"], "in numerical order");
    assert_eq!(machine.disks[0].controller.as_deref(), Some("pvscsi"));
    let nic = &machine.nics[0];
    assert_eq!(nic.mac.as_deref(), Some("00:50:56:00:12:ab"));
    assert_eq!(nic.predictable_name.as_deref(), Some("ens192"));
    assert_eq!(
        machine.smbios.serial.as_deref(),
        Some("VMware-56 4d 9b ef ac d9 b4 e0-c8 f0 ae a8 b9 10 35 15")
    );
    let says: Vec<_> = findings.iter().map(|finding| finding.says.as_str()).collect();
    assert_eq!(says, ["Left out at the target: CD or DVD drives (ide1:0)."]);
}

#[test]
fn a_disk_without_its_controller_is_not_lost_in_silence() {
    let text = format!("{WEB01}scsi3:1.present = \"TRUE\"\nscsi3:1.fileName = \"far.vmdk\"\n");
    let parsed = parse(text.as_bytes(), &Choice::default()).unwrap();
    assert_eq!(parsed.machine.disks.len(), 3);
    let told = parsed.findings.iter().find(|finding| finding.says.contains("far.vmdk")).unwrap();
    assert!(told.id == "definition-not-held" && told.remedy.contains("scsi3.present"), "{told:?}");
}

#[test]
fn lines_may_end_with_a_carriage_return_alone() {
    let usual = parse(WEB01.as_bytes(), &Choice::default()).unwrap();
    for end in ["\r", "\r\n"] {
        assert_eq!(parse(WEB01.replace('\n', end).as_bytes(), &Choice::default()).unwrap(), usual, "{end:?}");
    }
}

/// Whoever has to put it right at night is told how.
#[test]
fn every_mistake_has_a_way_out() {
    for (from, to) in [
        ("memSize = \"2048\"", "memSize = \"lots\""),
        ("uuid.bios = \"56", "uuid.bios = \"zz"),
        ("scsi0:0.fileName = \"web01.vmdk\"", "scsi0:0.fileName = \"\""),
        ("numvcpus = \"4\"", "firmware = \"coreboot\""),
    ] {
        let error = parse(WEB01.replace(from, to).as_bytes(), &Choice::default()).unwrap_err();
        assert!(error.hint_text().is_some_and(|hint| hint.contains("copy of the definition")), "{error}");
    }
}

#[test]
fn the_owners_boot_disk_is_started_and_the_disks_keep_their_order() {
    for (order, expected) in
        [("scsi0:2", Some(1)), ("nvme0:0, SCSI0:10,scsi0:0", Some(2)), ("scsi0:0,scsi0:2", None), ("x", None)]
    {
        let text = format!("{WEB01}bios.hddOrder = \"{order}\"\n");
        let machine = parse(text.as_bytes(), &Choice::default()).unwrap().machine;
        assert_eq!(machine.boot_disk, expected, "{order}");
        let slots: Vec<_> = machine.disks.iter().map(|disk| disk.slot.as_str()).collect();
        assert_eq!(slots, ["scsi0:0", "scsi0:2", "scsi0:10"]);
    }
}

fn ids(parsed: &Parsed) -> Vec<&'static str> {
    parsed.findings.iter().map(|finding| finding.id).collect()
}

#[test]
fn the_order_of_devices() {
    use BootDevice::{Cdrom, Disk, Floppy, Nic};
    for (line, expected) in [
        ("bios.bootOrder = \"CDROM,hdd,ethernet0\"", vec![Cdrom, Disk, Nic(0)]),
        ("bios.bootDeviceClasses = \"allow:net,hd,fd\"", vec![Nic(0), Disk, Floppy]),
        ("bios.bootOrder = \"hdd,hdd,,\"", vec![Disk]),
    ] {
        let parsed = parse(format!("{WEB01}{line}\n").as_bytes(), &Choice::default()).unwrap();
        assert_eq!((parsed.machine.boot_order, parsed.unread), (expected, Vec::new()), "{line}");
    }
    for line in ["bios.bootOrder = \"deny:cd\"", "bios.bootOrder = \"ethernet7\""] {
        let parsed = parse(format!("{WEB01}{line}\n").as_bytes(), &Choice::default()).unwrap();
        assert_eq!((parsed.machine.boot_order, parsed.unread.len()), (Vec::new(), 1), "{line}");
    }
}

/// Each of these lines is a finding, and only that.
#[test]
fn what_a_person_has_to_know_is_a_finding() {
    for (lines, id) in [
        ("scsi0:2.mode = \"independent-persistent\"", "disk-independent"),
        ("scsi0:2.mode = \"independent-nonpersistent\"", "disk-independent"),
        ("scsi0:2.sharing = \"multi-writer\"", "disk-shared"),
        ("scsi0.sharedBus = \"virtual\"", "disk-shared"),
        ("scsi0:2.deviceType = \"rawDisk\"", "disk-raw-device"),
        ("scsi0:2.deviceType = \"scsi-passthru-rdm\"", "disk-raw-device"),
        (
            "sata0.present = TRUE\nsata0:0.present=TRUE\nsata0:0.deviceType=cdrom-image\nsata0:0.fileName=a.iso",
            "definition-device-left-out",
        ),
        ("floppy0.present = TRUE\nfloppy0.fileName = x", "definition-device-left-out"),
        (
            "serial0.present = TRUE\nserial1.present = TRUE\nserial1.pipe.endPoint = server",
            "definition-device-left-out",
        ),
        ("sound.present = TRUE\nsound.virtualDev = hdaudio", "definition-device-left-out"),
        ("usb.present = TRUE\nehci.present = TRUE", "definition-device-left-out"),
        ("usb.autoConnect.device0 = \"path:1/2/3\"", "device-passthrough"),
        (
            "pciPassthru0.present = TRUE\npciPassthru0.deviceId = 0x1234\npciPassthru0.id = 00:02.0",
            "device-passthrough",
        ),
        ("pciPassthru0.present = TRUE\npciPassthru0.vgpu = grid_p4-8q", "device-passthrough"),
        ("checkpoint.vmState = \"web01.vmss\"", "machine-suspended"),
        ("smbios.reflectHost = TRUE", "definition-not-held"),
    ] {
        let text = WEB01.replace("ide1:0.present = \"TRUE\"", "");
        let parsed = parse(format!("{text}{lines}\n").as_bytes(), &Choice::default()).unwrap();
        let mut found = ids(&parsed);
        found.dedup();
        assert_eq!(found, [id], "{lines}: {:#?}", parsed.findings);
        assert_eq!(parsed.unread, [""; 0], "{lines}");
    }
}

#[test]
fn a_virtual_function_becomes_a_card() {
    let lines = "pciPassthru3.present = TRUE\npciPassthru3.pfId = 00000:003:00.0\n\
                 pciPassthru3.MACAddress = 00:50:56:81:00:01\npciPassthru3.networkName = fast\n";
    let parsed = parse(format!("{WEB01}{lines}").as_bytes(), &Choice::default()).unwrap();
    let nic = &parsed.machine.nics[1];
    assert_eq!((nic.mac.as_deref(), nic.network.as_deref()), (Some("00:50:56:81:00:01"), Some("fast")));
    assert!(ids(&parsed).contains(&"device-passthrough"));
}

#[test]
fn nothing_is_dropped_in_silence() {
    let lines = "vcpu.hotadd = TRUE\nguestinfo.userdata = x\nscsi0:0.virtualSSD = 1\nmystery\nvhv.enable=FALSE\n\
                 pciBridge0.present = TRUE\nsched.mem.max = unlimited\nethernet1.address = nonsense\nscsi0:3.mode = x\n";
    let parsed = parse(format!("{WEB01}{lines}").as_bytes(), &Choice::default()).unwrap();
    assert_eq!(parsed.unread, ["guestinfo.userdata", "scsi0:0.virtualSSD", "vcpu.hotadd", "line 33"]);
}

#[test]
fn the_clock_goes_by_its_offset() {
    for (lines, clock) in [
        ("guestOS = windows9-64", Clock::LocalTime),
        ("guestOS = windows9-64\nrtc.diffFromUTC = 0", Clock::Utc),
        ("rtc.diffFromUTC = 3600", Clock::LocalTime),
        ("", Clock::Utc),
    ] {
        let parsed = parse(format!("{WEB01}{lines}\n").as_bytes(), &Choice::default()).unwrap();
        assert_eq!(parsed.machine.clock, clock, "{lines}");
    }
}

#[test]
fn what_is_not_a_machine_is_refused() {
    for (text, kind) in [
        ("", Kind::Corrupt),
        ("hello = \"world\"", Kind::Corrupt),
        ("config.version = \"8\"\nencryption.keySafe = \"vmware:key/list\"", Kind::Unsupported),
        ("config.version = \"8\"\nmemsize = \"-1\"", Kind::Corrupt),
        ("config.version = \"8\"\nmemsize = \"99999999999999999999\"", Kind::Corrupt),
        ("config.version = \"8\"\nscsi0.present=TRUE\nscsi0:0.present=TRUE", Kind::Corrupt),
        ("config.version = \"8\"\nethernet0.present=TRUE\nethernet0.address = \"nonsense\"", Kind::Corrupt),
        ("config.version = \"8\"\nfirmware = \"coreboot\"", Kind::Unsupported),
    ] {
        assert_eq!(parse(text.as_bytes(), &Choice::default()).unwrap_err().kind(), kind, "{text}");
    }
}

#[test]
fn names_in_the_old_character_set() {
    let machine = parse(
        b".encoding = \"windows-1252\"\nconfig.version = \"8\"\ndisplayName = \"M\xfcnchen \x80\"",
        &Choice::default(),
    )
    .unwrap()
    .machine;
    assert_eq!(machine.name, "München €");
    let machine = parse(
        b".encoding = \"UTF-8\"\nconfig.version = \"8\"\ndisplayName = \"M\xc3\xbcnchen|21\"",
        &Choice::default(),
    )
    .unwrap()
    .machine;
    assert_eq!(machine.name, "München!");
}

/// The file's spelling is the machine's, whatever the guest reads.
#[test]
fn the_guests_spelling_of_the_uuid_is_told() {
    let says = |hardware: &str, uuid: &str| {
        let text = WEB01
            .replace("virtualHW.version = \"12\"", &format!("virtualHW.version = \"{hardware}\""))
            .replace("56 4d 9b ef ac d9 b4 e0", uuid);
        let parsed = parse(text.as_bytes(), &Choice::default()).unwrap();
        let uuid = parsed.machine.smbios.uuid.unwrap().to_string();
        let found = parsed.findings.into_iter().find(|found| found.id == "smbios-uuid-order");
        (uuid, found.map(|found| found.says))
    };
    let (uuid, told) = says("13", "56 4d 9b ef ac d9 b4 e0");
    assert_eq!(uuid, "564d9bef-acd9-b4e0-c8f0-aea8b9103515");
    let told = told.unwrap();
    assert!(told.contains(&uuid) && told.contains("ef9b4d56-d9ac-e0b4-c8f0-aea8b9103515"), "{told}");
    assert!(says("21", "56 4d 9b ef ac d9 b4 e0").1.is_some());
    for hardware in ["12", "4", "x"] {
        assert_eq!(says(hardware, "56 4d 9b ef ac d9 b4 e0").1, None, "{hardware}");
    }
    assert_eq!(says("19", "11 22 22 11 33 33 44 44").1, None, "the same both ways");
}

#[test]
fn a_disks_name_in_an_unknown_character_set_is_refused() {
    let file = |encoding: &str| {
        let text = WEB01.replace("windows-1252", encoding);
        let mut bytes = text.into_bytes();
        bytes.extend(b"scsi0:4.present = TRUE\nscsi0:4.fileName = \"\xb7\xfe.vmdk\"\n");
        parse(&bytes, &Choice::default())
    };
    assert_eq!(file("GBK").unwrap().machine.disks[2].file, "服.vmdk");
    let error = file("x-mac-unheard-of").unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().contains("scsi0:4.filename")),
        (Kind::Unsupported, true),
        "{error}"
    );
    let cd = [WEB01.replace("windows-1252", "x").as_bytes(), b"ide1:0.fileName = \"\xb7.iso\"\n"].concat();
    let parsed = parse(&cd, &Choice::default()).unwrap();
    assert_eq!(ids(&parsed), ["definition-encoding", "definition-device-left-out"]);
}
