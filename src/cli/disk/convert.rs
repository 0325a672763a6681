//! `landfall disk convert`

use crate::cli::args::DiskConvert;
use crate::cli::text::{print, print_json, say_error};
use crate::ops::disk::{self, Input};
use crate::ops::{Context, Failure};
use crate::report::VERSION;
use crate::report::images::{ImageConverted, ImageFailed, ImagesConverted};
use landfall_image::convert::Converted;
use landfall_image::create::{CreateOptions, FileOptions};
use landfall_image::{Error, Kind, Result, formats};
use std::path::{Path, PathBuf};

/// Converts one or many; the exit code.
pub fn run(context: &Context<'_>, args: &DiskConvert, as_json: bool) -> Result<u8> {
    let kind = args.output_format.as_deref().map(formats::kind).transpose()?;
    let options = CreateOptions {
        compression: args.compress.map(Into::into),
        level: args.level,
        block_size: args.block_size,
        extended_l2: args.extended_l2,
        preallocation: args.preallocate.into(),
        base: None,
        adapter: args.adapter.map(Into::into),
        files: FileOptions { replace: args.replace, resume: false, sync: args.sync },
        within: None,
        cancel: context.cancel.clone(),
    };
    let targets = targets(args)?;
    let several = targets.len() > 1;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (source, path) in &targets {
        let target = disk::Target {
            path,
            kind,
            options: options.clone(),
            base: args.base.as_deref().map(|base| Input::new(base, args.base_format)),
            resume: args.resume,
        };
        let input = Input { place: source, format: args.format, snapshot: args.snapshot.as_deref() };
        match disk::convert(context, input, &target) {
            Ok(converted) => {
                if !as_json {
                    print(&converted_text(path, &converted))?;
                }
                done.push(ImageConverted::from(&converted));
            }
            // With several, one that cannot be converted does not stand in the way of the others.
            Err(error) if several && error.kind() != Kind::Interrupted => {
                say_error(&error);
                failed.push((source, error));
            }
            Err(error) => return Err(error),
        }
    }
    if as_json {
        match (&done[..], several) {
            ([one], false) => print_json(one)?,
            _ => print_json(&ImagesConverted {
                version: VERSION,
                failed: failed.iter().map(|(source, error)| ImageFailed::by(source, error)).collect(),
                converted: done,
            })?,
        }
    } else if several {
        print(&format!("{} of {} images converted\n", done.len(), targets.len()))?;
    }
    Ok(failed.into_iter().map(|(_, error)| Failure::Error(error).exit_code()).max().unwrap_or(0))
}

/// Where each source goes.
fn targets(args: &DiskConvert) -> Result<Vec<(&Path, PathBuf)>> {
    let Some((target, sources)) = args.paths.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        let only = args.paths.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
        return Err(Error::refused("is the only name: it takes a source and a target")
            .in_file(only)
            .hint("landfall disk convert SOURCE TARGET"));
    };
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
