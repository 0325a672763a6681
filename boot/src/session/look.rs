//! Looking at every volume that may hold a root file system or boot files, straight from the disk or through the sandbox.

use super::readers::MOUNTABLE;
use super::roots::{self, Looked};
use super::{CHECK_IT, Work, mapped, mounts, windows};
use crate::check::Finding;
use crate::linux::lenient::Lenient;
use crate::sandbox::DISKS_AT_MOST;
use crate::tree::GuestTree;
use crate::tree::ext4::may_be_readable_elsewhere;
use crate::volume::ntfs::{self, Log, State};
use crate::volume::{Content, Volume, VolumeId};
use crate::{Error, Kind, Result};

impl Work<'_, '_> {
    /// Looks for root file systems and boot loaders on every volume that may have them.
    pub(super) fn look_at_all(&self, findings: &mut Vec<Finding>) -> Result<Vec<Looked>> {
        let mut looked = Vec::new();
        let mut left = Vec::new();
        for volume in &self.scan.volumes {
            let Content::FileSystem { name } = &volume.content else { continue };
            if !MOUNTABLE.contains(&name.as_str()) || self.scan.view(&volume.id).is_none() {
                continue;
            }
            let seen = match self.readers.direct(&volume.id)? {
                Some(tree) => match look(&volume.id, name, &*tree) {
                    Ok(seen) => Some(seen),
                    Err(error) if may_be_readable_elsewhere(&error) => {
                        self.readers.give_up_direct(&volume.id);
                        None
                    }
                    Err(error) if error.kind() == Kind::Refused => {
                        findings.push(not_looked_at(volume, name, &error));
                        continue;
                    }
                    Err(error) => return Err(error),
                },
                None => None,
            };
            match seen {
                Some(seen) => looked.push(seen),
                // No root lies on FAT, and a boot loader's word is not worth a sandbox.
                None if name == "vfat" => {}
                None => left.push((volume, name)),
            }
        }
        let explained = self.explained(&looked);
        left.retain(|(volume, _)| !explained.contains(&volume.id));
        if left.is_empty() {
            return Ok(looked);
        }
        if !self.readers.has_sandbox() {
            let names: Vec<_> =
                left.iter().map(|(volume, name)| format!("{} ({name})", volume.id.0)).collect();
            let nothing = looked.iter().all(|looked| looked.root.is_none());
            findings.push(Finding::new(
                if nothing { "sandbox-needed" } else { "volume-not-looked-at" },
                format!("{} cannot be read without the sandbox", names.join(", ")),
                "install QEMU and a kernel for the sandbox",
            ));
            return Ok(looked);
        }
        // btrfs last: which of its subvolumes are looked at depends on what loaders elsewhere say.
        left.sort_by_key(|(_, name)| *name == "btrfs");
        // More than one sandbox takes.
        let mut not_taken = Vec::new();
        let mut failed = Vec::new();
        for (index, (volume, name)) in left.into_iter().enumerate() {
            if index >= DISKS_AT_MOST {
                not_taken.push(volume.id.0.as_str());
                continue;
            }
            let root = format!("look{index}");
            let seen = match name == "btrfs" {
                true => self.look_at_subvolumes(volume, &root, &looked),
                false => self.look_in_sandbox(volume, name, &root, false).map(|seen| vec![seen]),
            };
            match seen {
                Ok(seen) => looked.extend(seen),
                Err(error) if matches!(error.kind(), Kind::Io | Kind::Interrupted) => return Err(error),
                Err(error) => failed.push((volume, name, error)),
            }
        }
        self.look_again(&mut looked, &mut failed)?;
        findings.extend(failed.iter().map(|(volume, name, error)| not_looked_at(volume, name, error)));
        if let Some(first) = not_taken.first() {
            findings.push(Finding::new(
                "volume-not-looked-at",
                format!(
                    "{first} and {} others are not looked at: the sandbox takes {DISKS_AT_MOST} file systems",
                    not_taken.len() - 1
                ),
                "leave out disks that do not belong to the machine, if it may start from there",
            ));
        }
        // In the order of the volumes, however they were read.
        looked.sort_by_key(|seen| self.scan.volumes.iter().position(|volume| volume.id == seen.id));
        Ok(looked)
    }

