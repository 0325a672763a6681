//! Patterns of a fleet file: `*` and `?` stand for any characters but `/`. Hidden files are found by none.

use super::file::Checked;
use crate::ops::toml_file::wrong;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Files that one pattern finds, at most.
const FOUND_AT_MOST: usize = 100_000;

/// The files that a pattern finds, in the order of their names; the path itself where it has no `*` or `?`.
pub(super) fn find(folder: &Path, source: &Spanned<String>) -> Checked<Vec<PathBuf>> {
    let text = source.get_ref();
    let at = source.span().start;
    if text.trim().is_empty() {
        return Err(wrong(at, "source is empty"));
    }
    if !text.contains(['*', '?']) {
        return Ok(vec![folder.join(text)]);
    }
    let mut found = vec![match text.starts_with('/') {
        true => PathBuf::from("/"),
        false => folder.to_owned(),
    }];
    for part in text.split('/').filter(|part| !part.is_empty()) {
        if !part.contains(['*', '?']) {
            for path in &mut found {
                path.push(part);
            }
            found.retain(|path| path.symlink_metadata().is_ok());
            continue;
        }
        let mut below = Vec::new();
        for path in &found {
            let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            let Ok(entries) = std::fs::read_dir(here) else { continue };
            let mut names: Vec<_> =
                entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
            // A hidden file is none that a person means.
            names.retain(|name| !name.starts_with('.') && landfall_boot::network_map::fits(part, name));
            names.sort();
            below.extend(names.into_iter().map(|name| path.join(name)));
            if below.len() > FOUND_AT_MOST {
                return Err(wrong(at, format!("{text:?} finds more than {FOUND_AT_MOST} files")));
            }
        }
        found = below;
    }
    if found.is_empty() {
        // The folder of a bare file name is empty.
        let folder = if folder == Path::new("") { Path::new(".") } else { folder };
        return Err(wrong(at, format!("nothing is found by {text:?}"))
            .hint(format!("look into {}; paths are relative to the file's folder", folder.display())));
    }
    Ok(found)
}
