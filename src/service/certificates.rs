//! Certificates that this service has handed out to those who write to it or read of it, and which of them were taken back.
//!
//! ```text
//! landfall certificate add -> [authority] signs -> certificate and key, which nobody keeps; the catalog has name, digest, rights
//! NBD, API <- certificate: taken back? -> the configuration's rules, and what it says of its holder
//! ```
//! What a certificate allows stands in itself ([`Rights`]): a catalog that is lost locks nobody out. What it does take along is which were
//! taken back; the alarm of a lost catalog says so.
//!
//! Who writes or reads over NBD with a certificate is sent away when it is taken back; over HTTPS each request is looked at by itself.
//!
//! Deliberately absent: breaking off a request over HTTPS that was let in: it ends as it would have.

use super::Service;
use super::catalog::Catalog;
use crate::authority::{Authority, Issued};
use crate::moment::Moment;
use crate::name::Name;
use crate::receive::rights::Rights;
use crate::receive::{Certificate as Shown, Peer, SentAway};
use crate::report::api::{Certificate, CertificateMade};
use landfall_image::{Error, Result};
use rusqlite::{OptionalExtension, params};
use std::sync::Arc;

/// So many are handed out at most, those that were taken back included.
const AT_MOST: usize = 10_000;
/// Patterns in one of them.
const PATTERNS_AT_MOST: usize = 100;
/// Bytes of a pattern.
const PATTERN_AT_MOST: usize = 100;

impl Service {
    /// True where that client may write to that machine.
    pub fn may_write(&self, peer: &Peer, machine: &Name) -> bool {
        self.config.may_write(peer, machine) && !self.is_taken_back(peer)
    }

    /// True where that client may read that machine's points over the network.
    pub fn may_recover(&self, peer: &Peer, machine: &Name) -> bool {
        self.config.may_recover(peer, machine) && !self.is_taken_back(peer)
    }

    /// True where the client's certificate was taken back, or nobody can tell at this moment.
    pub fn is_taken_back(&self, peer: &Peer) -> bool {
        let Some(Shown { key, .. }) = &peer.certificate else { return false };
        self.catalog().is_taken_back(key).unwrap_or_else(|error| {
            tracing::error!(%error, "whether a certificate was taken back cannot be told: it is not let in");
            true
        })
    }

    /// Ends when the client's certificate is taken back; `None` where it has none.
    pub fn until_taken_back(self: &Arc<Self>, peer: &Peer) -> Option<SentAway> {
        peer.certificate.as_ref()?;
        // Listened for before it is looked at: none is missed in between.
        let (mut told, peer, service) = (self.taken_back.subscribe(), peer.clone(), Arc::clone(self));
        Some(Box::pin(async move {
            loop {
                let is_taken_back = tokio::task::block_in_place(|| service.is_taken_back(&peer));
                if is_taken_back || told.changed().await.is_err() {
                    return;
                }
            }
        }))
    }

    /// Takes a certificate back, and sends away who is there with it; false where none of that name is out.
    ///
    /// # Errors
    /// Where the catalog cannot be written.
    pub fn take_back(&self, name: &str) -> Result<bool> {
        let is_known = self.catalog().take_back(name)?;
        self.taken_back.send_replace(());
        Ok(is_known)
    }

    /// Hands out a certificate.
    ///
    /// # Errors
    /// Refused where this service has no authority, or has one of that name; `Corrupt` and `Io` where the authority cannot be used.
    pub fn make_certificate(&self, name: &str, rights: Rights) -> Result<CertificateMade> {
        let files = self.config.authority.as_ref().ok_or_else(|| {
            Error::refused("this service has no authority of its own").hint(
                "name its certificate and key in [authority] of the service's file, or let the authority in clients_ca sign",
            )
        })?;
        check(&rights)?;
        let authority = Authority::load(&files.certificate, &files.key)?;
        let issued = authority.client(name, &rights)?;
        let certificate = Certificate {
            name: name.to_owned(),
            sha256: hex(&issued.sha256),
            rights,
            made: Moment::now(),
            taken_back: None,
        };
        self.catalog().add_certificate(&certificate, &issued)?;
        Ok(CertificateMade {
            version: crate::report::VERSION,
            certificate,
            pem: issued.certificate,
            key: issued.key,
            ca: issued.ca,
        })
    }
}

