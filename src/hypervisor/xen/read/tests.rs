use super::*;
use landfall_image::Kind;

/// An object of the export; `members` are name and value, the value with the tag of its type.
fn object(class: &str, id: &str, members: &[(&str, &str)]) -> String {
    let members: String = members
        .iter()
        .map(|(name, value)| format!("<member><name>{name}</name><value>{value}</value></member>"))
        .collect();
    format!(
        "<value><struct><member><name>class</name><value>{class}</value></member><member><name>id</name><value>{id}</value>\
         </member><member><name>snapshot</name><value><struct>{members}</struct></value></member></struct></value>"
    )
}

fn document(objects: &[String]) -> String {
    format!(
        "<value><struct><member><name>version</name><value><struct/></value></member><member><name>objects</name><value><array>\
         <data>{}</data></array></value></member></struct></value>",
        objects.concat()
    )
}

const GIB: &str = "1073741824";

fn vm(id: &str, name: &str, more: &[(&str, &str)]) -> String {
    let usual = [("name_label", name), ("memory_static_max", GIB), ("HVM_boot_policy", "BIOS order")];
    let kept = usual.iter().filter(|(name, _)| !more.iter().any(|(own, _)| own == name));
    object("VM", id, &kept.chain(more).copied().collect::<Vec<_>>())
}

fn read(objects: &[String], choice: &Choice) -> Result<Parsed> {
    parse(document(objects).as_bytes(), choice)
}

fn ids(parsed: &Parsed) -> Vec<&str> {
    parsed.findings.iter().map(|finding| finding.id).collect()
}

fn map(pairs: &[(&str, &str)]) -> String {
    let members = pairs
        .iter()
        .map(|(name, value)| format!("<member><name>{name}</name><value>{value}</value></member>"));
    format!("<struct>{}</struct>", members.collect::<String>())
}

#[test]
fn one_of_several_machines_is_chosen() {
    let snapshot =
        [("is_a_snapshot", "<boolean>1</boolean>"), ("uuid", "7b10d7af-b932-4c66-b2c3-3996152ec465")];
    let all = [vm("Ref:1", "a", &[]), vm("Ref:2", "b", &[]), vm("Ref:3", "then", &snapshot)];
    let choice = |system: Option<&str>, snapshot: Option<&str>| Choice {
        system: system.map(str::to_owned),
        snapshot: snapshot.map(str::to_owned),
        configuration: None,
    };
    let error = read(&all, &Choice::default()).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.says().contains("\"a\", \"b\""), "{error}");
    for (wanted, name) in [
        (choice(Some("b"), None), "b"),
        (choice(Some("Ref:1"), None), "a"),
        (choice(None, Some("then")), "then"),
        (choice(None, Some("7b10d7af-b932-4c66-b2c3-3996152ec465")), "then"),
    ] {
        assert_eq!(read(&all, &wanted).unwrap().machine.name, name);
    }
    for wanted in [choice(Some("c"), None), choice(None, Some("now")), choice(None, Some("a"))] {
        let error = read(&all, &wanted).unwrap_err();
        assert!(error.kind() == Kind::Refused && error.hint_text().is_some(), "{error}");
    }
    // The current state, and a word of its snapshots; a snapshot that was exported by itself.
    let parsed = read(&[vm("Ref:1", "a", &[]), vm("Ref:3", "then", &snapshot)], &Choice::default()).unwrap();
    assert_eq!((parsed.machine.name.as_str(), ids(&parsed)), ("a", vec!["definition-snapshots"]));
    assert_eq!(read(&all[2..], &Choice::default()).unwrap().machine.name, "then");
    let domain = vm("Ref:9", "Control domain", &[("is_control_domain", "<boolean>1</boolean>")]);
    assert_eq!(read(&[domain.clone(), vm("Ref:1", "a", &[])], &Choice::default()).unwrap().machine.name, "a");
    assert!(read(&[domain], &Choice::default()).is_err());
}

#[test]
fn a_paravirtual_guest_is_told_of() {
    let disk = |n: usize, bootable: &str| {
        [
            object("VDI", &format!("Ref:{n}"), &[("virtual_size", "1048576")]),
            object(
                "VBD",
                &format!("Ref:1{n}"),
                &[
                    ("VM", "Ref:1"),
                    ("VDI", &format!("Ref:{n}")),
                    ("device", ["xvdb", "xvda"][n - 5]),
                    ("bootable", bootable),
                ],
            ),
        ]
    };
    let pv = [("HVM_boot_policy", ""), ("PV_bootloader", "pygrub"), ("PV_args", "quiet")];
    let mut all = vec![vm("Ref:1", "old", &pv)];
    all.extend(disk(5, "<boolean>1</boolean>"));
    all.extend(disk(6, "<boolean>0</boolean>"));
    let parsed = read(&all, &Choice::default()).unwrap();
    assert_eq!(ids(&parsed), ["paravirtual-guest"]);
    assert!(parsed.findings[0].says.contains("pygrub") && parsed.findings[0].remedy.contains("grub-install"));
    let slots: Vec<_> =
        parsed.machine.disks.iter().map(|disk| (disk.slot.as_str(), disk.file.as_str())).collect();
    assert_eq!((slots, parsed.machine.boot_disk), (vec![("xvda", "Ref:6"), ("xvdb", "Ref:5")], Some(1)));
    assert_eq!(parsed.unread, ["VM.PV_args"]);
}

