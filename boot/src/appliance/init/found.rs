//! The disks of the machine, and which of them is the appliance's own.

use super::super::layout::{self, Slot};
use super::drivers::Drivers;
use super::word::{self, Said};
use super::{Order, disc};
use landfall_image::partition::{self, TypeId};
use landfall_image::{Bytes, Gate, Source};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
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
    /// The partition of the other slot's root, where there is one.
    pub other_root: Option<PathBuf>,
    /// The partition of the other slot's kernel, where there is one.
    pub other_boot: Option<PathBuf>,
    /// Other disks with a root of the appliance's, which were not taken.
    pub doubles: Vec<PathBuf>,
    /// What did not work and can be lived with.
    pub trouble: Vec<String>,
}

/// A partition's type, its name in the table, and its device.
pub type Partition = (uuid::Uuid, String, PathBuf);

/// A disk with what it holds of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// `/dev/vda`
    pub device: PathBuf,
    /// Its size.
    pub size: Bytes,
    /// The GUID of its table, empty where it has none.
    pub id: String,
    /// In the table's order.
    pub partitions: Vec<Partition>,
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

/// Whose system is on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// That of the loader which has started this.
    Loaders,
    /// It may be the loader's: nothing says that it is another one's.
    Perhaps,
    /// Another machine's, with its own state: nothing of it is run, and nothing written to it.
    Anothers,
}

/// Whose disks are, as far as it was looked for: by name, size and table.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<(PathBuf, Bytes, String), Whose>);

/// Systems that can be started, in the order of the names of their disks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Roots {
    /// On the disk that the loader was read from; several where a disk was copied.
    pub loaders: Vec<Boot>,
    /// On disks that may be it.
    pub perhaps: Vec<Boot>,
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
    let read = || -> crate::Result<(String, Vec<Partition>)> {
        let layer = landfall_image::raw::open(Source::open(&device)?, &Gate::own_folder())?;
        let Some(table) = partition::read(layer.disk.as_ref())? else { return Ok(Default::default()) };
        let partitions = table
            .entries
            .iter()
            .filter_map(|entry| match entry.kind {
                TypeId::Gpt(kind) => Some((kind, entry.name.clone(), partition_device(name, entry.number))),
                TypeId::Mbr(_) => None,
            })
            .collect();
        Ok((table.disk_id, partitions))
    };
    let ((id, partitions), trouble) = match read() {
        Ok(read) => (read, None),
        Err(error) => (Default::default(), Some(error.to_string())),
    };
    Disk { device, size, id, partitions, trouble }
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
        let is_it = |(kind, own, _): &&Partition| *kind == wanted && own == name;
        self.partitions.iter().find(is_it).map(|(_, _, device)| device.clone())
    }

    fn root(&self, slot: Slot) -> Option<PathBuf> {
        self.named(layout::ROOT, slot.root_name())
    }

    /// Whether the loader was read from it.
    fn whose(&self, order: &Order, within: Bytes) -> Whose {
        let is_table = order.disk.as_ref().is_none_or(|wanted| self.id.eq_ignore_ascii_case(wanted));
        let esp = self.of_type(layout::ESP);
        let said = esp.map_or(Said::Nothing, |esp| word::said(&esp, order.deployment, within));
        match (order.deployment, said) {
            (Some(_), Said::Wanted) => Whose::Loaders,
            (Some(_), Said::Another) => Whose::Anothers,
            // Before the end of a first start.
            (None, Said::Wanted) if is_table => Whose::Loaders,
            // Whoever deployed it may have changed the table.
            (None, Said::Wanted | Said::Nothing) => Whose::Perhaps,
            // The word may have been lost, on the disk or to the loader.
            _ if is_table => Whose::Perhaps,
            _ => Whose::Anothers,
        }
    }

    /// As [`Disk::whose`], of all that is there; what was found once is `known`: it takes a while.
    fn whose_by_all(&self, order: &Order, known: &mut Known) -> Whose {
        let key = (self.device.clone(), self.size, self.id.clone());
        *known.0.entry(key).or_insert_with(|| self.whose(order, layout::ESP_SIZE))
    }
}

