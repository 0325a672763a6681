//! Files of the whole machine: /etc/resolv.conf where it is a real file, and its own addresses in /etc/hosts.

use super::super::settings::{Edits, lines};
use super::site::{Site, parse_ip};
use crate::linux::text;
use std::ops::Range;

type Change = fn(&[u8], &str, &mut Site<'_>) -> Option<Vec<u8>>;

/// Each with what changes it.
pub(super) const FILES: &[(&str, Change)] = &[("/etc/resolv.conf", resolv_conf), ("/etc/hosts", hosts)];

/// Words of every line that is no comment, and the line.
fn worded(old: &[u8]) -> Vec<(Vec<Range<usize>>, Range<usize>)> {
    let mut found = Vec::new();
    for (body, whole) in lines(old) {
        let bytes = old.get(body.clone()).unwrap_or_default();
        if text::is_comment(bytes) || bytes.trim_ascii_start().starts_with(b";") {
            continue;
        }
        let words = text::words(bytes).into_iter().map(|word| body.start + word.start..body.start + word.end);
        found.push((words.collect(), whole));
    }
    found
}

fn resolv_conf(old: &[u8], path: &str, site: &mut Site<'_>) -> Option<Vec<u8>> {
    let mut edits = Edits::new(old);
    let lines = worded(old);
    let keyed = |key: &'static str| {
        lines.iter().filter(move |(words, _)| {
            words.first().is_some_and(|word| old.get(word.clone()) == Some(key.as_bytes()))
        })
    };
    let mut on = site.whole(path);
    let servers: Vec<_> = keyed("nameserver").filter(|(words, _)| words.len() > 1).collect();
    let values: Vec<&str> =
        servers.iter().filter_map(|(words, _)| words.get(1)).map(|word| edits.text(word)).collect();
    if let Some((_, last)) = servers.last()
        && let Some(new) = on.servers(&values, None)
    {
        for (at, (words, line)) in servers.iter().enumerate() {
            match (new.get(at), words.get(1)) {
                (Some(server), Some(word)) => edits.set(word, server),
                _ => edits.remove(line),
            }
        }
        let more: Vec<String> =
            new.iter().skip(servers.len()).map(|one| format!("nameserver {one}")).collect();
        if !more.is_empty() {
            edits.insert_after(last, &more.join("\n"));
        }
    }
    for key in ["search", "domain"] {
        for (words, _) in keyed(key) {
            let (Some(first), Some(last)) = (words.get(1), words.last()) else { continue };
            let values: Vec<&str> = words.iter().skip(1).map(|word| edits.text(word)).collect();
            if let Some(new) = on.search(&values) {
                // `domain` takes one.
                let new = if key == "domain" { new.into_iter().take(1).collect() } else { new };
                edits.set(&(first.start..last.end), &new.join(" "));
            }
        }
    }
    edits.finish()
}

fn hosts(old: &[u8], path: &str, site: &mut Site<'_>) -> Option<Vec<u8>> {
    let mut edits = Edits::new(old);
    for (words, line) in worded(old) {
        let Some(first) = words.first() else { continue };
        let Some(ip) = parse_ip(edits.text(first)) else { continue };
        match site.own(ip) {
            Some(new) if new != ip => edits.set(first, &new.to_string()),
            Some(_) => {}
            // Other machines may move too, or not: their names are there for a reason that is not known.
            None => site.whole(path).leftover(edits.text(&line)),
        }
    }
    edits.finish()
}
