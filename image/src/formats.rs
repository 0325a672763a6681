//! The table of disk formats: one row each, and everything that asks "which format?" reads it.
//!
//! To add a format: write its module, add a variant to [`Format`] and a row to [`TABLE`].

use crate::chain::{Layer, ParentRef};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::gate::Gate;
use crate::sink::Sink;
use crate::source::Source;
use crate::units::Bytes;
use std::path::Path;
use std::sync::Arc;

/// A disk format that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The bytes of the disk themselves.
    Raw,
    /// QEMU copy-on-write, versions 2 and 3.
    Qcow2,
    /// VMware, every kind: descriptor files and sparse extents.
    Vmdk,
    /// Hyper-V, second generation.
    Vhdx,
    /// Virtual PC and Hyper-V, first generation.
    Vhd,
}

/// How an image is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The format, where it is known. Without it the image is probed; a raw disk cannot be told from a forged
    /// header, so record the format when a disk arrives.
    pub format: Option<Format>,
    /// Which files the image may name.
    pub gate: Gate,
}

/// How image data is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Deflate: read everywhere.
    Zlib,
    /// Zstandard: smaller and much faster, read by QEMU 5.1 and later.
    Zstd,
}

/// How an image is created.
#[derive(Clone, Copy, Debug, Default)]
pub struct CreateOptions {
    /// Compress the data, where the format can.
    pub compression: Option<Compression>,
    /// Replace a file that is there. It stays until the new one is complete.
    pub replace: bool,
}

/// Begins a new image of a disk of that size.
pub type Create = fn(&Path, Bytes, &CreateOptions) -> Result<Box<dyn Sink>>;

/// One row of the table.
pub struct Row {
    /// The format.
    pub format: Format,
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// File name endings that suggest it, for new files.
    pub endings: &'static [&'static str],
    /// True where the image says so itself (never by its name).
    pub probe: fn(&Source) -> Result<bool>,
    /// Reads one layer; files that it names are opened through the gate, its parent is only named.
    pub open: fn(Source, &Gate) -> Result<Layer>,
    /// Begins a new image of a size; `None` where the format is only read.
    pub create: Option<Create>,
}

/// All formats, in the order in which they are probed; raw takes what is left.
pub const TABLE: &[Row] = &[
    Row {
        format: Format::Qcow2,
        name: "qcow2",
        endings: &["qcow2"],
        probe: crate::qcow2::probe,
        open: crate::qcow2::open,
        create: Some(create_qcow2),
    },
    Row {
        format: Format::Vmdk,
        name: "vmdk",
        endings: &["vmdk"],
        probe: crate::vmdk::probe,
        open: crate::vmdk::open,
        create: None,
    },
    Row {
        format: Format::Vhdx,
        name: "vhdx",
        endings: &["vhdx", "avhdx"],
        probe: crate::vhdx::probe,
        open: crate::vhdx::open,
        create: None,
    },
    Row {
        format: Format::Vhd,
        name: "vhd",
        endings: &["vhd", "avhd", "vpc"],
        probe: crate::vhd::probe,
        open: crate::vhd::open,
        create: None,
    },
    Row {
        format: Format::Raw,
        name: "raw",
        endings: &["raw", "img"],
        probe: |_| Ok(true),
        open: crate::raw::open,
        create: Some(create_raw),
    },
];

/// Formats that are recognised by their magic so that they are refused by name, never read as raw.
const FOREIGN: &[(&str, usize, &[u8])] = &[
    ("Bochs growing disk", 0, b"Bochs Virtual HD Image"),
    ("Parallels disk", 0, b"WithoutFreeSpace"),
    ("Parallels disk", 0, b"WithouFreSpacExt"),
    ("VirtualBox VDI", 0x40, b"\x7f\x10\xda\xbe"),
    ("QED", 0, b"QED\0"),
    ("qcow version 1", 0, b"QFI\xfb\0\0\0\x01"),
    ("cloop", 0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),
    ("Expert Witness (E01)", 0, b"EVF\x09\x0d\x0a\xff\x00"),
    ("Advanced Forensic Format", 0, b"AFF10\r\n\0"),
];

impl Format {
    /// Its row.
    pub fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.format == self).unwrap_or(&TABLE[TABLE.len() - 1])
    }
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        self.row().name
    }
    /// The format of that name.
    pub fn from_name(name: &str) -> Option<Format> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.format)
    }
    /// The format that a new file's name suggests.
    pub fn from_ending(path: &Path) -> Option<Format> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        TABLE.iter().find(|row| row.endings.contains(&ending.as_str())).map(|row| row.format)
    }
}

