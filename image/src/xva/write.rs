//! Writing an archive: the definition, then each disk's blocks in their order, each with its digest.
//!
//! The digest is SHA-1: XenServer and XCP-ng of every age take it, XXH64 only the newest. Deliberately absent: the blocks that
//! exporters write to keep a connection alive.

use super::read::sha1;
use super::{BLOCK, DEFINITION};
use crate::create::{CreateOptions, FileOptions, Takes};
use crate::error::{Error, Result};
use crate::partial::PartialFile;
use crate::sink::{Encoded, Piece, Placed, Receipt, Sink};
use crate::tar;
use crate::units::{Bytes, FileOffset, GuestRange};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Archives are filled up to this: twenty blocks, the record of POSIX.
const RECORD: u64 = 20 * tar::BLOCK;

/// An archive under way. Dropped without [`finish`](Self::finish) it leaves nothing.
///
/// ```text
/// create(definition) -> { disk -> a sink that is made with its options, filled and finished -> disk_done }* -> finish
/// ```
/// Importers read the disks in the order of their names as text, so that is the order in which they have to be written.
pub struct XvaWriter {
    file: PartialFile,
    /// The last disk, done or not.
    last: Option<String>,
    is_open: bool,
    /// Where the next header goes.
    next: u64,
}

impl XvaWriter {
    /// Begins an archive with its definition, which is final: it names no length of what follows.
    ///
    /// # Errors
    /// What [`PartialFile::create`] refuses.
    pub fn create(target: &Path, definition: &str, options: FileOptions) -> Result<XvaWriter> {
        let file = PartialFile::create(target, options)?;
        let mut head = Vec::new();
        append(&mut head, DEFINITION, definition.as_bytes()).map_err(|e| e.in_file(target))?;
        file.write_all_at(FileOffset(0), &head)?;
        Ok(XvaWriter { file, last: None, is_open: false, next: head.len() as u64 })
    }

    /// Begins the blocks of a disk. The sink that writes them is made with `options`, at the path that is returned.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) for a name that no block can have, or that does not come after the one before.
    pub fn disk(&mut self, name: &str, options: &mut CreateOptions) -> Result<PathBuf> {
        let refused = |says: String| Err(Error::refused(says).in_file(self.file.target()));
        if self.is_open {
            return refused(format!("{name:?} was begun before the disk before it was done"));
        }
        if self.last.as_deref().is_some_and(|last| name <= last) {
            return refused(format!("{name:?} does not come after {:?}, as importers read them", self.last));
        }
        if name.is_empty()
            || name.contains('/')
            || tar::header(&block_name(name, u64::MAX), Bytes(0)).is_none()
        {
            return refused(format!("{name:?} is no name for a disk in an XVA"));
        }
        options.within = Some(self.file.within(FileOffset(self.next)));
        options.files = FileOptions { resume: false, ..options.files };
        (self.last, self.is_open) = (Some(name.to_owned()), true);
        Ok(self.file.target().join(name))
    }

    /// Ends the disk that was begun, whose sink is finished. Returns the length of all its blocks in the archive.
    pub fn disk_done(&mut self) -> Result<Bytes> {
        if !std::mem::take(&mut self.is_open) {
            return Err(Error::refused("no disk was begun").in_file(self.file.target()));
        }
        let meta = self.file.file().metadata();
        let end = meta.map_err(|e| Error::io("cannot examine", e).in_file(self.file.target()))?.len();
        let len = end.saturating_sub(self.next);
        self.next = end;
        Ok(Bytes(len))
    }

    /// Completes the archive.
    pub fn finish(self) -> Result<Receipt> {
        if self.is_open {
            return Err(Error::refused("a disk was begun and not done").in_file(self.file.target()));
        }
        let end = self.next.saturating_add(2 * tar::BLOCK).next_multiple_of(RECORD);
        self.file.set_len(Bytes(end))?;
        let (path, allocated) = self.file.commit()?;
        Ok(Receipt { files: vec![path], allocated })
    }
}

fn block_name(disk: &str, number: u64) -> String {
    format!("{disk}/{number:08}")
}

