//! A boot configuration: objects with typed elements, in a registry hive.
//!
//! ```text
//! Objects\{GUID}\Description        Type = 0x10200003 (application, by the boot manager, loader of Windows)
//! Objects\{GUID}\Elements\12000002  Element = "\Windows\system32\winload.efi"
//!                         ^ class: 1 library, 2 application, 3 device, 4 setup   ^^ format: 1 device, 2 text, 3 GUID, 4 GUIDs,
//!                          5 number, 6 flag, 7 numbers
//! ```
//! Source: Microsoft, "BCD WMI provider" (classes and enumerations), and stores of real machines for what lies in an
//! element that names a device.
//!
//! Deliberately absent: devices that are found by a file on them or by where the loader came from, which name no
//! partition, and elements of other boot managers' objects.

use super::identity::{Partition, guid};
use crate::volume::{Volume, VolumeId};
use crate::windows::data::Data;
use crate::windows::registry::Registry;
use crate::{Error, Result};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The boot manager.
pub const BOOT_MANAGER: &str = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}";

/// Type of an object that starts Windows.
const LOADER: u32 = 0x1020_0003;

/// A store has a dozen objects. More than this is an attack.
const OBJECTS_AT_MOST: usize = 4096;
const ELEMENTS_AT_MOST: usize = 1024;

mod element {
    pub const PATH: u32 = 0x1200_0002;
    pub const DESCRIPTION: u32 = 0x1200_0004;
    pub const INHERIT: u32 = 0x1400_0006;
    pub const RECOVERY: u32 = 0x1400_0008;
    pub const RECOVERY_ENABLED: u32 = 0x1600_0009;
    pub const TEST_SIGNING: u32 = 0x1600_0049;
    /// Of the boot manager.
    pub const DEFAULT: u32 = 0x2300_0003;
    pub const DISPLAY_ORDER: u32 = 0x2400_0001;
    /// Of a loader.
    pub const OS_DEVICE: u32 = 0x2100_0001;
    pub const SYSTEM_ROOT: u32 = 0x2200_0002;
    pub const RESUME: u32 = 0x2300_0003;
    pub const SAFE_BOOT: u32 = 0x2500_0080;
    pub const HYPERVISOR: u32 = 0x2500_00f0;
    pub const EMS: u32 = 0x2600_00b0;
}

/// One entry that starts Windows: facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct BootEntry {
    /// `{733b62e5-…}`
    pub id: String,
    /// `Windows 10`
    pub description: String,
    /// It starts where nobody chooses.
    pub is_default: bool,
    /// The loader: `\Windows\system32\winload.efi`
    pub path: String,
    /// `\Windows`
    pub system_root: String,
    /// What Windows is started from, in words, where it names a partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// That partition, where it is on the given disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeId>,
    /// What wakes it from hibernation: an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// Objects that are started where it fails, if that is allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recovery: Vec<String>,
    /// `hypervisorlaunchtype`: Windows' own hypervisor starts below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<bool>,
    /// `testsigning`
    pub test_signing: bool,
    /// `ems`: a serial console.
    pub ems: bool,
    /// `safeboot`
    pub safe_mode: bool,
}

/// All objects.
pub struct Store {
    objects: BTreeMap<String, Object>,
}

struct Object {
    kind: u32,
    elements: BTreeMap<u32, Data>,
}

/// What an element of the device format names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A partition.
    Partition(Partition),
    /// A file on a partition that is loaded into memory: that of the recovery environment.
    RamDisk(Partition),
    /// Something without a partition of its own: what the loader came from, what is found by a file, a network.
    Other,
}

impl Device {
    /// Reads an element's bytes: 16 of options, then the device itself. `None` where they are cut off.
    pub fn parse(bytes: &[u8]) -> Option<Device> {
        const PARTITION: u32 = 6;
        const BLOCK: u32 = 0;
        const RAM_DISK: u32 = 3;
        const PARTITION_LEN: usize = 56;
        let device = bytes.get(16..)?;
        let (kind, len) = (le32(device, 0)?, le32(device, 8)?);
        // The length counts from the type.
        let device = device.get(..usize::try_from(len).ok()?)?;
        match kind {
            PARTITION if device.len() < PARTITION_LEN => None,
            PARTITION => Some(partition(device).map_or(Device::Other, Device::Partition)),
            BLOCK if le32(device, 16)? == RAM_DISK => {
                // Base, size and offset, then how the file is named (1: device and path), a length and flags.
                Some(match device.get(0x34..).map(|inner| (le32(inner, 0), inner)) {
                    Some((Some(PARTITION), inner)) => partition(inner).map_or(Device::Other, Device::RamDisk),
                    _ => Device::Other,
                })
            }
            _ => Some(Device::Other),
        }
    }
}

