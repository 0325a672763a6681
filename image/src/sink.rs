//! Where a disk is written to.
//!
//! The converter calls [`Sink::encode`] from many threads at once, and hands the result to [`Sink::write`] in the
//! order that the sink asks for. The converter reorders, sinks never do.

use crate::error::Result;
use crate::units::{Bytes, GuestRange};
use std::path::PathBuf;

/// The order in which a sink takes [`Sink::write`] and [`Sink::zero`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Any order, from several threads at once.
    Any,
    /// One call at a time, rising guest offsets, every byte of the disk covered once.
    Ascending,
}

/// Data on its way to a sink: a run of the disk, and the bytes that stand for it in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The run of the disk. Starts on a multiple of [`Sink::granularity`] and ends on one, or at the disk's end.
    pub range: GuestRange,
    /// The bytes: the run itself, until [`Sink::encode`] made something else of it.
    pub bytes: Vec<u8>,
    /// How `bytes` divides into granules once it is encoded, in order. Empty where the run lies there verbatim.
    pub pieces: Vec<Piece>,
}

/// One granule of an encoded [`Chunk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Length in the chunk's `bytes`.
    pub len: usize,
    /// True where the granule did not get smaller by compression and lies there verbatim.
    pub verbatim: bool,
}

/// A disk image being written. Dropped without [`finish`](Sink::finish) it leaves nothing under its final name.
pub trait Sink: Send + Sync {
    /// The order in which it wants to be called.
    fn order(&self) -> Order;

    /// The unit in which it allocates, a power of two: chunks start and end on multiples of it, and runs of zeros
    /// are found in units of it.
    fn granularity(&self) -> Bytes;

    /// Prepares a chunk for writing: compression belongs here. Called from many threads, in any order, whatever
    /// [`order`](Sink::order) says.
    fn encode(&self, chunk: Chunk) -> Result<Chunk> {
        Ok(chunk)
    }

    /// Stores an encoded chunk.
    fn write(&self, chunk: &Chunk) -> Result<()>;

    /// Makes a run (cut as chunks are) read as zeros. Cheap: does not write zeros where the target starts as zeros.
    fn zero(&self, range: GuestRange) -> Result<()>;

    /// Completes the image: writes tables, syncs, and renames it to its final name.
    fn finish(self: Box<Self>) -> Result<Receipt>;
}

/// What a finished sink leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The files that make up the image; the one to open comes first.
    pub files: Vec<PathBuf>,
    /// Bytes that the host's file system holds for them.
    pub allocated: Bytes,
}
