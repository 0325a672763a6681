//! Device names in configuration, and which volume they mean.
//!
//! A name is *stable* where it comes from what lies on the disk (a UUID, a label, a logical volume, an md array) and
//! *fleeting* where it comes from the hardware (`/dev/sda1`, by-path, by-id): only the latter change with the hypervisor.

use crate::guest::Mount;
use crate::volume::{Content, Volume};
use std::collections::BTreeMap;

/// What kind of name it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// No block device (`tmpfs`, `server:/export`, a swap file), or a removable one (`/dev/sr0`).
    Other,
    /// Survives the move.
    Stable,
    /// `/dev/sda1`: the disk's part of the name, its place in the order of its kind, and the partition.
    Disk {
        /// `/dev/sda`
        disk: &'a str,
        /// 0 for `sda`, 1 for `sdb`; `None` where the kind of name does not tell.
        order: Option<usize>,
        /// 1 and up; `None` for the whole disk.
        partition: Option<u32>,
    },
    /// by-id, by-path or a multipath map: the disk is not known from the name, the partition may be.
    Path {
        /// 1 and up.
        partition: Option<u32>,
    },
    /// `/dev/dm-3`: a number that means nothing.
    Mapper,
}

/// Sorts a name as it stands in fstab, on a kernel command line or the like.
pub fn classify(spec: &str) -> Name<'_> {
    let Some(rest) = spec.strip_prefix("/dev/") else {
        let tag = spec.split_once('=').map(|(tag, _)| tag);
        return match tag {
            Some("UUID" | "LABEL" | "PARTUUID" | "PARTLABEL" | "ID") => Name::Stable,
            _ => Name::Other,
        };
    };
    if let Some(link) = rest.strip_prefix("disk/") {
        return classify_link(link);
    }
    if let Some(map) = rest.strip_prefix("mapper/") {
        return match is_multipath(map) {
            true => Name::Path { partition: trailing_partition(map) },
            false => Name::Stable,
        };
    }
    if rest.strip_prefix("dm-").is_some_and(is_number) {
        return Name::Mapper;
    }
    for kind in ["sd", "hd", "vd", "xvd"] {
        if let Some(tail) = rest.strip_prefix(kind) {
            let letters = tail.bytes().take_while(u8::is_ascii_lowercase).count();
            let (letters, number) = tail.split_at(letters);
            let order = letters_to_order(letters);
            if order.is_some() && (number.is_empty() || is_number(number)) {
                let disk = spec.strip_suffix(number).unwrap_or(spec);
                return Name::Disk { disk, order, partition: number.parse().ok() };
            }
        }
    }
    for (kind, separator) in [("nvme", 'n'), ("mmcblk", '\0'), ("cciss/c", 'd')] {
        if let Some(tail) = rest.strip_prefix(kind) {
            let (disk, partition) = match tail.rsplit_once('p') {
                Some((disk, partition)) => (disk, Some(partition)),
                None => (tail, None),
            };
            let shaped = disk
                .split_once(separator)
                .map_or(separator == '\0' && is_number(disk), |(a, b)| is_number(a) && is_number(b));
            let partition_ok = partition.is_none_or(is_number);
            if shaped && partition_ok {
                let length = spec.len() - (tail.len() - disk.len());
                let order = match kind {
                    "nvme" => {
                        // One controller with many disks, or many with one each: the first disk is sure.
                        (disk == "0n1").then_some(0)
                    }
                    _ => disk.trim_start_matches("0d").parse().ok(),
                };
                return Name::Disk {
                    disk: spec.get(..length).unwrap_or(spec),
                    order,
                    partition: partition.and_then(|partition| partition.parse().ok()),
                };
            }
        }
    }
    let removable =
        ["sr", "scd", "fd", "cdrom", "dvd", "cdrw", "floppy", "loop", "ram", "zram", "nbd", "null"];
    if rest.is_empty() || rest.contains("..") || removable.iter().any(|kind| rest.starts_with(kind)) {
        return Name::Other;
    }
    // md arrays, `/dev/vg0/root`, ZFS volumes and whatever a udev rule of the guest's own makes.
    Name::Stable
}

