//! Small files of our own, such as settings and keys: written whole or not at all, and read up to a bound.
//!
//! Deliberately absent: locks. Each such file has one writer.

use landfall_image::{Error, FileOffset, Result};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Writes a file whole or not at all.
///
/// # Errors
/// `Io`
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let failed = |e| Error::io("cannot write", e).in_file(path);
    // A bare name has an empty parent.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = folder.join(name);
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(mode).open(&new).map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Reads a small file; `None` where there is none.
///
/// # Errors
/// `Io`, and `Refused` for more than a mebibyte.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    const AT_MOST: u64 = 1 << 20;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("cannot read", e).in_file(path)),
    };
    let mut bytes = Vec::new();
    file.take(AT_MOST + 1).read_to_end(&mut bytes).map_err(|e| Error::io("cannot read", e).in_file(path))?;
    if bytes.len() as u64 > AT_MOST {
        return Err(Error::refused("is longer than 1 MiB").in_file(path).at(FileOffset(AT_MOST)));
    }
    Ok(Some(bytes))
}
