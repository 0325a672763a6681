//! What is asked of the service when a machine is to be protected: its disks with their sizes, its definition, its variables.

use crate::machine::{Backing, DiskSlot, Machine};
use crate::name::Name;
use crate::ops::source::Definition;
use crate::report::api::{Protect, WantedDisk};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_boot::check::Finding;
use landfall_image::{Bytes, Error, Result};

/// What somebody says of a machine that is to be protected.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Its definition.
    pub definition: Option<Definition>,
    /// Disks by name, with their sizes.
    pub disks: Vec<(Name, Bytes)>,
    /// Bytes of logical sectors, where it is not as the definition says.
    pub sector: Option<u32>,
    /// Its UEFI variables, where it is not those of the definition.
    pub variables: Option<Vec<u8>>,
}

/// The request, and what is to be said of the definition.
///
/// # Errors
/// Refused where the size of a disk is not known, or a disk is named that the definition does not have.
pub fn wanted(said: Said) -> Result<(Protect, Vec<Finding>)> {
    let sector = |slot: Option<&DiskSlot>| {
        let defined = slot.and_then(|slot| slot.sector_size).and_then(|size| u32::try_from(size.0).ok());
        said.sector.or(defined).unwrap_or(512)
    };
    let Some(Definition { mut machine, variables, findings }) = said.definition else {
        let disks = said.disks.iter();
        let disks =
            disks.map(|(name, size)| WantedDisk { name: name.clone(), size: size.0, sector: sector(None) });
        let variables = said.variables.map(|bytes| STANDARD.encode(bytes));
        return Ok((Protect { disks: disks.collect(), definition: None, variables }, Vec::new()));
    };
    for (name, size) in &said.disks {
        // By the name that it gets here, or by its place at the source.
        let is_meant = |slot: &&mut DiskSlot| slot.file == name.as_str() || slot.slot == name.as_str();
        match machine.disks.iter_mut().find(is_meant) {
            Some(slot) => slot.size = Some(*size),
            None => {
                return Err(Error::refused(format!("the definition has no disk {name}"))
                    .hint(format!("its disks are {}", names(&machine))));
            }
        }
    }
    let unknown: Vec<&str> =
        machine.disks.iter().filter(|slot| slot.size.is_none()).map(|slot| slot.file.as_str()).collect();
    if !unknown.is_empty() {
        let options: Vec<String> = unknown.iter().map(|name| format!("--disk {name}=SIZE")).collect();
        return Err(Error::refused(format!(
            "the definition does not say how large {} is",
            unknown.join(", ")
        ))
        .hint(format!(
            "say it: {} (landfall disk info FILE shows the size of an image)",
            options.join(" ")
        )));
    }
    let mut disks = Vec::new();
    for slot in &mut machine.disks {
        let sector = sector(Some(slot));
        disks.push(WantedDisk { name: slot.file.parse()?, size: slot.size.unwrap_or_default().0, sector });
        slot.sector_size = (sector != 512).then_some(Bytes(u64::from(sector)));
        slot.backing = Backing::File;
    }
    let variables = said.variables.or(variables.map(|variables| variables.bytes));
    let protect = Protect {
        disks,
        definition: Some(machine),
        variables: variables.map(|bytes| STANDARD.encode(bytes)),
    };
    Ok((protect, findings))
}

fn names(machine: &Machine) -> String {
    machine.disks.iter().map(|slot| slot.file.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Bus;

    fn definition() -> Definition {
        let mut machine = Machine::new("web01", Bytes::gib(4));
        for (slot, file, size) in [("sda", "sda", Some(Bytes::gib(40))), ("scsi0:1", "scsi0-1", None)] {
            machine.disks.push(DiskSlot { size, ..DiskSlot::new(slot, Bus::Scsi, file) });
        }
        Definition { machine, variables: None, findings: Vec::new() }
    }

    #[test]
    fn every_disk_has_a_size_before_anything_is_asked() {
        let said = |disks: &[(&str, u64)]| {
            let disks = disks.iter().map(|(name, gib)| (name.parse().unwrap(), Bytes::gib(*gib))).collect();
            wanted(Said { definition: Some(definition()), disks, ..Said::default() })
        };
        let error = said(&[]).unwrap_err();
        assert!(error.hint_text().unwrap().contains("--disk scsi0-1=SIZE"), "{:?}", error.hint_text());
        assert!(said(&[("sdz", 1)]).unwrap_err().hint_text().unwrap().contains("sda, scsi0-1"));
        let (protect, _) = said(&[("scsi0-1", 7), ("sda", 50)]).unwrap();
        let sizes: Vec<_> = protect.disks.iter().map(|disk| (disk.name.as_str(), disk.size >> 30)).collect();
        assert_eq!(sizes, [("sda", 50), ("scsi0-1", 7)]);
        let files: Vec<_> = protect.definition.unwrap().disks.into_iter().map(|slot| slot.file).collect();
        assert_eq!(files, ["sda", "scsi0-1"]);
        let alone = Said { disks: vec![("sda".parse().unwrap(), Bytes::gib(1))], ..Said::default() };
        let (protect, _) = wanted(Said { sector: Some(4096), variables: Some(vec![1]), ..alone }).unwrap();
        assert_eq!((protect.disks[0].sector, protect.variables.as_deref()), (4096, Some("AQ==")));
    }
}
