//! What a certificate says that its holder may do, where the site's own authority has signed it.
//!
//! ```text
//! subject alternative names (RFC 5280, section 4.2.1.6):  URI landfall:send:web*    URI landfall:recover:web*
//! ```
//! What stands behind the second colon is a pattern of machines' names, in percent-encoding (RFC 3986, section 2.1). They are heeded only
//! of an authority that hands out nothing else: any other could be talked into a name.
//!
//! Deliberately absent: who is believed. That is the configuration's ([`crate::service::config`]).

use crate::name::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;

const SEND: &str = "landfall:send:";
const RECOVER: &str = "landfall:recover:";

/// Patterns of machines' names, for each thing that is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rights {
    /// Machines that may be written to: their sources send them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub send: Vec<String>,
    /// Machines whose recovery points may be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recover: Vec<String>,
}

impl Rights {
    /// Those in a certificate.
    pub fn of(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Rights {
        let mut rights = Rights::default();
        let Ok(Some(names)) = certificate.subject_alternative_name() else { return rights };
        for name in &names.value.general_names {
            let GeneralName::URI(uri) = name else { continue };
            if let Some(pattern) = uri.strip_prefix(SEND) {
                rights.send.extend(decoded(pattern));
            } else if let Some(pattern) = uri.strip_prefix(RECOVER) {
                rights.recover.extend(decoded(pattern));
            }
        }
        rights
    }

    /// As the URIs of a certificate.
    pub fn uris(&self) -> Vec<String> {
        let all = |prefix: &'static str, patterns: &[String]| {
            patterns.iter().map(|pattern| format!("{prefix}{}", encoded(pattern))).collect::<Vec<_>>()
        };
        [all(SEND, &self.send), all(RECOVER, &self.recover)].concat()
    }

    /// True where they allow nothing.
    pub fn is_empty(&self) -> bool {
        self.send.is_empty() && self.recover.is_empty()
    }

    /// True where one of the patterns is that of the machine.
    pub fn fit(patterns: &[String], machine: &Name) -> bool {
        patterns.iter().any(|pattern| landfall_boot::network_map::fits(pattern, machine.as_str()))
    }
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~*".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// `None` where it is no percent-encoding of UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut found = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            found.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        found.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(found).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back() {
        for text in ["*", "web*", "Büro (alt) #1", "100%", "a:b/c?", "[ab]x"] {
            let written = encoded(text);
            assert!(written.is_ascii() && !written.contains([' ', '#', '?']), "{written}");
            assert_eq!(decoded(&written).as_deref(), Some(text));
        }
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }
}
