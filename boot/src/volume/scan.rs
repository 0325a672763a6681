//! All volumes of a machine: partitions, whole disks, arrays, logical volumes, what is encrypted, and what lies in them.
//!
//! Layers are opened until nothing new appears, what is complete first:
//! ```text
//! disks -> partitions -> md arrays (with partitions of their own) -> LUKS, BitLocker -> LVM -> LUKS -> …
//! ```
//! One file each: [`arrays`], [`encrypted`], [`foreign`] (what Windows makes of partitions), [`groups`], [`reach`] (what lies below, against storage that lies on itself).
//!
//! Deliberately absent: arrays, physical volumes and partitions inside logical volumes. LVM and the kernel leave them alone
//! too, unless they are told otherwise, for those are mostly disks of other machines.

mod arrays;
mod encrypted;
mod foreign;
mod groups;
mod reach;

pub use encrypted::{BITLOCKER, opened_id};
pub use foreign::{DYNAMIC, SPACES};

use super::lvm::{self, Physical};
use super::view::View;
use super::{Array, Content, Probe, Volume, VolumeGroup, VolumeId, md, probe};
use crate::{Finding, Kind, Result, limits};
use landfall_image::luks::{Effort, Secret};
use landfall_image::{Bytes, Disk, DiskMut, GuestOffset, GuestRange, partition};
use reach::Reach;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What lies on a machine's disks.
#[derive(Clone)]
pub struct Scan {
    /// Partitions and whole disks in order, then what lies in those, layer by layer.
    pub volumes: Vec<Volume>,
    /// Volume groups, in the order in which they were opened.
    pub groups: Vec<VolumeGroup>,
    /// Arrays, those that stay closed too.
    pub arrays: Vec<Array>,
    /// What is odd about them.
    pub findings: Vec<Finding>,
    views: BTreeMap<VolumeId, Arc<View>>,
    /// Logical volumes that are not opened, and why.
    closed: BTreeMap<VolumeId, Closed>,
    /// Logical volumes with snapshots that writing from outside would damage.
    snapshots: BTreeMap<VolumeId, Vec<String>>,
}

impl Scan {
    /// A volume's bytes, for reading and writing. `None` where it is recognised and not opened.
    pub fn view(&self, id: &VolumeId) -> Option<Arc<View>> {
        self.views.get(id).cloned()
    }
    /// The volume of that name.
    pub fn volume(&self, id: &VolumeId) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.id == *id)
    }
    /// Why a volume is not opened, as the end of a sentence.
    pub fn closed(&self, id: &VolumeId) -> Option<&str> {
        self.closed.get(id).map(|closed| closed.why.as_str())
    }
    /// What can be done so that it is opened, where that is known.
    pub fn hint(&self, id: &VolumeId) -> Option<&str> {
        self.closed.get(id)?.hint.as_deref()
    }
    /// The same with more names of volumes, which the guest was found to give them.
    pub fn with_names(&self, names: impl IntoIterator<Item = (VolumeId, String)>) -> Scan {
        let mut scan = self.clone();
        for (id, name) in names {
            let volume = scan.volumes.iter_mut().find(|volume| volume.id == id);
            if let Some(volume) = volume.filter(|volume| !volume.device_names.contains(&name)) {
                volume.device_names.push(name);
            }
        }
        scan
    }
    /// Old-style snapshots of a logical volume.
    pub fn snapshots(&self, id: &VolumeId) -> &[String] {
        self.snapshots.get(id).map_or(&[], Vec::as_slice)
    }
}

/// Why a logical volume is not opened.
#[derive(Clone)]
struct Closed {
    /// As the end of a sentence.
    why: String,
    hint: Option<String>,
}

/// Finds the volumes of a machine whose disks are given in its order, without a key for what is encrypted.
///
/// # Errors
/// Only where a disk cannot be read; what is damaged or odd becomes a finding.
pub fn scan(disks: &[Arc<dyn DiskMut>]) -> Result<Scan> {
    scan_with(disks, &[])
}