fn classify_link(link: &str) -> Name<'_> {
    let Some((folder, name)) = link.split_once('/') else { return Name::Other };
    let from_content = ["dm-uuid-LVM-", "dm-uuid-CRYPT-", "dm-name-", "lvm-pv-uuid-", "md-uuid-", "md-name-"];
    match folder {
        "by-uuid" | "by-label" | "by-partuuid" | "by-partlabel" => Name::Stable,
        "by-id" if name.starts_with("dm-name-mpath") => Name::Path { partition: trailing_partition(name) },
        "by-id" if from_content.iter().any(|prefix| name.starts_with(prefix)) => Name::Stable,
        "by-id" | "by-path" | "by-diskseq" => Name::Path { partition: trailing_partition(name) },
        _ => Name::Other,
    }
}

/// True for the name of a multipath map by its default schemes (`mpatha`, `mpatha-part1`, a WWID).
pub fn is_multipath(map: &str) -> bool {
    map.strip_prefix("mpath").is_some_and(|tail| tail.starts_with(|char: char| char.is_ascii_alphanumeric()))
        || (map.len() >= 33
            && map.starts_with('3')
            && map.bytes().take(33).all(|byte| byte.is_ascii_hexdigit()))
}

fn trailing_partition(name: &str) -> Option<u32> {
    let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (head, number) = name.split_at_checked(digits)?;
    let parted = head.ends_with("-part")
        || head.ends_with("_part")
        || (head.starts_with("mpath") && head.ends_with('p') && head.len() > 6);
    parted.then(|| number.parse().ok()).flatten()
}

fn letters_to_order(letters: &str) -> Option<usize> {
    if letters.is_empty() || letters.len() > 3 {
        return None;
    }
    let number = letters.bytes().fold(0usize, |sum, byte| sum * 26 + usize::from(byte - b'a') + 1);
    Some(number - 1)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() < 10 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What is expected behind a name: a wrong guess must not survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want<'a> {
    /// A file system of this type; `auto` takes any.
    FileSystem(&'a str),
    /// Swap space.
    Swap,
    /// An encrypted container.
    Encrypted,
    /// Whatever has a UUID.
    Any,
    /// Whatever is there, noise included.
    Anything,
}

impl Want<'_> {
    fn fits(self, volume: &Volume) -> bool {
        match (self, &volume.content) {
            (Want::FileSystem(wanted), Content::FileSystem { name }) => {
                let ext = |name: &str| matches!(name, "ext2" | "ext3" | "ext4");
                let fat = |name: &str| matches!(name, "vfat" | "msdos" | "fat");
                let ntfs = |name: &str| name.starts_with("ntfs");
                wanted.split(',').any(|wanted| {
                    wanted == "auto"
                        || wanted == name
                        || (ext(wanted) && ext(name))
                        || (fat(wanted) && fat(name))
                        || (ntfs(wanted) && ntfs(name))
                })
            }
            (Want::Swap, Content::Swap { .. }) | (Want::Encrypted, Content::Encrypted { .. }) => true,
            (Want::Any, _) => volume.uuid.is_some(),
            (Want::Anything, _) => true,
            _ => false,
        }
    }
}

/// The GUID of a BIOS boot partition's type: it holds GRUB's core and no file system.
const BIOS_BOOT_TYPE: &str = "21686148-6449-6e6f-744e-656564454649";

/// What a name means on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning<'v> {
    /// It stays valid, or is none of our business.
    Keep,
    /// It is this volume.
    Volume(&'v Volume),
    /// It will not be valid, and which volume it means is not certain. Why, as part of a sentence.
    Lost(String),
}

/// Finds volumes by the names that the guest has for them.
pub struct Devices<'v> {
    volumes: &'v [Volume],
    mounts: &'v [Mount],
    /// `/dev/sdb` -> index of the disk, learned from mounts whose volume is known.
    learned: BTreeMap<String, usize>,
}

