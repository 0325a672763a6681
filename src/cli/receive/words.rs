//! What was received and exported, for people.

use crate::cli::service::{count, wrapped};
use crate::hypervisor::text::shell_word;
use crate::receive::content::Counts;
use crate::receive::digest::Verdict;
use crate::receive::folder::manifest::Manifest;
use crate::receive::folder::{Became, Taken, Trouble};
use crate::receive::pull::Extent;
use crate::receive::send::Held;
use crate::report::receiving::{PointExported, Pulled, ReceivedStreams, Scanned};
use landfall_image::Bytes;
use std::fmt::Write;
use std::path::Path;

/// What a machine holds of another landfall.
pub fn held(held: &Held) -> String {
    match (&held.unfinished, &held.holds, &held.why) {
        (Some(sent), ..) => format!("A send of {sent} into {} is under way.\n", held.machine),
        (None, Some(sent), _) => format!("{} holds {sent}; no send is under way.\n", held.machine),
        (None, None, why) => format!(
            "No send into {} is under way; {}.\n",
            held.machine,
            why.as_deref().unwrap_or("it holds nothing of another landfall")
        ),
    }
}

fn points(machine: &str, points: &[u64]) -> String {
    match points {
        [] => format!("{machine} had all of it already; no point was set.\n"),
        [point] => format!("Point {point} of {machine}\n"),
        [first, .., last] => format!("{} of {machine}, {first} to {last}\n", count(points.len(), "point")),
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Matched => "its SHA-256 matched",
        Verdict::Differed => "its SHA-256 DIFFERED",
        Verdict::CouldNotRun => "no SHA-256 came with it: not compared",
    }
}

fn size(size: (Option<Bytes>, Bytes)) -> String {
    match size {
        (Some(before), now) if before != now => format!("{now} (was {before})"),
        (_, now) => now.to_string(),
    }
}

fn counts(counts: &Counts) -> String {
    let zeroed =
        if counts.zeroed > 0 { format!(", {} became zeros", Bytes(counts.zeroed)) } else { String::new() };
    format!("{} compared, {} written{zeroed}", Bytes(counts.compared), Bytes(counts.written))
}

/// Streams of RBD.
pub fn streams(received: &ReceivedStreams) -> String {
    let outcome = &received.outcome;
    let mut out = points(outcome.machine.as_str(), &outcome.points);
    if outcome.is_new {
        let says = format!(
            "{0} was not there: it was made. Its definition is not known: landfall protect {0} DEFINITION",
            shell_word(outcome.machine.as_str())
        );
        out.push_str(&wrapped("", 2, &says));
    }
    for disk in &outcome.disks {
        let at = match (&disk.snapshot, disk.is_head) {
            (Some(snapshot), false) => format!("at the snapshot {snapshot:?}"),
            (Some(snapshot), true) => format!("the image itself, after the snapshot {snapshot:?}"),
            (None, _) => "the image itself, without a snapshot".to_owned(),
        };
        let _ = writeln!(out, "  {}, {}, {at}", disk.disk, size(disk.size));
        if disk.was_there {
            let _ = writeln!(out, "      it held this stream already");
        } else {
            let _ = writeln!(out, "      {}", counts(&disk.counts));
        }
        let _ = writeln!(out, "      {}", verdict(disk.verdict));
        if disk.is_head {
            out.push_str(&wrapped(
                "",
                6,
                "unless its machine was off, the image changed while it was read: send snapshots (rbd snap create, rbd export-diff POOL/IMAGE@SNAPSHOT)",
            ));
        }
    }
    out
}

/// Disks that were pulled.
pub fn pulled(pulled: &Pulled) -> String {
    let outcome = &pulled.outcome;
    let mut out = format!("Point {} of {}\n", outcome.point, outcome.machine);
    for disk in &outcome.disks {
        let _ = writeln!(out, "  {}, {}", disk.disk, size(disk.size));
        match &disk.read {
            Extent::Changed { bytes } => {
                let _ = writeln!(out, "      read what has changed, by its bitmap: {}", Bytes(*bytes));
            }
            Extent::Whole { why } => out.push_str(&wrapped("", 6, &format!("read as a whole: {why}"))),
        }
        let _ = writeln!(out, "      {}", counts(&disk.counts));
    }
    out
}

/// A folder that was looked at.
pub fn scanned(scanned: &Scanned) -> String {
    if scanned.drops.is_empty() {
        return format!("Nothing new lies in {}.\n", scanned.folder);
    }
    let mut out = String::new();
    for drop in &scanned.drops {
        let place = drop.drop.strip_prefix(&scanned.folder).unwrap_or(&drop.drop).display();
        let says = drop.says().unwrap_or_default();
        match &drop.became {
            Became::Taken(done) => taken(
                &place.to_string(),
                drop.machine.as_ref().map_or("", |name| name.as_str()),
                done,
                &mut out,
            ),
            Became::Waiting { why } => out.push_str(&wrapped("", 0, &format!("waits: {place}: {why}"))),
            Became::Refused(trouble) => refused(&format!("REFUSED: {place}: {says}"), trouble, &mut out),
            Became::Failed(trouble) => {
                refused(&format!("FAILED, is tried again: {place}: {says}"), trouble, &mut out);
            }
        }
    }
    out
}

fn taken(place: &str, machine: &str, done: &Taken, out: &mut String) {
    let was_there = if done.was_there { ", which was there already" } else { "" };
    let _ = writeln!(out, "taken: {place}: point {} of {machine}{was_there}", done.point);
    for disk in &done.disks {
        let kind = if disk.is_delta { "a delta" } else { "all of it" };
        let _ = writeln!(out, "  {}, {}, from {} ({kind})", disk.disk, size(disk.size), disk.file);
        let _ = writeln!(out, "      {}", counts(&disk.counts));
    }
    let says = match done.verdict {
        Verdict::Matched => "its files are as its manifest says",
        Verdict::Differed => "its files DIFFER from its manifest",
        Verdict::CouldNotRun => "it has no manifest: its files were not compared",
    };
    let _ = writeln!(out, "  {says}; it lies in {} now", done.place.display());
    for note in &done.notes {
        out.push_str(&wrapped("  note: ", 8, note));
    }
}

fn refused(says: &str, trouble: &Trouble, out: &mut String) {
    out.push_str(&wrapped("", 0, says));
    if let Some(remedy) = &trouble.remedy {
        out.push_str(&wrapped("  fix: ", 7, remedy));
    }
}

/// A drop that was sealed.
pub fn sealed(path: &Path, manifest: &Manifest) -> String {
    format!(
        "{} names {} with {} digest{}; move the folder to the watched one now.\n",
        path.display(),
        count(manifest.files.len(), "file"),
        if manifest.files.len() == 1 { "its" } else { "their" },
        if manifest.files.len() == 1 { "" } else { "s" },
    )
}

/// A point that was exported.
pub fn exported(done: &PointExported, file: Option<&Path>) -> String {
    let from = match (done.since, &done.from_snapshot) {
        (Some(point), Some(name)) => format!("from point {point} (snapshot {name:?}) "),
        _ => String::new(),
    };
    let mut out = format!(
        "{}/{} {from}to point {} (snapshot {:?}), {}\n  SHA-256 {}\n",
        done.machine, done.disk, done.point, done.to_snapshot, done.length, done.sha256
    );
    if let Some(exported) = &done.exported {
        let _ = writeln!(out, "  {} of data, {} become zeros", exported.data, exported.zeros);
    }
    if let Some(file) = file {
        let _ = writeln!(out, "  {0}; its digest is in {0}.sha256", file.display());
    }
    out
}
