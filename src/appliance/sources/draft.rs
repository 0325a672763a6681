//! What the sources have in common: values that are taken or noted, and addresses as documents write them.

use super::{DOCUMENT_AT_MOST, Given, Identity};
use crate::appliance::settings::{Nic, Settings};
use ipnet::IpNet;
use landfall_image::{Error, Result};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Notes and names of one source: a person reads them.
const LINES_AT_MOST: usize = 100;
/// Letters of a name in them.
const NAME_AT_MOST: usize = 80;

/// A source under way.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub settings: Settings,
    notes: Vec<String>,
    unread: BTreeSet<String>,
    /// Something of its network cannot be used, so none of it is.
    is_network_wrong: bool,
}

impl Draft {
    /// Says what is wrong.
    pub fn note(&mut self, text: impl Into<String>) {
        if self.notes.len() < LINES_AT_MOST {
            self.notes.push(text.into());
        }
    }

    /// Names something that is not heeded.
    pub fn unread(&mut self, name: &str) {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(NAME_AT_MOST).collect();
        if self.unread.len() < LINES_AT_MOST {
            self.unread.insert(shown);
        }
    }

    /// Says what is wrong with the network.
    pub fn network_is_wrong(&mut self, place: &str, error: &Error) {
        self.note(noted(place, error));
        self.is_network_wrong = true;
    }

    /// The value, where it is valid.
    pub fn value<T: FromStr<Err = Error>>(&mut self, place: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error| self.note(noted(place, &error))).ok()
    }

    /// Those that are valid.
    pub fn values<T: FromStr<Err = Error>>(&mut self, place: &str, texts: &[impl AsRef<str>]) -> Vec<T> {
        texts.iter().filter_map(|text| self.value(place, text.as_ref())).collect()
    }

    /// A server of names.
    pub fn dns(&mut self, place: &str, text: &str) {
        match ip(text) {
            Ok(address) => {
                let known = self.settings.dns.get_or_insert_default();
                if !known.contains(&address) {
                    known.push(address);
                }
            }
            Err(error) => self.note(noted(place, &error)),
        }
    }

    /// A domain that short names are looked for in.
    pub fn search(&mut self, place: &str, text: &str) {
        if let Some(domain) = self.value(place, text) {
            let known = self.settings.search.get_or_insert_default();
            if !known.contains(&domain) {
                known.push(domain);
            }
        }
    }

    /// A key for SSH.
    pub fn ssh_key(&mut self, place: &str, text: &str) {
        if text.trim().is_empty() || text.trim_start().starts_with('#') {
            return;
        }
        if let Some(key) = self.value(place, text) {
            let known = self.settings.ssh_keys.get_or_insert_default();
            if !known.contains(&key) {
                known.push(key);
            }
        }
    }

    /// A card, a bond or a VLAN.
    pub fn nic(&mut self, nic: Nic) {
        self.settings.nic.get_or_insert_default().push(nic);
    }

    /// What it comes to. Parts that do not fit together are left out.
    pub fn finish(mut self, source: &str, instance: Option<&str>, documents: &[&[u8]]) -> Given {
        if self.is_network_wrong && self.settings.nic.take().is_some() {
            self.note("the network is not set as given, because of that");
        }
        let nic = self.settings.nic.take();
        let with_network = Settings { nic, ..Settings::default() };
        match with_network.check() {
            Ok(()) => self.settings.nic = with_network.nic,
            Err(error) => self.note(noted("the network is not set as given", &error)),
        }
        if let Err(error) = self.settings.check() {
            self.note(noted("nothing of it is taken", &error));
            self.settings = Settings::default();
        }
        let mut digest = blake3::Hasher::new();
        for document in documents {
            // Lengths keep two documents from being one.
            digest.update(&(document.len() as u64).to_le_bytes());
            digest.update(document);
        }
        let instance = instance.map(|id| id.chars().filter(|c| !c.is_control()).take(256).collect());
        let identity =
            Identity { source: source.to_owned(), instance, digest: digest.finalize().to_hex().to_string() };
        Given {
            identity,
            settings: self.settings,
            notes: self.notes,
            unread: self.unread.into_iter().collect(),
        }
    }
}

