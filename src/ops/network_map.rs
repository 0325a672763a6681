//! Network maps: the file in which a user says what a network becomes at the recovery site, and what of it is for a machine.
//!
//! ```toml
//! [[rule]]                                  # for every machine
//! subnets = { "10.1.0.0/16" = "10.2.0.0/16" }
//! dns = ["10.2.0.53"]
//!
//! [[rule]]                                  # for some
//! machine = "web*"
//! network = "VM Network"
//! gateway = "10.2.0.254"
//! ```
//!
//! Everything is checked before a machine is looked at, and every complaint names its line. What a rule does to a guest
//! is `landfall_boot::network_map`'s matter.

use super::toml_file::{self, Wrong, wrong};
use crate::machine::Machine;
use ipnet::IpNet;
use landfall_boot::network_map::{Host, NetworkMap, RouteRule, Rule, fits};
use landfall_image::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use toml::Spanned;

/// A map as it was written, checked.
#[derive(Clone, Debug, Default)]
pub struct MapFile {
    rules: Vec<Conditioned>,
}

/// A rule and for whom it is.
#[derive(Clone, Debug)]
struct Conditioned {
    machine: Option<String>,
    network: Option<String>,
    rule: Rule,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    rule: Vec<Spanned<WrittenRule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    machine: Option<Spanned<String>>,
    network: Option<Spanned<String>>,
    interface: Option<Spanned<String>>,
    #[serde(default)]
    subnets: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    addresses: BTreeMap<String, Spanned<String>>,
    gateway: Option<Spanned<OneOrMore>>,
    dns: Option<Spanned<Vec<Spanned<String>>>>,
    search: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    routes: BTreeMap<String, Spanned<WrittenRoute>>,
    dhcp: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "gateway is neither an address in quotes nor a list of them")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRoute {
    to: Option<String>,
    via: Option<String>,
}

/// Reads the map at `path`.
pub fn load(path: &Path) -> Result<MapFile> {
    let (text, name) = toml_file::read(path)?;
    parse(&text, &name).map_err(|error| error.in_file(path))
}

/// The map in `text`; `name` is what findings call it.
pub fn parse(text: &str, name: &str) -> Result<MapFile> {
    let line = |at: usize| toml_file::line(text, at);
    let refused = |wrong: Wrong| wrong.in_text(text);
    let written: Written = toml_file::parse(text)?;
    if written.rule.is_empty() {
        return Err(Error::refused("has no rule").hint("write [[rule]] and below it what it changes"));
    }
    let mut rules = Vec::new();
    for rule in written.rule {
        let place = format!("{name}:{}", line(rule.span().start));
        let at = rule.span().start;
        rules.push(check(rule.into_inner(), at, place).map_err(refused)?);
    }
    Ok(MapFile { rules })
}

fn is_empty(at: usize, what: &str) -> Wrong {
    wrong(at, format!("{what} is empty")).hint("leave it out to keep what is configured")
}

