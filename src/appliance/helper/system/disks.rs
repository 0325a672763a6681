//! Disks (`/sys/block`), what udev found on them (`/run/udev/data`), and what they are to the appliance (`/proc/self/mountinfo`,
//! proc(5)). No byte of a disk is read here: it may come from anybody.

use super::text;
use crate::appliance::disks;
use crate::appliance::helper::status::{DiskRole, DiskStatus};
use landfall_boot::appliance::init::Boot;
use landfall_boot::appliance::layout;
use landfall_image::Bytes;
use std::collections::BTreeSet;
use std::path::Path;

/// Where the vault is.
const DATA: &str = "/var/lib/landfall";
/// Where the appliance itself is, its state included; a stick that it was started from has nothing mounted but the root.
const SYSTEM: [&str; 3] = ["/", "/var", "/efi"];
/// Devices that are no disks: memory, files, CDs, floppies, network disks of the service, what stands on disks.
const NO_DISKS: [&str; 8] = ["ram", "zram", "loop", "sr", "fd", "nbd", "dm-", "md"];
const AT_MOST: usize = 1024;

/// All of them; `boot` says which one the system was started from.
pub(super) fn disks(root: &Path, boot: Option<&Boot>) -> Vec<DiskStatus> {
    let mounts = text(root, "proc/self/mountinfo").unwrap_or_default();
    let mut names: Vec<String> = std::fs::read_dir(root.join("sys/block"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !NO_DISKS.iter().any(|other| name.starts_with(other)))
        .collect();
    // sdz is before sdaa.
    names.sort_by_key(|name| (name.len(), name.clone()));
    names.truncate(AT_MOST);
    let started = boot.and_then(|boot| boot.system.file_name()?.to_str());
    let is_system = |name: &str| started == Some(name);
    names.into_iter().filter_map(|name| disk(root, is_system(&name), name, &mounts)).collect()
}

fn disk(root: &Path, is_system: bool, name: String, mounts: &str) -> Option<DiskStatus> {
    let value = |key: &str| text(root, &format!("sys/block/{name}/{key}")).filter(|text| !text.is_empty());
    // In sectors of 512 bytes, whatever the disk's are.
    let size = Bytes(value("size")?.parse::<u64>().ok()?.saturating_mul(512));
    if size.0 == 0 {
        return None;
    }
    let numbers = devices(root, &name);
    let mut holds = BTreeSet::new();
    let (mut has_vault, mut is_whole) = (false, false);
    for number in &numbers {
        let (mut is_vault, mut is_complete) = (false, false);
        let known = text(root, &format!("run/udev/data/b{number}")).unwrap_or_default();
        for line in known.lines() {
            match line.strip_prefix("E:").and_then(|line| line.split_once('=')) {
                Some(("ID_FS_TYPE" | "ID_PART_TABLE_TYPE", kind)) => {
                    holds.insert(kind.to_owned());
                }
                // udev's blkid, of a partition: its type and its attributes, as its table says; no line where none is set.
                Some(("ID_PART_ENTRY_TYPE", kind)) => {
                    is_vault = kind.parse::<uuid::Uuid>().is_ok_and(|kind| kind == layout::VAULT);
                }
                Some(("ID_PART_ENTRY_FLAGS", bits)) => {
                    let bits = bits.strip_prefix("0x").and_then(|bits| u64::from_str_radix(bits, 16).ok());
                    is_complete = bits.is_some_and(|bits| bits & disks::COMPLETE != 0);
                }
                _ => {}
            }
        }
        has_vault |= is_vault;
        is_whole |= is_vault && is_complete;
    }
    let mut places = BTreeSet::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        if let (Some(number), Some(place)) = (fields.nth(2), fields.nth(1))
            && numbers.iter().any(|own| own == number)
        {
            places.insert(place);
        }
    }
    let role = if places.contains(DATA) {
        DiskRole::Data
    } else if is_system || SYSTEM.iter().any(|place| places.contains(place)) {
        DiskRole::System
    } else {
        DiskRole::Other
    };
    let shown = |text: String| disks::shown(&text);
    Some(DiskStatus {
        size,
        model: value("device/model").or_else(|| value("device/vendor")).map(shown),
        serial: disks::serial(root, &name),
        holds: holds.into_iter().map(shown).collect(),
        has_vault,
        is_whole,
        role,
        name,
    })
}

/// `8:0` of the disk and of its partitions, and of what stands on them.
fn devices(root: &Path, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![format!("sys/block/{name}")];
    while let Some(folder) = folders.pop() {
        found.extend(text(root, &format!("{folder}/dev")));
        let entries = |folder: &str| {
            let all = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
            all.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
        };
        for entry in entries(&folder) {
            if entry.starts_with(name) && root.join(&folder).join(&entry).join("partition").exists() {
                folders.push(format!("{folder}/{entry}"));
            }
        }
        folders
            .extend(entries(&format!("{folder}/holders")).iter().map(|holder| format!("sys/block/{holder}")));
        if found.len() > AT_MOST {
            break;
        }
    }
    found
}
