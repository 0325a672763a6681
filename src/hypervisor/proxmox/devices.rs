//! Disks and network cards of a qemu-server configuration.
//!
//! Source: qm.conf(5), and the QEMU command lines that qemu-server makes of its own test files. Deliberately absent: limits of
//! throughput, caching and the like, which tune the source's host; their names become unread settings.

use super::conf::{DISK_KINDS, Properties, is_true, size, split, url_decode};
use crate::finding;
use crate::machine::{Backing, Bus, DiskSlot, NicSlot, parse_mac};
use landfall_boot::check::Finding;
use landfall_image::{Error, Result};
use std::collections::BTreeMap;

/// What is found on the way.
#[derive(Default)]
pub struct Notes {
    pub findings: Vec<Finding>,
    pub unread: Vec<String>,
    /// Kinds of device that are left out, each once.
    pub left_out: Vec<&'static str>,
    /// Slots of drives for CDs.
    pub cdroms: Vec<String>,
}

impl Notes {
    pub fn leave_out(&mut self, kind: &'static str) {
        if !self.left_out.contains(&kind) {
            self.left_out.push(kind);
        }
    }
}

/// Keys of a kind (`scsi0`, `scsi1`) in numerical order. qemu-server has fewer than 256 places of any kind.
pub fn of_kind<'a>(
    keys: &'a BTreeMap<String, String>,
    kind: &'a str,
) -> impl Iterator<Item = (u32, &'a str, &'a str)> {
    let mut found: Vec<_> = keys
        .iter()
        .filter_map(|(key, value)| {
            Some((split(key).filter(|(own, _)| *own == kind)?.1, key.as_str(), value.as_str()))
        })
        .collect();
    found.sort_unstable();
    found.into_iter()
}

/// The disks, in qemu-server's own order of places. `snapshot` is the chosen snapshot: its disks are not the volumes as they
/// are now.
pub fn disks(
    keys: &BTreeMap<String, String>,
    snapshot: Option<&str>,
    notes: &mut Notes,
) -> Result<Vec<DiskSlot>> {
    let mut disks = Vec::new();
    for kind in DISK_KINDS {
        for (_, key, value) in of_kind(keys, kind) {
            disks.extend(disk(kind, key, value, snapshot, keys.get("scsihw").map(String::as_str), notes)?);
        }
    }
    Ok(disks)
}

