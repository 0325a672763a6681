//! The subvolumes of a btrfs file system that may be what the machine starts from.
//!
//! Looked at are the default subvolume, the top level, whatever lies at most two folders below it and looks like a root or
//! a `/boot` (`@`, `root`, `@rootfs`, `__active/rootvol`), and what a boot loader or the caller names. Snapshots lie
//! deeper (`/@/.snapshots/12/snapshot`, `/timeshift-btrfs/snapshots/DATE/@`): none is looked at for itself, and of
//! those that lie beside the root (`@_backup`) their own fstab says whose copies they are.
//!
//! Deliberately absent: a list of all subvolumes. The kernel gives it by an ioctl, which takes unsafe code, and a machine
//! with snapper or containers has hundreds that nobody starts.

use super::Work;
use super::look::look_leniently;
use super::roots::{self, LoaderRoot, Looked};
use crate::sandbox::{Session, Subvolume};
use crate::tree::walk::normalise;
use crate::tree::{GuestTree, NodeKind};
use crate::volume::{Meant, Names, Volume};
use crate::{Error, Kind, Result};

/// Subvolumes that are mounted to be looked at, of one file system. Each takes a tenth of a second under emulation.
const LOOKED_AT_MOST: usize = 32;

/// Folders that are searched for roots; each takes a few round trips.
const FOLDERS_AT_MOST: usize = 512;

/// The top level, under every name that the kernel takes for it.
const TOP: [u64; 2] = [0, 5];

/// A subvolume, as it was mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// From the top level, which is `/`: `/@`.
    pub path: String,
    pub id: Option<u64>,
    /// It is mounted where none is named.
    pub is_default: bool,
}

impl Place {
    /// True where `wanted` is this one.
    pub(super) fn is(&self, wanted: Option<&Subvolume>) -> bool {
        match wanted {
            None => self.is_default,
            Some(Subvolume::Path(path)) => *path == self.path,
            Some(Subvolume::Id(id)) => self.id == Some(*id),
        }
    }
}

/// The subvolume that mount options name. Its path goes before its number, which is stale after a rollback by hand.
pub(super) fn named<'o>(options: impl Iterator<Item = &'o str>) -> Option<Subvolume> {
    let (mut path, mut id) = (None, None);
    for option in options {
        match option.split_once('=') {
            Some(("subvol", value)) => path = Some(by_path(value)),
            Some(("subvolid", value)) => id = value.parse().ok(),
            _ => {}
        }
    }
    match (path, id) {
        (Some(path), _) => Some(path),
        (None, Some(id)) if TOP.contains(&id) => Some(by_path("/")),
        (None, Some(id)) => Some(Subvolume::Id(id)),
        (None, None) => None,
    }
}

/// A subvolume by its path, with or without the slash in front.
pub(super) fn by_path(path: &str) -> Subvolume {
    Subvolume::Path(normalise(path))
}

impl Work<'_, '_> {
    /// Looks at all of them. `known` is what the other volumes said. Names in the sandbox begin with `name`.
    pub(super) fn look_at_subvolumes(
        &self,
        volume: &Volume,
        name: &str,
        known: &[Looked],
    ) -> Result<Vec<Looked>> {
        let session = self.readers.session()?;
        let top = format!("{name}.top");
        // The top level stays mounted: what is mounted beside it costs little then.
        session.mount_subvolume(&volume.id.0, "btrfs", &top, "/", true, Some(&by_path("/")))?;
        let looked = self.look_below(volume, name, &session.tree(&top), known);
        session.unmount(&top, "/")?;
        looked
    }

    fn look_below(
        &self,
        volume: &Volume,
        name: &str,
        top: &dyn GuestTree,
        known: &[Looked],
    ) -> Result<Vec<Looked>> {
        let mut wanted: Vec<Option<Subvolume>> = vec![None, Some(by_path("/"))];
        wanted.extend(self.wanted_subvolume(volume).map(Some));
        wanted.extend(promising(top)?.iter().map(|path| Some(by_path(path))));
        let mut looked: Vec<Looked> = Vec::new();
        // What boot loaders name, wherever they lie: those of a subvolume may name another one.
        let mut loader_roots: Vec<LoaderRoot> =
            known.iter().flat_map(|looked| looked.loader_roots.iter().cloned()).collect();
        let (mut next, mut next_root) = (0, 0);
        while looked.len() < LOOKED_AT_MOST {
            let subvolume = if let Some(wanted) = wanted.get(next) {
                next += 1;
                wanted.clone()
            } else if let Some(root) = loader_roots.get(next_root) {
                next_root += 1;
                let meant = Names::default().resolve(&root.spec, "auto", &self.scan.volumes);
                match meant {
                    Meant::Volume(meant) if meant.id == volume.id && root.subvolume.is_some() => {
                        root.subvolume.clone()
                    }
                    _ => continue,
                }
            } else {
                break;
            };
            if !looked.iter().any(|seen| seen.is_at(subvolume.as_ref()))
                && let Some(seen) = self.look_at_one(volume, name, subvolume.as_ref(), &looked)?
            {
                loader_roots.extend(seen.loader_roots.iter().cloned());
                looked.push(seen);
            }
        }
        Ok(looked)
    }

