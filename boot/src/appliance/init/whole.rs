//! What the machine is given to, read to its end before it is: squashfs finds damage when it comes to it, and then there is nobody left who
//! could ask for the other slot.
//!
//! Deliberately absent: everything else of the root. What fails of it fails by itself, and is told.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// PID 1, what it starts everything with, and the program itself. A test of the image holds this against what the linker says.
pub const PROGRAMS: &[&str] =
    &[super::NEXT, "/usr/lib/systemd/systemd-executor", "/usr/bin/systemctl", "/usr/bin/landfall"];

/// Libraries of them, whatever follows these names.
pub const LIBRARIES: &[(&str, &[&str])] = &[
    ("/usr/lib/x86_64-linux-gnu/systemd", &["libsystemd-core-", "libsystemd-shared-"]),
    (
        "/usr/lib/x86_64-linux-gnu",
        &[
            "ld-linux-x86-64.so.",
            "libacl.so.",
            "libapparmor.so.",
            "libaudit.so.",
            "libblkid.so.",
            "libc.so.",
            "libcap-ng.so.",
            "libcap.so.",
            "libcrypt.so.",
            "libcrypto.so.",
            "libm.so.",
            "libmount.so.",
            "libpam.so.",
            "libpcre2-8.so.",
            "libseccomp.so.",
            "libselinux.so.",
            "libz.so.",
            "libzstd.so.",
        ],
    ),
];

/// Reads them.
///
/// # Errors
/// For the first that is not there or cannot be read.
pub(super) fn read(root: &Path) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut whole = |path: &Path| {
        let mut read = || {
            let mut file = File::open(path)?;
            while file.read(&mut buffer)? > 0 {}
            Ok(())
        };
        read().map_err(|error: io::Error| {
            io::Error::new(error.kind(), format!("{} cannot be read: {error}", path.display()))
        })
    };
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    for program in PROGRAMS {
        whole(&at(program))?;
    }
    for (folder, names) in LIBRARIES {
        for entry in std::fs::read_dir(at(folder))? {
            let entry = entry?;
            let name = entry.file_name();
            if names.iter().any(|start| name.to_string_lossy().starts_with(start)) {
                whole(&entry.path())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path.trim_start_matches('/'));
        for file in PROGRAMS {
            std::fs::create_dir_all(at(file).parent().unwrap()).unwrap();
            std::fs::write(at(file), vec![1; 3 << 20]).unwrap();
        }
        for (folder, _) in LIBRARIES {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        read(dir.path()).unwrap();
        // A folder opens, and does not read.
        let library = at("/usr/lib/x86_64-linux-gnu/libc.so.6");
        std::fs::create_dir(&library).unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("libc.so.6"));
        std::fs::remove_dir(&library).unwrap();
        std::fs::remove_file(at("/usr/bin/landfall")).unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("/usr/bin/landfall"));
    }
}
