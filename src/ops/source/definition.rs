//! A machine's definition alone, without its disks: what is stored with recovery points.

use super::place::Origin;
use super::{Context, Wanted, read, skip, variables};
use crate::event::Event;
use crate::hypervisor::Variables;
use crate::machine::Machine;
use crate::name::Name;
use landfall_boot::check::Finding;
use landfall_image::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// A definition that was read.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The machine. Its disks' `file` is a name that a disk can have in a vault, made of its place: `sda`, `scsi0-0`; none has
    /// another's.
    pub machine: Machine,
    /// Its UEFI variables, where their file lies here.
    pub variables: Option<Variables>,
    /// What is to be said of the definition.
    pub findings: Vec<Finding>,
}

/// Reads the definition at `path`, of any kind that is read, and opens none of its disks.
///
/// # Errors
/// As [`load`](super::load)'s, but for those of disks; refused for a disk image, which is none.
pub fn read_alone(context: &Context<'_>, path: &Path, wanted: &Wanted) -> Result<Definition> {
    let path = &super::super::exported::definition(path)?;
    context.observer.event(Event::Step(format!("Reading {}", path.display())));
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or("").to_ascii_lowercase();
    if super::image::is_one(path, &ending)? {
        return Err(Error::refused("is a disk image, and no definition of a machine")
            .in_file(path)
            .hint(super::image::kinds_hint()));
    }
    let source = read(context, path, &ending, wanted, false)?;
    let mut machine = source.machine;
    if machine.name.trim().is_empty() {
        machine.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    }
    skip(&mut machine, &wanted.skipped).map_err(|e| e.in_file(path))?;
    let from = Origin {
        context,
        definition: path,
        archive: source.archive.as_deref(),
        beside: source.beside,
        snapshot: None,
    };
    let variables = variables::find(&from, &machine, wanted.variables.as_deref())?;
    name_disks(&mut machine);
    Ok(Definition { machine, variables, findings: source.findings })
}

/// Gives every disk a name of its own that a vault takes.
fn name_disks(machine: &mut Machine) {
    let mut taken = BTreeSet::new();
    for (number, disk) in machine.disks.iter_mut().enumerate() {
        let plain: String = disk
            .slot
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
            .collect();
        let plain = plain.trim_matches('-').to_ascii_lowercase();
        let named = if plain.parse::<Name>().is_ok() { plain } else { format!("disk{number}") };
        let mut name = named.clone();
        let mut more = 1;
        while !taken.insert(name.clone()) {
            more += 1;
            name = format!("{named}-{more}");
        }
        disk.file = name;
        disk.backing = crate::machine::Backing::File;
        disk.format = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Bus, DiskSlot};
    use landfall_image::Bytes;

    #[test]
    fn disks_get_names_that_a_vault_takes() {
        let mut machine = Machine::new("a", Bytes::gib(1));
        let long = "x".repeat(200);
        for slot in ["vda", "scsi0:0", "SCSI 0:1", "scsi0-0", "../..", "", &long, "ü"] {
            machine.disks.push(DiskSlot::new(slot, Bus::Scsi, "some.vmdk"));
        }
        name_disks(&mut machine);
        let names: Vec<&str> = machine.disks.iter().map(|disk| disk.file.as_str()).collect();
        assert_eq!(names, ["vda", "scsi0-0", "scsi-0-1", "scsi0-0-2", "disk4", "disk5", "disk6", "disk7"]);
        assert!(names.iter().all(|name| name.parse::<Name>().is_ok()));
    }
}
