//! What the console of the running appliance asks, and of whom: the helper, the service, and a few files that everybody may read.
//!
//! ```text
//! console ──> helper   (state of the machine; every change)
//!         ──> service  (protection; its user may look and no more)
//!         ──> files    (problems of the start, the authority's certificate, the first token), journalctl
//! ```
//! Each question is asked by itself and may fail by itself: what is up answers while the rest is not.

pub use crate::appliance::helper::protocol::Request;
pub use crate::appliance::helper::{
    CardStatus, DiskRole, DiskStatus, Memory, NetworkStatus, NextSystem, Status as Machine, SystemStatus,
    TimeStatus,
};
pub use crate::appliance::problems::Problem;
pub use crate::appliance::settings::{Card, Dhcp, Domain, HostName, Mac, Nic, Server, Settings, SshKey};
pub use crate::report::protection::Status as Protection;

use crate::appliance::helper::Client;
use crate::appliance::helper::protocol::SOCKET;
use crate::appliance::{places, problems, programs, state};
use crate::authority;
use crate::moment::Moment;
use crate::ops::service::{Access, Service, USUAL};
use landfall_image::{Error, Result};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// Where people and programs come in, and where hypervisors do.
pub const API_PORT: u16 = 8470;
/// NBD.
pub const NBD_PORT: u16 = 10809;
/// Lines of the journal that are shown.
const JOURNAL: &str = "200";
const JOURNALCTL: &str = "/usr/bin/journalctl";
/// A token's secret is much shorter.
const TOKEN_AT_MOST: usize = 512;

/// Where everything is that is asked.
#[derive(Clone, Debug)]
pub struct Places {
    /// The helper's socket.
    pub helper: PathBuf,
    /// The service's.
    pub service: PathBuf,
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The folder of the start's problems.
    pub problems: PathBuf,
    /// The first token.
    pub token: PathBuf,
}

impl Default for Places {
    /// The appliance's.
    fn default() -> Places {
        Places {
            helper: SOCKET.into(),
            service: USUAL.into(),
            authority: places::AUTHORITY_CERTIFICATE.into(),
            problems: places::PROBLEMS.into(),
            token: places::FIRST_TOKEN.into(),
        }
    }
}

/// What nobody has to be asked for.
#[derive(Clone)]
pub struct Local {
    /// By the machine's clock.
    pub at: Moment,
    /// Since the machine was started.
    pub uptime: Duration,
    /// What the machine is called.
    pub hostname: String,
    /// The SHA-256 of the authority's certificate.
    pub fingerprint: std::result::Result<String, Problem>,
    /// What the steps of the start found.
    pub problems: Vec<Problem>,
    /// The administrator's first token, until it was noted.
    pub token: Option<Zeroizing<String>>,
}

impl Places {
    /// How the machine is.
    ///
    /// # Errors
    /// Where the helper is not there, or cannot tell.
    pub fn machine(&self) -> Result<Machine> {
        Client::new(&self.helper).status()
    }

    /// Has the helper change something. What is to be known of it, for people.
    ///
    /// # Errors
    /// The helper's.
    pub fn change(&self, request: &Request) -> Result<Vec<String>> {
        Client::new(&self.helper).change(request)
    }

    /// How everything is that is protected.
    ///
    /// # Errors
    /// Where the service is not there, or does not let this user look.
    pub fn protection(&self) -> Result<Protection> {
        let service = Some(self.service.to_string_lossy().into_owned());
        Service::new(&Access { service, ..Access::default() })?.status()
    }

    /// What can be had at any time.
    pub fn local(&self) -> Local {
        let fingerprint = state::read(&self.authority).and_then(|pem| {
            let pem = pem.ok_or_else(|| {
                Error::refused("the authority is not made yet").hint("it is made at the end of the start")
            })?;
            authority::fingerprint(&String::from_utf8_lossy(&pem))
        });
        let token = state::read(&self.token).ok().flatten().map(Zeroizing::new);
        let token = token.and_then(|bytes| {
            let text = std::str::from_utf8(&bytes).ok()?.trim();
            (1..=TOKEN_AT_MOST).contains(&text.len()).then(|| Zeroizing::new(text.to_owned()))
        });
        Local {
            at: Moment::now(),
            uptime: uptime(),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            fingerprint: fingerprint.map_err(|error| Problem::from(&error)),
            problems: problems::all(&self.problems),
            token,
        }
    }

