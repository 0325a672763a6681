//! What is the same for every distribution: reading the facts, and the order of the parts that plan. A distribution says
//! only how it is known, who manages its packages and who builds its next initramfs.

use super::draft::Draft;
use super::facts::{self, OsRelease};
use super::keep::{self, Builder};
use super::lenient::Lenient;
use super::packages::{Packages, World};
use super::{agents, console, drivers, efi, loader, network, rename, selinux, storage};
use crate::Result;
use crate::family::{Family, Scene};
use crate::guest::{Fact, Guest};
use crate::patch::{InitramfsFile, PatchPlan};
use crate::target::Request;
use crate::tree::{GuestTree, GuestTreeExt};

/// What a guest calls itself.
pub(super) struct Identity {
    pub distribution: Fact<String>,
    pub version: Fact<String>,
    pub name: Fact<String>,
}

/// A family of distributions, by what is its own.
pub(super) trait Distribution: Sync {
    /// For reports: `debian`.
    fn family(&self) -> &'static str;
    /// What the guest calls itself, if it is of this family.
    fn identify(&self, tree: &dyn GuestTree) -> Result<Option<Identity>>;
    /// Who manages its packages.
    fn world(&self) -> World;
    /// What builds the next initramfs.
    fn builder(&self, tree: &dyn GuestTree, packages: &Packages) -> Result<Builder>;
}

impl Identity {
    /// From os-release, if it says that the guest is, or is like, one of `ids`.
    pub fn of_release(release: &OsRelease, ids: &[&str]) -> Option<Self> {
        let name = match release.get("PRETTY_NAME") {
            "" => "NAME",
            _ => "PRETTY_NAME",
        };
        ids.iter().any(|id| release.is_like(id)).then(|| Identity {
            distribution: release.fact("ID"),
            version: release.fact("VERSION_ID"),
            name: release.fact(name),
        })
    }

    /// From what an older release had in its place.
    pub fn of_file(path: &str, distribution: &str, version: &str, name: &str) -> Self {
        Identity {
            distribution: Fact::new(distribution, path),
            version: Fact::new(version, path),
            name: Fact::new(name, path),
        }
    }
}

impl<D: Distribution> Family for D {
    fn name(&self) -> &'static str {
        self.family()
    }

    fn recognise(&self, scene: &Scene<'_>) -> Result<Option<Guest>> {
        let lenient = Lenient::new(scene.tree);
        let tree: &dyn GuestTree = &lenient;
        let Some(identity) = self.identify(tree)? else { return Ok(None) };
        let packages = Packages::read(self.world(), tree)?;
        Ok(Some(Guest {
            family: self.family().to_owned(),
            distribution: identity.distribution,
            version: identity.version,
            name: identity.name,
            architecture: architecture(tree, &packages)?,
            host_name: facts::host_name(tree)?,
            kernels: facts::kernels(tree, scene.mounts, self.world().order())?.found,
            mounts: scene.mounts.to_vec(),
            init: facts::init(tree)?,
            boot_modes: facts::boot_modes(tree, scene.mounts)?,
            interfaces: network::interfaces(&network::read(tree, &packages)?),
            agents: agents::agents(tree, &packages)?,
            windows: None,
        }))
    }

    fn plan(&self, scene: &Scene<'_>, guest: &Guest, request: &Request) -> Result<PatchPlan> {
        let lenient = Lenient::new(scene.tree);
        let scene = &Scene { tree: &lenient, ..*scene };
        let mut draft = Draft::new(scene);
        let packages = Packages::read(self.world(), scene.tree)?;
        if !packages.is_sound() {
            draft.find(
                "linux-packages-unchecked",
                format!(
                    "{} is absent, empty or damaged; what is installed was told by files alone.",
                    self.world().database()
                ),
                match self.world() {
                    World::Dpkg => "Check the package database in the guest (`dpkg --audit`).",
                    _ => "Check the package database in the guest.",
                },
            );
        }
        draft.builder = self.builder(scene.tree, &packages)?;
        // What the initramfs copies of changed files become is collected first, and goes into each initramfs once.
        let mut inside = Vec::new();
        rename::plan(&mut draft, &mut inside)?;
        storage::plan(&mut draft, &packages, request, &mut inside)?;
        network::plan(&mut draft, &packages, request, &mut inside)?;
        if !has_udev(scene.tree, &packages)? {
            // Nothing would read them: the kernel's own names stay.
            draft.forget(is_for_udev);
            inside.retain(|file| !is_for_udev(&file.path));
        }
        let inside = last_of_each(inside);
        let copies = loader::Copies::read(scene.tree, scene.mounts)?;
        network::built_in(&mut draft, request, &copies);
        let kernels = facts::kernels_and(scene.tree, &copies, self.world().order())?;
        let default = loader::default_kernel(&mut draft, &copies)?;
        let default = default.map(|named| kernels.version_of(&named).map_or(named.clone(), str::to_owned));
        let known = drivers::plan(&mut draft, &kernels, default.as_deref(), request, &inside)?;
        keep::plan(&mut draft, &kernels, &known, request)?;
        console::plan(&mut draft, guest, request)?;
        loader::plan(&mut draft, &copies, guest, request, &packages)?;
        efi::plan(&mut draft, guest, request, &copies)?;
        agents::plan(&mut draft, &packages, request, guest)?;
        if let Some(file) = &request.registry {
            draft.find(
                "linux-registry-file",
                format!("{} holds edits of a Windows registry, and this guest is Linux.", file.name),
                "Leave --registry out for this machine.",
            );
        }
        if let Some(installer) = request.agent_installers.first() {
            draft.find(
                "linux-agent-installer",
                format!("{} is an installer for Windows, and this guest is Linux.", installer.name),
                "Leave --agent-installer out for this machine.",
            );
        }
        selinux::plan(&mut draft)?;
        for (path, error) in lenient.failed() {
            draft.find(
                "linux-file-unreadable",
                format!("{path} could not be checked: {error}."),
                format!("Check {path} by hand."),
            );
        }
        Ok(draft.finish())
    }
}