fn disk(
    kind: &str,
    key: &str,
    value: &str,
    snapshot: Option<&str>,
    scsihw: Option<&str>,
    notes: &mut Notes,
) -> Result<Option<DiskSlot>> {
    let properties = Properties::parse(value);
    let file = properties.get("").or(properties.get("file")).or(properties.get("volume")).unwrap_or_default();
    let media = properties.get("media");
    if media == Some("cdrom") || matches!(file, "none" | "cdrom") {
        let last = file.rsplit([':', '/']).next().unwrap_or_default();
        match last.contains("cloudinit") {
            true => notes.leave_out("a cloud-init drive"),
            false => notes.leave_out("a CD drive"),
        }
        notes.cdroms.push(key.to_owned());
        return Ok(None);
    }
    if file.is_empty() {
        return Err(Error::corrupt(format!("{key} is a disk without a volume: {value:?}")));
    }
    if media.is_none() && file.to_ascii_lowercase().ends_with(".iso") {
        return Err(Error::corrupt(format!(
            "{key} is the CD image {file:?} without media=cdrom: Proxmox VE does not start such a machine"
        ))
        .hint("add media=cdrom to the line, or media=disk where it is a disk"));
    }
    let (bus, controller) = match kind {
        "ide" => (Bus::Ide, None),
        "sata" => (Bus::Sata, None),
        "virtio" => (Bus::VirtioBlk, None),
        // Without the setting it is LSI's.
        _ => match scsihw.unwrap_or("lsi") {
            model if model.starts_with("virtio-scsi") => (Bus::VirtioScsi, Some(model.to_owned())),
            model => (Bus::Scsi, Some(model.to_owned())),
        },
    };
    let backing = match file {
        device if device.starts_with("/dev/") => Backing::Device,
        path if path.starts_with('/') => Backing::File,
        _ => Backing::Volume,
    };
    let mut disk = DiskSlot { controller, backing, ..DiskSlot::new(key, bus, file) };
    if backing == Backing::Device {
        notes.findings.push(finding::DISK_RAW.finding(
            format!("{key} is {file}, a device of the source's host."),
            "Where it is readable here its content is converted; name an image of it with --disk otherwise.",
        ));
    }
    disk.format = match properties.get("format") {
        Some(format) => Some(format.to_owned()),
        None => ending(file, backing),
    };
    for (name, value) in properties.iter() {
        match name {
            "" | "file" | "volume" | "media" | "format" => {}
            "size" => {
                disk.size = Some(size(value).ok_or_else(|| {
                    Error::corrupt(format!(
                        "{key} has the size {value:?}; a number with K, M, G or T is possible"
                    ))
                })?);
            }
            "serial" => disk.serial = Some(url_decode(value)),
            "snapshot" if is_true(value) => notes.findings.push(finding::DISK_INDEPENDENT.finding(
                format!(
                    "{key} forgets its changes at power-off at the source; it will keep them at the target."
                ),
                "",
            )),
            "backup" if !is_true(value) => notes.findings.push(finding::DISK_INDEPENDENT.finding(
                format!("{key} is left out of backups at the source (backup=0)."),
                "Exclude it from backups at the target, too.",
            )),
            "wwn" => notes.findings.push(finding::NOT_HELD.finding(
                format!("{key} has the world-wide name {value}, which is not carried over."),
                "Where the guest goes by /dev/disk/by-id/wwn-*, let it go by UUIDs before the move.",
            )),
            "snapshot" | "backup" => {}
            other => notes.unread.push(format!("drive.{other}")),
        }
    }
    if let Some(snapshot) = snapshot {
        // The volume's present content is not that of the snapshot: it must not be taken for it because it lies here.
        disk.file = format!("{file}@{snapshot}");
        disk.backing = Backing::Volume;
        disk.format = None;
    }
    Ok(Some(disk))
}

/// The format by the name of a volume, as qemu-server goes by it. What has no ending is a block device at the source, of which
/// an image in any format may have been made since.
fn ending(file: &str, backing: Backing) -> Option<String> {
    let last = file.rsplit(['/', ':']).next().unwrap_or_default();
    match last.rsplit_once('.').map(|(_, ending)| ending) {
        Some(ending @ ("raw" | "qcow2" | "vmdk" | "qcow" | "qed")) => Some(ending.to_owned()),
        _ if backing == Backing::File => Some("raw".to_owned()),
        _ => None,
    }
}

const NIC_MODELS: [&str; 15] = [
    "e1000",
    "e1000-82540em",
    "e1000-82544gc",
    "e1000-82545em",
    "e1000e",
    "i82551",
    "i82557b",
    "i82559er",
    "ne2k_isa",
    "ne2k_pci",
    "pcnet",
    "rtl8139",
    "virtio",
    "vmxnet3",
    "",
];

/// The network cards.
pub fn nics(keys: &BTreeMap<String, String>, notes: &mut Notes) -> Result<Vec<NicSlot>> {
    let names = Names::of(keys);
    let mut nics = Vec::new();
    for (number, key, value) in of_kind(keys, "net") {
        let mut nic = NicSlot::new(key);
        let mut mac = None;
        for (name, value) in Properties::parse(value).iter() {
            match name {
                "" | "model" => nic.model = Some(value.to_owned()),
                "macaddr" => mac = Some(value),
                "bridge" => nic.network = Some(value.to_owned()),
                "tag" => {
                    let tag = value.parse().ok().filter(|tag| (1..=4094).contains(tag));
                    nic.vlan = Some(tag.ok_or_else(|| {
                        Error::corrupt(format!("{key} has the VLAN tag {value:?}; 1 to 4094 are possible"))
                    })?);
                }
                "link_down" => nic.connected = !is_true(value),
                "trunks" => notes.findings.push(finding::NOT_HELD.finding(
                    format!("{key} is a trunk of the VLANs {value}, which is not carried over."),
                    "Let the target's port pass these VLANs on.",
                )),
                model if NIC_MODELS.contains(&model) => {
                    nic.model = Some(model.to_owned());
                    mac = Some(value);
                }
                other => notes.unread.push(format!("net.{other}")),
            }
        }
        nic.mac = match mac {
            None => {
                notes.findings.push(finding::MAC_MISSING.finding(
                    format!("{key} has no hardware address: qemu-server makes one at every start, the target chooses one."),
                    "",
                ));
                None
            }
            Some(text) => Some(
                parse_mac(text)
                    .ok_or_else(|| Error::corrupt(format!("{key} has the hardware address {text:?}")))?,
            ),
        };
        nic.predictable_name = names.name(number);
        nics.push(nic);
    }
    Ok(nics)
}