impl<'v> Devices<'v> {
    /// From a machine's volumes, and what of them is known to be mounted where.
    pub fn new(volumes: &'v [Volume], mounts: &'v [Mount]) -> Self {
        let mut devices = Devices { volumes, mounts, learned: BTreeMap::new() };
        for mount in mounts {
            let (Some(spec), Some(volume)) = (&mount.spec, devices.volume_of(mount)) else { continue };
            if let Name::Disk { disk, partition, .. } = classify(spec)
                && volume.partition == partition
            {
                devices.learned.insert(disk.to_owned(), volume.disk);
            }
        }
        devices
    }

    /// The volume of a mount.
    pub fn volume_of(&self, mount: &Mount) -> Option<&'v Volume> {
        self.volumes.iter().find(|volume| volume.id == mount.volume)
    }

    /// The volume that is mounted at a path.
    pub fn mounted_at(&self, path: &str) -> Option<&'v Volume> {
        self.mounts.iter().find(|mount| mount.at == path).and_then(|mount| self.volume_of(mount))
    }

    /// True where something may lie on the disks that is in no volume (in containers, arrays, pools, and logical volumes of
    /// an unusual kind): absence proves nothing then.
    pub fn something_is_hidden(&self) -> bool {
        self.volumes.iter().any(|volume| match volume.content {
            Content::Encrypted { .. } | Content::Member { .. } | Content::LvmPhysical { .. } => true,
            Content::Unknown => volume.part_type.as_deref() != Some(BIOS_BOOT_TYPE),
            _ => false,
        })
    }

    /// True where a volume has this UUID, label or the like (`UUID=…`, `LABEL=…`).
    pub fn has_tag(&self, spec: &str) -> Option<bool> {
        let (tag, value) = match spec.strip_prefix("/dev/disk/by-") {
            Some(link) => link.split_once('/')?,
            None => spec.split_once('=')?,
        };
        let value = value.trim_matches('"');
        let hit =
            |known: &Option<String>| known.as_deref().is_some_and(|known| known.eq_ignore_ascii_case(value));
        match tag {
            "UUID" | "uuid" => Some(self.volumes.iter().any(|volume| hit(&volume.uuid))),
            "PARTUUID" | "partuuid" => Some(self.volumes.iter().any(|volume| hit(&volume.part_uuid))),
            "LABEL" => Some(self.volumes.iter().any(|volume| hit(&volume.label))),
            _ => None,
        }
    }

    /// What `spec` means, given what should lie there.
    pub fn resolve(&self, spec: &str, want: Want<'_>) -> Meaning<'v> {
        let name = classify(spec);
        if matches!(name, Name::Other | Name::Stable) {
            return Meaning::Keep;
        }
        // The volume that was mounted by this very name is known without guessing.
        let known = self.mounts.iter().find(|mount| mount.spec.as_deref() == Some(spec));
        if let Some(volume) = known.and_then(|mount| self.volume_of(mount)) {
            return Meaning::Volume(volume);
        }
        let candidate = match name {
            Name::Other | Name::Stable => return Meaning::Keep,
            Name::Disk { disk, order, partition } => {
                let learned = self.learned.get(disk).copied();
                let by_order = order.filter(|order| !self.learned.values().any(|known| known == order));
                match learned.or(by_order) {
                    Some(index) => self.volumes.iter().find(|volume| {
                        volume.disk == index && volume.partition == partition && is_plain(volume)
                    }),
                    None => return Meaning::Lost(format!("which disk {disk} is cannot be told")),
                }
            }
            Name::Path { partition } => {
                let mut fitting = self
                    .volumes
                    .iter()
                    .filter(|volume| volume.partition == partition && is_plain(volume) && want.fits(volume));
                match (fitting.next(), fitting.next()) {
                    (Some(volume), None) => Some(volume),
                    (Some(_), Some(_)) => return Meaning::Lost("several volumes could be meant".into()),
                    (None, _) => None,
                }
            }
            Name::Mapper => return Meaning::Lost("its number says nothing about the volume".into()),
        };
        match candidate {
            Some(volume) if want.fits(volume) => Meaning::Volume(volume),
            Some(volume) => Meaning::Lost(format!("volume {} holds something else", volume.id.0)),
            None => Meaning::Lost("no volume on the given disks fits".into()),
        }
    }

    /// A name for the volume that no hypervisor changes: `UUID=…`, or `PARTUUID=…` where another volume has the same
    /// UUID. `None` where it has neither.
    pub fn stable_name(&self, volume: &Volume) -> Option<String> {
        self.unique(volume, |volume| volume.uuid.as_deref())
            .map(|uuid| format!("UUID={uuid}"))
            .or_else(|| self.part_uuid(volume))
    }

    /// `PARTUUID=…`, which the kernel understands without an initramfs.
    pub fn part_uuid(&self, volume: &Volume) -> Option<String> {
        self.unique(volume, |volume| volume.part_uuid.as_deref()).map(|uuid| format!("PARTUUID={uuid}"))
    }

    fn unique(&self, volume: &Volume, field: impl Fn(&Volume) -> Option<&str>) -> Option<String> {
        let value = field(volume).filter(|value| is_tag_value(value))?;
        let owners = self.volumes.iter().filter(|other| field(other) == Some(value)).count();
        (owners == 1).then(|| value.to_owned())
    }
}

