//! What a machine has to keep to at targets with rules of their own: names, sectors, networks; and the names that the
//! products around KVM share. Shared by the renderers whose targets do not take everything.
//!
//! Deliberately absent: which devices a guest can drive (attach.rs).

use super::{Networks, PlacedDisk, Placement};
use crate::finding;
use crate::machine::{BootDevice, Bus, Cpus, DiskSlot, Machine, NicSlot};
use landfall_boot::check::Finding;
use landfall_image::{Bytes, Error, Result};

/// The machine's disks with their places, in order.
///
/// # Errors
/// Corrupt where the numbers differ, which is a fault of the caller; unsupported where a disk has other sectors than those of
/// 512 bytes, which `title` has no setting for: its partition table would not be found.
pub fn disks<'a>(
    machine: &'a Machine,
    placement: &'a Placement,
    title: &str,
) -> Result<Vec<(&'a DiskSlot, &'a PlacedDisk)>> {
    let (here, placed) = (machine.disks.len(), placement.disks.len());
    if here != placed {
        return Err(Error::corrupt(format!("{placed} disks are placed, the machine has {here}")));
    }
    if let Some((disk, size)) = machine.disks.iter().find_map(|disk| Some((disk, disk.sector_size?))) {
        return Err(Error::unsupported(format!(
            "{} has sectors of {} bytes, and {title} has no setting for them",
            disk.file, size.0
        ))
        .hint(
            "move the system to a disk with sectors of 512 bytes in the source machine, or convert it to kvm",
        ));
    }
    Ok(machine.disks.iter().zip(&placement.disks).collect())
}

/// Refuses more network cards than the target gives a machine.
///
/// # Errors
/// Unsupported, with the way out.
pub fn cards_at_most(machine: &Machine, at_most: usize, title: &str) -> Result<()> {
    match machine.nics.len() {
        cards if cards > at_most => Err(Error::unsupported(format!(
            "has {cards} network cards; {title} takes {at_most}"
        ))
        .hint(
            "take cards out of a copy of the definition, or let one card carry several networks as VLANs, and convert again",
        )),
        _ => Ok(()),
    }
}

/// What QEMU, and every product around it, calls the bus that a disk hangs on: `virtio`, `scsi`, `sata`, `ide`.
///
/// # Errors
/// Corrupt for a controller that KVM does not have: the machine was not adapted to it.
pub fn kvm_bus(disk: &DiskSlot) -> Result<&'static str> {
    match disk.bus {
        Bus::VirtioBlk => Ok("virtio"),
        Bus::VirtioScsi => Ok("scsi"),
        Bus::Sata => Ok("sata"),
        Bus::Ide => Ok("ide"),
        Bus::Scsi | Bus::Nvme | Bus::Vmbus | Bus::Xen => {
            Err(Error::corrupt(format!("{} is on a controller that KVM does not have", disk.slot)))
        }
    }
}

/// What they call a network card: `virtio`, `e1000e`, `e1000`, `rtl8139`.
///
/// # Errors
/// Corrupt for a card that KVM does not have: the machine was not adapted to it.
pub fn kvm_card(nic: &NicSlot) -> Result<&'static str> {
    match nic.model.as_deref() {
        None | Some("virtio-net") => Ok("virtio"),
        Some("e1000e") => Ok("e1000e"),
        Some("e1000") => Ok("e1000"),
        Some("rtl8139") => Ok("rtl8139"),
        Some(other) => {
            Err(Error::corrupt(format!("{} is {other:?}, a card that KVM does not have", nic.slot)))
        }
    }
}

/// For a target with a network that is always there: the finding that a card is plugged into it because nobody named
/// one for the network that it was in.
pub fn usual_network(nic: &NicSlot, networks: &Networks, usual: &str) -> Option<Finding> {
    let source = nic.network.as_ref().filter(|source| *source != usual && networks.chosen(nic).is_none())?;
    Some(finding::NOT_HELD.finding(
        format!("{} was in the network {source:?}; it is plugged into {usual}.", nic.slot),
        "Name the right network with --map-network or --network.",
    ))
}

/// `name` as labels of DNS: letters, digits and hyphens, `dots` between labels where they are allowed, each of at most 63 and
/// all of at most `at_most` characters; lower case where `lower` is. The finding says where it differs.
pub fn dns_name(
    name: &str,
    at_most: usize,
    dots: bool,
    lower: bool,
    title: &str,
) -> (String, Option<Finding>) {
    let fitting = |letter: char| match letter {
        letter if letter.is_ascii_alphanumeric() => letter,
        '.' if dots => '.',
        _ => '-',
    };
    let text: String = name.chars().map(fitting).take(at_most).collect();
    let labels = text.split('.').map(|label| {
        let label = &label[..label.len().min(63)];
        label.trim_matches('-')
    });
    let mut text = labels.filter(|label| !label.is_empty()).collect::<Vec<_>>().join(".");
    if lower {
        text.make_ascii_lowercase();
    }
    if text.is_empty() {
        text = "machine".to_owned();
    }
    let finding = (text != name).then(|| {
        finding::NAME_CHANGED
            .finding(format!("{title} takes no machine with the name {name:?}: it is {text} there."), "")
    });
    (text, finding)
}

/// Mebibytes, rounded up.
pub fn mebibytes(size: Bytes) -> u64 {
    size.0.div_ceil(1 << 20)
}

/// Gibibytes, rounded up, at least one.
pub fn gibibytes(size: Bytes) -> u64 {
    size.0.div_ceil(1 << 30).max(1)
}

