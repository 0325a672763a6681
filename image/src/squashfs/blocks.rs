//! The contents of files, cut into blocks and fragments, compressed on all processors and written in order.
//!
//! ```text
//! this thread:  read, cut --> queue --> compressing threads --> queue --> this thread: put in order, write
//! ```
//!
//! No more than [`IN_FLIGHT`] blocks for each thread are in memory, whatever the tree holds. What is written depends on the
//! order of the files only. Files of one length are hashed first; whatever was hashed is hashed again when it is read for
//! good, so that a file that changes is noticed before another one is given its content.

use super::{FileContent, Output};
use crate::error::{Error, Result};
use crate::units::Bytes;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

/// Set in the length of a block that is not compressed.
const PLAIN: u32 = 1 << 24;

/// Blocks in memory for each compressing thread.
const IN_FLIGHT: usize = 8;

/// Where a file's content is.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub length: u64,
    pub start: u64,
    /// The length of each block as it is stored; 0 for zeros.
    pub blocks: Vec<u32>,
    /// Bytes of the blocks that are not stored.
    pub sparse: u64,
    /// Number of the fragment, and the byte in it.
    pub fragment: Option<(u32, u32)>,
}

/// A block of many small files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment {
    pub start: u64,
    pub size: u32,
}

/// All that was stored.
pub(super) struct Contents {
    /// In the order of the files.
    pub files: Vec<Arc<Stored>>,
    pub fragments: Vec<Fragment>,
}

/// Stores `files`, those of the same content once.
pub(super) fn write<W: Write + Seek>(
    out: &mut Output<'_, W>,
    files: &[&FileContent],
    block_size: Bytes,
    level: i32,
) -> Result<Contents> {
    let lengths: Vec<u64> = files.iter().map(|content| length(content)).collect::<Result<_>>()?;
    let hashes = hash_equal_lengths(files, &lengths)?;
    // The first file of each content stands for all of it.
    let mut first: HashMap<(u64, blake3::Hash), usize> = HashMap::new();
    let stands_for: Vec<usize> = (0..files.len())
        .map(|file| match hashes[file] {
            Some(hash) => *first.entry((lengths[file], hash)).or_insert(file),
            None => file,
        })
        .collect();
    let jobs = stands_for.iter().enumerate().filter(|(file, stands_for)| *file == **stands_for);
    let jobs: Vec<usize> = jobs.map(|(file, _)| file).collect();
    let mut cutter = Cutter {
        files,
        lengths: &lengths,
        hashes: &hashes,
        jobs: jobs.iter(),
        block_size: usize::try_from(block_size.0).unwrap_or(usize::MAX),
        open: None,
        fragment: Vec::new(),
        fragments: 0,
        in_fragments: BTreeMap::new(),
    };
    let mut placed = Placed { stored: BTreeMap::new(), fragments: Vec::new() };
    compress_in_order(&mut cutter, level, |packed| placed.put(out, packed))?;
    let Cutter { in_fragments, .. } = cutter;
    let mut stored: BTreeMap<usize, Arc<Stored>> = BTreeMap::new();
    for file in jobs {
        let mut content = placed.stored.remove(&file).unwrap_or_default();
        content.length = lengths[file];
        content.fragment = in_fragments.get(&file).copied();
        stored.insert(file, Arc::new(content));
    }
    let files = stands_for.iter().filter_map(|file| stored.get(file).cloned()).collect();
    Ok(Contents { files, fragments: placed.fragments })
}

fn length(content: &FileContent) -> Result<u64> {
    match content {
        FileContent::Bytes(bytes) => Ok(bytes.len() as u64),
        FileContent::Path(path) => {
            let meta =
                std::fs::symlink_metadata(path).map_err(|e| Error::io("cannot open", e).in_file(path))?;
            if !meta.is_file() {
                return Err(Error::refused("is not a regular file").in_file(path));
            }
            Ok(meta.len())
        }
    }
}

fn hash_equal_lengths(files: &[&FileContent], lengths: &[u64]) -> Result<Vec<Option<blake3::Hash>>> {
    let mut count: HashMap<u64, u32> = HashMap::new();
    for length in lengths {
        *count.entry(*length).or_default() += 1;
    }
    let hashed = files.par_iter().zip(lengths).map(|(content, length)| {
        if *length == 0 || count.get(length).is_none_or(|count| *count < 2) {
            return Ok(None);
        }
        let mut hasher = blake3::Hasher::new();
        let mut reader = Reader::open(content, *length)?;
        let mut buf = vec![0; 1 << 16];
        while let read @ 1.. = reader.read(&mut buf)? {
            hasher.update(&buf[..read]);
        }
        Ok(Some(hasher.finalize()))
    });
    hashed.collect()
}

