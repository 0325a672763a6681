//! Names and keys that are set: each type holds only what is valid. They end up in files that other programs read line by
//! line, so that none of them can hold a line break, a blank at an edge, or what such a program reads more into.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_image::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A name in DNS (RFC 1035, section 2.3.4), written out.
const DOMAIN: usize = 253;
/// One label of it.
const LABEL: usize = 63;
/// `HOST_NAME_MAX` of Linux.
const HOST: usize = 64;
/// A key of RSA with 16,384 bits has 2,800 letters, and there is room for a comment.
const KEY: usize = 8192;

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// As it is written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// # Errors
            /// Refused where it is not one.
            fn from_str(text: &str) -> Result<$name> {
                let check: fn(&str) -> Result<String> = $check;
                check(text.trim()).map($name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<$name> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(it: $name) -> String {
                it.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_type! {
    /// What the machine is called: `dr1`, `dr1.example.org` (RFC 1123, section 2.1), 64 letters at most.
    HostName, |text| {
        let text = labels(text, HOST, "host name")?;
        // A number would be read as an address wherever it is typed.
        match text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            true => Err(no(&text, "host name", "it needs a letter")),
            false => Ok(text),
        }
    }
}

text_type! {
    /// A domain: `example.org`.
    Domain, |text| labels(text.trim_end_matches('.'), DOMAIN, "domain")
}

text_type! {
    /// A server by its name or its address.
    Server, |text| match text.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address.to_string()),
        Ok(_) => Err(no(text, "server", "name the address of one machine")),
        Err(_) => labels(text, DOMAIN, "server"),
    }
}

text_type! {
    /// A time zone of the IANA's database: `UTC`, `Europe/Berlin`. Whether there is one of that name is found out where it is used.
    TimeZone, |text| {
        let is_part = |part: &str| {
            part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-+".contains(&byte))
                && part.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        };
        let fits = text.len() <= 64 && text.split('/').count() <= 3 && text.split('/').all(is_part);
        fits.then(|| text.to_owned()).ok_or_else(|| no(text, "time zone", "write it like Europe/Berlin, or UTC"))
    }
}

text_type! {
    /// A public key for SSH, as in `authorized_keys` (sshd(8)) without options: `ssh-ed25519 AAAA… me@example.org`.
    SshKey, ssh_key
}

text_type! {
    /// A card's hardware address, in the form `52:54:00:12:34:56`.
    Mac, |text| {
        let separator = if text.contains('-') { '-' } else { ':' };
        let octets: Option<Vec<u8>> = text
            .split(separator)
            .map(|part| {
                let is_hex = (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
                u8::from_str_radix(part, 16).ok().filter(|_| is_hex)
            })
            .collect();
        // Bit 0 of the first octet is set in addresses of groups (IEEE 802, section 8.2).
        match octets.as_deref() {
            Some([first, rest @ ..]) if rest.len() == 5 && first & 1 == 0 && octets.iter().flatten().any(|&o| o != 0) => {
                Ok(octets.iter().flatten().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":"))
            }
            _ => Err(no(text, "hardware address of a card", "write it like 52:54:00:12:34:56")),
        }
    }
}

/// Kinds of keys that OpenSSH takes today. DSA is gone since 10.0.
const KEY_KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

fn no(text: &str, what: &str, hint: &str) -> Error {
    let shown: String = text.chars().take(80).collect();
    Error::refused(format!("{shown:?} is no {what}")).hint(hint)
}

/// Letters, digits and hyphens between dots.
fn labels(text: &str, at_most: usize, what: &str) -> Result<String> {
    let hint =
        format!("use letters, digits and hyphens, with dots between labels: {at_most} letters at most");
    let is_label = |label: &str| {
        (1..=LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match text.len() <= at_most && text.split('.').all(is_label) {
        true => Ok(text.to_owned()),
        false => Err(no(text, what, &hint)),
    }
}

/// Kind, content, comment: nothing before the kind, where sshd reads options that run commands. The content begins with
/// the kind again (RFC 4253, section 6.6).
fn ssh_key(text: &str) -> Result<String> {
    const HINT: &str = "give one line of a .pub file: ssh-ed25519 AAAA… name";
    let wrong = |why: &str| {
        let shown: String = text.chars().take(40).collect();
        Error::refused(format!("{shown:?}: {why}")).hint(HINT)
    };
    if text.len() > KEY {
        return Err(wrong("is longer than any key"));
    }
    if text.chars().any(char::is_control) {
        return Err(wrong("is no single line of text"));
    }
    if text.contains("PRIVATE KEY") {
        return Err(Error::refused("is a private key, which nobody but its owner may have")
            .hint("give the public one, from the file whose name ends in .pub; make a new pair, if it was shown to others"));
    }
    let mut parts = text.split_ascii_whitespace();
    let kind = parts.next().filter(|kind| KEY_KINDS.contains(kind)).ok_or_else(|| {
        wrong("does not begin with the kind of a key (ssh-ed25519, ssh-rsa, ecdsa-sha2-…); options are not taken")
    })?;
    let content = parts.next().ok_or_else(|| wrong("has no key behind its kind"))?;
    let bytes = STANDARD.decode(content).map_err(|_| wrong("is cut off, or no key (base64)"))?;
    let fields = fields(&bytes).ok_or_else(|| wrong("is cut off"))?;
    match fields.as_slice() {
        [named, _, ..] if *named == kind.as_bytes() => {}
        [_, _, ..] => return Err(wrong("is another kind of key inside than it says")),
        _ => return Err(wrong("is cut off")),
    }
    let comment = parts.collect::<Vec<_>>().join(" ");
    Ok(format!("{kind} {content} {comment}").trim_end().to_owned())
}

/// Strings behind their lengths, to the end (RFC 4251, section 5).
fn fields(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (field, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        found.push(field);
        bytes = rest;
    }
    bytes.is_empty().then_some(found)
}