impl Seen {
    /// The system that the loader asks for, on the disks that have it.
    pub(super) fn roots(&self, order: &Order, known: &mut Known) -> Roots {
        let nothing = Boot {
            slot: order.slot,
            trial: order.trial,
            fallback: order.fallback,
            root: PathBuf::new(),
            system: PathBuf::new(),
            esp: None,
            state: None,
            other_root: None,
            other_boot: None,
            doubles: Vec::new(),
            trouble: Vec::new(),
        };
        let Some(slot) = order.slot else {
            let is_wanted = |name: &str| order.disc.as_ref().is_none_or(|wanted| wanted == name);
            let mut discs = self.discs.iter().filter(|(_, name)| is_wanted(name)).map(|(device, _)| device);
            let Some(device) = discs.next() else { return Roots::default() };
            let doubles = discs.cloned().collect();
            let boot = Boot { root: device.clone(), system: device.clone(), doubles, ..nothing };
            return Roots { loaders: vec![boot], ..Roots::default() };
        };
        let has_system = |disk: &&Disk| disk.root(slot).is_some_and(|root| root.exists());
        let systems: Vec<&Disk> = self.disks.iter().filter(has_system).collect();
        let boot = |disk: &Disk| Boot {
            root: disk.root(slot).unwrap_or_default(),
            system: disk.device.clone(),
            esp: disk.of_type(layout::ESP),
            state: disk.of_type(layout::STATE),
            other_root: disk.root(slot.other()),
            other_boot: disk.named(layout::BOOT, slot.other().boot_name()),
            doubles: systems
                .iter()
                .map(|other| &other.device)
                .filter(|other| **other != disk.device)
                .cloned()
                .collect(),
            ..nothing.clone()
        };
        // Nearly always this finds it, and the other disks are not read further.
        let soon: Vec<Boot> = systems
            .iter()
            .filter(|disk| disk.whose(order, layout::ENVIRONMENT_WITHIN) == Whose::Loaders)
            .map(|disk| boot(disk))
            .collect();
        if !soon.is_empty() {
            return Roots { loaders: soon, ..Roots::default() };
        }
        let mut of = |whose: Whose| -> Vec<Boot> {
            let all = systems.iter().filter(|disk| disk.whose_by_all(order, known) == whose);
            all.map(|disk| boot(disk)).collect()
        };
        let loaders = of(Whose::Loaders);
        let perhaps = of(Whose::Perhaps).into_iter().map(|boot| {
            let says = format!(
                "{} is taken for the disk that this system was started from: its partition table or what is kept for the loader has changed",
                boot.system.display()
            );
            Boot { trouble: vec![says], ..boot }
        });
        Roots { perhaps: perhaps.collect(), loaders }
    }

    /// What a person is told who waits.
    pub(super) fn explain(&self, order: &Order, drivers: &Drivers, known: &mut Known) -> Vec<String> {
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
            let trouble = match &disk.trouble {
                Some(trouble) => format!(": {trouble}"),
                None if disk.of_type(layout::ROOT).is_some()
                    && disk.whose_by_all(order, known) == Whose::Anothers =>
                {
                    ": another landfall's: what is kept there for its loader is not what this loader was told"
                        .to_owned()
                }
                None => String::new(),
            };
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
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    is_for(Path::new(at), &release).map_err(|error| {
        let _ = unmount(at, UnmountFlags::DETACH);
        io::Error::new(error.kind(), format!("{}: {error}", boot.root.display()))
    })?;
    Ok(boot)
}

/// Refuses a root in this folder that is not of the system whose kernel runs: without its drivers there are no network and no state.
fn is_for(root: &Path, release: &str) -> io::Result<()> {
    match fs::metadata(root.join("usr/lib/modules").join(release)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(io::Error::other(format!("there are no drivers for Linux {release}")))
        }
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::layout::Choice;
    use super::*;
    use uuid::Uuid;

    const NAMED: &str = "5c6f752f-5d36-87d3-9d3e-7efc468a29f8";

    /// Its partitions are files of a folder.
    fn disk(folder: &Path, device: &str, id: &str, partitions: &[(uuid::Uuid, &str)]) -> Disk {
        let partition = |(kind, name): &(uuid::Uuid, &str)| {
            let file = folder.join(format!("{device}-{name}"));
            let word = Choice { slot: Slot::A, trial: None, deployment: None }.render();
            fs::write(&file, if *kind == layout::ESP { word } else { Vec::new() }).unwrap();
            (*kind, (*name).to_owned(), file)
        };
        Disk {
            device: Path::new("/dev").join(device),
            size: Bytes::gib(3),
            id: id.into(),
            partitions: partitions.iter().map(partition).collect(),
            trouble: None,
        }
    }

    fn order(slot: Slot, disk: Option<&str>) -> Order {
        Order {
            slot: Some(slot),
            disk: disk.map(str::to_owned),
            deployment: None,
            disc: None,
            trial: true,
            fallback: false,
        }
    }

    fn ours() -> Vec<(uuid::Uuid, &'static str)> {
        layout::PARTITIONS.iter().map(|partition| (partition.kind, partition.name)).collect()
    }

    #[test]
    fn the_system_is_known_by_its_types() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| Some(dir.path().join(name));
        let no_system = disk(
            dir.path(),
            "sda",
            "",
            &[(layout::ESP, "landfall-root-a"), (layout::VAULT, "landfall-root-b")],
        );
        let without_boot: Vec<_> = ours().into_iter().filter(|(kind, _)| *kind != layout::BOOT).collect();
        let disks =
            vec![no_system, disk(dir.path(), "sdb", "", &ours()), disk(dir.path(), "sdc", "", &without_boot)];
        let seen = Seen { disks, ..Seen::default() };
        let [first, second] = &seen.roots(&order(Slot::B, None), &mut Known::default()).loaders[..] else {
            panic!("not two")
        };
        assert_eq!(
            (first.system.as_path(), &first.doubles[..]),
            (Path::new("/dev/sdb"), &["/dev/sdc".into()][..])
        );
        assert_eq!(Some(first.root.clone()), file("sdb-landfall-root-b"));
        assert_eq!(first.other_root, file("sdb-landfall-root-a"));
        assert_eq!(first.other_boot, file("sdb-landfall-boot-a"));
        assert_eq!(first.esp, file("sdb-EFI system"));
        assert_eq!(first.state, file("sdb-landfall-state"));
        assert!(first.trial);
        assert_eq!((second.system.as_path(), &second.other_boot), (Path::new("/dev/sdc"), &None));
        let none = Seen { disks: seen.disks[..1].to_vec(), ..Seen::default() };
        assert_eq!(none.roots(&order(Slot::B, None), &mut Known::default()), Roots::default());
        let lines =
            Seen::default().explain(&order(Slot::B, None), &Drivers::default(), &mut Known::default());
        assert!(lines[0].contains("landfall-root-b") && lines[1].contains("none"), "{lines:?}");
    }

