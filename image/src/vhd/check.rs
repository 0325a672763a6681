//! Checks the structures of a VHD file: both footers, the dynamic header, every entry of the block table and where the
//! parent locators lie.
//!
//! Deliberately absent: the sector bitmaps, which no rule restricts; batmaps (XenServer), which repeat what those say;
//! the parent, which is checked as an image of its own.

mod table;

use super::dynamic::{ENTRY_BYTES, HEADER_BYTES, Header, SECTOR_BYTES};
use super::footer::{self, FOOTER_BYTES, Footer, Kind, be32, be64};
use super::{Found, find_footer};
use crate::blocks::taken::{self, Taken};
use crate::check::{Checked, Severity};
use crate::convert::is_zero;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::gate::Gate;
use crate::source::Source;
use crate::units::{Bytes, FileOffset};

/// Where the locators lie in the header.
const LOCATORS_AT: u64 = 576;

/// Checks the image, but not its parent. The block table (at most 256 MiB) is read from its start to its end a bounded
/// number of times, with at most [`limits::RESIDENT_TABLE`](crate::limits::RESIDENT_TABLE) of memory for its entries.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for versions and types that are not read either; [`ErrorKind::Io`].
pub fn check(source: Source, _gate: &Gate) -> Result<Checked> {
    let mut checked = Checked::default();
    match walk(&source, &mut checked) {
        // Nothing behind it can be found.
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            checked.add(Severity::Corrupt, error.says(), error.offset());
        }
        Err(error) => return Err(error),
        Ok(()) => {}
    }
    Ok(checked)
}

fn walk(source: &Source, checked: &mut Checked) -> Result<()> {
    let found = find_footer(source)?;
    let footer = &found.footer;
    let (size, _) = footer.size()?;
    footers(source, &found, checked)?;
    if footer.kind == Kind::Fixed {
        checked.allocated = Bytes(size);
        if size > found.data_end {
            return Err(Error::corrupt(format!(
                "truncated: a fixed disk of {size} bytes is wanted, the file holds {} before its footer",
                found.data_end
            )));
        }
        // Where the geometry says the size, what it cuts off belongs to the disk all the same.
        let end = size.max(footer.current_size_bytes);
        if end < found.data_end {
            let lost = found.data_end - end;
            let says = format!("{lost} bytes between the disk and its footer are used by nothing");
            checked.add(Severity::Leak, says, Some(FileOffset(end)));
        }
        return Ok(());
    }

    let header_at = footer.data_offset;
    let mut bytes = [0; HEADER_BYTES];
    source.read_exact_at(FileOffset(header_at), &mut bytes)?;
    let header = Header::parse(&bytes).map_err(|e| e.at(FileOffset(header_at)))?;
    let reserved = [8..16, 60..64, 768..HEADER_BYTES].map(|range| bytes.get(range).unwrap_or_default());
    if reserved[0].iter().any(|byte| *byte != 0xff) || reserved[1..].iter().any(|part| !is_zero(part)) {
        checked.add(
            Severity::Note,
            "reserved fields of the dynamic header are not as they must be",
            Some(FileOffset(header_at)),
        );
    }
    let blocks = size.div_ceil(header.block_size_bytes);
    if blocks > u64::from(header.max_table_entries) {
        return Err(Error::corrupt(format!(
            "the block table has {} entries; a disk of {size} bytes needs {blocks}",
            header.max_table_entries
        ))
        .at(FileOffset(header_at)));
    }
    let table_bytes = u64::from(header.max_table_entries) * ENTRY_BYTES;
    let mut taken = vec![
        Taken { start: 0, end: FOOTER_BYTES as u64, what: "copy of the footer" },
        Taken {
            start: header_at,
            end: header_at.saturating_add(HEADER_BYTES as u64),
            what: "dynamic header",
        },
        Taken {
            start: header.table_offset,
            end: header.table_offset.saturating_add(table_bytes),
            what: "block table",
        },
    ];
    locators(source, footer, &header, &bytes, &mut taken, checked)?;
    taken.sort_by_key(|taken| (taken.start, taken.end));
    taken::check(&taken, found.data_end, checked);
    table::check(source, &header, size, found.data_end, &taken, checked)
}

