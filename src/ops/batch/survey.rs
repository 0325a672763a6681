//! The look at a fleet before anything is written: what each machine is, how much room it needs, and who would collide with
//! whom.

use super::file::{Entry, Fleet};
use crate::finding;
use crate::hypervisor::Target;
use crate::ops::{Context, Failure, convert, disk, folder, register, source};
use crate::registrar;
use crate::report::{Kept, WrittenDisk};
use landfall_boot::check::{Explanation, Finding};
use landfall_image::create::CreateOptions;
use landfall_image::{Bytes, Disk, Error, Result};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// A machine, looked at.
pub struct Surveyed {
    /// Its name at the target, which is its folder's.
    pub name: String,
    /// Content of its disks as the guests see them.
    pub virtual_size: Bytes,
    /// What of it holds data: its disks at the target are not larger.
    pub data: Bytes,
    /// An earlier run has written it, from the same source with the same options.
    pub done: bool,
    /// The hypervisor that it was registered with since.
    pub registered_at: Option<String>,
    /// What stands in its way beside others of the fleet, or at the hypervisor.
    pub refused: Option<Failure>,
    identity: Identity,
}

impl Surveyed {
    /// Where it is still to be registered, of what is wanted for all.
    pub fn to_register<'a>(&self, wanted: Option<&'a registrar::Wanted>) -> Option<&'a registrar::Wanted> {
        wanted.filter(|at| self.registered_at.as_ref() != Some(&at.at))
    }
}

/// By what a machine is known at a target.
#[derive(Clone, Debug)]
struct Identity {
    /// For people: its name, or where it lies.
    who: String,
    name: String,
    /// What it, or its files, are called at the target.
    called: String,
    target: &'static str,
    uuid: Option<Uuid>,
    id: Option<u32>,
    macs: Vec<String>,
}

/// The options of one machine as a conversion takes them.
pub fn wanted<'a>(
    entry: &'a Entry,
    create: &CreateOptions,
    register: Option<&registrar::Wanted>,
) -> convert::Wanted<'a> {
    convert::Wanted {
        source: &entry.source,
        target: entry.target,
        name: entry.name.clone(),
        kind: entry.kind.clone(),
        create: CreateOptions { compression: entry.compression, ..create.clone() },
        networks: Default::default(),
        guest: entry.guest.clone(),
        register: register.cloned(),
    }
}

/// Looks at every machine, in the fleet's order.
pub fn survey(
    context: &Context<'_>,
    fleet: &Fleet,
    create: &CreateOptions,
    register: Option<&registrar::Wanted>,
) -> Result<Vec<std::result::Result<Surveyed, Failure>>> {
    // What one hostile definition brings to light must not take the others along.
    let safely = |entry| {
        catch_unwind(AssertUnwindSafe(|| look(context, fleet, entry, create)))
            .unwrap_or_else(|_| Err(super::unforeseen()))
            .map_err(Failure::from)
    };
    let mut all: Vec<_> = fleet.machines.iter().map(safely).collect();
    if let Some(at) = register {
        for (one, entry) in all.iter_mut().zip(&fleet.machines) {
            let Ok(one) = one else { continue };
            match register::check_target(&at.at, entry.target.name) {
                // They come together there, whatever they are written for.
                Ok(()) => one.identity.target = "",
                Err(error) => one.refused = Some(error.into()),
            }
        }
    }
    let mut known = Vec::new();
    let mine: Vec<String> = all.iter().flatten().map(|one| one.name.clone()).collect();
    earlier(&fleet.output, &mine, &mut known);
    let count = known.len();
    known.extend(all.iter().map(|one| one.as_ref().ok().map(|one| one.identity.clone())));
    for (index, findings) in collisions(&known).into_iter().filter(|(index, _)| *index >= count) {
        if let Some(Ok(one)) = all.get_mut(index - count)
            && one.refused.is_none()
        {
            one.refused = Some(Failure::Findings(findings));
        }
    }
    if let Some(register) = register {
        taken(context, register, &mut all)?;
    }
    Ok(all)
}

/// Refuses machines that the hypervisor has already, all with one look at it.
///
/// # Errors
/// Where it cannot be looked at: that stands in the way of all.
fn taken(
    context: &Context<'_>,
    at: &registrar::Wanted,
    all: &mut [std::result::Result<Surveyed, Failure>],
) -> Result<()> {
    // What is registered there already is no other machine.
    let mut coming: Vec<&mut Surveyed> = all
        .iter_mut()
        .flatten()
        .filter(|one| one.refused.is_none() && one.to_register(Some(at)).is_some())
        .collect();
    let identities: Vec<registrar::Identity> = coming
        .iter()
        .map(|Surveyed { identity, .. }| registrar::Identity {
            name: identity.name.clone(),
            uuid: identity.uuid,
            macs: identity.macs.iter().cloned().map(Some).collect(),
        })
        .collect();
    let found = register::taken(context, at, &identities.iter().collect::<Vec<_>>())?;
    for (one, findings) in coming.iter_mut().zip(found) {
        if !findings.is_empty() {
            one.refused = Some(Failure::Findings(findings));
        }
    }
    Ok(())
}

