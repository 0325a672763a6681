//! One machine: QEMU's command line, the saved state, and disks added while it runs.

use super::cache::Key;
use super::process::Process;
use super::protocol::{self, Reply};
use super::qmp::{Qmp, TICK, Watch};
use super::{Accelerator, Boot, Sandbox, kernel};
use crate::{Error, Result};
use landfall_image::Bytes;
use serde_json::json;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Memory of the machine.
const MEMORY_MIB: u64 = 256;

/// A QMP command: they take milliseconds.
const COMMAND_WITHIN: Duration = Duration::from_secs(30);
/// A plain boot; 2 s on a fast machine without KVM. Where the machine that emulates is emulated itself it took nine minutes.
const fn boot_within(accelerator: Accelerator) -> Duration {
    match accelerator {
        Accelerator::Kvm => Duration::from_secs(180),
        Accelerator::Tcg => Duration::from_secs(1200),
    }
}
/// A plain boot with KVM takes half a second. One that hangs must not cost much more: it is tried where it is not
/// known whether KVM works.
const KVM_TRIAL_WITHIN: Duration = Duration::from_secs(8);
/// Loading or saving the state: 0.2 s, and two orders more where the machine that emulates is emulated itself.
const STATE_WITHIN: Duration = Duration::from_secs(120);

/// Numbers under which QEMU inherits its handles.
const FD_QMP: i32 = 10;
const FD_AGENT: i32 = 11;
const FD_KERNEL: i32 = 12;
const FD_INITRAMFS: i32 = 13;
const FD_STATE: i32 = 14;

/// SCSI targets of one controller.
pub const DISKS_AT_MOST: usize = 200;

/// A running machine whose agent has told that it is ready, or was restored after it had.
pub(super) struct Machine {
    pub(super) process: Process,
    qmp: Qmp,
    port: UnixStream,
    pub(super) accelerator: Accelerator,
    pub(super) restored: bool,
    /// Not added yet.
    disks: Vec<NewDisk>,
}

/// A disk that a machine is to get.
pub(super) struct NewDisk {
    /// QEMU's end of the NBD connection.
    pub(super) socket: OwnedFd,
    pub(super) sector_size: Bytes,
    pub(super) serial: String,
}

impl Machine {
    /// Starts a machine in the quickest way that works here, and gives it the disks. `disks` makes the connections
    /// anew for each attempt.
    pub(super) fn start(
        sandbox: &Sandbox,
        mut disks: impl FnMut() -> Result<Vec<NewDisk>>,
    ) -> Result<Machine> {
        let boot = sandbox.boot()?;
        let mut start =
            |accelerator, within| Machine::start_with(sandbox, &boot, accelerator, within, &mut disks);
        if let Some(accelerator) = sandbox.settings.accelerator {
            return start(accelerator, boot_within(accelerator));
        }
        // What the last trial since the host's start showed.
        let note = format!("kvm-{}", boot_id());
        let known = sandbox.cache.note(&note);
        if !kvm_opens() || known.as_deref() == Some("no") {
            return start(Accelerator::Tcg, boot_within(Accelerator::Tcg));
        }
        if known.is_some() {
            return start(Accelerator::Kvm, boot_within(Accelerator::Kvm));
        }
        match start(Accelerator::Kvm, KVM_TRIAL_WITHIN) {
            Ok(machine) => {
                sandbox.cache.set_note(&note, "yes");
                Ok(machine)
            }
            Err(error) if error.kind() == crate::Kind::Interrupted => Err(error),
            Err(error) => {
                let machine = start(Accelerator::Tcg, boot_within(Accelerator::Tcg))?;
                // Only now is it known that nothing else was wrong.
                tracing::info!(%error, "KVM does not work here; the sandbox is emulated");
                sandbox.cache.set_note(&note, "no");
                Ok(machine)
            }
        }
    }

