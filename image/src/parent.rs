//! Where the parent of a differencing image lies: a snapshot's base, the template of a linked clone.
//!
//! An image names its parent by paths of the host that it was made on. They are tried as they stand, as far as the gate
//! allows; then a file of that name is looked for in the folders that the user allowed. What is found is the parent only if
//! it has the identity that the child records ([`chain`](crate::chain) compares it); qcow2 records none.

use crate::chain::ParentRef;
use crate::error::{Error, Kind, Result};
use crate::gate::{Gate, normalise};
use crate::source::Source;
use std::path::Path;

/// A parent that was found.
pub(crate) struct Found {
    pub(crate) source: Source,
    /// By its file name alone: see [`LayerInfo::by_name`](crate::formats::LayerInfo::by_name).
    pub(crate) by_name: bool,
}

/// The parent that `reference` names, tried in the order in which the image lists its names.
///
/// # Errors
/// Refused where its name leads out of the folder, or where it lies in several allowed folders; I/O where it is not there. What
/// was tried and how another place is named stands in the error.
pub(crate) fn find(child: &Path, reference: &ParentRef, gate: &Gate) -> Result<Found> {
    let own = child.canonicalize().ok();
    let is_child = |path: &Path| own.is_some() && path.canonicalize().ok() == own;
    let mut first_error = None;
    let mut itself = None;
    for name in &reference.names {
        match gate.open(child, name) {
            // A clone may have its template's file name.
            Ok(source) if is_child(source.path()) => itself = Some(source),
            Ok(source) => return Ok(Found { source, by_name: false }),
            Err(error) if error.kind() == Kind::Corrupt => return Err(error),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    let mut elsewhere = Vec::new();
    for path in reference.names.iter().flat_map(|name| gate.in_allowed(last(name))) {
        if !is_child(&path) && !elsewhere.contains(&path) {
            elsewhere.push(path);
        }
    }
    match (elsewhere.as_slice(), itself, first_error) {
        ([only], _, _) => Ok(Found { source: Source::open(only)?, by_name: reference.identities.is_empty() }),
        ([], Some(source), _) => Ok(Found { source, by_name: false }),
        ([], None, Some(error)) => Err(not_found(child, reference, gate, &error)),
        ([], None, None) => Err(Error::corrupt("needs a parent but names none").in_file(child)),
        (several, _, _) => {
            let paths: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            Err(Error::refused(format!("its parent may be any of {}", paths.join(", ")))
                .in_file(child)
                .hint("allow one folder only, the one with the right parent"))
        }
    }
}

fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn not_found(child: &Path, reference: &ParentRef, gate: &Gate, first: &Error) -> Error {
    let name = reference.names.first().map_or("", String::as_str);
    let folder = child.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut tried: Vec<String> = Vec::new();
    // A path of Windows leads nowhere here.
    let here = reference.names.iter().filter(|name| !name.contains(":/")).map(|name| folder.join(name));
    for path in here.chain(gate.allowed().iter().map(|folder| folder.join(last(name)))) {
        let path = normalise(&path).display().to_string();
        if !tried.contains(&path) {
            tried.push(path);
        }
    }
    let is_outside = first.kind() == Kind::Refused;
    let why = match first.io_error() {
        Some(error) => format!("which cannot be opened ({error})"),
        None => "which leads outside of its folder".to_owned(),
    };
    let says = format!(
        "is a differencing image (a snapshot or a linked clone) over {name:?}, {why}; looked at {}",
        tried.join(", ")
    );
    let named = normalise(&folder.join(name));
    let named = named.parent().filter(|_| is_outside).map(|folder| {
        format!("; if you trust the image, that may be the folder that it names, {}", folder.display())
    });
    Error::new(first.kind(), says).in_file(child).hint(format!(
        "put {} and the files that it names beside the image, or name the folder in which they lie with --allow FOLDER{}",
        last(name),
        named.unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn reference(names: &[&str], identity: bool) -> ParentRef {
        ParentRef {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            format: None,
            identities: identity.then(|| "id".to_owned()).into_iter().collect(),
            same_sectors: false,
        }
    }

    #[test]
    fn a_parent_is_found_where_the_user_says() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for file in ["vm/disk", "a/disk", "a/base", "b/base"] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), b"x").unwrap();
        }
        let child = root.join("vm/disk");
        let none = Gate::own_folder();
        let a = none.clone().allow(&root.join("a")).unwrap();
        let both = a.clone().allow(&root.join("b")).unwrap();
        let path = |names: &[&str], identity, gate: &Gate| {
            find(&child, &reference(names, identity), gate)
                .map(|found| (found.source.path().to_owned(), found.by_name))
        };
        assert_eq!(path(&["/gone/base"], true, &a).unwrap(), (root.join("a/base"), false));
        assert_eq!(path(&["/gone/base"], false, &a).unwrap(), (root.join("a/base"), true));
        assert_eq!(
            path(&["../a/base"], false, &a).unwrap(),
            (root.join("a/base"), false),
            "it is there by its path"
        );
        assert_eq!(
            path(&["/gone/disk", "disk"], true, &a).unwrap(),
            (root.join("a/disk"), false),
            "not the child itself"
        );
        assert_eq!(path(&["disk"], true, &none).unwrap().0, child, "a loop is told as one");
        let error = path(&["/gone/base"], true, &both).unwrap_err();
        assert!(error.kind() == Kind::Refused && error.says().contains("b/base"), "{error}");
        for (names, kind, word) in [
            (&["/gone/base", "base"][..], Kind::Refused, "/gone/base, "),
            (&["./base"], Kind::Io, "vm/base"),
            (&["/gone/base"], Kind::Refused, "leads outside"),
        ] {
            let error = path(names, true, &none).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.says().contains(word) && error.says().contains("linked clone"), "{error}");
            assert!(error.hint_text().unwrap().contains("--allow FOLDER"), "{error}");
        }
        let error =
            path(&["/gone/base"], true, &Gate::own_folder().allow(&root.join("vm")).unwrap()).unwrap_err();
        assert!(error.says().contains("vm/base"), "the allowed folder is told: {error}");
    }
}