/// Alpine names devices by busybox's mdev, unless it is told otherwise.
fn has_udev(tree: &dyn GuestTree, packages: &Packages) -> Result<bool> {
    if packages.world() != World::Apk || packages.has("eudev") {
        return Ok(true);
    }
    Ok(tree.exists("/sbin/udevd")? || tree.exists("/usr/lib/systemd/systemd-udevd")?)
}

fn is_for_udev(path: &str) -> bool {
    path.ends_with(".link") || path.contains("/udev/rules.d/")
}

/// As the package manager calls it, or by the header of a program.
fn architecture(tree: &dyn GuestTree, packages: &Packages) -> Result<Fact<String>> {
    let manager = match packages.world() {
        World::Dpkg => "dpkg",
        World::Apk => "apk-tools",
        World::Rpm | World::Pacman => "",
    };
    let by_package = packages.get(manager).map(|package| package.architecture.as_str());
    let name = match by_package {
        Some("amd64" | "x86_64") => Some("x86_64"),
        Some("arm64" | "aarch64") => Some("aarch64"),
        Some("i386" | "x86") => Some("i686"),
        Some("armhf" | "armel" | "armv7") => Some("armv7l"),
        Some("ppc64el" | "ppc64le") => Some("ppc64le"),
        Some(other @ ("s390x" | "riscv64")) => Some(other),
        _ => None,
    };
    if let Some(name) = name {
        return Ok(Fact::new(name, packages.world().database()));
    }
    Ok(facts::elf_architecture(tree)?.unwrap_or_else(|| Fact::new("", "")))
}

/// The first of the files that exists, with its first line; for what came before os-release.
pub(super) fn first_release(
    tree: &dyn GuestTree,
    paths: &[&'static str],
) -> Result<Option<(&'static str, String)>> {
    for path in paths {
        if let Some(text) = tree.read_text(path)? {
            let line = text.lines().next().unwrap_or("").trim();
            return Ok(Some((path, line.chars().filter(|char| !char.is_control()).take(100).collect())));
        }
    }
    Ok(None)
}

fn last_of_each(files: Vec<InitramfsFile>) -> Vec<InitramfsFile> {
    let mut unique: Vec<InitramfsFile> = Vec::new();
    for file in files {
        unique.retain(|known| known.path != file.path);
        unique.push(file);
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_files_inside_the_last_counts() {
        let file = |path: &str, text: &str| InitramfsFile {
            path: path.into(),
            contents: text.to_owned().into(),
            mode: 0o644,
        };
        let unique = last_of_each(vec![file("a", "1"), file("b", "2"), file("a", "3")]);
        assert_eq!(unique, [file("b", "2"), file("a", "3")]);
    }
}
