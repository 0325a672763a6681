//! Files of the whole machine: /etc/resolv.conf where it is a real file, and its own addresses in /etc/hosts; and files in which
//! addresses are only looked for.

use super::super::FILES_AT_MOST;
use super::super::settings::{Edits, lines};
use super::site::Site;
use super::values::parse_ip;
use crate::Result;
use crate::linux::draft::Draft;
use crate::linux::text;
use crate::tree::{GuestTreeExt, NodeKind};
use std::ops::Range;

type Change = fn(&[u8], &str, &mut Site<'_>) -> Option<Vec<u8>>;

/// Each with what changes it.
pub(super) const FILES: &[(&str, Change)] = &[("/etc/resolv.conf", resolv_conf), ("/etc/hosts", hosts)];

/// Files, and folders with the ending of their files, in which addresses are not edited: what DHCP clients replace by their
/// own, name servers of resolvconf and NetworkManager, addresses of an initramfs and on the kernel's command line.
const WATCHED: &[(&str, &str)] = &[
    ("/etc/dhcp/dhclient.conf", ""),
    ("/etc/dhclient.conf", ""),
    ("/etc/dhcpcd.conf", ""),
    ("/etc/resolvconf/resolv.conf.d/", ""),
    ("/etc/NetworkManager/NetworkManager.conf", ""),
    ("/etc/NetworkManager/conf.d/", ".conf"),
    ("/etc/initramfs-tools/initramfs.conf", ""),
    ("/etc/initramfs-tools/conf.d/", ""),
    ("/etc/dracut.conf", ""),
    ("/etc/dracut.conf.d/", ".conf"),
    ("/etc/default/grub", ""),
    ("/etc/default/grub.d/", ".cfg"),
    ("/etc/kernel/cmdline", ""),
    ("/boot/loader/entries/", ".conf"),
];

/// Looks for addresses in files that are not edited.
pub(super) fn watch(draft: &mut Draft<'_>, site: &mut Site<'_>) -> Result<()> {
    for (place, ending) in WATCHED {
        for path in files(draft, place, ending)? {
            let Some(content) = draft.read_text(&path)? else { continue };
            let mut on = site.whole(&path);
            let is_comment = |line: &&str| line.trim_start().starts_with(['#', ';']);
            content.lines().filter(|line| !is_comment(line)).for_each(|line| on.leftover(line));
        }
    }
    Ok(())
}

/// The file of that name; of a folder, which ends in a slash, the files whose names end so.
pub(super) fn files(draft: &Draft<'_>, place: &str, ending: &str) -> Result<Vec<String>> {
    let tree = draft.scene.tree;
    let mut paths = vec![place.to_owned()];
    if let Some(folder) = place.strip_suffix('/') {
        let mut names = tree.names(folder)?;
        names.retain(|name| name.ends_with(ending));
        names.truncate(FILES_AT_MOST);
        paths = names.into_iter().map(|name| format!("{folder}/{name}")).collect();
    }
    let mut found = Vec::new();
    for path in paths {
        let is_file =
            tree.exists(&path)? && tree.metadata(&path)?.is_some_and(|meta| meta.kind == NodeKind::File);
        found.extend(is_file.then_some(path));
    }
    Ok(found)
}

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

/// Own addresses in a hosts file; those of others are only told of.
pub(crate) fn hosts(old: &[u8], path: &str, site: &mut Site<'_>) -> Option<Vec<u8>> {
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
