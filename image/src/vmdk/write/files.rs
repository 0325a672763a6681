//! The files of a new image, one or thousands: made together, named together.

use crate::create::{CreateOptions, FileOptions};
use crate::error::{Error, Result};
use crate::partial::PartialFile;
use crate::sink::{Placed, Receipt};
use crate::units::{Bytes, FileOffset};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Zeros are written in pieces of this where the file system cannot make holes.
const ZEROS: usize = 1 << 20;

/// The files under way. The first to open is the descriptor, where there is one.
pub(super) struct Files {
    /// Numbered as [`Placed::file`] says.
    data: Vec<PartialFile>,
    descriptor: Option<PartialFile>,
    options: FileOptions,
}

impl Files {
    /// One file that is the whole image.
    pub(super) fn single(path: &Path, options: &CreateOptions) -> Result<Files> {
        let data = vec![PartialFile::begin(path, options)?];
        Ok(Files { data, descriptor: None, options: options.files })
    }

    /// A descriptor at `path` and the files of those names beside it.
    pub(super) fn described<'a>(
        path: &Path,
        names: impl ExactSizeIterator<Item = &'a str>,
        options: FileOptions,
    ) -> Result<Files> {
        crate::vmdk::allow_open_files(names.len());
        let descriptor = PartialFile::create(path, options)?;
        let data = names
            .map(|name| PartialFile::create(&path.with_file_name(name), options))
            .collect::<Result<_>>()
            .map_err(crate::vmdk::open::too_many_files)?;
        Ok(Files { data, descriptor: Some(descriptor), options })
    }

    /// The final names of all but the one to open.
    pub(super) fn further(&self) -> Vec<PathBuf> {
        let has_descriptor = self.descriptor.is_some();
        self.data.iter().skip(usize::from(!has_descriptor)).map(|file| file.target().to_owned()).collect()
    }

    fn file(&self, number: usize) -> Result<&PartialFile> {
        let unknown =
            || Error::refused(format!("the image has {} files, none of number {number}", self.data.len()));
        self.data.get(number).ok_or_else(unknown)
    }

    pub(super) fn write(&self, number: usize, at: u64, bytes: &[u8]) -> Result<()> {
        self.file(number)?.write_all_at(FileOffset(at), bytes)
    }

    pub(super) fn store(&self, to: Placed, bytes: &[u8]) -> Result<()> {
        self.file(to.file)?.write_all_at(to.at, bytes)
    }

    pub(super) fn load(&self, from: Placed, bytes: &mut [u8]) -> Result<()> {
        self.file(from.file)?.read_exact_at(from.at, bytes)
    }

    pub(super) fn set_len(&self, number: usize, len: u64) -> Result<()> {
        self.file(number)?.set_len(Bytes(len))
    }

    /// Reserves room for the first `len` bytes of a file, if its file system can.
    pub(super) fn reserve(&self, number: usize, len: u64) -> Result<()> {
        self.file(number)?.reserve(Bytes(len))
    }

    /// Makes a part of a file zeros that an interrupted run may have written to. Past its end it needs nothing.
    pub(super) fn clear(&self, number: usize, at: u64, len: u64, keep_room: bool) -> Result<()> {
        let file = self.file(number)?;
        let meta =
            file.file().metadata().map_err(|e| Error::io("cannot examine", e).in_file(file.target()))?;
        let len = meta.len().saturating_sub(at).min(len);
        if len == 0 {
            return Ok(());
        }
        let how = if keep_room { FallocateFlags::ZERO_RANGE } else { FallocateFlags::PUNCH_HOLE };
        match rustix::fs::fallocate(file.file(), how | FallocateFlags::KEEP_SIZE, at, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.write_zeros(number, at, len),
            Err(e) => {
                Err(Error::io("cannot make a hole", e.into()).at(FileOffset(at)).in_file(file.target()))
            }
        }
    }

    /// Writes zeros.
    pub(super) fn write_zeros(&self, number: usize, at: u64, len: u64) -> Result<()> {
        let file = self.file(number)?;
        let zeros = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS)];
        let mut done = 0;
        while done < len {
            let part = usize::try_from(len - done).unwrap_or(usize::MAX).min(zeros.len());
            file.write_all_at(FileOffset(at + done), zeros.get(..part).unwrap_or_default())?;
            done += part as u64;
        }
        Ok(())
    }

    /// Lets all stay that is there.
    pub(super) fn leave(&self) {
        self.data.iter().chain(&self.descriptor).for_each(PartialFile::leave);
    }

    /// Names the files, the one to open last. `text` goes into the descriptor.
    pub(super) fn finish(self, text: &str) -> Result<Receipt> {
        let Files { data, descriptor, options } = self;
        let Some(descriptor) = descriptor else {
            let mut receipt = Receipt { files: Vec::new(), allocated: Bytes(0) };
            for file in data {
                let (path, allocated) = file.commit()?;
                receipt.files.push(path);
                receipt.allocated.0 += allocated.0;
            }
            return Ok(receipt);
        };
        descriptor.write_all_at(FileOffset(0), text.as_bytes())?;
        descriptor.set_len(Bytes(text.len() as u64))?;
        if options.sync {
            // All of it before anything takes its name; the sync of each `commit` then finds nothing to do.
            for file in data.iter().chain([&descriptor]) {
                let synced = file.file().sync_all();
                synced.map_err(|e| Error::io("cannot write out", e).in_file(file.target()))?;
            }
        }
        if options.replace {
            // An old descriptor must not be read with new extents.
            match std::fs::remove_file(descriptor.target()) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("cannot remove", e).in_file(descriptor.target()));
                }
                _ => {}
            }
        }
        let mut named = Named(vec![descriptor.target().to_owned()]);
        let mut allocated = 0;
        for file in data {
            let (name, here) = file.commit()?;
            named.0.push(name);
            allocated += here.0;
        }
        allocated += descriptor.commit()?.1.0;
        Ok(Receipt { files: std::mem::take(&mut named.0), allocated: Bytes(allocated) })
    }
}

/// Files that took their names, without the descriptor that makes them an image: removed if that does not come.
struct Named(Vec<PathBuf>);

impl Drop for Named {
    fn drop(&mut self) {
        for name in self.0.iter().skip(1) {
            let _ = std::fs::remove_file(name);
        }
    }
}

/// The name that extents are numbered under: that of the descriptor without its ending.
pub(super) fn stem(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() && ending.eq_ignore_ascii_case("vmdk") => stem,
        _ => name,
    }
}
