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
    /// The disks that are protected already, in their order.
    pub protected: Vec<(String, Bytes)>,
    /// Which of these a disk of the definition is, by its place at the source or its name there.
    pub placed: Vec<(String, Name)>,
}

/// What the service is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The request.
    pub protect: Protect,
    /// What is to be said of the definition.
    pub findings: Vec<Finding>,
    /// Which disk of the definition is which of those that are protected, where they have other names.
    pub same: Vec<String>,
}

/// The request.
///
/// # Errors
/// Refused where the size of a disk is not known, a disk is named that the definition does not have, or nobody can tell which of its disks
/// are those that are protected.
pub fn wanted(said: Said) -> Result<Asked> {
    let sector = |slot: Option<&DiskSlot>| {
        let defined = slot.and_then(|slot| slot.sector_size).and_then(|size| u32::try_from(size.0).ok());
        said.sector.or(defined).unwrap_or(512)
    };
    let Some(Definition { mut machine, variables, findings }) = said.definition.clone() else {
        let disks = said.disks.iter();
        let disks =
            disks.map(|(name, size)| WantedDisk { name: name.clone(), size: size.0, sector: sector(None) });
        let variables = said.variables.map(|bytes| STANDARD.encode(bytes));
        let protect = Protect { disks: disks.collect(), definition: None, variables };
        return Ok(Asked { protect, findings: Vec::new(), same: Vec::new() });
    };
    let own: Vec<String> = machine.disks.iter().map(|slot| slot.file.clone()).collect();
    let same = fit(&mut machine, &said)?;
    for (name, size) in &said.disks {
        // By the name that it gets here, by that of the definition, or by its place at the source.
        let named = machine.disks.iter_mut().zip(&own);
        let mut meant = named.filter(|(slot, own)| slot.file == name.as_str() || is_meant(slot, own, name));
        match meant.next() {
            Some((slot, _)) => slot.size = Some(*size),
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
    Ok(Asked { protect, findings, same })
}

/// True where `name` is what the definition calls a disk, or its place at the source.
fn is_meant(slot: &DiskSlot, own: &str, name: &Name) -> bool {
    own == name.as_str() || slot.slot == name.as_str()
}

/// Gives the definition's disks the names and sizes of those that are protected already, where they are the same; what is to be said of that.
///
/// Disks of one name are the same. Others are where somebody says so; else in their order, where there are as many of them and no size speaks
/// against it. What is named with a size, and is none of those, is new.
fn fit(machine: &mut Machine, said: &Said) -> Result<Vec<String>> {
    let there = &said.protected;
    // For each disk of the definition, which one it is.
    let mut found: Vec<Option<usize>> = vec![None; machine.disks.len()];
    for (disk, name) in &said.placed {
        let slot = machine.disks.iter().position(|slot| slot.slot == *disk || slot.file == *disk);
        let place = there.iter().position(|(there, _)| there == name.as_str());
        match slot.zip(place) {
            Some((slot, place)) if !found.contains(&Some(place)) => found[slot] = Some(place),
            Some(_) => {
                return Err(Error::refused(format!("two disks of the definition would be {name}"))
                    .hint("say --as once for each"));
            }
            None => return Err(unfit(machine, said, &format!("--as {disk}={name} names none of both"))),
        }
    }
    for (slot, disk) in machine.disks.iter().enumerate() {
        let place = there.iter().position(|(there, _)| *there == disk.file);
        if found[slot].is_none() && place.is_some() && !found.contains(&place) {
            found[slot] = place;
        }
    }
    let left: Vec<usize> = (0..there.len()).filter(|place| !found.contains(&Some(*place))).collect();
    let open: Vec<usize> = (0..found.len()).filter(|slot| found[*slot].is_none()).collect();
    if !left.is_empty() && !open.is_empty() {
        let size = |slot: &DiskSlot| {
            let named = said.disks.iter().find(|(name, _)| is_meant(slot, &slot.file, name));
            named.map(|(_, size)| *size).or(slot.size)
        };
        let in_order = |slots: &[usize]| -> Option<Vec<Option<usize>>> {
            let mut all = found.clone();
            for (slot, place) in slots.iter().zip(&left) {
                if size(&machine.disks[*slot]).is_some_and(|size| size != there[*place].1) {
                    return None;
                }
                all[*slot] = Some(*place);
            }
            // The last one that is left, where somebody has said which the others are, needs no order.
            let is_clear = all.iter().flatten().is_sorted() || (!said.placed.is_empty() && slots.len() == 1);
            (slots.len() == left.len() && is_clear).then_some(all)
        };
        let named = |slot: &usize| {
            let slot = &machine.disks[*slot];
            said.disks.iter().any(|(name, _)| is_meant(slot, &slot.file, name))
        };
        let unnamed: Vec<usize> = open.iter().copied().filter(|slot| !named(slot)).collect();
        found = match in_order(&open) {
            Some(all) => all,
            None if unnamed.is_empty() => found,
            None => in_order(&unnamed)
                .ok_or_else(|| unfit(machine, said, "nobody can tell which of them are the same"))?,
        };
    }
    let mut same = Vec::new();
    for (slot, place) in machine.disks.iter_mut().zip(found) {
        let Some((name, size)) = place.map(|place| &there[place]) else { continue };
        if slot.file != *name {
            same.push(format!("{} of the definition is {name} here", slot.slot));
            slot.file.clone_from(name);
        }
        slot.size = slot.size.or(Some(*size));
    }
    Ok(same)
}

/// Both lists, for somebody who knows.
fn unfit(machine: &Machine, said: &Said, why: &str) -> Error {
    let one = |slot: &DiskSlot| match slot.size {
        Some(size) => format!("{} ({size})", slot.file),
        None => slot.file.clone(),
    };
    let defined: Vec<String> = machine.disks.iter().map(one).collect();
    let there: Vec<String> = said.protected.iter().map(|(name, size)| format!("{name} ({size})")).collect();
    Error::refused(format!(
        "the machine is protected with {}, its definition has {}, and {why}",
        there.join(", "),
        defined.join(", ")
    ))
    .hint(
        "say which is which: --as SLOT=NAME; leave one of the definition out: --skip-disk SLOT; name one that is new with its size: --disk \
         NAME=SIZE; or take one out here first: --drop-disk NAME",
    )
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
        let Asked { protect, same, .. } = said(&[("scsi0-1", 7), ("sda", 50)]).unwrap();
        assert_eq!(same, [""; 0]);
        let sizes: Vec<_> = protect.disks.iter().map(|disk| (disk.name.as_str(), disk.size >> 30)).collect();
        assert_eq!(sizes, [("sda", 50), ("scsi0-1", 7)]);
        let files: Vec<_> = protect.definition.unwrap().disks.into_iter().map(|slot| slot.file).collect();
        assert_eq!(files, ["sda", "scsi0-1"]);
        let alone = Said { disks: vec![("sda".parse().unwrap(), Bytes::gib(1))], ..Said::default() };
        let Asked { protect, .. } =
            wanted(Said { sector: Some(4096), variables: Some(vec![1]), ..alone }).unwrap();
        assert_eq!((protect.disks[0].sector, protect.variables.as_deref()), (4096, Some("AQ==")));
    }
    fn defined(disks: &[(&str, Option<u64>)]) -> Definition {
        let mut machine = Machine::new("web01", Bytes::gib(4));
        for (name, size) in disks {
            let slot = DiskSlot::new(*name, Bus::VirtioBlk, *name);
            machine.disks.push(DiskSlot { size: size.map(Bytes::gib), ..slot });
        }
        Definition { machine, variables: None, findings: Vec::new() }
    }

    /// The disks that are asked for with their sizes, and what is said of them.
    type Fitted = (Vec<(String, u64)>, Vec<String>);

    fn fitted(
        there: &[(&str, u64)],
        definition: &[(&str, Option<u64>)],
        disks: &[(&str, u64)],
        placed: &[(&str, &str)],
    ) -> Result<Fitted> {
        let asked = wanted(Said {
            definition: Some(defined(definition)),
            disks: disks.iter().map(|(name, gib)| (name.parse().unwrap(), Bytes::gib(*gib))).collect(),
            protected: there.iter().map(|(name, gib)| ((*name).to_owned(), Bytes::gib(*gib))).collect(),
            placed: placed.iter().map(|(disk, name)| ((*disk).to_owned(), name.parse().unwrap())).collect(),
            ..Said::default()
        })?;
        let files = asked.protect.definition.unwrap().disks.into_iter().map(|slot| slot.file);
        let disks: Vec<(String, u64)> =
            asked.protect.disks.iter().map(|disk| (disk.name.to_string(), disk.size >> 30)).collect();
        assert!(
            files.eq(disks.iter().map(|(name, _)| name.clone())),
            "the definition names the disks that are there"
        );
        Ok((disks, asked.same))
    }

    #[test]
    fn disks_that_are_protected_are_found_in_a_definition_that_calls_them_otherwise() {
        let two = [("sda", 4), ("sdb", 2)];
        let got = |disks: &[(&str, u64)]| -> Vec<(String, u64)> {
            disks.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect()
        };
        // In their order, with the sizes of the service; said once more, it is the same.
        let (disks, same) = fitted(&two, &[("vda", None), ("vdb", Some(2))], &[], &[]).unwrap();
        assert_eq!(disks, got(&two));
        assert_eq!(same, ["vda of the definition is sda here", "vdb of the definition is sdb here"]);
        // A hint of before, which gave the size, adds no disk.
        let (disks, _) = fitted(&two[..1], &[("scsi0-0", None)], &[("scsi0-0", 4)], &[]).unwrap();
        assert_eq!(disks, got(&two[..1]));
        // The name here does as well, and a larger size is asked for.
        let (disks, _) = fitted(&two[..1], &[("vda", None)], &[("sda", 9)], &[]).unwrap();
        assert_eq!(disks, got(&[("sda", 9)]));
        // One of the same name, and another.
        let (disks, same) = fitted(&two, &[("sda", None), ("vdb", None)], &[], &[]).unwrap();
        assert_eq!((disks, same.len()), (got(&two), 1));
        // A further one is new where it is named, or where all others are there by name.
        let (disks, _) = fitted(&two[..1], &[("vda", None), ("vdb", None)], &[("vdb", 7)], &[]).unwrap();
        assert_eq!(disks, got(&[("sda", 4), ("vdb", 7)]));
        let (disks, _) = fitted(&two[..1], &[("sda", None), ("sdc", Some(1))], &[], &[]).unwrap();
        assert_eq!(disks, got(&[("sda", 4), ("sdc", 1)]));
        let (disks, _) = fitted(&two[..1], &[("vdx", None)], &[("vdx", 7)], &[]).unwrap();
        assert_eq!(disks, got(&[("vdx", 7)]), "of another size, and named: new");
        // Somebody knows better.
        let (disks, same) =
            fitted(&two, &[("vda", Some(2)), ("vdb", Some(4))], &[], &[("vda", "sdb"), ("vdb", "sda")])
                .unwrap();
        assert_eq!((disks, same.len()), (got(&[("sdb", 2), ("sda", 4)]), 2));
        for (definition, placed) in [
            (&[("vda", None)][..], &[][..]),
            (&[("vda", None), ("vdb", None), ("vdc", None)], &[]),
            (&[("vda", Some(4)), ("vdb", Some(3))], &[]),
            // In their order it would be the other way round.
            (&[("vda", None), ("sda", None)], &[]),
            (&[("vda", None), ("vdb", None)], &[("vda", "sdx")]),
            (&[("vda", None), ("vdb", None)], &[("vda", "sda"), ("vdb", "sda")]),
        ] {
            let error = fitted(&two, definition, &[], placed).unwrap_err();
            let hint = error.hint_text().unwrap();
            assert!(
                error.kind() == landfall_image::Kind::Refused && hint.contains("--as"),
                "{error}; {hint}"
            );
        }
    }
}
