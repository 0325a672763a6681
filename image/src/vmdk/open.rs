//! From a file to a layer: finds the descriptor, opens the extents it names, checks that they fit together.

use super::cache::Caches;
use super::descriptor::{self, Access, Descriptor, ExtentLine, ExtentType};
use super::joined::{Flat, Joined, Part, Zeros};
use super::layout::{Compression, Layout};
use super::sparse::Sparse;
use super::{cowd, hosted, sesparse};
use crate::chain::{Layer, ParentRef};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::formats::Format;
use crate::gate::Gate;
use crate::limits;
use crate::source::Source;
use crate::units::{Bytes, FileOffset, GuestOffset, SECTOR_SIZE_BYTES, Sectors};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The kinds of sparse extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Magic {
    Hosted,
    Cowd,
    SeSparse,
}

/// The sparse kind that a file which starts with `head` says it is.
pub(super) fn magic(head: &[u8]) -> Option<Magic> {
    if head.starts_with(hosted::MAGIC) {
        Some(Magic::Hosted)
    } else if head.starts_with(cowd::MAGIC) {
        Some(Magic::Cowd)
    } else if head.starts_with(sesparse::MAGIC) {
        Some(Magic::SeSparse)
    } else {
        None
    }
}

/// Opens one layer.
pub(super) fn open(source: Source, gate: &Gate) -> Result<Layer> {
    let Described { text, own } = described(&source)?;
    assemble(&source, &text, own, gate)
}

/// What a file says a disk consists of.
pub(super) struct Described {
    pub(super) text: Descriptor,
    /// The header of the file itself, where the file is the only extent.
    pub(super) own: Option<hosted::Header>,
}

/// Reads the descriptor, wherever it is.
pub(super) fn described(source: &Source) -> Result<Described> {
    match magic(&source.head(8)?) {
        Some(Magic::Hosted) => {
            let header = hosted::read(source)?;
            let Some((at, len)) = header.descriptor() else {
                // Only a whole disk is compressed, so a stream without a descriptor is still known to be one.
                let text = whole_disk(&header).ok_or_else(|| piece(source))?;
                return Ok(Described { text, own: Some(header) });
            };
            let text = text(source, at, len)?;
            let text = descriptor::parse(&text).map_err(|e| e.at(at).in_file(source.path()))?;
            let alone = matches!(text.extents.as_slice(), [only] if only.kind == ExtentType::Sparse);
            // The name in an embedded descriptor is that of the day it was written; the data is right here. Only
            // a file without capacity, or one of several, is a descriptor and no more.
            let own = (alone && header.capacity.0 != 0).then_some(header);
            Ok(Described { text, own })
        }
        Some(_) => Err(piece(source)),
        None => {
            let text = text(source, FileOffset(0), source.len())?;
            if !descriptor::probe(&text) {
                return Err(source.corrupt("is neither a VMDK descriptor nor a sparse extent"));
            }
            let text = descriptor::parse(&text).map_err(|e| e.in_file(source.path()))?;
            Ok(Described { text, own: None })
        }
    }
}

fn text(source: &Source, at: FileOffset, len: Bytes) -> Result<Vec<u8>> {
    if len > limits::VMDK_DESCRIPTOR {
        return Err(Error::refused(format!(
            "its descriptor has {len}; the limit is {}",
            limits::VMDK_DESCRIPTOR
        ))
        .in_file(source.path()));
    }
    let mut text = vec![0; len.to_usize().unwrap_or(0)];
    source.read_exact_at(at, &mut text)?;
    Ok(text)
}

/// The descriptor of a stream that was written without one.
fn whole_disk(header: &hosted::Header) -> Option<Descriptor> {
    let only = ExtentLine {
        access: Access::ReadOnly,
        sectors: header.capacity,
        kind: ExtentType::Sparse,
        name: String::new(),
        unescaped: None,
        offset: Sectors(0),
    };
    (header.compression != 0 && header.capacity.0 != 0).then(|| Descriptor {
        create_type: "streamOptimized".into(),
        extents: vec![only],
        ..Descriptor::default()
    })
}

