//! Raw images: the file is the disk. Holes are found with SEEK_DATA, so that sparse files cost what they hold; a
//! file that is written gets holes where the disk has zeros.

use crate::chain::Layer;
use crate::create::{CreateOptions, Preallocation, Takes};
use crate::disk::{self, Disk, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::gate::Gate;
use crate::partial::PartialFile;
use crate::sink::{Piece, Placed, Receipt, Sink};
use crate::source::Source;
use crate::units::{Bytes, FileOffset, GuestOffset, GuestRange};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Zeros are found in units of this: a file system's usual block.
const GRANULARITY: Bytes = Bytes::kib(4);

/// Opens a raw image.
pub fn open(source: Source, _gate: &Gate) -> Result<Layer> {
    Ok(Layer {
        disk: Arc::new(Raw { source }),
        parent: None,
        identity: None,
        variant: "raw".into(),
        details: Vec::new(),
        extents: Vec::new(),
    })
}

/// Writes a disk of `size` to a file, sparse unless it is preallocated, or to a block device of that name.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) for an option that a raw image cannot honour, and whatever
/// [`PartialFile::create`] and [`create_on_device`] refuse; [`Kind::Io`](crate::Kind::Io).
pub fn create(target: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    use std::os::unix::fs::FileTypeExt;
    let takes = Takes {
        preallocation: &[Preallocation::Falloc, Preallocation::Full],
        within: true,
        ..Takes::default()
    };
    options.check(target, "raw", &takes)?;
    if std::fs::metadata(target).is_ok_and(|meta| meta.file_type().is_block_device()) {
        return create_on_device(target, size);
    }
    let file = PartialFile::begin(target, options)?;
    file.set_len(size)?;
    match options.preallocation {
        Preallocation::Off | Preallocation::Metadata => {}
        Preallocation::Falloc | Preallocation::Full => file.reserve(size)?,
    }
    Ok(Box::new(RawFile { file, write_zeros: options.preallocation == Preallocation::Full }))
}

/// Writes a disk of `size` to the start of a block device, whose content is lost from the first write on. What the
/// device holds behind `size` stays. A device that is in use (mounted, part of LVM or md) or too small is refused.
pub fn create_on_device(device: &Path, size: Bytes) -> Result<Box<dyn Sink>> {
    use std::os::unix::fs::FileTypeExt;
    let meta = std::fs::metadata(device).map_err(|e| Error::io("cannot open", e).in_file(device))?;
    if !meta.file_type().is_block_device() {
        return Err(Error::refused("is not a block device").in_file(device));
    }
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    let file = match rustix::fs::open(device, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::BUSY) => {
            return Err(Error::refused("is in use")
                .in_file(device)
                .hint("unmount it, or choose another device"));
        }
        Err(e) => return Err(Error::io("cannot open", e.into()).in_file(device)),
    };
    let len = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))
        .map_err(|e| Error::io("cannot find its end", e.into()).in_file(device))?;
    if len < size.0 {
        return Err(Error::refused(format!("has {len} bytes; the disk needs {}", size.0))
            .in_file(device)
            .hint("choose a larger device"));
    }
    Ok(Box::new(RawDevice { file, path: device.to_owned(), size }))
}

/// A new file: holes where nothing is written.
struct RawFile {
    file: PartialFile,
    write_zeros: bool,
}

/// A raw image is its own map.
fn in_place(range: GuestRange) -> Vec<Placed> {
    let len = usize::try_from(range.len().0).unwrap_or(usize::MAX);
    vec![Placed { file: 0, at: FileOffset(range.start().0), len }]
}

/// Calls `write` for pieces of zeros that cover `range`.
fn write_zeros(range: GuestRange, write: impl Fn(FileOffset, &[u8]) -> Result<()>) -> Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut here = range.start().0;
    while here < range.end().0 {
        let len = usize::try_from(range.end().0 - here).unwrap_or(usize::MAX).min(zeros.len());
        write(FileOffset(here), &zeros[..len])?;
        here += len as u64;
    }
    Ok(())
}

