//! The one door to files that are named inside images: backing files, extents, parents.
//!
//! An image is hostile input: one whose backing file is `/etc/shadow` must not put that file into a disk. The
//! default lets an image reach its own folder and what lies below it; more folders are allowed by the user.

use crate::error::{Error, Result};
use crate::source::Source;
use crate::units::Bytes;
use std::path::{Component, Path, PathBuf};

/// Which folders an image may name files in.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    allowed: Vec<PathBuf>,
}

impl Gate {
    /// A gate that allows each image its own folder only.
    pub fn own_folder() -> Self {
        Gate::default()
    }

    /// Allows `folder` and what lies below it, too. Fails where it cannot be resolved.
    pub fn allow(mut self, folder: &Path) -> Result<Self> {
        let real = folder.canonicalize().map_err(|e| Error::io("cannot resolve", e).in_file(folder))?;
        self.allowed.push(real);
        Ok(self)
    }

    /// Opens the file that the image at `image` calls `name`, relative to the image's folder. Symbolic links are
    /// resolved before the check, so that a link cannot lead out.
    pub fn open(&self, image: &Path, name: &str) -> Result<Source> {
        Source::open(&self.resolve(image, name)?)
    }

    /// Where `name` leads, if the image at `image` may go there. The file must exist.
    pub fn resolve(&self, image: &Path, name: &str) -> Result<PathBuf> {
        if name.is_empty() || name.contains('\0') || name.len() as u64 > crate::limits::NAME.0 {
            return Err(Error::corrupt(format!(
                "names a file by {} bytes; 1 to {} without NUL are possible",
                name.len(),
                Bytes(crate::limits::NAME.0).0
            ))
            .in_file(image));
        }
        let folder = match image.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let wanted = folder.join(name);
        let real_folder =
            folder.canonicalize().map_err(|e| Error::io("cannot resolve", e).in_file(folder))?;
        let outside = |path: &Path| {
            Error::refused(format!(
                "names the file {name:?}, which leads outside of its folder, to {}",
                path.display()
            ))
            .in_file(image)
            .hint(format!(
                "if you trust this image, allow the folder with --allow {}",
                path.parent().unwrap_or(path).display()
            ))
        };
        // A name that leaves the folder is refused whether or not it exists: an image must not probe the host.
        let lexical = normalise(&real_folder.join(name));
        if !self.allows(&real_folder, &lexical)
            && wanted.canonicalize().map_or(true, |real| !self.allows(&real_folder, &real))
        {
            return Err(outside(&lexical));
        }
        let real = wanted.canonicalize().map_err(|e| {
            Error::io(format!("names the file {name:?}, which cannot be opened"), e)
                .in_file(image)
                .hint(format!("put {name} beside the image; copy all files of the disk together"))
        })?;
        if self.allows(&real_folder, &real) { Ok(real) } else { Err(outside(&real)) }
    }

    /// The folders that the user allowed, by their real paths.
    pub fn allowed(&self) -> &[PathBuf] {
        &self.allowed
    }

    /// The files with this name that lie in allowed folders themselves, not below them. An image that was made on another
    /// host names its parent by a path of that host; the user says with the folder where it lies now.
    pub fn in_allowed(&self, name: &str) -> Vec<PathBuf> {
        let is_plain = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
        let mut found: Vec<PathBuf> = Vec::new();
        for folder in self.allowed.iter().filter(|_| is_plain) {
            let Ok(real) = folder.join(name).canonicalize() else { continue };
            if self.allows(folder, &real) && !found.contains(&real) {
                found.push(real);
            }
        }
        found
    }

    fn allows(&self, own: &Path, path: &Path) -> bool {
        path.starts_with(own) || self.allowed.iter().any(|folder| path.starts_with(folder))
    }
}

/// `path` without `.` and `..`, by its text alone.
pub(crate) fn normalise(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn only_the_own_folder_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("vm");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("base.raw"), b"x").unwrap();
        std::fs::write(dir.path().join("secret"), b"x").unwrap();
        std::os::unix::fs::symlink("../secret", own.join("link")).unwrap();
        let image = own.join("child.qcow2");
        let gate = Gate::own_folder();
        assert!(gate.open(&image, "base.raw").is_ok());
        assert!(gate.open(&image, "./x/../base.raw").is_err(), "x does not exist");
        for name in ["../secret", "/etc/hostname", "link", "../absent", "/etc/absent"] {
            let error = gate.open(&image, name).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{name}: {error}");
        }
        assert_eq!(gate.open(&image, "absent").unwrap_err().kind(), Kind::Io);
        assert_eq!(gate.open(&image, "").unwrap_err().kind(), Kind::Corrupt);
        let open = Gate::own_folder().allow(dir.path()).unwrap();
        assert!(open.open(&image, "../secret").is_ok());
    }

    #[test]
    fn a_name_is_looked_for_in_allowed_folders_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for file in ["a/base", "a/below/deep", "b/base", "secret"] {
            std::fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            std::fs::write(root.join(file), b"x").unwrap();
        }
        std::os::unix::fs::symlink("../secret", root.join("a/link")).unwrap();
        let gate = Gate::own_folder().allow(&root.join("a")).unwrap();
        assert_eq!(gate.in_allowed("base"), [root.join("a/base")]);
        for name in ["link", "deep", "below/deep", "../secret", "..", "", "absent", "/etc/hostname"] {
            assert_eq!(gate.in_allowed(name), Vec::<PathBuf>::new(), "{name}");
        }
        assert_eq!(gate.allow(&root.join("b")).unwrap().in_allowed("base").len(), 2);
        assert_eq!(Gate::own_folder().in_allowed("base"), Vec::<PathBuf>::new());
    }
}
