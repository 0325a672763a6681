//! Which volume holds the root file system that the machine starts from.
//!
//! A candidate has `/etc/passwd`, and `os-release` or both an fstab and an init. Where there are several, what the guest
//! itself says decides, in this order; a guess never does:
//! 1. A candidate whose own fstab names another volume as `/` is a copy or a leftover.
//! 2. Of the rest, those that a boot loader's first entry names (`root=`) go before those that none names.
//! 3. Of those, the ones whose own fstab names themselves go before those whose fstab does not tell.
//!
//! 4. Of those, the ones whose partition's type says that it is a root (the Discoverable Partitions Specification).
//!
//! Where a loader names a root that nobody has seen, none is taken ([`unseen`](super::unseen)).
//! Where more than one is left, all are named and none is patched, unless the caller chooses. On btrfs a candidate is a
//! subvolume; where `/` or `rootflags=` name none, they mean the default subvolume.

use super::beyond::Beyond;
use super::mapped::{self, Mapped};
use super::subvolumes::{self, Place};
use super::unseen;
use super::windows::OfWindows;
use crate::linux::fstab::Fstab;
use crate::sandbox::Subvolume;
use crate::tree::{CONFIG_AT_MOST, GuestTree, GuestTreeExt};
use crate::volume::{Meant, Names, Scan, Volume, VolumeId};
use crate::{Finding, Result};

/// What was seen on one volume.
#[derive(Clone, Debug)]
pub(super) struct Looked {
    pub id: VolumeId,
    /// On btrfs, what of it was looked at.
    pub subvolume: Option<Place>,
    /// Its fstab (empty where it has none), if it is a root file system.
    pub root: Option<Root>,
    /// The root of the first entry of each boot loader configuration on it.
    pub loader_roots: Vec<LoaderRoot>,
    /// Names that its configuration gives to encrypted volumes and arrays.
    pub mapped: Vec<Mapped>,
    /// Windows and what starts it.
    pub windows: OfWindows,
}

impl Looked {
    /// For people, and for choosing it: `disk0p2`, `disk0p2:/@`.
    pub(super) fn name(&self) -> String {
        match &self.subvolume {
            Some(place) => format!("{}:{}", self.id.0, place.path),
            None => self.id.0.clone(),
        }
    }

    /// True where this is the subvolume `wanted` of its volume.
    pub(super) fn is_at(&self, wanted: Option<&Subvolume>) -> bool {
        self.subvolume.as_ref().is_some_and(|place| place.is(wanted))
    }
}

/// `root=` of a boot loader's entry, and the subvolume that its `rootflags=` name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LoaderRoot {
    /// `UUID=…`
    pub spec: String,
    pub subvolume: Option<Subvolume>,
}

/// A root file system.
#[derive(Clone, Debug)]
pub(super) struct Root {
    /// `PRETTY_NAME`, or what there is.
    pub name: String,
    pub fstab: Fstab,
    /// What it mounts that fstab does not name.
    pub beyond: Beyond,
}

/// Where boot loaders keep their configuration, seen from the volume that holds it.
const LOADERS: &[&str] = &[
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/grub/grub.cfg",
    "/grub2/grub.cfg",
    "/boot/grub/menu.lst",
    "/grub/menu.lst",
    "/boot/grub/grub.conf",
    "/grub/grub.conf",
    "/boot/extlinux/extlinux.conf",
    "/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/extlinux.conf",
    // Entries may leave their parameters to the environment: `kernelopts=root=…`
    "/boot/grub2/grubenv",
    "/grub2/grubenv",
];

/// Partition types of a root, of the architectures that run here.
const ROOT_TYPES: &[&str] = &[
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    "44479540-f297-41b4-9af7-d131d5f0458a",
    "b921b045-1df0-41c3-af44-4c6f280d3fae",
];

/// Folders of boot loader entries, one file each.
const ENTRIES: &[&str] = &["/loader/entries", "/boot/loader/entries", "/boot/efi/loader/entries"];

/// Looks at one file system.
pub(super) fn look(id: &VolumeId, tree: &dyn GuestTree) -> Result<Looked> {
    let mut loader_roots = Vec::new();
    let mut mapped = Vec::new();
    for path in LOADERS {
        if let Some(text) = config(tree, path)? {
            mapped.extend(mapped::of_loader(&text));
            loader_roots.extend(first_root(&text));
        }
    }
    for folder in ENTRIES {
        let mut names = tree.names(folder)?;
        names.retain(|name| name.ends_with(".conf"));
        for name in names.iter().take(64) {
            if let Some(text) = config(tree, &format!("{folder}/{name}"))? {
                mapped.extend(mapped::of_loader(&text));
                loader_roots.extend(first_root(&text));
            }
        }
    }
    loader_roots.sort();
    loader_roots.dedup();
    let root = root(tree)?;
    if root.is_some() {
        mapped.extend(mapped::of_tree(tree)?);
    }
    Ok(Looked { id: id.clone(), subvolume: None, root, loader_roots, mapped, windows: OfWindows::default() })
}

