//! A network card and what is set on it.

use super::names::Mac;
use ipnet::IpNet;
use landfall_image::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Addresses of one card.
const ADDRESSES_AT_MOST: usize = 32;
/// Cards of a bond.
const MEMBERS_AT_MOST: usize = 8;
/// The least that IPv4 has to carry (RFC 791), and what IPv6 needs (RFC 8200, section 5).
const MTU_LEAST: u16 = 576;
const MTU_LEAST_V6: u16 = 1280;
/// Jumbo frames of the larger switches.
const MTU_MOST: u16 = 9216;
/// `IFNAMSIZ` of Linux without its zero.
const NAME: usize = 15;

/// Which card is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Card {
    /// The first that the kernel finds: the only one, mostly.
    First,
    /// By its hardware address.
    Mac(Mac),
    /// By its name: `ens192`.
    Name(String),
}

impl FromStr for Card {
    type Err = Error;

    /// # Errors
    /// Refused where it is none of the three.
    fn from_str(text: &str) -> Result<Card> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("first") {
            return Ok(Card::First);
        }
        if text.contains(':') {
            return text.parse().map(Card::Mac);
        }
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let fits = (1..=NAME).contains(&text.len())
            && text.bytes().all(is_letter)
            && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
            && text != "lo";
        let shown: String = text.chars().take(80).collect();
        fits.then(|| Card::Name(text.to_owned())).ok_or_else(|| {
            Error::refused(format!("{shown:?} names no network card"))
                .hint("write first, its hardware address (52:54:00:12:34:56), or its name (ens192)")
        })
    }
}

impl TryFrom<String> for Card {
    type Error = Error;

    fn try_from(text: String) -> Result<Card> {
        text.parse()
    }
}

impl From<Card> for String {
    fn from(card: Card) -> String {
        card.to_string()
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Card::First => f.write_str("first"),
            Card::Mac(mac) => mac.fmt(f),
            Card::Name(name) => f.write_str(name),
        }
    }
}

/// What is asked of DHCP, in networkd's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dhcp {
    /// Nothing.
    #[default]
    No,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// Both.
    Yes,
}

impl Dhcp {
    /// From the two questions that cloud-init asks.
    pub fn of(v4: bool, v6: bool) -> Dhcp {
        match (v4, v6) {
            (false, false) => Dhcp::No,
            (true, false) => Dhcp::Ipv4,
            (false, true) => Dhcp::Ipv6,
            (true, true) => Dhcp::Yes,
        }
    }

    /// As networkd writes it.
    pub fn word(self) -> &'static str {
        match self {
            Dhcp::No => "no",
            Dhcp::Ipv4 => "ipv4",
            Dhcp::Ipv6 => "ipv6",
            Dhcp::Yes => "yes",
        }
    }
}

/// How cards of a bond work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BondMode {
    /// One works, the others wait. The switch knows nothing of it.
    #[serde(rename = "active-backup")]
    ActiveBackup,
    /// All work; the switch takes part (LACP).
    #[serde(rename = "802.3ad")]
    Lacp,
}

impl BondMode {
    /// As networkd and cloud-init write it.
    pub fn word(self) -> &'static str {
        match self {
            BondMode::ActiveBackup => "active-backup",
            BondMode::Lacp => "802.3ad",
        }
    }
}

/// Several cards as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bond {
    /// How they work together.
    pub mode: BondMode,
    /// The cards besides [`Nic::card`].
    pub with: Vec<Card>,
}

/// A card, a bond or a VLAN on one of them, and what is set on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// Which card; of a bond, its first.
    pub card: Card,
    /// The VLAN on it that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// What is asked of DHCP.
    #[serde(default)]
    pub dhcp: Dhcp,
    /// Whether routers' advertisements are heeded (RFC 4861); without, where DHCP is asked for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertisements: Option<bool>,
    /// Fixed addresses with the length of their prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNet>,
    /// The routers that lead everywhere: one for IPv4, one for IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// The routers are on this link, whatever the addresses' prefixes say. Some hosting providers have it so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_link: bool,
    /// The longest packet in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Other cards that are one with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<Bond>,
}

impl Nic {
    /// A card with nothing set on it.
    pub fn new(card: Card) -> Nic {
        Nic {
            card,
            vlan: None,
            dhcp: Dhcp::No,
            advertisements: None,
            addresses: Vec::new(),
            gateways: Vec::new(),
            on_link: false,
            mtu: None,
            bond: None,
        }
    }

    /// The card, and those that are in a bond with it.
    pub fn cards(&self) -> impl Iterator<Item = &Card> {
        std::iter::once(&self.card).chain(self.bond.iter().flat_map(|bond| &bond.with))
    }

    /// Whether routers' advertisements are heeded.
    pub fn heeds_advertisements(&self) -> bool {
        self.advertisements.unwrap_or(matches!(self.dhcp, Dhcp::Ipv6 | Dhcp::Yes))
    }

