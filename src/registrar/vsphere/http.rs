//! HTTPS to a vCenter or an ESXi host: requests with a text, requests with a file.
//!
//! The protocol is ureq's; TLS is rustls' own ([`crate::transport`]), because a pinned certificate needs a verifier of its own, which
//! ureq has no setting for. Deliberately absent: redirects (a password is not carried elsewhere), proxies, and connections without
//! TLS.

use crate::transport::TlsConnector;
use crate::trust::{Refused, Trust};
use landfall_image::{Bytes, Error, Kind, Result};
use std::io::{ErrorKind, Read};
use std::time::Duration;
use ureq::config::Config;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, Body, SendBody, http};

/// The inventory of a large vCenter comes in pages of some MiB.
const ANSWER: u64 = 64 << 20;
/// A server under load takes its time; a network that is gone gives nothing at all.
const SILENCE: Duration = Duration::from_secs(120);
const CONNECT: Duration = Duration::from_secs(30);

/// A client of servers that it trusts.
#[derive(Clone)]
pub(super) struct Http {
    agent: Agent,
    refused: Refused,
}

/// What a server answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub text: Vec<u8>,
    /// `name=value` of every cookie.
    pub cookies: Vec<String>,
}

impl Http {
    pub(super) fn new(trust: &Trust) -> Result<Http> {
        let (tls, refused) = trust.config()?;
        let config = Config::builder()
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .build();
        let connector = ().chain(TcpConnector::default()).chain(TlsConnector(tls));
        Ok(Http { agent: Agent::with_parts(config, connector, DefaultResolver::default()), refused })
    }

    /// Sends a text.
    pub(super) fn post(&self, url: &str, headers: &[(&str, &str)], text: &str) -> Result<Answer> {
        let request = request("POST", url, headers).body(text).map_err(|e| unusable(url, &e))?;
        self.answer(url, self.agent.run(request))
    }

    /// Asks whether something is there, without its content.
    pub(super) fn head(&self, url: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let request = request("HEAD", url, headers).body(()).map_err(|e| unusable(url, &e))?;
        self.answer(url, self.agent.run(request))
    }

    /// Sends `len` bytes from `content`.
    pub(super) fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        len: Bytes,
        content: &mut dyn Read,
    ) -> Result<Answer> {
        let request = request(method, url, headers)
            .header("Content-Length", len.0)
            .body(SendBody::from_reader(content))
            .map_err(|e| unusable(url, &e))?;
        self.answer(url, self.agent.run(request))
    }

    fn answer(&self, url: &str, outcome: Result<http::Response<Body>, ureq::Error>) -> Result<Answer> {
        let mut response = outcome.map_err(|e| self.failed(url, e))?;
        let cookies = response.headers().get_all("set-cookie").iter();
        let cookies = cookies
            .filter_map(|cookie| Some(cookie.to_str().ok()?.split(';').next()?.trim().to_owned()))
            .collect();
        let status = response.status().as_u16();
        let text =
            response.body_mut().with_config().limit(ANSWER).read_to_vec().map_err(|e| self.failed(url, e))?;
        Ok(Answer { status, text, cookies })
    }

    fn failed(&self, url: &str, error: ureq::Error) -> Error {
        let place = place(url);
        if let Some((thumbprint, why)) = self.refused.take() {
            return Error::refused(format!("{place} shows a certificate that is not trusted: {why}")).hint(format!(
                "give the file of its authority with --register-ca; or compare this with what the server's own console \
                 shows, and if it is the same: --thumbprint {thumbprint}"
            ));
        }
        let doing = format!("no answer from {place}");
        match error {
            ureq::Error::Io(e) => Error::io(doing, e),
            ureq::Error::Timeout(_) => Error::io(doing, ErrorKind::TimedOut.into()),
            other => Error::new(Kind::Io, format!("{doing}: {other}")),
        }
    }
}

fn request(method: &str, url: &str, headers: &[(&str, &str)]) -> http::request::Builder {
    let start = http::Request::builder().method(method).uri(url);
    headers.iter().fold(start, |request, (name, value)| request.header(*name, *value))
}

fn unusable(url: &str, error: &http::Error) -> Error {
    Error::refused(format!("{} is no address that can be used: {error}", place(url)))
}

/// The part of an address that is for people: no path, and nothing that could be a secret.
fn place(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest)
}
