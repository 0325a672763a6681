//! What the map says of the values of one interface, and what became of them.

use crate::linux::text;
use crate::network_map::{self, Host, Moved, NetworkMap, Rule, Verdict, What, map, map_network};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Id, sentence, remedy.
type Found = (&'static str, String, String);

/// The map, and what was done by it so far.
pub(super) struct Site<'a> {
    map: &'a NetworkMap,
    cards: BTreeMap<String, BTreeSet<usize>>,
    moved: Vec<Moved>,
    findings: Vec<Found>,
    /// Every address of the machine: interface, as it was, as it will be.
    own: Vec<(String, Host, Host)>,
    /// Addresses that DHCP replaces.
    gone: Vec<(String, Host)>,
    /// What had a place in some file.
    placed: BTreeSet<What>,
    /// Numbers of the rules whose conditions some interface meets.
    rules_used: BTreeSet<usize>,
}

impl<'a> Site<'a> {
    pub fn new(map: &'a NetworkMap, cards: BTreeMap<String, BTreeSet<usize>>) -> Self {
        Site {
            map,
            cards,
            moved: Vec::new(),
            findings: Vec::new(),
            own: Vec::new(),
            gone: Vec::new(),
            placed: BTreeSet::new(),
            rules_used: BTreeSet::new(),
        }
    }

    /// The rules for an interface with one of these names. Without a name: for the whole machine.
    pub fn on<'s>(&'s mut self, names: &[String], path: &'s str) -> On<'s, 'a> {
        if names.is_empty() {
            return self.whole(path);
        }
        let mut cards = BTreeSet::new();
        for (known, below) in &self.cards {
            if names.iter().any(|name| name == known || text::glob(name, known)) {
                cards.extend(below.iter().copied());
            }
        }
        let fits = |rule: &Rule| {
            rule.cards.as_ref().is_none_or(|list| list.iter().any(|card| cards.contains(card)))
                && rule
                    .interface
                    .as_ref()
                    .is_none_or(|pattern| names.iter().any(|name| text::glob(pattern, name)))
        };
        let rules = self.fitting(fits);
        On { site: self, rules, name: names.join(" "), path, is_whole: false }
    }

    /// For what no interface owns. Rules with a condition count less: theirs is one interface of several.
    pub fn whole<'s>(&'s mut self, path: &'s str) -> On<'s, 'a> {
        let map = self.map;
        let (open, conditioned): (Vec<_>, Vec<_>) =
            map.rules.iter().enumerate().partition(|(_, rule)| is_open(rule));
        let met = conditioned.into_iter().filter(|(number, _)| self.rules_used.contains(number));
        let rules = met.chain(open).map(|(_, rule)| rule).collect();
        On { site: self, rules, name: String::new(), path, is_whole: true }
    }

    /// The rules for whoever has the gateway in its network; for the whole machine where nobody has.
    pub fn beside<'s>(&'s mut self, gateway: &str, path: &'s str) -> On<'s, 'a> {
        let ip = parse_ip(gateway);
        let own = self.own.iter().map(|(name, old, _)| (name, *old));
        let mut all = own.chain(self.gone.iter().map(|(name, old)| (name, *old)));
        let owner = all.find(|(_, old)| {
            let network = old.prefix.and_then(|prefix| IpNet::new(old.ip, prefix).ok());
            network.is_some_and(|network| ip.is_some_and(|ip| network.contains(&ip)))
        });
        match owner.map(|(name, _)| name.clone()) {
            Some(name) => self.on(&[name], path),
            None => self.whole(path),
        }
    }

    fn fitting(&mut self, fits: impl Fn(&Rule) -> bool) -> Vec<&'a Rule> {
        let (map, mut rules) = (self.map, Vec::new());
        for (number, rule) in map.rules.iter().enumerate() {
            if fits(rule) {
                self.rules_used.insert(number);
                rules.push(rule);
            }
        }
        rules
    }

    /// What an address of the machine becomes, for files that only repeat it.
    pub fn own(&self, ip: IpAddr) -> Option<IpAddr> {
        self.own.iter().find(|(_, old, _)| old.ip == ip).map(|(_, _, new)| new.ip)
    }

    pub fn find(&mut self, id: &'static str, says: String, remedy: &str) {
        self.findings.push((id, says, remedy.to_owned()));
    }

    /// What was moved, and what was found.
    pub fn finish(mut self) -> (Vec<Moved>, Vec<Found>) {
        self.twins();
        let rules: Vec<&Rule> = self.map.rules.iter().collect();
        let asked = [
            (What::Dns, rules.iter().any(|rule| rule.dns.is_some()), "name servers"),
            (What::Search, rules.iter().any(|rule| rule.search.is_some()), "search domains"),
            (What::Gateway, rules.iter().any(|rule| !rule.gateways.is_empty()), "a gateway"),
            (What::Method, rules.iter().any(|rule| rule.dhcp == Some(true)), "DHCP"),
        ];
        for (what, is_asked, words) in asked {
            if is_asked && !self.placed.contains(&what) {
                self.find(
                    "linux-readdress-unplaced",
                    format!("The network map gives {words}, and no file of the guest has a place for that."),
                    "Ignore this where DHCP gives it; else set it on the target.",
                );
            }
        }
        if !self.moved.is_empty() {
            self.find(
                "linux-readdress-scope",
                "Addresses were changed in the network configuration only.".to_owned(),
                "Look for the old addresses in the configuration of services, firewalls and applications.",
            );
        }
        (self.moved, self.findings)
    }

    /// Two addresses that become one.
    fn twins(&mut self) {
        let mut by_result: BTreeMap<IpAddr, BTreeMap<IpAddr, String>> = BTreeMap::new();
        for (name, old, new) in &self.own {
            by_result.entry(new.ip).or_default().insert(old.ip, name.clone());
        }
        for (result, from) in by_result {
            if from.len() > 1 {
                let from: Vec<_> = from.iter().map(|(ip, name)| format!("{ip} ({name})")).collect();
                self.find(
                    "linux-readdress-duplicate",
                    format!(
                        "By the network map {} would become the same address, {result}.",
                        from.join(" and ")
                    ),
                    "Give each of them its own address in the map.",
                );
            }
        }
    }
}

