//! Which volume a guest means by a device name.
//!
//! Names made from content (UUID, label, logical volume) are certain where one volume fits. Names made from the hardware
//! (`/dev/sdb1`, by-path) are read in the machine's order of disks, corrected by what is known: the volume that `/`
//! was found on has the name that its own fstab gives it, and what has a certain name is not meant by an uncertain one.
//! Where more than one volume fits, none is chosen.

use super::device_name::{Name, classify};
use super::{Content, Volume, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meant<'v> {
    /// One volume.
    Volume(&'v Volume),
    /// Any of several, or one that does not fit the rest of the evidence.
    Unsure(Vec<&'v Volume>),
    /// A device that is not on the given disks.
    Absent,
    /// No device: `tmpfs`, `server:/export`, a bind mount, a removable drive.
    NoDevice,
}

/// The names that are known of a machine's disks.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// `/dev/sdb` to the index of a disk.
    learned: BTreeMap<String, usize>,
    /// A name that was learned is not at its place in the order: so no other can be relied upon to be.
    disordered: bool,
    /// Volumes that a certain name means: no name made from the hardware is a second one of theirs.
    claimed: BTreeSet<VolumeId>,
    /// Disks by their place in the order.
    places: BTreeMap<usize, String>,
}

impl Names {
    /// Takes note that `spec`, a name made from the hardware, means `volume`.
    pub fn learn(&mut self, spec: &str, volume: &Volume) {
        if let Name::Disk { disk, order, partition } = classify(spec)
            && partition == volume.partition
            && is_plain(volume)
        {
            self.learned.insert(disk.to_owned(), volume.disk);
            self.disordered |= order.is_some_and(|order| order != volume.disk);
        }
    }

    /// Takes note that a certain name means `volume`. Subvolumes of one btrfs are mounted side by side.
    pub fn claim(&mut self, volume: &Volume) {
        if !matches!(&volume.content, Content::FileSystem { name } if name == "btrfs") {
            self.claimed.insert(volume.id.clone());
        }
    }

    /// Takes note that the guest uses `spec`: where its place in the order is another disk's (`sda` beside `vda`), or leads
    /// to a volume that is claimed, the order counts for nothing. Claims come first.
    pub fn observe(&mut self, spec: &str, volumes: &[Volume]) {
        let Name::Disk { disk, order: Some(order), partition } = classify(spec) else { return };
        let known = self.places.entry(order).or_insert_with(|| disk.to_owned());
        self.disordered |= *known != disk
            || (!self.learned.contains_key(disk)
                && volumes.iter().any(|volume| {
                    volume.disk == order
                        && volume.partition == partition
                        && is_plain(volume)
                        && self.claimed.contains(&volume.id)
                }));
    }

    /// The disk that `/dev/sdb` is: learned, or by its place in the order, if nothing speaks against that.
    pub fn disk(&self, name: &str, order: Option<usize>) -> Option<usize> {
        let free = |order: &usize| !self.disordered && !self.learned.values().any(|known| known == order);
        self.learned.get(name).copied().or_else(|| order.filter(free))
    }

    /// The volume that `spec` means, which should hold a file system of type `kind` (`auto`: any; `swap`: swap).
    pub fn resolve<'v>(&self, spec: &str, kind: &str, volumes: &'v [Volume]) -> Meant<'v> {
        if let Some(found) = by_tag(spec, volumes).or_else(|| by_device_name(spec, volumes)) {
            return found;
        }
        let (partition, is_on_free_disk) = match classify(spec) {
            _ if !spec.starts_with("/dev/") => return Meant::NoDevice,
            Name::Other => return Meant::NoDevice,
            Name::Stable | Name::Mapper => return Meant::Absent,
            Name::Path { partition } => (partition, false),
            Name::Disk { disk, order, partition } => {
                if let Some(index) = self.disk(disk, order) {
                    let found = volumes.iter().find(|volume| {
                        volume.disk == index && volume.partition == partition && is_plain(volume)
                    });
                    let found = found.filter(|volume| !self.claimed.contains(&volume.id));
                    return match found {
                        Some(volume) if fits(volume, kind) => Meant::Volume(volume),
                        Some(volume) => Meant::Unsure(vec![volume]),
                        None => Meant::Absent,
                    };
                }
                (partition, true)
            }
        };
        let taken: Vec<usize> = self.learned.values().copied().collect();
        let fitting: Vec<&Volume> = volumes
            .iter()
            .filter(|volume| volume.partition == partition && is_plain(volume) && fits(volume, kind))
            .filter(|volume| !is_on_free_disk || !taken.contains(&volume.disk))
            .filter(|volume| !self.claimed.contains(&volume.id))
            .collect();
        one_of(fitting)
    }
}

