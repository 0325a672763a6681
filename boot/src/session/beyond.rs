//! What a guest mounts besides its fstab: mount units (systemd.mount(5)), and the partitions that systemd finds by their
//! type (systemd-gpt-auto-generator(8)): the EFI system partition at /efi or /boot, the extended boot loader partition
//! (XBOOTLDR) at /boot.
//!
//! Deliberately absent: /home, /srv and /var by type, which hold nothing that is patched (or, /var, only for a machine
//! id that fits); units outside of /etc, which are the distribution's and mount no disks.

use super::roots::config;
use crate::Result;
use crate::linux::fstab::Entry;
use crate::tree::{GuestTree, GuestTreeExt};
use crate::volume::{Content, Volume, VolumeId};

/// GUIDs of partition types.
pub(super) const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
const XBOOTLDR: &str = "bc13c2ff-59e6-4262-a352-b275fd6f7172";

const UNITS: &str = "/etc/systemd/system";

/// Units that are read; a machine has a handful.
const UNITS_AT_MOST: usize = 64;

/// What a root file system says about it.
#[derive(Clone, Debug, Default)]
pub(super) struct Beyond {
    /// Mount units of the administrator that the boot starts.
    pub units: Vec<Entry>,
    /// Folders at which systemd would mount what it finds: those that are there and empty.
    empty: Vec<&'static str>,
    has_efi: bool,
}

impl Beyond {
    /// Looks into a root file system.
    pub(super) fn look(tree: &dyn GuestTree) -> Result<Beyond> {
        let mut beyond = Beyond { units: units(tree)?, ..Beyond::default() };
        for parent in ["/usr/lib/systemd", "/lib/systemd"] {
            if tree
                .link_metadata(&format!("{parent}/system-generators/systemd-gpt-auto-generator"))?
                .is_none()
            {
                continue;
            }
            beyond.has_efi = tree.exists("/efi")?;
            for folder in ["/efi", "/boot"] {
                if tree.list(folder)?.is_some_and(|entries| entries.is_empty()) {
                    beyond.empty.push(folder);
                }
            }
            break;
        }
        Ok(beyond)
    }

    /// What systemd mounts by the types of partitions on the disk of `root`, where neither the folder is `taken` nor
    /// the partition `named` for another.
    pub(super) fn by_type<'v>(
        &self,
        root: &Volume,
        volumes: &'v [Volume],
        taken: &dyn Fn(&str) -> bool,
        named: &[VolumeId],
    ) -> Vec<(&'static str, &'v Volume)> {
        let of_type = |kind: &str| {
            volumes.iter().find(|volume| {
                volume.disk == root.disk
                    && volume.part_type.as_deref() == Some(kind)
                    && matches!(volume.content, Content::FileSystem { .. })
                    && volume.id != root.id
            })
        };
        let mut found = Vec::new();
        let mut add = |at: &'static str, volume: Option<&'v Volume>| {
            if let Some(volume) = volume
                && self.empty.contains(&at)
                && !taken(at)
                && !named.contains(&volume.id)
            {
                found.push((at, volume));
            }
        };
        let boot = of_type(XBOOTLDR);
        add("/boot", boot);
        add(if self.has_efi || boot.is_some() { "/efi" } else { "/boot" }, of_type(ESP));
        found
    }
}

fn units(tree: &dyn GuestTree) -> Result<Vec<Entry>> {
    let names = tree.names(UNITS)?;
    let mut units: Vec<&String> = names.iter().filter(|name| name.ends_with(".mount")).collect();
    units.truncate(UNITS_AT_MOST);
    if units.is_empty() {
        return Ok(Vec::new());
    }
    // A unit counts where something that is started wants it.
    let mut wanted = Vec::new();
    for folder in names.iter().filter(|name| name.ends_with(".wants") || name.ends_with(".requires")) {
        wanted.extend(tree.names(&format!("{UNITS}/{folder}"))?);
    }
    let mut entries = Vec::new();
    for name in units {
        if wanted.contains(name)
            && let Some(text) = config(tree, &format!("{UNITS}/{name}"))?
        {
            entries.extend(entry(&text));
        }
    }
    Ok(entries)
}

