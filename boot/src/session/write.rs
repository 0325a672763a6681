//! Carrying a plan out: the sandbox writes, and what it wrote is read back.

use super::readers::{GUEST, NotMounted, Readers};
use super::{Inspection, Options, Reader, Ready, Work};
use crate::Finding;
use crate::apply::{Change, Materialised, materialise_with_report};
use crate::linux::initramfs::Rewritten;
use crate::patch::PatchPlan;
use crate::sandbox::Finished;
use crate::target::Request;
use crate::tree::GuestTree;
use crate::tree::ext4::may_be_readable_elsewhere;
use crate::volume::{Content, Scan, ntfs, scan_until};
use crate::{Error, Kind, Result};
use landfall_image::{Bytes, DiskMut};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// A guest that was inspected and, where nothing stood in the way, patched.
#[derive(Debug, Serialize)]
pub struct Patched {
    /// What was found, and the plan.
    pub inspection: Inspection,
    /// What was done; `None` where something blocks, or where nothing had to be done.
    pub applied: Option<Applied>,
}

/// What was done to a guest.
#[derive(Debug, Serialize)]
pub struct Applied {
    /// In the order in which it was written.
    pub changes: Vec<Written>,
    /// Every initramfs of the plan with its path.
    #[serde(skip)]
    pub archives: Vec<(String, Rewritten)>,
    /// How the sandbox ran.
    pub sandbox: Finished,
    /// Who read everything back after the sandbox had ended.
    pub verified_by: Reader,
    /// Seconds for making the new content.
    pub materialise_seconds: f64,
    /// Seconds for mounting and writing, the end of the sandbox included.
    pub write_seconds: f64,
    /// Seconds for reading back.
    pub verify_seconds: f64,
}

/// One path that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Absolute guest path.
    pub path: String,
    /// `written`, `linked`, `removed` or `labelled`.
    pub done: &'static str,
    /// Length of the new content.
    pub size: Option<Bytes>,
}

impl Written {
    fn of(change: &Change) -> Written {
        match change {
            Change::Put { path, bytes, .. } => {
                Written { path: path.clone(), done: "written", size: Some(Bytes(bytes.len() as u64)) }
            }
            Change::Stage { path, file, .. } => {
                Written { path: path.clone(), done: "written", size: Some(file.size) }
            }
            Change::Symlink { path, .. } => Written { path: path.clone(), done: "linked", size: None },
            Change::Remove { path } => Written { path: path.clone(), done: "removed", size: None },
            Change::Label { path, .. } => Written { path: path.clone(), done: "labelled", size: None },
        }
    }
}

/// Finds the guest on `disks`, which are overlays in the machine's order, plans for `request`, and carries the plan
/// out where nothing blocks. On an error the overlays may hold half of it: throw them away.
///
/// # Errors
/// Where a disk cannot be read or written, where new content cannot be made (no space in the guest, a damaged
/// initramfs), where the sandbox fails, or where what was written does not read back.
pub fn patch(disks: &[Arc<dyn DiskMut>], request: &Request, options: &Options<'_>) -> Result<Patched> {
    let begin = Instant::now();
    let scan = scan_until(disks, options.keys, options.effort())?;
    let scan_seconds = begin.elapsed().as_secs_f64();
    std::thread::scope(|scope| {
        let readers = Readers::new(&scan, options.sandbox);
        if scan.volumes.iter().any(|volume| matches!(volume.content, Content::FileSystem { .. })) {
            readers.start_early(scope);
        }
        let work = Work { disks, scan: &scan, readers: &readers, request, options, writable: true };
        let (mut inspection, ready) = work.inspect()?;
        inspection.scan_seconds = scan_seconds;
        inspection.plan_seconds = begin.elapsed().as_secs_f64() - scan_seconds;
        let ready = ready.filter(|_| !inspection.plan.is_blocked() && !inspection.plan.edits.is_empty());
        let Some(ready) = ready else {
            // It may have been mounted, to be written to.
            readers.finish()?;
            return Ok(Patched { inspection, applied: None });
        };
        match apply(readers, &scan, options, &inspection.plan, &ready) {
            Ok((applied, found)) => {
                inspection.plan.findings.extend(found);
                inspection.plan.findings.sort_by_key(|finding| finding.severity);
                Ok(Patched { inspection, applied: Some(applied) })
            }
            Err(why) => {
                inspection.plan.findings.insert(0, why.finding(options.sandbox.is_some())?);
                Ok(Patched { inspection, applied: None })
            }
        }
    })
}

