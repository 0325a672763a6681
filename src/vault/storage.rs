//! The files of a vault, behind an interface: a test can write down what is done to them, and cut the power between any two steps.
//!
//! Paths are relative to the vault's folder, made of names that the vault itself chose. What is written is visible to readers at once;
//! it is on the medium when [`StoredFile::sync`] returned, and a name (new, changed or gone) when [`Storage::sync_dir`] did (POSIX.1-2017,
//! `fsync`; ext4 and XFS keep more than that, and nothing here counts on it).

use landfall_image::{Error, Result};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder of files.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Makes a file that is not there yet, to be read and written.
    fn create(&self, path: &str) -> Result<Arc<dyn StoredFile>>;
    /// Opens a file, to be read and written.
    fn open(&self, path: &str) -> Result<Arc<dyn StoredFile>>;
    /// Gives a file another name, in one step; a file of that name is replaced.
    fn rename(&self, from: &str, to: &str) -> Result<()>;
    /// Removes a file. One that is not there is no error: it may have been removed before a loss of power.
    fn remove(&self, path: &str) -> Result<()>;
    /// Names in a folder, in no order; none where the folder is not there.
    fn list(&self, dir: &str) -> Result<Vec<String>>;
    /// Removes an empty folder. One that is not there is no error.
    fn remove_dir(&self, dir: &str) -> Result<()>;
    /// Makes a folder and those above it, durably; one that is there is no error.
    fn make_dir(&self, dir: &str) -> Result<()>;
    /// Returns when the names in a folder are on the medium.
    fn sync_dir(&self, dir: &str) -> Result<()>;
    /// Where it lies, for people.
    fn place(&self, path: &str) -> PathBuf;
    /// Bytes that can still be written, and all that it has; `None` where nobody knows.
    fn room(&self) -> Result<Option<(u64, u64)>>;
    /// Looks whether a file in a folder can be so long.
    fn can_be_long(&self, dir: &str, len: u64) -> Result<()>;
}

/// A file of the vault.
pub trait StoredFile: Send + Sync + fmt::Debug {
    /// Fills `buf` from `at`; a shorter file is an error ([`io::ErrorKind::UnexpectedEof`]).
    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()>;
    /// Writes the parts one behind the other.
    fn write_at(&self, at: u64, parts: &[&[u8]]) -> Result<()>;
    /// Length in bytes.
    fn len(&self) -> Result<u64>;
    /// True where the file has no byte.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file, or makes it longer with zeros that take no room.
    fn set_len(&self, len: u64) -> Result<()>;
    /// Makes `len` bytes zeros that take no room, where the file system can; else they are written. The file does not grow.
    fn punch(&self, at: u64, len: u64) -> Result<()>;
    /// Returns when the content is on the medium.
    fn sync(&self) -> Result<()>;
    /// Runs of the file at or behind `at` that may hold something else than zeros: the first, or `None`.
    fn next_data(&self, at: u64) -> Result<Option<(u64, u64)>>;
}

/// The real thing.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A vault's folder, which is there.
    pub fn new(root: &Path) -> Folder {
        Folder(root.to_owned())
    }
}

#[derive(Debug)]
struct File {
    file: fs::File,
    path: PathBuf,
}

fn failed(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::io(doing, error).in_file(path)
}

