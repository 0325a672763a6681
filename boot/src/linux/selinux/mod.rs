//! SELinux: what a plan makes anew gets the context that the guest's policy has for its path. What exists keeps its own:
//! the sandbox copies it onto the file's new content. So nothing has to be relabelled at the next start, which takes
//! minutes and a second start.
//!
//! Deliberately absent: a check that existing labels are right. They are the guest's, and work where it is.

mod contexts;

use super::draft::Draft;
use super::text;
use crate::Result;
use crate::patch::{Action, Label};
use crate::tree::walk;
use crate::tree::{GuestTree, GuestTreeExt};
use contexts::{Contexts, Found, Kind};
use std::collections::BTreeSet;

/// Links that lead a written path on: what Linux allows in one path.
const LINKS_AT_MOST: usize = walk::LINKS;

/// Gives every new path of the plan its label.
pub fn plan(draft: &mut Draft<'_>) -> Result<()> {
    let scene = draft.scene;
    let tree = scene.tree;
    let config = draft.read("/etc/selinux/config")?.unwrap_or_default();
    let mode = text::assignment(&config, "SELINUX").unwrap_or("disabled").to_ascii_lowercase();
    if mode != "enforcing" && mode != "permissive" {
        return Ok(());
    }
    let policy = text::assignment(&config, "SELINUXTYPE").unwrap_or("targeted").to_owned();
    let is_name = !policy.is_empty() && !policy.starts_with('.') && !policy.contains('/');
    let contexts = match is_name {
        true => Contexts::read(tree, &format!("/etc/selinux/{policy}/contexts/files"))?,
        false => None,
    };
    let unlabelled: BTreeSet<&str> = scene
        .mounts
        .iter()
        .filter(|mount| matches!(mount.file_system.as_str(), "vfat" | "exfat" | "msdos"))
        .map(|mount| mount.at.as_str())
        .collect();
    let has_no_labels = |path: &str| unlabelled.iter().any(|at| path == *at || is_below(path, at));
    let mut done = BTreeSet::new();
    let mut unknown = BTreeSet::new();
    for edit in draft.edits_mut() {
        for (path, kind) in new_paths(tree, &edit.path, &edit.action)? {
            if has_no_labels(&path) || !done.insert(path.clone()) {
                continue;
            }
            match contexts.as_ref().map(|contexts| contexts.find(&path, kind)) {
                Some(Found::Context(context)) => edit.labels.push(Label { path, context }),
                // The policy says that this path keeps what it is made with.
                Some(Found::Nothing) => {}
                Some(Found::Unknown) | None => drop(unknown.insert(path)),
            }
        }
    }
    let Some(first) = unknown.first().filter(|_| mode == "enforcing") else { return Ok(()) };
    let says = match unknown.len() {
        1 => format!("SELinux is enforcing, and the policy's context for the new {first} was not found."),
        more => format!(
            "SELinux is enforcing, and the policy's contexts for {more} new paths ({first}, …) were not found."
        ),
    };
    draft.find(
        "linux-selinux-relabel",
        format!("{says} The next start labels all files anew."),
        "Expect one long start and a second one after it.",
    );
    draft.write(
        "/.autorelabel",
        "",
        "SELinux labels every file anew at the next start: new ones have no label.",
    )
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
}

/// The real paths that an edit makes: missing folders on the way, and itself, where it is not there.
fn new_paths(tree: &dyn GuestTree, path: &str, action: &Action) -> Result<Vec<(String, Kind)>> {
    let (mut path, mut kind) = (walk::normalise(path), Kind::File);
    match action {
        Action::Remove => return Ok(Vec::new()),
        // A link is always made anew, in the place of what was there.
        Action::Symlink { .. } => kind = Kind::Link,
        Action::Write { .. }
        | Action::Copy { .. }
        | Action::Stage(_)
        | Action::Initramfs(_)
        | Action::Registry(_) => {
            // A link that leads nowhere is followed to where the file will be.
            for _ in 0..LINKS_AT_MOST {
                if tree.exists(&path)? {
                    return Ok(Vec::new());
                }
                match tree.read_link(&path)? {
                    Some(target) if target.starts_with('/') => path = walk::normalise(&target),
                    Some(target) => path = walk::normalise(&format!("{path}/../{target}")),
                    None => break,
                }
            }
        }
    }
    let mut missing = Vec::new();
    let mut parent = path.as_str();
    let real = loop {
        let (above, name) = parent.rsplit_once('/').unwrap_or(("", parent));
        missing.push(name);
        parent = above;
        let folder = if parent.is_empty() { "/" } else { parent };
        match walk::real_path(tree, folder)? {
            Some(real) => break real,
            None if parent.is_empty() => return Ok(Vec::new()),
            None => {}
        }
    };
    let mut at = real.trim_end_matches('/').to_owned();
    let mut made = Vec::new();
    while let Some(name) = missing.pop() {
        at = format!("{at}/{name}");
        made.push((at.clone(), if missing.is_empty() { kind } else { Kind::Folder }));
    }
    Ok(made)
}

#[cfg(test)]
mod tests;
