//! What a drop holds: a machine with its definition, or images; and of each disk, whether it is all of it or a delta over what is not in
//! the drop.
//!
//! Images reach nothing outside of the drop: the gate lets each look into its own folder and below. A parent that is not there has to be
//! what the vault holds ([`plan`](super::plan)).

use super::inventory::Inventory;
use super::manifest::Manifest;
use crate::event::Silent;
use crate::hypervisor;
use crate::machine::Machine;
use crate::ops::Context;
use crate::ops::source::{self, How, Wanted};
use crate::receive::digest::Sum;
use landfall_image::chain::{self, ParentRef};
use landfall_image::formats::LayerInfo;
use landfall_image::{Bytes, Disk, Error, Format, Gate, Kind, OpenOptions, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images of a drop without a definition: as many as a machine may have disks.
const IMAGES_AT_MOST: usize = 256;
/// Folders in which Hyper-V keeps the configuration of an exported machine.
const HYPER_V: &str = "Virtual Machines";

/// What a drop holds.
pub struct Contents {
    /// The definition, and the machine's UEFI variables.
    pub definition: Option<Definition>,
    /// Its disks; in the definition's order, where there is one.
    pub disks: Vec<Found>,
    /// Files that nothing was made of.
    pub unused: Vec<String>,
}

/// A definition that came with its disks.
pub struct Definition {
    /// The machine.
    pub machine: Machine,
    /// Its UEFI variables.
    pub variables: Option<Vec<u8>>,
}

/// A disk of a drop.
pub struct Found {
    /// What names it there: a definition's slot, or a file's name without its ending.
    pub slot: String,
    /// The disk in the vault that the manifest says it is.
    pub disk: Option<String>,
    /// The image's path in the drop.
    pub file: String,
    /// What it holds. With `parent`, what is not stored in it is unallocated.
    pub content: Arc<dyn Disk>,
    /// Sizes on the way there, the last its own: see [`chain::Upper::sizes`].
    pub sizes: Vec<Bytes>,
    /// What it is over, where that is not in the drop.
    pub parent: Option<ParentRef>,
    /// The format of the image.
    pub format: Format,
    /// What a delta over it names it by, where its format has such a thing.
    pub identity: Option<String>,
}

impl Found {
    /// Its size.
    pub fn size(&self) -> Bytes {
        self.content.size()
    }
}

/// Opens what lies in a drop. `is_compared` says that the digests of its files were: those inside of packages are not, then.
///
/// # Errors
/// Refused where it is not clear what is meant, or something that it needs is not there; as the readers'.
pub fn open(
    context: &Context<'_>,
    inventory: &Inventory,
    manifest: &Manifest,
    is_compared: bool,
) -> Result<Contents> {
    let mut own = context.watched_by(&Silent);
    own.gate = Gate::own_folder();
    match definition(inventory, manifest)? {
        Some(path) => of_machine(&own, inventory, manifest, &path, !is_compared)
            .map_err(|error| without_option(error, "let the definition say that it is raw,")),
        None => of_images(&own, inventory, manifest).map_err(|error| {
            let how = "say in landfall.json that it is raw (\"disks\": {\"sda\": {\"file\": \"…\", \"format\": \"raw\"}}),";
            without_option(error, how)
        }),
    }
}

/// A drop has no options, which errors of images advise: `instead` is what it has.
fn without_option(error: Error, instead: &str) -> Error {
    match error.hint_text().filter(|hint| hint.contains("say -f raw")) {
        Some(hint) => {
            let hint = hint.replace("say -f raw", instead);
            error.hint(hint)
        }
        None => error,
    }
}

fn ending(path: &str) -> String {
    Path::new(path).extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase()
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The file with the definition, or the folder that Hyper-V exported.
fn definition(inventory: &Inventory, manifest: &Manifest) -> Result<Option<PathBuf>> {
    if let Some(path) = &manifest.definition {
        return Ok(Some(inventory.place(path)));
    }
    let endings = hypervisor::endings();
    let all: Vec<&str> = inventory
        .entries
        .iter()
        .map(|entry| entry.path.as_str())
        .filter(|path| endings.contains(&ending(path).as_str()) && !path.starts_with("Snapshots/"))
        .filter(|path| !is_manifest(path))
        .collect();
    match all.as_slice() {
        [] => Ok(None),
        [only] if only.starts_with(HYPER_V) => Ok(Some(inventory.root.clone())),
        [only] => Ok(Some(inventory.place(only))),
        several => {
            Err(Error::refused(format!("holds {} files that may be the machine's definition", several.len()))
                .in_file(&inventory.root)
                .hint(format!(
                    "name the one in landfall.json (\"definition\"): {}",
                    several.iter().take(8).copied().collect::<Vec<_>>().join(", ")
                )))
        }
    }
}

fn of_machine(
    context: &Context<'_>,
    inventory: &Inventory,
    manifest: &Manifest,
    path: &Path,
    digests: bool,
) -> Result<Contents> {
    let mut failed: Vec<(usize, Error)> = Vec::new();
    let mut unreadable = |number, error| {
        failed.push((number, error));
        Ok(())
    };
    let how = How { digests, unreadable: &mut unreadable };
    let loaded = source::load_with(context, path, &Wanted::default(), how)?;
    let mut used: BTreeSet<PathBuf> = [loaded.path.clone()].into();
    let mut disks = Vec::new();
    for (number, slot) in loaded.machine.disks.iter().enumerate() {
        let Some(image) = loaded.images.get(number) else { continue };
        let found = match failed.iter().position(|(other, _)| *other == number).map(|at| failed.remove(at).1)
        {
            // A delta over what is not in the drop.
            Some(error) => {
                let Some(file) = by_name(inventory, &slot.file) else { return Err(error) };
                let format = source::said(slot.format.as_deref());
                let upper = upper(context, inventory, &file, format, &slot.slot)?;
                let Some(upper) = upper.filter(|upper| upper.parent.is_some()) else { return Err(error) };
                upper
            }
            None => {
                let top = image.layers.first();
                let file =
                    top.and_then(|top| inside(inventory, &top.path)).unwrap_or_else(|| slot.file.clone());
                Found {
                    slot: slot.slot.clone(),
                    disk: None,
                    file,
                    content: Arc::clone(&image.disk),
                    sizes: vec![image.disk.size()],
                    parent: None,
                    format: top.map_or(Format::Raw, |top| top.format),
                    identity: top.and_then(|top| top.identity.clone()),
                }
            }
        };
        let at = |image: &Path| {
            let mut files = image.ancestors().map(Path::to_owned);
            files.find(|path| path.is_file()).unwrap_or_else(|| image.to_owned())
        };
        used.extend(image.files().map(at));
        used.insert(inventory.place(&found.file));
        let named = manifest.disks.iter().find(|(_, image)| image.file() == found.file);
        disks.push(Found { disk: named.map(|(disk, _)| disk.clone()), ..found });
    }
    let used: BTreeSet<PathBuf> = used.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let unused = unused(inventory, |path| {
        let is_beside = matches!(
            ending(path).as_str(),
            "nvram" | "vmsd" | "vmxf" | "mf" | "cert" | "log" | "vmgs" | "vmrs"
        );
        is_beside || inventory.place(path).canonicalize().is_ok_and(|path| used.contains(&path))
    });
    let definition =
        Definition { variables: loaded.variables.map(|variables| variables.bytes), machine: loaded.machine };
    Ok(Contents { definition: Some(definition), disks, unused })
}

fn is_manifest(path: &str) -> bool {
    matches!(path, super::manifest::OWN | super::manifest::SUMS) || path.ends_with(".sha256")
}

/// Files that are neither manifests nor used.
fn unused(inventory: &Inventory, is_used: impl Fn(&str) -> bool) -> Vec<String> {
    let paths = inventory.entries.iter().map(|entry| entry.path.as_str());
    paths.filter(|path| !is_manifest(path) && !is_used(path)).map(str::to_owned).collect()
}

/// The path in the drop of a file that lies there.
fn inside(inventory: &Inventory, path: &Path) -> Option<String> {
    let (root, real) = (inventory.root.canonicalize().ok()?, path.canonicalize().ok()?);
    let path = real.strip_prefix(root).ok()?.to_str()?.to_owned();
    inventory.entry(&path).map(|_| path)
}

/// The one file of the drop with the name that a definition gives, whatever path of another host stands before it.
fn by_name(inventory: &Inventory, file: &str) -> Option<String> {
    let last = file.rsplit(['/', '\\', ']']).next().unwrap_or(file).trim_start();
    let mut found = inventory.entries.iter().filter(|entry| name_of(&entry.path) == last);
    match (found.next(), found.next()) {
        (Some(entry), None) => Some(entry.path.clone()),
        _ => None,
    }
}

fn options(context: &Context<'_>, format: Option<Format>) -> OpenOptions {
    OpenOptions { format, gate: context.gate.clone(), key: context.key.clone(), ..OpenOptions::default() }
}

/// Opens an image as far down as the drop reaches. `None` where the file is a piece of another image.
fn upper(
    context: &Context<'_>,
    inventory: &Inventory,
    path: &str,
    format: Option<Format>,
    slot: &str,
) -> Result<Option<Found>> {
    let place = inventory.place(path);
    let upper = chain::open_upper(&place, &options(context, format))?;
    let Some(top) = upper.image.layers.first() else { return Ok(None) };
    Ok(Some(Found {
        slot: slot.to_owned(),
        disk: None,
        file: path.to_owned(),
        format: top.format,
        identity: top.identity.clone(),
        content: Arc::clone(&upper.image.disk),
        sizes: upper.sizes.into_iter().rev().collect(),
        parent: upper.parent,
    }))
}

/// Images without a definition: each that is neither a piece of another nor below it is a disk.
fn of_images(context: &Context<'_>, inventory: &Inventory, manifest: &Manifest) -> Result<Contents> {
    let format_of = |path: &str| -> Result<Option<Format>> {
        let said =
            manifest.disks.values().find(|image| image.file() == path).and_then(|image| image.format());
        if let Some(said) = said {
            return Format::from_name(said).map(Some).ok_or_else(|| {
                Error::refused(format!("{said:?} is no format that is read"))
                    .in_file(&inventory.place(path))
                    .hint("landfall disk info shows the format of an image")
            });
        }
        // What is called raw was written by a guest; its first bytes decide nothing.
        Ok(Some(Format::Raw).filter(|_| ending(path) == "raw"))
    };
    let named: Vec<&str> = manifest.disks.values().map(super::manifest::Image::file).collect();
    let candidates: Vec<&str> = match named.is_empty() {
        true => {
            let all = inventory.entries.iter().map(|entry| entry.path.as_str());
            all.filter(|path| Format::from_ending(Path::new(path)).is_some()).collect()
        }
        false => named,
    };
    if candidates.len() > IMAGES_AT_MOST {
        return Err(Error::refused(format!("holds {} images and no definition", candidates.len()))
            .in_file(&inventory.root)
            .hint("name the machine's disks in landfall.json (\"disks\")"));
    }
    let (mut opened, mut failed) = (Vec::new(), Vec::new());
    // Pieces of images, and images below others.
    let mut below: BTreeSet<String> = BTreeSet::new();
    for path in candidates {
        let place = inventory.place(path);
        let upper =
            match format_of(path).and_then(|format| chain::open_upper(&place, &options(context, format))) {
                Ok(upper) => upper,
                // A flat extent has no header; whether it is one is known when the others were opened.
                Err(error) if error.kind() != Kind::Io => {
                    failed.push((path.to_owned(), error));
                    continue;
                }
                Err(error) => return Err(error),
            };
        let files = |layer: &LayerInfo| -> Vec<PathBuf> {
            layer.files.iter().chain([&layer.path]).cloned().collect()
        };
        let others = upper.image.layers.iter().flat_map(files).filter_map(|file| inside(inventory, &file));
        below.extend(others.filter(|other| other != path));
        opened.push((path.to_owned(), upper));
    }
    if let Some((_, error)) = failed.into_iter().find(|(path, _)| !below.contains(path)) {
        return Err(error);
    }
    let mut disks = Vec::new();
    let mut used = below.clone();
    for (path, upper) in opened {
        if below.contains(&path) {
            continue;
        }
        used.insert(path.clone());
        let Some(top) = upper.image.layers.first() else { continue };
        let stem = Path::new(name_of(&path)).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let named = manifest.disks.iter().find(|(_, image)| image.file() == path);
        disks.push(Found {
            slot: stem.to_owned(),
            disk: named.map(|(disk, _)| disk.clone()),
            format: top.format,
            identity: top.identity.clone(),
            content: Arc::clone(&upper.image.disk),
            sizes: upper.sizes.into_iter().rev().collect(),
            parent: upper.parent,
            file: path,
        });
    }
    if disks.is_empty() {
        return Err(Error::unsupported("holds neither a machine's definition nor a disk image")
            .in_file(&inventory.root)
            .hint("drop what the hypervisor exported, or name the images in landfall.json (\"disks\")"));
    }
    Ok(Contents { definition: None, unused: unused(inventory, |path| used.contains(path)), disks })
}

/// The digest by which a delta over the image can know it: of its file, where its format has no identity of its own.
///
/// # Errors
/// As the file's reader.
pub fn digest(inventory: &Inventory, manifest: &Manifest, found: &Found) -> Result<Option<Sum>> {
    if let Some(file) = manifest.files.get(&found.file) {
        return Ok(Some(file.sha256));
    }
    match found.identity {
        Some(_) => Ok(None),
        None => super::sum_of(&inventory.place(&found.file), &Default::default()).map(Some),
    }
}
