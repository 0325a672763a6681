//! A guest tree that goes on where a part of it is damaged: what cannot be read counts as absent, and is remembered, so
//! that "could not check" ends as a finding and never passes for "not there". Failures of the host still stop everything.

use crate::tree::{CONFIG_AT_MOST, Entry, GuestTree, Meta};
use crate::{Error, Kind, Result};
use landfall_image::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// So many damaged paths are remembered; a guest with more is lost anyway.
const FAILED_AT_MOST: usize = 64;

/// Configuration files read in one pass, in bytes: a guest has a few MiB of them. Hard links make any number of long files
/// out of one, in folders that are read name by name.
const CONFIG_IN_ALL: Bytes = Bytes::mib(512);

/// The same in files.
const CONFIGS_AT_MOST: usize = 65_536;

/// The adapter.
pub struct Lenient<'a> {
    tree: &'a dyn GuestTree,
    failed: RefCell<BTreeMap<String, String>>,
    /// Bytes and files of configuration so far.
    spent: Cell<(u64, usize)>,
}

impl<'a> Lenient<'a> {
    /// Reads through `tree`.
    pub fn new(tree: &'a dyn GuestTree) -> Self {
        Lenient { tree, failed: RefCell::default(), spent: Cell::default() }
    }

    /// The paths that could not be read so far, and why.
    pub fn failed(&self) -> BTreeMap<String, String> {
        self.failed.borrow().clone()
    }

    /// A configuration file within what is read of such in all. What is longer has a bound of its own, and is one of few.
    fn read_bounded(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        if at_most > CONFIG_AT_MOST {
            return self.tree.read(path, at_most);
        }
        let (bytes, files) = self.spent.get();
        if bytes >= CONFIG_IN_ALL.0 || files >= CONFIGS_AT_MOST {
            return Err(Error::refused(format!(
                "{CONFIG_IN_ALL} in {CONFIGS_AT_MOST} files are the most that is read of configuration"
            )));
        }
        let found = self.tree.read(path, at_most);
        if let Ok(Some(found)) = &found {
            self.spent.set((bytes.saturating_add(found.len() as u64), files.saturating_add(1)));
        }
        found
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
        self.soften(path, self.read_bounded(path, at_most))
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

    /// Names of one file cost nothing on a disk, and reading each of them would.
    #[test]
    fn configuration_without_end_is_refused() {
        let long = vec![b'#'; 4 << 20];
        let tree = (0..140).fold(MemTree::new(), |tree, n| {
            tree.file(&format!("/{n}"), if n < 130 { &long } else { &long[..1] })
        });
        let lenient = Lenient::new(&tree);
        let read = (0..140).filter(|n| lenient.read_text(&format!("/{n}")).unwrap().is_some()).count();
        assert_eq!(read, 128);
        assert!(lenient.failed().values().all(|why| why.contains("512")), "{:?}", lenient.failed());
        // What has a bound of its own is not counted.
        assert!(lenient.read("/0", Bytes::mib(16)).unwrap().is_some());
    }

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
