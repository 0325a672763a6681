//! Domains of every shape, and hostile ones. The corpus' are in tests/machines/domains.rs.

use super::*;
use crate::machine::{Backing, Bus, Clock, Cpus};
use landfall_boot::target::Firmware;
use landfall_image::{Bytes, Kind};

fn domain(head: &str, devices: &str) -> String {
    format!(
        "<domain type='kvm'><name>a</name><memory>1024</memory>{head}\
         <features><acpi/></features><devices>{devices}</devices></domain>"
    )
}

const PC: &str = "<os><type arch='x86_64' machine='pc'>hvm</type></os>";
const Q35: &str = "<os><type arch='x86_64' machine='pc-q35-8.2'>hvm</type></os>";

fn read(head: &str, devices: &str) -> Result<Parsed> {
    parse(domain(head, devices).as_bytes(), &Choice::default())
}

fn machine(head: &str, devices: &str) -> Machine {
    read(head, devices).unwrap().machine
}

fn disk(target: &str, rest: &str) -> String {
    format!("<disk type='file'><source file='/a.img'/><target {target}/>{rest}</disk>")
}

fn says(parsed: &Parsed, id: &str) -> String {
    let told: Vec<&str> = parsed.findings.iter().filter(|f| f.id == id).map(|f| f.says.as_str()).collect();
    told.join("\n")
}

#[test]
fn it_is_known_by_its_root() {
    for yes in
        ["<domain type='kvm'>", "\u{feff}<?xml version='1.0'?>\n<!-- <a> -->\n<domain>", "<domainsnapshot>"]
    {
        assert!(recognise(yes.as_bytes()), "{yes}");
    }
    for no in ["", "<", "<domain", "<domains>", "<!-- <domain>", "<network>", "domain>", "<?xml <domain>"] {
        assert!(!recognise(no.as_bytes()), "{no}");
    }
}

#[test]
fn memory_has_units() {
    for (text, bytes) in [
        ("<memory>1024</memory>", 1 << 20),
        ("<memory unit='b'>1025</memory>", 2048),
        ("<memory unit='KB'>1024</memory>", 1024 * 1000),
        ("<memory unit='MiB'> 512 </memory>", 512 << 20),
        ("<memory unit='mib'>1</memory>", 1 << 20),
        ("<memory unit='G'>2</memory>", 2 << 30),
        ("<cpu><numa><cell memory='1' unit='GiB'/><cell memory='1024'/></numa></cpu>", (1 << 30) + (1 << 20)),
    ] {
        let text = format!("<domain type='kvm'>{text}{PC}</domain>");
        assert_eq!(
            parse(text.as_bytes(), &Choice::default()).unwrap().machine.memory,
            Bytes(bytes),
            "{text}"
        );
    }
    for text in [
        "",
        "<memory/>",
        "<memory>0</memory>",
        "<memory>-1</memory>",
        "<memory>99999999999999999999999</memory>",
        "<memory unit='EiB'>17</memory>",
        "<memory unit='parsec'>1</memory>",
        "<memory unit=''>1</memory>",
        "<memory unit='mäuse'>1</memory>",
        "<memory>1e3</memory>",
    ] {
        let text = format!("<domain type='kvm'>{text}{PC}</domain>");
        assert_eq!(parse(text.as_bytes(), &Choice::default()).unwrap_err().kind(), Kind::Corrupt, "{text}");
    }
}

#[test]
fn processors_have_a_topology() {
    let cpus = |vcpu: &str, topology: &str| {
        let parsed = read(&format!("{PC}{vcpu}<cpu><topology {topology}/></cpu>"), "").unwrap();
        (parsed.machine.cpus, parsed.findings.len())
    };
    let eight = "<vcpu placement='static'>8</vcpu>";
    assert_eq!(cpus(eight, "sockets='2' cores='2' threads='2'"), (Cpus::new(8, 2, 2), 0));
    assert_eq!(cpus(eight, "sockets='1' dies='2' cores='2' threads='2'"), (Cpus::new(8, 4, 2), 1));
    assert_eq!(
        cpus("<vcpu current='2'>8</vcpu>", "sockets='8' cores='1' threads='1'"),
        (Cpus::new(2, 1, 1), 1)
    );
    assert_eq!(
        cpus("<vcpu current='3'>8</vcpu>", "sockets='2' cores='2' threads='2'"),
        (Cpus::new(3, 1, 1), 2)
    );
    assert!(read(&format!("{PC}<vcpu>4097</vcpu>"), "").is_err());
    assert_eq!(machine(PC, "").cpus, Cpus::new(1, 1, 1));
}

