//! How replicated disks come in: who may send what, and where it goes.
//!
//! ```text
//! QEMU blockdev-mirror, qemu-img, nbdcopy … -> nbd::Receiver -> Exports -> DiskMut (the vault's live disk)
//! rbd export-diff, rbd export               -> spool -> rbd ----+
//! exported machines, images, deltas of them -> folder ----------+-> batch -> vault::Machine, a point for each moment
//! NBD exports with dirty bitmaps            -> pull ------------+
//! another landfall, over its API or a seed  -> send ------------+
//! ```
//!
//! [`nbd`] is the server that hypervisors write to: it knows a disk that takes writes in order, and nothing of recovery points. The
//! others bring deltas, which are applied whole ([`batch`]) and know what they began at ([`position`]). Both say what they write to
//! ([`lease`]), and so does whoever cuts points.

pub mod batch;
pub mod content;
pub mod digest;
mod files;
pub mod folder;
pub mod incoming;
pub mod lease;
pub mod nbd;
pub mod position;
pub mod pull;
pub mod rbd;
pub mod rights;
pub mod send;
pub mod spool;
pub mod subject;

#[cfg(test)]
pub(crate) mod testing;

use crate::name::Name;
use landfall_image::{Bytes, DiskMut, Result};
use rights::Rights;
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use subject::Subject;

/// The name of one disk of one machine, `MACHINE/DISK`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExportName {
    machine: Name,
    disk: Name,
    whole: String,
}

impl ExportName {
    /// The name in `text`; `None` where it is none.
    pub fn parse(text: &str) -> Option<ExportName> {
        let (machine, disk) = text.split_once('/')?;
        Some(ExportName { machine: machine.parse().ok()?, disk: disk.parse().ok()?, whole: text.to_owned() })
    }
    /// The machine.
    pub fn machine(&self) -> &Name {
        &self.machine
    }
    /// The disk of it.
    pub fn disk(&self) -> &Name {
        &self.disk
    }
    /// Both, with the slash.
    pub fn as_str(&self) -> &str {
        &self.whole
    }
}

impl fmt::Display for ExportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole)
    }
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this machine, behind a socket that only this user can reach.
    Local {
        /// Its process, where the kernel says so.
        pid: Option<i32>,
        /// Its user.
        uid: u32,
    },
    /// At this address.
    Network(SocketAddr),
}

/// The certificate that a client has proved to be its own, signed by the authority of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its subject as RFC 4514 prints it, such as `CN=web01,O=Example`; the beginning of a long one.
    pub subject: String,
    /// The same, to be compared.
    pub names: Subject,
    /// SHA-256 of the certificate in DER: its fingerprint.
    pub sha256: [u8; 32],
    /// SHA-256 of its public key (SubjectPublicKeyInfo in DER): the same for every certificate of that key, however it is written down.
    pub key: [u8; 32],
    /// What it says that its holder may do.
    pub rights: Rights,
}

/// Longest subject that is kept of a certificate, in characters.
const SUBJECT_AT_MOST: usize = 256;

impl Certificate {
    /// One that was verified, in DER. The subject is empty where it cannot be read.
    pub fn of(der: &[u8]) -> Certificate {
        let parsed = x509_parser::parse_x509_certificate(der);
        let key = parsed.as_ref().map_or(der, |(_, certificate)| certificate.public_key().raw);
        let key = Sha256::digest(key).into();
        let (names, rights) = parsed
            .map(|(_, certificate)| (Subject::of(certificate.subject()), Rights::of(&certificate)))
            .unwrap_or_default();
        let subject = names.to_string().chars().take(SUBJECT_AT_MOST).collect();
        Certificate { subject, names, sha256: Sha256::digest(der).into(), key, rights }
    }

    /// The line of the service's file that names it: by its subject, or by its digest where that is too long or not there.
    pub fn rule(&self) -> String {
        let whole = self.names.to_string();
        match self.names.is_empty() || whole != self.subject {
            true => {
                let digits: String = self.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("sha256 = \"{digits}\"")
            }
            // What JSON escapes, TOML does in the same way; control characters are escaped already.
            false => format!("subject = {}", serde_json::Value::String(whole)),
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub place: Place,
    /// What it has proved; `None` on a local socket, and on a loopback address without TLS.
    pub certificate: Option<Certificate>,
}

impl fmt::Display for Peer {
    /// `192.0.2.7:40112 (CN=web01)`, `local user 0, process 812`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Local { pid: Some(pid), uid } => write!(f, "local user {uid}, process {pid}")?,
            Place::Local { pid: None, uid } => write!(f, "local user {uid}")?,
            Place::Network(address) => write!(f, "{address}")?,
        }
        match &self.certificate {
            Some(certificate) => write!(f, " ({})", certificate.subject),
            None => Ok(()),
        }
    }
}

