//! One guest from disks to patched overlay: find the volumes, find the root, mount, plan, apply.
//!
//! ```text
//! disks -> scan -> look (which volume is the root) -> fstab -> mounts -> scene -> family: facts, plan
//!                                                                          |
//!              overlay <- sandbox: mount, write, unmount <- changes <- materialise
//!                 |
//!                 +-> read back
//! ```
//! Whatever is missing, ambiguous or unreadable becomes a finding; nothing is guessed. Errors are for disks that
//! cannot be read and sandboxes that fail.

mod beyond;
mod boot_disk;
mod hiding;
mod look;
mod mapped;
mod mounts;
mod readers;
mod roots;
mod subvolumes;
mod unseen;
mod windows;
mod write;

pub use windows::{BOOT_AT, ESP_AT};
pub use write::{Applied, Patched, Written, patch};

use crate::check::{Finding, Severity};
use crate::family::{self, Family, Scene};
use crate::guest::{Guest, Mount};
use crate::linux::secure_boot;
use crate::patch::{Action, PatchPlan, Text};
use crate::sandbox::Sandbox;
use crate::target::{Firmware, Request};
use crate::tree::ext4::may_be_readable_elsewhere;
use crate::tree::{CONFIG_AT_MOST, GuestTree, GuestTreeExt};
use crate::volume::device_name::{Name, classify};
use crate::volume::scan::without_repetition;
use crate::volume::{Array, Content, Scan, Volume, VolumeGroup, VolumeId, scan_until};
use crate::{Error, Result};
use hiding::Hiding;
use landfall_image::DiskMut;
use landfall_image::luks::{Effort, Secret};
use mounts::Planned;
use readers::{GUEST, NotMounted, Readers};
use roots::{Choice, Looked};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// What a session may use.
#[derive(Clone)]
pub struct Options<'a> {
    /// For file systems that are not read straight from the disk, and for all writing.
    pub sandbox: Option<&'a Sandbox>,
    /// The volume that holds the root file system, where the caller has chosen.
    pub root: Option<VolumeId>,
    /// Tried on every encrypted volume.
    pub keys: &'a [Secret],
    /// The target enforces UEFI secure boot.
    pub secure_boot: bool,
    /// A hibernated Windows (by Fast Startup, too) loses what it has in memory, and starts anew. Without, it is refused.
    pub discard_hibernation: bool,
    /// Who recognises guests.
    pub families: &'a [&'a dyn Family],
}

impl Default for Options<'_> {
    /// No sandbox, nothing chosen, no key, every family.
    fn default() -> Self {
        Options {
            sandbox: None,
            root: None,
            keys: &[],
            secure_boot: false,
            discard_hibernation: false,
            families: family::TABLE,
        }
    }
}

impl Options<'_> {
    /// For opening what is encrypted: what cancels the sandbox ends that, too.
    fn effort(&self) -> Effort {
        self.sandbox.map_or_else(Effort::default, |sandbox| Effort::until(sandbox.cancel()))
    }
}

/// Who read the guest's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reader {
    /// This program, straight from the disk.
    Direct,
    /// The kernel of the sandbox.
    Sandbox,
}

/// What was found on a machine's disks, and what is to be done.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Everything on the disks.
    pub volumes: Vec<Volume>,
    /// Volume groups of LVM on them.
    pub groups: Vec<VolumeGroup>,
    /// Arrays of md on them.
    pub arrays: Vec<Array>,
    /// Every local file system that the guest mounts and that was found, `/` first.
    pub mounts: Vec<Mount>,
    /// The guest's facts.
    pub guest: Option<Guest>,
    /// The disk that the firmware has to start, where it is not the first.
    pub boot_disk: Option<usize>,
    /// Edits and all findings, the worst first. Without edits where something blocks before planning.
    pub plan: PatchPlan,
    /// What the files that the plan writes anew hold now: path and content, where they exist.
    #[serde(skip)]
    pub before: Vec<(String, Text)>,
    /// Who read it; `None` where no guest was read.
    pub reader: Option<Reader>,
    /// Seconds until the volumes were known.
    pub scan_seconds: f64,
    /// Seconds from then until the plan was made.
    pub plan_seconds: f64,
}

