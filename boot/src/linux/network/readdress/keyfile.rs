//! Sections `ipv4` and `ipv6` of NetworkManager's keyfiles (nm-settings-keyfile(5)), and the same keys where netplan passes
//! them through. Addresses in other sections are for others to read, and are only looked at.

use super::super::settings::{Edits, Setting, ini};
use super::routes::Command;
use super::site::{On, Site};
use super::values::parse_network;

pub(super) fn change(old: &[u8], path: &str, names: &[String], site: &mut Site<'_>) -> Option<Vec<u8>> {
    let mut edits = Edits::new(old);
    let settings = ini(old);
    let mut on = site.on(names, path);
    for section in ["ipv4", "ipv6"] {
        let mut own: Vec<&Setting> = settings.iter().filter(|one| one.section == section).collect();
        if section == "ipv4" && on.dhcp() {
            use_dhcp(&mut own, &mut edits, &mut on);
        }
        for setting in own {
            match value(&setting.key, edits.text(&setting.value), section == "ipv4", &mut on) {
                // An empty list is no list.
                Some(new) if new.is_empty() => edits.remove(&setting.line),
                Some(new) => edits.set(&setting.value, &new),
                None => {}
            }
        }
    }
    for setting in settings.iter().filter(|one| !["ipv4", "ipv6"].contains(&one.section.as_str())) {
        on.leftover(edits.text(&setting.value));
    }
    edits.finish()
}

