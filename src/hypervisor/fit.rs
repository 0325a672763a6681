//! What a machine has to keep to at targets with rules of their own: names, sectors, numbers of devices. Shared by the
//! renderers whose targets do not take everything.
//!
//! Deliberately absent: which devices a guest can drive (attach.rs).

use super::{PlacedDisk, Placement};
use crate::finding;
use crate::machine::{BootDevice, Cpus, DiskSlot, Machine};
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

/// Nothing, or the finding that the machine has more disks than `title` takes.
pub fn too_many(machine: &Machine, at_most: usize, title: &str) -> Option<Finding> {
    let count = machine.disks.len();
    (count > at_most).then(|| {
        finding::DISKS_TOO_MANY.finding(
            format!("The machine has {count} disks; on this controller {title} attaches {at_most}."),
            "Put disks together in the guest, or leave some out with --skip-disk.",
        )
    })
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
    fn threads_become_cores() {
        let (sockets, cores, finding) = without_threads(Cpus::new(8, 2, 2), "X");
        assert_eq!((sockets, cores, finding.is_some()), (2, 4, true));
        assert!(without_threads(Cpus::new(8, 2, 1), "X").2.is_none());
    }
}
