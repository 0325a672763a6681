//! What is particular to the file systems of Windows.
//!
//! **Names.** vfat finds a file by any case of its name. ntfs3 does not: its option `nocase` finds only what was looked up by
//! the right case before (6.12: `ntfs_read_mft` compares the name once more, with case), and asking it for a short name
//! (`PROGRA~1`) makes it mark the volume dirty. So it is asked for names that stand in a listing of their folder only, or
//! that cannot be short ones, and other cases are found by listings, by the volume's own $UpCase. Short names of NTFS are
//! unknown here. What is renamed or removed on either file system is named as it is stored, so that it keeps its case.
//!
//! **Files on NTFS** are more than their content: rights, attributes, a short name, the time of creation, an object id, other
//! streams. A file with one name only is therefore written over: all of that stays. What has several names is a hard link
//! of the component store (WinSxS) nearly always, whose file must not change: such a file is written beside and put in the
//! place of that one name, with the rights and attributes of the old one. So are files that are compressed, sparse or a
//! reparse point (WOF): the new one is a plain file, or compressed where its folder says so. Short name and other streams
//! go in these cases. A new file or folder gets the security id of its folder from ntfs3, which is to say its rights. Owner
//! and mode that ntfs3 notes down for Linux ($LXUID and others, as WSL does) are taken away again.
//!
//! Sources: the kernel's `fs/ntfs3/namei.c`, `dir.c`, `inode.c`, `xattr.c` (6.12); [MS-FSCC] 2.6 (attributes).

use crate::sandbox::protocol::{Cause, Failure};
use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

const NTFS3_MAGIC: i128 = 0x7366_746e;
const MSDOS_MAGIC: i128 = 0x4d44;

/// Names in extended attributes, of which ntfs3 lists the last ones only.
const SECURITY: &str = "system.ntfs_security";
const ATTRIBUTES: &str = "system.ntfs_attrib";
const OF_LINUX: [&str; 4] = ["$LXUID", "$LXGID", "$LXMOD", "$LXDEV"];

const SPARSE: u32 = 0x200;
const REPARSE: u32 = 0x400;
const COMPRESSED: u32 = 0x800;
const ENCRYPTED: u32 = 0x4000;

/// A security descriptor: one access control list has 64 KiB at most, and there are two.
const SECURITY_AT_MOST: usize = 192 << 10;

/// Bytes of names that are remembered, of all folders: the machine has 256 MiB in all, and a name may take four times what
/// it counts as. WinSxS has 4 MiB of them.
const NAMES_AT_MOST: usize = 16 << 20;

/// What each name counts as besides its bytes.
const NAME_OVERHEAD: usize = 64;

/// $UpCase has a unit for each unit of UTF-16.
const UPCASE_BYTES: usize = 2 << 16;

/// Names of a folder by their folded form.
type Folder = HashMap<Vec<u16>, Vec<String>>;

/// What is remembered until something is changed.
#[derive(Default)]
struct Known {
    /// By device and inode.
    folders: HashMap<(u64, u64), Rc<Folder>>,
    /// Bytes of their names.
    names: usize,
    /// $UpCase of each NTFS volume, by device.
    upcase: HashMap<u64, Rc<Vec<u16>>>,
}

// The agent has one thread.
thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

fn magic(fd: impl AsFd) -> i128 {
    rustix::fs::fstatfs(fd).map_or(0, |fs| i128::from(fs.f_type))
}

pub(super) fn is_ntfs(fd: impl AsFd) -> bool {
    magic(fd) == NTFS3_MAGIC
}

pub(super) fn ignores_case(fd: impl AsFd) -> bool {
    matches!(magic(fd), NTFS3_MAGIC | MSDOS_MAGIC)
}

/// True where ntfs3 may be asked for the path as it is.
pub(super) fn may_be_asked(path: &str) -> bool {
    !path.contains('~')
}

/// Reads the table by which the NTFS volume mounted at `point` ignores case. Without one, Unicode's rules are used.
pub(super) fn learn(point: &Path) {
    let mut table = Vec::new();
    let read = std::fs::File::open(point.join("$UpCase"))
        .and_then(|file| file.take(UPCASE_BYTES as u64 + 1).read_to_end(&mut table));
    if read.is_err() {
        return;
    }
    let Ok(stat) = rustix::fs::stat(point) else { return };
    if table.len() == UPCASE_BYTES {
        let units = table.chunks_exact(2).map(|unit| unit.try_into().map_or(0, u16::from_le_bytes)).collect();
        KNOWN.with_borrow_mut(|known| known.upcase.insert(stat.st_dev, Rc::new(units)));
    }
}

