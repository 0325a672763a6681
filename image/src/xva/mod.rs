//! XVA archives: a machine of XenServer or XCP-ng, its definition and the blocks of its disks, in one tar archive. The disks
//! are read where they lie; a new archive is written in one go, each disk by its own sink.
//!
//! Source: xapi's export and import of virtual machines (`stream_vdi.ml`, `importexport.ml` of xen-api), and its page "VM
//! import/export".
//!
//! ```text
//! header, ova.xml | header, Ref:9/00000000 | header, Ref:9/00000000.checksum | header, Ref:9/00000003 | … | zeros
//! ```
//! A block has 1 MiB, the last one of a disk may be shorter. Blocks of zeros are left out, but for the first and the last.
//! Each is followed by its digest: `.checksum` (SHA-1) or, from XenServer 8 and XCP-ng 8.3 on, `.xxhash` (XXH64).
//!
//! Of `ova.xml` only the sizes of the disks are read here: where the last blocks are missing, nothing else tells it. The
//! machine in it is the program's business. Recognised and refused by name: exports that are compressed as a whole, and those
//! without data. Deliberately absent: the archives of XenServer 3 and earlier (`chunk-000000000.gz`).

mod index;
mod read;
mod sizes;
mod write;

pub use write::{XvaWriter, create};

use crate::chain::Layer;
use crate::check::{Checked, Severity};
use crate::error::{Error, Result};
use crate::formats::{Format, Image, LayerInfo, OpenOptions};
use crate::gate::Gate;
use crate::limits;
use crate::source::Source;
use crate::tar::{self, Member};
use crate::units::{Bytes, FileOffset};
use index::Index;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the archive's first member.
pub(crate) const DEFINITION: &str = "ova.xml";

/// Length of a block.
const BLOCK: u64 = 1 << 20;

/// An opened archive. Its headers are read once, for all of its disks. Cloning is cheap.
#[derive(Clone)]
pub struct Archive {
    source: Source,
    definition: Member,
    index: Arc<Index>,
    sizes: Arc<HashMap<String, u64>>,
}

/// True for an archive whose first member is the definition.
pub(crate) fn probe(source: &Source) -> Result<bool> {
    if source.len().0 < tar::BLOCK {
        return Ok(false);
    }
    let mut block: tar::Header = [0; 512];
    source.read_exact_at(FileOffset(0), &mut block)?;
    Ok(tar::is_header(&block) && tar::begins_with(&block, DEFINITION))
}

/// What `archive.xva/Ref:9` leads to: the archive and the name of the disk in it. `None` for what is a file itself, and for
/// what lies in none.
pub(crate) fn inside(path: &Path) -> Result<Option<(Source, String)>> {
    if path.symlink_metadata().is_ok() {
        return Ok(None);
    }
    let Some(archive) = path.ancestors().skip(1).find(|above| above.is_file()) else { return Ok(None) };
    let Some(name) = path.strip_prefix(archive).ok().and_then(Path::to_str) else { return Ok(None) };
    let source = Source::open(archive)?;
    Ok(probe(&source)?.then(|| (source, name.to_owned())))
}

/// Opens the disk of an archive that the options name, or its only one.
pub fn open(source: Source, options: &OpenOptions) -> Result<Layer> {
    let archive = Archive::read(source)?;
    let name = match &options.member {
        Some(name) => name.clone(),
        None => archive.only_disk()?,
    };
    archive.layer(&name)
}

/// Compares every block of every disk with its digest.
pub fn check(source: Source, _gate: &Gate) -> Result<Checked> {
    let archive = Archive::read(source)?;
    let mut checked = Checked::default();
    for (name, blocks) in &archive.index.disks {
        if let Err(error) = archive.size(name).and_then(|size| blocks.complete(size, &archive.source)) {
            checked.add(Severity::Corrupt, format!("{name}: {}", error.says()), None);
        }
        checked.allocated = Bytes(checked.allocated.0.saturating_add(blocks.stored));
        for (place, block) in blocks.list.iter().enumerate() {
            if let Err(error) = read::whole(&archive.source, name, block).map(drop) {
                let says = || format!("{name}: block {place}: {}", error.says());
                checked.add_with(Severity::Corrupt, Some(FileOffset(block.file)), says);
            }
        }
    }
    Ok(checked)
}

impl Archive {
    /// Opens an archive and reads all of its headers.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) for a file that is none, or is compressed;
    /// [`Kind::Corrupt`](crate::Kind::Corrupt) for one that is cut off or contradicts itself.
    pub fn open(path: &Path) -> Result<Archive> {
        let source = Source::open(path)?;
        let head = source.head(4)?;
        for (magic, packer, command) in
            [(&b"\x1f\x8b"[..], "gzip", "gunzip -c"), (&b"\x28\xb5\x2f\xfd"[..], "Zstandard", "zstd -dc")]
        {
            if head.starts_with(magic) {
                let (from, stem) = (path.display(), path.file_stem().unwrap_or_default().display());
                return Err(source
                    .unsupported(format!(
                        "is compressed with {packer}, so that no disk in it can be read in place"
                    ))
                    .hint(format!("unpack it: {command} '{from}' > '{stem}-unpacked.xva'")));
            }
        }
        if !probe(&source)? {
            return Err(source
                .unsupported("is no XVA: no tar archive that begins with ova.xml")
                .hint("copy it again if it is cut off; xe vm-export writes one"));
        }
        Archive::read(source)
    }