fn apply(
    readers: Readers<'_>,
    scan: &Scan,
    options: &Options<'_>,
    plan: &PatchPlan,
    ready: &Ready,
) -> Result<(Applied, Vec<Finding>), NotMounted> {
    let begin = Instant::now();
    let (made, is_mounted) = materialise(&readers, plan, ready)?;
    let materialise_seconds = begin.elapsed().as_secs_f64();
    let mut found = about_archives(&made);
    let Materialised { changes, archives, .. } = made;
    let session = match is_mounted {
        true => readers.guest_session().map_err(NotMounted::Failed)?,
        false => readers.mount_all(&ready.needed, false)?,
    };
    let immutable = session.apply(GUEST, &changes).map_err(NotMounted::Failed)?;
    found.extend(immutable.iter().map(|path| {
        Finding::new(
            "file-immutable",
            format!("{path}, or its folder, was marked as not to be changed (chattr +i or +a); it was changed all the same, and is marked again"),
            "look at what the guest's administrator meant to protect there, and check the new content",
        )
    }));
    let sandbox = readers.finish().map_err(NotMounted::Failed)?;
    let sandbox = sandbox.ok_or_else(|| NotMounted::Failed(Error::refused("the sandbox is gone")))?;
    still_clean(scan, ready).map_err(NotMounted::Failed)?;
    let write_seconds = begin.elapsed().as_secs_f64() - materialise_seconds;
    let verified_by = verify(scan, options, ready, &changes)?;
    let applied = Applied {
        changes: changes.iter().map(Written::of).collect(),
        archives,
        sandbox,
        verified_by,
        materialise_seconds,
        write_seconds,
        verify_seconds: begin.elapsed().as_secs_f64() - materialise_seconds - write_seconds,
    };
    Ok((applied, found))
}

/// Fails where the kernel has marked a volume of Windows dirty, which it does when it meets an error while writing.
fn still_clean(scan: &Scan, ready: &Ready) -> Result<()> {
    for mount in ready.needed.iter().filter(|mount| mount.file_system == "ntfs") {
        let Some(view) = scan.view(&mount.volume) else { continue };
        let state = ntfs::state(&*view)?;
        if state.is_none_or(|state| state.is_dirty || state.log != ntfs::Log::Clean) {
            return Err(Error::corrupt(format!(
                "the kernel met an error in the file system of {} while it wrote to it",
                mount.volume.0
            ))
            .hint("run chkdsk /f for this volume in the source machine, then convert again"));
        }
    }
    Ok(())
}

/// What is to be said of the initramfs files: those that stay as they are, and what is doubtful in the others.
fn about_archives(made: &Materialised) -> Vec<Finding> {
    let left = made.left.iter().map(|(path, error)| {
        Finding::new(
            "initramfs-left",
            format!("{path} stays as it is, without the target's drivers: {error}"),
            "do not choose its kernel in the boot menu; remove it, or make its initramfs anew once the machine runs",
        )
    });
    let doubtful = made.archives.iter().flat_map(|(path, archive)| {
        archive.warnings.iter().map(move |says| {
            Finding::new(
                "initramfs-doubtful",
                format!("{path}: {says}"),
                "prove that the machine boots before you rely on it",
            )
        })
    });
    let names = made.archives.iter().flat_map(|(path, archive)| {
        archive.names_left.iter().map(move |left| {
            Finding::new(
                "linux-initramfs-names",
                format!("{path} has {left}, a name that this move changes"),
                "name the device by UUID in the guest, build the initramfs anew there, and convert again",
            )
        })
    });
    left.chain(doubtful).chain(names).collect()
}

/// The new content, read by whoever read the guest, or by the sandbox where the direct reader meets what it cannot
/// read; and whether the guest is mounted there now, to be written to.
fn materialise(
    readers: &Readers<'_>,
    plan: &PatchPlan,
    ready: &Ready,
) -> Result<(Materialised, bool), NotMounted> {
    if !ready.mounted
        && let Some(tree) = readers.direct_all(&ready.needed)?
    {
        match materialise_with_report(plan, &tree) {
            Ok(made) => return Ok((made, false)),
            Err(error) if may_be_readable_elsewhere(&error) => {
                tracing::info!(%error, "the guest's files are left to the sandbox");
            }
            Err(error) => return Err(NotMounted::Failed(error)),
        }
    }
    let session = match ready.mounted {
        true => readers.guest_session().map_err(NotMounted::Failed)?,
        false => readers.mount_all(&ready.needed, false)?,
    };
    let made = materialise_with_report(plan, &session.tree(GUEST)).map_err(NotMounted::Failed)?;
    Ok((made, true))
}

