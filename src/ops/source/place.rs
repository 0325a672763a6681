//! Where a machine's disks lie here, and how they are opened. A definition names them as its host did: by paths of that host, by
//! volumes, by addresses; what lies beside the definition, or where the user says, is what is read.
//!
//! Deliberately absent: connecting to an address because a definition names it. The user names it then.

use super::super::packaged::{self, Archive};
use super::super::{Context, disk, exported};
use super::disk_option;
use crate::hypervisor::Beside;
use crate::machine::{Backing, DiskSlot};
use landfall_image::formats::Image;
use landfall_image::location::Location;
use landfall_image::{Bytes, Disk, Error, Extent, Format, GuestOffset, GuestRange, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a machine comes from.
pub(super) struct Origin<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) definition: &'a Path,
    /// The archive that the definition lies in.
    pub(super) archive: Option<&'a dyn Archive>,
    /// What belongs to such definitions.
    pub(super) beside: Beside,
    /// The internal snapshot of images that the user names.
    pub(super) snapshot: Option<&'a str>,
}

impl Origin<'_> {
    /// Opens a disk: the file that the user names for it, else what the definition means.
    pub(super) fn open(&self, disk: &DiskSlot, named: Option<&Path>) -> Result<Image> {
        if let Some(file) = named {
            return self.open_named(file, disk);
        }
        if let (Backing::Blank, Some(size)) = (disk.backing, disk.size) {
            return Ok(Image { disk: Arc::new(Blank(size)), layers: Vec::new() });
        }
        let opened = match self.archive {
            Some(archive) => archive.image(self.context, disk),
            None => self.beside_it(disk).and_then(|place| {
                open_as(self.context, disk::Input::new(&place, said(disk.format.as_deref())))
            }),
        };
        opened.map_err(|e| e.in_file(self.definition))
    }

    /// Where the disk's image lies outside of any archive, by the definition alone.
    pub(super) fn beside_it(&self, disk: &DiskSlot) -> Result<PathBuf> {
        if self.beside == Beside::Manifest {
            packaged::is_whole(disk)?;
        }
        self.place(disk)
    }

    /// Opens the file that the user names for a disk. It may be a copy in another format than the definition says; then its
    /// ending has to tell.
    fn open_named(&self, file: &Path, disk: &DiskSlot) -> Result<Image> {
        let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or("").to_ascii_lowercase();
        // The name of an export says nothing of its bytes, which are the disk's.
        let is_file = Location::of(file)?.path().is_some();
        let told = Format::from_name(&ending).map(Format::name).filter(|_| is_file);
        let format = told.or(disk.format.as_deref());
        let input = disk::Input { place: file, format: said(format), snapshot: self.snapshot };
        let image = open_as(self.context, input)?;
        // Bytes of an image would pass for the disk's. A guest can have written such bytes, too, so that they decide nothing.
        let is_certain = told == Some("raw") && disk.format.as_deref().is_none_or(|said| said == "raw");
        if format == Some("raw") && !is_certain {
            let looks = disk::open(self.context, disk::Input::new(file, None))?;
            let other = |format: &Format| !matches!(format, Format::Raw | Format::Luks);
            if let Some(format) = looks.layers.first().map(|layer| layer.format).filter(other) {
                let (name, slot) = (format.name(), &disk.slot);
                return Err(Error::refused(format!("is to be read as raw for {slot}, and looks like {name}"))
                    .in_file(file)
                    .hint(format!("give it the ending .{name} if it is that; if a guest wrote those bytes, convert it to another format first (landfall disk convert -f raw)")));
            }
        }
        Ok(image)
    }

    /// Where the disk lies that the definition names. A definition from another host may name it by that host's path (of Windows,
    /// or with a datastore); its disks are copied beside it, so the last component is looked for there.
    fn place(&self, disk: &DiskSlot) -> Result<PathBuf> {
        let (name, definition) = (disk.file.as_str(), self.definition);
        let beside = |last: &str| self.context.gate.resolve(definition, last);
        let elsewhere = |what: &str| {
            Error::unsupported(format!(
                "{} is {what}, {name:?}, which does not lie beside the definition",
                disk.slot
            ))
            .hint(format!("copy it here as an image and name that with {}", disk_option(&disk.slot, "FILE")))
        };
        match disk.backing {
            Backing::File => {}
            Backing::Network => {
                let error = elsewhere("an address in the network");
                return Err(match name.starts_with("nbd") {
                    true => error.hint(format!(
                        "if it is to be read from there, name it: {}; or copy it here as an image",
                        disk_option(&disk.slot, name)
                    )),
                    false => error,
                });
            }
            Backing::Blank => return Err(elsewhere("an empty disk without a size")),
            Backing::Volume => {
                let last = name.rsplit(['/', ':', '\\']).next().unwrap_or(name);
                return beside(last).map_err(|_| elsewhere("a volume of the source's storage"));
            }
            Backing::Device => {
                let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
                return beside(name)
                    .or_else(|_| beside(last))
                    .map_err(|_| elsewhere("a device of the source's host"));
            }
        }
        let is_foreign = name.starts_with(['/', '[']) || name.contains('\\');
        match beside(name) {
            Err(first) if is_foreign => {
                let last = name.rsplit(['/', '\\', ']']).next().unwrap_or(name).trim_start();
                beside(last).ok().or_else(|| exported::disk(definition, last)).ok_or_else(|| {
                    let allow = first.hint_text().filter(|hint| hint.contains("--allow")).map(str::to_owned);
                    let beside = format!(
                        "put {last} beside {}, or name it with {}",
                        definition.display(),
                        disk_option(&disk.slot, "FILE")
                    );
                    first.hint(match allow {
                        Some(allow) => format!("{beside}; or, {allow}"),
                        None => beside,
                    })
                })
            }
            other => other,
        }
    }
}

/// The format by the word of a definition, where it is one that is read.
pub fn said(format: Option<&str>) -> Option<Format> {
    format.and_then(Format::from_name)
}

/// Opens a disk as its machine sees it. A disk that the guest encrypted as a whole begins like an image that the host
/// encrypted, which a key would open: what is written would then be decrypted, and no longer what the guest looks for.
pub fn open_as(context: &Context<'_>, input: disk::Input<'_>) -> Result<Image> {
    let image = disk::open(context, input)?;
    match image.layers.first() {
        Some(layer) if layer.format == Format::Luks && input.format.is_none() => {
            disk::open(context, disk::Input { format: Some(Format::Raw), ..input })
        }
        _ => Ok(image),
    }
}

/// A disk that was never written to.
struct Blank(Bytes);

impl Disk for Blank {
    fn size(&self) -> Bytes {
        self.0
    }

    fn extents(&self, range: GuestRange, _at_most: usize) -> Result<Vec<Extent>> {
        Ok(vec![Extent { range, kind: landfall_image::ExtentKind::Zero }])
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        let end = at.0.checked_add(buf.len() as u64).filter(|end| *end <= self.0.0);
        if end.is_none() {
            return Err(Error::refused(format!(
                "the disk has no byte at {:#x}",
                at.0.saturating_add(buf.len() as u64)
            )));
        }
        buf.fill(0);
        Ok(())
    }
}
