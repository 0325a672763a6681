//! A watched folder: exported machines, images, and deltas of them, put there by whatever can copy files.
//!
//! ```text
//! DIR/web01.partial/ -> DIR/web01/          a drop for the machine web01: its files, sealed by the name or by a manifest
//! DIR/web01/monday/                          a drop, too, where the machine's folder has nothing but folders
//! DIR/.done/web01/point-812/                 what was taken, never deleted here
//! DIR/web01/REFUSED.txt                      why it was not, and what fixes it
//! ```
//!
//! ```text
//! inventory -> manifest: sealed? -> digests -> contents -> plan -> batch: compared and written, a point -> .done
//! ```
//!
//! A drop is taken when it is sealed, never because nothing has happened to it for a while: a manifest names every file of it
//! ([`manifest`]), or its folder was renamed when it was complete. While something in it is called `NAME.part`, `NAME.partial` or
//! `.NAME`, or some process has it open for writing, it waits. Where a manifest is asked for ([`Options::manifest`]), a name is not enough.
//!
//! Of each disk the vault keeps which image it was made from, under `drop:DISK`. A delta whose parent is not in the drop must be over that
//! image, and nothing else may have written to the disk since; only what the delta stores is read then. Without a definition, a delta
//! finds its disk by that.
//!
//! What a drop says about files is not believed: images reach no file outside of it, links and devices are refused, and if a file is
//! changed while it is taken, all is taken back.
//!
//! Absent: noticing changes by itself. [`Watcher::scan`] is called as often as one likes; what was refused is looked at again
//! each time, and its digests are computed again only when its files changed.

pub mod contents;
pub mod inventory;
pub mod manifest;
mod place;
pub mod plan;
mod take;

pub use take::{Taken, TakenDisk};

use crate::name::Name;
use crate::ops::Context;
use crate::receive::batch::{Batches, Intent};
use crate::receive::digest::{Sum, Verdict};
use crate::vault::Vault;
use inventory::{Inventory, Named, named};
use landfall_image::convert::Cancel;
use landfall_image::{Error, FileOffset, Kind, Result, Source};
use manifest::{Manifest, Seal};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The way in, in the names of attachments.
pub const WAY: &str = "drop";
/// Where drops go that were taken.
pub const DONE_DIR: &str = ".done";
/// Entries of the watched folder, and of a machine's folder, that are looked at.
const ENTRIES_AT_MOST: usize = 10_000;
/// Folders that Hyper-V exports a machine in.
const HYPER_V: [&str; 3] = ["Virtual Machines", "Virtual Hard Disks", "Snapshots"];

/// How a folder is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Only drops with a manifest are taken. Otherwise the name of a folder is enough, and points of what came without digests say
    /// that they are unverified.
    pub manifest: bool,
    /// Drops stay where they are; `DONE.txt` in them says that they were taken. Otherwise they go to `.done`.
    pub keep: bool,
}

/// A drop that is being taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The watched folder.
    pub watched: PathBuf,
    /// The drop in it.
    pub drop: PathBuf,
    /// What tells its files from any others.
    pub fingerprint: Sum,
    /// When it was begun, in milliseconds since 1970.
    pub now: u64,
}

/// What a disk holds by its drops: the image that it was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top {
    /// Its path in the drop.
    pub file: String,
    /// Its format.
    pub format: landfall_image::Format,
    /// What a delta over it names it by, where the format has such a thing: a content id, a data write id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The digest of its file: of an image that has no identity, and of all that came with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sum>,
    /// Which drop it was.
    pub drop: Sum,
}

/// What was found of a drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "Drop")]
pub struct Outcome {
    /// Where it lies.
    pub drop: PathBuf,
    /// The machine that it is for; `None` where its folder has no machine's name.
    pub machine: Option<Name>,
    /// What became of it.
    pub became: Became,
}

/// What became of a drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "state", content = "details", rename_all = "kebab-case")]
pub enum Became {
    /// It is in the vault.
    Taken(Box<Taken>),
    /// It is not sealed.
    Waiting {
        /// What is missing.
        why: String,
    },
    /// It cannot be taken as it is.
    Refused(Trouble),
    /// It could not be taken, through no fault of its own: it is tried again.
    Failed(Trouble),
}

/// What stands in the way of a drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Trouble {
    /// What is wrong.
    pub says: String,
    /// What fixes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// What came of the digests; `could-not-run` where it did not come to that.
    pub verdict: Verdict,
}

/// Nothing, or what is wrong.
type Found = std::result::Result<(), String>;

/// A folder that is watched.
#[derive(Debug)]
pub struct Watcher {
    folder: PathBuf,
    options: Options,
    /// What came of the digests of drops that are there, by what their files were then.
    verdicts: Mutex<BTreeMap<PathBuf, (Sum, Found)>>,
}

/// What a scan works with.
pub struct Hands<'h> {
    /// Where drops go.
    pub vault: &'h Vault,
    /// How they are written.
    pub batches: &'h Batches,
    /// How images are read; its gate is not used.
    pub context: &'h Context<'h>,
    /// Milliseconds since 1970.
    pub now: u64,
}

