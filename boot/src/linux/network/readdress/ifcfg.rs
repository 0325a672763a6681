//! Assignments of ifcfg files, Red Hat's (IPADDR0, PREFIX0, GATEWAY, DNS1, IPV6ADDR) and SUSE's (IPADDR_0, PREFIXLEN_0,
//! NETMASK_0), and of the files for the whole machine beside them.

use super::super::settings::{Edits, Setting, shell};
use super::site::{On, Site};
use super::values::{self, parse_network, parse_prefix, prefix_like};

pub(super) fn change(old: &[u8], path: &str, names: &[String], site: &mut Site<'_>) -> Option<Vec<u8>> {
    let mut file = File { settings: shell(old), edits: Edits::new(old) };
    if names.is_empty() {
        file.whole(path, site);
        return file.edits.finish();
    }
    let names: Vec<String> =
        names.iter().map(|name| name.split(':').next().unwrap_or(name).to_owned()).collect();
    let is_automatic = names.iter().any(|name| site.is_automatic(name));
    let mut on = site.on(&names, path);
    if on.dhcp() {
        match file.is_alias(path) {
            false => file.use_dhcp(&mut on),
            // A lease is for eth0: a file of eth0:1 has nothing left to say.
            true if is_automatic => {
                let before = file.v4_address().map(|(_, before)| before).unwrap_or_default();
                on.switched(&before);
                on.remove_file();
                return None;
            }
            true => on.keep_alias(path.rsplit('/').next().unwrap_or("").trim_start_matches("ifcfg-")),
        }
    }
    file.addresses(&mut on);
    file.rest(&mut on);
    file.servers(&mut on);
    file.edits.finish()
}

struct File<'a> {
    settings: Vec<Setting>,
    edits: Edits<'a>,
}

/// A key and what follows it: `IPADDR_0` is `IPADDR` and `_0`. What follows is no letter, or `_START` and `_END`.
fn suffix<'k>(key: &'k str, stem: &str) -> Option<&'k str> {
    let rest = key.strip_prefix(stem)?;
    let is_number = rest.bytes().all(|byte| byte.is_ascii_digit());
    (is_number || rest.starts_with('_')).then_some(rest)
}

/// What has an address of its own, and no companion for the prefix length.
const V6_LISTS: &[&str] = &["IPV6ADDR", "IPV6ADDR_SECONDARIES"];

