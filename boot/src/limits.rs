//! Every bound against hostile guests, each with its reason. A value beyond one is refused before memory is taken.

use landfall_image::Bytes;

/// Text metadata of an LVM volume group. The area is 1 MiB by default; groups of thousands of logical volumes have
/// been made with 16 MiB.
pub const LVM_METADATA: Bytes = Bytes::mib(32);

/// Text metadata of all physical volumes of a machine: a gross of them with a group of a thousand volumes.
pub const LVM_METADATA_IN_ALL: Bytes = Bytes::mib(128);

/// Values in the different texts of a machine. A logical volume has about 20, with 10 more for each segment.
pub const LVM_VALUES: usize = 1 << 20;

/// Legs of a mirrored logical volume; lvm2 makes 10 at most.
pub const LVM_LEGS: usize = 16;

/// Volumes of a machine: partitions, arrays, logical volumes. Linux itself stops at 256 partitions per disk.
pub const VOLUMES: usize = 4096;

/// Findings of one kind about a machine's volumes, of which more would only hide the others.
pub const ALIKE: usize = 32;

/// Nested sections in LVM metadata; its own goes to 5.
pub const LVM_DEPTH: usize = 16;

/// Data and metadata areas of one LVM physical volume; there are at most two of each.
pub const LVM_AREAS: usize = 16;

/// Segments and stripes of the logical volumes of a machine, in all.
pub const LVM_STRIPES: usize = 1 << 20;

/// Logical volumes that are made of others: a thin volume of a pool, whose data are cached, on an array, on disks.
pub const LVM_NESTING: usize = 8;

/// A superblock of md: what the kernel reads of one.
pub const MD_SUPERBLOCK: Bytes = Bytes(4096);

/// Disks of one md array, and roles in its superblock: as many as fit into it.
pub const MD_DISKS: u32 = 1920;

/// Arrays on arrays: level 0 or 1 over mirrors is made by hand, and nothing deeper.
pub const MD_NESTING: usize = 2;

/// Writes that one to a volume comes to, and pieces of disks that it lies on: some more than an array's disks in practice.
pub const FAN_OUT: usize = 1024;

/// Layers of storage one on the other (an array, encryption on it, a volume group on that): deeper ones are made by hand
/// only, and every one of them costs a read of all that was found.
pub const STORAGE_LAYERS: usize = 16;

/// Encrypted volumes of a machine that the key is tried on: each costs seconds and up to a gigabyte for that time.
pub const LUKS_VOLUMES: usize = 32;

/// Names of a guest's crypttab and mdadm.conf that are kept.
pub const MAPPED_NAMES: usize = 1024;

/// Lines of a guest's fstab that are kept.
pub const FSTAB_LINES: usize = 4096;

/// Block groups of an ext file system: 2 TiB of 1 KiB blocks has 262,144, 64 TiB of 4 KiB blocks 524,288.
pub const EXT_GROUPS: u64 = 1 << 20;

/// Names in one guest folder that are listed. Mail spools of half a million files have been seen.
pub const FOLDER_ENTRIES: usize = 1 << 20;

/// Length of a symbolic link's target: Linux's `PATH_MAX`.
pub const LINK_TARGET: Bytes = Bytes(4096);

/// Memory for cached blocks of one file system.
pub const FS_CACHE: Bytes = Bytes::mib(16);

/// Blocks of a journal that wait for replay: all of the largest journal that mke2fs makes (1 GiB of 4 KiB blocks).
pub const JOURNAL_BLOCKS: u64 = 1 << 18;

/// Blocks of 4 KiB of device-mapper metadata (thin pools, caches) that are kept in memory: 16 MiB.
pub const PERSISTENT_BLOCKS: usize = 4096;

/// Levels of a tree in device-mapper metadata. With 84 entries in a node, the fewest that the kernel leaves, ten levels
/// name more than 2^63 blocks.
pub const TREE_DEPTH: usize = 12;

/// Bytes that are copied at once when a block of a thin pool gets a second owner's copy: blocks have up to 1 GiB.
pub const THIN_COPY: Bytes = Bytes::mib(1);

/// Bytes of one disk of an array with parity that are computed at once. A chunk may have gigabytes.
pub const PARITY_PIECE: Bytes = Bytes::kib(64);

/// Blocks of a cache: LVM makes a million at most unless it is told otherwise, and each takes 16 bytes of memory here.
pub const CACHE_BLOCKS: u64 = 1 << 21;