#[test]
fn firmware_is_told_in_several_ways() {
    let (bios, uefi) = (Firmware::Bios, Firmware::Uefi);
    let both = |state: &str| {
        format!(
            "<firmware><feature enabled='yes' name='secure-boot'/><feature enabled='{state}' name='enrolled-keys'/></firmware>"
        )
    };
    let pflash = "<loader readonly='yes' secure='yes' type='pflash'>/CODE.fd</loader>";
    for (attribute, os, firmware, secure, findings) in [
        ("", String::new(), bios, false, 0),
        (" firmware='efi'", String::new(), uefi, false, 0),
        (" firmware='bios'", String::new(), bios, false, 0),
        (" firmware='efi'", both("yes"), uefi, true, 0),
        // Firmware that could, without keys: nothing is enforced.
        (" firmware='efi'", both("no"), uefi, false, 0),
        ("", "<loader>/usr/share/ovmf/OVMF.fd</loader>".into(), uefi, false, 0),
        ("", "<loader type='rom'>/usr/share/seabios/bios.bin</loader>".into(), bios, false, 0),
        ("", pflash.into(), uefi, true, 1),
        ("", format!("{pflash}<nvram template='/OVMF_VARS_4M.ms.fd'>/a_VARS.fd</nvram>"), uefi, true, 0),
        ("", format!("{pflash}<nvram template='/OVMF_VARS_4M.fd'>/a_VARS.fd</nvram>"), uefi, false, 0),
    ] {
        let head = format!("<os{attribute}><type>hvm</type>{os}</os>");
        let parsed = read(&head, "").unwrap();
        assert_eq!((parsed.machine.firmware, parsed.machine.secure_boot), (firmware, secure), "{head}");
        assert_eq!(parsed.findings.len(), findings, "{head}");
        let variables = os.contains("a_VARS.fd").then_some("/a_VARS.fd");
        assert_eq!(parsed.machine.nvram.as_deref(), variables, "{head}");
        assert_eq!(parsed.unread, Vec::<String>::new(), "{head}");
    }
    let nvram = "<os firmware='efi'><type>hvm</type><nvram type='network'>\
                 <source protocol='nbd' name='v'><host name='h'/></source></nvram></os>";
    assert_eq!(machine(nvram, "").nvram.as_deref(), Some("nbd://h/v"));
    assert!(read("<os firmware='coreboot'><type>hvm</type></os>", "").is_err());
}

#[test]
fn disks_have_buses_controllers_and_content() {
    let scsi = |index: u32, model: &str| format!("<controller type='scsi' index='{index}' model='{model}'/>");
    let devices = [
        scsi(0, "virtio-scsi"),
        scsi(1, "lsisas1068"),
        disk("dev='vda' bus='virtio'", "<serial>S1</serial><blockio logical_block_size='4096'/>"),
        disk("dev='hda'", ""),
        disk("dev='sda' bus='scsi'", ""),
        disk("dev='sdb' bus='scsi'", "<address type='drive' controller='1'/>"),
        // The eighth place is on the second controller.
        disk("dev='sdh' bus='scsi'", ""),
        disk("dev='sda' bus='sata'", ""),
        disk("dev='sdz' bus='usb'", ""),
    ];
    let machine = machine(PC, &devices.concat());
    let places: Vec<_> = machine
        .disks
        .iter()
        .map(|disk| (disk.slot.as_str(), disk.bus, disk.controller.as_deref().unwrap_or("")))
        .collect();
    assert_eq!(
        places,
        [
            ("vda", Bus::VirtioBlk, ""),
            ("hda", Bus::Ide, ""),
            ("sda", Bus::VirtioScsi, ""),
            ("sdb", Bus::Scsi, "lsisas1068"),
            ("sdh", Bus::Scsi, "lsisas1068"),
            ("sata-sda", Bus::Sata, ""),
            ("sdz", Bus::Scsi, "usb"),
        ]
    );
    assert_eq!(machine.disks[0].serial.as_deref(), Some("S1"));
    assert_eq!(machine.disks[0].sector_size, Some(Bytes(4096)));
    assert_eq!(machine.disks[0].format.as_deref(), Some("raw"), "as libvirt takes it");
}

