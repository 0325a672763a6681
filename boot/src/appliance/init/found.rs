//! The disks of the machine, and which of them is the appliance's own.

use super::super::layout::{self, Slot};
use super::drivers::Drivers;
use super::{Order, disc};
use landfall_image::partition::{self, TypeId};
use landfall_image::{Bytes, Gate, Source};
use rustix::mount::{MountFlags, mount};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the first second found, for the system that starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The slot that was started; `None` for a disc's.
    pub slot: Option<Slot>,
    /// True where it is being tried.
    pub trial: bool,
    /// True where the loader could not read the slot that it should have started.
    pub fallback: bool,
    /// The root's device; for a disc's the device that the disc is in.
    pub root: PathBuf,
    /// The disk that it is on: a drive, or a disk that a disc was copied to, for a disc's.
    pub system: PathBuf,
    /// The partition of the loaders, where there is one.
    pub esp: Option<PathBuf>,
    /// The partition of the state on that disk. A disc has none: its state is on a data disk, which may come later.
    pub state: Option<PathBuf>,
    /// The root's partition of the other slot, where there is one.
    pub other: Option<PathBuf>,
    /// The kernel's partition of the other slot, where there is one.
    pub other_boot: Option<PathBuf>,
    /// Other disks with a root of the appliance's, which were not taken.
    pub doubles: Vec<PathBuf>,
    /// What did not work and can be lived with.
    pub trouble: Vec<String>,
}

/// A disk with what it holds of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// `/dev/vda`
    pub device: PathBuf,
    /// Its size.
    pub size: Bytes,
    /// Partitions by their type, each with its device, in the table's order.
    pub partitions: Vec<(uuid::Uuid, String, PathBuf)>,
    /// Why its table could not be read.
    pub trouble: Option<String>,
}

/// All disks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// In the order of their names.
    pub disks: Vec<Disk>,
    /// Drives for discs.
    pub drives: Vec<PathBuf>,
    /// Where a disc of the appliance's is, in a drive or copied to a disk, with its name; looked for where one is wanted.
    pub discs: Vec<(PathBuf, String)>,
}

/// Looks at every disk.
pub(super) fn look(order: &Order) -> Seen {
    let mut seen = Seen::default();
    let Ok(entries) = fs::read_dir("/sys/block") else { return seen };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    for name in names {
        if ["loop", "ram", "zram", "fd", "dm-", "md"].iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let device = Path::new("/dev").join(&name);
        let sectors = fs::read_to_string(format!("/sys/block/{name}/size"));
        let sectors: u64 = sectors.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if sectors == 0 || !device.exists() {
            continue;
        }
        if order.slot.is_none()
            && let Some(volume) = disc::volume(&device)
        {
            seen.discs.push((device.clone(), volume));
        }
        if name.starts_with("sr") {
            seen.drives.push(device);
            continue;
        }
        seen.disks.push(disk(&name, device, Bytes(sectors.saturating_mul(512))));
    }
    seen
}

fn disk(name: &str, device: PathBuf, size: Bytes) -> Disk {
    let read = || -> crate::Result<Vec<(uuid::Uuid, String, PathBuf)>> {
        let layer = landfall_image::raw::open(Source::open(&device)?, &Gate::own_folder())?;
        let Some(table) = partition::read(layer.disk.as_ref())? else { return Ok(Vec::new()) };
        Ok(table
            .entries
            .iter()
            .filter_map(|entry| match entry.kind {
                TypeId::Gpt(kind) => Some((kind, entry.name.clone(), partition_device(name, entry.number))),
                TypeId::Mbr(_) => None,
            })
            .collect())
    };
    match read() {
        Ok(partitions) => Disk { device, size, partitions, trouble: None },
        Err(error) => Disk { device, size, partitions: Vec::new(), trouble: Some(error.to_string()) },
    }
}

