//! A recovery point as a source: a machine as it was at a moment, out of a vault.
//!
//! ```text
//! point:web01@latest -> Points::open -> PointSource (definition, disks, variables) -> Loaded, as any other source
//! ```
//!
//! Who has the points answers through [`Points`]: the service that works on the vault ([`Served`]), or a vault's folder in this
//! process ([`OpenVault`]). Deliberately absent: which points are kept, and how a vault stores them.

mod at;
mod served;
mod vault;

pub use at::{At, Candidate, PointName, choose, since, until};
pub use served::{Served, which};
pub use vault::{OpenVault, changed, definition, holds, points, source, variables};

use super::{How, Loaded, Nothing, Wanted, image, other_size, sector_size, skip, variables as efi};
use crate::finding;
use crate::hypervisor::text::shell_word;
use crate::hypervisor::{Parsed, Variables};
use crate::machine::{Bus, DiskSlot, Machine};
use crate::moment::Moment;
use crate::name::Name;
use crate::ops::Context;
use crate::receive::content::Changed;
use crate::report::protection::Evidence;
use crate::vault::journal::Consistency;
use landfall_boot::check::Finding;
use landfall_image::formats::{Image, LayerInfo};
use landfall_image::{Bytes, Disk, Error, Format, Result};
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

/// What a point's definition is called in reports.
pub(super) const HYPERVISOR: &str = "point";

/// Name of the machine's definition among the attachments of a point: JSON of [`Machine`], whose disks' `file` is the name of
/// the vault's disk.
pub const DEFINITION: &str = "machine.json";
/// Name of its UEFI variables there.
pub const VARIABLES: &str = "nvram";

/// Who has recovery points.
pub trait Points: Send + Sync {
    /// Opens a point; it stays as long as its disks are open.
    ///
    /// # Errors
    /// Refused where there is no such machine or point.
    fn open(&self, machine: &Name, at: &At) -> Result<PointSource>;

    /// Whether they can be asked for at this moment.
    ///
    /// # Errors
    /// Why not.
    fn reach(&self) -> Result<()>;

    /// Keeps a point from being given up until [`release`](Self::release), whoever reads it: a recovered machine lives on it.
    /// `holder` tells one recovery from another. To hold what is held is no error.
    ///
    /// # Errors
    /// Refused where there is no such point.
    fn hold(&self, machine: &Name, number: u64, holder: &str) -> Result<()>;

    /// Takes a hold back. One that is not there is no error.
    ///
    /// # Errors
    /// As those who keep it.
    fn release(&self, machine: &Name, number: u64, holder: &str) -> Result<()>;

    /// All that is held.
    ///
    /// # Errors
    /// As those who keep it.
    fn holds(&self) -> Result<Vec<HeldPoint>>;

    /// Says that a machine was promoted: it runs from that point from now on, and nothing is taken of its source any longer. To say so again is
    /// no error.
    ///
    /// # Errors
    /// Refused where there is no such machine.
    fn promote(&self, machine: &Name, number: u64, holder: &str) -> Result<()>;

    /// Who sends a machine at this moment, and has written to it a moment ago; `None` where nobody does, or nobody here can tell.
    ///
    /// # Errors
    /// Refused where there is no such machine.
    fn sender(&self, machine: &Name) -> Result<Option<String>> {
        let _ = machine;
        Ok(None)
    }

    /// Attaches what a trial boot of a point showed to it.
    ///
    /// # Errors
    /// Refused where there is no such point.
    fn attach(&self, machine: &Name, number: u64, evidence: &Evidence) -> Result<()>;

    /// Where a disk may differ between the point `since` and the later point `to`.
    ///
    /// # Errors
    /// Refused where the disk is not the same one at both, or there is no such point; unsupported where nobody here can tell.
    fn changed(&self, machine: &Name, disk: &str, since: u64, to: u64) -> Result<Changed> {
        Err(Error::unsupported(format!(
            "nobody tells where {machine}/{disk} differs between {since} and {to}"
        )))
    }
}