/// A configuration file; one that is absurdly long, or is no file, is none.
pub(super) fn config(tree: &dyn GuestTree, path: &str) -> Result<Option<String>> {
    match tree.metadata(path)? {
        Some(meta) if meta.kind == crate::tree::NodeKind::File && meta.size <= CONFIG_AT_MOST => {
            tree.read_text(path)
        }
        _ => Ok(None),
    }
}

fn root(tree: &dyn GuestTree) -> Result<Option<Root>> {
    // Links count where they lead out of this file system: /usr may be another.
    let there = |paths: &[&str]| -> Result<bool> {
        for path in paths {
            if tree.link_metadata(path)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    if !there(&["/etc/passwd"])? {
        return Ok(None);
    }
    let fstab = match config(tree, "/etc/fstab")? {
        Some(_) => tree.read("/etc/fstab", CONFIG_AT_MOST)?.map(|raw| Fstab::parse(&raw)),
        None => None,
    };
    let init = there(&[
        "/sbin/init",
        "/usr/sbin/init",
        "/lib/systemd/systemd",
        "/usr/lib/systemd/systemd",
        "/etc/inittab",
        "/sbin",
    ])?;
    let release = there(&["/etc/os-release", "/usr/lib/os-release"])?;
    let is_root = release || (fstab.is_some() && init);
    if !is_root {
        return Ok(None);
    }
    let mut name = String::new();
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        let text = config(tree, path)?.unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        if let Some(value) = value {
            name = value.trim_matches('"').chars().filter(|letter| !letter.is_control()).take(100).collect();
            break;
        }
    }
    if name.is_empty() {
        name = "an unnamed system".into();
    }
    Ok(Some(Root { name, fstab: fstab.unwrap_or_else(|| Fstab::parse(b"")), beyond: Beyond::look(tree)? }))
}

/// `root=` of the first line that has one and is no comment: the first entry, which is nearly always the default.
fn first_root(text: &str) -> Option<LoaderRoot> {
    text.lines().map(str::trim_start).filter(|line| !line.starts_with('#')).find_map(|line| {
        let words = line.strip_prefix("kernelopts=").or_else(|| {
            let (key, rest) = line.split_once(char::is_whitespace)?;
            let starts = ["linux", "linux16", "linuxefi", "kernel", "append", "options"];
            starts.iter().any(|start| key.eq_ignore_ascii_case(start)).then_some(rest)
        })?;
        let value = |key: &str| {
            let mut words = words.split_whitespace();
            words.find_map(|word| Some(word.strip_prefix(key)?.trim_matches(['"', '\''])))
        };
        let spec = value("root=").filter(|root| !root.is_empty() && root.len() < 256)?;
        let subvolume = value("rootflags=").and_then(|flags| subvolumes::named(flags.split(',')));
        Some(LoaderRoot { spec: spec.to_owned(), subvolume })
    })
}

/// How a candidate's own fstab stands to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Itself,
    Another,
    Nothing,
}

fn own_fstab_says(looked: &Looked, candidate: &Volume, root: &Root, volumes: &[Volume]) -> Says {
    let Some(entry) = root.fstab.at("/") else { return Says::Nothing };
    let stable = entry.spec.contains('=') || entry.spec.starts_with("/dev/disk/by-uuid/");
    let about_volume = match Names::default().resolve(&entry.spec, "auto", volumes) {
        Meant::Volume(volume) if volume.id == candidate.id => Says::Itself,
        Meant::Volume(_) if stable || !candidate.device_names.is_empty() => Says::Another,
        // The order of the disks may have been another: only the partition's number counts.
        Meant::Volume(volume) if volume.partition != candidate.partition => Says::Another,
        // Named by a UUID that is on none of the disks: it was made for something else.
        Meant::Absent if stable => Says::Another,
        _ => Says::Nothing,
    };
    let Some(place) = &looked.subvolume else { return about_volume };
    match subvolumes::named(entry.options.iter().map(String::as_str)) {
        Some(named) if !place.is(Some(&named)) => Says::Another,
        // `rootflags=` may name one where fstab does not.
        None if !place.is_default && about_volume == Says::Itself => Says::Nothing,
        _ => about_volume,
    }
}