    /// For messages: `ens192`, `first, VLAN 100`.
    pub fn title(&self) -> String {
        match self.vlan {
            Some(vlan) => format!("{}, VLAN {vlan}", self.card),
            None => self.card.to_string(),
        }
    }

    /// Looks at what is set on it.
    ///
    /// # Errors
    /// Refused, with the value and what would be right.
    pub(super) fn check(&self) -> Result<()> {
        let refused = |says: String, hint: &str| Err(Error::refused(says).hint(hint));
        if self.dhcp == Dhcp::No && self.addresses.is_empty() && self.advertisements != Some(true) {
            return refused(
                "has neither addresses nor DHCP".to_owned(),
                "add addresses = [\"10.0.0.5/24\"], or dhcp = \"yes\"",
            );
        }
        if self.addresses.len() > ADDRESSES_AT_MOST {
            return refused(
                format!("has {} addresses; there is room for {ADDRESSES_AT_MOST}", self.addresses.len()),
                "leave some out",
            );
        }
        if let Some(vlan) = self.vlan.filter(|vlan| !(1..=4094).contains(vlan)) {
            return refused(
                format!("VLAN {vlan} is none"),
                "VLANs have numbers from 1 to 4094 (IEEE 802.1Q, section 9.6)",
            );
        }
        self.addresses.iter().try_for_each(address)?;
        let has_v6 = self.addresses.iter().any(|one| one.addr().is_ipv6());
        let least = if has_v6 { MTU_LEAST_V6 } else { MTU_LEAST };
        if let Some(mtu) = self.mtu.filter(|mtu| !(least..=MTU_MOST).contains(mtu)) {
            return refused(
                format!("an MTU of {mtu} is not between {least} and {MTU_MOST}"),
                "use what the network has: 1500, or 9000 with jumbo frames",
            );
        }
        for (index, gateway) in self.gateways.iter().enumerate() {
            self.gateway(*gateway)?;
            let family = gateway.is_ipv4();
            if self.gateways.iter().take(index).any(|other| other.is_ipv4() == family) {
                return refused(
                    format!("has a second gateway, {gateway}"),
                    "name one for IPv4, and one for IPv6",
                );
            }
        }
        self.check_bond()
    }

    fn check_bond(&self) -> Result<()> {
        let Some(bond) = &self.bond else { return Ok(()) };
        let members = bond.with.len() + 1;
        if !(2..=MEMBERS_AT_MOST).contains(&members) {
            return Err(Error::refused(format!("a bond of {members} cards"))
                .hint(format!("name one card to {} in with", MEMBERS_AT_MOST - 1)));
        }
        match bond.with.contains(&Card::First) {
            true => Err(Error::refused("a bond's other cards have to be named")
                .hint("write their hardware addresses or names")),
            false => Ok(()),
        }
    }

    fn gateway(&self, gateway: IpAddr) -> Result<()> {
        let family = if gateway.is_ipv4() { "IPv4" } else { "IPv6" };
        let own: Vec<&IpNet> =
            self.addresses.iter().filter(|one| one.addr().is_ipv4() == gateway.is_ipv4()).collect();
        if gateway.is_unspecified() || gateway.is_multicast() || gateway.is_loopback() {
            return Err(Error::refused(format!("{gateway} is no address of a router"))
                .hint("name the router's address in this network"));
        }
        if own.is_empty() {
            return Err(Error::refused(format!(
                "the gateway {gateway} is of no use without an {family} address"
            ))
            .hint("add an address, or leave it out: DHCP and routers' advertisements name theirs"));
        }
        if own.iter().any(|one| one.addr() == gateway) {
            return Err(Error::refused(format!("the gateway {gateway} is this machine itself"))
                .hint("name the router's address"));
        }
        let is_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !is_local && !self.on_link && !own.iter().any(|one| one.contains(&gateway)) {
            let networks: Vec<String> = own.iter().map(|one| one.trunc().to_string()).collect();
            return Err(Error::refused(format!("the gateway {gateway} is not in {}", networks.join(", ")))
                .hint("look at the gateway and at the length of the prefix; on_link = true where it is meant so"));
        }
        Ok(())
    }
}

/// An address that a machine can have.
fn address(one: &IpNet) -> Result<()> {
    let addr = one.addr();
    let refused = |says: String, hint: &str| Err(Error::refused(says).hint(hint));
    if addr.is_unspecified() || addr.is_multicast() || addr.is_loopback() {
        return refused(
            format!("{addr} cannot be a card's address"),
            "name the address that it has in its network",
        );
    }
    if one.prefix_len() == 0 {
        return refused(format!("{one} has no prefix"), "write its length behind the address: /24, /64");
    }
    if let IpNet::V4(v4) = one
        && v4.prefix_len() < 31
        && (v4.addr() == v4.network() || v4.addr() == v4.broadcast())
    {
        let which = if v4.addr() == v4.network() { "the network itself" } else { "its broadcast address" };
        return refused(format!("{one} is {which}"), "name the address of this machine in it");
    }
    Ok(())
}
