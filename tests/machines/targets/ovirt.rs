//! oVirt's OVF by the places where its engine looks, and its script against an engine that is played.

use super::{EVIL, Stage, hostile, networks, render, said, text, usual};
use landfall::hypervisor::xml::Element;
use landfall::machine::OsId;
use landfall_boot::target::DiskModel;
use std::fs;

fn of_type<'a>(content: &'a Element, kind: &str) -> &'a Element {
    let kind = format!("ovf:{kind}_Type");
    content.all("Section").find(|section| section.attribute("xsi:type") == Some(&kind)).unwrap()
}

fn items<'a>(content: &'a Element, resource: &'a str) -> Vec<&'a Element> {
    let hardware = of_type(content, "VirtualHardwareSection");
    hardware.all("Item").filter(|item| item.text_at("ResourceType") == Some(resource)).collect()
}

/// What OvfReader reads, at the places where it reads it.
#[test]
fn the_engine_finds_the_machine() {
    for (machine, bios, sequence) in [(usual(), "2", "0"), (hostile(), "4", "13")] {
        let rendered = render("ovirt", &machine, None, &networks(), "/out");
        let ovf = text(&rendered, "machine.ovf");
        let root = Element::parse(ovf.as_bytes()).unwrap();
        assert_eq!((root.name.as_str(), root.prefix.as_str()), ("Envelope", "ovf"));
        let content = root.child("Content").unwrap();
        assert_eq!(content.text_at("BiosType"), Some(bios), "{ovf}");
        assert_eq!(content.text_at("default_boot_sequence"), Some(sequence));
        assert_eq!(content.text_at("CustomSerialNumber"), machine.smbios.serial.as_deref());
        let system = of_type(content, "OperatingSystemSection");
        assert_eq!(system.attribute("id"), machine.smbios.uuid.map(|uuid| uuid.to_string()).as_deref());
        let cpu = items(content, "3")[0];
        let topology =
            ["num_of_sockets", "cpu_per_socket", "threads_per_cpu"].map(|name| cpu.text_at(name).unwrap());
        assert_eq!(topology, ["2", "2", "1"]);
        assert_eq!(items(content, "4")[0].text_at("VirtualQuantity"), Some("2000"));
        let files: Vec<_> = root.child("References").unwrap().all("File").collect();
        let disks: Vec<_> = of_type(&root, "DiskSection").all("Disk").collect();
        for (n, drive) in items(content, "17").into_iter().enumerate() {
            let image = drive.text_at("InstanceId").unwrap();
            assert_eq!((files[n].attribute("id"), disks[n].attribute("diskId")), (Some(image), Some(image)));
            assert_eq!(drive.text_at("HostResource"), files[n].attribute("href"));
            assert!(files[n].attribute("href").unwrap().ends_with(&format!("/{image}")));
            assert_eq!(
                (disks[n].attribute("size"), disks[n].attribute("disk-interface")),
                (Some("11"), Some("VirtIO"))
            );
            let boots = n == machine.boot_disk();
            assert_eq!(disks[n].attribute("boot"), Some(if boots { "true" } else { "false" }));
        }
        for (n, card) in items(content, "10").into_iter().enumerate() {
            assert_eq!(card.text_at("MACAddress"), machine.nics[n].mac.as_deref());
            assert_eq!(
                (card.text_at("ResourceSubType"), card.text_at("Connection")),
                (Some("3"), Some(["lan", "dmz"][n]))
            );
            assert_eq!(
                card.text_at("Linked"),
                Some(if machine.nics[n].connected { "true" } else { "false" })
            );
        }
    }
    let scsi = render("ovirt", &usual(), Some(DiskModel::VirtioScsi), &networks(), "/out");
    assert!(text(&scsi, "machine.ovf").contains("disk-interface=\"VirtIO_SCSI\""));
    let again = render("ovirt", &usual(), Some(DiskModel::VirtioScsi), &networks(), "/out");
    assert_eq!(text(&scsi, "machine.ovf"), text(&again, "machine.ovf"), "its ids are the same every time");
    let elsewhere = render("ovirt", &usual(), Some(DiskModel::VirtioScsi), &networks(), "/other");
    assert_ne!(text(&scsi, "machine.ovf"), text(&elsewhere, "machine.ovf"));
}

