//! Drive letters: MountedDevices, and the volumes that it means.
//!
//! ```text
//! \DosDevices\C:  12 bytes   disk signature, offset in bytes               a partition of an MBR disk
//! \DosDevices\D:  24 bytes   "DMIO:ID:" and a GUID                         a partition of a GPT disk, a dynamic volume
//! \DosDevices\E:  UTF-16     \??\IDE#CdRom…                                something else: a CD drive, a stick
//! ```
//! Source: MountedDevices of real machines. Letters are not changed: signatures, GUIDs and offsets stay as they are.

use super::identity::{Partition, guid};
use crate::Result;
use crate::volume::{Volume, VolumeId};
use crate::windows::draft::Draft;
use crate::windows::registry::Registry;
use serde::Serialize;
use std::collections::BTreeMap;

const KEY: &str = "MountedDevices";
const PREFIX: &str = "\\DosDevices\\";
const GPT_PREFIX: &[u8] = b"DMIO:ID:";

/// A drive letter: a fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Letter {
    /// `C:`
    pub letter: String,
    /// What it is for, in words.
    pub device: String,
    /// The volume, where it is one of the given disks'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeId>,
    /// How Windows knows it, where it is a partition.
    #[serde(skip)]
    pub partition: Option<Partition>,
}

/// The letters of SYSTEM, sorted.
///
/// # Errors
/// Where the hive is damaged.
pub fn letters(system: &Registry, volumes: &[Volume]) -> Result<Vec<Letter>> {
    let mut letters = Vec::new();
    for value in system.values(KEY)? {
        let Some(letter) = letter_of(&value.name) else { continue };
        let partition = partition(&value.data.bytes);
        letters.push(Letter {
            letter,
            device: match &partition {
                Some(partition) => partition.to_string(),
                None => device_of(&value.data.bytes),
            },
            volume: partition.and_then(|partition| partition.find(volumes)).map(|volume| volume.id.clone()),
            partition,
        });
    }
    letters.sort_by(|a, b| a.letter.cmp(&b.letter));
    Ok(letters)
}

fn letter_of(name: &str) -> Option<String> {
    let letter = name
        .get(PREFIX.len()..)
        .filter(|_| name.get(..PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX)))?;
    match letter.as_bytes() {
        [letter, b':'] if letter.is_ascii_alphabetic() => {
            Some(format!("{}:", letter.to_ascii_uppercase() as char))
        }
        _ => None,
    }
}

fn partition(bytes: &[u8]) -> Option<Partition> {
    if let Some(rest) = bytes.strip_prefix(GPT_PREFIX) {
        return Some(Partition::Gpt { guid: guid(rest)? });
    }
    let (signature, offset) = bytes.split_at_checked(4)?;
    Some(Partition::Mbr {
        signature: u32::from_le_bytes(signature.try_into().ok()?),
        offset: u64::from_le_bytes(offset.try_into().ok()?),
    })
}

/// `IDE CdRom NECVMWar_VMware_IDE_CDR10`, as far as it is text.
fn device_of(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    let text = String::from_utf16_lossy(&units);
    // A name of a device; whatever else is no text at all.
    let prefix = ["\\??\\", "_??_"].into_iter().find_map(|prefix| text.strip_prefix(prefix));
    let name = prefix.unwrap_or_default();
    let parts = name.split('#').take(2).collect::<Vec<_>>().join(" ");
    let shown: String = parts.chars().filter(|letter| !letter.is_control()).take(80).collect();
    match shown.trim() {
        "" => "nothing that is known".to_owned(),
        shown => shown.to_owned(),
    }
}

/// Findings: letters without their volume, disks that Windows cannot tell apart.
pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    let volumes = draft.scene.volumes;
    let letters = letters(&draft.registry, volumes)?;
    system_letter(draft, &letters)?;
    let missing: Vec<&Letter> =
        letters.iter().filter(|letter| letter.partition.is_some() && letter.volume.is_none()).collect();
    for letter in missing {
        draft.find(
            "windows-letter-missing",
            format!("The drive letter {} is for {}, which is on none of the given disks.", letter.letter, letter.device),
            "Give the disk, too, if it is the machine's; a stick or a disk that was removed long ago needs nothing.",
        );
    }
    for (signature, disks) in signatures(volumes) {
        if let [first, second, ..] = disks.as_slice() {
            draft.find(
                "windows-disk-signature-twice",
                format!("disk{first} and disk{second} have the same signature {signature:08x}: Windows takes one of them offline."),
                "Leave the copy out (--skip-disk), or give it another signature on the target with diskpart's `uniqueid disk`.",
            );
        }
    }
    let mut guids: BTreeMap<Partition, &VolumeId> = BTreeMap::new();
    for volume in volumes {
        let Some(partition @ Partition::Gpt { .. }) = Partition::of(volume) else { continue };
        if let Some(other) = guids.insert(partition, &volume.id) {
            draft.find(
                "windows-disk-signature-twice",
                format!("{} and {} are both {partition}: Windows takes one of their disks offline.", other.0, volume.id.0),
                "Leave the copy out (--skip-disk), or give it other GUIDs on the target with diskpart's `uniqueid disk`.",
            );
        }
    }
    Ok(())
}

/// Disks by their MBR signatures.
fn signatures(volumes: &[Volume]) -> BTreeMap<u32, Vec<usize>> {
    let mut disks: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for volume in volumes {
        let Some(Partition::Mbr { signature, .. }) = Partition::of(volume) else { continue };
        let disks = disks.entry(signature).or_default();
        if signature != 0 && !disks.contains(&volume.disk) {
            disks.push(volume.disk);
        }
    }
    disks
}

/// Windows lies on the volume whose letter it knows itself by.
fn system_letter(draft: &mut Draft<'_>, letters: &[Letter]) -> Result<()> {
    let key = "Microsoft\\Windows NT\\CurrentVersion";
    let Some(root) = draft.software.text(key, "SystemRoot")? else { return Ok(()) };
    let Some(own) = draft.scene.mounts.iter().find(|mount| mount.at == "/") else { return Ok(()) };
    let known = letters.iter().find(|letter| root.to_ascii_uppercase().starts_with(&letter.letter));
    let Some(letter) = known.filter(|letter| letter.partition.is_some()) else { return Ok(()) };
    match &letter.volume {
        Some(volume) if *volume == own.volume => {}
        Some(volume) => draft.find(
            "windows-system-letter",
            format!(
                "Windows calls itself {root}, but {} is {}, and it lies on {}.",
                letter.letter, volume.0, own.volume.0
            ),
            "Leave out the disk that it was copied from (--skip-disk); otherwise nobody can log on.",
        ),
        None => draft.find(
            "windows-system-letter",
            format!(
                "Windows calls itself {root}, but {} is for {}, which is on none of the given disks, and it lies on {}.",
                letter.letter, letter.device, own.volume.0
            ),
            "Give the machine's own disk if this is a copy of it with another signature; else try whether somebody can log on before you rely on it.",
        ),
    }
    Ok(())
}