/// How Linux names the cards. net0 to net5 sit in the slots 18 to 23 of the first conventional PCI bus.
enum Names {
    /// i440fx: that bus is the root, and ACPI numbers its slots.
    Slots,
    /// q35: that bus lies behind five bridges, so it is number 6, and its slots have no numbers in ACPI.
    Bus,
    /// Which of both it is hangs on the version of QEMU, or other devices move the numbers.
    Unknown,
}

impl Names {
    fn of(keys: &BTreeMap<String, String>) -> Names {
        let machine = keys.get("machine").map_or("", String::as_str);
        let machine = Properties::parse(machine);
        let machine = machine.get("").or(machine.get("type")).unwrap_or("pc");
        if let Some(version) = machine.strip_prefix("pc-q35-").or(machine.strip_prefix("q35").map(|_| "")) {
            if of_kind(keys, "hostpci").next().is_some() {
                return Names::Unknown;
            }
            // From 6.1 on QEMU numbers the slots behind the bridges; qemu-server turns that off for a Linux guest that is
            // not pinned to a version and was not made with such a QEMU.
            let of_qemu = |text: &str| {
                let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
                Some((parts.next()?.ok()?, parts.next()?.ok()?))
            };
            let made = keys.get("meta").and_then(|meta| Properties::parse(meta).get("creation-qemu"));
            let is_linux = keys.get("ostype").is_some_and(|os| os == "l26" || os == "l24");
            return match (version, of_qemu(version), made.map(of_qemu)) {
                ("", ..) if !is_linux => Names::Unknown,
                ("", _, None) => Names::Bus,
                ("", _, Some(Some(made))) if made < (6, 1) => Names::Bus,
                (_, Some(pinned), _) if ((4, 0)..(6, 1)).contains(&pinned) => Names::Bus,
                _ => Names::Unknown,
            };
        }
        if machine == "pc" || machine.starts_with("pc-i440fx-") { Names::Slots } else { Names::Unknown }
    }

