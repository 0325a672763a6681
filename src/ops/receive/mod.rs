//! Deltas of machines that are not mirrored: into the vault that a service works on, or into one that no service works on at the time; and
//! points out of it.
//!
//! ```text
//! landfall receive … -> Place -> Service (its API does it) | Site (a vault in this process)
//! ```

mod site;

pub use site::{Opened, Site};

use super::Context;
use super::send::{Fault, Here, Replica, seed};
use super::service::Service;
use super::source::point::{At, Candidate, PointName, choose, points, which};
use crate::event::Event;
use crate::moment::Moment;
use crate::name::Name;
use crate::receive::ExportName;
use crate::receive::content::Effort;
use crate::receive::digest::{self, Sum};
use crate::receive::folder::inventory::Inventory;
use crate::receive::folder::manifest::{File, Manifest, OWN};
use crate::receive::folder::{self, Options, Watcher};
use crate::receive::pull::{self, Bitmap, Source as PullSource};
use crate::receive::rbd::export::{Exported, Wanted, export as write_diff, name_at};
use crate::receive::rbd::record::Version;
use crate::receive::rbd::{self, Policy};
use crate::receive::send::Held;
use crate::receive::spool::{Request, Upload};
use crate::report::VERSION;
use crate::report::receiving::{PointExported, Receipt, ReceiptState, Received, WantedPull};
use crate::report::sending::Sending;
use crate::vault::journal::Checkpoint;
use crate::vault::{Trouble, Vault};
use landfall_image::convert::{Cancel, Progress};
use landfall_image::nbd::Uri;
use landfall_image::{Bytes, Error, Kind, Result, Source};
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often it is asked how far the service is.
const ASK: Duration = Duration::from_millis(250);
/// A service that is started again is waited for.
const AWAY: Duration = Duration::from_secs(60);

/// Who receives.
pub enum Place {
    /// The service.
    Service(Box<Service>),
    /// This process, into the vault in this folder.
    Vault(PathBuf),
}

/// Streams of RBD, all of one moment.
#[derive(Clone, Debug)]
pub struct Streams {
    /// The disks, all of one machine, each with the file of its stream; `-` for standard input.
    pub disks: Vec<(ExportName, PathBuf)>,
    /// The digest of the only one. Without, it is looked for in `FILE.sha256`.
    pub sha256: Option<Sum>,
    /// As in [`Request`].
    pub replace: bool,
    /// As in [`Request`].
    pub apart: bool,
    /// As in [`Request`].
    pub taken_at: Option<Moment>,
}

/// A disk of a point, as a diff.
#[derive(Clone, Debug)]
pub struct Export {
    /// The point that it leads to.
    pub point: PointName,
    /// The disk.
    pub disk: Name,
    /// The point that it begins at.
    pub since: Option<At>,
    /// The name of the snapshot that it leads to.
    pub snapshot: Option<String>,
    /// The name of the snapshot that it begins at.
    pub since_snapshot: Option<String>,
    /// Its notation.
    pub format: Version,
}

/// The vault in a folder, with what was cut off in it brought to an end.
fn site(context: &Context<'_>, folder: &Path, watchers: &[Watcher]) -> Result<Site> {
    is_vault(folder)?;
    let opened = Site::open(context, folder, watchers)?;
    for (name, trouble) in &opened.troubles {
        match trouble {
            Trouble::Unreadable(error) => tracing::warn!("{name} cannot be read: {error}"),
            Trouble::Behind(_) => tracing::warn!("writes to {name} since its last point may be missing"),
        }
    }
    opened.uploads.iter().for_each(|error| tracing::warn!("an upload that was left over: {error}"));
    for finished in &opened.finished {
        let says = &finished.intent.says;
        match (&finished.error, finished.is_taken_back) {
            (None, _) => tracing::info!("{says}, which was cut off, is in the vault now"),
            (Some(error), true) => tracing::warn!("{says} was cut off and is taken back: {error}"),
            (Some(error), false) => tracing::warn!("{says} was cut off, and cannot be finished: {error}"),
        }
    }
    Ok(opened.site)
}

