//! The content digest: one BLAKE3 value for what a guest can read from a disk, whatever the image format.
//!
//! Definition, version 1: BLAKE3 over
//! - the 18 ASCII bytes `landfall-content-1`,
//! - the disk's size in bytes, 64-bit little-endian,
//! - for each block of 1 MiB that is not all zeros, in rising order (the last block may be shorter): its guest
//!   offset in bytes, 64-bit little-endian, then the 32-byte BLAKE3 value of the block.
//!
//! So zeros cost nothing (an empty 16 TiB disk is digested at once), blocks are hashed in parallel, and two
//! disks have one digest exactly if their sizes and bytes are the same.

use crate::units::{Bytes, GuestOffset};

/// The unit that is hashed on its own.
pub const BLOCK: Bytes = Bytes::mib(1);

/// Collects block values in rising order.
pub struct ContentHasher {
    root: blake3::Hasher,
    next: GuestOffset,
}

impl ContentHasher {
    /// Starts the digest of a disk of `size`.
    pub fn new(size: Bytes) -> Self {
        let mut root = blake3::Hasher::new();
        root.update(b"landfall-content-1");
        root.update(&size.0.to_le_bytes());
        ContentHasher { root, next: GuestOffset(0) }
    }

    /// Adds the value of the block at `at`, a multiple of [`BLOCK`] behind all earlier ones, which is not all zeros.
    ///
    /// # Panics
    /// Where the blocks do not come in rising order: that would be another digest without a word.
    pub fn block(&mut self, at: GuestOffset, value: &blake3::Hash) {
        assert!(at >= self.next && at.0.is_multiple_of(BLOCK.0), "blocks come in rising order");
        self.root.update(&at.0.to_le_bytes());
        self.root.update(value.as_bytes());
        self.next = GuestOffset(at.0 + BLOCK.0);
    }

    /// The digest.
    pub fn finish(&self) -> blake3::Hash {
        self.root.finalize()
    }
}
