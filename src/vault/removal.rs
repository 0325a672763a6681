//! How a machine leaves the vault: that it goes is on the medium first, then its files go. What a loss of power cuts off is ended when the
//! vault is opened, or the machine is begun anew.

use super::storage::Storage;
use landfall_image::Result;

/// Says that the machine is to go, whatever else is there.
const GONE: &str = "gone";
/// The folders of a machine; none has others in it.
const FOLDERS: [&str; 2] = ["journal", "bases"];

/// True where a machine is going.
///
/// # Errors
/// As the storage's. So for all here.
pub(super) fn has_begun(storage: &dyn Storage, dir: &str) -> Result<bool> {
    Ok(storage.list(dir)?.iter().any(|name| name == GONE))
}

/// Says that a machine goes. From here on it is not there any longer; where this fails, it stays.
pub(super) fn begin(storage: &dyn Storage, dir: &str) -> Result<()> {
    if has_begun(storage, dir)? {
        return Ok(());
    }
    let mark = format!("{dir}/{GONE}");
    let begun = storage.create(&mark).and_then(|file| file.sync()).and_then(|()| storage.sync_dir(dir));
    if begun.is_err() {
        // It stays. Where not even that can be said, it goes at the next start, as was wanted.
        drop(storage.remove(&mark));
    }
    begun
}

/// Takes the files of a machine away that goes. May be done again after any part of it.
pub(super) fn finish(storage: &dyn Storage, dir: &str) -> Result<()> {
    for folder in FOLDERS {
        let inner = format!("{dir}/{folder}");
        let names = storage.list(&inner)?;
        names.iter().try_for_each(|name| storage.remove(&format!("{inner}/{name}")))?;
        if !names.is_empty() {
            storage.sync_dir(&inner)?;
        }
        storage.remove_dir(&inner)?;
    }
    for name in storage.list(dir)? {
        if name != GONE && !FOLDERS.contains(&name.as_str()) {
            storage.remove(&format!("{dir}/{name}"))?;
        }
    }
    // What says that all of it goes is the last to go.
    storage.sync_dir(dir)?;
    storage.remove(&format!("{dir}/{GONE}"))?;
    storage.sync_dir(dir)?;
    storage.remove_dir(dir)
}
