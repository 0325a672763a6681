//! `landfall disk …`

use super::args::{DiskConvert, DiskVerb};
use super::text::{print, print_json, unless_hung_up};
use crate::ops::Context;
use crate::ops::disk::{self, Info};
use crate::report;
use landfall_image::check::Severity;
use landfall_image::convert::Converted;
use landfall_image::create::{CreateOptions, FileOptions};
use landfall_image::formats;
use landfall_image::partition::Table;
use landfall_image::{Error, ExtentKind, Format, Result};
use serde_json::json;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Runs one of them; the exit code.
pub fn run(verb: &DiskVerb, as_json: bool, context: &Context<'_>) -> Result<u8> {
    match verb {
        DiskVerb::Info { image, format, digest } => {
            let info = disk::info(context, image, *format, *digest)?;
            match as_json {
                true => print_json(&info_json(&info))?,
                false => print(&info_text(&info))?,
            }
            Ok(0)
        }
        DiskVerb::Map { image, format } => unless_hung_up(map(context, image, *format, as_json)).map(|()| 0),
        DiskVerb::Convert(args) => convert(context, args, as_json),
        DiskVerb::Check { images, format, read } => check(context, images, *format, *read, as_json),
        DiskVerb::Compare { first, second, format, second_format, strict } => {
            compare(context, first, second, [*format, *second_format], *strict, as_json)
        }
    }
}

/// Where each source goes.
fn targets<'a>(args: &'a DiskConvert) -> Result<Vec<(&'a Path, PathBuf)>> {
    let Some((target, sources)) = args.paths.split_last() else { return Ok(Vec::new()) };
    if let [source] = sources
        && !target.is_dir()
    {
        return Ok(vec![(source, target.clone())]);
    }
    if !target.is_dir() {
        return Err(Error::refused(format!("is no folder; {} images cannot become one file", sources.len()))
            .in_file(target)
            .hint("create the folder first, or convert one image at a time"));
    }
    let Some(kind) = &args.output_format else {
        return Err(Error::refused("says nothing of the kind of image that is wanted")
            .in_file(target)
            .hint("name it with -O"));
    };
    let kind = formats::kind(kind)?;
    let mut out: Vec<(&Path, PathBuf)> = Vec::new();
    for source in sources {
        let to = disk::target_in(target, source, kind);
        if let Some((other, _)) = out.iter().find(|(_, taken)| *taken == to) {
            let says = format!("would be written from {} and from {}", other.display(), source.display());
            return Err(Error::refused(says)
                .in_file(&to)
                .hint("convert one of them on its own, to another name"));
        }
        out.push((source, to));
    }
    Ok(out)
}

fn convert(context: &Context<'_>, args: &DiskConvert, as_json: bool) -> Result<u8> {
    let kind = args.output_format.as_deref().map(formats::kind).transpose()?;
    let options = CreateOptions {
        compression: args.compress.map(Into::into),
        level: args.level,
        block_size: args.block_size,
        extended_l2: args.extended_l2,
        preallocation: args.preallocate.into(),
        base: None,
        adapter: None,
        files: FileOptions { replace: args.replace, resume: false, sync: args.sync },
        within: None,
    };
    let targets = targets(args)?;
    let several = targets.len() > 1;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (source, path) in &targets {
        let target = disk::Target {
            path,
            kind,
            options: options.clone(),
            base: args.base.as_deref().map(|base| (base, args.base_format)),
            resume: args.resume,
        };
        match disk::convert(context, source, args.format, &target) {
            Ok(converted) => {
                if !as_json {
                    print(&converted_text(path, &converted))?;
                }
                done.push(converted_json(&converted));
            }
            // With several, one that cannot be converted does not stand in the way of the others.
            Err(error) if several && error.kind() != landfall_image::Kind::Interrupted => {
                super::text::say_error(&error);
                failed.push((source, error));
            }
            Err(error) => return Err(error),
        }
    }
    if as_json {
        match (&done[..], several) {
            ([one], false) => print_json(one)?,
            _ => print_json(&json!({
                "version": report::VERSION,
                "converted": done,
                "failed": failed.iter().map(|(source, error)| json!({
                    "source": source,
                    "error": error.to_string(),
                    "hint": error.hint_text(),
                })).collect::<Vec<_>>(),
            }))?,
        }
    } else if several {
        print(&format!("{} of {} images converted\n", done.len(), targets.len()))?;
    }
    Ok(failed.into_iter().map(|(_, error)| crate::ops::Failure::Error(error).exit_code()).max().unwrap_or(0))
}

