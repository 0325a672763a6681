//! All volumes of a machine: partitions, whole disks, logical volumes, and what lies in them.
//!
//! Deliberately absent: logical volumes on logical volumes, and partitions inside either (LVM and the kernel leave
//! them alone too, unless they are told otherwise).

use super::lvm::{self, Mapping, Physical};
use super::view::View;
use super::{Content, Probe, Volume, VolumeId, probe};
use crate::{Finding, Kind, Result};
use landfall_image::{Disk, DiskMut, GuestOffset, GuestRange, partition};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What lies on a machine's disks.
pub struct Scan {
    /// Partitions and whole disks in order, then logical volumes by group and name.
    pub volumes: Vec<Volume>,
    /// What is odd about them.
    pub findings: Vec<Finding>,
    views: BTreeMap<VolumeId, Arc<View>>,
    /// Logical volumes that are not opened, and why.
    closed: BTreeMap<VolumeId, String>,
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
        self.closed.get(id).map(String::as_str)
    }
    /// Old-style snapshots of a logical volume.
    pub fn snapshots(&self, id: &VolumeId) -> &[String] {
        self.snapshots.get(id).map_or(&[], Vec::as_slice)
    }
}

/// Finds the volumes of a machine whose disks are given in its order.
///
/// # Errors
/// Only where a disk cannot be read; what is damaged or odd becomes a finding.
pub fn scan(disks: &[Arc<dyn DiskMut>]) -> Result<Scan> {
    let mut scan = Scan {
        volumes: Vec::new(),
        findings: Vec::new(),
        views: BTreeMap::new(),
        closed: BTreeMap::new(),
        snapshots: BTreeMap::new(),
    };
    let mut physical = Vec::new();
    for (index, disk) in disks.iter().enumerate() {
        scan.disk(index, disk, &mut physical)?;
    }
    let (groups, findings) = lvm::assemble(&physical)?;
    scan.findings.extend(findings);
    scan.groups(&groups)?;
    Ok(scan)
}

/// What is known of a volume before it is probed.
struct Place {
    id: VolumeId,
    disk: usize,
    range: GuestRange,
    entry: Option<partition::Entry>,
}

