//! Mounting and unmounting the guest's file systems.

use super::files::{self, Root, is_root_name};
use super::wait_for;
use crate::linux::fstab::unescape;
use crate::sandbox::protocol::{self, Cause, Failure, MountedAs, Subvolume};
use rustix::fs::{OFlags, StatVfsMountFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The kernel takes a page of options.
const SUBVOLUME_AT_MOST: usize = 4000;

type Result<T> = std::result::Result<T, Failure>;

/// What is mounted, in the order of mounting.
#[derive(Default)]
pub(super) struct Mounts(Vec<Mount>);

struct Mount {
    root: String,
    at: String,
    device: PathBuf,
    read_only: bool,
    /// What ext4 had counted when it was mounted.
    errors: u64,
}

/// How a kind of file system is mounted: its name in the kernel, and options that keep a hostile or duplicate one
/// from doing harm.
fn kernel_name(fs: &str) -> (&str, &'static str) {
    match fs {
        // The superblock may ask for a panic; the ext4 driver serves all three.
        "ext2" | "ext3" | "ext4" => ("ext4", "errors=remount-ro"),
        // Copies of a volume share a UUID.
        "xfs" => ("xfs", "nouuid"),
        // A balance that was cut short would go on, and move everything.
        "btrfs" => ("btrfs", "skip_balance,nodiscard"),
        "vfat" => ("vfat", "iocharset=iso8859-1,utf8=1,shortname=mixed,errors=remount-ro"),
        // No names that Windows could not open. Case is ours (see `windows`). "force" is not among the options: it mounts a
        // volume that waits for chkdsk.
        "ntfs" => ("ntfs3", "iocharset=utf8,windows_names"),
        other => (other, ""),
    }
}

/// The option that names a subvolume. The kernel splits options at commas and knows no way to write one.
fn subvolume_option(subvolume: &Subvolume) -> Result<String> {
    match subvolume {
        Subvolume::Id(id) => Ok(format!("subvolid={id}")),
        Subvolume::Path(path) if path.contains([',', '\0']) || path.len() > SUBVOLUME_AT_MOST => {
            Err(Failure::new(
                Cause::Unsupported,
                format!("a subvolume called {path:?} cannot be mounted by name"),
            ))
        }
        Subvolume::Path(path) => Ok(format!("subvol={path}")),
    }
}

/// Path and number of the subvolume that is mounted at `at` (proc(5): `/proc/PID/mountinfo`). The fourth field is the
/// folder of the file system that was mounted, the fifth is where; the last one has the options.
fn mounted_subvolume(table: &str, at: &Path) -> (Option<String>, Option<u64>) {
    let field = |line: &str, number: usize| {
        line.split(' ').nth(number).map(|field| unescape(field.as_bytes())).unwrap_or_default()
    };
    let Some(line) = table.lines().rev().find(|line| Path::new(&field(line, 4)) == at) else {
        return (None, None);
    };
    let options = line.rsplit(' ').next().unwrap_or_default();
    let id = options.split(',').find_map(|option| option.strip_prefix("subvolid=")?.parse().ok());
    (Some(field(line, 3)).filter(|path| path.starts_with('/')), id)
}

fn is_known(name: &str) -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.split_whitespace().last() == Some(name))
}