impl Watcher {
    /// Watches a folder, which is there.
    ///
    /// # Errors
    /// Where it cannot be resolved, or is no folder.
    pub fn new(folder: &Path, options: Options) -> Result<Watcher> {
        let real =
            folder.canonicalize().map_err(|error| Error::io("cannot be watched", error).in_file(folder))?;
        match real.is_dir() {
            true => Ok(Watcher { folder: real, options, verdicts: Mutex::default() }),
            false => Err(Error::refused("cannot be watched: it is no folder").in_file(folder)),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Looks at all that lies in the folder, and takes what is sealed. Says of each drop what became of it; one that was taken before and stays
    /// in its place is not told of.
    ///
    /// # Errors
    /// Where the folder cannot be listed. What is wrong with a drop is in its outcome.
    pub fn scan(&self, hands: &Hands<'_>) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        let mut drops = Vec::new();
        for (name, path) in list(&self.folder)? {
            self.drops_of(&name, &path, &mut drops, &mut outcomes);
        }
        let is_there = |path: &PathBuf| drops.iter().any(|(_, drop)| drop == path);
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).retain(|path, _| is_there(path));
        for (machine, drop) in &drops {
            if hands.context.cancel.is_cancelled() {
                break;
            }
            if let Some(became) = self.look_at(hands, machine, drop) {
                self.note(drop, &became);
                outcomes.push(Outcome { drop: drop.clone(), machine: Some(machine.clone()), became });
            }
        }
        Ok(outcomes)
    }

    /// Finishes a drop of this folder that was cut off, or takes it back where it is not the same any more.
    ///
    /// # Errors
    /// Where it was taken back, why; as the vault's.
    pub fn resume(&self, hands: &Hands<'_>, intent: &Intent, job: &Job) -> Result<Taken> {
        take::resume(self, hands, intent, job)
    }

    /// The drops that an entry of the folder is.
    fn drops_of(
        &self,
        name: &str,
        path: &Path,
        drops: &mut Vec<(Name, PathBuf)>,
        outcomes: &mut Vec<Outcome>,
    ) {
        if named(name) != Named::Part {
            return;
        }
        let mut say = |machine: Option<Name>, became: Became| {
            outcomes.push(Outcome { drop: path.to_owned(), machine, became });
        };
        let is_folder = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
        if !is_folder {
            let why = "it lies in no machine's folder: move it to DIR/MACHINE/, with the name of the machine"
                .to_owned();
            return say(None, Became::Waiting { why });
        }
        let machine = match name.parse::<Name>() {
            Ok(machine) => machine,
            Err(error) => {
                let became = Became::Refused(Trouble::of(&error, Verdict::CouldNotRun));
                self.note(path, &became);
                return say(None, became);
            }
        };
        let inside = match list(path) {
            Ok(inside) => inside,
            Err(error) => {
                let became = became(&error, Verdict::CouldNotRun);
                self.note(path, &became);
                return say(Some(machine), became);
            }
        };
        let parts: Vec<_> = inside.into_iter().filter(|(name, _)| named(name) != Named::Apart).collect();
        let is_plain_folder = |(name, path): &(String, PathBuf)| {
            !HYPER_V.contains(&name.as_str())
                && std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
        };
        match parts.iter().all(is_plain_folder) {
            true => {
                let whole = parts.into_iter().filter(|(name, _)| named(name) == Named::Part);
                drops.extend(whole.map(|(_, path)| (machine.clone(), path)));
            }
            false => drops.push((machine, path.to_owned())),
        }
    }

    /// `None` where it was taken before.
    fn look_at(&self, hands: &Hands<'_>, machine: &Name, drop: &Path) -> Option<Became> {
        let is_text = |name: &str| !name.chars().any(char::is_control);
        if !drop.file_name().and_then(|name| name.to_str()).is_some_and(is_text) {
            let error = Error::refused("the drop's name is no text, or has control characters in it")
                .hint("rename it");
            return Some(became(&error, Verdict::CouldNotRun));
        }
        let inventory = match Inventory::of(drop) {
            Ok(inventory) => inventory,
            // It was taken away while it was looked at.
            Err(error)
                if error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound) =>
            {
                return None;
            }
            Err(error) => return Some(became(&error, Verdict::CouldNotRun)),
        };
        if place::is_done(drop, inventory.fingerprint()) {
            return None;
        }
        let (manifest, is_manifest) = match manifest::read(&inventory) {
            Ok(Seal::Manifest(manifest)) => (*manifest, true),
            Ok(Seal::Name) if inventory.entries.is_empty() => return None,
            Ok(Seal::Name) if !self.options.manifest => (Manifest::default(), false),
            Ok(Seal::Name) => {
                let why =
                    "it has no manifest: landfall.json, SHA256SUMS, or a .sha256 beside each file".to_owned();
                return Some(Became::Waiting { why });
            }
            Ok(Seal::Open(why)) => return Some(Became::Waiting { why }),
            Err(error) => return Some(became(&error, Verdict::CouldNotRun)),
        };
        if let Some(path) = inventory.written_now() {
            return Some(Became::Waiting { why: format!("{path} is open for writing in some process") });
        }
        if let Some((says, _)) = hands.batches.leases().running(machine) {
            return Some(Became::Waiting { why: format!("{says} is being written into {machine}") });
        }
        let verdict = match is_manifest {
            true => match self.compare(&inventory, &manifest, &hands.context.cancel) {
                Ok(()) => Verdict::Matched,
                Err(error) => {
                    let verdict =
                        if error.kind() == Kind::Corrupt { Verdict::Differed } else { Verdict::CouldNotRun };
                    return Some(became(&error, verdict));
                }
            },
            false => Verdict::CouldNotRun,
        };
        let drop = take::Sealed { inventory, manifest, verdict };
        match take::take(self, hands, machine, &drop) {
            Ok(taken) => Some(Became::Taken(Box::new(taken))),
            Err(error) => Some(became(&error, verdict)),
        }
    }

