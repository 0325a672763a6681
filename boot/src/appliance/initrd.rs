//! What the kernel starts from before it has a disk: our own program as PID 1, and the drivers of disks and of the root. On a disc
//! also [`LOSETUP`] with its libraries: the root is a file there.
//!
//! An archive that the kernel unpacks (`newc`, zstd), with three things in it: `/init`, `/landfall/modules/*.ko` and
//! `/landfall/modules.list`:
//!
//! ```text
//! module NAME NEED…          a module in the archive, and all that it needs in the order of loading
//! alias PATTERN NAME         what hardware it drives, as the kernel names it (modalias, with * ? [])
//! always NAME                wanted whatever the hardware is
//! ```

use super::modules::Modules;
use crate::sandbox::{Archive, stripped};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The file by which PID 1 knows what it is.
pub const MARKER: &str = "/landfall/appliance";
/// The folder of the modules.
pub const MODULES: &str = "/landfall/modules";
/// The program that makes a file a device; its calls into the kernel would be unsafe code of ours.
pub const LOSETUP: &str = "/usr/sbin/losetup";
/// Which there are.
pub const LIST: &str = "/landfall/modules.list";

/// Controllers that a hypervisor or a server has its disks on, and what hangs on them.
const DISKS: [&str; 27] = [
    "virtio_blk",
    "virtio_scsi",
    "vmw_pvscsi",
    "mptspi",
    "mptsas",
    "mpt3sas",
    "megaraid_sas",
    "sym53c8xx",
    "BusLogic",
    "ahci",
    "ata_piix",
    "ata_generic",
    "nvme",
    "hv_storvsc",
    "hv_vmbus",
    "xen_blkfront",
    "xen_scsifront",
    "hpsa",
    "aacraid",
    "smartpqi",
    "usb_storage",
    "uas",
    "xhci_pci",
    "ehci_pci",
    "uhci_hcd",
    "ohci_pci",
    "vmd",
];

/// Wanted on every machine.
const ALWAYS: [&str; 2] = ["sd_mod", "squashfs"];

/// Wanted on a disc.
const CD: [&str; 3] = ["sr_mod", "isofs", "loop"];

/// Files that are not ours, by their paths.
pub type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// The archive, compressed; `program` is this program (a static one), `disc`, for a disc, [`LOSETUP`] with what it needs.
///
/// # Errors
/// `Unsupported` where the program is not static, `Corrupt` where the kernel lacks a driver.
pub fn build(modules: &Modules, program: &[u8], disc: Option<&Files>) -> Result<Vec<u8>> {
    let program = stripped(program).ok_or_else(|| {
        Error::unsupported("is no static program: it cannot be the appliance's first one")
            .hint("use the released program, or build with .cargo/config.toml as it is")
    })?;
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "run", "new", "landfall", MODULES.trim_start_matches('/')] {
        archive.folder(folder, 0o755);
    }
    archive.add("dev/console", 0o020_600, &[], Some((5, 1)));
    archive.file(MARKER.trim_start_matches('/'), 0o444, b"");
    archive.file("init", 0o755, &program);
    let mut folders = BTreeSet::new();
    for (path, content) in disc.into_iter().flatten() {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            let folder = path.get(..end).unwrap_or_default();
            if folders.insert(folder) {
                archive.folder(folder, 0o755);
            }
        }
        archive.file(path, 0o755, content);
    }
    let always: &[&str] = match disc {
        Some(_) => &[ALWAYS[0], ALWAYS[1], CD[0], CD[1], CD[2]],
        None => &ALWAYS,
    };
    let wanted: Vec<&str> = DISKS.iter().chain(always).copied().collect();
    let mut list = String::new();
    for name in modules.closure(wanted.iter().copied())? {
        let Some(module) = modules.modules.get(&name) else { continue };
        archive.file(&format!("{}/{name}.ko", MODULES.trim_start_matches('/')), 0o444, &module.bytes);
        let mut line = format!("module {name}");
        for need in modules.closure([name.as_str()])?.iter().filter(|need| **need != name) {
            line.push(' ');
            line.push_str(need);
        }
        list.push_str(&line);
        list.push('\n');
        for (_, alias) in module.info.iter().filter(|(key, _)| key == "alias") {
            list.push_str(&format!("alias {alias} {name}\n"));
        }
    }
    for name in always {
        list.push_str(&format!("always {name}\n"));
    }
    archive.file(LIST.trim_start_matches('/'), 0o444, list.as_bytes());
    let failed = |e| Error::io("cannot compress the initrd", e);
    let mut encoder = zstd::Encoder::new(Vec::new(), 19).map_err(failed)?;
    // The kernel takes windows of up to 8 MiB.
    encoder.window_log(23).map_err(failed)?;
    std::io::Write::write_all(&mut encoder, &archive.finish()).map_err(failed)?;
    encoder.finish().map_err(failed)
}
