//! What is said at the end, when every file was looked at.

use super::site::{Found, Site, is_open};
use super::values::{is_special, show};
use crate::network_map::{Host, Moved, Rule, What};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

impl Site<'_> {
    /// What was moved, and what was found.
    pub fn finish(mut self) -> (Vec<Moved>, Vec<Found>) {
        self.twins();
        self.strange_gateways();
        self.unused();
        let numbered = self.rules.iter().enumerate();
        let used = numbered.filter(|(number, rule)| is_open(rule) || self.rules_used.contains(number));
        let rules: Vec<&Rule> = used.map(|(_, rule)| *rule).collect();
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

    /// Gateways that were in a network of their interface, and will be in none.
    fn strange_gateways(&mut self) {
        for gateway in std::mem::take(&mut self.gateways) {
            let is_whole = gateway.interface.is_empty();
            let own = self.own.iter().filter(|(name, old, _)| {
                (is_whole || *name == gateway.interface) && old.ip.is_ipv4() == gateway.new.is_ipv4()
            });
            let holds = |host: Host, ip: IpAddr| {
                let network = host.prefix.and_then(|prefix| IpNet::new(host.ip, prefix).ok());
                network.is_some_and(|network| network.contains(&ip))
            };
            let own: Vec<(Host, Host)> = own.map(|(_, old, new)| (*old, *new)).collect();
            if is_special(gateway.new)
                || !own.iter().any(|(old, _)| holds(*old, gateway.old))
                || own.iter().any(|(_, new)| holds(*new, gateway.new))
            {
                continue;
            }
            let networks: Vec<String> = own.iter().map(|(_, new)| show(*new)).collect();
            let whose = if is_whole { "the machine" } else { &gateway.interface };
            self.find(
                "linux-readdress-gateway",
                format!(
                    "{} gives {whose} the gateway {}, which is in none of its networks ({}).",
                    gateway.path,
                    gateway.new,
                    networks.join(", ")
                ),
                "Give the rule with the gateway the subnets that it is for, or write one for this network.",
            );
        }
    }

    /// Rules for some interfaces of which the guest has none.
    fn unused(&mut self) {
        let numbered = self.rules.iter().enumerate();
        let unused = numbered.filter(|(number, rule)| !is_open(rule) && !self.rules_used.contains(number));
        let places: Vec<String> = unused.map(|(_, rule)| rule.place.clone()).collect();
        for place in places {
            self.find(
                "linux-readdress-rule-unused",
                format!("No interface of the guest meets the condition of the rule at {place}."),
                "Compare its network and interface with the cards and interfaces that inspect lists.",
            );
        }
    }
}