/// A point that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPoint {
    /// Whose.
    pub machine: Name,
    /// Its number.
    pub number: u64,
    /// By whom.
    pub holder: String,
}

/// A machine as it was.
pub struct PointSource {
    /// As it is protected.
    pub name: Name,
    /// The machine's own number, which no other vault gives to one.
    pub id: Uuid,
    /// Its definition at that point; its disks' `file` is the name of one of [`disks`](Self::disks). `None` where none was
    /// stored.
    pub machine: Option<Machine>,
    /// The point's number.
    pub number: u64,
    /// When it was set.
    pub at: Moment,
    /// How far it can be trusted.
    pub consistency: Consistency,
    /// The name that somebody gave to it.
    pub tag: Option<String>,
    /// Its disks.
    pub disks: Vec<PointDisk>,
    /// Its UEFI variables.
    pub variables: Option<Variables>,
    /// They as they are kept, whether or not they can be read.
    pub kept_variables: Option<Vec<u8>>,
}

/// A disk of a point.
pub struct PointDisk {
    /// Its name in the vault.
    pub name: String,
    /// What was on it.
    pub image: Image,
    /// Bytes of its logical sectors.
    pub sector: u32,
    /// Where other programs read it, as a URI of NBD; `None` where it is not served.
    pub uri: Option<String>,
}

impl PointDisk {
    /// The disk `name` of the machine `of` at the point `number`.
    pub fn new(of: &Name, name: &str, number: u64, disk: Arc<dyn Disk>, uri: Option<String>) -> PointDisk {
        let layer = LayerInfo {
            path: PathBuf::from(export(of, name, number)),
            format: Format::Raw,
            variant: "recovery point".to_owned(),
            identity: None,
            details: Vec::new(),
            files: Vec::new(),
            allocated: Bytes(0),
            by_name: false,
        };
        let sector = u32::try_from(disk.sector_size().0).unwrap_or(512);
        PointDisk { name: name.to_owned(), image: Image { disk, layers: vec![layer] }, sector, uri }
    }
}

/// What a disk of a point is called where points are served: `web01/sda@1234`.
pub fn export(machine: &Name, disk: &str, number: u64) -> String {
    format!("{machine}/{disk}@{number}")
}

/// The UEFI variables of a point's attachment.
///
/// # Errors
/// Unsupported or corrupt where they are none.
pub fn variables_of(mut bytes: Vec<u8>) -> Result<Variables> {
    let format = efi::recognise(&mut bytes)?;
    Ok(Variables { format, bytes })
}

/// Opens the point that `name` means, as a source.
pub(super) fn load(
    context: &Context<'_>,
    name: &PointName,
    wanted: &Wanted,
    how: &mut How<'_>,
) -> Result<Loaded> {
    let mut loaded = open(context, name)?.load(wanted, how)?;
    loaded.findings.extend(assumed_zone(&name.at));
    Ok(loaded)
}

/// What is to be said of a time without a zone.
pub fn assumed_zone(at: &At) -> Option<Finding> {
    let At::Time { moment, is_zone_assumed: true } = at else { return None };
    Some(finding::POINT.finding(
        format!("The time that was asked for has no zone; it was taken for {moment}."),
        "Write the zone behind it: Z, or +02:00.",
    ))
}

/// Opens the point that `name` means.
///
/// # Errors
/// Refused where nobody has points here, and as [`Points::open`].
pub fn open(context: &Context<'_>, name: &PointName) -> Result<PointSource> {
    let points = context.points.as_ref().ok_or_else(|| {
        Error::refused(format!("{} is a machine of a vault, and no vault is named", name.machine))
            .hint("name its folder with --vault")
    })?;
    points.open(&name.machine, &name.at)
}

