//! From plan to bytes: every edit becomes a final [`Change`], then the sandbox writes them.

mod archives;

use crate::host_file::HostFile;
use crate::linux::initramfs::Rewritten;
use crate::patch::{Action, Edit, Label, PatchPlan};
use crate::tree::GuestTree;
use crate::windows::hives;
use crate::{Error, Result};
use archives::{Archive, Outcome};
use landfall_image::Bytes;
use sha1::{Digest, Sha1};
use std::path::Path;

/// One path and its final bytes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Change {
    /// Replace or create a file: written beside it, synced, renamed; where there is no room for both, written over it.
    /// Owner, mode and extended attributes of an existing file are kept.
    Put {
        /// Absolute guest path; a link in the last component is followed.
        path: String,
        /// The whole content.
        bytes: Vec<u8>,
        /// Permission bits of a new file.
        mode: u32,
    },
    /// The same with the content of a file of this host, which is read when its turn comes.
    Stage {
        /// Absolute guest path; a link in the last component is followed.
        path: String,
        /// The file.
        file: HostFile,
        /// Permission bits of a new file.
        mode: u32,
    },
    /// Make a symbolic link, in place of what is there.
    Symlink {
        /// Absolute guest path.
        path: String,
        /// Written into the link.
        target: String,
    },
    /// Remove a file, link or empty folder; absent is fine.
    Remove {
        /// Absolute guest path.
        path: String,
    },
    /// Give a new file, folder or link its SELinux context. Nothing happens on a file system that has no labels.
    Label {
        /// Absolute guest path; a link in the last component is labelled itself.
        path: String,
        /// `system_u:object_r:etc_t:s0`
        context: String,
    },
}

impl Change {
    /// What is changed.
    pub fn path(&self) -> &str {
        match self {
            Change::Put { path, .. }
            | Change::Stage { path, .. }
            | Change::Symlink { path, .. }
            | Change::Remove { path }
            | Change::Label { path, .. } => path,
        }
    }
}

/// A file that a plan copies: the loaders and configuration files that are copied have a few MiB.
const COPIED: Bytes = Bytes::mib(256);

/// What a file may take beyond its length, at most: the last cluster, and the blocks that say where the others lie.
pub(crate) const OVERHEAD: Bytes = Bytes(256 << 10);

/// What a plan comes to.
#[derive(Debug, Default)]
pub struct Materialised {
    /// In the order in which they are made.
    pub changes: Vec<Change>,
    /// Every initramfs of the plan with its path, changed or not: for the report.
    pub archives: Vec<(String, Rewritten)>,
    /// Those that stay as they are because they could not be rewritten, and why. Never one of the kernel that starts by
    /// default: that is an error.
    pub left: Vec<(String, Error)>,
}

/// Every edit of a plan as a change, in the plan's order.
///
/// # Errors
/// As [`materialise_with_report`].
pub fn materialise(plan: &PatchPlan, tree: &dyn GuestTree) -> Result<Vec<Change>> {
    Ok(materialise_with_report(plan, tree)?.changes)
}

/// [`materialise`], and what became of every initramfs. Its `bytes` are moved to the changes, and so empty.
///
/// # Errors
/// Where a file to copy or to rewrite is absent or damaged, or where the new files would not fit the guest's free space.
pub fn materialise_with_report(plan: &PatchPlan, tree: &dyn GuestTree) -> Result<Materialised> {
    let mut archives = archives::rewrite(plan, tree)?.into_iter();
    let mut done = Materialised::default();
    for edit in &plan.edits {
        let path = edit.path.clone();
        match &edit.action {
            Action::Write { contents, mode } => {
                done.changes.push(Change::Put { path, bytes: contents.0.clone(), mode: *mode });
            }
            Action::Copy { from } => {
                let (bytes, mode) = copied(plan, edit, from, tree)?;
                done.changes.push(Change::Put { path, bytes, mode });
            }
            Action::Stage(file) => {
                done.changes.push(Change::Stage { path, file: file.clone(), mode: 0o644 });
            }
            Action::Initramfs(_) => {
                let mut archive = match archives.next() {
                    Some(Outcome::Rewritten(archive)) => archive,
                    Some(Outcome::Left(error)) => {
                        tracing::warn!(path, %error, "the initramfs stays as it is");
                        done.left.push((path, error));
                        continue;
                    }
                    None => continue,
                };
                for says in &archive.new.warnings {
                    tracing::warn!(path, "{says}");
                }
                let bytes = std::mem::take(&mut archive.new.bytes);
                if archive.new.changed {
                    done.changes.extend(checksum_change(&archive, &bytes, tree)?);
                    done.changes.push(Change::Put { path: path.clone(), bytes, mode: 0o600 });
                }
                done.archives.push((path, archive.new));
            }
            Action::Registry(edits) => {
                let bytes = hives::edited(tree, &path, &edits.0)?;
                done.changes.push(Change::Put { path, bytes, mode: 0o644 });
            }
            Action::Symlink { target } => done.changes.push(Change::Symlink { path, target: target.clone() }),
            Action::Remove => done.changes.push(Change::Remove { path }),
        }
        for Label { path, context } in edit.labels.clone() {
            done.changes.push(Change::Label { path, context });
        }
    }
    Ok(done)
}

