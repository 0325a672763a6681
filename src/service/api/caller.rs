//! Who calls, and what that one may do.

use super::call::Refusal;
use crate::report::api::Role;
use crate::service::catalog::Catalog;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use landfall_image::{Error, Result};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::SocketAddr;

/// What secrets of tokens begin with, so that they are found where they do not belong.
const PREFIX: &str = "lf_";
/// Random bytes of a secret.
const SECRET: usize = 32;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The local socket, by this user or root.
    Local {
        /// Which of the two.
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

/// Who calls, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Somebody on this machine.
    Local(u32),
    /// Whoever has this token.
    Token(String),
    /// Anybody, for what anybody may know.
    Anybody,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Local(uid) => write!(f, "local user {uid}"),
            Caller::Token(name) => write!(f, "token {name:?}"),
            Caller::Anybody => f.write_str("anybody"),
        }
    }
}

/// Lets a caller through who may do what `needs` says.
///
/// # Errors
/// 401 without a valid token, 403 with one that does not allow it.
pub(super) fn let_in(
    catalog: &Catalog,
    origin: Origin,
    headers: &HeaderMap,
    needs: Role,
) -> std::result::Result<Caller, Refusal> {
    if let Origin::Local { uid } = origin {
        return Ok(Caller::Local(uid));
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
