//! Windows on a machine's disks: which volume is its root, what starts it, and in which state it was left.
//!
//! A root has a folder (`Windows`, `WINNT`, or another name that somebody chose) with `System32\config\SYSTEM`. `Windows.old`
//! is none: what an upgrade left lies one folder deeper. Where there are several, or a Linux beside it, all are named and none
//! is patched, unless the caller chooses: which one the boot menu starts is nobody's guess.
//!
//! What starts it lies on the EFI system partition (`/EFI/Microsoft/Boot/BCD`), on a partition of its own ("System Reserved",
//! `/bootmgr` and `/Boot/BCD`), or on the root itself. The first two are no folders of Windows; they are mounted at the reserved
//! paths [`ESP_AT`] and [`BOOT_AT`], which no name on NTFS can be. Other volumes are listed, and not mounted.

use super::beyond::ESP;
use super::mounts::Planned;
use super::roots::{Looked, describe};
use crate::check::Finding;
use crate::guest::Mount;
use crate::linux::lenient::Lenient;
use crate::patch::{Action, Edit};
use crate::sandbox::SandboxTree;
use crate::tree::{GuestTree, NodeKind};
use crate::volume::ntfs::{Log, State};
use crate::volume::scan::{BITLOCKER, DYNAMIC, SPACES};
use crate::volume::{Content, Scan, Volume, VolumeId};
use crate::windows::facts;
use crate::{Error, Kind, Result};
use landfall_image::{DiskMut, partition};
use std::sync::Arc;

/// Where the EFI system partition is reached.
pub const ESP_AT: &str = "/:esp";
/// Where the partition with the boot files is reached, if it is neither the root nor the EFI system partition.
pub const BOOT_AT: &str = "/:boot";

/// The file with what a hibernated system had in memory.
const HIBERNATION_FILE: &str = "/hiberfil.sys";

/// What was seen of Windows on one volume.
#[derive(Clone, Debug, Default)]
pub(super) struct OfWindows {
    /// Folders with an installation, as they are called there: `/Windows`.
    pub folders: Vec<String>,
    /// `/bootmgr` and `/Boot/BCD`, or what started Windows XP.
    pub has_boot: bool,
    /// `/EFI/Microsoft/Boot/BCD`
    pub has_efi: bool,
    /// Its system is suspended: the mark at the beginning of hiberfil.sys.
    pub hibernated: Option<String>,
    /// Of NTFS, before the kernel mounted it.
    pub state: Option<State>,
}

/// Looks at an NTFS volume.
pub(super) fn look(id: &VolumeId, tree: &SandboxTree<'_>, state: Option<State>) -> Result<Looked> {
    let lenient = Lenient::new(tree);
    let mut windows = boot_files(&lenient)?;
    windows.folders = facts::folders(&lenient)?;
    if windows.folders.is_empty()
        && let Some((path, error)) = lenient.failed().into_iter().next()
    {
        return Err(Error::corrupt(format!("{path}: {error}")));
    }
    windows.hibernated = match tree.head(HIBERNATION_FILE, 4096) {
        Ok(head) => head.and_then(|head| hibernation(&head)),
        Err(error) if matches!(error.kind(), Kind::Io | Kind::Interrupted) => return Err(error),
        Err(error) => Some(error.says().to_owned()),
    };
    windows.state = state;
    Ok(Looked {
        id: id.clone(),
        subvolume: None,
        root: None,
        loader_roots: Vec::new(),
        mapped: Vec::new(),
        windows,
    })
}

/// What starts Windows on a volume.
pub(super) fn boot_files(tree: &dyn GuestTree) -> Result<OfWindows> {
    let is_file = |path: &str| -> Result<bool> {
        Ok(tree.metadata(path)?.is_some_and(|meta| meta.kind == NodeKind::File))
    };
    let has_boot =
        is_file("/bootmgr")? && is_file("/Boot/BCD")? || is_file("/ntldr")? && is_file("/boot.ini")?;
    Ok(OfWindows { has_boot, has_efi: is_file("/EFI/Microsoft/Boot/BCD")?, ..OfWindows::default() })
}

