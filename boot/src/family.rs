//! Guest families: who recognises a guest and plans its patches. One row per family.

use crate::Result;
use crate::guest::{Guest, Mount};
use crate::linux;
use crate::patch::PatchPlan;
use crate::target::Request;
use crate::tree::GuestTree;
use crate::volume::Volume;
use crate::windows;

/// A guest as it lies there: its files and what they lie on.
pub struct Scene<'a> {
    /// All its files, mounted as it would mount them.
    pub tree: &'a dyn GuestTree,
    /// Every volume on the machine's disks, the guest's or not.
    pub volumes: &'a [Volume],
    /// Which volume is mounted where, `/` first.
    pub mounts: &'a [Mount],
}

/// One family of guests.
pub trait Family: Sync {
    /// For reports: `debian`.
    fn name(&self) -> &'static str;
    /// The facts, if the guest is of this family.
    fn recognise(&self, scene: &Scene<'_>) -> Result<Option<Guest>>;
    /// What has to change for the request, and what was found. Reads only.
    fn plan(&self, scene: &Scene<'_>, guest: &Guest, request: &Request) -> Result<PatchPlan>;
}

/// Every family, the most specific first.
pub const TABLE: &[&dyn Family] = &[
    &linux::debian::Debian,
    &linux::redhat::RedHat,
    &linux::suse::Suse,
    &linux::alpine::Alpine,
    &linux::arch::Arch,
    &windows::planner::Windows,
];

/// Agents of platforms that a user can keep or drop by name, of guests of all families.
pub fn agents() -> Vec<&'static str> {
    let mut names = linux::agents::names();
    for name in windows::agents::names() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The family of the guest and its facts; `None` where no family knows it.
pub fn recognise(scene: &Scene<'_>) -> Result<Option<(&'static dyn Family, Guest)>> {
    for family in TABLE {
        if let Some(guest) = family.recognise(scene)? {
            return Ok(Some((*family, guest)));
        }
    }
    Ok(None)
}
