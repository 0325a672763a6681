//! GRUB 2: the generated configuration, wherever the distribution keeps it, and what the next one is generated from.
//!
//! ```text
//! /boot/grub/grub.cfg          Debian, Arch, Alpine          /boot/grub2/grub.cfg   Red Hat, SUSE, Amazon
//! ESP/EFI/VENDOR/grub.cfg      a few lines that lead there; before RHEL 9 and Fedora 34 the real one
//! ```
//! Generated files are edited as text and never generated anew: that needs guest code, and under another firmware mode
//! it breaks guests.

use super::super::device::Devices;
use super::super::draft::Draft;
use super::super::{facts, text, version};
use super::bls::Entry;
use super::menu::Menu;
use super::{grubenv, parameters};
use crate::Result;
use crate::tree::GuestTreeExt;
use landfall_image::Bytes;

const FOLDERS: &[&str] = &["/boot/grub", "/boot/grub2"];

/// The generated configuration, and what it takes in.
const NAMES: &[&str] = &["grub.cfg", "custom.cfg", "grub-btrfs.cfg"];

/// Distributions come with a dozen.
const SCRIPTS_AT_MOST: usize = 256;

const DEFAULTS: &str = "/etc/default/grub";

/// debconf's database; a few MiB on a large system.
const DEBCONF_AT_MOST: Bytes = Bytes::mib(64);

/// What there is of GRUB 2 in a guest.
pub(super) struct Grub {
    /// Every configuration.
    pub configs: Vec<String>,
    /// Every environment block.
    pub environments: Vec<String>,
}

impl Grub {
    /// Looks for it; `None` where no configuration lies in any of its places.
    pub fn find(draft: &Draft<'_>) -> Result<Option<Grub>> {
        let grub = Grub::look(draft)?;
        Ok((!grub.configs.is_empty()).then_some(grub))
    }

    /// Whatever lies in its places.
    pub fn look(draft: &Draft<'_>) -> Result<Grub> {
        let tree = draft.scene.tree;
        let mut configs = Vec::new();
        let mut environments = Vec::new();
        for folder in FOLDERS {
            for name in NAMES {
                let path = format!("{folder}/{name}");
                if tree.exists(&path)? {
                    configs.push(path);
                }
            }
        }
        for path in grubenv::PATHS {
            if tree.exists(path)? {
                environments.push((*path).to_owned());
            }
        }
        for root in facts::boot_folders(tree, draft.scene.mounts)? {
            let Some(efi) = facts::find_path(tree, &root, &["EFI"])? else { continue };
            for vendor in tree.names(&efi)?.into_iter().take(facts::VENDORS_AT_MOST) {
                let folder = format!("{efi}/{vendor}");
                let find = |name| -> Result<Option<String>> {
                    Ok(facts::find_name(tree, &folder, name)?.map(|name| format!("{folder}/{name}")))
                };
                configs.extend(find("grub.cfg")?);
                environments.extend(find("grubenv")?);
            }
        }
        without_links(draft, &mut configs)?;
        without_links(draft, &mut environments)?;
        Ok(Grub { configs, environments })
    }

    /// Plans all that GRUB reads, and all that it is made from.
    pub fn plan(&self, draft: &mut Draft<'_>, devices: &Devices<'_>) -> Result<()> {
        for path in &self.configs {
            parameters::entries(draft, devices, path)?;
        }
        for path in &self.environments {
            grubenv::plan(draft, devices, path)?;
        }
        defaults(draft, devices)?;
        scripts(draft, devices)?;
        for path in &self.configs {
            searches(draft, devices, path)?;
        }
        for folder in FOLDERS {
            device_map(draft, &format!("{folder}/device.map"))?;
        }
        Ok(())
    }