/// The mark of a hibernation file that holds a system; `None` where it holds none (any more).
fn hibernation(head: &[u8]) -> Option<String> {
    let mark = head.get(..4)?;
    // Zeros: never used, or discarded. "wake": its system has been resumed.
    if head.iter().all(|&byte| byte == 0) || mark.eq_ignore_ascii_case(b"wake") {
        return None;
    }
    Some(mark.escape_ascii().to_string())
}

/// A Windows that can be chosen.
#[derive(Clone, Copy)]
pub(super) struct Installation<'l> {
    looked: &'l Looked,
    folder: &'l str,
}

impl Installation<'_> {
    /// For people: `disk0p2 holds Windows (in /Windows)`.
    pub(super) fn name(&self) -> String {
        format!("{} holds Windows (in {})", self.looked.id.0, self.folder)
    }

    /// For choosing it: `disk0p2`, and with its folder where a volume has several.
    fn choice(&self) -> String {
        match self.looked.windows.folders.len() {
            0 | 1 => self.looked.id.0.clone(),
            _ => format!("{}:{}", self.looked.id.0, self.folder),
        }
    }

    /// Folders with other installations on its volume.
    pub(super) fn others(&self) -> Vec<String> {
        let all = self.looked.windows.folders.iter();
        all.filter(|folder| *folder != self.folder).cloned().collect()
    }

    /// Other systems that sleep. Each believes to know all volumes that it had mounted, also the one that is to be written to.
    pub(super) fn asleep_beside(&self, looked: &[Looked]) -> Vec<Finding> {
        let others = looked.iter().filter(|other| {
            !std::ptr::eq(*other, self.looked)
                && !other.windows.folders.is_empty()
                && other.windows.hibernated.is_some()
        });
        let finding = |other: &Looked| {
            Finding::new(
                "windows-hibernated",
                format!(
                    "another Windows, on {}, is hibernated, and may hold parts of {} in memory",
                    other.id.0, self.looked.id.0
                ),
                "start it in the source machine, run `powercfg /h off` and then `shutdown /s /t 0`, and convert again; or leave out its disk, if it has one of its own",
            )
        };
        others.map(finding).collect()
    }

    /// What becomes of a suspended system.
    pub(super) fn hibernation(&self, discard: bool, findings: &mut Vec<Finding>) -> Vec<Edit> {
        let Some(mark) = &self.looked.windows.hibernated else { return Vec::new() };
        let says = format!(
            "Windows on {} is hibernated, or was shut down with Fast Startup: {HIBERNATION_FILE} holds what it had in memory ({mark})",
            self.looked.id.0
        );
        if !discard {
            findings.push(Finding::new(
                "windows-hibernated",
                says,
                "in the source machine run `powercfg /h off` and then `shutdown /s /t 0`, and convert again; or give up what it had in memory: --discard-hibernation",
            ));
            return Vec::new();
        }
        findings.push(Finding::new(
            "windows-hibernation-discarded",
            format!("{says}; it is removed, and Windows starts anew"),
            "expect what the programs had not saved to be gone, and let Windows check its volumes if it asks to",
        ));
        vec![Edit {
            path: HIBERNATION_FILE.into(),
            action: Action::Remove,
            why: "a suspended system believes in the old hardware; without this file Windows starts anew"
                .into(),
            labels: Vec::new(),
        }]
    }
}

