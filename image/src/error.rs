//! What can go wrong with an image, in a form that a person can act on and a program can sort.
//!
//! [`Kind`] keeps three things apart that must never be confused: the bytes are wrong (`Corrupt`), the bytes are
//! fine but landfall does not handle them (`Unsupported`), and the host failed to deliver or take them (`Io`).
//! Path and offset are separate data, added by whoever knows them; so is the hint.

use crate::units::FileOffset;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure this is. Stable: reports and exit codes depend on it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "ErrorKind")]
pub enum Kind {
    /// The image contradicts itself or its specification.
    Corrupt,
    /// The image is sound as far as it was read, but uses something that is not handled.
    Unsupported,
    /// Reading would break a safety rule: a file outside the image's folder, a limit against hostile input, an
    /// encrypted disk without its key.
    Refused,
    /// The host's file system or device failed, or a named file is absent.
    Io,
    /// The user asked to stop.
    Interrupted,
}

/// One failure. Small to move: the content is boxed.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    says: String,
    path: Option<PathBuf>,
    offset: Option<FileOffset>,
    hint: Option<String>,
    io: Option<io::Error>,
}

impl Error {
    /// An error of `kind`. `says` names the field, its value and the bound it breaks:
    /// "block table entry 128 points at 9.2 GiB; the file ends at 8.0 GiB".
    pub fn new(kind: Kind, says: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, says: says.into(), path: None, offset: None, hint: None, io: None }))
    }
    /// [`Kind::Corrupt`]
    pub fn corrupt(says: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, says)
    }
    /// [`Kind::Unsupported`]
    pub fn unsupported(says: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, says)
    }
    /// [`Kind::Refused`]
    pub fn refused(says: impl Into<String>) -> Self {
        Self::new(Kind::Refused, says)
    }
    /// [`Kind::Io`], with what was being done: `Error::io("cannot read", e)`.
    pub fn io(doing: impl Into<String>, error: io::Error) -> Self {
        let mut new = Self::new(Kind::Io, doing);
        new.0.hint = match error.raw_os_error() {
            Some(libc_errno::ENOSPC) => {
                Some("free space on the target file system, or choose another".into())
            }
            Some(libc_errno::EROFS) => Some("the target file system is read-only: choose another".into()),
            _ => None,
        };
        new.0.io = Some(error);
        new
    }
    /// [`Kind::Interrupted`]
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "stopped on request")
    }
    /// Adds the file that the error is about. The innermost name wins: a later call does not replace it.
    #[must_use]
    pub fn in_file(mut self, path: &Path) -> Self {
        self.0.path.get_or_insert_with(|| path.to_owned());
        self
    }
    /// Adds where in the file the offending structure lies. The innermost position wins.
    #[must_use]
    pub fn at(mut self, offset: FileOffset) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }
    /// Adds what the user can do about it, in the imperative mood.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }
    /// The failure in one sentence, without path, offset and hint.
    pub fn says(&self) -> &str {
        &self.0.says
    }
    /// The file it is about.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }
    /// Position in that file.
    pub fn offset(&self) -> Option<FileOffset> {
        self.0.offset
    }
    /// What the user can do about it.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
    /// The operating system's error, where there is one.
    pub fn io_error(&self) -> Option<&io::Error> {
        self.0.io.as_ref()
    }
}

/// The two error numbers that deserve a hint of their own.
mod libc_errno {
    pub const ENOSPC: i32 = 28;
    pub const EROFS: i32 = 30;
}

impl fmt::Display for Error {
    /// One line, without the hint: `web01.vhdx: at 0x30000: … (os error)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(path) = &inner.path {
            write!(f, "{}: ", path.display())?;
        }
        if let Some(offset) = inner.offset {
            write!(f, "at {:#x}: ", offset.0)?;
        }
        f.write_str(&inner.says)?;
        if let Some(io) = &inner.io {
            write!(f, ": {io}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_path_and_offset_win() {
        let error = Error::corrupt("grain table 3 is cut off")
            .at(FileOffset(0x200))
            .in_file(Path::new("a-s001.vmdk"))
            .at(FileOffset(0))
            .in_file(Path::new("a.vmdk"));
        assert_eq!(error.to_string(), "a-s001.vmdk: at 0x200: grain table 3 is cut off");
    }

    #[test]
    fn a_full_disk_comes_with_a_hint() {
        let error = Error::io("cannot write", io::Error::from_raw_os_error(28));
        assert!(error.hint_text().is_some_and(|hint| hint.contains("free space")));
    }
}
