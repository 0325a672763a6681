//! RBD's streams: what `rbd export-diff` and `rbd export --export-format 2` write, into a machine and out of it.
//!
//! ```text
//! bytes -> spool -> check (all of it: structure, digest, does it begin where the disk is?) -> apply -> one point for each snapshot
//! two points of a disk -> write -> bytes (rbd import-diff, rbd merge-diff)
//! ```
//!
//! [`record`] is the format, [`stream`] reads it, [`write`] writes it; neither knows a vault.
//!
//! A stream leads from one snapshot to another. Which one a disk is at is kept under `rbd:DISK` with the machine; a stream that begins
//! elsewhere is refused, with the command that makes the right one. A diff of the image itself, without a snapshot at its end, leads to
//! no snapshot: the next may begin where this one began, since all that was written since then is in it again (so does
//! `rbd import-diff`). Its point says so: unless the machine was off, the image was read while it changed.
//!
//! Deliberately absent: writing whole images (`rbd image v2`): Ceph takes a diff from nothing as well. Settings of an image (striping,
//! features) are passed over.

pub mod apply;
pub mod check;
pub mod export;
pub mod record;
pub mod stream;
pub mod write;

#[cfg(test)]
mod tests;

pub use apply::{Item, Job, Outcome, resume, take};

use super::digest::Sum;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{self, BufReader, Read};

/// The way in, in the names of attachments.
pub const WAY: &str = "rbd";

/// What is asked of streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Streams without a digest are refused. Otherwise they are taken, and their points say that they are unverified.
    pub require_digest: bool,
}

/// What a disk holds by its streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The snapshot that it is at, or that it began at where `is_head` is set.
    pub snapshot: Option<String>,
    /// It was read from the image itself, after that snapshot.
    pub is_head: bool,
    /// The digest of the stream that brought it here.
    pub stream: Sum,
}

/// Digests what is read through it.
struct Hashing<R> {
    inner: BufReader<R>,
    hasher: Sha256,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Hashing<R> {
        Hashing { inner: BufReader::with_capacity(1 << 20, inner), hasher: Sha256::new() }
    }
}

impl<R> Hashing<R> {
    /// The digest of what was read so far.
    fn sum(&self) -> Sum {
        Sum::finish(self.hasher.clone())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.hasher.update(&buf[..count]);
        Ok(count)
    }
}
