//! A folder that `convert` wrote, as what is registered: its report, its definition and its disks.

use super::Identity;
use crate::report::{Kept, REPORT, WrittenDisk};
use landfall_image::{Bytes, Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A definition in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Definition {
    /// libvirt's `domain.xml`.
    Domain(PathBuf),
    /// VMware's `.vmx`.
    Vmx(PathBuf),
    /// A descriptor with its disks beside it.
    Ovf(PathBuf),
    /// All in one archive.
    Ova(PathBuf),
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its absolute path.
    pub folder: PathBuf,
    /// Name of the target that it was written for: `kvm`.
    pub target: String,
    /// What the target has to know the machine by.
    pub identity: Identity,
    /// Its disks.
    pub disks: Vec<WrittenDisk>,
    /// The definitions that lie there.
    pub definitions: Vec<Definition>,
}

impl Package {
    /// Reads the report and looks for definitions.
    ///
    /// # Errors
    /// Where there is no report of this program's version, or a disk that it names is not there.
    pub fn read(folder: &Path) -> Result<Package> {
        let cannot = |e| Error::io("cannot read", e).in_file(folder);
        let folder = folder.canonicalize().map_err(cannot)?;
        let kept = Kept::read(&folder.join(REPORT))?;
        let mut definitions = Vec::new();
        for entry in fs::read_dir(&folder).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
            definitions.push(match ending.to_str() {
                Some("vmx") => Definition::Vmx(path),
                Some("ovf") => Definition::Ovf(path),
                Some("ova") => Definition::Ova(path),
                _ if path.file_name() == Some("domain.xml".as_ref()) => Definition::Domain(path),
                _ => continue,
            });
        }
        definitions.sort_by(|one, other| one.path().cmp(other.path()));
        let identity = Identity::of(&kept.written);
        Ok(Package { folder, target: kept.target, identity, disks: kept.written_disks, definitions })
    }

    /// A file of the folder by its name, which must be no more than one.
    ///
    /// # Errors
    /// Refused where the name leads out of the folder, or is no regular file there.
    pub fn file(&self, name: &str) -> Result<(PathBuf, Bytes)> {
        let path = self.folder.join(name);
        if name.is_empty() || matches!(name, "." | "..") || name.contains(['/', '\0']) {
            return Err(Error::refused(format!(
                "the definition names the file {name:?}, which is not in its folder"
            ))
            .in_file(&self.folder));
        }
        let meta = path.symlink_metadata().map_err(|e| Error::io("cannot read", e).in_file(&path))?;
        if !meta.is_file() {
            return Err(Error::refused("is no regular file").in_file(&path));
        }
        Ok((path, Bytes(meta.len())))
    }

    /// The one definition that `choose` takes.
    ///
    /// # Errors
    /// Refused where there is none or several.
    pub fn only(&self, what: &str, to: &str, choose: fn(&Definition) -> bool) -> Result<&Definition> {
        let mut all = self.definitions.iter().filter(|definition| choose(definition));
        let refused = |says: String, hint: String| Err(Error::refused(says).in_file(&self.folder).hint(hint));
        match (all.next(), all.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => refused(
                format!("holds no {what}: it was written for {}", self.target),
                format!("convert the machine with --to {to}"),
            ),
            (Some(one), Some(other)) => refused(
                format!("holds several definitions: {} and {}", one.path().display(), other.path().display()),
                "move one of them out of the folder".to_owned(),
            ),
        }
    }
}

impl Definition {
    /// Its file.
    pub fn path(&self) -> &Path {
        match self {
            Definition::Domain(path)
            | Definition::Vmx(path)
            | Definition::Ovf(path)
            | Definition::Ova(path) => path,
        }
    }
}

/// The text of a definition.
///
/// # Errors
/// Refused where it is larger than any definition, or not UTF-8.
pub fn text(path: &Path) -> Result<String> {
    const AT_MOST: u64 = 16 << 20;
    let source = landfall_image::Source::open(path)?;
    if source.len().0 > AT_MOST {
        return Err(Error::refused(format!("has {}: no definition is as large", source.len())).in_file(path));
    }
    let bytes = source.head(usize::try_from(source.len().0).unwrap_or(usize::MAX))?;
    String::from_utf8(bytes).map_err(|_| Error::corrupt("is not UTF-8").in_file(path))
}
