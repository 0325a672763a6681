//! The points of a vault that this process works on itself, without a service.

use super::{
    At, Candidate, DEFINITION, HeldPoint, PointDisk, PointSource, Points, VARIABLES, choose, export,
    variables_of,
};
use crate::hypervisor::{Below, Server};
use crate::machine::Machine as Definition;
use crate::moment::Moment;
use crate::name::Name;
use crate::receive::content::{self, Changed};
use crate::recovery::below;
use crate::report::protection::Evidence;
use crate::service::catalog::{CATALOG, Catalog};
use crate::vault::journal::Checkpoint;
use crate::vault::machine::{Machine, Point};
use crate::vault::role::Promotion;
use crate::vault::{Trouble, Vault};
use landfall_image::{Bytes, Error, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A vault's folder. It is opened when the first point is asked for, and stays locked from then on.
#[derive(Debug)]
pub struct OpenVault {
    folder: PathBuf,
    vault: Mutex<Option<Arc<Vault>>>,
}

impl OpenVault {
    /// The vault in `folder`, which is not looked at yet.
    pub fn new(folder: &Path) -> OpenVault {
        OpenVault { folder: folder.to_owned(), vault: Mutex::default() }
    }

    fn vault(&self) -> Result<Arc<Vault>> {
        let mut open = self.vault.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vault) = &*open {
            return Ok(Arc::clone(vault));
        }
        // One that is not there is not made.
        if !self.folder.join("vault.json").is_file() {
            return Err(Error::refused("is no vault")
                .in_file(&self.folder)
                .hint("name the folder with vault.json in it"));
        }
        let (vault, troubles) = Vault::open(&self.folder)?;
        for (name, trouble) in troubles {
            match trouble {
                Trouble::Unreadable(error) => tracing::warn!("{name} cannot be read: {error}"),
                Trouble::Behind(_) => {
                    tracing::warn!(
                        "writes to {name} since its last point may be missing; its points are whole"
                    )
                }
            }
        }
        Ok(Arc::clone(open.insert(Arc::new(vault))))
    }
}

impl Points for OpenVault {
    fn open(&self, name: &Name, at: &At) -> Result<PointSource> {
        let machine = self.vault()?.machine(name)?;
        let points = points(&self.folder, &machine)?;
        let candidate = |point: &Checkpoint| Candidate {
            number: point.sequence,
            at: Moment(point.time),
            tag: point.mark.tag.clone(),
        };
        let number = choose(name, &points.iter().map(candidate).collect::<Vec<_>>(), at)?;
        let chosen = points.into_iter().find(|point| point.sequence == number);
        let chosen =
            chosen.ok_or_else(|| Error::corrupt(format!("point {number} of {name} is not there")))?;
        source(name, &machine, &chosen, None)
    }

    fn reach(&self) -> Result<()> {
        self.vault().map(drop)
    }

    fn hold(&self, machine: &Name, number: u64, holder: &str) -> Result<()> {
        self.vault()?.machine(machine)?.hold(number, holder)
    }

    fn release(&self, machine: &Name, number: u64, holder: &str) -> Result<()> {
        self.vault()?.machine(machine)?.release(number, holder)
    }

    fn holds(&self) -> Result<Vec<HeldPoint>> {
        Ok(holds(&*self.vault()?))
    }

    fn promote(&self, machine: &Name, number: u64, holder: &str) -> Result<()> {
        let promotion = Promotion { at: Moment::now().0, point: number, holder: holder.to_owned() };
        self.vault()?.machine(machine)?.roles().change(Some(promotion)).map(drop)
    }

    fn attach(&self, machine: &Name, number: u64, evidence: &Evidence) -> Result<()> {
        let id = self.vault()?.machine(machine)?.home().machine;
        // Where a service finds it, too.
        let (catalog, _) = Catalog::open(&self.folder.join(CATALOG))?;
        catalog.add_evidence(machine.as_str(), &id, number, evidence)
    }

    fn changed(&self, machine: &Name, disk: &str, since: u64, to: u64) -> Result<Changed> {
        changed(&self.vault()?.machine(machine)?, disk, since, to)
    }
}

