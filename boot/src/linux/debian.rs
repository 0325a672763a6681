//! Debian, Ubuntu and their relatives: dpkg, initramfs-tools (or dracut), GRUB 2, ifupdown or netplan.

use super::dpkg::{self, Packages};
use super::draft::Draft;
use super::facts::{self, OsRelease};
use super::lenient::Lenient;
use super::{agents, console, drivers, efi, loader, network, rename, storage};
use crate::Result;
use crate::family::{Family, Scene};
use crate::guest::{Fact, Guest};
use crate::patch::{InitramfsFile, PatchPlan};
use crate::target::Request;
use crate::tree::GuestTreeExt;

/// The family.
pub struct Debian;

impl Family for Debian {
    fn name(&self) -> &'static str {
        "debian"
    }

    fn recognise(&self, scene: &Scene<'_>) -> Result<Option<Guest>> {
        let lenient = Lenient::new(scene.tree);
        let scene = &Scene { tree: &lenient, ..*scene };
        let tree = scene.tree;
        let (distribution, version, name) = match OsRelease::read(tree)? {
            Some(release) if release.is_like("debian") || release.is_like("ubuntu") => {
                let name = match release.get("PRETTY_NAME") {
                    "" => "NAME",
                    _ => "PRETTY_NAME",
                };
                (release.fact("ID"), release.fact("VERSION_ID"), release.fact(name))
            }
            Some(_) => return Ok(None),
            // Before Debian 7 there was no os-release.
            None => {
                let path = "/etc/debian_version";
                let Some(text) = tree.read_text(path)? else { return Ok(None) };
                let version = text.lines().next().unwrap_or("").trim().to_owned();
                let name = format!("Debian GNU/Linux {version}");
                (Fact::new("debian", path), Fact::new(version, path), Fact::new(name, path))
            }
        };
        let packages = Packages::read(tree)?;
        Ok(Some(Guest {
            family: self.name().to_owned(),
            distribution,
            version,
            name,
            architecture: architecture(scene, &packages)?,
            host_name: facts::host_name(tree)?,
            kernels: facts::kernels(tree, dpkg::compare_part)?.found,
            mounts: scene.mounts.to_vec(),
            init: facts::init(tree)?,
            boot_modes: facts::boot_modes(tree, scene.mounts)?,
            interfaces: network::interfaces(&network::read(tree, &packages)?),
            agents: agents::agents(tree, &packages)?,
        }))
    }

    fn plan(&self, scene: &Scene<'_>, guest: &Guest, request: &Request) -> Result<PatchPlan> {
        let lenient = Lenient::new(scene.tree);
        let scene = &Scene { tree: &lenient, ..*scene };
        let mut draft = Draft::new(scene);
        let packages = Packages::read(scene.tree)?;
        if !packages.has("dpkg") {
            draft.find(
                "linux-packages-unchecked",
                format!(
                    "{} is absent, empty or damaged; what is installed was told by files alone.",
                    dpkg::STATUS
                ),
                "Check the package database in the guest (`dpkg --audit`).",
            );
        }
        // What the initramfs copies of changed files become is collected first, and goes into each initramfs once.
        let mut inside = Vec::new();
        rename::plan(&mut draft, &mut inside)?;
        storage::plan(&mut draft, &packages, request, &mut inside)?;
        network::plan(&mut draft, &packages, request, &mut inside)?;
        let inside = last_of_each(inside);
        let kernels = facts::kernels(scene.tree, dpkg::compare_part)?;
        let default = loader::default_kernel(&mut draft)?;
        let known = drivers::plan(&mut draft, &kernels, default.as_deref(), request, &inside)?;
        if packages.has("dracut") {
            drivers::keep_for_dracut(&mut draft, &known)?;
        } else {
            drivers::keep_for_initramfs_tools(&mut draft, &known)?;
        }
        console::plan(&mut draft, request)?;
        loader::plan(&mut draft, guest, request, &packages)?;
        efi::plan(&mut draft, guest, request)?;
        agents::plan(&mut draft, &packages, request)?;
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

fn architecture(scene: &Scene<'_>, packages: &Packages) -> Result<Fact<String>> {
    let by_package = packages.get("dpkg").map(|package| package.architecture.as_str());
    let name = match by_package {
        Some("amd64") => Some("x86_64"),
        Some("arm64") => Some("aarch64"),
        Some("i386") => Some("i686"),
        Some("armhf" | "armel") => Some("armv7l"),
        Some("ppc64el") => Some("ppc64le"),
        Some(other @ ("s390x" | "riscv64")) => Some(other),
        _ => None,
    };
    if let Some(name) = name {
        return Ok(Fact::new(name, dpkg::STATUS));
    }
    Ok(facts::elf_architecture(scene.tree)?.unwrap_or_else(|| Fact::new("", "")))
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
mod tests;