fn look(context: &Context<'_>, fleet: &Fleet, entry: &Entry, create: &CreateOptions) -> Result<Surveyed> {
    context.check_cancelled()?;
    let wanted = wanted(entry, create, None);
    // The digests of a package are compared when it is converted.
    let how = source::How { digests: false, unreadable: &mut |_, error| Err(error) };
    let loaded = source::load_with(context, &entry.source, &entry.guest.source, how)?;
    let mapped = entry.guest.mapped(&loaded, entry.name.as_deref(), entry.target.platform);
    let name = mapped.name.clone().unwrap_or_else(|| loaded.machine.name.clone());
    folder::check_name(&name)?;
    let macs =
        loaded.machine.nics.iter().zip(&mapped.macs).filter_map(|(nic, new)| new.clone().or(nic.mac.clone()));
    let (mut virtual_size, mut data) = (0_u64, 0_u64);
    for image in &loaded.images {
        virtual_size = virtual_size.saturating_add(image.disk.size().0);
        data = data.saturating_add(disk::stored(context, &*image.disk)?.0);
    }
    let fingerprint = convert::fingerprint(&loaded, &wanted, &mapped);
    let place = fleet.output.join(&name);
    let done = fingerprint.is_some_and(|fingerprint| is_done(&place, &fingerprint));
    let registered_at = if done { folder::registered_at(&place) } else { None };
    let identity = Identity {
        who: format!("{name} ({})", entry.source.display()),
        called: (entry.target.called)(&name),
        name: name.clone(),
        target: entry.target.name,
        uuid: mapped.uuid.or(loaded.machine.smbios.uuid),
        id: mapped.id,
        macs: macs.collect(),
    };
    Ok(Surveyed {
        name,
        virtual_size: Bytes(virtual_size),
        data: Bytes(data),
        done,
        registered_at,
        refused: None,
        identity,
    })
}

/// The report of an earlier result.
fn kept(folder: &Path) -> Option<Kept> {
    Kept::read(&folder.join(folder::REPORT)).ok()
}

/// True for a folder with the result that has this fingerprint, complete.
fn is_done(folder: &Path, fingerprint: &str) -> bool {
    let file = |disk: &WrittenDisk| {
        let path = folder.join(&disk.file);
        // Of a package: its archive.
        path.ancestors().take_while(|path| *path != folder).any(Path::is_file)
    };
    kept(folder).is_some_and(|kept| kept.fingerprint == fingerprint && kept.written_disks.iter().all(file))
}

/// Machines that lie in the output folder already, but for those of this fleet.
fn earlier(output: &Path, mine: &[String], known: &mut Vec<Option<Identity>>) {
    let Ok(entries) = std::fs::read_dir(output) else { return };
    let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.sort();
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || mine.contains(&name) {
            continue;
        }
        let Some(kept) = kept(&folder) else { continue };
        let target = crate::hypervisor::target(&kept.target);
        known.push(Some(of_written(&kept, target, format!("{name} ({})", folder.display()))));
    }
}

fn of_written(kept: &Kept, target: Option<&'static Target>, who: String) -> Identity {
    let machine = &kept.written;
    Identity {
        who,
        called: target.map_or_else(|| machine.name.clone(), |target| (target.called)(&machine.name)),
        name: machine.name.clone(),
        target: target.map_or("", |target| target.name),
        uuid: machine.smbios.uuid,
        id: kept.id,
        macs: machine.nics.iter().filter_map(|nic| nic.mac.clone()).collect(),
    }
}

