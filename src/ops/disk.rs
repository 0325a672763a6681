//! One disk image: look at it, map it, convert it, compare it.

use super::Context;
use crate::event::Event;
use landfall_image::check::Checked;
use landfall_image::convert::{self, Comparison, Converted, Journal};
use landfall_image::create::{Base, CreateOptions};
use landfall_image::formats::{self, Image, KindRow};
use landfall_image::partition::{self, Table};
use landfall_image::{
    Bytes, Disk, Error, Extent, ExtentKind, Format, GuestOffset, GuestRange, OpenOptions, Result,
};
use std::path::{Path, PathBuf};

/// What `disk info` tells.
pub struct Info {
    /// The image and its layers.
    pub image: Image,
    /// Its partitions, where there is a table that can be read.
    pub partitions: Option<Table>,
    /// Why there is none, where the reason is damage.
    pub partition_error: Option<Error>,
    /// The content digest, where it was asked for.
    pub digest: Option<String>,
}

/// Opens an image under the context's rules.
pub fn open(context: &Context<'_>, path: &Path, format: Option<Format>) -> Result<Image> {
    formats::open(path, &OpenOptions { format, gate: context.gate.clone(), ..OpenOptions::default() })
}

/// Facts about an image.
pub fn info(context: &Context<'_>, path: &Path, format: Option<Format>, digest: bool) -> Result<Info> {
    let image = open(context, path, format)?;
    let (partitions, partition_error) = match partition::read(&*image.disk) {
        Ok(table) => (table, None),
        Err(error) => (None, Some(error)),
    };
    let digest = if digest {
        let options = context.copy_options();
        let name = file_name(path);
        context.observer.event(Event::CopyStarted { disk: name, progress: options.progress.clone() });
        let value = convert::digest(&*image.disk, &options)?;
        context.observer.event(Event::CopyFinished);
        Some(value.to_hex().to_string())
    } else {
        None
    };
    Ok(Info { image, partitions, partition_error, digest })
}

/// Calls `each` with every extent of the disk in order, neighbours of one kind joined.
pub fn map(context: &Context<'_>, disk: &dyn Disk, mut each: impl FnMut(Extent) -> Result<()>) -> Result<()> {
    const AT_A_TIME: usize = 4096;
    let mut joined: Option<Extent> = None;
    let mut at = GuestOffset(0);
    let end = GuestOffset(disk.size().0);
    while at < end {
        context.check_cancelled()?;
        for extent in disk.extents(GuestRange::between(at, end), AT_A_TIME)? {
            at = extent.range.end();
            match &mut joined {
                Some(last) if last.kind == extent.kind => {
                    last.range = GuestRange::between(last.range.start(), extent.range.end());
                }
                _ => {
                    if let Some(last) = joined.replace(extent) {
                        each(last)?;
                    }
                }
            }
        }
    }
    joined.map_or(Ok(()), each)
}

/// Bytes of a disk by the kind of their extents: data, then the rest.
pub fn stored(context: &Context<'_>, disk: &dyn Disk) -> Result<Bytes> {
    let mut data = 0u64;
    map(context, disk, |extent| {
        if extent.kind == ExtentKind::Data {
            data = data.saturating_add(extent.range.len().0);
        }
        Ok(())
    })?;
    Ok(Bytes(data))
}

/// What is to be written.
pub struct Target<'a> {
    /// Where.
    pub path: &'a Path,
    /// Which kind of image; `None` to go by the file name's ending.
    pub kind: Option<&'static KindRow>,
    /// How. Its base is made of `base`, and whether it resumes of `resume`.
    pub options: CreateOptions,
    /// The image that it is to be a differencing image over, and its format.
    pub base: Option<(&'a Path, Option<Format>)>,
    /// Continue what an interrupted run left, if it left anything.
    pub resume: bool,
}

