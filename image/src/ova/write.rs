//! Writing a package: each part goes straight to its place in the archive, and headers follow when sizes are known.

use super::header;
use super::manifest::{Algorithm, Hasher, render};
use crate::convert::Cancel;
use crate::create::{CreateOptions, FileOptions};
use crate::error::{Error, Result};
use crate::limits;
use crate::partial::PartialFile;
use crate::sink::Receipt;
use crate::tar::BLOCK;
use crate::units::{Bytes, FileOffset};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Archives are filled up to this: twenty blocks, the record of POSIX.
const RECORD: u64 = 20 * BLOCK;

/// A package under way. Dropped without [`finish`](Self::finish) it leaves nothing.
///
/// ```text
/// create(descriptor) -> { disk -> a sink that is made with its options, filled and finished -> disk_done }* -> finish
/// ```
///
/// What an interrupted run left under the partial name is taken over where the options say so, for a package of the same
/// members in the same order; all but the disk's data is written again.
pub struct OvaWriter {
    file: PartialFile,
    /// Name, place and length of what is complete.
    members: Vec<(String, u64, u64)>,
    /// Room of the descriptor, which is the first member.
    room: u64,
    /// The disk that is being written, and where its content begins.
    open: Option<(String, u64)>,
    /// Where the next header goes.
    next: u64,
}

impl OvaWriter {
    /// Begins a package with its descriptor, `name` ending in `.ovf`. Where the text is not final, because sizes are not
    /// known yet, `room` keeps space for it; see [`set_descriptor`](Self::set_descriptor).
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) for a name that a package cannot hold, and what
    /// [`PartialFile::create`] refuses.
    pub fn create(
        target: &Path,
        name: &str,
        descriptor: &str,
        room: Bytes,
        options: FileOptions,
    ) -> Result<OvaWriter> {
        let room = room.0.max(descriptor.len() as u64);
        if !super::has_ending(name, "ovf") {
            return Err(Error::refused(format!(
                "{name:?} is no name of a descriptor: it has to end in .ovf"
            ))
            .in_file(target));
        }
        if room > limits::OVF.0 {
            return Err(Error::refused(format!(
                "a descriptor of {room} bytes; at most {} are read",
                limits::OVF.0
            ))
            .in_file(target));
        }
        let head = header(name, Bytes(room)).map_err(|e| e.in_file(target))?;
        let file = PartialFile::create(target, options)?;
        file.write_all_at(FileOffset(0), &head)?;
        let mut writer = OvaWriter {
            file,
            members: vec![(name.to_owned(), BLOCK, room)],
            room,
            open: None,
            next: BLOCK + room.next_multiple_of(BLOCK),
        };
        writer.set_descriptor(descriptor)?;
        Ok(writer)
    }

    /// The path that a disk of this name has inside the package, as [`enter`](super::enter) takes it.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.file.target().join(name)
    }

    /// Replaces the descriptor's text. It is filled up to its room with line breaks, which XML allows at its end.
    pub fn set_descriptor(&mut self, text: &str) -> Result<()> {
        if text.len() as u64 > self.room {
            let says = format!("the descriptor has {} bytes; there is room for {}", text.len(), self.room);
            return Err(Error::refused(says).in_file(self.file.target()));
        }
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(usize::try_from(self.room).unwrap_or(usize::MAX), b'\n');
        self.file.write_all_at(FileOffset(BLOCK), &bytes)
    }

    /// Begins the next file, in the order of the descriptor's references. The sink that writes it is made with
    /// `options`, at [`path_of`](Self::path_of) its name; `vmdk-stream` is what every importer takes.
    pub fn disk(&mut self, name: &str, options: &mut CreateOptions) -> Result<PathBuf> {
        let refused = |says: String| Err(Error::refused(says).in_file(self.file.target()));
        if let Some((open, _)) = &self.open {
            return refused(format!("{name:?} was begun before {open:?} was done"));
        }
        if self.members.iter().any(|(member, ..)| member == name) || super::has_ending(name, "ovf") {
            return refused(format!("there is {name:?} in the package already"));
        }
        // Only to see that the name will do.
        header(name, Bytes(0)).map_err(|e| e.in_file(self.file.target()))?;
        let at = self.next + BLOCK;
        options.within = Some(self.file.within(FileOffset(at)));
        options.files = FileOptions { resume: false, ..options.files };
        self.open = Some((name.to_owned(), at));
        Ok(self.path_of(name))
    }

    /// Ends the file that was begun, whose sink is finished: all that was written is its content. Returns its length,
    /// which the descriptor may name.
    pub fn disk_done(&mut self) -> Result<Bytes> {
        let Some((name, at)) = self.open.take() else {
            return Err(Error::refused("no disk was begun").in_file(self.file.target()));
        };
        let end = self.len()?;
        let Some(len) = end.checked_sub(at) else {
            return Err(
                Error::refused(format!("nothing was written for {name:?}")).in_file(self.file.target())
            );
        };
        let head = header(&name, Bytes(len)).map_err(|e| e.in_file(self.file.target()))?;
        self.file.write_all_at(FileOffset(at - BLOCK), &head)?;
        self.members.push((name, at, len));
        self.next = at + len.next_multiple_of(BLOCK);
        // The gap up to the next header reads as zeros.
        self.file.set_len(Bytes(self.next))?;
        Ok(Bytes(len))
    }

    /// Adds a file whose content is at hand.
    pub fn add(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.disk(name, &mut CreateOptions::default())?;
        self.file.write_all_at(FileOffset(self.next + BLOCK), content)?;
        self.file.set_len(Bytes(self.next + BLOCK + content.len() as u64))?;
        self.disk_done().map(drop)
    }

    /// Adds the manifest, with the SHA-256 of every file as it now stands in the archive, and completes the package. All of
    /// it is read again for that; `cancel` ends it with [`Kind::Interrupted`](crate::Kind::Interrupted).
    pub fn finish(mut self, cancel: &Cancel) -> Result<Receipt> {
        if let Some((name, _)) = &self.open {
            let says = format!("the disk {name:?} was begun and not done");
            return Err(Error::refused(says).in_file(self.file.target()));
        }
        let file = &self.file;
        let digests: Vec<String> = self
            .members
            .par_iter()
            .map(|(_, place, len)| {
                let read = |at, buf: &mut [u8]| {
                    if cancel.is_cancelled() {
                        return Err(Error::interrupted());
                    }
                    file.read_exact_at(FileOffset(place + at), buf)
                };
                Hasher::new(Algorithm::Sha256).run(Bytes(*len), read)
            })
            .collect::<Result<_>>()?;
        let names = self.members.iter().map(|(name, ..)| name.as_str());
        let manifest = render(names.zip(digests.iter().map(String::as_str)));
        let stem = self
            .members
            .first()
            .and_then(|(name, ..)| name.rsplit_once('.'))
            .map_or("package", |(stem, _)| stem);
        let name = format!("{stem}.mf");
        self.add(&name, manifest.as_bytes())?;
        let end = (self.next + 2 * BLOCK).next_multiple_of(RECORD);
        self.file.set_len(Bytes(end))?;
        let (path, allocated) = self.file.commit()?;
        Ok(Receipt { files: vec![path], allocated })
    }

    /// Lets what is there stay under its partial name when the writer is dropped.
    pub(super) fn leave(&self) {
        self.file.leave();
    }

    fn len(&self) -> Result<u64> {
        let meta = self.file.file().metadata();
        Ok(meta.map_err(|e| Error::io("cannot examine", e).in_file(self.file.target()))?.len())
    }
}
