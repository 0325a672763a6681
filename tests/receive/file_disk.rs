//! A raw file as a disk that is received into: the least that can be behind a receiver.

use landfall_image::disk::{check_bounds, clip};
use landfall_image::{Bytes, Disk, DiskMut, Error, Extent, ExtentKind, GuestOffset, GuestRange, Result};
use rustix::fs::{FallocateFlags, SeekFrom};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub struct FileDisk {
    file: File,
    size: u64,
}

impl FileDisk {
    /// A new file of zeros.
    pub fn create(path: &Path, size: u64) -> FileDisk {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        file.set_len(size).unwrap();
        FileDisk { file, size }
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("cannot use the file", error)
}

impl Disk for FileDisk {
    fn size(&self) -> Bytes {
        Bytes(self.size)
    }
    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = clip(range, self.size());
        let (mut here, end) = (range.start().0, range.end().0);
        let mut out = Vec::new();
        while here < end && out.len() < at_most.max(1) {
            let data = rustix::fs::seek(&self.file, SeekFrom::Data(here)).unwrap_or(end).min(end);
            let (to, kind) = if data > here {
                (data, ExtentKind::Unallocated)
            } else {
                let hole = rustix::fs::seek(&self.file, SeekFrom::Hole(here)).unwrap_or(end);
                (hole.min(end), ExtentKind::Data)
            };
            out.push(Extent { range: GuestRange::between(GuestOffset(here), GuestOffset(to)), kind });
            here = to;
        }
        Ok(out)
    }
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        check_bounds(self.size(), at, buf.len())?;
        self.file.read_exact_at(buf, at.0).map_err(failed)
    }
}

impl DiskMut for FileDisk {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        check_bounds(self.size(), at, data.len())?;
        self.file.write_all_at(data, at.0).map_err(failed)
    }
    fn zero_at(&self, range: GuestRange) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, flags, range.start().0, range.len().0).map_err(|e| failed(e.into()))
    }
    fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(failed)
    }
}
