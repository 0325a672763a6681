//! Boot Loader Specification entries (UAPI.1): one file per entry, which GRUB (Fedora, RHEL 8 and later), systemd-boot and
//! others read; and what kernel-install makes the next ones from.
//!
//! Paths in an entry start at the root of the file system that the entry lies on. Deliberately absent: entries in `.efi`
//! files, which `uki` reads.

use super::super::device::Devices;
use super::super::draft::Draft;
use super::super::{facts, text, version};
use super::parameters::{self, Parameters, Place};
use crate::Result;
use crate::guest::Mount;
use crate::tree::{CONFIG_AT_MOST, GuestTree, GuestTreeExt};
use std::cmp::Ordering;

/// More entries than kernels that are looked at: each kernel may have some with other parameters.
const ENTRIES_AT_MOST: usize = 256;

/// Where `/loader/entries` may be: an extended boot partition, the ESP, `/boot` on the root file system.
const PLACES: &[&str] = &["/boot", "/efi", "/boot/efi", "/esp"];

/// Parameters that kernel-install, ukify, dracut and mkinitcpio put into the next entry or image.
const SOURCES: &[&str] = &[
    "/etc/kernel/cmdline",
    "/usr/lib/kernel/cmdline",
    "/etc/kernel/uki.conf",
    "/etc/cmdline",
    "/etc/dracut.conf",
    "/etc/sysconfig/bootloader",
];

/// Folders of the same.
const SOURCE_FOLDERS: &[&str] = &["/etc/kernel/cmdline.d", "/etc/cmdline.d", "/etc/dracut.conf.d"];

/// An entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Guest path of its file.
    pub path: String,
    /// The file's name without `.conf` and without counters of attempts.
    pub id: String,
    pub title: String,
    version: String,
    sort_key: String,
    machine_id: String,
    /// The kernel's path as the entry has it.
    pub linux: Option<String>,
    pub initrds: Vec<String>,
    /// All attempts failed.
    is_bad: bool,
    /// Folder at which the entry's file system is mounted.
    root: String,
    /// Folder above `loader/entries`.
    place: String,
    /// The kernel's path in the guest's tree, where it is there.
    pub image: Option<String>,
    /// The same of the initramfs with the modules.
    pub initramfs: Option<String>,
    /// The version of the kernel, where its modules are there.
    pub modules: Option<String>,
}

/// Every entry, in each place.
pub(super) fn read(tree: &dyn GuestTree, mounts: &[Mount]) -> Result<Vec<Entry>> {
    let mut places: Vec<&str> = PLACES.to_vec();
    for mount in mounts.iter().filter(|mount| mount.file_system == "vfat") {
        if !places.contains(&mount.at.as_str()) {
            places.push(&mount.at);
        }
    }
    let mut entries = Vec::new();
    for place in places {
        entries.extend(read_place(tree, place, &mount_point(mounts, place))?);
    }
    Ok(entries)
}

fn read_place(tree: &dyn GuestTree, place: &str, root: &str) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    if tree.read_link(place)?.is_some() {
        return Ok(entries);
    }
    // FAT does not tell upper case from lower.
    let Some(folder) = facts::find_path(tree, place, &["loader", "entries"])? else { return Ok(entries) };
    let mut names = tree.names(&folder)?;
    names.retain(|name| name.to_ascii_lowercase().ends_with(".conf"));
    for name in names.into_iter().take(ENTRIES_AT_MOST) {
        let path = format!("{folder}/{name}");
        let Ok(Some(contents)) = tree.read(&path, CONFIG_AT_MOST) else { continue };
        let (root, place) = (root.to_owned(), place.to_owned());
        entries.push(Entry { path, root, place, ..parse(&name, &contents) });
    }
    Ok(entries)
}

/// Where the file system of a folder is mounted.
fn mount_point(mounts: &[Mount], folder: &str) -> String {
    let holds = |at: &str| at == "/" || folder == at || folder.starts_with(&format!("{at}/"));
    let points = mounts.iter().map(|mount| mount.at.as_str()).filter(|at| holds(at));
    let point = points.max_by_key(|at| at.len()).unwrap_or("/");
    point.trim_end_matches('/').to_owned()
}