fn check(written: WrittenRule, at: usize, place: String) -> std::result::Result<Conditioned, Wrong> {
    let pattern = |given: Option<Spanned<String>>, what: &str| match given {
        Some(text) if text.get_ref().trim().is_empty() => {
            Err(wrong(text.span().start, format!("{what} is empty; leave it out for all")))
        }
        other => Ok(other.map(Spanned::into_inner)),
    };
    let (machine, network, interface) = (
        pattern(written.machine, "machine")?,
        pattern(written.network, "network")?,
        pattern(written.interface, "interface")?,
    );
    let mut rule = Rule { place, interface, dhcp: written.dhcp, search: None, ..Rule::default() };
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
    if let Some(gateway) = written.gateway {
        let at = gateway.span().start;
        let texts = match gateway.into_inner() {
            OneOrMore::One(text) => vec![text],
            OneOrMore::More(texts) => texts,
        };
        if texts.is_empty() {
            return Err(is_empty(at, "gateway"));
        }
        for text in texts {
            let ip = address(&text, at)?;
            if rule.gateways.iter().any(|known| known.is_ipv4() == ip.is_ipv4()) {
                return Err(wrong(at, "gateway has two addresses of one family"));
            }
            rule.gateways.push(ip);
        }
    }
    if let Some(servers) = written.dns {
        let at = servers.span().start;
        let servers = servers.into_inner();
        if servers.is_empty() {
            return Err(is_empty(at, "dns"));
        }
        let servers = servers.iter().map(|text| address(text.get_ref(), text.span().start));
        rule.dns = Some(servers.collect::<std::result::Result<_, _>>()?);
    }
    if let Some(domains) = written.search {
        let at = domains.span().start;
        let domains = domains.into_inner();
        if domains.is_empty() {
            return Err(is_empty(at, "search"));
        }
        for domain in &domains {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let text = domain.get_ref();
            if text.is_empty() || text.len() > 253 || !text.chars().all(is_name) {
                return Err(wrong(domain.span().start, format!("{text:?} is no domain name")));
            }
        }
        rule.search = Some(domains.into_iter().map(Spanned::into_inner).collect());
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
    if is_idle {
        return Err(wrong(at, "the rule changes nothing")
            .hint("give it subnets, addresses, gateway, dns, search, routes or dhcp"));
    }
    Ok(Conditioned { machine, network, rule })
}

fn address(text: &str, at: usize) -> std::result::Result<IpAddr, Wrong> {
    text.parse().map_err(|_| wrong(at, format!("{text:?} is no IP address")))
}

/// Refuses what no machine of a network can have: its own address, its broadcast address. A network of two has neither.
fn no_host(net: &IpNet, at: usize) -> std::result::Result<(), Wrong> {
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

fn subnet(text: &str, at: usize) -> std::result::Result<IpNet, Wrong> {
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

fn same_family(from: IpAddr, to: IpAddr, at: usize) -> std::result::Result<(), Wrong> {
    match from.is_ipv4() == to.is_ipv4() {
        true => Ok(()),
        false => Err(wrong(at, format!("{from} and {to} are of different families"))),
    }
}

impl MapFile {
    /// The rules for a machine that is called `name` at the source; its networks are those of its cards.
    pub fn resolve(&self, name: &str, machine: &Machine) -> NetworkMap {
        let mut rules = Vec::new();
        for one in &self.rules {
            if one.machine.as_ref().is_some_and(|pattern| !fits(pattern, name)) {
                continue;
            }
            let mut rule = one.rule.clone();
            rule.cards = one.network.as_ref().map(|pattern| {
                let cards = machine.nics.iter().enumerate();
                let fitting =
                    cards.filter(|(_, nic)| nic.network.as_ref().is_some_and(|name| fits(pattern, name)));
                fitting.map(|(at, _)| at).collect()
            });
            rules.push(rule);
        }
        NetworkMap { rules }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the documentation.
    const EXAMPLE: &str = include_str!("../../tests/network-maps/site-b.toml");

    fn complaint(text: &str) -> String {
        let error = parse(text, "map.toml").unwrap_err();
        format!("{error}|{}", error.hint_text().unwrap_or(""))
    }

    #[test]
    fn mistakes_are_refused_with_their_line() {
        for (text, expected) in [
            ("", "has no rule|write [[rule]]"),
            ("[[rule]]\n\nsubnet = {}\n", "line 3: unknown field `subnet`"),
            ("[[rule]]\n\nsubnet = {}\n", "|did you mean subnets?"),
            ("[[rules]]\n", "|did you mean rule?"),
            ("[[rule]]\nmachine = \"a\"\n", "line 1: the rule changes nothing|give it"),
            ("[[rule]]\ndns = [\n  \"10.0.0.1\",\n  \"10.0.0\",\n]\n", "line 4: \"10.0.0\" is no IP address"),
            (
                "[[rule]]\nsubnets = { \"10.1.0.5/16\" = \"10.2.0.0/16\" }\n",
                "line 2: 10.1.0.5/16 is an address within a subnet|write 10.1.0.0/16",
            ),
            (
                "[[rule]]\nsubnets = { \"10.1.0.0/16\" = \"2001:db8::/64\" }\n",
                "line 2: 10.1.0.0 and 2001:db8:: are of different families",
            ),
            (
                "[[rule]]\nsubnets = { \"10.1/16\" = \"10.2.0.0/16\" }\n",
                "line 2: \"10.1/16\" is no subnet|write it as",
            ),
            (
                "[[rule]]\n[rule.subnets]\n\"10.1.0.0/16\" = \"10.2.0.0/16\"\n\"10.1.0.0/16\" = \"10.3.0.0/16\"\n",
                "line 4: duplicate key",
            ),
            (
                "[[rule]]\naddresses = { \"10.1.0.5\" = \"10.1.0.5/33\" }\n",
                "line 2: \"10.1.0.5/33\" is no address",
            ),
            ("[[rule]]\ngateway = [\"10.1.0.1\", \"10.1.0.2\"]\n", "line 2: gateway has two addresses"),
            ("[[rule]]\nsearch = [\"a b\"]\n", "line 2: \"a b\" is no domain name"),
            ("[[rule]]\nroutes = { \"10.9.0.0/16\" = {} }\n", "line 2: the route has neither"),
            (
                "[[rule]]\nroutes = { \"10.9.0.0/16\" = { over = \"10.1.0.1\" } }\n",
                "line 2: unknown field `over`",
            ),
            ("[[rule]]\ndhcp = \"yes\"\n", "line 2: invalid type"),
            ("[[rule]]\nmachine = \"\"\ndhcp = true\n", "line 2: machine is empty"),
            ("[[rule]\n", "line 1: "),
            ("[[rule]]\ndns = []\n", "line 2: dns is empty|leave it out"),
            ("[[rule]]\nsearch = []\n", "line 2: search is empty|leave it out"),
            ("[[rule]]\ngateway = []\n", "line 2: gateway is empty|leave it out"),
            (
                "[[rule]]\nroutes = { \"0.0.0.0/0\" = { via = \"10.2.0.1\" } }\n",
                "line 2: 0.0.0.0/0 is the default route|use gateway",
            ),
            (
                "[[rule]]\nroutes = { \"::/0\" = { via = \"fe80::1\" } }\n",
                "line 2: ::/0 is the default route|use gateway",
            ),
            ("[[rule]]\ngateway = 5\n", "line 2: gateway is neither an address in quotes nor a list of them"),
            (
                "[rule]\ndhcp = true\n",
                "line 1: invalid type: map, expected a sequence|write it in double brackets: [[rule]]",
            ),
            (
                "[[rule]]\ndns = \"10.2.0.53\"\n",
                "line 2: invalid type: string \"10.2.0.53\", expected a sequence|write [\"10.2.0.53\"]",
            ),
            ("[[rule]]\nsearch = \"b.example\"\n", "|write [\"b.example\"]"),
            (
                "[[rule]]\naddresses = { \"10.1.0.5\" = \"10.2.0.0/24\" }\n",
                "line 2: 10.2.0.0 is the address of the network 10.2.0.0/24|write the machine's own",
            ),
            (
                "[[rule]]\naddresses = { \"10.1.0.5\" = \"10.2.0.255/24\" }\n",
                "line 2: 10.2.0.255 is the broadcast address of 10.2.0.0/24|write the machine's own",
            ),
        ] {
            let found = complaint(text);
            assert!(found.contains(expected), "{text}\n{found}\n{expected}");
        }
    }

    /// Two routers of a line between two, and addresses alone.
    #[test]
    fn every_address_of_a_small_network_is_one() {
        for to in ["10.2.0.0/31", "10.2.0.1/31", "10.2.0.0/32", "10.2.0.0", "2001:db8::ff/120"] {
            let from = if to.contains(':') { "2001:db8:1::5" } else { "10.1.0.5" };
            let text = format!("[[rule]]\naddresses = {{ \"{from}\" = \"{to}\" }}\n");
            assert!(parse(&text, "map.toml").is_ok(), "{to}");
        }
    }

    #[test]
    fn a_machine_gets_its_rules() {
        let map = parse(EXAMPLE, "site-b.toml").unwrap();
        let vmx = b"config.version = \"8\"\nvirtualHW.version = \"19\"\ndisplayName = \"web01\"\nmemSize = \"1024\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n\
            ethernet0.present = \"TRUE\"\nethernet0.networkName = \"VM Network\"\nethernet1.present = \"TRUE\"\nethernet1.networkName = \"Backup\"\n";
        let parse_vmx = |text: &[u8]| crate::hypervisor::vmware::vmx::parse(text, &Default::default());
        let machine = parse_vmx(vmx).unwrap().machine;
        let web = map.resolve("web01", &machine);
        let db = map.resolve("db01", &machine);
        assert!(web.rules.len() > db.rules.len());
        let by_network = db.rules.iter().find(|rule| rule.cards.is_some()).unwrap();
        assert_eq!(by_network.cards, Some(vec![1]));
        assert!(by_network.place.starts_with("site-b.toml:"), "{}", by_network.place);
    }
}
