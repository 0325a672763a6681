//! A conversion: from one image to one other, with what must be refused before anything is written.

use super::{Input, file_name, open};
use crate::event::Event;
use crate::ops::Context;
use landfall_image::convert::{self, Converted, Journal};
use landfall_image::create::{Base, CreateOptions};
use landfall_image::formats::{self, Image, KindRow};
use landfall_image::location::Location;
use landfall_image::{Error, Format, Result};
use std::path::{Path, PathBuf};

/// What is to be written.
pub struct Target<'a> {
    /// Where.
    pub path: &'a Path,
    /// Which kind of image; `None` to go by the file name's ending.
    pub kind: Option<&'static KindRow>,
    /// How. Its base is made of `base`, and whether it resumes of `resume`.
    pub options: CreateOptions,
    /// The image that it is to be a differencing image over.
    pub base: Option<Input<'a>>,
    /// Continue what an interrupted run left, if it left anything.
    pub resume: bool,
}

/// Converts the image at `source`.
///
/// # Errors
/// Besides those of reading and writing: [`Kind::Refused`](landfall_image::Kind::Refused) where the target is one of the
/// files that are read, or `resume` cannot be heeded.
pub fn convert(context: &Context<'_>, source: Input<'_>, target: &Target<'_>) -> Result<Converted> {
    let place = Location::of(target.path)?;
    let kind = match (target.kind, &place) {
        (Some(kind), _) => kind,
        (None, Location::Nbd(_)) => formats::kind("raw")?,
        (None, Location::Path(path)) if is_device(path) => formats::kind("raw")?,
        (None, Location::Path(path)) => formats::kind_for(path)?,
    };
    let image = open(context, source)?;
    let base = target.base.map(|base| open(context, base)).transpose()?;
    if place.path().is_some() {
        not_read(target.path, &image, base.as_ref())?;
    }
    let size = image.disk.size();
    if kind.format == Format::Qcow2 && !size.0.is_multiple_of(landfall_image::units::SECTOR_SIZE_BYTES) {
        tracing::warn!(
            "the disk has {} bytes, no whole number of sectors: the qcow2 image goes on with zeros to the next one, \
             and so has another content digest",
            size.0
        );
    }
    let mut options = target.options.clone();
    options.base = match (&target.base, &base) {
        (Some(input), Some(image)) => Some(base_of(input.place, target.path, image)?),
        _ => None,
    };
    // A device or an export keeps nothing under another name, and a server does not say whether its disk was changed.
    let about = match place.path().is_some_and(|path| !is_device(path)) {
        true => about(&image, base.as_ref(), source.snapshot, kind, &options),
        false => None,
    };
    if target.resume && about.is_none() {
        return Err(Error::refused("cannot be continued: only a conversion of files into files can")
            .in_file(target.path)
            .hint("convert it anew, without --resume"));
    }
    options.files.resume = match &about {
        Some(about) => target.resume && Journal::can_resume(target.path, about)?,
        None => false,
    };
    let sink = place.create(kind, size, &options, &context.nbd)?;
    for path in sink.further_files() {
        not_read(&path, &image, base.as_ref())?;
    }
    let journal = match &about {
        Some(about) if options.files.resume => Some(Journal::resume(target.path, about)?),
        Some(about) => Some(Journal::begin(target.path, about)?),
        None => None,
    };
    let copy_options = context.copy_options();
    let name = file_name(target.path);
    context.observer.event(Event::CopyStarted { disk: name, progress: copy_options.progress.clone() });
    let base = base.as_ref().map(|image| &*image.disk);
    let result = convert::convert_with(&*image.disk, base, sink, journal, &copy_options);
    context.observer.event(Event::CopyFinished);
    result.map_err(|error| {
        if Journal::path_of(target.path).exists() && error.hint_text().is_none() {
            return error
                .hint("what is done so far is kept beside the target; go on from there with --resume");
        }
        error
    })
}

/// The base as the new image names it: relative to the image's own folder where both lie in one tree.
fn base_of(path: &Path, target: &Path, image: &Image) -> Result<Base> {
    let Some(top) = image.layers.first() else {
        return Err(Error::corrupt("has no layer").in_file(path));
    };
    let real = path.canonicalize().map_err(|e| Error::io("cannot resolve", e).in_file(path))?;
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().map_err(|e| Error::io("cannot resolve", e).in_file(folder))?;
    let named = real.strip_prefix(&folder).map(Path::to_path_buf).unwrap_or(real);
    Ok(Base { path: named, format: top.format, size: image.disk.size(), identity: top.identity.clone() })
}

/// What a conversion is about, in one line: a run that was interrupted is continued only by one that says the same.
/// `None` where it cannot be told whether what is read was changed meanwhile.
fn about(
    image: &Image,
    base: Option<&Image>,
    snapshot: Option<&str>,
    kind: &KindRow,
    options: &CreateOptions,
) -> Option<String> {
    let files = image.files().chain(base.into_iter().flat_map(Image::files));
    let files = crate::ops::state::of(files)?;
    let about = serde_json::json!({
        "landfall": env!("CARGO_PKG_VERSION"),
        "size": image.disk.size(),
        "files": files,
        "snapshot": snapshot,
        "kind": kind.name,
        "compression": options.compression,
        "level": options.level,
        "block_size": options.block_size,
        "extended_l2": options.extended_l2,
        "adapter": options.adapter,
        "preallocation": options.preallocation,
    });
    Some(about.to_string())
}

fn is_device(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| !meta.is_file())
}

/// The files of one conversion among several.
pub fn target_in(folder: &Path, source: &Path, kind: &KindRow) -> PathBuf {
    let stem = source.file_stem().unwrap_or(source.as_os_str());
    let mut name = stem.to_owned();
    name.push(".");
    name.push(kind.ending);
    folder.join(name)
}

/// Refuses a file to be written that is one of those which are read, by whatever name.
fn not_read(path: &Path, image: &Image, base: Option<&Image>) -> Result<()> {
    for file in image.files().chain(base.into_iter().flat_map(Image::files)) {
        if is_same_file(file, path) {
            return Err(Error::refused("is the source itself, or a part of it; it would be overwritten")
                .in_file(path)
                .hint("give the target another name"));
        }
    }
    Ok(())
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    }
}
