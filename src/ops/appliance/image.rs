//! Images of the appliance: one disk, in as many forms as are wanted, each with the definitions of its hypervisors beside it.

use super::build::{self, Parts};
use super::{Packages, bill, list, update};
use crate::event::Event;
use crate::ops::{Context, disk};
use landfall_image::create::Compression;
use landfall_image::formats::{self, KindRow};
use landfall_image::{Bytes, CreateOptions, Error, Result};
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
        return Err(Error::refused("is there already").in_file(path).hint("name another file, or add --force to replace it"));
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
        let mut options = CreateOptions::default();
        options.compression = (kind.name == "qcow2").then_some(Compression::Zlib);
        options.files.replace = wanted.force;
        let sink = (kind.create)(path, landfall_image::Disk::size(&disk), &options)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        disk::copy(context, &disk, sink, &name)?;
        let bill_path = beside(path, "spdx.json");
        build::beside(&bill_path, &bill::bill(&parts)?)?;
        images.push(built(path, kind.name, vec![bill_path.display().to_string()])?);
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

fn unsigned() -> Error {
    Error::refused("an update has to be signed").hint("make a key with landfall appliance key FILE, and name it with --sign FILE")
}

fn built(path: &Path, kind: &str, beside: Vec<String>) -> Result<BuiltImage> {
    let meta = std::fs::metadata(path).map_err(|e| Error::io("cannot look at", e).in_file(path))?;
    Ok(BuiltImage { path: path.display().to_string(), kind: kind.to_owned(), size: Bytes(meta.len()), beside })
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
