//! Files below a root, as the guest would see them: links lead where they would lead the guest, never out.
//!
//! Every path is resolved by the kernel (`openat2` with `RESOLVE_IN_ROOT`), which takes the root's folder for `/`.
//! Nothing but regular files is ever opened for reading or writing: a pipe would block and a device is none of ours.

use super::place::{Place, XATTRS_AT_MOST, fill};
use super::windows;
use crate::sandbox::protocol::{Cause, Failure, LISTING_AT_MOST, Listing};
use crate::tree::walk::{self, Step};
use crate::tree::{Entry, Meta, NodeKind};
use landfall_image::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Where the roots of all guests' file systems are mounted.
pub(super) const ROOTS: &str = "/guest";

/// Links followed in a last component, as many as the kernel follows.
const LINKS_AT_MOST: usize = 40;

const EXT4_MAGIC: i128 = 0xef53;

type Result<T> = std::result::Result<T, Failure>;

/// Content that arrives in pieces.
pub(super) trait Pieces {
    /// The next piece, or `None` at the end.
    fn next(&mut self) -> io::Result<Option<&[u8]>>;
}

/// The folder that a guest calls `/`.
pub(super) struct Root {
    folder: OwnedFd,
}

/// True for a name that can be a folder below [`ROOTS`].
pub(super) fn is_root_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

/// The failure of a file beyond the caller's bound.
pub(super) fn too_long(path: &str, size: u64, at_most: u64) -> Failure {
    Failure::new(
        Cause::Refused,
        format!("{path} has {} ({size} bytes); at most {} are read", Bytes(size), Bytes(at_most)),
    )
}

impl Root {
    /// The root of that name, as it is mounted now.
    pub(super) fn open(name: &str) -> Result<Root> {
        if !is_root_name(name) {
            return Err(Failure::new(Cause::Refused, format!("{name:?} is no name of a root")));
        }
        Root::at(&format!("{ROOTS}/{name}"))
            .map_err(|e| Failure::errno(format!("there is no root {name:?}"), &e.into()))
    }

    /// The folder at `path` of this machine as a root.
    pub(super) fn at(path: &str) -> rustix::io::Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Root { folder: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// A handle on `path` that neither reads nor writes. `None` where there is nothing.
    pub(super) fn find(&self, path: &str, follow: bool) -> Result<Option<OwnedFd>> {
        match self.resolve(path, follow) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(Failure::errno(format!("cannot resolve {path}"), &e.into())),
        }
    }

    /// A handle on `path`; on NTFS by any case of its names.
    fn resolve(&self, path: &str, follow: bool) -> rustix::io::Result<OwnedFd> {
        let is_ntfs = windows::is_ntfs(&self.folder);
        if !is_ntfs || windows::may_be_asked(path) {
            match self.resolve_exactly(path, follow) {
                Err(Errno::NOENT) if is_ntfs => {}
                done => return done,
            }
        }
        let stored = self.stored_path(path, follow)?.ok_or(Errno::NOENT)?;
        self.resolve_exactly(&stored, false)
    }

    /// The path on NTFS that `path` means, free of links and with all names as they are stored.
    fn stored_path(&self, path: &str, follow: bool) -> rustix::io::Result<Option<String>> {
        let mut stored = HashMap::from([(String::new(), String::new())]);
        let mut failed = None;
        let resolved = walk::resolve(path, follow, |real| {
            let step = self.stored_step(real, &mut stored);
            step.map_err(|e| {
                failed = Some(e);
                crate::Error::io("cannot resolve", e.into())
            })
        });
        match (resolved, failed) {
            (_, Some(e)) => Err(e),
            (Err(_), None) => Err(Errno::LOOP),
            (Ok(real), None) => {
                let real = real.as_deref().map(|real| real.trim_end_matches('/'));
                let found = real.and_then(|real| stored.get(real).cloned());
                Ok(found.map(|path| if path.is_empty() { "/".into() } else { path }))
            }
        }
    }

    /// What stands at a path whose parents are known, and how it is called.
    fn stored_step(
        &self,
        real: &str,
        stored: &mut HashMap<String, String>,
    ) -> rustix::io::Result<Option<Step>> {
        let (parent, name) = real.rsplit_once('/').unwrap_or_default();
        let Some(parent) = stored.get(parent).cloned() else { return Err(Errno::NOENT) };
        let folder = self.resolve_exactly(if parent.is_empty() { "/" } else { &parent }, false)?;
        let Some(name) = windows::stored_name(&folder, name)? else { return Ok(None) };
        let path = format!("{parent}/{name}");
        let fd = self.resolve_exactly(&path, false)?;
        stored.insert(real.to_owned(), path);
        let kind = meta(&rustix::fs::fstat(&fd)?).kind;
        if kind != NodeKind::Symlink {
            return Ok(Some(Step::Node(kind)));
        }
        let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
        Ok(target.into_string().ok().map(Step::Link))
    }

