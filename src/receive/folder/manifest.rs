//! The manifest of a drop: which files belong to it, with their digests, and what a definition does not say.
//!
//! ```text
//! landfall.json     all of it
//! SHA256SUMS        digests only, as sha256sum writes them
//! NAME.sha256       the same, one file for each
//! ```
//!
//! A drop with one of them is sealed when all files that it names are there and no others: a copy that is still going on lacks some, or
//! has some whose size is not right yet.

use super::inventory::Inventory;
use crate::moment::Moment;
use crate::receive::digest::{self, Sum};
use crate::vault::journal::Consistency;
use landfall_image::{Error, Kind, Result, Source};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name of ours.
pub const OWN: &str = "landfall.json";
/// The name of one that sha256sum writes.
pub const SUMS: &str = "SHA256SUMS";
/// The ending of one for a single file.
const SUM_ENDING: &str = ".sha256";
/// Bytes of one: 10,000 files with paths of 200 bytes.
const AT_MOST: u64 = 4 << 20;

/// `landfall.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format of this file: 1.
    #[serde(rename = "landfall_drop")]
    pub format: u32,
    /// The machine, where whoever makes the drop wants that to be checked: the folder's name says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Every file of the drop but this, by its path in it.
    pub files: BTreeMap<String, File>,
    /// The moment that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<Moment>,
    /// How far that moment can be trusted.
    #[serde(default)]
    pub consistency: Consistency,
    /// A name for the point, which is kept whatever the rules of retention say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The machine's definition, where several files could be it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// The image of each disk, by the disk's name in the vault; with a definition, the disk for the image that it names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disks: BTreeMap<String, Image>,
    /// Digests of images that deltas of this drop are over and that are not in it, by their file names. For formats that have no
    /// identity of their own, such as qcow2.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parents: BTreeMap<String, Sum>,
    /// Disks of the machine that have no image here since they did not change: what the vault has of them is of this moment, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchanged: Vec<String>,
    /// Disks that the machine has no longer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

/// A file of a drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its digest.
    pub sha256: Sum,
    /// Its length in bytes, by which a copy that is not complete is known without reading it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// The image of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Image {
    /// Its path in the drop.
    File(String),
    /// The same, with its format: `raw` is not guessed from what a guest may have written.
    Of {
        /// Its path in the drop.
        file: String,
        /// Its format.
        format: String,
    },
}

impl Image {
    /// Its path in the drop.
    pub fn file(&self) -> &str {
        match self {
            Image::File(file) | Image::Of { file, .. } => file,
        }
    }

    /// Its format, where that is said.
    pub fn format(&self) -> Option<&str> {
        match self {
            Image::File(_) => None,
            Image::Of { format, .. } => Some(format),
        }
    }
}

/// How a drop is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seal {
    /// By a manifest: all of it is there.
    Manifest(Box<Manifest>),
    /// It has none: its name is all that says that it is complete.
    Name,
    /// Not yet.
    Open(String),
}

