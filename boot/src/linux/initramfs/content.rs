//! What the kernel's root file system holds after every archive was unpacked, and the archive that makes it again.
//!
//! Entries are applied by the kernel's own rules (init/initramfs.c): a later entry wins; an entry of another type
//! first removes what is there, unless that is a folder with content; a regular file is written *into* the existing
//! inode, so that its hard links change with it; a missing parent loses the entry; parents may be symbolic links.
//!
//! What is written holds real paths only, so that no folder ever replaces a link such as `lib -> usr/lib`. Hard links
//! among files that nobody edits stay hard links (broken up, a dracut image would grow); an edited file always gets
//! an inode of its own.

use super::cpio::{self, DIRECTORY, Entry, REGULAR, SYMLINK, TYPE_MASK};
use super::limits;
use crate::{Error, Result};
use landfall_image::Bytes;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::{self, Write};

/// Where an inode was last written from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The kernel's built-in archive: `/dev`, `/dev/console`, `/root`. Not written again.
    Kernel,
    /// An archive that is kept byte for byte. Not written again.
    Early,
    /// An archive that is merged.
    Main,
    /// An edit.
    Edit,
}

/// A file, folder, link or device.
#[derive(Clone, Debug)]
pub struct Inode<'a> {
    /// Type and permission bits.
    pub mode: u32,
    /// Content, or target of a link.
    pub data: Cow<'a, [u8]>,
    uid: u32,
    gid: u32,
    mtime: u32,
    rdev: (u32, u32),
    origin: Origin,
}

impl Inode<'_> {
    /// True for one of the `*_TYPE` bits.
    pub fn is(&self, kind: u32) -> bool {
        self.mode & TYPE_MASK == kind
    }
}

/// What hard links of one archive share: inode, device, type.
type LinkKey = (u32, (u32, u32), u32);

/// The merged content, by real path without leading `/`; the root itself is the empty path.
#[derive(Debug)]
pub struct Content<'a> {
    inodes: Vec<Inode<'a>>,
    names: BTreeMap<Vec<u8>, usize>,
    /// Paths of files that an archive which is kept brings, whatever became of them since.
    early: BTreeSet<Vec<u8>>,
    lookups: usize,
    lost: usize,
}

/// What [`Content::remove`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// There was nothing, or already nothing in it.
    Absent,
    /// It is gone.
    Removed,
    /// An archive that is kept brings it anew: it is an empty file now.
    Emptied,
}

