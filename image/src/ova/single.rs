//! A package as a kind of image: one disk, streamed straight into its place, and a bare machine around it.
//!
//! ```text
//! NAME.ovf (filled up to its room) | NAME-disk1.vmdk (streamOptimized) | NAME.mf
//! ```
//! The descriptor names the length of the disk's file, which is known last, so room is kept for it.

use super::OvaWriter;
use super::descriptor::Descriptor;
use crate::convert::Cancel;
use crate::create::{Adapter, CreateOptions, Takes};
use crate::error::{Error, Result};
use crate::sink::{Encoded, Piece, Placed, Receipt, Sink};
use crate::tar::BLOCK;
use crate::units::{Bytes, GuestRange, SECTOR_SIZE_BYTES};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Letters that are kept of a file's name for the members; they get an ending and `-disk1` on top, 100 in all.
const STEM: usize = 80;

/// A package with one disk.
struct Single {
    /// The disk's own sink, which writes into `package`.
    disk: Box<dyn Sink>,
    package: OvaWriter,
    /// The machine's name, and that of the disk's file.
    name: String,
    file: String,
    capacity: Bytes,
    adapter: Adapter,
    cancel: Cancel,
    /// Bytes of data so far.
    populated: AtomicU64,
}

/// Begins a package of a disk of that size, with the stream of [`vmdk-stream`](crate::vmdk::create_stream) in it.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) for a name without a file in it and for options that it does not take.
pub fn create(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    options.check(
        path,
        "ova",
        &Takes { compression: crate::vmdk::COMPRESSIONS, adapter: true, ..Takes::default() },
    )?;
    let Some(stem) = path.file_stem() else {
        return Err(Error::refused("names no file to write").in_file(path));
    };
    let name = stem.to_string_lossy().into_owned();
    let stem = member_stem(&name);
    let file = format!("{stem}-disk1.vmdk");
    let adapter = options.adapter.unwrap_or_default();
    let capacity = Bytes(size.0.div_ceil(SECTOR_SIZE_BYTES).saturating_mul(SECTOR_SIZE_BYTES));
    let longest = Descriptor {
        name: &name,
        file: &file,
        file_len: Some(Bytes(u64::MAX)),
        capacity,
        populated: Some(Bytes(u64::MAX)),
        adapter,
    }
    .render();
    let room = (longest.len() as u64).next_multiple_of(BLOCK);
    let mut package = OvaWriter::create(path, &format!("{stem}.ovf"), "", Bytes(room), options.files)?;
    let mut inner = options.clone();
    let place = package.disk(&file, &mut inner)?;
    let disk = crate::vmdk::create_stream(&place, size, &inner)?;
    Ok(Box::new(Single {
        disk,
        package,
        name,
        file,
        capacity,
        adapter,
        cancel: inner.cancel,
        populated: AtomicU64::new(0),
    }))
}

/// What is left of a name where only plain letters will do.
fn member_stem(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    name.chars().map(plain).take(STEM).collect()
}

impl Sink for Single {
    fn further_files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn granularity(&self) -> Bytes {
        self.disk.granularity()
    }

    fn encode(&self, range: GuestRange, content: &[u8]) -> Result<Option<Encoded>> {
        self.disk.encode(range, content)
    }

    fn place(&self, range: GuestRange, pieces: &[Piece]) -> Result<Vec<Placed>> {
        self.populated.fetch_add(range.len().0, Ordering::Relaxed);
        self.disk.place(range, pieces)
    }

    fn zero(&self, range: GuestRange) -> Result<()> {
        self.disk.zero(range)
    }

    fn store(&self, to: Placed, bytes: &[u8]) -> Result<()> {
        self.disk.store(to, bytes)
    }

    fn load(&self, from: Placed, bytes: &mut [u8]) -> Result<()> {
        self.disk.load(from, bytes)
    }

    fn identify(&self, content: blake3::Hash) {
        self.disk.identify(content);
    }

    fn finish(self: Box<Self>) -> Result<Receipt> {
        let Single { disk, mut package, name, file, capacity, adapter, cancel, populated } = *self;
        disk.finish()?;
        let len = package.disk_done()?;
        let populated = populated.into_inner().min(capacity.0);
        let descriptor = Descriptor {
            name: &name,
            file: &file,
            file_len: Some(len),
            capacity,
            populated: Some(Bytes(populated)),
            adapter,
        };
        package.set_descriptor(&descriptor.render())?;
        package.finish(&cancel)
    }

    fn leave(&self) {
        self.package.leave();
    }
}
