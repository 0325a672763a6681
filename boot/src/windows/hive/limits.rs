//! Bounds against hostile hives, each with its reason. A value beyond one is refused before memory is taken.

use landfall_image::Bytes;

/// A hive or a log. Windows keeps SYSTEM in memory while it boots: 20 MB are usual. SOFTWARE of a server with
/// thousands of updates has been seen with 300 MB.
pub const HIVE: Bytes = Bytes::mib(512);

/// Levels of keys: what Windows allows.
pub const DEPTH: usize = 512;

/// Units of UTF-16 in a key's name: what Windows allows.
pub const KEY_NAME: usize = 255;

/// Units of UTF-16 in a value's name: what Windows allows.
pub const VALUE_NAME: usize = 16383;

/// Data that one cell holds in hives up to version 1.3, and what is written of a list: Windows takes larger cells
/// for damage.
pub const CELL: usize = 1 << 20;

/// Data of a value whose pieces are listed (version 1.4 and later): Windows allows all that memory holds. Nothing that
/// has to be changed in a registry comes near.
pub const DATA: usize = 64 << 20;