/// The rules for one interface, while one file is changed.
pub(super) struct On<'s, 'a> {
    site: &'s mut Site<'a>,
    rules: Vec<&'a Rule>,
    name: String,
    path: &'s str,
    is_whole: bool,
}

impl On<'_, '_> {
    /// An address of the interface.
    pub fn address(&mut self, old: Host) -> Host {
        if is_special(old.ip) {
            return old;
        }
        let new = self.verdict(old).unwrap_or(old);
        if !self.wants_dhcp(old.ip) {
            self.site.own.push((self.name.clone(), old, new));
            self.moved(What::Address, &show(old), &show(new));
        }
        new
    }

    /// An address as it is written, `10.1.0.5/24` or `10.1.0.5` with its prefix length elsewhere: as it will be written,
    /// and its prefix length then. `None` for what is no address.
    pub fn address_text(&mut self, text: &str, elsewhere: Option<u8>) -> Option<(String, Host)> {
        let old = parse_host(text)?;
        let known = Host { prefix: old.prefix.or(elsewhere), ..old };
        let new = self.address(known);
        let written = match text.split_once('/') {
            Some((_, mask)) if mask.contains('.') => {
                format!("{}/{}", new.ip, mask_of(new.prefix.unwrap_or(32)))
            }
            Some(_) => show(new),
            None => new.ip.to_string(),
        };
        // How it was written stays, where nothing changed.
        Some((if new == known { text.to_owned() } else { written }, new))
    }