    /// Compares the digests of a drop's files. What came of it is known until one of them changes.
    fn compare(&self, inventory: &Inventory, manifest: &Manifest, cancel: &Cancel) -> Result<()> {
        let fingerprint = inventory.fingerprint();
        let differs =
            |says: &str| Error::corrupt(says.to_owned()).hint("copy the file again, and then the manifest");
        let verdicts = || self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, came)) = verdicts().get(&inventory.root)
            && *known == fingerprint
        {
            return came.clone().map_err(|says| differs(&says));
        }
        let mut came = Ok(());
        for (path, file) in &manifest.files {
            let found = sum_of(&inventory.place(path), cancel)?;
            if found != file.sha256 {
                came = Err(format!(
                    "{path} was damaged on its way: its SHA-256 is {found}, and {} in the manifest",
                    file.sha256
                ));
                break;
            }
        }
        verdicts().insert(inventory.root.clone(), (fingerprint, came.clone()));
        came.map_err(|says| differs(&says))
    }

    /// Writes down beside a drop why it is refused, and takes that back.
    fn note(&self, drop: &Path, became: &Became) {
        let noted = match became {
            Became::Refused(trouble) => place::refuse(drop, trouble),
            Became::Waiting { .. } => place::clear(drop),
            // What was said stays true until it is tried again; what was taken is elsewhere.
            Became::Taken(_) | Became::Failed(_) => Ok(()),
        };
        if let Err(error) = noted {
            tracing::warn!(drop = %drop.display(), %error, "what is wrong with a drop cannot be written beside it");
        }
    }
}

/// What becomes of a drop that fails. What the host could not do is no fault of the drop's; a file that is not there is.
fn became(error: &Error, verdict: Verdict) -> Became {
    let is_hosts = error.io_error().is_some_and(|error| error.kind() != std::io::ErrorKind::NotFound);
    match is_hosts || error.kind() == Kind::Interrupted {
        true => Became::Failed(Trouble::of(error, verdict)),
        false => Became::Refused(Trouble::of(error, verdict)),
    }
}

impl Outcome {
    /// What is wrong with the drop, where something is, without the drop's own path.
    pub fn says(&self) -> Option<&str> {
        let says = match &self.became {
            Became::Refused(trouble) | Became::Failed(trouble) => &trouble.says,
            Became::Waiting { why } => why,
            Became::Taken(_) => return None,
        };
        let path = format!("{}: ", self.drop.display());
        Some(says.strip_prefix(&path).unwrap_or(says))
    }
}

impl Trouble {
    fn of(error: &Error, verdict: Verdict) -> Trouble {
        Trouble { says: error.to_string(), remedy: error.hint_text().map(str::to_owned), verdict }
    }
}

/// Entries of a folder by name; such as have no name that can be shown are left out, and told of by the [inventory](Inventory) of theirs.
fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |error| Error::io("cannot be listed", error).in_file(folder);
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if all.len() >= ENTRIES_AT_MOST {
            return Err(Error::refused(format!("holds more than {ENTRIES_AT_MOST} entries"))
                .in_file(folder)
                .hint("make a folder for each machine, and one for each of its drops"));
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        all.push((name, entry.path()));
    }
    all.sort();
    Ok(all)
}

/// The SHA-256 of a file.
///
/// # Errors
/// As its reader; [`Kind::Interrupted`] where it was stopped.
pub fn sum_of(path: &Path, cancel: &Cancel) -> Result<Sum> {
    let source = Source::open(path)?;
    let mut hasher = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < source.len().0 {
        if cancel.is_cancelled() {
            return Err(Error::interrupted());
        }
        let len = usize::try_from(source.len().0 - at).unwrap_or(usize::MAX).min(buf.len());
        source.read_exact_at(FileOffset(at), &mut buf[..len])?;
        hasher.update(&buf[..len]);
        at += len as u64;
    }
    Ok(Sum::finish(hasher))
}
