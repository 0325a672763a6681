//! A guest tree in memory, for tests of everything that reads one.

use super::walk::{self, Step};
use super::{Entry, GuestTree, Meta, NodeKind};
use crate::apply::Change;
use crate::{Error, Result};
use landfall_image::Bytes;
use std::collections::BTreeMap;

/// Files, folders and links by path.
///
/// ```
/// # use landfall_boot::tree::{GuestTree, GuestTreeExt, mem::MemTree};
/// let tree = MemTree::new().file("/usr/lib/os-release", "ID=debian\n").symlink("/etc/os-release", "../usr/lib/os-release");
/// assert_eq!(tree.read_text("/etc/os-release").unwrap().unwrap(), "ID=debian\n");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemTree {
    nodes: BTreeMap<String, (Node, u32)>,
    free: Option<Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File(Vec<u8>),
    Dir,
    Symlink(String),
}

impl Default for MemTree {
    fn default() -> Self {
        MemTree { nodes: BTreeMap::from([("/".to_owned(), (Node::Dir, 0o755))]), free: None }
    }
}

impl MemTree {
    /// A tree with nothing but its root.
    pub fn new() -> Self {
        Self::default()
    }
    /// With a file of mode 0644; missing folders are made.
    #[must_use]
    pub fn file(self, path: &str, contents: impl AsRef<[u8]>) -> Self {
        self.with(path, Node::File(contents.as_ref().to_vec()), 0o644)
    }
    /// With an executable file.
    #[must_use]
    pub fn executable(self, path: &str, contents: impl AsRef<[u8]>) -> Self {
        self.with(path, Node::File(contents.as_ref().to_vec()), 0o755)
    }
    /// With a link that says `target`.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.with(path, Node::Symlink(target.to_owned()), 0o777)
    }
    /// With a folder.
    #[must_use]
    pub fn dir(self, path: &str) -> Self {
        self.with(path, Node::Dir, 0o755)
    }
    /// With the text files of a list.
    #[must_use]
    pub fn files(self, list: &[(&str, &str)]) -> Self {
        list.iter().fold(self, |tree, (path, contents)| tree.file(path, contents))
    }
    /// With this free space on every file system of it.
    #[must_use]
    pub fn free(mut self, free: Bytes) -> Self {
        self.free = Some(free);
        self
    }

    /// Does what the sandbox would do with `changes`: for tests of plans.
    pub fn apply(&mut self, changes: &[Change]) -> Result<()> {
        for change in changes {
            match change {
                Change::Put { path, bytes, mode } => {
                    let path = self.target(path)?;
                    let mode = self.nodes.get(&path).map_or(*mode, |(_, mode)| *mode);
                    self.put(&path, Node::File(bytes.clone()), mode);
                }
                Change::Stage { path, file, mode } => {
                    let path = self.target(path)?;
                    let mut bytes = Vec::new();
                    file.pieces(&mut |piece| {
                        bytes.extend_from_slice(piece);
                        Ok(())
                    })?;
                    self.put(&path, Node::File(bytes), *mode);
                }
                Change::Symlink { path, target } => {
                    let path = self.beside(path)?;
                    self.put(&path, Node::Symlink(target.clone()), 0o777);
                }
                Change::Remove { path } => {
                    if let Some(real) = self.resolve(path, false)? {
                        if self.children(&real).next().is_some() {
                            return Err(Error::refused(format!("{path} is a folder with content")));
                        }
                        self.nodes.remove(&real);
                    }
                }
                // It has none.
                Change::Label { .. } => {}
            }
        }
        Ok(())
    }

    /// Every path with its file's content or link's target (`None`: a folder), sorted.
    pub fn paths(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.nodes.iter().map(|(path, (node, _))| {
            let contents = match node {
                Node::File(contents) => Some(contents.as_slice()),
                Node::Symlink(target) => Some(target.as_bytes()),
                Node::Dir => None,
            };
            (path.as_str(), contents)
        })
    }

    fn with(mut self, path: &str, node: Node, mode: u32) -> Self {
        self.put(&walk::normalise(path), node, mode);
        self
    }

    fn put(&mut self, path: &str, node: Node, mode: u32) {
        for (at, _) in path.match_indices('/').skip(1) {
            self.nodes.entry(path[..at].to_owned()).or_insert((Node::Dir, 0o755));
        }
        self.nodes.insert(path.to_owned(), (node, mode));
    }

    /// Where a write to `path` ends up: its parents' links followed, and its own where it leads somewhere.
    fn target(&self, path: &str) -> Result<String> {
        match self.resolve(path, true)? {
            Some(real) => Ok(real),
            None => self.beside(path),
        }
    }

    fn beside(&self, path: &str) -> Result<String> {
        let path = walk::normalise(path);
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let parent = if parent.is_empty() { "/" } else { parent };
        let real = match self.resolve(parent, true)? {
            Some(real) => real,
            None => self.beside(parent)?,
        };
        Ok(walk::normalise(&format!("{real}/{name}")))
    }

    fn resolve(&self, path: &str, follow_last: bool) -> Result<Option<String>> {
        walk::resolve(path, follow_last, |path| {
            Ok(self.nodes.get(path).map(|(node, _)| match node {
                Node::Symlink(target) => Step::Link(target.clone()),
                node => Step::Node(kind(node)),
            }))
        })
    }

    fn meta(&self, path: &str, follow_last: bool) -> Result<Option<Meta>> {
        let Some(real) = self.resolve(path, follow_last)? else { return Ok(None) };
        Ok(self.nodes.get(&real).map(|(node, mode)| {
            let size = match node {
                Node::File(contents) => contents.len(),
                Node::Symlink(target) => target.len(),
                Node::Dir => 4096,
            };
            Meta { kind: kind(node), size: Bytes(size as u64), mode: *mode, uid: 0, gid: 0, mtime_seconds: 0 }
        }))
    }

    fn children<'a>(&'a self, real: &str) -> impl Iterator<Item = (&'a str, &'a Node)> {
        let prefix = if real == "/" { "/".to_owned() } else { format!("{real}/") };
        let len = prefix.len();
        self.nodes
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .filter(move |(path, _)| path.len() > len && !path[len..].contains('/'))
            .map(move |(path, (node, _))| (&path[len..], node))
    }
}