/// For every machine that shares something with another: what, and with whom. Targets are taken apart: a machine may be
/// brought to two of them.
fn collisions(known: &[Option<Identity>]) -> BTreeMap<usize, Vec<Finding>> {
    let mut found: BTreeMap<usize, Vec<Finding>> = BTreeMap::new();
    let mut claims: BTreeMap<(&str, &str, String), Vec<usize>> = BTreeMap::new();
    for (index, one) in known.iter().enumerate() {
        let Some(one) = one else { continue };
        let mut claim = |kind, target, value: String| {
            let all = claims.entry((kind, target, value)).or_default();
            if all.last() != Some(&index) {
                all.push(index);
            }
        };
        // The folder is one for all targets.
        claim("name", "", one.name.to_lowercase());
        claim("called", one.target, one.called.to_lowercase());
        if let Some(uuid) = one.uuid {
            claim("uuid", one.target, uuid.to_string());
        }
        if let Some(id) = one.id {
            claim("id", one.target, id.to_string());
        }
        for mac in &one.macs {
            claim("mac", one.target, mac.clone());
        }
    }
    let names: Vec<Option<String>> =
        known.iter().map(|one| one.as_ref().map(|one| one.name.to_lowercase())).collect();
    for ((kind, _, value), all) in claims.into_iter().filter(|(_, all)| all.len() > 1) {
        let (row, what): (Explanation, &str) = match kind {
            "called" => (finding::COLLISION_NAME, "name at the target,"),
            "name" => (finding::COLLISION_NAME, "name"),
            "uuid" => (finding::COLLISION_UUID, "SMBIOS UUID"),
            "id" => (finding::COLLISION_ID, "id"),
            _ => (finding::COLLISION_MAC, "hardware address"),
        };
        for index in &all {
            let others: Vec<&str> = all
                .iter()
                .filter(|other| *other != index)
                // Of those with the same name that is told already.
                .filter(|other| kind != "called" || names.get(**other) != names.get(*index))
                .filter_map(|other| known.get(*other)?.as_ref())
                .map(|other| other.who.as_str())
                .take(5)
                .collect();
            if others.is_empty() {
                continue;
            }
            found.entry(*index).or_default().push(row.finding(
                format!("The {what} {value} is also that of {}.", others.join(", ")),
                match kind {
                    "name" | "called" => "Give one of them another name.",
                    "uuid" => "Leave one of them out, or set uuid = \"new\" for it in the map.",
                    "id" => "Set another id for one of them in the map.",
                    _ => "Leave one of them out, or set mac = \"new\" for it in the map.",
                },
            ));
        }
    }
    found
}

/// Bytes that are free where the machines are written.
pub fn free(folder: &Path) -> Result<Bytes> {
    let existing = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    let stat =
        rustix::fs::statvfs(existing).map_err(|e| Error::io("cannot look at", e.into()).in_file(existing))?;
    Ok(Bytes(stat.f_bavail.saturating_mul(stat.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str, target: &'static str, uuid: u128, mac: &str) -> Option<Identity> {
        Some(Identity {
            who: name.into(),
            name: name.into(),
            called: crate::hypervisor::target(target).map_or(String::new(), |row| (row.called)(name)),
            target,
            uuid: Some(Uuid::from_u128(uuid)),
            id: None,
            macs: vec![mac.into()],
        })
    }

    #[test]
    fn whoever_shares_something_is_told_with_whom() {
        let known = [
            identity("web01", "kvm", 1, "52:54:00:00:00:01"),
            identity("WEB01", "kvm", 2, "52:54:00:00:00:02"),
            identity("db01", "kvm", 1, "52:54:00:00:00:03"),
            None,
            identity("app", "kvm", 4, "52:54:00:00:00:03"),
            // The same machine, to another target.
            identity("app-esxi", "esxi", 4, "52:54:00:00:00:03"),
        ];
        let found = collisions(&known);
        let ids: Vec<_> = found
            .iter()
            .map(|(index, all)| (*index, all.iter().map(|one| one.id).collect::<Vec<_>>()))
            .collect();
        assert_eq!(
            ids,
            [
                (0, vec!["collision-name", "collision-uuid"]),
                (1, vec!["collision-name"]),
                (2, vec!["collision-mac", "collision-uuid"]),
                (4, vec!["collision-mac"]),
            ]
        );
        assert!(found[&4][0].says.contains("db01"), "{}", found[&4][0].says);
    }
    /// Names that differ in what a target does not take, or does not tell apart, are one name there.
    #[test]
    fn names_that_become_one_at_the_target_are_told() {
        let pairs = [
            ("esxi", "web 01", "web_01", true),
            ("ova", "web:01", "web_01", true),
            ("hyperv", "web:01", "web_01", true),
            ("hyperv", "web01.", "web01", true),
            ("kubevirt", "web.01", "web-01", true),
            ("azure", "web 01", "web-01", true),
            ("ovirt", "web 01", "web-01", true),
            ("ahv", "web 01", "web-01", true),
            ("proxmox", "web_01", "web-01", true),
            ("openstack", "-web01", "web01", true),
            ("kvm", "web 01", "web_01", false),
            ("esxi", "web01", "web02", false),
        ];
        for (target, one, other, collide) in pairs {
            let known = [
                identity(one, target, 1, "52:54:00:00:00:01"),
                identity(other, target, 2, "52:54:00:00:00:02"),
                // The other target has files of its own.
                identity("elsewhere", if target == "kvm" { "esxi" } else { "kvm" }, 3, "52:54:00:00:00:03"),
            ];
            let found = collisions(&known);
            let ids: Vec<_> = found.values().flatten().map(|finding| finding.id).collect();
            let expected = if collide { vec!["collision-name"; 2] } else { Vec::new() };
            assert_eq!(ids, expected, "{target}: {one:?} and {other:?}");
            if collide {
                assert!(found[&0][0].says.contains("at the target"), "{}", found[&0][0].says);
                assert!(found[&0][0].says.contains(other), "{}", found[&0][0].says);
            }
        }
    }
}