    #[test]
    fn the_disk_of_the_loader_is_taken_and_no_other_ones() {
        use Whose::{Anothers, Loaders, Perhaps};
        let (own, other) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let (same, changed) = (NAMED.to_ascii_uppercase(), "another".to_owned());
        for (wanted, table, is, whose) in [
            // Two of one image, and one whose table was changed.
            (Some(own), &same, Some(own), Loaders),
            (Some(own), &same, Some(other), Anothers),
            (Some(own), &changed, Some(own), Loaders),
            (Some(own), &changed, Some(other), Anothers),
            // First starts.
            (None, &same, None, Loaders),
            (None, &changed, None, Perhaps),
            (None, &changed, Some(other), Anothers),
            // A word that is lost, on the disk or to the loader.
            (Some(own), &same, None, Perhaps),
            (None, &same, Some(own), Perhaps),
            (Some(own), &changed, None, Anothers),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let disk = disk(dir.path(), "sda", table, &ours());
            let word = Choice { slot: Slot::A, trial: None, deployment: is };
            fs::write(disk.of_type(layout::ESP).unwrap(), word.render()).unwrap();
            let order = Order { deployment: wanted, ..order(Slot::A, Some(NAMED)) };
            assert_eq!(disk.whose(&order, layout::ENVIRONMENT_WITHIN), whose, "{wanted:?} {table} {is:?}");
            let seen = Seen { disks: vec![disk], ..Seen::default() };
            let known = &mut Known::default();
            let found = seen.roots(&order, known);
            assert_eq!(
                (found.loaders.len(), found.perhaps.len()),
                match whose {
                    Loaders => (1, 0),
                    Perhaps => (0, 1),
                    Anothers => (0, 0),
                }
            );
            assert!(found.perhaps.iter().all(|boot| !boot.trouble.is_empty()));
            // Where another system has written it anew, it lies elsewhere.
            let mut far = vec![0; usize::try_from(layout::ENVIRONMENT_WITHIN.0).unwrap()];
            far.extend(word.render());
            fs::write(seen.disks[0].of_type(layout::ESP).unwrap(), far).unwrap();
            assert_eq!(seen.roots(&order, &mut Known::default()), found);
            let says = seen.explain(&order, &Drivers::default(), known).join(" ");
            assert_eq!(says.contains("another landfall's"), whose == Anothers, "{says}");
        }
    }

    #[test]
    fn a_root_of_another_kernel_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/lib/modules/6.12-1")).unwrap();
        is_for(dir.path(), "6.12-1").unwrap();
        let says = |release: &str| is_for(dir.path(), release).unwrap_err().to_string();
        assert_eq!(says("6.12-2"), "there are no drivers for Linux 6.12-2");
        // What cannot be looked at is no kernel's matter.
        assert!(says(&"x".repeat(300)).starts_with("cannot be read"));
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
            disk: None,
            deployment: None,
            disc: name.map(str::to_owned),
            trial: false,
            fallback: false,
        };
        let boot = seen.roots(&order(Some("LANDFALL_NEW")), &mut Known::default()).loaders.remove(0);
        assert_eq!((boot.system.as_path(), boot.state), (Path::new("/dev/sdb"), None));
        assert_eq!(boot.doubles, [Path::new("/dev/sr2")]);
        assert_eq!(seen.roots(&order(None), &mut Known::default()).loaders[0].root, Path::new("/dev/sr0"));
        let missing = order(Some("LANDFALL_X"));
        assert_eq!(seen.roots(&missing, &mut Known::default()), Roots::default());
        let lines = seen.explain(&missing, &Drivers::default(), &mut Known::default()).join("\n");
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
