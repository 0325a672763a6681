//! What comes after a recovery: its disks are made whole, or all that was made for it goes.
//!
//! A commit copies what the disks lie over into them: through libvirt while the machine runs, by this program while it is off.
//! A removal touches what the recovery's file names, and nothing else: not a machine or network of the same name with another
//! id, and no file that was put beside its own.

use super::registered::{keep, own};
use super::serve::{Serving, ToServe, give, is_served};
use super::source::sockets;
use crate::event::Event;
use crate::hypervisor::Server;
use crate::hypervisor::text::shell_word;
use crate::hypervisor::xml;
use crate::name::Name;
use crate::ops::source::point::{At, HeldPoint, PointSource, Points};
use crate::ops::{Context, folder, register};
use crate::recovery::{FILE, Mode, Recovery, Step, below};
use crate::registrar;
use crate::registrar::libvirt::host::{Host as Libvirt, User};
use crate::report::VERSION;
use crate::report::recovery::{Ended, EndedOutcome};
use landfall_image::convert::{self, Journal, Progress};
use landfall_image::create::{CreateOptions, FileOptions};
use landfall_image::formats::{self, Image};
use landfall_image::{Bytes, Disk, Error, Kind, OpenOptions, Result, chain};
use rustix::fs::{FlockOperation, fcntl_lock};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Files that appear beside a recovery's own when its machine runs or is proved.
const COMPANIONS: &[&str] =
    &["uefi-variables.fd", "uefi-variables.fd.partial", "registration.json", "proof", "tpm"];

/// The command that takes a recovery back.
pub fn removal(recovery: &Recovery, place: &Path) -> String {
    let verb = if recovery.mode == Mode::Live { "rollback" } else { "remove" };
    format!("landfall recover {verb} {}", shell_word(&place.display().to_string()))
}

/// Locks a recovery's folder, which is there.
///
/// # Errors
/// Refused where another process works on it.
pub fn lock(place: &Path) -> Result<File> {
    if !place.is_dir() {
        return Err(Error::refused("is no folder")
            .in_file(place)
            .hint("landfall recover list shows the recoveries"));
    }
    folder::lock(place)?.ok_or_else(|| {
        Error::refused("another landfall works on this recovery at this moment")
            .in_file(place)
            .hint("wait for it to end, or stop it")
    })
}

/// A recovery that is worked on.
struct Open {
    place: PathBuf,
    recovery: Recovery,
    _lock: File,
}

fn open(folder: &Path) -> Result<Open> {
    let place = folder.canonicalize().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::refused("there is no recovery of that name")
            .in_file(folder)
            .hint(
                "landfall recover list shows those in the usual folder; one that was made with -o is found by its name while it holds its point, and \
                 by its folder: FOLDER/NAME",
            ),
        _ => Error::io("cannot resolve", e).in_file(folder),
    })?;
    Recovery::read(&place)?;
    let lock = lock(&place)?;
    let recovery = Recovery::read(&place)?;
    Ok(Open { place, recovery, _lock: lock })
}

/// How its hypervisor is spoken to.
pub(super) fn address(recovery: &Recovery) -> Option<registrar::Wanted> {
    let host = recovery.host.as_ref()?;
    Some(registrar::Wanted { at: host.address.clone(), ..registrar::Wanted::default() })
}

