//! What `landfall serve --check` says of the service's file.

use landfall_image::Bytes;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The service as its file describes it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ServeChecked {
    /// Version of the document: [`VERSION`](super::VERSION).
    pub version: u32,
    /// The vault's folder.
    pub vault: String,
    /// Where NBD clients come in: sockets, and addresses with TLS.
    pub receive: Vec<String>,
    /// The socket at which points are read.
    pub points: String,
    /// Where the API is.
    pub api: Vec<String>,
    /// Folders that are watched for drops.
    pub folders: Vec<WatchedFolder>,
    /// What is sent to other landfalls by the clock.
    pub sends: Vec<SendsByClock>,
    /// RBD streams without a digest are refused.
    pub require_digest: bool,
    /// What clients may write to, by their certificates; where there is none, all that are let in may write to all.
    pub clients: Vec<ClientRule>,
    /// Who is told of alarms, by a POST.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// How machines are protected that have no rules of their own.
    pub protect: Rules,
    /// Machines with rules of their own.
    pub machines: BTreeMap<String, Rules>,
    /// Machines whose points are cut at one moment.
    pub groups: BTreeMap<String, Vec<String>>,
    /// What the file needs and this machine does not have, or this user may not do.
    pub lacks: Vec<Found>,
    /// What may be a mistake.
    pub doubts: Vec<Found>,
}

/// Something that was found, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Found {
    /// In one line.
    pub says: String,
    /// What to do.
    pub fix: String,
}

/// A watched folder.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WatchedFolder {
    /// Where it is.
    pub path: String,
    /// Between two looks: `10s`.
    pub every: String,
    /// Only drops with a manifest are taken.
    pub manifest: bool,
    /// Drops that were taken stay where they are.
    pub keep: bool,
}

/// What a client may write to.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ClientRule {
    /// Its certificate's subject, or `sha256:` and the certificate's digest.
    pub who: String,
    /// Patterns of machines' names.
    pub machines: Vec<String>,
}

/// Machines that are sent to another landfall.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SendsByClock {
    /// Where it is.
    pub to: String,
    /// Patterns of machines' names.
    pub machines: Vec<String>,
    /// Between two sends of a machine: `15m`.
    pub every: String,
    /// After so long without one that came to its end there is an alarm.
    pub late: String,
    /// Bytes per second on the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Bytes>,
}

/// How a machine is protected.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Rules {
    /// Between two points: `5s`.
    pub checkpoint: String,
    /// Which points are kept.
    pub retention: String,
    /// How old the newest may be, where it is mirrored.
    pub rpo: String,
    /// How old the last delta may be, where it is fed by deltas.
    pub delta_rpo: String,
    /// How often a point is booted in isolation; `None` for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prove: Option<String>,
    /// The targets that points are patched ahead for.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub prepare: BTreeSet<String>,
}
