//! A machine's output folder: it has a temporary name until all in it is complete and synced. A run that was killed leaves only
//! the temporary folder; the next run removes it.

use crate::hypervisor::Artifact;
use landfall_image::{Error, Result};
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the file that lists the digests of everything in the folder.
pub const MANIFEST: &str = "manifest.json";

pub use crate::report::REPORT;

/// The output folder while it has its temporary name. Dropped before it is complete, it is removed.
pub struct Folder {
    /// Where it is written.
    pub partial: PathBuf,
    /// Where it will be.
    pub final_name: PathBuf,
    /// The name of an earlier result while it is being replaced, where that takes two steps.
    old: PathBuf,
    /// Held as long as the folder is ours: a second run must not remove it.
    _lock: File,
    replace: bool,
    complete: bool,
}

impl Folder {
    /// Begins the folder `name` in `output`. `source` are the files that the machine is read from, by their real paths:
    /// a folder with one of them in it is never replaced.
    pub fn begin(output: &Path, name: &str, replace: bool, source: &[PathBuf]) -> Result<Folder> {
        check_name(name)?;
        let cannot = |doing: &'static str| move |e| Error::io(doing, e).in_file(output);
        fs::create_dir_all(output).map_err(cannot("cannot create the output folder"))?;
        let output = output.canonicalize().map_err(cannot("cannot resolve the output folder"))?;
        let final_name = output.join(name);
        let partial = output.join(format!(".{name}.landfall-partial"));
        let old = output.join(format!(".{name}.landfall-old"));
        check_free(&final_name, replace, source)?;
        let lock = lock(&partial)?.ok_or_else(|| {
            Error::refused("is being written by another landfall at this moment")
                .in_file(&final_name)
                .hint("wait for it to end, or stop it")
        })?;
        let folder = Folder { partial, final_name, old, _lock: lock, replace, complete: false };
        folder.clear(source)?;
        Ok(folder)
    }

    /// Puts in order what a killed run left.
    fn clear(&self, source: &[PathBuf]) -> Result<()> {
        let cannot = |e| Error::io("cannot read", e).in_file(&self.partial);
        for entry in fs::read_dir(&self.partial).map_err(cannot)? {
            remove(&entry.map_err(cannot)?.path())?;
        }
        if self.old.symlink_metadata().is_ok() && self.final_name.symlink_metadata().is_err() {
            fs::rename(&self.old, &self.final_name).map_err(|e| {
                Error::io("cannot bring the earlier result back", e).in_file(&self.final_name)
            })?;
            check_free(&self.final_name, self.replace, source)?;
        }
        Ok(())
    }

