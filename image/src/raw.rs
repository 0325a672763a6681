//! Raw images: the file is the disk. Holes are found with SEEK_DATA, so that sparse files cost what they hold.

use crate::chain::Layer;
use crate::disk::{self, Disk, Extent, ExtentKind};
use crate::error::Result;
use crate::gate::Gate;
use crate::source::Source;
use crate::units::{Bytes, FileOffset, GuestOffset, GuestRange};
use std::sync::Arc;

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