#[test]
fn content_elsewhere_is_named() {
    let target = "<target dev='vda'/>";
    for (disk, file, backing) in [
        ("<disk type='block'><source dev='/dev/vg/a'/>", "/dev/vg/a", Backing::Device),
        ("<disk type='volume'><source pool='p' volume='v'/>", "p/v", Backing::Volume),
        (
            "<disk type='network'><source protocol='nbd' name='a b' tls='yes' tlsHostname='x'><host name='::1' port='1'/></source>",
            "nbds://[::1]:1/a%20b?tls-hostname=x",
            Backing::Network,
        ),
        (
            "<disk type='network'><source protocol='nbd' name='e'><host transport='unix' socket='/a?b'/></source>",
            "nbd+unix:///e?socket=/a%3Fb",
            Backing::Network,
        ),
        (
            "<disk type='network'><source protocol='rbd' name='p/i'><host name='m1'/><host name='m2' port='6'/>\
             <snapshot name='s'/></source>",
            "rbd://m1,m2:6/p/i@s",
            Backing::Network,
        ),
        (
            "<disk type='nvme'><source namespace='2'><address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source>",
            "nvme 0x0000:0x01:0x00.0x0 namespace 2",
            Backing::Device,
        ),
        (
            "<disk type='file'><source file='/a'><slices><slice type='storage' offset='1' size='2'/></slices></source>",
            "/a (bytes from 1, 2 of them)",
            Backing::Volume,
        ),
    ] {
        let machine = machine(PC, &format!("{disk}{target}</disk>"));
        assert_eq!((machine.disks[0].file.as_str(), machine.disks[0].backing), (file, backing));
    }
    for bad in [
        "<disk type='file'/>",
        "<disk type='file'><source file='/a'/></disk>",
        "<disk type='file'><target dev='vda'/></disk>",
        "<disk type='file'><source file=''/><target dev='vda'/></disk>",
        "<disk type='hologram'><source file='/a'/><target dev='vda'/></disk>",
        "<disk device='tape'><source file='/a'/><target dev='vda'/></disk>",
        "<disk><source file='/a'/><target dev='vda' bus='warp'/></disk>",
        "<disk><source file='/a'/><target dev='vda'/><blockio logical_block_size='513'/></disk>",
        "<disk><source file='/a'/><target dev='vda'/><boot order='99999999999'/></disk>",
        "<disk><source file='/a'/><target dev='sda'/><address type='drive' controller='x'/></disk>",
    ] {
        assert!(read(PC, bad).is_err(), "{bad}");
    }
    let three = disk("dev='vda' bus='virtio'", "").repeat(3);
    assert!(read(PC, &three).is_err());
    let many = disk("dev='vda' bus='virtio'", "").repeat(5000);
    assert!(read(PC, &many).unwrap_err().to_string().contains("5000 drives"));
}

/// A container that the host opens would stay closed if it were read as raw.
#[test]
fn images_that_the_host_encrypts_are_opened() {
    let encrypted = |kind: &str, within: (&str, &str)| {
        format!(
            "<disk type='file'><driver name='qemu' type='{kind}'/><source file='/a'>{}</source>\
             <target dev='vda'/>{}</disk>",
            within.0, within.1
        )
    };
    let luks = "<encryption format='luks'><secret type='passphrase' usage='x'/></encryption>";
    for (disk, format) in [
        (encrypted("raw", (luks, "")), "luks"),
        (encrypted("raw", ("", luks)), "luks"),
        (encrypted("qcow2", (luks, "")), "qcow2"),
        (encrypted("vpc", ("", "")), "vhd"),
    ] {
        let parsed = read(PC, &disk).unwrap();
        assert_eq!(parsed.machine.disks[0].format.as_deref(), Some(format));
        assert_eq!(says(&parsed, "definition-not-held").contains("encrypted"), disk.contains(luks), "{disk}");
        assert!(landfall_image::Format::from_name(format).is_some());
    }
}

#[test]
fn what_is_special_of_a_disk_is_told() {
    let rest = "<shareable/><transient/><readonly/><wwn>5000c50015ea71ac</wwn><mirror job='copy'/><iotune/>";
    let parsed = read(PC, &disk("dev='sda' bus='scsi'", rest)).unwrap();
    assert!(says(&parsed, "disk-shared").contains("sda"));
    assert!(says(&parsed, "disk-independent").contains("sda"));
    for word in ["written", "5000c50015ea71ac", "block job (copy)"] {
        assert!(says(&parsed, "definition-not-held").contains(word), "{word}");
    }
    assert_eq!(parsed.unread, ["devices/disk/iotune"]);
    let lun = "<disk type='block' device='lun'><source dev='/dev/sdq'/><target dev='sda' bus='scsi'/></disk>";
    assert!(says(&read(PC, lun).unwrap(), "disk-raw-device").contains("sda"));
}

