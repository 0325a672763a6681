//! /etc/network/interfaces and what it sources: stanzas of ifupdown and ifupdown-ng.

use super::super::settings::{Edits, lines};
use super::routes;
use super::site::{On, Site};
use super::values::{self, parse_host, parse_prefix, prefix_like};
use crate::linux::text;
use crate::network_map::Host;
use std::collections::BTreeSet;
use std::ops::Range;

/// A line, or several that a backslash joins: its words and all of it.
struct Line {
    words: Vec<Range<usize>>,
    whole: Range<usize>,
}

pub(super) fn change(old: &[u8], path: &str, _names: &[String], site: &mut Site<'_>) -> Option<Vec<u8>> {
    let mut edits = Edits::new(old);
    let mut stanza: Vec<&Line> = Vec::new();
    let all = joined(old);
    let mut marks: Vec<&Line> = Vec::new();
    for line in &all {
        let keyword = line.words.first().map_or("", |word| edits.text(word));
        let begins = ["iface", "auto", "mapping", "source", "source-directory", "rename", "template"]
            .contains(&keyword)
            || keyword.starts_with("allow-")
            || keyword.starts_with("no-");
        if begins {
            change_stanza(&stanza, &mut edits, path, site);
            stanza.clear();
        }
        if keyword == "auto" || keyword.starts_with("allow-") {
            marks.push(line);
        }
        if keyword == "iface" || !stanza.is_empty() && !keyword.is_empty() {
            stanza.push(line);
        }
    }
    change_stanza(&stanza, &mut edits, path, site);
    // Names that are to be brought up, without those that went.
    let named = all.iter().filter_map(|line| {
        let word = |n: usize| line.words.get(n).map(|word| edits.text(word));
        word(1).filter(|_| word(0) == Some("iface"))
    });
    let named: BTreeSet<&str> = named.collect();
    for line in marks {
        let gone = |word: &&Range<usize>| {
            let name = edits.text(word);
            let base = name.split_once(':').map(|(base, _)| base);
            site.is_gone(name) || base.is_some_and(|base| site.is_automatic(base)) && !named.contains(name)
        };
        let gone: Vec<Range<usize>> = line.words.iter().skip(1).filter(gone).cloned().collect();
        if gone.len() + 1 == line.words.len() && !gone.is_empty() {
            edits.remove(&line.whole);
            continue;
        }
        for word in gone {
            let before = old.get(..word.start).unwrap_or_default();
            let blanks = before.iter().rev().take_while(|byte| b" \t".contains(byte)).count();
            edits.remove(&(word.start - blanks..word.end));
        }
    }
    edits.finish()
}

fn joined(old: &[u8]) -> Vec<Line> {
    let mut found: Vec<Line> = Vec::new();
    let mut is_open = false;
    for (body, whole) in lines(old) {
        let bytes = old.get(body.clone()).unwrap_or_default();
        if !is_open && text::is_comment(bytes) {
            continue;
        }
        let continues = bytes.trim_ascii_end().ends_with(b"\\");
        let mut words = text::words(bytes);
        if continues && let Some(last) = words.last_mut() {
            last.end -= 1;
        }
        words.retain(|word| !word.is_empty());
        let words = words.into_iter().map(|word| body.start + word.start..body.start + word.end);
        match found.last_mut().filter(|_| is_open) {
            Some(line) => {
                line.words.extend(words);
                line.whole.end = whole.end;
            }
            None => found.push(Line { words: words.collect(), whole }),
        }
        is_open = continues;
    }
    found
}

fn change_stanza(stanza: &[&Line], edits: &mut Edits<'_>, path: &str, site: &mut Site<'_>) {
    let Some((head, options)) = stanza.split_first() else { return };
    let word = |n: usize| head.words.get(n).map(|word| edits.text(word)).unwrap_or("");
    let (name, family, method) = (word(1), word(2), word(3));
    if name == "lo" || method == "loopback" {
        return;
    }
    // `eth0:1` is a second address of eth0.
    let names = [name.split(':').next().unwrap_or(name).to_owned()];
    let is_automatic = names.iter().any(|name| site.is_automatic(name));
    let mut on = site.on(&names, path);
    let is_v4 = match family {
        "inet" => Some(true),
        "inet6" => Some(false),
        _ => None,
    };
    let mut stanza = Stanza { edits, options: options.to_vec(), host: None, had_servers: false };
    if is_v4 != Some(false) && on.dhcp() {
        match name.contains(':') {
            false => stanza.use_dhcp(head, method, &mut on),
            // A lease is for eth0, and what it leaves out is gone.
            true if is_automatic => {
                stanza.drop_alias(head, name, &mut on);
                return;
            }
            true => on.keep_alias(name),
        }
    }
    // The mask may stand before its address.
    let netmask = stanza.find("netmask").and_then(|line| parse_prefix(stanza.value(line)));
    for line in stanza.options.clone() {
        stanza.option(line, netmask, &mut on);
    }
    // What follows from the address.
    let Some(host) = stanza.host else { return };
    for (key, text) in [("broadcast", values::broadcast(host)), ("network", values::network(host))] {
        if let (Some(line), Some(text)) = (stanza.find(key), text)
            && parse_host(stanza.value(line)).is_some()
            && let Some(range) = line.words.get(1)
        {
            stanza.edits.set(range, &text);
        }
    }
    if let (Some(line), Some(prefix)) = (stanza.find("netmask"), host.prefix)
        && let Some(range) = line.words.get(1)
    {
        let text = prefix_like(stanza.value(line), prefix);
        stanza.edits.set(range, &text);
    }
}

