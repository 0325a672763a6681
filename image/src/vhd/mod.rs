//! VHD images, Virtual Hard Disk Image Format Specification 1.0: fixed, dynamic and differencing.
//!
//! The sector bitmaps count in dynamic disks too: a sector whose bit is clear was never written and reads as zeros,
//! whatever lies at its place. So the specification has it, and so read the writers that leave bits clear (XenServer
//! allocates blocks without zeroing them); Hyper-V, disk2vhd and QEMU set all bits of a block that they allocate.
//!
//! Deliberately absent: the parent's time stamp, which copying changes; batmaps (XenServer), which repeat what the
//! bitmaps say.

mod check;
mod dynamic;
mod footer;
mod reader;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers
mod tests;
mod write;

use crate::blocks::read::BlockDisk;
use crate::chain::Layer;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::gate::Gate;
use crate::source::Source;
use crate::units::{Bytes, FileOffset};
use footer::{COOKIE, FOOTER_BYTES, Footer, Kind, SHORT_FOOTER_BYTES, SizeRule};
use std::sync::Arc;

pub use check::check;
pub use write::{create, create_azure, create_fixed};

/// True where the file says that it is a VHD image: a footer's cookie at its end or its start.
pub fn probe(source: &Source) -> Result<bool> {
    let cookie_at = |at: u64| -> Result<bool> {
        let mut cookie = [0; COOKIE.len()];
        if at.checked_add(COOKIE.len() as u64).is_none_or(|end| end > source.len().0) {
            return Ok(false);
        }
        source.read_exact_at(FileOffset(at), &mut cookie)?;
        Ok(&cookie == COOKIE)
    };
    for length in [FOOTER_BYTES, SHORT_FOOTER_BYTES] {
        if let Some(at) = source.len().0.checked_sub(length as u64)
            && cookie_at(at)?
        {
            return Ok(true);
        }
    }
    cookie_at(0)
}

/// Opens one layer. Of differencing disks the parent is only named.
pub fn open(source: Source, _gate: &Gate) -> Result<Layer> {
    let path = source.path().to_owned();
    open_source(source).map_err(|e| e.in_file(&path))
}

fn open_source(source: Source) -> Result<Layer> {
    let found = find_footer(&source)?;
    let footer = &found.footer;
    let (size, rule) = footer.size()?;
    let mut details = vec![
        ("creator", footer.creator_name()),
        ("unique id", footer.unique_id.to_string()),
        (
            "size from",
            match rule {
                SizeRule::CurrentSize => "current size".to_owned(),
                SizeRule::Geometry => format!("geometry {:?}", footer.geometry),
            },
        ),
        ("footer", found.place.to_owned()),
    ];
    if footer.saved_state {
        details.push(("saved state", "yes: the machine was suspended".to_owned()));
    }
    let identity = Some(footer.unique_id.to_string());
    let (disk, parent, variant): (Arc<dyn Disk>, _, _) = match footer.kind {
        Kind::Fixed => (Arc::new(reader::Fixed::new(source, size, found.data_end)?), None, "fixed"),
        Kind::Dynamic | Kind::Differencing => {
            let opened = reader::Dynamic::new(source, footer, size, found.data_end)?;
            details.push(("block size", Bytes(opened.header().block_size_bytes).to_string()));
            let parent = match footer.kind {
                Kind::Differencing => Some(opened.parent()?),
                _ => None,
            };
            let variant = if parent.is_some() { "differencing" } else { "dynamic" };
            (Arc::new(BlockDisk(opened)), parent, variant)
        }
    };
    Ok(Layer {
        disk,
        parent,
        identity,
        variant: variant.to_owned(),
        details: details.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        extents: Vec::new(),
    })
}

/// The footer that counts.
struct Found {
    footer: Footer,
    /// Where the file's last footer begins, or the end of a file that lost it: no data may lie behind.
    data_end: u64,
    /// Which footer it is, for people.
    place: &'static str,
}

/// The footer at the end counts before its copy at the start, where a fixed disk has its guest's own first sector.
fn find_footer(source: &Source) -> Result<Found> {
    let len = source.len().0;
    let at_end = |length: usize, place| -> Result<Found> {
        let data_end = len.checked_sub(length as u64);
        let data_end = data_end
            .ok_or_else(|| Error::corrupt(format!("truncated: {len} bytes are less than a VHD footer")))?;
        let mut bytes = vec![0; length];
        source.read_exact_at(FileOffset(data_end), &mut bytes)?;
        let footer = Footer::parse(&bytes).map_err(|e| e.at(FileOffset(data_end)))?;
        Ok(Found { footer, data_end, place })
    };
    let mut first_error = None;
    for (length, place) in [
        (FOOTER_BYTES, "at the end"),
        (SHORT_FOOTER_BYTES, "at the end, 511 bytes as Virtual PC before 2004 wrote them"),
    ] {
        match at_end(length, place) {
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == crate::Kind::Corrupt => first_error.get_or_insert(error),
            Err(error) => return Err(error),
        };
    }
    let copy = Footer::parse(&source.head(FOOTER_BYTES)?).map_err(|e| e.at(FileOffset(0)));
    match copy {
        Ok(footer) if footer.kind != Kind::Fixed => {
            let place = "copy at the start; the one at the end is damaged";
            Ok(Found { footer, data_end: len, place })
        }
        Err(error) if source.head(COOKIE.len())? == COOKIE => Err(error),
        _ => Err(first_error.unwrap_or_else(|| Error::corrupt("there is no footer"))),
    }
}
