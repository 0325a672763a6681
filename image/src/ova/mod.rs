//! OVA packages: a descriptor, a manifest and disks in one tar archive. The disks are read where they lie; a new
//! package is written in one go, each disk by its own sink.
//!
//! Source: DMTF DSP0243 2.1.1, sections 5 "OVF package" and 6 "Distribution as a single file".
//!
//! ```text
//! header, name.ovf | header, disk1.vmdk | header, disk2.vmdk | header, name.mf | two blocks of zeros
//! ```
//! The descriptor comes first, then the files in the order of its references; the manifest follows it or comes last.
//!
//! Recognised and refused by name: compressed disks (`.gz`, or gzip inside) and disks that are cut into chunks
//! (`.000000000`). Deliberately absent: the meaning of a descriptor that is read (machines are the program's business,
//! disks are found by their names here; one is written for a disk of which nothing else is known), certificates (`.cert`: a manifest's signature is not checked), and packages that are
//! themselves compressed.

mod descriptor;
mod manifest;
mod single;
mod write;

pub use crate::tar::Member;
pub use manifest::{Algorithm, Line, parse as parse_manifest};
pub use single::create;
pub use write::OvaWriter;

use crate::convert::Cancel;
use crate::error::{Error, Result};
use crate::limits;
use crate::source::Source;
use crate::tar;
use crate::units::{Bytes, FileOffset};
use manifest::Hasher;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

/// Endings of disks in packages.
const DISKS: &[&str] = &["vmdk", "vhd", "vhdx", "qcow2", "vdi", "img", "raw"];

/// An opened package.
#[derive(Clone, Debug)]
pub struct Package {
    archive: Source,
    members: Vec<Member>,
}

/// What the digests of a package say.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Files whose digest is right.
    pub right: Vec<String>,
    /// Files that the manifest does not list; nothing is known about them.
    pub unlisted: Vec<String>,
}

/// True where the archive's first header is one and a member is an OVF descriptor.
fn is_package(source: &Source) -> Result<bool> {
    if source.len().0 < tar::BLOCK {
        return Ok(false);
    }
    let mut block: tar::Header = [0; 512];
    source.read_exact_at(FileOffset(0), &mut block)?;
    // The archive of an XVA is walked by its own reader: it has a header for each MiB.
    if !tar::is_header(&block) || tar::begins_with(&block, crate::xva::DEFINITION) {
        return Ok(false);
    }
    match tar::members(source) {
        Ok(members) => Ok(members.iter().any(|member| has_ending(&member.name, "ovf"))),
        // A damaged package must not be read as a raw disk; a disk that happens to begin with a tar archive may.
        Err(_) => Ok(block[..100].windows(4).any(|part| part.eq_ignore_ascii_case(b".ovf"))),
    }
}

/// The header of a file in a package.
fn header(name: &str, size: Bytes) -> Result<tar::Header> {
    tar::header(name, size).filter(|_| !name.contains('/')).ok_or_else(|| {
        Error::refused(format!(
            "{name:?} is no name for a file in an OVA: 1 to 100 letters, digits and signs, without spaces and slashes"
        ))
    })
}

fn has_ending(name: &str, ending: &str) -> bool {
    Path::new(name).extension().is_some_and(|has| has.eq_ignore_ascii_case(ending))
}