/// Forgets all listings: something has changed.
pub(super) fn forget() {
    KNOWN.with_borrow_mut(|known| {
        known.folders.clear();
        known.names = 0;
    });
}

/// The name in a folder that `asked` means, as it is stored. `None` where there is none; an error where several differ in case
/// only, and none is `asked`.
pub(super) fn stored_name(parent: &OwnedFd, asked: &str) -> rustix::io::Result<Option<String>> {
    let stat = rustix::fs::fstat(parent)?;
    let upcase = KNOWN.with_borrow(|known| known.upcase.get(&stat.st_dev).cloned());
    let key = (stat.st_dev, stat.st_ino);
    let folder = match KNOWN.with_borrow(|known| known.folders.get(&key).cloned()) {
        Some(folder) => folder,
        None => {
            let (folder, len) = listing(parent, upcase.as_deref().map(Vec::as_slice), NAMES_AT_MOST)?;
            let folder = Rc::new(folder);
            KNOWN.with_borrow_mut(|known| {
                if known.names + len > NAMES_AT_MOST {
                    known.folders.clear();
                    known.names = 0;
                }
                known.names += len;
                known.folders.insert(key, Rc::clone(&folder));
            });
            folder
        }
    };
    let Some(names) = folder.get(&folded(asked, upcase.as_deref().map(Vec::as_slice))) else {
        return Ok(None);
    };
    match names.as_slice() {
        names if names.iter().any(|name| name == asked) => Ok(Some(asked.to_owned())),
        [only] => Ok(Some(only.clone())),
        _ => Err(Errno::NOTUNIQ),
    }
}

/// The names in a folder, and the bytes that they count as, `at_most` so many.
fn listing(parent: &OwnedFd, upcase: Option<&[u16]>, at_most: usize) -> rustix::io::Result<(Folder, usize)> {
    let path = format!("/proc/self/fd/{}", parent.as_raw_fd());
    let open = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut folder = Folder::new();
    let mut len: usize = 0;
    for entry in rustix::fs::Dir::read_from(&open)? {
        if let Ok(name) = entry?.file_name().to_str() {
            len = len.saturating_add(name.len()).saturating_add(NAME_OVERHEAD);
            if len > at_most {
                return Err(Errno::OVERFLOW);
            }
            folder.entry(folded(name, upcase)).or_default().push(name.to_owned());
        }
    }
    Ok((folder, len))
}

fn folded(name: &str, upcase: Option<&[u16]>) -> Vec<u16> {
    match upcase {
        Some(table) => {
            name.encode_utf16().map(|unit| table.get(usize::from(unit)).copied().unwrap_or(unit)).collect()
        }
        None => name.chars().flat_map(char::to_uppercase).collect::<String>().encode_utf16().collect(),
    }
}

/// True for a file on NTFS that is to stay the file that it is.
pub(super) fn is_kept(parent: &OwnedFd, name: &str, path: &str) -> Result<bool, Failure> {
    if !is_ntfs(parent) {
        return Ok(false);
    }
    let failed = |e: Errno| Failure::errno(format!("cannot read the attributes of {path}"), &e.into());
    let attributes = attributes(&open(parent, name).map_err(failed)?).map_err(failed)?;
    if attributes & ENCRYPTED != 0 {
        return Err(Failure::new(
            Cause::Unsupported,
            format!("{path} is encrypted by Windows (EFS), whose keys are not here"),
        ));
    }
    Ok(attributes & (SPARSE | REPARSE | COMPRESSED) == 0)
}