/// The content of a copied file, as it is when its turn comes: an earlier edit of the plan counts.
fn copied(plan: &PatchPlan, edit: &Edit, from: &str, tree: &dyn GuestTree) -> Result<(Vec<u8>, u32)> {
    let earlier = plan.edits.iter().take_while(|other| *other != edit).find(|other| other.path == from);
    if let Some(Action::Write { contents, mode }) = earlier.map(|other| &other.action) {
        return Ok((contents.0.clone(), *mode));
    }
    let absent = || Error::new(crate::Kind::Io, "the file to copy does not exist").in_file(Path::new(from));
    let bytes = tree.read(from, COPIED)?.ok_or_else(absent)?;
    let mode = tree.metadata(from)?.ok_or_else(absent)?.mode & 0o7777;
    Ok((bytes, mode))
}

/// update-initramfs of Debian 8 and before refuses to rebuild a file whose SHA-1 it does not know: where it knew the
/// old one, it learns the new one.
fn checksum_change(archive: &Archive, bytes: &[u8], tree: &dyn GuestTree) -> Result<Option<Change>> {
    let path = format!("/var/lib/initramfs-tools/{}", archive.kernel);
    let Some(old) = tree.read(&path, crate::tree::CONFIG_AT_MOST)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&old).into_owned();
    if !text.contains(&archive.old_sha1) {
        let says =
            "was altered since update-initramfs made it, which will refuse to touch it (its -t forces it)";
        tracing::warn!(path = archive.path, "the initramfs {says}");
        return Ok(None);
    }
    let bytes = text.replace(&archive.old_sha1, &sha1(bytes)).into_bytes();
    Ok(Some(Change::Put { path, bytes, mode: 0o644 }))
}

