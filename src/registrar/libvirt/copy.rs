//! A disk's file copied into a storage folder: holes stay holes, the name is given last, nothing is overwritten.

use super::super::Surroundings;
use crate::event::Event;
use landfall_image::convert::Progress;
use landfall_image::{Bytes, Error, Result};
use rustix::fs::{CWD, RenameFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What the file takes on its file system, in bytes.
pub(super) fn allocated(path: &Path) -> Result<Bytes> {
    let meta = path.metadata().map_err(|e| Error::io("cannot read", e).in_file(path))?;
    Ok(Bytes((meta.blocks() * 512).min(meta.len())))
}

/// Copies `from` to `to`, which must not be there. What fails leaves nothing.
pub(super) fn copy(from: &Path, to: &Path, around: &Surroundings<'_>) -> Result<()> {
    let mut partial = to.as_os_str().to_owned();
    partial.push(".landfall-partial");
    let partial = PathBuf::from(partial);
    let progress = Progress::default();
    let disk = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    around.observer.event(Event::CopyStarted { disk, progress: progress.clone() });
    let copied = data(from, &partial, &progress, around);
    around.observer.event(Event::CopyFinished);
    let named = copied.and_then(|()| {
        let cannot = |e: Errno| Error::io("cannot give it its name", e.into()).in_file(to);
        match rustix::fs::renameat_with(CWD, &partial, CWD, to, RenameFlags::NOREPLACE) {
            // A file system that cannot do this at once. A link never replaces a file.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::link(&partial, to).and_then(|()| rustix::fs::unlink(&partial)).map_err(cannot)
            }
            other => other.map_err(cannot),
        }
    });
    if named.is_err() {
        // It may never have been made.
        let _ = fs::remove_file(&partial);
    }
    named
}

fn data(from: &Path, to: &Path, progress: &Progress, around: &Surroundings<'_>) -> Result<()> {
    let cannot_read = |e: std::io::Error| Error::io("cannot read", e).in_file(from);
    let cannot_write = |e: std::io::Error| Error::io("cannot write", e).in_file(to);
    let source = File::open(from).map_err(cannot_read)?;
    let len = source.metadata().map_err(cannot_read)?.len();
    progress.start(allocated(from)?);
    // What a killed run left has no other name than this one.
    let target = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags_nofollow()
        .open(to)
        .map_err(cannot_write)?;
    target.set_len(len).map_err(cannot_write)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let start = match rustix::fs::seek(&source, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => at,
            Err(e) => return Err(cannot_read(e.into())),
        };
        let end = rustix::fs::seek(&source, SeekFrom::Hole(start)).unwrap_or(len).min(len);
        at = start;
        while at < end {
            if around.cancel.is_cancelled() {
                return Err(Error::interrupted());
            }
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            source.read_exact_at(&mut buffer[..want], at).map_err(cannot_read)?;
            target.write_all_at(&buffer[..want], at).map_err(cannot_write)?;
            progress.advance(Bytes(want as u64));
            at += want as u64;
        }
    }
    target.sync_all().map_err(cannot_write)
}

trait NoFollow {
    fn custom_flags_nofollow(&mut self) -> &mut Self;
}

impl NoFollow for fs::OpenOptions {
    /// What lies behind a link is none of ours to write.
    fn custom_flags_nofollow(&mut self) -> &mut Self {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NOFOLLOW.bits();
        self.custom_flags(i32::try_from(flags).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Silent;
    use landfall_image::convert::Cancel;

    #[test]
    fn holes_stay_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let file = File::create(path("a")).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"one", 5 << 20).unwrap();
        file.write_all_at(b"two", (60 << 20) + 7).unwrap();
        let cancel = Cancel::default();
        let around = Surroundings { cancel: &cancel, scratch: folder.path(), observer: &Silent };
        copy(&path("a"), &path("b"), &around).unwrap();
        assert!(fs::read(path("a")).unwrap() == fs::read(path("b")).unwrap());
        assert!(allocated(&path("b")).unwrap() < Bytes::mib(8));
        fs::write(path("c"), "precious").unwrap();
        assert!(copy(&path("a"), &path("c"), &around).is_err());
        assert_eq!(fs::read(path("c")).unwrap(), b"precious");
        cancel.cancel();
        assert!(copy(&path("a"), &path("d"), &around).is_err());
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
    }
}