/// Takes a seed that another landfall has written into a folder, as if it had been sent. `name` is the machine's, where it is to have another
/// here.
///
/// # Errors
/// As [`seed::take`].
pub fn take_seed(
    context: &Context<'_>,
    place: &Place,
    dir: &Path,
    name: Option<&Name>,
    replace: bool,
) -> Result<Sending> {
    let mut effort = Effort { cancel: context.cancel.clone(), ..Effort::default() };
    effort.jobs = context.jobs.unwrap_or(effort.jobs);
    let take = |to: &dyn Replica| seed::take(&effort, context.observer, dir, name, replace, to);
    match place {
        Place::Service(service) => take(&**service),
        Place::Vault(folder) => {
            let site = site(context, folder, &[])?;
            closing(site.vault(), take(&Here { vault: site.vault(), incoming: site.incoming() }))
        }
    }
}

/// Gives up a send that has not come to its end: the disks go back to what they held before.
///
/// # Errors
/// As the vault's.
pub fn give_up(context: &Context<'_>, place: &Place, name: &Name) -> Result<Held> {
    let give_up = |to: &dyn Replica| to.give_up(name).and_then(|()| to.held(name)).map_err(Fault::into_error);
    match place {
        Place::Service(service) => give_up(&**service),
        Place::Vault(folder) => {
            let site = site(context, folder, &[])?;
            closing(site.vault(), give_up(&Here { vault: site.vault(), incoming: site.incoming() }))
        }
    }
}

/// Ends the work on a vault in order, whatever came of it.
fn closing<T>(vault: &Vault, done: Result<T>) -> Result<T> {
    let closed = vault.close();
    let done = done?;
    closed.map(|()| done)
}

/// Refuses a folder that is no vault: none is made.
///
/// # Errors
/// See above.
pub(super) fn is_vault(folder: &Path) -> Result<()> {
    match folder.join("vault.json").is_file() {
        true => Ok(()),
        false => Err(Error::refused("is no vault")
            .in_file(folder)
            .hint("name the folder with vault.json in it; landfall serve makes one")),
    }
}

/// Takes streams of RBD. `stdin` is read where a file is `-`.
///
/// # Errors
/// As [`rbd::take`]; where a stream cannot be read or sent: then nothing is left of it.
pub fn streams(
    context: &Context<'_>,
    place: &Place,
    wanted: &Streams,
    stdin: &mut dyn Read,
) -> Result<rbd::Outcome> {
    let Some((first, _)) = wanted.disks.first() else {
        return Err(Error::refused("there is no stream to take").hint("name one"));
    };
    if let Some((other, _)) = wanted.disks.iter().find(|(disk, _)| disk.machine() != first.machine()) {
        return Err(Error::refused(format!("{other} is of another machine than {first}"))
            .hint("take the streams of each machine by themselves: each gets a point of its own"));
    }
    if wanted.disks.iter().filter(|(_, file)| file == Path::new("-")).count() > 1 {
        return Err(Error::refused("two streams cannot both come from standard input")
            .hint("write them into files first: rbd export-diff … FILE"));
    }
    let requests: Vec<(Request, &Path)> = wanted
        .disks
        .iter()
        .map(|(disk, file)| Ok((request(wanted, disk, file)?, file.as_path())))
        .collect::<Result<_>>()?;
    match place {
        Place::Vault(folder) => {
            let site = site(context, folder, &[])?;
            closing(site.vault(), streams_here(context, &site, requests, stdin))
        }
        Place::Service(service) => {
            let mut uploads = Vec::new();
            let begin = || -> Result<Receipt> {
                for (request, file) in requests {
                    let sent = with_file(context, file, stdin, |from| service.upload(&request, from))?;
                    uploads.push(sent.id);
                }
                service.take_streams(first.machine(), &uploads)
            };
            match begin() {
                Ok(receipt) => match wait(context, service, receipt)? {
                    Received::Rbd(outcome) => Ok(outcome),
                    _ => Err(other_way()),
                },
                Err(error) => {
                    // It takes them back by itself, if it cannot be told.
                    uploads.iter().for_each(|id| drop(service.discard(*id)));
                    Err(error)
                }
            }
        }
    }
}

