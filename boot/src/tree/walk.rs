//! Path resolution inside a guest's root, component by component, as the kernel does it under a chroot.

use super::{GuestTree, NodeKind};
use crate::{Error, Result};
use std::collections::VecDeque;

/// Links followed in one resolution: what Linux allows (`MAXSYMLINKS`).
pub const LINKS: usize = 40;

/// Components walked in one resolution. A path of `PATH_MAX` has at most 2048, and each link may bring as many.
const COMPONENTS: usize = 16_384;

/// What stands at a path whose parents are real folders.
pub enum Step {
    /// A link and what is written in it.
    Link(String),
    /// Anything else.
    Node(NodeKind),
}

/// The real path of `path`, free of links (but for the last component, where `follow_last` is false), `.` and `..`.
/// `None` where it, or a folder on the way, does not exist. `step` tells what stands at a real path. `..` never
/// leaves the root. More than [`LINKS`] links are an error.
pub fn resolve(
    path: &str,
    follow_last: bool,
    mut step: impl FnMut(&str) -> Result<Option<Step>>,
) -> Result<Option<String>> {
    check(path)?;
    let mut rest: VecDeque<String> = path.split('/').map(str::to_owned).collect();
    // A trailing slash asks for the folder itself.
    let follow_last = follow_last || path.ends_with('/');
    let mut real = String::new();
    let mut links = 0;
    let mut walked = 0;
    while let Some(name) = rest.pop_front() {
        walked += 1;
        if walked > COMPONENTS {
            return Err(too_many(path));
        }
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                real.truncate(real.rfind('/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let parent_len = real.len();
        real.push('/');
        real.push_str(&name);
        let last = rest.iter().all(String::is_empty);
        match step(&real)? {
            None => return Ok(None),
            Some(Step::Link(target)) if !last || follow_last => {
                links += 1;
                if links > LINKS {
                    return Err(too_many(path));
                }
                // The kernel refuses an empty target with ENOENT.
                if target.is_empty() || target.contains('\0') {
                    return Ok(None);
                }
                real.truncate(if target.starts_with('/') { 0 } else { parent_len });
                for part in target.rsplit('/') {
                    rest.push_front(part.to_owned());
                }
            }
            Some(Step::Node(kind)) if !last && kind != NodeKind::Dir => return Ok(None),
            Some(_) => {}
        }
    }
    Ok(Some(if real.is_empty() { "/".into() } else { real }))
}

/// [`resolve`] in a tree, the last component's link followed.
pub fn real_path(tree: &dyn GuestTree, path: &str) -> Result<Option<String>> {
    resolve(path, true, |path| {
        Ok(match tree.link_metadata(path)? {
            Some(meta) if meta.kind == NodeKind::Symlink => tree.read_link(path)?.map(Step::Link),
            Some(meta) => Some(Step::Node(meta.kind)),
            None => None,
        })
    })
}

fn too_many(path: &str) -> Error {
    Error::corrupt(format!("{path} leads through more than {LINKS} symbolic links: a loop"))
}

/// Refuses what is no absolute path.
pub fn check(path: &str) -> Result<()> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Error::refused(format!("{path:?} is no absolute guest path")));
    }
    Ok(())
}

/// `/a/b/../c//d` as `/a/c/d`, by its text alone.
pub fn normalise(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str) -> Result<Option<Step>> {
        Ok(match path {
            "/usr" | "/usr/lib" | "/etc" => Some(Step::Node(NodeKind::Dir)),
            "/etc/os-release" => Some(Step::Link("../usr/lib/os-release".into())),
            "/lib" => Some(Step::Link("usr/lib".into())),
            "/abs" => Some(Step::Link("/lib/os-release".into())),
            "/out" => Some(Step::Link("../../../../usr".into())),
            "/a" => Some(Step::Link("b".into())),
            "/b" => Some(Step::Link("/a".into())),
            "/usr/lib/os-release" => Some(Step::Node(NodeKind::File)),
            _ => None,
        })
    }

    #[test]
    fn links_resolve_inside_the_root() {
        for (path, real) in [
            ("/", Some("/")),
            ("/etc/os-release", Some("/usr/lib/os-release")),
            ("/abs", Some("/usr/lib/os-release")),
            ("/out/lib", Some("/usr/lib")),
            ("/lib/../..", Some("/")),
            ("/lib/./os-release", Some("/usr/lib/os-release")),
            ("/usr/lib/os-release/x", None),
            ("/absent/../etc", None),
        ] {
            assert_eq!(resolve(path, true, tree).unwrap().as_deref(), real, "{path}");
        }
        assert_eq!(resolve("/lib", false, tree).unwrap().as_deref(), Some("/lib"));
        assert_eq!(resolve("/lib/", false, tree).unwrap().as_deref(), Some("/usr/lib"));
        assert!(resolve("/a", true, tree).is_err());
        assert!(resolve("a", true, tree).is_err());
    }
}