/// The footer at the end, its copy at the start, and the fields of the one that counts.
fn footers(source: &Source, found: &Found, checked: &mut Checked) -> Result<()> {
    let len = source.len().0;
    let at_end = found.data_end < len;
    let counts_at = FileOffset(if at_end { found.data_end } else { 0 });
    let mut counts = vec![0; FOOTER_BYTES.min(usize::try_from(len - counts_at.0).unwrap_or(FOOTER_BYTES))];
    source.read_exact_at(counts_at, &mut counts)?;
    if !at_end {
        checked.add(
            Severity::Corrupt,
            "there is no valid footer at the end of the file, which may be cut off; its copy at the start counts",
            Some(FileOffset(len.saturating_sub(FOOTER_BYTES as u64))),
        );
    } else if found.footer.kind != Kind::Fixed {
        let copy = source.head(FOOTER_BYTES)?;
        match Footer::parse(&copy) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let says = format!("the copy of the footer at the start is damaged: {}", error.says());
                checked.add(Severity::Note, says, Some(FileOffset(0)));
            }
            Err(error) => return Err(error),
            Ok(other) if other != found.footer => {
                checked.add(
                    Severity::Corrupt,
                    "the footer at the end and its copy at the start differ in what they say of the disk",
                    Some(FileOffset(0)),
                );
            }
            // The footer of 511 bytes has one byte less.
            Ok(_) if copy.get(..counts.len()) != Some(&counts[..]) => {
                checked.add(
                    Severity::Note,
                    "the footer at the end and its copy at the start differ, but not in what they say of the disk",
                    Some(FileOffset(0)),
                );
            }
            Ok(_) => {}
        }
    }
    fields(&found.footer, &counts, counts_at, checked)
}

fn fields(footer: &Footer, bytes: &[u8], at: FileOffset, checked: &mut Checked) -> Result<()> {
    let mut note = |says: String| checked.add(Severity::Note, says, Some(at));
    if be32(bytes, 8)? & 2 == 0 || !is_zero(bytes.get(85..).unwrap_or_default()) {
        note("reserved fields of the footer are not as they must be".into());
    }
    if footer.kind == Kind::Fixed && be64(bytes, 16)? != u64::MAX {
        note(format!("the footer of a fixed disk names a dynamic header at {:#x}", footer.data_offset));
    }
    if footer.saved_state {
        note("the machine was suspended when it last used the disk".into());
    }
    let (cylinders, heads, sectors) = footer.geometry;
    let shown = u64::from(cylinders) * u64::from(heads) * u64::from(sectors) * SECTOR_BYTES;
    let size = footer.current_size_bytes;
    // The largest geometry stands for everything above it, and for what goes by the current size alone.
    if footer.geometry != footer::geometry(size) && footer.geometry != footer::GEOMETRY_MAX {
        note(format!(
            "the geometry is {cylinders} cylinders, {heads} heads, {sectors} sectors ({shown} bytes), not what a size of {size} bytes gives"
        ));
    }
    Ok(())
}

/// Where the paths of the parent lie.
fn locators(
    source: &Source,
    footer: &Footer,
    header: &Header,
    bytes: &[u8],
    taken: &mut Vec<Taken>,
    checked: &mut Checked,
) -> Result<()> {
    let at = Some(FileOffset(footer.data_offset.saturating_add(LOCATORS_AT)));
    if footer.kind != Kind::Differencing {
        let entries = bytes.get(576..768).unwrap_or_default();
        if !is_zero(entries) {
            checked.add(Severity::Note, "the disk has no parent, but places for its path", at);
        }
        return Ok(());
    }
    for (n, locator) in header.locators.iter().enumerate() {
        let end = locator.offset.saturating_add(u64::from(locator.length_bytes));
        if locator.length_bytes == 0 {
            continue;
        }
        if end > source.len().0 {
            let platform = locator.platform.escape_ascii();
            let says = format!(
                "parent locator {n} ({platform}) has {} bytes at {:#x}; the file ends at {:#x}",
                locator.length_bytes,
                locator.offset,
                source.len().0
            );
            checked.add(Severity::Corrupt, says, at);
            continue;
        }
        taken.push(Taken { start: locator.offset, end, what: "path of the parent" });
    }
    let parent = header.parent(|offset, length| {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        source.read_exact_at(FileOffset(offset), &mut bytes)?;
        Ok(bytes)
    });
    match parent {
        Ok(parent) if parent.names.is_empty() => {
            checked.add(Severity::Corrupt, "the disk needs a parent but names none", at);
            Ok(())
        }
        // Told above.
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(()),
        parent => parent.map(drop),
    }
}
