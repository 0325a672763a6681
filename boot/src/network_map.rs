//! What a machine's network becomes at another site: subnets, single addresses, gateways, name servers, routes.
//!
//! Plain data for one machine, with the arithmetic: which rules fit a machine's name and networks is resolved by whoever
//! reads the map, how they are written into a guest by its family. Addresses that no rule covers are never guessed.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The rules for one machine, in the order in which they were written. Of two that speak of the same thing the later
/// one counts; a single address counts more than a subnet, and a longer prefix more than a shorter one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkMap {
    /// The rules.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Where it is written: `site-b.toml:12`.
    pub place: String,
    /// It holds for interfaces on these cards only (places in [`crate::target::Request::nics`]), or for all.
    pub cards: Option<Vec<usize>>,
    /// It holds for interfaces only whose name fits this pattern.
    pub interface: Option<String>,
    /// Subnets and what they become.
    pub subnets: Vec<(IpNet, IpNet)>,
    /// Single addresses and what they become.
    pub addresses: Vec<(IpAddr, Host)>,
    /// Default gateways, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Name servers, instead of those that are configured.
    pub dns: Option<Vec<IpAddr>>,
    /// Search domains, instead of those that are configured.
    pub search: Option<Vec<String>>,
    /// Static routes.
    pub routes: Vec<RouteRule>,
    /// IPv4 by DHCP from now on, or not.
    pub dhcp: Option<bool>,
}

/// What becomes of a static route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRule {
    /// The route to this network,
    pub from: IpNet,
    /// leads to this one from now on,
    pub to: Option<IpNet>,
    /// over this router.
    pub via: Option<IpAddr>,
}

/// An address, with its prefix length where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Host {
    /// The address.
    pub ip: IpAddr,
    /// Prefix length of its network.
    pub prefix: Option<u8>,
}

/// What the rules say of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No rule covers it.
    Uncovered,
    /// It becomes this, which may be itself.
    Becomes(Host),
    /// A rule covers it, and its host part has no room in the new subnet: the rule's subnets.
    NoRoom(IpNet, IpNet),
}

/// One value that was moved, for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Moved {
    /// The interface; empty where it is a matter of the whole machine.
    pub interface: String,
    /// What it is.
    pub what: What,
    /// As it was.
    pub before: String,
    /// As it will be.
    pub after: String,
    /// The file.
    pub path: String,
}

/// What a moved value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// An address of the machine.
    Address,
    /// A default gateway.
    Gateway,
    /// Name servers.
    Dns,
    /// Search domains.
    Search,
    /// A static route.
    Route,
    /// How the address is found.
    Method,
    /// An address or network of the machine by which routes are chosen.
    Source,
    /// The other end of a line between two.
    Peer,
}

/// What `rules` make of an address.
pub fn map(rules: &[&Rule], host: Host) -> Verdict {
    let single = rules.iter().rev().flat_map(|rule| &rule.addresses).find(|(from, _)| *from == host.ip);
    if let Some((_, to)) = single {
        return Verdict::Becomes(Host { ip: to.ip, prefix: host.prefix.map(|old| to.prefix.unwrap_or(old)) });
    }
    // The last of the longest prefixes.
    let fitting = rules.iter().flat_map(|rule| &rule.subnets).filter(|(from, _)| from.contains(&host.ip));
    let Some((from, to)) = fitting.max_by_key(|(from, _)| from.prefix_len()) else {
        return Verdict::Uncovered;
    };
    match move_host(from, to, host) {
        Some(host) => Verdict::Becomes(host),
        None => Verdict::NoRoom(*from, *to),
    }
}

/// What `rules` make of a network: its address moves as a host's does, if the rule covers all of it. A network of one
/// address is that address.
pub fn map_network(rules: &[&Rule], network: IpNet) -> Option<IpNet> {
    if network.prefix_len() == network.max_prefix_len() {
        return match map(rules, Host { ip: network.addr(), prefix: None }) {
            Verdict::Becomes(host) => IpNet::new(host.ip, network.prefix_len()).ok(),
            _ => None,
        };
    }
    let fitting = rules.iter().flat_map(|rule| &rule.subnets).filter(|(from, _)| from.contains(&network));
    let (from, to) = fitting.max_by_key(|(from, _)| from.prefix_len())?;
    let host = Host { ip: network.network(), prefix: Some(network.prefix_len()) };
    let moved = move_host(from, to, host)?;
    IpNet::new(moved.ip, moved.prefix?).ok().map(|network| network.trunc())
}

/// The host part stays. A prefix as long as the rule's becomes the new one; a longer one stays, or grows to it.
fn move_host(from: &IpNet, to: &IpNet, host: Host) -> Option<Host> {
    let width = u32::from(from.max_prefix_len());
    let part = |length: u8| {
        let bits = width.saturating_sub(u32::from(length));
        u128::MAX.checked_shr(128u32.saturating_sub(bits)).unwrap_or(0)
    };
    let (old, new) = (part(from.prefix_len()), part(to.prefix_len()));
    let number = to_number(host.ip) & old;
    let is_smaller = to.prefix_len() > from.prefix_len();
    // In a smaller subnet a host's number may not fit, or become that of the broadcast.
    if number & !new != 0 || is_smaller && new > 1 && number == new {
        return None;
    }
    let ip = to_address(to_number(to.network()) | number, from);
    let prefix = host.prefix.map(|prefix| match prefix.cmp(&from.prefix_len()) {
        std::cmp::Ordering::Equal => to.prefix_len(),
        std::cmp::Ordering::Greater => prefix.max(to.prefix_len()),
        std::cmp::Ordering::Less => prefix,
    });
    Some(Host { ip, prefix })
}