    /// The last lines of the service's journal.
    ///
    /// # Errors
    /// Where journalctl is not there, or does not let this user read.
    pub fn journal(&self) -> Result<Vec<String>> {
        let args = ["-u", "landfall", "-n", JOURNAL, "-o", "short-iso", "--no-pager", "--quiet"];
        Ok(programs::must(JOURNALCTL, &args)?.lines().map(str::to_owned).collect())
    }
}

/// Installs an update, out of a file or standard input (`-`). What is to be known of it, for people.
///
/// # Errors
/// Refused on a disc; the helper's; I/O where `file` cannot be read.
pub fn install(places: &Places, file: &Path) -> Result<Vec<String>> {
    // Before some hundreds of MiB are sent for nothing.
    crate::appliance::start::can_update(&crate::appliance::state::boot()?)?;
    let client = Client::new(&places.helper);
    if file == Path::new("-") {
        return client.update(&mut std::io::stdin().lock());
    }
    let mut update = File::open(file).map_err(|e| Error::io("cannot read", e).in_file(file))?;
    client.update(&mut update).map_err(|error| error.in_file(file))
}

/// Restarts the machine.
///
/// # Errors
/// The helper's.
pub fn restart(places: &Places) -> Result<()> {
    Client::new(&places.helper).change(&Request::Restart {}).map(drop)
}

/// Writes the support bundle, a .tar.zst.
///
/// # Errors
/// The helper's; I/O where it is cut off, or `to` cannot be written.
pub fn support(places: &Places, to: &mut dyn Write) -> Result<()> {
    Client::new(&places.helper).support_bundle(to)
}

/// Writes the support bundle into a new file, whole or not at all. Logs are not for everybody: only its owner can read it.
///
/// # Errors
/// As [`support`]; Refused where there is such a file.
pub fn support_file(places: &Places, path: &Path) -> Result<()> {
    let mut file = match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::refused("is there already").in_file(path).hint("name another file"));
        }
        Err(error) => return Err(Error::io("cannot be made", error).in_file(path)),
    };
    let written = support(places, &mut file)
        .and_then(|()| file.sync_all().map_err(|error| Error::io("cannot be written", error).in_file(path)));
    if written.is_err() {
        // What is there of it is of no use.
        let _ = std::fs::remove_file(path);
    }
    written
}

/// Since the machine was started, standing still included.
fn uptime() -> Duration {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::from_secs(since.tv_sec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::Kind;

    fn places(folder: &Path) -> Places {
        Places {
            helper: folder.join("helper.sock"),
            service: folder.join("api.sock"),
            authority: folder.join("ca.pem"),
            problems: folder.join("problems"),
            token: folder.join("token"),
        }
    }

    #[test]
    fn what_is_not_there_fails_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        assert_eq!(places.machine().unwrap_err().kind(), Kind::Io);
        assert_eq!(places.protection().unwrap_err().kind(), Kind::Io);
        let local = places.local();
        assert!(local.fingerprint.is_err() && local.token.is_none() && local.problems.is_empty());
        assert!(!local.hostname.is_empty() && !local.uptime.is_zero());
        std::fs::write(&places.authority, "no certificate").unwrap();
        assert!(places.local().fingerprint.is_err());
        std::fs::write(&places.token, "lf_1\n").unwrap();
        assert_eq!(places.local().token.unwrap().as_str(), "lf_1");
        for odd in [vec![], vec![b'\n'], vec![0xff], vec![b'a'; 5000]] {
            std::fs::write(&places.token, odd).unwrap();
            assert!(places.local().token.is_none());
        }
    }

    #[test]
    fn a_bundle_that_does_not_come_leaves_no_file_and_none_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let file = dir.path().join("bundle");
        assert_eq!(support_file(&places, &file).unwrap_err().kind(), Kind::Io);
        assert!(!file.exists());
        std::fs::write(&file, "mine").unwrap();
        assert_eq!(support_file(&places, &file).unwrap_err().kind(), Kind::Refused);
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    }
}
