//! The distribution's packages: which ones (a list with every file's digest), and what is in one.
//!
//! Source: deb(5). A package is an `ar` archive:
//!
//! ```text
//! "!<arch>\n"  then members: name[16] mtime[12] uid[6] gid[6] mode[8] size[10] "`\n", content, filled up to 2
//! debian-binary "2.0\n" | control.tar(.gz .xz .zst) | data.tar(.gz .xz .zst)
//! ```
//!
//! Deliberately absent: the packages' scripts, which are never run: what of their work an image needs is done by its builder in so
//! many words ([`super::root`], [`super::modules`]), so that the same packages give the same bytes without root.

use crate::linux::initramfs::compress::{self, Compressor};
use crate::{Error, Result};
use landfall_image::{Bytes, FileOffset};
use std::io::Read;

/// One package's file list unpacked: a kernel with all its modules has 700 MiB.
const UNPACKED: Bytes = Bytes::gib(2);

/// A package of the list.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Package {
    /// `linux-image-6.12.118+deb13-amd64`
    pub name: String,
    /// Debian's version.
    pub version: String,
    /// Which mirror holds it: [`Package::ARCHIVES`].
    pub archive: String,
    /// Below the mirror's address: `pool/main/l/linux/…deb`.
    pub path: String,
    /// Of the package file.
    pub size: Bytes,
    /// Of the package file, in hexadecimal digits.
    pub sha256: String,
}

impl Package {
    /// The archives that a package can be in: Debian's own and that of its security updates.
    pub const ARCHIVES: [&str; 2] = ["debian", "debian-security"];

    /// The file's own name.
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// The packages that an image is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// When the archives were as listed: `20261130T000000Z`, the moment's name at snapshot.debian.org.
    pub snapshot: String,
    /// In the order of their names.
    pub packages: Vec<Package>,
}

impl List {
    /// Reads a list: `snapshot MOMENT`, then a line `NAME VERSION ARCHIVE SIZE SHA256 PATH` for each package; `#` begins a remark.
    ///
    /// # Errors
    /// `Corrupt` with the line's number.
    pub fn parse(text: &str) -> Result<List> {
        let mut list = List { snapshot: String::new(), packages: Vec::new() };
        for (number, line) in (1..).zip(text.lines()) {
            let wrong = |says: &str| Error::corrupt(format!("line {number} of the package list: {says}"));
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words[..] {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["snapshot", moment] => list.snapshot = moment.into(),
                [name, version, archive, size, sha256, path] => {
                    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
                        return Err(wrong("the fifth word is no SHA-256"));
                    }
                    if path.split('/').any(|part| part.is_empty() || part == "..") {
                        return Err(wrong("the path leads elsewhere"));
                    }
                    if !Package::ARCHIVES.contains(&archive) {
                        return Err(wrong("the archive is neither debian nor debian-security"));
                    }
                    list.packages.push(Package {
                        name: name.into(),
                        version: version.into(),
                        archive: archive.into(),
                        path: path.into(),
                        size: Bytes(size.parse().map_err(|_| wrong("the fourth word is no size"))?),
                        sha256: sha256.to_ascii_lowercase(),
                    });
                }
                _ => return Err(wrong("has not six words: NAME VERSION ARCHIVE SIZE SHA256 PATH")),
            }
        }
        if list.snapshot.is_empty() {
            return Err(Error::corrupt("the package list has no line \"snapshot MOMENT\""));
        }
        Ok(list)
    }
}

/// The `data.tar` in a package, unpacked.
///
/// # Errors
/// `Corrupt` where the archive is damaged, `Unsupported` for another form of it, `Refused` where it unpacks to more than 2 GiB.
pub fn data(deb: &[u8]) -> Result<Vec<u8>> {
    const MAGIC: &[u8] = b"!<arch>\n";
    if !deb.starts_with(MAGIC) {
        return Err(Error::corrupt("is no Debian package: it does not begin as an ar archive"));
    }
    let mut at = MAGIC.len();
    while let Some(header) = deb.get(at..at + 60) {
        let cut = |says: &str| Error::corrupt(says.to_owned()).at(FileOffset(at as u64));
        let name = String::from_utf8_lossy(header.get(..16).unwrap_or_default()).trim_end().to_owned();
        let size = header.get(48..58).and_then(|field| std::str::from_utf8(field).ok());
        let size: usize = size
            .and_then(|s| s.trim_end().parse().ok())
            .ok_or_else(|| cut("a member's size is no number"))?;
        let start = at + 60;
        let content = start
            .checked_add(size)
            .and_then(|end| deb.get(start..end))
            .ok_or_else(|| cut("a member passes the end of the package"))?;
        if let Some(kind) = name.trim_end_matches('/').strip_prefix("data.tar") {
            return unpack(kind, content);
        }
        at = (start + size).next_multiple_of(2);
    }
    Err(Error::corrupt("the package holds no data.tar"))
}

fn unpack(kind: &str, content: &[u8]) -> Result<Vec<u8>> {
    let compressor = match kind {
        "" => return Ok(content.to_vec()),
        ".gz" | ".xz" | ".zst" => Compressor::detect(content),
        _ => None,
    };
    match compressor {
        Some(compressor) => Ok(compress::unpack(compressor, content, UNPACKED)?.0),
        None => Err(Error::unsupported(format!("the package's files are in data.tar{kind}"))),
    }
}

