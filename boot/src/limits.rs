//! Every bound against hostile guests, each with its reason. A value beyond one is refused before memory is taken.

use landfall_image::Bytes;

/// Text metadata of an LVM volume group. The area is 1 MiB by default; groups of thousands of logical volumes have
/// been made with 16 MiB.
pub const LVM_METADATA: Bytes = Bytes::mib(32);

/// Nested sections in LVM metadata; its own goes to 5.
pub const LVM_DEPTH: usize = 16;

/// Data and metadata areas of one LVM physical volume; there are at most two of each.
pub const LVM_AREAS: usize = 16;

/// Segments and stripes of the logical volumes of a machine, in all.
pub const LVM_STRIPES: usize = 1 << 20;

/// Lines of a guest's fstab that are kept.
pub const FSTAB_LINES: usize = 4096;
