//! Files of registry edits (.reg) that a user names.

use landfall_boot::windows::reg_file::{FILE_AT_MOST, RegistryFile};
use landfall_image::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Reads the file at `path`. Findings and edits call it by its last name.
///
/// # Errors
/// Where it cannot be read, or a line of it is not understood.
pub fn load(path: &Path) -> Result<RegistryFile> {
    let cannot = |error| Error::io("cannot read", error).in_file(path);
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(FILE_AT_MOST.0 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    RegistryFile::parse(&bytes, &name).map_err(|error| error.in_file(path))
}
