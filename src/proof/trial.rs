//! One boot trial: starts the machine, listens, takes the picture, ends it.

use super::hardware::{self, Handles, SCREENSHOT_SET};
use super::watch::{Console, Inside};
use super::{Outcome, watch};
use crate::machine::Machine;
use landfall_boot::sandbox::{Accelerator, Confined, Sandbox};
use landfall_image::nbd::{self, Export};
use landfall_image::{DiskMut, Error, Result};
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// File names of the evidence.
pub const SERIAL_LOG: &str = "serial.log";
/// See [`SERIAL_LOG`].
pub const SCREENSHOT: &str = "screen.png";

/// The console of a trial that was repeated.
pub const EARLIER_LOG: &str = "serial-earlier.log";

/// Bytes kept of the console: a guest that writes without end must not fill the host.
const LOG_AT_MOST: u64 = 64 << 20;

/// After a login prompt the probe gets this long to speak, before the prompt alone counts.
const PROBE_AFTER_LOGIN: Duration = Duration::from_secs(120);

/// After a stop is seen the machine goes on this long, so that the log shows what follows.
const AFTER_STOP: Duration = Duration::from_secs(5);

/// How often the lines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// What is tried.
pub struct Trial<'a> {
    /// The machine as the target has it.
    pub machine: &'a Machine,
    /// Its disks; written to.
    pub disks: Vec<Arc<dyn DiskMut>>,
    /// Runs it.
    pub sandbox: &'a Sandbox,
    /// By what.
    pub accelerator: Accelerator,
    /// Power-on to giving up.
    pub within: Duration,
    /// The probe is in the guest: wait for what it says.
    pub probed: bool,
    /// The machine's UEFI variables, where they are known.
    pub variables: Option<&'a [u8]>,
    /// Evidence goes here.
    pub folder: &'a Path,
}

/// What came of it.
pub struct Seen {
    /// In a word.
    pub outcome: Outcome,
    /// What shows it.
    pub because: String,
    /// From power-on.
    pub login: Option<Duration>,
    /// From power-on.
    pub multi_user: Option<Duration>,
    /// From power-on to the end.
    pub took: Duration,
    /// What the guest said, if it said anything.
    pub inside: Option<Inside>,
    /// The devices in words.
    pub devices: Vec<String>,
    /// The evidence in the folder.
    pub files: Vec<String>,
}

impl Seen {
    /// True where the guest's kernel died of a processor's exception, or of a timer that did not tick while it counted.
    /// QEMU 7.2 emulates some instructions wrongly once in many boots (see [`hardware`]), and has no time for the timer on a
    /// busy host; a missing disk or driver ends otherwise.
    pub fn may_be_the_emulators_fault(&self) -> bool {
        self.outcome == Outcome::Stopped && is_the_processors(&self.because)
    }
}

fn is_the_processors(because: &str) -> bool {
    let causes = ["Fatal exception", "IO-APIC + timer doesn't work"];
    because.contains("Kernel panic") && causes.iter().any(|cause| because.contains(cause))
}

/// The servers of the disks; dropped, they end.
struct Servers(Vec<(UnixStream, JoinHandle<()>)>);

impl Servers {
    /// One connection for each disk; QEMU's ends are returned.
    fn start(disks: &[Arc<dyn DiskMut>]) -> Result<(Servers, Vec<UnixStream>)> {
        let mut servers = Servers(Vec::new());
        let mut theirs = Vec::new();
        for disk in disks {
            let (ours, other) = UnixStream::pair().map_err(cannot_prepare)?;
            let stream = ours.try_clone().map_err(cannot_prepare)?;
            let disk = Arc::clone(disk);
            let serve = move || {
                if let Err(error) = nbd::serve(&*disk, &stream, Export::default()) {
                    tracing::warn!(%error, "a disk of the trial failed");
                }
            };
            let thread =
                std::thread::Builder::new().name("trial-disk".into()).spawn(serve).map_err(cannot_prepare)?;
            servers.0.push((ours, thread));
            theirs.push(other);
        }
        Ok((servers, theirs))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for (stream, thread) in self.0.drain(..) {
            // The other side may be gone already.
            let _ = stream.shutdown(Shutdown::Both);
            let _ = thread.join();
        }
    }
}

fn cannot_prepare(error: std::io::Error) -> Error {
    Error::io("cannot prepare the boot trial", error)
}

/// A line that is read without waiting.
struct Line(UnixStream);

impl Line {
    fn pair() -> Result<(Line, UnixStream)> {
        let (ours, theirs) = UnixStream::pair().map_err(cannot_prepare)?;
        ours.set_nonblocking(true).map_err(cannot_prepare)?;
        Ok((Line(ours), theirs))
    }

