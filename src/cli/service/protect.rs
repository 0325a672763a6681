//! `landfall protect`, `landfall unprotect`, `landfall ready`

use super::shown::{count, wrapped};
use super::{Run, mirror};
use crate::cli::args::{Protect, Ready, Unprotect};
use crate::cli::text::{self, say};
use crate::hypervisor::Choice;
use crate::ops::service::{Said, variables_file, wanted};
use crate::ops::source;
use crate::report::api::{MachineShown, PointSet, SetRole, WantedRole};
use landfall_image::{Bytes, Error, Kind, Result};
use std::fmt::Write;

/// Protects a machine, or changes what is protected of it.
pub fn protect(run: &Run<'_>, args: &Protect) -> Result<u8> {
    let service = run.service(&args.at)?;
    if !args.drop_disk.is_empty() {
        let mut left = None;
        for disk in &args.drop_disk {
            left = Some(service.drop_disk(&args.name, disk)?);
        }
        if let Some(left) = left {
            run.show(&left, |left| {
                let disks: Vec<&str> = left.machine.disks.iter().map(|disk| disk.name.as_str()).collect();
                format!("{} has these disks left: {}\n", left.machine.name, disks.join(", "))
            })?;
        }
        return Ok(0);
    }
    if args.resume {
        let wanted = SetRole { role: WantedRole::Replica, point: None, holder: None };
        run.show(&service.set_role(&args.name, &wanted)?, in_words)?;
        return Ok(0);
    }
    if args.definition.is_none() && args.disk.is_empty() && args.nvram.is_none() {
        return Err(Error::refused(format!("nothing says what {} is", args.name))
            .hint("name its definition, or its disks: --disk sda=40G"));
    }
    let choice = Choice { system: args.system.clone(), ..Choice::default() };
    let chosen = source::Wanted { choice, skipped: args.skip_disk.clone(), ..source::Wanted::default() };
    let definition =
        args.definition.as_ref().map(|path| source::read_alone(run.context, path, &chosen)).transpose()?;
    // Whose disks a definition may call otherwise.
    let protected = match definition.as_ref().map(|_| service.machine(&args.name)) {
        Some(Ok(there)) => there.machine.disks.into_iter().map(|disk| (disk.name, disk.size)).collect(),
        Some(Err(error)) if error.kind() != Kind::Refused => return Err(error),
        Some(Err(_)) | None => Vec::new(),
    };
    if let Some((disk, name)) = args.placed.first().filter(|_| protected.is_empty()) {
        return Err(Error::refused(format!(
            "{} is not protected yet: {disk} cannot be its {name}",
            args.name
        ))
        .hint("leave --as out"));
    }
    let said = Said {
        definition,
        disks: args.disk.clone(),
        sector: args.sector_size.as_ref().and_then(|size| size.parse().ok()),
        variables: args.nvram.as_deref().map(variables_file).transpose()?,
        protected,
        placed: args.placed.clone(),
    };
    let asked = wanted(said)?;
    if !run.as_json {
        text::findings(&asked.findings, &mut |line| say(&line));
        asked.same.iter().for_each(|line| say(line));
    }
    let shown = service.protect(&args.name, &asked.protect)?;
    run.show(&shown, in_words)?;
    Ok(0)
}

fn in_words(shown: &MachineShown) -> String {
    let machine = &shown.machine;
    let mut out = format!("{} has {} at the service:\n", machine.name, count(machine.disks.len(), "disk"));
    for disk in &machine.disks {
        let inlet = shown.receive.iter().find(|inlet| inlet.disk == disk.name);
        let uris = inlet.map(|inlet| inlet.uris.as_slice()).unwrap_or_default();
        let _ = writeln!(out, "  {}, {}", disk.name, exact(disk.size));
        for uri in uris {
            let _ = writeln!(out, "      {uri}");
        }
    }
    if !machine.defined {
        let says = format!(
            "Its definition is not known: a recovery has to guess processors, memory and cards. Name it: landfall protect {} DEFINITION",
            machine.name
        );
        out.push_str(&wrapped("", 0, &says));
    }
    out.push_str(&mirror::examples(shown));
    out
}

/// A size that can be compared with what the source says.
fn exact(size: Bytes) -> String {
    format!("{size} ({} bytes)", size.0)
}

/// Takes a machine out of the vault.
pub fn unprotect(run: &Run<'_>, args: &Unprotect) -> Result<u8> {
    let (service, name) = (run.service(&args.at)?, &args.name);
    if !args.delete_points {
        let points = service.points(name, None, None)?.points;
        let says = match (points.first(), points.last()) {
            (Some(first), Some(last)) => format!(
                "{name} has {}, from {} to {}, and all of them would be gone",
                count(points.len(), "point"),
                first.at,
                last.at
            ),
            _ => format!("{name} has no point, and what was copied of its disks would be gone"),
        };
        return Err(Error::refused(says)
            .hint(format!("say that this is meant: landfall unprotect {name} --delete-points")));
    }
    service.unprotect(name)?;
    if !run.as_json {
        text::print(&format!("{name} is not protected any longer; its points are gone.\n"))?;
    }
    Ok(0)
}

/// Says that the copies of a machine's disks are complete.
pub fn ready(run: &Run<'_>, args: &Ready) -> Result<u8> {
    let set = run.service(&args.at)?.ready(&args.name)?;
    run.show(&set, set_in_words)?;
    Ok(0)
}

/// A point that was set or named.
pub fn set_in_words(set: &PointSet) -> String {
    let tag = match (&set.point.tag, &set.was) {
        (Some(tag), Some(was)) => format!(", {tag:?}, which was {was:?}"),
        (Some(tag), None) => format!(", {tag:?}"),
        (None, Some(was)) => format!(", which is {was:?} no longer"),
        (None, None) => String::new(),
    };
    format!("Point {} of {}, {}{tag}\n", set.point.number, set.machine, set.point.at)
}
