//! One QEMU process: confined, watched, and ended with certainty.
//!
//! The confinement is the boundary around a hostile guest: QEMU's authors do not call emulation one. `bwrap` gives it
//! name spaces of its own with no network and nothing to see but the system's libraries, an unprivileged user and no
//! way to more; QEMU's own filter takes system calls away. Disks and channels are handles that it inherits.

use super::qmp::Watch;
use super::{Confinement, Settings};
use crate::{Error, Result};
use command_fds::{CommandFdExt, FdMapping};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of QEMU's messages and of the serial console that are kept, each.
const TAIL: usize = 16 << 10;

/// The user of a sandbox that root starts: `nobody` on every distribution.
const NOBODY: u32 = 65534;

/// Where programs are looked for that are named without a folder.
const PROGRAM_FOLDERS: [&str; 5] = ["/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin", "/usr/libexec"];

/// The program `name`: a path, or a name in the usual folders.
pub(super) fn find_program(name: &Path, hint: &str) -> Result<PathBuf> {
    let found = if name.components().count() > 1 {
        name.exists().then(|| name.to_owned())
    } else {
        PROGRAM_FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
    };
    let missing =
        || Error::io("cannot find the program", std::io::ErrorKind::NotFound.into()).in_file(name).hint(hint);
    found
        .ok_or_else(missing)?
        .canonicalize()
        .map_err(|e| Error::io("cannot find the program", e).in_file(name))
}

/// Between the confiner and QEMU: it says that the confinement stands, and waits for a word. A confiner that is killed while it
/// builds leaves its child behind, which has not asked yet to be ended with it; that child then hears nobody, and ends.
const GATE: &str = "echo >&8 && read -r go <&9 && exec \"$@\" 8>&- 9<&-";
const SHELL: &str = "/bin/sh";
/// The gate's handles; shells have names for those below 10 only.
const FD_READY: i32 = 8;
const FD_GO: i32 = 9;

/// The confinement is a matter of milliseconds; of a second, where a busy machine copies a kernel into it.
const CONFINED_WITHIN: Duration = Duration::from_secs(60);

/// A running QEMU. Dropping it ends the process and waits for its end.
pub(super) struct Process {
    shared: Arc<Shared>,
    pidfd: OwnedFd,
    id: u32,
    threads: Vec<JoinHandle<()>>,
    cancel: Arc<AtomicBool>,
}