fn piece(source: &Source) -> Error {
    Error::refused("is a piece of a disk: it holds data, but no descriptor that says what of").in_file(source.path()).hint(
        "open the disk's descriptor instead, the small .vmdk without -s001, -delta or -sesparse in its name",
    )
}

/// Refuses what cannot be read whatever the extents hold.
pub(super) fn refuse(source: &Source, read: &Descriptor) -> Result<()> {
    if let Some(words) = &read.encrypted {
        return Err(Error::refused(format!("is encrypted ({words})"))
            .in_file(source.path())
            .hint("decrypt the disk on the source (change its storage policy to one without encryption), then convert it"));
    }
    if read.extents.is_empty() {
        return Err(source.corrupt("the descriptor names no extent"));
    }
    Ok(())
}

/// Opens the extents of a descriptor. `own` is the header of the file itself, where the file is the only extent.
fn assemble(source: &Source, read: &Descriptor, own: Option<hosted::Header>, gate: &Gate) -> Result<Layer> {
    refuse(source, read)?;
    super::allow_open_files(read.extents.len());
    let mut opening = Opening::new(source.path(), gate);
    let mut parts = Vec::with_capacity(read.extents.len());
    let mut own = own.map(|header| (source.clone(), header));
    let mut end = 0u64;
    for (number, line) in read.extents.iter().enumerate() {
        let (start, len) = place(source, line, &mut end)?;
        let disk = opening.extent(number, line, len, own.take())?.into_disk();
        parts.push(Part { start, len, disk });
    }
    opening.check_overlaps(source)?;
    let mut files: Vec<PathBuf> = opening.places.into_iter().map(|place| place.file).collect();
    files.dedup();
    let details = details(read, &opening.notes, opening.compressed);
    Ok(Layer {
        disk: Arc::new(Joined::new(parts)),
        parent: parent(source, read)?,
        identity: read.cid.map(|cid| format!("{cid:08x}")),
        variant: read.create_type.clone(),
        details,
        extents: files,
    })
}

fn details(read: &Descriptor, notes: &[String], compressed: bool) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            out.push((name.into(), value));
        }
    };
    add("CID", read.cid.map(|cid| format!("{cid:08x}")));
    add("parentCID", read.parent_cid.map(|cid| format!("{cid:08x}")));
    add("adapterType", read.adapter_type.clone());
    add("virtualHWVersion", read.hardware_version.clone());
    add("toolsVersion", read.tools_version.clone());
    add("extents", Some(read.extents.len().to_string()));
    add("compressed", Some(if compressed { "zlib" } else { "no" }.into()));
    for note in notes {
        add("note", Some(note.clone()));
    }
    out
}

/// The parent's names: as written, then without its folder, since copied snapshots lie beside their base.
fn parent(source: &Source, read: &Descriptor) -> Result<Option<ParentRef>> {
    let Some(cid) = read.parent_cid else { return Ok(None) };
    let hint = &read.parent_hint;
    if hint.is_empty() {
        return Err(source.corrupt(format!(
            "is a snapshot of the disk with content id {cid:08x}, but does not name it (parentFileNameHint)"
        )));
    }
    let mut names = Vec::new();
    for hint in hint {
        let name = hint.replace('\\', "/");
        let last = name.rsplit_once('/').map(|(_, last)| last.to_owned()).filter(|last| !last.is_empty());
        names.push(name);
        names.extend(last);
    }
    Ok(Some(ParentRef {
        names,
        format: Some(Format::Vmdk),
        identities: vec![format!("{cid:08x}")],
        same_sectors: false,
    }))
}

/// A disk of 2 TiB in pieces of 2 GiB is over a thousand files.
pub(super) fn too_many_files(error: Error) -> Error {
    const EMFILE: i32 = 24;
    if error.io_error().and_then(std::io::Error::raw_os_error) == Some(EMFILE) {
        return error.hint("raise the limit of open files (ulimit -n 65536) and start again");
    }
    error
}

/// A run of a file that an extent occupies.
pub(super) struct Place {
    pub(super) file: PathBuf,
    start: u64,
    pub(super) end: u64,
    pub(super) file_len: u64,
}