fn parse(name: &str, contents: &[u8]) -> Entry {
    let stem = name.get(..name.len().saturating_sub(".conf".len())).unwrap_or(name);
    // `NAME+LEFT-DONE.conf`: attempts to boot it.
    let (id, counters) = match stem.rsplit_once('+') {
        Some((id, counters)) if counters.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => {
            (id, counters)
        }
        _ => (stem, ""),
    };
    let left = counters.split('-').next().unwrap_or("");
    let mut entry = Entry {
        id: id.to_owned(),
        is_bad: !left.is_empty() && left.bytes().all(|byte| byte == b'0'),
        ..Entry::default()
    };
    for (body, _) in text::lines(contents) {
        let Ok(line) = std::str::from_utf8(body) else { continue };
        let line = line.trim();
        let Some((key, value)) = line.split_once([' ', '\t']) else {
            continue;
        };
        let value = value.trim().to_owned();
        match key.to_ascii_lowercase().as_str() {
            "title" => entry.title = value,
            "version" => entry.version = value,
            "sort-key" => entry.sort_key = value,
            "machine-id" => entry.machine_id = value,
            "linux" => entry.linux = Some(value),
            // GRUB takes several on a line; `$tuned_initrd` is one of its variables.
            "initrd" => entry
                .initrds
                .extend(value.split_whitespace().filter(|word| !word.starts_with('$')).map(str::to_owned)),
            _ => {}
        }
    }
    entry
}

impl Entry {
    /// A path of the entry as the guest's tree has it.
    pub fn locate(&self, tree: &dyn GuestTree, path: &str) -> Result<Option<String>> {
        let path = path.replace('\\', "/");
        let path = path.trim_start_matches('/');
        let file = path.rsplit('/').next().unwrap_or(path);
        if path.split('/').any(|name| name == "..") {
            return Ok(None);
        }
        // Some GRUB entries count from the root of the guest although /boot is a file system of its own, or the reverse;
        // on btrfs they begin with the subvolume. Where the mounts are not known, the entry's own folder is the root.
        for base in [self.root.as_str(), &self.place, "", "/boot"] {
            let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
            let plain = format!("{base}/{path}");
            if tree.exists(&plain)? {
                return Ok(Some(plain));
            }
            if let Some(found) = facts::find_path(tree, if base.is_empty() { "/" } else { base }, &names)? {
                return Ok(Some(found.replace("//", "/")));
            }
        }
        let in_boot = format!("/boot/{file}");
        Ok(tree.exists(&in_boot)?.then_some(in_boot))
    }

    /// Finds its files, and whose modules its kernel takes.
    pub fn look(&mut self, tree: &dyn GuestTree, versions: &mut facts::Versions<'_>) -> Result<()> {
        // A rescue image carries its modules with it, and a recovery system has its own.
        let Some(linux) = self.linux.clone().filter(|path| !is_rescue(path) && !is_rescue(&self.id)) else {
            return Ok(());
        };
        self.image = self.locate(tree, &linux)?;
        // Microcode comes first; the last is the one with the modules.
        if let Some(path) = self.initrds.last() {
            self.initramfs = self.locate(tree, path)?;
        }
        let Some(image) = &self.image else { return Ok(()) };
        let named = super::version_of_image(&linux);
        let by_key = Some(self.version.clone()).filter(|version| versions.has(version));
        // `vmlinuz.efi` names nothing.
        let file = linux.rsplit('/').next().unwrap_or(&linux);
        self.modules = match (&named, by_key) {
            (Some(version), _) if versions.has(version) => named,
            (_, Some(version)) => Some(version),
            _ => versions.of_image(image, named.as_deref().unwrap_or(file))?,
        };
        Ok(())
    }

    /// The version of its kernel: of its modules, else by the name of its file, else by the key, to which SUSE adds the
    /// number of a snapshot.
    pub fn kernel_version(&self) -> Option<String> {
        if self.modules.is_some() {
            return self.modules.clone();
        }
        let by_path = |path: &String| super::version_of_image(path);
        self.linux
            .as_ref()
            .and_then(by_path)
            .or_else(|| Some(self.version.clone()).filter(|version| !version.is_empty()))
    }
}

fn is_rescue(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("rescue") || name.contains("recovery")
}

/// The order in which systemd-boot shows them, the first of which starts.
pub(super) fn order(a: &Entry, b: &Entry) -> Ordering {
    let with_key = |entry: &Entry| !entry.sort_key.is_empty();
    a.is_bad.cmp(&b.is_bad).then(with_key(a).cmp(&with_key(b)).reverse()).then_with(|| {
        match with_key(a) && with_key(b) {
            true => a
                .sort_key
                .cmp(&b.sort_key)
                .then_with(|| a.machine_id.cmp(&b.machine_id))
                .then_with(|| version::compare(&b.version, &a.version))
                .then_with(|| version::compare(&b.id, &a.id)),
            false => version::compare(&b.id, &a.id),
        }
    })
}

