//! The host's side: one machine with one guest's volumes, from start to finish.

use super::machine::{DISKS_AT_MOST, Machine, NewDisk, Port, unexpected};
use super::protocol::{
    self, Cause, Failure, LISTING_AT_MOST, Listing, MountedAs, PIECE, Reply, Request, Subvolume,
};
use super::{Accelerator, Sandbox};
use crate::apply::Change;
use crate::tree::{Entry, GuestTree, Meta};
use crate::{Error, Kind, Result};
use landfall_image::{Bytes, Disk, DiskMut, GuestOffset, GuestRange, nbd};
use std::collections::HashMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A question about a path or two.
const CALL_WITHIN: Duration = Duration::from_secs(60);
/// Mounting replays a journal, unmounting writes everything.
const MOUNT_WITHIN: Duration = Duration::from_secs(600);
/// Content moves at 50 MiB/s under emulation; a hundredth of it is a machine in trouble.
const BYTES_PER_SECOND: u64 = 512 << 10;

/// Bytes of paths in one request.
const PATHS_AT_MOST: usize = 64 << 10;

/// A running sandbox. Dropped without [`finish`](Session::finish) it ends at once, and what was written may be
/// incomplete: throw the overlays away then.
pub struct Session {
    machine: Mutex<Option<Machine>>,
    servers: Servers,
    volumes: Vec<Volume>,
    known: Mutex<Known>,
    restored: bool,
    accelerator: Accelerator,
    started: Instant,
    start_seconds: f64,
}

/// What a session was.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Finished {
    /// How it ran.
    pub accelerator: Accelerator,
    /// True where it started from a saved state.
    pub restored: bool,
    /// Until the machine answered.
    pub start_seconds: f64,
    /// From then until it was asked to finish.
    pub work_seconds: f64,
    /// Unmounting and the end of the machine.
    pub finish_seconds: f64,
    /// Bytes that the machine read and wrote on its disks.
    pub disk_read: Bytes,
    /// See `disk_read`.
    pub disk_written: Bytes,
}

struct Volume {
    id: String,
    serial: String,
    disk: Arc<Watched>,
}

