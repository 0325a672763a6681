//! The metadata of device-mapper's thin pools and caches: blocks with checksums, trees of them, and counts of references.
//!
//! Source: the kernel's `drivers/md/persistent-data` (and `Documentation/admin-guide/device-mapper/persistent-data.rst`).
//! Little-endian, in blocks of 4 KiB:
//!
//! ```text
//! every block  0 checksum of 4..4096: CRC-32C without the last inversion, XOR a number of the block's kind
//! superblock   8 own number; of each user, see thin and cache
//! tree node    4 flags (1 inner, 2 leaf) · 8 own number · 16 entries · 20 room · 24 bytes of a value
//!              32 keys, 8 bytes each, as many as there is room for · behind them the values; of inner nodes: block numbers
//! space map    root in the superblock: 0 blocks · 8 in use · 16 index · 24 tree of counts above 2 (4 bytes each)
//!   index      entries of 16 bytes: 0 bitmap's block · 8 free · 12 none is free before; of the map of metadata in one block
//!              (8 own number · 16 entries), of data in a tree
//!   bitmap     8 own number · 16 two bits per block, the higher one first: 0, 1, 2, or 3 for "see the tree of counts"
//! array block  4 room · 8 entries · 12 bytes of a value · 16 own number · 24 values; found by a tree
//! ```
//!
//! A snapshot shares tree nodes with its origin: one that is counted more than once is copied before it is changed, and what
//! it points at is counted once more. All else is changed in place, unlike in the kernel, which must survive a crash: here
//! everything goes into an overlay that is thrown away where it is not finished.
//!
//! One file each: [`store`] (blocks), [`node`] (a tree node), [`tree`] (finding, adding and removing keys), [`space`] (counts),
//! [`array`] (numbers and bits). Tested where they are used: by thin pools and caches.

pub(super) mod array;
pub(super) mod node;
mod space;
pub(super) mod store;
mod tree;

pub(super) use space::{Metadata, Roots, Which};
pub(super) use store::{BLOCK, Sort, Store, set, wrong};
pub(super) use tree::{Refers, Tree, find};
