//! A plan for a Windows guest while it grows: its hives by the files they lie in, its other files, findings.

use super::hives;
use super::registry::Registry;
use crate::Result;
use crate::check::Findings;
use crate::family::Scene;
use crate::host_file::HostFile;
use crate::network_map::Moved;
use crate::patch::{Action, Edit, PatchPlan, RegistryEdits, Text};
use crate::target::{Clock, Devices, Request};
use crate::tree::{CONFIG_AT_MOST, GuestTreeExt, Meta, NodeKind};
use std::collections::BTreeMap;

/// What every part that plans has to know of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Folder of Windows as it is called: `/Windows`.
    pub folder: String,
    /// Version by the kernel's counting, such as 10.0 with its build: 7 is 6.1, 8 is 6.2, 11 is 10.0 from build 22000.
    pub version: Version,
    /// `x86_64`, `i686`, `aarch64`.
    pub architecture: String,
    /// It is a server.
    pub is_server: bool,
    /// The control set that the next start takes, as a key below the root of SYSTEM: `ControlSet001`.
    pub control: String,
}

/// Of Windows NT: major, minor and build, compared in this order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, schemars::JsonSchema,
)]
pub struct Version {
    /// 6, 10
    pub major: u32,
    /// 1 of Windows 7
    pub minor: u32,
    /// 7601, 22631
    pub build: u32,
}

impl Version {
    /// Windows Vista and Server 2008.
    pub const VISTA: Version = Version { major: 6, minor: 0, build: 0 };
    /// Windows 7 and Server 2008 R2.
    pub const SEVEN: Version = Version { major: 6, minor: 1, build: 0 };
    /// Windows 8 and Server 2012.
    pub const EIGHT: Version = Version { major: 6, minor: 2, build: 0 };
    /// Windows 8.1 and Server 2012 R2.
    pub const EIGHT_ONE: Version = Version { major: 6, minor: 3, build: 0 };
    /// Windows 10 and Server 2016.
    pub const TEN: Version = Version { major: 10, minor: 0, build: 0 };
    /// Windows 11.
    pub const ELEVEN: Version = Version { major: 10, minor: 0, build: 22000 };
}

impl System {
    /// A path below the folder of Windows: `system("System32/config")`.
    pub fn path(&self, below: &str) -> String {
        format!("{}/{below}", self.folder)
    }
    /// A key of the control set that the next start takes: `control("Services\\disk")`.
    pub fn key(&self, below: &str) -> String {
        format!("{}\\{below}", self.control)
    }
}

/// The edits and findings so far.
pub struct Draft<'a> {
    /// The guest.
    pub scene: &'a Scene<'a>,
    /// What is wanted.
    pub request: &'a Request,
    /// What every part has to know of it.
    pub system: System,
    /// HKEY_LOCAL_MACHINE\SYSTEM. There is no `CurrentControlSet` in it: see [`System::key`].
    pub registry: Registry,
    /// HKEY_LOCAL_MACHINE\SOFTWARE.
    pub software: Registry,
    /// What the definition has to offer.
    pub devices: Devices,
    /// What the network map changes.
    pub moved: Vec<Moved>,
    /// What the guest takes the virtual real-time clock for.
    pub clock: Option<Clock>,
    /// Further hives by their files: the boot configuration.
    others: BTreeMap<String, Registry>,
    edits: Vec<Edit>,
    findings: Findings,
}

