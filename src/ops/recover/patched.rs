//! The guest patched for where it is to run, as a delta for each of its disks; made now, or ahead.

use super::Wanted;
use super::source::{Source, as_conversion};
use super::there::held_prepared;
use crate::event::Event;
use crate::hypervisor::Networks;
use crate::ops::folder::{self, Folder, write_bytes};
use crate::ops::inspect::{self, Opened};
use crate::ops::{Context, Failure, define};
use crate::recovery::{self, INSPECTED, Kept, PREPARED, Patched, below};
use crate::report::{Inspected, VERSION, WrittenDisk};
use landfall_image::create::{Base, CreateOptions, FileOptions};
use landfall_image::formats::KindRow;
use landfall_image::{Disk, Error, Format, Result, delta};
use std::path::{Path, PathBuf};

/// Patches the guest and writes a delta for each disk into `folder`. Where something blocks, nothing is written.
pub fn make(
    context: &Context<'_>,
    wanted: &Wanted,
    source: &Source,
    key: &str,
    folder: &Path,
    sync: bool,
) -> Result<(Patched, Inspected), Failure> {
    let loaded = &source.loaded;
    let mapped = source.mapped(wanted);
    let path = loaded.path.clone();
    let kind: &KindRow = define::kind(&as_conversion(wanted, &path, Networks::default()))?;
    define::check_kind(wanted.target, kind, &loaded.machine)?;
    let overlays = loaded.overlays(folder)?;
    let opened = Opened {
        loaded,
        overlays: &overlays,
        platform: wanted.target.platform,
        choice: &wanted.guest,
        mapped: &mapped,
        keys: context.key.as_slice(),
    };
    let mut inspected = inspect::patch(context, &opened)?;
    let adapted = define::adapted(&mut inspected, wanted.target, kind, &mapped)?;
    if inspected.is_blocked() {
        return Err(Failure::Findings(inspected.findings));
    }
    context.observer.event(Event::Step("Writing what was changed".into()));
    let mut disks = Vec::new();
    for ((slot, overlay), below) in adapted.disks.iter().zip(&overlays).zip(&source.disks) {
        context.check_cancelled()?;
        let base = Base {
            path: below::qemu_name(&below.below)?.into(),
            format: Format::Raw,
            size: overlay.size(),
            identity: None,
        };
        let files = FileOptions { replace: true, resume: false, sync };
        let options = CreateOptions { base: Some(base), files, ..CreateOptions::default() };
        let sink = (kind.create)(&folder.join(&slot.file), overlay.size(), &options)?;
        let finished = delta::write(overlay, sink, &context.cancel)?;
        disks.push(WrittenDisk {
            file: slot.file.clone(),
            format: kind.format.name().to_owned(),
            kind: kind.name.to_owned(),
            virtual_size: overlay.size(),
            data: finished.data,
            allocated: finished.receipt.allocated,
            // What the guest reads is what the point holds, but for the delta: nobody read all of it.
            content_digest: String::new(),
        });
    }
    let text = serde_json::to_string_pretty(&inspected)
        .map_err(|e| Error::corrupt(format!("the report cannot be written as JSON: {e}")))?;
    write_bytes(folder, INSPECTED, (text + "\n").as_bytes(), false)?;
    let patched = Patched {
        version: VERSION,
        machine: source.machine.to_string(),
        point: source.number,
        at: source.at,
        target: wanted.target.name.to_owned(),
        made_of: key.to_owned(),
        adapted,
        findings: inspected.findings.iter().map(Kept::from).collect(),
        disks,
    };
    Ok((patched, inspected))
}

/// Where the point lies once it is patched ahead with that key.
pub fn place(source: &Source, wanted: &Wanted, key: &str) -> (PathBuf, String) {
    let name = recovery::prepared_name(source.machine.as_str(), source.number, wanted.target.name, key);
    (recovery::prepared_folder(&source.output), name)
}

/// What was patched ahead with that key, copied into `folder`; `None` where nothing was, or it cannot be used.
pub fn reuse(source: &Source, wanted: &Wanted, key: &str, folder: &Path, sync: bool) -> Option<Patched> {
    let (prepared, name) = place(source, wanted, key);
    let own = prepared.join(&name);
    let prepared = match own.join(PREPARED).is_file() {
        true => own,
        // The service's are in a folder of its own.
        false => held_prepared(&*source.points).into_iter().find(|place| place.ends_with(&name))?,
    };
    let copied = || -> Result<Patched> {
        let patched = Patched::read(&prepared)?;
        if patched.version != VERSION || patched.made_of != key {
            return Err(Error::refused("was made of something else").in_file(&prepared));
        }
        for file in patched.disks.iter().map(|disk| disk.file.as_str()).chain([INSPECTED]) {
            folder::check_name(file)?;
            let (from, to) = (prepared.join(file), folder.join(file));
            // A copy by the file system where it can share blocks, by the kernel otherwise.
            std::fs::copy(&from, &to).map_err(|e| Error::io("cannot copy", e).in_file(&from))?;
            if sync {
                let synced = std::fs::File::open(&to).and_then(|file| file.sync_all());
                synced.map_err(|e| Error::io("cannot write out", e).in_file(&to))?;
            }
        }
        Ok(patched)
    };
    match copied() {
        Ok(patched) => Some(patched),
        Err(error) => {
            tracing::warn!("what was prepared is not used: {error}");
            // Half of it may be here.
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let _ = std::fs::remove_file(entry.path());
            }
            None
        }
    }
}

/// Patches the point ahead, for recoveries that come; `false` where that was done already.
pub fn prepare(
    context: &Context<'_>,
    wanted: &Wanted,
    source: &Source,
    key: &str,
) -> Result<(PathBuf, Option<(Patched, Inspected)>), Failure> {
    let (output, name) = place(source, wanted, key);
    let there = output.join(&name);
    if there.join(PREPARED).is_file() {
        return Ok((there, None));
    }
    let folder = Folder::begin(&output, &name, false, &[])?;
    let made = make(context, wanted, source, key, &folder.partial, true)?;
    let text = serde_json::to_string_pretty(&made.0)
        .map_err(|e| Error::corrupt(format!("what was prepared cannot be written as JSON: {e}")))?;
    write_bytes(&folder.partial, PREPARED, (text + "\n").as_bytes(), false)?;
    Ok((folder.complete(&[])?, Some(made)))
}
