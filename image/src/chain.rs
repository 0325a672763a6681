//! Layers on top of each other: snapshots, differencing disks, backing files.
//!
//! A format reader gives one [`Layer`] and the name of its parent; this module finds the parents through the
//! [`Gate`](crate::Gate), checks that each is the one that the child was made from, and joins them to one disk.

use crate::disk::{self, Disk, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::formats::{self, Format, Image, LayerInfo, OpenOptions};
use crate::limits;
use crate::ova;
use crate::parent;
use crate::source::Source;
use crate::units::{Bytes, GuestOffset, GuestRange};
use crate::xva;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One image file (with its extents) as its format reader gives it.
pub struct Layer {
    /// The content of this layer alone: `Unallocated` where its parent shines through.
    pub disk: Arc<dyn Disk>,
    /// The image below, if this one needs one.
    pub parent: Option<ParentRef>,
    /// What a child must name to be a child of this layer: a VMDK content id, a VHDX data write GUID. In the
    /// format's own notation, compared as text.
    pub identity: Option<String>,
    /// Kind within the format, for people: `monolithicSparse`, `dynamic`.
    pub variant: String,
    /// Other facts for `disk info`.
    pub details: Vec<(String, String)>,
    /// Files beside the image itself that hold its data.
    pub extents: Vec<PathBuf>,
}

/// How an image names the one below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// File names as the image has them, best first, with `/` as separator.
    pub names: Vec<String>,
    /// The parent's format, where the image records it. Without it the parent is probed, unless `probe` is off.
    pub format: Option<Format>,
    /// The parent must have one of these as its [`Layer::identity`]; any will do where there is none.
    pub identities: Vec<String>,
    /// The parent must have this layer's logical sector size.
    pub same_sectors: bool,
}

impl ParentRef {
    /// The names to try for a parent that is recorded with backslash paths: the relative ones as they are, then
    /// the last component of every path, since a copied chain lies in one folder. Best first, none twice.
    pub fn names_from_backslash_paths(relative: &[String], absolute: &[String]) -> Vec<String> {
        let slashed = |path: &String| path.replace('\\', "/");
        let last = |path: &String| slashed(path).rsplit('/').next().unwrap_or_default().to_owned();
        let mut names: Vec<String> = Vec::new();
        for name in relative.iter().map(slashed).chain(relative.iter().chain(absolute).map(last)) {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// Opens `path` and its parents. Loops, chains deeper than [`limits::CHAIN_LAYERS`] and wrong parents are refused.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Image> {
    walk(path, options, false).map(|upper| upper.image)
}

/// The upper layers of a chain: those whose parents are at hand.
pub struct Upper {
    /// What they hold. What none of them stores is unallocated, where `parent` is there.
    pub image: Image,
    /// Sizes of their disks, the named image first. What lies behind the end of one is zeros to all above it.
    pub sizes: Vec<Bytes>,
    /// What the lowest of them is over; `None` where the chain is whole.
    pub parent: Option<ParentRef>,
}

/// As [`open`], down to the first layer whose parent is not where the gate lets it be looked for: for a caller who has what that held,
/// and compares its identity.
pub fn open_upper(path: &Path, options: &OpenOptions) -> Result<Upper> {
    walk(path, options, true)
}

fn walk(path: &Path, options: &OpenOptions, may_end: bool) -> Result<Upper> {
    let mut layers: Vec<(Arc<dyn Disk>, LayerInfo)> = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut options = options.clone();
    let (mut source, format, mut member) = enter(path, &options)?;
    options.format = format;
    if format == Some(Format::Xva) {
        // Its layer tells the member itself.
        options.member = member.take().or(options.member);
    }
    let mut wanted: Vec<String> = Vec::new();
    let mut by_name = false;
    let mut fits: Option<Arc<dyn Disk>> = None;
    let mut missing = None;
    loop {
        let here = source.path().to_owned();
        let real = here.canonicalize().map_err(|e| Error::io("cannot resolve", e).in_file(&here))?;
        if seen.contains(&real) {
            return Err(Error::corrupt("is its own parent: the chain of images is a loop").in_file(&here));
        }
        if seen.len() >= limits::CHAIN_LAYERS {
            return Err(Error::refused(format!(
                "the chain of images is longer than {} layers",
                limits::CHAIN_LAYERS
            ))
            .in_file(path));
        }
        seen.push(real);
        let (is, layer) = formats::open_layer(source, &options)?;
        if !wanted.is_empty() && !layer.identity.as_ref().is_some_and(|id| wanted.contains(id)) {
            let wanted = wanted.join(" or ");
            return Err(Error::corrupt(format!(
                "is not the parent that its child was made from: its id is {}, the child wants {wanted}",
                layer.identity.as_deref().unwrap_or("absent"),
            ))
            .in_file(&here)
            .hint("the parent was changed after the snapshot was taken, or another file has its name; find the right one"));
        }
        if let Some(child) = fits.take() {
            check_sectors(&*child, &*layer.disk).map_err(|e| e.in_file(&here))?;
        }
        if layer.disk.size() > limits::DISK_SIZE {
            return Err(Error::refused(format!(
                "says it is a disk of {}; the limit is {}",
                layer.disk.size(),
                limits::DISK_SIZE
            ))
            .in_file(&here));
        }
        let allocated = allocated(&here, &layer.extents);
        let mut details = layer.details;
        if let Some(member) = member.take() {
            details.push(("member of the package".into(), member));
        }
        if layer.parent.as_ref().is_some_and(|parent| parent.same_sectors) {
            fits = Some(Arc::clone(&layer.disk));
        }
        layers.push((
            layer.disk,
            LayerInfo {
                path: here.clone(),
                format: is,
                variant: layer.variant,
                identity: layer.identity,
                details,
                files: layer.extents,
                allocated,
                by_name,
            },
        ));
        let Some(parent) = layer.parent.filter(|_| !options.alone) else { break };
        let found = match parent::find(&here, &parent, &options.gate) {
            Err(error) if may_end && is_elsewhere(&error) => {
                missing = Some(parent);
                break;
            }
            found => found?,
        };
        (source, by_name) = (found.source, found.by_name);
        options.format = parent.format;
        options.snapshot = None;
        wanted = parent.identities;
    }
    let (disks, infos): (Vec<_>, Vec<_>) = layers.into_iter().unzip();
    let sizes = disks.iter().map(|disk| disk.size()).collect();
    let mut disks = disks.into_iter().rev();
    // There is at least the image itself.
    let Some(mut disk) = disks.next() else { return Err(Error::corrupt("has no layer").in_file(path)) };
    for child in disks {
        disk = Arc::new(Stacked { child, parent: disk });
    }
    Ok(Upper { image: Image { disk, layers: infos }, sizes, parent: missing })
}

/// True where a parent cannot be opened, or lies where its child may not look.
fn is_elsewhere(error: &Error) -> bool {
    matches!(error.kind(), crate::Kind::Io | crate::Kind::Refused)
}

/// An image that was opened [`alone`](OpenOptions::alone), on the disk that is its parent: one that its format's own names do not
/// lead to, such as an export in the network.
pub fn over(child: Image, parent: Image) -> Image {
    let layers = child.layers.into_iter().chain(parent.layers).collect();
    Image { disk: Arc::new(Stacked { child: child.disk, parent: parent.disk }), layers }
}

/// The bytes of the image that `path` means: a file's own, or those of a disk in an OVA package; its format, where that
/// is known; and its name in the package. A disk in an XVA has no bytes of its own: they are the archive's.
pub(crate) fn enter(path: &Path, options: &OpenOptions) -> Result<(Source, Option<Format>, Option<String>)> {
    if let Some((archive, name)) = xva::inside(path)? {
        return Ok((archive, Some(Format::Xva), Some(name)));
    }
    let entered = ova::enter(path, options.format == Some(Format::Raw))?;
    let format = match (&entered.member, options.format) {
        // The package's own name says nothing about the disk.
        (Some(member), None) => Some(formats::probe_named(&entered.source, Path::new(member))?),
        (_, format) => format,
    };
    Ok((entered.source, format, entered.member))
}

/// What a parent must have in common with a child that shares its sectors. Not the size: a child that has grown or shrunk
/// has its own.
fn check_sectors(child: &dyn Disk, parent: &dyn Disk) -> Result<()> {
    if parent.sector_size() != child.sector_size() {
        return Err(Error::corrupt(format!(
            "has logical sectors of {} bytes, its child of {}; they must be the same in a chain",
            parent.sector_size().0,
            child.sector_size().0
        ))
        .hint("another file has the parent's name, or one of the two is damaged; find the right parent"));
    }
    Ok(())
}

fn allocated(path: &Path, extents: &[PathBuf]) -> Bytes {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.blocks() * 512);
    Bytes(extents.iter().filter(|extent| *extent != path).map(|extent| of(extent)).sum::<u64>() + of(path))
}

/// A child on its parent. The child's size counts; a shorter parent reads as zeros behind its end.
struct Stacked {
    child: Arc<dyn Disk>,
    parent: Arc<dyn Disk>,
}

impl Stacked {
    /// What the parent has for a run that the child does not store.
    fn parent_extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let inside = disk::clip(range, self.parent.size());
        if inside.is_empty() {
            return Ok(vec![Extent { range, kind: ExtentKind::Unallocated }]);
        }
        self.parent.extents(inside, at_most)
    }
}