#[derive(Default)]
struct Shared {
    status: Mutex<Option<ExitStatus>>,
    ended: Condvar,
    messages: Mutex<VecDeque<u8>>,
    console: Mutex<VecDeque<u8>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    /// Starts `qemu` with `args`. `fds` are inherited under the numbers given, and so are `files`, whose names for
    /// QEMU take the place of `{NUMBER}` in an argument.
    pub(super) fn start(
        settings: &Settings,
        qemu: &Path,
        args: &[String],
        with_kvm: bool,
        mut fds: Vec<(OwnedFd, i32)>,
        files: Vec<(File, i32)>,
    ) -> Result<Process> {
        let numbers: Vec<i32> = files.iter().map(|(_, number)| *number).collect();
        let mut command = command(settings, qemu, with_kvm, &numbers)?;
        for arg in args {
            let named = numbers.iter().fold(arg.clone(), |arg, number| {
                arg.replace(&format!("{{{number}}}"), &file_name(settings, *number))
            });
            command.arg(named);
        }
        fds.extend(files.into_iter().map(|(file, number)| (file.into(), number)));
        command.env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let pipes = std::io::pipe().and_then(|ready| Ok((ready, std::io::pipe()?)));
        let ((ready, to_ready), (from_go, go)) = pipes.map_err(|e| Error::io("cannot make a pipe", e))?;
        fds.extend([(to_ready.into(), FD_READY), (from_go.into(), FD_GO)]);
        let mappings =
            fds.into_iter().map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
        command
            .fd_mappings(mappings)
            .map_err(|_| Error::refused("two handles of the sandbox have one number"))?;
        let shared = Arc::new(Shared::default());
        let (started, start) = mpsc::channel();
        // The kernel ends the process with the *thread* that started it (bwrap asks for that), so that thread must
        // live as long as the process: it is the one that waits for it.
        let waiter = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("sandbox".into())
                .spawn(move || {
                    let spawned = command.spawn();
                    drop(command); // our copies of the child's handles
                    let mut child = match spawned {
                        Ok(child) => child,
                        Err(e) => return drop(started.send(Err(e))),
                    };
                    let outputs = (child.id(), child.stdout.take(), child.stderr.take());
                    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
                    let pidfd = pid.ok_or(rustix::io::Errno::INVAL).and_then(|pid| {
                        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                    });
                    if pidfd.is_err() {
                        let _ = child.kill();
                    }
                    let _ = started.send(pidfd.map(|pidfd| (pidfd, outputs)).map_err(Into::into));
                    let status = child.wait().ok();
                    *lock(&shared.status) = Some(status.unwrap_or_default());
                    shared.ended.notify_all();
                })
                .map_err(|e| Error::io("cannot start a thread", e))?
        };
        let failed =
            |e| Error::io("cannot start the sandbox", e).hint("install bubblewrap and qemu-system-x86");
        let (pidfd, (id, stdout, stderr)) = match start.recv() {
            Ok(Ok(started)) => started,
            Ok(Err(e)) => return Err(failed(e)),
            Err(_) => return Err(failed(std::io::ErrorKind::Other.into())),
        };
        let mut process =
            Process { shared, pidfd, id, threads: vec![waiter], cancel: Arc::clone(&settings.cancel) };
        process.drain(stdout, |shared| &shared.console)?;
        process.drain(stderr, |shared| &shared.messages)?;
        process.let_in(&ready, go)?;
        Ok(process)
    }

    /// Opens the gate once the confinement stands. Where it does not come to that, the process's end tells why.
    fn let_in(&self, ready: &PipeReader, mut go: PipeWriter) -> Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let deadline = Instant::now() + CONFINED_WITHIN;
        let look = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        loop {
            self.check()?;
            match poll(&mut [PollFd::new(ready, PollFlags::IN)], Some(&look)) {
                Ok(0) | Err(rustix::io::Errno::INTR) if Instant::now() < deadline => {}
                Ok(0) => {
                    return Err(Error::io("cannot confine the sandbox", std::io::ErrorKind::TimedOut.into())
                        .hint("look what keeps the machine so busy"));
                }
                Ok(_) => break,
                Err(e) => return Err(Error::io("cannot wait for the sandbox", e.into())),
            }
        }
        // A process that has ended hears nothing, and is found out at its monitor.
        let _ = go.write_all(b"go\n");
        Ok(())
    }

    /// Keeps the last of what comes out of `pipe`, until it ends.
    fn drain(
        &mut self,
        pipe: Option<impl Read + Send + 'static>,
        tail: fn(&Shared) -> &Mutex<VecDeque<u8>>,
    ) -> Result<()> {
        let Some(mut pipe) = pipe else { return Ok(()) };
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("sandbox-output".into()).spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(len) => {
                        let mut tail = lock(tail(&shared));
                        tail.extend(buffer.get(..len).unwrap_or_default());
                        let surplus = tail.len().saturating_sub(TAIL);
                        tail.drain(..surplus);
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        });
        self.threads.push(thread.map_err(|e| Error::io("cannot start a thread", e))?);
        Ok(())
    }

    /// Waits for the process to end by itself. False where it has not within that time.
    pub(super) fn wait(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut status = lock(&self.shared.status);
        while status.is_none() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            status = self.shared.ended.wait_timeout(status, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Of the first process: the confiner's.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Ends the process, now.
    pub(super) fn kill(&self) {
        if lock(&self.shared.status).is_none() {
            let _ = rustix::process::pidfd_send_signal(self.pidfd.as_fd(), rustix::process::Signal::KILL);
        }
    }

    /// The last lines that QEMU wrote and that appeared on the machine's console, as text that is safe to print.
    pub(super) fn last_words(&self) -> String {
        let mut out = String::new();
        for (what, tail) in [("QEMU", &self.shared.messages), ("console", &self.shared.console)] {
            let bytes: Vec<u8> = lock(tail).iter().copied().collect();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            for line in lines.iter().skip(lines.len().saturating_sub(8)) {
                let line: String = line.chars().filter(|c| !c.is_control()).take(300).collect();
                out.push_str(&format!("\n  {what}: {line}"));
            }
        }
        out
    }

    /// How it ended; the error of a process that should not have.
    pub(super) fn death(&self, status: ExitStatus) -> Error {
        // What it wrote last may still be on its way through the pipe.
        std::thread::sleep(Duration::from_millis(20));
        let words = self.last_words();
        let error = Error::io(
            format!("the sandbox's QEMU ended ({status}){words}"),
            std::io::ErrorKind::BrokenPipe.into(),
        );
        if words.contains("QEMU: bwrap:") {
            return Error::refused(format!("the sandbox cannot be confined on this machine{words}")).hint(
                "allow user namespaces for ordinary users (sysctl kernel.unprivileged_userns_clone=1, or \
                 kernel.apparmor_restrict_unprivileged_userns=0). In a chroot the kernel never allows them: use \
                 the machine itself, or a container with a root of its own (systemd-nspawn)",
            );
        }
        error
    }
}

impl Watch for Process {
    fn check(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::interrupted());
        }
        let status = *lock(&self.shared.status);
        status.map_or(Ok(()), |status| Err(self.death(status)))
    }

    fn hung_up(&self) -> Result<()> {
        self.wait(Duration::from_secs(2));
        self.check()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What QEMU calls a file that it inherits. Confined it has no `/proc`: containers often forbid to mount one, and
/// it would show no more than what is passed here.
fn file_name(settings: &Settings, number: i32) -> String {
    match settings.confinement {
        Confinement::Required => format!("/files/{number}"),
        Confinement::Off => format!("/proc/self/fd/{number}"),
    }
}

/// The command before QEMU's own arguments.
fn command(settings: &Settings, qemu: &Path, with_kvm: bool, files: &[i32]) -> Result<Command> {
    if settings.confinement == Confinement::Off {
        // Still ended with us, if by nothing better.
        let mut command = match find_program(Path::new("setpriv"), "") {
            Ok(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--", SHELL]);
                command
            }
            Err(_) => Command::new(SHELL),
        };
        command.args(["-c", GATE, "sh"]).arg(qemu);
        return Ok(command);
    }
    let bwrap = find_program(&settings.bwrap, super::BWRAP)?;
    let mut command = Command::new(bwrap);
    command.args(["--unshare-all", "--die-with-parent", "--new-session"]);
    command.args(["--ro-bind", "/usr", "/usr"]);
    for name in ["bin", "sbin", "lib", "lib32", "lib64"] {
        let path = Path::new("/").join(name);
        match std::fs::read_link(&path) {
            Ok(target) => drop(command.arg("--symlink").arg(target).arg(&path)),
            Err(_) if path.is_dir() => drop(command.arg("--ro-bind").arg(&path).arg(&path)),
            Err(_) => {}
        }
    }
    command.args(["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]);
    // A QEMU outside of /usr brings its firmware along: PREFIX/bin/qemu, PREFIX/share/qemu.
    if !qemu.starts_with("/usr") {
        let prefix = qemu.parent().and_then(Path::parent).filter(|prefix| prefix.components().count() > 1);
        let prefix = prefix.unwrap_or(qemu);
        command.arg("--ro-bind").arg(prefix).arg(prefix);
    }
    command.args(["--dev", "/dev"]);
    for number in files {
        // Copied: the file itself may lie where the sandbox's user may not look.
        command.arg("--ro-bind-data").arg(number.to_string()).arg(file_name(settings, *number));
    }
    if with_kvm {
        command.args(["--dev-bind", "/dev/kvm", "/dev/kvm"]);
    }
    command.args(["--", SHELL, "-c", GATE, "sh"]).arg(qemu);
    if rustix::process::geteuid().is_root() {
        use std::os::unix::fs::MetadataExt;
        // Supplementary groups are dropped along with the user. The group of /dev/kvm may open it.
        let kvm = with_kvm.then(|| std::fs::metadata("/dev/kvm").ok()).flatten();
        command.uid(NOBODY).gid(kvm.map_or(NOBODY, |kvm| kvm.gid()));
    }
    Ok(command)
}
