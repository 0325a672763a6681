//! Device names as they stand in configuration: what kind of name each is, and its parts.
//!
//! A name is *stable* where it comes from what lies on the disk (a UUID, a label, a logical volume, an md array) and
//! *fleeting* where it comes from the hardware (`/dev/sda1`, by-path, by-id): only the latter change with the hypervisor.

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
    let removable = [
        "sr", "scd", "fd", "cdrom", "dvd", "cdrw", "floppy", "loop", "ram", "zram", "nbd", "null", "shm",
        "pts",
    ];
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

#[cfg(test)]
mod tests {
    use super::*;

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

    proptest::proptest! {
        #[test]
        fn no_name_panics(spec in "(/dev/)?(sd|hd|nvme|cciss/c|mmcblk|mapper/mpath|disk/by-id/|dm-)?\\PC{0,12}") {
            classify(&spec);
        }
    }
}
