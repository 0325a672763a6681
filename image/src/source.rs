//! A host file (or a window of one) that is only ever read, at positions, from any thread.

use crate::error::{Error, Kind, Result};
use crate::units::{Bytes, FileOffset};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A read-only file. Cloning is cheap and shares the open file. All errors name the path and the offset.
#[derive(Clone, Debug)]
pub struct Source {
    file: Arc<File>,
    path: Arc<PathBuf>,
    start: u64,
    len: u64,
}

/// Opens a block device for reading, and claims it where nobody else has: neither it nor a disk or partition that it
/// overlaps can then be opened as a target.
fn open_device(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags | OFlags::EXCL, Mode::empty()) {
        Err(rustix::io::Errno::BUSY) => Ok(rustix::fs::open(path, flags, Mode::empty())?.into()),
        opened => Ok(opened?.into()),
    }
}

/// Opens what was a regular file a moment ago, without waiting for anybody.
fn open_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    File::options().read(true).custom_flags(i32::try_from(flags).unwrap_or(0)).open(path)
}

impl Source {
    /// Opens a regular file or block device for reading. Anything else (a folder, a pipe, a socket) is refused
    /// before it is opened, so that a FIFO cannot hang the caller.
    pub fn open(path: &Path) -> Result<Source> {
        use std::os::unix::fs::FileTypeExt;
        let cannot = |e| Error::io("cannot open", e).in_file(path);
        let is_readable = |kind: std::fs::FileType| kind.is_file() || kind.is_block_device();
        let neither =
            || Error::new(Kind::Refused, "is neither a regular file nor a block device").in_file(path);
        let kind = std::fs::metadata(path).map_err(cannot)?.file_type();
        if !is_readable(kind) {
            return Err(neither());
        }
        let file = if kind.is_block_device() { open_device(path) } else { open_file(path) };
        let file = file.map_err(cannot)?;
        // Somebody may have put a FIFO into its place.
        if !is_readable(file.metadata().map_err(cannot)?.file_type()) {
            return Err(neither());
        }
        // A block device's metadata says 0; its end does not.
        let len = io::Seek::seek(&mut &file, io::SeekFrom::End(0)).map_err(cannot)?;
        Ok(Source { file: Arc::new(file), path: Arc::new(path.to_owned()), start: 0, len })
    }

    /// A part of this source as a source of its own: a disk inside a tar archive, say. Offsets in errors are
    /// those of the whole file.
    pub fn window(&self, start: FileOffset, len: Bytes) -> Result<Source> {
        let end = start.0.checked_add(len.0).filter(|&end| end <= self.len);
        if end.is_none() {
            return Err(self
                .corrupt(format!("{len} at {:#x} pass the end of the file at {:#x}", start.0, self.len))
                .at(start));
        }
        Ok(Source { start: self.start + start.0, len: len.0, ..self.clone() })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes when it was opened.
    pub fn len(&self) -> Bytes {
        Bytes(self.len)
    }

    /// True where there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The open file, for what positioned reads cannot do (SEEK_DATA, copy_file_range). Add
    /// [`start`](Self::start) to every offset.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where this source begins in [`file`](Self::file).
    pub fn start(&self) -> FileOffset {
        FileOffset(self.start)
    }

    /// Fills `buf` from `at`. Past the end of the file the image is truncated: [`Kind::Corrupt`].
    pub fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> Result<()> {
        let end = at.0.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(self
                .corrupt(format!(
                    "truncated: {} bytes are wanted at {:#x}, the file ends at {:#x}",
                    buf.len(),
                    at.0,
                    self.len
                ))
                .at(at)
                .hint("copy the image again from its origin and compare the sizes"));
        }
        self.file
            .read_exact_at(buf, self.start + at.0)
            .map_err(|e| Error::io("cannot read", e).at(at).in_file(&self.path))
    }

    /// The first `at_most` bytes, or all of a shorter file: for probing.
    pub fn head(&self, at_most: usize) -> Result<Vec<u8>> {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX).min(at_most);
        let mut head = vec![0; len];
        self.read_exact_at(FileOffset(0), &mut head)?;
        Ok(head)
    }

    /// A [`Kind::Corrupt`] error that names this file.
    pub fn corrupt(&self, says: impl Into<String>) -> Error {
        Error::corrupt(says).in_file(&self.path)
    }

    /// A [`Kind::Unsupported`] error that names this file.
    pub fn unsupported(&self, says: impl Into<String>) -> Error {
        Error::unsupported(says).in_file(&self.path)
    }
}
