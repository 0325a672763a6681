//! Red Hat Enterprise Linux and what is built from it or like it: CentOS, Rocky, Alma, Oracle and Amazon Linux, Fedora.
//! RPM, dracut (mkinitrd up to RHEL 5), GRUB 2 in `/boot/grub2` (GRUB legacy up to RHEL 6), SELinux.

use super::facts::OsRelease;
use super::keep::Builder;
use super::packages::{Packages, World};
use super::planner::{self, Distribution, Identity};
use crate::Result;
use crate::tree::GuestTree;

/// The family.
pub struct RedHat;

impl Distribution for RedHat {
    fn family(&self) -> &'static str {
        "redhat"
    }

    fn identify(&self, tree: &dyn GuestTree) -> Result<Option<Identity>> {
        if let Some(release) = OsRelease::read(tree)? {
            return Ok(Identity::of_release(&release, &["rhel", "fedora", "centos", "ol", "amzn"]));
        }
        // RHEL 6 and before. A rebuild has the first two beside its own, which says more.
        let files =
            ["/etc/oracle-release", "/etc/centos-release", "/etc/redhat-release", "/etc/system-release"];
        let Some((path, line)) = planner::first_release(tree, &files)? else { return Ok(None) };
        // `CentOS release 5.11 (Final)`, `Red Hat Enterprise Linux Server release 6.10 (Santiago)`
        let Some((name, rest)) = line.split_once(" release ") else { return Ok(None) };
        let version = rest.split_whitespace().next().unwrap_or("");
        let distribution = match name {
            _ if name.starts_with("Red Hat") => "rhel",
            _ if name.starts_with("CentOS") => "centos",
            _ if name.starts_with("Oracle") || name.starts_with("Enterprise Linux") => "ol",
            _ if name.starts_with("Scientific") => "scientific",
            _ if name.starts_with("Fedora") => "fedora",
            _ if name.starts_with("Amazon") => "amzn",
            _ => "redhat",
        };
        Ok(Some(Identity::of_file(path, distribution, version, &line)))
    }

    fn world(&self) -> World {
        World::Rpm
    }

    fn builder(&self, tree: &dyn GuestTree, _packages: &Packages) -> Result<Builder> {
        Builder::found(tree, &[Builder::Dracut, Builder::MkinitrdRedHat])
    }
}

#[cfg(test)]
pub(super) mod tests;
