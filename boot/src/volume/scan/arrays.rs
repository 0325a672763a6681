//! Arrays of md.

use super::reach::Reach;
use super::{Device, Place, Work};
use crate::volume::md::{self, Set, superblock};
use crate::volume::view::View;
use crate::volume::{Array, VolumeId};
use crate::{Finding, Kind, Result};
use landfall_image::DiskMut;
use std::sync::Arc;

impl Work<'_> {
    /// Takes note of a volume with a superblock.
    pub(super) fn member(&mut self, place: &Place, view: &Arc<View>) -> Result<()> {
        match superblock::read(view) {
            Ok(None) => {}
            Ok(Some(superblock)) => self.members.push(md::Member {
                volume: place.id.clone(),
                disk: place.disk,
                device: view.clone() as Arc<dyn DiskMut>,
                superblock,
            }),
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Unsupported | Kind::Refused) => {
                self.out.findings.push(Finding::new(
                    "array-member-damaged",
                    format!("{} is a member of an array, but cannot be used: {error}", place.id.0),
                    "check it in the source machine with `mdadm --examine`, then convert again",
                ));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Opens arrays that were not tried yet: those with all their disks, or all that can be. True where one was.
    pub(super) fn arrays(&mut self, only_complete: bool) -> Result<bool> {
        let members = self.members.clone();
        let mut is_new = false;
        for set in md::sets(&members) {
            if self.arrays.contains_key(set.uuid) {
                continue;
            }
            let Some(freshest) = set.freshest() else { continue };
            let names = self.array_names(&set);
            let opened = md::assemble(&set, &names.shown).and_then(|mut array| {
                let view = View::new(array.segments.iter().cloned()).map_err(|error| {
                    Finding::new(
                        "array-not-opened",
                        format!("the array {} ({}) is not opened: {error}", names.shown, set.uuid),
                        "check it in the source machine with `mdadm --examine`, then convert again",
                    )
                })?;
                let view = match array.behind.take() {
                    Some(behind) => view.before_writing(move || behind.write()),
                    None => view,
                };
                let below: Vec<_> =
                    set.members.iter().filter_map(|member| self.reach.get(&member.volume).cloned()).collect();
                let reach = Reach::array(&below).map_err(|why| {
                    Finding::new(
                        "array-not-opened",
                        format!("the array {} ({}) is not opened: {why}", names.shown, set.uuid),
                        "leave out disks that do not belong to the machine",
                    )
                })?;
                Ok((array, view, reach))
            });
            match opened {
                Err(_) if only_complete => {}
                Ok((array, ..)) if only_complete && !array.is_complete => {}
                Err(finding) => {
                    self.out.findings.push(finding);
                    self.arrays.insert(set.uuid.to_owned(), false);
                    self.out.arrays.push(noted(&set, freshest, &names.shown, false));
                }
                Ok((array, view, reach)) => {
                    is_new = true;
                    self.reach.insert(VolumeId(names.shown.clone()), Arc::new(reach));
                    self.out.findings.extend(array.findings);
                    self.arrays.insert(set.uuid.to_owned(), true);
                    let array = noted(&set, freshest, &names.shown, true);
                    let on = array.on.clone();
                    self.out.arrays.push(array);
                    let index = set.members.iter().map(|member| member.disk).min().unwrap_or(freshest.disk);
                    self.device(&Device {
                        name: names.shown,
                        index,
                        disk: Arc::new(view),
                        device_names: names.devices,
                        on,
                    })?;
                }
            }
        }
        Ok(is_new)
    }

    /// Disks that are members as a whole, where nothing was made of that.
    pub(super) fn arrays_at_the_end(&mut self) {
        for (name, of) in std::mem::take(&mut self.mirrored) {
            let member = self.members.iter().find(|member| member.volume.0 == name);
            let is_open =
                member.is_some_and(|member| self.arrays.get(&member.superblock.uuid) == Some(&true));
            if !is_open {
                self.out.findings.push(Finding::new(
                    "disk-in-array",
                    format!(
                        "{name} as a whole is a member of an array ({of}); its partitions are the array's"
                    ),
                    "nothing, unless the guest needs it to start; it is copied as it is",
                ));
            }
        }
    }

    fn array_names(&self, set: &Set<'_>) -> Names {
        let superblock = set.freshest().map(|member| &member.superblock);
        let mut names = Names::of(
            set.uuid,
            superblock.and_then(|superblock| superblock.name.as_deref()),
            superblock.and_then(|superblock| superblock.node),
        );
        let is_taken = |shown: &str| {
            let part = format!("{shown}p");
            self.out.volumes.iter().any(|volume| volume.id.0 == shown || volume.id.0.starts_with(&part))
        };
        if is_taken(&names.shown) {
            names.shown = format!("{}@{}", names.shown, set.uuid.get(..6).unwrap_or_default());
        }
        names
    }
}

/// An array as reports have it.
fn noted(set: &Set<'_>, freshest: &md::Member, shown: &str, opened: bool) -> Array {
    Array {
        name: shown.to_owned(),
        uuid: set.uuid.to_owned(),
        level: md::level_name(freshest.superblock.level),
        disks: freshest.superblock.disks,
        on: set.members.iter().map(|member| member.volume.clone()).collect(),
        opened,
    }
}

/// What an array is called.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    /// In plans and reports.
    shown: String,
    devices: Vec<String>,
}

