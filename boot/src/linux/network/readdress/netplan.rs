//! netplan's devices: `addresses`, `gateway4`, `routes`, `nameservers`, `routing-policy`, `dhcp4`, and the keys of
//! NetworkManager's that it passes through. Values are replaced where they stand, so that comments and both styles of YAML
//! stay.

use super::super::netplan::KINDS;
use super::super::settings::Edits;
use super::super::yaml::{Entry, Value, parse};
use super::keyfile;
use super::site::{On, Site};
use super::values::parse_network;
use std::ops::Range;

pub(super) fn change(old: &[u8], path: &str, _names: &[String], site: &mut Site<'_>) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(old).ok()?;
    let root = parse(text).ok()?;
    let mut file = File { text, edits: Edits::new(old) };
    for kind in root.get("network")?.entries().iter().filter(|kind| KINDS.contains(&kind.key.as_str())) {
        for device in kind.value.entries() {
            let names = [site.called.get(&device.key).unwrap_or(&device.key).clone()];
            let mut on = site.on(&names, path);
            file.device(&device.value, &mut on);
        }
    }
    file.edits.finish()
}

struct File<'a> {
    text: &'a str,
    edits: Edits<'a>,
}

impl File<'_> {
    fn device(&mut self, device: &Value, on: &mut On<'_, '_>) {
        let dhcp = on.dhcp() && self.use_dhcp(device, on);
        for entry in device.entries() {
            match entry.key.as_str() {
                "addresses" => {
                    for item in entry.value.items() {
                        // `- 10.1.0.5/24:` with options below it.
                        let (address, place) = match item.entries().first() {
                            Some(entry) => (entry.key.as_str(), &entry.place),
                            None => (item.text().unwrap_or(""), item.range()),
                        };
                        if dhcp && !address.contains(':') {
                            continue;
                        }
                        match on.address_text(address, None) {
                            Some((new, _)) => self.set(place, address, &new, on),
                            None => on.unclear("has an address that is not plainly written"),
                        }
                    }
                }
                "gateway4" | "gateway6" if !(dhcp && entry.key == "gateway4") => {
                    let old = entry.value.text().unwrap_or("");
                    if let Some(new) = on.gateway(old) {
                        self.set(entry.value.range(), old, &new, on);
                    }
                }
                "routes" => {
                    let kept = entry.value.items().iter().filter(|route| !(dhcp && is_default_v4(route)));
                    kept.for_each(|route| self.route(route, on));
                }
                "routing-policy" => {
                    for rule in entry.value.items() {
                        for value in ["from", "to"].iter().filter_map(|key| rule.get(key)) {
                            let old = value.text().unwrap_or("");
                            if let Some(new) = on.network_text(old) {
                                self.set(value.range(), old, &new, on);
                            }
                        }
                    }
                }
                "nameservers" => self.nameservers(&entry.value, dhcp, on),
                "networkmanager" => self.passthrough(&entry.value, dhcp, on),
                _ => leftover(&entry.value, on),
            }
        }
    }

    /// Keys of NetworkManager's: `ipv4.address1`. They count more than what netplan makes of its own.
    fn passthrough(&mut self, value: &Value, dhcp: bool, on: &mut On<'_, '_>) {
        for entry in value.entries().iter().filter(|entry| entry.key != "passthrough") {
            leftover(&entry.value, on);
        }
        let Some(keys) = value.get("passthrough") else { return };
        let gone = if dhcp { self.replaced(keys, on) } else { Vec::new() };
        for entry in keys.entries().iter().filter(|entry| !gone.contains(&entry.key.as_str())) {
            let text = entry.value.text().unwrap_or("");
            let new = match entry.key.split_once('.') {
                Some(("ipv4", "method")) if dhcp && text == "manual" => Some("auto".to_owned()),
                Some((section @ ("ipv4" | "ipv6"), key)) => keyfile::value(key, text, section == "ipv4", on),
                _ => {
                    leftover(&entry.value, on);
                    None
                }
            };
            if let Some(new) = new {
                self.set(entry.value.range(), text, &new, on);
            }
        }
    }

    /// Keys that DHCP replaces, taken out.
    fn replaced<'k>(&mut self, keys: &'k Value, on: &mut On<'_, '_>) -> Vec<&'k str> {
        let find = |key: &str| keys.get(&format!("ipv4.{key}")).and_then(Value::text);
        let goes = |entry: &&Entry| {
            entry
                .key
                .strip_prefix("ipv4.")
                .is_some_and(|key| keyfile::is_static(key, on) || keyfile::is_default(key, find, on))
        };
        let gone: Vec<&Entry> = keys.entries().iter().filter(goes).collect();
        // A map without entries is none.
        let is_all = gone.len() == keys.entries().len();
        if !gone.is_empty() && (is_all || !gone.iter().all(|entry| is_line(self.text, entry))) {
            on.unclear(
                "passes addresses through to NetworkManager in a way in which they were not taken out",
            );
            return Vec::new();
        }
        gone.iter().for_each(|entry| self.remove(entry));
        gone.iter().map(|entry| entry.key.as_str()).collect()
    }

    fn route(&mut self, route: &Value, on: &mut On<'_, '_>) {
        let text = |key: &str| route.get(key).and_then(Value::text);
        let to = text("to").and_then(|to| parse_network(to, None));
        if to.is_none() {
            return;
        }
        let (new_to, new_via) = on.route(to, text("via"));
        let new_from = text("from").and_then(|from| on.network_text(from));
        for (key, new) in [("to", new_to.map(|to| to.to_string())), ("via", new_via), ("from", new_from)] {
            if let (Some(value), Some(new)) = (route.get(key), new) {
                self.set(value.range(), value.text().unwrap_or(""), &new, on);
            }
        }
    }

    fn nameservers(&mut self, value: &Value, dhcp: bool, on: &mut On<'_, '_>) {
        for key in ["addresses", "search"] {
            let Some(list) = value.get(key) else { continue };
            if dhcp && key == "addresses" && !on.has_servers() {
                continue;
            }
            let old: Vec<&str> = list.items().iter().filter_map(Value::text).collect();
            if old.is_empty() || old.len() != list.items().len() {
                continue;
            }
            let new = match key {
                "addresses" => on.servers(&old, None),
                _ => on.search(&old),
            };
            if let Some(new) = new {
                self.list(list, &old, &new, on);
            }
        }
    }

    /// A list of other values, and perhaps of another length.
    fn list(&mut self, list: &Value, old: &[&str], new: &[String], on: &mut On<'_, '_>) {
        for ((item, old), new) in list.items().iter().zip(old).zip(new) {
            self.set(item.range(), old, new, on);
        }
        let Some(last) = list.items().last() else { return };
        let more: Vec<String> = new.iter().skip(old.len()).map(|value| quoted(value)).collect();
        if self.text.get(list.range().clone()).is_some_and(|text| text.starts_with('[')) {
            for value in more {
                self.edits.insert(last.range().end, &format!(", {value}"));
            }
            if let (Some(kept), true) =
                (new.len().checked_sub(1).and_then(|at| list.items().get(at)), new.len() < old.len())
            {
                self.edits.remove(&(kept.range().end..last.range().end));
            }
            return;
        }
        let line = self.lines(last.range());
        let start = self.text.get(line.start..last.range().start).unwrap_or("");
        if start.trim() != "-" {
            on.unclear("has a list that is not plainly written");
            return;
        }
        for value in more {
            self.edits.insert_after(&line, &format!("{start}{value}"));
        }
        for item in list.items().iter().skip(new.len()) {
            let line = self.lines(item.range());
            self.edits.remove(&line);
        }
    }

    /// Replaces a scalar, if it stands there as it is meant; in its quotes, or in quotes where it needs them now.
    fn set(&mut self, place: &Range<usize>, old: &str, new: &str, on: &mut On<'_, '_>) {
        if old == new {
            return;
        }
        let there = self.text.get(place.clone()).unwrap_or("");
        let written = match there.chars().next() {
            Some(quote @ ('"' | '\'')) if there == format!("{quote}{old}{quote}") => {
                format!("{quote}{new}{quote}")
            }
            _ if there.trim_end() == old => {
                match old.contains(':') && !new.starts_with(':') && !new.ends_with(':') {
                    true => new.to_owned(),
                    false => quoted(new),
                }
            }
            _ => {
                on.unclear(&format!("has {old} written in a way that is not edited"));
                return;
            }
        };
        self.edits.set(&(place.start..place.start + there.trim_end().len()), &written);
    }

    /// The lines that hold a range.
    fn lines(&self, range: &Range<usize>) -> Range<usize> {
        let start = self.text.get(..range.start).and_then(|text| text.rfind('\n')).map_or(0, |at| at + 1);
        let rest = self.text.get(range.end..).unwrap_or("");
        start..range.end + rest.find('\n').map_or(rest.len(), |at| at + 1)
    }

    /// True where the device gets its IPv4 address by DHCP from now on, and its own are taken out.
    fn use_dhcp(&mut self, device: &Value, on: &mut On<'_, '_>) -> bool {
        let is_yes = |value: &str| ["true", "yes", "on", "y"].contains(&value.to_ascii_lowercase().as_str());
        let method = device.entry("dhcp4");
        if method.is_some_and(|entry| entry.value.text().is_some_and(is_yes)) {
            on.switched("");
            return true;
        }
        let Some(addresses) = device.entry("addresses") else { return passes_manual(device, on) };
        let address = |item: &Value| match item.entries().first() {
            Some(entry) => entry.key.clone(),
            None => item.text().unwrap_or("").to_owned(),
        };
        let all: Vec<String> = addresses.value.items().iter().map(address).collect();
        let Some(before) = all.iter().find(|one| !one.contains(':')) else { return false };
        // Taking entries out is done by lines.
        let is_lines = |entry: &Entry| is_line(self.text, entry);
        let is_flow = self.text.get(device.range().clone()).is_none_or(|text| text.starts_with('{'));
        if is_flow || !device.entries().iter().all(is_lines) || all.iter().any(|one| one.contains(':')) {
            on.unclear("describes a device in a way in which it was not switched to DHCP");
            return false;
        }
        let end = addresses.value.end(self.text);
        match method {
            Some(method) => {
                self.edits.set(method.value.range(), "true");
                self.remove(addresses);
            }
            None => self.edits.set(&(addresses.place.start..end), "dhcp4: true"),
        }
        device.entry("gateway4").iter().for_each(|entry| self.remove(entry));
        if let Some(routes) = device.entry("routes") {
            let (gone, kept): (Vec<&Value>, Vec<&Value>) =
                routes.value.items().iter().partition(|one| is_default_v4(one));
            match kept.is_empty() {
                true => self.remove(routes),
                false => gone.iter().for_each(|route| {
                    let lines = self.lines(&(route.range().start..route.end(self.text)));
                    self.edits.remove(&lines);
                }),
            }
        }
        if let Some(servers) = device.entry("nameservers").filter(|_| !on.has_servers()) {
            match servers.value.entries().len() {
                1 if servers.value.get("addresses").is_some() => self.remove(servers),
                _ => {
                    let list = servers.value.entry("addresses").filter(|entry| is_line(self.text, entry));
                    list.iter().for_each(|entry| self.remove(entry));
                }
            }
        }
        on.switched(before);
        true
    }

    fn remove(&mut self, entry: &Entry) {
        let lines = self.lines(&(entry.place.start..entry.value.end(self.text).max(entry.place.end)));
        self.edits.remove(&lines);
    }
}

