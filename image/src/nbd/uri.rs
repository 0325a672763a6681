//! Names of exports: `nbd://host[:port]/export` and its kin.
//!
//! Source: the NBD project's `doc/uri.md`. Understood: the schemes `nbd`, `nbds`, `nbd+unix`, `nbds+unix`, and the
//! parameters `socket` and `tls-hostname` (libnbd's). Refused by name: `nbd+vsock`, `nbd+ssh`, user names (they
//! belong to pre-shared keys, which are absent here), other parameters and fragments, so that nothing that the user
//! asked for is left out in silence.

use super::protocol::NAME_AT_MOST;
use crate::error::{Error, Result};
use std::fmt;
use std::path::{Path, PathBuf};

/// The port that is assigned to NBD.
pub const PORT: u16 = 10_809;

/// Where an export's server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or address, and a port.
    Tcp(String, u16),
    /// A socket on this machine.
    Unix(PathBuf),
}

/// An export of an NBD server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Uri {
    text: String,
    address: Address,
    tls: bool,
    tls_hostname: String,
    export: String,
}

impl Uri {
    /// True where `text` begins with a scheme of NBD and `://`. A file of such a name is reached as `./nbd:/…`.
    pub fn is_uri(text: &str) -> bool {
        let Some((scheme, _)) = text.split_once("://") else { return false };
        let scheme = scheme.to_ascii_lowercase();
        scheme == "nbd" || scheme == "nbds" || scheme.starts_with("nbd+") || scheme.starts_with("nbds+")
    }

    /// Takes a URI apart. Anything that is not understood is [`Kind::Refused`](crate::Kind::Refused).
    pub fn parse(text: &str) -> Result<Uri> {
        let wrong = |says: String| {
            Error::refused(says)
                .in_file(Path::new(text))
                .hint("write nbd://host[:port]/export or nbd+unix:///export?socket=/path; nbds with TLS")
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(wrong("is no NBD URI: it has no ://".into()));
        };
        let (tls, unix) = match scheme.to_ascii_lowercase().as_str() {
            "nbd" => (false, false),
            "nbds" => (true, false),
            "nbd+unix" => (false, true),
            "nbds+unix" => (true, true),
            other => return Err(wrong(format!("has the scheme {other}, which is not understood"))),
        };
        if rest.contains('#') {
            return Err(wrong("has a fragment (#), which means nothing in an NBD URI".into()));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(wrong(
                "names a user, which only TLS with pre-shared keys knows; it is absent".into(),
            ));
        }
        let decode = |part: &str| decode(part).ok_or_else(|| wrong(format!("{part:?} is not well encoded")));
        let export = decode(path)?;
        if export.len() > NAME_AT_MOST {
            return Err(wrong(format!(
                "names an export by {} bytes; {NAME_AT_MOST} are possible",
                export.len()
            )));
        }
        let (mut socket, mut tls_hostname) = (None, None);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let place = match name {
                "socket" if unix => &mut socket,
                "tls-hostname" if tls => &mut tls_hostname,
                _ => return Err(wrong(format!("has the parameter {name:?}, which is not understood here"))),
            };
            if value.is_empty() || place.is_some() {
                return Err(wrong(format!("parameter {name:?} is empty or there twice")));
            }
            *place = Some(decode(value)?);
        }
        let (address, host) = match (unix, socket) {
            (true, _) if !authority.is_empty() => {
                return Err(wrong(format!(
                    "names the host {authority:?}; a socket has none (three slashes)"
                )));
            }
            (true, None) => return Err(wrong("does not say which socket (?socket=/path)".into())),
            // What a certificate for a socket on this machine is made out to.
            (true, Some(socket)) => (Address::Unix(socket.into()), "localhost".to_owned()),
            (false, _) => {
                let (host, port) = split_port(authority)
                    .ok_or_else(|| wrong(format!("{authority:?} is not a host and a port")))?;
                let host = decode(host)?;
                if host.is_empty() {
                    return Err(wrong("names no host".into()));
                }
                (Address::Tcp(host.clone(), port), host)
            }
        };
        let tls_hostname = tls_hostname.unwrap_or(host);
        Ok(Uri { text: text.to_owned(), address, tls, tls_hostname, export })
    }

    /// The URI of an export at that address.
    pub fn new(address: Address, tls: bool, export: &str) -> Uri {
        let (s, path) = (if tls { "s" } else { "" }, encode(export));
        let (text, tls_hostname) = match &address {
            Address::Unix(socket) => (
                format!("nbd{s}+unix:///{path}?socket={}", encode(&socket.to_string_lossy())),
                "localhost".into(),
            ),
            Address::Tcp(host, port) => {
                let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                let port = if *port == PORT { String::new() } else { format!(":{port}") };
                (format!("nbd{s}://{shown}{port}/{path}"), host.clone())
            }
        };
        Uri { text, address, tls, tls_hostname, export: export.to_owned() }
    }

    /// Where the server is.
    pub fn address(&self) -> &Address {
        &self.address
    }
    /// True where everything must be encrypted.
    pub fn tls(&self) -> bool {
        self.tls
    }
    /// The name that the server's certificate must carry.
    pub fn tls_hostname(&self) -> &str {
        &self.tls_hostname
    }
    /// The export's name; empty for the default one.
    pub fn export(&self) -> &str {
        &self.export
    }
    /// As it was written, for errors and reports.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.text)
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `host`, `host:port`, `[address]`, `[address]:port`.
fn split_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            if port.is_empty() { (host, None) } else { (host, Some(port.strip_prefix(':')?)) }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    // `host:` is the default port by RFC 3986.
    match port {
        None | Some("") => Some((host, PORT)),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some((host, port.parse().ok()?)),
        Some(_) => None,
    }
}

