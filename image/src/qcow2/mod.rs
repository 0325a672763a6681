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
//! backing files, external data files. Written: version 3, plain or compressed, by many threads at once, without a
//! backing file.
//!
//! Absent on purpose: encrypted images are refused; internal snapshots and bitmaps are counted and named, not read;
//! reference counts are not needed for reading and not checked; an image marked corrupt is refused (repair a copy
//! with `qemu-img check` first).

mod cache;
mod codec;
mod entry;
mod finish;
mod header;
mod open;
mod read;
mod snapshot;
#[cfg(test)]
mod tests;
mod write;

pub use open::{open, probe};
pub use write::create;