/// Answers about paths that stay true until something is changed.
#[derive(Default)]
struct Known {
    metadata: HashMap<(String, String, bool), Option<Meta>>,
    listings: HashMap<(String, String), Option<Vec<Entry>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    pub(super) fn start(sandbox: &Sandbox, volumes: Vec<(String, Arc<dyn DiskMut>)>) -> Result<Session> {
        let begin = Instant::now();
        if sandbox.settings.cancel.load(Ordering::Relaxed) {
            return Err(Error::interrupted());
        }
        if volumes.len() > DISKS_AT_MOST {
            return Err(Error::refused(format!(
                "the guest has {} volumes; the sandbox takes {DISKS_AT_MOST}",
                volumes.len()
            )));
        }
        let volumes: Vec<Volume> = volumes
            .into_iter()
            .enumerate()
            .map(|(n, (id, disk))| Volume {
                disk: Arc::new(Watched { disk, id: id.clone(), first_error: Mutex::new(None) }),
                serial: format!("landfall-{n}"),
                id,
            })
            .collect();
        let mut servers = Servers::default();
        let machine = Machine::start(sandbox, || {
            // An attempt that failed leaves servers without a client.
            servers = Servers::default();
            volumes.iter().map(|volume| servers.serve(volume)).collect()
        })?;
        Ok(Session {
            restored: machine.restored,
            accelerator: machine.accelerator,
            machine: Mutex::new(Some(machine)),
            servers,
            volumes,
            known: Mutex::default(),
            started: Instant::now(),
            start_seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// Mounts the volume `id` as `fs` (the kernel's name: `ext4`, `xfs`, `btrfs`, `vfat`, `ntfs`) at `at` of the root
    /// named `root`. The first mount of a root is at `/`; others are at folders of the guest. A dirty journal is
    /// replayed, also with `read_only`.
    pub fn mount(&self, id: &str, fs: &str, root: &str, at: &str, read_only: bool) -> Result<()> {
        self.mount_subvolume(id, fs, root, at, read_only, None).map(|_| ())
    }

    /// [`mount`](Self::mount), of btrfs with the subvolume that is to be mounted (without one its default), and what
    /// it turned out to be. One volume can be mounted several times.
    pub fn mount_subvolume(
        &self,
        id: &str,
        fs: &str,
        root: &str,
        at: &str,
        read_only: bool,
        subvolume: Option<&Subvolume>,
    ) -> Result<MountedAs> {
        let found = self.volumes.iter().enumerate().find(|(_, volume)| volume.id == id);
        let (target, volume) =
            found.ok_or_else(|| Error::refused(format!("the sandbox was not given a volume {id}")))?;
        self.forget();
        let request = Request::Mount(protocol::Mount {
            target: u16::try_from(target).unwrap_or(u16::MAX),
            serial: volume.serial.clone(),
            fs: fs.to_owned(),
            root: root.to_owned(),
            at: at.to_owned(),
            read_only,
            subvolume: subvolume.cloned(),
        });
        match self.ask(&format!("mount {id}"), MOUNT_WITHIN, &request)? {
            Reply::Mounted(mounted) => Ok(mounted),
            other => Err(unexpected(&other)),
        }
    }

    /// Unmounts what was mounted there.
    pub fn unmount(&self, root: &str, at: &str) -> Result<()> {
        self.forget();
        let request = Request::Unmount { root: root.to_owned(), at: at.to_owned() };
        self.done("unmount", MOUNT_WITHIN, &request)
    }

    /// The files of a root.
    pub fn tree(&self, root: &str) -> SandboxTree<'_> {
        SandboxTree { session: self, root: root.to_owned() }
    }

    /// Makes the changes, in their order. The first that fails ends it; of that file the old content is still there.
    /// Returns the paths that were marked as not to be changed (`chattr +i`), or whose folder was.
    pub fn apply(&self, root: &str, changes: &[Change]) -> Result<Vec<String>> {
        self.forget();
        let mut immutable = Vec::new();
        for change in changes {
            if self.apply_one(root.to_owned(), change)? {
                immutable.push(change.path().to_owned());
            }
        }
        Ok(immutable)
    }

    fn apply_one(&self, root: String, change: &Change) -> Result<bool> {
        match change {
            Change::Put { path, bytes, mode } => {
                let doing = format!("write {path}");
                let size = bytes.len() as u64;
                let request = Request::Put { root, path: path.clone(), mode: *mode, size };
                let within = CALL_WITHIN + Duration::from_secs(size / BYTES_PER_SECOND);
                self.with_port(&doing, within, |port| {
                    port.send(&doing, &request)?;
                    for piece in bytes.chunks(PIECE).chain([&[][..]]) {
                        protocol::send_piece(port, piece).map_err(|e| port.error(&doing, e))?;
                    }
                    match port.receive(&doing)? {
                        Reply::Changed { was_immutable } => Ok(Ok(was_immutable)),
                        Reply::Failed(failure) => Ok(Err(failure)),
                        other => Err(unexpected(&other)),
                    }
                })
            }
            Change::Symlink { path, target } => self.changed(
                &format!("link {path}"),
                &Request::Symlink { root, path: path.clone(), target: target.clone() },
            ),
            Change::Remove { path } => {
                self.changed(&format!("remove {path}"), &Request::Remove { root, path: path.clone() })
            }
            Change::Label { path, context } => {
                let request = Request::Label { root, path: path.clone(), context: context.clone() };
                self.done(&format!("label {path}"), CALL_WITHIN, &request).map(|()| false)
            }
        }
    }

    fn changed(&self, doing: &str, request: &Request) -> Result<bool> {
        match self.ask(doing, CALL_WITHIN, request)? {
            Reply::Changed { was_immutable } => Ok(was_immutable),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns when everything written so far is on the volumes.
    pub fn sync(&self) -> Result<()> {
        self.done("sync", MOUNT_WITHIN, &Request::Sync)
    }

    /// Unmounts everything and ends the machine. An error means that what was written cannot be relied upon.
    pub fn finish(mut self) -> Result<Finished> {
        let work_seconds = self.started.elapsed().as_secs_f64();
        let begin = Instant::now();
        self.done("unmount", MOUNT_WITHIN, &Request::Finish)?;
        if let Some(machine) = lock(&self.machine).take() {
            machine.quit();
        }
        let served = std::mem::take(&mut self.servers).end()?;
        // An error that no write of the guest reported, late as it is.
        if let Some(error) = self.disk_error() {
            return Err(error);
        }
        Ok(Finished {
            accelerator: self.accelerator,
            restored: self.restored,
            start_seconds: self.start_seconds,
            work_seconds,
            finish_seconds: begin.elapsed().as_secs_f64(),
            disk_read: Bytes(served.iter().map(|served| served.read.0).sum()),
            disk_written: Bytes(served.iter().map(|served| served.written.0).sum()),
        })
    }

    /// True where the machine started from a saved state.
    pub fn restored(&self) -> bool {
        self.restored
    }

    /// The process that supervises the machine, for diagnostics; `None` where it has ended.
    pub fn process_id(&self) -> Option<u32> {
        lock(&self.machine).as_ref().map(Machine::process_id)
    }

    /// How the machine runs.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    fn forget(&self) {
        *lock(&self.known) = Known::default();
    }

    /// Asks for something that has no answer but that it is done.
    fn done(&self, doing: &str, within: Duration, request: &Request) -> Result<()> {
        match self.ask(doing, within, request)? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for something with one answer.
    fn ask(&self, doing: &str, within: Duration, request: &Request) -> Result<Reply> {
        self.with_port(doing, within, |port| {
            port.send(doing, request)?;
            match port.receive(doing)? {
                Reply::Failed(failure) => Ok(Err(failure)),
                reply => Ok(Ok(reply)),
            }
        })
    }

    /// Runs one exchange with the agent. A failure that the agent tells of leaves the session as it is; an error of
    /// the exchange itself ends the machine, since nothing more that it says can be understood.
    fn with_port<T>(
        &self,
        doing: &str,
        within: Duration,
        exchange: impl FnOnce(&mut Port<'_>) -> Result<std::result::Result<T, Failure>>,
    ) -> Result<T> {
        let mut machine = lock(&self.machine);
        let Some(running) = &*machine else {
            return Err(Error::io(format!("cannot {doing}: the sandbox has ended"), broken_pipe()));
        };
        match exchange(&mut running.port(within)) {
            Ok(Ok(value)) => Ok(value),
            // What the guest's kernel calls an I/O error has its reason out here.
            Ok(Err(failure)) => Err(self.disk_error().unwrap_or_else(|| told(doing, failure))),
            Err(error) => {
                *machine = None;
                Err(match error.kind() {
                    Kind::Interrupted => error,
                    _ => self.disk_error().unwrap_or(error),
                })
            }
        }
    }

    fn disk_error(&self) -> Option<Error> {
        self.volumes.iter().find_map(|volume| lock(&volume.disk.first_error).take())
    }
}

fn broken_pipe() -> std::io::Error {
    std::io::ErrorKind::BrokenPipe.into()
}

/// A failure that the agent told of, as an error of ours. Its texts come out of the sandbox: nothing that could
/// steer a terminal passes.
fn told(doing: &str, failure: Failure) -> Error {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(2000).collect()
    };
    let mut says = format!("in the guest: {}", plain(&failure.says));
    if let [.., last] = &failure.kernel[..] {
        says.push_str(&format!(" (the kernel says: {})", plain(last)));
    }
    let corrupt = |says| {
        Error::corrupt(says).hint("check the file system inside the running guest (fsck), then convert again")
    };
    match failure.cause {
        Cause::Corrupt => corrupt(says),
        Cause::Unsupported => Error::unsupported(says),
        Cause::Refused => Error::refused(says),
        Cause::Errno(number) => {
            let error = std::io::Error::from_raw_os_error(number);
            let is_mount = doing.starts_with("mount ");
            let unsupported = |says| {
                Error::unsupported(says).hint(
                    "give the sandbox a kernel as new as the guest's, or convert the disks alone with landfall disk convert",
                )
            };
            match number {
                // EINVAL, EROFS (features that may only be read) and EOPNOTSUPP of a mount.
                22 if is_mount && failure.kernel.iter().any(|line| is_of_a_newer_kernel(line)) => {
                    unsupported(format!("{says}: {error}"))
                }
                30 | 95 if is_mount => unsupported(format!("{says}: {error}")),
                // ENOENT, EEXIST (a second volume with the same identity), EFBIG of a mount.
                2 | 17 | 27 if is_mount => Error::refused(format!("{says}: {error}")),
                // ELOOP, ENAMETOOLONG: the guest's links.
                36 | 40 => Error::corrupt(format!("{says}: {error}")),
                // EIO, EINVAL (of a mount: no such file system in there), EUCLEAN, EBADMSG: the disks themselves
                // delivered, or their error would stand here.
                5 | 117 | 74 => corrupt(format!("{says}: {error}")),
                22 if doing.starts_with("mount ") => corrupt(format!("{says}: {error}")),
                28 => Error::io(says, error).hint("free space on that file system in the running guest"),
                30 => Error::io(says, error).hint("the file system is mounted read-only in the sandbox"),
                _ => Error::io(says, error),
            }
        }
    }
}

/// True where the kernel says that a file system was made by a newer one.
fn is_of_a_newer_kernel(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let says = |what: &str| line.contains(what);
    says("feature") && (says("unknown") || says("unsupported"))
        || says("not supported by kernel")
        || says("cannot be safely mounted by this kernel")
}

/// The files of one root of a session. Answers are remembered until something is changed.
pub struct SandboxTree<'a> {
    session: &'a Session,
    root: String,
}

impl SandboxTree<'_> {
    fn meta(&self, path: &str, follow: bool) -> Result<Option<Meta>> {
        let key = (self.root.clone(), path.to_owned(), follow);
        if let Some(known) = lock(&self.session.known).metadata.get(&key) {
            return Ok(*known);
        }
        let request = Request::Metadata { root: self.root.clone(), path: path.to_owned(), follow };
        let meta = match self.session.ask(&format!("look at {path}"), CALL_WITHIN, &request)? {
            Reply::Meta(meta) => Some(meta),
            Reply::Absent => None,
            other => return Err(unexpected(&other)),
        };
        lock(&self.session.known).metadata.insert(key, meta);
        Ok(meta)
    }

    fn read_some(&self, paths: &[String], at_most: Bytes) -> Result<Vec<Option<Vec<u8>>>> {
        let Some(first) = paths.first() else { return Ok(Vec::new()) };
        let doing = format!("read {first}");
        let within = CALL_WITHIN + Duration::from_secs(at_most.0.min(1 << 40) / BYTES_PER_SECOND);
        let request = Request::Read { root: self.root.clone(), paths: paths.to_vec(), at_most: at_most.0 };
        self.session.with_port(&doing, within, |port| {
            port.send(&doing, &request)?;
            let mut contents = Vec::new();
            let mut failed = None;
            // After a failure the rest of the answers must be heard, too.
            for _ in paths {
                match content(port, &doing, at_most.0)? {
                    Ok(content) => contents.push(content),
                    Err(failure) => failed = failed.or(Some(failure)),
                }
            }
            Ok(failed.map_or(Ok(contents), Err))
        })
    }
}

/// One file or listing off the port.
pub(super) fn content(
    port: &mut Port<'_>,
    doing: &str,
    at_most: u64,
) -> Result<std::result::Result<Option<Vec<u8>>, Failure>> {
    match port.receive(doing)? {
        Reply::Absent => return Ok(Ok(None)),
        Reply::Failed(failure) => return Ok(Err(failure)),
        Reply::Content => {}
        other => return Err(unexpected(&other)),
    }
    let (mut bytes, mut piece) = (Vec::new(), Vec::new());
    while protocol::receive_piece(port, &mut piece).map_err(|e| port.error(doing, e))? {
        if (bytes.len() as u64).saturating_add(piece.len() as u64) > at_most {
            return Err(Error::refused(format!(
                "the sandbox sends more than the {} that were asked for ({doing})",
                Bytes(at_most)
            )));
        }
        bytes.extend_from_slice(&piece);
    }
    match port.receive(doing)? {
        Reply::Done => Ok(Ok(Some(bytes))),
        Reply::Failed(failure) => Ok(Err(failure)),
        other => Err(unexpected(&other)),
    }
}

impl GuestTree for SandboxTree<'_> {
    fn metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.meta(path, true)
    }