/// `/dev/sda1`, but `/dev/nvme0n1p1`: the kernel puts a `p` behind a name that ends with a digit.
pub fn partition_device(disk: &str, number: u32) -> PathBuf {
    let between = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    Path::new("/dev").join(format!("{disk}{between}{number}"))
}

impl Disk {
    fn of_type(&self, kind: uuid::Uuid) -> Option<PathBuf> {
        self.partitions.iter().find(|(k, _, _)| *k == kind).map(|(_, _, device)| device.clone())
    }

    fn named(&self, wanted: uuid::Uuid, name: &str) -> Option<PathBuf> {
        let is_it = |(kind, own, _): &&(uuid::Uuid, String, PathBuf)| *kind == wanted && own == name;
        self.partitions.iter().find(is_it).map(|(_, _, device)| device.clone())
    }

    fn root(&self, slot: Slot) -> Option<PathBuf> {
        self.named(layout::ROOT, slot.root_name())
    }
}

impl Seen {
    /// The system that the loader asks for, where it is there.
    pub(super) fn root(&self, order: &Order) -> Option<Boot> {
        let nothing = Boot {
            slot: order.slot,
            trial: order.trial,
            fallback: order.fallback,
            root: PathBuf::new(),
            system: PathBuf::new(),
            esp: None,
            state: None,
            other: None,
            other_boot: None,
            doubles: Vec::new(),
            trouble: Vec::new(),
        };
        let Some(slot) = order.slot else {
            let is_wanted = |name: &str| order.disc.as_ref().is_none_or(|wanted| wanted == name);
            let mut discs = self.discs.iter().filter(|(_, name)| is_wanted(name)).map(|(device, _)| device);
            let device = discs.next()?;
            let doubles = discs.cloned().collect();
            return Some(Boot { root: device.clone(), system: device.clone(), doubles, ..nothing });
        };
        let mut with_root =
            self.disks.iter().filter(|disk| disk.root(slot).is_some_and(|root| root.exists()));
        let disk = with_root.next()?;
        Some(Boot {
            root: disk.root(slot)?,
            system: disk.device.clone(),
            esp: disk.of_type(layout::ESP),
            state: disk.of_type(layout::STATE),
            other: disk.root(slot.other()),
            other_boot: disk.named(layout::BOOT, slot.other().boot_name()),
            doubles: with_root.map(|disk| disk.device.clone()).collect(),
            ..nothing
        })
    }

    /// What a person is told who waits.
    pub(super) fn explain(&self, order: &Order, drivers: &Drivers) -> Vec<String> {
        let what = match (order.slot, &order.disc) {
            (Some(slot), _) => format!("the partition {}", slot.root_name()),
            (None, Some(name)) => format!("the disc {name}"),
            (None, None) => "a disc of landfall".into(),
        };
        let mut lines =
            vec![format!("landfall: {what} is not there yet; still looking. Disks that are there:")];
        for drive in &self.drives {
            let holds = match self.discs.iter().find(|(device, _)| device == drive) {
                Some((_, name)) => format!("the disc {name}"),
                None => "no disc of landfall that can be read".into(),
            };
            lines.push(format!("landfall:   {} a drive with {holds}", drive.display()));
        }
        for disk in &self.disks {
            let trouble = disk.trouble.as_ref().map(|trouble| format!(": {trouble}")).unwrap_or_default();
            lines.push(format!("landfall:   {} {}{trouble}", disk.device.display(), disk.size));
        }
        if self.disks.is_empty() && self.drives.is_empty() {
            lines.push("landfall:   none".into());
        }
        for controller in drivers.unanswered() {
            lines.push(format!("landfall:   a controller without a driver here: {controller}"));
        }
        lines.push(match order.slot {
            Some(_) => "landfall: attach the disk to a SATA, NVMe, virtio, PVSCSI or LSI controller".into(),
            None => "landfall: put the disc into a drive on a SATA, IDE, USB or virtio controller".into(),
        });
        lines
    }
}

