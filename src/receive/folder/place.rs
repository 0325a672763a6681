//! What is written beside drops, and where they go when they were taken. Whatever lies there already is somebody's: names that we write
//! under are made anew and never followed, and nothing is deleted but our own notes.

use super::inventory::{DONE, Inventory, OURS, REFUSED};
use super::{DONE_DIR, Trouble};
use crate::name::Name;
use crate::receive::digest::{Sum, Verdict};
use landfall_image::{Error, Result};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Names beside one that is taken already.
const TRIES: usize = 1000;
/// What the line begins with that tells which files were taken.
const MARK: &str = "files: ";

fn failed(doing: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |error| {
        Error::io(doing.to_owned(), error)
            .in_file(path)
            .hint("let the user that landfall runs as write to the watched folder: drops are moved, and notes are written")
    }
}

/// A small file, whatever was there before.
fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    let is_same = fs::symlink_metadata(&path)
        .is_ok_and(|meta| meta.is_file() && meta.len() == text.len() as u64)
        && fs::read(&path).is_ok_and(|found| found == text.as_bytes());
    if is_same {
        return Ok(());
    }
    let new = folder.join(format!("._{name}"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("cannot write", &new)(error)),
        _ => {}
    }
    let file = fs::OpenOptions::new().write(true).create_new(true).open(&new);
    file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })
    .and_then(|()| fs::rename(&new, &path))
    .map_err(failed("cannot write", &path))
}

/// Says in a drop's folder why it is refused.
pub fn refuse(drop: &Path, trouble: &Trouble) -> Result<()> {
    let mut text = format!("landfall did not take what lies here.\n\nWhat is wrong:\n  {}\n", trouble.says);
    if let Some(remedy) = &trouble.remedy {
        text += &format!("\nWhat fixes it:\n  {remedy}\n");
    }
    text += match trouble.verdict {
        Verdict::Matched => "\nAll files are as their manifest says.\n",
        Verdict::Differed => "\nFiles are not as their manifest says.\n",
        Verdict::CouldNotRun => "\nFiles were not compared with a manifest.\n",
    };
    text += "\nNothing was changed. It is tried again by itself.\n";
    write(drop, REFUSED, &text)
}

/// Takes back what was said of a drop.
pub fn clear(drop: &Path) -> Result<()> {
    let path = drop.join(REFUSED);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("cannot remove", &path)(error)),
        _ => Ok(()),
    }
}

/// Whether a drop that stays in its place was taken with these files.
pub fn is_done(drop: &Path, fingerprint: Sum) -> bool {
    let path = drop.join(DONE);
    let is_ours = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() < 4096);
    let text = if is_ours { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
    text.lines().any(|line| line.strip_prefix(MARK) == Some(&fingerprint.to_string()))
}

/// Whether a drop could be put away afterwards. Asked before anything of it is taken.
pub fn check(watched: &Path, drop: &Path, keep: bool) -> Result<()> {
    let probe = if keep { drop.to_owned() } else { made(watched, &[DONE_DIR])? };
    let path = probe.join("._landfall");
    let _ = fs::remove_file(&path);
    let file = fs::OpenOptions::new().write(true).create_new(true).open(&path);
    file.and_then(|_| fs::remove_file(&path)).map_err(failed("cannot be written to", &probe))?;
    if keep {
        return Ok(());
    }
    // A folder is moved by who may write to the one that it lies in.
    let above = drop.parent().unwrap_or(watched);
    let path = above.join("._landfall");
    let _ = fs::remove_file(&path);
    let file = fs::OpenOptions::new().write(true).create_new(true).open(&path);
    file.and_then(|_| fs::remove_file(&path)).map_err(failed("cannot be written to", above))
}

/// A folder below the watched one. Each part of the way is a folder itself, and no link.
fn made(watched: &Path, parts: &[&str]) -> Result<PathBuf> {
    let mut path = watched.to_owned();
    for part in parts {
        path.push(part);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(failed("cannot be made", &path)(error));
            }
            _ => {}
        }
        if !fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            return Err(Error::refused("is no folder").in_file(&path).hint("rename what lies there"));
        }
    }
    Ok(path)
}

fn sync(folder: &Path) -> Result<()> {
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("cannot sync the folder", folder))
}

/// Puts away a drop that was taken: where it is now.
pub fn put_away(
    watched: &Path,
    machine: &Name,
    inventory: &Inventory,
    point: u64,
    keep: bool,
) -> Result<PathBuf> {
    let drop = &inventory.root;
    clear(drop)?;
    if keep {
        let text = format!(
            "landfall has taken what lies here, as point {point} of {machine}.\nIt can be deleted.\n\n{MARK}{}\n",
            inventory.fingerprint()
        );
        write(drop, DONE, &text)?;
        sync(drop)?;
        return Ok(drop.clone());
    }
    let done = made(watched, &[DONE_DIR, machine.as_str()])?;
    let is_whole_folder = drop.parent() == Some(watched);
    let name = match drop.file_name().and_then(|name| name.to_str()).filter(|_| !is_whole_folder) {
        Some(name) => name.to_owned(),
        None => format!("point-{point}"),
    };
    let mut to = done.join(&name);
    for number in 2..TRIES {
        // An empty folder of that name would be replaced.
        if fs::symlink_metadata(&to).is_err() {
            break;
        }
        to = done.join(format!("{name}-{number}"));
    }
    if fs::symlink_metadata(&to).is_ok() {
        return Err(Error::refused("is there already").in_file(&to).hint("tidy up the folder .done"));
    }
    fs::rename(drop, &to).map_err(failed("cannot be moved to .done", drop))?;
    give_back(&to, drop, inventory)?;
    sync(&done)?;
    sync(drop.parent().unwrap_or(watched))?;
    Ok(to)
}

/// What came into the folder since it was looked at, and was moved with it, goes back to where it was put.
fn give_back(to: &Path, drop: &Path, inventory: &Inventory) -> Result<()> {
    let entries = fs::read_dir(to).map_err(failed("cannot be listed", to))?;
    for entry in entries {
        let entry = entry.map_err(failed("cannot be listed", to))?;
        let name = entry.file_name();
        let is_taken = name.to_str().is_some_and(|name| {
            let below = format!("{name}/");
            OURS.contains(&name)
                || inventory.entry(name).is_some()
                || inventory.entries.iter().any(|entry| entry.path.starts_with(&below))
        });
        let is_litter = name.to_str().is_some_and(|name| super::named(name) == super::Named::Apart);
        if is_taken || is_litter || entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        match fs::create_dir(drop) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(failed("cannot be made", drop)(error));
            }
            _ => {}
        }
        let back = drop.join(&name);
        fs::rename(entry.path(), &back).map_err(failed("cannot be moved back", &back))?;
    }
    Ok(())
}
