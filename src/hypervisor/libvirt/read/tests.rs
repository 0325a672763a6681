//! Domains of every shape, and hostile ones. The corpus' are in tests/machines/domains.rs.

use super::*;
use landfall_image::Kind;

fn domain(inner: &str) -> String {
    format!(
        "<domain type='kvm'><name>a</name><memory unit='MiB'>512</memory><vcpu>2</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os>{inner}</domain>"
    )
}

fn read(text: &str) -> Result<Parsed> {
    parse(text.as_bytes(), &Choice::default())
}

#[test]
fn the_usual_is_read() {
    let text = domain(
        "<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/v/a.qcow2'/>\
         <target dev='vda' bus='virtio'/><serial>S1</serial></disk><disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>\
         <interface type='network'><mac address='52:54:00:AA:00:01'/><source network='default'/><model type='virtio'/></interface></devices>",
    );
    let machine = read(&text).unwrap().machine;
    assert_eq!((machine.name.as_str(), machine.cpus.count, machine.memory.0 >> 20), ("a", 2, 512));
    let disk = &machine.disks[0];
    assert_eq!((machine.disks.len(), disk.slot.as_str(), disk.file.as_str()), (1, "vda", "/v/a.qcow2"));
    assert_eq!((disk.format.as_deref(), disk.serial.as_deref()), (Some("qcow2"), Some("S1")));
    assert_eq!(machine.nics[0].mac.as_deref(), Some("52:54:00:aa:00:01"));
}

#[test]
fn what_is_no_machine_of_ours_is_refused() {
    for (text, kind) in [
        ("<network/>".to_owned(), Kind::Corrupt),
        ("<domain type='lxc'><name>a</name></domain>".to_owned(), Kind::Unsupported),
        (domain("").replace("x86_64", "aarch64"), Kind::Unsupported),
        (domain("").replace(">512<", ">-1<"), Kind::Corrupt),
        (domain("").replace(">512<", ">99999999999999999999<"), Kind::Corrupt),
        (domain("").replace("'MiB'", "'furlong'"), Kind::Corrupt),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><domain>&b;</domain>".to_owned(), Kind::Refused),
        ("<domain".to_owned(), Kind::Corrupt),
    ] {
        let error = read(&text).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), kind, "{text}: {error}");
    }
}

/// Where libvirt chooses the places, a narrow SCSI bus has 7 of them and VMware's 15.
#[test]
fn disks_without_an_address_are_on_the_controller_that_libvirt_chooses() {
    let controllers = "<controller type='scsi' index='0' model='lsilogic'/><controller type='scsi' index='1' model='virtio-scsi'/>\
                       <controller type='scsi' index='2' model='lsisas1068'/>";
    for (kind, target, expected) in [
        ("kvm", "sdg", Some("lsilogic")),
        ("kvm", "sdh", None),
        ("kvm", "sdn", None),
        ("kvm", "sdo", Some("lsisas1068")),
        ("xen", "sdh", None),
        ("vmware", "sdo", Some("lsilogic")),
        ("vmware", "sdp", None),
    ] {
        let disk =
            format!("<disk type='file'><source file='/v/a.raw'/><target dev='{target}' bus='scsi'/></disk>");
        let text = domain(&format!("<devices>{controllers}{disk}</devices>"))
            .replace("type='kvm'", &format!("type='{kind}'"));
        let machine = read(&text).unwrap().machine;
        assert_eq!(machine.disks[0].controller.as_deref(), expected, "{kind} {target}");
    }
}

#[test]
fn disks_of_a_bus_are_in_the_order_of_their_targets() {
    let disk = |target: &str, order: &str| {
        format!("<disk type='file'><source file='/v/{target}'/><target dev='{target}'/>{order}</disk>")
    };
    let first = "<boot order='1'/>";
    let text = |inner: &str| domain(&format!("<devices>{inner}</devices>"));
    for (targets, expected) in [
        (&["vdb", "vda"][..], &["vda", "vdb"][..]),
        // A bus stays where its first disk stands.
        (&["vdb", "sda", "vda"], &["vda", "vdb", "sda"]),
        (&["hdc", "vdb", "hda", "vda"], &["hda", "hdc", "vda", "vdb"]),
        (&["vdaa", "vdz", "vda"], &["vda", "vdz", "vdaa"]),
        (&["xvdb1", "xvda2"], &["xvda2", "xvdb1"]),
    ] {
        let inner: String = targets.iter().map(|target| disk(target, "")).collect();
        let machine = read(&text(&inner)).unwrap().machine;
        let slots: Vec<_> = machine.disks.iter().map(|disk| disk.slot.as_str()).collect();
        assert_eq!((slots.as_slice(), machine.boot_disk), (expected, None), "{targets:?}");
    }
    let machine = read(&text(&[disk("vdb", first), disk("vda", "")].concat())).unwrap().machine;
    assert_eq!((machine.disks[0].slot.as_str(), machine.boot_disk), ("vda", Some(1)));
    let machine = read(&text(&[disk("vdb", ""), disk("vda", first)].concat())).unwrap().machine;
    assert_eq!((machine.disks[0].slot.as_str(), machine.boot_disk), ("vda", None));
}