/// Sockets and cores for a target that has no threads, and the finding that they became cores.
pub fn without_threads(cpus: Cpus, title: &str) -> (u32, u32, Option<Finding>) {
    let cores = cpus.cores_per_socket.saturating_mul(cpus.threads_per_core);
    let finding = (cpus.threads_per_core > 1).then(|| {
        finding::NOT_HELD.finding(
            format!(
                "{title} gives a core one thread: {} cores of {} threads become {cores} cores.",
                cpus.cores_per_socket, cpus.threads_per_core
            ),
            "Look at licences that count cores.",
        )
    });
    (cpus.sockets(), cores, finding)
}

/// One finding that names what of the machine `title` has no place for; nothing where there is nothing.
pub fn not_held(what: &[String], title: &str, remedy: &str) -> Option<Finding> {
    let says = format!("{title} has no place for {}.", what.join("; "));
    (!what.is_empty()).then(|| finding::NOT_HELD.finding(says, remedy))
}

/// For a target that starts the boot disk and nothing else: the finding that the definition has an order of its own.
pub fn starts_its_disk(machine: &Machine, title: &str) -> Option<Finding> {
    let is_usual = matches!(machine.boot_order.as_slice(), [] | [BootDevice::Disk, ..]);
    (!is_usual).then(|| {
        finding::NOT_HELD.finding(
            format!(
                "The machine tries other devices before its boot disk; at {title} it starts from the disk."
            ),
            "Start it from the network or an image by hand where that is wanted.",
        )
    })
}

/// What of SMBIOS a target that takes only a UUID loses, by name and value.
pub fn smbios_strings(machine: &Machine, with_serial: bool) -> Vec<String> {
    let smbios = &machine.smbios;
    [
        ("serial number", smbios.serial.as_ref().filter(|_| with_serial)),
        ("manufacturer", smbios.manufacturer.as_ref()),
        ("product", smbios.product.as_ref()),
        ("product version", smbios.version.as_ref()),
        ("SKU", smbios.sku.as_ref()),
        ("family", smbios.family.as_ref()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(format!("the {name} {:?}", value?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_labels() {
        for (name, dots, expected) in [
            ("web01", false, "web01"),
            ("Web 01.example.org", false, "web-01-example-org"),
            ("Web 01.example.org", true, "web-01.example.org"),
            ("-a..b-.", true, "a.b"),
            ("ünïcode", false, "n-code"),
            ("'; reboot #", false, "reboot"),
            ("...", true, "machine"),
            ("", false, "machine"),
        ] {
            let (fitting, finding) = dns_name(name, 63, dots, true, "X");
            assert_eq!((fitting.as_str(), finding.is_some()), (expected, name != expected), "{name}");
        }
        assert_eq!(dns_name(&"a".repeat(300), 63, false, true, "X").0.len(), 63);
        assert_eq!(
            dns_name(&format!("{}.b", "a".repeat(70)), 200, true, true, "X").0,
            format!("{}.b", "a".repeat(63))
        );
    }

    #[test]
    fn sizes_are_rounded_up() {
        assert_eq!((mebibytes(Bytes(1)), mebibytes(Bytes::mib(5))), (1, 5));
        assert_eq!(
            (gibibytes(Bytes(0)), gibibytes(Bytes::gib(2)), gibibytes(Bytes((1 << 30) + 1))),
            (1, 2, 2)
        );
    }

    #[test]
    fn kvms_devices_have_one_name() {
        for (bus, name) in
            [(Bus::VirtioBlk, Some("virtio")), (Bus::VirtioScsi, Some("scsi")), (Bus::Nvme, None)]
        {
            assert_eq!(kvm_bus(&DiskSlot::new("a", bus, "a")).ok(), name);
        }
        for (model, name) in
            [(None, Some("virtio")), (Some("e1000e"), Some("e1000e")), (Some("vmxnet3"), None)]
        {
            let nic = NicSlot { model: model.map(str::to_owned), ..NicSlot::new("a") };
            assert_eq!(kvm_card(&nic).ok(), name);
        }
    }

    #[test]
    fn the_usual_network_is_told_where_it_is_another() {
        let nic =
            |network: Option<&str>| NicSlot { network: network.map(str::to_owned), ..NicSlot::new("a") };
        let mapped = Networks { map: vec![("LAN".into(), "lan".into())], rest: None };
        let told = |network, networks: &Networks| usual_network(&nic(network), networks, "br0").is_some();
        assert!(told(Some("LAN"), &Networks::default()) && told(Some("DMZ"), &mapped));
        assert!(!told(Some("LAN"), &mapped) && !told(Some("br0"), &mapped) && !told(None, &mapped));
    }

    #[test]
    fn no_target_gets_more_cards_than_it_has_places_for() {
        use crate::hypervisor::{attach, target};
        use landfall_boot::target::Devices;
        for (name, at_most) in [("esxi", 10), ("ova", 10), ("proxmox", 32)] {
            let row = target(name).unwrap();
            for (cards, fine) in [(at_most, true), (at_most + 1, false)] {
                let mut machine = Machine::new("web01", Bytes::gib(1));
                machine.nics = (0..cards).map(|n| NicSlot::new(format!("ethernet{n}"))).collect();
                let machine = attach::adapt(&machine, row.platform, &Devices::default()).unwrap();
                let rendered = (row.render)(&machine, &Placement::default());
                assert_eq!(rendered.is_ok(), fine, "{name} {cards}");
                let error = rendered.err();
                assert!(
                    error.is_none_or(|error| error.hint_text().is_some_and(|hint| hint.contains("VLANs")))
                );
            }
        }
    }

    #[test]
    fn threads_become_cores() {
        let (sockets, cores, finding) = without_threads(Cpus::new(8, 2, 2), "X");
        assert_eq!((sockets, cores, finding.is_some()), (2, 4, true));
        assert!(without_threads(Cpus::new(8, 2, 1), "X").2.is_none());
    }
}