    /// What came since the last call; `None` once the other side is closed.
    fn read(&mut self) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        // What a flooding guest writes is taken in portions.
        while all.len() < 1 << 20 {
            match self.0.read(&mut buffer) {
                Ok(0) if all.is_empty() => return None,
                Ok(0) => break,
                Ok(len) => all.extend_from_slice(&buffer[..len]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        Some(all)
    }
}

impl Trial<'_> {
    /// Runs it to its end.
    pub fn run(self) -> Result<Seen> {
        let uefi = hardware::firmware(self.machine)?;
        let create = |name: &str| {
            let path = self.folder.join(name);
            File::create(&path).map_err(|e| Error::io("cannot write", e).in_file(&path))
        };
        let mut log = create(SERIAL_LOG)?;
        // QEMU writes the picture through this handle; it wants one that can only write.
        let screenshot = create(SCREENSHOT)?;
        let variables = match &uefi {
            None => None,
            Some(uefi) => Some(variables(&uefi.variables, self.variables)?),
        };
        let (servers, sockets) = Servers::start(&self.disks)?;
        let (qmp, qmp_theirs) = UnixStream::pair().map_err(cannot_prepare)?;
        let (mut console_line, console_theirs) = Line::pair()?;
        let (mut probe_line, probe_theirs) = Line::pair()?;
        let handles = Handles {
            qmp: 10,
            console: 11,
            probe: 12,
            variables: variables.is_some().then_some(13),
            screenshot: 14,
            disks: (20..).take(sockets.len()).collect(),
        };
        let mut fds: Vec<(OwnedFd, i32)> = vec![
            (qmp_theirs.into(), handles.qmp),
            (console_theirs.into(), handles.console),
            (probe_theirs.into(), handles.probe),
            (screenshot.into(), handles.screenshot),
        ];
        fds.extend(variables.map(|file| (file.into(), 13)));
        fds.extend(sockets.into_iter().map(OwnedFd::from).zip(handles.disks.iter().copied()));
        let memory = hardware::memory_mib(self.machine, crate::meminfo::available());
        let (args, devices) =
            hardware::arguments(self.machine, memory, self.accelerator, uefi.as_ref(), &handles);

        let started = Instant::now();
        let mut vm = Confined::start(self.sandbox, &args, self.accelerator, qmp, fds)?;
        let mut console = Console::default();
        let mut inside = Inside::default();
        let mut pending = Vec::new();
        let mut multi_user = None;
        let mut stop_at: Option<Instant> = None;
        let mut logged = 0u64;
        let (outcome, because) = loop {
            let now = started.elapsed();
            let bytes = console_line.read();
            if let Some(bytes) = &bytes {
                console.take(bytes, now);
                let fits = usize::try_from(LOG_AT_MOST - logged).unwrap_or(usize::MAX).min(bytes.len());
                log.write_all(&bytes[..fits]).map_err(|e| Error::io("cannot write the serial log", e))?;
                logged += fits as u64;
            }
            for byte in probe_line.read().unwrap_or_default() {
                match byte {
                    b'\n' => inside.line(&String::from_utf8_lossy(&std::mem::take(&mut pending))),
                    _ if pending.len() < 4096 => pending.push(byte),
                    _ => {}
                }
            }
            if inside.multi_user && multi_user.is_none() {
                multi_user = Some(now);
            }
            if inside.complete {
                break (Outcome::Booted, "the guest says that it reached its multi-user target".to_owned());
            }
            if let Some(login) = console.login
                && (!self.probed || now > login + PROBE_AFTER_LOGIN)
            {
                break (Outcome::Booted, "a login prompt is on the serial console".to_owned());
            }
            if let Some((meaning, line)) = &console.stopped {
                let stop = *stop_at.get_or_insert_with(|| Instant::now() + AFTER_STOP);
                if Instant::now() >= stop {
                    break (Outcome::Stopped, format!("{meaning}: {line:?}"));
                }
            }
            if now >= self.within {
                break match inside.multi_user {
                    true => {
                        (Outcome::Booted, "the guest says that it reached its multi-user target".to_owned())
                    }
                    false => {
                        (Outcome::TimedOut, format!("no login prompt within {} s", self.within.as_secs()))
                    }
                };
            }
            if vm.has_ended() {
                vm.check()?;
                break (Outcome::Stopped, "the machine switched itself off".to_owned());
            }
            vm.check()?;
            std::thread::sleep(TICK);
        };
        let took = started.elapsed();
        let mut files = vec![SERIAL_LOG.to_owned()];
        if picture(&mut vm) {
            files.push(SCREENSHOT.to_owned());
        } else {
            let _ = fs::remove_file(self.folder.join(SCREENSHOT));
        }
        drop(vm);
        drop(servers);
        Ok(Seen {
            outcome,
            because,
            login: console.login,
            multi_user,
            took,
            inside: (inside != watch::Inside::default()).then_some(inside),
            devices,
            files,
        })
    }
}

/// A copy of the firmware's variables that dies with the trial: of the machine's own where the firmware starts with them.
fn variables(template: &Path, own: Option<&[u8]>) -> Result<File> {
    use std::io::Seek;
    let cannot = |e| Error::io("cannot read", e).in_file(template);
    let template = std::fs::read(template).map_err(cannot)?;
    let source = own.filter(|own| own.len() == template.len()).unwrap_or(&template);
    let named = tempfile::NamedTempFile::new().map_err(cannot_prepare)?;
    // Opened by name for reading and writing: QEMU looks at the handle's mode.
    let mut copy = OpenOptions::new().read(true).write(true).open(named.path()).map_err(cannot_prepare)?;
    copy.write_all(source).map_err(cannot_prepare)?;
    copy.rewind().map_err(cannot_prepare)?;
    Ok(copy)
}

/// Takes a picture of the screen. False where there is none; the outcome does not hang on it.
fn picture(vm: &mut Confined) -> bool {
    let filename = format!("/dev/fdset/{SCREENSHOT_SET}");
    match vm.call("screendump", json!({ "filename": filename, "format": "png" })) {
        Ok(_) => true,
        Err(error) => {
            tracing::info!(%error, "no screenshot");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_disk_is_not_blamed_on_the_emulator() {
        let says = |line: &str| {
            let mut console = Console::default();
            console.take(format!("{line}\n").as_bytes(), Duration::ZERO);
            let (meaning, line) = console.stopped.unwrap();
            is_the_processors(&format!("{meaning}: {line:?}"))
        };
        assert!(says("[   25.06] Kernel panic - not syncing: Fatal exception in interrupt"));
        assert!(says(
            "[    1.31] Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug"
        ));
        assert!(!says(
            "[    3.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
        ));
        assert!(!says("Gave up waiting for root file system device."));
    }
}
