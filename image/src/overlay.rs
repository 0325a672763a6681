//! A disk plus writes into scratch. All patching goes here; the source is never open for writing.
//!
//! Scratch is an unlinked temporary file, filled in the order of the writes; a map leads from each block of
//! [`BLOCK`] to its place there. It dies with the process and needs no clean-up.

use crate::units::Bytes;

/// The unit of copy-on-write.
pub const BLOCK: Bytes = Bytes::kib(4);

/// A base disk that reads as if it had been written to.
pub struct Overlay {}