#[test]
fn cards_have_networks_and_tags() {
    let mac = "<mac address='52:54:00:AB:cd:01'/>";
    for (kind, source, network) in [
        ("network", "<source network='LAN' portgroup='x'/>", Some("LAN")),
        ("bridge", "<source bridge='br0'/>", Some("br0")),
        ("direct", "<source dev='eth0' mode='bridge'/>", Some("eth0")),
        ("vdpa", "<source dev='/dev/vhost-vdpa-0'/>", Some("/dev/vhost-vdpa-0")),
        ("vhostuser", "<source type='unix' path='/a.sock' mode='client'/>", Some("/a.sock")),
        ("ethernet", "<target dev='tap0'/>", Some("tap0")),
        ("user", "", None),
        ("hostdev", "<source><address type='pci'/></source>", None),
        ("mcast", "<source address='230.0.0.1' port='1'/>", None),
    ] {
        let nic = format!(
            "<interface type='{kind}'>{mac}{source}<model type='e1000'/><link state='down'/><vlan><tag id='42'/></vlan></interface>"
        );
        let machine = machine(PC, &nic);
        let nic = &machine.nics[0];
        assert_eq!((nic.slot.as_str(), nic.network.as_deref()), ("net0", network));
        assert_eq!(nic.mac.as_deref(), Some("52:54:00:ab:cd:01"));
        assert_eq!((nic.vlan, nic.connected, nic.model.as_deref()), (Some(42), false, Some("e1000")));
    }
    for (vlan, told) in [
        ("<vlan><tag id='4095'/></vlan>", true),
        ("<vlan trunk='yes'><tag id='1'/></vlan>", true),
        ("<vlan><tag id='1'/><tag id='2'/></vlan>", true),
        ("", false),
    ] {
        let parsed = read(PC, &format!("<interface type='user'>{mac}{vlan}</interface>")).unwrap();
        assert_eq!((parsed.machine.nics[0].vlan, !parsed.findings.is_empty()), (None, told), "{vlan}");
    }
    assert!(says(&read(PC, "<interface type='user'/>").unwrap(), "nic-without-address").contains("net0"));
    assert!(read(PC, "<interface type='user'><mac address='52:54'/></interface>").is_err());
    assert!(read(PC, "<interface type='string'/>").is_err());
}

#[test]
fn cards_are_named_where_it_is_certain() {
    let address = |bus: u32, slot: u32, rest: &str| {
        format!("<address type='pci' domain='0x0000' bus='{bus:#x}' slot='{slot:#x}' function='0x0' {rest}/>")
    };
    let card =
        |inner: &str| format!("<interface type='user'><mac address='52:54:00:00:00:01'/>{inner}</interface>");
    let bridge = |index: u32, model: &str, inner: &str| {
        format!("<controller type='pci' index='{index}' model='{model}'>{inner}</controller>")
    };
    let port = |index: u32, slot: u32| bridge(index, "pcie-root-port", &address(0, slot, ""));
    // The port with index 1 is behind the others; a bridge behind the first takes a number, too.
    let ports =
        [port(3, 1), port(2, 2), port(1, 3), bridge(4, "pcie-to-pci-bridge", &address(3, 0, ""))].concat();
    for (os, devices, name) in [
        (PC, card(&address(0, 3, "")), Some("ens3")),
        (PC, card(&address(1, 3, "")), None),
        (PC, card(&address(0, 3, "multifunction='on'")), None),
        (PC, card("<address type='usb'/>"), None),
        (PC, card(""), None),
        (PC, card(&format!("<acpi index='7'/>{}", address(0, 3, ""))), Some("eno7")),
        (Q35, card(&address(0, 3, "")), Some("enp0s3")),
        (Q35, card(&address(1, 0, "")), None),
        (Q35, card(&address(1, 0, "")) + &port(1, 2), Some("enp1s0")),
        (Q35, card(&address(3, 0, "")) + &ports, Some("enp1s0")),
        (Q35, card(&address(2, 0, "")) + &ports, Some("enp3s0")),
        (Q35, card(&address(1, 0, "")) + &ports, Some("enp4s0")),
        (Q35, card(&address(4, 1, "")) + &ports, None),
        (Q35, card(&address(1, 0, "")) + &port(1, 2) + &bridge(9, "pcie-expander-bus", ""), None),
        // A circle.
        (Q35, card(&address(1, 0, "")) + &bridge(1, "pcie-root-port", &address(1, 0, "")), None),
    ] {
        assert_eq!(machine(os, &devices).nics[0].predictable_name.as_deref(), name, "{os} {devices}");
    }
}

