//! Deltas into a vault that no service works on at the time, and out of it: what `landfall receive` does with a folder of its own. A service
//! does the same with its own vault, see [`Incoming`].

use super::Context;
use crate::moment::Moment;
use crate::name::Name;
use crate::receive::content::Effort;
use crate::receive::digest::{self, Sum};
use crate::receive::folder::inventory::Inventory;
use crate::receive::folder::manifest::{File, Manifest, OWN};
use crate::receive::folder::{self, Hands, Watcher};
use crate::receive::incoming::{Finished, Incoming};
use crate::receive::rbd::export::{Exported, Wanted, export};
use crate::receive::rbd::{self, Policy};
use crate::receive::spool::Request;
use crate::receive::{pull, spool::Upload};
use crate::vault::{Troubles, Vault};
use landfall_image::{Error, Result, Source};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A vault with its ways in.
#[derive(Debug)]
pub struct Site {
    vault: Vault,
    incoming: Incoming,
}

/// What was found when a vault was opened.
#[derive(Debug)]
pub struct Opened {
    /// The vault.
    pub site: Site,
    /// Machines with something to be told of.
    pub troubles: Troubles,
    /// What is wrong with uploads that were left over.
    pub uploads: Vec<Error>,
    /// What had been cut off.
    pub finished: Vec<Finished>,
}

impl Site {
    /// Opens the vault in a folder, and finishes what was cut off. `watchers` are the folders that are watched for it.
    ///
    /// # Errors
    /// As [`Vault::open`] and [`Incoming::open`].
    pub fn open(context: &Context<'_>, root: &Path, watchers: &[Watcher]) -> Result<Opened> {
        let (vault, troubles) = Vault::open(root)?;
        let (incoming, uploads) = Incoming::open(root)?;
        let site = Site { vault, incoming };
        let finished = site.incoming.finish(&site.hands(context), watchers)?;
        Ok(Opened { site, troubles, uploads, finished })
    }

    fn hands<'h>(&'h self, context: &'h Context<'h>) -> Hands<'h> {
        Hands { vault: &self.vault, batches: &self.incoming.batches, context, now: Moment::now().0 }
    }

    /// The vault.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The ways in.
    pub fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    /// Brings a stream of RBD into the spool. A digest that is not in `request` is looked for beside the file, in `FILE.sha256`. `-` is what
    /// `stdin` gives.
    ///
    /// # Errors
    /// As the file's reader, and [`Spool::take`](crate::receive::spool::Spool::take).
    pub fn upload(&self, file: &Path, request: Request, stdin: &mut dyn Read) -> Result<Upload> {
        if file == Path::new("-") {
            return self.incoming.spool.take(request, stdin);
        }
        let sha256 = match request.sha256 {
            Some(sum) => Some(sum),
            None => beside(file)?,
        };
        let cannot = |error| Error::io("cannot open", error).in_file(file);
        let mut from = std::fs::File::open(file).map_err(cannot)?;
        self.incoming.spool.take(Request { sha256, ..request }, &mut from)
    }

    /// Takes uploads, all for one machine, as [`rbd::take`]. What is refused stays in the spool.
    ///
    /// # Errors
    /// As [`rbd::take`].
    pub fn take(&self, context: &Context<'_>, uploads: &[Upload], policy: Policy) -> Result<rbd::Outcome> {
        let Some(first) = uploads.first() else {
            return Err(Error::refused("there is no stream to take").hint("name one"));
        };
        let machine = self.vault.machine_or_new(&first.request.machine)?;
        let ids: Vec<_> = uploads.iter().map(|upload| upload.id).collect();
        let Incoming { batches, spool, .. } = &self.incoming;
        rbd::take(batches, spool, &machine, &ids, policy, Moment::now().0, &effort(context))
    }

    /// Looks at a watched folder once.
    ///
    /// # Errors
    /// As [`Watcher::scan`].
    pub fn scan(&self, context: &Context<'_>, watcher: &Watcher) -> Result<Vec<folder::Outcome>> {
        watcher.scan(&self.hands(context))
    }

    /// Pulls the disks of a machine.
    ///
    /// # Errors
    /// As [`pull::pull`].
    pub fn pull(
        &self,
        context: &Context<'_>,
        machine: &Name,
        request: &pull::Request,
    ) -> Result<pull::Outcome> {
        let machine = self.vault.machine_or_new(machine)?;
        pull::pull(&self.incoming.batches, &machine, request, &context.nbd, Moment::now().0, &effort(context))
    }

    /// Writes the difference between two points of a disk, or all of one, as RBD's diff.
    ///
    /// # Errors
    /// As [`export`].
    pub fn export(
        &self,
        context: &Context<'_>,
        machine: &Name,
        wanted: &Wanted<'_>,
        out: impl Write,
    ) -> Result<Exported> {
        export(&self.vault.machine(machine)?, wanted, out, &context.cancel)
    }
}

fn effort(context: &Context<'_>) -> Effort {
    let mut effort = Effort { cancel: context.cancel.clone(), ..Effort::default() };
    if let Some(jobs) = context.jobs {
        effort.jobs = jobs;
    }
    effort
}

/// The digest in the side file of a file: `FILE.sha256`. `None` where there is none.
///
/// # Errors
/// Refused where it is there and holds none; as its reader.
pub fn beside(file: &Path) -> Result<Option<Sum>> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let path = file.with_file_name(format!("{name}.sha256"));
    if !path.exists() {
        return Ok(None);
    }
    let source = Source::open(&path)?;
    if source.len().0 > digest::FILE_AT_MOST {
        return Err(
            Error::refused(format!("has {}, which no file of digests has", source.len())).in_file(&path)
        );
    }
    let text = source.head(usize::try_from(digest::FILE_AT_MOST).unwrap_or(usize::MAX))?;
    digest::beside(&text, &name).map(Some).map_err(|error| error.in_file(&path))
}

/// Seals a drop where it is made: writes `landfall.json` with the digests and sizes of all that lies in the folder. What `given` says
/// besides files stays.
///
/// # Errors
/// Refused where something in the folder could not be a part of a drop, or is being written; as the file system's.
pub fn seal(context: &Context<'_>, drop: &Path, given: Manifest) -> Result<PathBuf> {
    let inventory = Inventory::of(drop)?;
    if let Some(path) = inventory.partial.clone().or_else(|| inventory.written_now()) {
        return Err(Error::refused("is still being written")
            .in_file(&inventory.place(&path))
            .hint("seal it when it is complete"));
    }
    let mut manifest = Manifest { format: 1, ..given };
    manifest.files.clear();
    for entry in inventory.entries.iter().filter(|entry| entry.path != OWN) {
        let sha256 = folder::sum_of(&inventory.place(&entry.path), &context.cancel)?;
        manifest.files.insert(entry.path.clone(), File { sha256, size: Some(entry.size) });
    }
    // What was digested is what lies there.
    inventory.is_unchanged()?;
    let json = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| Error::refused(format!("cannot be written down: {error}")))?;
    let path = inventory.place(OWN);
    let cannot = |error| Error::io("cannot write", error).in_file(&path);
    let new = inventory.place(&format!(".{OWN}.part"));
    std::fs::write(&new, json).and_then(|()| std::fs::rename(&new, &path)).map_err(cannot)?;
    Ok(path)
}
