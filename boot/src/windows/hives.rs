//! Hives in a guest's files: opened with their logs, and rewritten with a plan's edits.
//!
//! A hive is read into memory whole, changed there and given out again only if it is valid (see [`hive`](super::hive)); the
//! guest's file is replaced in one step or not at all. Its logs stay as they are: no entry of theirs can apply any more.

use super::data::Data;
use super::hive::{Hive, limits};
use super::registry::{self, Keys, Registry, Value};
use crate::patch::RegistryEdit;
use crate::tree::GuestTree;
use crate::{Error, Kind, Result};
use std::path::Path;

/// What was replayed into a hive when it was opened, in one sentence.
pub type Replayed = Option<String>;

/// The hive in a file, with its logs replayed; `None` where there is no such file.
///
/// # Errors
/// As [`Hive::open`], with the file.
pub fn open(tree: &dyn GuestTree, path: &str) -> Result<Option<(Hive, Replayed)>> {
    let name = |error: Error| error.in_file(Path::new(path));
    let Some(bytes) = tree.read(path, limits::HIVE)? else { return Ok(None) };
    let log = |ending: &str| tree.read(&format!("{path}{ending}"), limits::HIVE);
    // Windows XP and 2003 have one log, and so has the boot configuration of later ones, with two empty files beside it. Other
    // hives have two, and an empty file of the old name.
    let first = match log(".LOG1")? {
        Some(first) if !first.is_empty() => Some(first),
        _ => log(".LOG")?,
    };
    let opened = Hive::open(bytes, first, log(".LOG2")?).map_err(name)?;
    let replayed = opened.replayed.map(|replayed| {
        let more = match replayed.left_out.is_empty() {
            true => String::new(),
            false => format!(" ({})", replayed.left_out.join("; ")),
        };
        format!(
            "{path} was not completely written: {} entries of its logs are in it now{more}.",
            replayed.entries
        )
    });
    Ok(Some((opened.hive, replayed)))
}

/// The same for a plan to read and change.
///
/// # Errors
/// As [`open`].
pub fn registry(tree: &dyn GuestTree, path: &str) -> Result<Option<(Registry, Replayed)>> {
    let Some((hive, replayed)) = open(tree, path)? else { return Ok(None) };
    Ok(Some((Registry::of_file(Box::new(hive), path), replayed)))
}

/// The whole file with the edits in it.
///
/// # Errors
/// As [`open`], or where an edit is not possible or the result is not valid; an absent file is [`Kind::Io`].
pub fn edited(tree: &dyn GuestTree, path: &str, edits: &[RegistryEdit]) -> Result<Vec<u8>> {
    let name = |error: Error| error.in_file(Path::new(path));
    let absent = || name(Error::new(Kind::Io, "the hive to edit does not exist"));
    let (mut hive, _) = open(tree, path)?.ok_or_else(absent)?;
    for edit in edits {
        registry::apply(&mut hive, edit).map_err(name)?;
    }
    hive.finish().map_err(name)
}

impl Keys for Hive {
    fn exists(&self, key: &str) -> Result<bool> {
        Ok(self.key(key)?.is_some())
    }
    fn subkeys(&self, key: &str) -> Result<Vec<String>> {
        let Some(key) = self.key(key)? else { return Ok(Vec::new()) };
        Ok(Hive::subkeys(self, key)?.into_iter().map(|(name, _)| name).collect())
    }
    fn values(&self, key: &str) -> Result<Vec<Value>> {
        let Some(key) = self.key(key)? else { return Ok(Vec::new()) };
        let values = Hive::values(self, key)?.into_iter();
        Ok(values.map(|(name, data)| Value { name, data }).collect())
    }
    fn value(&self, key: &str, name: &str) -> Result<Option<Data>> {
        let Some(key) = self.key(key)? else { return Ok(None) };
        Hive::value(self, key, name)
    }
    fn create(&mut self, key: &str) -> Result<()> {
        self.create_key(key).map(|_| ())
    }
    fn set(&mut self, key: &str, name: &str, data: &Data) -> Result<()> {
        let key = self.create_key(key)?;
        Hive::set(self, key, name, data)
    }
    fn delete_value(&mut self, key: &str, name: &str) -> Result<()> {
        let Some(key) = self.key(key)? else { return Ok(()) };
        Hive::delete_value(self, key, name).map(|_| ())
    }
    fn delete(&mut self, key: &str) -> Result<()> {
        self.delete_key(key).map(|_| ())
    }
}