#[test]
fn the_boot_order_is_of_devices_or_of_kinds() {
    let nic = |boot: &str| format!("<interface type='user'>{boot}</interface>");
    let cd = "<disk device='cdrom'><target dev='hdc' bus='ide'/><boot order='2'/></disk>";
    let devices = [
        disk("dev='vda'", "<boot order='4'/>"),
        disk("dev='vdb'", "<boot order='3'/>"),
        cd.to_owned(),
        nic(""),
        nic("<boot order='1'/>"),
    ];
    let parsed = read(PC, &devices.concat()).unwrap();
    assert_eq!(parsed.machine.boot_disk, Some(1));
    assert_eq!(parsed.machine.boot_order, [BootDevice::Nic(1), BootDevice::Cdrom, BootDevice::Disk]);
    assert_eq!(parsed.unread, ["devices/disk/boot"]);
    let os = "<os><type>hvm</type><boot dev='network'/><boot dev='hd'/><boot dev='fd'/></os>";
    let machine = machine(os, &(disk("dev='vda'", "") + &nic("")));
    assert_eq!(machine.boot_order, [BootDevice::Nic(0), BootDevice::Disk, BootDevice::Floppy]);
}

#[test]
fn identity_clock_and_tpm() {
    let head = "<title>T</title><description>D\nE</description><uuid>c7a5fdbdedaf9455926ad65c16db1809</uuid>\
        <metadata><libosinfo:libosinfo xmlns:libosinfo='x'><libosinfo:os id='http://debian.org/debian/12'/></libosinfo:libosinfo>\
        <landfall:tags xmlns:landfall='y'><landfall:tag>web</landfall:tag></landfall:tags><nova:instance xmlns:nova='z'/></metadata>\
        <os><type>hvm</type><smbios mode='sysinfo'/></os><clock offset='variable' basis='localtime' adjustment='7'/>\
        <sysinfo type='smbios'><system><entry name='serial'>S</entry><entry name='manufacturer'>M</entry>\
        <entry name='product'>P</entry><entry name='version'>V</entry><entry name='sku'>K</entry>\
        <entry name='family'>F</entry></system><chassis><entry name='asset'>A</entry></chassis></sysinfo>";
    let parsed = read(head, "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>").unwrap();
    let machine = &parsed.machine;
    assert_eq!(machine.annotation.as_deref(), Some("T\n\nD\nE"));
    assert_eq!(
        (machine.os_label.as_deref(), machine.tags.join(",").as_str()),
        (Some("http://debian.org/debian/12"), "web")
    );
    let text = format!("{:?}", machine.smbios);
    for part in ["c7a5fdbd-edaf-9455-926a-d65c16db1809", "\"S\"", "\"M\"", "\"P\"", "\"V\"", "\"K\"", "\"F\""]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(machine.tpm && machine.clock == Clock::LocalTime);
    assert!(says(&parsed, "definition-not-held").contains("7 seconds"));
    assert_eq!(parsed.unread, ["metadata/nova:instance", "sysinfo/chassis"]);
    // Without the mode the guest does not see it.
    let hidden = head.replace("<smbios mode='sysinfo'/>", "");
    assert_eq!(read(&hidden, "").unwrap().machine.smbios.serial, None);
    assert!(read(&format!("{PC}<uuid>nonsense</uuid>"), "").is_err());
}

#[test]
fn other_devices_are_told_once_each_kind() {
    let devices = "<sound model='ich9'/><sound model='ac97'/><serial type='pty'/><serial type='tcp'/><video/><input/>\
        <disk device='cdrom'><target dev='hdc'/></disk><disk type='dir'><source dir='/a'/><target dev='vda'/></disk>\
        <hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>";
    let parsed = read(&format!("{PC}<cputune/><on_crash>coredump-restart</on_crash>"), devices).unwrap();
    assert_eq!(says(&parsed, "definition-device-left-out").lines().count(), 4, "{:?}", parsed.findings);
    assert!(says(&parsed, "device-passthrough").contains("0x1234:0xbeef"));
    assert_eq!(parsed.unread, ["cputune", "devices/input", "devices/serial", "devices/video", "on_crash"]);
    assert_eq!(parsed.machine.disks, []);
}

