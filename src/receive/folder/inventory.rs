//! What lies in a drop, looked at before anything is opened: whoever can write into the folder is a stranger.

use crate::receive::digest::Sum;
use landfall_image::{Error, Result};
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files of one drop: a machine of 60 disks in pieces of 2 GiB each has some thousands.
pub const FILES_AT_MOST: usize = 10_000;
/// Folders in folders: exports of Hyper-V have three.
pub const DEPTH_AT_MOST: usize = 8;
/// Names with one of these endings are being copied.
pub const PARTIAL: [&str; 2] = [".part", ".partial"];
/// What is written here, and is no part of a drop.
pub const OURS: [&str; 2] = [REFUSED, DONE];
/// Says why a drop was not taken.
pub const REFUSED: &str = "REFUSED.txt";
/// Says that a drop was taken, where it is left in its place.
pub const DONE: &str = "DONE.txt";
/// What desktops leave in folders.
const LITTER: [&str; 3] = [".DS_Store", ".directory", ".localized"];

/// One file of a drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the drop, with `/` between its parts.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// What tells it from any other, and from what it was before: device, inode, changes of content and of itself in nanoseconds.
    state: (u64, u64, i128, i128),
}

/// The files of a drop, by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The drop: a folder.
    pub root: PathBuf,
    /// Its files.
    pub entries: Vec<Entry>,
    /// A file or folder that is being copied, where there is one.
    pub partial: Option<String>,
}

/// What a name in a drop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A part of it.
    Part,
    /// Something that is being copied.
    Partial,
    /// Ours, or left by a desktop: no part of it.
    Apart,
}

/// What a name says. Programs that copy give a file a hidden name until it is whole (rsync, SFTP clients).
pub fn named(name: &str) -> Named {
    let is_litter = LITTER.contains(&name) || name.starts_with("._") || name.starts_with(".fuse_hidden");
    match name {
        _ if OURS.contains(&name) || is_litter => Named::Apart,
        _ if name.starts_with('.')
            || PARTIAL.iter().any(|ending| name.to_ascii_lowercase().ends_with(ending)) =>
        {
            Named::Partial
        }
        _ => Named::Part,
    }
}

impl Inventory {
    /// Looks through a folder.
    ///
    /// # Errors
    /// Refused where something in it is neither a file nor a folder, has a name that cannot be shown, lies on another file system, or where
    /// there is too much of it; as the file system's.
    pub fn of(root: &Path) -> Result<Inventory> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| Error::io("cannot look at it", error).in_file(&path)
        };
        let device = std::fs::symlink_metadata(root).map_err(failed(root))?;
        if !device.is_dir() {
            return Err(Error::refused("is no folder").in_file(root));
        }
        let mut inventory = Inventory { root: root.to_owned(), entries: Vec::new(), partial: None };
        let (mut open, mut seen) = (vec![(root.to_owned(), String::new(), 0)], 0);
        while let Some((folder, prefix, depth)) = open.pop() {
            for entry in std::fs::read_dir(&folder).map_err(failed(&folder))? {
                let entry = entry.map_err(failed(&folder))?;
                let path = entry.path();
                let name =
                    entry.file_name().into_string().ok().filter(|name| !name.chars().any(char::is_control));
                let refused =
                    |says: String, hint: &str| Err(Error::refused(says).in_file(&path).hint(hint.to_owned()));
                let Some(name) = name else {
                    return refused(
                        "has a name that is no text, or has control characters in it".into(),
                        "rename it, and seal the drop again",
                    );
                };
                let shown = format!("{prefix}{name}");
                match named(&name) {
                    Named::Apart => continue,
                    Named::Partial => {
                        inventory.partial.get_or_insert(shown);
                        continue;
                    }
                    Named::Part => {}
                }
                let meta = std::fs::symlink_metadata(&path).map_err(failed(&path))?;
                let kind = meta.file_type();
                if kind.is_symlink() {
                    return refused("is a symbolic link".into(), "copy the file itself into the drop");
                }
                if meta.dev() != device.dev() {
                    return refused("lies on another file system".into(), "copy it into the folder");
                }
                seen += 1;
                if seen > FILES_AT_MOST {
                    return refused(
                        format!("is one of more than {FILES_AT_MOST} files and folders of the drop"),
                        "drop one machine at a time, and only the files that belong to it",
                    );
                }
                if kind.is_dir() {
                    if depth >= DEPTH_AT_MOST {
                        return refused(
                            format!("lies more than {DEPTH_AT_MOST} folders deep"),
                            "put the machine's files beside its definition",
                        );
                    }
                    open.push((path, format!("{shown}/"), depth + 1));
                } else if kind.is_file() {
                    inventory.entries.push(Entry { path: shown, size: meta.len(), state: state(&meta) });
                } else {
                    return refused("is neither a file nor a folder".into(), "remove it from the drop");
                }
            }
        }
        inventory.entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(inventory)
    }

    /// The file at a path in the drop.
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
        self.entries.get(at)
    }

    /// Where a file lies.
    pub fn place(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The names of all of it, their sizes, and what tells each file from what it was before.
    pub fn fingerprint(&self) -> Sum {
        let mut text = String::new();
        for entry in &self.entries {
            let _ = writeln!(text, "{} {} {:?}", entry.path, entry.size, entry.state);
        }
        Sum::of(text.as_bytes())
    }

    /// Refuses where something was changed, added or taken away since.
    ///
    /// # Errors
    /// See above; as [`of`](Self::of).
    pub fn is_unchanged(&self) -> Result<()> {
        let now = Inventory::of(&self.root)?;
        let differs = self
            .entries
            .iter()
            .find(|entry| now.entry(&entry.path) != Some(entry))
            .or_else(|| now.entries.iter().find(|entry| self.entry(&entry.path).is_none()));
        match differs {
            None => Ok(()),
            Some(entry) => Err(Error::refused("was changed while the drop was taken")
                .in_file(&self.place(&entry.path))
                .hint("write to another folder, and rename it or add the manifest when all of it is there")),
        }
    }

    /// One of its files that some process has open for writing, as far as this user is told of others' files.
    pub fn written_now(&self) -> Option<String> {
        let ours: std::collections::BTreeMap<(u64, u64), &str> =
            self.entries.iter().map(|entry| ((entry.state.0, entry.state.1), entry.path.as_str())).collect();
        let list = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
        let is_number =
            |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        for process in list(Path::new("/proc")).filter(|entry| is_number(&entry.file_name())) {
            for file in list(&process.path().join("fd")) {
                let Ok(meta) = std::fs::metadata(file.path()) else { continue };
                let Some(path) = ours.get(&(meta.dev(), meta.ino())) else { continue };
                let about = process.path().join("fdinfo").join(file.file_name());
                let about = std::fs::read_to_string(about).unwrap_or_default();
                let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
                // O_WRONLY or O_RDWR.
                let mode = flags
                    .and_then(|flags| u64::from_str_radix(flags.trim(), 8).ok())
                    .map_or(0, |flags| flags & 3);
                if mode != 0 {
                    return Some((*path).to_owned());
                }
            }
        }
        None
    }
}

fn state(meta: &std::fs::Metadata) -> (u64, u64, i128, i128) {
    let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    (
        meta.dev(),
        meta.ino(),
        nanoseconds(meta.mtime(), meta.mtime_nsec()),
        nanoseconds(meta.ctime(), meta.ctime_nsec()),
    )
}