/// `type flags length 0 | partition (16) | device, table: 0 GPT, 1 MBR | disk (16) | zeros`
fn partition(device: &[u8]) -> Option<Partition> {
    // What holds it: 0 a disk, 6 a virtual disk in a file, whose partitions are none of the machine's.
    if le32(device, 32)? != 0 {
        return None;
    }
    match le32(device, 36)? {
        0 => Some(Partition::Gpt { guid: guid(device.get(16..32)?)? }),
        1 => Some(Partition::Mbr {
            signature: le32(device, 40)?,
            offset: u64::from_le_bytes(device.get(16..24)?.try_into().ok()?),
        }),
        _ => None,
    }
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

impl Store {
    /// Reads all objects.
    ///
    /// # Errors
    /// Where the hive is damaged, or holds more objects than any real one.
    pub fn read(hive: &Registry) -> Result<Store> {
        let ids = hive.subkeys("Objects")?;
        if ids.is_empty() {
            return Err(Error::corrupt("no boot configuration: there is no object in it"));
        }
        if ids.len() > OBJECTS_AT_MOST {
            return Err(Error::refused(format!("{} objects; at most {OBJECTS_AT_MOST} are read", ids.len())));
        }
        let mut objects = BTreeMap::new();
        for id in ids {
            let key = format!("Objects\\{id}");
            let kind = hive.dword(&format!("{key}\\Description"), "Type")?.unwrap_or_default();
            let names = hive.subkeys(&format!("{key}\\Elements"))?;
            if names.len() > ELEMENTS_AT_MOST {
                return Err(Error::refused(format!(
                    "{id} has {} elements; at most {ELEMENTS_AT_MOST} are read",
                    names.len()
                )));
            }
            let mut elements = BTreeMap::new();
            for name in names {
                let Ok(number) = u32::from_str_radix(&name, 16) else { continue };
                if let Some(data) = hive.value(&format!("{key}\\Elements\\{name}"), "Element")? {
                    elements.insert(number, data);
                }
            }
            objects.insert(id.to_ascii_lowercase(), Object { kind, elements });
        }
        Ok(Store { objects })
    }

    /// Entries that start Windows, in the order of the menu, then those that are in none.
    pub fn entries(&self, volumes: &[Volume]) -> Vec<BootEntry> {
        let default = self.text(BOOT_MANAGER, element::DEFAULT).map(|id| id.to_ascii_lowercase());
        let order = self.texts(BOOT_MANAGER, element::DISPLAY_ORDER);
        let mut seen = BTreeSet::new();
        let ids = order.iter().map(|id| id.to_ascii_lowercase()).chain(self.objects.keys().cloned());
        ids.filter(|id| self.objects.get(id).is_some_and(|object| object.kind == LOADER))
            .filter(|id| seen.insert(id.clone()))
            .map(|id| self.entry(&id, default.as_deref() == Some(&id), volumes))
            .collect()
    }

    fn entry(&self, id: &str, is_default: bool, volumes: &[Volume]) -> BootEntry {
        let text = |element| self.text(id, element).unwrap_or_default();
        let device = self.element(id, element::OS_DEVICE).and_then(|data| Device::parse(&data.bytes));
        let partition = match device {
            Some(Device::Partition(partition) | Device::RamDisk(partition)) => Some(partition),
            Some(Device::Other) | None => None,
        };
        BootEntry {
            id: id.to_owned(),
            description: text(element::DESCRIPTION),
            is_default,
            path: text(element::PATH),
            system_root: text(element::SYSTEM_ROOT),
            device: partition.map(|partition| partition.to_string()),
            volume: partition.and_then(|partition| partition.find(volumes)).map(|volume| volume.id.clone()),
            resume: self.text(id, element::RESUME),
            recovery: match self.flag(id, element::RECOVERY_ENABLED) {
                Some(false) => Vec::new(),
                _ => self.texts(id, element::RECOVERY),
            },
            hypervisor: self.number(id, element::HYPERVISOR).map(|number| number != 0),
            test_signing: self.flag(id, element::TEST_SIGNING) == Some(true),
            ems: self.flag(id, element::EMS) == Some(true),
            safe_mode: self.number(id, element::SAFE_BOOT).is_some(),
        }
    }

    /// An object's element, or that of an object that it inherits from.
    fn element(&self, id: &str, number: u32) -> Option<&Data> {
        let mut seen = BTreeSet::new();
        let mut next = vec![id.to_ascii_lowercase()];
        // Objects can inherit in a circle.
        while let Some(id) = next.pop() {
            let Some(object) = self.objects.get(&id) else { continue };
            if !seen.insert(id) {
                continue;
            }
            if let Some(data) = object.elements.get(&number) {
                return Some(data);
            }
            let inherited =
                object.elements.get(&element::INHERIT).and_then(Data::as_texts).unwrap_or_default();
            next.extend(inherited.iter().rev().map(|id| id.to_ascii_lowercase()));
        }
        None
    }

    fn text(&self, id: &str, number: u32) -> Option<String> {
        self.element(id, number)?.as_text()
    }

    fn texts(&self, id: &str, number: u32) -> Vec<String> {
        self.element(id, number).and_then(Data::as_texts).unwrap_or_default()
    }

    fn number(&self, id: &str, number: u32) -> Option<u64> {
        let bytes = &self.element(id, number)?.bytes;
        (1..=8)
            .contains(&bytes.len())
            .then(|| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn flag(&self, id: &str, number: u32) -> Option<bool> {
        Some(*self.element(id, number)?.bytes.first()? != 0)
    }
}
