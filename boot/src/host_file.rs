//! A file of this host that becomes a file of the guest as it is: an installer, which may have hundreds of megabytes. A plan
//! holds what it is, never its content; that is read when it is written, and must be what it was.

use crate::{Error, Result};
use landfall_image::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes that are read at once.
const PIECE: usize = 128 << 10;

/// A file of this host, as it was when it was first read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub size: Bytes,
    /// SHA-256 of its content, as vendors publish it: 64 lower-case digits.
    pub sha256: String,
}

impl HostFile {
    /// Reads it once, and gives the open file for a closer look.
    ///
    /// # Errors
    /// I/O; refused where it is no regular file, empty, or longer than `at_most`.
    pub fn open(path: &Path, at_most: Bytes) -> Result<(HostFile, File)> {
        let file = open(path)?;
        let mut digest = Digested::default();
        (&file).take(at_most.0.saturating_add(1)).read_pieces(path, &mut |piece| digest.add(piece))?;
        let (size, sha256) = digest.finish();
        if size.0 == 0 {
            return Err(Error::refused("is empty").in_file(path).hint("fetch it again"));
        }
        if size > at_most {
            return Err(Error::refused(format!(
                "holds more than {at_most}, the most that is put into a guest"
            ))
            .in_file(path));
        }
        Ok((HostFile { path: path.to_owned(), size, sha256 }, file))
    }

    /// Gives its content to `take`, in pieces of at most 128 KiB.
    ///
    /// # Errors
    /// Those of `take`; I/O; refused where it is not what it was, which is known only after the last piece.
    pub fn pieces(&self, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let file = open(&self.path)?;
        let mut digest = Digested::default();
        let changed = || {
            Error::refused("was changed while it was used")
                .in_file(&self.path)
                .hint("let whatever writes to it end, then start again")
        };
        file.take(self.size.0.saturating_add(1)).read_pieces(&self.path, &mut |piece| {
            digest.add(piece)?;
            // Never more than was announced.
            match digest.size > self.size.0 {
                true => Err(changed()),
                false => take(piece),
            }
        })?;
        match digest.finish() == (self.size, self.sha256.clone()) {
            true => Ok(()),
            false => Err(changed()),
        }
    }

    /// In one line, for people.
    pub fn shown(&self) -> String {
        format!("{}, {}, SHA-256 {}", self.path.display(), self.size, self.sha256)
    }
}

fn open(path: &Path) -> Result<File> {
    let cannot = |e| Error::io("cannot read", e).in_file(path);
    // Before it is opened: a pipe would wait for ever.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(Error::refused("is not a regular file")
            .in_file(path)
            .hint("name the file itself, outside of any folder or image"));
    }
    File::open(path).map_err(cannot)
}

/// Length and digest of what comes in pieces.
#[derive(Default)]
pub(crate) struct Digested {
    size: u64,
    hash: Sha256,
}

impl Digested {
    pub(crate) fn add(&mut self, piece: &[u8]) -> Result<()> {
        self.size = self.size.saturating_add(piece.len() as u64);
        self.hash.update(piece);
        Ok(())
    }

    pub(crate) fn finish(self) -> (Bytes, String) {
        let mut text = String::new();
        for byte in self.hash.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        (Bytes(self.size), text)
    }
}

/// Reading to the end, piece by piece.
trait ReadPieces: Read + Sized {
    fn read_pieces(mut self, path: &Path, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = vec![0; PIECE];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => take(buffer.get(..len).unwrap_or_default())?,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("cannot read", e).in_file(path)),
            }
        }
    }
}

impl<R: Read> ReadPieces for R {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was looked at and what is written must be the same: a file that changed in between is refused.
    #[test]
    fn a_file_that_changes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("setup.exe");
        let content = vec![7; 3 * PIECE + 5];
        std::fs::write(&path, &content).unwrap();
        let at_most = Bytes(content.len() as u64);
        let (file, _) = HostFile::open(&path, at_most).unwrap();
        assert_eq!(file.size, at_most);
        // By sha256sum.
        std::fs::write(&path, "abc").unwrap();
        let (abc, _) = HostFile::open(&path, at_most).unwrap();
        assert_eq!(abc.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        std::fs::write(&path, &content).unwrap();
        let read = |file: &HostFile| {
            let mut all = Vec::new();
            file.pieces(&mut |piece| {
                all.extend_from_slice(piece);
                Ok(())
            })
            .map(|()| all)
        };
        assert_eq!(read(&file).unwrap(), content);
        let mut other = content.clone();
        other[PIECE] = 8;
        for changed in [&content[1..], &[&content[..], b"x"].concat(), &other] {
            std::fs::write(&path, changed).unwrap();
            assert!(read(&file).unwrap_err().to_string().contains("was changed"));
        }
        std::fs::write(&path, [0; 9]).unwrap();
        assert!(HostFile::open(&path, Bytes(8)).unwrap_err().to_string().contains("more than"));
        std::fs::write(&path, "").unwrap();
        assert!(HostFile::open(&path, Bytes(8)).unwrap_err().to_string().contains("is empty"));
        assert!(HostFile::open(folder.path(), Bytes(8)).unwrap_err().to_string().contains("not a regular"));
    }
}
