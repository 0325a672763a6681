//! The table of disk formats: one row each, and everything that asks "which format?" reads it.
//!
//! To add a format: write its module, add a variant to [`Format`] and a row to [`TABLE`].

use crate::chain::Layer;
use crate::check::Checked;
use crate::create::{Compression, CreateOptions, takes_compression};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::foreign;
use crate::gate::Gate;
use crate::luks::Secret;
use crate::sink::Sink;
use crate::source::Source;
use crate::units::Bytes;
use std::path::Path;
use std::sync::Arc;

/// A disk format that is read.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
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
    /// VirtualBox.
    Vdi,
    /// A whole disk or partition encrypted with LUKS.
    Luks,
    /// XenServer and XCP-ng: a disk in the archive of a machine.
    Xva,
}

/// How an image is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The format, where it is known. Without it the image is probed; a raw disk cannot be told from a forged
    /// header, so record the format when a disk arrives.
    pub format: Option<Format>,
    /// Which files the image may name.
    pub gate: Gate,
    /// The internal snapshot to read instead of the current state, by its id or name; only qcow2 has them.
    pub snapshot: Option<String>,
    /// Opens what is encrypted with LUKS, in every layer.
    pub key: Option<Secret>,
    /// The disk of an archive with several, by its name there; only XVA has them.
    pub member: Option<String>,
    /// Read this layer and none of its parents, whose names are not looked at: what it does not store is unallocated. For a
    /// caller who has the parent ([`chain::over`](crate::chain::over)).
    pub alone: bool,
}

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
    pub open: fn(Source, &OpenOptions) -> Result<Layer>,
    /// Checks the image's own structures; `None` where it has none.
    pub check: Option<fn(Source, &Gate) -> Result<Checked>>,
}

/// A kind of image that is written: a format, or one of its sub-formats.
pub struct KindRow {
    /// Its name on the command line; the first kind of a format has the format's.
    pub name: &'static str,
    /// In one line, what it is for.
    pub says: &'static str,
    /// Its format.
    pub format: Format,
    /// The ending of a new file's name.
    pub ending: &'static str,
    /// Compressions that can be chosen.
    pub compressions: &'static [Compression],
    /// Begins a new image of a disk of that size.
    pub create: fn(&Path, Bytes, &CreateOptions) -> Result<Box<dyn Sink>>,
}

impl KindRow {
    /// Refuses a compression that the kind does not take.
    pub fn check_compression(&self, wanted: Option<Compression>) -> Result<()> {
        takes_compression(self.name, wanted, self.compressions)
    }
}

/// All kinds that are written, the usual one of each format first.
pub const KINDS: &[KindRow] = &[
    KindRow {
        name: "raw",
        says: "the bytes of the disk, in a sparse file or on a block device",
        format: Format::Raw,
        ending: "raw",
        compressions: &[],
        create: crate::raw::create,
    },
    KindRow {
        name: "qcow2",
        says: "QEMU, KVM, Proxmox VE, OpenStack",
        format: Format::Qcow2,
        ending: "qcow2",
        compressions: crate::qcow2::COMPRESSIONS,
        create: crate::qcow2::create,
    },
    KindRow {
        name: "vmdk",
        says: "VMware Workstation and Fusion: one file that grows (monolithicSparse)",
        format: Format::Vmdk,
        ending: "vmdk",
        compressions: &[],
        create: crate::vmdk::create_sparse,
    },
    KindRow {
        name: "vmdk-stream",
        says: "OVF and OVA, as ESXi and vSphere import them: compressed (streamOptimized)",
        format: Format::Vmdk,
        ending: "vmdk",
        compressions: crate::vmdk::COMPRESSIONS,
        create: crate::vmdk::create_stream,
    },
    KindRow {
        name: "vmdk-flat",
        says: "VMware Workstation: the bytes of the disk and a descriptor (monolithicFlat)",
        format: Format::Vmdk,
        ending: "vmdk",
        compressions: &[],
        create: crate::vmdk::create_flat,
    },
    KindRow {
        name: "vmdk-split",
        says: "VMware Workstation: files of up to 2 GiB that grow (twoGbMaxExtentSparse)",
        format: Format::Vmdk,
        ending: "vmdk",
        compressions: &[],
        create: crate::vmdk::create_split,
    },
    KindRow {
        name: "vmdk-split-flat",
        says: "VMware Workstation: files of up to 2 GiB with the bytes of the disk (twoGbMaxExtentFlat)",
        format: Format::Vmdk,
        ending: "vmdk",
        compressions: &[],
        create: crate::vmdk::create_split_flat,
    },
    KindRow {
        name: "vmdk-esxi",
        says: "a datastore of ESXi: the bytes of the disk and a descriptor, thin unless preallocated (vmfs)",
        format: Format::Vmdk,
        ending: "vmdk",
        compressions: &[],
        create: crate::vmdk::create_esxi,
    },
    KindRow {
        name: "vhdx",
        says: "Hyper-V, growing with its data",
        format: Format::Vhdx,
        ending: "vhdx",
        compressions: &[],
        create: crate::vhdx::create,
    },
    KindRow {
        name: "vhdx-fixed",
        says: "Hyper-V, every block in its place",
        format: Format::Vhdx,
        ending: "vhdx",
        compressions: &[],
        create: crate::vhdx::create_fixed,
    },
    KindRow {
        name: "vhd",
        says: "Hyper-V generation 1, XenServer and XCP-ng, growing with its data",
        format: Format::Vhd,
        ending: "vhd",
        compressions: &[],
        create: crate::vhd::create,
    },
    KindRow {
        name: "vhd-fixed",
        says: "Hyper-V generation 1: the bytes of the disk and a footer",
        format: Format::Vhd,
        ending: "vhd",
        compressions: &[],
        create: crate::vhd::create_fixed,
    },
    KindRow {
        name: "vhd-azure",
        says: "Azure: fixed, of whole MiB",
        format: Format::Vhd,
        ending: "vhd",
        compressions: &[],
        create: crate::vhd::create_azure,
    },
    KindRow {
        name: "ova",
        says: "vSphere, VirtualBox and others import it: a package with the disk and a bare machine around it",
        format: Format::Vmdk,
        ending: "ova",
        compressions: crate::vmdk::COMPRESSIONS,
        create: crate::ova::create,
    },
];