/// A member, filled up to whole blocks of the archive.
fn append(out: &mut Vec<u8>, name: &str, content: &[u8]) -> Result<()> {
    let header = tar::header(name, Bytes(content.len() as u64));
    let header =
        header.ok_or_else(|| Error::refused(format!("{name:?} is no name for a member of an XVA")))?;
    out.extend_from_slice(&header);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(512), 0);
    Ok(())
}

/// A disk of an archive under way.
struct Blocks {
    file: PartialFile,
    name: String,
    /// The disk's, which may end within a block.
    size: Bytes,
    /// Where the next block's header goes, and the number of the first block that was not written yet.
    next: Mutex<(u64, u64)>,
}

/// Begins the blocks of a disk in an archive under way; the last one is filled up with zeros.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) outside of an archive, and for options that it does not take.
pub fn create(path: &Path, size: Bytes, options: &CreateOptions) -> Result<Box<dyn Sink>> {
    options.check(path, "xva", &Takes { within: true, ..Takes::default() })?;
    if options.within.is_none() {
        return Err(Error::refused("an XVA holds a machine, and a disk alone is none")
            .in_file(path)
            .hint("write the machine with landfall convert --to xen, or the disk as vhd for xe vdi-import format=vhd"));
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    Ok(Box::new(Blocks { file: PartialFile::begin(path, options)?, name, size, next: Mutex::new((0, 0)) }))
}

impl Blocks {
    /// A block with its digest, as they lie in the archive. A short one is filled up with zeros.
    fn block(&self, number: u64, content: &[u8]) -> Result<Vec<u8>> {
        let len = usize::try_from(BLOCK).unwrap_or(usize::MAX);
        let mut out = Vec::with_capacity(len + 2048);
        let name = block_name(&self.name, number);
        let mut filled = Vec::new();
        let content = match content.len() < len {
            true => {
                filled.extend_from_slice(content);
                filled.resize(len, 0);
                filled.as_slice()
            }
            false => content,
        };
        append(&mut out, &name, content)?;
        append(&mut out, &format!("{name}.checksum"), sha1(content).as_bytes())?;
        Ok(out)
    }

    /// Number of the last block: there is always one.
    fn last(&self) -> u64 {
        self.size.0.div_ceil(BLOCK).saturating_sub(1)
    }

    /// Writes a block of zeros next.
    fn write_zeros(&self, next: &mut (u64, u64), number: u64) -> Result<()> {
        let bytes = self.block(number, &[])?;
        self.file.write_all_at(FileOffset(next.0), &bytes)?;
        *next = (next.0 + bytes.len() as u64, number + 1);
        Ok(())
    }
}

impl Sink for Blocks {
    fn granularity(&self) -> Bytes {
        Bytes(BLOCK)
    }

    fn encode(&self, range: GuestRange, content: &[u8]) -> Result<Option<Encoded>> {
        let first = range.start().0 / BLOCK;
        let mut encoded = Encoded::default();
        for (number, content) in (first..).zip(content.chunks(usize::try_from(BLOCK).unwrap_or(usize::MAX))) {
            let bytes = self.block(number, content)?;
            encoded.pieces.push(Piece { len: bytes.len(), verbatim: false });
            match encoded.bytes.is_empty() {
                true => encoded.bytes = bytes,
                false => encoded.bytes.extend_from_slice(&bytes),
            }
        }
        Ok(Some(encoded))
    }

    fn place(&self, range: GuestRange, pieces: &[Piece]) -> Result<Vec<Placed>> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let len: usize = pieces.iter().map(|piece| piece.len).sum();
        let at = FileOffset(next.0);
        *next = (next.0 + len as u64, range.end().0.div_ceil(BLOCK));
        Ok(vec![Placed { file: 0, at, len }])
    }

    fn zero(&self, range: GuestRange) -> Result<()> {
        // Importers wait for the first and the last block of a disk.
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        for number in [0, self.last()] {
            let at = number.saturating_mul(BLOCK);
            if (range.start().0..range.end().0).contains(&at) && number >= next.1 {
                self.write_zeros(&mut next, number)?;
            }
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
        if self.size.0 == 0 {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            self.write_zeros(&mut next, 0)?;
        }
        let (path, allocated) = self.file.commit()?;
        Ok(Receipt { files: vec![path], allocated })
    }

    fn leave(&self) {
        self.file.leave();
    }
}