impl PointSource {
    /// It as a source names it: `point:web01@1234`.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("point:{}@{}", self.name, self.number))
    }

    /// The machine with its disks, as any other source.
    ///
    /// # Errors
    /// Refused where it has no definition and `wanted` does not say what it would, where the definition has a disk that the
    /// point has not, and for choices that are for other sources.
    pub fn load(self, wanted: &Wanted, how: &mut How<'_>) -> Result<Loaded> {
        let path = self.path();
        self.load_at(&path, wanted, how).map_err(|error| error.in_file(&path))
    }

    fn load_at(self, path: &std::path::Path, wanted: &Wanted, how: &mut How<'_>) -> Result<Loaded> {
        self.check(wanted)?;
        let definition = serde_json::to_vec(&self.machine)
            .map_err(|e| Error::corrupt(format!("its definition cannot be written as JSON: {e}")))?;
        let is_defined = self.machine.is_some();
        let mut findings = vec![self.finding()];
        let mut machine = match self.machine {
            Some(machine) => machine,
            None => self.undefined(&wanted.hardware)?,
        };
        findings.extend(Parsed::new(machine.clone()).all_findings());
        for slot in &wanted.skipped {
            if !machine.disks.iter().any(|disk| disk.slot == *slot) {
                let slots: Vec<_> = machine.disks.iter().map(|disk| disk.slot.as_str()).collect();
                return Err(Error::refused(format!("has no disk {slot:?}"))
                    .hint(format!("its disks are {}", slots.join(", "))));
            }
        }
        findings.extend(fit(&mut machine, &self.disks));
        let all: Vec<String> = machine.disks.iter().map(|disk| disk.file.clone()).collect();
        skip(&mut machine, &wanted.skipped)?;
        let left_out = self.disks.iter().filter(|disk| !all.contains(&disk.name));
        findings.extend(left_out.map(|disk| left_out_finding(&self.name, &disk.name)));
        let mut disks: Vec<Option<PointDisk>> = self.disks.into_iter().map(Some).collect();
        let mut images = Vec::new();
        let boot = machine.boot_disk();
        for (index, slot) in machine.disks.iter_mut().enumerate() {
            let named =
                disks.iter_mut().find(|disk| disk.as_ref().is_some_and(|disk| disk.name == slot.file));
            let Some(found) = named.and_then(Option::take) else {
                (how.unreadable)(images.len(), absent(slot, &self.name, index == boot))?;
                images.push(Image { disk: Arc::new(Nothing), layers: Vec::new() });
                continue;
            };
            findings.extend(other_size(slot, found.image.disk.size()));
            slot.size = Some(found.image.disk.size());
            slot.sector_size = sector_size(&*found.image.disk);
            images.push(found.image);
        }
        if let Some(first) = images.first().filter(|_| !is_defined) {
            findings.extend(image::settle(&mut machine, &*first.disk, &wanted.hardware));
        }
        let variables = match &wanted.variables {
            Some(file) => Some(efi::in_file(&machine, file)?),
            None => self.variables,
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{}@{} {}\n", self.name, self.number, self.at.0).as_bytes());
        hasher.update(&definition);
        Ok(Loaded {
            variables,
            source_name: machine.name.clone(),
            machine,
            path: path.to_owned(),
            hypervisor: HYPERVISOR,
            images,
            digest: hasher.finalize().to_hex().to_string(),
            findings,
        })
    }

    fn check(&self, wanted: &Wanted) -> Result<()> {
        let given = [
            ("--snapshot", wanted.choice.snapshot.is_some()),
            ("--system", wanted.choice.system.is_some()),
            ("--configuration", wanted.choice.configuration.is_some()),
            ("--disk", !wanted.disks.is_empty()),
        ];
        if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
            return Err(Error::refused(format!("is a recovery point, which {option} is not for"))
                .hint("leave it out; which point it is stands behind the @"));
        }
        let is_described = wanted.hardware != super::Hardware::default();
        if is_described && self.machine.is_some() {
            return Err(Error::refused(
                "has a definition, which says itself what --memory, --cpus, --firmware and --nic say of an image",
            )
            .hint("leave them out; a map (--map) changes the memory, processors and addresses of a machine"));
        }
        if !is_described && self.machine.is_none() {
            return Err(Error::refused("has no definition of the machine: nothing says what it was")
                .hint(format!(
                    "store one for later points (landfall protect {} DEFINITION), and for this one say what it had: --memory 4G --cpus 2",
                    self.name
                )));
        }
        match self.disks.is_empty() {
            true => Err(Error::unsupported("has no disk: there is nothing to bring ashore")),
            false => Ok(()),
        }
    }

    /// A machine of its disks, in the order of their names.
    fn undefined(&self, hardware: &super::Hardware) -> Result<Machine> {
        let mut machine = image::described(hardware)?;
        self.name.as_str().clone_into(&mut machine.name);
        let mut names: Vec<&str> = self.disks.iter().map(|disk| disk.name.as_str()).collect();
        // vdaa is behind vdz.
        names.sort_unstable_by_key(|name| (name.len(), *name));
        machine.disks = names.iter().map(|name| DiskSlot::new(*name, Bus::Scsi, *name)).collect();
        Ok(machine)
    }

    fn finding(&self) -> Finding {
        let consistency = match self.consistency {
            Consistency::Crash => "as after a loss of power",
            Consistency::Application => "with what its applications had in memory written down",
        };
        let tag = self.tag.as_ref().map(|tag| format!(", {tag:?}")).unwrap_or_default();
        finding::POINT.finding(
            format!("The machine is as it was at {}: point {}{tag}, {consistency}.", self.at, self.number),
            "",
        )
    }
}