/// True where a root's own fstab names its own volume as `/`.
pub(super) fn is_its_own_root(looked: &Looked, candidate: &Volume, root: &Root, volumes: &[Volume]) -> bool {
    own_fstab_says(looked, candidate, root, volumes) == Says::Itself
}

/// The volume and the subvolume of a choice: `disk0p2:/@`, `disk0p3:luks:/@`.
pub(super) fn split_choice(wanted: &VolumeId) -> Option<(&str, &str)> {
    // No volume has a colon before a slash in its name; a subvolume may.
    let at = wanted.0.find(":/")?;
    Some((wanted.0.get(..at)?, wanted.0.get(at + 1..)?))
}

/// True where the root of some boot loader's entry is that volume.
pub(super) fn is_started(id: &VolumeId, looked: &[Looked], volumes: &[Volume]) -> bool {
    let roots = looked.iter().flat_map(|looked| &looked.loader_roots);
    roots
        .map(|root| Names::default().resolve(&root.spec, "auto", volumes))
        .any(|meant| matches!(meant, Meant::Volume(volume) if volume.id == *id))
}

/// The outcome of the choice.
pub(super) enum Choice<'l> {
    /// This one, and notes about the others.
    One(&'l Looked, Vec<Finding>),
    /// None, and why.
    None(Finding),
}

/// A candidate.
type Candidate<'l> = (&'l Looked, &'l Root, &'l Volume);

/// Chooses among everything that was seen.
pub(super) fn choose<'l>(looked: &'l [Looked], scan: &'l Scan, wanted: Option<&VolumeId>) -> Choice<'l> {
    let volumes = &scan.volumes;
    let candidates: Vec<Candidate<'l>> = looked
        .iter()
        .filter_map(|looked| Some((looked, looked.root.as_ref()?, scan.volume(&looked.id)?)))
        .collect();
    let mut left = candidates.clone();
    if let Some(wanted) = wanted {
        // A volume, or a subvolume of one.
        left.retain(|(looked, ..)| looked.id == *wanted || looked.name() == wanted.0);
        match left.as_slice() {
            [(chosen, ..)] => return Choice::One(chosen, Vec::new()),
            [] => {
                return Choice::None(Finding::new(
                    "no-operating-system",
                    format!("{} was chosen as root, but holds no root file system", wanted.0),
                    format!("choose one of: {}", list(&candidates)),
                ));
            }
            _ => {}
        }
    }
    let says = |candidate: &Candidate<'_>| own_fstab_says(candidate.0, candidate.2, candidate.1, volumes);
    let keep = |left: Vec<Candidate<'l>>, rule: &dyn Fn(&Candidate<'_>) -> bool| {
        let kept: Vec<_> = left.iter().filter(|candidate| rule(candidate)).copied().collect();
        if kept.is_empty() { left } else { kept }
    };
    let left = keep(left, &|candidate| says(candidate) != Says::Another);
    // A copy of a root on btrfs has a copy of its loader's configuration, which nothing reads.
    let copies = candidates.iter().filter(|candidate| says(candidate) == Says::Another);
    let copies: Vec<&Place> = copies.filter_map(|(looked, ..)| looked.subvolume.as_ref()).collect();
    let is_read = |looked: &&Looked| {
        looked.subvolume.as_ref().is_none_or(|place| !copies.iter().any(|copy| std::ptr::eq(*copy, place)))
    };
    let loader_roots = || looked.iter().filter(is_read).flat_map(|looked| &looked.loader_roots);
    let named: Vec<(VolumeId, Option<&Subvolume>)> = loader_roots()
        .filter_map(|root| match Names::default().resolve(&root.spec, "auto", volumes) {
            Meant::Volume(volume) => Some((volume.id.clone(), root.subvolume.as_ref())),
            _ => None,
        })
        .collect();
    let is_named = |(looked, ..): &Candidate<'_>| {
        let place = looked.subvolume.as_ref();
        named.iter().any(|(id, wanted)| looked.id == *id && place.is_none_or(|place| place.is(*wanted)))
    };
    let holders: Vec<&Volume> = left.iter().map(|(_, _, volume)| *volume).collect();
    let is_one_named = left.iter().any(is_named);
    if wanted.is_none()
        && !left.is_empty()
        && let Some(finding) =
            unseen::objection(loader_roots(), looked, scan, &holders, is_one_named, &list(&left))
    {
        return Choice::None(finding);
    }
    let left = keep(left, &is_named);
    let left = keep(left, &|candidate| says(candidate) == Says::Itself);
    let left = keep(left, &|candidate| {
        candidate.2.part_type.as_deref().is_some_and(|kind| ROOT_TYPES.contains(&kind))
    });
    match left.as_slice() {
        [] => Choice::None(nothing(scan)),
        [(chosen, _, _)] => {
            let others = candidates.iter().filter(|(other, ..)| !std::ptr::eq(*other, *chosen));
            let notes = others.map(|(other, root, _)| {
                Finding::new(
                    "root-stale",
                    format!(
                        "{} holds {}, which is not what the machine starts; it is left alone",
                        other.name(),
                        root.name
                    ),
                    format!("if it is, choose it as the root instead of {}", chosen.name()),
                )
            });
            Choice::One(chosen, notes.collect())
        }
        several => Choice::None(Finding::new(
            "root-several",
            format!(
                "{} hold a root file system each, and nothing tells which one the machine starts",
                list(several)
            ),
            "choose one with --root, or leave the disk that does not belong to the machine out",
        )),
    }
}

