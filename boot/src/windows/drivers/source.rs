//! Where drivers come from: a folder or an image on the host, which the user names. It is only ever read, within bounds, and
//! what it says is not trusted.
//!
//! Paths are `/`-separated, begin at the folder or at the image's root, and are looked up in any case.

use crate::tree::{Entry, NodeKind};
use crate::{Error, Result};
use landfall_image::iso::{EntryKind, Iso};
use landfall_image::{Bytes, Source};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Names in one folder that are looked at; driver folders have a few dozen.
const NAMES_AT_MOST: usize = 16_384;

/// Folders on a path.
const DEPTH_AT_MOST: usize = 16;

/// Files of drivers.
pub trait DriverSource {
    /// For people: where it lies.
    fn name(&self) -> String;

    /// What a folder holds, sorted by name; `None` where there is no such folder. The empty path is the root.
    ///
    /// # Errors
    /// Where it cannot be read or holds too much.
    fn list(&self, folder: &str) -> Result<Option<Vec<Entry>>>;

    /// The content of a file; `None` where there is none. Longer than `at_most` is refused.
    ///
    /// # Errors
    /// Where it cannot be read, or is no regular file.
    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>>;
}

/// Opens what the user named: a folder, or an ISO image.
///
/// # Errors
/// [`Kind::Io`](crate::Kind::Io) where it is absent, [`Kind::Unsupported`](crate::Kind::Unsupported) where it is neither.
pub fn open(path: &Path) -> Result<Box<dyn DriverSource>> {
    let meta = std::fs::metadata(path).map_err(|e| {
        Error::io("cannot open", e).in_file(path).hint("name the folder or the ISO image of virtio-win")
    })?;
    Ok(match meta.is_dir() {
        true => Box::new(Folder { root: path.to_owned() }),
        false => Box::new(Image { iso: Iso::open(Source::open(path)?)?, path: path.to_owned() }),
    })
}

fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

/// A folder of the host. Links in it are followed: packages of distributions are made of them.
struct Folder {
    root: PathBuf,
}

impl Folder {
    fn names(folder: &Path) -> Result<Option<Vec<(String, NodeKind)>>> {
        let cannot = |e| Error::io("cannot read the folder", e).in_file(folder);
        if !std::fs::metadata(folder).is_ok_and(|meta| meta.is_dir()) {
            return Ok(None);
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            if names.len() >= NAMES_AT_MOST {
                return Err(Error::refused(format!("holds more than {NAMES_AT_MOST} names")).in_file(folder));
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            // A link that leads nowhere is none of the drivers.
            let kind = match std::fs::metadata(entry.path()) {
                Ok(meta) if meta.is_dir() => NodeKind::Dir,
                Ok(meta) if meta.is_file() => NodeKind::File,
                _ => NodeKind::Other,
            };
            names.push((name, kind));
        }
        Ok(Some(names))
    }

    fn find(&self, path: &str) -> Result<Option<PathBuf>> {
        let mut at = self.root.clone();
        for (depth, part) in path.split('/').filter(|part| !part.is_empty()).enumerate() {
            if depth >= DEPTH_AT_MOST || matches!(part, "." | "..") {
                return Ok(None);
            }
            let exact = at.join(part);
            at = match exact.exists() {
                true => exact,
                false => {
                    let Some(names) = Folder::names(&at)? else { return Ok(None) };
                    let found = names.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(part));
                    let Some((name, _)) = found else { return Ok(None) };
                    at.join(name)
                }
            };
        }
        Ok(Some(at))
    }
}

impl DriverSource for Folder {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn list(&self, folder: &str) -> Result<Option<Vec<Entry>>> {
        let Some(folder) = self.find(folder)? else { return Ok(None) };
        let Some(names) = Folder::names(&folder)? else { return Ok(None) };
        Ok(Some(sorted(names.into_iter().map(|(name, kind)| Entry { name, kind }).collect())))
    }

    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        let Some(path) = self.find(path)? else { return Ok(None) };
        let cannot = |e| Error::io("cannot read", e).in_file(&path);
        // Before it is opened: a pipe would wait for ever.
        if !std::fs::metadata(&path).map_err(cannot)?.is_file() {
            return Err(Error::refused("is not a regular file").in_file(&path));
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&path).map_err(cannot)?;
        file.take(at_most.0.saturating_add(1)).read_to_end(&mut bytes).map_err(cannot)?;
        match bytes.len() as u64 > at_most.0 {
            true => Err(Error::refused(format!(
                "holds more than {at_most}, the most that is read of such a file"
            ))
            .in_file(&path)),
            false => Ok(Some(bytes)),
        }
    }
}

/// An ISO image of the host.
struct Image {
    iso: Iso,
    path: PathBuf,
}

impl DriverSource for Image {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn list(&self, folder: &str) -> Result<Option<Vec<Entry>>> {
        let Some(folder) = self.iso.find(folder)? else { return Ok(None) };
        if folder.kind != EntryKind::Folder {
            return Ok(None);
        }
        let entries = self.iso.list(&folder)?.into_iter().map(|entry| Entry {
            name: entry.name,
            kind: match entry.kind {
                EntryKind::File => NodeKind::File,
                EntryKind::Folder => NodeKind::Dir,
                EntryKind::Other => NodeKind::Other,
            },
        });
        Ok(Some(sorted(entries.collect())))
    }

    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.iso.find(path)? else { return Ok(None) };
        if entry.kind != EntryKind::File {
            return Err(Error::refused(format!("{path} is not a regular file")).in_file(&self.path));
        }
        self.iso.read(&entry, at_most).map(Some)
    }
}