impl Sink for RawFile {
    fn granularity(&self) -> Bytes {
        GRANULARITY
    }

    fn place(&self, range: GuestRange, _: &[Piece]) -> Result<Vec<Placed>> {
        Ok(in_place(range))
    }

    fn zero(&self, range: GuestRange) -> Result<()> {
        if self.write_zeros {
            write_zeros(range, |at, zeros| self.file.write_all_at(at, zeros))?;
        }
        Ok(())
    }

    fn store(&self, to: Placed, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(to.at, bytes)
    }

    fn load(&self, from: Placed, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(from.at, bytes)
    }

    fn finish(self: Box<Self>) -> Result<Receipt> {
        let (path, allocated) = self.file.commit()?;
        Ok(Receipt { files: vec![path], allocated })
    }

    fn leave(&self) {
        self.file.leave();
    }
}

/// A block device: what it held before must go.
struct RawDevice {
    file: File,
    path: PathBuf,
    size: Bytes,
}

impl RawDevice {
    fn write_all_at(&self, at: FileOffset, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, at.0)
            .map_err(|e| Error::io("cannot write", e).at(at).in_file(&self.path))
    }
}

impl Sink for RawDevice {
    fn granularity(&self) -> Bytes {
        GRANULARITY
    }

    fn place(&self, range: GuestRange, _: &[Piece]) -> Result<Vec<Placed>> {
        Ok(in_place(range))
    }

    fn stores_at_once(&self) -> usize {
        usize::MAX
    }

    fn store(&self, to: Placed, bytes: &[u8]) -> Result<()> {
        self.write_all_at(to.at, bytes)
    }

    fn load(&self, from: Placed, bytes: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(bytes, from.at.0)
            .map_err(|e| Error::io("cannot read back", e).at(from.at).in_file(&self.path))
    }

    fn zero(&self, range: GuestRange) -> Result<()> {
        // The device's own way first: a discard that is sure to read as zeros, then zeros that the kernel writes.
        for how in [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE] {
            let how = how | FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(&self.file, how, range.start().0, range.len().0) {
                Ok(()) => return Ok(()),
                // Not this way: the device cannot, or the disk's end is not a sector's.
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {}
                Err(e) => {
                    return Err(Error::io("cannot write zeros", e.into())
                        .at(FileOffset(range.start().0))
                        .in_file(&self.path));
                }
            }
        }
        write_zeros(range, |at, zeros| self.write_all_at(at, zeros))
    }

    fn finish(self: Box<Self>) -> Result<Receipt> {
        self.file.sync_all().map_err(|e| Error::io("cannot write out", e).in_file(&self.path))?;
        Ok(Receipt { files: vec![self.path.clone()], allocated: self.size })
    }
}

struct Raw {
    source: Source,
}

impl Disk for Raw {
    fn size(&self) -> Bytes {
        self.source.len()
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size());
        file_extents(&self.source, FileOffset(range.start().0), range, at_most)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, buf.len())?;
        self.source.read_exact_at(FileOffset(at.0), buf)
    }
}