fn ended(place: &Path, recovery: Recovery, outcome: EndedOutcome, began: Instant) -> Ended {
    Ended {
        version: VERSION,
        outcome,
        folder: place.display().to_string(),
        recovery: Some(recovery),
        left: Vec::new(),
        seconds: (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
    }
}

/// Releases points that are held by recoveries in `output` which never came to be, because their process was killed.
pub(super) fn tidy(points: &dyn Points, output: &Path) -> Vec<HeldPoint> {
    let of_output = |held: &HeldPoint| Path::new(&held.holder).parent() == Some(output);
    let release = |held: &HeldPoint| -> Result<bool> {
        let is_stale = is_left_over(Path::new(&held.holder))?;
        if is_stale {
            points.release(&held.machine, held.number, &held.holder)?;
        }
        Ok(is_stale)
    };
    let held = points.holds().unwrap_or_default().into_iter().filter(of_output);
    held.filter(|held| {
        release(held).unwrap_or_else(|error| {
            tracing::warn!("point {} of {} may be held for nothing: {error}", held.number, held.machine);
            false
        })
    })
    .collect()
}

/// True where nobody works on that recovery and none is there. What a killed run left of its folder is removed.
fn is_left_over(place: &Path) -> Result<bool> {
    let Some(name) = place.file_name() else { return Ok(false) };
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(".landfall-partial");
    let partial = place.with_file_name(partial);
    // First the one name, then the other: it is renamed from the one to the other.
    if partial.is_dir() {
        let Some(_lock) = folder::lock(&partial)? else { return Ok(false) };
        if !place.join(FILE).exists() {
            fs::remove_dir_all(&partial).map_err(|e| Error::io("cannot remove", e).in_file(&partial))?;
        }
    }
    Ok(!place.join(FILE).exists())
}

/// What a run left of a recovery that never came to be; `None` where there was nothing.
fn remove_leavings(context: &Context<'_>, folder: &Path) -> Result<Option<Ended>> {
    let began = Instant::now();
    let (Some(output), Some(name)) = (folder.parent(), folder.file_name()) else { return Ok(None) };
    let output = if output.as_os_str().is_empty() { Path::new(".") } else { output };
    let Ok(output) = output.canonicalize() else { return Ok(None) };
    let place = output.join(name);
    if place.symlink_metadata().is_ok() {
        return Ok(None);
    }
    let points = context.points.as_ref();
    if let Some(points) = points {
        points.reach()?;
    }
    let held = points.map(|points| tidy(&**points, &output)).unwrap_or_default();
    let was_there = held.iter().any(|held| Path::new(&held.holder) == place);
    Ok(was_there.then(|| Ended {
        version: VERSION,
        outcome: EndedOutcome::Removed,
        folder: place.display().to_string(),
        recovery: None,
        left: Vec::new(),
        seconds: (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
    }))
}

/// Removes a test, with its machine and network at the hypervisor. What a run left that was cut off goes, too.
///
/// # Errors
/// Refused for a recovery in earnest, and where a machine that is not the recovery's own uses its files.
pub fn remove(context: &Context<'_>, folder: &Path) -> Result<Ended> {
    if let Some(ended) = remove_leavings(context, folder)? {
        return Ok(ended);
    }
    let opened = open(folder)?;
    if opened.recovery.mode == Mode::Live && opened.recovery.step != Step::Removing {
        let place = shell_word(&opened.place.display().to_string());
        return Err(match opened.recovery.step {
            Step::Committed => committed(&opened),
            _ => Error::refused("is a recovery in earnest, and no test")
                .in_file(&opened.place)
                .hint(format!("landfall recover rollback {place} throws away what it wrote; landfall recover commit {place} keeps it")),
        });
    }
    take_back(context, opened)
}

/// Takes a recovery in earnest back: what its machine wrote is lost.
///
/// # Errors
/// Refused once it is committed.
pub fn rollback(context: &Context<'_>, folder: &Path) -> Result<Ended> {
    if let Some(ended) = remove_leavings(context, folder)? {
        return Ok(ended);
    }
    let opened = open(folder)?;
    match (opened.recovery.mode, opened.recovery.step) {
        (Mode::Test, _) => Err(Error::refused("is a test")
            .in_file(&opened.place)
            .hint(format!("remove it: {}", removal(&opened.recovery, &opened.place)))),
        (_, Step::Committed) => Err(committed(&opened)),
        _ => take_back(context, opened),
    }
}

fn committed(opened: &Open) -> Error {
    Error::refused("is committed: it is a machine like others, and no copy is removed that is complete")
        .in_file(&opened.place)
        .hint("where it is not wanted any more, undefine it at its hypervisor and remove the folder by hand")
}

fn take_back(context: &Context<'_>, mut opened: Open) -> Result<Ended> {
    let began = Instant::now();
    let place = opened.place.clone();
    check_points(context, &opened.recovery)?;
    let around = register::surroundings(context);
    let host = match address(&opened.recovery) {
        Some(at) => Some(Libvirt::connect(&at, &around)?),
        None => None,
    };
    // Before anything is touched: a stranger that needs the disks stands in the way.
    let user = host.as_ref().map_or(Ok(None), |host| own(host, &place, &opened.recovery))?;
    if user.is_none() {
        for disk in &opened.recovery.disks {
            check_unused(&place.join(&disk.file))?;
        }
    }
    opened.recovery.step = Step::Removing;
    keep(&place, &opened.recovery)?;
    if let (Some(host), Some(user)) = (&host, &user) {
        context.observer.event(Event::Step(format!("Stopping and removing {}", user.name)));
        host.stop(user)?;
        host.forget(user)?;
    }
    let network = opened.recovery.host.as_ref().and_then(|host| host.network.clone());
    if let (Some(host), Some(network)) = (&host, network) {
        host.remove_network(network.uuid)?;
    }
    release(context, &opened.recovery, &place);
    let left = clear(&place, &opened.recovery)?;
    Ok(Ended { left, ..ended(&place, opened.recovery, EndedOutcome::Removed, began) })
}

/// Who has the point has to be told that it is not needed any more.
fn check_points(context: &Context<'_>, recovery: &Recovery) -> Result<()> {
    match &context.points {
        Some(points) => points.reach(),
        None => Err(Error::refused(format!(
            "point {} of {} is held for this recovery, and no vault is named that could let it go",
            recovery.point, recovery.machine
        ))
        .hint("name the vault's folder with --vault")),
    }
}

fn release(context: &Context<'_>, recovery: &Recovery, place: &Path) {
    let released = recovery.machine.parse::<Name>().and_then(|machine| match &context.points {
        Some(points) => points.release(&machine, recovery.point, &place.display().to_string()),
        None => Err(Error::refused("no vault is named (--vault)")),
    });
    if let Err(error) = released {
        tracing::warn!(
            "point {} of {} stays held by {}: {error}",
            recovery.point,
            recovery.machine,
            place.display()
        );
    }
}

/// Removes the recovery's files, its own file last; the names of what is somebody else's.
fn clear(place: &Path, recovery: &Recovery) -> Result<Vec<String>> {
    let cannot = |e| Error::io("cannot remove", e).in_file(place);
    let mut left = Vec::new();
    for entry in fs::read_dir(place).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == FILE {
            continue;
        }
        // What a run of this program left that was killed.
        let is_leaving = name.starts_with('.') && (name.contains(".landfall-") || name.starts_with(".tmp"));
        if !recovery.files.contains(&name) && !COMPANIONS.contains(&name.as_str()) && !is_leaving {
            left.push(name);
            continue;
        }
        let path = entry.path();
        let is_folder = entry.file_type().map_err(cannot)?.is_dir();
        let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|e| Error::io("cannot remove", e).in_file(&path))?;
    }
    fs::remove_file(place.join(FILE)).map_err(cannot)?;
    if left.is_empty() {
        fs::remove_dir(place).map_err(cannot)?;
    }
    left.sort();
    Ok(left)
}

