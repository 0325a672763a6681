//! Updates of the appliance: a system for its other slot, signed. The form is described where it is installed
//! ([`slots`](crate::appliance::slots)).

use super::build::{self, System};
use super::fetch::hex;
use crate::appliance::slots::{self, Manifest, Part};
use landfall_boot::appliance::package::List;
use landfall_image::{Bytes, Disk, Error, Result};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes a key for updates, and the public one beside it.
///
/// # Errors
/// `Refused` where a file is there already.
pub fn make_key(path: &Path) -> Result<()> {
    let odd = |_| Error::io("cannot make a key", std::io::Error::other("no random numbers"));
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(odd)?;
    let pair = key(pkcs8.as_ref(), path)?;
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    for (path, mode, content) in
        [(path, 0o600, pkcs8.as_ref()), (Path::new(&public), 0o644, pair.public_key().as_ref())]
    {
        let failed = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::refused("is there already: appliances trust it").in_file(path)
            }
            _ => Error::io("cannot write the key", e).in_file(path),
        };
        let mut file = File::options().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
        file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    }
    Ok(())
}

fn key(pkcs8: &[u8], path: &Path) -> Result<Ed25519KeyPair> {
    Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|e| {
        Error::corrupt(format!("is no key for updates: {e}"))
            .in_file(path)
            .hint("landfall appliance key FILE makes one")
    })
}

/// Writes an update with that system.
///
/// # Errors
/// `Corrupt` for a key that is none, `Io`.
pub fn write(system: &System, list: &List, sign: &Path, path: &Path, replace: bool) -> Result<()> {
    let pkcs8 = std::fs::read(sign).map_err(|e| Error::io("cannot read", e).in_file(sign))?;
    let pair = key(&pkcs8, sign)?;
    let (root, boot) = (build::root_disk(system)?, build::boot_volume(system)?);
    let parts = [(root.as_ref(), system.root_size), (boot.as_ref(), boot.size())];
    let of = |(disk, size): (&dyn Disk, Bytes)| {
        let mut hash = Sha256::new();
        build::each(disk, size, |bytes| {
            hash.update(bytes);
            Ok(())
        })?;
        Ok::<_, Error>(Part { size, sha256: hex(&hash.finalize()) })
    };
    let manifest = Manifest {
        version: env!("CARGO_PKG_VERSION").into(),
        snapshot: list.snapshot.clone(),
        release: system.release.clone(),
        root: of(parts[0])?,
        boot: of(parts[1])?,
    };
    let head = slots::head(&manifest)?;
    let failed = |e| Error::io("cannot write", e).in_file(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(&head).map_err(failed)?;
    file.write_all(pair.sign(&head).as_ref()).map_err(failed)?;
    for (disk, size) in parts {
        build::each(disk, size, |bytes| file.write_all(bytes).map_err(failed))?;
    }
    file.as_file().sync_all().map_err(failed)?;
    std::fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .map_err(failed)?;
    match replace {
        true => file.persist(path).map_err(|e| failed(e.error))?,
        false => file.persist_noclobber(path).map_err(|e| failed(e.error))?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_for_nobody_else() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("update-key");
        make_key(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read(dir.path().join("update-key.pub")).unwrap().len(), 32);
        assert_eq!(make_key(&path).unwrap_err().kind(), landfall_image::Kind::Refused);
    }
}