impl Mounts {
    pub(super) fn mount(&mut self, wanted: &protocol::Mount) -> Result<MountedAs> {
        let protocol::Mount { target, serial, fs, root, at, read_only, replay, subvolume } = wanted;
        let (fs, root, at, read_only) = (fs.as_str(), root.as_str(), at.as_str(), *read_only);
        if !is_root_name(root) {
            return Err(Failure::new(Cause::Refused, format!("{root:?} is no name of a root")));
        }
        let (name, options) = kernel_name(fs);
        if !is_known(name) {
            let _ = super::load_modules(protocol::MODULES_LATER);
        }
        if !is_known(name) {
            return Err(Failure::new(
                Cause::Unsupported,
                format!("the sandbox's kernel has no driver for {fs} ({name})"),
            ));
        }
        let options = match subvolume {
            Some(subvolume) if name == "btrfs" => format!("{options},{}", subvolume_option(subvolume)?),
            Some(_) => return Err(Failure::new(Cause::Refused, format!("{fs} has no subvolumes"))),
            None => options.to_owned(),
        };
        let device = find_disk(*target, serial)?;
        let top = format!("{}/{root}", files::ROOTS);
        fs::create_dir_all(&top).map_err(|e| Failure::errno(format!("cannot make the root {root}"), &e))?;
        // The guest's own mount point, wherever its links lead: held by a handle, named through /proc.
        let point = if at == "/" {
            None
        } else {
            let root = Root::open(root)?;
            let point = root.find(at, true)?.ok_or_else(|| {
                Failure::new(Cause::Refused, format!("the guest has no folder {at} to mount {fs} at"))
            })?;
            Some(point)
        };
        let point_path = match &point {
            Some(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()),
            None => top.clone(),
        };
        let real_path = match &point {
            Some(_) => fs::read_link(&point_path)
                .map_err(|e| Failure::errno(format!("cannot look at the folder {at}"), &e))?,
            None => PathBuf::from(top),
        };
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
        let options = std::ffi::CString::new(options).unwrap_or_default();
        let mount = |flags| rustix::mount::mount(&device, &*point_path, name, flags, &*options);
        let mounted = match (read_only, name) {
            // ntfs3 replays the log only where it may write; without, a volume that was in use may contradict itself. Where it
            // may write, it empties the log of any volume, also a clean one.
            (true, "ntfs3") if *replay => match mount(flags) {
                Ok(()) => rustix::mount::mount_remount(&*point_path, flags | MountFlags::RDONLY, &*options),
                // It waits for chkdsk, or the log cannot be replayed: it can be read all the same.
                Err(_) => mount(flags | MountFlags::RDONLY),
            },
            (true, _) => mount(flags | MountFlags::RDONLY),
            (false, _) => mount(flags),
        };
        mounted.map_err(|e| {
            let what = match subvolume {
                Some(Subvolume::Path(path)) => format!("the subvolume {path} "),
                Some(Subvolume::Id(id)) => format!("the subvolume {id} "),
                None => String::new(),
            };
            Failure::errno(format!("cannot mount {what}as {fs} at {at}"), &e.into())
        })?;
        let errors = ext4_errors(&device);
        self.0.push(Mount { root: root.into(), at: at.into(), device, read_only, errors });
        if name == "ntfs3" {
            super::windows::learn(&real_path);
        }
        let mut mounted = MountedAs::default();
        if name == "btrfs" {
            let table = fs::read_to_string("/proc/self/mountinfo")
                .map_err(|e| Failure::errno("cannot read the table of mounts", &e))?;
            (mounted.subvolume, mounted.subvolume_id) = mounted_subvolume(&table, &real_path);
            let writable = rustix::fs::access(&real_path, rustix::fs::Access::WRITE_OK);
            mounted.is_locked = !read_only && writable == Err(rustix::io::Errno::ROFS);
        }
        Ok(mounted)
    }

    pub(super) fn unmount(&mut self, root: &str, at: &str) -> Result<()> {
        let found = self.0.iter().rposition(|mount| mount.root == root && mount.at == at);
        let index = found
            .ok_or_else(|| Failure::new(Cause::Refused, format!("nothing is mounted at {at} of {root}")))?;
        let mount = self.0.remove(index);
        mount.unmount()
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.0.iter().try_for_each(Mount::sync)
    }

    /// Unmounts everything, the last first, and tells of the first failure; the rest is unmounted all the same.
    pub(super) fn finish(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        while let Some(mount) = self.0.pop() {
            outcome = outcome.and(mount.unmount());
        }
        outcome
    }
}

impl Mount {
    /// Everything written is on the disk, or an error says why not.
    fn sync(&self) -> Result<()> {
        let failed = |e: rustix::io::Errno| {
            Failure::errno(format!("cannot write what is mounted at {} to its disk", self.at), &e.into())
        };
        let root = Root::open(&self.root)?;
        let Some(point) = root.find(&self.at, true)? else { return Err(failed(rustix::io::Errno::NOENT)) };
        // syncfs wants a handle that is open for more than its path.
        let path = format!("/proc/self/fd/{}", point.as_raw_fd());
        let folder = rustix::fs::open(
            &*path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(failed)?;
        rustix::fs::syncfs(&folder).map_err(failed)?;
        let flags = rustix::fs::fstatvfs(&folder).map_err(failed)?.f_flag;
        // ext4 may stop writing without a word in the mount's flags.
        let stopped = flags.contains(StatVfsMountFlags::RDONLY) || ext4_errors(&self.device) != self.errors;
        if !self.read_only && stopped {
            return Err(Failure::new(
                Cause::Corrupt,
                format!(
                    "the kernel found an error in the file system at {} and stopped writing to it",
                    self.at
                ),
            ));
        }
        Ok(())
    }

    fn unmount(&self) -> Result<()> {
        let synced = self.sync();
        let unmounted = self.unmount_point();
        // Also what the device itself still holds: it belongs to no file system any more.
        let flushed = fs::File::open(&self.device)
            .and_then(|device| device.sync_all())
            .map_err(|e| Failure::errno(format!("cannot flush the disk of {}", self.at), &e));
        synced.and(unmounted).and(flushed)
    }

    fn unmount_point(&self) -> Result<()> {
        let failed = |e: rustix::io::Errno| Failure::errno(format!("cannot unmount {}", self.at), &e.into());
        let path = {
            let root = Root::open(&self.root)?;
            let point = root.find(&self.at, true)?;
            let point = point.ok_or_else(|| failed(rustix::io::Errno::NOENT))?;
            // Its real name: a handle would keep it busy, and a link may stand in the guest's name for it.
            fs::read_link(format!("/proc/self/fd/{}", point.as_raw_fd()))
                .map_err(|e| Failure::errno(format!("cannot unmount {}", self.at), &e))?
        };
        rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW).map_err(failed)
    }
}

