//! SUSE Linux Enterprise and openSUSE: RPM, dracut (mkinitrd up to SLES 11), GRUB 2 in `/boot/grub2` (GRUB legacy up to
//! SLES 11), wicked or NetworkManager, btrfs with snapshots by default.

use super::facts::OsRelease;
use super::keep::Builder;
use super::packages::{Packages, World};
use super::planner::{self, Distribution, Identity};
use super::text;
use crate::Result;
use crate::tree::{GuestTree, GuestTreeExt};

/// The family.
pub struct Suse;

impl Distribution for Suse {
    fn family(&self) -> &'static str {
        "suse"
    }

    fn identify(&self, tree: &dyn GuestTree) -> Result<Option<Identity>> {
        if let Some(release) = OsRelease::read(tree)? {
            let ids =
                ["suse", "opensuse", "sles", "sled", "sles_sap", "opensuse-leap", "opensuse-tumbleweed"];
            return Ok(Identity::of_release(&release, &ids));
        }
        // SLES 11 SP3 and before.
        let Some((path, line)) = planner::first_release(tree, &["/etc/SuSE-release"])? else {
            return Ok(None);
        };
        let text = tree.read_text(path)?.unwrap_or_default();
        // Blanks stand around the `=`.
        let text: String = text.lines().map(|line| line.replace(' ', "") + "\n").collect();
        let value = |key| text::assignment(text.as_bytes(), key).unwrap_or("");
        let version = match value("PATCHLEVEL") {
            "" | "0" => value("VERSION").to_owned(),
            level => format!("{}.{level}", value("VERSION")),
        };
        let distribution = match &line {
            _ if line.starts_with("SUSE Linux Enterprise Desktop") => "sled",
            _ if line.starts_with("SUSE Linux Enterprise") => "sles",
            _ => "opensuse",
        };
        Ok(Some(Identity::of_file(path, distribution, &version, &line)))
    }

    fn world(&self) -> World {
        World::Rpm
    }

    fn builder(&self, tree: &dyn GuestTree, _packages: &Packages) -> Result<Builder> {
        Builder::found(tree, &[Builder::Dracut, Builder::MkinitrdSuse])
    }
}

#[cfg(test)]
mod tests;
