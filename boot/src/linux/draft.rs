//! A plan while it grows: reads see what was already edited, and there is one edit per file, whatever name leads to it.

use super::keep::Builder;
use crate::Result;
use crate::check::Findings;
use crate::family::Scene;
use crate::network_map::Moved;
use crate::patch::{Action, Edit, PatchPlan, Text};
use crate::target::Devices;
use crate::tree::{CONFIG_AT_MOST, GuestTreeExt, NodeKind, walk};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The edits and findings so far.
pub struct Draft<'a> {
    /// The guest.
    pub scene: &'a Scene<'a>,
    /// What the definition has to offer.
    pub devices: Devices,
    /// What builds its next initramfs.
    pub builder: Builder,
    edits: Vec<Edit>,
    /// Real path to place in `edits`.
    index: BTreeMap<String, usize>,
    /// Folders to their real paths.
    folders: RefCell<BTreeMap<String, String>>,
    findings: Findings,
    /// What the network map changes in the edits.
    pub moved: Vec<Moved>,
    /// Files to take out of every initramfs (without leading `/`).
    pub gone_inside: BTreeSet<String>,
    /// Names of encrypted volumes to replace in every initramfs, old and new.
    pub renamed_inside: Vec<(String, String)>,
    /// Hardware addresses to replace in every initramfs, old and new.
    pub addresses_inside: Vec<(String, String)>,
}

impl<'a> Draft<'a> {
    /// An empty plan for the guest.
    pub fn new(scene: &'a Scene<'a>) -> Self {
        Draft {
            scene,
            devices: Devices::default(),
            builder: Builder::default(),
            edits: Vec::new(),
            index: BTreeMap::new(),
            folders: RefCell::default(),
            findings: Findings::default(),
            moved: Vec::new(),
            gone_inside: BTreeSet::new(),
            renamed_inside: Vec::new(),
            addresses_inside: Vec::new(),
        }
    }

    /// A file as it will be after the edits so far; `None` where it is absent.
    pub fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>> {
        match self.planned(path).map(|edit| &edit.action) {
            Some(Action::Write { contents, .. }) => return Ok(Some(contents.0.clone())),
            Some(Action::Remove | Action::Symlink { .. }) => return Ok(None),
            _ => {}
        }
        self.scene.tree.read(path, CONFIG_AT_MOST)
    }