impl Scan {
    fn disk(&mut self, index: usize, disk: &Arc<dyn DiskMut>, physical: &mut Vec<Physical>) -> Result<()> {
        let name = format!("disk{index}");
        let table = match partition::read(disk) {
            Ok(table) => table,
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Unsupported | Kind::Refused) => {
                self.findings.push(Finding::new(
                    "partition-table-unreadable",
                    format!("the partition table of {name} cannot be read: {error}"),
                    "repair it in the source machine (`sgdisk --verify`), then convert again",
                ));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let whole = GuestRange::new(GuestOffset(0), disk.size());
        let table = match table {
            Some(table) if self.is_array_member(&name, disk, &table)? => None,
            table => table,
        };
        let places = match table {
            None if whole.is_empty() => Vec::new(),
            None => vec![Place { id: VolumeId(name), disk: index, range: whole, entry: None }],
            Some(table) => {
                for note in &table.notes {
                    self.findings.push(Finding::new(
                        "partition-table-odd",
                        format!("the partition table of {name} is odd: {note}"),
                        "check the disk in the source machine (`fdisk -l`)",
                    ));
                }
                table
                    .entries
                    .into_iter()
                    .filter(|entry| !entry.is_extended() && !entry.range.is_empty())
                    .map(|entry| Place {
                        id: VolumeId(format!("{name}p{}", entry.number)),
                        disk: index,
                        range: entry.range,
                        entry: Some(entry),
                    })
                    .collect()
            }
        };
        for place in places {
            self.place(place, disk, physical)?;
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
        self.findings.push(Finding::new(
            "disk-in-array",
            format!("{name} as a whole is a member of an array ({of}); its partitions are the array's"),
            "nothing, unless the guest needs it to start; it is copied as it is",
        ));
        Ok(true)
    }

    fn place(&mut self, place: Place, disk: &Arc<dyn DiskMut>, physical: &mut Vec<Physical>) -> Result<()> {
        let view = View::part(disk.clone(), place.range)?;
        let found = probe::probe(&view)?;
        self.ambiguous(&place.id, &found);
        if matches!(found.content, Content::LvmPhysical { .. })
            && let Some(label) = read_label(&view)?
        {
            physical.push(Physical {
                volume: place.id.clone(),
                label,
                disk: (place.disk, disk.clone()),
                range: place.range,
            });
        }
        self.volumes.push(Volume {
            id: place.id.clone(),
            size: view.size(),
            content: found.content,
            uuid: found.uuid,
            label: found.label,
            part_uuid: place.entry.as_ref().map(|entry| entry.part_uuid.clone()),
            part_label: place.entry.as_ref().map(|entry| entry.name.clone()).filter(|name| !name.is_empty()),
            part_type: place.entry.as_ref().map(|entry| entry.kind.to_string()),
            disk: place.disk,
            partition: place.entry.as_ref().map(|entry| entry.number),
            device_names: Vec::new(),
        });
        self.views.insert(place.id, Arc::new(view));
        Ok(())
    }

    fn ambiguous(&mut self, id: &VolumeId, found: &Probe) {
        if !found.claims.is_empty() {
            self.findings.push(Finding::new(
                "volume-ambiguous",
                format!("{} holds the marks of {} at once", id.0, found.claims.join(" and ")),
                "remove the stale one in the source machine with `wipefs --types`",
            ));
        }
    }

    fn groups(&mut self, groups: &[lvm::Group]) -> Result<()> {
        for group in groups {
            for volume in &mut self.volumes {
                if group.physical.contains(&volume.id)
                    && let Content::LvmPhysical { group: name } = &mut volume.content
                {
                    name.clone_from(&group.name);
                }
            }
        }
        let mut taken = BTreeSet::new();
        for group in groups {
            // A second group of the same name: its volumes need names of their own.
            let shown = match taken.insert(group.name.as_str()) {
                true => group.name.clone(),
                false => format!("{}@{}", group.name, group.uuid.get(..6).unwrap_or(&group.uuid)),
            };
            for logical in &group.logical {
                self.logical(&shown, group, logical)?;
            }
        }
        Ok(())
    }

    fn logical(&mut self, shown: &str, group: &lvm::Group, logical: &lvm::Logical) -> Result<()> {
        let id = VolumeId(format!("{shown}/{}", logical.name));
        let found = match &logical.mapping {
            Mapping::Segments(segments) => {
                let view = View::new(segments.iter().cloned())?;
                let found = probe::probe(&view)?;
                self.ambiguous(&id, &found);
                self.views.insert(id.clone(), Arc::new(view));
                found
            }
            Mapping::NotOpened { of, why } => {
                self.findings.push(Finding::new(
                    "lvm-not-opened",
                    format!("the logical volume {} is not opened: {why}", id.0),
                    "nothing, unless the guest needs it to start; it is copied as it is",
                ));
                self.closed.insert(id.clone(), why.clone());
                Probe {
                    content: Content::Member { of: of.clone() },
                    uuid: None,
                    label: None,
                    claims: Vec::new(),
                }
            }
        };
        if !logical.snapshots.is_empty() {
            self.snapshots.insert(id.clone(), logical.snapshots.clone());
        }
        let doubled = |name: &str| name.replace('-', "--");
        let mapper = format!("{}-{}", doubled(&group.name), doubled(&logical.name));
        let plain = |uuid: &str| uuid.replace('-', "");
        self.volumes.push(Volume {
            id,
            size: logical.size,
            content: found.content,
            uuid: found.uuid,
            label: found.label,
            part_uuid: None,
            part_label: None,
            part_type: None,
            disk: logical.disk,
            partition: None,
            device_names: vec![
                format!("/dev/{}/{}", group.name, logical.name),
                format!("/dev/mapper/{mapper}"),
                format!("/dev/disk/by-id/dm-name-{mapper}"),
                format!("/dev/disk/by-id/dm-uuid-LVM-{}{}", plain(&group.uuid), plain(&logical.uuid)),
            ],
        });
        Ok(())
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
