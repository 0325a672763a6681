//! systemd.network(5) files with their drop-ins, and resolved.conf(5).

use super::super::settings::{Edits, Setting, ini, lines};
use super::site::{On, Site};
use super::values::{self, parse_network};
use crate::network_map::Host;

pub(super) fn change(old: &[u8], path: &str, names: &[String], site: &mut Site<'_>) -> Option<Vec<u8>> {
    let mut edits = Edits::new(old);
    let mut settings = ini(old);
    let mut on = match names.is_empty() {
        true => site.whole(path),
        false => site.on(names, path),
    };
    if on.dhcp() {
        use_dhcp(&mut settings, &mut edits, &mut on);
    }
    lists(&settings, &mut edits, &mut on);
    // What a section says belongs together: an address and its broadcast, a route and its router.
    let mut hosts: Vec<(usize, Host)> = Vec::new();
    for setting in &settings {
        let text = edits.text(&setting.value).to_owned();
        let key = setting.key.to_ascii_lowercase();
        let new = match (setting.section.as_str(), key.as_str()) {
            _ if text.is_empty() => None,
            ("network" | "address", "address") => match on.address_text(&text, None) {
                Some((new, host)) if new != text => {
                    hosts.push((setting.number, host));
                    Some(new)
                }
                Some(_) => None,
                None => {
                    on.unclear(&format!("has the address {text:?}, which is none"));
                    None
                }
            },
            ("network", "gateway") => on.gateway(&text),
            ("address", "peer") => on.peer(&text),
            ("route", "destination") => {
                let via = find(&settings, setting.number, "gateway");
                let via = via.map(|one| edits.text(&one.value).to_owned());
                parse_network(&text, None)
                    .and_then(|to| on.route(Some(to), via.as_deref()).0)
                    .map(|to| to.to_string())
            }
            ("route", "gateway") => {
                let to = find(&settings, setting.number, "destination")
                    .and_then(|one| parse_network(edits.text(&one.value), None));
                on.route(to, Some(&text)).1
            }
            ("route", "preferredsource") | ("routingpolicyrule", "from" | "to") => on.network_text(&text),
            ("network" | "resolve", "dns" | "fallbackdns" | "domains") | ("address", "broadcast") => None,
            ("match", _) => None,
            _ => {
                on.leftover(&text);
                None
            }
        };
        if let Some(new) = new {
            edits.set(&setting.value, &new);
        }
    }
    for (number, host) in hosts {
        let there = find(&settings, number, "broadcast").filter(|one| edits.text(&one.value).contains('.'));
        if let (Some(there), Some(text)) = (there, values::broadcast(host)) {
            edits.set(&there.value, &text);
        }
    }
    edits.finish()
}

fn find<'s>(settings: &'s [Setting], number: usize, key: &str) -> Option<&'s Setting> {
    settings.iter().find(|one| one.number == number && one.key.eq_ignore_ascii_case(key))
}

/// Name servers and search domains: several in a line, or several lines. The first line gets the new list.
fn lists(settings: &[Setting], edits: &mut Edits<'_>, on: &mut On<'_, '_>) {
    for key in ["dns", "domains"] {
        let is_it = |one: &&Setting| {
            ["network", "resolve"].contains(&one.section.as_str())
                && one.key.eq_ignore_ascii_case(key)
                && !edits.text(&one.value).is_empty()
        };
        let all: Vec<&Setting> = settings.iter().filter(is_it).collect();
        let words: Vec<&str> = all.iter().flat_map(|one| edits.text(&one.value).split_whitespace()).collect();
        let Some((first, rest)) = all.split_first() else { continue };
        let explicit = match key {
            "dns" => on.has_servers(),
            _ => true,
        };
        let new = match key {
            "dns" => on.servers(&words, None),
            // `~.` and its like say which questions go here; they are no search domains.
            _ => {
                let (routing, search): (Vec<&str>, Vec<&str>) =
                    words.iter().copied().partition(|word| word.starts_with('~'));
                on.search(&search).map(|mut new| {
                    new.extend(routing.into_iter().map(str::to_owned));
                    new
                })
            }
        };
        let Some(new) = new else { continue };
        if explicit {
            edits.set(&first.value, &new.join(" "));
            rest.iter().for_each(|one| edits.remove(&one.line));
            continue;
        }
        // One by one: as many as before, each in its line.
        let mut left = new.into_iter();
        for one in &all {
            let count = edits.text(&one.value).split_whitespace().count();
            let own: Vec<String> = left.by_ref().take(count).collect();
            edits.set(&one.value, &own.join(" "));
        }
    }
}