    fn start_with(
        sandbox: &Sandbox,
        boot: &Boot,
        accelerator: Accelerator,
        within: Duration,
        disks: &mut dyn FnMut() -> Result<Vec<NewDisk>>,
    ) -> Result<Machine> {
        let key = state_key(sandbox, boot, accelerator);
        if sandbox.settings.saved_state
            && let Some(state) = sandbox.cache.find("state", &key)
        {
            let restored = std::thread::scope(|scope| {
                // The check reads as much as QEMU does, at the same time; the machine runs only after it.
                let sound = scope.spawn(|| state.is_sound());
                let mut machine = Machine::launch(sandbox, boot, accelerator, Some(&state.file), disks()?)?;
                if !sound.join().unwrap_or(false) {
                    return Err(Error::corrupt("the saved state of the sandbox is damaged"));
                }
                machine.resume()?;
                machine.begin()?;
                Ok(machine)
            });
            match restored {
                Err(error) if error.kind() != crate::Kind::Interrupted => {
                    tracing::warn!(%error, "the sandbox's saved state is thrown away; booting plainly");
                    state.discard();
                }
                done => return done,
            }
        }
        let mut machine = Machine::launch(sandbox, boot, accelerator, None, disks()?)?;
        machine.wait_ready(within)?;
        if sandbox.settings.saved_state
            && let Err(error) = machine.save(sandbox, &key)
        {
            if error.kind() == crate::Kind::Interrupted {
                return Err(error);
            }
            tracing::warn!(%error, "cannot save the sandbox's state; the next one boots plainly, too");
            // Whatever it was, this machine cannot be relied upon any more.
            drop(machine);
            machine = Machine::launch(sandbox, boot, accelerator, None, disks()?)?;
            machine.wait_ready(within)?;
        }
        machine.add_disks()?;
        machine.begin()?;
        Ok(machine)
    }

    /// Starts QEMU. With `state` it waits for [`resume`](Self::resume), else it boots.
    fn launch(
        sandbox: &Sandbox,
        boot: &Boot,
        accelerator: Accelerator,
        state: Option<&File>,
        disks: Vec<NewDisk>,
    ) -> Result<Machine> {
        let failed = |e| Error::io("cannot prepare the sandbox", e);
        let (qmp, qmp_theirs) = UnixStream::pair().map_err(failed)?;
        let (port, port_theirs) = UnixStream::pair().map_err(failed)?;
        port.set_read_timeout(Some(TICK)).map_err(failed)?;
        port.set_write_timeout(Some(TICK)).map_err(failed)?;
        let mut fds: Vec<(OwnedFd, i32)> = vec![(qmp_theirs.into(), FD_QMP), (port_theirs.into(), FD_AGENT)];
        let files = match state {
            None => vec![
                (again(&boot.kernel).map_err(failed)?, FD_KERNEL),
                (again(&boot.initramfs).map_err(failed)?, FD_INITRAMFS),
            ],
            // The saved memory has the kernel in it; QEMU only wants to be given one.
            Some(state) => {
                fds.push((again(state).map_err(failed)?.into(), FD_STATE));
                vec![
                    (in_memory(&kernel::stand_in()).map_err(failed)?, FD_KERNEL),
                    (in_memory(b"none").map_err(failed)?, FD_INITRAMFS),
                ]
            }
        };
        let args = arguments(accelerator, state.is_some());
        let with_kvm = accelerator == Accelerator::Kvm;
        let process = Process::start(&sandbox.settings, &sandbox.qemu, &args, with_kvm, fds, files)?;
        let (qmp, version) = Qmp::open(qmp, &process, COMMAND_WITHIN)?;
        tracing::debug!(version, ?accelerator, restoring = state.is_some(), "QEMU is up");
        Ok(Machine { process, qmp, port, accelerator, restored: state.is_some(), disks })
    }

    fn call(&mut self, command: &str, arguments: serde_json::Value) -> Result<serde_json::Value> {
        self.qmp.call(command, arguments, &self.process, COMMAND_WITHIN)
    }

    /// Waits until the state is loaded, adds the disks and lets the machine run.
    fn resume(&mut self) -> Result<()> {
        self.migration_ends("load")?;
        self.add_disks()?;
        self.call("cont", json!({})).map(drop)
    }