fn list(candidates: &[Candidate<'_>]) -> String {
    let names: Vec<_> =
        candidates.iter().map(|(looked, root, _)| format!("{} ({})", looked.name(), root.name)).collect();
    if names.is_empty() { "none".into() } else { names.join(" and ") }
}

fn nothing(scan: &Scan) -> Finding {
    use crate::volume::Content;
    let encrypted: Vec<_> = scan
        .volumes
        .iter()
        .filter_map(|volume| match &volume.content {
            Content::Encrypted { scheme } if !volume.is_opened_in(&scan.volumes) => {
                Some(format!("{} ({scheme})", volume.id.0))
            }
            _ => None,
        })
        .collect();
    if !encrypted.is_empty() {
        return Finding::new(
            "root-encrypted",
            format!("no root file system was found; {} cannot be seen into", encrypted.join(", ")),
            "give the key in a file: --key-file FILE, or --passphrase-file FILE for the first line of one; or convert the disks alone with landfall disk convert",
        );
    }
    let seen: Vec<_> = scan
        .volumes
        .iter()
        .map(|volume| format!("{} ({})", volume.id.0, describe(&volume.content)))
        .collect();
    let seen = if seen.is_empty() {
        "the disks hold nothing".to_owned()
    } else {
        format!("seen: {}", seen.join(", "))
    };
    Finding::new(
        "no-operating-system",
        format!("no root file system of an operating system was found; {seen}"),
        "name all disks of the machine, or convert them alone with landfall disk convert",
    )
}

/// What a volume holds, in a word.
pub(super) fn describe(content: &crate::volume::Content) -> String {
    use crate::volume::Content;
    match content {
        Content::FileSystem { name } => name.clone(),
        Content::Swap { .. } => "swap".into(),
        Content::LvmPhysical { group } => format!("LVM {group}").trim_end().to_owned(),
        Content::Encrypted { scheme } => scheme.clone(),
        Content::Member { of } => of.clone(),
        Content::Unknown => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_a_volume_and_perhaps_a_subvolume() {
        let split = |text: &str| {
            split_choice(&VolumeId(text.into())).map(|(volume, path)| (volume.to_owned(), path.to_owned()))
        };
        for (text, volume, path) in [
            ("disk0p2:/@", "disk0p2", "/@"),
            ("disk0p3:luks:/@", "disk0p3:luks", "/@"),
            ("vg0/root:luks:/a:/b", "vg0/root:luks", "/a:/b"),
        ] {
            assert_eq!(split(text), Some((volume.to_owned(), path.to_owned())));
        }
        for text in ["disk0p2", "disk0p3:luks", "vg0/root:luks"] {
            assert_eq!(split(text), None);
        }
    }

    #[test]
    fn the_first_entry_names_the_root() {
        let grub = "set root='hd0,msdos1'\nsearch --fs-uuid x\n# linux /x root=/dev/no\nmenuentry 'a' {\n\
                    \tlinux\t/boot/vmlinuz root=UUID=4b ro quiet\n}\nmenuentry 'b' {\nlinux /v root=/dev/sdb1\n}";
        let spec = |text| first_root(text).map(|root| root.spec);
        assert_eq!(spec(grub).as_deref(), Some("UUID=4b"));
        assert_eq!(spec("options root=LABEL=x rw").as_deref(), Some("LABEL=x"));
        assert_eq!(spec("APPEND initrd=x root=\"/dev/sda1\"").as_deref(), Some("/dev/sda1"));
        assert_eq!(
            spec("saved_entry=a\nkernelopts=root=/dev/mapper/x-root ro ").as_deref(),
            Some("/dev/mapper/x-root")
        );
        assert_eq!(first_root("title root=x"), None);
        let fedora = first_root("options root=UUID=4b ro rootflags=subvol=root rhgb").unwrap();
        assert_eq!(fedora.subvolume, Some(Subvolume::Path("/root".into())));
    }
}
