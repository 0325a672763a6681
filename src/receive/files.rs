//! Small files of the vault's folder `incoming`, written so that a loss of power leaves the old or the new one.
//!
//! ```text
//! VAULT/incoming/ID.upload   what is being received, and how much of it is on the medium   (spool)
//! VAULT/incoming/ID.data     its bytes
//! VAULT/incoming/NAME.ID.batch   what is being written into a machine now                  (batch)
//! ```

use crate::vault::storage::Storage;
use landfall_image::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The folder.
pub const DIR: &str = "incoming";
/// No file of these is longer: a batch names up to 60 disks and as many uploads.
const AT_MOST: u64 = 1 << 20;

/// Reads one.
///
/// # Errors
/// As the storage's; corrupt where it is none.
pub fn read<T: DeserializeOwned>(storage: &dyn Storage, name: &str) -> Result<T> {
    let path = format!("{DIR}/{name}");
    let file = storage.open(&path)?;
    let wrong = |says: String| Error::corrupt(says).in_file(&storage.place(&path));
    let len = file.len()?;
    if len > AT_MOST {
        return Err(wrong(format!("has {len} bytes; {AT_MOST} are the most")));
    }
    let mut raw = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_at(0, &mut raw)?;
    serde_json::from_slice(&raw).map_err(|error| wrong(format!("cannot be read: {error}")))
}

/// Writes one; when it returns, it is on the medium.
///
/// # Errors
/// As the storage's.
pub fn write(storage: &dyn Storage, name: &str, value: &impl Serialize) -> Result<()> {
    let raw = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::refused(format!("cannot be written down: {error}")))?;
    let path = format!("{DIR}/{name}");
    let new = format!("{path}.new");
    storage.remove(&new)?;
    let file = storage.create(&new)?;
    file.write_at(0, &[&raw])?;
    file.sync()?;
    storage.rename(&new, &path)?;
    storage.sync_dir(DIR)
}

/// Removes one; when it returns, it is gone from the medium.
///
/// # Errors
/// As the storage's.
pub fn remove(storage: &dyn Storage, name: &str) -> Result<()> {
    storage.remove(&format!("{DIR}/{name}"))?;
    storage.sync_dir(DIR)
}

/// The names with that ending, without it.
///
/// # Errors
/// As the storage's.
pub fn list(storage: &dyn Storage, ending: &str) -> Result<Vec<String>> {
    let names = storage.list(DIR)?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(ending)).map(str::to_owned).collect())
}