    fn read(source: Source) -> Result<Archive> {
        let (definition, index) = index::read(&source)?;
        let text = content(&source, &definition)?;
        let sizes = sizes::read(&text).map_err(|e| e.in_file(source.path()))?;
        Ok(Archive { source, definition, index: Arc::new(index), sizes: Arc::new(sizes) })
    }

    /// The archive's file.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The bytes of `ova.xml`.
    pub fn definition(&self) -> Result<Vec<u8>> {
        content(&self.source, &self.definition)
    }

    /// The names of the disks that have blocks, in their order: `Ref:9`.
    pub fn disks(&self) -> impl Iterator<Item = &str> {
        self.index.disks.iter().map(|(name, _)| name.as_str())
    }

    /// Members that are neither the definition nor part of a disk: the first of them by name.
    pub fn strangers(&self) -> &[String] {
        &self.index.strangers
    }

    /// The disk of that name, as [`formats::open`](crate::formats::open) gives it.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) where there is none of that name;
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) where it has no blocks;
    /// [`Kind::Corrupt`](crate::Kind::Corrupt) where some of them are missing.
    pub fn disk(&self, name: &str) -> Result<Image> {
        let layer = self.layer(name)?;
        let info = LayerInfo {
            path: self.path().to_owned(),
            format: Format::Xva,
            variant: layer.variant,
            identity: None,
            by_name: false,
            details: layer.details,
            files: Vec::new(),
            allocated: Bytes(self.blocks(name)?.stored),
        };
        Ok(Image { disk: layer.disk, layers: vec![info] })
    }

    fn blocks(&self, name: &str) -> Result<&Arc<index::Blocks>> {
        if let Some((_, blocks)) = self.index.disks.iter().find(|(own, _)| own == name) {
            return Ok(blocks);
        }
        if self.index.disks.is_empty() {
            return Err(self
                .source
                .unsupported("holds no data of any disk: it is an export of the definition alone (metadata)")
                .hint("export the machine with its disks: xe vm-export vm=NAME filename=NAME.xva"));
        }
        let names: Vec<_> = self.disks().take(16).collect();
        let error = match self.sizes.contains_key(name) {
            true => {
                self.source.unsupported(format!("has no block of the disk {name}: its data was not exported"))
            }
            false => Error::refused(format!("has no disk {name:?}")).in_file(self.path()),
        };
        Err(error.hint(format!("it has the data of {}", names.join(", "))))
    }

    fn size(&self, name: &str) -> Result<u64> {
        self.sizes.get(name).copied().ok_or_else(|| {
            self.source
                .corrupt(format!("has blocks of the disk {name:?}, whose size its ova.xml does not tell"))
        })
    }

    fn only_disk(&self) -> Result<String> {
        let names: Vec<_> = self.disks().collect();
        match names.as_slice() {
            [only] => Ok((*only).to_owned()),
            // Says what is missing.
            [] => self.blocks("").map(|_| String::new()),
            several => {
                let path = |name: &&str| self.path().join(name).display().to_string();
                let paths: Vec<_> = several.iter().take(16).map(path).collect();
                Err(Error::refused(format!("is an XVA with {} disks", several.len()))
                    .in_file(self.path())
                    .hint(format!("name one of them: {}", paths.join(", "))))
            }
        }
    }

    fn layer(&self, name: &str) -> Result<Layer> {
        let blocks = self.blocks(name)?;
        let size = self.size(name)?;
        if size > limits::DISK_SIZE.0 {
            let says =
                format!("says that {name} is a disk of {}; the limit is {}", Bytes(size), limits::DISK_SIZE);
            return Err(Error::refused(says).in_file(self.path()));
        }
        blocks.complete(size, &self.source)?;
        let details = vec![
            ("disk of the archive".to_owned(), name.to_owned()),
            ("blocks".to_owned(), format!("{} of {}", blocks.list.len(), size.div_ceil(BLOCK))),
            ("digests".to_owned(), blocks.digests().to_owned()),
        ];
        Ok(Layer {
            disk: Arc::new(read::Disk::new(self.source.clone(), name, Arc::clone(blocks), Bytes(size))),
            parent: None,
            identity: None,
            variant: "xva".into(),
            details,
            extents: Vec::<PathBuf>::new(),
        })
    }
}

fn content(source: &Source, member: &Member) -> Result<Vec<u8>> {
    if member.len > limits::OVF {
        let says =
            format!("{:?} has {} bytes; at most {} are read", member.name, member.len.0, limits::OVF.0);
        return Err(source.corrupt(says).at(member.at));
    }
    let mut bytes = vec![0; member.len.to_usize().unwrap_or(usize::MAX)];
    source.read_exact_at(member.at, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
