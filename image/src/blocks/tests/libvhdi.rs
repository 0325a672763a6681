//! For tests: libvhdi, which reads VHD and VHDX, as a second opinion.

use crate::corpus;
use crate::disk::Disk;
use crate::units::GuestOffset;
use sha2::{Digest, Sha256};
use std::path::Path;

/// What libvhdi says of a disk: its size, and the SHA-256 of what it reads, over its parent if there is one. Only the
/// first and last 40 MiB count, and those around 4 GiB, so that large disks do not take long. `None`, after a loud
/// word, where Python or its module pyvhdi (Debian: python3-libvhdi) is not installed.
pub fn reads(path: &Path, parent: Option<&Path>) -> Option<String> {
    const READ: &str = "
import hashlib, sys
try:
    import pyvhdi
except ImportError:
    print('absent'); sys.exit()
disk = pyvhdi.file(); disk.open(sys.argv[1])
if len(sys.argv) > 2:
    parent = pyvhdi.file(); parent.open(sys.argv[2]); disk.set_parent(parent)
hash, size, at = hashlib.sha256(), disk.get_media_size(), 0
while at < size:
    if at < 40 << 20 or at + (40 << 20) >= size or 4080 << 20 <= at < 4120 << 20:
        disk.seek_offset(at, 0)
        hash.update(disk.read_buffer(min(size - at, 1 << 20)))
    at += 1 << 20
print(size, hash.hexdigest())
";
    let name = |path: &Path| path.to_str().unwrap().to_owned();
    let mut arguments = vec!["-c".to_owned(), READ.to_owned(), name(path)];
    arguments.extend(parent.map(name));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = corpus::run(Path::new("/"), "python3", &arguments)?;
    if said.trim() == "absent" {
        eprintln!("SKIPPED: Python has no module pyvhdi");
        return None;
    }
    Some(said.trim().to_owned())
}

/// The same of a disk as it is read here.
pub fn expected(disk: &dyn Disk) -> String {
    const MIB: u64 = 1 << 20;
    let size = disk.size().0;
    let mut hash = Sha256::new();
    for at in (0..size).step_by(1 << 20) {
        if at < 40 * MIB || at + 40 * MIB >= size || (4080 * MIB..4120 * MIB).contains(&at) {
            let mut bytes = vec![0; (size - at).min(MIB) as usize];
            disk.read_at(GuestOffset(at), &mut bytes).unwrap();
            hash.update(&bytes);
        }
    }
    format!("{size} {:x}", hash.finalize())
}
