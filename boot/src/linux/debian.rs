//! Debian, Ubuntu and their relatives: dpkg, initramfs-tools (or dracut), GRUB 2, ifupdown or netplan.

use super::facts::OsRelease;
use super::keep::Builder;
use super::packages::{Packages, World};
use super::planner::{Distribution, Identity};
use crate::Result;
use crate::tree::{GuestTree, GuestTreeExt};

/// The family.
pub struct Debian;

impl Distribution for Debian {
    fn family(&self) -> &'static str {
        "debian"
    }

    fn identify(&self, tree: &dyn GuestTree) -> Result<Option<Identity>> {
        if let Some(release) = OsRelease::read(tree)? {
            return Ok(Identity::of_release(&release, &["debian", "ubuntu"]));
        }
        // Before Debian 7 there was no os-release.
        let path = "/etc/debian_version";
        let Some(text) = tree.read_text(path)? else { return Ok(None) };
        let version = text.lines().next().unwrap_or("").trim();
        Ok(Some(Identity::of_file(path, "debian", version, &format!("Debian GNU/Linux {version}"))))
    }

    fn world(&self) -> World {
        World::Dpkg
    }

    fn builder(&self, _tree: &dyn GuestTree, packages: &Packages) -> Result<Builder> {
        Ok(if packages.has("dracut") { Builder::Dracut } else { Builder::InitramfsTools })
    }
}

#[cfg(test)]
pub(super) mod tests;
