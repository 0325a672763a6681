//! Where a file is to be written, and how: beside it and then in its place, or over it.

use super::files::{Pieces, stat_error};
use super::flags::Unlocked;
use super::windows;
use crate::apply::OVERHEAD;
use crate::sandbox::protocol::{Cause, Failure};
use rustix::fs::{AtFlags, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

/// Extended attributes of one file: the kernel's own bounds for the list and for one value.
pub(super) const XATTRS_AT_MOST: usize = 64 << 10;

type Result<T> = std::result::Result<T, Failure>;

/// Where something is to be written.
pub(super) struct Place {
    pub(super) parent: OwnedFd,
    pub(super) name: String,
    /// As the host called it, for messages.
    pub(super) path: String,
}

impl Place {
    /// The place of `name` in `parent`. Where the file system ignores case, and has the name in another, it is that.
    pub(super) fn new(parent: OwnedFd, name: String, path: &str) -> Result<Place> {
        let mut place = Place { parent, name, path: path.to_owned() };
        if windows::ignores_case(&place.parent) {
            let stored = windows::stored_name(&place.parent, &place.name)
                .map_err(|e| Failure::errno(format!("cannot look for the name of {path}"), &e.into()))?;
            if stored.is_none() && windows::is_ntfs(&place.parent) && !windows::may_be_asked(&place.name) {
                let says = format!("{path} may be the short name of another file");
                return Err(Failure::new(Cause::Unsupported, says));
            }
            place.name = stored.unwrap_or(place.name);
        }
        Ok(place)
    }

    pub(super) fn existing(&self) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.parent, &*self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Failure::errno(format!("cannot look at {}", self.path), &e.into())),
        }
    }

    /// Makes a change while neither the folder nor the file is marked as not to be changed. What replaces the file is
    /// marked as it was. True where there was a mark.
    pub(super) fn unlocked(&self, change: impl FnOnce() -> Result<Option<File>>) -> Result<bool> {
        let failed = |what: &str, e: Errno| {
            let says = format!("cannot {what} the flag that keeps {} from being changed", self.path);
            Failure::errno(says, &e.into())
        };
        let unlocked = Unlocked::lift(&self.parent, &self.name).map_err(|e| failed("lift", e))?;
        let was_immutable = unlocked.is_lifted();
        let changed = change();
        let successor = changed.as_ref().ok().and_then(Option::as_ref);
        let restored = unlocked.restore(successor).map_err(|e| failed("set", e));
        changed.and(restored).map(|()| was_immutable)
    }

    /// A name in the same folder that nothing has yet.
    pub(super) fn beside(&self) -> String {
        (0..1000)
            .map(|n| format!(".landfall-{n}.tmp"))
            .find(|name| {
                rustix::fs::statat(&self.parent, &**name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_err_and(|e| e == Errno::NOENT)
            })
            .unwrap_or_default()
    }

    /// True where a file of `size` bytes is written over `old` and not beside it: where there is no room for both; and on
    /// NTFS, where a file is more than its content (see [`windows`]).
    pub(super) fn is_written_over(&self, old: &Stat, size: u64, free: u64) -> Result<bool> {
        let fits = size.saturating_add(OVERHEAD.0) <= free.saturating_add(held(old));
        if old.st_nlink != 1 || !fits {
            return Ok(false);
        }
        // Asked for in any case: what Windows has encrypted is an error.
        let is_kept = windows::is_kept(&self.parent, &self.name, &self.path)?;
        Ok(size > free || is_kept)
    }

    /// Writes over the file, whose owner, mode and attributes stay. Cut off in between it would be lost: the disks are
    /// overlays, which are thrown away then.
    pub(super) fn write_over(&self, old: &Stat, size: u64, pieces: &mut dyn Pieces) -> Result<File> {
        let path = &self.path;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&self.parent, &*self.name, flags, Mode::empty())
            .map_err(|e| Failure::errno(format!("cannot open {path} for writing"), &e.into()))?;
        let mut file = File::from(file);
        let now = rustix::fs::fstat(&file).map_err(|e| stat_error(path, e))?;
        if (now.st_dev, now.st_ino) != (old.st_dev, old.st_ino) {
            return Err(Failure::new(Cause::Refused, format!("{path} was replaced while it was written")));
        }
        // What it held is free only once the file system has said so on the disk.
        file.set_len(0)
            .and_then(|()| file.sync_all())
            .map_err(|e| Failure::errno(format!("cannot empty {path}"), &e))?;
        fill(&mut file, path, size, pieces)?;
        file.sync_all().map_err(|e| Failure::errno(format!("cannot write {path} to the disk"), &e))?;
        Ok(file)
    }

    /// Gives the new file the owner, the mode and the extended attributes of the one that it replaces.
    pub(super) fn dress(&self, file: &File, existing: Option<&Stat>, mode: u32) -> Result<()> {
        let failed = |what: &str, e: Errno| {
            Failure::errno(format!("cannot set the {what} of {}", self.path), &e.into())
        };
        // NTFS has neither.
        if windows::is_ntfs(file) {
            let dressed = windows::forget_owner(file).and_then(|()| match existing {
                Some(_) => windows::copy_attributes(&self.parent, &self.name, file),
                None => Ok(()),
            });
            return dressed.map_err(|e| failed("rights and attributes", e));
        }
        let now = rustix::fs::fstat(file).map_err(|e| failed("mode", e))?;
        let is_fat = windows::ignores_case(file);
        if let Some(existing) = existing
            && (existing.st_uid, existing.st_gid) != (now.st_uid, now.st_gid)
        {
            let (uid, gid) =
                (rustix::fs::Uid::from_raw(existing.st_uid), rustix::fs::Gid::from_raw(existing.st_gid));
            rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(|e| failed("owner", e))?;
        }
        // After the owner, whose change drops the set-uid bits and the capabilities. FAT has no modes.
        if !is_fat {
            let mode = existing.map_or(mode, |existing| existing.st_mode) & 0o7777;
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).map_err(|e| failed("mode", e))?;
        }
        if existing.is_some() {
            self.copy_xattrs(file).map_err(|e| failed("extended attributes", e))?;
        }
        Ok(())
    }

    fn copy_xattrs(&self, to: &File) -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let from = rustix::fs::openat(&self.parent, &*self.name, flags, Mode::empty())?;
        let mut names = vec![0u8; XATTRS_AT_MOST];
        let len = match rustix::fs::flistxattr(&from, &mut names[..]) {
            Err(Errno::OPNOTSUPP) => return Ok(()),
            len => len?,
        };
        let mut value = vec![0u8; XATTRS_AT_MOST];
        for name in names.get(..len).unwrap_or_default().split(|&byte| byte == 0) {
            if name.is_empty() {
                continue;
            }
            let len = rustix::fs::fgetxattr(&from, name, &mut value[..])?;
            let value = value.get(..len).unwrap_or_default();
            rustix::fs::fsetxattr(to, name, value, XattrFlags::empty())?;
        }
        Ok(())
    }

    pub(super) fn rename(&self, from: &str) -> Result<()> {
        rustix::fs::renameat(&self.parent, from, &self.parent, &*self.name)
            .map_err(|e| Failure::errno(format!("cannot put the new {} in its place", self.path), &e.into()))
    }
}

/// Bytes on the disk that a file holds.
pub(super) fn held(file: &Stat) -> u64 {
    u64::try_from(file.st_blocks).unwrap_or(0).saturating_mul(512)
}

/// Writes the pieces, which must be `size` bytes together.
pub(super) fn fill(file: &mut File, path: &str, size: u64, pieces: &mut dyn Pieces) -> Result<()> {
    let mut len: u64 = 0;
    while let Some(piece) = pieces.next().map_err(|e| Failure::errno("cannot receive the content", &e))? {
        len = len.saturating_add(piece.len() as u64);
        if len > size {
            break;
        }
        file.write_all(piece).map_err(|e| Failure::errno(format!("cannot write {path}"), &e))?;
    }
    if len == size {
        return windows::all_is_valid(&*file)
            .map_err(|e| Failure::errno(format!("cannot set the time of {path}"), &e.into()));
    }
    Err(Failure::new(Cause::Refused, format!("{path} was announced with {size} bytes; there came {len}")))
}
