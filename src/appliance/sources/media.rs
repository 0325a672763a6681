//! Which source a mounted medium has.
//!
//! The medium comes from outside: only regular files of a bounded length are read, and no link is followed, lest a file of
//! the appliance itself is taken for one of the medium. Names are looked for in both cases, since an ISO 9660 without extensions
//! has capitals only.

use super::{DOCUMENT_AT_MOST, Given, config_drive, nocloud, ovf};
use landfall_image::{Error, Result};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Names of a folder that are looked at.
const NAMES_AT_MOST: usize = 4096;

/// What the medium mounted at `folder` gives; `None` where there is no source on it. An OVF environment comes before NoCloud,
/// and that before ConfigDrive: a medium has one.
///
/// # Errors
/// Corrupt or refused where there is one, and it cannot be read.
pub fn look(folder: &Path) -> Result<Option<Given>> {
    if let Some(document) = read(folder, &["ovf-env.xml"])? {
        return ovf::parse(&document).map(Some).map_err(|error| error.in_file(&folder.join("ovf-env.xml")));
    }
    let meta = read(folder, &["meta-data"])?;
    let user = read(folder, &["user-data"])?;
    if meta.is_some() || user.is_some() {
        let network = read(folder, &["network-config"])?;
        let documents = nocloud::Documents {
            meta: meta.as_deref().unwrap_or_default(),
            user: user.as_deref().unwrap_or_default(),
            network: network.as_deref().unwrap_or_default(),
        };
        return nocloud::parse(documents).map(Some).map_err(|error| error.in_file(&folder.join("meta-data")));
    }
    let latest = ["openstack", "latest"];
    let of = |name| read(folder, &[latest[0], latest[1], name]);
    let Some(meta) = of("meta_data.json")? else { return Ok(None) };
    let (network, user) =
        (of("network_data.json")?.unwrap_or_default(), of("user_data")?.unwrap_or_default());
    let documents = config_drive::Documents { meta: &meta, network: &network, user: &user };
    config_drive::parse(documents)
        .map(Some)
        .map_err(|error| error.in_file(&folder.join("openstack/latest/meta_data.json")))
}

/// A file by the names of its folders and its own; `None` where it is not there.
fn read(folder: &Path, names: &[&str]) -> Result<Option<Vec<u8>>> {
    let mut path = folder.to_owned();
    for (index, name) in names.iter().enumerate() {
        let Some(next) = find(&path, name)? else { return Ok(None) };
        let meta = fs::symlink_metadata(&next).map_err(|error| cannot(error, &next))?;
        let is_last = index + 1 == names.len();
        if !(if is_last { meta.is_file() } else { meta.is_dir() }) {
            return Err(Error::refused("is no regular file or folder: nothing else is read from a medium")
                .in_file(&next));
        }
        if is_last && meta.len() > DOCUMENT_AT_MOST as u64 {
            return Err(Error::refused(format!(
                "has {} bytes; {DOCUMENT_AT_MOST} are read at most",
                meta.len()
            ))
            .in_file(&next));
        }
        path = next;
    }
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(|error| cannot(error, &path))?;
    file.take(DOCUMENT_AT_MOST as u64).read_to_end(&mut bytes).map_err(|error| cannot(error, &path))?;
    Ok(Some(bytes))
}

/// The name in a folder, whatever its case; as it is written before others.
fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    let exact = folder.join(name);
    if fs::symlink_metadata(&exact).is_ok() {
        return Ok(Some(exact));
    }
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error, folder)),
    };
    for entry in entries.take(NAMES_AT_MOST) {
        let entry = entry.map_err(|error| cannot(error, folder))?;
        // ISO 9660 has `_` for what it has no letter for, and a version behind the name.
        let shown = entry.file_name().to_string_lossy().to_ascii_lowercase();
        let shown = shown.split(';').next().unwrap_or("").trim_end_matches('.');
        if shown == name || shown == name.replace('-', "_") {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

fn cannot(error: std::io::Error, path: &Path) -> Error {
    Error::io("cannot be read", error).in_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::Kind;
    use std::os::unix::fs::symlink;

    fn put(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_medium_is_known_by_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        assert_eq!(look(folder).unwrap(), None);
        put(folder, "openstack/latest/meta_data.json", r#"{"uuid":"u","hostname":"three"}"#);
        put(folder, "openstack/latest/user_data", "#!/bin/sh\nreboot\n");
        let given = look(folder).unwrap().unwrap();
        assert_eq!(
            (given.identity.source.as_str(), given.unread.as_slice()),
            ("ConfigDrive", &["user-data".to_owned()][..])
        );
        put(folder, "user-data", "#cloud-config\nhostname: two\n");
        assert_eq!(look(folder).unwrap().unwrap().settings.hostname.unwrap().as_str(), "two");
        put(folder, "META-DATA", "instance-id: i-1\n");
        let given = look(folder).unwrap().unwrap();
        assert_eq!(
            (given.identity.source.as_str(), given.identity.instance.as_deref()),
            ("NoCloud", Some("i-1"))
        );
        put(folder, "OVF_ENV.XML;1", "<Environment/>");
        assert_eq!(look(folder).unwrap().unwrap().identity.source, "OVF environment");
    }

    #[test]
    fn nothing_but_plain_files_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        put(folder, "real", "instance-id: i\n");
        symlink(folder.join("real"), folder.join("meta-data")).unwrap();
        assert_eq!(look(folder).unwrap_err().kind(), Kind::Refused);
        fs::remove_file(folder.join("meta-data")).unwrap();
        put(folder, "elsewhere/latest/meta_data.json", "{}");
        symlink(folder.join("elsewhere"), folder.join("openstack")).unwrap();
        assert_eq!(look(folder).unwrap_err().kind(), Kind::Refused);
        fs::remove_file(folder.join("openstack")).unwrap();
        fs::create_dir(folder.join("user-data")).unwrap();
        assert_eq!(look(folder).unwrap_err().kind(), Kind::Refused);
        fs::remove_dir(folder.join("user-data")).unwrap();
        let long = File::create(folder.join("user-data")).unwrap();
        long.set_len(DOCUMENT_AT_MOST as u64 + 1).unwrap();
        assert!(look(folder).unwrap_err().to_string().contains("1048577 bytes"));
        long.set_len(DOCUMENT_AT_MOST as u64).unwrap();
        assert!(look(folder).is_ok());
    }
}