/// Two of a machine would run: whoever wants that says so.
///
/// # Errors
/// Refused where its source writes at this moment, and `source_runs` does not say that this is known.
pub(super) fn check_source(points: &dyn Points, machine: &Name, source_runs: bool) -> Result<()> {
    match points.sender(machine)?.filter(|_| !source_runs) {
        None => Ok(()),
        Some(who) => Err(Error::refused(format!("the source of {machine} runs: {who}; two of it would"))
            .hint(
                "stop the source first, or end its replication; where two are to run, say so: --source-runs",
            )),
    }
}

/// Makes the disks of a recovery in earnest whole: it needs its point no more, and nothing is taken of its source any longer. Run again, it goes
/// on where it ended.
///
/// # Errors
/// Refused for a test, where its source writes to the vault still (`source_runs` allows that), and where a process that is not the hypervisor's machine has a disk open.
pub fn commit(context: &Context<'_>, folder: &Path, source_runs: bool) -> Result<Ended> {
    let began = Instant::now();
    let mut opened = open(folder)?;
    let place = opened.place.clone();
    match (opened.recovery.mode, opened.recovery.step) {
        (Mode::Test, _) => {
            return Err(Error::refused("is a test, which is thrown away")
                .in_file(&place)
                .hint("recover the machine with --mode live, and commit that"));
        }
        (_, Step::Removing) => {
            return Err(Error::refused("is being taken back")
                .in_file(&place)
                .hint(format!("end that: {}", removal(&opened.recovery, &place))));
        }
        (_, Step::Committed) => {
            promote(context, &opened.recovery, &place)?;
            release(context, &opened.recovery, &place);
            return Ok(ended(&place, opened.recovery, EndedOutcome::Committed, began));
        }
        _ => {}
    }
    check_points(context, &opened.recovery)?;
    let around = register::surroundings(context);
    let host = match address(&opened.recovery) {
        Some(at) => Some(Libvirt::connect(&at, &around)?),
        None => None,
    };
    let user = host.as_ref().map_or(Ok(None), |host| own(host, &place, &opened.recovery))?;
    if let Some(points) = &context.points {
        check_source(&**points, &opened.recovery.machine.parse()?, source_runs)?;
    }
    opened.recovery.step = Step::Committing;
    keep(&place, &opened.recovery)?;
    // A definition that says what a disk lies over would have it there again when the disk is whole: what is zeros in it would be
    // read from the point.
    forget_below(&place)?;
    if let (Some(host), Some(user)) = (&host, &user) {
        host.forget_backing(user.uuid)?;
    }
    match (&host, &user) {
        (Some(host), Some(user)) if user.is_active => {
            let _serving = serve(context, host, &opened)?;
            // One that waits for its point goes on.
            host.start(user)?;
            pull(context, host, user, &mut opened)?;
        }
        _ => flatten(context, &mut opened)?,
    }
    opened.recovery.step = Step::Committed;
    keep(&place, &opened.recovery)?;
    // Not before: until then it can be rolled back, and its source goes on.
    promote(context, &opened.recovery, &place)?;
    release(context, &opened.recovery, &place);
    Ok(ended(&place, opened.recovery, EndedOutcome::Committed, began))
}

