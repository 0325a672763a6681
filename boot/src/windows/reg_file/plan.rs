//! A user's registry edits in the plan: after all others, so that they win, and told of where they undo what landfall needs.

use super::{Change, Hive, RegistryFile, What};
use crate::Result;
use crate::windows::boot::store_path;
use crate::windows::data::Data;
use crate::windows::draft::Draft;
use crate::windows::registry::{Decided, Registry};
use std::collections::{BTreeMap, BTreeSet};

const CURRENT: &str = "CurrentControlSet";

/// The request's file, applied. The last part of a plan.
pub fn plan(draft: &mut Draft<'_>) -> Result<()> {
    let request = draft.request;
    let Some(file) = &request.registry else { return Ok(()) };
    // Of each hive, what the parts before have settled.
    let mut decided: BTreeMap<Hive, BTreeSet<Decided>> = BTreeMap::new();
    let mut done = 0;
    for change in &file.changes {
        let key = match change.hive {
            Hive::System => of_control_set(draft, &change.key),
            _ => change.key.clone(),
        };
        let why = format!("{} says so in line {}.", file.name, change.line);
        let Some(registry) = hive(draft, change.hive)? else {
            absent(draft, file, change);
            continue;
        };
        let of_hive = decided.entry(change.hive).or_insert_with(|| registry.decided().clone());
        let before = registry.edits().len();
        apply(registry, &key, &change.what, &why)?;
        if registry.edits().len() > before {
            done += 1;
            contradiction(draft, file, change, &key, of_hive);
        }
    }
    draft.find(
        "windows-registry-file",
        format!("{}: {done} of {} lines change the registry.", file.name, file.changes.len()),
        "Compare the edits in the report, each with the previous value; no later pass takes them back.",
    );
    Ok(())
}

/// `CurrentControlSet` is made when Windows starts.
fn of_control_set(draft: &Draft<'_>, key: &str) -> String {
    let name = key.split('\\').next().unwrap_or_default();
    match name.eq_ignore_ascii_case(CURRENT) {
        true => format!("{}{}", draft.system.control, key.get(name.len()..).unwrap_or_default()),
        false => key.to_owned(),
    }
}

/// The hive as it is after the edits so far; `None` where the guest has no such file.
fn hive<'d>(draft: &'d mut Draft<'_>, hive: Hive) -> Result<Option<&'d mut Registry>> {
    let path = match hive {
        Hive::System => return Ok(Some(&mut draft.registry)),
        Hive::Software => return Ok(Some(&mut draft.software)),
        Hive::Boot => match store_path(draft)? {
            Some(path) => path,
            None => return Ok(None),
        },
        Hive::Sam => draft.system.path("System32/config/SAM"),
        Hive::Security => draft.system.path("System32/config/SECURITY"),
        Hive::Default => draft.system.path("System32/config/DEFAULT"),
        Hive::LocalService => draft.system.path("ServiceProfiles/LocalService/NTUSER.DAT"),
        Hive::NetworkService => draft.system.path("ServiceProfiles/NetworkService/NTUSER.DAT"),
    };
    draft.hive(&path)
}

fn apply(registry: &mut Registry, key: &str, what: &What, why: &str) -> Result<()> {
    match what {
        What::Create => registry.create(key, why),
        What::Delete => registry.delete(key, why),
        What::Set { name, kind, bytes } => {
            registry.set(key, name, Data { kind: *kind, bytes: bytes.clone() }, why)
        }
        What::DeleteValue { name } => registry.delete_value(key, name, why),
    }
}

fn absent(draft: &mut Draft<'_>, file: &RegistryFile, change: &Change) {
    draft.find(
        "windows-registry-hive-missing",
        format!(
            "{}, line {}: the guest has no file for the {} hive.",
            file.name,
            change.line,
            match change.hive {
                Hive::Boot => "boot configuration",
                Hive::Sam => "SAM",
                Hive::Security => "SECURITY",
                Hive::Default => ".DEFAULT",
                Hive::LocalService => "local service's",
                Hive::NetworkService => "network service's",
                Hive::System => "SYSTEM",
                Hive::Software => "SOFTWARE",
            }
        ),
        "Take the line out of the file.",
    );
}

/// Tells of a line that changed what a part before had decided.
fn contradiction(
    draft: &mut Draft<'_>,
    file: &RegistryFile,
    change: &Change,
    key: &str,
    decided: &BTreeSet<Decided>,
) {
    let lower = key.to_lowercase();
    let is_in = |other: &str| {
        other.strip_prefix(&lower).is_some_and(|rest| rest.is_empty() || rest.starts_with('\\'))
    };
    let found = match &change.what {
        What::Create => false,
        What::Delete => decided.iter().any(|(other, _)| is_in(other)),
        What::Set { name, .. } | What::DeleteValue { name } => {
            decided.contains(&(lower.clone(), None)) || decided.contains(&(lower, Some(name.to_lowercase())))
        }
    };
    if found {
        draft.find(
            "windows-registry-conflict",
            format!(
                "{}, line {}: {key} is also decided by landfall; the file's line counts.",
                file.name, change.line
            ),
            "Take the line out of the file, unless the machine is to start without what landfall decided.",
        );
    }
}
