//! Disks of Windows for tests, made by `tools/make-windows-disk.sh`, and what looks at them without the sandbox: ntfs-3g.

#![allow(dead_code, reason = "each test program uses its part")]

use super::{FileDisk, tools, try_run};
use landfall_image::disk::DiskMut;
use landfall_image::partition;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// A disk of this layout (`bios`, `bios-one`, `uefi`) with further files (path as the tool takes it, file); `None`, and a loud
/// line, where it cannot be made here.
pub fn disk(folder: &Path, layout: &str, files: &[(&str, &Path)]) -> Option<PathBuf> {
    if !tools(&["mkntfs", "ntfs-3g", "setfattr", "mcopy", "mkfs.fat", "sfdisk"]) {
        return None;
    }
    let disk = folder.join(format!("{layout}.raw"));
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/make-windows-disk.sh");
    let files = files.iter().map(|(path, file)| format!("{path}={}", file.display()));
    let out = Command::new(tool).arg(layout).arg(&disk).args(files).stdin(Stdio::null()).output().unwrap();
    if !out.status.success() {
        eprintln!("SKIPPED: no disk of Windows: {}", String::from_utf8_lossy(&out.stderr));
        return None;
    }
    Some(disk)
}

/// First byte and length of a partition.
pub fn part(disk: &Path, number: u32) -> (u64, u64) {
    let disk: Arc<dyn DiskMut> = FileDisk::open(disk);
    let table = partition::read(&disk).unwrap().unwrap();
    let entry = table.entries.iter().find(|entry| entry.number == number).unwrap();
    (entry.range.start().0, entry.range.len().0)
}

/// A partition as a file of its own.
pub fn cut(disk: &Path, number: u32, out: &Path) {
    let (at, len) = part(disk, number);
    copy(disk, at, out, 0, len);
}

/// Copies `len` bytes, zeros as holes.
fn copy(from: &Path, from_at: u64, to: &Path, to_at: u64, len: u64) {
    let mut from = File::open(from).unwrap();
    let mut to = File::options().write(true).create(true).truncate(false).open(to).unwrap();
    to.set_len(to.metadata().unwrap().len().max(to_at + len)).unwrap();
    from.seek(SeekFrom::Start(from_at)).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < len {
        let now = usize::try_from((len - done).min(1 << 20)).unwrap();
        from.read_exact(&mut buffer[..now]).unwrap();
        if buffer[..now].iter().any(|&byte| byte != 0) {
            to.seek(SeekFrom::Start(to_at + done)).unwrap();
            to.write_all(&buffer[..now]).unwrap();
        }
        done += now as u64;
    }
}

/// Writes these bytes at a place of the file.
pub fn poke(file: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
}

/// Where the flags of an NTFS volume lie in its file that begins at `start`: in the record $Volume.
pub fn volume_flags(file: &Path, start: u64) -> u64 {
    let file = File::open(file).unwrap();
    let mut boot = [0; 512];
    file.read_exact_at(&mut boot, start).unwrap();
    let mft = u64::from_le_bytes(boot[0x30..0x38].try_into().unwrap()) * u64::from(boot[0x0d]) * 512;
    let at = start + mft + 3 * 1024;
    let mut record = [0; 1024];
    file.read_exact_at(&mut record, at).unwrap();
    let mut here = usize::from(record[0x14]);
    while record[here..here + 4] != 0x70_u32.to_le_bytes() {
        here += usize::try_from(u32::from_le_bytes(record[here + 4..here + 8].try_into().unwrap())).unwrap();
    }
    at + here as u64 + 0x18 + 10
}

/// An NTFS volume mounted by ntfs-3g at byte `start` of a file; unmounted, and its process ended, when dropped.
pub struct Fuse {
    pub at: PathBuf,
    child: Child,
    loop_device: String,
}

/// A loop device of the NTFS volume at byte `start` of a file, of its own length: its last sector is a copy of the first.
fn loop_device(image: &Path, start: u64) -> Result<String, String> {
    let mut boot = [0; 512];
    File::open(image).unwrap().read_exact_at(&mut boot, start).unwrap();
    let sectors = u64::from_le_bytes(boot[0x28..0x30].try_into().unwrap()) + 1;
    let line = format!("losetup --show -f -o {start} --sizelimit {} {}", sectors * 512, image.display());
    try_run(&line).map(|device| device.trim().to_owned())
}

impl Fuse {
    /// `None`, and a loud line, where this may not be done here.
    pub fn new(image: &Path, start: u64, at: &Path, options: &str) -> Option<Fuse> {
        std::fs::create_dir_all(at).unwrap();
        let loop_device = match loop_device(image, start) {
            Ok(device) => device,
            Err(error) => {
                eprintln!("SKIPPED: a loop device needs root: {error}");
                return None;
            }
        };
        let child = Command::new("ntfs-3g")
            .args([
                "-o",
                &format!("no_detach,permissions,compression,streams_interface=windows,efs_raw,{options}"),
            ])
            .arg(&loop_device)
            .arg(at)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut fuse = Fuse { at: at.to_owned(), child, loop_device };
        for _ in 0..300 {
            let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
            if table.lines().any(|line| line.split(' ').nth(1) == at.to_str()) {
                return Some(fuse);
            }
            if fuse.child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("ntfs-3g does not mount {}", image.display());
    }

    /// An extended attribute in hexadecimal digits, as `getfattr` prints it; `None` where there is none.
    pub fn attribute(&self, path: &str, name: &str) -> Option<String> {
        let path = self.at.join(path);
        let out = Command::new("getfattr")
            .args(["--absolute-names", "-h", "--only-values", "-n", name])
            .arg(path)
            .output()
            .unwrap();
        out.status.success().then(|| out.stdout.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Sets an extended attribute (`0x…`).
    #[track_caller]
    pub fn set_attribute(&self, path: &str, name: &str, value: &str) {
        let path = self.at.join(path);
        let done =
            Command::new("setfattr").args(["-h", "-n", name, "-v", value]).arg(&path).status().unwrap();
        assert!(done.success(), "{name} of {}", path.display());
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let _ = try_run(&format!("umount {}", self.at.display()));
        // FUSE's unmount returns before all is written.
        let _ = self.child.wait();
        let _ = try_run(&format!("losetup -d {}", self.loop_device));
    }
}

/// What ntfsfix says without changing anything, which must be that nothing is wrong.
#[track_caller]
pub fn is_sound(image: &Path, start: u64) {
    let device = loop_device(image, start).unwrap();
    let said = try_run(&format!("ntfsfix -n {device}"));
    let info = try_run(&format!("ntfsinfo -m {device}"));
    let _ = try_run(&format!("losetup -d {device}"));
    let said = said.unwrap_or_else(|said| panic!("{said}"));
    assert!(said.contains("processed successfully"), "{said}");
    let info = info.unwrap_or_else(|said| panic!("{said}"));
    // Windows keeps others there; the first one is "dirty".
    let flags = info.lines().find_map(|line| line.trim().strip_prefix("Volume Flags: 0x")).unwrap();
    let flags = u16::from_str_radix(&flags[..4], 16).unwrap();
    assert_eq!(flags & 1, 0, "{info}");
}
