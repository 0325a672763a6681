//! Volume groups of LVM.

use super::reach::Reach;
use super::{Closed, Place, Work};
use crate::volume::lvm::{self, Mapping};
use crate::volume::view::View;
use crate::volume::{Content, Volume, VolumeGroup, VolumeId};
use crate::{Finding, Result, limits};
use std::sync::Arc;

impl Work<'_> {
    /// Opens volume groups that were not open yet: those that have all their physical volumes, or all. True where one was.
    pub(super) fn groups(&mut self, only_complete: bool) -> Result<bool> {
        if self.physical.is_empty() {
            return Ok(false);
        }
        let (groups, findings) = lvm::assemble(&self.physical, &mut self.texts)?;
        self.about_groups = findings;
        let mut is_new = false;
        for group in &groups {
            for volume in &mut self.out.volumes {
                if group.physical.contains(&volume.id)
                    && let Content::LvmPhysical { group: name } = &mut volume.content
                {
                    name.clone_from(&group.name);
                }
            }
            if (only_complete && !group.missing.is_empty()) || !self.groups.insert(group.uuid.clone()) {
                continue;
            }
            is_new = true;
            // A second group of the same name: its volumes need names of their own.
            let first = groups.iter().find(|other| other.name == group.name);
            let shown = match first.is_none_or(|first| first.uuid == group.uuid) {
                true => group.name.clone(),
                false => format!("{}@{}", group.name, group.uuid.get(..6).unwrap_or(&group.uuid)),
            };
            self.out.groups.push(VolumeGroup {
                name: shown.clone(),
                uuid: group.uuid.clone(),
                size: group.size,
                free: group.free,
                on: group.physical.clone(),
                missing: group.missing.clone(),
            });
            let below: Vec<_> = group.physical.iter().filter_map(|id| self.reach.get(id).cloned()).collect();
            let below = Arc::new(Reach::group(&below));
            for logical in &group.logical {
                if !self.has_room() {
                    break;
                }
                self.logical(&shown, group, logical, &below)?;
            }
        }
        Ok(is_new)
    }

    fn logical(
        &mut self,
        shown: &str,
        group: &lvm::Group,
        logical: &lvm::Logical,
        below: &Arc<Reach>,
    ) -> Result<()> {
        if let Some(origin) = &logical.inactive_of {
            // Nothing is mounted from it when the guest starts, and it has the UUID and label of its origin.
            self.out.findings.push(Finding::new(
                "lvm-snapshot-inactive",
                format!("{shown}/{} is a thin snapshot of {origin}, and not active when the guest starts: it is left alone", logical.name),
                "nothing; or, if it is what the guest is to start from, activate it in the source machine (lvchange --setactivationskip n)",
            ));
            return Ok(());
        }
        let mut id = VolumeId(format!("{shown}/{}", logical.name));
        if self.reach.contains_key(&id) {
            // An array is called so.
            id = VolumeId(format!("{shown}@{}/{}", group.uuid.get(..6).unwrap_or(&group.uuid), logical.name));
        }
        let doubled = |name: &str| name.replace('-', "--");
        let mapper = format!("{}-{}", doubled(&group.name), doubled(&logical.name));
        let plain = |uuid: &str| uuid.replace('-', "");
        let device_names = vec![
            format!("/dev/{}/{}", group.name, logical.name),
            format!("/dev/mapper/{mapper}"),
            format!("/dev/disk/by-id/dm-name-{mapper}"),
            format!("/dev/disk/by-id/dm-uuid-LVM-{}{}", plain(&group.uuid), plain(&logical.uuid)),
        ];
        if !logical.snapshots.is_empty() {
            self.out.snapshots.insert(id.clone(), logical.snapshots.clone());
        }
        for (says, remedy) in &logical.oddities {
            self.out.findings.push(Finding::new("lvm-degraded", format!("{shown}/{says}"), *remedy));
        }
        let on = group.physical.clone();
        match &logical.mapping {
            Mapping::Segments(segments) => {
                let reach = below
                    .logical(logical.legs)
                    .ok_or_else(|| format!("one write to it comes to more than {}", limits::FAN_OUT));
                let view = View::new(segments.iter().cloned()).map_err(|error| error.to_string());
                let (view, reach) = match view.and_then(|view| Ok((view, reach?))) {
                    Ok(opened) => opened,
                    Err(why) => {
                        let mapping = Mapping::NotOpened { of: "lvm".into(), why, hint: None };
                        let closed = lvm::Logical { mapping, oddities: Vec::new(), ..logical.clone() };
                        return self.logical(shown, group, &closed, below);
                    }
                };
                self.reach.insert(id.clone(), reach);
                let place = Place {
                    id,
                    disk: logical.disk,
                    entry: None,
                    device_names,
                    on,
                    may_hold_layers: false,
                    owner: None,
                };
                self.place(place, view)
            }
            Mapping::NotOpened { of, why, hint } => {
                let nothing = "nothing, unless the guest needs it to start; it is copied as it is";
                self.out.findings.push(Finding::new(
                    "lvm-not-opened",
                    format!("the logical volume {} is not opened: {why}", id.0),
                    hint.as_deref().unwrap_or(nothing),
                ));
                self.reach.insert(id.clone(), below.clone());
                self.out.closed.insert(id.clone(), Closed { why: why.clone(), hint: hint.clone() });
                self.out.volumes.push(Volume {
                    id,
                    size: logical.size,
                    content: Content::Member { of: of.clone() },
                    uuid: None,
                    label: None,
                    part_uuid: None,
                    part_label: None,
                    part_type: None,
                    disk: logical.disk,
                    partition: None,
                    offset: None,
                    device_names,
                    free: None,
                    on,
                });
                Ok(())
            }
        }
    }
}
