//! Several file systems as one tree, each at its mount point. Paths are resolved over all of them, component by
//! component, so that links may lead from one into another.

use super::walk::{self, Step};
use super::{Entry, GuestTree, Meta, NodeKind};
use crate::{Error, Result};
use landfall_image::Bytes;

/// A root and what is mounted in it.
pub struct Mounted<'a> {
    /// Real path of the mount point, without a trailing slash (the root's is empty), and the file system.
    mounts: Vec<(String, Box<dyn GuestTree + 'a>)>,
}

impl<'a> Mounted<'a> {
    /// A root with nothing mounted in it yet.
    pub fn new(root: impl GuestTree + 'a) -> Self {
        Mounted { mounts: vec![(String::new(), Box::new(root))] }
    }

    /// Mounts `tree` at the folder `at`, over what was there. Refused where there is no such folder.
    pub fn mount(&mut self, at: &str, tree: impl GuestTree + 'a) -> Result<()> {
        let real = self.resolve(at, true)?;
        let is_folder = |real: &String| {
            let meta = self.inside(real).map_or(Ok(None), |(tree, inner)| tree.link_metadata(&inner));
            meta.map(|meta| meta.is_some_and(|meta| meta.kind == NodeKind::Dir))
        };
        match real {
            Some(real) if is_folder(&real)? => {
                let key = if real == "/" { String::new() } else { real };
                // What lies below is hidden.
                self.mounts.retain(|(at, _)| *at != key && !is_below(at, &key));
                self.mounts.push((key, Box::new(tree)));
                // The deepest first.
                self.mounts.sort_by_key(|(at, _)| std::cmp::Reverse(at.len()));
                Ok(())
            }
            _ => Err(Error::refused(format!("{at} is no folder of the guest: nothing can be mounted there"))),
        }
    }

    /// The file system that a real path lies on, and the path inside it.
    fn inside(&self, real: &str) -> Option<(&dyn GuestTree, String)> {
        let real = real.trim_end_matches('/');
        let (at, tree) = self.mounts.iter().find(|(at, _)| real == at || is_below(real, at))?;
        let inner = real.get(at.len()..).filter(|inner| !inner.is_empty()).unwrap_or("/");
        Some((&**tree, inner.to_owned()))
    }

    fn resolve(&self, path: &str, follow_last: bool) -> Result<Option<String>> {
        walk::resolve(path, follow_last, |real| {
            let Some((tree, inner)) = self.inside(real) else { return Ok(None) };
            if inner == "/" {
                return Ok(Some(Step::Node(NodeKind::Dir)));
            }
            match tree.link_metadata(&inner)? {
                Some(Meta { kind: NodeKind::Symlink, .. }) => Ok(tree.read_link(&inner)?.map(Step::Link)),
                Some(meta) => Ok(Some(Step::Node(meta.kind))),
                None => Ok(None),
            }
        })
    }

    /// Hands the file system and path that `path` leads to to `ask`; `None` where it leads nowhere.
    fn ask<T>(
        &self,
        path: &str,
        follow_last: bool,
        ask: impl FnOnce(&dyn GuestTree, &str) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        // One file system resolves its own paths, faster.
        if let [(_, only)] = self.mounts.as_slice() {
            return ask(&**only, path);
        }
        let Some(real) = self.resolve(path, follow_last)? else { return Ok(None) };
        match self.inside(&real) {
            Some((tree, inner)) => ask(tree, &inner),
            None => Ok(None),
        }
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

impl GuestTree for Mounted<'_> {
    fn metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.ask(path, true, |tree, inner| tree.metadata(inner))
    }

    fn link_metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.ask(path, false, |tree, inner| tree.link_metadata(inner))
    }

    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        self.ask(path, true, |tree, inner| tree.read(inner, at_most))
    }

    fn sha256(&self, path: &str, at_most: Bytes) -> Result<Option<(Bytes, String)>> {
        self.ask(path, true, |tree, inner| tree.sha256(inner, at_most))
    }

    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>> {
        self.ask(path, true, |tree, inner| tree.list(inner))
    }

    fn read_link(&self, path: &str) -> Result<Option<String>> {
        self.ask(path, false, |tree, inner| tree.read_link(inner))
    }

    fn free_space(&self, path: &str) -> Result<Option<Bytes>> {
        self.ask(path, true, |tree, inner| tree.free_space(inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::GuestTreeExt;
    use crate::tree::mem::MemTree;

    #[test]
    fn links_lead_from_one_file_system_into_another() {
        let root = MemTree::new()
            .file("/etc/fstab", "root")
            .file("/boot/hidden", "under the mount")
            .dir("/boot/efi")
            .dir("/usr")
            .symlink("/vmlinuz", "boot/vmlinuz")
            .symlink("/lib", "usr/lib")
            .symlink("/esp", "/boot/efi")
            .free(Bytes(1));
        let boot = MemTree::new()
            .file("/vmlinuz-1", "kernel")
            .symlink("/vmlinuz", "vmlinuz-1")
            .symlink("/boot", ".")
            .symlink("/back", "../etc/fstab")
            .dir("/efi")
            .free(Bytes(2));
        let esp = MemTree::new().file("/EFI/x", "loader").free(Bytes(3));
        let usr = MemTree::new().file("/lib/os-release", "ID=x").symlink("/lib/loop", "/lib/loop");
        let mut tree = Mounted::new(root);
        assert!(tree.mount("/absent", MemTree::new()).is_err());
        assert!(tree.mount("/etc/fstab", MemTree::new()).is_err());
        tree.mount("/boot/", boot).unwrap();
        tree.mount("/esp", esp).unwrap();
        tree.mount("/usr", usr).unwrap();
        for (path, content) in [
            ("/vmlinuz", Some("kernel")),
            ("/boot/boot/vmlinuz", Some("kernel")),
            ("/boot/back", Some("root")),
            ("/boot/efi/../../esp/EFI/x", Some("loader")),
            ("/lib/os-release", Some("ID=x")),
            ("/boot/hidden", None),
        ] {
            assert_eq!(tree.read_text(path).unwrap().as_deref(), content, "{path}");
        }
        assert_eq!(tree.names("/boot").unwrap(), ["back", "boot", "efi", "vmlinuz", "vmlinuz-1"]);
        assert_eq!(tree.names("/boot/efi").unwrap(), ["EFI"]);
        assert_eq!(tree.free_space("/esp").unwrap(), Some(Bytes(3)));
        assert_eq!(tree.free_space("/vmlinuz").unwrap(), Some(Bytes(2)));
        assert_eq!(tree.read_link("/boot/vmlinuz").unwrap().as_deref(), Some("vmlinuz-1"));
        assert_eq!(tree.link_metadata("/lib").unwrap().unwrap().kind, NodeKind::Symlink);
        assert_eq!(tree.metadata("/boot").unwrap().unwrap().kind, NodeKind::Dir);
        assert!(tree.metadata("/lib/loop").is_err());
        // A mount over a folder hides what was mounted below.
        tree.mount("/boot", MemTree::new().dir("/efi")).unwrap();
        assert!(tree.names("/boot/efi").unwrap().is_empty());
    }
}
