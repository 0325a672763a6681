//! Arch and what is built from it (Manjaro, EndeavourOS): pacman, mkinitcpio (or dracut), any boot loader, systemd.

use super::facts::OsRelease;
use super::keep::Builder;
use super::packages::{Packages, World};
use super::planner::{Distribution, Identity};
use crate::Result;
use crate::tree::{GuestTree, GuestTreeExt};

/// The family.
pub struct Arch;

impl Distribution for Arch {
    fn family(&self) -> &'static str {
        "arch"
    }

    fn identify(&self, tree: &dyn GuestTree) -> Result<Option<Identity>> {
        if let Some(release) = OsRelease::read(tree)? {
            return Ok(Identity::of_release(&release, &["arch"]));
        }
        // The file is empty: it only says that it is there. The release rolls, and has no version.
        let path = "/etc/arch-release";
        Ok(tree.exists(path)?.then(|| Identity::of_file(path, "arch", "", "Arch Linux")))
    }

    fn world(&self) -> World {
        World::Pacman
    }

    fn builder(&self, tree: &dyn GuestTree, _packages: &Packages) -> Result<Builder> {
        Builder::found(tree, &[Builder::Mkinitcpio, Builder::Dracut])
    }
}

#[cfg(test)]
mod tests;