/// True for a name that leads nowhere but below the place that it is joined to.
fn stays_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// `text` as one word of a shell, in commands that are there to be copied.
fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The name without the number of a chunk or the ending of a compressor, and which of them it had.
fn bare(name: &str) -> (&str, Option<Wrapped>) {
    match name.rsplit_once('.') {
        Some((rest, number)) if number.len() == 9 && number.bytes().all(|b| b.is_ascii_digit()) => {
            (rest, Some(Wrapped::Chunk))
        }
        Some((rest, ending)) if ending.eq_ignore_ascii_case("gz") => (rest, Some(Wrapped::Gzip)),
        _ => (name, None),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrapped {
    Chunk,
    Gzip,
}

/// A file that was opened, or the disk of a package.
pub struct Entered {
    /// The bytes of the image.
    pub source: Source,
    /// The member's name, where it is one.
    pub member: Option<String>,
}

/// Opens `path`: a file as it is, a package's only disk, or with `package.ova/disk.vmdk` one of its members. With
/// `as_it_is`, a package is no more than its bytes.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) where a package has several disks, with their names; what
/// [`Package::open`] and [`Package::disk`] fail with.
pub fn enter(path: &Path, as_it_is: bool) -> Result<Entered> {
    let not_a_folder = |e: &Error| e.io_error().is_some_and(|e| e.kind() == ErrorKind::NotADirectory);
    match Source::open(path) {
        Ok(source) if as_it_is || !is_package(&source)? => Ok(Entered { source, member: None }),
        Ok(source) => {
            let (source, member) = Package::read(source)?.only_disk()?;
            Ok(Entered { source, member: Some(member) })
        }
        Err(error) if not_a_folder(&error) => {
            // What is above is a file: this may be a name inside of it.
            let Some(archive) = path.ancestors().skip(1).find(|above| above.is_file()) else {
                return Err(error);
            };
            let Some(name) = path.strip_prefix(archive).ok().and_then(Path::to_str) else {
                return Err(error);
            };
            let source = Package::open(archive)?.disk(name)?;
            Ok(Entered { source, member: Some(name.to_owned()) })
        }
        Err(error) => Err(error),
    }
}

impl Package {
    /// Opens a package and reads the headers of its archive.
    pub fn open(path: &Path) -> Result<Package> {
        let source = Source::open(path)?;
        if !is_package(&source)? {
            return Err(source.unsupported("is no OVA package: no tar archive with an .ovf descriptor in it"));
        }
        Package::read(source)
    }

    fn read(archive: Source) -> Result<Package> {
        let members = tar::members(&archive)?;
        // A member is opened by the package's path and its own name: an absolute name would be a file of this host.
        if let Some(member) = members.iter().find(|member| !stays_inside(&member.name)) {
            let says = format!("the member {:?} has a name that leads out of the package", member.name);
            return Err(archive.corrupt(says).at(member.at));
        }
        Ok(Package { archive, members })
    }

    /// The package's file.
    pub fn path(&self) -> &Path {
        self.archive.path()
    }

    /// Its files, in their order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The descriptor: its name and text.
    pub fn descriptor(&self) -> Result<(String, String)> {
        let mut all = self.members.iter().filter(|member| has_ending(&member.name, "ovf"));
        match (all.next(), all.next()) {
            (Some(only), None) => Ok((only.name.clone(), self.text(only, limits::OVF)?)),
            (Some(_), Some(_)) => Err(self.archive.corrupt("has more than one .ovf descriptor")),
            (None, _) => Err(self.archive.corrupt("has no .ovf descriptor")),
        }
    }

    /// The names of the disks, in the order of the archive.
    pub fn disks(&self) -> Vec<&str> {
        let is_disk = |name: &str| DISKS.iter().any(|ending| has_ending(bare(name).0, ending));
        let is_first = |name: &str| bare(name).1 != Some(Wrapped::Chunk) || name.ends_with(".000000000");
        self.members
            .iter()
            .map(|member| member.name.as_str())
            .filter(|name| is_disk(name) && is_first(name))
            .collect()
    }

    /// A member by its name, as a file of its own.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) where there is none of that name;
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) where it is compressed, or a chunk of a disk.
    pub fn disk(&self, name: &str) -> Result<Source> {
        let Some(member) = self.members.iter().find(|member| member.name == name) else {
            let error = Error::refused(format!("has no member {name:?}")).in_file(self.path());
            return Err(error.hint(match self.disks().as_slice() {
                [] => "it has no disk".to_owned(),
                disks => format!("its disks: {}", disks.join(", ")),
            }));
        };
        let source = self.archive.window(member.at, member.len)?;
        let (package, member) = (word(&self.path().display().to_string()), word(name));
        let unwrap = |says: String, how: String| Err(self.archive.unsupported(says).hint(how));
        match bare(name) {
            (rest, Some(Wrapped::Chunk)) => unwrap(
                format!("its disk {rest:?} is cut into chunks"),
                format!("join them: tar -xf {package} && cat {0}.0???????? > {0}", word(rest)),
            ),
            (rest, Some(Wrapped::Gzip)) => unwrap(
                format!("its disk {name:?} is compressed with gzip"),
                format!("unpack it: tar -xOf {package} {member} | gunzip > {}", word(rest)),
            ),
            (_, None) if source.head(3)? == [0x1f, 0x8b, 8] => unwrap(
                format!("its disk {name:?} is compressed with gzip"),
                format!("unpack it: tar -xOf {package} {member} | gunzip > {member}"),
            ),
            (_, None) => Ok(source),
        }
    }

    /// The disk of a package that has one, with its name.
    fn only_disk(&self) -> Result<(Source, String)> {
        match self.disks().as_slice() {
            [] => Err(self.archive.unsupported("is an OVA package without a disk")),
            [only] => Ok((self.disk(only)?, (*only).to_owned())),
            several => {
                let path = |name: &&str| self.path().join(name).display().to_string();
                let paths: Vec<_> = several.iter().map(path).collect();
                Err(Error::refused(format!("is an OVA package with {} disks", several.len()))
                    .in_file(self.path())
                    .hint(format!("name one of them: {}", paths.join(", "))))
            }
        }
    }

    fn text(&self, member: &Member, at_most: Bytes) -> Result<String> {
        let refuse = |says: String| self.archive.corrupt(format!("{:?} {says}", member.name)).at(member.at);
        if member.len > at_most {
            return Err(refuse(format!("has {} bytes; at most {} are read", member.len.0, at_most.0)));
        }
        let mut bytes = vec![0; member.len.to_usize().unwrap_or(usize::MAX)];
        self.archive.read_exact_at(member.at, &mut bytes)?;
        String::from_utf8(bytes).map_err(|_| refuse("is not UTF-8".into()))
    }

    /// Compares every file that the manifest lists with its digest, which means reading the package whole. `None`
    /// where it has no manifest.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](crate::Kind::Corrupt) for a file that has another digest or is not there;
    /// [`Kind::Interrupted`](crate::Kind::Interrupted).
    pub fn verify(&self, cancel: &Cancel) -> Result<Option<Verified>> {
        let Some(file) = self.members.iter().find(|member| has_ending(&member.name, "mf")) else {
            return Ok(None);
        };
        let text = self.text(file, limits::OVF)?;
        let lines = manifest::parse(&text).map_err(|e| e.at(file.at).in_file(self.path()))?;
        let mut verified = Verified::default();
        for line in &lines {
            let corrupt = |says: String| {
                self.archive
                    .corrupt(says)
                    .hint("the package was altered or damaged: get it again from its origin")
            };
            let Some(member) = self.members.iter().find(|member| member.name == line.name) else {
                return Err(corrupt(format!("the manifest lists {:?}, which is not there", line.name)));
            };
            let digest = Hasher::new(line.algorithm).run(member.len, |at, buf| {
                if cancel.is_cancelled() {
                    return Err(Error::interrupted());
                }
                self.archive.read_exact_at(FileOffset(member.at.0 + at), buf)
            })?;
            if digest != line.digest {
                return Err(corrupt(format!(
                    "{:?} has the digest {digest}, the manifest says {}",
                    line.name, line.digest
                ))
                .at(member.at));
            }
            if !verified.right.contains(&line.name) {
                verified.right.push(line.name.clone());
            }
        }
        verified.unlisted = self
            .members
            .iter()
            .map(|member| &member.name)
            .filter(|name| {
                !has_ending(name, "mf") && !has_ending(name, "cert") && !verified.right.contains(name)
            })
            .cloned()
            .collect();
        Ok(Some(verified))
    }
}

/// Compares files in a folder with the digests in the manifest beside them. `place` says where a listed file lies; `None` for
/// one that nobody needs.
///
/// # Errors
/// [`Kind::Corrupt`](crate::Kind::Corrupt) for a file that has another digest and for a manifest that is none;
/// [`Kind::Interrupted`](crate::Kind::Interrupted); what `place` and opening fail with.
pub fn verify_files(
    manifest: &Path,
    place: impl Fn(&str) -> Result<Option<PathBuf>>,
    cancel: &Cancel,
) -> Result<Verified> {
    let source = Source::open(manifest)?;
    if source.len() > limits::OVF {
        let says = format!("has {} bytes; at most {} are read", source.len().0, limits::OVF.0);
        return Err(source.corrupt(says));
    }
    let bytes = source.head(source.len().to_usize().unwrap_or(usize::MAX))?;
    let text = String::from_utf8(bytes).map_err(|_| source.corrupt("is not UTF-8"))?;
    let mut verified = Verified::default();
    for line in manifest::parse(&text).map_err(|e| e.in_file(manifest))? {
        let Some(path) = place(&line.name)? else { continue };
        let file = Source::open(&path)?;
        let digest = Hasher::new(line.algorithm).run(file.len(), |at, buf| {
            if cancel.is_cancelled() {
                return Err(Error::interrupted());
            }
            file.read_exact_at(FileOffset(at), buf)
        })?;
        if digest != line.digest {
            return Err(file
                .corrupt(format!("has the digest {digest}, the manifest says {}", line.digest))
                .hint("the package was altered or damaged: get it again from its origin"));
        }
        verified.right.push(line.name);
    }
    Ok(verified)
}

/// The file that a path leads to where it names a member of a package.
pub fn archive_of(path: &Path) -> PathBuf {
    path.ancestors().find(|above| above.is_file()).unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests;