/// Errors that ext4 has met on a device, ever; 0 of what is not mounted as ext4.
fn ext4_errors(device: &Path) -> u64 {
    let Some(name) = device.file_name() else { return 0 };
    let path = Path::new("/sys/fs/ext4").join(name).join("errors_count");
    fs::read_to_string(path).ok().and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// The block device at SCSI target `target` of the sandbox's one SCSI controller, if it has this serial.
fn find_disk(target: u16, serial: &str) -> Result<PathBuf> {
    let failed = |e: io::Error| Failure::errno("cannot look for the disk", &e);
    let host = wait_for(|| virtio_scsi_host(Path::new("/sys/class/scsi_host")))
        .map_err(failed)?
        .ok_or_else(|| Failure::new(Cause::Unsupported, "the sandbox has no virtio-scsi controller"))?;
    let device = format!("/sys/bus/scsi/devices/{host}:0:{target}:0");
    if !Path::new(&device).exists() {
        // It was added after the controller was scanned. The controller tells of it, too, but this waits for it.
        let scan = format!("/sys/class/scsi_host/host{host}/scan");
        fs::write(scan, format!("0 {target} 0")).map_err(failed)?;
    }
    let name = wait_for(|| match fs::read_dir(format!("{device}/block")) {
        Ok(mut names) => names.next().transpose(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    })
    .map_err(failed)?
    .ok_or_else(|| Failure::new(Cause::Unsupported, format!("no disk appeared at SCSI target {target}")))?;
    // Vital product data page 0x80: a head of four bytes, then the serial.
    let page = fs::read(format!("{device}/vpd_pg80")).map_err(failed)?;
    let found = String::from_utf8_lossy(page.get(4..).unwrap_or_default()).trim().to_owned();
    if found != serial {
        return Err(Failure::new(
            Cause::Refused,
            format!("the disk at SCSI target {target} has the serial {found:?}, not {serial:?}"),
        ));
    }
    let path = Path::new("/dev").join(name.file_name());
    // The node is there a moment before the disk can be opened (ENXIO).
    wait_for(|| match fs::File::open(&path) {
        Ok(_) => Ok(Some(())),
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(6) => Ok(None),
        Err(e) => Err(e),
    })
    .map_err(failed)?
    .ok_or_else(|| Failure::new(Cause::Unsupported, format!("{} did not appear", path.display())))?;
    Ok(path)
}

/// The number of the virtio-scsi controller.
fn virtio_scsi_host(hosts: &Path) -> io::Result<Option<u32>> {
    let Ok(entries) = fs::read_dir(hosts) else { return Ok(None) };
    for entry in entries {
        let entry = entry?;
        let driver = fs::read_to_string(entry.path().join("proc_name")).unwrap_or_default();
        let number = entry.file_name().to_string_lossy().strip_prefix("host").and_then(|n| n.parse().ok());
        if driver.trim() == "virtio_scsi" && number.is_some() {
            return Ok(number);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_mounts_tells_the_subvolume() {
        let table = "31 1 0:29 / /guest/a rw - btrfs /dev/sda rw,space_cache=v2,subvolid=5,subvol=/\n\
            32 31 0:29 /@/.snapshots/1/snap\\040shot /guest/b rw,nosuid - btrfs /dev/sda rw,subvolid=266,subvol=/@\n\
            33 32 0:30 /x /guest/b/boot\\012x rw shared:1 - btrfs /dev/sdb rw,subvolid=7\n\
            34 31 0:29 /new /guest/a rw - btrfs /dev/sda rw,subvolid=9\n";
        let found = |at: &str| mounted_subvolume(table, Path::new(at));
        let some = |path: &str, id| (Some(path.to_owned()), Some(id));
        assert_eq!(found("/guest/a"), some("/new", 9), "the last mount at a place counts");
        assert_eq!(found("/guest/b"), some("/@/.snapshots/1/snap shot", 266));
        assert_eq!(found("/guest/b/boot\nx"), some("/x", 7));
        assert_eq!(found("/guest"), (None, None));
    }

    #[test]
    fn a_name_cannot_bring_options_of_its_own() {
        let option = |path: &str| subvolume_option(&Subvolume::Path(path.into()));
        assert_eq!(option("/@ x").unwrap(), "subvol=/@ x");
        for path in ["/@,rescue=all", "/@\0", &"/x".repeat(2001)] {
            assert!(option(path).is_err(), "{path}");
        }
        assert_eq!(subvolume_option(&Subvolume::Id(256)).unwrap(), "subvolid=256");
    }
}
