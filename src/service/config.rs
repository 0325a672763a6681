//! The service's file, `landfall.toml`.
//!
//! ```toml
//! vault = "/var/lib/landfall/vault"   # where everything is kept
//!
//! [receive]
//! listen = ["[::]:10809"]             # NBD over TLS, for the hypervisors
//! certificate = "receiver.pem"
//! key = "receiver.key"
//! clients_ca = "clients-ca.pem"
//!
//! [api]
//! listen = ["[::]:8470"]              # HTTPS, for people and programs with a token
//! certificate = "api.pem"
//! key = "api.key"
//! viewer = "landfall-console"         # a user of this machine who may look, through the local socket
//!
//! [protect]                           # for every machine
//! checkpoint = "5s"
//! retention = "24h every 5s, 7d every 1h, 30d every 1d"
//! rpo = "15s"
//! prove = "1d"                        # boot the newest point in isolation, and keep the evidence
//! prepare = ["kvm"]                   # patch points ahead: their recovery starts at once
//!
//! [machine.db01]                      # and for one of them
//! retention = "7d every 5s"
//!
//! [group.shop]                        # cut at one moment
//! machines = ["web01", "db01"]
//!
//! [[send]]                            # to another landfall, by the clock
//! to = "https://dr2.example.org:8470"
//! ca = "dr2-ca.pem"
//! certificate = "this.pem"
//! key = "this.key"
//! machines = ["web*", "db01"]
//! every = "15m"
//!
//! [[folder]]                          # where exported machines and deltas of them are put
//! path = "/srv/drops"
//! ```
//! Every key has a default. Paths are relative to the file's folder.

mod sends;
mod written;

pub use sends::{Senders, Sends};
pub(crate) use written::Written;

use crate::name::Name;
use crate::ops::toml_file;
use crate::receive::folder::Options;
use crate::receive::nbd::Config as Receive;
use crate::receive::rights::Rights;
use crate::receive::subject::Subject;
use crate::receive::{Certificate, Peer};
use crate::vault::retention::Retention;
use landfall_image::convert::RateLimit;
use landfall_image::nbd::ClientOptions;
use landfall_image::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use written::Bad;

/// How the service is set up, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The vault's folder.
    pub vault: PathBuf,
    /// The folder of the local sockets.
    pub sockets: PathBuf,
    /// The group of this machine that may read points through the local socket, besides this user: hypervisors run as users of their own.
    pub points_group: Option<u32>,
    /// Where NBD clients come in.
    pub receive: Receive,
    /// What clients by their certificates may write to; where there is none, all that are let in may write to all.
    pub clients: Vec<Client>,
    /// Where this service hands out certificates itself. What they say of their holders is believed.
    pub authority: Option<Authority>,
    /// Where the API is, besides the local socket.
    pub api: Option<Api>,
    /// The user of this machine who may look through the API's local socket, besides this user and root, who may do everything.
    pub viewer: Option<u32>,
    /// For machines that have no own.
    pub protect: Protect,
    /// Machines with settings of their own.
    pub machines: BTreeMap<Name, Protect>,
    /// Consistency groups. No machine is in two.
    pub groups: BTreeMap<Name, BTreeSet<Name>>,
    /// Folders that are watched for drops.
    pub folders: Vec<Folder>,
    /// RBD streams without a digest are refused.
    pub require_digest: bool,
    /// How NBD servers are spoken to that disks are pulled from.
    pub pull: ClientOptions,
    /// What is done in the background, and how fast.
    pub upkeep: Upkeep,
    /// How points are tried and prepared.
    pub drill: Drill,
    /// Who is told of alarms.
    pub alarm: Alarm,
    /// What is sent to other landfalls by the clock.
    pub sends: Vec<Sends>,
}

/// A watched folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Which drops are taken, and where they go.
    pub options: Options,
    /// Between two looks.
    pub every: Duration,
}

/// What a client with a certificate may write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The certificate's subject, or its SHA-256.
    pub who: Who,
    /// Patterns of machines' names.
    pub machines: Vec<String>,
    /// It may read these machines' recovery points, too.
    pub recovers: bool,
}

/// The authority that this service hands out certificates of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Its certificate, in PEM.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever has a certificate with this subject.
    Subject(Subject),
    /// Whoever has this certificate, by its SHA-256.
    Fingerprint([u8; 32]),
}

impl Who {
    fn is(&self, certificate: &Certificate) -> bool {
        match self {
            Who::Subject(subject) => subject.is(&certificate.names),
            Who::Fingerprint(sha256) => *sha256 == certificate.sha256,
        }
    }
}

/// Where the API is reached from other machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Addresses and ports.
    pub listen: Vec<SocketAddr>,
    /// The server's certificate, in PEM.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority of certificates that other landfalls show, which send machines.
    pub clients_ca: Option<PathBuf>,
    /// Who may send.
    pub senders: Senders,
}

/// When a copy of a disk is believed to be complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InSync {
    /// When the client flushes and stays: QEMU's mirror does so when source and copy are the same. A client that flushes and
    /// leaves may have failed half-way: then somebody has to say that it has not (`landfall ready`).
    #[default]
    Stays,
    /// When the client flushes, also where it leaves then. For sources whose jobs are watched by somebody else.
    Flush,
    /// When somebody says so.
    Said,
}