/// What a client gets under a name.
#[derive(Clone)]
pub struct Opened {
    /// Takes the writes. All connections of one export get the same disk, or views of it: what one wrote, the others
    /// read, and one's flush covers what was written by all. A connection calls `write_at` and `zero_at` in the
    /// order in which its requests came, one at a time, and answers when they have returned; other connections call
    /// at the same time. `flush` returns when what was written is on permanent storage. `read_at` and `extents` are
    /// called at any time, from many threads.
    ///
    /// Every connection keeps its `Arc` until it ends, so that a wrapper can count as a lease.
    pub disk: Arc<dyn DiskMut>,
    /// Writes are answered with `EPERM`.
    pub read_only: bool,
    /// The block size that clients should prefer: 4 KiB to 64 KiB, a power of two.
    pub preferred: Bytes,
    /// A text about it for people.
    pub description: Option<String>,
}

/// How a connection came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client said goodbye.
    Left,
    /// The receiver was told to stop.
    Stopped,
    /// Anything else: the client vanished, broke the protocol, or was too slow. Says what happened.
    Lost(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Left => f.write_str("the client left"),
            Ended::Stopped => f.write_str("the receiver was stopped"),
            Ended::Lost(why) => f.write_str(why),
        }
    }
}

/// The moment from which on a client may not be here any longer.
pub type SentAway = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What there is to be received into. The methods may block for a while, and are called from many threads at once.
pub trait Exports: Send + Sync {
    /// The export of that name as `peer` gets it; `None` where there is none, or none that this peer may know of. Asked
    /// whenever a client wants to know about an export, not only when it begins to use it.
    ///
    /// # Errors
    /// [`Kind::Refused`](landfall_image::Kind::Refused) where this peer must not have it, or not now: what the error
    /// says is told to the client. Any other kind where it does not work.
    fn open(&self, name: &ExportName, peer: &Peer) -> Result<Option<Opened>>;

    /// Comes to its end when `peer` may not be here any longer: its connection is broken off. What was acknowledged to it has been applied.
    /// `None` where that never happens.
    fn sent_away(&self, peer: &Peer) -> Option<SentAway> {
        let _ = peer;
        None
    }

    /// The names that `peer` may know.
    fn list(&self, peer: &Peer) -> Vec<ExportName>;

    /// A client begins to use an export; `connections` of it are there now, this one included. Told one after the other
    /// for one export, as [`Exports::closed`] is: neither may wait for another client of the same export.
    fn connected(&self, name: &ExportName, peer: &Peer, connections: usize) {
        let _ = (name, peer, connections);
    }

    /// A client has asked for a FLUSH, which is done; not told of writes with FUA. For QEMU's jobs it is the sign that a copy is
    /// complete, or over.
    fn flushed(&self, name: &ExportName, peer: &Peer) {
        let _ = (name, peer);
    }

    /// A client has ended; all that was acknowledged to it has been applied. `connections` of the export are left: with
    /// 0, nobody sends any longer, and `why` says whether that was meant.
    fn closed(&self, name: &ExportName, peer: &Peer, connections: usize, why: &Ended) {
        let _ = (name, peer, connections, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_two_halves_and_cannot_leave_a_folder() {
        let name = ExportName::parse("web 01/sda").unwrap();
        assert_eq!(
            (name.machine().as_str(), name.disk().as_str(), name.as_str()),
            ("web 01", "sda", "web 01/sda")
        );
        for bad in ["", "a", "/", "a/", "/a", "a/b/c", "../a", "a/..", "./a", "a/.b", "a\0/b", "a/b\n", "//"]
        {
            assert_eq!(ExportName::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_peer_is_said_in_one_line() {
        let local = Peer { place: Place::Local { pid: Some(812), uid: 0 }, certificate: None };
        assert_eq!(local.to_string(), "local user 0, process 812");
        let far = Peer {
            place: Place::Network("192.0.2.7:40112".parse().unwrap()),
            certificate: Some(Certificate {
                rights: Rights::default(),
                subject: "CN=web01".into(),
                names: Subject::parse("CN=web01").unwrap(),
                sha256: [0; 32],
                key: [0; 32],
            }),
        };
        assert_eq!(far.to_string(), "192.0.2.7:40112 (CN=web01)");
    }
}
