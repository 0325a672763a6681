//! What becomes of the keys, on configurations that are written here.

use super::*;
use crate::machine::{Backing, Bus};
use landfall_image::Kind;

/// A configuration of 2012 R2 with everything in it that is not usual.
const RICH: &str = include_str!("rich.xml");

fn parsed(xml: &str) -> Parsed {
    parse_xml(xml.as_bytes(), &Choice::default()).unwrap()
}

#[test]
fn everything_has_its_place() {
    let Parsed { machine, findings, unread } = parsed(RICH);
    assert_eq!(machine.name, "sql-01");
    assert_eq!(machine.annotation.as_deref(), Some("two\nlines"));
    assert_eq!((machine.firmware, machine.secure_boot, machine.tpm), (Firmware::Bios, false, true));
    assert_eq!(machine.cpus, Cpus::new(8, 2, 2));
    assert_eq!(machine.memory, Bytes::mib(2048));
    assert_eq!(machine.smbios.uuid.unwrap().to_string(), "5ab19138-bae3-417b-92cf-17eab4346c65");
    assert_eq!(machine.smbios.serial.as_deref(), Some("4426-7762"));
    assert_eq!(
        machine.boot_order,
        [BootDevice::Disk, BootDevice::Cdrom, BootDevice::Nic(0), BootDevice::Floppy]
    );
    let disks: Vec<_> = machine
        .disks
        .iter()
        .map(|disk| (disk.slot.as_str(), disk.bus, disk.file.as_str(), disk.backing))
        .collect();
    assert_eq!(
        disks,
        [
            ("IDE 0:0", Bus::Ide, r"D:\VM\sql_A1B2.avhdx", Backing::File),
            ("IDE 0:1", Bus::Ide, r"\\?\Volume{1}\x.vhd", Backing::File),
            ("SCSI 0:1", Bus::Vmbus, r"\\nas\c\quorum.vhds", Backing::File),
            ("SCSI 0:10", Bus::Vmbus, r"\\.\PHYSICALDRIVE3", Backing::Device),
            ("SCSI 1:0", Bus::Vmbus, r"D:\VM\log.vhdx", Backing::File),
        ],
        "in numerical order, each controller by its number"
    );
    assert_eq!(machine.disks[0].format.as_deref(), Some("vhdx"));
    assert_eq!(machine.disks[1].format.as_deref(), Some("vhd"));
    let nics: Vec<_> = machine
        .nics
        .iter()
        .map(|nic| {
            (
                nic.slot.as_str(),
                nic.mac.as_deref(),
                nic.model.as_deref(),
                nic.network.as_deref(),
                nic.connected,
                nic.vlan,
            )
        })
        .collect();
    assert_eq!(
        nics,
        [
            ("Network Adapter", Some("00:15:5d:01:02:0a"), Some("netvsc"), Some("LAN"), true, Some(42)),
            (
                "Network Adapter #2",
                None,
                Some("netvsc"),
                Some("C08CB7B8-9B3C-408E-8E30-5EB9E8E6A1A0"),
                true,
                None
            ),
            ("Legacy", Some("00:15:5d:01:02:0b"), Some("tulip"), None, false, None),
        ]
    );
    let told: Vec<String> = findings.iter().map(|f| format!("{}: {} {}", f.id, f.says, f.remedy)).collect();
    insta::assert_snapshot!(told.join("\n"));
    insta::assert_snapshot!(unread.join("\n"));
}

#[test]
fn what_is_no_machine_is_refused() {
    let with = |from: &str, to: &str| {
        let xml = RICH.replace(from, to);
        assert_ne!(xml, RICH, "{from}");
        parse_xml(xml.as_bytes(), &Choice::default()).map(|_| ()).unwrap_err()
    };
    for (from, to, kind) in [
        (">Virtual Machines<", ">Resource Types<", Kind::Unsupported),
        (r#"<subtype type="integer">0<"#, r#"<subtype type="integer">2<"#, Kind::Unsupported),
        (r#"<size type="integer">2048<"#, r#"<size type="integer">9999999999<"#, Kind::Corrupt),
        (r#"<size type="integer">2048</size>"#, "", Kind::Corrupt),
        (r#"<count type="integer">8<"#, r#"<count type="integer">99999<"#, Kind::Corrupt),
        ("{5AB19138-", "{5AB1913-", Kind::Corrupt),
        ("00-15-5D-01-02-0A", "00-15-5D-01-02-0X", Kind::Corrupt),
        ("<properties>", "<propertys>", Kind::Corrupt),
    ] {
        assert_eq!(with(from, to).kind(), kind, "{to}");
    }
    assert_eq!(parse_xml(b"<domain/>", &Choice::default()).unwrap_err().kind(), Kind::Unsupported);
    let choice = Choice { snapshot: Some("x".into()), ..Choice::default() };
    let error = parse_xml(RICH.as_bytes(), &choice).unwrap_err();
    assert!(error.hint_text().unwrap().contains("Snapshots"), "{error}");
}

#[test]
fn a_configuration_is_known_by_its_looks() {
    assert!(recognise_xml(RICH.as_bytes()));
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain(RICH.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    assert!(recognise_xml(&utf16) && !recognise_vmcx(&utf16));
    assert_eq!(parse_xml(&utf16, &Choice::default()).unwrap(), parsed(RICH));
    assert!(!recognise_xml(b"<domain type='kvm'><name>a</name></domain>"));
}