/// Finds the guest on `disks` (in the machine's order) and plans for `request`. The guest's files stay as they are; a
/// journal may be replayed into the disks, which therefore must be overlays.
///
/// # Errors
/// Where a disk cannot be read, or a sandbox fails. What stands in the way of the guest is a finding.
pub fn inspect(disks: &[Arc<dyn DiskMut>], request: &Request, options: &Options<'_>) -> Result<Inspection> {
    let begin = Instant::now();
    let scan = scan_until(disks, options.keys, options.effort())?;
    let scan_seconds = begin.elapsed().as_secs_f64();
    let readers = Readers::new(&scan, options.sandbox);
    let work = Work { disks, scan: &scan, readers: &readers, request, options, writable: false };
    let (mut inspection, _) = work.inspect()?;
    inspection.scan_seconds = scan_seconds;
    inspection.plan_seconds = begin.elapsed().as_secs_f64() - scan_seconds;
    readers.finish()?;
    Ok(inspection)
}

/// One inspection under way.
struct Work<'w, 's> {
    disks: &'w [Arc<dyn DiskMut>],
    scan: &'s Scan,
    readers: &'w Readers<'s>,
    request: &'w Request,
    options: &'w Options<'w>,
    /// Mounts in the sandbox are made to be written to.
    writable: bool,
}

/// What has to be mounted to carry the plan out, and whether it already is.
struct Ready {
    needed: Vec<Mount>,
    mounted: bool,
}

/// What a guest's files lead to.
struct Read {
    guest: Option<Guest>,
    plan: PatchPlan,
    before: Vec<(String, Text)>,
}

impl Work<'_, '_> {
    fn inspect(&self) -> Result<(Inspection, Option<Ready>)> {
        let mut out = Inspection {
            volumes: self.scan.volumes.clone(),
            groups: self.scan.groups.clone(),
            arrays: self.scan.arrays.clone(),
            mounts: Vec::new(),
            guest: None,
            boot_disk: None,
            plan: PatchPlan { findings: self.scan.findings.clone(), ..PatchPlan::default() },
            before: Vec::new(),
            reader: None,
            scan_seconds: 0.0,
            plan_seconds: 0.0,
        };
        let ready = self.fill(&mut out)?;
        out.plan.findings.sort_by_key(|finding| finding.severity);
        Ok((out, ready))
    }

    fn fill(&self, out: &mut Inspection) -> Result<Option<Ready>> {
        let findings = &mut out.plan.findings;
        findings.extend(hibernated(&self.scan.volumes));
        let looked = self.look_at_all(findings)?;
        *findings = without_repetition(std::mem::take(findings));
        let scan = &mapped::learn(self.scan, &looked);
        out.volumes.clone_from(&scan.volumes);
        let wanted = self.options.root.as_ref();
        let (planned, edits, name, hidden) = match windows::choose(&looked, scan, wanted) {
            Some(Ok(installation)) => {
                findings.extend(windows::about_storage(scan, true));
                findings.extend(installation.asleep_beside(&looked));
                let edits = installation.hibernation(self.options.discard_hibernation, findings);
                let planned = windows::mounts(&installation, &looked, scan, self.disks)?;
                findings.extend(windows::about_states(&planned.needed, &looked));
                (planned, edits, installation.name(), installation.others())
            }
            Some(Err(finding)) => {
                findings.push(finding);
                return Ok(None);
            }
            None => match self.choose_linux(&looked, scan, findings)? {
                Some((planned, name)) => (planned, Vec::new(), name, Vec::new()),
                None => return Ok(None),
            },
        };
        let Planned { mounts, needed, findings: about_mounts } = planned;
        let complete = !about_mounts.iter().any(|finding| finding.severity == Severity::Blocks);
        findings.extend(about_mounts);
        out.mounts.clone_from(&mounts);
        if needed.is_empty() {
            return Ok(None);
        }
        // What will not be written need not be able to be: a volume that waits for chkdsk can be read.
        let read_only = !self.writable || findings.iter().any(|finding| finding.severity == Severity::Blocks);
        let scene = Mounting {
            volumes: &scan.volumes,
            mounts: &mounts,
            needed: &needed,
            hidden: &hidden,
            complete,
            read_only,
        };
        let (read, reader) = match self.read(&scene) {
            Ok(read) => read,
            Err(why) => {
                findings.push(why.finding(self.readers.has_sandbox())?);
                return Ok(None);
            }
        };
        if read.guest.is_none() {
            findings.push(Finding::new(
                "guest-not-recognised",
                format!("{name}, which no guest family of this version knows"),
                "install the target's drivers in the running guest, then use landfall disk convert",
            ));
        }
        if let Some(guest) = &read.guest {
            let volumes = &self.scan.volumes;
            let (disk, about) = boot_disk::find(self.disks, volumes, &mounts, guest, self.request.firmware)?;
            out.boot_disk = disk;
            findings.extend(about);
        }
        out.guest = read.guest;
        out.plan.edits = read.plan.edits;
        if complete {
            out.plan.edits.splice(0..0, edits);
        }
        out.plan.devices = read.plan.devices;
        out.plan.moved = read.plan.moved;
        out.plan.clock = read.plan.clock;
        out.before = read.before;
        out.plan.findings.extend(read.plan.findings);
        out.reader = Some(reader);
        Ok(Some(Ready { needed, mounted: reader == Reader::Sandbox }))
    }

