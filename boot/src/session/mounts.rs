//! What a guest mounts, and which of it has to be open to patch it.

use super::roots::describe;
use crate::Finding;
use crate::guest::Mount;
use crate::linux::fstab::{Entry, Fstab};
use crate::volume::{Content, Meant, Names, Scan, Volume, VolumeId};

/// What follows from fstab.
pub(super) struct Planned {
    /// Every local file system that was found, `/` first.
    pub mounts: Vec<Mount>,
    /// Those that must be open, in the order of mounting.
    pub needed: Vec<Mount>,
    pub findings: Vec<Finding>,
}

/// Folders that plans read or write in. What is mounted elsewhere (`/home`, `/srv`) is none of their business.
const NEEDED: &[&str] = &[
    "/boot",
    "/efi",
    "/etc",
    "/usr",
    "/usr/lib",
    "/usr/lib/modules",
    "/usr/sbin",
    "/usr/bin",
    "/usr/share",
    "/lib",
    "/lib/modules",
    "/bin",
    "/sbin",
    "/opt",
    "/var",
    "/var/lib",
];

fn is_needed(at: &str) -> bool {
    NEEDED.contains(&at) || at.starts_with("/boot/")
}

/// Resolves the fstab of the root file system on `root`.
pub(super) fn plan(root: &Volume, fstab: &Fstab, scan: &Scan) -> Planned {
    let mut names = Names::default();
    let root_entry = fstab.at("/");
    if let Some(entry) = root_entry {
        names.learn(&entry.spec, root);
    }
    let mut out = Planned { mounts: Vec::new(), needed: Vec::new(), findings: Vec::new() };
    let root_mount = mount("/", root, root_entry);
    out.add(root_mount, root_entry, scan, true);
    // The last entry for a folder counts, and folders are mounted from the top down.
    let mut entries: Vec<&Entry> = Vec::new();
    for entry in fstab.entries() {
        let counts = fstab.at(&entry.at).is_some_and(|last| last.line == entry.line);
        if counts && entry.at.starts_with('/') && entry.at != "/" && !entry.is_swap() {
            entries.push(entry);
        }
    }
    entries.sort_by_key(|entry| entry.at.matches('/').count());
    for entry in entries {
        let needed = is_needed(&entry.at);
        let trouble = |says: String| {
            let says = format!("fstab mounts {} at {}, {says}", entry.spec, entry.at);
            if entry.is_optional() {
                let remedy = "add the disk that holds it, if the guest is to be patched there";
                return Finding::new("mount-optional-missing", says, remedy);
            }
            Finding::new(
                "mount-not-found",
                says,
                "name all disks of the machine, or correct the entry in the guest's fstab (by UUID, or nofail)",
            )
        };
        match names.resolve(&entry.spec, &entry.kind, &scan.volumes) {
            Meant::NoDevice => {}
            Meant::Volume(volume) => {
                out.add(mount(&entry.at, volume, Some(entry)), Some(entry), scan, needed)
            }
            Meant::Absent if needed => {
                out.findings.push(trouble("which is on none of the given disks".into()));
            }
            Meant::Unsure(several) if needed => {
                let list: Vec<_> = several
                    .iter()
                    .map(|volume| format!("{} ({})", volume.id.0, describe(&volume.content)))
                    .collect();
                out.findings
                    .push(trouble(format!("and it is not certain that this is {}", list.join(" or "))));
            }
            Meant::Absent | Meant::Unsure(_) => {}
        }
    }
    out
}

fn mount(at: &str, volume: &Volume, entry: Option<&Entry>) -> Mount {
    let file_system = match &volume.content {
        Content::FileSystem { name } => name.clone(),
        content => describe(content),
    };
    Mount {
        at: at.into(),
        volume: volume.id.clone(),
        file_system,
        spec: entry.map(|entry| entry.spec.clone()),
    }
}

impl Planned {
    fn add(&mut self, mount: Mount, entry: Option<&Entry>, scan: &Scan, needed: bool) {
        let Some(volume) = scan.volume(&mount.volume) else { return };
        let is_open = matches!(volume.content, Content::FileSystem { .. }) && scan.view(&volume.id).is_some();
        if is_open {
            self.mounts.push(mount.clone());
        }
        if !needed {
            return;
        }
        if !is_open {
            self.closed(&mount, volume, entry, scan);
            return;
        }
        let subvolume = entry.and_then(|entry| entry.option("subvol").or_else(|| entry.option("subvolid")));
        if let Some(subvolume) = subvolume.filter(|_| mount.file_system == "btrfs") {
            self.findings.push(Finding::new(
                "mount-subvolume",
                format!("{} is the subvolume {subvolume} of {}", mount.at, volume.id.0),
                "install the target's drivers in the running guest, then use landfall disk convert",
            ));
        }
        for snapshot in scan.snapshots(&volume.id) {
            self.findings.push(Finding::new(
                "lvm-snapshot-origin",
                format!("{}, which is patched, has the LVM snapshot {snapshot}", volume.id.0),
                format!("remove the snapshot {snapshot} in the guest if it is not needed"),
            ));
        }
        self.needed.push(mount);
    }

    fn closed(&mut self, mount: &Mount, volume: &Volume, entry: Option<&Entry>, scan: &Scan) {
        let why = scan.closed(&volume.id).map_or_else(|| describe(&volume.content), str::to_owned);
        let says = format!("{} lies on {}, which is not opened: {why}", mount.at, volume.id.0);
        self.findings.push(match entry.is_some_and(Entry::is_optional) {
            true => {
                Finding::new("mount-optional-missing", says, "patch what lies there by hand, if anything")
            }
            false => Finding::new(
                "mount-not-openable",
                says,
                match volume.content {
                    Content::Encrypted { .. } => {
                        "give its key in a file: --key-file FILE, or --passphrase-file FILE for the first line of one"
                    }
                    _ => "install the target's drivers in the running guest, then use landfall disk convert",
                },
            ),
        });
    }
}

/// Volumes that fstab names for something else than `/`: no need to look for another root there.
pub(super) fn explained(root: &Volume, fstab: &Fstab, scan: &Scan) -> Vec<VolumeId> {
    let mut names = Names::default();
    if let Some(entry) = fstab.at("/") {
        names.learn(&entry.spec, root);
    }
    let entries = fstab.entries().iter().filter(|entry| entry.at != "/");
    entries
        .filter_map(|entry| match names.resolve(&entry.spec, &entry.kind, &scan.volumes) {
            Meant::Volume(volume) => Some(volume.id.clone()),
            _ => None,
        })
        .collect()
}