fn left_out_finding(machine: &Name, disk: &str) -> Finding {
    finding::POINT_DISK_LEFT_OUT.finding(
        format!("{machine}/{disk} is protected, and the machine's definition has no such disk: it is left out."),
        format!("If it belongs to the machine, store its definition with that disk: landfall protect {machine} DEFINITION."),
    )
}

fn absent(slot: &DiskSlot, machine: &Name, is_boot: bool) -> Error {
    let error = Error::refused(format!(
        "{} is {:?} in the machine's definition, and the point has no disk of that name",
        slot.slot, slot.file
    ));
    let other = format!("choose a point from when {machine}/{} was protected", slot.file);
    // A machine that starts from it cannot do without.
    error.hint(match is_boot {
        true => format!(
            "{other}; where another disk is what the definition means by it, say so for later points: landfall protect {machine} DEFINITION \
             --as {}=NAME",
            shell_word(&slot.slot)
        ),
        false => format!("{other}, or leave the disk out with {}", super::skip_option(&slot.slot)),
    })
}

/// Finds the disks of a definition that calls them otherwise: as many as the point has others, of the same sizes, in their order. The
/// definition was stored beside disks that are there no longer.
fn fit(machine: &mut Machine, disks: &[PointDisk]) -> Vec<Finding> {
    let has_none = |slot: &DiskSlot| !disks.iter().any(|disk| disk.name == slot.file);
    let left: Vec<&PointDisk> =
        disks.iter().filter(|disk| !machine.disks.iter().any(|slot| slot.file == disk.name)).collect();
    let open = machine.disks.iter().filter(|slot| has_none(slot));
    // Where one is there by its name, nobody knows which places the others have among them.
    let is_same = machine.disks.iter().all(has_none)
        && open.clone().count() == left.len()
        && open.zip(&left).all(|(slot, disk)| slot.size == Some(disk.image.disk.size()));
    if !is_same {
        return Vec::new();
    }
    let same = machine.disks.iter_mut().zip(left).map(|(slot, disk)| {
        slot.file.clone_from(&disk.name);
        finding::POINT.finding(
            format!("The point has no disk that is called as {} in the definition; {} is taken for it, which has its place and size.", slot.slot, disk.name),
            "",
        )
    });
    same.collect()
}

#[cfg(test)]
mod tests;