/// Takes away what ntfs3 notes down for Linux on a new file or folder.
pub(super) fn forget_owner(new: impl AsFd + Copy) -> rustix::io::Result<()> {
    for name in OF_LINUX {
        match rustix::fs::fremovexattr(new, name) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Makes ntfs3 note down how much of a file that was just written holds data: it does so only where a time or the size has
/// changed since it wrote the file's record last. Where it did that of its own accord in the middle of the last piece, the rest
/// would be zeros for whoever mounts the volume next (6.12: `ni_write_inode`, `ni_update_parent`).
pub(super) fn all_is_valid(written: impl AsFd + Copy) -> rustix::io::Result<()> {
    if !is_ntfs(written) {
        return Ok(());
    }
    let now = rustix::fs::fstat(written)?;
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: a_tick_later(now.st_mtime, now.st_mtime_nsec),
    };
    rustix::fs::futimens(written, &times)
}

/// NTFS counts in 100 ns.
fn a_tick_later(seconds: i64, nanos: impl TryInto<i64>) -> rustix::fs::Timespec {
    const TICK: i64 = 100;
    const SECOND: i64 = 1_000_000_000;
    let nanos = nanos.try_into().unwrap_or(0).saturating_add(TICK);
    rustix::fs::Timespec { tv_sec: seconds.saturating_add(nanos / SECOND), tv_nsec: nanos % SECOND }
}

/// Gives the new file rights and attributes of the one that it is to replace.
pub(super) fn copy_attributes(parent: &OwnedFd, name: &str, to: impl AsFd + Copy) -> rustix::io::Result<()> {
    let from = open(parent, name)?;
    let mut rights = vec![0; SECURITY_AT_MOST];
    match rustix::fs::fgetxattr(&from, SECURITY, &mut rights[..]) {
        Ok(len) => {
            let rights = rights.get(..len).unwrap_or_default();
            rustix::fs::fsetxattr(to, SECURITY, rights, XattrFlags::empty())?;
        }
        // A file of an old NTFS without an id: the folder's rights stand.
        Err(Errno::NOENT | Errno::NODATA) => {}
        Err(e) => return Err(e),
    }
    // How its content is stored is its own: changing that on a file that is open crashes ntfs3 (6.12).
    let own = attributes(to)? & (SPARSE | COMPRESSED);
    let kept = own | attributes(&from)? & !(SPARSE | REPARSE | COMPRESSED | ENCRYPTED);
    rustix::fs::fsetxattr(to, ATTRIBUTES, &kept.to_ne_bytes(), XattrFlags::empty())
}

fn open(parent: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// FILE_ATTRIBUTE_… of an open file.
fn attributes(file: impl AsFd) -> rustix::io::Result<u32> {
    let mut raw = [0; 4];
    match rustix::fs::fgetxattr(file, ATTRIBUTES, &mut raw[..])? {
        4 => Ok(u32::from_ne_bytes(raw)),
        _ => Err(Errno::IO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_later_is_another_time_of_ntfs() {
        let later = |seconds, nanos: i64| {
            let time = a_tick_later(seconds, nanos);
            (time.tv_sec, time.tv_nsec)
        };
        assert_eq!(later(5, 0), (5, 100));
        assert_eq!(later(5, 999_999_950), (6, 50));
    }

    #[test]
    fn names_fold_by_the_volumes_table() {
        let mut table: Vec<u16> = (0..=u16::MAX).collect();
        table[usize::from(b'a')] = u16::from(b'A');
        table[0xe4] = 0xc4;
        assert_eq!(folded("aäz", Some(&table)), folded("AÄz", Some(&table)));
        assert_ne!(folded("z", Some(&table)), folded("Z", Some(&table)), "the table does not say so");
        assert_eq!(folded("жук", None), folded("ЖУК", None));
        assert_eq!(folded("\u{1f600}", Some(&table)).len(), 2);
    }

    #[test]
    fn listings_tell_the_stored_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["System32", "both", "BOTH"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let folder = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let stored = |asked| stored_name(&folder, asked);
        assert_eq!(stored("SYSTEM32").unwrap().as_deref(), Some("System32"));
        assert_eq!(stored("both").unwrap().as_deref(), Some("both"));
        assert_eq!(stored("Both"), Err(Errno::NOTUNIQ));
        assert_eq!(stored("new").unwrap(), None);
        std::fs::write(dir.path().join("New"), "").unwrap();
        assert_eq!(stored("new").unwrap(), None, "it is remembered");
        forget();
        assert_eq!(stored("new").unwrap().as_deref(), Some("New"));
        let len = |at_most| listing(&folder, None, at_most).map(|(_, len)| len);
        let all = len(usize::MAX).unwrap();
        assert_eq!((len(all), len(all - 1)), (Ok(all), Err(Errno::OVERFLOW)));
        // Names that differ in case only are many, too.
        std::fs::write(dir.path().join("bOTH"), "").unwrap();
        assert_eq!(len(all), Err(Errno::OVERFLOW));
    }
}