    fn resolve_exactly(&self, path: &str, follow: bool) -> rustix::io::Result<OwnedFd> {
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: a rename elsewhere made the kernel unsure of a "..".
        for _ in 0..100 {
            match rustix::fs::openat2(&self.folder, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return done,
            }
        }
        Err(Errno::AGAIN)
    }

    pub(super) fn metadata(&self, path: &str, follow: bool) -> Result<Option<Meta>> {
        let Some(fd) = self.find(path, follow)? else { return Ok(None) };
        Ok(Some(meta(&stat(&fd, path)?)))
    }

    /// A regular file of at most `at_most` bytes, open for reading.
    pub(super) fn open_file(&self, path: &str, at_most: u64) -> Result<Option<File>> {
        let Some(fd) = self.find(path, true)? else { return Ok(None) };
        let meta = meta(&stat(&fd, path)?);
        if meta.kind != NodeKind::File {
            return Err(not_a_file(path, meta.kind));
        }
        if meta.size.0 > at_most {
            return Err(too_long(path, meta.size.0, at_most));
        }
        reopen(&fd, OFlags::RDONLY)
            .map(|fd| Some(File::from(fd)))
            .map_err(|e| Failure::errno(format!("cannot open {path}"), &e.into()))
    }

    /// The names in a folder, sorted; those that are not UTF-8 are left out.
    pub(super) fn list(&self, path: &str) -> Result<Option<Listing>> {
        let Some(fd) = self.find(path, true)? else { return Ok(None) };
        if meta(&stat(&fd, path)?).kind != NodeKind::Dir {
            return Ok(None);
        }
        let failed = |e: Errno| Failure::errno(format!("cannot list {path}"), &e.into());
        let open = reopen(&fd, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        let mut entries = Vec::new();
        let mut len: usize = 0;
        for entry in rustix::fs::Dir::read_from(&open).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = rustix::fs::statat(&open, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                known => known,
            };
            // A name, its length, its kind.
            len = len.saturating_add(name.len()).saturating_add(8);
            if len > LISTING_AT_MOST {
                return Err(Failure::new(
                    Cause::Refused,
                    format!(
                        "{path} has more than {} names; their listing may take {}",
                        entries.len(),
                        Bytes(LISTING_AT_MOST as u64)
                    ),
                ));
            }
            entries.push(Entry { name: name.to_owned(), kind: node_kind(kind) });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(entries))
    }

    pub(super) fn read_link(&self, path: &str) -> Result<Option<String>> {
        let Some(fd) = self.find(path, false)? else { return Ok(None) };
        if meta(&stat(&fd, path)?).kind != NodeKind::Symlink {
            return Ok(None);
        }
        let target = rustix::fs::readlinkat(&fd, "", Vec::new())
            .map_err(|e| Failure::errno(format!("cannot read the link {path}"), &e.into()))?;
        target.into_string().map(Some).map_err(|_| {
            Failure::new(Cause::Unsupported, format!("the target of the link {path} is not UTF-8"))
        })
    }

    /// Free bytes for root on the file system that holds `path`, or would hold it.
    pub(super) fn free_space(&self, path: &str) -> Result<u64> {
        let mut path = path;
        loop {
            if let Some(fd) = self.find(path, true)? {
                return free_space(&fd).map_err(|e| {
                    Failure::errno(format!("cannot ask for the free space at {path}"), &e.into())
                });
            }
            path = match path.trim_end_matches('/').rsplit_once('/') {
                Some((parent, _)) if !parent.is_empty() => parent,
                _ => "/",
            };
        }
    }

