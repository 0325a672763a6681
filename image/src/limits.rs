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

/// Grain of a sparse VMDK extent. 64 KiB everywhere in practice; the header could say anything.
pub const VMDK_GRAIN: Bytes = Bytes::mib(128);

/// Grain of a compressed VMDK extent: each reading thread holds a few of them.
pub const VMDK_COMPRESSED_GRAIN: Bytes = Bytes::mib(2);

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

/// A VHDX log that must be replayed. It is read whole, and the search for its active sequence takes the square of
/// its sectors at worst; every known writer makes 1 MiB.
pub const VHDX_LOG: Bytes = Bytes::mib(64);

/// Pieces of a VHDX file that its log replaces: four times the data sectors that [`VHDX_LOG`] can hold are for
/// runs of zeros, of which a hostile log can name millions.
pub const VHDX_LOG_PIECES: usize = 1 << 16;

/// Largest VHDX disk that the specification allows.
pub const VHDX_SIZE: Bytes = Bytes(64 << 40);

/// Largest file whose VHDX blocks are checked for overlap on opening, and that `disk check` takes: one bit per MiB is
/// 16 MiB of memory, and a check needs two.
pub const OVERLAP_CHECK: Bytes = Bytes(128 << 40);

/// What the block table of a VHD can address: 2^32 sectors.
pub const VHD_DYNAMIC_SIZE: Bytes = Bytes(2 << 40);

/// Largest VHD that is written: what Hyper-V and QEMU take.
pub const VHD_WRITTEN: Bytes = Bytes::gib(2040);

/// Largest fixed VHD for Azure: its largest managed disk.
pub const VHD_AZURE: Bytes = Bytes(32 << 40);

/// Smallest block that the length of a VHD's block table is judged by. Writers use 512 KiB or 2 MiB; with smaller
/// blocks a table may be long, but not longer than 2 TiB in blocks of this size needs (256 MiB, read page by page).
pub const VHD_BLOCK_MIN: Bytes = Bytes::kib(32);

/// Internal snapshots of a qcow2 image: QEMU's own bound.
pub const QCOW2_SNAPSHOTS: u32 = 65_536;

/// Internal snapshots that are listed by name; more would only fill the screen.
pub const QCOW2_SNAPSHOTS_LISTED: u32 = 32;

/// Dirty bitmaps of a qcow2 image, and bytes of their directory: QEMU's own bounds.
pub const QCOW2_BITMAPS: u32 = 65_535;
/// See [`QCOW2_BITMAPS`].
pub const QCOW2_BITMAP_DIRECTORY: Bytes = Bytes::mib(64);

/// Bytes of tables that a check of a qcow2 image reads. The largest sound ones (64 TiB, full) are 8 GiB, once for
/// each window of the file; hostile ones name the same tables in many snapshots.
pub const QCOW2_CHECK: Bytes = Bytes(4 << 40);

/// Bytes of the key of a LUKS volume: two keys of AES-256 for xts are 64.
pub const LUKS_KEY: u32 = 512;

/// Bytes of a LUKS key slot's stripes: 4000 of 64 bytes everywhere in practice.
pub const LUKS_STRIPES: Bytes = Bytes::mib(4);

/// Steps of a LUKS key derivation. cryptsetup takes as many as the machine does in two seconds, some millions.
pub const LUKS_ITERATIONS: u32 = if cfg!(fuzzing) { 10_000 } else { 50_000_000 };

/// Key slots and digests of a LUKS header of version 2: as many as cryptsetup makes.
pub const LUKS_SLOTS: usize = 32;

/// Work for all key slots of a machine, in steps of PBKDF2 or KiB that Argon2 passes over. A wrong key on a volume takes
/// some millions for each of its slots, in a second or two.
pub const LUKS_WORK: u64 = if cfg!(fuzzing) { 1 << 20 } else { 1 << 29 };

/// Memory of a LUKS key derivation, which is given back before any data is read: cryptsetup never asks for more by
/// itself.
/// A fuzzer would do nothing else.
pub const LUKS_ARGON2: Bytes = if cfg!(fuzzing) { Bytes::mib(1) } else { Bytes::mib(1024) };

/// Passes over that memory: cryptsetup takes as many as the machine does in two seconds, four at least.
pub const LUKS_ARGON2_TIME: u32 = if cfg!(fuzzing) { 1 } else { 100 };

/// Lanes of that memory: cryptsetup makes no more than 4.
pub const LUKS_ARGON2_LANES: u32 = 64;

/// Bytes of a GPT's array of entries: 16 KiB is usual, and the most that tools make is 128 KiB.
pub const PARTITION_ARRAY: Bytes = Bytes::mib(1);

/// Headers in the archive of an OVA package, extended ones included. Real ones have about ten files; a disk in chunks
/// of 2 GB has dozens.
pub const OVA_HEADERS: usize = 16_384;

/// An extended (pax) header of an OVA's archive: names and numbers of one file.
pub const OVA_EXTENDED_HEADER: Bytes = Bytes::mib(1);

/// An OVF descriptor, or a package's manifest, which are read whole. The largest known (vCenter's) has 250 KiB.
pub const OVF: Bytes = Bytes::mib(16);

/// Headers in the archive of an XVA: two for each block, and those of archives that were packed again.
pub const XVA_HEADERS: usize = 1 << 26;

/// Blocks in one XVA: 16 TiB of data. Each takes 32 bytes of memory.
pub const XVA_BLOCKS: u64 = 1 << 24;

/// A block of an XVA: xapi writes 1 MiB, and takes less than 1 GiB. Each reading thread holds one.
pub const XVA_BLOCK: Bytes = Bytes::mib(16);

/// Disks with blocks in one XVA: a machine has at most 255, each of its snapshots as many again.
pub const XVA_DISKS: usize = 4096;

/// Disks that the definition in an XVA names.
pub const XVA_OBJECTS: usize = 65_536;

/// Members of an XVA that are none of its own, and are told by name.
pub const XVA_STRANGERS: usize = 16;

/// The list of one folder of an optical disc image, which is read whole: 100 bytes a name.
pub const ISO_FOLDER: Bytes = Bytes::mib(4);

/// Names in one folder of an optical disc image. Those of driver discs have a few dozen.
pub const ISO_ENTRIES: usize = 16_384;