/// Reads a content of a known length from its beginning to its end.
pub(super) enum Reader<'a> {
    Bytes(&'a [u8]),
    File { file: File, path: &'a Path, rest: u64 },
}

impl<'a> Reader<'a> {
    pub fn open(content: &'a FileContent, length: u64) -> Result<Reader<'a>> {
        Ok(match content {
            FileContent::Bytes(bytes) => Reader::Bytes(bytes),
            FileContent::Path(path) => {
                let file = File::open(path).map_err(|e| Error::io("cannot open", e).in_file(path))?;
                Reader::File { file, path, rest: length }
            }
        })
    }

    /// Fills `buf` as far as the content goes. A file that is not as long as it was is an error.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        match self {
            Reader::Bytes(bytes) => {
                let (now, later) = bytes.split_at(buf.len().min(bytes.len()));
                buf[..now.len()].copy_from_slice(now);
                *bytes = later;
                Ok(now.len())
            }
            Reader::File { file, path, rest } => {
                let want = usize::try_from(*rest).unwrap_or(usize::MAX).min(buf.len());
                let cannot = |e| Error::io("cannot read", e).in_file(path);
                file.read_exact(&mut buf[..want]).map_err(|e| match e.kind() {
                    std::io::ErrorKind::UnexpectedEof => changed(path),
                    _ => cannot(e),
                })?;
                *rest -= want as u64;
                if *rest == 0 && file.read(&mut [0]).map_err(cannot)? != 0 {
                    return Err(changed(path));
                }
                Ok(want)
            }
        }
    }
}

fn changed(path: &Path) -> Error {
    Error::io("cannot read", std::io::Error::other("it has changed meanwhile"))
        .in_file(path)
        .hint("repeat this when nobody writes there")
}

/// Bytes that are to be compressed.
enum Piece {
    /// A block of a file.
    Block { file: usize, bytes: Vec<u8> },
    /// A fragment.
    Fragment(Vec<u8>),
}

/// Cuts files into pieces, one after the other.
struct Cutter<'a> {
    files: &'a [&'a FileContent],
    lengths: &'a [u64],
    hashes: &'a [Option<blake3::Hash>],
    jobs: std::slice::Iter<'a, usize>,
    block_size: usize,
    open: Option<Open<'a>>,
    fragment: Vec<u8>,
    fragments: u32,
    in_fragments: BTreeMap<usize, (u32, u32)>,
}

/// A file that is being read.
struct Open<'a> {
    file: usize,
    reader: Reader<'a>,
    rest: u64,
    hasher: Option<blake3::Hasher>,
}

impl Open<'_> {
    /// The next bytes of the file, at most `at_most`.
    fn read(&mut self, at_most: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.rest).unwrap_or(usize::MAX).min(at_most)];
        let read = self.reader.read(&mut bytes)?;
        bytes.truncate(read);
        self.rest -= read as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        Ok(bytes)
    }
}

impl Cutter<'_> {
    fn next(&mut self) -> Result<Option<Piece>> {
        loop {
            if let Some(open) = &mut self.open {
                if open.rest > 0 {
                    let bytes = open.read(self.block_size)?;
                    return Ok(Some(Piece::Block { file: open.file, bytes }));
                }
                let closed = self.open.take();
                self.check(closed)?;
            }
            let Some(&file) = self.jobs.next() else {
                // What is left of small files.
                if self.fragment.is_empty() {
                    return Ok(None);
                }
                return Ok(Some(self.close_fragment()));
            };
            let length = self.lengths[file];
            let mut open = Open {
                file,
                reader: Reader::open(self.files[file], length)?,
                rest: length,
                hasher: self.hashes[file].map(|_| blake3::Hasher::new()),
            };
            if length >= self.block_size as u64 {
                self.open = Some(open);
                continue;
            }
            if length == 0 {
                // An empty file that has grown must not pass for an empty one.
                open.read(0)?;
                continue;
            }
            let bytes = open.read(self.block_size)?;
            self.check(Some(open))?;
            let full = self.fragment.len() + bytes.len() > self.block_size;
            let piece = full.then(|| self.close_fragment());
            let at = u32::try_from(self.fragment.len()).unwrap_or(u32::MAX);
            self.in_fragments.insert(file, (self.fragments, at));
            self.fragment.extend(bytes);
            if piece.is_some() {
                return Ok(piece);
            }
        }
    }

    fn close_fragment(&mut self) -> Piece {
        self.fragments += 1;
        Piece::Fragment(std::mem::take(&mut self.fragment))
    }

    /// A file that was hashed before must still be what it was.
    fn check(&self, closed: Option<Open<'_>>) -> Result<()> {
        let Some(Open { file, hasher: Some(hasher), .. }) = closed else { return Ok(()) };
        match self.files[file] {
            FileContent::Path(path) if self.hashes[file] != Some(hasher.finalize()) => Err(changed(path)),
            _ => Ok(()),
        }
    }
}

/// A piece as it will be stored.
struct Packed {
    /// The file; none for a fragment.
    file: Option<usize>,
    bytes: Vec<u8>,
    /// The length with its flag.
    size: u32,
    /// Bytes before.
    length: usize,
}