    /// Syncs it and gives it its final name, in place of an earlier result where that may be replaced.
    /// `source` as in [`begin`](Self::begin).
    pub fn complete(mut self, source: &[PathBuf]) -> Result<PathBuf> {
        sync(&self.partial)?;
        // Hours may have passed.
        check_free(&self.final_name, self.replace, source)?;
        let replaces = self.replace && self.final_name.symlink_metadata().is_ok();
        // Nobody else may take what is removed below for the leavings of a killed run.
        let _old_lock = if replaces { lock(&self.final_name)? } else { None };
        let cwd = rustix::fs::CWD;
        let how = if replaces { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        let cannot =
            |e: std::io::Error| Error::io("cannot give it its final name", e).in_file(&self.final_name);
        let gone = match rustix::fs::renameat_with(cwd, &self.partial, cwd, &self.final_name, how) {
            Ok(()) => &self.partial,
            // A file system that cannot do this at once.
            Err(Errno::INVAL | Errno::NOSYS) => {
                if replaces {
                    remove(&self.old)?;
                    fs::rename(&self.final_name, &self.old).map_err(cannot)?;
                }
                fs::rename(&self.partial, &self.final_name).map_err(cannot)?;
                &self.old
            }
            Err(e) => return Err(cannot(e.into())),
        };
        self.complete = true;
        if let Some(output) = self.final_name.parent() {
            sync(output)?;
        }
        if replaces && let Err(error) = remove(gone) {
            tracing::warn!("the earlier result is replaced, but not all of it is gone: {error}");
        }
        Ok(self.final_name.clone())
    }
}

/// A file of a result that changed after its report was written.
fn changed_since(folder: &Path) -> Result<Option<PathBuf>> {
    /// Clocks of file systems are coarse, and the report is written last but one.
    const TOLERANCE: Duration = Duration::from_secs(2);
    let cannot = |e| Error::io("cannot look at", e).in_file(folder);
    let written = fs::metadata(folder.join(REPORT)).and_then(|meta| meta.modified()).map_err(cannot)?;
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let meta = entry.metadata().map_err(cannot)?;
        let modified = meta.modified().map_err(cannot)?;
        if meta.is_file() && modified.duration_since(written).is_ok_and(|later| later > TOLERANCE) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Refuses a machine's folder of that name in `output` where [`Folder::begin`] would.
pub fn check(output: &Path, name: &str, replace: bool, source: &[PathBuf]) -> Result<()> {
    check_name(name)?;
    match output.canonicalize() {
        Ok(output) => check_free(&output.join(name), replace, source),
        // It is made when it is needed.
        Err(_) => Ok(()),
    }
}

/// Refuses a name that no folder can have.
pub fn check_name(name: &str) -> Result<()> {
    match super::is_folder_name(name) {
        true => Ok(()),
        false => Err(Error::unsupported(format!("no folder can have the machine's name {name:?}"))
            .hint("give it another name with --name")),
    }
}

/// Refuses what is at `final_name` already, unless it is an earlier result that may be replaced.
fn check_free(final_name: &Path, replace: bool, source: &[PathBuf]) -> Result<()> {
    let Ok(there) = final_name.symlink_metadata() else { return Ok(()) };
    let refused = |says: &str, hint: &str| Err(Error::refused(says).in_file(final_name).hint(hint));
    let real = final_name.canonicalize().unwrap_or_else(|_| final_name.to_owned());
    if source.iter().any(|file| file.starts_with(&real)) {
        return refused(
            "is the folder that the machine is read from",
            "choose another folder with -o, or another name with --name",
        );
    }
    let is_result = there.is_dir() && [MANIFEST, REPORT].iter().all(|name| final_name.join(name).is_file());
    match (is_result, replace) {
        (true, true) => {
            if let Some(at) = registered_at(final_name) {
                return refused(
                    &format!("holds a machine that was registered at {at}"),
                    "remove that machine there and move its folder away, or choose another folder with -o",
                );
            }
            match changed_since(final_name)? {
                Some(file) => Err(Error::refused(
                    "has changed since it was written: a machine may be running from it",
                )
                .in_file(&file)
                .hint("shut that machine down and move its folder away, or choose another folder with -o")),
                None => Ok(()),
            }
        }
        (true, false) => refused(
            "exists already",
            "choose another folder with -o, another name with --name, or replace it with --replace",
        ),
        (false, _) => refused(
            "exists already, and landfall did not write it: it is not replaced",
            "choose another folder with -o, or another name with --name",
        ),
    }
}

/// Makes the folder, or takes over what a killed run left, and locks it. `None` where another run holds it.
pub fn lock(partial: &Path) -> Result<Option<File>> {
    use rustix::fs::{FlockOperation, Mode, OFlags};
    use std::os::unix::fs::MetadataExt;
    let cannot = |e| Error::io("cannot create", e).in_file(partial);
    loop {
        match fs::create_dir(partial) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(cannot(e)),
            _ => {}
        }
        // What lies behind a link is none of ours to empty.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match rustix::fs::open(partial, flags, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(Error::refused("is in the way and is no folder").in_file(partial));
            }
            other => File::from(other.map_err(|e| cannot(e.into()))?),
        };
        if rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Ok(None);
        }
        // A file system without locks: nothing more can be done. The other run may have renamed or removed the folder
        // between the two steps.
        let ours = folder.metadata().map_err(cannot)?.ino();
        if fs::metadata(partial).is_ok_and(|meta| meta.ino() == ours) {
            return Ok(Some(folder));
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.complete
            && let Err(error) = remove(&self.partial)
        {
            tracing::warn!("{error}");
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    let gone = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    gone.map_err(|e| Error::io("cannot remove", e).in_file(path))
}

fn sync(folder: &Path) -> Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems cannot sync a folder.
        Err(e) if e.raw_os_error() != Some(Errno::INVAL.raw_os_error()) => {
            Err(Error::io("cannot sync", e).in_file(folder))
        }
        _ => Ok(()),
    }
}

/// Where and as what a machine was registered: a [`Registration`](crate::report::registration::Registration) beside its files.
pub const REGISTRATION: &str = "registration.json";

/// The hypervisor that the machine in `folder` was registered with.
pub fn registered_at(folder: &Path) -> Option<String> {
    let text = fs::read(folder.join(REGISTRATION)).ok()?;
    let document: serde_json::Value = serde_json::from_slice(&text).ok()?;
    Some(document.get("at")?.as_str()?.to_owned())
}

/// Writes a file into a folder that is complete, in place of an earlier one of the name: whole, or not at all.
pub fn put(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    let io = |e| Error::io("cannot write", e).in_file(&path);
    fs::create_dir_all(folder).map_err(io)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(io)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).and_then(|()| file.as_file().sync_all()).map_err(io)?;
    file.persist(&path).map_err(|e| io(e.error))?;
    Ok(())
}

