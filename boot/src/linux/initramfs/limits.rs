//! Bounds against hostile archives, each with its reason.

use landfall_image::Bytes;

/// An initramfs file. The fattest seen in the field (every driver, GPU firmware) have about 300 MiB; a UEFI loader
/// or GRUB would hardly get one of this size into memory.
pub const ARCHIVE: Bytes = Bytes::gib(1);

/// The new files of all kernels together, which are in memory at once: 20 kernels have about 1.5 GiB.
pub const ARCHIVES: Bytes = Bytes::gib(4);

/// All its content unpacked. The guest's kernel holds it in memory while it starts, beside the archive itself.
pub const UNPACKED: Bytes = Bytes::gib(2);

/// Entries of all its archives together: a desktop image has 5000, a rescue image with all firmware 20 000.
pub const ENTRIES: usize = 500_000;

/// Archives one behind the other (microcode, modules, main, local additions: four). Bounds the work per byte.
pub const SEGMENTS: usize = 256;

/// Length of a path inside, with its NUL: the kernel skips longer ones (PATH_MAX).
pub const PATH: usize = 4096;

/// Symbolic links followed for one path: the kernel's own bound (MAXSYMLINKS).
pub const SYMLINKS: usize = 40;

/// Components looked up while parents are resolved, for the whole archive. An honest one needs a few per entry that
/// lies behind a link; without the bound, long paths through long links make minutes of work out of a small file.
pub const LOOKUPS: usize = 8_000_000;

/// Memory of an xz or LZMA decoder: presets up to -9 take 65 MiB, custom dictionaries of 128 MiB have been seen.
pub const XZ_MEMORY: u64 = 256 << 20;

/// Window of a zstd frame, as a power of two: what the kernel accepts (ZSTD_WINDOWSIZE_MAX, 128 MiB).
pub const ZSTD_WINDOW_LOG: u32 = 27;

/// Uncompressed size of one LZ4 block of the legacy frame: fixed by the format.
pub const LZ4_BLOCK: usize = 8 << 20;