impl<'a> Draft<'a> {
    /// An empty plan for the guest.
    pub fn new(
        scene: &'a Scene<'a>,
        request: &'a Request,
        system: System,
        registry: Registry,
        software: Registry,
    ) -> Draft<'a> {
        Draft {
            scene,
            request,
            system,
            registry,
            software,
            devices: Devices::default(),
            moved: Vec::new(),
            clock: None,
            others: BTreeMap::new(),
            edits: Vec::new(),
            findings: Findings::default(),
        }
    }

    /// The hive in another file of the guest; `None` where there is no such file.
    ///
    /// # Errors
    /// Where it cannot be read as a hive.
    pub fn hive(&mut self, path: &str) -> Result<Option<&mut Registry>> {
        if !self.others.contains_key(path) {
            let Some((registry, note)) = hives::registry(self.scene.tree, path)? else { return Ok(None) };
            self.replayed(note);
            self.others.insert(path.to_owned(), registry);
        }
        Ok(self.others.get_mut(path))
    }

    /// Tells of what was replayed into a hive, if anything was.
    pub fn replayed(&mut self, note: hives::Replayed) {
        if let Some(note) = note {
            let remedy = "Nothing is to be done; Windows does the same when it starts after a loss of power.";
            self.find("windows-registry-replayed", note, remedy);
        }
    }

    /// Puts a hive in the place of a file's: for tests of what plans.
    #[cfg(test)]
    pub(crate) fn put_hive(&mut self, path: &str, hive: Registry) {
        self.others.insert(path.to_owned(), hive);
    }

    /// A file as it will be after the edits so far; `None` where it is absent.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let planned = self.edits.iter().find(|edit| edit.path.eq_ignore_ascii_case(path));
        match planned.map(|edit| &edit.action) {
            Some(Action::Write { contents, .. }) => Ok(Some(contents.0.clone())),
            Some(Action::Remove) => Ok(None),
            _ => self.scene.tree.read(path, CONFIG_AT_MOST),
        }
    }

    /// The file's content becomes this, if it is not so already.
    pub fn write(&mut self, path: &str, contents: impl Into<Vec<u8>>, why: &str) -> Result<()> {
        let contents = contents.into();
        if self.read(path)?.as_ref() != Some(&contents) {
            self.push(path, Action::Write { contents: Text(contents), mode: 0o644 }, why);
        }
        Ok(())
    }

    /// True where the guest has that very file.
    pub fn has(&self, path: &str, file: &HostFile) -> Result<bool> {
        let is_alike = |meta: Meta| meta.kind == NodeKind::File && meta.size == file.size;
        if !self.scene.tree.metadata(path)?.is_some_and(is_alike) {
            return Ok(false);
        }
        let found = self.scene.tree.sha256(path, file.size)?;
        Ok(found.is_some_and(|(_, sha256)| sha256 == file.sha256))
    }

    /// The file becomes a copy of this one of the host.
    pub fn stage(&mut self, path: &str, file: &HostFile, why: &str) {
        self.push(path, Action::Stage(file.clone()), why);
    }

    /// The path becomes a copy of another guest file, if it is absent.
    pub fn copy_if_absent(&mut self, path: &str, from: &str, why: &str) -> Result<()> {
        if !self.scene.tree.exists(path)? {
            self.push(path, Action::Copy { from: from.to_owned() }, why);
        }
        Ok(())
    }

    /// The file is removed, if it is there.
    pub fn remove(&mut self, path: &str, why: &str) -> Result<()> {
        if self.scene.tree.exists(path)? {
            self.push(path, Action::Remove, why);
        }
        Ok(())
    }

    /// One edit as it is. An earlier one of the same file is replaced.
    pub fn push(&mut self, path: &str, action: Action, why: &str) {
        self.edits.retain(|edit| !edit.path.eq_ignore_ascii_case(path));
        self.edits.push(Edit { path: path.to_owned(), action, why: why.to_owned(), labels: Vec::new() });
    }

    /// One finding.
    pub fn find(&mut self, id: &'static str, says: impl Into<String>, remedy: impl Into<String>) {
        self.findings.find(id, says, remedy);
    }

    /// The plan, worst findings first. The registry is written last: what it refers to is there by then.
    pub fn finish(mut self) -> PatchPlan {
        let (system, software) = ("System32/config/SYSTEM", "System32/config/SOFTWARE");
        let hives = self
            .others
            .into_iter()
            .chain([(self.system.path(software), self.software), (self.system.path(system), self.registry)]);
        for (path, registry) in hives {
            let edits = registry.finish();
            if !edits.is_empty() {
                let why = "Keys and values of the registry, each with its reason.".to_owned();
                let action = Action::Registry(RegistryEdits(edits));
                self.edits.push(Edit { path, action, why, labels: Vec::new() });
            }
        }
        PatchPlan {
            edits: self.edits,
            findings: self.findings.finish(),
            devices: self.devices,
            moved: self.moved,
            clock: self.clock,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::data::Data;
    use super::super::registry::tests::MemKeys;
    use super::*;

    /// A Windows 10 in `/Windows` that starts from `ControlSet001`.
    pub(crate) fn ten() -> System {
        System {
            folder: "/Windows".into(),
            version: Version { build: 19045, ..Version::TEN },
            architecture: "x86_64".into(),
            is_server: false,
            control: "ControlSet001".into(),
        }
    }

    /// A draft over values of SYSTEM and SOFTWARE: key, name, data.
    pub(crate) fn draft<'a>(
        scene: &'a Scene<'a>,
        request: &'a Request,
        system: System,
        registry: &[(&str, &str, Data)],
        software: &[(&str, &str, Data)],
    ) -> Draft<'a> {
        let keys = |values| Registry::new(Box::new(MemKeys::of(values)));
        Draft::new(scene, request, system, keys(registry), keys(software))
    }
}
