//! A file that has its name only when it is complete.

use crate::create::{CreateOptions, FileOptions};
use crate::error::{Error, Result};
use crate::units::{Bytes, FileOffset};
use rustix::fs::{FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is written with one call. The kernel caches a longer write in larger pieces of memory (large folios), which it
/// has to look for, and which the host of a virtual machine may have taken back: 1.5 GiB took 0.8 to 1.4 s in calls of
/// 1 MiB, 0.44 s in calls of 32 to 256 KiB.
const AT_ONCE: usize = 128 << 10;

/// Writes of this length and more go to the device early.
const WRITE_OUT: usize = 256 << 10;

/// Before a write of this length and more its space is asked for, on ext4: that places each block by itself while a write
/// goes into the cache, which is a third of the kernel's time, and finds in one step that all of them lie in space that is
/// there. Nothing is reserved that is not written at once, so the file has no more space than without it.
const RESERVE_FROM: usize = 256 << 10;

/// A file on its way to its final name, for every sink that writes files.
///
/// It grows as `.NAME.landfall-partial` beside its target, locked against a second run, and takes its name in
/// [`commit`](Self::commit) alone. Dropped before that, it is removed, unless it is to be [left](Self::leave). What a
/// killed run left is removed by the next one, unless that continues it.
#[derive(Debug)]
pub struct PartialFile {
    file: Arc<File>,
    partial: PathBuf,
    target: PathBuf,
    options: FileOptions,
    /// Stays when it is dropped.
    stays: AtomicBool,
    /// Asks for the space of a longer write before it, see [`RESERVE_FROM`].
    reserves: AtomicBool,
    /// The file that this one is a part of, and where in it.
    within: Option<Within>,
}

/// A place in a file under way, from which on another file is written into it: a disk in an archive. Only the last
/// part of the outer file can be one, since its length is not known before.
#[derive(Clone, Debug)]
pub struct Within {
    file: Arc<File>,
    at: FileOffset,
}

impl PartialFile {
    /// Starts the file that will be `target`. An existing target is refused
    /// ([`Kind::Refused`](crate::Kind::Refused)) unless `options` allow its replacement, and in any case where
    /// it is no regular file. Refused, too, while another run is writing the same target.
    ///
    /// Where `options` ask for it, what an interrupted run left is opened with its content.
    pub fn create(target: &Path, options: FileOptions) -> Result<PartialFile> {
        let Some(name) = target.file_name() else {
            return Err(Error::refused("names no file to write").in_file(target));
        };
        refuse_existing(target, options.replace)?;
        let mut partial_name = OsString::from(".");
        partial_name.push(name);
        partial_name.push(".landfall-partial");
        let partial = target.with_file_name(partial_name);
        let file = Arc::new(create_locked(&partial, target, options.resume)?);
        let stays = AtomicBool::new(false);
        let reserves = AtomicBool::new(is_ext4(&file));
        Ok(PartialFile { file, partial, target: target.to_owned(), options, stays, reserves, within: None })
    }

    /// Starts the file that will be `target`, or where the options say so, a part of another file, which is called
    /// `target` in errors. Such a part has no name of its own to take or to be left under.
    pub fn begin(target: &Path, options: &CreateOptions) -> Result<PartialFile> {
        let Some(within) = &options.within else { return PartialFile::create(target, options.files) };
        Ok(PartialFile {
            file: within.file.clone(),
            partial: PathBuf::new(),
            target: target.to_owned(),
            options: FileOptions { sync: false, ..options.files },
            stays: AtomicBool::new(true),
            reserves: AtomicBool::new(is_ext4(&within.file)),
            within: Some(within.clone()),
        })
    }

    /// The part of this file from `at` on, for [`CreateOptions::within`].
    pub fn within(&self, at: FileOffset) -> Within {
        Within { file: self.file.clone(), at }
    }

    /// Where it begins in [`file`](Self::file).
    pub fn start(&self) -> FileOffset {
        self.within.as_ref().map_or(FileOffset(0), |within| within.at)
    }

    fn place(&self, at: FileOffset) -> Result<u64> {
        let past = || Error::refused("would pass 2^64 bytes").in_file(&self.target).at(at);
        self.start().0.checked_add(at.0).ok_or_else(past)
    }

    /// The open file, readable and writable. Add [`start`](Self::start) to every offset.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Its final name.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Writes all of `data` at `at`; from any thread.
    pub fn write_all_at(&self, at: FileOffset, data: &[u8]) -> Result<()> {
        let place = self.place(at)?;
        if data.len() >= RESERVE_FROM && self.reserves.load(Ordering::Relaxed) {
            // Whatever fails here, fails again in the write and is told there.
            let flags = rustix::fs::FallocateFlags::empty();
            if rustix::fs::fallocate(&self.file, flags, place, data.len() as u64).is_err() {
                self.reserves.store(false, Ordering::Relaxed);
            }
        }
        let mut here = place;
        for piece in data.chunks(AT_ONCE) {
            self.file.write_all_at(piece, here).map_err(|e| self.failed("cannot write", e).at(at))?;
            here += piece.len() as u64;
        }
        if self.options.sync
            && let Some(len) = std::num::NonZeroU64::new(data.len() as u64)
            && data.len() >= WRITE_OUT
        {
            // Lets the kernel begin to write it out now, while more is read and compressed; otherwise all of it waits
            // for the sync in `commit`. What is not written out yet stays in the cache. Only a hint.
            let _ = rustix::fs::fadvise(&self.file, place, Some(len), rustix::fs::Advice::DontNeed);
        }
        Ok(())
    }

    /// Fills `buf` from `at`, which was written before.
    pub fn read_exact_at(&self, at: FileOffset, buf: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buf, self.place(at)?).map_err(|e| self.failed("cannot read back", e).at(at))
    }

    /// Makes the file `len` long; what is new reads as zeros and takes no space.
    pub fn set_len(&self, len: Bytes) -> Result<()> {
        let end = self.place(FileOffset(len.0))?;
        self.file.set_len(end).map_err(|e| self.failed(&format!("cannot make it {} bytes long", len.0), e))
    }

    /// Reserves room for all of it, which reads as zeros.
    pub fn reserve(&self, len: Bytes) -> Result<()> {
        if len.0 == 0 {
            return Ok(());
        }
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&self.file, flags, self.start().0, len.0)
            .map_err(|e| self.failed(&format!("cannot reserve {} bytes", len.0), e.into()))
    }

    /// Bytes that the file system holds for it now.
    fn allocated(&self) -> Result<Bytes> {
        let meta = self.file.metadata().map_err(|e| self.failed("cannot examine", e))?;
        Ok(Bytes(meta.blocks() * 512))
    }

    /// Lets it stay under its partial name when it is dropped.
    pub fn leave(&self) {
        self.stays.store(true, Ordering::Relaxed);
    }

    /// Gives it its final name. Where the options ask for it, syncs it to stable storage before and its folder after
    /// that. Returns the name and the bytes that the file system holds for the file.
    ///
    /// A part of another file is only done with it.
    pub fn commit(self) -> Result<(PathBuf, Bytes)> {
        if self.within.is_some() {
            let meta = self.file.metadata().map_err(|e| self.failed("cannot examine", e))?;
            return Ok((self.target.clone(), Bytes(meta.len().saturating_sub(self.start().0))));
        }
        if self.options.sync {
            self.file.sync_all().map_err(|e| self.failed("cannot write out", e))?;
        }
        let allocated = self.allocated()?;
        refuse_existing(&self.target, self.options.replace)?;
        let cwd = rustix::fs::CWD;
        let mut renamed = if self.options.replace {
            rustix::fs::rename(&self.partial, &self.target)
        } else {
            rustix::fs::renameat_with(cwd, &self.partial, cwd, &self.target, RenameFlags::NOREPLACE)
        };
        if matches!(renamed, Err(Errno::INVAL | Errno::NOSYS)) {
            // A file system without NOREPLACE (NFS): the check above has to do.
            renamed = rustix::fs::rename(&self.partial, &self.target);
        }
        match renamed {
            Ok(()) => self.leave(),
            Err(Errno::EXIST) => return Err(exists(&self.target)),
            Err(e) => return Err(self.failed("cannot rename to its final name", e.into())),
        }
        if !self.options.sync {
            return Ok((self.target.clone(), allocated));
        }
        let folder = folder_of(&self.target);
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        match synced {
            // Some network file systems cannot sync a folder; the rename is done all the same.
            Err(e) if e.raw_os_error() != Some(Errno::INVAL.raw_os_error()) => {
                Err(Error::io("cannot write out the folder", e).in_file(folder))
            }
            _ => Ok((self.target.clone(), allocated)),
        }
    }

    fn failed(&self, doing: &str, error: io::Error) -> Error {
        let too_large = error.kind() == io::ErrorKind::FileTooLarge;
        let error = Error::io(doing, error).in_file(&self.target);
        if !too_large {
            return error;
        }
        error.hint("this file system has no files of that length; choose a kind that grows with its data (qcow2, vhdx, vmdk)")
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if self.within.is_some() {
            return; // the file is another's
        }
        if !*self.stays.get_mut() {
            // The lock is still held, so this is our own file. If it stays, the next run removes it.
            let _ = std::fs::remove_file(&self.partial);
        }
        // Closing is not enough where another thread forks at this moment: the child holds the lock until it executes.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

/// Its magic number is that of ext2 and ext3, too, which answer that they cannot reserve.
fn is_ext4(file: &File) -> bool {
    const EXT4_SUPER_MAGIC: u64 = 0xef53;
    rustix::fs::fstatfs(file).is_ok_and(|about| u64::try_from(about.f_type).ok() == Some(EXT4_SUPER_MAGIC))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn exists(target: &Path) -> Error {
    Error::refused("exists already").in_file(target).hint("choose another name, or remove it if it may go")
}

fn refuse_existing(target: &Path, replace: bool) -> Result<()> {
    match std::fs::symlink_metadata(target) {
        Ok(meta) if !meta.is_file() => {
            Err(Error::refused("exists and is not a regular file; it is not replaced").in_file(target))
        }
        Ok(_) if !replace => Err(exists(target)),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("cannot examine", e).in_file(target)),
    }
}

/// Creates `partial` and locks it; removes what a killed run left under that name, or takes it over.
fn create_locked(partial: &Path, target: &Path, take_over: bool) -> Result<File> {
    let cannot = |e: Errno| {
        let error = Error::io("cannot create", e.into()).in_file(target);
        if e == Errno::NOENT { error.hint("create its folder first") } else { error }
    };
    let busy = || {
        Error::refused("is being written by another run")
            .in_file(target)
            .hint("wait for it to end, or stop it")
    };
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let lock = |file: &File| rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
    let is_named = |file: &File| -> Result<bool> {
        let named = match std::fs::symlink_metadata(partial) {
            Ok(named) => named,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::io("cannot examine", e).in_file(partial)),
        };
        let own = file.metadata().map_err(|e| Error::io("cannot examine", e).in_file(partial))?;
        Ok(named.dev() == own.dev() && named.ino() == own.ino())
    };
    // Two runs that start at once may each remove the other's file before it is locked; one of them wins soon.
    for _ in 0..16 {
        match rustix::fs::open(partial, flags | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o666)) {
            Ok(fd) => {
                let file = File::from(fd);
                match lock(&file) {
                    Ok(()) if is_named(&file)? => return Ok(file),
                    Ok(()) | Err(Errno::WOULDBLOCK) => {}
                    // A file system without locks: the exclusive creation has to do.
                    Err(_) => return Ok(file),
                }
            }
            Err(Errno::EXIST) => {
                if !std::fs::symlink_metadata(partial).is_ok_and(|meta| meta.is_file()) {
                    continue; // gone again, or refused below
                }
                let stale = match rustix::fs::open(partial, flags, Mode::empty()) {
                    Ok(fd) => File::from(fd),
                    Err(Errno::NOENT) => continue,
                    Err(e) => return Err(cannot(e)),
                };
                match lock(&stale) {
                    Err(Errno::WOULDBLOCK) => return Err(busy()),
                    _ if !is_named(&stale)? => {}
                    _ if take_over => return Ok(stale),
                    _ => {
                        std::fs::remove_file(partial)
                            .map_err(|e| Error::io("cannot remove", e).in_file(partial))?;
                    }
                }
            }
            Err(e) => return Err(cannot(e)),
        }
    }
    if std::fs::symlink_metadata(partial).is_ok_and(|meta| !meta.is_file()) {
        return Err(Error::refused("is in the way and is not a regular file").in_file(partial));
    }
    Err(busy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    const NEW: FileOptions = FileOptions { replace: false, resume: false, sync: true };
    const REPLACE: FileOptions = FileOptions { replace: true, ..NEW };

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_name_comes_with_commit_alone() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.img");
        let file = PartialFile::create(&target, NEW).unwrap();
        file.write_all_at(FileOffset(3), b"x").unwrap();
        assert_eq!(names(dir.path()), [".a.img.landfall-partial"]);
        drop(file);
        assert!(names(dir.path()).is_empty());
        let file = PartialFile::create(&target, NEW).unwrap();
        file.write_all_at(FileOffset(3), b"x").unwrap();
        assert_eq!(file.commit().unwrap().0, target);
        assert_eq!(names(dir.path()), ["a.img"]);
        assert_eq!(std::fs::read(&target).unwrap(), b"\0\0\0x");
    }

    #[test]
    fn an_existing_target_stays_unless_it_may_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        std::fs::write(&target, "old").unwrap();
        assert_eq!(PartialFile::create(&target, NEW).unwrap_err().kind(), Kind::Refused);
        let file = PartialFile::create(&target, REPLACE).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        file.commit().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"");
        // One that appears while the file is written is not lost either.
        let late = dir.path().join("late");
        let file = PartialFile::create(&late, NEW).unwrap();
        std::fs::write(&late, "theirs").unwrap();
        assert_eq!(file.commit().unwrap_err().kind(), Kind::Refused);
        assert_eq!(std::fs::read(&late).unwrap(), b"theirs");
        assert_eq!(names(dir.path()), ["a", "late"]);
        let folder = dir.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(PartialFile::create(&folder, REPLACE).unwrap_err().kind(), Kind::Refused);
    }

    #[test]
    fn a_killed_run_is_cleared_away_and_a_living_one_respected() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        std::fs::write(dir.path().join(".a.landfall-partial"), "left by a killed run").unwrap();
        let first = PartialFile::create(&target, NEW).unwrap();
        assert_eq!(first.file().metadata().unwrap().len(), 0);
        let error = PartialFile::create(&target, NEW).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.says().contains("another run"), "{error}");
        first.commit().unwrap();
        assert_eq!(names(dir.path()), ["a"]);
        // A link in place of the partial file is not followed.
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(".b.landfall-partial")).unwrap();
        assert!(PartialFile::create(&dir.path().join("b"), NEW).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn of_many_that_start_at_once_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        std::fs::write(dir.path().join(".a.landfall-partial"), "left by a killed run").unwrap();
        let barrier = std::sync::Barrier::new(8);
        let won: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let file = PartialFile::create(&target, NEW);
                        barrier.wait();
                        usize::from(file.is_ok())
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(won, 1);
        assert!(names(dir.path()).is_empty());
    }

    /// ext4 ends at 16 TiB, most others elsewhere.
    #[test]
    fn a_length_beyond_the_file_system_comes_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = PartialFile::create(&dir.path().join("a"), NEW).unwrap();
        let Err(error) = file.set_len(Bytes(i64::MAX as u64)) else {
            eprintln!("SKIPPED: the file system of temporary files knows no bound");
            return;
        };
        assert!(error.hint_text().is_some_and(|hint| hint.contains("qcow2")), "{error:?}");
    }
}
