//! The sandbox for real: QEMU, a distribution's kernel, file systems made by their own tools and checked by them.
//!
//! The kernel is looked for in `LANDFALL_SANDBOX_KERNEL`, then in `target/sandbox` (`tools/fetch-sandbox-kernel.sh
//! target/sandbox`), then on this machine.

use landfall_boot::Error;
use landfall_boot::apply::Change;
use landfall_boot::sandbox::{Accelerator, Sandbox, Session, Settings};
use landfall_boot::tree::{GuestTree, GuestTreeExt, NodeKind};
use landfall_image::disk::{Disk, DiskMut, Extent, ExtentKind};
use landfall_image::{Bytes, GuestOffset, GuestRange};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

/// A file as a disk, written in place: the tests look at it with other tools afterwards.
struct FileDisk {
    file: File,
    size: u64,
    full: AtomicBool,
}

impl FileDisk {
    fn open(path: &Path) -> Arc<FileDisk> {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let size = file.metadata().unwrap().len();
        Arc::new(FileDisk { file, size, full: AtomicBool::new(false) })
    }
    fn has_room(&self) -> landfall_image::Result<()> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(Error::io("cannot write scratch", std::io::Error::from_raw_os_error(28))),
            false => Ok(()),
        }
    }
}

impl Disk for FileDisk {
    fn size(&self) -> Bytes {
        Bytes(self.size)
    }
    fn extents(&self, range: GuestRange, _: usize) -> landfall_image::Result<Vec<Extent>> {
        Ok(vec![Extent { range, kind: ExtentKind::Data }])
    }
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> landfall_image::Result<()> {
        self.file.read_exact_at(buf, at.0).map_err(|e| Error::io("cannot read", e))
    }
}

impl DiskMut for FileDisk {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> landfall_image::Result<()> {
        self.has_room()?;
        self.file.write_all_at(data, at.0).map_err(|e| Error::io("cannot write", e))
    }
    fn zero_at(&self, range: GuestRange) -> landfall_image::Result<()> {
        self.has_room()?;
        let zeros = vec![0; 1 << 20];
        let mut at = range.start().0;
        while at < range.end().0 {
            let len = (range.end().0 - at).min(1 << 20);
            self.file.write_all_at(&zeros[..usize::try_from(len).unwrap()], at).unwrap();
            at += len;
        }
        Ok(())
    }
    fn flush(&self) -> landfall_image::Result<()> {
        Ok(())
    }
}

fn target_folder() -> PathBuf {
    // target/TRIPLE/debug/sandbox_agent, or without the triple.
    let agent = Path::new(env!("CARGO_BIN_EXE_sandbox_agent"));
    agent.ancestors().find(|folder| folder.ends_with("target")).unwrap().to_owned()
}

/// Settings of a test, which shares its cache with the others; `None` (and a loud line) where something is missing.
fn settings(test: &str) -> Option<Settings> {
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_sandbox_agent"));
    let mut settings = Settings::new(agent, target_folder().join("sandbox-cache"));
    settings.accelerator = Some(Accelerator::Tcg);
    settings.data_folder = Some(target_folder());
    if let Some(folder) = std::env::var_os("LANDFALL_SANDBOX_KERNEL") {
        settings.kernel_folder = Some(folder.into());
    }
    match Sandbox::new(settings.clone()) {
        Ok(_) => Some(settings),
        Err(error) => {
            eprintln!("SKIPPED: {test}: {error} ({})", error.hint_text().unwrap_or_default());
            None
        }
    }
}

/// Runs a program that must succeed. Returns what it printed.
fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program)
        .args(args)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{program} {args:?}: {text}");
    text
}

/// An image file of that size in a folder of its own.
fn image(mib: u64) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    File::create(&path).unwrap().set_len(mib << 20).unwrap();
    (dir, path)
}

/// An ext4 image with a few files in it.
fn ext4(mib: u64) -> (TempDir, PathBuf) {
    let (dir, path) = image(mib);
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::create_dir_all(root.join("boot/efi")).unwrap();
    std::fs::write(root.join("etc/fstab"), "/dev/sda1 / ext4 defaults 0 1\n").unwrap();
    std::fs::write(root.join("etc/hostname"), "web01\n").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", root.join("etc/link")).unwrap();
    std::os::unix::fs::symlink("../../../../../../etc/passwd", root.join("etc/escape")).unwrap();
    std::os::unix::fs::symlink("loop", root.join("etc/loop")).unwrap();
    run("mkfs.ext4", &["-q", "-F", "-d", root.to_str().unwrap(), path.to_str().unwrap()]);
    (dir, path)
}