fn use_dhcp(settings: &mut Vec<Setting>, edits: &mut Edits<'_>, on: &mut On<'_, '_>) {
    let is =
        |one: &Setting, section: &str, key: &str| one.section == section && one.key.eq_ignore_ascii_case(key);
    let is_v4 = |edits: &Edits<'_>, one: &Setting| {
        let text = edits.text(&one.value);
        text.contains('.') && !text.contains(':')
    };
    let method = settings.iter().find(|one| is(one, "network", "dhcp")).cloned();
    let method_text =
        method.as_ref().map(|one| edits.text(&one.value).to_ascii_lowercase()).unwrap_or_default();
    if ["yes", "true", "ipv4", "both", "1", "on"].contains(&method_text.as_str()) {
        on.switched("");
        return;
    }
    let is_address = |edits: &Edits<'_>, one: &Setting| {
        (is(one, "network", "address") || is(one, "address", "address")) && is_v4(edits, one)
    };
    let Some(address) = settings.iter().find(|one| is_address(edits, one)).cloned() else { return };
    let before = edits.text(&address.value).to_owned();
    // Whole sections that would be empty of sense, and lines of [Network].
    let is_default = |edits: &Edits<'_>, number: usize| {
        let to = find(settings, number, "destination").map(|one| edits.text(&one.value).to_owned());
        let via = find(settings, number, "gateway");
        to.is_none_or(|to| to == "0.0.0.0/0") && via.is_some_and(|via| is_v4(edits, via))
    };
    let mut numbers: Vec<usize> = settings
        .iter()
        .filter(|one| is(one, "address", "address") && is_v4(edits, one))
        .map(|one| one.number)
        .collect();
    numbers.extend(
        settings
            .iter()
            .filter(|one| one.section == "route" && is_default(edits, one.number))
            .map(|one| one.number),
    );
    let mut is_said = false;
    if let Some(method) = &method {
        edits.set(&method.value, if method_text == "ipv6" { "yes" } else { "ipv4" });
        is_said = true;
    }
    let mut kept = Vec::new();
    for one in std::mem::take(settings) {
        let goes = numbers.contains(&one.number)
            || one.section == "network"
                && (["address", "gateway"].contains(&one.key.to_ascii_lowercase().as_str())
                    && is_v4(edits, &one)
                    || one.key.eq_ignore_ascii_case("dns") && !on.has_servers());
        if !goes {
            kept.push(one);
            continue;
        }
        if !is_said && one.section == "network" {
            let key_start =
                one.line.start + edits.text(&one.line).len() - edits.text(&one.line).trim_start().len();
            edits.set(&(key_start..one.value.end), "DHCP=ipv4");
            is_said = true;
        } else {
            edits.remove(&one.line);
        }
    }
    *settings = kept;
    // A section that is left empty would be complained about.
    let mut number = 0;
    for (_, line) in lines(edits.bytes()) {
        let text = edits.text(&line).trim();
        number += usize::from(text.starts_with('[') && text.ends_with(']'));
        if text.starts_with('[') && numbers.contains(&number) {
            edits.remove(&line);
        }
    }
    if !is_said {
        // Addresses in sections of their own: the method goes into [Network].
        match settings.iter().find(|one| one.section == "network") {
            Some(one) => edits.insert_after(&one.line, "DHCP=ipv4"),
            None => edits.insert_after(&address.line, "[Network]\nDHCP=ipv4"),
        }
    }
    on.switched(&before);
}