/// Writes a file of a definition, synced.
pub fn write_file(folder: &Path, artifact: &Artifact) -> Result<()> {
    write_bytes(folder, &artifact.name, artifact.text.as_bytes(), artifact.executable)
}

/// Writes a file that is not there yet, synced.
pub fn write_bytes(folder: &Path, name: &str, bytes: &[u8], executable: bool) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join(name);
    let mode = if executable { 0o755 } else { 0o644 };
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, bytes).and_then(|()| file.sync_all()));
    written.map_err(|e| Error::io("cannot write", e).in_file(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for name in [MANIFEST, REPORT, "disk0.qcow2"] {
            fs::write(folder.join(name), "old").unwrap();
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_an_earlier_result_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().canonicalize().unwrap();
        result(&out.join("a"));
        fs::create_dir(out.join("photos")).unwrap();
        fs::write(out.join("photos/1.jpg"), "precious").unwrap();
        fs::write(out.join("file"), "precious").unwrap();
        std::os::unix::fs::symlink("a", out.join("link")).unwrap();
        let source = [out.join("a/web01.vmdk")];
        let begin = |name: &str, replace, source: &[PathBuf]| {
            Folder::begin(&out, name, replace, source)
                .map_err(|e| (e.kind(), e.hint_text().unwrap().to_owned()))
        };
        for (name, replace, source) in [
            ("photos", true, &[][..]),
            ("file", true, &[]),
            ("link", true, &[]),
            ("a", true, &source),
            ("a", false, &source),
            ("link", true, &source),
        ] {
            let (kind, hint) = begin(name, replace, source).err().unwrap();
            assert_eq!(kind, landfall_image::Kind::Refused, "{name}");
            assert!(!hint.contains("--replace"), "{name}: {hint}");
        }
        let (_, hint) = begin("a", false, &[]).err().unwrap();
        assert!(hint.contains("--replace"), "{hint}");
        let folder = begin("a", true, &[]).unwrap();
        assert!(begin("a", true, &[]).is_err(), "two at once");
        fs::write(folder.partial.join("new"), "new").unwrap();
        assert_eq!(names(&out.join("a")).len(), 3, "the old one stays until the new one is complete");
        folder.complete(&[]).unwrap();
        assert_eq!(names(&out.join("a")), ["new"]);
        assert_eq!(names(&out), ["a", "file", "link", "photos"]);
    }

    #[test]
    fn a_result_that_a_machine_runs_from_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().canonicalize().unwrap();
        result(&out.join("a"));
        drop(Folder::begin(&out, "a", true, &[]).unwrap());
        let later = std::time::SystemTime::now() + Duration::from_secs(60);
        let disk = fs::File::options().write(true).open(out.join("a/disk0.qcow2")).unwrap();
        disk.set_modified(later).unwrap();
        let error = Folder::begin(&out, "a", true, &[]).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("disk0.qcow2"), "{error}");
        // It began to run while the other one was written.
        disk.set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).unwrap();
        let folder = Folder::begin(&out, "a", true, &[]).unwrap();
        disk.set_modified(later).unwrap();
        assert!(folder.complete(&[]).is_err());
        assert_eq!(names(&out.join("a")).len(), 3, "it is all there");
    }

    #[test]
    fn what_appears_meanwhile_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::begin(dir.path(), "a", false, &[]).unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        assert!(folder.complete(&[]).is_err());
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn what_a_killed_run_left_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("x"), "x").unwrap();
        let partial = dir.path().join(".a.landfall-partial");
        std::os::unix::fs::symlink(&precious, &partial).unwrap();
        assert!(Folder::begin(dir.path(), "a", false, &[]).is_err(), "a link is not followed");
        assert_eq!(names(&precious), ["x"]);
        fs::remove_file(&partial).unwrap();
        fs::create_dir_all(partial.join("left")).unwrap();
        // Killed between the two steps of a replacement.
        result(&dir.path().join(".a.landfall-old"));
        assert!(Folder::begin(dir.path(), "a", false, &[]).is_err(), "the earlier result is back");
        assert_eq!(names(&dir.path().join("a")).len(), 3);
        drop(Folder::begin(dir.path(), "a", true, &[]).unwrap());
        assert_eq!(names(dir.path()), ["a", "precious"]);
        for name in ["", ".", "..", "a/b", "a\0b", "a\nb", &"x".repeat(300)] {
            assert!(Folder::begin(dir.path(), name, false, &[]).is_err(), "{name:?}");
        }
    }
}