/// Says that from here on its source is another machine. One that is not held any longer was said so before, and may be a replica again.
fn promote(context: &Context<'_>, recovery: &Recovery, place: &Path) -> Result<()> {
    let Some(points) = &context.points else { return Ok(()) };
    let holder = place.display().to_string();
    match points.holds()?.iter().any(|held| held.holder == holder) {
        true => points.promote(&recovery.machine.parse()?, recovery.point, &holder),
        false => Ok(()),
    }
}

/// Serves the point to the machine where nobody does: a process of this program did, and has ended.
fn serve(context: &Context<'_>, host: &Libvirt<'_>, opened: &Open) -> Result<Option<Serving>> {
    let own = opened.place.parent().map(sockets);
    let mut wanted = Vec::new();
    for disk in &opened.recovery.disks {
        let Some(over) = &disk.over else { continue };
        let below = below::of(over)?;
        if let Server::Socket(socket) = &below.server {
            let socket = PathBuf::from(socket);
            if own.as_ref().is_some_and(|own| socket.starts_with(own)) && !is_served(&socket) {
                wanted.push((socket, below.export, disk.disk.clone()));
            }
        }
    }
    if wanted.is_empty() {
        return Ok(None);
    }
    let mut point = point_of(context, &opened.recovery)?;
    let mut disks = Vec::new();
    for (socket, export, name) in wanted {
        let disk = disk_of(&mut point, &name)?.disk;
        disks.push(ToServe { socket, export, disk });
    }
    let serving = Serving::begin(disks)?;
    if let (Some(serving), Some(owner)) = (&serving, host.qemu_owner()?) {
        give(serving, owner);
    }
    Ok(serving)
}

/// A disk of an opened point.
fn disk_of(point: &mut PointSource, name: &str) -> Result<Image> {
    let at = point.disks.iter().position(|own| own.name == name);
    let at = at.ok_or_else(|| Error::corrupt(format!("point {} has no disk {name}", point.number)))?;
    Ok(point.disks.swap_remove(at).image)
}

