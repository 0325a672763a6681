//! What can be set on the appliance, and what is wrong with it.
//!
//! ```toml
//! hostname = "dr1.example.org"
//! dns = ["10.0.0.53"]
//! search = ["example.org"]
//! ntp = ["ntp.example.org"]
//! time_zone = "Europe/Berlin"            # of the console; the service's own times are UTC
//! ssh_keys = ["ssh-ed25519 AAAA… me"]    # without one, nothing listens for SSH
//!
//! [[nic]]
//! card = "first"                         # or its hardware address, or its name
//! addresses = ["10.0.0.5/24", "2001:db8::5/64"]
//! gateways = ["10.0.0.1", "2001:db8::1"]
//! mtu = 9000
//!
//! [[nic]]
//! card = "52:54:00:12:34:56"
//! vlan = 100
//! dhcp = "ipv4"
//! ```
//! Each part may be left out: then whatever lies below decides ([`Settings::over`]), and in the end the default. A list that
//! is there and empty is a choice: `ssh_keys = []` takes away the keys that a hypervisor gave, `nic = []` is DHCP on every card.
//!
//! Types hold only what is valid by itself; [`Settings::check`] looks at what belongs together. Deliberately absent: routes
//! other than the default ones, Wi-Fi, bridges, PPP and passwords.

mod names;
mod nic;

pub use names::{Domain, HostName, Mac, Server, SshKey, TimeZone};
pub use nic::{Bond, BondMode, Card, Dhcp, Nic};

use crate::ops::toml_file;
use landfall_image::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Cards of one machine: vSphere and Hyper-V give at most 10 and 12, KVM some dozens.
const NICS_AT_MOST: usize = 64;
/// Servers and domains of one sort; the resolver takes 3 and 6.
const SERVERS_AT_MOST: usize = 16;
/// Keys of administrators.
const KEYS_AT_MOST: usize = 64;

/// All that can be set. What is `None` is left to whatever lies below.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostName>,
    /// Of the console. UTC without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<TimeZone>,
    /// Who may come in with SSH. Without one, nothing listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_keys: Option<Vec<SshKey>>,
    /// Servers that names are asked of. Those that DHCP names, without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<IpAddr>>,
    /// Domains that short names are looked for in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Vec<Domain>>,
    /// Servers of time. Those that DHCP names, without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ntp: Option<Vec<Server>>,
    /// Network cards. DHCP on all of them, without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic: Option<Vec<Nic>>,
}

impl Settings {
    /// The settings in `text`, checked.
    ///
    /// # Errors
    /// Refused, with the line, where a key is not known or a value is none; as [`check`](Self::check).
    pub fn parse(text: &str) -> Result<Settings> {
        let settings: Settings = toml_file::parse(text)?;
        settings.check()?;
        Ok(settings)
    }

    /// As TOML.
    ///
    /// # Errors
    /// Where a value cannot be written.
    pub fn to_toml(&self) -> Result<String> {
        let failed = |error: serde_json::Error| Error::refused(format!("cannot be written as TOML: {error}"));
        let Value::Object(all) = serde_json::to_value(self).map_err(failed)? else {
            return Ok(String::new());
        };
        let mut out = String::new();
        for (key, value) in all.iter().filter(|(key, _)| *key != "nic") {
            out.push_str(&format!("{key} = {}\n", toml_value(value)));
        }
        match all.get("nic").and_then(Value::as_array) {
            Some(nics) if nics.is_empty() => out.push_str("nic = []\n"),
            nics => {
                for nic in nics.into_iter().flatten() {
                    out.push_str("\n[[nic]]\n");
                    for (key, value) in nic.as_object().into_iter().flatten() {
                        out.push_str(&format!("{key} = {}\n", toml_value(value)));
                    }
                }
            }
        }
        Ok(out)
    }

    /// What is said here, and the rest as it is said in `below`.
    #[must_use]
    pub fn over(self, below: Settings) -> Settings {
        Settings {
            hostname: self.hostname.or(below.hostname),
            time_zone: self.time_zone.or(below.time_zone),
            ssh_keys: self.ssh_keys.or(below.ssh_keys),
            dns: self.dns.or(below.dns),
            search: self.search.or(below.search),
            ntp: self.ntp.or(below.ntp),
            nic: self.nic.or(below.nic),
        }
    }

    /// The cards that are set; none for DHCP on all.
    pub fn nics(&self) -> &[Nic] {
        self.nic.as_deref().unwrap_or_default()
    }

    /// Looks at what belongs together.
    ///
    /// # Errors
    /// Refused, with the place, the value and what would be right.
    pub fn check(&self) -> Result<()> {
        few("dns", self.dns.as_deref(), SERVERS_AT_MOST)?;
        few("search", self.search.as_deref(), SERVERS_AT_MOST)?;
        few("ntp", self.ntp.as_deref(), SERVERS_AT_MOST)?;
        few("ssh_keys", self.ssh_keys.as_deref(), KEYS_AT_MOST)?;
        few("nic", self.nic.as_deref(), NICS_AT_MOST)?;
        for server in self.dns.iter().flatten() {
            if server.is_unspecified() || server.is_multicast() {
                return Err(Error::refused(format!("dns: {server} is no address of a server"))
                    .hint("name the address of a DNS server"));
            }
        }
        let mut places = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for (index, nic) in self.nics().iter().enumerate() {
            let place = |error: Error| {
                let said = Error::refused(format!("nic {} ({}): {}", index + 1, nic.title(), error.says()));
                match error.hint_text() {
                    Some(hint) => said.hint(hint),
                    None => said,
                }
            };
            nic.check().map_err(place)?;
            for card in nic.cards() {
                // A bond may carry several VLANs; its members are the same then.
                if !places.insert((card.clone(), nic.vlan)) {
                    return Err(place(
                        Error::refused(format!("{card} is there twice"))
                            .hint("write one nic for each card, or for each VLAN on it"),
                    ));
                }
            }
            for address in &nic.addresses {
                if !addresses.insert(address.addr()) {
                    return Err(place(
                        Error::refused(format!("{} is there twice", address.addr()))
                            .hint("give an address to one card"),
                    ));
                }
            }
        }
        bonds(self.nics())
    }
}

/// A value in one line. What JSON escapes in strings is escaped the same in TOML (TOML 1.0, Strings).
fn toml_value(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let one = |(key, value): (&String, &Value)| format!("{key} = {}", toml_value(value));
            format!("{{ {} }}", entries.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A card that is in a bond is in one, and has nothing of its own.
fn bonds(nics: &[Nic]) -> Result<()> {
    let members = |nic: &Nic| nic.cards().cloned().collect::<BTreeSet<Card>>();
    for bonded in nics.iter().filter(|nic| nic.bond.is_some()) {
        let cards = members(bonded);
        let other = nics.iter().find(|other| {
            let is_same = other.bond == bonded.bond && other.card == bonded.card;
            !is_same && other.cards().any(|card| cards.contains(card))
        });
        if let Some(other) = other {
            return Err(Error::refused(format!(
                "{} is in a bond, and set by itself, too",
                other.cards().find(|card| cards.contains(card)).unwrap_or(&other.card)
            ))
            .hint("set the bond, and nothing for its members"));
        }
    }
    Ok(())
}

fn few<T>(key: &str, list: Option<&[T]>, at_most: usize) -> Result<()> {
    let count = list.map_or(0, <[T]>::len);
    match count > at_most {
        true => Err(Error::refused(format!("{key} has {count} entries; there is room for {at_most}"))
            .hint("leave some out")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
