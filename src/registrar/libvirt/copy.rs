//! A disk's file copied into a storage folder: holes stay holes, the name is given last, nothing is overwritten, neither a file
//! that is there nor what another run writes at the same time.

use super::super::Surroundings;
use crate::event::Event;
use landfall_image::convert::Progress;
use landfall_image::{Bytes, Error, Result};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// What the file takes on its file system, in bytes.
pub(super) fn allocated(path: &Path) -> Result<Bytes> {
    let meta = path.metadata().map_err(|e| Error::io("cannot read", e).in_file(path))?;
    Ok(Bytes((meta.blocks() * 512).min(meta.len())))
}

/// Copies `from` to `to`, which must not be there. What fails leaves nothing; a run that is killed leaves a file of its own,
/// which ends in `.landfall-partial`.
pub(super) fn copy(from: &Path, to: &Path, around: &Surroundings<'_>) -> Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    // A name that no other run has. Removed when it is dropped; what the user's mask leaves of its permissions, it keeps.
    let partial = tempfile::Builder::new()
        .prefix(".")
        .suffix(".landfall-partial")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(|e| Error::io("cannot make a file in", e).in_file(folder))?;
    let progress = Progress::default();
    let disk = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    around.observer.event(Event::CopyStarted { disk, progress: progress.clone() });
    let copied = data(from, partial.as_file(), to, &progress, around);
    around.observer.event(Event::CopyFinished);
    copied?;
    match partial.persist_noclobber(to) {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::io("cannot give it its name", e.error).in_file(to)),
    }
}

/// Writes the content of `from` into `target`, which will be `to`.
fn data(from: &Path, target: &File, to: &Path, progress: &Progress, around: &Surroundings<'_>) -> Result<()> {
    let cannot_read = |e: std::io::Error| Error::io("cannot read", e).in_file(from);
    let cannot_write = |e: std::io::Error| Error::io("cannot write", e).in_file(to);
    let source = File::open(from).map_err(cannot_read)?;
    let len = source.metadata().map_err(cannot_read)?.len();
    progress.start(allocated(from)?);
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
            around.pause(Bytes(want as u64))?;
            source.read_exact_at(&mut buffer[..want], at).map_err(cannot_read)?;
            target.write_all_at(&buffer[..want], at).map_err(cannot_write)?;
            progress.advance(Bytes(want as u64));
            at += want as u64;
        }
    }
    target.sync_all().map_err(cannot_write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Observer, Silent};
    use landfall_image::convert::{Cancel, RateLimit};
    use std::fs;
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn holes_stay_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let file = File::create(path("a")).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"one", 5 << 20).unwrap();
        file.write_all_at(b"two", (60 << 20) + 7).unwrap();
        let cancel = Cancel::default();
        let around =
            Surroundings { cancel: &cancel, scratch: folder.path(), rate_limit: None, observer: &Silent };
        // What has the name that a partial file could have is somebody else's.
        fs::write(path("b.landfall-partial"), "precious").unwrap();
        copy(&path("a"), &path("b"), &around).unwrap();
        assert!(fs::read(path("a")).unwrap() == fs::read(path("b")).unwrap());
        assert!(allocated(&path("b")).unwrap() < Bytes::mib(8));
        let mode = |name: &str| path(name).metadata().unwrap().mode();
        assert_eq!(mode("b"), mode("a"), "the daemon's user reads it as it reads what convert wrote");
        fs::write(path("c"), "precious").unwrap();
        assert!(copy(&path("a"), &path("c"), &around).is_err());
        for name in ["c", "b.landfall-partial"] {
            assert_eq!(fs::read(path(name)).unwrap(), b"precious");
        }
        cancel.cancel();
        assert!(copy(&path("a"), &path("d"), &around).is_err());
        assert_eq!(names(folder.path()), ["a", "b", "b.landfall-partial", "c"]);
    }

    /// Tells when the first of the data is written.
    #[derive(Default)]
    struct Watch(Mutex<Option<Progress>>);

    impl Observer for Watch {
        fn event(&self, event: Event) {
            if let Event::CopyStarted { progress, .. } = event {
                *self.0.lock().unwrap() = Some(progress);
            }
        }
    }

    #[test]
    fn of_two_runs_at_once_one_wins_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("slow"), vec![1; 4 << 20]).unwrap();
        fs::write(path("swift"), vec![2; 4 << 20]).unwrap();
        let (cancel, watch, limit) = (Cancel::default(), Watch::default(), RateLimit::new(Bytes::mib(4)));
        let around = |rate_limit, observer| Surroundings {
            cancel: &cancel,
            scratch: folder.path(),
            rate_limit,
            observer,
        };
        let slow = std::thread::scope(|scope| {
            let slow = scope.spawn(|| copy(&path("slow"), &path("disk"), &around(Some(&limit), &watch)));
            let has_begun = || watch.0.lock().unwrap().as_ref().is_some_and(|now| now.snapshot().read.0 > 0);
            while !has_begun() && !slow.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
            }
            copy(&path("swift"), &path("disk"), &around(None, &Silent)).unwrap();
            slow.join().unwrap()
        });
        let error = slow.unwrap_err();
        assert!(error.to_string().contains("cannot give it its name"), "{error}");
        assert!(fs::read(path("disk")).unwrap() == fs::read(path("swift")).unwrap());
        assert_eq!(names(folder.path()), ["disk", "slow", "swift"]);
    }

    #[test]
    fn no_more_is_read_at_once_than_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), vec![7; 4 << 20]).unwrap();
        let limit = RateLimit::new(Bytes::mib(10));
        let around = Surroundings {
            cancel: &Cancel::default(),
            scratch: folder.path(),
            rate_limit: Some(&limit),
            observer: &Silent,
        };
        let began = Instant::now();
        copy(&path("a"), &path("b"), &around).unwrap();
        // The first of four reads does not wait.
        assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    }
}