/// Every entry and every source of the next ones names devices by UUID.
pub(super) fn plan(draft: &mut Draft<'_>, devices: &Devices<'_>, entries: &[Entry]) -> Result<()> {
    for entry in entries {
        if let (Some(image), None) = (&entry.image, &entry.modules) {
            draft.find(
                "linux-entry-unchecked",
                format!(
                    "The boot entry {} starts {image}, and which modules are that kernel's is not known: its initramfs was left as it is.",
                    entry.path
                ),
                "Start another entry, or reinstall the kernel's package in the guest, if the entry is the guest's own.",
            );
        }
        let place = Place { has_initramfs: !entry.initrds.is_empty(), is_own: true };
        let mut parameters = Parameters::new(devices);
        draft.edit(&entry.path, "The boot entry finds root and resume device by UUID.", |old| {
            text::map_lines(old, |body| {
                let takes = text::word(body, 0).is_some_and(|word| word.eq_ignore_ascii_case("options"));
                takes.then(|| parameters.line(body, place))?
            })
        })?;
        parameters.report(draft, &entry.path);
    }
    for path in sources(draft)? {
        let why = "The next kernel's boot entry keeps naming devices by UUID.";
        parameters::plain_file(draft, devices, &path, why)?;
    }
    Ok(())
}

/// Files with the parameters that the next entry or image is made with.
pub(super) fn sources(draft: &Draft<'_>) -> Result<Vec<String>> {
    let mut sources: Vec<String> = SOURCES.iter().map(|path| (*path).to_owned()).collect();
    for folder in SOURCE_FOLDERS {
        let names = draft.scene.tree.names(folder)?;
        sources.extend(names.iter().take(ENTRIES_AT_MOST).map(|name| format!("{folder}/{name}")));
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::mem::MemTree;

    fn entry(name: &str, contents: &str) -> Entry {
        parse(name, contents.as_bytes())
    }

    #[test]
    fn entries_are_read() {
        let read = entry(
            "6f-6.1.0+3-1.conf",
            "# Boot Loader Specification type#1 entry\ntitle      Debian GNU/Linux 12\nversion\t6.1.0-43-amd64\n\
             machine-id 6f\nsort-key debian\noptions    root=UUID=1 ro\nlinux      /6f/6.1.0-43-amd64/linux\n\
             initrd     /6f/ucode.img $tuned_initrd\ninitrd     /6f/6.1.0-43-amd64/initrd.img-6.1.0-43-amd64\n",
        );
        assert_eq!((read.id.as_str(), read.is_bad), ("6f-6.1.0", false));
        assert_eq!(read.initrds, ["/6f/ucode.img", "/6f/6.1.0-43-amd64/initrd.img-6.1.0-43-amd64"]);
        assert_eq!(read.kernel_version().as_deref(), Some("6.1.0-43-amd64"));
        assert!(entry("a+0-3.conf", "").is_bad && !entry("a+b.conf", "").is_bad);
        assert_eq!(entry("a.conf", "version 5.1\nlinux /vmlinuz\n").kernel_version().as_deref(), Some("5.1"));
    }

    #[test]
    fn the_newest_comes_first_and_bad_ones_last() {
        let mut all = [
            entry("a-6.1.0-9.conf", "version 6.1.0-9\nsort-key debian"),
            entry("z-plain.conf", "linux /x"),
            entry("a-6.1.0-43.conf", "version 6.1.0-43\nsort-key debian"),
            entry("a-6.2+0.conf", "version 6.2\nsort-key debian"),
            entry("b.conf", "sort-key arch"),
        ];
        all.sort_by(order);
        let ids: Vec<_> = all.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["b", "a-6.1.0-43", "a-6.1.0-9", "z-plain", "a-6.2"]);
    }

    #[test]
    fn kernels_beside_their_entries() {
        let tree = MemTree::new().files(&[
            ("/efi/loader/entries/6f-6.1.conf", "linux /6f/6.1/linux\ninitrd /6F/6.1/initrd.img-6.1\n"),
            ("/efi/6f/6.1/linux", ""),
            ("/efi/6f/6.1/initrd.img-6.1", ""),
            ("/efi/loader/entries/other.conf", "linux /other/5.0/linux\n"),
            ("/efi/other/5.0/linux", ""),
            (
                "/boot/loader/entries/r-5.14.conf",
                "linux /boot/vmlinuz-5.14\ninitrd /boot/initramfs-5.14.img\n",
            ),
            ("/boot/vmlinuz-5.14", ""),
            ("/boot/initramfs-5.14.img", ""),
            ("/usr/lib/modules/6.1/modules.dep", ""),
            ("/usr/lib/modules/5.14/modules.dep", ""),
        ]);
        let found = super::super::Copies::read(&tree, &[]).unwrap().kernels();
        let paths: Vec<_> = found.iter().map(|kernel| kernel.initramfs.as_deref().unwrap()).collect();
        assert_eq!(paths, ["/boot/initramfs-5.14.img", "/efi/6f/6.1/initrd.img-6.1"]);
    }
}