fn one_of(found: Vec<&Volume>) -> Meant<'_> {
    match found.as_slice() {
        [] => Meant::Absent,
        [one] => Meant::Volume(one),
        _ => Meant::Unsure(found),
    }
}

/// `UUID=…`, `/dev/disk/by-uuid/…` and the like.
fn by_tag<'v>(spec: &str, volumes: &'v [Volume]) -> Option<Meant<'v>> {
    let (tag, value) = match spec.strip_prefix("/dev/disk/by-") {
        Some(link) => link.split_once('/')?,
        None => spec.split_once('=')?,
    };
    let value = value.trim_matches(['"', '\'']);
    let value = decode(value);
    let field: fn(&Volume) -> Option<&str> = match tag {
        "UUID" | "uuid" => |volume| volume.uuid.as_deref(),
        "LABEL" | "label" => |volume| volume.label.as_deref(),
        "PARTUUID" | "partuuid" => |volume| volume.part_uuid.as_deref(),
        "PARTLABEL" | "partlabel" => |volume| volume.part_label.as_deref(),
        _ => return None,
    };
    let exact = matches!(tag, "LABEL" | "label" | "PARTLABEL" | "partlabel");
    let same = |known: &str| if exact { known == value } else { known.eq_ignore_ascii_case(&value) };
    Some(one_of(volumes.iter().filter(|volume| field(volume).is_some_and(same)).collect()))
}

/// udev's `\x20` in names of links.
fn decode(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some(at) = rest.find("\\x") {
        let code = rest.get(at + 2..at + 4).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let Some(code) = code.filter(u8::is_ascii) else { break };
        out.push_str(&rest[..at]);
        out.push(char::from(code));
        rest = rest.get(at + 4..).unwrap_or_default();
    }
    out + rest
}

/// A name that a volume is known to have.
fn by_device_name<'v>(spec: &str, volumes: &'v [Volume]) -> Option<Meant<'v>> {
    let found: Vec<&Volume> =
        volumes.iter().filter(|volume| volume.device_names.iter().any(|name| name == spec)).collect();
    (!found.is_empty()).then(|| one_of(found))
}

/// A partition or a whole disk.
pub fn is_plain(volume: &Volume) -> bool {
    volume.device_names.is_empty()
}

/// True where a volume can be what fstab says that it is.
pub fn fits(volume: &Volume, kind: &str) -> bool {
    match &volume.content {
        Content::FileSystem { name } => same_kind(kind, name),
        Content::Swap { .. } => kind == "swap",
        // What cannot be seen into may hold anything.
        Content::Encrypted { .. } | Content::Member { .. } => true,
        Content::LvmPhysical { .. } | Content::Unknown => false,
    }
}

