//! From a file to a layer: reads the header and the L1 table, finds the data file, names the parent.

use super::bitmaps::{self, Bitmap};
use super::codec::{self, Expander};
use super::entry::Geometry;
use super::header::{self, Header, at};
use super::read::{Parts, Reader};
use super::snapshot;
use crate::chain::{Layer, ParentRef};
use crate::error::{Error, Result};
use crate::formats::{Format, OpenOptions};
use crate::limits;
use crate::luks;
use crate::source::Source;
use crate::units::{Bytes, FileOffset};
use std::sync::Arc;

/// Bitmaps that are listed by name; more would only fill the screen.
const BITMAPS_LISTED: usize = 32;

/// True where the file says that it is a qcow2 image.
pub fn probe(source: &Source) -> Result<bool> {
    Ok(source.head(header::MAGIC.len())? == header::MAGIC)
}

/// Opens one layer, at the internal snapshot that `options` name, else as it is now. A data file of its own is opened
/// through the gate; the backing file is only named.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) for an encrypted image without its key, for a snapshot that is not there,
/// and for what breaks a limit.
pub fn open(source: Source, options: &OpenOptions) -> Result<Layer> {
    let here = source.path().to_owned();
    open_layer(source, options).map_err(|error| error.in_file(&here))
}

fn open_layer(source: Source, options: &OpenOptions) -> Result<Layer> {
    let header = read_header(&source)?;
    if header.corrupt {
        return Err(Error::corrupt("QEMU marked this image as corrupt").at(FileOffset(at::INCOMPATIBLE as u64)).hint(
            "repair a copy of it (qemu-img check -r all COPY), check the guest's file systems, then convert the copy",
        ));
    }
    let geometry = Geometry::new(&header);
    let mut table = L1Table { at: header.l1_table, entries: header.l1_entries, size: header.size };
    let mut details = details(&source, &header)?;
    if let Some(wanted) = &options.snapshot {
        let snapshot = snapshot::find(&source, &header, wanted)?;
        details.push(("read at snapshot".to_owned(), snapshot.shown()));
        table = L1Table {
            at: snapshot.l1_table,
            entries: snapshot.l1_entries,
            size: snapshot.size.unwrap_or(header.size),
        };
        if table.entries > 0 && (table.at.0 == 0 || !table.at.0.is_multiple_of(header.cluster_size())) {
            let says = format!(
                "the L1 table of the snapshot lies at {:#x}; it must lie on a multiple of {:#x} behind the header",
                table.at.0,
                header.cluster_size()
            );
            return Err(Error::corrupt(says).at(snapshot.at));
        }
    }
    let l1 = read_l1(&source, table, geometry)?;
    let data = match &header.external_data {
        None => source.clone(),
        Some(Some(name)) => options.gate.open(source.path(), local_name(name, "data file")?)?,
        Some(None) => {
            return Err(Error::unsupported("keeps its data in another file and does not name it")
                .hint("write the name into a copy of the image: qemu-img amend -o data_file=NAME COPY"));
        }
    };
    let parent = match &header.backing_file {
        None => None,
        Some(_) if options.alone => None,
        Some(name) => Some(ParentRef {
            names: vec![local_name(name, "backing file")?.to_owned()],
            format: header.backing_format.as_deref().map(format).transpose()?,
            identities: Vec::new(),
            same_sectors: false,
        }),
    };
    let cipher = match header.luks {
        None => None,
        Some((at, len)) => {
            let unlocked = luks::unlock(&source.window(at, len)?, options.key.as_ref())?;
            details.extend(unlocked.details);
            Some(unlocked.cipher)
        }
    };
    let extents = header.external_data.iter().map(|_| data.path().to_owned()).collect();
    let expander = Expander::new(header.compression);
    let reader = Reader::new(Parts { source, data, geometry, cipher, expander }, table, &l1)?;
    Ok(Layer {
        disk: Arc::new(reader),
        parent,
        identity: None,
        variant: format!("v{}", header.version),
        details,
        extents,
    })
}

/// Where the L1 table of a disk lies: of the current state, or of a snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct L1Table {
    pub at: FileOffset,
    pub entries: u32,
    /// Size of the disk.
    pub size: Bytes,
}

/// Cluster 0 holds all of the header; its size is in its first bytes.
pub(super) fn read_header(source: &Source) -> Result<Header> {
    let head = source.head(header::at::V3_FULL)?;
    if !head.starts_with(&header::MAGIC) {
        return header::parse(&head);
    }
    match header::cluster_size(&head) {
        Ok(size) => header::parse(&source.head(usize::try_from(size).unwrap_or(usize::MAX))?),
        Err(_) => header::parse(&head),
    }
}