    /// Waits for the migration under way to end well.
    fn migration_ends(&mut self, doing: &str) -> Result<()> {
        let deadline = Instant::now() + STATE_WITHIN;
        loop {
            let answer = self.call("query-migrate", json!({}))?;
            match answer["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    return Err(Error::unsupported(format!(
                        "QEMU cannot {doing} the sandbox's state{}",
                        self.process.last_words()
                    )));
                }
                _ if Instant::now() >= deadline => {
                    return Err(Error::io(
                        format!("cannot {doing} the sandbox's state"),
                        ErrorKind::TimedOut.into(),
                    ));
                }
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Saves the state into the cache and goes on running.
    fn save(&mut self, sandbox: &Sandbox, key: &Key) -> Result<()> {
        let mut port = self.port(boot_within(self.accelerator));
        port.send("load its modules", &protocol::Request::LoadAll)?;
        match port.receive("load its modules")? {
            Reply::Done => {}
            other => return Err(unexpected(&other)),
        }
        let partial = sandbox.cache.partial()?;
        self.call("stop", json!({}))?;
        self.call("migrate-set-parameters", json!({ "max-bandwidth": 0 }))?;
        let fd = Some(partial.as_file().as_fd());
        self.qmp.call_with("getfd", json!({ "fdname": "state" }), fd, &self.process, COMMAND_WITHIN)?;
        self.call("migrate", json!({ "uri": "fd:state" }))?;
        self.migration_ends("save")?;
        sandbox.cache.keep("state", key, partial)?;
        self.call("cont", json!({})).map(drop)
    }

    fn add_disks(&mut self) -> Result<()> {
        for (target, disk) in std::mem::take(&mut self.disks).into_iter().enumerate() {
            let node = format!("disk{target}");
            let fd = Some(disk.socket.as_fd());
            self.qmp.call_with("getfd", json!({ "fdname": node }), fd, &self.process, COMMAND_WITHIN)?;
            self.call(
                "blockdev-add",
                json!({
                    "driver": "nbd", "node-name": node, "export": "", "discard": "unmap",
                    "server": { "type": "fd", "str": node },
                }),
            )?;
            // An error is for the guest's kernel to see; by default QEMU would stop the machine on a full disk.
            self.call(
                "device_add",
                json!({
                    "driver": "scsi-hd", "id": format!("scsi-{node}"), "bus": "scsi.0",
                    "scsi-id": target, "lun": 0, "drive": node, "serial": disk.serial,
                    "logical_block_size": disk.sector_size.0, "physical_block_size": disk.sector_size.0.max(4096),
                    "write-cache": "on", "werror": "report", "rerror": "report",
                }),
            )?;
        }
        Ok(())
    }

    fn wait_ready(&mut self, within: Duration) -> Result<()> {
        match self.port(within).receive("start")? {
            Reply::Ready { version, kernel, trouble } if version == protocol::VERSION => {
                for module in trouble {
                    tracing::warn!(kernel, module, "the sandbox cannot load a module");
                }
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// The first request: clock, random state, and the proof that this very agent answers.
    fn begin(&mut self) -> Result<()> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mut seed = [0; 40];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut seed))
            .map_err(|e| Error::io("cannot read /dev/urandom", e))?;
        let [seed @ .., n0, n1, n2, n3, n4, n5, n6, n7] = seed;
        let nonce = u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
        let request = protocol::Request::Begin {
            version: protocol::VERSION,
            nonce,
            unix_seconds: i64::try_from(now.as_secs()).unwrap_or(0),
            nanos: now.subsec_nanos(),
            seed,
        };
        let mut port = self.port(COMMAND_WITHIN);
        port.send("begin", &request)?;
        match port.receive("begin")? {
            Reply::Begun { version: protocol::VERSION, nonce: same } if same == nonce => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The agent's port, for as long as one request may take.
    pub(super) fn port(&self, within: Duration) -> Port<'_> {
        Port {
            stream: &self.port,
            watch: &self.process,
            deadline: Instant::now() + within,
            within,
            stop: None,
        }
    }

    /// The process that supervises QEMU.
    pub(super) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Ends the machine. Its disks are unmounted: nothing in it is worth waiting for.
    pub(super) fn quit(mut self) {
        if self.call("quit", json!({})).is_ok() {
            self.process.wait(Duration::from_secs(5));
        }
    }
}