/// Reads everything back from the overlays: straight from the disks, or by another sandbox.
fn verify(
    scan: &Scan,
    options: &Options<'_>,
    ready: &Ready,
    changes: &[Change],
) -> Result<Reader, NotMounted> {
    let readers = Readers::new(scan, options.sandbox);
    if let Some(tree) = readers.direct_all(&ready.needed)? {
        match compare(changes, &tree) {
            Ok(()) => return Ok(Reader::Direct),
            Err(error) if error.kind() == Kind::Unsupported => {}
            Err(error) => return Err(NotMounted::Failed(error)),
        }
    }
    let session = readers.mount_all(&ready.needed, true)?;
    compare(changes, &session.tree(GUEST)).map_err(NotMounted::Failed)?;
    readers.finish().map_err(NotMounted::Failed)?;
    Ok(Reader::Sandbox)
}

/// Fails where a change is not in the tree.
pub(super) fn compare(changes: &[Change], tree: &dyn GuestTree) -> Result<()> {
    for change in changes {
        let (path, same) = match change {
            Change::Put { path, bytes, .. } => {
                let len = Bytes((bytes.len() as u64).saturating_add(1));
                (path, tree.read(path, len)?.is_some_and(|found| found == *bytes))
            }
            Change::Stage { path, file, .. } => {
                let len = Bytes(file.size.0.saturating_add(1));
                (path, tree.sha256(path, len)? == Some((file.size, file.sha256.clone())))
            }
            Change::Symlink { path, target } => (path, tree.read_link(path)?.as_ref() == Some(target)),
            Change::Remove { path } => (path, tree.link_metadata(path)?.is_none()),
            // The label itself is read back where it is written: no reader here knows extended attributes.
            Change::Label { path, .. } => (path, tree.link_metadata(path)?.is_some()),
        };
        if !same {
            return Err(Error::corrupt(format!("{path} does not read back as it was written"))
                .hint("convert again; if it happens again, check the memory and disks of this host"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::initramfs::Compressor;
    use crate::tree::mem::MemTree;

    /// What a person must know of an initramfs does not stay in a log.
    #[test]
    fn doubts_about_archives_are_findings() {
        let archive = Rewritten {
            bytes: Vec::new(),
            changed: true,
            added: Vec::new(),
            already: Vec::new(),
            builtin: Vec::new(),
            missing: Vec::new(),
            warnings: vec!["the tool that made it is not known".into()],
            names_left: vec!["/dev/sdz9".into()],
            compressor: Compressor::Gzip,
            old_size: Bytes(1),
            new_size: Bytes(2),
        };
        let made = Materialised {
            archives: vec![("/boot/initrd.img-6".into(), archive)],
            left: vec![("/boot/initrd.img-5".into(), Error::corrupt("the archive is cut off"))],
            ..Materialised::default()
        };
        let found = about_archives(&made);
        let said: Vec<_> = found.iter().map(|finding| (finding.id, finding.says.as_str())).collect();
        for (id, file, what) in [
            ("initramfs-left", "initrd.img-5", "cut off"),
            ("initramfs-doubtful", "initrd.img-6", "not known"),
            ("linux-initramfs-names", "initrd.img-6", "/dev/sdz9"),
        ] {
            assert!(
                said.iter().any(|(own, says)| *own == id && says.contains(file) && says.contains(what)),
                "{said:?}"
            );
        }
        assert_eq!(said.len(), 3);
    }

    #[test]
    fn what_does_not_read_back_is_an_error() {
        let put = |bytes: &[u8]| Change::Put { path: "/a".into(), bytes: bytes.to_vec(), mode: 0o644 };
        let link = |target: &str| Change::Symlink { path: "/l".into(), target: target.into() };
        let remove = |path: &str| Change::Remove { path: path.into() };
        let tree = MemTree::new().file("/a", "new").symlink("/l", "a");
        assert!(compare(&[put(b"new"), link("a"), remove("/gone")], &tree).is_ok());
        for wrong in [put(b"old"), put(b"ne"), put(b"newer"), link("b"), remove("/a"), remove("/l")] {
            assert!(compare(&[put(b"new"), wrong.clone()], &tree).is_err(), "{wrong:?}");
        }
        let absent = Change::Put { path: "/b".into(), bytes: Vec::new(), mode: 0o644 };
        assert!(compare(&[absent], &tree).is_err(), "an empty file that is not there");
    }
}
