//! dracut's squash mode: the content lies in an image inside the archive, and a small outer system mounts that.
//!
//! ```text
//! since 055:  /squash-root.img, /squashfs-root.img    the whole root; the outer system vanishes when it is entered
//! before:     /squash/root.img                        the lower layer of /usr and /etc; the outer files lie above it
//! ```
//!
//! Files that are added beside an image of the first kind are never seen. So the image is unpacked, and what is written
//! is the same system as dracut makes it without its squash module: the image has all of that, its own `/init` included.
//! The guest's next dracut run squashes again, as it is configured.
//!
//! Deliberately absent: EROFS images (`/erofs-root.img`).

use super::content::{Content, Origin};
use super::cpio::{self, Entry, REGULAR};
use super::squashfs::{self, Image};
use crate::{Error, Result};
use std::collections::HashMap;

/// Where dracut puts its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The image is the whole root.
    Whole,
    /// The outer files lie over the image's.
    Layered,
    /// An EROFS image.
    Erofs,
}

const IMAGES: &[(&str, Layout)] = &[
    ("squashfs-root.img", Layout::Whole),
    ("squash-root.img", Layout::Whole),
    ("squash/root.img", Layout::Layered),
    ("erofs-root.img", Layout::Erofs),
];

/// Files of the outer system that mount the image or clean up after it.
const OUTER: &[&str] = &[
    "squash/root.img",
    "squash/setup-squash.sh",
    "squash/clear-squash.sh",
    "squash/init.sh",
    "usr/lib/systemd/system/squash-mnt-clear.service",
    "usr/lib/systemd/system/initrd-switch-root.target.wants/squash-mnt-clear.service",
    "usr/lib/systemd/system/initrd.target.wants/squash-mnt-clear.service",
];

/// The image inside, if there is one.
pub fn find(content: &mut Content<'_>) -> Result<Option<Layout>> {
    for (path, layout) in IMAGES {
        if content.get(path.as_bytes())?.is_some() {
            return Ok(Some(*layout));
        }
    }
    Ok(None)
}

/// Reads the image that lies in `content`.
///
/// # Errors
/// `Corrupt` where it is damaged, `Refused` beyond [`limits`], `Unsupported` for EROFS.
pub fn read(content: &mut Content<'_>, layout: Layout) -> Result<Image> {
    if layout == Layout::Erofs {
        return Err(Error::unsupported(
            "the initramfs keeps its content in an EROFS image (dracut's module squash-erofs)",
        )
        .hint(
            "in the guest: write omit_dracutmodules+=\" squash squash-erofs \" into /etc/dracut.conf.d/squash.conf, \
             and run dracut --force --regenerate-all",
        ));
    }
    for (path, _) in IMAGES.iter().filter(|(_, of)| *of == layout) {
        if let Some(file) = content.get(path.as_bytes())?.filter(|file| file.is(REGULAR)) {
            return squashfs::read(&file.data);
        }
    }
    Err(Error::corrupt("the squashfs image inside the initramfs is no regular file"))
}

/// Applies everything in an image, as an archive of the same content would be.
pub fn apply<'a>(image: &'a Image, content: &mut Content<'a>) -> Result<()> {
    let mut names: HashMap<usize, u32> = HashMap::new();
    for node in image.nodes.iter().filter(|node| node.mode & cpio::TYPE_MASK == REGULAR && node.data != 0) {
        *names.entry(node.data).or_default() += 1;
    }
    let nodes = image.nodes.iter().filter(|node| !node.path.is_empty());
    let entries: Vec<Entry<'a>> = nodes
        .map(|node| Entry {
            name: &node.path,
            data: image.data.get(node.data).map(Vec::as_slice).unwrap_or_default(),
            inode: u32::try_from(node.data).unwrap_or(u32::MAX),
            device: (0, 0),
            mode: node.mode,
            uid: node.owner.0,
            gid: node.owner.1,
            nlink: names.get(&node.data).copied().unwrap_or(1),
            mtime: node.mtime,
            rdev: node.rdev,
        })
        .collect();
    content.apply(&entries, Origin::Main)
}

/// Takes the loader of the layered kind out of the merged content: `/init` is the system's own again.
pub fn drop_loader(content: &mut Content<'_>) -> Result<()> {
    for name in ["init.orig", "init.stock"] {
        if content.rename(name.as_bytes(), b"init")? {
            for path in OUTER {
                content.remove(path.as_bytes())?;
            }
            return Ok(());
        }
    }
    let says = "the initramfs has a squashfs image, and no /init.orig that would start what is in it";
    Err(Error::unsupported(says)
        .hint("in the guest: omit the dracut module \"squash\" and run dracut --force for this kernel"))
}
