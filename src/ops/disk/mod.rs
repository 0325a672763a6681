//! One disk image: look at it, map it, convert it, compare it.

mod conversion;
mod serve;

pub use conversion::{Target, convert, target_in};
pub use serve::{Serve, serve};

use super::Context;
use crate::event::Event;
use landfall_image::check::Checked;
use landfall_image::convert::{self, Comparison, Converted};
use landfall_image::formats::{self, Image};
use landfall_image::location::Location;
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

/// An image to be read, as the user names it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// A file, a block device or the URI of an NBD export.
    pub place: &'a Path,
    /// Its format, instead of what its bytes say.
    pub format: Option<Format>,
    /// The internal snapshot to read, by id or name.
    pub snapshot: Option<&'a str>,
}

impl<'a> Input<'a> {
    /// The current state of what lies at `place`.
    pub fn new(place: &'a Path, format: Option<Format>) -> Self {
        Input { place, format, snapshot: None }
    }

    fn options(&self, context: &Context<'_>) -> OpenOptions {
        OpenOptions {
            format: self.format,
            gate: context.gate.clone(),
            snapshot: self.snapshot.map(str::to_owned),
            key: context.key.clone(),
            member: None,
            alone: false,
        }
    }
}

/// Opens an image under the context's rules.
pub fn open(context: &Context<'_>, input: Input<'_>) -> Result<Image> {
    Location::of(input.place)?.open(&input.options(context), &context.nbd)
}

/// Facts about an image.
pub fn info(context: &Context<'_>, input: Input<'_>, digest: bool) -> Result<Info> {
    let image = open(context, input)?;
    let (partitions, partition_error) = match partition::read(&*image.disk) {
        Ok(table) => (table, None),
        Err(error) => (None, Some(error)),
    };
    let digest = if digest {
        let options = context.copy_options();
        let name = file_name(input.place);
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

/// Bytes of data on all of several disks.
pub fn stored_by<D: Disk>(context: &Context<'_>, disks: &[D]) -> Result<Bytes> {
    disks.iter().try_fold(Bytes(0), |sum, disk| Ok(Bytes(sum.0.saturating_add(stored(context, disk)?.0))))
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
    let input = Input::new(path, format);
    if Location::of(path)?.path().is_none() {
        return Err(Error::unsupported("an NBD export has no structures to check").in_file(path));
    }
    let checked = formats::check(path, &input.options(context))?;
    if !read {
        return Ok((checked, None));
    }
    let image = open(context, input)?;
    let options = context.copy_options();
    context.observer.event(Event::CopyStarted { disk: file_name(path), progress: options.progress.clone() });
    let digest = convert::digest(&*image.disk, &options);
    context.observer.event(Event::CopyFinished);
    Ok((checked, Some(digest?.to_hex().to_string())))
}

/// Compares two images by content.
pub fn compare(context: &Context<'_>, a: Input<'_>, b: Input<'_>) -> Result<Comparison> {
    let first = open(context, a)?;
    let second = open(context, b)?;
    let options = context.copy_options();
    context
        .observer
        .event(Event::CopyStarted { disk: file_name(a.place), progress: options.progress.clone() });
    let result = convert::compare(&*first.disk, &*second.disk, &options);
    context.observer.event(Event::CopyFinished);
    result
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