/// How a machine is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protect {
    /// Between two checkpoints.
    pub checkpoint: Duration,
    /// Which points are kept.
    pub retention: Retention,
    /// How old the newest point may be of a machine that is mirrored.
    pub rpo: Duration,
    /// How old the last delta may be of a machine that is fed by deltas.
    pub delta_rpo: Duration,
    /// When a copy is complete.
    pub in_sync: InSync,
    /// Between two trial boots; `None` for never.
    pub prove: Option<Duration>,
    /// The targets that points are patched ahead for.
    pub prepare: BTreeSet<String>,
}

impl Default for Protect {
    fn default() -> Protect {
        Protect {
            checkpoint: Duration::from_secs(5),
            retention: Retention::default(),
            rpo: Duration::from_secs(15),
            // One each day, which takes its time.
            delta_rpo: Duration::from_secs(26 * 3600),
            in_sync: InSync::default(),
            prove: None,
            prepare: BTreeSet::new(),
        }
    }
}

/// How points are tried, and patched ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drill {
    /// On whose virtual hardware points are booted.
    pub target: String,
    /// From power-on to giving up.
    pub within: Duration,
    /// Where the evidence is kept: `MACHINE/POINT-…`.
    pub evidence: PathBuf,
    /// Trials of a machine whose files are kept; what came of them is kept of all.
    pub keep: usize,
    /// Between two points that are patched ahead.
    pub prepare_every: Duration,
    /// The socket of whoever runs trials; `None` where the service does it itself.
    pub through: Option<PathBuf>,
    /// Where they are, as [`recover`](crate::ops::recover) looks for them.
    pub recovered: PathBuf,
}

/// Work in the background.
#[derive(Clone, Debug)]
pub struct Upkeep {
    /// Between two rounds.
    pub every: Duration,
    /// Bytes written per second, at most.
    pub rate_limit: Option<RateLimit>,
    /// Of the vault's file system, in per cent: below, an alarm is raised.
    pub low: u8,
    /// Below, points are thinned by `thin` before their time.
    pub scarce: u8,
    /// The rules of retention when room is scarce.
    pub thin: Retention,
}

/// Who is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarm {
    /// Gets each alarm as a JSON document by POST.
    pub webhook: Option<String>,
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// Refused, with the line and a hint, where it cannot be used; nothing is opened but the file itself.
    pub fn read(path: &Path) -> Result<Config> {
        let (text, _) = toml_file::read(path)?;
        // Others are told of its places, too: from wherever they are.
        let whole =
            std::path::absolute(path).map_err(|error| Error::io("cannot be found", error).in_file(path))?;
        let folder = whole.parent().unwrap_or(Path::new(""));
        Config::parse(&text, folder).map_err(|error| error.in_file(path))
    }

    /// The configuration in `text`, with paths relative to `folder`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str, folder: &Path) -> Result<Config> {
        let written: Written = toml_file::parse(text)?;
        written.check(folder).map_err(|error| match error {
            Bad::At(wrong) => wrong.in_text(text),
            Bad::Whole(error) => error,
        })
    }

    /// How a machine is protected.
    pub fn protect(&self, machine: &Name) -> &Protect {
        self.machines.get(machine).unwrap_or(&self.protect)
    }

    /// The group that a machine is in.
    pub fn group(&self, machine: &Name) -> Option<&Name> {
        self.groups.iter().find(|(_, members)| members.contains(machine)).map(|(name, _)| name)
    }

    /// True where that client may write to that machine.
    pub fn may_write(&self, peer: &Peer, machine: &Name) -> bool {
        let Some(certificate) = &peer.certificate else { return true };
        let named = self.rules(certificate, machine).next().is_some();
        match self.rights(certificate) {
            Some(rights) => named || Rights::fit(&rights.send, machine),
            None => named || self.clients.is_empty(),
        }
    }

    /// True where that client may read that machine's recovery points over the network.
    pub fn may_recover(&self, peer: &Peer, machine: &Name) -> bool {
        let Some(certificate) = &peer.certificate else { return false };
        let is_right = |rights: &Rights| Rights::fit(&rights.recover, machine);
        self.rights(certificate).is_some_and(is_right)
            || self.rules(certificate, machine).any(|client| client.recovers)
    }

    /// The rules of the file for this certificate and machine.
    fn rules<'a>(
        &'a self,
        certificate: &'a Certificate,
        machine: &'a Name,
    ) -> impl Iterator<Item = &'a Client> {
        self.clients
            .iter()
            .filter(|client| client.who.is(certificate) && Rights::fit(&client.machines, machine))
    }

    /// What the certificate says itself, where that counts.
    fn rights<'a>(&self, certificate: &'a Certificate) -> Option<&'a Rights> {
        self.authority.as_ref().map(|_| &certificate.rights).filter(|rights| !rights.is_empty())
    }

    /// The local socket of NBD clients.
    pub fn receive_socket(&self) -> PathBuf {
        self.sockets.join("receive.sock")
    }

    /// The local socket of those who read points.
    pub fn points_socket(&self) -> PathBuf {
        self.sockets.join("points.sock")
    }

    /// The local socket of the API.
    pub fn api_socket(&self) -> PathBuf {
        self.sockets.join("api.sock")
    }
}

#[cfg(test)]
mod tests;