fn streams_here(
    context: &Context<'_>,
    site: &Site,
    requests: Vec<(Request, &Path)>,
    stdin: &mut dyn Read,
) -> Result<rbd::Outcome> {
    let incoming = site.incoming();
    let mut uploads = Vec::new();
    let all = requests.into_iter().try_for_each(|(request, file)| {
        uploads.push(with_file(context, file, stdin, |from| incoming.spool.take(request, from))?);
        Ok(())
    });
    let taken = all.and_then(|()| site.take(context, &uploads, Policy::default()));
    // What was cut off in the middle is finished from it when the vault is opened the next time.
    let is_cut_off = |upload: &Upload| incoming.leases.running(&upload.request.machine).is_some();
    if taken.is_err() && !uploads.iter().any(is_cut_off) {
        uploads.iter().try_for_each(|upload| incoming.spool.discard(upload.id))?;
    }
    taken
}

fn request(wanted: &Streams, disk: &ExportName, file: &Path) -> Result<Request> {
    let is_stdin = file == Path::new("-");
    let sha256 = match wanted.sha256 {
        Some(sum) => Some(sum),
        None if is_stdin => None,
        None => beside(file)?,
    };
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Request {
        machine: disk.machine().clone(),
        disk: disk.disk().clone(),
        name: if is_stdin { format!("of {disk}") } else { name },
        sha256,
        replace: wanted.replace,
        apart: wanted.apart,
        taken_at: wanted.taken_at,
    })
}

/// Reads a file, or standard input, while somebody is told how far it is.
fn with_file<T>(
    context: &Context<'_>,
    file: &Path,
    stdin: &mut dyn Read,
    work: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    let cancel = &context.cancel;
    if file == Path::new("-") {
        return work(&mut Watching { from: stdin, cancel, progress: Progress::default() })
            .map_err(|error| or_interrupted(error, cancel));
    }
    let cannot = |error| Error::io("cannot open", error).in_file(file);
    let mut from = std::fs::File::open(file).map_err(cannot)?;
    let length = from.metadata().map_err(cannot)?;
    let progress = Progress::default();
    progress.start(Bytes(length.len()));
    let disk = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    context.observer.event(Event::CopyStarted { disk, progress: progress.clone() });
    let done = work(&mut Watching { from: &mut from, cancel, progress });
    context.observer.event(Event::CopyFinished);
    done.map_err(|error| or_interrupted(error, cancel))
}

/// What fails since somebody asked to stop is no failure.
fn or_interrupted(error: Error, cancel: &Cancel) -> Error {
    match cancel.is_cancelled() {
        true => Error::interrupted().hint("nothing of it was taken"),
        false => error,
    }
}

/// Counts what is read, and ends when somebody asks to stop.
struct Watching<'r> {
    from: &'r mut dyn Read,
    cancel: &'r Cancel,
    progress: Progress,
}

impl Read for Watching<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.cancel.is_cancelled() {
                return Err(io::Error::other("somebody asked to stop"));
            }
            match self.from.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(count) => {
                    self.progress.advance(Bytes(count as u64));
                    return Ok(count);
                }
                failed => return failed,
            }
        }
    }
}