    /// Version of the kernel that starts without a choice being made, where that is certain.
    pub fn default_kernel(&self, draft: &mut Draft<'_>, entries: &[Entry]) -> Result<Option<String>> {
        let mut variable = |name: &str| -> Result<Option<String>> {
            for path in &self.environments {
                let block = draft.read(path)?.unwrap_or_default();
                if let Some(value) = grubenv::value(&block, name) {
                    return Ok(Some(value));
                }
            }
            Ok(None)
        };
        let saved = variable("saved_entry")?;
        let next = variable("next_entry")?;
        for path in &self.configs {
            let menu = Menu::parse(&draft.read(path)?.unwrap_or_default());
            if menu.entries.is_empty() && !menu.has_bls {
                continue;
            }
            let value = menu.defaults.iter().rev().find(|value| !value.contains("next_entry"));
            let value = match value.map(String::as_str) {
                Some("${saved_entry}" | "$saved_entry") => saved.clone().unwrap_or_else(|| "0".to_owned()),
                Some(value) if value.contains('$') => return Ok(None),
                Some(value) => value.to_owned(),
                None => "0".to_owned(),
            };
            let value = next.clone().unwrap_or(value);
            if menu.has_bls
                && let Some(entry) = bls_entry(entries, &value)
            {
                return Ok(entry.kernel_version());
            }
            let image = menu.find(&value).and_then(|entry| entry.image.clone());
            return image.map_or(Ok(None), |image| super::version_behind(draft.scene.tree, &image));
        }
        Ok(None)
    }
}

/// The entry of `/boot/loader/entries` that a value of `default` means; GRUB lists them by file name, the newest first.
fn bls_entry<'e>(entries: &'e [Entry], default: &str) -> Option<&'e Entry> {
    let mut sorted: Vec<&Entry> = entries.iter().filter(|entry| entry.linux.is_some()).collect();
    sorted.sort_by(|a, b| version::compare(&b.id, &a.id));
    let by_name = sorted.iter().find(|entry| entry.id == default || entry.title == default);
    by_name.or_else(|| sorted.get(default.parse::<usize>().ok()?)).copied()
}

/// Leaves out links to others of the list.
fn without_links(draft: &Draft<'_>, paths: &mut Vec<String>) -> Result<()> {
    let all: Vec<String> = paths.clone();
    let list: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut kept = Vec::new();
    for path in &all {
        if !super::is_link_into(draft.scene.tree, path, &list)? {
            kept.push(path.clone());
        }
    }
    *paths = kept;
    Ok(())
}

/// Files with the parameters that the next grub-mkconfig generates from.
pub(super) fn sources(draft: &Draft<'_>) -> Result<Vec<String>> {
    let mut paths = vec![DEFAULTS.to_owned()];
    let more = draft.scene.tree.names("/etc/default/grub.d")?;
    paths.extend(
        more.iter().filter(|name| name.ends_with(".cfg")).map(|name| format!("/etc/default/grub.d/{name}")),
    );
    Ok(paths)
}

fn defaults(draft: &mut Draft<'_>, devices: &Devices<'_>) -> Result<()> {
    for path in sources(draft)? {
        let mut parameters = parameters::Parameters::new(devices);
        let why = "The next update of GRUB's configuration keeps naming devices by UUID.";
        draft.edit(&path, why, |old| {
            text::map_lines(old, |body| {
                if text::is_comment(body) {
                    return None;
                }
                let disables = ["GRUB_DISABLE_LINUX_UUID", "GRUB_DISABLE_UUID"];
                let by_name = text::change_values(body, &disables, |_, value| {
                    (value == "true").then(|| "false".to_owned())
                });
                by_name.or_else(|| parameters.line(body, parameters::Place::OWN))
            })
        })?;
        parameters.report(draft, &path);
    }
    Ok(())
}

/// Entries that an administrator wrote, and scripts of packages: only a plain device name is changed in them.
fn scripts(draft: &mut Draft<'_>, devices: &Devices<'_>) -> Result<()> {
    for path in scripts_of(draft)? {
        parameters::entries(draft, devices, &path)?;
    }
    Ok(())
}

/// The scripts that grub-mkconfig runs.
pub(super) fn scripts_of(draft: &Draft<'_>) -> Result<Vec<String>> {
    let names = draft.scene.tree.names("/etc/grub.d")?.into_iter().take(SCRIPTS_AT_MOST);
    let numbered = names.filter(|name| name.starts_with(|letter: char| letter.is_ascii_digit()));
    Ok(numbered.map(|name| format!("/etc/grub.d/{name}")).collect())
}