fn sha1(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::initramfs;
    use crate::linux::loader::pe::{Pe, tests::program};
    use crate::patch::{InitramfsEdit, InitramfsFile, Text};
    use crate::tree::mem::MemTree;

    /// An archive with nothing in it.
    fn empty_archive() -> Vec<u8> {
        let mut fields = [0u32; 13];
        fields[4] = 1;
        fields[11] = 11;
        let fields: String = fields.iter().map(|field| format!("{field:08x}")).collect();
        let mut archive = format!("070701{fields}TRAILER!!!\0").into_bytes();
        archive.resize(archive.len().next_multiple_of(512), 0);
        archive
    }

    /// A plan that puts noise into each archive.
    fn plan(paths: &[&str]) -> PatchPlan {
        let next = |state: &u64| {
            Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
        };
        let noise: Vec<u8> =
            std::iter::successors(Some(1u64), next).take(8192).map(|state| state.to_be_bytes()[0]).collect();
        let edits = paths.iter().map(|path| Edit {
            path: (*path).to_owned(),
            action: Action::Initramfs(InitramfsEdit {
                kernel: "6.1".into(),
                starts_by_default: true,
                modules: "/lib/modules/6.1".into(),
                drivers: Vec::new(),
                load: Vec::new(),
                files: vec![InitramfsFile {
                    path: "etc/noise".into(),
                    contents: Text(noise.clone()),
                    mode: 0o644,
                }],
                remove: Vec::new(),
                renames: Vec::new(),
                devices: Vec::new(),
                addresses: Vec::new(),
            }),
            why: String::new(),
            labels: Vec::new(),
        });
        PatchPlan { edits: edits.collect(), ..PatchPlan::default() }
    }

    fn tree(paths: &[&str], archive: &[u8]) -> MemTree {
        let tree = MemTree::new().files(&[
            ("/lib/modules/6.1/modules.dep", ""),
            ("/lib/modules/6.1/modules.alias", ""),
            ("/lib/modules/6.1/modules.symbols", ""),
        ]);
        paths.iter().fold(tree, |tree, path| tree.file(path, archive))
    }

    /// systemd-boot's copies lie in a folder per kernel, all on one small partition.
    #[test]
    fn space_is_counted_over_all_folders_of_a_file_system() {
        let paths = ["/efi/6f/6.1/initrd", "/efi/6f/6.2/initrd"];
        let tree = tree(&paths, &empty_archive());
        let error = materialise(&plan(&paths), &tree.clone().free(Bytes::kib(12))).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("6.2/initrd"), "{error}");
        assert!(materialise(&plan(&paths[..1]), &tree.clone().free(Bytes::kib(12))).is_ok());
        let mut plan = plan(&paths[..1]);
        plan.edits.push(Edit {
            path: "/efi/EFI/BOOT/BOOTX64.EFI".into(),
            action: Action::Copy { from: "/shim".into() },
            why: String::new(),
            labels: Vec::new(),
        });
        let tree = tree.file("/shim", vec![0; 8192]).free(Bytes::kib(12));
        assert!(materialise(&plan, &tree).is_err(), "copies count");
    }

    #[test]
    fn the_initramfs_of_a_unified_image_is_rewritten_inside() {
        let path = "/efi/EFI/Linux/6.1.efi";
        let sections: [(&str, &[u8]); 3] =
            [(".cmdline", b"rw"), (".initrd", &empty_archive()), (".linux", b"kernel")];
        let tree = tree(&[path], &program(&sections, false));
        let made = materialise_with_report(&plan(&[path]), &tree).unwrap();
        let [Change::Put { bytes, .. }] = made.changes.as_slice() else { panic!("{:?}", made.changes.len()) };
        let image = Pe::parse(bytes).unwrap();
        assert_eq!(
            (image.section(".cmdline"), image.section(".linux")),
            (Some(&b"rw"[..]), Some(&b"kernel"[..]))
        );
        assert!(initramfs::inspect(image.section(".initrd").unwrap()).unwrap().entries > 0);
        assert_eq!(made.archives[0].1.new_size.0, bytes.len() as u64);
        // Again: nothing is left to do.
        let tree = tree.file(path, bytes);
        assert!(materialise(&plan(&[path]), &tree).unwrap().is_empty());
    }

    /// One damaged archive of an old kernel does not keep the machine from starting with its newest one.
    #[test]
    fn only_the_kernel_that_starts_must_be_rewritten() {
        let paths = ["/boot/initrd.img-6.1", "/boot/initrd.img-5.10"];
        let mut plan = plan(&paths);
        let Action::Initramfs(edit) = &mut plan.edits[1].action else { panic!() };
        edit.starts_by_default = false;
        let good = tree(&paths[..1], &empty_archive());
        // Cut off, of no known kind, and without modules.
        let mut cut = empty_archive();
        cut.truncate(60);
        for damaged in [&cut, &vec![1; 4096]] {
            let made =
                materialise_with_report(&plan, &good.clone().file(paths[1], damaged.as_slice())).unwrap();
            assert_eq!(made.changes.len(), 1);
            let [(path, error)] = made.left.as_slice() else { panic!("{:?}", made.left) };
            assert!(path == paths[1] && error.to_string().contains("5.10"), "{error}");
        }
        let tree = good.clone().file(paths[1], empty_archive());
        let Action::Initramfs(edit) = &mut plan.edits[1].action else { panic!() };
        edit.modules = "/lib/modules/5.10".into();
        let made = materialise_with_report(&plan, &tree).unwrap();
        assert_eq!((made.changes.len(), made.left.len()), (1, 1), "{:?}", made.left);
        // The one that starts is an error, and so is a disk that cannot be read.
        let Action::Initramfs(edit) = &mut plan.edits[1].action else { panic!() };
        edit.starts_by_default = true;
        assert!(materialise_with_report(&plan, &tree).is_err());
        let Action::Initramfs(edit) = &mut plan.edits[1].action else { panic!() };
        edit.starts_by_default = false;
        assert!(materialise_with_report(&plan, &good).is_err(), "the file is gone");
    }
}