/// The same file with a position of its own, at its start; its name may be gone.
fn again(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A file that exists in memory alone.
fn in_memory(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("landfall", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// The error of an answer that does not belong to the question.
pub(super) fn unexpected(reply: &Reply) -> Error {
    // It may be hostile, and long.
    let reply: String = format!("{reply:?}").chars().take(200).collect();
    Error::corrupt(format!("the sandbox's agent answers {reply}, which belongs to another question"))
}

/// The agent's port with an end to every wait.
pub(super) struct Port<'a> {
    stream: &'a UnixStream,
    watch: &'a dyn Watch,
    deadline: Instant,
    within: Duration,
    stop: Option<Error>,
}

impl Port<'_> {
    pub(super) fn send<T: serde::Serialize>(&mut self, doing: &str, message: &T) -> Result<()> {
        let sent = protocol::send(self, message);
        sent.map_err(|e| self.error(doing, e))
    }

    pub(super) fn receive(&mut self, doing: &str) -> Result<Reply> {
        let received = protocol::receive(self);
        received.map_err(|e| self.error(doing, e))
    }

    /// What really happened behind an error of this port.
    pub(super) fn error(&mut self, doing: &str, error: io::Error) -> Error {
        if let Some(stop) = self.stop.take() {
            return stop;
        }
        match error.kind() {
            ErrorKind::TimedOut => {
                Error::io(format!("the sandbox did not {doing} within {} s", self.within.as_secs()), error)
            }
            ErrorKind::InvalidData => {
                Error::corrupt(format!("the sandbox's agent broke the protocol ({doing}): {error}"))
            }
            _ => Error::io(format!("cannot talk to the sandbox ({doing})"), error),
        }
    }

    /// Tries until it works, the deadline passes or waiting has become pointless.
    fn patiently(
        &mut self,
        mut attempt: impl FnMut(&mut &UnixStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            let mut stream = self.stream;
            match attempt(&mut stream) {
                Ok(len) if len > 0 => return Ok(len),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    self.stop = self.watch.check().err();
                    if self.stop.is_some() || Instant::now() >= self.deadline {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                hung_up => {
                    self.stop = self.watch.hung_up().err();
                    return hung_up;
                }
            }
        }
    }
}

impl Read for Port<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.patiently(|stream| stream.read(buf))
    }
}