/// Takes what the disks lie over out of the definition in the folder.
fn forget_below(place: &Path) -> Result<()> {
    let path = place.join("domain.xml");
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| Error::io("cannot read", e).in_file(&path))?,
    };
    let whole = xml::without(&text, "backingStore").map_err(|e| e.in_file(&path))?;
    if whole == text { Ok(()) } else { folder::put(place, "domain.xml", &whole) }
}

/// Lets libvirt copy, while the machine runs.
fn pull(context: &Context<'_>, host: &Libvirt<'_>, user: &User, opened: &mut Open) -> Result<()> {
    let attached = host.attached(user.uuid)?;
    for index in 0..opened.recovery.disks.len() {
        let file = opened.recovery.disks[index].file.clone();
        let path = opened.place.join(&file);
        let is_it = |file: &str| Path::new(file) == path;
        let Some(disk) = attached.iter().find(|disk| is_it(&disk.file)) else {
            return Err(Error::refused(format!("{} has {file} not attached any more", user.name))
                .in_file(&opened.place)
                .hint("a snapshot may lie over it: commit that first (virsh blockcommit --active --pivot); or shut the machine down and run this again"));
        };
        let progress = Progress::default();
        context.observer.event(Event::CopyStarted { disk: file, progress: progress.clone() });
        let mut told: Option<Bytes> = None;
        let mut tell = |done: Bytes, all: Bytes| {
            if told.is_none() {
                progress.start(all);
            }
            progress.advance(Bytes(done.0.saturating_sub(told.unwrap_or_default().0)));
            told = Some(done.max(told.unwrap_or_default()));
        };
        let limit = context.rate_limit.as_ref().map(convert::RateLimit::per_second);
        let pulled = host.pull(user.uuid, &disk.place, limit, &mut tell);
        context.observer.event(Event::CopyFinished);
        pulled?;
        check_whole(&path)?;
        opened.recovery.disks[index].over = None;
        keep(&opened.place, &opened.recovery)?;
    }
    Ok(())
}

/// That an image needs no other.
fn check_whole(path: &Path) -> Result<()> {
    // Read beside its writer: only its header is looked at.
    formats::open(path, &OpenOptions { format: Some(formats::Format::Qcow2), ..OpenOptions::default() })
        .map(drop)
        .map_err(|error| match error.kind() {
            Kind::Unsupported => Error::corrupt("still lies over its recovery point").in_file(path),
            _ => error,
        })
}

/// Copies delta and point into one image for each disk, while the machine is off.
fn flatten(context: &Context<'_>, opened: &mut Open) -> Result<()> {
    let mut point: Option<PointSource> = None;
    for index in 0..opened.recovery.disks.len() {
        let disk = opened.recovery.disks[index].clone();
        if disk.over.is_none() {
            continue;
        }
        let path = opened.place.join(&disk.file);
        // Killed after the whole image had taken its place.
        if check_whole(&path).is_ok() {
            opened.recovery.disks[index].over = None;
            keep(&opened.place, &opened.recovery)?;
            continue;
        }
        let point = match &mut point {
            Some(point) => point,
            none => none.insert(point_of(context, &opened.recovery)?),
        };
        let below = disk_of(point, &disk.disk)?;
        make_whole(context, &path, below, &disk.file)?;
        opened.recovery.disks[index].over = None;
        keep(&opened.place, &opened.recovery)?;
    }
    Ok(())
}

fn point_of(context: &Context<'_>, recovery: &Recovery) -> Result<PointSource> {
    let points = context.points.as_ref().ok_or_else(|| {
        Error::refused("its disks are made whole from the recovery point, and no vault is named")
            .hint("name the vault's folder with --vault")
    })?;
    points.open(&recovery.machine.parse()?, &At::Number(recovery.point))
}

