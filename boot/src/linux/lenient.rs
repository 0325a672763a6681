//! A guest tree that goes on where a part of it is damaged: what cannot be read counts as absent, and is remembered, so
//! that "could not check" ends as a finding and never passes for "not there". Failures of the host still stop everything.

use crate::tree::{Entry, GuestTree, Meta};
use crate::{Error, Kind, Result};
use landfall_image::Bytes;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// So many damaged paths are remembered; a guest with more is lost anyway.
const FAILED_AT_MOST: usize = 64;

/// The adapter.
pub struct Lenient<'a> {
    tree: &'a dyn GuestTree,
    failed: RefCell<BTreeMap<String, String>>,
}

impl<'a> Lenient<'a> {
    /// Reads through `tree`.
    pub fn new(tree: &'a dyn GuestTree) -> Self {
        Lenient { tree, failed: RefCell::default() }
    }

    /// The paths that could not be read so far, and why.
    pub fn failed(&self) -> BTreeMap<String, String> {
        self.failed.borrow().clone()
    }

    fn soften<T: Default>(&self, path: &str, result: Result<T>) -> Result<T> {
        match result {
            Err(error) if is_the_guests(&error) => {
                let mut failed = self.failed.borrow_mut();
                if failed.len() < FAILED_AT_MOST {
                    failed.entry(path.to_owned()).or_insert_with(|| error.to_string());
                }
                Ok(T::default())
            }
            other => other,
        }
    }
}

/// True where the guest's content is to blame, not the host.
fn is_the_guests(error: &Error) -> bool {
    matches!(error.kind(), Kind::Refused | Kind::Corrupt | Kind::Unsupported)
}

impl GuestTree for Lenient<'_> {
    fn metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.soften(path, self.tree.metadata(path))
    }
    fn link_metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.soften(path, self.tree.link_metadata(path))
    }
    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        self.soften(path, self.tree.read(path, at_most))
    }
    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>> {
        self.soften(path, self.tree.list(path))
    }
    fn read_link(&self, path: &str) -> Result<Option<String>> {
        self.soften(path, self.tree.read_link(path))
    }
    fn free_space(&self, path: &str) -> Result<Option<Bytes>> {
        self.soften(path, self.tree.free_space(path))
    }
    fn read_many(&self, paths: &[String], at_most: Bytes) -> Result<Vec<Option<Vec<u8>>>> {
        match self.tree.read_many(paths, at_most) {
            // One of them is damaged: the others are wanted all the same.
            Err(error) if is_the_guests(&error) => {
                paths.iter().map(|path| self.read(path, at_most)).collect()
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::GuestTreeExt;
    use crate::tree::mem::MemTree;

    #[test]
    fn damage_is_remembered_and_the_rest_is_read() {
        let tree = MemTree::new().symlink("/loop", "/loop").dir("/folder").file("/a", "x");
        let lenient = Lenient::new(&tree);
        assert!(!lenient.exists("/loop").unwrap() && lenient.names("/loop/x").unwrap().is_empty());
        let many = lenient.read_many(&["/folder".into(), "/a".into(), "/absent".into()], Bytes(9)).unwrap();
        assert_eq!(many, [None, Some(b"x".to_vec()), None]);
        let failed: Vec<_> = lenient.failed().into_keys().collect();
        assert_eq!(failed, ["/folder", "/loop", "/loop/x"]);
    }
}
