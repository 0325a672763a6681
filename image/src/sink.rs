//! Where a disk is written to.
//!
//! ```text
//! encode (many threads, any order) -> place | zero | keep (one at a time, rising offsets) -> store (many threads)
//! ```
//!
//! Because places are given in the order of the disk, a file comes out the same whatever the number of workers, its
//! tables can be written as soon as the walk has passed what they describe, and an interrupted run can be
//! continued: the same calls of `place`, `zero` and `keep` give the same places again. The converter reorders,
//! sinks never do.

use crate::error::{Error, Result};
use crate::units::{Bytes, FileOffset, GuestRange};
use std::path::PathBuf;

/// What [`Sink::encode`] made of a run of the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The bytes that stand for the run in the target.
    pub bytes: Vec<u8>,
    /// How `bytes` divides into granules, in order; their lengths add up to that of `bytes`.
    pub pieces: Vec<Piece>,
}

/// One granule of an encoded run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Length in [`Encoded::bytes`].
    pub len: usize,
    /// True where the granule did not get smaller by compression and lies there verbatim.
    pub verbatim: bool,
}

/// Where a stretch of bytes goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The number of the file, among those that the image consists of.
    pub file: usize,
    /// Where in that file.
    pub at: FileOffset,
    /// How many bytes.
    pub len: usize,
}

/// A disk image being written. Dropped without [`finish`](Sink::finish) it leaves nothing under its final name.
///
/// Every byte of the disk is covered once, by `place`, `zero` or `keep`: calls come one at a time with rising guest
/// offsets, each from where the one before ended, and runs start on multiples of [`granularity`](Sink::granularity)
/// and end on one, or at the disk's end.
pub trait Sink: Send + Sync {
    /// The names that its files will have, besides the one that it was made with. What is there under one of them may
    /// be replaced, so a caller looks here whether that is a file which it reads.
    fn further_files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// The unit in which runs are cut and zeros are found, a power of two, at most 2 MiB. A format that allocates
    /// larger blocks takes a smaller unit and allocates a block with the first run that falls into it.
    fn granularity(&self) -> Bytes;

    /// Prepares a run for writing: compression belongs here. `None` where the run goes into the file as it is.
    /// Called from many threads, in any order.
    fn encode(&self, _range: GuestRange, _content: &[u8]) -> Result<Option<Encoded>> {
        Ok(None)
    }

    /// Takes room for a run that holds data. `pieces` is what `encode` made of it, empty where it lies there as it
    /// is. Returns where its bytes go, in their order, the lengths adding up to all of them. May write tables that
    /// are complete; must come out the same when a run is repeated.
    fn place(&self, range: GuestRange, pieces: &[Piece]) -> Result<Vec<Placed>>;

    /// Makes a run read as zeros. Cheap: does not write zeros where the target starts as zeros. Runs of any length.
    fn zero(&self, range: GuestRange) -> Result<()>;

    /// Lets a run read as the base that the image was started over. Never called without a base.
    fn keep(&self, range: GuestRange) -> Result<()> {
        let says = format!("has no base to keep {:#x} to {:#x} of", range.start().0, range.end().0);
        Err(Error::refused(says))
    }

    /// How many threads may [`store`](Self::store) at a time, at least 1. One, for a file: the kernel lets only one write
    /// into a file's cache, and a thread that waits there turns instead of working on the next run.
    fn stores_at_once(&self) -> usize {
        1
    }

    /// Writes bytes to where they were placed. From as many threads as [`stores_at_once`](Self::stores_at_once) says, in
    /// any order.
    fn store(&self, to: Placed, bytes: &[u8]) -> Result<()>;

    /// Reads back what was stored, to continue an interrupted run. Past the end of what is there: an error.
    fn load(&self, from: Placed, bytes: &mut [u8]) -> Result<()>;

    /// Tells the digest of the whole content, once, before [`finish`](Self::finish). What names a disk by what it
    /// holds (a VMDK's content id) is made of it, so that the same disk gives the same file.
    fn identify(&self, _content: blake3::Hash) {}

    /// Completes the image: writes the tables that are left, syncs where asked to, and gives it its final name.
    fn finish(self: Box<Self>) -> Result<Receipt>;

    /// Lets an image that is not finished stay under its partial names when the sink is dropped, so that a later
    /// run can continue it. Called before the drop of a run that was stopped or has failed.
    fn leave(&self) {}
}

/// What a finished sink leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The files that make up the image; the one to open comes first.
    pub files: Vec<PathBuf>,
    /// Bytes that the host's file system holds for them.
    pub allocated: Bytes,
}