/// Waits until the service has done what it was asked; Ctrl-C leaves it to the service.
fn wait(context: &Context<'_>, service: &Service, mut receipt: Receipt) -> Result<Received> {
    let (mut away, mut pause) = (None, Duration::from_millis(20));
    loop {
        match receipt.state {
            ReceiptState::Done => return receipt.received.ok_or_else(other_way),
            ReceiptState::Failed => {
                let unknown = || Error::new(Kind::Io, "the service does not say why it failed");
                return Err(receipt.error.map_or_else(unknown, Error::from));
            }
            ReceiptState::Waiting | ReceiptState::Running => {}
        }
        if context.cancel.is_cancelled() {
            return Err(Error::interrupted().hint(format!(
                "the service goes on with {}: landfall status shows when it is done",
                receipt.says
            )));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(ASK);
        match service.receipt(receipt.id) {
            Ok(now) => (receipt, away) = (now, None),
            Err(error) if error.io_error().is_some() => {
                if away.get_or_insert_with(Instant::now).elapsed() > AWAY {
                    return Err(error);
                }
            }
            // It is not the same service any more that was asked.
            Err(error) if error.kind() == Kind::Refused => {
                return Err(Error::new(
                    Kind::Interrupted,
                    format!("the service was started again while it received {}", receipt.says),
                )
                .hint("it finishes what was cut off, or takes it back: landfall points list shows which; send it again where it is not there"));
            }
            Err(error) => return Err(error),
        }
    }
}

fn other_way() -> Error {
    Error::unsupported("the service answers something else than was asked")
        .hint("use the version of landfall that the service has")
}

/// Pulls the disks of a machine.
///
/// # Errors
/// As [`pull::pull`].
pub fn pull(
    context: &Context<'_>,
    place: &Place,
    machine: &Name,
    wanted: &WantedPull,
) -> Result<pull::Outcome> {
    match place {
        Place::Vault(folder) => {
            let site = site(context, folder, &[])?;
            let pulled = pull_request(wanted).and_then(|request| site.pull(context, machine, &request));
            closing(site.vault(), pulled)
        }
        Place::Service(service) => match wait(context, service, service.pull(machine, wanted)?)? {
            Received::Pull(outcome) => Ok(outcome),
            _ => Err(other_way()),
        },
    }
}

/// A pull as the library takes it.
///
/// # Errors
/// Refused where a URI is none.
pub fn pull_request(wanted: &WantedPull) -> Result<pull::Request> {
    let source = |from: &crate::report::receiving::PullFrom| -> Result<PullSource> {
        let bitmap = from.bitmap.as_ref();
        Ok(PullSource {
            disk: from.disk.clone(),
            uri: Uri::parse(&from.uri)?,
            bitmap: bitmap.map(|bitmap| Bitmap { name: bitmap.name.clone(), since: bitmap.since.clone() }),
        })
    };
    Ok(pull::Request {
        disks: wanted.disks.iter().map(source).collect::<Result<_>>()?,
        checkpoint: wanted.checkpoint.clone(),
        taken_at: wanted.taken_at,
        consistency: wanted.consistency,
        apart: wanted.apart,
    })
}

/// Looks at a folder once. A service looks at the folders of its file only, as that says; `options` are for a vault of ours.
///
/// # Errors
/// As [`Watcher::scan`]; refused where the service does not watch it.
pub fn folder(
    context: &Context<'_>,
    place: &Place,
    folder: &Path,
    options: Options,
) -> Result<Vec<folder::Outcome>> {
    match place {
        Place::Vault(vault) => {
            let watchers = [Watcher::new(folder, options)?];
            let site = site(context, vault, &watchers)?;
            closing(site.vault(), site.scan(context, &watchers[0]))
        }
        Place::Service(service) => {
            if options != Options::default() {
                return Err(Error::refused("how a folder is watched stands in the service's file")
                    .hint("set manifest and keep of its [[folder]] there; the options are for --vault"));
            }
            let whole = std::path::absolute(folder)
                .map_err(|error| Error::io("cannot be found", error).in_file(folder))?;
            match wait(context, service, service.scan(&whole)?)? {
                Received::Folder { drops } => Ok(drops),
                _ => Err(other_way()),
            }
        }
    }
}

/// Writes a disk of a point as a diff.
///
/// # Errors
/// As [`write_diff`].
pub fn export(
    context: &Context<'_>,
    place: &Place,
    wanted: &Export,
    out: &mut dyn Write,
) -> Result<PointExported> {
    let (machine, disk) = (&wanted.point.machine, &wanted.disk);
    let mut summing = Summing { out, hasher: Sha256::new(), length: 0 };
    let (point, since, exported) = match place {
        Place::Vault(folder) => {
            is_vault(folder)?;
            let (vault, _) = Vault::open(folder)?;
            let (point, since, exported) =
                closing(&vault, export_here(folder, &vault, wanted, &mut summing, &context.cancel))?;
            (point, since, Some(exported))
        }
        Place::Service(service) => {
            let shown = |at: &At, own: Option<&String>| -> Result<(u64, String)> {
                let shown = service.point(machine, &which(at))?;
                let number = shown.point.number;
                let there = shown.disks.into_iter().find(|there| there.name == disk.as_str());
                let name = own.cloned().or(there.and_then(|there| there.snapshot));
                Ok((number, name.unwrap_or_else(|| format!("landfall-{number}"))))
            };
            let point = shown(&wanted.point.at, wanted.snapshot.as_ref())?;
            let since =
                wanted.since.as_ref().map(|at| shown(at, wanted.since_snapshot.as_ref())).transpose()?;
            service.export(
                machine,
                &point,
                disk,
                since.as_ref(),
                wanted.format,
                &mut summing,
                &context.cancel,
            )?;
            (point, since, None)
        }
    };
    summing.out.flush().map_err(|error| Error::io("cannot write the diff", error))?;
    let (since, from_snapshot) = since.unzip();
    Ok(PointExported {
        version: VERSION,
        machine: machine.clone(),
        disk: disk.clone(),
        point: point.0,
        since,
        from_snapshot,
        to_snapshot: point.1,
        format: wanted.format,
        length: Bytes(summing.length),
        sha256: Sum::finish(summing.hasher),
        exported,
    })
}

/// A point by its number, and the snapshot that it is.
type Named = (u64, String);

/// Both points, and what was written.
fn export_here(
    folder: &Path,
    vault: &Vault,
    wanted: &Export,
    out: &mut dyn Write,
    cancel: &Cancel,
) -> Result<(Named, Option<Named>, Exported)> {
    let machine = vault.machine(&wanted.point.machine)?;
    let points = points(folder, &machine)?;
    let candidate = |point: &Checkpoint| Candidate {
        number: point.sequence,
        at: Moment(point.time),
        tag: point.mark.tag.clone(),
    };
    let candidates: Vec<Candidate> = points.iter().map(candidate).collect();
    let named = |at: &At, own: Option<&String>| -> Result<Named> {
        let number = choose(&wanted.point.machine, &candidates, at)?;
        let name = match own {
            Some(name) => name.clone(),
            None => name_at(&machine, number, wanted.disk.as_str())?,
        };
        Ok((number, name))
    };
    let point = named(&wanted.point.at, wanted.snapshot.as_ref())?;
    let since = wanted.since.as_ref().map(|at| named(at, wanted.since_snapshot.as_ref())).transpose()?;
    let diff = Wanted {
        disk: wanted.disk.as_str(),
        from: since.as_ref().map(|(point, name)| (*point, name.as_str())),
        to: point.0,
        name: Some(&point.1),
        version: wanted.format,
    };
    let exported = write_diff(&machine, &diff, out, cancel)?;
    Ok((point, since, exported))
}

/// Digests what is written through it.
struct Summing<'w> {
    out: &'w mut dyn Write,
    hasher: Sha256,
    length: u64,
}

