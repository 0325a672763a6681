//! Who calls, and what that one may do.

use super::call::Refusal;
use super::server::is_own;
use crate::name::Name;
use crate::receive::{Certificate, Peer, Place};
use crate::report::api::Role;
use crate::service::Service;
use crate::service::catalog::Catalog;
use crate::service::config::Senders;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use landfall_image::{Error, Result};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// What secrets of tokens begin with, so that they are found where they do not belong.
const PREFIX: &str = "lf_";
/// Random bytes of a secret.
const SECRET: usize = 32;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The local socket, by this user or root, or by the viewer of the service's file.
    Local {
        /// Which of them.
        uid: u32,
    },
    /// TLS.
    Network(SocketAddr),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Local { uid } => write!(f, "local user {uid}"),
            Origin::Network(address) => write!(f, "{address}"),
        }
    }
}

/// Where a connection comes from, and what its client has proved.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub origin: Origin,
    /// Its certificate, of the authority in `[api] clients_ca`.
    pub certificate: Option<Arc<Certificate>>,
}

/// Who calls, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Somebody on this machine.
    Local(u32),
    /// Whoever has this token.
    Token(String),
    /// Whoever has a certificate with this subject.
    Certificate(String),
    /// Anybody, for what anybody may know.
    Anybody,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Local(uid) => write!(f, "local user {uid}"),
            Caller::Token(name) => write!(f, "token {name:?}"),
            Caller::Certificate(subject) => f.write_str(subject),
            Caller::Anybody => f.write_str("anybody"),
        }
    }
}

/// Lets a caller through who may do what `needs` says.
///
/// # Errors
/// 401 without a valid token, 403 with one that does not allow it, and for what the viewer on this machine may not do.
pub(super) fn let_in(
    catalog: &Catalog,
    origin: Origin,
    headers: &HeaderMap,
    needs: Role,
) -> std::result::Result<Caller, Refusal> {
    if let Origin::Local { uid } = origin {
        // Nobody else than the viewer has come in who is not this user or root.
        return match is_own(uid) || needs == Role::Read {
            true => Ok(Caller::Local(uid)),
            false => Err(Refusal {
                status: StatusCode::FORBIDDEN,
                error: Error::refused(format!(
                    "the local user {uid} may look and no more, and this needs the role {}",
                    needs.name()
                ))
                .hint(
                    "root and the service's own user may, or whoever has a token with that role, over HTTPS",
                ),
            }),
        };
    }
    let unauthorised = |says: &str| {
        let error = Error::refused(says)
            .hint("send a token: LANDFALL_TOKEN, or Authorization: Bearer lf_…; landfall token add makes one at the service");
        Refusal { status: StatusCode::UNAUTHORIZED, error }
    };
    let header = headers.get(AUTHORIZATION).ok_or_else(|| unauthorised("this needs a token"))?;
    let secret = header.to_str().ok().and_then(bearer).ok_or_else(|| unauthorised("this is no token"))?;
    let digest = secret_digest(secret);
    match catalog.token(&digest)? {
        None => Err(unauthorised("the token is not known, or was taken back")),
        Some((name, role)) if role >= needs => Ok(Caller::Token(name)),
        Some((name, role)) => Err(Refusal {
            status: StatusCode::FORBIDDEN,
            error: Error::refused(format!(
                "the token {name:?} has the role {}, and this needs {}",
                role.name(),
                needs.name()
            ))
            .hint(format!("landfall token add NAME --role {} makes one at the service", needs.name())),
        }),
    }
}

/// Lets another landfall through that sends this machine: by its certificate, by a token with the role operate, or both, as the
/// configuration says.
///
/// # Errors
/// 401 where it has shown neither, 403 where what it has shown is not enough.
pub(super) fn let_send(
    service: &Service,
    guest: &Guest,
    headers: &HeaderMap,
    machine: &str,
) -> std::result::Result<Caller, Refusal> {
    let config = service.config();
    let Origin::Network(address) = guest.origin else {
        return let_in(service.catalog(), guest.origin, headers, Role::Operate);
    };
    let senders = config.api.as_ref().map_or(Senders::Certificate, |api| api.senders);
    let refused =
        |status, says: String, hint: &str| Refusal { status, error: Error::refused(says).hint(hint) };
    let by_certificate = || match &guest.certificate {
        None => Err(refused(
            StatusCode::UNAUTHORIZED,
            "a landfall that sends here has to show its certificate".to_owned(),
            "name it and its key: --tls-cert FILE --tls-key FILE; it is of the authority in the receiver's [api] clients_ca",
        )),
        Some(certificate) => {
            let peer =
                Peer { place: Place::Network(address), certificate: Some(Certificate::clone(certificate)) };
            // The name alone decides: nobody is told which machines there are.
            let may = machine.parse::<Name>().is_ok_and(|machine| service.may_write(&peer, &machine));
            match may {
                true => Ok(Caller::Certificate(certificate.subject.clone())),
                false => Err(refused(
                    StatusCode::FORBIDDEN,
                    format!("{} may not send {machine:?} here", certificate.subject),
                    "the receiver's file says which machines a certificate may send: [[receive.client]]",
                )),
            }
        }
    };
    let by_token = || let_in(service.catalog(), guest.origin, headers, Role::Operate);
    match senders {
        Senders::Certificate => by_certificate(),
        Senders::Token => by_token(),
        Senders::Either if guest.certificate.is_some() => by_certificate(),
        Senders::Either => by_token(),
        Senders::Both => by_certificate().and_then(|caller| by_token().map(|_| caller)),
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, secret) = header.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer")).then(|| secret.trim())
}

/// What is kept of a secret. It is random, so that a plain digest tells nobody what it was.
pub fn secret_digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// A new secret.
///
/// # Errors
/// Where the system has no random numbers.
pub(super) fn new_secret() -> Result<String> {
    let mut random = [0; SECRET];
    let mut filled = 0;
    while filled < random.len() {
        let more = rustix::rand::getrandom(&mut random[filled..], rustix::rand::GetRandomFlags::empty());
        filled += more.map_err(|e| Error::io("the system gives no random numbers", e.into()))?;
    }
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{PREFIX}{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_random_and_found_in_its_header() {
        let (one, other) = (new_secret().unwrap(), new_secret().unwrap());
        assert_ne!(one, other);
        assert!(one.starts_with("lf_") && one.len() == 3 + 64, "{one}");
        assert_eq!(bearer("Bearer lf_1"), Some("lf_1"));
        assert_eq!(bearer("bearer  lf_1 "), Some("lf_1"));
        for bad in ["lf_1", "Basic lf_1", "", "Bearer"] {
            assert_eq!(bearer(bad), None, "{bad}");
        }
    }
}