    /// Mounts one subvolume and looks at it, unless it is none, or is known by another name.
    fn look_at_one(
        &self,
        volume: &Volume,
        name: &str,
        wanted: Option<&Subvolume>,
        known: &[Looked],
    ) -> Result<Option<Looked>> {
        let session = self.readers.session()?;
        let root = format!("{name}.one");
        let mounted = match session.mount_subvolume(&volume.id.0, "btrfs", &root, "/", true, wanted) {
            Ok(mounted) => mounted,
            // A folder that is no subvolume, or a name that leads nowhere.
            Err(error) if wanted.is_some() && !is_ours(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_default = wanted.is_none();
        let place = mounted.subvolume.map(|path| Place { path, id: mounted.subvolume_id, is_default });
        let is_known = |place: &Place| known.iter().any(|seen| seen.is_at(Some(&by_path(&place.path))));
        let seen = match &place {
            Some(place) if is_known(place) => Ok(None),
            Some(_) => look_leniently(&volume.id, &session.tree(&root)).map(Some),
            None => Err(Error::unsupported("the sandbox's kernel does not tell which subvolume it mounted")),
        };
        session.unmount(&root, "/")?;
        Ok(seen?.map(|seen| Looked { subvolume: place, ..seen }))
    }

    /// The subvolume that the caller chose of this volume.
    fn wanted_subvolume(&self, volume: &Volume) -> Option<Subvolume> {
        let (id, subvolume) = roots::split_choice(self.options.root.as_ref()?)?;
        (id == volume.id.0).then(|| by_path(subvolume))
    }

    /// The path of a subvolume that fstab names for a volume; `None` where there is nobody to ask.
    pub(super) fn subvolume_path(
        &self,
        volume: &Volume,
        wanted: Option<&Subvolume>,
        looked: &[Looked],
    ) -> Result<Option<String>> {
        if let Some(Subvolume::Path(path)) = wanted {
            return Ok(Some(path.clone()));
        }
        let of_volume = looked.iter().filter(|looked| looked.id == volume.id);
        let mut places = of_volume.filter_map(|looked| looked.subvolume.as_ref());
        if let Some(place) = places.find(|place| place.is(wanted)) {
            return Ok(Some(place.path.clone()));
        }
        if !self.readers.has_sandbox() {
            return Ok(None);
        }
        let session: &Session = self.readers.session()?;
        let root = "subvolume";
        let mounted = session.mount_subvolume(&volume.id.0, "btrfs", root, "/", true, wanted)?;
        session.unmount(root, "/")?;
        Ok(mounted.subvolume)
    }
}

/// True where the sandbox or the host failed, not the file system.
fn is_ours(error: &Error) -> bool {
    matches!(error.kind(), Kind::Io | Kind::Interrupted)
}

/// Paths from the top level that look like a root file system, or like one that is mounted at /boot.
fn promising(top: &dyn GuestTree) -> Result<Vec<String>> {
    let mut searched = 0;
    let mut found = Vec::new();
    let mut later = folders(top, "/")?;
    for depth in 0..2 {
        for path in std::mem::take(&mut later) {
            searched += 1;
            if searched > FOLDERS_AT_MOST {
                break;
            }
            if is_promising(top, &path)? {
                // What lies in a root is its own.
                found.push(path);
            } else if depth == 0 {
                later.extend(folders(top, &path)?);
            }
        }
    }
    // The shortest names first: `@` before `@_2024-11-03` where there are too many.
    found.sort_by_key(String::len);
    found.truncate(LOOKED_AT_MOST);
    Ok(found)
}

fn folders(top: &dyn GuestTree, path: &str) -> Result<Vec<String>> {
    let entries = match top.list(path) {
        // A heap of files, too many to be listed, is no place for roots.
        Err(error) if !is_ours(&error) => None,
        entries => entries?,
    };
    let entries = entries.unwrap_or_default().into_iter();
    let folders = entries.filter(|entry| entry.kind == NodeKind::Dir && !entry.name.starts_with('.'));
    let parent = path.trim_end_matches('/');
    Ok(folders.take(FOLDERS_AT_MOST).map(|entry| format!("{parent}/{}", entry.name)).collect())
}

fn is_promising(top: &dyn GuestTree, path: &str) -> Result<bool> {
    let signs = ["etc/passwd", "grub/grub.cfg", "grub2/grub.cfg", "loader/entries", "extlinux/extlinux.conf"];
    for sign in signs {
        if top.link_metadata(&format!("{path}/{sign}"))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::mem::MemTree;

    #[test]
    fn options_name_a_subvolume() {
        let of = |options: &str| named(options.split(','));
        let path = |path: &str| Some(Subvolume::Path(path.into()));
        for (options, expected) in [
            ("defaults,subvol=@", path("/@")),
            ("subvolid=256,subvol=/@/", path("/@")),
            ("subvol=@old,subvol=@/x", path("/@/x")),
            ("subvol=/", path("/")),
            ("subvolid=5", path("/")),
            ("subvolid=260", Some(Subvolume::Id(260))),
            ("subvolid=x", None),
            ("compress=zstd:1", None),
        ] {
            assert_eq!(of(options), expected, "{options}");
        }
    }

    #[test]
    fn roots_near_the_top_level_are_found_and_snapshots_are_not() {
        let passwd = [
            "/@",
            "/root",
            "/__active/rootvol",
            "/@/.snapshots/1/snapshot",
            "/a/b/c",
            "/.hidden",
            "/timeshift-btrfs/snapshots/x/@",
            "/@/var/lib/machines/web",
        ];
        let tree = passwd
            .iter()
            .fold(MemTree::new(), |tree, path| tree.file(&format!("{path}/etc/passwd"), ""))
            .file("/@boot/grub/grub.cfg", "")
            .dir("/@home/user");
        assert_eq!(promising(&tree).unwrap(), ["/@", "/root", "/@boot", "/__active/rootvol"]);
        let many = (0..1000).fold(MemTree::new(), |tree, n| tree.file(&format!("/{n}/etc/passwd"), ""));
        assert_eq!(promising(&many).unwrap().len(), LOOKED_AT_MOST);
    }
}
