//! BitLocker: volumes that Windows encrypts, opened by a recovery password, a password, or where protection is suspended.
//!
//! ```text
//! boot sector "-FVE-FS-" -> three copies of the metadata -> protectors of the master key (VMK) -> VMK -> volume key (FVEK)
//! 0      header  -> lies encrypted elsewhere        what Windows sees at 0 begins there
//! ...    sectors, each encrypted by its own place
//! 3 *    64 KiB of metadata, and the place of the header: zeros for Windows
//! ```
//! Sources: J. Metz, "BitLocker Drive Encryption (BDE) format specification" (libyal); N. Ferguson, "AES-CBC + Elephant
//! diffuser" (2006).
//!
//! Read and written: AES-XTS, AES-CBC with and without the diffuser, of Windows 7 and newer, BitLocker To Go too. Absent on
//! purpose: Windows Vista's layout, volumes whose encryption is under way or was paused, encrypt-on-write, hardware
//! encryption; protectors that need a TPM, a smart card or a key file (.BEK). The metadata are never written.

mod diffuser;
mod keys;
mod metadata;
mod volume;

use crate::disk::DiskMut;
use crate::error::{Error, Result};
use crate::luks::{Effort, Secret};
use keys::Opened;
use metadata::{Metadata, Protection};
use std::sync::Arc;

/// What came of trying to open a volume.
pub enum Outcome {
    /// Decrypted.
    Opened(Arc<dyn DiskMut>),
    /// A key is needed. What unlocks it, for people: `a recovery password, a TPM`.
    Locked(String),
    /// The key opens none of its protectors.
    Wrong,
}

/// Opens the BitLocker volume on `disk`: without a key where protection is suspended, else with one. The work for it comes
/// out of `effort`.
///
/// # Errors
/// [`Kind::Corrupt`](crate::Kind::Corrupt) and [`Kind::Unsupported`](crate::Kind::Unsupported) as its metadata have it;
/// [`Kind::Refused`](crate::Kind::Refused) where too much work is asked for; [`Kind::Interrupted`](crate::Kind::Interrupted)
/// when the effort was cancelled.
pub fn open_volume(disk: Arc<dyn DiskMut>, key: Option<&Secret>, effort: &mut Effort) -> Result<Outcome> {
    let metadata = Metadata::read(&*disk)?;
    let master = match keys::clear(&metadata)? {
        Some(master) => Some(master),
        None => match key {
            Some(key) => keys::unlock(&metadata, key, effort)?,
            None => return Ok(Outcome::Locked(needed(&metadata))),
        },
    };
    let Some(master) = master else { return Ok(Outcome::Wrong) };
    let Opened { cipher, diffuser } = keys::volume_key(&metadata, &master)?;
    Ok(Outcome::Opened(Arc::new(volume::Volume::new(disk, &metadata, cipher, diffuser)?)))
}

/// What opens a volume.
fn needed(metadata: &Metadata) -> String {
    let mut names: Vec<&str> = metadata.masters.iter().map(|master| master.protection.name()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { "nothing that is known".into() } else { names.join(", ") }
}

impl Protection {
    fn name(self) -> &'static str {
        match self {
            Protection::Clear => "nothing (suspended)",
            Protection::Recovery => "a recovery password",
            Protection::Password => "a password",
            Protection::Tpm => "the TPM of its machine",
            Protection::KeyFile => "a key file",
            Protection::Other(_) => "something else",
        }
    }
}

fn damaged(what: &str) -> Error {
    Error::corrupt(format!("the BitLocker metadata are damaged: {what}"))
        .hint("decrypt the volume in the source machine (manage-bde -off), or repair it there (repair-bde)")
}

#[cfg(test)]
mod tests;