    /// What the Linux guest mounts that is chosen, and what it is for people: `disk0p2 holds Debian`. `None`, and a finding,
    /// where there is none.
    fn choose_linux(
        &self,
        looked: &[Looked],
        scan: &Scan,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<(Planned, String)>> {
        let chosen = match roots::choose(looked, scan, self.options.root.as_ref()) {
            Choice::One(chosen, notes) => {
                findings.extend(notes);
                chosen
            }
            Choice::None(finding) => {
                let of_windows = windows::about_storage(scan, false);
                // That it was not found is no news where it could not be looked for, or where Windows hides it.
                if !of_windows.is_empty() && !looked.iter().any(|looked| looked.root.is_some()) {
                    findings.extend(of_windows);
                } else if !findings.iter().any(|finding| finding.id == "sandbox-needed") {
                    findings.push(finding);
                }
                return Ok(None);
            }
        };
        let (Some(root), Some(volume)) = (&chosen.root, scan.volume(&chosen.id)) else {
            return Ok(None);
        };
        findings.extend(windows::about_storage(scan, true));
        let path_of: &mounts::PathOf<'_> = &|volume, wanted| self.subvolume_path(volume, wanted, looked);
        let planned = mounts::plan(chosen, volume, root, scan, path_of)?;
        Ok(Some((planned, format!("{} holds {}", chosen.name(), root.name))))
    }

    /// Reads the guest: straight from the disk, or by the sandbox where that is not possible.
    fn read(&self, scene: &Mounting<'_>) -> Result<(Read, Reader), NotMounted> {
        if let Some(tree) = self.readers.direct_all(scene.needed)? {
            match self.recognise_and_plan(scene, &tree) {
                Ok(read) => return Ok((read, Reader::Direct)),
                Err(error) if may_be_readable_elsewhere(&error) && self.readers.has_sandbox() => {
                    tracing::info!(%error, "the guest is left to the sandbox");
                }
                Err(error) => return Err(NotMounted::Failed(error)),
            }
        }
        if !self.readers.has_sandbox() {
            let mount = scene.needed.iter().find(|mount| !self.readers.is_direct(&mount.volume));
            let mount = mount.or(scene.needed.first()).cloned();
            let error = Error::unsupported("it is read by the sandbox only, and there is none");
            return Err(match mount {
                Some(mount) => NotMounted::Unreadable(Box::new(mount), error),
                None => NotMounted::Failed(error),
            });
        }
        let session = self.readers.mount_all(scene.needed, scene.read_only)?;
        let read = self.recognise_and_plan(scene, &session.tree(GUEST)).map_err(NotMounted::Failed)?;
        Ok((read, Reader::Sandbox))
    }

    fn recognise_and_plan(&self, scene: &Mounting<'_>, tree: &dyn GuestTree) -> Result<Read> {
        let mut read = Read { guest: None, plan: PatchPlan::default(), before: Vec::new() };
        if let Some(finding) = doubtful(scene.needed, tree)? {
            read.plan.findings.push(finding);
        }
        let tree = &Hiding { tree, hidden: scene.hidden };
        let in_scene = Scene { tree, volumes: scene.volumes, mounts: scene.mounts };
        for family in self.options.families {
            let Some(guest) = family.recognise(&in_scene)? else { continue };
            // Without all its file systems a plan would be made for half a guest.
            if scene.complete && read.plan.findings.is_empty() {
                read.plan = family.plan(&in_scene, &guest, self.request)?;
                let is_linux = !windows::is_root(scene.needed);
                if is_linux && self.options.secure_boot && self.request.firmware == Firmware::Uefi {
                    read.plan.findings.extend(secure_boot::check(&in_scene, &guest, &read.plan)?);
                }
                read.before = before(&read.plan, tree)?;
            }
            read.guest = Some(guest);
            break;
        }
        Ok(read)
    }
}

/// What the files that a plan writes anew hold now.
fn before(plan: &PatchPlan, tree: &dyn GuestTree) -> Result<Vec<(String, Text)>> {
    let written = plan.edits.iter().filter(|edit| matches!(edit.action, Action::Write { .. }));
    let paths: Vec<String> = written.map(|edit| edit.path.clone()).collect();
    let contents = tree.read_many(&paths, CONFIG_AT_MOST)?;
    Ok(paths.into_iter().zip(contents).filter_map(|(path, content)| Some((path, Text(content?)))).collect())
}

/// What is mounted for a guest.
struct Mounting<'m> {
    /// With the names that the guest has for them.
    volumes: &'m [Volume],
    mounts: &'m [Mount],
    needed: &'m [Mount],
    /// Folders of the root that belong to other systems.
    hidden: &'m [String],
    /// Nothing that is needed is missing.
    complete: bool,
    read_only: bool,
}