/// Kinds that are written into the archive of a machine alone, see [`CreateOptions::within`].
pub const WITHIN: &[KindRow] = &[KindRow {
    name: "xva",
    says: "XenServer and XCP-ng: blocks in the archive of a machine, which landfall convert --to xen writes",
    format: Format::Xva,
    ending: "xva",
    compressions: &[],
    create: crate::xva::create,
}];

/// All formats, in the order in which they are probed; raw takes what is left.
pub const TABLE: &[Row] = &[
    Row {
        format: Format::Qcow2,
        name: "qcow2",
        endings: &["qcow2"],
        probe: crate::qcow2::probe,
        open: crate::qcow2::open,
        check: Some(crate::qcow2::check),
    },
    Row {
        format: Format::Vmdk,
        name: "vmdk",
        endings: &["vmdk"],
        probe: crate::vmdk::probe,
        open: |source, options| crate::vmdk::open(source, &options.gate),
        check: Some(crate::vmdk::check),
    },
    Row {
        format: Format::Vhdx,
        name: "vhdx",
        endings: &["vhdx", "avhdx"],
        probe: crate::vhdx::probe,
        open: |source, options| crate::vhdx::open(source, &options.gate),
        check: Some(crate::vhdx::check),
    },
    Row {
        format: Format::Vhd,
        name: "vhd",
        endings: &["vhd", "avhd", "vpc"],
        probe: crate::vhd::probe,
        open: |source, options| crate::vhd::open(source, &options.gate),
        check: Some(crate::vhd::check),
    },
    Row {
        format: Format::Luks,
        name: "luks",
        endings: &["luks"],
        probe: crate::luks::probe,
        open: crate::luks::open,
        check: None,
    },
    Row {
        format: Format::Vdi,
        name: "vdi",
        endings: &["vdi"],
        probe: crate::vdi::probe,
        open: crate::vdi::open,
        check: Some(crate::vdi::check),
    },
    Row {
        format: Format::Xva,
        name: "xva",
        endings: &["xva"],
        probe: crate::xva::probe,
        open: crate::xva::open,
        check: Some(crate::xva::check),
    },
    Row {
        format: Format::Raw,
        name: "raw",
        endings: &["raw", "img"],
        probe: |_| Ok(true),
        open: |source, options| crate::raw::open(source, &options.gate),
        check: None,
    },
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
    foreign::refuse(source)?;
    for row in TABLE {
        if (row.probe)(source)? {
            return Ok(row.format);
        }
    }
    Ok(Format::Raw)
}

/// [`probe`], with a doubt: a file without any header whose name says that it has one is damaged (a fixed VHD that
/// lost its footer), or a piece of an image (`-flat.vmdk`). Read as raw it would be a wrong disk in silence.
pub(crate) fn probe_named(source: &Source, name: &Path) -> Result<Format> {
    let format = probe(source)?;
    if format == Format::Raw {
        foreign::refuse_named(source, name)?;
    }
    match Format::from_ending(name) {
        Some(named) if format == Format::Raw && named != Format::Raw => Err(source
            .corrupt(format!("is named as {} but has no header of it", named.name()))
            .hint("copy it again if it is cut off; open the descriptor if it is an extent; say -f raw if it is a raw disk")),
        _ => Ok(format),
    }
}

/// An image with its parents, ready to be read.
pub struct Image {
    /// The content.
    pub disk: Arc<dyn Disk>,
    /// The layers, the named image first, its base last.
    pub layers: Vec<LayerInfo>,
}

impl Image {
    /// Every file that it is read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.layers.iter().flat_map(|layer| {
            std::iter::once(&layer.path).chain(&layer.files).map(std::path::PathBuf::as_path)
        })
    }
}

