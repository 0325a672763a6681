//! `landfall disk …`

mod check;
mod convert;

use super::args::{DiskVerb, ImageArgs};
use super::text::{print, print_json, unless_hung_up};
use crate::ops::Context;
use crate::ops::disk::{self, Info, Input, Serve};
use crate::report::VERSION;
use crate::report::images::{ImageInfo, ImageServed, ImagesCompared};
use landfall_image::partition::Table;
use landfall_image::{Error, ExtentKind, Format, Result};
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

/// Runs one of them; the exit code.
pub fn run(verb: &DiskVerb, as_json: bool, context: &Context<'_>) -> Result<u8> {
    match verb {
        DiskVerb::Info { image, digest } => {
            let info = disk::info(context, input(image), *digest)?;
            match as_json {
                true => print_json(&info_document(&info))?,
                false => print(&info_text(&info))?,
            }
            Ok(0)
        }
        DiskVerb::Map { image } => unless_hung_up(map(context, input(image), as_json)).map(|()| 0),
        DiskVerb::Convert(args) => convert::run(context, args, as_json),
        DiskVerb::Check { images, format, read } => check::run(context, images, *format, *read, as_json),
        DiskVerb::Serve { image, socket, listen, export, once } => {
            let how = Serve {
                socket: socket.as_deref(),
                address: *listen,
                export: export.clone(),
                tls: context.nbd.tls.certificate.is_some().then(|| context.nbd.tls.clone()),
                once: *once,
            };
            let served = disk::serve(context, input(image), &how)?;
            match as_json {
                true => print_json(&ImageServed {
                    version: VERSION,
                    requests: served.requests,
                    read: served.read,
                })?,
                false => print(&format!("{} read in {} requests\n", served.read, served.requests))?,
            }
            Ok(0)
        }
        DiskVerb::Compare { first, second, format, second_format, strict } => {
            compare(context, first, second, [*format, *second_format], *strict, as_json)
        }
    }
}

fn input(args: &ImageArgs) -> Input<'_> {
    Input { place: &args.image, format: args.format, snapshot: args.snapshot.as_deref() }
}

fn compare(
    context: &Context<'_>,
    first: &Path,
    second: &Path,
    formats: [Option<Format>; 2],
    strict: bool,
    as_json: bool,
) -> Result<u8> {
    let inputs = [Input::new(first, formats[0]), Input::new(second, formats[1])];
    let result = disk::compare(context, inputs[0], inputs[1])?;
    let same = if strict { result.is_identical() } else { result.is_same_content() };
    if as_json {
        print_json(&ImagesCompared {
            version: VERSION,
            same,
            sizes: [result.sizes.0, result.sizes.1],
            first_difference: result.first_difference,
        })?;
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

fn info_document(info: &Info) -> ImageInfo {
    ImageInfo {
        version: VERSION,
        format: info.image.layers.first().map(|layer| layer.format),
        virtual_size: info.image.disk.size(),
        sector_size: info.image.disk.sector_size(),
        layers: info.image.layers.clone(),
        partitions: info.partitions.as_ref().map(Into::into),
        partition_error: info.partition_error.as_ref().map(ToString::to_string),
        content_digest: info.digest.clone(),
    }
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

fn map(context: &Context<'_>, image: Input<'_>, as_json: bool) -> Result<()> {
    let image = disk::open(context, image)?;
    let out = std::io::stdout();
    let mut out = std::io::BufWriter::new(out.lock());
    let cannot = |e| Error::io("cannot write the map", e);
    // A map can be long: it is written as it is found, never held.
    if as_json {
        write!(out, "{{\"version\": {}, \"virtual_size\": {}, \"extents\": [", VERSION, image.disk.size().0)
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