fn start(settings: &Settings, path: &Path) -> Session {
    let sandbox = Sandbox::new(settings.clone()).unwrap();
    sandbox.start(vec![("disk0p1".into(), FileDisk::open(path))]).unwrap()
}

fn put(path: &str, bytes: &[u8]) -> Change {
    Change::Put { path: path.into(), bytes: bytes.to_vec(), mode: 0o640 }
}

#[test]
fn ext4_is_mounted_read_and_written() {
    let Some(mut settings) = settings("ext4_is_mounted_read_and_written") else { return };
    settings.saved_state = false;
    let (_dir, path) = ext4(64);
    let session = start(&settings, &path);
    assert!(!session.restored());
    session.mount("disk0p1", "ext4", "a", "/", false).unwrap();
    let tree = session.tree("a");
    assert_eq!(tree.read_text("/etc/hostname").unwrap().as_deref(), Some("web01\n"));
    assert_eq!(tree.read_text("/etc/link").unwrap().as_deref(), Some("web01\n"));
    assert_eq!(tree.read_text("/etc/absent").unwrap(), None);
    assert_eq!(tree.read_link("/etc/link").unwrap().as_deref(), Some("/etc/hostname"));
    assert_eq!(tree.metadata("/etc").unwrap().unwrap().kind, NodeKind::Dir);
    assert_eq!(tree.names("/etc").unwrap(), ["escape", "fstab", "hostname", "link", "loop"]);
    assert!(tree.free_space("/").unwrap().unwrap() > Bytes::mib(10));
    let big: Vec<u8> = (0..3_000_000u32).map(|n| u8::try_from(n % 253).unwrap()).collect();
    session
        .apply(
            "a",
            &[
                put("/etc/fstab", b"UUID=1 / ext4 defaults 0 1\n"),
                put("/etc/link", b"db01\n"),
                put("/var/lib/deep/big", &big),
                Change::Symlink { path: "/etc/new-link".into(), target: "../etc/fstab".into() },
                Change::Remove { path: "/etc/loop".into() },
                Change::Remove { path: "/etc/absent".into() },
            ],
        )
        .unwrap();
    assert_eq!(tree.read_text("/etc/hostname").unwrap().as_deref(), Some("db01\n"));
    assert_eq!(tree.read_text("/etc/new-link").unwrap().as_deref(), Some("UUID=1 / ext4 defaults 0 1\n"));
    assert!(tree.read("/var/lib/deep/big", Bytes::mib(4)).unwrap().unwrap() == big);
    let finished = session.finish().unwrap();
    eprintln!("{finished:?}");
    run("e2fsck", &["-fn", path.to_str().unwrap()]);
    let listing = run("debugfs", &["-R", "cat /etc/fstab", path.to_str().unwrap()]);
    assert!(listing.contains("UUID=1"), "{listing}");
}

#[test]
fn the_second_start_is_restored_and_a_damaged_state_is_thrown_away() {
    let test = "the_second_start_is_restored_and_a_damaged_state_is_thrown_away";
    let Some(mut settings) = settings(test) else { return };
    let cache = tempfile::tempdir().unwrap();
    settings.cache_folder = cache.path().to_owned();
    let (_dir, path) = ext4(64);
    let state = || {
        let names = std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path());
        let states = names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("state-"));
        states.collect::<Vec<_>>()
    };
    let mut restored = Vec::new();
    for n in 0..6u8 {
        if n == 3 {
            // One bit in the middle of the machine's memory.
            let path = &state()[0];
            let mut bytes = std::fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::remove_file(path).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        if n == 5 {
            // No state at all, under a name and a hash that are right.
            let path = state().pop().unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let key = name.rsplit_once('-').unwrap().0;
            let hash = &hash(b"no state")[..32];
            std::fs::remove_file(&path).unwrap();
            std::fs::write(cache.path().join(format!("{key}-{hash}")), b"no state").unwrap();
        }
        let session = start(&settings, &path);
        restored.push(session.restored());
        session.mount("disk0p1", "ext4", "a", "/", false).unwrap();
        session.apply("a", &[put("/etc/n", &[n])]).unwrap();
        let meta = session.tree("a").metadata("/etc/n").unwrap().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let age = i64::try_from(now).unwrap() - meta.mtime_seconds;
        assert!((-5..120).contains(&age), "the clock is right after a restore: {age} s");
        eprintln!("{:?}", session.finish().unwrap());
        run("e2fsck", &["-fn", path.to_str().unwrap()]);
    }
    assert_eq!(restored, [false, true, true, false, true, false]);
    assert_eq!(state().len(), 1);
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
