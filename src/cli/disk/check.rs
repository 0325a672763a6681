//! `landfall disk check`

use crate::cli::text::{print, print_json, say_error};
use crate::ops::disk;
use crate::ops::{Context, Failure};
use crate::report::VERSION;
use crate::report::images::{ImageChecked, ImageFailed, ImagesChecked, LayerChecked};
use landfall_image::check::Severity;
use landfall_image::{Format, Kind, Result};
use std::path::PathBuf;

/// Checks them all; the exit code, 1 where one is damaged.
pub fn run(
    context: &Context<'_>,
    images: &[PathBuf],
    format: Option<Format>,
    read: bool,
    as_json: bool,
) -> Result<u8> {
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    let mut worst = 0;
    for image in images {
        let (layers, digest) = match disk::check(context, image, format, read) {
            Ok(checked) => checked,
            Err(error) if images.len() > 1 && error.kind() != Kind::Interrupted => {
                say_error(&error);
                failed.push(ImageFailed::by(image, &error));
                worst = worst.max(Failure::Error(error).exit_code());
                continue;
            }
            Err(error) => return Err(error),
        };
        for (path, format, checked) in &layers {
            let Some(checked) = checked else {
                if !as_json {
                    let what = match format {
                        Format::Raw => "has no structures to check",
                        // It was opened, which looks at more than nothing; more is not claimed.
                        _ => "is not checked beyond what opening it reads; --read reads all of its data",
                    };
                    print(&format!("{}: {} {what}\n", path.display(), format.name()))?;
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
        let layers = layers
            .into_iter()
            .map(|(path, format, checked)| LayerChecked { path, format, checked })
            .collect();
        all.push(ImageChecked { image: image.clone(), layers, content_digest: digest });
    }
    if as_json {
        print_json(&ImagesChecked { version: VERSION, images: all, failed })?;
    }
    Ok(worst)
}
