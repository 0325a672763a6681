//! Disks, file systems and sandboxes for the tests here.

use crate::helper::FileDisk;
use landfall_boot::Error;
use landfall_boot::apply::Change;
use landfall_boot::sandbox::{Accelerator, Sandbox, Session, Settings};
use landfall_image::disk::{Disk, DiskMut, Extent};
use landfall_image::{Bytes, GuestOffset, GuestRange};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::TempDir;

/// A disk that gets full when the test says so.
pub struct Filling {
    pub disk: Arc<dyn DiskMut>,
    pub full: AtomicBool,
}

impl Filling {
    pub fn has_room(&self) -> landfall_image::Result<()> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(Error::io("cannot write scratch", std::io::Error::from_raw_os_error(28))),
            false => Ok(()),
        }
    }
}

impl Disk for Filling {
    fn size(&self) -> Bytes {
        self.disk.size()
    }
    fn extents(&self, range: GuestRange, at_most: usize) -> landfall_image::Result<Vec<Extent>> {
        self.disk.extents(range, at_most)
    }
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> landfall_image::Result<()> {
        self.disk.read_at(at, buf)
    }
}

impl DiskMut for Filling {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> landfall_image::Result<()> {
        self.has_room().and_then(|()| self.disk.write_at(at, data))
    }
    fn zero_at(&self, range: GuestRange) -> landfall_image::Result<()> {
        self.has_room().and_then(|()| self.disk.zero_at(range))
    }
    fn flush(&self) -> landfall_image::Result<()> {
        self.disk.flush()
    }
}

pub fn target_folder() -> PathBuf {
    // target/TRIPLE/debug/sandbox_agent, or without the triple.
    let agent = Path::new(env!("CARGO_BIN_EXE_sandbox_agent"));
    agent.ancestors().find(|folder| folder.ends_with("target")).unwrap().to_owned()
}

/// Settings of a test, which shares its cache with the others; `None` (and a loud line) where something is missing.
pub fn settings(test: &str) -> Option<Settings> {
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_sandbox_agent"));
    let mut settings = Settings::new(agent, target_folder().join("sandbox-cache"));
    settings.accelerator = Some(Accelerator::Tcg);
    settings.data_folder = Some(target_folder());
    if let Some(folder) = std::env::var_os("LANDFALL_SANDBOX_CACHE") {
        settings.cache_folder = folder.into();
    }
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
pub fn run(program: &str, args: &[&str]) -> String {
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
pub fn image(mib: u64) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    File::create(&path).unwrap().set_len(mib << 20).unwrap();
    (dir, path)
}

/// An ext4 image with a few files in it.
pub fn ext4(mib: u64) -> (TempDir, PathBuf) {
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

pub fn start(settings: &Settings, path: &Path) -> Session {
    start_with(settings, vec![("disk0p1".into(), FileDisk::open(path))]).unwrap()
}

/// One start at a time: the first one leaves its state to the others, and a machine without KVM has enough to do.
pub fn start_with(
    settings: &Settings,
    volumes: Vec<(String, Arc<dyn DiskMut>)>,
) -> landfall_image::Result<Session> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    Sandbox::new(settings.clone())?.start(volumes)
}

/// Waits until no process has this number.
pub fn gone(id: u32) {
    let path = PathBuf::from(format!("/proc/{id}"));
    for _ in 0..1000 {
        if !path.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("process {id} is still there");
}

/// Runs commands of debugfs, one after another.
pub fn debugfs(path: &Path, commands: &[&str]) -> String {
    let script = path.with_extension("debugfs");
    std::fs::write(&script, commands.join("\n")).unwrap();
    run("debugfs", &["-w", "-f", script.to_str().unwrap(), path.to_str().unwrap()])
}

pub fn put(path: &str, bytes: &[u8]) -> Change {
    Change::Put { path: path.into(), bytes: bytes.to_vec(), mode: 0o640 }
}
