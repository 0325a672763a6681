//! The programs that the helper runs: all of them, with all of their arguments. Nothing that a caller sent is among them,
//! none is a shell, and nothing of this program's environment goes along.
//!
//! systemctl speaks to systemd over its own socket, as there is no D-Bus on the appliance: root may do that (systemd's
//! `/run/systemd/private`). `networkctl list` asks the kernel and reads networkd's files; `networkctl status` and `reload` want
//! D-Bus, so that networkd is reloaded by systemctl.

use landfall_image::{Error, Result};
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of what one says: journals are bounded by their lines.
const OUTPUT: u64 = 64 << 20;
/// Units start and stop in less; a chunk of a stream may wait for it, and waits for 60 seconds.
const WITHIN: Duration = Duration::from_secs(45);
/// A file system on many terabytes, and an update that is read back from a slow disk: longer than their units may take.
const LONG: Duration = Duration::from_secs(21 * 60);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    ApplySettings,
    ReloadNetwork,
    WriteResolv,
    RestartTime,
    RestartSsh,
    TakeDisk,
    GrowDisk,
    InstallUpdate,
    RestartService,
    Restart,
    PowerOff,
    WriteHardwareClock,
    FailedUnits,
    ServiceStarts,
    Journal,
    JournalBefore,
    JournalBeforeThat,
    Kernel,
    Boots,
    Links,
    Service,
    Units,
    BlockDevices,
}

const SYSTEMCTL: &str = "/usr/bin/systemctl";
const JOURNALCTL: &str = "/usr/bin/journalctl";

/// What the support bundle has of programs.
pub(super) const SUPPORT: [(&str, Run); 10] = [
    ("journal/boots.txt", Run::Boots),
    ("journal/this-boot.txt", Run::Journal),
    ("journal/boot-before.txt", Run::JournalBefore),
    ("journal/boot-before-that.txt", Run::JournalBeforeThat),
    ("journal/kernel.txt", Run::Kernel),
    ("network/links.txt", Run::Links),
    ("service.txt", Run::Service),
    ("units.txt", Run::Units),
    ("failed-units.txt", Run::FailedUnits),
    ("disks.txt", Run::BlockDevices),
];

