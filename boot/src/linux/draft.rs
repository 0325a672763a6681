//! A plan while it grows: reads see what was already edited, and there is one edit per path.

use super::keep::Builder;
use crate::Result;
use crate::check::Finding;
use crate::family::Scene;
use crate::network_map::Moved;
use crate::patch::{Action, Edit, PatchPlan, Text};
use crate::target::Devices;
use crate::tree::{CONFIG_AT_MOST, GuestTreeExt, NodeKind};
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
    /// Path to place in `edits`.
    index: BTreeMap<String, usize>,
    findings: Vec<Finding>,
    /// How many findings an id has given.
    counts: BTreeMap<&'static str, usize>,
    /// What the network map changes in the edits.
    pub moved: Vec<Moved>,
    /// Files to take out of every initramfs (without leading `/`).
    pub gone_inside: BTreeSet<String>,
    /// Names of encrypted volumes to replace in every initramfs, old and new.
    pub renamed_inside: Vec<(String, String)>,
}

/// More findings of one kind help nobody; a hostile guest could give a million.
const FINDINGS_PER_ID_AT_MOST: usize = 64;

impl<'a> Draft<'a> {
    /// An empty plan for the guest.
    pub fn new(scene: &'a Scene<'a>) -> Self {
        Draft {
            scene,
            devices: Devices::default(),
            builder: Builder::default(),
            edits: Vec::new(),
            index: BTreeMap::new(),
            findings: Vec::new(),
            counts: BTreeMap::new(),
            moved: Vec::new(),
            gone_inside: BTreeSet::new(),
            renamed_inside: Vec::new(),
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
        if let Some(edit) = self.index.get(path).and_then(|at| self.edits.get_mut(*at)) {
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
        if there && !self.is_edited(path) {
            self.push(path, Action::Remove, why);
        }
        Ok(())
    }

    /// The path becomes a copy of `from`, if it is absent.
    pub fn copy_if_absent(&mut self, path: &str, from: &str, why: &str) -> Result<()> {
        if !self.scene.tree.exists(path)? && !self.is_edited(path) {
            self.push(path, Action::Copy { from: from.to_owned() }, why);
        }
        Ok(())
    }

    /// The path becomes a symbolic link, if it is not that link already.
    pub fn symlink(&mut self, path: &str, target: &str, why: &str) -> Result<()> {
        if self.scene.tree.read_link(path)?.as_deref() != Some(target) && !self.is_edited(path) {
            self.push(path, Action::Symlink { target: target.to_owned() }, why);
        }
        Ok(())
    }

    /// One edit as it is, of a path that has none yet.
    pub fn push(&mut self, path: &str, action: Action, why: &str) {
        self.index.insert(path.to_owned(), self.edits.len());
        let labels = Vec::new();
        self.edits.push(Edit { path: path.to_owned(), action, why: why.to_owned(), labels });
    }

    /// Takes back the edits of paths that turn out to mean nothing to the guest.
    pub fn forget(&mut self, is: impl Fn(&str) -> bool) {
        self.edits.retain(|edit| !is(&edit.path));
        self.index = self.edits.iter().enumerate().map(|(at, edit)| (edit.path.clone(), at)).collect();
    }

    /// Every edit so far, to be labelled.
    pub fn edits_mut(&mut self) -> &mut [Edit] {
        &mut self.edits
    }

    /// One finding.
    pub fn find(&mut self, id: &'static str, says: impl Into<String>, remedy: impl Into<String>) {
        let count = self.counts.entry(id).or_default();
        if *count > FINDINGS_PER_ID_AT_MOST {
            return;
        }
        let finding = match *count == FINDINGS_PER_ID_AT_MOST {
            true => Finding::new(id, "There are more findings of this kind than are listed.", remedy),
            false => Finding::new(id, says, remedy),
        };
        if !self.findings.contains(&finding) {
            *count += 1;
            self.findings.push(finding);
        }
    }

    /// The plan, worst findings first.
    pub fn finish(mut self) -> PatchPlan {
        self.findings.sort_by_key(|finding| finding.severity);
        PatchPlan { edits: self.edits, findings: self.findings, devices: self.devices, moved: self.moved }
    }

    fn planned(&self, path: &str) -> Option<&Edit> {
        self.index.get(path).and_then(|at| self.edits.get(*at))
    }

    fn is_edited(&self, path: &str) -> bool {
        self.index.contains_key(path)
    }
}
