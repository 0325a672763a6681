//! Writing VMDKs: one sink for streams, one for sparse extents, one for flat ones.
//!
//! ```text
//! vmdk             monolithicSparse        NAME.vmdk
//! vmdk-stream      streamOptimized         NAME.vmdk, compressed
//! vmdk-flat        monolithicFlat          NAME.vmdk (text), NAME-flat.vmdk
//! vmdk-split       twoGbMaxExtentSparse    NAME.vmdk (text), NAME-s001.vmdk, …
//! vmdk-split-flat  twoGbMaxExtentFlat      NAME.vmdk (text), NAME-f001.vmdk, …
//! vmdk-esxi        vmfs                    NAME.vmdk (text), NAME-flat.vmdk: ready for a datastore
//! ```
//! The content id is made from the content: the same disk gives the same bytes, and another disk another id.
//!
//! Deliberately absent: snapshots over a base, COWD and seSparse extents (ESXi makes them itself), devices.

mod content_id;
mod deflate;
mod files;
mod flat;
mod sparse;
mod stream;
mod text;

use crate::create::{Compression, CreateOptions, Preallocation, Takes};
use crate::error::{Error, Result};
use crate::limits;
use crate::sink::Sink;
use crate::units::{Bytes, SECTOR_SIZE_BYTES};
use std::path::Path;

/// What VMware gives an extent of a disk that is split "into 2 GB files": 2047 MiB.
const SPLIT: Bytes = Bytes::mib(2047);

/// The grain of every VMware product.
const GRAIN: Bytes = Bytes::kib(64);

/// Grains that a sparse extent can be made with. The specification wants more than 4 KiB; the rest of the range is
/// what a [`Sink`] may have as its unit.
const GRAINS: (u64, u64) = (8 << 10, 2 << 20);

/// Begins a monolithicSparse image.
pub fn create_sparse(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    check(
        path,
        size,
        options,
        "vmdk",
        &Takes { block_size: Some(GRAINS), adapter: true, ..Takes::default() },
    )?;
    sparse::create(path, size, sparse::Shape::Monolithic, options)
}

/// Compressions that can be chosen for a streamOptimized image, which always has the first.
pub const COMPRESSIONS: &[Compression] = &[Compression::Zlib];

/// Begins a streamOptimized image: what an OVA holds, and what vSphere imports.
pub fn create_stream(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    check(
        path,
        size,
        options,
        "vmdk-stream",
        &Takes { compression: COMPRESSIONS, within: true, adapter: true, ..Takes::default() },
    )?;
    stream::create(path, size, options)
}

/// Begins a twoGbMaxExtentSparse image.
pub fn create_split(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    check(
        path,
        size,
        options,
        "vmdk-split",
        &Takes { block_size: Some(GRAINS), adapter: true, ..Takes::default() },
    )?;
    sparse::create(path, size, sparse::Shape::Split, options)
}

/// Begins a monolithicFlat image.
pub fn create_flat(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    check(path, size, options, "vmdk-flat", &ROOM)?;
    flat::create(path, size, flat::Shape::Monolithic, options)
}

/// Begins a twoGbMaxExtentFlat image.
pub fn create_split_flat(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    check(path, size, options, "vmdk-split-flat", &ROOM)?;
    flat::create(path, size, flat::Shape::Split, options)
}

/// Begins a disk as it lies on a datastore of ESXi. Without preallocation it says that it is thin.
pub fn create_esxi(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    check(path, size, options, "vmdk-esxi", &ROOM)?;
    flat::create(path, size, flat::Shape::Esxi, options)
}

/// What the flat kinds take: room that is reserved (lazily zeroed), or written with zeros (eagerly zeroed).
const ROOM: Takes = Takes {
    compression: &[],
    block_size: None,
    extended_l2: false,
    preallocation: &[Preallocation::Falloc, Preallocation::Full],
    base: false,
    within: false,
    adapter: true,
};

fn check(path: &Path, size: Bytes, options: &CreateOptions, kind: &str, takes: &Takes) -> Result<()> {
    options.check(path, kind, takes)?;
    if size.0 == 0 || size > limits::DISK_SIZE {
        return Err(Error::refused(format!(
            "{kind} of {} bytes: 1 to {} are possible",
            size.0,
            limits::DISK_SIZE.0
        ))
        .in_file(path));
    }
    Ok(())
}

/// The sectors that hold `size`: a VMDK has no odd bytes, a disk that ends in the middle of a sector gets a whole one.
fn sectors(size: Bytes) -> u64 {
    size.0.div_ceil(SECTOR_SIZE_BYTES)
}

#[cfg(test)]
mod tests;
