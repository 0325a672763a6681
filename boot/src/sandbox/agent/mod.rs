//! The sandbox's PID 1: mounts the guest's file systems and does to their files what the host asks, nothing else.
//!
//! It runs no program of the guest and none besides itself. Cut by phase: this file starts the machine and answers
//! requests, [`mounts`] mounts and unmounts, [`files`] reads and writes below a root, [`place`] how a file is written, [`flags`] lifts
//! what locks a file, [`windows`] knows what is particular to NTFS and FAT.

mod files;
mod flags;
mod klog;
mod mounts;
mod place;
mod windows;

use super::protocol::{self, Cause, Failure, Reply, Request};
use files::{Pieces, Root};
use mounts::Mounts;
use rustix::mount::{MountFlags, mount};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long devices may take to appear after their driver is loaded. Under emulation on a busy machine it was
/// seen to take half a second.
const DEVICES_WITHIN: Duration = Duration::from_secs(20);

/// True in the sandbox, where this process is PID 1. A process with that number in a container is not.
pub fn is_sandbox() -> bool {
    std::process::id() == 1 && Path::new(protocol::MARKER).exists()
}

/// Answers the host until it wants no more, then powers the machine off. Call it where [`is_sandbox`] says so.
pub fn run() -> ! {
    if let Err(failure) = serve() {
        // Standard error is the serial console, whose last lines the host shows.
        eprintln!("landfall: {failure}");
    }
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    // PID 1 must not return; without ACPI the machine cannot power off, and the host ends it.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn serve() -> io::Result<()> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(at)?;
        mount(kind, at, kind, MountFlags::empty(), None)
            .map_err(|e| io::Error::other(format!("cannot mount {at}: {e}")))?;
    }
    let trouble = load_modules(protocol::MODULES_AT_BOOT)?;
    let mut port = open_port()?;
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    // What is free now need not be part of a saved state.
    let _ = fs::write("/proc/sys/vm/drop_caches", "3");
    protocol::send(&mut port, &Reply::Ready { version: protocol::VERSION, kernel, trouble })?;
    let mut mounts = Mounts::default();
    loop {
        let request = match protocol::receive::<Request>(&mut port) {
            Ok(request) => request,
            // The host is gone: there is nobody to finish for.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e),
        };
        let finish = request == Request::Finish;
        answer(&mut port, &mut mounts, request)?;
        if finish {
            return Ok(());
        }
    }
}

/// Loads the modules in the order that the host worked out. What cannot be loaded is reported, not fatal: a missing
/// file system shows when it is asked for.
fn load_modules(list: &str) -> io::Result<Vec<String>> {
    let mut trouble = Vec::new();
    let order = fs::read_to_string(list)?;
    // Once is enough.
    fs::write(list, "")?;
    for name in order.lines() {
        let path = format!("{}/{name}", protocol::MODULES);
        let loaded = File::open(&path).and_then(|file| {
            Ok(rustix::system::finit_module(&file, c"", 0).or_else(|e| match e {
                rustix::io::Errno::EXIST => Ok(()),
                e => Err(e),
            })?)
        });
        if let Err(error) = loaded {
            trouble.push(format!("{name}: {error}"));
        }
        // The file has done its duty, and would only take memory.
        let _ = fs::remove_file(&path);
    }
    Ok(trouble)
}

