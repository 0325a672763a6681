//! Where a machine's disks lie here, and how they are opened. A definition names them as its host did: by paths of that host, by
//! volumes, by addresses; what lies beside the definition, or where the user says, is what is read.
//!
//! Deliberately absent: connecting to an address because a definition names it. The user names it then.

use super::super::{Context, disk, exported, packaged};
use crate::machine::{Backing, DiskSlot};
use landfall_image::formats::Image;
use landfall_image::ova::Package;
use landfall_image::xva::Archive;
use landfall_image::{Bytes, Disk, Error, Extent, Format, GuestOffset, GuestRange, Kind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a machine comes from.
pub(super) struct Origin<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) definition: &'a Path,
    /// The archive that the definition lies in.
    pub(super) package: Option<&'a Package>,
    /// The archive of XCP-ng's that the definition lies in, its headers read once for all disks.
    pub(super) archive: Option<&'a Archive>,
    pub(super) is_ovf: bool,
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
        if let Some(archive) = self.archive {
            let hint = |error: Error| {
                match error.kind() {
                Kind::Corrupt => error,
                _ => error.hint(format!(
                    "name its image with --disk {0}=FILE, leave it out with --skip-disk {0}, or export the machine with its disks: \
                     xe vm-export vm=NAME filename=NAME.xva",
                    disk.slot
                )),
            }
            };
            return archive.disk(&disk.file).map_err(hint);
        }
        let place = match self.package {
            Some(package) => packaged_place(package, disk),
            None if self.is_ovf => packaged::is_whole(disk).and_then(|()| self.place(disk)),
            None => self.place(disk),
        };
        self.open_as(&place.map_err(|e| e.in_file(self.definition))?, disk.format.as_deref())
    }

    /// Opens the file that the user names for a disk. It may be a copy in another format than the definition says; then its
    /// ending has to tell.
    fn open_named(&self, file: &Path, disk: &DiskSlot) -> Result<Image> {
        let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or("").to_ascii_lowercase();
        let told = Format::from_name(&ending).map(Format::name);
        let format = told.or(disk.format.as_deref());
        let image = self.open_as(file, format)?;
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

    /// Opens a disk as its machine sees it. A disk that the guest encrypted as a whole begins like an image that the host
    /// encrypted, which a key would open: what is written would then be decrypted, and no longer what the guest looks for.
    fn open_as(&self, file: &Path, format: Option<&str>) -> Result<Image> {
        let said = format.and_then(Format::from_name);
        let image = disk::open(self.context, disk::Input::new(file, said))?;
        match image.layers.first() {
            Some(layer) if layer.format == Format::Luks && said.is_none() => {
                disk::open(self.context, disk::Input::new(file, Some(Format::Raw)))
            }
            _ => Ok(image),
        }
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
            .hint(format!("copy it here as an image and name that with --disk {}=FILE", disk.slot))
        };
        match disk.backing {
            Backing::File => {}
            Backing::Network => {
                let error = elsewhere("an address in the network");
                return Err(match name.starts_with("nbd") {
                    true => error.hint(format!(
                        "if it is to be read from there, name it: --disk {}={name}; or copy it here as an image",
                        disk.slot
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
                        "put {last} beside {}, or name it with --disk {}=FILE",
                        definition.display(),
                        disk.slot
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

/// Where a disk of an archive lies. What is no file is none of its members.
fn packaged_place(package: &Package, disk: &DiskSlot) -> Result<PathBuf> {
    packaged::is_whole(disk)?;
    match disk.backing {
        Backing::File => packaged::member(package, disk),
        _ => Err(Error::refused(format!("{} is no file of the package: {:?}", disk.slot, disk.file))
            .hint(format!("name an image with --disk {}=FILE", disk.slot))),
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