impl Default for Content<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Content<'a> {
    /// What a kernel has before the first archive.
    pub fn new() -> Self {
        let mut content = Content {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            early: BTreeSet::new(),
            lookups: 0,
            lost: 0,
        };
        for (path, mode, rdev) in [
            ("dev", DIRECTORY | 0o755, (0, 0)),
            ("dev/console", 0o020_600, (5, 1)),
            ("root", DIRECTORY | 0o700, (0, 0)),
        ] {
            let data = Cow::Borrowed(&[][..]);
            content.insert(
                path.into(),
                Inode { mode, data, uid: 0, gid: 0, mtime: 0, rdev, origin: Origin::Kernel },
            );
        }
        content
    }

    /// Applies one archive's entries in order.
    ///
    /// # Errors
    /// `Refused` for names that climb (`..`), are absolute, or lie behind a loop of links.
    pub fn apply(&mut self, entries: &[Entry<'a>], origin: Origin) -> Result<()> {
        let mut links = HashMap::new();
        for entry in entries {
            self.apply_entry(entry, origin, &mut links)?;
        }
        Ok(())
    }

    /// Entries that the kernel drops too: without a parent, or over a folder that has content.
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// Bytes of everything inside.
    pub fn size(&self) -> Bytes {
        Bytes(self.inodes.iter().map(|inode| inode.data.len() as u64).sum())
    }

    /// Every path with its inode, folders before what is in them.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Inode<'a>)> {
        self.names.iter().filter_map(|(path, inode)| Some((path.as_slice(), self.inodes.get(*inode)?)))
    }

    /// What lies at `path`, links in its parents followed, the last component not.
    pub fn get(&mut self, path: &[u8]) -> Result<Option<&Inode<'a>>> {
        let Some(path) = self.real_path(&components(path)?)? else { return Ok(None) };
        Ok(self.at(&path))
    }

    /// The real path of the folder `path`, all links followed; `None` where it is absent or no folder.
    pub fn real_folder(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        self.resolve(&components(path)?)
    }

    /// Newest time in the archive: what new entries get, so that the result depends on nothing else.
    pub fn newest(&self) -> u32 {
        self.inodes.iter().map(|inode| inode.mtime).max().unwrap_or(0)
    }

    /// Puts a regular file of root's at `path`, with the folders that it needs. A link in the last component is
    /// replaced; owner and time of an existing file are kept.
    ///
    /// # Errors
    /// `Corrupt` where a parent is not a folder or the path itself is one; `Unsupported` where a file with hard
    /// links lies in an archive that is kept: writing it would change the others with it.
    pub fn put(&mut self, path: &[u8], mode: u32, data: Vec<u8>) -> Result<()> {
        let parts = components(path)?;
        let shown = String::from_utf8_lossy(path).into_owned();
        let Some((last, parents)) = parts.split_last() else {
            return Err(Error::corrupt("a file inside the initramfs has an empty path"));
        };
        let mut real = self.make_folders(parents)?;
        push(&mut real, last);
        let mut inode = Inode {
            mode: REGULAR | (mode & 0o7777),
            data: Cow::Owned(data),
            uid: 0,
            gid: 0,
            mtime: self.newest(),
            rdev: (0, 0),
            origin: Origin::Edit,
        };
        if let Some(&number) = self.names.get(&real) {
            let old = self.inodes.get(number);
            if old.is_some_and(|old| old.is(DIRECTORY)) {
                return Err(Error::corrupt(format!("{shown} is a folder inside the initramfs, not a file")));
            }
            if let Some(old) = old.filter(|old| old.is(REGULAR)) {
                (inode.uid, inode.gid, inode.mtime) = (old.uid, old.gid, old.mtime);
                let shared =
                    old.origin == Origin::Early && self.names.values().filter(|n| **n == number).count() > 1;
                if shared {
                    let says = format!("{shown} has hard links in an early archive of the initramfs");
                    return Err(Error::unsupported(says));
                }
            }
        }
        self.insert(real, inode);
        Ok(())
    }

    /// Takes a file, link or empty folder out. A link in the last component is not followed.
    ///
    /// # Errors
    /// `Refused` for a folder with content: nothing that an edit is about is one.
    pub fn remove(&mut self, path: &[u8]) -> Result<Removal> {
        let parts = components(path)?;
        let Some(real) = self.real_path(&parts)?.filter(|_| !parts.is_empty()) else {
            return Ok(Removal::Absent);
        };
        let Some(inode) = self.at(&real) else { return Ok(Removal::Absent) };
        if inode.is(DIRECTORY) && self.has_children(&real) {
            let shown = String::from_utf8_lossy(path).into_owned();
            return Err(Error::refused(format!("{shown} inside the initramfs is a folder with content")));
        }
        if !self.early.contains(&real) {
            self.names.remove(&real);
            return Ok(Removal::Removed);
        }
        if inode.is(REGULAR) && inode.data.is_empty() {
            return Ok(Removal::Absent);
        }
        self.put(path, 0o644, Vec::new())?;
        Ok(Removal::Emptied)
    }

    /// Gives what lies at `from` the name `to`, in place of the file or link there. False where there is nothing.
    ///
    /// # Errors
    /// `Refused` where either name is a folder's, or where an archive that is kept brings it.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<bool> {
        let Some(old) = self.real_path(&components(from)?)? else { return Ok(false) };
        let Some(&number) = self.names.get(&old) else { return Ok(false) };
        let Some(new) = self.real_path(&components(to)?)? else { return Ok(false) };
        let is_folder = |path: &[u8]| self.at(path).is_some_and(|inode| inode.is(DIRECTORY));
        if is_folder(&old) || is_folder(&new) || self.early.contains(&old) || self.early.contains(&new) {
            let shown = String::from_utf8_lossy(from).into_owned();
            return Err(Error::refused(format!("{shown} inside the initramfs cannot be renamed")));
        }
        self.names.remove(&old);
        self.names.insert(new, number);
        Ok(true)
    }

    /// Makes every missing folder of `parts`; gives the real path.
    pub fn make_folders(&mut self, parts: &[&[u8]]) -> Result<Vec<u8>> {
        let mut real = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            // Resolved anew from the root: the part may be a link to anywhere.
            let upto = parts.get(..=i).unwrap_or(parts);
            real = match self.resolve(upto)? {
                Some(found) => found,
                None => {
                    push(&mut real, part);
                    if self.names.contains_key(&real) {
                        let shown = String::from_utf8_lossy(&real).into_owned();
                        let says =
                            format!("{shown} inside the initramfs is no folder, or a link into the void");
                        return Err(Error::corrupt(says));
                    }
                    let mtime = self.newest();
                    let (mode, data, origin) = (DIRECTORY | 0o755, Cow::Borrowed(&[][..]), Origin::Edit);
                    self.insert(
                        real.clone(),
                        Inode { mode, data, uid: 0, gid: 0, mtime, rdev: (0, 0), origin },
                    );
                    real
                }
            };
        }
        Ok(real)
    }

    /// Writes one archive with everything that is not kept elsewhere, and the folders that lead to it.
    pub fn write<W: Write>(&self, out: W) -> io::Result<W> {
        let kept = |inode: &Inode<'_>| matches!(inode.origin, Origin::Kernel | Origin::Early);
        let mut folders: BTreeSet<&[u8]> = BTreeSet::new();
        let mut links: HashMap<usize, u32> = HashMap::new();
        for (path, number) in &self.names {
            let Some(inode) = self.inodes.get(*number).filter(|inode| !kept(inode)) else { continue };
            if !inode.is(DIRECTORY) {
                *links.entry(*number).or_default() += 1;
            }
            let mut rest = path.as_slice();
            while let Some(slash) = rest.iter().rposition(|b| *b == b'/') {
                rest = rest.get(..slash).unwrap_or_default();
                if !folders.insert(rest) {
                    break;
                }
            }
        }
        let mut left = links.clone();
        let mut writer = cpio::Writer::new(out);
        for (path, number) in &self.names {
            let Some(inode) = self.inodes.get(*number) else { continue };
            if kept(inode) && !folders.contains(path.as_slice()) {
                continue;
            }
            let nlink = links.get(number).copied().unwrap_or(1);
            // As cpio writes it: the data comes with the last of the names.
            let last = left.get_mut(number).is_none_or(|left| {
                *left = left.saturating_sub(1);
                *left == 0
            });
            let has_data = !inode.is(REGULAR) || last;
            writer.entry(&Entry {
                name: if path.is_empty() { b"." } else { path },
                data: if has_data { &inode.data } else { &[] },
                inode: u32::try_from(number.saturating_add(1)).unwrap_or(u32::MAX),
                device: (0, 0),
                mode: inode.mode,
                uid: inode.uid,
                gid: inode.gid,
                nlink,
                mtime: inode.mtime,
                rdev: inode.rdev,
            })?;
        }
        writer.finish()
    }

    fn apply_entry(
        &mut self,
        entry: &Entry<'a>,
        origin: Origin,
        links: &mut HashMap<LinkKey, Vec<u8>>,
    ) -> Result<()> {
        let kind = entry.mode & TYPE_MASK;
        let Some(path) = self.real_path(&components(entry.name)?)? else {
            self.lost += 1;
            return Ok(());
        };
        if origin == Origin::Early && kind != DIRECTORY {
            self.early.insert(path.clone());
        }
        let data = match kind {
            REGULAR | SYMLINK => Cow::Borrowed(entry.data),
            _ if !entry.data.is_empty() => {
                // The kernel skips what has no business with data.
                self.lost += 1;
                return Ok(());
            }
            _ => Cow::Borrowed(&[][..]),
        };
        let (mode, uid, gid, mtime, rdev) = (entry.mode, entry.uid, entry.gid, entry.mtime, entry.rdev);
        let mut inode = Inode { mode, data, uid, gid, mtime, rdev, origin };
        if entry.nlink >= 2 && kind != DIRECTORY && kind != SYMLINK {
            let key = (entry.inode, entry.device, kind);
            if let Some(first) = links.get(&key) {
                let Some(&number) = self.names.get(first) else {
                    self.lost += 1;
                    return Ok(());
                };
                if *first != path && self.clear(&path, None) {
                    self.names.insert(path, number);
                }
                if let Some(shared) = self.inodes.get_mut(number).filter(|_| kind == REGULAR) {
                    if inode.data.is_empty() {
                        inode.data = std::mem::take(&mut shared.data);
                    }
                    *shared = inode;
                }
                return Ok(());
            }
            links.insert(key, path.clone());
        }
        let same = if kind == SYMLINK { None } else { Some(kind) };
        if !self.clear(&path, same) {
            self.lost += 1;
            return Ok(());
        }
        match self.names.get(&path).and_then(|number| self.inodes.get_mut(*number)) {
            Some(existing) => {
                if kind != REGULAR {
                    // The node stays, its attributes change.
                    inode.rdev = existing.rdev;
                }
                *existing = inode;
            }
            None => self.insert(path, inode),
        }
        Ok(())
    }

    /// Makes way for an entry of type `kind` (`None`: of whatever type). False where a folder with content stays.
    fn clear(&mut self, path: &[u8], kind: Option<u32>) -> bool {
        let Some(existing) = self.at(path) else { return true };
        if kind.is_some_and(|kind| existing.is(kind)) {
            return true;
        }
        if existing.is(DIRECTORY) && (path.is_empty() || self.has_children(path)) {
            return false;
        }
        self.names.remove(path);
        true
    }

    fn has_children(&self, path: &[u8]) -> bool {
        let mut prefix = path.to_vec();
        prefix.push(b'/');
        self.names.range(prefix.clone()..).next().is_some_and(|(name, _)| name.starts_with(&prefix))
    }

    fn at(&self, path: &[u8]) -> Option<&Inode<'a>> {
        self.names.get(path).and_then(|number| self.inodes.get(*number))
    }

    fn insert(&mut self, path: Vec<u8>, inode: Inode<'a>) {
        self.names.insert(path, self.inodes.len());
        self.inodes.push(inode);
    }

    /// The path with its parents' links followed; `None` where a parent is missing.
    fn real_path(&mut self, parts: &[&[u8]]) -> Result<Option<Vec<u8>>> {
        let Some((last, parents)) = parts.split_last() else { return Ok(Some(Vec::new())) };
        let direct = parents.join(&b'/');
        let parent = if parents.is_empty() || self.at(&direct).is_some_and(|inode| inode.is(DIRECTORY)) {
            Some(direct)
        } else {
            self.resolve(parents)?
        };
        Ok(parent.map(|mut path| {
            push(&mut path, last);
            path
        }))
    }

    /// The real path of a folder.
    fn resolve(&mut self, parts: &[&[u8]]) -> Result<Option<Vec<u8>>> {
        let mut pending: VecDeque<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        let mut real: Vec<u8> = Vec::new();
        let mut followed = 0;
        while let Some(part) = pending.pop_front() {
            self.lookups += 1;
            if self.lookups > limits::LOOKUPS {
                let says =
                    format!("the paths inside the initramfs need more than {} lookups", limits::LOOKUPS);
                return Err(Error::refused(says));
            }
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    let end = real.iter().rposition(|b| *b == b'/').unwrap_or(0);
                    real.truncate(end);
                    continue;
                }
                _ => {}
            }
            let parent = real.len();
            push(&mut real, &part);
            let Some(inode) = self.names.get(&real).and_then(|number| self.inodes.get(*number)) else {
                return Ok(None);
            };
            if inode.is(SYMLINK) {
                followed += 1;
                if followed > limits::SYMLINKS {
                    let shown = String::from_utf8_lossy(&parts.join(&b'/')).into_owned();
                    let says = format!("{shown} inside the initramfs lies behind a loop of symbolic links");
                    return Err(Error::refused(says));
                }
                real.truncate(if inode.data.starts_with(b"/") { 0 } else { parent });
                for part in inode.data.split(|b| *b == b'/').rev() {
                    pending.push_front(part.to_vec());
                }
            } else if !inode.is(DIRECTORY) {
                return Ok(None);
            }
        }
        Ok(Some(real))
    }
}