    fn link_metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.meta(path, false)
    }

    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        Ok(self.read_some(&[path.to_owned()], at_most)?.pop().flatten())
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>> {
        let key = (self.root.clone(), path.to_owned());
        if let Some(known) = lock(&self.session.known).listings.get(&key) {
            return Ok(known.clone());
        }
        let doing = format!("list {path}");
        let request = Request::List { root: self.root.clone(), path: path.to_owned() };
        let bytes = self.session.with_port(&doing, CALL_WITHIN, |port| {
            port.send(&doing, &request)?;
            // Twice, since their form on the wire is not quite what the agent counted.
            content(port, &doing, 2 * LISTING_AT_MOST as u64)
        })?;
        let listing = bytes
            .map(|bytes| postcard::from_bytes::<Listing>(&bytes))
            .transpose()
            .map_err(|e| Error::corrupt(format!("the sandbox's listing of {path} cannot be read: {e}")))?;
        lock(&self.session.known).listings.insert(key, listing.clone());
        Ok(listing)
    }

    fn read_link(&self, path: &str) -> Result<Option<String>> {
        let request = Request::ReadLink { root: self.root.clone(), path: path.to_owned() };
        match self.session.ask(&format!("read the link {path}"), CALL_WITHIN, &request)? {
            Reply::Link(target) => Ok(Some(target)),
            Reply::Absent => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    fn free_space(&self, path: &str) -> Result<Option<Bytes>> {
        let request = Request::FreeSpace { root: self.root.clone(), path: path.to_owned() };
        match self.session.ask(&format!("ask for the free space at {path}"), CALL_WITHIN, &request)? {
            Reply::Space(bytes) => Ok(Some(Bytes(bytes))),
            other => Err(unexpected(&other)),
        }
    }

    fn read_many(&self, paths: &[String], at_most: Bytes) -> Result<Vec<Option<Vec<u8>>>> {
        let mut contents = Vec::new();
        let mut rest = paths;
        while !rest.is_empty() {
            // As many as fit into one request, one at least.
            let mut len = 0usize;
            let fit = rest.iter().take_while(|path| {
                len = len.saturating_add(path.len()).saturating_add(8);
                len <= PATHS_AT_MOST
            });
            let (now, later) = rest.split_at(fit.count().max(1));
            contents.extend(self.read_some(now, at_most)?);
            rest = later;
        }
        Ok(contents)
    }
}

/// A volume's disk that keeps the first error it gave: inside, it is but an `EIO`.
struct Watched {
    disk: Arc<dyn DiskMut>,
    id: String,
    first_error: Mutex<Option<Error>>,
}

impl Watched {
    fn watch<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| {
            let again = Error::new(error.kind(), format!("the volume {} failed: {}", self.id, error.says()));
            lock(&self.first_error).get_or_insert(error);
            again
        })
    }
}

