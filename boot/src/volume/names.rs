//! Which volume a guest means by a device name.
//!
//! Names made from content (UUID, label, logical volume) are certain where one volume fits. Names made from the hardware
//! (`/dev/sdb1`, by-path) are read in the machine's order of disks, corrected by what is known: the volume that `/`
//! was found on has the name that its own fstab gives it. Where more than one volume fits, none is chosen.

use super::{Content, Volume};
use std::collections::BTreeMap;

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
}

/// A device name made from the hardware.
struct Hardware<'s> {
    /// `/dev/sdb`
    disk: &'s str,
    /// 1 for `sdb`, where the name tells.
    order: Option<usize>,
    partition: Option<u32>,
}

impl Names {
    /// Takes note that `spec`, a name made from the hardware, means `volume`.
    pub fn learn(&mut self, spec: &str, volume: &Volume) {
        if let Some(name) = hardware(spec)
            && name.partition == volume.partition
            && is_plain(volume)
        {
            self.learned.insert(name.disk.to_owned(), volume.disk);
        }
    }

    /// The volume that `spec` means, which should hold a file system of type `kind` (`auto`: any; `swap`: swap).
    pub fn resolve<'v>(&self, spec: &str, kind: &str, volumes: &'v [Volume]) -> Meant<'v> {
        if let Some(found) = by_tag(spec, volumes).or_else(|| by_device_name(spec, volumes)) {
            return found;
        }
        let Some(rest) = spec.strip_prefix("/dev/") else { return Meant::NoDevice };
        let partition = match hardware(spec) {
            Some(name) => {
                let disk = self.learned.get(name.disk).copied();
                // A place in the order that another name is known to have is not this one's.
                let by_order = name.order.filter(|order| !self.learned.values().any(|known| known == order));
                let by_order = by_order.filter(|order| self.order_holds(*order));
                if let Some(index) = disk.or(by_order) {
                    let found = volumes.iter().find(|volume| {
                        volume.disk == index && volume.partition == name.partition && is_plain(volume)
                    });
                    return match found {
                        Some(volume) if fits(volume, kind) => Meant::Volume(volume),
                        Some(volume) => Meant::Unsure(vec![volume]),
                        None => Meant::Absent,
                    };
                }
                name.partition
            }
            None if is_link(rest) => trailing_partition(spec),
            None if is_removable(rest) => return Meant::NoDevice,
            None => return Meant::Absent,
        };
        let taken: Vec<usize> = self.learned.values().copied().collect();
        let fitting: Vec<&Volume> = volumes
            .iter()
            .filter(|volume| volume.partition == partition && is_plain(volume) && fits(volume, kind))
            .filter(|volume| is_link(rest) || !taken.contains(&volume.disk))
            .collect();
        match fitting.as_slice() {
            [] => Meant::Absent,
            [one] => Meant::Volume(one),
            _ => Meant::Unsure(fitting),
        }
    }

    /// True while every name that was learned is at its place in the order.
    fn order_holds(&self, _order: usize) -> bool {
        self.learned.iter().all(|(name, index)| hardware(name).is_some_and(|name| name.order == Some(*index)))
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
        // Partition names are not kept; a name by them is rare.
        "PARTLABEL" | "partlabel" => return Some(Meant::Absent),
        _ => return None,
    };
    let exact = matches!(tag, "LABEL" | "label");
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

/// `/dev/sdb3`, `/dev/nvme0n1p2` in their parts.
fn hardware(spec: &str) -> Option<Hardware<'_>> {
    let rest = spec.strip_prefix("/dev/")?;
    for kind in ["sd", "hd", "vd", "xvd"] {
        let Some(tail) = rest.strip_prefix(kind) else { continue };
        let len = tail.bytes().take_while(u8::is_ascii_lowercase).count();
        let (letters, number) = tail.split_at_checked(len)?;
        if !(1..=3).contains(&len) || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let order = letters.bytes().fold(0_usize, |sum, byte| sum * 26 + usize::from(byte - b'a') + 1);
        return Some(Hardware {
            disk: spec.strip_suffix(number)?,
            order: order.checked_sub(1),
            partition: if number.is_empty() { None } else { Some(number.parse().ok()?) },
        });
    }
    let tail = rest.strip_prefix("nvme").or_else(|| rest.strip_prefix("mmcblk"))?;
    let (disk, partition) = match tail.rsplit_once('p') {
        Some((disk, partition)) => (disk, Some(partition.parse().ok()?)),
        None => (tail, None),
    };
    let shaped = disk.bytes().all(|byte| byte.is_ascii_digit() || byte == b'n');
    // One controller with many disks, or many with one each: only the first is sure.
    let order = matches!(disk, "0n1" | "0").then_some(0);
    let disk = spec.get(..spec.len() - (tail.len() - disk.len()))?;
    shaped.then_some(Hardware { disk, order, partition })
}

/// A link by hardware: by-id, by-path, a multipath map.
fn is_link(rest: &str) -> bool {
    rest.starts_with("disk/by-id/")
        || rest.starts_with("disk/by-path/")
        || rest.starts_with("mapper/mpath")
        || rest.starts_with("mapper/3600")
}

fn is_removable(rest: &str) -> bool {
    let kinds =
        ["sr", "scd", "fd", "cdrom", "dvd", "floppy", "loop", "ram", "zram", "nbd", "shm", "pts", "null"];
    kinds.iter().any(|kind| rest.starts_with(kind))
}

fn trailing_partition(name: &str) -> Option<u32> {
    let len = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (head, number) = name.split_at_checked(name.len() - len)?;
    let parted =
        head.ends_with("-part") || head.ends_with("_part") || head.contains("mpath") && head.ends_with('p');
    parted.then(|| number.parse().ok()).flatten()
}

/// A partition or a whole disk.
fn is_plain(volume: &Volume) -> bool {
    volume.device_names.is_empty()
}

/// True where a volume can be what fstab says that it is.
pub fn fits(volume: &Volume, kind: &str) -> bool {
    let family = |name: &str| match name {
        "ext2" | "ext3" | "ext4" => "ext".to_owned(),
        "vfat" | "msdos" | "fat" => "fat".to_owned(),
        "ntfs" | "ntfs3" | "ntfs-3g" => "ntfs".to_owned(),
        name => name.to_owned(),
    };
    match &volume.content {
        Content::FileSystem { name } => {
            kind.split(',').any(|kind| kind == "auto" || family(kind) == family(name))
        }
        Content::Swap { .. } => kind == "swap",
        // What cannot be seen into may hold anything.
        Content::Encrypted { .. } | Content::Member { .. } => true,
        Content::LvmPhysical { .. } | Content::Unknown => false,
    }
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
            part_type: None,
            disk,
            partition: Some(partition),
            device_names: Vec::new(),
        }
    }

    #[test]
    fn names_lead_to_volumes() {
        let mut volumes =
            vec![volume(0, 1, "ext4"), volume(0, 2, "swap"), volume(1, 1, "xfs"), volume(2, 1, "xfs")];
        volumes.push(Volume {
            id: VolumeId("vg/root".into()),
            partition: None,
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

    proptest::proptest! {
        #[test]
        fn no_name_panics(spec in "(/dev/)?(sd|hd|nvme|mmcblk|mapper/mpath|disk/by-|UUID=)?\\PC{0,12}") {
            Names::default().resolve(&spec, "auto", &[volume(0, 1, "ext4")]);
        }
    }
}