/// The Windows that is to be converted, or why none is; `None` where there is none, or where a Linux was chosen.
pub(super) fn choose<'l>(
    looked: &'l [Looked],
    scan: &Scan,
    wanted: Option<&VolumeId>,
) -> Option<std::result::Result<Installation<'l>, Finding>> {
    let installations: Vec<Installation<'l>> = looked
        .iter()
        .filter(|looked| scan.volume(&looked.id).is_some())
        .flat_map(|looked| looked.windows.folders.iter().map(move |folder| Installation { looked, folder }))
        .collect();
    let mut left = installations.clone();
    if let Some(wanted) = wanted {
        left.retain(|one| one.looked.id == *wanted || one.choice() == wanted.0);
    }
    let linux = looked.iter().filter(|looked| looked.root.is_some() && wanted.is_none());
    let linux: Vec<String> = linux
        .filter_map(|looked| Some(format!("{} ({})", looked.name(), looked.root.as_ref()?.name)))
        .collect();
    match (left.as_slice(), linux.as_slice()) {
        ([], _) if looked.iter().all(|looked| looked.root.is_none()) && !installations.is_empty() => {
            let names: Vec<String> = installations.iter().map(Installation::choice).collect();
            let wanted = wanted.map_or("", |wanted| wanted.0.as_str());
            Some(Err(Finding::new(
                "no-operating-system",
                format!("{wanted} was chosen as root, but holds no Windows"),
                format!("choose one of: {}", names.join(", ")),
            )))
        }
        ([], _) => None,
        ([only], []) => Some(Ok(*only)),
        (several, linux) => {
            let mut names: Vec<String> =
                several.iter().map(|one| format!("{} ({})", one.choice(), one.folder)).collect();
            names.extend_from_slice(linux);
            Some(Err(Finding::new(
                "root-several",
                format!(
                    "{} hold an operating system each, and nothing tells which one the machine starts",
                    names.join(" and ")
                ),
                "choose one with --root, or leave the disk that does not belong to the machine out",
            )))
        }
    }
}

/// True where these are the mounts of a Windows.
pub(super) fn is_root(mounts: &[Mount]) -> bool {
    mounts.first().is_some_and(|mount| mount.at == "/" && mount.file_system == "ntfs")
}

/// What is mounted for a Windows: its own volume, and those that it starts from.
pub(super) fn mounts(
    installation: &Installation<'_>,
    looked: &[Looked],
    scan: &Scan,
    disks: &[Arc<dyn DiskMut>],
) -> Result<Planned> {
    let mut out = Planned { mounts: Vec::new(), needed: Vec::new(), findings: Vec::new() };
    let Some(root) = scan.volume(&installation.looked.id) else { return Ok(out) };
    let volumes_with = |has: &dyn Fn(&OfWindows) -> bool| -> Vec<&Volume> {
        let seen = looked.iter().filter(|looked| has(&looked.windows));
        seen.filter_map(|looked| scan.volume(&looked.id)).collect()
    };
    let disk_of = |mount: &Mount| scan.volume(&mount.volume).map(|volume| volume.disk);
    let add = |out: &mut Planned, at: &str, volume: &Volume| {
        let mount = Mount {
            at: at.into(),
            volume: volume.id.clone(),
            file_system: describe(&volume.content),
            subvolume: None,
            spec: None,
        };
        out.mounts.push(mount.clone());
        out.needed.push(mount);
    };
    add(&mut out, "/", root);
    let mut findings: Vec<Finding> = about_own_encryption(root, scan).into_iter().collect();
    let with_efi = volumes_with(&|windows| windows.has_efi);
    // Without a store in it, it is still the place where one would have to be.
    let by_type = || {
        let is_esp = |volume: &&Volume| {
            volume.disk == root.disk
                && volume.part_type.as_deref() == Some(ESP)
                && volume.content == Content::FileSystem { name: "vfat".into() }
        };
        scan.volumes.iter().find(is_esp)
    };
    let mut unclear = Vec::new();
    let on_its_disk = |found: Vec<&Volume>| -> std::result::Result<Option<VolumeId>, Vec<String>> {
        let near: Vec<&Volume> = found.iter().copied().filter(|volume| volume.disk == root.disk).collect();
        match if near.is_empty() { found } else { near }.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(only.id.clone())),
            several => Err(several.iter().map(|volume| volume.id.0.clone()).collect()),
        }
    };
    match on_its_disk(with_efi) {
        Ok(found) => {
            let volume = found.and_then(|id| scan.volume(&id)).or_else(by_type);
            if let Some(volume) = volume.filter(|volume| volume.id != root.id) {
                add(&mut out, ESP_AT, volume);
            }
        }
        Err(several) => unclear.push(several),
    }
    let mut with_boot = volumes_with(&|windows| windows.has_boot);
    // Beside an EFI system partition of its own the boot files of another disk start nothing.
    if out.mounts.iter().any(|mount| mount.at == ESP_AT && disk_of(mount) == Some(root.disk)) {
        with_boot.retain(|volume| volume.disk == root.disk);
    }
    let mut active = Vec::new();
    for volume in &with_boot {
        if is_active(volume, disks)? {
            active.push(*volume);
        }
    }
    // The BIOS starts the active partition. Without one that is known, the root's own files count.
    let starting = match active.as_slice() {
        [] if with_boot.iter().any(|volume| volume.id == root.id) => Ok(None),
        [] => on_its_disk(with_boot),
        _ => on_its_disk(active),
    };
    match starting {
        Ok(found) => {
            if let Some(volume) = found.and_then(|id| scan.volume(&id)).filter(|volume| volume.id != root.id)
            {
                add(&mut out, BOOT_AT, volume);
            }
        }
        Err(several) => unclear.push(several),
    }
    for several in unclear {
        findings.push(Finding::new(
            "windows-boot-unclear",
            format!("{} hold boot files of Windows each, and nothing tells which are used", several.join(" and ")),
            "leave out the disk that does not belong to the machine, or remove the boot files that are not used in the source machine",
        ));
    }
    out.findings = findings;
    Ok(out)
}