/// True for a device that is NetworkManager's alone, and whose fixed address goes.
fn passes_manual(device: &Value, on: &mut On<'_, '_>) -> bool {
    let Some(keys) = device.get("networkmanager").and_then(|value| value.get("passthrough")) else {
        return false;
    };
    let is_manual = keys.get("ipv4.method").and_then(Value::text) == Some("manual");
    let mut entries = keys.entries().iter();
    let address = entries.find(|entry| entry.key.strip_prefix("ipv4.").is_some_and(keyfile::is_address));
    let before = address.and_then(|entry| entry.value.text()).unwrap_or("manual");
    if is_manual {
        on.switched(before.split([',', ';']).next().unwrap_or(before));
    }
    is_manual
}

/// Addresses anywhere in what is not edited.
fn leftover(value: &Value, on: &mut On<'_, '_>) {
    if let Some(text) = value.text() {
        on.leftover(text);
    }
    for entry in value.entries() {
        on.leftover(&entry.key);
        leftover(&entry.value, on);
    }
    value.items().iter().for_each(|item| leftover(item, on));
}

fn is_line(text: &str, entry: &Entry) -> bool {
    let before = text.get(..entry.place.start).unwrap_or("");
    before.rsplit('\n').next().is_some_and(|start| start.trim().is_empty())
}

fn is_default_v4(route: &Value) -> bool {
    let text = |key: &str| route.get(key).and_then(Value::text).unwrap_or("");
    ["default", "0.0.0.0/0"].contains(&text("to")) && !text("via").contains(':')
}

/// IPv6 addresses look like maps where they end or begin with a colon.
fn quoted(value: &str) -> String {
    if value.contains(':') { format!("\"{value}\"") } else { value.to_owned() }
}
