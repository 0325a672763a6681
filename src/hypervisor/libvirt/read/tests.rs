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