impl Write for Summing<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = self.out.write(buf)?;
        self.hasher.update(&buf[..count]);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes a disk of a point into a file, and its digest beside it, under names of their own until they are complete.
///
/// # Errors
/// Refused where there is such a file and it is not to be replaced; as [`export`].
pub fn export_to(
    context: &Context<'_>,
    place: &Place,
    wanted: &Export,
    path: &Path,
    replace: bool,
) -> Result<PointExported> {
    let cannot = |error| Error::io("cannot write", error).in_file(path);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.ok_or_else(|| Error::refused("is no file's name").in_file(path))?;
    let side = path.with_file_name(format!("{name}.sha256"));
    if let Some(there) = [path, &side].into_iter().find(|path| std::fs::symlink_metadata(path).is_ok())
        && !replace
    {
        return Err(Error::refused("is there already")
            .in_file(there)
            .hint("name another file, or replace it with --replace"));
    }
    let part = path.with_file_name(format!(".{name}.part"));
    let mut file = io::BufWriter::with_capacity(1 << 20, std::fs::File::create(&part).map_err(cannot)?);
    let written = export(context, place, wanted, &mut file).and_then(|done| {
        let file = file.into_inner().map_err(|error| cannot(error.into_error()))?;
        file.sync_all().map_err(cannot)?;
        std::fs::rename(&part, path).map_err(cannot)?;
        std::fs::write(&side, format!("{}  {name}\n", done.sha256)).map_err(cannot)?;
        Ok(done)
    });
    if written.is_err() {
        // It may be gone already.
        let _ = std::fs::remove_file(&part);
    }
    written
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
pub fn seal(context: &Context<'_>, drop: &Path, given: Manifest) -> Result<(PathBuf, Manifest)> {
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
    if manifest.files.is_empty() {
        return Err(Error::refused("has no file that could be sealed")
            .in_file(drop)
            .hint("put the machine's export or its images into it first"));
    }
    // What was digested is what lies there.
    inventory.is_unchanged()?;
    let json = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| Error::refused(format!("cannot be written down: {error}")))?;
    let path = inventory.place(OWN);
    let cannot = |error| Error::io("cannot write", error).in_file(&path);
    let new = inventory.place(&format!(".{OWN}.part"));
    std::fs::write(&new, json).and_then(|()| std::fs::rename(&new, &path)).map_err(cannot)?;
    Ok((path, manifest))
}
