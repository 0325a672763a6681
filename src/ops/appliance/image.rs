//! Images of the appliance: one disk, in as many forms as are wanted, each with the definitions of its hypervisors beside it.

use super::build::{self, Parts};
use super::{Packages, bill, define, disc, list, readme, update};
use crate::event::Event;
use crate::hypervisor;
use crate::ops::packing::Packing;
use crate::ops::{Context, disk};
use landfall_boot::appliance::layout;
use landfall_image::create::{Compression, FileOptions};
use landfall_image::formats::{self, KindRow};
use landfall_image::{Bytes, CreateOptions, Disk, Error, Result};
use std::path::{Path, PathBuf};

/// The ending of the bill of materials.
const BILL: &str = "spdx.json";

/// What is wanted.
pub struct Wanted {
    /// The images; the ending of each says which form it has.
    pub outputs: Vec<PathBuf>,
    /// Where packages come from.
    pub packages: Packages,
    /// Another list than the program's own.
    pub list: Option<PathBuf>,
    /// The program inside.
    pub program: PathBuf,
    /// The file with the public key of updates.
    pub update_key: Option<PathBuf>,
    /// Replace files that are there.
    pub force: bool,
    /// Of the root's compression.
    pub level: i32,
    /// The file with the key that updates are signed with.
    pub sign: Option<PathBuf>,
}

/// What was made.
#[derive(Clone, Debug, serde::Serialize, schemars::JsonSchema)]
pub struct Built {
    /// Version of this document.
    pub version: u32,
    /// The moment of the package list.
    pub snapshot: String,
    /// The kernel's release.
    pub kernel: String,
    /// SHA-256 of all that a system slot holds.
    pub system: String,
    /// Bytes of the compressed root.
    pub root: Bytes,
    /// The images.
    pub images: Vec<BuiltImage>,
}

/// An image that was made.
#[derive(Clone, Debug, serde::Serialize, schemars::JsonSchema)]
pub struct BuiltImage {
    /// Where it lies.
    pub path: String,
    /// Its form.
    pub kind: String,
    /// Bytes of the file.
    pub size: Bytes,
    /// Files beside it.
    pub beside: Vec<String>,
}

/// Builds the images.
///
/// # Errors
/// What cannot be had or written.
pub fn build(context: &Context<'_>, wanted: &Wanted) -> Result<Built> {
    let outputs: Vec<(&PathBuf, Form)> =
        wanted.outputs.iter().map(|path| Ok((path, form(path)?))).collect::<Result<_>>()?;
    // Before minutes of work are done for nothing.
    for (path, _) in &outputs {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(Error::refused("cannot be written: its folder is not there")
                .in_file(path)
                .hint("create the folder first"));
        }
    }
    if !wanted.force {
        let size = layout::image_size();
        for (path, form) in &outputs {
            let beside = match form {
                Form::Disk(kind) => define::beside(path, kind.name, size)?,
                Form::Disc | Form::Update => Vec::new(),
            };
            let beside = beside.iter().map(|artifact| path.with_file_name(&artifact.name));
            let others = [path.with_extension(BILL), readme::place(path)].into_iter().chain(beside);
            if let Some(there) = std::iter::once((*path).clone()).chain(others).find(|path| path.exists()) {
                return Err(Error::refused("is there already")
                    .in_file(&there)
                    .hint("name another file, or add --force to replace what is there"));
            }
        }
    }
    if outputs.iter().any(|(_, form)| matches!(form, Form::Update)) && wanted.sign.is_none() {
        return Err(unsigned());
    }
    let read = |path: &Path| std::fs::read(path).map_err(|e| Error::io("cannot read", e).in_file(path));
    let parts = Parts {
        list: list(wanted.list.as_deref())?,
        program: read(&wanted.program)?,
        update_key: wanted.update_key.as_deref().map(read).transpose()?,
        level: wanted.level,
    };
    let with_disc = outputs.iter().any(|(_, form)| matches!(form, Form::Disc));
    let system = build::system(context, &parts, &wanted.packages, with_disc)?;
    let disk = build::disk(&system)?;
    let mut images = Vec::new();
    for (path, form) in outputs {
        context.observer.event(Event::Step(format!("Writing {}", path.display())));
        let options = |compression| CreateOptions {
            compression,
            files: FileOptions { replace: wanted.force, ..FileOptions::default() },
            ..CreateOptions::default()
        };
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let kind = match form {
            Form::Disk(kind) => kind,
            Form::Disc => {
                let disc = disc::disc(&system)?;
                let sink = (formats::kind("raw")?.create)(path, disc.size(), &options(None))?;
                disk::copy(context, &disc, sink, &name)?;
                let bill = put_bill(path, &parts)?;
                images.push(built(path, "iso", vec![bill])?);
                continue;
            }
            Form::Update => {
                let sign = wanted.sign.as_deref().ok_or_else(unsigned)?;
                update::write(&system, &parts.list, sign, path, wanted.force)?;
                images.push(built(path, "update", Vec::new())?);
                continue;
            }
        };
        let size = disk.size();
        if kind.name == "ova" {
            pack(context, &disk, path, &name)?;
        } else {
            let compression = (kind.name == "qcow2").then_some(Compression::Zlib);
            let sink = (kind.create)(path, size, &options(compression))?;
            disk::copy(context, &disk, sink, &name)?;
        }
        let mut others = vec![put_bill(path, &parts)?];
        for artifact in define::beside(path, kind.name, size)? {
            let path = path.with_file_name(&artifact.name);
            build::beside(&path, artifact.text.as_bytes(), artifact.executable)?;
            others.push(path.display().to_string());
        }
        images.push(built(path, kind.name, others)?);
    }
    readme::write(&mut images)?;
    Ok(Built {
        version: crate::report::VERSION,
        snapshot: parts.list.snapshot.clone(),
        kernel: system.release.clone(),
        system: build::digest(&system)?,
        root: system.root_size,
        images,
    })
}

