//! What a rule says of a guest's addresses, checked.

use super::{OneOrMore, WrittenRule};
use crate::ops::toml_file::{Wrong, wrong};
use ipnet::IpNet;
use landfall_boot::network_map::{Host, RouteRule, Rule};
use std::net::IpAddr;

type Result<T> = std::result::Result<T, Wrong>;

/// The rule; `None` where it says nothing of addresses.
pub(super) fn check(written: &WrittenRule, place: String, interface: Option<String>) -> Result<Option<Rule>> {
    let mut rule = Rule { place, interface, dhcp: written.dhcp, ..Rule::default() };
    for (from, to) in &written.subnets {
        let at = to.span().start;
        let pair = (subnet(from, at)?, subnet(to.get_ref(), at)?);
        same_family(pair.0.addr(), pair.1.addr(), at)?;
        rule.subnets.push(pair);
    }
    for (from, to) in &written.addresses {
        let at = to.span().start;
        let from_ip = address(from, at)?;
        let host = match to.get_ref().split_once('/') {
            None => Host { ip: address(to.get_ref(), at)?, prefix: None },
            Some(_) => {
                let net: IpNet = to.get_ref().parse().map_err(|_| {
                    wrong(at, format!("{:?} is no address with a prefix length", to.get_ref()))
                })?;
                no_host(&net, at)?;
                Host { ip: net.addr(), prefix: Some(net.prefix_len()) }
            }
        };
        same_family(from_ip, host.ip, at)?;
        rule.addresses.push((from_ip, host));
    }
    if let Some(gateway) = &written.gateway {
        let at = gateway.span().start;
        let texts = match gateway.get_ref() {
            OneOrMore::One(text) => std::slice::from_ref(text),
            OneOrMore::More(texts) => texts,
        };
        if texts.is_empty() {
            return Err(is_empty(at, "gateway"));
        }
        for text in texts {
            let ip = address(text, at)?;
            if rule.gateways.iter().any(|known| known.is_ipv4() == ip.is_ipv4()) {
                return Err(wrong(at, "gateway has two addresses of one family"));
            }
            rule.gateways.push(ip);
        }
    }
    if let Some(servers) = &written.dns {
        let at = servers.span().start;
        let servers = servers.get_ref();
        if servers.is_empty() {
            return Err(is_empty(at, "dns"));
        }
        let servers = servers.iter().map(|text| address(text.get_ref(), text.span().start));
        rule.dns = Some(servers.collect::<Result<_>>()?);
    }
    if let Some(domains) = &written.search {
        let at = domains.span().start;
        let domains = domains.get_ref();
        if domains.is_empty() {
            return Err(is_empty(at, "search"));
        }
        for domain in domains {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let text = domain.get_ref();
            if text.is_empty() || text.len() > 253 || !text.chars().all(is_name) {
                return Err(wrong(domain.span().start, format!("{text:?} is no domain name")));
            }
        }
        rule.search = Some(domains.iter().map(|domain| domain.get_ref().clone()).collect());
    }
    for (from, route) in &written.routes {
        let at = route.span().start;
        let route = route.get_ref();
        let from = subnet(from, at)?;
        if from.prefix_len() == 0 {
            return Err(wrong(at, format!("{from} is the default route")).hint("use gateway"));
        }
        let to = route.to.as_ref().map(|to| subnet(to, at)).transpose()?;
        let via = route.via.as_ref().map(|via| address(via, at)).transpose()?;
        for ip in to.map(|to| to.addr()).into_iter().chain(via) {
            same_family(from.addr(), ip, at)?;
        }
        if to.is_none() && via.is_none() {
            return Err(wrong(at, "the route has neither `to` nor `via`: it changes nothing"));
        }
        rule.routes.push(RouteRule { from, to, via });
    }
    let is_idle = rule.subnets.is_empty()
        && rule.addresses.is_empty()
        && rule.gateways.is_empty()
        && rule.routes.is_empty()
        && rule.dns.is_none()
        && rule.search.is_none()
        && rule.dhcp.is_none();
    Ok((!is_idle).then_some(rule))
}

fn is_empty(at: usize, what: &str) -> Wrong {
    wrong(at, format!("{what} is empty")).hint("leave it out to keep what is configured")
}

fn address(text: &str, at: usize) -> Result<IpAddr> {
    text.parse().map_err(|_| wrong(at, format!("{text:?} is no IP address")))
}

/// Refuses what no machine of a network can have: its own address, its broadcast address. A network of two has neither.
fn no_host(net: &IpNet, at: usize) -> Result<()> {
    let is_small = net.max_prefix_len().saturating_sub(net.prefix_len()) < 2;
    let what = match net.addr() {
        _ if is_small => return Ok(()),
        ip if ip == net.network() => format!("{ip} is the address of the network {net}"),
        ip if ip == net.broadcast() && ip.is_ipv4() => {
            format!("{ip} is the broadcast address of {}", net.trunc())
        }
        _ => return Ok(()),
    };
    Err(wrong(at, what).hint("write the machine's own"))
}

fn subnet(text: &str, at: usize) -> Result<IpNet> {
    let net: IpNet = text
        .parse()
        .map_err(|_| wrong(at, format!("{text:?} is no subnet")).hint("write it as 10.1.0.0/16"))?;
    if net.trunc() != net {
        return Err(
            wrong(at, format!("{net} is an address within a subnet")).hint(format!("write {}", net.trunc()))
        );
    }
    Ok(net)
}

fn same_family(from: IpAddr, to: IpAddr, at: usize) -> Result<()> {
    match from.is_ipv4() == to.is_ipv4() {
        true => Ok(()),
        false => Err(wrong(at, format!("{from} and {to} are of different families"))),
    }
}