/// What has been written so far.
struct Placed {
    stored: BTreeMap<usize, Stored>,
    fragments: Vec<Fragment>,
}

impl Placed {
    fn put<W: Write + Seek>(&mut self, out: &mut Output<'_, W>, packed: Packed) -> Result<()> {
        let start = out.at;
        out.write(&packed.bytes)?;
        let Some(file) = packed.file else {
            self.fragments.push(Fragment { start, size: packed.size });
            return Ok(());
        };
        let stored = self.stored.entry(file).or_insert_with(|| Stored { start, ..Stored::default() });
        stored.blocks.push(packed.size);
        if packed.size == 0 {
            stored.sparse += packed.length as u64;
        }
        Ok(())
    }
}

fn pack(piece: Piece, zstd: &mut zstd::bulk::Compressor<'_>) -> Result<Packed> {
    let (file, bytes) = match piece {
        Piece::Block { file, bytes } => (Some(file), bytes),
        Piece::Fragment(bytes) => (None, bytes),
    };
    let length = bytes.len();
    if file.is_some() && bytes.iter().all(|byte| *byte == 0) {
        return Ok(Packed { file, bytes: Vec::new(), size: 0, length });
    }
    let packed = zstd.compress(&bytes).map_err(|e| Error::io("cannot compress", e))?;
    // Blocks are of 1 MiB at most.
    let size = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    Ok(if packed.len() < length {
        Packed { file, size: size(packed.len()), bytes: packed, length }
    } else {
        Packed { file, size: size(length) | PLAIN, bytes, length }
    })
}

/// Compresses all pieces on all processors, and gives them to `put` in their order.
fn compress_in_order(
    cutter: &mut Cutter<'_>,
    level: i32,
    mut put: impl FnMut(Packed) -> Result<()>,
) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (to_pack, pieces) = mpsc::channel::<(usize, Piece)>();
    let (to_put, packed) = mpsc::channel::<(usize, Result<Packed>)>();
    let pieces = Mutex::new(pieces);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (pieces, to_put) = (&pieces, to_put.clone());
            scope.spawn(move || work(pieces, &to_put, level));
        }
        drop(to_put);
        let outcome = feed(cutter, &to_pack, &packed, threads * IN_FLIGHT, &mut put);
        drop(to_pack); // lets the threads end
        outcome
    })
}

/// Compresses pieces until there are no more.
fn work(pieces: &Mutex<Receiver<(usize, Piece)>>, to_put: &Sender<(usize, Result<Packed>)>, level: i32) {
    let mut zstd =
        zstd::bulk::Compressor::new(level).map_err(|e| Error::io("cannot prepare a zstd compressor", e));
    loop {
        let piece = pieces.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, piece)) = piece else { return };
        let packed = match &mut zstd {
            Ok(zstd) => pack(piece, zstd),
            Err(e) => Err(Error::io(e.says(), std::io::ErrorKind::OutOfMemory.into())),
        };
        if to_put.send((number, packed)).is_err() {
            return;
        }
    }
}

fn feed(
    cutter: &mut Cutter<'_>,
    to_pack: &Sender<(usize, Piece)>,
    packed: &Receiver<(usize, Result<Packed>)>,
    at_most: usize,
    put: &mut impl FnMut(Packed) -> Result<()>,
) -> Result<()> {
    let gone = || Error::io("cannot compress", std::io::Error::other("a thread has ended early"));
    let mut waiting: BTreeMap<usize, Packed> = BTreeMap::new();
    let (mut sent, mut written, mut more) = (0, 0, true);
    loop {
        while more && sent - written < at_most {
            match cutter.next()? {
                Some(piece) => to_pack.send((sent, piece)).map_err(|_| gone())?,
                None => {
                    more = false;
                    break;
                }
            }
            sent += 1;
        }
        if sent == written {
            return Ok(());
        }
        let (number, piece) = packed.recv().map_err(|_| gone())?;
        waiting.insert(number, piece?);
        while let Some(piece) = waiting.remove(&written) {
            put(piece)?;
            written += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise_bytes;

    /// Another file was found to hold the same, by its hash; then this one changed.
    #[test]
    fn a_file_that_changes_after_it_was_hashed_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for length in [100, 16_384, 40_000] {
            std::fs::write(&path, noise_bytes(1, length)).unwrap();
            let content = FileContent::Path(path.clone());
            let outcome = |seed: u64| {
                let mut cutter = Cutter {
                    files: &[&content],
                    lengths: &[length as u64],
                    hashes: &[Some(blake3::hash(&noise_bytes(seed, length)))],
                    jobs: [0].iter(),
                    block_size: 16_384,
                    open: None,
                    fragment: Vec::new(),
                    fragments: 0,
                    in_fragments: BTreeMap::new(),
                };
                while cutter.next()?.is_some() {}
                Ok::<_, Error>(())
            };
            outcome(1).unwrap();
            assert!(outcome(2).unwrap_err().to_string().contains("changed"), "{length}");
        }
    }
}