    fn name(&self, number: u32) -> Option<String> {
        match self {
            Names::Slots if number < 6 => Some(format!("ens{}", 18 + number)),
            Names::Bus if number < 6 => Some(format!("enp6s{}", 18 + number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::Bytes;

    fn keys(text: &str) -> BTreeMap<String, String> {
        super::super::conf::Conf::parse(text.as_bytes()).unwrap().main.keys
    }

    fn read(text: &str) -> (Vec<DiskSlot>, Notes) {
        let mut notes = Notes::default();
        (disks(&keys(text), None, &mut notes).unwrap(), notes)
    }

    #[test]
    fn places_and_backings() {
        let (disks, notes) = read(
            "scsihw: virtio-scsi-single\nscsi10: local:100/vm-100-disk-1.qcow2,size=1G\nscsi2: local-lvm:vm-100-disk-0,iothread=1\n\
             sata0: /mnt/a.img,serial=a%20b\nvirtio0: /dev/sdb,wwn=0x5000,backup=0,snapshot=1\nide0: none\n\
             ide2: local:iso/a.iso,media=cdrom\nide3: local-lvm:vm-100-cloudinit,media=cdrom\nide1: file=local:7/a.raw\n",
        );
        let seen: Vec<_> =
            disks.iter().map(|d| (d.slot.as_str(), d.bus, d.backing, d.format.as_deref())).collect();
        assert_eq!(
            seen,
            [
                ("ide1", Bus::Ide, Backing::Volume, Some("raw")),
                ("scsi2", Bus::VirtioScsi, Backing::Volume, None),
                ("scsi10", Bus::VirtioScsi, Backing::Volume, Some("qcow2")),
                ("virtio0", Bus::VirtioBlk, Backing::Device, None),
                ("sata0", Bus::Sata, Backing::File, Some("raw")),
            ]
        );
        assert_eq!((disks[2].size, disks[4].serial.as_deref()), (Some(Bytes::gib(1)), Some("a b")));
        assert_eq!(notes.left_out, ["a CD drive", "a cloud-init drive"]);
        assert_eq!(notes.unread, ["drive.iothread"]);
        let ids: Vec<_> = notes.findings.iter().map(|finding| finding.id).collect();
        let independent = "disk-independent";
        assert_eq!(ids, ["disk-raw-device", "definition-not-held", independent, independent]);
    }

    #[test]
    fn a_snapshots_disk_is_not_the_volume_as_it_is_now() {
        let mut notes = Notes::default();
        let disks = disks(&keys("scsi0: local:100/vm-100-disk-0.qcow2"), Some("before"), &mut notes).unwrap();
        assert_eq!(disks[0].file, "local:100/vm-100-disk-0.qcow2@before");
        assert_eq!((disks[0].backing, disks[0].format.as_deref()), (Backing::Volume, None));
    }

    #[test]
    fn cards() {
        let text = "net0: virtio=A2:C0:43:77:08:A0,bridge=vmbr0,tag=5,firewall=1\n\
                    net1: model=e1000,macaddr=a2:c0:43:77:08:a1,link_down=1\nnet10: vmxnet3,trunks=1;2-4\n";
        let mut notes = Notes::default();
        let nics = nics(&keys(text), &mut notes).unwrap();
        assert_eq!(nics[0].mac.as_deref(), Some("a2:c0:43:77:08:a0"));
        assert_eq!(
            (nics[0].network.as_deref(), nics[0].vlan, nics[0].connected),
            (Some("vmbr0"), Some(5), true)
        );
        assert_eq!((nics[1].model.as_deref(), nics[1].connected, nics[1].vlan), (Some("e1000"), false, None));
        assert_eq!(nics[1].predictable_name.as_deref(), Some("ens19"));
        assert_eq!((nics[2].model.as_deref(), nics[2].predictable_name.as_deref()), (Some("vmxnet3"), None));
        assert_eq!(notes.unread, ["net.firewall"]);
        assert_eq!(notes.findings.len(), 2, "a trunk and a missing address");
        for bad in ["net0: virtio=x", "net0: virtio,tag=0", "net0: virtio,tag=4095"] {
            assert!(super::nics(&keys(bad), &mut Notes::default()).is_err(), "{bad}");
        }
        for bad in ["scsi0: local:iso/a.iso", "scsi0: size=1G", "scsi0: a:b,size=1X"] {
            assert!(super::disks(&keys(bad), None, &mut Notes::default()).is_err(), "{bad}");
        }
    }

    #[test]
    fn cards_are_named_where_it_is_certain() {
        for (text, expected) in [
            ("", Some("ens18")),
            ("machine: pc-i440fx-8.1\n", Some("ens18")),
            ("machine: pc,viommu=virtio\n", Some("ens18")),
            ("machine: q35\nostype: l26\n", Some("enp6s18")),
            ("machine: type=q35\nostype: l26\nmeta: creation-qemu=6.0.0,ctime=1\n", Some("enp6s18")),
            ("machine: q35\nostype: l26\nmeta: creation-qemu=8.1.2,ctime=1\n", None),
            ("machine: q35\nostype: win11\n", None),
            ("machine: q35\nostype: l26\nhostpci0: 0f:00.0\n", None),
            ("machine: pc-q35-5.2+pve0\n", Some("enp6s18")),
            ("machine: pc-q35-6.1\nostype: l26\n", None),
            ("machine: pc-q35-3.1\nostype: l26\n", None),
            ("machine: virt\n", None),
        ] {
            let text = format!("{text}net0: virtio=A2:C0:43:77:08:A0\n");
            let nics = nics(&keys(&text), &mut Notes::default()).unwrap();
            assert_eq!(nics[0].predictable_name.as_deref(), expected, "{text}");
        }
    }
}