/// Reads the manifest of a drop, and looks whether all that it names is there.
///
/// # Errors
/// Refused where it is none, names what cannot be in a drop, or a file is longer than it says; as the file system's.
pub fn read(inventory: &Inventory) -> Result<Seal> {
    if let Some(path) = &inventory.partial {
        return Ok(Seal::Open(format!("{path} is still being copied")));
    }
    let manifest = if inventory.entry(OWN).is_some() {
        match own(inventory)? {
            Some(manifest) => manifest,
            None => return Ok(Seal::Open(format!("{OWN} ends in the middle"))),
        }
    } else if inventory.entry(SUMS).is_some() {
        let raw = text(inventory, SUMS)?;
        if !raw.ends_with(b"\n") {
            return Ok(Seal::Open(format!("{SUMS} ends in the middle of a line")));
        }
        let sums = digest::parse(&raw).map_err(|error| error.in_file(&inventory.place(SUMS)))?;
        of_sums(
            sums.into_iter().map(|(path, sum)| (path.strip_prefix("./").unwrap_or(&path).to_owned(), sum)),
        )
    } else {
        let mut sums = Vec::new();
        for entry in inventory.entries.iter().filter(|entry| entry.path.ends_with(SUM_ENDING)) {
            let path = entry.path.trim_end_matches(SUM_ENDING);
            let name = path.rsplit('/').next().unwrap_or(path);
            let sum = digest::beside(&text(inventory, &entry.path)?, name)
                .map_err(|error| error.in_file(&inventory.place(&entry.path)))?;
            sums.push((path.to_owned(), sum));
        }
        if sums.is_empty() {
            return Ok(Seal::Name);
        }
        of_sums(sums.into_iter())
    };
    for path in manifest.files.keys() {
        check_path(path).map_err(|error| error.in_file(&inventory.place(OWN)))?;
    }
    for (path, file) in &manifest.files {
        let Some(entry) = inventory.entry(path) else {
            return Ok(Seal::Open(format!("{path} is in the manifest, and not there yet")));
        };
        match file.size {
            Some(size) if entry.size < size => {
                return Ok(Seal::Open(format!("{path} has {} of {size} bytes yet", entry.size)));
            }
            Some(size) if entry.size > size => {
                return Err(Error::refused(format!("has {} bytes, and {size} in the manifest", entry.size))
                    .in_file(&inventory.place(path))
                    .hint("make the manifest again, of the files that are here"));
            }
            _ => {}
        }
    }
    let is_manifest = |path: &str| path == OWN || path == SUMS || path.ends_with(SUM_ENDING);
    let stranger = inventory
        .entries
        .iter()
        .find(|entry| !is_manifest(&entry.path) && !manifest.files.contains_key(&entry.path));
    match stranger {
        Some(entry) => Ok(Seal::Open(format!("{} is in no manifest yet", entry.path))),
        None if manifest.files.is_empty() => Ok(Seal::Open("the manifest names no file yet".into())),
        None => Ok(Seal::Manifest(Box::new(manifest))),
    }
}

fn of_sums(sums: impl Iterator<Item = (String, Sum)>) -> Manifest {
    let files =
        sums.filter(|(path, _)| path != SUMS).map(|(path, sha256)| (path, File { sha256, size: None }));
    Manifest { format: 1, files: files.collect(), ..Manifest::default() }
}

/// `None` where it is cut off.
fn own(inventory: &Inventory) -> Result<Option<Manifest>> {
    let raw = text(inventory, OWN)?;
    let wrong = |says: String| {
        Error::refused(says)
            .in_file(&inventory.place(OWN))
            .hint("landfall schema drop-manifest tells what it may hold")
    };
    let manifest: Manifest = match serde_json::from_slice(&raw) {
        Ok(manifest) => manifest,
        // It may be on its way still.
        Err(error) if error.is_eof() => return Ok(None),
        Err(error) => return Err(wrong(format!("cannot be read: {error}"))),
    };
    if manifest.format != 1 {
        return Err(wrong(format!("is of format {}; this program knows 1", manifest.format)));
    }
    let named = manifest.disks.values().map(Image::file).chain(manifest.definition.as_deref());
    for path in named {
        if !manifest.files.contains_key(path) {
            return Err(wrong(format!("names {path:?}, which is not among its files")));
        }
    }
    Ok(Some(manifest))
}

/// A path that lies in the drop, whatever it is joined to.
fn check_path(path: &str) -> Result<()> {
    let is_fine = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    match path.split('/').all(is_fine) {
        true => Ok(()),
        false => Err(Error::refused(format!("names {path:?}, which is no file in the drop"))
            .hint("name files by their path in the drop, such as disks/web01.vmdk")),
    }
}

fn text(inventory: &Inventory, path: &str) -> Result<Vec<u8>> {
    let place = inventory.place(path);
    let source = Source::open(&place)?;
    if source.len().0 > AT_MOST {
        return Err(Error::new(Kind::Refused, format!("has {}; {AT_MOST} bytes are the most", source.len()))
            .in_file(&place)
            .hint("drop one machine at a time"));
    }
    source.head(usize::try_from(AT_MOST).unwrap_or(usize::MAX))
}