/// Resolves `%xx`. `None` where that is cut off, no hexadecimal number, a NUL, or the result is not UTF-8.
/// Everything but what stands for itself in a URI is written as `%xx`.
pub(super) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16).and_then(|n| u8::try_from(n).ok());
                digit()? << 4 | digit()?
            }
            other => other,
        });
    }
    if out.contains(&0) { None } else { String::from_utf8(out).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn every_shape_is_taken_apart() {
        let tcp = |host: &str, port| Address::Tcp(host.to_owned(), port);
        let unix = |path: &str| Address::Unix(path.into());
        for (text, address, tls, hostname, export) in [
            ("nbd://h", tcp("h", 10_809), false, "h", ""),
            ("NBD://h/", tcp("h", 10_809), false, "h", ""),
            ("nbd://h:1/a", tcp("h", 1), false, "h", "a"),
            ("nbd://h:/a", tcp("h", 10_809), false, "h", "a"),
            ("nbds://h/a/b%20c", tcp("h", 10_809), true, "h", "a/b c"),
            (
                "nbds://10.0.0.1/?tls-hostname=store.example",
                tcp("10.0.0.1", 10_809),
                true,
                "store.example",
                "",
            ),
            ("nbd://[::1]", tcp("::1", 10_809), false, "::1", ""),
            ("nbd://[fe80::1%25eth0]:7//x", tcp("fe80::1%eth0", 7), false, "fe80::1%eth0", "/x"),
            ("nbd+unix:///?socket=/run/n%3Fbd", unix("/run/n?bd"), false, "localhost", ""),
            ("nbds+unix:///e?socket=rel.sock&tls-hostname=h", unix("rel.sock"), true, "h", "e"),
        ] {
            assert!(Uri::is_uri(text), "{text}");
            let uri = Uri::parse(text).unwrap();
            assert_eq!(uri.address(), &address, "{text}");
            assert_eq!(
                (uri.tls(), uri.tls_hostname(), uri.export(), uri.to_string().as_str()),
                (tls, hostname, export, text)
            );
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for (address, tls, export, text) in [
            (
                Address::Unix("/run/a b?.sock".into()),
                false,
                "web 01/sda@7",
                "nbd+unix:///web%2001/sda%407?socket=/run/a%20b%3F.sock",
            ),
            (Address::Tcp("h".into(), 10_809), true, "ü#/%", "nbds://h/%C3%BC%23/%25"),
            (Address::Tcp("fe80::1".into(), 7), false, "", "nbd://[fe80::1]:7/"),
        ] {
            let uri = Uri::new(address.clone(), tls, export);
            assert_eq!(uri.to_string(), text);
            assert_eq!(Uri::parse(text).unwrap(), uri);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "nbd://",
            "nbd:///a",
            "nbd://h:65536",
            "nbd://h:+1",
            "nbd://h:1:2",
            "nbd://[::1]x",
            "nbd://[::1",
            "nbd://u@h/",
            "nbd://h/#f",
            "nbd://h/%",
            "nbd://h/%0",
            "nbd://h/%zz",
            "nbd://h/%00",
            "nbd://h/%ff",
            "nbd://h/?socket=/x",
            "nbd://h/?tls-hostname=x",
            "nbd://h/?x=1",
            "nbd+unix:///",
            "nbd+unix:///?socket=",
            "nbd+unix:///?socket=a&socket=b",
            "nbd+unix://h/?socket=a",
            "nbd+vsock://1/",
            "nbds+ssh://h/",
        ] {
            assert!(Uri::is_uri(text), "{text}");
            assert_eq!(Uri::parse(text).unwrap_err().kind(), Kind::Refused, "{text}");
        }
        for path in ["nbd", "nbd:unix:/x", "a/nbd://x", "./nbd://x", "/dev/nbd0", "http://h"] {
            assert!(!Uri::is_uri(path), "{path}");
        }
        assert!(Uri::parse(&format!("nbd://h/{}", "x".repeat(4096))).is_ok());
        assert!(Uri::parse(&format!("nbd://h/{}", "x".repeat(4097))).is_err());
    }
}