/// GRUB's own look for its files: by UUID it finds them on any disk, by number only where the order stays. Hints
/// (`--hint-bios=hd0,msdos1`) are only tried first, and names by content (`lvmid/…`, `mduuid/…`, `cryptouuid/…`) stay valid.
fn searches(draft: &mut Draft<'_>, devices: &Devices<'_>, path: &str) -> Result<()> {
    let config = draft.read_text(path)?.unwrap_or_default();
    let lines: Vec<&str> = config.lines().map(str::trim).collect();
    let mut unknown = None;
    let mut by_order = false;
    for (at, line) in lines.iter().enumerate() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("search") if line.contains("--fs-uuid") => {
                unknown = unknown.or_else(|| unknown_uuid(devices, words.next_back()));
            }
            Some("search.fs_uuid") => unknown = unknown.or_else(|| unknown_uuid(devices, words.next())),
            Some("set") => {
                let value = words.next().and_then(|word| word.strip_prefix("root=")).unwrap_or("");
                let is_number = value.trim_start_matches(['\'', '"', '(']).starts_with("hd");
                let near = lines.iter().skip(at).take(6);
                by_order |= is_number && !near.clone().any(|line| line.starts_with("search"));
            }
            _ => {}
        }
    }
    if let Some(uuid) = unknown.filter(|_| !devices.something_is_hidden()) {
        draft.find(
            "linux-grub-uuid-unknown",
            format!("{path} searches the file system {uuid}, which is on none of the given disks."),
            "Check that every disk of the machine was given.",
        );
    }
    let disks = draft.scene.volumes.iter().map(|volume| volume.disk).max().unwrap_or(0);
    if by_order && disks > 0 {
        draft.find(
            "linux-grub-by-disk-order",
            format!("{path} finds its files by the number of the disk, and the machine has several."),
            "Keep the disks in the order of the source.",
        );
    }
    Ok(())
}

/// A UUID that is on none of the disks. Variables are none.
fn unknown_uuid(devices: &Devices<'_>, word: Option<&str>) -> Option<String> {
    let uuid = word?.trim_matches(['\'', '"']);
    let is_absent = devices.has_tag(&format!("UUID={uuid}")) == Some(false);
    (is_absent && !uuid.contains('$')).then(|| uuid.to_owned())
}

/// A device map is optional, and a stale one makes grub-install fail: it goes.
pub(super) fn device_map(draft: &mut Draft<'_>, path: &str) -> Result<()> {
    let map = draft.read_text(path)?.unwrap_or_default();
    let stale = map.lines().filter_map(|line| line.split_whitespace().nth(1)).any(parameters::is_fleeting);
    if stale {
        draft
            .remove(path, "It names disks that will be called otherwise; GRUB's tools need no device map.")?;
    }
    Ok(())
}

/// The disks that Debian's package of GRUB is set to install to.
pub(super) fn debconf(draft: &mut Draft<'_>) -> Result<()> {
    let Ok(Some(database)) = draft.scene.tree.read("/var/cache/debconf/config.dat", DEBCONF_AT_MOST) else {
        return Ok(());
    };
    let database = String::from_utf8_lossy(&database);
    let stanza = database.split("\n\n").find(|stanza| stanza.starts_with("Name: grub-pc/install_devices\n"));
    let value = stanza.and_then(|stanza| stanza.lines().find_map(|line| line.strip_prefix("Value: ")));
    if let Some(value) = value.filter(|value| value.contains("/dev/")) {
        draft.find(
            "linux-grub-install-devices",
            format!(
                "The package grub-pc is set to install to {}, which will not exist on the target.",
                value.trim()
            ),
            "Run `dpkg-reconfigure grub-pc` on the target before the next upgrade of GRUB.",
        );
    }
    Ok(())
}

/// The same of SUSE's tools: a device on each line, and words that say what else is to be done (`activate`, `generic_mbr`).
pub(super) fn suse_devices(draft: &mut Draft<'_>) -> Result<()> {
    let path = "/etc/default/grub_installdevice";
    let list = draft.read_text(path)?.unwrap_or_default();
    if let Some(device) = list.lines().map(str::trim).find(|line| parameters::is_fleeting(line)) {
        draft.find(
            "linux-grub-install-devices",
            format!("{path} has GRUB installed to {device}, which will not exist on the target."),
            format!("Write the target's disk into {path} before the next upgrade of GRUB or a kernel there (or let YaST's boot loader module do it)."),
        );
    }
    Ok(())
}
