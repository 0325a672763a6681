//! Checks the structures of a VHDX file: both copies of the headers and of the region table, the log, the metadata, and
//! every entry of the block allocation table.
//!
//! A log that was not yet applied is applied in memory, and what is checked is the file as it would be then. Blocks
//! begin at whole MiB by the way their places are written down, so that this is not checked.
//!
//! Deliberately absent: what the bits of a sector bitmap say, which no rule restricts; the parent, which is checked as
//! an image of its own.

mod table;

use super::bat::{self, Layout};
use super::header::{self, Header, Region, guid, le16, le32};
use super::log;
use super::metadata::{self, Metadata};
use super::patched::Patched;
use super::reader::{self, BAT_REGION, METADATA_REGION, read_patched, taken_by};
use crate::blocks::taken::{self, Taken};
use crate::check::{Checked, Severity};
use crate::convert::is_zero;
use crate::error::{Error, Kind, Result};
use crate::gate::Gate;
use crate::limits;
use crate::source::Source;
use crate::units::{Bytes, FileOffset};
use uuid::Uuid;

/// Checks the image, but not its parent. Time and memory are bounded by the size of the largest table (512 MiB, which
/// is read once) and by one bit for each MiB of the file.
///
/// # Errors
/// [`Kind::Unsupported`] for what is not read either; [`Kind::Refused`] for a file above
/// [`limits::OVERLAP_CHECK`] or a log beyond its limits; [`Kind::Io`].
pub fn check(source: Source, _gate: &Gate) -> Result<Checked> {
    let mut checked = Checked::default();
    match walk(source, &mut checked) {
        // Nothing behind it can be found.
        Err(error) if error.kind() == Kind::Corrupt => {
            checked.add(Severity::Corrupt, error.says(), error.offset());
        }
        Err(error) => return Err(error),
        Ok(()) => {}
    }
    Ok(checked)
}

fn walk(source: Source, checked: &mut Checked) -> Result<()> {
    header::parse_file_type(&read(&source, 0, header::FILE_TYPE_BYTES)?)?;
    let header = headers(&source, checked)?;
    let mut taken = vec![Taken { start: 0, end: header::SECTION_BYTES, what: "header section" }];
    let log_at = FileOffset(header.log_offset);
    if header.log_length > 0 || !header.log_guid.is_nil() {
        let (start, length) = (header.log_offset, u64::from(header.log_length));
        header::check_placement("log", start, length)?;
        taken.push(Taken { start, end: start + length, what: "log" });
    }
    let mut file = Patched::new(source);
    let replayed = log::replay(&mut file, &header).map_err(|e| e.at(log_at))?;
    if replayed > 0 {
        let says = format!("the log has {replayed} entries to be replayed; they were, in memory");
        checked.add(Severity::Note, says, Some(log_at));
    }
    if file.len() > limits::OVERLAP_CHECK.0 {
        return Err(Error::refused(format!(
            "a file of {}; those up to {} are checked",
            Bytes(file.len()),
            limits::OVERLAP_CHECK
        )));
    }
    let regions = region_tables(&file, checked)?;
    taken.extend(regions.iter().map(taken_by));
    taken.sort_by_key(|taken| (taken.start, taken.end));
    taken::check(&taken, file.len(), checked);
    let (bat, meta) = (find(&regions, BAT_REGION, "BAT")?, find(&regions, METADATA_REGION, "metadata")?);

    let at = FileOffset(meta.offset);
    let items = read_patched(&file, meta.offset, metadata::TABLE_BYTES)?;
    let read_item = |offset: u32, length: u32| {
        read_patched(&file, meta.offset + u64::from(offset), usize::try_from(length).unwrap_or(0))
    };
    let metadata = Metadata::parse(&items, meta.length, read_item).map_err(|e| e.at(at))?;
    metadata_table(&items, meta, checked)?;
    if metadata.parent.as_ref().is_some_and(|parent| parent.names.is_empty()) {
        checked.add(Severity::Corrupt, "the parent locator names no path of the parent", Some(at));
    }

    let layout = Layout::new(
        metadata.size_bytes,
        metadata.block_size_bytes,
        metadata.logical_sector_size_bytes,
        metadata.parent.is_some(),
    );
    let wanted = layout.entries * bat::ENTRY_BYTES;
    if wanted > bat.length {
        return Err(Error::corrupt(format!(
            "the block allocation table needs {} entries, {wanted} bytes; its region has {}",
            layout.entries, bat.length
        ))
        .at(FileOffset(bat.offset)));
    }
    table::check(&file, &metadata, layout, bat.offset, &taken, checked)
}

fn read(source: &Source, at: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    source.read_exact_at(FileOffset(at), &mut bytes)?;
    Ok(bytes)
}