/// The host's end of the virtio-serial port, once its driver has found it.
fn open_port() -> io::Result<File> {
    let named = || -> io::Result<Option<String>> {
        let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else { return Ok(None) };
        for port in ports {
            let port = port?;
            let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
            if name.trim_end() == protocol::PORT_NAME {
                return Ok(Some(port.file_name().to_string_lossy().into_owned()));
            }
        }
        Ok(None)
    };
    let name = wait_for(named)?.ok_or_else(|| io::Error::other("the host's port did not appear"))?;
    let path = format!("/dev/{name}");
    wait_for(|| match fs::OpenOptions::new().read(true).write(true).open(&path) {
        Ok(port) => Ok(Some(port)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    })?
    .ok_or_else(|| io::Error::other(format!("{path} did not appear")))
}

/// Asks until there is an answer, or for [`DEVICES_WITHIN`].
fn wait_for<T>(mut ask: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    let end = Instant::now() + DEVICES_WITHIN;
    loop {
        match ask()? {
            Some(found) => return Ok(Some(found)),
            None if Instant::now() >= end => return Ok(None),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Answers one request. An error is one of the port; everything else goes to the host as [`Reply::Failed`].
fn answer<P: Read + Write>(port: &mut P, mounts: &mut Mounts, request: Request) -> io::Result<()> {
    let log = klog::Mark::now();
    let changes = matches!(
        request,
        Request::Mount(_)
            | Request::Unmount { .. }
            | Request::Put { .. }
            | Request::Symlink { .. }
            | Request::Remove { .. }
    );
    if changes {
        windows::forget();
    }
    let reply = match request {
        Request::Begin { version, nonce, unix_seconds, nanos, seed } => {
            begin(unix_seconds, nanos, &seed).map(|()| {
                let _ = version; // the host compares
                Reply::Begun { version: protocol::VERSION, nonce }
            })
        }
        Request::LoadAll => match load_modules(protocol::MODULES_LATER) {
            Ok(_) => {
                let _ = fs::write("/proc/sys/vm/drop_caches", "3");
                Ok(Reply::Done)
            }
            Err(e) => Err(Failure::errno("cannot load the modules", &e)),
        },
        Request::Mount(wanted) => mounts.mount(&wanted).map(Reply::Mounted),
        Request::Unmount { root, at } => mounts.unmount(&root, &at).map(|()| Reply::Done),
        Request::Metadata { root, path, follow } => Root::open(&root)
            .and_then(|root| root.metadata(&path, follow))
            .map(|meta| meta.map_or(Reply::Absent, Reply::Meta)),
        Request::Read { root, paths, at_most } => return read(port, &root, &paths, at_most),
        Request::Head { root, path, len } => return head(port, &root, &path, len),
        Request::List { root, path } => return list(port, &root, &path),
        Request::ReadLink { root, path } => Root::open(&root)
            .and_then(|root| root.read_link(&path))
            .map(|target| target.map_or(Reply::Absent, Reply::Link)),
        Request::FreeSpace { root, path } => {
            Root::open(&root).and_then(|root| root.free_space(&path)).map(Reply::Space)
        }
        Request::Put { root, path, mode, size } => {
            let mut stream = Incoming { port, buffer: Vec::new(), ended: false };
            let put = Root::open(&root).and_then(|root| root.put(&path, mode, size, &mut stream));
            // Whatever went wrong, the rest of the stream must be taken off the port.
            while stream.next()?.is_some() {}
            put.map(changed)
        }
        Request::Symlink { root, path, target } => {
            Root::open(&root).and_then(|root| root.symlink(&path, &target)).map(changed)
        }
        Request::Remove { root, path } => Root::open(&root).and_then(|root| root.remove(&path)).map(changed),
        Request::Label { root, path, context } => {
            Root::open(&root).and_then(|root| root.label(&path, &context)).map(|()| Reply::Done)
        }
        Request::Sync => mounts.sync().map(|()| Reply::Done),
        Request::Finish => mounts.finish().map(|()| Reply::Done),
    };
    if changes {
        windows::forget();
    }
    let reply = reply.unwrap_or_else(|mut failure| {
        failure.kernel = log.lines();
        Reply::Failed(failure)
    });
    protocol::send(port, &reply)
}

fn changed(was_immutable: bool) -> Reply {
    Reply::Changed { was_immutable }
}

/// A stream from the host, piece by piece.
struct Incoming<'a, P> {
    port: &'a mut P,
    buffer: Vec<u8>,
    ended: bool,
}

impl<P: Read> Pieces for Incoming<'_, P> {
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if !self.ended {
            self.ended = !protocol::receive_piece(self.port, &mut self.buffer)?;
        }
        Ok((!self.ended).then_some(&self.buffer))
    }
}

/// A restored machine has the clock and the random state of the day when it was saved.
fn begin(unix_seconds: i64, nanos: u32, seed: &[u8]) -> Result<(), Failure> {
    let now = rustix::time::Timespec { tv_sec: unix_seconds, tv_nsec: nanos.into() };
    rustix::time::clock_settime(rustix::time::ClockId::Realtime, now)
        .map_err(|e| Failure::errno("cannot set the clock", &e.into()))?;
    fs::write("/dev/urandom", seed).map_err(|e| Failure::errno("cannot seed the random state", &e))
}

fn read<P: Read + Write>(port: &mut P, root: &str, paths: &[String], at_most: u64) -> io::Result<()> {
    let log = klog::Mark::now();
    let fail = |port: &mut P, mut failure: Failure| {
        failure.kernel = log.lines();
        protocol::send(port, &Reply::Failed(failure))
    };
    let root = match Root::open(root) {
        Ok(root) => root,
        Err(failure) => return paths.iter().try_for_each(|_| fail(port, failure.clone())),
    };
    let mut buffer = vec![0; protocol::PIECE];
    for path in paths {
        let mut file = match root.open_file(path, at_most) {
            Ok(Some(file)) => file,
            Ok(None) => {
                protocol::send(port, &Reply::Absent)?;
                continue;
            }
            Err(failure) => {
                fail(port, failure)?;
                continue;
            }
        };
        protocol::send(port, &Reply::Content)?;
        let mut sent: u64 = 0;
        let outcome = loop {
            match file.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(len) => {
                    sent = sent.saturating_add(len as u64);
                    if sent > at_most {
                        break Err(files::too_long(path, sent, at_most));
                    }
                    protocol::send_piece(port, buffer.get(..len).unwrap_or_default())?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(Failure::errno(format!("cannot read {path} at byte {sent}"), &e)),
            }
        };
        protocol::send_piece(port, &[])?;
        match outcome {
            Ok(()) => protocol::send(port, &Reply::Done)?,
            Err(failure) => fail(port, failure)?,
        }
    }
    Ok(())
}

/// The beginning of a file, however long that is.
fn head<P: Write>(port: &mut P, root: &str, path: &str, len: u32) -> io::Result<()> {
    let log = klog::Mark::now();
    let read = Root::open(root).and_then(|root| root.open_file(path, u64::MAX)).and_then(|file| {
        let Some(file) = file else { return Ok(None) };
        let mut bytes = Vec::new();
        let at_most = u64::from(len).min(protocol::PIECE as u64);
        let failed = |e: io::Error| Failure::errno(format!("cannot read {path}"), &e);
        file.take(at_most).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    });
    send_content(port, &log, read)
}

fn list<P: Write>(port: &mut P, root: &str, path: &str) -> io::Result<()> {
    let log = klog::Mark::now();
    let listing = Root::open(root).and_then(|root| root.list(path)).and_then(|entries| match entries {
        None => Ok(None),
        Some(entries) => postcard::to_stdvec(&entries)
            .map(Some)
            .map_err(|e| Failure::new(Cause::Refused, format!("cannot list {path}: {e}"))),
    });
    send_content(port, &log, listing)
}

/// Bytes as a stream, or why there are none.
fn send_content<P: Write>(
    port: &mut P,
    log: &klog::Mark,
    content: Result<Option<Vec<u8>>, Failure>,
) -> io::Result<()> {
    match content {
        Ok(Some(bytes)) => {
            protocol::send(port, &Reply::Content)?;
            bytes.chunks(protocol::PIECE).try_for_each(|piece| protocol::send_piece(port, piece))?;
            protocol::send_piece(port, &[])?;
            protocol::send(port, &Reply::Done)
        }
        Ok(None) => protocol::send(port, &Reply::Absent),
        Err(mut failure) => {
            failure.kernel = log.lines();
            protocol::send(port, &Reply::Failed(failure))
        }
    }
}