fn converted_json(done: &Converted) -> serde_json::Value {
    json!({
        "version": report::VERSION,
        "files": done.receipt.files,
        "virtual_size": done.size,
        "data": done.copied,
        "resumed": done.resumed,
        "allocated": done.receipt.allocated,
        "content_digest": done.digest.to_hex().as_str(),
    })
}

fn converted_text(path: &Path, done: &Converted) -> String {
    let resumed = match done.resumed.0 {
        0 => String::new(),
        _ => format!(" ({} of it from the interrupted run)", done.resumed),
    };
    format!(
        "{}: a disk of {}, {} of it data{resumed}, {} on the host\ncontent digest {}\n",
        path.display(),
        done.size,
        done.copied,
        done.receipt.allocated,
        done.digest.to_hex()
    )
}

fn check(
    context: &Context<'_>,
    images: &[PathBuf],
    format: Option<Format>,
    read: bool,
    as_json: bool,
) -> Result<u8> {
    let mut all = Vec::new();
    let mut worst = 0;
    for image in images {
        let (layers, digest) = match disk::check(context, image, format, read) {
            Ok(checked) => checked,
            Err(error) if images.len() > 1 && error.kind() != landfall_image::Kind::Interrupted => {
                super::text::say_error(&error);
                worst = worst.max(crate::ops::Failure::Error(error).exit_code());
                continue;
            }
            Err(error) => return Err(error),
        };
        for (path, format, checked) in &layers {
            let Some(checked) = checked else {
                if !as_json {
                    print(&format!("{}: {} has no structures to check\n", path.display(), format.name()))?;
                }
                continue;
            };
            let [notes, leaks, corruptions] = checked.counts;
            if corruptions > 0 {
                worst = worst.max(1);
            }
            if as_json {
                continue;
            }
            for problem in &checked.problems {
                let what = match problem.severity {
                    Severity::Note => "note",
                    Severity::Leak => "leak",
                    Severity::Corrupt => "CORRUPT",
                };
                let at = problem.at.map(|at| format!(" at {:#x}", at.0)).unwrap_or_default();
                print(&format!("{}: {what}{at}: {}\n", path.display(), problem.says))?;
            }
            let told = checked.problems.len() as u64;
            if notes + leaks + corruptions > told {
                print(&format!("{}: and {} more\n", path.display(), notes + leaks + corruptions - told))?;
            }
            let verdict = match (corruptions, leaks) {
                (0, 0) => "no error found".to_owned(),
                (0, _) => {
                    format!("no error found; {leaks} leaks: space that nothing refers to, no data is lost")
                }
                _ => format!("{corruptions} errors: do not trust this image; take another copy of it"),
            };
            print(&format!(
                "{}: {}, {} allocated: {verdict}\n",
                path.display(),
                format.name(),
                checked.allocated
            ))?;
        }
        if let Some(digest) = &digest
            && !as_json
        {
            print(&format!("{}: all data can be read, content digest {digest}\n", image.display()))?;
        }
        all.push(json!({
            "image": image,
            "layers": layers.iter().map(|(path, format, checked)| json!({
                "path": path, "format": format, "checked": checked,
            })).collect::<Vec<_>>(),
            "content_digest": digest,
        }));
    }
    if as_json {
        print_json(&json!({ "version": report::VERSION, "images": all }))?;
    }
    Ok(worst)
}

fn compare(
    context: &Context<'_>,
    first: &Path,
    second: &Path,
    formats: [Option<Format>; 2],
    strict: bool,
    as_json: bool,
) -> Result<u8> {
    let result = disk::compare(context, first, second, formats)?;
    let same = if strict { result.is_identical() } else { result.is_same_content() };
    if as_json {
        print_json(&json!({
            "version": report::VERSION,
            "same": same,
            "sizes": [result.sizes.0, result.sizes.1],
            "first_difference": result.first_difference,
        }))?;
    } else if let Some(at) = result.first_difference {
        print(&format!("The disks differ, first at guest offset {} ({:#x}).\n", at.0, at.0))?;
    } else if !result.is_identical() {
        print(&format!(
            "The disks hold the same; {} bytes and {} bytes are their sizes, the longer one ends in zeros.\n",
            result.sizes.0.0, result.sizes.1.0
        ))?;
    } else {
        print("The disks are identical.\n")?;
    }
    Ok(u8::from(!same))
}