/// Where an extent lies on the disk, and its length; `end` is where the ones before it end.
pub(super) fn place(source: &Source, line: &ExtentLine, end: &mut u64) -> Result<(GuestOffset, Bytes)> {
    let len = line.sectors.to_bytes().ok_or_else(|| source.corrupt("an extent is longer than any file"))?;
    let start = GuestOffset(*end);
    *end = end.checked_add(len.0).filter(|&end| end <= limits::DISK_SIZE.0).ok_or_else(|| {
        Error::refused(format!("its extents are more than {} together", limits::DISK_SIZE))
            .in_file(source.path())
    })?;
    Ok((start, len))
}

/// An open extent.
pub(super) enum Opened {
    Zeros(Zeros),
    Flat(Flat),
    Sparse(Box<Sparse>),
}

impl Opened {
    fn into_disk(self) -> Box<dyn Disk> {
        match self {
            Opened::Zeros(zeros) => Box::new(zeros),
            Opened::Flat(flat) => Box::new(flat),
            Opened::Sparse(sparse) => sparse,
        }
    }
}

/// What is gathered while the extents of one image are opened.
pub(super) struct Opening<'a> {
    path: &'a Path,
    gate: &'a Gate,
    caches: Arc<Caches>,
    /// What is left for grain directories.
    budget: Bytes,
    /// Runs of files that extents occupy.
    pub(super) places: Vec<Place>,
    compressed: bool,
    /// What must be said of the extents, though they can be read.
    pub(super) notes: Vec<String>,
}

impl<'a> Opening<'a> {
    /// For the image at `path`.
    pub(super) fn new(path: &'a Path, gate: &'a Gate) -> Self {
        Opening {
            path,
            gate,
            caches: Arc::new(Caches::new()),
            budget: limits::RESIDENT_TABLE,
            places: Vec::new(),
            compressed: false,
            notes: Vec::new(),
        }
    }

    /// Opens the extent of that number, `len` bytes of the disk. `own` is the image itself.
    pub(super) fn extent(
        &mut self,
        number: usize,
        line: &ExtentLine,
        len: Bytes,
        own: Option<(Source, hosted::Header)>,
    ) -> Result<Opened> {
        let refused = |what: String, hint: &str| Err(Error::unsupported(what).in_file(self.path).hint(hint));
        match line.kind {
            ExtentType::Zero => return Ok(Opened::Zeros(Zeros { size: len })),
            ExtentType::RawDevice => {
                return refused(
                    format!(
                        "is a raw device mapping: {:?} only points at a LUN, which holds the data",
                        line.name
                    ),
                    "convert it to a virtual disk on the source (migrate the machine's storage, or vmkfstools -i), then take that",
                );
            }
            ExtentType::Flat | ExtentType::Sparse => {}
        }
        if line.access == Access::None {
            return refused(
                format!("its extent {:?} is marked NOACCESS: its guest could not read it", line.name),
                "give it RW in a copy of the descriptor if its content is wanted, or make it ZERO if not",
            );
        }
        if line.name.contains("://") {
            return refused(
                format!("its extent {:?} is an object of a datastore, not a file", line.name),
                "export the machine, or clone the disk to a VMFS or NFS datastore with vmkfstools -i",
            );
        }
        if let Some((source, header)) = own {
            let layout = header.layout().map_err(|e| e.in_file(source.path()))?;
            return self.sparse(number, line, source, layout, header.unclean_shutdown);
        }
        let source = self.open_named(line).map_err(too_many_files)?;
        match line.kind {
            ExtentType::Flat => self.flat(line, len, source),
            _ => self.named_sparse(number, line, source),
        }
    }

    /// Opens the file that the line names: as VMware reads the name, then as it stands there, since other writers do
    /// not know of escapes.
    fn open_named(&self, line: &ExtentLine) -> Result<Source> {
        let opened = self.gate.open(self.path, &line.name);
        match (opened, &line.unescaped) {
            (Err(error), Some(as_it_stands)) => self.gate.open(self.path, as_it_stands).map_err(|_| error),
            (opened, _) => opened,
        }
    }

