//! `/etc/resolv.conf` (resolv.conf(5)) from what is set and what networkd has learnt.
//!
//! networkd keeps it in `/run/systemd/netif/state`: lines of `KEY=words`, written whole (sd-network(3) reads the same file). Its
//! addresses may have a port and a name of TLS behind them, which a resolv.conf cannot say.

use crate::appliance::settings::{Domain, Settings};
use std::fmt::Write;
use std::net::IpAddr;

/// networkd's state on the appliance.
pub const STATE: &str = "/run/systemd/netif/state";
/// What the C library takes: `MAXNS` and `MAXDNSRCH`.
const SERVERS: usize = 3;
const DOMAINS: usize = 6;
/// More than networkd keeps of a network.
const WORDS: usize = 64;

/// What DHCP and routers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// Servers of names, with a scope where they are link-local: `fe80::1%ens192`.
    pub dns: Vec<String>,
    /// Domains that short names are looked for in.
    pub domains: Vec<Domain>,
    /// Servers of time.
    pub ntp: Vec<String>,
}

impl Learnt {
    /// Reads networkd's state. What is not known or no address is left out.
    pub fn parse(state: &str) -> Learnt {
        let mut learnt = Learnt::default();
        for line in state.lines() {
            let Some((key, words)) = line.split_once('=') else { continue };
            let words = words.trim_matches('"').split_ascii_whitespace().take(WORDS);
            match key {
                "DNS" => learnt.dns = words.filter_map(server).collect(),
                "DOMAINS" => learnt.domains = words.filter_map(|word| word.parse().ok()).collect(),
                "NTP" => {
                    learnt.ntp = words
                        .filter(|word| word.parse::<super::super::settings::Server>().is_ok())
                        .map(str::to_owned)
                        .collect()
                }
                _ => {}
            }
        }
        learnt
    }
}

/// `10.0.0.1`, `10.0.0.1:53`, `[2001:db8::1]:53%2#name`, `fe80::1%ens192`.
fn server(word: &str) -> Option<String> {
    let word = word.split('#').next()?;
    let (word, scope) = match word.split_once('%') {
        Some((word, scope)) => (word, Some(scope)),
        None => (word, None),
    };
    let (address, port) = match word.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (address, port.strip_prefix(':'))
        }
        None => match word.split_once(':') {
            Some((address, port)) if !port.contains(':') => (address, Some(port)),
            _ => (word, None),
        },
    };
    let address: IpAddr = address.parse().ok()?;
    if address.is_unspecified() || address.is_multicast() || port.is_some_and(|port| port != "53") {
        return None;
    }
    let is_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let is_scope = |scope: &&str| {
        (1..=15).contains(&scope.len())
            && scope.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    };
    match scope.filter(|_| is_local) {
        Some(scope) => Some(scope).filter(is_scope).map(|scope| format!("{address}%{scope}")),
        None => Some(address.to_string()),
    }
}

/// The file. What is set counts instead of what was learnt.
pub fn resolv_conf(settings: &Settings, learnt: &Learnt) -> String {
    let servers: Vec<String> = match &settings.dns {
        Some(dns) => dns.iter().map(ToString::to_string).collect(),
        None => learnt.dns.clone(),
    };
    let domains = settings.search.as_ref().unwrap_or(&learnt.domains);
    let mut text = String::from(super::HEAD);
    if !domains.is_empty() {
        let shown: Vec<&str> = domains.iter().take(DOMAINS).map(Domain::as_str).collect();
        let _ = writeln!(text, "search {}", shown.join(" "));
    }
    for server in servers.iter().take(SERVERS) {
        let _ = writeln!(text, "nameserver {server}");
    }
    if servers.len() > SERVERS {
        let _ = writeln!(text, "# The C library takes {SERVERS}; left out: {}", servers[SERVERS..].join(" "));
    }
    if servers.is_empty() {
        // The library asks this machine then, where nothing answers.
        text.push_str("# No server is known: names do not resolve.\n");
    }
    text
}
