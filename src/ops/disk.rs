//! One disk image: look at it, map it, convert it, compare it.

use super::Context;
use crate::event::Event;
use landfall_image::convert::{self, Comparison, Converted};
use landfall_image::formats::{self, CreateOptions, Image};
use landfall_image::partition::{self, Table};
use landfall_image::{
    Bytes, Disk, Error, Extent, ExtentKind, Format, GuestOffset, GuestRange, OpenOptions, Result,
};
use std::path::Path;

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
    formats::open(path, &OpenOptions { format, gate: context.gate.clone() })
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
    /// In which format; `None` to go by the file name's ending.
    pub format: Option<Format>,
    /// How.
    pub options: CreateOptions,
}

/// Converts the image at `source`.
pub fn convert(
    context: &Context<'_>,
    source: &Path,
    source_format: Option<Format>,
    target: &Target<'_>,
) -> Result<Converted> {
    let format = match target.format.or_else(|| Format::from_ending(target.path)) {
        Some(format) => format,
        None => {
            return Err(Error::refused("does not say by its ending which format is wanted")
                .in_file(target.path)
                .hint("name the format with -O qcow2 or -O raw"));
        }
    };
    let image = open(context, source, source_format)?;
    for layer in &image.layers {
        let files = layer.files.iter().chain([&layer.path]);
        for file in files {
            if is_same_file(file, target.path) {
                return Err(Error::refused("is the source itself, or a part of it; it would be overwritten")
                    .in_file(target.path)
                    .hint("give the target another name"));
            }
        }
    }
    let size = image.disk.size();
    if format == Format::Qcow2 && !size.0.is_multiple_of(landfall_image::units::SECTOR_SIZE_BYTES) {
        tracing::warn!(
            "the disk has {} bytes, no whole number of sectors: the qcow2 image goes on with zeros to the next one, \
             and so has another content digest",
            size.0
        );
    }
    let sink = formats::create(target.path, format, size, &target.options)?;
    copy(context, &*image.disk, sink, &file_name(target.path))
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
