//! What a guest mounts, and which of it has to be open to patch it.

use super::roots::{Looked, Root, describe};
use super::subvolumes;
use crate::guest::Mount;
use crate::linux::fstab::{Entry, Fstab};
use crate::sandbox::Subvolume;
use crate::volume::device_name::{Name, classify};
use crate::volume::{Content, Meant, Names, Scan, Volume, VolumeId};
use crate::{Finding, Kind, Result};

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

/// Says which subvolume of a volume an entry means: its path from the top level.
pub(super) type PathOf<'p> = dyn Fn(&Volume, Option<&Subvolume>) -> Result<Option<String>> + 'p;

/// Resolves what the root file system that was chosen mounts: by fstab, by mount units (which go before fstab), by the
/// types of partitions. `path_of` is asked for what has to be open only.
pub(super) fn plan(
    chosen: &Looked,
    root: &Volume,
    says: &Root,
    scan: &Scan,
    path_of: &PathOf<'_>,
) -> Result<Planned> {
    let fstab = &says.fstab;
    let root_entry = fstab.at("/");
    let mut out = Planned { mounts: Vec::new(), needed: Vec::new(), findings: Vec::new() };
    let mut root_mount = mount("/", root, root_entry);
    root_mount.subvolume = chosen.subvolume.as_ref().map(|place| place.path.clone());
    out.add(root_mount, root_entry, scan, true);
    // The last entry for a folder counts, and folders are mounted from the top down.
    let units = &says.beyond.units;
    let mut entries: Vec<&Entry> = units.iter().collect();
    for entry in fstab.entries() {
        let counts = fstab.at(&entry.at).is_some_and(|last| last.line == entry.line)
            && units.iter().all(|unit| unit.at != entry.at);
        if counts && entry.at.starts_with('/') && entry.at != "/" && !entry.is_swap() {
            entries.push(entry);
        }
    }
    let names = names(root, root_entry, &entries, &scan.volumes);
    let mut planned = Vec::new();
    let mut named = Vec::new();
    for entry in &entries {
        let meant = names.resolve(&entry.spec, &entry.kind, &scan.volumes);
        if let Meant::Volume(volume) = meant {
            named.push(volume.id.clone());
        }
        planned.push((entry.at.as_str(), Some(*entry), meant));
    }
    let taken = |at: &str| entries.iter().any(|entry| entry.at == at);
    for (at, volume) in says.beyond.by_type(root, &scan.volumes, &taken, &named) {
        planned.push((at, None, Meant::Volume(volume)));
    }
    planned.sort_by_key(|(at, ..)| at.matches('/').count());
    for (at, entry, meant) in planned {
        let needed = is_needed(at);
        match meant {
            Meant::NoDevice => {}
            Meant::Volume(volume) => {
                let mut mount = mount(at, volume, entry);
                if mount.file_system == "btrfs" {
                    let wanted =
                        entry.and_then(|entry| subvolumes::named(entry.options.iter().map(String::as_str)));
                    mount.subvolume = match (wanted, needed) {
                        (Some(Subvolume::Path(path)), _) => Some(path),
                        (_, false) => None,
                        (wanted, true) => match path_of(volume, wanted.as_ref()) {
                            Ok(path) => path,
                            Err(error) if matches!(error.kind(), Kind::Io | Kind::Interrupted) => {
                                return Err(error);
                            }
                            Err(error) => {
                                let says = format!("whose subvolume cannot be mounted: {error}");
                                out.findings.extend(entry.map(|entry| trouble(entry, &says)));
                                continue;
                            }
                        },
                    };
                }
                out.add(mount, entry, scan, needed);
            }
            Meant::Absent if needed => {
                let says = "which is on none of the given disks";
                out.findings.extend(entry.map(|entry| trouble(entry, says)));
            }
            Meant::Unsure(several) if needed => {
                let list: Vec<_> = several
                    .iter()
                    .map(|volume| format!("{} ({})", volume.id.0, describe(&volume.content)))
                    .collect();
                let says = format!("and it is not certain that this is {}", list.join(" or "));
                out.findings.extend(entry.map(|entry| trouble(entry, &says)));
            }
            Meant::Absent | Meant::Unsure(_) => {}
        }
    }
    Ok(out)
}

/// What the entries together say of names: those that are certain first.
fn names(root: &Volume, root_entry: Option<&Entry>, entries: &[&Entry], volumes: &[Volume]) -> Names {
    let mut names = Names::default();
    if let Some(entry) = root_entry {
        names.learn(&entry.spec, root);
    }
    names.claim(root);
    for entry in
        entries.iter().filter(|entry| !matches!(classify(&entry.spec), Name::Disk { .. } | Name::Path { .. }))
    {
        if let Meant::Volume(volume) = names.resolve(&entry.spec, &entry.kind, volumes) {
            names.claim(volume);
        }
    }
    for entry in root_entry.iter().chain(entries).filter(|entry| entry.option("noauto").is_none()) {
        names.observe(&entry.spec, volumes);
    }
    names
}

/// Why an entry cannot be followed.
fn trouble(entry: &Entry, says: &str) -> Finding {
    let by = if entry.line == usize::MAX { "a mount unit" } else { "fstab" };
    let says = format!("{by} mounts {} at {}, {says}", entry.spec, entry.at);
    if entry.is_optional() {
        let remedy = "add the disk that holds it, if the guest is to be patched there";
        return Finding::new("mount-optional-missing", says, remedy);
    }
    Finding::new(
        "mount-not-found",
        says,
        "name all disks of the machine, or correct the entry in the guest's fstab (by UUID, or nofail)",
    )
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
        subvolume: None,
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
        for snapshot in scan.snapshots(&volume.id) {
            let finding = Finding::new(
                "lvm-snapshot-origin",
                format!("{}, which is patched, has the LVM snapshot {snapshot}", volume.id.0),
                format!("remove the snapshot {snapshot} in the guest if it is not needed"),
            );
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
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
                    _ => scan
                        .hint(&volume.id)
                        .unwrap_or("install the target's drivers in the running guest, then use landfall disk convert"),
                },
            ),
        });
    }
}

/// Folders of a system's own, where no other system is mounted.
const OWN: &[&str] = &["/boot", "/efi", "/home", "/opt", "/root", "/srv", "/tmp", "/usr", "/var"];

/// Volumes that fstab names for a part of the system: no need to look for another root there.
pub(super) fn explained(root: &Volume, fstab: &Fstab, scan: &Scan) -> Vec<VolumeId> {
    let is_own = |at: &str| {
        OWN.iter()
            .any(|own| at.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    let entries: Vec<&Entry> = fstab.entries().iter().filter(|entry| is_own(&entry.at)).collect();
    let names = names(root, fstab.at("/"), &entries, &scan.volumes);
    entries
        .iter()
        .filter_map(|entry| match names.resolve(&entry.spec, &entry.kind, &scan.volumes) {
            Meant::Volume(volume) => Some(volume.id.clone()),
            _ => None,
        })
        .collect()
}