fn make_whole(context: &Context<'_>, path: &Path, below: Image, name: &str) -> Result<()> {
    let alone = OpenOptions { format: Some(formats::Format::Qcow2), alone: true, ..OpenOptions::default() };
    let delta = formats::open(path, &alone)?;
    // Opened after the reader, and closed after it is: a lock of this kind goes with the first descriptor of the file that is closed.
    let lock = locked(path)?;
    let below_is: Vec<PathBuf> = below.layers.iter().map(|layer| layer.path.clone()).collect();
    let whole = chain::over(delta, below);
    // The delta as it is now: a machine that ran meanwhile has changed it.
    let state = crate::ops::state::of([path].into_iter());
    let about = serde_json::json!({
        "landfall": env!("CARGO_PKG_VERSION"),
        "delta": state,
        "over": below_is,
    })
    .to_string();
    let resume = Journal::can_resume(path, &about).unwrap_or(false);
    let files = FileOptions { replace: true, resume, sync: true };
    let options = CreateOptions { files, ..CreateOptions::default() };
    let kind = formats::kind("qcow2")?;
    let sink = (kind.create)(path, whole.disk.size(), &options)?;
    let journal = if resume { Journal::resume(path, &about)? } else { Journal::begin(path, &about)? };
    let meta = fs::metadata(path).map_err(|e| Error::io("cannot look at", e).in_file(path))?;
    let options = context.copy_options();
    context.observer.event(Event::CopyStarted { disk: name.to_owned(), progress: options.progress.clone() });
    let copied = convert::convert_with(&*whole.disk, None, sink, Some(journal), &options);
    context.observer.event(Event::CopyFinished);
    copied?;
    // The hypervisor's user has it as before.
    let owner = std::os::unix::fs::MetadataExt::uid(&meta);
    let group = std::os::unix::fs::MetadataExt::gid(&meta);
    if let Err(error) = std::os::unix::fs::chown(path, Some(owner), Some(group)) {
        tracing::info!("{}: has another owner than before: {error}", path.display());
    }
    let mode = fs::set_permissions(path, meta.permissions());
    mode.map_err(|e| Error::io("cannot set the mode of", e).in_file(path))?;
    drop(whole);
    drop(lock);
    Ok(())
}

/// Locks an image as QEMU does (which locks single bytes of it, `block/file-posix.c`): no machine has it open, and none opens it
/// meanwhile.
fn locked(path: &Path) -> Result<File> {
    let file = fs::OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(|e| Error::io("cannot open", e).in_file(path))?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
            Err(Error::refused("is in use: a machine runs from it").in_file(path).hint(
                "shut that machine down first; one that libvirt runs can go on, where it was registered with landfall recover --register",
            ))
        }
        // A file system without such locks (NFS without its daemon).
        Err(e) => Err(Error::io("cannot tell whether a machine runs from it", e.into()).in_file(path)),
    }
}

fn check_unused(path: &Path) -> Result<()> {
    match path.exists() {
        true => locked(path).map(drop),
        false => Ok(()),
    }
}

/// Lets a recovered machine go on that is off, or was paused because its point could not be read for a while.
///
/// # Errors
/// Refused where it is not registered.
pub fn resume(context: &Context<'_>, folder: &Path) -> Result<Ended> {
    let began = Instant::now();
    let opened = open(folder)?;
    let around = register::surroundings(context);
    let at = address(&opened.recovery).ok_or_else(|| {
        Error::refused("is registered nowhere")
            .in_file(&opened.place)
            .hint("run the command that recovered it again, with --register")
    })?;
    let host = Libvirt::connect(&at, &around)?;
    let user = own(&host, &opened.place, &opened.recovery)?.ok_or_else(|| {
        Error::refused(format!("is not at {} any more", at.at))
            .in_file(&opened.place)
            .hint("run the command that recovered it again")
    })?;
    host.start(&user)?;
    Ok(ended(&opened.place, opened.recovery, EndedOutcome::Running, began))
}

/// Lets the machine of a recovery go on, where it stopped because its point could not be read for a while; true where it had.
/// For those who serve points.
///
/// # Errors
/// As its hypervisor's.
pub fn wake(context: &Context<'_>, folder: &Path) -> Result<bool> {
    let recovery = Recovery::read(folder)?;
    let Some((at, id)) = address(&recovery).zip(recovery.host.and_then(|host| host.id)) else {
        return Ok(false);
    };
    let around = register::surroundings(context);
    Libvirt::connect(&at, &around)?.wake(id)
}
