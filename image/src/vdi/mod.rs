//! VDI images of VirtualBox, version 1.1: dynamic, fixed and differencing.
//!
//! A differencing image names its parent by the parent's id alone; VirtualBox keeps the paths elsewhere. It is looked
//! for among the `.vdi` files in the image's folder and in the folder above, where VirtualBox keeps the base of its
//! snapshots, as far as the gate lets it.
//!
//! Deliberately absent: writing; undo images; versions before 1.1, which VirtualBox itself converts; blocks with extra
//! data, which nothing writes. An encrypted disk cannot be told from a plain one: only the machine's definition
//! says so.

mod check;
mod header;
mod reader;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers
mod tests;

pub use check::check;

use crate::blocks::read::BlockDisk;
use crate::chain::{Layer, ParentRef};
use crate::error::{Error, Result};
use crate::formats::{Format, OpenOptions};
use crate::gate::Gate;
use crate::source::Source;
use crate::units::{Bytes, FileOffset};
use header::{HEADER_BYTES, Header, Kind, SIGNATURE, SIGNATURE_AT};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Files in a folder that are looked at for a parent.
const CANDIDATES: usize = 4096;

/// True where the file says that it is a VDI image.
pub fn probe(source: &Source) -> Result<bool> {
    let head = source.head(SIGNATURE_AT + SIGNATURE.len())?;
    Ok(head.get(SIGNATURE_AT..) == Some(SIGNATURE))
}

/// Opens one layer. Of differencing disks the parent is only named; where none is found, the image is refused.
pub fn open(source: Source, options: &OpenOptions) -> Result<Layer> {
    let path = source.path().to_owned();
    open_source(source, &options.gate).map_err(|e| e.in_file(&path))
}

fn open_source(source: Source, gate: &Gate) -> Result<Layer> {
    let header = read_header(&source)?;
    let parent = match header.kind {
        Kind::Differencing => Some(find_parent(source.path(), &header, gate)?),
        Kind::Dynamic | Kind::Fixed => None,
    };
    let details = [
        ("block size", Bytes(header.block_size_bytes).to_string()),
        ("id", header.id.to_string()),
        ("modification id", header.modification_id.to_string()),
        ("parent id", header.parent_id.to_string()),
    ];
    let shown = if parent.is_some() { details.len() } else { details.len() - 1 };
    Ok(Layer {
        parent,
        identity: Some(header.modification_id.to_string()),
        variant: header.kind.name().to_owned(),
        details: details.into_iter().take(shown).map(|(name, value)| (name.to_owned(), value)).collect(),
        extents: Vec::new(),
        disk: Arc::new(BlockDisk(reader::Vdi::new(source, header)?)),
    })
}

fn read_header(source: &Source) -> Result<Header> {
    let mut bytes = [0; HEADER_BYTES];
    source.read_exact_at(FileOffset(0), &mut bytes)?;
    Header::parse(&bytes)
}

/// The image whose id the child names. Its modification id is checked as that of any parent is.
fn find_parent(child: &Path, header: &Header, gate: &Gate) -> Result<ParentRef> {
    let folder = child.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let allowed = gate.allowed().iter().filter_map(|folder| Some(format!("{}/", folder.to_str()?)));
    for above in ["".to_owned(), "../".to_owned()].into_iter().chain(allowed) {
        let Ok(entries) = std::fs::read_dir(folder.join(&above)) else { continue };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.to_ascii_lowercase().ends_with(".vdi"))
            .take(CANDIDATES)
            .map(|name| format!("{above}{name}"))
            .collect();
        names.sort();
        for name in names {
            let Ok(source) = gate.open(child, &name) else { continue };
            if read_header(&source).is_ok_and(|found| found.id == header.parent_id) {
                let identity = header.parent_modification_id;
                return Ok(ParentRef {
                    names: vec![name],
                    format: Some(Format::Vdi),
                    identities: (identity != Uuid::nil()).then(|| identity.to_string()).into_iter().collect(),
                    same_sectors: false,
                });
            }
        }
    }
    Err(Error::refused(format!(
        "is a differencing image (a snapshot or a linked clone), and its parent with the id {} lies neither beside it nor in an allowed folder",
        header.parent_id
    ))
    .hint("put the parent into the same folder, or name the folder in which it lies with --allow FOLDER"))
}
