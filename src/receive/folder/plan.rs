//! Which disk of the vault each disk of a drop is, and whether a delta is over what that holds.

use super::contents::{Contents, Found};
use super::manifest::Manifest;
use super::{Top, WAY};
use crate::name::Name;
use crate::receive::position::{self, Position};
use crate::vault::journal::State;
use crate::vault::machine::{Machine, Point};
use landfall_image::chain::ParentRef;
use landfall_image::{Bytes, Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// What is done with a drop.
#[derive(Debug)]
pub struct Plan {
    /// For each disk of the drop, in its order.
    pub targets: Vec<Target>,
    /// Disks that the machine has no longer.
    pub removed: Vec<Name>,
}

/// Where a disk of a drop goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The disk in the vault.
    pub disk: Name,
    /// Bytes of its sectors.
    pub sector: u32,
    /// It is a delta whose parent is known by its file name alone.
    pub by_name: bool,
    /// What it is over came without a digest.
    pub was_unverified: bool,
}

/// A disk of the vault, as a drop sees it.
struct Held {
    sector: u32,
    /// What it holds by earlier drops, and why it does so no longer.
    position: Option<(Position<Top>, Option<&'static str>)>,
}

/// Decides for a machine, or for one that is not there yet.
///
/// # Errors
/// Refused where a disk cannot be told, is left out, or is over something else than what the vault holds; with what fixes it.
pub fn plan(machine: Option<&Machine>, contents: &Contents, manifest: &Manifest) -> Result<Plan> {
    let Some(machine) = machine else { return plan_for(&BTreeMap::new(), contents, manifest) };
    let held = held(&machine.journal().state(), |disk, position| position.is_lost(machine, disk))?;
    plan_for(&held, contents, manifest)
}

/// Decides once more, for a machine as it was at the point before: that all fits was found out then.
///
/// # Errors
/// As [`plan`].
pub fn plan_again(before: Option<&Point>, contents: &Contents, manifest: &Manifest) -> Result<Plan> {
    let held = before.map_or(Ok(BTreeMap::new()), |point| held(point.state(), |_, _| Ok(None)))?;
    plan_for(&held, contents, manifest)
}

fn held(
    state: &State,
    is_lost: impl Fn(&str, &Position<Top>) -> Result<Option<&'static str>>,
) -> Result<BTreeMap<String, Held>> {
    let mut held = BTreeMap::new();
    for info in state.disks.values() {
        let raw = state.attachments.get(&position::attachment(WAY, &info.name));
        let position = match raw {
            Some(raw) => {
                let position = position::parse(raw, WAY, &info.name)?;
                let lost = is_lost(&info.name, &position)?;
                Some((position, lost))
            }
            None => None,
        };
        held.insert(info.name.clone(), Held { sector: info.sector, position });
    }
    Ok(held)
}

fn plan_for(held: &BTreeMap<String, Held>, contents: &Contents, manifest: &Manifest) -> Result<Plan> {
    let mut targets: Vec<Target> = Vec::new();
    for found in &contents.disks {
        let target =
            target(held, contents, manifest, found).map_err(|error| error.in_file(found.file.as_ref()))?;
        if targets.iter().any(|other| other.disk == target.disk) {
            return Err(Error::refused(format!("is the second image of the disk {}", target.disk))
                .in_file(found.file.as_ref())
                .hint("name the image of each disk in landfall.json (\"disks\"); a chain counts once, by its youngest image"));
        }
        targets.push(target);
    }
    let mut removed = Vec::new();
    for name in manifest.removed.iter().chain(&manifest.unchanged) {
        if !held.contains_key(name) || targets.iter().any(|target| target.disk.as_str() == name) {
            return Err(Error::refused(format!(
                "landfall.json says that {name:?} is removed or unchanged, which it cannot be"
            ))
            .hint("these are disks that the vault has and the drop has no image of"));
        }
    }
    for name in &manifest.removed {
        removed.push(name.parse()?);
    }
    let told: BTreeSet<&str> = (targets.iter().map(|target| target.disk.as_str()))
        .chain(manifest.unchanged.iter().chain(&manifest.removed).map(String::as_str))
        .collect();
    match held.keys().find(|name| !told.contains(name.as_str())) {
        None => Ok(Plan { targets, removed }),
        Some(name) => Err(Error::refused(format!("has no image of {name}, which the machine in the vault has"))
            .hint(format!(
                "drop all disks of one moment together. If {name} did not change, or was removed, or is another name for one of the drop's ({}), say so in landfall.json: \"unchanged\", \"removed\", \"disks\"",
                contents.disks.iter().map(|found| found.slot.as_str()).collect::<Vec<_>>().join(", ")
            ))),
    }
}

fn target(
    held: &BTreeMap<String, Held>,
    contents: &Contents,
    manifest: &Manifest,
    found: &Found,
) -> Result<Target> {
    let disk = name(held, contents, manifest, found)?;
    let sector = found.content.sector_size().max(slot_sector(contents, found));
    let sector = u32::try_from(sector.0).unwrap_or(u32::MAX);
    if let Some(size) = found.sizes.iter().find(|size| !size.0.is_multiple_of(u64::from(sector.max(1)))) {
        return Err(Error::unsupported(format!(
            "has {} bytes, which is no multiple of its sectors of {sector}",
            size.0
        ))
        .hint("make it a whole number of sectors longer, at its source"));
    }
    let mut target = Target { disk, sector, by_name: false, was_unverified: false };
    let Some(parent) = &found.parent else { return Ok(target) };
    let over = parent.names.first().map_or("", String::as_str);
    let whole = "or drop the whole disk: with all images below this one in the same folder";
    let held = held.get(target.disk.as_str());
    let Some(Held { sector: old, position: Some((position, lost)) }) = held else {
        return Err(Error::refused(format!(
            "is a delta over {over:?}, which is not in the drop, and no drop has brought {} to the vault",
            target.disk
        ))
        .hint(format!("drop what it is over first, {whole}")));
    };
    if let Some(lost) = lost {
        return Err(Error::refused(format!(
            "is a delta over {over:?}; {} held {:?} once, but {lost}",
            target.disk, position.source.file
        ))
        .hint(whole));
    }
    match fits(parent, &position.source, manifest) {
        Some(by_name) if !parent.same_sectors || *old == sector => {
            target.by_name = by_name;
            target.was_unverified = position.is_unverified;
            Ok(target)
        }
        _ => {
            let id = |ids: &[String]| {
                if ids.is_empty() { String::new() } else { format!(" (id {})", ids.join(" or ")) }
            };
            let own: Vec<String> = position.source.identity.iter().cloned().collect();
            Err(Error::refused(format!(
                "is a delta over {over:?}{}, and {} holds {:?}{}",
                id(&parent.identities),
                target.disk,
                position.source.file,
                id(&own)
            ))
            .hint(format!("drop the delta that is over {:?} first, {whole}", position.source.file)))
        }
    }
}

/// Sectors that the definition gives to a disk.
fn slot_sector(contents: &Contents, found: &Found) -> Bytes {
    let machine = contents.definition.as_ref().map(|definition| &definition.machine);
    let slot = machine.and_then(|machine| machine.disks.iter().find(|slot| slot.slot == found.slot));
    slot.and_then(|slot| slot.sector_size).unwrap_or_default()
}

/// Which disk of the vault it is.
fn name(
    held: &BTreeMap<String, Held>,
    contents: &Contents,
    manifest: &Manifest,
    found: &Found,
) -> Result<Name> {
    if let Some(name) = &found.disk {
        return name.parse();
    }
    let own = disk_name(&found.slot);
    let own_is_there = own.as_ref().is_ok_and(|name| held.contains_key(name.as_str()));
    if own_is_there && (contents.definition.is_some() || found.parent.is_none()) {
        return own;
    }
    if let Some(parent) = &found.parent {
        let is_below = |held: &Held| {
            held.position
                .as_ref()
                .is_some_and(|(position, _)| fits(parent, &position.source, manifest).is_some())
        };
        let mut below = held.iter().filter(|(_, held)| is_below(held)).map(|(name, _)| name);
        if let (Some(only), None) = (below.next(), below.next()) {
            return only.parse();
        }
    }
    if let (Some(only), 1, 1) = (held.keys().next(), held.len(), contents.disks.len()) {
        return only.parse();
    }
    match held.is_empty() {
        true if contents.definition.is_none() && contents.disks.len() == 1 => "disk0".parse(),
        true => own,
        false => {
            let names: Vec<&str> = held.keys().map(String::as_str).collect();
            Err(Error::refused(format!(
                "cannot be told which disk it is: the vault has {}",
                names.join(", ")
            ))
            .hint(format!(
                "name the image of each disk in landfall.json: \"disks\": {{ \"{}\": \"{}\" }}",
                names[0], found.file
            )))
        }
    }
}

/// A slot's name as that of a disk in the vault: `scsi0:0` is `scsi0-0`.
///
/// # Errors
/// Refused where nothing is left of it.
pub fn disk_name(slot: &str) -> Result<Name> {
    let allowed = |letter: char| {
        let alone: Result<Name> = format!("a{letter}a").parse();
        if alone.is_ok() { letter } else { '-' }
    };
    let name: String = slot.trim().chars().map(allowed).take(60).collect();
    name.trim_matches(['.', ' '])
        .parse()
        .map_err(|error: Error| error.hint("name the image of each disk in landfall.json (\"disks\")"))
}

/// Whether a delta over `parent` is over what `top` is, and whether that is known by its file name alone.
fn fits(parent: &ParentRef, top: &Top, manifest: &Manifest) -> Option<bool> {
    if !parent.identities.is_empty() {
        let is_it = top.identity.as_ref().is_some_and(|own| parent.identities.contains(own));
        return is_it.then_some(false);
    }
    let last = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let own = last(&top.file);
    if !parent.names.iter().any(|name| last(name) == own) {
        return None;
    }
    match manifest.parents.get(&own) {
        None => Some(true),
        Some(sum) => (top.sha256 == Some(*sum)).then_some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_become_names_of_disks() {
        for (slot, name) in [
            ("scsi0:0", "scsi0-0"),
            ("SCSI 0:0", "SCSI 0-0"),
            ("vda", "vda"),
            ("a/../b", "a-..-b"),
            (".hidden.", "hidden"),
            ("Ü 1", "Ü 1"),
        ] {
            assert_eq!(disk_name(slot).unwrap().as_str(), name);
        }
        assert!(disk_name(" . ").unwrap_err().hint_text().unwrap().contains("landfall.json"));
    }
}