/// For people: where, what, and what would be right.
pub(super) fn noted(place: &str, error: &Error) -> String {
    match error.hint_text() {
        Some(hint) => format!("{place}: {error} ({hint})"),
        None => format!("{place}: {error}"),
    }
}

/// The document as text.
pub(super) fn text<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str> {
    if bytes.len() > DOCUMENT_AT_MOST {
        return Err(Error::refused(format!(
            "{name} has {} bytes; {DOCUMENT_AT_MOST} are read at most",
            bytes.len()
        )));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|_| Error::corrupt(format!("{name} is not UTF-8")))
}

/// An address.
pub(super) fn ip(text: &str) -> Result<IpAddr> {
    let text = text.trim();
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(NAME_AT_MOST).collect();
        Error::refused(format!("{shown:?} is no address")).hint("write it like 10.0.0.1, or 2001:db8::1")
    })
}

/// `10.0.0.5/24`, or an address and its mask: `255.255.255.0`, `24`, `ffff:ffff::`.
pub(super) fn network(text: &str, mask: Option<&str>) -> Result<IpNet> {
    let text = text.trim();
    let shown: String = text.chars().take(NAME_AT_MOST).collect();
    let hint = "write it with the length of its prefix: 10.0.0.5/24, 2001:db8::5/64";
    if let Some((address, prefix)) = text.split_once('/') {
        let net = ip(address).ok().and_then(|address| IpNet::new(address, length(prefix)?).ok());
        return net
            .ok_or_else(|| Error::refused(format!("{shown:?} is no address with a prefix")).hint(hint));
    }
    let address = ip(text)?;
    let Some(mask) = mask else {
        return Err(Error::refused(format!("{shown:?} has no prefix")).hint(hint));
    };
    length(mask).and_then(|prefix| IpNet::new(address, prefix).ok()).ok_or_else(|| {
        let mask: String = mask.chars().take(NAME_AT_MOST).collect();
        Error::refused(format!("{mask:?} is no mask for {address}"))
            .hint("write it like 255.255.255.0, or 24")
    })
}

/// Of a prefix, in bits.
fn length(text: &str) -> Option<u8> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    if let Ok(mask) = text.parse::<Ipv4Addr>() {
        return ipnet::ipv4_mask_to_prefix(mask).ok();
    }
    text.parse::<Ipv6Addr>().ok().and_then(|mask| ipnet::ipv6_mask_to_prefix(mask).ok())
}

/// `default`, `0.0.0.0/0`, `::/0`, or a network and its mask.
pub(super) fn is_default(to: &str, mask: Option<&str>) -> bool {
    match to.trim() {
        "default" | "0.0.0.0/0" | "::/0" => true,
        "0.0.0.0" | "::" => mask.is_none_or(|mask| length(mask) == Some(0)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_all_their_forms() {
        for (text, mask, wanted) in [
            ("10.0.0.5/24", None, "10.0.0.5/24"),
            (" 10.0.0.5/255.255.0.0 ", None, "10.0.0.5/16"),
            ("10.0.0.5", Some("255.255.255.0"), "10.0.0.5/24"),
            ("10.0.0.5/8", Some("255.255.255.0"), "10.0.0.5/8"),
            ("10.0.0.5", Some("20"), "10.0.0.5/20"),
            ("2001:db8::5", Some("ffff:ffff:ffff:ffff::"), "2001:db8::5/64"),
            ("2001:db8::5/64", None, "2001:db8::5/64"),
        ] {
            assert_eq!(network(text, mask).unwrap().to_string(), wanted);
        }
        for (text, mask) in [
            ("10.0.0.5", None),
            ("10.0.0", Some("24")),
            ("10.0.0.5/33", None),
            ("10.0.0.5/", None),
            ("10.0.0.5", Some("255.0.255.0")),
            ("10.0.0.5", Some("")),
            ("", None),
            ("x/24", None),
        ] {
            assert!(network(text, mask).is_err(), "{text} {mask:?}");
        }
        assert!(
            is_default("default", None)
                && is_default("0.0.0.0", Some("0.0.0.0"))
                && is_default("::", Some("::"))
        );
        assert!(!is_default("10.0.0.0/8", None) && !is_default("0.0.0.0", Some("255.0.0.0")));
    }
}