fn check(rights: &Rights) -> Result<()> {
    let all = [&rights.send, &rights.recover];
    if all.iter().all(|patterns| patterns.is_empty()) {
        return Err(Error::refused("a certificate that allows nothing")
            .hint("name the machines that its holder may send or recover, as patterns: *"));
    }
    let is_bad = |pattern: &&String| {
        pattern.is_empty() || pattern.len() > PATTERN_AT_MOST || pattern.chars().any(char::is_control)
    };
    if let Some(pattern) = all.iter().flat_map(|patterns| patterns.iter()).find(is_bad) {
        return Err(Error::refused(format!("{pattern:?} is no pattern of machines' names"))
            .hint(format!("1 to {PATTERN_AT_MOST} bytes: web*")));
    }
    match all.iter().map(|patterns| patterns.len()).sum::<usize>() > PATTERNS_AT_MOST {
        true => {
            Err(Error::refused(format!("more than {PATTERNS_AT_MOST} patterns"))
                .hint("use wider patterns: web*"))
        }
        false => Ok(()),
    }
}

fn hex(sha256: &[u8; 32]) -> String {
    sha256.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Catalog {
    fn add_certificate(&self, certificate: &Certificate, issued: &Issued) -> Result<()> {
        let all = self.certificates()?;
        if all.len() >= AT_MOST {
            return Err(Error::refused(format!("{AT_MOST} certificates were handed out"))
                .hint("use those that are out for several machines: --send and --recover take patterns"));
        }
        if all.iter().any(|one| one.name == certificate.name && one.taken_back.is_none()) {
            return Err(Error::refused(format!("there is a certificate {:?}", certificate.name)).hint(
                format!(
                    "take it back first (landfall certificate remove {}), or choose another name",
                    certificate.name
                ),
            ));
        }
        let rights = serde_json::to_string(&certificate.rights)
            .map_err(|e| Error::corrupt(format!("rights cannot be written: {e}")))?;
        let insert =
            "INSERT INTO certificate (sha256, key_sha256, name, rights, made) VALUES (?1, ?2, ?3, ?4, ?5)";
        let made = super::catalog::signed(certificate.made.0);
        self.with(|c| {
            c.execute(insert, params![issued.sha256, issued.key_sha256, certificate.name, rights, made])
        })
        .map(drop)
    }

    /// What was handed out, by name, the oldest of a name first.
    ///
    /// # Errors
    /// Where the catalog cannot be read.
    pub fn certificates(&self) -> Result<Vec<Certificate>> {
        self.with(|c| {
            let mut found = c.prepare(
                "SELECT name, sha256, rights, made, taken_back FROM certificate ORDER BY name, made",
            )?;
            let all = found.query_map([], |row| {
                let (rights, made): (String, i64) = (row.get(2)?, row.get(3)?);
                Ok(Certificate {
                    name: row.get(0)?,
                    sha256: hex(&row.get(1)?),
                    rights: serde_json::from_str(&rights).unwrap_or_default(),
                    made: Moment(made.unsigned_abs()),
                    taken_back: row.get::<_, Option<i64>>(4)?.map(|at| Moment(at.unsigned_abs())),
                })
            })?;
            all.collect()
        })
    }

    fn take_back(&self, name: &str) -> Result<bool> {
        let update = "UPDATE certificate SET taken_back = ?2 WHERE name = ?1 AND taken_back IS NULL";
        let now = super::catalog::signed(Moment::now().0);
        Ok(self.with(|c| c.execute(update, params![name, now]))? > 0)
    }

    /// By its key: the digest of a certificate changes with how its signature is written down, which its holder can do.
    fn is_taken_back(&self, key: &[u8; 32]) -> Result<bool> {
        let find = "SELECT 1 FROM certificate WHERE key_sha256 = ?1 AND taken_back IS NOT NULL";
        Ok(self.with(|c| c.query_row(find, params![key], |_| Ok(())).optional())?.is_some())
    }
}