fn to_number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn to_address(number: u128, family: &IpNet) -> IpAddr {
    match family {
        IpNet::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    }
}

/// True where a name fits a shell-style pattern.
pub fn fits(pattern: &str, name: &str) -> bool {
    crate::linux::text::glob(pattern, name)
}

/// The last rule's word on something.
pub fn last<'a, T>(rules: &[&'a Rule], says: impl Fn(&'a Rule) -> Option<T>) -> Option<T> {
    rules.iter().rev().find_map(|rule| says(rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(subnets: &[(&str, &str)], addresses: &[(&str, &str, Option<u8>)]) -> Rule {
        Rule {
            subnets: subnets.iter().map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).collect(),
            addresses: addresses
                .iter()
                .map(|(a, b, prefix)| (a.parse().unwrap(), Host { ip: b.parse().unwrap(), prefix: *prefix }))
                .collect(),
            ..Rule::default()
        }
    }

    fn host(text: &str) -> Host {
        match text.split_once('/') {
            Some((ip, prefix)) => Host { ip: ip.parse().unwrap(), prefix: Some(prefix.parse().unwrap()) },
            None => Host { ip: text.parse().unwrap(), prefix: None },
        }
    }

    #[test]
    fn the_host_part_stays_and_the_prefix_follows() {
        let rules = [
            rule(&[("10.1.0.0/16", "10.2.0.0/16"), ("10.1.7.0/24", "192.168.7.0/25")], &[]),
            rule(
                &[("2001:db8:1::/48", "2001:db8:2::/48"), ("172.16.0.0/24", "172.20.4.0/22")],
                &[("10.1.9.9", "10.9.9.9", Some(30))],
            ),
        ];
        let rules: Vec<&Rule> = rules.iter().collect();
        for (before, after) in [
            ("10.1.5.7/24", "10.2.5.7/24"),
            ("10.1.5.7/16", "10.2.5.7/16"),
            ("10.1.5.7", "10.2.5.7"),
            ("10.1.5.7/8", "10.2.5.7/8"),
            ("10.1.7.9/24", "192.168.7.9/25"),
            ("10.1.7.9/28", "192.168.7.9/28"),
            ("10.1.9.9/24", "10.9.9.9/30"),
            ("10.1.9.9", "10.9.9.9"),
            ("172.16.0.200/24", "172.20.4.200/22"),
            ("2001:db8:1:5::7/64", "2001:db8:2:5::7/64"),
        ] {
            assert_eq!(map(&rules, host(before)), Verdict::Becomes(host(after)), "{before}");
        }
        assert_eq!(map(&rules, host("10.3.0.1/24")), Verdict::Uncovered);
        assert_eq!(map(&rules, host("::a01:507")), Verdict::Uncovered);
        for crowded in ["10.1.7.127/24", "10.1.7.200/24"] {
            assert!(matches!(map(&rules, host(crowded)), Verdict::NoRoom(..)), "{crowded}");
        }
        let network = |text: &str| map_network(&rules, text.parse().unwrap()).map(|net| net.to_string());
        assert_eq!(network("10.1.64.0/18").as_deref(), Some("10.2.64.0/18"));
        assert_eq!(network("10.1.7.0/24").as_deref(), Some("192.168.7.0/25"));
        assert_eq!(network("10.0.0.0/8"), None, "covered in part only");
    }

    #[test]
    fn the_later_rule_counts() {
        let rules = [
            rule(&[("10.1.0.0/16", "10.2.0.0/16")], &[("10.1.0.1", "10.2.0.1", None)]),
            rule(&[("10.1.0.0/16", "10.3.0.0/16")], &[("10.1.0.1", "10.3.0.9", None)]),
        ];
        let rules: Vec<&Rule> = rules.iter().collect();
        assert_eq!(map(&rules, host("10.1.0.1/8")), Verdict::Becomes(host("10.3.0.9/8")));
        assert_eq!(map(&rules, host("10.1.0.2/8")), Verdict::Becomes(host("10.3.0.2/8")));
    }

    proptest! {
        #[test]
        fn there_and_back_is_where_it_was(from: u32, to: u32, ip: u32, length in 0u8..=32, own in 0u8..=32) {
            let net = |bits: u32| IpNet::new(IpAddr::V4(bits.into()), length).unwrap().trunc();
            let (from, to) = (net(from), net(to));
            let inside = Host { ip: to_address(to_number(from.network()) | u128::from(ip)
                & (u128::from(u32::MAX).checked_shr(u32::from(length)).unwrap_or(0)), &from), prefix: Some(own) };
            let there = move_host(&from, &to, inside).unwrap();
            prop_assert!(to.contains(&there.ip));
            prop_assert_eq!(move_host(&to, &from, there).unwrap(), inside);
        }
        #[test]
        fn nothing_panics(from: u128, to: u128, ip: u128, a in 0u8..=128, b in 0u8..=128) {
            let net = |bits: u128, length| IpNet::new(IpAddr::V6(bits.into()), length).unwrap();
            let _ = move_host(&net(from, a), &net(to, b), Host { ip: IpAddr::V6(ip.into()), prefix: Some(b) });
        }
    }
}