const ENGINE: &str = r#"for last in "$@"; do :; done
case "$*" in *'-X POST'*) [ -z "${FAIL:-}" ] || exit 22; for word in "$@"; do case $word in @*vm.xml) cp "${word#@}" posted;; esac; done; exit;;
*'-X '*) exit;; esac
case $last in
*/api/) ;;
*"${BROKEN:-nothing}") exit 22;;
*/api/disks) printf '<disks>%s</disks>\n' "${DISKS:-}";;
*follow=nics) printf '<vms>%s</vms>\n' "${MACHINES:-}";;
*/api/disks/*) n=$(cat uploaded 2>/dev/null || echo 0); [ "$n" -gt 0 ] || exit 22
    printf '<disk><image_id>00000000-1111-2222-3333-00000000000%s</image_id></disk>\n' "$n";;
*) exit 22;;
esac"#;

#[test]
fn the_script_makes_all_or_nothing() {
    let rendered = render("ovirt", &hostile(), None, &networks(), "/out");
    let named = Element::parse(text(&rendered, "machine.ovf").as_bytes()).unwrap();
    let named = format!("<vm><name>{}</name></vm>", named.text_at("Content/Name").unwrap());
    let stage = Stage::new(&rendered);
    stage.program("curl", ENGINE);
    stage.program("ovirt-img", "n=$(cat uploaded 2>/dev/null || echo 0); echo $((n + 1)) >uploaded");
    fs::write(stage.path("password"), "se\"cret\\\n").unwrap();
    let password = stage.path("password");
    let variables = [
        ("OVIRT_URL", "https://engine/"),
        ("OVIRT_USERNAME", "admin@internal"),
        ("OVIRT_PASSWORD_FILE", password.to_str().unwrap()),
        ("OVIRT_CAFILE", "/ca.pem"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&variables[..], more].concat();
    let done = stage.run(&["Default & more", "fast"], &variables);
    assert!(done.status.success(), "{}", said(&done));
    let upload = stage.calls_of(&["ovirt-img", "upload-disk"]).remove(1);
    assert!(
        upload.last().unwrap().ends_with("/out it's/disk1.qcow2") && upload.contains(&"fast".to_owned()),
        "{upload:?}"
    );
    assert!(
        !stage.calls().concat().iter().any(|word| word.contains("se\"cret")),
        "the password is on no command line"
    );
    // The engine gets the definition with the images' ids that it gave itself.
    let posted = Element::parse(&fs::read(stage.path("posted")).unwrap()).unwrap();
    assert_eq!(posted.text_at("cluster/name"), Some("Default & more"));
    let ovf = posted.text_at("initialization/configuration/data").unwrap();
    let ovf = Element::parse(ovf.as_bytes()).unwrap();
    let ids: Vec<_> =
        of_type(&ovf, "DiskSection").all("Disk").map(|disk| disk.attribute("diskId").unwrap()).collect();
    assert_eq!(ids, ["00000000-1111-2222-3333-000000000001", "00000000-1111-2222-3333-000000000002"]);
    let description = ovf.text_at("Content/Description").unwrap();
    assert!(description.starts_with(EVIL), "{description}");
    assert!(stage.calls().last().unwrap().contains(&"PUT".to_owned()), "the TPM comes last");

    fs::remove_file(stage.path("uploaded")).unwrap();
    let failed = stage.run(&["Default", "fast"], &with(&[("FAIL", "1")]));
    assert!(!failed.status.success());
    let deleted = stage.calls().into_iter().filter(|call| call.contains(&"DELETE".to_owned())).count();
    assert_eq!(deleted, 2, "both disks are taken away");
    fs::remove_file(stage.path("uploaded")).unwrap();
    let id = "<vm href='/x' id=\"7b10d7af-b932-4c66-b2c3-3996152ec465\"></vm>";
    let disk = format!(
        "<disk href='/x' id=\"{}\"></disk>",
        upload[upload.iter().position(|w| w == "--disk-id").unwrap() + 1]
    );
    for (variable, machines, expected) in [
        ("MACHINES", id, "a machine with the id 7b10d7af"),
        ("DISKS", disk.as_str(), "is here already"),
        ("BROKEN", "follow=nics", "the engine does not list its machines"),
        ("BROKEN", "api/disks", "the engine does not list its disks"),
        (
            "MACHINES",
            "<vm><nics><nic><mac><address>00:50:56:00:12:A1</address></mac></nic></nics></vm>",
            "address 00:50:56:00:12:a1",
        ),
        ("MACHINES", named.as_str(), "with the name"),
    ] {
        let variables = [&variables[..], &[(variable, machines)]].concat();
        let stopped = stage.run(&["Default", "fast"], &variables);
        assert!(said(&stopped).contains(expected), "{machines}: {}", said(&stopped));
        assert!(stage.calls_of(&["ovirt-img"]).is_empty());
    }
    assert!(said(&stage.run(&["Default", "fast"], &[])).contains("OVIRT_URL is not set"));
}

/// Every release of the engine knows one Windows; that it is another is said.
#[test]
fn another_windows_is_told() {
    let os = |distribution: &str, version: &str| {
        let mut machine = usual();
        machine.os = Some(OsId { distribution: distribution.into(), version: version.into() });
        let rendered = render("ovirt", &machine, None, &networks(), "/out");
        let told = rendered.findings.iter().any(|finding| finding.says.contains("windows_10x64"));
        (text(&rendered, "machine.ovf").contains("windows_10x64"), told)
    };
    assert_eq!(os("windows-server", "2022"), (true, true));
    assert_eq!(os("windows", "11"), (true, true));
    assert_eq!(os("windows", "10"), (true, false));
    assert_eq!(os("debian", "12"), (false, false));
}