impl Storage for Folder {
    fn create(&self, path: &str) -> Result<Arc<dyn StoredFile>> {
        let path = self.0.join(path);
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(&path);
        Ok(Arc::new(File { file: file.map_err(failed("cannot make", &path))?, path }))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn StoredFile>> {
        let path = self.0.join(path);
        let file = fs::OpenOptions::new().read(true).write(true).open(&path);
        Ok(Arc::new(File { file: file.map_err(failed("cannot open", &path))?, path }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let path = self.0.join(from);
        fs::rename(&path, self.0.join(to)).map_err(failed("cannot rename", &path))
    }

    fn remove(&self, path: &str) -> Result<()> {
        let path = self.0.join(path);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(failed("cannot remove", &path)),
        }
    }

    fn remove_dir(&self, dir: &str) -> Result<()> {
        let path = self.0.join(dir);
        match fs::remove_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(failed("cannot remove the folder", &path)),
        }
    }

    fn list(&self, dir: &str) -> Result<Vec<String>> {
        let path = self.0.join(dir);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed("cannot list", &path))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("cannot list", &path))?;
            // The vault gives no other names; what else lies here is not its own.
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    fn make_dir(&self, dir: &str) -> Result<()> {
        let path = self.0.join(dir);
        fs::create_dir_all(&path).map_err(failed("cannot make the folder", &path))?;
        let mut above = Path::new(dir).parent();
        while let Some(parent) = above {
            self.sync_dir(&parent.to_string_lossy())?;
            above = parent.parent();
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        let path = self.0.join(dir);
        fs::File::open(&path).and_then(|dir| dir.sync_all()).map_err(failed("cannot sync the folder", &path))
    }

    fn place(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn room(&self) -> Result<Option<(u64, u64)>> {
        let stat = rustix::fs::statvfs(&self.0)
            .map_err(|error| failed("cannot ask for free space", &self.0)(error.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Some((bytes(stat.f_bavail), bytes(stat.f_blocks))))
    }

    fn can_be_long(&self, dir: &str, len: u64) -> Result<()> {
        let path = self.0.join(dir).join("length.new");
        let file = fs::File::create(&path).map_err(failed("cannot make", &path))?;
        let set = file.set_len(len);
        let removed = fs::remove_file(&path).map_err(failed("cannot remove", &path));
        set.map_err(|error| {
            Error::refused(format!("the vault's file system keeps no file of {len} bytes: {error}"))
                .in_file(&self.0)
                .hint("ext4 ends at 16 TiB: let the vault be on XFS")
        })?;
        removed
    }
}

/// Of `writev`: more parts are written in several calls.
const PARTS_AT_MOST: usize = 16;

impl StoredFile for File {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buf, at).map_err(failed("cannot read", &self.path))
    }

    fn write_at(&self, mut at: u64, parts: &[&[u8]]) -> Result<()> {
        let mut slices: Vec<io::IoSlice<'_>> = parts.iter().map(|part| io::IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        // Empty slices in front would look like a write of nothing.
        io::IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let now = rest.len().min(PARTS_AT_MOST);
            match rustix::io::pwritev(&self.file, &rest[..now], at) {
                Ok(0) => return Err(failed("cannot write", &self.path)(io::ErrorKind::WriteZero.into())),
                Ok(done) => {
                    at += done as u64;
                    io::IoSlice::advance_slices(&mut rest, done);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed("cannot write", &self.path)(error.into())),
            }
        }
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(failed("cannot ask for the length", &self.path))?.len())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(failed("cannot change the length", &self.path))
    }

    fn punch(&self, at: u64, len: u64) -> Result<()> {
        use rustix::fs::FallocateFlags;
        let end = at.saturating_add(len).min(self.len()?);
        if at >= end {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, at, end - at) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                let zeros = vec![0; 1 << 20];
                let mut at = at;
                while at < end {
                    let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(zeros.len());
                    self.write_at(at, &[&zeros[..len]])?;
                    at += len as u64;
                }
                Ok(())
            }
            Err(error) => Err(failed("cannot free a part", &self.path)(error.into())),
        }
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(failed("cannot sync", &self.path))
    }

    fn next_data(&self, at: u64) -> Result<Option<(u64, u64)>> {
        use rustix::fs::{SeekFrom, seek};
        use rustix::io::Errno;
        let len = self.len()?;
        if at >= len {
            return Ok(None);
        }
        let start = match seek(&self.file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, len))),
            Err(error) => return Err(failed("cannot look for data", &self.path)(error.into())),
        };
        let end = seek(&self.file, SeekFrom::Hole(start))
            .map_err(|error| failed("cannot look for a hole", &self.path)(error.into()))?;
        Ok(Some((start, end)))
    }
}