fn info_json(info: &Info) -> serde_json::Value {
    json!({
        "version": report::VERSION,
        "format": info.image.layers.first().map(|layer| layer.format),
        "virtual_size": info.image.disk.size(),
        "sector_size": info.image.disk.sector_size(),
        "layers": info.image.layers,
        "partitions": info.partitions.as_ref().map(table_json),
        "partition_error": info.partition_error.as_ref().map(ToString::to_string),
        "content_digest": info.digest,
    })
}

fn info_text(info: &Info) -> String {
    let mut out = String::new();
    let disk = &info.image.disk;
    for (depth, layer) in info.image.layers.iter().enumerate() {
        let what = if depth == 0 { "image" } else { "parent" };
        let _ = writeln!(out, "{what}: {}", layer.path.display());
        if layer.format.name() == layer.variant {
            let _ = writeln!(out, "  format: {}", layer.format.name());
        } else {
            let _ = writeln!(out, "  format: {} ({})", layer.format.name(), layer.variant);
        }
        let _ = writeln!(out, "  on the host: {}", layer.allocated);
        for (name, value) in &layer.details {
            let _ = writeln!(out, "  {name}: {value}");
        }
        for file in &layer.files {
            let _ = writeln!(out, "  file: {}", file.display());
        }
    }
    let _ = writeln!(
        out,
        "size: {} ({} bytes), sectors of {} bytes",
        disk.size(),
        disk.size().0,
        disk.sector_size().0
    );
    match (&info.partitions, &info.partition_error) {
        (_, Some(error)) => out.push_str(&format!("partitions: {error}\n")),
        (None, None) => out.push_str("partitions: none\n"),
        (Some(table), None) => table_text(&mut out, table),
    }
    if let Some(digest) = &info.digest {
        let _ = writeln!(out, "content digest: {digest}");
    }
    out
}

fn table_text(out: &mut String, table: &Table) {
    let _ = writeln!(out, "partitions: {:?}, disk id {}", table.scheme, table.disk_id);
    for entry in &table.entries {
        let boot = if entry.bootable { ", bootable" } else { "" };
        let name = if entry.name.is_empty() { String::new() } else { format!(", {:?}", entry.name) };
        let _ = writeln!(
            out,
            "  {}: {} from {}, type {}{boot}{name}",
            entry.number,
            entry.range.len(),
            entry.range.start().0,
            entry.kind
        );
    }
    for note in &table.notes {
        let _ = writeln!(out, "  note: {note}");
    }
}

fn table_json(table: &Table) -> serde_json::Value {
    let entries: Vec<_> = table
        .entries
        .iter()
        .map(|entry| {
            json!({
                "number": entry.number,
                "start": entry.range.start(),
                "length": entry.range.len(),
                "type": entry.kind.to_string(),
                "part_uuid": entry.part_uuid,
                "name": entry.name,
                "bootable": entry.bootable,
                "attributes": entry.attributes,
            })
        })
        .collect();
    json!({
        "scheme": table.scheme,
        "disk_id": table.disk_id,
        "sector_size": table.sector_size,
        "entries": entries,
        "notes": table.notes,
    })
}

fn map(context: &Context<'_>, image: &Path, format: Option<Format>, as_json: bool) -> Result<()> {
    let image = disk::open(context, image, format)?;
    let out = std::io::stdout();
    let mut out = std::io::BufWriter::new(out.lock());
    let cannot = |e| Error::io("cannot write the map", e);
    // A map can be long: it is written as it is found, never held.
    if as_json {
        write!(
            out,
            "{{\"version\": {}, \"virtual_size\": {}, \"extents\": [",
            report::VERSION,
            image.disk.size().0
        )
        .map_err(cannot)?;
    } else {
        writeln!(out, "{:>20} {:>20}  kind", "start", "length").map_err(cannot)?;
    }
    let mut first = true;
    disk::map(context, &*image.disk, |extent| {
        let (start, length) = (extent.range.start().0, extent.range.len().0);
        let kind = match extent.kind {
            ExtentKind::Data => "data",
            ExtentKind::Zero => "zero",
            ExtentKind::Unallocated => "unallocated",
        };
        let line = if as_json {
            let comma = if std::mem::take(&mut first) { "" } else { "," };
            write!(out, "{comma}\n  {{\"start\": {start}, \"length\": {length}, \"kind\": \"{kind}\"}}")
        } else {
            writeln!(out, "{start:>20} {length:>20}  {kind}")
        };
        line.map_err(cannot)
    })?;
    if as_json {
        writeln!(out, "\n]}}").map_err(cannot)?;
    }
    out.flush().map_err(cannot)
}