#[test]
fn what_is_no_machine_for_x86_is_refused() {
    let other = |from: &str, to: &str| domain(PC, "").replace(from, to);
    for (text, kind) in [
        (other("'kvm'", "'lxc'"), Kind::Unsupported),
        (other("'kvm'", "'bhyve'"), Kind::Unsupported),
        (other(" type='kvm'", ""), Kind::Corrupt),
        (other("x86_64", "aarch64"), Kind::Unsupported),
        (other("hvm", "xen"), Kind::Unsupported),
        (other(PC, ""), Kind::Corrupt),
        (other("</devices>", ""), Kind::Corrupt),
        ("<network/>".to_owned(), Kind::Corrupt),
        (format!("<!DOCTYPE a [<!ENTITY b 'bb'>]>{}", domain(PC, "&b;")), Kind::Refused),
        (format!("{}{}", "<domain>".repeat(5000), domain(PC, "")), Kind::Refused),
    ] {
        let error = parse(text.as_bytes(), &Choice::default()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    let many: String = (0..5000).map(|n| format!("<x{n}/>")).collect();
    assert!(read(&format!("{PC}{many}"), "").unwrap().unread.len() <= NAMES_AT_MOST);
}

#[test]
fn snapshots_hold_a_definition() {
    let inner = domain(PC, "");
    let text = format!("<domainsnapshot><name>s1</name>{inner}</domainsnapshot>");
    let choose = |name: &str| Choice { snapshot: Some(name.into()), ..Choice::default() };
    for choice in [Choice::default(), choose("s1")] {
        let parsed = parse(text.as_bytes(), &choice).unwrap();
        assert!(says(&parsed, "definition-snapshots").contains("s1"));
    }
    for (text, choice) in [(&text, choose("s2")), (&inner, choose("s1"))] {
        assert_eq!(parse(text.as_bytes(), &choice).unwrap_err().kind(), Kind::Refused);
    }
    let bare = "<domainsnapshot><name>s1</name><domain><uuid/></domain></domainsnapshot>";
    assert_eq!(parse(bare.as_bytes(), &Choice::default()).unwrap_err().kind(), Kind::Unsupported);
    let status = format!("<domstatus>{}</domstatus>", inner.replace("type='kvm'", "type='kvm' id='3'"));
    assert!(
        says(&parse(status.as_bytes(), &Choice::default()).unwrap(), "machine-running").contains("running")
    );
    let system = Choice { system: Some("b".into()), ..Choice::default() };
    assert_eq!(parse(inner.as_bytes(), &system).unwrap_err().kind(), Kind::Refused);
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
        let text =
            domain(PC, &format!("{controllers}{disk}")).replace("type='kvm'", &format!("type='{kind}'"));
        let machine = parse(text.as_bytes(), &Choice::default()).unwrap().machine;
        assert_eq!(machine.disks[0].controller.as_deref(), expected, "{kind} {target}");
    }
}

#[test]
fn disks_of_a_bus_are_in_the_order_of_their_targets() {
    let disk = |target: &str, order: &str| {
        format!("<disk type='file'><source file='/v/{target}'/><target dev='{target}'/>{order}</disk>")
    };
    let first = "<boot order='1'/>";
    for (targets, expected) in [
        (&["vdb", "vda"][..], &["vda", "vdb"][..]),
        // A bus stays where its first disk stands.
        (&["vdb", "sda", "vda"], &["vda", "vdb", "sda"]),
        (&["hdc", "vdb", "hda", "vda"], &["hda", "hdc", "vda", "vdb"]),
        (&["vdaa", "vdz", "vda"], &["vda", "vdz", "vdaa"]),
        (&["xvdb1", "xvda2"], &["xvda2", "xvdb1"]),
    ] {
        let inner: String = targets.iter().map(|target| disk(target, "")).collect();
        let found = machine(PC, &inner);
        let slots: Vec<_> = found.disks.iter().map(|disk| disk.slot.as_str()).collect();
        assert_eq!((slots.as_slice(), found.boot_disk), (expected, None), "{targets:?}");
    }
    let found = machine(PC, &[disk("vdb", first), disk("vda", "")].concat());
    assert_eq!((found.disks[0].slot.as_str(), found.boot_disk), ("vda", Some(1)));
    let found = machine(PC, &[disk("vdb", ""), disk("vda", first)].concat());
    assert_eq!((found.disks[0].slot.as_str(), found.boot_disk), ("vda", None));
}
