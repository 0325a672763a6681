//! From a file to a layer: reads the header and the L1 table, finds the data file, names the parent.

use super::codec::Expander;
use super::entry::Geometry;
use super::header::{self, Header};
use super::read::Reader;
use super::snapshot;
use crate::chain::{Layer, ParentRef};
use crate::error::{Error, Result};
use crate::formats::Format;
use crate::gate::Gate;
use crate::limits;
use crate::source::Source;
use crate::units::Bytes;
use std::sync::Arc;

/// True where the file says that it is a qcow2 image.
pub fn probe(source: &Source) -> Result<bool> {
    Ok(source.head(header::MAGIC.len())? == header::MAGIC)
}

/// Opens one layer. A data file of its own is opened through `gate`; the backing file is only named.
pub fn open(source: Source, gate: &Gate) -> Result<Layer> {
    let here = source.path().to_owned();
    open_layer(source, gate).map_err(|error| error.in_file(&here))
}

fn open_layer(source: Source, gate: &Gate) -> Result<Layer> {
    let header = read_header(&source)?;
    if header.size > limits::DISK_SIZE {
        return Err(Error::refused(format!(
            "says it is a disk of {}; the limit is {}",
            header.size,
            limits::DISK_SIZE
        )));
    }
    let geometry = Geometry::new(&header);
    let l1 = read_l1(&source, &header, geometry)?;
    let data = match &header.external_data {
        None => source.clone(),
        Some(Some(name)) => gate.open(source.path(), local_name(name, "data file")?)?,
        Some(None) => {
            return Err(Error::unsupported("keeps its data in another file and does not name it")
                .hint("write the name into a copy of the image: qemu-img amend -o data_file=NAME COPY"));
        }
    };
    let parent = match &header.backing_file {
        None => None,
        Some(name) => Some(ParentRef {
            names: vec![local_name(name, "backing file")?.to_owned()],
            format: header.backing_format.as_deref().map(format).transpose()?,
            identity: None,
        }),
    };
    let details = details(&source, &header)?;
    let extents = header.external_data.iter().map(|_| data.path().to_owned()).collect();
    let expander = Expander::new(header.compression);
    let reader = Reader::new(source, data, geometry, header.size, header.l1_table, &l1, expander)?;
    Ok(Layer {
        disk: Arc::new(reader),
        parent,
        identity: None,
        variant: format!("v{}", header.version),
        details,
        extents,
    })
}

/// Cluster 0 holds all of the header; its size is in its first bytes.
fn read_header(source: &Source) -> Result<Header> {
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
fn read_l1(source: &Source, header: &Header, geometry: Geometry) -> Result<Vec<u8>> {
    let needed = header.size.0.div_ceil(1 << geometry.l1_span_bits());
    if needed > u64::from(header.l1_entries) {
        return Err(Error::corrupt(format!(
            "the L1 table has {} entries; a disk of {} needs {needed}",
            header.l1_entries, header.size
        ))
        .at(crate::FileOffset(header::at::L1_ENTRIES as u64)));
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
    let table = source.window(header.l1_table, Bytes(bytes)).map_err(|error| {
        error.hint("the image is cut off: copy it again from its origin and compare the sizes")
    })?;
    table.head(usize::try_from(bytes).unwrap_or(usize::MAX))
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

/// The format of a backing file, by QEMU's name.
fn format(name: &str) -> Result<Format> {
    match name {
        "raw" => Ok(Format::Raw),
        "qcow2" => Ok(Format::Qcow2),
        "vmdk" => Ok(Format::Vmdk),
        "vpc" => Ok(Format::Vhd),
        "vhdx" => Ok(Format::Vhdx),
        other => Err(Error::unsupported(format!(
            "its backing file has the format {other:?}; raw, qcow2, vmdk, vpc and vhdx are read"
        ))
        .hint("convert the whole chain into one image: qemu-img convert -O qcow2 IMAGE NEW_IMAGE")),
    }
}

fn details(source: &Source, header: &Header) -> Result<Vec<(String, String)>> {
    let mut details = vec![
        ("cluster size".to_owned(), Bytes(header.cluster_size()).to_string()),
        ("compression".to_owned(), header.compression.name().to_owned()),
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
    if header.bitmaps > 0 {
        add("bitmaps", header.bitmaps.to_string());
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