/// The components of a path inside an archive.
fn components(name: &[u8]) -> Result<Vec<&[u8]>> {
    let shown = || String::from_utf8_lossy(name).into_owned();
    if name.starts_with(b"/") {
        return Err(Error::refused(format!("{:?} inside the initramfs is an absolute path", shown())));
    }
    let parts: Vec<&[u8]> =
        name.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err(Error::refused(format!("{:?} inside the initramfs climbs out with \"..\"", shown())));
    }
    Ok(parts)
}

fn push(path: &mut Vec<u8>, part: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn entry<'a>(name: &'a str, mode: u32, data: &'a [u8]) -> Entry<'a> {
        let (name, device, rdev) = (name.as_bytes(), (0, 0), (0, 0));
        Entry { name, data, inode: 0, device, mode, uid: 0, gid: 0, nlink: 1, mtime: 0, rdev }
    }
    fn linked<'a>(name: &'a str, inode: u32, data: &'a [u8]) -> Entry<'a> {
        Entry { inode, nlink: 2, ..entry(name, REGULAR | 0o644, data) }
    }
    const DIR: u32 = DIRECTORY | 0o755;
    const FILE: u32 = REGULAR | 0o644;
    const LINK: u32 = SYMLINK | 0o777;

    fn content<'a>(archives: &[&[Entry<'a>]]) -> Content<'a> {
        let mut content = Content::new();
        for entries in archives {
            content.apply(entries, Origin::Main).expect("sound");
        }
        content
    }
    fn data(content: &Content<'_>, path: &str) -> Option<Vec<u8>> {
        content.at(path.as_bytes()).map(|inode| inode.data.to_vec())
    }

    #[test]
    fn paths_behind_a_link_are_real_and_the_link_stays() {
        let mut content = content(&[&[
            entry("usr", DIR, b""),
            entry("usr/lib", DIR, b""),
            entry("lib", LINK, b"usr/lib"),
            entry("lib/a", FILE, b"1"),
        ]]);
        content.put(b"lib/modules/b", 0o644, b"2".to_vec()).expect("put");
        assert_eq!(data(&content, "usr/lib/a"), Some(b"1".to_vec()));
        assert_eq!(data(&content, "usr/lib/modules/b"), Some(b"2".to_vec()));
        let bytes = content.write(Vec::new()).expect("memory");
        let (entries, _) = cpio::parse(&bytes, 0).expect("sound");
        let names: Vec<_> = entries.iter().map(|e| String::from_utf8_lossy(e.name)).collect();
        assert_eq!(names, ["lib", "usr", "usr/lib", "usr/lib/a", "usr/lib/modules", "usr/lib/modules/b"]);
        assert_eq!(entries[0].mode, LINK);
    }

    #[test]
    fn later_entries_win_by_the_kernels_rules() {
        let content = content(&[
            &[
                entry("d", DIR, b""),
                entry("d/x", FILE, b"1"),
                entry("lib", LINK, b"d"),
                entry("f", FILE, b"1"),
                entry("nowhere/x", FILE, b"lost"),
            ],
            // Over a folder with content: dropped. A folder over a link: replaces it. A file: overwritten.
            &[entry("d", LINK, b"f"), entry("lib", DIR, b""), entry("f", REGULAR | 0o600, b"2")],
        ]);
        assert!(content.at(b"d").is_some_and(|inode| inode.is(DIRECTORY)));
        assert!(content.at(b"lib").is_some_and(|inode| inode.is(DIRECTORY)));
        assert_eq!(content.at(b"f").map(|inode| inode.mode), Some(REGULAR | 0o600));
        assert_eq!(content.lost(), 2);
    }

    #[test]
    fn hard_links_share_until_edited() {
        let first = [linked("a", 9, b""), linked("b", 9, b""), linked("c", 9, b"same")];
        let mut content = content(&[&first, &[entry("b", FILE, b"new")]]);
        for name in ["a", "b", "c"] {
            assert_eq!(data(&content, name), Some(b"new".to_vec()), "written through the shared inode");
        }
        content.put(b"b", 0o644, b"mine".to_vec()).expect("put");
        assert_eq!(data(&content, "a"), Some(b"new".to_vec()));
        let bytes = content.write(Vec::new()).expect("memory");
        let (entries, _) = cpio::parse(&bytes, 0).expect("sound");
        let of = |name: &str| *entries.iter().find(|e| e.name == name.as_bytes()).expect("there");
        assert_eq!((of("a").nlink, of("a").data, of("a").inode), (2, &b""[..], of("c").inode));
        assert_eq!((of("c").nlink, of("c").data), (2, &b"new"[..]));
        assert_eq!((of("b").nlink, of("b").data), (1, &b"mine"[..]));
        let mut again = Content::new();
        again.apply(&entries, Origin::Main).expect("sound");
        for name in ["a", "b", "c"] {
            assert_eq!(data(&again, name), data(&content, name));
        }
    }

    #[test]
    fn what_is_kept_early_is_not_written_again_but_its_folders_are() {
        let mut content = Content::new();
        content
            .apply(&[entry("k", DIR, b""), entry("k/old", FILE, b"1"), entry("e", DIR, b"")], Origin::Early)
            .expect("sound");
        content.put(b"k/new", 0o644, b"2".to_vec()).expect("put");
        let bytes = content.write(Vec::new()).expect("memory");
        let names: Vec<_> =
            cpio::parse(&bytes, 0).expect("sound").0.iter().map(|e| e.name.to_vec()).collect();
        assert_eq!(names, [b"k".to_vec(), b"k/new".to_vec()]);
        content.apply(&[linked("k/x", 1, b"x"), linked("k/y", 1, b"")], Origin::Early).expect("sound");
        let error = content.put(b"k/x", 0o644, Vec::new()).expect_err("shared with k/y");
        assert_eq!(error.kind(), Kind::Unsupported);
    }

    #[test]
    fn what_is_removed_is_gone_or_empty_where_an_early_archive_brings_it() {
        let linked = [linked("a", 9, b""), linked("b", 9, b"same"), entry("l", LINK, b"nowhere")];
        let mut content = content(&[&linked, &[entry("d", DIR, b""), entry("d/x", FILE, b"1")]]);
        content.apply(&[entry("e", DIR, b""), entry("e/kept", FILE, b"1")], Origin::Early).expect("sound");
        content.apply(&[entry("e/kept", FILE, b"2")], Origin::Main).expect("sound");
        for (path, expected) in [
            ("a", Removal::Removed),
            ("a", Removal::Absent),
            ("l", Removal::Removed),
            ("no/such", Removal::Absent),
            ("e/kept", Removal::Emptied),
            ("e/kept", Removal::Absent),
            ("", Removal::Absent),
        ] {
            assert_eq!(content.remove(path.as_bytes()).expect(path), expected, "{path}");
        }
        assert_eq!(content.remove(b"d").expect_err("not empty").kind(), Kind::Refused);
        assert_eq!(data(&content, "b"), Some(b"same".to_vec()), "the other link keeps the content");
        let bytes = content.write(Vec::new()).expect("memory");
        let (entries, _) = cpio::parse(&bytes, 0).expect("sound");
        let found: Vec<_> =
            entries.iter().map(|e| (String::from_utf8_lossy(e.name), e.data.len(), e.nlink)).collect();
        let expected = [("b", 4, 1), ("d", 0, 1), ("d/x", 1, 1), ("e", 0, 1), ("e/kept", 0, 1)];
        assert_eq!(found, expected.map(|(name, len, links)| (name.into(), len, links)));
    }

    #[test]
    fn climbing_absolute_and_looping_names_are_refused() {
        for entries in [
            vec![entry("../x", FILE, b"")],
            vec![entry("a/../../x", FILE, b"")],
            vec![entry("/etc/x", FILE, b"")],
            vec![entry("tmp", LINK, b"/tmp"), entry("tmp/x", FILE, b"")],
        ] {
            let error = Content::new().apply(&entries, Origin::Main).expect_err("refused");
            assert_eq!(error.kind(), Kind::Refused);
        }
        // A link that climbs stays inside: its root is the archive's.
        let mut content = content(&[&[entry("etc", DIR, b""), entry("up", LINK, b"../../etc")]]);
        content.put(b"up/x", 0o644, Vec::new()).expect("inside");
        assert!(content.at(b"etc/x").is_some());
    }

    #[test]
    fn long_chains_of_links_cost_a_bounded_time() {
        let target = format!("d{}", "/../d".repeat(1300)).into_bytes();
        let mut entries = vec![entry("d", DIR, b"")];
        let name = b"l0";
        entries.push(Entry { name, data: &target, ..entry("", LINK, b"") });
        let paths: Vec<String> = (0..20_000).map(|i| format!("l0/{i}")).collect();
        entries.extend(paths.iter().map(|path| entry(path, FILE, b"")));
        let error = Content::new().apply(&entries, Origin::Main).expect_err("too much");
        assert!(error.says().contains("lookups"), "{error}");
    }
}
