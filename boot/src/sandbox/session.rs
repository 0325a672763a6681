//! The host's side: one machine with one guest's volumes, from start to finish.

mod changes;
mod tree;

pub use tree::SandboxTree;
#[cfg(test)]
pub(super) use tree::content;

use super::machine::{DISKS_AT_MOST, Machine, NewDisk, Port, unexpected};
use super::protocol::{self, Cause, Failure, MountedAs, Reply, Request, Subvolume};
use super::{Accelerator, Sandbox};
use crate::tree::{Entry, Meta};
use crate::volume::ntfs::{self, Log};
use crate::{Error, Kind, Result};
use landfall_image::{Bytes, Disk, DiskMut, GuestOffset, GuestRange, nbd};
use std::collections::{BTreeSet, HashMap};
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

/// A running sandbox. Dropped without [`finish`](Session::finish) it ends at once, and what was written may be
/// incomplete: throw the overlays away then.
pub struct Session {
    machine: Mutex<Option<Machine>>,
    servers: Servers,
    volumes: Vec<Volume>,
    known: Mutex<Known>,
    /// Roots that are mounted beside others, as the agent calls them: `guest.esp`.
    beside: Mutex<BTreeSet<String>>,
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

/// What a volume is mounted for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Nothing on it changes.
    Look,
    /// Its journal is replayed.
    Read,
    Write,
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
            beside: Mutex::default(),
            started: Instant::now(),
            start_seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// Mounts the volume `id` as `fs` (the kernel's name: `ext4`, `xfs`, `btrfs`, `vfat`, `ntfs`) at `at` of the root
    /// named `root`. The first mount of a root is at `/`; others are at folders of the guest, or at a reserved name that lies
    /// in no folder (`/:esp`: a colon and up to 16 small letters). A dirty journal is replayed, also with `read_only`.
    pub fn mount(&self, id: &str, fs: &str, root: &str, at: &str, read_only: bool) -> Result<()> {
        self.mount_subvolume(id, fs, root, at, read_only, None).map(|_| ())
    }

    /// Mounts a volume at `/` to look at it: that of a Windows which sleeps must stay as it is, so NTFS is not replayed.
    pub fn mount_to_look(&self, id: &str, fs: &str, root: &str) -> Result<()> {
        self.mount_as(id, fs, root, "/", Access::Look, None).map(|_| ())
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
        let access = if read_only { Access::Read } else { Access::Write };
        self.mount_as(id, fs, root, at, access, subvolume)
    }

    fn mount_as(
        &self,
        id: &str,
        fs: &str,
        root: &str,
        at: &str,
        access: Access,
        subvolume: Option<&Subvolume>,
    ) -> Result<MountedAs> {
        let found = self.volumes.iter().enumerate().find(|(_, volume)| volume.id == id);
        let (target, volume) =
            found.ok_or_else(|| Error::refused(format!("the sandbox was not given a volume {id}")))?;
        // A volume that waits for chkdsk is Windows's to repair, journal and all.
        let replay = access == Access::Read
            && fs == "ntfs"
            && ntfs::state(&*volume.disk)?
                .is_some_and(|state| !state.is_dirty && matches!(state.log, Log::Pending { .. }));
        self.forget();
        let beside = tree::beside(at).filter(|(_, rest)| *rest == "/");
        let (root, at) = match beside {
            Some((name, _)) => (format!("{root}.{name}"), "/".to_owned()),
            None => (root.to_owned(), at.to_owned()),
        };
        let request = Request::Mount(protocol::Mount {
            target: u16::try_from(target).unwrap_or(u16::MAX),
            serial: volume.serial.clone(),
            fs: fs.to_owned(),
            root: root.clone(),
            at,
            read_only: access != Access::Write,
            replay,
            subvolume: subvolume.cloned(),
        });
        match self.ask(&format!("mount {id}"), MOUNT_WITHIN, &request)? {
            Reply::Mounted(mounted) => {
                if beside.is_some() {
                    lock(&self.beside).insert(root);
                }
                Ok(mounted)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Unmounts what was mounted there.
    pub fn unmount(&self, root: &str, at: &str) -> Result<()> {
        self.forget();
        let (root, at) = self.place(root, at);
        let request = Request::Unmount { root: root.clone(), at };
        lock(&self.beside).remove(&root);
        self.done("unmount", MOUNT_WITHIN, &request)
    }

    /// The files of a root.
    pub fn tree(&self, root: &str) -> SandboxTree<'_> {
        SandboxTree { session: self, root: root.to_owned() }
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

    /// Where the agent has a path: the root that it lies in, and the path there.
    fn place(&self, root: &str, path: &str) -> (String, String) {
        if let Some((name, rest)) = tree::beside(path) {
            let other = format!("{root}.{name}");
            if lock(&self.beside).contains(&other) {
                return (other, rest.to_owned());
            }
        }
        (root.to_owned(), path.to_owned())
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
        Error::corrupt(says)
            .hint("check the file system inside the running guest (fsck, chkdsk), then convert again")
    };
    match failure.cause {
        Cause::Corrupt => corrupt(says),
        Cause::Unsupported if failure.says.contains("has no driver") => Error::unsupported(says)
            .hint("give the sandbox a kernel that has it (tools/fetch-sandbox-kernel.sh FOLDER takes one with ntfs3)"),
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
                22 if is_mount && failure.kernel.iter().any(|line| line.contains("Unknown parameter")) => {
                    Error::unsupported(format!("{says}: the kernel does not know how"))
                        .hint("give the sandbox a kernel of 6.2 or newer (tools/fetch-sandbox-kernel.sh)")
                }
                // EOPNOTSUPP of a file: ntfs3 says why.
                95 if !is_mount && failure.kernel.iter().any(|line| line.contains("ntfs3")) => {
                    Error::unsupported(says).hint(
                        "unpack it in the running guest: `compact /u /exe` for a compressed program, `compact /compactos:never` for all; decrypt or rehydrate other files",
                    )
                }
                // EINVAL, EROFS (features that may only be read) and EOPNOTSUPP of a mount.
                22 if is_mount && failure.kernel.iter().any(|line| is_of_a_newer_kernel(line)) => {
                    unsupported(format!("{says}: {error}"))
                }
                30 | 95 if is_mount => unsupported(format!("{says}: {error}")),
                // ENOENT, EEXIST (a second volume with the same identity), EFBIG of a mount.
                2 | 17 | 27 if is_mount => Error::refused(format!("{says}: {error}")),
                // ENOTUNIQ: folders of NTFS that tell case apart, as Linux programs on Windows make them.
                76 => Error::refused(format!("{says}: names there differ in nothing but case")),
                // EOVERFLOW of our own.
                75 => Error::refused(format!("{says}: a folder there has more names than are looked through")),
                // EINVAL of a file: what ntfs3 says of damage.
                22 if failure.kernel.iter().any(|line| line.contains("ntfs3")) => {
                    corrupt(format!("{says}: {error}"))
                }
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