fn kind(node: &Node) -> NodeKind {
    match node {
        Node::File(_) => NodeKind::File,
        Node::Dir => NodeKind::Dir,
        Node::Symlink(_) => NodeKind::Symlink,
    }
}

impl GuestTree for MemTree {
    fn metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.meta(path, true)
    }

    fn link_metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.meta(path, false)
    }

    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        let Some(real) = self.resolve(path, true)? else { return Ok(None) };
        match self.nodes.get(&real) {
            Some((Node::File(contents), _)) => {
                super::check_size(path, Bytes(contents.len() as u64), at_most)?;
                Ok(Some(contents.clone()))
            }
            Some(_) => Err(super::no_file(path)),
            None => Ok(None),
        }
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>> {
        let Some(real) = self.resolve(path, true)? else { return Ok(None) };
        if !matches!(self.nodes.get(&real), Some((Node::Dir, _))) {
            return Ok(None);
        }
        let mut entries: Vec<_> = self
            .children(&real)
            .map(|(name, node)| Entry { name: name.to_owned(), kind: kind(node) })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(entries))
    }

    fn read_link(&self, path: &str) -> Result<Option<String>> {
        let Some(real) = self.resolve(path, false)? else { return Ok(None) };
        Ok(match self.nodes.get(&real) {
            Some((Node::Symlink(target), _)) => Some(target.clone()),
            _ => None,
        })
    }

    fn free_space(&self, _path: &str) -> Result<Option<Bytes>> {
        Ok(self.free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::GuestTreeExt;

    #[test]
    fn it_reads_what_was_put_in() {
        let tree = MemTree::new()
            .file("/usr/lib/os-release", "ID=debian\n")
            .symlink("/etc/os-release", "../usr/lib/os-release")
            .symlink("/lib", "usr/lib")
            .dir("/usr/lib/modules");
        assert_eq!(tree.read_text("/etc/os-release").unwrap().as_deref(), Some("ID=debian\n"));
        assert_eq!(tree.names("/").unwrap(), ["etc", "lib", "usr"]);
        assert_eq!(tree.names("/lib").unwrap(), ["modules", "os-release"]);
        assert_eq!(tree.read_link("/lib").unwrap().as_deref(), Some("usr/lib"));
        assert_eq!(tree.read_link("/usr").unwrap(), None);
        assert!(tree.list("/usr/lib/os-release").unwrap().is_none());
        assert!(tree.read("/usr", Bytes(1)).is_err(), "a folder is no file");
        assert!(tree.read("/lib/os-release", Bytes(9)).is_err(), "one byte too long");
        assert!(tree.read("/lib/os-release", Bytes(10)).unwrap().is_some());
    }

    #[test]
    fn changes_follow_links() {
        let mut tree = MemTree::new()
            .file("/run/x", "old")
            .symlink("/etc/x", "/run/x")
            .symlink("/lib", "usr/lib")
            .dir("/usr/lib");
        let put = |path: &str| Change::Put { path: path.into(), bytes: b"new".to_vec(), mode: 0o600 };
        tree.apply(&[put("/etc/x"), put("/lib/a/b"), Change::Remove { path: "/absent".into() }]).unwrap();
        assert_eq!(tree.read_text("/run/x").unwrap().as_deref(), Some("new"));
        assert_eq!(tree.metadata("/run/x").unwrap().unwrap().mode, 0o644);
        assert_eq!(tree.metadata("/usr/lib/a/b").unwrap().unwrap().mode, 0o600);
        assert_eq!(tree.read_link("/etc/x").unwrap().as_deref(), Some("/run/x"));
        assert!(tree.apply(&[Change::Remove { path: "/usr".into() }]).is_err());
        tree.apply(&[Change::Remove { path: "/etc/x".into() }]).unwrap();
        assert!(tree.exists("/run/x").unwrap() && !tree.exists("/etc/x").unwrap());
    }
}
