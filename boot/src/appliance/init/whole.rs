//! What the machine is given to, read to its end before it is: squashfs finds damage when it comes to it, and then there is nobody left who
//! could ask for the other slot.
//!
//! Deliberately absent: everything else of the root, landfall's own program too, which would take two seconds of each start without KVM.
//! Without that there is a machine that runs and shows nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// PID 1 and what it starts everything with. A test of the image holds this against what the linker says.
pub const PROGRAMS: &[&str] = &[super::NEXT, "/usr/lib/systemd/systemd-executor", "/usr/bin/systemctl"];

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

/// Of a file at a time: each processor unpacks its own.
const PIECE: u64 = 2 << 20;
/// The largest has some ten MiB.
const AT_MOST: u64 = 1 << 30;

/// Reads them, with all processors.
///
/// # Errors
/// For one that is not there or cannot be read.
pub(super) fn read(root: &Path) -> io::Result<()> {
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    let mut pieces = Vec::new();
    let mut whole = |path: PathBuf| {
        let size = std::fs::metadata(&path).map_err(|error| named(&path, &error))?.len();
        if size > AT_MOST {
            return Err(named(&path, &io::Error::other(format!("it has {size} bytes"))));
        }
        let count = size.div_ceil(PIECE);
        pieces.extend((0..count).map(|piece| (path.clone(), piece * PIECE)));
        Ok::<_, io::Error>(())
    };
    for program in PROGRAMS {
        whole(at(program))?;
    }
    for (folder, names) in LIBRARIES {
        for entry in std::fs::read_dir(at(folder))? {
            let entry = entry?;
            let name = entry.file_name();
            if names.iter().any(|start| name.to_string_lossy().starts_with(start)) {
                whole(entry.path())?;
            }
        }
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = vec![0; 1 << 20];
        while let Some((path, from)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut read = || {
                let (file, end) = (File::open(path)?, from + PIECE);
                let mut at = *from;
                while at < end {
                    match file.read_at(&mut buffer, at)? {
                        0 => break,
                        count => at += count as u64,
                    }
                }
                Ok(())
            };
            read().map_err(|error| named(path, &error))?;
        }
        Ok(())
    };
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..processors).map(|_| scope.spawn(work)).collect();
        let own = work();
        others.into_iter().try_for_each(|other| {
            other
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("reading what the system starts with has ended")))
        })?;
        own
    })
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{} cannot be read: {error}", path.display()))
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
        // A size that no disk has: what it takes to note its pieces would be all of the memory.
        File::create(&library).unwrap().set_len(1 << 42).unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("4398046511104 bytes"));
        std::fs::remove_file(&library).unwrap();
        std::fs::remove_file(at("/usr/bin/systemctl")).unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("/usr/bin/systemctl"));
    }
}
