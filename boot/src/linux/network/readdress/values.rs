//! Addresses, networks and masks as files write them.

use crate::network_map::Host;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

/// The same at every site: loopback, link-local, unspecified, multicast.
pub(super) fn is_special(ip: IpAddr) -> bool {
    ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
}

pub(super) fn show(host: Host) -> String {
    match host.prefix {
        Some(prefix) => format!("{}/{prefix}", host.ip),
        None => host.ip.to_string(),
    }
}

pub(super) fn full(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// `10.1.0.5`, `fe80::1%eth0`.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    text.trim().split('%').next()?.parse().ok()
}

/// `10.1.0.5`, `10.1.0.5/24`, `10.1.0.5/255.255.255.0`.
pub(super) fn parse_host(text: &str) -> Option<Host> {
    let (ip, prefix) = match text.trim().split_once('/') {
        Some((ip, prefix)) => (ip, Some(parse_prefix(prefix)?)),
        None => (text.trim(), None),
    };
    let ip: IpAddr = ip.parse().ok()?;
    (prefix.is_none_or(|prefix| prefix <= full(ip))).then_some(Host { ip, prefix })
}

/// `24`, `255.255.255.0`.
pub(super) fn parse_prefix(text: &str) -> Option<u8> {
    super::super::ifupdown::prefix_length(text.trim()).and_then(|length| u8::try_from(length).ok())
}

/// A route's destination: `10.9.0.0/16`, `10.9.0.5`, `default`, with its mask elsewhere. `None`: not understood.
pub(super) fn parse_network(text: &str, elsewhere: Option<u8>) -> Option<IpNet> {
    if text == "default" {
        return IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0).ok();
    }
    let host = parse_host(text)?;
    let prefix =
        host.prefix.or(elsewhere).unwrap_or(if host.ip.is_unspecified() { 0 } else { full(host.ip) });
    IpNet::new(host.ip, prefix).ok()
}

pub(super) fn mask_of(prefix: u8) -> Ipv4Addr {
    let bits = u32::MAX.checked_shl(32u32.saturating_sub(u32::from(prefix))).unwrap_or(0);
    Ipv4Addr::from(bits)
}

/// A prefix length in the manner in which the old one was written.
pub(super) fn prefix_like(old: &str, prefix: u8) -> String {
    match old.contains('.') {
        true => mask_of(prefix).to_string(),
        false => prefix.to_string(),
    }
}

/// Broadcast address of the host's network.
pub(super) fn broadcast(host: Host) -> Option<String> {
    Some(IpNet::new(host.ip, host.prefix?).ok()?.broadcast().to_string())
}

/// Address of the host's network.
pub(super) fn network(host: Host) -> Option<String> {
    Some(IpNet::new(host.ip, host.prefix?).ok()?.network().to_string())
}

/// The addresses in any text, alone, with a prefix length, with a port, or in a row that colons part (`ip=` of the kernel);
/// none that is the same at every site.
pub(super) fn addresses(text: &str) -> impl Iterator<Item = IpAddr> {
    let is_part = |c: char| c.is_ascii_hexdigit() || c == '.' || c == ':';
    let found = |word: &str| -> Vec<IpAddr> {
        match word.parse() {
            Ok(ip) => vec![ip],
            Err(_) => {
                word.split(':').filter_map(|part| part.parse::<Ipv4Addr>().ok()).map(IpAddr::V4).collect()
            }
        }
    };
    text.split(move |c: char| !is_part(c)).flat_map(found).filter(|ip| !is_special(*ip))
}