/// As [`scan`], and tries `keys` on every encrypted volume.
///
/// # Errors
/// As [`scan`].
pub fn scan_with(disks: &[Arc<dyn DiskMut>], keys: &[Secret]) -> Result<Scan> {
    scan_until(disks, keys, Effort::default())
}

/// As [`scan_with`], with so much work for the keys, until it is cancelled.
///
/// # Errors
/// As [`scan`], and when it is cancelled.
pub fn scan_until(disks: &[Arc<dyn DiskMut>], keys: &[Secret], effort: Effort) -> Result<Scan> {
    let mut work = Work::new(keys, effort);
    for (index, disk) in disks.iter().enumerate() {
        let name = format!("disk{index}");
        work.reach.insert(VolumeId(name.clone()), Arc::new(Reach::disk(index, disk.size())));
        work.device(&Device { name, index, disk: disk.clone(), device_names: Vec::new(), on: Vec::new() })?;
    }
    for _ in 0..limits::STORAGE_LAYERS {
        // What is complete goes first: it may hold what the rest lacks.
        let is_new = work.arrays(true)?
            || work.encrypted()?
            || work.groups(true)?
            || work.arrays(false)?
            || work.groups(false)?;
        if !is_new {
            break;
        }
    }
    Ok(work.finish())
}

/// One scan under way.
struct Work<'k> {
    out: Scan,
    keys: &'k [Secret],
    effort: Effort,
    /// What the volumes lie on, and devices that are none since they have partitions.
    reach: BTreeMap<VolumeId, Arc<Reach>>,
    physical: Vec<Physical>,
    texts: lvm::Texts,
    members: Vec<md::Member>,
    /// UUIDs of arrays that were tried, and whether they are open.
    arrays: BTreeMap<String, bool>,
    /// Disks with a partition table that is an array's: their names, and the kind of array.
    mirrored: Vec<(String, String)>,
    /// Encrypted volumes that were not tried yet, and how many were.
    locked: Vec<encrypted::Locked>,
    tried: usize,
    /// UUIDs of volume groups that are open.
    groups: BTreeSet<String>,
    /// What is odd about volume groups; made anew with each look at them.
    about_groups: Vec<Finding>,
    /// There are more volumes than are taken.
    has_more: bool,
}

/// Something that may have partitions: a disk, or an array.
struct Device {
    /// `disk0`, `md0`.
    name: String,
    /// Of the disk, or of an array's first one.
    index: usize,
    disk: Arc<dyn DiskMut>,
    /// An array's; a disk has none that stay.
    device_names: Vec<String>,
    /// An array's members.
    on: Vec<VolumeId>,
}

/// What is known of a volume before it is probed.
struct Place {
    id: VolumeId,
    disk: usize,
    entry: Option<partition::Entry>,
    device_names: Vec<String>,
    on: Vec<VolumeId>,
    /// Arrays and physical volumes are looked for in it.
    may_hold_layers: bool,
    /// By the partition table it belongs to this, whatever seems to lie in it.
    owner: Option<&'static str>,
}

impl<'k> Work<'k> {
    fn new(keys: &'k [Secret], effort: Effort) -> Self {
        Work {
            out: Scan {
                volumes: Vec::new(),
                groups: Vec::new(),
                arrays: Vec::new(),
                findings: Vec::new(),
                views: BTreeMap::new(),
                closed: BTreeMap::new(),
                snapshots: BTreeMap::new(),
            },
            keys,
            effort,
            reach: BTreeMap::new(),
            physical: Vec::new(),
            texts: lvm::Texts::default(),
            members: Vec::new(),
            arrays: BTreeMap::new(),
            mirrored: Vec::new(),
            locked: Vec::new(),
            tried: 0,
            groups: BTreeSet::new(),
            about_groups: Vec::new(),
            has_more: false,
        }
    }

    fn finish(mut self) -> Scan {
        self.pools();
        self.arrays_at_the_end();
        self.encrypted_at_the_end();
        self.out.findings.append(&mut self.about_groups);
        if self.has_more {
            self.out.findings.push(Finding::new(
                "volumes-too-many",
                format!("the disks hold more than {} volumes: the rest is not seen", limits::VOLUMES),
                "leave out disks that do not belong to the machine; what is not seen is copied as it is",
            ));
        }
        self.out.findings = without_repetition(self.out.findings);
        self.out
    }

