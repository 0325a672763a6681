//! The interface of the helper. This is its documentation: what is not said here does not exist.
//!
//! **Place.** A Unix stream socket, `/run/landfall-helper/helper.sock`, made by systemd: mode 0660, group `landfall-console`.
//! Besides the mode, the kernel is asked who connects (`SO_PEERCRED`, unix(7)): root and the users that the helper was started
//! with are answered, all others get an error.
//!
//! **Form.** A connection carries one request and ends with its answer. A request is one JSON object in one line (`\n` at its
//! end) of at most 64 KiB, and has to be there in 10 seconds; nothing may follow it until the answer says so. An answer is one
//! JSON object in one line. Keys that are not listed are refused. Times are RFC 3339.
//!
//! | `request` | keys | answer |
//! |---|---|---|
//! | `status` | | `status`, with [`Status`] |
//! | `set-network` | `nic`, `dns`, `search` as in the [settings](crate::appliance::settings); one that is absent or `null` is what the hypervisor gave, or else DHCP's | `done` |
//! | `set-hostname` | `hostname`; `null` for what the hypervisor gave | `done` |
//! | `set-time` | `utc`, a time; or `ntp`, servers: not both. Without either, or with `null`, the servers are what the hypervisor gave, or else DHCP's | `done` |
//! | `set-ssh-keys` | `keys`, all of them; `null` for those that the hypervisor gave | `done` |
//! | `claim-disk` | `disk`, its name; `serial`, its serial number as `status` has it, or `""` | `done`: a disk with nothing on it becomes the vault's |
//! | `grow-disk` | | `done`: the vault has all of its disk |
//! | `update` | | `send`, then the update is sent in chunks, then `done` |
//! | `support-bundle` | | `stream`, then a .tar.zst comes in chunks |
//! | `forget-token` | | `done`: the first token is shown no more, and no other is made |
//! | `restart`, `power-off` | | `done`, and then it goes down |
//! | `restart-service` | | `done` |
//!
//! Where something cannot be done the answer is `error`, with the kind, the text and a hint of the error; nothing was changed
//! then, unless the text says so. One change is made at a time: a second one meanwhile is refused. `restart` and `power-off` wait
//! for nobody: what they cut off is left as a lost power leaves it.
//!
//! **Chunks.** Four bytes with a length (big-endian, at most 1 MiB), and as many bytes; a length of 0 is the end. A connection
//! that ends before it was cut off: what came until then is worth nothing. Between two chunks at most 60 seconds pass.
//!
//! ```text
//! > {"request":"set-hostname","hostname":"dr1"}
//! < {"answer":"done","says":[]}
//! > {"request":"claim-disk","disk":"../sda","serial":""}
//! < {"answer":"error","kind":"refused","says":"\"../sda\" is no name of a disk", …}
//! ```
//!
//! No value of a request is ever part of a command line: a request chooses among fixed ones.

