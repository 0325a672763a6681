//! What the map says of the values of one interface, and what became of them.

use super::values::{addresses, full, is_special, mask_of, parse_host, parse_ip, show};
use crate::linux::text;
use crate::network_map::{self, Host, Moved, NetworkMap, Rule, Verdict, What, map, map_network};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Id, sentence, remedy.
pub(crate) type Found = (&'static str, String, String);

/// A gateway in a file: whose, as it was, as it will be.
pub(crate) struct Gateway {
    pub interface: String,
    pub old: IpAddr,
    pub new: IpAddr,
    pub path: String,
}

/// The map, and what was done by it so far.
#[derive(Default)]
pub(crate) struct Site<'a> {
    pub rules: Vec<&'a Rule>,
    cards: BTreeMap<String, BTreeSet<usize>>,
    /// Names that netplan's ids stand for.
    pub called: BTreeMap<String, String>,
    pub moved: Vec<Moved>,
    pub findings: Vec<Found>,
    /// Every address of the machine: interface, as it was, as it will be.
    pub own: Vec<(String, Host, Host)>,
    /// Addresses that DHCP replaces.
    gone: Vec<(String, Host)>,
    pub gateways: Vec<Gateway>,
    /// Interfaces whose address comes by DHCP from now on.
    automatic: BTreeSet<String>,
    /// What had a place in some file.
    pub placed: BTreeSet<What>,
    /// Numbers of the rules whose conditions some interface meets.
    pub rules_used: BTreeSet<usize>,
    /// More names of automatic interfaces, which went with their addresses.
    gone_names: BTreeSet<String>,
    /// Files that go.
    pub removed: BTreeSet<String>,
}

impl<'a> Site<'a> {
    pub fn new(
        map: &'a NetworkMap,
        cards: BTreeMap<String, BTreeSet<usize>>,
        called: BTreeMap<String, String>,
    ) -> Self {
        Site { rules: map.rules.iter().collect(), cards, called, ..Site::default() }
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
        On { site: self, rules, name: names.join(" "), path, is_whole: false, is_fixed: false }
    }

    /// For what no interface owns. Rules with a condition count less: theirs is one interface of several.
    pub fn whole<'s>(&'s mut self, path: &'s str) -> On<'s, 'a> {
        let (open, conditioned): (Vec<_>, Vec<_>) =
            self.rules.iter().copied().enumerate().partition(|(_, rule)| is_open(rule));
        let met = conditioned.into_iter().filter(|(number, _)| self.rules_used.contains(number));
        let rules = met.chain(open).map(|(_, rule)| rule).collect();
        On { site: self, rules, name: String::new(), path, is_whole: true, is_fixed: false }
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

    /// True where the map is about addresses of this family, and this is none that it leads to.
    fn moves_addresses(&self, ip: IpAddr) -> bool {
        let subnets = || self.rules.iter().flat_map(|rule| &rule.subnets);
        let addresses = || self.rules.iter().flat_map(|rule| &rule.addresses);
        let is_about = subnets().any(|(from, _)| from.addr().is_ipv4() == ip.is_ipv4())
            || addresses().any(|(from, _)| from.is_ipv4() == ip.is_ipv4());
        is_about && !subnets().any(|(_, to)| to.contains(&ip)) && !addresses().any(|(_, to)| to.ip == ip)
    }

    fn fitting(&mut self, fits: impl Fn(&Rule) -> bool) -> Vec<&'a Rule> {
        let mut rules = Vec::new();
        for (number, rule) in self.rules.iter().copied().enumerate() {
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

    /// True where the interface gets its address by DHCP from now on.
    pub fn is_automatic(&self, name: &str) -> bool {
        self.automatic.contains(name)
    }

    /// True for an alias that went.
    pub fn is_gone(&self, alias: &str) -> bool {
        self.gone_names.contains(alias)
    }

    pub fn find(&mut self, id: &'static str, says: String, remedy: &str) {
        self.findings.push((id, says, remedy.to_owned()));
    }
}

/// The rules for one interface, while one file is changed.
pub(crate) struct On<'s, 'a> {
    site: &'s mut Site<'a>,
    rules: Vec<&'a Rule>,
    name: String,
    path: &'s str,
    is_whole: bool,
    /// Its address stays a fixed one, whatever the map says.
    is_fixed: bool,
}

impl On<'_, '_> {
    /// An address of the interface.
    pub fn address(&mut self, old: Host) -> Host {
        if is_special(old.ip) {
            return old;
        }
        let new = self.verdict(old, true).unwrap_or(old);
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
        let own = &self.site.own;
        // The gateway of a rule with addresses is for the networks of these.
        let is_for = |rule: &Rule| {
            rule.subnets.is_empty()
                || rule.subnets.iter().any(|(from, _)| from.contains(&ip))
                || rule.addresses.iter().any(|(from, _)| own.iter().any(|(_, old, _)| old.ip == *from))
        };
        let explicit = network_map::last(&self.rules, |rule| {
            rule.gateways
                .iter()
                .copied()
                .find(|gateway| gateway.is_ipv4() == ip.is_ipv4())
                .filter(|_| is_for(rule))
        });
        let new = explicit.unwrap_or_else(|| self.neighbour(ip));
        if explicit.is_some() || new != ip {
            self.site.placed.insert(What::Gateway);
        }
        let interface = self.name.clone();
        self.site.gateways.push(Gateway { interface, old: ip, new, path: self.path.to_owned() });
        let ip_text = text.split('%').next().unwrap_or(text).trim();
        self.moved(What::Gateway, ip_text, &new.to_string());
        (new != ip).then(|| text.replacen(ip_text, &new.to_string(), 1))
    }

