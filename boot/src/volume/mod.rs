//! Volumes: what partitions and logical volumes hold, found by reading the disks, without a mount.
//!
//! A [`Volume`] is a run of bytes somewhere on the machine's disks with one thing in it. [`View`] makes a disk of its
//! own of it, which is what file-system readers and the sandbox get.
//!
//! One file each: [`probe`] (superblock magic, UUID, label), [`md`] (arrays), [`lvm`] (physical volumes, metadata text,
//! segments of all kinds), [`view`] (segments on disks as one [`DiskMut`](landfall_image::DiskMut)), `parity` (levels 4, 5
//! and 6), `thin` and `cache` (device-mapper's thin and cached volumes) with `persistent` (the format of their metadata),
//! [`ntfs`] (in which state a volume of Windows was left), [`scan`](mod@scan) (all of a machine, layer by layer, with what is encrypted),
//! [`device_name`] (what a name in a guest's configuration consists of), [`names`] (which volume it means).

mod cache;
pub mod device_name;
pub(crate) mod field;
pub mod lvm;
pub mod md;
pub mod names;
pub mod ntfs;
mod parity;
mod persistent;
pub mod probe;
pub mod scan;
mod thin;
pub mod view;

pub use names::{Meant, Names};
pub use probe::Probe;
pub use scan::{Scan, scan, scan_until, scan_with};
pub use view::{Segment, View};

use landfall_image::Bytes;
use serde::{Deserialize, Serialize};

/// A volume's name in plans and reports: `disk0p1`, `disk1` (a disk without partitions), `vg0/root`, `md0`,
/// `disk0p3:luks` (what is encrypted in `disk0p3`).
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct VolumeId(pub String);

/// What is in a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Content {
    /// A file system by its kernel name (`ext4`, `ext3`, `ext2`, `xfs`, `btrfs`, `vfat`, `ntfs`), or another that is only known.
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
    /// LUKS, BitLocker or another container; what is in it is a volume of its own where it was opened.
    Encrypted {
        /// `LUKS2`.
        scheme: String,
    },
    /// Part of an md array, a ZFS pool, a Dynamic Disk and the like. An array that was opened is a volume of its own; a pool is
    /// not opened.
    Member {
        /// `linux-raid`, `zfs`.
        of: String,
    },
    /// Nothing that is known.
    Unknown,
}

/// A partition, a whole disk without partitions, an array, a logical volume, or what is encrypted in another volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
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
    /// Partition number on its disk, 1 and up; `None` for whatever is no partition of a disk.
    pub partition: Option<u32>,
    /// Where it begins on its disk; `None` for whatever is no partition of a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Bytes>,
    /// Names under which a running Linux may have it, besides `sdX`: `/dev/vg0/root`, `/dev/mapper/vg0-root`.
    pub device_names: Vec<String>,
    /// Free space of the file system, as its superblock counts it (of btrfs before copies of metadata); `None` where that
    /// does not tell, or is known to be stale because a journal has to be replayed.
    pub free: Option<Bytes>,
    /// What it lies on: the physical volumes of its group, the members of its array, the encrypted volume that it was opened
    /// from. Empty for a partition and a whole disk.
    pub on: Vec<VolumeId>,
}

/// A volume group of LVM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct VolumeGroup {
    /// Its name, with a part of its UUID behind it where another one has the same.
    pub name: String,
    /// UUID as the tools print it.
    pub uuid: String,
    /// All of its extents; `None` where the metadata does not tell.
    pub size: Option<Bytes>,
    /// Extents that no logical volume has.
    pub free: Option<Bytes>,
    /// Its physical volumes that are here.
    pub on: Vec<VolumeId>,
    /// UUIDs of those that are not.
    pub missing: Vec<String>,
}

/// An array of md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Array {
    /// Its name: `md0`.
    pub name: String,
    /// UUID as mdadm prints it.
    pub uuid: String,
    /// `RAID1`, `linear`.
    pub level: String,
    /// Disks that it is to have.
    pub disks: u32,
    /// Members that are here, stale ones and spares too.
    pub on: Vec<VolumeId>,
    /// It was opened: what lies on it are volumes.
    pub opened: bool,
}

impl Volume {
    /// True where this volume is a layer, and what it holds is among `volumes`: it hides nothing.
    pub fn is_opened_in(&self, volumes: &[Volume]) -> bool {
        let has_name = |fits: &dyn Fn(&str) -> bool| {
            volumes.iter().any(|volume| volume.device_names.iter().any(|name| fits(name)))
        };
        match &self.content {
            Content::Encrypted { scheme } => {
                let inner = scan::opened_id(&self.id, scheme);
                volumes.iter().any(|volume| volume.id == inner)
            }
            Content::Member { of } if of == "linux-raid" => {
                let digits = self.uuid.as_deref().unwrap_or_default().replace('-', "");
                let fields = [digits.get(..8), digits.get(8..16), digits.get(16..24), digits.get(24..)];
                let fields: Vec<&str> = fields.into_iter().flatten().collect();
                let own = format!("/dev/disk/by-id/md-uuid-{}", fields.join(":"));
                digits.len() == 32
                    && has_name(&|name| {
                        name.strip_prefix(&own)
                            .is_some_and(|rest| rest.is_empty() || rest.starts_with("-part"))
                    })
            }
            // Logical volumes that are not opened are volumes, too, and hide what is in them.
            Content::LvmPhysical { group } if !group.is_empty() => {
                let folder = format!("/dev/{group}/");
                has_name(&|name| name.starts_with(&folder))
            }
            _ => false,
        }
    }
}
