//! VHDX images, [MS-VHDX] version 8: fixed, dynamic and differencing, with a dirty log replayed in memory.
//!
//! ```text
//! header section -> log (replayed over the file, in memory) -> region table -> metadata, block allocation table
//! ```
//!
//! Written are new files, dynamic, fixed and differencing; a file that exists is never changed, so that its log stays
//! as it is.
//!
//! Deliberately absent: resilient change tracking, whose files lie beside the image.

mod bat;
mod check;
mod header;
mod log;
mod metadata;
mod patched;
mod reader;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers
mod tests;
mod write;

use crate::chain::Layer;
use crate::error::Result;
use crate::gate::Gate;
use crate::source::Source;
use std::sync::Arc;

pub use check::check;
pub use write::{create, create_fixed};

/// True where the file says that it is a VHDX image.
pub fn probe(source: &Source) -> Result<bool> {
    Ok(source.head(header::FILE_SIGNATURE.len())? == header::FILE_SIGNATURE)
}

/// Opens one layer. Of differencing disks the parent is only named.
pub fn open(source: Source, _gate: &Gate) -> Result<Layer> {
    let path = source.path().to_owned();
    let opened = reader::Opened::new(source).map_err(|e| e.in_file(&path))?;
    let meta = &opened.metadata;
    let variant = match (&meta.parent, meta.leave_blocks_allocated) {
        (Some(_), _) => "differencing",
        (None, true) => "fixed",
        (None, false) => "dynamic",
    };
    let log = match opened.replayed {
        0 => "empty".to_owned(),
        1 => "replayed in memory, 1 entry".to_owned(),
        entries => format!("replayed in memory, {entries} entries"),
    };
    let details = [
        ("block size", crate::Bytes(meta.block_size_bytes).to_string()),
        ("logical sector size", meta.logical_sector_size_bytes.to_string()),
        ("physical sector size", meta.physical_sector_size_bytes.to_string()),
        ("virtual disk id", meta.virtual_disk_id.to_string()),
        ("creator", opened.creator.clone()),
        ("log", log),
    ];
    Ok(Layer {
        parent: meta.parent.clone(),
        identity: Some(opened.header.data_write_guid.to_string()),
        variant: variant.into(),
        details: details.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        extents: Vec::new(),
        disk: Arc::new(opened.into_disk()),
    })
}
