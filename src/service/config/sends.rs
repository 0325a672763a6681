//! `[[send]]`: machines that are sent to another landfall by the clock; and by what those are known that send here.

use super::written::{Bad, bad, between};
use crate::name::Name;
use crate::ops::parse_size;
use landfall_image::convert::RateLimit;
use landfall_image::nbd::TlsFiles;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

/// By what another landfall is known that sends machines over the network. On the local socket nothing is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Senders {
    /// By its certificate, which decides which machines it may send (`[receive] client`).
    Certificate,
    /// By a token with the role operate, for all machines.
    Token,
    /// By either.
    Either,
    /// By both.
    Both,
}

impl Senders {
    /// As it is written, where the authority of certificates is named or not.
    pub(super) fn of(written: Option<&Spanned<Senders>>, has_authority: bool) -> Result<Senders, Bad> {
        match (written, has_authority) {
            (None, true) => Ok(Senders::Certificate),
            (None, false) => Ok(Senders::Token),
            (Some(senders), false) if *senders.get_ref() != Senders::Token => Err(bad(
                senders.span().start,
                "nobody says whose certificates count",
                "name the authority of the senders' certificates: [api] clients_ca = …",
            )),
            (Some(senders), _) => Ok(*senders.get_ref()),
        }
    }
}

/// Machines that are sent to another landfall by the clock.
#[derive(Clone, Debug)]
pub struct Sends {
    /// `https://HOST[:PORT]`, or the path of a socket.
    pub to: String,
    /// The authority of its certificate and this side's own certificate with its key.
    pub tls: TlsFiles,
    /// The file with the secret of a token for it.
    pub token: Option<PathBuf>,
    /// Patterns of machines' names.
    pub machines: Vec<String>,
    /// Between two sends.
    pub every: Duration,
    /// After so long without a send that came to its end, an alarm is raised.
    pub late: Duration,
    /// Bytes per second on the line, of all machines together.
    pub limit: Option<RateLimit>,
}

impl Sends {
    /// True where that machine is sent.
    pub fn is_for(&self, machine: &Name) -> bool {
        self.machines.iter().any(|pattern| landfall_boot::network_map::fits(pattern, machine.as_str()))
    }
}

/// As it is written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "WrittenSend")]
pub(crate) struct Written {
    /// The other landfall: `https://HOST:8470`.
    #[schemars(with = "String")]
    to: Spanned<String>,
    /// The authority of its certificate, in PEM; by default those of the system, where `certificate` is not there.
    #[serde(default)]
    ca: Option<PathBuf>,
    /// The certificate by which it knows this landfall, in PEM.
    #[serde(default)]
    certificate: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    key: Option<PathBuf>,
    /// A file with the secret of a token for it (lf_…), that nobody else can read.
    #[serde(default)]
    token_file: Option<PathBuf>,
    /// The machines, as patterns: `web*`; by default all.
    #[serde(default = "every_machine")]
    machines: Vec<String>,
    /// Between two sends of a machine, 1s to 30d: `15m`.
    #[schemars(with = "String")]
    every: Spanned<String>,
    /// After so long without a send that came to its end an alarm is raised; by default three times `every`.
    #[schemars(with = "Option<String>")]
    #[serde(default)]
    late: Option<Spanned<String>>,
    /// Bytes per second on the line, of all machines together: `20M`; by default no limit.
    #[schemars(with = "Option<String>")]
    #[serde(default)]
    limit: Option<Spanned<String>>,
}

fn every_machine() -> Vec<String> {
    vec!["*".to_owned()]
}

impl Written {
    pub(super) fn check(&self, path: &impl Fn(&PathBuf) -> PathBuf) -> Result<Sends, Bad> {
        const MONTH: u64 = 30 * 24 * 3600;
        let at = self.to.span().start;
        let is_place = self.to.get_ref().starts_with("https://") || self.to.get_ref().starts_with('/');
        if !is_place {
            return Err(bad(
                at,
                format!("nothing can be sent to {:?}", self.to.get_ref()),
                "write https://HOST:8470",
            ));
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Err(bad(
                at,
                "a certificate is of no use without its key",
                "name both: certificate = …, key = …",
            ));
        }
        if self.certificate.is_some() && self.ca.is_none() {
            return Err(bad(
                at,
                "nobody says whose certificate the other landfall has",
                "name its authority: ca = …",
            ));
        }
        if self.to.get_ref().starts_with("https://")
            && self.certificate.is_none()
            && self.token_file.is_none()
        {
            return Err(bad(
                at,
                "the other landfall would not know who sends",
                "name this one's certificate (certificate = …, key = …), or a file with a token (token_file = …)",
            ));
        }
        let every = between(&self.every, 1, MONTH)?;
        let limit = |text: &Spanned<String>| {
            let rate = parse_size(text.get_ref().trim().trim_end_matches("/s"));
            rate.map(RateLimit::new).map_err(|says| bad(text.span().start, says, "write it like 20M or 1G"))
        };
        Ok(Sends {
            to: self.to.get_ref().clone(),
            tls: TlsFiles {
                ca: self.ca.as_ref().map(path),
                certificate: self.certificate.as_ref().map(path),
                key: self.key.as_ref().map(path),
            },
            token: self.token_file.as_ref().map(path),
            machines: self.machines.clone(),
            every,
            late: self.late.as_ref().map_or(Ok(every * 3), |text| between(text, 1, 3 * MONTH))?,
            limit: self.limit.as_ref().map(limit).transpose()?,
        })
    }
}