/// The current header. A copy that is not valid is what a writer leaves that was stopped while it wrote it.
fn headers(source: &Source, checked: &mut Checked) -> Result<Header> {
    let [first, second] = header::HEADER_OFFSETS;
    let copies = [first, second].map(|at| read(source, at, header::HEADER_BYTES));
    let [Ok(a), Ok(b)] = copies else {
        let [a, b] = copies;
        return a.and(b).and_then(|_| Err(Error::corrupt("the headers are cut off")));
    };
    let current = Header::current(&a, &b).map_err(|e| e.at(FileOffset(first)))?;
    let mut numbers = Vec::new();
    for (at, bytes) in [(first, &a), (second, &b)] {
        match Header::parse(bytes) {
            Ok(header) => numbers.push(header.sequence_number),
            Err(error) => {
                let says = format!("one of the two headers is damaged, the other counts: {}", error.says());
                checked.add(Severity::Note, says, Some(FileOffset(at)));
                continue;
            }
        }
        if !is_zero(bytes.get(80..).unwrap_or_default()) {
            checked.add(
                Severity::Note,
                "reserved bytes of the header are not zero",
                Some(FileOffset(at + 80)),
            );
        }
    }
    if let [a, b] = numbers[..]
        && a == b
    {
        let says = format!("both headers have the sequence number {a}; one must be higher");
        checked.add(Severity::Note, says, Some(FileOffset(first + 8)));
    }
    Ok(current)
}

/// The regions, from the first table that is valid.
fn region_tables(file: &Patched, checked: &mut Checked) -> Result<Vec<Region>> {
    let regions = reader::regions(file)?;
    let mut valid = Vec::new();
    for at in header::REGION_TABLE_OFFSETS {
        let bytes = read_patched(file, at, header::REGION_TABLE_BYTES)?;
        if let Err(error) = header::parse_region_table(&bytes) {
            let says = format!("one of the two region tables is damaged, the other counts: {}", error.says());
            checked.add(Severity::Note, says, Some(FileOffset(at)));
            continue;
        }
        let entries = bytes.get(16..).unwrap_or_default().chunks_exact(32).take(regions.len());
        let unknown = entries.filter(|entry| le32(entry, 28).is_ok_and(|flags| flags & !1 != 0)).count();
        if unknown > 0 || le32(&bytes, 12)? != 0 {
            checked.add(
                Severity::Note,
                "reserved fields of the region table are not zero",
                Some(FileOffset(at)),
            );
        }
        valid.push(bytes);
    }
    if let [a, b] = &valid[..]
        && a != b
    {
        checked.add(
            Severity::Corrupt,
            "the two region tables differ, and both have a right checksum",
            Some(FileOffset(header::REGION_TABLE_OFFSETS[1])),
        );
    }
    Ok(regions)
}

fn find<'a>(regions: &'a [Region], id: Uuid, name: &str) -> Result<&'a Region> {
    let region = regions.iter().find(|region| region.id == id);
    region.ok_or_else(|| Error::corrupt(format!("the region table has no {name} region")))
}

/// What [`Metadata::parse`] passes over: items that it does not know, items on each other, reserved fields.
fn metadata_table(table: &[u8], region: &Region, checked: &mut Checked) -> Result<()> {
    let here = |at: usize| Some(FileOffset(region.offset + at as u64));
    let count = usize::from(le16(table, 10)?);
    let mut reserved = !is_zero(table.get(8..10).unwrap_or_default());
    reserved |= !is_zero(table.get(12..32).unwrap_or_default());
    let mut items: Vec<(u64, u64, Uuid, usize)> = Vec::new();
    let mut names: Vec<(Uuid, bool)> = Vec::new();
    for at in (0..count).map(|index| 32 + 32 * index) {
        let (id, flags) = (guid(table, at)?, le32(table, at + 24)?);
        let (offset, length) = (u64::from(le32(table, at + 16)?), u64::from(le32(table, at + 20)?));
        reserved |= flags & !7 != 0 || le32(table, at + 28)? != 0;
        names.push((id, flags & 1 != 0));
        if length == 0 {
            reserved |= offset != 0;
            continue;
        }
        if offset < metadata::TABLE_BYTES as u64 || offset + length > region.length {
            let says = format!(
                "the metadata item {id} lies at {offset:#x} with length {length:#x}, not behind the table and inside the region of {:#x}",
                region.length
            );
            checked.add(Severity::Corrupt, says, here(at));
            continue;
        }
        items.push((offset, offset + length, id, at));
    }
    items.sort_unstable();
    for ((_, end, one, _), (start, _, other, at)) in items.iter().zip(items.iter().skip(1)) {
        if end > start {
            let says = format!("the metadata items {one} and {other} overlap at {start:#x} of their region");
            checked.add(Severity::Corrupt, says, here(*at));
        }
    }
    names.sort_unstable();
    for (one, other) in names.iter().zip(names.iter().skip(1)) {
        if one == other {
            checked.add(Severity::Corrupt, format!("the metadata names item {} twice", one.0), here(0));
        }
    }
    if reserved {
        checked.add(Severity::Note, "reserved fields of the metadata table are not zero", here(0));
    }
    Ok(())
}