/// True for an active partition of an MBR.
fn is_active(volume: &Volume, disks: &[Arc<dyn DiskMut>]) -> Result<bool> {
    let (Some(disk), Some(number)) = (disks.get(volume.disk), volume.partition) else { return Ok(false) };
    let table = match partition::read(disk) {
        Ok(Some(table)) if table.scheme == partition::Scheme::Mbr => table,
        Ok(_) => return Ok(false),
        Err(error) if matches!(error.kind(), Kind::Io | Kind::Interrupted) => return Err(error),
        Err(_) => return Ok(false),
    };
    Ok(table.entries.iter().any(|entry| entry.number == number && entry.bootable))
}

/// What is to be said of the state in which the mounted volumes were left.
pub(super) fn about_states(needed: &[Mount], looked: &[Looked]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for mount in needed {
        let seen = looked.iter().find(|looked| looked.id == mount.volume && mount.file_system == "ntfs");
        let Some(seen) = seen else { continue };
        let id = &mount.volume.0;
        let Some(state) = &seen.windows.state else {
            findings.push(Finding::new(
                "windows-ntfs-log-damaged",
                format!("the records of {id} that tell in which state it was left cannot be read"),
                "in the source machine run `chkdsk /f` for this volume, shut the machine down, then convert again",
            ));
            continue;
        };
        let (major, minor) = state.version;
        if major < 3 {
            findings.push(Finding::new(
                "windows-ntfs-old",
                format!("{id} is NTFS {major}.{minor}, of Windows NT 4; 3.0 and newer are handled"),
                "convert the disks alone with landfall disk convert",
            ));
        }
        if state.is_dirty {
            findings.push(Finding::new(
                "windows-ntfs-dirty",
                format!("{id} is marked dirty: Windows wants to check it before it uses it again"),
                "in the source machine run `chkdsk /f` for this volume (`chkntfs C:` tells whether it waits for a check), restart it, shut it down, then convert again",
            ));
        }
        match state.log {
            Log::Clean => {}
            Log::Pending { version: (major, minor) } => findings.push(Finding::new(
                "windows-ntfs-log",
                format!("{id} was in use when its disk was copied; its journal (version {major}.{minor}) is replayed into the copy"),
                "nothing, if this is a snapshot of a running machine; else shut the source machine down, and convert again",
            )),
            Log::Unknown => findings.push(Finding::new(
                "windows-ntfs-log-damaged",
                format!("the journal of {id} has no beginning that is known"),
                "in the source machine run `chkdsk /f` for this volume, shut the machine down, then convert again",
            )),
        }
    }
    findings
}