    /// Writes `size` bytes beside `path`, syncs and renames; or over what is there, where both have no room. See
    /// [`Change::Put`](crate::apply::Change::Put). This and the next two return true where a flag had to be lifted.
    pub(super) fn put(&self, path: &str, mode: u32, size: u64, pieces: &mut dyn Pieces) -> Result<bool> {
        let place = self.place(path, true)?;
        let existing = place.existing()?;
        if let Some(existing) = &existing {
            let kind = meta(existing).kind;
            if kind != NodeKind::File {
                return Err(not_a_file(path, kind));
            }
        }
        // Known beforehand, so said beforehand: a write fails late, and on a delayed allocation later still. btrfs
        // only estimates what is free.
        let free = free_space(&place.parent)
            .map_err(|e| Failure::errno(format!("cannot ask for the free space at {path}"), &e.into()))?;
        if let Some(old) = &existing
            && place.is_written_over(old, size, free)?
        {
            return place.unlocked(|| place.write_over(old, size, pieces).map(Some));
        }
        if size > free {
            let no_space = io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error());
            return Err(Failure::errno(
                format!(
                    "cannot write {path}: {size} bytes ({}) do not fit into {} that are free",
                    Bytes(size),
                    Bytes(free)
                ),
                &no_space,
            ));
        }
        place.unlocked(|| {
            let beside = place.beside();
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&place.parent, &*beside, flags, Mode::RUSR | Mode::WUSR)
                .map_err(|e| Failure::errno(format!("cannot create a file beside {path}"), &e.into()))?;
            let mut file = File::from(file);
            let written = fill(&mut file, path, size, pieces)
                .and_then(|()| place.dress(&file, existing.as_ref(), mode))
                .and_then(|()| {
                    file.sync_all()
                        .map_err(|e| Failure::errno(format!("cannot write {path} to the disk"), &e))
                })
                .and_then(|()| place.rename(&beside));
            if written.is_err() {
                let _ = rustix::fs::unlinkat(&place.parent, &*beside, AtFlags::empty());
            }
            written.map(|()| Some(file))
        })
    }

    /// Puts a link in place of what is there.
    pub(super) fn symlink(&self, path: &str, target: &str) -> Result<bool> {
        let place = self.place(path, false)?;
        if windows::is_ntfs(&place.parent) {
            return Err(Failure::new(
                Cause::Unsupported,
                format!("{path} cannot become a link: it is on NTFS"),
            ));
        }
        if let Some(existing) = place.existing()?
            && meta(&existing).kind == NodeKind::Dir
        {
            return Err(not_a_file(path, NodeKind::Dir));
        }
        place.unlocked(|| {
            let beside = place.beside();
            rustix::fs::symlinkat(target, &place.parent, &*beside)
                .map_err(|e| Failure::errno(format!("cannot create a link beside {path}"), &e.into()))?;
            let renamed = place.rename(&beside);
            if renamed.is_err() {
                let _ = rustix::fs::unlinkat(&place.parent, &*beside, AtFlags::empty());
            }
            renamed.map(|()| None)
        })
    }

    /// Removes a file, a link or an empty folder.
    pub(super) fn remove(&self, path: &str) -> Result<bool> {
        let (parent, name) = split(path)?;
        let Some(parent) = self.find(&parent, true)? else { return Ok(false) };
        if meta(&stat(&parent, path)?).kind != NodeKind::Dir {
            return Ok(false);
        }
        let place = Place::new(parent, name, path)?;
        if place.existing()?.is_none() {
            return Ok(false);
        }
        place.unlocked(|| {
            let removed = match rustix::fs::unlinkat(&place.parent, &*place.name, AtFlags::empty()) {
                Err(Errno::ISDIR) => rustix::fs::unlinkat(&place.parent, &*place.name, AtFlags::REMOVEDIR),
                removed => removed,
            };
            match removed {
                Ok(()) | Err(Errno::NOENT) => Ok(None),
                Err(e) => Err(Failure::errno(format!("cannot remove {path}"), &e.into())),
            }
        })
    }

    /// Gives a path its SELinux context, and reads it back.
    pub(super) fn label(&self, path: &str, context: &str) -> Result<()> {
        const NAME: &str = "security.selinux";
        let (parent, name) = split(path)?;
        let absent = || Failure::errno(format!("cannot label {path}"), &Errno::NOENT.into());
        let parent = self.find(&parent, true)?.ok_or_else(absent)?;
        // Through the folder's handle, so that no link leads elsewhere: the last component is taken as it is.
        let place = format!("/proc/self/fd/{}/{name}", parent.as_raw_fd());
        // libselinux ends it with a zero byte.
        let value = [context.as_bytes(), b"\0"].concat();
        match rustix::fs::lsetxattr(&*place, NAME, &value, XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) => return Ok(()),
            set => set.map_err(|e| Failure::errno(format!("cannot label {path}"), &e.into()))?,
        }
        let mut found = vec![0u8; XATTRS_AT_MOST];
        let len = rustix::fs::lgetxattr(&*place, NAME, &mut found[..])
            .map_err(|e| Failure::errno(format!("cannot read the label of {path}"), &e.into()))?;
        match found.get(..len) == Some(&value[..]) {
            true => Ok(()),
            false => Err(Failure::new(Cause::Corrupt, format!("the label of {path} does not read back"))),
        }
    }

    /// Where `path` is to be written: its folder, made where it is absent, and its name there. With `follow` a
    /// link in the last component leads on.
    fn place(&self, path: &str, follow: bool) -> Result<Place> {
        let mut wanted = path.to_owned();
        for _ in 0..LINKS_AT_MOST {
            let (parent_path, name) = split(&wanted)?;
            let parent = self.make_folders(&parent_path)?;
            let place = Place::new(parent, name, path)?;
            let is_link = place.existing()?.is_some_and(|existing| meta(&existing).kind == NodeKind::Symlink);
            if !follow || !is_link {
                return Ok(place);
            }
            let target = rustix::fs::readlinkat(&place.parent, &*place.name, Vec::new())
                .map_err(|e| Failure::errno(format!("cannot read the link {wanted}"), &e.into()))?
                .into_string()
                .map_err(|_| {
                    Failure::new(Cause::Unsupported, format!("the target of the link {wanted} is not UTF-8"))
                })?;
            wanted = if target.starts_with('/') { target } else { format!("{parent_path}/{target}") };
        }
        Err(Failure::errno(format!("cannot follow {path}"), &Errno::LOOP.into()))
    }

    /// The folder at `path`; it and its parents are made (0755) where they are absent.
    fn make_folders(&self, path: &str) -> Result<OwnedFd> {
        let failed = |e: Errno| Failure::errno(format!("cannot make the folder {path}"), &e.into());
        match self.resolve(path, true) {
            Err(Errno::NOENT) => {}
            Ok(fd) => {
                return match meta(&stat(&fd, path)?).kind {
                    NodeKind::Dir => Ok(fd),
                    _ => Err(failed(Errno::NOTDIR)),
                };
            }
            Err(e) => return Err(failed(e)),
        }
        let mut here = self.resolve("/", true).map_err(failed)?;
        let mut walked = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            walked.push('/');
            walked.push_str(part);
            here = match self.resolve(&walked, true) {
                Err(Errno::NOENT) => {
                    if windows::is_ntfs(&here) && !windows::may_be_asked(part) {
                        return Err(failed(Errno::NOENT));
                    }
                    rustix::fs::mkdirat(&here, part, Mode::from_raw_mode(0o755)).map_err(failed)?;
                    windows::forget();
                    let made = self.resolve(&walked, true).map_err(failed)?;
                    if windows::is_ntfs(&made) {
                        reopen(&made, OFlags::RDONLY | OFlags::DIRECTORY)
                            .and_then(|made| windows::forget_owner(&made))
                            .map_err(failed)?;
                    }
                    made
                }
                found => found.map_err(failed)?,
            };
        }
        Ok(here)
    }
}

