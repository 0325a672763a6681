//! Names of devices that change with the hypervisor: which volume each means, and a name for it that stays.
//!
//! Stricter than [`Names`], which finds what is mounted: here a file is edited, so a name means a volume only where the
//! disk is known and what lies there is what should.

use crate::guest::Mount;
use crate::patch::DeviceRename;
use crate::volume::device_name::{Name, classify};
use crate::volume::names::{Names, is_plain, same_kind};
use crate::volume::{Content, Volume};
use std::collections::BTreeSet;

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
            (Want::FileSystem(wanted), Content::FileSystem { name }) => same_kind(wanted, name),
            (Want::Swap, Content::Swap { .. }) | (Want::Encrypted, Content::Encrypted { .. }) => true,
            (Want::Any, _) => volume.uuid.is_some(),
            (Want::Anything, _) => true,
            _ => false,
        }
    }
}

/// Where the guest mounts what a name means: a volume is in one place only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// There, if anywhere.
    At(&'a str),
    /// Nowhere by another name.
    Unmounted,
    /// It may be mounted already.
    Any,
}

/// The GUID of a BIOS boot partition's type: it holds GRUB's core and no file system.
const BIOS_BOOT_TYPE: &str = "21686148-6449-6e6f-744e-656564454649";

/// Disks and partitions that [`Devices::renames`] goes through: a machine has a few, a hostile table thousands.
const DISKS_AT_MOST: usize = 26;
const PARTITIONS_AT_MOST: usize = 32;

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
    /// Learned from mounts whose volume is known.
    names: Names,
}

impl<'v> Devices<'v> {
    /// From a machine's volumes, and what of them is known to be mounted where.
    pub fn new(volumes: &'v [Volume], mounts: &'v [Mount]) -> Self {
        let mut devices = Devices { volumes, mounts, names: Names::default() };
        for mount in mounts {
            if let (Some(spec), Some(volume)) = (&mount.spec, devices.volume_of(mount)) {
                devices.names.learn(spec, volume);
            }
        }
        for mount in mounts {
            // Where the volume is known to have another name, this one is no matter of its place in the order.
            if let (Some(spec), Some(volume)) = (&mount.spec, devices.volume_of(mount))
                && !matches!(classify(spec), Name::Disk { .. } | Name::Path { .. })
            {
                devices.names.claim(volume);
            }
        }
        devices
    }

    /// Takes note of a name that the guest uses: it may show that the order of disks counts for nothing.
    pub fn observe(&mut self, spec: &str) {
        self.names.observe(spec, self.volumes);
    }

