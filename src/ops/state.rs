//! The state of files, without reading them: what was made of them is worth something as long as it is the same.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One file: its path, length in bytes, times of change of its content and of itself in seconds and nanoseconds, and its place.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub struct FileState {
    path: String,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: (u64, u64),
}

/// The state of files; `None` where it cannot be told whether one of them changes: a device, or an address in the network.
pub fn of<'a>(files: impl Iterator<Item = &'a Path>) -> Option<Vec<FileState>> {
    files
        .map(|path| {
            let meta = std::fs::metadata(path).ok().filter(Metadata::is_file)?;
            Some(FileState {
                path: path.display().to_string(),
                len: meta.len(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
                inode: (meta.dev(), meta.ino()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_change_unseen_has_no_state() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, "x").unwrap();
        let before = of([file.as_path()].into_iter()).unwrap();
        assert_eq!(of([file.as_path()].into_iter()).unwrap(), before);
        std::fs::write(&file, "y").unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::File::open(&file).unwrap().set_modified(later).unwrap();
        assert_ne!(of([file.as_path()].into_iter()).unwrap(), before);
        for none in ["/dev/null", "nbd://host/export", "/no/such/file"] {
            assert!(of([file.as_path(), Path::new(none)].into_iter()).is_none(), "{none}");
        }
    }
}
