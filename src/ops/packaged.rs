//! What lies around a definition: the archive of an OVA or XVA, the manifest and the lengths of an OVF's files, the snapshots beside
//! a .vmx.
//!
//! To read another kind of archive: a row of [`KINDS`], whose function gives the definition, and an [`Archive`] that opens its
//! disks.

use super::source::{disk_option, open_as, said, skip_option};
use super::{Context, disk};
use crate::event::Event;
use crate::hypervisor::text::{one_line, shell};
use crate::hypervisor::vmware::vmsd;
use crate::hypervisor::{Beside, Choice, Parsed, ovf};
use crate::machine::{Backing, DiskSlot};
use landfall_image::convert::Cancel;
use landfall_image::formats::Image;
use landfall_image::ova::{self, Package};
use landfall_image::{Bytes, Error, Format, Kind, Result, Source, xva};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A .vmsd with more than this is none.
const SNAPSHOTS_AT_MOST: u64 = 1 << 20;

/// An archive in which a definition lies with its disks.
pub trait Archive {
    /// Opens the disk that the definition names.
    fn image(&self, context: &Context<'_>, disk: &DiskSlot) -> Result<Image>;

    /// Members that nothing reads, by their names.
    fn strangers(&self) -> Vec<String> {
        Vec::new()
    }
}

/// An archive and its definition.
pub type Unpacked = (Box<dyn Archive>, Vec<u8>);

/// A kind of archive.
struct Row {
    /// Endings of its files' names.
    endings: &'static [&'static str],
    /// Opens one, and compares its digests where the flag says so.
    open: fn(&Context<'_>, &Path, bool) -> Result<Unpacked>,
}

const KINDS: &[Row] = &[Row { endings: &["ova"], open: ova }, Row { endings: &["xva"], open: xva }];

/// Opens `path` where it is an archive by its ending, and compares what its manifest lists where `digests` says so.
pub fn open(context: &Context<'_>, path: &Path, ending: &str, digests: bool) -> Result<Option<Unpacked>> {
    let kind = KINDS.iter().find(|kind| kind.endings.contains(&ending));
    kind.map(|kind| (kind.open)(context, path, digests)).transpose()
}

fn ova(context: &Context<'_>, path: &Path, digests: bool) -> Result<Unpacked> {
    let package = Package::open(path)?;
    let (_, descriptor) = package.descriptor()?;
    let descriptor = descriptor.into_bytes();
    // Before hours are spent on digests.
    for file in ovf::files(&descriptor).map_err(|e| e.in_file(path))? {
        if let Some(member) = package.members().iter().find(|member| member.name == file.href) {
            same_length(&file, member.len).map_err(|e| e.in_file(path))?;
        }
    }
    if digests {
        context.observer.event(Event::Step(format!("Comparing the digests of {}", path.display())));
        if package.verify(&context.cancel)?.is_none() {
            tracing::info!("{} has no manifest: its files cannot be compared", path.display());
        }
    }
    Ok((Box::new(package), descriptor))
}

impl Archive for Package {
    fn image(&self, context: &Context<'_>, disk: &DiskSlot) -> Result<Image> {
        is_whole(disk)?;
        match disk.backing {
            Backing::File => {
                let member = member(self, disk)?;
                open_as(context, disk::Input::new(&member, said(disk.format.as_deref())))
            }
            // What is no file is none of its members.
            _ => Err(Error::refused(format!("{} is no file of the package: {:?}", disk.slot, disk.file))
                .hint(format!("name an image with {}", disk_option(&disk.slot, "FILE")))),
        }
    }
}

/// Every block of it carries its own digest, which is compared when the block is read.
fn xva(_: &Context<'_>, path: &Path, _: bool) -> Result<Unpacked> {
    let archive = xva::Archive::open(path)?;
    let definition = archive.definition()?;
    Ok((Box::new(archive), definition))
}

impl Archive for xva::Archive {
    fn image(&self, _: &Context<'_>, disk: &DiskSlot) -> Result<Image> {
        self.disk(&disk.file).map_err(|error| match error.kind() {
            Kind::Corrupt => error,
            _ => error.hint(format!(
                "name its image with {}, leave it out with {}, or export the machine with its disks: \
                 xe vm-export vm=NAME filename=NAME.xva",
                disk_option(&disk.slot, "FILE"),
                skip_option(&disk.slot)
            )),
        })
    }

