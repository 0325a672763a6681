//! Reading images that store a disk in blocks: a format says where a run of the disk is, this makes a disk of it.
//!
//! Runs that lie behind one another in the file are read at once, however many blocks they are. Nothing is locked
//! while guest data is read; of the tables, small ones are kept whole and asked without any lock.

use crate::disk::{self, Disk, Extent, ExtentKind};
use crate::error::Result;
use crate::limits;
use crate::pages::{PAGE, PageCache};
use crate::raw;
use crate::source::Source;
use crate::units::{Bytes, FileOffset, GuestOffset, GuestRange};
use std::sync::Arc;

/// Blocks that one call looks at before it answers with what it has.
const BLOCKS_PER_CALL: usize = 1 << 16;
/// Runs that a read plans at once.
const RUNS_PER_READ: usize = 64;

/// Where the bytes of a run of the disk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file, from this offset on.
    File(u64),
    /// Zeros.
    Zero,
    /// Not in this layer.
    Parent,
}

/// A run of the disk with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it begins on the disk.
    pub at: u64,
    /// Its length, at least 1.
    pub len: u64,
    /// Where it is.
    pub place: Place,
}

impl Run {
    /// Takes in the run behind this one, if both are one.
    fn join(&mut self, next: &Run) -> bool {
        let same = match (self.place, next.place) {
            (Place::File(a), Place::File(b)) => a.checked_add(self.len) == Some(b),
            (a, b) => a == b,
        };
        if same {
            self.len += next.len;
        }
        same
    }
}

/// What a format knows of its disk.
pub trait BlockMap: Send + Sync {
    /// Size of the disk.
    fn size(&self) -> Bytes;
    /// Logical sector size.
    fn sector_size(&self) -> Bytes {
        Bytes(crate::units::SECTOR_SIZE_BYTES)
    }
    /// The run from `here` on, in one block at most, and at most `len` bytes long. Both lie on the disk.
    fn run(&self, here: u64, len: u64, page: &mut LastPage) -> Result<Run>;
    /// The file.
    fn source(&self) -> &Source;
    /// True where the file's own bytes are what counts, so that its holes are zeros.
    fn is_plain(&self, _at: u64, _len: u64) -> bool {
        true
    }
    /// Reads from the file.
    fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.source().read_exact_at(FileOffset(at), buf)
    }
}

/// The page of a table that was used last, so that a walk asks the cache once per page.
pub type LastPage = Option<(u64, Arc<[u8]>)>;

/// A table of entries in the file. One of a length up to [`limits::TABLE_CACHE`] is kept whole.
pub struct Table {
    at: u64,
    len: u64,
    whole: Option<Box<[u8]>>,
    pages: PageCache,
}

impl Table {
    /// The table of `len` bytes at `at`, which lie in the file. `read` reads it, now and later.
    pub fn new(at: u64, len: u64, read: impl Fn(u64, &mut [u8]) -> Result<()>) -> Result<Table> {
        let mut whole = None;
        if len <= limits::TABLE_CACHE.0 {
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            read(at, &mut bytes)?;
            whole = Some(bytes.into_boxed_slice());
        }
        Ok(Table { at, len, whole, pages: PageCache::new(limits::TABLE_CACHE) })
    }

    /// The entry that begins at `offset` in the table, a multiple of `N`, which divides a page.
    pub fn entry<const N: usize>(
        &self,
        offset: u64,
        last: &mut LastPage,
        read: impl Fn(u64, &mut [u8]) -> Result<()>,
    ) -> Result<[u8; N]> {
        let cut = |bytes: &[u8], at: u64| -> Result<[u8; N]> {
            let part = usize::try_from(at).ok().and_then(|at| bytes.get(at..at.checked_add(N)?));
            part.and_then(|part| part.try_into().ok()).ok_or_else(|| {
                crate::Error::corrupt(format!("the table of {} bytes has no entry at {offset:#x}", self.len))
            })
        };
        if let Some(whole) = &self.whole {
            return cut(whole, offset);
        }
        let start = offset / PAGE.0 * PAGE.0;
        let bytes = match last {
            Some((here, bytes)) if *here == start => bytes,
            _ => &last.insert((start, page(&self.pages, self.at + start, self.at + self.len, read)?)).1,
        };
        cut(bytes, offset - start)
    }
}

/// The page at `at` of something in the file that ends at `end`: from the cache or the file.
pub fn page(
    pages: &PageCache,
    at: u64,
    end: u64,
    read: impl Fn(u64, &mut [u8]) -> Result<()>,
) -> Result<Arc<[u8]>> {
    let len = usize::try_from(PAGE.0.min(end.saturating_sub(at))).unwrap_or(0);
    pages.page(FileOffset(at), || {
        let mut bytes = vec![0; len];
        read(at, &mut bytes)?;
        Ok(bytes)
    })
}

/// A disk of blocks.
pub struct BlockDisk<M>(pub M);

impl<M: BlockMap> BlockDisk<M> {
    /// The runs of `range`, which lies on the disk: contiguous, joined, at most `at_most`, maybe not to its end.
    fn runs(&self, range: GuestRange, at_most: usize) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        let mut page = None;
        let (mut here, end) = (range.start().0, range.end().0);
        let mut looked = 0;
        while here < end && looked < BLOCKS_PER_CALL {
            looked += 1;
            let run = self.0.run(here, end - here, &mut page)?;
            here += run.len;
            if runs.last_mut().is_some_and(|last| last.join(&run)) {
                continue;
            }
            if runs.len() >= at_most {
                break;
            }
            runs.push(run);
        }
        Ok(runs)
    }
}

impl<M: BlockMap> Disk for BlockDisk<M> {
    fn size(&self) -> Bytes {
        self.0.size()
    }

    fn sector_size(&self) -> Bytes {
        self.0.sector_size()
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size());
        let at_most = at_most.max(1);
        let mut out: Vec<Extent> = Vec::new();
        for run in self.runs(range, at_most)? {
            let range = GuestRange::new(GuestOffset(run.at), Bytes(run.len));
            let room = at_most.saturating_sub(out.len());
            if room == 0 {
                break;
            }
            let found = match run.place {
                Place::Zero => vec![Extent { range, kind: ExtentKind::Zero }],
                Place::Parent => vec![Extent { range, kind: ExtentKind::Unallocated }],
                // A hole in the file is known to be zeros without reading it.
                Place::File(at) if self.0.is_plain(at, run.len) => {
                    raw::file_extents(self.0.source(), FileOffset(at), range, room)?
                }
                Place::File(_) => vec![Extent { range, kind: ExtentKind::Data }],
            };
            let whole = found.last().is_some_and(|last| last.range.end() == range.end());
            for extent in found {
                match out.last_mut() {
                    Some(last) if last.kind == extent.kind => {
                        last.range = GuestRange::between(last.range.start(), extent.range.end());
                    }
                    _ => out.push(extent),
                }
            }
            if !whole {
                break; // the answer must stay contiguous
            }
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, buf.len())?;
        let mut here = at;
        let mut rest = buf;
        while !rest.is_empty() {
            let range = GuestRange::new(here, Bytes(rest.len() as u64));
            for run in self.runs(range, RUNS_PER_READ)? {
                let len = usize::try_from(run.len).unwrap_or(usize::MAX).min(rest.len());
                let (part, behind) = rest.split_at_mut(len);
                match run.place {
                    Place::File(at) => self.0.read(at, part)?,
                    Place::Zero | Place::Parent => part.fill(0),
                }
                rest = behind;
                here = GuestOffset(here.0 + len as u64);
            }
        }
        Ok(())
    }
}
