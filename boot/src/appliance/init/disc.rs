//! Discs: which is the appliance's, and its root, which is a file on it.
//!
//! ```text
//! drive, or a disk that a disc was copied to -> ISO 9660, at /run/landfall-disc -> losetup: the root's file as a device -> the root
//! ```
//! The mount goes along to the system that is started (with all of `/run`): it is in use as long as the root is.
//!
//! Deliberately absent: a root in memory, so that the disc could be taken out. It would take more of it than the appliance has for its work.

use super::super::{initrd, layout};
use super::found::Boot;
use landfall_image::Source;
use landfall_image::iso::{EntryKind, Iso};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the disc is mounted that this system runs from.
pub const DISC: &str = "/run/landfall-disc";

/// The name of a disc of the appliance's in this device; `None` for everything else, and where nothing can be read.
pub(super) fn volume(device: &Path) -> Option<String> {
    let iso = Iso::open(Source::open(device).ok()?).ok()?;
    if !iso.volume().starts_with(layout::DISC_NAME) {
        return None;
    }
    let root = iso.find(layout::DISC_ROOT).ok()??;
    (root.kind == EntryKind::File && root.size.0 > 0).then(|| iso.volume().to_owned())
}

/// Mounts the root of the disc in one of the devices that the boot names: the first that can be read counts.
pub(super) fn mount_root(boot: Boot, at: &str) -> io::Result<Boot> {
    let mut devices: Vec<PathBuf> = vec![boot.root.clone()];
    devices.extend(boot.doubles.iter().cloned());
    let mut failed = Vec::new();
    for (index, device) in devices.iter().enumerate() {
        match mount_of(device, at) {
            Ok(()) => {
                let (root, system) = (device.clone(), device.clone());
                devices.remove(index);
                let trouble = [boot.trouble, failed].concat();
                return Ok(Boot { root, system, doubles: devices, trouble, ..boot });
            }
            Err(error) => failed.push(error.to_string()),
        }
    }
    Err(io::Error::other(failed.join("; ")))
}

fn mount_of(device: &Path, at: &str) -> io::Result<()> {
    let failed = |what: &Path, says: String| {
        let _ = unmount(DISC, UnmountFlags::DETACH);
        Err(io::Error::other(format!("cannot mount {}: {says}", what.display())))
    };
    fs::create_dir_all(DISC)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV;
    let flags_of_disc = flags | MountFlags::NOSUID | MountFlags::NOEXEC;
    if let Err(error) = mount(device, DISC, "iso9660", flags_of_disc, None) {
        return failed(device, error.to_string());
    }
    let file = Path::new(DISC).join(layout::DISC_ROOT);
    let looped = match losetup(&["--read-only", "--find", "--show", &file.to_string_lossy()]) {
        Ok(looped) => looped,
        Err(error) => return failed(&file, error.to_string()),
    };
    if let Err(error) = mount(&looped, at, "squashfs", flags, None) {
        let _ = losetup(&["--detach", &looped]);
        return failed(&file, error.to_string());
    }
    Ok(())
}

fn losetup(args: &[&str]) -> io::Result<String> {
    let out = Command::new(initrd::LOSETUP).args(args).env_clear().stdin(Stdio::null()).output()?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
        false => Err(io::Error::other(format!(
            "losetup: {} ({})",
            String::from_utf8_lossy(&out.stderr).trim(),
            out.status
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::iso::create::{IsoOptions, NewIso};
    use landfall_image::{Disk, GuestOffset};

    #[test]
    fn a_disc_of_ours_has_our_name_and_a_root() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sr0");
        assert_eq!(volume(&path), None);
        for (name, files, is_ours) in [
            ("LANDFALL_0123456789ABCDEF", &[layout::DISC_ROOT][..], true),
            ("LANDFALL_0123456789ABCDEF", &["landfall/other"], false),
            ("DEBIAN", &[layout::DISC_ROOT], false),
        ] {
            let options = IsoOptions { volume: name.into(), ..IsoOptions::default() };
            let mut iso = NewIso::new(options).unwrap();
            for file in files {
                iso.file(file, b"root".to_vec()).unwrap();
            }
            let disk = iso.finish().unwrap().disk;
            let mut bytes = vec![0; usize::try_from(disk.size().0).unwrap()];
            disk.read_at(GuestOffset(0), &mut bytes).unwrap();
            fs::write(&path, &bytes).unwrap();
            assert_eq!(volume(&path).as_deref(), is_ours.then_some(name), "{name} {files:?}");
            // Cut off anywhere it is none, or still one.
            for len in [0, 512, 16 << 11, 17 << 11, 20 << 11] {
                fs::write(&path, &bytes[..len]).unwrap();
                let _ = volume(&path);
            }
        }
    }
}
