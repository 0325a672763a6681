//! What the fuzz targets share: an input is a sparse file with its checksums made right, and whatever it is, opening,
//! mapping, reading and checking it must end soon, in little memory, without a panic, and without contradicting itself.

pub mod exercise;
pub mod frames;
pub mod hives;
pub mod receiver;
pub mod repair;
pub mod sparse;
pub mod streams;
pub mod talk;

use std::alloc::System;

/// The most memory that one run may hold at a time. The readers' caches and resident tables have bounds of some ten
/// MiB each in `landfall_image::limits`; the sum of all of them stays below this.
pub const MEMORY_BYTES: usize = 384 << 20;

/// More than the limit is an allocation failure, which aborts: a finding.
#[global_allocator]
static ALLOCATOR: cap::Cap<System> = cap::Cap::new(System, usize::MAX);

/// Limits what is held from here on to [`MEMORY_BYTES`] above what is held now.
pub fn limit_memory() {
    let _ = ALLOCATOR.set_limit(ALLOCATOR.allocated() + MEMORY_BYTES);
}