    /// The volume of a mount.
    pub fn volume_of(&self, mount: &Mount) -> Option<&'v Volume> {
        self.volumes.iter().find(|volume| volume.id == mount.volume)
    }

    /// The volume that is mounted at a path.
    pub fn mounted_at(&self, path: &str) -> Option<&'v Volume> {
        self.mounts.iter().find(|mount| mount.at == path).and_then(|mount| self.volume_of(mount))
    }

    /// True where something may lie on the disks that is in no volume (in containers, arrays and pools that are not open,
    /// and logical volumes of an unusual kind): absence proves nothing then.
    pub fn something_is_hidden(&self) -> bool {
        self.volumes.iter().any(|volume| match volume.content {
            Content::Encrypted { .. } | Content::Member { .. } | Content::LvmPhysical { .. } => {
                !volume.is_opened_in(self.volumes)
            }
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
        self.resolve_at(spec, want, Place::Unmounted)
    }

    /// [`Devices::resolve`] for a name of what is mounted in this place.
    pub fn resolve_at(&self, spec: &str, want: Want<'_>, place: Place<'_>) -> Meaning<'v> {
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
            Name::Disk { disk, order, partition } => match self.names.disk(disk, order) {
                Some(index) => self
                    .volumes
                    .iter()
                    .find(|volume| volume.disk == index && volume.partition == partition && is_plain(volume)),
                None => return Meaning::Lost(format!("which disk {disk} is cannot be told")),
            },
            Name::Path { partition } => {
                let mut fitting = self.volumes.iter().filter(|volume| {
                    volume.partition == partition
                        && is_plain(volume)
                        && want.fits(volume)
                        && self.elsewhere(volume, spec, place).is_none()
                });
                match (fitting.next(), fitting.next()) {
                    (Some(volume), None) => Some(volume),
                    (Some(_), Some(_)) => return Meaning::Lost("several volumes could be meant".into()),
                    (None, _) => None,
                }
            }
            Name::Mapper => return self.mapped(want),
        };
        match candidate {
            Some(volume) if want.fits(volume) => match self.elsewhere(volume, spec, place) {
                Some(mount) => Meaning::Lost(format!(
                    "volume {}, which has this place in the order, is mounted on {} by another name",
                    volume.id.0, mount.at
                )),
                None => Meaning::Volume(volume),
            },
            Some(volume) => Meaning::Lost(format!("volume {} holds something else", volume.id.0)),
            None => Meaning::Lost("no volume on the given disks fits".into()),
        }
    }

    /// The mount that shows that `spec` means another volume than this one. Subvolumes are mounted side by side.
    fn elsewhere(&self, volume: &Volume, spec: &str, place: Place<'_>) -> Option<&'v Mount> {
        self.mounts.iter().find(|mount| {
            let other = mount.volume == volume.id
                && mount.file_system != "btrfs"
                && mount.spec.as_deref() != Some(spec);
            other && place != Place::Any && place != Place::At(&mount.at)
        })
    }

    /// What `/dev/dm-3` means: nothing by its number, but where one volume of all holds what is wanted, and that is a
    /// logical volume, it can be no other.
    fn mapped(&self, want: Want<'_>) -> Meaning<'v> {
        let is_sure = matches!(want, Want::Swap | Want::FileSystem(_));
        // Encryption is mapped, too, and so may be what is in a volume that was not seen into.
        let is_hidden = self.volumes.iter().any(|volume| match volume.content {
            Content::Encrypted { .. } | Content::Member { .. } => !volume.is_opened_in(self.volumes),
            Content::Unknown => !is_plain(volume),
            _ => false,
        });
        let is_mapped =
            |volume: &Volume| volume.device_names.iter().any(|name| name.starts_with("/dev/mapper/"));
        let mut fitting = self.volumes.iter().filter(|volume| want.fits(volume));
        match (fitting.next(), fitting.next()) {
            (Some(volume), None) if is_sure && !is_hidden && is_mapped(volume) => Meaning::Volume(volume),
            _ => Meaning::Lost("its number says nothing about the volume".into()),
        }
    }

    /// Every name by which a kernel may have called a file system or swap space on a plain partition, where it is certain
    /// which one it means, with the name that stays. For files that are seen only when they are rewritten.
    pub fn renames(&self) -> Vec<DeviceRename> {
        let disks = self.volumes.iter().map(|volume| volume.disk + 1).max().unwrap_or(0).min(DISKS_AT_MOST);
        let partitions: BTreeSet<u32> = self.volumes.iter().filter_map(|volume| volume.partition).collect();
        let mut renames = Vec::new();
        for (disk, letter) in (0..disks).zip('a'..='z') {
            for partition in partitions.iter().take(PARTITIONS_AT_MOST) {
                let lettered =
                    ["sd", "hd", "vd", "xvd"].map(|kind| format!("/dev/{kind}{letter}{partition}"));
                let numbered =
                    [format!("/dev/nvme{disk}n1p{partition}"), format!("/dev/cciss/c0d{disk}p{partition}")];
                for old in lettered.into_iter().chain(numbered) {
                    let Meaning::Volume(volume) = self.resolve(&old, Want::Any) else { continue };
                    let is_swap = Want::Swap.fits(volume);
                    let is_known = is_swap || Want::FileSystem("auto").fits(volume);
                    if let Some(new) = self.stable_name(volume).filter(|_| is_known) {
                        renames.push(DeviceRename { old, new, is_swap });
                    }
                }
            }
        }
        renames
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
            part_label: None,
            part_type: Some("0x83".into()),
            disk,
            partition: Some(partition),
            offset: None,
            device_names: Vec::new(),
            free: None,
            on: Vec::new(),
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
            subvolume: None,
            spec: Some(spec.into()),
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
        // Nor is sdc sure to be the third disk any more.
        let volumes = [volumes[0].clone(), volume(1, 1, "xfs", "b"), volume(2, 1, "xfs", "c")];
        let devices = Devices::new(&volumes, &mounts);
        assert!(matches!(devices.resolve("/dev/sdc1", Want::FileSystem("xfs")), Meaning::Lost(_)));
    }

    #[test]
    fn a_path_needs_one_fitting_volume() {
        let volumes = [volume(0, 1, "ext4", "a"), volume(1, 1, "xfs", "b"), volume(2, 1, "xfs", "c")];
        let devices = Devices::new(&volumes, &[]);
        let path = "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0-part1";
        assert_eq!(devices.resolve(path, Want::FileSystem("ext4")), Meaning::Volume(&volumes[0]));
        assert!(matches!(devices.resolve(path, Want::FileSystem("xfs")), Meaning::Lost(_)));
    }

    /// vda and sda are first of their kind both; a name that leads to what another certain name has means another disk.
    #[test]
    fn what_is_mounted_elsewhere_is_not_meant() {
        let volumes = [volume(0, 1, "ext4", "root"), volume(1, 1, "ext4", "data")];
        let mounts = [mount("/", &volumes[0], "UUID=root")];
        let devices = Devices::new(&volumes, &mounts);
        for spec in ["/dev/sda1", "/dev/nvme0n1p1"] {
            assert!(matches!(devices.resolve(spec, Want::FileSystem("ext4")), Meaning::Lost(_)), "{spec}");
        }
        let devices = Devices::new(&volumes[..1], &mounts);
        let by_id = "/dev/disk/by-id/scsi-36000c29-part1";
        assert!(matches!(devices.resolve(by_id, Want::FileSystem("ext4")), Meaning::Lost(_)));
        // Subvolumes of one file system are mounted side by side.
        let volumes = [volume(0, 1, "btrfs", "root")];
        let mounts = [Mount { subvolume: Some("/@".into()), ..mount("/", &volumes[0], "UUID=root") }];
        let devices = Devices::new(&volumes, &mounts);
        assert_eq!(devices.resolve("/dev/sda1", Want::FileSystem("btrfs")), Meaning::Volume(&volumes[0]));
    }

    #[test]
    fn what_is_open_hides_nothing() {
        let mut volumes = vec![volume(0, 1, "luks", "1a"), volume(0, 2, "lvm", ""), volume(0, 3, "raid", "")];
        volumes[2].uuid = Some("11111111-2222-3333-4444-555555555555".into());
        let hidden = |volumes: &[Volume]| Devices::new(volumes, &[]).something_is_hidden();
        let opened = |id: &str, name: &str| Volume {
            id: VolumeId(id.into()),
            device_names: vec![name.into()],
            partition: None,
            offset: None,
            ..volume(0, 1, "ext4", id)
        };
        for inner in [
            opened("disk0p1:luks", "/dev/mapper/luks-1a"),
            opened("vg0/root", "/dev/vg0/root"),
            opened("md0", "/dev/disk/by-id/md-uuid-11111111:22223333:44445555:55555555"),
        ] {
            assert!(hidden(&volumes), "{volumes:?}");
            volumes.push(inner);
        }
        assert!(!hidden(&volumes));
    }

    #[test]
    fn a_mapper_number_means_the_only_logical_volume_of_its_kind() {
        let logical = |content: &str, uuid: &str, name: &str| Volume {
            device_names: vec![format!("/dev/mapper/vg0-{name}")],
            partition: None,
            offset: None,
            ..volume(0, 2, content, uuid)
        };
        let mut volumes =
            vec![volume(0, 2, "lvm", ""), logical("xfs", "root", "root"), logical("swap", "swap", "swap")];
        let resolve = |volumes: &[Volume], want| match Devices::new(volumes, &[]).resolve("/dev/dm-1", want) {
            Meaning::Volume(volume) => volume.uuid.clone(),
            _ => None,
        };
        assert_eq!(resolve(&volumes, Want::Swap).as_deref(), Some("swap"));
        assert_eq!(resolve(&volumes, Want::FileSystem("xfs")).as_deref(), Some("root"));
        assert_eq!(resolve(&volumes, Want::FileSystem("ext4")), None);
        assert_eq!(resolve(&volumes, Want::Any), None);
        for other in [volume(0, 1, "swap", "other"), volume(0, 1, "luks", "other"), volume(0, 1, "raid", "")]
        {
            volumes.push(other);
            assert_eq!(resolve(&volumes, Want::Swap), None, "{volumes:?}");
            volumes.pop();
        }
        volumes.push(Volume { content: Content::Unknown, ..logical("x", "", "thin") });
        assert_eq!(resolve(&volumes, Want::Swap), None);
    }

    #[test]
    fn a_uuid_that_two_volumes_share_is_not_used() {
        let volumes =
            [volume(0, 1, "ext4", "same"), volume(1, 1, "ext4", "same"), volume(2, 1, "ext4", "a b")];
        let devices = Devices::new(&volumes, &[]);
        assert_eq!(devices.stable_name(&volumes[0]).as_deref(), Some("PARTUUID=10000000-01"));
        assert_eq!(devices.stable_name(&volumes[2]).as_deref(), Some("PARTUUID=10000002-01"), "hostile UUID");
    }

    #[test]
    fn every_name_that_is_certain_is_renamed() {
        let volumes =
            [volume(0, 1, "ext4", "r00t"), volume(0, 5, "swap", "5wap"), volume(1, 1, "luks", "1uk5")];
        let mounts = [mount("/", &volumes[0], "/dev/sda1")];
        let renames = Devices::new(&volumes, &mounts).renames();
        let new = |old: &str| {
            renames.iter().find(|known| known.old == old).map(|known| (known.new.as_str(), known.is_swap))
        };
        assert_eq!(new("/dev/sda1"), Some(("UUID=r00t", false)));
        assert_eq!(new("/dev/sda5"), Some(("UUID=5wap", true)));
        assert_eq!((new("/dev/sdb1"), new("/dev/sda2")), (None, None), "no file system, no partition");
    }

    proptest! {
        #[test]
        fn no_name_panics(spec in "(/dev/)?(sd|hd|nvme|cciss/c|mmcblk|mapper/mpath|disk/by-id/|dm-)?\\PC{0,12}") {
            Devices::new(&[], &[]).resolve(&spec, Want::Any);
        }
    }
}
