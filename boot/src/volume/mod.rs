//! Volumes: what partitions and logical volumes hold, found by reading the disks, without a mount.
//!
//! A [`Volume`] is a run of bytes somewhere on the machine's disks with one thing in it. [`View`] makes a disk of its
//! own of it, which is what file-system readers and the sandbox get.
//!
//! One file each: [`probe`] (superblock magic, UUID, label), [`lvm`] (physical volumes, metadata text, linear and
//! striped segments), [`view`] (segments on disks as one [`DiskMut`](landfall_image::DiskMut)), [`scan`](mod@scan) (all of a machine),
//! [`device_name`] (what a name in a guest's configuration consists of), [`names`] (which volume it means).

pub mod device_name;
pub(crate) mod field;
pub mod lvm;
pub mod names;
pub mod probe;
pub mod scan;
pub mod view;

pub use names::{Meant, Names};
pub use probe::Probe;
pub use scan::{Scan, scan};
pub use view::{Segment, View};

use landfall_image::Bytes;
use serde::{Deserialize, Serialize};

/// A volume's name in plans and reports: `disk0p1`, `disk1` (a disk without partitions), `vg0/root`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeId(pub String);

/// What is in a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Content {
    /// A file system by its kernel name (`ext4`, `ext3`, `ext2`, `xfs`, `btrfs`, `vfat`, `ntfs`).
    FileSystem {
        /// Kernel name.
        name: String,
    },
    /// Swap space; `hibernated` where it holds a suspended system.
    Swap {
        /// A suspended system lies in it.
        hibernated: bool,
    },
    /// An LVM physical volume.
    LvmPhysical {
        /// Name of its volume group.
        group: String,
    },
    /// LUKS, BitLocker or another container whose content cannot be seen.
    Encrypted {
        /// `LUKS2`.
        scheme: String,
    },
    /// Part of an md array, a ZFS pool and the like: recognised, not opened.
    Member {
        /// `linux-raid`, `zfs`.
        of: String,
    },
    /// Nothing that is known.
    Unknown,
}

/// A partition, a whole disk without partitions, or a logical volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// Name in plans and reports.
    pub id: VolumeId,
    /// Size.
    pub size: Bytes,
    /// What is in it.
    pub content: Content,
    /// File-system (swap, LUKS) UUID as `blkid` prints it.
    pub uuid: Option<String>,
    /// Label.
    pub label: Option<String>,
    /// Partition UUID as `/dev/disk/by-partuuid` has it.
    pub part_uuid: Option<String>,
    /// Partition name (GPT) as `/dev/disk/by-partlabel` has it.
    pub part_label: Option<String>,
    /// Partition type: `0x83`, or a GUID in lower case.
    pub part_type: Option<String>,
    /// Index of the disk (in the machine's order) that it begins on.
    pub disk: usize,
    /// Partition number, 1 and up; `None` for whole disks and logical volumes.
    pub partition: Option<u32>,
    /// Names under which a running Linux may have it, besides `sdX`: `/dev/vg0/root`, `/dev/mapper/vg0-root`.
    pub device_names: Vec<String>,
}