    /// [`Draft::read`], bytes that are not UTF-8 replaced: for looking only.
    pub fn read_text(&mut self, path: &str) -> Result<Option<String>> {
        Ok(self.read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The file's content becomes this, if it is not so already.
    pub fn write(&mut self, path: &str, contents: impl Into<Vec<u8>>, why: &str) -> Result<()> {
        self.write_mode(path, contents, 0o644, why)
    }

    /// [`Draft::write`] with permission bits for a new file.
    pub fn write_mode(
        &mut self,
        path: &str,
        contents: impl Into<Vec<u8>>,
        mode: u32,
        why: &str,
    ) -> Result<()> {
        let contents = Text(contents.into());
        if let Some(edit) = self.place(path).and_then(|at| self.edits.get_mut(at)) {
            edit.action = Action::Write { contents, mode };
            edit.why = format!("{} {why}", edit.why);
            return Ok(());
        }
        if self.read(path)?.is_some_and(|old| old == contents.0) {
            return Ok(());
        }
        self.push(path, Action::Write { contents, mode }, why);
        Ok(())
    }

    /// Edits an existing file; `change` says `None` where nothing is to be done. True where it was changed.
    pub fn edit(
        &mut self,
        path: &str,
        why: &str,
        change: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<bool> {
        let Some(old) = self.read(path)? else { return Ok(false) };
        match change(&old) {
            Some(new) if new != old => {
                self.write(path, new, why)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The path is removed, if it is there.
    pub fn remove(&mut self, path: &str, why: &str) -> Result<()> {
        let there = self.scene.tree.link_metadata(path)?.is_some_and(|meta| meta.kind != NodeKind::Dir);
        if there && !self.index.contains_key(&self.in_real_folder(path)) {
            self.push(path, Action::Remove, why);
        }
        Ok(())
    }

    /// The path becomes a copy of `from`, if it is absent.
    pub fn copy_if_absent(&mut self, path: &str, from: &str, why: &str) -> Result<()> {
        if !self.scene.tree.exists(path)? && self.place(path).is_none() {
            self.push(path, Action::Copy { from: from.to_owned() }, why);
        }
        Ok(())
    }

    /// The path becomes a symbolic link, if it is not that link already.
    pub fn symlink(&mut self, path: &str, target: &str, why: &str) -> Result<()> {
        let is_edited = self.index.contains_key(&self.in_real_folder(path));
        if self.scene.tree.read_link(path)?.as_deref() != Some(target) && !is_edited {
            self.push(path, Action::Symlink { target: target.to_owned() }, why);
        }
        Ok(())
    }

    /// One edit as it is, of a path that has none yet.
    pub fn push(&mut self, path: &str, action: Action, why: &str) {
        self.index.insert(self.key(path, &action), self.edits.len());
        let labels = Vec::new();
        self.edits.push(Edit { path: path.to_owned(), action, why: why.to_owned(), labels });
    }

    /// Takes back the edits of paths that turn out to mean nothing to the guest.
    pub fn forget(&mut self, is: impl Fn(&str) -> bool) {
        self.edits.retain(|edit| !is(&edit.path));
        let keys = self.edits.iter().map(|edit| self.key(&edit.path, &edit.action));
        self.index = keys.enumerate().map(|(at, key)| (key, at)).collect();
    }

    /// Every edit so far, to be labelled.
    pub fn edits_mut(&mut self) -> &mut [Edit] {
        &mut self.edits
    }

    /// One finding.
    pub fn find(&mut self, id: &'static str, says: impl Into<String>, remedy: impl Into<String>) {
        self.findings.find(id, says, remedy);
    }

    /// The plan, worst findings first.
    pub fn finish(self) -> PatchPlan {
        PatchPlan {
            edits: self.edits,
            findings: self.findings.finish(),
            devices: self.devices,
            moved: self.moved,
            clock: None,
        }
    }

    fn planned(&self, path: &str) -> Option<&Edit> {
        self.place(path).and_then(|at| self.edits.get(at))
    }

    /// The edit of a path: of what stands there, or of what a link there leads to.
    fn place(&self, path: &str) -> Option<usize> {
        if self.index.is_empty() {
            return None;
        }
        let here = self.in_real_folder(path);
        self.index.get(&here).or_else(|| self.index.get(&self.behind(&here))).copied()
    }

    /// What an edit changes: the link itself, or what it leads to.
    fn key(&self, path: &str, action: &Action) -> String {
        let here = self.in_real_folder(path);
        match action {
            Action::Remove | Action::Symlink { .. } => here,
            Action::Write { .. }
            | Action::Copy { .. }
            | Action::Stage(_)
            | Action::Initramfs(_)
            | Action::Registry(_) => self.behind(&here),
        }
    }

    /// The path with the links among its folders followed. What cannot be resolved stays: reading it will say why.
    fn in_real_folder(&self, path: &str) -> String {
        let path = walk::normalise(path);
        let Some((folder, name)) = path.rsplit_once('/') else { return path };
        if let Some(real) = self.folders.borrow().get(folder) {
            return format!("{real}/{name}");
        }
        let real = match walk::real_path(self.scene.tree, &format!("{folder}/")) {
            Ok(Some(real)) => real.trim_end_matches('/').to_owned(),
            // What is to be made lies below the deepest folder that is there.
            Ok(None) if !folder.is_empty() => self.in_real_folder(folder),
            Ok(None) | Err(_) => folder.to_owned(),
        };
        self.folders.borrow_mut().insert(folder.to_owned(), real.clone());
        format!("{real}/{name}")
    }

    /// What a path leads to where it is a link; else the path.
    fn behind(&self, path: &str) -> String {
        match self.scene.tree.read_link(path) {
            Ok(Some(_)) => {
                walk::real_path(self.scene.tree, path).ok().flatten().unwrap_or_else(|| path.to_owned())
            }
            _ => path.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::mem::MemTree;

    /// A file has as many names as links lead to it, and one edit.
    #[test]
    fn names_of_one_file_are_one() {
        let tree = MemTree::new()
            .file("/boot/grub/grub.conf", "a\nb\n")
            .symlink("/boot/grub/menu.lst", "./grub.conf")
            .symlink("/etc/grub.conf", "../boot/grub/grub.conf")
            .file("/boot/efi/x", "a\n")
            .symlink("/efi", "boot/efi")
            .symlink("/loop", "loop");
        let scene = Scene { tree: &tree, volumes: &[], mounts: &[] };
        let mut draft = Draft::new(&scene);
        let change = |from: &'static [u8], to: &'static [u8]| {
            move |old: &[u8]| {
                let text = String::from_utf8_lossy(old);
                let new = text.replace(std::str::from_utf8(from).unwrap(), std::str::from_utf8(to).unwrap());
                Some(new.into_bytes())
            }
        };
        assert!(draft.edit("/boot/grub/menu.lst", "1", change(b"a", b"A")).unwrap());
        assert!(draft.edit("/etc/grub.conf", "2", change(b"b", b"B")).unwrap());
        assert!(!draft.edit("/boot/grub/grub.conf", "3", change(b"a", b"x")).unwrap());
        draft.write("/efi/x", "1", "4").unwrap();
        assert_eq!(draft.read("/boot/efi/x").unwrap().as_deref(), Some(&b"1"[..]));
        draft.write("/boot/efi/x", "2", "5").unwrap();
        draft.write("/boot/efi/new/y", "1", "6").unwrap();
        assert_eq!(draft.read("/efi/new/y").unwrap().as_deref(), Some(&b"1"[..]));
        assert!(draft.read("/loop").is_err());
        // A link that goes takes nothing else with it.
        draft.remove("/etc/grub.conf", "7").unwrap();
        assert_eq!(draft.read("/etc/grub.conf").unwrap(), None);
        assert!(draft.read("/boot/grub/grub.conf").unwrap().is_some());
        let plan = draft.finish();
        let text = |action: &Action| match action {
            Action::Write { contents, .. } => String::from_utf8(contents.0.clone()).unwrap(),
            other => format!("{other:?}"),
        };
        let edits: Vec<_> = plan.edits.iter().map(|edit| (edit.path.as_str(), text(&edit.action))).collect();
        assert_eq!(
            edits,
            [
                ("/boot/grub/menu.lst", "A\nB\n".to_owned()),
                ("/efi/x", "2".into()),
                ("/boot/efi/new/y", "1".into()),
                ("/etc/grub.conf", "Remove".into())
            ]
        );
    }
}
