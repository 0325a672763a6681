//! `#cloud-config` (cloud-init's documentation, "User-data formats" and "Module reference"): what of it are settings.
//!
//! Taken are `hostname`, `fqdn`, `ssh_authorized_keys`, the same of `users`, `ntp` and `timezone`. Everything else has no
//! effect and is named, `keyboard` too: nothing in the image loads a layout. Scripts, archives of several parts and packed documents
//! are not looked into. **Nothing is run, installed or written because of it.**

use super::draft::{Draft, text};
use landfall_boot::linux::yaml::{self, Value};

/// Keys that say how cloud-init itself works, and nothing of a machine.
const IDLE: [&str; 3] = ["manage_etc_hosts", "preserve_hostname", "prefer_fqdn_over_hostname"];

/// Reads user data into `draft`.
pub(super) fn read(draft: &mut Draft, bytes: &[u8]) {
    let document = match text("user-data", bytes) {
        Ok(document) => document.trim_start(),
        Err(error) => {
            draft.note(format!("{error}: packed user data is not looked into"));
            return draft.unread("user-data");
        }
    };
    if document.trim().is_empty() {
        return;
    }
    if document.lines().next().map(str::trim_end) != Some("#cloud-config") {
        draft.note("user-data is no #cloud-config: nothing in it is heeded, and nothing is run");
        return draft.unread("user-data");
    }
    let root = match yaml::resolved(document) {
        Ok(root) => root,
        Err(why) => return draft.note(format!("user-data: {why}")),
    };
    let host =
        ["fqdn", "hostname"].iter().find_map(|key| root.get(key)?.text().filter(|text| !text.is_empty()));
    if let Some(name) = host {
        draft.settings.hostname = draft.value("user-data: hostname", name);
    }
    for entry in root.entries() {
        let value = &entry.value;
        match entry.key.as_str() {
            "hostname" | "fqdn" => {}
            "ssh_authorized_keys" => keys(draft, value),
            "users" => users(draft, value),
            "user" => user(draft, "user", value),
            "ntp" => ntp(draft, value),
            "timezone" => match value.text() {
                Some(zone) => draft.settings.time_zone = draft.value("user-data: timezone", zone),
                None => draft.unread("timezone"),
            },
            key if IDLE.contains(&key) => {}
            key => draft.unread(key),
        }
    }
}

fn keys(draft: &mut Draft, value: &Value) {
    let texts = value.items().iter().chain([value]).filter_map(Value::text);
    for text in texts.flat_map(str::lines) {
        draft.ssh_key("user-data: ssh_authorized_keys", text);
    }
}

fn users(draft: &mut Draft, value: &Value) {
    for one in value.items() {
        // `default` is the cloud's user, of which only the keys count.
        if one.text() != Some("default") {
            user(draft, "users", one);
        }
    }
}

fn user(draft: &mut Draft, place: &str, value: &Value) {
    if value.entries().is_empty() {
        draft.unread(place);
    }
    for part in value.entries() {
        match part.key.as_str() {
            "ssh_authorized_keys" | "ssh-authorized-keys" => keys(draft, &part.value),
            key => draft.unread(&format!("{place}.{key}")),
        }
    }
}

fn ntp(draft: &mut Draft, value: &Value) {
    let mut servers = Vec::new();
    for part in value.entries() {
        match part.key.as_str() {
            "servers" | "pools" | "peers" => {
                servers.extend(part.value.items().iter().filter_map(Value::text))
            }
            "enabled" => {}
            key => draft.unread(&format!("ntp.{key}")),
        }
    }
    let servers = draft.values("user-data: ntp", &servers);
    draft.settings.ntp = Some(servers).filter(|servers| !servers.is_empty());
}