use super::status::Status;
use crate::appliance::settings::{Domain, HostName, Nic, Server, SshKey};
use crate::moment::Moment;
use crate::report::failure::Told;
use landfall_boot::appliance::layout;
use landfall_image::{Error, Result};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// Where it is on the appliance.
pub const SOCKET: &str = "/run/landfall-helper/helper.sock";
/// Bytes of a request, with its end: 64 keys for SSH of RSA with 4096 bits fit.
pub const REQUEST_AT_MOST: usize = 64 << 10;
/// Bytes of an answer, with its end: a status of hundreds of disks fits.
pub const ANSWER_AT_MOST: usize = 4 << 20;
/// Bytes of a chunk.
pub const CHUNK_AT_MOST: usize = 1 << 20;
/// Bytes of an update: what a slot has room for, and its head.
pub const UPDATE_AT_MOST: u64 = layout::ROOT_SIZE.0 + layout::BOOT_SIZE.0 + (1 << 20);
/// Until a request has come whole.
pub const ASKED_WITHIN: Duration = Duration::from_secs(10);
/// Between two chunks.
pub const CHUNK_WITHIN: Duration = Duration::from_secs(60);
/// Until an answer was taken.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(10);
/// The longest name in `/dev` (`DISK_NAME_LEN` of Linux is 32).
const DISK_NAME: usize = 31;
/// SCSI's page 0x80 has 252 letters at most.
const SERIAL: usize = 255;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How it is.
    Status {},
    /// Cards and names.
    SetNetwork {
        /// Cards; an empty list for DHCP on all.
        #[serde(default)]
        nic: Option<Vec<Nic>>,
        /// Servers of names.
        #[serde(default)]
        dns: Option<Vec<IpAddr>>,
        /// Domains.
        #[serde(default)]
        search: Option<Vec<Domain>>,
    },
    /// What it is called.
    SetHostname {
        /// The name.
        hostname: Option<HostName>,
    },
    /// The clock.
    SetTime {
        /// The time that it is.
        #[serde(default)]
        utc: Option<Moment>,
        /// Servers of time; where there is no `utc` either, `None` takes back what was set.
        #[serde(default)]
        ntp: Option<Vec<Server>>,
    },
    /// Who may come in with SSH.
    SetSshKeys {
        /// All keys.
        keys: Option<Vec<SshKey>>,
    },
    /// A disk for the vault.
    ClaimDisk {
        /// Its name.
        disk: String,
        /// Its serial number.
        serial: String,
    },
    /// The vault's disk has grown.
    GrowDisk {},
    /// Another version of the system.
    Update {},
    /// What somebody needs who helps.
    SupportBundle {},
    /// The first token was noted.
    ForgetToken {},
    /// Start again.
    Restart {},
    /// Switch off.
    PowerOff {},
    /// Start the service again.
    RestartService {},
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// How it is.
    Status(Box<Status>),
    /// It is done.
    Done {
        /// What is to be known of it, for people.
        says: Vec<String>,
    },
    /// The chunks are waited for.
    Send,
    /// The chunks come.
    Stream,
    /// It was not done.
    Error(Told),
}

impl Request {
    /// The request in a line, checked.
    ///
    /// # Errors
    /// Refused where it is none, or what it says is not valid.
    pub fn parse(line: &[u8]) -> Result<Request> {
        let request: Request = serde_json::from_slice(line).map_err(|error| {
            Error::refused(format!("is no request: {error}"))
                .hint("requests are described in the documentation of landfall's helper")
        })?;
        request.check()?;
        Ok(request)
    }

    /// True for what changes something: one at a time, but for what [goes down](Self::goes_down).
    pub fn is_change(&self) -> bool {
        !matches!(self, Request::Status {} | Request::SupportBundle {})
    }

    /// True for what takes the machine down: that has to be possible while a disk is made for a quarter of an hour, too.
    pub fn goes_down(&self) -> bool {
        matches!(self, Request::Restart {} | Request::PowerOff {})
    }