impl Disk for Stacked {
    fn size(&self) -> Bytes {
        self.child.size()
    }

    fn sector_size(&self) -> Bytes {
        // A format that cannot tell says 512.
        self.child.sector_size().max(self.parent.sector_size())
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let mut out = Vec::new();
        let at_most = at_most.max(1);
        for extent in self.child.extents(range, at_most)? {
            if out.len() >= at_most {
                break;
            }
            if extent.kind != ExtentKind::Unallocated {
                out.push(extent);
                continue;
            }
            let below = self.parent_extents(extent.range, at_most - out.len())?;
            let covered = below.last().is_some_and(|last| last.range.end() == extent.range.end());
            out.extend(below);
            if !covered {
                break; // the answer must stay contiguous
            }
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, buf.len())?;
        let mut done = 0usize;
        while done < buf.len() {
            let here = GuestOffset(at.0 + done as u64);
            let rest = GuestRange::new(here, Bytes((buf.len() - done) as u64));
            for extent in self.child.extents(rest, 16)? {
                let len = usize::try_from(extent.range.len().0).unwrap_or(usize::MAX).min(buf.len() - done);
                let part = &mut buf[done..done + len];
                match extent.kind {
                    ExtentKind::Zero => part.fill(0),
                    ExtentKind::Data => self.child.read_at(extent.range.start(), part)?,
                    ExtentKind::Unallocated => {
                        let inside = disk::clip(extent.range, self.parent.size()).len().0;
                        let inside = usize::try_from(inside).unwrap_or(usize::MAX).min(len);
                        let (stored, beyond) = part.split_at_mut(inside);
                        if !stored.is_empty() {
                            self.parent.read_at(extent.range.start(), stored)?;
                        }
                        beyond.fill(0);
                    }
                }
                done += len;
            }
        }
        Ok(())
    }
}