impl Write for Port<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.patiently(|stream| stream.write(buf))
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// QEMU's command line. A saved state fits only the very same one, but for `-incoming`.
fn arguments(accelerator: Accelerator, incoming: bool) -> Vec<String> {
    let (accel, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        // QEMU 7.2's cmpxchg16b makes Linux 6.12 panic now and then.
        Accelerator::Tcg => ("tcg,tb-size=128", "max,cx16=off"),
    };
    let memory = MEMORY_MIB.to_string();
    // See `Process::start`.
    let kernel = format!("{{{FD_KERNEL}}}");
    let initramfs = format!("{{{FD_INITRAMFS}}}");
    let append = kernel_command_line(accelerator);
    let qmp = format!("socket,id=qmp,fd={FD_QMP}");
    let port = format!("socket,id=agent,fd={FD_AGENT}");
    let incoming_from = format!("fd:{FD_STATE}");
    let virtserialport = format!("virtserialport,chardev=agent,name={}", protocol::PORT_NAME);
    let mut args = vec!["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"];
    args.extend(["-machine", "q35,vmport=off,usb=off,sata=off,smbus=off,hpet=off"]);
    args.extend(["-accel", accel, "-cpu", cpu, "-m", &memory]);
    args.extend(["-kernel", &kernel, "-initrd", &initramfs, "-append", &append]);
    args.extend(["-chardev", &qmp, "-mon", "chardev=qmp,mode=control"]);
    args.extend(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    args.extend(["-device", "virtio-serial-pci", "-chardev", &port, "-device", &virtserialport]);
    args.extend(["-device", "virtio-scsi-pci,id=scsi", "-device", "vmgenid,guid=auto"]);
    args.extend(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    if incoming {
        args.extend(["-incoming", &incoming_from]);
    }
    args.into_iter().map(str::to_owned).collect()
}

fn kernel_command_line(accelerator: Accelerator) -> String {
    let mut line = String::from(
        "console=ttyS0 quiet panic=-1 no_timer_check cryptomgr.notests rcupdate.rcu_expedited=1 \
         random.trust_cpu=on selinux=0 apparmor=0 audit=0",
    );
    if accelerator == Accelerator::Tcg {
        // Emulation has none of the processor's leaks, and they cost time there.
        line.push_str(" mitigations=off tsc=reliable");
    }
    line
}

/// Everything that a saved state depends on.
fn state_key(sandbox: &Sandbox, boot: &Boot, accelerator: Accelerator) -> Key {
    let args = arguments(accelerator, false).join("\n");
    let processor = match accelerator {
        Accelerator::Tcg => String::new(),
        // With KVM the guest sees the host's processor.
        Accelerator::Kvm => {
            let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let first = info.split("\n\n").next().unwrap_or_default();
            let stable = ["model name", "stepping", "microcode", "flags", "cpu family", "model\t"];
            first.lines().filter(|line| stable.iter().any(|key| line.starts_with(key))).collect()
        }
    };
    let qemu = super::fingerprint(&sandbox.qemu);
    Key::of(&[b"state 1", boot.key.as_bytes(), args.as_bytes(), &qemu, processor.as_bytes()])
}

fn kvm_opens() -> bool {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// Changes when the host boots.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::sandbox::protocol::{Request, send, send_piece};
    use crate::sandbox::session::content;
    use std::cell::Cell;

    /// A process that ends when the test says so.
    #[derive(Default)]
    struct Process {
        stop: Cell<bool>,
    }

    impl Watch for Process {
        fn check(&self) -> Result<()> {
            if self.stop.get() { Err(Error::interrupted()) } else { Ok(()) }
        }
        fn hung_up(&self) -> Result<()> {
            Err(Error::io("the process ended", ErrorKind::BrokenPipe.into()))
        }
    }

    /// What comes of `ask` when the agent has said `says` and nothing more.
    fn with_agent<T>(says: &[u8], stop: bool, ask: impl FnOnce(&mut Port<'_>) -> Result<T>) -> Result<T> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        theirs.write_all(says).unwrap();
        let watch = Process { stop: Cell::new(stop) };
        let within = Duration::from_millis(20);
        let deadline = Instant::now() + within;
        ask(&mut Port { stream: &ours, watch: &watch, deadline, within, stop: None })
    }

    #[test]
    fn an_agent_that_says_nothing_or_nonsense_or_ends_is_told_apart() {
        let receive = |port: &mut Port<'_>| port.receive("mount x");
        let error = with_agent(b"", false, receive).unwrap_err();
        assert!(error.says().contains("did not mount x within"), "{error}");
        assert_eq!(with_agent(b"", true, receive).unwrap_err().kind(), Kind::Interrupted);
        assert_eq!(with_agent(&[0xff; 16], false, receive).unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(with_agent(&[1, 0, 0, 0, 99], false, receive).unwrap_err().kind(), Kind::Corrupt);
        // A machine that is gone.
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let watch = Process::default();
        let within = Duration::from_secs(1);
        let mut port =
            Port { stream: &ours, watch: &watch, deadline: Instant::now() + within, within, stop: None };
        assert_eq!(port.receive("mount x").unwrap_err().says(), "the process ended");
        assert_eq!(port.send("mount x", &Request::Sync).unwrap_err().says(), "the process ended");
    }

    #[test]
    fn content_is_taken_within_its_bound_and_in_its_order() {
        let wire = |replies: &[Reply], pieces: &[&[u8]], last: &[Reply]| {
            let mut out = Vec::new();
            replies.iter().for_each(|reply| send(&mut out, reply).unwrap());
            pieces.iter().for_each(|piece| send_piece(&mut out, piece).unwrap());
            last.iter().for_each(|reply| send(&mut out, reply).unwrap());
            out
        };
        let ask = |says: Vec<u8>| with_agent(&says, false, |port| content(port, "read x", 5));
        let good = wire(&[Reply::Content], &[b"ab", b"cde", b""], &[Reply::Done]);
        assert_eq!(ask(good).unwrap().unwrap().unwrap(), b"abcde");
        assert_eq!(ask(wire(&[Reply::Absent], &[], &[])).unwrap().unwrap(), None);
        let long = wire(&[Reply::Content], &[b"ab", b"cdef", b""], &[Reply::Done]);
        assert_eq!(ask(long).unwrap_err().kind(), Kind::Refused);
        let other = wire(&[Reply::Space(1)], &[], &[]);
        assert_eq!(ask(other).unwrap_err().kind(), Kind::Corrupt);
        let no_end = wire(&[Reply::Content], &[b"ab"], &[]);
        assert_eq!(ask(no_end).unwrap_err().kind(), Kind::Io);
        let failure = protocol::Failure::new(protocol::Cause::Errno(5), "cannot read x");
        let cut_short = wire(&[Reply::Content], &[b"ab", b""], &[Reply::Failed(failure.clone())]);
        assert_eq!(ask(cut_short).unwrap().unwrap_err(), failure);
    }
}