    /// Where nothing was found: what the journals of volumes that were in use hide. No Windows sleeps on one of them, or its
    /// file would have been seen.
    fn look_again<'s>(
        &self,
        looked: &mut Vec<Looked>,
        failed: &mut Vec<(&'s Volume, &'s String, Error)>,
    ) -> Result<()> {
        let is_something = |seen: &Looked| {
            seen.root.is_some() || !seen.windows.folders.is_empty() || seen.windows.hibernated.is_some()
        };
        if looked.iter().any(is_something) {
            return Ok(());
        }
        for volume in &self.scan.volumes {
            let is_ntfs = volume.content == Content::FileSystem { name: "ntfs".into() };
            let Some(view) = self.scan.view(&volume.id).filter(|_| is_ntfs) else { continue };
            let Some(State { is_dirty: false, log: Log::Pending { .. }, .. }) = ntfs::state(&*view)? else {
                continue;
            };
            match self.look_in_sandbox(volume, "ntfs", "again", true) {
                Ok(seen) => {
                    failed.retain(|(other, ..)| other.id != volume.id);
                    looked.retain(|other| other.id != volume.id);
                    looked.push(seen);
                }
                Err(error) if matches!(error.kind(), Kind::Io | Kind::Interrupted) => return Err(error),
                // It was said why, or there is nothing on it.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Looks at one file system; `replay` its journal, which changes it, where what lies on it is not seen without.
    fn look_in_sandbox(
        &self,
        volume: &Volume,
        file_system: &str,
        root: &str,
        replay: bool,
    ) -> Result<Looked> {
        // Before it is mounted, which replays its log.
        let state = match (file_system, self.scan.view(&volume.id)) {
            ("ntfs", Some(view)) => ntfs::state(&*view)?,
            _ => None,
        };
        let session = self.readers.session()?;
        match replay {
            true => session.mount(&volume.id.0, file_system, root, "/", true)?,
            false => session.mount_to_look(&volume.id.0, file_system, root)?,
        }
        let tree = session.tree(root);
        let seen = match file_system {
            "ntfs" => windows::look(&volume.id, &tree, state),
            _ => look_leniently(&volume.id, &tree),
        };
        session.unmount(root, "/")?;
        seen
    }

    /// Volumes that need not be looked at: the only root seen so far knows itself, a boot loader starts it, and it mounts
    /// them elsewhere.
    fn explained(&self, looked: &[Looked]) -> Vec<VolumeId> {
        let candidates: Vec<_> = looked.iter().filter(|looked| looked.root.is_some()).collect();
        let [only] = candidates.as_slice() else { return Vec::new() };
        let scan = &mapped::learn(self.scan, looked);
        let (Some(root), Some(volume)) = (&only.root, scan.volume(&only.id)) else { return Vec::new() };
        if !roots::is_started(&only.id, looked, &scan.volumes)
            || !roots::is_its_own_root(only, volume, root, &scan.volumes)
        {
            return Vec::new();
        }
        let mut explained = mounts::explained(volume, &root.fstab, scan);
        explained.retain(|id| !roots::is_started(id, looked, &scan.volumes));
        explained
    }
}

/// Looks at a file system that is read straight from the disk.
fn look(id: &VolumeId, file_system: &str, tree: &dyn GuestTree) -> Result<Looked> {
    let mut looked = roots::look(id, tree)?;
    if file_system == "vfat" {
        looked.windows = windows::boot_files(tree)?;
    }
    Ok(looked)
}

/// Looks at one file system, of which a part may be damaged or full of loops: what that does not hide is found.
pub(super) fn look_leniently(id: &VolumeId, tree: &dyn GuestTree) -> Result<Looked> {
    let lenient = Lenient::new(tree);
    let looked = roots::look(id, &lenient)?;
    match lenient.failed().into_iter().next() {
        Some((path, error)) if looked.root.is_none() => Err(Error::corrupt(format!("{path}: {error}"))),
        _ => Ok(looked),
    }
}

fn not_looked_at(volume: &Volume, name: &str, error: &Error) -> Finding {
    let says = format!("{} ({name}) cannot be read: {error}", volume.id.0);
    Finding::new("volume-not-looked-at", says, error.hint_text().unwrap_or(CHECK_IT))
}