    fn flat(&mut self, line: &ExtentLine, len: Bytes, source: Source) -> Result<Opened> {
        let start = line.offset.to_bytes().unwrap_or(Bytes(u64::MAX));
        let end = start.0.checked_add(len.0).filter(|&end| end <= source.len().0);
        let Some(end) = end else {
            return Err(source
                .corrupt(format!(
                    "truncated: the descriptor wants {} sectors from sector {}, the file has {} bytes",
                    line.sectors.0,
                    line.offset.0,
                    source.len().0
                ))
                .hint("copy the file again from its origin and compare the sizes"));
        };
        let file_len = source.len().0;
        self.places.push(Place { file: source.path().to_owned(), start: start.0, end, file_len });
        Ok(Opened::Flat(Flat { source: source.window(FileOffset(start.0), len)? }))
    }

    fn named_sparse(&mut self, number: usize, line: &ExtentLine, source: Source) -> Result<Opened> {
        let in_file = |e: Error| e.in_file(source.path());
        let head = source.head(512)?;
        let (layout, unclean) = match magic(&head) {
            Some(Magic::Hosted) => {
                let header = hosted::read(&source)?;
                (header.layout().map_err(in_file)?, header.unclean_shutdown)
            }
            Some(Magic::Cowd) => (cowd::parse(&head).and_then(|h| h.layout()).map_err(in_file)?, false),
            Some(Magic::SeSparse) => {
                (sesparse::parse(&head).and_then(|h| h.layout(&source)).map_err(in_file)?, false)
            }
            None => {
                return Err(
                    source.corrupt("the descriptor says it is a sparse extent, but it has no such header")
                );
            }
        };
        let file_len = source.len().0;
        self.places.push(Place { file: source.path().to_owned(), start: 0, end: file_len, file_len });
        self.sparse(number, line, source, layout, unclean)
    }

    fn sparse(
        &mut self,
        number: usize,
        line: &ExtentLine,
        source: Source,
        layout: Layout,
        unclean: bool,
    ) -> Result<Opened> {
        // VirtualBox rounds the header's capacity up to a whole grain; the disk is what the descriptor says.
        let wanted = line.sectors.0;
        let has = layout.size.0 / SECTOR_SIZE_BYTES;
        let rounded = wanted.checked_next_multiple_of(layout.grain.0 / SECTOR_SIZE_BYTES);
        if line.offset != Sectors(0) || (has != wanted && Some(has) != rounded) {
            return Err(source.corrupt(format!(
                "the header says {has} sectors, the descriptor {wanted} from sector {}",
                line.offset.0
            )));
        }
        let name = source.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        if unclean {
            self.notes.push(format!("{name} was not closed cleanly: the last writes may be missing"));
        }
        self.compressed |= layout.compression != Compression::None;
        let path = source.path().to_owned();
        let (sparse, note) = Sparse::open(source, layout, number, Arc::clone(&self.caches), &mut self.budget)
            .map_err(|e| e.in_file(&path))?;
        if let Some(note) = note {
            tracing::warn!("{note}; using the redundant grain directory");
            self.notes.push(format!("redundant grain directory used, since {note}"));
        }
        Ok(Opened::Sparse(Box::new(sparse)))
    }

    /// No byte of a file is in two places of the disk, and the descriptor is not its own data. Leaves the places
    /// in the order of their files.
    pub(super) fn check_overlaps(&mut self, source: &Source) -> Result<()> {
        self.places.sort_by(|a, b| (&a.file, a.start).cmp(&(&b.file, b.start)));
        for pair in self.places.windows(2) {
            if let [a, b] = pair
                && a.file == b.file
                && b.start < a.end
            {
                return Err(source.corrupt(format!(
                    "the descriptor uses the bytes of {} from {:#x} on for two extents",
                    b.file.display(),
                    b.start
                )));
            }
        }
        let own = self.path.canonicalize().ok();
        match self.places.iter().find(|place| own.as_deref() == Some(&place.file)) {
            Some(place) if place.start != 0 || magic(&source.head(8)?).is_none() => {
                Err(source.corrupt("the descriptor names its own text as the disk's data"))
            }
            _ => Ok(()),
        }
    }
}