/// An OVA: the descriptor that asks for the network, the disk, the manifest.
fn pack(context: &Context<'_>, disk: &dyn Disk, path: &Path, name: &str) -> Result<()> {
    let target = hypervisor::target("ova").ok_or_else(|| Error::unsupported("there is no target ova"))?;
    let kind = formats::kind("vmdk-stream")?;
    let inner = path.with_extension(kind.ending);
    let (machine, placement) = define::machine(target, &inner, kind.name, disk.size())?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut packing = Packing::begin(folder, target, &machine, &placement)?;
    let mut options = CreateOptions::default();
    let [placed] = &placement.disks[..] else { return Err(Error::corrupt("the appliance has not one disk")) };
    let at = packing.disk(&placed.file, &mut options)?;
    let sink = (kind.create)(&at, disk.size(), &options)?;
    disk::copy(context, disk, sink, name)?;
    let mut placement = placement.clone();
    let stored = packing.disk_done()?;
    for placed in &mut placement.disks {
        placed.stored = Some(stored);
    }
    packing.finish(context, (target.render)(&machine, &placement)?)?;
    Ok(())
}

fn unsigned() -> Error {
    Error::refused("an update has to be signed")
        .hint("make a key with landfall appliance key FILE, and name it with --sign FILE")
}

fn built(path: &Path, kind: &str, beside: Vec<String>) -> Result<BuiltImage> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io("cannot look at", e).in_file(path))?;
    Ok(BuiltImage {
        path: path.display().to_string(),
        kind: kind.to_owned(),
        size: Bytes(meta.len()),
        beside,
    })
}

/// Writes the bill of materials beside an image; gives where it lies.
fn put_bill(image: &Path, parts: &Parts) -> Result<String> {
    let path = image.with_extension(BILL);
    build::beside(&path, &bill::bill(parts)?, false)?;
    Ok(path.display().to_string())
}

/// What a file's ending stands for.
enum Form {
    Disk(&'static KindRow),
    Disc,
    Update,
}

fn form(path: &Path) -> Result<Form> {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    let name = match ending.as_deref() {
        Some("raw" | "img") => "raw",
        Some("qcow2") => "qcow2",
        Some("vmdk") => "vmdk",
        Some("vhdx") => "vhdx",
        // The only ones who take this form and no VHDX: of a fixed size in whole MiB.
        Some("vhd") => "vhd-azure",
        Some("ova") => "ova",
        Some("iso") => return Ok(Form::Disc),
        Some("update") => return Ok(Form::Update),
        _ => {
            return Err(Error::refused("has no ending that says which form the image is to have")
                .in_file(path)
                .hint("end it with .ova, .vhdx, .qcow2, .vmdk, .vhd, .raw, .iso or .update"));
        }
    };
    Ok(Form::Disk(formats::kind(name)?))
}