/// Mounts the root at `at`, for reading.
pub(super) fn mount_root(boot: Boot, at: &str) -> io::Result<Boot> {
    if boot.slot.is_none() {
        return disc::mount_root(boot, at);
    }
    let flags = MountFlags::RDONLY | MountFlags::NODEV;
    mount(&boot.root, at, "squashfs", flags, None)
        .map_err(|e| io::Error::other(format!("cannot mount {}: {e}", boot.root.display())))?;
    Ok(boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(device: &str, partitions: &[(uuid::Uuid, &str)]) -> Disk {
        let partitions =
            partitions.iter().map(|(kind, name)| (*kind, (*name).to_owned(), PathBuf::from("/dev/null")));
        Disk { device: device.into(), size: Bytes::gib(3), partitions: partitions.collect(), trouble: None }
    }

    #[test]
    fn the_system_is_known_by_its_types() {
        let ours = [
            (layout::ESP, "esp"),
            (layout::BOOT, "landfall-boot-a"),
            (layout::ROOT, "landfall-root-a"),
            (layout::ROOT, "landfall-root-b"),
            (layout::STATE, "state"),
        ];
        let other = disk("/dev/sda", &[(layout::ESP, "landfall-root-a"), (layout::VAULT, "landfall-root-a")]);
        let seen =
            Seen { disks: vec![other, disk("/dev/sdb", &ours), disk("/dev/sdc", &ours)], ..Seen::default() };
        let order = Order { slot: Some(Slot::B), disc: None, trial: true, fallback: false };
        let boot = seen.root(&order).unwrap();
        assert_eq!((boot.system.as_path(), boot.doubles.len()), (Path::new("/dev/sdb"), 1));
        assert!(boot.trial && boot.esp.is_some() && boot.state.is_some() && boot.other.is_some());
        assert!(boot.other_boot.is_some(), "A's");
        let of_a = Order { slot: Some(Slot::A), ..order.clone() };
        assert_eq!(seen.root(&of_a).unwrap().other_boot, None, "B has none here");
        assert!(Seen { disks: seen.disks[..1].to_vec(), ..Seen::default() }.root(&order).is_none());
        let lines = Seen::default().explain(&order, &Drivers::default());
        assert!(lines[0].contains("landfall-root-b") && lines[1].contains("none"), "{lines:?}");
    }

    #[test]
    fn the_disc_that_started_is_taken_wherever_it_is() {
        let disc = |device: &str, name: &str| (PathBuf::from(device), format!("LANDFALL_{name}"));
        let seen = Seen {
            drives: vec!["/dev/sr0".into(), "/dev/sr1".into()],
            discs: vec![disc("/dev/sr0", "OLD"), disc("/dev/sdb", "NEW"), disc("/dev/sr2", "NEW")],
            ..Seen::default()
        };
        let order = |name: Option<&str>| Order {
            slot: None,
            disc: name.map(str::to_owned),
            trial: false,
            fallback: false,
        };
        let boot = seen.root(&order(Some("LANDFALL_NEW"))).unwrap();
        assert_eq!((boot.system.as_path(), boot.state), (Path::new("/dev/sdb"), None));
        assert_eq!(boot.doubles, [Path::new("/dev/sr2")]);
        assert_eq!(seen.root(&order(None)).unwrap().root, Path::new("/dev/sr0"));
        let missing = order(Some("LANDFALL_X"));
        assert!(seen.root(&missing).is_none());
        let lines = seen.explain(&missing, &Drivers::default()).join("\n");
        assert!(
            lines.contains("the disc LANDFALL_X") && lines.contains("/dev/sr1 a drive with no disc"),
            "{lines}"
        );
    }

    #[test]
    fn partitions_have_their_devices() {
        assert_eq!(partition_device("sda", 3), Path::new("/dev/sda3"));
        assert_eq!(partition_device("nvme0n1", 3), Path::new("/dev/nvme0n1p3"));
    }
}
