//! What need not be made anew for every run: the unpacked kernel, the initramfs, the saved state of the machine.
//!
//! ```text
//! FOLDER/KIND-KEY-CONTENT     KEY: hash of everything that it was made from    CONTENT: hash of the file itself
//! ```
//!
//! A file appears under its name when it is complete; one whose content does not have the hash of its name is thrown
//! away. The folder may be emptied at any time, and is shared by any number of processes.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files of one kind that are kept: the newest.
const KEPT: usize = 4;

/// Hexadecimal digits of a hash in a name: 128 bits.
const DIGITS: usize = 32;

/// A hash of everything that a cached file is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    /// Of parts that are told apart, whatever they hold.
    pub(super) fn of(parts: &[&[u8]]) -> Key {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Key(digits(&hasher))
    }
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn digits(hasher: &blake3::Hasher) -> String {
    let mut hex = hasher.finalize().to_hex().to_string();
    hex.truncate(DIGITS);
    hex
}

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

/// A file of the cache, whose content is yet to be compared with its name.
pub(super) struct Cached {
    pub(super) file: File,
    path: PathBuf,
    content: String,
}

impl Cached {
    /// True where the content is what was stored. Reads the whole file; its position stays where it is.
    pub(super) fn is_sound(&self) -> bool {
        // A handle of its own: the position of a duplicated one would be shared.
        File::open(&self.path).and_then(hash_file).is_ok_and(|hash| hash == self.content)
    }
    /// Throws it away.
    pub(super) fn discard(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn hash_file(mut file: File) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digits(&hasher)),
            len => hasher.update(buffer.get(..len).unwrap_or_default()),
        };
    }
}

impl Cache {
    /// The cache in `folder`, which is made where it is absent, for this user alone.
    pub(super) fn open(folder: &Path) -> Result<Cache> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| Error::io("cannot make the cache folder", e).in_file(folder))?;
        Ok(Cache { folder: folder.to_owned() })
    }

    /// The file of that kind and key, unchecked.
    pub(super) fn find(&self, kind: &str, key: &Key) -> Option<Cached> {
        let prefix = format!("{kind}-{}-", key.0);
        for entry in fs::read_dir(&self.folder).ok()? {
            let Ok(name) = entry.ok()?.file_name().into_string() else { continue };
            let Some(content) = name.strip_prefix(&prefix).filter(|hash| hash.len() == DIGITS) else {
                continue;
            };
            let path = self.folder.join(&name);
            if let Ok(file) = File::open(&path) {
                return Some(Cached { file, content: content.to_owned(), path });
            }
        }
        None
    }

    /// The sound file of that kind and key, or what `make` returns, stored.
    pub(super) fn get(&self, kind: &str, key: &Key, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<File> {
        if let Some(cached) = self.find(kind, key) {
            if cached.is_sound() {
                return Ok(cached.file);
            }
            tracing::warn!(path = %cached.path.display(), "a damaged file of the cache is thrown away");
            cached.discard();
        }
        let bytes = make()?;
        let mut partial = self.partial()?;
        let failed = |e| Error::io("cannot write to the cache", e).in_file(&self.folder);
        partial.write_all(&bytes).map_err(failed)?;
        self.keep(kind, key, partial)
    }

    /// A file that nobody sees until it is [kept](Self::keep).
    pub(super) fn partial(&self) -> Result<tempfile::NamedTempFile> {
        tempfile::Builder::new()
            .prefix(".partial-")
            .tempfile_in(&self.folder)
            .map_err(|e| Error::io("cannot write to the cache", e).in_file(&self.folder))
    }

    /// Gives a complete file its name, and throws older ones of its kind away. Returns it opened at its start.
    pub(super) fn keep(&self, kind: &str, key: &Key, partial: tempfile::NamedTempFile) -> Result<File> {
        let failed = |e| Error::io("cannot write to the cache", e).in_file(&self.folder);
        let hash = File::open(partial.path()).and_then(hash_file).map_err(failed)?;
        // The sandbox's user opens it through a handle that it is given; nobody else reaches into the folder.
        let mode = fs::Permissions::from_mode(0o444);
        partial.as_file().set_permissions(mode).map_err(failed)?;
        let path = self.folder.join(format!("{kind}-{}-{hash}", key.0));
        partial.persist(&path).map_err(|e| failed(e.error))?;
        self.prune(kind);
        File::open(&path).map_err(failed)
    }

    /// A short text remembered under `name`.
    pub(super) fn note(&self, name: &str) -> Option<String> {
        let mut text = String::new();
        File::open(self.folder.join(name)).ok()?.take(4096).read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// Remembers a short text. Failing that, it is found out again next time.
    pub(super) fn set_note(&self, name: &str, text: &str) {
        let written = self.partial().and_then(|mut partial| {
            let failed = |e| Error::io("cannot write to the cache", e).in_file(&self.folder);
            partial.write_all(text.as_bytes()).map_err(failed)?;
            partial.persist(self.folder.join(name)).map_err(|e| failed(e.error))
        });
        if let Err(error) = written {
            tracing::warn!(%error, "cannot remember {name}");
        }
    }

    fn prune(&self, kind: &str) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                name.strip_prefix(kind)?.starts_with('-').then_some(())?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
            })
            .collect();
        files.sort();
        let surplus = files.len().saturating_sub(KEPT);
        for (_, path) in files.into_iter().take(surplus) {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_made_anew_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("a/b")).unwrap();
        let key = Key::of(&[b"x"]);
        let read = |mut file: File| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(read(cache.get("kernel", &key, || Ok(b"one".to_vec())).unwrap()), b"one");
        assert_eq!(read(cache.get("kernel", &key, || panic!("it is there")).unwrap()), b"one");
        let cached = cache.find("kernel", &key).unwrap();
        fs::remove_file(&cached.path).unwrap();
        fs::write(&cached.path, b"two").unwrap();
        assert_eq!(read(cache.get("kernel", &key, || Ok(b"one".to_vec())).unwrap()), b"one");
        for n in 0..10u8 {
            cache.get("kernel", &Key::of(&[&[n]]), || Ok(vec![n])).unwrap();
            cache.get("state", &Key::of(&[&[n]]), || Ok(vec![n])).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path().join("a/b")).unwrap().count(), 2 * KEPT);
        assert_ne!(Key::of(&[b"ab", b"c"]), Key::of(&[b"a", b"bc"]));
        assert_eq!(cache.note("kvm"), None);
        cache.set_note("kvm", "no");
        assert_eq!(cache.note("kvm").as_deref(), Some("no"));
    }
}