/// A unit's section `[Mount]` as a line of fstab. One with specifiers (`%i`) is left out.
fn entry(unit: &str) -> Option<Entry> {
    let mut in_section = false;
    let (mut what, mut at, mut kind, mut options) = (None, None, "auto", "");
    for line in unit.lines().map(str::trim) {
        if line.starts_with('[') {
            in_section = line == "[Mount]";
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| in_section) else { continue };
        let value = value.trim();
        match key.trim_end() {
            "What" => what = Some(value),
            "Where" => at = Some(value),
            "Type" => kind = value,
            "Options" => options = value,
            _ => {}
        }
    }
    let (what, at) = (what?, at.filter(|at| at.starts_with('/') && *at != "/")?);
    (!what.contains('%') && !at.contains('%')).then(|| Entry::elsewhere(what, at, kind, options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::mem::MemTree;
    use landfall_image::Bytes;

    #[test]
    fn enabled_mount_units_are_read() {
        let unit = |what: &str, at: &str| {
            format!(
                "[Unit]\nWhat=no\n[Mount]\nWhat = {what}\nWhere={at}\nOptions=subvol=@x,nofail\n[Install]\n"
            )
        };
        let tree = MemTree::new()
            .file("/etc/systemd/system/boot.mount", unit("/dev/disk/by-uuid/4b", "/boot/"))
            .file("/etc/systemd/system/srv.mount", unit("/dev/sdb1", "/srv"))
            .file("/etc/systemd/system/opt.mount", unit("/dev/%i", "/opt"))
            .symlink("/etc/systemd/system/var.mount", "/dev/null")
            .symlink("/etc/systemd/system/local-fs.target.wants/boot.mount", "../boot.mount")
            .symlink("/etc/systemd/system/local-fs.target.wants/opt.mount", "../opt.mount")
            .symlink("/etc/systemd/system/local-fs.target.requires/var.mount", "../var.mount");
        let found = units(&tree).unwrap();
        let seen: Vec<_> =
            found.iter().map(|entry| (&*entry.spec, &*entry.at, entry.is_optional())).collect();
        assert_eq!(seen, [("/dev/disk/by-uuid/4b", "/boot", true)]);
    }

    #[test]
    fn partitions_are_found_by_their_type() {
        let of_type = |disk, partition, kind: &str| Volume {
            id: VolumeId(format!("disk{disk}p{partition}")),
            size: Bytes::mib(64),
            content: Content::FileSystem { name: "vfat".into() },
            uuid: None,
            label: None,
            part_uuid: None,
            part_label: None,
            part_type: Some(kind.into()),
            disk,
            partition: Some(partition),
            offset: None,
            device_names: Vec::new(),
            free: None,
            on: Vec::new(),
        };
        let root = of_type(0, 3, "0x83");
        let (esp, boot, other) = (of_type(0, 1, ESP), of_type(0, 2, XBOOTLDR), of_type(1, 1, ESP));
        let generator = "/usr/lib/systemd/system-generators/systemd-gpt-auto-generator";
        let plan =
            |tree: &MemTree, volumes: &[Volume], taken: &str, named: &[VolumeId]| -> Vec<(String, String)> {
                let beyond = Beyond::look(tree).unwrap();
                let found = beyond.by_type(&root, volumes, &|at| at == taken, named);
                found.into_iter().map(|(at, volume)| (at.to_owned(), volume.id.0.clone())).collect()
            };
        let pair = |at: &str, id: &str| (at.to_owned(), id.to_owned());
        let both = MemTree::new().file(generator, "").dir("/efi").dir("/boot");
        let all = [other.clone(), esp.clone(), boot.clone(), root.clone()];
        assert_eq!(plan(&both, &all, "", &[]), [pair("/boot", "disk0p2"), pair("/efi", "disk0p1")]);
        assert_eq!(plan(&both, &all, "/efi", std::slice::from_ref(&boot.id)), []);
        assert_eq!(plan(&both, std::slice::from_ref(&esp), "", &[]), [pair("/efi", "disk0p1")]);
        let only_boot = MemTree::new().file(generator, "").dir("/boot");
        assert_eq!(plan(&only_boot, std::slice::from_ref(&esp), "", &[]), [pair("/boot", "disk0p1")]);
        assert_eq!(plan(&only_boot, std::slice::from_ref(&other), "", &[]), [], "on another disk");
        // The kernels lie in the root itself; and another init system.
        let full = MemTree::new().file(generator, "").file("/boot/vmlinuz", "");
        assert_eq!(plan(&full, std::slice::from_ref(&esp), "", &[]), []);
        assert_eq!(plan(&MemTree::new().dir("/boot"), std::slice::from_ref(&esp), "", &[]), []);
    }
}