const SANDBOX_NEEDS: &str = "install qemu-system-x86_64 and bwrap, and a kernel for the sandbox (tools/fetch-sandbox-kernel.sh FOLDER)";

const CHECK_IT: &str =
    "check it in the source machine (fsck, xfs_repair, btrfs check, chkdsk), then convert again";

impl NotMounted {
    /// What stands in the way, where it is not the sandbox or the host.
    fn finding(self, has_sandbox: bool) -> Result<Finding> {
        let (mount, error) = match self {
            NotMounted::Failed(error) => return Err(error),
            NotMounted::Unreadable(mount, error) => (mount, error),
            NotMounted::Locked(mount) => {
                let subvolume = mount.subvolume.as_deref().unwrap_or("/");
                return Ok(Finding::new(
                    "subvolume-read-only",
                    format!("{} is the read-only subvolume {subvolume} of {}", mount.at, mount.volume.0),
                    format!(
                        "start the guest from a writable subvolume, or make this one writable there with `btrfs property set -ts {} ro false`, then convert again",
                        mount.at
                    ),
                ));
            }
        };
        let says =
            format!("{} ({} on {}) cannot be read: {error}", mount.at, mount.file_system, mount.volume.0);
        let hint = error.hint_text().unwrap_or(CHECK_IT);
        Ok(match has_sandbox {
            true => Finding::new("mount-not-readable", says, hint),
            false => Finding::new("sandbox-needed", says, SANDBOX_NEEDS),
        })
    }
}

fn hibernated(volumes: &[Volume]) -> Vec<Finding> {
    volumes
        .iter()
        .filter(|volume| volume.content == Content::Swap { hibernated: true })
        .map(|volume| {
            Finding::new(
                "guest-hibernated",
                format!("the swap space {} holds a suspended system", volume.id.0),
                "start the machine in the source, shut it down instead of suspending it, then convert again",
            )
        })
        .collect()
}

/// A file system that was found by a hardware name, and does not look like what is mounted there.
fn doubtful(needed: &[Mount], tree: &dyn GuestTree) -> Result<Option<Finding>> {
    for mount in needed {
        let by_hardware = mount
            .spec
            .as_deref()
            .is_some_and(|spec| spec.starts_with("/dev/") && classify(spec) != Name::Stable);
        let expected: &[&str] = match mount.at.as_str() {
            "/boot" => {
                &["vmlinu", "initr", "grub", "loader", "config-", "System.map", "efi", "EFI", "kernel"]
            }
            "/boot/efi" | "/efi" => &["EFI", "efi"],
            "/usr" => &["lib", "bin"],
            "/var" => &["lib", "log"],
            "/etc" => &["passwd"],
            _ => continue,
        };
        if !by_hardware {
            continue;
        }
        let names = tree.names(&mount.at)?;
        if !names.iter().any(|name| expected.iter().any(|start| name.starts_with(start))) {
            return Ok(Some(Finding::new(
                "mount-doubtful",
                format!(
                    "fstab mounts {} at {}, which should be {}, but nothing in it looks like that",
                    mount.spec.as_deref().unwrap_or("?"),
                    mount.at,
                    mount.volume.0
                ),
                "name the disks in the machine's order, or name the file system by UUID in the guest's fstab",
            )));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
