//! Sections `ipv4` and `ipv6` of NetworkManager's keyfiles (nm-settings-keyfile(5)).

use super::super::settings::{Edits, Setting, ini};
use super::site::{On, Site, parse_network};

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
            value(setting, section == "ipv4", &mut edits, &mut on);
        }
    }
    edits.finish()
}

/// A key with a number behind it, or none: `address1`, `address`.
fn is_numbered(key: &str, stem: &str) -> bool {
    key.strip_prefix(stem).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

fn value(setting: &Setting, is_v4: bool, edits: &mut Edits<'_>, on: &mut On<'_, '_>) {
    let text = edits.text(&setting.value).to_owned();
    let key = setting.key.to_ascii_lowercase();
    let new = if is_numbered(&key, "address") {
        address(&text, on)
    } else if key == "addresses" {
        // An older list: `10.1.0.5/24,10.1.0.1;…`, or three parts with a number for the prefix.
        each(&text, ';', |part| address(part, on))
    } else if is_numbered(&key, "route") {
        route(&text, on)
    } else if key == "routes" {
        each(&text, ';', |part| route(part, on))
    } else if key.starts_with("route") && key.ends_with("_options") {
        each(&text, ',', |part| {
            let (name, value) = part.split_once('=')?;
            (name.trim() == "src").then(|| on.network_text(value))?.map(|new| format!("{name}={new}"))
        })
    } else if key == "gateway" {
        on.gateway(&text)
    } else if key == "dns" {
        list(&text, |words| on.servers(words, Some(is_v4)))
    } else if key == "dns-search" {
        list(&text, |words| on.search(words))
    } else {
        on.leftover(&text);
        None
    };
    match new {
        // An empty list is no list.
        Some(new) if new.is_empty() => edits.remove(&setting.line),
        Some(new) => edits.set(&setting.value, &new),
        None => {}
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

fn use_dhcp(own: &mut Vec<&Setting>, edits: &mut Edits<'_>, on: &mut On<'_, '_>) {
    let Some(method) = own.iter().copied().find(|one| one.key == "method") else { return };
    match edits.text(&method.value) {
        "auto" => on.switched(""),
        "manual" => {
            edits.set(&method.value, "auto");
            let mut before = String::new();
            own.retain(|one| {
                let is_address = is_numbered(&one.key, "address") || one.key == "addresses";
                if is_address && before.is_empty() {
                    before = edits.text(&one.value).split(',').next().unwrap_or("").to_owned();
                }
                let goes = is_address || one.key == "gateway" || one.key == "dns" && !on.has_servers();
                if goes {
                    edits.remove(&one.line);
                }
                !goes
            });
            on.switched(if before.is_empty() { "manual" } else { &before });
        }
        _ => {}
    }
}