/// What `disk info` tells of one layer.
#[derive(Clone, Debug, serde::Serialize, schemars::JsonSchema)]
pub struct LayerInfo {
    /// The file that was opened.
    pub path: std::path::PathBuf,
    /// Its format.
    pub format: Format,
    /// The kind within the format: `monolithicSparse`, `dynamic`, `v3`.
    pub variant: String,
    /// What a differencing image over it names it by, where the format has such a thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Other facts, each a name and a value, in the format's own terms.
    pub details: Vec<(String, String)>,
    /// Other files that hold this layer's data (extents).
    pub files: Vec<std::path::PathBuf>,
    /// Bytes that the host holds for this layer's files.
    pub allocated: crate::Bytes,
    /// It was taken for its child's parent by its file name alone: it lies elsewhere than the child says, and nothing in
    /// the child tells whether it is the right one.
    #[serde(skip)]
    pub by_name: bool,
}

/// Checks the image at `path` and every parent it names. An image that cannot even be opened is an error; one without
/// structures of its own (raw) gives `None`.
pub fn check(
    path: &Path,
    options: &OpenOptions,
) -> Result<Vec<(std::path::PathBuf, Format, Option<Checked>)>> {
    let image = match open(path, options) {
        Ok(image) => image,
        Err(error) if error.kind() == crate::Kind::Corrupt => return check_damaged(path, options, error),
        Err(error) => return Err(error),
    };
    let mut out = Vec::new();
    for (number, layer) in image.layers.into_iter().enumerate() {
        let checked = match layer.format.row().check {
            Some(check) => {
                let source = match number {
                    0 => crate::chain::enter(path, options)?.0,
                    _ => Source::open(&layer.path)?,
                };
                Some(check(source, &options.gate).map_err(|e| e.in_file(&layer.path))?)
            }
            None => None,
        };
        out.push((layer.path, layer.format, checked));
    }
    Ok(out)
}

/// Checks an image that is too damaged to be opened, without its parents. `error` is why, and the answer where the
/// check does not find more.
fn check_damaged(
    path: &Path,
    options: &OpenOptions,
    error: Error,
) -> Result<Vec<(std::path::PathBuf, Format, Option<Checked>)>> {
    let Ok((source, known, _)) = crate::chain::enter(path, options) else { return Err(error) };
    let format = match known {
        Some(format) => format,
        None => probe(&source)?,
    };
    let checked = format.row().check.and_then(|check| check(source, &options.gate).ok());
    match checked.filter(|checked| checked.count(crate::check::Severity::Corrupt) > 0) {
        Some(checked) => Ok(vec![(path.to_owned(), format, Some(checked))]),
        None => Err(error),
    }
}

/// Opens the image at `path` and every parent it names.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Image> {
    crate::chain::open(path, options)
}

/// The kind of that name.
pub fn kind(name: &str) -> Result<&'static KindRow> {
    KINDS.iter().chain(WITHIN).find(|kind| kind.name == name).ok_or_else(|| {
        let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        Error::refused(format!("{name:?} is no kind of image that can be written"))
            .hint(format!("choose one of {}", names.join(", ")))
    })
}

/// The kind that a new file's name suggests.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) where its ending says nothing or the format is only read.
pub fn kind_for(path: &Path) -> Result<&'static KindRow> {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    if let Some(kind) = KINDS.iter().find(|kind| ending.as_deref() == Some(kind.ending)) {
        return Ok(kind);
    }
    let Some(format) = Format::from_ending(path) else {
        return Err(Error::refused("does not say by its ending which format is wanted")
            .in_file(path)
            .hint("name the kind of image: -O qcow2, for example"));
    };
    KINDS.iter().find(|kind| kind.format == format).ok_or_else(|| {
        Error::unsupported(format!("{} is only read", format.name()))
            .in_file(path)
            .hint("choose another format with -O")
    })
}

/// Opens one layer of a chain.
pub fn open_layer(source: Source, options: &OpenOptions) -> Result<(Format, Layer)> {
    let path = source.path().to_owned();
    let format = match options.format {
        Some(format) => format,
        // A disk that its guest encrypted as a whole is copied as it is, as the guest left it; who gives a key wants what
        // is in it.
        None => match probe_named(&source, &path)? {
            Format::Luks if options.key.is_none() => {
                tracing::warn!(
                    "{}: is encrypted with LUKS and read as it is; --key-file opens it",
                    path.display()
                );
                Format::Raw
            }
            format => format,
        },
    };
    if let Some(snapshot) = options.snapshot.as_ref().filter(|_| format != Format::Qcow2) {
        return Err(Error::refused(format!(
            "cannot be read at snapshot {snapshot:?}: {} has no internal snapshots",
            format.name()
        ))
        .in_file(&path)
        .hint("leave the snapshot out; other formats keep snapshots in files of their own: open that file"));
    }
    let layer = (format.row().open)(source, options).map_err(|e| e.in_file(&path))?;
    Ok((format, layer))
}
