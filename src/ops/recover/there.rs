//! Which recoveries there are, which points were patched ahead, and which of them somebody means.

use super::ended::address;
use super::registered::own;
use crate::name::Name;
use crate::ops::source::point::Points;
use crate::ops::{Context, register};
use crate::recovery::{FILE, PREPARED, Patched, Recovery, prepared_folder};
use crate::registrar::libvirt::host::Host as Libvirt;
use crate::report::VERSION;
use crate::report::recovery::{Listed, ListedPrepared, Recoveries, State};
use landfall_image::{Error, Kind, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The recoveries in `output`, and the points that were patched ahead for it.
///
/// # Errors
/// Where the folder cannot be listed; one that is not there has none.
pub fn list(context: &Context<'_>, output: &Path) -> Result<Recoveries> {
    let mut out = Recoveries {
        version: VERSION,
        folder: output.display().to_string(),
        recoveries: Vec::new(),
        prepared: Vec::new(),
    };
    for place in folders(output)? {
        let read = Recovery::read(&place);
        let (recovery, trouble) = match read {
            Ok(recovery) => (Some(recovery), None),
            Err(error) if error.kind() == Kind::Refused => continue,
            Err(error) => (None, Some(error.to_string())),
        };
        let state = match recovery.as_ref().map(|recovery| state(context, &place, recovery)) {
            Some(Ok(state)) => state,
            Some(Err(error)) if error.kind() == Kind::Interrupted => return Err(error),
            Some(Err(_)) | None => State::Unknown,
        };
        out.recoveries.push(Listed { folder: place.display().to_string(), recovery, state, trouble });
    }
    for (place, patched) in prepared(output)? {
        out.prepared.push(ListedPrepared {
            folder: place.display().to_string(),
            machine: patched.machine,
            target: patched.target,
            point: patched.point,
            at: patched.at,
            data: super::data(&patched.disks),
        });
    }
    Ok(out)
}

/// What was patched ahead for recoveries in `output`.
fn prepared(output: &Path) -> Result<Vec<(PathBuf, Patched)>> {
    let folders = folders(&prepared_folder(output))?.into_iter();
    Ok(folders.filter_map(|place| Patched::read(&place).ok().map(|patched| (place, patched))).collect())
}

/// The number of the newest point of a machine that was patched ahead for a target: for recoveries in `output`, or by whoever holds points
/// for that.
///
/// # Errors
/// Refused where there is none.
pub fn newest_prepared(
    points: Option<&dyn Points>,
    output: &Path,
    machine: &Name,
    target: &str,
) -> Result<u64> {
    let held = points.map_or_else(Vec::new, held_prepared).into_iter();
    let elsewhere = held.filter_map(|place| Patched::read(&place).ok());
    let there = prepared(output)?.into_iter().map(|(_, patched)| patched).chain(elsewhere);
    let of_it = there.filter(|patched| patched.machine == machine.as_str() && patched.target == target);
    of_it.map(|patched| patched.point).max().ok_or_else(|| {
        Error::refused(format!("no point of {machine} is patched ahead for {target}")).in_file(output).hint(
            "let the service do it ([protect] prepare = [\"kvm\"]) or do it now with --prepare; --at latest needs nothing ahead, and takes longer",
        )
    })
}

/// The folders of points that were patched ahead and are held for that: the service's are in a folder of its own.
pub(super) fn held_prepared(points: &dyn Points) -> Vec<PathBuf> {
    let held = points.holds().unwrap_or_default().into_iter().map(|held| PathBuf::from(held.holder));
    held.filter(|place| place.join(PREPARED).is_file()).collect()
}

/// The folder of the recovery that somebody names: a folder, or a name among those in `usual`, else among those that hold a point.
///
/// # Errors
/// Refused where several of that name are elsewhere.
pub fn find(points: Option<&dyn Points>, named: &Path, usual: &Path) -> Result<PathBuf> {
    if named.join(FILE).is_file() || named.components().count() != 1 {
        return Ok(named.to_owned());
    }
    let place = usual.join(named);
    if place.symlink_metadata().is_ok() {
        return Ok(place);
    }
    let held = points.map(|points| points.holds().unwrap_or_default()).unwrap_or_default().into_iter();
    let mut others: Vec<PathBuf> = held.map(|held| PathBuf::from(held.holder)).collect();
    others.retain(|holder| holder.file_name() == named.file_name());
    others.sort();
    others.dedup();
    match others.as_slice() {
        [] => Ok(place),
        [only] => Ok(only.clone()),
        several => {
            let several: Vec<String> = several.iter().map(|place| place.display().to_string()).collect();
            Err(Error::refused(format!(
                "there are {} recoveries of the name {}",
                several.len(),
                named.display()
            ))
            .hint(format!("name the folder: {}", several.join(", "))))
        }
    }
}

/// Folders in a folder, by name, without those that are not complete.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = |e| Error::io("cannot list", e).in_file(folder);
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(cannot)?,
    };
    let mut out = Vec::new();
    for entry in entries {
        let entry = entry.map_err(cannot)?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !is_hidden && entry.file_type().map_err(cannot)?.is_dir() {
            out.push(entry.path());
        }
    }
    out.sort();
    Ok(out)
}

fn state(context: &Context<'_>, place: &Path, recovery: &Recovery) -> Result<State> {
    let Some(at) = address(recovery) else { return Ok(State::NotRegistered) };
    let around = register::surroundings(context);
    let host = Libvirt::connect(&at, &around)?;
    let place = place.canonicalize().map_err(|e| Error::io("cannot resolve", e).in_file(place))?;
    Ok(match own(&host, &place, recovery)? {
        None => State::NotRegistered,
        Some(user) if user.is_paused => State::Paused,
        Some(user) if user.is_active => State::Running,
        Some(_) => State::Off,
    })
}