    /// True where another volume may be noted down.
    fn has_room(&mut self) -> bool {
        let has_room = self.out.volumes.len() < limits::VOLUMES;
        self.has_more |= !has_room;
        has_room
    }

    /// The partitions of a disk or array, or all of it where it has none.
    fn device(&mut self, device: &Device) -> Result<()> {
        let Device { name, index, disk, device_names, on } = device;
        let is_disk = device_names.is_empty();
        let table = match partition::read(disk) {
            Ok(table) => table,
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Unsupported | Kind::Refused) => {
                self.out.findings.push(Finding::new(
                    "partition-table-unreadable",
                    format!("the partition table of {name} cannot be read: {error}"),
                    "repair it in the source machine (`sgdisk --verify`), then convert again",
                ));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let table = match table {
            // Boot code in front of a file system, a container or a member of an array that has the whole disk.
            Some(table) if table.scheme == partition::Scheme::Mbr && table.entries.is_empty() => None,
            Some(table) if is_disk && self.is_array_member(name, disk, &table)? => None,
            table => table,
        };
        let Some(table) = table else {
            if disk.size().0 > 0 {
                let place = Place {
                    id: VolumeId(name.clone()),
                    disk: *index,
                    entry: None,
                    device_names: device_names.clone(),
                    on: on.clone(),
                    may_hold_layers: true,
                    owner: None,
                };
                let whole = GuestRange::new(GuestOffset(0), disk.size());
                self.place(place, View::part(disk.clone(), whole)?)?;
            }
            return Ok(());
        };
        for note in &table.notes {
            self.out.findings.push(Finding::new(
                "partition-table-odd",
                format!("the partition table of {name} is odd: {note}"),
                "check the disk in the source machine (`fdisk -l`)",
            ));
        }
        let entries = table.entries.into_iter();
        for entry in entries.filter(|entry| !entry.is_extended() && !entry.range.is_empty()) {
            let view = View::part(disk.clone(), entry.range)?;
            if let Some(reach) = self.reach.get(&VolumeId(name.clone())) {
                let part = reach.part(entry.range);
                self.reach.insert(VolumeId(format!("{name}p{}", entry.number)), part);
            }
            let place = Place {
                id: VolumeId(format!("{name}p{}", entry.number)),
                disk: *index,
                device_names: device_names.iter().map(|name| part_name(name, entry.number)).collect(),
                owner: foreign::owner(disk, &entry)?,
                entry: Some(entry),
                on: on.clone(),
                may_hold_layers: true,
            };
            self.place(place, view)?;
        }
        Ok(())
    }

    /// True where the table is that of an array which mirrors this disk as a whole. Writing to one side would tear it.
    fn is_array_member(
        &mut self,
        name: &str,
        disk: &Arc<dyn DiskMut>,
        table: &partition::Table,
    ) -> Result<bool> {
        let covered = |at: u64| {
            let inside = |range: GuestRange| range.start().0 <= at && at < range.end().0;
            table.entries.iter().any(|entry| inside(entry.range))
        };
        let Some(found) = probe::array(disk, &covered)? else { return Ok(false) };
        let Content::Member { of } = &found.content else { return Ok(false) };
        self.mirrored.push((name.to_owned(), of.clone()));
        Ok(true)
    }

    /// Looks at what lies in a volume, and takes note of it.
    fn place(&mut self, place: Place, view: View) -> Result<()> {
        if !self.has_room() {
            return Ok(());
        }
        let found = match place.owner {
            Some(owner) => Probe::member(owner),
            None => probe::probe(&view)?,
        };
        self.ambiguous(&place.id, &found);
        let view = Arc::new(view);
        match &found.content {
            Content::LvmPhysical { .. } if place.may_hold_layers => {
                if let Some(label) = read_label(&view)? {
                    let range = GuestRange::new(GuestOffset(0), view.size());
                    let disk = (place.disk, view.clone() as Arc<dyn DiskMut>);
                    self.physical.push(Physical { volume: place.id.clone(), label, disk, range });
                }
            }
            Content::Member { of } if of == "linux-raid" && place.may_hold_layers => {
                self.member(&place, &view)?;
            }
            Content::Encrypted { scheme } if scheme.starts_with("LUKS") || scheme == BITLOCKER => {
                self.locked.push(encrypted::Locked::new(&place, scheme, found.uuid.as_deref(), view.clone()));
            }
            _ => {}
        }
        self.out.volumes.push(Volume {
            id: place.id.clone(),
            size: view.size(),
            content: found.content,
            uuid: found.uuid,
            label: found.label,
            part_uuid: place.entry.as_ref().map(|entry| entry.part_uuid.clone()),
            part_label: place.entry.as_ref().map(|entry| entry.name.clone()).filter(|name| !name.is_empty()),
            part_type: place.entry.as_ref().map(|entry| entry.kind.to_string()),
            disk: place.disk,
            // Of a disk: an array's partitions have names of their own.
            partition: match place.device_names.as_slice() {
                [] => place.entry.as_ref().map(|entry| entry.number),
                _ => None,
            },
            offset: match place.device_names.as_slice() {
                [] => place.entry.as_ref().map(|entry| Bytes(entry.range.start().0)),
                _ => None,
            },
            device_names: place.device_names,
            free: found.free.filter(|free| *free <= view.size()),
            on: place.on,
        });
        self.out.views.insert(place.id, view);
        Ok(())
    }

    fn ambiguous(&mut self, id: &VolumeId, found: &Probe) {
        if !found.claims.is_empty() {
            self.out.findings.push(Finding::new(
                "volume-ambiguous",
                format!("{} holds the marks of {} at once", id.0, found.claims.join(" and ")),
                "remove the stale one in the source machine with `wipefs --types`",
            ));
        }
    }

    /// What is recognised and not opened, because nothing here knows how.
    fn pools(&mut self) {
        for volume in &self.out.volumes {
            let Content::Member { of } = &volume.content else { continue };
            // Arrays, logical volumes and what Windows has have findings of their own.
            let is_whole = self.mirrored.iter().any(|(name, _)| *name == volume.id.0);
            let has_own =
                of == "linux-raid" || of.starts_with("lvm") || [DYNAMIC, SPACES].contains(&of.as_str());
            if has_own || is_whole {
                continue;
            }
            self.out.findings.push(Finding::new(
                "storage-not-opened",
                format!("{} belongs to something that is not opened: {of}", volume.id.0),
                "nothing, unless the guest needs it to start: then install the target's drivers in the running guest, and use landfall disk convert",
            ));
        }
    }
}

/// The first of each kind, with the number of those that are left out.
pub fn without_repetition(findings: Vec<Finding>) -> Vec<Finding> {
    let mut out: Vec<Finding> = Vec::new();
    let mut counts: BTreeMap<&'static str, (usize, usize)> = BTreeMap::new();
    for finding in findings {
        let (count, last) = counts.entry(finding.id).or_default();
        *count += 1;
        if *count <= limits::ALIKE {
            *last = out.len();
            out.push(finding);
        }
    }
    for (count, last) in counts.into_values() {
        if let (Some(more @ 1..), Some(finding)) = (count.checked_sub(limits::ALIKE), out.get_mut(last)) {
            finding.says.push_str(&format!(" (and {more} more like this)"));
        }
    }
    out
}

/// A partition's name, by that of what it lies on.
fn part_name(device: &str, number: u32) -> String {
    let is_by_id = device.starts_with("/dev/disk/by-id/");
    let ends_in_digit = device.ends_with(|last: char| last.is_ascii_digit());
    match (is_by_id, ends_in_digit) {
        (true, _) => format!("{device}-part{number}"),
        (false, true) => format!("{device}p{number}"),
        (false, false) => format!("{device}{number}"),
    }
}

fn read_label(view: &View) -> Result<Option<lvm::Label>> {
    let len = view.size().to_usize().unwrap_or(usize::MAX).min(lvm::LABEL_SCAN_BYTES);
    let mut head = vec![0; len];
    view.read_at(GuestOffset(0), &mut head)?;
    Ok(lvm::find_label(&head))
}

#[cfg(test)]
mod tests;