    fn strangers(&self) -> Vec<String> {
        let names = xva::Archive::strangers(self).iter();
        names.map(|name| one_line(&name.chars().take(80).collect::<String>())).collect()
    }
}

/// Reads what lies beside a definition, and compares the digests of a package with its manifest where `digests` says so.
pub fn beside(
    context: &Context<'_>,
    beside: Beside,
    (definition, bytes): (&Path, &[u8]),
    choice: &Choice,
    digests: bool,
    parsed: &mut Parsed,
) -> Result<()> {
    match beside {
        Beside::Nothing => Ok(()),
        Beside::Snapshots => snapshots(definition, choice, parsed),
        Beside::Manifest => check(context, definition, bytes, digests),
    }
}

/// Compares the lengths, and where `digests` says so the digests, of the files beside an .ovf, as far as they are there: a disk that is not is told where
/// it is opened.
fn check(context: &Context<'_>, definition: &Path, descriptor: &[u8], digests: bool) -> Result<()> {
    let files = ovf::files(descriptor).map_err(|e| e.in_file(definition))?;
    let mut named: HashSet<String> = HashSet::new();
    for file in files.iter().filter(|file| !file.chunked) {
        let Ok(place) = context.gate.resolve(definition, &file.href) else { continue };
        same_length(file, Source::open(&place)?.len()).map_err(|e| e.in_file(&place))?;
        named.insert(file.href.clone());
    }
    if let Some(own) = definition.file_name().and_then(|name| name.to_str()) {
        named.insert(own.to_owned());
    }
    let manifest = definition.with_extension("mf");
    if !digests || !manifest.is_file() {
        return Ok(());
    }
    context.observer.event(Event::Step(format!("Comparing the digests of {}", manifest.display())));
    let place = |name: &str| -> Result<Option<PathBuf>> {
        match named.contains(name) {
            true => context.gate.resolve(definition, name).map(Some),
            false => Ok(None),
        }
    };
    let cancel: &Cancel = &context.cancel;
    ova::verify_files(&manifest, place, cancel).map(drop)
}

fn same_length(file: &ovf::File, len: Bytes) -> Result<()> {
    match file.size {
        Some(size) if size != len => Err(Error::corrupt(format!(
            "has {} bytes in {:?}, the descriptor says {}",
            len.0, file.href, size.0
        ))
        .hint("the package was altered or damaged: get it again from its origin")),
        _ => Ok(()),
    }
}

/// Where a disk of the package is: a member of that very name, which does not lead out of the package (`Package::open` sees to it).
fn member(package: &Package, disk: &DiskSlot) -> Result<PathBuf> {
    let name = disk.file.as_str();
    match package.members().iter().any(|member| member.name == name) {
        true => Ok(package.path().join(name)),
        false => Err(Error::corrupt(format!("has no member {name:?}, which is the disk {}", disk.slot))
            .hint(format!(
                "it holds {}; name the disk with {}",
                package.disks().join(", "),
                disk_option(&disk.slot, "FILE")
            ))),
    }
}

/// Refuses a disk that is compressed or cut into pieces as a whole, with the way out.
pub fn is_whole(disk: &DiskSlot) -> Result<()> {
    let file = &disk.file;
    match disk.format.as_deref() {
        Some(format) if Format::from_name(format).is_none() => {
            let how = match format {
                "gzip" => {
                    format!("unpack it (gunzip -c {} > {})", shell(file), shell(&format!("{file}.unpacked")))
                }
                "chunks" => format!("join its pieces (cat {0}.0???????? > {0})", shell(file)),
                _ => "unpack it".to_owned(),
            };
            Err(Error::unsupported(format!(
                "the disk {} lies in {file:?} as {format}, which is not read in place",
                disk.slot
            ))
            .hint(format!("{how}, and name the result with {}", disk_option(&disk.slot, "FILE"))))
        }
        _ => Ok(()),
    }
}

/// Reads the snapshots beside a .vmx: the chosen one takes the place of the current state, else they are told of.
fn snapshots(definition: &Path, choice: &Choice, parsed: &mut Parsed) -> Result<()> {
    let path = definition.with_extension("vmsd");
    let all = if path.is_file() {
        let source = Source::open(&path)?;
        if source.len().0 > SNAPSHOTS_AT_MOST {
            let says = format!("has {} bytes; a .vmsd has at most {SNAPSHOTS_AT_MOST}", source.len().0);
            return Err(Error::refused(says).in_file(&path));
        }
        let len = usize::try_from(source.len().0).unwrap_or(usize::MAX);
        vmsd::parse(&source.head(len)?).map_err(|e| e.in_file(&path))?
    } else {
        vmsd::Snapshots::default()
    };
    match &choice.snapshot {
        Some(wanted) => all.apply(wanted, parsed).map_err(|e| e.in_file(definition)),
        None => {
            parsed.findings.extend(all.finding());
            Ok(())
        }
    }
}
