//! qcow2 images, versions 2 and 3: QEMU's copy-on-write format.
//!
//! Specification: QEMU, docs/interop/qcow2.
//!
//! ```text
//! guest offset:  | L1 index | L2 index | offset in the cluster |
//!
//! header ──> L1 table ──> L2 table ──> data cluster                      one entry = one cluster
//!                                  ├─> compressed bytes anywhere         deflate or zstd, one cluster each
//!                                  ├─> nothing: zeros                    (v3)
//!                                  └─> nothing: the backing file shines through
//! ```
//!
//! Read: both versions, every cluster size (512 bytes to 2 MiB), subclusters (extended L2 entries), deflate and zstd,
//! backing files, external data files, internal snapshots, LUKS. Written: version 3, plain, compressed, with
//! subclusters, over a backing file, preallocated; the same bytes whatever the number of threads.
//!
//! Absent on purpose: the old AES encryption is refused; bitmaps are listed, not read; an image marked corrupt is
//! refused (repair a copy with `qemu-img check` first).

mod bitmaps;
mod cache;
mod check;
mod codec;
mod entry;
mod header;
mod layout;
mod open;
mod read;
mod refcounts;
mod snapshot;
mod space;
#[cfg(test)]
mod tests;
mod write;

pub use check::check;
pub use open::{open, probe};
pub use write::{COMPRESSIONS, create};