/// Converts the image at `source`.
pub fn convert(
    context: &Context<'_>,
    source: &Path,
    source_format: Option<Format>,
    target: &Target<'_>,
) -> Result<Converted> {
    let kind = match target.kind {
        Some(kind) => kind,
        None => formats::kind_for(target.path)?,
    };
    let image = open(context, source, source_format)?;
    let base = match target.base {
        Some((path, format)) => Some(open(context, path, format)?),
        None => None,
    };
    for file in image.files().chain(base.iter().flat_map(Image::files)) {
        if is_same_file(file, target.path) {
            return Err(Error::refused("is the source itself, or a part of it; it would be overwritten")
                .in_file(target.path)
                .hint("give the target another name"));
        }
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
        (Some((path, _)), Some(image)) => Some(base_of(path, target.path, image)?),
        _ => None,
    };
    let about = about(&image, base.as_ref(), kind, &options);
    options.files.resume = target.resume && Journal::can_resume(target.path, &about)?;
    let sink = (kind.create)(target.path, size, &options)?;
    // A device keeps nothing under another name; what is there is no leftover of ours.
    let journal = match target.path.metadata().is_ok_and(|meta| !meta.is_file()) {
        true => None,
        false if options.files.resume => Some(Journal::resume(target.path, &about)?),
        false => Some(Journal::begin(target.path, &about)?),
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
fn about(image: &Image, base: Option<&Image>, kind: &KindRow, options: &CreateOptions) -> String {
    use std::os::unix::fs::MetadataExt;
    let files: Vec<_> = image
        .files()
        .chain(base.into_iter().flat_map(Image::files))
        .map(|path| {
            let meta =
                std::fs::metadata(path).map(|meta| (meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ino()));
            (path.display().to_string(), meta.ok())
        })
        .collect();
    serde_json::json!({
        "landfall": env!("CARGO_PKG_VERSION"),
        "size": image.disk.size(),
        "files": files,
        "kind": kind.name,
        "compression": options.compression,
        "level": options.level,
        "block_size": options.block_size,
        "extended_l2": options.extended_l2,
        "preallocation": options.preallocation,
    })
    .to_string()
}

/// The files of one conversion among several.
pub fn target_in(folder: &Path, source: &Path, kind: &KindRow) -> PathBuf {
    let stem = source.file_stem().unwrap_or(source.as_os_str());
    let mut name = stem.to_owned();
    name.push(".");
    name.push(kind.format.row().endings.first().copied().unwrap_or("img"));
    folder.join(name)
}

/// Copies a disk into a sink under the observer's eyes.
pub fn copy(
    context: &Context<'_>,
    disk: &dyn Disk,
    sink: Box<dyn landfall_image::Sink>,
    name: &str,
) -> Result<Converted> {
    let options = context.copy_options();
    context.observer.event(Event::CopyStarted { disk: name.to_owned(), progress: options.progress.clone() });
    let result = convert::convert(disk, sink, &options);
    context.observer.event(Event::CopyFinished);
    result
}

/// What a check found in each layer of a chain, `None` where the format has nothing to check.
pub type CheckedLayers = Vec<(PathBuf, Format, Option<Checked>)>;

/// Checks the structures of an image and of everything below it, and reads all of it where `read` says so.
pub fn check(
    context: &Context<'_>,
    path: &Path,
    format: Option<Format>,
    read: bool,
) -> Result<(CheckedLayers, Option<String>)> {
    let options = OpenOptions { format, gate: context.gate.clone(), ..OpenOptions::default() };
    let checked = formats::check(path, &options)?;
    if !read {
        return Ok((checked, None));
    }
    let image = open(context, path, format)?;
    let options = context.copy_options();
    context.observer.event(Event::CopyStarted { disk: file_name(path), progress: options.progress.clone() });
    let digest = convert::digest(&*image.disk, &options);
    context.observer.event(Event::CopyFinished);
    Ok((checked, Some(digest?.to_hex().to_string())))
}

/// Compares two images by content.
pub fn compare(
    context: &Context<'_>,
    a: &Path,
    b: &Path,
    formats: [Option<Format>; 2],
) -> Result<Comparison> {
    let first = open(context, a, formats[0])?;
    let second = open(context, b, formats[1])?;
    let options = context.copy_options();
    context.observer.event(Event::CopyStarted { disk: file_name(a), progress: options.progress.clone() });
    let result = convert::compare(&*first.disk, &*second.disk, &options);
    context.observer.event(Event::CopyFinished);
    result
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
