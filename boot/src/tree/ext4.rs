//! ext2, ext3 and ext4 read straight from a disk, without a mount: the adapter of the ext4-view crate.