/// Which format the bytes say they are; a foreign format is refused by name.
pub fn probe(source: &Source) -> Result<Format> {
    let head = source.head(4096)?;
    for (name, at, magic) in FOREIGN {
        if head.get(*at..at + magic.len()) == Some(*magic) {
            return Err(foreign(source, name));
        }
    }
    // Apple UDIF has its magic 512 bytes before the end.
    if let Some(at) = source.len().0.checked_sub(512) {
        let mut tail = [0; 4];
        source.read_exact_at(crate::FileOffset(at), &mut tail)?;
        if &tail == b"koly" {
            return Err(foreign(source, "Apple disk image (dmg)"));
        }
    }
    for row in TABLE {
        if (row.probe)(source)? {
            return Ok(row.format);
        }
    }
    Ok(Format::Raw)
}

/// [`probe`], with a doubt: a file without any header whose name says that it has one is damaged (a fixed VHD that
/// lost its footer), or a piece of an image (`-flat.vmdk`). Read as raw it would be a wrong disk in silence.
fn probe_and_check(source: &Source) -> Result<Format> {
    let format = probe(source)?;
    match Format::from_ending(source.path()) {
        Some(named) if format == Format::Raw && named != Format::Raw => Err(source
            .corrupt(format!("is named as {} but has no header of it", named.name()))
            .hint("copy it again if it is cut off; open the descriptor if it is an extent; say -f raw if it is a raw disk")),
        _ => Ok(format),
    }
}

fn foreign(source: &Source, name: &str) -> Error {
    source
        .unsupported(format!("is a disk in the format {name}, which landfall does not read"))
        .hint("convert it with the product that wrote it (for most: qemu-img convert -O qcow2), then give landfall the result")
}

/// An image with its parents, ready to be read.
pub struct Image {
    /// The content.
    pub disk: Arc<dyn Disk>,
    /// The layers, the named image first, its base last.
    pub layers: Vec<LayerInfo>,
}

/// What `disk info` tells of one layer.
#[derive(Clone, Debug, serde::Serialize)]
pub struct LayerInfo {
    /// The file that was opened.
    pub path: std::path::PathBuf,
    /// Its format.
    pub format: Format,
    /// The kind within the format: `monolithicSparse`, `dynamic`, `v3`.
    pub variant: String,
    /// Other facts, each a name and a value, in the format's own terms.
    pub details: Vec<(String, String)>,
    /// Other files that hold this layer's data (extents).
    pub files: Vec<std::path::PathBuf>,
    /// Bytes that the host holds for this layer's files.
    pub allocated: crate::Bytes,
}

/// Opens the image at `path` and every parent it names.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Image> {
    crate::chain::open(path, options)
}

/// Begins a new image at `path`.
pub fn create(path: &Path, format: Format, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    let Some(create) = format.row().create else {
        let writable: Vec<_> = TABLE.iter().filter(|row| row.create.is_some()).map(|row| row.name).collect();
        return Err(Error::unsupported(format!(
            "{} cannot be written; {} can",
            format.name(),
            writable.join(", ")
        ))
        .in_file(path));
    };
    create(path, size, options)
}

fn create_raw(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    use std::os::unix::fs::FileTypeExt;
    if options.compression.is_some() {
        return Err(Error::unsupported("a raw image cannot be compressed")
            .in_file(path)
            .hint("choose -O qcow2"));
    }
    if std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device()) {
        return crate::raw::create_on_device(path, size);
    }
    crate::raw::create(path, size, options.replace)
}

fn create_qcow2(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    let compression = options.compression.map(|compression| match compression {
        Compression::Zlib => crate::qcow2::Compression::Zlib,
        Compression::Zstd => crate::qcow2::Compression::Zstd,
    });
    let options = crate::qcow2::Qcow2Options { compression, replace: options.replace, ..Default::default() };
    crate::qcow2::create(path, size, &options)
}

/// Opens one layer of a chain.
pub fn open_layer(source: Source, format: Option<Format>, gate: &Gate) -> Result<(Format, Layer)> {
    let path = source.path().to_owned();
    let format = match format {
        Some(format) => format,
        None => probe_and_check(&source)?,
    };
    let layer = (format.row().open)(source, gate).map_err(|e| e.in_file(&path))?;
    Ok((format, layer))
}

/// The parent that `reference` names, tried in the order in which the image lists its names.
pub fn find_parent(child: &Path, reference: &ParentRef, gate: &Gate) -> Result<Source> {
    let mut first_error = None;
    for name in &reference.names {
        match gate.open(child, name) {
            Ok(source) => return Ok(source),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| Error::corrupt("needs a parent but names none").in_file(child)))
}
