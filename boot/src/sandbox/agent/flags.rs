//! Files and folders that even root may not change (`chattr +i`, `+a`): the flag is lifted for one change and set again.

use rustix::fs::{AtFlags, FileType, IFlags, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// What keeps a file from being replaced, and a folder from getting or losing a name.
const LOCKS: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// A file or folder whose flags are lifted.
struct Lifted {
    file: OwnedFd,
    flags: IFlags,
}

impl Lifted {
    /// Lifts the flags of an open file. `None` where none is set, or where the file system knows none.
    fn lift(file: OwnedFd) -> rustix::io::Result<Option<Lifted>> {
        let flags = match rustix::fs::ioctl_getflags(&file) {
            Ok(flags) => flags,
            Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => return Ok(None),
            Err(e) => return Err(e),
        };
        if !flags.intersects(LOCKS) {
            return Ok(None);
        }
        rustix::fs::ioctl_setflags(&file, flags.difference(LOCKS))?;
        Ok(Some(Lifted { file, flags }))
    }
}

/// What was lifted for one change.
pub(super) struct Unlocked {
    folder: Option<Lifted>,
    file: Option<Lifted>,
}

impl Unlocked {
    /// Lifts the flags of the folder `parent` and of the file `name` in it.
    pub(super) fn lift(parent: &OwnedFd, name: &str) -> rustix::io::Result<Unlocked> {
        let folder = rustix::fs::open(
            format!("/proc/self/fd/{}", parent.as_raw_fd()),
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let folder = Lifted::lift(folder)?;
        match lift_file(parent, name) {
            Ok(file) => Ok(Unlocked { folder, file }),
            Err(e) => {
                // Nothing is changed: it is as it was.
                let _ = Unlocked { folder, file: None }.restore(None);
                Err(e)
            }
        }
    }

    /// True where something was lifted.
    pub(super) fn is_lifted(&self) -> bool {
        self.folder.is_some() || self.file.is_some()
    }

    /// Sets the flags again: the file's on the one that took its place, or on itself where none did.
    pub(super) fn restore(self, successor: Option<&std::fs::File>) -> rustix::io::Result<()> {
        let file = match (&self.file, successor) {
            (Some(old), Some(new)) => relock(new, old.flags),
            (Some(old), None) => rustix::fs::ioctl_setflags(&old.file, old.flags),
            (None, _) => Ok(()),
        };
        let folder = self.folder.map_or(Ok(()), |old| rustix::fs::ioctl_setflags(&old.file, old.flags));
        file.and(folder)
    }
}

fn relock(file: impl AsFd, flags: IFlags) -> rustix::io::Result<()> {
    let now = rustix::fs::ioctl_getflags(&file)?;
    rustix::fs::ioctl_setflags(&file, now.union(flags.intersection(LOCKS)))
}

/// Only regular files and folders: opening a device or a pipe would do something.
fn lift_file(parent: &OwnedFd, name: &str) -> rustix::io::Result<Option<Lifted>> {
    let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        stat => stat?,
    };
    if !matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory) {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Lifted::lift(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}