struct Stanza<'e, 'o> {
    edits: &'e mut Edits<'o>,
    options: Vec<&'e Line>,
    /// The first address, as it will be, where it changes.
    host: Option<Host>,
    had_servers: bool,
}

impl<'e, 'o> Stanza<'e, 'o> {
    fn key(&self, line: &Line) -> String {
        line.words.first().map(|word| self.edits.text(word).replace('_', "-")).unwrap_or_default()
    }
    fn value(&self, line: &Line) -> &'o str {
        line.words.get(1).map_or("", |word| self.edits.text(word))
    }
    fn find(&self, key: &str) -> Option<&'e Line> {
        self.options.iter().copied().find(|line| self.key(line) == key)
    }

    fn option(&mut self, line: &Line, netmask: Option<u8>, on: &mut On<'_, '_>) {
        let Some(value) = line.words.get(1) else { return };
        let values: Vec<&str> = line.words.iter().skip(1).map(|word| self.edits.text(word)).collect();
        // All the values as one piece.
        let all = value.start..line.words.last().map_or(value.end, |last| last.end);
        match self.key(line).as_str() {
            "address" => {
                let text = self.edits.text(value);
                match on.address_text(text, netmask) {
                    Some((new, host)) => {
                        if new != text {
                            self.edits.set(value, &new);
                            self.host = self.host.or(Some(host));
                        }
                    }
                    None => on.unclear(&format!("has the address {text:?}, which is none")),
                }
            }
            "gateway" => {
                if let Some(new) = on.gateway(self.edits.text(value)) {
                    self.edits.set(value, &new);
                }
            }
            "pointopoint" | "endpoint" => {
                if let Some(new) = on.peer(self.edits.text(value)) {
                    self.edits.set(value, &new);
                }
            }
            "dns-nameservers" | "dns-nameserver" if self.had_servers && on.has_servers() => {
                self.edits.remove(&line.whole);
            }
            key @ ("dns-nameservers" | "dns-nameserver") => {
                self.had_servers = true;
                if let Some(new) = on.servers(&values, None) {
                    if key == "dns-nameserver"
                        && new.len() > 1
                        && let Some(word) = line.words.first()
                    {
                        self.edits.set(word, "dns-nameservers");
                    }
                    self.edits.set(&all, &new.join(" "));
                }
            }
            "dns-search" | "dns-domain" => {
                if let Some(new) = on.search(&values) {
                    self.edits.set(&all, &new.join(" "));
                }
            }
            "up" | "post-up" | "pre-up" | "down" | "pre-down" | "post-down" => {
                match routes::command(&values) {
                    Some(command) if command.is_replaced(&values, on) => self.edits.remove(&line.whole),
                    Some(command) => {
                        for (n, new) in command.change(&values, on) {
                            if let Some(range) = line.words.get(n + 1) {
                                self.edits.set(range, &new);
                            }
                        }
                    }
                    None => on.leftover(&values.join(" ")),
                }
            }
            "netmask" | "broadcast" | "network" | "hwaddress" => {}
            _ => on.leftover(&values.join(" ")),
        }
    }

    /// The whole stanza goes.
    fn drop_alias(&mut self, head: &Line, name: &str, on: &mut On<'_, '_>) {
        let before = self.find("address").map(|line| self.value(line).to_owned()).unwrap_or_default();
        for line in self.options.iter().copied().chain([head]) {
            self.edits.remove(&line.whole);
        }
        on.goes(name, &before);
    }

    /// A static stanza becomes one of DHCP: the method, and no line that only a static one has.
    fn use_dhcp(&mut self, head: &Line, method: &str, on: &mut On<'_, '_>) {
        let is_v4 = |line: &Line| self.key(line) == "address" && !self.value(line).contains(':');
        let is_dhcp = method == "dhcp"
            || self.options.iter().any(|line| self.key(line) == "use" && self.value(line) == "dhcp");
        if is_dhcp {
            on.switched("");
            return;
        }
        let Some(address) = self.options.iter().copied().find(|line| is_v4(line)) else { return };
        let before = self.value(address).to_owned();
        let mut is_said = false;
        if method == "static"
            && let Some(range) = head.words.get(3)
        {
            self.edits.set(range, "dhcp");
            is_said = true;
        }
        let mut kept = Vec::new();
        for line in self.options.clone() {
            let is_static = match self.key(line).as_str() {
                "address" | "gateway" => !self.value(line).contains(':'),
                "netmask" => self.value(line).contains('.') || is_said,
                "broadcast" | "network" | "pointopoint" => true,
                "dns-nameservers" | "dns-nameserver" => !on.has_servers(),
                _ => false,
            };
            if !is_static {
                kept.push(line);
                continue;
            }
            // ifupdown-ng says it by an option.
            if !is_said && let (Some(first), Some(last)) = (line.words.first(), line.words.last()) {
                self.edits.set(&(first.start..last.end), "use dhcp");
                is_said = true;
                continue;
            }
            self.edits.remove(&line.whole);
        }
        on.switched(&before);
        self.options = kept;
    }
}
