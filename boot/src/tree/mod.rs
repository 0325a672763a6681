//! The guest's files, read-only, as the guest would see them with all its file systems mounted.
//!
//! Paths are absolute guest paths (`/etc/fstab`), UTF-8, `/` as separator. Symbolic links are resolved inside
//! the guest's root, never outside of it; loops are an error. Names that are not UTF-8 are left out of listings:
//! nothing that landfall edits has such a name.

pub mod ext4;
pub mod fat;
pub mod mem;
pub mod mounted;
pub mod walk;

use crate::host_file::Digested;
use crate::{Error, Result};
use landfall_image::Bytes;

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Other,
}

/// What is known of a path without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Meta {
    /// What it is.
    pub kind: NodeKind,
    /// Length of a file, or of a link's target.
    pub size: Bytes,
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime_seconds: i64,
}

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// The last component.
    pub name: String,
    /// What it is, links not followed.
    pub kind: NodeKind,
}

/// Read access to a guest's files. An absent path is `Ok(None)`: absence is a fact, not a failure.
pub trait GuestTree {
    /// Facts about `path`, its last component's link followed.
    fn metadata(&self, path: &str) -> Result<Option<Meta>>;

    /// Facts about `path` itself, a link as a link.
    fn link_metadata(&self, path: &str) -> Result<Option<Meta>>;

    /// The whole content of a regular file (links followed). Longer than `at_most` is refused, with the path and
    /// both sizes; so is anything that is not a file.
    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>>;

    /// The names in a folder (link followed), sorted. `None` where it is absent or not a folder.
    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>>;

    /// The target of a symbolic link, as it is written there. `None` where `path` is absent or no link.
    fn read_link(&self, path: &str) -> Result<Option<String>>;

    /// Free space for root on the file system that holds `path`, where the reader can tell.
    fn free_space(&self, path: &str) -> Result<Option<Bytes>>;

    /// Length and SHA-256 of a regular file (links followed), of one at most that long. A reader that gets files in pieces
    /// holds no more than one of them.
    fn sha256(&self, path: &str, at_most: Bytes) -> Result<Option<(Bytes, String)>> {
        let Some(bytes) = self.read(path, at_most)? else { return Ok(None) };
        let mut digest = Digested::default();
        digest.add(&bytes)?;
        Ok(Some(digest.finish()))
    }

    /// Many files at once: `None` for an absent one. A reader with a round trip per call does them in one.
    fn read_many(&self, paths: &[String], at_most: Bytes) -> Result<Vec<Option<Vec<u8>>>> {
        paths.iter().map(|path| self.read(path, at_most)).collect()
    }
}

/// A configuration file: no sane one is longer.
pub const CONFIG_AT_MOST: Bytes = Bytes::mib(4);

/// What every reader of text files wants.
pub trait GuestTreeExt: GuestTree {
    /// A text file, bytes that are not UTF-8 replaced. Edit such a file only through [`GuestTree::read`].
    fn read_text(&self, path: &str) -> Result<Option<String>> {
        Ok(self.read(path, CONFIG_AT_MOST)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
    /// True where `path` exists, links followed.
    fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.metadata(path)?.is_some())
    }
    /// The names in a folder; empty where it is absent.
    fn names(&self, path: &str) -> Result<Vec<String>> {
        Ok(self.list(path)?.unwrap_or_default().into_iter().map(|entry| entry.name).collect())
    }
}

impl<T: GuestTree + ?Sized> GuestTreeExt for T {}

/// The refusal of a file that is longer than its reader allows.
pub(crate) fn check_size(path: &str, size: Bytes, at_most: Bytes) -> Result<()> {
    if size > at_most {
        return Err(Error::refused(format!(
            "{path} holds {size}; at most {at_most} are read of such a file"
        )));
    }
    Ok(())
}

/// The refusal to read what is not a regular file.
pub(crate) fn no_file(path: &str) -> Error {
    Error::refused(format!("{path} is not a regular file"))
}

/// A shared tree is a tree.
impl<T: GuestTree + ?Sized> GuestTree for std::sync::Arc<T> {
    fn metadata(&self, path: &str) -> Result<Option<Meta>> {
        (**self).metadata(path)
    }
    fn link_metadata(&self, path: &str) -> Result<Option<Meta>> {
        (**self).link_metadata(path)
    }
    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        (**self).read(path, at_most)
    }
    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>> {
        (**self).list(path)
    }
    fn read_link(&self, path: &str) -> Result<Option<String>> {
        (**self).read_link(path)
    }
    fn free_space(&self, path: &str) -> Result<Option<Bytes>> {
        (**self).free_space(path)
    }
    fn read_many(&self, paths: &[String], at_most: Bytes) -> Result<Vec<Option<Vec<u8>>>> {
        (**self).read_many(paths, at_most)
    }
    fn sha256(&self, path: &str, at_most: Bytes) -> Result<Option<(Bytes, String)>> {
        (**self).sha256(path, at_most)
    }
}