#[test]
fn what_does_not_go_over_is_told() {
    let platform =
        map(&[("vtpm", "true"), ("timeoffset", "120"), ("secureboot", "auto"), ("exp-nested-hvm", "1")]);
    let list = "<array><data><value>Ref:7</value></data></array>";
    let more = [
        ("platform", platform.as_str()),
        ("NVRAM", &map(&[("EFI-variables", "AAAA")])),
        ("VGPUs", list),
        ("VUSBs", list),
        ("suspend_VDI", "Ref:70"),
        ("VCPUs_max", "8"),
        ("VCPUs_at_startup", "2"),
        ("ha_restart_priority", "restart"),
        ("VCPUs_params", &map(&[("weight", "512")])),
        (
            "bios_strings",
            &map(&[("system-manufacturer", "Xen"), ("system-serial-number", "S1"), ("oem-1", "x")]),
        ),
        ("HVM_boot_params", &map(&[("order", "nca"), ("firmware", "uefi")])),
    ];
    let shared = [("virtual_size", "4096"), ("sharable", "<boolean>1</boolean>"), ("on_boot", "reset")];
    let all = [
        vm("Ref:1", "x", &more),
        object("VDI", "Ref:2", &shared),
        object("VBD", "Ref:3", &[("VM", "Ref:1"), ("VDI", "Ref:2"), ("userdevice", "1"), ("mode", "RO")]),
        object("VBD", "Ref:4", &[("VM", "Ref:1"), ("VDI", "OpaqueRef:NULL"), ("type", "Floppy")]),
        object("VIF", "Ref:5", &[("VM", "Ref:1"), ("device", "0"), ("locking_mode", "disabled")]),
        object("PVS_proxy", "Ref:6", &[]),
    ];
    let parsed = read(&all, &Choice::default()).unwrap();
    let mut found = ids(&parsed);
    found.sort_unstable();
    found.dedup();
    assert_eq!(
        found,
        [
            "definition-device-left-out",
            "definition-not-held",
            "device-passthrough",
            "disk-independent",
            "disk-shared",
            "machine-suspended",
            "nic-without-address",
        ]
    );
    let machine = &parsed.machine;
    assert!(machine.tpm && !machine.secure_boot && machine.clock == Clock::Utc && !machine.nics[0].connected);
    assert_eq!(
        (machine.cpus.count, machine.smbios.serial.as_deref(), &machine.smbios.manufacturer),
        (2, Some("S1"), &None)
    );
    assert_eq!(machine.boot_order, [BootDevice::Nic(0), BootDevice::Disk]);
    assert_eq!(machine.disks[0].slot, "xvdb");
    assert_eq!(
        parsed.unread,
        [
            "PVS_proxy",
            "VM.HVM_boot_params.order",
            "VM.VCPUs_params",
            "VM.bios_strings.oem-1",
            "VM.ha_restart_priority",
            "VM.platform.exp-nested-hvm",
            "VM.platform.secureboot=auto"
        ]
    );
}

#[test]
fn hostile_definitions_are_errors() {
    let disk = |size: &str| {
        vec![
            vm("Ref:1", "x", &[]),
            object("VDI", "Ref:2", &[("virtual_size", size)]),
            object(
                "VBD",
                "Ref:3",
                &[("VM", "Ref:1"), ("VDI", "Ref:2"), ("userdevice", "99999999999999999999")],
            ),
        ]
    };
    assert_eq!(read(&disk("4096"), &Choice::default()).unwrap().machine.disks[0].slot, "xvda");
    for (objects, kind) in [
        (vec![], Kind::Corrupt),
        (vec![vm("Ref:1", "x", &[("memory_static_max", "0")])], Kind::Corrupt),
        (vec![vm("Ref:1", "x", &[("memory_static_max", "-5")])], Kind::Corrupt),
        (vec![vm("Ref:1", "x", &[("memory_static_max", "99999999999999999")])], Kind::Corrupt),
        (vec![vm("Ref:1", "x", &[("VCPUs_max", "1000000")])], Kind::Corrupt),
        (vec![vm("Ref:1", "x", &[("uuid", "no")])], Kind::Corrupt),
        (disk("-1"), Kind::Corrupt),
        (disk("281474976710657"), Kind::Corrupt),
        (
            vec![vm("Ref:1", "x", &[]), object("VIF", "Ref:2", &[("VM", "Ref:1"), ("MAC", "00:00")])],
            Kind::Corrupt,
        ),
    ] {
        assert_eq!(read(&objects, &Choice::default()).unwrap_err().kind(), kind, "{objects:?}");
    }
    for (text, kind) in [
        ("<appliance version=\"0.1\"/>", Kind::Unsupported),
        ("<value><struct/></value>", Kind::Corrupt),
        ("<value>x</value>", Kind::Corrupt),
        ("<value><a/><b/></value>", Kind::Corrupt),
        ("<domain/>", Kind::Corrupt),
        ("", Kind::Corrupt),
    ] {
        assert_eq!(parse(text.as_bytes(), &Choice::default()).unwrap_err().kind(), kind, "{text}");
    }
    assert!(
        recognise(document(&[]).as_bytes())
            && recognise(b"<appliance>")
            && !recognise(b"<domain type='kvm'>")
    );
    // Two disks at one place, and a place without a name.
    let at = |id: &str, place: &str| {
        object("VBD", id, &[("VM", "Ref:1"), ("VDI", "Ref:2"), ("userdevice", place)])
    };
    let all = [
        vm("Ref:1", "x", &[]),
        object("VDI", "Ref:2", &[]),
        at("a", "1"),
        at("b", "1"),
        at("c", "autodetect"),
    ];
    let parsed = read(&all, &Choice::default()).unwrap();
    let slots: Vec<_> = parsed.machine.disks.iter().map(|disk| disk.slot.as_str()).collect();
    assert_eq!(slots, ["xvdb", "xvdc", "xvdd"]);
}
