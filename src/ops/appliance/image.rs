//! Images of the appliance: one disk, in as many forms as are wanted, each with the definitions of its hypervisors beside it.

use super::build::{self, Parts};
use super::{Packages, bill, define, list, update};
use crate::event::Event;
use crate::hypervisor;
use crate::ops::packing::Packing;
use crate::ops::{Context, disk, folder};
use landfall_image::create::{Compression, FileOptions};
use landfall_image::formats::{self, KindRow};
use landfall_image::{Bytes, CreateOptions, Disk, Error, Result};
use std::path::{Path, PathBuf};

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
    if !wanted.force
        && let Some(path) = wanted.outputs.iter().find(|path| path.exists())
    {
        return Err(Error::refused("is there already")
            .in_file(path)
            .hint("name another file, or add --force to replace it"));
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
    let system = build::system(context, &parts, &wanted.packages, false)?;
    let disk = build::disk(&system)?;
    let mut images = Vec::new();
    for (path, form) in outputs {
        context.observer.event(Event::Step(format!("Writing {}", path.display())));
        let kind = match form {
            Form::Disk(kind) => kind,
            Form::Update => {
                let sign = wanted.sign.as_deref().ok_or_else(unsigned)?;
                update::write(&system, &parts.list, sign, path, wanted.force)?;
                images.push(built(path, "update", Vec::new())?);
                continue;
            }
        };
        let size = disk.size();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        if kind.name == "ova" {
            pack(context, &disk, path, &name)?;
        } else {
            let options = CreateOptions {
                compression: (kind.name == "qcow2").then_some(Compression::Zlib),
                files: FileOptions { replace: wanted.force, ..FileOptions::default() },
                ..CreateOptions::default()
            };
            let sink = (kind.create)(path, size, &options)?;
            disk::copy(context, &disk, sink, &name)?;
        }
        let bill_path = beside(path, "spdx.json");
        build::beside(&bill_path, &bill::bill(&parts)?)?;
        let mut others = vec![bill_path.display().to_string()];
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        for artifact in define::beside(path, kind.name, size)? {
            folder::write_file(folder, &artifact)?;
            others.push(folder.join(&artifact.name).display().to_string());
        }
        images.push(built(path, kind.name, others)?);
    }
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

/// `landfall.ova` with another ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    path.with_extension(ending)
}

/// What a file's ending stands for.
enum Form {
    Disk(&'static KindRow),
    Update,
}

fn form(path: &Path) -> Result<Form> {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    let name = match ending.as_deref() {
        Some("raw" | "img") => "raw",
        Some("qcow2") => "qcow2",
        Some("vmdk") => "vmdk",
        Some("vhdx") => "vhdx",
        Some("vhd") => "vhd",
        Some("ova") => "ova",
        Some("update") => return Ok(Form::Update),
        _ => {
            return Err(Error::refused("has no ending that says which form the image is to have")
                .in_file(path)
                .hint("end it with .ova, .vhdx, .qcow2, .vmdk, .raw or .update"));
        }
    };
    Ok(Form::Disk(formats::kind(name)?))
}
