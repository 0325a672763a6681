//! Every bound against hostile input, each with its reason. A value beyond one is refused before memory is taken.
//!
//! A test beside each reader goes one step beyond each bound that it uses.

use crate::units::Bytes;

/// Largest virtual disk: what VHDX and VMFS allow (64 TiB), four times over for raw devices and qcow2.
pub const DISK_SIZE: Bytes = Bytes(256 << 40);

/// Layers in a chain of backing files or snapshots. VMware allows 32; qcow2 chains of backup products are longer.
pub const CHAIN_LAYERS: usize = 256;

/// A VMDK descriptor. VMware reserves 10 KiB; one line per 2 GiB extent of a 64 TiB disk makes about 2 MiB.
pub const VMDK_DESCRIPTOR: Bytes = Bytes::mib(4);

/// Extents in one VMDK descriptor: 64 TiB in pieces of 2 GiB is 32768.
pub const VMDK_EXTENTS: usize = 32_768;

/// Memory for one table that a reader keeps whole (grain directory, qcow2 L1, VHDX or VHD block allocation table).
/// The largest legal one of a 64 TiB disk: a VHD-like table of 4-byte entries per 2 MiB, or a qcow2 L1 table.
pub const RESIDENT_TABLE: Bytes = Bytes::mib(32);

/// Memory for cached second-level tables, per open image.
pub const TABLE_CACHE: Bytes = Bytes::mib(16);

/// Memory for cached decompressed clusters or grains, per open image.
pub const CLUSTER_CACHE: Bytes = Bytes::mib(16);

/// Length of a file name inside an image (backing file, extent, parent locator): what Linux takes as a path.
pub const NAME: Bytes = Bytes(4096);

/// Partition table entries read: Linux itself stops at 256 per disk.
pub const PARTITIONS: usize = 256;

/// Memory for the data that a conversion or comparison has in flight, whatever the number of workers. What an encoder
/// makes of a chunk comes on top, one chunk per worker.
pub const CONVERT_BUFFERS: Bytes = Bytes::mib(48);
