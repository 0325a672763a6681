//! Media that came with the machine and may hold its settings: any disc, and volumes labelled as cloud-init's.
//!
//! Mounted read-only for a moment, and read by [`super::sources`]. Drives that the kernel has found are waited for a little: the
//! network starts after this, and a machine whose settings come a second late has the wrong address.

use super::places;
use super::sources::{self, Given};
use landfall_boot::appliance::init::Boot;
use landfall_image::Error;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// For a drive whose driver is loading.
const DRIVE_WITHIN: Duration = Duration::from_secs(5);
/// Labels of cloud-init's media.
const LABELS: [&str; 2] = ["CIDATA", "CONFIG-2"];

/// A file system that a medium may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileSystem {
    Iso9660,
    Vfat,
}

impl FileSystem {
    fn name(self) -> &'static str {
        match self {
            FileSystem::Iso9660 => "iso9660",
            FileSystem::Vfat => "vfat",
        }
    }
}

/// What the media give, in the order of the devices; and what is wrong with those whose settings cannot be read: that is no reason to leave
/// the others out.
pub fn look(boot: &Boot) -> (Vec<Given>, Vec<Error>) {
    let (mut given, mut wrong) = (Vec::new(), Vec::new());
    let at = Path::new(places::MEDIUM);
    if let Err(error) = fs::create_dir_all(at) {
        return (given, vec![Error::io("cannot make", error).in_file(at)]);
    }
    for device in candidates(boot) {
        let Some(kind) = file_system(&device) else { continue };
        let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        if let Err(error) = mount(&device, at, kind.name(), flags, None) {
            tracing::warn!(%error, "cannot mount {} for a look", device.display());
            continue;
        }
        let found = sources::look(at);
        match found {
            Ok(found) => given.extend(found),
            Err(error) => wrong.push(error),
        }
        if let Err(error) = unmount(at, UnmountFlags::empty()) {
            // The next one would lie over it.
            wrong.push(Error::io("cannot unmount", error.into()).in_file(at));
            break;
        }
    }
    (given, wrong)
}

/// Discs, and every disk and partition that is not the system's.
fn candidates(boot: &Boot) -> Vec<PathBuf> {
    if has_drive() && !block_devices().iter().any(|name| name.starts_with("sr")) {
        // Its driver is a module that nobody has asked for yet.
        let _ = Command::new("/usr/sbin/modprobe").arg("sr_mod").status();
        let end = Instant::now() + DRIVE_WITHIN;
        while Instant::now() < end && !block_devices().iter().any(|name| name.starts_with("sr")) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let system = boot.system.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let other = ["loop", "ram", "zram", "dm-", "md", "nbd", "fd"];
    block_devices()
        .into_iter()
        .filter(|name| {
            !other.iter().any(|prefix| name.starts_with(prefix))
                && (system.is_empty() || !name.starts_with(&system))
        })
        .map(|name| Path::new("/dev").join(name))
        .filter(|device| *device != boot.root)
        .collect()
}

/// Names in `/sys/class/block`, discs first.
fn block_devices() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/block").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_by_key(|name| (!name.starts_with("sr"), name.clone()));
    names
}

/// True where a SCSI device says that it is a CD drive (type 5, SPC-4 table 147).
fn has_drive() -> bool {
    let devices = fs::read_dir("/sys/bus/scsi/devices").into_iter().flatten().flatten();
    devices
        .map(|device| device.path().join("type"))
        .any(|path| fs::read_to_string(path).is_ok_and(|kind| kind.trim() == "5"))
}

/// The file system of a medium that is worth a look: any on a disc, elsewhere those with cloud-init's labels.
fn file_system(device: &Path) -> Option<FileSystem> {
    let is_disc = device.file_name()?.to_str()?.starts_with("sr");
    let file = File::open(device).ok()?;
    let mut sector = [0; 2048];
    // The primary volume descriptor: ECMA-119, 8.4.
    if file.read_exact_at(&mut sector, 16 * 2048).is_ok() && sector.starts_with(b"\x01CD001") {
        return (is_disc || is_label(sector.get(40..72)?)).then_some(FileSystem::Iso9660);
    }
    file.read_exact_at(&mut sector, 0).ok()?;
    let fat = [(0x36, 0x2b), (0x52, 0x47)].into_iter().find(|(kind, _)| {
        sector.get(*kind..kind + 3) == Some(b"FAT") && sector.get(510..512) == Some(&[0x55, 0xaa])
    });
    let (_, label) = fat?;
    (is_disc || is_label(sector.get(label..label + 11)?)).then_some(FileSystem::Vfat)
}

fn is_label(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    LABELS.iter().any(|label| text.trim_end().eq_ignore_ascii_case(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_are_known_by_their_labels() {
        let dir = tempfile::tempdir().unwrap();
        let tool = |program: &str, args: &[&str]| {
            Command::new(program)
                .args(args)
                .current_dir(dir.path())
                .output()
                .is_ok_and(|out| out.status.success())
        };
        std::fs::create_dir(dir.path().join("files")).unwrap();
        for (label, kind) in
            [("cidata", Some(FileSystem::Vfat)), ("config-2", Some(FileSystem::Vfat)), ("other", None)]
        {
            let name = format!("{label}.fat");
            File::create(dir.path().join(&name)).unwrap().set_len(4 << 20).unwrap();
            if !tool("mkfs.fat", &["-n", &label.to_uppercase(), &name]) {
                eprintln!("SKIPPED: media_are_known_by_their_labels: no mkfs.fat here");
                return;
            }
            assert_eq!(file_system(&dir.path().join(&name)), kind, "{label}");
            if !tool("xorriso", &["-as", "mkisofs", "-quiet", "-V", label, "-o", "disc.iso", "files"])
                && !tool("genisoimage", &["-quiet", "-V", label, "-o", "disc.iso", "files"])
            {
                eprintln!("SKIPPED: media_are_known_by_their_labels: neither xorriso nor genisoimage here");
                continue;
            }
            assert_eq!(
                file_system(&dir.path().join("disc.iso")),
                kind.map(|_| FileSystem::Iso9660),
                "{label}"
            );
            // Whatever a disc is called, it may be the hypervisor's.
            std::fs::rename(dir.path().join("disc.iso"), dir.path().join("sr0")).unwrap();
            assert_eq!(file_system(&dir.path().join("sr0")), Some(FileSystem::Iso9660));
        }
    }
}
