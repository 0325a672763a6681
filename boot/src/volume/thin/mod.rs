//! Thin volumes: blocks of a pool that are handed out when they are written for the first time, and shared with snapshots.
//!
//! Source: the kernel's `Documentation/admin-guide/device-mapper/thin-provisioning.rst` and `drivers/md/dm-thin-metadata.c`.
//!
//! ```text
//! superblock (block 0 of the metadata volume; see persistent for what all blocks have)
//!   4 flags (bit 0: to be checked) · 32 magic · 40 version 1 or 2 · 44 time · 48 transaction · 56 root held by a reader
//!  64 space map of data · 192 of metadata · 320 tree of mappings · 328 tree of devices · 336 sectors of a data block
//! 340 sectors of a metadata block (8) · 344 metadata blocks · 352 features: compatible · 356 for reading · 360 others
//! mappings   device -> root of a tree: block of the volume -> block of the data << 24 | time of the mapping
//! devices    device -> 0 mapped blocks · 8 transaction · 16 time of creation · 20 time of its last snapshot
//! ```
//! A mapping that is older than the last snapshot is shared: the block is copied before it is written. What was never mapped
//! reads as zeros, or as the volume's origin outside of the pool. What is written stays in the pool's own books: blocks are
//! taken and counted as the kernel does it, so that the guest, its other volumes and its snapshots find them right.
//!
//! One file each: [`superblock`], [`pool`] (mappings), [`disk`] (a volume's bytes). Deliberately absent: making and removing
//! volumes, giving blocks back, and metadata that need a repair.

mod disk;
mod pool;
mod superblock;

pub(super) use disk::ThinDisk;
pub(super) use pool::Pool;

#[cfg(test)]
mod tests;