    /// An address of somebody else.
    fn neighbour(&mut self, ip: IpAddr) -> IpAddr {
        if is_special(ip) {
            return ip;
        }
        self.verdict(Host { ip, prefix: None }, false).map_or(ip, |host| host.ip)
    }

    /// Such an address as it is written.
    pub fn neighbour_text(&mut self, text: &str) -> Option<String> {
        let old = parse_ip(text)?;
        let new = self.neighbour(old);
        (new != old).then(|| new.to_string())
    }

    /// The other end of a line between two, with a prefix length or not.
    pub fn peer(&mut self, text: &str) -> Option<String> {
        let old = parse_host(text)?;
        if is_special(old.ip) {
            return None;
        }
        let new = self.verdict(old, false).filter(|new| *new != old)?;
        self.moved(What::Peer, &show(old), &show(new));
        Some(show(new))
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
        let written = if text.contains('/') { new.to_string() } else { new.addr().to_string() };
        self.moved(What::Source, text, &written);
        Some(written)
    }

    /// True where the interface's IPv4 address comes from DHCP from now on.
    pub fn dhcp(&self) -> bool {
        !self.is_whole && !self.is_fixed && network_map::last(&self.rules, |rule| rule.dhcp) == Some(true)
    }

    /// True for a default route that goes with the address that DHCP replaces.
    pub fn is_replaced(&self, to: Option<IpNet>, via: Option<&str>) -> bool {
        let is_v4 = via.and_then(parse_ip).is_some_and(|ip| ip.is_ipv4());
        to.is_some_and(|to| to.prefix_len() == 0) && is_v4 && self.dhcp()
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
        self.site.automatic.insert(self.name.clone());
        if !before.is_empty() {
            let old = parse_host(before).map(|host| (self.name.clone(), host));
            self.site.gone.extend(old);
            self.moved(What::Method, before, "dhcp");
        }
    }

    /// An alias without an automatic interface below it keeps its address.
    pub fn keep_alias(&mut self, alias: &str) {
        self.is_fixed = true;
        self.unclear(&format!("has {alias}, an alias, which cannot have its address by DHCP"));
    }

    /// An alias goes with its address.
    pub fn goes(&mut self, alias: &str, before: &str) {
        self.site.gone_names.insert(alias.to_owned());
        self.switched(before);
    }

    /// The file goes.
    pub fn remove_file(&mut self) {
        self.site.removed.insert(self.path.to_owned());
    }

    /// Looks for addresses that would have moved in text that is not understood.
    pub fn leftover(&mut self, text: &str) {
        for ip in addresses(text) {
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

    fn verdict(&mut self, old: Host, is_own: bool) -> Option<Host> {
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
                match is_own && !self.wants_dhcp(old.ip) && self.site.moves_addresses(old.ip) {
                    true => self.stays(old.ip),
                    false => self.site.find(
                        "linux-readdress-unmapped",
                        format!("{path} has {}, which no rule of the network map covers.", old.ip),
                        "Add a rule if it differs at the other site.",
                    ),
                }
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

    /// An address of the machine that no rule covers.
    fn stays(&mut self, ip: IpAddr) {
        let covers = |rule: &Rule| !matches!(map(&[rule], Host { ip, prefix: None }), Verdict::Uncovered);
        let other = self.site.rules.iter().find(|rule| covers(rule));
        let other = other
            .map(|rule| format!("; the one at {} is for other interfaces", rule.place))
            .unwrap_or_default();
        let says = format!(
            "{} keeps {ip} ({}), which no rule of the network map covers{other}.",
            self.name, self.path
        );
        self.site.find(
            "linux-readdress-address-stays",
            says,
            "Add a rule for it; one that turns its subnet into the same one says that it stays.",
        );
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
pub(super) fn is_open(rule: &Rule) -> bool {
    rule.cards.is_none() && rule.interface.is_none()
}
