//! Any other machine under the sandbox's rules: the same confinement, the same certainty that it ends. The caller says
//! what hardware it has. Boot trials of whole guests run in it, and those are as hostile as a file system.

use super::process::Process;
use super::qmp::{Qmp, Watch};
use super::{Accelerator, Sandbox};
use crate::Result;
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// For one command of the machine protocol; a screenshot under emulation on a busy host takes seconds.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

/// A running QEMU. Dropped, it is ended.
pub struct Confined {
    process: Process,
    qmp: Qmp,
}

impl Confined {
    /// Starts the sandbox's QEMU with `args`. `fds` are inherited under the numbers given; `qmp` is our end of a socket
    /// of which QEMU has the other as its monitor.
    pub fn start(
        sandbox: &Sandbox,
        args: &[String],
        accelerator: Accelerator,
        qmp: UnixStream,
        fds: Vec<(OwnedFd, i32)>,
    ) -> Result<Confined> {
        let with_kvm = accelerator == Accelerator::Kvm;
        let process = Process::start(&sandbox.settings, &sandbox.qemu, args, with_kvm, fds, Vec::new())?;
        let (qmp, version) = Qmp::open(qmp, &process, COMMAND_WITHIN)?;
        tracing::debug!(version, ?accelerator, "QEMU is up");
        Ok(Confined { process, qmp })
    }

    /// Runs a command of QEMU's machine protocol and returns what it returns.
    pub fn call(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.qmp.call(command, arguments, &self.process, COMMAND_WITHIN)
    }

    /// An error where the machine has ended, or the user asked to stop.
    pub fn check(&self) -> Result<()> {
        self.process.check()
    }

    /// True where the machine has ended by itself: it was powered off from inside, or QEMU died.
    pub fn has_ended(&self) -> bool {
        self.process.wait(Duration::ZERO)
    }
}
