//! A machine as the user names it: a definition on the host, and the disks that it names.

use super::Context;
use crate::event::Event;
use crate::hypervisor;
use crate::machine::Machine;
use landfall_image::formats::Image;
use landfall_image::{Error, Format, Overlay, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No definition is longer.
const DEFINITION_AT_MOST: u64 = 16 << 20;

/// A definition that was read, with its disks open for reading.
pub struct Loaded {
    /// The machine. Its name is never empty.
    pub machine: Machine,
    /// What it is called at the source, by which a network map knows it.
    pub source_name: String,
    /// The definition's file.
    pub path: PathBuf,
    /// Which hypervisor's definition it is.
    pub hypervisor: &'static str,
    /// Its disks, in the machine's order.
    pub images: Vec<Image>,
    /// What the definition says and the machine cannot carry.
    pub left_out: Vec<String>,
}

impl Loaded {
    /// The machine has another name at the target.
    pub fn rename(&mut self, name: &str) {
        name.clone_into(&mut self.machine.name);
    }

    /// The disks, each with an overlay in `scratch` that takes all writes.
    pub fn overlays(&self, scratch: &Path) -> Result<Vec<Arc<Overlay>>> {
        self.images.iter().map(|image| Overlay::new(Arc::clone(&image.disk), scratch).map(Arc::new)).collect()
    }

    /// The definition and every file of its disks, parents and extents too, by their real paths.
    pub fn files(&self) -> Vec<PathBuf> {
        let layers = self.images.iter().flat_map(|image| &image.layers);
        let disks = layers.flat_map(|layer| layer.files.iter().chain([&layer.path]));
        disks.chain([&self.path]).filter_map(|path| path.canonicalize().ok()).collect()
    }
}

/// Reads the definition at `path` and opens its disks.
pub fn load(context: &Context<'_>, path: &Path) -> Result<Loaded> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or("").to_ascii_lowercase();
    let parser = hypervisor::by_ending(&ending).and_then(|row| Some((row, row.parse?)));
    let Some((row, parse)) = parser else {
        let known: Vec<_> =
            hypervisor::TABLE.iter().filter(|row| row.parse.is_some()).flat_map(|row| row.endings).collect();
        return Err(Error::unsupported("is not a machine definition that landfall reads")
            .in_file(path)
            .hint(format!(
                "name a file that ends in .{}; for a disk image alone use landfall disk",
                known.iter().map(|ending| (**ending).to_owned()).collect::<Vec<_>>().join(" or .")
            )));
    };
    context.observer.event(Event::Step(format!("Reading {}", path.display())));
    let parsed = parse(&read_definition(path)?).map_err(|e| e.in_file(path))?;
    let mut machine = parsed.machine;
    if machine.name.trim().is_empty() {
        machine.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    }
    if machine.disks.is_empty() {
        return Err(Error::unsupported("has no disk: there is nothing to bring ashore").in_file(path));
    }
    let mut images = Vec::new();
    for disk in &machine.disks {
        let file = place(context, path, &disk.file).map_err(|e| e.in_file(path))?;
        images.push(open(context, &file)?);
    }
    Ok(Loaded {
        source_name: machine.name.clone(),
        machine,
        path: path.to_owned(),
        hypervisor: row.name,
        images,
        left_out: parsed.left_out,
    })
}

/// Opens a disk as its machine sees it. A disk that the guest encrypted as a whole begins like an image that the host
/// encrypted, which a key would open: what is written would then be decrypted, and no longer what the guest looks for.
fn open(context: &Context<'_>, file: &Path) -> Result<Image> {
    let image = super::disk::open(context, super::disk::Input::new(file, None))?;
    match image.layers.first() {
        Some(layer) if layer.format == Format::Luks => {
            super::disk::open(context, super::disk::Input::new(file, Some(Format::Raw)))
        }
        _ => Ok(image),
    }
}

/// Where the disk that the definition at `definition` calls `name` lies here. A definition from another host may name it
/// by that host's path (of Windows, or with a datastore); its disks are copied beside it, so the last component is
/// looked for there.
fn place(context: &Context<'_>, definition: &Path, name: &str) -> Result<PathBuf> {
    let is_foreign = name.starts_with(['/', '[']) || name.contains('\\');
    match context.gate.resolve(definition, name) {
        Err(first) if is_foreign => {
            let last = name.rsplit(['/', '\\', ']']).next().unwrap_or(name).trim_start();
            context.gate.resolve(definition, last).map_err(|_| {
                let allow = first.hint_text().filter(|hint| hint.contains("--allow")).map(str::to_owned);
                let beside = format!("put {last} beside {}", definition.display());
                first.hint(match allow {
                    Some(allow) => format!("{beside}; or, {allow}"),
                    None => beside,
                })
            })
        }
        other => other,
    }
}

fn read_definition(path: &Path) -> Result<Vec<u8>> {
    let source = landfall_image::Source::open(path)?;
    if source.len().0 > DEFINITION_AT_MOST {
        return Err(Error::refused(format!(
            "has {}; a definition has at most {} bytes",
            source.len(),
            DEFINITION_AT_MOST
        ))
        .in_file(path));
    }
    source.head(usize::try_from(source.len().0).unwrap_or(usize::MAX))
}
