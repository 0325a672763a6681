//! The machine on Linux: what it is is read from `/sys`, `/proc` and `/run`, the addresses come from the kernel, and what
//! changes is done by systemd.
//!
//! Programs that are run are [those of one table](run), by absolute path and with fixed arguments. Settings are put into
//! effect by a unit of its own, `landfall-settings.service`, which reads them from where they are kept: this program needs
//! neither the right to configure the network nor to give the machine a name.

mod cards;
mod disks;
mod netlink;
mod run;

pub use cards::present;

use super::machine::{Machine, Part};
use super::status::{Memory, Status, SystemStatus, TimeStatus};
use crate::appliance::disks::Claim;
use crate::appliance::kept::Loaded;
use crate::appliance::network::{Learnt, STATE, resolv_conf};
use crate::appliance::{data, places, problems, slots, start, state};
use crate::meminfo;
use crate::moment::Moment;
use crate::ops::appliance::SNAPSHOT;
use landfall_boot::appliance::init::{BOOT_FILE, Boot};
use landfall_image::{Bytes, Error, Result};
use run::Run;
use rustix::time::{ClockId, Timespec, clock_settime};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// Lines that the unit of the settings leaves: what could not be done as it is set.
pub const PROBLEMS: &str = "/run/landfall-appliance/problems";
/// Files of the kernel and of networkd have less.
const FILE_AT_MOST: u64 = 1 << 20;
/// With less than this part of it free the state is full.
const FULL: u64 = 20;
/// The first moment of 2024: a clock before it was never set.
const EARLIEST: Moment = Moment(1_704_067_200_000);

/// Linux with systemd.
#[derive(Debug)]
pub struct System {
    root: PathBuf,
}

impl Default for System {
    fn default() -> System {
        System::below(Path::new("/"))
    }
}

impl System {
    /// One whose `/sys`, `/proc` and `/run` are below this folder.
    fn below(root: &Path) -> System {
        System { root: root.to_owned() }
    }

    fn text(&self, path: &str) -> Option<String> {
        text(&self.root, path)
    }

    /// Settings that are set, certificates for other addresses and logs need room.
    fn full_state(&self) -> Option<String> {
        let room = rustix::fs::statvfs(self.root.join(places::STATE.trim_start_matches('/'))).ok()?;
        let free = Bytes(room.f_bavail.saturating_mul(room.f_frsize));
        (room.f_bavail.saturating_mul(FULL) < room.f_blocks).then(|| {
            format!(
                "the partition of settings, certificates and logs is full ({free} are free): what is set is not kept. Over SSH, du -x {} shows what takes it",
                places::STATE
            )
        })
    }

    fn boot(&self) -> Option<Boot> {
        serde_json::from_str(&self.text(BOOT_FILE)?).ok()
    }

    fn system(&self, boot: &Boot) -> SystemStatus {
        let next = self.text(places::NEXT);
        SystemStatus {
            slot: boot.slot.map(|slot| slot.name().to_owned()),
            snapshot: self.text(SNAPSHOT).unwrap_or_default(),
            next: next.and_then(|text| serde_json::from_str(&text).ok()),
        }
    }

    fn time(&self, kept: &Loaded, learnt: &Learnt) -> TimeStatus {
        let servers = match kept.effective().ntp {
            Some(set) => set.iter().map(ToString::to_string).collect(),
            None => learnt.ntp.clone(),
        };
        TimeStatus {
            now: Moment::now(),
            // timesyncd makes it when it has heard of a server (systemd-timesyncd.service(8)).
            is_synchronised: self.root.join("run/systemd/timesync/synchronized").exists(),
            servers,
        }
    }
}