/// The extents of a run of guest bytes that lies verbatim in a file from `at` on: `Data`, or `Zero` where the
/// file has a hole. Where the file system cannot tell, all is `Data`. Also serves the flat kinds of other formats.
pub fn file_extents(
    source: &Source,
    at: FileOffset,
    range: GuestRange,
    at_most: usize,
) -> Result<Vec<Extent>> {
    use rustix::fs::SeekFrom;
    let mut out = Vec::new();
    let base = source.start().0 + at.0;
    let mut here = range.start();
    while here < range.end() && out.len() < at_most.max(1) {
        let done = here.0 - range.start().0;
        let file_here = base + done;
        let rest = range.end().0 - here.0;
        let seek = |from| rustix::fs::seek(source.file(), from);
        let (kind, len) = match seek(SeekFrom::Data(file_here)) {
            Ok(data) if data > file_here => (ExtentKind::Zero, (data - file_here).min(rest)),
            Ok(_) => match seek(SeekFrom::Hole(file_here)) {
                Ok(hole) => (ExtentKind::Data, hole.saturating_sub(file_here).clamp(1, rest)),
                Err(_) => (ExtentKind::Data, rest),
            },
            Err(rustix::io::Errno::NXIO) => (ExtentKind::Zero, rest),
            Err(_) => (ExtentKind::Data, rest),
        };
        out.push(Extent { range: GuestRange::new(here, Bytes(len)), kind });
        here = GuestOffset(here.0 + len);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_raw_sink_passes_the_suite() {
        crate::suite::check_sink(
            |target, size, files| create(target, size, &CreateOptions { files, ..CreateOptions::default() }),
            |path| Ok(open(Source::open(path)?, &Gate::default())?.disk),
        );
    }

    /// A loop device on a file full of ones; `None`, after a loud word, where there is none to be had.
    struct Loop(String, tempfile::NamedTempFile);

    impl Loop {
        fn new(len: usize) -> Option<Loop> {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), vec![0xff; len]).unwrap();
            let output =
                std::process::Command::new("losetup").args(["--find", "--show"]).arg(file.path()).output();
            match output {
                Ok(output) if output.status.success() => {
                    Some(Loop(String::from_utf8(output.stdout).unwrap().trim().to_owned(), file))
                }
                other => {
                    eprintln!("SKIPPED: no loop device: {other:?}");
                    None
                }
            }
        }
    }

    impl Drop for Loop {
        fn drop(&mut self) {
            let _ = std::process::Command::new("losetup").args(["--detach", &self.0]).status();
        }
    }

    /// What a device held is gone where the disk has zeros, and stays behind the disk's end.
    #[test]
    fn a_device_gets_the_zeros_too() {
        let Some(device) = Loop::new(8 << 20) else { return };
        let path = Path::new(&device.0);
        for size in [7 << 20, (6 << 20) + 777] {
            std::fs::write(device.1.path(), vec![0xff; 8 << 20]).unwrap();
            let disk = testing::mixed(1, Bytes(size));
            let sink = create_on_device(path, disk.size()).unwrap();
            let busy = create_on_device(path, disk.size()).err().unwrap();
            assert_eq!(busy.kind(), crate::Kind::Refused, "{busy}");
            crate::convert::convert(&disk, sink, &Default::default()).unwrap();
            let mut got = vec![0; 8 << 20];
            File::open(path).unwrap().read_exact_at(&mut got, 0).unwrap();
            let size = usize::try_from(size).unwrap();
            assert!(got[..size] == testing::read_all(&disk).unwrap());
            assert!(got[size..].iter().all(|&byte| byte == 0xff));
        }
        assert_eq!(create_on_device(path, Bytes(9 << 20)).err().unwrap().kind(), crate::Kind::Refused);
        assert_eq!(create_on_device(device.1.path(), Bytes(1)).err().unwrap().kind(), crate::Kind::Refused);
    }

    #[test]
    fn a_device_that_is_read_from_is_no_target() {
        let Some(device) = Loop::new(1 << 20) else { return };
        let path = Path::new(&device.0);
        let source = Source::open(path).unwrap();
        let again = Source::open(path).unwrap();
        assert_eq!(create_on_device(path, Bytes(1)).err().unwrap().kind(), crate::Kind::Refused);
        drop((source, again));
        assert!(create_on_device(path, Bytes(1)).is_ok());
    }

    #[test]
    fn a_sparse_disk_becomes_a_sparse_file() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let disk = testing::MemDisk::new(Bytes(1 << 40))
            .data(1 << 39, testing::noise_bytes(1, 8192))
            .data(1 << 30, vec![0; 1 << 20]);
        let converted = crate::convert::convert(
            &disk,
            create(&path, disk.size(), &CreateOptions::default()).unwrap(),
            &Default::default(),
        )
        .unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!(meta.len(), 1 << 40);
        assert!(meta.blocks() * 512 <= 64 << 10, "{} blocks", meta.blocks());
        assert_eq!(converted.receipt.allocated.0, meta.blocks() * 512);
        assert_eq!(converted.copied, Bytes(8192));
    }
}