impl Names {
    /// As mdadm and udev make them. Arrays of another host get another number there, so a number is not certain to be the
    /// node's, but no other array is called so.
    fn of(uuid: &str, name: Option<&str>, node: Option<u32>) -> Names {
        let mut devices = vec![format!("/dev/disk/by-id/md-uuid-{uuid}")];
        let name = name.filter(|name| is_name(name));
        if let Some(name) = name {
            devices.push(format!("/dev/disk/by-id/md-name-{name}"));
        }
        let own =
            name.map(|name| name.split_once(':').map_or(name, |(_, own)| own)).filter(|own| !own.is_empty());
        let number = own.and_then(|own| own.parse::<u32>().ok()).or(node).filter(|&number| number < 1 << 20);
        let shown = match (number, own) {
            (Some(number), _) => {
                devices.extend([format!("/dev/md{number}"), format!("/dev/md/{number}")]);
                format!("md{number}")
            }
            (None, Some(own)) => {
                devices.push(format!("/dev/md/{own}"));
                format!("md/{own}")
            }
            (None, None) => format!("md/{}", uuid.get(..8).unwrap_or(uuid)),
        };
        if let Some(name) = name.filter(|name| name.contains(':')) {
            devices.push(format!("/dev/md/{name}"));
        }
        Names { shown, devices }
    }
}

/// What may become part of a path and a report.
fn is_name(name: &str) -> bool {
    !name.starts_with(['.', '-'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+_.-:".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_called_as_mdadm_calls_them() {
        let of = |name, node| Names::of("11111111:22222222:33333333:44444444", name, node);
        let by_number = of(Some("host:0"), None);
        assert_eq!(by_number.shown, "md0");
        for name in ["/dev/md0", "/dev/md/0", "/dev/md/host:0", "/dev/disk/by-id/md-name-host:0"] {
            assert!(by_number.devices.iter().any(|known| known == name), "{name}");
        }
        assert!(by_number.devices[0].ends_with("md-uuid-11111111:22222222:33333333:44444444"));
        let by_name = of(Some("host:root"), None);
        assert_eq!(by_name.shown, "md/root");
        assert!(by_name.devices.contains(&"/dev/md/root".to_owned()));
        assert_eq!(of(None, Some(3)).shown, "md3");
        assert_eq!(of(Some("../../etc/passwd"), None).shown, "md/11111111");
        assert_eq!(of(Some("a\nb"), None).devices.len(), 1);
        assert_eq!(of(None, None).shown, "md/11111111");
    }
}