impl File<'_> {
    fn text(&self, setting: &Setting) -> &str {
        self.edits.text(&setting.value)
    }
    fn find(&self, key: &str) -> Option<&Setting> {
        // The last assignment counts, as in a shell.
        self.settings.iter().rev().find(|one| one.key == key)
    }
    fn has_variable(&self, setting: &Setting) -> bool {
        self.text(setting).contains(['$', '`'])
    }

    fn addresses(&mut self, on: &mut On<'_, '_>) {
        for setting in self.settings.clone() {
            let text = self.text(&setting).trim().to_owned();
            if text.is_empty() {
                continue;
            }
            if V6_LISTS.contains(&setting.key.as_str()) {
                let new: Vec<String> = text
                    .split_whitespace()
                    .map(|one| on.address_text(one, None).map_or_else(|| one.to_owned(), |(new, _)| new))
                    .collect();
                if new != text.split_whitespace().collect::<Vec<_>>() {
                    self.edits.set(&setting.value, &new.join(" "));
                }
                continue;
            }
            let Some(suffix) = suffix(&setting.key, "IPADDR") else { continue };
            if self.has_variable(&setting) {
                on.unclear(&format!("takes {} from a variable", setting.key));
                continue;
            }
            let companions: Vec<Setting> = ["PREFIX", "PREFIXLEN", "NETMASK"]
                .iter()
                .filter_map(|stem| self.find(&format!("{stem}{suffix}")).cloned())
                .collect();
            let length = companions.iter().find_map(|one| parse_prefix(self.text(one)));
            let Some((new, host)) = on.address_text(&text, length) else {
                on.unclear(&format!("has {} {text:?}, which is no address", setting.key));
                continue;
            };
            // The length stands behind the address, or beside it.
            if new == text && (length.is_none() || length == host.prefix) {
                continue;
            }
            self.edits.set(&setting.value, &new);
            for companion in companions {
                if let (Some(prefix), true) = (host.prefix, parse_prefix(self.text(&companion)).is_some()) {
                    let like = prefix_like(self.text(&companion), prefix);
                    self.edits.set(&companion.value, &like);
                }
            }
            for (stem, text) in [("BROADCAST", values::broadcast(host)), ("NETWORK", values::network(host))] {
                let there = self.find(&format!("{stem}{suffix}")).cloned();
                if let (Some(there), Some(text)) = (there, text)
                    && !self.text(&there).is_empty()
                {
                    self.edits.set(&there.value, &text);
                }
            }
        }
    }

    fn rest(&mut self, on: &mut On<'_, '_>) {
        for setting in self.settings.clone() {
            let text = self.text(&setting).to_owned();
            if text.is_empty() || V6_LISTS.contains(&setting.key.as_str()) {
                continue;
            }
            let key = setting.key.as_str();
            if ["IPADDR", "PREFIX", "NETMASK", "BROADCAST", "NETWORK", "DNS"]
                .iter()
                .any(|stem| suffix(key, stem).is_some())
            {
                continue;
            }
            if suffix(key, "GATEWAY").is_some() || key == "IPV6_DEFAULTGW" {
                if let Some(new) = on.gateway(&text) {
                    self.edits.set(&setting.value, &new);
                }
            } else if ["DOMAIN", "SEARCH"].contains(&key) {
                let words: Vec<&str> = text.split_whitespace().collect();
                if let Some(new) = on.search(&words) {
                    self.edits.set(&setting.value, &new.join(" "));
                }
            } else if suffix(key, "REMOTE_IPADDR").is_some() || key == "SRCADDR" {
                let new = match key {
                    "SRCADDR" => on.network_text(&text),
                    _ => on.peer(&text),
                };
                if let Some(new) = new {
                    self.edits.set(&setting.value, &new);
                }
            } else {
                on.leftover(&text);
            }
        }
    }

    /// `DNS1`, `DNS2` …: one server each. As many lines as there are servers.
    fn servers(&mut self, on: &mut On<'_, '_>) {
        let mut lines: Vec<Setting> = Vec::new();
        for setting in &self.settings {
            if setting
                .key
                .strip_prefix("DNS")
                .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
                && !self.text(setting).is_empty()
            {
                lines.push(setting.clone());
            }
        }
        let Some(last) = lines.last().cloned() else { return };
        let old: Vec<String> = lines.iter().map(|one| self.text(one).to_owned()).collect();
        let Some(new) = on.servers(&old.iter().map(String::as_str).collect::<Vec<_>>(), None) else { return };
        for (at, line) in lines.iter().enumerate() {
            match new.get(at) {
                Some(server) => self.edits.set(&line.value, server),
                None => self.edits.remove(&line.line),
            }
        }
        let more: Vec<String> = new
            .iter()
            .enumerate()
            .skip(lines.len())
            .map(|(at, server)| format!("DNS{}={server}", at.saturating_add(1)))
            .collect();
        if !more.is_empty() {
            self.edits.insert_after(&last.line, &more.join("\n"));
        }
    }

    /// The file of `eth0:1`.
    fn is_alias(&self, path: &str) -> bool {
        let file = path.rsplit('/').next().unwrap_or("");
        file.contains(':') || self.find("DEVICE").is_some_and(|one| self.text(one).contains(':'))
    }

    /// The first IPv4 address, and how it is written with its prefix length.
    fn v4_address(&self) -> Option<(Setting, String)> {
        let is_it = |one: &&Setting| {
            let text = self.text(one);
            suffix(&one.key, "IPADDR").is_some() && !text.contains(':') && !text.is_empty()
        };
        let address = self.settings.iter().find(is_it)?.clone();
        let mut text = self.text(&address).to_owned();
        let suffix_of = suffix(&address.key, "IPADDR").unwrap_or("").to_owned();
        let length = ["PREFIX", "PREFIXLEN", "NETMASK"]
            .iter()
            .filter_map(|stem| self.find(&format!("{stem}{suffix_of}")))
            .find_map(|one| parse_prefix(self.text(one)));
        if let (false, Some(length)) = (text.contains('/'), length) {
            text.push_str(&format!("/{length}"));
        }
        Some((address, text))
    }

    /// BOOTPROTO, and no address, mask or gateway.
    fn use_dhcp(&mut self, on: &mut On<'_, '_>) {
        let method = self.find("BOOTPROTO").cloned();
        let method_text = method.as_ref().map(|one| self.text(one).to_ascii_lowercase()).unwrap_or_default();
        if method_text.contains("dhcp") || method_text == "bootp" {
            on.switched("");
            return;
        }
        let Some((address, before)) = self.v4_address() else { return };
        match &method {
            Some(method) => self.edits.set(&method.value, "dhcp"),
            None => self.edits.insert_after(&address.line, "BOOTPROTO=dhcp"),
        }
        let mut kept = Vec::new();
        for setting in std::mem::take(&mut self.settings) {
            let stems = ["IPADDR", "PREFIX", "PREFIXLEN", "NETMASK", "BROADCAST", "NETWORK", "GATEWAY"];
            let mut goes = stems.iter().any(|stem| suffix(&setting.key, stem).is_some());
            goes |= suffix(&setting.key, "DNS").is_some() && !on.has_servers();
            // SUSE writes IPv6 addresses under the same key.
            if goes && !self.text(&setting).contains(':') {
                self.edits.remove(&setting.line);
            } else {
                kept.push(setting);
            }
        }
        self.settings = kept;
        on.switched(&before);
    }

    /// /etc/sysconfig/network of Red Hat, /etc/sysconfig/network/config of SUSE.
    fn whole(&mut self, path: &str, site: &mut Site<'_>) {
        for setting in self.settings.clone() {
            let text = self.text(&setting).to_owned();
            if text.trim().is_empty() {
                continue;
            }
            let words: Vec<&str> = text.split_whitespace().collect();
            let new = match setting.key.as_str() {
                "GATEWAY" | "IPV6_DEFAULTGW" => {
                    let mut on = site.beside(&text, path);
                    if on.is_replaced(parse_network("default", None), Some(&text)) {
                        self.edits.remove(&setting.line);
                        continue;
                    }
                    on.gateway(&text)
                }
                "NETCONFIG_DNS_STATIC_SERVERS" => {
                    site.whole(path).servers(&words, None).map(|new| new.join(" "))
                }
                "NETCONFIG_DNS_STATIC_SEARCHLIST" => site.whole(path).search(&words).map(|new| new.join(" ")),
                _ => {
                    site.whole(path).leftover(&text);
                    None
                }
            };
            if let Some(new) = new {
                self.edits.set(&setting.value, &new);
            }
        }
    }
}