impl Run {
    /// Its path and arguments.
    fn command(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Run::ApplySettings => (SYSTEMCTL, &["restart", "landfall-settings.service"]),
            Run::ReloadNetwork => (SYSTEMCTL, &["reload-or-restart", "systemd-networkd.service"]),
            Run::WriteResolv => (SYSTEMCTL, &["start", "landfall-resolv.service"]),
            Run::RestartTime => (SYSTEMCTL, &["restart", "systemd-timesyncd.service"]),
            Run::RestartSsh => (SYSTEMCTL, &["restart", "ssh.service"]),
            Run::TakeDisk => (SYSTEMCTL, &["start", "landfall-data.service"]),
            Run::GrowDisk => (SYSTEMCTL, &["start", "landfall-grow.service"]),
            Run::InstallUpdate => (SYSTEMCTL, &["start", "landfall-update.service"]),
            Run::RestartService => (SYSTEMCTL, &["restart", "landfall.service"]),
            // It returns at once: the answer goes out before the machine does down.
            Run::Restart => (SYSTEMCTL, &["--no-block", "reboot"]),
            Run::PowerOff => (SYSTEMCTL, &["--no-block", "poweroff"]),
            Run::WriteHardwareClock => ("/usr/sbin/hwclock", &["--systohc", "--utc", "--noadjfile"]),
            Run::ServiceStarts => {
                (SYSTEMCTL, &["show", "landfall.service", "--property=ActiveState,NRestarts"])
            }
            Run::FailedUnits => {
                (SYSTEMCTL, &["list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"])
            }
            Run::Journal => (JOURNALCTL, &["--no-pager", "-o", "short-iso", "-n", "50000", "-b", "0"]),
            Run::JournalBefore => (JOURNALCTL, &["--no-pager", "-o", "short-iso", "-n", "20000", "-b", "-1"]),
            Run::JournalBeforeThat => {
                (JOURNALCTL, &["--no-pager", "-o", "short-iso", "-n", "20000", "-b", "-2"])
            }
            Run::Kernel => (JOURNALCTL, &["--no-pager", "-o", "short-monotonic", "-n", "20000", "-k"]),
            Run::Boots => (JOURNALCTL, &["--no-pager", "--list-boots"]),
            Run::Links => ("/usr/bin/networkctl", &["--no-pager", "list"]),
            Run::Service => (SYSTEMCTL, &["status", "--no-pager", "--lines=100", "landfall.service"]),
            Run::Units => (SYSTEMCTL, &["list-units", "--all", "--plain", "--no-legend", "--no-pager"]),
            Run::BlockDevices => {
                ("/usr/bin/lsblk", &["--list", "--output", "NAME,SIZE,TYPE,FSTYPE,MOUNTPOINT,MODEL,SERIAL"])
            }
        }
    }

    fn within(self) -> Duration {
        match self {
            Run::TakeDisk | Run::GrowDisk | Run::InstallUpdate => LONG,
            _ => WITHIN,
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// I/O where it is not there, fails or takes too long, with its complaint.
    pub fn done(self) -> Result<()> {
        self.run(true).map(|_| ())
    }

    /// What it says on both of its outputs, whether it fails or not: `systemctl status` ends with 3 for what has stopped.
    ///
    /// # Errors
    /// I/O where it is not there or takes too long.
    pub fn output(self) -> Result<String> {
        self.run(false)
    }

    fn run(self, has_to_succeed: bool) -> Result<String> {
        let (program, args) = self.command();
        let shown = || format!("{program} {}", args.join(" "));
        let failed = |error: io::Error| Error::io(shown(), error);
        let mut child = Command::new(program)
            .args(args)
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", "/usr/sbin:/usr/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let out = reader(child.stdout.take());
        let complaints = reader(child.stderr.take());
        let begin = Instant::now();
        let mut pause = Duration::from_millis(2);
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if begin.elapsed() < self.within() => {}
                other => {
                    let _ = child.kill();
                    let _ = child.wait();
                    let late = || {
                        io::Error::new(
                            io::ErrorKind::TimedOut,
                            format!("gave no answer in {} s", self.within().as_secs()),
                        )
                    };
                    return Err(failed(other.err().unwrap_or_else(late)));
                }
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        };
        let text = |reader: thread::JoinHandle<Vec<u8>>| {
            String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
        };
        let (out, complaints) = (text(out), text(complaints));
        match has_to_succeed && !status.success() {
            true => {
                let lines: Vec<&str> =
                    complaints.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
                let says = if lines.is_empty() { status.to_string() } else { lines.join("; ") };
                Err(failed(io::Error::other(says)).hint("see the journal in the support bundle"))
            }
            false => Ok(out + &complaints),
        }
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What could be read is what there is to show.
            let _ = pipe.by_ref().take(OUTPUT).read_to_end(&mut bytes);
            let _ = io::copy(&mut pipe, &mut io::sink());
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Run; 23] = [
        Run::TakeDisk,
        Run::GrowDisk,
        Run::InstallUpdate,
        Run::ApplySettings,
        Run::ReloadNetwork,
        Run::WriteResolv,
        Run::RestartTime,
        Run::RestartSsh,
        Run::RestartService,
        Run::Restart,
        Run::PowerOff,
        Run::WriteHardwareClock,
        Run::FailedUnits,
        Run::ServiceStarts,
        Run::Journal,
        Run::JournalBefore,
        Run::JournalBeforeThat,
        Run::Kernel,
        Run::Boots,
        Run::Links,
        Run::Service,
        Run::Units,
        Run::BlockDevices,
    ];

    #[test]
    fn every_program_is_named_whole_and_none_is_a_shell() {
        for run in ALL {
            let (program, args) = run.command();
            assert!(program.starts_with("/usr/bin/") || program.starts_with("/usr/sbin/"), "{program}");
            assert!(!["sh", "bash", "dash", "env", "sudo"].contains(&program.rsplit('/').next().unwrap()));
            assert!(!args.is_empty() && args.iter().all(|arg| !arg.contains(['$', ';', '|', '`', '\n'])));
        }
    }

    #[test]
    fn what_a_program_says_is_read_and_its_failure_told() {
        if !std::path::Path::new("/usr/bin/lsblk").exists() {
            eprintln!("SKIPPED: /usr/bin/lsblk is not here (Debian: util-linux)");
            return;
        }
        let said = Run::BlockDevices.output().unwrap();
        assert!(said.contains("NAME"), "{said}");
        // Nobody has this unit where tests run.
        let error = Run::ApplySettings.done().unwrap_err();
        assert!(
            error.to_string().starts_with("/usr/bin/systemctl restart landfall-settings.service: "),
            "{error}"
        );
    }
}
