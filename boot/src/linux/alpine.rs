//! Alpine: apk, mkinitfs, extlinux or GRUB, OpenRC, ifupdown of busybox. Device names are busybox's mdev's, or udev's.

use super::facts::OsRelease;
use super::keep::Builder;
use super::packages::{Packages, World};
use super::planner::{self, Distribution, Identity};
use crate::Result;
use crate::tree::GuestTree;

/// The family.
pub struct Alpine;

impl Distribution for Alpine {
    fn family(&self) -> &'static str {
        "alpine"
    }

    fn identify(&self, tree: &dyn GuestTree) -> Result<Option<Identity>> {
        if let Some(release) = OsRelease::read(tree)? {
            return Ok(Identity::of_release(&release, &["alpine"]));
        }
        let release = planner::first_release(tree, &["/etc/alpine-release"])?;
        Ok(release.map(|(path, version)| {
            Identity::of_file(path, "alpine", &version, &format!("Alpine Linux {version}"))
        }))
    }

    fn world(&self) -> World {
        World::Apk
    }

    fn builder(&self, tree: &dyn GuestTree, _packages: &Packages) -> Result<Builder> {
        Builder::found(tree, &[Builder::Mkinitfs, Builder::Dracut, Builder::Mkinitcpio])
    }
}

#[cfg(test)]
mod tests;