/// The folder and the name of an absolute path.
fn split(path: &str) -> Result<(String, String)> {
    let (parent, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or_default();
    if !path.starts_with('/') || matches!(name, "" | "." | "..") || path.contains('\0') {
        return Err(Failure::new(Cause::Refused, format!("{path:?} is no path of a file")));
    }
    Ok((if parent.is_empty() { "/".into() } else { parent.into() }, name.into()))
}

/// The file behind a handle, opened to be used. The name in `/proc` leads to the very file of the handle.
fn reopen(fd: &OwnedFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK, Mode::empty())
}

fn stat(fd: &OwnedFd, path: &str) -> Result<Stat> {
    rustix::fs::fstat(fd).map_err(|e| stat_error(path, e))
}

pub(super) fn stat_error(path: &str, error: Errno) -> Failure {
    Failure::errno(format!("cannot look at {path}"), &error.into())
}

fn free_space(fd: impl AsFd) -> rustix::io::Result<u64> {
    let fs = rustix::fs::fstatvfs(&fd)?;
    let is_ext4 = i128::from(rustix::fs::fstatfs(&fd)?.f_type) == EXT4_MAGIC;
    // Of ext4 root may use the blocks that others may not; elsewhere both are the same, or only the second is true.
    let blocks = if is_ext4 { fs.f_bfree } else { fs.f_bavail };
    Ok(blocks.saturating_mul(fs.f_frsize))
}

pub(super) fn not_a_file(path: &str, kind: NodeKind) -> Failure {
    let what = match kind {
        NodeKind::Dir => "a folder",
        NodeKind::Symlink => "a link",
        NodeKind::File | NodeKind::Other => "a device, pipe or socket",
    };
    Failure::new(Cause::Refused, format!("{path} is {what}, not a file"))
}

fn meta(stat: &Stat) -> Meta {
    Meta {
        kind: node_kind(FileType::from_raw_mode(stat.st_mode)),
        size: Bytes(u64::try_from(stat.st_size).unwrap_or(0)),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_seconds: stat.st_mtime,
    }
}

fn node_kind(kind: FileType) -> NodeKind {
    match kind {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Dir,
        FileType::Symlink => NodeKind::Symlink,
        _ => NodeKind::Other,
    }
}