    /// For the log: what is asked, without its values.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Status {} => "status",
            Request::SetNetwork { .. } => "set-network",
            Request::SetHostname { .. } => "set-hostname",
            Request::SetTime { .. } => "set-time",
            Request::SetSshKeys { .. } => "set-ssh-keys",
            Request::ClaimDisk { .. } => "claim-disk",
            Request::GrowDisk {} => "grow-disk",
            Request::Update {} => "update",
            Request::SupportBundle {} => "support-bundle",
            Request::ForgetToken {} => "forget-token",
            Request::Restart {} => "restart",
            Request::PowerOff {} => "power-off",
            Request::RestartService {} => "restart-service",
        }
    }

    /// What types do not say. Settings are checked as a whole, when they are kept.
    fn check(&self) -> Result<()> {
        match self {
            Request::SetTime { utc: Some(_), ntp: Some(_) } => {
                Err(Error::refused("set-time has utc, or ntp: not both")
                    .hint("send two requests where both are meant"))
            }
            Request::ClaimDisk { disk, serial } => {
                let is_name = (1..=DISK_NAME).contains(&disk.len())
                    && disk.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
                let shown: String = disk.chars().take(40).collect();
                if !is_name {
                    return Err(Error::refused(format!("{shown:?} is no name of a disk"))
                        .hint("send it as status has it: sdb, nvme1n1"));
                }
                match serial.len() > SERIAL || serial.chars().any(char::is_control) {
                    true => Err(Error::refused(format!("the serial number of {disk} is none"))
                        .hint("send it as status has it")),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::Kind;
    use proptest::prelude::*;

    #[test]
    fn requests_are_as_documented() {
        for (line, name) in [
            (r#"{"request":"status"}"#, "status"),
            (
                r#"{"request":"set-network","nic":[{"card":"first","addresses":["10.0.0.5/24"]}],"dns":["10.0.0.1"]}"#,
                "set-network",
            ),
            (r#"{"request":"set-network","nic":null}"#, "set-network"),
            (r#"{"request":"set-hostname","hostname":"dr1"}"#, "set-hostname"),
            (r#"{"request":"set-hostname","hostname":null}"#, "set-hostname"),
            (r#"{"request":"set-time","utc":"2026-11-29T14:03:05Z"}"#, "set-time"),
            (r#"{"request":"set-time","ntp":["10.0.0.1","ntp.example.org"]}"#, "set-time"),
            (r#"{"request":"set-time","ntp":null}"#, "set-time"),
            (r#"{"request":"set-time"}"#, "set-time"),
            (r#"{"request":"set-ssh-keys","keys":[]}"#, "set-ssh-keys"),
            (r#"{"request":"claim-disk","disk":"nvme0n1","serial":"A 1"}"#, "claim-disk"),
            (r#"{"request":"grow-disk"}"#, "grow-disk"),
            (r#"{"request":"update"}"#, "update"),
            (r#"{"request":"support-bundle"}"#, "support-bundle"),
            (r#"{"request":"forget-token"}"#, "forget-token"),
            (r#"{"request":"restart"}"#, "restart"),
            (r#"{"request":"power-off"}"#, "power-off"),
            (r#"{"request":"restart-service"}"#, "restart-service"),
        ] {
            let request = Request::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(request.name(), name);
            let again = serde_json::to_vec(&request).unwrap();
            assert_eq!(Request::parse(&again).unwrap(), request);
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for line in [
            "",
            "{}",
            "null",
            &deep,
            r#"{"request":"shell"}"#,
            r#"{"request":"status","a":1}"#,
            r#"{"request":"restart","when":"now"}"#,
            r#"{"request":"forget-token","path":"/etc/passwd"}"#,
            r#"{"request":"set-hostname","hostname":"a; reboot"}"#,
            r#"{"request":"set-hostname","hostname":"--help"}"#,
            r#"{"request":"set-hostname"} {"request":"restart"}"#,
            r#"{"request":"set-network","nic":[{"card":"-v","dhcp":"yes"}]}"#,
            r#"{"request":"set-network","routes":[]}"#,
            r#"{"request":"set-time","utc":"2026-11-29T14:03:05Z","ntp":[]}"#,
            r#"{"request":"set-time","utc":"1969-01-01T00:00:00Z"}"#,
            r#"{"request":"set-ssh-keys","keys":["command=\"x\" ssh-rsa AAAA"]}"#,
            r#"{"request":"claim-disk","disk":"../sda","serial":""}"#,
            r#"{"request":"claim-disk","disk":"","serial":""}"#,
            r#"{"request":"claim-disk","disk":"-sda","serial":""}"#,
            r#"{"request":"claim-disk","disk":"sda","serial":"a\nb"}"#,
            r#"{"request":"claim-disk","disk":"sda"}"#,
        ] {
            let error =
                Request::parse(line.as_bytes()).map(|request| panic!("{line}: {request:?}")).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::parse(&line);
        }
    }
}