    /// A gateway as it is written; `fe80::1%eth0` too.
    pub fn gateway(&mut self, text: &str) -> Option<String> {
        let ip = parse_ip(text)?;
        if ip.is_unspecified() {
            return None;
        }
        let explicit = network_map::last(&self.rules, |rule| {
            rule.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == ip.is_ipv4())
        });
        if explicit.is_some() {
            self.site.placed.insert(What::Gateway);
        }
        let new = explicit.unwrap_or_else(|| self.neighbour(ip));
        let ip_text = text.split('%').next().unwrap_or(text).trim();
        self.moved(What::Gateway, ip_text, &new.to_string());
        (new != ip).then(|| text.replacen(ip_text, &new.to_string(), 1))
    }

    /// An address of somebody else.
    fn neighbour(&mut self, ip: IpAddr) -> IpAddr {
        if is_special(ip) {
            return ip;
        }
        self.verdict(Host { ip, prefix: None }).map_or(ip, |host| host.ip)
    }

    /// Such an address as it is written.
    pub fn neighbour_text(&mut self, text: &str) -> Option<String> {
        let old = parse_ip(text)?;
        let new = self.neighbour(old);
        (new != old).then(|| new.to_string())
    }

    /// The whole list of name servers; of one family where the list is for one. `None` where it stays.
    pub fn servers(&mut self, old: &[&str], is_v4: Option<bool>) -> Option<Vec<String>> {
        let explicit = network_map::last(&self.rules, |rule| rule.dns.clone());
        let new: Vec<String> = match explicit {
            Some(list) => {
                self.disagreement(
                    |rule| rule.dns.is_some(),
                    |rule| format!("{:?}", rule.dns),
                    "name servers",
                );
                self.site.placed.insert(What::Dns);
                let fits = |ip: &&IpAddr| is_v4.is_none_or(|is_v4| ip.is_ipv4() == is_v4);
                list.iter().filter(fits).map(ToString::to_string).collect()
            }
            None => old
                .iter()
                .map(|text| {
                    // `10.1.0.53#name` and `10.1.0.53%eth0` keep what follows.
                    let ip = text.split(['#', '%']).next().unwrap_or(text);
                    let new = self.neighbour_text(ip);
                    new.map_or_else(|| (*text).to_owned(), |new| text.replacen(ip, &new, 1))
                })
                .collect(),
        };
        self.moved(What::Dns, &old.join(" "), &new.join(" "));
        (new != old).then_some(new)
    }

    /// The whole list of search domains. `None` where it stays.
    pub fn search(&mut self, old: &[&str]) -> Option<Vec<String>> {
        let new = network_map::last(&self.rules, |rule| rule.search.clone())?;
        self.disagreement(
            |rule| rule.search.is_some(),
            |rule| format!("{:?}", rule.search),
            "search domains",
        );
        self.site.placed.insert(What::Search);
        self.moved(What::Search, &old.join(" "), &new.join(" "));
        (new != old).then_some(new)
    }

    /// For the whole machine, interfaces may want different things.
    fn disagreement(&mut self, says: impl Fn(&Rule) -> bool, what: impl Fn(&Rule) -> String, words: &str) {
        let open = self.rules.iter().any(|rule| says(rule) && is_open(rule));
        let different: BTreeSet<String> =
            self.rules.iter().filter(|rule| says(rule)).map(|rule| what(rule)).collect();
        if self.is_whole && !open && different.len() > 1 {
            let path = self.path;
            self.site.find(
                "linux-readdress-unclear",
                format!("{path} is for all interfaces, and the network map gives them different {words}; the last ones were taken."),
                "Give the machine's own in a rule without network and interface.",
            );
        }
    }

    /// A route: where it leads (`None`: anywhere) and over which router; what each becomes, where it changes.
    pub fn route(&mut self, to: Option<IpNet>, via: Option<&str>) -> (Option<IpNet>, Option<String>) {
        let Some(to) = to.filter(|to| to.prefix_len() > 0) else {
            return (None, via.and_then(|via| self.gateway(via)));
        };
        let rule =
            network_map::last(&self.rules, |rule| rule.routes.iter().rev().find(|route| route.from == to));
        let new_to = rule.and_then(|rule| rule.to).or_else(|| map_network(&self.rules, to)).unwrap_or(to);
        let new_via = match (rule.and_then(|rule| rule.via), via) {
            (Some(explicit), Some(via)) => Some(explicit.to_string()).filter(|new| new != via),
            (_, Some(via)) => self.neighbour_text(via),
            (_, None) => None,
        };
        let over = |via: Option<&str>| via.map(|via| format!(" via {via}")).unwrap_or_default();
        let before = format!("{to}{}", over(via));
        self.moved(What::Route, &before, &format!("{new_to}{}", over(new_via.as_deref().or(via))));
        ((new_to != to).then_some(new_to), new_via)
    }

    /// An address or network that is neither the machine's nor a router: the source of a rule.
    pub fn network_text(&mut self, text: &str) -> Option<String> {
        let old = parse_host(text)?;
        let network = IpNet::new(old.ip, old.prefix.unwrap_or(full(old.ip))).ok()?;
        let new = map_network(&self.rules, network).filter(|new| *new != network.trunc())?;
        Some(if text.contains('/') { new.to_string() } else { new.addr().to_string() })
    }

    /// True where the interface's IPv4 address comes from DHCP from now on.
    pub fn dhcp(&self) -> bool {
        !self.is_whole && network_map::last(&self.rules, |rule| rule.dhcp) == Some(true)
    }

    /// True where the map says so and this address would go.
    fn wants_dhcp(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() && self.dhcp()
    }

    /// True where the map has name servers of its own.
    pub fn has_servers(&self) -> bool {
        network_map::last(&self.rules, |rule| rule.dns.as_ref()).is_some()
    }

    /// The interface was switched to DHCP, or is there already.
    pub fn switched(&mut self, before: &str) {
        self.site.placed.insert(What::Method);
        if !before.is_empty() {
            let old = parse_host(before).map(|host| (self.name.clone(), host));
            self.site.gone.extend(old);
            self.moved(What::Method, before, "dhcp");
        }
    }

    /// Looks for addresses that would have moved in text that is not understood.
    pub fn leftover(&mut self, text: &str) {
        let is_part = |c: char| c.is_ascii_hexdigit() || c == '.' || c == ':';
        for word in text.split(|c: char| !is_part(c)) {
            let Ok(ip) = word.parse::<IpAddr>() else { continue };
            if is_special(ip) {
                continue;
            }
            if let Verdict::Becomes(host) = map(&self.rules, Host { ip, prefix: None })
                && host.ip != ip
            {
                let says = format!(
                    "{} names {ip}, which the network map covers, in a place that is not edited.",
                    self.path
                );
                self.site.find(
                    "linux-readdress-left",
                    says,
                    "Look whether it has to change at the other site.",
                );
            }
        }
    }

    /// Something in the file was not understood.
    pub fn unclear(&mut self, what: &str) {
        let says = format!("{} {what}.", self.path);
        self.site.find("linux-readdress-unclear", says, "Change it by hand.");
    }

    fn verdict(&mut self, old: Host) -> Option<Host> {
        let path = self.path;
        match map(&self.rules, old) {
            Verdict::Becomes(new) => {
                let again = map(&self.rules, new);
                if new != old && !matches!(again, Verdict::Uncovered) && again != Verdict::Becomes(new) {
                    self.site.find(
                        "linux-readdress-chain",
                        format!(
                            "{} becomes {} by the network map, which the same map would move on.",
                            old.ip, new.ip
                        ),
                        "Do not apply the map to the result once more.",
                    );
                }
                Some(new)
            }
            Verdict::Uncovered => {
                self.site.find(
                    "linux-readdress-unmapped",
                    format!("{path} has {}, which no rule of the network map covers.", old.ip),
                    "Add a rule if it differs at the other site.",
                );
                None
            }
            Verdict::NoRoom(from, to) => {
                self.site.find(
                    "linux-readdress-no-room",
                    format!("{} ({path}) has no place in {to}, which {from} becomes.", old.ip),
                    "Map the address by itself, or the subnet to a larger one.",
                );
                None
            }
        }
    }

    fn moved(&mut self, what: What, before: &str, after: &str) {
        if before == after {
            return;
        }
        let moved = Moved {
            interface: self.name.clone(),
            what,
            before: before.to_owned(),
            after: after.to_owned(),
            path: self.path.to_owned(),
        };
        if !self.site.moved.contains(&moved) {
            self.site.moved.push(moved);
        }
    }
}

/// For every interface.
fn is_open(rule: &Rule) -> bool {
    rule.cards.is_none() && rule.interface.is_none()
}

/// The same at every site: loopback, link-local, unspecified, multicast.
fn is_special(ip: IpAddr) -> bool {
    ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
}

fn show(host: Host) -> String {
    match host.prefix {
        Some(prefix) => format!("{}/{prefix}", host.ip),
        None => host.ip.to_string(),
    }
}

fn full(ip: IpAddr) -> u8 {
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