/// A key with a number behind it, or none: `address1`, `address`.
fn is_numbered(key: &str, stem: &str) -> bool {
    key.strip_prefix(stem).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What the value of a key becomes, where it changes.
pub(super) fn value(key: &str, text: &str, is_v4: bool, on: &mut On<'_, '_>) -> Option<String> {
    let key = key.to_ascii_lowercase();
    if is_numbered(&key, "address") {
        address(text, on)
    } else if key == "addresses" {
        // An older list: `10.1.0.5/24,10.1.0.1;…`, or three parts with a number for the prefix.
        each(text, ';', |part| address(part, on))
    } else if is_numbered(&key, "route") {
        route(text, on)
    } else if key == "routes" {
        each(text, ';', |part| route(part, on))
    } else if is_numbered(&key, "routing-rule") {
        rule(text, on)
    } else if key.starts_with("route") && key.ends_with("_options") {
        each(text, ',', |part| {
            let (name, value) = part.split_once('=')?;
            (name.trim() == "src").then(|| on.network_text(value))?.map(|new| format!("{name}={new}"))
        })
    } else if key == "gateway" {
        on.gateway(text)
    } else if key == "dns" {
        list(text, |words| on.servers(words, Some(is_v4)))
    } else if key == "dns-search" {
        list(text, |words| on.search(words))
    } else {
        on.leftover(text);
        None
    }
}

/// `10.1.0.5/24,10.1.0.1`
fn address(text: &str, on: &mut On<'_, '_>) -> Option<String> {
    let mut parts: Vec<String> = text.split(',').map(str::to_owned).collect();
    let first = parts.first_mut()?;
    match on.address_text(first.trim(), None) {
        Some((new, _)) if new != first.trim() => *first = new,
        Some(_) => {}
        None => on.unclear(&format!("has the address {text:?}, which is none")),
    }
    if let Some(gateway) = parts.get_mut(1)
        && let Some(new) = on.gateway(gateway.trim())
    {
        *gateway = new;
    }
    Some(parts.join(",")).filter(|new| new != text)
}

/// `10.9.0.0/16,10.1.0.9,100`
fn route(text: &str, on: &mut On<'_, '_>) -> Option<String> {
    let mut parts: Vec<String> = text.split(',').map(str::to_owned).collect();
    let to = parse_network(parts.first()?.trim(), None)?;
    let via = parts.get(1).map(|via| via.trim().to_owned()).filter(|via| !via.is_empty());
    let (new_to, new_via) = on.route(Some(to), via.as_deref());
    if let (Some(first), Some(new)) = (parts.first_mut(), new_to) {
        *first = new.to_string();
    }
    if let (Some(second), Some(new)) = (parts.get_mut(1), new_via) {
        *second = new;
    }
    Some(parts.join(",")).filter(|new| new != text)
}

/// `priority 5 from 10.1.0.0/24 table 7`: as `ip rule` takes it.
fn rule(text: &str, on: &mut On<'_, '_>) -> Option<String> {
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let full: Vec<(usize, &str)> = text.split(' ').enumerate().filter(|(_, word)| !word.is_empty()).collect();
    let values: Vec<&str> = full.iter().map(|(_, word)| *word).collect();
    for (n, new) in Command::rule(&values).change(&values, on) {
        if let Some(word) = full.get(n).and_then(|(at, _)| words.get_mut(*at)) {
            *word = new;
        }
    }
    Some(words.join(" ")).filter(|new| new != text)
}

/// Each part of a list, the separators as they are.
fn each(text: &str, separator: char, mut change: impl FnMut(&str) -> Option<String>) -> Option<String> {
    let parts: Vec<String> = text
        .split(separator)
        .map(|part| {
            let new = if part.trim().is_empty() { None } else { change(part) };
            new.unwrap_or_else(|| part.to_owned())
        })
        .collect();
    Some(parts.join(&separator.to_string())).filter(|new| new != text)
}

/// A list as a whole, with or without a separator at its end.
fn list(text: &str, change: impl FnOnce(&[&str]) -> Option<Vec<String>>) -> Option<String> {
    let separator = if text.contains(',') && !text.contains(';') { "," } else { ";" };
    let words: Vec<&str> = text.split([';', ',']).map(str::trim).filter(|word| !word.is_empty()).collect();
    let new = change(&words)?.join(separator);
    let end = if text.trim_end().ends_with(separator) && !new.is_empty() { separator } else { "" };
    Some(format!("{new}{end}"))
}

pub(super) fn is_address(key: &str) -> bool {
    is_numbered(key, "address") || key == "addresses"
}

/// True for a key of `ipv4` that goes with the address.
pub(super) fn is_static(key: &str, on: &On<'_, '_>) -> bool {
    is_address(key) || key == "gateway" || key == "dns" && !on.has_servers()
}

/// True for a default route that DHCP gives anew, and for its options. `find` tells what other keys of the section say.
pub(super) fn is_default<'t>(key: &str, find: impl Fn(&str) -> Option<&'t str>, on: &On<'_, '_>) -> bool {
    let key = key.strip_suffix("_options").unwrap_or(key);
    let mut parts = find(key).unwrap_or("").split(',').map(str::trim);
    let to = parts.next().and_then(|to| parse_network(to, None));
    let has_table = find(&format!("{key}_options")).is_some_and(|options| options.contains("table="));
    is_numbered(key, "route") && !has_table && on.is_replaced(to, parts.next())
}

fn use_dhcp(own: &mut Vec<&Setting>, edits: &mut Edits<'_>, on: &mut On<'_, '_>) {
    let values: Vec<(&str, &str)> =
        own.iter().map(|one| (one.key.as_str(), edits.text(&one.value))).collect();
    let find = |key: &str| values.iter().find(|(known, _)| *known == key).map(|(_, text)| *text);
    let Some(method) = own.iter().copied().find(|one| one.key == "method") else { return };
    let is_manual = match edits.text(&method.value) {
        "auto" => false,
        "manual" => true,
        _ => return,
    };
    let mut before = "";
    own.retain(|one| {
        if is_manual && is_address(&one.key) && before.is_empty() {
            before = edits.text(&one.value).split([',', ';']).next().unwrap_or("");
        }
        let goes = is_manual && is_static(&one.key, on) || is_default(&one.key, find, on);
        if goes {
            edits.remove(&one.line);
        }
        !goes
    });
    if is_manual {
        edits.set(&method.value, "auto");
    }
    on.switched(match is_manual {
        true if before.is_empty() => "manual",
        _ => before,
    });
}