/// Volumes of Windows that are recognised and not opened: notes where the system was found without them, else they may hide it.
pub(super) fn about_storage(scan: &Scan, is_found: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for volume in &scan.volumes {
        let id = &volume.id.0;
        let (kind, remedy) = match &volume.content {
            Content::Encrypted { scheme } if scheme == BITLOCKER => {
                if !volume.is_opened_in(&scan.volumes) {
                    findings.push(about_bitlocker(id, is_found));
                }
                continue;
            }
            Content::Member { of } if of == DYNAMIC => (
                "is part of a Dynamic Disk (LDM)",
                "move the system to a basic disk in the source machine (by a backup and restore, or a tool that converts dynamic disks to basic ones), then convert again",
            ),
            Content::Member { of } if of == SPACES => (
                "is part of a pool of Storage Spaces",
                "move the system to a disk that is in no pool, then convert again",
            ),
            Content::FileSystem { name } if name == "refs" => {
                ("is ReFS", "move the system to NTFS, or convert the disks alone with landfall disk convert")
            }
            _ => continue,
        };
        findings.push(match is_found {
            true => Finding::new(
                "windows-data-not-opened",
                format!("{id} {kind}, and is copied as it is"),
                "bring the disk online in the target machine's Disk Management if it is not",
            ),
            false => Finding::new(
                "windows-system-not-opened",
                format!("no system was found, and {id} {kind}, which is not seen into"),
                remedy,
            ),
        });
    }
    findings
}

/// A volume of BitLocker that stayed closed.
fn about_bitlocker(id: &str, is_found: bool) -> Finding {
    let says = format!("{id} is encrypted with BitLocker, and cannot be seen into");
    match is_found {
        true => Finding::new(
            "windows-bitlocker-data",
            says,
            "have its recovery password at hand: Windows may ask for it once on new hardware",
        ),
        false => Finding::new(
            "windows-bitlocker",
            says,
            "give its recovery password (48 digits with hyphens) in a file: --passphrase-file FILE; or suspend BitLocker in the source machine (`manage-bde -protectors -disable C: -rebootcount 0`), shut it down, and convert again",
        ),
    }
}

/// What is to be said where Windows itself lies on BitLocker.
fn about_own_encryption(root: &Volume, scan: &Scan) -> Option<Finding> {
    let is_bitlocker = |id: &VolumeId| {
        let container = scan.volume(id).map(|volume| &volume.content);
        matches!(container, Some(Content::Encrypted { scheme }) if scheme == BITLOCKER)
    };
    let container = root.on.iter().find(|id| is_bitlocker(id))?;
    Some(Finding::new(
        "windows-bitlocker-system",
        format!("Windows lies on {}, which is encrypted with BitLocker and stays so", container.0),
        "have its recovery password at hand for the first start, or suspend BitLocker in the source machine before the last copy",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::mem::MemTree;

    #[test]
    fn a_hibernation_file_is_told_by_its_mark() {
        for active in [&b"hibr"[..], b"HIBR", b"RSTR", b"HORM", b"\x01abc"] {
            let head = [active, &[0; 4092]].concat();
            assert!(hibernation(&head).is_some(), "{active:?}");
        }
        for over in [&b""[..], b"wa", b"wake", b"WAKE....", &[0; 4096]] {
            assert_eq!(hibernation(over), None, "{over:?}");
        }
        assert!(hibernation(b"\0\0\0\0 something").is_some());
    }

    #[test]
    fn boot_files_are_told_from_each_other() {
        let seen = |tree: MemTree| boot_files(&tree).map(|seen| (seen.has_boot, seen.has_efi)).unwrap();
        assert_eq!(seen(MemTree::new().file("/bootmgr", "").file("/Boot/BCD", "")), (true, false));
        assert_eq!(seen(MemTree::new().file("/EFI/Microsoft/Boot/BCD", "")), (false, true));
        assert_eq!(seen(MemTree::new().file("/ntldr", "").file("/boot.ini", "")), (true, false));
        assert_eq!(seen(MemTree::new().file("/Boot/BCD", "")), (false, false));
    }
}