/// The points of a machine of the vault in `folder` as a service shows them: with the names that were given to them later, and without those
/// that were given up.
///
/// # Errors
/// Where they cannot be read. A catalog that cannot be read stands in no way: all of them are there, then.
pub fn points(folder: &Path, machine: &Arc<Machine>) -> Result<Vec<Checkpoint>> {
    let mut points = machine.points()?;
    let place = folder.join(CATALOG);
    if !place.is_file() {
        return Ok(points);
    }
    let id = &machine.home().machine;
    let said = Catalog::open(&place).and_then(|(catalog, _)| Ok((catalog.tags(id)?, catalog.given_up(id)?)));
    match said {
        Ok((mut tags, given_up)) => {
            points.retain(|point| !given_up.contains(&point.sequence));
            for point in &mut points {
                if let Some(tag) = tags.remove(&point.sequence) {
                    // An empty one says that the name it was set with does not count.
                    point.mark.tag = Some(tag).filter(|tag| !tag.is_empty());
                }
            }
        }
        Err(error) => tracing::warn!("names that were given to points are not known: {error}"),
    }
    Ok(points)
}

/// Where a disk may differ between two points of a vault that is open in this process.
///
/// # Errors
/// Refused where there is no such point, or the disk is not the same one at both.
pub fn changed(machine: &Arc<Machine>, disk: &str, since: u64, to: u64) -> Result<Changed> {
    // Both stay as long as they are looked at.
    let (from, at) = (machine.at(since)?, machine.at(to)?);
    let (Some(old), Some(new)) = (from.state().number(disk), at.state().number(disk)) else {
        return Err(Error::refused(format!("{disk} was no disk of {} at point {since}", machine.name())));
    };
    if old != new {
        return Err(Error::refused(format!(
            "{disk} was taken out of {} after point {since}, and put in anew",
            machine.name()
        )));
    }
    let size = at.state().disks.get(&new).map_or(0, |info| info.size);
    content::changed(machine, new, since, to, Bytes(size))
}

/// A point of a vault that is open in this process. `socket` is where its disks are served under the names of
/// [`export`], if they are.
///
/// # Errors
/// Where the point is gone, or its definition cannot be read.
pub fn source(
    name: &Name,
    machine: &Arc<Machine>,
    chosen: &Checkpoint,
    socket: Option<&Path>,
) -> Result<PointSource> {
    let number = chosen.sequence;
    let point = machine.at(number)?;
    let uri = |disk: &str| -> Result<Option<String>> {
        let Some(socket) = socket else { return Ok(None) };
        let socket = socket.to_str().ok_or_else(|| Error::unsupported("is not UTF-8").in_file(socket))?;
        let below = Below { server: Server::Socket(socket.to_owned()), export: export(name, disk, number) };
        Ok(Some(below::uri(&below)))
    };
    let disks = point.state().disks.iter().map(|(disk, info)| {
        let content = Arc::new(point.disk(*disk)?);
        Ok(PointDisk::new(name, &info.name, number, content, uri(&info.name)?))
    });
    Ok(PointSource {
        name: name.clone(),
        id: machine.home().machine,
        machine: definition(&point)?,
        number,
        at: Moment(chosen.time),
        consistency: chosen.mark.consistency,
        tag: chosen.mark.tag.clone(),
        disks: disks.collect::<Result<_>>()?,
        variables: variables(&point),
        kept_variables: point.state().attachments.get(VARIABLES).cloned(),
    })
}

/// All that is held in a vault.
pub fn holds(vault: &Vault) -> Vec<HeldPoint> {
    let machines = vault.machines().into_iter();
    machines
        .flat_map(|(name, machine)| {
            let held = move |hold: crate::vault::holds::Hold| HeldPoint {
                machine: name.clone(),
                number: hold.point,
                holder: hold.holder,
            };
            machine.holds().all().into_iter().map(held)
        })
        .collect()
}

/// The definition among a point's attachments.
///
/// # Errors
/// Corrupt where it cannot be read.
pub fn definition(point: &Point) -> Result<Option<Definition>> {
    let raw = point.state().attachments.get(DEFINITION);
    raw.map(|raw| {
        serde_json::from_slice(raw).map_err(|e| {
            Error::corrupt(format!("the machine's definition in the point cannot be read: {e}"))
                .hint("use the version of landfall that stored it, or a later one")
        })
    })
    .transpose()
}

/// The UEFI variables among a point's attachments. Without them the machine starts all the same.
pub fn variables(point: &Point) -> Option<crate::hypervisor::Variables> {
    let raw = point.state().attachments.get(VARIABLES)?;
    variables_of(raw.clone())
        .inspect_err(|error| tracing::warn!("the UEFI variables of the point are left out: {error}"))
        .ok()
}