/// The part of the L1 table that the disk needs.
fn read_l1(source: &Source, table: L1Table, geometry: Geometry) -> Result<Vec<u8>> {
    if table.size > limits::DISK_SIZE {
        return Err(Error::refused(format!(
            "says it is a disk of {}; the limit is {}",
            table.size,
            limits::DISK_SIZE
        )));
    }
    let needed = table.size.0.div_ceil(1 << geometry.l1_span_bits());
    if needed > u64::from(table.entries) {
        return Err(Error::corrupt(format!(
            "the L1 table has {} entries; a disk of {} needs {needed}",
            table.entries, table.size
        ))
        .at(FileOffset(at::L1_ENTRIES as u64)));
    }
    let bytes = needed.saturating_mul(8);
    if bytes > limits::RESIDENT_TABLE.0 {
        return Err(Error::refused(format!(
            "needs an L1 table of {}; the limit is {}",
            Bytes(bytes),
            limits::RESIDENT_TABLE
        ))
        .hint("convert it with qemu-img convert -O qcow2 -o cluster_size=64k first"));
    }
    // Checked before memory is taken for it.
    let l1 = source.window(table.at, Bytes(bytes)).map_err(|error| {
        error.hint("the image is cut off: copy it again from its origin and compare the sizes")
    })?;
    l1.head(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// A name as a path on this machine; what only QEMU understands is refused.
fn local_name<'a>(name: &'a str, what: &str) -> Result<&'a str> {
    let name = name.strip_prefix("file:").unwrap_or(name);
    let protocol = name.find([':', '/']).is_some_and(|at| name[at..].starts_with(':'));
    if !protocol {
        return Ok(name);
    }
    let shown: String = name.chars().take(200).collect();
    Err(Error::unsupported(format!("its {what} is {shown:?}, which is no plain file name")).hint(format!(
        "copy the {what} beside the image and write its plain name into a copy of the image (qemu-img {})",
        if what == "data file" { "amend -o data_file=NAME COPY" } else { "rebase -u -b NAME -F FORMAT COPY" }
    )))
}

/// QEMU's name of a format, where an image of it can be a backing file here.
pub(super) fn qemu_name(format: Format) -> Option<&'static str> {
    match format {
        Format::Raw => Some("raw"),
        Format::Qcow2 => Some("qcow2"),
        Format::Vmdk => Some("vmdk"),
        Format::Vhd => Some("vpc"),
        Format::Vhdx => Some("vhdx"),
        Format::Vdi => Some("vdi"),
        #[allow(unreachable_patterns)] // formats that QEMU does not know
        _ => None,
    }
}

/// The format of a backing file, by QEMU's name.
fn format(name: &str) -> Result<Format> {
    match name {
        "raw" => Ok(Format::Raw),
        "qcow2" => Ok(Format::Qcow2),
        "vmdk" => Ok(Format::Vmdk),
        "vpc" => Ok(Format::Vhd),
        "vhdx" => Ok(Format::Vhdx),
        "vdi" => Ok(Format::Vdi),
        other => Err(Error::unsupported(format!(
            "its backing file has the format {other:?}; raw, qcow2, vmdk, vpc, vhdx and vdi are read"
        ))
        .hint("convert the whole chain into one image: qemu-img convert -O qcow2 IMAGE NEW_IMAGE")),
    }
}

fn details(source: &Source, header: &Header) -> Result<Vec<(String, String)>> {
    let mut details = vec![
        ("cluster size".to_owned(), Bytes(header.cluster_size()).to_string()),
        ("compression".to_owned(), codec::name(header.compression).to_owned()),
        ("refcount bits".to_owned(), (1u32 << header.refcount_order).to_string()),
    ];
    let mut add = |name: &str, value: String| details.push((name.to_owned(), value));
    if header.extended_l2 {
        add("extended L2", "yes".to_owned());
    }
    if header.lazy_refcounts {
        add("lazy refcounts", "yes".to_owned());
    }
    if header.dirty {
        add(
            "dirty",
            "yes: the writer did not close it; reference counts may be stale, the content is not".to_owned(),
        );
    }
    if let Some(name) = &header.backing_file {
        add("backing file", name.clone());
        add("backing format", header.backing_format.clone().unwrap_or_else(|| "not recorded".to_owned()));
    }
    if let Some(Some(name)) = &header.external_data {
        add("data file", name.clone());
        add("data file is raw", if header.raw_external { "yes" } else { "no" }.to_owned());
    }
    if header.snapshots > 0 {
        let names = snapshot::names(source, header)?;
        let more = if header.snapshots as usize > names.len() { ", …" } else { "" };
        add("internal snapshots", format!("{}: {}{more}", header.snapshots, names.join(", ")));
    }
    if let Some(bitmaps) = header.bitmaps.filter(|bitmaps| bitmaps.count > 0) {
        // Damaged ones do not stop the disk from being read: its content does not depend on them.
        let listed = match bitmaps::read(source, &bitmaps) {
            Ok(bitmaps) => {
                bitmaps.iter().take(BITMAPS_LISTED).map(Bitmap::shown).collect::<Vec<_>>().join(", ")
            }
            Err(error) => format!("not readable: {}", error.says()),
        };
        let more = if bitmaps.count as usize > BITMAPS_LISTED { ", …" } else { "" };
        let stale =
            if bitmaps.up_to_date { "" } else { " (out of date: the image was written without them)" };
        add("bitmaps", format!("{}: {listed}{more}{stale}", bitmaps.count));
    }
    Ok(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_files() {
        for (name, file) in
            [("a.raw", "a.raw"), ("dir/a:b.raw", "dir/a:b.raw"), ("file:a.raw", "a.raw"), ("/x/y", "/x/y")]
        {
            assert_eq!(local_name(name, "backing file").unwrap(), file);
        }
        for name in ["json:{\"driver\":\"qcow2\"}", "nbd://host/x", "nbd:unix:/x", "a:b", "fd:3", ":"] {
            let error = local_name(name, "backing file").unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Unsupported, "{name}");
            assert!(error.hint_text().is_some());
        }
        assert_eq!(format("vpc").unwrap(), Format::Vhd);
        assert!(format("qcow").is_err());
    }
}
