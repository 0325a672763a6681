//! User name and password: from a file, the environment or the desktop's keyring. Never from the command line, where every
//! user of the host can read them.
//!
//! The file is TOML with two keys, `user` and `password`, and nobody but its owner may read it. The keyring is asked through
//! `secret-tool` (libsecret) for the attributes `service=landfall host=HOST user=USER`:
//!
//! ```text
//! secret-tool store --label='landfall at HOST' service landfall host HOST user USER
//! ```

use super::child;
use landfall_image::convert::Cancel;
use landfall_image::{Error, Result};
use serde::Deserialize;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// Who logs in. The password is wiped when it is dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name: `administrator@vsphere.local`.
    pub user: String,
    /// Password.
    pub password: Zeroizing<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Of that user.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Credentials {
        Credentials { user: user.into(), password: Zeroizing::new(password.into()) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    user: String,
    password: String,
}

/// A user name and a password take less.
const AT_MOST: u64 = 64 << 10;

/// Reads the file.
///
/// # Errors
/// Refused where others may read it, or where it is not what is expected; its content is in no message.
pub fn from_file(path: &Path) -> Result<Credentials> {
    let cannot = |e| Error::io("cannot read the credentials", e).in_file(path);
    let refused = |says: &str, hint: &str| Error::refused(says).in_file(path).hint(hint);
    let mut file = File::open(path).map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    if meta.is_file() && meta.mode() & 0o077 != 0 {
        return Err(refused(
            "can be read by other users",
            "make it its owner's alone: chmod 600, and change the password if somebody may have read it",
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.by_ref().take(AT_MOST).read_to_string(&mut text).map_err(cannot)?;
    // The parser's own message quotes the line, and the password may stand in it.
    let written: Written = toml::from_str(&text).map_err(|_| {
        refused("is no file of credentials", "write two lines: user = 'NAME' and password = 'PASSWORD'")
    })?;
    Ok(Credentials::new(written.user, written.password))
}

/// Asks the keyring. `None` where there is no keyring, or nothing in it.
pub fn from_keyring(host: &str, user: &str, cancel: &Cancel) -> Result<Option<Credentials>> {
    // A locked keyring asks its user at the screen.
    const WITHIN: Duration = Duration::from_secs(120);
    let args = ["lookup", "service", "landfall", "host", host, "user", user].map(AsRef::as_ref);
    let said = match child::run("secret-tool", &args, WITHIN, Some(cancel)) {
        Ok(said) => said,
        Err(error) if error.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if !said.complaint.is_empty() {
        tracing::warn!("the keyring says: {}", said.complaint);
    }
    let out = Zeroizing::new(said.out);
    match std::str::from_utf8(&out) {
        Ok(password) if said.fine && !password.is_empty() => Ok(Some(Credentials::new(user, password))),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_is_its_owners_and_its_content_is_in_no_message() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("user = 'root'\npassword = 'hunter2'\n", 0o600);
        let read = from_file(&path).unwrap();
        assert_eq!(read, Credentials::new("root", "hunter2"));
        assert!(!format!("{read:?}").contains("hunter2"));
        write("user = 'root'\npassword = 'hunter2'\n", 0o640);
        assert!(from_file(&path).unwrap_err().hint_text().unwrap().contains("chmod 600"));
        for text in [
            "user = 'root'\npassword = hunter2\n",
            "user = 'root'\npasword = 'hunter2'\n",
            "",
            "root:hunter2",
        ] {
            write(text, 0o600);
            let error = from_file(&path).unwrap_err();
            let all = format!("{error} {:?}", error.hint_text());
            assert!(!all.contains("hunter2") && all.contains("user = "), "{all}");
        }
    }
}
