//! A guest's files without the folders of other systems on the same volume: whoever recognises the guest sees the chosen one.
//!
//! They are hidden in the listing of `/` alone. A path that leads into them by name still does.

use crate::Result;
use crate::tree::{Entry, GuestTree, Meta};
use landfall_image::Bytes;

/// The adapter.
pub(super) struct Hiding<'t> {
    pub tree: &'t dyn GuestTree,
    /// `/WINNT`, as they are stored.
    pub hidden: &'t [String],
}

impl GuestTree for Hiding<'_> {
    fn metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.tree.metadata(path)
    }
    fn link_metadata(&self, path: &str) -> Result<Option<Meta>> {
        self.tree.link_metadata(path)
    }
    fn read(&self, path: &str, at_most: Bytes) -> Result<Option<Vec<u8>>> {
        self.tree.read(path, at_most)
    }
    fn list(&self, path: &str) -> Result<Option<Vec<Entry>>> {
        let mut entries = self.tree.list(path)?;
        if path == "/"
            && let Some(entries) = &mut entries
        {
            entries.retain(|entry| {
                !self.hidden.iter().any(|hidden| hidden.strip_prefix('/') == Some(&entry.name))
            });
        }
        Ok(entries)
    }
    fn read_link(&self, path: &str) -> Result<Option<String>> {
        self.tree.read_link(path)
    }
    fn free_space(&self, path: &str) -> Result<Option<Bytes>> {
        self.tree.free_space(path)
    }
    fn read_many(&self, paths: &[String], at_most: Bytes) -> Result<Vec<Option<Vec<u8>>>> {
        self.tree.read_many(paths, at_most)
    }
    fn sha256(&self, path: &str, at_most: Bytes) -> Result<Option<(Bytes, String)>> {
        self.tree.sha256(path, at_most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::mem::MemTree;
    use crate::windows::facts::folders;

    #[test]
    fn the_chosen_system_is_the_only_one() {
        let hive = |folder: &str| format!("{folder}/System32/config/SYSTEM");
        let tree = MemTree::new().file(&hive("/Windows"), "").file(&hive("/WINNT"), "");
        assert_eq!(folders(&tree).unwrap(), ["/WINNT", "/Windows"]);
        for (hidden, left) in [("/Windows", "/WINNT"), ("/WINNT", "/Windows")] {
            let hidden = [hidden.to_owned()];
            assert_eq!(folders(&Hiding { tree: &tree, hidden: &hidden }).unwrap(), [left]);
        }
    }
}