/// True where a file system `name` can be what fstab calls `kind` (`auto`: any; several between commas).
pub fn same_kind(kind: &str, name: &str) -> bool {
    let family = |name: &str| match name {
        "ext2" | "ext3" | "ext4" => "ext".to_owned(),
        "vfat" | "msdos" | "fat" => "fat".to_owned(),
        name if name.starts_with("ntfs") => "ntfs".to_owned(),
        name => name.to_owned(),
    };
    kind.split(',').any(|kind| kind == "auto" || family(kind) == family(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::VolumeId;
    use landfall_image::Bytes;

    fn volume(disk: usize, partition: u32, content: &str) -> Volume {
        Volume {
            id: VolumeId(format!("disk{disk}p{partition}")),
            size: Bytes::mib(64),
            content: match content {
                "swap" => Content::Swap { hibernated: false },
                name => Content::FileSystem { name: name.into() },
            },
            uuid: Some(format!("A{disk}-{partition}")),
            label: Some(format!("l {disk}{partition}")),
            part_uuid: Some(format!("cafe-{disk}{partition}")),
            part_label: Some(format!("Part {disk}{partition}")),
            part_type: None,
            disk,
            partition: Some(partition),
            offset: None,
            device_names: Vec::new(),
            free: None,
            on: Vec::new(),
        }
    }

    #[test]
    fn names_lead_to_volumes() {
        let mut volumes =
            vec![volume(0, 1, "ext4"), volume(0, 2, "swap"), volume(1, 1, "xfs"), volume(2, 1, "xfs")];
        volumes.push(Volume {
            id: VolumeId("vg/root".into()),
            partition: None,
            offset: None,
            device_names: vec!["/dev/vg/root".into(), "/dev/mapper/vg-root".into()],
            ..volume(0, 3, "ext4")
        });
        let names = Names::default();
        let found = |spec: &str, kind: &str| match names.resolve(spec, kind, &volumes) {
            Meant::Volume(volume) => volume.id.0.clone(),
            Meant::Unsure(several) => format!("{} unsure", several.len()),
            Meant::Absent => "absent".into(),
            Meant::NoDevice => "none".into(),
        };
        for (spec, kind, expected) in [
            ("UUID=a0-1", "ext4", "disk0p1"),
            ("/dev/disk/by-uuid/A0-1", "ext4", "disk0p1"),
            ("LABEL=l 11", "auto", "disk1p1"),
            ("LABEL=L 11", "auto", "absent"),
            ("/dev/disk/by-label/l\\x2011", "auto", "disk1p1"),
            ("PARTUUID=CAFE-21", "xfs", "disk2p1"),
            ("PARTLABEL=\"Part 11\"", "xfs", "disk1p1"),
            ("/dev/disk/by-partlabel/Part\\x2021", "xfs", "disk2p1"),
            ("PARTLABEL=part 11", "xfs", "absent"),
            ("/dev/sda1", "ext3", "disk0p1"),
            ("/dev/sda1", "xfs", "1 unsure"),
            ("/dev/sda2", "swap", "disk0p2"),
            ("/dev/sdb1", "auto", "disk1p1"),
            ("/dev/sdd1", "auto", "absent"),
            ("/dev/nvme0n1p1", "ext4", "disk0p1"),
            ("/dev/nvme1n1p1", "ext4", "disk0p1"),
            ("/dev/nvme1n1p1", "xfs", "2 unsure"),
            ("/dev/mapper/vg-root", "ext4", "vg/root"),
            ("/dev/mapper/vg-absent", "ext4", "absent"),
            ("/dev/disk/by-path/pci-0-part2", "swap", "disk0p2"),
            ("/dev/disk/by-path/pci-0-part1", "xfs", "2 unsure"),
            ("/dev/disk/by-id/dm-uuid-LVM-abc", "ext4", "absent"),
            ("/dev/dm-0", "ext4", "absent"),
            ("/dev/shm", "auto", "none"),
            ("/dev/sr0", "iso9660", "none"),
            ("tmpfs", "tmpfs", "none"),
            ("server:/x", "nfs", "none"),
        ] {
            assert_eq!(found(spec, kind), expected, "{spec} {kind}");
        }
    }

    #[test]
    fn what_is_learned_goes_before_the_order() {
        let volumes = [volume(0, 1, "ext4"), volume(1, 1, "xfs"), volume(2, 1, "xfs")];
        let mut names = Names::default();
        names.learn("/dev/sdb1", &volumes[0]);
        assert_eq!(names.resolve("/dev/sdb1", "ext4", &volumes), Meant::Volume(&volumes[0]));
        // The order is broken: of the others only the kind tells.
        assert!(matches!(names.resolve("/dev/sda1", "xfs", &volumes), Meant::Unsure(_)));
        assert_eq!(names.resolve("/dev/sda1", "xfs", &volumes[..2]), Meant::Volume(&volumes[1]));
        assert_eq!(names.resolve("/dev/sda1", "ext4", &volumes), Meant::Absent);
    }

    #[test]
    fn what_has_a_certain_name_is_not_meant_by_another() {
        let volumes = [volume(0, 1, "ext4"), volume(1, 1, "ext4"), volume(2, 1, "ext4")];
        let mut names = Names::default();
        names.claim(&volumes[0]);
        names.observe("/dev/sda1", &volumes);
        // sda is not the first disk: so sdb is not the second.
        for spec in ["/dev/sda1", "/dev/sdb1"] {
            assert_eq!(names.resolve(spec, "ext4", &volumes), Meant::Unsure(vec![&volumes[1], &volumes[2]]));
        }
        assert_eq!(
            names.resolve("/dev/disk/by-id/x-part1", "ext4", &volumes[..2]),
            Meant::Volume(&volumes[1])
        );
        assert_eq!(names.resolve("/dev/disk/by-id/x-part1", "ext4", &volumes[..1]), Meant::Absent);
        assert_eq!(names.resolve("UUID=a0-1", "ext4", &volumes), Meant::Volume(&volumes[0]));
        let mut names = Names::default();
        names.observe("/dev/vda1", &volumes);
        names.observe("/dev/vda2", &volumes);
        assert_eq!(names.resolve("/dev/sdb1", "ext4", &volumes), Meant::Volume(&volumes[1]));
        names.observe("/dev/sda1", &volumes);
        assert!(matches!(names.resolve("/dev/sdb1", "ext4", &volumes), Meant::Unsure(_)));
        let root = [volume(0, 1, "btrfs")];
        let mut names = Names::default();
        names.claim(&root[0]);
        assert_eq!(names.resolve("/dev/sda1", "btrfs", &root), Meant::Volume(&root[0]));
    }

    proptest::proptest! {
        #[test]
        fn no_name_panics(spec in "(/dev/)?(sd|hd|nvme|mmcblk|mapper/mpath|disk/by-|UUID=)?\\PC{0,12}") {
            Names::default().resolve(&spec, "auto", &[volume(0, 1, "ext4")]);
        }
    }
}