impl Disk for Watched {
    fn size(&self) -> Bytes {
        self.disk.size()
    }
    fn sector_size(&self) -> Bytes {
        self.disk.sector_size()
    }
    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<landfall_image::Extent>> {
        self.disk.extents(range, at_most)
    }
    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        self.watch(self.disk.read_at(at, buf))
    }
}

impl DiskMut for Watched {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        self.watch(self.disk.write_at(at, data))
    }
    fn zero_at(&self, range: GuestRange) -> Result<()> {
        self.watch(self.disk.zero_at(range))
    }
    fn flush(&self) -> Result<()> {
        self.watch(self.disk.flush())
    }
}

/// One NBD server per disk, each on a thread of its own. Dropped, they end.
#[derive(Default)]
struct Servers {
    running: Vec<(UnixStream, JoinHandle<Result<nbd::Served>>)>,
}

impl Servers {
    fn serve(&mut self, volume: &Volume) -> Result<NewDisk> {
        let failed = |e| Error::io("cannot serve a disk to the sandbox", e);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let stop = ours.try_clone().map_err(failed)?;
        let disk = Arc::clone(&volume.disk);
        let thread = std::thread::Builder::new()
            .name("nbd".into())
            .spawn(move || nbd::serve(&*disk, &ours, nbd::Export::default()))
            .map_err(failed)?;
        self.running.push((stop, thread));
        Ok(NewDisk {
            socket: theirs.into(),
            sector_size: volume.disk.sector_size(),
            serial: volume.serial.clone(),
        })
    }

    /// Ends them after their client has gone.
    fn end(mut self) -> Result<Vec<nbd::Served>> {
        let mut served = Vec::new();
        for (stop, thread) in self.running.drain(..) {
            let _ = stop.shutdown(Shutdown::Both);
            match thread.join() {
                Ok(Ok(one)) => served.push(one),
                // Errors of the disk are kept by `Watched`; one of the connection comes with QEMU's death.
                Ok(Err(error)) => tracing::debug!(%error, "an NBD server ended"),
                Err(_) => return Err(Error::io("a disk's server failed", broken_pipe())),
            }
        }
        Ok(served)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for (stop, _) in &self.running {
            let _ = stop.shutdown(Shutdown::Both);
        }
        for (_, thread) in self.running.drain(..) {
            let _ = thread.join();
        }
    }
}