/// What a package puts somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Absolute, without a slash at its end; the root itself is empty.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// What it is.
    pub what: What,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A folder.
    Folder,
    /// A file with this content.
    File(Vec<u8>),
    /// A symbolic link to this.
    Link(String),
    /// Another name of the file at this path.
    Same(String),
}

/// What is in an unpacked `data.tar`, in its order.
///
/// # Errors
/// `Corrupt` where the archive is damaged, `Unsupported` for device nodes and the like.
pub fn files(tar: &[u8]) -> Result<Vec<Placed>> {
    let damaged = |e: std::io::Error| Error::corrupt(format!("the package's data.tar is damaged: {e}"));
    let mut archive = tar::Archive::new(tar);
    let mut out = Vec::new();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec()).map_err(|_| {
                Error::unsupported(format!("a name that is no UTF-8: {}", String::from_utf8_lossy(bytes)))
            })
        };
        let path = absolute(&text(&entry.path_bytes())?)?;
        let header = entry.header();
        let mode = header.mode().map_err(damaged)? & 0o7777;
        let number = |n: u64| u32::try_from(n).map_err(|_| Error::corrupt(format!("{path}: owner {n}")));
        let owner = (number(header.uid().map_err(damaged)?)?, number(header.gid().map_err(damaged)?)?);
        let kind = header.entry_type();
        let target = entry.link_name_bytes().map(|name| text(&name)).transpose()?;
        let what = match (kind, target) {
            (tar::EntryType::Directory, _) => What::Folder,
            (tar::EntryType::Symlink, Some(target)) => What::Link(target),
            (tar::EntryType::Link, Some(target)) => What::Same(absolute(&target)?),
            (tar::EntryType::Regular | tar::EntryType::Continuous, _) => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).map_err(damaged)?;
                What::File(content)
            }
            (kind, _) => return Err(Error::unsupported(format!("{path} is of kind {kind:?}"))),
        };
        out.push(Placed { path, mode, owner, what });
    }
    Ok(out)
}

/// `./usr/bin/` as `/usr/bin`.
fn absolute(path: &str) -> Result<String> {
    let mut out = String::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(Error::corrupt(format!("the path {path} climbs"))),
            part => {
                out.push('/');
                out.push_str(part);
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use std::process::Command;

    #[test]
    fn a_list_says_where_it_is_wrong() {
        let sum = "a".repeat(64);
        let good =
            format!("# what\nsnapshot 20261130T000000Z\nbash 5.2 debian 10 {sum} pool/main/b/bash_5.2.deb\n");
        let list = List::parse(&good).unwrap();
        assert_eq!((list.packages.len(), list.packages[0].file_name()), (1, "bash_5.2.deb"));
        for (bad, says) in [
            (good.replace(&sum, "aa"), "line 3"),
            (good.replace("pool/", "../"), "leads elsewhere"),
            (good.replace(" 10 ", " x "), "no size"),
            (good.replace(" debian ", " other "), "archive"),
            (good.replace("snapshot 20261130T000000Z", ""), "snapshot"),
            (good.replace(" 10 ", " "), "six words"),
        ] {
            let error = List::parse(&bad).unwrap_err();
            assert!(error.kind() == Kind::Corrupt && error.says().contains(says), "{error}");
        }
    }

    #[test]
    fn a_package_of_dpkg_is_read_and_a_cut_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        std::fs::create_dir_all(tree.join("usr/bin")).unwrap();
        std::fs::write(
            tree.join("DEBIAN/control"),
            "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: x\n",
        )
        .unwrap();
        std::fs::write(tree.join("usr/bin/one"), b"one").unwrap();
        std::fs::hard_link(tree.join("usr/bin/one"), tree.join("usr/bin/two")).unwrap();
        std::os::unix::fs::symlink("one", tree.join("usr/bin/three")).unwrap();
        for kind in ["xz", "zstd", "gzip", "none"] {
            let deb = dir.path().join(format!("{kind}.deb"));
            let Ok(out) = Command::new("dpkg-deb")
                .args(["--root-owner-group", &format!("-Z{kind}"), "-b"])
                .arg(&tree)
                .arg(&deb)
                .output()
            else {
                eprintln!("SKIPPED: a_package_of_dpkg_is_read_and_a_cut_one_refused: no dpkg-deb here");
                return;
            };
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            let deb = std::fs::read(deb).unwrap();
            let placed = files(&data(&deb).unwrap()).unwrap();
            let at = |path: &str| placed.iter().find(|p| p.path == path).map(|p| p.what.clone());
            assert_eq!(at("/usr/bin"), Some(What::Folder));
            let both = [at("/usr/bin/one"), at("/usr/bin/two")];
            assert!(both.contains(&Some(What::File(b"one".to_vec()))), "{both:?}");
            assert!(both.iter().any(|w| matches!(w, Some(What::Same(_)))), "{both:?}");
            assert_eq!(at("/usr/bin/three"), Some(What::Link("one".into())));
            for cut in [7, 30, deb.len() / 2, deb.len() - 20] {
                let read = data(&deb[..cut]).and_then(|tar| files(&tar));
                assert_eq!(read.expect_err("cut").kind(), Kind::Corrupt, "{kind} at {cut}");
            }
        }
    }
}