/// A small file's text without blanks around it; `None` where it cannot be read.
fn text(root: &Path, path: &str) -> Option<String> {
    let file = fs::File::open(root.join(path.trim_start_matches('/'))).ok()?;
    let mut bytes = Vec::new();
    file.take(FILE_AT_MOST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn memory(meminfo: &str) -> Memory {
    let value = |key: &str| meminfo::value(meminfo, key).unwrap_or(Bytes(0));
    Memory { total: value("MemTotal"), available: value("MemAvailable") }
}

/// Units that have failed, in what systemctl lists.
fn failed_units(said: &str) -> Vec<String> {
    let units = said.lines().filter_map(|line| line.split_ascii_whitespace().next());
    units.map(|unit| format!("{unit} has failed: its log is in the support bundle (B)")).collect()
}

/// Where the service ends at each start, and is started again and again: it has not failed for systemd. By what `systemctl show` says.
fn no_start(said: &str) -> Option<String> {
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let (state, starts) = (value("ActiveState")?, value("NRestarts")?.parse::<u64>().ok()?);
    // Once is an end that it comes back from.
    (state != "active" && starts > 1).then(|| {
        format!("the service does not come up, and was started {starts} times: the log (L) says why; additions to its file can be taken back over SSH")
    })
}

/// What a unit found that did something for the helper: nothing, or why it could not.
fn told(root: &Path, step: &str) -> Result<Vec<String>> {
    let file = root.join(places::PROBLEMS.trim_start_matches('/')).join(format!("{step}.json"));
    match problems::one(&file).into_iter().next() {
        None => Ok(Vec::new()),
        Some(problem) => Err(Error::refused(problem.says).hint(problem.fix)),
    }
}

impl Machine for System {
    fn status(&self, kept: &Loaded) -> Result<Status> {
        let mut problems = kept.problems.clone();
        problems.extend(kept.given.iter().flat_map(|given| given.notes.clone()));
        problems.extend(
            self.text(PROBLEMS).iter().flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()),
        );
        problems.extend(
            problems::all(&self.root.join(places::PROBLEMS.trim_start_matches('/'))).into_iter().map(
                |problem| {
                    let fix =
                        if problem.fix.is_empty() { String::new() } else { format!(": {}", problem.fix) };
                    format!("{}{fix}", problem.says)
                },
            ),
        );
        problems.extend(self.full_state());
        if data::has_gone(&self.root) {
            problems.push(
                "the data disk went away while it was used: attach it again, it is taken as soon as it appears"
                    .to_owned(),
            );
        }
        let links = netlink::addresses().unwrap_or_else(|error| {
            problems.push(error.to_string());
            Vec::new()
        });
        let gateways = netlink::gateways().unwrap_or_else(|error| {
            problems.push(error.to_string());
            Vec::new()
        });
        match Run::ServiceStarts.output() {
            Ok(said) => problems.extend(no_start(&said)),
            Err(error) => problems.push(error.to_string()),
        }
        match Run::FailedUnits.output() {
            Ok(said) => problems.extend(failed_units(&said)),
            Err(error) => problems.push(error.to_string()),
        }
        let learnt = Learnt::parse(&self.text(STATE).unwrap_or_default());
        let settings = kept.effective();
        let boot = self.boot();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: self.text("/proc/sys/kernel/hostname").unwrap_or_default(),
            network: cards::network(&self.root, &links, gateways, &resolv_conf(&settings, &learnt)),
            time: self.time(kept, &learnt),
            disks: disks::disks(&self.root, boot.as_ref()),
            system: boot.as_ref().map(|boot| self.system(boot)),
            memory: memory(&self.text("/proc/meminfo").unwrap_or_default()),
            problems,
            typed: kept.typed.clone(),
            given_by: kept.given.as_ref().map(|given| given.identity.source.clone()),
            settings,
        })
    }

    fn apply(&self, part: Part) -> Result<()> {
        Run::ApplySettings.done()?;
        match part {
            Part::HostName => Ok(()),
            Part::Network => Run::ReloadNetwork.done().and_then(|()| Run::WriteResolv.done()),
            Part::TimeServers => Run::RestartTime.done(),
            // Without a key its condition is not met, and it stays away.
            Part::SshKeys => Run::RestartSsh.done(),
        }
    }

    fn set_clock(&self, to: Moment) -> Result<Vec<String>> {
        if to < EARLIEST {
            return Err(
                Error::refused(format!("{to} is before landfall was written")).hint("look at the year")
            );
        }
        let (seconds, rest) = (to.0 / 1000, to.0 % 1000);
        let time = Timespec {
            tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(rest.saturating_mul(1_000_000)).unwrap_or(0),
        };
        clock_settime(ClockId::Realtime, time)
            .map_err(|error| Error::io("the clock cannot be set", error.into()))?;
        let mut says = Vec::new();
        // Not every appliance has the program: the package is an optional one of Debian.
        match Run::WriteHardwareClock.done() {
            Ok(()) => {}
            Err(error) if error.io_error().is_some_and(|error| error.kind() == ErrorKind::NotFound) => {
                says.push(
                    "the machine's own clock stays as it is: after a restart the time comes from there"
                        .to_owned(),
                );
            }
            Err(error) => says.push(format!("the machine's own clock stays as it is: {error}")),
        }
        if self.root.join("run/systemd/timesync/synchronized").exists() {
            says.push("a server of time is heard: it will set the clock again".to_owned());
        }
        Ok(says)
    }

    fn claim_disk(&self, disk: &str, serial: &str) -> Result<Vec<String>> {
        if data::is_mounted(places::VAULT) && !data::has_gone(&self.root) {
            return Err(Error::refused("this appliance has its vault on another disk already").hint(
                "to go on with this one instead, power off, detach the disk with the vault, start, and choose again",
            ));
        }
        // Done by the unit that has the rights; what it found is told as a problem.
        let claim = Claim { disk: disk.to_owned(), serial: serial.to_owned() };
        let text = serde_json::to_vec(&claim).map_err(|e| Error::corrupt(e.to_string()))?;
        state::write(&self.root.join(places::CLAIM.trim_start_matches('/')), &text, 0o600)?;
        Run::TakeDisk.done()?;
        told(&self.root, data::DATA)
    }

    fn grow_disk(&self) -> Result<Vec<String>> {
        Run::GrowDisk.done()?;
        told(&self.root, "4-grow")
    }

    fn can_update(&self) -> Result<()> {
        start::can_update(&state::boot()?)
    }

    fn update(&self, update: &mut dyn Read) -> Result<Vec<String>> {
        let path = &self.root.join(places::UPDATE.trim_start_matches('/'));
        let failed = |e| Error::io("cannot keep the update", e).in_file(path);
        // Before hundreds of MiB of something else are kept.
        let mut magic = [0; slots::MAGIC.len()];
        update.read_exact(&mut magic).map_err(failed)?;
        if magic != *slots::MAGIC {
            return Err(Error::refused("this is no update").hint(
                "landfall appliance build -o landfall.update --sign KEY makes one; images and discs are deployed, not installed",
            ));
        }
        let done = fs::File::create(path)
            .and_then(|mut file| {
                file.write_all(&magic)?;
                std::io::copy(update, &mut file)?;
                file.sync_all()
            })
            .map_err(failed)
            .and_then(|()| Run::InstallUpdate.done());
        // Whatever came of it: it takes the room of settings.
        let _ = fs::remove_file(path);
        done?;
        told(&self.root, "5-update")?;
        Ok(vec!["the update is tried at the next restart; it is kept when it has come up".to_owned()])
    }

    fn support(&self, take: &mut dyn FnMut(&str, &[u8]) -> Result<()>) -> Result<()> {
        for (name, run) in run::SUPPORT {
            let text = run.output().unwrap_or_else(|error| format!("cannot be had: {error}\n"));
            take(name, text.as_bytes())?;
        }
        for (name, path) in [
            ("proc/meminfo.txt", "/proc/meminfo"),
            ("proc/mounts.txt", "/proc/self/mounts"),
            ("proc/partitions.txt", "/proc/partitions"),
            ("proc/cmdline.txt", "/proc/cmdline"),
            ("network/netif-state.txt", STATE),
            ("problems.txt", PROBLEMS),
        ] {
            let text = self.text(path).unwrap_or_else(|| format!("{path} cannot be read"));
            take(name, format!("{text}\n").as_bytes())?;
        }
        Ok(())
    }

    fn forget_token(&self) -> Result<()> {
        let below = |path: &str| self.root.join(path.trim_start_matches('/'));
        // First the mark: a token that is gone without it would be made anew at the next start.
        state::write(&below(places::WELCOMED), b"", 0o644)?;
        let token = below(places::FIRST_TOKEN);
        match fs::remove_file(&token) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::io("cannot be removed", error).in_file(&token))
            }
            _ => Ok(()),
        }
    }

    fn restart(&self) -> Result<()> {
        Run::Restart.done()
    }

    fn power_off(&self) -> Result<()> {
        Run::PowerOff.done()
    }

    fn restart_service(&self) -> Result<()> {
        Run::RestartService.done()
    }
}

#[cfg(test)]
mod tests;