/// A UUID comes from the disk and goes into files: only characters that mean nothing there.
fn is_tag_value(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A partition or a disk, not a logical volume.
fn is_plain(volume: &Volume) -> bool {
    !volume.device_names.iter().any(|name| name.starts_with("/dev/mapper/"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::volume::VolumeId;
    use landfall_image::Bytes;
    use proptest::prelude::*;

    /// A volume for tests: `disk0p1`.
    pub fn volume(disk: usize, partition: u32, content: &str, uuid: &str) -> Volume {
        Volume {
            id: VolumeId(format!("disk{disk}p{partition}")),
            size: Bytes::mib(1024),
            content: match content {
                "swap" => Content::Swap { hibernated: false },
                "lvm" => Content::LvmPhysical { group: "vg0".into() },
                "luks" => Content::Encrypted { scheme: "LUKS2".into() },
                "raid" => Content::Member { of: "linux-raid".into() },
                name => Content::FileSystem { name: name.into() },
            },
            uuid: (!uuid.is_empty()).then(|| uuid.to_owned()),
            label: None,
            part_uuid: Some(format!("{:08x}-{partition:02x}", 0x1000_0000 + disk)),
            part_type: Some("0x83".into()),
            disk,
            partition: Some(partition),
            device_names: Vec::new(),
        }
    }

    /// A mount for tests.
    pub fn mount(at: &str, volume: &Volume, spec: &str) -> Mount {
        Mount {
            at: at.into(),
            volume: volume.id.clone(),
            file_system: match &volume.content {
                Content::FileSystem { name } => name.clone(),
                _ => "ext4".into(),
            },
            spec: Some(spec.into()),
        }
    }

    #[test]
    fn names_are_sorted() {
        let disk = |disk, order, partition| Name::Disk { disk, order, partition };
        for (spec, expected) in [
            ("/dev/sda1", disk("/dev/sda", Some(0), Some(1))),
            ("/dev/sdb", disk("/dev/sdb", Some(1), None)),
            ("/dev/sdaa12", disk("/dev/sdaa", Some(26), Some(12))),
            ("/dev/hdc2", disk("/dev/hdc", Some(2), Some(2))),
            ("/dev/xvda1", disk("/dev/xvda", Some(0), Some(1))),
            ("/dev/nvme0n1p2", disk("/dev/nvme0n1", Some(0), Some(2))),
            ("/dev/nvme1n1", disk("/dev/nvme1n1", None, None)),
            ("/dev/mmcblk0p1", disk("/dev/mmcblk0", Some(0), Some(1))),
            ("/dev/cciss/c0d0p3", disk("/dev/cciss/c0d0", Some(0), Some(3))),
            ("/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0-part1", Name::Path { partition: Some(1) }),
            ("/dev/disk/by-id/scsi-36000c29abc", Name::Path { partition: None }),
            ("/dev/disk/by-id/dm-uuid-LVM-abc", Name::Stable),
            ("/dev/disk/by-uuid/abc", Name::Stable),
            ("/dev/mapper/vg0-root", Name::Stable),
            ("/dev/mapper/mpatha-part2", Name::Path { partition: Some(2) }),
            ("/dev/mapper/mpathap2", Name::Path { partition: Some(2) }),
            ("/dev/mapper/3600508b400105e210000900000490000-part1", Name::Path { partition: Some(1) }),
            ("/dev/dm-3", Name::Mapper),
            ("/dev/vg0/root", Name::Stable),
            ("/dev/md0", Name::Stable),
            ("/dev/sr0", Name::Other),
            ("UUID=abc", Name::Stable),
            ("tmpfs", Name::Other),
            ("server:/x", Name::Other),
            ("/dev/", Name::Other),
            ("/dev/sdaaaa1", Name::Stable),
        ] {
            assert_eq!(classify(spec), expected, "{spec}");
        }
    }

    #[test]
    fn order_counts_unless_a_mount_says_otherwise() {
        let volumes =
            [volume(0, 1, "ext4", "root"), volume(1, 1, "xfs", "data"), volume(1, 2, "swap", "swap")];
        let devices = Devices::new(&volumes, &[]);
        assert_eq!(devices.resolve("/dev/sdb1", Want::FileSystem("xfs")), Meaning::Volume(&volumes[1]));
        assert!(matches!(devices.resolve("/dev/sdb1", Want::Swap), Meaning::Lost(_)));
        assert!(matches!(devices.resolve("/dev/sdc1", Want::Any), Meaning::Lost(_)));
        // The root is known to be sdb: so sda is not disk 0, and nothing says which it is.
        let mounts = [mount("/", &volumes[0], "/dev/sdb1")];
        let devices = Devices::new(&volumes, &mounts);
        assert_eq!(devices.resolve("/dev/sdb1", Want::FileSystem("ext4")), Meaning::Volume(&volumes[0]));
        assert!(matches!(devices.resolve("/dev/sda1", Want::Any), Meaning::Lost(_)));
    }

    #[test]
    fn a_path_needs_one_fitting_volume() {
        let volumes = [volume(0, 1, "ext4", "a"), volume(1, 1, "xfs", "b"), volume(2, 1, "xfs", "c")];
        let devices = Devices::new(&volumes, &[]);
        let path = "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0-part1";
        assert_eq!(devices.resolve(path, Want::FileSystem("ext4")), Meaning::Volume(&volumes[0]));
        assert!(matches!(devices.resolve(path, Want::FileSystem("xfs")), Meaning::Lost(_)));
    }

    #[test]
    fn a_uuid_that_two_volumes_share_is_not_used() {
        let volumes =
            [volume(0, 1, "ext4", "same"), volume(1, 1, "ext4", "same"), volume(2, 1, "ext4", "a b")];
        let devices = Devices::new(&volumes, &[]);
        assert_eq!(devices.stable_name(&volumes[0]).as_deref(), Some("PARTUUID=10000000-01"));
        assert_eq!(devices.stable_name(&volumes[2]).as_deref(), Some("PARTUUID=10000002-01"), "hostile UUID");
    }

    proptest! {
        #[test]
        fn no_name_panics(spec in "(/dev/)?(sd|hd|nvme|cciss/c|mmcblk|mapper/mpath|disk/by-id/|dm-)?\\PC{0,12}") {
            classify(&spec);
            Devices::new(&[], &[]).resolve(&spec, Want::Any);
        }
    }
}
